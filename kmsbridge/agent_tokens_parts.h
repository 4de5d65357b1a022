/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of tokens, shared by agent_backends.c (key services), agent_tokens.c (what tokens
 * are), agent_keys.c (one list of keys) and agent_flight.c (when a list is asked for). */
#ifndef KMSBRIDGE_AGENT_TOKENS_PARTS_H
#define KMSBRIDGE_AGENT_TOKENS_PARTS_H

#include <pthread.h>

#include "kmsbridge/agent_tokens.h"

struct kms_agentd_backend {
    struct kms_agentd_backend *next;
    char *name;
    struct kms_conf *conf; /* that own was opened from */
    struct kms_waist *own; /* NULL: not opened by us; under the mutex of all */
    struct kms_lane lane;
};

struct kms_agentd_backends {
    struct kms_agentd_source source;
    kms_observe observe;
    void *observe_ctx;
    pthread_mutex_t mutex; /* guards the list, and each one's own; they only grow */
    struct kms_agentd_backend *first;
};

struct kms_agentd_token {
    const struct kms_agentd_token_conf *conf;
    char place[48]; /* "agent.tokens[0]" */
    struct kms_conf *whole;
    struct kms_agentd_backends *backends;
    struct kms_agentd_backend *backend;
    struct kms_agentd_chain *chains; /* by conf->certificates */
    atomic_uint lane_max;

    pthread_mutex_t mutex; /* guards the members below; never held across a call */
    pthread_cond_t landed;
    bool flying;                  /* somebody asks for the keys */
    struct kms_agentd_keys *keys; /* NULL: never seen */
    uint64_t fresh_until_ns;
    uint64_t again_ns;      /* a failed or fruitless search is not repeated before */
    uint64_t touched;       /* how often somebody changed the list */
    uint64_t flights;       /* that ended */
    struct kms_error error; /* of the last one */
    bool present;
    bool described;
    bool describing;
    uint64_t describe_at_ns;
    struct kms_token_info info;
};

/* The entry of that name, made if there is none. NULL: no memory. */
struct kms_agentd_backend *kms_agentd_backend_get(struct kms_agentd_backends *backends,
                                                  const char *name);
/* The waist that we opened ourselves, or open now. */
enum kms_status kms_agentd_own_waist(struct kms_agentd_backends *backends,
                                     struct kms_agentd_backend *backend, struct kms_conf *conf,
                                     struct kms_waist **ret_waist,
                                     struct kms_error *err) KMS_MUST_CHECK;

/* Until something landed; false: the deadline passed. */
bool kms_agentd_token_wait_locked(struct kms_agentd_token *token, uint64_t deadline_ns);

struct kms_agentd_keys *kms_agentd_keys_hold(struct kms_agentd_keys *keys);
struct kms_agentd_key *kms_agentd_keys_find(const struct kms_agentd_keys *keys, const char *ref);
/* Asks the key service for a list; @was, which may be NULL, has what need not be asked again. */
enum kms_status kms_agentd_fly(struct kms_agentd_token *token, struct kms_call *call,
                               struct kms_agentd_keys *was,
                               struct kms_agentd_keys **ret_keys) KMS_MUST_CHECK;

#endif
