/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/vault.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/codec.h"
#include "common/secret.h"
#include "common/secure.h"

#define RANDOM_MAX 32768 /* bytes of one request; OpenBao's own limit is 128 KiB */

/* ---- open and close ----------------------------------------------------------------------- */

/* Transit's paths and the identity know "a/b", however it was written. */
static void copy_trimmed(char *ret, size_t size, const char *text)
{
    size_t len = 0;

    text += strspn(text, "/");
    len = strlen(text);
    while (len > 0 && text[len - 1] == '/') {
        len--;
    }
    (void)snprintf(ret, size, "%.*s", (int)len, text);
}

/* What the configuration's own check has seen already, for who opens without a file. */
static enum kms_status check_conf(const struct kms_backend_conf *conf, struct kms_error *err)
{
    const struct kms_vault_conf *vault = conf->vault;

    if (vault == NULL || vault->addresses == NULL || vault->addresses_count == 0) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: vault.addresses is missing",
                             conf->name);
    }
    if (vault->auth == NULL || vault->auth->method == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: vault.auth.method is missing",
                             conf->name);
    }
    if (strcmp(vault->auth->method, "token") == 0 && vault->auth->token == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: vault.auth.token is missing",
                             conf->name);
    }
    return KMS_OK;
}

static enum kms_status make_parts(struct kms_backend *backend, struct kms_error *err)
{
    const struct kms_credential_source source = {
        .name = backend->vault->auth->method, .fetch = kms_vault_login, .ctx = &backend->login};
    const struct kms_endpoints_conf endpoints = {
        .name = backend->conf->name,
        .urls = (const char *const *)backend->vault->addresses,
        .count = backend->vault->addresses_count,
        .is_sick = kms_vault_is_sick,
        .say = kms_vault_say,
    };
    struct kms_error why = KMS_ERROR_INIT;
    enum kms_status status =
        kms_endpoints_new(&endpoints, backend->door, &backend->endpoints, &why);

    if (status != KMS_OK) {
        return kms_error_set(err, status, "backend %s: vault.addresses: %s", backend->conf->name,
                             why.text);
    }
    backend->credential = kms_credential_new(&source);
    return backend->credential == NULL
               ? kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", backend->conf->name)
               : KMS_OK;
}

static void close_vault(struct kms_backend *backend)
{
    kms_credential_free(backend->credential);
    kms_vault_login_done(&backend->login);
    kms_endpoints_free(backend->endpoints);
    kms_http_door_close(backend->door);
    kms_vault_table_done(&backend->table);
    (void)pthread_mutex_destroy(&backend->lock);
    free(backend);
}

enum kms_status kms_vault_open_over(const struct kms_backend_conf *conf, struct kms_http_door *door,
                                    struct kms_backend **ret_backend, struct kms_error *err)
{
    struct kms_backend *backend = calloc(1, sizeof(*backend));
    enum kms_status status = KMS_OK;

    if (backend == NULL) {
        kms_http_door_close(door);
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
    }
    backend->conf = conf;
    backend->vault = conf->vault;
    backend->door = door;
    backend->login.backend = backend;
    (void)pthread_mutex_init(&backend->lock, NULL);
    kms_vault_table_init(&backend->table);
    (void)kms_error_set(&backend->trouble, KMS_E_UNAVAILABLE, "nothing has been asked yet");
    status = check_conf(conf, err);
    if (status == KMS_OK) {
        copy_trimmed(backend->mount, sizeof(backend->mount),
                     conf->vault->mount == NULL ? "transit" : conf->vault->mount);
        copy_trimmed(backend->name_space, sizeof(backend->name_space),
                     conf->vault->name_space == NULL ? "" : conf->vault->name_space);
        copy_trimmed(backend->auth_mount, sizeof(backend->auth_mount),
                     conf->vault->auth->mount == NULL ? conf->vault->auth->method
                                                      : conf->vault->auth->mount);
        status = make_parts(backend, err);
    }
    if (status != KMS_OK) {
        close_vault(backend);
        return status;
    }
    *ret_backend = backend;
    return KMS_OK;
}

static unsigned connections_of(const struct kms_vault_conf *vault)
{
    return vault->connections == 0 ? KMS_VAULT_CONNECTIONS_DEFAULT : vault->connections;
}

static enum kms_status open_vault(const struct kms_backend_conf *conf,
                                  struct kms_backend **ret_backend, struct kms_error *err)
{
    struct kms_http_door *door = NULL;
    enum kms_status status = check_conf(conf, err);

    if (status == KMS_OK) {
        const struct kms_http_conf http = {
            .name = conf->name,
            .ca_file = conf->vault->ca_file,
            .client_certificate = conf->vault->certificate,
            .client_key = conf->vault->key,
            .server_name = conf->vault->server_name,
            .proxy = conf->vault->proxy,
            .http1 = !conf->vault->http2,
            .connections = connections_of(conf->vault),
        };

        status = kms_http_open(&http, &door, err);
    }
    return status == KMS_OK ? kms_vault_open_over(conf, door, ret_backend, err) : status;
}

