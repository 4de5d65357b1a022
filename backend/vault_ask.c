/* SPDX-License-Identifier: Apache-2.0 */
/* One question to Transit: path, token, what the answer means. */
#include <stdio.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/secure.h"

#define SAID_MAX        240 /* of what the server said, in our texts */
#define REQUEST_ID_SIZE (3 + 32 + 1)

/* ---- what an answer means ----------------------------------------------------------------- */

/*
 * The first row that fits. Transit tells what is wrong with a request by text alone, OpenBao 2.7's
 * are below; it answers 500 where a ciphertext does not open under an RSA key.
 */
static const struct answer_row {
    unsigned http;
    const char *said; /* in the first of "errors"; NULL: whatever it is */
    enum kms_status status;
} answer_rows[] = {
    /* of a version that was read: a node that is behind has not heard of it */
    {400, "version is too new", KMS_E_UNAVAILABLE},
    {400, "higher than the latest key version", KMS_E_UNAVAILABLE},
    {400, "message authentication failed", KMS_E_BAD_DATA},
    {400, "invalid ciphertext", KMS_E_BAD_DATA},
    {400, "failed to RSA decrypt", KMS_E_BAD_DATA},
    {500, "failed to RSA decrypt", KMS_E_BAD_DATA},
    {400, "too old", KMS_E_KEY_STATE},
    {400, "less than the minimum encryption key version", KMS_E_KEY_STATE},
    {400, "soft deleted", KMS_E_KEY_STATE},
    {400, "soft-deleted", KMS_E_KEY_STATE},
    {400, "no such key version", KMS_E_KEY_STATE},
    {400, "key not found", KMS_E_NOT_FOUND},
    {400, "could not delete key; not found", KMS_E_NOT_FOUND},
    {400, "no existing key named", KMS_E_NOT_FOUND},
    {400, "unknown key type never-make-one", KMS_E_NOT_FOUND}, /* vault_cipher.c */
    {400, "deletion is not allowed", KMS_E_DENIED},
    {400, "invalid role or secret ID", KMS_E_AUTH},
    {400, "wrapping token is not valid or does not exist", KMS_E_AUTH},
    {400, NULL, KMS_E_INVALID},
    {401, NULL, KMS_E_AUTH},
    {403, NULL, KMS_E_DENIED},
    {404, NULL, KMS_E_NOT_FOUND},
    {405, NULL, KMS_E_UNSUPPORTED},
    {412, NULL, KMS_E_UNAVAILABLE}, /* a replica that is behind */
    {413, NULL, KMS_E_TOO_LARGE},
    {429, NULL, KMS_E_THROTTLED},
    {473, NULL, KMS_E_UNAVAILABLE}, /* a performance standby */
};

static enum kms_status status_of(unsigned http, const char *said)
{
    for (size_t i = 0; i < sizeof(answer_rows) / sizeof(answer_rows[0]); i++) {
        const struct answer_row *row = &answer_rows[i];

        if (row->http == http && (row->said == NULL || strstr(said, row->said) != NULL)) {
            return row->status;
        }
    }
    if (http >= 300 && http < 400) { /* a standby node sends to the active one: another address */
        return KMS_E_UNAVAILABLE;
    }
    return http >= 500 ? KMS_E_UNAVAILABLE : KMS_E_INVALID;
}

/*
 * The first of "errors", or "". False: the body is not Transit's. A proxy or another server may
 * have written it.
 */
static bool copy_said(const struct kms_http_response *http, char *ret_said, size_t size)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_json errors;
    const char *text = "";
    bool is_ours = false;

    ret_said[0] = '\0';
    if (kms_json_parse("an error", kms_blob_span(&http->body), &doc, &root, NULL) != KMS_OK) {
        return false;
    }
    is_ours = kms_json_array(&root, "errors", &errors, NULL) == KMS_OK;
    if (is_ours && kms_json_count(&errors) > 0 &&
        kms_json_text_at(&errors, 0, 4096, &text, NULL) == KMS_OK) {
        (void)snprintf(ret_said, size, "%.*s", SAID_MAX, text);
    }
    kms_json_free(doc);
    return is_ours;
}

