/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: one for each token that the agent shows to this user. Slot ids are given in the order of
 * the agent's list and keep their token for the life of the process, also across C_Finalize.
 */
#ifndef KMS_PKCS11_CORE_SLOT_H
#define KMS_PKCS11_CORE_SLOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "backend/agent.h"
#include "pkcs11/pkcs11x.h"

struct kms_store_state;

struct kms_slot {
    CK_SLOT_ID id;
    struct kms_agent_token token;
    struct kms_agent *agent;           /* borrowed from the library */
    const struct kms_backend_ops *ops; /* how the token's keys are used: this, with that; every */
    struct kms_backend *backend;       /* call carries its own deadline, see kms_slot_call() */
    pthread_mutex_t mutex;             /* guards the login and the counts */
    bool logged_in;
    CK_ULONG sessions, rw_sessions;
    struct kms_store_state *store;
    atomic_bool listed;           /* in the agent's last list */
    atomic_bool present;          /* token.present, as of the last list */
    atomic_bool open;             /* private objects are seen: logged in, or no login is wanted */
    const atomic_bool *cancelled; /* the library's: C_Finalize has come */
    struct kms_slot *retired;     /* next in the list of those that others have replaced */
};

#define KMS_SLOT_TIMEOUT_NS (10 * KMS_NS_PER_S) /* of one call of the host */

/* Copies @token, opens it as a backend; @agent and @cancelled are borrowed. */
CK_RV kms_slot_new(CK_SLOT_ID id, const struct kms_agent_token *token, struct kms_agent *agent,
                   const atomic_bool *cancelled, struct kms_slot **ret_slot);
void kms_slot_free(struct kms_slot *slot); /* NULL is fine; its sessions are gone */
bool kms_slot_is_present(const struct kms_slot *slot);
void kms_slot_info(const struct kms_slot *slot, CK_SLOT_INFO *ret_info);
void kms_slot_token_info(struct kms_slot *slot, CK_TOKEN_INFO *ret_info);
/* C_Login and C_Logout; the login is the token's, not a session's (5.6.6). @operation: one is
 * active in the session, which is when CKU_CONTEXT_SPECIFIC has a meaning. */
CK_RV kms_slot_login(struct kms_slot *slot, CK_USER_TYPE user, struct kms_span pin, bool operation);
CK_RV kms_slot_logout(struct kms_slot *slot);
/* A session came or went; the last one to go takes the login with it. */
void kms_slot_count(struct kms_slot *slot, bool rw, bool came);
/* C_GenerateRandom: the token's generator, or ours where it has none. */
CK_RV kms_slot_random(const struct kms_slot *slot, uint8_t *bytes, size_t len);

/* A call's context with the library's deadline. */
struct kms_call kms_slot_call(const struct kms_slot *slot);
/* What a failed call comes to: one row a status (key-services C4); logs call->error. @data chooses
 * between CKR_ENCRYPTED_DATA_INVALID and the others. */
enum kms_data {
    KMS_DATA_NONE, /* the call named no key: it is the token that is not there */
    KMS_DATA_PLAIN,
    KMS_DATA_ENCRYPTED,
    KMS_DATA_SIGNATURE,
    KMS_DATA_WRAPPED,
    KMS_DATA_AEAD
};
CK_RV kms_slot_error(const struct kms_slot *slot, const struct kms_call *call, enum kms_data data);

#endif
