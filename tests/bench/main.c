/* SPDX-License-Identifier: Apache-2.0 */
/* What the two clients have in common: options, the Status load beside the load, the JSON line. */
#include "tests/bench/load.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_STATUS_LIMIT_S = 30 };

static const char usage[] =
    "usage: client --socket PATH [--method Status|Encrypt|Decrypt] [--callers N] [--seconds S]\n"
    "              [--warmup S] [--timeout-ms N] [--status-rate PER_SECOND] [--allow-errors]\n"
    "              [--server-pid PID]\n"
    "       client --socket PATH --first-status -- SERVER [ARGUMENT...]\n";

static bool parse_method(const char *name, enum bench_method *ret_method)
{
    for (int i = 0; i < BENCH_METHODS; i++) {
        if (strcmp(bench_names[i], name) == 0) {
            *ret_method = (enum bench_method)i;
            return true;
        }
    }
    return false;
}

bool bench_options_parse(struct bench_options *ret_options, int argc, char **argv)
{
    static const struct option names[] = {
        {"socket", required_argument, NULL, 's'},
        {"method", required_argument, NULL, 'm'},
        {"callers", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 't'},
        {"warmup", required_argument, NULL, 'w'},
        {"timeout-ms", required_argument, NULL, 'd'},
        {"status-rate", required_argument, NULL, 'r'},
        {"allow-errors", no_argument, NULL, 'e'},
        {"server-pid", required_argument, NULL, 'p'},
        {"first-status", no_argument, NULL, 'f'},
        {NULL, 0, NULL, 0},
    };
    struct bench_options o = {
        .method = BENCH_STATUS, .callers = 1, .seconds = 1, .warmup = 0.2, .timeout_ms = 3000};
    int name = 0;

    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 's':
            o.socket = optarg;
            break;
        case 'm':
            if (!parse_method(optarg, &o.method)) {
                name = '?';
            }
            break;
        case 'c':
            o.callers = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            o.seconds = strtod(optarg, NULL);
            break;
        case 'w':
            o.warmup = strtod(optarg, NULL);
            break;
        case 'd':
            o.timeout_ms = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            o.status_rate = strtod(optarg, NULL);
            break;
        case 'e':
            o.allow_errors = true;
            break;
        case 'p':
            o.server = (pid_t)strtol(optarg, NULL, 10);
            break;
        case 'f':
            o.first_status = true;
            break;
        default:
            name = '?';
            break;
        }
        if (name == '?') {
            break;
        }
    }
    o.command = argv + optind;
    if (name == '?' || o.socket == NULL || o.callers == 0 ||
        o.first_status != (*o.command != NULL)) {
        (void)fputs(usage, stderr);
        return false;
    }
    *ret_options = o;
    return true;
}

/* ---- a load ---------------------------------------------------------------------------------- */

struct runner {
    struct load load;
    load_transport transport;
    pthread_t thread;
    bool ok;
};

static void *run_load(void *argument)
{
    struct runner *runner = argument;

    runner->ok = runner->transport(&runner->load);
    return NULL;
}

/* A line of /proc/PID/status, in KiB; 0: not to be had. */
static unsigned long memory_of(pid_t pid, const char *name)
{
    char path[64];
    char line[256];
    unsigned long kib = 0;
    FILE *file = NULL;

    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib;
}

static void print_load(struct load *load)
{
    printf("{\"method\":\"%s\",\"callers\":%u,", bench_names[load->method], load->n_callers);
    samples_print(&load->samples, load->options->seconds, stdout);
    printf(",\"errors\":%llu", (unsigned long long)load->errors);
}

