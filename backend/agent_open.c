/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to an agent: the system's or a private one, served by somebody we may trust, greeted
 * in a version that we speak.
 *
 * Whom we trust with PINs and plaintexts (SO_PEERCRED, as of the server's listen()): root, for that
 * is who systemd listens as; our own effective user, who could read our memory anyway; and the
 * owner of the directory that the socket is in, to whom the administrator gave it. Somebody else
 * who manages to put a socket at the path, in a directory that many may write, is refused.
 */
#include "backend/agent_parts.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

#define IDLE_DEFAULT_S 60 /* when the server does not say */

/* ---- frames --------------------------------------------------------------------------------- */

enum kms_status kms_agent_conn_pack(struct kms_agent_conn *conn, const ProtobufCMessage *message,
                                    struct kms_error *err)
{
    size_t need = KMS_AGENT_HEADER + protobuf_c_message_get_packed_size(message);
    enum kms_status status = KMS_OK;

    conn->io.len = 0;
    if (need > KMS_AGENT_HEADER + KMS_AGENT_FRAME_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "a request of %zu bytes, at most %u",
                             need - KMS_AGENT_HEADER, KMS_AGENT_FRAME_MAX);
    }
    status = kms_agent_conn_reserve(&conn->io, need, err);
    if (status == KMS_OK) {
        status = kms_agent_pack(message, &conn->io, err);
    }
    conn->dirty = conn->dirty > conn->io.len ? conn->dirty : conn->io.len;
    return status;
}

int kms_agent_recv_frame(struct kms_agent_conn *conn, uint64_t spin_ns,
                         const struct kms_agent_wait *wait, struct kms_span *ret_body,
                         struct kms_error *err)
{
    struct kms_buf *io = &conn->io;
    size_t len = 0;
    size_t need = KMS_AGENT_HEADER;

    io->len = 0;
    while (io->len < need) {
        int error = kms_agent_io_recv(conn->fd, io, spin_ns, wait);

        conn->dirty = conn->dirty > io->len ? conn->dirty : io->len;
        if (error != 0) {
            return error;
        }
        if (len == 0 && io->len >= KMS_AGENT_HEADER) {
            struct kms_error wrong = KMS_ERROR_INIT;

            if (kms_agent_frame_len(io->data, &len, &wrong) != KMS_OK) {
                (void)kms_error_set(err, KMS_E_PROTOCOL, "%s", wrong.text);
                return EBADMSG;
            }
            need += len;
            if (kms_agent_conn_reserve(io, need, err) != KMS_OK) {
                return ENOMEM;
            }
        }
    }
    if (io->len > need) {
        (void)kms_error_set(err, KMS_E_PROTOCOL, "the agent sent more than a reply");
        return EBADMSG;
    }
    *ret_body = kms_span_of(io->data + KMS_AGENT_HEADER, len);
    return 0;
}

/* ---- whom we talk to ------------------------------------------------------------------------ */

static bool owns_directory(const char *path, uid_t uid)
{
    char directory[KMS_AGENT_PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (slash == NULL) {
        return false;
    }
    memcpy(directory, path, (size_t)(slash - path) + 1);
    directory[slash - path + 1] = '\0'; /* with its slash: a symbolic link is followed */
    return stat(directory, &st) == 0 && st.st_uid == uid;
}

static enum kms_agent_outcome check_peer(int fd, const char *path, struct kms_error *err)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        (void)kms_error_set(err, KMS_E_UNAVAILABLE, "%s: cannot tell who serves it", path);
        return KMS_AGENT_AGAIN;
    }
    if (peer.uid != 0 && peer.uid != geteuid() && !owns_directory(path, peer.uid)) {
        (void)kms_error_set(err, KMS_E_DENIED,
                            "%s is served by uid %lu, who is neither root, we, nor the owner of "
                            "its directory",
                            path, (unsigned long)peer.uid);
        return KMS_AGENT_FAILED;
    }
    return KMS_AGENT_GOOD;
}

/* ---- the connection ------------------------------------------------------------------------- */

static bool nobody_listens(int error)
{
    return error == ENOENT || error == ECONNREFUSED;
}

static enum kms_agent_outcome cannot_connect(const char *path, int error, struct kms_error *err)
{
    enum kms_status status = KMS_E_UNAVAILABLE;
    enum kms_agent_outcome outcome = KMS_AGENT_FAILED;

