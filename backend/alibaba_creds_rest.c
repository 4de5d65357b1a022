/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials that somebody hands out over HTTP: STS for a projected token (RRSA), the ECS metadata
 * service for a RAM role, a credentials URI. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/file.h"
#include "common/numbers.h"
#include "common/secure.h"

#define TOKEN_MIN   4 /* characters of OIDCToken: AssumeRoleWithOIDC */
#define TOKEN_MAX   20000
#define FORM_MAX    32768
#define REPLY_MAX   32768
#define IMDS        "http://100.100.100.200"
#define IMDS_ROLES  "/latest/meta-data/ram/security-credentials/"
#define IMDS_TTL    "21600" /* seconds, the longest there is */
#define IMDS_TOKEN  512
#define ROLE_MAX    128
#define ASK_WAIT_NS (2 * KMS_NS_PER_S) /* a metadata service answers at once, or is not there */

/* ---- RRSA --------------------------------------------------------------------------------- */

/*
 * Read anew each time: the kubelet replaces it. It is projected for everybody to read as long as
 * the pod has no fsGroup, so a secret file's rules are not for it.
 */
static enum kms_status read_token(const char *path, struct kms_blob *ret, struct kms_error *err)
{
    char *content = NULL;
    size_t len = 0;
    enum kms_status status =
        kms_file_read(path, KMS_FILE_CONFIG, TOKEN_MAX + 1, &content, &len, err);

    if (status != KMS_OK) {
        return status;
    }
    size_t text = len;

    while (text > 0 && (content[text - 1] == '\n' || content[text - 1] == '\r')) {
        text--;
    }
    if (text < TOKEN_MIN || text > TOKEN_MAX || strcspn(content, " \t\r\n") < text) {
        status = kms_error_set(err, KMS_E_INVALID, "%s holds no token", path);
    } else {
        status = kms_blob_put(ret, kms_span_of(content, text), TOKEN_MAX);
    }
    kms_wipe(content, len);
    free(content);
    return status == KMS_OK ? KMS_OK : kms_error_set(err, status, "no secure memory");
}

/* The query is for everybody's logs; the token stands in the body. */
static enum kms_status make_query(char *ret_url, size_t size)
{
    char date[25];
    char nonce[33] = "";
    uint8_t random[16];
    struct kms_buf buf = kms_buf_over(ret_url, size - 1);
    enum kms_status status = kms_random(random, sizeof(random));

    kms_wall_text(kms_wall_ms(), date, sizeof(date));
    memcpy(date + strlen("yyyy-MM-ddTHH:mm:ss"), "Z", 2);
    if (status == KMS_OK) {
        status = kms_hex_encode(kms_span_of(random, sizeof(random)), nonce, sizeof(nonce));
    }
    const struct kms_acs3_param params[] = {
        {"Action", kms_span_str("AssumeRoleWithOIDC")},
        {"Version", kms_span_str("2015-04-01")},
        {"Format", kms_span_str("JSON")},
        {"Timestamp", kms_span_str(date)},
        {"SignatureNonce", kms_span_str(nonce)},
    };
    if (status == KMS_OK) {
        status = kms_acs3_query(params, sizeof(params) / sizeof(params[0]), &buf);
    }
    ret_url[buf.len] = '\0';
    return status;
}

static enum kms_status make_form(const struct kms_alibaba_conf *ali,
                                 const struct kms_ali_oidc *oidc, struct kms_span token,
                                 struct kms_blob *form)
{
    const char *policy = kms_ali_setting(oidc->policy, NULL, NULL);
    struct kms_buf buf;
    char seconds[16];
    enum kms_status status = kms_blob_reserve(form, FORM_MAX);

    (void)snprintf(seconds, sizeof(seconds), "%u",
                   oidc->seconds == 0 ? ali->session_seconds : oidc->seconds);
    const struct kms_acs3_param params[] = {
        {"RoleArn", kms_span_str(oidc->role_arn)},
        {"OIDCProviderArn", kms_span_str(oidc->provider_arn)},
        {"OIDCToken", token},
        {"RoleSessionName",
         kms_span_str(
             kms_ali_setting(oidc->session_name, "ALIBABA_CLOUD_ROLE_SESSION_NAME", "kmsbridge"))},
        {"DurationSeconds", kms_span_str(seconds)},
        {"Policy", kms_span_str(policy == NULL ? "" : policy)},
    };
    size_t count = sizeof(params) / sizeof(params[0]);

