/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/conf.h"

#include <cyaml/cyaml.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_conf_schema.h"
#include "common/file.h"
#include "kmsbridge/agent_conf_schema.h"
#include "kmsbridge/conf_parts.h"

#define BACKENDS_MAX    64
#define ALLOWED_IDS_MAX 256
#define SHOWN_VALUE_MAX 80 /* bytes of a wrong value that an error text repeats */

/* --- the schema ------------------------------------------------------------------------------- */

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(key, flags, type, member)                                                             \
    CYAML_FIELD_STRING_PTR(key, flags, type, member, 0, CYAML_UNLIMITED)
#define KMS_TEXT(flags, member) TEXT(#member, flags, struct kms_raw_kms, member)

static const cyaml_schema_value_t text_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_value_t backend_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_backend_conf, kms_backend_conf_fields),
};

static const cyaml_schema_field_t log_fields[] = {
    TEXT("level", OPTIONAL, struct kms_raw_log, level),
    TEXT("format", OPTIONAL, struct kms_raw_log, format),
    TEXT("file", OPTIONAL, struct kms_raw_log, file),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t kms_fields[] = {
    KMS_TEXT(REQUIRED, socket),
    KMS_TEXT(OPTIONAL, mode),
    KMS_TEXT(OPTIONAL, owner),
    KMS_TEXT(OPTIONAL, group),
    CYAML_FIELD_SEQUENCE("allow_uids", OPTIONAL, struct kms_raw_kms, allow_uids, &text_value, 0,
                         ALLOWED_IDS_MAX),
    CYAML_FIELD_SEQUENCE("allow_gids", OPTIONAL, struct kms_raw_kms, allow_gids, &text_value, 0,
                         ALLOWED_IDS_MAX),
    KMS_TEXT(REQUIRED, backend),
    KMS_TEXT(REQUIRED, key),
    KMS_TEXT(OPTIONAL, api_version),
    KMS_TEXT(OPTIONAL, provider_name),
    KMS_TEXT(OPTIONAL, on_failure),
    KMS_TEXT(OPTIONAL, probe_interval),
    KMS_TEXT(OPTIONAL, refresh_interval),
    KMS_TEXT(OPTIONAL, call_timeout),
    KMS_TEXT(OPTIONAL, max_connections),
    KMS_TEXT(OPTIONAL, max_calls),
    KMS_TEXT(OPTIONAL, workers),
    KMS_TEXT(OPTIONAL, queue),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t monitor_fields[] = {
    TEXT("listen", REQUIRED, struct kms_raw_monitor, listen),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t conf_fields[] = {
    TEXT("version", REQUIRED, struct kms_raw_conf, version),
    CYAML_FIELD_MAPPING_PTR("log", OPTIONAL, struct kms_raw_conf, log, log_fields),
    CYAML_FIELD_SEQUENCE("backends", REQUIRED, struct kms_raw_conf, backends, &backend_value, 1,
                         BACKENDS_MAX),
    CYAML_FIELD_MAPPING_PTR("kms", OPTIONAL, struct kms_raw_conf, kms, kms_fields),
    CYAML_FIELD_MAPPING_PTR("monitor", OPTIONAL, struct kms_raw_conf, monitor, monitor_fields),
    CYAML_FIELD_MAPPING_PTR("agent", OPTIONAL, struct kms_raw_conf, agent, kms_conf_agent_fields),
    CYAML_FIELD_MAPPING_PTR("audit", OPTIONAL, struct kms_raw_conf, audit, kms_conf_audit_fields),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t conf_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_raw_conf, conf_fields),
};

/* --- the whole -------------------------------------------------------------------------------- */

enum kms_status kms_conf_fail_value(const struct kms_reading *reading, const char *path,
                                    const char *value, const char *wrong)
{
    return kms_conf_error(reading->err, &reading->text, path, "\"%.*s\" %s", SHOWN_VALUE_MAX, value,
                          wrong);
}

enum kms_status kms_conf_fail_memory(const struct kms_reading *reading)
{
    return kms_error_set(reading->err, KMS_E_NOMEM, "%s: no memory to read it", reading->text.name);
}

static enum kms_status apply_setting(const struct kms_reading *reading,
                                     const struct kms_setting *setting, const void *raw)
{
    const char *text = *(char *const *)((const char *)raw + setting->raw);
    enum kms_status status;

    if (text == NULL) {
        text = setting->fallback;
    }
    if (text == NULL) {
        return KMS_OK;
    }
    status = setting->read(setting, text, (char *)reading->conf + setting->target);
    if (status == KMS_E_NOMEM) {
        return kms_conf_fail_memory(reading);
    }
    return status == KMS_OK ? KMS_OK
                            : kms_conf_fail_value(reading, setting->path, text, setting->wrong);
}

static enum kms_status apply_settings(const struct kms_reading *reading,
                                      const struct kms_setting *settings, const void *raw)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && settings[i].path != NULL; i++) {
        status = apply_setting(reading, &settings[i], raw);
    }
    return status;
}

