/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_metrics.h"

#include <inttypes.h>

static const char *const refusal_names[KMS_REFUSAL_COUNT] = {
    [KMS_REFUSAL_STRANGER] = "stranger",
    [KMS_REFUSAL_POLICY] = "policy",
    [KMS_REFUSAL_CONNECTIONS] = "connections",
    [KMS_REFUSAL_UID_CONNECTIONS] = "uid_connections",
    [KMS_REFUSAL_RATE] = "rate",
    [KMS_REFUSAL_CONCURRENCY] = "concurrency",
    [KMS_REFUSAL_LANE] = "lane",
    [KMS_REFUSAL_LOGIN] = "login",
    [KMS_REFUSAL_AUDIT] = "audit",
    [KMS_REFUSAL_PROTOCOL] = "protocol",
};

const char *kms_refusal_name(enum kms_refusal refusal)
{
    return (unsigned)refusal < KMS_REFUSAL_COUNT ? refusal_names[refusal] : NULL;
}

const char *kms_agentd_call_name(unsigned call)
{
    return call == KMS_AGENTD_LIST_TOKENS ? "list_tokens" : kms_op_name((enum kms_op)call);
}

void kms_agentd_metrics_call(struct kms_agentd_metrics *metrics, unsigned call,
                             enum kms_status status)
{
    if (call < KMS_AGENTD_CALLS && (unsigned)status < KMS_STATUS_COUNT) {
        atomic_fetch_add_explicit(&metrics->calls[call][status], 1, memory_order_relaxed);
    }
}

void kms_agentd_metrics_refusal(struct kms_agentd_metrics *metrics, enum kms_refusal refusal)
{
    if ((unsigned)refusal < KMS_REFUSAL_COUNT) {
        atomic_fetch_add_explicit(&metrics->refusals[refusal], 1, memory_order_relaxed);
    }
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP kmsbridge_%s %s\n# TYPE kmsbridge_%s %s\n", name, help, name, type);
}

static uint64_t get(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void print_calls(const struct kms_agentd_metrics *metrics, FILE *out)
{
    head(out, "agent_calls_total", "counter", "Calls of PKCS#11 users by operation and result.");
    for (unsigned call = 0; call < KMS_AGENTD_CALLS; call++) {
        for (unsigned status = 0; status < KMS_STATUS_COUNT; status++) {
            uint64_t n = get(&metrics->calls[call][status]);

            if (n != 0) {
                fprintf(out, "kmsbridge_agent_calls_total{op=\"%s\",class=\"%s\"} %" PRIu64 "\n",
                        kms_agentd_call_name(call), kms_status_name((enum kms_status)status), n);
            }
        }
    }
}

static void print_refusals(const struct kms_agentd_metrics *metrics, FILE *out)
{
    head(out, "agent_refusals_total", "counter", "What the agent itself refused, by reason.");
    for (unsigned i = KMS_REFUSAL_NONE + 1; i < KMS_REFUSAL_COUNT; i++) {
        fprintf(out, "kmsbridge_agent_refusals_total{reason=\"%s\"} %" PRIu64 "\n",
                refusal_names[i], get(&metrics->refusals[i]));
    }
}

void kms_agentd_metrics_print(struct kms_agentd_metrics *metrics, FILE *out)
{
    print_calls(metrics, out);
    print_refusals(metrics, out);
    head(out, "agent_connections", "gauge", "Open connections of the agent's socket.");
    fprintf(out, "kmsbridge_agent_connections %u\n", atomic_load(&metrics->connections));
    head(out, "agent_connections_accepted_total", "counter", "Connections taken.");
    fprintf(out, "kmsbridge_agent_connections_accepted_total %" PRIu64 "\n",
            get(&metrics->accepted));
    head(out, "agent_accept_errors_total", "counter",
         "Failures to accept, as when out of descriptors.");
    fprintf(out, "kmsbridge_agent_accept_errors_total %" PRIu64 "\n", get(&metrics->accept_errors));
}
