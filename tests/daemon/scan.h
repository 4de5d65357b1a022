/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks for byte strings in all writable memory of another process, through /proc/PID/maps and
 * /proc/PID/mem: needs root or the process's own user, if it is dumpable.
 */
#ifndef KMSBRIDGE_TESTS_DAEMON_SCAN_H
#define KMSBRIDGE_TESTS_DAEMON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SCAN_PIECE 8 /* a needle is looked for in pieces: a leftover half counts as well */

struct scan;

struct scan_result {
    size_t bytes;    /* looked at */
    size_t hits;     /* pieces found, each as often as it is there */
    size_t needles;  /* different needles of which a piece was found */
    char where[512]; /* the first few: address and mapping */
};

struct scan *scan_new(void);
void scan_free(struct scan *scan);
/* Adds @len bytes, a multiple of SCAN_PIECE, that look random. */
void scan_add(struct scan *scan, const void *needle, size_t len);
/* False when the memory cannot be read. */
bool scan_process(struct scan *scan, pid_t pid, struct scan_result *ret_result);

#endif
