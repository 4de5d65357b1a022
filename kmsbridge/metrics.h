/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and histograms, and their text in Prometheus' exposition format 0.0.4. Recording is a
 * few relaxed atomic additions, from any thread. One object a process.
 */
#ifndef KMSBRIDGE_METRICS_H
#define KMSBRIDGE_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "backend/waist.h"

enum kms_method { KMS_METHOD_STATUS, KMS_METHOD_ENCRYPT, KMS_METHOD_DECRYPT, KMS_METHOD_COUNT };
const char *kms_method_name(enum kms_method method); /* "Status", ... */

#define KMS_GRPC_CODES      17 /* 0 OK to 16 UNAUTHENTICATED */
#define KMS_LATENCY_BUCKETS 16 /* 50 us doubled each time, to 1.6 s, and +Inf */

struct kms_histogram {
    atomic_uint_fast64_t bucket[KMS_LATENCY_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    atomic_uint_fast64_t sum_ns;
};

struct kms_metrics {
    atomic_uint_fast64_t calls[KMS_METHOD_COUNT][KMS_GRPC_CODES];
    struct kms_histogram latency[KMS_METHOD_COUNT];
    atomic_uint_fast64_t backend_calls[KMS_OP_COUNT][KMS_STATUS_COUNT];
    struct kms_histogram backend_latency[KMS_OP_COUNT];
    atomic_uint_fast64_t connections_accepted;
    atomic_uint_fast64_t connections_refused_peer;  /* not on the allow-list */
    atomic_uint_fast64_t connections_refused_limit; /* over max_connections */
    atomic_uint_fast64_t accept_errors;             /* out of descriptors and the like */
    atomic_uint_fast64_t ran_inline;
    atomic_uint_fast64_t ran_on_worker;
    atomic_uint_fast64_t coalesced_decrypts;
    atomic_uint_fast64_t calls_refused; /* over one of our bounds */
    atomic_uint_fast64_t reloads_ok;
    atomic_uint_fast64_t reloads_failed;
};

/* What is asked at scrape time instead of counted. */
struct kms_gauges {
    bool kek_known;
    bool kek_good;
    double proof_age_seconds;
    char key_id[KMS_KEY_ID_MAX];
    size_t keys;
    struct kms_health backend;
    unsigned connections;
    unsigned calls_in_flight;
    unsigned queued;
    unsigned workers;
};

void kms_histogram_add(struct kms_histogram *histogram, uint64_t ns);
void kms_metrics_call(struct kms_metrics *metrics, enum kms_method method, int grpc_code,
                      uint64_t ns);
void kms_metrics_backend(struct kms_metrics *metrics, enum kms_op op, enum kms_status status,
                         uint64_t ns);

/* Prints all of it to @out; without @gauges there is no KMS plugin to tell of. */
void kms_metrics_print(const struct kms_metrics *metrics, const struct kms_gauges *gauges,
                       FILE *out);

#endif
