/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RSA-OAEP (RFC 8017 7.1), MGF1 with the same hash. The label is the AAD, or for
 * KMS_ALG_RSA_OAEP_SHA256 the AAD's SHA-256. Encrypting needs the public key only and is done here;
 * decrypting is CKM_RSA_PKCS_OAEP, or, where the token knows SHA-1 only or no label (SoftHSM 2.6),
 * CKM_RSA_X_509 and OpenSSL's constant-time unpadding.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* RSA_padding_check_PKCS1_OAEP_mgf1() has no successor */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

/* The bytes of a label, in @work or in a digest of its own. */
struct label {
    uint8_t digest[EVP_MAX_MD_SIZE];
    struct kms_span bytes;
};

static bool label_make(struct label *label, const struct kms_hsm_work *work)
{
    struct kms_span aad = work->aad;

    label->bytes = aad;
    if (work->row->alg != KMS_ALG_RSA_OAEP_SHA256) {
        return true;
    }
    label->bytes = kms_span_of(label->digest, work->row->hash->len);
    return EVP_Digest(kms_p11_in(aad.data), aad.len, label->digest, NULL, EVP_sha256(), NULL) == 1;
}

/* The label's copy is taken over by the context. */
static bool set_oaep(EVP_PKEY_CTX *ctx, const struct kms_hsm_hash *hash, struct kms_span label)
{
    uint8_t *owned = NULL;

    if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, hash->name, NULL) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, hash->name, NULL) != 1) {
        return false;
    }
    if (label.len == 0) {
        return true;
    }
    owned = OPENSSL_memdup(label.data, label.len);
    if (owned == NULL || EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, owned, (int)label.len) != 1) {
        OPENSSL_free(owned);
        return false;
    }
    return true;
}

CK_RV kms_hsm_oaep_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct kms_hsm_key *key = work->key;
    size_t overhead = 2 * work->row->hash->len + 2;
    struct label label;
    size_t len = work->out_room;
    EVP_PKEY_CTX *ctx = NULL;
    CK_RV rv = CKR_OK;

    if (key->public_key == NULL || key->info.type != KMS_KEY_RSA || key->size < overhead) {
        return CKR_MECHANISM_INVALID;
    }
    if (work->in.len + overhead > key->size || work->out_room < key->size) {
        (void)kms_error_set(p->ask->err, KMS_E_TOO_LARGE,
                            "RSA-%u OAEP takes at most %zu bytes, not %zu", key->info.bits,
                            key->size - overhead, work->in.len);
        return CKR_DATA_LEN_RANGE;
    }
    ctx = EVP_PKEY_CTX_new(key->public_key, NULL);
    if (ctx == NULL || !label_make(&label, work) || EVP_PKEY_encrypt_init(ctx) != 1 ||
        !set_oaep(ctx, work->row->hash, label.bytes) ||
        EVP_PKEY_encrypt(ctx, work->out, &len, kms_p11_in(work->in.data), work->in.len) != 1) {
        (void)kms_error_set(p->ask->err, KMS_E_INTERNAL, "OpenSSL refused RSA-OAEP encryption");
        rv = CKR_FUNCTION_FAILED;
    }
    EVP_PKEY_CTX_free(ctx);
    work->iv_len = 0;
    work->out_len = len;
    return rv;
}

/* ---- the private half --------------------------------------------------------------------- */

static CK_RV by_token(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct kms_hsm_hash *hash = work->row->hash;
    struct label label;
    CK_RSA_PKCS_OAEP_PARAMS params = {
        .hash_alg = hash->mechanism, .mgf = hash->mgf, .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &params, sizeof(params)};

    if (!label_make(&label, work)) {
        return CKR_HOST_MEMORY;
    }
    if (label.bytes.len > 0) {
        params.source_data = kms_p11_in(label.bytes.data);
        params.source_data_len = label.bytes.len;
    }
    return kms_hsm_bytes_open(p, work, &mechanism);
}

