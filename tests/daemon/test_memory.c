/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of the seeds in an idle daemon: nothing. All its writable memory is searched after a
 * thousand Encrypts and a thousand Decrypts, with operations inline and on workers, and it is shown
 * that the search finds what is there.
 */
#include "config.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/daemon/fixture.h"
#include "tests/daemon/raw.h"
#include "tests/daemon/scan.h"
#include "tests/unit/unit.h"

#define NAME    "test_memory"
#define SEEDS   1000
#define CALLERS 4

static struct fixture fx;

/* --- traffic ---------------------------------------------------------------------------------- */

struct caller {
    pthread_t thread;
    struct kms_v2_client *client;
    struct fixture_sealed *sealed; /* SEEDS / CALLERS of them */
    bool decrypt;
    unsigned failed;
};

static void *caller_main(void *arg)
{
    struct caller *caller = arg;
    struct kms_error err = KMS_ERROR_INIT;

    for (size_t i = 0; i < SEEDS / CALLERS; i++) {
        struct fixture_sealed *sealed = &caller->sealed[i];
        enum kms_status status = caller->decrypt
                                     ? fixture_decrypt(caller->client, SEC(10), sealed, &err)
                                     : fixture_encrypt(caller->client, SEC(10), sealed, &err);

        if (status != KMS_OK) {
            fprintf(stderr, "%s\n", err.text);
            caller->failed++;
        }
    }
    return NULL;
}

/* All seeds once; the number that failed. */
static unsigned traffic(struct caller callers[CALLERS], bool decrypt)
{
    unsigned failed = 0;

    for (size_t i = 0; i < CALLERS; i++) {
        callers[i].decrypt = decrypt;
        callers[i].failed = 0;
        if (pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) != 0) {
            abort();
        }
    }
    for (size_t i = 0; i < CALLERS; i++) {
        (void)pthread_join(callers[i].thread, NULL);
        failed += callers[i].failed;
    }
    return failed;
}

static bool all_connected(struct caller callers[CALLERS], struct fixture_sealed *sealed)
{
    bool good = true;

    for (size_t i = 0; i < CALLERS; i++) {
        callers[i].client = fixture_connect(&fx);
        callers[i].sealed = sealed + i * (SEEDS / CALLERS);
        good = good && callers[i].client != NULL;
    }
    return good;
}

static void disconnect(struct caller callers[CALLERS])
{
    for (size_t i = 0; i < CALLERS; i++) {
        kms_v2_client_close(callers[i].client);
        callers[i].client = NULL;
    }
}

static bool is_alone(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "connections") == 0 && fixture_metric(&fx, "calls_in_flight") == 0;
}

/* --- the search ------------------------------------------------------------------------------- */

static void search(const char *row, const struct fixture_sealed *sealed, struct scan_result *result)
{
    struct scan *scan = scan_new();

    for (size_t i = 0; i < SEEDS; i++) {
        scan_add(scan, sealed[i].seed, sizeof(sealed[i].seed));
    }
    UNIT_CHECK(row, scan_process(scan, fx.pid, result));
    UNIT_CHECK(row, result->bytes > 4u << 20);
    scan_free(scan);
}

static void expect_nothing(const char *row, const struct fixture_sealed *sealed)
{
    struct scan_result result;

    search(row, sealed, &result);
    if (!UNIT_CHECK(row, result.hits == 0)) {
        fprintf(stderr, "%s: pieces of %zu seeds, %zu hits:%s\n", row, result.needles, result.hits,
                result.where);
    }
}

