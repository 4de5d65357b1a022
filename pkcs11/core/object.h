/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects: token keys, certificates and public keys as the agent lists them, and session objects
 * made here. Shared by counting; one that is in the store never changes: C_SetAttributeValue puts
 * another in its place, under the same handle, and calls that hold the old one finish with it.
 */
#ifndef KMS_PKCS11_CORE_OBJECT_H
#define KMS_PKCS11_CORE_OBJECT_H

#include <stdatomic.h>

#include "backend/backend.h"
#include "pkcs11/core/attrs.h"

struct kms_slot;     /* slot.h */
struct kms_soft_key; /* soft.h: key material here, in this process */

struct kms_object {
    atomic_uint refs;
    CK_OBJECT_HANDLE handle; /* given by the store; never used again within a process */
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE key_type; /* CK_UNAVAILABLE_INFORMATION: no key */
    bool on_token;        /* CKA_TOKEN */
    bool is_private;      /* CKA_PRIVATE: hidden before a login, where the token wants one */
    bool superseded;      /* of a version that is not the newest: found behind those that are */
    CK_SESSION_HANDLE session; /* session objects end with it; 0: a token's */
    struct kms_slot *slot;
    struct kms_attrs *attrs; /* all that C_GetAttributeValue can be asked, in any state; secrets
                                too: store.h knows which may be shown */

    /* how operations are done: by the agent, with ref[0] != 0; or here, with soft != NULL */
    char ref[KMS_KEY_REF_MAX];
    struct kms_alg_set algs; /* of ref */
    unsigned bits;
    uint64_t family;           /* the store's: objects of one token key share it */
    struct kms_soft_key *soft; /* session keys; the public halves of token pairs; else NULL */
};

struct kms_object *kms_object_new(void); /* one reference, for the caller; NULL: no memory */
struct kms_object *kms_object_ref(struct kms_object *object);
void kms_object_unref(struct kms_object *object); /* NULL is fine */

/* CKA_ENCRYPT, CKA_SIGN, ...; and CKA_ALLOWED_MECHANISMS when it is not empty.
 * CKR_KEY_FUNCTION_NOT_PERMITTED. */
CK_RV kms_object_may(const struct kms_object *object, CK_ATTRIBUTE_TYPE use,
                     CK_MECHANISM_TYPE mechanism);

#endif
