/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that a KMS v2 plugin over gRPC C core and libcurl can be: threads that take a call from
 * one completion queue, make the exchange of http_floor with the same bytes whatever was asked, and
 * answer. No check, no key_id of its own, no log, no metrics, no deadline, nothing wiped. What it
 * falls behind http_floor is the price of the hop, which no plugin on these libraries avoids.
 *
 * Serves Encrypt until it is killed.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#include "tests/bench/exchange.h"
#include "tests/bench/messages.h"

enum { MAX_THREADS = 64, POSTED = 64 };

static grpc_server *server;
static grpc_completion_queue *queue;
static void *method;

struct call {
    bool is_answered; /* what comes back is the end of the answer */
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    int cancelled;
};

static void post(void)
{
    struct call *call = calloc(1, sizeof *call);

    if (call == NULL) {
        abort();
    }
    grpc_metadata_array_init(&call->metadata);
    if (grpc_server_request_registered_call(server, method, &call->call, &call->deadline,
                                            &call->metadata, &call->request, queue, queue,
                                            call) != GRPC_CALL_OK) {
        abort();
    }
}

static void finish(struct call *call)
{
    grpc_metadata_array_destroy(&call->metadata);
    grpc_byte_buffer_destroy(call->request);
    grpc_byte_buffer_destroy(call->reply);
    grpc_call_unref(call->call);
    free(call);
}

static void answer(struct call *call, struct exchange *exchange)
{
    struct bench_message message;
    size_t len = 0;
    const char *ciphertext = exchange_perform(exchange, &len);
    grpc_slice details = grpc_empty_slice();
    grpc_slice slice;
    grpc_op ops[4];

    if (ciphertext == NULL) {
        exit(1);
    }
    message_encrypted(&message, ciphertext, len, "1");
    slice = grpc_slice_from_copied_buffer((const char *)message.bytes, message.len);
    call->reply = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->reply;
    ops[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
    ops[2].data.send_status_from_server.status_details = &details;
    ops[3].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[3].data.recv_close_on_server.cancelled = &call->cancelled;
    call->is_answered = true;
    if (grpc_call_start_batch(call->call, ops, 4, call, NULL) != GRPC_CALL_OK) {
        abort();
    }
}

static void *work(void *argument)
{
    struct exchange exchange;

    (void)argument;
    exchange_init(&exchange);
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct call *call = event.tag;

        if (event.type != GRPC_OP_COMPLETE) {
            break;
        }
        if (call->is_answered) {
            finish(call);
        } else if (event.success) {
            post();
            answer(call, &exchange);
        }
    }
    exchange_done(&exchange);
    return NULL;
}

static bool serve(const char *path)
{
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    char target[256];
    int port = 0;

    (void)snprintf(target, sizeof target, "unix:%s", path);
    queue = grpc_completion_queue_create_for_next(NULL);
    server = grpc_server_create(NULL, NULL);
    method = grpc_server_register_method(server, bench_paths[BENCH_ENCRYPT], NULL,
                                         GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_register_completion_queue(server, queue, NULL);
    port = grpc_server_add_http2_port(server, target, credentials);
    grpc_server_credentials_release(credentials);
    grpc_server_start(server);
    return port > 0;
}

int main(int argc, char **argv)
{
    static pthread_t threads[MAX_THREADS];
    unsigned count = argc == 6 ? (unsigned)strtoul(argv[5], NULL, 10) : 0;

    if (count < 1 || count > MAX_THREADS ||
        (strcmp(argv[2], "1.1") != 0 && strcmp(argv[2], "2") != 0)) {
        fprintf(stderr, "usage: grpc_floor SOCKET 1.1|2 URL TOKEN_FILE THREADS\n"
                        "KMS_BENCH_CA: file of the CA certificates for https\n");
        return 2;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    grpc_init();
    if (!exchange_setup(argv[2], argv[3], argv[4]) || !serve(argv[1])) {
        return 1;
    }
    for (unsigned i = 0; i < POSTED; i++) {
        post();
    }
    for (unsigned i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, work, NULL) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < count; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return 0;
}
