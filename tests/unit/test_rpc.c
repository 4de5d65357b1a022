/* SPDX-License-Identifier: Apache-2.0 */
/* The server of rpc.h with methods of the test's own, asked by a real client over a real socket. */
#include "kmsbridge/rpc.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"
#include "kmsbridge/kms_v2_client.h"
#include "kmsbridge/door.h"
#include "kmsbridge/socket.h"
#include "tests/unit/unit.h"

#define DECRYPT "/v2.KeyManagementService/Decrypt"

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t released;
    bool hold;           /* the next run waits until it is false */
    atomic_bool slow;    /* each run takes a while, and no two are the same */
    atomic_uint pause;   /* of each run, in us */
    atomic_bool differ;  /* no two calls are the same */
    atomic_bool heeds;   /* a run that waits goes on when its client has given up, too */
    atomic_bool was_cut; /* one has */
    atomic_int place;    /* where the last answer was made */
    atomic_uint on_worker;
    atomic_int last_tid;
    atomic_int last_policy;
    atomic_uint runs;
    atomic_uint answered;
} world = {.mutex = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER};

static struct kms_metrics metrics;
static char path[96];

static void set_hold(bool hold)
{
    pthread_mutex_lock(&world.mutex);
    world.hold = hold;
    pthread_cond_broadcast(&world.released);
    pthread_mutex_unlock(&world.mutex);
}

/* A DecryptResponse of the one byte 'x'. Waits when it is told to, once. */
static void run(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    static const uint8_t answer[] = {0x0a, 1, 'x'};
    (void)ctx;
    unsigned n = atomic_fetch_add(&world.runs, 1);
    pthread_mutex_lock(&world.mutex);
    while (world.hold && n == 0 && !atomic_load(&world.was_cut)) {
        if (!atomic_load(&world.heeds)) {
            pthread_cond_wait(&world.released, &world.mutex);
            continue;
        }
        pthread_mutex_unlock(&world.mutex);
        usleep(1000);
        atomic_store(&world.was_cut, atomic_load(request->cancelled));
        pthread_mutex_lock(&world.mutex);
    }
    pthread_mutex_unlock(&world.mutex);
    usleep(atomic_load(&world.pause));
    if (atomic_load(&world.slow)) {
        atomic_store(&world.last_tid, gettid());
        atomic_store(&world.last_policy, sched_getscheduler(0));
        usleep(20000);
    }
    reply->status = kms_buf_put(&reply->message, kms_span_of(answer, sizeof answer));
}

static bool always_the_same(void *ctx, const struct kms_rpc_request *request,
                            uint8_t ret_same[KMS_RPC_SAME_LEN])
{
    (void)ctx;
    (void)request;
    memset(ret_same, 7, KMS_RPC_SAME_LEN);
    return !atomic_load(&world.slow) && !atomic_load(&world.differ);
}

static const struct kms_rpc_method methods[] = {
    {.path = DECRYPT, .id = 0, .secret_reply = true, .run = run, .same = always_the_same},
    {.path = NULL},
};

static void observe(void *ctx, int method_id, int grpc_code, uint64_t ns, enum kms_rpc_place place)
{
    (void)ctx;
    (void)method_id;
    (void)grpc_code;
    (void)ns;
    atomic_store(&world.place, (int)place);
    atomic_fetch_add(&world.on_worker, place == KMS_RPC_ON_WORKER ? 1 : 0);
    atomic_fetch_add(&world.answered, 1);
}

struct server {
    struct kms_rpc *rpc;
    struct kms_socket *socket;
    struct kms_door *door;
};

static void serve(void *ctx, int fd)
{
    struct server *server = ctx;
    kms_rpc_serve_fd(server->rpc, fd);
}

static void begin(struct server *server)
{
    static const struct kms_rpc_limits limits = {
        .calls = 64, .workers = 4, .queue = 64, .call_timeout_ns = 20 * KMS_NS_PER_S};
    const uid_t me = getuid();
    atomic_store(&world.runs, 0);
    atomic_store(&world.answered, 0);
    atomic_store(&world.pause, 0);
    snprintf(path, sizeof path, "@kmsbridge-rpc-test-%ld", (long)getpid());
    const struct kms_socket_conf conf = {
        .path = path, .mode = 0600, .owner = (uid_t)-1, .group = (gid_t)-1};
    CU_ASSERT_EQUAL_FATAL(kms_rpc_start(methods, NULL, &limits, observe, &server->rpc, NULL),
                          KMS_OK);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &server->socket, NULL), KMS_OK);
    const struct kms_door_conf door = {.listen_fd = kms_socket_fd(server->socket),
                                       .peers = {.uids = &me, .uid_count = 1},
                                       .max_connections = 16,
                                       .metrics = &metrics,
                                       .serve = serve,
                                       .ctx = server};
    CU_ASSERT_EQUAL_FATAL(kms_door_open(&door, &server->door, NULL), KMS_OK);
}

