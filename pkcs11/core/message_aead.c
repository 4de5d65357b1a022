/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-GCM by messages: CK_GCM_MESSAGE_PARAMS, an IV that the token or this library makes, the tag
 * apart from the ciphertext.
 *
 * IVs (3.0, 2.14.4.3): CKG_NO_GENERATE uses the caller's. A token key's are the service's own, made
 * whole: others use the key too, and only the service could count. For a session key, the first
 * ulIvFixedBits of what is made are the caller's, and the rest are
 *   CKG_GENERATE, CKG_GENERATE_RANDOM   at least 96 random bits (NIST SP 800-38D, 8.2.2)
 *   CKG_GENERATE_COUNTER                a number (8.2.1), big-endian
 *   CKG_GENERATE_COUNTER_XOR            those of the process's first IV, XOR a number of at most 64
 *                                       bits (TLS 1.3, RFC 8446 5.3)
 * Numbers are the key's, from 0: two sessions with one key never make the same IV from the same
 * fixed bits, or the same first IV. First IVs that differ in the number's bits alone could meet:
 * they are the host's, which must choose one a key. When they are used up it is
 * CKR_TOKEN_RESOURCE_EXCEEDED, for ever.
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/message.h"

#define IV_LEAST           12 /* bytes of a made IV; a service's has as many */
#define TAG_MAX            16
#define COUNTER_BITS_LEAST 16 /* fewer are a mistake */

#ifndef CKR_TOKEN_RESOURCE_EXCEEDED
#define CKR_TOKEN_RESOURCE_EXCEEDED 0x201ul /* 3.0 */
#endif

/* One message's parameter, its pointers the host's. */
struct aead {
    CK_GCM_MESSAGE_PARAMS host;
    bool make_iv;          /* fresh, here or by the service */
    unsigned counter_bits; /* of it, at its end; 0: they are random, or the service's */
    struct kms_span iv;
    struct kms_span aad;
    size_t tag_len;
};

static CK_RV bad(const char *what)
{
    return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID, "CK_GCM_MESSAGE_PARAMS: %s", what);
}

/* The service's. */
static CK_RV check_whole(const struct aead *a)
{
    if (a->host.ivGenerator != CKG_GENERATE && a->host.ivGenerator != CKG_GENERATE_RANDOM) {
        return bad("ivGenerator: a token's key has no counter");
    }
    return a->host.ulIvFixedBits == 0 ? CKR_OK
                                      : bad("ulIvFixedBits: a token's key makes an IV whole");
}

static CK_RV check_parts(struct aead *a)
{
    const CK_ULONG bits = 8 * a->host.ulIvLen;
    const CK_ULONG rest = a->host.ulIvFixedBits < bits ? bits - a->host.ulIvFixedBits : 0;

    switch (a->host.ivGenerator) {
    case CKG_GENERATE:
    case CKG_GENERATE_RANDOM:
        return rest >= 8 * IV_LEAST ? CKR_OK
                                    : bad("ulIvFixedBits: 96 bits at least are made at random");
    case CKG_GENERATE_COUNTER:
    case CKG_GENERATE_COUNTER_XOR:
        a->counter_bits = (unsigned)(rest < 64 ? rest : 64);
        return rest >= COUNTER_BITS_LEAST ? CKR_OK
                                          : bad("ulIvFixedBits: they leave no room to count");
    default:
        return bad("ivGenerator: none");
    }
}

static CK_RV check_generator(const struct kms_operation *op, struct aead *a)
{
    bool here = op->key->soft != NULL;

    if (op->kind == KMS_OPK_MESSAGE_DECRYPT || a->host.ivGenerator == CKG_NO_GENERATE) {
        return CKR_OK;
    }
    if (a->host.ulIvLen < IV_LEAST || (!here && a->host.ulIvLen != IV_LEAST)) {
        return bad("ulIvLen: an IV that is made has 12 bytes, a session key's at least that");
    }
    a->make_iv = true;
    return here ? check_parts(a) : check_whole(a);
}

static CK_RV read_param(const struct kms_operation *op, const void *param, CK_ULONG param_len,
                        struct aead *a)
{
    if (param == NULL || param_len != sizeof(a->host)) {
        return bad("has another size");
    }
    memset(a, 0, sizeof(*a));
    memcpy(&a->host, param, sizeof(a->host));
    if (a->host.pIv == NULL || a->host.ulIvLen == 0 || a->host.ulIvLen > KMS_MESSAGE_IV_MAX) {
        return bad("pIv, ulIvLen: 1 to 128 bytes");
    }
    a->iv = kms_span_of(a->host.pIv, a->host.ulIvLen);
    a->tag_len = a->host.ulTagBits / 8;
    if (a->host.ulTagBits % 8 != 0 || a->tag_len == 0 || a->tag_len > TAG_MAX) {
        return bad("ulTagBits: up to 128 bits, in bytes");
    }
    return check_generator(op, a);
}

