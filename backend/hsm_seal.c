/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypt and decrypt: the key, the scheme, the memory; the schemes themselves are elsewhere. */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define ROOM 1024 /* what sealing may add, see struct kms_sealed */

struct scheme {
    enum kms_alg alg;
    CK_RV (*encrypt)(struct kms_p11 *p, struct kms_hsm_work *work);
    CK_RV (*decrypt)(struct kms_p11 *p, struct kms_hsm_work *work);
};

/* In the order in which KMS_ALG_BEST prefers them. */
static const struct scheme schemes[] = {
    {KMS_ALG_AES_GCM, kms_hsm_gcm_encrypt, kms_hsm_gcm_decrypt},
    {KMS_ALG_AES_CBC_HMAC, kms_hsm_cbc_encrypt, kms_hsm_cbc_decrypt},
    {KMS_ALG_RSA_OAEP_SHA256, kms_hsm_oaep_encrypt, kms_hsm_oaep_decrypt},
};

#define SCHEME_COUNT (sizeof(schemes) / sizeof(schemes[0]))

static const struct scheme *scheme_find(enum kms_alg alg)
{
    for (size_t i = 0; i < SCHEME_COUNT; i++) {
        if (schemes[i].alg == alg) {
            return &schemes[i];
        }
    }
    return NULL;
}

static bool can_seal(const struct kms_hsm_key *key, enum kms_alg alg)
{
    switch (alg) {
    case KMS_ALG_AES_GCM:
        return key->gcm != KMS_HSM_GCM_NONE;
    case KMS_ALG_AES_CBC_HMAC:
        return key->cbc_hmac;
    case KMS_ALG_RSA_OAEP_SHA256:
        return key->oaep;
    default:
        return false;
    }
}

static CK_RV probe_aes(const struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    CK_RV rv = CKR_OK;

    if (kms_p11_can(p, CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT) &&
        kms_hsm_allows(key, CKM_AES_GCM)) {
        rv = kms_hsm_gcm_probe(p, key, &key->gcm);
    }
    if (kms_ckr_is_unclear(rv)) {
        /* GCM that does not work is not missed when it is not wanted */
        key->unclear = b->only == KMS_ALG_AES_CBC_HMAC ? CKR_OK : rv;
        rv = kms_p11_renew(p);
    }
    key->cbc_hmac = key->mac != CK_INVALID_HANDLE &&
                    kms_p11_can(p, CKM_AES_CBC_PAD, CKF_ENCRYPT | CKF_DECRYPT) &&
                    kms_hsm_allows(key, CKM_AES_CBC_PAD);
    return rv;
}

/* A token that fails at everything must not be taken for one without GCM. */
static bool is_proven(const struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                      enum kms_alg alg)
{
    return key->unclear == CKR_OK || b->only != KMS_ALG_NONE || alg != KMS_ALG_AES_CBC_HMAC ||
           kms_hsm_cbc_probe(p, key) == CKR_OK;
}

CK_RV kms_hsm_seal_probe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    const unsigned both = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;
    CK_RV rv = CKR_OK;

    if (key->info.type == KMS_KEY_AES && (key->info.uses & both) == both) {
        rv = probe_aes(b, p, key);
    }
    if (key->info.type == KMS_KEY_RSA && (key->info.uses & KMS_USE_DECRYPT) != 0) {
        rv = kms_hsm_oaep_probe(p, key, &key->oaep, &key->oaep_raw);
        if (kms_ckr_is_unclear(rv)) {
            key->unclear = rv; /* it may sign all the same */
            rv = kms_p11_renew(p);
        }
    }
    if (rv != CKR_OK) {
        return rv;
    }
    for (size_t i = 0; i < SCHEME_COUNT && key->info.seal == KMS_ALG_NONE; i++) {
        bool wanted = b->only == KMS_ALG_NONE || b->only == schemes[i].alg;

        if (wanted && can_seal(key, schemes[i].alg) && is_proven(b, p, key, schemes[i].alg)) {
            key->info.seal = schemes[i].alg;
        }
    }
    return rv;
}

enum verdict { VERDICT_FINAL, VERDICT_BAD_DATA, VERDICT_UNSURE };

static enum verdict judge(CK_RV rv)
{
    switch (rv) {
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
    case CKR_DATA_INVALID:
    case CKR_DATA_LEN_RANGE:
        return VERDICT_BAD_DATA;
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED:
    case CKR_DEVICE_ERROR:
    case CKR_ARGUMENTS_BAD:
        return VERDICT_UNSURE;
    default:
        return (rv & CKR_VENDOR_DEFINED) != 0 && rv != KMS_P11_BAD_REPLY ? VERDICT_UNSURE
                                                                         : VERDICT_FINAL;
    }
}

