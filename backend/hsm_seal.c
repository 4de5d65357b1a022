/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypt, decrypt, wrap and unwrap: the key, the algorithm, the memory; the algorithms themselves
 * are elsewhere. */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define ROOM 1024 /* what sealing may add, see struct kms_sealed */

/* ---- one job ------------------------------------------------------------------------------ */

struct job {
    struct kms_backend *backend;
    const char *ref;
    enum kms_alg alg; /* in: as asked; out: the one used */
    struct kms_hsm_work work;
    char key_id[KMS_KEY_ID_MAX];
};

static bool is_sealing(enum kms_hsm_act act)
{
    return act == KMS_HSM_ENCRYPT || act == KMS_HSM_WRAP;
}

static CK_RV refuse(struct kms_p11 *p, const struct kms_hsm_key *key, const struct job *job)
{
    static const char *const verbs[] = {
        [KMS_HSM_ENCRYPT] = "encrypt",
        [KMS_HSM_DECRYPT] = "decrypt",
        [KMS_HSM_WRAP] = "wrap",
        [KMS_HSM_UNWRAP] = "unwrap",
    };
    const char *verb = verbs[job->work.act];

    if (job->alg != KMS_ALG_BEST && (key->info.uses & kms_hsm_act_use(job->work.act)) == 0) {
        (void)kms_error_set(p->ask->err, KMS_E_DENIED, "key \"%s\" (%s, %s) is not there to %s",
                            key->info.label, key->info.ref, kms_key_type_name(key->info.type),
                            verb);
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    (void)kms_error_set(
        p->ask->err, KMS_E_UNSUPPORTED, "key \"%s\" (%s, %s) cannot %s by %s on this token",
        key->info.label, key->info.ref, kms_key_type_name(key->info.type), verb,
        job->alg == KMS_ALG_BEST ? "any authenticated encryption" : kms_alg_name(job->alg));
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
        if (key->unclear == CKR_OK || kms_alg_set_has(&key->info.algs, alg)) {
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

static CK_RV job_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_work *work = &job->work;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = get_key(p, job, &key);

    if (rv != CKR_OK) {
        return rv;
    }
    work->backend = job->backend;
    work->key = key;
    work->row = kms_hsm_alg_find(job->alg == KMS_ALG_BEST ? key->info.seal : job->alg);
    if (work->row == NULL || !kms_hsm_can(job->backend, p, key, work->row, work->act)) {
        rv = refuse(p, key, job);
        goto out;
    }
    rv = is_sealing(work->act) ? work->row->seal(p, work) : work->row->open(p, work);
    if (rv == CKR_OK && is_sealing(work->act)) {
        job->alg = work->row->alg;
        memcpy(job->key_id, key->info.id, sizeof(job->key_id));
    }
out:
    kms_hsm_key_put(key);
    return rv;
}

/* ---- parameters --------------------------------------------------------------------------- */

/* What an algorithm takes beside its input; one without a row takes neither. */
static const struct taken {
    enum kms_alg alg;
    bool aad;
    size_t iv_min;
    size_t iv_max; /* 0: none */
} taken[] = {
    {KMS_ALG_BEST, true, 0, 0},
    {KMS_ALG_AES_GCM, true, 1, KMS_IV_MAX},
    {KMS_ALG_AES_CBC_HMAC, true, 0, 0},
    {KMS_ALG_RSA_OAEP_SHA256, true, 0, 0},
    {KMS_ALG_RSA_OAEP_SHA1, true, 0, 0},
    {KMS_ALG_RSA_OAEP_L_SHA256, true, 0, 0},
    {KMS_ALG_RSA_OAEP_L_SHA384, true, 0, 0},
    {KMS_ALG_RSA_OAEP_L_SHA512, true, 0, 0},
    {KMS_ALG_SEALED, true, 0, 0},              /* which no token has */
    {KMS_ALG_CHACHA20_POLY1305, true, 12, 12}, /* nor has one this, as far as we ask it */
    {KMS_ALG_AES_CBC, false, 16, 16},
    {KMS_ALG_AES_CBC_PAD, false, 16, 16},
    {KMS_ALG_AES_CTR, false, 16, 16},
};

static struct taken taken_by(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (taken[i].alg == alg) {
            return taken[i];
        }
    }
    return (struct taken){.alg = alg};
}

static enum kms_status check_sizes(struct kms_call *call, const struct kms_params *params,
                                   size_t len, size_t max)
{
    if (params->aad.len > KMS_HSM_AAD_MAX) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "an AAD has at most %d bytes, not %zu",
                             KMS_HSM_AAD_MAX, params->aad.len);
    }
    if (params->aad.len > 0 && !taken_by(params->alg).aad) {
        return kms_error_set(&call->error, KMS_E_INVALID, "%s has no AAD",
                             kms_alg_name(params->alg)); /* it would not be authenticated */
    }
    if (len > max) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "at most %zu bytes, not %zu", max, len);
    }
    if (params->tag_len != 0 && (params->tag_len < 12 || params->tag_len > KMS_HSM_GCM_TAG)) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "an AES-GCM tag has 12 to 16 bytes, not "
                             "%u",
                             params->tag_len);
    }
    if (params->ctr_bits > 128) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a counter has at most 128 bits, not %u",
                             params->ctr_bits);
    }
    return KMS_OK;
}

