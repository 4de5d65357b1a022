/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/ring_key.h"

#include <string.h>

#include "common/secure.h"

#define PROBE_LEN 32

/* The backend cannot find a key that is in the ring: it is away, and "not found" would be a lie. */
static enum kms_status not_away(struct kms_call *call, const struct kms_ring_key *key,
                                enum kms_status status)
{
    if (status != KMS_E_NOT_FOUND) {
        return status;
    }
    kms_error_clear(&call->error);
    return kms_error_set(
        &call->error, KMS_E_UNAVAILABLE,
        "the key service does not have key %s now, and had: it is looked for again", key->info.id);
}

/* What came is what was asked for. */
static enum kms_status check_sealed(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_ring_key *key, const struct kms_sealed *sealed,
                                    bool *ret_moved)
{
    if (sealed->alg != key->info.seal || sealed->iv.len != kms_envelope_iv_len(sealed->alg) ||
        sealed->key_id[0] == '\0') {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "backend %s encrypted otherwise than asked (%s, IV %zu bytes, key %s)",
                             kms_waist_name(waist), kms_alg_name(sealed->alg), sealed->iv.len,
                             sealed->key_id);
    }
    if (strcmp(sealed->key_id, key->info.id) != 0) {
        if (ret_moved != NULL) {
            *ret_moved = true;
        }
        return kms_error_set(&call->error, KMS_E_UNAVAILABLE,
                             "backend %s encrypted with %s instead of %s: the key was rotated, the "
                             "new version is looked for",
                             kms_waist_name(waist), sealed->key_id, key->info.id);
    }
    return KMS_OK;
}

enum kms_status kms_ring_key_seal(struct kms_waist *waist, struct kms_call *call,
                                  const struct kms_ring_key *key, struct kms_span plaintext,
                                  struct kms_buf *ret_envelope, bool *ret_moved)
{
    uint8_t aad_storage[KMS_ENVELOPE_AAD_MAX];
    uint8_t iv_storage[KMS_IV_MAX];
    uint8_t ct_storage[KMS_ENVELOPE_PLAINTEXT_MAX + 1024]; /* the room that encrypt asks for */
    struct kms_buf aad = KMS_BUF_OVER(aad_storage);
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv_storage),
                                .ciphertext = KMS_BUF_OVER(ct_storage)};
    enum kms_alg alg = key->info.seal;
    size_t iv_len = kms_envelope_iv_len(alg);
    struct kms_buf out = *ret_envelope;
    struct kms_span key_id = kms_span_str(key->info.id);
    size_t start = out.len;

    if (kms_envelope_header(alg, iv_len, key->hint, &out) != KMS_OK ||
        kms_envelope_aad(kms_span_of(out.data + start, KMS_ENVELOPE_HEADER), key_id, &aad) !=
            KMS_OK) {
        return kms_error_set(&call->error, KMS_E_INTERNAL, "envelope: no room for a header");
    }
    struct kms_params params = {.alg = alg, .aad = kms_buf_span(&aad)};
    enum kms_status status =
        kms_waist_encrypt(waist, call, key->info.ref, &params, plaintext, &sealed);
    if (status != KMS_OK) {
        return not_away(call, key, status);
    }
    status = check_sealed(waist, call, key, &sealed, ret_moved);
    if (status != KMS_OK) {
        return status;
    }
    if (kms_buf_put(&out, kms_buf_span(&sealed.iv)) != KMS_OK ||
        kms_buf_put(&out, kms_buf_span(&sealed.ciphertext)) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "envelope: over %zu bytes", out.cap);
    }
    *ret_envelope = out;
    return KMS_OK;
}

/* RSA opens OAEP and ChaCha20 its own; a service with a scheme of its own opens that, and AES the
 * two symmetric ones. */
static bool alg_fits(enum kms_alg alg, const struct kms_key_info *info)
{
    return (alg == KMS_ALG_RSA_OAEP_SHA256) == (info->type == KMS_KEY_RSA) &&
           (alg == KMS_ALG_CHACHA20_POLY1305) == (info->type == KMS_KEY_CHACHA20) &&
           (alg == KMS_ALG_SEALED) == kms_alg_set_has(&info->algs, KMS_ALG_SEALED);
}

enum kms_status kms_ring_key_unseal(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_ring_key *key, const struct kms_envelope *env,
                                    struct kms_buf *ret_plaintext)
{
    uint8_t aad_storage[KMS_ENVELOPE_AAD_MAX];
    struct kms_buf aad = KMS_BUF_OVER(aad_storage);
    if (!kms_span_equal(env->key_hint, kms_span_of(key->hint, sizeof key->hint))) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA, "envelope: it is not of key_id %s",
                             key->info.id);
    }
    if (!alg_fits(env->alg, &key->info)) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA,
                             "envelope: algorithm %s does not fit key_id %s",
                             kms_alg_name(env->alg), key->info.id);
    }
    if (kms_envelope_aad(env->header, kms_span_str(key->info.id), &aad) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_INTERNAL, "envelope: AAD too long");
    }
    struct kms_params params = {.alg = env->alg, .aad = kms_buf_span(&aad), .iv = env->iv};
    return not_away(
        call, key,
        kms_waist_decrypt(waist, call, key->info.ref, &params, env->ciphertext, ret_plaintext));
}

enum kms_status kms_ring_key_probe(struct kms_waist *waist, struct kms_call *call,
                                   const struct kms_ring_key *key, bool *ret_moved)
{
    uint8_t plain[PROBE_LEN];
    uint8_t opened[KMS_ENVELOPE_MAX];
    uint8_t envelope[KMS_ENVELOPE_MAX];
    struct kms_buf random = KMS_BUF_OVER(plain);
    struct kms_buf sealed = KMS_BUF_OVER(envelope);
    struct kms_buf back = KMS_BUF_OVER(opened);
    struct kms_envelope env;

    enum kms_status status = kms_random(plain, sizeof plain);
    if (status != KMS_OK) {
        return kms_error_set(&call->error, status, "probe: no random bytes");
    }
    random.len = sizeof plain;
    status = kms_ring_key_seal(waist, call, key, kms_buf_span(&random), &sealed, ret_moved);
    if (status == KMS_OK) {
        status = kms_envelope_parse(kms_buf_span(&sealed), &env, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ring_key_unseal(waist, call, key, &env, &back);
    }
    if (status == KMS_OK &&
        (back.len != sizeof plain || !kms_secret_equal(plain, opened, sizeof plain))) {
        status = kms_error_set(&call->error, KMS_E_PROTOCOL,
                               "probe: key_id %s decrypted to something else", key->info.id);
    }
    kms_wipe(plain, sizeof plain);
    kms_wipe(opened, sizeof opened);
    return status;
}