static void end(struct server *server)
{
    kms_door_shut(server->door);
    CU_ASSERT(kms_rpc_stop(server->rpc, KMS_NS_PER_S));
    kms_door_close(server->door);
    kms_socket_close(server->socket);
}

static enum kms_status decrypt(struct kms_v2_client *client, uint64_t timeout_ns)
{
    uint8_t plain[64];
    struct kms_buf out = KMS_BUF_OVER(plain);
    struct kms_error err = KMS_ERROR_INIT;
    const struct kms_v2_sealed sealed = {.ciphertext = kms_span_str("any"), .key_id = "kb1-a"};
    return kms_v2_client_decrypt(client, kms_deadline_in(timeout_ns), "uid", &sealed, &out, &err);
}

static struct kms_v2_client *client_new(void)
{
    struct kms_v2_client *client = NULL;
    CU_ASSERT_EQUAL_FATAL(
        kms_v2_client_open(path, kms_deadline_in(10 * KMS_NS_PER_S), &client, NULL), KMS_OK);
    return client;
}

/* The first hangs past its client's patience: the same call again does not hang with it. */
static void nobody_waits_for_an_overdue_leader(void)
{
    struct server server;
    begin(&server);
    struct kms_v2_client *client = client_new();
    set_hold(true);
    /* inline: the guard moves to workers; then one that leads on a worker */
    CU_ASSERT_EQUAL(decrypt(client, 300 * KMS_NS_PER_MS), KMS_E_TIMEOUT);
    set_hold(false);
    set_hold(true);
    atomic_store(&world.runs, 0);
    CU_ASSERT_EQUAL(decrypt(client, KMS_NS_PER_S), KMS_E_TIMEOUT);
    CU_ASSERT_EQUAL(atomic_load(&world.runs), 1);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
    }
    CU_ASSERT_EQUAL(atomic_load(&world.runs), 4);
    set_hold(false);
    kms_v2_client_close(client);
    end(&server);
}

struct waiter {
    pthread_t thread;
    struct kms_v2_client *client;
    uint64_t timeout_ns;
    enum kms_status status;
};

static void *wait_main(void *arg)
{
    struct waiter *waiter = arg;
    waiter->status = decrypt(waiter->client, waiter->timeout_ns);
    return NULL;
}

static bool in_flight(struct kms_rpc *rpc, unsigned count)
{
    for (int i = 0; i < 2000; i++) {
        struct kms_rpc_stats stats;
        kms_rpc_stats(rpc, &stats);
        if (stats.calls_in_flight == count) {
            return true;
        }
        usleep(5000);
    }
    return false;
}

/* Many ask the same at once: it is done once; who gives up meanwhile is let go at once. */
static void the_same_is_done_once_and_who_gives_up_goes(void)
{
    struct server server;
    struct waiter waiters[6];
    begin(&server);
    struct kms_v2_client *first = client_new();
    set_hold(true);
    CU_ASSERT_EQUAL(decrypt(first, 300 * KMS_NS_PER_MS), KMS_E_TIMEOUT); /* to workers */
    set_hold(false);
    CU_ASSERT(in_flight(server.rpc, 0));
    set_hold(true);
    atomic_store(&world.runs, 0);
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        waiters[i].client = client_new();
        waiters[i].timeout_ns = i < 3 ? 15 * KMS_NS_PER_S : 500 * KMS_NS_PER_MS;
        CU_ASSERT_EQUAL(pthread_create(&waiters[i].thread, NULL, wait_main, &waiters[i]), 0);
        CU_ASSERT(in_flight(server.rpc, (unsigned)i + 1));
    }
    CU_ASSERT(in_flight(server.rpc, 3)); /* the impatient three are gone, the leader still held */
    CU_ASSERT_EQUAL(atomic_load(&world.runs), 1);
    set_hold(false);
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        pthread_join(waiters[i].thread, NULL);
        CU_ASSERT_EQUAL(waiters[i].status, i < 3 ? KMS_OK : KMS_E_TIMEOUT);
        kms_v2_client_close(waiters[i].client);
    }
    CU_ASSERT_EQUAL(atomic_load(&world.runs), 1);
    kms_v2_client_close(first);
    end(&server);
}

