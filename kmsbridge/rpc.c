/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/numbers.h"
#include "common/secure.h"
#include "kmsbridge/cork.h"

#define METHODS_MAX       8
#define SLOTS_PER_METHOD  8 /* calls that gRPC may hand over before we come round */
#define UNKNOWN_SLOTS     2
#define SECRET_SLOTS      64 /* replies in the locked pool; more are allocated one by one */
#define JOIN_NS           (500 * KMS_NS_PER_MS) /* how long a call may be joined by identical ones */
#define SAME_BUCKETS      64
#define WORKER_STACK      (512u * 1024u)
#define WORKER_IDLE_NS    (30 * KMS_NS_PER_S)
#define POLL_ROUND_NS     KMS_NS_PER_S
#define GUARD_TICK_NS     KMS_NS_PER_MS
#define GUARD_REST_NS     (50 * KMS_NS_PER_MS) /* without inline work the guard sleeps */
#define WORKER_NICE       5  /* the polling thread, which answers Status, comes first */
#define BATCH_CALLS       16 /* answered before their replies leave, while more are ready ... */
#define BATCH_NS          (250 * KMS_NS_PER_US) /* ... and at most this long */
#define RUNNABLE_NS       (10 * KMS_NS_PER_MS) /* as OVERRUN, for a thread that waits for a CPU only */
#define SPEED_WINDOW      32
#define KEEPALIVE_MS      60000
#define KEEPALIVE_WAIT_MS 20000
#define STUCK_WAIT_NS     KMS_NS_PER_S
#define MEMORY_BASE       ((size_t)32 << 20) /* of gRPC: buffers of connections and messages */
#define MEMORY_PER_CALL   ((size_t)16 << 10)
#define FDS_MAX           8192 /* connections with a higher number are not watched for unread answers */
#define UNREAD_MAX        (2 * KMS_RPC_STREAMS_MAX)

enum tag_kind { TAG_ARRIVED, TAG_CLOSED, TAG_SENT, TAG_SHUTDOWN };

struct call;

struct tag {
    enum tag_kind kind;
    struct call *call;
};

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    _Alignas(16) uint8_t room[];
};

struct kms_rpc_arena {
    size_t used;
    size_t total; /* with chunks */
    struct arena_chunk *chunks;
    _Alignas(16) uint8_t room[KMS_RPC_SCRATCH_MAX];
};

/* The fastest of the last SPEED_WINDOW good runs of one method: queueing and locks do not count as
 * slowness. */
struct speed {
    atomic_uint_fast64_t estimate_ns;
    atomic_uint_fast64_t window_min_ns;
    atomic_uint count;
};

struct call {
    struct tag arrived;
    struct tag closed;
    struct tag sent;
    struct kms_rpc *rpc;
    const struct kms_rpc_method *method; /* NULL: not one of ours */
    size_t method_index;

    grpc_call *grpc;
    gpr_timespec grpc_deadline;
    grpc_metadata_array metadata;
    grpc_call_details details; /* unknown methods only */
    grpc_byte_buffer *payload;
    grpc_byte_buffer *answer;
    int was_cancelled;

    atomic_bool cancelled;
    atomic_int events; /* batches to come back; at 0 gRPC's parts are let go */
    atomic_int refs; /* gRPC's parts, and the slice that is sent from `storage`; at 0 it is freed */
    uint64_t arrived_ns;
    bool counted;       /* in calls_in_flight */
    bool close_watched; /* the closed batch was sent */
    int unread; /* index of the connection in rpc.unread while its answer is on its way; -1 */
    enum kms_rpc_place place;

    struct kms_rpc_request request;
    struct kms_rpc_reply reply;
    uint8_t *secret; /* storage of a secret reply: pool or kms_secure_new() */
    bool secret_pooled;

    struct call *next;      /* in the queue, or among a leader's followers */
    struct call *leader;    /* whose answer it waits for; under same_mutex */
    struct call *followers; /* under same_mutex */
    struct call *same_next; /* bucket's list, under same_mutex */
    bool leads;
    uint8_t same[KMS_RPC_SAME_LEN];

    struct kms_rpc_arena arena;
    uint8_t open_storage[2 * KMS_RPC_REPLY_MAX]; /* of a reply that is no secret */
};

struct kms_rpc {
    const struct kms_rpc_method *methods;
    size_t method_count;
    void *registered[METHODS_MAX];
    unsigned
        missing[METHODS_MAX + 1]; /* slots to post again; the last: unknown methods. Poller's */
    struct speed speed[METHODS_MAX];
    void *ctx;
    kms_rpc_observe observe;
    struct kms_rpc_limits limits;
    atomic_uint_fast64_t call_timeout_ns;

    grpc_server *server;
    grpc_server_credentials *credentials;
    grpc_completion_queue *queue;
    struct tag shutdown;
    struct kms_secure_pool *secrets;

    atomic_bool stopping;
    atomic_bool shut_down; /* gRPC has said that no call is left */
    atomic_uint calls_in_flight;
    atomic_uint unread[FDS_MAX]; /* answers that gRPC still holds, by connection's descriptor */

    /* polling: one thread at a time, that of the current epoch */
    atomic_uint epoch;
    atomic_uint pollers_alive;
    atomic_uint_fast64_t polled_ns;
    atomic_uint_fast64_t inline_since_ns; /* 0: nothing runs inline */
    atomic_uint_fast64_t inline_ended_ns;
    atomic_int poller_tid;

    pthread_t guard;
    pthread_mutex_t guard_mutex; /* guards guard_armed's transitions and wakes */
    pthread_cond_t guard_wake;
    atomic_bool guard_armed;

    pthread_mutex_t work_mutex; /* guards the queue and the numbers of workers */
    pthread_cond_t work_ready;
    pthread_cond_t work_gone;
    struct call *queue_head;
    struct call *queue_tail;
    unsigned queued;
    unsigned workers;
    unsigned workers_idle;

    pthread_mutex_t same_mutex; /* guards the buckets and followers */
    struct call *buckets[SAME_BUCKETS];
};

/* --- one row a status: what a client is told --- */

