/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's bounds, seen from outside: what is over a bound is refused at once, deadlines and
 * cancellations are obeyed, what is asked twice is done once, and a token that hangs stops nobody
 * but those who need it.
 */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/daemon/jobs.h"
#include "tests/daemon/raw.h"
#include "tests/unit/unit.h"

#define NAME      "test_limits"
#define AT_ONCE   (MS(500) * fixture_slowness()) /* seen: 5 ms with a load of 10 */
#define JOBS_MAX  64
#define PATIENT   SEC(20)
#define MEMORY    ((size_t)1 << 30) /* what the daemon may take while a client claims that much */
#define PEAK_KB   (256 * 1024)
#define NO_PROBES "  probe_interval: 10m\n  refresh_interval: 1h\n"

static struct fixture fx;
static struct job jobs[JOBS_MAX];

static bool restart(const char *kms, const char *shim)
{
    if (fx.pid != 0 && !fixture_stop(&fx)) {
        return false;
    }
    fixture_shim(&fx, shim);
    fixture_configure(&fx, kms, NULL);
    return fixture_start(&fx);
}

/* One more Encrypt in this thread, on a new connection. */
static enum kms_status one_more(uint64_t patience_ns, uint64_t *ret_took, struct kms_error *err)
{
    struct job job;
    enum kms_status status;

    jobs_start(&job, 1, &fx, NULL, patience_ns);
    (void)jobs_join(&job, 1, KMS_OK);
    jobs_done(&job, 1);
    *ret_took = job.took_ns;
    *err = job.error;
    status = job.status;
    return status;
}

static bool status_answers(void)
{
    struct kms_v2_client *client = fixture_connect(&fx);
    struct kms_v2_status verdict;
    struct kms_error err = KMS_ERROR_INIT;
    bool good = client != NULL && fixture_status(client, &verdict, &err) == KMS_OK;

    kms_v2_client_close(client);
    return good;
}

struct gauge {
    const char *name;
    double value;
};

static bool is_gauge(void *ctx)
{
    const struct gauge *gauge = ctx;

    return fixture_metric(&fx, gauge->name) == gauge->value;
}

static bool wait_gauge(const char *name, double value)
{
    struct gauge gauge = {name, value};

    return fixture_until(is_gauge, &gauge, SEC(10));
}

