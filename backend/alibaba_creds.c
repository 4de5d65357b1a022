/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the credential comes from. The configuration names one source, or "auto": the official
 * order of the vendor's SDKs (environment, RRSA, the CLI's file, profile file, ECS RAM role,
 * credentials URI: the default chains of credentials-go 1.4, of Python's 1.0 and of Node's 2.4
 * agree), where the first one that is set up counts. One that is set up and fails is an error,
 * never a reason to go on under another identity; only the ECS metadata service, of which nobody
 * can say beforehand whether it is there, may be absent.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secret.h"

#define STATIC_REFRESH_NS (60 * KMS_NS_PER_S)          /* how often what lasts is read anew */
#define LIFE_MAX          (UINT64_C(10) * 366 * 86400) /* seconds; a later end is taken for this */

const char *kms_ali_setting(const char *configured, const char *variable, const char *otherwise)
{
    const char *value = configured;

    if ((value == NULL || value[0] == '\0') && variable != NULL) {
        value = secure_getenv(variable);
    }
    return value == NULL || value[0] == '\0' ? otherwise : value;
}

bool kms_ali_is_true(const char *variable)
{
    return strcasecmp(kms_ali_setting(NULL, variable, "false"), "true") == 0;
}

/* ---- what comes as JSON ------------------------------------------------------------------- */

enum kms_status kms_ali_offer_sts(const struct kms_json *object, struct kms_credential_slot *slot,
                                  struct kms_error *err)
{
    struct kms_credential_offer offer = {.flags = 0};
    const char *expires = NULL;
    uint64_t seconds = 0;
    uint64_t now = kms_wall_ms() / 1000;
    enum kms_status status =
        kms_json_text(object, "AccessKeyId", 256, &offer.part[KMS_ALI_KEY_ID], err);

    if (status == KMS_OK) {
        status = kms_json_text(object, "AccessKeySecret", 512, &offer.part[KMS_ALI_SECRET], err);
    }
    if (status == KMS_OK) {
        status = kms_json_text(object, "SecurityToken", KMS_CREDENTIAL_PART_MAX,
                               &offer.part[KMS_ALI_TOKEN], err);
    }
    if (status == KMS_OK) {
        status = kms_json_text(object, "Expiration", 64, &expires, err);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (!kms_ali_date(expires, &seconds)) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply's Expiration is no date");
    }
    if (seconds <= now) {
        return kms_error_set(err, KMS_E_AUTH, "what came had expired already (at %s)", expires);
    }
    seconds = seconds - now < LIFE_MAX ? seconds - now : LIFE_MAX;
    offer.lifetime_ns = seconds * KMS_NS_PER_S;
    return kms_credential_put(slot, &offer, err);
}

/* ---- the environment, and references ------------------------------------------------------ */

enum kms_status kms_ali_offer_static(const char *id, const char *secret, const char *token,
                                     struct kms_credential_slot *slot, struct kms_error *err)
{
    const struct kms_credential_offer offer = {.part = {id, secret, token},
                                               .lifetime_ns = KMS_DEADLINE_NONE,
                                               .refresh_ns = STATIC_REFRESH_NS};

    return kms_credential_put(slot, &offer, err);
}

static enum kms_status from_environment(struct kms_backend *b, const struct kms_http_wait *wait,
                                        struct kms_credential_slot *slot, struct kms_error *err)
{
    const char *id = kms_ali_setting(NULL, "ALIBABA_CLOUD_ACCESS_KEY_ID", NULL);
    const char *secret = kms_ali_setting(NULL, "ALIBABA_CLOUD_ACCESS_KEY_SECRET", NULL);
    const char *token = kms_ali_setting(NULL, "ALIBABA_CLOUD_SECURITY_TOKEN", NULL);

    (void)b;
    (void)wait;
    if (id == NULL || secret == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND,
                             "environment: ALIBABA_CLOUD_ACCESS_KEY_ID and "
                             "ALIBABA_CLOUD_ACCESS_KEY_SECRET are not both set");
    }
    return kms_ali_offer_static(id, secret, token, slot, err);
}

/* A secret as a text of its own; a NUL in it is refused, or it would be cut there. */
static enum kms_status load(const char *ref, struct kms_blob *ret, struct kms_error *err)
{
    struct kms_secret *secret = NULL;
    enum kms_status status = kms_secret_load(ref, &secret, err);
    struct kms_span bytes;

    if (status != KMS_OK) {
        return status;
    }
    bytes = kms_secret_span(secret);
    if (bytes.len > 0 && memchr(bytes.data, 0, bytes.len) != NULL) {
        status = kms_error_set(err, KMS_E_INVALID, "%s holds a NUL", ref);
    } else {
        status = kms_blob_put(ret, bytes, KMS_SECRET_MAX);
    }
    kms_secret_free(secret);
    return status == KMS_OK ? KMS_OK : kms_error_set(err, status, "no secure memory");
}

