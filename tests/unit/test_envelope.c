/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/envelope.h"

#include <string.h>

#include "tests/unit/unit.h"

static const uint8_t hint[KMS_KEY_HINT_LEN] = {1, 2, 3, 4, 5, 6, 7, 8};

/* A well-formed AES-GCM envelope of 32 bytes of plaintext. */
static size_t good(uint8_t out[KMS_ENVELOPE_MAX + 16])
{
    struct kms_buf buf = kms_buf_over(out, KMS_ENVELOPE_MAX);
    uint8_t rest[12 + 32 + 16];
    memset(rest, 0xc5, sizeof rest);
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_AES_GCM, 12, hint, &buf), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, kms_span_of(rest, sizeof rest)), KMS_OK);
    return buf.len;
}

static void takes_apart_what_it_made(void)
{
    uint8_t bytes[KMS_ENVELOPE_MAX + 16];
    struct kms_envelope env;
    size_t len = good(bytes);
    CU_ASSERT_EQUAL(len, 76);
    CU_ASSERT_EQUAL(kms_envelope_parse(kms_span_of(bytes, len), &env, NULL), KMS_OK);
    CU_ASSERT_EQUAL(env.alg, KMS_ALG_AES_GCM);
    CU_ASSERT_EQUAL(env.iv.len, 12);
    CU_ASSERT_EQUAL(env.ciphertext.len, 48);
    CU_ASSERT_EQUAL(env.header.len, KMS_ENVELOPE_HEADER);
    CU_ASSERT(kms_span_equal(env.key_hint, kms_span_of(hint, sizeof hint)));
}

/* The bytes of the format, as they are in etcds: this test must never be changed. */
static void format_is_frozen(void)
{
    const uint8_t frozen[KMS_ENVELOPE_HEADER] = {'K', 'M', 'B', 1, 1, 0, 12, 0,
                                                 1,   2,   3,   4, 5, 6, 7,  8};
    uint8_t bytes[KMS_ENVELOPE_MAX + 16];
    good(bytes);
    CU_ASSERT_EQUAL(memcmp(bytes, frozen, sizeof frozen), 0);
    /* SHA-256("kb1-0") begins so (sha256sum) */
    const uint8_t expected[KMS_KEY_HINT_LEN] = {0x3c, 0xb4, 0x00, 0x89, 0x8d, 0x11, 0x52, 0x31};
    uint8_t of_id[KMS_KEY_HINT_LEN];
    CU_ASSERT_EQUAL(kms_envelope_hint(kms_span_str("kb1-0"), of_id), KMS_OK);
    CU_ASSERT_EQUAL(memcmp(of_id, expected, sizeof expected), 0);
}

static void refuses_what_is_not_one(void)
{
    const struct {
        const char *name;
        size_t at;     /* this byte */
        uint8_t value; /* becomes this */
        size_t len;    /* 0: as it is */
        enum kms_status status;
    } rows[] = {
        {"first magic byte", 0, 'k', 0, KMS_E_BAD_DATA},
        {"second magic byte", 1, 0, 0, KMS_E_BAD_DATA},
        {"third magic byte", 2, 0, 0, KMS_E_BAD_DATA},
        {"version 0", 3, 0, 0, KMS_E_BAD_DATA},
        {"version 2", 3, 2, 0, KMS_E_BAD_DATA},
        {"no algorithm", 4, 0, 0, KMS_E_BAD_DATA},
        {"algorithm that cannot seal", 4, KMS_ALG_AES_CTR, 0, KMS_E_BAD_DATA},
        {"best is no algorithm", 4, KMS_ALG_BEST, 0, KMS_E_BAD_DATA},
        {"another algorithm's IV", 4, KMS_ALG_AES_CBC_HMAC, 0, KMS_E_BAD_DATA},
        {"RSA with an IV", 4, KMS_ALG_RSA_OAEP_SHA256, 0, KMS_E_BAD_DATA},
        {"a flag", 5, 1, 0, KMS_E_BAD_DATA},
        {"the highest flag", 5, 0x80, 0, KMS_E_BAD_DATA},
        {"IV of 11", 6, 11, 0, KMS_E_BAD_DATA},
        {"IV of 255", 6, 255, 0, KMS_E_BAD_DATA},
        {"extensions", 7, 1, 0, KMS_E_BAD_DATA},
        {"one byte", 0, 'K', 1, KMS_E_BAD_DATA},
        {"magic only", 0, 'K', 3, KMS_E_BAD_DATA},
        {"header only", 0, 'K', KMS_ENVELOPE_HEADER, KMS_E_BAD_DATA},
        {"half the IV", 0, 'K', KMS_ENVELOPE_HEADER + 6, KMS_E_BAD_DATA},
        {"no ciphertext", 0, 'K', KMS_ENVELOPE_HEADER + 12, KMS_E_BAD_DATA},
        {"tag without ciphertext", 0, 'K', KMS_ENVELOPE_HEADER + 12 + 16, KMS_E_BAD_DATA},
        {"over the limit", 0, 'K', KMS_ENVELOPE_MAX + 1, KMS_E_TOO_LARGE},
    };
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint8_t bytes[KMS_ENVELOPE_MAX + 16] = {0};
        struct kms_envelope env = {.alg = KMS_ALG_NONE};
        struct kms_error err = KMS_ERROR_INIT;
        size_t len = good(bytes);
        bytes[rows[i].at] = rows[i].value;
        len = rows[i].len != 0 ? rows[i].len : len;
        UNIT_CHECK(rows[i].name,
                   kms_envelope_parse(kms_span_of(bytes, len), &env, &err) == rows[i].status);
        UNIT_CHECK(rows[i].name, err.text[0] != '\0');
        UNIT_CHECK(rows[i].name, env.alg == KMS_ALG_NONE); /* nothing written on failure */
    }
    struct kms_envelope env;
    CU_ASSERT_EQUAL(kms_envelope_parse(KMS_SPAN_NONE, &env, NULL), KMS_E_BAD_DATA);
}

