/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_conf_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/backend.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/numbers.h"
#include "common/yaml.h"

#define TOKENS_MAX       64 /* as the protocol has it */
#define TOKEN_KEYS_MAX   1024
#define CERTIFICATES_MAX 1024
#define RULES_MAX        1024
#define RULE_ITEMS_MAX   256
#define RIGHTS_MAX       32
#define TOKEN_LABEL_MAX  32 /* bytes of CK_TOKEN_INFO.label, PKCS#11 3.0 section 3.2 */
#define SHOWN_VALUE_MAX  80 /* bytes of a wrong value that an error text repeats */
#define SOCKET_PATH_MAX  (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

/* --- schema -------------------------------------------------------------------------------------
 */

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(flags, type, member)                                                                  \
    CYAML_FIELD_STRING_PTR(#member, flags, type, member, 0, CYAML_UNLIMITED)
#define TEXTS(flags, type, member, max)                                                            \
    CYAML_FIELD_SEQUENCE(#member, flags, type, member, &text_value, 0, max)
#define AGENT_TEXT(member) TEXT(OPTIONAL, struct kms_agentd_raw, member)
#define RULE_TEXTS(member) TEXTS(OPTIONAL, struct kms_agentd_raw_rule, member, RULE_ITEMS_MAX)
#define TOKEN_TEXT(member) TEXT(OPTIONAL, struct kms_agentd_raw_token, member)

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
    TEXT(REQUIRED, struct kms_agentd_raw_token, backend),
    TOKEN_TEXT(label),
    TOKEN_TEXT(login),
    TOKEN_TEXT(keys_ttl),
    TEXTS(OPTIONAL, struct kms_agentd_raw_token, keys, TOKEN_KEYS_MAX),
    CYAML_FIELD_SEQUENCE("certificates", OPTIONAL, struct kms_agentd_raw_token, certificates,
                         &cert_value, 0, CERTIFICATES_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t token_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_agentd_raw_token, token_fields),
};

static const cyaml_schema_field_t rule_fields[] = {
    RULE_TEXTS(uids),
    RULE_TEXTS(users),
    RULE_TEXTS(gids),
    RULE_TEXTS(groups),
    RULE_TEXTS(tokens),
    RULE_TEXTS(keys),
    TEXTS(REQUIRED, struct kms_agentd_raw_rule, allow, RIGHTS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t rule_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_agentd_raw_rule, rule_fields),
};

const cyaml_schema_field_t kms_agentd_conf_fields[] = {
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
    CYAML_FIELD_SEQUENCE("tokens", OPTIONAL, struct kms_agentd_raw, tokens, &token_value, 0,
                         TOKENS_MAX),
    CYAML_FIELD_SEQUENCE("rules", OPTIONAL, struct kms_agentd_raw, rules, &rule_value, 0,
                         RULES_MAX),
    CYAML_FIELD_END,
};

const cyaml_schema_field_t kms_audit_conf_fields[] = {
    TEXT(OPTIONAL, struct kms_audit_raw, file),
    TEXT(OPTIONAL, struct kms_audit_raw, required),
    CYAML_FIELD_END,
};

/* --- single values ------------------------------------------------------------------------------
 */

/* What one reading works on. */
struct work {
    const struct kms_agentd_reading *reading;
    struct kms_agentd_conf *conf;
    struct kms_error *err;
};

struct setting;
typedef enum kms_status (*read_value)(const struct setting *setting, const char *text, void *ret);

struct setting {
    const char *path;
    size_t raw;    /* of the char * in its raw struct */
    size_t target; /* in struct kms_agentd_conf */
    read_value read;
    const char *fallback; /* for a key that is not there; NULL: the value stays as it is */
    uint64_t min;
    uint64_t max;
    const char *wrong; /* follows the value in error texts */
};

static enum kms_status read_socket(const struct setting *setting, const char *text, void *ret)
{
    const char **value = ret;
    size_t len = strlen(text);
    bool is_path = text[0] == '/' && text[len - 1] != '/';

    (void)setting;
    if ((!is_path && (text[0] != '@' || len < 2)) || len > SOCKET_PATH_MAX) {
        return KMS_E_INVALID;
    }
    *value = text;
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

static enum kms_status read_unsigned(const struct setting *setting, const char *text, void *ret)
{
    unsigned *value = ret;
    uint64_t number = 0;
    enum kms_status status = kms_parse_u64(text, setting->min, setting->max, &number);

    if (status == KMS_OK) {
        *value = (unsigned)number;
    }
    return status;
}

static enum kms_status read_duration(const struct setting *setting, const char *text, void *ret)
{
    uint64_t *value = ret;
    uint64_t ns = 0;

    if (kms_parse_duration(text, &ns) != KMS_OK || ns < setting->min || ns > setting->max) {
        return KMS_E_INVALID;
    }
    *value = ns;
    return KMS_OK;
}

#define MS          KMS_NS_PER_MS
#define S           KMS_NS_PER_S
#define H           (3600 * KMS_NS_PER_S)
#define KEY(member) "agent." #member, offsetof(struct kms_agentd_raw, member)
#define TO(member)  offsetof(struct kms_agentd_conf, member)

/* clang-format off */
static const struct setting settings[] = {
    {KEY(socket), TO(socket), read_socket, "/run/kmsbridge/agent.sock", 0, 0,
     "is neither an absolute path nor @name, of at most 107 bytes"},
    {KEY(mode), TO(mode), read_mode, "0666", 0, 0,
     "is not an octal mode such as 0666"},
    {KEY(owner), TO(owner), read_user, NULL, 0, 0,
     "is no user of this system and no uid"},
    {KEY(group), TO(group), read_group, NULL, 0, 0,
     "is no group of this system and no gid"},
    {KEY(max_connections), TO(max_connections), read_unsigned, "512", 1, 4096,
     "is not a number from 1 to 4096"},
    {KEY(max_connections_per_uid), TO(max_connections_per_uid), read_unsigned, "128", 1, 4096,
     "is not a number from 1 to 4096"},
    {KEY(calls_per_second), TO(calls_per_second), read_unsigned, "0", 0, 1000000,
     "is not a number from 0 to 1000000"},
    {KEY(concurrent_calls_per_uid), TO(concurrent_calls_per_uid), read_unsigned, "16", 1, 1024,
     "is not a number from 1 to 1024"},
    {KEY(idle_timeout), TO(idle_timeout_ns), read_duration, "10m", 1 * S, 24 * H,
     "is not a duration from 1s to 24h, such as 10m"},
    {KEY(call_timeout), TO(call_timeout_ns), read_duration, "10s", 10 * MS, 60 * S,
     "is not a duration from 10ms to 60s, such as 10s"},
    {KEY(idle_exit), TO(idle_exit_ns), read_duration, "10m", 100 * MS, 24 * H,
     "is not a duration from 100ms to 24h, such as 10m"},
};
/* clang-format on */

static enum kms_status fail_value(const struct work *work, const char *path, const char *value,
                                  const char *wrong)
{
    return kms_conf_error(work->err, work->reading->text, path, "\"%.*s\" %s", SHOWN_VALUE_MAX,
                          value, wrong);
}

static enum kms_status fail_memory(const struct work *work)
{
    return kms_error_set(work->err, KMS_E_NOMEM, "%s: no memory to read it",
                         work->reading->text->name);
}

static enum kms_status apply(const struct work *work, const struct setting *setting,
                             const struct kms_agentd_raw *raw)
{
    const char *text = *(char *const *)((const char *)raw + setting->raw);
    enum kms_status status;

    if (text == NULL) {
        text = setting->fallback;
    }
    if (text == NULL) {
        return KMS_OK;
    }
    status = setting->read(setting, text, (char *)work->conf + setting->target);
    if (status == KMS_E_NOMEM) {
        return fail_memory(work);
    }
    return status == KMS_OK ? KMS_OK : fail_value(work, setting->path, text, setting->wrong);
}

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

static enum kms_status check_keys(const struct work *work, const char *entry, char *const *keys,
                                  size_t count, bool uri)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < count; i++) {
        if (!is_key(keys[i], uri)) {
            (void)snprintf(path, sizeof(path), "%s.keys[%zu]", entry, i);
            return fail_value(work, path, keys[i],
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

static const struct kms_backend_conf *find_backend(const struct work *work, const char *name)
{
    const struct kms_agentd_reading *reading = work->reading;

    for (size_t i = 0; i < reading->backend_count; i++) {
        if (strcmp(reading->backends[i].name, name) == 0) {
            return &reading->backends[i];
        }
    }
    return NULL;
}

static enum kms_status read_token_backend(const struct work *work, const char *entry,
                                          const char *name)
{
    char path[KMS_YAML_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s.backend", entry);
    if (find_backend(work, name) == NULL) {
        return fail_value(work, path, name, "is not the name of an entry of backends");
    }
    for (size_t i = 0; i < work->conf->token_count; i++) {
        if (strcmp(work->conf->tokens[i].backend, name) == 0) {
            return fail_value(work, path, name, "has a token already");
        }
    }
    return KMS_OK;
}

static enum kms_status read_token_label(const struct work *work, const char *entry,
                                        const char *label)
{
    char path[KMS_YAML_PATH_MAX];

    if (label == NULL || (is_label(label) && strlen(label) <= TOKEN_LABEL_MAX &&
                          kms_utf8_valid(kms_span_str(label)))) {
        return KMS_OK;
    }
    (void)snprintf(path, sizeof(path), "%s.label", entry);
    return fail_value(work, path, label, "is not a label of 1 to 32 bytes of UTF-8");
}

static enum kms_status read_login(const struct work *work, const char *entry, const char *text,
                                  enum kms_agentd_login *ret_login)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < sizeof(logins) / sizeof(logins[0]); i++) {
        if (text == NULL || strcmp(text, logins[i]) == 0) {
            *ret_login = (enum kms_agentd_login)i;
            return KMS_OK;
        }
    }
    (void)snprintf(path, sizeof(path), "%s.login", entry);
    return fail_value(work, path, text, "is none of none, any, pin");
}

static enum kms_status read_ttl(const struct work *work, const char *entry, const char *text,
                                uint64_t *ret_ns)
{
    char path[KMS_YAML_PATH_MAX];

    *ret_ns = 60 * S;
    if (text == NULL ||
        (kms_parse_duration(text, ret_ns) == KMS_OK && *ret_ns >= 1 * S && *ret_ns <= 24 * H)) {
        return KMS_OK;
    }
    (void)snprintf(path, sizeof(path), "%s.keys_ttl", entry);
    return fail_value(work, path, text, "is not a duration from 1s to 24h, such as 60s");
}

static enum kms_status check_certificates(const struct work *work, const char *entry,
                                          const struct kms_agentd_raw_token *raw)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < raw->certificates_count; i++) {
        const struct kms_agentd_cert_conf *cert = &raw->certificates[i];

        if (!is_label(cert->key)) {
            (void)snprintf(path, sizeof(path), "%s.certificates[%zu].key", entry, i);
            return fail_value(work, path, cert->key, "is not a key's label");
        }
        if (cert->file[0] != '/') {
            (void)snprintf(path, sizeof(path), "%s.certificates[%zu].file", entry, i);
            return fail_value(work, path, cert->file, "is not an absolute path");
        }
    }
    return KMS_OK;
}

static enum kms_status read_token(const struct work *work, size_t index,
                                  const struct kms_agentd_raw_token *raw)
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
    status = read_token_backend(work, entry, raw->backend);
    if (status == KMS_OK) {
        status = read_token_label(work, entry, raw->label);
    }
    if (status == KMS_OK) {
        status = read_login(work, entry, raw->login, &token.login);
    }
    if (status == KMS_OK) {
        status = read_ttl(work, entry, raw->keys_ttl, &token.keys_ttl_ns);
    }
    if (status == KMS_OK) {
        status = check_keys(work, entry, raw->keys, raw->keys_count, true);
    }
    if (status == KMS_OK) {
        status = check_certificates(work, entry, raw);
    }
    if (status == KMS_OK) {
        work->conf->tokens[work->conf->token_count++] = token;
    }
    return status;
}

