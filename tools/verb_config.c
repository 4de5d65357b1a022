/* SPDX-License-Identifier: Apache-2.0 */
/* config check: reads the configuration as the daemon does, and looks at what it refers to. */
#include "tools/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/secret.h"
#include "tools/context.h"

#define LINES_MAX 2048 /* more than a configuration can have: 64 backends of 24, agent and kms */
#define CELLS     3

static const struct kms_column columns[CELLS] = {
    {"key", "KEY", KMS_CELL_TEXT},
    {"value", "VALUE", KMS_CELL_TEXT},
    {"check", "CHECK", KMS_CELL_TEXT},
};

struct report {
    char *cells[LINES_MAX * CELLS];
    size_t lines;
    bool no_memory;
    struct kms_failure *failure; /* the first thing that is wrong */
};

static void say(struct report *report, const char *key, const char *check, const char *fmt, ...)
    KMS_PRINTF(4, 5);

/* A line; @check is NULL for a value that needs no look beyond itself. */
static void say(struct report *report, const char *key, const char *check, const char *fmt, ...)
{
    char **cells = &report->cells[report->lines * CELLS];
    va_list args;

    if (report->lines == LINES_MAX) {
        return;
    }
    va_start(args, fmt);
    if (vasprintf(&cells[1], fmt, args) < 0) {
        cells[1] = NULL;
        report->no_memory = true;
    }
    va_end(args);
    cells[0] = strdup(key);
    cells[2] = strdup(check != NULL ? check : "ok");
    report->no_memory = report->no_memory || cells[0] == NULL || cells[2] == NULL;
    report->lines++;
}

/* ---- what is referred to --------------------------------------------------------------------- */

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether only the daemon's own environment has it: then it cannot be judged from here. */
static bool only_daemon_sees(const char *ref)
{
    return (starts_with(ref, "credential:") && secure_getenv("CREDENTIALS_DIRECTORY") == NULL) ||
           (starts_with(ref, "env:") && secure_getenv(ref + strlen("env:")) == NULL);
}

/* Says that @value of @key does not do, and why. */
static void say_failed(struct report *report, const char *key, const char *value,
                       const struct kms_error *error, const char *next)
{
    say(report, key, "failed", "%s", value);
    (void)kms_error_set(&report->failure->error, error->status, "%s: %s", key, error->text);
    (void)kms_fail(report->failure, KMS_EXIT_CONFIG, "%s", next);
}

/* @ref NULL: there is none. */
static void check_secret(struct report *report, const char *key, const char *ref)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_secret *secret = NULL;

    if (ref == NULL) {
        return;
    }
    if (only_daemon_sees(ref)) {
        say(report, key, "only the daemon sees it", "%s", ref);
    } else if (kms_secret_load(ref, &secret, &error) == KMS_OK) {
        say(report, key, NULL, "%s", ref);
        kms_secret_free(secret);
    } else {
        say_failed(report, key, ref, &error,
                   "a secret's file holds it alone, belongs to root or the daemon's user, which "
                   "can read it, and is closed to others");
    }
}

/* @path NULL: there is none. */
static void check_file(struct report *report, const char *key, const char *path,
                       enum kms_file_care care)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (path != NULL && kms_file_check(path, care, &error) == KMS_OK) {
        say(report, key, NULL, "%s", path);
    } else if (path != NULL) {
        say_failed(report, key, path, &error, "see that the file is there, and who owns it");
    }
}

/* What a backend says of its settings before it asks anybody. */
static void check_opens(struct report *report, const char *key,
                        const struct kms_backend_conf *backend)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_waist *waist = NULL;

    if (kms_waist_open(backend, NULL, NULL, &waist, &error) == KMS_OK) {
        say(report, key, NULL, "%s", backend->type);
        kms_waist_close(waist);
    } else {
        say_failed(report, key, backend->type, &error, "correct this entry of backends");
    }
}

/* What a library reads by itself, whoever owns it. @path NULL: there is none. */
static void check_readable(struct report *report, const char *key, const char *path,
                           const char *next)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (path != NULL && access(path, R_OK) == 0) {
        say(report, key, NULL, "%s", path);
    } else if (path != NULL) {
        (void)kms_error_set(&error, KMS_E_NOT_FOUND, "%s: %s", path, strerror(errno));
        say_failed(report, key, path, &error, next);
    }
}