static const grpc_status_code codes[KMS_STATUS_COUNT] = {
    [KMS_OK] = GRPC_STATUS_OK,
    [KMS_E_INVALID] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_BAD_DATA] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_TOO_LARGE] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_NOT_FOUND] = GRPC_STATUS_NOT_FOUND,
    [KMS_E_EXISTS] = GRPC_STATUS_ALREADY_EXISTS,
    [KMS_E_UNSUPPORTED] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_AUTH] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_DENIED] = GRPC_STATUS_PERMISSION_DENIED,
    [KMS_E_KEY_STATE] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_THROTTLED] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_UNAVAILABLE] = GRPC_STATUS_UNAVAILABLE,
    [KMS_E_TIMEOUT] = GRPC_STATUS_DEADLINE_EXCEEDED,
    [KMS_E_CANCELLED] = GRPC_STATUS_CANCELLED,
    [KMS_E_PROTOCOL] = GRPC_STATUS_INTERNAL,
    [KMS_E_BUSY] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_NOMEM] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_INTERNAL] = GRPC_STATUS_INTERNAL,
};

int kms_rpc_code(enum kms_status status)
{
    return status < KMS_STATUS_COUNT ? (int)codes[status] : (int)GRPC_STATUS_INTERNAL;
}

static void reply_error(struct kms_rpc_reply *reply, enum kms_status status, const char *text)
{
    reply->status = status;
    reply->message.len = 0;
    snprintf(reply->detail, sizeof reply->detail, "%s", text);
}

/* --- memory of a call --- */

void *kms_rpc_arena_alloc(struct kms_rpc_arena *arena, size_t size)
{
    size_t need = (size + 15) & ~(size_t)15;
    if (need < size || need > KMS_RPC_PARSE_MAX || arena->total + need > KMS_RPC_PARSE_MAX) {
        return NULL;
    }
    arena->total += need;
    if (need <= sizeof arena->room - arena->used) {
        void *ptr = arena->room + arena->used;
        arena->used += need;
        return ptr;
    }
    struct arena_chunk *chunk = malloc(sizeof *chunk + need);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->size = need;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk->room;
}

static void arena_done(struct kms_rpc_arena *arena)
{
    kms_wipe(arena->room, arena->used);
    while (arena->chunks != NULL) {
        struct arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        kms_wipe(chunk->room, chunk->size);
        free(chunk);
    }
    arena->used = 0;
}

struct kms_rpc_arena *kms_rpc_arena_new(void)
{
    return calloc(1, sizeof(struct kms_rpc_arena));
}

void kms_rpc_arena_free(struct kms_rpc_arena *arena)
{
    if (arena != NULL) {
        arena_done(arena);
        free(arena);
    }
}

static struct call *call_new(struct kms_rpc *rpc, const struct kms_rpc_method *method, size_t index)
{
    struct call *call = malloc(sizeof *call);
    if (call == NULL) {
        return NULL;
    }
    memset(call, 0, offsetof(struct call, arena.room)); /* the rest is storage */
    call->arrived = (struct tag){TAG_ARRIVED, call};
    call->closed = (struct tag){TAG_CLOSED, call};
    call->sent = (struct tag){TAG_SENT, call};
    call->rpc = rpc;
    call->method = method;
    call->method_index = index;
    call->unread = -1;
    call->request.arena = &call->arena;
    call->request.cancelled = &call->cancelled;
    atomic_init(&call->refs, 1);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->details);
    return call;
}

static void call_unref(struct call *call)
{
    if (atomic_fetch_sub(&call->refs, 1) != 1) {
        return;
    }
    if (call->secret != NULL && call->secret_pooled) {
        kms_secure_pool_give(call->rpc->secrets, call->secret);
    } else if (call->secret != NULL) {
        kms_secure_free(call->secret);
    }
    free(call);
}

/* gRPC lets go of the bytes that it sent from this call's storage; may run on any thread. */
static void slice_released(void *call)
{
    call_unref(call);
}

/* The plaintext of an Encrypt lies in gRPC's receive buffer: overwrite it there, its memory lives
 * on. */
static void wipe_payload(struct call *call)
{
    if (call->payload == NULL || call->payload->type != GRPC_BB_RAW) {
        return;
    }
    grpc_slice_buffer *slices = &call->payload->data.raw.slice_buffer;
    for (size_t i = 0; i < slices->count; i++) {
        kms_wipe(GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
    }
}

/* The request has served: nothing of it is left. */
static void request_done(struct call *call)
{
    if (call->method != NULL && call->method->secret_request) {
        wipe_payload(call);
    }
    arena_done(&call->arena);
    if (call->payload != NULL) {
        grpc_byte_buffer_destroy(call->payload);
        call->payload = NULL;
    }
}

/* Both batches are back, or the call never came. On the polling thread. */
static void grpc_parts_done(struct call *call)
{
    request_done(call);
    if (call->answer != NULL) {
        grpc_byte_buffer_destroy(call->answer);
    }
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->details);
    if (call->unread >= 0) {
        atomic_fetch_sub(&call->rpc->unread[call->unread], 1);
    }
    if (call->grpc != NULL) {
        grpc_call_unref(call->grpc);
    }
    call_unref(call);
}

static void event_done(struct call *call)
{
    if (atomic_fetch_sub(&call->events, 1) == 1) {
        grpc_parts_done(call);
    }
}

/* Where run may write; false when there is no memory. */
static bool reply_storage(struct call *call)
{
    uint8_t *at = call->open_storage;
    if (call->method->secret_reply) {
        call->secret = kms_secure_pool_take(call->rpc->secrets);
        call->secret_pooled = call->secret != NULL;
        if (call->secret == NULL) {
            call->secret = kms_secure_new(2 * KMS_RPC_REPLY_MAX);
        }
        at = call->secret;
    }
    if (at == NULL) {
        return false;
    }
    call->reply.message = kms_buf_over(at, KMS_RPC_REPLY_MAX);
    call->reply.scratch = kms_buf_over(at + KMS_RPC_REPLY_MAX, KMS_RPC_REPLY_MAX);
    return true;
}

/* --- answering --- */

