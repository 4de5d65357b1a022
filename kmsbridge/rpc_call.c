/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <grpc/support/alloc.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/numbers.h"

#define UNREAD_MAX (2 * KMS_RPC_STREAMS_MAX)

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

struct kms_rpc_call *kms_rpc_call_new(struct kms_rpc *rpc, const struct kms_rpc_method *method,
                                      size_t index)
{
    struct kms_rpc_call *call = malloc(sizeof *call);
    if (call == NULL) {
        return NULL;
    }
    memset(call, 0, offsetof(struct kms_rpc_call, arena.room)); /* the rest is storage */
    call->arrived = (struct tag){TAG_ARRIVED, call};
    call->closed = (struct tag){TAG_CLOSED, call};
    call->sent = (struct tag){TAG_SENT, call};
    call->wake = (struct tag){TAG_WAKE, call};
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

static void call_unref(struct kms_rpc_call *call)
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
static void wipe_payload(struct kms_rpc_call *call)
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
static void request_done(struct kms_rpc_call *call)
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

/* Its batches are back, and nobody has it any more; or the call never came. */
void kms_rpc_call_done(struct kms_rpc_call *call)
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

void kms_rpc_event_done(struct kms_rpc_call *call)
{
    if (atomic_fetch_sub(&call->events, 1) == 1) {
        kms_rpc_call_done(call);
    }
}

/* Where run may write; false when there is no memory. */
bool kms_rpc_reply_storage(struct kms_rpc_call *call)
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

static grpc_byte_buffer *answer_buffer(struct kms_rpc_call *call)
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
static void note_unread(struct kms_rpc_call *call)
{
    char *peer = grpc_call_get_peer(call->grpc);
    uint64_t fd = 0;
    if (peer != NULL && strncmp(peer, "fd:", 3) == 0 &&
        kms_parse_u64(peer + 3, 0, KMS_RPC_FDS_MAX - 1, &fd) == KMS_OK) {
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
void kms_rpc_call_send(struct kms_rpc_call *call)
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
        kms_rpc_event_done(call);
    }
}

/* An empty batch comes back from gRPC's queue at once (grpc_call_start_batch() in grpc.h). */
static bool wake_poller(struct kms_rpc_call *call)
{
    atomic_fetch_add(&call->events, 1);
    if (grpc_call_start_batch(call->grpc, NULL, 0, &call->wake, NULL) == GRPC_CALL_OK) {
        return true;
    }
    kms_rpc_event_done(call);
    return false;
}

/*
 * The polling thread sends it with what else it has to send, and is not woken again by the end of a
 * sending that another thread began. It is woken only if it sleeps, and once for all that is there
 * by then.
 */
void kms_rpc_call_hand_over(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    struct kms_rpc_call *last = atomic_load(&rpc->answered);
    request_done(call);
    atomic_fetch_add(&call->events, 1); /* once it is there, it may be sent and end at any time */
    do {
        call->next = last;
    } while (!atomic_compare_exchange_weak(&rpc->answered, &last, call));
    if (atomic_load(&rpc->poller_asleep) && !atomic_exchange(&rpc->wake_sent, true) &&
        !wake_poller(call)) {
        atomic_store(&rpc->wake_sent, false);
        kms_rpc_answered_send(rpc);
    }
    kms_rpc_event_done(call);
}

void kms_rpc_answered_send(struct kms_rpc *rpc)
{
    struct kms_rpc_call *newest = NULL;
    struct kms_rpc_call *oldest = NULL;
    if (atomic_load(&rpc->answered) != NULL) {
        newest = atomic_exchange(&rpc->answered, NULL);
    }
    while (newest != NULL) {
        struct kms_rpc_call *call = newest;
        newest = call->next;
        call->next = oldest;
        oldest = call;
    }
    while (oldest != NULL) {
        struct kms_rpc_call *call = oldest;
        oldest = call->next;
        call->next = NULL;
        kms_rpc_call_send(call);
    }
}
