/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "tests/daemon/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/unit.h"

#define POLL_NS   MS(5)
#define PATIENCE  SEC(10)
#define LISTEN_AT 3   /* systemd's SD_LISTEN_FDS_START */
#define PARK_AT   100 /* descriptors to hand over wait here for their place */

extern char **environ;

static struct fixture *the_fixture; /* for atexit() */

uint64_t fixture_now(void)
{
    return kms_now_ns();
}

bool fixture_sanitized(void)
{
#ifdef KMS_SANITIZED
    return true;
#else
    return false;
#endif
}

unsigned fixture_slowness(void)
{
    return fixture_sanitized() ? 5 : 1;
}

static void nap(uint64_t ns)
{
    const struct timespec ts = {.tv_sec = (time_t)(ns / SEC(1)), .tv_nsec = (long)(ns % SEC(1))};

    (void)nanosleep(&ts, NULL);
}

bool fixture_until(bool (*check)(void *ctx), void *ctx, uint64_t ns)
{
    uint64_t end = kms_deadline_in(ns * fixture_slowness());
    bool holds = check(ctx);

    while (!holds && !kms_deadline_passed(end)) {
        nap(POLL_NS);
        holds = check(ctx);
    }
    return holds;
}

/* --- files ------------------------------------------------------------------------------------ */