static void cbc_is_in_blocks(void)
{
    uint8_t bytes[KMS_ENVELOPE_MAX];
    uint8_t rest[16 + 64 + 32] = {0};
    struct kms_envelope env;
    for (size_t cut = 0; cut < 64; cut++) {
        struct kms_buf buf = KMS_BUF_OVER(bytes);
        CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_AES_CBC_HMAC, 16, hint, &buf), KMS_OK);
        CU_ASSERT_EQUAL(kms_buf_put(&buf, kms_span_of(rest, sizeof rest - cut)), KMS_OK);
        enum kms_status expected = cut % 16 == 0 ? KMS_OK : KMS_E_BAD_DATA;
        CU_ASSERT_EQUAL(kms_envelope_parse(kms_buf_span(&buf), &env, NULL), expected);
    }
}

/* The service's own blob: its bytes unchanged, no IV, nothing of it known here. */
static void a_blob_is_as_it_is(void)
{
    uint8_t bytes[KMS_ENVELOPE_MAX];
    struct kms_buf buf = KMS_BUF_OVER(bytes);
    struct kms_envelope env;
    CU_ASSERT_EQUAL(KMS_ALG_SEALED, 4); /* stored: it never changes */
    CU_ASSERT_EQUAL(kms_envelope_iv_len(KMS_ALG_SEALED), 0);
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_SEALED, 12, hint, &buf), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_SEALED, 0, hint, &buf), KMS_OK);
    CU_ASSERT_EQUAL(kms_envelope_parse(kms_buf_span(&buf), &env, NULL), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, kms_span_str("QUJD")), KMS_OK);
    CU_ASSERT_EQUAL(kms_envelope_parse(kms_buf_span(&buf), &env, NULL), KMS_OK);
    CU_ASSERT(env.alg == KMS_ALG_SEALED && env.iv.len == 0);
    CU_ASSERT(kms_span_equal(env.ciphertext, kms_span_str("QUJD")));
}

static void header_needs_a_sealing_algorithm_and_room(void)
{
    uint8_t bytes[KMS_ENVELOPE_HEADER];
    struct kms_buf buf = KMS_BUF_OVER(bytes);
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_AES_CTR, 16, hint, &buf), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_AES_GCM, 16, hint, &buf), KMS_E_INVALID);
    buf.cap--;
    CU_ASSERT_EQUAL(kms_envelope_header(KMS_ALG_AES_GCM, 12, hint, &buf), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(buf.len, 0);
}

static void aad_is_header_and_key_id(void)
{
    uint8_t storage[8];
    struct kms_buf aad = KMS_BUF_OVER(storage);
    CU_ASSERT_EQUAL(kms_envelope_aad(kms_span_str("head"), kms_span_str("id"), &aad), KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&aad), kms_span_str("headid")));
    CU_ASSERT_EQUAL(kms_envelope_aad(kms_span_str("more"), KMS_SPAN_NONE, &aad), KMS_E_TOO_LARGE);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"takes apart what it made", takes_apart_what_it_made},
        {"format is frozen", format_is_frozen},
        {"refuses what is not one", refuses_what_is_not_one},
        {"CBC is in blocks", cbc_is_in_blocks},
        {"header needs a sealing algorithm and room", header_needs_a_sealing_algorithm_and_room},
        {"a blob is as it is", a_blob_is_as_it_is},
        {"AAD is header and key_id", aad_is_header_and_key_id},
    };
    return unit_main("test_envelope", tests, UNIT_COUNT(tests));
}
