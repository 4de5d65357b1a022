/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An EncryptRequest or DecryptRequest from any bytes (the first says which), as a client may send
 * it: refused with one clean sentence, or within the API's limits.
 */
#include "kmsbridge/kms_v2.h"

#include <stdlib.h>
#include <string.h>

#include "common/codec.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    static struct kms_keks keks;
    uint8_t storage[2][KMS_RPC_REPLY_MAX];
    struct kms_v2 kms = {.keks = &keks};
    struct kms_rpc_reply reply = {.message = KMS_BUF_OVER(storage[0]),
                                  .scratch = KMS_BUF_OVER(storage[1])};
    if (!ready) {
        kms_log_setup(-1, KMS_LOG_ERROR, KMS_LOG_TEXT);
        kms_keks_init(&keks);
        ready = true;
    }
    if (size == 0 || size > KMS_RPC_MESSAGE_MAX) {
        return 0;
    }
    struct kms_rpc_request request = {.message = kms_span_of(data + 1, size - 1),
                                      .arena = kms_rpc_arena_new()};
    demand(request.arena != NULL);
    bool decrypt = (data[0] & 1) != 0;
    if (decrypt) {
        kms_v2_parse_decrypt(&kms, &request, &reply);
    } else {
        kms_v2_parse_encrypt(&kms, &request, &reply);
    }
    if (reply.status == KMS_OK) {
        uint8_t same[KMS_RPC_SAME_LEN];
        demand(request.parsed != NULL);
        demand(!decrypt || kms_v2_methods[KMS_METHOD_DECRYPT].same(&kms, &request, same));
    } else {
        demand(reply.status == KMS_E_INVALID || reply.status == KMS_E_NOMEM);
        demand(reply.detail[0] != '\0');
        demand(memchr(reply.detail, '\n', strlen(reply.detail)) == NULL);
        demand(kms_utf8_valid(kms_span_str(reply.detail)));
        demand(reply.message.len == 0);
    }
    kms_rpc_arena_free(request.arena);
    return 0;
}
