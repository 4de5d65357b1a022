/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/waist.h"
#include "common/clock.h"
#include "common/secure.h"
#include "kmsbridge/door.h"
#include "kmsbridge/health.h"
#include "kmsbridge/keyring.h"
#include "kmsbridge/kms_v2.h"
#include "kmsbridge/metrics.h"
#include "kmsbridge/monitor.h"
#include "kmsbridge/notify.h"
#include "kmsbridge/rpc.h"
#include "kmsbridge/socket.h"

#define STOP_GRACE_NS  (5 * KMS_NS_PER_S)
#define POLLER_DEAD_NS (15 * KMS_NS_PER_S) /* it goes round once a second */
#ifndef KMS_WEDGED_NS /* tests/daemon/Makefile.am builds a daemon that loses patience sooner */
#define KMS_WEDGED_NS (60 * KMS_NS_PER_S) /* a call inside the key service that does not return */
#endif
#define CHECK_TIMEOUT (10 * KMS_NS_PER_S)
#define LOCKED_BYTES  (256u * 1024u) /* about what the pools of secrets take */

struct kms_server {
    struct kms_conf *conf; /* what the parts were started with; they borrow from it */
    struct kms_metrics metrics;
    struct kms_waist *waist;
    struct kms_keyring *ring;
    struct kms_healthd *health;
    struct kms_v2 kms;
    struct kms_rpc *rpc;
    struct kms_socket *socket;
    struct kms_door *door;
    struct kms_monitor *monitor;
};

static void on_backend(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
                       uint64_t ns)
{
    struct kms_server *server = ctx;
    (void)backend;
    kms_metrics_backend(&server->metrics, op, status, ns);
}

static void on_connection(void *ctx, int fd)
{
    struct kms_server *server = ctx;
    kms_rpc_serve_fd(server->rpc, fd);
}

static struct kms_health_conf health_conf(const struct kms_conf *conf)
{
    return (struct kms_health_conf){.probe_interval_ns = conf->kms.probe_interval_ns,
                                    .refresh_interval_ns = conf->kms.refresh_interval_ns,
                                    .call_timeout_ns = conf->kms.call_timeout_ns};
}

static struct kms_peers peers(const struct kms_conf *conf)
{
    return (struct kms_peers){.uids = conf->kms.allow_uids,
                              .uid_count = conf->kms.allow_uid_count,
                              .gids = conf->kms.allow_gids,
                              .gid_count = conf->kms.allow_gid_count};
}

/* --- how it is --- */

bool kms_server_live(struct kms_server *server, char *ret_text, size_t size)
{
    struct kms_rpc_stats stats;
    struct kms_health health;
    kms_rpc_stats(server->rpc, &stats);
    kms_waist_health(server->waist, &health);
    if (stats.poller_quiet_ns > POLLER_DEAD_NS) {
        snprintf(ret_text, size, "the polling thread has not gone round for %llu s",
                 (unsigned long long)(stats.poller_quiet_ns / KMS_NS_PER_S));
        return false;
    }
    if (health.stuck_ns > KMS_WEDGED_NS) {
        snprintf(ret_text, size, "a call has been stuck in the key service for %llu s",
                 (unsigned long long)(health.stuck_ns / KMS_NS_PER_S));
        return false;
    }
    snprintf(ret_text, size, "ok");
    return true;
}

bool kms_server_ready(struct kms_server *server, char *ret_text, size_t size)
{
    struct kms_verdict verdict;
    kms_healthd_verdict(server->health, &verdict);
    bool ready = verdict.known && verdict.good;
    if (ready) {
        snprintf(ret_text, size, "KEK is good, key_id %s", verdict.key_id);
    } else {
        snprintf(ret_text, size, "KEK is not usable: %s",
                 verdict.known ? verdict.error.text : "not yet known");
    }
    return ready;
}

static bool page_live(void *ctx, FILE *out)
{
    char text[KMS_ERROR_TEXT_MAX];
    bool live = kms_server_live(ctx, text, sizeof text);
    fprintf(out, "%s\n", text);
    return live;
}

/* The reason stays in our log: this page is for machines. */
static bool page_ready(void *ctx, FILE *out)
{
    struct kms_server *server = ctx;
    struct kms_verdict verdict;
    kms_healthd_verdict(server->health, &verdict);
    bool ready = verdict.known && verdict.good;
    fprintf(out, "%s\n",
            ready           ? "ok"
            : verdict.known ? kms_status_name(verdict.error.status)
                            : "starting");
    return ready;
}

