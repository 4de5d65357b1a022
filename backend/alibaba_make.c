/* SPDX-License-Identifier: Apache-2.0 */
/* CreateKey, CreateKeyVersion, ScheduleKeyDeletion: what is done once, and never again by itself.
 */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"

#define ALIAS_MAX   (KMS_LABEL_MAX + 8)
#define DESCRIPTION "kmsbridge: "

/* ---- generate ----------------------------------------------------------------------------- */

static const struct kms_ali_spec *spec_for(const struct kms_key_template *tmpl)
{
    static const struct {
        enum kms_key_type type;
        unsigned bits; /* 0: the usual */
        const char *name;
    } all[] = {
        {KMS_KEY_AES, 0, "Aliyun_AES_256"},   {KMS_KEY_AES, 256, "Aliyun_AES_256"},
        {KMS_KEY_AES, 192, "Aliyun_AES_192"}, {KMS_KEY_AES, 128, "Aliyun_AES_128"},
        {KMS_KEY_SM4, 0, "Aliyun_SM4"},       {KMS_KEY_SM4, 128, "Aliyun_SM4"},
        {KMS_KEY_RSA, 0, "RSA_3072"},         {KMS_KEY_RSA, 2048, "RSA_2048"},
        {KMS_KEY_RSA, 3072, "RSA_3072"},      {KMS_KEY_RSA, 4096, "RSA_4096"},
        {KMS_KEY_EC, 0, "EC_P256"},           {KMS_KEY_EC, 256, "EC_P256"},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].type == tmpl->type && all[i].bits == tmpl->bits) {
            return kms_ali_spec_named(all[i].name);
        }
    }
    return NULL;
}

/* What the template asks for in the service's words; "": by both or neither, which it has not. */
static const char *usage_for(const struct kms_key_template *tmpl)
{
    const unsigned crypts = (unsigned)KMS_USE_ENCRYPT | (unsigned)KMS_USE_DECRYPT |
                            (unsigned)KMS_USE_WRAP | (unsigned)KMS_USE_UNWRAP;
    bool crypt = (tmpl->uses & crypts) != 0;
    bool sign = (tmpl->uses & ~crypts) != 0;

    if (tmpl->uses == 0) {
        return kms_ali_seals(tmpl->type) ? "ENCRYPT/DECRYPT" : "SIGN/VERIFY";
    }
    if (crypt == sign) {
        return "";
    }
    return crypt ? "ENCRYPT/DECRYPT" : "SIGN/VERIFY";
}

/* CreateAlias: 1 to 255 characters with "alias/", letters, digits, '_', '-', '/'. */
static bool is_alias(const char *label)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-/";
    size_t len = label == NULL ? 0 : strlen(label);

    return len > 0 && len <= 249 && strspn(label, chars) == len;
}

static bool has_instance(const struct kms_alibaba_conf *ali)
{
    return ali->instance != NULL && ali->instance[0] != '\0';
}

/* Other services have such keys; AES of less than 256 bits is for a KMS instance of one's own. */
static bool is_elsewhere(const struct kms_alibaba_conf *ali, const struct kms_key_template *tmpl)
{
    return (tmpl->type == KMS_KEY_AES && !has_instance(ali) &&
            (tmpl->bits == 128 || tmpl->bits == 192)) ||
           (tmpl->type == KMS_KEY_EC && (tmpl->bits == 384 || tmpl->bits == 521));
}

static enum kms_status check_template(const struct kms_alibaba_conf *ali,
                                      const struct kms_key_template *tmpl, struct kms_error *err)
{
    if (!is_alias(tmpl->label)) {
        return kms_error_set(err, KMS_E_INVALID,
                             "a label becomes the key's alias: 1 to 249 letters, digits, '_', '-' "
                             "and '/'");
    }
    if (tmpl->tag.len != 0) {
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "Alibaba Cloud KMS gives keys their identity itself: no CKA_ID");
    }
    if (tmpl->type == KMS_KEY_GENERIC) { /* what KeySpec to ask for is told nowhere */
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "HMAC keys of Alibaba Cloud KMS are made in its console");
    }
    if (!kms_ali_seals(tmpl->type) && tmpl->type != KMS_KEY_RSA && tmpl->type != KMS_KEY_EC) {
        return kms_error_set(err, KMS_E_UNSUPPORTED, "Alibaba Cloud KMS makes no %s keys",
                             kms_key_type_name(tmpl->type));
    }
    if (spec_for(tmpl) == NULL || is_elsewhere(ali, tmpl)) {
        return kms_error_set(err, is_elsewhere(ali, tmpl) ? KMS_E_UNSUPPORTED : KMS_E_INVALID,
                             "Alibaba Cloud KMS makes no %s keys of %u bits%s",
                             kms_key_type_name(tmpl->type), tmpl->bits,
                             tmpl->type == KMS_KEY_AES ? " outside an instance" : "");
    }
    if (usage_for(tmpl)[0] == '\0') {
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "a key of Alibaba Cloud KMS encrypts, or it signs");
    }
    return KMS_OK;
}

