/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/notify.h"

#define BACKLOG    128
#define GROUPS_MAX 256 /* supplementary groups of a peer that we look at */
#define PAUSE_MS   50  /* after a failed accept, as when out of descriptors */
#define FDS_APART  160 /* ours, gRPC's, the monitor's, the PKCS#11 module's */
#define TEMP_MAX   40  /* name of a socket that is not ready yet */
/* Refused peers: so many log lines each time, and no two in a row about the same user. */
#define COMPLAINTS_NS  (5 * KMS_NS_PER_S)
#define COMPLAINTS_MAX 8

/* A descriptor that gRPC owns: as long as its number still means this socket, the connection is
 * open. */
struct connection {
    int fd;
    ino_t inode;
};

struct kms_socket {
    char *path; /* NULL: abstract, or systemd's */
    int dir_fd;
    const char *base; /* in path */
    int lock_fd;
    int listen_fd;
    dev_t dev;
    ino_t inode;

    pthread_t thread;
    bool running;
    int wake_fd;
    struct kms_metrics *metrics;
    kms_socket_serve serve;
    void *ctx;
    uint64_t complained_ns; /* accepting thread only */
    uid_t complained_uid;
    unsigned complaints; /* since complained_ns */

    pthread_mutex_t mutex; /* guards the members below */
    uid_t *uids;
    size_t uid_count;
    gid_t *gids;
    size_t gid_count;
    unsigned max_connections;
    struct connection *connections;
    unsigned connection_count;
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
    sock->dir_fd = sock->lock_fd = sock->listen_fd = sock->wake_fd = -1;
    pthread_mutex_init(&sock->mutex, NULL);
    enum kms_status status = KMS_OK;
    sock->listen_fd = kms_notify_listen_fd(conf->path);
    if (sock->listen_fd >= 0) {
        kms_log(KMS_LOG_INFO, "socket: %s was handed over by the service manager", conf->path);
        /* it comes blocking (systemd.service(5), NonBlocking=), and we accept until EAGAIN */
        int flags = fcntl(sock->listen_fd, F_GETFL);
        if (flags < 0 || fcntl(sock->listen_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
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

void kms_socket_close(struct kms_socket *sock)
{
    if (sock == NULL) {
        return;
    }
    kms_socket_stop(sock);
    struct stat st;
    if (sock->inode != 0 && fstatat(sock->dir_fd, sock->base, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_dev == sock->dev && st.st_ino == sock->inode) {
        unlinkat(sock->dir_fd, sock->base, 0);
    }
    close_fd(&sock->listen_fd);
    close_fd(&sock->lock_fd);
    close_fd(&sock->dir_fd);
    free(sock->path);
    free(sock->uids);
    free(sock->gids);
    free(sock->connections);
    pthread_mutex_destroy(&sock->mutex);
    free(sock);
}

/* --- accepting --- */

static bool gid_allowed_locked(const struct kms_socket *sock, gid_t gid)
{
    for (size_t i = 0; i < sock->gid_count; i++) {
        if (sock->gids[i] == gid) {
            return true;
        }
    }
    return false;
}

static bool groups_allowed_locked(const struct kms_socket *sock, int fd)
{
    gid_t groups[GROUPS_MAX];
    socklen_t len = sizeof groups;
    if (sock->gid_count == 0 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < len / sizeof groups[0]; i++) {
        if (gid_allowed_locked(sock, groups[i])) {
            return true;
        }
    }
    return false;
}

static bool peer_allowed_locked(const struct kms_socket *sock, int fd, struct ucred *ret_peer)
{
    socklen_t len = sizeof *ret_peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer, &len) != 0) {
        *ret_peer = (struct ucred){.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
        return false;
    }
    for (size_t i = 0; i < sock->uid_count; i++) {
        if (sock->uids[i] == ret_peer->uid) {
            return true;
        }
    }
    return gid_allowed_locked(sock, ret_peer->gid) || groups_allowed_locked(sock, fd);
}

static bool still_open(const struct connection *connection)
{
    struct stat st;
    return fstat(connection->fd, &st) == 0 && S_ISSOCK(st.st_mode) &&
           st.st_ino == connection->inode;
}

static void connections_sweep_locked(struct kms_socket *sock)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < sock->connection_count; i++) {
        if (still_open(&sock->connections[i])) {
            sock->connections[kept++] = sock->connections[i];
        }
    }
    sock->connection_count = kept;
}

/* Remembers @fd; false over the bound. */
static bool connection_add_locked(struct kms_socket *sock, int fd)
{
    struct stat st;
    if (sock->connection_count >= sock->max_connections) {
        connections_sweep_locked(sock);
    }
    if (sock->connection_count >= sock->max_connections || fstat(fd, &st) != 0) {
        return false;
    }
    sock->connections[sock->connection_count++] = (struct connection){.fd = fd, .inode = st.st_ino};
    return true;
}

static bool may_complain(struct kms_socket *sock, uid_t uid)
{
    uint64_t now = kms_now_ns();
    if (sock->complaints == 0 || now - sock->complained_ns >= COMPLAINTS_NS) {
        sock->complained_ns = now;
        sock->complaints = 0;
    } else if (sock->complained_uid == uid || sock->complaints == COMPLAINTS_MAX) {
        return false;
    }
    sock->complained_uid = uid;
    sock->complaints++;
    return true;
}

static void take_connection(struct kms_socket *sock, int fd)
{
    struct ucred peer;
    pthread_mutex_lock(&sock->mutex);
    bool allowed = peer_allowed_locked(sock, fd, &peer);
    bool room = allowed && connection_add_locked(sock, fd);
    pthread_mutex_unlock(&sock->mutex);
    if (room) {
        atomic_fetch_add(&sock->metrics->connections_accepted, 1);
        sock->serve(sock->ctx, fd);
        return;
    }
    atomic_fetch_add(allowed ? &sock->metrics->connections_refused_limit
                             : &sock->metrics->connections_refused_peer,
                     1);
    close(fd);
    if (may_complain(sock, peer.uid)) {
        kms_log(KMS_LOG_WARN, "socket: connection of uid %ld gid %ld pid %ld refused: %s",
                (long)peer.uid, (long)peer.gid, (long)peer.pid,
                allowed ? "kms.max_connections is reached"
                        : "not in kms.allow_uids or kms.allow_gids");
    }
}

/* Until nothing waits; false after an error that time may heal. */
static bool accept_all(struct kms_socket *sock)
{
    for (;;) {
        int fd = accept4(sock->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_connection(sock, fd);
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            atomic_fetch_add(&sock->metrics->accept_errors, 1);
            if (may_complain(sock, (uid_t)-1)) {
                kms_log(KMS_LOG_WARN, "socket: cannot accept a connection: %s", strerror(errno));
            }
            return false;
        }
    }
}

static void *accept_main(void *arg)
{
    struct kms_socket *sock = arg;
    struct pollfd fds[2] = {{.fd = sock->wake_fd, .events = POLLIN},
                            {.fd = sock->listen_fd, .events = POLLIN}};
    for (;;) {
        int ready = poll(fds, 2, -1);
        if (ready < 0 && errno != EINTR) {
            kms_log(KMS_LOG_ERROR, "socket: poll: %s", strerror(errno));
        }
        if (fds[0].revents != 0) {
            return NULL;
        }
        if (ready > 0 && fds[1].revents != 0 && !accept_all(sock)) {
            /* what waits stays in the backlog; look again when descriptors may be free */
            struct pollfd stop = {.fd = sock->wake_fd, .events = POLLIN};
            if (poll(&stop, 1, PAUSE_MS) > 0) {
                return NULL;
            }
        }
    }
}

/*
 * Clients must not use up the descriptors: a PKCS#11 module that cannot open its files may take its
 * keys for deleted, and never look again (SoftHSM 2.6 does). So the limit is raised as far as it
 * may be, and if that does not do, fewer connections are allowed.
 */
static unsigned connections_bound(unsigned max_connections)
{
    struct rlimit files;
    rlim_t want = (rlim_t)max_connections + FDS_APART;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= want) {
        return max_connections;
    }
    files.rlim_cur = files.rlim_max < want ? files.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur == want) {
        return max_connections;
    }
    rlim_t fit = files.rlim_cur > 2 * FDS_APART ? files.rlim_cur - FDS_APART : files.rlim_cur / 4;
    kms_log(KMS_LOG_WARN,
            "socket: kms.max_connections is taken for %lu: the limit of descriptors is %lu",
            (unsigned long)fit, (unsigned long)files.rlim_cur);
    return (unsigned)fit;
}

