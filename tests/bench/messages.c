/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/messages.h"

#include <string.h>

const char *const bench_paths[BENCH_METHODS] = {
    [BENCH_STATUS] = "/v2.KeyManagementService/Status",
    [BENCH_ENCRYPT] = "/v2.KeyManagementService/Encrypt",
    [BENCH_DECRYPT] = "/v2.KeyManagementService/Decrypt",
};

const char *const bench_names[BENCH_METHODS] = {
    [BENCH_STATUS] = "Status",
    [BENCH_ENCRYPT] = "Encrypt",
    [BENCH_DECRYPT] = "Decrypt",
};

/* One length-delimited field; KMS v2 has no other kind. */
struct field {
    unsigned number;
    const uint8_t *bytes;
    size_t len;
};

static bool read_varint(const uint8_t **at, const uint8_t *end, size_t *ret_value)
{
    size_t value = 0;

    for (unsigned shift = 0; *at < end && shift < 35; shift += 7) {
        uint8_t byte = *(*at)++;

        value |= (size_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool read_field(const uint8_t **at, const uint8_t *end, struct field *ret_field)
{
    size_t key = 0;
    size_t len = 0;

    if (!read_varint(at, end, &key) || (key & 7) != 2 || !read_varint(at, end, &len) ||
        len > (size_t)(end - *at)) {
        return false;
    }
    *ret_field = (struct field){(unsigned)(key >> 3), *at, len};
    *at += len;
    return true;
}

static bool add_field(struct bench_message *message, unsigned number, const uint8_t *bytes,
                      size_t len)
{
    uint8_t *at = message->bytes + message->len;

    if (len >= 16384 || message->len + len + 3 > sizeof message->bytes) {
        return false;
    }
    *at++ = (uint8_t)(number << 3 | 2);
    if (len >= 128) {
        *at++ = (uint8_t)(len | 0x80);
        *at++ = (uint8_t)(len >> 7);
    } else {
        *at++ = (uint8_t)len;
    }
    memcpy(at, bytes, len);
    message->len = (size_t)(at - message->bytes) + len;
    return true;
}

void message_encrypt(struct bench_message *message, const uint8_t seed[BENCH_SEED_LEN],
                     const char *uid)
{
    message->len = 0;
    (void)add_field(message, 1, seed, BENCH_SEED_LEN);
    (void)add_field(message, 2, (const uint8_t *)uid, BENCH_UID_LEN);
}

void message_encrypted(struct bench_message *message, const char *ciphertext, size_t len,
                       const char *key_id)
{
    message->len = 0;
    (void)add_field(message, 1, (const uint8_t *)ciphertext, len);
    (void)add_field(message, 2, (const uint8_t *)key_id, strlen(key_id));
}

/* EncryptResponse {ciphertext 1, key_id 2, annotations 3}, DecryptRequest {1, uid 2, 3, 4}. */
bool message_decrypt_from(struct bench_message *message, const uint8_t *reply, size_t len)
{
    static const unsigned to[] = {0, 1, 3, 4};
    const uint8_t *at = reply;
    struct field field;

    message->len = 0;
    while (at < reply + len) {
        if (!read_field(&at, reply + len, &field) || field.number == 0 || field.number > 3 ||
            !add_field(message, to[field.number], field.bytes, field.len)) {
            return false;
        }
    }
    return message->len > 0;
}

void message_add_uid(struct bench_message *message, const char *uid)
{
    (void)add_field(message, 2, (const uint8_t *)uid, BENCH_UID_LEN);
}

static bool is_text(const struct field *field, const char *text)
{
    return field->len == strlen(text) && memcmp(field->bytes, text, field->len) == 0;
}

static bool check_status(const struct field fields[4])
{
    return is_text(&fields[1], "v2") && is_text(&fields[2], "ok") && fields[3].len > 0;
}

static bool check_encrypt(const struct field fields[4])
{
    return fields[1].len > BENCH_SEED_LEN && fields[1].len <= 1024 && fields[2].len > 0;
}

bool message_check(enum bench_method method, const uint8_t *reply, size_t len,
                   const uint8_t seed[BENCH_SEED_LEN])
{
    struct field fields[4] = {{0}};
    struct field field;
    const uint8_t *at = reply;

    while (at < reply + len) {
        if (!read_field(&at, reply + len, &field)) {
            return false;
        }
        if (field.number < 4) {
            fields[field.number] = field;
        }
    }
    switch (method) {
    case BENCH_STATUS:
        return check_status(fields);
    case BENCH_ENCRYPT:
        return check_encrypt(fields);
    case BENCH_DECRYPT:
        return fields[1].len == BENCH_SEED_LEN && memcmp(fields[1].bytes, seed, fields[1].len) == 0;
    case BENCH_METHODS:
        break;
    }
    return false;
}
