/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of algorithms: what each is called on a token and who does it. A new one is a row
 * here, and its parameters in the file of its functions.
 */
#include "backend/hsm_parts.h"

#define NONE KMS_HSM_NO_MECHANISM

/* ---- hashes ------------------------------------------------------------------------------- */

/* DER DigestInfos up to the digest, RFC 8017 9.2 note 1; SHA-224 by the same pattern (RFC 8017
 * B.1).
 */
static const uint8_t info_sha1[] = {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e,
                                    0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14};
#define SHA2_INFO(total, number, len)                                                              \
    {                                                                                              \
        0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,       \
            number, 0x05, 0x00, 0x04, len                                                          \
    }
static const uint8_t info_sha224[] = SHA2_INFO(0x2d, 0x04, 0x1c);
static const uint8_t info_sha256[] = SHA2_INFO(0x31, 0x01, 0x20);
static const uint8_t info_sha384[] = SHA2_INFO(0x41, 0x02, 0x30);
static const uint8_t info_sha512[] = SHA2_INFO(0x51, 0x03, 0x40);

#define HASH(number, name, ckm, mgf, len, info)                                                    \
    {                                                                                              \
        name, ckm, mgf, len, info, sizeof(info), number                                            \
    }
static const struct kms_hsm_hash sha1 = HASH(0, "SHA1", CKM_SHA_1, CKG_MGF1_SHA1, 20, info_sha1);
static const struct kms_hsm_hash sha224 =
    HASH(1, "SHA224", CKM_SHA224, CKG_MGF1_SHA224, 28, info_sha224);
static const struct kms_hsm_hash sha256 =
    HASH(2, "SHA256", CKM_SHA256, CKG_MGF1_SHA256, 32, info_sha256);
static const struct kms_hsm_hash sha384 =
    HASH(3, "SHA384", CKM_SHA384, CKG_MGF1_SHA384, 48, info_sha384);
static const struct kms_hsm_hash sha512 =
    HASH(4, "SHA512", CKM_SHA512, CKG_MGF1_SHA512, 64, info_sha512);

/* ---- algorithms --------------------------------------------------------------------------- */

#define CIPHER(alg, mechanism, other)                                                              \
    {                                                                                              \
        alg, KMS_KEY_AES, mechanism, other, NULL, kms_hsm_cipher_seal, kms_hsm_cipher_open,        \
            KMS_HSM_NO_SIGN                                                                        \
    }
#define OAEP(alg, hash)                                                                            \
    {                                                                                              \
        alg, KMS_KEY_RSA, CKM_RSA_PKCS_OAEP, CKM_RSA_X_509, hash, kms_hsm_oaep_encrypt,            \
            kms_hsm_oaep_decrypt, KMS_HSM_NO_SIGN                                                  \
    }
#define RSA_BOTH(alg, mechanism)                                                                   \
    {                                                                                              \
        alg, KMS_KEY_RSA, mechanism, NONE, NULL, kms_hsm_rsa_encrypt, kms_hsm_rsa_decrypt,         \
            KMS_HSM_SIGN                                                                           \
    }
#define SIGNS(alg, type, mechanism, other, hash)                                                   \
    {                                                                                              \
        alg, type, mechanism, other, hash, NULL, NULL, KMS_HSM_SIGN                                \
    }
#define MAC(alg, mechanism, hash)                                                                  \
    {                                                                                              \
        alg, KMS_KEY_GENERIC, mechanism, NONE, hash, NULL, NULL, KMS_HSM_MAC                       \
    }

/* PKCS#11 2.40 current mechanisms, 2.1 (RSA), 2.3 (EC), 2.8 to 2.13 (AES), 2.18 (SHA); 3.0: 2.3.5.
 */
