/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_token.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/soft.h"
#include "pkcs11/core/store.h"

#define OBJECTS_MAX 256
#define HANDLE_BASE 1000

struct fake_token fake;

static struct kms_object *objects[OBJECTS_MAX];
static size_t object_count;
static const uint8_t secret[32] = "0123456789abcdef0123456789abcde";
static EVP_PKEY *pairs[FAKE_KEYS]; /* made once: RSA is slow */

/* ---- slot ----------------------------------------------------------------------------------- */

struct kms_call kms_slot_call(const struct kms_slot *slot)
{
    (void)slot;
    return (struct kms_call){.deadline_ns = UINT64_MAX};
}

CK_RV kms_slot_error(const struct kms_slot *slot, const struct kms_call *call, enum kms_data data)
{
    static const CK_RV bad[] = {
        [KMS_DATA_NONE] = CKR_DATA_INVALID,
        [KMS_DATA_PLAIN] = CKR_DATA_INVALID,
        [KMS_DATA_ENCRYPTED] = CKR_ENCRYPTED_DATA_INVALID,
        [KMS_DATA_SIGNATURE] = CKR_SIGNATURE_INVALID,
        [KMS_DATA_WRAPPED] = CKR_WRAPPED_KEY_INVALID,
        [KMS_DATA_AEAD] = CKR_AEAD_DECRYPT_FAILED,
    };

    (void)slot;
    return call->error.status == KMS_E_BAD_DATA ? bad[data] : CKR_DEVICE_ERROR;
}

/* ---- store ---------------------------------------------------------------------------------- */

CK_RV kms_store_get(struct kms_slot *slot, CK_OBJECT_HANDLE handle, struct kms_object **ret_object)
{
    struct kms_object *object = fake_object(handle);

    (void)slot;
    if (object == NULL) {
        return CKR_OBJECT_HANDLE_INVALID;
    }
    *ret_object = kms_object_ref(object);
    return CKR_OK;
}

CK_RV kms_store_version(struct kms_slot *slot, const struct kms_object *key, struct kms_span key_id,
                        struct kms_object **ret_version)
{
    for (size_t i = 0; i < FAKE_KEYS; i++) {
        struct kms_span id = KMS_SPAN_NONE;

        if (fake.key[i]->class == key->class && slot == &fake.slot &&
            kms_attrs_get(fake.key[i]->attrs, CKA_KMSBRIDGE_KEY_ID, &id) &&
            kms_span_equal(id, key_id)) {
            *ret_version = kms_object_ref(fake.key[i]);
            return CKR_OK;
        }
    }
    return CKR_KEY_HANDLE_INVALID;
}

CK_RV kms_store_add(struct kms_slot *slot, struct kms_session *session, struct kms_object *object,
                    CK_OBJECT_HANDLE *ret_handle)
{
    (void)slot;
    (void)session;
    if (object_count == OBJECTS_MAX) {
        kms_object_unref(object);
        return CKR_HOST_MEMORY;
    }
    objects[object_count] = object;
    object->handle = HANDLE_BASE + object_count++;
    *ret_handle = object->handle;
    return CKR_OK;
}

CK_RV kms_store_add_token_key(struct kms_slot *slot, const struct kms_key_info *info,
                              struct kms_span spki, CK_OBJECT_HANDLE *ret_key,
                              CK_OBJECT_HANDLE *ret_public)
{
    (void)slot;
    (void)info;
    *ret_key = 1;
    *ret_public = spki.len > 0 ? 2 : CK_INVALID_HANDLE;
    return CKR_OK;
}

void kms_store_forget(struct kms_slot *slot, struct kms_object *object)
{
    (void)slot;
    for (size_t i = 0; i < object_count; i++) {
        if (objects[i] == object) {
            objects[i] = NULL;
            kms_object_unref(object);
        }
    }
}

struct kms_object *fake_object(CK_OBJECT_HANDLE handle)
{
    return handle >= HANDLE_BASE && handle - HANDLE_BASE < object_count
               ? objects[handle - HANDLE_BASE]
               : NULL;
}

