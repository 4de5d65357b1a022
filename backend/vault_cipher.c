/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypt, decrypt, wrap, unwrap. */
#include <stdio.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/codec.h"
#include "common/numbers.h"
#include "common/secure.h"

#define AAD_MAX  1024
#define GCM_IV   KMS_VAULT_AEAD_IV
#define GCM_TAG  KMS_VAULT_AEAD_TAG
#define OAEP_256 66 /* 2 * 32 + 2 (RFC 8017 7.1.1) */

/* ---- "vault:vN:..." ----------------------------------------------------------------------- */

static void to_url(uint8_t *text, size_t *len)
{
    for (size_t i = 0; i < *len; i++) {
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    }
    while (*len > 0 && text[*len - 1] == '=') {
        (*len)--;
    }
}

/* To the standard alphabet with padding, into @ret; false when it was not base64url. */
static bool from_url(const char *text, struct kms_buf *ret)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        char c = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];

        if (text[i] == '+' || text[i] == '/' || text[i] == '=' ||
            kms_buf_put_u8(ret, (uint8_t)c) != KMS_OK) {
            return false;
        }
    }
    for (; len % 4 != 0; len++) {
        if (kms_buf_put_u8(ret, '=') != KMS_OK) {
            return false;
        }
    }
    return true;
}

/* Apart, for its stack: most texts are not base64url. */
static __attribute__((noinline)) enum kms_status decode_url(const char *text, struct kms_buf *out)
{
    uint8_t standard[4 * KMS_SIGNATURE_MAX];
    struct kms_buf plain = KMS_BUF_OVER(standard);

    return from_url(text, &plain) ? kms_base64_decode(kms_buf_span(&plain), out) : KMS_E_BAD_DATA;
}

enum kms_status kms_vault_take_text(const char *text, const struct kms_vault_key *key, bool url,
                                    struct kms_buf *out, struct kms_error *err)
{
    char prefix[48];
    enum kms_status status = KMS_OK;
    int len = snprintf(prefix, sizeof(prefix), "vault:v%llu:", (unsigned long long)key->version);

    if (strncmp(text, prefix, (size_t)len) != 0) {
        return kms_error_set(err, KMS_E_PROTOCOL,
                             "the reply is not of version %llu, which was asked",
                             (unsigned long long)key->version);
    }
    text += len;
    status = url ? decode_url(text, out) : kms_base64_decode(kms_span_str(text), out);
    if (status == KMS_E_TOO_LARGE) { /* the reply's fault, not the caller's */
        return kms_error_set(err, KMS_E_PROTOCOL, "what came is longer than it can be");
    }
    return status == KMS_OK ? KMS_OK
                            : kms_error_set(err, KMS_E_PROTOCOL, "what came is not %s",
                                            url ? "base64url" : "base64");
}

/* Written as a text of its own first: both parts are one base64. */
void kms_vault_put_text(struct kms_vault_body *body, const char *field,
                        const struct kms_vault_key *key, bool url, struct kms_span first,
                        struct kms_span second)
{
    size_t raw_len = first.len + second.len;
    size_t size = raw_len + (raw_len + 2) / 3 * 4 + 64;
    struct kms_blob blob = {.data = NULL};
    uint8_t *raw = NULL;
    char *text = NULL;
    size_t len = 0;

    if (kms_blob_reserve(&blob, size) != KMS_OK) {
        body->json.status = KMS_E_NOMEM;
        return;
    }
    raw = blob.data;
    text = (char *)blob.data + raw_len;
    if (first.len > 0) {
        memcpy(raw, first.data, first.len);
    }
    if (second.len > 0) {
        memcpy(raw + first.len, second.data, second.len);
    }
    len = (size_t)snprintf(text, 48, "vault:v%llu:", (unsigned long long)key->version);
    if (kms_base64_encode(kms_span_of(raw, raw_len), text + len, size - raw_len - len) != KMS_OK) {
        body->json.status = KMS_E_TOO_LARGE;
    } else {
        size_t base64_len = strlen(text + len);

        if (url) {
            to_url((uint8_t *)text + len, &base64_len);
        }
        kms_json_put_span(&body->json, field, kms_span_of(text, len + base64_len));
    }
    kms_blob_done(&blob);
}

/* ---- what is asked ------------------------------------------------------------------------ */

bool kms_vault_is_aead(enum kms_alg alg)
{
    return alg == KMS_ALG_AES_GCM || alg == KMS_ALG_CHACHA20_POLY1305;
}

