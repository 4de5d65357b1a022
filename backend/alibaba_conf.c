/* SPDX-License-Identifier: Apache-2.0 */
/* `alibaba:` in the configuration. */
#include <string.h>
#include <strings.h>

#include "backend/alibaba_conf_schema.h"
#include "backend/backend_conf_schema.h"
#include "common/numbers.h"
#include "common/secret.h"
#include "common/span.h"

#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(key, member)                                                                          \
    CYAML_FIELD_STRING_PTR(key, OPTIONAL, struct kms_alibaba_conf, member, 0, CYAML_UNLIMITED)

#define SESSION_DEFAULT  3600 /* seconds: AssumeRoleWithOIDC's own default and bounds */
#define SESSION_MIN      900
#define SESSION_MAX      43200
#define DELETION_DEFAULT 30 /* days: ScheduleKeyDeletion's bounds */
#define DELETION_MIN     7
#define DELETION_MAX     366

static const cyaml_schema_value_t entry_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};

const cyaml_schema_field_t kms_alibaba_conf_fields[] = {
    TEXT("region", region),
    TEXT("network", network),
    TEXT("endpoint", endpoint),
    CYAML_FIELD_SEQUENCE("fallback_endpoints", OPTIONAL, struct kms_alibaba_conf,
                         fallback_endpoints, &entry_value, 0, KMS_ALIBABA_FALLBACKS_MAX),
    TEXT("ca_file", ca_file),
    TEXT("management_endpoint", management_endpoint),
    TEXT("management_ca_file", management_ca_file),
    TEXT("proxy", proxy),
    TEXT("connections", connections_text),
    TEXT("instance", instance),
    CYAML_FIELD_SEQUENCE("encryption_context", OPTIONAL, struct kms_alibaba_conf,
                         encryption_context, &entry_value, 0, KMS_ALIBABA_CONTEXT_MAX),
    TEXT("deletion_days", deletion_days_text),
    TEXT("credentials", credentials),
    TEXT("access_key_id", access_key_id),
    TEXT("access_key_secret", access_key_secret),
    TEXT("role_arn", role_arn),
    TEXT("oidc_provider_arn", oidc_provider_arn),
    TEXT("oidc_token_file", oidc_token_file),
    TEXT("role_session_name", role_session_name),
    TEXT("session_seconds", session_seconds_text),
    TEXT("sts_endpoint", sts_endpoint),
    TEXT("sts_ca_file", sts_ca_file),
    TEXT("cli_file", cli_file),
    TEXT("profile_file", profile_file),
    TEXT("profile", profile),
    TEXT("ecs_role", ecs_role),
    TEXT("metadata_endpoint", metadata_endpoint),
    TEXT("tokenless_metadata", imds_v1_text),
    TEXT("credentials_uri", credentials_uri),
    CYAML_FIELD_END,
};

/* ---- checks ------------------------------------------------------------------------------- */

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

bool kms_alibaba_is_dedicated(const char *endpoint)
{
    static const char domain[] = ".cryptoservice.kms.aliyuncs.com";
    const char *host = endpoint == NULL ? NULL : strstr(endpoint, "://");
    size_t len = host == NULL ? 0 : strcspn(host + 3, ":/");

    return len > sizeof(domain) - 1 &&
           strncasecmp(host + 3 + len - (sizeof(domain) - 1), domain, sizeof(domain) - 1) == 0;
}

