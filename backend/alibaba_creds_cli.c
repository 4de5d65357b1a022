/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of the vendor's CLI (aliyun configure), ~/.aliyun/config.json, as its SDKs read it:
 *
 *   {"current": "default", "profiles": [{"name": "default", "mode": "AK", "access_key_id": ...}]}
 *
 * Modes that need a browser or a command are not served.
 */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/file.h"
#include "common/secure.h"

#define NAME_MAX_BYTES 256
#define VALUE_MAX      4096
#define SECONDS_MAX    43200 /* of AssumeRole and AssumeRoleWithOIDC */
#define SOURCES_MAX    4     /* roles that are taken one by the other */
#define CHAINED        "ChainableRamRoleArn"

struct cli_profile {
    const char *mode;   /* NULL: there is no such profile */
    const char *source; /* the profile whose identity takes the role */
    struct kms_ali_profile profile;
};

/* What was read; the texts are @doc's. */
struct found {
    struct kms_json_doc *doc;
    char path[PATH_MAX];
    const char *name; /* of the profile that counts; NULL: there is none at all */
    struct kms_json profiles;
    struct cli_profile chosen;
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
static enum kms_status read_profile(const struct kms_json *object, struct cli_profile *ret,
                                    struct kms_error *err)
{
    struct kms_ali_profile *profile = &ret->profile;
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
        {"external_id", VALUE_MAX, &profile->external_id},
        {"source_profile", NAME_MAX_BYTES, &ret->source},
        {"ram_role_arn", VALUE_MAX, &profile->oidc.role_arn},
        {"oidc_provider_arn", VALUE_MAX, &profile->oidc.provider_arn},
        {"oidc_token_file", VALUE_MAX, &profile->oidc.token_file},
        {"ram_session_name", VALUE_MAX, &profile->oidc.session_name},
        {"policy", VALUE_MAX, &profile->oidc.policy},
        {"sts_region", VALUE_MAX, &profile->oidc.sts_region},
    };
    uint64_t seconds = 0;
    bool in_vpc = false;
    enum kms_status status = kms_json_text_maybe(object, "mode", NAME_MAX_BYTES, &ret->mode, err);

    for (size_t i = 0; status == KMS_OK && i < sizeof(texts) / sizeof(texts[0]); i++) {
        status = kms_json_text_maybe(object, texts[i].key, texts[i].max, texts[i].text, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64_maybe(object, "expired_seconds", 0, SECONDS_MAX, &seconds, err);
    }
    if (status == KMS_OK) {
        status = kms_json_bool_maybe(object, "enable_vpc", &in_vpc, err);
    }
    profile->oidc.seconds = (unsigned)seconds;
    if (kms_json_has(object, "enable_vpc")) {
        profile->oidc.sts_vpc = in_vpc ? "true" : "false";
    }
    return status;
}

/* The profile called @wanted, the first of that name as in the SDKs. */
static enum kms_status pick_profile(const struct found *found, const char *wanted,
                                    struct cli_profile *ret, struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    *ret = (struct cli_profile){.mode = NULL};
    (void)snprintf(ret->profile.where, sizeof(ret->profile.where), "cli: %.128s: profile %.64s",
                   found->path, wanted);
    for (size_t i = 0; status == KMS_OK && i < kms_json_count(&found->profiles); i++) {
        struct kms_json object;
        const char *name = NULL;

        status = kms_json_object_at(&found->profiles, i, &object, err);
        if (status == KMS_OK) {
            status = kms_json_text(&object, "name", NAME_MAX_BYTES, &name, err);
        }
        if (status == KMS_OK && strcmp(name, wanted) == 0) {
            ret->mode = "";
            return read_profile(&object, ret, err);
        }
    }
    return status;
}

static enum kms_status read_root(struct kms_backend *b, const struct kms_json *root,
                                 struct found *found, struct kms_error *err)
{
    const char *current = NULL;
    enum kms_status status = kms_json_text_maybe(root, "current", NAME_MAX_BYTES, &current, err);