static void check_module(struct report *report, const char *key, const char *module)
{
    if (strchr(module, '/') == NULL) {
        say(report, key, "p11-kit looks it up", "%s", module);
        return;
    }
    check_readable(report, key, module, "install the PKCS#11 module, or correct its path");
}

static void check_certificates(struct report *report, const char *key, const char *path)
{
    check_readable(report, key, path,
                   "see that the file is there, and that the daemon can read it");
}

/* ---- what the file says ---------------------------------------------------------------------- */

/* "backends.NAME.KEY", in a place that the next call takes again. */
static const char *key_of(const struct kms_backend_conf *backend, const char *key)
{
    static char text[128];

    snprintf(text, sizeof(text), "backends.%s.%s", backend->name, key);
    return text;
}

static void report_hsm(struct report *report, const struct kms_backend_conf *backend)
{
    const struct kms_hsm_conf *hsm = backend->hsm;

    say(report, key_of(backend, "type"), NULL, "%s", backend->type);
    check_module(report, key_of(backend, "module"), hsm->module);
    say(report, key_of(backend, "token"), NULL, "%s", hsm->token);
    if (hsm->pin == NULL) {
        say(report, key_of(backend, "pin"), NULL, "(no login)");
    }
    check_secret(report, key_of(backend, "pin"), hsm->pin);
}

static void report_vault(struct report *report, const struct kms_backend_conf *backend)
{
    const struct kms_vault_conf *vault = backend->vault;
    const struct kms_vault_auth_conf *auth = vault->auth;
    bool key_is_file = vault->key != NULL && vault->key[0] == '/';
    bool jwt_is_file = auth->jwt != NULL && starts_with(auth->jwt, "file:");

    check_opens(report, key_of(backend, "type"), backend);
    for (unsigned i = 0; i < vault->addresses_count; i++) {
        say(report, key_of(backend, "addresses"), NULL, "%s", vault->addresses[i]);
    }
    check_certificates(report, key_of(backend, "ca_file"), vault->ca_file);
    check_certificates(report, key_of(backend, "certificate"), vault->certificate);
    check_file(report, key_of(backend, "key"), key_is_file ? vault->key : NULL, KMS_FILE_SECRET);
    say(report, key_of(backend, "auth.method"), NULL, "%s", auth->method);
    check_secret(report, key_of(backend, "auth.token"), auth->token);
    check_secret(report, key_of(backend, "auth.secret_id"), auth->secret_id);
    /* the kubelet's may be open to all */
    check_secret(report, key_of(backend, "auth.jwt"), jwt_is_file ? NULL : auth->jwt);
    check_file(report, key_of(backend, "auth.jwt"),
               jwt_is_file ? auth->jwt + strlen("file:") : NULL, KMS_FILE_CONFIG);
}

static void report_alibaba(struct report *report, const struct kms_backend_conf *backend)
{
    const struct kms_alibaba_conf *ali = backend->alibaba;
    const struct {
        const char *key, *path;
        enum kms_file_care care;
    } files[] = {{"oidc_token_file", ali->oidc_token_file, KMS_FILE_CONFIG},
                 {"cli_file", ali->cli_file, KMS_FILE_SECRET},
                 {"profile_file", ali->profile_file, KMS_FILE_SECRET}};

    check_opens(report, key_of(backend, "type"), backend);
    say(report, key_of(backend, ali->endpoint != NULL ? "endpoint" : "region"), NULL, "%s",
        ali->endpoint != NULL ? ali->endpoint : ali->region);
    say(report, key_of(backend, "credentials"), NULL, "%s",
        ali->credentials != NULL ? ali->credentials : "auto");
    check_certificates(report, key_of(backend, "ca_file"), ali->ca_file);
    check_certificates(report, key_of(backend, "management_ca_file"), ali->management_ca_file);
    check_certificates(report, key_of(backend, "sts_ca_file"), ali->sts_ca_file);
    check_secret(report, key_of(backend, "access_key_secret"), ali->access_key_secret);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        check_file(report, key_of(backend, files[i].key), files[i].path, files[i].care);
    }
}

static void report_backend(struct report *report, const struct kms_backend_conf *backend)
{
    if (backend->vault != NULL) {
        report_vault(report, backend);
    } else if (backend->alibaba != NULL) {
        report_alibaba(report, backend);
    } else {
        report_hsm(report, backend);
    }
}

