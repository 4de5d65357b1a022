/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that are signed or verified: each is an operation of its own, as C_Sign's. */
#include <stdint.h>

#include "pkcs11/core/crypto.h"
#include "pkcs11/core/message.h"

static bool signs(const struct kms_operation *op)
{
    return op->kind == KMS_OPK_MESSAGE_SIGN;
}

static CK_RV part_new(const struct kms_operation *op, struct kms_operation **ret_part)
{
    return kms_operation_new(signs(op) ? KMS_OPK_SIGN : KMS_OPK_VERIFY, &op->message->mechanism,
                             op->key, ret_part);
}

CK_RV kms_message_sign_begin(struct kms_operation *op)
{
    return part_new(op, &op->message->part);
}

/* As kms_operation_step() has it: a length that no memory has is the host's mistake. */
static bool is_impossible(struct kms_span in)
{
    return in.len > SIZE_MAX / 4;
}

static CK_RV absorb(struct kms_operation *part, struct kms_span in)
{
    return is_impossible(in) ? CKR_DATA_LEN_RANGE
                             : part->path->run(part, KMS_STEP_UPDATE, in, NULL);
}

/* The last part of a signed message. Too small a buffer takes nothing in. */
static CK_RV finish(struct kms_operation *part, struct kms_span in, CK_BYTE_PTR signature,
                    CK_ULONG_PTR signature_len, bool *ret_over)
{
    bool exact = false;
    size_t need = part->path->room(part, KMS_STEP_FINAL, 0, &exact);
    CK_RV rv = CKR_OK;

    *ret_over = false;
    if (signature == NULL || *signature_len < need) {
        *signature_len = need;
        return signature == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
    }
    *ret_over = true;
    rv = absorb(part, in);
    return rv == CKR_OK ? kms_operation_step(part, KMS_STEP_FINAL, NULL, 0, signature,
                                             signature_len, ret_over)
                        : rv;
}

CK_RV kms_message_sign_next(struct kms_operation *op, struct kms_span in, CK_BYTE_PTR signature,
                            CK_ULONG_PTR signature_len)
{
    struct kms_operation *part = op->message->part;
    bool over = true;
    CK_RV rv = CKR_OK;

    if (signature_len == NULL || (!signs(op) && signature == NULL)) {
        rv = absorb(part, in);
        over = rv != CKR_OK;
    } else if (signs(op)) {
        rv = finish(part, in, signature, signature_len, &over);
    } else {
        rv = absorb(part, in);
        if (rv == CKR_OK) {
            rv = part->path->verify(part, false, KMS_SPAN_NONE,
                                    kms_span_of(signature, *signature_len));
        }
    }
    if (over) {
        kms_message_reset(op->message);
    }
    return rv;
}

CK_RV kms_message_sign(struct kms_session *session, void *param, CK_ULONG param_len,
                       CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                       CK_ULONG_PTR signature_len)
{
    struct kms_operation *op = NULL;
    struct kms_operation *part = NULL;
    bool over = true;
    CK_RV rv = kms_message_find(session, KMS_OPK_MESSAGE_SIGN, false, &op);

    (void)param; /* no mechanism of ours has one for each message */
    (void)param_len;
    if (rv == CKR_OK) {
        rv = part_new(op, &part);
    }
    if (rv == CKR_OK) {
        rv = kms_operation_step(part, KMS_STEP_ONCE, data, data_len, signature, signature_len,
                                &over);
    }
    kms_operation_free(part);
    return rv;
}

CK_RV kms_message_verify(struct kms_session *session, void *param, CK_ULONG param_len,
                         CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                         CK_ULONG signature_len)
{
    struct kms_operation *op = NULL;
    struct kms_operation *part = NULL;
    CK_RV rv = kms_message_find(session, KMS_OPK_MESSAGE_VERIFY, false, &op);

    (void)param;
    (void)param_len;
    if (rv == CKR_OK && (signature == NULL || (data == NULL && data_len != 0))) {
        rv = CKR_ARGUMENTS_BAD;
    }
    if (rv == CKR_OK && is_impossible(kms_span_of(data, data_len))) {
        rv = CKR_DATA_LEN_RANGE;
    }
    if (rv == CKR_OK) {
        rv = part_new(op, &part);
    }
    if (rv == CKR_OK) {
        rv = part->path->verify(part, true, kms_span_of(data, data_len),
                                kms_span_of(signature, signature_len));
    }
    kms_operation_free(part);
    return rv;
}
