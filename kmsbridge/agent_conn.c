/* SPDX-License-Identifier: Apache-2.0 */
/* Accepting, and one connection from its first byte to its last. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/agent_parts.h"

#define HELLO_MAX     512u               /* body of the first frame */
#define FRAME_NS      (5 * KMS_NS_PER_S) /* from a frame's first byte to its last, either way */
#define QUIET_MS      100                /* without a request before a list is asked for */
#define PAUSE_MS      50                 /* after a failed accept, as when out of descriptors */
#define COMPLAINTS_NS (5 * KMS_NS_PER_S)

/* --- one connection ------------------------------------------------------------------------------
 */

static enum kms_status send_frame(const struct kms_agentd_conn *conn, struct kms_span frame,
                                  struct kms_error *err)
{
    return kms_agentd_write(conn->fd, frame, kms_deadline_in(FRAME_NS), err);
}

/* Says why, and is the connection's last word. */
static void send_refusal(int fd, const struct kms_error *error, uint64_t deadline_ns)
{
    uint8_t room[2048];
    struct kms_buf frame = KMS_BUF_OVER(room);
    struct kms_error ignored = KMS_ERROR_INIT;

    if (kms_agentd_put_error(0, error, &frame, &ignored) != KMS_OK ||
        kms_agentd_write(fd, kms_buf_span(&frame), deadline_ns, &ignored) != KMS_OK) {
        return; /* it sees the end of the connection all the same */
    }
}

static void audit_stranger(const struct kms_agentd_conn *conn, enum kms_status verdict)
{
    struct kms_agentd_common *common = &conn->agentd->common;
    struct kms_audit_record record = {.front = "agent",
                                      .peer = &conn->peer.audit,
                                      .op = "connect",
                                      .verdict = verdict,
                                      .refused = kms_refusal_name(KMS_REFUSAL_STRANGER)};
    struct kms_error ignored = KMS_ERROR_INIT;

    kms_agentd_metrics_refusal(&common->metrics, KMS_REFUSAL_STRANGER);
    if (kms_limits_may_note(common->limits, conn->account, &record.suppressed) &&
        kms_audit_write(common->audit, &record, &ignored) != KMS_OK) {
        return; /* it is refused as it is */
    }
}

/* Whether the peer may be here at all. */
static enum kms_status admit(const struct kms_agentd_conn *conn, uint32_t version,
                             struct kms_error *err)
{
    struct kms_agentd_state *state = kms_agentd_state_get(conn->agentd);
    bool knows = kms_policy_knows(&state->policy, &conn->peer.policy) &&
                 (!state->conf->agent.is_private || conn->peer.policy.uid == geteuid());

    kms_agentd_state_put(state);
    if (version == 0) {
        return kms_error_set(err, KMS_E_UNSUPPORTED, "agent: this agent speaks version %d",
                             KMS_AGENT_VERSION);
    }
    if (!knows) {
        (void)kms_error_set(err, KMS_E_DENIED, "uid %ld may not use this agent (agent.rules)",
                            (long)conn->peer.policy.uid);
        audit_stranger(conn, err->status);
        return err->status;
    }
    return KMS_OK;
}

static enum kms_status send_welcome(const struct kms_agentd_conn *conn, struct kms_error *err)
{
    uint8_t room[256];
    struct kms_buf frame = KMS_BUF_OVER(room);
    Kms__Agent__Welcome welcome = KMS__AGENT__WELCOME__INIT;
    struct kms_agentd_state *state = kms_agentd_state_get(conn->agentd);
    enum kms_status status;

    welcome.version = KMS_AGENT_VERSION; /* there is no lower one */
    welcome.plaintext_max = KMS_PLAINTEXT_MAX;
    welcome.idle_seconds = (uint32_t)(state->conf->agent.idle_timeout_ns / KMS_NS_PER_S);
    welcome.instance = kms_agent_put_span(
        kms_span_of(conn->agentd->common.instance, sizeof(conn->agentd->common.instance)));
    kms_agentd_state_put(state);
    status = kms_agent_pack(&welcome.base, &frame, err);
    return status == KMS_OK ? send_frame(conn, kms_buf_span(&frame), err) : status;
}

