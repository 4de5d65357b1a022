/* SPDX-License-Identifier: Apache-2.0 */
/* The table of mechanisms. Parameters are read in mech_params.c, lists made in mech_list.c. */
#include "pkcs11/core/mech.h"

#define ANY    CK_UNAVAILABLE_INFORMATION
#define AES    CKK_AES, 16, 32      /* bytes */
#define HASH   ANY, 0, 0            /* no key */
#define MACS   ANY, 1, 4096         /* bytes */
#define BITS   ANY, 8, 8 * 4096     /* as CKM_GENERIC_SECRET_KEY_GEN counts */
#define RSA    CKK_RSA, 1024, 16384 /* bits; the public halves of old keys too */
#define EC     CKK_EC, 256, 521
#define EDDSA  CKK_EC_EDWARDS, 255, 255
#define CHACHA CKK_CHACHA20, 256, 256    /* bits */
#define SM4    CKK_KMSBRIDGE_SM4, 16, 16 /* bytes */

#define CRYPT      (CKF_ENCRYPT | CKF_DECRYPT)
#define WRAPS      (CKF_WRAP | CKF_UNWRAP)
#define MESSAGES   (CKF_MESSAGE_ENCRYPT | CKF_MESSAGE_DECRYPT | CKF_MULTI_MESSAGE)
#define SIGNATURES (CKF_MESSAGE_SIGN | CKF_MESSAGE_VERIFY)
#define SIGNS      (CKF_SIGN | CKF_VERIFY | SIGNATURES)
#define CURVES     (CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS | CKF_EC_CURVENAME)
#define NO         KMS_ALG_NONE

/* remotely, by the private half only: the public one is here */
#define OPENS  (CKF_DECRYPT | CKF_UNWRAP)
#define SIGN_1 (CKF_SIGN | CKF_MESSAGE_SIGN)

#define ROW(type, ...)                                                                             \
    {                                                                                              \
        CKM_##type, "CKM_" #type, __VA_ARGS__                                                      \
    }
#define DIGEST(type, hash)                                                                         \
    ROW(type, HASH, CKF_DIGEST, 0, NO, KMS_PARAM_NONE, hash, NULL, KMS_MECH_DIGEST, NO)
#define HMACS(type, hash, alg)                                                                     \
    ROW(type, MACS, SIGNS, SIGNS, alg, KMS_PARAM_NONE, hash, "HMAC", KMS_MECH_HMAC, NO),           \
        ROW(type##_GENERAL, MACS, SIGNS, 0, NO, KMS_PARAM_MAC_LEN, hash, "HMAC", KMS_MECH_HMAC,    \
            NO)