static grpc_byte_buffer *answer_buffer(struct call *call)
{
    atomic_fetch_add(&call->refs, 1);
    grpc_slice slice = grpc_slice_new_with_user_data(call->reply.message.data,
                                                     call->reply.message.len, slice_released, call);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

/*
 * A client that does not read keeps what it is answered in our memory, and by resetting its streams
 * it may ask for ever more in spite of KMS_RPC_STREAMS_MAX (rapid reset). One that has so much
 * unread is hung up on. gRPC calls the peer of a descriptor that it was given "fd:N", and keeps the
 * descriptor open as long as it has a call of it.
 */
static void note_unread(struct call *call)
{
    char *peer = grpc_call_get_peer(call->grpc);
    uint64_t fd = 0;
    if (peer != NULL && strncmp(peer, "fd:", 3) == 0 &&
        kms_parse_u64(peer + 3, 0, FDS_MAX - 1, &fd) == KMS_OK) {
        call->unread = (int)fd;
        if (atomic_fetch_add(&call->rpc->unread[fd], 1) == UNREAD_MAX) {
            kms_log(KMS_LOG_WARN,
                    "rpc: a client does not read its answers; its connection is closed");
            (void)shutdown((int)fd, SHUT_RDWR);
        }
    }
    gpr_free(peer);
}

/* One batch: headers, message, status. Afterwards the call belongs to the polling thread. */
static void call_send(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    grpc_op ops[4];
    size_t count = 0;
    int code =
        call->method != NULL ? kms_rpc_code(call->reply.status) : (int)GRPC_STATUS_UNIMPLEMENTED;
    grpc_slice details = grpc_empty_slice();

    request_done(call);
    memset(ops, 0, sizeof ops);
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (call->reply.status == KMS_OK) {
        call->answer = answer_buffer(call);
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = call->answer;
    } else {
        details = grpc_slice_from_copied_string(call->reply.detail);
    }
    ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[count].data.send_status_from_server.status = (grpc_status_code)code;
    ops[count++].data.send_status_from_server.status_details = &details;
    if (!call->close_watched) {
        ops[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        ops[count++].data.recv_close_on_server.cancelled = &call->was_cancelled;
    }
    if (call->counted) {
        call->counted = false;
        atomic_fetch_sub(&rpc->calls_in_flight, 1);
    }
    if (call->method != NULL && rpc->observe != NULL) {
        rpc->observe(rpc->ctx, call->method->id, code, kms_now_ns() - call->arrived_ns,
                     call->place);
    }
    note_unread(call);
    /* all that was written to the call is the polling thread's from here on */
    atomic_fetch_or(&call->events, 0);
    grpc_call_error error = grpc_call_start_batch(call->grpc, ops, count, &call->sent, NULL);
    grpc_slice_unref(details);
    if (error != GRPC_CALL_OK) {
        kms_log(KMS_LOG_ERROR, "rpc: gRPC refuses a reply: %s", grpc_call_error_to_string(error));
        event_done(call);
    }
}

/* --- speed: inline or not --- */

static void speed_note(struct speed *speed, uint64_t ns)
{
    uint64_t least = atomic_load_explicit(&speed->window_min_ns, memory_order_relaxed);
    if (least == 0 || ns < least) {
        atomic_store_explicit(&speed->window_min_ns, ns, memory_order_relaxed);
        least = ns;
    }
    if (atomic_fetch_add_explicit(&speed->count, 1, memory_order_relaxed) + 1 >= SPEED_WINDOW) {
        atomic_store_explicit(&speed->estimate_ns, least, memory_order_relaxed);
        atomic_store_explicit(&speed->window_min_ns, 0, memory_order_relaxed);
        atomic_store_explicit(&speed->count, 0, memory_order_relaxed);
    }
}

/* An operation has been inside for @ns and is not back: slow, until a whole window says otherwise.
 */
static void speed_overrun(struct speed *speed, uint64_t ns)
{
    atomic_store_explicit(&speed->estimate_ns, ns, memory_order_relaxed);
    atomic_store_explicit(&speed->window_min_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&speed->count, 0, memory_order_relaxed);
}

static bool run_inline_now(struct kms_rpc *rpc, size_t method_index)
{
    return atomic_load_explicit(&rpc->speed[method_index].estimate_ns, memory_order_relaxed) <
           KMS_RPC_INLINE_NS;
}

/* Runs the method; the reply is ready afterwards. */
static void call_run(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    uint64_t began = kms_now_ns();
    if (atomic_load(&call->cancelled)) {
        reply_error(&call->reply, KMS_E_CANCELLED, "cancelled");
        return;
    }
    if (began >= call->request.deadline_ns) {
        reply_error(&call->reply, KMS_E_TIMEOUT, "the deadline passed while waiting for a worker");
        return;
    }
    if (!reply_storage(call)) {
        reply_error(&call->reply, KMS_E_NOMEM, "no memory for a reply");
        return;
    }
    call->method->run(rpc->ctx, &call->request, &call->reply);
    if (call->reply.status == KMS_OK) {
        speed_note(&rpc->speed[call->method_index], kms_now_ns() - began);
    }
}

static void guard_arm(struct kms_rpc *rpc)
{
    if (atomic_load(&rpc->guard_armed)) { /* ordered after inline_since_ns: see guard_main() */
        return;
    }
    pthread_mutex_lock(&rpc->guard_mutex);
    atomic_store(&rpc->guard_armed, true);
    pthread_cond_signal(&rpc->guard_wake);
    pthread_mutex_unlock(&rpc->guard_mutex);
}

static void call_run_inline(struct call *call, uint64_t now)
{
    struct kms_rpc *rpc = call->rpc;
    unsigned epoch = atomic_load(&rpc->epoch);
    call->place = KMS_RPC_ON_POLLER;
    atomic_store(&rpc->inline_since_ns, now);
    guard_arm(rpc);
    call_run(call);
    if (atomic_load(&rpc->epoch) == epoch) { /* else the guard has taken the polling away from us */
        atomic_store(&rpc->inline_since_ns, 0);
        atomic_store_explicit(&rpc->inline_ended_ns, kms_now_ns(), memory_order_relaxed);
    }
    call_send(call);
}

/* --- identical calls --- */

static bool work_push(struct kms_rpc *rpc, struct call *call);

static struct call **bucket_of(struct kms_rpc *rpc, const struct call *call)
{
    return &rpc->buckets[call->same[0] % SAME_BUCKETS];
}

/*
 * Whether @call may wait for @leader's answer: not for one that has taken long, since its key
 * service may hang, and would take every later call of the same ciphertext with it.
 */
static bool same_leads(const struct call *leader, const struct call *call)
{
    return leader->method == call->method &&
           memcmp(leader->same, call->same, KMS_RPC_SAME_LEN) == 0 &&
           call->arrived_ns < leader->request.deadline_ns &&
           call->arrived_ns - leader->arrived_ns < JOIN_NS;
}

/* True when an identical call is under way and will answer this one. Otherwise this one leads. */
static bool same_join(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    if (call->method->same == NULL || !call->method->same(rpc->ctx, &call->request, call->same)) {
        return false;
    }
    bool joined = false;
    pthread_mutex_lock(&rpc->same_mutex);
    struct call **bucket = bucket_of(rpc, call);
    struct call *leader = *bucket;
    while (leader != NULL && !same_leads(leader, call)) {
        leader = leader->same_next;
    }
    if (leader != NULL) {
        call->leader = leader;
        call->next = leader->followers;
        leader->followers = call;
        joined = true;
    } else {
        call->leads = true;
        call->same_next = *bucket;
        *bucket = call;
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    return joined;
}

static struct call *same_leave(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    if (!call->leads) {
        return NULL;
    }
    pthread_mutex_lock(&rpc->same_mutex);
    struct call **at = bucket_of(rpc, call);
    while (*at != call) {
        at = &(*at)->same_next;
    }
    *at = call->same_next;
    struct call *followers = call->followers;
    call->followers = NULL;
    call->leads = false;
    for (struct call *f = followers; f != NULL; f = f->next) {
        f->leader = NULL; /* nobody else will answer it */
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    return followers;
}

/* The client of a call that waits for another's answer has gone: it is answered now. */
static void same_abandon(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    pthread_mutex_lock(&rpc->same_mutex);
    bool waited = call->leader != NULL;
    if (waited) {
        struct call **at = &call->leader->followers;
        while (*at != call) {
            at = &(*at)->next;
        }
        *at = call->next;
        call->next = NULL;
        call->leader = NULL;
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    if (waited) {
        call->place = KMS_RPC_COALESCED;
        reply_error(&call->reply, KMS_E_CANCELLED, "cancelled");
        call_send(call);
    }
}

static void follower_answer(struct call *follower, const struct call *leader)
{
    follower->place = KMS_RPC_COALESCED;
    if (leader->reply.status != KMS_OK) {
        reply_error(&follower->reply, leader->reply.status, leader->reply.detail);
    } else if (!reply_storage(follower) ||
               kms_buf_put(&follower->reply.message, kms_buf_span(&leader->reply.message)) !=
                   KMS_OK) {
        reply_error(&follower->reply, KMS_E_NOMEM, "no memory for a reply");
    } else {
        follower->reply.status = KMS_OK;
    }
    call_send(follower);
}

/* The leader's own end (its client's patience) is not its followers': they go on by themselves. */
static void followers_answer(struct call *followers, const struct call *leader)
{
    bool own_end =
        leader->reply.status == KMS_E_CANCELLED || leader->reply.status == KMS_E_TIMEOUT ||
        (leader->reply.status != KMS_OK && kms_deadline_passed(leader->request.deadline_ns));
    while (followers != NULL) {
        struct call *follower = followers;
        followers = follower->next;
        follower->next = NULL;
        if (!own_end) {
            follower_answer(follower, leader);
        } else if (!work_push(leader->rpc, follower)) {
            reply_error(&follower->reply, KMS_E_BUSY, "the queue is full");
            call_send(follower);
        }
    }
}

/* --- workers --- */

static void cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns)
{
    uint64_t due = kms_deadline_in(ns);
    struct timespec at = {.tv_sec = (time_t)(due / KMS_NS_PER_S),
                          .tv_nsec = (long)(due % KMS_NS_PER_S)};
    pthread_cond_timedwait(cond, mutex, &at);
}

static struct call *work_pop_locked(struct kms_rpc *rpc)
{
    struct call *call = rpc->queue_head;
    if (call != NULL) {
        rpc->queue_head = call->next;
        if (rpc->queue_head == NULL) {
            rpc->queue_tail = NULL;
        }
        call->next = NULL;
        rpc->queued--;
    }
    return call;
}

static void work_one(struct call *call)
{
    call->place = KMS_RPC_ON_WORKER;
    call_run(call);
    struct call *followers = same_leave(call);
    followers_answer(followers, call);
    call_send(call);
}

static void *worker_main(void *arg)
{
    struct kms_rpc *rpc = arg;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE); /* a hint: it may fail */
    pthread_mutex_lock(&rpc->work_mutex);
    for (;;) {
        struct call *call = work_pop_locked(rpc);
        if (call != NULL) {
            pthread_mutex_unlock(&rpc->work_mutex);
            work_one(call);
            pthread_mutex_lock(&rpc->work_mutex);
            continue;
        }
        if (atomic_load(&rpc->stopping)) {
            break;
        }
        uint64_t idle_since = kms_now_ns();
        rpc->workers_idle++;
        cond_wait_ns(&rpc->work_ready, &rpc->work_mutex, WORKER_IDLE_NS);
        rpc->workers_idle--;
        if (rpc->queue_head == NULL && kms_now_ns() - idle_since >= WORKER_IDLE_NS) {
            break;
        }
    }
    rpc->workers--;
    pthread_cond_broadcast(&rpc->work_gone);
    pthread_mutex_unlock(&rpc->work_mutex);
    return NULL;
}

static bool thread_start(void *(*main)(void *), void *arg, size_t stack)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (stack != 0) {
        pthread_attr_setstacksize(&attr, stack);
    }
    int error = pthread_create(&thread, &attr, main, arg);
    pthread_attr_destroy(&attr);
    return error == 0;
}

/* One more worker, if there may be one; the caller has counted it. False when there is none at all.
 */
static bool worker_start(struct kms_rpc *rpc)
{
    if (thread_start(worker_main, rpc, WORKER_STACK)) {
        return true;
    }
    pthread_mutex_lock(&rpc->work_mutex);
    unsigned left = --rpc->workers;
    pthread_mutex_unlock(&rpc->work_mutex);
    kms_log(KMS_LOG_WARN, "rpc: cannot start another worker, %u run", left);
    return left != 0;
}

static void queue_push_locked(struct kms_rpc *rpc, struct call *call)
{
    call->next = NULL;
    if (rpc->queue_tail != NULL) {
        rpc->queue_tail->next = call;
    } else {
        rpc->queue_head = call;
    }
    rpc->queue_tail = call;
    rpc->queued++;
}

/* False when it is not in the queue any more. */
static bool queue_remove_locked(struct kms_rpc *rpc, struct call *call)
{
    struct call *before = NULL;
    for (struct call *at = rpc->queue_head; at != NULL; before = at, at = at->next) {
        if (at == call) {
            *(before != NULL ? &before->next : &rpc->queue_head) = at->next;
            rpc->queue_tail = rpc->queue_tail == at ? before : rpc->queue_tail;
            at->next = NULL;
            rpc->queued--;
            return true;
        }
    }
    return false;
}

/* False when the queue is full, or nobody is there to work on it. */
static bool work_push(struct kms_rpc *rpc, struct call *call)
{
    pthread_mutex_lock(&rpc->work_mutex);
    bool room = rpc->queued < rpc->limits.queue;
    bool grow = room && rpc->workers_idle <= rpc->queued && rpc->workers < rpc->limits.workers;
    if (room) {
        queue_push_locked(rpc, call);
        rpc->workers += grow ? 1u : 0u;
    }
    pthread_mutex_unlock(&rpc->work_mutex);
    if (!room) {
        return false;
    }
    if (!grow) {
        pthread_cond_signal(&rpc->work_ready);
        return true;
    }
    if (worker_start(rpc)) {
        return true;
    }
    /* not one worker: its pusher takes the call back, unless a worker came and has it */
    pthread_mutex_lock(&rpc->work_mutex);
    bool taken_back = queue_remove_locked(rpc, call);
    pthread_mutex_unlock(&rpc->work_mutex);
    return !taken_back;
}

/* --- arriving --- */

static void slot_post(struct kms_rpc *rpc, const struct kms_rpc_method *method, size_t index)
{
    struct call *call = call_new(rpc, method, index);
    grpc_call_error error = GRPC_CALL_ERROR;
    if (call != NULL && method != NULL) {
        error = grpc_server_request_registered_call(
            rpc->server, rpc->registered[index], &call->grpc, &call->grpc_deadline, &call->metadata,
            &call->payload, rpc->queue, rpc->queue, &call->arrived);
    } else if (call != NULL) {
        error = grpc_server_request_call(rpc->server, &call->grpc, &call->details, &call->metadata,
                                         rpc->queue, rpc->queue, &call->arrived);
    }
    if (error != GRPC_CALL_OK) {
        kms_log(KMS_LOG_ERROR, "rpc: cannot take another call now: %s",
                call == NULL ? "out of memory" : grpc_call_error_to_string(error));
        rpc->missing[method != NULL ? index : METHODS_MAX]++;
        if (call != NULL) {
            grpc_parts_done(call);
        }
    }
}

/* gRPC's deadline is on CLOCK_MONOTONIC; ours bounds it. */
static uint64_t deadline_of(const struct call *call)
{
    uint64_t ours = call->arrived_ns + atomic_load(&call->rpc->call_timeout_ns);
    gpr_timespec theirs = call->grpc_deadline;
    if (gpr_time_cmp(theirs, gpr_inf_future(theirs.clock_type)) == 0 || theirs.tv_sec < 0) {
        return ours;
    }
    uint64_t ns = (uint64_t)theirs.tv_sec * KMS_NS_PER_S + (uint64_t)theirs.tv_nsec;
    return ns < ours ? ns : ours;
}

/* The message's bytes in one piece. */
static bool payload_read(struct call *call)
{
    const grpc_byte_buffer *payload = call->payload;
    if (payload == NULL || payload->type != GRPC_BB_RAW ||
        payload->data.raw.compression != GRPC_COMPRESS_NONE) {
        reply_error(&call->reply, KMS_E_INVALID, "the request has no uncompressed message");
        return false;
    }
    const grpc_slice_buffer *slices = &payload->data.raw.slice_buffer;
    if (slices->count == 1) {
        call->request.message = kms_span_of(GRPC_SLICE_START_PTR(slices->slices[0]),
                                            GRPC_SLICE_LENGTH(slices->slices[0]));
        return true;
    }
    uint8_t *joined = kms_rpc_arena_alloc(&call->arena, slices->length);
    if (joined == NULL) {
        reply_error(&call->reply, KMS_E_TOO_LARGE, "the request is too large");
        return false;
    }
    struct kms_buf buf = kms_buf_over(joined, slices->length);
    for (size_t i = 0; i < slices->count; i++) {
        if (kms_buf_put(&buf, kms_span_of(GRPC_SLICE_START_PTR(slices->slices[i]),
                                          GRPC_SLICE_LENGTH(slices->slices[i]))) != KMS_OK) {
            reply_error(&call->reply, KMS_E_INTERNAL, "the request's length is wrong");
            return false;
        }
    }
    call->request.message = kms_buf_span(&buf);
    return true;
}

/*
 * A call that waits is told of its client's end at once, by a batch of its own. One that is
 * answered before the polling thread looks again gets the same in the batch of its answer, which
 * costs less.
 */
static void watch_close(struct call *call)
{
    grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    close.data.recv_close_on_server.cancelled = &call->was_cancelled;
    call->close_watched = true;
    atomic_fetch_add(&call->events, 1);
    if (grpc_call_start_batch(call->grpc, &close, 1, &call->closed, NULL) != GRPC_CALL_OK) {
        atomic_fetch_sub(&call->events, 1);
    }
}

/* An operation with the key: bounded, and inline or by a worker. */
static void call_dispatch(struct call *call)
{
    struct kms_rpc *rpc = call->rpc;
    call->counted = true;
    if (atomic_fetch_add(&rpc->calls_in_flight, 1) >= rpc->limits.calls) {
        call->place = KMS_RPC_REFUSED;
        reply_error(&call->reply, KMS_E_BUSY, "too many calls in flight");
        call_send(call);
        return;
    }
    if (run_inline_now(rpc, call->method_index)) {
        call_run_inline(call, call->arrived_ns);
        return;
    }
    watch_close(call);
    if (same_join(call)) {
        return; /* its leader answers */
    }
    if (!work_push(rpc, call)) {
        call->place = KMS_RPC_REFUSED;
        reply_error(&call->reply, KMS_E_BUSY, "the queue is full");
        followers_answer(same_leave(call), call);
        call_send(call);
    }
}

static void call_serve(struct call *call)
{
    const struct kms_rpc_method *method = call->method;
    if (method == NULL) {
        reply_error(&call->reply, KMS_E_UNSUPPORTED, "unknown method");
        call_send(call);
        return;
    }
    call->reply.status = KMS_OK;
    call->request.deadline_ns = deadline_of(call);
    if (!payload_read(call)) {
        call_send(call);
        return;
    }
    if (method->parse != NULL) {
        method->parse(call->rpc->ctx, &call->request, &call->reply);
    }
    if (call->reply.status != KMS_OK) {
        call_send(call);
    } else if (method->instant) {
        call_run(call);
        call_send(call);
    } else {
        call_dispatch(call);
    }
}

static void call_arrived(struct call *call, bool ok)
{
    struct kms_rpc *rpc = call->rpc;
    if (!ok) { /* the server shuts down: this slot's call never comes */
        grpc_parts_done(call);
        return;
    }
    if (!atomic_load(&rpc->stopping)) {
        slot_post(rpc, call->method, call->method_index);
    }
    call->arrived_ns = kms_now_ns();
    atomic_store(&call->events, 1);
    call_serve(call);
}

/* --- polling --- */

static gpr_timespec poll_until(void)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos((int64_t)POLL_ROUND_NS, GPR_TIMESPAN));
}

