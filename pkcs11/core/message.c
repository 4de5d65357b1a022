/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message API: a process begins with a key, takes messages, whole or in parts, and ends.
 *
 * Unlike the operations of C_Encrypt and the like, a message that fails (a forged packet) ends
 * itself and not the process: the next one is as welcome. A message in parts is gathered, and put
 * out whole with its last part, so that nothing is shown of a plaintext whose tag is not verified.
 */
#include "pkcs11/core/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"

static const struct kind {
    CK_FLAGS flag;
    CK_ATTRIBUTE_TYPE use;
} kinds[KMS_OPK_COUNT] = {
    [KMS_OPK_MESSAGE_ENCRYPT] = {CKF_MESSAGE_ENCRYPT, CKA_ENCRYPT},
    [KMS_OPK_MESSAGE_DECRYPT] = {CKF_MESSAGE_DECRYPT, CKA_DECRYPT},
    [KMS_OPK_MESSAGE_SIGN] = {CKF_MESSAGE_SIGN, CKA_SIGN},
    [KMS_OPK_MESSAGE_VERIFY] = {CKF_MESSAGE_VERIFY, CKA_VERIFY},
};

static bool is_aead(enum kms_op_kind kind)
{
    return kind == KMS_OPK_MESSAGE_ENCRYPT || kind == KMS_OPK_MESSAGE_DECRYPT;
}

void kms_message_reset(struct kms_message *message)
{
    message->begun = false;
    message->iv_len = 0;
    kms_gather_done(&message->aad);
    kms_gather_done(&message->data);
    kms_operation_free(message->part);
    message->part = NULL;
}

void kms_message_free(struct kms_message *message)
{
    if (message != NULL) {
        kms_message_reset(message);
        kms_wipe(message, sizeof(*message));
        free(message);
    }
}

CK_RV kms_message_find(struct kms_session *session, enum kms_op_kind kind, bool begun,
                       struct kms_operation **ret_op)
{
    struct kms_operation *op = session->op[kind];

    if (op == NULL || (begun && !op->message->begun)) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    if (!begun && op->message->begun) {
        return CKR_OPERATION_ACTIVE;
    }
    *ret_op = op;
    return CKR_OK;
}

/* ---- beginning and ending a process --------------------------------------------------------- */

/* A signature's mechanism is kept for every message, and tried once here. */
static CK_RV keep_mechanism(struct kms_operation *op, const CK_MECHANISM *mechanism)
{
    struct kms_message *message = op->message;
    CK_RV rv = CKR_OK;

    if (mechanism->ulParameterLen > sizeof(message->param) ||
        (mechanism->pParameter == NULL && mechanism->ulParameterLen > 0)) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    message->mechanism = *mechanism;
    if (mechanism->ulParameterLen > 0) {
        memcpy(message->param, mechanism->pParameter, mechanism->ulParameterLen);
        message->mechanism.pParameter = message->param;
    }
    rv = kms_message_sign_begin(op);
    kms_message_reset(message);
    return rv;
}

static CK_RV begin(struct kms_operation *op, const CK_MECHANISM *mechanism)
{
    op->message = calloc(1, sizeof(*op->message));
    if (op->message == NULL) {
        return CKR_HOST_MEMORY;
    }
    return is_aead(op->kind) ? kms_message_aead_init(op, mechanism) : keep_mechanism(op, mechanism);
}

static CK_RV start(struct kms_session *session, enum kms_op_kind kind,
                   const CK_MECHANISM *mechanism, struct kms_object *key)
{
    const struct kms_mech *mech = kms_mech_find(mechanism->mechanism);
    struct kms_operation *op = NULL;
    CK_RV rv = mech == NULL ? CKR_MECHANISM_INVALID
                            : kms_operation_check(kinds[kind].flag, kinds[kind].use, mech, key);

    if (rv != CKR_OK) {
        return rv;
    }
    op = calloc(1, sizeof(*op));
    if (op == NULL) {
        return CKR_HOST_MEMORY;
    }
    op->kind = kind;
    op->mech = mech;
    op->key = kms_object_ref(key);
    rv = begin(op, mechanism);
    if (rv != CKR_OK) {
        kms_operation_free(op);
        return rv;
    }
    session->op[kind] = op;
    return CKR_OK;
}

