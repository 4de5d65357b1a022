/* SPDX-License-Identifier: Apache-2.0 */
/* Fresh keys, and keys from and to DER. */
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/decoder.h>
#include <openssl/encoder.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define RSA_MIN 2048
#define RSA_MAX 8192

/* ---- fresh -------------------------------------------------------------------------------- */

static CK_RV make_secret(CK_KEY_TYPE type, unsigned bits, struct kms_soft_key **ret_key)
{
    size_t len = bits / 8;
    uint8_t *secret = NULL;
    CK_RV rv = CKR_OK;

    if (bits % 8 != 0 || len == 0 || len > KMS_SOFT_SECRET_MAX) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_VALUE_LEN: no secret of %u bits", bits);
    }
    secret = kms_secure_new(len);
    if (secret == NULL) {
        return CKR_HOST_MEMORY;
    }
    if (RAND_priv_bytes_ex(kms_soft_lib(), secret, len, 0) != 1) {
        rv = kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto's random generator fails");
    } else {
        rv = kms_soft_key_of_secret(type, kms_span_of(secret, len), ret_key);
    }
    kms_secure_free(secret);
    return rv;
}

static CK_RV check_rsa(unsigned bits, struct kms_span e)
{
    if (bits < RSA_MIN || bits > RSA_MAX) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_MODULUS_BITS: %u is not %d to %d", bits,
                              RSA_MIN, RSA_MAX);
    }
    return e.len == 0 ? CKR_OK : kms_soft_check_exponent(e); /* empty: the usual one */
}

/* Exponent 65537 when none is given. */
static EVP_PKEY *rsa_pair(unsigned bits, struct kms_span e)
{
    static const uint8_t f4[] = {1, 0, 1};
    unsigned modulus_bits = bits;
    struct kms_soft_data data;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(kms_soft_lib(), KMS_SOFT_RSA, NULL);
    EVP_PKEY *pkey = NULL;

    if (ctx == NULL || !kms_soft_data_init(&data, 64 + e.len)) {
        EVP_PKEY_CTX_free(ctx);
        return NULL;
    }
    (void)kms_soft_data_number(&data, OSSL_PKEY_PARAM_RSA_E,
                               e.len > 0 ? e : kms_span_of(f4, sizeof(f4)));
    data.params[data.count++] = OSSL_PARAM_construct_uint(OSSL_PKEY_PARAM_RSA_BITS, &modulus_bits);
    data.params[data.count] = OSSL_PARAM_construct_end();
    if (EVP_PKEY_keygen_init(ctx) != 1 || EVP_PKEY_CTX_set_params(ctx, data.params) != 1 ||
        EVP_PKEY_generate(ctx, &pkey) != 1) {
        pkey = NULL;
    }
    kms_soft_data_done(&data);
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static EVP_PKEY *ec_pair(const char *group)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(kms_soft_lib(), KMS_SOFT_EC, NULL);
    EVP_PKEY *pkey = NULL;

    if (ctx == NULL || EVP_PKEY_keygen_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_group_name(ctx, group) != 1 || EVP_PKEY_generate(ctx, &pkey) != 1) {
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static EVP_PKEY *curve_pair(const struct kms_soft_curve *curve)
{
    return curve->type == CKK_EC_EDWARDS ? EVP_PKEY_Q_keygen(kms_soft_lib(), NULL, curve->group)
                                         : ec_pair(curve->group);
}

static CK_RV make(CK_KEY_TYPE type, unsigned bits, struct kms_span ec_params, struct kms_span e,
                  struct kms_soft_key **ret_key)
{
    const struct kms_soft_curve *curve = NULL;
    EVP_PKEY *pkey = NULL;

    if (type == CKK_RSA) {
        CK_RV rv = check_rsa(bits, e);

        if (rv != CKR_OK) {
            return rv;
        }
        pkey = rsa_pair(bits, e);
    } else if (type == CKK_EC || type == CKK_EC_EDWARDS) {
        curve = kms_soft_curve_find(type, ec_params);
        if (curve == NULL) {
            return kms_p11_refuse(CKR_CURVE_NOT_SUPPORTED, "CKA_EC_PARAMS names no curve of ours");
        }
        pkey = curve_pair(curve);
    } else {
        return make_secret(type, bits, ret_key);
    }
    return pkey != NULL ? kms_soft_key_take(pkey, true, ret_key)
                        : kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto makes no key");
}

CK_RV kms_soft_key_generate(CK_KEY_TYPE type, unsigned bits, struct kms_span ec_params,
                            struct kms_span public_exponent, struct kms_soft_key **ret_key)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(make(type, bits, ec_params, public_exponent, ret_key))
                        : rv;
}

/* ---- DER ---------------------------------------------------------------------------------- */

/* All of @der, of that structure only: libcrypto would try whatever it knows. */
static EVP_PKEY *decode(struct kms_span der, const char *structure, int selection)
{
    const unsigned char *at = der.data;
    size_t left = der.len;
    EVP_PKEY *pkey = NULL;
    OSSL_DECODER_CTX *ctx = OSSL_DECODER_CTX_new_for_pkey(&pkey, "DER", structure, NULL, selection,
                                                          kms_soft_lib(), NULL);
    bool good =
        der.len > 0 && ctx != NULL && OSSL_DECODER_from_data(ctx, &at, &left) == 1 && left == 0;

    OSSL_DECODER_CTX_free(ctx);
    if (!good) {
        EVP_PKEY_free(pkey);
        return NULL;
    }
    return pkey;
}

static CK_RV from_der(struct kms_span der, bool is_private, struct kms_soft_key **ret_key)
{
    EVP_PKEY *pkey = is_private ? decode(der, "PrivateKeyInfo", EVP_PKEY_KEYPAIR)
                                : decode(der, "SubjectPublicKeyInfo", EVP_PKEY_PUBLIC_KEY);

    return pkey != NULL ? kms_soft_key_take(pkey, is_private, ret_key)
                        : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "no %s that we can read",
                                         is_private ? "PrivateKeyInfo" : "SubjectPublicKeyInfo");
}

CK_RV kms_soft_key_from_spki(struct kms_span spki, struct kms_soft_key **ret_key)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(from_der(spki, false, ret_key)) : rv;
}

CK_RV kms_soft_key_from_pkcs8(struct kms_span pkcs8, struct kms_soft_key **ret_key)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(from_der(pkcs8, true, ret_key)) : rv;
}

static CK_RV encode(const struct kms_soft_key *key, struct kms_buf *ret_der)
{
    OSSL_ENCODER_CTX *ctx = NULL;
    unsigned char *der = NULL;
    size_t len = 0;
    CK_RV rv = CKR_FUNCTION_FAILED;

    if (key->pkey == NULL || !key->has_private) {
        return kms_p11_refuse(CKR_KEY_NOT_WRAPPABLE, "only private keys have a PrivateKeyInfo");
    }
    ctx = OSSL_ENCODER_CTX_new_for_pkey(key->pkey, EVP_PKEY_KEYPAIR, "DER", "PrivateKeyInfo", NULL);
    if (ctx != NULL && OSSL_ENCODER_to_data(ctx, &der, &len) == 1) {
        rv = kms_buf_put(ret_der, kms_span_of(der, len)) == KMS_OK ? CKR_OK : CKR_BUFFER_TOO_SMALL;
    }
    OPENSSL_clear_free(der, len);
    OSSL_ENCODER_CTX_free(ctx);
    return rv;
}

CK_RV kms_soft_key_pkcs8(const struct kms_soft_key *key, struct kms_buf *ret_der)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(encode(key, ret_der)) : rv;
}