    if (status != KMS_OK || !kms_json_has(root, "profiles")) {
        return status;
    }
    status = kms_json_array(root, "profiles", &found->profiles, err);
    if (status != KMS_OK || kms_json_count(&found->profiles) == 0) {
        return status;
    }
    found->name = kms_ali_setting(asked_name(b), NULL, current);
    if (found->name == NULL || found->name[0] == '\0') {
        return kms_error_set(err, KMS_E_INVALID, "%s names no current profile", found->path);
    }
    return pick_profile(found, found->name, &found->chosen, err);
}

/* KMS_E_INVALID for what a file has wrong, by its place in it. */
static enum kms_status tell_file(enum kms_status status, struct kms_error *err)
{
    return kms_error_reword(err, status == KMS_E_PROTOCOL ? KMS_E_INVALID : status, "cli: %s",
                            err->text);
}

/* @found is for free_found() in any case. */
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
    return status == KMS_OK ? KMS_OK : tell_file(status, err);
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
static bool is_blank(const struct cli_profile *chosen)
{
    return chosen->mode != NULL && (is_empty(chosen->mode) || strcmp(chosen->mode, "AK") == 0) &&
           is_empty(chosen->profile.key_id) && is_empty(chosen->profile.secret);
}

static bool say(struct kms_error *why, const struct found *found, const char *what)
{
    (void)kms_error_set(why, KMS_E_NOT_FOUND, "%s %s", found->chosen.profile.where, what);
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
    if (found->chosen.mode == NULL && asked_name(b) != NULL && kms_ali_has_profile(b, &other)) {
        return say(why, found, "is not there");
    }
    return !is_blank(&found->chosen) || say(why, found, "has no access key yet");
}

/* Whether the file is none of auto's, whatever it has. */
static bool is_passed_over(struct kms_backend *b, struct kms_error *why)
{
    if (kms_ali_is_true("ALIBABA_CLOUD_CLI_PROFILE_DISABLED")) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND,
                            "cli: ALIBABA_CLOUD_CLI_PROFILE_DISABLED is true");
        return true;
    }
    if (b->ali->profile_file != NULL && b->ali->cli_file == NULL) {
        /* what is named in the configuration goes before what lies about in a home */
        (void)kms_error_set(why, KMS_E_NOT_FOUND, "cli: profile_file is set, cli_file is not");
        return true;
    }
    return false;
}

/* A profile that takes the role of another one's identity. */
struct step {
    struct kms_backend *b;
    const struct found *found;
    const char *source;
    unsigned depth;
};

static enum kms_status use_found(const struct step *step, const struct kms_http_wait *wait,
                                 struct cli_profile *cli, struct kms_credential_slot *slot,
                                 struct kms_error *err);

/* A fetch of struct kms_credential_source. */
static enum kms_status fetch_source(void *ctx, const struct kms_http_wait *wait,
                                    const struct kms_credential_value *old,
                                    struct kms_credential_slot *slot, struct kms_error *err)
{
    const struct step *step = ctx;
    struct cli_profile source;
    enum kms_status status = pick_profile(step->found, step->source, &source, err);

    (void)old;
    return status == KMS_OK ? use_found(step, wait, &source, slot, err) : tell_file(status, err);
}

/* The key of @cli's role is what its source gives, which is asked anew each time. */
static enum kms_status use_chain(const struct step *step, const struct kms_http_wait *wait,
                                 struct cli_profile *cli, struct kms_credential_slot *slot,
                                 struct kms_error *err)
{
    struct step next = {step->b, step->found, cli->source, step->depth + 1};
    const struct kms_credential_source source = {
        .name = "cli", .fetch = fetch_source, .ctx = &next};
    struct kms_credential *credential = NULL;
    const struct kms_credential_value *value = NULL;
    enum kms_status status = KMS_OK;

