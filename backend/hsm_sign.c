/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and MACs: one table of algorithms. */
#include <openssl/evp.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define INFO_LEN 19 /* of a DER DigestInfo for SHA-2, without the digest */

/* PSS parameters (mechanisms 2.1.10): MGF1 with the same hash, a salt as long as the digest. */
struct pss {
    CK_MECHANISM_TYPE hash;
    unsigned long mgf;
    size_t len;
};
static const struct pss pss_sha256 = {CKM_SHA256, CKG_MGF1_SHA256, 32};
static const struct pss pss_sha384 = {CKM_SHA384, CKG_MGF1_SHA384, 48};
static const struct pss pss_sha512 = {CKM_SHA512, CKG_MGF1_SHA512, 64};

/* For tokens with CKM_RSA_PKCS only: hash here, and put this in front (RFC 8017 9.2 note 1). */
struct local_hash {
    const char *digest;
    uint8_t info[INFO_LEN];
};
static const struct local_hash info_sha256 = {"SHA256",
                                              {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48,
                                               0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04,
                                               0x20}};
static const struct local_hash info_sha384 = {"SHA384",
                                              {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48,
                                               0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04,
                                               0x30}};
static const struct local_hash info_sha512 = {"SHA512",
                                              {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48,
                                               0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04,
                                               0x40}};

static const struct row {
    enum kms_alg alg;
    enum kms_key_type type;
    CK_MECHANISM_TYPE mechanism;
    const struct pss *pss;
    const struct local_hash *local;
} rows[] = {
    {KMS_ALG_RSA_PKCS1, KMS_KEY_RSA, CKM_RSA_PKCS, NULL, NULL},
    {KMS_ALG_RSA_PKCS1_SHA256, KMS_KEY_RSA, CKM_SHA256_RSA_PKCS, NULL, &info_sha256},
    {KMS_ALG_RSA_PKCS1_SHA384, KMS_KEY_RSA, CKM_SHA384_RSA_PKCS, NULL, &info_sha384},
    {KMS_ALG_RSA_PKCS1_SHA512, KMS_KEY_RSA, CKM_SHA512_RSA_PKCS, NULL, &info_sha512},
    {KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, &pss_sha256, NULL},
    {KMS_ALG_RSA_PSS_SHA384, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, &pss_sha384, NULL},
    {KMS_ALG_RSA_PSS_SHA512, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, &pss_sha512, NULL},
    {KMS_ALG_ECDSA, KMS_KEY_EC, CKM_ECDSA, NULL, NULL},
    {KMS_ALG_EDDSA, KMS_KEY_EDDSA, CKM_EDDSA, NULL, NULL},
    {KMS_ALG_HMAC_SHA1, KMS_KEY_GENERIC, CKM_SHA_1_HMAC, NULL, NULL},
    {KMS_ALG_HMAC_SHA256, KMS_KEY_GENERIC, CKM_SHA256_HMAC, NULL, NULL},
    {KMS_ALG_HMAC_SHA384, KMS_KEY_GENERIC, CKM_SHA384_HMAC, NULL, NULL},
    {KMS_ALG_HMAC_SHA512, KMS_KEY_GENERIC, CKM_SHA512_HMAC, NULL, NULL},
};

struct job {
    struct kms_backend *backend;
    const char *ref;
    const struct row *row;
    struct kms_span in;
    uint8_t out[KMS_SIGNATURE_MAX];
    size_t out_len;
};

static const struct row *row_find(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].alg == alg) {
            return &rows[i];
        }
    }
    return NULL;
}

static CK_RV sign_by(struct kms_p11 *p, struct job *job, CK_MECHANISM *mechanism,
                     CK_OBJECT_HANDLE key, struct kms_span in)
{
    CK_ULONG len = sizeof(job->out);
    CK_RV rv = KMS_P11(p, C_SignInit)(p->session, mechanism, key);

    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Sign)(p->session, kms_p11_in(in.data), in.len, job->out, &len);
    }
    job->out_len = len;
    return rv;
}

