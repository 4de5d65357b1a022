/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/metrics.h"

#include <inttypes.h>

#include <openssl/evp.h>

#include "common/clock.h"
#include "common/codec.h"

#define FIRST_BUCKET_NS (50 * KMS_NS_PER_US)

static const char *const method_names[KMS_METHOD_COUNT] = {"Status", "Encrypt", "Decrypt"};

/* grpc/status.h; the names that kube-apiserver's own metrics use */
static const char *const code_names[KMS_GRPC_CODES] = {
    "OK",       "Canceled",        "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",   "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",      "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated",
};

const char *kms_method_name(enum kms_method method)
{
    return method < KMS_METHOD_COUNT ? method_names[method] : "unknown";
}

static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t get(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void kms_histogram_add(struct kms_histogram *histogram, uint64_t ns)
{
    size_t i = 0;
    uint64_t limit = FIRST_BUCKET_NS;
    while (i < KMS_LATENCY_BUCKETS && ns > limit) {
        limit *= 2;
        i++;
    }
    add(&histogram->bucket[i], 1);
    add(&histogram->sum_ns, ns);
}

void kms_metrics_call(struct kms_metrics *metrics, enum kms_method method, int grpc_code,
                      uint64_t ns)
{
    if (grpc_code >= 0 && grpc_code < KMS_GRPC_CODES) {
        add(&metrics->calls[method][grpc_code], 1);
    }
    kms_histogram_add(&metrics->latency[method], ns);
}

void kms_metrics_backend(struct kms_metrics *metrics, enum kms_op op, enum kms_status status,
                         uint64_t ns)
{
    add(&metrics->backend_calls[op][status], 1);
    kms_histogram_add(&metrics->backend_latency[op], ns);
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP kmsbridge_%s %s\n# TYPE kmsbridge_%s %s\n", name, help, name, type);
}

static void print_histogram(FILE *out, const char *name, const char *label, const char *value,
                            const struct kms_histogram *histogram)
{
    uint64_t total = 0;
    uint64_t limit = FIRST_BUCKET_NS;
    for (size_t i = 0; i < KMS_LATENCY_BUCKETS; i++, limit *= 2) {
        total += get(&histogram->bucket[i]);
        fprintf(out, "kmsbridge_%s_bucket{%s=\"%s\",le=\"%.6g\"} %" PRIu64 "\n", name, label, value,
                (double)limit / 1e9, total);
    }
    total += get(&histogram->bucket[KMS_LATENCY_BUCKETS]);
    fprintf(out, "kmsbridge_%s_bucket{%s=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, label, value,
            total);
    fprintf(out, "kmsbridge_%s_sum{%s=\"%s\"} %.9f\n", name, label, value,
            (double)get(&histogram->sum_ns) / 1e9);
    fprintf(out, "kmsbridge_%s_count{%s=\"%s\"} %" PRIu64 "\n", name, label, value, total);
}

static void print_calls(const struct kms_metrics *m, FILE *out)
{
    head(out, "kms_calls_total", "counter", "KMS v2 calls by method and gRPC code.");
    for (size_t method = 0; method < KMS_METHOD_COUNT; method++) {
        for (size_t code = 0; code < KMS_GRPC_CODES; code++) {
            uint64_t n = get(&m->calls[method][code]);
            if (n != 0 || code == 0) {
                fprintf(out, "kmsbridge_kms_calls_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                        method_names[method], code_names[code], n);
            }
        }
    }
    head(out, "kms_call_duration_seconds", "histogram",
         "Time from a call's arrival to its answer, by method.");
    for (size_t method = 0; method < KMS_METHOD_COUNT; method++) {
        print_histogram(out, "kms_call_duration_seconds", "method", method_names[method],
                        &m->latency[method]);
    }
}

static void print_backend(const struct kms_metrics *m, FILE *out)
{
    head(out, "backend_calls_total", "counter",
         "Calls to the key service by operation and class of result.");
    for (size_t op = 0; op < KMS_OP_COUNT; op++) {
        for (size_t status = 0; status < KMS_STATUS_COUNT; status++) {
            uint64_t n = get(&m->backend_calls[op][status]);
            if (n != 0) {
                fprintf(out, "kmsbridge_backend_calls_total{op=\"%s\",class=\"%s\"} %" PRIu64 "\n",
                        kms_op_name((enum kms_op)op), kms_status_name((enum kms_status)status), n);
            }
        }
    }
    head(out, "backend_call_duration_seconds", "histogram",
         "Time in the key service, by operation.");
    print_histogram(out, "backend_call_duration_seconds", "op", "encrypt",
                    &m->backend_latency[KMS_OP_ENCRYPT]);
    print_histogram(out, "backend_call_duration_seconds", "op", "decrypt",
                    &m->backend_latency[KMS_OP_DECRYPT]);
}

struct row {
    const char *name;
    const char *type;
    const char *help;
    double value;
};

static void print_rows(const struct row *rows, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        head(out, rows[i].name, rows[i].type, rows[i].help);
        fprintf(out, "kmsbridge_%s %.15g\n", rows[i].name, rows[i].value);
    }
}

/* The hash that kube-apiserver's metrics bear: "sha256:" and hex of SHA-256(key_id). */
static void print_key_id(const char *key_id, FILE *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned len = 0;
    struct kms_span id = kms_span_str(key_id);
    if (id.len == 0 || EVP_Digest(id.data, id.len, digest, &len, EVP_sha256(), NULL) != 1 ||
        kms_hex_encode(kms_span_of(digest, len), hex, sizeof hex) != KMS_OK) {
        return;
    }
    head(out, "active_key_info", "gauge",
         "The active KEK; key_id_hash is what kube-apiserver's metrics call key_id_hash.");
    fprintf(out, "kmsbridge_active_key_info{key_id_hash=\"sha256:%s\"} 1\n", hex);
}

static void print_gauges(const struct kms_metrics *m, const struct kms_gauges *g, FILE *out)
{
    const struct row rows[] = {
        {"kek_healthy", "gauge", "1 when the last proof of the KEK was good.",
         g->kek_known && g->kek_good ? 1 : 0},
        {"kek_proof_age_seconds", "gauge", "Since the KEK last encrypted and decrypted.",
         g->proof_age_seconds},
        {"keys", "gauge", "Keys that can decrypt.", (double)g->keys},
        {"backend_ready", "gauge", "1 when the key service is connected and logged in.",
         g->backend.ready ? 1 : 0},
        {"backend_sessions_open", "gauge", "Sessions with the key service.",
         g->backend.sessions_open},
        {"backend_sessions_busy", "gauge", "Sessions in use now.", g->backend.sessions_busy},
        {"backend_sessions_max", "gauge", "The bound of sessions.", g->backend.sessions_max},
        {"backend_reconnects_total", "counter", "Sessions reopened, logins and restarts repeated.",
         (double)g->backend.reconnects},
        {"connections", "gauge", "Open connections of the KMS socket.", g->connections},
        {"connections_accepted_total", "counter", "Connections taken.",
         (double)get(&m->connections_accepted)},
        {"connections_refused_peer_total", "counter", "Refused: peer not on the allow-list.",
         (double)get(&m->connections_refused_peer)},
        {"connections_refused_limit_total", "counter", "Refused: over max_connections.",
         (double)get(&m->connections_refused_limit)},
        {"accept_errors_total", "counter", "Failures to accept, as when out of descriptors.",
         (double)get(&m->accept_errors)},
        {"calls_in_flight", "gauge", "Calls being worked on or waiting.", g->calls_in_flight},
        {"queue_length", "gauge", "Calls waiting for a worker.", g->queued},
        {"workers", "gauge", "Worker threads.", g->workers},
        {"calls_inline_total", "counter", "Calls answered on the polling thread.",
         (double)get(&m->ran_inline)},
        {"calls_on_workers_total", "counter", "Calls answered by workers.",
         (double)get(&m->ran_on_worker)},
        {"decrypts_coalesced_total", "counter", "Decrypts answered by an identical one's result.",
         (double)get(&m->coalesced_decrypts)},
        {"calls_refused_total", "counter", "Calls refused over max_calls or queue.",
         (double)get(&m->calls_refused)},
        {"reloads_ok_total", "counter", "Configurations reloaded.", (double)get(&m->reloads_ok)},
        {"reloads_failed_total", "counter", "Configurations refused at reload.",
         (double)get(&m->reloads_failed)},
    };
    print_rows(rows, sizeof rows / sizeof rows[0], out);
}

void kms_metrics_print(const struct kms_metrics *m, const struct kms_gauges *g, FILE *out)
{
    print_backend(m, out);
    if (g != NULL) {
        print_calls(m, out);
        print_key_id(g->key_id, out);
        print_gauges(m, g, out);
    }
}