static enum kms_status read_version(const struct kms_reading *reading)
{
    if (strcmp(reading->raw->version, "1") != 0) {
        return kms_conf_fail_value(reading, "version", reading->raw->version,
                                   "is not a version that this release reads; it reads 1");
    }
    return KMS_OK;
}

static enum kms_status read_log(const struct kms_reading *reading)
{
    static const struct kms_raw_log none;

    return apply_settings(reading, kms_conf_log_settings,
                          reading->raw->log != NULL ? reading->raw->log : &none);
}

static enum kms_status read_monitor(const struct kms_reading *reading)
{
    static const struct kms_raw_monitor none;
    bool has = reading->raw->monitor != NULL && !reading->is_private;

    return apply_settings(reading, kms_conf_monitor_settings, has ? reading->raw->monitor : &none);
}

/* More threads than calls that the key service takes at once would only hand them on. */
static unsigned workers_for(const struct kms_backend_conf *backend, unsigned most)
{
    unsigned at_once = kms_backend_conf_at_once(backend);

    return at_once != 0 && at_once < most ? at_once : most;
}

static enum kms_status read_kms(const struct kms_reading *reading)
{
    struct kms_kms_conf *kms = &reading->conf->kms;
    const struct kms_raw_kms *raw = reading->raw->kms;
    const struct kms_backend_conf *backend = NULL;
    enum kms_status status;

    kms->owner = (uid_t)-1;
    kms->group = (gid_t)-1;
    if (raw == NULL || reading->is_private) {
        return KMS_OK;
    }
    if (strncmp(raw->key, "pkcs11:", strlen("pkcs11:")) == 0 && strstr(raw->key, "pin-") != NULL) {
        return kms_conf_error(reading->err, &reading->text, "kms.key",
                              "must not hold a PIN; write a reference to it as the backend's pin");
    }
    status = apply_settings(reading, kms_conf_kms_settings, raw);
    if (status != KMS_OK) {
        return status;
    }
    backend = kms_conf_backend(reading->conf, kms->backend);
    if (backend == NULL) {
        return kms_conf_fail_value(reading, "kms.backend", kms->backend,
                                   "is not the name of an entry of backends");
    }
    if (raw->workers == NULL) {
        kms->workers = workers_for(backend, kms->workers);
    }
    return KMS_OK;
}

static enum kms_status read_agent(const struct kms_reading *reading)
{
    static const struct kms_raw_agent none;
    struct kms_conf *conf = reading->conf;
    const struct kms_raw_agent *raw = reading->raw->agent;
    enum kms_status status;

    conf->agent.is_private = reading->is_private;
    conf->agent.on = raw != NULL || reading->is_private;
    conf->agent.owner = (uid_t)-1;
    conf->agent.group = (gid_t)-1;
    if (!conf->agent.on && conf->kms.socket == NULL) {
        return kms_error_set(reading->err, KMS_E_INVALID,
                             "%s: has neither kms nor agent; at least one must be there",
                             reading->text.name);
    }
    if (!conf->agent.on) {
        return KMS_OK;
    }
    status = apply_settings(reading, kms_conf_agent_settings, raw != NULL ? raw : &none);
    if (status == KMS_OK && kms_text_equal(conf->kms.socket, conf->agent.socket)) {
        status = kms_conf_fail_value(reading, "agent.socket", conf->agent.socket,
                                     "is kms.socket as well");
    }
    return status;
}

