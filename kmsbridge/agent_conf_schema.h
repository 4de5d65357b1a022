/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of `agent:` and `audit:`, and how they become values; included by the *conf.c
 * files only. */
#ifndef KMSBRIDGE_AGENT_CONF_SCHEMA_H
#define KMSBRIDGE_AGENT_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "backend/backend_conf.h"
#include "common/conf.h"
#include "kmsbridge/agent_conf.h"

/* The file as it stands there: all text. */
struct kms_agentd_raw_token {
    char *backend;
    char *label;
    char *login;
    char *keys_ttl;
    char **keys;
    unsigned keys_count;
    struct kms_agentd_cert_conf *certificates;
    unsigned certificates_count;
};

struct kms_agentd_raw_rule {
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

struct kms_agentd_raw {
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
    struct kms_agentd_raw_token *tokens;
    unsigned tokens_count;
    struct kms_agentd_raw_rule *rules;
    unsigned rules_count;
};

struct kms_audit_raw {
    char *file;
    char *required;
};

extern const cyaml_schema_field_t kms_agentd_conf_fields[];
extern const cyaml_schema_field_t kms_audit_conf_fields[];

/* What the two are read in. */
struct kms_agentd_reading {
    const struct kms_conf_text *text;
    const struct kms_backend_conf *backends;
    size_t backend_count;
    bool is_private;
};

/*
 * @raw is borrowed for as long as @ret_conf lives; NULL stands for a section that is not there.
 * @ret_conf is to be freed with kms_agentd_conf_done() whatever comes back. KMS_E_INVALID names
 * file, line and key.
 */
enum kms_status kms_agentd_conf_read(const struct kms_agentd_reading *reading,
                                     const struct kms_agentd_raw *raw,
                                     struct kms_agentd_conf *ret_conf,
                                     struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_conf_done(struct kms_agentd_conf *conf);

/* @log_shows: lines of level info get into the log. */
enum kms_status kms_audit_conf_read(const struct kms_agentd_reading *reading,
                                    const struct kms_audit_raw *raw, bool agent, bool log_shows,
                                    struct kms_audit_conf *ret_conf,
                                    struct kms_error *err) KMS_MUST_CHECK;

#endif
