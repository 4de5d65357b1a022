/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/envelope.h"

#include <string.h>

#include <openssl/evp.h>

#define FORMAT_VERSION 1

static const uint8_t magic[3] = {'K', 'M', 'B'};

/* What each sealing algorithm may look like: NIST SP 800-38D, RFC 8017 7.1, RFC 7518 5.2.2,
 * RFC 8439 2.8. */
static const struct scheme {
    enum kms_alg alg;
    size_t iv_len;
    size_t ciphertext_min;   /* one byte of plaintext */
    size_t ciphertext_block; /* without the tag it is a multiple of this */
    size_t tag_len;
} schemes[] = {
    {KMS_ALG_AES_GCM, 12, 16 + 1, 1, 16},
    {KMS_ALG_RSA_OAEP_SHA256, 0, 128, 8, 0},
    {KMS_ALG_AES_CBC_HMAC, 16, 16 + 32, 16, 32},
    {KMS_ALG_CHACHA20_POLY1305, 12, 16 + 1, 1, 16},
    {KMS_ALG_SEALED, 0, 1, 1, 0}, /* the service's blob, which it alone can judge */
};

static const struct scheme *scheme_find(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (schemes[i].alg == alg) {
            return &schemes[i];
        }
    }
    return NULL;
}

size_t kms_envelope_iv_len(enum kms_alg alg)
{
    const struct scheme *scheme = scheme_find(alg);
    return scheme != NULL ? scheme->iv_len : 0;
}

enum kms_status kms_envelope_hint(struct kms_span key_id, uint8_t ret_hint[KMS_KEY_HINT_LEN])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(key_id.data, key_id.len, digest, NULL, EVP_sha256(), NULL) != 1) {
        return KMS_E_INTERNAL;
    }
    memcpy(ret_hint, digest, KMS_KEY_HINT_LEN);
    return KMS_OK;
}

enum kms_status kms_envelope_header(enum kms_alg alg, size_t iv_len,
                                    const uint8_t hint[KMS_KEY_HINT_LEN], struct kms_buf *out)
{
    const struct scheme *scheme = scheme_find(alg);
    if (scheme == NULL || scheme->iv_len != iv_len) {
        return KMS_E_INVALID;
    }
    uint8_t header[KMS_ENVELOPE_HEADER] = {0};
    memcpy(header, magic, sizeof magic);
    header[3] = FORMAT_VERSION;
    header[4] = (uint8_t)alg;
    header[6] = (uint8_t)iv_len;
    memcpy(header + 8, hint, KMS_KEY_HINT_LEN);
    return kms_buf_put(out, kms_span_of(header, sizeof header));
}

enum kms_status kms_envelope_aad(struct kms_span header, struct kms_span key_id,
                                 struct kms_buf *ret_aad)
{
    enum kms_status status = kms_buf_put(ret_aad, header);
    return status == KMS_OK ? kms_buf_put(ret_aad, key_id) : status;
}

static enum kms_status check_lengths(const struct scheme *scheme, const struct kms_envelope *env,
                                     struct kms_error *err)
{
    if (env->iv.len != scheme->iv_len) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: the IV's length is wrong for %s",
                             kms_alg_name(scheme->alg));
    }
    if (env->ciphertext.len < scheme->ciphertext_min ||
        (env->ciphertext.len - scheme->tag_len) % scheme->ciphertext_block != 0) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: truncated");
    }
    return KMS_OK;
}

enum kms_status kms_envelope_parse(struct kms_span bytes, struct kms_envelope *ret_envelope,
                                   struct kms_error *err)
{
    if (bytes.len > KMS_ENVELOPE_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "envelope: %zu bytes, at most %d", bytes.len,
                             KMS_ENVELOPE_MAX);
    }
    if (bytes.len < sizeof magic || memcmp(bytes.data, magic, sizeof magic) != 0) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: not made by kmsbridge");
    }
    if (bytes.len < KMS_ENVELOPE_HEADER) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: truncated");
    }
    const uint8_t *h = bytes.data;
    const struct scheme *scheme = scheme_find((enum kms_alg)h[4]);
    if (h[3] != FORMAT_VERSION) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: format version %u is not known", h[3]);
    }
    if (scheme == NULL) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: algorithm %u is not known", h[4]);
    }
    if (h[5] != 0 || h[7] != 0) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: flags or extensions are not known");
    }
    struct kms_envelope env = {.alg = scheme->alg};
    env.key_hint = kms_span_of(h + 8, KMS_KEY_HINT_LEN);
    if (kms_span_take(&bytes, KMS_ENVELOPE_HEADER, &env.header) != KMS_OK ||
        kms_span_take(&bytes, h[6], &env.iv) != KMS_OK) {
        return kms_error_set(err, KMS_E_BAD_DATA, "envelope: truncated");
    }
    env.ciphertext = bytes;
    enum kms_status status = check_lengths(scheme, &env, err);
    if (status == KMS_OK) {
        *ret_envelope = env;
    }
    return status;
}
