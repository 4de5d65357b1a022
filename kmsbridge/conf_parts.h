/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration's insides, shared by conf.c (schema, and the whole), conf_values.c (single
 * values), conf_lists.c (backends, allow-lists) and agent_conf.c (agent, audit). In the file
 * everything is text; tables make it values.
 */
#ifndef KMSBRIDGE_CONF_PARTS_H
#define KMSBRIDGE_CONF_PARTS_H

#include "common/conf.h"
#include "kmsbridge/conf.h"

#define KMS_CONF_NAME_MAX 64 /* bytes of a name of a backend, and of the provider's */

struct kms_raw_log {
    char *level;
    char *format;
    char *file;
};

struct kms_raw_kms {
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

struct kms_raw_monitor {
    char *listen;
};

struct kms_raw_token {
    char *backend;
    char *label;
    char *login;
    char *keys_ttl;
    char **keys;
    unsigned keys_count;
    struct kms_agentd_cert_conf *certificates;
    unsigned certificates_count;
};

struct kms_raw_rule {
    char **uids;
    unsigned uids_count;
    char **users;
    unsigned users_count;
    char **gids;
    unsigned gids_count;
    char **groups;
    unsigned groups_count;
    char **tokens;
    unsigned tokens_count;
    char **keys;
    unsigned keys_count;
    char **allow;
    unsigned allow_count;
};

struct kms_raw_agent {
    char *socket;
    char *mode;
    char *owner;
    char *group;
    char *max_connections;
    char *max_connections_per_uid;
    char *calls_per_second;
    char *concurrent_calls_per_uid;
    char *idle_timeout;
    char *call_timeout;
    char *idle_exit;
    struct kms_raw_token *tokens;
    unsigned tokens_count;
    struct kms_raw_rule *rules;
    unsigned rules_count;
};

struct kms_raw_audit {
    char *file;
    char *required;
};

struct kms_raw_conf {
    char *version;
    struct kms_raw_log *log;
    struct kms_backend_conf *backends;
    unsigned backends_count;
    struct kms_raw_kms *kms;
    struct kms_raw_monitor *monitor;
    struct kms_raw_agent *agent;
    struct kms_raw_audit *audit;
};

struct kms_setting;

/* Makes @text the value at @ret. KMS_E_NOMEM, or any other status when @text is wrong. */
typedef enum kms_status (*kms_setting_read)(const struct kms_setting *setting, const char *text,
                                            void *ret);

struct kms_setting {
    const char *path;
    size_t raw;    /* of the char * in its raw struct */
    size_t target; /* in struct kms_conf */
    kms_setting_read read;
    const char *fallback; /* for a key that is not there; NULL: the value stays as it is */
    uint64_t min;
    uint64_t max;
    const char *wrong; /* follows the value in error texts */
};

/* Each ends with a NULL path. */
extern const struct kms_setting kms_conf_log_settings[];
extern const struct kms_setting kms_conf_kms_settings[];
extern const struct kms_setting kms_conf_monitor_settings[];
extern const struct kms_setting kms_conf_agent_settings[];

/* What one reading works on. */
struct kms_reading {
    struct kms_conf_text text;
    struct kms_raw_conf *raw;
    struct kms_conf *conf;
    bool is_private; /* for `kmsbridged --private` */
    struct kms_error *err;
};

/* KMS_E_INVALID, with file, key, value and what is wrong with it. */
enum kms_status kms_conf_fail_value(const struct kms_reading *reading, const char *path,
                                    const char *value, const char *wrong) KMS_MUST_CHECK;
enum kms_status kms_conf_fail_memory(const struct kms_reading *reading) KMS_MUST_CHECK;

/* Names of keys below @entry, as rules (with * for any text) or, with @uri, tokens have them. */
enum kms_status kms_conf_check_keys(const struct kms_reading *reading, const char *entry,
                                    char *const *keys, size_t count, bool uri) KMS_MUST_CHECK;

/* Steps of a reading. */
enum kms_status kms_conf_read_backends(const struct kms_reading *reading) KMS_MUST_CHECK;
enum kms_status kms_conf_read_uids(const struct kms_reading *reading) KMS_MUST_CHECK;
enum kms_status kms_conf_read_gids(const struct kms_reading *reading) KMS_MUST_CHECK;
enum kms_status kms_conf_read_tokens(const struct kms_reading *reading) KMS_MUST_CHECK;
enum kms_status kms_conf_read_rules(const struct kms_reading *reading) KMS_MUST_CHECK;
enum kms_status kms_conf_read_audit(const struct kms_reading *reading) KMS_MUST_CHECK;

#endif