    if (nobody_listens(error)) {
        outcome = KMS_AGENT_ABSENT;
    } else if (error == EAGAIN) {
        outcome = KMS_AGENT_AGAIN; /* its queue is full */
    } else if (error == EACCES || error == EPERM) {
        status = KMS_E_DENIED;
    } else if (error == EMFILE || error == ENFILE) {
        status = KMS_E_BUSY;
    } else if (error == ENOMEM || error == ENOBUFS) {
        status = KMS_E_NOMEM;
    }
    (void)kms_error_set(err, status, "cannot connect to %s: %s", path, strerrordesc_np(error));
    return outcome;
}

/* The system's agent, or where there is none a private one; not while it restarts, for its tokens
 * are others. */
static enum kms_agent_outcome reach(struct kms_agent *agent, const struct kms_agent_wait *wait,
                                    int *ret_fd, const char **ret_path, struct kms_error *err)
{
    int error = kms_agent_io_connect(agent->socket, ret_fd);

    *ret_path = agent->socket;
    if (nobody_listens(error) && agent->private_socket[0] != '\0' && !atomic_load(&agent->system)) {
        *ret_path = agent->private_socket;
        error = kms_agent_io_connect(agent->private_socket, ret_fd);
        if (nobody_listens(error)) {
            return kms_agent_spawn(agent, wait, ret_fd, err) == KMS_OK ? KMS_AGENT_GOOD
                                                                       : KMS_AGENT_FAILED;
        }
    }
    return error == 0 ? KMS_AGENT_GOOD : cannot_connect(*ret_path, error, err);
}

static enum kms_agent_outcome remember(struct kms_agent_conn *conn, int fd, struct kms_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        (void)close(fd);
        (void)kms_error_set(err, KMS_E_UNAVAILABLE, "the connection to the agent is gone");
        return KMS_AGENT_AGAIN;
    }
    conn->dev = st.st_dev;
    conn->ino = st.st_ino;
    conn->fd = fd;
    conn->used = false;
    return KMS_AGENT_GOOD;
}

/* ---- Hello and Welcome ---------------------------------------------------------------------- */

/* A new instance is a new generation: what was cached from the old one may not hold. */
static void note_instance(struct kms_agent *agent, struct kms_agent_conn *conn,
                          const Kms__Agent__Welcome *welcome)
{
    uint64_t generation;

    (void)pthread_mutex_lock(&agent->lock);
    generation = atomic_load(&agent->generation);
    if (generation == 0 ||
        memcmp(agent->instance, welcome->instance.data, KMS_AGENT_INSTANCE) != 0) {
        memcpy(agent->instance, welcome->instance.data, KMS_AGENT_INSTANCE);
        generation++;
        atomic_store(&agent->generation, generation);
    }
    (void)pthread_mutex_unlock(&agent->lock);
    conn->generation = generation;
    kms_agent_pool_drop_old(&agent->pool, generation);
}

static enum kms_agent_outcome take_welcome(struct kms_agent *agent, struct kms_agent_conn *conn,
                                           const Kms__Agent__Welcome *welcome,
                                           struct kms_error *err)
{
    uint32_t idle_s = welcome->idle_seconds == 0 ? IDLE_DEFAULT_S : welcome->idle_seconds;

    if (welcome->version == 0 || welcome->version > KMS_AGENT_VERSION) {
        (void)kms_error_set(err, KMS_E_PROTOCOL, "the agent speaks version %u, we %u",
                            welcome->version, KMS_AGENT_VERSION);
        return KMS_AGENT_FAILED;
    }
    if (welcome->instance.len != KMS_AGENT_INSTANCE) {
        (void)kms_error_set(err, KMS_E_PROTOCOL, "the agent's welcome has no instance");
        return KMS_AGENT_FAILED;
    }
    conn->idle_ns = idle_s * KMS_NS_PER_S - idle_s * KMS_NS_PER_S / 8;
    note_instance(agent, conn, welcome);
    atomic_store(&agent->reached, true);
    atomic_store(&agent->away, false);
    return KMS_AGENT_GOOD;
}

