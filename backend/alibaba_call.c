/* SPDX-License-Identifier: Apache-2.0 */
/* One action of the API: POST / with every parameter in the query, as the vendor's SDK does. */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/codec.h"
#include "common/secure.h"

#define API_VERSION "2016-01-20"
#define REPLY_MAX                                                                                  \
    (64u * 1024u) /* the largest reply: Decrypt's 8 KiB of base64, a page of 100 keys */

void kms_ali_param(struct kms_ali_ask *ask, const char *name, struct kms_span value)
{
    if (ask->count < KMS_ALI_PARAMS_MAX) {
        ask->params[ask->count++] = (struct kms_acs3_param){.name = name, .value = value};
    }
}

void kms_ali_param_text(struct kms_ali_ask *ask, const char *name, const char *value)
{
    kms_ali_param(ask, name, kms_span_str(value));
}

enum kms_status kms_ali_base64(struct kms_span bytes, struct kms_blob *ret, struct kms_error *err)
{
    size_t size = (bytes.len + 2) / 3 * 4 + 1;

    if (kms_blob_reserve(ret, size) != KMS_OK) {
        return kms_error_set(err, KMS_E_NOMEM, "no secure memory");
    }
    if (kms_base64_encode(bytes, (char *)ret->data, size) != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "base64 has no room");
    }
    ret->len = size - 1;
    return KMS_OK;
}

/* ---- the exchange ------------------------------------------------------------------------- */

static struct kms_http_wait wait_of(const struct kms_call *call)
{
    return (struct kms_http_wait){
        .deadline_ns = call->deadline_ns, .cancelled = call->cancelled, .trace_id = call->trace_id};
}

static enum kms_status read_reply(const struct kms_ali_ask *ask, struct kms_ali_reply *ret,
                                  struct kms_error *err)
{
    enum kms_status status =
        kms_json_parse("the reply", kms_blob_span(&ret->response.body), &ret->doc, &ret->root, err);

    (void)ask;
    if (status == KMS_OK) {
        status =
            kms_json_text(&ret->root, "RequestId", KMS_ERROR_CODE_MAX - 1, &ret->request_id, err);
    }
    return status;
}

/* The actions that a dedicated instance's gateway has; all others are the management's. */
static struct kms_endpoints *endpoints_for(const struct kms_backend *b, const char *action)
{
    static const char *const uses[] = {"Encrypt",        "Decrypt",           "GenerateDataKey",
                                       "AsymmetricSign", "AsymmetricDecrypt", "GetPublicKey",
                                       "GenerateMac",    "VerifyMac"};

    for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
        if (strcmp(uses[i], action) == 0) {
            return b->endpoints;
        }
    }
    return b->management;
}

/* One exchange with one credential. *ret_renew: the credential was refused. */
static enum kms_status exchange(struct kms_backend *b, struct kms_call *call,
                                const struct kms_ali_ask *ask, const char *url,
                                const struct kms_credential_value *credential,
                                struct kms_ali_reply *ret, bool *ret_renew)
{
    static const char *const want[] = {KMS_ALI_REQUEST_ID};
    struct kms_ali_signing s = {.action = ask->action,
                                .version = API_VERSION,
                                .query = kms_span_str(url + 2),
                                .part = credential->part};
    struct kms_http_wait wait = wait_of(call);
    const struct kms_http_request request = {.method = KMS_HTTP_POST,
                                             .url = url,
                                             .prepare = kms_ali_prepare,
                                             .prepare_ctx = &s,
                                             .want = want,
                                             .want_count = 1,
                                             .body_max = REPLY_MAX,
                                             .once = ask->once};
    enum kms_status status = kms_endpoints_perform(endpoints_for(b, ask->action), &request, &wait,
                                                   &ret->response, &call->error);

    kms_wipe(s.authorization, sizeof(s.authorization));
    if (status == KMS_OK) {
        status = ret->response.status == 200
                     ? read_reply(ask, ret, &call->error)
                     : kms_ali_error(ask->action, &ret->response, &call->error, ret_renew);
    }
    if (status != KMS_OK) {
        kms_ali_name_request(&ret->response, &call->error);
    }
    return status;
}

static void note(struct kms_backend *b, const struct kms_call *call, enum kms_status status,
                 const struct kms_http_response *response)
{
    enum kms_http_word word = kms_http_word_of(status, response);

    pthread_mutex_lock(&b->lock);
    b->asked = b->asked || !response->is_over;
    if (word == KMS_HTTP_SAYS_WELL) {
        kms_error_clear(&b->trouble);
    } else if (word == KMS_HTTP_SAYS_ILL) {
        b->trouble = call->error;
    }
    pthread_mutex_unlock(&b->lock);
}

