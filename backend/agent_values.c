/* SPDX-License-Identifier: Apache-2.0 */
/* The waist's structs as messages of the agent protocol, and back. */
#include "backend/agent_wire.h"

#include <string.h>

/* What crosses as it is: numbers of version 1, which the enums may never leave. */
_Static_assert(KMS_KEY_AES == 0 && KMS_KEY_GENERIC == 1 && KMS_KEY_RSA == 2 && KMS_KEY_EC == 3 &&
                   KMS_KEY_EDDSA == 4 && KMS_KEY_CHACHA20 == 5 && KMS_KEY_SM4 == 6,
               "key types cross the wire");
_Static_assert(KMS_USE_ENCRYPT == 1 && KMS_USE_DECRYPT == 2 && KMS_USE_WRAP == 4 &&
                   KMS_USE_UNWRAP == 8 && KMS_USE_SIGN == 16 && KMS_USE_VERIFY == 32,
               "uses cross the wire");
_Static_assert(KMS_ALG_AES_GCM == 1 && KMS_ALG_SEALED == 4 && KMS_ALG_CHACHA20_POLY1305 == 5 &&
                   KMS_ALG_BEST == 15 && KMS_ALG_AES_CBC == 16 && KMS_ALG_RSA_OAEP_SHA1 == 32 &&
                   KMS_ALG_ECDSA == 48 && KMS_ALG_HMAC_SHA1 == 64,
               "algorithms cross the wire");

#define USES_ALL                                                                                   \
    ((unsigned)KMS_USE_ENCRYPT | (unsigned)KMS_USE_DECRYPT | (unsigned)KMS_USE_WRAP |              \
     (unsigned)KMS_USE_UNWRAP | (unsigned)KMS_USE_SIGN | (unsigned)KMS_USE_VERIFY)

/* Error.status of version 1. A status that is new here gets the next number; none is used twice. */
static const struct {
    enum kms_status status;
    uint32_t wire;
} statuses[] = {
    {KMS_OK, 0},          {KMS_E_INVALID, 1},    {KMS_E_BAD_DATA, 2},    {KMS_E_TOO_LARGE, 3},
    {KMS_E_NOT_FOUND, 4}, {KMS_E_EXISTS, 5},     {KMS_E_UNSUPPORTED, 6}, {KMS_E_AUTH, 7},
    {KMS_E_DENIED, 8},    {KMS_E_KEY_STATE, 9},  {KMS_E_THROTTLED, 10},  {KMS_E_UNAVAILABLE, 11},
    {KMS_E_TIMEOUT, 12},  {KMS_E_CANCELLED, 13}, {KMS_E_PROTOCOL, 14},   {KMS_E_BUSY, 15},
    {KMS_E_NOMEM, 16},    {KMS_E_INTERNAL, 17},
};
#define STATUSES (sizeof(statuses) / sizeof(statuses[0]))
_Static_assert(STATUSES == KMS_STATUS_COUNT, "every status has its number on the wire");

static uint32_t wire_of(enum kms_status status)
{
    for (size_t i = 0; i < STATUSES; i++) {
        if (statuses[i].status == status) {
            return statuses[i].wire;
        }
    }
    return 17;
}

/* A number that we do not know comes from a newer agent: an error all the same. */
static enum kms_status status_of(uint32_t wire)
{
    for (size_t i = 0; i < STATUSES; i++) {
        if (statuses[i].wire == wire) {
            return statuses[i].status;
        }
    }
    return KMS_E_INTERNAL;
}

/* ---- bytes and texts ------------------------------------------------------------------------ */

/* protobuf-c's struct has no const; packing only reads. */
ProtobufCBinaryData kms_agent_put_span(struct kms_span span)
{
    union {
        const uint8_t *borrowed;
        uint8_t *data;
    } pointer = {.borrowed = span.data};

    return (ProtobufCBinaryData){.len = span.len, .data = pointer.data};
}

ProtobufCBinaryData kms_agent_put_text(const char *text)
{
    return kms_agent_put_span(kms_span_str(text));
}

enum kms_status kms_agent_get_text(const char *field, ProtobufCBinaryData bytes, char *ret_text,
                                   size_t size, struct kms_error *err)
{
    if (bytes.len >= size) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s is too long", field);
    }
    if (bytes.len > 0 && memchr(bytes.data, '\0', bytes.len) != NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s has a NUL", field);
    }
    if (bytes.len > 0) {
        memcpy(ret_text, bytes.data, bytes.len);
    }
    ret_text[bytes.len] = '\0';
    return KMS_OK;
}

