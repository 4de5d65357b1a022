/* SPDX-License-Identifier: Apache-2.0 */
/* What keys are: refs, identities, and the replies that describe them. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/alibaba_parts.h"
#include "common/codec.h"

#define IDENTITY_TEXT "kmsbridge alibaba key id v1"
#define IDENTITY_LEN  20

/*
 * The vendor's list of HMAC keys' KeySpecs could not be had, only that each has its Algorithm
 * (HMAC_SHA_224 to _512, HMAC_SM3): that name, a shorter one, and both behind "Aliyun_", as other
 * symmetric keys have it, are taken. Their length is told nowhere.
 */
static const struct kms_ali_spec specs[] = {
    {"Aliyun_AES_256", KMS_KEY_AES, 256, KMS_ALG_NONE},
    {"Aliyun_AES_192", KMS_KEY_AES, 192, KMS_ALG_NONE},
    {"Aliyun_AES_128", KMS_KEY_AES, 128, KMS_ALG_NONE},
    {"Aliyun_SM4", KMS_KEY_SM4, 128, KMS_ALG_NONE},
    {"RSA_2048", KMS_KEY_RSA, 2048, KMS_ALG_NONE},
    {"RSA_3072", KMS_KEY_RSA, 3072, KMS_ALG_NONE},
    {"RSA_4096", KMS_KEY_RSA, 4096, KMS_ALG_NONE},
    {"EC_P256", KMS_KEY_EC, 256, KMS_ALG_NONE},
    {"HMAC_SHA_224", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA224},
    {"HMAC_SHA_256", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA256},
    {"HMAC_SHA_384", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA384},
    {"HMAC_SHA_512", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA512},
    {"HMAC_224", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA224},
    {"HMAC_256", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA256},
    {"HMAC_384", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA384},
    {"HMAC_512", KMS_KEY_GENERIC, 0, KMS_ALG_HMAC_SHA512},
};

const struct kms_ali_spec *kms_ali_spec_named(const char *name)
{
    static const char prefix[] = "Aliyun_";

    if (strncmp(name, "Aliyun_HMAC_", strlen("Aliyun_HMAC_")) == 0) {
        name += strlen(prefix);
    }
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        if (strcmp(specs[i].name, name) == 0) {
            return &specs[i];
        }
    }
    return NULL;
}

/* ---- names -------------------------------------------------------------------------------- */

bool kms_ali_is_id(const char *text, size_t len)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    return len > 0 && len < KMS_ALI_ID_MAX && strspn(text, chars) >= len;
}

enum kms_status kms_ali_ref_parse(const char *ref, struct kms_ali_ref *ret, struct kms_error *err)
{
    const char *slash = strchr(ref, '/');

    if (slash == NULL || !kms_ali_is_id(ref, (size_t)(slash - ref)) ||
        !kms_ali_is_id(slash + 1, strlen(slash + 1))) {
        return kms_error_set(err, KMS_E_NOT_FOUND, "no key has the ref \"%.64s\"", ref);
    }
    memcpy(ret->key, ref, (size_t)(slash - ref));
    ret->key[slash - ref] = '\0';
    memcpy(ret->version, slash + 1, strlen(slash + 1) + 1);
    return KMS_OK;
}

/* SHA-256 over the identity's text, the key and the version, each with its NUL but for the last. */
static bool hash_names(const char *key, const char *version, uint8_t ret_hash[EVP_MAX_MD_SIZE])
{
    uint8_t storage[sizeof(IDENTITY_TEXT) + 2 * KMS_ALI_ID_MAX];
    struct kms_buf text = KMS_BUF_OVER(storage);

    return kms_ali_is_id(key, strlen(key)) && kms_ali_is_id(version, strlen(version)) &&
           kms_buf_put(&text, kms_span_of(IDENTITY_TEXT, sizeof(IDENTITY_TEXT))) == KMS_OK &&
           kms_buf_put(&text, kms_span_of(key, strlen(key) + 1)) == KMS_OK &&
           kms_buf_put(&text, kms_span_str(version)) == KMS_OK &&
           EVP_Digest(text.data, text.len, ret_hash, NULL, EVP_sha256(), NULL) == 1;
}

bool kms_ali_identity(const char *key, const char *version, char ret_id[KMS_KEY_ID_MAX])
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    if (!hash_names(key, version, hash)) {
        return false;
    }
    memcpy(ret_id, "ali1-", 5);
    return kms_hex_encode(kms_span_of(hash, IDENTITY_LEN), ret_id + 5, KMS_KEY_ID_MAX - 5) ==
           KMS_OK;
}

