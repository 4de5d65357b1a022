/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kms_v2_client_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "common/clock.h"
#include "common/secure.h"
#include "kmsbridge/kms_v2_client.h"
#include "kmsbridge/kms_v2_client_socket.h"

/* An unpacked reply is larger than its bytes; one that needs more than this is refused. */
#define ARENA_SIZE ((size_t)4 * KMS_V2_MESSAGE_MAX)

struct kms_v2_client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
};

/* gRPC's codes by number, and what each means to us. */
static const struct code_row {
    const char *name;
    enum kms_status status;
} code_rows[] = {
    {"OK", KMS_OK},
    {"CANCELLED", KMS_E_CANCELLED},
    {"UNKNOWN", KMS_E_PROTOCOL},
    {"INVALID_ARGUMENT", KMS_E_INVALID},
    {"DEADLINE_EXCEEDED", KMS_E_TIMEOUT},
    {"NOT_FOUND", KMS_E_NOT_FOUND},
    {"ALREADY_EXISTS", KMS_E_EXISTS},
    {"PERMISSION_DENIED", KMS_E_DENIED},
    {"RESOURCE_EXHAUSTED", KMS_E_BUSY},
    {"FAILED_PRECONDITION", KMS_E_KEY_STATE},
    {"ABORTED", KMS_E_UNAVAILABLE},
    {"OUT_OF_RANGE", KMS_E_TOO_LARGE},
    {"UNIMPLEMENTED", KMS_E_UNSUPPORTED},
    {"INTERNAL", KMS_E_INTERNAL},
    {"UNAVAILABLE", KMS_E_UNAVAILABLE},
    {"DATA_LOSS", KMS_E_BAD_DATA},
    {"UNAUTHENTICATED", KMS_E_AUTH},
};

/* ---- the channel ----------------------------------------------------------------------------- */

/* gRPC would write its own mind to stderr; what matters comes back as the call's status. */
static void discard_log(gpr_log_func_args *args)
{
    (void)args;
}

/* Takes @fd. */
static enum kms_status make_channel(struct kms_v2_client *client, int fd, struct kms_error *err)
{
    char max_receive[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH;
    char compression[] = GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET;
    grpc_arg list[] = {
        {.type = GRPC_ARG_INTEGER, .key = max_receive, .value.integer = KMS_V2_MESSAGE_MAX},
        {.type = GRPC_ARG_INTEGER, .key = compression, .value.integer = 1}, /* identity only */
    };
    grpc_channel_args args = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();

    client->channel = grpc_channel_create_from_fd("localhost", fd, credentials, &args);
    grpc_channel_credentials_release(credentials);
    client->queue = grpc_completion_queue_create_for_pluck(NULL);
    if (client->channel == NULL || client->queue == NULL) {
        return kms_error_set(err, KMS_E_INTERNAL, "gRPC makes no channel");
    }
    return KMS_OK;
}

enum kms_status kms_v2_client_open(const char *socket_name, uint64_t deadline_ns,
                                   struct kms_v2_client **ret_client, struct kms_error *err)
{
    struct kms_v2_client *client = NULL;
    int fd = -1;
    enum kms_status status = kms_v2_client_socket(socket_name, deadline_ns, &fd, err);

    if (status != KMS_OK) {
        return status;
    }
    client = calloc(1, sizeof(*client));
    if (client == NULL) {
        close(fd);
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    gpr_set_log_function(discard_log);
    grpc_init();
    status = make_channel(client, fd, err);
    if (status != KMS_OK) {
        kms_v2_client_close(client);
        return status;
    }
    *ret_client = client;
    return KMS_OK;
}

void kms_v2_client_close(struct kms_v2_client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->channel != NULL) {
        grpc_channel_destroy(client->channel);
    }
    if (client->queue != NULL) {
        grpc_completion_queue_shutdown(client->queue);
        grpc_completion_queue_destroy(client->queue);
    }
    grpc_shutdown();
    free(client);
}

/* ---- an arena for unpacked replies: one secure allocation with a ceiling -------------------- */

struct arena {
    uint8_t *base;
    size_t used;
};

static void *arena_alloc(void *ctx, size_t size)
{
    struct arena *arena = ctx;
    size_t start = (arena->used + 15u) & ~(size_t)15u;

    if (start > ARENA_SIZE || size > ARENA_SIZE - start) {
        return NULL;
    }
    arena->used = start + size;
    return arena->base + start;
}

static void arena_free(void *ctx, void *ptr)
{
    (void)ctx;
    (void)ptr;
}

/* ---- one call ------------------------------------------------------------------------------- */

struct exchange {
    grpc_call *call;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_status_code code;
    grpc_slice details;
};

/* The packed @message in secure memory, which the last holder of the slice frees and so wipes. */
static enum kms_status pack(const ProtobufCMessage *message, grpc_byte_buffer **ret_buffer,
                            struct kms_error *err)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    grpc_slice slice = grpc_empty_slice();
    uint8_t *bytes;

    if (len > KMS_V2_MESSAGE_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "the message has %zu bytes, at most %u can be",
                             len, KMS_V2_MESSAGE_MAX);
    }
    if (len > 0) {
        bytes = kms_secure_new(len);
        if (bytes == NULL) {
            return kms_error_set(err, KMS_E_NOMEM, "no memory");
        }
        protobuf_c_message_pack(message, bytes);
        slice = grpc_slice_new_with_user_data(bytes, len, kms_secure_free, bytes);
    }
    *ret_buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return KMS_OK;
}

/* Copies the reply to @out and wipes where gRPC had it: the slice is ours alone once received. */
static enum kms_status drain(grpc_byte_buffer *reply, struct kms_buf *out, struct kms_error *err)
{
    grpc_byte_buffer_reader reader;
    grpc_slice *slice;
    enum kms_status status = KMS_OK;