size_t fake_objects(void)
{
    size_t count = 0;

    for (size_t i = 0; i < object_count; i++) {
        count += objects[i] != NULL;
    }
    return count;
}

/* ---- the token's ops ------------------------------------------------------------------------ */

static enum kms_status enter(struct kms_call *call, unsigned *count, size_t len)
{
    fake.requests++;
    (*count)++;
    fake.longest = len > fake.longest ? len : fake.longest;
    return fake.fail == KMS_OK ? KMS_OK : kms_error_set(&call->error, fake.fail, "as told");
}

static enum kms_status bad(struct kms_call *call, const char *what)
{
    return kms_error_set(&call->error, KMS_E_BAD_DATA, "%s", what);
}

static const EVP_CIPHER *cipher_of(enum kms_alg alg)
{
    switch (alg) {
    case KMS_ALG_AES_CBC:
    case KMS_ALG_AES_CBC_PAD:
        return EVP_aes_256_cbc();
    case KMS_ALG_AES_CTR:
        return EVP_aes_256_ctr();
    case KMS_ALG_AES_KEY_WRAP:
        return EVP_aes_256_wrap();
    case KMS_ALG_AES_KEY_WRAP_PAD:
        return EVP_aes_256_wrap_pad();
    default:
        return EVP_aes_256_gcm();
    }
}

/* One call of EVP over all of it; @tag of AES-GCM, in or out. */
static bool crypt(const struct kms_params *params, enum kms_alg alg, struct kms_span iv,
                  bool encrypt, struct kms_span in, uint8_t *out, size_t *out_len, uint8_t *tag,
                  int tag_len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool gcm = alg == KMS_ALG_AES_GCM;
    int len = 0;
    int tail = 0;
    bool good = ctx != NULL;

    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    good = good && EVP_CipherInit_ex(ctx, cipher_of(alg), NULL, NULL, NULL, encrypt ? 1 : 0) == 1;
    if (gcm) {
        good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_IVLEN, (int)iv.len, NULL) == 1;
    }
    good = good && EVP_CipherInit_ex(ctx, NULL, NULL, secret, iv.len == 0 ? NULL : iv.data,
                                     encrypt ? 1 : 0) == 1;
    (void)EVP_CIPHER_CTX_set_padding(ctx, alg == KMS_ALG_AES_CBC_PAD ? 1 : 0);
    if (good && gcm && params->aad.len > 0) {
        good = EVP_CipherUpdate(ctx, NULL, &len, params->aad.data, (int)params->aad.len) == 1;
    }
    if (good && gcm && !encrypt) {
        good = EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, tag_len, tag) == 1;
    }
    len = 0;
    good = good && (in.len == 0 || EVP_CipherUpdate(ctx, out, &len, in.data, (int)in.len) == 1);
    good = good && EVP_CipherFinal_ex(ctx, out + len, &tail) == 1;
    if (good && gcm && encrypt) {
        good = EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, tag_len, tag) == 1;
    }
    EVP_CIPHER_CTX_free(ctx);
    *out_len = (size_t)(len + tail);
    return good;
}

static int tag_len_of(const struct kms_params *params)
{
    return params->tag_len == 0 ? 16 : (int)params->tag_len;
}

static enum kms_status seal(struct kms_call *call, const struct kms_params *params,
                            struct kms_span in, struct kms_sealed *ret)
{
    enum kms_alg alg = params->alg == KMS_ALG_BEST ? KMS_ALG_AES_GCM : params->alg;
    struct kms_span iv = params->iv;
    uint8_t fresh[12];

