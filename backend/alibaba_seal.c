/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypt, Decrypt, GenerateDataKey and ReEncrypt with symmetric keys: the service's own blob, and
 * the AAD in its encryption context. */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/codec.h"
#include "common/secure.h"

#define AAD_TEXT  "kmsbridge-aad-v1" /* without its NUL */
#define AAD_ENTRY "kmsbridge-aad"
#define AAD_MAX   1024  /* struct kms_params */
#define BLOB_MAX  16384 /* bytes of a ciphertext's text */

/* ---- the encryption context --------------------------------------------------------------- */

/* SHA-256(text || be64(length) || AAD). */
static bool hash_aad(struct kms_span aad, uint8_t ret_hash[EVP_MAX_MD_SIZE])
{
    uint8_t len[8];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = false;

    for (unsigned i = 0; i < sizeof(len); i++) {
        len[i] = (uint8_t)((uint64_t)aad.len >> (56 - 8 * i));
    }
    good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
           EVP_DigestUpdate(ctx, AAD_TEXT, strlen(AAD_TEXT)) == 1 &&
           EVP_DigestUpdate(ctx, len, sizeof(len)) == 1 &&
           EVP_DigestUpdate(ctx, aad.data, aad.len) == 1 &&
           EVP_DigestFinal_ex(ctx, ret_hash, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* "v1:" and base64url of the hash, without padding (RFC 4648 5). */
static bool aad_value(struct kms_span aad, char *ret_text, size_t size)
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    (void)snprintf(ret_text, size, "v1:");
    if (!hash_aad(aad, hash) ||
        kms_base64_encode(kms_span_of(hash, 32), ret_text + 3, size - 3) != KMS_OK) {
        return false;
    }
    for (char *c = ret_text + 3; *c != '\0'; c++) {
        *c = (char)(*c == '+' ? '-' : *c == '/' ? '_' : *c);
        if (*c == '=') {
            *c = '\0';
            break;
        }
    }
    return true;
}

/* "name=value", as the configuration has it. */
static bool put_entry(struct kms_json_out *out, const char *entry)
{
    char name[KMS_ALIBABA_CONTEXT_ENTRY_MAX + 1];
    const char *equals = strchr(entry, '=');

    if (equals == NULL || (size_t)(equals - entry) >= sizeof(name)) {
        return false;
    }
    memcpy(name, entry, (size_t)(equals - entry));
    name[equals - entry] = '\0';
    kms_json_put_text(out, name, equals + 1);
    return true;
}

enum kms_status kms_ali_context(const struct kms_alibaba_conf *ali, struct kms_span aad,
                                char ret_text[KMS_ALI_CONTEXT_MAX], struct kms_error *err)
{
    struct kms_buf buf = kms_buf_over(ret_text, KMS_ALI_CONTEXT_MAX - 1);
    struct kms_json_out out;
    char value[64];
    bool good = true;

    ret_text[0] = '\0';
    if (aad.len == 0 && ali->encryption_context_count == 0) {
        return KMS_OK;
    }
    kms_json_begin(&out, &buf);
    for (unsigned i = 0; good && i < ali->encryption_context_count; i++) {
        good = put_entry(&out, ali->encryption_context[i]);
    }
    if (good && aad.len > 0) {
        good = aad_value(aad, value, sizeof(value));
        kms_json_put_text(&out, AAD_ENTRY, value);
    }
    if (kms_json_end(&out) != KMS_OK || !good) {
        return kms_error_set(err, KMS_E_INVALID, "the encryption context cannot be written");
    }
    ret_text[buf.len] = '\0';
    return KMS_OK;
}

/* ---- what is asked for -------------------------------------------------------------------- */

static enum kms_status check_params(const struct kms_params *params, struct kms_error *err)
{
    if (params->alg != KMS_ALG_SEALED && params->alg != KMS_ALG_BEST) {
        return kms_error_set(err, KMS_E_UNSUPPORTED, "Alibaba Cloud KMS has no %s",
                             kms_alg_name(params->alg));
    }
    if (params->iv.len != 0) {
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "Alibaba Cloud KMS takes no IV: its blob has its own");
    }
    if (params->aad.len > AAD_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "at most %d bytes of AAD, not %zu", AAD_MAX,
                             params->aad.len);
    }
    return KMS_OK;
}

static void put_context(struct kms_ali_ask *ask, const char *name, const char *context)
{
    if (context[0] != '\0') {
        kms_ali_param_text(ask, name, context);
    }
}

