/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/agent_wire.h"

#include <string.h>

#include "tests/unit/fail_alloc.h"
#include "tests/unit/unit.h"

#define ARENA_MAX ((size_t)1024 * 1024)

static _Alignas(16) uint8_t memory[ARENA_MAX];
static uint8_t bytes[KMS_AGENT_FRAME_MAX + 64];

/* ---- messages by hand ------------------------------------------------------------------------ */

static void put_varint(struct kms_buf *out, uint64_t value)
{
    while (value >= 0x80) {
        CU_ASSERT_EQUAL(kms_buf_put_u8(out, (uint8_t)(value | 0x80)), KMS_OK);
        value >>= 7;
    }
    CU_ASSERT_EQUAL(kms_buf_put_u8(out, (uint8_t)value), KMS_OK);
}

static void put_number(struct kms_buf *out, uint32_t field, uint64_t value)
{
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

static void put_bytes(struct kms_buf *out, uint32_t field, size_t len)
{
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, len);
    if (kms_buf_room(out) < len) {
        CU_FAIL("too long for the test");
        return;
    }
    memset(out->data + out->len, 'x', len);
    out->len += len;
}

static enum kms_status check(const ProtobufCMessageDescriptor *what, const struct kms_buf *body,
                             struct kms_error *err)
{
    size_t need = 0;
    enum kms_status status;

    kms_error_clear(err);
    status = kms_agent_check(what, kms_buf_span(body), &need, err);
    return status;
}

/* What passes the check can be unpacked in just the memory that the check named. */
static void check_fits(const char *row, const ProtobufCMessageDescriptor *what,
                       struct kms_span body)
{
    ProtobufCMessage *message = NULL;
    struct kms_buf arena;
    size_t need = 0;