    if (!grpc_byte_buffer_reader_init(&reader, reply)) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply cannot be read");
    }
    while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
        uint8_t *bytes = GRPC_SLICE_START_PTR(*slice); /* may lie inside the slice itself */
        size_t len = GRPC_SLICE_LENGTH(*slice);

        if (status == KMS_OK) {
            status = kms_buf_put(out, kms_span_of(bytes, len));
        }
        kms_wipe(bytes, len);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return status == KMS_OK ? KMS_OK : kms_error_set(err, status, "the reply is too large");
}

static bool run_batch(struct kms_v2_client *client, struct exchange *ex)
{
    grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = ex->request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &ex->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &ex->reply},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &ex->trailing,
                                        .status = &ex->code,
                                        .status_details = &ex->details}},
    };

    if (grpc_call_start_batch(ex->call, ops, sizeof(ops) / sizeof(ops[0]), ex, NULL) !=
        GRPC_CALL_OK) {
        return false;
    }
    /* the call's own deadline ends this wait */
    (void)grpc_completion_queue_pluck(client->queue, ex, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    return true;
}

/* The server's verdict as our error. Its message is data: whatever is no printable ASCII is '?'. */
static enum kms_status verdict(const struct exchange *ex, const char *method, struct kms_error *err)
{
    const struct code_row *row = &code_rows[GRPC_STATUS_UNKNOWN];
    const uint8_t *details = GRPC_SLICE_START_PTR(ex->details);
    size_t len = GRPC_SLICE_LENGTH(ex->details);
    char text[256];
    size_t i;

    if ((size_t)ex->code < sizeof(code_rows) / sizeof(code_rows[0])) {
        row = &code_rows[ex->code];
    }
    if (row->status == KMS_OK) {
        return KMS_OK;
    }
    for (i = 0; i < len && i < sizeof(text) - 1; i++) {
        text[i] = details[i] >= ' ' && details[i] < 0x7f ? (char)details[i] : '?';
    }
    text[i] = '\0';
    return kms_error_set_code(err, row->status, row->name, "%s answers %s: %s", method, row->name,
                              text);
}

static void exchange_done(struct exchange *ex)
{
    if (ex->call != NULL) {
        grpc_call_unref(ex->call);
    }
    grpc_byte_buffer_destroy(ex->request);
    grpc_byte_buffer_destroy(ex->reply);
    grpc_metadata_array_destroy(&ex->initial);
    grpc_metadata_array_destroy(&ex->trailing);
    grpc_slice_unref(ex->details);
}

/* Calls @method and puts the reply's bytes into @out, secure memory of KMS_V2_MESSAGE_MAX. */
static enum kms_status invoke(struct kms_v2_client *client, const char *method,
                              uint64_t deadline_ns, const ProtobufCMessage *request,
                              struct kms_buf *out, struct kms_error *err)
{
    struct exchange ex = {.details = grpc_empty_slice()};
    uint64_t left = kms_deadline_left(deadline_ns);
    gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC),
        gpr_time_from_nanos(left > INT64_MAX ? INT64_MAX : (int64_t)left, GPR_TIMESPAN));
    char path[64];
    grpc_slice path_slice;
    enum kms_status status = pack(request, &ex.request, err);

    if (status != KMS_OK) {
        return status;
    }
    grpc_metadata_array_init(&ex.initial);
    grpc_metadata_array_init(&ex.trailing);
    snprintf(path, sizeof(path), "/v2.KeyManagementService/%s", method);
    path_slice = grpc_slice_from_copied_string(path);
    ex.call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                       client->queue, path_slice, NULL, deadline, NULL);
    grpc_slice_unref(path_slice);
    if (!run_batch(client, &ex)) {
        status = kms_error_set(err, KMS_E_INTERNAL, "gRPC does not start the call");
        goto out;
    }
    status = verdict(&ex, method, err);
    if (status == KMS_OK && ex.reply == NULL) {
        status = kms_error_set(err, KMS_E_PROTOCOL, "%s answers nothing", method);
    }
    if (status == KMS_OK) {
        status = drain(ex.reply, out, err);
    }
out:
    exchange_done(&ex);
    return status;
}

enum kms_status kms_v2_client_call(struct kms_v2_client *client, const char *method,
                                   uint64_t deadline_ns, const ProtobufCMessage *request,
                                   const ProtobufCMessageDescriptor *type,
                                   ProtobufCMessage **ret_reply, void **ret_storage,
                                   struct kms_error *err)
{
    struct arena arena = {.base = kms_secure_new(ARENA_SIZE)};
    ProtobufCAllocator allocator = {arena_alloc, arena_free, &arena};
    struct kms_buf bytes = kms_buf_over(kms_secure_new(KMS_V2_MESSAGE_MAX), KMS_V2_MESSAGE_MAX);
    ProtobufCMessage *reply = NULL;
    enum kms_status status = KMS_OK;

    if (arena.base == NULL || bytes.data == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory");
        goto out;
    }
    status = invoke(client, method, deadline_ns, request, &bytes, err);
    if (status != KMS_OK) {
        goto out;
    }
    reply = protobuf_c_message_unpack(type, &allocator, bytes.len, bytes.data);
    if (reply == NULL) {
        status = kms_error_set(err, KMS_E_PROTOCOL, "%s answers what is no KMS v2 message", method);
        goto out;
    }
    *ret_reply = reply;
    *ret_storage = arena.base;
    arena.base = NULL;
out:
    kms_secure_free(bytes.data);
    kms_secure_free(arena.base);
    return status;
}