    if (status != KMS_OK) {
        return status;
    }
    buf = kms_buf_over(form->data, FORM_MAX);
    status = kms_acs3_query(params, policy == NULL ? count - 1 : count, &buf);
    form->len = buf.len;
    return status;
}

enum kms_status kms_ali_read_sts(const char *action, const struct kms_http_response *response,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root, credentials;
    enum kms_status status = KMS_OK;
    bool renew = false;

    if (response->status != 200) {
        status = kms_ali_error(action, response, err, &renew);
        /* a token or role that is refused is a matter of identity, whatever the code */
        if (status == KMS_E_INVALID || status == KMS_E_PROTOCOL || status == KMS_E_DENIED ||
            status == KMS_E_UNSUPPORTED) {
            err->status = KMS_E_AUTH;
        }
        return err->status;
    }
    status = kms_json_parse("STS's reply", kms_blob_span(&response->body), &doc, &root, err);
    if (status == KMS_OK) {
        status = kms_json_object(&root, "Credentials", &credentials, err);
    }
    if (status == KMS_OK) {
        status = kms_ali_offer_sts(&credentials, slot, err);
    }
    kms_json_free(doc);
    return status;
}

struct kms_http_door *kms_ali_sts_door(const struct kms_backend *b)
{
    return b->doors.sts != NULL ? b->doors.sts : b->doors.identity;
}

static enum kms_status ask_sts(struct kms_backend *b, const struct kms_http_wait *wait,
                               const struct kms_ali_oidc *oidc, struct kms_span form,
                               struct kms_http_response *ret, struct kms_error *err)
{
    static const char *const want[] = {KMS_ALI_REQUEST_ID};
    static const struct kms_http_header headers[] = {
        {"content-type", "application/x-www-form-urlencoded"}, {"accept", "application/json"}};
    char base[KMS_ALI_URL_MAX];
    char query[512];
    char url[KMS_ALI_URL_MAX + sizeof(query) + 2];
    const struct kms_http_request request = {.method = KMS_HTTP_POST,
                                             .url = url,
                                             .headers = headers,
                                             .header_count = 2,
                                             .body = form,
                                             .want = want,
                                             .want_count = 1,
                                             .body_max = REPLY_MAX};
    enum kms_status status = make_query(query, sizeof(query));

    if (status != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "rrsa: the request cannot be written");
    }
    (void)kms_ali_sts_url(b->ali, oidc, base, sizeof(base)); /* open() saw that it fits */
    (void)snprintf(url, sizeof(url), "%s/?%s", base, query);
    status =
        kms_ali_check_url("rrsa: the STS endpoint (ALIBABA_CLOUD_STS_ENDPOINT)", base, false, err);
    return status == KMS_OK ? kms_http_perform(kms_ali_sts_door(b), &request, wait, ret, err)
                            : status;
}

/* @given with the environment's for what it leaves out; all three must be had. */
static enum kms_status complete(const struct kms_ali_oidc *given, struct kms_ali_oidc *ret,
                                struct kms_error *err)
{
    const struct {
        const char *variable;
        const char **value;
    } needs[] = {{"ALIBABA_CLOUD_ROLE_ARN", &ret->role_arn},
                 {"ALIBABA_CLOUD_OIDC_PROVIDER_ARN", &ret->provider_arn},
                 {"ALIBABA_CLOUD_OIDC_TOKEN_FILE", &ret->token_file}};

    *ret = *given;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        *needs[i].value = kms_ali_setting(*needs[i].value, needs[i].variable, NULL);
        if (*needs[i].value == NULL) {
            return kms_error_set(err, KMS_E_NOT_FOUND, "rrsa: %s is not set", needs[i].variable);
        }
    }
    return KMS_OK;
}

enum kms_status kms_ali_from_rrsa(struct kms_backend *b, const struct kms_http_wait *wait,
                                  const struct kms_ali_oidc *given,
                                  struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_blob token = {.data = NULL};
    struct kms_blob form = {.data = NULL};
    struct kms_ali_oidc oidc;
    enum kms_status status = complete(given, &oidc, err);

    if (status == KMS_OK) {
        status = read_token(oidc.token_file, &token, err);
    }
    if (status == KMS_OK && make_form(b->ali, &oidc, kms_blob_span(&token), &form) != KMS_OK) {
        status = kms_error_set(err, KMS_E_INTERNAL, "rrsa: the request cannot be written");
    }
    if (status == KMS_OK) {
        status = ask_sts(b, wait, &oidc, kms_blob_span(&form), &response, err);
    }
    if (status == KMS_OK) {
        status = kms_ali_read_sts("AssumeRoleWithOIDC", &response, slot, err);
    }
    if (status != KMS_OK) {
        kms_ali_name_request(&response, err);
    }
    kms_http_response_done(&response);
    kms_blob_done(&form);
    kms_blob_done(&token);
    return status;
}