static bool is_cipher(enum kms_alg alg)
{
    return kms_vault_is_aead(alg) || alg == KMS_ALG_RSA_OAEP_L_SHA256;
}

enum kms_status kms_vault_find_sealer(struct kms_backend *backend, struct kms_call *call,
                                      const char *ref, unsigned use, enum kms_alg *alg,
                                      struct kms_vault_key *ret_key)
{
    bool best = *alg == KMS_ALG_BEST;
    enum kms_status status =
        kms_vault_find(backend, call, ref, best ? KMS_ALG_NONE : *alg, use, ret_key);

    if (status != KMS_OK || !best) {
        return status;
    }
    *alg = ret_key->type->seal;
    return *alg == KMS_ALG_NONE
               ? kms_error_set(&call->error, KMS_E_UNSUPPORTED, "key %s (%s) seals nothing",
                               ret_key->name, ret_key->type->name)
               : KMS_OK;
}

enum kms_status kms_vault_check_params(struct kms_call *call, enum kms_alg alg,
                                       const struct kms_params *params)
{
    if (params->aad.len > AAD_MAX) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "an AAD has at most %d bytes, not %zu",
                             AAD_MAX, params->aad.len);
    }
    if (alg == KMS_ALG_RSA_OAEP_L_SHA256 && params->aad.len > 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit's OAEP has no label");
    }
    if (params->tag_len != 0 && params->tag_len != GCM_TAG) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit's tags have %d bytes",
                             GCM_TAG);
    }
    return KMS_OK;
}

enum kms_status kms_vault_ask_cipher(struct kms_backend *backend, struct kms_call *call,
                                     const char *verb, const struct kms_vault_key *key,
                                     struct kms_vault_body *body, struct kms_vault_reply *ret_reply,
                                     struct kms_json *ret_data)
{
    char path[KMS_VAULT_PATH_MAX];
    struct kms_vault_ask ask = {.method = KMS_HTTP_POST, .path = path};
    enum kms_status status = kms_vault_body_end(body, &call->error);

    if (status == KMS_OK) {
        status = kms_vault_path(backend, call, verb, key->name, "", path);
    }
    if (status == KMS_OK) {
        ask.body = kms_buf_span(&body->buf);
        status = kms_vault_ask(backend, call, &ask, ret_reply);
    }
    return status == KMS_OK ? kms_vault_data(ret_reply, ret_data, &call->error) : status;
}

/* ---- encrypt ------------------------------------------------------------------------------ */

/* nonce || ct || tag of an AEAD; the whole is OAEP's. */
static enum kms_status put_sealed(struct kms_call *call, const struct kms_vault_key *key,
                                  enum kms_alg alg, struct kms_span whole, size_t plain_len,
                                  struct kms_sealed *ret)
{
    struct kms_span iv = KMS_SPAN_NONE;

    if (kms_vault_is_aead(alg)) {
        if (whole.len != GCM_IV + plain_len + GCM_TAG) {
            return kms_error_set(&call->error, KMS_E_PROTOCOL,
                                 "a ciphertext of %zu bytes for %zu bytes of plaintext", whole.len,
                                 plain_len);
        }
        iv = kms_span_of(whole.data, GCM_IV);
        whole = kms_span_of(whole.data + GCM_IV, whole.len - GCM_IV);
    } else if (whole.len != key->bits / 8) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL, "a ciphertext of RSA-%u of %zu bytes",
                             key->bits, whole.len);
    }
    if (iv.len > kms_buf_room(&ret->iv) || whole.len > kms_buf_room(&ret->ciphertext)) {
        return kms_error_set(&call->error, KMS_E_INVALID, "encrypt needs room for %zu bytes",
                             whole.len);
    }
    return kms_buf_put(&ret->iv, iv) == KMS_OK ? kms_buf_put(&ret->ciphertext, whole)
                                               : KMS_E_INTERNAL;
}

enum kms_status kms_vault_take_sealed(struct kms_call *call, const struct kms_vault_key *key,
                                      enum kms_alg alg, const struct kms_json *data,
                                      size_t plain_len, struct kms_sealed *ret)
{
    struct kms_blob blob = {.data = NULL};
    struct kms_buf whole;
    const char *text = NULL;
    uint64_t version = 0;
    enum kms_status status =
        kms_json_text(data, "ciphertext", 2 * KMS_CIPHERTEXT_MAX, &text, &call->error);

    if (status == KMS_OK) { /* older servers do not say it here; the ciphertext does, always */
        version = key->version;
        status = kms_json_u64_maybe(data, "key_version", 1, INT32_MAX, &version, &call->error);
    }
    if (status == KMS_OK && version != key->version) {
        status = kms_error_set(&call->error, KMS_E_PROTOCOL, "version %llu was used, not %llu",
                               (unsigned long long)version, (unsigned long long)key->version);
    }
    if (status == KMS_OK && kms_blob_reserve(&blob, strlen(text)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_NOMEM, "no memory for a ciphertext");
    }
    if (status == KMS_OK) {
        whole = kms_buf_over(blob.data, blob.cap);
        status = kms_vault_take_text(text, key, false, &whole, &call->error);
    }
    if (status == KMS_OK) {
        status = put_sealed(call, key, alg, kms_buf_span(&whole), plain_len, ret);
    }
    kms_blob_done(&blob);
    return status;
}