#define RSA_SIGNS(type, hash, pss, whole)                                                          \
    ROW(type, RSA, SIGNS, SIGN_1, KMS_ALG_RSA_PKCS1, KMS_PARAM_NONE, hash, NULL,                   \
        KMS_MECH_RSA_PKCS1, whole),                                                                \
        ROW(type##_PSS, RSA, SIGNS, SIGN_1, pss, KMS_PARAM_PSS, hash, NULL, KMS_MECH_RSA_PSS, NO)
#define EC_SIGNS(type, hash)                                                                       \
    ROW(type, EC, SIGNS | CURVES, SIGN_1, KMS_ALG_ECDSA, KMS_PARAM_NONE, hash, NULL,               \
        KMS_MECH_ECDSA, NO)
#define WRAP(type, name, alg)                                                                      \
    ROW(type, AES, CRYPT | WRAPS, WRAPS, alg, KMS_PARAM_WRAP_IV, NULL, name, KMS_MECH_KEY_WRAP, NO)

/*
 * Each as its section of the PKCS#11 3.0 current mechanisms says (pkcs11-curr-v3.0).
 *
 * CKM_AES_KEY_WRAP_PAD is done as RFC 5649, the same as CKM_AES_KEY_WRAP_KWP: 2.40 said "the usual
 * padding", and SoftHSM, OpenSC's tools and most HSMs took that for RFC 5649. Only 3.0 says PKCS#7
 * for it, in the move to its historical mechanisms.
 *
 * CKM_RSA_PKCS_PSS and _OAEP without a hash in their name stand for every alg of kms_hash.
 * HMAC's _GENERAL has no remote half: the waist's MACs come whole.
 */
static const struct kms_mech rows[] = {
    /* making keys; remotely when the token says so (->generates) */
    ROW(AES_KEY_GEN, AES, CKF_GENERATE, CKF_GENERATE, NO, KMS_PARAM_NONE, NULL, NULL,
        KMS_MECH_KEY_GEN, NO),
    ROW(GENERIC_SECRET_KEY_GEN, CKK_GENERIC_SECRET, 8, 8 * 4096, CKF_GENERATE, CKF_GENERATE, NO,
        KMS_PARAM_NONE, NULL, NULL, KMS_MECH_KEY_GEN, NO),
    ROW(RSA_PKCS_KEY_PAIR_GEN, CKK_RSA, 2048, 8192, CKF_GENERATE_KEY_PAIR, CKF_GENERATE_KEY_PAIR,
        NO, KMS_PARAM_NONE, NULL, NULL, KMS_MECH_PAIR_GEN, NO),
    ROW(EC_KEY_PAIR_GEN, EC, CKF_GENERATE_KEY_PAIR | CURVES, CKF_GENERATE_KEY_PAIR, NO,
        KMS_PARAM_NONE, NULL, NULL, KMS_MECH_PAIR_GEN, NO),
    ROW(EC_EDWARDS_KEY_PAIR_GEN, EDDSA, CKF_GENERATE_KEY_PAIR | CURVES, CKF_GENERATE_KEY_PAIR, NO,
        KMS_PARAM_NONE, NULL, NULL, KMS_MECH_PAIR_GEN, NO),

    ROW(CHACHA20_KEY_GEN, CHACHA, 0, CKF_GENERATE, NO, KMS_PARAM_NONE, NULL, NULL, KMS_MECH_KEY_GEN,
        NO),
    ROW(KMSBRIDGE_SM4_KEY_GEN, SM4, 0, CKF_GENERATE, NO, KMS_PARAM_NONE, NULL, NULL,
        KMS_MECH_KEY_GEN, NO),

    /* AES */
    ROW(AES_GCM, AES, CRYPT | WRAPS | MESSAGES, CRYPT | WRAPS | MESSAGES, KMS_ALG_AES_GCM,
        KMS_PARAM_GCM, NULL, "AES-%u-GCM", KMS_MECH_GCM, NO),
    ROW(AES_CBC, AES, CRYPT | WRAPS, CRYPT | WRAPS, KMS_ALG_AES_CBC, KMS_PARAM_IV, NULL,
        "AES-%u-CBC", KMS_MECH_CIPHER, NO),
    ROW(AES_CBC_PAD, AES, CRYPT | WRAPS, CRYPT | WRAPS, KMS_ALG_AES_CBC_PAD, KMS_PARAM_IV, NULL,
        "AES-%u-CBC", KMS_MECH_CIPHER, NO),
    ROW(AES_CTR, AES, CRYPT, CRYPT, KMS_ALG_AES_CTR, KMS_PARAM_CTR, NULL, "AES-%u-CTR",
        KMS_MECH_CIPHER, NO),
    ROW(AES_ECB, AES, CRYPT, 0, NO, KMS_PARAM_NONE, NULL, "AES-%u-ECB", KMS_MECH_CIPHER, NO),
    ROW(AES_CMAC, AES, SIGNS, 0, NO, KMS_PARAM_NONE, NULL, "CMAC", KMS_MECH_CMAC, NO),
    ROW(AES_CMAC_GENERAL, AES, SIGNS, 0, NO, KMS_PARAM_MAC_LEN, NULL, "CMAC", KMS_MECH_CMAC, NO),
    WRAP(AES_KEY_WRAP, "AES-%u-WRAP", KMS_ALG_AES_KEY_WRAP),
    WRAP(AES_KEY_WRAP_PAD, "AES-%u-WRAP-PAD", KMS_ALG_AES_KEY_WRAP_PAD),
    WRAP(AES_KEY_WRAP_KWP, "AES-%u-WRAP-PAD", KMS_ALG_AES_KEY_WRAP_PAD),

    /*
     * ChaCha20-Poly1305, with a token's key alone. To open with the nonce that is told is honest;
     * none encrypts by it: its parameter brings the nonce, in C_EncryptMessage, too, and a service
     * makes its own. CKM_KMSBRIDGE_SEALED does.
     */
    ROW(CHACHA20_POLY1305, CHACHA, 0, CKF_DECRYPT, KMS_ALG_CHACHA20_POLY1305, KMS_PARAM_CHACHA,
        NULL, NULL, KMS_MECH_CHACHA, NO),

    /* MACs and digests */
    HMACS(SHA_1_HMAC, "SHA1", KMS_ALG_HMAC_SHA1),
    HMACS(SHA224_HMAC, "SHA224", KMS_ALG_HMAC_SHA224),
    HMACS(SHA256_HMAC, "SHA256", KMS_ALG_HMAC_SHA256),
    HMACS(SHA384_HMAC, "SHA384", KMS_ALG_HMAC_SHA384),
    HMACS(SHA512_HMAC, "SHA512", KMS_ALG_HMAC_SHA512),
    DIGEST(SHA_1, "SHA1"),
    DIGEST(SHA224, "SHA224"),
    DIGEST(SHA256, "SHA256"),
    DIGEST(SHA384, "SHA384"),
    DIGEST(SHA512, "SHA512"),

    /* RSA */
    ROW(RSA_PKCS, RSA, CRYPT | WRAPS | SIGNS, OPENS | SIGN_1, KMS_ALG_RSA_PKCS1, KMS_PARAM_NONE,
        NULL, NULL, KMS_MECH_RSA_PKCS1, NO),
    ROW(RSA_PKCS_OAEP, RSA, CRYPT | WRAPS, OPENS, KMS_ALG_RSA_OAEP_L_SHA256, KMS_PARAM_OAEP, NULL,
        NULL, KMS_MECH_RSA_OAEP, NO),
    ROW(RSA_PKCS_PSS, RSA, SIGNS, SIGN_1, KMS_ALG_RSA_PSS_SHA256, KMS_PARAM_PSS, NULL, NULL,
        KMS_MECH_RSA_PSS, NO),
    ROW(RSA_X_509, RSA, CRYPT | SIGNS, CKF_DECRYPT | SIGN_1, KMS_ALG_RSA_RAW, KMS_PARAM_NONE, NULL,
        NULL, KMS_MECH_RSA_RAW, NO),
    RSA_SIGNS(SHA1_RSA_PKCS, "SHA1", KMS_ALG_RSA_PSS_SHA1, NO),
    RSA_SIGNS(SHA224_RSA_PKCS, "SHA224", KMS_ALG_RSA_PSS_SHA224, NO),
    RSA_SIGNS(SHA256_RSA_PKCS, "SHA256", KMS_ALG_RSA_PSS_SHA256, KMS_ALG_RSA_PKCS1_SHA256),
    RSA_SIGNS(SHA384_RSA_PKCS, "SHA384", KMS_ALG_RSA_PSS_SHA384, KMS_ALG_RSA_PKCS1_SHA384),
    RSA_SIGNS(SHA512_RSA_PKCS, "SHA512", KMS_ALG_RSA_PSS_SHA512, KMS_ALG_RSA_PKCS1_SHA512),

    /* elliptic curves */
    EC_SIGNS(ECDSA, NULL),
    EC_SIGNS(ECDSA_SHA1, "SHA1"),
    EC_SIGNS(ECDSA_SHA224, "SHA224"),
    EC_SIGNS(ECDSA_SHA256, "SHA256"),
    EC_SIGNS(ECDSA_SHA384, "SHA384"),
    EC_SIGNS(ECDSA_SHA512, "SHA512"),
    ROW(EDDSA, EDDSA, SIGNS | CURVES, SIGN_1, KMS_ALG_EDDSA, KMS_PARAM_EDDSA, NULL, NULL,
        KMS_MECH_EDDSA, NO),

    /* derivation, of session keys only */
    ROW(ECDH1_DERIVE, EC, CKF_DERIVE | CURVES, 0, NO, KMS_PARAM_ECDH, NULL, NULL, KMS_MECH_ECDH,
        NO),
    ROW(ECDH1_COFACTOR_DERIVE, EC, CKF_DERIVE | CURVES, 0, NO, KMS_PARAM_ECDH, NULL, NULL,
        KMS_MECH_ECDH, NO),
    ROW(HKDF_DERIVE, BITS, CKF_DERIVE, 0, NO, KMS_PARAM_HKDF, NULL, "HKDF", KMS_MECH_HKDF, NO),
    ROW(HKDF_DATA, BITS, CKF_DERIVE, 0, NO, KMS_PARAM_HKDF, NULL, "HKDF", KMS_MECH_HKDF, NO),

    /* ours */
    ROW(KMSBRIDGE_SEALED, ANY, 16, 32, 0, CRYPT | WRAPS, KMS_ALG_BEST, KMS_PARAM_SEALED, NULL, NULL,
        KMS_MECH_SEALED, NO),
    ROW(KMSBRIDGE_DATA_KEY_GEN, AES, 0, CKF_GENERATE, KMS_ALG_BEST, KMS_PARAM_DATA_KEY, NULL, NULL,
        KMS_MECH_DATA_KEY, NO),
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

const struct kms_mech *kms_mech_at(size_t index)
{
    return index < ROW_COUNT ? &rows[index] : NULL;
}

const struct kms_mech *kms_mech_find(CK_MECHANISM_TYPE type)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].type == type) {
            return &rows[i];
        }
    }
    return NULL;
}

static bool is_mac_key(CK_KEY_TYPE type)
{
    switch (type) {
    case CKK_GENERIC_SECRET:
    case CKK_SHA_1_HMAC:
    case CKK_SHA224_HMAC:
    case CKK_SHA256_HMAC:
    case CKK_SHA384_HMAC:
    case CKK_SHA512_HMAC:
        return true;
    default:
        return false;
    }
}

bool kms_mech_takes(const struct kms_mech *mech, CK_KEY_TYPE type)
{
    switch (mech->kind) {
    case KMS_MECH_DIGEST:
        return false;
    case KMS_MECH_HMAC:
        return is_mac_key(type);
    case KMS_MECH_HKDF: /* any secret may be a base */
        return is_mac_key(type) || type == CKK_HKDF || type == CKK_AES;
    case KMS_MECH_SEALED:
        return type == CKK_AES || type == CKK_CHACHA20 || type == CKK_KMSBRIDGE_SM4;
    default:
        return mech->key_type == type;
    }
}
