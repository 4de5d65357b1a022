/* SPDX-License-Identifier: Apache-2.0 */
#include "common/span.h"

#include <string.h>

#include "tests/unit/unit.h"

static void equal(void)
{
    static const struct {
        const char *name;
        const char *a;
        const char *b;
        bool equal;
    } rows[] = {
        {"same", "abc", "abc", true},   {"both empty", "", "", true},
        {"other", "abc", "abd", false}, {"prefix", "abc", "ab", false},
        {"empty", "", "a", false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name, kms_span_equal(kms_span_str(rows[i].a), kms_span_str(rows[i].b)) ==
                                     rows[i].equal);
    }
    CU_ASSERT_TRUE(kms_span_equal(KMS_SPAN_NONE, kms_span_str("")));
    CU_ASSERT_FALSE(kms_span_equal(KMS_SPAN_NONE, kms_span_str("a")));
}

static void text_equal(void)
{
    char copy[] = "abc";

    CU_ASSERT_TRUE(kms_text_equal("abc", copy));
    CU_ASSERT_TRUE(kms_text_equal(NULL, NULL));
    CU_ASSERT_FALSE(kms_text_equal("abc", "abd"));
    CU_ASSERT_FALSE(kms_text_equal("", NULL));
    CU_ASSERT_FALSE(kms_text_equal(NULL, "a"));
}

static void put_fills_to_the_ceiling(void)
{
    uint8_t storage[6] = {9, 9, 9, 9, 9, 9};
    struct kms_buf buf = kms_buf_over(storage, 5);

    CU_ASSERT_EQUAL(kms_buf_put(&buf, KMS_SPAN_NONE), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, kms_span_str("ab")), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_put_be16(&buf, 0x1234), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_room(&buf), 1);
    CU_ASSERT_EQUAL(kms_buf_put_be16(&buf, 0xffff), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(buf.len, 4);
    CU_ASSERT_EQUAL(storage[4], 9);
    CU_ASSERT_EQUAL(kms_buf_put_u8(&buf, 0x56), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_put_u8(&buf, 0x78), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, kms_span_of(storage, SIZE_MAX)), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, KMS_SPAN_NONE), KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&buf), kms_span_of("ab\x12\x34\x56", 5)));
    CU_ASSERT_EQUAL(storage[5], 9);
}

static void take_empties_to_the_end(void)
{
    struct kms_span span = kms_span_of("ab\x12\x34\x56", 5);
    struct kms_span bytes = KMS_SPAN_NONE;
    uint16_t u16 = 1;
    uint8_t u8 = 1;

    CU_ASSERT_EQUAL(kms_span_take(&span, 2, &bytes), KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(bytes, kms_span_str("ab")));
    CU_ASSERT_EQUAL(kms_span_take(&span, 4, &bytes), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(kms_span_take(&span, SIZE_MAX, &bytes), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(span.len, 3);
    CU_ASSERT_TRUE(kms_span_equal(bytes, kms_span_str("ab")));
    CU_ASSERT_EQUAL(kms_span_take_be16(&span, &u16), KMS_OK);
    CU_ASSERT_EQUAL(u16, 0x1234);
    CU_ASSERT_EQUAL(kms_span_take_be16(&span, &u16), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(u16, 0x1234);
    CU_ASSERT_EQUAL(kms_span_take_u8(&span, &u8), KMS_OK);
    CU_ASSERT_EQUAL(u8, 0x56);
    CU_ASSERT_EQUAL(kms_span_take_u8(&span, &u8), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(kms_span_take(&span, 0, &bytes), KMS_OK);
    CU_ASSERT_EQUAL(bytes.len, 0);
}

static void nothing_may_be_null(void)
{
    struct kms_span span = KMS_SPAN_NONE;
    struct kms_span bytes = kms_span_str("x");
    struct kms_buf buf = kms_buf_over(NULL, 0);

    CU_ASSERT_EQUAL(kms_span_take(&span, 0, &bytes), KMS_OK);
    CU_ASSERT_EQUAL(bytes.len, 0);
    CU_ASSERT_EQUAL(kms_span_take(&span, 1, &bytes), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(kms_buf_put(&buf, KMS_SPAN_NONE), KMS_OK);
    CU_ASSERT_EQUAL(kms_buf_put_u8(&buf, 0), KMS_E_TOO_LARGE);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"equal", equal},
        {"text", text_equal},
        {"put fills to the ceiling", put_fills_to_the_ceiling},
        {"take empties to the end", take_empties_to_the_end},
        {"nothing may be null", nothing_may_be_null},
    };

    return unit_main("test_span", tests, UNIT_COUNT(tests));
}
