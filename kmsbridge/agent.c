/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent.h"

#include <errno.h>
#include <pthread.h>
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

#define FDS_APART 192 /* ours, gRPC's, the KMS socket's, the monitor's, the PKCS#11 module's */

/* --- state --------------------------------------------------------------------------------------
 */

void kms_agentd_state_put(struct kms_agentd_state *state)
{
    if (state != NULL && atomic_fetch_sub(&state->refs, 1) == 1) {
        kms_agentd_tokens_done(&state->tokens);
        kms_conf_done(state->conf);
        free(state);
    }
}

struct kms_agentd_state *kms_agentd_state_get(struct kms_agentd *agentd)
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
        kms_agentd_state_put(state);
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

/* --- start --------------------------------------------------------------------------------------
 */

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
    kms_agentd_state_put(agentd->state);
    kms_agentd_backends_free(agentd->backends);
    kms_limits_free(agentd->common.limits);
    kms_agentd_pools_free(agentd->common.pools);
    kms_crew_done(&agentd->crew);
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
        pthread_create(&agentd->thread, NULL, kms_agentd_accept_main, agentd) != 0) {
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
    kms_crew_init(&agentd->crew);
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
    for (size_t i = 0; !start->conf->agent.is_private && i < agentd->state->tokens.count; i++) {
        kms_agentd_token_tend(agentd->state->tokens.tokens[i]); /* what is wrong is told now */
    }
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
        struct kms_call call = {.deadline_ns = kms_deadline_in(timeout_ns), .trace_id = "agent"};
        struct kms_agentd_keys *keys = NULL;

        if (kms_agentd_token_conf(token)->certificate_count > 0) {
            if (kms_agentd_token_keys(token, &call, &keys) != KMS_OK) {
                kms_error_clear(&call.error); /* it is told when the list ends */
            }
            kms_agentd_keys_put(keys);
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
        kms_agentd_state_put(change->state);
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
    kms_agentd_backends_warn(agentd->backends, change->state->conf);
    kms_agentd_state_put(was);
    free(change);
}

/* --- stop, and how it is ------------------------------------------------------------------------
 */

/* Whoever waits for a request sees the end of it; whoever answers one goes on. */
static void hang_up(struct kms_agentd *agentd, int how)
{
    pthread_mutex_lock(&agentd->mutex);
    agentd->stopping = true;
    for (struct kms_agentd_conn *conn = agentd->connections; conn != NULL; conn = conn->next) {
        (void)shutdown(conn->fd, how);
    }
    pthread_mutex_unlock(&agentd->mutex);
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
    (void)kms_agentd_backends_land(agentd->backends, 0); /* tells them, and does not wait yet */
    hang_up(agentd, SHUT_RD);
    if (!kms_crew_wait(&agentd->crew, deadline_ns)) {
        hang_up(agentd, SHUT_RDWR); /* those who do not take their answers */
        if (!kms_crew_wait(&agentd->crew, kms_deadline_in(KMS_NS_PER_S))) {
            kms_socket_close(agentd->socket);
            return false;
        }
    }
    if (!kms_agentd_backends_land(agentd->backends, deadline_ns)) {
        kms_socket_close(agentd->socket);
        return false;
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
    kms_agentd_state_put(state);
    if (kms_agentd_backends_land(backends, kms_deadline_in(timeout_ns))) {
        kms_agentd_backends_free(backends);
    }
    return status;
}
