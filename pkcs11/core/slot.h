/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: one for each token that the agent shows to this user. Slot ids are given in the order of
 * the agent's list and keep their token for the life of the process, also across C_Finalize.
 */
#ifndef KMS_PKCS11_CORE_SLOT_H
#define KMS_PKCS11_CORE_SLOT_H

#include <pthread.h>

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
};

/* A call's context with the library's deadline. */
struct kms_call kms_slot_call(const struct kms_slot *slot);
/* What a failed call comes to: one row a status (key-services C4); logs call->error. @data chooses
 * between CKR_ENCRYPTED_DATA_INVALID and the others. */
enum kms_data {
    KMS_DATA_PLAIN,
    KMS_DATA_ENCRYPTED,
    KMS_DATA_SIGNATURE,
    KMS_DATA_WRAPPED,
    KMS_DATA_AEAD
};
CK_RV kms_slot_error(const struct kms_slot *slot, const struct kms_call *call, enum kms_data data);

#endif