    if (!UNIT_CHECK(row, kms_agent_check(what, body, &need, NULL) == KMS_OK) ||
        !UNIT_CHECK(row, need > 0 && need <= ARENA_MAX)) {
        return;
    }
    arena = kms_buf_over(memory, need - 1);
    UNIT_CHECK(row, kms_agent_unpack_in(what, body, &arena, &message, NULL) == KMS_E_TOO_LARGE);
    UNIT_CHECK(row, arena.len == 0);
    arena = kms_buf_over(memory, need);
    UNIT_CHECK(row, kms_agent_unpack_in(what, body, &arena, &message, NULL) == KMS_OK);
    UNIT_CHECK(row, arena.len <= need);
    message = NULL;
    UNIT_CHECK(row, kms_agent_unpack(what, body, &message, NULL) == KMS_OK);
    kms_agent_free(message);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

enum kind { NUMBER, BYTES };

#define OF(message) &kms__agent__##message##__descriptor
static const struct {
    const ProtobufCMessageDescriptor *what;
    uint32_t field;
    enum kind kind;
    uint32_t max;
} bounds[] = {
    {OF(hello), 1, NUMBER, UINT32_MAX},
    {OF(hello), 2, BYTES, 64},
    {OF(welcome), 1, NUMBER, UINT32_MAX},
    {OF(welcome), 2, NUMBER, UINT32_MAX},
    {OF(welcome), 3, NUMBER, UINT32_MAX},
    {OF(welcome), 4, BYTES, 16},
    {OF(params), 1, NUMBER, 127},
    {OF(params), 2, BYTES, 1024},
    {OF(params), 3, BYTES, 32},
    {OF(params), 4, NUMBER, 64},
    {OF(params), 5, NUMBER, 128},
    {OF(params), 6, NUMBER, 1},
    {OF(params), 7, NUMBER, 2048},
    {OF(key), 1, BYTES, 127},
    {OF(key), 2, BYTES, 79},
    {OF(key), 3, BYTES, 255},
    {OF(key), 4, BYTES, 64},
    {OF(key), 5, NUMBER, 255},
    {OF(key), 6, NUMBER, 65536},
    {OF(key), 7, NUMBER, 0xffff},
    {OF(key), 8, NUMBER, 1},
    {OF(key), 9, NUMBER, 1},
    {OF(key), 10, NUMBER, 1},
    {OF(key), 11, NUMBER, 1},
    {OF(key), 12, NUMBER, 127},
    {OF(key), 14, BYTES, 511},
    {OF(key), 15, BYTES, 63},
    {OF(key), 16, NUMBER, 1},
    {OF(key), 17, BYTES, 2560},
    {OF(key), 18, BYTES, 8192},
    {OF(token), 1, BYTES, 63},
    {OF(token), 2, BYTES, 255},
    {OF(token), 3, BYTES, 32},
    {OF(token), 4, BYTES, 16},
    {OF(token), 5, BYTES, 16},
    {OF(token), 6, NUMBER, 1},
    {OF(token), 7, NUMBER, 1},
    {OF(token), 9, NUMBER, 0xffff},
    {OF(token), 10, NUMBER, 2},
    {OF(token), 11, NUMBER, 1},
    {OF(token), 12, NUMBER, UINT32_MAX},
    {OF(token), 13, NUMBER, 1},
    {OF(error), 1, NUMBER, 255},
    {OF(error), 2, BYTES, 63},
    {OF(error), 3, BYTES, 63},
    {OF(error), 4, BYTES, 511},
    {OF(key_op), 1, BYTES, 127},
    {OF(key_op), 3, BYTES, 65536 + 1024},
    {OF(key_op), 4, BYTES, 2048},
    {OF(key_op), 5, NUMBER, 64},
    {OF(list_keys), 1, BYTES, 127},
    {OF(list_keys), 2, BYTES, 64},
    {OF(list_keys), 3, BYTES, 255},
    {OF(generate), 1, NUMBER, 6},
    {OF(generate), 2, NUMBER, 65536},
    {OF(generate), 3, BYTES, 255},
    {OF(generate), 4, BYTES, 64},
    {OF(generate), 5, NUMBER, 0xffff},
    {OF(key_ref), 1, BYTES, 127},
    {OF(set_label), 1, BYTES, 127},
    {OF(set_label), 2, BYTES, 255},
    {OF(random), 1, NUMBER, 4096},
    {OF(login), 1, BYTES, 256},
    {OF(request), 2, NUMBER, UINT32_MAX},
    {OF(request), 3, BYTES, 63},
    {OF(reply), 3, BYTES, 65536 + 1024},
    {OF(reply), 4, BYTES, 32},
    {OF(reply), 5, NUMBER, 127},
    {OF(reply), 6, BYTES, 79},
    {OF(reply), 9, NUMBER, 1},
    {OF(reply), 10, BYTES, 64},
};

static void put_bounded(struct kms_buf *out, enum kind kind, uint32_t field, uint64_t value)
{
    if (kind == NUMBER) {
        put_number(out, field, value);
    } else {
        put_bytes(out, field, (size_t)value);
    }
}

static void every_bound(void)
{
    for (size_t i = 0; i < UNIT_COUNT(bounds); i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(bounds[i].what, bounds[i].field);
        struct kms_buf body = KMS_BUF_OVER(bytes);
        struct kms_error err = KMS_ERROR_INIT;
        char name[128];

        CU_ASSERT_PTR_NOT_NULL_FATAL(field);
        (void)snprintf(name, sizeof(name), "%s.%s", bounds[i].what->short_name, field->name);
        put_bounded(&body, bounds[i].kind, bounds[i].field, bounds[i].max);
        UNIT_CHECK(name, check(bounds[i].what, &body, &err) == KMS_OK);
        check_fits(name, bounds[i].what, kms_buf_span(&body));
        body.len = 0;
        put_bounded(&body, bounds[i].kind, bounds[i].field, (uint64_t)bounds[i].max + 1);
        UNIT_CHECK(name, check(bounds[i].what, &body, &err) == KMS_E_PROTOCOL);
        UNIT_CHECK(name, strstr(err.text, name) != NULL);
    }
}

/* A field that is added to the protocol needs its row above. */
static void every_field_is_tested(void)
{
    static const ProtobufCMessageDescriptor *const all[] = {
        OF(hello),     OF(welcome), OF(params),      OF(alg_set),   OF(key),      OF(token),
        OF(error),     OF(key_op),  OF(list_tokens), OF(list_keys), OF(generate), OF(key_ref),
        OF(set_label), OF(random),  OF(login),       OF(request),   OF(reply),
    };

    for (size_t m = 0; m < UNIT_COUNT(all); m++) {
        for (unsigned f = 0; f < all[m]->n_fields; f++) {
            const ProtobufCFieldDescriptor *field = &all[m]->fields[f];
            bool found = field->type == PROTOBUF_C_TYPE_MESSAGE ||
                         field->type == PROTOBUF_C_TYPE_FIXED64 ||
                         field->type == PROTOBUF_C_TYPE_UINT64;

            for (size_t i = 0; i < UNIT_COUNT(bounds); i++) {
                found = found || (bounds[i].what == all[m] && bounds[i].field == field->id);
            }
            UNIT_CHECK(field->name, found);
        }
    }
}

/* ---- how often ------------------------------------------------------------------------------- */

static void how_often(void)
{
    static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *what;
        uint32_t field;
        size_t len;
        unsigned max;
    } rows[] = {
        {"certificates", OF(key), 18, 1, 8},
        {"keys", OF(reply), 8, 0, 32},
        {"tokens", OF(reply), 7, 0, 64},
        {"a label", OF(key), 3, 1, 1},
        {"an output", OF(reply), 3, 1, 1},
        {"an error", OF(reply), 2, 0, 1},
        {"an operation", OF(request), 15, 0, 1},
        {"unknown fields", OF(reply), 100, 5, 32},
        {"unknown fields of a key", OF(key), 4000, 0, 32},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_buf body = KMS_BUF_OVER(bytes);
        struct kms_error err = KMS_ERROR_INIT;

        for (unsigned n = 0; n < rows[i].max; n++) {
            put_bytes(&body, rows[i].field, rows[i].len);
        }
        UNIT_CHECK(rows[i].name, check(rows[i].what, &body, &err) == KMS_OK);
        check_fits(rows[i].name, rows[i].what, kms_buf_span(&body));
        put_bytes(&body, rows[i].field, rows[i].len);
        UNIT_CHECK(rows[i].name, check(rows[i].what, &body, &err) == KMS_E_PROTOCOL);
        UNIT_CHECK(rows[i].name, err.text[0] != '\0');
    }
}

