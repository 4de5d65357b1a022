/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's counters, and their text beside the others' (kmsbridge/metrics.h). Any thread. */
#ifndef KMSBRIDGE_AGENT_METRICS_H
#define KMSBRIDGE_AGENT_METRICS_H

#include <stdatomic.h>
#include <stdio.h>

#include "backend/waist.h"

/* Why we ourselves said no. */
enum kms_refusal {
    KMS_REFUSAL_NONE,
    KMS_REFUSAL_STRANGER,    /* no rule is about the peer */
    KMS_REFUSAL_POLICY,      /* no rule allows this op on this key */
    KMS_REFUSAL_CONNECTIONS, /* agent.max_connections */
    KMS_REFUSAL_UID_CONNECTIONS,
    KMS_REFUSAL_RATE,        /* agent.calls_per_second */
    KMS_REFUSAL_CONCURRENCY, /* agent.concurrent_calls_per_uid */
    KMS_REFUSAL_LANE,        /* as many calls in the key service as the agent may have there */
    KMS_REFUSAL_LOGIN,       /* wrong PINs */
    KMS_REFUSAL_AUDIT,       /* audit.required */
    KMS_REFUSAL_PROTOCOL,    /* a frame that is none, or came too slowly */
    KMS_REFUSAL_COUNT
};
const char *kms_refusal_name(enum kms_refusal refusal); /* "policy", ...; NULL for NONE */

#define KMS_AGENTD_LIST_TOKENS KMS_OP_COUNT /* the one call that is no op of the waist */
#define KMS_AGENTD_CALLS       (KMS_OP_COUNT + 1)

struct kms_agentd_metrics {
    atomic_uint_fast64_t calls[KMS_AGENTD_CALLS][KMS_STATUS_COUNT];
    atomic_uint_fast64_t refusals[KMS_REFUSAL_COUNT];
    atomic_uint_fast64_t accepted;
    atomic_uint_fast64_t accept_errors;
    atomic_uint connections; /* open now */
};

const char *kms_agentd_call_name(unsigned call); /* "sign", ..., "list_tokens" */
void kms_agentd_metrics_call(struct kms_agentd_metrics *metrics, unsigned call,
                             enum kms_status status);
void kms_agentd_metrics_refusal(struct kms_agentd_metrics *metrics, enum kms_refusal refusal);
void kms_agentd_metrics_print(struct kms_agentd_metrics *metrics, FILE *out);

#endif
