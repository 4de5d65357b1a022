/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of every C_ function: enter the library, take the session, get the objects, call the
 * core, give it all back, leave. entry*.c hold no other logic.
 */
#ifndef KMS_PKCS11_ENTRY_H
#define KMS_PKCS11_ENTRY_H

#include "pkcs11/core/library.h"

struct kms_entry {
    bool shared;
    struct kms_session *session;
    struct kms_object *object[2];
};

/* Enters and takes the session. On failure all is given back already. */
CK_RV kms_entry_take(struct kms_entry *entry, CK_SESSION_HANDLE session);
/* The same for functions that several threads may be in with one session. */
CK_RV kms_entry_share(struct kms_entry *entry, CK_SESSION_HANDLE session);
/* An object of the session's token, held until the end. @invalid: what a bad handle comes to. */
CK_RV kms_entry_object(struct kms_entry *entry, CK_OBJECT_HANDLE handle, CK_RV invalid,
                       struct kms_object **ret_object);
/* Gives back and leaves; the value is @rv. */
CK_RV kms_entry_end(struct kms_entry *entry, CK_RV rv);

#endif
