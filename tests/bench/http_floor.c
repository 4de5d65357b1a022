/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the key service itself can do: the same HTTP exchange by bare libcurl, a kept connection for
 * each thread, without any server of ours. Prints one JSON line per number of threads.
 *
 * With --hop the exchange is made in another process, for whoever asks over a socket of his own:
 * the least that a module with an agent can be. A thread there for each thread here, messages of
 * the length that the module and kmsbridged have, with nothing in them; no check, no rule, no
 * audit, no deadline.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/exchange.h"
#include "tests/bench/samples.h"

enum { MAX_THREADS = 64, REQUEST_LEN = 104, REPLY_LEN = 120 };

struct worker {
    pthread_t thread;
    int ask, answer; /* the ends of the socket; -1: without a hop */
    uint64_t start, end;
    bool failed;
    struct exchange exchange;
    struct samples samples;
};

static bool sends(int fd, size_t len)
{
    static const char nothing[REPLY_LEN];

    return send(fd, nothing, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool receives(int fd, size_t len)
{
    char message[REPLY_LEN];

    return recv(fd, message, len, MSG_WAITALL) == (ssize_t)len;
}

/* The other process. */
static void *serve(void *argument)
{
    struct worker *w = argument;
    size_t len = 0;

    exchange_init(&w->exchange);
    while (receives(w->answer, REQUEST_LEN) && exchange_perform(&w->exchange, &len) != NULL &&
           sends(w->answer, REPLY_LEN)) {
    }
    exchange_done(&w->exchange);
    (void)shutdown(w->answer, SHUT_RDWR);
    return NULL;
}

static bool call(struct worker *w)
{
    size_t len = 0;

    return w->ask < 0 ? exchange_perform(&w->exchange, &len) != NULL
                      : sends(w->ask, REQUEST_LEN) && receives(w->ask, REPLY_LEN);
}

static void *work(void *argument)
{
    struct worker *w = argument;

    if (w->ask < 0) {
        exchange_init(&w->exchange);
    }
    for (uint64_t before = bench_now(); !w->failed && before < w->end;) {
        uint64_t after = 0;

        w->failed = !call(w);
        after = bench_now();
        if (before >= w->start) {
            samples_add(&w->samples, after - before);
        }
        before = after;
    }
    if (w->ask < 0) {
        exchange_done(&w->exchange);
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*main)(void *), struct worker *w)
{
    if (pthread_create(thread, NULL, main, w) != 0) {
        abort();
    }
}

/* The process on the other side of the hop ends with us, or when we close the sockets. */
static pid_t fork_server(struct worker *workers, unsigned threads)
{
    pid_t us = getpid();
    pid_t pid;

    for (unsigned i = 0; i < threads; i++) {
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
            abort();
        }
        workers[i].ask = ends[0];
        workers[i].answer = ends[1];
    }
    pid = fork();
    if (pid < 0) {
        abort();
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)close(pid == 0 ? workers[i].ask : workers[i].answer);
    }
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (unsigned i = 0; getppid() == us && i < threads; i++) {
            start(&workers[i].thread, serve, &workers[i]);
        }
        for (unsigned i = 0; getppid() == us && i < threads; i++) {
            (void)pthread_join(workers[i].thread, NULL);
        }
        _exit(0);
    }
    return pid;
}

static bool measure(unsigned threads, double seconds, bool hop)
{
    static struct worker workers[MAX_THREADS];
    struct samples all = {0};
    uint64_t begin;
    pid_t server = -1;
    bool ok = true;

    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.ask = -1};
    }
    if (hop) {
        server = fork_server(workers, threads);
    }
    begin = bench_now() + 300000000U;
    for (unsigned i = 0; i < threads; i++) {
        workers[i].start = begin;
        workers[i].end = begin + (uint64_t)(seconds * 1e9);
        start(&workers[i].thread, work, &workers[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        ok = ok && !workers[i].failed;
        samples_merge(&all, &workers[i].samples);
        samples_done(&workers[i].samples);
    }
    for (unsigned i = 0; hop && i < threads; i++) {
        (void)close(workers[i].ask);
    }
    if (hop) {
        (void)waitpid(server, NULL, 0);
    }
    printf("{\"client\":\"curl\",\"load\":{\"method\":\"Encrypt\",\"callers\":%u,", threads);
    samples_print(&all, seconds, stdout);
    printf("}}\n");
    (void)fflush(stdout);
    samples_done(&all);
    return ok;
}

int main(int argc, char **argv)
{
    bool hop = argc > 1 && strcmp(argv[1], "--hop") == 0;
    bool ok = true;

    argc -= hop;
    argv += hop;
    if (argc < 6 || (strcmp(argv[1], "1.1") != 0 && strcmp(argv[1], "2") != 0)) {
        fprintf(stderr, "usage: http_floor [--hop] 1.1|2 URL TOKEN_FILE SECONDS THREADS...\n"
                        "KMS_BENCH_CA: file of the CA certificates for https\n");
        return 2;
    }
    if (!exchange_setup(argv[1], argv[2], argv[3])) {
        return 1;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (int i = 5; ok && i < argc; i++) {
        unsigned threads = (unsigned)strtoul(argv[i], NULL, 10);

        ok = threads > 0 && threads <= MAX_THREADS && measure(threads, strtod(argv[4], NULL), hop);
    }
    curl_global_cleanup();
    return ok ? 0 : 1;
}
