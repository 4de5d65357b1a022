/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/mech.h"

#include <string.h>

#include "tests/unit/fake_p11_log.h"
#include "tests/unit/unit.h"

/* ---- the table ---------------------------------------------------------------------------- */

static void rows_make_sense(void)
{
    const struct kms_mech *mech;
    size_t count = 0;

    for (; (mech = kms_mech_at(count)) != NULL; count++) {
        UNIT_CHECK(mech->name, kms_mech_find(mech->type) == mech); /* no type twice */
        UNIT_CHECK(mech->name, strncmp(mech->name, "CKM_", 4) == 0);
        UNIT_CHECK(mech->name, (mech->local | mech->remote) != 0);
        UNIT_CHECK(mech->name, mech->min <= mech->max);
        UNIT_CHECK(mech->name, mech->hash == NULL || kms_hash_by_name(mech->hash) != NULL);
        UNIT_CHECK(mech->name,
                   mech->alg == KMS_ALG_NONE || strcmp(kms_alg_name(mech->alg), "unknown") != 0);
        UNIT_CHECK(mech->name, mech->remote == 0 || mech->alg != KMS_ALG_NONE ||
                                   (mech->remote & (CKF_GENERATE | CKF_GENERATE_KEY_PAIR)) != 0);
        UNIT_CHECK(mech->name, mech->whole == KMS_ALG_NONE || mech->hash != NULL);
    }
    CU_ASSERT_TRUE(count > 50);
    CU_ASSERT_PTR_NULL(kms_mech_find(0x7fffffff));
    CU_ASSERT_PTR_NULL(kms_mech_at(count + 1));
}

static void hashes(void)
{
    const struct kms_hash *hash;

    for (size_t i = 0; (hash = kms_hash_at(i)) != NULL; i++) {
        UNIT_CHECK(hash->name, kms_hash_find(hash->type) == hash);
        UNIT_CHECK(hash->name, kms_hash_by_mgf(hash->mgf) == hash);
        UNIT_CHECK(hash->name, kms_hash_by_kdf(hash->kdf) == hash);
        UNIT_CHECK(hash->name, kms_hash_by_name(hash->name) == hash);
        /* DER: the outer length is what follows it, the last byte the digest's length */
        UNIT_CHECK(hash->name, hash->info.data[1] == hash->info.len - 2 + hash->len);
        UNIT_CHECK(hash->name, hash->info.data[hash->info.len - 1] == hash->len);
    }
    CU_ASSERT_PTR_NULL(kms_hash_find(CKM_MD5));
    CU_ASSERT_PTR_NULL(kms_hash_by_mgf(0));
    CU_ASSERT_PTR_NULL(kms_hash_by_kdf(CKD_NULL));
    CU_ASSERT_PTR_NULL(kms_hash_by_name(NULL));
    CU_ASSERT_PTR_NULL(kms_hash_by_name("MD5"));
}

static void takes(void)
{
    static const struct {
        CK_MECHANISM_TYPE mechanism;
        CK_KEY_TYPE key;
        bool takes;
    } rows[] = {
        {CKM_AES_GCM, CKK_AES, true},
        {CKM_AES_GCM, CKK_GENERIC_SECRET, false},
        {CKM_SHA256_HMAC, CKK_GENERIC_SECRET, true},
        {CKM_SHA256_HMAC, CKK_SHA256_HMAC, true},
        {CKM_SHA256_HMAC, CKK_AES, false},
        {CKM_SHA256, CKK_AES, false},
        {CKM_HKDF_DERIVE, CKK_HKDF, true},
        {CKM_HKDF_DERIVE, CKK_AES, true},
        {CKM_HKDF_DERIVE, CKK_RSA, false},
        {CKM_ECDSA, CKK_EC, true},
        {CKM_EDDSA, CKK_EC, false},
        {CKM_KMSBRIDGE_SEALED, CKK_AES, true},
        {CKM_KMSBRIDGE_SEALED, CKK_CHACHA20, true},
        {CKM_KMSBRIDGE_SEALED, CKK_VENDOR_DEFINED, true},
        {CKM_KMSBRIDGE_SEALED, CKK_GENERIC_SECRET, false},
        {CKM_AES_GCM, CKK_VENDOR_DEFINED, false},
        {CKM_HKDF_DERIVE, CKK_VENDOR_DEFINED, false},
        {CKM_SHA256_HMAC, CKK_VENDOR_DEFINED, false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_mech *mech = kms_mech_find(rows[i].mechanism);

        UNIT_CHECK(mech->name, kms_mech_takes(mech, rows[i].key) == rows[i].takes);
    }
}

#define CRYPTS (KMS_USE_ENCRYPT | KMS_USE_DECRYPT)

/* ---- lists -------------------------------------------------------------------------------- */

static bool listed(const struct kms_slot *slot, CK_MECHANISM_TYPE type)
{
    CK_MECHANISM_TYPE list[256];
    CK_ULONG count = UNIT_COUNT(list);

    CU_ASSERT_EQUAL_FATAL(kms_mech_list(slot, list, &count), CKR_OK);
    for (CK_ULONG i = 0; i < count; i++) {
        if (list[i] == type) {
            return true;
        }
    }
    return false;
}

/* What makes keys is listed where the token makes such keys, and no session key is made by ours. */
static void sm4_keys_are_made_by_who_has_them(void)
{
    static struct kms_slot slot;
    CK_MECHANISM_INFO info;

    memset(&slot, 0, sizeof(slot));
    slot.token.info.generates = ~0u & ~(1u << KMS_KEY_SM4);
    CU_ASSERT_FALSE(listed(&slot, CKM_KMSBRIDGE_SM4_KEY_GEN));
    slot.token.info.generates = 1u << KMS_KEY_SM4;
    kms_alg_set_add(&slot.token.info.algs, KMS_ALG_SEALED);
    CU_ASSERT_TRUE(listed(&slot, CKM_KMSBRIDGE_SM4_KEY_GEN));
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_KMSBRIDGE_SM4_KEY_GEN, &info), CKR_OK);
    CU_ASSERT(info.ulMinKeySize == 16 && info.ulMaxKeySize == 16 && info.flags == CKF_GENERATE);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_KMSBRIDGE_SEALED, &info), CKR_OK);
    CU_ASSERT(info.ulMinKeySize == 16 && info.ulMaxKeySize == 32);
    CU_ASSERT_EQUAL(info.flags, CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_AES_KEY_GEN, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags, CKF_GENERATE); /* here, of session keys */
}

