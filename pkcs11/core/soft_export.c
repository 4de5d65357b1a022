/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attributes that a key's material determines.
 *
 * CKA_EC_POINT is a DER OCTET STRING, for Ed25519 too. 3.0 wrote "DER-encoding" there, 3.1 and its
 * errata write the bare bytes; SoftHSM gives the OCTET STRING, and libp11, GnuTLS, OpenSC and
 * pkcs11-provider as Debian 12 has them read nothing else, while all that read bare bytes read this
 * too. CKA_PUBLIC_KEY_INFO says it without doubt.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/x509.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define CHECK_LEN 3            /* bytes of CKA_CHECK_VALUE (3.0 base, "Secret key objects") */
#define POINT_MAX (1 + 2 * 66) /* P-521, uncompressed */

static CK_RV failed(void)
{
    return kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto does not show a key's parts");
}

/* ---- secrets ------------------------------------------------------------------------------ */

/* AES: of a block of zeros encrypted; else of the SHA-1 of the value. */
static CK_RV check_value(const struct kms_soft_key *key, struct kms_attrs *into)
{
    static const uint8_t zeros[KMS_SOFT_BLOCK];
    uint8_t out[EVP_MAX_MD_SIZE] = {0};
    EVP_CIPHER_CTX *ctx = NULL;
    int got = 0;
    bool good;

    if (key->type == CKK_AES) {
        ctx = EVP_CIPHER_CTX_new();
        good = ctx != NULL &&
               EVP_EncryptInit_ex2(ctx, kms_soft_cipher("AES-%u-ECB", key->bits), key->secret, NULL,
                                   NULL) == 1 &&
               EVP_EncryptUpdate(ctx, out, &got, zeros, sizeof(zeros)) == 1;
        EVP_CIPHER_CTX_free(ctx);
    } else {
        good = EVP_Digest(key->secret, key->secret_len, out, NULL, kms_soft_md("SHA1"), NULL) == 1;
    }
    return good ? kms_attrs_set(into, CKA_CHECK_VALUE, out, CHECK_LEN) : failed();
}

static CK_RV export_secret(const struct kms_soft_key *key, struct kms_attrs *into)
{
    CK_RV rv = kms_attrs_set(into, CKA_VALUE, key->secret, key->secret_len);

    if (rv == CKR_OK) {
        rv = kms_attrs_set_ulong(into, CKA_VALUE_LEN, key->secret_len);
    }
    return rv == CKR_OK ? check_value(key, into) : rv;
}

/* ---- RSA ---------------------------------------------------------------------------------- */

/* @len 0: as short as it goes */
static CK_RV put_number(const struct kms_soft_key *key, const char *name, CK_ATTRIBUTE_TYPE type,
                        size_t len, struct kms_attrs *into)
{
    BIGNUM *n = NULL;
    uint8_t *bytes = kms_secure_new(KMS_SOFT_RSA_BYTES);
    CK_RV rv = CKR_OK;

    if (bytes == NULL) {
        return CKR_HOST_MEMORY;
    }
    if (EVP_PKEY_get_bn_param(key->pkey, name, &n) != 1) {
        rv = failed();
    } else {
        len = len == 0 ? (size_t)BN_num_bytes(n) : len;
        rv = len <= KMS_SOFT_RSA_BYTES && BN_bn2binpad(n, bytes, (int)len) == (int)len
                 ? kms_attrs_set(into, type, bytes, len)
                 : failed();
    }
    BN_clear_free(n);
    kms_secure_free(bytes);
    return rv;
}

/* The remainder's numbers only if the key has them: one made of modulus and exponent has not. */
static CK_RV export_rsa(const struct kms_soft_key *key, bool public, struct kms_attrs *into)
{
    static const struct {
        const char *name;
        CK_ATTRIBUTE_TYPE type;
    } crt[] = {
        {OSSL_PKEY_PARAM_RSA_FACTOR1, CKA_PRIME_1},
        {OSSL_PKEY_PARAM_RSA_FACTOR2, CKA_PRIME_2},
        {OSSL_PKEY_PARAM_RSA_EXPONENT1, CKA_EXPONENT_1},
        {OSSL_PKEY_PARAM_RSA_EXPONENT2, CKA_EXPONENT_2},
        {OSSL_PKEY_PARAM_RSA_COEFFICIENT1, CKA_COEFFICIENT},
    };
    BIGNUM *p = NULL;
    CK_RV rv = put_number(key, OSSL_PKEY_PARAM_RSA_N, CKA_MODULUS, 0, into);

    if (rv == CKR_OK) {
        rv = put_number(key, OSSL_PKEY_PARAM_RSA_E, CKA_PUBLIC_EXPONENT, 0, into);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set_ulong(into, CKA_MODULUS_BITS, key->bits);
    }
    if (rv != CKR_OK || public || !key->has_private) {
        return rv;
    }
    rv = put_number(key, OSSL_PKEY_PARAM_RSA_D, CKA_PRIVATE_EXPONENT, 0, into);
    if (rv != CKR_OK || EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_FACTOR1, &p) != 1) {
        return rv;
    }
    BN_clear_free(p);
    for (size_t i = 0; i < sizeof(crt) / sizeof(crt[0]) && rv == CKR_OK; i++) {
        rv = put_number(key, crt[i].name, crt[i].type, 0, into);
    }
    return rv;
}