/* One text of several: does nothing once something failed. */
struct texts {
    struct kms_error *err;
    enum kms_status status;
};

static void get(struct texts *texts, const char *field, ProtobufCBinaryData bytes, char *ret_text,
                size_t size)
{
    if (texts->status == KMS_OK) {
        texts->status = kms_agent_get_text(field, bytes, ret_text, size, texts->err);
    }
}

static void put_algs(const struct kms_alg_set *algs, Kms__Agent__AlgSet *ret_message)
{
    kms__agent__alg_set__init(ret_message);
    ret_message->low = algs->bits[0];
    ret_message->high = algs->bits[1];
}

static struct kms_alg_set get_algs(const Kms__Agent__AlgSet *message)
{
    return message == NULL ? (struct kms_alg_set){.bits = {0, 0}}
                           : (struct kms_alg_set){.bits = {message->low, message->high}};
}

/* ---- params --------------------------------------------------------------------------------- */

void kms_agent_put_params(const struct kms_params *params, Kms__Agent__Params *ret_message)
{
    kms__agent__params__init(ret_message);
    ret_message->alg = (uint32_t)params->alg;
    ret_message->aad = kms_agent_put_span(params->aad);
    ret_message->iv = kms_agent_put_span(params->iv);
    ret_message->tag_len = params->tag_len;
    ret_message->ctr_bits = params->ctr_bits;
    ret_message->salt_given = params->salt_given;
    ret_message->salt_len = params->salt_len;
}

enum kms_status kms_agent_get_params(const Kms__Agent__Params *message,
                                     struct kms_params *ret_params, struct kms_error *err)
{
    if (message == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: KeyOp.params is missing");
    }
    if (message->alg > 127) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Params.alg is out of range");
    }
    *ret_params = (struct kms_params){
        .alg = (enum kms_alg)message->alg,
        .aad = kms_agent_get_span(message->aad),
        .iv = kms_agent_get_span(message->iv),
        .tag_len = message->tag_len,
        .ctr_bits = message->ctr_bits,
        .salt_given = message->salt_given != 0,
        .salt_len = message->salt_len,
    };
    return KMS_OK;
}

/* ---- keys ----------------------------------------------------------------------------------- */

void kms_agent_put_key(const struct kms_key_info *info, Kms__Agent__Key *ret_message,
                       Kms__Agent__AlgSet *ret_algs)
{
    kms__agent__key__init(ret_message);
    put_algs(&info->algs, ret_algs);
    ret_message->ref = kms_agent_put_text(info->ref);
    ret_message->id = kms_agent_put_text(info->id);
    ret_message->label = kms_agent_put_text(info->label);
    ret_message->tag = kms_agent_put_span(kms_span_of(info->tag, info->tag_len));
    ret_message->type = (uint32_t)info->type;
    ret_message->bits = info->bits;
    ret_message->uses = info->uses;
    ret_message->extractable = info->extractable;
    ret_message->always_sensitive = info->always_sensitive;
    ret_message->never_extractable = info->never_extractable;
    ret_message->local = info->local;
    ret_message->seal = (uint32_t)info->seal;
    ret_message->algs = ret_algs;
    ret_message->name = kms_agent_put_text(info->name);
    ret_message->version = kms_agent_put_text(info->version);
    ret_message->latest = info->latest;
}

static enum kms_status check_key(const Kms__Agent__Key *message, struct kms_error *err)
{
    if (message->type >= KMS_KEY_TYPE_COUNT) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Key.type is out of range");
    }
    if ((message->uses & ~USES_ALL) != 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Key.uses has an unknown bit");
    }
    if (message->seal > 127) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Key.seal is out of range");
    }
    if (message->tag.len > KMS_KEY_TAG_MAX) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Key.tag is too long");
    }
    if (message->ref.len == 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Key.ref is missing");
    }
    return KMS_OK;
}

