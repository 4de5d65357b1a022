/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From start to stop: what the service manager is told, sockets that are handed over, signals,
 * reloading, who may run it, what it refuses to start with.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/daemon/jobs.h"
#include "tests/daemon/manager.h"
#include "tests/unit/unit.h"

#define NAME      "test_lifecycle"
#define IMPATIENT "tests/daemon/kmsbridged-impatient" /* takes a second for wedged, not 60 */
#define NOBODY    12345u
#define PATIENT   SEC(20)

static struct fixture fx;

/* --- the service manager ---------------------------------------------------------------------- */

static bool told_thrice_alive(void *ctx)
{
    (void)ctx;
    return manager_count("WATCHDOG=1") >= 3;
}

static void manager_is_told(void)
{
    const char *const env[] = {manager.address, "WATCHDOG_USEC=200000", NULL};
    const struct fixture_start start = {.env = env};

    manager_open(fx.dir);
    fixture_shim(&fx, "");
    fixture_configure(&fx, "  probe_interval: 1s\n", NULL);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &start)) || !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", manager_wait("READY=1\nSTATUS=KEK is good, key_id kb1-"));
    UNIT_CHECK("", fixture_until(told_thrice_alive, NULL, SEC(10)));
    manager_forget();
    (void)kill(fx.pid, SIGHUP);
    UNIT_CHECK("reload", manager_wait("READY=1"));
    const char *reloading = strstr(manager.told, "RELOADING=1\nMONOTONIC_USEC=");
    UNIT_CHECK("reload", reloading != NULL && reloading < strstr(manager.told, "READY=1"));
    fixture_shim(&fx, "fail=CKR_DEVICE_ERROR\n");
    UNIT_CHECK("", manager_wait("STATUS=KEK is not usable: "));
    manager_forget();
    fixture_shim(&fx, "");
    UNIT_CHECK("", manager_wait("STATUS=KEK is good"));
    UNIT_CHECK("", manager_count("STOPPING=1") == 0);
    UNIT_CHECK("", fixture_stop(&fx));
    UNIT_CHECK("", manager_count("STOPPING=1") == 1);
    manager_close();
}

/* --- the watchdog ----------------------------------------------------------------------------- */

static bool is_not_live(void *ctx)
{
    (void)ctx;
    return fixture_http(&fx, "/livez", NULL, 0) == 503;
}

static bool is_live(void *ctx)
{
    (void)ctx;
    return fixture_http(&fx, "/livez", NULL, 0) == 200;
}

/* A call that does not return from the token silences the watchdog, until it does. */
static void watchdog_falls_silent(void)
{
    const char *const env[] = {manager.address, "WATCHDOG_USEC=200000", NULL};
    const struct fixture_start start = {.program = IMPATIENT, .env = env};
    struct job job;
    uint64_t quiet;

    manager_open(fx.dir);
    fixture_configure(&fx, "  probe_interval: 10m\n", NULL);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &start)) || !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", fixture_until(told_thrice_alive, NULL, SEC(10)));
    UNIT_CHECK("", is_live(NULL));
    fixture_shim(&fx, "hang=1:C_Encrypt\n");
    jobs_start(&job, 1, &fx, NULL, PATIENT);
    UNIT_CHECK("", fixture_until(is_not_live, NULL, SEC(10)));
    UNIT_CHECK("", fixture_log_wait(&fx, "not alive: a call has been stuck in the key service"));
    manager_forget();
    for (quiet = fixture_now() + SEC(1); fixture_now() < quiet;) { /* ten times it would be due */
        (void)fixture_http(&fx, "/livez", NULL, 0);
    }
    UNIT_CHECK("", manager_count("WATCHDOG=1") == 0);
    fixture_shim(&fx, "");
    UNIT_CHECK("", jobs_join(&job, 1, KMS_OK) == 1);
    jobs_done(&job, 1);
    UNIT_CHECK("", manager_wait("WATCHDOG=1"));
    UNIT_CHECK("", fixture_until(is_live, NULL, SEC(10)));
    UNIT_CHECK("", fixture_stop(&fx));
    manager_close();
}

/* Stops one thread of the daemon as a fault would, and nothing else. */
static bool thread_stop(pid_t tid)
{
    return ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0 &&
           ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 && waitpid(tid, NULL, __WALL) == tid;
}

static void thread_go_on(pid_t tid)
{
    (void)ptrace(PTRACE_DETACH, tid, NULL, NULL);
}

