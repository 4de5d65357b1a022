/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "kmsbridge/agent_parts.h"
#include "kmsbridge/socket.h"

#define STACK_SIZE    (512u * 1024u)     /* PKCS#11 modules run on it */
#define HELLO_MAX     512u               /* body of the first frame */
#define FRAME_NS      (5 * KMS_NS_PER_S) /* from a frame's first byte to its last, either way */
#define PAUSE_MS      50                 /* after a failed accept, as when out of descriptors */
#define FDS_APART     192 /* ours, gRPC's, the KMS socket's, the monitor's, the PKCS#11 module's */
#define COMPLAINTS_NS (5 * KMS_NS_PER_S)

struct kms_agentd {
    struct kms_agentd_common common;
    struct kms_agentd_backends *backends;
    struct kms_socket *socket;
    int listen_fd;
    int wake_fd;
    pthread_t thread;
    bool running;
    uint64_t complained_ns; /* accepting thread only */

    pthread_mutex_t mutex; /* guards the members below */
    pthread_cond_t left;
    struct kms_agentd_state *state;
    struct connection *connections;
    unsigned connection_count;
    bool stopping;
    uint64_t idle_since_ns; /* 0: somebody is connected */
};

/* Its thread's own, in the list until that ends. */
struct connection {
    struct connection *next;
    struct connection *before;
    struct kms_agentd *agentd;
    int fd;
    struct kms_agentd_peer peer;
    struct kms_limits_uid *account;
};

/* --- state --------------------------------------------------------------------------------------
 */

static void state_put(struct kms_agentd_state *state)
{
    if (state != NULL && atomic_fetch_sub(&state->refs, 1) == 1) {
        kms_agentd_tokens_done(&state->tokens);
        kms_conf_done(state->conf);
        free(state);
    }
}

static struct kms_agentd_state *state_get(struct kms_agentd *agentd)
{
    struct kms_agentd_state *state = NULL;

    pthread_mutex_lock(&agentd->mutex);
    state = agentd->state;
    atomic_fetch_add(&state->refs, 1);
    pthread_mutex_unlock(&agentd->mutex);
    return state;
}

static enum kms_status state_new(struct kms_agentd_backends *backends, struct kms_conf *conf,
                                 struct kms_agentd_state **ret_state, struct kms_error *err)
{
    struct kms_agentd_state *state = calloc(1, sizeof(*state));
    enum kms_status status;

