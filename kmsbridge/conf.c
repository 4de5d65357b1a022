/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/conf.h"

#include <arpa/inet.h>
#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/backend_conf_schema.h"
#include "backend/registry.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/file.h"
#include "common/numbers.h"
#include "common/yaml.h"
#include "kmsbridge/agent_conf_schema.h"

#define BACKENDS_MAX    64
#define ALLOWED_IDS_MAX 256
#define NAME_LEN_MAX    64 /* of backends and of the provider */
#define SHOWN_VALUE_MAX 80 /* bytes of a wrong value that an error text repeats */
#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

/* --- the file as it stands there: everything is text, and made a value by the tables below ------
 */

struct raw_log {
    char *level;
    char *format;
    char *file;
};

struct raw_kms {
    char *socket;
    char *mode;
    char *owner;
    char *group;
    char **allow_uids;
    unsigned allow_uids_count;
    char **allow_gids;
    unsigned allow_gids_count;
    char *backend;
    char *key;
    char *api_version;
    char *provider_name;
    char *on_failure;
    char *probe_interval;
    char *refresh_interval;
    char *call_timeout;
    char *max_connections;
    char *max_calls;
    char *workers;
    char *queue;
};

struct raw_monitor {
    char *listen;
};

struct raw_conf {
    char *version;
    struct raw_log *log;
    struct kms_backend_conf *backends;
    unsigned backends_count;
    struct raw_kms *kms;
    struct raw_monitor *monitor;
    struct kms_agentd_raw *agent;
    struct kms_audit_raw *audit;
};

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(key, flags, type, member)                                                             \
    CYAML_FIELD_STRING_PTR(key, flags, type, member, 0, CYAML_UNLIMITED)
#define KMS_TEXT(flags, member) TEXT(#member, flags, struct raw_kms, member)

static const cyaml_schema_value_t text_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_value_t backend_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_backend_conf, kms_backend_conf_fields),
};