/* The padded block is as secret as what is in it: our copy is wiped, work->out is the caller's. */
static CK_RV by_hand(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const EVP_MD *md = EVP_get_digestbyname(work->row->hash->name);
    size_t size = work->key->size;
    uint8_t block[KMS_HSM_RSA_BYTES_MAX];
    struct label label;
    int got = 0;
    CK_RV rv = CKR_OK;

    if (size > sizeof(block)) {
        return CKR_KEY_SIZE_RANGE;
    }
    if (md == NULL || !label_make(&label, work)) {
        return CKR_HOST_MEMORY;
    }
    rv = kms_hsm_rsa_raw(p, work);
    if (rv != CKR_OK) {
        return rv;
    }
    memcpy(block, work->out, size);
    got = RSA_padding_check_PKCS1_OAEP_mgf1(work->out, (int)work->out_room, block, (int)size,
                                            (int)size, label.bytes.data, (int)label.bytes.len, md,
                                            md);
    kms_wipe(block, size);
    if (got < 0) {
        p->function = "OAEP";
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    work->out_len = (size_t)got;
    return CKR_OK;
}

/* ---- which of the two --------------------------------------------------------------------- */

struct trial {
    struct kms_backend *backend;
    struct kms_hsm_key *key;
    enum kms_hsm_act act;
};

static CK_RV try_way(struct kms_p11 *p, size_t way, void *ctx)
{
    const struct trial *trial = ctx;
    const struct kms_hsm_work like = {.backend = trial->backend,
                                      .key = trial->key,
                                      .row = kms_hsm_alg_find(KMS_ALG_RSA_OAEP_SHA256),
                                      .act = trial->act};
    CK_MECHANISM_TYPE mechanism = way == 0 ? like.row->mechanism : like.row->other;

    if (kms_hsm_way(p, trial->key, mechanism, trial->act) == KMS_HSM_NO_WAY) {
        return CKR_MECHANISM_INVALID;
    }
    return kms_hsm_round_trip(p, &like, kms_hsm_oaep_encrypt, way == 0 ? by_token : by_hand);
}

CK_RV kms_hsm_oaep_probe(struct kms_p11 *p, struct kms_backend *b, struct kms_hsm_key *key)
{
    bool data = (key->info.uses & KMS_USE_DECRYPT) != 0;
    struct trial trial = {.backend = b, .key = key, .act = data ? KMS_HSM_DECRYPT : KMS_HSM_UNWRAP};
    size_t way = 0;
    CK_RV rv = CKR_OK;

    key->oaep = false;
    if (key->public_key == NULL || key->size < 128 || key->size > KMS_HSM_RSA_BYTES_MAX) {
        return CKR_OK;
    }
    rv = kms_hsm_first_way(p, 2, try_way, &trial, &way);
    key->oaep = way < 2;
    key->oaep_raw = way == 1;
    return rv;
}

enum kms_hsm_verdict kms_hsm_oaep_native(struct kms_p11 *p, struct kms_backend *b,
                                         const struct kms_hsm_key *key,
                                         const struct kms_hsm_alg *row, enum kms_hsm_act act,
                                         bool labelled)
{
    static const uint8_t text[] = "kmsbridge label";
    const struct kms_hsm_work like = {.backend = b,
                                      .key = key,
                                      .row = row,
                                      .act = act,
                                      .aad = kms_span_of(text, labelled ? sizeof(text) : 0)};
    enum kms_hsm_way way = kms_hsm_way(p, key, row->mechanism, act);
    atomic_uint *tried = &b->tried.oaep[row->hash->number][labelled][way == KMS_HSM_BY_KEY];
    enum kms_hsm_verdict verdict = (enum kms_hsm_verdict)atomic_load(tried);
    CK_RV rv = CKR_OK;

    if (way == KMS_HSM_NO_WAY) {
        return KMS_HSM_NO;
    }
    if (verdict != KMS_HSM_UNKNOWN) {
        return verdict;
    }
    rv = kms_hsm_round_trip(p, &like, kms_hsm_oaep_encrypt, by_token);
    if (rv == CKR_OK) {
        verdict = KMS_HSM_YES;
    } else if (kms_hsm_is_refusal(rv)) {
        verdict = KMS_HSM_NO;
    } else if (kms_ckr_is_unclear(rv)) {
        (void)kms_p11_renew(p); /* nothing is known; the next call on a lost session says so */
    }
    atomic_store(tried, verdict);
    return verdict;
}

static CK_RV decrypt_natively(struct kms_p11 *p, struct kms_hsm_work *work)
{
    enum kms_hsm_verdict verdict =
        kms_hsm_oaep_native(p, work->backend, work->key, work->row, work->act, work->aad.len > 0);

    if (verdict == KMS_HSM_NO) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "the token's RSA-OAEP does not do %s%s, nor does it do RSA without "
                            "padding for this key",
                            work->row->hash->name, work->aad.len > 0 ? " with a label" : "");
        return CKR_MECHANISM_PARAM_INVALID;
    }
    return kms_hsm_open_surely(p, work, by_token);
}

/* KMS_ALG_RSA_OAEP_SHA256 was tried with this very key; the others with any of the token's. */
static bool is_raw(struct kms_p11 *p, const struct kms_hsm_work *work)
{
    if (work->row->alg == KMS_ALG_RSA_OAEP_SHA256) {
        return work->key->oaep_raw;
    }
    return kms_hsm_way(p, work->key, work->row->other, work->act) != KMS_HSM_NO_WAY &&
           kms_hsm_oaep_native(p, work->backend, work->key, work->row, work->act,
                               work->aad.len > 0) != KMS_HSM_YES;
}

CK_RV kms_hsm_oaep_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (work->in.len != work->key->size || work->iv_len != 0) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    if (is_raw(p, work)) {
        return kms_hsm_open_surely(p, work, by_hand);
    }
    return work->row->alg == KMS_ALG_RSA_OAEP_SHA256 ? kms_hsm_open_surely(p, work, by_token)
                                                     : decrypt_natively(p, work);
}
