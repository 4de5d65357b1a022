/* SPDX-License-Identifier: Apache-2.0 */
/* Transit's key types and algorithms as tables. */
#include <string.h>

#include "backend/vault_parts.h"

#define SEALS  (KMS_USE_ENCRYPT | KMS_USE_WRAP)
#define OPENS  (KMS_USE_DECRYPT | KMS_USE_UNWRAP)
#define SIGNS  KMS_USE_SIGN
#define CHECKS KMS_USE_VERIFY

/* OAEP of Transit has an empty label, always: it cannot carry an AAD, and no RSA key seals. */
static const struct kms_vault_type types[] = {
    {"aes256-gcm96", KMS_KEY_AES, 256, KMS_ALG_AES_GCM, SEALS, OPENS},
    {"aes128-gcm96", KMS_KEY_AES, 128, KMS_ALG_AES_GCM, SEALS, OPENS},
    {"chacha20-poly1305", KMS_KEY_CHACHA20, 256, KMS_ALG_CHACHA20_POLY1305, SEALS, OPENS},
    {"rsa-3072", KMS_KEY_RSA, 3072, KMS_ALG_NONE, SEALS | SIGNS, OPENS | CHECKS},
    {"rsa-2048", KMS_KEY_RSA, 2048, KMS_ALG_NONE, SEALS | SIGNS, OPENS | CHECKS},
    {"rsa-4096", KMS_KEY_RSA, 4096, KMS_ALG_NONE, SEALS | SIGNS, OPENS | CHECKS},
    {"ecdsa-p256", KMS_KEY_EC, 256, KMS_ALG_NONE, SIGNS, CHECKS},
    {"ecdsa-p384", KMS_KEY_EC, 384, KMS_ALG_NONE, SIGNS, CHECKS},
    {"ecdsa-p521", KMS_KEY_EC, 521, KMS_ALG_NONE, SIGNS, CHECKS},
    {"ed25519", KMS_KEY_EDDSA, 256, KMS_ALG_NONE, SIGNS, CHECKS},
    {"hmac", KMS_KEY_GENERIC, 0, KMS_ALG_NONE, SIGNS, CHECKS},
};
#define TYPE_COUNT (sizeof(types) / sizeof(types[0]))

/*
 * Raw PKCS#1 is hash_algorithm "none", prehashed: the input is signed as it is. The PSS rows take a
 * digest and always name the salt's length: Transit's own is the longest that fits.
 */
static const struct kms_vault_sign signs[] = {
    {KMS_ALG_RSA_PKCS1, KMS_KEY_RSA, "none", "pkcs1v15", 0, true},
    {KMS_ALG_RSA_PKCS1_SHA256, KMS_KEY_RSA, "sha2-256", "pkcs1v15", 0, false},
    {KMS_ALG_RSA_PKCS1_SHA384, KMS_KEY_RSA, "sha2-384", "pkcs1v15", 0, false},
    {KMS_ALG_RSA_PKCS1_SHA512, KMS_KEY_RSA, "sha2-512", "pkcs1v15", 0, false},
    {KMS_ALG_RSA_PSS_SHA1, KMS_KEY_RSA, "sha1", "pss", 20, true},
    {KMS_ALG_RSA_PSS_SHA224, KMS_KEY_RSA, "sha2-224", "pss", 28, true},
    {KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, "sha2-256", "pss", 32, true},
    {KMS_ALG_RSA_PSS_SHA384, KMS_KEY_RSA, "sha2-384", "pss", 48, true},
    {KMS_ALG_RSA_PSS_SHA512, KMS_KEY_RSA, "sha2-512", "pss", 64, true},
    {KMS_ALG_ECDSA, KMS_KEY_EC, "sha2-256", NULL, 0,
     true}, /* any digest: the hash is not looked at */
    {KMS_ALG_EDDSA, KMS_KEY_EDDSA, NULL, NULL, 0, false},
    {KMS_ALG_HMAC_SHA1, KMS_KEY_GENERIC, "sha1", NULL, 20, false},
    {KMS_ALG_HMAC_SHA224, KMS_KEY_GENERIC, "sha2-224", NULL, 28, false},
    {KMS_ALG_HMAC_SHA256, KMS_KEY_GENERIC, "sha2-256", NULL, 32, false},
    {KMS_ALG_HMAC_SHA384, KMS_KEY_GENERIC, "sha2-384", NULL, 48, false},
    {KMS_ALG_HMAC_SHA512, KMS_KEY_GENERIC, "sha2-512", NULL, 64, false},
};
#define SIGN_COUNT (sizeof(signs) / sizeof(signs[0]))

const struct kms_vault_type *kms_vault_type_named(const char *name)
{
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

/* The first row of a type is its usual size. */
const struct kms_vault_type *kms_vault_type_for(enum kms_key_type type, unsigned bits)
{
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (types[i].type == type &&
            (bits == 0 || bits == types[i].bits || (type == KMS_KEY_EDDSA && bits == 255) ||
             (types[i].bits == 0 && bits >= 256 && bits <= 4096 && bits % 8 == 0))) {
            return &types[i];
        }
    }
    return NULL;
}

struct kms_alg_set kms_vault_type_algs(const struct kms_vault_type *type)
{
    struct kms_alg_set set = {.bits = {0, 0}};

    if (type->seal != KMS_ALG_NONE) {
        kms_alg_set_add(&set, type->seal);
    }
    if (type->type == KMS_KEY_RSA) {
        kms_alg_set_add(&set, KMS_ALG_RSA_OAEP_L_SHA256);
    }
    for (size_t i = 0; i < SIGN_COUNT; i++) {
        if (signs[i].type == type->type) {
            kms_alg_set_add(&set, signs[i].alg);
        }
    }
    return set;
}

void kms_vault_types_all(struct kms_alg_set *ret_algs, unsigned *ret_generates)
{
    *ret_algs = (struct kms_alg_set){.bits = {0, 0}};
    *ret_generates = 0;
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        struct kms_alg_set set = kms_vault_type_algs(&types[i]);

        ret_algs->bits[0] |= set.bits[0];
        ret_algs->bits[1] |= set.bits[1];
        *ret_generates |= 1u << types[i].type;
    }
}

const struct kms_vault_sign *kms_vault_sign_for(enum kms_alg alg)
{
    for (size_t i = 0; i < SIGN_COUNT; i++) {
        if (signs[i].alg == alg) {
            return &signs[i];
        }
    }
    return NULL;
}