static void page_metrics(void *ctx, FILE *out)
{
    struct kms_server *server = ctx;
    struct kms_verdict verdict;
    struct kms_rpc_stats stats;
    struct kms_gauges gauges = {.keys = kms_keyring_count(server->ring),
                                .connections = kms_door_connections(server->door)};
    kms_healthd_verdict(server->health, &verdict);
    kms_rpc_stats(server->rpc, &stats);
    kms_waist_health(server->waist, &gauges.backend);
    gauges.kek_known = verdict.known;
    gauges.kek_good = verdict.good;
    gauges.proof_age_seconds = (double)verdict.age_ns / (double)KMS_NS_PER_S;
    memcpy(gauges.key_id, verdict.key_id, sizeof gauges.key_id);
    gauges.calls_in_flight = stats.calls_in_flight;
    gauges.queued = stats.queued;
    gauges.workers = stats.workers;
    kms_metrics_print(&server->metrics, &gauges, out);
}

/* --- start and stop --- */

static enum kms_status start_key_service(struct kms_server *server, struct kms_error *err)
{
    const struct kms_conf *conf = server->conf;
    const struct kms_health_conf health = health_conf(conf);
    enum kms_status status = kms_waist_open(kms_conf_backend(conf, conf->kms.backend), on_backend,
                                            server, &server->waist, err);
    if (status != KMS_OK) {
        return status;
    }
    server->ring = kms_keyring_new(server->waist, conf->kms.key);
    if (server->ring != NULL) {
        server->health = kms_healthd_start(server->waist, server->ring, &health);
    }
    if (server->health == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "cannot start the probe: out of memory or threads");
    }
    return KMS_OK;
}

static enum kms_status start_front(struct kms_server *server, struct kms_error *err)
{
    const struct kms_kms_conf *kms = &server->conf->kms;
    const struct kms_rpc_limits limits = {.calls = kms->max_calls,
                                          .workers = kms->workers,
                                          .queue = kms->queue,
                                          .call_timeout_ns = kms->call_timeout_ns};
    const struct kms_socket_conf socket = {
        .path = kms->socket, .mode = kms->mode, .owner = kms->owner, .group = kms->group};
    server->kms.ring = server->ring;
    server->kms.health = server->health;
    server->kms.metrics = &server->metrics;
    atomic_store(&server->kms.on_failure, (int)kms->on_failure);
    atomic_store(&server->kms.api_version, kms->api_version);
    enum kms_status status = kms_socket_open(&socket, &server->socket, err);
    if (status != KMS_OK) {
        return status;
    }
    return kms_rpc_start(kms_v2_methods, &server->kms, &limits, kms_v2_observe, &server->rpc, err);
}

static enum kms_status start_doors(struct kms_server *server, struct kms_error *err)
{
    const struct kms_conf *conf = server->conf;
    const struct kms_door_conf door = {.listen_fd = kms_socket_fd(server->socket),
                                       .peers = peers(conf),
                                       .max_connections = conf->kms.max_connections,
                                       .metrics = &server->metrics,
                                       .serve = on_connection,
                                       .ctx = server};
    const struct kms_monitor_source source = {
        .ctx = server, .live = page_live, .ready = page_ready, .metrics = page_metrics};
    if (!kms_healthd_wait_known(server->health, kms_deadline_in(KMS_FIRST_VERDICT_NS))) {
        kms_log(KMS_LOG_WARN, "server: the key service has not answered yet; serving all the same");
    }
    enum kms_status status = kms_door_open(&door, &server->door, err);
    if (status == KMS_OK && conf->monitor_listen != NULL) {
        status = kms_monitor_start(conf->monitor_listen, &source, &server->monitor, err);
    }
    return status;
}

enum kms_status kms_server_start(struct kms_conf *conf, struct kms_server **ret_server,
                                 struct kms_error *err)
{
    struct kms_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        kms_conf_done(conf);
        return kms_error_set(err, KMS_E_NOMEM, "out of memory");
    }
    server->conf = conf;
    if (!kms_secure_can_lock(LOCKED_BYTES)) {
        kms_log(KMS_LOG_WARN,
                "memory of secrets cannot be locked (RLIMIT_MEMLOCK): it may reach swap");
    }
    enum kms_status status = start_key_service(server, err);
    if (status == KMS_OK) {
        status = start_front(server, err);
    }
    if (status == KMS_OK) {
        status = start_doors(server, err);
    }
    if (status != KMS_OK) {
        (void)kms_server_stop(server);
        return status;
    }
    kms_log(KMS_LOG_INFO, "server: serving KMS %s on %s", conf->kms.api_version, conf->kms.socket);
    *ret_server = server;
    return KMS_OK;
}

bool kms_server_stop(struct kms_server *server)
{
    if (server->door != NULL) {
        kms_door_shut(server->door);
    }
    kms_monitor_stop(server->monitor); /* it asks the others */
    bool clean = kms_rpc_stop(server->rpc, STOP_GRACE_NS);
    kms_door_close(server->door);
    kms_socket_close(server->socket);
    /* a worker that is stuck comes back to all of this some time: nothing is freed under it */
    if (!clean || !kms_healthd_stop(server->health, KMS_NS_PER_S)) {
        kms_log(KMS_LOG_WARN, "server: a call is stuck in the key service; leaving without it");
        return false;
    }
    kms_keyring_free(server->ring);
    kms_waist_close(server->waist);
    kms_conf_done(server->conf);
    free(server);
    return true;
}

