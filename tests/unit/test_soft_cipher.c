/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/soft.h"

#include <openssl/evp.h>
#include <string.h>

#include "tests/unit/fake_p11_log.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/unit.h"

#define KEY128 "2b7e151628aed2a6abf7158809cf4f3c"
#define KEY256 "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
#define TEXT                                                                                       \
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"                             \
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
#define IV        "000102030405060708090a0b0c0d0e0f"
#define FIPS_TEXT "00112233445566778899aabbccddeeff"

/* One of the mechanisms of this file, with its parameter. */
struct setup {
    struct bytes iv, aad;
    CK_AES_CTR_PARAMS ctr;
    CK_GCM_PARAMS gcm;
    CK_MECHANISM mechanism;
};

/* @extra: CTR's counter bits, GCM's tag bits */
static void set_up(struct setup *s, CK_MECHANISM_TYPE type, const char *iv, const char *aad,
                   unsigned extra)
{
    memset(s, 0, sizeof(*s));
    s->iv = bytes_hex(iv);
    s->aad = bytes_hex(aad);
    s->mechanism.mechanism = type;
    if (type == CKM_AES_CTR) {
        s->ctr.ulCounterBits = extra;
        memcpy(s->ctr.cb, s->iv.data, sizeof(s->ctr.cb));
        s->mechanism.pParameter = &s->ctr;
        s->mechanism.ulParameterLen = sizeof(s->ctr);
    } else if (type == CKM_AES_GCM) {
        s->gcm = (CK_GCM_PARAMS){.pIv = s->iv.data,
                                 .ulIvLen = s->iv.len,
                                 .ulIvBits = 8 * s->iv.len,
                                 .pAAD = s->aad.len == 0 ? NULL : s->aad.data,
                                 .ulAADLen = s->aad.len,
                                 .ulTagBits = extra};
        s->mechanism.pParameter = &s->gcm;
        s->mechanism.ulParameterLen = sizeof(s->gcm);
    } else if (type != CKM_AES_ECB) {
        s->mechanism.pParameter = s->iv.data;
        s->mechanism.ulParameterLen = s->iv.len;
    }
}

/* FIPS 197 C; NIST SP 800-38A F.2.1, F.2.5, F.5.1, F.5.5; "The Galois/Counter Mode", test cases 1,
 * 2, 4, 5, 6, 13, 16; CBC_PAD from openssl enc. */