enum kms_status kms_ali_check_key(struct kms_call *call, const struct kms_ali_reply *reply,
                                  const char *action, const char *key, const char **ret_version)
{
    const char *replied = NULL;
    enum kms_status status =
        kms_json_text(&reply->root, "KeyId", KMS_ALI_ID_MAX - 1, &replied, &call->error);

    if (status == KMS_OK) {
        status = kms_json_text(&reply->root, "KeyVersionId", KMS_ALI_ID_MAX - 1, ret_version,
                               &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (strcmp(replied, key) != 0) {
        return kms_ali_protocol(call, reply, action, "is about another key");
    }
    if (!kms_ali_is_id(*ret_version, strlen(*ret_version))) {
        return kms_ali_protocol(call, reply, action, "names no key version");
    }
    return KMS_OK;
}

/* ---- KeyMetadata -------------------------------------------------------------------------- */

bool kms_ali_date(const char *text, uint64_t *ret_seconds)
{
    struct tm tm = {.tm_isdst = 0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    time_t seconds = end == NULL || *end != '\0' ? -1 : timegm(&tm);

    if (seconds < 0) {
        return false;
    }
    *ret_seconds = (uint64_t)seconds;
    return true;
}

enum kms_status kms_ali_take_text(const struct kms_json *object, const char *key, bool maybe,
                                  char *ret, size_t size, struct kms_error *err)
{
    const char *text = "";
    enum kms_status status = maybe ? kms_json_text_maybe(object, key, size - 1, &text, err)
                                   : kms_json_text(object, key, size - 1, &text, err);

    if (status == KMS_OK) {
        (void)snprintf(ret, size, "%s", text);
    }
    return status;
}

enum kms_status kms_ali_key_read(const struct kms_json *metadata, struct kms_ali_key *ret,
                                 struct kms_error *err)
{
    char usage[32] = "";
    char origin[32] = "";
    char state[32] = "";
    char date[32] = "";
    struct kms_ali_key key = {.spec = NULL};
    const struct {
        const char *name;
        bool maybe;
        char *to;
        size_t size;
    } fields[] = {
        {"KeyId", false, key.id, sizeof(key.id)},
        {"Arn", false, key.arn, sizeof(key.arn)},
        {"KeySpec", false, key.spec_name, sizeof(key.spec_name)},
        {"KeyUsage", false, usage, sizeof(usage)},
        {"KeyState", false, state, sizeof(state)},
        {"PrimaryKeyVersion", true, key.primary, sizeof(key.primary)},
        {"Origin", true, origin, sizeof(origin)},
        {"CreationDate", true, date, sizeof(date)},
    };
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(fields) / sizeof(fields[0]); i++) {
        status = kms_ali_take_text(metadata, fields[i].name, fields[i].maybe, fields[i].to,
                                   fields[i].size, err);
    }
    if (status != KMS_OK) {
        return status;
    }
    key.spec = kms_ali_spec_named(key.spec_name);
    key.encrypts = strcmp(usage, "ENCRYPT/DECRYPT") == 0;
    key.local = strcmp(origin, "EXTERNAL") != 0;
    key.leaving = strcmp(state, "PendingDeletion") == 0;
    if (key.arn[0] == '\0') { /* whose hash is the CKA_ID */
        return kms_error_set(err, KMS_E_PROTOCOL,
                             "the reply's KeyMetadata has an Arn that is none");
    }
    if (!kms_ali_is_id(key.id, strlen(key.id)) ||
        (key.primary[0] != '\0' && !kms_ali_is_id(key.primary, strlen(key.primary)))) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply's KeyMetadata has an id that is none");
    }
    if (key.spec != NULL && kms_ali_seals(key.spec->type) && key.primary[0] == '\0' &&
        strcmp(state, "PendingImport") != 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply lacks KeyMetadata.PrimaryKeyVersion");
    }
    if (key.spec != NULL && key.spec->type == KMS_KEY_GENERIC &&
        !kms_ali_date(date, &key.seconds)) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply lacks KeyMetadata.CreationDate");
    }
    *ret = key;
    return KMS_OK;
}

enum kms_status kms_ali_describe(struct kms_backend *b, struct kms_call *call, const char *name,
                                 struct kms_ali_key *ret)
{
    struct kms_ali_ask ask = {.action = "DescribeKey"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_json metadata;
    enum kms_status status = KMS_OK;

    kms_ali_param_text(&ask, "KeyId", name);
    status = kms_ali_call(b, call, &ask, &reply);
    if (status == KMS_OK) {
        status = kms_json_object(&reply.root, "KeyMetadata", &metadata, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_key_read(&metadata, ret, &call->error);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}
