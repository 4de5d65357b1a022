/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend_conf_schema.h"
#include "backend/registry.h"
#include "common/numbers.h"
#include "common/yaml.h"
#include "kmsbridge/conf_parts.h"

#define SHOWN_TYPE_MAX 80 /* bytes of a wrong type that an error text repeats */

/* --- backends --------------------------------------------------------------------------------- */

/* Backends' names are metric labels and words of the log. */
static bool is_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= KMS_CONF_NAME_MAX && text[len] == '\0';
}

static enum kms_status check_backend_name(const struct kms_reading *reading, size_t index,
                                          const char *entry)
{
    const struct kms_backend_conf *backends = reading->raw->backends;
    const char *name = backends[index].name;
    char path[KMS_YAML_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s.name", entry);
    if (!is_name(name)) {
        return kms_conf_fail_value(reading, path, name,
                                   "is not a name: 1 to 64 letters, digits, '.', '_' and '-'");
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(backends[i].name, name) == 0) {
            return kms_conf_fail_value(reading, path, name, "is the name of another entry already");
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

static enum kms_status check_backend_type(const struct kms_reading *reading, const char *entry,
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
                          "\"%.*s\" is not a type of backend; there are: %s", SHOWN_TYPE_MAX, type,
                          types);
}

static enum kms_status read_backend(const struct kms_reading *reading, size_t index)
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

enum kms_status kms_conf_read_backends(const struct kms_reading *reading)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < reading->raw->backends_count; i++) {
        status = read_backend(reading, i);
    }
    reading->conf->backends = reading->raw->backends;
    reading->conf->backend_count = reading->raw->backends_count;
    return status;
}

/* --- allow-lists ------------------------------------------------------------------------------ */

/* One entry of allow_uids or allow_gids. */
static enum kms_status read_id(const struct kms_reading *reading, const char *list, size_t index,
                               const char *text, bool is_user, id_t *ret_id)
{
    enum kms_status status = is_user ? kms_parse_user(text, ret_id) : kms_parse_group(text, ret_id);
    char path[KMS_YAML_PATH_MAX];

    if (status == KMS_OK) {
        return KMS_OK;
    }
    if (status == KMS_E_NOMEM) {
        return kms_conf_fail_memory(reading);
    }
    (void)snprintf(path, sizeof(path), "kms.%s[%zu]", list, index);
    return kms_conf_fail_value(reading, path, text,
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

enum kms_status kms_conf_read_uids(const struct kms_reading *reading)
{
    const struct kms_raw_kms *raw = reading->raw->kms;
    struct kms_kms_conf *kms = &reading->conf->kms;
    enum kms_status status = KMS_OK;

    if (kms->socket == NULL) {
        return KMS_OK;
    }
    kms->allow_uids = calloc((size_t)raw->allow_uids_count + 2, sizeof(kms->allow_uids[0]));
    if (kms->allow_uids == NULL) {
        return kms_conf_fail_memory(reading);
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

enum kms_status kms_conf_read_gids(const struct kms_reading *reading)
{
    const struct kms_raw_kms *raw = reading->raw->kms;
    struct kms_kms_conf *kms = &reading->conf->kms;
    enum kms_status status = KMS_OK;

    if (kms->socket == NULL) {
        return KMS_OK;
    }
    kms->allow_gids = calloc((size_t)raw->allow_gids_count + 1, sizeof(kms->allow_gids[0]));
    if (kms->allow_gids == NULL) {
        return kms_conf_fail_memory(reading);
    }
    for (size_t i = 0; status == KMS_OK && i < raw->allow_gids_count; i++) {
        status = read_id(reading, "allow_gids", i, raw->allow_gids[i], false,
                         &kms->allow_gids[kms->allow_gid_count++]);
    }
    return status;
}