static void handle(struct kms_rpc *rpc, const struct tag *tag, bool ok)
{
    switch (tag->kind) {
    case TAG_ARRIVED:
        call_arrived(tag->call, ok);
        break;
    case TAG_CLOSED:
        if (tag->call->was_cancelled) {
            atomic_store(&tag->call->cancelled, true);
            same_abandon(tag->call);
        }
        event_done(tag->call);
        break;
    case TAG_SENT:
        event_done(tag->call);
        break;
    case TAG_SHUTDOWN:
        atomic_store(&rpc->shut_down, true);
        break;
    }
}

/* Slots that could not be posted for want of memory: once a round, one more try each. */
static void post_missing(struct kms_rpc *rpc)
{
    for (size_t i = 0; i <= METHODS_MAX; i++) {
        if (rpc->missing[i] != 0 && !atomic_load(&rpc->stopping)) {
            rpc->missing[i]--;
            slot_post(rpc, i < METHODS_MAX ? &rpc->methods[i] : NULL, i < METHODS_MAX ? i : 0);
        }
    }
}

static grpc_event next_event(struct kms_rpc *rpc, gpr_timespec until)
{
    return grpc_completion_queue_next(rpc->queue, until, NULL);
}

/* @event and those that are ready behind it; returns what ended the batch. */
static grpc_event handle_batch(struct kms_rpc *rpc, unsigned epoch, grpc_event event)
{
    uint64_t limit = kms_now_ns() + BATCH_NS;
    unsigned calls = 0;
    kms_cork_begin();
    while (event.type == GRPC_OP_COMPLETE) {
        const struct tag *tag = event.tag;
        calls += tag->kind == TAG_ARRIVED ? 1 : 0;
        handle(rpc, tag, event.success != 0);
        if (calls >= BATCH_CALLS || kms_now_ns() >= limit || atomic_load(&rpc->epoch) != epoch) {
            event.type = GRPC_QUEUE_TIMEOUT;
        } else {
            event = next_event(rpc, gpr_inf_past(GPR_CLOCK_MONOTONIC));
        }
    }
    kms_cork_end();
    return event;
}

