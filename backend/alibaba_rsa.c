/* SPDX-License-Identifier: Apache-2.0 */
/* Public keys, which never change and are kept, and RSA-OAEP: encrypting needs the public key
 * alone and is done here, decrypting is AsymmetricDecrypt. */
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "backend/alibaba_parts.h"

#define PEM_MAX 8192

/* ---- public keys -------------------------------------------------------------------------- */

static EVP_PKEY *kept(struct kms_backend *b, const char *ref)
{
    EVP_PKEY *key = NULL;

    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; key == NULL && i < KMS_ALI_PUBLIC_MAX; i++) {
        if (b->publics[i].key != NULL && strcmp(b->publics[i].ref, ref) == 0 &&
            EVP_PKEY_up_ref(b->publics[i].key) == 1) {
            key = b->publics[i].key;
        }
    }
    pthread_mutex_unlock(&b->lock);
    return key;
}

static void keep(struct kms_backend *b, const char *ref, EVP_PKEY *key)
{
    EVP_PKEY *former = NULL;

    if (strlen(ref) >= KMS_KEY_REF_MAX || EVP_PKEY_up_ref(key) != 1) {
        return;
    }
    pthread_mutex_lock(&b->lock);
    struct kms_ali_public *slot = &b->publics[b->next_public++ % KMS_ALI_PUBLIC_MAX];

    former = slot->key;
    slot->key = key;
    memcpy(slot->ref, ref, strlen(ref) + 1);
    pthread_mutex_unlock(&b->lock);
    EVP_PKEY_free(former);
}

void kms_ali_publics_done(struct kms_backend *b)
{
    for (size_t i = 0; i < KMS_ALI_PUBLIC_MAX; i++) {
        EVP_PKEY_free(b->publics[i].key);
        b->publics[i].key = NULL;
    }
}

static EVP_PKEY *read_pem(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)strlen(pem));
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return key;
}

static enum kms_status fetch_public(struct kms_backend *b, struct kms_call *call,
                                    const struct kms_ali_ref *ref, EVP_PKEY **ret_key)
{
    struct kms_ali_ask ask = {.action = "GetPublicKey"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    const char *version = NULL;
    const char *pem = NULL;
    EVP_PKEY *key = NULL;
    enum kms_status status = KMS_OK;

    kms_ali_param_text(&ask, "KeyId", ref->key);
    kms_ali_param_text(&ask, "KeyVersionId", ref->version);
    status = kms_ali_call(b, call, &ask, &reply);
    if (status == KMS_OK) {
        status = kms_ali_check_key(call, &reply, ask.action, ref->key, &version);
    }
    if (status == KMS_OK && strcmp(version, ref->version) != 0) {
        status = kms_ali_protocol(call, &reply, ask.action, "is about another key version");
    }
    if (status == KMS_OK) {
        status = kms_json_text(&reply.root, "PublicKey", PEM_MAX, &pem, &call->error);
    }
    if (status == KMS_OK) {
        key = read_pem(pem);
        status = key != NULL ? KMS_OK
                             : kms_ali_protocol(call, &reply, ask.action, "holds no public key");
    }
    if (status == KMS_OK) {
        *ret_key = key;
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

enum kms_status kms_ali_public(struct kms_backend *b, struct kms_call *call, const char *ref,
                               EVP_PKEY **ret_key)
{
    struct kms_ali_ref parsed;
    EVP_PKEY *key = kept(b, ref);
    enum kms_status status = KMS_OK;

    if (key == NULL) {
        status = kms_ali_ref_parse(ref, &parsed, &call->error);
        if (status == KMS_OK) {
            status = fetch_public(b, call, &parsed, &key);
        }
        if (status != KMS_OK) {
            return status;
        }
        keep(b, ref, key);
    }
    *ret_key = key;
    return KMS_OK;
}

enum kms_status kms_ali_public_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                   struct kms_buf *ret_spki)
{
    EVP_PKEY *key = NULL;
    uint8_t *der = NULL;
    int len = 0;
    enum kms_status status = kms_ali_public(b, call, ref, &key);

    if (status != KMS_OK) {
        return status;
    }
    len = i2d_PUBKEY(key, &der);
    if (len <= 0 || kms_buf_put(ret_spki, kms_span_of(der, (size_t)len)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "a public key has no room");
    }
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    return status;
}

/* ---- RSA-OAEP ----------------------------------------------------------------------------- */

static const struct oaep {
    enum kms_alg alg;
    const char *name; /* Algorithm */
    const char *hash;
    size_t hash_len;
} oaeps[] = {
    {KMS_ALG_RSA_OAEP_SHA1, "RSAES_OAEP_SHA_1", "SHA1", 20},
    {KMS_ALG_RSA_OAEP_L_SHA256, "RSAES_OAEP_SHA_256", "SHA256", 32},
};

static enum kms_status oaep_of(const struct kms_params *params, const struct oaep **ret,
                               struct kms_error *err)
{
    if (params->aad.len != 0) { /* never silently dropped */
        return kms_error_set(err, KMS_E_INVALID, "Alibaba Cloud KMS has no label for RSA-OAEP");
    }
    for (size_t i = 0; i < sizeof(oaeps) / sizeof(oaeps[0]); i++) {
        if (oaeps[i].alg == params->alg) {
            *ret = &oaeps[i];
            return KMS_OK;
        }
    }
    return kms_error_set(err, KMS_E_UNSUPPORTED, "Alibaba Cloud KMS has no %s",
                         kms_alg_name(params->alg));
}

static bool encrypt_locally(EVP_PKEY *key, const struct oaep *oaep, struct kms_span plaintext,
                            struct kms_buf *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    size_t len = kms_buf_room(out);
    bool good =
        ctx != NULL && EVP_PKEY_encrypt_init(ctx) == 1 &&
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
        EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, oaep->hash, NULL) == 1 &&
        EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, oaep->hash, NULL) == 1 &&
        EVP_PKEY_encrypt(ctx, out->data + out->len, &len, plaintext.data, plaintext.len) == 1;

    EVP_PKEY_CTX_free(ctx);
    out->len += good ? len : 0;
    return good;
}