static enum kms_status read_all(const struct kms_reading *reading)
{
    static enum kms_status (*const steps[])(const struct kms_reading *reading) = {
        read_version,           read_log,
        kms_conf_read_backends, read_kms,
        kms_conf_read_uids,     kms_conf_read_gids,
        read_monitor,           read_agent,
        kms_conf_read_tokens,   kms_conf_read_rules,
        kms_conf_read_audit,
    };
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(steps) / sizeof(steps[0]); i++) {
        status = steps[i](reading);
    }
    return status;
}

static enum kms_status read_as(bool is_private, const char *name, const char *text, size_t len,
                               struct kms_conf **ret_conf, struct kms_error *err)
{
    struct kms_reading reading = {
        .text = {.name = name, .content = text, .len = len},
        .conf = calloc(1, sizeof(*reading.conf)),
        .is_private = is_private,
        .err = err,
    };
    enum kms_status status;

    if (reading.conf == NULL) {
        return kms_conf_fail_memory(&reading);
    }
    reading.conf->path = strdup(name);
    if (reading.conf->path == NULL) {
        status = kms_conf_fail_memory(&reading);
        goto out;
    }
    status = kms_conf_parse(name, text, len, &conf_value, &reading.conf->raw, err);
    if (status != KMS_OK) {
        goto out;
    }
    reading.raw = reading.conf->raw;
    status = read_all(&reading);
    if (status != KMS_OK) {
        goto out;
    }
    *ret_conf = reading.conf;
    reading.conf = NULL;
out:
    kms_conf_done(reading.conf);
    return status;
}

enum kms_status kms_conf_read_text(const char *name, const char *text, size_t len,
                                   struct kms_conf **ret_conf, struct kms_error *err)
{
    return read_as(false, name, text, len, ret_conf, err);
}

static enum kms_status read_file_as(bool is_private, const char *path, struct kms_conf **ret_conf,
                                    struct kms_error *err)
{
    enum kms_status status;
    char *content = NULL;
    size_t len = 0;

    status = kms_file_read(path, KMS_FILE_CONFIG, KMS_CONF_MAX, &content, &len, err);
    if (status == KMS_OK) {
        status = read_as(is_private, path, content, len, ret_conf, err);
        free(content);
    }
    return status;
}

enum kms_status kms_conf_read(const char *path, struct kms_conf **ret_conf, struct kms_error *err)
{
    return read_file_as(false, path, ret_conf, err);
}

enum kms_status kms_conf_read_private(const char *path, struct kms_conf **ret_conf,
                                      struct kms_error *err)
{
    return read_file_as(true, path, ret_conf, err);
}

void kms_conf_make_private(struct kms_conf *conf, const char *socket, const char *log_file)
{
    conf->agent.socket = socket;
    conf->agent.mode = 0600;
    conf->agent.owner = (uid_t)-1;
    conf->agent.group = (gid_t)-1;
    if (conf->log_file == NULL) {
        conf->log_file = log_file;
    }
}

struct kms_conf *kms_conf_hold(struct kms_conf *conf)
{
    atomic_fetch_add(&conf->holders, 1);
    return conf;
}

void kms_conf_done(struct kms_conf *conf)
{
    if (conf != NULL && atomic_fetch_sub(&conf->holders, 1) == 0) {
        kms_conf_agent_done(&conf->agent);
        free(conf->kms.allow_uids);
        free(conf->kms.allow_gids);
        free(conf->path);
        kms_conf_free(&conf_value, conf->raw);
        free(conf);
    }
}

const struct kms_backend_conf *kms_conf_backend(const struct kms_conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->backend_count; i++) {
        if (kms_text_equal(conf->backends[i].name, name)) {
            return &conf->backends[i];
        }
    }
    return NULL;
}
