/* SPDX-License-Identifier: Apache-2.0 */
/* Key wrapping and derivation. */
#include "pkcs11/core/soft.h"

#include <string.h>

#include "tests/unit/fake_p11_log.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/unit.h"

#define KEK128  "000102030405060708090A0B0C0D0E0F"
#define KEK192  KEK128 "1011121314151617"
#define KEK256  KEK192 "18191A1B1C1D1E1F"
#define KEK5649 "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"

/* RFC 3394 4.1 to 4.6, RFC 5649 6 */
static void wraps(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        const char *kek, *key, *wrapped;
    } rows[] = {
        {"4.1", CKM_AES_KEY_WRAP, KEK128, "00112233445566778899AABBCCDDEEFF",
         "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
        {"4.2", CKM_AES_KEY_WRAP, KEK192, "00112233445566778899AABBCCDDEEFF",
         "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"},
        {"4.3", CKM_AES_KEY_WRAP, KEK256, "00112233445566778899AABBCCDDEEFF",
         "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
        {"4.4", CKM_AES_KEY_WRAP, KEK192, "00112233445566778899AABBCCDDEEFF0001020304050607",
         "031D33264E15D33268F24EC260743EDCE1C6C7DDEE725A936BA814915C6762D2"},
        {"4.6", CKM_AES_KEY_WRAP, KEK256,
         "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
         "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
        {"5649, 20 bytes", CKM_AES_KEY_WRAP_KWP, KEK5649,
         "c37b7e6492584340bed12207808941155068f738",
         "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
        {"5649, 7 bytes", CKM_AES_KEY_WRAP_KWP, KEK5649, "466f7250617369",
         "afbeb0f07dfbf5419200f2ccb50bb24f"},
        {"5649 by its old name", CKM_AES_KEY_WRAP_PAD, KEK5649, "466f7250617369",
         "afbeb0f07dfbf5419200f2ccb50bb24f"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_mech *mech = mech_of(rows[i].type);
        struct kms_soft_key *kek = key_of(CKK_AES, rows[i].kek);
        CK_MECHANISM mechanism = {rows[i].type, NULL, 0};
        struct bytes key = bytes_hex(rows[i].key);
        struct bytes wrapped = bytes_hex(rows[i].wrapped);
        uint8_t storage[64];
        struct kms_buf out =
            kms_buf_over(storage, kms_soft_wrap_room(mech, &mechanism, kek, key.len));

        UNIT_CHECK(rows[i].name,
                   kms_soft_wrap(mech, &mechanism, kek, bytes_span(&key), &out) == CKR_OK);
        UNIT_CHECK(rows[i].name, out.len == out.cap);
        UNIT_CHECK(rows[i].name, bytes_are(kms_buf_span(&out), rows[i].wrapped));
        out = KMS_BUF_OVER(storage);
        UNIT_CHECK(rows[i].name,
                   kms_soft_unwrap(mech, &mechanism, kek, bytes_span(&wrapped), &out) == CKR_OK);
        UNIT_CHECK(rows[i].name, bytes_are(kms_buf_span(&out), rows[i].key));
        wrapped.data[3] ^= 1;
        out = KMS_BUF_OVER(storage);
        UNIT_CHECK(rows[i].name, kms_soft_unwrap(mech, &mechanism, kek, bytes_span(&wrapped),
                                                 &out) == CKR_WRAPPED_KEY_INVALID);
        UNIT_CHECK(rows[i].name, out.len == 0);
        UNIT_CHECK(rows[i].name, kms_soft_unwrap(mech, &mechanism, kek,
                                                 kms_span_of(wrapped.data, wrapped.len - 1),
                                                 &out) == CKR_WRAPPED_KEY_LEN_RANGE);
        out.cap = 4;
        UNIT_CHECK(rows[i].name, kms_soft_wrap(mech, &mechanism, kek, bytes_span(&key), &out) ==
                                     CKR_BUFFER_TOO_SMALL);
        kms_soft_key_unref(kek);
    }
}

static void wrap_lengths(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        size_t len;
        CK_RV wrap, unwrap;
    } rows[] = {
        {"nothing", CKM_AES_KEY_WRAP, 0, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
        {"half a block", CKM_AES_KEY_WRAP, 8, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
        {"a block", CKM_AES_KEY_WRAP, 16, CKR_OK, CKR_WRAPPED_KEY_LEN_RANGE},
        {"17", CKM_AES_KEY_WRAP, 17, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
        {"24", CKM_AES_KEY_WRAP, 24, CKR_OK, CKR_WRAPPED_KEY_INVALID},
        {"kwp, nothing", CKM_AES_KEY_WRAP_KWP, 0, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
        {"kwp, 1", CKM_AES_KEY_WRAP_KWP, 1, CKR_OK, CKR_WRAPPED_KEY_LEN_RANGE},
        {"kwp, 8", CKM_AES_KEY_WRAP_KWP, 8, CKR_OK, CKR_WRAPPED_KEY_LEN_RANGE},
        {"kwp, 16", CKM_AES_KEY_WRAP_KWP, 16, CKR_OK, CKR_WRAPPED_KEY_INVALID},
        {"cbc, 15", CKM_AES_CBC, 15, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
        {"cbc-pad, 15", CKM_AES_CBC_PAD, 15, CKR_OK, CKR_WRAPPED_KEY_LEN_RANGE},
        {"cbc-pad, 16", CKM_AES_CBC_PAD, 16, CKR_OK, CKR_WRAPPED_KEY_INVALID},
    };
    struct kms_soft_key *kek = key_of(CKK_AES, KEK256);
    uint8_t iv[16] = {0};
    uint8_t in[64] = {1};
    uint8_t storage[128];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_mech *mech = mech_of(rows[i].type);
        bool cbc = mech->param == KMS_PARAM_IV;
        CK_MECHANISM mechanism = {rows[i].type, cbc ? iv : NULL, cbc ? 16 : 0};
        struct kms_buf out = KMS_BUF_OVER(storage);

        UNIT_CHECK(rows[i].name, kms_soft_wrap(mech, &mechanism, kek, kms_span_of(in, rows[i].len),
                                               &out) == rows[i].wrap);
        out.len = 0;
        UNIT_CHECK(rows[i].name,
                   kms_soft_unwrap(mech, &mechanism, kek, kms_span_of(in, rows[i].len), &out) ==
                       rows[i].unwrap);
    }
    kms_soft_key_unref(kek);
}

/* Every mechanism with CKF_WRAP takes a key there and back, by the room that it said. */
static void all_that_wrap(void)
{
    struct kms_soft_key *aes = key_of(CKK_AES, KEK256);
    struct kms_soft_key *rsa = key_made(CKK_RSA, 2048, NULL);
    uint8_t iv[16] = {0};
    CK_GCM_PARAMS gcm = {.pIv = iv, .ulIvLen = 12, .ulTagBits = 128};
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = CKM_SHA256, .mgf = CKG_MGF1_SHA256, .source = 1};
    const uint8_t key[32] = {5, 6, 7};
    const struct kms_mech *mech;
    size_t count = 0;

    for (size_t i = 0; (mech = kms_mech_at(i)) != NULL; i++) {
        struct kms_soft_key *kek = mech->key_type == CKK_RSA ? rsa : aes;
        CK_MECHANISM mechanism = {mech->type, NULL, 0};
        uint8_t storage[512];
        uint8_t back[512];
        struct kms_buf out;
        struct kms_buf plain = KMS_BUF_OVER(back);

        if ((mech->local & CKF_WRAP) == 0) {
            continue;
        }
        if (mech->param == KMS_PARAM_IV) {
            mechanism = (CK_MECHANISM){mech->type, iv, sizeof(iv)};
        } else if (mech->param == KMS_PARAM_GCM) {
            mechanism = (CK_MECHANISM){mech->type, &gcm, sizeof(gcm)};
        } else if (mech->param == KMS_PARAM_OAEP) {
            mechanism = (CK_MECHANISM){mech->type, &oaep, sizeof(oaep)};
        }
        out = kms_buf_over(storage, kms_soft_wrap_room(mech, &mechanism, kek, sizeof(key)));
        UNIT_CHECK(mech->name, kms_soft_wrap(mech, &mechanism, kek, kms_span_of(key, sizeof(key)),
                                             &out) == CKR_OK);
        UNIT_CHECK(mech->name, out.len == out.cap);
        UNIT_CHECK(mech->name,
                   kms_soft_unwrap(mech, &mechanism, kek, kms_buf_span(&out), &plain) == CKR_OK);
        UNIT_CHECK(mech->name, kms_span_equal(kms_buf_span(&plain), kms_span_of(key, sizeof(key))));
        count++;
    }
    CU_ASSERT_TRUE(count >= 8);
    CU_ASSERT_EQUAL(kms_soft_wrap(mech_of(CKM_AES_CTR), NULL, aes, KMS_SPAN_NONE, NULL),
                    CKR_MECHANISM_INVALID);
    kms_soft_key_unref(aes);
    kms_soft_key_unref(rsa);
}

/* An IV of one's own, and that the other does not open it. */
static void given_iv(void)
{
    struct kms_soft_key *kek = key_of(CKK_AES, KEK128);
    static const CK_MECHANISM_TYPE types[] = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP};
    uint8_t iv[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const uint8_t key[16] = {5};

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        const struct kms_mech *mech = mech_of(types[i]);
        CK_MECHANISM given = {types[i], iv, types[i] == CKM_AES_KEY_WRAP ? 8 : 4};
        CK_MECHANISM usual = {types[i], NULL, 0};
        uint8_t wrapped[64];
        uint8_t plain[64];
        struct kms_buf out = KMS_BUF_OVER(wrapped);
        struct kms_buf back = KMS_BUF_OVER(plain);

        UNIT_CHECK(mech->name,
                   kms_soft_wrap(mech, &given, kek, kms_span_of(key, 16), &out) == CKR_OK);
        UNIT_CHECK(mech->name,
                   kms_soft_unwrap(mech, &given, kek, kms_buf_span(&out), &back) == CKR_OK);
        UNIT_CHECK(mech->name, kms_span_equal(kms_buf_span(&back), kms_span_of(key, 16)));
        UNIT_CHECK(mech->name, kms_soft_unwrap(mech, &usual, kek, kms_buf_span(&out), &back) ==
                                   CKR_WRAPPED_KEY_INVALID);
    }
    kms_soft_key_unref(kek);
}

/* As an operation, in pieces: C_Encrypt with a key wrap. */
static void wrap_in_pieces(void)
{
    struct kms_soft_key *kek = key_of(CKK_AES, KEK5649);
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP_KWP, NULL, 0};
    struct bytes in = bytes_hex("466f7250617369");
    struct bytes out = bytes_hex("afbeb0f07dfbf5419200f2ccb50bb24f");

    CU_ASSERT_TRUE(
        splits_agree(KMS_SOFT_ENCRYPT, &mechanism, kek, bytes_span(&in), bytes_span(&out)));
    CU_ASSERT_TRUE(
        splits_agree(KMS_SOFT_DECRYPT, &mechanism, kek, bytes_span(&out), bytes_span(&in)));
    kms_soft_key_unref(kek);
}

/* ---- derivation --------------------------------------------------------------------------- */

/* RFC 5869 A.1, A.3, A.4 */
static void hkdf(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE hash;
        bool extract, expand;
        const char *ikm, *salt, *info, *out;
    } rows[] = {
        {"A.1", CKM_SHA256, true, true, "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
         "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
        {"A.1, extract", CKM_SHA256, true, false, "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
         "000102030405060708090a0b0c", NULL,
         "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"},
        {"A.1, expand", CKM_SHA256, false, true,
         "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", NULL,
         "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
        {"A.3", CKM_SHA256, true, true, "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", NULL, NULL,
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
        {"A.4", CKM_SHA_1, true, true, "0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
         "f0f1f2f3f4f5f6f7f8f9",
         "085a01ea1b10f36933068b56efa5ad81a4f14b822f5b091568a9cdd4f155fda2c22e422478d305f3f896"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_soft_key *base = key_of(CKK_GENERIC_SECRET, rows[i].ikm);
        struct bytes salt = bytes_hex(rows[i].salt);
        struct bytes info = bytes_hex(rows[i].info);
        struct bytes want = bytes_hex(rows[i].out);
        CK_HKDF_PARAMS params = {
            .bExtract = rows[i].extract ? CK_TRUE : CK_FALSE,
            .bExpand = rows[i].expand ? CK_TRUE : CK_FALSE,
            .prfHashMechanism = rows[i].hash,
            .ulSaltType = salt.len == 0 ? CKF_HKDF_SALT_NULL : CKF_HKDF_SALT_DATA,
            .pSalt = salt.data,
            .ulSaltLen = salt.len,
            .pInfo = info.data,
            .ulInfoLen = info.len,
        };
        CK_MECHANISM mechanism = {CKM_HKDF_DERIVE, &params, sizeof(params)};
        uint8_t storage[64];
        struct kms_buf out = kms_buf_over(storage, want.len);

        UNIT_CHECK(rows[i].name,
                   kms_soft_derive(mech_of(CKM_HKDF_DERIVE), &mechanism, base, &out) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_span_equal(kms_buf_span(&out), bytes_span(&want)));
        UNIT_CHECK(rows[i].name, kms_soft_derive_len(mech_of(CKM_HKDF_DERIVE), &mechanism, base) ==
                                     kms_hash_find(rows[i].hash)->len);
        kms_soft_key_unref(base);
    }
}

static void hkdf_refusals(void)
{
    struct kms_soft_key *base = key_of(CKK_GENERIC_SECRET, "0b0b0b0b0b0b0b0b");
    struct kms_soft_key *rsa = key_made(CKK_RSA, 2048, NULL);
    static uint8_t storage[255 * 32 + 1];
    CK_HKDF_PARAMS params = {
        .bExtract = CK_TRUE, .prfHashMechanism = CKM_SHA256, .ulSaltType = CKF_HKDF_SALT_NULL};
    CK_MECHANISM mechanism = {CKM_HKDF_DERIVE, &params, sizeof(params)};
    const struct kms_mech *mech = mech_of(CKM_HKDF_DERIVE);
    struct kms_buf out = kms_buf_over(storage, 31);

    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_KEY_SIZE_RANGE);
    params.bExpand = CK_TRUE;
    out.cap = 255 * 32;
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_OK);
    out = kms_buf_over(storage, 255 * 32 + 1);
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_KEY_SIZE_RANGE);
    out.cap = 0;
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_KEY_SIZE_RANGE);
    out.cap = 16;
    params.bExtract = CK_FALSE; /* a key shorter than the hash is none to expand */
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_KEY_SIZE_RANGE);
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, rsa, &out), CKR_KEY_TYPE_INCONSISTENT);
    mechanism.ulParameterLen = 3;
    CU_ASSERT_EQUAL(kms_soft_derive(mech, &mechanism, base, &out), CKR_MECHANISM_PARAM_INVALID);
    CU_ASSERT_EQUAL(kms_soft_derive_len(mech, &mechanism, base), 0);
    kms_soft_key_unref(base);
    kms_soft_key_unref(rsa);
}

