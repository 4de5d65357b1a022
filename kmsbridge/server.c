/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/secure.h"
#include "kmsbridge/notify.h"
#include "kmsbridge/server_parts.h"

#define STOP_GRACE_NS  (5 * KMS_NS_PER_S)
#define CLOSE_GRACE_NS (5 * KMS_NS_PER_S)
/* tests/daemon/Makefile.am builds a daemon that loses patience sooner */
#ifndef KMS_POLLER_DEAD_NS
#define KMS_POLLER_DEAD_NS (15 * KMS_NS_PER_S) /* it goes round once a second */
#endif
#ifndef KMS_WEDGED_NS
#define KMS_WEDGED_NS (60 * KMS_NS_PER_S) /* a call inside the key service that does not return */
#endif
#define CHECK_TIMEOUT (10 * KMS_NS_PER_S)
#define LOCKED_BYTES  (256u * 1024u) /* about what the pools of secrets take */

void kms_server_on_backend(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
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

struct kms_socket_conf kms_server_socket_conf(const struct kms_conf *conf)
{
    return (struct kms_socket_conf){.path = conf->kms.socket,
                                    .mode = conf->kms.mode,
                                    .owner = conf->kms.owner,
                                    .group = conf->kms.group};
}

struct kms_peers kms_server_peers(const struct kms_conf *conf)
{
    return (struct kms_peers){.uids = conf->kms.allow_uids,
                              .uid_count = conf->kms.allow_uid_count,
                              .gids = conf->kms.allow_gids,
                              .gid_count = conf->kms.allow_gid_count};
}

/* --- how it is --- */

static uint64_t oldest_ns(struct kms_server *server)
{
    uint64_t kms = kms_keks_stuck_ns(&server->keks);
    uint64_t agent = server->agentd != NULL ? kms_agentd_stuck_ns(server->agentd) : 0;
    return kms > agent ? kms : agent;
}

bool kms_server_live(struct kms_server *server, char *ret_text, size_t size)
{
    struct kms_rpc_stats stats = {.poller_quiet_ns = 0};
    uint64_t stuck_ns = oldest_ns(server);
    if (server->rpc != NULL) {
        kms_rpc_stats(server->rpc, &stats);
    }
    if (stats.poller_quiet_ns > KMS_POLLER_DEAD_NS) {
        snprintf(ret_text, size, "the polling thread has not gone round for %llu s",
                 (unsigned long long)(stats.poller_quiet_ns / KMS_NS_PER_S));
        return false;
    }
    if (stuck_ns > KMS_WEDGED_NS) {
        snprintf(ret_text, size, "a call has been stuck in the key service for %llu s",
                 (unsigned long long)(stuck_ns / KMS_NS_PER_S));
        return false;
    }
    snprintf(ret_text, size, "ok");
    return true;
}

static void verdict_now(struct kms_server *server, struct kms_verdict *ret_verdict)
{
    struct kms_kek *kek = kms_keks_get(&server->keks);
    kms_healthd_verdict(kek->health, ret_verdict);
    kms_kek_put(kek);
}

bool kms_server_ready(struct kms_server *server, char *ret_text, size_t size)
{
    struct kms_verdict verdict;
    if (!kms_server_has_kms(server)) {
        snprintf(ret_text, size, "the agent serves");
        return true;
    }
    verdict_now(server, &verdict);
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
    struct kms_verdict verdict = {.known = true, .good = true};
    if (kms_server_has_kms(server)) {
        verdict_now(server, &verdict);
    }
    bool ready = verdict.known && verdict.good;
    fprintf(out, "%s\n",
            ready           ? "ok"
            : verdict.known ? kms_status_name(verdict.error.status)
                            : "starting");
    return ready;
}

static void print_audit(struct kms_server *server, FILE *out)
{
    fprintf(out, "# HELP kmsbridge_audit_lost_total Audit lines that could not be written.\n"
                 "# TYPE kmsbridge_audit_lost_total counter\n");
    fprintf(out, "kmsbridge_audit_lost_total %llu\n",
            (unsigned long long)kms_audit_lost(server->audit));
}

static void print_kms(struct kms_server *server, FILE *out)
{
    struct kms_verdict verdict;
    struct kms_rpc_stats stats;
    struct kms_gauges gauges = {.connections = kms_door_connections(server->door)};
    struct kms_kek *kek = kms_keks_get(&server->keks);
    gauges.keys = kms_keyring_count(kek->ring);
    kms_healthd_verdict(kek->health, &verdict);
    if (kms_keyring_active(kek->ring, gauges.key_id) == KMS_E_NOT_FOUND) { /* as Status names it */
        gauges.key_id[0] = '\0';
    }
    kms_waist_health(kek->waist, &gauges.backend);
    kms_kek_put(kek);
    kms_rpc_stats(server->rpc, &stats);
    gauges.kek_known = verdict.known;
    gauges.kek_good = verdict.good;
    gauges.proof_age_seconds = (double)verdict.age_ns / (double)KMS_NS_PER_S;
    gauges.calls_in_flight = stats.calls_in_flight;
    gauges.queued = stats.queued;
    gauges.workers = stats.workers;
    kms_metrics_print(&server->metrics, &gauges, out);
}

static void page_metrics(void *ctx, FILE *out)
{
    struct kms_server *server = ctx;
    if (kms_server_has_kms(server)) {
        print_kms(server, out);
    } else {
        kms_metrics_print(&server->metrics, NULL, out);
    }
    print_audit(server, out);
    if (server->agentd != NULL) {
        kms_agentd_print(server->agentd, out);
    }
}

/* --- start and stop --- */

static enum kms_status start_key_service(struct kms_server *server, struct kms_error *err)
{
    struct kms_kek *kek = NULL;
    enum kms_status status =
        kms_kek_open(&server->keks, server->conf, kms_server_on_backend, server, &kek, err);
    if (status == KMS_OK) {
        kms_kek_serve(kek);
    }
    return status;
}

static enum kms_status start_front(struct kms_server *server, struct kms_error *err)
{
    const struct kms_kms_conf *kms = &server->conf->kms;
    const struct kms_socket_conf socket = kms_server_socket_conf(server->conf);
    server->limits = (struct kms_rpc_limits){.calls = kms->max_calls,
                                             .workers = kms->workers,
                                             .queue = kms->queue,
                                             .call_timeout_ns = kms->call_timeout_ns};
    server->kms.keks = &server->keks;
    server->kms.metrics = &server->metrics;
    atomic_store(&server->kms.on_failure, (int)kms->on_failure);
    atomic_store(&server->kms.api_version, kms->api_version);
    enum kms_status status = kms_socket_open(&socket, &server->socket, err);
    if (status != KMS_OK) {
        return status;
    }
    return kms_rpc_start(kms_v2_methods, &server->kms, &server->limits, kms_v2_observe,
                         &server->rpc, err);
}

enum kms_status kms_server_start_monitor(struct kms_server *server, const char *listen,
                                         struct kms_monitor **ret_monitor, struct kms_error *err)
{
    const struct kms_monitor_source source = {
        .ctx = server, .live = page_live, .ready = page_ready, .metrics = page_metrics};
    return kms_monitor_start(listen, &source, ret_monitor, err);
}

static bool wait_known(struct kms_server *server)
{
    struct kms_kek *kek = kms_keks_get(&server->keks);
    bool known = kms_healthd_wait_known(kek->health, kms_deadline_in(KMS_FIRST_VERDICT_NS));
    kms_kek_put(kek);
    return known;
}

static enum kms_status start_door(struct kms_server *server, struct kms_error *err)
{
    const struct kms_conf *conf = server->conf;
    const struct kms_door_conf door = {.listen_fd = kms_socket_fd(server->socket),
                                       .peers = kms_server_peers(conf),
                                       .max_connections = conf->kms.max_connections,
                                       .metrics = &server->metrics,
                                       .serve = on_connection,
                                       .ctx = server};
    if (!wait_known(server)) {
        kms_log(KMS_LOG_WARN, "server: the key service has not answered yet; serving all the same");
    }
    return kms_door_open(&door, &server->door, err);
}

static enum kms_status start_kms(struct kms_server *server, struct kms_error *err)
{
    enum kms_status status = start_key_service(server, err);
    if (status == KMS_OK) {
        status = start_front(server, err);
    }
    return status;
}

/* Those who look after us last: what they see is there. */
static enum kms_status start_all(struct kms_server *server, struct kms_error *err)
{
    const struct kms_conf *conf = server->conf;
    enum kms_status status = kms_server_start_audit(server, err);
    if (status == KMS_OK && kms_server_has_kms(server)) {
        status = start_kms(server, err);
    }
    if (status == KMS_OK) {
        status = kms_server_start_agent(server, err);
    }
    if (status == KMS_OK && kms_server_has_kms(server)) {
        status = start_door(server, err);
    }
    if (status == KMS_OK && conf->monitor_listen != NULL) {
        status = kms_server_start_monitor(server, conf->monitor_listen, &server->monitor, err);
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
    server->has_kms = conf->kms.socket != NULL;
    kms_keks_init(&server->keks);
    if (!kms_secure_can_lock(LOCKED_BYTES)) {
        kms_log(KMS_LOG_WARN,
                "memory of secrets cannot be locked (RLIMIT_MEMLOCK): it may reach swap");
    }
    enum kms_status status = start_all(server, err);
    if (status != KMS_OK) {
        (void)kms_server_stop(server);
        return status;
    }
    if (kms_server_has_kms(server)) {
        kms_log(KMS_LOG_INFO, "server: serving KMS %s on %s", conf->kms.api_version,
                conf->kms.socket);
    }
    *ret_server = server;
    return KMS_OK;
}

bool kms_server_stop(struct kms_server *server)
{
    if (server->door != NULL) {
        kms_door_shut(server->door);
    }
    kms_monitor_stop(server->monitor);                           /* it asks the others */
    bool clean = kms_agentd_stop(server->agentd, STOP_GRACE_NS); /* it borrows the KEK's waist */
    clean = (server->rpc == NULL || kms_rpc_stop(server->rpc, STOP_GRACE_NS)) && clean;
    kms_door_close(server->door);
    kms_socket_close(server->socket);
    /* a worker that is stuck comes back to all of this some time: nothing is freed under it */
    if (!clean || !kms_keks_done(&server->keks, CLOSE_GRACE_NS)) {
        kms_log(KMS_LOG_WARN, "server: a call is stuck in the key service; leaving without it");
        return false;
    }
    kms_audit_close(server->audit);
    kms_conf_done(server->conf);
    free(server);
    return true;
}

/* --- check --- */

static enum kms_status check_kms(const struct kms_conf *conf, struct kms_error *err)
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

enum kms_status kms_server_check(struct kms_conf *conf, struct kms_error *err)
{
    enum kms_status status = conf->kms.socket != NULL ? check_kms(conf, err) : KMS_OK;
    if (status == KMS_OK && conf->agent.on) {
        status = kms_agentd_check(conf, CHECK_TIMEOUT, stdout, err);
    }
    return status;
}

bool kms_server_idle(struct kms_server *server)
{
    return server->agentd != NULL && kms_agentd_is_idle(server->agentd);
}

uint64_t kms_server_idle_round_ns(const struct kms_server *server)
{
    return server->conf->agent.is_private ? server->conf->agent.idle_exit_ns / 4 : UINT64_MAX;
}
