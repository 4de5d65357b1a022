/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP. Everything that can fail is done first and beside what serves: the file is read, a new
 * KEK is proven, a new socket bound. Only then anything changes, and none of that can fail: so a
 * reload is applied whole or not at all.
 */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/log_file.h"
#include "kmsbridge/server_parts.h"

#define TRIAL_NS (10 * KMS_NS_PER_S) /* for a new KEK to be proven */
#define SLICE_NS (250 * KMS_NS_PER_MS)

/* What a reload puts in place of what serves; NULL: that stays. */
struct change {
    struct kms_conf *conf;
    struct kms_kek *kek;
    struct kms_socket *socket;
    struct kms_monitor *monitor;
    struct kms_agentd_change *agent;
    int log_fd; /* of log.file, opened anew; -1: there is none */
};

/* --- what is different --- */

/* Entries of `backends:` that kms.backend does not name are nobody's. */
static bool kek_same(const struct kms_conf *a, const struct kms_conf *b)
{
    return kms_text_equal(a->kms.key, b->kms.key) &&
           kms_backend_conf_same(kms_conf_backend(a, a->kms.backend),
                                 kms_conf_backend(b, b->kms.backend));
}

static bool restrictions_same(const struct kms_kms_conf *a, const struct kms_kms_conf *b)
{
    return a->mode == b->mode && a->owner == b->owner && a->group == b->group;
}

static void warn_restart(const struct kms_rpc_limits *was, const struct kms_kms_conf *now)
{
    const struct {
        const char *key;
        bool differs;
    } rows[] = {
        {"kms.max_calls", was->calls != now->max_calls},
        {"kms.workers", was->workers != now->workers},
        {"kms.queue", was->queue != now->queue},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].differs) {
            kms_log(KMS_LOG_WARN, "reload: %s has changed and needs a restart to take effect",
                    rows[i].key);
        }
    }
}

/* --- a new KEK --- */

static const struct kms_hsm_conf *hsm_of(const struct kms_conf *conf)
{
    return kms_conf_backend(conf, conf->kms.backend)->hsm;
}

/* The first verdict on @kek. It is asked for by the probe's thread: a module that hangs does not
 * hang us. */
static void try_kek(struct kms_kek *kek, void (*meanwhile)(struct kms_server *server),
                    struct kms_server *server, struct kms_verdict *ret_verdict)
{
    const uint64_t end = kms_deadline_in(TRIAL_NS);
    while (!kms_healthd_wait_known(kek->health, kms_deadline_in(SLICE_NS)) &&
           !kms_deadline_passed(end)) {
        if (meanwhile != NULL) {
            meanwhile(server);
        }
    }
    kms_healthd_verdict(kek->health, ret_verdict);
    if (!ret_verdict->known) {
        ret_verdict->good = false;
        kms_error_set(&ret_verdict->error, KMS_E_TIMEOUT,
                      "the key service did not answer in %llu s",
                      (unsigned long long)(TRIAL_NS / KMS_NS_PER_S));
    }
}

/* The token stays logged in while one configuration follows the other on it: no PIN is asked for.
 */
static void warn_pin(const struct kms_conf *was, const struct kms_conf *now)
{
    const struct kms_hsm_conf *a = hsm_of(was);
    const struct kms_hsm_conf *b = hsm_of(now);
    if (a != NULL && b != NULL && kms_text_equal(a->module, b->module) &&
        kms_text_equal(a->token, b->token) && !kms_text_equal(a->pin, b->pin)) {
        kms_log(KMS_LOG_WARN,
                "reload: hsm.pin has changed and was read, but the token is logged in and does not "
                "try it before the next login; kmsbridged --check does");
    }
}

/*
 * A configuration that works is not given up for one that does not, not even one that is just away;
 * but one that never found a key is, as a start with the new one would.
 */
