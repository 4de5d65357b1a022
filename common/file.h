/* SPDX-License-Identifier: Apache-2.0 */
/* Files whose content we act upon: opened once, judged by fstat of what was opened, read with a
 * ceiling. */
#ifndef KMS_COMMON_FILE_H
#define KMS_COMMON_FILE_H

#include <stddef.h>

#include "common/status.h"

enum kms_file_care {
    KMS_FILE_CONFIG, /* refused when neither root nor our effective user owns it, when others may
                        write it, or its group may and its group is not root's or ours */
    KMS_FILE_SECRET, /* as above, and refused when others may read it */
};

/*
 * Reads the regular file @path whole. The content lies in secure memory for KMS_FILE_SECRET (free
 * with kms_secure_free()), on the heap otherwise (free()); a NUL follows it that @ret_len does not
 * count. Errors name the path: KMS_E_NOT_FOUND, KMS_E_DENIED, KMS_E_TOO_LARGE (over @max),
 * KMS_E_INVALID.
 */
enum kms_status kms_file_read(const char *path, enum kms_file_care care, size_t max,
                              char **ret_content, size_t *ret_len,
                              struct kms_error *err) KMS_MUST_CHECK;

/* Whether it could be read so, by its rights alone: for what a library reads by itself. */
enum kms_status kms_file_check(const char *path, enum kms_file_care care,
                               struct kms_error *err) KMS_MUST_CHECK;

/*
 * Creates @path with @mode and @content, whole or not at all (temporary file, fsync, link);
 * KMS_E_EXISTS when it is there already: nothing is ever overwritten.
 */
enum kms_status kms_file_create(const char *path, unsigned mode, const char *content, size_t len,
                                struct kms_error *err) KMS_MUST_CHECK;

#endif
