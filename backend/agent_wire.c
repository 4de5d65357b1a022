/* SPDX-License-Identifier: Apache-2.0 */
/* Frames, and messages in memory of our own: see backend/agent_bounds.c for what may be in them. */
#include "backend/agent_wire.h"

#include <stdlib.h>

#include "common/secure.h"

#define ALIGN ((size_t)16)

enum kms_status kms_agent_frame_len(const uint8_t header[KMS_AGENT_HEADER], size_t *ret_len,
                                    struct kms_error *err)
{
    size_t len = (size_t)header[0] << 24 | (size_t)header[1] << 16 | (size_t)header[2] << 8 |
                 (size_t)header[3];

    if (len == 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent frame without a message");
    }
    if (len > KMS_AGENT_FRAME_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent frame of %zu bytes, at most %u", len,
                             KMS_AGENT_FRAME_MAX);
    }
    *ret_len = len;
    return KMS_OK;
}

void kms_agent_put_frame_len(uint8_t ret_header[KMS_AGENT_HEADER], size_t len)
{
    ret_header[0] = (uint8_t)(len >> 24 & 0xff);
    ret_header[1] = (uint8_t)(len >> 16 & 0xff);
    ret_header[2] = (uint8_t)(len >> 8 & 0xff);
    ret_header[3] = (uint8_t)(len & 0xff);
}

enum kms_status kms_agent_pack(const ProtobufCMessage *message, struct kms_buf *out,
                               struct kms_error *err)
{
    size_t len = protobuf_c_message_get_packed_size(message);

    if (len > KMS_AGENT_FRAME_MAX || len + KMS_AGENT_HEADER > kms_buf_room(out)) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent message of %zu bytes does not fit", len);
    }
    kms_agent_put_frame_len(out->data + out->len, len);
    (void)protobuf_c_message_pack(message, out->data + out->len + KMS_AGENT_HEADER);
    out->len += KMS_AGENT_HEADER + len;
    return KMS_OK;
}

/* ---- protobuf-c's allocator over an arena -------------------------------------------------- */

static void *arena_alloc(void *ctx, size_t size)
{
    struct kms_buf *arena = ctx;
    size_t rounded = (size + ALIGN - 1) & ~(ALIGN - 1);
    void *ptr = arena->data + arena->len;

    if (rounded < size || rounded > kms_buf_room(arena)) {
        return NULL;
    }
    arena->len += rounded;
    return ptr;
}

static void arena_free(void *ctx, void *ptr)
{
    (void)ctx; /* all of it is wiped at once */
    (void)ptr;
}

enum kms_status kms_agent_unpack_in(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                    struct kms_buf *arena, ProtobufCMessage **ret_message,
                                    struct kms_error *err)
{
    ProtobufCAllocator allocator = {
        .alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
    size_t before = arena->len;
    ProtobufCMessage *message = NULL;
    size_t need = 0;
    enum kms_status status = kms_agent_check(what, body, &need, err);

    if (status != KMS_OK) {
        return status;
    }
    if (need > kms_buf_room(arena)) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent message needs %zu bytes of memory", need);
    }
    message = protobuf_c_message_unpack(what, &allocator, body.len, body.data);
    if (message == NULL) {
        kms_wipe(arena->data + before, arena->len - before);
        arena->len = before;
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: %s cannot be read",
                             what->short_name);
    }
    *ret_message = message;
    return KMS_OK;
}

/* ---- on the heap ---------------------------------------------------------------------------- */

/* One allocation for a message and all that it points to. */
struct block {
    size_t size;                 /* of data[] */
    _Alignas(16) uint8_t data[]; /* the message is the first thing in it */
};

enum kms_status kms_agent_unpack(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                 ProtobufCMessage **ret_message, struct kms_error *err)
{
    ProtobufCMessage *message = NULL;
    struct block *block = NULL;
    struct kms_buf arena;
    size_t need = 0;
    enum kms_status status = kms_agent_check(what, body, &need, err);

    if (status != KMS_OK) {
        return status;
    }
    block = malloc(sizeof(*block) + need);
    if (block == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for an agent message");
    }
    block->size = need;
    arena = kms_buf_over(block->data, need);
    status = kms_agent_unpack_in(what, body, &arena, &message, err);
    if (status != KMS_OK) {
        free(block);
        return status;
    }
    if ((uint8_t *)message != block->data) {
        kms_wipe(block->data, need);
        free(block);
        return kms_error_set(err, KMS_E_INTERNAL, "protobuf-c allocates otherwise than we know");
    }
    *ret_message = message;
    return KMS_OK;
}

void kms_agent_free(ProtobufCMessage *message)
{
    struct block *block;

    if (message != NULL) {
        block = (struct block *)(void *)((uint8_t *)message - offsetof(struct block, data));
        kms_wipe(block->data, block->size);
        free(block);
    }
}
