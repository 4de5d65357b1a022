/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/resident.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

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

static void let_go(const struct mapping *mapping)
{
    if (mapping->is_code && mapping->copied == 0) {
        (void)madvise((void *)mapping->start, mapping->end - mapping->start, MADV_DONTNEED);
    }
}

void kms_resident_trim(void)
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
            let_go(&mapping);
            mapping = next;
        } else {
            count(line, &mapping);
        }
    }
    let_go(&mapping);
    (void)fclose(file);
}