static enum kms_status ask_with(struct kms_backend *b, struct kms_call *call,
                                const struct kms_ali_ask *ask, const char *url,
                                struct kms_ali_reply *ret, bool *ret_again)
{
    const struct kms_credential_value *credential = NULL;
    struct kms_http_wait wait = wait_of(call);
    bool renew = false;
    enum kms_status status = kms_credential_get(b->credential, &wait, &credential, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    status = exchange(b, call, ask, url, credential, ret, &renew);
    *ret_again = renew && kms_credential_refused(b->credential, credential);
    kms_credential_give(b->credential, credential);
    return status;
}

/* What ActionTrail calls the request, for the audit's line. An answer that is none of the API's has
 * it in its header at best. */
static void tell_request(struct kms_call *call, const struct kms_ali_reply *reply)
{
    const char *id = reply->request_id != NULL ? reply->request_id : reply->response.want[0];

    if (call->error.request_id[0] == '\0' || call->error.status == KMS_OK) {
        (void)snprintf(call->error.request_id, sizeof(call->error.request_id), "%.*s",
                       KMS_ERROR_CODE_MAX - 1, id);
    }
}

/* What a query takes at most: each byte of a value may become three. */
static size_t room_of(const struct kms_ali_ask *ask)
{
    size_t room = 0;

    for (size_t i = 0; i < ask->count; i++) {
        room += strlen(ask->params[i].name) + 2 + 3 * ask->params[i].value.len;
    }
    return room < KMS_ALI_QUERY_MAX ? room : KMS_ALI_QUERY_MAX;
}

enum kms_status kms_ali_call(struct kms_backend *b, struct kms_call *call,
                             const struct kms_ali_ask *ask, struct kms_ali_reply *ret)
{
    struct kms_blob url = {.data = NULL};
    struct kms_buf query;
    size_t room = room_of(ask) + 2; /* "/?" */
    bool again = false;
    enum kms_status status = kms_blob_reserve(&url, room);

    if (status != KMS_OK) {
        return kms_error_set(&call->error, status, "no secure memory for a request");
    }
    query = kms_buf_over(url.data, room); /* a NUL's room is behind it */
    status = kms_buf_put(&query, kms_span_str("/?"));
    if (status == KMS_OK) {
        status = kms_acs3_query(ask->params, ask->count, &query);
    }
    if (status != KMS_OK) {
        status = kms_error_set(&call->error, status, "%s: the request is too large", ask->action);
        goto out;
    }
    url.data[query.len] = '\0';
    status = ask_with(b, call, ask, (const char *)url.data, ret, &again);
    if (again) {
        kms_ali_reply_done(call, ret);
        kms_error_clear(&call->error);
        status = ask_with(b, call, ask, (const char *)url.data, ret, &again);
    }
    note(b, call, status, &ret->response);
    tell_request(call, ret);
out:
    kms_blob_done(&url);
    return status;
}

void kms_ali_reply_done(struct kms_call *call, struct kms_ali_reply *reply)
{
    tell_request(call, reply); /* an error about what the reply holds had none yet */
    kms_json_free(reply->doc);
    reply->doc = NULL;
    reply->request_id = NULL;
    kms_http_response_done(&reply->response);
}

enum kms_status kms_ali_protocol(struct kms_call *call, const struct kms_ali_reply *reply,
                                 const char *action, const char *why)
{
    enum kms_status status =
        kms_error_set(&call->error, KMS_E_PROTOCOL, "%s: the reply %s", action, why);

    tell_request(call, reply);
    return status;
}

enum kms_status kms_ali_bytes(struct kms_call *call, const struct kms_ali_reply *reply,
                              const char *field, struct kms_buf *out)
{
    struct kms_blob storage = {.data = NULL};
    struct kms_buf bytes;
    enum kms_status status = kms_blob_reserve(&storage, reply->response.body.len);

    if (status != KMS_OK) {
        return kms_error_set(&call->error, status, "no secure memory for a reply");
    }
    bytes = kms_buf_over(storage.data, storage.cap);
    status = kms_json_base64(&reply->root, field, &bytes, &call->error);
    if (status == KMS_OK && kms_buf_put(out, kms_buf_span(&bytes)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "%zu bytes have no room in %zu",
                               bytes.len, kms_buf_room(out));
    }
    kms_blob_done(&storage);
    return status;
}
