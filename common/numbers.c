/* SPDX-License-Identifier: Apache-2.0 */
#include "common/numbers.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define NAME_MAX_LEN   255   /* of a user or group: LOGIN_NAME_MAX of Linux, less the NUL */
#define NSS_BUFFER_MIN 1024u /* for one entry of the user data base ... */
#define NSS_BUFFER_MAX (1024u * 1024u) /* ... a group with many members needs much */

/* Digits in @base from *@text on, which is moved past them; false for none, or too large a number.
 */
static bool take_digits(const char **text, unsigned base, uint64_t *ret_value)
{
    const char *p = *text;
    uint64_t value = 0;

    for (; *p >= '0' && *p < (char)('0' + base); p++) {
        uint64_t digit = (uint64_t)(*p - '0');

        if (value > (UINT64_MAX - digit) / base) {
            return false;
        }
        value = value * base + digit;
    }
    if (p == *text) {
        return false;
    }
    *text = p;
    *ret_value = value;
    return true;
}

enum kms_status kms_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;

    if (!take_digits(&text, 10, &value) || *text != '\0' || value < min || value > max) {
        return KMS_E_INVALID;
    }
    *ret_value = value;
    return KMS_OK;
}

static const struct unit {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ms", KMS_NS_PER_MS},
    {"s", KMS_NS_PER_S},
    {"m", 60 * KMS_NS_PER_S},
    {"h", 60 * 60 * KMS_NS_PER_S},
    {"d", 24 * 60 * 60 * KMS_NS_PER_S},
};

enum kms_status kms_parse_duration(const char *text, uint64_t *ret_ns)
{
    uint64_t value;

    if (!take_digits(&text, 10, &value)) {
        return KMS_E_INVALID;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(text, units[i].name) == 0 && value <= UINT64_MAX / units[i].ns) {
            *ret_ns = value * units[i].ns;
            return KMS_OK;
        }
    }
    return KMS_E_INVALID;
}

enum kms_status kms_parse_mode(const char *text, mode_t *ret_mode)
{
    uint64_t value;

    if (!take_digits(&text, 8, &value) || *text != '\0' || value > 0777) {
        return KMS_E_INVALID;
    }
    *ret_mode = (mode_t)value;
    return KMS_OK;
}

/* One lookup into @buffer: an errno, and *ret_id only when *ret_found. */
typedef int (*find_id)(const char *name, char *buffer, size_t size, bool *ret_found, id_t *ret_id);

static int find_user(const char *name, char *buffer, size_t size, bool *ret_found, id_t *ret_id)
{
    struct passwd entry;
    struct passwd *found = NULL;
    int rc = getpwnam_r(name, &entry, buffer, size, &found);

    *ret_found = found != NULL;
    if (found != NULL) {
        *ret_id = found->pw_uid;
    }
    return rc;
}

static int find_group(const char *name, char *buffer, size_t size, bool *ret_found, id_t *ret_id)
{
    struct group entry;
    struct group *found = NULL;
    int rc = getgrnam_r(name, &entry, buffer, size, &found);

    *ret_found = found != NULL;
    if (found != NULL) {
        *ret_id = found->gr_gid;
    }
    return rc;
}

static enum kms_status look_up(find_id find, const char *name, id_t *ret_id)
{
    for (size_t size = NSS_BUFFER_MIN; size <= NSS_BUFFER_MAX; size *= 2) {
        char *buffer = malloc(size);
        bool found = false;
        int rc;

        if (buffer == NULL) {
            return KMS_E_NOMEM;
        }
        rc = find(name, buffer, size, &found, ret_id);
        free(buffer);
        if (found) {
            return KMS_OK;
        }
        if (rc != ERANGE) {
            return rc == ENOMEM ? KMS_E_NOMEM : KMS_E_NOT_FOUND;
        }
    }
    return KMS_E_NOMEM;
}

/* The highest id is (id_t)-1, which system calls read as "leave": never a user or group. */
static enum kms_status parse_id(find_id find, const char *text, id_t *ret_id)
{
    size_t len = strlen(text);
    uint64_t value;

    if (len == 0 || len > NAME_MAX_LEN) {
        return KMS_E_INVALID;
    }
    if (text[0] < '0' || text[0] > '9') {
        return look_up(find, text, ret_id);
    }
    if (kms_parse_u64(text, 0, UINT32_MAX - 1, &value) != KMS_OK) {
        return KMS_E_INVALID;
    }
    *ret_id = (id_t)value;
    return KMS_OK;
}

enum kms_status kms_parse_user(const char *text, uid_t *ret_uid)
{
    return parse_id(find_user, text, ret_uid);
}

enum kms_status kms_parse_group(const char *text, gid_t *ret_gid)
{
    return parse_id(find_group, text, ret_gid);
}