bool kms_alibaba_is_region(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= 32 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static enum kms_status check_where(const struct kms_conf_place *place, struct kms_alibaba_conf *ali)
{
    if (ali->region != NULL && !kms_alibaba_is_region(ali->region)) {
        return kms_conf_place_fail(place, "region", "must be a region's id, such as cn-hangzhou");
    }
    if (!is_set(ali->region) && !is_set(ali->endpoint)) {
        return kms_conf_place_fail(place, "region", "is missing, and so is endpoint");
    }
    if (ali->network != NULL && strcmp(ali->network, "public") != 0 &&
        strcmp(ali->network, "vpc") != 0) {
        return kms_conf_place_fail(place, "network", "must be public or vpc");
    }
    bool is_split = kms_alibaba_is_dedicated(ali->endpoint) && !is_set(ali->management_endpoint);

    if (is_split && !is_set(ali->region)) {
        return kms_conf_place_fail(place, "region",
                                   "is missing: a dedicated instance's endpoint manages no keys, "
                                   "the region's does");
    }
    if (ali->network != NULL && ali->endpoint != NULL && !is_split) {
        return kms_conf_place_fail(place, "network", "says nothing beside endpoint");
    }
    return KMS_OK;
}

/* By its look alone: whether it can be used says the backend that opens it. */
static bool is_base_url(const char *url)
{
    return (strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0) &&
           url[strlen(url) - 1] != '/' && strpbrk(url, "@? ") == NULL && strlen(url) <= 200;
}

static enum kms_status check_urls(const struct kms_conf_place *place, struct kms_alibaba_conf *ali)
{
    static const char sentence[] = "must look like https://host, without a slash at the end";
    const struct {
        const char *key;
        const char *url;
    } urls[] = {{"endpoint", ali->endpoint},
                {"management_endpoint", ali->management_endpoint},
                {"sts_endpoint", ali->sts_endpoint},
                {"metadata_endpoint", ali->metadata_endpoint}};

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        if (urls[i].url != NULL && !is_base_url(urls[i].url)) {
            return kms_conf_place_fail(place, urls[i].key, sentence);
        }
    }
    for (unsigned i = 0; i < ali->fallback_endpoints_count; i++) {
        if (!is_base_url(ali->fallback_endpoints[i])) {
            return kms_conf_place_fail(place, "fallback_endpoints", sentence);
        }
    }
    return KMS_OK;
}

static enum kms_status check_proxy(const struct kms_conf_place *place, struct kms_alibaba_conf *ali)
{
    return kms_conf_is_proxy(ali->proxy)
               ? KMS_OK
               : kms_conf_place_fail(place, "proxy", "must look like http://host:port");
}

static enum kms_status check_numbers(const struct kms_conf_place *place,
                                     struct kms_alibaba_conf *ali)
{
    uint64_t days = DELETION_DEFAULT;
    uint64_t seconds = SESSION_DEFAULT;
    uint64_t connections = KMS_ALIBABA_CONNECTIONS_DEFAULT;

    if (ali->deletion_days_text != NULL &&
        kms_parse_u64(ali->deletion_days_text, DELETION_MIN, DELETION_MAX, &days) != KMS_OK) {
        return kms_conf_place_fail(place, "deletion_days",
                                   "must be a number of days from 7 to 366");
    }
    if (ali->session_seconds_text != NULL &&
        kms_parse_u64(ali->session_seconds_text, SESSION_MIN, SESSION_MAX, &seconds) != KMS_OK) {
        return kms_conf_place_fail(place, "session_seconds",
                                   "must be a number of seconds from 900 to 43200");
    }
    if (ali->connections_text != NULL &&
        kms_parse_u64(ali->connections_text, 1, KMS_ALIBABA_CONNECTIONS_MAX, &connections) !=
            KMS_OK) {
        return kms_conf_place_fail(place, "connections", "must be a number from 1 to 256");
    }
    ali->connections = (unsigned)connections;
    ali->deletion_days = (unsigned)days;
    ali->session_seconds = (unsigned)seconds;
    return KMS_OK;
}

/* "name=value"; the AAD's own entry is not for others. */
static enum kms_status check_context(const struct kms_conf_place *place,
                                     struct kms_alibaba_conf *ali)
{
    for (unsigned i = 0; i < ali->encryption_context_count; i++) {
        const char *entry = ali->encryption_context[i];
        const char *equals = strchr(entry, '=');

        if (equals == NULL || equals == entry || strlen(entry) > KMS_ALIBABA_CONTEXT_ENTRY_MAX) {
            return kms_conf_place_fail(place, "encryption_context",
                                       "each must be name=value, of 200 bytes at most");
        }
        for (unsigned j = 0; j < i; j++) {
            if (strncmp(entry, ali->encryption_context[j], (size_t)(equals - entry) + 1) == 0) {
                return kms_conf_place_fail(place, "encryption_context", "names something twice");
            }
        }
        if (strncmp(entry, "kmsbridge-aad=", strlen("kmsbridge-aad=")) == 0) {
            return kms_conf_place_fail(place, "encryption_context",
                                       "kmsbridge-aad is kmsbridge's own");
        }
    }
    return KMS_OK;
}

