/* SPDX-License-Identifier: Apache-2.0 */
/* Data keys and rewrapping. */
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/secure.h"

/* ---- data keys ---------------------------------------------------------------------------- */

static enum kms_status check_data_key(struct kms_call *call, enum kms_alg alg,
                                      const struct kms_params *params, size_t len)
{
    if (alg != KMS_ALG_BEST && !kms_vault_is_aead(alg)) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit seals no data key by %s",
                             kms_alg_name(alg));
    }
    if (len != 16 && len != 32 && len != 64) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "Transit makes data keys of 16, 32 and 64 bytes, not of %zu", len);
    }
    if (params->iv.len > 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit makes the IV itself");
    }
    return kms_vault_check_params(call, alg, params);
}

/* Both halves, or nothing. */
static enum kms_status take_data_key(struct kms_call *call, const struct kms_vault_key *key,
                                     enum kms_alg alg, const struct kms_json *data, size_t len,
                                     struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    struct kms_buf bytes = kms_buf_over(ret_key->data + ret_key->len, len);
    struct kms_sealed sealed = *ret_sealed;
    enum kms_status status = kms_json_base64(data, "plaintext", &bytes, &call->error);

    if (status == KMS_OK && bytes.len != len) {
        status = kms_error_set(&call->error, KMS_E_PROTOCOL, "a data key of %zu bytes, not %zu",
                               bytes.len, len);
    }
    if (status == KMS_OK) {
        status = kms_vault_take_sealed(call, key, alg, data, len, &sealed);
    }
    if (status != KMS_OK) {
        kms_wipe(bytes.data, len);
        return status;
    }
    sealed.alg = alg;
    memcpy(sealed.key_id, key->id, sizeof(sealed.key_id));
    ret_key->len += len;
    *ret_sealed = sealed;
    return KMS_OK;
}

enum kms_status kms_vault_data_key(struct kms_backend *backend, struct kms_call *call,
                                   const char *ref, const struct kms_params *params, size_t len,
                                   struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_vault_body body;
    struct kms_vault_key key;
    struct kms_json data;
    enum kms_alg alg = params->alg;
    enum kms_status status = check_data_key(call, alg, params, len);

    if (status == KMS_OK) {
        status = kms_vault_find_sealer(backend, call, ref, KMS_USE_WRAP, &alg, &key);
    }
    if (status == KMS_OK) {
        status = kms_vault_body_begin(&body, params->aad.len, &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    kms_json_put_u64(&body.json, "bits", 8 * len);
    if (params->aad.len > 0) {
        kms_json_put_base64(&body.json, "associated_data", params->aad);
    }
    kms_json_put_u64(&body.json, "key_version", key.version);
    status = kms_vault_ask_cipher(backend, call, "/datakey/plaintext/", &key, &body, &reply, &data);
    if (status == KMS_OK) {
        status = take_data_key(call, &key, alg, &data, len, ret_key, ret_sealed);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

/* ---- rewrap ------------------------------------------------------------------------------- */

static bool keep_latest(void *ctx, const struct kms_key_info *info)
{
    char *ref = ctx;

    if (info->latest) {
        memcpy(ref, info->ref, KMS_KEY_REF_MAX);
    }
    return true;
}

/* The version that is the newest now, asked for anew: what we know may be ten seconds old. */
static enum kms_status find_latest(struct kms_backend *backend, struct kms_call *call,
                                   const struct kms_vault_key *key, enum kms_alg alg,
                                   struct kms_vault_key *ret_latest)
{
    char ref[KMS_KEY_REF_MAX] = "";
    enum kms_status status = kms_vault_read(backend, call, key->name, keep_latest, ref);

    if (status == KMS_OK && ref[0] == '\0') {
        status =
            kms_error_set(&call->error, KMS_E_KEY_STATE, "key %s has no newest version", key->name);
    }
    return status == KMS_OK ? kms_vault_find(backend, call, ref, alg, KMS_USE_ENCRYPT, ret_latest)
                            : status;
}

static enum kms_status rewrap(struct kms_backend *backend, struct kms_call *call,
                              const struct kms_vault_key *from, const struct kms_vault_key *to,
                              const struct kms_params *params, struct kms_span sealed,
                              struct kms_sealed *ret_sealed)
{
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_vault_body body;
    struct kms_json data;
    enum kms_status status = kms_vault_body_begin(&body, params->iv.len + sealed.len, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_vault_put_text(&body, "ciphertext", from, false, params->iv, sealed);
    kms_json_put_u64(&body.json, "key_version", to->version);
    status = kms_vault_ask_cipher(backend, call, "/rewrap/", from, &body, &reply, &data);
    if (status == KMS_OK) {
        status = kms_vault_take_sealed(call, to, params->alg, &data,
                                       sealed.len - KMS_VAULT_AEAD_TAG, ret_sealed);
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(&body);
    return status;
}

/* Transit's rewrap has no parameter for associated data and fails where there is some (OpenBao
 * 2.x, as Vault): that is said before it is asked. */
enum kms_status kms_vault_rewrap(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span ciphertext, struct kms_sealed *ret_sealed)
{
    struct kms_sealed sealed = *ret_sealed;
    struct kms_vault_key from;
    struct kms_vault_key to;
    enum kms_status status = KMS_OK;

    if (!kms_vault_is_aead(params->alg) || params->aad.len > 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "Transit rewraps what an AEAD sealed without an AAD, and no more");
    }
    status = kms_vault_check_params(call, params->alg, params);
    if (status == KMS_OK) {
        status = kms_vault_find(backend, call, ref, params->alg, KMS_USE_DECRYPT, &from);
    }
    if (status == KMS_OK) {
        status = kms_vault_check_sealed(call, &from, params->alg, params->iv, ciphertext);
    }
    if (status == KMS_OK) {
        status = find_latest(backend, call, &from, params->alg, &to);
    }
    if (status == KMS_OK) {
        status = rewrap(backend, call, &from, &to, params, ciphertext, &sealed);
    }
    if (status == KMS_OK) {
        sealed.alg = params->alg;
        memcpy(sealed.key_id, to.id, sizeof(sealed.key_id));
        *ret_sealed = sealed;
    }
    return status;
}
