/* SPDX-License-Identifier: Apache-2.0 */
#include "common/span.h"

#include <string.h>

struct kms_span kms_span_str(const char *s)
{
    return kms_span_of(s, strlen(s));
}

bool kms_span_equal(struct kms_span a, struct kms_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool kms_text_equal(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

enum kms_status kms_buf_put(struct kms_buf *buf, struct kms_span bytes)
{
    if (bytes.len > kms_buf_room(buf)) {
        return KMS_E_TOO_LARGE;
    }
    if (bytes.len > 0) { /* memcpy() of nothing still may not take NULL */
        memcpy(buf->data + buf->len, bytes.data, bytes.len);
        buf->len += bytes.len;
    }
    return KMS_OK;
}

enum kms_status kms_buf_put_u8(struct kms_buf *buf, uint8_t value)
{
    return kms_buf_put(buf, kms_span_of(&value, sizeof(value)));
}

enum kms_status kms_buf_put_be16(struct kms_buf *buf, uint16_t value)
{
    const uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)(value & 0xff)};

    return kms_buf_put(buf, kms_span_of(bytes, sizeof(bytes)));
}

enum kms_status kms_span_take(struct kms_span *span, size_t len, struct kms_span *ret_bytes)
{
    if (len > span->len) {
        return KMS_E_BAD_DATA;
    }
    *ret_bytes = kms_span_of(span->data, len);
    if (len > 0) {
        *span = kms_span_of(span->data + len, span->len - len);
    }
    return KMS_OK;
}

enum kms_status kms_span_take_u8(struct kms_span *span, uint8_t *ret_value)
{
    struct kms_span bytes;
    enum kms_status status = kms_span_take(span, sizeof(*ret_value), &bytes);

    if (status == KMS_OK) {
        *ret_value = bytes.data[0];
    }
    return status;
}

enum kms_status kms_span_take_be16(struct kms_span *span, uint16_t *ret_value)
{
    struct kms_span bytes;
    enum kms_status status = kms_span_take(span, sizeof(*ret_value), &bytes);

    if (status == KMS_OK) {
        *ret_value = (uint16_t)((unsigned)bytes.data[0] << 8 | bytes.data[1]);
    }
    return status;
}
