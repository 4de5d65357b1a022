/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's server: programs that load kmsbridge-pkcs11.so ask here, by backend/agent.proto, for
 * what the backends' keys can do. A thread per connection, which a bound per user and one in all
 * keep few; who the peer is says the kernel, what it may do says policy.h, what it did says
 * audit.h.
 *
 * The KMS plugin is not in this way: it has its own socket and its own threads, and of the key
 * service's sessions some are kept for it (agent_tokens.h).
 */
#ifndef KMSBRIDGE_AGENT_H
#define KMSBRIDGE_AGENT_H

#include <stdio.h>

#include "kmsbridge/agent_tokens.h"
#include "kmsbridge/audit.h"
#include "kmsbridge/conf.h"

struct kms_agentd;

struct kms_agentd_start {
    struct kms_conf *conf; /* conf->agent.on; held */
    struct kms_agentd_source source;
    kms_observe observe; /* of waists that the agent opens itself; may be NULL */
    void *observe_ctx;
    struct kms_audit *audit; /* borrowed; may be NULL */
};

/* Listens and serves. A key service that is away is no error. Errors name what could not start. */
enum kms_status kms_agentd_start(const struct kms_agentd_start *start,
                                 struct kms_agentd **ret_agentd,
                                 struct kms_error *err) KMS_MUST_CHECK;
/*
 * Rules, tokens, certificates and limits of another @conf (held), in two steps: the first does all
 * that can fail, and changes nothing; then either of the others. Certificates that are not of their
 * keys, as far as these can be listed, are an error. Connections stay, and obey the new rules.
 * Socket, mode, owner and group need a restart: a warning names them.
 */
struct kms_agentd_change;
enum kms_status kms_agentd_prepare(struct kms_agentd *agentd, struct kms_conf *conf,
                                   struct kms_agentd_change **ret_change,
                                   struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_apply(struct kms_agentd *agentd, struct kms_agentd_change *change);
void kms_agentd_cancel(struct kms_agentd_change *change); /* NULL is fine */
/* No more connections; calls in flight are finished, for @grace_ns at most. False: a thread is
 * stuck in a key service, and nothing was freed. NULL is fine. */
bool kms_agentd_stop(struct kms_agentd *agentd, uint64_t grace_ns) KMS_MUST_CHECK;

/* agent.is_private: nobody has been connected for agent.idle_exit. */
bool kms_agentd_is_idle(struct kms_agentd *agentd);
/* How long the oldest call in a key service that only the agent uses has taken. */
uint64_t kms_agentd_stuck_ns(struct kms_agentd *agentd);
/* Prometheus' text of the agent's and the audit's counters. */
void kms_agentd_print(struct kms_agentd *agentd, FILE *out);

/* kmsbridged --check: every token reached, every key listed, every certificate matched. Prints a
 * line a token to @out. */
enum kms_status kms_agentd_check(struct kms_conf *conf, uint64_t timeout_ns, FILE *out,
                                 struct kms_error *err) KMS_MUST_CHECK;

#endif