/* Of the workers that wait, the one that has worked last is given the next call. */
static void who_worked_last_works_next(void)
{
    struct server server;
    struct waiter waiters[4];
    struct kms_rpc_stats stats;
    begin(&server);
    atomic_store(&world.slow, true);
    struct kms_v2_client *client = client_new();
    for (int i = 0; i < 3; i++) { /* too slow for the polling thread */
        CU_ASSERT_EQUAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
    }
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        waiters[i].client = client_new();
        waiters[i].timeout_ns = 10 * KMS_NS_PER_S;
        CU_ASSERT_EQUAL(pthread_create(&waiters[i].thread, NULL, wait_main, &waiters[i]), 0);
    }
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        pthread_join(waiters[i].thread, NULL);
        CU_ASSERT_EQUAL(waiters[i].status, KMS_OK);
        kms_v2_client_close(waiters[i].client);
    }
    CU_ASSERT(in_flight(server.rpc, 0));
    kms_rpc_stats(server.rpc, &stats);
    CU_ASSERT(stats.workers >= 2);
    CU_ASSERT_EQUAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
    int tid = atomic_load(&world.last_tid);
    for (int i = 0; i < 5; i++) {
        usleep(20000); /* it has become idle */
        CU_ASSERT_EQUAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
        CU_ASSERT_EQUAL(atomic_load(&world.last_tid), tid);
        CU_ASSERT_EQUAL(atomic_load(&world.last_policy), SCHED_BATCH);
    }
    atomic_store(&world.slow, false);
    kms_v2_client_close(client);
    end(&server);
}

/* ---- one call after the other ------------------------------------------------------------- */

/* Too slow to be done inline for everybody, quick enough for one alone. */
#define PAUSE_US 300
/* And longer than the polling thread keeps a batch of answers. */
#define LONG_PAUSE_US 500

/* Until calls that come one after the other are run by the polling thread itself. */
static bool reach_alone(struct server *server, struct kms_v2_client *client, unsigned pause_us)
{
    struct kms_rpc_stats stats = {.inline_now = true};
    atomic_store(&world.pause, pause_us);
    for (int i = 0; i < 5000; i++) {
        CU_ASSERT_EQUAL_FATAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
        kms_rpc_stats(server->rpc, &stats);
        if (!stats.inline_now && atomic_load(&world.place) == KMS_RPC_ON_POLLER) {
            return true;
        }
    }
    return false;
}

static void wait_for_run(unsigned count)
{
    for (int i = 0; i < 5000 && atomic_load(&world.runs) < count; i++) {
        usleep(1000);
    }
    CU_ASSERT_EQUAL(atomic_load(&world.runs), count);
}

/* The next call hangs, in a thread of its own, until it is let go. */
static void hang_one(struct waiter *waiter, uint64_t timeout_ns)
{
    set_hold(true);
    atomic_store(&world.runs, 0);
    *waiter = (struct waiter){.client = client_new(), .timeout_ns = timeout_ns};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&waiter->thread, NULL, wait_main, waiter), 0);
    wait_for_run(1);
}

static enum kms_status end_of(struct waiter *waiter)
{
    pthread_join(waiter->thread, NULL);
    kms_v2_client_close(waiter->client);
    return waiter->status;
}

/* Less than the second that the polling thread may sleep when nobody wakes it. */
#define AWAKE_NS (900 * KMS_NS_PER_MS)

/* The polling thread runs what comes alone; if it hangs there, all others are served all the same,
 * by workers, however many come one after the other. */
static void who_is_alone_holds_nobody_up(void)
{
    struct server server;
    struct waiter waiter;
    begin(&server);
    atomic_store(&world.differ, true);
    struct kms_v2_client *client = client_new();
    CU_ASSERT(reach_alone(&server, client, PAUSE_US));
    hang_one(&waiter, 15 * KMS_NS_PER_S);
    for (int i = 0; i < 40; i++) {
        CU_ASSERT_EQUAL(decrypt(client, AWAKE_NS), KMS_OK);
        CU_ASSERT_EQUAL(atomic_load(&world.place), KMS_RPC_ON_WORKER);
    }
    CU_ASSERT(in_flight(server.rpc, 1)); /* it hangs still */
    set_hold(false);
    CU_ASSERT_EQUAL(end_of(&waiter), KMS_OK);
    CU_ASSERT(reach_alone(&server, client, PAUSE_US));
    atomic_store(&world.differ, false);
    kms_v2_client_close(client);
    end(&server);
}

