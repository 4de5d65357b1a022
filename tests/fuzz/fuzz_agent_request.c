/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Request, or a Hello (the first byte says which), from any bytes, as a program may send it to
 * the agent: refused with a sentence that names the field, or within every bound, in just the
 * memory that the check named, and the same after it has been packed again.
 */
#include "backend/agent_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARENA_MAX ((size_t)2 * 1024 * 1024)

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void use_request(const Kms__Agent__Request *request)
{
    struct kms_params params;
    char text[KMS_AGENT_NAME_MAX];

    if (kms_agent_get_text("token", request->token, text, sizeof(text), NULL) == KMS_OK) {
        demand(strlen(text) == request->token.len);
    }
    switch (request->op_case) {
    case KMS__AGENT__REQUEST__OP_ENCRYPT:
    case KMS__AGENT__REQUEST__OP_DECRYPT:
    case KMS__AGENT__REQUEST__OP_WRAP:
    case KMS__AGENT__REQUEST__OP_UNWRAP:
    case KMS__AGENT__REQUEST__OP_SIGN:
    case KMS__AGENT__REQUEST__OP_VERIFY:
    case KMS__AGENT__REQUEST__OP_MAC:
    case KMS__AGENT__REQUEST__OP_DATA_KEY: /* all of them lie at one place */
        demand(request->encrypt != NULL);
        demand(request->encrypt->len <= KMS_DATA_KEY_MAX);
        demand(request->encrypt->input.len <= KMS_CIPHERTEXT_MAX);
        if (kms_agent_get_params(request->encrypt->params, &params, NULL) == KMS_OK) {
            demand(params.iv.len <= KMS_IV_MAX && (unsigned)params.alg < 128);
        }
        break;
    default:
        break;
    }
}

/* In a block of just its size, so that a sanitizer sees a byte too many. */
static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                size_t need, void **ret_block)
{
    ProtobufCMessage *message = NULL;
    struct kms_buf arena;

    *ret_block = malloc(need);
    demand(*ret_block != NULL);
    arena = kms_buf_over(*ret_block, need);
    demand(kms_agent_unpack_in(what, body, &arena, &message, NULL) == KMS_OK);
    demand(arena.len <= need);
    return message;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t again[KMS_AGENT_HEADER + KMS_AGENT_FRAME_MAX];
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_buf packed = KMS_BUF_OVER(again);
    const ProtobufCMessageDescriptor *what;
    ProtobufCMessage *message;
    size_t need = 0;
    void *block;

    if (size == 0 || size > KMS_AGENT_FRAME_MAX) {
        return 0;
    }
    what = (data[0] & 1) == 0 ? &kms__agent__request__descriptor : &kms__agent__hello__descriptor;
    if (kms_agent_check(what, kms_span_of(data + 1, size - 1), &need, &err) != KMS_OK) {
        demand(err.status == KMS_E_PROTOCOL && err.text[0] != '\0');
        demand(kms_agent_unpack(what, kms_span_of(data + 1, size - 1), &message, NULL) ==
               KMS_E_PROTOCOL);
        return 0;
    }
    demand(need <= ARENA_MAX);
    message = unpack(what, kms_span_of(data + 1, size - 1), need, &block);
    if (what == &kms__agent__request__descriptor) {
        use_request((const Kms__Agent__Request *)message);
    }
    if (kms_agent_pack(message, &packed, NULL) == KMS_OK && packed.len > KMS_AGENT_HEADER) {
        demand(kms_agent_check(what,
                               kms_span_of(again + KMS_AGENT_HEADER, packed.len - KMS_AGENT_HEADER),
                               &need, NULL) == KMS_OK);
    }
    free(block);
    return 0;
}