static void lists_follow_the_token(void)
{
    static struct kms_slot slot;
    CK_MECHANISM_TYPE list[256];
    CK_MECHANISM_INFO info;
    CK_ULONG count = 0;
    CK_ULONG few = 3;

    memset(&slot, 0, sizeof(slot));
    CU_ASSERT_TRUE(listed(&slot, CKM_AES_GCM));
    CU_ASSERT_FALSE(listed(&slot, CKM_KMSBRIDGE_SEALED));
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_KMSBRIDGE_SEALED, &info), CKR_MECHANISM_INVALID);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, 0x7fffffff, &info), CKR_MECHANISM_INVALID);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_AES_GCM, NULL), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_AES_GCM, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.ulMinKeySize, 16);
    CU_ASSERT_EQUAL(info.ulMaxKeySize, 32);
    CU_ASSERT_EQUAL(info.flags & (CKF_HW | CKF_ENCRYPT | CKF_MESSAGE_DECRYPT),
                    CKF_ENCRYPT | CKF_MESSAGE_DECRYPT);

    CU_ASSERT_EQUAL(kms_mech_list(&slot, NULL, &count), CKR_OK);
    CU_ASSERT_TRUE(count > 50);
    CU_ASSERT_EQUAL(kms_mech_list(&slot, NULL, NULL), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(kms_mech_list(&slot, list, &few), CKR_BUFFER_TOO_SMALL);
    CU_ASSERT_EQUAL(few, count);

    kms_alg_set_add(&slot.token.info.algs, KMS_ALG_BEST);
    kms_alg_set_add(&slot.token.info.algs, KMS_ALG_AES_GCM);
    kms_alg_set_add(&slot.token.info.algs, KMS_ALG_RSA_PSS_SHA384);
    slot.token.info.generates = 1u << KMS_KEY_RSA;
    slot.token.info.hardware = true;
    CU_ASSERT_TRUE(listed(&slot, CKM_KMSBRIDGE_SEALED));
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_AES_GCM, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags & CKF_HW, CKF_HW);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_AES_CBC, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags & CKF_HW, 0);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_RSA_PKCS_PSS, &info), CKR_OK); /* by its SHA-384 */
    CU_ASSERT_EQUAL(info.flags & CKF_HW, CKF_HW);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_SHA256_RSA_PKCS_PSS, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags & CKF_HW, 0);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_RSA_PKCS_KEY_PAIR_GEN, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags, CKF_GENERATE_KEY_PAIR | CKF_HW);
    CU_ASSERT_EQUAL(kms_mech_info(&slot, CKM_EC_KEY_PAIR_GEN, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.flags & CKF_HW, 0);
}