/* NIST CAVS 14.1, ECC CDH primitive, P-256, count 0 */
#define D  "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534"
#define QX "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287"
#define QY "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac"
#define Z  "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b"

static void ecdh(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        CK_EC_KDF_TYPE kdf;
        const char *shared, *point, *out;
        size_t len;
        CK_RV rv;
    } rows[] = {
        {"all", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "04" QX QY, Z, 32, CKR_OK},
        {"der", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "044104" QX QY, Z, 32, CKR_OK},
        {"compressed", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "02" QX, Z, 32, CKR_OK},
        {"cofactor", CKM_ECDH1_COFACTOR_DERIVE, CKD_NULL, NULL, "04" QX QY, Z, 32, CKR_OK},
        {"its end", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "04" QX QY,
         "ccc5852060561e68040dd7778997bd7b", 16, CKR_OK},
        {"more than there is", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "04" QX QY, "", 33,
         CKR_KEY_SIZE_RANGE},
        {"x9.63 sha1", CKM_ECDH1_DERIVE, CKD_SHA1_KDF, NULL, "04" QX QY,
         "c93cfd15ba4148858a531b99624f93c611bf674f282b52c1", 24, CKR_OK},
        {"x9.63 sha256", CKM_ECDH1_DERIVE, CKD_SHA256_KDF, "0102", "04" QX QY,
         "1a1f151b78aba470b040e660da63a93ffc4466a666b73588ec5d73471d71cd959b26bf81a7adb20568b42932c"
         "05bec10",
         48, CKR_OK},
        {"off the curve", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "04" QX QX, "", 32,
         CKR_MECHANISM_PARAM_INVALID},
        {"infinity", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "00", "", 32, CKR_MECHANISM_PARAM_INVALID},
        {"cut off", CKM_ECDH1_DERIVE, CKD_NULL, NULL, "04" QX, "", 32, CKR_MECHANISM_PARAM_INVALID},
    };
    struct kms_attrs *attrs = kms_attrs_new();
    struct bytes oid = bytes_hex(P256_OID);
    struct bytes d = bytes_hex(D);
    struct kms_soft_key *key = NULL;

    (void)kms_attrs_set(attrs, CKA_EC_PARAMS, oid.data, oid.len);
    (void)kms_attrs_set(attrs, CKA_VALUE, d.data, d.len);
    CU_ASSERT_EQUAL_FATAL(kms_soft_key_import(CKO_PRIVATE_KEY, CKK_EC, attrs, &key), CKR_OK);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct bytes shared = bytes_hex(rows[i].shared);
        struct bytes point = bytes_hex(rows[i].point);
        CK_ECDH1_DERIVE_PARAMS params = {.kdf = rows[i].kdf,
                                         .ulSharedDataLen = shared.len,
                                         .pSharedData = shared.len == 0 ? NULL : shared.data,
                                         .ulPublicDataLen = point.len,
                                         .pPublicData = point.data};
        CK_MECHANISM mechanism = {rows[i].type, &params, sizeof(params)};
        uint8_t storage[64];
        struct kms_buf out = kms_buf_over(storage, rows[i].len);

        UNIT_CHECK(rows[i].name,
                   kms_soft_derive(mech_of(rows[i].type), &mechanism, key, &out) == rows[i].rv);
        UNIT_CHECK(rows[i].name, bytes_are(kms_buf_span(&out), rows[i].out));
        if (strcmp(rows[i].name, "all") == 0) {
            CU_ASSERT_EQUAL(kms_soft_derive_len(mech_of(rows[i].type), &mechanism, key), 32);
        }
        if (strcmp(rows[i].name, "x9.63 sha1") == 0) {
            CU_ASSERT_EQUAL(kms_soft_derive_len(mech_of(rows[i].type), &mechanism, key), 20);
        }
    }
    kms_soft_key_unref(key);
    kms_attrs_free(attrs);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"wraps", wraps},
        {"wrap lengths", wrap_lengths},
        {"all that wrap", all_that_wrap},
        {"given IV", given_iv},
        {"wrap in pieces", wrap_in_pieces},
        {"HKDF", hkdf},
        {"HKDF refusals", hkdf_refusals},
        {"ECDH", ecdh},
    };

    return unit_main("test_soft_wrap", tests, UNIT_COUNT(tests));
}
