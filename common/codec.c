/* SPDX-License-Identifier: Apache-2.0 */
#include "common/codec.h"

#include <sodium.h>

enum kms_status kms_hex_encode(struct kms_span bytes, char *ret_text, size_t size)
{
    /* sodium_bin2hex() aborts the process when the text does not fit */
    if (size == 0 || bytes.len > (size - 1) / 2) {
        return KMS_E_TOO_LARGE;
    }
    (void)sodium_bin2hex(ret_text, size, bytes.data, bytes.len);
    return KMS_OK;
}

enum kms_status kms_hex_decode(struct kms_span text, struct kms_buf *out)
{
    const char *chars = (const char *)text.data;
    size_t len = 0;

    if (text.len == 0) {
        return KMS_OK;
    }
    if (text.len % 2 != 0) {
        return KMS_E_BAD_DATA;
    }
    if (text.len / 2 > kms_buf_room(out)) {
        return KMS_E_TOO_LARGE;
    }
    /* without an end pointer it fails on anything that is not hex */
    if (sodium_hex2bin(out->data + out->len, kms_buf_room(out), chars, text.len, NULL, &len,
                       NULL) != 0) {
        return KMS_E_BAD_DATA;
    }
    out->len += len;
    return KMS_OK;
}

enum kms_status kms_base64_encode(struct kms_span bytes, char *ret_text, size_t size)
{
    /* sodium_bin2base64() aborts too; the division keeps the length's formula from overflowing */
    if (bytes.len / 3 >= size / 4 + 1 ||
        size < sodium_base64_encoded_len(bytes.len, sodium_base64_VARIANT_ORIGINAL)) {
        return KMS_E_TOO_LARGE;
    }
    (void)sodium_bin2base64(ret_text, size, bytes.data, bytes.len, sodium_base64_VARIANT_ORIGINAL);
    return KMS_OK;
}

/* Bytes that well-formed padded base64 of this text holds. */
static size_t base64_decoded_len(struct kms_span text)
{
    size_t len = text.len / 4 * 3;

    for (size_t i = 1; i <= 2 && text.data[text.len - i] == '='; i++) {
        len--;
    }
    return len;
}

enum kms_status kms_base64_decode(struct kms_span text, struct kms_buf *out)
{
    const char *chars = (const char *)text.data;
    size_t len = 0;

    if (text.len == 0) {
        return KMS_OK;
    }
    if (text.len % 4 != 0) {
        return KMS_E_BAD_DATA;
    }
    if (base64_decoded_len(text) > kms_buf_room(out)) {
        return KMS_E_TOO_LARGE;
    }
    if (sodium_base642bin(out->data + out->len, kms_buf_room(out), chars, text.len, NULL, &len,
                          NULL, sodium_base64_VARIANT_ORIGINAL) != 0) {
        return KMS_E_BAD_DATA;
    }
    out->len += len;
    return KMS_OK;
}

/* RFC 3629 section 4, one row per range of the first byte. */
static const struct utf8_row {
    uint8_t first_low;
    uint8_t first_high;
    uint8_t second_low; /* the bytes after the second are 80..BF always */
    uint8_t second_high;
    uint8_t len;
} utf8_rows[] = {
    {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static const struct utf8_row *utf8_row_of(uint8_t first)
{
    for (size_t i = 0; i < sizeof(utf8_rows) / sizeof(utf8_rows[0]); i++) {
        if (first >= utf8_rows[i].first_low && first <= utf8_rows[i].first_high) {
            return &utf8_rows[i];
        }
    }
    return NULL;
}

size_t kms_utf8_next(struct kms_span text)
{
    const struct utf8_row *row = text.len == 0 ? NULL : utf8_row_of(text.data[0]);

    if (row == NULL || row->len > text.len) {
        return 0;
    }
    if (row->len > 1 && (text.data[1] < row->second_low || text.data[1] > row->second_high)) {
        return 0;
    }
    for (size_t i = 2; i < row->len; i++) {
        if ((text.data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return row->len;
}

bool kms_utf8_valid(struct kms_span text)
{
    while (text.len > 0) {
        size_t len = kms_utf8_next(text);

        if (len == 0) {
            return false;
        }
        text = kms_span_of(text.data + len, text.len - len);
    }
    return true;
}
