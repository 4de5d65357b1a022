/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kmsbridged of the test's own: private SoftHSM token and key, configuration, sockets, the fault
 * injecting shim before the module, log in a file. One per program, made by fixture_init().
 *
 * Whatever happens to the test, the daemon ends with it (PR_SET_PDEATHSIG, atexit) and the folder
 * is removed; the log is shown when a check failed. Main thread only, unless it says otherwise.
 *
 * Programs are looked for from the folder that `make check` runs in, the top of the build, or from
 * the one that KMSBRIDGE_BUILD names.
 */
#ifndef KMSBRIDGE_TESTS_DAEMON_FIXTURE_H
#define KMSBRIDGE_TESTS_DAEMON_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/status.h"
#include "kmsbridge/kms_v2_client.h"

#define FIXTURE_PIN   "5926-correct-horse"
#define FIXTURE_TOKEN "kmsbridge"
#define FIXTURE_LABEL "kek"
#define FIXTURE_KEY   "01" /* CKA_ID of the key that is there from the start */

#define MS(n)  ((uint64_t)(n)*1000000u)
#define SEC(n) ((uint64_t)(n)*1000000000u)

struct fixture {
    char dir[64];
    char softhsm_conf[96];
    char config[96];
    char socket[96]; /* kms.socket as the configuration says; "@name" is possible */
    char monitor[96];
    char pin_file[96];
    char control[96];
    char counters[96];
    char log[96];
    char build[256]; /* top of the build */
    long log_from;   /* where the log of interest begins */
    pid_t pid;       /* 0: it does not run */
    int status;      /* of waitpid(), of the last one that ended */
};

/* Exits the program when the fixture cannot be made. @name is the program's. */
void fixture_init(struct fixture *fx, const char *name);

/* main()'s last words: CUnit runs @tests, everything is cleaned up, the result is main()'s value.
 */
struct unit_test;
int fixture_main(struct fixture *fx, const char *name, const struct unit_test *tests, size_t count);

/* --- configuration, PIN, faults ----------------------------------------------------------------
 */

/* Writes the configuration; @kms is more lines of its kms: mapping, @top more of the top; or NULL.
 */
void fixture_configure(const struct fixture *fx, const char *kms, const char *top);
/* Replaces a file by rename(2), mode 0600. */
void fixture_write(const char *path, const char *text);
/* The shim's control file. */
void fixture_shim(const struct fixture *fx, const char *text);
/* Calls of a C_ function since the counters began; -1: no such row. */
long fixture_calls(const struct fixture *fx, const char *function);
/* token_tool's "key" and "destroy", with the token and label that are there from the start. */
bool fixture_token(const struct fixture *fx, const char *verb, const char *id);
/* Any of its verbs; NULL for what the verb does not take. */
bool fixture_token_on(const struct fixture *fx, const char *token, const char *verb, const char *id,
                      const char *label);

/* --- the daemon --------------------------------------------------------------------------------
 */

struct fixture_start {
    const char *program;    /* below the build; NULL: kmsbridge/kmsbridged */
    const char *const *env; /* more "NAME=value"; ends with NULL; may be NULL */
    const int *fds;         /* handed over as systemd does, LISTEN_FDS from 3 on */
    int fd_count;
    int err;        /* its standard error; 0: the log */
    uid_t uid;      /* run as this user, without capabilities; 0: as we are */
    unsigned files; /* RLIMIT_NOFILE; 0: as we are */
    size_t memory;  /* RLIMIT_DATA in bytes; 0: as we are */
};

/* Starts it and waits until it serves; false when it ended instead, or did not serve in time. */
bool fixture_start(struct fixture *fx);
/* The same with more; does not wait. False: fork() failed. */
bool fixture_spawn(struct fixture *fx, const struct fixture_start *start);
/* Waits until the log says that it serves. */
bool fixture_wait_serving(struct fixture *fx);
/* Sends @sig and waits at most @ns for the end; false (and SIGKILL) when that takes longer. */
bool fixture_end(struct fixture *fx, int sig, uint64_t ns);
/* SIGTERM, and it must leave with 0. */
bool fixture_stop(struct fixture *fx);
/* Runs kmsbridged with these arguments (at most 4) to its end; its exit code, -1 when a signal
 * ended it or it took more than 30 s. Its output goes to the log. */
int fixture_run(struct fixture *fx, const char *const *args);

/* Forgets what the log holds. */
void fixture_log_clear(struct fixture *fx);
/* How often @text stands in the log. */
unsigned fixture_log_count(const struct fixture *fx, const char *text);
/* Waits for it, 10 s at most. */
bool fixture_log_wait(const struct fixture *fx, const char *text);
void fixture_log_show(const struct fixture *fx);

/* --- asking it ---------------------------------------------------------------------------------
 */

/* A connection, NULL when that fails. From any thread, as are the calls below. */
struct kms_v2_client *fixture_connect(const struct fixture *fx);

/* One blob that came back from Encrypt. */
struct fixture_sealed {
    uint8_t seed[32];
    struct kms_v2_sealed sealed;
};

/* Encrypts a fresh random seed; the client may wait @ns. */
enum kms_status fixture_encrypt(struct kms_v2_client *client, uint64_t ns,
                                struct fixture_sealed *ret_sealed, struct kms_error *err);
/* Decrypts it and compares: KMS_E_BAD_DATA when something else comes back. */
enum kms_status fixture_decrypt(struct kms_v2_client *client, uint64_t ns,
                                const struct fixture_sealed *sealed, struct kms_error *err);
enum kms_status fixture_status(struct kms_v2_client *client, struct kms_v2_status *ret_status,
                               struct kms_error *err);
/* A connection, Status, Encrypt and Decrypt; the error is printed. */
bool fixture_round_trip(const struct fixture *fx);
/* Polls Status until its healthz is "ok" (@good) or it is an error; 10 s at most. */
bool fixture_wait_healthy(const struct fixture *fx, bool good);

/* GET from the monitor's socket: the HTTP status, 0 when there is none; the body cut to @size. */
int fixture_http(const struct fixture *fx, const char *path, char *ret_body, size_t size);
/* A metric without "kmsbridge_", labels as printed: "calls_in_flight"; -1 when it is not there. */
double fixture_metric(const struct fixture *fx, const char *name);

/* --- the process ------------------------------------------------------------------------------
 */

long fixture_rss_kb(const struct fixture *fx);
long fixture_peak_kb(const struct fixture *fx);
unsigned fixture_fds(const struct fixture *fx);
unsigned fixture_threads(const struct fixture *fx);
/* Raw connection to kms.socket; -1. */
int fixture_socket(const struct fixture *fx);

/* Polls @check every 5 ms until it holds, @ns at most; its last word. */
bool fixture_until(bool (*check)(void *ctx), void *ctx, uint64_t ns);
uint64_t fixture_now(void);
/* In slow builds (sanitizers) everything may take longer: 1 or more. */
unsigned fixture_slowness(void);
bool fixture_sanitized(void);

#endif
