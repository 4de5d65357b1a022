/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations: the state machine of each kind, the two-call protocol (5.2), the host's buffers.
 *
 *                     once            update          final           init
 *   none              NOT_INITIALIZED NOT_INITIALIZED NOT_INITIALIZED begins
 *   begun             ends it         goes on         ends it         OPERATION_ACTIVE
 *   updated           NOT_INITIALIZED goes on         ends it         OPERATION_ACTIVE
 *   a result is kept  collects it, by the call that made it; any other ends it: DATA_INVALID
 *
 * A NULL buffer is answered from lengths alone. So is one that is too small, where the length is
 * known to the byte; where it is not (padding is taken off), the operation is done once and its
 * result kept until the same call, with the same input, brings a buffer that is large enough.
 */
#include "pkcs11/core/operation.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"

#define OVER_TAIL 1 /* bytes of an empty scratch */

/* C_SessionCancel's flag for each kind. */
static const CK_FLAGS cancel_flags[KMS_OPK_COUNT] = {
    [KMS_OPK_ENCRYPT] = CKF_ENCRYPT,
    [KMS_OPK_DECRYPT] = CKF_DECRYPT,
    [KMS_OPK_SIGN] = CKF_SIGN,
    [KMS_OPK_VERIFY] = CKF_VERIFY,
    [KMS_OPK_DIGEST] = CKF_DIGEST,
    [KMS_OPK_MESSAGE_ENCRYPT] = CKF_MESSAGE_ENCRYPT,
    [KMS_OPK_MESSAGE_DECRYPT] = CKF_MESSAGE_DECRYPT,
    [KMS_OPK_MESSAGE_SIGN] = CKF_MESSAGE_SIGN,
    [KMS_OPK_MESSAGE_VERIFY] = CKF_MESSAGE_VERIFY,
};

static void end(struct kms_session *session, enum kms_op_kind kind)
{
    kms_operation_free(session->op[kind]);
    session->op[kind] = NULL;
}

CK_RV kms_op_cancel(struct kms_session *session, CK_FLAGS flags)
{
    for (unsigned kind = 0; kind < KMS_OPK_COUNT; kind++) {
        if ((flags & cancel_flags[kind]) != 0) {
            end(session, (enum kms_op_kind)kind);
        }
    }
    return CKR_OK;
}

CK_RV kms_op_init(struct kms_session *session, enum kms_op_kind kind, const CK_MECHANISM *mechanism,
                  struct kms_object *key)
{
    if (mechanism == NULL) {
        bool active = session->op[kind] != NULL;

        end(session, kind);
        return active ? CKR_OK : CKR_OPERATION_NOT_INITIALIZED;
    }
    if (session->op[kind] != NULL) {
        return CKR_OPERATION_ACTIVE;
    }
    return kms_operation_new(kind, mechanism, key, &session->op[kind]);
}

/* ---- a result that waits -------------------------------------------------------------------- */

static void kept_drop(struct kms_kept *kept)
{
    kms_secure_free(kept->data);
    *kept = (struct kms_kept){.data = NULL};
}

static CK_RV input_digest(struct kms_span in, uint8_t ret[32])
{
    struct kms_buf digest = kms_buf_over(ret, 32);

    return kms_soft_digest("SHA256", in, &digest);
}

static CK_RV kept_collect(struct kms_operation *op, enum kms_step step, struct kms_span in,
                          CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_kept *kept = &op->kept;
    uint8_t input[32];
    CK_RV rv = CKR_OK;

    if (step != kept->step || in.len != kept->input_len) {
        return kms_p11_refuse(
            CKR_DATA_INVALID,
            "%s: a call that was told CKR_BUFFER_TOO_SMALL must be repeated as it "
            "was",
            op->mech->name);
    }
    if (out == NULL) {
        *out_len = kept->len;
        return CKR_OK;
    }
    rv = input_digest(in, input);
    if (rv != CKR_OK) {
        return rv;
    }
    if (memcmp(input, kept->input, sizeof(input)) != 0) {
        return kms_p11_refuse(CKR_DATA_INVALID,
                              "%s: a call that was told CKR_BUFFER_TOO_SMALL must bring the same "
                              "input again",
                              op->mech->name);
    }
    if (*out_len < kept->len) {
        *out_len = kept->len;
        return CKR_BUFFER_TOO_SMALL;
    }
    memcpy(out, kept->data, kept->len);
    *out_len = kept->len;
    kept_drop(kept);
    return CKR_OK;
}

