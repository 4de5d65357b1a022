/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_conf_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/numbers.h"
#include "common/yaml.h"
#include "kmsbridge/conf_parts.h"

#define TOKENS_MAX       64 /* as the protocol has it */
#define TOKEN_KEYS_MAX   1024
#define CERTIFICATES_MAX 1024
#define RULES_MAX        1024
#define RULE_ITEMS_MAX   256
#define RIGHTS_MAX       32
#define TOKEN_LABEL_MAX  32 /* bytes of CK_TOKEN_INFO.label, PKCS#11 3.0 section 3.2 */
#define S                KMS_NS_PER_S
#define H                (3600 * KMS_NS_PER_S)

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

/* --- names of keys ------------------------------------------------------------------------------
 */

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

static enum kms_status check_keys(const struct kms_reading *reading, const char *entry,
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

/* --- tokens -------------------------------------------------------------------------------------
 */

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
        status = check_keys(reading, entry, raw->keys, raw->keys_count, true);
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

/* --- rules --------------------------------------------------------------------------------------
 */

static enum kms_status read_ids(const struct kms_reading *reading, const char *entry,
                                const char *list, char *const *texts, size_t count, bool is_user,
                                id_t *ret_ids, size_t *ret_count)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < count; i++) {
        id_t *id = &ret_ids[*ret_count];
        enum kms_status status =
            is_user ? kms_parse_user(texts[i], id) : kms_parse_group(texts[i], id);

        if (status == KMS_E_NOMEM) {
            return kms_conf_fail_memory(reading);
        }
        if (status != KMS_OK) {
            (void)snprintf(path, sizeof(path), "%s.%s[%zu]", entry, list, i);
            return kms_conf_fail_value(reading, path, texts[i],
                                       is_user ? "is no user of this system and no uid"
                                               : "is no group of this system and no gid");
        }
        (*ret_count)++;
    }
    return KMS_OK;
}

/* Allocates the rule's lists; they are freed with the rule. */
static enum kms_status read_rule_peers(const struct kms_reading *reading, const char *entry,
                                       const struct kms_raw_rule *raw, struct kms_policy_rule *rule)
{
    bool everybody = raw->users_count == 1 && strcmp(raw->users[0], "*") == 0;
    uid_t *uids = calloc((size_t)raw->uids_count + raw->users_count + 1, sizeof(*uids));
    gid_t *gids = calloc((size_t)raw->gids_count + raw->groups_count + 1, sizeof(*gids));
    enum kms_status status = KMS_OK;

    rule->uids = uids;
    rule->gids = gids;
    rule->everybody = everybody;
    if (uids == NULL || gids == NULL) {
        return kms_conf_fail_memory(reading);
    }
    status =
        read_ids(reading, entry, "uids", raw->uids, raw->uids_count, true, uids, &rule->uid_count);
    if (status == KMS_OK && !everybody) {
        status = read_ids(reading, entry, "users", raw->users, raw->users_count, true, uids,
                          &rule->uid_count);
    }
    if (status == KMS_OK) {
        status = read_ids(reading, entry, "gids", raw->gids, raw->gids_count, false, gids,
                          &rule->gid_count);
    }
    if (status == KMS_OK) {
        status = read_ids(reading, entry, "groups", raw->groups, raw->groups_count, false, gids,
                          &rule->gid_count);
    }
    if (status == KMS_OK && !everybody && rule->uid_count == 0 && rule->gid_count == 0) {
        status = kms_conf_error(reading->err, &reading->text, entry,
                                "names nobody: give uids, users, gids or groups; users: [\"*\"] "
                                "is everybody");
    }
    return status;
}

static enum kms_status check_rule_tokens(const struct kms_reading *reading, const char *entry,
                                         const struct kms_raw_rule *raw)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < raw->tokens_count; i++) {
        bool known = false;

        for (size_t t = 0; t < reading->conf->agent.token_count && !known; t++) {
            known = strcmp(reading->conf->agent.tokens[t].backend, raw->tokens[i]) == 0;
        }
        if (!known) {
            (void)snprintf(path, sizeof(path), "%s.tokens[%zu]", entry, i);
            return kms_conf_fail_value(reading, path, raw->tokens[i],
                                       "is not the backend of an entry of agent.tokens");
        }
    }
    return KMS_OK;
}

static enum kms_status read_rights(const struct kms_reading *reading, const char *entry,
                                   const struct kms_raw_rule *raw, unsigned *ret_rights)
{
    char path[KMS_YAML_PATH_MAX];
    unsigned rights = 0;

    (void)snprintf(path, sizeof(path), "%s.allow", entry);
    if (raw->allow_count == 0) {
        return kms_conf_error(reading->err, &reading->text, path, "allows nothing");
    }
    for (size_t i = 0; i < raw->allow_count; i++) {
        unsigned more = 0;

        if (kms_policy_parse_right(raw->allow[i], &more) != KMS_OK) {
            (void)snprintf(path, sizeof(path), "%s.allow[%zu]", entry, i);
            return kms_conf_fail_value(
                reading, path, raw->allow[i],
                "is none of sign, verify, encrypt, decrypt, wrap, unwrap, generate, "
                "destroy, set_label, list, random, all");
        }
        rights |= more;
    }
    *ret_rights = rights;
    return KMS_OK;
}

static enum kms_status read_rule(const struct kms_reading *reading, size_t index,
                                 const struct kms_raw_rule *raw, struct kms_policy_rule *rule)
{
    enum kms_status status;
    char entry[48];

    (void)snprintf(entry, sizeof(entry), "agent.rules[%zu]", index);
    status = read_rule_peers(reading, entry, raw, rule);
    if (status == KMS_OK) {
        status = check_rule_tokens(reading, entry, raw);
    }
    if (status == KMS_OK) {
        status = check_keys(reading, entry, raw->keys, raw->keys_count, false);
    }
    if (status == KMS_OK) {
        status = read_rights(reading, entry, raw, &rule->allow);
    }
    rule->tokens = raw->tokens;
    rule->token_count = raw->tokens_count;
    rule->keys = raw->keys;
    rule->key_count = raw->keys_count;
    return status;
}

enum kms_status kms_conf_read_rules(const struct kms_reading *reading)
{
    const struct kms_raw_agent *raw = reading->raw->agent;
    struct kms_agentd_conf *agent = &reading->conf->agent;
    enum kms_status status = KMS_OK;

    if (!agent->on || raw == NULL) {
        return KMS_OK;
    }
    agent->rules = calloc((size_t)raw->rules_count + 1, sizeof(agent->rules[0]));
    if (agent->rules == NULL) {
        return kms_conf_fail_memory(reading);
    }
    for (size_t i = 0; status == KMS_OK && i < raw->rules_count; i++) {
        status = read_rule(reading, i, &raw->rules[i], &agent->rules[agent->rule_count++]);
    }
    return status;
}

/* The lists that read_rule_peers() made; the struct shows them as const. */
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