/*
 * Sealed, no leader, behind, a standby that sends elsewhere: another node may do. Not 500, which
 * Transit says of a ciphertext, but of a standby that does not know which node is active (OpenBao's
 * and Vault's HTTP handler).
 */
bool kms_vault_is_sick(const struct kms_http_response *response)
{
    char said[SAID_MAX + 1];

    if (response->status == 500) {
        return copy_said(response, said, sizeof(said)) &&
               strstr(said, "node not active but active") != NULL;
    }
    return (response->status >= 300 && response->status < 400) || response->status == 412 ||
           response->status == 473 || (response->status >= 501 && response->status <= 504);
}

void kms_vault_say(const struct kms_http_response *response, char *ret_text, size_t size)
{
    (void)copy_said(response, ret_text, size);
}

/* @path names the key, and the right that a policy may lack. */
static enum kms_status fail(const struct kms_http_response *http, const char *path,
                            struct kms_error *err)
{
    char said[SAID_MAX + 1];
    char code[16];
    enum kms_status status = KMS_OK;
    bool is_ours = copy_said(http, said, sizeof(said));

    status = status_of(http->status, said);
    if (!is_ours && (status == KMS_E_NOT_FOUND || status == KMS_E_DENIED ||
                     status == KMS_E_INVALID || status == KMS_E_UNSUPPORTED)) {
        status = KMS_E_PROTOCOL; /* of no key and no token of ours: somebody else answers there */
    }
    (void)snprintf(code, sizeof(code), "HTTP %u", http->status);
    status = kms_error_set_code(err, status, code, "%s answers %u%s%s (%s)",
                                http->origin == NULL ? "Transit" : http->origin, http->status,
                                said[0] == '\0' ? "" : ": ", said, path);
    if (err != NULL && http->retry_after_ns > 0) {
        err->retry_after_ns = http->retry_after_ns;
    }
    return status;
}

static enum kms_status judge(struct kms_vault_reply *reply, const char *path, struct kms_error *err)
{
    if (reply->http.status < 200 || reply->http.status >= 300) {
        return fail(&reply->http, path, err);
    }
    if (reply->http.body.len == 0) {
        return KMS_OK;
    }
    return kms_json_parse("the reply", kms_blob_span(&reply->http.body), &reply->doc, &reply->root,
                          err);
}

enum kms_status kms_vault_data(const struct kms_vault_reply *reply, struct kms_json *ret_data,
                               struct kms_error *err)
{
    if (reply->doc == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply has no body");
    }
    return kms_json_object(&reply->root, "data", ret_data, err);
}

void kms_vault_reply_done(struct kms_vault_reply *reply)
{
    kms_json_free(reply->doc);
    kms_http_response_done(&reply->http);
    *reply = (struct kms_vault_reply){.doc = NULL};
}

/* ---- asking ------------------------------------------------------------------------------- */

enum kms_status kms_vault_path(const struct kms_backend *backend, struct kms_call *call,
                               const char *a, const char *name, const char *b,
                               char ret_path[KMS_VAULT_PATH_MAX])
{
    struct kms_buf out = kms_buf_over(ret_path, KMS_VAULT_PATH_MAX - 1);

    if (kms_buf_put(&out, kms_span_str("/v1/")) != KMS_OK ||
        kms_buf_put(&out, kms_span_str(backend->mount)) != KMS_OK ||
        kms_buf_put(&out, kms_span_str(a)) != KMS_OK ||
        kms_http_put_escaped(&out, name) != KMS_OK ||
        kms_buf_put(&out, kms_span_str(b)) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a key's name is too long");
    }
    ret_path[out.len] = '\0';
    return KMS_OK;
}

/*
 * Error replies name no request, and no header of theirs does (Vault's API; OpenBao 2.7 tried). So
 * that a failed call is found in the server's audit log all the same, each request bears an id of
 * our own, "kb-" and 128 random bits, which the server writes down if it is told to
 * (sys/config/auditing/request-headers). "" without random bytes.
 */
static void make_id(char ret_id[REQUEST_ID_SIZE])
{
    uint8_t bytes[16];

    memcpy(ret_id, "kb-", 4);
    if (kms_random(bytes, sizeof(bytes)) != KMS_OK ||
        kms_hex_encode(kms_span_of(bytes, sizeof(bytes)), ret_id + 3, REQUEST_ID_SIZE - 3) !=
            KMS_OK) {
        ret_id[0] = '\0';
    }
}