/* As C_EncryptInit has it; the tag's length is looked at there. */
static CK_MECHANISM as_gcm(const struct aead *a, CK_GCM_PARAMS *ret_gcm)
{
    CK_MECHANISM mechanism = {CKM_AES_GCM, ret_gcm, sizeof(*ret_gcm)};

    *ret_gcm = (CK_GCM_PARAMS){.pIv = (CK_BYTE_PTR)(uintptr_t)a->iv.data,
                               .ulIvLen = a->iv.len,
                               .ulIvBits = a->iv.len * 8,
                               .pAAD = (CK_BYTE_PTR)(uintptr_t)a->aad.data,
                               .ulAADLen = a->aad.len,
                               .ulTagBits = a->tag_len * 8};
    return mechanism;
}

/* ---- a message whose IV is known, or the service's ------------------------------------------ */

static CK_RV encrypt_here(struct kms_operation *op, const struct aead *a, struct kms_span in,
                          struct kms_buf *out, struct kms_buf *tag)
{
    struct kms_soft_op *soft = NULL;
    CK_GCM_PARAMS gcm;
    CK_MECHANISM mechanism = as_gcm(a, &gcm);
    CK_RV rv = kms_soft_op_new(KMS_SOFT_ENCRYPT, op->mech, &mechanism, op->key->soft, &soft);

    if (rv == CKR_OK) {
        rv = kms_soft_op_update(soft, in, out);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_op_final(soft, tag); /* nothing but the tag is left */
    }
    kms_soft_op_free(soft);
    return rv == CKR_OK && (out->len != in.len || tag->len != a->tag_len) ? CKR_GENERAL_ERROR : rv;
}

static CK_RV decrypt_here(struct kms_operation *op, const struct aead *a, struct kms_span in,
                          struct kms_buf *out)
{
    struct kms_soft_op *soft = NULL;
    CK_GCM_PARAMS gcm;
    CK_MECHANISM mechanism = as_gcm(a, &gcm);
    CK_RV rv = kms_soft_op_new(KMS_SOFT_DECRYPT, op->mech, &mechanism, op->key->soft, &soft);

    if (rv == CKR_OK) {
        rv = kms_soft_op_update(soft, in, out);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_op_update(soft, kms_span_of(a->host.pTag, a->tag_len), out);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_op_final(soft, out);
    }
    kms_soft_op_free(soft);
    return rv == CKR_ENCRYPTED_DATA_INVALID ? CKR_AEAD_DECRYPT_FAILED : rv;
}

static CK_RV begin_use(struct kms_operation *op, const struct aead *a)
{
    CK_GCM_PARAMS gcm;
    CK_MECHANISM mechanism = as_gcm(a, &gcm);
    CK_RV rv = kms_token_use_init(&op->use, op->mech, &mechanism, op->key);

    if (rv == CKR_OK && a->make_iv) {
        op->use.params.iv.len = 0;
    }
    return rv;
}

static CK_RV encrypt_there(struct kms_operation *op, const struct aead *a, struct kms_span in,
                           struct kms_buf *iv, struct kms_buf *out, struct kms_buf *tag)
{
    uint8_t *bytes = kms_secure_new(in.len + TAG_MAX);
    struct kms_buf sealed = kms_buf_over(bytes, in.len + TAG_MAX);
    CK_RV rv = bytes == NULL ? CKR_HOST_MEMORY : begin_use(op, a);

    if (rv == CKR_OK && in.len > KMS_PLAINTEXT_MAX) {
        rv = CKR_DATA_LEN_RANGE;
    }
    if (rv == CKR_OK) {
        rv = kms_token_encrypt(&op->use, KMS_TOKEN_CRYPT, in, a->make_iv ? iv : NULL, &sealed);
    }
    if (rv == CKR_OK &&
        (sealed.len != in.len + a->tag_len || (a->make_iv && iv->len != a->iv.len) ||
         kms_buf_put(out, kms_span_of(bytes, in.len)) != KMS_OK ||
         kms_buf_put(tag, kms_span_of(bytes + in.len, a->tag_len)) != KMS_OK)) {
        rv = kms_p11_refuse(CKR_DEVICE_ERROR, "CKM_AES_GCM: the reply is not what was asked for");
    }
    kms_secure_free(bytes);
    return rv;
}

