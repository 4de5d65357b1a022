/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RSA-OAEP with SHA-256, MGF1-SHA256 and the label SHA-256(aad) (RFC 8017 7.1). Encrypting needs
 * the public key only and is done here; decrypting is CKM_RSA_PKCS_OAEP, or, where the token knows
 * SHA-1 only or no label (SoftHSM 2.6), CKM_RSA_X_509 and OpenSSL's constant-time unpadding.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* RSA_padding_check_PKCS1_OAEP_mgf1() has no successor */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define HASH 32

static bool label_of(struct kms_span aad, uint8_t ret_label[HASH])
{
    return EVP_Digest(kms_p11_in(aad.data), aad.len, ret_label, NULL, EVP_sha256(), NULL) == 1;
}

/* @label is taken over by the context. */
static bool set_oaep(EVP_PKEY_CTX *ctx, const uint8_t *label)
{
    uint8_t *owned = OPENSSL_memdup(label, HASH);

    if (owned == NULL) {
        return false;
    }
    if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) != 1 ||
        EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, owned, HASH) != 1) {
        OPENSSL_free(owned);
        return false;
    }
    return true;
}

CK_RV kms_hsm_oaep_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct kms_hsm_key *key = work->key;
    uint8_t label[HASH];
    size_t len = work->out_room;
    EVP_PKEY_CTX *ctx = NULL;
    CK_RV rv = CKR_OK;

    if (key->public_key == NULL || key->info.type != KMS_KEY_RSA) {
        return CKR_MECHANISM_INVALID;
    }
    if (work->in.len + 2 * HASH + 2 > key->size) {
        (void)kms_error_set(p->ask->err, KMS_E_TOO_LARGE,
                            "RSA-%u OAEP takes at most %zu bytes, not %zu", key->info.bits,
                            key->size - 2 * HASH - 2, work->in.len);
        return CKR_DATA_LEN_RANGE;
    }
    ctx = EVP_PKEY_CTX_new(key->public_key, NULL);
    if (ctx == NULL || !label_of(work->aad, label) || EVP_PKEY_encrypt_init(ctx) != 1 ||
        !set_oaep(ctx, label) ||
        EVP_PKEY_encrypt(ctx, work->out, &len, kms_p11_in(work->in.data), work->in.len) != 1) {
        (void)kms_error_set(p->ask->err, KMS_E_INTERNAL, "OpenSSL refused RSA-OAEP encryption");
        rv = CKR_FUNCTION_FAILED;
    }
    EVP_PKEY_CTX_free(ctx);
    work->iv_len = 0;
    work->out_len = len;
    return rv;
}

static CK_RV private_half(struct kms_p11 *p, CK_MECHANISM *mechanism, struct kms_hsm_work *work,
                          CK_ULONG *len)
{
    CK_RV rv = KMS_P11(p, C_DecryptInit)(p->session, mechanism, work->key->handle);

    if (rv != CKR_OK) {
        return rv;
    }
    return KMS_P11(p, C_Decrypt)(p->session, kms_p11_in(work->in.data), work->in.len, work->out,
                                 len);
}

static CK_RV by_token(struct kms_p11 *p, struct kms_hsm_work *work, uint8_t *label)
{
    CK_RSA_PKCS_OAEP_PARAMS params = {.hash_alg = CKM_SHA256,
                                      .mgf = CKG_MGF1_SHA256,
                                      .source = CKZ_DATA_SPECIFIED,
                                      .source_data = label,
                                      .source_data_len = HASH};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &params, sizeof(params)};
    CK_ULONG len = work->out_room;
    CK_RV rv = private_half(p, &mechanism, work, &len);

    work->out_len = len;
    return rv;
}

