/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend_conf_schema.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_conf_schema.h"
#include "backend/vault_conf_schema.h"
#include "common/numbers.h"
#include "common/secret.h"
#include "common/yaml.h"

#define TOKEN_LABEL_MAX 32 /* bytes of CK_TOKEN_INFO.label, PKCS#11 3.0 section 3.2 */

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(key, flags, type, member)                                                             \
    CYAML_FIELD_STRING_PTR(key, flags, type, member, 0, CYAML_UNLIMITED)

static const cyaml_schema_field_t hsm_fields[] = {
    TEXT("module", REQUIRED, struct kms_hsm_conf, module),
    TEXT("token", REQUIRED, struct kms_hsm_conf, token),
    TEXT("pin", OPTIONAL, struct kms_hsm_conf, pin),
    TEXT("sessions", OPTIONAL, struct kms_hsm_conf, sessions_text),
    TEXT("mechanism", OPTIONAL, struct kms_hsm_conf, mechanism),
    TEXT("init_args", OPTIONAL, struct kms_hsm_conf, init_args),
    CYAML_FIELD_END,
};

const cyaml_schema_field_t kms_backend_conf_fields[] = {
    TEXT("name", REQUIRED, struct kms_backend_conf, name),
    TEXT("type", REQUIRED, struct kms_backend_conf, type),
    CYAML_FIELD_MAPPING_PTR("hsm", OPTIONAL, struct kms_backend_conf, hsm, hsm_fields),
    CYAML_FIELD_MAPPING_PTR("alibaba", OPTIONAL, struct kms_backend_conf, alibaba,
                            kms_alibaba_conf_fields),
    CYAML_FIELD_MAPPING_PTR("vault", OPTIONAL, struct kms_backend_conf, vault,
                            kms_vault_conf_fields),
    CYAML_FIELD_END,
};

bool kms_backend_conf_same(const struct kms_backend_conf *a, const struct kms_backend_conf *b)
{
    static const cyaml_schema_value_t entry = {
        CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_backend_conf, kms_backend_conf_fields),
    };

    return kms_conf_same(&entry, a, b);
}

enum kms_status kms_conf_place_fail(const struct kms_conf_place *place, const char *key,
                                    const char *sentence)
{
    char path[KMS_YAML_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s.%s%s", place->entry, place->section, key);
    return kms_conf_error(place->err, place->text, path, "%s", sentence);
}

bool kms_conf_is_secret_ref(const char *text)
{
    struct kms_error ignored = KMS_ERROR_INIT;

    return text != NULL && kms_secret_check_ref(text, &ignored) == KMS_OK;
}

bool kms_conf_is_proxy(const char *proxy)
{
    return proxy == NULL || strncmp(proxy, "http://", 7) == 0 || strncmp(proxy, "https://", 8) == 0;
}

/* A name with a slash is a path, and must not depend on where the daemon was started. */
static enum kms_status check_module(const struct kms_conf_place *place, struct kms_hsm_conf *hsm)
{
    if (hsm->module[0] == '\0' || (hsm->module[0] != '/' && strchr(hsm->module, '/') != NULL)) {
        return kms_conf_place_fail(
            place, "hsm.module",
            "must be the absolute path of a PKCS#11 module, or a p11-kit module's name");
    }
    return KMS_OK;
}

static enum kms_status check_token(const struct kms_conf_place *place, struct kms_hsm_conf *hsm)
{
    bool is_uri = strncmp(hsm->token, "pkcs11:", strlen("pkcs11:")) == 0;

    if (is_uri && strstr(hsm->token, "pin-") != NULL) { /* RFC 7512: pin-value, pin-source */
        return kms_conf_place_fail(place, "hsm.token",
                                   "must not hold a PIN; write a reference to it as hsm.pin");
    }
    if (hsm->token[0] == '\0' || (!is_uri && strlen(hsm->token) > TOKEN_LABEL_MAX)) {
        return kms_conf_place_fail(place, "hsm.token",
                                   "must be a token label of 1 to 32 bytes, or a pkcs11: URI");
    }
    return KMS_OK;
}

static enum kms_status check_pin(const struct kms_conf_place *place, struct kms_hsm_conf *hsm)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (hsm->pin != NULL && kms_secret_check_ref(hsm->pin, &error) != KMS_OK) {
        return kms_conf_place_fail(place, "hsm.pin", error.text);
    }
    return KMS_OK;
}

