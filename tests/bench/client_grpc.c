/* SPDX-License-Identifier: Apache-2.0 */
/* The gRPC C core client: one channel, one completion queue, one thread, one call per caller. */
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/load.h"

enum { OPS = 6 };

struct call {
    struct caller *caller;
    grpc_call *call;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    grpc_metadata_array initial, trailing;
    grpc_slice details;
    grpc_status_code status;
};

struct channel {
    struct load *load;
    grpc_channel *channel;
    grpc_completion_queue *queue;
    void *methods[BENCH_METHODS];
    struct call *calls;
    unsigned active;
};

static bool start(struct channel *ch, struct call *call)
{
    grpc_slice body = grpc_slice_from_copied_buffer((const char *)call->caller->request.bytes,
                                                    call->caller->request.len);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_millis((int64_t)ch->load->options->timeout_ms, GPR_TIMESPAN));
    grpc_op ops[OPS];

    call->request = grpc_raw_byte_buffer_create(&body, 1);
    grpc_slice_unref(body);
    call->call =
        grpc_channel_create_registered_call(ch->channel, NULL, GRPC_PROPAGATE_DEFAULTS, ch->queue,
                                            ch->methods[call->caller->method], deadline, NULL);
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &call->reply;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[5].data.recv_status_on_client.status = &call->status;
    ops[5].data.recv_status_on_client.status_details = &call->details;
    if (grpc_call_start_batch(call->call, ops, OPS, call, NULL) != GRPC_CALL_OK) {
        return false;
    }
    ch->active++;
    return true;
}

static void finish(struct channel *ch, struct call *call)
{
    uint8_t reply[BENCH_MAX_MESSAGE];
    size_t len = 0;
    int status = (int)call->status;

    if (call->reply != NULL) {
        grpc_byte_buffer_reader reader;
        grpc_slice slice;

        len = grpc_byte_buffer_length(call->reply);
        if (len > sizeof reply || !grpc_byte_buffer_reader_init(&reader, call->reply)) {
            status = -1;
            len = 0;
        } else {
            slice = grpc_byte_buffer_reader_readall(&reader);
            memcpy(reply, GRPC_SLICE_START_PTR(slice), len);
            grpc_slice_unref(slice);
            grpc_byte_buffer_reader_destroy(&reader);
        }
    }
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_byte_buffer_destroy(call->request);
    grpc_byte_buffer_destroy(call->reply);
    call->reply = NULL;
    grpc_call_unref(call->call);
    ch->active--;
    load_reply(call->caller, status, reply, len);
}

/* A scheduled load has one caller, so nothing else is under way while it waits. */
static void wait_until(uint64_t due)
{
    uint64_t now = bench_now();

    if (due > now) {
        (void)usleep((useconds_t)((due - now) / 1000));
    }
}

static bool run(struct channel *ch)
{
    while (ch->active > 0) {
        grpc_event event =
            grpc_completion_queue_next(ch->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct call *call = event.tag;

        if (event.type != GRPC_OP_COMPLETE) {
            return false;
        }
        finish(ch, call);
        wait_until(call->caller->due);
        if (load_next(call->caller) && !start(ch, call)) {
            return false;
        }
    }
    return !ch->load->failed;
}

static bool open_channel(struct channel *ch)
{
    char own_socket[] = GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL; /* one connection per load */
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER, .key = own_socket, .value.integer = 1},
    };
    grpc_channel_args all = {.num_args = 1, .args = args};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    char target[256];

    (void)snprintf(target, sizeof target, "unix:%s", ch->load->options->socket);
    ch->queue = grpc_completion_queue_create_for_next(NULL);
    ch->channel = grpc_channel_create(target, credentials, &all);
    grpc_channel_credentials_release(credentials);
    for (int i = 0; i < BENCH_METHODS; i++) {
        ch->methods[i] = grpc_channel_register_call(ch->channel, bench_paths[i], NULL, NULL);
    }
    return ch->channel != NULL;
}

static void close_channel(struct channel *ch)
{
    grpc_channel_destroy(ch->channel);
    grpc_completion_queue_shutdown(ch->queue);
    while (grpc_completion_queue_next(ch->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(ch->queue);
}

static bool grpc_run(struct load *load)
{
    struct channel ch = {.load = load};
    bool ok = false;

    grpc_init();
    ch.calls = calloc(load->n_callers, sizeof *ch.calls);
    ok = ch.calls != NULL && open_channel(&ch);
    for (unsigned i = 0; ok && i < load->n_callers; i++) {
        ch.calls[i].caller = &load->callers[i];
        if (load_next(&load->callers[i])) {
            ok = start(&ch, &ch.calls[i]);
        }
    }
    ok = ok && run(&ch);
    if (ch.channel != NULL) {
        close_channel(&ch);
    }
    free(ch.calls);
    grpc_shutdown();
    return ok;
}

int main(int argc, char **argv)
{
    return bench_main("grpc", grpc_run, argc, argv);
}