CK_RV kms_message_init(struct kms_session *session, enum kms_op_kind kind,
                       const CK_MECHANISM *mechanism, struct kms_object *key)
{
    if (mechanism == NULL) {
        return kms_message_final(session, kind);
    }
    return session->op[kind] != NULL ? CKR_OPERATION_ACTIVE : start(session, kind, mechanism, key);
}

CK_RV kms_message_final(struct kms_session *session, enum kms_op_kind kind)
{
    if (session->op[kind] == NULL) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    kms_operation_free(session->op[kind]);
    session->op[kind] = NULL;
    return CKR_OK;
}

/* ---- messages ------------------------------------------------------------------------------- */

CK_RV kms_message_crypt(struct kms_session *session, enum kms_op_kind kind, void *param,
                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR in,
                        CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_operation *op = NULL;
    CK_RV rv = kms_message_find(session, kind, false, &op);

    if (rv != CKR_OK) {
        return rv;
    }
    if (out_len == NULL || (aad == NULL && aad_len != 0) ||
        (in == NULL && in_len != 0 && out != NULL)) {
        return CKR_ARGUMENTS_BAD;
    }
    return kms_message_aead_end(op, param, param_len, kms_span_of(aad, aad_len),
                                kms_span_of(in, in_len), out, out_len);
}

CK_RV kms_message_begin(struct kms_session *session, enum kms_op_kind kind, void *param,
                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len)
{
    struct kms_operation *op = NULL;
    CK_RV rv = kms_message_find(session, kind, false, &op);

    if (rv != CKR_OK) {
        return rv;
    }
    if (aad == NULL && aad_len != 0) {
        return CKR_ARGUMENTS_BAD;
    }
    rv = is_aead(kind) ? kms_message_aead_begin(op, param, param_len, kms_span_of(aad, aad_len))
                       : kms_message_sign_begin(op);
    op->message->begun = rv == CKR_OK;
    if (rv != CKR_OK) {
        kms_message_reset(op->message);
    }
    return rv;
}

static CK_RV gather(struct kms_operation *op, struct kms_span in)
{
    bool here = op->key->soft != NULL;

    return kms_gather_put(&op->message->data, in, here ? KMS_MESSAGE_MAX : KMS_PLAINTEXT_MAX,
                          op->kind == KMS_OPK_MESSAGE_DECRYPT ? CKR_ENCRYPTED_DATA_LEN_RANGE
                                                              : CKR_DATA_LEN_RANGE);
}

/* A part, or, with @last, the whole message. */
static CK_RV next_aead(struct kms_operation *op, void *param, CK_ULONG param_len,
                       struct kms_span in, CK_BYTE_PTR out, CK_ULONG_PTR out_len, bool last)
{
    struct kms_message *message = op->message;
    size_t need = last ? message->data.len + in.len : 0;
    CK_RV rv = CKR_OK;

    if (out == NULL && (!last || need > 0)) {
        *out_len = need;
        return CKR_OK;
    }
    if (*out_len < need) {
        *out_len = need;
        return CKR_BUFFER_TOO_SMALL;
    }
    rv = gather(op, in);
    if (rv == CKR_OK && !last) {
        *out_len = 0;
        return CKR_OK;
    }
    if (rv == CKR_OK) {
        rv = kms_message_aead_end(op, param, param_len,
                                  kms_span_of(message->aad.data, message->aad.len),
                                  kms_span_of(message->data.data, message->data.len), out, out_len);
    }
    kms_message_reset(message);
    return rv;
}

CK_RV kms_message_next(struct kms_session *session, enum kms_op_kind kind, void *param,
                       CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out,
                       CK_ULONG_PTR out_len, CK_FLAGS flags)
{
    struct kms_operation *op = NULL;
    CK_RV rv = kms_message_find(session, kind, true, &op);

    if (rv != CKR_OK) {
        return rv;
    }
    if ((in == NULL && in_len != 0) || (is_aead(kind) && out_len == NULL)) {
        kms_message_reset(op->message);
        return CKR_ARGUMENTS_BAD;
    }
    if (is_aead(kind)) {
        return next_aead(op, param, param_len, kms_span_of(in, in_len), out, out_len,
                         (flags & CKF_END_OF_MESSAGE) != 0);
    }
    return kms_message_sign_next(op, kms_span_of(in, in_len), out, out_len);
}
