/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/resident.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define NOTED_MAX 1024 /* some 60 libraries have 200 */

static struct {
    uintptr_t start, end;
} noted[NOTED_MAX];
static size_t noted_count;

struct mapping {
    uintptr_t start, end;
    bool is_code;         /* a file's, private, read-only */
    unsigned long copied; /* KiB that are no longer the file's, in memory or swapped out */
};

/* "START-END PERMISSIONS OFFSET DEVICE INODE PATH"; false: a row of a mapping's counts. */
static bool begins(const char *line, struct mapping *ret)
{
    char permissions[5];
    unsigned long inode = 0;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %lu", &ret->start, &ret->end,
               permissions, &inode) != 4) {
        return false;
    }
    ret->is_code = inode != 0 && permissions[1] == '-' && permissions[3] == 'p';
    ret->copied = 0;
    return true;
}

static void count(const char *line, struct mapping *mapping)
{
    unsigned long kib = 0;
    if (sscanf(line, "Anonymous: %lu kB", &kib) == 1 || sscanf(line, "Swap: %lu kB", &kib) == 1) {
        mapping->copied += kib;
    }
}

static bool is_noted(const struct mapping *mapping)
{
    for (size_t i = 0; i < noted_count; i++) {
        if (noted[i].start == mapping->start && noted[i].end == mapping->end) {
            return true;
        }
    }
    return false;
}

static void note(const struct mapping *mapping)
{
    if (mapping->is_code && noted_count < NOTED_MAX) {
        noted[noted_count].start = mapping->start;
        noted[noted_count++].end = mapping->end;
    }
}

static void let_go(const struct mapping *mapping)
{
    if (mapping->is_code && mapping->copied == 0 && is_noted(mapping)) {
        (void)madvise((void *)mapping->start, mapping->end - mapping->start, MADV_DONTNEED);
    }
}

static void visit_all(void (*visit)(const struct mapping *mapping))
{
    char line[512];
    struct mapping mapping = {.is_code = false};
    FILE *file = fopen("/proc/self/smaps", "re");
    if (file == NULL) {
        return;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        struct mapping next;
        if (begins(line, &next)) {
            visit(&mapping);
            mapping = next;
        } else {
            count(line, &mapping);
        }
    }
    visit(&mapping);
    (void)fclose(file);
}

void kms_resident_note(void)
{
    noted_count = 0;
    visit_all(note);
}

void kms_resident_trim(void)
{
    visit_all(let_go);
}
