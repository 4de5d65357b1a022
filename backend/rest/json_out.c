/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "backend/rest/json.h"
#include "common/codec.h"

static void put(struct kms_json_out *out, struct kms_span bytes)
{
    if (out->status == KMS_OK) {
        out->status = kms_buf_put(out->buf, bytes);
    }
}

static void put_raw(struct kms_json_out *out, const char *text)
{
    put(out, kms_span_str(text));
}

/* RFC 8259 section 7: what must be escaped is. */
static void put_quoted(struct kms_json_out *out, struct kms_span text)
{
    if (!kms_utf8_valid(text)) {
        out->status = out->status == KMS_OK ? KMS_E_INVALID : out->status;
        return;
    }
    put_raw(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        char escaped[8];

        if (text.data[i] == '"' || text.data[i] == '\\') {
            (void)snprintf(escaped, sizeof(escaped), "\\%c", text.data[i]);
            put_raw(out, escaped);
        } else if (text.data[i] < 0x20) {
            (void)snprintf(escaped, sizeof(escaped), "\\u%04x", text.data[i]);
            put_raw(out, escaped);
        } else {
            put(out, kms_span_of(text.data + i, 1));
        }
    }
    put_raw(out, "\"");
}

static void put_key(struct kms_json_out *out, const char *key)
{
    if (out->comma) {
        put_raw(out, ",");
    }
    out->comma = true;
    if (key != NULL) {
        put_quoted(out, kms_span_str(key));
        put_raw(out, ":");
    }
}

static void open_with(struct kms_json_out *out, const char *key, const char *bracket)
{
    put_key(out, key);
    put_raw(out, bracket);
    out->comma = false;
}

static void close_with(struct kms_json_out *out, const char *bracket)
{
    put_raw(out, bracket);
    out->comma = true;
}

void kms_json_begin(struct kms_json_out *out, struct kms_buf *buf)
{
    *out = (struct kms_json_out){.buf = buf, .status = KMS_OK};
    put_raw(out, "{");
}

enum kms_status kms_json_end(struct kms_json_out *out)
{
    put_raw(out, "}");
    return out->status;
}

void kms_json_put_object(struct kms_json_out *out, const char *key)
{
    open_with(out, key, "{");
}

void kms_json_close_object(struct kms_json_out *out)
{
    close_with(out, "}");
}

void kms_json_put_array(struct kms_json_out *out, const char *key)
{
    open_with(out, key, "[");
}

void kms_json_close_array(struct kms_json_out *out)
{
    close_with(out, "]");
}

void kms_json_put_text(struct kms_json_out *out, const char *key, const char *text)
{
    kms_json_put_span(out, key, kms_span_str(text));
}

void kms_json_put_span(struct kms_json_out *out, const char *key, struct kms_span text)
{
    put_key(out, key);
    put_quoted(out, text);
}

/* Straight into the buffer: a copy on the way would be another one to wipe. */
void kms_json_put_base64(struct kms_json_out *out, const char *key, struct kms_span bytes)
{
    size_t len = (bytes.len + 2) / 3 * 4;

    put_key(out, key);
    put_raw(out, "\"");
    if (out->status == KMS_OK) {
        out->status = kms_base64_encode(bytes, (char *)out->buf->data + out->buf->len,
                                        kms_buf_room(out->buf));
        out->buf->len += out->status == KMS_OK ? len : 0; /* the NUL is written over */
    }
    put_raw(out, "\"");
}

void kms_json_put_u64(struct kms_json_out *out, const char *key, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    put_key(out, key);
    put_raw(out, text);
}

void kms_json_put_bool(struct kms_json_out *out, const char *key, bool value)
{
    put_key(out, key);
    put_raw(out, value ? "true" : "false");
}
