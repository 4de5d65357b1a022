/* SPDX-License-Identifier: Apache-2.0 */
/* kmsbridged: command line, signals, the service manager. Everything else is in server.c. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "kmsbridge/log_file.h"
#include "kmsbridge/notify.h"
#include "kmsbridge/resident.h"
#include "kmsbridge/server.h"

#define ROUND_NS (5 * KMS_NS_PER_S) /* how often the status line is looked at */

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONFIG = 3 }; /* kmsbridged.8 */

static const char usage[] =
    "usage: kmsbridged [--config FILE] [--check]\n"
    "       kmsbridged --private --config FILE --socket PATH\n"
    "\n"
    "  -c, --config FILE  configuration (" KMS_CONF_PATH ")\n"
    "      --check        check the configuration and the KEK, print the verdict and exit\n"
    "      --private      be the agent of this user alone, and leave when nobody needs it\n"
    "      --socket PATH  where the private agent listens\n"
    "      --version      print the version and exit\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "SIGTERM stops, SIGHUP reloads. See kmsbridged(8), kmsbridge.yaml(5).\n";

static char private_log_file[128]; /* beside the private agent's socket */

struct options {
    const char *config; /* NULL: not given */
    const char *socket;
    bool check;
    bool is_private;
};

/* -1: go on; otherwise exit with it. */
static int parse_options(int argc, char **argv, struct options *ret_options)
{
    enum { OPT_CHECK = 256, OPT_PRIVATE, OPT_SOCKET, OPT_VERSION };
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"check", no_argument, NULL, OPT_CHECK},
                                          {"private", no_argument, NULL, OPT_PRIVATE},
                                          {"socket", required_argument, NULL, OPT_SOCKET},
                                          {"version", no_argument, NULL, OPT_VERSION},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            ret_options->config = optarg;
            break;
        case OPT_CHECK:
            ret_options->check = true;
            break;
        case OPT_PRIVATE:
            ret_options->is_private = true;
            break;
        case OPT_SOCKET:
            ret_options->socket = optarg;
            break;
        case OPT_VERSION:
            puts("kmsbridged " PACKAGE_VERSION);
            return EXIT_OK;
        case 'h':
            fputs(usage, stdout);
            return EXIT_OK;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind != argc) {
        fprintf(stderr, "kmsbridged: unexpected argument %s\n%s", argv[optind], usage);
        return EXIT_USAGE;
    }
    if (ret_options->is_private != (ret_options->socket != NULL) ||
        (ret_options->is_private && ret_options->config == NULL)) {
        fprintf(stderr, "kmsbridged: --private, --socket and --config go together\n%s", usage);
        return EXIT_USAGE;
    }
    if (ret_options->config == NULL) {
        ret_options->config = KMS_CONF_PATH;
    }
    return -1;
}

static void block_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGHUP);
    sigprocmask(SIG_BLOCK, ret_set, NULL); /* before the first thread */
    signal(SIGPIPE, SIG_IGN);
}

/* Why the file as it is now is not what we run with; "" when it is. */
static char refused[KMS_ERROR_TEXT_MAX];

static void tell_manager(struct kms_server *server, bool first)
{
    static char last[2 * KMS_ERROR_TEXT_MAX + 128];
    char text[sizeof last];
    char ready[KMS_ERROR_TEXT_MAX + 64];
    kms_server_ready(server, ready, sizeof ready);
    snprintf(text, sizeof text, "%s%s%s", ready,
             refused[0] != '\0' ? "; the configuration was refused at reload: " : "", refused);
    if (first) {
        kms_notify_ready(text);
    } else if (strcmp(text, last) != 0) {
        kms_notify_status(text);
    }
    memcpy(last, text, sizeof last);
}

/* A watchdog that hears nothing restarts us: so it hears from us only while we are alive. */
static void watchdog(struct kms_server *server)
{
    static bool complained;
    char text[KMS_ERROR_TEXT_MAX];
    if (kms_server_live(server, text, sizeof text)) {
        kms_notify_alive();
        complained = false;
    } else if (!complained) {
        kms_log(KMS_LOG_ERROR, "server: not alive: %s", text);
        complained = true;
    }
}

static void reload(struct kms_server *server)
{
    struct kms_error err = KMS_ERROR_INIT;
    kms_notify_reloading();
    if (kms_server_reload(server, watchdog, &err) == KMS_OK) {
        kms_log(KMS_LOG_INFO, "reload: done");
        refused[0] = '\0';
    } else {
        kms_log_error(KMS_LOG_ERROR, &err, "reload: the old configuration stays");
        snprintf(refused, sizeof refused, "%s", err.text);
    }
    tell_manager(server, true);
}

