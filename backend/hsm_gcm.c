/* SPDX-License-Identifier: Apache-2.0 */
/* AES-GCM (PKCS#11 2.40 mechanisms, 2.12.3), for tokens that take our IV and for those that do not.
 */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define IV_LEN 12

static CK_GCM_PARAMS params_of(uint8_t *iv, size_t iv_len, struct kms_span aad)
{
    return (CK_GCM_PARAMS){
        .iv_ptr = iv_len == 0 ? NULL : iv,
        .iv_len = iv_len,
        .iv_bits = 8 * iv_len,
        .aad_ptr = aad.len == 0 ? NULL : kms_p11_in(aad.data),
        .aad_len = aad.len,
        .tag_bits = 8 * KMS_HSM_GCM_TAG,
    };
}

/* The IV that goes in: fresh random bytes, or what the token wants instead. */
static CK_RV make_iv(struct kms_p11 *p, enum kms_hsm_gcm how, uint8_t *iv, size_t *ret_len)
{
    *ret_len = how == KMS_HSM_GCM_APPENDED ? 0 : IV_LEN;
    memset(iv, 0, KMS_IV_MAX);
    if (how != KMS_HSM_GCM_OURS) {
        return CKR_OK;
    }
    return KMS_P11(p, C_GenerateRandom)(p->session, iv, IV_LEN);
}

/* Where the IV that was used is to be found afterwards. */
static CK_RV take_iv(const struct kms_hsm_work *work, enum kms_hsm_gcm how,
                     const CK_GCM_PARAMS *params, size_t len, struct kms_hsm_work *ret)
{
    static const uint8_t zero[IV_LEN];
    size_t sealed = work->in.len + KMS_HSM_GCM_TAG;

    if (how == KMS_HSM_GCM_APPENDED) {
        if (len <= sealed || len - sealed > KMS_IV_MAX) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        ret->iv_len = len - sealed;
        memcpy(ret->iv, work->out + sealed, ret->iv_len);
    } else {
        if (len != sealed || params->iv_len == 0 || params->iv_len > KMS_IV_MAX) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        ret->iv_len = params->iv_len;
        if (how == KMS_HSM_GCM_EMPTY && memcmp(work->iv, zero, IV_LEN) == 0) {
            return CKR_MECHANISM_PARAM_INVALID; /* it took the zeros: never with a real message */
        }
    }
    ret->out_len = sealed;
    return CKR_OK;
}

static CK_RV encrypt(struct kms_p11 *p, struct kms_hsm_work *work, enum kms_hsm_gcm how)
{
    CK_ULONG len = work->out_room;
    CK_GCM_PARAMS params;
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof(params)};
    CK_RV rv = make_iv(p, how, work->iv, &work->iv_len);

    if (rv != CKR_OK) {
        return rv;
    }
    params = params_of(work->iv, work->iv_len, work->aad);
    rv = KMS_P11(p, C_EncryptInit)(p->session, &mechanism, work->key->handle);
    if (rv != CKR_OK) {
        return rv;
    }
    rv =
        KMS_P11(p, C_Encrypt)(p->session, kms_p11_in(work->in.data), work->in.len, work->out, &len);
    return rv == CKR_OK ? take_iv(work, how, &params, len, work) : rv;
}

CK_RV kms_hsm_gcm_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (work->key->gcm == KMS_HSM_GCM_NONE) {
        return CKR_MECHANISM_INVALID;
    }
    return encrypt(p, work, work->key->gcm);
}

static CK_RV decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_GCM_PARAMS params = params_of(work->iv, work->iv_len, work->aad);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof(params)};
    CK_ULONG len = work->out_room;
    CK_RV rv = KMS_P11(p, C_DecryptInit)(p->session, &mechanism, work->key->handle);

    if (rv != CKR_OK) {
        return rv;
    }
    rv =
        KMS_P11(p, C_Decrypt)(p->session, kms_p11_in(work->in.data), work->in.len, work->out, &len);
    if (rv == CKR_OK && len != work->in.len - KMS_HSM_GCM_TAG) {
        return KMS_P11_BAD_REPLY;
    }
    work->out_len = len;
    return rv;
}

/* Seals and opens a fixed text the way @how. */
static CK_RV round_trip(struct kms_p11 *p, const struct kms_hsm_key *key, enum kms_hsm_gcm how)
{
    static const uint8_t text[16] = "kmsbridge probe";
    uint8_t sealed[sizeof(text) + KMS_HSM_GCM_TAG + KMS_IV_MAX];
    uint8_t opened[sizeof(sealed)];
    struct kms_hsm_work work = {.key = key,
                                .in = kms_span_of(text, sizeof(text)),
                                .out = sealed,
                                .out_room = sizeof(sealed)};
    CK_RV rv = encrypt(p, &work, how);

    if (rv != CKR_OK) {
        return rv;
    }
    work.in = kms_span_of(sealed, work.out_len);
    work.out = opened;
    work.out_room = sizeof(opened);
    rv = decrypt(p, &work);
    if (rv == CKR_OK && memcmp(opened, text, sizeof(text)) != 0) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    return rv;
}

/* The token refused, and may take another way. */
static bool is_refusal(CK_RV rv)
{
    return kms_ckr_is_unsupported(rv) || kms_ckr_find(rv)->status == KMS_E_BAD_DATA ||
           kms_ckr_find(rv)->status == KMS_E_INVALID;
}

CK_RV kms_hsm_gcm_probe(struct kms_p11 *p, const struct kms_hsm_key *key, enum kms_hsm_gcm *ret)
{
    static const enum kms_hsm_gcm ways[] = {KMS_HSM_GCM_OURS, KMS_HSM_GCM_EMPTY,
                                            KMS_HSM_GCM_APPENDED};
    CK_RV unclear = CKR_OK;

    *ret = KMS_HSM_GCM_NONE;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        CK_RV rv = round_trip(p, key, ways[i]);

        if (rv == CKR_OK) {
            *ret = ways[i];
            return CKR_OK;
        }
        if (!is_refusal(rv) && !kms_ckr_is_unclear(rv)) {
            return rv;
        }
        unclear = kms_ckr_is_unclear(rv) ? rv : unclear;
    }
    return unclear; /* not to be taken for a token without GCM */
}

static CK_RV known_good(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    return key->gcm == KMS_HSM_GCM_NONE ? CKR_MECHANISM_INVALID : round_trip(p, key, key->gcm);
}

CK_RV kms_hsm_gcm_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (work->in.len < KMS_HSM_GCM_TAG || work->iv_len == 0) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    return kms_hsm_decrypt_surely(p, work, decrypt, known_good);
}