/* The ids of threads that bear our own name: not those of libraries that give them one. */
static size_t own_threads(pid_t ret_tids[], size_t room)
{
    char path[300];
    size_t n = 0;
    DIR *dir;
    struct dirent *entry;

    (void)snprintf(path, sizeof(path), "/proc/%ld/task", (long)fx.pid);
    dir = opendir(path);
    while (dir != NULL && n < room && (entry = readdir(dir)) != NULL) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        char name[32] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%ld/task/%ld/comm", (long)fx.pid, (long)tid);
        file = fopen(path, "re");
        if (file != NULL && fgets(name, sizeof(name), file) != NULL &&
            strncmp(name, "kmsbridged", strlen("kmsbridged")) == 0 && tid != fx.pid) {
            ret_tids[n++] = tid;
        }
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return n;
}

/*
 * Without its polling thread the daemon answers nobody: /livez says so, and the watchdog is silent.
 * Of each other thread of ours it can do without for a while.
 */
static void stuck_polling_thread(void)
{
    const char *const env[] = {manager.address, "WATCHDOG_USEC=200000", NULL};
    const struct fixture_start start = {.program = IMPATIENT, .env = env};
    pid_t tids[32];
    char page[256] = "";
    unsigned silenced = 0;
    size_t count;

    if (geteuid() != 0 || fixture_sanitized()) {
        return; /* who is not dumpable is not traced; LeakSanitizer has a tracer of its own */
    }
    manager_open(fx.dir);
    fixture_shim(&fx, "");
    fixture_configure(&fx, "  probe_interval: 10m\n", NULL);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &start)) || !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", fixture_until(is_live, NULL, SEC(5)));
    count = own_threads(tids, UNIT_COUNT(tids));
    for (size_t i = 0; i < count; i++) {
        if (!UNIT_CHECK("", thread_stop(tids[i]))) {
            continue;
        }
        if (fixture_until(is_not_live, NULL, SEC(3))) {
            silenced++;
            UNIT_CHECK("", fixture_http(&fx, "/livez", page, sizeof(page)) == 503);
            UNIT_CHECK("", strstr(page, "the polling thread has not gone round for 2 s") == page);
            UNIT_CHECK("", fixture_log_wait(&fx, "not alive: the polling thread"));
            manager_forget();
            (void)usleep(600000); /* three times it would be due */
            UNIT_CHECK("", manager_count("WATCHDOG=1") == 0);
        }
        thread_go_on(tids[i]);
        UNIT_CHECK("", fixture_until(is_live, NULL, SEC(5)));
        UNIT_CHECK("", manager_wait("WATCHDOG=1"));
    }
    UNIT_CHECK("", count >= 3 && silenced == 1);
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
    manager_close();
}

/* --- sockets ---------------------------------------------------------------------------------- */

static void socket_activation(void)
{
    char path[sizeof(fx.socket)];
    char abstract[sizeof(fx.socket)];

    memcpy(path, fx.socket, sizeof(path));
    (void)snprintf(abstract, sizeof(abstract), "@kmsbridge-test-%ld", (long)getpid());
    for (int i = 0; i < 2; i++) {
        const char *row = i == 0 ? "path" : "abstract";
        struct stat st;
        int fd;

        memcpy(fx.socket, i == 0 ? path : abstract, sizeof(fx.socket));
        fd = manager_bind(fx.socket, SOCK_STREAM | SOCK_NONBLOCK);
        UNIT_CHECK(row, listen(fd, 16) == 0);
        const struct fixture_start start = {.fds = &fd, .fd_count = 1};
        fixture_configure(&fx, NULL, NULL);
        UNIT_CHECK(row, fixture_spawn(&fx, &start) && fixture_wait_serving(&fx));
        UNIT_CHECK(row, fixture_log_count(&fx, "was handed over by the service manager") == 1);
        UNIT_CHECK(row, fixture_round_trip(&fx));
        UNIT_CHECK(row, fixture_stop(&fx));
        UNIT_CHECK(row, i == 1 || stat(path, &st) == 0); /* it is the manager's, and stays */
        (void)close(fd);
        if (i == 0) {
            (void)unlink(path);
        }
    }
    memcpy(fx.socket, abstract, sizeof(fx.socket)); /* by itself, too */
    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("abstract, own", fixture_start(&fx) && fixture_round_trip(&fx));
    UNIT_CHECK("abstract, own", fixture_stop(&fx));
    memcpy(fx.socket, path, sizeof(fx.socket));
}

