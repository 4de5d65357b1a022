/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP: what a new configuration changes while calls run, and what it takes to be refused. On
 * real SoftHSM tokens: "kmsbridge" with the keys "kek" and "other", and "second" with a "kek".
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/daemon/jobs.h"
#include "tests/daemon/manager.h"
#include "tests/unit/unit.h"

#define NAME    "test_reload"
#define PATIENT SEC(20)
#define SECOND  "second"
#define SOFTHSM "/usr/lib/softhsm/libsofthsm2.so"

static struct fixture fx;
static char shim[320]; /* the module that the fixture configures */

/* --- configuration ---------------------------------------------------------------------------- */

/* What differs from the fixture's; NULL: as there. */
struct setting {
    const char *module;
    const char *token;
    const char *pin; /* the whole reference */
    const char *more_hsm;
    const char *backend;
    const char *key;
    const char *socket;
    const char *more_kms;
    const char *monitor; /* as monitor.listen */
};

static const char *or_else(const char *text, const char *otherwise)
{
    return text == NULL ? otherwise : text;
}

static void configure(const struct setting *set)
{
    char text[4096];
    char pin[128];
    char monitor[128];

    (void)snprintf(pin, sizeof(pin), "file:%s", fx.pin_file);
    (void)snprintf(monitor, sizeof(monitor), "unix:%s", fx.monitor);
    (void)snprintf(text, sizeof(text),
                   "version: 1\n"
                   "backends:\n"
                   "  - name: hsm\n"
                   "    type: hsm\n"
                   "    hsm:\n"
                   "      module: %s\n"
                   "      token: %s\n"
                   "      pin: %s\n"
                   "%s"
                   "kms:\n"
                   "  socket: \"%s\"\n"
                   "  backend: %s\n"
                   "  key: %s\n"
                   "%s"
                   "monitor:\n"
                   "  listen: %s\n",
                   or_else(set->module, shim), or_else(set->token, FIXTURE_TOKEN),
                   or_else(set->pin, pin), or_else(set->more_hsm, ""),
                   or_else(set->socket, fx.socket), or_else(set->backend, "hsm"),
                   or_else(set->key, FIXTURE_LABEL), or_else(set->more_kms, ""),
                   or_else(set->monitor, monitor));
    fixture_write(fx.config, text);
}

static bool has_ended(void *ctx)
{
    (void)ctx;
    manager_listen();
    return fixture_log_count(&fx, "reload: done") > 0 ||
           fixture_log_count(&fx, "reload: the old configuration stays") > 0;
}

/* SIGHUP; so many were good and bad since the start. */
static bool reload(double good, double bad)
{
    fixture_log_clear(&fx);
    (void)kill(fx.pid, SIGHUP);
    return fixture_until(has_ended, NULL, SEC(20)) &&
           fixture_metric(&fx, "reloads_ok_total") == good &&
           fixture_metric(&fx, "reloads_failed_total") == bad;
}

static bool reload_to(const struct setting *set, double good, double bad)
{
    configure(set);
    return reload(good, bad);
}

