/* SPDX-License-Identifier: Apache-2.0 */
/* Sign, verify, MAC. */
#include <stdio.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/secure.h"

#define PKCS1_OVERHEAD 11 /* RFC 8017 9.2 */

static size_t signature_len(const struct kms_vault_key *key)
{
    switch (key->type->type) {
    case KMS_KEY_RSA:
        return key->bits / 8;
    case KMS_KEY_EC:
        return 2 * ((key->bits + 7) / 8);
    default:
        return 64; /* Ed25519 */
    }
}

static const struct kms_vault_sign *row_for(struct kms_call *call, const char *verb,
                                            enum kms_alg alg, bool mac)
{
    const struct kms_vault_sign *row = kms_vault_sign_for(alg);

    if (row == NULL || (row->type == KMS_KEY_GENERIC) != mac) {
        (void)kms_error_set(&call->error, KMS_E_UNSUPPORTED, "a Transit key does not %s by %s",
                            verb, kms_alg_name(alg));
        return NULL;
    }
    return row;
}

static enum kms_status check_input(struct kms_call *call, const struct kms_vault_sign *row,
                                   const struct kms_vault_key *key, const struct kms_params *params,
                                   struct kms_span input)
{
    size_t size = key->bits / 8;

    if (row->type == KMS_KEY_RSA && row->digest_len > 0 && input.len != row->digest_len) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a digest of %zu bytes, not %zu",
                             row->digest_len, input.len);
    }
    if (row->alg == KMS_ALG_RSA_PKCS1 && input.len > size - PKCS1_OVERHEAD) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "at most %zu bytes, not %zu",
                             size - PKCS1_OVERHEAD, input.len);
    }
    if (row->alg == KMS_ALG_ECDSA && (input.len == 0 || input.len > 64)) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a digest of 1 to 64 bytes, not %zu",
                             input.len);
    }
    if (params->salt_given && row->digest_len > 0 &&
        params->salt_len > size - 2 - row->digest_len) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a salt of %u bytes has no room",
                             params->salt_len);
    }
    if (params->salt_given && params->salt_len == 0 && row->signature != NULL &&
        row->digest_len > 0) { /* 0 is its word for "as long as fits" */
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "Transit makes no PSS without a salt");
    }
    return KMS_OK;
}

static void put_common(struct kms_vault_body *body, const struct kms_vault_sign *row,
                       const struct kms_params *params, struct kms_span input)
{
    char salt[16];
    unsigned salt_len = params->salt_given ? params->salt_len : (unsigned)row->digest_len;

    kms_json_put_base64(&body->json, "input", input);
    if (row->hash != NULL) {
        kms_json_put_text(&body->json, "hash_algorithm", row->hash);
        kms_json_put_bool(&body->json, "prehashed", row->prehashed);
    }
    if (row->signature != NULL) {
        kms_json_put_text(&body->json, "signature_algorithm", row->signature);
    }
    if (row->type == KMS_KEY_RSA && row->digest_len > 0) {
        (void)snprintf(salt, sizeof(salt), "%u", salt_len);
        kms_json_put_text(&body->json, "salt_length", salt);
    }
    if (row->type == KMS_KEY_EC) { /* r || s, each padded to the field, as base64url */
        kms_json_put_text(&body->json, "marshaling_algorithm", "jws");
    }
}

static enum kms_status ask_on_key(struct kms_backend *backend, struct kms_call *call,
                                  const char *verb, const struct kms_vault_key *key,
                                  const char *behind, struct kms_vault_body *body,
                                  struct kms_vault_reply *ret_reply, struct kms_json *ret_data)
{
    char path[KMS_VAULT_PATH_MAX];
    struct kms_vault_ask ask = {.method = KMS_HTTP_POST, .path = path};
    enum kms_status status = kms_vault_body_end(body, &call->error);

    if (status == KMS_OK) {
        status = kms_vault_path(backend, call, verb, key->name, behind, path);
    }
    if (status == KMS_OK) {
        ask.body = kms_buf_span(&body->buf);
        status = kms_vault_ask(backend, call, &ask, ret_reply);
    }
    return status == KMS_OK ? kms_vault_data(ret_reply, ret_data, &call->error) : status;
}

/* ---- sign --------------------------------------------------------------------------------- */

static enum kms_status take_signature(struct kms_call *call, const struct kms_vault_key *key,
                                      const struct kms_json *data, const char *field, size_t len,
                                      struct kms_buf *ret)
{
    uint8_t bytes[KMS_SIGNATURE_MAX];
    struct kms_buf out = KMS_BUF_OVER(bytes);
    const char *text = NULL;
    enum kms_status status = kms_json_text(data, field, 4 * KMS_SIGNATURE_MAX, &text, &call->error);

    if (status == KMS_OK) {
        status = kms_vault_take_text(text, key, key->type->type == KMS_KEY_EC, &out, &call->error);
    }
    if (status == KMS_OK && out.len != len) {
        status = kms_error_set(&call->error, KMS_E_PROTOCOL, "\"%s\" has %zu bytes, not %zu", field,
                               out.len, len);
    }
    if (status == KMS_OK && kms_buf_put(ret, kms_buf_span(&out)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "%zu bytes have no room", out.len);
    }
    kms_wipe(bytes, sizeof(bytes)); /* one that is made to check another is a secret */
    return status;
}