static void socket_of_another(void)
{
    const char *const args[] = {"--config", fx.config, NULL};
    struct stat st;

    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("", fixture_start(&fx));
    UNIT_CHECK("second", fixture_run(&fx, args) == 1);
    UNIT_CHECK("second", fixture_log_count(&fx, "another kmsbridged serves this socket") == 1);
    UNIT_CHECK("second", fixture_round_trip(&fx));
    UNIT_CHECK("stale", fixture_end(&fx, SIGKILL, SEC(5)));
    UNIT_CHECK("stale", stat(fx.socket, &st) == 0);
    UNIT_CHECK("stale", fixture_start(&fx) && fixture_round_trip(&fx));
    UNIT_CHECK("own", fixture_stop(&fx));
    UNIT_CHECK("own", stat(fx.socket, &st) != 0 && errno == ENOENT);
    fixture_write(fx.socket, "a file\n");
    UNIT_CHECK("file", fixture_run(&fx, args) == 1);
    UNIT_CHECK("file", stat(fx.socket, &st) == 0 && S_ISREG(st.st_mode));
    UNIT_CHECK("file", fixture_log_count(&fx, "is not a socket; it is left as it is") == 1);
    (void)unlink(fx.socket);
}

/* --- stopping --------------------------------------------------------------------------------- */

static bool one_in_flight(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "calls_in_flight") == 1;
}

static void stop_finishes_calls(void)
{
    struct job job;

    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("", fixture_start(&fx));
    fixture_shim(&fx, "latency_us=500000\n");
    jobs_start(&job, 1, &fx, NULL, PATIENT);
    UNIT_CHECK("", fixture_until(one_in_flight, NULL, SEC(5)));
    (void)kill(fx.pid, SIGTERM);
    UNIT_CHECK("", jobs_join(&job, 1, KMS_OK) == 1);
    jobs_done(&job, 1);
    UNIT_CHECK("", fixture_end(&fx, 0, SEC(15)));
    UNIT_CHECK("", WIFEXITED(fx.status) && WEXITSTATUS(fx.status) == 0);
    UNIT_CHECK("", fixture_log_count(&fx, "server: stopped") == 1);
    fixture_shim(&fx, "");
}

static void stop_with_a_hanging_token(void)
{
    struct job job;

    UNIT_CHECK("", fixture_start(&fx));
    fixture_shim(&fx, "hang=1\n");
    jobs_start(&job, 1, &fx, NULL, PATIENT);
    UNIT_CHECK("", fixture_until(one_in_flight, NULL, SEC(5)));
    UNIT_CHECK("",
               fixture_end(&fx, SIGTERM, SEC(20))); /* 5 s of grace, and a second for each part */
    UNIT_CHECK("", WIFEXITED(fx.status) && WEXITSTATUS(fx.status) == 0);
    UNIT_CHECK("", fixture_log_count(&fx, "a call is stuck in the key service") == 1);
    UNIT_CHECK("", jobs_join(&job, 1, KMS_OK) == 0);
    jobs_done(&job, 1);
    fixture_shim(&fx, "");
}

static bool has_failed(void *ctx)
{
    return fixture_calls(&fx, "faults") > *(const long *)ctx;
}

/* The probe goes on trying while the token fails; it does not hold up the end. */
static void stop_with_a_failing_token(void)
{
    long faults = fixture_calls(&fx, "faults");

    fixture_configure(&fx, "  probe_interval: 1s\n", NULL);
    UNIT_CHECK("", fixture_start(&fx));
    fixture_shim(&fx, "fail=CKR_DEVICE_ERROR\n");
    UNIT_CHECK("", fixture_until(has_failed, &faults, SEC(10)));
    UNIT_CHECK("", fixture_stop(&fx));
    UNIT_CHECK("", fixture_log_count(&fx, "server: stopped") == 1);
    fixture_shim(&fx, "");
}

/* --- a log that nobody reads ------------------------------------------------------------------ */

static bool answers(void *ctx)
{
    struct kms_v2_client *client = access(fx.socket, F_OK) == 0 ? fixture_connect(ctx) : NULL;
    struct kms_v2_status status;
    struct kms_error err = KMS_ERROR_INIT;
    bool good = client != NULL && fixture_status(client, &status, &err) == KMS_OK;

    kms_v2_client_close(client);
    return good;
}

