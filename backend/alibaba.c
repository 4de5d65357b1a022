/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/alibaba.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"

/* ---- open, close, health ------------------------------------------------------------------ */

static void endpoint_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size)
{
    if (ali->endpoint != NULL && ali->endpoint[0] != '\0') {
        (void)snprintf(ret_url, size, "%s", ali->endpoint);
    } else {
        (void)snprintf(ret_url, size, "https://kms%s.%s.aliyuncs.com",
                       ali->network != NULL && strcmp(ali->network, "vpc") == 0 ? "-vpc" : "",
                       ali->region == NULL ? "" : ali->region);
    }
}

static unsigned connections_of(const struct kms_alibaba_conf *ali)
{
    return ali->connections == 0 ? KMS_ALIBABA_CONNECTIONS_DEFAULT : ali->connections;
}

static enum kms_status check(const struct kms_backend_conf *conf, struct kms_error *err)
{
    const struct kms_alibaba_conf *ali = conf->alibaba;

    if (ali == NULL || ((ali->region == NULL || ali->region[0] == '\0') &&
                        (ali->endpoint == NULL || ali->endpoint[0] == '\0'))) {
        return kms_error_set(err, KMS_E_INVALID,
                             "backend %s: alibaba.region or alibaba.endpoint is missing",
                             conf->name);
    }
    if (ali->credentials != NULL && !kms_ali_source_known(ali->credentials)) {
        return kms_error_set(err, KMS_E_INVALID,
                             "backend %s: alibaba.credentials names no source of credentials",
                             conf->name);
    }
    return KMS_OK;
}