static enum kms_status from_access_key(struct kms_backend *b, const struct kms_http_wait *wait,
                                       struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_blob secret = {.data = NULL};
    enum kms_status status = load(b->ali->access_key_secret, &secret, err);

    (void)wait;
    if (status == KMS_OK) {
        status =
            kms_ali_offer_static(b->ali->access_key_id, (const char *)secret.data, NULL, slot, err);
    }
    kms_blob_done(&secret);
    return status;
}

/* ---- sources ------------------------------------------------------------------------------ */

static struct kms_ali_oidc configured_oidc(const struct kms_alibaba_conf *ali)
{
    return (struct kms_ali_oidc){.role_arn = ali->role_arn,
                                 .provider_arn = ali->oidc_provider_arn,
                                 .token_file = ali->oidc_token_file,
                                 .session_name = ali->role_session_name,
                                 .seconds = ali->session_seconds};
}

static enum kms_status from_rrsa(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    const struct kms_ali_oidc oidc = configured_oidc(b->ali);

    return kms_ali_from_rrsa(b, wait, &oidc, slot, err);
}

static enum kms_status from_ecs(struct kms_backend *b, const struct kms_http_wait *wait,
                                struct kms_credential_slot *slot, struct kms_error *err)
{
    return kms_ali_from_ecs(b, wait, b->ali->ecs_role, slot, err);
}

static enum kms_status from_uri(struct kms_backend *b, const struct kms_http_wait *wait,
                                struct kms_credential_slot *slot, struct kms_error *err)
{
    return kms_ali_from_uri(b, wait, b->ali->credentials_uri, slot, err);
}

/* ---- whether one is set up, as far as can be told without asking ---------------------------- */

static bool has(const char *source, const char *configured, const char *variable,
                struct kms_error *why)
{
    if (kms_ali_setting(configured, variable, NULL) == NULL) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND, "%s: %s is not set", source, variable);
        return false;
    }
    return true;
}

static bool has_access_key(struct kms_backend *b, struct kms_error *why)
{
    if (b->ali->access_key_id == NULL) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND, "access_key: access_key_id is not set");
        return false;
    }
    return true;
}

static bool has_environment(struct kms_backend *b, struct kms_error *why)
{
    (void)b;
    return has("environment", NULL, "ALIBABA_CLOUD_ACCESS_KEY_ID", why);
}

static bool has_rrsa(struct kms_backend *b, struct kms_error *why)
{
    const struct kms_alibaba_conf *ali = b->ali;

    return has("rrsa", ali->role_arn, "ALIBABA_CLOUD_ROLE_ARN", why) &&
           has("rrsa", ali->oidc_provider_arn, "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", why) &&
           has("rrsa", ali->oidc_token_file, "ALIBABA_CLOUD_OIDC_TOKEN_FILE", why);
}

static bool has_ecs(struct kms_backend *b, struct kms_error *why)
{
    (void)b;
    if (kms_ali_is_true("ALIBABA_CLOUD_ECS_METADATA_DISABLED")) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND,
                            "ecs: ALIBABA_CLOUD_ECS_METADATA_DISABLED is true");
        return false;
    }
    return true;
}

static bool has_uri(struct kms_backend *b, struct kms_error *why)
{
    return has("uri", b->ali->credentials_uri, "ALIBABA_CLOUD_CREDENTIALS_URI", why);
}

/* ---- all of them -------------------------------------------------------------------------- */

static enum kms_status from_auto(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot, struct kms_error *err);

/* In the order of "auto", which asks each whether it is set up. */
static const struct source {
    const char *name;
    enum kms_status (*fetch)(struct kms_backend *b, const struct kms_http_wait *wait,
                             struct kms_credential_slot *slot, struct kms_error *err);
    bool (*is_set_up)(struct kms_backend *b, struct kms_error *why);
    /* instead, where one look tells both */
    enum kms_status (*fetch_maybe)(struct kms_backend *b, const struct kms_http_wait *wait,
                                   bool *ret_set_up, struct kms_credential_slot *slot,
                                   struct kms_error *err);
    bool may_be_absent; /* set up or not: that it is not there is known once it was asked */
} sources[] = {
    {"auto", from_auto, NULL, NULL, false},
    {"access_key", from_access_key, has_access_key, NULL, false},
    {"environment", from_environment, has_environment, NULL, false},
    {"rrsa", from_rrsa, has_rrsa, NULL, false},
    {"cli", kms_ali_from_cli, NULL, kms_ali_from_cli_maybe, false},
    {"profile", kms_ali_from_profile, kms_ali_has_profile, NULL, false},
    {"ecs", from_ecs, has_ecs, NULL, true},
    {"uri", from_uri, has_uri, NULL, false},
};

