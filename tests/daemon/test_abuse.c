/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon under garbage. While one connection after another sends what nobody should, a good
 * client goes on: every answer right and in bounded time. Afterwards the descriptors are back where
 * they were, and the memory has not grown.
 */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/daemon/fixture.h"
#include "tests/daemon/raw.h"
#include "tests/unit/unit.h"

#define NAME         "test_abuse"
#define LATENCY_MAX  SEC(4) /* seen: 20 ms, on a machine with a load of 10 */
#define RSS_GROWTH   2048   /* KiB that three rounds more may add */
#define ROUNDS_MAX   15
#define OVER         65537               /* bytes: one more than a message may have */
#define GATHERED_MAX ((size_t)512 << 20) /* of a message of 1 GiB; seen: 34 to 140 MB */
#define PEAK_MAX     (512 * 1024)        /* KiB resident meanwhile */
#define CONNECTIONS  1000
#define RESETS       4000
#define STATUS_NS    SEC(10)
#define UNKNOWN_PATH "/v2.KeyManagementService/Rotate"

enum {
    OK = 0,
    INVALID = 3,
    EXHAUSTED = 8,
    UNIMPLEMENTED = 12,
    CALM = RAW_RESET - 11, /* ENHANCE_YOUR_CALM: gRPC's clients make ResourceExhausted of it */
    REFUSED = -1000,       /* anything but OK and silence */
    ANSWERED = -1001,      /* gRPC C core is lenient: anything but silence */
};

static struct fixture fx;

/* --- the good client -------------------------------------------------------------------------- */

static struct good {
    pthread_t thread;
    struct kms_v2_client *client;
    atomic_bool stop;
    atomic_uint rounds;
    atomic_uint failed;
    uint64_t slowest_ns; /* after the end */
    char error[KMS_ERROR_TEXT_MAX];
} good;

static bool good_round(struct kms_error *err)
{
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_v2_status verdict;
    enum kms_status status = fixture_status(good.client, &verdict, err);

    if (status == KMS_OK && strcmp(verdict.healthz, "ok") != 0) {
        status = kms_error_set(err, KMS_E_PROTOCOL, "healthz is %s", verdict.healthz);
    }
    if (status == KMS_OK) {
        status = fixture_encrypt(good.client, SEC(10), &sealed, err);
    }
    if (status == KMS_OK) {
        status = fixture_decrypt(good.client, SEC(10), &sealed, err);
    }
    kms_v2_sealed_done(&sealed.sealed);
    return status == KMS_OK;
}

static void *good_main(void *arg)
{
    (void)arg;
    while (!atomic_load(&good.stop)) {
        struct kms_error err = KMS_ERROR_INIT;
        uint64_t began = fixture_now();
        bool ok = good_round(&err);
        uint64_t took = fixture_now() - began;

        good.slowest_ns = took > good.slowest_ns ? took : good.slowest_ns;
        if (!ok &&
            (strstr(err.text, "GOAWAY") != NULL || strstr(err.text, "Transport closed") != NULL ||
             strstr(err.text, "Broken pipe") != NULL ||
             strstr(err.text, "error code 11") != NULL)) /* ENHANCE_YOUR_CALM */ {
            /* out of memory gRPC lets idle connections go; its clients then come back */
            kms_v2_client_close(good.client);
            good.client = fixture_connect(&fx);
            ok = good.client != NULL;
        }
        if (!ok) {
            (void)snprintf(good.error, sizeof(good.error), "%s", err.text);
            atomic_fetch_add(&good.failed, 1);
        }
        atomic_fetch_add(&good.rounds, 1);
        (void)usleep(2000);
    }
    return NULL;
}

static bool good_start(void)
{
    good = (struct good){.client = fixture_connect(&fx)};
    return good.client != NULL && pthread_create(&good.thread, NULL, good_main, NULL) == 0;
}

static bool good_went_round(void *ctx)
{
    return atomic_load(&good.rounds) >= *(const unsigned *)ctx;
}

/* The good client came through @row, and goes on. */
static void good_check(const char *row)
{
    unsigned more = atomic_load(&good.rounds) + 3;

    UNIT_CHECK(row, fixture_until(good_went_round, &more, SEC(10)));
    if (!UNIT_CHECK(row, atomic_exchange(&good.failed, 0) == 0)) {
        fprintf(stderr, "%s: the good client failed: %s\n", row, good.error);
    }
    UNIT_CHECK(row, fixture_round_trip(&fx)); /* on a new connection */
}