static enum kms_status prove_kek(struct kms_server *server, const struct kms_kek *was,
                                 struct kms_kek *kek, void (*meanwhile)(struct kms_server *server),
                                 struct kms_error *err)
{
    struct kms_verdict verdict;
    try_kek(kek, meanwhile, server, &verdict);
    if (verdict.good) {
        warn_pin(was->conf, kek->conf);
        return KMS_OK;
    }
    if (kms_keyring_count(was->ring) == 0) {
        return KMS_OK;
    }
    return kms_error_set_code(err, verdict.error.status, verdict.error.code,
                              "its KEK cannot be used: %s", verdict.error.text);
}

static enum kms_status change_kek(struct kms_server *server, struct change *change,
                                  void (*meanwhile)(struct kms_server *server),
                                  struct kms_error *err)
{
    struct kms_kek *was = kms_keks_get(&server->keks);
    enum kms_status status = KMS_OK;
    if (!kek_same(was->conf, change->conf)) {
        kms_log(KMS_LOG_INFO, "reload: another KEK is configured: it is tried");
        status = kms_kek_open(&server->keks, change->conf, kms_server_on_backend, server,
                              &change->kek, err);
        if (status == KMS_OK) {
            status = prove_kek(server, was, change->kek, meanwhile, err);
        }
    }
    kms_kek_put(was);
    return status;
}

/* Who switches to a KEK that lacks the former key should know. */
static void serve_kek(struct kms_server *server, struct kms_kek *kek)
{
    char from[KMS_KEY_ID_MAX];
    char to[KMS_KEY_ID_MAX];
    struct kms_kek *was = kms_keks_get(&server->keks);
    bool had = kms_keyring_active(was->ring, from) != KMS_E_NOT_FOUND;
    bool has = !had || kms_keyring_has(kek->ring, kms_span_str(from));
    bool found = kms_keyring_active(kek->ring, to) != KMS_E_NOT_FOUND;
    kms_kek_serve(kek);
    kms_kek_put(was);
    const struct kms_log_field fields[] = {{"key_id", found ? to : NULL},
                                           {"previous", had ? from : NULL}};
    kms_log_fields(KMS_LOG_INFO, fields, 2, "reload: another KEK serves");
    if (!has) {
        kms_log(KMS_LOG_WARN,
                "reload: key %s is not among the new KEK's: what it encrypted cannot be decrypted "
                "until a configuration that has it is back",
                from);
    }
}

/* --- doors --- */

static enum kms_status change_socket(struct kms_server *server, struct change *change,
                                     struct kms_error *err)
{
    const struct kms_socket_conf socket = kms_server_socket_conf(change->conf);
    if (!kms_text_equal(server->conf->kms.socket, socket.path)) {
        return kms_socket_open(&socket, &change->socket, err);
    }
    return restrictions_same(&server->conf->kms, &change->conf->kms)
               ? KMS_OK
               : kms_socket_restrict(server->socket, &socket, err);
}

static void serve_socket(struct kms_server *server, struct kms_socket *socket)
{
    kms_socket_hide(server->socket);
    kms_door_move(server->door, kms_socket_fd(socket));
    kms_socket_close(server->socket);
    server->socket = socket;
}

static enum kms_status change_monitor(struct kms_server *server, struct change *change,
                                      struct kms_error *err)
{
    const char *listen = change->conf->monitor_listen;
    return listen == NULL || kms_text_equal(listen, server->conf->monitor_listen)
               ? KMS_OK
               : kms_server_start_monitor(server, listen, &change->monitor, err);
}

/* --- the whole --- */

/* What was prepared and is not wanted after all. */
static void give_up(struct change *change)
{
    kms_agentd_cancel(change->agent);
    kms_log_file_close(change->log_fd);
    if (change->kek != NULL) {
        kms_kek_dismiss(change->kek);
    }
    kms_monitor_stop(change->monitor);
    kms_socket_close(change->socket);
    kms_conf_done(change->conf);
}

/* A private agent's socket is not the file's. */
static enum kms_status read_conf(struct kms_server *server, struct change *change,
                                 struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    if (!server->conf->agent.is_private) {
        return kms_conf_read(server->conf->path, &change->conf, err);
    }
    status = kms_conf_read_private(server->conf->path, &change->conf, err);
    if (status == KMS_OK) {
        kms_conf_make_private(change->conf, server->conf->agent.socket, server->conf->log_file);
    }
    return status;
}