/* At least so many of the calls must have run at @place, a metric. */
static void no_seed_is_left(const char *row, const char *shim, const char *place, double at_least)
{
    struct fixture_sealed *sealed = calloc(SEEDS, sizeof(*sealed));
    struct caller callers[CALLERS] = {{.failed = 0}};
    char phase[64];

    fixture_shim(&fx, shim);
    if (!UNIT_CHECK(row, fixture_start(&fx)) || !UNIT_CHECK(row, sealed != NULL) ||
        !UNIT_CHECK(row, all_connected(callers, sealed))) {
        return;
    }
    (void)snprintf(phase, sizeof(phase), "%s, Encrypts, connected", row);
    UNIT_CHECK(phase, traffic(callers, false) == 0);
    expect_nothing(phase, sealed);
    (void)snprintf(phase, sizeof(phase), "%s, Decrypts, connected", row);
    UNIT_CHECK(phase, traffic(callers, true) == 0);
    expect_nothing(phase, sealed);
    disconnect(callers);
    (void)snprintf(phase, sizeof(phase), "%s, idle", row);
    UNIT_CHECK(phase, fixture_until(is_alone, NULL, SEC(10)));
    expect_nothing(phase, sealed);
    UNIT_CHECK(phase, fixture_metric(&fx, place) >= at_least);
    UNIT_CHECK(row, fixture_stop(&fx));
    for (size_t i = 0; i < SEEDS; i++) {
        kms_v2_sealed_done(&sealed[i].sealed);
    }
    free(sealed);
}

static void inline_leaves_nothing(void)
{
    /* one call that is preempted for a millisecond sends the next ones to workers */
    no_seed_is_left("inline", "", "calls_inline_total", 1);
}

static void workers_leave_nothing(void)
{
    no_seed_is_left("workers", "latency_us=2000\n", "calls_on_workers_total", SEEDS);
}

/* --- without wiping ----------------------------------------------------------------------------
 */

enum { BROKEN_SEEDS = 200 };

/* How a client that nobody wrote well sends an Encrypt: in frames of @piece bytes, all but its last
 * @missing bytes, and then the stream is reset. */
static const struct broken {
    const char *name;
    size_t piece;
    size_t missing;
} brokens[] = {
    {"frames of 8 bytes", 8, 0},
    {"frames of 16 bytes", 16, 0},
    {"frames of 33 bytes", 33, 0},
    {"given up in the middle", 33, 1},
};

static bool send_broken(struct raw *raw, uint32_t stream, const struct broken *broken,
                        const uint8_t *seed)
{
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    uint8_t message[5 + 128] = {0};
    size_t len = raw_encrypt_request(message + 5, seed, 32, "broken");
    bool sent = raw_headers(raw, stream, RAW_ENCRYPT, NULL, 0);

    message[4] = (uint8_t)len;
    len += 5;
    for (size_t at = 0; sent && at < len - broken->missing; at += broken->piece) {
        size_t part = len - broken->missing - at;

        part = part < broken->piece ? part : broken->piece;
        sent = raw_frame(raw, RAW_DATA, at + part == len ? RAW_END_STREAM : 0, stream, message + at,
                         part);
        (void)usleep(100);
    }
    if (sent && broken->missing != 0) {
        return raw_frame(raw, RAW_RST_STREAM, 0, stream, cancel, sizeof(cancel));
    }
    return sent && raw_status(raw, stream, SEC(10)) == 0;
}

/* Seeds of which pieces are left after all of @brokens, once nobody is connected. */
static unsigned broken_leave(const char *program)
{
    const struct fixture_start start = {.program = program};
    struct fixture_sealed *sealed = calloc(SEEDS, sizeof(*sealed));
    unsigned left = 0;

    fixture_shim(&fx, "");
    if (!UNIT_CHECK("", sealed != NULL) || !UNIT_CHECK("", fixture_spawn(&fx, &start)) ||
        !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return 0;
    }
    for (size_t i = 0; i < UNIT_COUNT(brokens); i++) {
        const char *row = brokens[i].name;
        struct raw *raw = raw_open(&fx, true);
        struct scan_result result;
        unsigned failed = 0;

        for (size_t n = 0; raw != NULL && n < SEEDS;
             n++) { /* those that are not sent are not found */
            if (kms_random(sealed[n].seed, sizeof(sealed[n].seed)) != KMS_OK) {
                abort();
            }
            if (n < BROKEN_SEEDS &&
                !send_broken(raw, (uint32_t)(2 * n + 1), &brokens[i], sealed[n].seed)) {
                failed++;
            }
        }
        UNIT_CHECK(row, raw != NULL && failed == 0);
        raw_close(raw);
        UNIT_CHECK(row, fixture_until(is_alone, NULL, SEC(10)));
        search(row, sealed, &result);
        left += (unsigned)result.needles;
    }
    UNIT_CHECK("", fixture_stop(&fx));
    free(sealed);
    return left;
}