static void malformed(void)
{
    static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *what;
        const char *bytes;
        size_t len;
        enum kms_status status;
    } rows[] = {
        {"nothing is a message", OF(reply), "", 0, KMS_OK},
        {"a field", OF(reply), "\x08\x01", 2, KMS_OK},
        {"unknown number", OF(reply), "\xa0\x06\x01", 3, KMS_OK},
        {"unknown 64 bits", OF(reply),
         "\xa1\x06"
         "12345678",
         10, KMS_OK},
        {"unknown 32 bits", OF(reply),
         "\xa5\x06"
         "1234",
         6, KMS_OK},
        {"unknown bytes", OF(reply), "\xa2\x06\x02xy", 5, KMS_OK},
        {"a tag cut off", OF(reply), "\x88", 1, KMS_E_PROTOCOL},
        {"no value", OF(reply), "\x08", 1, KMS_E_PROTOCOL},
        {"a value cut off", OF(reply), "\x08\x80", 2, KMS_E_PROTOCOL},
        {"a value of 11 bytes", OF(reply), "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12,
         KMS_E_PROTOCOL},
        {"more than 64 bits", OF(reply), "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11,
         KMS_E_PROTOCOL},
        {"64 bits", OF(reply), "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, KMS_OK},
        {"bytes cut off", OF(reply), "\x1a\x05xyz", 5, KMS_E_PROTOCOL},
        {"a length of 4 GiB", OF(reply), "\x1a\xff\xff\xff\xff\x0f", 6, KMS_E_PROTOCOL},
        {"a length of 6 bytes", OF(reply), "\x1a\x80\x80\x80\x80\x80\x00", 7, KMS_E_PROTOCOL},
        {"field 0", OF(reply), "\x00\x01", 2, KMS_E_PROTOCOL},
        {"a group", OF(reply), "\xa3\x06\xa4\x06", 4, KMS_E_PROTOCOL},
        {"wire type 6", OF(reply), "\x0e\x01", 2, KMS_E_PROTOCOL},
        {"wire type 7", OF(reply), "\x0f\x01", 2, KMS_E_PROTOCOL},
        {"a tag beyond 29 bits", OF(reply), "\xf8\xff\xff\xff\x1f\x01", 6, KMS_E_PROTOCOL},
        {"a number for bytes", OF(reply), "\x18\x01", 2, KMS_E_PROTOCOL},
        {"bytes for a number", OF(reply), "\x0a\x01x", 3, KMS_E_PROTOCOL},
        {"a number for a message", OF(reply), "\x10\x01", 2, KMS_E_PROTOCOL},
        {"32 bits for 64", OF(alg_set),
         "\x0d"
         "1234",
         5, KMS_E_PROTOCOL},
        {"64 bits for 64", OF(alg_set),
         "\x09"
         "12345678",
         9, KMS_OK},
        {"a bad message in a message", OF(reply), "\x12\x02\x08\x80", 4, KMS_E_PROTOCOL},
        {"a bound of a message in a message", OF(reply), "\x12\x03\x08\x80\x02", 5, KMS_E_PROTOCOL},
        {"two operations", OF(request), "\x52\x00\x5a\x00", 4, KMS_E_PROTOCOL},
        {"a field of list_tokens", OF(request), "\x52\x02\x08\x01", 4, KMS_OK},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_span body = kms_span_of(rows[i].bytes, rows[i].len);
        struct kms_error err = KMS_ERROR_INIT;
        ProtobufCMessage *message = NULL;
        size_t need = 0;

        UNIT_CHECK(rows[i].name,
                   kms_agent_check(rows[i].what, body, &need, NULL) == rows[i].status);
        UNIT_CHECK(rows[i].name,
                   kms_agent_unpack(rows[i].what, body, &message, &err) == rows[i].status);
        UNIT_CHECK(rows[i].name, (message != NULL) == (rows[i].status == KMS_OK));
        UNIT_CHECK(rows[i].name, (err.text[0] != '\0') == (rows[i].status != KMS_OK));
        kms_agent_free(message);
        if (rows[i].status == KMS_OK) {
            check_fits(rows[i].name, rows[i].what, body);
        }
    }
}

