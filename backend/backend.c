/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

#include <string.h>

static const struct {
    enum kms_alg alg;
    const char *name;
} algs[] = {
    {KMS_ALG_NONE, "none"},
    {KMS_ALG_AES_GCM, "aes-gcm"},
    {KMS_ALG_RSA_OAEP_SHA256, "rsa-oaep-sha256"},
    {KMS_ALG_AES_CBC_HMAC, "aes-cbc-hmac"},
    {KMS_ALG_SEALED, "sealed"},
    {KMS_ALG_CHACHA20_POLY1305, "chacha20-poly1305"},
    {KMS_ALG_BEST, "best"},
    {KMS_ALG_AES_CBC, "aes-cbc"},
    {KMS_ALG_AES_CBC_PAD, "aes-cbc-pad"},
    {KMS_ALG_AES_CTR, "aes-ctr"},
    {KMS_ALG_AES_KEY_WRAP, "aes-key-wrap"},
    {KMS_ALG_AES_KEY_WRAP_PAD, "aes-key-wrap-pad"},
    {KMS_ALG_RSA_OAEP_SHA1, "rsa-oaep-sha1"},
    {KMS_ALG_RSA_PKCS1, "rsa-pkcs1"},
    {KMS_ALG_RSA_PKCS1_SHA256, "rsa-pkcs1-sha256"},
    {KMS_ALG_RSA_PKCS1_SHA384, "rsa-pkcs1-sha384"},
    {KMS_ALG_RSA_PKCS1_SHA512, "rsa-pkcs1-sha512"},
    {KMS_ALG_RSA_PSS_SHA256, "rsa-pss-sha256"},
    {KMS_ALG_RSA_PSS_SHA384, "rsa-pss-sha384"},
    {KMS_ALG_RSA_PSS_SHA512, "rsa-pss-sha512"},
    {KMS_ALG_RSA_OAEP_L_SHA256, "rsa-oaep-l-sha256"},
    {KMS_ALG_RSA_OAEP_L_SHA384, "rsa-oaep-l-sha384"},
    {KMS_ALG_RSA_OAEP_L_SHA512, "rsa-oaep-l-sha512"},
    {KMS_ALG_RSA_RAW, "rsa-raw"},
    {KMS_ALG_RSA_PSS_SHA1, "rsa-pss-sha1"},
    {KMS_ALG_RSA_PSS_SHA224, "rsa-pss-sha224"},
    {KMS_ALG_ECDSA, "ecdsa"},
    {KMS_ALG_EDDSA, "eddsa"},
    {KMS_ALG_HMAC_SHA1, "hmac-sha1"},
    {KMS_ALG_HMAC_SHA256, "hmac-sha256"},
    {KMS_ALG_HMAC_SHA384, "hmac-sha384"},
    {KMS_ALG_HMAC_SHA512, "hmac-sha512"},
    {KMS_ALG_HMAC_SHA224, "hmac-sha224"},
    {KMS_ALG_SHA256_ALONE, "sha256-alone"},
};

static const char *const key_types[KMS_KEY_TYPE_COUNT] = {
    [KMS_KEY_AES] = "aes", [KMS_KEY_GENERIC] = "generic", [KMS_KEY_RSA] = "rsa",
    [KMS_KEY_EC] = "ec",   [KMS_KEY_EDDSA] = "eddsa",     [KMS_KEY_CHACHA20] = "chacha20",
    [KMS_KEY_SM4] = "sm4",
};

const char *kms_alg_name(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(algs) / sizeof(algs[0]); i++) {
        if (algs[i].alg == alg) {
            return algs[i].name;
        }
    }
    return "unknown";
}

const char *kms_key_type_name(enum kms_key_type type)
{
    return (unsigned)type < KMS_KEY_TYPE_COUNT ? key_types[type] : "unknown";
}

struct kms_span kms_key_tag_significant(struct kms_span tag)
{
    while (tag.len > 0 && tag.data[0] == 0) {
        tag.data++;
        tag.len--;
    }
    return tag;
}

int kms_key_tag_compare(struct kms_span a, struct kms_span b)
{
    a = kms_key_tag_significant(a);
    b = kms_key_tag_significant(b);
    if (a.len != b.len) {
        return a.len < b.len ? -1 : 1;
    }
    return a.len == 0 ? 0 : memcmp(a.data, b.data, a.len);
}

int kms_key_age_compare(const struct kms_key_info *a, const struct kms_key_info *b)
{
    int order = 0;

    if (a->order != b->order) {
        return a->order < b->order ? -1 : 1;
    }
    order = kms_key_tag_compare(kms_span_of(a->tag, a->tag_len), kms_span_of(b->tag, b->tag_len));
    return order != 0 ? order : strcmp(a->id, b->id);
}