/* A refusal is a line in the log. True when all were refused in time. */
static bool refusals(unsigned count)
{
    const struct kms_v2_sealed garbage = {.ciphertext = kms_span_str("x"), .key_id = "nonsense"};
    struct kms_v2_client *client = fixture_connect(&fx);
    uint8_t bytes[64];
    bool good = client != NULL;

    for (unsigned i = 0; good && i < count; i++) {
        struct kms_buf plaintext = kms_buf_over(bytes, sizeof(bytes));
        struct kms_error err = KMS_ERROR_INIT;
        enum kms_status status = kms_v2_client_decrypt(client, fixture_now() + PATIENT, "stalled",
                                                       &garbage, &plaintext, &err);

        good = status != KMS_OK && status != KMS_E_TIMEOUT && status != KMS_E_UNAVAILABLE;
    }
    kms_v2_client_close(client);
    return good;
}

/* Standard error is a pipe that blocks, as it is under most managers, full, and nobody reads. */
static void stalled_log_reader(void)
{
    static char text[1 << 20];
    struct fixture_start start = {.fd_count = 0};
    int fds[2] = {-1, -1};
    ssize_t n;

    UNIT_CHECK("", pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
    while (write(fds[1], text, 4096) > 0) {
    }
    UNIT_CHECK("", fcntl(fds[1], F_SETFL, 0) == 0);
    start.err = fds[1];
    fixture_shim(&fx, "");
    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("", fixture_spawn(&fx, &start));
    (void)close(fds[1]);
    UNIT_CHECK("starts", fixture_until(answers, &fx, PATIENT));
    UNIT_CHECK("refuses", refusals(500));
    UNIT_CHECK("answers", answers(&fx) && fixture_round_trip(&fx));
    while (read(fds[0], text, sizeof(text)) > 0) {
    }
    UNIT_CHECK("read again", refusals(1));
    n = read(fds[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    UNIT_CHECK("read again", strstr(text, " log lines dropped\n") != NULL);
    UNIT_CHECK("fills up", refusals(1000));
    UNIT_CHECK("stops", fixture_stop(&fx));
    (void)close(fds[0]);
}

/* --- on_failure ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const char *kms;
    bool keeps_writing;
} failures[] = {
    {"stop-writing", "  probe_interval: 1s\n  on_failure: stop-writing\n", false},
    {"keep-writing", "  probe_interval: 1s\n  on_failure: keep-writing\n", true},
};

static void on_failure(void)
{
    for (size_t i = 0; i < UNIT_COUNT(failures); i++) {
        const char *row = failures[i].name;
        struct kms_v2_client *client;
        struct kms_v2_status good;
        struct kms_v2_status bad = {.healthz = ""};
        struct kms_error err = KMS_ERROR_INIT;
        enum kms_status status;

        fixture_configure(&fx, failures[i].kms, NULL);
        UNIT_CHECK(row, fixture_start(&fx));
        client = fixture_connect(&fx);
        if (!UNIT_CHECK(row, client != NULL && fixture_status(client, &good, &err) == KMS_OK)) {
            return;
        }
        UNIT_CHECK(row, strcmp(good.healthz, "ok") == 0 && strcmp(good.version, "v2") == 0);
        fixture_shim(&fx, "fail=CKR_DEVICE_ERROR\n");
        UNIT_CHECK(row, fixture_wait_healthy(&fx, false));
        status = fixture_status(client, &bad, &err);
        if (failures[i].keeps_writing) {
            UNIT_CHECK(row, status == KMS_OK && strncmp(bad.healthz, "unhealthy: ", 11) == 0);
            UNIT_CHECK(row, strcmp(bad.key_id, good.key_id) == 0);
        } else {
            UNIT_CHECK(row, status != KMS_OK);
            UNIT_CHECK(row, strstr(err.text, "CKR_") == NULL); /* that is for the log */
        }
        UNIT_CHECK(row, fixture_http(&fx, "/readyz", NULL, 0) == 503);
        UNIT_CHECK(row, fixture_http(&fx, "/livez", NULL, 0) == 200);
        fixture_shim(&fx, "");
        UNIT_CHECK(row, fixture_wait_healthy(&fx, true));
        UNIT_CHECK(row, fixture_round_trip(&fx));
        kms_v2_client_close(client);
        UNIT_CHECK(row, fixture_stop(&fx));
    }
}

/* --- --check, and what it does not start with ------------------------------------------------- */