static CK_RV sign_pss(struct kms_p11 *p, struct job *job, CK_OBJECT_HANDLE key)
{
    const struct pss *pss = job->row->pss;
    CK_RSA_PKCS_PSS_PARAMS params = {.hash_alg = pss->hash, .mgf = pss->mgf, .s_len = pss->len};
    CK_MECHANISM mechanism = {job->row->mechanism, &params, sizeof(params)};

    if (job->in.len != pss->len) {
        (void)kms_error_set(p->ask->err, KMS_E_INVALID, "%s signs a digest of %zu bytes, not %zu",
                            kms_alg_name(job->row->alg), pss->len, job->in.len);
        return CKR_DATA_LEN_RANGE;
    }
    return sign_by(p, job, &mechanism, key, job->in);
}

static CK_RV sign_hashed_here(struct kms_p11 *p, struct job *job, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_PKCS};
    uint8_t input[INFO_LEN + EVP_MAX_MD_SIZE];
    size_t len = 0;

    memcpy(input, job->row->local->info, INFO_LEN);
    if (EVP_Q_digest(NULL, job->row->local->digest, NULL, kms_p11_in(job->in.data), job->in.len,
                     input + INFO_LEN, &len) != 1) {
        return CKR_HOST_MEMORY;
    }
    return sign_by(p, job, &mechanism, key, kms_span_of(input, INFO_LEN + len));
}

static CK_RV sign_with(struct kms_p11 *p, struct job *job, const struct kms_hsm_key *key)
{
    const struct row *row = job->row;
    CK_MECHANISM mechanism = {.mechanism = row->mechanism};
    bool has = kms_p11_can(p, row->mechanism, CKF_SIGN) && kms_hsm_allows(key, row->mechanism);

    if (key->info.type == row->type && row->pss != NULL && has) {
        return sign_pss(p, job, key->handle);
    }
    if (key->info.type == row->type && has) {
        return sign_by(p, job, &mechanism, key->handle, job->in);
    }
    if (key->info.type == row->type && row->local != NULL &&
        kms_p11_can(p, CKM_RSA_PKCS, CKF_SIGN) && kms_hsm_allows(key, CKM_RSA_PKCS)) {
        return sign_hashed_here(p, job, key->handle);
    }
    (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                        "key \"%s\" (%s) cannot do %s on this token", key->info.label,
                        kms_key_type_name(key->info.type), kms_alg_name(row->alg));
    return CKR_MECHANISM_INVALID;
}

static CK_RV sign_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = kms_hsm_key_get(job->backend, p, job->ref, &key);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = sign_with(p, job, key);
    if (rv == CKR_OK && key->info.type == KMS_KEY_EC && job->out_len != 2 * key->size) {
        rv = KMS_P11_BAD_REPLY; /* r || s, each as long as the field (2.3.1) */
    }
    kms_hsm_key_put(key);
    return rv;
}

static enum kms_status sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                            enum kms_alg alg, bool mac, struct kms_span input, struct kms_buf *out)
{
    struct job job = {.backend = b, .ref = ref, .row = row_find(alg), .in = input};
    enum kms_status status = KMS_OK;

    if (job.row == NULL || (job.row->type == KMS_KEY_GENERIC) != mac) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not %s by %s",
                             mac ? "authenticate" : "sign", kms_alg_name(alg));
    }
    status = kms_hsm_run(b, call, KMS_P11_READ, sign_step, &job);
    if (status == KMS_OK && kms_buf_put(out, kms_span_of(job.out, job.out_len)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "a signature of %zu bytes has no room", job.out_len);
    }
    return status;
}

enum kms_status kms_hsm_sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span input,
                             struct kms_buf *ret_signature)
{
    return sign(b, call, ref, params->alg, false, input, ret_signature);
}

enum kms_status kms_hsm_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_mac)
{
    return sign(b, call, ref, params->alg, true, input, ret_mac);
}