/* The padded block is as secret as what is in it: our copy is wiped, work->out is the caller's. */
static CK_RV by_hand(struct kms_p11 *p, struct kms_hsm_work *work, const uint8_t *label)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_X_509};
    size_t size = work->key->size;
    uint8_t block[KMS_HSM_RSA_BYTES_MAX];
    CK_ULONG len = work->out_room;
    int got = 0;
    CK_RV rv = private_half(p, &mechanism, work, &len);

    if (rv != CKR_OK) {
        return rv;
    }
    if (len > size) {
        return KMS_P11_BAD_REPLY;
    }
    memset(block, 0, size - len); /* some tokens strip leading zeros */
    memcpy(block + size - len, work->out, len);
    got = RSA_padding_check_PKCS1_OAEP_mgf1(work->out, (int)work->out_room, block, (int)size,
                                            (int)size, label, HASH, EVP_sha256(), EVP_sha256());
    kms_wipe(block, size);
    if (got < 0) {
        p->function = "OAEP";
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    work->out_len = (size_t)got;
    return CKR_OK;
}

static CK_RV decrypt(struct kms_p11 *p, struct kms_hsm_work *work, bool raw)
{
    uint8_t label[HASH];

    if (!label_of(work->aad, label)) {
        return CKR_HOST_MEMORY;
    }
    return raw ? by_hand(p, work, label) : by_token(p, work, label);
}

static CK_RV round_trip(struct kms_p11 *p, const struct kms_hsm_key *key, bool raw)
{
    static const uint8_t text[16] = "kmsbridge probe";
    uint8_t sealed[KMS_HSM_RSA_BYTES_MAX];
    uint8_t opened[KMS_HSM_RSA_BYTES_MAX];
    struct kms_hsm_work work = {.key = key,
                                .in = kms_span_of(text, sizeof(text)),
                                .out = sealed,
                                .out_room = sizeof(sealed)};
    CK_RV rv = kms_hsm_oaep_encrypt(p, &work);

    if (rv != CKR_OK) {
        return rv;
    }
    work.in = kms_span_of(sealed, work.out_len);
    work.out = opened;
    work.out_room = sizeof(opened);
    rv = decrypt(p, &work, raw);
    if (rv == CKR_OK && (work.out_len != sizeof(text) || memcmp(opened, text, sizeof(text)) != 0)) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    return rv;
}

/* Not a sick token, but one that does not do it this way. */
static bool is_refusal(CK_RV rv)
{
    return kms_ckr_is_unsupported(rv) || kms_ckr_find(rv)->status == KMS_E_BAD_DATA;
}

CK_RV kms_hsm_oaep_probe(struct kms_p11 *p, const struct kms_hsm_key *key, bool *ret_can,
                         bool *ret_raw)
{
    static const CK_MECHANISM_TYPE ways[] = {CKM_RSA_PKCS_OAEP, CKM_RSA_X_509};
    CK_RV unclear = CKR_OK;

    *ret_can = false;
    if (key->public_key == NULL || key->size < 4 * HASH || key->size > KMS_HSM_RSA_BYTES_MAX) {
        return CKR_OK;
    }
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        CK_RV rv = CKR_OK;

        if (!kms_p11_can(p, ways[i], CKF_DECRYPT) || !kms_hsm_allows(key, ways[i])) {
            continue;
        }
        rv = round_trip(p, key, ways[i] == CKM_RSA_X_509);
        if (rv == CKR_OK) {
            *ret_can = true;
            *ret_raw = ways[i] == CKM_RSA_X_509;
            return CKR_OK;
        }
        if (!is_refusal(rv) && !kms_ckr_is_unclear(rv)) {
            return rv;
        }
        unclear = kms_ckr_is_unclear(rv) ? rv : unclear;
    }
    return unclear; /* not to be taken for a token without OAEP */
}

static CK_RV known_good(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    return round_trip(p, key, key->oaep_raw);
}

static CK_RV decrypt_as_known(struct kms_p11 *p, struct kms_hsm_work *work)
{
    return decrypt(p, work, work->key->oaep_raw);
}

CK_RV kms_hsm_oaep_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (!work->key->oaep) {
        return CKR_MECHANISM_INVALID;
    }
    if (work->in.len != work->key->size || work->iv_len != 0) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    return kms_hsm_decrypt_surely(p, work, decrypt_as_known, known_good);
}