static void set_patience(const struct kms_agentd_conn *conn, uint64_t ns)
{
    const struct timeval tv = {.tv_sec = (time_t)(ns / KMS_NS_PER_S),
                               .tv_usec = (suseconds_t)(ns % KMS_NS_PER_S / KMS_NS_PER_US)};

    (void)setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

static enum kms_status read_hello(const struct kms_agentd_conn *conn, uint32_t *ret_version,
                                  struct kms_error *err)
{
    uint8_t body[HELLO_MAX];
    struct kms_buf buf = KMS_BUF_OVER(body);
    ProtobufCMessage *message = NULL;
    size_t len = 0;
    enum kms_status status = kms_agentd_read_len(conn->fd, FRAME_NS, &len, err);

    if (status == KMS_OK) {
        status = kms_agentd_read(conn->fd, len, kms_deadline_in(FRAME_NS), &buf, err);
    }
    if (status == KMS_OK) {
        status =
            kms_agent_unpack(&kms__agent__hello__descriptor, kms_buf_span(&buf), &message, err);
    }
    if (status == KMS_OK) {
        *ret_version = ((const Kms__Agent__Hello *)message)->version;
        kms_agent_free(message);
    }
    return status;
}

static enum kms_status greet(const struct kms_agentd_conn *conn, struct kms_error *err)
{
    uint32_t version = 0;
    enum kms_status status = KMS_OK;

    set_patience(conn, FRAME_NS);
    status = read_hello(conn, &version, err);
    if (status != KMS_OK) {
        return status;
    }
    status = admit(conn, version, err);
    if (status != KMS_OK) {
        send_refusal(conn->fd, err, kms_deadline_in(FRAME_NS));
        return KMS_E_CANCELLED; /* nothing is wrong with the protocol */
    }
    return send_welcome(conn, err);
}

static enum kms_status read_request(const struct kms_agentd_conn *conn,
                                    struct kms_agentd_room *room, struct kms_error *err)
{
    size_t len = 0;
    enum kms_status status = kms_agentd_read_len(conn->fd, FRAME_NS, &len, err);

    if (status == KMS_OK) {
        status = kms_agentd_room_take(conn->agentd->common.pools, len, room, err);
    }
    if (status == KMS_OK) {
        status = kms_agentd_read(conn->fd, len, kms_deadline_in(FRAME_NS), &room->frame, err);
    }
    return status;
}

/* Whether the peer has nothing to ask for a moment, or has gone: a list in the midst of his calls
 * would take time from them, and there are modules that fail to make a key while another thread
 * searches. */
static bool is_quiet(const struct kms_agentd_conn *conn)
{
    struct pollfd fd = {.fd = conn->fd, .events = POLLIN | POLLRDHUP};

    return poll(&fd, 1, QUIET_MS) == 0 || (fd.revents & (POLLRDHUP | POLLHUP)) != 0;
}

static enum kms_status answer(const struct kms_agentd_conn *conn, struct kms_agentd_state *state,
                              struct kms_agentd_room *room, struct kms_error *err)
{
    const struct kms_agentd_peering peering = {
        .common = &conn->agentd->common, .peer = &conn->peer, .account = conn->account};
    struct kms_agentd_token *token = NULL;
    struct kms_span frame = KMS_SPAN_NONE;
    uint8_t *page = NULL;
    enum kms_status status = kms_agentd_answer(&peering, state, room, &page, &frame, &token, err);

    if (status == KMS_OK) {
        status = send_frame(conn, frame, err);
    }
    free(page);
    kms_agentd_room_give(conn->agentd->common.pools, room);
    if (status == KMS_OK && token != NULL && is_quiet(conn)) {
        kms_agentd_token_tend(token);
    }
    return status;
}

static enum kms_status one_request(const struct kms_agentd_conn *conn, struct kms_error *err)
{
    struct kms_agentd_room room = {.slot = NULL};
    struct kms_agentd_state *state = NULL;
    enum kms_status status = read_request(conn, &room, err);

    if (status == KMS_OK) {
        state = kms_agentd_state_get(conn->agentd);
        status = answer(conn, state, &room, err);
        kms_agentd_state_put(state);
    }
    kms_agentd_room_give(conn->agentd->common.pools, &room);
    return status;
}

static void note_end(const struct kms_agentd_conn *conn, enum kms_status status,
                     const struct kms_error *err)
{
    if (status == KMS_E_PROTOCOL || status == KMS_E_TOO_LARGE) {
        kms_agentd_metrics_refusal(&conn->agentd->common.metrics, KMS_REFUSAL_PROTOCOL);
    }
    if (status != KMS_E_CANCELLED) {
        kms_log(KMS_LOG_DEBUG, "agent: connection of uid %ld pid %ld ends: %s",
                (long)conn->peer.audit.uid, (long)conn->peer.audit.pid, err->text);
    }
}

static void connection_run(const struct kms_agentd_conn *conn)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_agentd_state *state = NULL;
    enum kms_status status = greet(conn, &err);

    if (status == KMS_OK) {
        state = kms_agentd_state_get(conn->agentd);
        set_patience(conn, state->conf->agent.idle_timeout_ns);
        kms_agentd_state_put(state);
    }
    while (status == KMS_OK) {
        status = one_request(conn, &err);
    }
    note_end(conn, status, &err);
}

static void connection_free(struct kms_agentd_conn *conn)
{
    struct kms_agentd *agentd = conn->agentd;

    if (conn->account != NULL) {
        kms_limits_leave(agentd->common.limits, conn->account);
    }
    kms_agentd_peer_done(&conn->peer);
    (void)close(conn->fd);
    free(conn);
}

