/* SPDX-License-Identifier: Apache-2.0 */
#include "common/codec.h"

#include <string.h>

#include "tests/unit/unit.h"

struct decode_row {
    const char *name;
    const char *text;
    size_t cap;
    enum kms_status status;
    const char *bytes;
};

static void check_decode(const struct decode_row *row,
                         enum kms_status (*decode)(struct kms_span text, struct kms_buf *out))
{
    uint8_t storage[32] = {'>'};
    struct kms_buf out = {.data = storage, .len = 1, .cap = row->cap + 1}; /* appends */

    UNIT_CHECK(row->name, decode(kms_span_str(row->text), &out) == row->status);
    UNIT_CHECK(row->name, storage[0] == '>');
    if (row->status == KMS_OK) {
        UNIT_CHECK(row->name, out.len == 1 + strlen(row->bytes));
        UNIT_CHECK(row->name, memcmp(storage + 1, row->bytes, strlen(row->bytes)) == 0);
    } else {
        UNIT_CHECK(row->name, out.len == 1);
    }
}

static void hex_decode(void)
{
    static const struct decode_row rows[] = {
        {"empty", "", 0, KMS_OK, ""},
        {"lower", "6b6d73", 3, KMS_OK, "kms"},
        {"upper", "6B6D73", 31, KMS_OK, "kms"},
        {"odd", "6b6", 31, KMS_E_BAD_DATA, NULL},
        {"not hex", "6g", 31, KMS_E_BAD_DATA, NULL},
        {"space", "6b 6d7", 31, KMS_E_BAD_DATA, NULL},
        {"prefix", "0x6b", 31, KMS_E_BAD_DATA, NULL},
        {"no room", "6b6d73", 2, KMS_E_TOO_LARGE, NULL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        check_decode(&rows[i], kms_hex_decode);
    }
}

static void base64_decode(void)
{
    static const struct decode_row rows[] = {
        {"empty", "", 0, KMS_OK, ""},
        {"no padding needed", "a21z", 3, KMS_OK, "kms"},
        {"one byte", "aw==", 1, KMS_OK, "k"},
        {"two bytes", "a20=", 2, KMS_OK, "km"},
        {"padding left out", "a20", 31, KMS_E_BAD_DATA, NULL},
        {"padding too long", "a2==", 31, KMS_E_BAD_DATA, NULL}, /* bits left over are not zero */
        {"padding only", "====", 31, KMS_E_BAD_DATA, NULL},
        {"padding inside", "aw==a21z", 31, KMS_E_BAD_DATA, NULL},
        {"url alphabet", "-_-_", 31, KMS_E_BAD_DATA, NULL},
        {"newline", "a21\n", 31, KMS_E_BAD_DATA, NULL},
        {"no room", "a21z", 2, KMS_E_TOO_LARGE, NULL},
        {"no room but for padding", "a20=", 1, KMS_E_TOO_LARGE, NULL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        check_decode(&rows[i], kms_base64_decode);
    }
}

static void encode(void)
{
    const struct kms_span bytes = kms_span_of("\x00\xff\x10", 3);
    char text[16];

    CU_ASSERT_EQUAL(kms_hex_encode(bytes, text, 7), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "00ff10");
    CU_ASSERT_EQUAL(kms_hex_encode(bytes, text, 6), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_hex_encode(bytes, text, 0), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_hex_encode(KMS_SPAN_NONE, text, 1), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "");
    CU_ASSERT_EQUAL(kms_hex_encode(kms_span_of(text, SIZE_MAX), text, 16), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_base64_encode(bytes, text, 5), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "AP8Q");
    CU_ASSERT_EQUAL(kms_base64_encode(bytes, text, 4), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_base64_encode(bytes, text, 0), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_base64_encode(KMS_SPAN_NONE, text, 1), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "");
    CU_ASSERT_EQUAL(kms_base64_encode(kms_span_of(text, SIZE_MAX), text, 16), KMS_E_TOO_LARGE);
    /* four thirds of it are 2^64, which is 0 to careless arithmetic */
    CU_ASSERT_EQUAL(kms_base64_encode(kms_span_of(text, (size_t)3 << 62), text, 16),
                    KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_base64_encode(kms_span_str("km"), text, sizeof(text)), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "a20=");
}

static void utf8(void)
{
    static const struct {
        const char *name;
        const char *text;
        size_t len;
        bool valid;
    } rows[] = {
        {"empty", "", 0, true},
        {"ascii", "plain", 5, true},
        {"two, three, four bytes", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91", 9, true},
        {"last of all", "\xf4\x8f\xbf\xbf", 4, true},
        {"before the surrogates", "\xed\x9f\xbf", 3, true},
        {"behind the surrogates", "\xee\x80\x80", 3, true},
        {"nul", "a\0b", 3, false},
        {"continuation alone", "\x80", 1, false},
        {"latin-1", "\xe4", 1, false},
        {"overlong slash, two bytes", "\xc0\xaf", 2, false},
        {"overlong, c1", "\xc1\xbf", 2, false},
        {"overlong, three bytes", "\xe0\x80\xaf", 3, false},
        {"overlong, four bytes", "\xf0\x80\x80\xaf", 4, false},
        {"surrogate", "\xed\xa0\x80", 3, false},
        {"above the last", "\xf4\x90\x80\x80", 4, false},
        {"f5", "\xf5\x80\x80\x80", 4, false},
        {"fe ff", "\xfe\xff", 2, false},
        {"cut after one of two", "\xc3", 1, false},
        {"cut after two of three", "\xe2\x82", 2, false},
        {"cut after three of four", "\xf0\x9f\x94", 3, false},
        {"broken third byte", "\xe2\x82\x41", 3, false},
        {"broken fourth byte", "\xf0\x9f\x94\xc0", 4, false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name,
                   kms_utf8_valid(kms_span_of(rows[i].text, rows[i].len)) == rows[i].valid);
    }
    CU_ASSERT_EQUAL(kms_utf8_next(kms_span_str("\xe2\x82\xac!")), 3);
    CU_ASSERT_EQUAL(kms_utf8_next(KMS_SPAN_NONE), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"hex decode", hex_decode},
        {"base64 decode", base64_decode},
        {"encode", encode},
        {"utf8", utf8},
    };

    return unit_main("test_codec", tests, UNIT_COUNT(tests));
}
