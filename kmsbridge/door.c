/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/door.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define GROUPS_MAX 256 /* supplementary groups of a peer that we look at */
#define PAUSE_MS   50  /* after a failed accept, as when out of descriptors */
#define FDS_APART  160 /* ours, gRPC's, the monitor's, the PKCS#11 module's */
/* Refused peers: so many log lines each time, and no two in a row about the same user. */
#define COMPLAINTS_NS  (5 * KMS_NS_PER_S)
#define COMPLAINTS_MAX 8

/* A descriptor that gRPC owns: as long as its number still means this socket, the connection is
 * open. */
struct connection {
    int fd;
    ino_t inode;
};

struct kms_door {
    struct kms_metrics *metrics;
    kms_door_serve serve;
    void *ctx;
    pthread_t thread;
    bool running;
    int wake_fd;
    uint64_t complained_ns; /* accepting thread only */
    uid_t complained_uid;
    unsigned complaints; /* since complained_ns */

    pthread_mutex_t mutex; /* guards the members below */
    pthread_cond_t moved;
    int listen_fd; /* where connections are taken */
    int next_fd;   /* where they shall be; -1: where they are */
    bool closing;
    uid_t *uids;
    size_t uid_count;
    gid_t *gids;
    size_t gid_count;
    unsigned max_connections;
    struct connection *connections;
    unsigned connection_count;
};

static bool gid_allowed_locked(const struct kms_door *door, gid_t gid)
{
    for (size_t i = 0; i < door->gid_count; i++) {
        if (door->gids[i] == gid) {
            return true;
        }
    }
    return false;
}

static bool groups_allowed_locked(const struct kms_door *door, int fd)
{
    gid_t groups[GROUPS_MAX];
    socklen_t len = sizeof groups;
    if (door->gid_count == 0 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < len / sizeof groups[0]; i++) {
        if (gid_allowed_locked(door, groups[i])) {
            return true;
        }
    }
    return false;
}

static bool peer_allowed_locked(const struct kms_door *door, int fd, struct ucred *ret_peer)
{
    socklen_t len = sizeof *ret_peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer, &len) != 0) {
        *ret_peer = (struct ucred){.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
        return false;
    }
    for (size_t i = 0; i < door->uid_count; i++) {
        if (door->uids[i] == ret_peer->uid) {
            return true;
        }
    }
    return gid_allowed_locked(door, ret_peer->gid) || groups_allowed_locked(door, fd);
}

static bool still_open(const struct connection *connection)
{
    struct stat st;
    return fstat(connection->fd, &st) == 0 && S_ISSOCK(st.st_mode) &&
           st.st_ino == connection->inode;
}

static void connections_sweep_locked(struct kms_door *door)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < door->connection_count; i++) {
        if (still_open(&door->connections[i])) {
            door->connections[kept++] = door->connections[i];
        }
    }
    door->connection_count = kept;
}

/* Remembers @fd; false over the bound. */
static bool connection_add_locked(struct kms_door *door, int fd)
{
    struct stat st;
    if (door->connection_count >= door->max_connections) {
        connections_sweep_locked(door);
    }
    if (door->connection_count >= door->max_connections || fstat(fd, &st) != 0) {
        return false;
    }
    door->connections[door->connection_count++] = (struct connection){.fd = fd, .inode = st.st_ino};
    return true;
}

static bool may_complain(struct kms_door *door, uid_t uid)
{
    uint64_t now = kms_now_ns();
    if (door->complaints == 0 || now - door->complained_ns >= COMPLAINTS_NS) {
        door->complained_ns = now;
        door->complaints = 0;
    } else if (door->complained_uid == uid || door->complaints == COMPLAINTS_MAX) {
        return false;
    }
    door->complained_uid = uid;
    door->complaints++;
    return true;
}

static void take_connection(struct kms_door *door, int fd)
{
    struct ucred peer;
    pthread_mutex_lock(&door->mutex);
    bool allowed = peer_allowed_locked(door, fd, &peer);
    bool room = allowed && connection_add_locked(door, fd);
    pthread_mutex_unlock(&door->mutex);
    if (room) {
        atomic_fetch_add(&door->metrics->connections_accepted, 1);
        door->serve(door->ctx, fd);
        return;
    }
    atomic_fetch_add(allowed ? &door->metrics->connections_refused_limit
                             : &door->metrics->connections_refused_peer,
                     1);
    close(fd);
    if (may_complain(door, peer.uid)) {
        kms_log(KMS_LOG_WARN, "socket: connection of uid %ld gid %ld pid %ld refused: %s",
                (long)peer.uid, (long)peer.gid, (long)peer.pid,
                allowed ? "kms.max_connections is reached"
                        : "not in kms.allow_uids or kms.allow_gids");
    }
}

/* Until nothing waits; false after an error that time may heal. */
static bool accept_all(struct kms_door *door, int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_connection(door, fd);
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            atomic_fetch_add(&door->metrics->accept_errors, 1);
            if (may_complain(door, (uid_t)-1)) {
                kms_log(KMS_LOG_WARN, "socket: cannot accept a connection: %s", strerror(errno));
            }
            return false;
        }
    }
}

