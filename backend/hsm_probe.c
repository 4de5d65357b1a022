/* SPDX-License-Identifier: Apache-2.0 */
/* What only a trial tells: which way a token takes, and whether it is the data or the token that is
 * bad. */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define TEXT_LEN 16 /* a block, and a secret key that can be wrapped */

/* ---- known data --------------------------------------------------------------------------- */

static bool has_both(const struct kms_hsm_key *key, unsigned a, unsigned b)
{
    return (key->info.uses & (a | b)) == (a | b);
}

bool kms_hsm_both_ways(const struct kms_hsm_key *key, enum kms_hsm_act *ret_act)
{
    bool data = has_both(key, KMS_USE_ENCRYPT, KMS_USE_DECRYPT);

    *ret_act = data ? KMS_HSM_ENCRYPT : KMS_HSM_WRAP;
    return data || has_both(key, KMS_USE_WRAP, KMS_USE_UNWRAP);
}

CK_RV kms_hsm_round_trip(struct kms_p11 *p, const struct kms_hsm_work *like,
                         CK_RV (*seal)(struct kms_p11 *, struct kms_hsm_work *),
                         CK_RV (*open)(struct kms_p11 *, struct kms_hsm_work *))
{
    static const uint8_t text[TEXT_LEN] = "kmsbridge probe";
    uint8_t sealed[KMS_HSM_RSA_BYTES_MAX];
    uint8_t opened[KMS_HSM_RSA_BYTES_MAX];
    struct kms_hsm_work work = {.backend = like->backend,
                                .key = like->key,
                                .row = like->row,
                                .aad = like->aad,
                                .tag_len = like->tag_len,
                                .ctr_bits = like->ctr_bits,
                                .in = kms_span_of(text, sizeof(text)),
                                .out = sealed,
                                .out_room = sizeof(sealed)};
    bool keys = like->act == KMS_HSM_WRAP || like->act == KMS_HSM_UNWRAP;
    CK_RV rv = CKR_OK;

    if (keys && has_both(like->key, KMS_USE_WRAP, KMS_USE_UNWRAP)) {
        work.act = KMS_HSM_WRAP;
    } else if (!kms_hsm_both_ways(like->key, &work.act)) {
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    rv = seal(p, &work);
    if (rv != CKR_OK) {
        return rv;
    }
    work.act = work.act == KMS_HSM_WRAP ? KMS_HSM_UNWRAP : KMS_HSM_DECRYPT;
    work.in = kms_span_of(sealed, work.out_len);
    work.out = opened;
    work.out_room = sizeof(opened);
    rv = open(p, &work);
    if (rv == CKR_OK && (work.out_len != sizeof(text) || memcmp(opened, text, sizeof(text)) != 0)) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    return rv;
}

/* ---- bad data, or a sick token ------------------------------------------------------------ */

enum verdict { VERDICT_FINAL, VERDICT_BAD_DATA, VERDICT_UNSURE };

static enum verdict judge(CK_RV rv)
{
    switch (rv) {
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
    case CKR_WRAPPED_KEY_INVALID:
    case CKR_WRAPPED_KEY_LEN_RANGE:
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

/* A key that cannot seal what it opens is asked whether it is still itself. */
static bool works(struct kms_p11 *p, const struct kms_hsm_work *work,
                  CK_RV (*open)(struct kms_p11 *, struct kms_hsm_work *))
{
    CK_RV rv = kms_hsm_round_trip(p, work, work->row->seal, open);
    bool same = false;

    if (rv == CKR_KEY_FUNCTION_NOT_PERMITTED) {
        return kms_hsm_still(p, NULL, work->key, &same) == CKR_OK && same;
    }
    return rv == CKR_OK;
}

CK_RV kms_hsm_open_surely(struct kms_p11 *p, struct kms_hsm_work *work,
                          CK_RV (*open)(struct kms_p11 *, struct kms_hsm_work *))
{
    CK_RV first = open(p, work);
    const char *function = p->function;
    bool by_opening = strcmp(function, "C_Decrypt") == 0 || strcmp(function, "C_UnwrapKey") == 0;
    CK_RV again = CKR_OK;

    if (first == CKR_OK || !by_opening || judge(first) == VERDICT_FINAL) {
        return first;
    }
    if (judge(first) == VERDICT_BAD_DATA) {
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    if (!works(p, work, open)) {
        p->function = function;
        return first;
    }
    again = open(p, work); /* the token works: was it a hiccup, or is it the data? */
    return again == CKR_OK || judge(again) == VERDICT_FINAL ? again : CKR_ENCRYPTED_DATA_INVALID;
}

/* ---- ways --------------------------------------------------------------------------------- */

bool kms_hsm_is_refusal(CK_RV rv)
{
    enum kms_status status = kms_ckr_find(rv)->status;

    return kms_ckr_is_unsupported(rv) || status == KMS_E_BAD_DATA || status == KMS_E_INVALID;
}

CK_RV kms_hsm_first_way(struct kms_p11 *p, size_t count,
                        CK_RV (*try_way)(struct kms_p11 *p, size_t way, void *ctx), void *ctx,
                        size_t *ret_way)
{
    CK_RV unclear = CKR_OK;

    *ret_way = count;
    for (size_t i = 0; i < count; i++) {
        CK_RV rv = try_way(p, i, ctx);

        if (rv == CKR_OK) {
            *ret_way = i;
            return CKR_OK;
        }
        if (!kms_hsm_is_refusal(rv) && !kms_ckr_is_unclear(rv)) {
            return rv;
        }
        unclear = kms_ckr_is_unclear(rv) ? rv : unclear;
    }
    return unclear; /* not to be taken for a token that has none of them */
}

/* ---- what a key is best at ---------------------------------------------------------------- */

/* In the order in which KMS_ALG_BEST prefers them. */
static const enum kms_alg best[] = {KMS_ALG_AES_GCM, KMS_ALG_AES_CBC_HMAC, KMS_ALG_RSA_OAEP_SHA256};

#define BEST_COUNT (sizeof(best) / sizeof(best[0]))

static bool can_seal(const struct kms_hsm_key *key, enum kms_alg alg)
{
    switch (alg) {
    case KMS_ALG_AES_GCM:
        return key->gcm != KMS_HSM_GCM_NONE && key->gcm != KMS_HSM_GCM_UNTRIED;
    case KMS_ALG_AES_CBC_HMAC:
        return key->cbc_hmac;
    case KMS_ALG_RSA_OAEP_SHA256:
        return key->oaep;
    default:
        return false;
    }
}

static CK_RV probe_aes(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    const unsigned both = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;
    CK_RV rv = CKR_OK;

    if (kms_p11_offers(p, CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP) &&
        kms_hsm_allows(key, CKM_AES_GCM)) {
        rv = kms_hsm_gcm_probe(p, b, key);
    }
    if (kms_ckr_is_unclear(rv)) {
        /* GCM that does not work is not missed when it is not wanted */
        key->unclear = b->only == KMS_ALG_AES_CBC_HMAC ? CKR_OK : rv;
        rv = kms_p11_renew(p);
    }
    key->cbc_hmac = (key->info.uses & both) == both && key->mac != CK_INVALID_HANDLE &&
                    key->alias[0] != '\0' &&
                    kms_p11_can(p, CKM_AES_CBC_PAD, CKF_ENCRYPT | CKF_DECRYPT) &&
                    kms_hsm_allows(key, CKM_AES_CBC_PAD);
    return rv;
}

/* A token that fails at everything must not be taken for one without GCM. */
static bool is_proven(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                      enum kms_alg alg)
{
    return key->unclear == CKR_OK || b->only != KMS_ALG_NONE || alg != KMS_ALG_AES_CBC_HMAC ||
           kms_hsm_cbc_probe(p, b, key) == CKR_OK;
}

/* What BEST means needs no permission but to encrypt and decrypt. */
static void choose_best(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    const unsigned both = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;

    for (size_t i = 0; (key->info.uses & both) == both && i < BEST_COUNT; i++) {
        bool wanted = b->only == KMS_ALG_NONE || b->only == best[i];

        if (wanted && can_seal(key, best[i]) && is_proven(b, p, key, best[i])) {
            key->info.seal = best[i];
            return;
        }
    }
}

CK_RV kms_hsm_seal_probe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    const unsigned opens = KMS_USE_DECRYPT | KMS_USE_UNWRAP;
    CK_RV rv = CKR_OK;

    if (key->info.type == KMS_KEY_AES) {
        rv = probe_aes(b, p, key);
    }
    if (key->info.type == KMS_KEY_RSA && (key->info.uses & opens) != 0) {
        rv = kms_hsm_oaep_probe(p, b, key);
        if (kms_ckr_is_unclear(rv)) {
            key->unclear = rv; /* it may sign all the same */
            rv = kms_p11_renew(p);
        }
    }
    if (rv == CKR_OK) {
        choose_best(b, p, key);
    }
    return rv;
}
