/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unary gRPC server over connected sockets, in terms of bytes: the only server-side user of gRPC
 * C core. It knows nothing of KMS: a method is a path and two functions, parse (on the polling
 * thread, must not block) and run.
 *
 * Where run happens is decided by what was measured. While the last operations were fast
 * (KMS_RPC_INLINE_NS), they run on the polling thread: handing over would cost more than the work.
 * When they are not, workers run them and the polling thread only polls. If an inline operation
 * overruns all the same (KMS_RPC_OVERRUN_NS), a guard thread starts another polling thread at once
 * and sends operations to workers until they have been fast again; the overrunning thread ends when
 * it returns. So a method of the instant lane is answered whatever the key service does. Slower
 * operations run on the polling thread, too, under the same guard, while they come one after the
 * other with no other one there, from a service that is quick enough for that
 * (KMS_RPC_OVERRUN_NS): nobody else waits for the thread then.
 *
 * Bounds: calls in flight, waiting calls, workers, bytes of a message; over a bound a call is
 * answered ResourceExhausted at once. Identical concurrent calls of a method that has same() run
 * once.
 *
 * Memory: the bytes of a request with secret_request are wiped in gRPC's own buffers as soon as the
 * call is answered; a reply with secret_reply lies in locked memory that gRPC sends from and is
 * wiped when gRPC lets go.
 */
#ifndef KMSBRIDGE_RPC_H
#define KMSBRIDGE_RPC_H

#include <stdatomic.h>

#include "common/span.h"
#include "common/status.h"

#define KMS_RPC_MESSAGE_MAX 65536 /* bytes of a request; gRPC answers ResourceExhausted over it */
#define KMS_RPC_REPLY_MAX   1152  /* a ciphertext or plaintext of 1024, a key_id, and tags */
#define KMS_RPC_DETAIL_MAX  192
#define KMS_RPC_SCRATCH_MAX                                                                        \
    2048 /* for parse, per call; more comes from the heap up to the next                           \
          */
#define KMS_RPC_PARSE_MAX   (4 * KMS_RPC_MESSAGE_MAX)
#define KMS_RPC_STREAMS_MAX 256 /* concurrent calls on one connection */
#define KMS_RPC_SAME_LEN    32
#define KMS_RPC_INLINE_NS   UINT64_C(100000)
#define KMS_RPC_OVERRUN_NS  UINT64_C(1000000)

struct kms_rpc_arena; /* memory of one call's parsed request, wiped with it */
/* 16-byte aligned; NULL over KMS_RPC_PARSE_MAX. Freed with the call. */
void *kms_rpc_arena_alloc(struct kms_rpc_arena *arena, size_t size);
/* One of its own, for tests and fuzzers of parse. */
struct kms_rpc_arena *kms_rpc_arena_new(void);
void kms_rpc_arena_free(struct kms_rpc_arena *arena);

struct kms_rpc_request {
    struct kms_span message;
    struct kms_rpc_arena *arena;
    void *parsed;                 /* what parse made of it, in the arena */
    uint64_t deadline_ns;         /* of the client, not beyond kms_rpc_limits.call_timeout_ns */
    const atomic_bool *cancelled; /* the client gave up */
};

struct kms_rpc_reply {
    struct kms_buf message;          /* storage by the caller, KMS_RPC_REPLY_MAX */
    struct kms_buf scratch;          /* as large, of the same kind of memory, for run's own use */
    enum kms_status status;          /* not KMS_OK: no message is sent */
    char detail[KMS_RPC_DETAIL_MAX]; /* for the client when status is not KMS_OK: generic */
};

struct kms_rpc_method {
    const char *path; /* "/v2.KeyManagementService/Status" */
    int id;           /* for observe */
    bool instant; /* run is from memory: always on the polling thread, never queued or bounded */
    bool secret_request;
    bool secret_reply;
    /* Sets reply->status; when that is not KMS_OK the call ends there. NULL: nothing to parse. */
    void (*parse)(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply);
    void (*run)(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply);
    /* Fills what makes two parsed requests the same (a digest); false: never the same. NULL: never.
     */
    bool (*same)(void *ctx, const struct kms_rpc_request *request,
                 uint8_t ret_same[KMS_RPC_SAME_LEN]);
};

struct kms_rpc_limits {
    unsigned calls; /* in flight, instant ones apart */
    unsigned workers;
    unsigned queue;
    uint64_t call_timeout_ns;
};

struct kms_rpc_stats {
    unsigned calls_in_flight;
    unsigned queued;
    unsigned workers;
    bool inline_now;          /* where the next call would run */
    uint64_t poller_quiet_ns; /* since the polling thread last went round */
};

enum kms_rpc_place { KMS_RPC_ON_POLLER, KMS_RPC_ON_WORKER, KMS_RPC_COALESCED, KMS_RPC_REFUSED };

/* After each call, from any thread: method id, gRPC code, time from arrival to answer, where it
 * ran. */
typedef void (*kms_rpc_observe)(void *ctx, int method_id, int grpc_code, uint64_t ns,
                                enum kms_rpc_place place);

struct kms_rpc;

/*
 * Starts gRPC, the polling and the guard thread. @methods is borrowed and ends with a NULL path;
 * @ctx goes to the functions. KMS_E_NOMEM, KMS_E_INTERNAL.
 */
enum kms_status kms_rpc_start(const struct kms_rpc_method *methods, void *ctx,
                              const struct kms_rpc_limits *limits, kms_rpc_observe observe,
                              struct kms_rpc **ret_rpc, struct kms_error *err) KMS_MUST_CHECK;

/* Takes a connected stream socket; gRPC closes it. From any thread. */
void kms_rpc_serve_fd(struct kms_rpc *rpc, int fd);

void kms_rpc_set_call_timeout(struct kms_rpc *rpc, uint64_t ns);
void kms_rpc_stats(struct kms_rpc *rpc, struct kms_rpc_stats *ret_stats);

/* The gRPC code that @status is answered with (grpc/status.h numbers). */
int kms_rpc_code(enum kms_status status);

/*
 * No new calls; those in flight have @grace_ns to finish, then they are cancelled; joins all
 * threads. False when a worker is still stuck in a backend after another second: then nothing is
 * freed and the caller should _exit().
 */
bool kms_rpc_stop(struct kms_rpc *rpc, uint64_t grace_ns);

#endif