/* Whose alias it is; *ret_move: a key's that is to be deleted, so that it may be moved. */
static enum kms_status look_for_alias(struct kms_backend *b, struct kms_call *call,
                                      const char *alias, bool *ret_move)
{
    struct kms_ali_key key;
    enum kms_status status = kms_ali_describe(b, call, alias, &key);

    *ret_move = status == KMS_OK && key.leaving;
    if (status == KMS_E_NOT_FOUND) {
        kms_error_clear(&call->error);
        return KMS_OK;
    }
    return status != KMS_OK || *ret_move
               ? status
               : kms_error_set(&call->error, KMS_E_EXISTS, "%s is the alias of key %s", alias,
                               key.id);
}

/* A key may have been made whose KeyId nobody knows: its description is how to find it. */
static enum kms_status tell_of_key(struct kms_call *call, const struct kms_ali_reply *reply,
                                   const char *description)
{
    enum kms_status status = call->error.status;

    if (!reply->response.was_sent || (status != KMS_E_UNAVAILABLE && status != KMS_E_TIMEOUT &&
                                      status != KMS_E_CANCELLED && status != KMS_E_PROTOCOL)) {
        return status;
    }
    return kms_error_reword(
        &call->error, status,
        "there may be a key without an alias now, with the description \"%s\": %s", description,
        call->error.text);
}

/* Instances have SM4 keys, and regions with managed HSMs had them without one: so the service is
 * asked, which does not say what it misses. */
static enum kms_status tell_of_instance(const struct kms_alibaba_conf *ali, struct kms_call *call,
                                        const struct kms_key_template *tmpl)
{
    enum kms_status status = call->error.status;

    if (tmpl->type != KMS_KEY_SM4 || has_instance(ali) ||
        (status != KMS_E_INVALID && status != KMS_E_UNSUPPORTED)) {
        return status;
    }
    return kms_error_reword(&call->error, status,
                            "%s (SM4 keys are of a KMS instance, and alibaba.instance is not set)",
                            call->error.text);
}

static enum kms_status create_key(struct kms_backend *b, struct kms_call *call,
                                  const struct kms_key_template *tmpl, const char *alias,
                                  struct kms_ali_key *ret_key)
{
    char description[ALIAS_MAX + sizeof(DESCRIPTION)];
    struct kms_ali_ask ask = {.action = "CreateKey", .once = true};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_json metadata;
    enum kms_status status = KMS_OK;