static const cyaml_schema_field_t log_fields[] = {
    TEXT("level", OPTIONAL, struct raw_log, level),
    TEXT("format", OPTIONAL, struct raw_log, format),
    TEXT("file", OPTIONAL, struct raw_log, file),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t kms_fields[] = {
    KMS_TEXT(REQUIRED, socket),
    KMS_TEXT(OPTIONAL, mode),
    KMS_TEXT(OPTIONAL, owner),
    KMS_TEXT(OPTIONAL, group),
    CYAML_FIELD_SEQUENCE("allow_uids", OPTIONAL, struct raw_kms, allow_uids, &text_value, 0,
                         ALLOWED_IDS_MAX),
    CYAML_FIELD_SEQUENCE("allow_gids", OPTIONAL, struct raw_kms, allow_gids, &text_value, 0,
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
    TEXT("listen", REQUIRED, struct raw_monitor, listen),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t conf_fields[] = {
    TEXT("version", REQUIRED, struct raw_conf, version),
    CYAML_FIELD_MAPPING_PTR("log", OPTIONAL, struct raw_conf, log, log_fields),
    CYAML_FIELD_SEQUENCE("backends", REQUIRED, struct raw_conf, backends, &backend_value, 1,
                         BACKENDS_MAX),
    CYAML_FIELD_MAPPING_PTR("kms", OPTIONAL, struct raw_conf, kms, kms_fields),
    CYAML_FIELD_MAPPING_PTR("monitor", OPTIONAL, struct raw_conf, monitor, monitor_fields),
    CYAML_FIELD_MAPPING_PTR("agent", OPTIONAL, struct raw_conf, agent, kms_agentd_conf_fields),
    CYAML_FIELD_MAPPING_PTR("audit", OPTIONAL, struct raw_conf, audit, kms_audit_conf_fields),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t conf_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_conf, conf_fields),
};

/* --- single values ------------------------------------------------------------------------------
 */

struct setting;

/* Makes @text the value at @ret. KMS_E_NOMEM, or any other status when @text is wrong. */
typedef enum kms_status (*read_value)(const struct setting *setting, const char *text, void *ret);

struct setting {
    const char *path;
    size_t raw;    /* of the char * in its raw struct */
    size_t target; /* in struct kms_conf */
    read_value read;
    const char *fallback; /* for a key that is not there; NULL: the value stays as it is */
    uint64_t min;
    uint64_t max;
    const char *wrong; /* follows the value in error texts */
};

static enum kms_status read_text(const struct setting *setting, const char *text, void *ret)
{
    const char **value = ret;

    (void)setting;
    if (text[0] == '\0') {
        return KMS_E_INVALID;
    }
    *value = text;
    return KMS_OK;
}

static enum kms_status read_unsigned(const struct setting *setting, const char *text, void *ret)
{
    unsigned *value = ret;
    uint64_t number;
    enum kms_status status = kms_parse_u64(text, setting->min, setting->max, &number);

    if (status == KMS_OK) {
        *value = (unsigned)number;
    }
    return status;
}

static enum kms_status read_duration(const struct setting *setting, const char *text, void *ret)
{
    uint64_t *value = ret;
    uint64_t ns;
    enum kms_status status = kms_parse_duration(text, &ns);

    if (status != KMS_OK || ns < setting->min || ns > setting->max) {
        return KMS_E_INVALID;
    }
    *value = ns;
    return KMS_OK;
}

static enum kms_status read_mode(const struct setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_mode(text, ret);
}

static enum kms_status read_user(const struct setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_user(text, ret);
}

static enum kms_status read_group(const struct setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_group(text, ret);
}

static enum kms_status read_level(const struct setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_log_parse_level(text, ret);
}

static enum kms_status read_format(const struct setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_log_parse_format(text, ret);
}

/* A literal, which lives on when the configuration is gone: the server keeps it over a reload. */
static enum kms_status read_api_version(const struct setting *setting, const char *text, void *ret)
{
    static const char *const versions[] = {"v2", "v2beta1"};
    const char **value = ret;

    (void)setting;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        if (strcmp(text, versions[i]) == 0) {
            *value = versions[i];
            return KMS_OK;
        }
    }
    return KMS_E_INVALID;
}

static enum kms_status read_on_failure(const struct setting *setting, const char *text, void *ret)
{
    enum kms_on_failure *value = ret;

    (void)setting;
    if (strcmp(text, "stop-writing") == 0) {
        *value = KMS_STOP_WRITING;
        return KMS_OK;
    }
    if (strcmp(text, "keep-writing") == 0) {
        *value = KMS_KEEP_WRITING;
        return KMS_OK;
    }
    return KMS_E_INVALID;
}

/* An absolute path of a socket that sockaddr_un can hold. */
static bool is_socket_path(const char *text)
{
    size_t len = strlen(text);

    return text[0] == '/' && len <= SOCKET_PATH_MAX && text[len - 1] != '/';
}

static enum kms_status read_path(const struct setting *setting, const char *text, void *ret)
{
    return text[0] == '/' ? read_text(setting, text, ret) : KMS_E_INVALID;
}

static enum kms_status read_socket(const struct setting *setting, const char *text, void *ret)
{
    bool is_abstract = text[0] == '@' && text[1] != '\0' && strlen(text) <= SOCKET_PATH_MAX;

    return is_abstract || is_socket_path(text) ? read_text(setting, text, ret) : KMS_E_INVALID;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

/* kube-apiserver puts the name between colons into each key of etcd's values. */
static enum kms_status read_provider_name(const struct setting *setting, const char *text,
                                          void *ret)
{
    if (strchr(text, ':') != NULL || strlen(text) > NAME_LEN_MAX || !is_printable(text)) {
        return KMS_E_INVALID;
    }
    return read_text(setting, text, ret);
}

static bool is_key_id(const char *hex)
{
    size_t len = strlen(hex);

    return len > 0 && len % 2 == 0 && len / 2 <= KMS_KEY_TAG_MAX &&
           strspn(hex, "0123456789abcdefABCDEF") == len;
}

/* A PIN in the URI (RFC 7512: pin-value, pin-source) is none of a key's attributes. */
static enum kms_status read_key(const struct setting *setting, const char *text, void *ret)
{
    bool is_good = strlen(text) < KMS_LABEL_MAX && is_printable(text);

    if (strncmp(text, "id:", strlen("id:")) == 0) {
        is_good = is_key_id(text + strlen("id:"));
    } else if (strncmp(text, "pkcs11:", strlen("pkcs11:")) == 0) {
        is_good = strstr(text, "object=") != NULL || strstr(text, "id=") != NULL;
    }
    return is_good ? read_text(setting, text, ret) : KMS_E_INVALID;
}

static bool is_port(const char *text)
{
    uint64_t port;

    return text[0] != '0' && kms_parse_u64(text, 1, UINT16_MAX, &port) == KMS_OK;
}

/* "127.0.0.1:8780", "[::1]:8780": an address of this machine only. */
static bool is_loopback(const char *text)
{
    char host[INET6_ADDRSTRLEN + 3];
    const char *colon = strrchr(text, ':');
    struct in_addr v4;
    size_t len;

    if (colon == NULL || !is_port(colon + 1) || (size_t)(colon - text) >= sizeof(host)) {
        return false;
    }
    len = (size_t)(colon - text);
    memcpy(host, text, len);
    host[len] = '\0';
    if (strcmp(host, "[::1]") == 0) {
        return true;
    }
    return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
}

static enum kms_status read_listen(const struct setting *setting, const char *text, void *ret)
{
    bool is_unix = strncmp(text, "unix:", strlen("unix:")) == 0;
    bool is_good = is_unix ? is_socket_path(text + strlen("unix:")) : is_loopback(text);

    return is_good ? read_text(setting, text, ret) : KMS_E_INVALID;
}

/* --- tables of settings -------------------------------------------------------------------------
 */

#define MS KMS_NS_PER_MS
#define S  KMS_NS_PER_S
#define M  (60 * KMS_NS_PER_S)

#define LOG_KEY(member)     "log." #member, offsetof(struct raw_log, member)
#define KMS_KEY(member)     "kms." #member, offsetof(struct raw_kms, member)
#define MONITOR_KEY(member) "monitor." #member, offsetof(struct raw_monitor, member)
#define TO(member)          offsetof(struct kms_conf, member)

/* clang-format off */
static const struct setting log_settings[] = {
    {LOG_KEY(level), TO(log_level), read_level, "info", 0, 0,
     "is none of error, warn, info, debug"},
    {LOG_KEY(format), TO(log_format), read_format, "text", 0, 0,
     "is neither text nor json"},
    {LOG_KEY(file), TO(log_file), read_path, NULL, 0, 0,
     "is not an absolute path"},
};

static const struct setting kms_settings[] = {
    {KMS_KEY(socket), TO(kms.socket), read_socket, NULL, 0, 0,
     "is neither an absolute path nor @name, of at most 107 bytes"},
    {KMS_KEY(mode), TO(kms.mode), read_mode, "0600", 0, 0,
     "is not an octal mode such as 0600"},
    {KMS_KEY(owner), TO(kms.owner), read_user, NULL, 0, 0,
     "is no user of this system and no uid"},
    {KMS_KEY(group), TO(kms.group), read_group, NULL, 0, 0,
     "is no group of this system and no gid"},
    {KMS_KEY(backend), TO(kms.backend), read_text, NULL, 0, 0,
     "is not the name of an entry of backends"},
    {KMS_KEY(key), TO(kms.key), read_key, NULL, 0, 0,
     "is no label, no id:HEX and no pkcs11: URI with object= or id="},
    {KMS_KEY(api_version), TO(kms.api_version), read_api_version, "v2", 0, 0,
     "is neither v2 nor v2beta1"},
    {KMS_KEY(provider_name), TO(kms.provider_name), read_provider_name, "kmsbridge", 0, 0,
     "is not a name of 1 to 64 bytes without a colon"},
    {KMS_KEY(on_failure), TO(kms.on_failure), read_on_failure, "stop-writing", 0, 0,
     "is neither stop-writing nor keep-writing"},
    {KMS_KEY(probe_interval), TO(kms.probe_interval_ns), read_duration, "30s", 1 * S, 10 * M,
     "is not a duration from 1s to 10m, such as 30s"},
    {KMS_KEY(refresh_interval), TO(kms.refresh_interval_ns), read_duration, "30s", 1 * S, 60 * M,
     "is not a duration from 1s to 1h, such as 30s"},
    {KMS_KEY(call_timeout), TO(kms.call_timeout_ns), read_duration, "3s", 10 * MS, 60 * S,
     "is not a duration from 10ms to 60s, such as 3s"},
    {KMS_KEY(max_connections), TO(kms.max_connections), read_unsigned, "64", 1, 4096,
     "is not a number from 1 to 4096"},
    {KMS_KEY(max_calls), TO(kms.max_calls), read_unsigned, "1024", 1, 65536,
     "is not a number from 1 to 65536"},
    {KMS_KEY(workers), TO(kms.workers), read_unsigned, "32", 1, 256,
     "is not a number from 1 to 256"},
    {KMS_KEY(queue), TO(kms.queue), read_unsigned, "1024", 1, 65536,
     "is not a number from 1 to 65536"},
};

static const struct setting monitor_settings[] = {
    {MONITOR_KEY(listen), TO(monitor_listen), read_listen, NULL, 0, 0,
     "is none of 127.0.0.1:PORT, [::1]:PORT, unix:/absolute/path"},
};
/* clang-format on */

/* --- the whole ----------------------------------------------------------------------------------
 */

/* What one reading works on. */
struct reading {
    struct kms_conf_text text;
    struct raw_conf *raw;
    struct kms_conf *conf;
    bool is_private;
    struct kms_error *err;
};

static enum kms_status fail_value(const struct reading *reading, const char *path,
                                  const char *value, const char *wrong)
{
    return kms_conf_error(reading->err, &reading->text, path, "\"%.*s\" %s", SHOWN_VALUE_MAX, value,
                          wrong);
}

static enum kms_status fail_memory(const struct reading *reading)
{
    return kms_error_set(reading->err, KMS_E_NOMEM, "%s: no memory to read it", reading->text.name);
}

static enum kms_status apply_setting(const struct reading *reading, const struct setting *setting,
                                     const void *raw)
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
        return fail_memory(reading);
    }
    return status == KMS_OK ? KMS_OK : fail_value(reading, setting->path, text, setting->wrong);
}