    if (is_empty(cli->source)) {
        return kms_error_set(err, KMS_E_INVALID, "%s names no source_profile", cli->profile.where);
    }
    if (next.depth > SOURCES_MAX) {
        return kms_error_set(err, KMS_E_INVALID,
                             "%s: the source profiles are a ring, or more than %d",
                             cli->profile.where, SOURCES_MAX);
    }
    credential = kms_credential_new(&source);
    status = credential != NULL ? kms_credential_get(credential, wait, &value, err)
                                : kms_error_set(err, KMS_E_NOMEM, "no memory for a credential");
    if (status == KMS_OK) {
        cli->profile.way = KMS_ALI_BY_ROLE;
        cli->profile.key_id = value->part[KMS_ALI_KEY_ID];
        cli->profile.secret = value->part[KMS_ALI_SECRET];
        cli->profile.token = value->part[KMS_ALI_TOKEN];
        status = kms_ali_use_profile(step->b, wait, &cli->profile, slot, err);
        kms_credential_give(credential, value);
    }
    kms_credential_free(credential);
    return status;
}

static enum kms_status use_found(const struct step *step, const struct kms_http_wait *wait,
                                 struct cli_profile *cli, struct kms_credential_slot *slot,
                                 struct kms_error *err)
{
    if (cli->mode == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "%s is not there", cli->profile.where);
    }
    if (strcmp(cli->mode, CHAINED) == 0) {
        return use_chain(step, wait, cli, slot, err);
    }
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(cli->mode, modes[i].mode) == 0) {
            cli->profile.way = modes[i].way;
            if (modes[i].way == KMS_ALI_BY_KEY) {
                cli->profile.token = NULL; /* left from another mode, perhaps */
            }
            return kms_ali_use_profile(step->b, wait, &cli->profile, slot, err);
        }
    }
    return kms_error_set(err, KMS_E_UNSUPPORTED,
                         "%s has the mode \"%.32s\"; there are AK, StsToken, EcsRamRole, OIDC, "
                         "CredentialsURI, RamRoleArn and " CHAINED,
                         cli->profile.where, cli->mode);
}

/* @ret_set_up NULL: in any case. */
static enum kms_status from_file(struct kms_backend *b, const struct kms_http_wait *wait,
                                 bool *ret_set_up, struct found *found,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    const struct step first = {.b = b, .found = found};
    enum kms_status status = read_file(b, found, err);

    if (status != KMS_OK) {
        return status;
    }
    if (ret_set_up != NULL && !has_profile(b, found, err)) {
        *ret_set_up = false;
        return KMS_E_NOT_FOUND;
    }
    return found->name != NULL
               ? use_found(&first, wait, &found->chosen, slot, err)
               : kms_error_set(err, KMS_E_INVALID, "cli: %s has no profiles", found->path);
}

static enum kms_status from_cli(struct kms_backend *b, const struct kms_http_wait *wait,
                                bool *ret_set_up, struct kms_credential_slot *slot,
                                struct kms_error *err)
{
    struct found found;
    enum kms_status status = KMS_E_NOT_FOUND;

    if (find(b, &found, err)) {
        status = from_file(b, wait, ret_set_up, &found, slot, err);
        free_found(&found);
    } else if (ret_set_up != NULL) {
        *ret_set_up = false;
    }
    return status;
}

enum kms_status kms_ali_from_cli(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    return from_cli(b, wait, NULL, slot, err);
}

enum kms_status kms_ali_from_cli_maybe(struct kms_backend *b, const struct kms_http_wait *wait,
                                       bool *ret_set_up, struct kms_credential_slot *slot,
                                       struct kms_error *err)
{
    *ret_set_up = !is_passed_over(b, err);
    return *ret_set_up ? from_cli(b, wait, ret_set_up, slot, err) : KMS_E_NOT_FOUND;
}