enum kms_status kms_ali_rsa_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                    const struct kms_params *params, struct kms_span plaintext,
                                    struct kms_sealed *ret_sealed)
{
    const struct oaep *oaep = NULL;
    struct kms_ali_ref parsed;
    EVP_PKEY *key = NULL;
    size_t room = 0;
    enum kms_status status = oaep_of(params, &oaep, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, &parsed, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_public(b, call, ref, &key);
    }
    if (status != KMS_OK) {
        return status;
    }
    room = (size_t)EVP_PKEY_get_size(key);
    if (!EVP_PKEY_is_a(key, "RSA")) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED, "key %s is no RSA key", parsed.key);
    } else if (plaintext.len == 0) {
        status = kms_error_set(&call->error, KMS_E_INVALID,
                               "Alibaba Cloud KMS decrypts no empty plaintext");
    } else if (plaintext.len + 2 * oaep->hash_len + 2 > room) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "RSA-OAEP with this key takes at most %zu bytes, not %zu",
                               room - 2 * oaep->hash_len - 2, plaintext.len);
    } else if (!encrypt_locally(key, oaep, plaintext, &ret_sealed->ciphertext) ||
               !kms_ali_identity(parsed.key, parsed.version, ret_sealed->key_id)) {
        status = kms_error_set(&call->error, KMS_E_INTERNAL, "OpenSSL refused to encrypt");
    } else {
        ret_sealed->alg = params->alg;
    }
    EVP_PKEY_free(key);
    return status;
}

enum kms_status kms_ali_rsa_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                    const struct kms_params *params, struct kms_span ciphertext,
                                    struct kms_buf *ret_plaintext)
{
    struct kms_ali_ask ask = {.action = "AsymmetricDecrypt"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_blob text = {.data = NULL};
    const struct oaep *oaep = NULL;
    struct kms_ali_ref key;
    const char *version = NULL;
    enum kms_status status = oaep_of(params, &oaep, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, &key, &call->error);
    }
    if (status == KMS_OK && (ciphertext.len < 128 || ciphertext.len > 512)) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA,
                               "a ciphertext of %zu bytes is of no RSA key", ciphertext.len);
    }
    if (status == KMS_OK) {
        status = kms_ali_base64(ciphertext, &text, &call->error);
    }
    if (status == KMS_OK) {
        kms_ali_param_text(&ask, "KeyId", key.key);
        kms_ali_param_text(&ask, "KeyVersionId", key.version);
        kms_ali_param_text(&ask, "Algorithm", oaep->name);
        kms_ali_param(&ask, "CiphertextBlob", kms_blob_span(&text));
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = kms_ali_check_key(call, &reply, ask.action, key.key, &version);
    }
    if (status == KMS_OK && strcmp(version, key.version) != 0) {
        status = kms_ali_protocol(call, &reply, ask.action, "is about another key version");
    }
    if (status == KMS_OK) {
        status = kms_ali_bytes(call, &reply, "Plaintext", ret_plaintext);
    }
    kms_ali_reply_done(call, &reply);
    kms_blob_done(&text);
    return status;
}
