/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of the vendor's CLI (aliyun configure), ~/.aliyun/config.json, as its SDKs read it:
 *
 *   {"current": "default", "profiles": [{"name": "default", "mode": "AK", "access_key_id": ...}]}
 *
 * Modes that need a browser, a command or another profile's identity are not served.
 */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/file.h"
#include "common/secure.h"

#define NAME_MAX_BYTES 256
#define VALUE_MAX      4096
#define SECONDS_MAX    43200 /* of AssumeRole and AssumeRoleWithOIDC */

/* What was read; the texts are @doc's. */
struct found {
    struct kms_json_doc *doc;
    char path[PATH_MAX];
    const char *name; /* of the profile that counts; NULL: there is none at all */
    const char *mode; /* NULL: there is no such profile */
    struct kms_ali_profile profile;
};

static const struct {
    const char *mode;
    enum kms_ali_way way;
} modes[] = {
    {"AK", KMS_ALI_BY_KEY},    {"StsToken", KMS_ALI_BY_TOKEN},     {"EcsRamRole", KMS_ALI_BY_ECS},
    {"OIDC", KMS_ALI_BY_OIDC}, {"CredentialsURI", KMS_ALI_BY_URI}, {"RamRoleArn", KMS_ALI_BY_ROLE},
};

static const char *asked_name(const struct kms_backend *b)
{
    return kms_ali_setting(b->ali->profile, "ALIBABA_CLOUD_PROFILE", NULL);
}

/* ---- reading ------------------------------------------------------------------------------ */

/* The CLI writes "" for what a profile does not have. */
static enum kms_status read_profile(const struct kms_json *object, struct found *found,
                                    struct kms_error *err)
{
    struct kms_ali_profile *profile = &found->profile;
    const struct {
        const char *key;
        size_t max;
        const char **text;
    } texts[] = {
        {"access_key_id", 256, &profile->key_id},
        {"access_key_secret", 512, &profile->secret},
        {"sts_token", KMS_CREDENTIAL_PART_MAX, &profile->token},
        {"ram_role_name", VALUE_MAX, &profile->ecs_role},
        {"credentials_uri", VALUE_MAX, &profile->uri},
        {"policy", VALUE_MAX, &profile->policy},
        {"external_id", VALUE_MAX, &profile->external_id},
        {"ram_role_arn", VALUE_MAX, &profile->oidc.role_arn},
        {"oidc_provider_arn", VALUE_MAX, &profile->oidc.provider_arn},
        {"oidc_token_file", VALUE_MAX, &profile->oidc.token_file},
        {"ram_session_name", VALUE_MAX, &profile->oidc.session_name},
    };
    uint64_t seconds = 0;
    enum kms_status status = kms_json_text_maybe(object, "mode", NAME_MAX_BYTES, &found->mode, err);

    for (size_t i = 0; status == KMS_OK && i < sizeof(texts) / sizeof(texts[0]); i++) {
        status = kms_json_text_maybe(object, texts[i].key, texts[i].max, texts[i].text, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64_maybe(object, "expired_seconds", 0, SECONDS_MAX, &seconds, err);
    }
    profile->oidc.seconds = (unsigned)seconds;
    return status;
}

/* The profile called @found->name, the first of that name as in the SDKs. */
static enum kms_status pick_profile(const struct kms_json *profiles, struct found *found,
                                    struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < kms_json_count(profiles); i++) {
        struct kms_json object;
        const char *name = NULL;

        status = kms_json_object_at(profiles, i, &object, err);
        if (status == KMS_OK) {
            status = kms_json_text(&object, "name", NAME_MAX_BYTES, &name, err);
        }
        if (status == KMS_OK && strcmp(name, found->name) == 0) {
            found->mode = "";
            return read_profile(&object, found, err);
        }
    }
    return status;
}

static enum kms_status read_root(struct kms_backend *b, const struct kms_json *root,
                                 struct found *found, struct kms_error *err)
{
    const char *current = NULL;
    struct kms_json profiles;
    enum kms_status status = kms_json_text_maybe(root, "current", NAME_MAX_BYTES, &current, err);

    if (status != KMS_OK || !kms_json_has(root, "profiles")) {
        return status;
    }
    status = kms_json_array(root, "profiles", &profiles, err);
    if (status != KMS_OK || kms_json_count(&profiles) == 0) {
        return status;
    }
    found->name = kms_ali_setting(asked_name(b), NULL, current);
    if (found->name == NULL || found->name[0] == '\0') {
        return kms_error_set(err, KMS_E_INVALID, "%s names no current profile", found->path);
    }
    (void)snprintf(found->profile.where, sizeof(found->profile.where), "cli: %.128s: profile %.64s",
                   found->path, found->name);
    return pick_profile(&profiles, found, err);
}