/* One call hangs inline, one in a worker; with one worker what comes now can but wait. */
static bool occupy(struct job *two)
{
    fixture_shim(&fx, "hang=1:C_Encrypt\n");
    jobs_start(two, 2, &fx, NULL, PATIENT);
    return wait_gauge("calls_in_flight", 2) && wait_gauge("queue_length", 0);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static const struct bound {
    const char *name;
    const char *kms;
    size_t calls;      /* that fit while the token hangs */
    const char *gauge; /* shows that they are in */
    double value;
    const char *answer; /* to the next one */
} bounds[] = {
    {"max_calls", "  max_calls: 4\n  workers: 2\n" NO_PROBES, 4, "calls_in_flight", 4,
     "too many calls in flight"},
    /* one hangs where it ran inline, one in the worker, two wait */
    {"queue", "  queue: 2\n  workers: 1\n" NO_PROBES, 4, "queue_length", 2, "the queue is full"},
};

static void over_a_bound(void)
{
    for (size_t i = 0; i < UNIT_COUNT(bounds); i++) {
        const struct bound *bound = &bounds[i];
        struct kms_error err = KMS_ERROR_INIT;
        uint64_t took = 0;

        if (!UNIT_CHECK(bound->name, restart(bound->kms, ""))) {
            return;
        }
        UNIT_CHECK(bound->name, occupy(jobs));
        jobs_start(jobs + 2, bound->calls - 2, &fx, NULL, PATIENT);
        UNIT_CHECK(bound->name, wait_gauge(bound->gauge, bound->value));
        UNIT_CHECK(bound->name, one_more(PATIENT, &took, &err) == KMS_E_BUSY);
        UNIT_CHECK(bound->name, strstr(err.text, bound->answer) != NULL);
        UNIT_CHECK(bound->name, took < AT_ONCE);
        UNIT_CHECK(bound->name, fixture_metric(&fx, "calls_refused_total") == 1);
        fixture_shim(&fx, "");
        /* those that were in are answered once the token is back */
        UNIT_CHECK(bound->name, jobs_join(jobs, bound->calls, KMS_OK) == bound->calls);
        jobs_done(jobs, bound->calls);
        UNIT_CHECK(bound->name, fixture_round_trip(&fx));
    }
}

/* --- deadlines and cancellation --------------------------------------------------------------- */

static void deadline_is_kept(void)
{
    struct job two[2];
    size_t late = 0;
    long before;

    if (!UNIT_CHECK("", restart("  workers: 1\n" NO_PROBES, "")) || !UNIT_CHECK("", occupy(two))) {
        return;
    }
    jobs_start(jobs, 20, &fx, NULL, MS(100));
    UNIT_CHECK("", jobs_join(jobs, 20, KMS_E_TIMEOUT) == 20);
    for (size_t i = 0; i < 20; i++) {
        late += jobs[i].took_ns < MS(95) || jobs[i].took_ns > MS(100) + AT_ONCE ? 1 : 0;
    }
    UNIT_CHECK("", late == 0);
    jobs_done(jobs, 20);
    before = fixture_calls(&fx, "C_Encrypt");
    fixture_shim(&fx, "");
    UNIT_CHECK("", jobs_join(two, 2, KMS_OK) == 2);
    jobs_done(two, 2);
    UNIT_CHECK("", wait_gauge("calls_in_flight", 0));
    /* the dead were skipped: nobody asked the token for them; a probe may have been due */
    UNIT_CHECK("", before > 0 && fixture_calls(&fx, "C_Encrypt") - before <= 2);
}

static void cancelled_is_abandoned(void)
{
    struct raw *raw = NULL;
    struct job two[2];
    uint8_t message[128];
    size_t len = raw_encrypt_request(message, "01234567890123456789012345678901", 32, "cancel");
    long before;

    if (!UNIT_CHECK("", restart("  workers: 1\n" NO_PROBES, "")) || !UNIT_CHECK("", occupy(two))) {
        return;
    }
    raw = raw_open(&fx, true);
    for (uint32_t i = 0; i < 20 && raw != NULL; i++) {
        UNIT_CHECK("", raw_call(raw, 2 * i + 1, RAW_ENCRYPT, message, len));
    }
    UNIT_CHECK("", wait_gauge("queue_length", 20));
    raw_close(raw);
    for (int i = 0; i < 20; i++) { /* the daemon comes round and sees it go */
        UNIT_CHECK("", fixture_http(&fx, "/livez", NULL, 0) == 200);
        UNIT_CHECK("", status_answers());
    }
    before = fixture_calls(&fx, "C_Encrypt");
    fixture_shim(&fx, "");
    UNIT_CHECK("", jobs_join(two, 2, KMS_OK) == 2);
    jobs_done(two, 2);
    UNIT_CHECK("", wait_gauge("calls_in_flight", 0));
    UNIT_CHECK("", before > 0 && fixture_calls(&fx, "C_Encrypt") - before <= 2);
}

/* --- once ------------------------------------------------------------------------------------- */

static void identical_decrypts_once(void)
{
    struct kms_v2_client *client = NULL;
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;
    long before;

    if (!UNIT_CHECK("", restart("  max_connections: 100\n" NO_PROBES, ""))) {
        return;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    fixture_shim(&fx, "latency_us=200000\n");
    UNIT_CHECK("", fixture_decrypt(client, PATIENT, &sealed, &err) == KMS_OK); /* now it is slow */
    before = fixture_calls(&fx, "C_Decrypt");
    jobs_start(jobs, 64, &fx, &sealed, PATIENT);
    UNIT_CHECK("", jobs_join(jobs, 64, KMS_OK) == 64); /* each compared its plaintext */
    /* those that did not come while one was under way; seen: 1 to 3 */
    UNIT_CHECK("", fixture_calls(&fx, "C_Decrypt") - before <= 16);
    UNIT_CHECK("", fixture_metric(&fx, "decrypts_coalesced_total") >= 48);
    kms_v2_sealed_done(&sealed.sealed);
    kms_v2_client_close(client);
}

/* The first of the identical ones gives up: the others are answered all the same. */
static void impatient_leader(void)
{
    struct kms_v2_client *client = NULL;
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;
    struct job leader;

    if (!UNIT_CHECK("", restart(NO_PROBES, ""))) {
        return;
    }
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    fixture_shim(&fx, "latency_us=20000\n");
    UNIT_CHECK("", fixture_decrypt(client, PATIENT, &sealed, &err) == KMS_OK);
    fixture_shim(&fx, "hang=1:C_Decrypt\n");
    jobs_start(&leader, 1, &fx, &sealed, MS(300));
    UNIT_CHECK("", wait_gauge("calls_in_flight", 1));
    jobs_start(jobs, 8, &fx, &sealed, PATIENT);
    UNIT_CHECK("", wait_gauge("calls_in_flight", 9));
    UNIT_CHECK("", jobs_join(&leader, 1, KMS_E_TIMEOUT) == 1);
    fixture_shim(&fx, "");
    UNIT_CHECK("", jobs_join(jobs, 8, KMS_OK) == 8);
    kms_v2_sealed_done(&sealed.sealed);
    kms_v2_client_close(client);
}

/* --- a token that hangs ----------------------------------------------------------------------- */

/* The slowest of 30 Status calls and monitor pages. */
static uint64_t slowest_status(const char *row)
{
    struct kms_v2_client *client = fixture_connect(&fx);
    struct kms_v2_status verdict;
    struct kms_error err = KMS_ERROR_INIT;
    uint64_t slowest = 0;

    for (int i = 0; client != NULL && i < 30; i++) {
        uint64_t began = fixture_now();
        uint64_t took;

        if (!UNIT_CHECK(row, fixture_status(client, &verdict, &err) == KMS_OK) ||
            !UNIT_CHECK(row, fixture_http(&fx, "/livez", NULL, 0) == 200)) {
            break;
        }
        took = fixture_now() - began;
        slowest = took > slowest ? took : slowest;
    }
    UNIT_CHECK(row, client != NULL);
    kms_v2_client_close(client);
    return slowest;
}

static void status_while_it_hangs(void)
{
    static const struct {
        const char *name;
        const char *shim; /* before it hangs */
        const char *place;
    } rows[] = {
        {"hangs on a worker", "latency_us=5000\n", "calls_on_workers_total"},
        {"hangs inline", "", "calls_inline_total"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *row = rows[i].name;
        double place = 0;

        if (!UNIT_CHECK(row, restart("  probe_interval: 10m\n", rows[i].shim))) {
            return;
        }
        for (int n = 0; n < 5; n++) {
            UNIT_CHECK(row, fixture_round_trip(&fx));
        }
        place = fixture_metric(&fx, rows[i].place);
        UNIT_CHECK(row, place > 0);
        fixture_shim(&fx, "hang=1:C_Encrypt,C_Decrypt\n");
        jobs_start(jobs, 8, &fx, NULL, PATIENT);
        UNIT_CHECK(row, wait_gauge("calls_in_flight", 8));
        UNIT_CHECK(row, slowest_status(row) < AT_ONCE);
        fixture_shim(&fx, rows[i].shim);
        UNIT_CHECK(row, jobs_join(jobs, 8, KMS_OK) == 8);
        jobs_done(jobs, 8);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

static atomic_bool stop;

/* One message after the other of which nothing is said but that it has 1 GiB. */
static void *hostile_main(void *arg)
{
    atomic_size_t *sent = arg;

    while (!atomic_load(&stop)) {
        struct raw *raw = raw_open(&fx, true);
        int status = RAW_SILENT;

        if (raw != NULL) {
            atomic_fetch_add(sent, raw_claim(raw, 1u << 30, MS(300), &status));
            raw_close(raw);
        }
    }
    return NULL;
}

/* An Encrypt, and where its connection ends, again on a new one, up to three times: gRPC
 * lets go of connections when memory is short, and every client comes back. */
static bool good_call(struct kms_v2_client **client)
{
    for (int attempt = 0; attempt < 4; attempt++) {
        struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
        struct kms_error err = KMS_ERROR_INIT;
        enum kms_status status = KMS_E_UNAVAILABLE;

        if (*client == NULL) {
            *client = fixture_connect(&fx);
        }
        if (*client != NULL) {
            status = fixture_encrypt(*client, SEC(3), &sealed, &err);
        }
        kms_v2_sealed_done(&sealed.sealed);
        if (status == KMS_OK) {
            return true;
        }
        kms_v2_client_close(*client);
        *client = NULL;
    }
    return false;
}

/*
 * What one claims does not come out of the memory that another needs. Without a quota the daemon
 * would gather it all and abort.
 */
static void huge_claims_starve_nobody(void)
{
    const struct fixture_start little = {.memory = fixture_sanitized() ? 0 : MEMORY};
    pthread_t hostile;
    atomic_size_t sent = 0;
    struct kms_v2_client *client = NULL;
    unsigned calls = 0;
    unsigned failed = 0;
    uint64_t slowest = 0;

    fixture_shim(&fx, "");
    fixture_configure(&fx, NULL, NULL);
    if (!UNIT_CHECK("", fixture_spawn(&fx, &little)) ||
        !UNIT_CHECK("", fixture_wait_serving(&fx))) {
        return;
    }
    UNIT_CHECK("", good_call(&client));
    atomic_store(&stop, false);
    UNIT_CHECK("", pthread_create(&hostile, NULL, hostile_main, &sent) == 0);
    for (uint64_t end = fixture_now() + SEC(4); fixture_now() < end; calls++) {
        uint64_t began = fixture_now();
        uint64_t took;

        failed += good_call(&client) ? 0 : 1;
        took = fixture_now() - began;
        slowest = took > slowest ? took : slowest;
        (void)usleep(5000);
    }
    atomic_store(&stop, true);
    (void)pthread_join(hostile, NULL);
    /* seen: 600 calls, the slowest 40 ms, 54 MB resident while 3 GB came in */
    if (!UNIT_CHECK("", failed == 0) || !UNIT_CHECK("", calls >= 20) ||
        !UNIT_CHECK("", slowest < SEC(2) * fixture_slowness()) ||
        !UNIT_CHECK("", fixture_sanitized() || fixture_peak_kb(&fx) < PEAK_KB)) {
        fprintf(stderr, "%zu MB sent, %ld KiB resident; %u calls, %u failed, slowest %llu ms\n",
                atomic_load(&sent) >> 20, fixture_peak_kb(&fx), calls, failed,
                (unsigned long long)(slowest / MS(1)));
    }
    UNIT_CHECK("", atomic_load(&sent) > MEMORY / fixture_slowness());
    UNIT_CHECK("", fixture_round_trip(&fx));
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

static bool ran_inline_again(void *ctx)
{
    return fixture_round_trip(&fx) &&
           fixture_metric(&fx, "calls_inline_total") > *(const double *)ctx;
}

/* After the last test the token is fast again: the way over workers is given up. */
static void fast_again(void)
{
    double before = fixture_metric(&fx, "calls_inline_total");

    UNIT_CHECK("", before >= 0);
    UNIT_CHECK("", fixture_metric(&fx, "workers") > 0);
    /* what a sanitizer makes of it is never as fast as that */
    UNIT_CHECK("", fixture_sanitized() || fixture_until(ran_inline_again, &before, SEC(30)));
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"over a bound, refused at once", over_a_bound},
    {"a deadline is kept, and the call skipped", deadline_is_kept},
    {"cancelled calls are abandoned", cancelled_is_abandoned},
    {"identical Decrypts are done once", identical_decrypts_once},
    {"followers of an impatient leader", impatient_leader},
    {"Status while the token hangs", status_while_it_hangs},
    {"inline again when it is fast", fast_again},
    {"huge claims starve nobody", huge_claims_starve_nobody},
};

int main(void)
{
    fixture_init(&fx, NAME);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