/* ---- one step ------------------------------------------------------------------------------- */

/* Room for at most @room bytes is not there, and how many there will be is not known: done in
 * memory of ours, and kept if need be. */
static CK_RV run_aside(struct kms_operation *op, enum kms_step step, struct kms_span in,
                       size_t room, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_kept kept = {.step = step, .input_len = in.len};
    struct kms_buf buf = kms_buf_over(NULL, room);
    CK_RV rv = input_digest(in, kept.input);

    if (rv != CKR_OK) {
        return rv;
    }
    kept.data = kms_secure_new(room + OVER_TAIL);
    if (kept.data == NULL) {
        return CKR_HOST_MEMORY;
    }
    buf.data = kept.data;
    rv = op->path->run(op, step, in, &buf);
    if (rv != CKR_OK) {
        kept_drop(&kept);
        return rv;
    }
    kept.len = buf.len;
    if (*out_len < kept.len) {
        *out_len = kept.len;
        op->kept = kept;
        return CKR_BUFFER_TOO_SMALL;
    }
    memcpy(out, kept.data, kept.len);
    *out_len = kept.len;
    kept_drop(&kept);
    return CKR_OK;
}

static CK_RV run_direct(struct kms_operation *op, enum kms_step step, struct kms_span in,
                        CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_buf buf = kms_buf_over(out, *out_len);
    CK_RV rv = op->path->run(op, step, in, &buf);

    if (rv == CKR_OK) {
        *out_len = buf.len;
    } else {
        kms_wipe(buf.data, buf.len); /* nothing of a plaintext that was not finished */
    }
    return rv;
}

/* Output may be written over input (5.2), but what holds bytes back, or asks in pieces, would
 * overtake it. */
static CK_RV run_overlapping(struct kms_operation *op, enum kms_step step, struct kms_span in,
                             CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    uint8_t *copy = kms_secure_new(in.len);
    CK_RV rv = CKR_HOST_MEMORY;

    if (copy != NULL) {
        memcpy(copy, in.data, in.len);
        rv = run_direct(op, step, kms_span_of(copy, in.len), out, out_len);
        kms_secure_free(copy);
    }
    return rv;
}

static bool overlaps(const struct kms_operation *op, enum kms_step step, struct kms_span in,
                     const uint8_t *out, size_t room)
{
    uintptr_t a = (uintptr_t)in.data;
    uintptr_t b = (uintptr_t)out;

    if (a == b && step == KMS_STEP_ONCE && op->path == &kms_path_local) {
        return false; /* soft.h can */
    }
    return in.len > 0 && room > 0 && a < b + room && b < a + in.len;
}

static CK_RV run(struct kms_operation *op, enum kms_step step, struct kms_span in, CK_BYTE_PTR out,
                 CK_ULONG_PTR out_len)
{
    bool exact = false;
    size_t room = op->path->room(op, step, in.len, &exact);

    if (out == NULL) {
        *out_len = room;
        return CKR_OK;
    }
    if (*out_len >= room) {
        return overlaps(op, step, in, out, room) ? run_overlapping(op, step, in, out, out_len)
                                                 : run_direct(op, step, in, out, out_len);
    }
    if (exact) {
        *out_len = room;
        return CKR_BUFFER_TOO_SMALL;
    }
    return run_aside(op, step, in, room, out, out_len);
}

