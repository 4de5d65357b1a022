/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about a token's key. */
#include "pkcs11/core/token.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/store.h"

#define ROOM        1024 /* what sealing may add, see struct kms_sealed */
#define SMALL       2048 /* a ciphertext that the stack takes */
#define MODULUS_MAX 2048
#define TAG_LEAST   12 /* bytes (NIST SP 800-38D, 5.2.1.2, for general use) */
#define PKCS1_LEAST 11 /* bytes of padding (RFC 8017, 9.2) */

/* ---- the key and the parameter -------------------------------------------------------------- */

static bool has(const struct kms_token_use *use, enum kms_alg alg)
{
    return kms_alg_set_has(&use->key->algs, alg);
}

/* What KMS_ALG_BEST comes to with a secret key; KMS_ALG_NONE: the key seals by none of them. */
static enum kms_alg best_of(const struct kms_token_use *use)
{
    static const enum kms_alg algs[] = {KMS_ALG_AES_GCM, KMS_ALG_AES_CBC_HMAC,
                                        KMS_ALG_CHACHA20_POLY1305, KMS_ALG_SEALED, KMS_ALG_BEST};

    for (size_t i = 0; i < sizeof(algs) / sizeof(algs[0]); i++) {
        if (has(use, algs[i])) {
            return algs[i];
        }
    }
    return KMS_ALG_NONE;
}

/* The usual IVs of RFC 3394 and RFC 5649, which need not be said. */
static bool is_usual_wrap_iv(const struct kms_token_use *use)
{
    static const uint8_t rfc3394[8] = {0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6};
    static const uint8_t rfc5649[4] = {0xa6, 0x59, 0x59, 0xa6};

    return use->mech->kind == KMS_MECH_KEY_WRAP &&
           (kms_span_equal(use->params.iv, kms_span_of(rfc3394, sizeof(rfc3394))) ||
            kms_span_equal(use->params.iv, kms_span_of(rfc5649, sizeof(rfc5649))));
}

static CK_RV copy_params(struct kms_token_use *use)
{
    if (use->params.alg == KMS_ALG_AES_GCM && use->params.tag_len < TAG_LEAST) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "%s: with a token's key a tag has at least 96 bits", use->mech->name);
    }
    if (is_usual_wrap_iv(use)) {
        use->params.iv.len = 0;
    }
    if (use->params.iv.len > sizeof(use->iv) || use->params.aad.len > sizeof(use->aad)) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "%s: with a token's key an IV has at most %d bytes, an AAD %d",
                              use->mech->name, KMS_IV_MAX, KMS_AAD_MAX);
    }
    if (use->params.iv.len > 0) {
        memcpy(use->iv, use->params.iv.data, use->params.iv.len);
    }
    if (use->params.aad.len > 0) {
        memcpy(use->aad, use->params.aad.data, use->params.aad.len);
    }
    use->params.iv.data = use->iv;
    use->params.aad.data = use->aad;
    return CKR_OK;
}

CK_RV kms_token_use_init(struct kms_token_use *use, const struct kms_mech *mech,
                         const CK_MECHANISM *mechanism, const struct kms_object *key)
{
    CK_RV rv = CKR_OK;

    use->key = key;
    use->mech = mech;
    use->hash = NULL;
    rv = kms_mech_params(mech, mechanism, &use->params);
    if (rv != CKR_OK) {
        return rv;
    }
    if (mech->kind != KMS_MECH_HMAC) {
        use->hash = kms_hash_by_name(mech->hash);
    }
    if (mech->whole != KMS_ALG_NONE && !has(use, use->params.alg) && has(use, mech->whole)) {
        use->params.alg = mech->whole; /* the service hashes itself */
        use->hash = NULL;
    }
    if (use->params.alg == KMS_ALG_NONE) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID, "%s: not with a token's key",
                              mech->name);
    }
    use->sealed = use->params.alg == KMS_ALG_BEST;
    if (use->sealed ? best_of(use) == KMS_ALG_NONE : !has(use, use->params.alg)) {
        return kms_p11_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "%s: key %s has no %s on its token",
                              mech->name, key->ref, kms_alg_name(use->params.alg));
    }
    return copy_params(use);
}

/* ---- encrypt, decrypt ----------------------------------------------------------------------- */

static CK_RV cannot(const struct kms_token_use *use)
{
    return kms_p11_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "%s: this token cannot do that",
                          use->mech->name);
}

/*
 * The service refuses what the key was found able to do. So it is not the mechanism: it is the
 * parameter (an IV, a tag's length, a label, an AAD, a salt), or the input's length. A sealed AAD
 * is only ever unsupported.
 */
