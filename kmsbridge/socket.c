/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "kmsbridge/notify.h"

#define BACKLOG  128
#define TEMP_MAX 40 /* name of a socket that is not ready yet */

struct kms_socket {
    char *path; /* NULL: abstract, or systemd's */
    int dir_fd;
    const char *base; /* in path */
    int lock_fd;
    int listen_fd;
    dev_t dev;
    ino_t inode;
};

/* --- binding --- */

static enum kms_status address_of(const char *name, size_t len, bool abstract,
                                  struct sockaddr_un *ret_addr, socklen_t *ret_len)
{
    memset(ret_addr, 0, sizeof *ret_addr);
    ret_addr->sun_family = AF_UNIX;
    if (len + 1 > sizeof ret_addr->sun_path) {
        return KMS_E_INVALID;
    }
    memcpy(ret_addr->sun_path + (abstract ? 1 : 0), name, len);
    /* one more: the NUL behind a path, or the one that marks an abstract name */
    *ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return KMS_OK;
}

static int stream_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static enum kms_status open_abstract(struct kms_socket *sock, const char *path,
                                     struct kms_error *err)
{
    struct sockaddr_un addr;
    socklen_t len;
    if (address_of(path + 1, strlen(path + 1), true, &addr, &len) != KMS_OK) {
        return kms_error_set(err, KMS_E_INVALID, "%s: abstract socket name is too long", path);
    }
    sock->listen_fd = stream_socket();
    if (sock->listen_fd < 0 || bind(sock->listen_fd, (const struct sockaddr *)&addr, len) != 0 ||
        listen(sock->listen_fd, BACKLOG) != 0) {
        return kms_error_set(err, errno == EADDRINUSE ? KMS_E_EXISTS : KMS_E_INTERNAL, "%s: %s",
                             path, strerror(errno));
    }
    return KMS_OK;
}