static enum kms_status check_sessions(const struct kms_conf_place *place, struct kms_hsm_conf *hsm)
{
    uint64_t value = KMS_HSM_SESSIONS_DEFAULT;

    if (hsm->sessions_text != NULL &&
        kms_parse_u64(hsm->sessions_text, 1, KMS_HSM_SESSIONS_MAX, &value) != KMS_OK) {
        return kms_conf_place_fail(place, "hsm.sessions", "must be a number from 1 to 1024");
    }
    hsm->sessions = (unsigned)value;
    return KMS_OK;
}

static enum kms_status check_mechanism(const struct kms_conf_place *place, struct kms_hsm_conf *hsm)
{
    static const char *const words[] = {"auto", "aes-gcm", "aes-cbc-hmac", "rsa-oaep"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (hsm->mechanism == NULL || strcmp(hsm->mechanism, words[i]) == 0) {
            return KMS_OK;
        }
    }
    return kms_conf_place_fail(place, "hsm.mechanism",
                               "must be auto, aes-gcm, aes-cbc-hmac or rsa-oaep");
}

static enum kms_status check_hsm(const struct kms_conf_place *place, struct kms_backend_conf *conf)
{
    static enum kms_status (*const checks[])(const struct kms_conf_place *place,
                                             struct kms_hsm_conf *hsm) = {
        check_module, check_token, check_pin, check_sessions, check_mechanism};
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(checks) / sizeof(checks[0]); i++) {
        status = checks[i](place, conf->hsm);
    }
    return status;
}

static bool has_hsm(const struct kms_backend_conf *conf)
{
    return conf->hsm != NULL;
}

static bool has_alibaba(const struct kms_backend_conf *conf)
{
    return conf->alibaba != NULL;
}

static enum kms_status check_alibaba(const struct kms_conf_place *place,
                                     struct kms_backend_conf *conf)
{
    return kms_alibaba_conf_check(conf->alibaba, place->text, place->entry, place->err);
}

static bool has_vault(const struct kms_backend_conf *conf)
{
    return conf->vault != NULL;
}

static enum kms_status check_vault(const struct kms_conf_place *place,
                                   struct kms_backend_conf *conf)
{
    return kms_vault_conf_check(conf->vault, place->text, place->entry, place->err);
}

/* A connection carries one call at a time over HTTP/1.1, and many over HTTP/2. */
static unsigned vault_at_once(const struct kms_backend_conf *conf)
{
    return conf->vault->http2 ? 0 : conf->vault->connections;
}

/* Each type's settings stand in a mapping of the type's name. */
static const struct settings_row {
    const char *type;
    bool (*has)(const struct kms_backend_conf *conf);
    enum kms_status (*check)(const struct kms_conf_place *place, struct kms_backend_conf *conf);
    unsigned (*at_once)(const struct kms_backend_conf *conf); /* NULL: not known */
} settings_rows[] = {
    {"hsm", has_hsm, check_hsm, NULL},
    {"alibaba", has_alibaba, check_alibaba, NULL},
    {"vault", has_vault, check_vault, vault_at_once},
};

unsigned kms_backend_conf_at_once(const struct kms_backend_conf *conf)
{
    for (size_t i = 0; i < sizeof(settings_rows) / sizeof(settings_rows[0]); i++) {
        const struct settings_row *row = &settings_rows[i];

        if (strcmp(conf->type, row->type) == 0 && row->at_once != NULL) {
            return row->at_once(conf);
        }
    }
    return 0;
}

enum kms_status kms_backend_conf_check(struct kms_backend_conf *conf,
                                       const struct kms_conf_text *text, const char *path,
                                       struct kms_error *err)
{
    const struct kms_conf_place place = {.text = text, .entry = path, .section = "", .err = err};
    enum kms_status status = KMS_OK;

    for (size_t i = 0; i < sizeof(settings_rows) / sizeof(settings_rows[0]); i++) {
        const struct settings_row *row = &settings_rows[i];
        bool wanted = strcmp(conf->type, row->type) == 0;

        if (wanted != row->has(conf)) {
            return kms_conf_place_fail(&place, row->type,
                                       wanted ? "is missing" : "is not of this entry's type");
        }
        if (wanted) {
            status = row->check(&place, conf);
        }
    }
    return status;
}
