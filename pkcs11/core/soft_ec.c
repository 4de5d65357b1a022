/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ECDSA, whose signatures are r || s here (PKCS#11 3.0 current, 2.3.1 "EC Signatures") and DER in
 * libcrypto; and Ed25519 (RFC 8032).
 */
#include <openssl/bn.h>
#include <openssl/ec.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define DIGEST_MAX    ((size_t)4096) /* what CKM_ECDSA takes; the order's bits of it count */
#define ORDER_MAX     66             /* P-521 */
#define DER_MAX       (2 * (ORDER_MAX + 4) + 4)
#define ED25519_BYTES 64

static CK_RV ecdsa_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                         const struct kms_params *params)
{
    CK_RV rv = kms_soft_pkey_begin(op, op->what == KMS_SOFT_SIGN ? EVP_PKEY_sign_init
                                                                 : EVP_PKEY_verify_init);

    (void)mechanism;
    (void)params;
    return rv == CKR_OK ? kms_soft_input_begin(op, DIGEST_MAX) : rv;
}

/* Both numbers as long as the order. */
static bool der_to_raw(const struct kms_soft_curve *curve, const uint8_t *der, size_t len,
                       uint8_t raw[2 * ORDER_MAX])
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    int half = (int)curve->order_len;
    bool good = sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, half) == half &&
                BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + half, half) == half;

    ECDSA_SIG_free(sig);
    return good;
}

/* @ret_der is freed with OPENSSL_free(); 0: no memory */
static int raw_to_der(struct kms_span raw, uint8_t **ret_der)
{
    int half = (int)(raw.len / 2);
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.data, half, NULL);
    BIGNUM *s = BN_bin2bn(raw.data + half, half, NULL);
    int len = 0;

    if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL;
        len = i2d_ECDSA_SIG(sig, ret_der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len > 0 ? len : 0;
}

static CK_RV ecdsa_final(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t der[DER_MAX];
    uint8_t raw[2 * ORDER_MAX];
    size_t len = sizeof(der);
    struct kms_span input;
    CK_RV rv = kms_soft_input_end(op, digest, &input);

    if (rv != CKR_OK) {
        return rv;
    }
    if (EVP_PKEY_sign(op->pkey, der, &len, input.data, input.len) != 1 ||
        !der_to_raw(op->key->curve, der, len, raw)) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
    }
    return kms_buf_put(out, kms_span_of(raw, 2 * op->key->curve->order_len)) == KMS_OK
               ? CKR_OK
               : CKR_BUFFER_TOO_SMALL;
}

/* A signature from elsewhere may be shorter, of two halves (2.3.1). */
static CK_RV ecdsa_verify(struct kms_soft_op *op, struct kms_span signature)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t *der = NULL;
    struct kms_span input;
    int len = 0;
    CK_RV rv = kms_soft_input_end(op, digest, &input);

    if (rv != CKR_OK) {
        return rv;
    }
    if (signature.len == 0 || signature.len % 2 != 0 ||
        signature.len > 2 * op->key->curve->order_len) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    len = raw_to_der(signature, &der);
    if (len == 0) {
        return CKR_HOST_MEMORY;
    }
    rv = EVP_PKEY_verify(op->pkey, der, (size_t)len, input.data, input.len) == 1
             ? CKR_OK
             : CKR_SIGNATURE_INVALID;
    OPENSSL_free(der);
    return rv;
}

static size_t ecdsa_room(const struct kms_soft_op *op, size_t len, bool final)
{
    (void)len;
    return final ? 2 * op->key->curve->order_len : 0;
}

const struct kms_soft_work kms_soft_ecdsa_work = {
    .begin = ecdsa_begin,
    .update = kms_soft_input_update,
    .final = ecdsa_final,
    .verify = ecdsa_verify,
    .room = ecdsa_room,
};

/* ---- Ed25519 ------------------------------------------------------------------------------ */

static CK_RV eddsa_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                         const struct kms_params *params)
{
    (void)mechanism;
    (void)params;
    return kms_soft_input_begin(op, KMS_SOFT_GATHER_MAX);
}

static CK_RV eddsa_sign(struct kms_soft_op *op, struct kms_span message, struct kms_buf *out)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t signature[ED25519_BYTES];
    size_t len = sizeof(signature);
    CK_RV rv = CKR_OK;

    if (md == NULL ||
        EVP_DigestSignInit_ex(md, NULL, NULL, kms_soft_lib(), NULL, op->key->pkey, NULL) != 1 ||
        EVP_DigestSign(md, signature, &len, message.data, message.len) != 1) {
        rv = kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
    } else if (kms_buf_put(out, kms_span_of(signature, len)) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    EVP_MD_CTX_free(md);
    return rv;
}

static CK_RV eddsa_final(struct kms_soft_op *op, struct kms_buf *out)
{
    return eddsa_sign(op, kms_soft_gathered(op), out);
}

static CK_RV eddsa_once(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv;

    if (op->gather.len == 0) {
        return eddsa_sign(op, in, out);
    }
    rv = kms_soft_gather_put(op, in);
    return rv == CKR_OK ? eddsa_final(op, out) : rv;
}

static CK_RV eddsa_verify(struct kms_soft_op *op, struct kms_span signature)
{
    struct kms_span message = kms_soft_gathered(op);
    EVP_MD_CTX *md;
    CK_RV rv = CKR_FUNCTION_FAILED;

    if (signature.len != ED25519_BYTES) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    md = EVP_MD_CTX_new();
    if (md != NULL &&
        EVP_DigestVerifyInit_ex(md, NULL, NULL, kms_soft_lib(), NULL, op->key->pkey, NULL) == 1) {
        rv = EVP_DigestVerify(md, signature.data, signature.len, message.data, message.len) == 1
                 ? CKR_OK
                 : CKR_SIGNATURE_INVALID;
    }
    EVP_MD_CTX_free(md);
    return rv;
}

static size_t eddsa_room(const struct kms_soft_op *op, size_t len, bool final)
{
    (void)op;
    (void)len;
    return final ? ED25519_BYTES : 0;
}

const struct kms_soft_work kms_soft_eddsa_work = {
    .begin = eddsa_begin,
    .update = kms_soft_input_update,
    .final = eddsa_final,
    .verify = eddsa_verify,
    .once = eddsa_once,
    .room = eddsa_room,
};