static void ids_text(const unsigned *ids, size_t count, char *ret_text, size_t size)
{
    size_t i, len = 0;

    snprintf(ret_text, size, "-");
    for (i = 0; i < count && len < size; i++) {
        len += (size_t)snprintf(ret_text + len, size - len, "%s%u", i > 0 ? "," : "", ids[i]);
    }
}

static void report_kms(struct report *report, const struct kms_kms_conf *kms)
{
    char ids[256];

    say(report, "kms.socket", NULL, "%s", kms->socket);
    say(report, "kms.mode", NULL, "%04o", (unsigned)kms->mode);
    ids_text(kms->allow_uids, kms->allow_uid_count, ids, sizeof(ids));
    say(report, "kms.allow_uids", NULL, "%s", ids);
    ids_text(kms->allow_gids, kms->allow_gid_count, ids, sizeof(ids));
    say(report, "kms.allow_gids", NULL, "%s", ids);
    say(report, "kms.backend", NULL, "%s", kms->backend);
    say(report, "kms.key", NULL, "%s", kms->key);
    say(report, "kms.api_version", NULL, "%s", kms->api_version);
    say(report, "kms.provider_name", NULL, "%s", kms->provider_name);
    say(report, "kms.on_failure", NULL, "%s",
        kms->on_failure == KMS_STOP_WRITING ? "stop-writing" : "keep-writing");
    say(report, "kms.probe_interval", NULL, "%llums",
        (unsigned long long)(kms->probe_interval_ns / KMS_NS_PER_MS));
    say(report, "kms.refresh_interval", NULL, "%llums",
        (unsigned long long)(kms->refresh_interval_ns / KMS_NS_PER_MS));
    say(report, "kms.call_timeout", NULL, "%llums",
        (unsigned long long)(kms->call_timeout_ns / KMS_NS_PER_MS));
    say(report, "kms.max_connections", NULL, "%u", kms->max_connections);
    say(report, "kms.max_calls", NULL, "%u", kms->max_calls);
    say(report, "kms.workers", NULL, "%u", kms->workers);
    say(report, "kms.queue", NULL, "%u", kms->queue);
}

static void report_agent(struct report *report, const struct kms_agentd_conf *agent)
{
    say(report, "agent.socket", NULL, "%s", agent->socket);
    say(report, "agent.mode", NULL, "%04o", (unsigned)agent->mode);
    for (size_t i = 0; i < agent->token_count; i++) {
        const struct kms_agentd_token_conf *token = &agent->tokens[i];
        char key[128];

        snprintf(key, sizeof(key), "agent.tokens.%s", token->backend);
        say(report, key, NULL, "%zu keys named, %zu certificates", token->key_count,
            token->certificate_count);
    }
    say(report, "agent.rules", NULL, "%zu, for others than root and the daemon's user",
        agent->rule_count);
}

static void report_all(struct report *report, const struct kms_conf *conf)
{
    size_t i;

    say(report, "file", NULL, "%s", conf->path);
    for (i = 0; i < conf->backend_count; i++) {
        report_backend(report, &conf->backends[i]);
    }
    if (conf->kms.socket != NULL) {
        report_kms(report, &conf->kms);
    }
    if (conf->agent.on) {
        report_agent(report, &conf->agent);
    }
    say(report, "monitor.listen", NULL, "%s",
        conf->monitor_listen != NULL ? conf->monitor_listen : "(no monitor)");
}

static void report_done(struct report *report)
{
    size_t i;

    for (i = 0; i < report->lines * CELLS; i++) {
        free(report->cells[i]);
    }
}

enum kms_exit kms_verb_config_check(const struct kms_options *options, struct kms_failure *failure)
{
    static struct report report; /* too large for a stack; the verb runs once */
    struct kms_error written = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;
    enum kms_exit code = kms_context_conf(options, &conf, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    report.failure = failure;
    report_all(&report, conf);
    if (report.no_memory) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        code = KMS_EXIT_FAILED;
    } else if (kms_output_rows(stdout, kms_option_given(options, KMS_OPT_JSON), "settings", columns,
                               CELLS, (const char *const *)report.cells, report.lines,
                               &written) != KMS_OK) {
        failure->error = written;
        code = KMS_EXIT_FAILED;
    } else if (failure->error.status != KMS_OK) {
        code = KMS_EXIT_CONFIG;
    }
    report_done(&report);
    kms_conf_done(conf);
    return code;
}