/* Out of the list first: what is in it may be shut down. */
static void connection_leave(struct kms_agentd_conn *conn)
{
    struct kms_agentd *agentd = conn->agentd;

    pthread_mutex_lock(&agentd->mutex);
    *(conn->before == NULL ? &agentd->connections : &conn->before->next) = conn->next;
    if (conn->next != NULL) {
        conn->next->before = conn->before;
    }
    pthread_mutex_unlock(&agentd->mutex);
    connection_free(conn);
    pthread_mutex_lock(&agentd->mutex);
    agentd->connection_count--;
    agentd->idle_since_ns = agentd->connection_count == 0 ? kms_now_ns() : 0;
    atomic_store(&agentd->common.metrics.connections, agentd->connection_count);
    pthread_mutex_unlock(&agentd->mutex);
}

static void *connection_main(void *arg)
{
    struct kms_agentd_conn *conn = arg;
    struct kms_agentd *agentd = conn->agentd;

    kms_thread_rather_finish();
    connection_run(conn);
    connection_leave(conn);
    kms_crew_leave(&agentd->crew);
    return NULL;
}

/* --- accepting ----------------------------------------------------------------------------------
 */

static bool may_complain(struct kms_agentd *agentd)
{
    uint64_t now = kms_now_ns();
    bool may = agentd->complained_ns == 0 || now - agentd->complained_ns >= COMPLAINTS_NS;

    agentd->complained_ns = may ? now : agentd->complained_ns;
    return may;
}

static void connection_enlist(struct kms_agentd_conn *conn)
{
    struct kms_agentd *agentd = conn->agentd;

    pthread_mutex_lock(&agentd->mutex);
    conn->next = agentd->connections;
    if (conn->next != NULL) {
        conn->next->before = conn;
    }
    agentd->connections = conn;
    agentd->connection_count++;
    agentd->idle_since_ns = 0;
    atomic_store(&agentd->common.metrics.connections, agentd->connection_count);
    pthread_mutex_unlock(&agentd->mutex);
}

static enum kms_status connection_new(struct kms_agentd *agentd, int fd,
                                      struct kms_agentd_conn **ret_conn,
                                      enum kms_refusal *ret_refusal, struct kms_error *err)
{
    struct kms_agentd_conn *conn = calloc(1, sizeof(*conn));
    enum kms_status status = KMS_OK;

    if (conn == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    conn->agentd = agentd;
    conn->fd = fd;
    status = kms_agentd_peer_read(fd, &conn->peer, err);
    if (status == KMS_OK) {
        status = kms_limits_enter(agentd->common.limits, conn->peer.policy.uid, &conn->account,
                                  ret_refusal, err);
    }
    if (status != KMS_OK) {
        kms_agentd_peer_done(&conn->peer);
        free(conn);
        return status;
    }
    *ret_conn = conn;
    return KMS_OK;
}

static void take_connection(struct kms_agentd *agentd, int fd)
{
    struct kms_error err = KMS_ERROR_INIT;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;
    struct kms_agentd_conn *conn = NULL;
    enum kms_status status = connection_new(agentd, fd, &conn, &refusal, &err);

    if (status == KMS_OK) {
        atomic_fetch_add(&agentd->common.metrics.accepted, 1);
        connection_enlist(conn);
        if (kms_crew_start(&agentd->crew, connection_main, conn)) {
            return;
        }
        (void)kms_error_set(&err, KMS_E_BUSY, "agent: no thread for a connection");
        send_refusal(fd, &err, 0);
        connection_leave(conn);
    } else {
        kms_agentd_metrics_refusal(&agentd->common.metrics, refusal);
        send_refusal(fd, &err, 0);
        (void)close(fd);
    }
    if (may_complain(agentd)) {
        kms_log(KMS_LOG_WARN, "agent: a connection is refused: %s", err.text);
    }
}

/* Until nothing waits; false after an error that time may heal. */
static bool accept_all(struct kms_agentd *agentd)
{
    for (;;) {
        int fd = accept4(agentd->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0) {
            take_connection(agentd, fd);
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            atomic_fetch_add(&agentd->common.metrics.accept_errors, 1);
            if (may_complain(agentd)) {
                kms_log(KMS_LOG_WARN, "agent: cannot accept a connection: %s", strerror(errno));
            }
            return false;
        }
    }
}

void *kms_agentd_accept_main(void *arg)
{
    struct kms_agentd *agentd = arg;
    struct pollfd fds[2] = {{.fd = agentd->wake_fd, .events = POLLIN},
                            {.fd = agentd->listen_fd, .events = POLLIN}};

    for (;;) {
        int ready = poll(fds, 2, -1);

        if (ready > 0 && fds[0].revents != 0) {
            return NULL;
        }
        if (ready > 0 && fds[1].revents != 0 && !accept_all(agentd)) {
            struct pollfd stop = {.fd = agentd->wake_fd, .events = POLLIN};

            if (poll(&stop, 1, PAUSE_MS) > 0) {
                return NULL;
            }
        }
    }
}