static const struct known {
    const char *name;
    CK_MECHANISM_TYPE type;
    const char *key, *iv, *aad;
    unsigned extra;
    const char *plain, *sealed;
} known[] = {
    {"ecb 128", CKM_AES_ECB, "000102030405060708090a0b0c0d0e0f", NULL, NULL, 0, FIPS_TEXT,
     "69c4e0d86a7b0430d8cdb78070b4c55a"},
    {"ecb 192", CKM_AES_ECB, "000102030405060708090a0b0c0d0e0f1011121314151617", NULL, NULL, 0,
     FIPS_TEXT, "dda97ca4864cdfe06eaf70a0ec0d7191"},
    {"ecb 256", CKM_AES_ECB, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     NULL, NULL, 0, FIPS_TEXT, "8ea2b7ca516745bfeafc49904b496089"},
    {"ecb of nothing", CKM_AES_ECB, KEY128, NULL, NULL, 0, "", ""},
    {"cbc 128", CKM_AES_CBC, KEY128, IV, NULL, 0, TEXT,
     "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
     "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"},
    {"cbc 256", CKM_AES_CBC, KEY256, IV, NULL, 0, TEXT,
     "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
     "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
    {"cbc-pad 0", CKM_AES_CBC_PAD, KEY128, IV, NULL, 0, "", "c84af0b613435d5d9182801a9bd9320b"},
    {"cbc-pad 1", CKM_AES_CBC_PAD, KEY128, IV, NULL, 0, "6b", "2a7a633fad54e2146edcef80c59eebc6"},
    {"cbc-pad 16", CKM_AES_CBC_PAD, KEY128, IV, NULL, 0, "6bc1bee22e409f96e93d7e117393172a",
     "7649abac8119b246cee98e9b12e9197d8964e0b149c10b7b682e6e39aaeb731c"},
    {"cbc-pad 35", CKM_AES_CBC_PAD, KEY128, IV, NULL, 0,
     "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c",
     "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2ff877bbf2ed27f334fd65ae6b60b1"
     "13b"},
    {"ctr 128", CKM_AES_CTR, KEY128, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", NULL, 128, TEXT,
     "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
     "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"},
    {"ctr 256, 32 bits count", CKM_AES_CTR, KEY256, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", NULL, 32,
     TEXT,
     "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
     "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"},
    {"ctr of three bytes", CKM_AES_CTR, KEY128, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", NULL, 1,
     "6bc1be", "874d61"},
    {"gcm 1", CKM_AES_GCM, "00000000000000000000000000000000", "000000000000000000000000", NULL,
     128, "", "58e2fccefa7e3061367f1d57a4e7455a"},
    {"gcm 2", CKM_AES_GCM, "00000000000000000000000000000000", "000000000000000000000000", NULL,
     128, "00000000000000000000000000000000",
     "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"},
    {"gcm 4", CKM_AES_GCM, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", 128,
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
     "b525b16aedf5aa0de657ba637b39",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84"
     "aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47"},
    {"gcm 4, tag of 96", CKM_AES_GCM, "feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", 96, "d9313225",
     "42831ec2f2187875f773fe0918bec598"},
    {"gcm 4, tag of 32", CKM_AES_GCM, "feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888", NULL, 32, "d9313225", "42831ec27c781b02"},
    {"gcm 5, iv of 8", CKM_AES_GCM, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbad",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", 128,
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
     "b525b16aedf5aa0de657ba637b39",
     "61353b4c2806934a777ff51fa22a4755699b2a714fcdc6f83766e5f97b6c742373806900e49f24b22b097544d489"
     "6b424989b5e1ebac0f07c23f45983612d2e79e3b0785561be14aaca2fccb"},
    {"gcm 6, iv of 60", CKM_AES_GCM, "feffe9928665731c6d6a8f9467308308",
     "9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728c3c0c95156809539fcf0e2429a6b"
     "525416aedbf5a0de6a57a637b39b",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", 128,
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
     "b525b16aedf5aa0de657ba637b39",
     "8ce24998625615b603a033aca13fb894be9112a5c3a211a8ba262a3cca7e2ca701e4a9a4fba43c90ccdcb281d48c"
     "7c6fd62875d2aca417034c34aee5619cc5aefffe0bfa462af43c1699d050"},
    {"gcm 13, 256", CKM_AES_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
     "000000000000000000000000", NULL, 128, "", "530f8afbc74536b9a963b4f1c4cb738b"},
};

static void known_answers(void)
{
    static struct bytes out;

    for (size_t i = 0; i < UNIT_COUNT(known); i++) {
        const struct known *row = &known[i];
        struct kms_soft_key *key = key_of(CKK_AES, row->key);
        struct bytes plain = bytes_hex(row->plain);
        struct bytes sealed = bytes_hex(row->sealed);
        struct setup s;

        set_up(&s, row->type, row->iv, row->aad, row->extra);
        UNIT_CHECK(row->name, op_once(KMS_SOFT_ENCRYPT, &s.mechanism, key, bytes_span(&plain),
                                      &out) == CKR_OK);
        UNIT_CHECK(row->name, kms_span_equal(bytes_span(&out), bytes_span(&sealed)));
        UNIT_CHECK(row->name, op_once(KMS_SOFT_DECRYPT, &s.mechanism, key, bytes_span(&sealed),
                                      &out) == CKR_OK);
        UNIT_CHECK(row->name, kms_span_equal(bytes_span(&out), bytes_span(&plain)));
        UNIT_CHECK(row->name, splits_agree(KMS_SOFT_ENCRYPT, &s.mechanism, key, bytes_span(&plain),
                                           bytes_span(&sealed)));
        UNIT_CHECK(row->name, splits_agree(KMS_SOFT_DECRYPT, &s.mechanism, key, bytes_span(&sealed),
                                           bytes_span(&plain)));
        kms_soft_key_unref(key);
    }
}

static void refusals(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        enum kms_soft_what what;
        const char *iv;
        unsigned extra;
        const char *in;
        CK_RV rv;
    } rows[] = {
        {"ecb, a byte too many", CKM_AES_ECB, KMS_SOFT_ENCRYPT, NULL, 0, IV "00",
         CKR_DATA_LEN_RANGE},
        {"cbc, half a block", CKM_AES_CBC, KMS_SOFT_ENCRYPT, IV, 0, "0001020304050607",
         CKR_DATA_LEN_RANGE},
        {"cbc, half a block to decrypt", CKM_AES_CBC, KMS_SOFT_DECRYPT, IV, 0, "0001020304050607",
         CKR_ENCRYPTED_DATA_LEN_RANGE},
        {"cbc-pad, nothing to decrypt", CKM_AES_CBC_PAD, KMS_SOFT_DECRYPT, IV, 0, "",
         CKR_ENCRYPTED_DATA_LEN_RANGE},
        {"cbc-pad, no whole block", CKM_AES_CBC_PAD, KMS_SOFT_DECRYPT, IV, 0, IV "00",
         CKR_ENCRYPTED_DATA_LEN_RANGE},
        {"cbc-pad, bad padding", CKM_AES_CBC_PAD, KMS_SOFT_DECRYPT, IV, 0, IV,
         CKR_ENCRYPTED_DATA_INVALID},
        {"gcm, no room for a tag", CKM_AES_GCM, KMS_SOFT_DECRYPT, IV, 128, "000102",
         CKR_ENCRYPTED_DATA_LEN_RANGE},
        {"gcm, bad tag", CKM_AES_GCM, KMS_SOFT_DECRYPT, IV, 128, IV IV, CKR_ENCRYPTED_DATA_INVALID},
        {"ctr, one block of one", CKM_AES_CTR, KMS_SOFT_ENCRYPT, "000000000000000000000000000000ff",
         8, IV, CKR_OK},
        {"ctr, two blocks of one", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "000000000000000000000000000000ff", 8, IV "00", CKR_DATA_LEN_RANGE},
        {"ctr, two of two", CKM_AES_CTR, KMS_SOFT_DECRYPT, "00000000000000000000000000000000", 1,
         IV IV, CKR_OK},
        {"ctr, three of two", CKM_AES_CTR, KMS_SOFT_DECRYPT, "00000000000000000000000000000000", 1,
         IV IV IV, CKR_DATA_LEN_RANGE},
        {"ctr, 64 bits, one left", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "0000000000000000ffffffffffffffff", 64, IV "00", CKR_DATA_LEN_RANGE},
        {"ctr, 65 bits, one left", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "0000000000000001ffffffffffffffff", 65, IV "00", CKR_DATA_LEN_RANGE},
        {"ctr, 65 bits, many left", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "0000000000000002ffffffffffffffff", 65, IV "00", CKR_OK},
        {"ctr, 127 bits, one left", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "7fffffffffffffffffffffffffffffff", 127, IV "00", CKR_DATA_LEN_RANGE},
        {"ctr, 128 bits go round", CKM_AES_CTR, KMS_SOFT_ENCRYPT,
         "ffffffffffffffffffffffffffffffff", 128, IV "00", CKR_OK},
    };
    static struct bytes out;
    struct kms_soft_key *key = key_of(CKK_AES, KEY128);

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct bytes in = bytes_hex(rows[i].in);
        struct setup s;

        set_up(&s, rows[i].type, rows[i].iv, NULL, rows[i].extra);
        UNIT_CHECK(rows[i].name,
                   op_once(rows[i].what, &s.mechanism, key, bytes_span(&in), &out) == rows[i].rv);
        UNIT_CHECK(rows[i].name, op_split(rows[i].what, &s.mechanism, key, bytes_span(&in),
                                          in.len / 2, in.len, &out) == rows[i].rv);
    }
    kms_soft_key_unref(key);
}