static enum kms_status read_tokens(const struct work *work, const struct kms_agentd_raw *raw)
{
    const struct kms_agentd_reading *reading = work->reading;
    bool named = raw->tokens_count > 0;
    size_t count = named ? raw->tokens_count : reading->backend_count;
    enum kms_status status = KMS_OK;

    work->conf->tokens = calloc(count + 1, sizeof(work->conf->tokens[0]));
    if (work->conf->tokens == NULL) {
        return fail_memory(work);
    }
    for (size_t i = 0; status == KMS_OK && i < count; i++) {
        const struct kms_agentd_raw_token plain = {.backend =
                                                       named ? NULL : reading->backends[i].name};

        status = read_token(work, i, named ? &raw->tokens[i] : &plain);
    }
    return status;
}

/* --- rules --------------------------------------------------------------------------------------
 */

static enum kms_status read_ids(const struct work *work, const char *entry, const char *list,
                                char *const *texts, size_t count, bool is_user, id_t *ret_ids,
                                size_t *ret_count)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < count; i++) {
        id_t *id = &ret_ids[*ret_count];
        enum kms_status status =
            is_user ? kms_parse_user(texts[i], id) : kms_parse_group(texts[i], id);

        if (status == KMS_E_NOMEM) {
            return fail_memory(work);
        }
        if (status != KMS_OK) {
            (void)snprintf(path, sizeof(path), "%s.%s[%zu]", entry, list, i);
            return fail_value(work, path, texts[i],
                              is_user ? "is no user of this system and no uid"
                                      : "is no group of this system and no gid");
        }
        (*ret_count)++;
    }
    return KMS_OK;
}

