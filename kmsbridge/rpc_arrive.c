/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <grpc/support/time.h>

#include "common/clock.h"
#include "common/log.h"

/* --- arriving --- */

void kms_rpc_slot_post(struct kms_rpc *rpc, const struct kms_rpc_method *method, size_t index)
{
    struct kms_rpc_call *call = kms_rpc_call_new(rpc, method, index);
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
        rpc->missing[method != NULL ? index : KMS_RPC_METHODS_MAX]++;
        if (call != NULL) {
            kms_rpc_call_done(call);
        }
    }
}

/* gRPC's deadline is on CLOCK_MONOTONIC; ours bounds it. */
static uint64_t deadline_of(const struct kms_rpc_call *call)
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
static bool payload_read(struct kms_rpc_call *call)
{
    const grpc_byte_buffer *payload = call->payload;
    if (payload == NULL || payload->type != GRPC_BB_RAW ||
        payload->data.raw.compression != GRPC_COMPRESS_NONE) {
        kms_rpc_reply_error(&call->reply, KMS_E_INVALID, "the request has no uncompressed message");
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
        kms_rpc_reply_error(&call->reply, KMS_E_TOO_LARGE, "the request is too large");
        return false;
    }
    struct kms_buf buf = kms_buf_over(joined, slices->length);
    for (size_t i = 0; i < slices->count; i++) {
        if (kms_buf_put(&buf, kms_span_of(GRPC_SLICE_START_PTR(slices->slices[i]),
                                          GRPC_SLICE_LENGTH(slices->slices[i]))) != KMS_OK) {
            kms_rpc_reply_error(&call->reply, KMS_E_INTERNAL, "the request's length is wrong");
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
static void watch_close(struct kms_rpc_call *call)
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
static void call_dispatch(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    call->counted = true;
    unsigned others = atomic_fetch_add(&rpc->calls_in_flight, 1);
    atomic_store(&rpc->alone, others == 0 ? atomic_load(&rpc->alone) + 1 : 0);
    if (others >= rpc->limits.calls) {
        call->place = KMS_RPC_REFUSED;
        kms_rpc_reply_error(&call->reply, KMS_E_BUSY, "too many calls in flight");
        kms_rpc_call_send(call);
        return;
    }
    if (kms_rpc_inline_now(rpc, call->method_index)) {
        kms_rpc_call_run_inline(call);
        return;
    }
    watch_close(call);
    if (kms_rpc_same_join(call)) {
        return; /* its leader answers */
    }
    if (kms_rpc_alone(rpc, call->method_index)) {
        kms_rpc_call_run_alone(call);
        return;
    }
    if (!kms_rpc_work_push(rpc, call)) {
        call->place = KMS_RPC_REFUSED;
        kms_rpc_reply_error(&call->reply, KMS_E_BUSY, "the queue is full");
        kms_rpc_followers_answer(kms_rpc_same_leave(call), call);
        kms_rpc_call_send(call);
    }
}

static void call_serve(struct kms_rpc_call *call)
{
    const struct kms_rpc_method *method = call->method;
    if (method == NULL) {
        kms_rpc_reply_error(&call->reply, KMS_E_UNSUPPORTED, "unknown method");
        kms_rpc_call_send(call);
        return;
    }
    call->reply.status = KMS_OK;
    call->request.deadline_ns = deadline_of(call);
    if (!payload_read(call)) {
        kms_rpc_call_send(call);
        return;
    }
    if (method->parse != NULL) {
        method->parse(call->rpc->ctx, &call->request, &call->reply);
    }
    if (call->reply.status != KMS_OK) {
        kms_rpc_call_send(call);
    } else if (method->instant) {
        kms_rpc_call_run(call);
        kms_rpc_call_send(call);
    } else {
        call_dispatch(call);
    }
}

void kms_rpc_call_arrived(struct kms_rpc_call *call, bool ok)
{
    struct kms_rpc *rpc = call->rpc;
    if (!ok) { /* the server shuts down: this slot's call never comes */
        kms_rpc_call_done(call);
        return;
    }
    if (!atomic_load(&rpc->stopping)) {
        kms_rpc_slot_post(rpc, call->method, call->method_index);
    }
    call->arrived_ns = kms_now_ns();
    atomic_store(&call->events, 1);
    call_serve(call);
}