/* --- reload --- */

static bool text_differs(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a != b : strcmp(a, b) != 0;
}

static bool hsm_differs(const struct kms_hsm_conf *a, const struct kms_hsm_conf *b)
{
    if (a == NULL || b == NULL) {
        return a != b;
    }
    return text_differs(a->module, b->module) || text_differs(a->token, b->token) ||
           text_differs(a->pin, b->pin) || a->sessions != b->sessions ||
           text_differs(a->mechanism, b->mechanism) || text_differs(a->init_args, b->init_args);
}

static bool backend_differs(const struct kms_conf *a, const struct kms_conf *b)
{
    const struct kms_backend_conf *was = kms_conf_backend(a, a->kms.backend);
    const struct kms_backend_conf *now = kms_conf_backend(b, b->kms.backend);
    return was == NULL || now == NULL || text_differs(was->type, now->type) ||
           hsm_differs(was->hsm, now->hsm);
}

static void warn_restart(const struct kms_conf *was, const struct kms_conf *now)
{
    const struct {
        const char *key;
        bool differs;
    } rows[] = {
        {"backends", backend_differs(was, now)},
        {"kms.backend", text_differs(was->kms.backend, now->kms.backend)},
        {"kms.key", text_differs(was->kms.key, now->kms.key)},
        {"kms.socket", text_differs(was->kms.socket, now->kms.socket)},
        {"kms.mode", was->kms.mode != now->kms.mode},
        {"kms.owner", was->kms.owner != now->kms.owner},
        {"kms.group", was->kms.group != now->kms.group},
        {"kms.max_calls", was->kms.max_calls != now->kms.max_calls},
        {"kms.workers", was->kms.workers != now->kms.workers},
        {"kms.queue", was->kms.queue != now->kms.queue},
        {"monitor.listen", text_differs(was->monitor_listen, now->monitor_listen)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].differs) {
            kms_log(KMS_LOG_WARN, "reload: %s has changed and needs a restart to take effect",
                    rows[i].key);
        }
    }
}

enum kms_status kms_server_reload(struct kms_server *server, struct kms_error *err)
{
    struct kms_conf *now = NULL;
    enum kms_status status = kms_conf_read(server->conf->path, &now, err);
    if (status == KMS_OK) {
        const struct kms_peers allowed = peers(now);
        status = kms_door_configure(server->door, &allowed, now->kms.max_connections);
        if (status != KMS_OK) {
            kms_error_set(err, status, "reload: out of memory");
        }
    }
    /* the PIN and new keys are looked at whatever the file says */
    kms_healthd_kick(server->health);
    if (status != KMS_OK) {
        atomic_fetch_add(&server->metrics.reloads_failed, 1);
        kms_conf_done(now);
        return status;
    }
    const struct kms_health_conf health = health_conf(now);
    warn_restart(server->conf, now);
    kms_log_setup(2, now->log_level, now->log_format);
    kms_healthd_configure(server->health, &health);
    kms_rpc_set_call_timeout(server->rpc, now->kms.call_timeout_ns);
    atomic_store(&server->kms.on_failure, (int)now->kms.on_failure);
    atomic_store(&server->kms.api_version, now->kms.api_version);
    kms_conf_done(now);
    atomic_fetch_add(&server->metrics.reloads_ok, 1);
    return KMS_OK;
}

/* --- check --- */

enum kms_status kms_server_check(const struct kms_conf *conf, struct kms_error *err)
{
    struct kms_waist *waist = NULL;
    enum kms_status status =
        kms_waist_open(kms_conf_backend(conf, conf->kms.backend), NULL, NULL, &waist, err);
    if (status != KMS_OK) {
        return status;
    }
    struct kms_call call = {.deadline_ns = kms_deadline_in(CHECK_TIMEOUT), .trace_id = "check"};
    struct kms_keyring *ring = kms_keyring_new(waist, conf->kms.key);
    char key_id[KMS_KEY_ID_MAX] = "";
    if (ring == NULL) {
        status = kms_error_set(&call.error, KMS_E_NOMEM, "out of memory");
    }
    if (status == KMS_OK) {
        status = kms_keyring_refresh(ring, &call); /* proves a first active key */
    }
    if (status == KMS_OK) {
        status = kms_keyring_active(ring, key_id);
    }
    if (status == KMS_OK) {
        printf("%s: good; KEK %s encrypts and decrypts, %zu key(s), backend %s\n", conf->path,
               key_id, kms_keyring_count(ring), conf->kms.backend);
    } else if (err != NULL) {
        *err = call.error;
    }
    kms_keyring_free(ring);
    kms_waist_close(waist);
    return status;
}
