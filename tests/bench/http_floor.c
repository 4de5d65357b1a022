/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the key service itself can do: the same HTTP exchange by bare libcurl, a kept connection for
 * each thread, without any server of ours. Prints one JSON line per number of threads.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/exchange.h"
#include "tests/bench/samples.h"

enum { MAX_THREADS = 64 };

struct worker {
    pthread_t thread;
    uint64_t start, end;
    bool failed;
    struct exchange exchange;
    struct samples samples;
};

static void *work(void *argument)
{
    struct worker *w = argument;

    exchange_init(&w->exchange);
    for (uint64_t before = bench_now(); !w->failed && before < w->end;) {
        uint64_t after = 0;
        size_t len = 0;

        w->failed = exchange_perform(&w->exchange, &len) == NULL;
        after = bench_now();
        if (before >= w->start) {
            samples_add(&w->samples, after - before);
        }
        before = after;
    }
    exchange_done(&w->exchange);
    return NULL;
}

static bool measure(unsigned threads, double seconds)
{
    static struct worker workers[MAX_THREADS];
    struct samples all = {0};
    uint64_t start = bench_now() + 300000000U;
    bool ok = true;

    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.start = start, .end = start + (uint64_t)(seconds * 1e9)};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        ok = ok && !workers[i].failed;
        samples_merge(&all, &workers[i].samples);
        samples_done(&workers[i].samples);
    }
    printf("{\"client\":\"curl\",\"load\":{\"method\":\"Encrypt\",\"callers\":%u,", threads);
    samples_print(&all, seconds, stdout);
    printf("}}\n");
    samples_done(&all);
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = true;

    if (argc < 6 || (strcmp(argv[1], "1.1") != 0 && strcmp(argv[1], "2") != 0)) {
        fprintf(stderr, "usage: http_floor 1.1|2 URL TOKEN_FILE SECONDS THREADS...\n"
                        "KMS_BENCH_CA: file of the CA certificates for https\n");
        return 2;
    }
    if (!exchange_setup(argv[1], argv[2], argv[3])) {
        return 1;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (int i = 5; ok && i < argc; i++) {
        unsigned threads = (unsigned)strtoul(argv[i], NULL, 10);

        ok = threads > 0 && threads <= MAX_THREADS && measure(threads, strtod(argv[4], NULL));
    }
    curl_global_cleanup();
    return ok ? 0 : 1;
}