static struct kms_v2_client *start(const struct setting *set, struct kms_v2_status *ret_status)
{
    struct kms_v2_client *client = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    fixture_shim(&fx, "");
    configure(set);
    if (!UNIT_CHECK("start", fixture_start(&fx))) {
        return NULL;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("start", client != NULL && fixture_status(client, ret_status, &err) == KMS_OK);
    return client;
}

static bool serves_key(struct kms_v2_client *client, const char *key_id)
{
    struct kms_v2_status status;
    struct kms_error err = KMS_ERROR_INIT;

    return fixture_status(client, &status, &err) == KMS_OK && strcmp(status.healthz, "ok") == 0 &&
           strcmp(status.key_id, key_id) == 0;
}

/* --- what is applied -------------------------------------------------------------------------- */

static void reload_applies(void)
{
    struct kms_v2_client *client = NULL;
    struct kms_v2_client *stranger = NULL;
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_v2_status status;
    struct kms_error err = KMS_ERROR_INIT;

    fixture_configure(&fx, "  probe_interval: 1s\n", NULL);
    UNIT_CHECK("", fixture_start(&fx));
    client = fixture_connect(&fx);
    if (!UNIT_CHECK("", client != NULL)) {
        return;
    }
    fixture_configure(&fx,
                      "  probe_interval: 1s\n  allow_uids: [12345]\n  on_failure: keep-writing\n",
                      "log:\n  level: debug\n");
    UNIT_CHECK("", reload(1, 0));
    UNIT_CHECK("log.level", fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    UNIT_CHECK("log.level", fixture_log_wait(&fx, "debug kms: Encrypt done"));
    UNIT_CHECK("allow_uids", kms_v2_client_open(fx.socket, fixture_now() + SEC(5), &stranger,
                                                &err) == KMS_E_DENIED);
    UNIT_CHECK("allow_uids", fixture_metric(&fx, "connections_refused_peer_total") == 1);
    UNIT_CHECK("on_failure", fixture_status(client, &status, &err) == KMS_OK &&
                                 strcmp(status.healthz, "ok") == 0);
    fixture_configure(&fx, "  probe_interval: 1s\n  nonsense: 1\n", NULL);
    UNIT_CHECK("bad", reload(1, 1));
    UNIT_CHECK("bad", fixture_log_count(&fx, fx.config) == 1);
    UNIT_CHECK("bad", fixture_log_count(&fx, "nonsense") == 1);
    UNIT_CHECK("bad", kms_v2_client_open(fx.socket, fixture_now() + SEC(5), &stranger, &err) ==
                          KMS_E_DENIED); /* still the first one's */
    kms_v2_sealed_done(&sealed.sealed);
    UNIT_CHECK("bad", fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    for (double again = 2; again < 4; again++) { /* it is said each time */
        fixture_configure(&fx, "  queue: 7\n  workers: 3\n  max_calls: 9\n", NULL);
        UNIT_CHECK("restart", reload(again, 1));
        UNIT_CHECK("restart", fixture_log_count(&fx, "kms.queue has changed and needs a restart"));
        UNIT_CHECK("restart", fixture_log_count(&fx, "kms.workers has changed and needs a re"));
        UNIT_CHECK("restart", fixture_log_count(&fx, "kms.max_calls has changed and needs a"));
        UNIT_CHECK("restart", fixture_round_trip(&fx));
    }
    kms_v2_sealed_done(&sealed.sealed);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- another KEK ------------------------------------------------------------------------------ */

static const struct other {
    const char *name;
    struct setting set;
} others[] = {
    {"another label", {.key = "other"}},
    {"another token", {.token = SECOND}},
    {"another entry of backends",
     {.backend = "spare",
      .more_hsm = "  - name: spare\n"
                  "    type: hsm\n"
                  "    hsm:\n"
                  "      module: " SOFTHSM "\n"
                  "      token: " SECOND "\n"}},
};

/* A configuration of row @other: "spare" needs its PIN, which only we know. */
static void configure_other(const struct other *other)
{
    char more[512];
    struct setting set = other->set;

    if (set.more_hsm != NULL) {
        (void)snprintf(more, sizeof(more), "%s      pin: file:%s\n", set.more_hsm, fx.pin_file);
        set.more_hsm = more;
    }
    configure(&set);
}

/*
 * Status and Encrypt change together; what the former key encrypted is NotFound, until it is back.
 * SoftHSM is not finalized meanwhile: the shim, which is closed, and "spare" are one library.
 */
static void another_kek(void)
{
    static const struct setting before = {.key = NULL};

    for (size_t i = 0; i < UNIT_COUNT(others); i++) {
        const char *row = others[i].name;
        struct kms_v2_status was = {.key_id = ""};
        struct kms_v2_status now = {.key_id = ""};
        struct fixture_sealed old = {.sealed = {.storage = NULL}};
        struct fixture_sealed new = {.sealed = {.storage = NULL}};
        struct kms_error err = KMS_ERROR_INIT;
        struct kms_v2_client *client = start(&before, &was);
        long finalized = fixture_calls(&fx, "C_Finalize");

        if (client == NULL) {
            return;
        }
        UNIT_CHECK(row, fixture_encrypt(client, PATIENT, &old, &err) == KMS_OK);
        configure_other(&others[i]);
        UNIT_CHECK(row, reload(1, 0));
        UNIT_CHECK(row, fixture_status(client, &now, &err) == KMS_OK);
        UNIT_CHECK(row, strcmp(now.healthz, "ok") == 0 && strcmp(now.key_id, was.key_id) != 0);
        UNIT_CHECK(row, fixture_encrypt(client, PATIENT, &new, &err) == KMS_OK);
        UNIT_CHECK(row, new.sealed.key_id != NULL &&strcmp(new.sealed.key_id, now.key_id) == 0);
        UNIT_CHECK(row, fixture_decrypt(client, PATIENT, &new, &err) == KMS_OK);
        UNIT_CHECK(row, fixture_decrypt(client, PATIENT, &old, &err) == KMS_E_NOT_FOUND);
        UNIT_CHECK(row, strstr(err.text, was.key_id) != NULL);
        UNIT_CHECK(row, fixture_log_count(&fx, "is not among the new KEK's") == 1);
        UNIT_CHECK(row, fixture_http(&fx, "/readyz", NULL, 0) == 200);
        UNIT_CHECK(row, reload_to(&before, 2, 0));
        UNIT_CHECK(row, serves_key(client, was.key_id));
        UNIT_CHECK(row, fixture_decrypt(client, PATIENT, &old, &err) == KMS_OK);
        UNIT_CHECK(row, fixture_decrypt(client, PATIENT, &new, &err) == KMS_E_NOT_FOUND);
        UNIT_CHECK(row, fixture_calls(&fx, "C_Finalize") == finalized);
        kms_v2_sealed_done(&old.sealed);
        kms_v2_sealed_done(&new.sealed);
        kms_v2_client_close(client);
        UNIT_CHECK(row, fixture_stop(&fx));
    }
}

static const struct broken {
    const char *name;
    struct setting set;
    const char *reason; /* in the log and in STATUS= */
} broken[] = {
    {"no such key", {.key = "nowhere"}, "backend hsm has no key named nowhere"},
    {"no such token", {.token = "nowhere"}, "no token \"nowhere\""},
    {"no such module", {.module = "/nowhere/module.so"}, "/nowhere/module.so"},
    {"no module of that name", {.module = "nowhere"}, "nor known to p11-kit"},
    {"no PIN", {.pin = "file:/nowhere/pin"}, "/nowhere/pin"},
    {"a wrong PIN", {.token = SECOND, .pin = "env:WRONG_PIN"}, "the PIN was refused"},
    {"a mechanism the token lacks",
     {.key = "other", .more_hsm = "      mechanism: rsa-oaep\n"},
     "can both encrypt and decrypt"},
    {"other init_args", {.more_hsm = "      init_args: x\n"}, "with other init_args"},
    {"a socket that cannot be",
     {.key = "other", .socket = "/nowhere/kms.sock"},
     "/nowhere/kms.sock"},
    {"a monitor that cannot be",
     {.key = "other", .monitor = "unix:/nowhere/m.sock"},
     "/nowhere/m.sock"},
    {"a misspelt key", {.key = "other", .more_kms = "  nonsense: 1\n"}, "nonsense"},
};

/* Nothing of it is applied, all goes on, and the service manager knows. */
static void a_broken_one_is_refused(void)
{
    const char *const env[] = {manager.address, "WRONG_PIN=not-the-pin", NULL};
    const struct fixture_start with_manager = {.env = env};
    static const struct setting before = {.key = NULL};
    struct kms_v2_status was = {.key_id = ""};
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_v2_client *client = NULL;

    manager_open(fx.dir);
    configure(&before);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &with_manager)) ||
        !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_status(client, &was, &err) == KMS_OK);
    UNIT_CHECK("", fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(broken); i++) {
        const char *row = broken[i].name;

        manager_forget();
        UNIT_CHECK(row, reload_to(&broken[i].set, 0, (double)(i + 1)));
        if (!UNIT_CHECK(row, fixture_log_count(&fx, broken[i].reason) > 0)) {
            fixture_log_show(&fx);
        }
        UNIT_CHECK(row, manager_wait("READY=1\nSTATUS=KEK is good, key_id kb1-"));
        UNIT_CHECK(row, manager_count("; the configuration was refused at reload: ") > 0);
        UNIT_CHECK(row, manager_count(broken[i].reason) > 0);
        UNIT_CHECK(row, serves_key(client, was.key_id));
        UNIT_CHECK(row, fixture_decrypt(client, PATIENT, &sealed, &err) == KMS_OK);
        UNIT_CHECK(row, fixture_round_trip(&fx));
    }
    manager_forget();
    UNIT_CHECK("good again", reload_to(&before, 1, UNIT_COUNT(broken)));
    UNIT_CHECK("good again", manager_wait("READY=1"));
    UNIT_CHECK("good again", manager_count("refused at reload") == 0);
    kms_v2_sealed_done(&sealed.sealed);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
    manager_close();
}

/* One that never found a key has nothing to lose. */
static void a_wrong_start_is_corrected(void)
{
    static const struct setting wrong = {.token = "nowhere"};
    static const struct setting as_wrong = {.token = "nowhere", .key = "nothing"};
    static const struct setting right = {.key = NULL};

    fixture_shim(&fx, "");
    configure(&wrong);
    UNIT_CHECK("", fixture_start(&fx));
    UNIT_CHECK("", fixture_http(&fx, "/readyz", NULL, 0) == 503);
    UNIT_CHECK("", reload_to(&as_wrong, 1, 0));
    UNIT_CHECK("", fixture_http(&fx, "/readyz", NULL, 0) == 503);
    UNIT_CHECK("", reload_to(&right, 2, 0));
    UNIT_CHECK("", fixture_http(&fx, "/readyz", NULL, 0) == 200);
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
}

/* Settings of a key service over HTTPS count as an HSM's do. Nobody listens there: no key was ever
 * found, so the new one is taken as it is. */
static void another_address(void)
{
    static const char entry[] = "  - name: vault\n"
                                "    type: vault\n"
                                "    vault:\n"
                                "      addresses: ['http://127.0.0.1:%d']\n"
                                "      auth: {method: token, token: 'env:HOME'}\n";
    char more[512];
    const struct setting set = {.backend = "vault", .more_hsm = more};

    fixture_shim(&fx, "");
    (void)snprintf(more, sizeof(more), entry, 1);
    configure(&set);
    UNIT_CHECK("", fixture_start(&fx));
    UNIT_CHECK("", reload(1, 0));
    UNIT_CHECK("", fixture_log_count(&fx, "reload: another KEK serves") == 0);
    (void)snprintf(more, sizeof(more), entry, 2);
    UNIT_CHECK("", reload_to(&set, 2, 0));
    UNIT_CHECK("", fixture_log_count(&fx, "reload: another KEK serves") == 1);
    UNIT_CHECK("", fixture_log_count(&fx, "http://127.0.0.1:2 is left alone") == 1);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* The PIN of a token that is logged in is not tried, and that is said. */
static void another_pin(void)
{
    char pin[128];
    const struct setting set = {.pin = pin};
    static const struct setting before = {.key = NULL};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_v2_client *client = start(&before, &was);

    (void)snprintf(pin, sizeof(pin), "file:%s/pin2", fx.dir);
    fixture_write(pin + strlen("file:"), FIXTURE_PIN "\n");
    UNIT_CHECK("", reload_to(&set, 1, 0));
    UNIT_CHECK("", fixture_log_count(&fx, "hsm.pin has changed and was read") == 1);
    UNIT_CHECK("", client != NULL && serves_key(client, was.key_id));
    UNIT_CHECK("", fixture_log_count(&fx, "is not among the new KEK's") == 0);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- under load ------------------------------------------------------------------------------- */

#define CALLERS 4

static struct caller {
    pthread_t thread;
    unsigned rounds;
    unsigned failed;
    struct kms_error error;
} callers[CALLERS];
static atomic_bool stop;

static void *caller_main(void *arg)
{
    struct caller *caller = arg;
    struct kms_v2_client *client = fixture_connect(&fx);

    while (!atomic_load(&stop)) {
        struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
        struct kms_error err = KMS_ERROR_INIT;
        enum kms_status status =
            client == NULL ? KMS_E_UNAVAILABLE : fixture_encrypt(client, SEC(10), &sealed, &err);

        if (status == KMS_OK) {
            status = fixture_decrypt(client, SEC(10), &sealed, &err);
        }
        if (status != KMS_OK && caller->failed++ == 0) {
            caller->error = err;
        }
        caller->rounds++;
        kms_v2_sealed_done(&sealed.sealed);
    }
    kms_v2_client_close(client);
    return NULL;
}

/* Ways to the same key, each of which opens it anew, and some that lead nowhere. */
static const struct setting ways[] = {
    {.key = "id:" FIXTURE_KEY},
    {.more_hsm = "      sessions: 4\n"},
    {.key = "nowhere"}, /* the backend restarts the module before it believes that */
    {.key = "pkcs11:object=" FIXTURE_LABEL ";type=secret-key"},
    {.token = "nowhere"},
    {.key = NULL},
};

static void no_call_fails(void)
{
    static const struct setting before = {.key = NULL};
    struct kms_v2_status was = {.key_id = ""};
    double good = 0;
    double bad = 0;
    struct kms_v2_client *client = start(&before, &was);

    if (client == NULL) {
        return;
    }
    atomic_store(&stop, false);
    memset(callers, 0, sizeof(callers));
    for (size_t i = 0; i < CALLERS; i++) {
        UNIT_CHECK("", pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) == 0);
    }
    for (size_t i = 0; i < 2 * UNIT_COUNT(ways); i++) {
        const struct setting *way = &ways[i % UNIT_COUNT(ways)];
        bool nowhere = (way->key != NULL && strcmp(way->key, "nowhere") == 0) || way->token != NULL;

        good += nowhere ? 0 : 1;
        bad += nowhere ? 1 : 0;
        configure(way);
        fixture_log_clear(&fx);
        (void)kill(fx.pid, SIGHUP);
        UNIT_CHECK("", fixture_log_wait(&fx, nowhere ? "configuration stays" : "reload: done"));
        UNIT_CHECK("", serves_key(client, was.key_id));
    }
    UNIT_CHECK("", fixture_metric(&fx, "reloads_ok_total") == good);
    UNIT_CHECK("", fixture_metric(&fx, "reloads_failed_total") == bad);
    atomic_store(&stop, true);
    for (size_t i = 0; i < CALLERS; i++) {
        (void)pthread_join(callers[i].thread, NULL);
        UNIT_CHECK("", callers[i].rounds > 10);
        if (!UNIT_CHECK("", callers[i].failed == 0)) {
            fprintf(stderr, "%u of %u: %s\n", callers[i].failed, callers[i].rounds,
                    callers[i].error.text);
        }
    }
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

static bool copy_file(const char *from, const char *to)
{
    char command[512];

    (void)snprintf(command, sizeof(command), "cp %s %s", from, to);
    return system(command) == 0;
}

static bool one_in_flight(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "calls_in_flight") == 1;
}

static bool has_finalized(void *ctx)
{
    return fixture_calls(&fx, "C_Finalize") > *(const long *)ctx;
}

/* A call that is inside the former module when another takes its place ends on the former. */
static void a_call_in_flight(void)
{
    static const struct setting before = {.key = NULL};
    char module[128];
    const struct setting after = {.module = module, .token = SECOND};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_v2_client *client = start(&before, &was);
    struct job job;
    long finalized = fixture_calls(&fx, "C_Finalize");

    (void)snprintf(module, sizeof(module), "%s/copy.so", fx.dir);
    if (client == NULL || !UNIT_CHECK("", copy_file(SOFTHSM, module))) {
        return;
    }
    UNIT_CHECK("", fixture_round_trip(&fx));
    fixture_shim(&fx, "hang=1:C_Encrypt\n");
    jobs_start(&job, 1, &fx, NULL, PATIENT);
    UNIT_CHECK("", fixture_until(one_in_flight, NULL, SEC(5)));
    UNIT_CHECK("", reload_to(&after, 1, 0));
    UNIT_CHECK("", !serves_key(client, was.key_id));
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_calls(&fx, "C_Finalize") == finalized); /* not under the call */
    fixture_shim(&fx, "");
    UNIT_CHECK("", jobs_join(&job, 1, KMS_OK) == 1);
    UNIT_CHECK("", job.sealed.sealed.key_id != NULL &&
                       strcmp(job.sealed.sealed.key_id, was.key_id) == 0);
    UNIT_CHECK("closed", fixture_until(has_finalized, &finalized, SEC(5)));
    UNIT_CHECK("", fixture_round_trip(&fx));
    jobs_done(&job, 1);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* A new module that hangs is given up after a while, and the old one goes on meanwhile. */
static void a_trial_that_hangs(void)
{
    const char *const env[] = {manager.address, "WATCHDOG_USEC=400000", NULL};
    const struct fixture_start with_manager = {.env = env};
    char module[128];
    const struct setting before = {.module = module, .more_kms = "  call_timeout: 1s\n"};
    static const struct setting after = {.token = SECOND, .more_kms = "  call_timeout: 1s\n"};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_v2_client *client = NULL;

    (void)snprintf(module, sizeof(module), "%s/copy.so", fx.dir);
    manager_open(fx.dir);
    fixture_shim(&fx, "");
    configure(&before);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &with_manager)) ||
        !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_status(client, &was, &err) == KMS_OK);
    fixture_shim(&fx, "hang=1:C_Initialize\n");
    configure(&after);
    fixture_log_clear(&fx);
    manager_forget();
    (void)kill(fx.pid, SIGHUP);
    UNIT_CHECK("", fixture_log_wait(&fx, "another KEK is configured"));
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", manager_wait("RELOADING=1"));
    UNIT_CHECK("", fixture_until(has_ended, NULL, SEC(20)));
    UNIT_CHECK("", fixture_log_count(&fx, "did not answer in 10 s") == 1);
    UNIT_CHECK("watchdog", manager_count("WATCHDOG=1") > 10);
    UNIT_CHECK("", serves_key(client, was.key_id) && fixture_round_trip(&fx));
    fixture_shim(&fx, "");
    UNIT_CHECK("and then", reload_to(&after, 1, 1));
    UNIT_CHECK("and then", !serves_key(client, was.key_id) && fixture_round_trip(&fx));
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
    manager_close();
}