/* Until gRPC's queue is shut down, or another thread polls in a newer epoch. */
static void poll_loop(struct kms_rpc *rpc, unsigned epoch)
{
    atomic_store(&rpc->poller_tid, gettid());
    while (atomic_load(&rpc->epoch) == epoch) {
        atomic_store_explicit(&rpc->polled_ns, kms_now_ns(), memory_order_relaxed);
        grpc_event event = handle_batch(rpc, epoch, next_event(rpc, poll_until()));
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            break;
        }
        post_missing(rpc);
    }
}

struct poller {
    struct kms_rpc *rpc;
    unsigned epoch;
};

static void *poller_main(void *arg)
{
    struct poller poller = *(struct poller *)arg;
    free(arg);
    poll_loop(poller.rpc, poller.epoch);
    atomic_fetch_sub(&poller.rpc->pollers_alive, 1);
    return NULL;
}

/* Another polling thread, for @epoch. False when there is none to be had. */
static bool poller_start(struct kms_rpc *rpc, unsigned epoch)
{
    struct poller *poller = malloc(sizeof *poller);
    if (poller == NULL) {
        return false;
    }
    *poller = (struct poller){.rpc = rpc, .epoch = epoch};
    atomic_fetch_add(&rpc->pollers_alive, 1);
    if (!thread_start(poller_main, poller, 0)) {
        atomic_fetch_sub(&rpc->pollers_alive, 1);
        free(poller);
        return false;
    }
    return true;
}

