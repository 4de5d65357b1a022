/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte ranges: a span is borrowed bytes in, a buf is bytes out with a ceiling from birth.
 * Neither is locked or shared; lifetimes are the caller's.
 */
#ifndef KMS_COMMON_SPAN_H
#define KMS_COMMON_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct kms_span {
    const uint8_t *data; /* may be NULL when len is 0 */
    size_t len;
};

/* Bytes out. The storage is the caller's; writing past @cap fails and writes nothing. */
struct kms_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

#define KMS_SPAN_NONE       ((struct kms_span){.data = NULL, .len = 0})
#define KMS_BUF_OVER(array) ((struct kms_buf){.data = (array), .len = 0, .cap = sizeof(array)})

static inline struct kms_span kms_span_of(const void *data, size_t len)
{
    return (struct kms_span){.data = data, .len = len};
}

/* The bytes of a C string, without the NUL. */
struct kms_span kms_span_str(const char *s);

/* Same length, same bytes. Not constant time: kms_secret_equal() is. */
bool kms_span_equal(struct kms_span a, struct kms_span b);
/* The same text, or both NULL. Not constant time. */
bool kms_text_equal(const char *a, const char *b);

static inline struct kms_buf kms_buf_over(void *storage, size_t cap)
{
    return (struct kms_buf){.data = storage, .len = 0, .cap = cap};
}

static inline struct kms_span kms_buf_span(const struct kms_buf *buf)
{
    return (struct kms_span){.data = buf->data, .len = buf->len};
}

static inline size_t kms_buf_room(const struct kms_buf *buf)
{
    return buf->cap - buf->len;
}

/* Append; KMS_E_TOO_LARGE and nothing written when it does not fit. */
enum kms_status kms_buf_put(struct kms_buf *buf, struct kms_span bytes) KMS_MUST_CHECK;
enum kms_status kms_buf_put_u8(struct kms_buf *buf, uint8_t value) KMS_MUST_CHECK;
enum kms_status kms_buf_put_be16(struct kms_buf *buf, uint16_t value) KMS_MUST_CHECK;

/* Take from the front of @span; KMS_E_BAD_DATA and nothing taken when there is not enough. */
enum kms_status kms_span_take(struct kms_span *span, size_t len,
                              struct kms_span *ret_bytes) KMS_MUST_CHECK;
enum kms_status kms_span_take_u8(struct kms_span *span, uint8_t *ret_value) KMS_MUST_CHECK;
enum kms_status kms_span_take_be16(struct kms_span *span, uint16_t *ret_value) KMS_MUST_CHECK;

#endif