/* Nothing of an unauthenticated plaintext stays in the caller's memory. */
static void gcm_wipes_what_it_may_not_give(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, KEY128);
    struct kms_soft_op *op = NULL;
    struct bytes in = bytes_hex(IV IV IV);
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    struct setup s;

    memset(storage, 0, sizeof(storage));
    set_up(&s, CKM_AES_GCM, IV, NULL, 128);
    CU_ASSERT_EQUAL_FATAL(
        kms_soft_op_new(KMS_SOFT_DECRYPT, mech_of(CKM_AES_GCM), &s.mechanism, key, &op), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_once(op, bytes_span(&in), &out), CKR_ENCRYPTED_DATA_INVALID);
    CU_ASSERT_EQUAL(out.len, 0);
    for (size_t i = 0; i < sizeof(storage); i++) {
        CU_ASSERT_EQUAL(storage[i], 0);
    }
    /* and the operation is over */
    CU_ASSERT_EQUAL(kms_soft_op_update(op, bytes_span(&in), &out), CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(kms_soft_op_final(op, &out), CKR_OPERATION_NOT_INITIALIZED);
    kms_soft_op_free(op);
    kms_soft_key_unref(key);
}

/* Updates whose output goes where their input is, at every place to split it. */
static void in_place(void)
{
    static const CK_MECHANISM_TYPE types[] = {CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CBC_PAD,
                                              CKM_AES_CTR, CKM_AES_GCM};
    struct kms_soft_key *key = key_of(CKK_AES, KEY256);
    static uint8_t message[9000];
    static uint8_t plain[9100];
    static uint8_t work[9100];

    for (size_t i = 0; i < sizeof(message); i++) {
        message[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t t = 0; t < UNIT_COUNT(types); t++) {
        for (size_t at = 0; at < 40; at++) {
            struct kms_soft_op *op[2] = {NULL, NULL};
            struct kms_buf expected = KMS_BUF_OVER(plain);
            struct kms_buf first = KMS_BUF_OVER(work);
            struct setup s;
            size_t len = 8992; /* whole blocks */

            set_up(&s, types[t], IV, NULL, 128);
            for (size_t i = 0; i < 2; i++) {
                CU_ASSERT_EQUAL_FATAL(
                    kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(types[t]), &s.mechanism, key, &op[i]),
                    CKR_OK);
            }
            CU_ASSERT_EQUAL(kms_soft_op_once(op[0], kms_span_of(message, len), &expected), CKR_OK);
            CU_ASSERT_EQUAL(kms_soft_op_update(op[1], kms_span_of(message, at), &first), CKR_OK);
            memcpy(work + first.len, message + at, len - at);
            CU_ASSERT_EQUAL(
                kms_soft_op_update(op[1], kms_span_of(work + first.len, len - at), &first), CKR_OK);
            CU_ASSERT_EQUAL(kms_soft_op_final(op[1], &first), CKR_OK);
            UNIT_CHECK(mech_of(types[t])->name,
                       kms_span_equal(kms_buf_span(&first), kms_buf_span(&expected)));
            kms_soft_op_free(op[0]);
            kms_soft_op_free(op[1]);
            /* and back, in one and in two */
            CU_ASSERT_EQUAL_FATAL(
                kms_soft_op_new(KMS_SOFT_DECRYPT, mech_of(types[t]), &s.mechanism, key, &op[0]),
                CKR_OK);
            first = kms_buf_over(work, sizeof(work));
            expected.cap = expected.len;
            CU_ASSERT_EQUAL(kms_soft_op_once(op[0], kms_span_of(work, expected.len), &first),
                            CKR_OK);
            UNIT_CHECK(mech_of(types[t])->name,
                       kms_span_equal(kms_buf_span(&first), kms_span_of(message, len)));
            kms_soft_op_free(op[0]);
        }
    }
    kms_soft_key_unref(key);
}

