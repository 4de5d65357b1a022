/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where our token comes from: a reference to one, or a login by one of Vault's auth methods. A
 * token that can be renewed is renewed; when its lease comes to less than half of what the login
 * gave (its max_ttl is near) or the renewal fails, we log in anew. Everything that is read from
 * files is read anew each time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/file.h"
#include "common/log.h"
#include "common/secret.h"
#include "common/secure.h"

#define RENEWABLE    1u
#define STATIC_AGAIN (60 * KMS_NS_PER_S)        /* how often a token without an end is read anew */
#define LEASE_MAX    (INT64_MAX / KMS_NS_PER_S) /* where a server's own clock ends, as Go has it */
#define TOKEN_MAX    8192
#define JWT_MAX      KMS_CREDENTIAL_PART_MAX

/* ---- secrets ------------------------------------------------------------------------------ */

static bool is_line(struct kms_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.data[i] < ' ') {
            return false;
        }
    }
    return true;
}

/* A NUL-terminated copy in secure memory; the caller frees it with kms_secure_free(). */
static enum kms_status copy_secret(struct kms_span bytes, const char *ref, char **ret,
                                   struct kms_error *err)
{
    char *text = NULL;

    if (bytes.len == 0 || !is_line(bytes) || !kms_utf8_valid(bytes)) {
        return kms_error_set(err, KMS_E_INVALID,
                             "the secret %s is empty, no text or more than a line", ref);
    }
    text = kms_secure_new(bytes.len + 1);
    if (text == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no secure memory for the secret %s", ref);
    }
    memcpy(text, bytes.data, bytes.len);
    *ret = text;
    return KMS_OK;
}

static enum kms_status load(const char *ref, char **ret, struct kms_error *err)
{
    struct kms_secret *secret = NULL;
    enum kms_status status = kms_secret_load(ref, &secret, err);

    if (status == KMS_OK) {
        status = copy_secret(kms_secret_span(secret), ref, ret, err);
        kms_secret_free(secret);
    }
    return status;
}

/* The kubelet's projected tokens may be readable by all, and are longer than other secrets. */
static enum kms_status load_jwt(const char *ref, char **ret, struct kms_error *err)
{
    char *content = NULL;
    size_t len = 0;
    enum kms_status status = KMS_OK;

    if (strncmp(ref, "file:", strlen("file:")) != 0) {
        return load(ref, ret, err);
    }
    status = kms_file_read(ref + strlen("file:"), KMS_FILE_CONFIG, JWT_MAX, &content, &len, err);
    if (status != KMS_OK) {
        return status;
    }
    while (len > 0 && (content[len - 1] == '\n' || content[len - 1] == '\r')) {
        content[--len] = '\0';
    }
    status = copy_secret(kms_span_of(content, len), ref, ret, err);
    kms_wipe(content, len);
    free(content);
    return status;
}

/* ---- what a login answers ----------------------------------------------------------------- */

struct granted {
    const char *token;
    uint64_t lease_s; /* 0: for ever */
    bool renewable;
};

static enum kms_status take_auth(const struct kms_vault_reply *reply, struct granted *ret,
                                 struct kms_error *err)
{
    struct kms_json auth;
    enum kms_status status = KMS_OK;

    if (reply->doc == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply has no body");
    }
    status = kms_json_object(&reply->root, "auth", &auth, err);
    if (status == KMS_OK) {
        status = kms_json_text(&auth, "client_token", TOKEN_MAX, &ret->token, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64(&auth, "lease_duration", 0, LEASE_MAX, &ret->lease_s, err);
    }
    if (status == KMS_OK) {
        status = kms_json_bool(&auth, "renewable", &ret->renewable, err);
    }
    if (status == KMS_OK && ret->token[0] == '\0') {
        status = kms_error_set(err, KMS_E_PROTOCOL, "the reply has an empty token");
    }
    return status;
}

static enum kms_status offer(struct kms_credential_slot *slot, const struct granted *granted,
                             struct kms_error *err)
{
    const struct kms_credential_offer offered = {
        .part = {granted->token},
        .lifetime_ns = granted->lease_s == 0 ? KMS_DEADLINE_NONE : granted->lease_s * KMS_NS_PER_S,
        .refresh_ns = granted->lease_s == 0 ? STATIC_AGAIN : 0,
        .flags = granted->renewable ? RENEWABLE : 0,
    };