    if ((alg == KMS_ALG_AES_KEY_WRAP || alg == KMS_ALG_AES_KEY_WRAP_PAD) && iv.len > 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "takes no IV");
    }
    if (alg == KMS_ALG_AES_GCM && fake.own_iv_only && iv.len > 0) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "own IV only");
    }
    if (alg == KMS_ALG_AES_GCM && iv.len == 0) {
        (void)RAND_bytes(fresh, sizeof(fresh));
        iv = kms_span_of(fresh, sizeof(fresh));
    }
    if (ret->ciphertext.cap < in.len + 1024 ||
        !crypt(params, alg, iv, true, in, ret->ciphertext.data, &ret->ciphertext.len,
               ret->ciphertext.data + in.len, tag_len_of(params))) {
        return kms_error_set(&call->error, KMS_E_INVALID, "cannot encrypt");
    }
    ret->ciphertext.len += alg == KMS_ALG_AES_GCM ? (size_t)tag_len_of(params) : 0;
    if (kms_buf_put(&ret->iv, iv) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_INTERNAL, "no room for the IV");
    }
    if (fake.lies && iv.len > 0) {
        ret->iv.data[0] ^= 1;
        ret->ciphertext.len--;
    }
    ret->alg = alg;
    (void)snprintf(ret->key_id, sizeof(ret->key_id), "id-aes");
    return KMS_OK;
}

static enum kms_status open_sealed(struct kms_call *call, const struct kms_params *params,
                                   struct kms_span in, struct kms_buf *ret)
{
    uint8_t *room = malloc(in.len + 64);
    uint8_t tag[16] = {0};
    size_t tag_len = params->alg == KMS_ALG_AES_GCM ? (size_t)tag_len_of(params) : 0;
    enum kms_status status = KMS_OK;
    size_t len = 0;

    if (room == NULL) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no memory");
    }
    if (in.len < tag_len) {
        free(room);
        return bad(call, "too short");
    }
    memcpy(tag, in.data + in.len - tag_len, tag_len);
    if (!crypt(params, params->alg, params->iv, false, kms_span_of(in.data, in.len - tag_len), room,
               &len, tag, (int)tag_len)) {
        status = bad(call, "does not verify");
    } else if (kms_buf_put(ret, kms_span_of(room, len)) != KMS_OK) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE, "no room");
    }
    free(room);
    return status;
}

/* ---- RSA, EC -------------------------------------------------------------------------------- */

static EVP_PKEY *pair_of(const char *ref)
{
    return strcmp(ref, "rsa") == 0  ? pairs[FAKE_RSA]
           : strcmp(ref, "ec") == 0 ? pairs[FAKE_EC]
                                    : pairs[FAKE_ED];
}

static bool is_pair(const char *ref)
{
    return strcmp(ref, "rsa") == 0 || strcmp(ref, "ec") == 0 || strcmp(ref, "ed") == 0;
}

static enum kms_status rsa_open(struct kms_call *call, const struct kms_params *params,
                                struct kms_span in, struct kms_buf *ret)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pairs[FAKE_RSA], NULL);
    uint8_t out[512];
    size_t len = sizeof(out);
    bool oaep = params->alg != KMS_ALG_RSA_PKCS1;
    bool good =
        EVP_PKEY_decrypt_init(ctx) == 1 &&
        EVP_PKEY_CTX_set_rsa_padding(ctx, oaep ? RSA_PKCS1_OAEP_PADDING : RSA_PKCS1_PADDING) == 1;

    if (oaep) {
        const EVP_MD *md = params->alg == KMS_ALG_RSA_OAEP_L_SHA256 ? EVP_sha256() : EVP_sha1();

        good = good && EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) == 1 &&
               EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1;
    }
    good = good && EVP_PKEY_decrypt(ctx, out, &len, in.data, in.len) == 1 &&
           kms_buf_put(ret, kms_span_of(out, len)) == KMS_OK;
    EVP_PKEY_CTX_free(ctx);
    return good ? KMS_OK : bad(call, "does not open");
}

static bool ecdsa_raw(const uint8_t *der, size_t der_len, uint8_t raw[64])
{
    const uint8_t *at = der;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)der_len);
    bool good = sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32) == 32 &&
                BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32) == 32;

    ECDSA_SIG_free(sig);
    return good;
}