static CK_RV decrypt_there(struct kms_operation *op, const struct aead *a, struct kms_span in,
                           struct kms_buf *out)
{
    struct kms_gather joined = {.data = NULL};
    CK_RV rv = kms_gather_put(&joined, in, KMS_CIPHERTEXT_MAX, CKR_ENCRYPTED_DATA_LEN_RANGE);

    if (rv == CKR_OK) {
        rv = kms_gather_put(&joined, kms_span_of(a->host.pTag, a->tag_len), KMS_CIPHERTEXT_MAX,
                            CKR_ENCRYPTED_DATA_LEN_RANGE);
    }
    if (rv == CKR_OK) {
        rv = begin_use(op, a);
    }
    if (rv == CKR_OK) {
        rv = kms_token_decrypt(&op->use, KMS_TOKEN_CRYPT, true,
                               kms_span_of(joined.data, joined.len), out);
    }
    kms_gather_done(&joined);
    return rv;
}

/* ---- with the host's buffers ---------------------------------------------------------------- */

/* @bits of @from, from the first one on, over those of @iv. */
static void put_bits(uint8_t *iv, const uint8_t *from, size_t bits)
{
    const uint8_t mask = (uint8_t)(0xff00u >> (bits % 8));

    memcpy(iv, from, bits / 8);
    if (bits % 8 != 0) {
        iv[bits / 8] = (uint8_t)((from[bits / 8] & mask) | (iv[bits / 8] & ~mask));
    }
}

static void xor_number(uint8_t *iv, size_t len, uint64_t number)
{
    for (size_t i = 0; i < sizeof(number); i++) {
        iv[len - 1 - i] ^= (uint8_t)(number >> (8 * i));
    }
}

/* What the number goes to: nothing, or the first IV of the process. */
static CK_RV counter_base(struct kms_message *message, const struct aead *a, uint8_t *ret_iv)
{
    memset(ret_iv, 0, a->iv.len);
    if (a->host.ivGenerator == CKG_GENERATE_COUNTER) {
        return CKR_OK;
    }
    if (message->base_len == 0) {
        memcpy(message->base, a->iv.data, a->iv.len);
        message->base_len = a->iv.len;
    }
    if (message->base_len != a->iv.len) {
        return bad("ulIvLen: another than before");
    }
    memcpy(ret_iv, message->base, a->iv.len);
    return CKR_OK;
}

static CK_RV count_iv(struct kms_operation *op, const struct aead *a, uint8_t *ret_iv)
{
    uint64_t number = 0;
    CK_RV rv = counter_base(op->message, a, ret_iv);

    if (rv == CKR_OK && !kms_soft_key_count(op->key->soft, a->counter_bits, &number)) {
        rv = kms_p11_refuse(CKR_TOKEN_RESOURCE_EXCEEDED,
                            "CKM_AES_GCM: the key has no other IV of %u bits", a->counter_bits);
    }
    if (rv == CKR_OK) {
        xor_number(ret_iv, a->iv.len, number);
    }
    return rv;
}

static CK_RV make_iv(struct kms_operation *op, struct aead *a, uint8_t *iv)
{
    CK_RV rv = CKR_OK;

    if (!a->make_iv || op->key->soft == NULL) {
        return CKR_OK;
    }
    rv = a->counter_bits > 0 ? count_iv(op, a, iv) : kms_soft_random(iv, a->iv.len);
    if (rv == CKR_OK && a->host.ivGenerator != CKG_GENERATE_COUNTER_XOR) {
        put_bits(iv, a->iv.data, a->host.ulIvFixedBits);
    }
    a->iv.data = iv;
    return rv;
}

/* The host's structures are written when all is well, and not before. */
static CK_RV encrypt(struct kms_operation *op, struct aead *a, struct kms_span in,
                     struct kms_buf *out)
{
    uint8_t iv[KMS_MESSAGE_IV_MAX];
    uint8_t bytes[TAG_MAX];
    struct kms_buf made = KMS_BUF_OVER(iv);
    struct kms_buf tag = KMS_BUF_OVER(bytes);
    bool here = op->key->soft != NULL;
    CK_RV rv = make_iv(op, a, iv);