    return kms_credential_put(slot, &offered, err);
}

/* By `cert` the connection says who we are; it may have been there before the certificate. */
static bool is_by_connection(const struct kms_vault_login *login)
{
    return strcmp(login->backend->vault->auth->method, "cert") == 0;
}

/* ---- renewal ------------------------------------------------------------------------------ */

/* False when another login is due: the renewal failed, or gave too little. */
static bool renew(struct kms_vault_login *login, const struct kms_http_wait *wait,
                  const struct kms_credential_value *old, struct kms_credential_slot *slot)
{
    static const char body[] = "{}";
    const struct kms_vault_ask ask = {.method = KMS_HTTP_POST,
                                      .path = "/v1/auth/token/renew-self",
                                      .body = {.data = (const uint8_t *)body, .len = 2},
                                      .fresh = is_by_connection(login)};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_error ignored = KMS_ERROR_INIT;
    struct granted granted = {.token = NULL};
    enum kms_status status =
        kms_vault_ask_as(login->backend, wait, old->part[0], &ask, &reply, &ignored);

    if (status == KMS_OK) {
        status = take_auth(&reply, &granted, &ignored);
    }
    if (status == KMS_OK && granted.lease_s != 0 &&
        granted.lease_s * KMS_NS_PER_S < login->lease_ns / 2) {
        status = KMS_E_AUTH;
    }
    if (status == KMS_OK) {
        status = offer(slot, &granted, &ignored);
    }
    kms_vault_reply_done(&reply);
    return status == KMS_OK;
}

/* ---- a token that is given ---------------------------------------------------------------- */

/*
 * The policy does not let it look itself up, or it is no good. Perhaps good will do: what it is
 * used for next will tell. Nothing is known of its end, and it is not renewed.
 */
static enum kms_status look_at_blind(struct kms_vault_login *login,
                                     const struct kms_http_wait *wait, const char *token,
                                     struct kms_error *err)
{
    const char *ref = login->backend->vault->auth->token;
    struct kms_error why = KMS_ERROR_INIT;

