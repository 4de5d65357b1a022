/* SPDX-License-Identifier: Apache-2.0 */
#include "common/secret.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/secure.h"

struct kms_secret {
    size_t len;
    uint8_t bytes[];
};

/* What stands behind a prefix: is it well formed, and what does it name. */
struct source {
    const char *prefix;
    const char *form; /* for error texts */
    bool (*is_valid)(const char *rest);
    enum kms_status (*load)(const char *ref, const char *rest, struct kms_secret **ret_secret,
                            struct kms_error *err);
};

static enum kms_status make_secret(const char *ref, const char *bytes, size_t len,
                                   struct kms_secret **ret_secret, struct kms_error *err)
{
    struct kms_secret *secret;

    if (len == 0) {
        return kms_error_set(err, KMS_E_INVALID, "the secret %s is empty", ref);
    }
    if (len > KMS_SECRET_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "the secret %s is longer than %d bytes", ref,
                             KMS_SECRET_MAX);
    }
    secret = kms_secure_new(sizeof(*secret) + len);
    if (secret == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no secure memory for the secret %s", ref);
    }
    secret->len = len;
    memcpy(secret->bytes, bytes, len);
    *ret_secret = secret;
    return KMS_OK;
}

static enum kms_status load_path(const char *ref, const char *path, struct kms_secret **ret_secret,
                                 struct kms_error *err)
{
    enum kms_status status;
    char *content = NULL;
    size_t len = 0;

    /* two bytes more than a secret: the newline that editors add, as LF or as CR LF */
    status = kms_file_read(path, KMS_FILE_SECRET, KMS_SECRET_MAX + 2, &content, &len, err);
    if (status != KMS_OK) {
        return status;
    }
    if (len > 0 && content[len - 1] == '\n') {
        len -= len > 1 && content[len - 2] == '\r' ? 2 : 1;
    }
    status = make_secret(ref, content, len, ret_secret, err);
    kms_secure_free(content);
    return status;
}

static bool file_is_valid(const char *rest)
{
    return rest[0] == '/' && rest[1] != '\0';
}

static enum kms_status file_load(const char *ref, const char *rest, struct kms_secret **ret_secret,
                                 struct kms_error *err)
{
    return load_path(ref, rest, ret_secret, err);
}

static bool is_name_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool env_is_valid(const char *rest)
{
    if (rest[0] == '\0' || (rest[0] >= '0' && rest[0] <= '9')) {
        return false;
    }
    while (is_name_char(*rest)) {
        rest++;
    }
    return *rest == '\0';
}

static enum kms_status env_load(const char *ref, const char *rest, struct kms_secret **ret_secret,
                                struct kms_error *err)
{
    const char *value = secure_getenv(rest);

    if (value == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND,
                             "the secret %s: there is no such environment variable", ref);
    }
    return make_secret(ref, value, strlen(value), ret_secret, err);
}

/* systemd.exec(5), LoadCredential=: an ID is a file name. */
static bool credential_is_valid(const char *rest)
{
    return rest[0] != '\0' && strlen(rest) <= NAME_MAX && strchr(rest, '/') == NULL &&
           strcmp(rest, ".") != 0 && strcmp(rest, "..") != 0;
}

static enum kms_status credential_load(const char *ref, const char *rest,
                                       struct kms_secret **ret_secret, struct kms_error *err)
{
    const char *directory = secure_getenv("CREDENTIALS_DIRECTORY");
    char path[PATH_MAX];
    int length;

    if (directory == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND,
                             "the secret %s: $CREDENTIALS_DIRECTORY is not set; does the unit have "
                             "LoadCredential=?",
                             ref);
    }
    length = snprintf(path, sizeof(path), "%s/%s", directory, rest);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return kms_error_set(err, KMS_E_INVALID, "the secret %s: the path is too long", ref);
    }
    return load_path(ref, path, ret_secret, err);
}

static const struct source sources[] = {
    {"file:", "file:/absolute/path", file_is_valid, file_load},
    {"env:", "env:NAME", env_is_valid, env_load},
    {"credential:", "credential:NAME", credential_is_valid, credential_load},
};

static const struct source *find_source(const char *ref)
{
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        if (strncmp(ref, sources[i].prefix, strlen(sources[i].prefix)) == 0) {
            return &sources[i];
        }
    }
    return NULL;
}

/* No text repeats @ref: who writes "file:1234" or "1234" may have written the PIN itself. */
enum kms_status kms_secret_check_ref(const char *ref, struct kms_error *err)
{
    const struct source *source = find_source(ref);

    if (source == NULL) {
        return kms_error_set(err, KMS_E_INVALID,
                             "a secret is never written here, only where it is: "
                             "file:/absolute/path, env:NAME or credential:NAME");
    }
    if (!source->is_valid(ref + strlen(source->prefix))) {
        return kms_error_set(err, KMS_E_INVALID, "this reference to a secret must look like %s",
                             source->form);
    }
    return KMS_OK;
}

enum kms_status kms_secret_load(const char *ref, struct kms_secret **ret_secret,
                                struct kms_error *err)
{
    const struct source *source = find_source(ref);
    enum kms_status status = kms_secret_check_ref(ref, err);

    if (status != KMS_OK) {
        return status;
    }
    return source->load(ref, ref + strlen(source->prefix), ret_secret, err);
}

void kms_secret_free(struct kms_secret *secret)
{
    kms_secure_free(secret);
}

struct kms_span kms_secret_span(const struct kms_secret *secret)
{
    return kms_span_of(secret->bytes, secret->len);
}