static enum kms_agent_outcome refused(const Kms__Agent__Reply *reply, struct kms_error *err)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (reply->error != NULL) {
        kms_agent_get_error(reply->error, &error);
    }
    if (error.status == KMS_OK) {
        (void)kms_error_set(err, KMS_E_PROTOCOL, "the agent answered hello with nothing");
        return KMS_AGENT_FAILED;
    }
    *err = error;
    return kms_status_is_transient(error.status) ? KMS_AGENT_AGAIN : KMS_AGENT_FAILED;
}

/*
 * A Welcome, or a Reply with an error: nothing on the wire says which. They cannot be confused: a
 * Welcome's instance (field 4, 16 bytes) would be an iv in a Reply, whose error (field 2, a
 * message) would be a number in a Welcome.
 */
static enum kms_agent_outcome read_welcome(struct kms_agent *agent, struct kms_agent_conn *conn,
                                           struct kms_span body, struct kms_error *err)
{
    ProtobufCMessage *message = NULL;
    enum kms_agent_outcome outcome;

    conn->arena.len = 0;
    if (kms_agent_unpack_in(&kms__agent__welcome__descriptor, body, &conn->arena, &message, err) ==
        KMS_OK) {
        outcome = take_welcome(agent, conn, (const Kms__Agent__Welcome *)message, err);
    } else if (kms_agent_unpack_in(&kms__agent__reply__descriptor, body, &conn->arena, &message,
                                   NULL) == KMS_OK) {
        kms_error_clear(err);
        outcome = refused((const Kms__Agent__Reply *)message, err);
    } else {
        outcome = KMS_AGENT_FAILED;
    }
    conn->arena.len = 0; /* no secret is in it */
    return outcome;
}

static enum kms_agent_outcome io_failed(int error, struct kms_error *err)
{
    switch (error) {
    case ETIMEDOUT:
        (void)kms_error_set(err, KMS_E_TIMEOUT, "the agent did not greet in time");
        return KMS_AGENT_FAILED;
    case ECANCELED:
        (void)kms_error_set(err, KMS_E_CANCELLED, "the caller gave up");
        return KMS_AGENT_FAILED;
    case EBADMSG:
    case ENOMEM:
        return KMS_AGENT_FAILED; /* said already */
    default:
        (void)kms_error_set(err, KMS_E_UNAVAILABLE, "the agent hung up before it greeted: %s",
                            error == KMS_AGENT_EOF ? "end of file" : strerrordesc_np(error));
        return KMS_AGENT_AGAIN;
    }
}

static enum kms_agent_outcome greet(struct kms_agent *agent, struct kms_agent_conn *conn,
                                    const struct kms_agent_wait *wait, struct kms_error *err)
{
    Kms__Agent__Hello hello = KMS__AGENT__HELLO__INIT;
    struct kms_span name = kms_span_str(program_invocation_short_name);
    struct kms_span body;
    int error;

    hello.version = KMS_AGENT_VERSION;
    name.len = name.len < KMS_AGENT_NAME_MAX ? name.len : KMS_AGENT_NAME_MAX;
    hello.name = kms_agent_put_span(name);
    if (kms_agent_conn_pack(conn, &hello.base, err) != KMS_OK) {
        return KMS_AGENT_FAILED;
    }
    error = kms_agent_io_send(conn->fd, kms_buf_span(&conn->io), wait);
    /* also when it could not be sent: an agent that turns us away says so and closes */
    if (error == 0 || error == EPIPE || error == ECONNRESET) {
        error = kms_agent_recv_frame(conn, 0, wait, &body, err);
    }
    return error == 0 ? read_welcome(agent, conn, body, err) : io_failed(error, err);
}

enum kms_agent_outcome kms_agent_open(struct kms_agent *agent, struct kms_agent_conn *conn,
                                      const struct kms_agent_wait *wait, struct kms_error *err)
{
    const char *path = NULL;
    int fd = -1;
    enum kms_agent_outcome outcome = reach(agent, wait, &fd, &path, err);

    if (outcome == KMS_AGENT_GOOD) {
        outcome = remember(conn, fd, err);
    }
    if (outcome == KMS_AGENT_GOOD) {
        outcome = check_peer(conn->fd, path, err);
    }
    if (outcome == KMS_AGENT_GOOD) {
        outcome = greet(agent, conn, wait, err);
    }
    if (outcome == KMS_AGENT_GOOD && path == agent->socket) {
        atomic_store(&agent->system, true);
    }
    if (outcome != KMS_AGENT_GOOD) {
        kms_agent_conn_close(conn);
    }
    return outcome;
}