static void print_server(const struct load *load)
{
    pid_t pid = load->options->server;

    if (pid == 0) {
        return;
    }
    if (load->samples.count > 0 && load->cpu_end > load->cpu_start) {
        printf(",\"cpu_us_per_call\":%.2f",
               (double)(load->cpu_end - load->cpu_start) / 1000.0 / (double)load->samples.count);
    }
    printf(",\"rss_kib\":%lu,\"hwm_kib\":%lu,\"private_kib\":%lu", memory_of(pid, "VmRSS"),
           memory_of(pid, "VmHWM"), memory_of(pid, "RssAnon"));
}

static int run_loads(const char *client, load_transport transport,
                     const struct bench_options *options)
{
    struct runner main_load = {.transport = transport};
    struct runner status_load = {.transport = transport, .ok = true};
    bool beside = options->status_rate > 0.0;
    int result = 1;

    if (!load_init(&main_load.load, options, options->method, options->callers, 0.0) ||
        (beside && !load_init(&status_load.load, options, BENCH_STATUS, 1, options->status_rate))) {
        return 1;
    }
    if (beside && pthread_create(&status_load.thread, NULL, run_load, &status_load) != 0) {
        return 1;
    }
    (void)run_load(&main_load);
    if (beside) {
        (void)pthread_join(status_load.thread, NULL);
    }
    if (main_load.ok && status_load.ok) {
        printf("{\"client\":\"%s\",\"load\":", client);
        print_load(&main_load.load);
        print_server(&main_load.load);
        printf("}");
        if (beside) {
            printf(",\"status\":");
            print_load(&status_load.load);
            printf("}");
        }
        printf("}\n");
        result = 0;
    }
    load_done(&main_load.load);
    load_done(&status_load.load);
    return result;
}

/* ---- from exec to the first good Status ----------------------------------------------------- */

static bool one_status(const struct bench_options *options, load_transport transport)
{
    struct load load;
    bool good = false;

    if (load_init(&load, options, BENCH_STATUS, 1, 0.0)) {
        load.start = 0;
        load.limit = 1;
        good = transport(&load) && load.errors == 0;
    }
    load_done(&load);
    return good;
}

static bool wait_first_status(const struct bench_options *options, load_transport transport,
                              pid_t server, uint64_t deadline)
{
    const struct timespec a_moment = {.tv_nsec = 50 * 1000};

    while (bench_now() < deadline) {
        int fd = bench_connect(options->socket);

        if (fd >= 0) {
            (void)close(fd);
            if (one_status(options, transport)) {
                return true;
            }
        }
        if (waitpid(server, NULL, WNOHANG) != 0) {
            fprintf(stderr, "%s: ended before it answered\n", options->command[0]);
            return false;
        }
        (void)nanosleep(&a_moment, NULL);
    }
    fprintf(stderr, "%s: no good Status\n", options->command[0]);
    return false;
}

/* The socket must not be there yet: a server that left one behind would make the time wrong. */
static int first_status(struct bench_options *options, load_transport transport)
{
    uint64_t start = 0;
    uint64_t took = 0;
    pid_t server = -1;
    bool good = false;

    options->allow_errors = true;
    options->warmup = 0;
    (void)unlink(options->socket);
    start = bench_now();
    server = fork();
    if (server < 0) {
        return 1;
    }
    if (server == 0) {
        (void)execvp(options->command[0], options->command);
        _exit(127);
    }
    good = wait_first_status(options, transport, server,
                             start + FIRST_STATUS_LIMIT_S * UINT64_C(1000000000));
    took = bench_now() - start;
    if (good) {
        printf("{\"first_status_ms\":%.2f,\"rss_kib\":%lu}\n", (double)took / 1e6,
               memory_of(server, "VmRSS"));
    }
    (void)kill(server, SIGTERM);
    (void)waitpid(server, NULL, 0);
    return good ? 0 : 1;
}

int bench_main(const char *client, load_transport transport, int argc, char **argv)
{
    struct bench_options options;

    if (!bench_options_parse(&options, argc, argv)) {
        return 2;
    }
    if (options.first_status) {
        return first_status(&options, transport);
    }
    return run_loads(client, transport, &options);
}
