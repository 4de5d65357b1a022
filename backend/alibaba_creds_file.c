/* SPDX-License-Identifier: Apache-2.0 */
/* What the two kinds of profile files have in common: where they are found, and what becomes of a
 * profile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/alibaba_parts.h"

/* ---- where -------------------------------------------------------------------------------- */

/* NULL: there is none. HOME alone, as the vendor's SDK for Go has it: a system's user may have no
 * other, and the user database is nothing to be asked at each refresh. */
static const char *home(void)
{
    const char *path = secure_getenv("HOME");

    return path != NULL && path[0] == '/' ? path : NULL;
}

/* Of other errors is told when it is read. */
static bool is_there(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR && errno != EACCES);
}

bool kms_ali_find_file(const char *source, const char *configured, const char *variable,
                       const char *const *places, char ret_path[PATH_MAX], struct kms_error *why)
{
    const char *named = kms_ali_setting(configured, variable, NULL);
    const char *base = home();

    if (named != NULL) {
        (void)snprintf(ret_path, PATH_MAX, "%s", named);
        return true;
    }
    if (base == NULL) {
        (void)kms_error_set(why, KMS_E_NOT_FOUND,
                            "%s: no file: %s is not set, and HOME is no absolute path", source,
                            variable);
        return false;
    }
    for (size_t i = 0; places[i] != NULL; i++) {
        int len = snprintf(ret_path, PATH_MAX, "%s/%s", base, places[i]);

        if (len > 0 && len < PATH_MAX && is_there(ret_path)) {
            return true;
        }
    }
    (void)kms_error_set(why, KMS_E_NOT_FOUND, "%s: there is no %s/%s", source, base, places[0]);
    return false;
}

/* ---- what becomes of a profile ------------------------------------------------------------ */

/* By its key, with its token, or without one. */
static enum kms_status use_key(const struct kms_ali_profile *profile,
                               struct kms_credential_slot *slot, struct kms_error *err)
{
    const char *id = kms_ali_setting(profile->key_id, NULL, NULL);
    const char *secret = kms_ali_setting(profile->secret, NULL, NULL);
    const char *token = kms_ali_setting(profile->token, NULL, NULL);

    if (id == NULL || secret == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "it lacks access_key_id or access_key_secret");
    }
    if (profile->way == KMS_ALI_BY_TOKEN && token == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "it lacks the token that its key needs");
    }
    return kms_ali_offer_static(id, secret, token, slot, err);
}

static enum kms_status use_oidc(struct kms_backend *b, const struct kms_http_wait *wait,
                                const struct kms_ali_profile *profile,
                                struct kms_credential_slot *slot, struct kms_error *err)
{
    const char *file = kms_ali_setting(profile->oidc.token_file, NULL, "/");

    if (file[0] != '/') {
        return kms_error_set(err, KMS_E_INVALID, "its token file is no absolute path");
    }
    return kms_ali_from_rrsa(b, wait, &profile->oidc, slot, err);
}

static enum kms_status use(struct kms_backend *b, const struct kms_http_wait *wait,
                           const struct kms_ali_profile *profile, struct kms_credential_slot *slot,
                           struct kms_error *err)
{
    const char *region = kms_ali_setting(profile->oidc.sts_region, NULL, NULL);

    if ((profile->way == KMS_ALI_BY_OIDC || profile->way == KMS_ALI_BY_ROLE) && region != NULL &&
        !kms_alibaba_is_region(region)) {
        return kms_error_set(err, KMS_E_INVALID, "its sts_region is no region's id");
    }
    switch (profile->way) {
    case KMS_ALI_BY_ECS:
        return kms_ali_from_ecs(b, wait, profile->ecs_role, slot, err);
    case KMS_ALI_BY_OIDC:
        return use_oidc(b, wait, profile, slot, err);
    case KMS_ALI_BY_URI:
        return kms_ali_from_uri(b, wait, profile->uri, slot, err);
    case KMS_ALI_BY_ROLE:
        return kms_ali_from_role(b, wait, profile, slot, err);
    case KMS_ALI_BY_KEY:
    case KMS_ALI_BY_TOKEN:
        break;
    }
    return use_key(profile, slot, err);
}

enum kms_status kms_ali_use_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                    const struct kms_ali_profile *profile,
                                    struct kms_credential_slot *slot, struct kms_error *err)
{
    enum kms_status status = use(b, wait, profile, slot, err);

    return status == KMS_OK ? KMS_OK
                            : kms_error_reword(err, status, "%s: %s", profile->where, err->text);
}