static void good_end(void)
{
    atomic_store(&good.stop, true);
    (void)pthread_join(good.thread, NULL);
    kms_v2_client_close(good.client);
    if (!UNIT_CHECK("", good.slowest_ns < LATENCY_MAX * fixture_slowness())) {
        fprintf(stderr, "slowest round: %llu ms\n", (unsigned long long)(good.slowest_ns / MS(1)));
    }
}

/* --- bytes that are no gRPC ------------------------------------------------------------------- */

static void fill(uint8_t *bytes, size_t len)
{
    if (kms_random(bytes, len) != KMS_OK) {
        abort();
    }
}

static void send_random(struct raw *raw)
{
    uint8_t bytes[4096];

    fill(bytes, sizeof(bytes));
    (void)raw_send(raw, bytes, sizeof(bytes));
}

static void send_http1(struct raw *raw)
{
    static const char text[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

    (void)raw_send(raw, text, sizeof(text) - 1);
}

static void send_tls(struct raw *raw)
{
    static const uint8_t hello[] = {0x16, 3, 1, 0, 60, 1, 0, 0, 56, 3, 3};
    uint8_t bytes[65] = {0};

    memcpy(bytes, hello, sizeof(hello));
    (void)raw_send(raw, bytes, sizeof(bytes));
}

static void send_garbage_frames(struct raw *raw)
{
    uint8_t bytes[64];

    for (unsigned type = 0; type < 32; type++) {
        fill(bytes, sizeof(bytes));
        if (!raw_frame(raw, (enum raw_type)(type % 12), bytes[0], bytes[1], bytes, type)) {
            return;
        }
    }
}

static void send_oversized_frame(struct raw *raw)
{
    static uint8_t bytes[1 << 20];

    (void)raw_headers(raw, 1, RAW_ENCRYPT, NULL, 0);
    (void)raw_frame(raw, RAW_DATA, RAW_END_STREAM, 1, bytes, sizeof(bytes));
}

static void send_settings_on_stream(struct raw *raw)
{
    const uint8_t bytes[6] = {0};

    (void)raw_frame(raw, RAW_SETTINGS, 0, 3, bytes, sizeof(bytes));
}

static void send_bad_hpack(struct raw *raw)
{
    static const uint8_t block[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    (void)raw_frame(raw, RAW_HEADERS, RAW_END_HEADERS | RAW_END_STREAM, 1, block, sizeof(block));
}

static void send_endless_headers(struct raw *raw)
{
    uint8_t block[8192];

    memset(block, 0, sizeof(block));
    (void)raw_frame(raw, RAW_HEADERS, 0, 1, block, 0);
    for (int i = 0; i < 64; i++) {
        if (!raw_frame(raw, RAW_CONTINUATION, 0, 1, block, sizeof(block))) {
            return;
        }
    }
}

static void send_zero_window(struct raw *raw)
{
    const uint8_t zero[4] = {0};

    (void)raw_frame(raw, RAW_WINDOW_UPDATE, 0, 0, zero, sizeof(zero));
}

static void send_pings(struct raw *raw)
{
    const uint8_t data[8] = {0};

    for (int i = 0; i < 2000; i++) {
        if (!raw_frame(raw, RAW_PING, 0, 0, data, sizeof(data))) {
            return;
        }
    }
    (void)raw_frame(raw, RAW_PING, 0, 0, data, 5); /* of a wrong length */
}

/* How many reach the daemon's methods, and how many gRPC throws away, is its business. */
static void send_rapid_reset(struct raw *raw)
{
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    uint8_t message[128];
    size_t len = raw_encrypt_request(message, "01234567890123456789012345678901", 32, "reset");

    for (uint32_t i = 0; i < RESETS; i++) {
        uint32_t stream = 2 * i + 1;

        if (!raw_call(raw, stream, RAW_ENCRYPT, message, len) ||
            !raw_frame(raw, RAW_RST_STREAM, 0, stream, cancel, sizeof(cancel))) {
            return;
        }
    }
}

static const struct junk {
    const char *name;
    bool greet;
    bool must_end; /* the daemon closes such a connection */
    void (*send)(struct raw *raw);
} junks[] = {
    {"random bytes", false, true, send_random},
    {"HTTP/1.1", false, true, send_http1},
    {"TLS hello", false, true, send_tls},
    {"garbage frames", true, true, send_garbage_frames},
    {"oversized frame", true, true, send_oversized_frame},
    {"SETTINGS on a stream", true, true, send_settings_on_stream},
    {"bad HPACK", true, true, send_bad_hpack},
    {"endless CONTINUATION", true, false, send_endless_headers},
    {"WINDOW_UPDATE of 0", true, true, send_zero_window},
    {"PINGs, the last malformed", true, true, send_pings},
    {"rapid reset", true, false, send_rapid_reset},
};

static void junk_once(const struct junk *junk)
{
    struct raw *raw = raw_open(&fx, junk->greet);

    if (!UNIT_CHECK(junk->name, raw != NULL)) {
        return;
    }
    junk->send(raw);
    if (junk->must_end) {
        UNIT_CHECK(junk->name, raw_ends(raw, STATUS_NS));
    }
    raw_close(raw);
}

static void junk_is_survived(void)
{
    UNIT_CHECK("", good_start());
    for (size_t i = 0; i < UNIT_COUNT(junks); i++) {
        junk_once(&junks[i]);
        good_check(junks[i].name);
    }
    good_end();
}

/* --- calls that are wrong --------------------------------------------------------------------- */

static const uint8_t twice[] = {0x0a, 1, 'x', 0x12, 1, 'a', 0x0a, 3, 'y', 'y', 'y', 0x12, 1, 'b'};
static const uint8_t unknown[] = {0x0a, 1, 'x', 0x12, 1, 'a', 0xfa, 0x3f, 2, 'z', 'z', 0x50, 1};
static const uint8_t no_uid[] = {0x0a, 1, 'x'};
static const uint8_t bad_utf8[] = {0x0a, 1, 'x', 0x12, 2, 0xc3, 0x28};
static const uint8_t truncated[] = {0x0a, 200, 'x'};

static const struct wrong {
    const char *name;
    const char *path;
    const char *header;
    const void *message;
    size_t len;
    unsigned flag;
    int status;
} wrongs[] = {
    {"unknown method", UNKNOWN_PATH, NULL, "", 0, 0, UNIMPLEMENTED},
    {"wrong service", "/v3.KeyManagementService/Status", NULL, "", 0, 0, UNIMPLEMENTED},
    {"v1", "/v1beta1.KeyManagementService/Version", NULL, "", 0, 0, UNIMPLEMENTED},
    {"no path worth its name", "x", NULL, "", 0, 0, REFUSED},
    {"another content type", RAW_STATUS, "content-type: text/html", "", 0, 0, ANSWERED},
    {"compressed, no encoding", RAW_ENCRYPT, NULL, unknown, sizeof(unknown), 1, ANSWERED},
    {"compressed, gzip", RAW_ENCRYPT, "grpc-encoding: gzip", unknown, sizeof(unknown), 1, REFUSED},
    {"compressed, not known", RAW_ENCRYPT, "grpc-encoding: zstd", unknown, sizeof(unknown), 1,
     ANSWERED},
    {"flag that is not there", RAW_ENCRYPT, NULL, unknown, sizeof(unknown), 7, REFUSED},
    {"not protobuf", RAW_ENCRYPT, NULL, "\xff\xff\xff", 3, 0, INVALID},
    {"truncated protobuf", RAW_ENCRYPT, NULL, truncated, sizeof(truncated), 0, INVALID},
    {"empty Encrypt", RAW_ENCRYPT, NULL, "", 0, 0, INVALID},
    {"empty Decrypt", RAW_DECRYPT, NULL, "", 0, 0, INVALID},
    {"no uid", RAW_ENCRYPT, NULL, no_uid, sizeof(no_uid), 0, INVALID},
    {"uid is not UTF-8", RAW_ENCRYPT, NULL, bad_utf8, sizeof(bad_utf8), 0, INVALID},
    {"fields doubled: the last counts", RAW_ENCRYPT, NULL, twice, sizeof(twice), 0, OK},
    {"unknown fields are passed over", RAW_ENCRYPT, NULL, unknown, sizeof(unknown), 0, OK},
    {"Status with unknown fields", RAW_STATUS, NULL, unknown, sizeof(unknown), 0, OK},
};

static bool is_expected(int expected, int status)
{
    switch (expected) {
    case REFUSED:
        return status != OK && status != RAW_SILENT;
    case ANSWERED:
        return status != RAW_SILENT;
    default:
        return status == expected;
    }
}

static void wrong_once(const struct wrong *wrong)
{
    struct raw *raw = raw_open(&fx, true);
    int status = RAW_SILENT;

    if (!UNIT_CHECK(wrong->name, raw != NULL)) {
        return;
    }
    if (UNIT_CHECK(wrong->name, raw_headers(raw, 1, wrong->path, wrong->header, 0))) {
        (void)raw_message(raw, 1, wrong->flag, wrong->message, wrong->len);
        status = raw_status(raw, 1, STATUS_NS);
    }
    if (!UNIT_CHECK(wrong->name, is_expected(wrong->status, status))) {
        fprintf(stderr, "%s: status %d\n", wrong->name, status);
    }
    raw_close(raw);
}

static void wrong_calls_are_told(void)
{
    UNIT_CHECK("", good_start());
    for (size_t i = 0; i < UNIT_COUNT(wrongs); i++) {
        wrong_once(&wrongs[i]);
    }
    good_check("wrong calls");
    good_end();
}

/* A message over the limit is refused, and however long it is, it is not gathered in memory. */
static void message_too_large(void)
{
    static const uint32_t claims[] = {OVER, 10 * OVER, 1u << 30};

    UNIT_CHECK("", good_start());
    for (size_t i = 0; i < UNIT_COUNT(claims); i++) {
        struct raw *raw = raw_open(&fx, true);
        int status = RAW_SILENT;
        size_t sent = 0;

        if (!UNIT_CHECK("", raw != NULL)) {
            return;
        }
        sent = raw_claim(raw, claims[i], STATUS_NS, &status);
        if (!UNIT_CHECK("", status == CALM || status == EXHAUSTED) ||
            !UNIT_CHECK("", sent < GATHERED_MAX)) {
            fprintf(stderr, "message of %u bytes: status %d after %zu\n", claims[i], status, sent);
        }
        raw_close(raw);
    }
    UNIT_CHECK("", fixture_sanitized() || fixture_peak_kb(&fx) < PEAK_MAX);
    good_check("too large");
    good_end();
}

/* A call that ends without a message: an answer, not a wait for ever. */
static void missing_message(void)
{
    struct raw *raw = raw_open(&fx, true);
    int status;

    if (!UNIT_CHECK("", raw != NULL)) {
        return;
    }
    UNIT_CHECK("", raw_headers(raw, 1, RAW_ENCRYPT, NULL, RAW_END_STREAM));
    status = raw_status(raw, 1, STATUS_NS);
    if (!UNIT_CHECK("", status > OK)) {
        fprintf(stderr, "missing message: status %d\n", status);
    }
    raw_close(raw);
}

/* --- slow and dead clients -------------------------------------------------------------------- */

/* Byte by byte, and the answer comes all the same. */
static void slow_client(void)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    struct raw *raw = raw_open(&fx, false);

    UNIT_CHECK("", good_start());
    if (!UNIT_CHECK("", raw != NULL)) {
        return;
    }
    for (size_t i = 0; i < sizeof(preface) - 1; i++) {
        UNIT_CHECK("preface", raw_send(raw, preface + i, 1));
        (void)usleep(1000);
    }
    UNIT_CHECK("", raw_frame(raw, RAW_SETTINGS, 0, 0, NULL, 0));
    UNIT_CHECK("", raw_headers(raw, 1, RAW_ENCRYPT, NULL, 0));
    for (size_t i = 0; i < 5 + sizeof(unknown); i++) {
        const uint8_t head[5] = {0, 0, 0, 0, sizeof(unknown)};
        const uint8_t *byte = i < 5 ? &head[i] : &unknown[i - 5];
        unsigned flags = i + 1 == 5 + sizeof(unknown) ? RAW_END_STREAM : 0;

        UNIT_CHECK("message", raw_frame(raw, RAW_DATA, flags, 1, byte, 1));
        (void)usleep(1000);
    }
    UNIT_CHECK("", raw_status(raw, 1, STATUS_NS) == OK);
    raw_close(raw);
    good_check("slow client");
    good_end();
}

/* Connections that stop in the middle of everything, and stay; then all are dropped at once. */
static void half_open_clients(void)
{
    struct raw *raws[48] = {NULL};
    uint8_t part[3] = {0, 0, 0};

    UNIT_CHECK("", good_start());
    for (size_t i = 0; i < UNIT_COUNT(raws); i++) {
        raws[i] = raw_open(&fx, i % 4 != 0);
        if (!UNIT_CHECK("", raws[i] != NULL)) {
            continue;
        }
        if (i % 4 == 2) {
            (void)raw_headers(raws[i], 1, RAW_ENCRYPT, NULL, 0);
        } else if (i % 4 == 3) {
            (void)raw_headers(raws[i], 1, RAW_ENCRYPT, NULL, 0);
            (void)raw_frame(raws[i], RAW_DATA, 0, 1, part, sizeof(part));
        }
    }
    good_check("half open");
    for (size_t i = 0; i < UNIT_COUNT(raws); i++) {
        raw_close(raws[i]);
    }
    good_check("dropped");
    good_end();
}

/* A call is under way on each connection when it is dropped. */
static void killed_clients(void)
{
    uint8_t message[128];
    size_t len = raw_encrypt_request(message, "01234567890123456789012345678901", 32, "killed");

    fixture_shim(&fx, "latency_us=20000\n");
    UNIT_CHECK("", good_start());
    for (size_t i = 0; i < 200; i++) {
        struct raw *raw = raw_open(&fx, true);

        if (UNIT_CHECK("", raw != NULL)) {
            UNIT_CHECK("", raw_call(raw, 1, RAW_ENCRYPT, message, len));
            if (i % 2 == 0) {
                (void)usleep(1000); /* half of them get as far as the daemon */
            }
            raw_close(raw);
        }
    }
    good_check("killed");
    good_end();
    fixture_shim(&fx, "");
}

/* --- many ------------------------------------------------------------------------------------- */

static unsigned open_many(struct raw **raws, unsigned count)
{
    unsigned opened = 0;

    for (unsigned i = 0; i < count; i++) {
        raws[i] = raw_open(&fx, true);
        opened += raws[i] != NULL ? 1 : 0;
    }
    return opened;
}

static void close_many(struct raw **raws, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        raw_close(raws[i]);
        raws[i] = NULL;
    }
}

