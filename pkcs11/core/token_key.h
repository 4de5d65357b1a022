/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key as the agent lists it, made into objects: the secret key, or the private and the public
 * one; the certificate that goes with it, and those above that in its chain. Pure: no store, no
 * lock, no call to the agent.
 */
#ifndef KMS_PKCS11_CORE_TOKEN_KEY_H
#define KMS_PKCS11_CORE_TOKEN_KEY_H

#include "pkcs11/core/object.h"
#include "pkcs11/core/slot.h"

/* bytes of the SHA-256 of its name: the CKA_ID of a key whose service has none */
#define KMS_KEY_HASH_ID 20

struct kms_key_objects {
    struct kms_object *own[3]; /* secret; or private, public, in this order; certificate */
    size_t own_count;
    struct kms_object *chain[KMS_AGENT_CERTS_MAX]; /* other keys may bring the same ones */
    size_t chain_count;
    bool hashed_id; /* the service has no CKA_ID for it */
};

/* References for the caller. A certificate or public key that cannot be read is left out, and
 * logged. CKR_HOST_MEMORY, CKR_GENERAL_ERROR. */
CK_RV kms_key_objects_make(struct kms_slot *slot, const struct kms_agent_key *key,
                           struct kms_key_objects *ret);
void kms_key_objects_done(struct kms_key_objects *objects);

#endif
