/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One slot's objects: those of the token, as the agent listed them, indexed by CKA_ID, label and
 * class, and the session objects. Readers share, writers exclude; the lock is never held across a
 * call to the agent.
 *
 * The token's list is asked for on the first search and again when its time to live is over, by one
 * caller while others use the old one. A search by CKA_ID or label that finds nothing asks the
 * agent for that one key first (negative answers are remembered for a short while). A key keeps its
 * handle as long as its ref and id stay.
 */
#ifndef KMS_PKCS11_CORE_STORE_H
#define KMS_PKCS11_CORE_STORE_H

#include "pkcs11/core/object.h"

struct kms_session; /* session.h */

struct kms_store_state *kms_store_new(void); /* NULL: no memory */
void kms_store_free(struct kms_store_state *store);

/* With a reference. CKR_OBJECT_HANDLE_INVALID when it is not there, or is private and the slot's
 * user has not logged in. Callers that mean a key turn it into CKR_KEY_HANDLE_INVALID. */
CK_RV kms_store_get(struct kms_slot *slot, CK_OBJECT_HANDLE handle, struct kms_object **ret_object);

/* Puts a session object in (takes the reference), gives it its handle. */
CK_RV kms_store_add(struct kms_slot *slot, struct kms_session *session, struct kms_object *object,
                    CK_OBJECT_HANDLE *ret_handle);
/* Session objects of a session that ends. */
void kms_store_drop_session(struct kms_slot *slot, CK_SESSION_HANDLE session);
void kms_store_drop_private(struct kms_slot *slot); /* private session objects, at C_Logout */

/* A key that the agent has just made, as objects: the secret key, or private and public. */
CK_RV kms_store_add_token_key(struct kms_slot *slot, const struct kms_key_info *info,
                              struct kms_span spki, CK_OBJECT_HANDLE *ret_key,
                              CK_OBJECT_HANDLE *ret_public);
void kms_store_forget(struct kms_slot *slot, struct kms_object *object); /* destroyed */

/* C_FindObjectsInit: a snapshot of the handles that match, allocated, the caller frees it. */
CK_RV kms_store_find(struct kms_slot *slot, const struct kms_attrs *tmpl,
                     CK_OBJECT_HANDLE **ret_handles, size_t *ret_count);
/*
 * The key of this @key_id (CKA_KMSBRIDGE_KEY_ID) that has the label and class of @key: another
 * version of it. With a reference; CKR_KEY_HANDLE_INVALID when there is none, or none to be seen.
 */
CK_RV kms_store_version(struct kms_slot *slot, const struct kms_object *key, struct kms_span key_id,
                        struct kms_object **ret_version);
/* C_GetObjectSize: bytes of all that its attributes hold. */
CK_ULONG kms_store_size(const struct kms_object *object);
/* C_GetAttributeValue: every attribute is answered, then the worst return value (5.7.5). */
CK_RV kms_store_attributes(struct kms_slot *slot, struct kms_object *object, CK_ATTRIBUTE *tmpl,
                           CK_ULONG count);
CK_RV kms_store_set_attributes(struct kms_slot *slot, struct kms_session *session,
                               struct kms_object *object, const CK_ATTRIBUTE *tmpl, CK_ULONG count);

#endif