/* In place decryption in pieces, with a block held from before. */
static void in_place_decryption(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, KEY256);
    static uint8_t message[9000];
    static uint8_t sealed[9100];
    static uint8_t work[9100];

    for (size_t i = 0; i < sizeof(message); i++) {
        message[i] = (uint8_t)(i * 5 + i / 200);
    }
    for (size_t at = 0; at < 70; at++) {
        struct kms_soft_op *op = NULL;
        struct kms_buf all = KMS_BUF_OVER(sealed);
        struct kms_buf out = KMS_BUF_OVER(work);
        struct setup s;

        set_up(&s, CKM_AES_CBC_PAD, IV, NULL, 0);
        CU_ASSERT_EQUAL_FATAL(
            kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC_PAD), &s.mechanism, key, &op),
            CKR_OK);
        CU_ASSERT_EQUAL(kms_soft_op_once(op, kms_span_of(message, sizeof(message)), &all), CKR_OK);
        kms_soft_op_free(op);
        CU_ASSERT_EQUAL_FATAL(
            kms_soft_op_new(KMS_SOFT_DECRYPT, mech_of(CKM_AES_CBC_PAD), &s.mechanism, key, &op),
            CKR_OK);
        CU_ASSERT_EQUAL(kms_soft_op_update(op, kms_span_of(sealed, at), &out), CKR_OK);
        memcpy(work + out.len, sealed + at, all.len - at);
        CU_ASSERT_EQUAL(kms_soft_op_update(op, kms_span_of(work + out.len, all.len - at), &out),
                        CKR_OK);
        CU_ASSERT_EQUAL(kms_soft_op_final(op, &out), CKR_OK);
        CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), kms_span_of(message, sizeof(message))));
        kms_soft_op_free(op);
    }
    kms_soft_key_unref(key);
}

