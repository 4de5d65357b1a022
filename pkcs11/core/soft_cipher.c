/* SPDX-License-Identifier: Apache-2.0 */
/* AES in ECB, CBC, CBC with PKCS#7 padding, and CTR. */
#include <limits.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define BLOCK    KMS_SOFT_BLOCK
#define STEP     ((size_t)1 << 30) /* EVP counts in int */
#define IN_PLACE ((size_t)4096)    /* see crypt_in_place() */

/*
 * Bytes before the low @bits of the counter block come to 0 again. SP 800-38A, B.2 says that no
 * counter may repeat; libcrypto counts on all 128 bits, so past that point it would not even do
 * what was asked for. With 128 bits it does, and so does everybody else.
 */
static uint64_t ctr_bytes(const uint8_t block[BLOCK], unsigned bits)
{
    uint64_t high = 0;
    uint64_t low = 0;
    uint64_t blocks = 0;

    for (size_t i = 0; i < 8; i++) {
        high = high << 8 | block[i];
        low = low << 8 | block[8 + i];
    }
    if (bits > 64) {
        uint64_t mask = bits == 128 ? UINT64_MAX : (UINT64_C(1) << (bits - 64)) - 1;

        if (bits == 128 || (high & mask) != mask) {
            return UINT64_MAX;
        }
    } else if (bits < 64) {
        uint64_t mask = (UINT64_C(1) << bits) - 1;

        return ((mask - (low & mask)) + 1) > UINT64_MAX / BLOCK
                   ? UINT64_MAX
                   : ((mask - (low & mask)) + 1) * BLOCK;
    }
    blocks = UINT64_MAX - low; /* one less than there are */
    return blocks >= UINT64_MAX / BLOCK ? UINT64_MAX : (blocks + 1) * BLOCK;
}

static CK_RV cipher_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                          const struct kms_params *params)
{
    EVP_CIPHER *cipher = kms_soft_cipher(op->mech->fetch, op->key->bits);
    int encrypt = op->what == KMS_SOFT_ENCRYPT ? 1 : 0;

    (void)mechanism;
    op->pad = op->mech->type == CKM_AES_CBC_PAD;
    op->left = params->ctr_bits == 0 ? UINT64_MAX : ctr_bytes(params->iv.data, params->ctr_bits);
    op->cipher = EVP_CIPHER_CTX_new();
    if (cipher == NULL || op->cipher == NULL ||
        EVP_CipherInit_ex2(op->cipher, cipher, op->key->secret, params->iv.data, encrypt, NULL) !=
            1 ||
        EVP_CIPHER_CTX_set_padding(op->cipher, op->pad ? 1 : 0) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto cannot begin", op->mech->name);
    }
    return CKR_OK;
}

static bool is_stream(const struct kms_soft_op *op)
{
    return op->mech->param == KMS_PARAM_CTR;
}

/* What an update puts out: whole blocks, and when a padding is to be taken off, the last one waits.
 */
static size_t update_room(const struct kms_soft_op *op, size_t len)
{
    size_t all = op->held + len;

    if (is_stream(op)) {
        return len;
    }
    if (op->pad && op->what == KMS_SOFT_DECRYPT) {
        return all == 0 ? 0 : (all - 1) / BLOCK * BLOCK;
    }
    return all / BLOCK * BLOCK;
}

static size_t cipher_room(const struct kms_soft_op *op, size_t len, bool final)
{
    if (!final || is_stream(op)) {
        return update_room(op, len);
    }
    if (op->pad && op->what == KMS_SOFT_ENCRYPT) {
        return (op->held + len) / BLOCK * BLOCK + BLOCK;
    }
    return op->held + len;
}

static CK_RV crypt(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    while (in.len > 0) {
        size_t step = in.len < STEP ? in.len : STEP;
        size_t expected = update_room(op, step);
        int got = 0;

        if (EVP_CipherUpdate(op->cipher, out->data + out->len, &got, in.data, (int)step) != 1 ||
            got < 0 || (size_t)got != expected) {
            return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
        }
        op->held = op->held + step - expected;
        out->len += expected;
        in = kms_span_of(in.data + step, in.len - step);
    }
    return CKR_OK;
}

/*
 * The host may give one buffer for both (C_Encrypt: "can be in the same place"). With bytes held
 * from before, the output runs ahead of the input by up to two blocks: then each piece's successor
 * is copied before the piece is written over.
 */
static CK_RV crypt_in_place(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    uint8_t piece[2][IN_PLACE];
    size_t len[2] = {0, 0};
    unsigned now = 0;
    CK_RV rv = CKR_OK;

    len[0] = in.len < IN_PLACE ? in.len : IN_PLACE;
    memcpy(piece[0], in.data, len[0]);
    in = kms_span_of(in.data + len[0], in.len - len[0]);
    while (rv == CKR_OK && len[now] > 0) {
        unsigned next = 1 - now;

        len[next] = in.len < IN_PLACE ? in.len : IN_PLACE;
        memcpy(piece[next], in.data, len[next]);
        in = kms_span_of(in.data + len[next], in.len - len[next]);
        rv = crypt(op, kms_span_of(piece[now], len[now]), out);
        now = next;
    }
    kms_wipe(piece, sizeof(piece));
    return rv;
}

static CK_RV cipher_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    const uint8_t *at = out->data == NULL ? NULL : out->data + out->len;

    if (in.len > op->left) {
        return kms_p11_refuse(CKR_DATA_LEN_RANGE, "%s: the counter would begin again",
                              op->mech->name);
    }
    if (update_room(op, in.len) > kms_buf_room(out)) {
        return CKR_BUFFER_TOO_SMALL;
    }
    op->left -= op->left == UINT64_MAX ? 0 : in.len;
    return at == in.data && op->held > 0 ? crypt_in_place(op, in, out) : crypt(op, in, out);
}

/* A padding that is wrong is told apart from other faults by nothing but its return value. */
static CK_RV cipher_final(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t last[BLOCK];
    int got = 0;
    bool good;
    CK_RV rv = CKR_OK;

    if (is_stream(op)) {
        return CKR_OK;
    }
    if (op->pad ? op->what == KMS_SOFT_DECRYPT && op->held != BLOCK : op->held != 0) {
        return kms_soft_len_range(op);
    }
    if (!op->pad) {
        return CKR_OK;
    }
    good = EVP_CipherFinal_ex(op->cipher, last, &got) == 1 && got >= 0;
    if (!good) {
        rv = kms_p11_refuse(op->what == KMS_SOFT_DECRYPT ? CKR_ENCRYPTED_DATA_INVALID
                                                         : CKR_FUNCTION_FAILED,
                            "%s: the padding is wrong", op->mech->name);
    } else if (kms_buf_put(out, kms_span_of(last, (size_t)got)) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    kms_wipe(last, sizeof(last));
    return rv;
}

const struct kms_soft_work kms_soft_cipher_work = {
    .begin = cipher_begin,
    .update = cipher_update,
    .final = cipher_final,
    .room = cipher_room,
};
