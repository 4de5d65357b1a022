/* SPDX-License-Identifier: Apache-2.0 */
/* AsymmetricSign over a SHA-256 digest; verifying is local, by the public key. */
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>
#include <string.h>

#include "backend/alibaba_parts.h"

#define DIGEST_LEN    32
#define EC_HALF       32 /* P-256 */
#define SIGNATURE_MAX 1024

static const struct scheme {
    enum kms_alg alg;
    const char *name; /* Algorithm */
    const char *key;  /* OpenSSL's name of the key's type */
    int padding;
    enum { DIGEST, DIGEST_INFO, MESSAGE } input;
} schemes[] = {
    {KMS_ALG_RSA_PKCS1, "RSA_PKCS1_SHA_256", "RSA", RSA_PKCS1_PADDING, DIGEST_INFO},
    {KMS_ALG_RSA_PKCS1_SHA256, "RSA_PKCS1_SHA_256", "RSA", RSA_PKCS1_PADDING, MESSAGE},
    {KMS_ALG_RSA_PSS_SHA256, "RSA_PSS_SHA_256", "RSA", RSA_PKCS1_PSS_PADDING, DIGEST},
    {KMS_ALG_ECDSA, "ECDSA_SHA_256", "EC", 0, DIGEST},
};

/* RFC 8017 9.2, note 1: DigestInfo of SHA-256, but for the digest. */
static const uint8_t digest_info[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

static enum kms_status scheme_of(const struct kms_params *params, const struct scheme **ret,
                                 struct kms_error *err)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (schemes[i].alg == params->alg) {
            *ret = &schemes[i];
            return KMS_OK;
        }
    }
    return kms_error_set(err, KMS_E_UNSUPPORTED, "Alibaba Cloud KMS has no %s",
                         kms_alg_name(params->alg));
}

/* The digest that the service is to sign. */
static enum kms_status digest_of(const struct scheme *scheme, struct kms_span input,
                                 uint8_t ret_digest[EVP_MAX_MD_SIZE], struct kms_error *err)
{
    if (scheme->input == MESSAGE) {
        return EVP_Digest(input.data == NULL ? (const uint8_t *)"" : input.data, input.len,
                          ret_digest, NULL, EVP_sha256(), NULL) == 1
                   ? KMS_OK
                   : kms_error_set(err, KMS_E_INTERNAL, "OpenSSL refused to hash");
    }
    if (scheme->input == DIGEST_INFO) {
        if (input.len != sizeof(digest_info) + DIGEST_LEN ||
            memcmp(input.data, digest_info, sizeof(digest_info)) != 0) {
            return kms_error_set(err, KMS_E_UNSUPPORTED,
                                 "Alibaba Cloud KMS signs a DigestInfo of SHA-256 only");
        }
        input = kms_span_of(input.data + sizeof(digest_info), DIGEST_LEN);
    }
    if (input.len != DIGEST_LEN) {
        return kms_error_set(err, KMS_E_INVALID,
                             "Alibaba Cloud KMS signs digests of %d bytes, not %zu", DIGEST_LEN,
                             input.len);
    }
    memcpy(ret_digest, input.data, DIGEST_LEN);
    return KMS_OK;
}

/* ---- ECDSA's two forms -------------------------------------------------------------------- */

enum kms_status kms_ali_ecdsa_raw(struct kms_span der, size_t half, struct kms_buf *out)
{
    const uint8_t *at = der.data;
    uint8_t raw[2 * 66];
    ECDSA_SIG *sig = NULL;
    uint8_t *again = NULL;
    int len = 0;
    enum kms_status status = KMS_E_BAD_DATA;

    if (der.len == 0 || der.len > SIGNATURE_MAX || half > sizeof(raw) / 2) {
        return KMS_E_BAD_DATA;
    }
    sig = d2i_ECDSA_SIG(NULL, &at, (long)der.len);
    len = sig == NULL ? 0 : i2d_ECDSA_SIG(sig, &again);
    /* nothing behind it, and no other form than DER's */
    if (len > 0 && kms_span_equal(der, kms_span_of(again, (size_t)len)) &&
        BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, (int)half) == (int)half &&
        BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + half, (int)half) == (int)half) {
        status = kms_buf_put(out, kms_span_of(raw, 2 * half));
    }
    OPENSSL_free(again);
    ECDSA_SIG_free(sig);
    return status;
}

/* r || s as DER; 0: it is none. The caller frees *ret_der with OPENSSL_free(). */
static size_t ecdsa_der(struct kms_span raw, uint8_t **ret_der)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.data, EC_HALF, NULL);
    BIGNUM *s = BN_bin2bn(raw.data + EC_HALF, EC_HALF, NULL);
    int len = 0;

    if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* the signature's */
        len = i2d_ECDSA_SIG(sig, ret_der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len > 0 ? (size_t)len : 0;
}

/* ---- sign --------------------------------------------------------------------------------- */

/*
 * ECDSA's form is DER as far as is known; the documentation does not say. r || s is taken, too, but
 * only once the public key has shown that it is one: *ret_doubtful.
 */
static enum kms_status put_ecdsa(struct kms_call *call, const struct kms_ali_reply *reply,
                                 struct kms_span value, struct kms_buf *ret_signature,
                                 bool *ret_doubtful)
{
    enum kms_status status = kms_ali_ecdsa_raw(value, EC_HALF, ret_signature);

    if (status == KMS_E_BAD_DATA && value.len == (size_t)2 * EC_HALF) {
        *ret_doubtful = true;
        status = kms_buf_put(ret_signature, value);
    }
    if (status == KMS_E_BAD_DATA) {
        return kms_ali_protocol(call, reply, "AsymmetricSign", "holds no ECDSA signature");
    }
    return status;
}