enum kms_status kms_vault_ask_as(struct kms_backend *backend, const struct kms_http_wait *wait,
                                 const char *token, const struct kms_vault_ask *ask,
                                 struct kms_vault_reply *ret, struct kms_error *err)
{
    char id[REQUEST_ID_SIZE];
    const struct kms_http_header headers[] = {
        {"X-Correlation-Id", id},
        {"X-Vault-Token", token},
        {"X-Vault-Namespace", backend->name_space[0] == '\0' ? NULL : backend->name_space},
        {"X-Vault-Request", "true"}, /* a Vault or OpenBao proxy may insist on it */
        {"Content-Type", ask->body.len == 0 ? NULL : "application/json"},
    };
    const struct kms_http_request request = {
        .method = ask->method,
        .url = ask->path,
        .headers = headers,
        .header_count = sizeof(headers) / sizeof(headers[0]),
        .body = ask->body,
        .once = ask->once,
        .fresh = ask->fresh,
        .body_max = KMS_VAULT_REPLY_MAX,
    };
    enum kms_status status = KMS_OK;

    make_id(id);
    status = kms_endpoints_perform(backend->endpoints, &request, wait, &ret->http, err);
    if (status == KMS_OK) {
        status = judge(ret, ask->path, err);
    }
    if (status != KMS_OK && err != NULL && ret->http.was_sent) {
        memcpy(err->request_id, id, sizeof(id));
    }
    return status;
}

/* What a call tells of the service, for health. */
static void note(struct kms_backend *backend, enum kms_status status, const struct kms_error *err,
                 const struct kms_http_response *response)
{
    enum kms_http_word word = kms_http_word_of(status, response);

    if (status == KMS_E_UNAVAILABLE && response->status == 400) {
        word = KMS_HTTP_SAYS_WELL; /* Transit has answered: the node is a moment behind */
    }
    if (word == KMS_HTTP_SAYS_NOTHING) {
        return;
    }
    pthread_mutex_lock(&backend->lock);
    backend->ready = word == KMS_HTTP_SAYS_WELL;
    if (word == KMS_HTTP_SAYS_ILL) {
        backend->trouble = *err;
    }
    pthread_mutex_unlock(&backend->lock);
}

/* ---- a token that is refused -------------------------------------------------------------- */

#define UNSURE_NS (60 * KMS_NS_PER_S) /* how often a token is replaced that is perhaps good */

static enum kms_status refuse_token(struct kms_backend *backend, struct kms_error *err)
{
    return kms_error_reword(err, KMS_E_AUTH, "%s refuses our token (auth method %s)",
                            kms_endpoints_first(backend->endpoints), backend->vault->auth->method);
}

/*
 * True once a minute: a policy that denies for good would have us log in for each call. And of one
 * from before that: it is being replaced, or was too young to be.
 */
static bool may_doubt(struct kms_backend *backend, const struct kms_credential_value *token)
{
    uint64_t now = kms_now_ns();
    bool is_due = false;
    bool may = false;

    pthread_mutex_lock(&backend->lock);
    is_due = backend->doubted_ns == 0 || now - backend->doubted_ns > UNSURE_NS;
    may = is_due || token->taken_ns < backend->doubted_ns;
    backend->doubted_ns = is_due ? now : backend->doubted_ns;
    pthread_mutex_unlock(&backend->lock);
    return may;
}

/*
 * Nobody lets us see whether the token is good: another one is tried, and what is denied to a token
 * of a new login, too, is denied. A token that is given may be the one that it was, and no good:
 * the operator is to look at it first.
 */
static enum kms_status doubt_token(struct kms_backend *backend,
                                   const struct kms_credential_value *token, bool *ret_again,
                                   struct kms_error *err)
{
    bool is_given = strcmp(backend->vault->auth->method, "token") == 0;

    *ret_again = (is_given || may_doubt(backend, token)) &&
                 kms_credential_refused(backend->credential, token);
    return kms_error_reword(
        err, is_given ? KMS_E_AUTH : KMS_E_DENIED,
        "%s (denied, or our token is refused: which of them cannot be told of a "
        "token without `read` on auth/token/lookup-self, as in the policy "
        "default)",
        err->text);
}