static enum kms_status apply_settings(const struct reading *reading, const struct setting *settings,
                                      size_t count, const void *raw)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < count; i++) {
        status = apply_setting(reading, &settings[i], raw);
    }
    return status;
}

#define APPLY(reading, settings, raw)                                                              \
    apply_settings(reading, settings, sizeof(settings) / sizeof((settings)[0]), raw)

static enum kms_status read_version(const struct reading *reading)
{
    if (strcmp(reading->raw->version, "1") != 0) {
        return fail_value(reading, "version", reading->raw->version,
                          "is not a version that this release reads; it reads 1");
    }
    return KMS_OK;
}

static enum kms_status read_log(const struct reading *reading)
{
    static const struct raw_log none;

    return APPLY(reading, log_settings, reading->raw->log != NULL ? reading->raw->log : &none);
}

static enum kms_status read_monitor(const struct reading *reading)
{
    static const struct raw_monitor none;
    bool has = reading->raw->monitor != NULL && !reading->is_private;

    return APPLY(reading, monitor_settings, has ? reading->raw->monitor : &none);
}

/* Backends' names are metric labels and words of the log. */
static bool is_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= NAME_LEN_MAX && text[len] == '\0';
}

static enum kms_status check_backend_name(const struct reading *reading, size_t index,
                                          const char *entry)
{
    const struct kms_backend_conf *backends = reading->raw->backends;
    const char *name = backends[index].name;
    char path[KMS_YAML_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s.name", entry);
    if (!is_name(name)) {
        return fail_value(reading, path, name,
                          "is not a name: 1 to 64 letters, digits, '.', '_' and '-'");
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(backends[i].name, name) == 0) {
            return fail_value(reading, path, name, "is the name of another entry already");
        }
    }
    return KMS_OK;
}