/* Whether the polling thread waits for a CPU, or has one, and not for the key service (proc(5)). */
static bool poller_runnable(struct kms_rpc *rpc)
{
    char path[64];
    char text[128];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)atomic_load(&rpc->poller_tid));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *paren = strrchr(text, ')'); /* "TID (NAME) STATE ..." */
    return paren != NULL && strncmp(paren, ") R", 3) == 0;
}

static bool overruns(struct kms_rpc *rpc, uint64_t ns)
{
    return ns > RUNNABLE_NS || (ns > KMS_RPC_OVERRUN_NS && !poller_runnable(rpc));
}

/* An inline operation overruns: polling goes on in another thread, operations to workers. */
static void guard_take_over(struct kms_rpc *rpc, uint64_t overrun_ns)
{
    for (size_t i = 0; i < rpc->method_count; i++) {
        if (!rpc->methods[i].instant) {
            speed_overrun(&rpc->speed[i], overrun_ns);
        }
    }
    kms_cork_flush(); /* replies to earlier calls of its batch */
    atomic_store(&rpc->inline_since_ns, 0);
    unsigned epoch = atomic_fetch_add(&rpc->epoch, 1) + 1;
    if (!poller_start(rpc, epoch)) {
        poll_loop(rpc, epoch); /* no thread to be had: then this one polls, and nobody guards */
    }
}