static const struct source *source_named(const char *name)
{
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        if (strcmp(sources[i].name, name) == 0) {
            return &sources[i];
        }
    }
    return NULL;
}

bool kms_ali_source_known(const char *name)
{
    return source_named(name) != NULL;
}

/* One of those that "auto" chooses from: an error begins with its name, as each source's does. */
static enum kms_status from_one(const struct source *source, struct kms_backend *b,
                                const struct kms_http_wait *wait, bool *ret_set_up,
                                struct kms_credential_slot *slot, struct kms_error *err)
{
    size_t len = strlen(source->name);
    enum kms_status status = KMS_E_NOT_FOUND;

    if (source->fetch_maybe != NULL) {
        status = source->fetch_maybe(b, wait, ret_set_up, slot, err);
    } else {
        *ret_set_up = source->is_set_up(b, err);
        status = *ret_set_up ? source->fetch(b, wait, slot, err) : KMS_E_NOT_FOUND;
    }
    if (status == KMS_OK ||
        (strncmp(err->text, source->name, len) == 0 && strncmp(err->text + len, ": ", 2) == 0)) {
        return status;
    }
    return kms_error_reword(err, status, "%s: %s", source->name, err->text);
}

/* Another source is another identity, perhaps, and files come and go. */
static void note_choice(struct kms_backend *b, const char *name)
{
    if (b->chosen == NULL || strcmp(b->chosen, name) != 0) {
        kms_log(b->chosen == NULL ? KMS_LOG_INFO : KMS_LOG_WARN,
                "backend %s: credentials by %s%s%s", b->conf->name, name,
                b->chosen == NULL ? "" : ", no longer by ", b->chosen == NULL ? "" : b->chosen);
    }
    b->chosen = name;
    b->chosen_missed = false;
}

/* The source that gave the key that we have is not there: perhaps its file is being replaced. The
 * next look finds it, or goes on to another one. */
static bool is_missed(struct kms_backend *b, const struct source *source)
{
    bool is_first = b->chosen != NULL && strcmp(b->chosen, source->name) == 0 && !b->chosen_missed;

    b->chosen_missed = b->chosen_missed || is_first;
    return is_first;
}

static enum kms_status from_auto(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_error all = KMS_ERROR_INIT; /* why each had nothing */
    enum kms_status status = KMS_E_NOT_FOUND;

    for (size_t i = 1; i < sizeof(sources) / sizeof(sources[0]); i++) { /* 0 is "auto" */
        struct kms_error why = KMS_ERROR_INIT;
        bool is_set_up = false;
        enum kms_status now = from_one(&sources[i], b, wait, &is_set_up, slot, &why);

        if (is_set_up) {
            if (now == KMS_OK) {
                note_choice(b, sources[i].name);
            }
            if (!sources[i].may_be_absent || (now != KMS_E_UNAVAILABLE && now != KMS_E_NOT_FOUND)) {
                *err = why;
                return now;
            }
            status = now; /* what may pass is worth another try */
        } else if (is_missed(b, &sources[i])) {
            *err = why;
            return kms_error_reword(err, KMS_E_UNAVAILABLE, "%s (it was there)", why.text);
        }
        (void)kms_error_reword(&all, status, "%s%s%s", all.text, all.text[0] == '\0' ? "" : "; ",
                               why.text);
    }
    return kms_error_set(err, status, "no source of credentials: %s", all.text);
}

/* What is missing or cannot be read here is not what the caller of the key asked about. */
static enum kms_status as_auth(enum kms_status status, struct kms_error *err)
{
    if (status == KMS_E_NOT_FOUND || status == KMS_E_DENIED || status == KMS_E_INVALID ||
        status == KMS_E_EXISTS || status == KMS_E_UNSUPPORTED) {
        err->status = KMS_E_AUTH;
        return KMS_E_AUTH;
    }
    return status;
}

enum kms_status kms_ali_fetch(void *ctx, const struct kms_http_wait *wait,
                              const struct kms_credential_value *old,
                              struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_backend *b = ctx;
    const struct source *source = source_named(kms_ali_setting(b->ali->credentials, NULL, "auto"));

    (void)old; /* each source is asked anew: nothing of the old one is needed */
    if (source == NULL) {
        return kms_error_set(err, KMS_E_INTERNAL, "no such source of credentials");
    }
    return as_auth(source->fetch(b, wait, slot, err), err);
}
