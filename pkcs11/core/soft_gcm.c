/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-GCM (NIST SP 800-38D). Encryption goes straight to the caller's buffer. Decryption gathers
 * the ciphertext, which is no secret, and gives plaintext when the tag, its last bytes, is known to
 * be good; what was written before that is wiped.
 */
#include <openssl/core_names.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define STEP     ((size_t)1 << 30) /* EVP counts in int */
#define IV_USUAL 12                /* what libcrypto takes when nothing is said */

static CK_RV gcm_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                       const struct kms_params *params)
{
    EVP_CIPHER *cipher = kms_soft_cipher(op->mech->fetch, op->key->bits);
    size_t iv_size = params->iv.len;
    OSSL_PARAM with[] = {OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, &iv_size),
                         OSSL_PARAM_construct_end()};
    const OSSL_PARAM *more =
        iv_size == IV_USUAL ? NULL : with; /* libcrypto looks for each by name */
    int encrypt = op->what == KMS_SOFT_ENCRYPT ? 1 : 0;
    int none = 0;

    (void)mechanism;
    op->tag_len = params->tag_len;
    op->gather.max = KMS_SOFT_GATHER_MAX;
    op->cipher = EVP_CIPHER_CTX_new();
    if (cipher == NULL || op->cipher == NULL ||
        EVP_CipherInit_ex2(op->cipher, cipher, op->key->secret, params->iv.data, encrypt, more) !=
            1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto cannot begin", op->mech->name);
    }
    if (params->aad.len > 0 &&
        EVP_CipherUpdate(op->cipher, NULL, &none, params->aad.data, (int)params->aad.len) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto refuses the AAD", op->mech->name);
    }
    return CKR_OK;
}

static size_t gcm_room(const struct kms_soft_op *op, size_t len, bool final)
{
    size_t all = op->gather.len + len;

    if (op->what == KMS_SOFT_ENCRYPT) {
        return final ? len + op->tag_len : len;
    }
    return final && all > op->tag_len ? all - op->tag_len : 0;
}

static CK_RV crypt(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    if (in.len > kms_buf_room(out)) {
        return CKR_BUFFER_TOO_SMALL;
    }
    while (in.len > 0) {
        size_t step = in.len < STEP ? in.len : STEP;
        int got = 0;

        if (EVP_CipherUpdate(op->cipher, out->data + out->len, &got, in.data, (int)step) != 1 ||
            got < 0 || (size_t)got != step) {
            return kms_soft_len_range(op); /* of one IV: 2^36 - 32 bytes */
        }
        out->len += step;
        in = kms_span_of(in.data + step, in.len - step);
    }
    return CKR_OK;
}

static CK_RV gcm_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    return op->what == KMS_SOFT_ENCRYPT ? crypt(op, in, out) : kms_soft_gather_put(op, in);
}

static CK_RV put_tag(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t tag[KMS_SOFT_BLOCK];
    int none = 0;

    if (EVP_CipherFinal_ex(op->cipher, tag, &none) != 1 ||
        EVP_CIPHER_CTX_ctrl(op->cipher, EVP_CTRL_AEAD_GET_TAG, (int)op->tag_len, tag) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
    }
    return kms_buf_put(out, kms_span_of(tag, op->tag_len)) == KMS_OK ? CKR_OK
                                                                     : CKR_BUFFER_TOO_SMALL;
}

/* All of the ciphertext with its tag. */
static CK_RV open_all(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    const size_t from = out->len;
    uint8_t tag[KMS_SOFT_BLOCK];
    uint8_t last[KMS_SOFT_BLOCK];
    int none = 0;
    CK_RV rv;

    if (in.len < op->tag_len) {
        return kms_soft_len_range(op);
    }
    /* a copy: in place, the plaintext does not reach it, but nothing says so */
    memcpy(tag, in.data + in.len - op->tag_len, op->tag_len);
    rv = crypt(op, kms_span_of(in.data, in.len - op->tag_len), out);
    if (rv == CKR_OK &&
        (EVP_CIPHER_CTX_ctrl(op->cipher, EVP_CTRL_AEAD_SET_TAG, (int)op->tag_len, tag) != 1 ||
         EVP_CipherFinal_ex(op->cipher, last, &none) != 1)) {
        rv = kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "%s: the tag is wrong", op->mech->name);
    }
    if (rv != CKR_OK) {
        kms_wipe(out->data + from, out->len - from);
        out->len = from;
    }
    return rv;
}

static CK_RV gcm_final(struct kms_soft_op *op, struct kms_buf *out)
{
    return op->what == KMS_SOFT_ENCRYPT ? put_tag(op, out)
                                        : open_all(op, kms_soft_gathered(op), out);
}

static CK_RV gcm_once(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv;

    if (op->what == KMS_SOFT_ENCRYPT) {
        rv = crypt(op, in, out);
        return rv == CKR_OK ? put_tag(op, out) : rv;
    }
    if (op->gather.len == 0) {
        return open_all(op, in, out);
    }
    rv = kms_soft_gather_put(op, in);
    return rv == CKR_OK ? open_all(op, kms_soft_gathered(op), out) : rv;
}

const struct kms_soft_work kms_soft_gcm_work = {
    .begin = gcm_begin,
    .update = gcm_update,
    .final = gcm_final,
    .once = gcm_once,
    .room = gcm_room,
};