static bool sign_digest(const char *ref, const struct kms_params *params, struct kms_span in,
                        uint8_t *out, size_t *len)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pair_of(ref), NULL);
    bool rsa = strcmp(ref, "rsa") == 0;
    bool good = EVP_PKEY_sign_init(ctx) == 1;

    if (rsa && params->alg == KMS_ALG_RSA_PSS_SHA256) {
        good = good && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, params->salt_given ? (int)params->salt_len
                                                                        : 32) == 1;
    } else if (rsa) {
        good = good && EVP_PKEY_CTX_set_rsa_padding(ctx, params->alg == KMS_ALG_RSA_RAW
                                                             ? RSA_NO_PADDING
                                                             : RSA_PKCS1_PADDING) == 1;
    }
    good = good && EVP_PKEY_sign(ctx, out, len, in.data, in.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    return good;
}

static bool sign_message(const char *ref, const EVP_MD *md, struct kms_span in, uint8_t *out,
                         size_t *len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = EVP_DigestSignInit(ctx, NULL, md, NULL, pair_of(ref)) == 1 &&
                EVP_DigestSign(ctx, out, len, in.data, in.len) == 1;

    EVP_MD_CTX_free(ctx);
    return good;
}

/* ---- the table ------------------------------------------------------------------------------ */

static enum kms_status op_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span in,
                                  struct kms_sealed *ret)
{
    enum kms_status status = enter(call, &fake.encrypts, in.len);

    (void)b;
    (void)ref;
    return status == KMS_OK ? seal(call, params, in, ret) : status;
}

static enum kms_status op_wrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span in,
                               struct kms_sealed *ret)
{
    enum kms_status status = enter(call, &fake.wraps, in.len);

    (void)b;
    (void)ref;
    if (params->alg == KMS_ALG_BEST) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "to encrypt only");
    }
    return status == KMS_OK ? seal(call, params, in, ret) : status;
}

static enum kms_status op_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span in,
                                  struct kms_buf *ret)
{
    enum kms_status status = enter(call, &fake.decrypts, in.len);

    (void)b;
    if (status != KMS_OK) {
        return status;
    }
    return is_pair(ref) ? rsa_open(call, params, in, ret) : open_sealed(call, params, in, ret);
}

static enum kms_status op_unwrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span in,
                                 struct kms_buf *ret)
{
    enum kms_status status = enter(call, &fake.unwraps, in.len);

    (void)b;
    if (status != KMS_OK) {
        return status;
    }
    return is_pair(ref) ? rsa_open(call, params, in, ret) : open_sealed(call, params, in, ret);
}

static enum kms_status op_data_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                   const struct kms_params *params, size_t len,
                                   struct kms_buf *ret_key, struct kms_sealed *ret)
{
    enum kms_status status = enter(call, &fake.data_keys, len);

    (void)b;
    (void)ref;
    if (status != KMS_OK) {
        return status;
    }
    if (fake.no_data_keys) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "none like this");
    }
    memset(ret_key->data, 0x5d, len);
    ret_key->len = fake.lies ? len - 1 : len;
    return seal(call, params, kms_span_of(ret_key->data, len), ret);
}

static enum kms_status op_sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span in,
                               struct kms_buf *ret)
{
    enum kms_status status = enter(call, &fake.signs, in.len);
    uint8_t out[512];
    uint8_t raw[64];
    size_t len = sizeof(out);
    bool good = false;

    (void)b;
    if (status != KMS_OK) {
        return status;
    }
    if (params->alg == KMS_ALG_EDDSA) {
        good = sign_message(ref, NULL, in, out, &len);
    } else if (params->alg == KMS_ALG_RSA_PKCS1_SHA256) {
        good = sign_message(ref, EVP_sha256(), in, out, &len);
    } else {
        good = sign_digest(ref, params, in, out, &len);
    }
    if (good && params->alg == KMS_ALG_ECDSA) {
        good = ecdsa_raw(out, len, raw);
        memcpy(out, raw, sizeof(raw));
        len = sizeof(raw);
    }
    return good && kms_buf_put(ret, kms_span_of(out, len)) == KMS_OK
               ? KMS_OK
               : kms_error_set(&call->error, KMS_E_INVALID, "cannot sign");
}