static void largest_reply(void)
{
    struct kms_buf body = KMS_BUF_OVER(bytes);
    struct kms_buf key = kms_buf_over(memory + ARENA_MAX / 2, ARENA_MAX / 2);

    for (uint32_t field = 1; field <= 18; field++) {
        const ProtobufCFieldDescriptor *row =
            protobuf_c_message_descriptor_get_field(OF(key), field);

        if (row->type == PROTOBUF_C_TYPE_BYTES) {
            put_bytes(&key, field, 60);
        } else if (row->type == PROTOBUF_C_TYPE_MESSAGE) {
            put_bytes(&key, field, 0);
        } else {
            put_number(&key, field, 1);
        }
    }
    for (unsigned i = 1; i < 8; i++) {
        put_bytes(&key, 18, 300);
    }
    for (unsigned i = 0; i < 32; i++) {
        put_number(&key, 1000, i);
    }
    for (unsigned i = 0; i < 32; i++) {
        put_varint(&body, 8 << 3 | 2);
        put_varint(&body, key.len);
        CU_ASSERT_EQUAL(kms_buf_put(&body, kms_buf_span(&key)), KMS_OK);
    }
    CU_ASSERT_TRUE(body.len < KMS_AGENT_FRAME_MAX);
    check_fits("32 keys with certificates", OF(reply), kms_buf_span(&body));
    body.len = KMS_AGENT_FRAME_MAX + 1;
    CU_ASSERT_EQUAL(check(OF(reply), &body, NULL), KMS_E_TOO_LARGE);
}

