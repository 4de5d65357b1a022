/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC server's parts (rpc*.c) and what they share. rpc.h says what it is; here is who does it:
 *
 *   rpc.c         start, stop, limits
 *   rpc_arrive.c  a call comes: slots, its deadline and bytes, where it goes
 *   rpc_inline.c  measured speed; operations on the polling thread, and the guard over them
 *   rpc_work.c    the queue and its workers
 *   rpc_same.c    identical calls, done once
 *   rpc_call.c    a call's memory and its answer
 *   rpc_poll.c    the polling thread
 *
 * A call's life: posted as a slot, it arrives on the polling thread, is run there or by a worker,
 * is answered by the polling thread (by its worker when it is the only call), and ends when gRPC
 * has given its batches back and its worker has let go of it.
 */
#ifndef KMSBRIDGE_RPC_PARTS_H
#define KMSBRIDGE_RPC_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include <grpc/grpc.h>

#include "common/secure.h"
#include "kmsbridge/rpc.h"

#define KMS_RPC_METHODS_MAX  8
#define KMS_RPC_SAME_BUCKETS 64
#define KMS_RPC_FDS_MAX                                                                            \
    8192 /* connections with a higher number are not watched for unread answers */

enum tag_kind { TAG_ARRIVED, TAG_CLOSED, TAG_SENT, TAG_WAKE, TAG_SHUTDOWN };

struct kms_rpc_call;

struct tag {
    enum tag_kind kind;
    struct kms_rpc_call *call;
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

struct kms_rpc_worker; /* rpc_work.c */

struct kms_rpc_call {
    struct tag arrived;
    struct tag closed;
    struct tag sent;
    struct tag wake;
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

    struct kms_rpc_call *next;      /* in the queue, among a leader's followers, or the answered */
    struct kms_rpc_call *leader;    /* whose answer it waits for; under same_mutex */
    struct kms_rpc_call *followers; /* under same_mutex */
    struct kms_rpc_call *same_next; /* bucket's list, under same_mutex */
    bool leads;
    uint8_t same[KMS_RPC_SAME_LEN];

    struct kms_rpc_arena arena;
    uint8_t open_storage[2 * KMS_RPC_REPLY_MAX]; /* of a reply that is no secret */
};

struct kms_rpc {
    const struct kms_rpc_method *methods;
    size_t method_count;
    void *registered[KMS_RPC_METHODS_MAX];
    unsigned missing[KMS_RPC_METHODS_MAX +
                     1]; /* slots to post again; the last: unknown methods. Poller's */
    struct speed speed[KMS_RPC_METHODS_MAX];
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
    atomic_uint
        unread[KMS_RPC_FDS_MAX]; /* answers that gRPC still holds, by connection's descriptor */

    int cpus; /* that this process may use, when it started */

    /* polling: one thread at a time, that of the current epoch */
    atomic_uint epoch;
    atomic_uint pollers_alive;
    atomic_uint_fast64_t polled_ns;
    atomic_uint_fast64_t inline_since_ns; /* 0: nothing runs inline */
    atomic_uint_fast64_t inline_limit_ns; /* how long it may */
    atomic_uint_fast64_t inline_ended_ns;
    atomic_int poller_tid;

    /* answers on their way to the polling thread */
    _Atomic(struct kms_rpc_call *) answered; /* the last one first */
    atomic_bool poller_asleep; /* or about to be: it does not look at `answered` by itself */
    atomic_bool wake_sent;     /* a TAG_WAKE is on its way through gRPC's queue */

    atomic_uint alone; /* operations in a row that found no other one there */

    pthread_t guard;
    pthread_mutex_t guard_mutex; /* guards guard_armed's transitions and wakes */
    pthread_cond_t guard_wake;
    atomic_bool guard_armed;

    pthread_mutex_t work_mutex; /* guards the queue and the workers */
    pthread_cond_t work_gone;
    struct kms_rpc_call *queue_head;
    struct kms_rpc_call *queue_tail;
    unsigned queued;
    unsigned workers;
    struct kms_rpc_worker *idle; /* the last one to have worked first: its caches are warm */

    pthread_mutex_t same_mutex; /* guards the buckets and followers */
    struct kms_rpc_call *buckets[KMS_RPC_SAME_BUCKETS];
};

/* --- rpc.c --- */

void kms_rpc_reply_error(struct kms_rpc_reply *reply, enum kms_status status, const char *text);

/* --- rpc_call.c --- */

struct kms_rpc_call *kms_rpc_call_new(struct kms_rpc *rpc, const struct kms_rpc_method *method,
                                      size_t index);
bool kms_rpc_reply_storage(struct kms_rpc_call *call);
void kms_rpc_call_done(struct kms_rpc_call *call);
void kms_rpc_event_done(struct kms_rpc_call *call);
/* Sends the answer; on the polling thread, or by a worker when no other call is there to wait. */
void kms_rpc_call_send(struct kms_rpc_call *call);
void kms_rpc_call_hand_over(struct kms_rpc_call *call); /* for it to be sent; any thread */
/* What was handed over, in that order. On the polling thread. */
void kms_rpc_answered_send(struct kms_rpc *rpc);

/* --- rpc_arrive.c --- */

void kms_rpc_slot_post(struct kms_rpc *rpc, const struct kms_rpc_method *method, size_t index);
void kms_rpc_call_arrived(struct kms_rpc_call *call, bool ok);

/* --- rpc_inline.c --- */

bool kms_rpc_inline_now(struct kms_rpc *rpc, size_t method_index);
bool kms_rpc_all_inline(struct kms_rpc *rpc);
bool kms_rpc_any_alone(struct kms_rpc *rpc); /* of late, operations came one after the other */
bool kms_rpc_alone(struct kms_rpc *rpc, size_t method_index);
void kms_rpc_call_run(struct kms_rpc_call *call);
void kms_rpc_call_run_inline(struct kms_rpc_call *call);
void kms_rpc_call_run_alone(struct kms_rpc_call *call);
void *kms_rpc_guard_main(void *arg);

/* --- rpc_same.c --- */

bool kms_rpc_same_join(struct kms_rpc_call *call);
struct kms_rpc_call *kms_rpc_same_leave(struct kms_rpc_call *call);
void kms_rpc_same_abandon(struct kms_rpc_call *call);
void kms_rpc_followers_answer(struct kms_rpc_call *followers, const struct kms_rpc_call *leader);

/* --- rpc_work.c --- */

bool kms_rpc_work_push(struct kms_rpc *rpc, struct kms_rpc_call *call);
bool kms_rpc_workers_stop(struct kms_rpc *rpc, uint64_t deadline_ns);
bool kms_rpc_thread_start(void *(*main)(void *), void *arg, size_t stack);

/* --- rpc_poll.c --- */

void kms_rpc_poll_loop(struct kms_rpc *rpc, unsigned epoch);
bool kms_rpc_poller_start(struct kms_rpc *rpc, unsigned epoch);

#endif
