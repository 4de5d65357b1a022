/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/samples.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t bench_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void make_room(struct samples *samples, size_t more)
{
    while (samples->room < samples->count + more) {
        samples->room = samples->room == 0 ? 65536 : samples->room * 2;
        samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
        if (samples->ns == NULL) {
            abort();
        }
    }
}

void samples_add(struct samples *samples, uint64_t ns)
{
    make_room(samples, 1);
    samples->ns[samples->count++] = ns;
}

void samples_merge(struct samples *into, const struct samples *from)
{
    make_room(into, from->count);
    if (from->count > 0) {
        memcpy(into->ns + into->count, from->ns, from->count * sizeof *from->ns);
    }
    into->count += from->count;
}

void samples_done(struct samples *samples)
{
    free(samples->ns);
    memset(samples, 0, sizeof *samples);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;

    return (*x > *y) - (*x < *y);
}

/* The nearest-rank percentile, in microseconds. */
static double percentile_us(const struct samples *samples, double percent)
{
    double rank = percent / 100.0 * (double)samples->count;
    size_t i = (size_t)rank;

    if (samples->count == 0) {
        return 0.0;
    }
    if (i >= samples->count) {
        i = samples->count - 1;
    }
    return (double)samples->ns[i] / 1000.0;
}

void samples_print(struct samples *samples, double seconds, FILE *out)
{
    if (samples->count > 0) {
        qsort(samples->ns, samples->count, sizeof *samples->ns, compare);
    }
    (void)fprintf(out,
                  "\"calls\":%zu,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
                  "\"max_us\":%.1f",
                  samples->count, seconds > 0.0 ? (double)samples->count / seconds : 0.0,
                  percentile_us(samples, 50), percentile_us(samples, 99),
                  percentile_us(samples, 100));
}
