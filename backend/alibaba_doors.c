/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the services are, and by which way. A dedicated instance's gateway has the cryptographic
 * actions but ReEncrypt, and a CA of its own; keys are managed at the region's shared gateway
 * ("Alibaba Cloud SDK" in the guide of KMS).
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "backend/alibaba_parts.h"

#define FEW 4 /* connections to what is asked now and then */

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static bool is_vpc(const struct kms_alibaba_conf *ali)
{
    return ali->network != NULL && strcmp(ali->network, "vpc") == 0;
}

static bool fits(int len, size_t size)
{
    return len > 0 && (size_t)len < size;
}

/* ---- base URLs ---------------------------------------------------------------------------- */

enum kms_status kms_ali_check_url(const char *what, const char *url, bool plain_ok,
                                  struct kms_error *err)
{
    struct kms_error why = KMS_ERROR_INIT;

    return !is_set(url) || kms_http_check_url(url, plain_ok, &why) == KMS_OK
               ? KMS_OK
               : kms_error_set(err, KMS_E_INVALID, "%s %s", what, why.text);
}

/* The region's shared gateway. */
static bool region_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size)
{
    return fits(snprintf(ret_url, size, "https://kms%s.%s.aliyuncs.com", is_vpc(ali) ? "-vpc" : "",
                         ali->region == NULL ? "" : ali->region),
                size);
}

bool kms_ali_kms_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size)
{
    return is_set(ali->endpoint) ? fits(snprintf(ret_url, size, "%s", ali->endpoint), size)
                                 : region_url(ali, ret_url, size);
}

bool kms_ali_management_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size,
                            bool *ret_same)
{
    *ret_same = !is_set(ali->management_endpoint) && !kms_alibaba_is_dedicated(ali->endpoint);
    if (*ret_same) {
        return kms_ali_kms_url(ali, ret_url, size);
    }
    return is_set(ali->management_endpoint)
               ? fits(snprintf(ret_url, size, "%s", ali->management_endpoint), size)
               : region_url(ali, ret_url, size);
}

bool kms_ali_sts_url(const struct kms_alibaba_conf *ali, const struct kms_ali_oidc *role,
                     char *ret_url, size_t size)
{
    const char *given = kms_ali_setting(ali->sts_endpoint, "ALIBABA_CLOUD_STS_ENDPOINT", NULL);
    const char *region = kms_ali_setting(role->sts_region, "ALIBABA_CLOUD_STS_REGION", ali->region);
    const char *vpc = kms_ali_setting(role->sts_vpc, "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED",
                                      is_vpc(ali) ? "true" : "false");

    if (given != NULL) { /* the webhook injects a host alone */
        return fits(
            snprintf(ret_url, size, "%s%s", strstr(given, "://") == NULL ? "https://" : "", given),
            size);
    }
    if (is_set(region)) {
        return fits(snprintf(ret_url, size, "https://sts%s.%s.aliyuncs.com",
                             strcasecmp(vpc, "true") == 0 ? "-vpc" : "", region),
                    size);
    }
    return fits(snprintf(ret_url, size, "https://sts.aliyuncs.com"), size);
}

/* ---- doors -------------------------------------------------------------------------------- */

unsigned kms_ali_connections(const struct kms_alibaba_conf *ali)
{
    return ali->connections == 0 ? KMS_ALIBABA_CONNECTIONS_DEFAULT : ali->connections;
}

/* Of plain http:// loopback alone is allowed, by a rule that is written in one place. */
static bool is_loopback(const char *url)
{
    char plain[KMS_ALI_URL_MAX + 8];
    const char *at = strstr(url, "://");

    return at != NULL && fits(snprintf(plain, sizeof(plain), "http%s", at), sizeof(plain)) &&
           kms_http_check_url(plain, false, NULL) == KMS_OK;
}

static enum kms_status open_sts(const struct kms_backend_conf *conf, struct kms_ali_doors *doors,
                                struct kms_error *err)
{
    static const struct kms_ali_oidc none = {.role_arn = NULL};
    const struct kms_alibaba_conf *ali = conf->alibaba;
    char url[KMS_ALI_URL_MAX];
    struct kms_http_conf http = {.name = conf->name,
                                 .ca_file = is_set(ali->sts_ca_file) ? ali->sts_ca_file : NULL,
                                 .connections = FEW};

    if (!kms_ali_sts_url(ali, &none, url, sizeof(url))) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: the STS endpoint is too long",
                             conf->name);
    }
    http.proxy = is_loopback(url) ? NULL : ali->proxy;
    return http.proxy == NULL && http.ca_file == NULL ? KMS_OK
                                                      : kms_http_open(&http, &doors->sts, err);
}

enum kms_status kms_ali_open_doors(const struct kms_backend_conf *conf,
                                   struct kms_ali_doors *ret_doors, struct kms_error *err)
{
    const struct kms_alibaba_conf *ali = conf->alibaba;
    const struct kms_http_conf to_kms = {.name = conf->name,
                                         .ca_file = ali->ca_file,
                                         .proxy = ali->proxy,
                                         .connections = kms_ali_connections(ali)};
    const struct kms_http_conf to_management = {.name = conf->name,
                                                .ca_file = ali->management_ca_file,
                                                .proxy = ali->proxy,
                                                .connections = FEW};
    const struct kms_http_conf to_identity = {.name = conf->name, .connections = FEW};
    struct kms_ali_doors doors = {.kms = NULL};
    char url[KMS_ALI_URL_MAX];
    bool same = true;
    enum kms_status status = kms_http_open(&to_kms, &doors.kms, err);

    (void)kms_ali_management_url(ali, url, sizeof(url), &same);
    if (status == KMS_OK && !same) {
        status = kms_http_open(&to_management, &doors.management, err);
    }
    if (status == KMS_OK) {
        status = open_sts(conf, &doors, err);
    }
    if (status == KMS_OK) {
        status = kms_http_open(&to_identity, &doors.identity, err);
    }
    if (status != KMS_OK) {
        kms_ali_close_doors(&doors);
        return status;
    }
    *ret_doors = doors;
    return KMS_OK;
}

void kms_ali_close_doors(struct kms_ali_doors *doors)
{
    kms_http_door_close(doors->kms);
    kms_http_door_close(doors->management);
    kms_http_door_close(doors->sts);
    kms_http_door_close(doors->identity);
    *doors = (struct kms_ali_doors){.kms = NULL};
}
