/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounds of every field of backend/agent.proto, checked on the bytes before protobuf-c
 * allocates for them. Stricter than protobuf asks for: a field that may be there once may not come
 * twice (protobuf-c would merge), at most one member of a oneof, no number above its bound, no
 * other wire type than the field's. Unknown fields are passed over, up to a number of them.
 */
#include "backend/agent_wire.h"

#define ANY        UINT32_MAX /* every value of a 32-bit number; 64-bit numbers have no bound */
#define ALG_MAX    127
#define DEPTH_MAX  4            /* Reply, Key, AlgSet: 3 */
#define ALIGN      ((size_t)16) /* of every allocation */
#define SLAB_FIRST 16u /* fields that protobuf-c 1.4 notes on its stack before it allocates */
#define SLAB_FIELD 64u /* bytes of a note, rounded up generously: it is 32 */

/* Field number; longest bytes or message, largest number; how often (0: once). */
struct bound {
    uint32_t number;
    uint32_t max;
    uint32_t count;
};

static const struct bound hello[] = {{1, ANY, 0}, {2, KMS_AGENT_NAME_MAX, 0}};
static const struct bound welcome[] = {
    {1, ANY, 0}, {2, ANY, 0}, {3, ANY, 0}, {4, KMS_AGENT_INSTANCE, 0}};
static const struct bound params[] = {
    {1, ALG_MAX, 0}, {2, KMS_AGENT_AAD_MAX, 0}, {3, KMS_IV_MAX, 0}, {4, 64, 0}, /* tag_len */
    {5, 128, 0},                                                                /* ctr_bits */
    {6, 1, 0},       {7, KMS_SIGNATURE_MAX, 0},                                 /* salt_len */
};
static const struct bound alg_set[] = {{1, ANY, 0}, {2, ANY, 0}};
static const struct bound key[] = {
    {1, KMS_KEY_REF_MAX - 1, 0},
    {2, KMS_KEY_ID_MAX - 1, 0},
    {3, KMS_LABEL_MAX - 1, 0},
    {4, KMS_KEY_TAG_MAX, 0},
    {5, KMS_AGENT_KEY_TYPE_MAX, 0},
    {6, 65536, 0}, /* bits */
    {7, 0xffff, 0},
    {8, 1, 0},
    {9, 1, 0},
    {10, 1, 0},
    {11, 1, 0},
    {12, ALG_MAX, 0},
    {13, 64, 0}, /* algs */
    {14, KMS_KEY_NAME_MAX - 1, 0},
    {15, KMS_VERSION_MAX - 1, 0},
    {16, 1, 0},
    {17, KMS_PUBLIC_KEY_MAX, 0},
    {18, KMS_AGENT_CERT_MAX, KMS_AGENT_CERTS_MAX},
};
static const struct bound token[] = {
    {1, KMS_AGENT_NAME_MAX - 1, 0},
    {2, KMS_LABEL_MAX - 1, 0},
    {3, 32, 0}, /* CK_TOKEN_INFO's lengths */
    {4, 16, 0},
    {5, 16, 0},
    {6, 1, 0},
    {7, 1, 0},
    {8, 64, 0}, /* algs */
    {9, 0xffff, 0},
    {10, KMS_AGENT_LOGIN_PIN, 0},
    {11, 1, 0},
    {12, ANY, 0},
    {13, 1, 0},
};
static const struct bound error[] = {{1, 255, 0},
                                     {2, KMS_ERROR_CODE_MAX - 1, 0},
                                     {3, KMS_ERROR_CODE_MAX - 1, 0},
                                     {4, KMS_ERROR_TEXT_MAX - 1, 0}};
static const struct bound key_op[] = {{1, KMS_KEY_REF_MAX - 1, 0},
                                      {2, 2048, 0}, /* params */
                                      {3, KMS_CIPHERTEXT_MAX, 0},
                                      {4, KMS_SIGNATURE_MAX, 0},
                                      {5, KMS_DATA_KEY_MAX, 0}};
static const struct bound list_keys[] = {
    {1, KMS_KEY_REF_MAX - 1, 0}, {2, KMS_KEY_TAG_MAX, 0}, {3, KMS_LABEL_MAX - 1, 0}};
static const struct bound generate[] = {{1, KMS_KEY_TYPE_COUNT - 1, 0},
                                        {2, 65536, 0}, /* bits */
                                        {3, KMS_LABEL_MAX - 1, 0},
                                        {4, KMS_KEY_TAG_MAX, 0},
                                        {5, 0xffff, 0}};