static void serve(struct kms_server *server, const sigset_t *signals)
{
    uint64_t round = ROUND_NS;
    uint64_t watchdog_ns = kms_notify_watchdog_ns();
    if (watchdog_ns != 0 && watchdog_ns < round) {
        round = watchdog_ns;
    }
    if (kms_server_idle_round_ns(server) < round) {
        round = kms_server_idle_round_ns(server);
    }
    const struct timespec wait = {.tv_sec = (time_t)(round / KMS_NS_PER_S),
                                  .tv_nsec = (long)(round % KMS_NS_PER_S)};
    tell_manager(server, true);
    kms_resident_trim(); /* nobody has to wait for it */
    for (;;) {
        watchdog(server);
        int sig = sigtimedwait(signals, NULL, &wait);
        if (sig == SIGHUP) {
            reload(server);
        } else if (sig == SIGTERM || sig == SIGINT) {
            kms_log(KMS_LOG_INFO, "server: stopping on %s", sig == SIGTERM ? "SIGTERM" : "SIGINT");
            return;
        } else if (kms_server_idle(server)) {
            kms_log(KMS_LOG_INFO,
                    "server: stopping: nobody has been connected for agent.idle_exit");
            return;
        } else {
            tell_manager(server, false);
        }
    }
}

static int fail(int code, const struct kms_error *err)
{
    kms_log_error(KMS_LOG_ERROR, err, "kmsbridged");
    return code;
}

/* A private agent's standard error is nobody's: it logs beside its socket. */
static enum kms_status private_log(const struct options *options, struct kms_error *err)
{
    int len = snprintf(private_log_file, sizeof private_log_file, "%s.log", options->socket);
    int fd = -1;
    enum kms_status status = KMS_OK;
    if (options->socket[0] != '/' || len < 0 || (size_t)len >= sizeof private_log_file) {
        return kms_error_set(err, KMS_E_INVALID, "--socket: %s is no absolute path of a socket",
                             options->socket);
    }
    if (!options->check) {
        status = kms_log_file_open(private_log_file, &fd, err);
    }
    if (status == KMS_OK) {
        kms_log_file_use(fd);
    }
    return status;
}

static enum kms_status configure(const struct options *options, struct kms_conf **ret_conf,
                                 struct kms_error *err)
{
    int fd = -1;
    enum kms_status status = KMS_OK;
    if (options->is_private) {
        status = private_log(options, err); /* first: it has to tell what is wrong with the file */
    }
    if (status == KMS_OK) {
        status = options->is_private ? kms_conf_read_private(options->config, ret_conf, err)
                                     : kms_conf_read(options->config, ret_conf, err);
    }
    if (status == KMS_OK && options->is_private) {
        kms_conf_make_private(*ret_conf, options->socket, private_log_file);
    }
    if (status == KMS_OK && (*ret_conf)->log_file != NULL && !options->check) {
        status = kms_log_file_open((*ret_conf)->log_file, &fd, err);
    }
    if (status == KMS_OK) {
        kms_log_file_use(fd);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct options options = {.config = NULL};
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;
    struct kms_server *server = NULL;
    sigset_t signals;

    int code = parse_options(argc, argv, &options);
    if (code >= 0) {
        return code;
    }
    umask(077);
    mallopt(M_ARENA_MAX, 1); /* few threads allocate much; more arenas would only cost memory */
    block_signals(&signals);
    kms_log_setup(2, KMS_LOG_INFO, KMS_LOG_TEXT);
    if (kms_secure_init() != KMS_OK || kms_secure_harden_process(&err) != KMS_OK) {
        return fail(EXIT_FAILED, &err);
    }
    if (configure(&options, &conf, &err) != KMS_OK) {
        return fail(EXIT_CONFIG, &err);
    }
    kms_log_setup(2, conf->log_level, conf->log_format);
    if (options.check) {
        enum kms_status status = kms_server_check(conf, &err);
        kms_conf_done(conf);
        return status == KMS_OK ? EXIT_OK : fail(EXIT_FAILED, &err);
    }
    kms_resident_note();
    if (kms_server_start(conf, &server, &err) != KMS_OK) {
        return fail(EXIT_FAILED, &err);
    }
    serve(server, &signals);
    kms_notify_stopping();
    if (!kms_server_stop(server)) {
        _exit(EXIT_OK);
    }
    kms_log(KMS_LOG_INFO, "server: stopped");
    return EXIT_OK;
}