/* The directory that holds the socket; later steps go through its descriptor. */
static enum kms_status open_directory(struct kms_socket *sock, struct kms_error *err)
{
    char *slash = strrchr(sock->path, '/');
    sock->base = slash + 1;
    *slash = '\0';
    sock->dir_fd =
        open(sock->path[0] != '\0' ? sock->path : "/", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    int error = errno;
    *slash = '/';
    if (sock->dir_fd < 0) {
        return kms_error_set(err, error == ENOENT ? KMS_E_NOT_FOUND : KMS_E_DENIED,
                             "%s: the socket's directory cannot be opened: %s", sock->path,
                             strerror(error));
    }
    return KMS_OK;
}

/* Held as long as we serve; the file stays, so that two starters cannot lock two different files.
 */
static enum kms_status take_lock(struct kms_socket *sock, struct kms_error *err)
{
    char name[sizeof((struct sockaddr_un *)0)->sun_path + 8];
    snprintf(name, sizeof name, "%s.lock", sock->base);
    sock->lock_fd =
        openat(sock->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (sock->lock_fd < 0) {
        return kms_error_set(err, KMS_E_DENIED, "%s.lock: %s", sock->path, strerror(errno));
    }
    if (flock(sock->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return kms_error_set(err, errno == EWOULDBLOCK ? KMS_E_EXISTS : KMS_E_INTERNAL,
                             "%s: another kmsbridged serves this socket (%s.lock is held)",
                             sock->path, sock->path);
    }
    return KMS_OK;
}

/* KMS_OK: nothing there, or a socket that nobody listens on. */
static enum kms_status check_vacant(struct kms_socket *sock, struct kms_error *err)
{
    struct stat st;
    if (fstatat(sock->dir_fd, sock->base, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT
                   ? KMS_OK
                   : kms_error_set(err, KMS_E_DENIED, "%s: %s", sock->path, strerror(errno));
    }
    if (!S_ISSOCK(st.st_mode)) {
        return kms_error_set(err, KMS_E_EXISTS,
                             "%s: is there and is not a socket; it is left as it is", sock->path);
    }
    struct sockaddr_un addr;
    socklen_t len;
    int fd = stream_socket();
    bool dead = fd >= 0 &&
                address_of(sock->path, strlen(sock->path), false, &addr, &len) == KMS_OK &&
                connect(fd, (const struct sockaddr *)&addr, len) != 0 && errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return dead ? KMS_OK
                : kms_error_set(err, KMS_E_EXISTS, "%s: another program serves this socket",
                                sock->path);
}

/* After the lock file, which is this socket's own: process ids are not, since containers that share
 * the directory all count from 1. Short, whatever the socket's name is. */
static enum kms_status name_temp(struct kms_socket *sock, char ret_temp[TEMP_MAX],
                                 struct kms_error *err)
{
    struct stat st;
    if (fstat(sock->lock_fd, &st) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "%s.lock: %s", sock->path, strerror(errno));
    }
    snprintf(ret_temp, TEMP_MAX, ".kmsbridged.%ju", (uintmax_t)st.st_ino);
    return KMS_OK;
}

/* Of a starter that died: the lock is ours, so no living one uses the name. Whatever is no socket
 * is somebody else's. */
static enum kms_status clear_temp(struct kms_socket *sock, const char *temp, struct kms_error *err)
{
    struct stat st;
    if (fstatat(sock->dir_fd, temp, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return KMS_OK; /* what is wrong with the place, bind() says */
    }
    if (!S_ISSOCK(st.st_mode)) {
        return kms_error_set(err, KMS_E_EXISTS,
                             "%s: %s beside it is in the way and is not a socket; it is left as it "
                             "is",
                             sock->path, temp);
    }
    if (unlinkat(sock->dir_fd, temp, 0) != 0) {
        return kms_error_set(err, KMS_E_DENIED, "%s: cannot remove %s beside it: %s", sock->path,
                             temp, strerror(errno));
    }
    return KMS_OK;
}

/* Ready in every respect before it gets its name: nobody can connect to it half made. */
static enum kms_status bind_in_place(struct kms_socket *sock, const struct kms_socket_conf *conf,
                                     struct kms_error *err)
{
    struct sockaddr_un addr;
    char temp[TEMP_MAX];
    char full[sizeof addr.sun_path + sizeof temp];
    socklen_t len;
    struct stat st;
    enum kms_status status = name_temp(sock, temp, err);
    if (status == KMS_OK) {
        status = clear_temp(sock, temp, err);
    }
    if (status != KMS_OK) {
        return status;
    }
    int n = snprintf(full, sizeof full, "%.*s%s", (int)(sock->base - sock->path), sock->path, temp);
    if (n >= (int)sizeof addr.sun_path) { /* the directory by its descriptor is shorter */
        n = snprintf(full, sizeof full, "/proc/self/fd/%d/%s", sock->dir_fd, temp);
    }
    sock->listen_fd = stream_socket();
    if (sock->listen_fd < 0 || address_of(full, (size_t)n, false, &addr, &len) != KMS_OK ||
        bind(sock->listen_fd, (const struct sockaddr *)&addr, len) != 0) {
        return kms_error_set(err, errno == EACCES ? KMS_E_DENIED : KMS_E_INTERNAL,
                             "%s: cannot make a socket in its directory: %s", sock->path,
                             strerror(errno));
    }
    bool owned = conf->owner == (uid_t)-1 && conf->group == (gid_t)-1;
    if (fchmodat(sock->dir_fd, temp, conf->mode, 0) != 0 ||
        (!owned &&
         fchownat(sock->dir_fd, temp, conf->owner, conf->group, AT_SYMLINK_NOFOLLOW) != 0) ||
        listen(sock->listen_fd, BACKLOG) != 0 ||
        fstatat(sock->dir_fd, temp, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        renameat(sock->dir_fd, temp, sock->dir_fd, sock->base) != 0) {
        int error = errno;
        unlinkat(sock->dir_fd, temp, 0);
        return kms_error_set(err, error == EPERM ? KMS_E_DENIED : KMS_E_INTERNAL,
                             "%s: cannot give the socket its mode, owner and name: %s", sock->path,
                             strerror(error));
    }
    sock->dev = st.st_dev;
    sock->inode = st.st_ino;
    return KMS_OK;
}

static enum kms_status open_path(struct kms_socket *sock, const struct kms_socket_conf *conf,
                                 struct kms_error *err)
{
    if (strlen(conf->path) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        return kms_error_set(err, KMS_E_INVALID, "%s: socket path has over %zu bytes", conf->path,
                             sizeof((struct sockaddr_un *)0)->sun_path - 1);
    }
    sock->path = strdup(conf->path);
    if (sock->path == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "socket: out of memory");
    }
    enum kms_status status = open_directory(sock, err);
    if (status == KMS_OK) {
        status = take_lock(sock, err);
    }
    if (status == KMS_OK) {
        status = check_vacant(sock, err);
    }
    return status == KMS_OK ? bind_in_place(sock, conf, err) : status;
}

enum kms_status kms_socket_open(const struct kms_socket_conf *conf, struct kms_socket **ret_socket,
                                struct kms_error *err)
{
    struct kms_socket *sock = calloc(1, sizeof *sock);
    if (sock == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "socket: out of memory");
    }
    sock->dir_fd = sock->lock_fd = sock->listen_fd = -1;
    enum kms_status status = KMS_OK;
    int handed_over = kms_notify_listen_fd(conf->path);
    if (handed_over >= 0) {
        kms_log(KMS_LOG_INFO, "socket: %s was handed over by the service manager", conf->path);
        /* it comes blocking (systemd.service(5), NonBlocking=), and we accept until EAGAIN */
        int flags = fcntl(handed_over, F_GETFL);
        /* the manager's own stays: we may come back to it */
        sock->listen_fd = fcntl(handed_over, F_DUPFD_CLOEXEC, 3);
        if (sock->listen_fd < 0 || flags < 0 ||
            fcntl(sock->listen_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
            status =
                kms_error_set(err, KMS_E_INTERNAL, "%s: fcntl: %s", conf->path, strerror(errno));
        }
    } else if (conf->path[0] == '@') {
        status = open_abstract(sock, conf->path, err);
    } else {
        status = open_path(sock, conf, err);
    }
    if (status != KMS_OK) {
        kms_socket_close(sock);
        return status;
    }
    *ret_socket = sock;
    return KMS_OK;
}

int kms_socket_fd(const struct kms_socket *sock)
{
    return sock->listen_fd;
}

int kms_socket_dup(const struct kms_socket *sock)
{
    return fcntl(sock->listen_fd, F_DUPFD_CLOEXEC, 3);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* Whether the path is the socket that we made. */
static bool is_ours(const struct kms_socket *sock)
{
    struct stat st;
    return sock->inode != 0 && fstatat(sock->dir_fd, sock->base, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_dev == sock->dev && st.st_ino == sock->inode;
}

enum kms_status kms_socket_restrict(struct kms_socket *sock, const struct kms_socket_conf *conf,
                                    struct kms_error *err)
{
    if (!is_ours(sock)) {
        return KMS_OK;
    }
    /* the owner first: a mode that is made for him must not be another's meanwhile */
    if (fchownat(sock->dir_fd, sock->base, conf->owner, conf->group, AT_SYMLINK_NOFOLLOW) != 0 ||
        fchmodat(sock->dir_fd, sock->base, conf->mode, 0) != 0) {
        return kms_error_set(err, KMS_E_DENIED, "%s: cannot change the socket's mode and owner: %s",
                             sock->path, strerror(errno));
    }
    return KMS_OK;
}

void kms_socket_hide(struct kms_socket *sock)
{
    if (is_ours(sock)) {
        unlinkat(sock->dir_fd, sock->base, 0);
    }
    sock->inode = 0;
}

void kms_socket_close(struct kms_socket *sock)
{
    if (sock == NULL) {
        return;
    }
    kms_socket_hide(sock);
    close_fd(&sock->listen_fd);
    close_fd(&sock->lock_fd);
    close_fd(&sock->dir_fd);
    free(sock->path);
    free(sock);
}
