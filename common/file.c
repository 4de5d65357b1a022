/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/secure.h"

static const struct {
    int code;
    enum kms_status status;
} errno_rows[] = {
    {ENOENT, KMS_E_NOT_FOUND}, {ENOTDIR, KMS_E_NOT_FOUND},    {EACCES, KMS_E_DENIED},
    {EPERM, KMS_E_DENIED},     {EROFS, KMS_E_DENIED},         {EEXIST, KMS_E_EXISTS},
    {ELOOP, KMS_E_INVALID},    {ENAMETOOLONG, KMS_E_INVALID}, {ENXIO, KMS_E_INVALID},
    {EISDIR, KMS_E_INVALID},   {ENOMEM, KMS_E_NOMEM},
};

static enum kms_status error_of_errno(struct kms_error *err, const char *what, const char *path,
                                      int code)
{
    enum kms_status status = KMS_E_UNAVAILABLE;

    for (size_t i = 0; i < sizeof(errno_rows) / sizeof(errno_rows[0]); i++) {
        if (errno_rows[i].code == code) {
            status = errno_rows[i].status;
        }
    }
    return kms_error_set(err, status, "cannot %s %s: %s", what, path, strerror(code));
}

static bool group_is_trusted(gid_t group)
{
    /* group_member() knows the supplementary groups only */
    return group == 0 || group == getegid() || group_member(group) != 0;
}

static enum kms_status judge_mode(const char *path, enum kms_file_care care, const struct stat *st,
                                  struct kms_error *err)
{
    if (st->st_uid != 0 && st->st_uid != geteuid()) { /* who owns it can write it, or soon can */
        return kms_error_set(err, KMS_E_DENIED,
                             "%s is owned by uid %u: only root and uid %u may own it", path,
                             (unsigned)st->st_uid, (unsigned)geteuid());
    }
    if ((st->st_mode & S_IWOTH) != 0) {
        return kms_error_set(err, KMS_E_DENIED,
                             "%s can be written by everybody (mode %04o): run chmod o-w %s", path,
                             st->st_mode & 07777u, path);
    }
    if ((st->st_mode & S_IWGRP) != 0 && !group_is_trusted(st->st_gid)) {
        return kms_error_set(err, KMS_E_DENIED,
                             "%s can be written by group %u, which is neither root's nor ours: run "
                             "chmod g-w %s",
                             path, (unsigned)st->st_gid, path);
    }
    if (care == KMS_FILE_SECRET && (st->st_mode & S_IROTH) != 0) {
        return kms_error_set(err, KMS_E_DENIED,
                             "%s holds a secret and can be read by everybody (mode %04o): run "
                             "chmod 0640 %s",
                             path, st->st_mode & 07777u, path);
    }
    return KMS_OK;
}

static enum kms_status judge(int fd, const char *path, enum kms_file_care care, size_t max,
                             struct kms_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return error_of_errno(err, "look at", path, errno);
    }
    if (!S_ISREG(st.st_mode)) {
        return kms_error_set(err, KMS_E_INVALID, "%s is not a regular file", path);
    }
    if (st.st_size > 0 && (size_t)st.st_size > max) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "%s is larger than %zu bytes", path, max);
    }
    return judge_mode(path, care, &st, err);
}

/* Reads to the end; at most @size bytes. False with errno. */
static bool read_whole(int fd, char *content, size_t size, size_t *ret_len)
{
    size_t len = 0;
    ssize_t got = 1;

    while (len < size && got != 0) {
        got = read(fd, content + len, size - len);
        if (got < 0 && errno != EINTR) {
            return false;
        }
        len += got > 0 ? (size_t)got : 0;
    }
    *ret_len = len;
    return true;
}

static void free_content(enum kms_file_care care, char *content)
{
    if (care == KMS_FILE_SECRET) {
        kms_secure_free(content);
    } else {
        free(content);
    }
}

