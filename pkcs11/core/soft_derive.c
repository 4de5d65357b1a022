/* SPDX-License-Identifier: Apache-2.0 */
/* ECDH (NIST SP 800-56A; X9.63's KDF) and HKDF (RFC 5869). */
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define SECRET_MAX 66 /* P-521 */

/* OSSL_PARAM has no const; libcrypto does not write to what it is given. */
static OSSL_PARAM octets(const char *name, struct kms_span bytes)
{
    static uint8_t nothing;
    union {
        const uint8_t *in;
        uint8_t *out;
    } data = {.in = bytes.len == 0 ? &nothing : bytes.data};

    return OSSL_PARAM_construct_octet_string(name, data.out, bytes.len);
}

static OSSL_PARAM text(const char *name, const char *value, char buf[16])
{
    size_t len = strlen(value);

    memcpy(buf, value, len + 1); /* one of kms_hash's */
    return OSSL_PARAM_construct_utf8_string(name, buf, len);
}

static CK_RV fill(EVP_KDF *kdf, const OSSL_PARAM *params, struct kms_buf *out)
{
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    CK_RV rv = CKR_OK;

    if (ctx == NULL || EVP_KDF_derive(ctx, out->data, out->cap, params) != 1) {
        rv = kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto derives nothing");
    } else {
        out->len = out->cap;
    }
    EVP_KDF_CTX_free(ctx);
    return rv;
}

/* ---- ECDH --------------------------------------------------------------------------------- */

/* The x coordinate. The curves' cofactor is 1: both mechanisms are the same. */
static CK_RV agree(struct kms_soft_key *base, struct kms_span public_data,
                   uint8_t secret[SECRET_MAX], size_t *ret_len)
{
    struct kms_span inside;
    EVP_PKEY *peer = kms_soft_point(base->curve, public_data); /* raw, or in DER */
    EVP_PKEY_CTX *ctx = NULL;
    CK_RV rv = CKR_OK;

    if (peer == NULL && kms_soft_octets(public_data, &inside)) {
        peer = kms_soft_point(base->curve, inside);
    }
    if (peer == NULL) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "ECDH: the peer's point is not on the key's curve");
    }
    ctx = EVP_PKEY_CTX_new_from_pkey(kms_soft_lib(), base->pkey, NULL);
    *ret_len = SECRET_MAX;
    if (ctx == NULL || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, peer) != 1 ||
        EVP_PKEY_derive(ctx, secret, ret_len) != 1) {
        rv = kms_p11_refuse(CKR_FUNCTION_FAILED, "ECDH: libcrypto derives nothing");
    }
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    return rv;
}

static CK_RV x963(const struct kms_hash *hash, struct kms_span secret, struct kms_span shared,
                  struct kms_buf *out)
{
    char name[16];
    OSSL_PARAM params[4];
    size_t count = 0;

    params[count++] = text(OSSL_KDF_PARAM_DIGEST, hash->name, name);
    params[count++] = octets(OSSL_KDF_PARAM_SECRET, secret);
    if (shared.len > 0) {
        params[count++] = octets(OSSL_KDF_PARAM_INFO, shared);
    }
    params[count] = OSSL_PARAM_construct_end();
    return fill(kms_soft_kdf("X963KDF"), params, out);
}

/* Without a KDF, what is left of the secret is its end (3.0 current, "Elliptic curve Diffie-Hellman
 * key derivation"). */
static CK_RV derive_ecdh(const CK_MECHANISM *mechanism, struct kms_soft_key *base,
                         struct kms_buf *out)
{
    CK_ECDH1_DERIVE_PARAMS ecdh;
    uint8_t secret[SECRET_MAX];
    size_t len = 0;
    CK_RV rv;

    memcpy(&ecdh, mechanism->pParameter, sizeof(ecdh)); /* checked by kms_mech_params() */
    rv = agree(base, kms_span_of(ecdh.pPublicData, ecdh.ulPublicDataLen), secret, &len);
    if (rv == CKR_OK && ecdh.kdf != CKD_NULL) {
        rv = x963(kms_hash_by_kdf(ecdh.kdf), kms_span_of(secret, len),
                  kms_span_of(ecdh.pSharedData, ecdh.ulSharedDataLen), out);
    } else if (rv == CKR_OK && out->cap > len) {
        rv = kms_p11_refuse(CKR_KEY_SIZE_RANGE, "ECDH: the secret has %zu bytes, not %zu", len,
                            out->cap);
    } else if (rv == CKR_OK) {
        memcpy(out->data, secret + len - out->cap, out->cap);
        out->len = out->cap;
    }
    kms_wipe(secret, sizeof(secret));
    return rv;
}

/* ---- HKDF --------------------------------------------------------------------------------- */

