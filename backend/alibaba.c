/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/alibaba.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"

/* ---- open, close, health ------------------------------------------------------------------ */

static enum kms_status check_urls(const struct kms_backend_conf *conf, struct kms_error *err)
{
    const struct kms_alibaba_conf *ali = conf->alibaba;
    const struct {
        const char *key, *url;
        bool plain_ok;
    } rows[] = {
        {"endpoint", ali->endpoint, false},
        {"management_endpoint", ali->management_endpoint, false},
        {"sts_endpoint", ali->sts_endpoint, false},
        {"credentials_uri", ali->credentials_uri, false},
        {"metadata_endpoint", ali->metadata_endpoint, true},
    };
    struct kms_error why = KMS_ERROR_INIT;
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(rows) / sizeof(rows[0]); i++) {
        status = kms_ali_check_url(rows[i].key, rows[i].url, rows[i].plain_ok, &why);
    }
    for (unsigned i = 0; status == KMS_OK && i < ali->fallback_endpoints_count; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "fallback_endpoints[%u]", i);
        status = kms_ali_check_url(key, ali->fallback_endpoints[i], false, &why);
    }
    return status == KMS_OK
               ? KMS_OK
               : kms_error_set(err, status, "backend %s: alibaba.%s", conf->name, why.text);
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
    return check_urls(conf, err);
}

static void ali_close(struct kms_backend *b)
{
    if (b == NULL) {
        return;
    }
    if (b->management != b->endpoints) {
        kms_endpoints_free(b->management);
    }
    kms_endpoints_free(b->endpoints);
    kms_credential_free(b->credential);
    kms_ali_close_doors(&b->doors);
    kms_ali_publics_done(b);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

static enum kms_status too_long(const struct kms_backend *b, struct kms_error *err)
{
    return kms_error_set(err, KMS_E_INVALID, "backend %s: an endpoint is too long", b->conf->name);
}

static enum kms_status make_endpoints(struct kms_backend *b, struct kms_error *err)
{
    char url[KMS_ALI_URL_MAX];
    const char *urls[1 + KMS_ALIBABA_FALLBACKS_MAX] = {url};
    const struct kms_endpoints_conf endpoints = {
        .name = b->conf->name, .urls = urls, .count = 1 + b->ali->fallback_endpoints_count};

    if (!kms_ali_kms_url(b->ali, url, sizeof(url))) {
        return too_long(b, err);
    }
    for (unsigned i = 0; i < b->ali->fallback_endpoints_count; i++) {
        urls[1 + i] = b->ali->fallback_endpoints[i];
    }
    return kms_endpoints_new(&endpoints, b->doors.kms, &b->endpoints, err);
}

static enum kms_status make_management(struct kms_backend *b, struct kms_error *err)
{
    char url[KMS_ALI_URL_MAX];
    const char *const urls[] = {url};
    const struct kms_endpoints_conf endpoints = {.name = b->conf->name, .urls = urls, .count = 1};
    struct kms_http_door *door = b->doors.management == NULL ? b->doors.kms : b->doors.management;
    bool same = true;

    if (!kms_ali_management_url(b->ali, url, sizeof(url), &same)) {
        return too_long(b, err);
    }
    if (same) {
        b->management = b->endpoints;
        return KMS_OK;
    }
    return kms_endpoints_new(&endpoints, door, &b->management, err);
}

static enum kms_status make_parts(struct kms_backend *b, struct kms_error *err)
{
    const struct kms_credential_source credential = {
        .name = b->ali->credentials == NULL ? "auto" : b->ali->credentials,
        .fetch = kms_ali_fetch,
        .ctx = b};
    enum kms_status status = make_endpoints(b, err);

    if (status == KMS_OK) {
        status = make_management(b, err);
    }
    if (status == KMS_OK) {
        b->credential = kms_credential_new(&credential);
        status = b->credential != NULL
                     ? KMS_OK
                     : kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", b->conf->name);
    }
    return status;
}

enum kms_status kms_ali_open_over(const struct kms_backend_conf *conf,
                                  const struct kms_ali_doors *doors,
                                  struct kms_backend **ret_backend, struct kms_error *err)
{
    struct kms_backend *b = calloc(1, sizeof(*b));
    struct kms_ali_doors own = *doors;
    enum kms_status status = KMS_OK;

    if (b == NULL) {
        kms_ali_close_doors(&own);
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
    }
    (void)pthread_mutex_init(&b->lock, NULL);
    b->conf = conf;
    b->ali = conf->alibaba;
    b->doors = own;
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
    struct kms_ali_doors doors;
    enum kms_status status = check(conf, err);

    if (status == KMS_OK) {
        status = kms_ali_open_doors(conf, &doors, err);
    }
    return status == KMS_OK ? kms_ali_open_over(conf, &doors, ret_backend, err) : status;
}

static void ali_health(struct kms_backend *b, struct kms_health *ret_health)
{
    unsigned calls_max = 0;

    pthread_mutex_lock(&b->lock);
    ret_health->ready = b->asked && b->trouble.status == KMS_OK;
    ret_health->error = b->trouble;
    pthread_mutex_unlock(&b->lock);
    if (b->doors.kms->count != NULL) {
        b->doors.kms->count(b->doors.kms, &ret_health->sessions_open, &ret_health->sessions_busy,
                            &calls_max, &ret_health->stuck_ns);
    }
    ret_health->sessions_max = kms_ali_connections(b->ali);
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
        KMS_ALG_SEALED,      KMS_ALG_RSA_OAEP_SHA1,    KMS_ALG_RSA_OAEP_L_SHA256,
        KMS_ALG_RSA_PKCS1,   KMS_ALG_RSA_PKCS1_SHA256, KMS_ALG_RSA_PSS_SHA256,
        KMS_ALG_ECDSA,       KMS_ALG_HMAC_SHA224,      KMS_ALG_HMAC_SHA256,
        KMS_ALG_HMAC_SHA384, KMS_ALG_HMAC_SHA512,      KMS_ALG_SHA256_ALONE};
    struct kms_token_info info = {
        .manufacturer = "Alibaba Cloud",
        .model = "KMS 2016-01-20",
        .data_keys = true,
        .generates = 1u << KMS_KEY_AES | 1u << KMS_KEY_SM4 | 1u << KMS_KEY_RSA | 1u << KMS_KEY_EC,
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
    .mac = kms_ali_mac,
    .describe = ali_describe,
};
