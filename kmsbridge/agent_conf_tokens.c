/* SPDX-License-Identifier: Apache-2.0 */
/* agent.tokens: key services that are shown, and which of their keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/numbers.h"
#include "common/yaml.h"
#include "kmsbridge/conf_parts.h"

#define TOKEN_LABEL_MAX 32 /* bytes of CK_TOKEN_INFO.label, PKCS#11 3.0 section 3.2 */
#define S               KMS_NS_PER_S
#define H               (3600 * KMS_NS_PER_S)

/* --- names of keys ---------------------------------------------------------------------------- */

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool is_label(const char *text)
{
    return text[0] != '\0' && strlen(text) < KMS_LABEL_MAX && is_printable(text);
}

static bool is_hex_id(const char *hex)
{
    uint8_t room[KMS_KEY_TAG_MAX];
    struct kms_buf bytes = KMS_BUF_OVER(room);

    return hex[0] != '\0' && kms_hex_decode(kms_span_str(hex), &bytes) == KMS_OK;
}

/* A label or "id:HEX"; a pkcs11: URI where a key service is asked for it, never with a PIN. */
static bool is_key(const char *text, bool uri)
{
    if (strncmp(text, "id:", strlen("id:")) == 0) {
        return is_hex_id(text + strlen("id:"));
    }
    if (strncmp(text, "pkcs11:", strlen("pkcs11:")) == 0) {
        return uri && strstr(text, "pin-") == NULL &&
               (strstr(text, "object=") != NULL || strstr(text, "id=") != NULL);
    }
    return is_label(text);
}

enum kms_status kms_conf_check_keys(const struct kms_reading *reading, const char *entry,
                                    char *const *keys, size_t count, bool uri)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < count; i++) {
        if (!is_key(keys[i], uri)) {
            (void)snprintf(path, sizeof(path), "%s.keys[%zu]", entry, i);
            return kms_conf_fail_value(
                reading, path, keys[i],
                uri ? "is no label, no id:HEX and no pkcs11: URI with object= or id="
                    : "is no label, with * for any text, and no id:HEX");
        }
    }
    return KMS_OK;
}

/* --- tokens ----------------------------------------------------------------------------------- */

static const char *const logins[] = {
    [KMS_AGENTD_LOGIN_NONE] = "none",
    [KMS_AGENTD_LOGIN_ANY] = "any",
    [KMS_AGENTD_LOGIN_PIN] = "pin",
};

static enum kms_status read_token_backend(const struct kms_reading *reading, const char *entry,
                                          const char *name)
{
    char path[KMS_YAML_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s.backend", entry);
    if (kms_conf_backend(reading->conf, name) == NULL) {
        return kms_conf_fail_value(reading, path, name, "is not the name of an entry of backends");
    }
    for (size_t i = 0; i < reading->conf->agent.token_count; i++) {
        if (strcmp(reading->conf->agent.tokens[i].backend, name) == 0) {
            return kms_conf_fail_value(reading, path, name, "has a token already");
        }
    }
    return KMS_OK;
}

static enum kms_status read_token_label(const struct kms_reading *reading, const char *entry,
                                        const char *label)
{
    char path[KMS_YAML_PATH_MAX];

    if (label == NULL || (is_label(label) && strlen(label) <= TOKEN_LABEL_MAX &&
                          kms_utf8_valid(kms_span_str(label)))) {
        return KMS_OK;
    }
    (void)snprintf(path, sizeof(path), "%s.label", entry);
    return kms_conf_fail_value(reading, path, label, "is not a label of 1 to 32 bytes of UTF-8");
}

static enum kms_status read_login(const struct kms_reading *reading, const char *entry,
                                  const char *text, enum kms_agentd_login *ret_login)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < sizeof(logins) / sizeof(logins[0]); i++) {
        if (text == NULL || strcmp(text, logins[i]) == 0) {
            *ret_login = (enum kms_agentd_login)i;
            return KMS_OK;
        }
    }
    (void)snprintf(path, sizeof(path), "%s.login", entry);
    return kms_conf_fail_value(reading, path, text, "is none of none, any, pin");
}

static enum kms_status read_ttl(const struct kms_reading *reading, const char *entry,
                                const char *text, uint64_t *ret_ns)
{
    char path[KMS_YAML_PATH_MAX];

    *ret_ns = 60 * S;
    if (text == NULL ||
        (kms_parse_duration(text, ret_ns) == KMS_OK && *ret_ns >= 1 * S && *ret_ns <= 24 * H)) {
        return KMS_OK;
    }
    (void)snprintf(path, sizeof(path), "%s.keys_ttl", entry);
    return kms_conf_fail_value(reading, path, text,
                               "is not a duration from 1s to 24h, such as 60s");
}

static enum kms_status check_certificates(const struct kms_reading *reading, const char *entry,
                                          const struct kms_raw_token *raw)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < raw->certificates_count; i++) {
        const struct kms_agentd_cert_conf *cert = &raw->certificates[i];

        if (!is_label(cert->key)) {
            (void)snprintf(path, sizeof(path), "%s.certificates[%zu].key", entry, i);
            return kms_conf_fail_value(reading, path, cert->key, "is not a key's label");
        }
        if (cert->file[0] != '/') {
            (void)snprintf(path, sizeof(path), "%s.certificates[%zu].file", entry, i);
            return kms_conf_fail_value(reading, path, cert->file, "is not an absolute path");
        }
    }
    return KMS_OK;
}

static enum kms_status read_token(const struct kms_reading *reading, size_t index,
                                  const struct kms_raw_token *raw)
{
    struct kms_agentd_token_conf token = {
        .backend = raw->backend,
        .label = raw->label,
        .keys = raw->keys,
        .key_count = raw->keys_count,
        .certificates = raw->certificates,
        .certificate_count = raw->certificates_count,
    };
    enum kms_status status;
    char entry[48];

    (void)snprintf(entry, sizeof(entry), "agent.tokens[%zu]", index);
    status = read_token_backend(reading, entry, raw->backend);
    if (status == KMS_OK) {
        status = read_token_label(reading, entry, raw->label);
    }
    if (status == KMS_OK) {
        status = read_login(reading, entry, raw->login, &token.login);
    }
    if (status == KMS_OK) {
        status = read_ttl(reading, entry, raw->keys_ttl, &token.keys_ttl_ns);
    }
    if (status == KMS_OK) {
        status = kms_conf_check_keys(reading, entry, raw->keys, raw->keys_count, true);
    }
    if (status == KMS_OK) {
        status = check_certificates(reading, entry, raw);
    }
    if (status == KMS_OK) {
        reading->conf->agent.tokens[reading->conf->agent.token_count++] = token;
    }
    return status;
}

enum kms_status kms_conf_read_tokens(const struct kms_reading *reading)
{
    static const struct kms_raw_agent none;
    const struct kms_raw_agent *raw = reading->raw->agent != NULL ? reading->raw->agent : &none;
    struct kms_conf *conf = reading->conf;
    bool named = raw->tokens_count > 0;
    size_t count = named ? raw->tokens_count : conf->backend_count;
    enum kms_status status = KMS_OK;

    if (!conf->agent.on) {
        return KMS_OK;
    }
    conf->agent.tokens = calloc(count + 1, sizeof(conf->agent.tokens[0]));
    if (conf->agent.tokens == NULL) {
        return kms_conf_fail_memory(reading);
    }
    for (size_t i = 0; status == KMS_OK && i < count; i++) {
        const struct kms_raw_token plain = {.backend = named ? NULL : conf->backends[i].name};

        status = read_token(reading, i, named ? &raw->tokens[i] : &plain);
    }
    return status;
}