static CK_RV refused(const struct kms_token_use *use, const struct kms_call *call,
                     enum kms_data data)
{
    const struct kms_params *p = &use->params;
    const bool told = p->iv.len > 0 || p->tag_len > 0 || p->aad.len > 0 || p->salt_given;
    const enum kms_status status = call->error.status;

    if (told && (status == KMS_E_UNSUPPORTED || (status == KMS_E_INVALID && !use->sealed))) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "%s: the service refuses the parameter: %s", use->mech->name,
                              call->error.text);
    }
    if (status == KMS_E_INVALID && (data == KMS_DATA_PLAIN || data == KMS_DATA_SIGNATURE)) {
        return kms_p11_refuse(CKR_DATA_LEN_RANGE, "%s: %s", use->mech->name, call->error.text);
    }
    return kms_slot_error(use->key->slot, call, data);
}

/* A reply that is not what was asked for is not passed on. */
static CK_RV accept(struct kms_token_use *use, const struct kms_sealed *sealed, size_t len,
                    struct kms_buf *ret_iv, struct kms_buf *out)
{
    struct kms_span ciphertext = kms_buf_span(&sealed->ciphertext);
    struct kms_span iv = kms_buf_span(&sealed->iv);

    if (use->sealed) {
        return kms_sealed_pack(sealed, out);
    }
    if (sealed->alg != use->params.alg || ciphertext.len != kms_token_encrypted_room(use, len) ||
        (use->params.iv.len > 0 && iv.len > 0 && !kms_span_equal(iv, use->params.iv))) {
        return kms_p11_refuse(CKR_DEVICE_ERROR, "%s: the reply is not what was asked for",
                              use->mech->name);
    }
    if (ret_iv != NULL && kms_buf_put(ret_iv, iv) != KMS_OK) {
        return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID,
                              "%s: the service's IV has %zu bytes, which pIv has not",
                              use->mech->name, iv.len);
    }
    return kms_buf_put(out, ciphertext) == KMS_OK ? CKR_OK : CKR_GENERAL_ERROR;
}

static CK_RV encrypt_into(struct kms_token_use *use, enum kms_token_op how, struct kms_span in,
                          struct kms_sealed *sealed)
{
    struct kms_slot *slot = use->key->slot;
    struct kms_call call = kms_slot_call(slot);
    struct kms_params params = use->params;
    enum kms_status status = KMS_OK;

    if (use->sealed && how == KMS_TOKEN_WRAP) {
        params.alg = best_of(use); /* the waist has KMS_ALG_BEST to encrypt only */
    }
    if ((how == KMS_TOKEN_WRAP ? slot->ops->wrap : slot->ops->encrypt) == NULL) {
        return cannot(use);
    }
    status = (how == KMS_TOKEN_WRAP ? slot->ops->wrap : slot->ops->encrypt)(
        slot->backend, &call, use->key->ref, &params, in, sealed);
    return status == KMS_OK ? CKR_OK : refused(use, &call, KMS_DATA_PLAIN);
}

CK_RV kms_token_encrypt(struct kms_token_use *use, enum kms_token_op how, struct kms_span in,
                        struct kms_buf *ret_iv, struct kms_buf *out)
{
    uint8_t small[SMALL];
    uint8_t iv[KMS_IV_MAX];
    size_t cap = use->sealed ? kms_token_encrypted_room(use, in.len) : in.len + ROOM;
    uint8_t *data = cap <= sizeof(small) ? small : malloc(cap);
    struct kms_sealed sealed = {
        .alg = KMS_ALG_NONE, .iv = KMS_BUF_OVER(iv), .ciphertext = kms_buf_over(data, cap)};
    CK_RV rv = CKR_HOST_MEMORY;

    if (data != NULL) {
        rv = encrypt_into(use, how, in, &sealed);
    }
    if (rv == CKR_OK) {
        rv = accept(use, &sealed, in.len, ret_iv, out);
    }
    if (data != small) {
        free(data);
    }
    return rv;
}

CK_RV kms_token_data_key(struct kms_token_use *use, size_t len, struct kms_buf *ret_key,
                         struct kms_buf *ret_wrapped)
{
    struct kms_slot *slot = use->key->slot;
    struct kms_call call = kms_slot_call(slot);
    struct kms_params params = use->params;
    uint8_t bytes[SMALL];
    uint8_t iv[KMS_IV_MAX];
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(bytes)};
    struct kms_buf key = kms_buf_over(ret_key->data + ret_key->len, kms_buf_room(ret_key));
    enum kms_status status = KMS_OK;
    CK_RV rv = CKR_OK;

    if (!slot->token.info.data_keys || slot->ops->data_key == NULL) {
        return CKR_FUNCTION_NOT_SUPPORTED;
    }
    params.alg = best_of(use);
    status = slot->ops->data_key(slot->backend, &call, use->key->ref, &params, len, &key, &sealed);
    if (status == KMS_E_UNSUPPORTED) {
        return kms_p11_refuse(CKR_FUNCTION_NOT_SUPPORTED, "%s: %s", use->mech->name,
                              call.error.text);
    }
    if (status != KMS_OK) {
        return kms_slot_error(slot, &call, KMS_DATA_PLAIN);
    }
    rv = key.len == len ? kms_sealed_pack(&sealed, ret_wrapped) : CKR_DEVICE_ERROR;
    if (rv != CKR_OK) {
        kms_wipe(key.data, key.len);
        return rv;
    }
    ret_key->len += len;
    return CKR_OK;
}

