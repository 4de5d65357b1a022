/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent's clients may do wrong, by mistake or on purpose: nobody but themselves is to
 * notice, the KMS plugin least of all.
 */
#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/daemon/frames.h"
#include "tests/daemon/jobs.h"
#include "tests/unit/unit.h"

#define NAME        "test_agent_abuse"
#define MANY        500
#define CALLERS     40
#define AT_ONCE     (MS(1500) * fixture_slowness())
#define FRAME_LIMIT (SEC(5) + SEC(3) * fixture_slowness()) /* of a frame, with some room */

static struct fixture fx;
static char agent_socket[128];

static bool restart(const char *agent)
{
    char text[1024];

    if (fx.pid != 0 && !fixture_stop(&fx)) {
        return false;
    }
    (void)snprintf(text, sizeof(text),
                   "agent:\n"
                   "  socket: %s\n"
                   "%s"
                   "audit: {file: none}\n",
                   agent_socket, agent);
    fixture_shim(&fx, "");
    fixture_configure(&fx, NULL, text);
    return fixture_start(&fx) && fixture_log_wait(&fx, "agent: serving");
}

/* Whether it still does its work for others. */
static bool serves(void)
{
    struct frames frames;
    bool good =
        frames_open(&frames, agent_socket) == KMS_OK && frames_random(&frames, 16) == KMS_OK;

    frames_close(&frames);
    return good;
}

struct wish {
    unsigned connections;
};

static bool has_connections(void *ctx)
{
    const struct wish *wish = ctx;

    return fixture_metric(&fx, "agent_connections") == wish->connections;
}

static bool wait_connections(unsigned count)
{
    struct wish wish = {count};

    return fixture_until(has_connections, &wish, SEC(15));
}

/* --- bytes -------------------------------------------------------------------------------------
 */

static const struct garbage {
    const char *name;
    const char *bytes;
    size_t len;
    bool greeted; /* sent after Hello */
} garbage[] = {
    {"an empty frame", "\0\0\0\0", 4, false},
    {"a length without end", "\xff\xff\xff\xff", 4, false},
    {"a Hello that is too long", "\0\0\x40\0", 4, false},
    {"text", "GET / HTTP/1.1\r\n\r\n", 18, false},
    {"a Hello that is none", "\0\0\0\5\xff\xff\xff\xff\xff", 9, false},
    {"an empty frame", "\0\0\0\0", 4, true},
    {"a length without end", "\xff\xff\xff\xff", 4, true},
    {"a request that is too long", "\0\1\xff\xff", 4, true},
    {"a request that is none", "\0\0\0\5\xff\xff\xff\xff\xff", 9, true},
    {"a request without an op", "\0\0\0\2\x08\1", 6, true},
    /* sign, whose bytes end before they do */
    {"a field that is cut", "\0\0\0\4\x9a\1\x20\x0a", 8, true},
    /* a token's name of 70 bytes, of which 2 are there */
    {"a field over its bound", "\0\0\0\4\x1a\x46zz", 8, true},
};

static void bytes(void)
{
    CU_ASSERT_TRUE_FATAL(restart(""));
    for (size_t i = 0; i < UNIT_COUNT(garbage); i++) {
        const struct garbage *row = &garbage[i];
        struct frames frames = {.fd = -1};

        if (row->greeted) {
            UNIT_CHECK(row->name, frames_open(&frames, agent_socket) == KMS_OK);
        } else {
            frames.fd = frames_connect(agent_socket);
        }
        UNIT_CHECK(row->name, frames_send_raw(frames.fd, row->bytes, row->len));
        UNIT_CHECK(row->name, frames_is_closed(frames.fd, AT_ONCE));
        frames_close(&frames);
        UNIT_CHECK(row->name, serves());
    }
    CU_ASSERT_TRUE(wait_connections(0));
    CU_ASSERT_TRUE(fixture_metric(&fx, "agent_refusals_total{reason=\"protocol\"}") >=
                   UNIT_COUNT(garbage) - 1);
}

