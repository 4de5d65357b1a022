/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/keyid.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/p11/ckr.h"
#include "backend/p11/find.h"
#include "backend/p11/token.h"
#include "common/codec.h"

#define DOMAIN    "kmsbridge key id v1"
#define GCM_IV    "kmsbridge-id"
#define ID_HASHED 20

static const uint8_t block_b[KMS_P11_KEYID_BLOCK] = {'k', 'm', 's', 'b', 'r', 'i', 'd', 'g',
                                                     'e', '-', 'i', 'd', 0,   0,   0,   2};
static const uint8_t block_zero[KMS_P11_KEYID_BLOCK];

void kms_p11_keyid_text(const char *kind, struct kms_span a, struct kms_span b,
                        char ret_id[KMS_P11_KEYID_SIZE])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(ctx, DOMAIN, sizeof(DOMAIN)) != 1 ||
        EVP_DigestUpdate(ctx, kind, strlen(kind) + 1) != 1 ||
        (a.len > 0 && EVP_DigestUpdate(ctx, a.data, a.len) != 1) ||
        (b.len > 0 && EVP_DigestUpdate(ctx, b.data, b.len) != 1) ||
        EVP_DigestFinal_ex(ctx, digest, NULL) != 1) {
        abort(); /* SHA-256 fails only without memory, and a wrong identity would be worse */
    }
    EVP_MD_CTX_free(ctx);
    memcpy(ret_id, "kb1-", 4);
    if (kms_hex_encode(kms_span_of(digest, ID_HASHED), ret_id + 4, KMS_P11_KEYID_SIZE - 4) !=
        KMS_OK) {
        abort();
    }
}

/* @input through a session's secret key that has it for its value, and is gone at once. */
static CK_RV wrap_block(struct kms_p11 *p, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key,
                        CK_BYTE *input, CK_BYTE *out, CK_ULONG *len)
{
    struct kms_p11_template t = {.count = 0};
    CK_OBJECT_HANDLE object = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    kms_p11_put_number(&t, CKA_CLASS, CKO_SECRET_KEY);
    kms_p11_put_number(&t, CKA_KEY_TYPE, CKK_GENERIC_SECRET);
    kms_p11_put_bool(&t, CKA_TOKEN, false);
    kms_p11_put_bool(&t, CKA_EXTRACTABLE, true);
    kms_p11_put_bytes(&t, CKA_VALUE, input, KMS_P11_KEYID_BLOCK);
    rv = KMS_P11(p, C_CreateObject)(p->session, t.rows, t.count, &object);
    if (rv != CKR_OK) {
        return rv;
    }
    rv = KMS_P11(p, C_WrapKey)(p->session, mechanism, key, object, out, len);
    (void)p->functions->C_DestroyObject(p->session, object); /* nothing in it is secret */
    return rv == CKR_OK && *len != KMS_P11_KEYID_BLOCK ? CKR_MECHANISM_PARAM_INVALID : rv;
}

/* One @input block by @mechanism and the function of @use; only the first block of the result is
 * kept. */
static CK_RV run_block(struct kms_p11 *p, CK_FLAGS use, CK_MECHANISM *mechanism,
                       CK_OBJECT_HANDLE key, const uint8_t *input, uint8_t *ret_block)
{
    uint8_t in[KMS_P11_KEYID_BLOCK];
    uint8_t out[4 * KMS_P11_KEYID_BLOCK];
    CK_ULONG len = sizeof(out);
    CK_RV rv = CKR_OK;

    memcpy(in, input, sizeof(in));
    switch (use) {
    case CKF_ENCRYPT:
        rv = KMS_P11(p, C_EncryptInit)(p->session, mechanism, key);
        rv = rv == CKR_OK ? KMS_P11(p, C_Encrypt)(p->session, in, sizeof(in), out, &len) : rv;
        break;
    case CKF_DECRYPT:
        rv = KMS_P11(p, C_DecryptInit)(p->session, mechanism, key);
        rv = rv == CKR_OK ? KMS_P11(p, C_Decrypt)(p->session, in, sizeof(in), out, &len) : rv;
        break;
    default:
        rv = wrap_block(p, mechanism, key, in, out, &len);
        break;
    }
    if (rv == CKR_OK && len < KMS_P11_KEYID_BLOCK) {
        return KMS_P11_BAD_REPLY;
    }
    if (rv == CKR_OK) {
        memcpy(ret_block, out, KMS_P11_KEYID_BLOCK);
    }
    return rv;
}

static CK_RV by_ecb(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_ECB};

    return run_block(p, use, &mechanism, key, block_b, ret_block);
}

