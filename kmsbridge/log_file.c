/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum kms_status kms_log_file_open(const char *path, int *ret_fd, struct kms_error *err)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    if (fd < 0) {
        return kms_error_set(err, errno == ENOENT ? KMS_E_NOT_FOUND : KMS_E_DENIED,
                             "log.file: %s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        kms_log_file_close(fd);
        return kms_error_set(err, KMS_E_INVALID, "log.file: %s is not a regular file", path);
    }
    *ret_fd = fd;
    return KMS_OK;
}

void kms_log_file_use(int fd)
{
    if (fd >= 0) {
        (void)dup2(fd, STDERR_FILENO);
        kms_log_file_close(fd);
    }
}

void kms_log_file_close(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}