static const struct bound key_ref[] = {{1, KMS_KEY_REF_MAX - 1, 0}};
static const struct bound set_label[] = {{1, KMS_KEY_REF_MAX - 1, 0}, {2, KMS_LABEL_MAX - 1, 0}};
static const struct bound random_[] = {{1, KMS_AGENT_RANDOM_MAX, 0}};
static const struct bound login[] = {{1, KMS_AGENT_PIN_MAX, 0}};
/* the op's own messages are bounded by their fields */
static const struct bound request[] = {
    {1, ANY, 0},
    {2, ANY, 0},
    {3, KMS_AGENT_NAME_MAX - 1, 0},
    {10, KMS_AGENT_FRAME_MAX, 0},
    {11, KMS_AGENT_FRAME_MAX, 0},
    {12, KMS_AGENT_FRAME_MAX, 0},
    {13, KMS_AGENT_FRAME_MAX, 0},
    {14, KMS_AGENT_FRAME_MAX, 0},
    {15, KMS_AGENT_FRAME_MAX, 0},
    {16, KMS_AGENT_FRAME_MAX, 0},
    {17, KMS_AGENT_FRAME_MAX, 0},
    {18, KMS_AGENT_FRAME_MAX, 0},
    {19, KMS_AGENT_FRAME_MAX, 0},
    {20, KMS_AGENT_FRAME_MAX, 0},
    {21, KMS_AGENT_FRAME_MAX, 0},
    {22, KMS_AGENT_FRAME_MAX, 0},
    {23, KMS_AGENT_FRAME_MAX, 0},
    {24, KMS_AGENT_FRAME_MAX, 0},
    {25, KMS_AGENT_FRAME_MAX, 0},
};
static const struct bound reply[] = {
    {1, ANY, 0},
    {2, KMS_AGENT_FRAME_MAX, 0},
    {3, KMS_CIPHERTEXT_MAX, 0},
    {4, KMS_IV_MAX, 0},
    {5, ALG_MAX, 0},
    {6, KMS_KEY_ID_MAX - 1, 0},
    {7, KMS_AGENT_FRAME_MAX, KMS_AGENT_TOKENS_MAX},
    {8, KMS_AGENT_FRAME_MAX, KMS_AGENT_KEYS_MAX},
    {9, 1, 0},
    {10, KMS_DATA_KEY_MAX, 0},
};

#define ROW(message, table)                                                                        \
    {                                                                                              \
        &kms__agent__##message##__descriptor, table, sizeof(table) / sizeof((table)[0])            \
    }
/* Most frequent first. list_tokens has no field. */
static const struct message {
    const ProtobufCMessageDescriptor *what;
    const struct bound *bounds; /* in the order of what->fields */
    size_t count;
} messages[] = {
    ROW(reply, reply),
    ROW(request, request),
    ROW(key_op, key_op),
    ROW(params, params),
    ROW(key, key),
    ROW(alg_set, alg_set),
    ROW(error, error),
    ROW(token, token),
    ROW(list_keys, list_keys),
    ROW(generate, generate),
    ROW(key_ref, key_ref),
    ROW(set_label, set_label),
    ROW(random, random_),
    ROW(login, login),
    ROW(hello, hello),
    ROW(welcome, welcome),
    {&kms__agent__list_tokens__descriptor, NULL, 0},
};

static const struct message *find_message(const ProtobufCMessageDescriptor *what)
{
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        if (messages[i].what == what) {
            return messages[i].count == what->n_fields ? &messages[i] : NULL;
        }
    }
    return NULL;
}

/* ---- the bytes ---------------------------------------------------------------------------- */

/* A varint of at most @max bytes.
 */
static bool take_varint(struct kms_span *in, unsigned max, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < max && i < in->len; i++) {
        uint8_t byte = in->data[i];

        if (i == 9 && byte > 1) {
            return false; /* more than 64 bits */
        }
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            *in = kms_span_of(in->data + i + 1, in->len - i - 1);
            return true;
        }
    }
    return false;
}

/* One field as it lies on the wire. */
struct raw {
    uint32_t number;
    unsigned wire;         /* ProtobufCWireType */
    uint64_t value;        /* of a varint; a length otherwise */
    struct kms_span bytes; /* of what has a length */
};

static bool take_field(struct kms_span *in, struct raw *ret_raw)
{
    uint64_t tag = 0;
    uint64_t value = 0;

    if (!take_varint(in, 5, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        return false;
    }
    *ret_raw = (struct raw){.number = (uint32_t)(tag >> 3), .wire = (unsigned)tag & 7};
    switch (ret_raw->wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return take_varint(in, 10, &ret_raw->value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        ret_raw->value = 8;
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        ret_raw->value = 4;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!take_varint(in, 5, &value)) {
            return false;
        }
        ret_raw->value = value;
        break;
    default:
        return false;
    }
    return ret_raw->value <= in->len &&
           kms_span_take(in, (size_t)ret_raw->value, &ret_raw->bytes) == KMS_OK;
}

static unsigned wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED64:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* ---- one message -------------------------------------------------------------------------- */

static size_t rounded(size_t size)
{
    return (size + ALIGN - 1) & ~(ALIGN - 1);
}

struct scan {
    uint32_t counts[32]; /* by field, as in what->fields */
    size_t fields;
    size_t unknown;
    bool oneof;
    size_t arena; /* bytes that unpacking takes */
};

static enum kms_status check_message(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                     unsigned depth, size_t *arena, struct kms_error *err);

static enum kms_status refuse(struct kms_error *err, const ProtobufCMessageDescriptor *what,
                              const ProtobufCFieldDescriptor *field, const char *why)
{
    return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s.%s %s", what->short_name,
                         field->name, why);
}