/*
 * The key that a frame names: ours, or another version of it, for whoever has a key of this label
 * may open what any of its versions has sealed.
 */
static CK_RV find_version(const struct kms_token_use *use, enum kms_token_op how,
                          struct kms_span key_id, struct kms_object **ret_version)
{
    const CK_ATTRIBUTE_TYPE right = how == KMS_TOKEN_WRAP ? CKA_UNWRAP : CKA_DECRYPT;
    struct kms_object *version = NULL;
    struct kms_span id = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    if (!kms_attrs_get(use->key->attrs, CKA_KMSBRIDGE_KEY_ID, &id) || id.len == 0 ||
        kms_span_equal(id, key_id)) {
        return CKR_OK;
    }
    rv = kms_store_version(use->key->slot, use->key, key_id, &version);
    if (rv == CKR_KEY_HANDLE_INVALID) {
        return kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "%s: sealed with key %.*s, not with %s",
                              use->mech->name, (int)key_id.len, (const char *)key_id.data,
                              use->key->ref);
    }
    if (rv == CKR_OK) {
        rv = kms_object_may(version, right, use->mech->type);
    }
    if (rv != CKR_OK) {
        kms_object_unref(version);
        return rv;
    }
    *ret_version = version;
    return CKR_OK;
}

/* What is to be opened and how: a frame says it itself. @ret_version: NULL for the key in use. */
static CK_RV open_frame(const struct kms_token_use *use, enum kms_token_op how, struct kms_span *in,
                        struct kms_params *params, struct kms_object **ret_version)
{
    struct kms_sealed_frame frame = {.alg = 0};
    struct kms_object *version = NULL;
    const struct kms_object *key = use->key;
    CK_RV rv = CKR_OK;

    if (kms_alg_set_has(&key->algs, KMS_ALG_SEALED)) { /* the service's blob, without a frame */
        params->alg = KMS_ALG_SEALED;
        return CKR_OK;
    }
    rv = kms_sealed_unpack(*in, &frame);
    if (rv == CKR_OK) {
        rv = find_version(use, how, frame.key_id, &version);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    key = version != NULL ? version : use->key;
    if (frame.alg == KMS_ALG_BEST || frame.alg >= 128 ||
        !kms_alg_set_has(&key->algs, (enum kms_alg)frame.alg)) {
        rv = kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "%s: sealed by %s, which key %s has not",
                            use->mech->name, kms_alg_name((enum kms_alg)frame.alg), key->ref);
        kms_object_unref(version);
        return rv;
    }
    params->alg = (enum kms_alg)frame.alg;
    params->iv = frame.iv;
    *in = frame.ciphertext;
    *ret_version = version;
    return CKR_OK;
}

CK_RV kms_token_decrypt(struct kms_token_use *use, enum kms_token_op how, bool aead,
                        struct kms_span in, struct kms_buf *out)
{
    struct kms_slot *slot = use->key->slot;
    struct kms_call call = kms_slot_call(slot);
    struct kms_params params = use->params;
    struct kms_buf plain = kms_buf_over(out->data + out->len, kms_buf_room(out));
    struct kms_object *version = NULL;
    CK_RV rv = use->sealed ? open_frame(use, how, &in, &params, &version) : CKR_OK;

    if (rv != CKR_OK) {
        return rv;
    }
    if ((how == KMS_TOKEN_WRAP ? slot->ops->unwrap : slot->ops->decrypt) == NULL) {
        rv = cannot(use);
    } else if ((how == KMS_TOKEN_WRAP ? slot->ops->unwrap : slot->ops->decrypt)(
                   slot->backend, &call, version != NULL ? version->ref : use->key->ref, &params,
                   in, &plain) != KMS_OK) {
        rv = refused(use, &call,
                     aead                    ? KMS_DATA_AEAD
                     : how == KMS_TOKEN_WRAP ? KMS_DATA_WRAPPED
                                             : KMS_DATA_ENCRYPTED);
    } else {
        out->len += plain.len;
    }
    kms_object_unref(version);
    return rv;
}

/* ---- sign, verify --------------------------------------------------------------------------- */

