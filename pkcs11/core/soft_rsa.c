/* SPDX-License-Identifier: Apache-2.0 */
/* RSA (RFC 8017): PKCS#1 v1.5, PSS, OAEP, and without padding (CKM_RSA_X_509). */
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define PKCS1_OVERHEAD 11

static size_t modulus_len(const struct kms_soft_op *op)
{
    return ((size_t)op->key->bits + 7) / 8;
}

static bool is_kind(const struct kms_soft_op *op, enum kms_mech_kind kind)
{
    return op->mech->kind == kind;
}

/* ---- parameters --------------------------------------------------------------------------- */

/* Hash, mask and salt of PSS; what the key has no room for is refused now, not at the end. */
static CK_RV set_pss(struct kms_soft_op *op, const CK_MECHANISM *mechanism)
{
    CK_RSA_PKCS_PSS_PARAMS pss;
    size_t encoded = ((size_t)op->key->bits - 1 + 7) / 8; /* RFC 8017, 8.1.1: emLen */

    memcpy(&pss, mechanism->pParameter, sizeof(pss)); /* checked by kms_mech_params() */
    op->hash = kms_hash_find(pss.hashAlg);
    op->mask = kms_hash_by_mgf(pss.mgf);
    if (encoded < op->hash->len + pss.sLen + 2) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "%s: hash and salt of %lu bytes are too long for the key",
                              op->mech->name, pss.sLen);
    }
    if (EVP_PKEY_CTX_set_rsa_padding(op->pkey, RSA_PKCS1_PSS_PADDING) != 1 ||
        EVP_PKEY_CTX_set_signature_md(op->pkey, kms_soft_md(op->hash->name)) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(op->pkey, kms_soft_md(op->mask->name)) != 1 ||
        EVP_PKEY_CTX_set_rsa_pss_saltlen(op->pkey, (int)pss.sLen) != 1) {
        return CKR_FUNCTION_FAILED;
    }
    return CKR_OK;
}

static CK_RV set_oaep(struct kms_soft_op *op, const CK_MECHANISM *mechanism)
{
    CK_RSA_PKCS_OAEP_PARAMS oaep;
    void *label = NULL;

    memcpy(&oaep, mechanism->pParameter, sizeof(oaep)); /* checked by kms_mech_params() */
    op->hash = kms_hash_find(oaep.hashAlg);
    op->mask = kms_hash_by_mgf(oaep.mgf);
    if (modulus_len(op) < 2 * op->hash->len + 2) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID, "%s: the hash is too long for the key",
                              op->mech->name);
    }
    if (EVP_PKEY_CTX_set_rsa_padding(op->pkey, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md(op->pkey, kms_soft_md(op->hash->name)) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(op->pkey, kms_soft_md(op->mask->name)) != 1) {
        return CKR_FUNCTION_FAILED;
    }
    if (oaep.ulSourceDataLen == 0) {
        return CKR_OK;
    }
    label = OPENSSL_memdup(oaep.pSourceData, oaep.ulSourceDataLen);
    if (label == NULL ||
        EVP_PKEY_CTX_set0_rsa_oaep_label(op->pkey, label, (int)oaep.ulSourceDataLen) != 1) {
        OPENSSL_free(label);
        return CKR_HOST_MEMORY;
    }
    return CKR_OK;
}

/* A signature of bytes as they are is verified by encoding them here and comparing the whole block:
 * libcrypto does not verify one of no bytes. */
static bool encodes_here(const struct kms_soft_op *op)
{
    return is_kind(op, KMS_MECH_RSA_PKCS1) && op->what == KMS_SOFT_VERIFY && op->mech->hash == NULL;
}

static CK_RV set_pkcs1(struct kms_soft_op *op)
{
    int padding = encodes_here(op) ? RSA_NO_PADDING : RSA_PKCS1_PADDING;

    if (EVP_PKEY_CTX_set_rsa_padding(op->pkey, padding) != 1) {
        return CKR_FUNCTION_FAILED;
    }
    if (op->mech->hash != NULL &&
        EVP_PKEY_CTX_set_signature_md(op->pkey, kms_soft_md(op->mech->hash)) != 1) {
        return CKR_FUNCTION_FAILED;
    }
    return CKR_OK; /* without a hash the input is signed as it is: a DigestInfo, or anything */
}

static size_t input_max(const struct kms_soft_op *op)
{
    size_t k = modulus_len(op);

    if (op->what == KMS_SOFT_DECRYPT || is_kind(op, KMS_MECH_RSA_RAW)) {
        return k;
    }
    if (is_kind(op, KMS_MECH_RSA_PKCS1)) {
        return k - PKCS1_OVERHEAD;
    }
    return is_kind(op, KMS_MECH_RSA_OAEP) ? k - 2 * op->hash->len - 2 : op->hash->len;
}