static enum kms_status op_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span in,
                              struct kms_buf *ret)
{
    enum kms_status status = enter(call, &fake.macs, in.len);
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    (void)b;
    (void)ref;
    (void)params;
    if (status != KMS_OK) {
        return status;
    }
    (void)HMAC(EVP_sha256(), secret, sizeof(secret), in.data, in.len, out, &len);
    return kms_buf_put(ret, kms_span_of(out, len));
}

static enum kms_status op_verify(struct kms_backend *b, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span in,
                                 struct kms_span signature)
{
    enum kms_status status = enter(call, &fake.verifies, in.len);
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    (void)b;
    (void)ref;
    (void)params;
    if (status != KMS_OK) {
        return status;
    }
    (void)HMAC(EVP_sha256(), secret, sizeof(secret), in.data, in.len, out, &len);
    return kms_span_equal(signature, kms_span_of(out, len)) ? KMS_OK : bad(call, "differs");
}

static enum kms_status op_generate(struct kms_backend *b, struct kms_call *call,
                                   const struct kms_key_template *tmpl, struct kms_key_info *ret)
{
    enum kms_status status = enter(call, &fake.generates, 0);

    (void)b;
    if (status != KMS_OK) {
        return status;
    }
    fake.generated = *tmpl;
    (void)snprintf(fake.generated_label, sizeof(fake.generated_label), "%s", tmpl->label);
    if (tmpl->tag.len > 0) {
        memcpy(fake.generated_tag, tmpl->tag.data, tmpl->tag.len);
    }
    (void)snprintf(ret->ref, sizeof(ret->ref), "made");
    ret->type = tmpl->type;
    return KMS_OK;
}

static enum kms_status op_destroy(struct kms_backend *b, struct kms_call *call, const char *ref)
{
    (void)b;
    (void)ref;
    return enter(call, &fake.destroys, 0);
}

static enum kms_status op_public_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                     struct kms_buf *ret)
{
    uint8_t *at = ret->data;

    (void)b;
    (void)call;
    (void)ref;
    ret->len = (size_t)i2d_PUBKEY(pairs[FAKE_EC], &at);
    return KMS_OK;
}

static const struct kms_backend_ops ops = {
    .type = "fake",
    .encrypt = op_encrypt,
    .decrypt = op_decrypt,
    .wrap = op_wrap,
    .unwrap = op_unwrap,
    .data_key = op_data_key,
    .sign = op_sign,
    .verify = op_verify,
    .mac = op_mac,
    .generate = op_generate,
    .destroy = op_destroy,
    .public_key = op_public_key,
};

/* ---- keys ----------------------------------------------------------------------------------- */

static const struct fake_row {
    const char *ref;
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE type;
    unsigned bits;
    enum kms_alg algs[10];
    CK_ATTRIBUTE_TYPE uses[6];
} fake_rows[FAKE_KEYS] = {
    [FAKE_AES] = {"aes",
                  CKO_SECRET_KEY,
                  CKK_AES,
                  256,
                  {KMS_ALG_AES_GCM, KMS_ALG_AES_CBC, KMS_ALG_AES_CBC_PAD, KMS_ALG_AES_CTR,
                   KMS_ALG_AES_KEY_WRAP, KMS_ALG_AES_KEY_WRAP_PAD},
                  {CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP}},
    [FAKE_AES_CBC_PAD_ONLY] =
        {"aes", CKO_SECRET_KEY, CKK_AES, 256, {KMS_ALG_AES_CBC_PAD}, {CKA_ENCRYPT, CKA_DECRYPT}},
    [FAKE_MAC] = {"mac",
                  CKO_SECRET_KEY,
                  CKK_GENERIC_SECRET,
                  256,
                  {KMS_ALG_HMAC_SHA256},
                  {CKA_SIGN, CKA_VERIFY}},
    [FAKE_MAC_VERIFY_ONLY] =
        {"mac", CKO_SECRET_KEY, CKK_GENERIC_SECRET, 256, {KMS_ALG_HMAC_SHA256}, {CKA_VERIFY}},
    [FAKE_RSA] = {"rsa",
                  CKO_PRIVATE_KEY,
                  CKK_RSA,
                  2048,
                  {KMS_ALG_RSA_PKCS1, KMS_ALG_RSA_PSS_SHA256, KMS_ALG_RSA_OAEP_SHA1,
                   KMS_ALG_RSA_OAEP_L_SHA256, KMS_ALG_RSA_RAW},
                  {CKA_SIGN, CKA_DECRYPT, CKA_UNWRAP}},
    [FAKE_RSA_WHOLE] =
        {"rsa", CKO_PRIVATE_KEY, CKK_RSA, 2048, {KMS_ALG_RSA_PKCS1_SHA256}, {CKA_SIGN}},
    [FAKE_EC] = {"ec", CKO_PRIVATE_KEY, CKK_EC, 256, {KMS_ALG_ECDSA}, {CKA_SIGN}},
    [FAKE_ED] = {"ed", CKO_PRIVATE_KEY, CKK_EC_EDWARDS, 255, {KMS_ALG_EDDSA}, {CKA_SIGN}},
};