/* ---- the token ---------------------------------------------------------------------------- */

static void health(struct kms_backend *backend, struct kms_health *ret_health)
{
    unsigned calls_max = 0;

    pthread_mutex_lock(&backend->lock);
    ret_health->ready = backend->ready;
    ret_health->reconnects = backend->relogins;
    if (!backend->ready) {
        ret_health->error = backend->trouble;
    }
    pthread_mutex_unlock(&backend->lock);
    if (backend->door->count != NULL) {
        backend->door->count(backend->door, &ret_health->sessions_open, &ret_health->sessions_busy,
                             &calls_max, &ret_health->stuck_ns);
    }
    ret_health->sessions_max = connections_of(backend->vault);
    if (ret_health->sessions_busy > ret_health->sessions_max) { /* streams share a connection */
        ret_health->sessions_busy = ret_health->sessions_max;
    }
}

/* The engine as a token: its serial is made of mount and namespace, as its keys' identities are. */
static enum kms_status describe(struct kms_backend *backend, struct kms_call *call,
                                struct kms_token_info *ret_info)
{
    char text[2 * KMS_LABEL_MAX + 2];
    uint8_t digest[32];
    size_t len = 0;
    int text_len = snprintf(text, sizeof(text), "%s\n%s", backend->name_space, backend->mount);

    memset(ret_info, 0, sizeof(*ret_info));
    if (EVP_Q_digest(NULL, "SHA256", NULL, text, (size_t)text_len, digest, &len) != 1 ||
        kms_hex_encode(kms_span_of(digest, 8), ret_info->serial, sizeof(ret_info->serial)) !=
            KMS_OK) {
        return kms_error_set(&call->error, KMS_E_INTERNAL, "OpenSSL computes no SHA-256");
    }
    (void)snprintf(ret_info->label, sizeof(ret_info->label), "%s", backend->conf->name);
    (void)snprintf(ret_info->manufacturer, sizeof(ret_info->manufacturer), "Vault or OpenBao");
    (void)snprintf(ret_info->model, sizeof(ret_info->model), "Transit");
    ret_info->random = true;
    ret_info->data_keys = true;
    kms_vault_types_all(&ret_info->algs, &ret_info->generates);
    return KMS_OK;
}

static enum kms_status random_some(struct kms_backend *backend, struct kms_call *call, size_t len,
                                   struct kms_buf *ret_bytes)
{
    char path[KMS_VAULT_PATH_MAX];
    struct kms_vault_ask ask = {.method = KMS_HTTP_POST, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_vault_body body;
    struct kms_json data;
    struct kms_buf part = kms_buf_over(ret_bytes->data + ret_bytes->len, len);
    enum kms_status status = kms_vault_body_begin(&body, 0, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_json_put_u64(&body.json, "bytes", len);
    status = kms_vault_body_end(&body, &call->error);
    if (status == KMS_OK) {
        status = kms_vault_path(backend, call, "/random", "", "", path);
    }
    if (status == KMS_OK) {
        ask.body = kms_buf_span(&body.buf);
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = kms_vault_data(&reply, &data, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_json_base64(&data, "random_bytes", &part, &call->error);
    }
    if (status == KMS_OK && part.len != len) {
        status =
            kms_error_set(&call->error, KMS_E_PROTOCOL, "%zu random bytes, not %zu", part.len, len);
    }
    ret_bytes->len += status == KMS_OK ? len : 0;
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

static enum kms_status random_bytes(struct kms_backend *backend, struct kms_call *call,
                                    struct kms_buf *ret_bytes)
{
    struct kms_buf bytes = *ret_bytes;
    enum kms_status status = KMS_OK;

    while (status == KMS_OK && kms_buf_room(&bytes) > 0) {
        size_t room = kms_buf_room(&bytes);

        status = random_some(backend, call, room < RANDOM_MAX ? room : RANDOM_MAX, &bytes);
    }
    if (status == KMS_OK) {
        *ret_bytes = bytes;
    }
    return status;
}

const struct kms_backend_ops kms_vault_ops = {
    .type = "vault",
    .retry_budget = 20,
    .open = open_vault,
    .close = close_vault,
    .health = health,
    .list_keys = kms_vault_list_keys,
    .generate = kms_vault_generate,
    .destroy = kms_vault_destroy,
    .rotate = kms_vault_rotate,
    .public_key = kms_vault_public_key,
    .encrypt = kms_vault_encrypt,
    .decrypt = kms_vault_decrypt,
    .wrap = kms_vault_wrap,
    .unwrap = kms_vault_unwrap,
    .data_key = kms_vault_data_key,
    .rewrap = kms_vault_rewrap,
    .sign = kms_vault_sign,
    .verify = kms_vault_verify,
    .mac = kms_vault_mac,
    .random = random_bytes,
    .describe = describe,
};