/* Goes where connections are to be taken; who waits where they were is let in first. False: it is
 * closing time. */
static bool follow(struct kms_door *door, int *listen_fd)
{
    uint64_t count;
    if (read(door->wake_fd, &count, sizeof count) < 0) {
        count = 0; /* nobody called */
    }
    pthread_mutex_lock(&door->mutex);
    bool closing = door->closing;
    int next = door->next_fd;
    pthread_mutex_unlock(&door->mutex);
    if (!closing && next >= 0) {
        (void)accept_all(door, *listen_fd);
        pthread_mutex_lock(&door->mutex);
        door->listen_fd = *listen_fd = next;
        door->next_fd = -1;
        pthread_cond_broadcast(&door->moved);
        pthread_mutex_unlock(&door->mutex);
    }
    return !closing;
}

static void *accept_main(void *arg)
{
    struct kms_door *door = arg;
    int listen_fd = door->listen_fd;
    for (;;) {
        struct pollfd fds[2] = {{.fd = door->wake_fd, .events = POLLIN},
                                {.fd = listen_fd, .events = POLLIN}};
        int ready = poll(fds, 2, -1);
        if (ready < 0 && errno != EINTR) {
            kms_log(KMS_LOG_ERROR, "socket: poll: %s", strerror(errno));
        }
        if (ready > 0 && fds[0].revents != 0) {
            if (!follow(door, &listen_fd)) {
                return NULL;
            }
        } else if (ready > 0 && fds[1].revents != 0 && !accept_all(door, listen_fd)) {
            /* what waits stays in the backlog; look again when descriptors may be free */
            struct pollfd wake = {.fd = door->wake_fd, .events = POLLIN};
            (void)poll(&wake, 1, PAUSE_MS);
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

enum kms_status kms_door_configure(struct kms_door *door, const struct kms_peers *peers,
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
    pthread_mutex_lock(&door->mutex);
    unsigned room =
        max_connections > door->connection_count ? max_connections : door->connection_count;
    struct connection *connections = reallocarray(door->connections, room, sizeof *connections);
    if (connections == NULL) {
        pthread_mutex_unlock(&door->mutex);
        goto nomem;
    }
    free(door->uids);
    free(door->gids);
    door->uids = uids;
    door->uid_count = peers->uid_count;
    door->gids = gids;
    door->gid_count = peers->gid_count;
    door->connections = connections;
    door->max_connections = max_connections;
    pthread_mutex_unlock(&door->mutex);
    return KMS_OK;
nomem:
    free(uids);
    free(gids);
    return KMS_E_NOMEM;
}

enum kms_status kms_door_open(const struct kms_door_conf *conf, struct kms_door **ret_door,
                              struct kms_error *err)
{
    struct kms_door *door = calloc(1, sizeof *door);
    if (door == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "socket: out of memory");
    }
    door->metrics = conf->metrics;
    door->serve = conf->serve;
    door->ctx = conf->ctx;
    door->listen_fd = conf->listen_fd;
    door->next_fd = -1;
    pthread_mutex_init(&door->mutex, NULL);
    pthread_cond_init(&door->moved, NULL);
    door->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (kms_door_configure(door, &conf->peers, conf->max_connections) != KMS_OK) {
        kms_door_close(door);
        return kms_error_set(err, KMS_E_NOMEM, "socket: out of memory");
    }
    if (door->wake_fd < 0 || pthread_create(&door->thread, NULL, accept_main, door) != 0) {
        kms_door_close(door);
        return kms_error_set(err, KMS_E_INTERNAL, "socket: cannot start the accepting thread: %s",
                             strerror(errno));
    }
    door->running = true;
    *ret_door = door;
    return KMS_OK;
}

static void wake(struct kms_door *door)
{
    const uint64_t one = 1;
    while (write(door->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void kms_door_move(struct kms_door *door, int listen_fd)
{
    pthread_mutex_lock(&door->mutex);
    door->next_fd = listen_fd;
    wake(door);
    while (door->running && door->next_fd >= 0) {
        pthread_cond_wait(&door->moved, &door->mutex);
    }
    pthread_mutex_unlock(&door->mutex);
}

void kms_door_shut(struct kms_door *door)
{
    if (!door->running) {
        return;
    }
    pthread_mutex_lock(&door->mutex);
    door->closing = true;
    pthread_mutex_unlock(&door->mutex);
    wake(door);
    pthread_join(door->thread, NULL);
    door->running = false;
}

void kms_door_close(struct kms_door *door)
{
    if (door == NULL) {
        return;
    }
    kms_door_shut(door);
    if (door->wake_fd >= 0) {
        close(door->wake_fd);
    }
    free(door->uids);
    free(door->gids);
    free(door->connections);
    pthread_cond_destroy(&door->moved);
    pthread_mutex_destroy(&door->mutex);
    free(door);
}

unsigned kms_door_connections(struct kms_door *door)
{
    pthread_mutex_lock(&door->mutex);
    connections_sweep_locked(door);
    unsigned count = door->connection_count;
    pthread_mutex_unlock(&door->mutex);
    return count;
}