/* To seal: no IV, or one that is used as it is. */
static enum kms_status check_iv(struct kms_call *call, const struct kms_params *params)
{
    struct taken row = taken_by(params->alg);

    if (params->iv.len > 0 && row.iv_max == 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "%s takes no IV",
                             kms_alg_name(params->alg));
    }
    if (params->iv.len > 0 && (params->iv.len < row.iv_min || params->iv.len > row.iv_max)) {
        return kms_error_set(&call->error, KMS_E_INVALID, "%s takes no IV of %zu bytes",
                             kms_alg_name(params->alg), params->iv.len);
    }
    return KMS_OK;
}

static void work_init(struct kms_hsm_work *work, enum kms_hsm_act act,
                      const struct kms_params *params, struct kms_span in)
{
    work->act = act;
    work->aad = params->aad;
    work->in = in;
    work->tag_len = params->tag_len == 0 ? KMS_HSM_GCM_TAG : params->tag_len;
    work->ctr_bits = params->ctr_bits == 0 ? 128 : params->ctr_bits;
    work->iv_given = params->iv.len > 0;
    work->iv_len = params->iv.len;
    if (params->iv.len > 0) {
        memcpy(work->iv, params->iv.data, params->iv.len);
    }
}

/* ---- encrypt, wrap ------------------------------------------------------------------------ */

static enum kms_status seal(struct kms_backend *b, struct kms_call *call, const char *ref,
                            enum kms_hsm_act act, const struct kms_params *params,
                            struct kms_span plaintext, struct kms_sealed *ret_sealed)
{
    const struct kms_hsm_alg *row = kms_hsm_alg_find(params->alg);
    struct kms_buf *out = &ret_sealed->ciphertext;
    struct job job = {.backend = b, .ref = ref, .alg = params->alg};
    enum kms_status status = check_sizes(call, params, plaintext.len, KMS_PLAINTEXT_MAX);

    if (status == KMS_OK) {
        status = check_iv(call, params);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (params->alg == KMS_ALG_BEST ? act != KMS_HSM_ENCRYPT : row == NULL || row->seal == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not encrypt by %s",
                             kms_alg_name(params->alg));
    }
    if (out->cap < plaintext.len + ROOM || ret_sealed->iv.cap < KMS_IV_MAX) {
        return kms_error_set(&call->error, KMS_E_INVALID, "encrypt needs room for %zu bytes",
                             plaintext.len + ROOM);
    }
    work_init(&job.work, act, params, plaintext);
    job.work.out = out->data;
    job.work.out_room = out->cap;
    status = kms_hsm_run(b, call, KMS_P11_READ, job_step, &job);
    if (status == KMS_OK) {
        ret_sealed->alg = job.alg;
        out->len = job.work.out_len;
        memcpy(ret_sealed->iv.data, job.work.iv, job.work.iv_len);
        ret_sealed->iv.len = job.work.iv_len;
        memcpy(ret_sealed->key_id, job.key_id, sizeof(job.key_id));
    }
    return status;
}

enum kms_status kms_hsm_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed)
{
    return seal(b, call, ref, KMS_HSM_ENCRYPT, params, plaintext, ret_sealed);
}

enum kms_status kms_hsm_wrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span key,
                             struct kms_sealed *ret_sealed)
{
    if (key.len == 0) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a key to wrap has no bytes");
    }
    return seal(b, call, ref, KMS_HSM_WRAP, params, key, ret_sealed);
}

/* ---- decrypt, unwrap ---------------------------------------------------------------------- */

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

static enum kms_status unseal(struct kms_backend *b, struct kms_call *call, const char *ref,
                              enum kms_hsm_act act, const struct kms_params *params,
                              struct kms_span ciphertext, struct kms_buf *ret_plaintext)
{
    const struct kms_hsm_alg *row = kms_hsm_alg_find(params->alg);
    struct job job = {.backend = b, .ref = ref, .alg = params->alg};
    size_t size = ciphertext.len > 64 ? ciphertext.len : 64;
    struct scratch scratch;
    enum kms_status status = check_sizes(call, params, ciphertext.len, KMS_CIPHERTEXT_MAX);
    size_t keep = 0;

    if (status != KMS_OK) {
        return status;
    }
    if (row == NULL || row->open == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "an HSM key does not decrypt by %s",
                             kms_alg_name(params->alg));
    }
    if (params->iv.len > KMS_IV_MAX) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA, "an IV of %zu bytes is none of ours",
                             params->iv.len);
    }
    if (!scratch_take(b, ret_plaintext, size, &scratch)) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no secure memory for %zu bytes", size);
    }
    work_init(&job.work, act, params, ciphertext);
    job.work.out = scratch.data;
    job.work.out_room = size;
    status = kms_hsm_run(b, call, KMS_P11_READ, job_step, &job);
    if (status == KMS_OK) {
        status = hand_over(call, &scratch, job.work.out_len, ret_plaintext);
        keep = job.work.out_len;
    }
    scratch_done(b, &scratch, keep);
    return status;
}

enum kms_status kms_hsm_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext)
{
    return unseal(b, call, ref, KMS_HSM_DECRYPT, params, ciphertext, ret_plaintext);
}

enum kms_status kms_hsm_unwrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span wrapped,
                               struct kms_buf *ret_key)
{
    return unseal(b, call, ref, KMS_HSM_UNWRAP, params, wrapped, ret_key);
}
