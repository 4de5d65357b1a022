/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying: signatures here, with the public half, which needs nothing of the token; MACs by
 * making them anew and a comparison in constant time. Not by C_Verify: what it compares in, its
 * tokens do not say; a wrong MAC is CKR_DEVICE_ERROR to NSS 3.87; and an HMAC key that may not sign
 * has no identity, so there is none to ask.
 */
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define ECDSA_DER_MAX 160 /* of r and s for P-521: SEQUENCE, two INTEGERs of 67 bytes at most */

struct job {
    struct kms_backend *backend;
    const char *ref;
    const struct kms_hsm_alg *row;
    const struct kms_params *params;
    struct kms_span in;
    struct kms_span signature;
};

/* ---- pairs -------------------------------------------------------------------------------- */

/* What a signature without a hash of its own gives back must be what was signed. */
static bool recovers(EVP_PKEY_CTX *ctx, const struct job *job, int padding)
{
    uint8_t got[KMS_HSM_RSA_BYTES_MAX];
    size_t len = sizeof(got);

    return EVP_PKEY_verify_recover_init(ctx) == 1 &&
           EVP_PKEY_CTX_set_rsa_padding(ctx, padding) == 1 &&
           EVP_PKEY_verify_recover(ctx, got, &len, job->signature.data, job->signature.len) == 1 &&
           kms_span_equal(kms_span_of(got, len), job->in);
}

static bool verifies_digest(EVP_PKEY_CTX *ctx, const struct job *job, int padding,
                            struct kms_span digest)
{
    const EVP_MD *md = EVP_get_digestbyname(job->row->hash->name);

    if (md == NULL || EVP_PKEY_verify_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(ctx, padding) != 1 ||
        EVP_PKEY_CTX_set_signature_md(ctx, md) != 1) {
        return false;
    }
    if (padding == RSA_PKCS1_PSS_PADDING &&
        (EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) != 1 ||
         EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, (int)kms_hsm_salt_len(job->row, job->params)) !=
             1)) {
        return false;
    }
    return EVP_PKEY_verify(ctx, job->signature.data, job->signature.len, digest.data, digest.len) ==
           1;
}

static bool verifies_rsa(EVP_PKEY_CTX *ctx, const struct job *job)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t len = 0;

    if (job->row->alg == KMS_ALG_RSA_PKCS1) {
        return recovers(ctx, job, RSA_PKCS1_PADDING);
    }
    if (job->row->alg == KMS_ALG_RSA_RAW) {
        return recovers(ctx, job, RSA_NO_PADDING);
    }
    if (job->row->mechanism == CKM_RSA_PKCS_PSS) {
        return job->in.len == job->row->hash->len &&
               verifies_digest(ctx, job, RSA_PKCS1_PSS_PADDING, job->in);
    }
    return EVP_Q_digest(NULL, job->row->hash->name, NULL, kms_p11_in(job->in.data), job->in.len,
                        digest, &len) == 1 &&
           verifies_digest(ctx, job, RSA_PKCS1_PADDING, kms_span_of(digest, len));
}

/* r || s to the DER that OpenSSL wants. */
static bool verifies_ecdsa(EVP_PKEY_CTX *ctx, const struct job *job)
{
    int half = (int)(job->signature.len / 2);
    BIGNUM *r = BN_bin2bn(job->signature.data, half, NULL);
    BIGNUM *s = BN_bin2bn(job->signature.data + half, half, NULL);
    ECDSA_SIG *pair = ECDSA_SIG_new();
    uint8_t der[ECDSA_DER_MAX];
    uint8_t *at = der;
    int len = 0;

    if (r == NULL || s == NULL || pair == NULL || ECDSA_SIG_set0(pair, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(pair);
        return false;
    }
    len = i2d_ECDSA_SIG(pair, NULL);
    len = len > 0 && (size_t)len <= sizeof(der) ? i2d_ECDSA_SIG(pair, &at) : 0;
    ECDSA_SIG_free(pair);
    return len > 0 && EVP_PKEY_verify_init(ctx) == 1 &&
           EVP_PKEY_verify(ctx, der, (size_t)len, job->in.data, job->in.len) == 1;
}

static bool verifies_eddsa(EVP_PKEY *key, const struct job *job)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, job->signature.data, job->signature.len,
                                 kms_p11_in(job->in.data), job->in.len) == 1;

    EVP_MD_CTX_free(ctx);
    return good;
}