static CK_RV rsa_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                       const struct kms_params *params)
{
    static int (*const inits[])(EVP_PKEY_CTX *) = {
        [KMS_SOFT_ENCRYPT] = EVP_PKEY_encrypt_init,
        [KMS_SOFT_DECRYPT] = EVP_PKEY_decrypt_init,
        [KMS_SOFT_SIGN] = EVP_PKEY_sign_init,
        [KMS_SOFT_VERIFY] = EVP_PKEY_verify_init,
    };
    CK_RV rv = kms_soft_pkey_begin(op, inits[op->what]);

    (void)params;
    if (rv == CKR_OK && is_kind(op, KMS_MECH_RSA_PSS)) {
        rv = set_pss(op, mechanism);
    } else if (rv == CKR_OK && is_kind(op, KMS_MECH_RSA_OAEP)) {
        rv = set_oaep(op, mechanism);
    } else if (rv == CKR_OK && is_kind(op, KMS_MECH_RSA_PKCS1)) {
        rv = set_pkcs1(op);
    } else if (rv == CKR_OK && EVP_PKEY_CTX_set_rsa_padding(op->pkey, RSA_NO_PADDING) != 1) {
        rv = CKR_FUNCTION_FAILED;
    }
    return rv == CKR_OK ? kms_soft_input_begin(op, input_max(op)) : rv;
}

/* ---- the end ------------------------------------------------------------------------------ */

/* At the end of a block as long as the modulus; in front of it what the padding is: zeros without
 * one, whose leading ones a caller may leave out; or RFC 8017, 9.2's. */
static void fill_block(const struct kms_soft_op *op, struct kms_span in, uint8_t *block)
{
    size_t before = modulus_len(op) - in.len;

    memset(block, 0, before);
    if (in.len > 0) {
        memcpy(block + before, in.data, in.len);
    }
    if (encodes_here(op)) {
        memset(block + 1, 0xff, before - 2);
        block[1] = 0x01;
    }
}

/* What goes into the primitive. @block is where it is made longer, if it is. */
static CK_RV take_input(struct kms_soft_op *op, uint8_t digest[EVP_MAX_MD_SIZE],
                        uint8_t block[KMS_SOFT_RSA_BYTES], struct kms_span *ret_input)
{
    size_t k = modulus_len(op);
    bool fills =
        encodes_here(op) || (is_kind(op, KMS_MECH_RSA_RAW) && op->what != KMS_SOFT_DECRYPT);
    CK_RV rv = kms_soft_input_end(op, digest, ret_input);

    if (rv != CKR_OK) {
        return rv;
    }
    if (op->what == KMS_SOFT_DECRYPT && ret_input->len != k) {
        return kms_soft_len_range(op);
    }
    if (is_kind(op, KMS_MECH_RSA_PSS) && ret_input->len != op->hash->len) {
        return kms_soft_len_range(op); /* CKM_RSA_PKCS_PSS takes the digest */
    }
    if (fills) {
        fill_block(op, *ret_input, block);
        *ret_input = kms_span_of(block, k);
    }
    return CKR_OK;
}

/* Why the primitive refused. A decryption that failed says no more than that. */
static CK_RV refused(const struct kms_soft_op *op)
{
    CK_RV rv = op->what == KMS_SOFT_DECRYPT    ? CKR_ENCRYPTED_DATA_INVALID
               : is_kind(op, KMS_MECH_RSA_RAW) ? CKR_DATA_INVALID /* above the modulus */
                                               : CKR_FUNCTION_FAILED;

    return kms_p11_refuse(rv, "%s: libcrypto refuses", op->mech->name);
}

static CK_RV run(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    static int (*const runs[])(EVP_PKEY_CTX *, unsigned char *, size_t *, const unsigned char *,
                               size_t) = {
        [KMS_SOFT_ENCRYPT] = EVP_PKEY_encrypt,
        [KMS_SOFT_DECRYPT] = EVP_PKEY_decrypt,
        [KMS_SOFT_SIGN] = EVP_PKEY_sign,
    };
    uint8_t *result = kms_secure_new(KMS_SOFT_RSA_BYTES);
    size_t len = KMS_SOFT_RSA_BYTES;
    CK_RV rv = CKR_OK;

    if (result == NULL) {
        return CKR_HOST_MEMORY;
    }
    if (runs[op->what](op->pkey, result, &len, in.data, in.len) != 1) {
        rv = refused(op);
    } else if (kms_buf_put(out, kms_span_of(result, len)) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    kms_secure_free(result);
    return rv;
}

static CK_RV rsa_final(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t block[KMS_SOFT_RSA_BYTES];
    struct kms_span input;
    CK_RV rv = take_input(op, digest, block, &input);

    if (rv == CKR_OK) {
        rv = run(op, input, out);
    }
    kms_wipe(block, sizeof(block));
    return rv;
}

static CK_RV rsa_verify(struct kms_soft_op *op, struct kms_span signature)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t block[KMS_SOFT_RSA_BYTES];
    struct kms_span input;
    CK_RV rv = take_input(op, digest, block, &input);

    if (rv != CKR_OK) {
        return rv;
    }
    if (signature.len != modulus_len(op)) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    return EVP_PKEY_verify(op->pkey, signature.data, signature.len, input.data, input.len) == 1
               ? CKR_OK
               : CKR_SIGNATURE_INVALID;
}

static size_t rsa_room(const struct kms_soft_op *op, size_t len, bool final)
{
    (void)len;
    return final ? modulus_len(op) : 0;
}

const struct kms_soft_work kms_soft_rsa_work = {
    .begin = rsa_begin,
    .update = kms_soft_input_update,
    .final = rsa_final,
    .verify = rsa_verify,
    .room = rsa_room,
};