static void buffers_are_respected(void)
{
    static const struct {
        CK_MECHANISM_TYPE type;
        size_t len, cap;
    } rows[] = {{CKM_AES_CBC, 32, 31},
                {CKM_AES_CBC_PAD, 32, 47},
                {CKM_AES_CTR, 5, 4},
                {CKM_AES_GCM, 5, 4},
                {CKM_AES_GCM, 5, 20}};
    struct kms_soft_key *key = key_of(CKK_AES, KEY128);
    const uint8_t in[32] = {0};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_soft_op *op = NULL;
        uint8_t storage[64];
        struct kms_buf out = kms_buf_over(storage, rows[i].cap);
        struct setup s;

        set_up(&s, rows[i].type, IV, NULL, 128);
        CU_ASSERT_EQUAL_FATAL(
            kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(rows[i].type), &s.mechanism, key, &op),
            CKR_OK);
        UNIT_CHECK(mech_of(rows[i].type)->name, kms_soft_op_once(op, kms_span_of(in, rows[i].len),
                                                                 &out) == CKR_BUFFER_TOO_SMALL);
        kms_soft_op_free(op);
    }
    kms_soft_key_unref(key);
}

/* What is gathered has a ceiling; not a byte of what is refused is read. */
static void gathering_is_bounded(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, KEY128);
    struct kms_soft_key *pair = key_made(CKK_EC_EDWARDS, 0, ED25519_OID);
    CK_MECHANISM eddsa = {CKM_EDDSA, NULL, 0};
    const uint8_t byte = 0;
    struct kms_soft_op *op = NULL;
    struct setup s;

    set_up(&s, CKM_AES_GCM, IV, NULL, 128);
    CU_ASSERT_EQUAL_FATAL(
        kms_soft_op_new(KMS_SOFT_DECRYPT, mech_of(CKM_AES_GCM), &s.mechanism, key, &op), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_update(op, kms_span_of(&byte, 1), NULL), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_update(op, kms_span_of(&byte, KMS_SOFT_GATHER_MAX), NULL),
                    CKR_ENCRYPTED_DATA_LEN_RANGE);
    kms_soft_op_free(op);
    CU_ASSERT_EQUAL_FATAL(kms_soft_op_new(KMS_SOFT_SIGN, mech_of(CKM_EDDSA), &eddsa, pair, &op),
                          CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_update(op, kms_span_of(&byte, SIZE_MAX), NULL), CKR_DATA_LEN_RANGE);
    kms_soft_op_free(op);
    kms_soft_key_unref(key);
    kms_soft_key_unref(pair);
}

static void keys_must_fit(void)
{
    struct kms_soft_key *aes = key_of(CKK_AES, KEY128);
    struct kms_soft_key *mac = key_of(CKK_GENERIC_SECRET, KEY128);
    struct kms_soft_op *op = NULL;
    struct setup s;

    set_up(&s, CKM_AES_CBC, IV, NULL, 0);
    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC), &s.mechanism, mac, &op),
                    CKR_KEY_TYPE_INCONSISTENT);
    CU_ASSERT_EQUAL(
        kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC), &s.mechanism, NULL, &op),
        CKR_KEY_HANDLE_INVALID);
    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_SIGN, mech_of(CKM_AES_CBC), &s.mechanism, aes, &op),
                    CKR_MECHANISM_INVALID);
    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC), NULL, aes, &op),
                    CKR_ARGUMENTS_BAD);
    s.mechanism.ulParameterLen = 15;
    fake_p11_log_clear();
    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC), &s.mechanism, aes, &op),
                    CKR_MECHANISM_PARAM_INVALID);
    CU_ASSERT_TRUE(fake_p11_log_says("CKM_AES_CBC: "));
    CU_ASSERT_PTR_NULL(op);
    kms_soft_op_free(NULL);
    kms_soft_key_unref(NULL);
    kms_soft_key_unref(aes);
    kms_soft_key_unref(mac);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"known answers", known_answers},
        {"refusals", refusals},
        {"gcm wipes what it may not give", gcm_wipes_what_it_may_not_give},
        {"in place", in_place},
        {"in place decryption", in_place_decryption},
        {"buffers are respected", buffers_are_respected},
        {"gathering is bounded", gathering_is_bounded},
        {"keys must fit", keys_must_fit},
    };

    return unit_main("test_soft_cipher", tests, UNIT_COUNT(tests));
}