static CK_RV verify_here(struct kms_p11 *p, const struct job *job, const struct kms_hsm_key *key)
{
    size_t want = key->info.type == KMS_KEY_EC      ? 2 * key->size
                  : key->info.type == KMS_KEY_EDDSA ? 64
                                                    : key->size;
    EVP_PKEY_CTX *ctx = NULL;
    bool good = false;

    p->function = "verify";
    if (job->signature.len != want) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    ctx = EVP_PKEY_CTX_new(key->public_key, NULL);
    if (ctx == NULL) {
        return CKR_HOST_MEMORY;
    }
    switch (key->info.type) {
    case KMS_KEY_RSA:
        good = verifies_rsa(ctx, job);
        break;
    case KMS_KEY_EC:
        good = verifies_ecdsa(ctx, job);
        break;
    default:
        good = verifies_eddsa(key->public_key, job);
        break;
    }
    EVP_PKEY_CTX_free(ctx);
    return good ? CKR_OK : CKR_SIGNATURE_INVALID;
}

/* ---- MACs --------------------------------------------------------------------------------- */

static CK_RV make_mac(struct kms_p11 *p, const struct job *job, CK_OBJECT_HANDLE key, uint8_t *out,
                      CK_ULONG *len)
{
    CK_MECHANISM mechanism = {.mechanism = job->row->mechanism};
    CK_RV rv = KMS_P11(p, C_SignInit)(p->session, &mechanism, key);

    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Sign)(p->session, kms_p11_in(job->in.data), job->in.len, out, len);
    }
    return rv == CKR_OK && *len != job->row->hash->len ? KMS_P11_BAD_REPLY : rv;
}

static CK_RV verify_mac(struct kms_p11 *p, const struct job *job, const struct kms_hsm_key *key)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    CK_ULONG len = sizeof(mac);
    CK_RV rv = CKR_OK;

    if (kms_hsm_sign_mechanism(p, key, job->row, CKF_SIGN) == KMS_HSM_NO_MECHANISM) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "key \"%s\" (%s) cannot do %s on this token", key->info.label,
                            kms_key_type_name(key->info.type), kms_alg_name(job->row->alg));
        return CKR_MECHANISM_INVALID;
    }
    rv = make_mac(p, job, key->handle, mac, &len);
    if (rv == CKR_OK) {
        p->function = "verify";
        rv = job->signature.len != len                         ? CKR_SIGNATURE_LEN_RANGE
             : kms_secret_equal(mac, job->signature.data, len) ? CKR_OK
                                                               : CKR_SIGNATURE_INVALID;
    }
    kms_wipe(mac, sizeof(mac));
    return rv;
}

/* ---- the op ------------------------------------------------------------------------------- */

static CK_RV verify_with(struct kms_p11 *p, const struct job *job, const struct kms_hsm_key *key)
{
    if (key->info.type != job->row->type) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED, "key \"%s\" (%s) does no %s",
                            key->info.label, kms_key_type_name(key->info.type),
                            kms_alg_name(job->row->alg));
        return CKR_KEY_TYPE_INCONSISTENT;
    }
    if ((key->info.uses & KMS_USE_VERIFY) == 0) {
        (void)kms_error_set(p->ask->err, KMS_E_DENIED, "key \"%s\" (%s) is not there to verify",
                            key->info.label, kms_key_type_name(key->info.type));
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    return job->row->sign == KMS_HSM_MAC ? verify_mac(p, job, key) : verify_here(p, job, key);
}

static CK_RV verify_step(struct kms_p11 *p, void *ctx)
{
    const struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = kms_hsm_key_get(job->backend, p, job->ref, &key);

    if (rv == CKR_OK) {
        rv = verify_with(p, job, key);
    }
    kms_hsm_key_put(key);
    return rv;
}

enum kms_status kms_hsm_verify(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_span signature)
{
    struct job job = {.backend = b,
                      .ref = ref,
                      .row = kms_hsm_alg_find(params->alg),
                      .params = params,
                      .in = input,
                      .signature = signature};

    if (job.row == NULL || job.row->sign == KMS_HSM_NO_SIGN) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not verify by %s",
                             kms_alg_name(params->alg));
    }
    return kms_hsm_run(b, call, KMS_P11_READ, verify_step, &job);
}