static void ali_close(struct kms_backend *b)
{
    if (b == NULL) {
        return;
    }
    kms_endpoints_free(b->endpoints);
    kms_credential_free(b->credential);
    kms_http_door_close(b->door);
    kms_http_door_close(b->identity_door);
    kms_ali_publics_done(b);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

static enum kms_status make_parts(struct kms_backend *b, struct kms_error *err)
{
    char url[KMS_ALI_URL_MAX];
    const char *urls[1 + KMS_ALIBABA_FALLBACKS_MAX] = {url};
    const struct kms_endpoints_conf endpoints = {
        .name = b->conf->name, .urls = urls, .count = 1 + b->ali->fallback_endpoints_count};
    const char *source = b->ali->credentials == NULL ? "auto" : b->ali->credentials;
    const struct kms_credential_source credential = {
        .name = source, .fetch = kms_ali_fetch, .ctx = b};

    endpoint_url(b->ali, url, sizeof(url));
    for (unsigned i = 0; i < b->ali->fallback_endpoints_count; i++) {
        urls[1 + i] = b->ali->fallback_endpoints[i];
    }
    b->credential = kms_credential_new(&credential);
    if (b->credential == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", b->conf->name);
    }
    return kms_endpoints_new(&endpoints, b->door, &b->endpoints, err);
}

enum kms_status kms_ali_open_over(const struct kms_backend_conf *conf, struct kms_http_door *door,
                                  struct kms_http_door *identity_door,
                                  struct kms_backend **ret_backend, struct kms_error *err)
{
    struct kms_backend *b = calloc(1, sizeof(*b));
    enum kms_status status = KMS_OK;

    if (b == NULL) {
        kms_http_door_close(door);
        kms_http_door_close(identity_door);
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
    }
    (void)pthread_mutex_init(&b->lock, NULL);
    b->conf = conf;
    b->ali = conf->alibaba;
    b->door = door;
    b->identity_door = identity_door;
    status = check(conf, err);
    if (status == KMS_OK) {
        status = make_parts(b, err);
    }
    if (status != KMS_OK) {
        ali_close(b);
        return status;
    }
    *ret_backend = b;
    return KMS_OK;
}

static enum kms_status ali_open(const struct kms_backend_conf *conf,
                                struct kms_backend **ret_backend, struct kms_error *err)
{
    struct kms_http_door *door = NULL;
    struct kms_http_door *identity_door = NULL;
    enum kms_status status = check(conf, err);

    if (status != KMS_OK) {
        return status;
    }
    /* a dedicated instance's CA is trusted for the instance alone */
    const struct kms_http_conf to_kms = {.name = conf->name,
                                         .ca_file = conf->alibaba->ca_file,
                                         .proxy = conf->alibaba->proxy,
                                         .connections = connections_of(conf->alibaba)};
    const struct kms_http_conf to_identity = {.name = conf->name, .proxy = NULL, .connections = 2};

    status = kms_http_open(&to_kms, &door, err);
    if (status == KMS_OK) {
        status = kms_http_open(&to_identity, &identity_door, err);
    }
    if (status != KMS_OK) {
        kms_http_door_close(door);
        return status;
    }
    return kms_ali_open_over(conf, door, identity_door, ret_backend, err);
}

static void ali_health(struct kms_backend *b, struct kms_health *ret_health)
{
    unsigned calls_max = 0;

    pthread_mutex_lock(&b->lock);
    ret_health->ready = b->asked && b->trouble.status == KMS_OK;
    ret_health->error = b->trouble;
    pthread_mutex_unlock(&b->lock);
    if (b->door->count != NULL) {
        b->door->count(b->door, &ret_health->sessions_open, &ret_health->sessions_busy, &calls_max,
                       &ret_health->stuck_ns);
    }
    ret_health->sessions_max = connections_of(b->ali);
    if (ret_health->sessions_busy > ret_health->sessions_max) { /* streams share a connection */
        ret_health->sessions_busy = ret_health->sessions_max;
    }
}

/* ---- describe ----------------------------------------------------------------------------- */

/* The endpoint, as 16 hex digits: a region's keys are the same by each of its names. */
static void make_serial(const struct kms_backend *b, char ret_serial[17])
{
    const char *region = b->ali->region;
    char hex[KMS_ACS3_HASH_HEX] = "";

    if (kms_acs3_hash_hex(
            kms_span_str(region != NULL && region[0] != '\0' ? region : b->ali->endpoint), hex) !=
        KMS_OK) {
        hex[0] = '\0';
    }
    (void)snprintf(ret_serial, 17, "%.16s", hex);
}

static enum kms_status ali_describe(struct kms_backend *b, struct kms_call *call,
                                    struct kms_token_info *ret_info)
{
    static const enum kms_alg algs[] = {
        KMS_ALG_SEALED,    KMS_ALG_RSA_OAEP_SHA1,    KMS_ALG_RSA_OAEP_L_SHA256,
        KMS_ALG_RSA_PKCS1, KMS_ALG_RSA_PKCS1_SHA256, KMS_ALG_RSA_PSS_SHA256,
        KMS_ALG_ECDSA};
    struct kms_token_info info = {
        .manufacturer = "Alibaba Cloud",
        .model = "KMS 2016-01-20",
        .data_keys = true,
        .generates = 1u << KMS_KEY_AES | 1u << KMS_KEY_RSA | 1u << KMS_KEY_EC,
    };

    (void)call;
    (void)snprintf(info.label, sizeof(info.label), "%s", b->conf->name);
    make_serial(b, info.serial);
    for (size_t i = 0; i < sizeof(algs) / sizeof(algs[0]); i++) {
        kms_alg_set_add(&info.algs, algs[i]);
    }
    *ret_info = info;
    return KMS_OK;
}

const struct kms_backend_ops kms_alibaba_ops = {
    .type = "alibaba",
    .retry_budget = 20,
    .open = ali_open,
    .close = ali_close,
    .health = ali_health,
    .list_keys = kms_ali_list_keys,
    .generate = kms_ali_generate,
    .destroy = kms_ali_destroy,
    .rotate = kms_ali_rotate,
    .public_key = kms_ali_public_key,
    .encrypt = kms_ali_encrypt,
    .decrypt = kms_ali_decrypt,
    .wrap = kms_ali_encrypt, /* to the service a key is as good as any other bytes */
    .unwrap = kms_ali_decrypt,
    .data_key = kms_ali_data_key,
    .rewrap = kms_ali_rewrap,
    .sign = kms_ali_sign,
    .verify = kms_ali_verify,
    .describe = ali_describe,
};