    kms_ali_param_text(&ask, "KeySpec", spec_for(tmpl)->name);
    kms_ali_param_text(&ask, "KeyUsage", usage_for(tmpl));
    (void)snprintf(description, sizeof(description), DESCRIPTION "%s", alias);
    kms_ali_param_text(&ask, "Description", description);
    if (has_instance(b->ali)) {
        kms_ali_param_text(&ask, "DKMSInstanceId", b->ali->instance);
    }
    status = kms_ali_call(b, call, &ask, &reply);
    if (status == KMS_OK) {
        status = kms_json_object(&reply.root, "KeyMetadata", &metadata, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_key_read(&metadata, ret_key, &call->error);
    }
    if (status == KMS_OK && ret_key->spec != spec_for(tmpl)) {
        status = kms_ali_protocol(call, &reply, ask.action, "is about another kind of key");
    }
    if (status != KMS_OK) {
        status = tell_of_instance(b->ali, call, tmpl);
        status = tell_of_key(call, &reply, description);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

/* Of several requests the one that made something is told, unless another one failed. */
static void keep_request(const struct kms_call *call, char ret_id[KMS_ERROR_CODE_MAX])
{
    memcpy(ret_id, call->error.request_id, KMS_ERROR_CODE_MAX);
}

static void tell_request(struct kms_call *call, const char id[KMS_ERROR_CODE_MAX])
{
    if (call->error.status == KMS_OK || call->error.request_id[0] == '\0') {
        memcpy(call->error.request_id, id, KMS_ERROR_CODE_MAX);
    }
}

enum kms_status kms_ali_generate(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_key_template *tmpl, struct kms_key_info *ret_info)
{
    struct kms_ali_key key;
    char alias[ALIAS_MAX];
    char request_id[KMS_ERROR_CODE_MAX] = "";
    bool move = false;
    enum kms_status status = check_template(b->ali, tmpl, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    (void)snprintf(alias, sizeof(alias), "alias/%s", tmpl->label);
    status = look_for_alias(b, call, alias, &move);
    if (status == KMS_OK) {
        status = create_key(b, call, tmpl, alias, &key);
    }
    if (status == KMS_OK) {
        keep_request(call, request_id);
        status = kms_ali_name_key(b, call, key.id, alias, move);
    }
    if (status == KMS_OK) {
        status = tmpl->logical && kms_ali_is_logical(&key)
                     ? kms_ali_logical_info(&key, tmpl->label, ret_info, &call->error)
                     : kms_ali_latest(b, call, &key, tmpl->label, ret_info);
        if (status != KMS_OK) {
            status = kms_error_reword(&call->error, status, "key %s is made and named %s, but: %s",
                                      key.id, alias, call->error.text);
        }
    }
    tell_request(call, request_id);
    return status;
}

/* ---- destroy, rotate ---------------------------------------------------------------------- */

/* Only its latest version stands for the whole key. */
static enum kms_status check_latest(struct kms_backend *b, struct kms_call *call,
                                    const struct kms_ali_key *key, const char *ref)
{
    struct kms_key_info latest;
    enum kms_status status = kms_ali_latest(b, call, key, key->id, &latest);

    if (status == KMS_OK && strcmp(latest.ref, ref) != 0) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                               "Alibaba Cloud KMS deletes no single version: destroy the latest "
                               "one, %s, to schedule the whole key",
                               latest.version);
    }
    return status;
}

/* The whole key goes: so it may be asked of the logical key, or of what stands for it. */
enum kms_status kms_ali_destroy(struct kms_backend *b, struct kms_call *call, const char *ref)
{
    struct kms_ali_ref parsed;
    struct kms_ali_key key;
    enum kms_status status = kms_ali_ref_parse(ref, &parsed, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_describe(b, call, parsed.key, &key);
    }
    if (status == KMS_OK && key.leaving) {
        status = kms_error_set(&call->error, KMS_E_NOT_FOUND,
                               "key %s is scheduled for deletion already", key.id);
    }
    if (status == KMS_OK && key.spec == NULL) {
        status =
            kms_error_set(&call->error, KMS_E_UNSUPPORTED, "key %s is not of our kinds", key.id);
    }
    if (status == KMS_OK &&
        !(kms_ali_is_logical(&key) && strcmp(parsed.version, KMS_ALI_ANY_VERSION) == 0)) {
        status = check_latest(b, call, &key, ref);
    }
    return status == KMS_OK ? kms_ali_schedule_deletion(b, call, key.id) : status;
}

/* The version that CreateKeyVersion says it made, as a ref. */
static enum kms_status create_version(struct kms_backend *b, struct kms_call *call, const char *key,
                                      char ret_ref[KMS_KEY_REF_MAX])
{
    struct kms_ali_ask ask = {.action = "CreateKeyVersion", .once = true};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_json version;
    char id[KMS_ALI_ID_MAX];
    enum kms_status status = KMS_OK;

    kms_ali_param_text(&ask, "KeyId", key);
    status = kms_ali_call(b, call, &ask, &reply);
    if (status == KMS_OK) {
        status = kms_json_object(&reply.root, "KeyVersion", &version, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_take_text(&version, "KeyVersionId", false, id, sizeof(id), &call->error);
    }
    if (status == KMS_OK && !kms_ali_is_id(id, strlen(id))) {
        status = kms_ali_protocol(call, &reply, ask.action, "names no key version");
    }
    if (status == KMS_OK) {
        (void)snprintf(ret_ref, KMS_KEY_REF_MAX, "%s/%s", key, id);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

static bool note_one(void *ctx, const struct kms_key_info *info)
{
    struct kms_key_info *one = ctx;

    *one = *info;
    return false;
}

enum kms_status kms_ali_rotate(struct kms_backend *b, struct kms_call *call, const char *ref,
                               struct kms_key_info *ret_info)
{
    struct kms_ali_ref parsed;
    struct kms_key_info info = {.ref = ""};
    char made[KMS_KEY_REF_MAX];
    char request_id[KMS_ERROR_CODE_MAX] = "";
    const struct kms_key_filter only = {.ref = made};
    enum kms_status status = kms_ali_ref_parse(ref, &parsed, &call->error);

    if (status == KMS_OK && strcmp(parsed.version, KMS_ALI_NO_VERSION) == 0) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                               "an HMAC key of Alibaba Cloud KMS does not rotate");
    }
    if (status == KMS_OK) {
        status = create_version(b, call, parsed.key, made);
    }
    if (status == KMS_OK) {
        keep_request(call, request_id);
        status = kms_ali_list_keys(b, call, &only, note_one, &info);
        if (status != KMS_OK) { /* said, lest it is rotated once more */
            status = kms_error_reword(&call->error, status,
                                      "the new version %s is made; only it cannot be looked at: %s",
                                      made, call->error.text);
        }
    }
    if (status == KMS_OK && info.ref[0] == '\0') {
        status = kms_error_set(&call->error, KMS_E_UNAVAILABLE,
                               "the new version %s is made, and not listed yet", made);
    }
    if (status == KMS_OK) {
        *ret_info = info;
    }
    tell_request(call, request_id);
    return status;
}