static bool rested(struct kms_rpc *rpc, uint64_t now)
{
    uint64_t ended = atomic_load(&rpc->inline_ended_ns);
    return ended < now && now - ended > GUARD_REST_NS;
}

static void *guard_main(void *arg)
{
    struct kms_rpc *rpc = arg;
    pthread_mutex_lock(&rpc->guard_mutex);
    while (!atomic_load(&rpc->stopping)) {
        if (!atomic_load(&rpc->guard_armed)) {
            pthread_cond_wait(&rpc->guard_wake, &rpc->guard_mutex);
            continue;
        }
        cond_wait_ns(&rpc->guard_wake, &rpc->guard_mutex, GUARD_TICK_NS);
        uint64_t now = kms_now_ns();
        uint64_t since = atomic_load(&rpc->inline_since_ns);
        if (since != 0 && since < now && overruns(rpc, now - since)) {
            pthread_mutex_unlock(&rpc->guard_mutex);
            guard_take_over(rpc, now - since);
            pthread_mutex_lock(&rpc->guard_mutex);
        } else if (since == 0 && rested(rpc, now)) {
            atomic_store(&rpc->guard_armed, false);
            /* an operation that began meanwhile may have taken us for armed */
            atomic_store(&rpc->guard_armed, atomic_load(&rpc->inline_since_ns) != 0);
        }
    }
    pthread_mutex_unlock(&rpc->guard_mutex);
    return NULL;
}

/*
 * Abseil built without NDEBUG, as Debian's is, searches every mutex operation for possible
 * deadlocks. absl::SetMutexDeadlockDetectionMode(OnDeadlockCycle::kIgnore) is its public switch; it
 * is C++, so it is looked up by its mangled name, with and without Debian's inline namespace, and
 * left alone if not found.
 */
static void quiet_abseil(void)
{
    static const char *const names[] = {
        "_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
        "_ZN4absl29SetMutexDeadlockDetectionModeENS_15OnDeadlockCycleE",
    };
    enum { ABSL_IGNORE = 0 };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *symbol = dlsym(RTLD_DEFAULT, names[i]);
        if (symbol != NULL) {
            void (*set_mode)(int) = NULL;
            memcpy(&set_mode, &symbol, sizeof set_mode);
            set_mode(ABSL_IGNORE);
            return;
        }
    }
    kms_log(KMS_LOG_DEBUG, "rpc: Abseil's deadlock detection is left as it is");
}

/* --- start and stop --- */

static void grpc_log(gpr_log_func_args *args)
{
    kms_log(args->severity == GPR_LOG_SEVERITY_ERROR ? KMS_LOG_WARN : KMS_LOG_DEBUG, "grpc: %s",
            args->message);
}

/*
 * gRPC gathers a message whole, however long it says it is, before it looks at
 * GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH. What bounds its memory is the quota: over it, streams are
 * reset with ENHANCE_YOUR_CALM, which is ResourceExhausted to their client.
 */
static grpc_resource_quota *quota_new(const struct kms_rpc_limits *limits)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("kms");
    grpc_resource_quota_resize(quota, MEMORY_BASE + limits->calls * MEMORY_PER_CALL);
    return quota;
}