/*
 * Who may not make keys is denied to encrypt under one that has gone, since that would make it.
 * Whether it has gone is seen by reading it.
 */
static enum kms_status tell_denied(struct kms_backend *backend, struct kms_call *call,
                                   const struct kms_vault_key *key)
{
    struct kms_error denied = call->error;

    kms_error_clear(&call->error);
    if (kms_vault_read(backend, call, key->name, NULL, NULL) == KMS_E_NOT_FOUND) {
        return kms_error_reword(&call->error, KMS_E_NOT_FOUND,
                                "Transit has no key %s (any more): %s", key->name,
                                call->error.text);
    }
    call->error = denied;
    return KMS_E_DENIED;
}

static enum kms_status seal(struct kms_backend *backend, struct kms_call *call,
                            const struct kms_vault_key *key, enum kms_alg alg, struct kms_span aad,
                            struct kms_span plaintext, struct kms_sealed *ret_sealed)
{
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    enum kms_status status = kms_vault_body_begin(&body, plaintext.len + aad.len, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_json_put_base64(&body.json, "plaintext", plaintext);
    if (aad.len > 0) {
        kms_json_put_base64(&body.json, "associated_data", aad);
    }
    kms_json_put_u64(&body.json, "key_version", key->version);
    /* With the capability `create` Transit would make a key that is missing, of this type: there is
     * none such. A key that is there has its own. */
    kms_json_put_text(&body.json, "type", "never-make-one");
    status = kms_vault_ask_cipher(backend, call, "/encrypt/", key, &body, &reply, &data);
    if (status == KMS_OK) {
        status = kms_vault_take_sealed(call, key, alg, &data, plaintext.len, ret_sealed);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status == KMS_E_DENIED ? tell_denied(backend, call, key) : status;
}

static enum kms_status seal_with(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params, unsigned use,
                                 struct kms_span in, struct kms_sealed *ret_sealed)
{
    struct kms_sealed sealed = *ret_sealed;
    struct kms_vault_key key;
    enum kms_alg alg = params->alg;
    enum kms_status status = KMS_OK;

    if (alg != KMS_ALG_BEST && !is_cipher(alg)) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "a Transit key does not encrypt by %s", kms_alg_name(alg));
    }
    status = kms_vault_check_params(call, alg, params);
    if (status == KMS_OK && params->iv.len > 0) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit makes the IV itself");
    }
    if (status == KMS_OK) {
        status = kms_vault_find_sealer(backend, call, ref, use, &alg, &key);
    }
    if (status == KMS_OK && alg == KMS_ALG_RSA_OAEP_L_SHA256 && in.len > key.bits / 8 - OAEP_256) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "at most %u bytes, not %zu",
                               key.bits / 8 - OAEP_256, in.len);
    }
    if (status == KMS_OK) {
        status = seal(backend, call, &key, alg, params->aad, in, &sealed);
    }
    if (status == KMS_OK) {
        sealed.alg = alg;
        memcpy(sealed.key_id, key.id, sizeof(sealed.key_id));
        *ret_sealed = sealed;
    }
    return status;
}

enum kms_status kms_vault_encrypt(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span plaintext, struct kms_sealed *ret_sealed)
{
    return seal_with(backend, call, ref, params, KMS_USE_ENCRYPT, plaintext, ret_sealed);
}

enum kms_status kms_vault_wrap(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span key,
                               struct kms_sealed *ret_sealed)
{
    if (key.len == 0) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a key to wrap has no bytes");
    }
    return seal_with(backend, call, ref, params, KMS_USE_WRAP, key, ret_sealed);
}

/* ---- decrypt ------------------------------------------------------------------------------ */

