/* SPDX-License-Identifier: Apache-2.0 */
/* config check: reads the configuration as the daemon does, and looks at what it refers to. */
#include "tools/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secret.h"
#include "tools/context.h"

#define LINES_MAX 512 /* more than a configuration can have: 64 backends of 4, and kms */
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

static void check_pin(struct report *report, const char *key, const char *ref)
{
    struct kms_failure *failure = report->failure;
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_secret *secret = NULL;

    if (ref == NULL) {
        say(report, key, NULL, "(no login)");
        return;
    }
    if (only_daemon_sees(ref)) {
        say(report, key, "only the daemon sees it", "%s", ref);
        return;
    }
    if (kms_secret_load(ref, &secret, &error) == KMS_OK) {
        say(report, key, NULL, "%s", ref);
        kms_secret_free(secret);
        return;
    }
    say(report, key, "failed", "%s", ref);
    (void)kms_error_set(&failure->error, error.status, "%s: %s", key, error.text);
    (void)kms_fail(
        failure, KMS_EXIT_CONFIG,
        "a PIN file holds the PIN alone, belongs to the daemon's user and has mode 0600");
}

static void check_module(struct report *report, const char *key, const char *module)
{
    struct kms_failure *failure = report->failure;

    if (strchr(module, '/') == NULL) {
        say(report, key, "p11-kit looks it up", "%s", module);
        return;
    }
    if (access(module, R_OK) == 0) {
        say(report, key, NULL, "%s", module);
        return;
    }
    say(report, key, "failed", "%s", module);
    (void)kms_error_set(&failure->error, KMS_E_NOT_FOUND, "%s: %s: %s", key, module,
                        strerror(errno));
    (void)kms_fail(failure, KMS_EXIT_CONFIG, "install the PKCS#11 module, or correct its path");
}

/* ---- what the file says ---------------------------------------------------------------------- */

static void report_backend(struct report *report, const struct kms_backend_conf *backend)
{
    const struct kms_hsm_conf *hsm = backend->hsm;
    char key[128];

    snprintf(key, sizeof(key), "backends.%s.type", backend->name);
    say(report, key, NULL, "%s", backend->type);
    if (hsm == NULL) {
        return;
    }
    snprintf(key, sizeof(key), "backends.%s.module", backend->name);
    check_module(report, key, hsm->module);
    snprintf(key, sizeof(key), "backends.%s.token", backend->name);
    say(report, key, NULL, "%s", hsm->token);
    snprintf(key, sizeof(key), "backends.%s.pin", backend->name);
    check_pin(report, key, hsm->pin);
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
