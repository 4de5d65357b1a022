/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations with a token's key. The input is hashed here or gathered, and one request crosses;
 * AES-CBC and CTR, which can be cut anywhere, cross in pieces when they come in pieces or are
 * longer than a request may be (operation_chain.c).
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/operation.h"

#define BLOCK   16
#define MAC_MAX 64

/* ---- beginning ------------------------------------------------------------------------------ */

static bool has(const struct kms_operation *op, enum kms_alg alg)
{
    return kms_alg_set_has(&op->key->algs, alg);
}

static bool crypts(const struct kms_operation *op)
{
    return op->kind == KMS_OPK_ENCRYPT || op->kind == KMS_OPK_DECRYPT;
}

static enum kms_flow choose_flow(const struct kms_operation *op)
{
    if (op->use.hash != NULL && !crypts(op)) {
        return KMS_FLOW_HASH;
    }
    switch (op->use.params.alg) {
    case KMS_ALG_AES_CBC:
        return KMS_FLOW_CBC;
    case KMS_ALG_AES_CBC_PAD: /* all but the last block is plain CBC, if the key has it */
        return has(op, KMS_ALG_AES_CBC) ? KMS_FLOW_CBC : KMS_FLOW_GATHER;
    case KMS_ALG_AES_CTR:
        return KMS_FLOW_CTR;
    default:
        return KMS_FLOW_GATHER;
    }
}

static CK_RV begin_digest(struct kms_operation *op)
{
    CK_MECHANISM mechanism = {.mechanism = op->use.hash->type};
    const struct kms_mech *mech = kms_mech_find(mechanism.mechanism);

    return mech == NULL ? CKR_MECHANISM_INVALID
                        : kms_soft_op_new(KMS_SOFT_DIGEST, mech, &mechanism, NULL, &op->soft);
}

static CK_RV begin(struct kms_operation *op, const CK_MECHANISM *mechanism)
{
    CK_RV rv = kms_token_use_init(&op->use, op->mech, mechanism, op->key);

    if (rv != CKR_OK) {
        return rv;
    }
    op->flow = choose_flow(op);
    if (op->flow == KMS_FLOW_CBC || op->flow == KMS_FLOW_CTR) {
        if (op->use.params.iv.len != BLOCK) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        memcpy(op->chain.iv, op->use.iv, BLOCK);
    }
    return CKR_OK;
}

static void end(struct kms_operation *op)
{
    kms_gather_done(&op->gathered);
}

/* ---- lengths -------------------------------------------------------------------------------- */

static size_t room(const struct kms_operation *op, enum kms_step step, size_t len, bool *ret_exact)
{
    size_t all = op->gathered.len + len;

    *ret_exact = op->kind != KMS_OPK_DECRYPT || step == KMS_STEP_UPDATE ||
                 kms_token_decrypted_exact(&op->use);
    if (!crypts(op)) {
        return kms_token_signature_room(&op->use);
    }
    if (op->flow != KMS_FLOW_GATHER && step != KMS_STEP_ONCE) {
        return kms_chain_room(op, step, len);
    }
    if (step == KMS_STEP_UPDATE) {
        return 0;
    }
    if (op->kind == KMS_OPK_DECRYPT) {
        return kms_token_decrypted_room(&op->use, all);
    }
    *ret_exact = !op->use.sealed;
    return kms_token_encrypted_room(&op->use, all);
}

/* PSS without a hash in its name signs a digest of the length that its parameter says. */
static bool is_digest(const struct kms_operation *op, size_t len)
{
    const struct kms_hash *hash = NULL;

    for (size_t i = 0; (hash = kms_hash_at(i)) != NULL; i++) {
        if (hash->pss != KMS_ALG_NONE && hash->pss == op->use.params.alg) {
            return len == hash->len;
        }
    }
    return true;
}