    if (rv == CKR_OK) {
        rv = here ? encrypt_here(op, a, in, out, &tag) : encrypt_there(op, a, in, &made, out, &tag);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    if (a->make_iv) {
        memcpy(a->host.pIv, iv, a->iv.len);
    }
    memcpy(a->host.pTag, bytes, a->tag_len);
    return CKR_OK;
}

static bool overlaps(struct kms_span in, const uint8_t *out)
{
    uintptr_t a = (uintptr_t)in.data;
    uintptr_t b = (uintptr_t)out;

    return in.len > 0 && a < b + in.len && b < a + in.len;
}

static CK_RV crypt_into(struct kms_operation *op, struct aead *a, struct kms_span in,
                        struct kms_buf *out)
{
    if (op->kind == KMS_OPK_MESSAGE_ENCRYPT) {
        return encrypt(op, a, in, out);
    }
    return op->key->soft != NULL ? decrypt_here(op, a, in, out) : decrypt_there(op, a, in, out);
}

static CK_RV crypt(struct kms_operation *op, struct aead *a, struct kms_span in, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len)
{
    uint8_t nothing = 0; /* an empty message needs no buffer */
    struct kms_buf buf = kms_buf_over(out == NULL ? &nothing : out, in.len);
    uint8_t *copy = NULL;
    CK_RV rv = CKR_OK;

    if (overlaps(in, out)) {
        copy = kms_secure_new(in.len);
        if (copy == NULL) {
            return CKR_HOST_MEMORY;
        }
        memcpy(copy, in.data, in.len);
        in.data = copy;
    }
    rv = crypt_into(op, a, in, &buf);
    if (rv == CKR_OK && buf.len != in.len) {
        rv = CKR_GENERAL_ERROR;
    }
    if (rv == CKR_OK) {
        *out_len = in.len;
    } else {
        kms_wipe(buf.data, buf.len);
    }
    kms_secure_free(copy);
    return rv;
}

CK_RV kms_message_aead_init(struct kms_operation *op, const CK_MECHANISM *mechanism)
{
    CK_GCM_MESSAGE_PARAMS params;

    if (op->key->soft == NULL && !kms_alg_set_has(&op->key->algs, KMS_ALG_AES_GCM)) {
        return kms_p11_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "CKM_AES_GCM: key %s has it not",
                              op->key->ref);
    }
    if (mechanism->ulParameterLen == 0) {
        return CKR_OK; /* each message brings its own */
    }
    if (mechanism->pParameter == NULL || mechanism->ulParameterLen != sizeof(params)) {
        return bad("has another size");
    }
    memcpy(&params, mechanism->pParameter, sizeof(params));
    return params.ivGenerator <= CKG_GENERATE_COUNTER_XOR ? CKR_OK : bad("ivGenerator: none");
}

CK_RV kms_message_aead_begin(struct kms_operation *op, void *param, CK_ULONG param_len,
                             struct kms_span aad)
{
    struct kms_message *message = op->message;
    struct aead a;
    CK_RV rv = read_param(op, param, param_len, &a);

    if (rv == CKR_OK) {
        rv = kms_gather_put(&message->aad, aad,
                            op->key->soft != NULL ? KMS_MESSAGE_MAX : KMS_AAD_MAX,
                            CKR_ARGUMENTS_BAD);
    }
    if (rv == CKR_OK) {
        rv = make_iv(op, &a, message->iv);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    if (a.make_iv && op->key->soft != NULL) {
        memcpy(a.host.pIv, message->iv, a.iv.len);
    } else if (!a.make_iv) {
        memcpy(message->iv, a.iv.data, a.iv.len);
    } else {
        return CKR_OK; /* the service makes it, at the end */
    }
    message->iv_len = a.iv.len;
    return CKR_OK;
}

CK_RV kms_message_aead_end(struct kms_operation *op, void *param, CK_ULONG param_len,
                           struct kms_span aad, struct kms_span in, CK_BYTE_PTR out,
                           CK_ULONG_PTR out_len)
{
    struct kms_message *message = op->message;
    struct aead a;
    CK_RV rv = read_param(op, param, param_len, &a);

    if (rv != CKR_OK) {
        return rv;
    }
    if (a.host.pTag == NULL) {
        return bad("pTag: is NULL");
    }
    if (out == NULL && in.len > 0) {
        *out_len = in.len;
        return CKR_OK;
    }
    if (*out_len < in.len) {
        *out_len = in.len;
        return CKR_BUFFER_TOO_SMALL;
    }
    if (message->iv_len > 0) { /* begun with this one */
        a.iv = kms_span_of(message->iv, message->iv_len);
        a.make_iv = false;
    }
    a.aad = aad;
    return crypt(op, &a, in, out, out_len);
}