/* What a service that signs digests of SHA-256 alone would refuse, refused here. */
static CK_RV check_digest(const struct kms_token_use *use, struct kms_span in)
{
    const struct kms_hash *hash = kms_hash_by_name("SHA256");

    if (!has(use, KMS_ALG_SHA256_ALONE)) {
        return CKR_OK;
    }
    if (use->params.alg == KMS_ALG_RSA_PKCS1 &&
        (in.len != hash->info.len + hash->len ||
         memcmp(in.data, hash->info.data, hash->info.len) != 0)) {
        return kms_p11_refuse(CKR_DATA_INVALID, "%s: this token signs a DigestInfo of SHA-256 only",
                              use->mech->name);
    }
    if (use->params.alg == KMS_ALG_ECDSA && in.len != hash->len) {
        return kms_p11_refuse(CKR_DATA_LEN_RANGE, "%s: this token signs digests of %zu bytes only",
                              use->mech->name, hash->len);
    }
    return CKR_OK;
}

/* The input as the waist wants it: in a DigestInfo, filled up to the modulus, or as it is. */
static CK_RV sign_input(const struct kms_token_use *use, struct kms_span in,
                        struct kms_buf *scratch, struct kms_span *ret)
{
    size_t modulus = ((size_t)use->key->bits + 7) / 8;
    CK_RV rv = CKR_OK;

    *ret = in;
    if (use->params.alg == KMS_ALG_RSA_PKCS1) {
        if (use->hash != NULL) {
            rv = kms_buf_put(scratch, use->hash->info) == KMS_OK &&
                         kms_buf_put(scratch, in) == KMS_OK
                     ? CKR_OK
                     : CKR_GENERAL_ERROR;
            *ret = kms_buf_span(scratch);
        }
        return rv == CKR_OK && ret->len + PKCS1_LEAST > modulus ? CKR_DATA_LEN_RANGE : rv;
    }
    if (use->params.alg == KMS_ALG_RSA_RAW) {
        if (in.len > modulus || modulus > scratch->cap) {
            return CKR_DATA_LEN_RANGE;
        }
        memset(scratch->data, 0, modulus - in.len);
        memcpy(scratch->data + modulus - in.len, in.data, in.len);
        *ret = kms_span_of(scratch->data, modulus);
    }
    return CKR_OK;
}

CK_RV kms_token_sign(struct kms_token_use *use, struct kms_span in, struct kms_buf *out)
{
    struct kms_slot *slot = use->key->slot;
    struct kms_call call = kms_slot_call(slot);
    bool mac = use->key->class == CKO_SECRET_KEY;
    uint8_t bytes[MODULUS_MAX];
    uint8_t made[KMS_SIGNATURE_MAX];
    struct kms_buf scratch = KMS_BUF_OVER(bytes);
    struct kms_buf signature = KMS_BUF_OVER(made);
    struct kms_span input = KMS_SPAN_NONE;
    CK_RV rv = sign_input(use, in, &scratch, &input);

    if (rv != CKR_OK) {
        return kms_p11_refuse(rv, "%s: %zu bytes are too many for this key", use->mech->name,
                              in.len);
    }
    rv = check_digest(use, input);
    if (rv != CKR_OK) {
        return rv;
    }
    if ((mac ? slot->ops->mac : slot->ops->sign) == NULL) {
        return cannot(use);
    }
    if ((mac ? slot->ops->mac : slot->ops->sign)(slot->backend, &call, use->key->ref, &use->params,
                                                 input, &signature) != KMS_OK) {
        return refused(use, &call, KMS_DATA_PLAIN);
    }
    if (signature.len != kms_token_signature_room(use) ||
        kms_buf_put(out, kms_buf_span(&signature)) != KMS_OK) {
        rv = kms_p11_refuse(CKR_DEVICE_ERROR, "%s: a signature of %zu bytes was not expected",
                            use->mech->name, signature.len);
    }
    kms_wipe(made, sizeof(made)); /* a MAC may be a key */
    return rv;
}

CK_RV kms_token_verify(struct kms_token_use *use, struct kms_span in, struct kms_span signature)
{
    struct kms_slot *slot = use->key->slot;
    struct kms_call call = kms_slot_call(slot);
    uint8_t bytes[MODULUS_MAX];
    struct kms_buf scratch = KMS_BUF_OVER(bytes);
    struct kms_span input = KMS_SPAN_NONE;
    CK_RV rv = sign_input(use, in, &scratch, &input);

    if (rv != CKR_OK) {
        return rv;
    }
    if (slot->ops->verify == NULL) {
        return cannot(use);
    }
    if (slot->ops->verify(slot->backend, &call, use->key->ref, &use->params, input, signature) !=
        KMS_OK) {
        return refused(use, &call, KMS_DATA_SIGNATURE);
    }
    return CKR_OK;
}