static grpc_server *server_new(const struct kms_rpc_limits *limits)
{
    grpc_resource_quota *quota = quota_new(limits);
    grpc_arg args[] = {
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_CONCURRENT_STREAMS,
         .value.integer = KMS_RPC_STREAMS_MAX},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
         .value.integer = KMS_RPC_MESSAGE_MAX},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_METADATA_SIZE,
         .value.integer = 16384},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_TIME_MS,
         .value.integer = KEEPALIVE_MS},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
         .value.integer = KEEPALIVE_WAIT_MS},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS,
         .value.integer = 1},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA,
         .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION,
         .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_CHANNELZ,
         .value.integer = 0},
    };
    grpc_channel_args channel_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_server *server = grpc_server_create(&channel_args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

static enum kms_status methods_register(struct kms_rpc *rpc, struct kms_error *err)
{
    while (rpc->methods[rpc->method_count].path != NULL) {
        size_t i = rpc->method_count++;
        if (i == METHODS_MAX) {
            return kms_error_set(err, KMS_E_INTERNAL, "rpc: more than %d methods", METHODS_MAX);
        }
        /* no host: every :authority is served */
        rpc->registered[i] = grpc_server_register_method(
            rpc->server, rpc->methods[i].path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (rpc->registered[i] == NULL) {
            return kms_error_set(err, KMS_E_INTERNAL, "rpc: gRPC refuses %s", rpc->methods[i].path);
        }
    }
    return KMS_OK;
}

static void cond_init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void rpc_free(struct kms_rpc *rpc)
{
    if (rpc->server != NULL) {
        grpc_server_destroy(rpc->server);
    }
    if (rpc->queue != NULL) {
        grpc_completion_queue_destroy(rpc->queue);
    }
    if (rpc->credentials != NULL) {
        grpc_server_credentials_release(rpc->credentials);
    }
    grpc_shutdown_blocking();
    kms_secure_pool_free(rpc->secrets);
    free(rpc);
}

static void slots_post(struct kms_rpc *rpc)
{
    for (size_t i = 0; i < rpc->method_count; i++) {
        for (int n = 0; n < SLOTS_PER_METHOD; n++) {
            slot_post(rpc, &rpc->methods[i], i);
        }
    }
    for (int n = 0; n < UNKNOWN_SLOTS; n++) {
        slot_post(rpc, NULL, 0);
    }
}

enum kms_status kms_rpc_start(const struct kms_rpc_method *methods, void *ctx,
                              const struct kms_rpc_limits *limits, kms_rpc_observe observe,
                              struct kms_rpc **ret_rpc, struct kms_error *err)
{
    struct kms_rpc *rpc = calloc(1, sizeof *rpc);
    if (rpc == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "rpc: out of memory");
    }
    quiet_abseil();
    gpr_set_log_function(grpc_log);
    grpc_init();
    rpc->methods = methods;
    rpc->ctx = ctx;
    rpc->limits = *limits;
    rpc->observe = observe;
    atomic_init(&rpc->call_timeout_ns, limits->call_timeout_ns);
    pthread_mutex_init(&rpc->guard_mutex, NULL);
    pthread_mutex_init(&rpc->work_mutex, NULL);
    pthread_mutex_init(&rpc->same_mutex, NULL);
    cond_init_monotonic(&rpc->guard_wake);
    cond_init_monotonic(&rpc->work_ready);
    cond_init_monotonic(&rpc->work_gone);
    rpc->shutdown.kind = TAG_SHUTDOWN;
    rpc->secrets = kms_secure_pool_new(2 * KMS_RPC_REPLY_MAX, SECRET_SLOTS);
    rpc->server = server_new(limits);
    rpc->credentials = grpc_insecure_server_credentials_create();
    rpc->queue = grpc_completion_queue_create_for_next(NULL);
    enum kms_status status = KMS_OK;
    if (!kms_cork_init() || rpc->secrets == NULL || rpc->server == NULL ||
        rpc->credentials == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "rpc: cannot make a gRPC server");
        goto out;
    }
    status = methods_register(rpc, err);
    if (status != KMS_OK) {
        goto out;
    }
    grpc_server_register_completion_queue(rpc->server, rpc->queue, NULL);
    grpc_server_start(rpc->server);
    slots_post(rpc);
    atomic_store(&rpc->polled_ns, kms_now_ns());
    if (pthread_create(&rpc->guard, NULL, guard_main, rpc) != 0 || !poller_start(rpc, 0)) {
        return kms_error_set(err, KMS_E_NOMEM, "rpc: cannot start threads: %s", strerror(errno));
    }
    *ret_rpc = rpc;
    return KMS_OK;
out:
    if (rpc->queue != NULL) {
        grpc_completion_queue_shutdown(rpc->queue);
    }
    rpc_free(rpc);
    return status;
}

void kms_rpc_serve_fd(struct kms_rpc *rpc, int fd)
{
    grpc_server_add_channel_from_fd(rpc->server, fd, rpc->credentials);
}

void kms_rpc_set_call_timeout(struct kms_rpc *rpc, uint64_t ns)
{
    atomic_store(&rpc->call_timeout_ns, ns);
}

void kms_rpc_stats(struct kms_rpc *rpc, struct kms_rpc_stats *ret_stats)
{
    uint64_t now = kms_now_ns();
    uint64_t polled = atomic_load(&rpc->polled_ns);
    ret_stats->calls_in_flight = atomic_load(&rpc->calls_in_flight);
    ret_stats->poller_quiet_ns = now > polled ? now - polled : 0;
    ret_stats->inline_now = true;
    for (size_t i = 0; i < rpc->method_count; i++) {
        ret_stats->inline_now = ret_stats->inline_now && run_inline_now(rpc, i);
    }
    pthread_mutex_lock(&rpc->work_mutex);
    ret_stats->queued = rpc->queued;
    ret_stats->workers = rpc->workers;
    pthread_mutex_unlock(&rpc->work_mutex);
}

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_nsec = (long)(ms * KMS_NS_PER_MS)};
    nanosleep(&ts, NULL);
}

static bool wait_flag(const atomic_bool *flag, uint64_t ns)
{
    uint64_t deadline = kms_deadline_in(ns);
    while (!atomic_load(flag) && !kms_deadline_passed(deadline)) {
        pause_ms(2);
    }
    return atomic_load(flag);
}

/* True once the last worker is gone. */
static bool workers_stop(struct kms_rpc *rpc)
{
    uint64_t deadline = kms_deadline_in(STUCK_WAIT_NS);
    pthread_mutex_lock(&rpc->work_mutex);
    pthread_cond_broadcast(&rpc->work_ready);
    while (rpc->workers != 0 && !kms_deadline_passed(deadline)) {
        cond_wait_ns(&rpc->work_gone, &rpc->work_mutex, kms_deadline_left(deadline));
    }
    bool gone = rpc->workers == 0;
    pthread_mutex_unlock(&rpc->work_mutex);
    return gone;
}

static bool pollers_stop(struct kms_rpc *rpc)
{
    uint64_t deadline = kms_deadline_in(STUCK_WAIT_NS);
    grpc_completion_queue_shutdown(rpc->queue);
    while (atomic_load(&rpc->pollers_alive) != 0 && !kms_deadline_passed(deadline)) {
        pause_ms(1);
    }
    return atomic_load(&rpc->pollers_alive) == 0;
}

bool kms_rpc_stop(struct kms_rpc *rpc, uint64_t grace_ns)
{
    if (rpc == NULL) {
        return true;
    }
    pthread_mutex_lock(&rpc->guard_mutex);
    atomic_store(&rpc->stopping, true);
    pthread_cond_signal(&rpc->guard_wake);
    pthread_mutex_unlock(&rpc->guard_mutex);
    grpc_server_shutdown_and_notify(rpc->server, rpc->queue, &rpc->shutdown);
    if (!wait_flag(&rpc->shut_down, grace_ns)) {
        grpc_server_cancel_all_calls(rpc->server);
        wait_flag(&rpc->shut_down, STUCK_WAIT_NS);
    }
    if (!workers_stop(rpc) || !atomic_load(&rpc->shut_down) || !pollers_stop(rpc)) {
        return false;
    }
    pthread_join(rpc->guard, NULL); /* last: it may be the one that polls */
    rpc_free(rpc);
    return true;
}