/* KMS_E_INVALID for what a file has wrong, by its place in it; @found is for free_found() then,
 * too. */
static enum kms_status read_file(struct kms_backend *b, struct found *found, struct kms_error *err)
{
    char *content = NULL;
    size_t len = 0;
    struct kms_json root;
    enum kms_status status =
        kms_file_read(found->path, KMS_FILE_SECRET, KMS_ALI_PROFILE_FILE_MAX, &content, &len, err);

    if (status == KMS_OK) {
        status = kms_json_parse(found->path, kms_span_of(content, len), &found->doc, &root, err);
        kms_secure_free(content);
    }
    if (status == KMS_OK) {
        status = read_root(b, &root, found, err);
    }
    if (status == KMS_OK) {
        return KMS_OK;
    }
    return kms_error_reword(err, status == KMS_E_PROTOCOL ? KMS_E_INVALID : status, "cli: %s",
                            err->text);
}

static void free_found(struct found *found)
{
    kms_json_free(found->doc);
}

static bool find(struct kms_backend *b, struct found *ret, struct kms_error *why)
{
    static const char *const places[] = {".aliyun/config.json", NULL};

    *ret = (struct found){.doc = NULL};
    return kms_ali_find_file("cli", b->ali->cli_file, "ALIBABA_CLOUD_CONFIG_FILE", places,
                             ret->path, why);
}

/* ---- the source --------------------------------------------------------------------------- */

static bool is_empty(const char *text)
{
    return text == NULL || text[0] == '\0';
}

/* The CLI makes a profile "default" without a key when it is first run. */
static bool is_blank(const struct found *found)
{
    return found->mode != NULL && (is_empty(found->mode) || strcmp(found->mode, "AK") == 0) &&
           is_empty(found->profile.key_id) && is_empty(found->profile.secret);
}

static bool say(struct kms_error *why, const struct found *found, const char *what)
{
    (void)kms_error_set(why, KMS_E_NOT_FOUND, "%s %s", found->profile.where, what);
    return false;
}

/* The file has something to say: another profile than the one that is asked for may be all that the
 * CLI has, and then it is the other file's turn. */
static bool has_profile(struct kms_backend *b, const struct found *found, struct kms_error *why)
{
    struct kms_error other = KMS_ERROR_INIT;

    if (found->name == NULL) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND, "cli: %s has no profiles", found->path);
        return false;
    }
    if (found->mode == NULL && asked_name(b) != NULL && kms_ali_has_profile(b, &other)) {
        return say(why, found, "is not there");
    }
    return !is_blank(found) || say(why, found, "has no access key yet");
}

bool kms_ali_has_cli(struct kms_backend *b, struct kms_error *why)
{
    struct kms_error ignored = KMS_ERROR_INIT;
    struct found found;
    bool has = false;

    if (kms_ali_is_true("ALIBABA_CLOUD_CLI_PROFILE_DISABLED")) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND,
                            "cli: ALIBABA_CLOUD_CLI_PROFILE_DISABLED is true");
        return false;
    }
    if (b->ali->profile_file != NULL && b->ali->cli_file == NULL) {
        /* what is named in the configuration goes before what lies about in a home */
        (void)kms_error_set(why, KMS_E_NOT_FOUND, "cli: profile_file is set, cli_file is not");
        return false;
    }
    if (!find(b, &found, why)) {
        return false;
    }
    has = read_file(b, &found, &ignored) != KMS_OK || has_profile(b, &found, why);
    free_found(&found);
    return has;
}

static enum kms_status use_found(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct found *found, struct kms_credential_slot *slot,
                                 struct kms_error *err)
{
    if (found->name == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "cli: %s has no profiles", found->path);
    }
    if (found->mode == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "%s is not there", found->profile.where);
    }
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(found->mode, modes[i].mode) == 0) {
            found->profile.way = modes[i].way;
            if (modes[i].way == KMS_ALI_BY_KEY) {
                found->profile.token = NULL; /* left from another mode, perhaps */
            }
            return kms_ali_use_profile(b, wait, &found->profile, slot, err);
        }
    }
    return kms_error_set(err, KMS_E_UNSUPPORTED,
                         "%s has the mode \"%.32s\"; there are AK, StsToken, EcsRamRole, OIDC, "
                         "CredentialsURI and RamRoleArn",
                         found->profile.where, found->mode);
}

enum kms_status kms_ali_from_cli(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    struct found found;
    enum kms_status status = KMS_OK;

    if (!find(b, &found, err)) {
        return KMS_E_NOT_FOUND;
    }
    status = read_file(b, &found, err);
    if (status == KMS_OK) {
        status = use_found(b, wait, &found, slot, err);
    }
    free_found(&found);
    return status;
}