static const struct kms_hsm_alg rows[] = {
    {KMS_ALG_AES_GCM, KMS_KEY_AES, CKM_AES_GCM, NONE, NULL, kms_hsm_gcm_encrypt,
     kms_hsm_gcm_decrypt, KMS_HSM_NO_SIGN},
    {KMS_ALG_AES_CBC_HMAC, KMS_KEY_AES, CKM_AES_CBC_PAD, NONE, NULL, kms_hsm_cbc_encrypt,
     kms_hsm_cbc_decrypt, KMS_HSM_NO_SIGN},
    OAEP(KMS_ALG_RSA_OAEP_SHA256, &sha256),
    CIPHER(KMS_ALG_AES_CBC, CKM_AES_CBC, NONE),
    CIPHER(KMS_ALG_AES_CBC_PAD, CKM_AES_CBC_PAD, NONE),
    CIPHER(KMS_ALG_AES_CTR, CKM_AES_CTR, NONE),
    CIPHER(KMS_ALG_AES_KEY_WRAP, CKM_AES_KEY_WRAP, NONE),
    CIPHER(KMS_ALG_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD),
    OAEP(KMS_ALG_RSA_OAEP_SHA1, &sha1),
    OAEP(KMS_ALG_RSA_OAEP_L_SHA256, &sha256),
    OAEP(KMS_ALG_RSA_OAEP_L_SHA384, &sha384),
    OAEP(KMS_ALG_RSA_OAEP_L_SHA512, &sha512),
    RSA_BOTH(KMS_ALG_RSA_PKCS1, CKM_RSA_PKCS),
    RSA_BOTH(KMS_ALG_RSA_RAW, CKM_RSA_X_509),
    SIGNS(KMS_ALG_RSA_PKCS1_SHA256, KMS_KEY_RSA, CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS, &sha256),
    SIGNS(KMS_ALG_RSA_PKCS1_SHA384, KMS_KEY_RSA, CKM_SHA384_RSA_PKCS, CKM_RSA_PKCS, &sha384),
    SIGNS(KMS_ALG_RSA_PKCS1_SHA512, KMS_KEY_RSA, CKM_SHA512_RSA_PKCS, CKM_RSA_PKCS, &sha512),
    SIGNS(KMS_ALG_RSA_PSS_SHA1, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, NONE, &sha1),
    SIGNS(KMS_ALG_RSA_PSS_SHA224, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, NONE, &sha224),
    SIGNS(KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, NONE, &sha256),
    SIGNS(KMS_ALG_RSA_PSS_SHA384, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, NONE, &sha384),
    SIGNS(KMS_ALG_RSA_PSS_SHA512, KMS_KEY_RSA, CKM_RSA_PKCS_PSS, NONE, &sha512),
    SIGNS(KMS_ALG_ECDSA, KMS_KEY_EC, CKM_ECDSA, NONE, NULL),
    SIGNS(KMS_ALG_EDDSA, KMS_KEY_EDDSA, CKM_EDDSA, NONE, NULL),
    MAC(KMS_ALG_HMAC_SHA1, CKM_SHA_1_HMAC, &sha1),
    MAC(KMS_ALG_HMAC_SHA224, CKM_SHA224_HMAC, &sha224),
    MAC(KMS_ALG_HMAC_SHA256, CKM_SHA256_HMAC, &sha256),
    MAC(KMS_ALG_HMAC_SHA384, CKM_SHA384_HMAC, &sha384),
    MAC(KMS_ALG_HMAC_SHA512, CKM_SHA512_HMAC, &sha512),
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

const struct kms_hsm_alg *kms_hsm_alg_find(enum kms_alg alg)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].alg == alg) {
            return &rows[i];
        }
    }
    return NULL;
}

unsigned kms_hsm_act_use(enum kms_hsm_act act)
{
    static const unsigned uses[] = {
        [KMS_HSM_ENCRYPT] = KMS_USE_ENCRYPT,
        [KMS_HSM_DECRYPT] = KMS_USE_DECRYPT,
        [KMS_HSM_WRAP] = KMS_USE_WRAP,
        [KMS_HSM_UNWRAP] = KMS_USE_UNWRAP,
    };

    return uses[act];
}

/* ---- what a key can do -------------------------------------------------------------------- */

static bool has_way(const struct kms_p11 *p, const struct kms_hsm_key *key,
                    CK_MECHANISM_TYPE mechanism, enum kms_hsm_act act)
{
    return kms_hsm_way(p, key, mechanism, act) != KMS_HSM_NO_WAY;
}

/* Whether the private half does @row; the public one is ours. */
static bool can_open_rsa(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                         const struct kms_hsm_alg *row, enum kms_hsm_act act)
{
    if ((key->info.uses & kms_hsm_act_use(act)) == 0 || key->public_key == NULL) {
        return false;
    }
    if (row->alg == KMS_ALG_RSA_OAEP_SHA256) {
        return key->oaep;
    }
    if (row->hash == NULL) {
        return has_way(p, key, row->mechanism, act);
    }
    return key->size >= 2 * row->hash->len + 2 &&
           (has_way(p, key, row->other, act) ||
            (has_way(p, key, row->mechanism, act) &&
             kms_hsm_oaep_native(p, b, key, row, act, false) != KMS_HSM_NO));
}