/* "hsm, vault" */
static void list_types(char *ret_text, size_t size)
{
    size_t len = 0;

    ret_text[0] = '\0';
    for (const char *const *type = kms_backend_types(); *type != NULL && len < size; type++) {
        int length = snprintf(ret_text + len, size - len, "%s%s", len > 0 ? ", " : "", *type);

        len += length > 0 ? (size_t)length : 0;
    }
}

static enum kms_status check_backend_type(const struct reading *reading, const char *entry,
                                          const char *type)
{
    char path[KMS_YAML_PATH_MAX];
    char types[256];

    for (const char *const *known = kms_backend_types(); *known != NULL; known++) {
        if (strcmp(*known, type) == 0) {
            return KMS_OK;
        }
    }
    (void)snprintf(path, sizeof(path), "%s.type", entry);
    list_types(types, sizeof(types));
    return kms_conf_error(reading->err, &reading->text, path,
                          "\"%.*s\" is not a type of backend; there are: %s", SHOWN_VALUE_MAX, type,
                          types);
}

static enum kms_status read_backend(const struct reading *reading, size_t index)
{
    struct kms_backend_conf *backend = &reading->raw->backends[index];
    enum kms_status status;
    char entry[32];

    (void)snprintf(entry, sizeof(entry), "backends[%zu]", index);
    status = check_backend_name(reading, index, entry);
    if (status == KMS_OK) {
        status = check_backend_type(reading, entry, backend->type);
    }
    if (status == KMS_OK) {
        status = kms_backend_conf_check(backend, &reading->text, entry, reading->err);
    }
    return status;
}