    switch (kms_vault_weigh_blind(login->backend, wait, token, err, &why)) {
    case KMS_VAULT_TOKEN_BAD:
        return kms_error_reword(err, KMS_E_AUTH, "the token of %s is refused", ref);
    case KMS_VAULT_TOKEN_UNASKED:
        *err = why;
        return kms_error_reword(err, why.status, "the token of %s cannot be looked at now: %s", ref,
                                why.text);
    case KMS_VAULT_TOKEN_GOOD:
    case KMS_VAULT_TOKEN_UNSURE:
        break;
    }
    kms_log_error(
        login->told_blind ? KMS_LOG_DEBUG : KMS_LOG_WARN, err,
        "backend %s: the token of %s may not look itself up, so that it is used without "
        "renewing it: give it the policy default, or `read` on auth/token/lookup-self and "
        "`update` on auth/token/renew-self",
        login->backend->conf->name, ref);
    login->told_blind = true;
    kms_error_clear(err);
    return KMS_OK;
}

static enum kms_status look_up_self(struct kms_vault_login *login, const struct kms_http_wait *wait,
                                    const char *token, struct granted *ret, struct kms_error *err)
{
    const struct kms_vault_ask ask = {.method = KMS_HTTP_GET, .path = "/v1/auth/token/lookup-self"};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    enum kms_status status = kms_vault_ask_as(login->backend, wait, token, &ask, &reply, err);

    *ret = (struct granted){.token = token};
    if (status == KMS_OK) {
        login->told_blind = false; /* the next one that may not is news */
        status = kms_vault_data(&reply, &data, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64(&data, "ttl", 0, LEASE_MAX, &ret->lease_s, err);
    }
    if (status == KMS_OK) {
        status = kms_json_bool_maybe(&data, "renewable", &ret->renewable, err);
    }
    kms_vault_reply_done(&reply);
    return status == KMS_E_DENIED ? look_at_blind(login, wait, token, err) : status;
}

static enum kms_status take_token(struct kms_vault_login *login, const struct kms_http_wait *wait,
                                  const struct kms_credential_value *old,
                                  struct kms_credential_slot *slot, struct kms_error *err)
{
    struct granted granted = {.token = NULL};
    char *token = NULL;
    bool is_old = false;
    enum kms_status status = load(login->backend->vault->auth->token, &token, err);

    if (status == KMS_OK) {
        is_old = old != NULL && strcmp(old->part[0], token) == 0;
    }
    if (status == KMS_OK && is_old && (old->flags & RENEWABLE) != 0 &&
        renew(login, wait, old, slot)) {
        kms_secure_free(token);
        return KMS_OK;
    }
    if (status == KMS_OK) {
        status = look_up_self(login, wait, token, &granted, err);
    }
    if (status == KMS_OK) {
        login->lease_ns = 0; /* nobody else logs in for it: a renewal may give what it likes */
        status = offer(slot, &granted, err);
    }
    kms_secure_free(token);
    return status;
}

/* ---- logins ------------------------------------------------------------------------------- */

/* {"data":{"secret_id":...}} for a wrapping token that can be used once. */
static enum kms_status unwrap(struct kms_vault_login *login, const struct kms_http_wait *wait,
                              const char *wrapping, char **ret_secret, struct kms_error *err)
{
    static const char body[] = "{}";
    const struct kms_vault_ask ask = {.method = KMS_HTTP_POST,
                                      .path = "/v1/sys/wrapping/unwrap",
                                      .body = {.data = (const uint8_t *)body, .len = 2},
                                      .once = true};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    const char *text = NULL;
    enum kms_status status = kms_vault_ask_as(login->backend, wait, wrapping, &ask, &reply, err);

    if (status == KMS_OK) {
        status = kms_vault_data(&reply, &data, err);
    }
    if (status == KMS_OK) {
        status = kms_json_text(&data, "secret_id", KMS_SECRET_MAX, &text, err);
    }
    if (status == KMS_OK) {
        status = copy_secret(kms_span_str(text), "in the wrapping token", ret_secret, err);
    }
    kms_vault_reply_done(&reply);
    if (status == KMS_E_DENIED || status == KMS_E_INVALID || status == KMS_E_AUTH) {
        status = kms_error_reword(err, KMS_E_AUTH,
                                  "the wrapping token of %s is not good, or was used already: by "
                                  "somebody else?",
                                  login->backend->vault->auth->secret_id);
    }
    return status;
}

/* A wrapping token is good once: what came out of it is kept for as long as it stands there. */
static enum kms_status load_secret_id(struct kms_vault_login *login,
                                      const struct kms_http_wait *wait, char **ret,
                                      struct kms_error *err)
{
    const struct kms_vault_auth_conf *auth = login->backend->vault->auth;
    char *text = NULL;
    char *secret = NULL;
    enum kms_status status = load(auth->secret_id, &text, err);

    if (status != KMS_OK || !kms_text_equal(auth->secret_id_is_wrapped, "true")) {
        *ret = text;
        return status;
    }
    if (!kms_text_equal(login->wrapping, text)) {
        status = unwrap(login, wait, text, &secret, err);
        if (status != KMS_OK) {
            kms_secure_free(text);
            return status;
        }
        kms_vault_login_done(login);
        login->wrapping = text;
        login->unwrapped = secret;
    } else {
        kms_secure_free(text);
    }
    return copy_secret(kms_span_str(login->unwrapped), auth->secret_id, ret, err);
}

static enum kms_status put_approle(struct kms_vault_login *login, const struct kms_http_wait *wait,
                                   struct kms_json_out *out, struct kms_error *err)
{
    char *secret = NULL;
    enum kms_status status = load_secret_id(login, wait, &secret, err);

    if (status == KMS_OK) {
        kms_json_put_text(out, "role_id", login->backend->vault->auth->role_id);
        kms_json_put_text(out, "secret_id", secret);
    }
    kms_secure_free(secret);
    return status;
}

static enum kms_status put_jwt(struct kms_vault_login *login, const struct kms_http_wait *wait,
                               struct kms_json_out *out, struct kms_error *err)
{
    char *jwt = NULL;
    enum kms_status status = load_jwt(login->backend->vault->auth->jwt, &jwt, err);

    (void)wait;
    if (status == KMS_OK) {
        kms_json_put_text(out, "role", login->backend->vault->auth->role);
        kms_json_put_text(out, "jwt", jwt);
    }
    kms_secure_free(jwt);
    return status;
}

static enum kms_status put_cert(struct kms_vault_login *login, const struct kms_http_wait *wait,
                                struct kms_json_out *out, struct kms_error *err)
{
    (void)wait;
    (void)err;
    if (login->backend->vault->auth->role != NULL) {
        kms_json_put_text(out, "name", login->backend->vault->auth->role);
    }
    return KMS_OK;
}

static const struct method_row {
    const char *name;
    enum kms_status (*put)(struct kms_vault_login *login, const struct kms_http_wait *wait,
                           struct kms_json_out *out, struct kms_error *err);
} method_rows[] = {
    {"approle", put_approle}, {"kubernetes", put_jwt}, {"jwt", put_jwt}, {"cert", put_cert}};

static const struct method_row *method_of(const struct kms_vault_auth_conf *auth)
{
    for (size_t i = 0; i < sizeof(method_rows) / sizeof(method_rows[0]); i++) {
        if (strcmp(method_rows[i].name, auth->method) == 0) {
            return &method_rows[i];
        }
    }
    return NULL;
}

static enum kms_status send_login(struct kms_vault_login *login, const struct kms_http_wait *wait,
                                  struct kms_span body, struct kms_vault_reply *ret,
                                  struct kms_error *err)
{
    const char *mount = login->backend->auth_mount;
    char path[KMS_LABEL_MAX + 32];
    const struct kms_vault_ask ask = {
        .method = KMS_HTTP_POST, .path = path, .body = body, .fresh = is_by_connection(login)};
    enum kms_status status = KMS_OK;

    (void)snprintf(path, sizeof(path), "/v1/auth/%s/login", mount);
    status = kms_vault_ask_as(login->backend, wait, NULL, &ask, ret, err);
    if (status == KMS_E_DENIED || status == KMS_E_INVALID || status == KMS_E_NOT_FOUND ||
        status == KMS_E_AUTH) {
        /* whatever it calls it, our credential was refused */
        status = kms_error_reword(err, KMS_E_AUTH, "the login at auth/%s: %s", mount, err->text);
    }
    return status;
}

static enum kms_status log_in(struct kms_vault_login *login, const struct kms_http_wait *wait,
                              const struct method_row *method, struct kms_credential_slot *slot,
                              struct kms_error *err)
{
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct granted granted = {.token = NULL};
    enum kms_status status = kms_vault_body_begin(&body, JWT_MAX + KMS_SECRET_MAX, err);

    if (status != KMS_OK) {
        return status;
    }
    status = method->put(login, wait, &body.json, err);
    if (status == KMS_OK) {
        status = kms_vault_body_end(&body, err);
    }
    if (status == KMS_OK) {
        status = send_login(login, wait, kms_buf_span(&body.buf), &reply, err);
    }
    if (status == KMS_OK) {
        status = take_auth(&reply, &granted, err);
    }
    if (status == KMS_OK) {
        login->lease_ns = granted.lease_s * KMS_NS_PER_S;
        status = offer(slot, &granted, err);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

/* The client's key is a secret like others, which libcurl reads without a look at its rights. */
static enum kms_status check_client_key(const struct kms_vault_conf *vault, struct kms_error *err)
{
    return vault->key != NULL && vault->key[0] == '/'
               ? kms_file_check(vault->key, KMS_FILE_SECRET, err)
               : KMS_OK;
}

enum kms_status kms_vault_login(void *ctx, const struct kms_http_wait *wait,
                                const struct kms_credential_value *old,
                                struct kms_credential_slot *slot, struct kms_error *err)
{
    struct kms_vault_login *login = ctx;
    const struct method_row *method = method_of(login->backend->vault->auth);
    enum kms_status status = check_client_key(login->backend->vault, err);

    if (status != KMS_OK) {
        return status;
    }
    if (method == NULL) {
        return take_token(login, wait, old, slot, err);
    }
    if (old != NULL && (old->flags & RENEWABLE) != 0 && renew(login, wait, old, slot)) {
        return KMS_OK;
    }
    return log_in(login, wait, method, slot, err);
}

void kms_vault_login_done(struct kms_vault_login *login)
{
    kms_secure_free(login->wrapping);
    kms_secure_free(login->unwrapped);
    login->wrapping = NULL;
    login->unwrapped = NULL;
}