static void check_says(void)
{
    const char *const check[] = {"--check", "--config", fx.config, NULL};
    const char *const missing[] = {"--check", "--config", "/nowhere/kmsbridge.yaml", NULL};
    const char *const usage[] = {"--nonsense", NULL};
    const char *const version[] = {"--version", NULL};

    fixture_configure(&fx, NULL, NULL);
    fixture_log_clear(&fx);
    UNIT_CHECK("good", fixture_run(&fx, check) == 0);
    UNIT_CHECK("good", fixture_log_count(&fx, ": good; KEK kb1-") == 1);
    fixture_write(fx.pin_file, "wrong\n");
    UNIT_CHECK("PIN", fixture_run(&fx, check) == 1);
    UNIT_CHECK("PIN", fixture_log_count(&fx, "CKR_PIN_INCORRECT") >= 1);
    UNIT_CHECK("PIN", chmod(fx.pin_file, 0644) == 0 && fixture_run(&fx, check) == 1);
    UNIT_CHECK("PIN", fixture_log_count(&fx, fx.pin_file) >= 1);
    UNIT_CHECK("PIN", unlink(fx.pin_file) == 0 && fixture_run(&fx, check) == 1);
    fixture_write(fx.pin_file, FIXTURE_PIN "\n");
    fixture_log_clear(&fx);
    fixture_configure(&fx, "  workers: many\n", NULL);
    UNIT_CHECK("value", fixture_run(&fx, check) == 3);
    UNIT_CHECK("value", fixture_log_count(&fx, "kms.workers") == 1);
    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("writable", chmod(fx.config, 0666) == 0 && fixture_run(&fx, check) == 3);
    UNIT_CHECK("writable", fixture_log_count(&fx, "writ") >= 1);
    UNIT_CHECK("missing", fixture_run(&fx, missing) == 3);
    UNIT_CHECK("usage", fixture_run(&fx, usage) == 2);
    UNIT_CHECK("version", fixture_run(&fx, version) == 0);
    fixture_configure(&fx, NULL, NULL);
}

/* --- another user ----------------------------------------------------------------------------- */

static bool copy_file(const char *from, const char *to)
{
    char bytes[65536];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    ssize_t n = 0;

    while (in >= 0 && out >= 0 && (n = read(in, bytes, sizeof(bytes))) > 0) {
        if (write(out, bytes, (size_t)n) != n) {
            n = -1;
            break;
        }
    }
    if (in >= 0) {
        (void)close(in);
    }
    return in >= 0 && out >= 0 && close(out) == 0 && n == 0;
}

/* The build's folder may be closed to others: what they need lies beside the token. */
static bool copy_build(void)
{
    static const char *const folders[] = {"kmsbridge", "tests", "tests/fakes", "tests/fakes/.libs"};
    static const char *const files[] = {"kmsbridge/kmsbridged", "tests/fakes/.libs/p11-shim.so"};
    char from[PATH_MAX];
    char to[PATH_MAX];
    bool good = true;

    for (size_t i = 0; i < UNIT_COUNT(folders); i++) {
        (void)snprintf(to, sizeof(to), "%s/%s", fx.dir, folders[i]);
        good = good && mkdir(to, 0755) == 0;
    }
    for (size_t i = 0; i < UNIT_COUNT(files); i++) {
        (void)snprintf(from, sizeof(from), "%s/%s", fx.build, files[i]);
        (void)snprintf(to, sizeof(to), "%s/%s", fx.dir, files[i]);
        good = good && copy_file(from, to);
    }
    (void)snprintf(fx.build, sizeof(fx.build), "%s", fx.dir);
    return good;
}

/* Last: the fixture's files are another's afterwards. */
static void unprivileged(void)
{
    /* ptrace, which LeakSanitizer needs, is what a non-dumpable process does not allow */
    const char *const env[] = {"ASAN_OPTIONS=detect_leaks=0", NULL};
    const struct fixture_start start = {.env = env, .uid = NOBODY};
    char command[128];
    char path[64];
    struct stat st;

    if (geteuid() != 0) {
        return; /* as this user the whole program ran unprivileged */
    }
    UNIT_CHECK("", copy_build());
    fixture_configure(&fx, NULL, NULL);
    (void)snprintf(command, sizeof(command), "chown -R %u:%u %s", NOBODY, NOBODY, fx.dir);
    UNIT_CHECK("", system(command) == 0);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &start)) || !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", fixture_round_trip(&fx)); /* root may, by default */
    UNIT_CHECK("",
               stat(fx.socket, &st) == 0 && st.st_uid == NOBODY && (st.st_mode & 07777) == 0600);
    /* the files of a process that is not dumpable are root's */
    (void)snprintf(path, sizeof(path), "/proc/%ld/environ", (long)fx.pid);
    UNIT_CHECK("", stat(path, &st) == 0 && st.st_uid == 0);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- a module that p11-kit names ----------------------------------------------------------------
 */

