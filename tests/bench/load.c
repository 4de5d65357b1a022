/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* CPU time of another process, all its threads, in nanoseconds. */
static uint64_t cpu_of(pid_t pid)
{
    struct timespec t = {0};
    clockid_t clock = 0;

    if (pid == 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) {
        return 0;
    }
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

int bench_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

bool load_init(struct load *load, const struct bench_options *options, enum bench_method method,
               unsigned callers, double rate)
{
    uint64_t now = bench_now();

    *load = (struct load){.options = options, .method = method, .n_callers = callers};
    load->callers = calloc(callers, sizeof *load->callers);
    if (load->callers == NULL || getrandom(&load->uid, sizeof load->uid, 0) < 0) {
        return false;
    }
    if (rate > 0.0) {
        load->period = (uint64_t)(1e9 / rate);
    }
    load->start = now + (uint64_t)(options->warmup * 1e9);
    load->end = load->start + (uint64_t)(options->seconds * 1e9);
    for (unsigned i = 0; i < callers; i++) {
        load->callers[i].load = load;
        if (getrandom(load->callers[i].seed, BENCH_SEED_LEN, 0) < 0) {
            return false;
        }
    }
    return true;
}

void load_done(struct load *load)
{
    free(load->callers);
    samples_done(&load->samples);
}

/* A fresh version 4 UUID, as kube-apiserver sends; 36 characters and NUL. */
static void next_uid(struct load *load, char uid[BENCH_UID_LEN + 1])
{
    uint64_t n = load->uid++;

    (void)snprintf(uid, BENCH_UID_LEN + 1, "%08" PRIx32 "-%04x-4%03x-8%03x-0123456789ab",
                   (uint32_t)(n >> 32), (unsigned)(n >> 16 & 0xffff), (unsigned)(n >> 4 & 0xfff),
                   (unsigned)(n & 0xfff));
}

bool load_next(struct caller *caller)
{
    struct load *load = caller->load;
    char uid[BENCH_UID_LEN + 1];

    caller->sent = bench_now();
    if (caller->sent >= load->end || load->failed) {
        return false;
    }
    if (load->limit > 0 && --load->limit == 0) {
        load->end = caller->sent; /* this one is the last */
    }
    caller->method = load->method;
    if (load->method == BENCH_DECRYPT && caller->ciphertext.len == 0) {
        caller->method = BENCH_ENCRYPT;
    }
    if (caller->method == BENCH_STATUS) {
        caller->request.len = 0;
        return true;
    }
    next_uid(load, uid);
    if (caller->method == BENCH_ENCRYPT) {
        message_encrypt(&caller->request, caller->seed, uid);
    } else {
        memcpy(caller->request.bytes, caller->ciphertext.bytes, caller->ciphertext.len);
        caller->request.len = caller->ciphertext.len;
        message_add_uid(&caller->request, uid);
    }
    return true;
}

static void reply_error(struct caller *caller, int grpc_status)
{
    struct load *load = caller->load;

    load->errors++;
    if (!load->options->allow_errors && !load->failed) {
        fprintf(stderr, "%s: %s %d\n", bench_names[caller->method],
                grpc_status == 0 ? "wrong reply, grpc-status" : "grpc-status", grpc_status);
        load->failed = true;
    }
}

static void reply_count(struct caller *caller, uint64_t now)
{
    struct load *load = caller->load;
    uint64_t took = now - caller->sent;

    if (load->cpu_start == 0) {
        load->cpu_start = cpu_of(load->options->server);
    }
    samples_add(&load->samples, took);
    for (uint64_t late = took; load->period > 0 && late > load->period;) {
        late -= load->period;
        samples_add(&load->samples, late);
    }
}

void load_reply(struct caller *caller, int grpc_status, const uint8_t *reply, size_t len)
{
    struct load *load = caller->load;
    uint64_t now = bench_now();
    bool prepared = caller->method == load->method;

    if (load->period > 0) {
        caller->due = caller->sent + load->period > now ? caller->sent + load->period : now;
    }
    if (grpc_status != 0 || !message_check(caller->method, reply, len, caller->seed)) {
        reply_error(caller, grpc_status);
        if (load->period > 0 && now >= load->start && now < load->end) {
            reply_count(caller, now); /* how long a refusal takes is asked as well */
        }
        return;
    }
    if (!prepared) {
        if (!message_decrypt_from(&caller->ciphertext, reply, len)) {
            reply_error(caller, 0);
        }
        return;
    }
    if (now >= load->start && now < load->end) {
        reply_count(caller, now);
    } else if (now >= load->end && load->cpu_end == 0) {
        load->cpu_end = cpu_of(load->options->server);
    }
}