static enum kms_status read_backends(const struct reading *reading)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < reading->raw->backends_count; i++) {
        status = read_backend(reading, i);
    }
    reading->conf->backends = reading->raw->backends;
    reading->conf->backend_count = reading->raw->backends_count;
    return status;
}

/* One entry of allow_uids or allow_gids. */
static enum kms_status read_id(const struct reading *reading, const char *list, size_t index,
                               const char *text, bool is_user, id_t *ret_id)
{
    enum kms_status status = is_user ? kms_parse_user(text, ret_id) : kms_parse_group(text, ret_id);
    char path[KMS_YAML_PATH_MAX];

    if (status == KMS_OK) {
        return KMS_OK;
    }
    if (status == KMS_E_NOMEM) {
        return fail_memory(reading);
    }
    (void)snprintf(path, sizeof(path), "kms.%s[%zu]", list, index);
    return fail_value(reading, path, text,
                      is_user ? "is no user of this system and no uid"
                              : "is no group of this system and no gid");
}

/* Who may connect when the file does not say. */
static void default_uids(struct kms_kms_conf *kms)
{
    uid_t own = geteuid();

    kms->allow_uids[kms->allow_uid_count++] = 0;
    if (own != 0) {
        kms->allow_uids[kms->allow_uid_count++] = own;
    }
}

static enum kms_status read_uids(const struct reading *reading)
{
    const struct raw_kms *raw = reading->raw->kms;
    struct kms_kms_conf *kms = &reading->conf->kms;
    enum kms_status status = KMS_OK;