/*
 * Calls of which gRPC drops the pieces itself: what it frees is wiped by kmsbridge/wipe_free.c and
 * by nobody else, which a daemon without it shows.
 */
static void broken_calls_leave_nothing(void)
{
    UNIT_CHECK("", broken_leave("kmsbridge/kmsbridged") == 0);
    /* seen: 59 seeds, 56 of them of calls that were given up */
    UNIT_CHECK("without wiping", broken_leave("tests/daemon/kmsbridged-unwiped") > 0);
}

/* --- the search can find ---------------------------------------------------------------------- */

static void *encrypt_once(void *arg)
{
    struct fixture_sealed *sealed = arg;
    struct kms_v2_client *client = fixture_connect(&fx);
    struct kms_error err = KMS_ERROR_INIT;

    if (client != NULL) {
        (void)fixture_encrypt(client, SEC(20), sealed, &err);
        kms_v2_client_close(client);
    }
    return NULL;
}

static bool encrypt_hangs(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "calls_in_flight") == 1;
}

static size_t needles_found(const void *needle, size_t len)
{
    struct scan *scan = scan_new();
    struct scan_result result;

    scan_add(scan, needle, len);
    (void)scan_process(scan, fx.pid, &result);
    scan_free(scan);
    return result.hits;
}

/* A seed in flight and the key_id are found, so what is not found is not there. */
static void search_finds(void)
{
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_v2_client *client = NULL;
    struct kms_v2_status status = {.key_id = ""};
    struct kms_error err = KMS_ERROR_INIT;
    pthread_t thread;

    fixture_shim(&fx, "");
    if (!UNIT_CHECK("", fixture_start(&fx))) {
        return;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_status(client, &status, &err) == KMS_OK);
    kms_v2_client_close(client);
    UNIT_CHECK("key_id", needles_found(status.key_id, 40) >= 5);
    fixture_shim(&fx, "hang=1:C_Encrypt\n");
    UNIT_CHECK("", pthread_create(&thread, NULL, encrypt_once, &sealed) == 0);
    UNIT_CHECK("in flight", fixture_until(encrypt_hangs, NULL, SEC(5)));
    UNIT_CHECK("in flight", needles_found(sealed.seed, sizeof(sealed.seed)) >= 4);
    fixture_shim(&fx, "");
    (void)pthread_join(thread, NULL);
    UNIT_CHECK("answered", sealed.sealed.key_id != NULL);
    UNIT_CHECK("answered", fixture_until(is_alone, NULL, SEC(10)));
    UNIT_CHECK("answered", needles_found(sealed.seed, sizeof(sealed.seed)) == 0);
    kms_v2_sealed_done(&sealed.sealed);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- hygiene ---------------------------------------------------------------------------------- */

static bool limits_forbid_cores(void)
{
    char path[64];
    char line[256];
    bool none = false;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%ld/limits", (long)fx.pid);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        long soft = -1;
        long hard = -1;

        if (sscanf(line, "Max core file size %ld %ld", &soft, &hard) == 2) {
            none = soft == 0 && hard == 0;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return none;
}

static void process_keeps_itself(void)
{
    if (!UNIT_CHECK("", fixture_start(&fx))) {
        return;
    }
    UNIT_CHECK("", limits_forbid_cores());
    /* the PIN: first 16 bytes of it, in our memory or the module's */
    UNIT_CHECK("PIN", needles_found(FIXTURE_PIN, 16) == 0);
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"the search finds what is there", search_finds},
    {"inline operations leave no seed", inline_leaves_nothing},
    {"operations on workers leave no seed", workers_leave_nothing},
    {"broken calls leave nothing", broken_calls_leave_nothing},
    {"no core, no PIN", process_keeps_itself},
};

int main(void)
{
    if (fixture_sanitized() || geteuid() != 0) {
        printf("SKIP: %s\n", geteuid() != 0
                                 ? "reading another process's memory needs root"
                                 : "a sanitizer's allocator keeps freed memory as it was");
        printf(NAME ": 0 passed, 0 failed, %zu skipped\n", UNIT_COUNT(tests));
        return 77;
    }
    fixture_init(&fx, NAME);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