    if (state == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    atomic_init(&state->refs, 1);
    state->conf = kms_conf_hold(conf);
    state->policy = (struct kms_policy){
        .rules = conf->agent.rules, .rule_count = conf->agent.rule_count, .self = geteuid()};
    status = kms_agentd_tokens_new(backends, conf, &state->tokens, err);
    if (status != KMS_OK) {
        state_put(state);
        return status;
    }
    *ret_state = state;
    return KMS_OK;
}

static struct kms_limits_conf limits_conf(const struct kms_agentd_conf *conf)
{
    return (struct kms_limits_conf){.connections = conf->max_connections,
                                    .connections_per_uid = conf->max_connections_per_uid,
                                    .calls_per_second = conf->calls_per_second,
                                    .calls_per_uid = conf->concurrent_calls_per_uid};
}

/* --- one connection ------------------------------------------------------------------------------
 */

static enum kms_status send_frame(const struct connection *conn, struct kms_span frame,
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

static void audit_stranger(const struct connection *conn, enum kms_status verdict)
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
static enum kms_status admit(const struct connection *conn, uint32_t version, struct kms_error *err)
{
    struct kms_agentd_state *state = state_get(conn->agentd);
    bool knows = kms_policy_knows(&state->policy, &conn->peer.policy) &&
                 (!state->conf->agent.is_private || conn->peer.policy.uid == geteuid());

    state_put(state);
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

static enum kms_status send_welcome(const struct connection *conn, struct kms_error *err)
{
    uint8_t room[256];
    struct kms_buf frame = KMS_BUF_OVER(room);
    Kms__Agent__Welcome welcome = KMS__AGENT__WELCOME__INIT;
    struct kms_agentd_state *state = state_get(conn->agentd);
    enum kms_status status;

    welcome.version = KMS_AGENT_VERSION; /* there is no lower one */
    welcome.plaintext_max = KMS_PLAINTEXT_MAX;
    welcome.idle_seconds = (uint32_t)(state->conf->agent.idle_timeout_ns / KMS_NS_PER_S);
    welcome.instance = kms_agent_put_span(
        kms_span_of(conn->agentd->common.instance, sizeof(conn->agentd->common.instance)));
    state_put(state);
    status = kms_agent_pack(&welcome.base, &frame, err);
    return status == KMS_OK ? send_frame(conn, kms_buf_span(&frame), err) : status;
}

static void set_patience(const struct connection *conn, uint64_t ns)
{
    const struct timeval tv = {.tv_sec = (time_t)(ns / KMS_NS_PER_S),
                               .tv_usec = (suseconds_t)(ns % KMS_NS_PER_S / KMS_NS_PER_US)};

    (void)setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

static enum kms_status read_hello(const struct connection *conn, uint32_t *ret_version,
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

static enum kms_status greet(const struct connection *conn, struct kms_error *err)
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

static enum kms_status read_request(const struct connection *conn, struct kms_agentd_room *room,
                                    struct kms_error *err)
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

static enum kms_status answer(const struct connection *conn, struct kms_agentd_state *state,
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
    if (status == KMS_OK && token != NULL) {
        kms_agentd_token_tend(token, state->conf->agent.call_timeout_ns);
    }
    return status;
}

static enum kms_status one_request(const struct connection *conn, struct kms_error *err)
{
    struct kms_agentd_room room = {.slot = NULL};
    struct kms_agentd_state *state = NULL;
    enum kms_status status = read_request(conn, &room, err);

    if (status == KMS_OK) {
        state = state_get(conn->agentd);
        status = answer(conn, state, &room, err);
        state_put(state);
    }
    kms_agentd_room_give(conn->agentd->common.pools, &room);
    return status;
}

static void note_end(const struct connection *conn, enum kms_status status,
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

static void connection_run(const struct connection *conn)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_agentd_state *state = NULL;
    enum kms_status status = greet(conn, &err);

    if (status == KMS_OK) {
        state = state_get(conn->agentd);
        set_patience(conn, state->conf->agent.idle_timeout_ns);
        state_put(state);
    }
    while (status == KMS_OK) {
        status = one_request(conn, &err);
    }
    note_end(conn, status, &err);
}

static void connection_free(struct connection *conn)
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
static void connection_leave(struct connection *conn)
{
    struct kms_agentd *agentd = conn->agentd;

    pthread_mutex_lock(&agentd->mutex);
    *(conn->before == NULL ? &agentd->connections : &conn->before->next) = conn->next;
    if (conn->next != NULL) {
        conn->next->before = conn->before;
    }
    pthread_mutex_unlock(&agentd->mutex);
    connection_free(conn);
    /* the last that this thread touches */
    pthread_mutex_lock(&agentd->mutex);
    agentd->connection_count--;
    agentd->idle_since_ns = agentd->connection_count == 0 ? kms_now_ns() : 0;
    atomic_store(&agentd->common.metrics.connections, agentd->connection_count);
    pthread_cond_broadcast(&agentd->left);
    pthread_mutex_unlock(&agentd->mutex);
}

static void *connection_main(void *arg)
{
    struct connection *conn = arg;

    connection_run(conn);
    connection_leave(conn);
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

/* Detached, with all signals blocked: those that we wait for are the main thread's. */
static bool start_thread(void *(*main)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all;
    sigset_t before;
    int error = 0;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attr, main, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error == 0;
}

static void connection_enlist(struct connection *conn)
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
                                      struct connection **ret_conn, enum kms_refusal *ret_refusal,
                                      struct kms_error *err)
{
    struct connection *conn = calloc(1, sizeof(*conn));
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
    struct connection *conn = NULL;
    enum kms_status status = connection_new(agentd, fd, &conn, &refusal, &err);

    if (status == KMS_OK) {
        atomic_fetch_add(&agentd->common.metrics.accepted, 1);
        connection_enlist(conn);
        if (start_thread(connection_main, conn)) {
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

static void *accept_main(void *arg)
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

/* --- start --------------------------------------------------------------------------------------
 */

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Clients must not use up the descriptors that a PKCS#11 module needs for its files. */
static void raise_descriptors(const struct kms_conf *conf)
{
    struct rlimit files;
    rlim_t want = (rlim_t)conf->agent.max_connections * 2 + /* a pidfd for a moment */
                  conf->kms.max_connections + FDS_APART;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= want) {
        return;
    }
    files.rlim_cur = files.rlim_max < want ? files.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < want) {
        kms_log(KMS_LOG_WARN,
                "agent: agent.max_connections of %u may use up the limit of %lu descriptors",
                conf->agent.max_connections, (unsigned long)files.rlim_cur);
    }
}

static void free_all(struct kms_agentd *agentd)
{
    kms_socket_close(agentd->socket);
    if (agentd->listen_fd >= 0) {
        (void)close(agentd->listen_fd);
    }
    if (agentd->wake_fd >= 0) {
        (void)close(agentd->wake_fd);
    }
    state_put(agentd->state);
    kms_agentd_backends_free(agentd->backends);
    kms_limits_free(agentd->common.limits);
    kms_agentd_pools_free(agentd->common.pools);
    pthread_cond_destroy(&agentd->left);
    pthread_mutex_destroy(&agentd->mutex);
    free(agentd);
}

static enum kms_status prepare(struct kms_agentd *agentd, const struct kms_agentd_start *start,
                               struct kms_error *err)
{
    const struct kms_limits_conf limits = limits_conf(&start->conf->agent);

    agentd->common.audit = start->audit;
    agentd->common.limits = kms_limits_new(&limits);
    agentd->common.pools = kms_agentd_pools_new();
    agentd->backends = kms_agentd_backends_new(&start->source, start->observe, start->observe_ctx);
    if (agentd->common.limits == NULL || agentd->common.pools == NULL || agentd->backends == NULL ||
        kms_random(agentd->common.instance, sizeof(agentd->common.instance)) != KMS_OK) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    return state_new(agentd->backends, start->conf, &agentd->state, err);
}

static enum kms_status open_door(struct kms_agentd *agentd, const struct kms_agentd_conf *conf,
                                 struct kms_error *err)
{
    const struct kms_socket_conf socket = {
        .path = conf->socket, .mode = conf->mode, .owner = conf->owner, .group = conf->group};
    enum kms_status status = kms_socket_open(&socket, &agentd->socket, err);

    if (status != KMS_OK) {
        return status;
    }
    agentd->listen_fd = kms_socket_dup(agentd->socket);
    agentd->wake_fd = eventfd(0, EFD_CLOEXEC);
    agentd->idle_since_ns = kms_now_ns();
    if (agentd->listen_fd < 0 || agentd->wake_fd < 0 ||
        pthread_create(&agentd->thread, NULL, accept_main, agentd) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "agent: cannot start to accept: %s",
                             strerror(errno));
    }
    agentd->running = true;
    return KMS_OK;
}

enum kms_status kms_agentd_start(const struct kms_agentd_start *start,
                                 struct kms_agentd **ret_agentd, struct kms_error *err)
{
    struct kms_agentd *agentd = calloc(1, sizeof(*agentd));
    enum kms_status status;

    if (agentd == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    agentd->listen_fd = agentd->wake_fd = -1;
    pthread_mutex_init(&agentd->mutex, NULL);
    cond_init(&agentd->left);
    raise_descriptors(start->conf);
    status = prepare(agentd, start, err);
    if (status == KMS_OK) {
        status = open_door(agentd, &start->conf->agent, err);
    }
    if (status != KMS_OK) {
        free_all(agentd);
        return status;
    }
    kms_log(KMS_LOG_INFO, "agent: serving %zu token(s) on %s", start->conf->agent.token_count,
            start->conf->agent.socket);
    *ret_agentd = agentd;
    return KMS_OK;
}

/* --- reload -------------------------------------------------------------------------------------
 */

static void warn_restart(const struct kms_agentd_conf *was, const struct kms_agentd_conf *now)
{
    const struct {
        const char *key;
        bool differs;
    } rows[] = {
        {"agent.socket", strcmp(was->socket, now->socket) != 0},
        {"agent.mode", was->mode != now->mode},
        {"agent.owner", was->owner != now->owner},
        {"agent.group", was->group != now->group},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].differs) {
            kms_log(KMS_LOG_WARN, "reload: %s has changed and needs a restart to take effect",
                    rows[i].key);
        }
    }
}

/* Certificates are matched to keys, where these can be listed: one that is away is no error. */
static enum kms_status match_certificates(struct kms_agentd_state *state, uint64_t timeout_ns,
                                          struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < state->tokens.count; i++) {
        struct kms_agentd_token *token = state->tokens.tokens[i];

        if (kms_agentd_token_conf(token)->certificate_count > 0) {
            kms_agentd_token_tend(token, timeout_ns);
            status = kms_agentd_token_check(token, err);
        }
    }
    return status;
}

struct kms_agentd_change {
    struct kms_agentd_state *state;
};

enum kms_status kms_agentd_prepare(struct kms_agentd *agentd, struct kms_conf *conf,
                                   struct kms_agentd_change **ret_change, struct kms_error *err)
{
    struct kms_agentd_change *change = calloc(1, sizeof(*change));
    enum kms_status status = KMS_OK;

    if (change == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    status = state_new(agentd->backends, conf, &change->state, err);
    if (status == KMS_OK) {
        status = match_certificates(change->state, conf->agent.call_timeout_ns, err);
    }
    if (status != KMS_OK) {
        kms_agentd_cancel(change);
        return status;
    }
    *ret_change = change;
    return KMS_OK;
}

void kms_agentd_cancel(struct kms_agentd_change *change)
{
    if (change != NULL) {
        state_put(change->state);
        free(change);
    }
}

void kms_agentd_apply(struct kms_agentd *agentd, struct kms_agentd_change *change)
{
    const struct kms_limits_conf limits = limits_conf(&change->state->conf->agent);
    struct kms_agentd_state *was = NULL;

    kms_limits_configure(agentd->common.limits, &limits);
    pthread_mutex_lock(&agentd->mutex);
    was = agentd->state;
    agentd->state = change->state;
    pthread_mutex_unlock(&agentd->mutex);
    warn_restart(&was->conf->agent, &change->state->conf->agent);
    state_put(was);
    free(change);
}

/* --- stop, and how it is ------------------------------------------------------------------------
 */

/* Whoever waits for a request sees the end of it; whoever answers one goes on. */
static void hang_up(struct kms_agentd *agentd, int how)
{
    pthread_mutex_lock(&agentd->mutex);
    agentd->stopping = true;
    for (struct connection *conn = agentd->connections; conn != NULL; conn = conn->next) {
        (void)shutdown(conn->fd, how);
    }
    pthread_mutex_unlock(&agentd->mutex);
}

static bool wait_all_left(struct kms_agentd *agentd, uint64_t deadline_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline_ns / KMS_NS_PER_S),
                                   .tv_nsec = (long)(deadline_ns % KMS_NS_PER_S)};
    bool waits = true;
    bool all = false;

    pthread_mutex_lock(&agentd->mutex);
    while (waits && agentd->connection_count > 0) {
        waits = pthread_cond_timedwait(&agentd->left, &agentd->mutex, &until) == 0;
    }
    all = agentd->connection_count == 0;
    pthread_mutex_unlock(&agentd->mutex);
    return all;
}

bool kms_agentd_stop(struct kms_agentd *agentd, uint64_t grace_ns)
{
    const uint64_t one = 1;
    uint64_t deadline_ns = kms_deadline_in(grace_ns);

    if (agentd == NULL) {
        return true;
    }
    if (agentd->running && write(agentd->wake_fd, &one, sizeof(one)) == (ssize_t)sizeof(one)) {
        pthread_join(agentd->thread, NULL);
    }
    hang_up(agentd, SHUT_RD);
    if (!wait_all_left(agentd, deadline_ns)) {
        hang_up(agentd, SHUT_RDWR); /* those who do not take their answers */
        if (!wait_all_left(agentd, kms_deadline_in(KMS_NS_PER_S))) {
            kms_socket_close(agentd->socket);
            return false;
        }
    }
    free_all(agentd);
    return true;
}

bool kms_agentd_is_idle(struct kms_agentd *agentd)
{
    bool idle = false;

    pthread_mutex_lock(&agentd->mutex);
    idle = agentd->state->conf->agent.is_private && agentd->idle_since_ns != 0 &&
           kms_now_ns() - agentd->idle_since_ns >= agentd->state->conf->agent.idle_exit_ns;
    pthread_mutex_unlock(&agentd->mutex);
    return idle;
}

uint64_t kms_agentd_stuck_ns(struct kms_agentd *agentd)
{
    return kms_agentd_backends_stuck_ns(agentd->backends);
}

void kms_agentd_print(struct kms_agentd *agentd, FILE *out)
{
    kms_agentd_metrics_print(&agentd->common.metrics, out);
}

/* --- check --------------------------------------------------------------------------------------
 */

static enum kms_status check_token(struct kms_agentd_token *token, uint64_t timeout_ns, FILE *out,
                                   struct kms_error *err)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(timeout_ns), .trace_id = "check"};
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = kms_agentd_token_keys(token, &call, &keys);

    if (status != KMS_OK) {
        return kms_error_set(err, status, "token %s: %s", kms_agentd_token_name(token),
                             call.error.text);
    }
    status = kms_agentd_token_check(token, err);
    if (status == KMS_OK) {
        fprintf(out, "agent: token %s: good; %zu key(s)\n", kms_agentd_token_name(token),
                keys->count);
    }
    kms_agentd_keys_put(keys);
    return status;
}

enum kms_status kms_agentd_check(struct kms_conf *conf, uint64_t timeout_ns, FILE *out,
                                 struct kms_error *err)
{
    const struct kms_agentd_source none = {.get = NULL};
    struct kms_agentd_backends *backends = kms_agentd_backends_new(&none, NULL, NULL);
    struct kms_agentd_state *state = NULL;
    enum kms_status status = KMS_OK;

    if (backends == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    status = state_new(backends, conf, &state, err);
    for (size_t i = 0; status == KMS_OK && i < state->tokens.count; i++) {
        status = check_token(state->tokens.tokens[i], timeout_ns, out, err);
    }
    state_put(state);
    kms_agentd_backends_free(backends);
    return status;
}
