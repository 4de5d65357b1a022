/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_conf_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/yaml.h"
#include "kmsbridge/conf_parts.h"

#define TOKENS_MAX       64 /* as the protocol has it */
#define TOKEN_KEYS_MAX   1024
#define CERTIFICATES_MAX 1024
#define RULES_MAX        1024
#define RULE_ITEMS_MAX   256
#define RIGHTS_MAX       32

/* --- schema -------------------------------------------------------------------------------------
 */

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(flags, type, member)                                                                  \
    CYAML_FIELD_STRING_PTR(#member, flags, type, member, 0, CYAML_UNLIMITED)
#define TEXTS(flags, type, member, max)                                                            \
    CYAML_FIELD_SEQUENCE(#member, flags, type, member, &text_value, 0, max)
#define AGENT_TEXT(member) TEXT(OPTIONAL, struct kms_raw_agent, member)
#define RULE_TEXTS(member) TEXTS(OPTIONAL, struct kms_raw_rule, member, RULE_ITEMS_MAX)
#define TOKEN_TEXT(member) TEXT(OPTIONAL, struct kms_raw_token, member)

static const cyaml_schema_value_t text_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_field_t cert_fields[] = {
    TEXT(REQUIRED, struct kms_agentd_cert_conf, key),
    TEXT(REQUIRED, struct kms_agentd_cert_conf, file),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t cert_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_agentd_cert_conf, cert_fields),
};

static const cyaml_schema_field_t token_fields[] = {
    TEXT(REQUIRED, struct kms_raw_token, backend),
    TOKEN_TEXT(label),
    TOKEN_TEXT(login),
    TOKEN_TEXT(keys_ttl),
    TEXTS(OPTIONAL, struct kms_raw_token, keys, TOKEN_KEYS_MAX),
    CYAML_FIELD_SEQUENCE("certificates", OPTIONAL, struct kms_raw_token, certificates, &cert_value,
                         0, CERTIFICATES_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t token_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_raw_token, token_fields),
};

static const cyaml_schema_field_t rule_fields[] = {
    RULE_TEXTS(uids),
    RULE_TEXTS(users),
    RULE_TEXTS(gids),
    RULE_TEXTS(groups),
    RULE_TEXTS(tokens),
    RULE_TEXTS(keys),
    TEXTS(REQUIRED, struct kms_raw_rule, allow, RIGHTS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t rule_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_raw_rule, rule_fields),
};

const cyaml_schema_field_t kms_conf_agent_fields[] = {
    AGENT_TEXT(socket),
    AGENT_TEXT(mode),
    AGENT_TEXT(owner),
    AGENT_TEXT(group),
    AGENT_TEXT(max_connections),
    AGENT_TEXT(max_connections_per_uid),
    AGENT_TEXT(calls_per_second),
    AGENT_TEXT(concurrent_calls_per_uid),
    AGENT_TEXT(idle_timeout),
    AGENT_TEXT(call_timeout),
    AGENT_TEXT(idle_exit),
    CYAML_FIELD_SEQUENCE("tokens", OPTIONAL, struct kms_raw_agent, tokens, &token_value, 0,
                         TOKENS_MAX),
    CYAML_FIELD_SEQUENCE("rules", OPTIONAL, struct kms_raw_agent, rules, &rule_value, 0, RULES_MAX),
    CYAML_FIELD_END,
};

const cyaml_schema_field_t kms_conf_audit_fields[] = {
    TEXT(OPTIONAL, struct kms_raw_audit, file),
    TEXT(OPTIONAL, struct kms_raw_audit, required),
    CYAML_FIELD_END,
};

/* The lists that agent_conf_rules.c made; the struct shows them as const. */
static void free_list(const void *list)
{
    void *own;

    memcpy(&own, &list, sizeof(own));
    free(own);
}

void kms_conf_agent_done(struct kms_agentd_conf *conf)
{
    for (size_t i = 0; i < conf->rule_count; i++) {
        free_list(conf->rules[i].uids);
        free_list(conf->rules[i].gids);
    }
    free(conf->rules);
    free(conf->tokens);
    *conf = (struct kms_agentd_conf){.on = false};
}

static enum kms_status read_required(const struct kms_reading *reading, const char *text,
                                     bool *ret_required)
{
    *ret_required = text != NULL && strcmp(text, "true") == 0;
    if (text == NULL || *ret_required || strcmp(text, "false") == 0) {
        return KMS_OK;
    }
    return kms_conf_fail_value(reading, "audit.required", text, "is neither true nor false");
}

static enum kms_status read_audit_file(const struct kms_reading *reading, const char *file,
                                       struct kms_audit_conf *audit)
{
    if (file == NULL) {
        audit->to =
            reading->conf->agent.on && !reading->is_private ? KMS_AUDIT_LOG : KMS_AUDIT_NONE;
        return KMS_OK;
    }
    if (strcmp(file, "none") == 0) {
        audit->to = KMS_AUDIT_NONE;
        return KMS_OK;
    }
    if (strcmp(file, "log") == 0) {
        audit->to = KMS_AUDIT_LOG;
        return reading->conf->log_level >= KMS_LOG_INFO
                   ? KMS_OK
                   : kms_conf_error(reading->err, &reading->text, "audit.file",
                                    "log shows nothing: log.level must be info or debug");
    }
    audit->to = KMS_AUDIT_FILE;
    audit->file = file;
    return file[0] == '/' ? KMS_OK
                          : kms_conf_fail_value(reading, "audit.file", file,
                                                "is no absolute path, and not log or none");
}

enum kms_status kms_conf_read_audit(const struct kms_reading *reading)
{
    static const struct kms_raw_audit none;
    const struct kms_raw_audit *raw = reading->raw->audit != NULL ? reading->raw->audit : &none;
    struct kms_audit_conf *audit = &reading->conf->audit;
    enum kms_status status = read_audit_file(reading, raw->file, audit);

    if (status == KMS_OK) {
        status = read_required(reading, raw->required, &audit->required);
    }
    if (status == KMS_OK && audit->required && audit->to != KMS_AUDIT_FILE) {
        status = kms_conf_error(reading->err, &reading->text, "audit.required",
                                "needs audit.file to be a path: the log may drop lines");
    }
    return status;
}