static enum kms_status check_source(const struct kms_conf_place *place,
                                    struct kms_alibaba_conf *ali)
{
    static const char *const words[] = {"auto", "access_key", "environment", "rrsa",
                                        "cli",  "profile",    "ecs",         "uri"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (ali->credentials == NULL || strcmp(ali->credentials, words[i]) == 0) {
            return KMS_OK;
        }
    }
    return kms_conf_place_fail(
        place, "credentials",
        "must be auto, access_key, environment, rrsa, cli, profile, ecs or uri");
}

static enum kms_status check_access_key(const struct kms_conf_place *place,
                                        struct kms_alibaba_conf *ali)
{
    struct kms_error error = KMS_ERROR_INIT;
    bool wanted = ali->credentials != NULL && strcmp(ali->credentials, "access_key") == 0;

    if ((wanted || ali->access_key_secret != NULL) && !is_set(ali->access_key_id)) {
        return kms_conf_place_fail(place, "access_key_id", "is missing");
    }
    if ((wanted || ali->access_key_id != NULL) && ali->access_key_secret == NULL) {
        return kms_conf_place_fail(place, "access_key_secret", "is missing");
    }
    if (kms_conf_is_secret_ref(ali->access_key_id)) {
        return kms_conf_place_fail(place, "access_key_id", "is the id itself, not where it is");
    }
    if (ali->access_key_secret != NULL &&
        kms_secret_check_ref(ali->access_key_secret, &error) != KMS_OK) {
        return kms_conf_place_fail(place, "access_key_secret", error.text);
    }
    return KMS_OK;
}

static enum kms_status check_imds(const struct kms_conf_place *place, struct kms_alibaba_conf *ali)
{
    const char *word = ali->imds_v1_text == NULL ? "false" : ali->imds_v1_text;

    if (strcmp(word, "true") != 0 && strcmp(word, "false") != 0) {
        return kms_conf_place_fail(place, "tokenless_metadata", "must be true or false");
    }
    ali->imds_v1 = strcmp(word, "true") == 0;
    return KMS_OK;
}

/* What we read must not depend on where the daemon was started. */
static enum kms_status check_paths(const struct kms_conf_place *place, struct kms_alibaba_conf *ali)
{
    const struct {
        const char *key;
        const char *path;
    } paths[] = {{"ca_file", ali->ca_file},         {"management_ca_file", ali->management_ca_file},
                 {"sts_ca_file", ali->sts_ca_file}, {"oidc_token_file", ali->oidc_token_file},
                 {"cli_file", ali->cli_file},       {"profile_file", ali->profile_file}};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (paths[i].path != NULL && paths[i].path[0] != '/') {
            return kms_conf_place_fail(place, paths[i].key, "must be an absolute path");
        }
    }
    return KMS_OK;
}

enum kms_status kms_alibaba_conf_check(struct kms_alibaba_conf *ali,
                                       const struct kms_conf_text *text, const char *path,
                                       struct kms_error *err)
{
    static enum kms_status (*const checks[])(const struct kms_conf_place *place,
                                             struct kms_alibaba_conf *ali) = {
        check_where,  check_urls,       check_proxy, check_numbers, check_context,
        check_source, check_access_key, check_imds,  check_paths};
    const struct kms_conf_place place = {
        .text = text, .entry = path, .section = "alibaba.", .err = err};
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(checks) / sizeof(checks[0]); i++) {
        status = checks[i](&place, ali);
    }
    return status;
}
