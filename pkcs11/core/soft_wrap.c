/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES key wrap (RFC 3394) and key wrap with padding (RFC 5649), as operations whose input is
 * gathered, since they need all of it; and wrapping and unwrapping by any mechanism that encrypts.
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define HALF     8               /* RFC 3394 works on half blocks */
#define WRAP_MAX ((size_t)65536) /* a wrapped key; RSA-16384 as PKCS#8 has 10 KiB */

static bool is_padded(const struct kms_soft_op *op)
{
    return op->mech->type != CKM_AES_KEY_WRAP;
}

static CK_RV wrap_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                        const struct kms_params *params)
{
    EVP_CIPHER *cipher = kms_soft_cipher(op->mech->fetch, op->key->bits);
    int encrypt = op->what == KMS_SOFT_ENCRYPT ? 1 : 0;

    (void)mechanism;
    op->gather.max = WRAP_MAX + KMS_SOFT_BLOCK;
    op->gather.secret = op->what == KMS_SOFT_ENCRYPT;
    op->cipher = EVP_CIPHER_CTX_new();
    if (op->cipher != NULL) {
        EVP_CIPHER_CTX_set_flags(op->cipher, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    }
    if (cipher == NULL || op->cipher == NULL ||
        EVP_CipherInit_ex2(op->cipher, cipher, op->key->secret, params->iv.data, encrypt, NULL) !=
            1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto cannot begin", op->mech->name);
    }
    return CKR_OK;
}

static CK_RV wrap_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    (void)out;
    return kms_soft_gather_put(op, in);
}

static size_t wrap_room(const struct kms_soft_op *op, size_t len, bool final)
{
    size_t all = op->gather.len + len;

    if (!final) {
        return 0;
    }
    if (op->what == KMS_SOFT_ENCRYPT) {
        return (all + HALF - 1) / HALF * HALF + HALF;
    }
    return all > HALF ? all - HALF : 0;
}

/* RFC 3394, 2: at least two half blocks; RFC 5649, 4: at least one byte. */
static bool good_len(const struct kms_soft_op *op)
{
    size_t len = op->gather.len;
    bool whole = len % HALF == 0;

    if (op->what == KMS_SOFT_ENCRYPT) {
        return is_padded(op) ? len > 0 && len <= WRAP_MAX
                             : whole && len >= 2 * HALF && len <= WRAP_MAX;
    }
    return whole && len >= (is_padded(op) ? 2u : 3u) * HALF;
}

static CK_RV wrap_final(struct kms_soft_op *op, struct kms_buf *out)
{
    size_t cap =
        op->gather.len + 2 * KMS_SOFT_BLOCK; /* libcrypto writes a whole block at the end */
    uint8_t *result = NULL;
    int got = 0;
    CK_RV rv = CKR_OK;

    if (!good_len(op)) {
        return kms_soft_len_range(op);
    }
    result = kms_secure_new(cap);
    if (result == NULL) {
        return CKR_HOST_MEMORY;
    }
    if (EVP_CipherUpdate(op->cipher, result, &got, op->gather.bytes, (int)op->gather.len) != 1 ||
        got <= 0) {
        rv = op->what == KMS_SOFT_DECRYPT
                 ? kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "%s: the check value is wrong",
                                  op->mech->name)
                 : kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
    } else if (kms_buf_put(out, kms_span_of(result, (size_t)got)) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    kms_secure_free(result);
    return rv;
}

const struct kms_soft_work kms_soft_wrap_work = {
    .begin = wrap_begin,
    .update = wrap_update,
    .final = wrap_final,
    .room = wrap_room,
};

/* ---- keys --------------------------------------------------------------------------------- */

/* What the same fault is called where it is a key that is encrypted. */
static CK_RV as_wrap(CK_RV rv)
{
    switch (rv) {
    case CKR_DATA_LEN_RANGE:
        return CKR_KEY_SIZE_RANGE;
    case CKR_ENCRYPTED_DATA_INVALID:
        return CKR_WRAPPED_KEY_INVALID;
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
        return CKR_WRAPPED_KEY_LEN_RANGE;
    default:
        return rv;
    }
}

static CK_RV run(enum kms_soft_what what, const struct kms_mech *mech,
                 const CK_MECHANISM *mechanism, struct kms_soft_key *kek, struct kms_span in,
                 struct kms_buf *out)
{
    CK_FLAGS flag = what == KMS_SOFT_ENCRYPT ? CKF_WRAP : CKF_UNWRAP;
    struct kms_soft_op *op = NULL;
    CK_RV rv = CKR_OK;

    if ((mech->local & flag) == 0) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "%s does not wrap keys", mech->name);
    }
    rv = kms_soft_op_new(what, mech, mechanism, kek, &op);
    if (rv == CKR_OK) {
        rv = kms_soft_op_once(op, in, out);
    }
    kms_soft_op_free(op);
    return as_wrap(rv);
}

CK_RV kms_soft_wrap(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                    struct kms_soft_key *kek, struct kms_span key, struct kms_buf *out)
{
    return run(KMS_SOFT_ENCRYPT, mech, mechanism, kek, key, out);
}

CK_RV kms_soft_unwrap(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_soft_key *kek, struct kms_span wrapped, struct kms_buf *out)
{
    return run(KMS_SOFT_DECRYPT, mech, mechanism, kek, wrapped, out);
}

size_t kms_soft_wrap_room(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                          const struct kms_soft_key *kek, size_t key_len)
{
    struct kms_params params = {.alg = KMS_ALG_NONE};

    switch (mech->kind) {
    case KMS_MECH_KEY_WRAP:
        return (key_len + HALF - 1) / HALF * HALF + HALF;
    case KMS_MECH_GCM:
        return kms_mech_params(mech, mechanism, &params) == CKR_OK ? key_len + params.tag_len
                                                                   : key_len + KMS_SOFT_BLOCK;
    case KMS_MECH_CIPHER:
        return mech->type == CKM_AES_CBC_PAD
                   ? key_len / KMS_SOFT_BLOCK * KMS_SOFT_BLOCK + KMS_SOFT_BLOCK
                   : key_len;
    default:
        return ((size_t)kek->bits + 7) / 8;
    }
}
