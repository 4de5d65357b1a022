/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/daemon/scan.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS    65536u /* by a piece's first two bytes */
#define CHUNK      ((size_t)1 << 20)
#define SHOWN_HITS 4

struct piece {
    uint64_t bytes;
    size_t needle;
    size_t next; /* in the bucket, plus one; 0: the last */
};

struct scan {
    struct piece *pieces;
    size_t count;
    size_t room;
    size_t needles;
    size_t heads[BUCKETS]; /* plus one; 0: none */
};

/* One run over a process. */
struct run {
    const struct scan *scan;
    struct scan_result *result;
    bool *seen; /* per needle */
    int mem;
    uint8_t *chunk;
};

struct scan *scan_new(void)
{
    return calloc(1, sizeof(struct scan));
}

void scan_free(struct scan *scan)
{
    if (scan != NULL) {
        free(scan->pieces);
        free(scan);
    }
}

static unsigned bucket_of(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

void scan_add(struct scan *scan, const void *needle, size_t len)
{
    const uint8_t *bytes = needle;

    for (size_t at = 0; at + SCAN_PIECE <= len; at += SCAN_PIECE) {
        if (scan->count == scan->room) {
            scan->room = scan->room * 2 + 64;
            scan->pieces = reallocarray(scan->pieces, scan->room, sizeof(*scan->pieces));
            if (scan->pieces == NULL) {
                abort();
            }
        }
        struct piece *piece = &scan->pieces[scan->count++];

        memcpy(&piece->bytes, bytes + at, SCAN_PIECE);
        piece->needle = scan->needles;
        piece->next = scan->heads[bucket_of(bytes + at)];
        scan->heads[bucket_of(bytes + at)] = scan->count;
    }
    scan->needles++;
}

static void note_hit(struct run *run, const struct piece *piece, uintptr_t address,
                     const char *mapping)
{
    struct scan_result *result = run->result;
    size_t used = strlen(result->where);

    if (result->hits++ < SHOWN_HITS) {
        (void)snprintf(result->where + used, sizeof(result->where) - used, " %#lx in [%s]",
                       (unsigned long)address, mapping);
    }
    if (!run->seen[piece->needle]) {
        run->seen[piece->needle] = true;
        result->needles++;
    }
}

static void look_through(struct run *run, size_t len, uintptr_t address, const char *mapping)
{
    const struct scan *scan = run->scan;

    for (size_t i = 0; i + SCAN_PIECE <= len; i++) {
        uint64_t here;

        if (scan->heads[bucket_of(run->chunk + i)] == 0) {
            continue;
        }
        memcpy(&here, run->chunk + i, SCAN_PIECE);
        for (size_t at = scan->heads[bucket_of(run->chunk + i)]; at != 0;
             at = scan->pieces[at - 1].next) {
            if (scan->pieces[at - 1].bytes == here) {
                note_hit(run, &scan->pieces[at - 1], address + i, mapping);
            }
        }
    }
}

/* Chunks overlap by a piece less one, so that none is missed between two. */
static void look_at_mapping(struct run *run, uintptr_t from, uintptr_t to, const char *mapping)
{
    while (from < to) {
        size_t want = to - from < CHUNK ? to - from : CHUNK;
        ssize_t got = pread(run->mem, run->chunk, want, (off_t)from);

        if (got < SCAN_PIECE) {
            return; /* a guard page, or gone */
        }
        run->result->bytes += (size_t)got;
        look_through(run, (size_t)got, from, mapping);
        from += (size_t)got < want || from + want == to ? (size_t)got : want - (SCAN_PIECE - 1);
    }
}

static void look_at_line(struct run *run, const char *line)
{
    unsigned long from = 0;
    unsigned long to = 0;
    char mode[8] = "";
    int name = 0;
    char mapping[128];

    if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %n", &from, &to, mode, &name) < 3 || mode[1] != 'w') {
        return;
    }
    (void)snprintf(mapping, sizeof(mapping), "%lx-%lx %.80s", from, to, line + name);
    mapping[strcspn(mapping, "\n")] = '\0';
    look_at_mapping(run, from, to, mapping);
}

bool scan_process(struct scan *scan, pid_t pid, struct scan_result *ret_result)
{
    char path[64];
    char line[512];
    FILE *maps;
    struct run run = {.scan = scan, .result = ret_result};

    memset(ret_result, 0, sizeof(*ret_result));
    (void)snprintf(path, sizeof(path), "/proc/%ld/mem", (long)pid);
    run.mem = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    maps = fopen(path, "re");
    run.chunk = malloc(CHUNK);
    run.seen = calloc(scan->needles + 1, sizeof(bool));
    if (run.mem >= 0 && maps != NULL && run.chunk != NULL && run.seen != NULL) {
        while (fgets(line, sizeof(line), maps) != NULL) {
            look_at_line(&run, line);
        }
    }
    if (maps != NULL) {
        (void)fclose(maps);
    }
    if (run.mem >= 0) {
        (void)close(run.mem);
    }
    free(run.chunk);
    free(run.seen);
    return ret_result->bytes > 0;
}