enum kms_status kms_vault_sign(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_buf *ret_signature)
{
    const struct kms_vault_sign *row = row_for(call, "sign", params->alg, false);
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_vault_key key;
    struct kms_json data;
    enum kms_status status = KMS_OK;

    if (row == NULL) {
        return call->error.status;
    }
    status = kms_vault_find(backend, call, ref, params->alg, KMS_USE_SIGN, &key);
    if (status == KMS_OK) {
        status = check_input(call, row, &key, params, input);
    }
    if (status == KMS_OK && kms_buf_room(ret_signature) < signature_len(&key)) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "a signature has %zu bytes",
                               signature_len(&key));
    }
    if (status == KMS_OK) {
        status = kms_vault_body_begin(&body, input.len, &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    put_common(&body, row, params, input);
    kms_json_put_u64(&body.json, "key_version", key.version);
    status = ask_on_key(backend, call, "/sign/", &key, "", &body, &reply, &data);
    if (status == KMS_OK) {
        status = take_signature(call, &key, &data, "signature", signature_len(&key), ret_signature);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

/* ---- MAC ---------------------------------------------------------------------------------- */

enum kms_status kms_vault_mac_of(struct kms_backend *backend, struct kms_call *call,
                                 const struct kms_vault_key *key, const struct kms_vault_sign *row,
                                 struct kms_span input, struct kms_buf *ret_mac)
{
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    char behind[32];
    enum kms_status status = kms_vault_body_begin(&body, input.len, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_json_put_base64(&body.json, "input", input);
    kms_json_put_u64(&body.json, "key_version", key->version);
    (void)snprintf(behind, sizeof(behind), "/%s", row->hash);
    status = ask_on_key(backend, call, "/hmac/", key, behind, &body, &reply, &data);
    if (status == KMS_OK) {
        status = take_signature(call, key, &data, "hmac", row->digest_len, ret_mac);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

static enum kms_status make_mac(struct kms_backend *backend, struct kms_call *call, const char *ref,
                                const struct kms_vault_sign *row, unsigned use,
                                struct kms_span input, struct kms_buf *ret_mac)
{
    struct kms_vault_key key;
    enum kms_status status = kms_vault_find(backend, call, ref, row->alg, use, &key);

    if (status == KMS_OK && kms_buf_room(ret_mac) < row->digest_len) {
        status =
            kms_error_set(&call->error, KMS_E_TOO_LARGE, "a MAC has %zu bytes", row->digest_len);
    }
    return status == KMS_OK ? kms_vault_mac_of(backend, call, &key, row, input, ret_mac) : status;
}

enum kms_status kms_vault_mac(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span input,
                              struct kms_buf *ret_mac)
{
    const struct kms_vault_sign *row = row_for(call, "make a MAC", params->alg, true);

    return row == NULL ? call->error.status
                       : make_mac(backend, call, ref, row, KMS_USE_SIGN, input, ret_mac);
}

/* Made anew and compared here: it needs no other right than `mac`, and takes constant time. */
static enum kms_status verify_mac(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_vault_sign *row,
                                  struct kms_span input, struct kms_span mac)
{
    uint8_t bytes[64];
    struct kms_buf made = KMS_BUF_OVER(bytes);
    enum kms_status status = make_mac(backend, call, ref, row, KMS_USE_VERIFY, input, &made);

    if (status == KMS_OK &&
        (mac.len != made.len || !kms_secret_equal(mac.data, made.data, made.len))) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "the MAC does not verify");
    }
    kms_wipe(bytes, sizeof(bytes));
    return status;
}

/* ---- verify ------------------------------------------------------------------------------- */

static enum kms_status ask_verify(struct kms_backend *backend, struct kms_call *call,
                                  const struct kms_vault_key *key, const struct kms_vault_sign *row,
                                  const struct kms_params *params, struct kms_span input,
                                  struct kms_span signature)
{
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    bool valid = false;
    enum kms_status status = kms_vault_body_begin(&body, input.len + signature.len, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    put_common(&body, row, params, input);
    kms_vault_put_text(&body, "signature", key, row->type == KMS_KEY_EC, signature, KMS_SPAN_NONE);
    status = ask_on_key(backend, call, "/verify/", key, "", &body, &reply, &data);
    if (status == KMS_OK) {
        status = kms_json_bool(&data, "valid", &valid, &call->error);
    }
    if (status == KMS_OK && !valid) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "the signature does not verify");
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

enum kms_status kms_vault_verify(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span input, struct kms_span signature)
{
    const struct kms_vault_sign *row = kms_vault_sign_for(params->alg);
    struct kms_vault_key key;
    enum kms_status status = KMS_OK;

    if (row != NULL && row->type == KMS_KEY_GENERIC) {
        return verify_mac(backend, call, ref, row, input, signature);
    }
    row = row_for(call, "verify", params->alg, false);
    if (row == NULL) {
        return call->error.status;
    }
    status = kms_vault_find(backend, call, ref, params->alg, KMS_USE_VERIFY, &key);
    if (status == KMS_OK) {
        status = check_input(call, row, &key, params, input);
    }
    if (status == KMS_OK && signature.len != signature_len(&key)) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "a signature of %zu bytes, not %zu",
                               signature_len(&key), signature.len);
    }
    return status == KMS_OK ? ask_verify(backend, call, &key, row, params, input, signature)
                            : status;
}