/* What the service would refuse, refused here. */
static CK_RV check_length(const struct kms_operation *op, size_t len)
{
    bool decrypt = op->kind == KMS_OPK_DECRYPT;
    CK_RV wrong = decrypt ? CKR_ENCRYPTED_DATA_LEN_RANGE : CKR_DATA_LEN_RANGE;
    size_t max = decrypt ? KMS_CIPHERTEXT_MAX : KMS_PLAINTEXT_MAX;

    if (len > max) {
        return kms_p11_refuse(wrong, "%s: a token's key takes at most %zu bytes, not %zu",
                              op->mech->name, max, len);
    }
    if (!crypts(op)) {
        return is_digest(op, len) ? CKR_OK : wrong;
    }
    switch (op->use.params.alg) {
    case KMS_ALG_AES_CBC:
        return len % BLOCK == 0 ? CKR_OK : wrong;
    case KMS_ALG_AES_CBC_PAD:
        return !decrypt || (len > 0 && len % BLOCK == 0) ? CKR_OK : wrong;
    case KMS_ALG_AES_GCM:
    case KMS_ALG_CHACHA20_POLY1305:
        return !decrypt || len >= (op->use.params.tag_len == 0 ? 16 : op->use.params.tag_len)
                   ? CKR_OK
                   : wrong;
    default:
        return decrypt && op->key->key_type == CKK_RSA && !op->use.sealed &&
                       len != ((size_t)op->key->bits + 7) / 8
                   ? wrong
                   : CKR_OK;
    }
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* The one request, over all the input or over its digest. */
static CK_RV ask(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv = check_length(op, in.len);

    if (rv != CKR_OK) {
        return rv;
    }
    switch (op->kind) {
    case KMS_OPK_ENCRYPT:
        return kms_token_encrypt(&op->use, KMS_TOKEN_CRYPT, in, NULL, out);
    case KMS_OPK_DECRYPT:
        return kms_token_decrypt(&op->use, KMS_TOKEN_CRYPT, false, in, out);
    default:
        return kms_token_sign(&op->use, in, out);
    }
}

/* The message's digest: of @in, or of what updates brought. */
static CK_RV digest(struct kms_operation *op, bool once, struct kms_span in, struct kms_buf *ret)
{
    CK_RV rv = CKR_OK;

    if (once) {
        return kms_soft_digest(op->use.hash->name, in, ret);
    }
    if (op->soft == NULL) { /* no update came */
        rv = begin_digest(op);
    }
    return rv == CKR_OK ? kms_soft_op_final(op->soft, ret) : rv;
}

static CK_RV once(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv = CKR_OK;

    if ((op->flow == KMS_FLOW_CBC || op->flow == KMS_FLOW_CTR) && in.len > KMS_PLAINTEXT_MAX) {
        rv = kms_chain_update(op, in, out);
        return rv == CKR_OK ? kms_chain_final(op, out) : rv;
    }
    return ask(op, in, out);
}

static CK_RV update(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    bool decrypt = op->kind == KMS_OPK_DECRYPT;
    CK_RV rv = CKR_OK;

    switch (op->flow) {
    case KMS_FLOW_HASH:
        rv = op->soft == NULL ? begin_digest(op) : CKR_OK;
        return rv == CKR_OK ? kms_soft_op_update(op->soft, in, NULL) : rv;
    case KMS_FLOW_CBC:
    case KMS_FLOW_CTR:
        return kms_chain_update(op, in, out);
    case KMS_FLOW_GATHER:
    default:
        return kms_gather_put(&op->gathered, in, decrypt ? KMS_CIPHERTEXT_MAX : KMS_PLAINTEXT_MAX,
                              decrypt ? CKR_ENCRYPTED_DATA_LEN_RANGE : CKR_DATA_LEN_RANGE);
    }
}

static CK_RV run(struct kms_operation *op, enum kms_step step, struct kms_span in,
                 struct kms_buf *out)
{
    uint8_t bytes[MAC_MAX];
    struct kms_buf hashed = KMS_BUF_OVER(bytes);
    CK_RV rv = CKR_OK;

    if (step == KMS_STEP_UPDATE) {
        return update(op, in, out);
    }
    if (op->flow == KMS_FLOW_HASH) {
        rv = digest(op, step == KMS_STEP_ONCE, in, &hashed);
        return rv == CKR_OK ? ask(op, kms_buf_span(&hashed), out) : rv;
    }
    if (step == KMS_STEP_ONCE) {
        return once(op, in, out);
    }
    if (op->flow != KMS_FLOW_GATHER) {
        return kms_chain_final(op, out);
    }
    return ask(op, kms_span_of(op->gathered.data, op->gathered.len), out);
}

/* ---- verification --------------------------------------------------------------------------- */

/* A MAC is made again and compared, unless the key may only verify. */
static CK_RV verify_mac(struct kms_operation *op, struct kms_span in, struct kms_span mac)
{
    uint8_t bytes[KMS_SIGNATURE_MAX];
    struct kms_buf made = KMS_BUF_OVER(bytes);
    CK_RV rv = CKR_OK;

    if (!kms_attrs_bool(op->key->attrs, CKA_SIGN, false)) {
        return kms_token_verify(&op->use, in, mac);
    }
    rv = kms_token_sign(&op->use, in, &made);
    if (rv == CKR_OK && (made.len != mac.len || !kms_secret_equal(bytes, mac.data, mac.len))) {
        rv = CKR_SIGNATURE_INVALID;
    }
    kms_wipe(bytes, sizeof(bytes));
    return rv;
}

static CK_RV verify(struct kms_operation *op, bool whole, struct kms_span in,
                    struct kms_span signature)
{
    uint8_t bytes[MAC_MAX];
    struct kms_buf hashed = KMS_BUF_OVER(bytes);
    struct kms_span input = whole ? in : kms_span_of(op->gathered.data, op->gathered.len);
    CK_RV rv = CKR_OK;

    if (signature.len != kms_token_signature_room(&op->use)) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    if (op->flow == KMS_FLOW_HASH) {
        rv = digest(op, whole, in, &hashed);
        input = kms_buf_span(&hashed);
    }
    if (rv == CKR_OK) {
        rv = check_length(op, input.len);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    return op->key->class == CKO_SECRET_KEY ? verify_mac(op, input, signature)
                                            : kms_token_verify(&op->use, input, signature);
}

const struct kms_path kms_path_token = {
    .begin = begin,
    .end = end,
    .room = room,
    .run = run,
    .verify = verify,
};