/* One library by several names, the last being p11-kit's: it is not finalized under any of them. */
static void one_library_twice(void)
{
    char link[128];
    static const struct setting path = {.module = SOFTHSM};
    const struct setting alias = {.module = link};
    static const struct setting name = {.module = "softhsm2"};
    const struct setting *const in_turn[] = {&alias, &path, &name, &path};
    const struct setting nobody = {.module = link, .token = "nowhere"};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_v2_client *client = start(&path, &was);

    (void)snprintf(link, sizeof(link), "%s/alias.so", fx.dir);
    if (client == NULL || !UNIT_CHECK("", symlink(SOFTHSM, link) == 0)) {
        return;
    }
    atomic_store(&stop, false);
    memset(callers, 0, sizeof(callers));
    UNIT_CHECK("", pthread_create(&callers[0].thread, NULL, caller_main, &callers[0]) == 0);
    UNIT_CHECK("no such token", reload_to(&nobody, 0, 1));
    UNIT_CHECK("no such token", serves_key(client, was.key_id));
    for (int i = 0; i < 4; i++) {
        UNIT_CHECK("", reload_to(in_turn[i], i + 1, 1));
        UNIT_CHECK("", serves_key(client, was.key_id));
        (void)usleep(50000);
    }
    atomic_store(&stop, true);
    (void)pthread_join(callers[0].thread, NULL);
    UNIT_CHECK("", callers[0].rounds > 10 && callers[0].failed == 0);
    UNIT_CHECK("", fixture_metric(&fx, "backend_reconnects_total") == 0);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- doors ------------------------------------------------------------------------------------ */

static bool one_connection(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "connections") == 1;
}

