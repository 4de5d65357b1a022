/* SPDX-License-Identifier: Apache-2.0 */
/* `log.file`: standard error becomes the file, so that whatever a library prints gets there too. */
#ifndef KMSBRIDGE_LOG_FILE_H
#define KMSBRIDGE_LOG_FILE_H

#include "common/status.h"

/* Appends to @path, mode 0600 when it is made. KMS_E_NOT_FOUND, KMS_E_DENIED, KMS_E_INVALID (no
 * regular file). */
enum kms_status kms_log_file_open(const char *path, int *ret_fd,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* Takes @fd; -1: standard error stays. A line in flight goes to one of the two. */
void kms_log_file_use(int fd);
void kms_log_file_close(int fd); /* -1 is fine */

#endif
