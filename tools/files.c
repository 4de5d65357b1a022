/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"

/* Until the end, or until there is one byte too many. */
static enum kms_status read_all(int fd, const char *name, struct kms_buf *out,
                                struct kms_error *err)
{
    for (;;) {
        uint8_t extra;
        bool full = kms_buf_room(out) == 0;
        ssize_t got = read(fd, full ? &extra : out->data + out->len, full ? 1 : kms_buf_room(out));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot read %s: %s", name,
                                 strerror(errno));
        }
        if (got == 0) {
            return KMS_OK;
        }
        if (full) {
            return kms_error_set(err, KMS_E_TOO_LARGE, "%s is larger than %zu bytes", name,
                                 out->cap);
        }
        out->len += (size_t)got;
    }
}

enum kms_status kms_read_input(const char *path, struct kms_buf *ret_bytes, struct kms_error *err)
{
    enum kms_status status;
    int fd;

    if (path == NULL) {
        return read_all(STDIN_FILENO, "standard input", ret_bytes, err);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return kms_error_set(err, errno == ENOENT ? KMS_E_NOT_FOUND : KMS_E_UNAVAILABLE,
                             "cannot open %s: %s", path, strerror(errno));
    }
    status = read_all(fd, path, ret_bytes, err);
    close(fd);
    return status;
}

enum kms_status kms_write_fd(int fd, struct kms_span bytes, struct kms_error *err)
{
    while (bytes.len > 0) {
        ssize_t done = write(fd, bytes.data, bytes.len);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot write the output: %s",
                                 strerror(errno));
        }
        bytes = kms_span_of(bytes.data + done, bytes.len - (size_t)done);
    }
    return KMS_OK;
}

enum kms_status kms_write_output(const char *path, struct kms_span bytes, struct kms_error *err)
{
    if (path == NULL) {
        return kms_write_fd(STDOUT_FILENO, bytes, err);
    }
    return kms_file_create(path, 0600, (const char *)bytes.data, bytes.len, err);
}