static enum kms_status check_count(const ProtobufCMessageDescriptor *what,
                                   const ProtobufCFieldDescriptor *field, const struct bound *bound,
                                   struct scan *scan, struct kms_error *err)
{
    size_t i = (size_t)(field - what->fields);
    bool oneof = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;

    scan->counts[i]++;
    if (scan->counts[i] > (bound->count == 0 ? 1 : bound->count)) {
        return refuse(err, what, field, "comes too often");
    }
    if (oneof && scan->oneof) {
        return refuse(err, what, field, "is a second operation");
    }
    scan->oneof = scan->oneof || oneof;
    return KMS_OK;
}

static enum kms_status check_field(const ProtobufCMessageDescriptor *what,
                                   const ProtobufCFieldDescriptor *field, const struct bound *bound,
                                   const struct raw *raw, unsigned depth, struct scan *scan,
                                   struct kms_error *err)
{
    enum kms_status status = check_count(what, field, bound, scan, err);
    bool narrow = field->type == PROTOBUF_C_TYPE_UINT32 || field->type == PROTOBUF_C_TYPE_BOOL;

    if (status != KMS_OK) {
        return status;
    }
    if (raw->wire != wire_of(field->type)) {
        return refuse(err, what, field, "has the wrong type");
    }
    if ((narrow || raw->wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) && raw->value > bound->max) {
        return refuse(err, what, field, narrow ? "is out of range" : "is too long");
    }
    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        scan->arena += rounded(raw->bytes.len);
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return check_message(field->descriptor, raw->bytes, depth + 1, &scan->arena, err);
    }
    return KMS_OK;
}

static enum kms_status check_unknown(const ProtobufCMessageDescriptor *what, const struct raw *raw,
                                     struct scan *scan, struct kms_error *err)
{
    if (++scan->unknown > KMS_AGENT_UNKNOWN_MAX) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s has too many unknown fields",
                             what->short_name);
    }
    /* protobuf-c keeps a copy, with the length or the varint before it */
    scan->arena += rounded(raw->bytes.len + 16);
    return KMS_OK;
}

/* What protobuf-c 1.4's unpack allocates for the message itself, beside what its fields need. */
static size_t message_arena(const ProtobufCMessageDescriptor *what, const struct scan *scan)
{
    size_t size = rounded(what->sizeof_message);

    for (unsigned i = 0; i < what->n_fields; i++) {
        if (what->fields[i].label == PROTOBUF_C_LABEL_REPEATED && scan->counts[i] > 0) {
            size += rounded(scan->counts[i] * sizeof(ProtobufCBinaryData)); /* or pointers */
        }
    }
    if (scan->unknown > 0) {
        size += rounded(scan->unknown * sizeof(ProtobufCMessageUnknownField));
    }
    for (size_t slab = SLAB_FIRST, have = SLAB_FIRST; have < scan->fields; have += slab) {
        slab *= 2;
        size += slab * SLAB_FIELD;
    }
    return size;
}

static enum kms_status check_message(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                     unsigned depth, size_t *arena, struct kms_error *err)
{
    const struct message *message = find_message(what);
    enum kms_status status = KMS_OK;
    struct scan scan = {.fields = 0};
    struct raw raw;

    if (message == NULL || depth > DEPTH_MAX ||
        what->n_fields > sizeof(scan.counts) / sizeof(scan.counts[0])) {
        return kms_error_set(err, KMS_E_INTERNAL, "agent message: no bounds for %s", what->name);
    }
    while (status == KMS_OK && body.len > 0) {
        const ProtobufCFieldDescriptor *field;
        const struct bound *bound;

        if (!take_field(&body, &raw)) {
            return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s cannot be read",
                                 what->short_name);
        }
        scan.fields++;
        field = protobuf_c_message_descriptor_get_field(what, raw.number);
        if (field == NULL) {
            status = check_unknown(what, &raw, &scan, err);
            continue;
        }
        bound = &message->bounds[field - what->fields];
        status = bound->number != raw.number
                     ? kms_error_set(err, KMS_E_INTERNAL, "agent message: no bound for %s.%s",
                                     what->short_name, field->name)
                     : check_field(what, field, bound, &raw, depth, &scan, err);
    }
    *arena += scan.arena + message_arena(what, &scan);
    return status;
}

enum kms_status kms_agent_check(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                size_t *ret_arena, struct kms_error *err)
{
    size_t arena = 0;
    enum kms_status status = KMS_OK;

    if (body.len > KMS_AGENT_FRAME_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent message of %zu bytes, at most %u",
                             body.len, KMS_AGENT_FRAME_MAX);
    }
    status = check_message(what, body, 1, &arena, err);
    if (status == KMS_OK) {
        *ret_arena = arena;
    }
    return status;
}
