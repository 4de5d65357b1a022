/* SPDX-License-Identifier: Apache-2.0 */
/* Operations with session keys and public keys, and digests: soft.h does them. */
#include "pkcs11/core/operation.h"

static const enum kms_soft_what whats[] = {
    [KMS_OPK_ENCRYPT] = KMS_SOFT_ENCRYPT, [KMS_OPK_DECRYPT] = KMS_SOFT_DECRYPT,
    [KMS_OPK_SIGN] = KMS_SOFT_SIGN,       [KMS_OPK_VERIFY] = KMS_SOFT_VERIFY,
    [KMS_OPK_DIGEST] = KMS_SOFT_DIGEST,
};

static CK_RV begin(struct kms_operation *op, const CK_MECHANISM *mechanism)
{
    return kms_soft_op_new(whats[op->kind], op->mech, mechanism,
                           op->key == NULL ? NULL : op->key->soft, &op->soft);
}

static void end(struct kms_operation *op)
{
    kms_soft_op_free(op->soft);
    op->soft = NULL;
}

/* Only what takes padding off is not known to the byte before it is done. */
static bool is_exact(const struct kms_operation *op, enum kms_step step)
{
    return step == KMS_STEP_UPDATE || op->kind != KMS_OPK_DECRYPT ||
           op->mech->kind == KMS_MECH_GCM ||
           (op->mech->kind == KMS_MECH_CIPHER && op->mech->type != CKM_AES_CBC_PAD);
}

static size_t room(const struct kms_operation *op, enum kms_step step, size_t len, bool *ret_exact)
{
    *ret_exact = is_exact(op, step);
    return kms_soft_op_room(op->soft, len, step != KMS_STEP_UPDATE);
}

static bool puts_out(const struct kms_operation *op)
{
    return op->kind == KMS_OPK_ENCRYPT || op->kind == KMS_OPK_DECRYPT;
}

static CK_RV run(struct kms_operation *op, enum kms_step step, struct kms_span in,
                 struct kms_buf *out)
{
    switch (step) {
    case KMS_STEP_ONCE:
        return kms_soft_op_once(op->soft, in, out);
    case KMS_STEP_UPDATE:
        return kms_soft_op_update(op->soft, in, puts_out(op) ? out : NULL);
    case KMS_STEP_FINAL:
    default:
        return kms_soft_op_final(op->soft, out);
    }
}

static CK_RV verify(struct kms_operation *op, bool once, struct kms_span in,
                    struct kms_span signature)
{
    CK_RV rv = once ? kms_soft_op_update(op->soft, in, NULL) : CKR_OK;

    return rv == CKR_OK ? kms_soft_op_verify(op->soft, signature) : rv;
}

const struct kms_path kms_path_local = {
    .begin = begin,
    .end = end,
    .room = room,
    .run = run,
    .verify = verify,
};