CK_RV kms_hsm_decrypt_surely(struct kms_p11 *p, struct kms_hsm_work *work,
                             CK_RV (*decrypt)(struct kms_p11 *, struct kms_hsm_work *),
                             CK_RV (*known_good)(struct kms_p11 *, const struct kms_hsm_key *))
{
    CK_RV first = decrypt(p, work);
    bool by_decrypt = strcmp(p->function, "C_Decrypt") == 0;
    CK_RV again = CKR_OK;

    if (first == CKR_OK || !by_decrypt || judge(first) == VERDICT_FINAL) {
        return first;
    }
    if (judge(first) == VERDICT_BAD_DATA) {
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    if (known_good(p, work->key) != CKR_OK) {
        p->function = "C_Decrypt";
        return first;
    }
    again = decrypt(p, work); /* the token works: was it a hiccup, or is it the data? */
    return again == CKR_OK || judge(again) == VERDICT_FINAL ? again : CKR_ENCRYPTED_DATA_INVALID;
}

/* ---- the ops ------------------------------------------------------------------------------ */

struct job {
    struct kms_backend *backend;
    const char *ref;
    enum kms_alg alg; /* in: as asked; out: the one used */
    struct kms_hsm_work work;
    char key_id[KMS_KEY_ID_MAX];
};

static CK_RV refuse(struct kms_p11 *p, const struct kms_hsm_key *key, enum kms_alg alg)
{
    (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                        "key \"%s\" (%s, %s) cannot do %s on this token", key->info.label,
                        key->info.ref, kms_key_type_name(key->info.type),
                        alg == KMS_ALG_BEST ? "any authenticated encryption" : kms_alg_name(alg));
    return CKR_MECHANISM_INVALID;
}

/* The job's key. One whose probe failed for no clear reason is looked at again. */
static CK_RV get_key(struct kms_p11 *p, const struct job *job, struct kms_hsm_key **ret_key)
{
    for (;;) {
        struct kms_hsm_key *key = NULL;
        CK_RV rv = kms_hsm_key_get(job->backend, p, job->ref, &key);
        enum kms_alg alg = KMS_ALG_NONE;

        if (rv != CKR_OK) {
            return rv;
        }
        alg = job->alg == KMS_ALG_BEST ? key->info.seal : job->alg;
        if (key->unclear == CKR_OK || can_seal(key, alg)) {
            *ret_key = key;
            return CKR_OK;
        }
        rv = key->unclear;
        kms_hsm_key_put(key);
        if (p->refresh) {
            p->function = "probe";
            return rv;
        }
        p->refresh = true;
    }
}

static CK_RV encrypt_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    const struct scheme *scheme = NULL;
    enum kms_alg alg = job->alg;
    CK_RV rv = get_key(p, job, &key);

    if (rv != CKR_OK) {
        return rv;
    }
    alg = alg == KMS_ALG_BEST ? key->info.seal : alg;
    scheme = can_seal(key, alg) ? scheme_find(alg) : NULL;
    if (scheme == NULL) {
        rv = refuse(p, key, job->alg);
        goto out;
    }
    job->work.key = key;
    rv = scheme->encrypt(p, &job->work);
    if (rv == CKR_OK) {
        job->alg = alg;
        memcpy(job->key_id, key->info.id, sizeof(job->key_id));
    }
out:
    kms_hsm_key_put(key);
    return rv;
}

static enum kms_status check_sizes(struct kms_call *call, const struct kms_params *params,
                                   size_t len, size_t max)
{
    if (params->aad.len > KMS_HSM_AAD_MAX) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "an AAD has at most %d bytes, not %zu",
                             KMS_HSM_AAD_MAX, params->aad.len);
    }
    if (len > max) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "at most %zu bytes, not %zu", max, len);
    }
    return KMS_OK;
}

enum kms_status kms_hsm_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed)
{
    struct kms_buf *out = &ret_sealed->ciphertext;
    struct job job = {.backend = b, .ref = ref, .alg = params->alg};
    enum kms_status status = check_sizes(call, params, plaintext.len, KMS_PLAINTEXT_MAX);