static bool is_number_of_connections(void *ctx)
{
    return fixture_metric(&fx, "connections") == *(const double *)ctx;
}

static bool all_refused(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "connections_refused_limit_total") >= CONNECTIONS - 63;
}

/* Over max_connections the rest is closed at once, and who was there is served. */
static void thousand_connections(void)
{
    static struct raw *raws[CONNECTIONS];
    double expected = 64;
    unsigned served = 0;

    UNIT_CHECK("", good_start());
    UNIT_CHECK("", open_many(raws, CONNECTIONS) >= 64); /* later ones may see it close at once */
    UNIT_CHECK("", fixture_until(is_number_of_connections, &expected, SEC(10)));
    UNIT_CHECK("", fixture_until(all_refused, NULL, SEC(10)));
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (raws[i] != NULL && raw_call(raws[i], 1, RAW_STATUS, "", 0) &&
            raw_status(raws[i], 1, SEC(5)) == OK) {
            served++;
        }
    }
    UNIT_CHECK("", served == 63); /* and the good client */
    close_many(raws, CONNECTIONS);
    expected = 1;
    UNIT_CHECK("", fixture_until(is_number_of_connections, &expected, SEC(10)));
    good_check("a thousand");
    good_end();
}

/* All of a thousand are served when they may be. */
static void thousand_served(void)
{
    static struct raw *raws[CONNECTIONS];
    double expected = CONNECTIONS + 1;
    unsigned served = 0;

    UNIT_CHECK("", fixture_stop(&fx));
    fixture_configure(&fx, "  max_connections: 2000\n", NULL);
    UNIT_CHECK("", fixture_start(&fx) && good_start());
    UNIT_CHECK("", open_many(raws, CONNECTIONS) == CONNECTIONS);
    UNIT_CHECK("", fixture_until(is_number_of_connections, &expected, SEC(20)));
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (raws[i] != NULL && raw_call(raws[i], 1, RAW_STATUS, "", 0) &&
            raw_status(raws[i], 1, SEC(10)) == OK) {
            served++;
        }
    }
    UNIT_CHECK("", served == CONNECTIONS);
    close_many(raws, CONNECTIONS);
    good_check("a thousand served");
    good_end();
}