/* After one that hung there, others are not let onto the polling thread at once. */
static void who_is_alone_and_hangs_is_the_last_one(void)
{
    struct server server;
    struct waiter waiter;
    begin(&server);
    struct kms_v2_client *client = client_new();
    CU_ASSERT(reach_alone(&server, client, PAUSE_US));
    hang_one(&waiter, 15 * KMS_NS_PER_S);
    usleep(100000); /* the guard has stepped in */
    set_hold(false);
    CU_ASSERT_EQUAL(end_of(&waiter), KMS_OK);
    CU_ASSERT_EQUAL(decrypt(client, 10 * KMS_NS_PER_S), KMS_OK);
    CU_ASSERT_EQUAL(atomic_load(&world.place), KMS_RPC_ON_WORKER);
    kms_v2_client_close(client);
    end(&server);
}

/* Who joins one that hangs on the polling thread has its answer. */
static void who_is_alone_may_be_joined(void)
{
    struct server server;
    struct waiter first;
    struct waiter second = {.timeout_ns = 15 * KMS_NS_PER_S};
    begin(&server);
    struct kms_v2_client *client = client_new();
    CU_ASSERT(reach_alone(&server, client, PAUSE_US));
    second.client = client_new();
    hang_one(&first, 15 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&second.thread, NULL, wait_main, &second), 0);
    CU_ASSERT(in_flight(server.rpc, 2));
    set_hold(false);
    CU_ASSERT_EQUAL(end_of(&first), KMS_OK);
    CU_ASSERT_EQUAL(end_of(&second), KMS_OK);
    CU_ASSERT_EQUAL(atomic_load(&world.runs), 1);
    kms_v2_client_close(client);
    end(&server);
}

/* An operation that hangs on the polling thread is told that its client has given up. */
static void who_is_alone_is_told_of_its_clients_end(void)
{
    struct server server;
    struct waiter waiter;
    begin(&server);
    struct kms_v2_client *client = client_new();
    CU_ASSERT(reach_alone(&server, client, PAUSE_US));
    atomic_store(&world.heeds, true);
    hang_one(&waiter, 300 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(end_of(&waiter), KMS_E_TIMEOUT);
    CU_ASSERT(in_flight(server.rpc, 0));
    CU_ASSERT(atomic_load(&world.was_cut));
    atomic_store(&world.heeds, false);
    atomic_store(&world.was_cut, false);
    set_hold(false);
    kms_v2_client_close(client);
    end(&server);
}

#define MANY_CALLS 60

static void *many_main(void *arg)
{
    struct waiter *waiter = arg;
    for (int i = 0; i < MANY_CALLS && waiter->status == KMS_OK; i++) {
        waiter->status = decrypt(waiter->client, waiter->timeout_ns);
    }
    return NULL;
}

/* After one alone come many at once: they are served beside each other, by workers, although the
 * polling thread never sees more than one of them under way while it does their work. */
static void many_after_one_alone_are_not_served_in_turn(void)
{
    struct server server;
    struct waiter waiters[6];
    begin(&server);
    atomic_store(&world.differ, true);
    struct kms_v2_client *client = client_new();
    CU_ASSERT(reach_alone(&server, client, LONG_PAUSE_US));
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        waiters[i] = (struct waiter){.client = client_new(), .timeout_ns = 10 * KMS_NS_PER_S};
    }
    atomic_store(&world.on_worker, 0);
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&waiters[i].thread, NULL, many_main, &waiters[i]), 0);
    }
    for (size_t i = 0; i < UNIT_COUNT(waiters); i++) {
        CU_ASSERT_EQUAL(end_of(&waiters[i]), KMS_OK);
    }
    CU_ASSERT(atomic_load(&world.on_worker) > UNIT_COUNT(waiters) * MANY_CALLS / 2);
    atomic_store(&world.differ, false);
    kms_v2_client_close(client);
    end(&server);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"overdue leader", nobody_waits_for_an_overdue_leader},
        {"last idle first", who_worked_last_works_next},
        {"done once", the_same_is_done_once_and_who_gives_up_goes},
        {"alone", who_is_alone_holds_nobody_up},
        {"many after one alone", many_after_one_alone_are_not_served_in_turn},
        {"alone and hung", who_is_alone_and_hangs_is_the_last_one},
        {"alone and joined", who_is_alone_may_be_joined},
        {"alone and cancelled", who_is_alone_is_told_of_its_clients_end},
    };
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("test_rpc", tests, UNIT_COUNT(tests));
}