enum kms_status kms_socket_configure(struct kms_socket *sock, const struct kms_peers *peers,
                                     unsigned max_connections)
{
    uid_t *uids = calloc(peers->uid_count + 1, sizeof *uids);
    gid_t *gids = calloc(peers->gid_count + 1, sizeof *gids);
    if (uids == NULL || gids == NULL) {
        goto nomem;
    }
    for (size_t i = 0; i < peers->uid_count; i++) {
        uids[i] = peers->uids[i];
    }
    for (size_t i = 0; i < peers->gid_count; i++) {
        gids[i] = peers->gids[i];
    }
    max_connections = connections_bound(max_connections);
    pthread_mutex_lock(&sock->mutex);
    unsigned room =
        max_connections > sock->connection_count ? max_connections : sock->connection_count;
    struct connection *connections = reallocarray(sock->connections, room, sizeof *connections);
    if (connections == NULL) {
        pthread_mutex_unlock(&sock->mutex);
        goto nomem;
    }
    free(sock->uids);
    free(sock->gids);
    sock->uids = uids;
    sock->uid_count = peers->uid_count;
    sock->gids = gids;
    sock->gid_count = peers->gid_count;
    sock->connections = connections;
    sock->max_connections = max_connections;
    pthread_mutex_unlock(&sock->mutex);
    return KMS_OK;
nomem:
    free(uids);
    free(gids);
    return KMS_E_NOMEM;
}

enum kms_status kms_socket_accept(struct kms_socket *sock, const struct kms_peers *peers,
                                  unsigned max_connections, struct kms_metrics *metrics,
                                  kms_socket_serve serve, void *ctx, struct kms_error *err)
{
    enum kms_status status = kms_socket_configure(sock, peers, max_connections);
    if (status != KMS_OK) {
        return kms_error_set(err, status, "socket: out of memory");
    }
    sock->metrics = metrics;
    sock->serve = serve;
    sock->ctx = ctx;
    sock->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (sock->wake_fd < 0 || pthread_create(&sock->thread, NULL, accept_main, sock) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "socket: cannot start the accepting thread: %s",
                             strerror(errno));
    }
    sock->running = true;
    return KMS_OK;
}

void kms_socket_stop(struct kms_socket *sock)
{
    const uint64_t one = 1;
    if (sock->running && write(sock->wake_fd, &one, sizeof one) == (ssize_t)sizeof one) {
        pthread_join(sock->thread, NULL);
        sock->running = false;
    }
    close_fd(&sock->wake_fd);
}

unsigned kms_socket_connections(struct kms_socket *sock)
{
    pthread_mutex_lock(&sock->mutex);
    connections_sweep_locked(sock);
    unsigned count = sock->connection_count;
    pthread_mutex_unlock(&sock->mutex);
    return count;
}