/* ---- what is handed out without being asked who one is ------------------------------------ */

/* What may pass is no refusal. */
static enum kms_status refusal_of(const struct kms_http_response *response)
{
    switch (response->status) {
    case 408:
        return KMS_E_UNAVAILABLE;
    case 429:
        return KMS_E_THROTTLED;
    default:
        return response->status >= 500 ? KMS_E_UNAVAILABLE : KMS_E_AUTH;
    }
}

/* ---- the ECS metadata service ------------------------------------------------------------- */

static struct kms_http_wait shorter(const struct kms_http_wait *wait)
{
    struct kms_http_wait own = *wait;
    uint64_t soon = kms_deadline_in(ASK_WAIT_NS);

    own.deadline_ns = soon < own.deadline_ns ? soon : own.deadline_ns;
    return own;
}

/* One question; @token may be "". *ret_status is the answer's; the body's text, without its line
 * end, to @ret_text, "" when it is none. */
static enum kms_status ask_imds(struct kms_backend *b, const struct kms_http_wait *wait,
                                enum kms_http_method method, const char *path, const char *token,
                                struct kms_http_response *ret, struct kms_error *err)
{
    const char *base = kms_ali_setting(b->ali->metadata_endpoint, NULL, IMDS);
    char url[KMS_ALI_URL_MAX + ROLE_MAX];
    const struct kms_http_header headers[] = {
        {"X-aliyun-ecs-metadata-token-ttl-seconds", method == KMS_HTTP_PUT ? IMDS_TTL : NULL},
        {"X-aliyun-ecs-metadata-token", token[0] == '\0' ? NULL : token},
    };
    const struct kms_http_request request = {.method = method,
                                             .url = url,
                                             .headers = headers,
                                             .header_count = 2,
                                             .body_max = REPLY_MAX,
                                             .plain_ok = true};
    struct kms_http_wait own = shorter(wait);
    struct kms_error why = KMS_ERROR_INIT;
    enum kms_status status = KMS_OK;

    (void)snprintf(url, sizeof(url), "%s%s", base, path);
    status = kms_http_perform(b->doors.identity, &request, &own, ret, &why);
    /* not by the clock: libcurl's own may be a little ahead of the caller's deadline */
    if (status == KMS_E_TIMEOUT && own.deadline_ns < wait->deadline_ns) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "ecs: the metadata service does not answer");
    }
    return status == KMS_OK ? KMS_OK
                            : kms_error_set(err, status, "ecs: the metadata service: %s", why.text);
}

/* The reply's body as a short text; false when it is none. */
static bool take_line(const struct kms_http_response *response, char *ret_text, size_t size)
{
    struct kms_span body = kms_blob_span(&response->body);

    while (body.len > 0 && (body.data[body.len - 1] == '\n' || body.data[body.len - 1] == '\r')) {
        body.len--;
    }
    if (body.len == 0 || body.len >= size) {
        return false;
    }
    for (size_t i = 0; i < body.len; i++) {
        if (body.data[i] <= 0x20 || body.data[i] >= 0x7f) {
            return false;
        }
    }
    memcpy(ret_text, body.data, body.len);
    ret_text[body.len] = '\0';
    return true;
}

/* Whether questions without a token are allowed where the service has no tokens. */
static bool v1_allowed(const struct kms_alibaba_conf *ali)
{
    return ali->imds_v1 && !kms_ali_is_true("ALIBABA_CLOUD_IMDSV1_DISABLED");
}

static enum kms_status take_imds_token(struct kms_backend *b, const struct kms_http_wait *wait,
                                       char ret_token[IMDS_TOKEN], struct kms_error *err)
{
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    enum kms_status status =
        ask_imds(b, wait, KMS_HTTP_PUT, "/latest/api/token", "", &response, err);

    ret_token[0] = '\0';
    if (status == KMS_OK &&
        (response.status != 200 || !take_line(&response, ret_token, IMDS_TOKEN)) &&
        !v1_allowed(b->ali)) {
        status = kms_error_set(err, refusal_of(&response),
                               "ecs: the metadata service gives no token (HTTP %u), and asking "
                               "without one is not allowed (tokenless_metadata)",
                               response.status);
    }
    kms_http_response_done(&response);
    return status;
}

