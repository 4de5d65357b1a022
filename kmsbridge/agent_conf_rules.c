/* SPDX-License-Identifier: Apache-2.0 */
/* agent.rules: who may do what. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/numbers.h"
#include "common/yaml.h"
#include "kmsbridge/conf_parts.h"

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
        status = kms_conf_check_keys(reading, entry, raw->keys, raw->keys_count, false);
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
