/* SPDX-License-Identifier: Apache-2.0 */
/* Latencies of one run, kept one by one: percentiles are exact, not read off a histogram. */
#ifndef KMSBRIDGE_TESTS_BENCH_SAMPLES_H
#define KMSBRIDGE_TESTS_BENCH_SAMPLES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct samples {
    uint64_t *ns;
    size_t count;
    size_t room;
};

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t bench_now(void);

void samples_add(struct samples *samples, uint64_t ns);
void samples_merge(struct samples *into, const struct samples *from);
void samples_done(struct samples *samples);

/* Prints `"calls":..,"per_second":..,"p50_us":..,"p99_us":..,"max_us":..`; sorts the samples. */
void samples_print(struct samples *samples, double seconds, FILE *out);

#endif