/* A version that does not exist is told what does. */
static void version(void)
{
    Kms__Agent__Hello hello = KMS__AGENT__HELLO__INIT;
    int fd = frames_connect(agent_socket);
    size_t len = 0;
    uint8_t *body = NULL;
    ProtobufCMessage *message = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    hello.name = kms_agent_put_text("x");
    CU_ASSERT_TRUE(frames_send(fd, &hello.base));
    body = frames_receive(fd, SEC(5), &len);
    CU_ASSERT_PTR_NOT_NULL(body);
    if (body != NULL && kms_agent_unpack(&kms__agent__reply__descriptor, kms_span_of(body, len),
                                         &message, &err) == KMS_OK) {
        kms_agent_get_error(((Kms__Agent__Reply *)message)->error, &err);
        CU_ASSERT_EQUAL(err.status, KMS_E_UNSUPPORTED);
    }
    kms_agent_free(message);
    free(body);
    (void)close(fd);
}

/* --- slowness ----------------------------------------------------------------------------------
 */

static void slow(void)
{
    static const uint8_t start[] = {0, 0, 0, 200, 1};
    struct frames greeted;
    int silent = frames_connect(agent_socket);
    int half = frames_connect(agent_socket);
    uint64_t began = fixture_now();
    bool open = true;

    CU_ASSERT_EQUAL(frames_open(&greeted, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(frames_send_raw(half, start, sizeof(start)));
    CU_ASSERT_TRUE(frames_send_raw(greeted.fd, start, sizeof(start)));
    /* a byte now and then does not help */
    while (open && fixture_now() - began < FRAME_LIMIT) {
        open = !frames_is_closed(greeted.fd, MS(300)) && frames_send_raw(greeted.fd, start, 1);
    }
    CU_ASSERT_FALSE(open);
    CU_ASSERT_TRUE(frames_is_closed(silent, SEC(3)));
    CU_ASSERT_TRUE(frames_is_closed(half, SEC(3)));
    (void)close(silent);
    (void)close(half);
    frames_close(&greeted);
    CU_ASSERT_TRUE(wait_connections(0));
}

/* Who asks and does not listen. */
static void deaf(void)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__Random random = KMS__AGENT__RANDOM__INIT;
    struct frames frames;

    random.len = 4096;
    request.token = kms_agent_put_text("hsm");
    request.op_case = KMS__AGENT__REQUEST__OP_RANDOM;
    request.random = &random;
    CU_ASSERT_EQUAL(frames_open(&frames, agent_socket), KMS_OK);
    for (int i = 0; i < 400; i++) { /* more than the socket's buffers hold of answers */
        if (!frames_send(frames.fd, &request.base)) {
            break;
        }
    }
    CU_ASSERT_TRUE(serves());
    CU_ASSERT_TRUE(wait_connections(0) || frames_is_closed(frames.fd, FRAME_LIMIT));
    frames_close(&frames);
    CU_ASSERT_TRUE(wait_connections(0));
}

static void quiet(void)
{
    struct frames frames;

    CU_ASSERT_TRUE_FATAL(restart("  idle_timeout: 1s\n"));
    CU_ASSERT_EQUAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_EQUAL(frames_random(&frames, 1), KMS_OK);
    CU_ASSERT_TRUE(frames_is_closed(frames.fd, SEC(3)));
    frames_close(&frames);
}

/* --- numbers -----------------------------------------------------------------------------------
 */

static bool has_few_threads(void *ctx)
{
    (void)ctx;
    return fixture_threads(&fx) < 100;
}

static void many(void)
{
    static struct frames all[MANY];
    struct frames over;
    unsigned fds = 0;
    size_t open = 0;
    size_t answered = 0;

    CU_ASSERT_TRUE_FATAL(restart("  max_connections: 500\n  max_connections_per_uid: 600\n"));
    CU_ASSERT_TRUE(serves());
    CU_ASSERT_TRUE(wait_connections(0));
    fds = fixture_fds(&fx);
    for (size_t i = 0; i < MANY; i++) {
        open += frames_open(&all[i], agent_socket) == KMS_OK ? 1 : 0;
    }
    CU_ASSERT_EQUAL(open, MANY);
    CU_ASSERT_EQUAL(frames_open(&over, agent_socket), KMS_E_BUSY);
    frames_close(&over);
    for (size_t i = 0; i < MANY; i++) {
        answered += frames_random(&all[i], 8) == KMS_OK ? 1 : 0;
    }
    CU_ASSERT_EQUAL(answered, MANY);
    CU_ASSERT_TRUE(fixture_round_trip(&fx));
    for (size_t i = 0; i < MANY; i++) {
        frames_close(&all[i]);
    }
    CU_ASSERT_TRUE(wait_connections(0));
    CU_ASSERT_TRUE(fixture_fds(&fx) <= fds + 8);
    CU_ASSERT_TRUE(fixture_until(has_few_threads, NULL, SEC(5)));
}

/* --- calls -------------------------------------------------------------------------------------
 */

struct caller {
    pthread_t thread;
    char ref[FRAMES_REF];
    enum kms_status status;
    bool ended;
};

static void *sign(void *arg)
{
    static const uint8_t digest[32] = {1};
    struct caller *caller = arg;
    struct frames frames;

    caller->status = frames_open(&frames, agent_socket);
    if (caller->status == KMS_OK) {
        caller->status =
            frames_sign(&frames, caller->ref, KMS_ALG_ECDSA, kms_span_of(digest, sizeof(digest)));
    }
    frames_close(&frames);
    return NULL;
}

static bool make_key(char ret_ref[FRAMES_REF])
{
    struct frames frames;
    bool good = frames_open(&frames, agent_socket) == KMS_OK &&
                (frames_find(&frames, "signer", ret_ref) ||
                 (frames_generate(&frames, KMS_KEY_EC, "signer") == KMS_OK &&
                  frames_find(&frames, "signer", ret_ref)));

    frames_close(&frames);
    return good;
}

static void start_callers(struct caller *callers, size_t count, const char *ref)
{
    for (size_t i = 0; i < count; i++) {
        callers[i] = (struct caller){.status = KMS_E_INTERNAL};
        (void)snprintf(callers[i].ref, sizeof(callers[i].ref), "%s", ref);
        if (pthread_create(&callers[i].thread, NULL, sign, &callers[i]) != 0) {
            abort();
        }
    }
}

static size_t join_callers(struct caller *callers, size_t count, enum kms_status status)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(callers[i].thread, NULL);
        n += callers[i].status == status ? 1 : 0;
    }
    return n;
}