CK_RV kms_operation_step(struct kms_operation *op, enum kms_step step, CK_BYTE_PTR in,
                         CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len, bool *ret_over)
{
    struct kms_span bytes = kms_span_of(in, in_len);
    bool query = out == NULL;
    CK_RV rv = CKR_OK;

    *ret_over = true;
    if (step == KMS_STEP_ONCE && op->updated) {
        return CKR_OPERATION_NOT_INITIALIZED; /* the one-part call cannot end a multi-part one */
    }
    if (out_len == NULL || (in == NULL && in_len != 0 && !query)) {
        return CKR_ARGUMENTS_BAD;
    }
    if (in_len > SIZE_MAX / 4) {
        return CKR_DATA_LEN_RANGE;
    }
    rv = op->kept.data != NULL ? kept_collect(op, step, bytes, out, out_len)
                               : run(op, step, bytes, out, out_len);
    if (rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && query)) {
        *ret_over = false;
    } else if (rv == CKR_OK && step == KMS_STEP_UPDATE) {
        op->updated = true;
        *ret_over = false;
    }
    return rv;
}

/* ---- what C_ functions call ----------------------------------------------------------------- */

static CK_RV step(struct kms_session *session, enum kms_op_kind kind, enum kms_step what,
                  CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    bool over = true;
    CK_RV rv = CKR_OPERATION_NOT_INITIALIZED;

    if (session->op[kind] == NULL) {
        return rv;
    }
    rv = kms_operation_step(session->op[kind], what, in, in_len, out, out_len, &over);
    if (over) {
        end(session, kind);
    }
    return rv;
}

CK_RV kms_op_once(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR in,
                  CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return step(session, kind, KMS_STEP_ONCE, in, in_len, out, out_len);
}

CK_RV kms_op_final(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len)
{
    return step(session, kind, KMS_STEP_FINAL, NULL, 0, out, out_len);
}

/* An update without output. */
static CK_RV absorb(struct kms_operation *op, CK_BYTE_PTR in, CK_ULONG in_len)
{
    CK_RV rv = CKR_OK;

    if (in == NULL && in_len != 0) {
        return CKR_ARGUMENTS_BAD;
    }
    if (op->kept.data != NULL) {
        return kms_p11_refuse(CKR_DATA_INVALID, "%s: a result waits to be collected",
                              op->mech->name);
    }
    rv = op->path->run(op, KMS_STEP_UPDATE, kms_span_of(in, in_len), NULL);
    op->updated = true;
    return rv;
}

CK_RV kms_op_update(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR in,
                    CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    CK_RV rv = CKR_OK;

    if (kind == KMS_OPK_ENCRYPT || kind == KMS_OPK_DECRYPT) {
        return step(session, kind, KMS_STEP_UPDATE, in, in_len, out, out_len);
    }
    if (session->op[kind] == NULL) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    rv = absorb(session->op[kind], in, in_len);
    if (rv != CKR_OK) {
        end(session, kind);
    }
    return rv;
}

CK_RV kms_op_digest_key(struct kms_session *session, struct kms_object *key)
{
    struct kms_operation *op = session->op[KMS_OPK_DIGEST];
    struct kms_span value = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    if (op == NULL) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    if (key->class != CKO_SECRET_KEY || key->soft == NULL ||
        !kms_attrs_get(key->attrs, CKA_VALUE, &value)) {
        rv = kms_p11_refuse(CKR_KEY_INDIGESTIBLE,
                            "C_DigestKey: only a secret session key has bytes here");
    } else {
        rv = op->path->run(op, KMS_STEP_UPDATE, value, NULL);
        op->updated = true;
    }
    if (rv != CKR_OK) {
        end(session, KMS_OPK_DIGEST);
    }
    return rv;
}

CK_RV kms_op_verify(struct kms_session *session, bool once, CK_BYTE_PTR in, CK_ULONG in_len,
                    CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    struct kms_operation *op = session->op[KMS_OPK_VERIFY];
    CK_RV rv = CKR_OK;

    if (op == NULL) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    if (once && op->updated) {
        rv = CKR_OPERATION_NOT_INITIALIZED;
    } else if ((in == NULL && in_len != 0) || signature == NULL) {
        rv = CKR_ARGUMENTS_BAD;
    } else if (in_len > SIZE_MAX / 4) {
        rv = CKR_DATA_LEN_RANGE;
    } else {
        rv = op->path->verify(op, once, kms_span_of(in, in_len),
                              kms_span_of(signature, signature_len));
    }
    end(session, KMS_OPK_VERIFY);
    return rv;
}
