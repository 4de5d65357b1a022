/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GenerateMac and VerifyMac. They take no key version and tell none, and the service rotates no
 * HMAC key by itself: so such a key is one object, without versions, and is not rotated from here
 * either, or there would be MACs of which nobody can say what made them.
 */
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/secure.h"

#define MESSAGE_MAX 6144 /* bytes; the vendor tells no bound of its own: as Encrypt's */
#define MAC_MAX     64

static const struct mac {
    enum kms_alg alg;
    const char *name; /* Algorithm */
    size_t len;
} macs[] = {
    {KMS_ALG_HMAC_SHA224, "HMAC_SHA_224", 28},
    {KMS_ALG_HMAC_SHA256, "HMAC_SHA_256", 32},
    {KMS_ALG_HMAC_SHA384, "HMAC_SHA_384", 48},
    {KMS_ALG_HMAC_SHA512, "HMAC_SHA_512", 64},
};

static const struct mac *mac_of(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(macs) / sizeof(macs[0]); i++) {
        if (macs[i].alg == alg) {
            return &macs[i];
        }
    }
    return NULL;
}

bool kms_ali_is_mac(enum kms_alg alg)
{
    return mac_of(alg) != NULL;
}

/* ---- what is asked for -------------------------------------------------------------------- */

/* What both have to say; the texts are borrowed for the call. */
struct question {
    const struct mac *mac;
    struct kms_ali_ref key;
    struct kms_blob message;
    struct kms_ali_ask ask;
};

static enum kms_status check_input(struct kms_span input, struct kms_error *err)
{
    if (input.len == 0) {
        return kms_error_set(err, KMS_E_INVALID, "Alibaba Cloud KMS makes no MAC of nothing");
    }
    return input.len <= MESSAGE_MAX
               ? KMS_OK
               : kms_error_set(err, KMS_E_TOO_LARGE,
                               "a MAC of at most %d bytes by Alibaba Cloud KMS, not of %zu",
                               MESSAGE_MAX, input.len);
}

static enum kms_status begin(struct question *q, const char *ref, const struct kms_params *params,
                             struct kms_span input, struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    q->mac = mac_of(params->alg);
    if (q->mac == NULL) {
        return kms_error_set(err, KMS_E_UNSUPPORTED, "Alibaba Cloud KMS has no %s",
                             kms_alg_name(params->alg));
    }
    status = kms_ali_ref_parse(ref, &q->key, err);
    if (status == KMS_OK && strcmp(q->key.version, KMS_ALI_NO_VERSION) != 0) {
        status = kms_error_set(err, KMS_E_UNSUPPORTED, "key %s is no HMAC key", q->key.key);
    }
    if (status == KMS_OK) {
        status = check_input(input, err);
    }
    if (status == KMS_OK) {
        status = kms_ali_base64(input, &q->message, err);
    }
    if (status == KMS_OK) {
        kms_ali_param_text(&q->ask, "KeyId", q->key.key);
        kms_ali_param_text(&q->ask, "Algorithm", q->mac->name);
        kms_ali_param(&q->ask, "Message", kms_blob_span(&q->message));
    }
    return status;
}

/* KeyId and Algorithm of the reply are those that were asked for. */
static enum kms_status check_reply(struct kms_call *call, const struct question *q,
                                   const struct kms_ali_reply *reply)
{
    const char *key = NULL;
    const char *algorithm = NULL;
    enum kms_status status =
        kms_json_text(&reply->root, "KeyId", KMS_ALI_ID_MAX - 1, &key, &call->error);

    if (status == KMS_OK) {
        status = kms_json_text(&reply->root, "Algorithm", 64, &algorithm, &call->error);
    }
    if (status == KMS_OK && strcmp(key, q->key.key) != 0) {
        status = kms_ali_protocol(call, reply, q->ask.action, "is about another key");
    }
    if (status == KMS_OK && strcmp(algorithm, q->mac->name) != 0) {
        status = kms_ali_protocol(call, reply, q->ask.action, "is about another algorithm");
    }
    return status;
}

/* ---- mac, verify -------------------------------------------------------------------------- */

static enum kms_status read_mac(struct kms_call *call, const struct question *q,
                                const struct kms_ali_reply *reply, struct kms_buf *ret_mac)
{
    uint8_t storage[MAC_MAX];
    struct kms_buf mac = KMS_BUF_OVER(storage);
    enum kms_status status = check_reply(call, q, reply);

    if (status == KMS_OK) {
        status = kms_json_base64(&reply->root, "Mac", &mac, &call->error);
    }
    if (status == KMS_E_TOO_LARGE || (status == KMS_OK && mac.len != q->mac->len)) {
        kms_error_clear(&call->error);
        status = kms_ali_protocol(call, reply, q->ask.action, "holds a MAC of another length");
    }
    if (status == KMS_OK && kms_buf_put(ret_mac, kms_buf_span(&mac)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "a MAC has %zu bytes", mac.len);
    }
    kms_wipe(storage, sizeof(storage));
    return status;
}

enum kms_status kms_ali_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_mac)
{
    struct question q = {.ask = {.action = "GenerateMac"}};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    enum kms_status status = begin(&q, ref, params, input, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_call(b, call, &q.ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_mac(call, &q, &reply, ret_mac);
    }
    kms_ali_reply_done(call, &reply);
    kms_blob_done(&q.message);
    return status;
}

enum kms_status kms_ali_verify_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                                   const struct kms_params *params, struct kms_span input,
                                   struct kms_span mac)
{
    struct question q = {.ask = {.action = "VerifyMac"}};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_blob text = {.data = NULL};
    bool valid = false;
    enum kms_status status = begin(&q, ref, params, input, &call->error);

    if (status == KMS_OK && mac.len != q.mac->len) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "the MAC does not verify");
    }
    if (status == KMS_OK) {
        status = kms_ali_base64(mac, &text, &call->error);
    }
    if (status == KMS_OK) {
        kms_ali_param(&q.ask, "Mac", kms_blob_span(&text));
        status = kms_ali_call(b, call, &q.ask, &reply);
    }
    if (status == KMS_OK) {
        status = check_reply(call, &q, &reply);
    }
    if (status == KMS_OK) {
        status = kms_json_bool(&reply.root, "Value", &valid, &call->error);
    }
    if (status == KMS_OK && !valid) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "the MAC does not verify");
    }
    kms_ali_reply_done(call, &reply);
    kms_blob_done(&text);
    kms_blob_done(&q.message);
    return status;
}