static void no_memory(void)
{
    ProtobufCMessage *message = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    fail_alloc_set(1);
    CU_ASSERT_EQUAL(kms_agent_unpack(OF(reply), kms_span_of("\x08\x01", 2), &message, &err),
                    KMS_E_NOMEM);
    CU_ASSERT_TRUE(fail_alloc_clear());
    CU_ASSERT_PTR_NULL(message);
    kms_agent_free(NULL);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void frame_lengths(void)
{
    static const struct {
        const char *name;
        uint8_t header[4];
        enum kms_status status;
        size_t len;
    } rows[] = {
        {"0", {0, 0, 0, 0}, KMS_E_PROTOCOL, 0},
        {"1", {0, 0, 0, 1}, KMS_OK, 1},
        {"258", {0, 0, 1, 2}, KMS_OK, 258},
        {"the most", {0, 2, 0, 0}, KMS_OK, 131072},
        {"one more", {0, 2, 0, 1}, KMS_E_TOO_LARGE, 0},
        {"2 GiB", {0x80, 0, 0, 0}, KMS_E_TOO_LARGE, 0},
        {"4 GiB", {0xff, 0xff, 0xff, 0xff}, KMS_E_TOO_LARGE, 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint8_t header[4] = {9, 9, 9, 9};
        size_t len = 0;

        UNIT_CHECK(rows[i].name, kms_agent_frame_len(rows[i].header, &len, NULL) == rows[i].status);
        UNIT_CHECK(rows[i].name, len == rows[i].len);
        if (rows[i].status == KMS_OK) {
            kms_agent_put_frame_len(header, len);
            UNIT_CHECK(rows[i].name, memcmp(header, rows[i].header, 4) == 0);
        }
    }
}

static void packing(void)
{
    Kms__Agent__Hello hello = KMS__AGENT__HELLO__INIT;
    Kms__Agent__Reply reply = KMS__AGENT__REPLY__INIT;
    struct kms_buf out = kms_buf_over(memory, 10);
    static uint8_t much[KMS_AGENT_FRAME_MAX];

    hello.version = 1;
    hello.name = kms_agent_put_text("me");
    CU_ASSERT_EQUAL(kms_agent_pack(&hello.base, &out, NULL), KMS_OK);
    CU_ASSERT_TRUE(
        kms_span_equal(kms_buf_span(&out), kms_span_of("\0\0\0\6\x08\x01\x12\x02me", 10)));
    CU_ASSERT_EQUAL(kms_agent_pack(&hello.base, &out, NULL), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(out.len, 10);
    out = kms_buf_over(memory, 9);
    CU_ASSERT_EQUAL(kms_agent_pack(&hello.base, &out, NULL), KMS_E_TOO_LARGE);
    reply.output = kms_agent_put_span(kms_span_of(much, sizeof(much)));
    out = kms_buf_over(memory, sizeof(memory));
    CU_ASSERT_EQUAL(kms_agent_pack(&reply.base, &out, NULL), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(out.len, 0);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* @message through bytes; freed by the caller. */
static ProtobufCMessage *across(const ProtobufCMessage *message)
{
    struct kms_buf out = KMS_BUF_OVER(bytes);
    ProtobufCMessage *same = NULL;

    CU_ASSERT_EQUAL_FATAL(kms_agent_pack(message, &out, NULL), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(
        kms_agent_unpack(message->descriptor,
                         kms_span_of(out.data + KMS_AGENT_HEADER, out.len - KMS_AGENT_HEADER),
                         &same, NULL),
        KMS_OK);
    return same;
}

static void params_cross(void)
{
    const struct kms_params params = {.alg = KMS_ALG_HMAC_SHA224,
                                      .aad = kms_span_str("aad"),
                                      .iv = kms_span_str("iv"),
                                      .tag_len = 12,
                                      .ctr_bits = 64,
                                      .salt_given = true,
                                      .salt_len = 20};
    struct kms_params got = {.alg = KMS_ALG_NONE};
    Kms__Agent__Params message;
    Kms__Agent__Params *same;

    kms_agent_put_params(&params, &message);
    same = (Kms__Agent__Params *)across(&message.base);
    CU_ASSERT_EQUAL(kms_agent_get_params(same, &got, NULL), KMS_OK);
    CU_ASSERT_EQUAL(got.alg, params.alg);
    CU_ASSERT_TRUE(kms_span_equal(got.aad, params.aad));
    CU_ASSERT_TRUE(kms_span_equal(got.iv, params.iv));
    CU_ASSERT_EQUAL(got.tag_len, 12);
    CU_ASSERT_EQUAL(got.ctr_bits, 64);
    CU_ASSERT_TRUE(got.salt_given);
    CU_ASSERT_EQUAL(got.salt_len, 20);
    same->alg = 128;
    CU_ASSERT_EQUAL(kms_agent_get_params(same, &got, NULL), KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(kms_agent_get_params(NULL, &got, NULL), KMS_E_PROTOCOL);
    kms_agent_free(&same->base);
}

static struct kms_key_info full_key(void)
{
    struct kms_key_info info = {.type = KMS_KEY_EDDSA,
                                .bits = 255,
                                .uses = KMS_USE_SIGN | KMS_USE_VERIFY,
                                .extractable = true,
                                .always_sensitive = true,
                                .never_extractable = true,
                                .local = true,
                                .seal = KMS_ALG_AES_CBC_HMAC,
                                .tag_len = KMS_KEY_TAG_MAX,
                                .latest = true};

    memset(info.ref, 'r', sizeof(info.ref) - 1);
    memset(info.id, 'i', sizeof(info.id) - 1);
    memset(info.label, 'l', sizeof(info.label) - 1);
    memset(info.tag, 0, sizeof(info.tag));
    memset(info.name, 'n', sizeof(info.name) - 1);
    memset(info.version, 'v', sizeof(info.version) - 1);
    kms_alg_set_add(&info.algs, KMS_ALG_EDDSA);
    kms_alg_set_add(&info.algs, KMS_ALG_HMAC_SHA224);
    return info;
}

static void keys_cross(void)
{
    const struct kms_key_info info = full_key();
    struct kms_key_info got = {.bits = 0};
    Kms__Agent__AlgSet algs;
    Kms__Agent__Key message;
    Kms__Agent__Key *same;

    kms_agent_put_key(&info, &message, &algs);
    same = (Kms__Agent__Key *)across(&message.base);
    CU_ASSERT_EQUAL(kms_agent_get_key(same, &got, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(got.ref, info.ref);
    CU_ASSERT_STRING_EQUAL(got.id, info.id);
    CU_ASSERT_STRING_EQUAL(got.label, info.label);
    CU_ASSERT_STRING_EQUAL(got.name, info.name);
    CU_ASSERT_STRING_EQUAL(got.version, info.version);
    CU_ASSERT_EQUAL(got.tag_len, info.tag_len);
    CU_ASSERT_EQUAL(memcmp(got.tag, info.tag, sizeof(got.tag)), 0);
    CU_ASSERT_TRUE(got.type == info.type && got.bits == info.bits && got.uses == info.uses);
    CU_ASSERT_TRUE(got.extractable && got.always_sensitive && got.never_extractable && got.local);
    CU_ASSERT_TRUE(got.seal == info.seal && got.latest);
    CU_ASSERT_EQUAL(memcmp(&got.algs, &info.algs, sizeof(got.algs)), 0);
    kms_agent_free(&same->base);
}

static void bad_keys(void)
{
    static char nul[] = {'a', '\0', 'b'};
    static uint8_t tag[KMS_KEY_TAG_MAX + 1];
    const struct kms_key_info info = full_key();
    const ProtobufCBinaryData with_nul = {.len = sizeof(nul), .data = (uint8_t *)nul};

    for (unsigned i = 0; i < 10; i++) {
        struct kms_key_info got = {.bits = 7};
        struct kms_error err = KMS_ERROR_INIT;
        Kms__Agent__AlgSet algs;
        Kms__Agent__Key message;
        char row[16];

        (void)snprintf(row, sizeof(row), "way %u", i);
        kms_agent_put_key(&info, &message, &algs);
        switch (i) {
        case 0:
            message.ref = with_nul;
            break;
        case 1:
            message.id = with_nul;
            break;
        case 2:
            message.label = with_nul;
            break;
        case 3:
            message.name = with_nul;
            break;
        case 4:
            message.version = with_nul;
            break;
        case 5:
            message.type = KMS_KEY_TYPE_COUNT;
            break;
        case 6:
            message.uses = 64;
            break;
        case 7:
            message.seal = 128;
            break;
        case 8:
            message.tag = (ProtobufCBinaryData){.len = sizeof(tag), .data = tag};
            break;
        default:
            message.ref.len = 0;
            break;
        }
        UNIT_CHECK(row, kms_agent_get_key(&message, &got, &err) == KMS_E_PROTOCOL);
        UNIT_CHECK(row, got.bits == 7);
        UNIT_CHECK(row, strstr(err.text, "Key.") != NULL);
    }
}

static void tokens_cross(void)
{
    struct kms_token_info info = {.label = "l",
                                  .manufacturer = "12345678901234567890123456789012",
                                  .model = "1234567890123456",
                                  .serial = "1234567890123456",
                                  .hardware = true,
                                  .random = true,
                                  .data_keys = true,
                                  .algs = {.bits = {1, 2}},
                                  .generates = 31};
    struct kms_token_info got = {.generates = 0};
    char name[KMS_AGENT_NAME_MAX] = "";
    Kms__Agent__AlgSet algs;
    Kms__Agent__Token message;
    Kms__Agent__Token *same;

    kms_agent_put_token("name", &info, &message, &algs);
    same = (Kms__Agent__Token *)across(&message.base);
    CU_ASSERT_EQUAL(kms_agent_get_token(same, name, &got, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(name, "name");
    CU_ASSERT_EQUAL(memcmp(&got, &info, sizeof(got)), 0);
    same->name.len = 0;
    CU_ASSERT_EQUAL(kms_agent_get_token(same, name, &got, NULL), KMS_E_PROTOCOL);
    kms_agent_free(&same->base);
}

/* The numbers of version 1: they may never change. */
static void statuses_cross(void)
{
    static const struct {
        enum kms_status status;
        uint32_t wire;
    } rows[] = {
        {KMS_E_INVALID, 1},    {KMS_E_BAD_DATA, 2},     {KMS_E_TOO_LARGE, 3},
        {KMS_E_NOT_FOUND, 4},  {KMS_E_EXISTS, 5},       {KMS_E_UNSUPPORTED, 6},
        {KMS_E_AUTH, 7},       {KMS_E_DENIED, 8},       {KMS_E_KEY_STATE, 9},
        {KMS_E_THROTTLED, 10}, {KMS_E_UNAVAILABLE, 11}, {KMS_E_TIMEOUT, 12},
        {KMS_E_CANCELLED, 13}, {KMS_E_PROTOCOL, 14},    {KMS_E_BUSY, 15},
        {KMS_E_NOMEM, 16},     {KMS_E_INTERNAL, 17},
    };

    CU_ASSERT_EQUAL(UNIT_COUNT(rows) + 1, KMS_STATUS_COUNT);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = {.status = rows[i].status, .code = "C", .text = "text"};
        struct kms_error got = KMS_ERROR_INIT;
        Kms__Agent__Error message;

        kms_agent_put_error(&error, &message);
        UNIT_CHECK(kms_status_name(rows[i].status), message.status == rows[i].wire);
        kms_agent_get_error(&message, &got);
        UNIT_CHECK(kms_status_name(rows[i].status), got.status == rows[i].status);
        UNIT_CHECK(kms_status_name(rows[i].status), strcmp(got.code, "C") == 0);
        UNIT_CHECK(kms_status_name(rows[i].status), strcmp(got.text, "text") == 0);
    }
}

static void errors_are_tamed(void)
{
    Kms__Agent__Error message = KMS__AGENT__ERROR__INIT;
    struct kms_error got = KMS_ERROR_INIT;
    static char much[2000];

    memset(much, 'x', sizeof(much) - 1);
    message.status = 200;
    message.code = kms_agent_put_text(much);
    message.text = kms_agent_put_text("two\nlines\x7f");
    kms_agent_get_error(&message, &got);
    CU_ASSERT_EQUAL(got.status, KMS_E_INTERNAL);
    CU_ASSERT_EQUAL(strlen(got.code), KMS_ERROR_CODE_MAX - 1);
    CU_ASSERT_STRING_EQUAL(got.request_id, "");
    CU_ASSERT_STRING_EQUAL(got.text, "two lines ");
    message.status = 0;
    kms_agent_get_error(&message, &got);
    CU_ASSERT_EQUAL(got.status, KMS_OK);
}

static void texts(void)
{
    char text[4] = "old";
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_agent_get_text("f", kms_agent_put_text("abc"), text, 4, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "abc");
    CU_ASSERT_EQUAL(kms_agent_get_text("f", kms_agent_put_text("abcd"), text, 4, &err),
                    KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "f is too long"));
    CU_ASSERT_STRING_EQUAL(text, "abc");
    CU_ASSERT_EQUAL(kms_agent_get_text("f", kms_agent_put_span(KMS_SPAN_NONE), text, 4, NULL),
                    KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "");
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"every bound", every_bound},
        {"every field is tested", every_field_is_tested},
        {"how often", how_often},
        {"malformed", malformed},
        {"largest reply", largest_reply},
        {"no memory", no_memory},
        {"frame lengths", frame_lengths},
        {"packing", packing},
        {"params cross", params_cross},
        {"keys cross", keys_cross},
        {"bad keys", bad_keys},
        {"tokens cross", tokens_cross},
        {"statuses cross", statuses_cross},
        {"errors are tamed", errors_are_tamed},
        {"texts", texts},
    };

    return unit_main("test_agent_wire", tests, UNIT_COUNT(tests));
}
