/* SPDX-License-Identifier: Apache-2.0 */
/* What wrapping and unwrapping share: a key-encryption key with a mechanism, here or a token's. */
#ifndef KMS_PKCS11_CORE_WRAP_H
#define KMS_PKCS11_CORE_WRAP_H

#include "pkcs11/core/soft.h"
#include "pkcs11/core/token.h"

struct kms_wrapping {
    const struct kms_mech *mech;
    struct kms_soft_op *soft; /* NULL: the token's, by use */
    struct kms_token_use use;
};
/* @w zeroed. Return values as C_WrapKey and C_UnwrapKey name them. */
CK_RV kms_wrap_begin(struct kms_wrapping *w, bool unwrap, const CK_MECHANISM *mechanism,
                     struct kms_object *kek);
void kms_wrap_done(struct kms_wrapping *w);
/* The words of encryption in the words of wrapping: CKR_WRAPPED_KEY_INVALID, ... */
CK_RV kms_wrap_rv(CK_RV rv, bool unwrap);

#endif