static enum kms_status take_plaintext(struct kms_call *call, enum kms_alg alg,
                                      const struct kms_json *data, size_t sealed_len,
                                      struct kms_buf *ret)
{
    struct kms_blob blob = {.data = NULL};
    struct kms_buf plain;
    size_t room = kms_buf_room(ret);
    enum kms_status status = KMS_OK;

    if (kms_blob_reserve(&blob, sealed_len) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no secure memory for a plaintext");
    }
    plain = kms_buf_over(blob.data, sealed_len);
    status = kms_json_base64(data, "plaintext", &plain, &call->error);
    if (status == KMS_OK && kms_vault_is_aead(alg) && plain.len + GCM_IV + GCM_TAG != sealed_len) {
        status =
            kms_error_set(&call->error, KMS_E_PROTOCOL,
                          "a plaintext of %zu bytes out of %zu sealed ones", plain.len, sealed_len);
    }
    if (status == KMS_OK && plain.len > room) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "a plaintext of %zu bytes has no room", plain.len);
    }
    if (status == KMS_OK) {
        size_t rest = (room < sealed_len ? room : sealed_len) - plain.len;

        status = kms_buf_put(ret, kms_buf_span(&plain));
        kms_wipe(ret->data + ret->len, rest); /* as the op promises: nothing of it is left behind */
    }
    kms_blob_done(&blob);
    return status;
}

enum kms_status kms_vault_check_sealed(struct kms_call *call, const struct kms_vault_key *key,
                                       enum kms_alg alg, struct kms_span iv, struct kms_span sealed)
{
    if (kms_vault_is_aead(alg) && (iv.len != GCM_IV || sealed.len < GCM_TAG)) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA,
                             "an IV of %zu and a ciphertext of %zu bytes are none of Transit's",
                             iv.len, sealed.len);
    }
    if (alg == KMS_ALG_RSA_OAEP_L_SHA256 && (iv.len != 0 || sealed.len != key->bits / 8)) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA,
                             "a ciphertext of RSA-%u has %u bytes, not %zu", key->bits,
                             key->bits / 8, sealed.len);
    }
    return KMS_OK;
}

static enum kms_status check_room(struct kms_call *call, enum kms_alg alg, struct kms_span sealed,
                                  const struct kms_buf *out)
{
    return kms_vault_is_aead(alg) && sealed.len - GCM_TAG > kms_buf_room(out)
               ? kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "a plaintext of %zu bytes has no room", sealed.len - GCM_TAG)
               : KMS_OK;
}

static enum kms_status unseal(struct kms_backend *backend, struct kms_call *call,
                              const struct kms_vault_key *key, const struct kms_params *params,
                              struct kms_span sealed, struct kms_buf *ret_plaintext)
{
    struct kms_vault_body body;
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    size_t size = params->iv.len + sealed.len;
    enum kms_status status = kms_vault_body_begin(&body, size + params->aad.len, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_vault_put_text(&body, "ciphertext", key, false, params->iv, sealed);
    if (params->aad.len > 0) {
        kms_json_put_base64(&body.json, "associated_data", params->aad);
    }
    status = kms_vault_ask_cipher(backend, call, "/decrypt/", key, &body, &reply, &data);
    if (status == KMS_OK) {
        status = take_plaintext(call, params->alg, &data, size, ret_plaintext);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

static enum kms_status unseal_with(struct kms_backend *backend, struct kms_call *call,
                                   const char *ref, const struct kms_params *params, unsigned use,
                                   struct kms_span sealed, struct kms_buf *ret_plaintext)
{
    struct kms_vault_key key;
    enum kms_status status = KMS_OK;

    if (!is_cipher(params->alg)) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "a Transit key does not decrypt by %s", kms_alg_name(params->alg));
    }
    status = kms_vault_check_params(call, params->alg, params);
    if (status == KMS_OK) {
        status = kms_vault_find(backend, call, ref, params->alg, use, &key);
    }
    if (status == KMS_OK) {
        status = kms_vault_check_sealed(call, &key, params->alg, params->iv, sealed);
    }
    if (status == KMS_OK) {
        status = check_room(call, params->alg, sealed, ret_plaintext);
    }
    return status == KMS_OK ? unseal(backend, call, &key, params, sealed, ret_plaintext) : status;
}

enum kms_status kms_vault_decrypt(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span ciphertext, struct kms_buf *ret_plaintext)
{
    return unseal_with(backend, call, ref, params, KMS_USE_DECRYPT, ciphertext, ret_plaintext);
}

enum kms_status kms_vault_unwrap(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span wrapped, struct kms_buf *ret_key)
{
    return unseal_with(backend, call, ref, params, KMS_USE_UNWRAP, wrapped, ret_key);
}