static void another_socket(void)
{
    static const struct setting before = {.key = NULL};
    char socket[sizeof(fx.socket)];
    char was_at[sizeof(fx.socket)];
    const struct setting moved = {.socket = socket};
    static const struct setting closed = {.more_kms = "  mode: \"0660\"\n"};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_v2_client *client = start(&before, &was);
    struct stat st;

    if (client == NULL) {
        return;
    }
    memcpy(was_at, fx.socket, sizeof(was_at));
    for (int i = 0; i < 2; i++) {
        const char *row = i == 0 ? "path" : "abstract";

        (void)snprintf(socket, sizeof(socket), i == 0 ? "%s/moved.sock" : "@%s/moved", fx.dir);
        UNIT_CHECK(row, reload_to(&moved, 3 * i + 1, 0));
        UNIT_CHECK(row, serves_key(client, was.key_id)); /* its connection stays */
        UNIT_CHECK(row, stat(was_at, &st) != 0);
        memcpy(fx.socket, socket, sizeof(socket));
        UNIT_CHECK(row, fixture_round_trip(&fx));
        UNIT_CHECK(row, fixture_until(one_connection, NULL, SEC(5)));
        memcpy(fx.socket, was_at, sizeof(was_at));
        UNIT_CHECK(row, reload_to(&before, 3 * i + 2, 0));
        UNIT_CHECK(row, i == 1 || stat(socket, &st) != 0);
        UNIT_CHECK(row, fixture_round_trip(&fx));
        UNIT_CHECK(row, reload_to(i == 0 ? &closed : &before, 3 * i + 3, 0));
        UNIT_CHECK(row,
                   stat(fx.socket, &st) == 0 && (st.st_mode & 07777) == (i == 0 ? 0660 : 0600));
    }
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

static void another_monitor(void)
{
    static const struct setting before = {.key = NULL};
    char monitor[sizeof(fx.monitor) + 8];
    char was_at[sizeof(fx.monitor)];
    const struct setting moved = {.monitor = monitor};
    struct kms_v2_status was = {.key_id = ""};
    struct kms_v2_client *client = start(&before, &was);
    struct stat st;

    memcpy(was_at, fx.monitor, sizeof(was_at));
    (void)snprintf(monitor, sizeof(monitor), "unix:%s/moved.http", fx.dir);
    configure(&moved);
    (void)snprintf(fx.monitor, sizeof(fx.monitor), "%s/moved.http", fx.dir);
    UNIT_CHECK("", reload(1, 0));
    UNIT_CHECK("", fixture_http(&fx, "/livez", NULL, 0) == 200);
    UNIT_CHECK("", stat(was_at, &st) != 0);
    memcpy(fx.monitor, was_at, sizeof(was_at));
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* A manager that is stuck: what it is told is lost, and nothing waits for it. */
static void a_manager_that_does_not_listen(void)
{
    const char *const env[] = {manager.address, "WATCHDOG_USEC=400000", NULL};
    const struct fixture_start with_manager = {.env = env};
    static const struct setting before = {.key = NULL};
    static const struct setting after = {.token = SECOND};

    manager_open(fx.dir);
    configure(&before);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &with_manager)) ||
        !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", manager_wait("READY=1"));
    manager_stuff();
    fixture_log_clear(&fx);
    configure(&after);
    (void)kill(fx.pid, SIGHUP);
    UNIT_CHECK("", fixture_log_wait(&fx, "reload: done"));
    UNIT_CHECK("", fixture_log_wait(&fx, "the service manager does not listen"));
    manager_forget();
    UNIT_CHECK("", manager_wait("WATCHDOG=1"));
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
    manager_close();
}

static const struct unit_test tests[] = {
    {"what is applied", reload_applies},
    {"another KEK", another_kek},
    {"a broken one is refused", a_broken_one_is_refused},
    {"a wrong start is corrected", a_wrong_start_is_corrected},
    {"another address", another_address},
    {"another PIN", another_pin},
    {"no call fails under load", no_call_fails},
    {"a call in flight", a_call_in_flight},
    {"a trial that hangs", a_trial_that_hangs},
    {"a manager that does not listen", a_manager_that_does_not_listen},
    {"one library under two names", one_library_twice},
    {"another socket", another_socket},
    {"another monitor", another_monitor},
};

int main(void)
{
    fixture_init(&fx, NAME);
    (void)snprintf(shim, sizeof(shim), "%s/tests/fakes/.libs/p11-shim.so", fx.build);
    if (!fixture_token_on(&fx, FIXTURE_TOKEN, "key", "07", "other") ||
        !fixture_token_on(&fx, SECOND, "init", NULL, NULL) ||
        !fixture_token_on(&fx, SECOND, "key", FIXTURE_KEY, FIXTURE_LABEL)) {
        fixture_log_show(&fx);
        return EXIT_FAILURE;
    }
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