static void allowed(void)
{
    static const struct {
        const char *name;
        enum kms_alg algs[3];
        enum kms_key_type type;
        unsigned uses;
        CK_MECHANISM_TYPE expected[8];
        size_t count;
    } rows[] = {
        {"nothing", {KMS_ALG_NONE}, KMS_KEY_AES, KMS_USE_ENCRYPT, {0}, 0},
        {"gcm",
         {KMS_ALG_AES_GCM},
         KMS_KEY_AES,
         KMS_USE_ENCRYPT,
         {CKM_AES_GCM, CKM_KMSBRIDGE_SEALED},
         2},
        {"chacha20-poly1305 to open",
         {KMS_ALG_CHACHA20_POLY1305},
         KMS_KEY_CHACHA20,
         KMS_USE_DECRYPT,
         {CKM_CHACHA20_POLY1305, CKM_KMSBRIDGE_SEALED},
         2},
        {"... to seal: by no standard way",
         {KMS_ALG_CHACHA20_POLY1305},
         KMS_KEY_CHACHA20,
         KMS_USE_ENCRYPT,
         {CKM_KMSBRIDGE_SEALED},
         1},
        {"gcm without a use", {KMS_ALG_AES_GCM}, KMS_KEY_AES, KMS_USE_SIGN, {0}, 0},
        {"wrap", {KMS_ALG_AES_KEY_WRAP}, KMS_KEY_AES, KMS_USE_UNWRAP, {CKM_AES_KEY_WRAP}, 1},
        {"padded wrap",
         {KMS_ALG_AES_KEY_WRAP_PAD},
         KMS_KEY_AES,
         KMS_USE_WRAP,
         {CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_KWP},
         2},
        {"sealed", {KMS_ALG_BEST}, KMS_KEY_AES, KMS_USE_DECRYPT, {CKM_KMSBRIDGE_SEALED}, 1},
        {"sealed by the service", {KMS_ALG_SEALED}, KMS_KEY_AES, CRYPTS, {CKM_KMSBRIDGE_SEALED}, 1},
        {"sm4", {KMS_ALG_SEALED}, KMS_KEY_SM4, CRYPTS, {CKM_KMSBRIDGE_SEALED}, 1},
        {"sm4 to wrap", {KMS_ALG_SEALED}, KMS_KEY_SM4, KMS_USE_WRAP, {CKM_KMSBRIDGE_SEALED}, 1},
        {"sm4 to sign", {KMS_ALG_SEALED}, KMS_KEY_SM4, KMS_USE_SIGN, {0}, 0},
        {"hmac", {KMS_ALG_HMAC_SHA256}, KMS_KEY_GENERIC, KMS_USE_VERIFY, {CKM_SHA256_HMAC}, 1},
        {"oaep by another hash",
         {KMS_ALG_RSA_OAEP_SHA1},
         KMS_KEY_RSA,
         KMS_USE_DECRYPT,
         {CKM_RSA_PKCS_OAEP},
         1},
        {"pkcs1 to decrypt", {KMS_ALG_RSA_PKCS1}, KMS_KEY_RSA, KMS_USE_DECRYPT, {CKM_RSA_PKCS}, 1},
        {"pkcs1 to sign",
         {KMS_ALG_RSA_PKCS1},
         KMS_KEY_RSA,
         KMS_USE_SIGN,
         {CKM_RSA_PKCS, CKM_SHA1_RSA_PKCS, CKM_SHA224_RSA_PKCS, CKM_SHA256_RSA_PKCS,
          CKM_SHA384_RSA_PKCS, CKM_SHA512_RSA_PKCS},
         6},
        {"pkcs1 of whole messages",
         {KMS_ALG_RSA_PKCS1_SHA384},
         KMS_KEY_RSA,
         KMS_USE_SIGN,
         {CKM_SHA384_RSA_PKCS},
         1},
        {"pkcs1 of SHA-256 alone",
         {KMS_ALG_RSA_PKCS1, KMS_ALG_RSA_PSS_SHA256, KMS_ALG_SHA256_ALONE},
         KMS_KEY_RSA,
         KMS_USE_SIGN,
         {CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_SHA256_RSA_PKCS_PSS},
         4},
        {"ecdsa of SHA-256 alone",
         {KMS_ALG_ECDSA, KMS_ALG_SHA256_ALONE},
         KMS_KEY_EC,
         KMS_USE_SIGN,
         {CKM_ECDSA, CKM_ECDSA_SHA256},
         2},
        {"pss",
         {KMS_ALG_RSA_PSS_SHA512},
         KMS_KEY_RSA,
         KMS_USE_SIGN,
         {CKM_RSA_PKCS_PSS, CKM_SHA512_RSA_PKCS_PSS},
         2},
        {"ecdsa",
         {KMS_ALG_ECDSA},
         KMS_KEY_EC,
         KMS_USE_SIGN,
         {CKM_ECDSA, CKM_ECDSA_SHA1, CKM_ECDSA_SHA224, CKM_ECDSA_SHA256, CKM_ECDSA_SHA384,
          CKM_ECDSA_SHA512},
         6},
        {"eddsa", {KMS_ALG_EDDSA}, KMS_KEY_EDDSA, KMS_USE_SIGN, {CKM_EDDSA}, 1},
        {"the public use alone", {KMS_ALG_ECDSA}, KMS_KEY_EC, KMS_USE_VERIFY, {0}, 0},
        {"no such type", {KMS_ALG_AES_GCM}, KMS_KEY_TYPE_COUNT, KMS_USE_ENCRYPT, {0}, 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_alg_set algs = {{0, 0}};
        CK_MECHANISM_TYPE got[64];
        size_t count = 0;

        for (size_t a = 0; a < 3 && rows[i].algs[a] != KMS_ALG_NONE; a++) {
            kms_alg_set_add(&algs, rows[i].algs[a]);
        }
        count = kms_mech_allowed(&algs, rows[i].type, rows[i].uses, got, UNIT_COUNT(got));
        UNIT_CHECK(rows[i].name, count == rows[i].count);
        for (size_t at = 0; at < rows[i].count; at++) {
            bool found = false;

            for (size_t g = 0; g < count; g++) {
                found = found || got[g] == rows[i].expected[at];
            }
            UNIT_CHECK(rows[i].name, found);
        }
        UNIT_CHECK(rows[i].name, kms_mech_allowed(&algs, rows[i].type, rows[i].uses, got, 0) == 0);
    }
}

/* ---- parameters --------------------------------------------------------------------------- */

static uint8_t bytes[8192];
static CK_AES_CTR_PARAMS ctr_0 = {.ulCounterBits = 0};
static CK_AES_CTR_PARAMS ctr_128 = {.ulCounterBits = 128};
static CK_AES_CTR_PARAMS ctr_129 = {.ulCounterBits = 129};
#define GCM(name, iv, iv_size, aad, aad_size, tag)                                                 \
    static CK_GCM_PARAMS name = {                                                                  \
        .pIv = iv, .ulIvLen = iv_size, .pAAD = aad, .ulAADLen = aad_size, .ulTagBits = tag}
GCM(gcm_good, bytes, 12, NULL, 0, 128);
GCM(gcm_iv_null, NULL, 12, NULL, 0, 128);
GCM(gcm_iv_0, bytes, 0, NULL, 0, 128);
GCM(gcm_iv_128, bytes, 128, NULL, 0, 128);
GCM(gcm_iv_129, bytes, 129, NULL, 0, 128);
GCM(gcm_iv_huge, bytes, (CK_ULONG)-1, NULL, 0, 128);
GCM(gcm_aad_null, bytes, 12, NULL, 1, 128);
GCM(gcm_aad_huge, bytes, 12, bytes, (CK_ULONG)-1, 128);
GCM(gcm_tag_0, bytes, 12, NULL, 0, 0);
GCM(gcm_tag_8, bytes, 12, NULL, 0, 8);
GCM(gcm_tag_32, bytes, 12, NULL, 0, 32);
GCM(gcm_tag_97, bytes, 12, NULL, 0, 97);
GCM(gcm_tag_136, bytes, 12, NULL, 0, 136);
static struct {
    void *iv;
    CK_ULONG iv_size;
    void *aad;
    CK_ULONG aad_size, tag;
} gcm_short = {bytes, 12, NULL, 0, 96};
#define OAEP(name, hash, mask, from, label, size)                                                  \
    static CK_RSA_PKCS_OAEP_PARAMS name = {.hashAlg = hash,                                        \
                                           .mgf = mask,                                            \
                                           .source = from,                                         \
                                           .pSourceData = label,                                   \
                                           .ulSourceDataLen = size}
OAEP(oaep_good, CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, bytes, 5);
OAEP(oaep_no_source, CKM_SHA_1, CKG_MGF1_SHA1, 0, NULL, 0);
OAEP(oaep_mixed, CKM_SHA256, CKG_MGF1_SHA1, 1, NULL, 0);
OAEP(oaep_label_0, CKM_SHA256, CKG_MGF1_SHA256, 0, bytes, 5);
OAEP(oaep_label_null, CKM_SHA256, CKG_MGF1_SHA256, 1, NULL, 5);
OAEP(oaep_label_long, CKM_SHA256, CKG_MGF1_SHA256, 1, bytes, 1025);
OAEP(oaep_hash, CKM_MD5, CKG_MGF1_SHA256, 1, NULL, 0);
OAEP(oaep_mgf, CKM_SHA256, 77, 1, NULL, 0);
OAEP(oaep_source, CKM_SHA256, CKG_MGF1_SHA256, 2, NULL, 0);
static CK_RSA_PKCS_PSS_PARAMS pss_256 = {CKM_SHA256, CKG_MGF1_SHA256, 32};
static CK_RSA_PKCS_PSS_PARAMS pss_mixed = {CKM_SHA256, CKG_MGF1_SHA512, 0};
static CK_RSA_PKCS_PSS_PARAMS pss_hash = {CKM_MD5, CKG_MGF1_SHA256, 32};
static CK_RSA_PKCS_PSS_PARAMS pss_mgf = {CKM_SHA256, 0, 32};
static CK_RSA_PKCS_PSS_PARAMS pss_salt = {CKM_SHA256, CKG_MGF1_SHA256, (CK_ULONG)-1};
static CK_EDDSA_PARAMS ed_pure;
static CK_EDDSA_PARAMS ed_ph = {.phFlag = CK_TRUE};
static CK_EDDSA_PARAMS ed_context = {.ulContextDataLen = 1, .pContextData = bytes};
static CK_ULONG mac_0 = 0, mac_1 = 1, mac_16 = 16, mac_17 = 17, mac_32 = 32, mac_33 = 33;
#define ECDH(name, function, size, data, point_size, point)                                        \
    static CK_ECDH1_DERIVE_PARAMS name = {.kdf = function,                                         \
                                          .ulSharedDataLen = size,                                 \
                                          .pSharedData = data,                                     \
                                          .ulPublicDataLen = point_size,                           \
                                          .pPublicData = point}
ECDH(ecdh_good, CKD_NULL, 0, NULL, 65, bytes);
ECDH(ecdh_kdf, CKD_SHA256_KDF, 3, bytes, 65, bytes);
ECDH(ecdh_kdf_bad, 0x99, 0, NULL, 65, bytes);
ECDH(ecdh_shared, CKD_NULL, 3, bytes, 65, bytes);
ECDH(ecdh_shared_null, CKD_SHA1_KDF, 3, NULL, 65, bytes);
ECDH(ecdh_no_point, CKD_NULL, 0, NULL, 0, bytes);
ECDH(ecdh_null_point, CKD_NULL, 0, NULL, 65, NULL);
ECDH(ecdh_huge_point, CKD_NULL, 0, NULL, (CK_ULONG)-1, bytes);
#define HKDF(name, extract, expand, hash, kind, salt, size, info, info_size)                       \
    static CK_HKDF_PARAMS name = {.bExtract = extract,                                             \
                                  .bExpand = expand,                                               \
                                  .prfHashMechanism = hash,                                        \
                                  .ulSaltType = kind,                                              \
                                  .pSalt = salt,                                                   \
                                  .ulSaltLen = size,                                               \
                                  .pInfo = info,                                                   \
                                  .ulInfoLen = info_size}
HKDF(hkdf_good, 1, 1, CKM_SHA256, CKF_HKDF_SALT_DATA, bytes, 4, bytes, 5);
HKDF(hkdf_no_salt, 1, 0, CKM_SHA512, CKF_HKDF_SALT_NULL, NULL, 0, NULL, 0);
HKDF(hkdf_expand, 0, 1, CKM_SHA512, 0, NULL, 0, NULL, 0);
HKDF(hkdf_neither, 0, 0, CKM_SHA512, CKF_HKDF_SALT_NULL, NULL, 0, NULL, 0);
HKDF(hkdf_hash, 1, 1, CKM_AES_GCM, CKF_HKDF_SALT_NULL, NULL, 0, NULL, 0);
HKDF(hkdf_salt_key, 1, 1, CKM_SHA256, CKF_HKDF_SALT_KEY, NULL, 0, NULL, 0);
HKDF(hkdf_salt_null, 1, 1, CKM_SHA256, CKF_HKDF_SALT_DATA, NULL, 4, NULL, 0);
HKDF(hkdf_info_null, 1, 1, CKM_SHA256, CKF_HKDF_SALT_NULL, NULL, 0, NULL, 4);
HKDF(hkdf_info_huge, 1, 1, CKM_SHA256, CKF_HKDF_SALT_NULL, NULL, 0, bytes, 4097);
static CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha_good = {bytes, 12, bytes, 1024};
static CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha_8 = {bytes, 8, NULL, 0};
static CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha_none = {NULL, 12, NULL, 0};
static CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha_null = {bytes, 12, NULL, 1};
static CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha_long = {bytes, 12, bytes, 1025};
static CK_KMSBRIDGE_SEALED_PARAMS sealed_good = {0, bytes, 1024};
static CK_KMSBRIDGE_SEALED_PARAMS sealed_version = {1, NULL, 0};
static CK_KMSBRIDGE_SEALED_PARAMS sealed_null = {0, NULL, 1};
static CK_KMSBRIDGE_SEALED_PARAMS sealed_long = {0, bytes, 1025};

#define OF(name)    &name, sizeof(name)
#define SHORT(name) &name, sizeof(name) - 1

static const struct {
    const char *name;
    CK_MECHANISM_TYPE type;
    void *param;
    CK_ULONG len;
    const char *log; /* NULL: good */
    enum kms_alg alg;
} params[] = {
    {"none", CKM_SHA256, NULL, 0, NULL, KMS_ALG_NONE},
    {"none but a pointer", CKM_SHA256, bytes, 0, NULL, KMS_ALG_NONE},
    {"none but a length", CKM_ECDSA, bytes, 4, "takes no parameter", 0},
    {"none but a length at NULL", CKM_ECDSA, NULL, 4, "takes no parameter", 0},
    {"iv", CKM_AES_CBC, bytes, 16, NULL, KMS_ALG_AES_CBC},
    {"iv of 15", CKM_AES_CBC_PAD, bytes, 15, "IV of 16", 0},
    {"iv at NULL", CKM_AES_CBC, NULL, 16, "IV of 16", 0},
    {"no iv", CKM_AES_CBC, NULL, 0, "IV of 16", 0},
    {"ctr", CKM_AES_CTR, OF(ctr_128), NULL, KMS_ALG_AES_CTR},
    {"ctr of 0 bits", CKM_AES_CTR, OF(ctr_0), "ulCounterBits", 0},
    {"ctr of 129 bits", CKM_AES_CTR, OF(ctr_129), "ulCounterBits", 0},
    {"ctr too short", CKM_AES_CTR, SHORT(ctr_128), "CK_AES_CTR_PARAMS", 0},
    {"ctr at NULL", CKM_AES_CTR, NULL, sizeof(ctr_128), "CK_AES_CTR_PARAMS", 0},
    {"gcm", CKM_AES_GCM, OF(gcm_good), NULL, KMS_ALG_AES_GCM},
    {"gcm, short form", CKM_AES_GCM, OF(gcm_short), NULL, KMS_ALG_AES_GCM},
    {"gcm too short", CKM_AES_GCM, SHORT(gcm_good), "CK_GCM_PARAMS", 0},
    {"gcm at NULL", CKM_AES_GCM, NULL, sizeof(gcm_good), "CK_GCM_PARAMS", 0},
    {"gcm none", CKM_AES_GCM, NULL, 0, "CK_GCM_PARAMS", 0},
    {"gcm iv at NULL", CKM_AES_GCM, OF(gcm_iv_null), "IV", 0},
    {"gcm iv of 0", CKM_AES_GCM, OF(gcm_iv_0), "IV", 0},
    {"gcm iv of 128", CKM_AES_GCM, OF(gcm_iv_128), NULL, KMS_ALG_AES_GCM},
    {"gcm iv of 129", CKM_AES_GCM, OF(gcm_iv_129), "IV", 0},
    {"gcm iv huge", CKM_AES_GCM, OF(gcm_iv_huge), "IV", 0},
    {"gcm aad at NULL", CKM_AES_GCM, OF(gcm_aad_null), "AAD", 0},
    {"gcm aad huge", CKM_AES_GCM, OF(gcm_aad_huge), "AAD", 0},
    {"gcm tag of 0", CKM_AES_GCM, OF(gcm_tag_0), "tag", 0},
    {"gcm tag of 8", CKM_AES_GCM, OF(gcm_tag_8), "tag", 0},
    {"gcm tag of 32", CKM_AES_GCM, OF(gcm_tag_32), NULL, KMS_ALG_AES_GCM},
    {"gcm tag of 97", CKM_AES_GCM, OF(gcm_tag_97), "tag", 0},
    {"gcm tag of 136", CKM_AES_GCM, OF(gcm_tag_136), "tag", 0},
    {"wrap", CKM_AES_KEY_WRAP, NULL, 0, NULL, KMS_ALG_AES_KEY_WRAP},
    {"wrap iv", CKM_AES_KEY_WRAP, bytes, 8, NULL, KMS_ALG_AES_KEY_WRAP},
    {"wrap iv of 4", CKM_AES_KEY_WRAP, bytes, 4, "8 bytes", 0},
    {"kwp iv", CKM_AES_KEY_WRAP_KWP, bytes, 4, NULL, KMS_ALG_AES_KEY_WRAP_PAD},
    {"kwp iv of 8", CKM_AES_KEY_WRAP_PAD, bytes, 8, "4 bytes", 0},
    {"kwp iv at NULL", CKM_AES_KEY_WRAP_PAD, NULL, 4, "4 bytes", 0},
    {"oaep", CKM_RSA_PKCS_OAEP, OF(oaep_good), NULL, KMS_ALG_RSA_OAEP_L_SHA256},
    {"oaep without source", CKM_RSA_PKCS_OAEP, OF(oaep_no_source), NULL, KMS_ALG_RSA_OAEP_SHA1},
    {"oaep mixed", CKM_RSA_PKCS_OAEP, OF(oaep_mixed), NULL, KMS_ALG_NONE},
    {"oaep too short", CKM_RSA_PKCS_OAEP, SHORT(oaep_good), "CK_RSA_PKCS_OAEP_PARAMS", 0},
    {"oaep label without source", CKM_RSA_PKCS_OAEP, OF(oaep_label_0), "source", 0},
    {"oaep label at NULL", CKM_RSA_PKCS_OAEP, OF(oaep_label_null), "label", 0},
    {"oaep label too long", CKM_RSA_PKCS_OAEP, OF(oaep_label_long), "label", 0},
    {"oaep hash", CKM_RSA_PKCS_OAEP, OF(oaep_hash), "hashAlg", 0},
    {"oaep mgf", CKM_RSA_PKCS_OAEP, OF(oaep_mgf), "mgf", 0},
    {"oaep source", CKM_RSA_PKCS_OAEP, OF(oaep_source), "source", 0},
    {"pss", CKM_RSA_PKCS_PSS, OF(pss_256), NULL, KMS_ALG_RSA_PSS_SHA256},
    {"pss hashed", CKM_SHA256_RSA_PKCS_PSS, OF(pss_256), NULL, KMS_ALG_RSA_PSS_SHA256},
    {"pss of another hash", CKM_SHA512_RSA_PKCS_PSS, OF(pss_256), "another hash", 0},
    {"pss mixed", CKM_RSA_PKCS_PSS, OF(pss_mixed), NULL, KMS_ALG_NONE},
    {"pss too short", CKM_RSA_PKCS_PSS, SHORT(pss_256), "CK_RSA_PKCS_PSS_PARAMS", 0},
    {"pss hash", CKM_RSA_PKCS_PSS, OF(pss_hash), "hashAlg", 0},
    {"pss mgf", CKM_RSA_PKCS_PSS, OF(pss_mgf), "mgf", 0},
    {"pss salt", CKM_RSA_PKCS_PSS, OF(pss_salt), "sLen", 0},
    {"eddsa", CKM_EDDSA, NULL, 0, NULL, KMS_ALG_EDDSA},
    {"eddsa pure", CKM_EDDSA, OF(ed_pure), NULL, KMS_ALG_EDDSA},
    {"eddsa prehash", CKM_EDDSA, OF(ed_ph), "pure", 0},
    {"eddsa context", CKM_EDDSA, OF(ed_context), "pure", 0},
    {"eddsa too short", CKM_EDDSA, SHORT(ed_pure), "CK_EDDSA_PARAMS", 0},
    {"mac of 32", CKM_SHA256_HMAC_GENERAL, OF(mac_32), NULL, KMS_ALG_NONE},
    {"mac of 1", CKM_SHA256_HMAC_GENERAL, OF(mac_1), NULL, KMS_ALG_NONE},
    {"mac of 0", CKM_SHA256_HMAC_GENERAL, OF(mac_0), "length", 0},
    {"mac of 33", CKM_SHA256_HMAC_GENERAL, OF(mac_33), "length", 0},
    {"mac too short", CKM_SHA256_HMAC_GENERAL, SHORT(mac_1), "CK_MAC_GENERAL_PARAMS", 0},
    {"cmac of 16", CKM_AES_CMAC_GENERAL, OF(mac_16), NULL, KMS_ALG_NONE},
    {"cmac of 17", CKM_AES_CMAC_GENERAL, OF(mac_17), "length", 0},
    {"ecdh", CKM_ECDH1_DERIVE, OF(ecdh_good), NULL, KMS_ALG_NONE},
    {"ecdh kdf", CKM_ECDH1_COFACTOR_DERIVE, OF(ecdh_kdf), NULL, KMS_ALG_NONE},
    {"ecdh unknown kdf", CKM_ECDH1_DERIVE, OF(ecdh_kdf_bad), "kdf", 0},
    {"ecdh shared without kdf", CKM_ECDH1_DERIVE, OF(ecdh_shared), "shared", 0},
    {"ecdh shared at NULL", CKM_ECDH1_DERIVE, OF(ecdh_shared_null), "shared", 0},
    {"ecdh no point", CKM_ECDH1_DERIVE, OF(ecdh_no_point), "point", 0},
    {"ecdh point at NULL", CKM_ECDH1_DERIVE, OF(ecdh_null_point), "point", 0},
    {"ecdh huge point", CKM_ECDH1_DERIVE, OF(ecdh_huge_point), "point", 0},
    {"ecdh too short", CKM_ECDH1_DERIVE, SHORT(ecdh_good), "CK_ECDH1_DERIVE_PARAMS", 0},
    {"hkdf", CKM_HKDF_DERIVE, OF(hkdf_good), NULL, KMS_ALG_NONE},
    {"hkdf no salt", CKM_HKDF_DATA, OF(hkdf_no_salt), NULL, KMS_ALG_NONE},
    {"hkdf expand", CKM_HKDF_DERIVE, OF(hkdf_expand), NULL, KMS_ALG_NONE},
    {"hkdf neither", CKM_HKDF_DERIVE, OF(hkdf_neither), "neither", 0},
    {"hkdf hash", CKM_HKDF_DERIVE, OF(hkdf_hash), "prfHashMechanism", 0},
    {"hkdf salt a key", CKM_HKDF_DERIVE, OF(hkdf_salt_key), "salt", 0},
    {"hkdf salt at NULL", CKM_HKDF_DERIVE, OF(hkdf_salt_null), "salt", 0},
    {"hkdf info at NULL", CKM_HKDF_DERIVE, OF(hkdf_info_null), "info", 0},
    {"hkdf info too long", CKM_HKDF_DERIVE, OF(hkdf_info_huge), "info", 0},
    {"hkdf too short", CKM_HKDF_DERIVE, SHORT(hkdf_good), "CK_HKDF_PARAMS", 0},
    {"chacha", CKM_CHACHA20_POLY1305, OF(chacha_good), NULL, KMS_ALG_CHACHA20_POLY1305},
    {"chacha with 8 bytes", CKM_CHACHA20_POLY1305, OF(chacha_8), "nonce", 0},
    {"chacha nonce at NULL", CKM_CHACHA20_POLY1305, OF(chacha_none), "nonce", 0},
    {"chacha aad at NULL", CKM_CHACHA20_POLY1305, OF(chacha_null), "AAD", 0},
    {"chacha aad too long", CKM_CHACHA20_POLY1305, OF(chacha_long), "AAD", 0},
    {"chacha too short", CKM_CHACHA20_POLY1305, SHORT(chacha_good), "POLY1305_PARAMS", 0},
    {"sealed", CKM_KMSBRIDGE_SEALED, NULL, 0, NULL, KMS_ALG_BEST},
    {"sealed with aad", CKM_KMSBRIDGE_SEALED, OF(sealed_good), NULL, KMS_ALG_BEST},
    {"sealed version", CKM_KMSBRIDGE_SEALED, OF(sealed_version), "version 0", 0},
    {"sealed aad at NULL", CKM_KMSBRIDGE_SEALED, OF(sealed_null), "AAD", 0},
    {"sealed aad too long", CKM_KMSBRIDGE_SEALED, OF(sealed_long), "AAD", 0},
    {"sealed too short", CKM_KMSBRIDGE_SEALED, SHORT(sealed_good), "version 0", 0},
};

static void parameters(void)
{
    for (size_t i = 0; i < UNIT_COUNT(params); i++) {
        CK_MECHANISM mechanism = {params[i].type, params[i].param, params[i].len};
        const struct kms_mech *mech = kms_mech_find(params[i].type);
        struct kms_params got = {.alg = KMS_ALG_ECDSA};
        CK_RV rv;

        fake_p11_log_clear();
        rv = kms_mech_params(mech, &mechanism, &got);
        if (params[i].log == NULL) {
            UNIT_CHECK(params[i].name, rv == CKR_OK);
            UNIT_CHECK(params[i].name, got.alg == params[i].alg);
        } else {
            UNIT_CHECK(params[i].name, rv == CKR_MECHANISM_PARAM_INVALID);
            UNIT_CHECK(params[i].name, got.alg == KMS_ALG_ECDSA);
            UNIT_CHECK(params[i].name, fake_p11_log_says(mech->name));
            UNIT_CHECK(params[i].name, fake_p11_log_says(params[i].log));
        }
    }
    CU_ASSERT_EQUAL(kms_mech_params(kms_mech_find(CKM_AES_GCM), NULL, NULL), CKR_ARGUMENTS_BAD);
}

/* What they say comes to the waist's terms; also from memory that is not aligned. */
static void parameters_arrive(void)
{
    uint8_t odd[1 + sizeof(CK_GCM_PARAMS)];
    CK_GCM_PARAMS gcm = {
        .pIv = bytes, .ulIvLen = 7, .pAAD = bytes + 9, .ulAADLen = 3, .ulTagBits = 104};
    CK_MECHANISM mechanism = {CKM_AES_GCM, odd + 1, sizeof(gcm)};
    struct kms_params got;

    memcpy(odd + 1, &gcm, sizeof(gcm));
    CU_ASSERT_EQUAL(kms_mech_params(kms_mech_find(CKM_AES_GCM), &mechanism, &got), CKR_OK);
    CU_ASSERT_TRUE(got.iv.data == bytes && got.iv.len == 7);
    CU_ASSERT_TRUE(got.aad.data == bytes + 9 && got.aad.len == 3);
    CU_ASSERT_EQUAL(got.tag_len, 13);

    mechanism = (CK_MECHANISM){CKM_RSA_PKCS_PSS, OF(pss_mixed)};
    CU_ASSERT_EQUAL(kms_mech_params(kms_mech_find(CKM_RSA_PKCS_PSS), &mechanism, &got), CKR_OK);
    CU_ASSERT_TRUE(got.salt_given && got.salt_len == 0);

    mechanism = (CK_MECHANISM){CKM_AES_CTR, OF(ctr_128)};
    CU_ASSERT_EQUAL(kms_mech_params(kms_mech_find(CKM_AES_CTR), &mechanism, &got), CKR_OK);
    CU_ASSERT_TRUE(got.iv.data == ctr_128.cb && got.iv.len == 16 && got.ctr_bits == 128);

    mechanism = (CK_MECHANISM){CKM_SHA512_HMAC_GENERAL, OF(mac_17)};
    CU_ASSERT_EQUAL(kms_mech_mac_len(kms_mech_find(CKM_SHA512_HMAC_GENERAL), &mechanism), 17);
    mechanism = (CK_MECHANISM){CKM_SHA512_HMAC, NULL, 0};
    CU_ASSERT_EQUAL(kms_mech_mac_len(kms_mech_find(CKM_SHA512_HMAC), &mechanism), 64);
    mechanism = (CK_MECHANISM){CKM_AES_CMAC, NULL, 0};
    CU_ASSERT_EQUAL(kms_mech_mac_len(kms_mech_find(CKM_AES_CMAC), &mechanism), 16);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"rows make sense", rows_make_sense},
        {"hashes", hashes},
        {"takes", takes},
        {"lists follow the token", lists_follow_the_token},
        {"SM4 keys are made by who has them", sm4_keys_are_made_by_who_has_them},
        {"allowed", allowed},
        {"parameters", parameters},
        {"parameters arrive", parameters_arrive},
    };

    return unit_main("test_mech", tests, UNIT_COUNT(tests));
}
