/* SPDX-License-Identifier: Apache-2.0 */
/* A profile file: INI sections, as the vendor's SDKs read ~/.alibabacloud/credentials.ini.
 *
 *   [default]                      [node]
 *   type = access_key              type = ecs_ram_role
 *   access_key_id = ...            role_name = ...
 *   access_key_secret = ...
 */
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/secure.h"

#define FILE_MAX          65536
#define STATIC_REFRESH_NS (60 * KMS_NS_PER_S)

/* What a section says; the texts lie in the file's content. */
struct profile {
    const char *type;
    const char *enable;
    const char *access_key_id;
    const char *access_key_secret;
    const char *security_token;
    const char *role_name;
};

static const char **field_of(struct profile *profile, const char *key)
{
    const struct {
        const char *key;
        const char **field;
    } fields[] = {
        {"type", &profile->type},
        {"enable", &profile->enable},
        {"access_key_id", &profile->access_key_id},
        {"access_key_secret", &profile->access_key_secret},
        {"security_token", &profile->security_token},
        {"role_name", &profile->role_name},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].key, key) == 0) {
            return fields[i].field;
        }
    }
    return NULL;
}

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

/* "[name]" of a line that is one; NULL otherwise. */
static const char *section_of(char *line)
{
    size_t len = strlen(line);

    if (line[0] != '[' || line[len - 1] != ']') {
        return NULL;
    }
    line[len - 1] = '\0';
    return trim(line + 1);
}

/* Takes @content apart where it stands. False: there is no such section, or a key twice in it. */
static bool read_section(char *content, const char *name, struct profile *ret)
{
    bool inside = false;
    bool found = false;
    char *rest = content;

    while (rest != NULL) {
        char *line = trim(strsep(&rest, "\n"));
        char *equals = NULL;
        const char *section = line[0] == '\0' ? NULL : section_of(line);

        if (section != NULL) {
            inside = strcmp(section, name) == 0;
            found = found || inside;
            continue;
        }
        equals = strchr(line, '=');
        if (!inside || line[0] == '#' || line[0] == ';' || equals == NULL) {
            continue;
        }
        *equals = '\0';
        const char **field = field_of(ret, trim(line));

        if (field != NULL && *field != NULL) {
            return false;
        }
        if (field != NULL) {
            *field = trim(equals + 1);
        }
    }
    return found;
}

static enum kms_status use_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                   const struct profile *profile, const char *name,
                                   struct kms_credential_slot *slot, struct kms_error *err)
{
    const struct kms_credential_offer offer = {
        .part = {profile->access_key_id, profile->access_key_secret, profile->security_token},
        .lifetime_ns = KMS_DEADLINE_NONE,
        .refresh_ns = STATIC_REFRESH_NS};

    if (profile->type == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "profile: [%s] has no type", name);
    }
    if (strcmp(profile->type, "ecs_ram_role") == 0) {
        return kms_ali_from_ecs(b, wait, profile->role_name, slot, err);
    }
    if (strcmp(profile->type, "access_key") != 0 && strcmp(profile->type, "sts") != 0) {
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "profile: [%s] is of type %.64s; there are access_key, sts and "
                             "ecs_ram_role",
                             name, profile->type);
    }
    if (profile->access_key_id == NULL || profile->access_key_id[0] == '\0' ||
        profile->access_key_secret == NULL || profile->access_key_secret[0] == '\0') {
        return kms_error_set(err, KMS_E_INVALID,
                             "profile: [%s] lacks access_key_id or access_key_secret", name);
    }
    return kms_credential_put(slot, &offer, err);
}

enum kms_status kms_ali_from_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                     struct kms_credential_slot *slot, struct kms_error *err)
{
    const char *path =
        kms_ali_setting(b->ali->profile_file, "ALIBABA_CLOUD_CREDENTIALS_FILE", NULL);
    const char *name = kms_ali_setting(b->ali->profile, "ALIBABA_CLOUD_PROFILE", "default");
    struct profile profile = {.type = NULL};
    char *content = NULL;
    size_t len = 0;
    enum kms_status status = KMS_OK;

    if (path == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND,
                             "profile: no file: ALIBABA_CLOUD_CREDENTIALS_FILE is not set");
    }
    status = kms_file_read(path, KMS_FILE_SECRET, FILE_MAX, &content, &len, err);
    if (status != KMS_OK) {
        return status;
    }
    if (strlen(content) != len) {
        status = kms_error_set(err, KMS_E_INVALID, "profile: %s holds a NUL", path);
    } else if (!read_section(content, name, &profile)) {
        status = kms_error_set(err, KMS_E_INVALID,
                               "profile: %s has no section [%s], or a key twice in it", path, name);
    } else {
        status = use_profile(b, wait, &profile, name, slot, err);
    }
    kms_secure_free(content);
    return status;
}