/* Clients do not get the descriptors that the key needs: SoftHSM would lose it for good. */
static void out_of_descriptors(void)
{
    static struct raw *raws[100];
    const struct fixture_start few = {.files = 48};
    unsigned more;

    UNIT_CHECK("", fixture_stop(&fx));
    fixture_configure(&fx, "  max_connections: 2000\n", NULL);
    UNIT_CHECK("", fixture_spawn(&fx, &few) && fixture_wait_serving(&fx));
    UNIT_CHECK("", fixture_log_count(&fx, "the limit of descriptors is 48") == 1);
    UNIT_CHECK("", good_start());
    (void)open_many(raws, UNIT_COUNT(raws));
    UNIT_CHECK("", fixture_log_wait(&fx, "kms.max_connections is reached"));
    more = atomic_load(&good.rounds) + 5;
    UNIT_CHECK("", fixture_until(good_went_round, &more, SEC(10)));
    close_many(raws, UNIT_COUNT(raws));
    good_check("out of descriptors");
    good_end();
    UNIT_CHECK("", fixture_stop(&fx));
    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("", fixture_start(&fx));
}

/* --- nothing is left behind ------------------------------------------------------------------- */

static void all_junk(void)
{
    for (size_t i = 0; i < UNIT_COUNT(junks); i++) {
        junk_once(&junks[i]);
    }
    for (size_t i = 0; i < UNIT_COUNT(wrongs); i++) {
        wrong_once(&wrongs[i]);
    }
}

