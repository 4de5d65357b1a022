/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and MACs, by the table of algorithms. */
#include <openssl/evp.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define INFO_MAX       32 /* of a DER DigestInfo, without the digest */
#define PKCS1_OVERHEAD 11 /* RFC 8017 9.2 */

struct job {
    struct kms_backend *backend;
    const char *ref;
    const struct kms_hsm_alg *row;
    const struct kms_params *params;
    struct kms_span in;
    uint8_t out[KMS_SIGNATURE_MAX];
    size_t out_len;
};

size_t kms_hsm_salt_len(const struct kms_hsm_alg *row, const struct kms_params *params)
{
    return params->salt_given ? params->salt_len : row->hash->len;
}

/* ---- what goes in ------------------------------------------------------------------------- */

static CK_RV refuse_length(struct kms_p11 *p, const struct job *job, enum kms_status status,
                           const char *must, size_t len)
{
    (void)kms_error_set(p->ask->err, status, "%s signs %s %zu bytes, not %zu",
                        kms_alg_name(job->row->alg), must, len, job->in.len);
    return CKR_DATA_LEN_RANGE;
}

static CK_RV check_input(struct kms_p11 *p, const struct job *job, const struct kms_hsm_key *key)
{
    const struct kms_hsm_hash *hash = job->row->hash;
    bool pss = job->row->mechanism == CKM_RSA_PKCS_PSS;

    if (pss && job->in.len != hash->len) {
        return refuse_length(p, job, KMS_E_INVALID, "a digest of", hash->len);
    }
    if (pss && hash->len + kms_hsm_salt_len(job->row, job->params) + 2 > key->size) {
        (void)kms_error_set(p->ask->err, KMS_E_INVALID,
                            "a salt of %zu bytes is too long for "
                            "RSA-%u",
                            kms_hsm_salt_len(job->row, job->params), key->info.bits);
        return CKR_DATA_LEN_RANGE;
    }
    if (job->row->alg == KMS_ALG_RSA_PKCS1 && job->in.len + PKCS1_OVERHEAD > key->size) {
        return refuse_length(p, job, KMS_E_TOO_LARGE, "at most", key->size - PKCS1_OVERHEAD);
    }
    if (job->row->alg == KMS_ALG_RSA_RAW && job->in.len != key->size) {
        return refuse_length(p, job, KMS_E_INVALID, "exactly", key->size);
    }
    return CKR_OK;
}

/* ---- signing ------------------------------------------------------------------------------ */

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

/* Parameters of mechanisms 2.1.10. */
static CK_RV sign_pss(struct kms_p11 *p, struct job *job, CK_OBJECT_HANDLE key)
{
    const struct kms_hsm_hash *hash = job->row->hash;
    CK_RSA_PKCS_PSS_PARAMS params = {.hash_alg = hash->mechanism,
                                     .mgf = hash->mgf,
                                     .s_len = kms_hsm_salt_len(job->row, job->params)};
    CK_MECHANISM mechanism = {job->row->mechanism, &params, sizeof(params)};

    return sign_by(p, job, &mechanism, key, job->in);
}

/* For tokens with CKM_RSA_PKCS only: the hash is made here. */
static CK_RV sign_hashed_here(struct kms_p11 *p, struct job *job, CK_OBJECT_HANDLE key)
{
    const struct kms_hsm_hash *hash = job->row->hash;
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_PKCS};
    uint8_t input[INFO_MAX + EVP_MAX_MD_SIZE];
    size_t len = 0;

    memcpy(input, hash->info, hash->info_len);
    if (EVP_Q_digest(NULL, hash->name, NULL, kms_p11_in(job->in.data), job->in.len,
                     input + hash->info_len, &len) != 1) {
        return CKR_HOST_MEMORY;
    }
    return sign_by(p, job, &mechanism, key, kms_span_of(input, hash->info_len + len));
}

/* Raw RSA may come back without its leading zeros. */
static CK_RV check_output(struct job *job, const struct kms_hsm_key *key)
{
    size_t want = key->info.type == KMS_KEY_EC ? 2 * key->size : key->size;

    if (key->info.type == KMS_KEY_GENERIC) {
        want = job->row->hash->len;
    } else if (key->info.type == KMS_KEY_EDDSA) {
        want = 64; /* RFC 8032 5.1.6 */
    } else if (job->row->alg == KMS_ALG_RSA_RAW && job->out_len < want) {
        memmove(job->out + want - job->out_len, job->out, job->out_len);
        memset(job->out, 0, want - job->out_len);
        job->out_len = want;
    }
    return job->out_len == want ? CKR_OK : KMS_P11_BAD_REPLY;
}

static CK_RV refuse(struct kms_p11 *p, const struct job *job, const struct kms_hsm_key *key)
{
    if (key->info.type == job->row->type && (key->info.uses & KMS_USE_SIGN) == 0) {
        (void)kms_error_set(p->ask->err, KMS_E_DENIED, "key \"%s\" (%s) is not there to sign",
                            key->info.label, kms_key_type_name(key->info.type));
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                        "key \"%s\" (%s) cannot do %s on this token", key->info.label,
                        kms_key_type_name(key->info.type), kms_alg_name(job->row->alg));
    return CKR_MECHANISM_INVALID;
}

static CK_RV sign_with(struct kms_p11 *p, struct job *job, const struct kms_hsm_key *key)
{
    const struct kms_hsm_alg *row = job->row;
    CK_MECHANISM_TYPE type = kms_hsm_sign_mechanism(p, key, row, CKF_SIGN);
    CK_MECHANISM mechanism = {.mechanism = type};
    CK_RV rv = CKR_OK;

    if (type == KMS_HSM_NO_MECHANISM || (key->info.uses & KMS_USE_SIGN) == 0) {
        return refuse(p, job, key);
    }
    rv = check_input(p, job, key);
    if (rv == CKR_OK && type == CKM_RSA_PKCS_PSS) {
        rv = sign_pss(p, job, key->handle);
    } else if (rv == CKR_OK && type != row->mechanism) {
        rv = sign_hashed_here(p, job, key->handle);
    } else if (rv == CKR_OK) {
        rv = sign_by(p, job, &mechanism, key->handle, job->in);
    }
    return rv == CKR_OK ? check_output(job, key) : rv;
}

static CK_RV sign_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = kms_hsm_key_get(job->backend, p, job->ref, &key);

    if (rv == CKR_OK) {
        rv = sign_with(p, job, key);
    }
    kms_hsm_key_put(key);
    return rv;
}

static enum kms_status sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, bool mac, struct kms_span input,
                            struct kms_buf *out)
{
    struct job job = {.backend = b,
                      .ref = ref,
                      .row = kms_hsm_alg_find(params->alg),
                      .params = params,
                      .in = input};
    enum kms_status status = KMS_OK;

    if (job.row == NULL || job.row->sign != (mac ? KMS_HSM_MAC : KMS_HSM_SIGN)) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not %s by %s",
                             mac ? "authenticate" : "sign", kms_alg_name(params->alg));
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
    return sign(b, call, ref, params, false, input, ret_signature);
}

enum kms_status kms_hsm_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_mac)
{
    return sign(b, call, ref, params, true, input, ret_mac);
}
