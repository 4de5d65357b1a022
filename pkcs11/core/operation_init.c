/* SPDX-License-Identifier: Apache-2.0 */
/* How an operation begins: may this key do that by this mechanism? */
#include <stdlib.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/message.h"
#include "pkcs11/core/operation.h"

static const struct kind {
    CK_FLAGS flag;
    CK_ATTRIBUTE_TYPE use;
} kinds[] = {
    [KMS_OPK_ENCRYPT] = {CKF_ENCRYPT, CKA_ENCRYPT},
    [KMS_OPK_DECRYPT] = {CKF_DECRYPT, CKA_DECRYPT},
    [KMS_OPK_SIGN] = {CKF_SIGN, CKA_SIGN},
    [KMS_OPK_VERIFY] = {CKF_VERIFY, CKA_VERIFY},
    [KMS_OPK_DIGEST] = {CKF_DIGEST, 0},
};

/* Which half of a pair does what; secret keys do all. */
static const struct half {
    CK_ATTRIBUTE_TYPE use;
    CK_OBJECT_CLASS class;
} halves[] = {
    {CKA_ENCRYPT, CKO_PUBLIC_KEY},  {CKA_VERIFY, CKO_PUBLIC_KEY}, {CKA_WRAP, CKO_PUBLIC_KEY},
    {CKA_DECRYPT, CKO_PRIVATE_KEY}, {CKA_SIGN, CKO_PRIVATE_KEY},  {CKA_UNWRAP, CKO_PRIVATE_KEY},
    {CKA_DERIVE, CKO_PRIVATE_KEY},
};

static bool is_key(const struct kms_object *object)
{
    return object->class == CKO_SECRET_KEY || object->class == CKO_PUBLIC_KEY ||
           object->class == CKO_PRIVATE_KEY;
}

static bool is_right_half(const struct kms_object *key, CK_ATTRIBUTE_TYPE use)
{
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        if (halves[i].use == use && halves[i].class == key->class) {
            return true;
        }
    }
    return key->class == CKO_SECRET_KEY;
}

CK_RV kms_operation_check(CK_FLAGS flag, CK_ATTRIBUTE_TYPE use, const struct kms_mech *mech,
                          struct kms_object *key)
{
    CK_FLAGS can = key->soft != NULL ? mech->local : mech->remote;

    if (((mech->local | mech->remote) & flag) == 0) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "%s is not for that", mech->name);
    }
    if (!is_key(key)) {
        return CKR_KEY_HANDLE_INVALID;
    }
    if (!is_right_half(key, use) || !kms_mech_takes(mech, key->key_type)) {
        return kms_p11_refuse(CKR_KEY_TYPE_INCONSISTENT, "%s does not go with a key of type 0x%lx",
                              mech->name, key->key_type);
    }
    if ((can & flag) == 0) {
        return kms_p11_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "%s is not for %s keys", mech->name,
                              key->soft != NULL ? "session" : "token");
    }
    return kms_object_may(key, use, mech->type);
}

CK_RV kms_operation_new(enum kms_op_kind kind, const CK_MECHANISM *mechanism,
                        struct kms_object *key, struct kms_operation **ret_op)
{
    const struct kms_mech *mech = kms_mech_find(mechanism->mechanism);
    struct kms_operation *op = NULL;
    CK_RV rv = CKR_OK;

    if (mech == NULL) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "mechanism 0x%lx is none of ours",
                              mechanism->mechanism);
    }
    if (kind == KMS_OPK_DIGEST) {
        rv = (mech->local & CKF_DIGEST) != 0 ? CKR_OK : CKR_MECHANISM_INVALID;
    } else {
        rv = kms_operation_check(kinds[kind].flag, kinds[kind].use, mech, key);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    op = calloc(1, sizeof(*op));
    if (op == NULL) {
        return CKR_HOST_MEMORY;
    }
    op->kind = kind;
    op->mech = mech;
    op->key = key == NULL ? NULL : kms_object_ref(key);
    op->path = key == NULL || key->soft != NULL ? &kms_path_local : &kms_path_token;
    rv = op->path->begin(op, mechanism);
    if (rv != CKR_OK) {
        kms_operation_free(op);
        return rv;
    }
    *ret_op = op;
    return CKR_OK;
}

void kms_operation_free(struct kms_operation *op)
{
    if (op == NULL) {
        return;
    }
    if (op->path != NULL) {
        op->path->end(op);
    }
    kms_message_free(op->message);
    kms_soft_op_free(op->soft);
    kms_gather_done(&op->gathered);
    kms_secure_free(op->kept.data);
    kms_object_unref(op->key);
    kms_wipe(op, sizeof(*op));
    free(op);
}
