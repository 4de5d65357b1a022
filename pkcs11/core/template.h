/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a template may say of a session object, what it must, and what it means when it does not:
 * one table (PKCS#11 3.0, 4). A refusal is logged with the attribute's name.
 */
#ifndef KMS_PKCS11_CORE_TEMPLATE_H
#define KMS_PKCS11_CORE_TEMPLATE_H

#include "pkcs11/core/attrs.h"
#include "pkcs11/core/session.h"
#include "pkcs11/core/soft.h"

/* How an object comes to be. */
enum kms_way { KMS_WAY_CREATE, KMS_WAY_GENERATE, KMS_WAY_UNWRAP, KMS_WAY_DERIVE };

/* A template that was found good, completed with defaults. Owns its attrs. */
struct kms_template {
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE key_type; /* CK_UNAVAILABLE_INFORMATION: no key */
    bool is_private;
    CK_ULONG value_len; /* CKA_VALUE_LEN as asked for; 0: not */
    struct kms_attrs *attrs;
};

/*
 * Takes @attrs, also when it fails. @class and @key_type: what the mechanism makes, which the
 * template need not say and must not contradict; CK_UNAVAILABLE_INFORMATION: the template says.
 * CKA_TOKEN is refused: CKR_SESSION_READ_ONLY in a read-only session, else
 * CKR_TEMPLATE_INCONSISTENT: a token's keys are made by its service and never brought there.
 */
CK_RV kms_template_check(const struct kms_session *session, enum kms_way way, CK_OBJECT_CLASS class,
                         CK_KEY_TYPE key_type, struct kms_attrs *attrs,
                         struct kms_template *ret_template);
void kms_template_done(struct kms_template *tmpl); /* a zeroed one is fine */

/* What C_CopyObject and C_SetAttributeValue may change in @object: CKR_ATTRIBUTE_READ_ONLY and so
 * on; CKA_TOKEN, CKA_PRIVATE, CKA_MODIFIABLE, CKA_COPYABLE and CKA_DESTROYABLE with @copy only. */
CK_RV kms_template_may_change(const struct kms_object *object, const struct kms_attrs *change,
                              bool copy);
/* Whether private objects may be made now. */
bool kms_template_sees_private(const struct kms_slot *slot);

/*
 * The object that @tmpl describes, put in the store: with the attributes of @soft (whose reference
 * it takes, also when it fails; NULL for data and certificates), those that the way determines,
 * and, derived, those that its base does.
 */
CK_RV kms_make_finish(struct kms_session *session, struct kms_template *tmpl, enum kms_way way,
                      CK_MECHANISM_TYPE mechanism, const struct kms_object *base,
                      struct kms_soft_key *soft, CK_OBJECT_HANDLE *ret_handle);

/* make_data_key.c: CKM_KMSBRIDGE_DATA_KEY_GEN, whose parameter is good. Takes @attrs, also when it
 * fails. */
CK_RV kms_make_data_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                        struct kms_attrs *attrs, CK_OBJECT_HANDLE *ret_key);

/* make_token.c: CKA_TOKEN true. @attrs and the like are borrowed. */
CK_RV kms_make_token_key(struct kms_session *session, CK_KEY_TYPE type,
                         const struct kms_attrs *attrs, CK_OBJECT_HANDLE *ret_key);
CK_RV kms_make_token_pair(struct kms_session *session, CK_KEY_TYPE type,
                          const struct kms_attrs *public_attrs,
                          const struct kms_attrs *private_attrs, CK_OBJECT_HANDLE *ret_public,
                          CK_OBJECT_HANDLE *ret_private);

#endif
