/* SPDX-License-Identifier: Apache-2.0 */
/* AES-GCM (PKCS#11 2.40 mechanisms, 2.12.3), for tokens that take our IV and for those that do not.
 */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define IV_LEN 12

static CK_GCM_PARAMS params_of(struct kms_hsm_work *work)
{
    return (CK_GCM_PARAMS){
        .iv_ptr = work->iv_len == 0 ? NULL : work->iv,
        .iv_len = work->iv_len,
        .iv_bits = 8 * work->iv_len,
        .aad_ptr = work->aad.len == 0 ? NULL : kms_p11_in(work->aad.data),
        .aad_len = work->aad.len,
        .tag_bits = 8ul * work->tag_len,
    };
}

/* The IV that goes in: the caller's, fresh random bytes, or what the token wants instead. */
static CK_RV make_iv(struct kms_p11 *p, struct kms_hsm_work *work)
{
    enum kms_hsm_gcm how = work->key->gcm;

    if (work->iv_given) {
        return CKR_OK;
    }
    work->iv_len = how == KMS_HSM_GCM_APPENDED ? 0 : IV_LEN;
    memset(work->iv, 0, sizeof(work->iv));
    if (how != KMS_HSM_GCM_OURS) {
        return CKR_OK;
    }
    return KMS_P11(p, C_GenerateRandom)(p->session, work->iv, IV_LEN);
}

/* Where the IV that was used is to be found afterwards. @params is what the token made of ours. */
static CK_RV take_iv(struct kms_hsm_work *work, const CK_GCM_PARAMS *params)
{
    static const uint8_t zero[IV_LEN];
    enum kms_hsm_gcm how = work->key->gcm;
    size_t sealed = work->in.len + work->tag_len;

    if (how == KMS_HSM_GCM_APPENDED) {
        if (work->out_len <= sealed || work->out_len - sealed > KMS_IV_MAX) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        work->iv_len = work->out_len - sealed;
        memcpy(work->iv, work->out + sealed, work->iv_len);
    } else {
        if (work->out_len != sealed || params->iv_len == 0 || params->iv_len > KMS_IV_MAX) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        work->iv_len = params->iv_len;
        if (how == KMS_HSM_GCM_EMPTY && memcmp(work->iv, zero, IV_LEN) == 0) {
            return CKR_MECHANISM_PARAM_INVALID; /* it took the zeros: never with a real message */
        }
    }
    work->out_len = sealed;
    return CKR_OK;
}

/* A token that has its own mind about IVs says so before or after; no other IV is passed off. */
static CK_RV refuse_iv(struct kms_p11 *p, struct kms_hsm_work *work)
{
    kms_wipe(work->out, work->out_len);
    (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                        work->iv_given ? "this token makes the IV of AES-GCM itself"
                                       : "a key that cannot open what it seals needs an IV given");
    return CKR_MECHANISM_PARAM_INVALID;
}

static CK_RV encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_GCM_PARAMS params;
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof(params)};
    CK_RV rv = make_iv(p, work);

    if (rv != CKR_OK) {
        return rv;
    }
    params = params_of(work);
    rv = kms_hsm_bytes_seal(p, work, &mechanism);
    return rv == CKR_OK ? take_iv(work, &params) : rv;
}

CK_RV kms_hsm_gcm_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    enum kms_hsm_gcm how = work->key->gcm;
    bool ours = how == KMS_HSM_GCM_OURS || how == KMS_HSM_GCM_UNTRIED;
    uint8_t iv[KMS_IV_MAX];
    size_t iv_len = work->iv_len;
    CK_RV rv = CKR_OK;

    if (how == KMS_HSM_GCM_NONE) {
        return CKR_MECHANISM_INVALID;
    }
    if (work->iv_given ? !ours : how == KMS_HSM_GCM_UNTRIED) {
        return refuse_iv(p, work);
    }
    memcpy(iv, work->iv, sizeof(iv));
    rv = encrypt(p, work);
    if (rv == CKR_OK && work->iv_given &&
        (work->iv_len != iv_len || memcmp(work->iv, iv, iv_len) != 0)) {
        return refuse_iv(p, work);
    }
    return rv;
}

static CK_RV decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_GCM_PARAMS params = params_of(work);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof(params)};
    CK_RV rv = kms_hsm_bytes_open(p, work, &mechanism);

    return rv == CKR_OK && work->out_len != work->in.len - work->tag_len ? KMS_P11_BAD_REPLY : rv;
}

static const enum kms_hsm_gcm ways[] = {KMS_HSM_GCM_OURS, KMS_HSM_GCM_EMPTY, KMS_HSM_GCM_APPENDED};
#define WAY_COUNT (sizeof(ways) / sizeof(ways[0]))

struct trial {
    struct kms_backend *backend;
    struct kms_hsm_key *key;
};

static CK_RV try_way(struct kms_p11 *p, size_t way, void *ctx)
{
    const struct trial *trial = ctx;
    const struct kms_hsm_work like = {.backend = trial->backend,
                                      .key = trial->key,
                                      .row = kms_hsm_alg_find(KMS_ALG_AES_GCM),
                                      .tag_len = KMS_HSM_GCM_TAG};

    trial->key->gcm = ways[way];
    return kms_hsm_round_trip(p, &like, encrypt, decrypt);
}

CK_RV kms_hsm_gcm_probe(struct kms_p11 *p, struct kms_backend *b, struct kms_hsm_key *key)
{
    struct trial trial = {.backend = b, .key = key};
    enum kms_hsm_act act = KMS_HSM_ENCRYPT;
    size_t way = 0;
    CK_RV rv = CKR_OK;

    if (!kms_hsm_both_ways(key, &act)) {
        key->gcm = KMS_HSM_GCM_UNTRIED;
        return CKR_OK;
    }
    rv = kms_hsm_first_way(p, WAY_COUNT, try_way, &trial, &way);
    key->gcm = way < WAY_COUNT ? ways[way] : KMS_HSM_GCM_NONE;
    return rv;
}

CK_RV kms_hsm_gcm_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (work->in.len < work->tag_len || work->iv_len == 0) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    return kms_hsm_open_surely(p, work, decrypt);
}