static void die(const char *what)
{
    fprintf(stderr, "fixture: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

void fixture_write(const char *path, const char *text)
{
    char temp[PATH_MAX];
    size_t len = strlen(text);
    int fd;

    (void)snprintf(temp, sizeof(temp), "%s.new", path);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len || close(fd) != 0 ||
        rename(temp, path) != 0) {
        die(path);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void fixture_shim(const struct fixture *fx, const char *text)
{
    fixture_write(fx->control, text);
}

long fixture_calls(const struct fixture *fx, const char *function)
{
    FILE *file = fopen(fx->counters, "re");
    char row[64];
    char found[64];
    long value = 0;
    long n = -1;

    while (file != NULL && fgets(row, sizeof(row), file) != NULL) {
        if (sscanf(row, "%63s %ld", found, &value) == 2 && strcmp(found, function) == 0) {
            n = value;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return n;
}

void fixture_configure(const struct fixture *fx, const char *kms, const char *top)
{
    char text[4096];
    int n = snprintf(text, sizeof(text),
                     "version: 1\n"
                     "%s"
                     "backends:\n"
                     "  - name: hsm\n"
                     "    type: hsm\n"
                     "    hsm:\n"
                     "      module: %s/tests/fakes/.libs/p11-shim.so\n"
                     "      token: " FIXTURE_TOKEN "\n"
                     "      pin: file:%s\n"
                     "kms:\n"
                     "  socket: \"%s\"\n"
                     "  backend: hsm\n"
                     "  key: " FIXTURE_LABEL "\n"
                     "%s"
                     "monitor:\n"
                     "  listen: unix:%s\n",
                     top == NULL ? "log:\n  level: info\n" : top, fx->build, fx->pin_file,
                     fx->socket, kms == NULL ? "" : kms, fx->monitor);

    if (n < 0 || (size_t)n >= sizeof(text)) {
        die("configuration too long");
    }
    fixture_write(fx->config, text);
}

/* --- making and unmaking ---------------------------------------------------------------------- */

/* Runs @argv with its output in the log; the exit code, -1 for a signal. */
static int run_to_end(const struct fixture *fx, char *const argv[])
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        int fd = open(fx->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    if (pid < 0) {
        return -1;
    }
    for (uint64_t end = kms_deadline_in(SEC(30) * fixture_slowness());;) {
        pid_t got = waitpid(pid, &status, WNOHANG);

        if (got == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        if (kms_deadline_passed(end)) {
            (void)kill(pid, SIGKILL);
        }
        nap(POLL_NS);
    }
}

bool fixture_token_on(const struct fixture *fx, const char *token, const char *verb, const char *id,
                      const char *label)
{
    char program[PATH_MAX];
    char pin[] = FIXTURE_PIN;
    char words[4][40] = {""};
    const char *const given[] = {verb, token, id, label};
    char *argv[] = {program, words[0], pin, words[1], id == NULL ? NULL : words[2], words[3], NULL};

    (void)snprintf(program, sizeof(program), "%s/tests/daemon/token_tool", fx->build);
    for (size_t i = 0; i < UNIT_COUNT(given); i++) {
        (void)snprintf(words[i], sizeof(words[i]), "%s", given[i] == NULL ? "" : given[i]);
    }
    if (label == NULL && id != NULL) {
        argv[5] = NULL;
    }
    return run_to_end(fx, argv) == 0;
}

bool fixture_token(const struct fixture *fx, const char *verb, const char *id)
{
    return fixture_token_on(fx, FIXTURE_TOKEN, verb, id,
                            strcmp(verb, "key") == 0 ? FIXTURE_LABEL : NULL);
}

static void cleanup(void)
{
    struct fixture *fx = the_fixture;

    if (fx == NULL) {
        return;
    }
    the_fixture = NULL;
    if (fx->pid > 0) {
        (void)kill(fx->pid, SIGKILL);
        (void)waitpid(fx->pid, NULL, 0);
    }
    if (getenv("KMSBRIDGE_KEEP") == NULL) {
        (void)nftw(fx->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

static void name_paths(struct fixture *fx)
{
    const struct {
        char *path;
        const char *name;
    } rows[] = {
        {fx->softhsm_conf, "softhsm2.conf"},
        {fx->config, "kmsbridge.yaml"},
        {fx->socket, "kms.sock"},
        {fx->monitor, "monitor.sock"},
        {fx->pin_file, "pin"},
        {fx->control, "control"},
        {fx->counters, "counters"},
        {fx->log, "log"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)snprintf(rows[i].path, sizeof(fx->log), "%s/%s", fx->dir, rows[i].name);
    }
}

static void find_build(struct fixture *fx)
{
    const char *build = getenv("KMSBRIDGE_BUILD");

    if (build == NULL && getcwd(fx->build, sizeof(fx->build)) == NULL) {
        die("the folder of the build");
    }
    if (build != NULL) {
        (void)snprintf(fx->build, sizeof(fx->build), "%s", build);
    }
}

void fixture_init(struct fixture *fx, const char *name)
{
    const char *base = getenv("TMPDIR");
    char tokens[96];
    char text[160];

    memset(fx, 0, sizeof(*fx));
    find_build(fx);
    (void)snprintf(fx->dir, sizeof(fx->dir), "%s/%.16s.XXXXXX",
                   base == NULL || strlen(base) > 24 ? "/tmp" : base, name);
    if (kms_secure_init() != KMS_OK || mkdtemp(fx->dir) == NULL) {
        die(fx->dir);
    }
    name_paths(fx);
    the_fixture = fx;
    (void)atexit(cleanup);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(tokens, sizeof(tokens), "%s/tokens", fx->dir);
    (void)snprintf(text, sizeof(text), "directories.tokendir = %s\nobjectstore.backend = file\n",
                   tokens);
    if (mkdir(tokens, 0700) != 0 || setenv("SOFTHSM2_CONF", fx->softhsm_conf, 1) != 0 ||
        setenv("KMSBRIDGE_SHIM_CONTROL", fx->control, 1) != 0 ||
        setenv("KMSBRIDGE_SHIM_COUNTERS", fx->counters, 1) != 0) {
        die(tokens);
    }
    (void)unsetenv("NOTIFY_SOCKET");
    fixture_write(fx->softhsm_conf, text);
    fixture_write(fx->log, "");
    fixture_write(fx->pin_file, FIXTURE_PIN "\n");
    fixture_shim(fx, "");
    fixture_configure(fx, NULL, NULL);
    if (!fixture_token(fx, "init", NULL) || !fixture_token(fx, "key", FIXTURE_KEY)) {
        fixture_log_show(fx);
        die("no SoftHSM token");
    }
}

int fixture_main(struct fixture *fx, const char *name, const struct unit_test *tests, size_t count)
{
    int code = unit_main(name, tests, count);

    if (code != EXIT_SUCCESS) {
        fixture_log_show(fx);
    }
    cleanup();
    return code;
}

/* --- the daemon ------------------------------------------------------------------------------- */

static void child_fds(const struct fixture_start *start)
{
    for (int i = 0; i < start->fd_count; i++) {
        (void)fcntl(start->fds[i], F_DUPFD, PARK_AT + i);
    }
    for (int i = 0; i < start->fd_count; i++) {
        (void)dup2(PARK_AT + i, LISTEN_AT + i); /* leaves FD_CLOEXEC behind */
        (void)close(PARK_AT + i);
    }
}

static bool child_user(uid_t uid)
{
    return uid == 0 || (setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
                        setresuid(uid, uid, uid) == 0);
}

/* After fork(): only what needs no memory. */
static void child(const struct fixture *fx, const struct fixture_start *start, char *const argv[],
                  char *const envp[], char *listen_pid, size_t room)
{
    const struct rlimit files = {.rlim_cur = start->files, .rlim_max = start->files};
    const struct rlimit memory = {.rlim_cur = start->memory, .rlim_max = start->memory};
    sigset_t none;
    int fd = open(fx->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)snprintf(listen_pid, room, "LISTEN_PID=%ld", (long)getpid());
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(start->err != 0 ? start->err : fd, 2) < 0 ||
        (start->files != 0 && setrlimit(RLIMIT_NOFILE, &files) != 0) ||
        (start->memory != 0 && setrlimit(RLIMIT_DATA, &memory) != 0) || !child_user(start->uid)) {
        _exit(126);
    }
    child_fds(start);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    execve(argv[0], argv, envp);
    _exit(127);
}

/* Ours, then @more, then what hands descriptors over; @listen_pid is filled in by the child. */
static char **make_environment(const struct fixture_start *start, char *listen_fds,
                               char *listen_pid)
{
    size_t n = 0;
    size_t more = 0;
    char **envp;

    while (environ[n] != NULL) {
        n++;
    }
    while (start->env != NULL && start->env[more] != NULL) {
        more++;
    }
    envp = calloc(n + more + 3, sizeof(char *));
    if (envp == NULL) {
        die("memory");
    }
    memcpy(envp, environ, n * sizeof(char *));
    for (size_t i = 0; i < more; i++) {
        envp[n + i] = (char *)(uintptr_t)start->env[i];
    }
    if (start->fd_count > 0) {
        envp[n + more] = listen_fds;
        envp[n + more + 1] = listen_pid;
    }
    return envp;
}

bool fixture_spawn(struct fixture *fx, const struct fixture_start *start)
{
    char program[PATH_MAX];
    char config_option[] = "--config";
    char listen_fds[24];
    char listen_pid[32] = "";
    char *argv[] = {program, config_option, fx->config, NULL};
    char **envp;

    (void)snprintf(program, sizeof(program), "%s/%s", fx->build,
                   start->program == NULL ? "kmsbridge/kmsbridged" : start->program);
    (void)snprintf(listen_fds, sizeof(listen_fds), "LISTEN_FDS=%d", start->fd_count);
    envp = make_environment(start, listen_fds, listen_pid);
    fixture_log_clear(fx);
    fx->pid = fork();
    if (fx->pid == 0) {
        child(fx, start, argv, envp, listen_pid, sizeof(listen_pid));
    }
    free(envp);
    if (fx->pid < 0) {
        fx->pid = 0;
    }
    return fx->pid > 0;
}

/* True when the daemon has ended; fx->status then says how. */
static bool has_ended(void *ctx)
{
    struct fixture *fx = ctx;

    if (fx->pid == 0 || waitpid(fx->pid, &fx->status, WNOHANG) == fx->pid) {
        fx->pid = 0;
        return true;
    }
    return false;
}

static bool serves_or_ended(void *ctx)
{
    return fixture_log_count(ctx, "server: serving KMS") > 0 || has_ended(ctx);
}

bool fixture_wait_serving(struct fixture *fx)
{
    return fixture_until(serves_or_ended, fx, PATIENCE) && fx->pid > 0;
}

bool fixture_start(struct fixture *fx)
{
    const struct fixture_start plain = {.fd_count = 0};

    return fixture_spawn(fx, &plain) && fixture_wait_serving(fx);
}

bool fixture_end(struct fixture *fx, int sig, uint64_t ns)
{
    if (fx->pid == 0) {
        return false;
    }
    (void)kill(fx->pid, sig);
    if (fixture_until(has_ended, fx, ns)) {
        return true;
    }
    (void)kill(fx->pid, SIGKILL);
    (void)waitpid(fx->pid, &fx->status, 0);
    fx->pid = 0;
    return false;
}

bool fixture_stop(struct fixture *fx)
{
    return fixture_end(fx, SIGTERM, SEC(15)) && WIFEXITED(fx->status) &&
           WEXITSTATUS(fx->status) == 0;
}

int fixture_run(struct fixture *fx, const char *const *args)
{
    char program[PATH_MAX];
    char *argv[6] = {program};

    (void)snprintf(program, sizeof(program), "%s/kmsbridge/kmsbridged", fx->build);
    for (size_t i = 0; args[i] != NULL && i < 4; i++) {
        argv[i + 1] = (char *)(uintptr_t)args[i];
    }
    return run_to_end(fx, argv);
}

/* --- its log ---------------------------------------------------------------------------------- */

/* The log from where it is of interest; the caller frees. NULL: there is none. */
static char *log_read(const struct fixture *fx, long from)
{
    FILE *file = fopen(fx->log, "re");
    char *text = NULL;
    size_t size = 0;

    if (file != NULL && fseek(file, from, SEEK_SET) == 0 &&
        getdelim(&text, &size, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return text;
}

void fixture_log_clear(struct fixture *fx)
{
    struct stat st;

    fx->log_from = stat(fx->log, &st) == 0 ? (long)st.st_size : 0;
}

unsigned fixture_log_count(const struct fixture *fx, const char *text)
{
    char *log = log_read(fx, fx->log_from);
    unsigned n = 0;

    for (const char *at = log; at != NULL && (at = strstr(at, text)) != NULL; at++) {
        n++;
    }
    free(log);
    return n;
}

struct looking {
    const struct fixture *fx;
    const char *text;
};

static bool is_logged(void *ctx)
{
    const struct looking *looking = ctx;

    return fixture_log_count(looking->fx, looking->text) > 0;
}

bool fixture_log_wait(const struct fixture *fx, const char *text)
{
    struct looking looking = {.fx = fx, .text = text};

    return fixture_until(is_logged, &looking, PATIENCE);
}

void fixture_log_show(const struct fixture *fx)
{
    char *log = log_read(fx, 0);

    fprintf(stderr, "--- log of kmsbridged ---\n%s--- end of the log ---\n",
            log == NULL ? "" : log);
    free(log);
}

/* --- the process ------------------------------------------------------------------------------ */

static long status_row(const struct fixture *fx, const char *row)
{
    char path[64];
    char line[256];
    long value = -1;
    size_t len = strlen(row);
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%ld/status", (long)fx->pid);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, row, len) == 0) {
            value = strtol(line + len, NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return value;
}

long fixture_rss_kb(const struct fixture *fx)
{
    return status_row(fx, "VmRSS:");
}

long fixture_peak_kb(const struct fixture *fx)
{
    return status_row(fx, "VmHWM:");
}

unsigned fixture_threads(const struct fixture *fx)
{
    return (unsigned)status_row(fx, "Threads:");
}