/* ---- curves ------------------------------------------------------------------------------- */

static CK_RV put_point(struct kms_span point, struct kms_attrs *into)
{
    uint8_t bytes[3 + POINT_MAX];
    struct kms_buf der = KMS_BUF_OVER(bytes);
    enum kms_status status = kms_buf_put_u8(&der, 0x04);

    if (status == KMS_OK && point.len >= 0x80) {
        status = kms_buf_put_u8(&der, 0x81);
    }
    if (status == KMS_OK) {
        status = kms_buf_put_u8(&der, (uint8_t)point.len);
    }
    if (status == KMS_OK) {
        status = kms_buf_put(&der, point);
    }
    return status == KMS_OK ? kms_attrs_set(into, CKA_EC_POINT, der.data, der.len) : failed();
}

/* Uncompressed, whatever form the key came in. */
static bool read_point(const struct kms_soft_key *key, uint8_t point[POINT_MAX], size_t *ret_len)
{
    uint8_t x[66];
    uint8_t y[66];
    size_t half = key->curve->order_len;
    BIGNUM *bx = NULL;
    BIGNUM *by = NULL;
    bool good;

    *ret_len = POINT_MAX;
    if (key->type == CKK_EC_EDWARDS) {
        return EVP_PKEY_get_raw_public_key(key->pkey, point, ret_len) == 1;
    }
    good = EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_EC_PUB_X, &bx) == 1 &&
           EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &by) == 1 &&
           BN_bn2binpad(bx, x, (int)half) == (int)half &&
           BN_bn2binpad(by, y, (int)half) == (int)half;
    if (good) {
        point[0] = 0x04; /* SEC 1, 2.3.3 */
        memcpy(point + 1, x, half);
        memcpy(point + 1 + half, y, half);
        *ret_len = 1 + 2 * half;
    }
    BN_free(bx);
    BN_free(by);
    return good;
}

static CK_RV put_scalar(const struct kms_soft_key *key, struct kms_attrs *into)
{
    uint8_t seed[32];
    size_t len = sizeof(seed);
    CK_RV rv;

    if (key->type != CKK_EC_EDWARDS) {
        return put_number(key, OSSL_PKEY_PARAM_PRIV_KEY, CKA_VALUE, key->curve->order_len, into);
    }
    if (EVP_PKEY_get_raw_private_key(key->pkey, seed, &len) != 1) {
        return failed();
    }
    rv = kms_attrs_set(into, CKA_VALUE, seed, len);
    kms_wipe(seed, sizeof(seed));
    return rv;
}

/* The point on private objects too: it saves clients from having to find the public one. */
static CK_RV export_ec(const struct kms_soft_key *key, bool public, struct kms_attrs *into)
{
    uint8_t point[POINT_MAX];
    size_t len = 0;
    CK_RV rv = kms_attrs_set(into, CKA_EC_PARAMS, key->curve->oid.data, key->curve->oid.len);

    if (rv == CKR_OK) {
        rv = read_point(key, point, &len) ? put_point(kms_span_of(point, len), into) : failed();
    }
    return rv == CKR_OK && !public && key->has_private ? put_scalar(key, into) : rv;
}

/* ---- both --------------------------------------------------------------------------------- */

/* CKA_PUBLIC_KEY_INFO, of both halves. */
static CK_RV put_spki(const struct kms_soft_key *key, struct kms_attrs *into)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key->pkey, &der);
    CK_RV rv = len > 0 ? kms_attrs_set(into, CKA_PUBLIC_KEY_INFO, der, (size_t)len) : failed();

    OPENSSL_free(der);
    return rv;
}

static CK_RV export(const struct kms_soft_key *key, bool public, struct kms_attrs *into)
{
    CK_RV rv;

    if (key->pkey == NULL) {
        return export_secret(key, into);
    }
    rv = key->curve == NULL ? export_rsa(key, public, into) : export_ec(key, public, into);
    return rv == CKR_OK ? put_spki(key, into) : rv;
}

CK_RV kms_soft_key_export(const struct kms_soft_key *key, bool public, struct kms_attrs *into)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(export(key, public, into)) : rv;
}