static enum kms_status prepare(struct kms_server *server, struct change *change,
                               void (*meanwhile)(struct kms_server *server), struct kms_error *err)
{
    enum kms_status status = read_conf(server, change, err);
    if (status == KMS_OK) {
        status = kms_server_check_fronts(server->conf, change->conf, err);
    }
    if (status == KMS_OK && change->conf->log_file != NULL) {
        status = kms_log_file_open(change->conf->log_file, &change->log_fd, err);
    }
    if (status == KMS_OK && kms_server_has_kms(server)) {
        status = change_kek(server, change, meanwhile, err);
    }
    if (status == KMS_OK) {
        status = change_monitor(server, change, err);
    }
    if (status == KMS_OK && server->agentd != NULL) {
        status = kms_agentd_prepare(server->agentd, change->conf, &change->agent, err);
    }
    if (status == KMS_OK) { /* the former stays open when this fails */
        status = kms_audit_reopen(server->audit, &change->conf->audit, err);
    }
    if (status == KMS_OK && kms_server_has_kms(server)) {
        status = change_socket(server, change, err);
    }
    if (status == KMS_OK && kms_server_has_kms(server)) { /* last: it is applied at once */
        const struct kms_peers peers = kms_server_peers(change->conf);
        status = kms_door_configure(server->door, &peers, change->conf->kms.max_connections);
        if (status != KMS_OK) {
            kms_error_set(err, status, "reload: out of memory");
        }
    }
    return status;
}

static void apply_kms(struct kms_server *server, const struct kms_kms_conf *kms)
{
    const struct kms_health_conf health = {.probe_interval_ns = kms->probe_interval_ns,
                                           .refresh_interval_ns = kms->refresh_interval_ns,
                                           .call_timeout_ns = kms->call_timeout_ns};
    struct kms_kek *kek = kms_keks_get(&server->keks);
    kms_healthd_configure(kek->health, &health);
    kms_kek_put(kek);
    kms_rpc_set_call_timeout(server->rpc, kms->call_timeout_ns);
    atomic_store(&server->kms.on_failure, (int)kms->on_failure);
    atomic_store(&server->kms.api_version, kms->api_version);
    warn_restart(&server->limits, kms);
}

static void apply(struct kms_server *server, struct change *change)
{
    struct kms_conf *was = server->conf;
    server->conf = change->conf;
    kms_log_file_use(change->log_fd);
    kms_log_setup(2, server->conf->log_level, server->conf->log_format);
    if (change->agent != NULL) {
        kms_agentd_apply(server->agentd, change->agent);
    }
    if (change->kek != NULL) {
        serve_kek(server, change->kek);
    }
    if (change->socket != NULL) {
        serve_socket(server, change->socket);
        kms_log(KMS_LOG_INFO, "reload: serving on %s", server->conf->kms.socket);
    }
    if (!kms_text_equal(was->monitor_listen, server->conf->monitor_listen)) {
        kms_monitor_stop(server->monitor);
        server->monitor = change->monitor;
    }
    if (kms_server_has_kms(server)) {
        apply_kms(server, &server->conf->kms);
    }
    kms_conf_done(was);
}

enum kms_status kms_server_reload(struct kms_server *server,
                                  void (*meanwhile)(struct kms_server *server),
                                  struct kms_error *err)
{
    struct change change = {.conf = NULL, .log_fd = -1};
    enum kms_status status = prepare(server, &change, meanwhile, err);
    if (status == KMS_OK) {
        apply(server, &change);
    } else {
        give_up(&change);
    }
    if (kms_server_has_kms(server)) { /* PIN and new keys are looked at whatever the file says */
        struct kms_kek *kek = kms_keks_get(&server->keks);
        kms_healthd_kick(kek->health);
        kms_kek_put(kek);
    }
    atomic_fetch_add(
        status == KMS_OK ? &server->metrics.reloads_ok : &server->metrics.reloads_failed, 1);
    return status;
}