    if (kms->socket == NULL) {
        return KMS_OK;
    }
    kms->allow_uids = calloc((size_t)raw->allow_uids_count + 2, sizeof(kms->allow_uids[0]));
    if (kms->allow_uids == NULL) {
        return fail_memory(reading);
    }
    if (raw->allow_uids_count == 0) {
        default_uids(kms);
    }
    for (size_t i = 0; status == KMS_OK && i < raw->allow_uids_count; i++) {
        status = read_id(reading, "allow_uids", i, raw->allow_uids[i], true,
                         &kms->allow_uids[kms->allow_uid_count++]);
    }
    return status;
}

static enum kms_status read_gids(const struct reading *reading)
{
    const struct raw_kms *raw = reading->raw->kms;
    struct kms_kms_conf *kms = &reading->conf->kms;
    enum kms_status status = KMS_OK;

    if (kms->socket == NULL) {
        return KMS_OK;
    }
    kms->allow_gids = calloc((size_t)raw->allow_gids_count + 1, sizeof(kms->allow_gids[0]));
    if (kms->allow_gids == NULL) {
        return fail_memory(reading);
    }
    for (size_t i = 0; status == KMS_OK && i < raw->allow_gids_count; i++) {
        status = read_id(reading, "allow_gids", i, raw->allow_gids[i], false,
                         &kms->allow_gids[kms->allow_gid_count++]);
    }
    return status;
}

static enum kms_status read_kms(const struct reading *reading)
{
    struct kms_kms_conf *kms = &reading->conf->kms;
    const struct raw_kms *raw = reading->raw->kms;
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
    status = APPLY(reading, kms_settings, raw);
    if (status == KMS_OK && kms_conf_backend(reading->conf, kms->backend) == NULL) {
        status = fail_value(reading, "kms.backend", kms->backend,
                            "is not the name of an entry of backends");
    }
    return status;
}

static enum kms_status read_agent(const struct reading *reading)
{
    struct kms_conf *conf = reading->conf;
    const struct kms_agentd_reading agent = {
        .text = &reading->text,
        .backends = conf->backends,
        .backend_count = conf->backend_count,
        .is_private = reading->is_private,
    };
    enum kms_status status =
        kms_agentd_conf_read(&agent, reading->raw->agent, &conf->agent, reading->err);

    if (status == KMS_OK && conf->kms.socket == NULL && !conf->agent.on) {
        status = kms_error_set(reading->err, KMS_E_INVALID,
                               "%s: has neither kms nor agent; at least one must be there",
                               reading->text.name);
    }
    if (status == KMS_OK && conf->kms.socket != NULL && conf->agent.on &&
        strcmp(conf->kms.socket, conf->agent.socket) == 0) {
        status = fail_value(reading, "agent.socket", conf->agent.socket, "is kms.socket too");
    }
    return status == KMS_OK
               ? kms_audit_conf_read(&agent, reading->raw->audit, conf->agent.on,
                                     conf->log_level >= KMS_LOG_INFO, &conf->audit, reading->err)
               : status;
}

static enum kms_status read_all(const struct reading *reading)
{
    static enum kms_status (*const steps[])(const struct reading *reading) = {
        read_version, read_log,  read_backends, read_kms,
        read_uids,    read_gids, read_monitor,  read_agent,
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
    struct reading reading = {
        .text = {.name = name, .content = text, .len = len},
        .conf = calloc(1, sizeof(*reading.conf)),
        .is_private = is_private,
        .err = err,
    };
    enum kms_status status;

    if (reading.conf == NULL) {
        return fail_memory(&reading);
    }
    reading.conf->path = strdup(name);
    if (reading.conf->path == NULL) {
        status = fail_memory(&reading);
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

struct kms_conf *kms_conf_hold(struct kms_conf *conf)
{
    atomic_fetch_add(&conf->holders, 1);
    return conf;
}

void kms_conf_done(struct kms_conf *conf)
{
    if (conf != NULL && atomic_fetch_sub(&conf->holders, 1) == 0) {
        kms_agentd_conf_done(&conf->agent);
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
        if (strcmp(conf->backends[i].name, name) == 0) {
            return &conf->backends[i];
        }
    }
    return NULL;
}
