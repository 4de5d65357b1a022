/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind store.h share: store.c answers the host, store_keys.c keeps what belongs to
 * one token key together, store_load.c asks the agent.
 */
#ifndef KMS_PKCS11_CORE_STORE_PARTS_H
#define KMS_PKCS11_CORE_STORE_PARTS_H

#include <pthread.h>

#include "pkcs11/core/store_index.h"
#include "pkcs11/core/token_key.h"

#define KMS_STORE_KEY_BUCKETS 1024
#define KMS_STORE_ASKED       64 /* single keys that were asked for of late */

/* The objects of one token key, or one authority's certificate. */
struct kms_store_key {
    uint64_t family; /* of its ref and id, or of the certificate */
    uint64_t digest; /* of all that the agent said: unchanged, nothing is made anew */
    uint64_t seen_ns;
    bool authority; /* a certificate of chains */
    bool hashed_id; /* its CKA_ID is ours: the agent cannot find it by that */
    size_t own_count;
    CK_OBJECT_HANDLE own[3];
    size_t chain_count;
    uint64_t chain[KMS_AGENT_CERTS_MAX]; /* families */
    struct kms_store_key *next;
};

struct kms_store_state {
    pthread_rwlock_t lock; /* guards index and keys; never held across a call to the agent */
    struct kms_index index;
    size_t session_objects;
    struct kms_store_key *key[KMS_STORE_KEY_BUCKETS];

    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t loaded;
    bool loading; /* one caller waits for the list */
    bool known;   /* there was one */
    CK_RV failure;
    uint64_t fresh_until_ns;
    uint64_t quiet_until_ns; /* it failed a moment ago */
    struct {
        uint64_t hash;
        uint64_t until_ns;
    } asked[KMS_STORE_ASKED];
    size_t asked_at;
};

/* Before a search: asks the agent for what may be missing or old. Errors only where nothing is
 * known that could be used instead. */
CK_RV kms_store_freshen(struct kms_slot *slot, const struct kms_attrs *tmpl);
/* Whether one of the token's objects matches. */
bool kms_store_knows(struct kms_store_state *store, const struct kms_attrs *tmpl);

uint64_t kms_store_family(const struct kms_store_state *store, const struct kms_key_info *info);
uint64_t kms_store_digest(const struct kms_store_state *store, const struct kms_agent_key *key);

/* The lock is held for writing. */
struct kms_store_key *kms_store_key_locked(struct kms_store_state *store, uint64_t family);
/* Puts them in the place of those that the family had; takes their references either way. Handles
 * stay with their class. CKR_HOST_MEMORY. */
CK_RV kms_store_merge_locked(struct kms_store_state *store, uint64_t family, uint64_t digest,
                             struct kms_key_objects *objects, uint64_t now_ns);
/* It was listed as we know it. */
void kms_store_touch_locked(struct kms_store_state *store, struct kms_store_key *key,
                            uint64_t now_ns);
void kms_store_remove_locked(struct kms_store_state *store, struct kms_store_key *key);
/* Those that a list which was asked for at @since_ns did not have. */
void kms_store_sweep_locked(struct kms_store_state *store, uint64_t since_ns);
void kms_store_sweep_chain_locked(struct kms_store_state *store, enum kms_index_by by,
                                  struct kms_span value, uint64_t since_ns);

CK_OBJECT_HANDLE kms_store_next_handle(void);

#endif