/* ---- encrypt ------------------------------------------------------------------------------ */

static enum kms_status read_sealed(struct kms_call *call, const struct kms_ali_reply *reply,
                                   const char *action, const char *key,
                                   struct kms_sealed *ret_sealed)
{
    const char *version = NULL;
    const char *blob = NULL;
    enum kms_status status = kms_ali_check_key(call, reply, action, key, &version);

    if (status == KMS_OK) {
        status = kms_json_text(&reply->root, "CiphertextBlob", BLOB_MAX, &blob, &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (blob[0] == '\0' || !kms_ali_identity(key, version, ret_sealed->key_id)) {
        return kms_ali_protocol(call, reply, action, "holds no ciphertext");
    }
    if (kms_buf_put(&ret_sealed->ciphertext, kms_span_str(blob)) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "a ciphertext of %zu bytes has no room",
                             strlen(blob));
    }
    ret_sealed->alg = KMS_ALG_SEALED;
    return KMS_OK;
}

static enum kms_status check_plaintext(struct kms_span plaintext, struct kms_error *err)
{
    if (plaintext.len == 0) {
        return kms_error_set(err, KMS_E_INVALID, "Alibaba Cloud KMS encrypts no empty plaintext");
    }
    if (plaintext.len > KMS_ALI_PLAINTEXT_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE,
                             "Alibaba Cloud KMS encrypts at most %d bytes, not %zu",
                             KMS_ALI_PLAINTEXT_MAX, plaintext.len);
    }
    return KMS_OK;
}

static bool is_oaep(enum kms_alg alg)
{
    return alg == KMS_ALG_RSA_OAEP_SHA1 || alg == KMS_ALG_RSA_OAEP_L_SHA256;
}

enum kms_status kms_ali_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed)
{
    struct kms_ali_ask ask = {.action = "Encrypt"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_blob text = {.data = NULL};
    struct kms_ali_ref key;
    char context[KMS_ALI_CONTEXT_MAX];
    enum kms_status status = KMS_OK;

    if (is_oaep(params->alg)) {
        return kms_ali_rsa_encrypt(b, call, ref, params, plaintext, ret_sealed);
    }
    status = check_params(params, &call->error);
    if (status == KMS_OK) {
        status = check_plaintext(plaintext, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, &key, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_context(b->ali, params->aad, context, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_base64(plaintext, &text, &call->error);
    }
    if (status == KMS_OK) {
        kms_ali_param_text(&ask, "KeyId", key.key);
        kms_ali_param(&ask, "Plaintext", kms_blob_span(&text));
        put_context(&ask, "EncryptionContext", context);
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_sealed(call, &reply, ask.action, key.key, ret_sealed);
    }
    kms_ali_reply_done(call, &reply);
    kms_blob_done(&text);
    return status;
}

/* ---- decrypt ------------------------------------------------------------------------------ */

/* What is no base64 is none of the service's blobs, and need not be asked for. */
static bool is_blob(struct kms_span text)
{
    size_t padding = 0;

    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=') {
        padding++;
    }
    for (size_t i = 0; i + padding < text.len; i++) {
        uint8_t c = text.data[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/')) {
            return false;
        }
    }
    return text.len >= 4 && text.len % 4 == 0 && text.len <= BLOB_MAX;
}

static enum kms_status read_opened(struct kms_call *call, const struct kms_ali_reply *reply,
                                   const char *key, struct kms_buf *ret_plaintext)
{
    const char *version = NULL;
    enum kms_status status = KMS_OK;

    /* Decrypt takes no key: whose ciphertext it was is known from the reply alone */
    status = kms_json_text(&reply->root, "KeyId", KMS_ALI_ID_MAX - 1, &version, &call->error);
    if (status == KMS_OK && strcmp(version, key) != 0) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA,
                             "the ciphertext was made with another key than %s", key);
    }
    if (status == KMS_OK) {
        status = kms_ali_check_key(call, reply, "Decrypt", key, &version);
    }
    return status == KMS_OK ? kms_ali_bytes(call, reply, "Plaintext", ret_plaintext) : status;
}