    if (status != KMS_OK) {
        return status;
    }
    if (params->alg != KMS_ALG_BEST && scheme_find(params->alg) == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not encrypt by %s",
                             kms_alg_name(params->alg));
    }
    if (params->iv.len != 0 || out->cap < plaintext.len + ROOM || ret_sealed->iv.cap < KMS_IV_MAX) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "encrypt needs room for %zu bytes, and takes no IV",
                             plaintext.len + ROOM);
    }
    job.work.aad = params->aad;
    job.work.in = plaintext;
    job.work.out = out->data;
    job.work.out_room = out->cap;
    status = kms_hsm_run(b, call, KMS_P11_READ, encrypt_step, &job);
    if (status == KMS_OK) {
        ret_sealed->alg = job.alg;
        out->len = job.work.out_len;
        memcpy(ret_sealed->iv.data, job.work.iv, job.work.iv_len);
        ret_sealed->iv.len = job.work.iv_len;
        memcpy(ret_sealed->key_id, job.key_id, sizeof(job.key_id));
    }
    return status;
}

static CK_RV decrypt_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = get_key(p, job, &key);

    if (rv != CKR_OK) {
        return rv;
    }
    job->work.key = key;
    if (can_seal(key, job->alg)) {
        rv = scheme_find(job->alg)->decrypt(p, &job->work);
    } else {
        rv = refuse(p, key, job->alg);
    }
    kms_hsm_key_put(key);
    return rv;
}

/*
 * Where the plaintext first goes: the caller's buffer, or, since tokens want as much room as the
 * ciphertext has and use it, secure memory of ours when the caller's is smaller.
 */
struct scratch {
    uint8_t *data;
    size_t size;
    enum { DIRECT, POOLED, OWN } kind;
};

static bool scratch_take(struct kms_backend *b, const struct kms_buf *caller, size_t size,
                         struct scratch *ret)
{
    *ret = (struct scratch){.data = caller->data + caller->len, .size = size, .kind = DIRECT};
    if (caller->data != NULL && kms_buf_room(caller) >= size) {
        return true;
    }
    ret->data = size <= KMS_HSM_SMALL ? kms_secure_pool_take(b->small) : NULL;
    ret->kind = POOLED;
    if (ret->data == NULL) {
        ret->data = kms_secure_new(size);
        ret->kind = OWN;
    }
    return ret->data != NULL;
}

/* Leaves nothing behind but the @keep first bytes of a caller's buffer. */
static void scratch_done(struct kms_backend *b, struct scratch *scratch, size_t keep)
{
    if (scratch->kind == DIRECT) {
        kms_wipe(scratch->data + keep, scratch->size - keep);
    } else if (scratch->kind == POOLED) {
        kms_secure_pool_give(b->small, scratch->data);
    } else {
        kms_secure_free(scratch->data);
    }
}

static enum kms_status hand_over(struct kms_call *call, const struct scratch *scratch, size_t len,
                                 struct kms_buf *ret_plaintext)
{
    if (scratch->kind == DIRECT) {
        ret_plaintext->len += len;
        return KMS_OK;
    }
    if (kms_buf_put(ret_plaintext, kms_span_of(scratch->data, len)) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "a plaintext of %zu bytes has no room",
                             len);
    }
    return KMS_OK;
}

enum kms_status kms_hsm_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext)
{
    struct job job = {.backend = b, .ref = ref, .alg = params->alg};
    size_t size = ciphertext.len > 64 ? ciphertext.len : 64;
    struct scratch scratch;
    enum kms_status status = check_sizes(call, params, ciphertext.len, KMS_CIPHERTEXT_MAX);
    size_t keep = 0;

    if (status != KMS_OK) {
        return status;
    }
    if (params->iv.len > KMS_IV_MAX) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA, "an IV of %zu bytes is none of ours",
                             params->iv.len);
    }
    if (!scratch_take(b, ret_plaintext, size, &scratch)) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no secure memory for %zu bytes", size);
    }
    job.work.aad = params->aad;
    job.work.in = ciphertext;
    job.work.out = scratch.data;
    job.work.out_room = size;
    job.work.iv_len = params->iv.len;
    if (params->iv.len > 0) {
        memcpy(job.work.iv, params->iv.data, params->iv.len);
    }
    status = kms_hsm_run(b, call, KMS_P11_READ, decrypt_step, &job);
    if (status == KMS_OK) {
        status = hand_over(call, &scratch, job.work.out_len, ret_plaintext);
        keep = job.work.out_len;
    }
    scratch_done(b, &scratch, keep);
    return status;
}