static bool is_busy(void *ctx)
{
    const struct wish *wish = ctx;

    return fixture_metric(&fx, "backend_sessions_busy") >= wish->connections;
}

/* The agent's callers hang in the HSM; kube-apiserver does not notice. */
static void no_starving(void)
{
    static struct caller callers[CALLERS];
    struct wish wish = {28}; /* 32 sessions, less those kept */
    struct job job;
    char ref[FRAMES_REF] = "";

    CU_ASSERT_TRUE_FATAL(restart("  concurrent_calls_per_uid: 64\n"));
    CU_ASSERT_TRUE_FATAL(make_key(ref));
    fixture_shim(&fx, "hang=1:C_Sign\n");
    start_callers(callers, CALLERS, ref);
    CU_ASSERT_TRUE(fixture_until(is_busy, &wish, SEC(10)));
    CU_ASSERT_EQUAL(fixture_metric(&fx, "backend_sessions_busy"), 28);
    jobs_start(&job, 1, &fx, NULL, SEC(5));
    CU_ASSERT_EQUAL(jobs_join(&job, 1, KMS_OK), 1);
    CU_ASSERT_TRUE(job.took_ns < AT_ONCE);
    jobs_done(&job, 1);
    CU_ASSERT_TRUE(fixture_round_trip(&fx));
    fixture_shim(&fx, "");
    CU_ASSERT_EQUAL(join_callers(callers, CALLERS, KMS_OK), CALLERS);
}