/* Allocates the rule's lists; they are freed with the rule. */
static enum kms_status read_rule_peers(const struct work *work, const char *entry,
                                       const struct kms_agentd_raw_rule *raw,
                                       struct kms_policy_rule *rule)
{
    bool everybody = raw->users_count == 1 && strcmp(raw->users[0], "*") == 0;
    uid_t *uids = calloc((size_t)raw->uids_count + raw->users_count + 1, sizeof(*uids));
    gid_t *gids = calloc((size_t)raw->gids_count + raw->groups_count + 1, sizeof(*gids));
    enum kms_status status = KMS_OK;

    rule->uids = uids;
    rule->gids = gids;
    rule->everybody = everybody;
    if (uids == NULL || gids == NULL) {
        return fail_memory(work);
    }
    status =
        read_ids(work, entry, "uids", raw->uids, raw->uids_count, true, uids, &rule->uid_count);
    if (status == KMS_OK && !everybody) {
        status = read_ids(work, entry, "users", raw->users, raw->users_count, true, uids,
                          &rule->uid_count);
    }
    if (status == KMS_OK) {
        status = read_ids(work, entry, "gids", raw->gids, raw->gids_count, false, gids,
                          &rule->gid_count);
    }
    if (status == KMS_OK) {
        status = read_ids(work, entry, "groups", raw->groups, raw->groups_count, false, gids,
                          &rule->gid_count);
    }
    if (status == KMS_OK && !everybody && rule->uid_count == 0 && rule->gid_count == 0) {
        status = kms_conf_error(work->err, work->reading->text, entry,
                                "names nobody: give uids, users, gids or groups; users: [\"*\"] "
                                "is everybody");
    }
    return status;
}