/* The storage is as large as allowed, not as large as the file said it was: it may have grown. */
static enum kms_status read_open_file(int fd, const char *path, enum kms_file_care care, size_t max,
                                      char **ret_content, size_t *ret_len, struct kms_error *err)
{
    size_t size = max + 1; /* one byte more, to see that there is more */
    char *content = care == KMS_FILE_SECRET ? kms_secure_new(size) : malloc(size);
    enum kms_status status;
    size_t len;

    if (content == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory to read %s", path);
    }
    if (!read_whole(fd, content, size, &len)) {
        status = error_of_errno(err, "read", path, errno);
        goto out;
    }
    if (len > max) {
        status = kms_error_set(err, KMS_E_TOO_LARGE, "%s is larger than %zu bytes", path, max);
        goto out;
    }
    content[len] = '\0';
    *ret_content = content;
    *ret_len = len;
    content = NULL;
    status = KMS_OK;
out:
    free_content(care, content);
    return status;
}

/* *ret_fd is the caller's to close. */
static enum kms_status open_judged(const char *path, enum kms_file_care care, size_t max,
                                   int *ret_fd, struct kms_error *err)
{
    enum kms_status status;
    /* Links are followed: Kubernetes mounts ConfigMaps and Secrets through them. O_NONBLOCK: a FIFO
     * without a writer must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        return error_of_errno(err, "open", path, errno);
    }
    status = judge(fd, path, care, max, err);
    if (status != KMS_OK) {
        (void)close(fd);
        return status;
    }
    *ret_fd = fd;
    return KMS_OK;
}

enum kms_status kms_file_read(const char *path, enum kms_file_care care, size_t max,
                              char **ret_content, size_t *ret_len, struct kms_error *err)
{
    int fd = -1;
    enum kms_status status = open_judged(path, care, max, &fd, err);

    if (status == KMS_OK) {
        status = read_open_file(fd, path, care, max, ret_content, ret_len, err);
        (void)close(fd);
    }
    return status;
}

enum kms_status kms_file_check(const char *path, enum kms_file_care care, struct kms_error *err)
{
    int fd = -1;
    enum kms_status status = open_judged(path, care, SIZE_MAX, &fd, err);

    if (status == KMS_OK) {
        (void)close(fd);
    }
    return status;
}

static bool write_whole(int fd, const char *content, size_t len)
{
    while (len > 0) {
        ssize_t done = write(fd, content, len);

        if (done < 0 && errno != EINTR) {
            return false;
        }
        if (done > 0) {
            content += done;
            len -= (size_t)done;
        }
    }
    return true;
}

/* fchmod(), not open()'s mode: the umask must not take bits away. False with errno. */
static bool fill_file(int fd, unsigned mode, const char *content, size_t len)
{
    return write_whole(fd, content, len) && fchmod(fd, (mode_t)mode) == 0 && fsync(fd) == 0;
}

/* Makes the new name durable. A file system that cannot sync a directory is no reason to fail. */
static void sync_parent(const char *path)
{
    char parent[PATH_MAX];
    char *slash;
    int fd;

    (void)snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (slash == NULL) {
        (void)snprintf(parent, sizeof(parent), ".");
    } else {
        slash[slash == parent ? 1 : 0] = '\0';
    }
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
}

/* link() fails when the new name is there: unlike rename() it never replaces. */
enum kms_status kms_file_create(const char *path, unsigned mode, const char *content, size_t len,
                                struct kms_error *err)
{
    char temp[PATH_MAX];
    enum kms_status status = KMS_OK;
    int length = snprintf(temp, sizeof(temp), "%s.XXXXXX", path);
    int fd;

    if (length < 0 || (size_t)length >= sizeof(temp)) {
        return error_of_errno(err, "create", path, ENAMETOOLONG);
    }
    if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        return error_of_errno(err, "create", path, EEXIST); /* said before anything is made */
    }
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        return error_of_errno(err, "create", path, errno);
    }
    if (!fill_file(fd, mode, content, len) || link(temp, path) != 0) {
        status = error_of_errno(err, "create", path, errno);
    }
    (void)unlink(temp);
    (void)close(fd);
    if (status == KMS_OK) {
        sync_parent(path);
    }
    return status;
}
