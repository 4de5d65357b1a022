/* SPDX-License-Identifier: Apache-2.0 */
/* Lengths that a token's algorithms come to, known without asking: one row an algorithm. */
#include "pkcs11/core/token.h"

#define BLOCK   16
#define TAG_LEN 16 /* kms_params.tag_len 0 */

enum grows {
    GROWS_NOT,
    GROWS_TAG,      /* by params.tag_len */
    GROWS_PAD,      /* to the next whole block, always by 1 to 16 bytes (PKCS#7) */
    GROWS_WRAP,     /* by 8 (RFC 3394) */
    GROWS_WRAP_PAD, /* to a multiple of 8, and by 8 (RFC 5649) */
    GROWS_MODULUS,  /* to the RSA modulus, whatever comes in */
    GROWS_SEALED    /* as the service likes, and its frame */
};

static const struct grow_row {
    enum kms_alg alg;
    enum grows grows;
} grow_rows[] = {
    {KMS_ALG_AES_GCM, GROWS_TAG},
    {KMS_ALG_CHACHA20_POLY1305, GROWS_TAG},
    {KMS_ALG_AES_CBC, GROWS_NOT},
    {KMS_ALG_AES_CTR, GROWS_NOT},
    {KMS_ALG_AES_CBC_PAD, GROWS_PAD},
    {KMS_ALG_AES_KEY_WRAP, GROWS_WRAP},
    {KMS_ALG_AES_KEY_WRAP_PAD, GROWS_WRAP_PAD},
    {KMS_ALG_RSA_OAEP_SHA1, GROWS_MODULUS},
    {KMS_ALG_RSA_OAEP_L_SHA256, GROWS_MODULUS},
    {KMS_ALG_RSA_OAEP_L_SHA384, GROWS_MODULUS},
    {KMS_ALG_RSA_OAEP_L_SHA512, GROWS_MODULUS},
    {KMS_ALG_RSA_PKCS1, GROWS_MODULUS},
    {KMS_ALG_RSA_RAW, GROWS_MODULUS},
    {KMS_ALG_BEST, GROWS_SEALED},
};

static const struct mac_row {
    enum kms_alg alg;
    size_t len;
} mac_rows[] = {
    {KMS_ALG_HMAC_SHA1, 20},   {KMS_ALG_HMAC_SHA224, 28}, {KMS_ALG_HMAC_SHA256, 32},
    {KMS_ALG_HMAC_SHA384, 48}, {KMS_ALG_HMAC_SHA512, 64}, {KMS_ALG_EDDSA, 64},
};

static enum grows grows_of(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(grow_rows) / sizeof(grow_rows[0]); i++) {
        if (grow_rows[i].alg == alg) {
            return grow_rows[i].grows;
        }
    }
    return GROWS_SEALED;
}

static size_t bytes_of_key(const struct kms_token_use *use)
{
    return ((size_t)use->key->bits + 7) / 8;
}

static size_t tag_len(const struct kms_token_use *use)
{
    return use->params.tag_len == 0 ? TAG_LEN : use->params.tag_len;
}

/* A service's own blob may be the base64 text of what others give as bytes (Alibaba Cloud KMS's).
 */
static size_t text_room(const struct kms_token_use *use, size_t len)
{
    return kms_alg_set_has(&use->key->algs, KMS_ALG_SEALED) ? len / 3 + 4 : 0;
}

size_t kms_token_encrypted_room(const struct kms_token_use *use, size_t len)
{
    switch (grows_of(use->params.alg)) {
    case GROWS_NOT:
        return len;
    case GROWS_TAG:
        return len + tag_len(use);
    case GROWS_PAD:
        return (len / BLOCK + 1) * BLOCK;
    case GROWS_WRAP:
        return len + 8;
    case GROWS_WRAP_PAD:
        return (len + 7) / 8 * 8 + 8;
    case GROWS_MODULUS:
        return bytes_of_key(use);
    case GROWS_SEALED:
    default:
        return len + text_room(use, len) + KMS_SEALED_ROOM;
    }
}

size_t kms_token_decrypted_room(const struct kms_token_use *use, size_t len)
{
    size_t less = 0;

    switch (grows_of(use->params.alg)) {
    case GROWS_TAG:
        less = tag_len(use);
        break;
    case GROWS_WRAP:
    case GROWS_WRAP_PAD:
        less = 8;
        break;
    case GROWS_MODULUS:
        return bytes_of_key(use);
    case GROWS_NOT:
    case GROWS_PAD:
    case GROWS_SEALED:
    default:
        break;
    }
    return len < less ? 0 : len - less;
}

bool kms_token_decrypted_exact(const struct kms_token_use *use)
{
    enum grows grows = grows_of(use->params.alg);

    return grows == GROWS_NOT || grows == GROWS_TAG || grows == GROWS_WRAP;
}

size_t kms_token_signature_room(const struct kms_token_use *use)
{
    for (size_t i = 0; i < sizeof(mac_rows) / sizeof(mac_rows[0]); i++) {
        if (mac_rows[i].alg == use->params.alg) {
            return mac_rows[i].len;
        }
    }
    return use->params.alg == KMS_ALG_ECDSA ? 2 * bytes_of_key(use) : bytes_of_key(use);
}