static enum kms_status check_rule_tokens(const struct work *work, const char *entry,
                                         const struct kms_agentd_raw_rule *raw)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < raw->tokens_count; i++) {
        bool known = false;

        for (size_t t = 0; t < work->conf->token_count && !known; t++) {
            known = strcmp(work->conf->tokens[t].backend, raw->tokens[i]) == 0;
        }
        if (!known) {
            (void)snprintf(path, sizeof(path), "%s.tokens[%zu]", entry, i);
            return fail_value(work, path, raw->tokens[i],
                              "is not the backend of an entry of agent.tokens");
        }
    }
    return KMS_OK;
}

static enum kms_status read_rights(const struct work *work, const char *entry,
                                   const struct kms_agentd_raw_rule *raw, unsigned *ret_rights)
{
    char path[KMS_YAML_PATH_MAX];
    unsigned rights = 0;

    (void)snprintf(path, sizeof(path), "%s.allow", entry);
    if (raw->allow_count == 0) {
        return kms_conf_error(work->err, work->reading->text, path, "allows nothing");
    }
    for (size_t i = 0; i < raw->allow_count; i++) {
        unsigned more = 0;

        if (kms_policy_parse_right(raw->allow[i], &more) != KMS_OK) {
            (void)snprintf(path, sizeof(path), "%s.allow[%zu]", entry, i);
            return fail_value(work, path, raw->allow[i],
                              "is none of sign, verify, encrypt, decrypt, wrap, unwrap, generate, "
                              "destroy, set_label, list, random, all");
        }
        rights |= more;
    }
    *ret_rights = rights;
    return KMS_OK;
}

static enum kms_status read_rule(const struct work *work, size_t index,
                                 const struct kms_agentd_raw_rule *raw,
                                 struct kms_policy_rule *rule)
{
    enum kms_status status;
    char entry[48];

    (void)snprintf(entry, sizeof(entry), "agent.rules[%zu]", index);
    status = read_rule_peers(work, entry, raw, rule);
    if (status == KMS_OK) {
        status = check_rule_tokens(work, entry, raw);
    }
    if (status == KMS_OK) {
        status = check_keys(work, entry, raw->keys, raw->keys_count, false);
    }
    if (status == KMS_OK) {
        status = read_rights(work, entry, raw, &rule->allow);
    }
    rule->tokens = raw->tokens;
    rule->token_count = raw->tokens_count;
    rule->keys = raw->keys;
    rule->key_count = raw->keys_count;
    return status;
}

