/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "backend/backend.h"
#include "common/clock.h"
#include "common/numbers.h"
#include "kmsbridge/conf_parts.h"

#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

/* --- single values ---------------------------------------------------------------------------- */

static enum kms_status read_text(const struct kms_setting *setting, const char *text, void *ret)
{
    const char **value = ret;

    (void)setting;
    if (text[0] == '\0') {
        return KMS_E_INVALID;
    }
    *value = text;
    return KMS_OK;
}

static enum kms_status read_unsigned(const struct kms_setting *setting, const char *text, void *ret)
{
    unsigned *value = ret;
    uint64_t number;
    enum kms_status status = kms_parse_u64(text, setting->min, setting->max, &number);

    if (status == KMS_OK) {
        *value = (unsigned)number;
    }
    return status;
}

static enum kms_status read_duration(const struct kms_setting *setting, const char *text, void *ret)
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

static enum kms_status read_mode(const struct kms_setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_mode(text, ret);
}

static enum kms_status read_user(const struct kms_setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_user(text, ret);
}

static enum kms_status read_group(const struct kms_setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_parse_group(text, ret);
}

static enum kms_status read_level(const struct kms_setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_log_parse_level(text, ret);
}

static enum kms_status read_format(const struct kms_setting *setting, const char *text, void *ret)
{
    (void)setting;
    return kms_log_parse_format(text, ret);
}

/* A literal, which lives on when the configuration is gone: the server keeps it over a reload. */
static enum kms_status read_api_version(const struct kms_setting *setting, const char *text,
                                        void *ret)
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

static enum kms_status read_on_failure(const struct kms_setting *setting, const char *text,
                                       void *ret)
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

static enum kms_status read_socket(const struct kms_setting *setting, const char *text, void *ret)
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
static enum kms_status read_provider_name(const struct kms_setting *setting, const char *text,
                                          void *ret)
{
    if (strchr(text, ':') != NULL || strlen(text) > KMS_CONF_NAME_MAX || !is_printable(text)) {
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
static enum kms_status read_key(const struct kms_setting *setting, const char *text, void *ret)
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

static enum kms_status read_listen(const struct kms_setting *setting, const char *text, void *ret)
{
    bool is_unix = strncmp(text, "unix:", strlen("unix:")) == 0;
    bool is_good = is_unix ? is_socket_path(text + strlen("unix:")) : is_loopback(text);

    return is_good ? read_text(setting, text, ret) : KMS_E_INVALID;
}

static enum kms_status read_path(const struct kms_setting *setting, const char *text, void *ret)
{
    return text[0] == '/' ? read_text(setting, text, ret) : KMS_E_INVALID;
}

/* --- tables of settings -------------------------------------------------------------------------
 */

#define MS KMS_NS_PER_MS
#define S  KMS_NS_PER_S
#define M  (60 * KMS_NS_PER_S)
#define H  (60 * M)

#define LOG_KEY(member)     "log." #member, offsetof(struct kms_raw_log, member)
#define KMS_KEY(member)     "kms." #member, offsetof(struct kms_raw_kms, member)
#define MONITOR_KEY(member) "monitor." #member, offsetof(struct kms_raw_monitor, member)
#define AGENT_KEY(member)   "agent." #member, offsetof(struct kms_raw_agent, member)
#define TO(member)          offsetof(struct kms_conf, member)

/* clang-format off */
const struct kms_setting kms_conf_log_settings[] = {
    {LOG_KEY(level), TO(log_level), read_level, "info", 0, 0,
     "is none of error, warn, info, debug"},
    {LOG_KEY(format), TO(log_format), read_format, "text", 0, 0,
     "is neither text nor json"},
    {LOG_KEY(file), TO(log_file), read_path, NULL, 0, 0,
     "is not an absolute path"},
    {.path = NULL},
};

const struct kms_setting kms_conf_kms_settings[] = {
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
    {KMS_KEY(call_timeout), TO(kms.call_timeout_ns), read_duration, "2800ms", 10 * MS, 60 * S,
     "is not a duration from 10ms to 60s, such as 3s"},
    {KMS_KEY(max_connections), TO(kms.max_connections), read_unsigned, "64", 1, 4096,
     "is not a number from 1 to 4096"},
    {KMS_KEY(max_calls), TO(kms.max_calls), read_unsigned, "1024", 1, 65536,
     "is not a number from 1 to 65536"},
    {KMS_KEY(workers), TO(kms.workers), read_unsigned, "32", 1, 256,
     "is not a number from 1 to 256"},
    {KMS_KEY(queue), TO(kms.queue), read_unsigned, "1024", 1, 65536,
     "is not a number from 1 to 65536"},
    {.path = NULL},
};

const struct kms_setting kms_conf_agent_settings[] = {
    {AGENT_KEY(socket), TO(agent.socket), read_socket, "/run/kmsbridge/agent.sock", 0, 0,
     "is neither an absolute path nor @name, of at most 107 bytes"},
    {AGENT_KEY(mode), TO(agent.mode), read_mode, "0666", 0, 0,
     "is not an octal mode such as 0666"},
    {AGENT_KEY(owner), TO(agent.owner), read_user, NULL, 0, 0,
     "is no user of this system and no uid"},
    {AGENT_KEY(group), TO(agent.group), read_group, NULL, 0, 0,
     "is no group of this system and no gid"},
    {AGENT_KEY(max_connections), TO(agent.max_connections), read_unsigned, "512", 1, 4096,
     "is not a number from 1 to 4096"},
    {AGENT_KEY(max_connections_per_uid), TO(agent.max_connections_per_uid), read_unsigned, "128",
     1, 4096, "is not a number from 1 to 4096"},
    {AGENT_KEY(calls_per_second), TO(agent.calls_per_second), read_unsigned, "0", 0, 1000000,
     "is not a number from 0 to 1000000"},
    {AGENT_KEY(concurrent_calls_per_uid), TO(agent.concurrent_calls_per_uid), read_unsigned, "16",
     1, 1024, "is not a number from 1 to 1024"},
    {AGENT_KEY(idle_timeout), TO(agent.idle_timeout_ns), read_duration, "10m", 1 * S, 24 * H,
     "is not a duration from 1s to 24h, such as 10m"},
    {AGENT_KEY(call_timeout), TO(agent.call_timeout_ns), read_duration, "10s", 10 * MS, 60 * S,
     "is not a duration from 10ms to 60s, such as 10s"},
    {AGENT_KEY(idle_exit), TO(agent.idle_exit_ns), read_duration, "10m", 100 * MS, 24 * H,
     "is not a duration from 100ms to 24h, such as 10m"},
    {.path = NULL},
};

const struct kms_setting kms_conf_monitor_settings[] = {
    {MONITOR_KEY(listen), TO(monitor_listen), read_listen, NULL, 0, 0,
     "is none of 127.0.0.1:PORT, [::1]:PORT, unix:/absolute/path"},
    {.path = NULL},
};
/* clang-format on */
