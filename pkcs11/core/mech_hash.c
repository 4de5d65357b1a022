/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes, by every number that PKCS#11 gives them. */
#include <string.h>

#include "pkcs11/core/mech.h"

/* DER DigestInfos up to the digest: RFC 8017 9.2 note 1, SHA-224 by the same pattern (B.1). */
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

#define ROW(hash, type, len, pss, oaep, info)                                                      \
    {                                                                                              \
#hash, type, CKG_MGF1_##hash, CKD_##hash##_KDF, len, pss, oaep,                            \
        {                                                                                          \
            info, sizeof(info)                                                                     \
        }                                                                                          \
    }
static const struct kms_hash rows[] = {
    ROW(SHA1, CKM_SHA_1, 20, KMS_ALG_RSA_PSS_SHA1, KMS_ALG_RSA_OAEP_SHA1, info_sha1),
    ROW(SHA224, CKM_SHA224, 28, KMS_ALG_RSA_PSS_SHA224, KMS_ALG_NONE, info_sha224),
    ROW(SHA256, CKM_SHA256, 32, KMS_ALG_RSA_PSS_SHA256, KMS_ALG_RSA_OAEP_L_SHA256, info_sha256),
    ROW(SHA384, CKM_SHA384, 48, KMS_ALG_RSA_PSS_SHA384, KMS_ALG_RSA_OAEP_L_SHA384, info_sha384),
    ROW(SHA512, CKM_SHA512, 64, KMS_ALG_RSA_PSS_SHA512, KMS_ALG_RSA_OAEP_L_SHA512, info_sha512),
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

const struct kms_hash *kms_hash_at(size_t index)
{
    return index < ROW_COUNT ? &rows[index] : NULL;
}

const struct kms_hash *kms_hash_find(CK_MECHANISM_TYPE type)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].type == type) {
            return &rows[i];
        }
    }
    return NULL;
}

const struct kms_hash *kms_hash_by_mgf(CK_RSA_PKCS_MGF_TYPE mgf)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].mgf == mgf) {
            return &rows[i];
        }
    }
    return NULL;
}

const struct kms_hash *kms_hash_by_kdf(CK_EC_KDF_TYPE kdf)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].kdf == kdf) {
            return &rows[i];
        }
    }
    return NULL;
}

const struct kms_hash *kms_hash_by_name(const char *name)
{
    for (size_t i = 0; i < ROW_COUNT && name != NULL; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}
