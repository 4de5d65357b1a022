/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A role that an access key takes: AssumeRole of STS, signed by that key (API 2015-04-01). Every
 * parameter stands in the query, as in the vendor's own client of STS; none of them is a secret.
 */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/secure.h"

#define ACTION      "AssumeRole"
#define API_VERSION "2015-04-01"
#define REPLY_MAX   32768
#define URL_MAX     (KMS_HTTP_URL_MAX - 1)

static const char *setting(const char *given, const char *variable)
{
    return kms_ali_setting(given, variable, NULL);
}

/* The profile's key as the parts of a credential. */
static enum kms_status take_key(const struct kms_ali_profile *profile,
                                const char *ret_part[KMS_CREDENTIAL_PARTS], struct kms_error *err)
{
    ret_part[KMS_ALI_KEY_ID] = setting(profile->key_id, NULL);
    ret_part[KMS_ALI_SECRET] = setting(profile->secret, NULL);
    ret_part[KMS_ALI_TOKEN] = setting(profile->token, NULL);
    return ret_part[KMS_ALI_KEY_ID] != NULL && ret_part[KMS_ALI_SECRET] != NULL
               ? KMS_OK
               : kms_error_set(err, KMS_E_INVALID,
                               "it lacks access_key_id or access_key_secret, by which to take the "
                               "role");
}

static void put_maybe(struct kms_ali_ask *ask, const char *name, const char *value)
{
    if (value != NULL) {
        kms_ali_param_text(ask, name, value);
    }
}

/* "BASE/?QUERY" to @ret; *ret_query lies in it. */
static enum kms_status write_url(const struct kms_backend *b, const struct kms_ali_oidc *role,
                                 const struct kms_ali_ask *ask, struct kms_blob *ret,
                                 const char **ret_query, struct kms_error *err)
{
    char base[KMS_ALI_URL_MAX];
    struct kms_buf buf;
    size_t start = 0;
    enum kms_status status = KMS_OK;

    (void)kms_ali_sts_url(b->ali, role, base, sizeof(base)); /* open() saw that it fits */
    status = kms_ali_check_url("the STS endpoint (ALIBABA_CLOUD_STS_ENDPOINT)", base, false, err);
    if (status != KMS_OK) {
        return status;
    }
    if (kms_blob_reserve(ret, URL_MAX) != KMS_OK) {
        return kms_error_set(err, KMS_E_NOMEM, "no secure memory for a request");
    }
    buf = kms_buf_over(ret->data, URL_MAX - 1); /* a NUL's room is behind it */
    status = kms_buf_put(&buf, kms_span_str(base));
    if (status == KMS_OK) {
        status = kms_buf_put(&buf, kms_span_str("/?"));
    }
    start = buf.len;
    if (status == KMS_OK) {
        status = kms_acs3_query(ask->params, ask->count, &buf);
    }
    if (status != KMS_OK) {
        return kms_error_set(err, KMS_E_INVALID,
                             "its role, session name, policy and external id "
                             "are together too long to be asked for");
    }
    ret->data[buf.len] = '\0';
    *ret_query = (const char *)ret->data + start;
    return KMS_OK;
}

static enum kms_status ask_sts(struct kms_backend *b, const struct kms_http_wait *wait,
                               const char *url, const char *query, const char *const *part,
                               struct kms_http_response *ret, struct kms_error *err)
{
    static const char *const want[] = {KMS_ALI_REQUEST_ID};
    struct kms_ali_signing signing = {
        .action = ACTION, .version = API_VERSION, .query = kms_span_str(query), .part = part};
    struct kms_http_request request = {
        .method = KMS_HTTP_POST, .url = url, .want = want, .want_count = 1, .body_max = REPLY_MAX};
    enum kms_status status = kms_ali_prepare(&signing, url, &request, err);

    if (status == KMS_OK) {
        status = kms_http_perform(kms_ali_sts_door(b), &request, wait, ret, err);
    }
    kms_wipe(signing.authorization, sizeof(signing.authorization));
    return status;
}

/* What is asked for, to @ret, which borrows @seconds. */
static enum kms_status make_ask(const struct kms_alibaba_conf *ali,
                                const struct kms_ali_profile *profile, char seconds[16],
                                struct kms_ali_ask *ret, struct kms_error *err)
{
    const struct kms_ali_oidc *role = &profile->oidc;
    const char *arn = setting(role->role_arn, "ALIBABA_CLOUD_ROLE_ARN");

    if (arn == NULL) {
        return kms_error_set(err, KMS_E_INVALID,
                             "it names no role, and ALIBABA_CLOUD_ROLE_ARN is not set");
    }
    (void)snprintf(seconds, 16, "%u", role->seconds == 0 ? ali->session_seconds : role->seconds);
    kms_ali_param_text(ret, "RoleArn", arn);
    kms_ali_param_text(
        ret, "RoleSessionName",
        kms_ali_setting(role->session_name, "ALIBABA_CLOUD_ROLE_SESSION_NAME", "kmsbridge"));
    kms_ali_param_text(ret, "DurationSeconds", seconds);
    put_maybe(ret, "Policy", setting(role->policy, NULL));
    put_maybe(ret, "ExternalId", setting(profile->external_id, NULL));
    return KMS_OK;
}

enum kms_status kms_ali_from_role(struct kms_backend *b, const struct kms_http_wait *wait,
                                  const struct kms_ali_profile *profile,
                                  struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_ali_ask ask = {.action = ACTION};
    struct kms_blob url = {.data = NULL};
    const char *part[KMS_CREDENTIAL_PARTS] = {NULL};
    const char *query = NULL;
    char seconds[16];
    enum kms_status status = take_key(profile, part, err);

    if (status == KMS_OK) {
        status = make_ask(b->ali, profile, seconds, &ask, err);
    }
    if (status == KMS_OK) {
        status = write_url(b, &profile->oidc, &ask, &url, &query, err);
    }
    if (status == KMS_OK) {
        status = ask_sts(b, wait, (const char *)url.data, query, part, &response, err);
    }
    if (status == KMS_OK) {
        status = kms_ali_read_sts(ACTION, &response, slot, err);
    }
    if (status != KMS_OK) {
        kms_ali_name_request(&response, err);
    }
    kms_http_response_done(&response);
    kms_blob_done(&url);
    return status;
}