/*
 * hsm.module without a slash is looked up where p11-kit looks: here, below the user's own
 * configuration, which it leaves alone for root. So it is the last test's user who runs it.
 */
static void module_by_name(void)
{
    char home[96];
    char path[192];
    char text[512];
    char module[320];
    char config[4096] = "";
    const char *const env[] = {home, "ASAN_OPTIONS=detect_leaks=0", NULL};
    const struct fixture_start start = {.env = env, .uid = geteuid() == 0 ? NOBODY : 0};
    char command[160];
    FILE *file;
    char *at;

    (void)snprintf(home, sizeof(home), "XDG_CONFIG_HOME=%s/config", fx.dir);
    (void)snprintf(command, sizeof(command), "mkdir -p %s/config/pkcs11/modules", fx.dir);
    UNIT_CHECK("", system(command) == 0);
    (void)snprintf(module, sizeof(module), "%s/tests/fakes/.libs/p11-shim.so", fx.build);
    (void)snprintf(path, sizeof(path), "%s/config/pkcs11/modules/our-shim.module", fx.dir);
    (void)snprintf(text, sizeof(text), "module: %s\n", module);
    fixture_write(path, text);
    fixture_configure(&fx, NULL, NULL);
    file = fopen(fx.config, "re");
    if (!UNIT_CHECK("", file != NULL && fread(config, 1, sizeof(config) - 1, file) > 0)) {
        return;
    }
    (void)fclose(file);
    at = strstr(config, module);
    if (!UNIT_CHECK("", at != NULL)) {
        return;
    }
    memmove(at + strlen("our-shim"), at + strlen(module), strlen(at + strlen(module)) + 1);
    memcpy(at, "our-shim", strlen("our-shim"));
    fixture_write(fx.config, config);
    (void)snprintf(command, sizeof(command), "chown -R %u:%u %s", NOBODY, NOBODY, fx.dir);
    UNIT_CHECK("", geteuid() != 0 || system(command) == 0);
    UNIT_CHECK("", fixture_spawn(&fx, &start) && fixture_wait_serving(&fx));
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
    /* a name that nobody knows is no reason not to start, and is named */
    UNIT_CHECK("unknown", unlink(path) == 0);
    UNIT_CHECK("unknown", fixture_spawn(&fx, &start) && fixture_wait_serving(&fx));
    UNIT_CHECK("unknown", fixture_log_wait(&fx, "\"our-shim\" is neither a path nor known to p11"));
    UNIT_CHECK("unknown", fixture_stop(&fx));
}

/* --- memory ------------------------------------------------------------------------------------
 */

/* Code of programs and libraries of which not a page is in memory (proc(5), smaps). */
static unsigned code_let_go(void)
{
    char path[64];
    char line[512];
    bool code = false;
    unsigned count = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%ld/smaps", (long)fx.pid);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strstr(line, " r-xp ") != NULL) {
            code = strchr(line, '/') != NULL;
        } else if (strncmp(line, "Rss:", 4) == 0) {
            count += code && strtol(line + 4, NULL, 10) == 0 ? 1 : 0;
            code = false;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

/* Loading touches something of every library: what nobody uses afterwards does not stay. */
static void start_is_let_go(void)
{
    unsigned count = 0;

    if (geteuid() != 0) {
        return; /* the files of a process that is not dumpable are root's */
    }
    fixture_configure(&fx, NULL, NULL);
    if (!UNIT_CHECK("", fixture_start(&fx))) {
        return;
    }
    for (int i = 0; i < 500 && count == 0; i++) { /* it serves a moment earlier */
        (void)usleep(10000);
        count = code_let_go();
    }
    UNIT_CHECK("", count > 0);
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"the service manager is told", manager_is_told},
    {"the watchdog falls silent", watchdog_falls_silent},
    {"a polling thread that is stuck", stuck_polling_thread},
    {"socket activation", socket_activation},
    {"sockets of others", socket_of_another},
    {"SIGTERM finishes calls", stop_finishes_calls},
    {"SIGTERM with a hanging token", stop_with_a_hanging_token},
    {"SIGTERM with a failing token", stop_with_a_failing_token},
    {"a log that nobody reads", stalled_log_reader},
    {"on_failure", on_failure},
    {"--check", check_says},
    {"what only the start needs", start_is_let_go},
    {"an unprivileged user", unprivileged},
    {"a module that p11-kit names", module_by_name},
};

int main(void)
{
    fixture_init(&fx, NAME);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