static int hkdf_mode(const CK_HKDF_PARAMS *hkdf)
{
    if (hkdf->bExtract != CK_FALSE && hkdf->bExpand != CK_FALSE) {
        return EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND;
    }
    return hkdf->bExtract != CK_FALSE ? EVP_KDF_HKDF_MODE_EXTRACT_ONLY
                                      : EVP_KDF_HKDF_MODE_EXPAND_ONLY;
}

static CK_RV check_hkdf(const CK_HKDF_PARAMS *hkdf, const struct kms_hash *hash,
                        const struct kms_soft_key *base, size_t want)
{
    if (hkdf->bExpand == CK_FALSE ? want != hash->len : want > 255 * hash->len) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "HKDF with %s does not give %zu bytes",
                              hash->name, want);
    }
    if (hkdf->bExtract == CK_FALSE && base->secret_len < hash->len) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "HKDF expands a key of at least %zu bytes",
                              hash->len); /* RFC 5869, 2.3 */
    }
    return CKR_OK;
}

static CK_RV derive_hkdf(const CK_MECHANISM *mechanism, struct kms_soft_key *base,
                         struct kms_buf *out)
{
    const struct kms_hash *hash;
    CK_HKDF_PARAMS hkdf;
    OSSL_PARAM params[6];
    size_t count = 0;
    char name[16];
    int mode = 0;
    CK_RV rv;

    memcpy(&hkdf, mechanism->pParameter, sizeof(hkdf)); /* checked by kms_mech_params() */
    hash = kms_hash_find(hkdf.prfHashMechanism);
    mode = hkdf_mode(&hkdf);
    rv = check_hkdf(&hkdf, hash, base, out->cap);
    if (rv != CKR_OK) {
        return rv;
    }
    params[count++] = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
    params[count++] = text(OSSL_KDF_PARAM_DIGEST, hash->name, name);
    params[count++] = octets(OSSL_KDF_PARAM_KEY, kms_span_of(base->secret, base->secret_len));
    if (hkdf.bExtract != CK_FALSE && hkdf.ulSaltType == CKF_HKDF_SALT_DATA && hkdf.ulSaltLen > 0) {
        params[count++] = octets(OSSL_KDF_PARAM_SALT, kms_span_of(hkdf.pSalt, hkdf.ulSaltLen));
    }
    if (hkdf.bExpand != CK_FALSE && hkdf.ulInfoLen > 0) {
        params[count++] = octets(OSSL_KDF_PARAM_INFO, kms_span_of(hkdf.pInfo, hkdf.ulInfoLen));
    }
    params[count] = OSSL_PARAM_construct_end();
    return fill(kms_soft_kdf("HKDF"), params, out);
}

/* ---- both --------------------------------------------------------------------------------- */

static CK_RV derive(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                    struct kms_soft_key *base, struct kms_buf *out)
{
    struct kms_params params = {.alg = KMS_ALG_NONE};
    CK_RV rv = kms_mech_params(mech, mechanism, &params);

    if (rv != CKR_OK) {
        return rv;
    }
    if ((mech->local & CKF_DERIVE) == 0) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "%s derives no key", mech->name);
    }
    if (!kms_mech_takes(mech, base->type) || !base->has_private) {
        return kms_p11_refuse(CKR_KEY_TYPE_INCONSISTENT, "%s does not take this type of key",
                              mech->name);
    }
    if (out->cap == 0 || out->len != 0) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "%s: a key of no bytes", mech->name);
    }
    return mech->kind == KMS_MECH_ECDH ? derive_ecdh(mechanism, base, out)
                                       : derive_hkdf(mechanism, base, out);
}

CK_RV kms_soft_derive(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_soft_key *base, struct kms_buf *out)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(derive(mech, mechanism, base, out)) : rv;
}

size_t kms_soft_derive_len(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                           const struct kms_soft_key *base)
{
    struct kms_params params = {.alg = KMS_ALG_NONE};
    CK_ECDH1_DERIVE_PARAMS ecdh;
    CK_HKDF_PARAMS hkdf;

    if (kms_mech_params(mech, mechanism, &params) != CKR_OK) {
        return 0;
    }
    if (mech->kind == KMS_MECH_HKDF) {
        memcpy(&hkdf, mechanism->pParameter, sizeof(hkdf));
        return kms_hash_find(hkdf.prfHashMechanism)->len;
    }
    if (mech->kind != KMS_MECH_ECDH || base->curve == NULL) {
        return 0;
    }
    memcpy(&ecdh, mechanism->pParameter, sizeof(ecdh));
    return ecdh.kdf == CKD_NULL ? base->curve->order_len : kms_hash_by_kdf(ecdh.kdf)->len;
}