enum kms_status kms_agent_get_key(const Kms__Agent__Key *message, struct kms_key_info *ret_info,
                                  struct kms_error *err)
{
    struct texts texts = {.err = err, .status = check_key(message, err)};
    struct kms_key_info info = {
        .type = (enum kms_key_type)message->type,
        .bits = message->bits,
        .uses = message->uses,
        .extractable = message->extractable != 0,
        .always_sensitive = message->always_sensitive != 0,
        .never_extractable = message->never_extractable != 0,
        .local = message->local != 0,
        .seal = (enum kms_alg)message->seal,
        .algs = get_algs(message->algs),
        .latest = message->latest != 0,
    };

    get(&texts, "Key.ref", message->ref, info.ref, sizeof(info.ref));
    get(&texts, "Key.id", message->id, info.id, sizeof(info.id));
    get(&texts, "Key.label", message->label, info.label, sizeof(info.label));
    get(&texts, "Key.name", message->name, info.name, sizeof(info.name));
    get(&texts, "Key.version", message->version, info.version, sizeof(info.version));
    if (texts.status != KMS_OK) {
        return texts.status;
    }
    if (message->tag.len > 0) {
        memcpy(info.tag, message->tag.data, message->tag.len);
    }
    info.tag_len = message->tag.len;
    *ret_info = info;
    return KMS_OK;
}

/* ---- tokens --------------------------------------------------------------------------------- */

void kms_agent_put_token(const char *name, const struct kms_token_info *info,
                         Kms__Agent__Token *ret_message, Kms__Agent__AlgSet *ret_algs)
{
    kms__agent__token__init(ret_message);
    put_algs(&info->algs, ret_algs);
    ret_message->name = kms_agent_put_text(name);
    ret_message->label = kms_agent_put_text(info->label);
    ret_message->manufacturer = kms_agent_put_text(info->manufacturer);
    ret_message->model = kms_agent_put_text(info->model);
    ret_message->serial = kms_agent_put_text(info->serial);
    ret_message->hardware = info->hardware;
    ret_message->random = info->random;
    ret_message->data_keys = info->data_keys;
    ret_message->algs = ret_algs;
    ret_message->generates = info->generates;
}

enum kms_status kms_agent_get_token(const Kms__Agent__Token *message,
                                    char ret_name[KMS_AGENT_NAME_MAX],
                                    struct kms_token_info *ret_info, struct kms_error *err)
{
    struct texts texts = {.err = err, .status = KMS_OK};
    struct kms_token_info info = {
        .hardware = message->hardware != 0,
        .random = message->random != 0,
        .data_keys = message->data_keys != 0,
        .algs = get_algs(message->algs),
        .generates = message->generates & ((1u << KMS_KEY_TYPE_COUNT) - 1),
    };

    if (message->name.len == 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Token.name is missing");
    }
    get(&texts, "Token.name", message->name, ret_name, KMS_AGENT_NAME_MAX);
    get(&texts, "Token.label", message->label, info.label, sizeof(info.label));
    get(&texts, "Token.manufacturer", message->manufacturer, info.manufacturer,
        sizeof(info.manufacturer));
    get(&texts, "Token.model", message->model, info.model, sizeof(info.model));
    get(&texts, "Token.serial", message->serial, info.serial, sizeof(info.serial));
    if (texts.status == KMS_OK) {
        *ret_info = info;
    }
    return texts.status;
}

/* ---- errors --------------------------------------------------------------------------------- */

void kms_agent_put_error(const struct kms_error *error, Kms__Agent__Error *ret_message)
{
    kms__agent__error__init(ret_message);
    ret_message->status = wire_of(error->status);
    ret_message->code = kms_agent_put_text(error->code);
    ret_message->request_id = kms_agent_put_text(error->request_id);
    ret_message->text = kms_agent_put_text(error->text);
}

/* Cut to what fits, control characters replaced: it goes into logs. */
static void get_line(ProtobufCBinaryData bytes, char *ret_text, size_t size)
{
    size_t len = bytes.len < size ? bytes.len : size - 1;

    for (size_t i = 0; i < len; i++) {
        bool control = bytes.data[i] < 0x20 || bytes.data[i] == 0x7f;

        ret_text[i] = control ? ' ' : (char)bytes.data[i];
    }
    ret_text[len] = '\0';
}

void kms_agent_get_error(const Kms__Agent__Error *message, struct kms_error *ret_error)
{
    ret_error->status = status_of(message->status);
    get_line(message->code, ret_error->code, sizeof(ret_error->code));
    get_line(message->request_id, ret_error->request_id, sizeof(ret_error->request_id));
    get_line(message->text, ret_error->text, sizeof(ret_error->text));
}