/* As long as one of the moduli that there are: how long the key's is would be another question. */
static enum kms_status put_rsa(struct kms_call *call, const struct kms_ali_reply *reply,
                               struct kms_span value, struct kms_buf *ret_signature)
{
    if (value.len != 2048 / 8 && value.len != 3072 / 8 && value.len != 4096 / 8) {
        return kms_ali_protocol(call, reply, "AsymmetricSign", "holds no RSA signature");
    }
    return kms_buf_put(ret_signature, value);
}

static enum kms_status read_signature(struct kms_call *call, const struct kms_ali_reply *reply,
                                      const struct kms_ali_ref *key, const struct scheme *scheme,
                                      struct kms_buf *ret_signature, bool *ret_doubtful)
{
    uint8_t storage[SIGNATURE_MAX];
    struct kms_buf value = KMS_BUF_OVER(storage);
    const char *version = NULL;
    enum kms_status status = kms_ali_check_key(call, reply, "AsymmetricSign", key->key, &version);

    if (status == KMS_OK && strcmp(version, key->version) != 0) {
        status = kms_ali_protocol(call, reply, "AsymmetricSign", "is about another key version");
    }
    if (status == KMS_OK) {
        status = kms_json_base64(&reply->root, "Value", &value, &call->error);
    }
    if (status == KMS_OK) {
        status = strcmp(scheme->key, "EC") == 0
                     ? put_ecdsa(call, reply, kms_buf_span(&value), ret_signature, ret_doubtful)
                     : put_rsa(call, reply, kms_buf_span(&value), ret_signature);
    }
    return status == KMS_E_TOO_LARGE
               ? kms_error_set(&call->error, status, "a signature has no room")
               : status;
}

enum kms_status kms_ali_sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span input,
                             struct kms_buf *ret_signature)
{
    struct kms_ali_ask ask = {.action = "AsymmetricSign"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_blob text = {.data = NULL};
    const struct scheme *scheme = NULL;
    struct kms_ali_ref key;
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t start = ret_signature->len;
    bool doubtful = false;
    enum kms_status status = scheme_of(params, &scheme, &call->error);

    if (status == KMS_OK && params->salt_given && params->salt_len != DIGEST_LEN) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                               "Alibaba Cloud KMS signs with a salt of %d bytes, not %u",
                               DIGEST_LEN, params->salt_len);
    }
    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, &key, &call->error);
    }
    if (status == KMS_OK) {
        status = digest_of(scheme, input, digest, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_base64(kms_span_of(digest, DIGEST_LEN), &text, &call->error);
    }
    if (status == KMS_OK) {
        kms_ali_param_text(&ask, "KeyId", key.key);
        kms_ali_param_text(&ask, "KeyVersionId", key.version);
        kms_ali_param_text(&ask, "Algorithm", scheme->name);
        kms_ali_param(&ask, "Digest", kms_blob_span(&text));
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_signature(call, &reply, &key, scheme, ret_signature, &doubtful);
    }
    if (status == KMS_OK && doubtful) {
        status =
            kms_ali_verify(b, call, ref, params, input,
                           kms_span_of(ret_signature->data + start, ret_signature->len - start));
    }
    if (status != KMS_OK) {
        ret_signature->len = start;
    }
    if (status == KMS_E_BAD_DATA) {
        kms_error_clear(&call->error);
        status = kms_ali_protocol(call, &reply, ask.action, "holds no signature of this key");
    }
    kms_ali_reply_done(call, &reply);
    kms_blob_done(&text);
    return status;
}

/* ---- verify ------------------------------------------------------------------------------- */

static bool verifies(EVP_PKEY *key, const struct scheme *scheme, const struct kms_params *params,
                     const uint8_t *digest, struct kms_span signature)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool good = ctx != NULL && EVP_PKEY_verify_init(ctx) == 1;

    if (good && scheme->padding != 0) {
        good = EVP_PKEY_CTX_set_rsa_padding(ctx, scheme->padding) == 1;
    }
    good = good && EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1;
    if (good && scheme->padding == RSA_PKCS1_PSS_PADDING) {
        unsigned salt = params->salt_given ? params->salt_len : DIGEST_LEN;

        good = salt <= SIGNATURE_MAX && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, (int)salt) == 1;
    }
    good = good && EVP_PKEY_verify(ctx, signature.data, signature.len, digest, DIGEST_LEN) == 1;
    EVP_PKEY_CTX_free(ctx);
    return good;
}

enum kms_status kms_ali_verify(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_span signature)
{
    const struct scheme *scheme = NULL;
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t *der = NULL;
    EVP_PKEY *key = NULL;
    enum kms_status status = KMS_OK;

    if (kms_ali_is_mac(params->alg)) {
        return kms_ali_verify_mac(b, call, ref, params, input, signature);
    }
    status = scheme_of(params, &scheme, &call->error);
    if (status == KMS_OK) {
        status = digest_of(scheme, input, digest, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_public(b, call, ref, &key);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (!EVP_PKEY_is_a(key, scheme->key)) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED, "%s is not for this key",
                               kms_alg_name(params->alg));
        goto out;
    }
    if (strcmp(scheme->key, "EC") == 0) {
        size_t len = signature.len == 2 * EC_HALF ? ecdsa_der(signature, &der) : 0;

        signature = kms_span_of(der, len);
    }
    if (signature.len == 0 || !verifies(key, scheme, params, digest, signature)) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA, "the signature does not verify");
    }
out:
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    return status;
}
