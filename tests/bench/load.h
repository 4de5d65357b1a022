/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A closed-loop load of KMS v2 calls, without its transport: what to send, whether the reply is
 * right, what is measured and when it is over. A transport owns one load and one thread; nothing
 * here is shared between threads.
 *
 * A caller sends, waits for the reply, checks it and sends again. Calls that end during warm-up are
 * not counted. A Decrypt caller first has its own seed encrypted, so that no two callers ever ask
 * for the same ciphertext. With a rate, one caller sends on a schedule; a reply that is late by
 * several periods counts for each call that could not be made meanwhile.
 */
#ifndef KMSBRIDGE_TESTS_BENCH_LOAD_H
#define KMSBRIDGE_TESTS_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "tests/bench/messages.h"
#include "tests/bench/samples.h"

struct bench_options {
    const char *socket;
    enum bench_method method;
    unsigned callers;
    double seconds;
    double warmup;
    unsigned timeout_ms;  /* each call's deadline, as kube-apiserver's 3 s */
    double status_rate;   /* Status calls a second beside the load, 0: none */
    bool allow_errors;    /* count failed calls instead of giving up */
    pid_t server;         /* whose CPU time and memory to report, 0: nobody's */
    bool first_status;    /* start a server and wait for its first good Status */
    char *const *command; /* that server */
};

/* Returns false after an explanation on stderr. */
bool bench_options_parse(struct bench_options *ret_options, int argc, char **argv);

struct caller {
    struct load *load;
    enum bench_method method; /* of the call under way */
    uint64_t sent;
    uint64_t due; /* not to be sent before; 0: at once */
    uint8_t seed[BENCH_SEED_LEN];
    struct bench_message ciphertext; /* Decrypt: the request without its uid */
    struct bench_message request;
};

struct load {
    const struct bench_options *options;
    enum bench_method method;
    unsigned n_callers;
    struct caller *callers;
    uint64_t period;     /* of a scheduled load, ns; 0: closed loop */
    uint64_t start, end; /* of what is counted */
    uint64_t limit;      /* calls to make at most, 0: no limit */
    uint64_t uid;
    uint64_t cpu_start, cpu_end; /* the server's CPU time at these moments, ns */
    uint64_t errors;
    bool failed; /* an error that was not allowed: give up */
    struct samples samples;
};

bool load_init(struct load *load, const struct bench_options *options, enum bench_method method,
               unsigned callers, double rate);
void load_done(struct load *load);

/* Builds the caller's next request; false: the load is over for this caller. */
bool load_next(struct caller *caller);

/* `grpc_status` -1: the transport lost the call. `reply` is one whole message. */
void load_reply(struct caller *caller, int grpc_status, const uint8_t *reply, size_t len);

/* Connects; -1: not possible now, errno says why. */
int bench_connect(const char *path);

/* How a transport runs a load to its end; false: it could not, and said why. */
typedef bool (*load_transport)(struct load *load);

/* The main program of both clients: runs what the options ask for and prints one JSON line. */
int bench_main(const char *client, load_transport transport, int argc, char **argv);

#endif