/* What opens @ciphertext, as far as it can be told without asking. */
static enum kms_status check_opening(const struct kms_backend *b, struct kms_call *call,
                                     const char *ref, const struct kms_params *params,
                                     struct kms_span ciphertext, struct kms_ali_ref *ret_key,
                                     char ret_context[KMS_ALI_CONTEXT_MAX])
{
    enum kms_status status = check_params(params, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, ret_key, &call->error);
    }
    if (status == KMS_OK && !is_blob(ciphertext)) {
        status = kms_error_set(&call->error, KMS_E_BAD_DATA,
                               "the ciphertext is no blob of Alibaba Cloud KMS");
    }
    return status == KMS_OK ? kms_ali_context(b->ali, params->aad, ret_context, &call->error)
                            : status;
}

enum kms_status kms_ali_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext)
{
    struct kms_ali_ask ask = {.action = "Decrypt"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_ali_ref key;
    char context[KMS_ALI_CONTEXT_MAX];
    enum kms_status status = KMS_OK;

    if (is_oaep(params->alg)) {
        return kms_ali_rsa_decrypt(b, call, ref, params, ciphertext, ret_plaintext);
    }
    status = check_opening(b, call, ref, params, ciphertext, &key, context);
    if (status == KMS_OK) {
        kms_ali_param(&ask, "CiphertextBlob", ciphertext);
        put_context(&ask, "EncryptionContext", context);
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_opened(call, &reply, key.key, ret_plaintext);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

/* ---- data keys ---------------------------------------------------------------------------- */

/* Both halves, or nothing. */
static enum kms_status read_data_key(struct kms_call *call, const struct kms_ali_reply *reply,
                                     const char *key, size_t len, struct kms_buf *ret_key,
                                     struct kms_sealed *ret_sealed)
{
    struct kms_buf bytes = kms_buf_over(ret_key->data + ret_key->len, len);
    struct kms_sealed sealed = *ret_sealed;
    enum kms_status status = kms_ali_bytes(call, reply, "Plaintext", &bytes);

    if ((status == KMS_OK && bytes.len != len) || status == KMS_E_TOO_LARGE) {
        kms_error_clear(&call->error);
        status = kms_ali_protocol(call, reply, "GenerateDataKey", "holds a key of another length");
    }
    if (status == KMS_OK) {
        status = read_sealed(call, reply, "GenerateDataKey", key, &sealed);
    }
    if (status != KMS_OK) {
        kms_wipe(bytes.data, len);
        return status;
    }
    ret_key->len += len;
    *ret_sealed = sealed;
    return KMS_OK;
}

enum kms_status kms_ali_data_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, size_t len,
                                 struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    struct kms_ali_ask ask = {.action = "GenerateDataKey"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_ali_ref key;
    char context[KMS_ALI_CONTEXT_MAX];
    char number[16];
    enum kms_status status = check_params(params, &call->error);

    if (status == KMS_OK) {
        status = kms_ali_ref_parse(ref, &key, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_ali_context(b->ali, params->aad, context, &call->error);
    }
    if (status == KMS_OK) {
        (void)snprintf(number, sizeof(number), "%zu", len);
        kms_ali_param_text(&ask, "KeyId", key.key);
        kms_ali_param_text(&ask, "NumberOfBytes", number);
        put_context(&ask, "EncryptionContext", context);
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_data_key(call, &reply, key.key, len, ret_key, ret_sealed);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

/* ---- rewrap ------------------------------------------------------------------------------- */

/*
 * Which of the two the reply names is not certain (alibaba.h). SourceKeyId says which key it must
 * be, but the vendor promises a comparison for asymmetric keys alone.
 */
enum kms_status kms_ali_rewrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span ciphertext,
                               struct kms_sealed *ret_sealed)
{
    struct kms_ali_ask ask = {.action = "ReEncrypt"};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    struct kms_sealed sealed = *ret_sealed;
    struct kms_ali_ref key;
    char context[KMS_ALI_CONTEXT_MAX];
    enum kms_status status = check_opening(b, call, ref, params, ciphertext, &key, context);

    if (status == KMS_OK) {
        kms_ali_param(&ask, "CiphertextBlob", ciphertext);
        kms_ali_param_text(&ask, "SourceKeyId", key.key);
        put_context(&ask, "SourceEncryptionContext", context);
        kms_ali_param_text(&ask, "DestinationKeyId", key.key);
        put_context(&ask, "DestinationEncryptionContext", context);
        status = kms_ali_call(b, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = read_sealed(call, &reply, ask.action, key.key, &sealed);
    }
    if (status == KMS_OK) {
        *ret_sealed = sealed;
    }
    kms_ali_reply_done(call, &reply);
    return status;
}