static CK_RV by_cbc(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block)
{
    uint8_t iv[KMS_P11_KEYID_BLOCK] = {0};
    CK_MECHANISM mechanism = {CKM_AES_CBC, iv, sizeof(iv)};

    return run_block(p, use, &mechanism, key, block_b, ret_block);
}

static CK_RV by_ctr(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block)
{
    CK_AES_CTR_PARAMS params = {.counter_bits = 32};
    CK_MECHANISM mechanism = {CKM_AES_CTR, &params, sizeof(params)};

    memcpy(params.cb, block_b, sizeof(params.cb));
    return run_block(p, use, &mechanism, key, block_zero, ret_block);
}

static CK_RV gcm_once(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block)
{
    uint8_t iv[sizeof(GCM_IV) - 1];
    CK_GCM_PARAMS params = {
        .iv_ptr = iv, .iv_len = sizeof(iv), .iv_bits = 8 * sizeof(iv), .tag_bits = 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof(params)};
    CK_RV rv = CKR_OK;

    memcpy(iv, GCM_IV, sizeof(iv));
    rv = run_block(p, use, &mechanism, key, block_zero, ret_block);
    if (rv == CKR_OK && (params.iv_len != sizeof(iv) || memcmp(iv, GCM_IV, sizeof(iv)) != 0)) {
        return CKR_MECHANISM_PARAM_INVALID; /* the token took an IV of its own */
    }
    return rv;
}

static CK_RV by_gcm(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block)
{
    uint8_t again[KMS_P11_KEYID_BLOCK];
    CK_RV rv = gcm_once(p, use, key, ret_block);

    if (rv == CKR_OK) {
        rv = gcm_once(p, use, key, again);
    }
    /* a token that takes an IV of its own and does not even say so */
    if (rv == CKR_OK && memcmp(ret_block, again, sizeof(again)) != 0) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    return rv;
}

static const struct {
    CK_MECHANISM_TYPE mechanism;
    CK_FLAGS use;
    CK_RV (*run)(struct kms_p11 *p, CK_FLAGS use, CK_OBJECT_HANDLE key, uint8_t *ret_block);
} ways[] = {
    {CKM_AES_ECB, CKF_ENCRYPT, by_ecb}, {CKM_AES_CBC, CKF_ENCRYPT, by_cbc},
    {CKM_AES_CTR, CKF_ENCRYPT, by_ctr}, {CKM_AES_GCM, CKF_ENCRYPT, by_gcm},
    {CKM_AES_CTR, CKF_DECRYPT, by_ctr}, {CKM_AES_ECB, CKF_WRAP, by_ecb},
    {CKM_AES_CBC, CKF_WRAP, by_cbc},
};

CK_RV kms_p11_keyid_block(struct kms_p11 *p, CK_OBJECT_HANDLE key, CK_FLAGS uses,
                          bool (*allowed)(const void *ctx, CK_MECHANISM_TYPE), const void *ctx,
                          uint8_t ret_block[KMS_P11_KEYID_BLOCK])
{
    CK_RV unclear = CKR_MECHANISM_INVALID;

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        CK_RV rv = CKR_OK;

        /* a key that is there to encrypt and fails at it is sick, whatever else it does */
        if (unclear != CKR_MECHANISM_INVALID && ways[i].use != CKF_ENCRYPT) {
            break;
        }
        if ((uses & ways[i].use) == 0 || !kms_p11_can(p, ways[i].mechanism, ways[i].use) ||
            !allowed(ctx, ways[i].mechanism)) {
            continue;
        }
        rv = ways[i].run(p, ways[i].use, key, ret_block);
        if (!kms_ckr_is_unsupported(rv) && !kms_ckr_is_unclear(rv)) {
            return rv;
        }
        unclear = kms_ckr_is_unclear(rv) ? rv : unclear;
    }
    return unclear;
}

CK_RV kms_p11_keyid_mac(struct kms_p11 *p, CK_OBJECT_HANDLE key, uint8_t ret_mac[KMS_P11_KEYID_MAC])
{
    uint8_t text[] = DOMAIN;
    CK_MECHANISM mechanism = {.mechanism = CKM_SHA256_HMAC};
    CK_ULONG len = KMS_P11_KEYID_MAC;
    CK_RV rv = KMS_P11(p, C_SignInit)(p->session, &mechanism, key);

    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Sign)(p->session, text, sizeof(text) - 1, ret_mac, &len);
    }
    return rv == CKR_OK && len != KMS_P11_KEYID_MAC ? KMS_P11_BAD_REPLY : rv;
}