static bool has_no_more_fds(void *ctx)
{
    return fixture_fds(&fx) <= *(const unsigned *)ctx;
}

static void nothing_grows(void)
{
    static struct raw *raws[200];
    double none = 0;
    unsigned fds;
    long rss;

    UNIT_CHECK("", fixture_stop(&fx));
    UNIT_CHECK("", fixture_start(&fx) && fixture_round_trip(&fx));
    fds = fixture_fds(&fx);
    /* it may keep what it once took, so there is a plateau: three rounds that add next to nothing
     */
    bool flat = false;
    rss = fixture_rss_kb(&fx);
    for (int i = 0; i < ROUNDS_MAX && !flat; i += 3) {
        long before = rss;
        for (int n = 0; n < 3; n++) {
            all_junk();
            (void)open_many(raws, UNIT_COUNT(raws));
            close_many(raws, UNIT_COUNT(raws));
            UNIT_CHECK("", fixture_until(is_number_of_connections, &none, SEC(10)));
        }
        rss = fixture_rss_kb(&fx);
        flat = i > 0 && rss - before < RSS_GROWTH;
        fprintf(stderr, "VmRSS %ld KiB, then %ld\n", before, rss);
    }
    UNIT_CHECK("", fixture_until(has_no_more_fds, &fds, SEC(10)));
    if (!fixture_sanitized()) { /* a sanitizer keeps what is freed in quarantine */
        UNIT_CHECK("", rss > 0 && flat);
    }
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"garbage on the socket", junk_is_survived},
    {"wrong calls", wrong_calls_are_told},
    {"a message too large", message_too_large},
    {"no message", missing_message},
    {"byte by byte", slow_client},
    {"half-open connections", half_open_clients},
    {"clients that die in a call", killed_clients},
    {"a thousand connections, 64 allowed", thousand_connections},
    {"a thousand connections, all allowed", thousand_served},
    {"out of descriptors", out_of_descriptors},
    {"descriptors and memory", nothing_grows},
};

int main(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < CONNECTIONS + 200) {
        files.rlim_cur = files.rlim_max < 8192 ? files.rlim_max : 8192;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    fixture_init(&fx, NAME);
    if (!fixture_start(&fx)) {
        fixture_log_show(&fx);
        return EXIT_FAILURE;
    }
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