static enum kms_status read_rules(const struct work *work, const struct kms_agentd_raw *raw)
{
    enum kms_status status = KMS_OK;

    work->conf->rules = calloc((size_t)raw->rules_count + 1, sizeof(work->conf->rules[0]));
    if (work->conf->rules == NULL) {
        return fail_memory(work);
    }
    for (size_t i = 0; status == KMS_OK && i < raw->rules_count; i++) {
        work->conf->rule_count++;
        status = read_rule(work, i, &raw->rules[i], &work->conf->rules[i]);
    }
    return status;
}

/* --- the whole ----------------------------------------------------------------------------------
 */

enum kms_status kms_agentd_conf_read(const struct kms_agentd_reading *reading,
                                     const struct kms_agentd_raw *raw,
                                     struct kms_agentd_conf *ret_conf, struct kms_error *err)
{
    static const struct kms_agentd_raw none;
    const struct work work = {.reading = reading, .conf = ret_conf, .err = err};
    enum kms_status status = KMS_OK;

    *ret_conf = (struct kms_agentd_conf){
        .on = raw != NULL || reading->is_private,
        .is_private = reading->is_private,
        .owner = (uid_t)-1,
        .group = (gid_t)-1,
    };
    if (!ret_conf->on) {
        return KMS_OK;
    }
    raw = raw == NULL ? &none : raw;
    for (size_t i = 0; status == KMS_OK && i < sizeof(settings) / sizeof(settings[0]); i++) {
        status = apply(&work, &settings[i], raw);
    }
    if (status == KMS_OK) {
        status = read_tokens(&work, raw);
    }
    return status == KMS_OK ? read_rules(&work, raw) : status;
}

/* The lists that read_rule_peers() made; the struct shows them as const. */
static void free_list(const void *list)
{
    void *own;

    memcpy(&own, &list, sizeof(own));
    free(own);
}

void kms_agentd_conf_done(struct kms_agentd_conf *conf)
{
    for (size_t i = 0; i < conf->rule_count; i++) {
        free_list(conf->rules[i].uids);
        free_list(conf->rules[i].gids);
    }
    free(conf->rules);
    free(conf->tokens);
    *conf = (struct kms_agentd_conf){.on = false};
}

static enum kms_status read_required(const struct work *work, const char *text, bool *ret_required)
{
    *ret_required = text != NULL && strcmp(text, "true") == 0;
    if (text == NULL || *ret_required || strcmp(text, "false") == 0) {
        return KMS_OK;
    }
    return fail_value(work, "audit.required", text, "is neither true nor false");
}

enum kms_status kms_audit_conf_read(const struct kms_agentd_reading *reading,
                                    const struct kms_audit_raw *raw, bool agent, bool log_shows,
                                    struct kms_audit_conf *ret_conf, struct kms_error *err)
{
    const struct work work = {.reading = reading, .err = err};
    const char *file = raw == NULL ? NULL : raw->file;
    enum kms_status status;

    *ret_conf = (struct kms_audit_conf){.to = agent && !reading->is_private ? KMS_AUDIT_LOG
                                                                            : KMS_AUDIT_NONE};
    if (file != NULL && file[0] == '/') {
        ret_conf->to = KMS_AUDIT_FILE;
        ret_conf->file = file;
    } else if (file != NULL && strcmp(file, "none") == 0) {
        ret_conf->to = KMS_AUDIT_NONE;
    } else if (file != NULL && strcmp(file, "log") == 0) {
        ret_conf->to = KMS_AUDIT_LOG;
        if (!log_shows) {
            return kms_conf_error(err, reading->text, "audit.file",
                                  "log shows nothing: log.level must be info or debug");
        }
    } else if (file != NULL) {
        return fail_value(&work, "audit.file", file, "is no absolute path, and not log or none");
    }
    status = read_required(&work, raw == NULL ? NULL : raw->required, &ret_conf->required);
    if (status == KMS_OK && ret_conf->required && ret_conf->to != KMS_AUDIT_FILE) {
        status = kms_conf_error(err, reading->text, "audit.required",
                                "needs audit.file to be a path: the log may drop lines");
    }
    return status;
}
