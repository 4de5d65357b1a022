/* SPDX-License-Identifier: Apache-2.0 */
/* Where verbs read from and write to: a file or a standard stream, into secure memory. */
#ifndef KMS_TOOLS_FILES_H
#define KMS_TOOLS_FILES_H

#include "common/span.h"
#include "common/status.h"

/*
 * Reads @path, or standard input when it is NULL, to its end into @ret_bytes, which is the caller's
 * secure memory. KMS_E_TOO_LARGE when there is more than it holds.
 */
enum kms_status kms_read_input(const char *path, struct kms_buf *ret_bytes,
                               struct kms_error *err) KMS_MUST_CHECK;

/* Writes all of @bytes to @fd. */
enum kms_status kms_write_fd(int fd, struct kms_span bytes, struct kms_error *err) KMS_MUST_CHECK;

/* Makes @path with mode 0600 and the bytes, KMS_E_EXISTS when it is there; NULL: standard output.
 */
enum kms_status kms_write_output(const char *path, struct kms_span bytes,
                                 struct kms_error *err) KMS_MUST_CHECK;

#endif
