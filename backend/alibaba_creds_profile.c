/* SPDX-License-Identifier: Apache-2.0 */
/* A profile file: INI sections, as the vendor's SDKs read it. Those for Go and Node look for
 * ~/.alibabacloud/credentials, that for Python for credentials.ini there.
 *
 *   [default]                      [node]             # from here on a comment
 *   type = access_key              type = ecs_ram_role
 *   access_key_id = ...            role_name = ...
 *   access_key_secret = ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/file.h"
#include "common/secure.h"

/* What a section says; the texts lie in the file's content. */
struct section {
    const char *type;
    struct kms_ali_profile profile;
};

static const struct {
    const char *type;
    enum kms_ali_way way;
} types[] = {
    {"access_key", KMS_ALI_BY_KEY},    {"sts", KMS_ALI_BY_TOKEN},
    {"ecs_ram_role", KMS_ALI_BY_ECS},  {"oidc_role_arn", KMS_ALI_BY_OIDC},
    {"ram_role_arn", KMS_ALI_BY_ROLE},
};

static const char **field_of(struct section *section, const char *key)
{
    struct kms_ali_profile *profile = &section->profile;
    const struct {
        const char *key;
        const char **field;
    } fields[] = {
        {"type", &section->type},
        {"access_key_id", &profile->key_id},
        {"access_key_secret", &profile->secret},
        {"security_token", &profile->token},
        {"role_name", &profile->ecs_role},
        {"policy", &profile->oidc.policy},
        {"role_arn", &profile->oidc.role_arn},
        {"oidc_provider_arn", &profile->oidc.provider_arn},
        {"oidc_token_file_path", &profile->oidc.token_file},
        {"role_session_name", &profile->oidc.session_name},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].key, key) == 0) {
            return fields[i].field;
        }
    }
    return NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

static char *trim(char *text)
{
    size_t len = 0;

    text += strspn(text, " \t\r");
    len = strlen(text);
    while (len > 0 && strchr(" \t\r", text[len - 1]) != NULL) {
        text[--len] = '\0';
    }
    return text;
}

/* A line without its comment: "#" begins one anywhere, ";" at the line's start. */
static char *bare(char *line)
{
    line[strcspn(line, "#")] = '\0';
    line = trim(line);
    return line[0] == ';' ? line + strlen(line) : line;
}

/* "key = value" or "key: value" of the section; NULL: that is well, else what is wrong. */
static const char *read_value(char *line, struct section *ret)
{
    char *equals = strpbrk(line, "=:");
    const char **field = NULL;

    if (equals == NULL) {
        return "is neither a section nor key = value";
    }
    *equals = '\0';
    field = field_of(ret, trim(line));
    if (field == NULL) {
        return NULL;
    }
    if (*field != NULL) {
        return "has a key that the section has already";
    }
    *field = trim(equals + 1);
    return NULL;
}

/* Takes @content apart where it stands. */
static enum kms_status read_section(const char *path, char *content, const char *name,
                                    struct section *ret, struct kms_error *err)
{
    bool inside = false;
    bool found = false;
    char *rest = content;

    for (unsigned number = 1; rest != NULL; number++) {
        char *line = bare(strsep(&rest, "\n"));
        const char *wrong = NULL;

        if (line[0] == '[') {
            char *end = strchr(line, ']');

            wrong = end == NULL ? "begins a section and does not end it" : NULL;
            line[strcspn(line, "]")] = '\0';
            inside = strcmp(trim(line + 1), name) == 0;
            found = found || inside;
        } else if (inside && line[0] != '\0') {
            wrong = read_value(line, ret);
        }
        if (wrong != NULL) {
            return kms_error_set(err, KMS_E_INVALID, "profile: %s: line %u %s", path, number,
                                 wrong);
        }
    }
    return found ? KMS_OK
                 : kms_error_set(err, KMS_E_INVALID, "profile: %s has no section [%.64s]", path,
                                 name);
}

/* ---- the source --------------------------------------------------------------------------- */

static enum kms_status use_section(struct kms_backend *b, const struct kms_http_wait *wait,
                                   struct section *section, struct kms_credential_slot *slot,
                                   struct kms_error *err)
{
    const char *type = kms_ali_setting(section->type, NULL, NULL);

    if (type == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "%s has no type", section->profile.where);
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(type, types[i].type) == 0) {
            section->profile.way = types[i].way;
            return kms_ali_use_profile(b, wait, &section->profile, slot, err);
        }
    }
    return kms_error_set(err, KMS_E_UNSUPPORTED,
                         "%s is of type \"%.32s\"; there are access_key, sts, ecs_ram_role, "
                         "oidc_role_arn and ram_role_arn",
                         section->profile.where, type);
}

static bool find(struct kms_backend *b, char ret_path[PATH_MAX], struct kms_error *why)
{
    static const char *const places[] = {".alibabacloud/credentials",
                                         ".alibabacloud/credentials.ini", NULL};

    return kms_ali_find_file("profile", b->ali->profile_file, "ALIBABA_CLOUD_CREDENTIALS_FILE",
                             places, ret_path, why);
}

bool kms_ali_has_profile(struct kms_backend *b, struct kms_error *why)
{
    char path[PATH_MAX];

    return find(b, path, why);
}

enum kms_status kms_ali_from_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                     struct kms_credential_slot *slot, struct kms_error *err)
{
    const char *name = kms_ali_setting(b->ali->profile, "ALIBABA_CLOUD_PROFILE", "default");
    struct section section = {.type = NULL};
    char path[PATH_MAX];
    char *content = NULL;
    size_t len = 0;
    enum kms_status status = KMS_OK;

    if (!find(b, path, err)) {
        return KMS_E_NOT_FOUND;
    }
    status = kms_file_read(path, KMS_FILE_SECRET, KMS_ALI_PROFILE_FILE_MAX, &content, &len, err);
    if (status != KMS_OK) {
        return status;
    }
    (void)snprintf(section.profile.where, sizeof(section.profile.where), "profile: %.128s: [%.64s]",
                   path, name);
    if (strlen(content) != len) {
        status = kms_error_set(err, KMS_E_INVALID, "profile: %s holds a NUL", path);
    } else {
        status = read_section(path, content, name, &section, err);
    }
    if (status == KMS_OK) {
        status = use_section(b, wait, &section, slot, err);
    }
    kms_secure_free(content);
    return status;
}
