/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of tokens, shared by agent_backends.c (key services), agent_tokens.c (what tokens
 * are), agent_keys.c (one list of keys), agent_flight.c (when a list is asked for) and agent_spot.c
 * (single keys). */
#ifndef KMSBRIDGE_AGENT_TOKENS_PARTS_H
#define KMSBRIDGE_AGENT_TOKENS_PARTS_H

#include <pthread.h>

#include "kmsbridge/agent_tokens.h"
#include "kmsbridge/crew.h"

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
    atomic_bool landing;   /* lists are to give up */
    struct kms_crew lists; /* who ask for one */
    pthread_mutex_t mutex; /* guards the members below, and each one's own; the list only grows */
    struct kms_agentd_backend *first;
};

/* Keys that were looked for by themselves, or made, since the last list was asked for. */
#define KMS_AGENTD_SPOTS 64
struct kms_agentd_spot {
    struct kms_agentd_key *key;
    uint64_t seen_ns;
};

struct kms_agentd_token {
    atomic_uint refs;
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
    uint64_t lacking_ns; /* how long the last one is believed, if it lacks something; else 0 */
    uint64_t again_ns;   /* a failed or fruitless search is not repeated before */
    uint64_t touched;    /* how often somebody changed the list */
    struct kms_agentd_spot spots[KMS_AGENTD_SPOTS];
    size_t spot_count;
    size_t next_spot;       /* to be forgotten when they are full */
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

struct kms_agentd_token *kms_agentd_token_hold(struct kms_agentd_token *token);
void kms_agentd_token_put(struct kms_agentd_token *token);

/* The service's own word on why nothing comes from it; KMS_OK: it is well. */
enum kms_status kms_agentd_token_why(struct kms_agentd_token *token, struct kms_error *err);

/* Until something landed; false: the deadline passed. */
bool kms_agentd_token_wait_locked(struct kms_agentd_token *token, uint64_t deadline_ns);

struct kms_agentd_keys *kms_agentd_keys_hold(struct kms_agentd_keys *keys);
struct kms_agentd_key *kms_agentd_keys_find(const struct kms_agentd_keys *keys, const char *ref);
struct kms_agentd_key *kms_agentd_key_hold(struct kms_agentd_key *key);
/* NULL: no memory. */
struct kms_agentd_key *kms_agentd_key_new(const struct kms_agentd_token *token,
                                          const struct kms_key_info *info, struct kms_span spki);
/* Asks the key service for a list, for what the last one has not already. @filter NULL: all that
 * the token shows. @ret_touched, also on failure: token->touched when it began. */
enum kms_status kms_agentd_fly(struct kms_agentd_token *token, struct kms_call *call,
                               const struct kms_key_filter *filter, uint64_t *ret_touched,
                               struct kms_agentd_keys **ret_keys) KMS_MUST_CHECK;

/* agent_spot.c; the token's mutex is held. */
/* NULL, or a reference. */
struct kms_agentd_key *kms_agentd_spot_find_locked(struct kms_agentd_token *token, const char *ref);
void kms_agentd_spot_add_locked(struct kms_agentd_token *token, struct kms_agentd_key *key,
                                uint64_t seen_ns);
/* Those seen before. */
void kms_agentd_spots_drop_locked(struct kms_agentd_token *token, uint64_t before_ns);

#endif
