/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of CKM_KMSBRIDGE_SEALED, byte for byte as kmsbridge-pkcs11.h has it. */
#include "common/sealed_frame.h"

#include <string.h>

#include "tests/unit/unit.h"

static const uint8_t good[] = "KMSB\x01\x05\x04\x02"
                              "kbv1"
                              "iv"
                              "ciphertext";
#define GOOD_LEN (sizeof(good) - 1)

static void there_and_back(void)
{
    const struct kms_sealed_frame frame = {.alg = 5,
                                           .key_id = kms_span_str("kbv1"),
                                           .iv = kms_span_str("iv"),
                                           .ciphertext = kms_span_str("ciphertext")};
    struct kms_sealed_frame got = {.alg = 0};
    struct kms_error err = KMS_ERROR_INIT;
    uint8_t bytes[64] = {'x'};
    struct kms_buf out = {.data = bytes, .len = 1, .cap = sizeof(bytes)};

    CU_ASSERT_EQUAL(kms_sealed_frame_put(&frame, &out), KMS_OK);
    CU_ASSERT(out.len == 1 + GOOD_LEN && memcmp(bytes + 1, good, GOOD_LEN) == 0);
    CU_ASSERT_TRUE(kms_sealed_frame_is(kms_span_of(good, GOOD_LEN)));
    CU_ASSERT_EQUAL(kms_sealed_frame_take(kms_span_of(good, GOOD_LEN), &got, &err), KMS_OK);
    CU_ASSERT(got.alg == 5 && kms_span_equal(got.key_id, frame.key_id) &&
              kms_span_equal(got.iv, frame.iv) && kms_span_equal(got.ciphertext, frame.ciphertext));
    /* no room: nothing is written that counts */
    for (size_t cap = 1; cap < 1 + GOOD_LEN; cap++) {
        out = (struct kms_buf){.data = bytes, .len = 1, .cap = cap};
        CU_ASSERT_EQUAL(kms_sealed_frame_put(&frame, &out), KMS_E_TOO_LARGE);
        CU_ASSERT_EQUAL(out.len, 1);
    }
}

static void what_fits_no_frame(void)
{
    static const uint8_t many[256];
    static uint8_t bytes[1024];
    const struct kms_sealed_frame frames[] = {
        {.alg = 256},
        {.alg = 1, .key_id = kms_span_of(many, KMS_FRAME_KEY_ID_MAX + 1)},
        {.alg = 1, .iv = kms_span_of(many, KMS_FRAME_IV_MAX + 1)},
    };

    for (size_t i = 0; i < UNIT_COUNT(frames); i++) {
        struct kms_buf out = KMS_BUF_OVER(bytes);

        CU_ASSERT_EQUAL(kms_sealed_frame_put(&frames[i], &out), KMS_E_INVALID);
        CU_ASSERT_EQUAL(out.len, 0);
    }
}

static void what_is_no_frame(void)
{
    static const struct {
        const char *name;
        size_t at; /* the byte that is another */
        uint8_t value;
    } bad[] = {
        {"magic", 3, 'C'},
        {"version", 4, 2},
        {"key id longer than there is", 6, 17},
        {"key id longer than any", 6, KMS_FRAME_KEY_ID_MAX + 1},
        {"IV longer than there is", 7, 13},
        {"IV longer than any", 7, KMS_FRAME_IV_MAX + 1},
    };
    uint8_t bytes[GOOD_LEN];
    struct kms_sealed_frame got = {.alg = 77};
    struct kms_error err = KMS_ERROR_INIT;

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        memcpy(bytes, good, sizeof(bytes));
        bytes[bad[i].at] = bad[i].value;
        kms_error_clear(&err);
        UNIT_CHECK(bad[i].name, kms_sealed_frame_take(kms_span_of(bytes, sizeof(bytes)), &got,
                                                      &err) == KMS_E_BAD_DATA);
        UNIT_CHECK(bad[i].name, got.alg == 77 && err.text[0] != '\0');
    }
    for (size_t len = 0; len < 8 + 4 + 2; len++) {
        UNIT_CHECK("cut",
                   kms_sealed_frame_take(kms_span_of(good, len), &got, NULL) == KMS_E_BAD_DATA);
    }
    CU_ASSERT_FALSE(kms_sealed_frame_is(kms_span_of(good, 3)));
    CU_ASSERT_FALSE(kms_sealed_frame_is(kms_span_str("vault:v1:AAAA")));
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"there and back", there_and_back},
        {"what fits no frame", what_fits_no_frame},
        {"what is no frame", what_is_no_frame},
    };

    return unit_main("test_sealed_frame", tests, UNIT_COUNT(tests));
}