static enum kms_status weigh_token(struct kms_backend *backend, const struct kms_http_wait *wait,
                                   const struct kms_credential_value *token, bool *ret_again,
                                   struct kms_error *err)
{
    switch (kms_vault_weigh(backend, wait, token->part[0], err)) {
    case KMS_VAULT_TOKEN_BAD:
        *ret_again = kms_credential_refused(backend->credential, token);
        return refuse_token(backend, err);
    case KMS_VAULT_TOKEN_UNSURE:
        return doubt_token(backend, token, ret_again, err);
    case KMS_VAULT_TOKEN_GOOD:
    case KMS_VAULT_TOKEN_UNASKED: /* the next call may be told */
        break;
    }
    return KMS_E_DENIED;
}

/* One round; *ret_again: the token was bad, and another one is to be had. */
static enum kms_status ask_once(struct kms_backend *backend, const struct kms_http_wait *wait,
                                const struct kms_vault_ask *ask, struct kms_vault_reply *ret,
                                bool *ret_again, struct kms_error *err)
{
    const struct kms_credential_value *token = NULL;
    enum kms_status status = kms_credential_get(backend->credential, wait, &token, err);

    *ret_again = false;
    if (status != KMS_OK) {
        return status;
    }
    status = kms_vault_ask_as(backend, wait, token->part[0], ask, ret, err);
    if (status == KMS_E_DENIED && ret->http.status == 403) {
        status = weigh_token(backend, wait, token, ret_again, err);
    }
    kms_credential_give(backend->credential, token);
    return status;
}

/* The server's own id of the request, for the audit log: its audit log has the same. */
static void tell_request(const struct kms_vault_reply *reply, struct kms_call *call)
{
    const char *id = "";

    if (reply->doc != NULL &&
        kms_json_text_maybe(&reply->root, "request_id", sizeof(call->error.request_id) - 1, &id,
                            NULL) == KMS_OK) {
        (void)snprintf(call->error.request_id, sizeof(call->error.request_id), "%s", id);
    }
}

enum kms_status kms_vault_ask(struct kms_backend *backend, struct kms_call *call,
                              const struct kms_vault_ask *ask, struct kms_vault_reply *ret)
{
    const struct kms_http_wait wait = {
        .deadline_ns = call->deadline_ns, .cancelled = call->cancelled, .trace_id = call->trace_id};
    bool again = false;
    enum kms_status status = ask_once(backend, &wait, ask, ret, &again, &call->error);

    if (again) {
        pthread_mutex_lock(&backend->lock);
        backend->relogins++;
        pthread_mutex_unlock(&backend->lock);
        kms_vault_reply_done(ret);
        kms_error_clear(&call->error);
        status = ask_once(backend, &wait, ask, ret, &again, &call->error);
    }
    note(backend, status, &call->error, &ret->http);
    if (status == KMS_OK) {
        tell_request(ret, call);
    }
    return status;
}

/* ---- a body ------------------------------------------------------------------------------- */

#define BODY_REST 1024 /* names, numbers, brackets */

enum kms_status kms_vault_body_begin(struct kms_vault_body *body, size_t size,
                                     struct kms_error *err)
{
    /* base64, or a text of which every byte is escaped */
    size_t room = size * 6 + BODY_REST;

    *body = (struct kms_vault_body){.blob = {.data = NULL}};
    room = size > KMS_SIGNATURE_MAX ? size * 4 / 3 + 2 * BODY_REST + 6 * 1024 : room;
    if (kms_blob_reserve(&body->blob, room) != KMS_OK) {
        return kms_error_set(err, KMS_E_NOMEM, "no secure memory for a request");
    }
    body->buf = kms_buf_over(body->blob.data, room);
    kms_json_begin(&body->json, &body->buf);
    return KMS_OK;
}

enum kms_status kms_vault_body_end(struct kms_vault_body *body, struct kms_error *err)
{
    enum kms_status status = kms_json_end(&body->json);

    return status == KMS_OK ? KMS_OK
                            : kms_error_set(err, status, "a request cannot be written as JSON");
}

void kms_vault_body_done(struct kms_vault_body *body)
{
    kms_blob_done(&body->blob);
}