static bool can_rsa(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                    const struct kms_hsm_alg *row, enum kms_hsm_act act)
{
    if (act == KMS_HSM_DECRYPT || act == KMS_HSM_UNWRAP) {
        return can_open_rsa(b, p, key, row, act);
    }
    /* nothing is sealed that could not be opened */
    return can_open_rsa(b, p, key, row, KMS_HSM_DECRYPT) ||
           can_open_rsa(b, p, key, row, KMS_HSM_UNWRAP);
}

bool kms_hsm_can(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                 const struct kms_hsm_alg *row, enum kms_hsm_act act)
{
    if (row->seal == NULL || row->type != key->info.type ||
        (key->info.uses & kms_hsm_act_use(act)) == 0) {
        return false;
    }
    if (row->type == KMS_KEY_RSA) {
        return can_rsa(b, p, key, row, act);
    }
    switch (row->alg) {
    case KMS_ALG_AES_GCM:
        return key->gcm != KMS_HSM_GCM_NONE && has_way(p, key, row->mechanism, act);
    case KMS_ALG_AES_CBC_HMAC:
        return key->cbc_hmac && (act == KMS_HSM_ENCRYPT || act == KMS_HSM_DECRYPT);
    case KMS_ALG_AES_KEY_WRAP_PAD:
        return has_way(p, key, kms_hsm_kwp(b, p, key), act);
    default:
        return has_way(p, key, row->mechanism, act);
    }
}

CK_MECHANISM_TYPE kms_hsm_sign_mechanism(const struct kms_p11 *p, const struct kms_hsm_key *key,
                                         const struct kms_hsm_alg *row, CK_FLAGS flag)
{
    const CK_MECHANISM_TYPE both[] = {row->mechanism, row->other};

    for (size_t i = 0; i < 2 && row->type == key->info.type; i++) {
        if (kms_p11_can(p, both[i], flag) && kms_hsm_allows(key, both[i])) {
            return both[i];
        }
    }
    return NONE;
}

static bool can_sign(const struct kms_p11 *p, const struct kms_hsm_key *key,
                     const struct kms_hsm_alg *row)
{
    bool signs = (key->info.uses & KMS_USE_SIGN) != 0 &&
                 kms_hsm_sign_mechanism(p, key, row, CKF_SIGN) != NONE;

    return row->sign != KMS_HSM_NO_SIGN && row->type == key->info.type && signs;
}

void kms_hsm_algs_of_key(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        bool can = can_sign(p, key, &rows[i]);

        for (unsigned act = KMS_HSM_ENCRYPT; !can && act <= KMS_HSM_UNWRAP; act++) {
            can = kms_hsm_can(b, p, key, &rows[i], (enum kms_hsm_act)act);
        }
        if (can) {
            kms_alg_set_add(&key->info.algs, rows[i].alg);
        }
    }
}

/* ---- what a token can do ------------------------------------------------------------------ */

static bool token_has(const struct kms_backend *b, const struct kms_p11 *p,
                      const struct kms_hsm_alg *row)
{
    const CK_FLAGS opens = CKF_DECRYPT | CKF_UNWRAP;
    unsigned long kwp = atomic_load(&b->tried.kwp);
    bool has = row->open != NULL && kms_p11_offers(p, row->mechanism, opens);

    has = has || (row->open != NULL && row->other != NONE && kms_p11_offers(p, row->other, opens));
    has = has || (row->sign != KMS_HSM_NO_SIGN && (kms_p11_offers(p, row->mechanism, CKF_SIGN) ||
                                                   kms_p11_offers(p, row->other, CKF_SIGN)));
    switch (row->alg) {
    case KMS_ALG_AES_CBC_HMAC:
        return has && kms_p11_can(p, CKM_SHA256_HMAC, CKF_SIGN);
    case KMS_ALG_AES_KEY_WRAP_PAD:
        return has && kwp != NONE;
    default:
        return has;
    }
}

struct kms_alg_set kms_hsm_algs_of_token(const struct kms_backend *b, const struct kms_p11 *p)
{
    struct kms_alg_set set = {.bits = {0, 0}};

    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (token_has(b, p, &rows[i])) {
            kms_alg_set_add(&set, rows[i].alg);
        }
    }
    return set;
}