/* One user's bound is not another's, and who waits too long is told why. */
static void own_bound(void)
{
    static struct caller callers[4];
    struct frames frames;
    char ref[FRAMES_REF] = "";
    uint64_t began = 0;

    CU_ASSERT_TRUE_FATAL(restart("  concurrent_calls_per_uid: 4\n  call_timeout: 1s\n"));
    CU_ASSERT_TRUE_FATAL(make_key(ref));
    CU_ASSERT_EQUAL(frames_open(&frames, agent_socket), KMS_OK);
    fixture_shim(&fx, "hang=1:C_Sign\n");
    start_callers(callers, 4, ref);
    sleep(1);
    began = fixture_now();
    CU_ASSERT_EQUAL(frames_random(&frames, 4), KMS_E_BUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(frames.error.text, "concurrent_calls_per_uid"));
    CU_ASSERT_TRUE(fixture_now() - began < SEC(3));
    fixture_shim(&fx, "");
    (void)join_callers(callers, 4, KMS_OK);
    frames_close(&frames);
}

/* A client that dies within its call. */
static void killed(void)
{
    char ref[FRAMES_REF] = "";
    pid_t pid = 0;
    struct wish wish = {1};

    CU_ASSERT_TRUE_FATAL(restart(""));
    CU_ASSERT_TRUE_FATAL(make_key(ref));
    fixture_shim(&fx, "hang=1:C_Sign\n");
    pid = fork();
    if (pid == 0) {
        struct caller caller;

        (void)snprintf(caller.ref, sizeof(caller.ref), "%s", ref);
        (void)sign(&caller);
        _exit(0);
    }
    CU_ASSERT_TRUE(fixture_until(is_busy, &wish, SEC(10)));
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    CU_ASSERT_TRUE(serves());
    fixture_shim(&fx, "");
    CU_ASSERT_TRUE(wait_connections(0));
    CU_ASSERT_TRUE(serves());
}

/* What is in flight when we are told to leave gets its answer. */
static void leaves_in_order(void)
{
    struct caller caller;
    struct frames idle;
    struct wish wish = {1};
    uint8_t instance[KMS_AGENT_INSTANCE];
    char ref[FRAMES_REF] = "";

    CU_ASSERT_EQUAL(frames_open(&idle, agent_socket), KMS_OK);
    memcpy(instance, idle.instance, sizeof(instance));
    CU_ASSERT_TRUE_FATAL(make_key(ref));
    fixture_shim(&fx, "hang=1:C_Sign\n");
    start_callers(&caller, 1, ref);
    CU_ASSERT_TRUE(fixture_until(is_busy, &wish, SEC(10)));
    (void)kill(fx.pid, SIGTERM);
    CU_ASSERT_TRUE(frames_is_closed(idle.fd, SEC(3)));
    frames_close(&idle);
    fixture_shim(&fx, "");
    CU_ASSERT_EQUAL(join_callers(&caller, 1, KMS_OK), 1);
    CU_ASSERT_TRUE(fixture_stop(&fx));
    CU_ASSERT_TRUE_FATAL(fixture_start(&fx));
    CU_ASSERT_EQUAL(frames_open(&idle, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(memcmp(instance, idle.instance, sizeof(instance)) != 0);
    frames_close(&idle);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"bytes that are no frames", bytes},
        {"no version", version},
        {"slow clients", slow},
        {"clients that do not read", deaf},
        {"quiet connections", quiet},
        {"500 connections", many},
        {"the KMS plugin has its own lane", no_starving},
        {"a user's bound", own_bound},
        {"a client killed within a call", killed},
        {"leaving in order", leaves_in_order},
    };

    fixture_init(&fx, NAME);
    (void)snprintf(agent_socket, sizeof(agent_socket), "%s/agent.sock", fx.dir);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