static void make_pairs(void)
{
    if (pairs[FAKE_RSA] == NULL) {
        pairs[FAKE_RSA] = EVP_RSA_gen(2048);
        pairs[FAKE_EC] = EVP_EC_gen("P-256");
        pairs[FAKE_ED] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    }
}

static struct kms_object *make_private(const struct fake_row *row)
{
    struct kms_object *object = kms_object_new();

    object->class = row->class;
    object->key_type = row->type;
    object->bits = row->bits;
    object->on_token = true;
    object->is_private = true;
    object->slot = &fake.slot;
    (void)snprintf(object->ref, sizeof(object->ref), "%s", row->ref);
    for (size_t i = 0; i < 10 && row->algs[i] != KMS_ALG_NONE; i++) {
        kms_alg_set_add(&object->algs, row->algs[i]);
    }
    for (size_t i = 0; i < 6 && row->uses[i] != 0; i++) {
        (void)kms_attrs_set_bool(object->attrs, row->uses[i], true);
    }
    (void)kms_attrs_set(object->attrs, CKA_KMSBRIDGE_KEY_ID, "id-aes", 6);
    return object;
}

static struct kms_object *make_public(enum fake_key which)
{
    struct kms_object *object = make_private(&fake_rows[which]);
    uint8_t der[1024];
    uint8_t *at = der;
    int len = i2d_PUBKEY(pairs[which], &at);

    object->class = CKO_PUBLIC_KEY;
    object->is_private = false;
    (void)kms_soft_key_from_spki(kms_span_of(der, (size_t)len), &object->soft);
    (void)kms_attrs_set_bool(object->attrs, CKA_VERIFY, true);
    (void)kms_attrs_set_bool(object->attrs, CKA_ENCRYPT, true);
    (void)kms_attrs_set_bool(object->attrs, CKA_WRAP, true);
    return object;
}

void fake_begin(void)
{
    memset(&fake, 0, sizeof(fake));
    make_pairs();
    fake.slot.ops = &ops;
    atomic_init(&fake.slot.open, true);
    fake.slot.token.info.generates = (1u << KMS_KEY_TYPE_COUNT) - 1;
    fake.session.slot = &fake.slot;
    fake.session.handle = 1;
    fake.session.rw = true;
    for (unsigned i = 0; i < FAKE_KEYS; i++) {
        fake.key[i] = make_private(&fake_rows[i]);
        if (pairs[i] != NULL) {
            fake.public_key[i] = make_public((enum fake_key)i);
        }
    }
}

void fake_end(void)
{
    for (unsigned i = 0; i < FAKE_KEYS; i++) {
        kms_object_unref(fake.key[i]);
        kms_object_unref(fake.public_key[i]);
    }
    for (size_t i = 0; i < object_count; i++) {
        kms_object_unref(objects[i]);
    }
    object_count = 0;
}