static enum kms_status refuse_imds(const struct kms_http_response *response, const char *what,
                                   struct kms_error *err)
{
    enum kms_status status = response->status == 404 ? KMS_E_NOT_FOUND : refusal_of(response);

    return kms_error_set(err, status, "ecs: the metadata service has no %s (HTTP %u)", what,
                         response->status);
}

static enum kms_status take_role(struct kms_backend *b, const struct kms_http_wait *wait,
                                 const char *token, char ret_role[ROLE_MAX], struct kms_error *err)
{
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    enum kms_status status = ask_imds(b, wait, KMS_HTTP_GET, IMDS_ROLES, token, &response, err);

    if (status == KMS_OK && (response.status != 200 || !take_line(&response, ret_role, ROLE_MAX))) {
        status = refuse_imds(&response, "RAM role for this instance", err);
    }
    kms_http_response_done(&response);
    return status;
}

/* {"Code": "Success", "AccessKeyId": ...} */
static enum kms_status read_success(const char *name, const struct kms_http_response *response,
                                    struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    const char *code = NULL;
    enum kms_status status = kms_json_parse(name, kms_blob_span(&response->body), &doc, &root, err);

    if (status == KMS_OK) {
        status = kms_json_text(&root, "Code", 64, &code, err);
    }
    if (status == KMS_OK && strcmp(code, "Success") != 0) {
        status = kms_error_set_code(err, KMS_E_AUTH, code, "%s says %s", name, code);
    }
    if (status == KMS_OK) {
        status = kms_ali_offer_sts(&root, slot, err);
    }
    kms_json_free(doc);
    return status;
}

/* A role's name goes into a path. */
static bool is_role(const char *role)
{
    size_t len = strlen(role);

    return len > 0 && len < ROLE_MAX &&
           strspn(role, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.@_-") ==
               len;
}

enum kms_status kms_ali_from_ecs(struct kms_backend *b, const struct kms_http_wait *wait,
                                 const char *role, struct kms_credential_slot *slot,
                                 struct kms_error *err)
{
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    char token[IMDS_TOKEN];
    char found[ROLE_MAX];
    char path[sizeof(IMDS_ROLES) + ROLE_MAX];
    enum kms_status status = take_imds_token(b, wait, token, err);

    role = kms_ali_setting(role, "ALIBABA_CLOUD_ECS_METADATA", NULL);
    if (status == KMS_OK && role == NULL) {
        status = take_role(b, wait, token, found, err);
        role = found;
    }
    if (status == KMS_OK && !is_role(role)) {
        status = kms_error_set(err, KMS_E_INVALID, "ecs: that is no name of a RAM role");
    }
    if (status == KMS_OK) {
        (void)snprintf(path, sizeof(path), "%s%s", IMDS_ROLES, role);
        status = ask_imds(b, wait, KMS_HTTP_GET, path, token, &response, err);
    }
    if (status == KMS_OK && response.status != 200) {
        status = refuse_imds(&response, "credential for that RAM role", err);
    }
    if (status == KMS_OK) {
        status = read_success("the metadata service", &response, slot, err);
    }
    kms_http_response_done(&response);
    kms_wipe(token, sizeof(token));
    return status;
}

/* ---- a credentials URI -------------------------------------------------------------------- */

enum kms_status kms_ali_from_uri(struct kms_backend *b, const struct kms_http_wait *wait,
                                 const char *given, struct kms_credential_slot *slot,
                                 struct kms_error *err)
{
    const char *uri = kms_ali_setting(given, "ALIBABA_CLOUD_CREDENTIALS_URI", NULL);
    const char *what = uri == given ? "uri: the credentials URI"
                                    : "uri: the credentials URI (ALIBABA_CLOUD_CREDENTIALS_URI)";
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    const struct kms_http_request request = {
        .method = KMS_HTTP_GET, .url = uri, .body_max = REPLY_MAX};
    enum kms_status status = KMS_OK;

    if (uri == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND, "uri: ALIBABA_CLOUD_CREDENTIALS_URI is not set");
    }
    status = kms_ali_check_url(what, uri, false, err);
    if (status == KMS_OK) {
        status = kms_http_perform(b->doors.identity, &request, wait, &response, err);
    }
    if (status == KMS_OK && response.status != 200) {
        status = kms_error_set(err, refusal_of(&response),
                               "uri: the credentials URI answers HTTP %u", response.status);
    }
    if (status == KMS_OK) {
        status = read_success("the credentials URI", &response, slot, err);
    }
    kms_http_response_done(&response);
    return status;
}
