/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-CBC and CTR with a token's key in several requests, each of KMS_PLAINTEXT_MAX bytes at most.
 * The agent keeps no state: CBC goes on from the last block of ciphertext as the next IV; CTR from
 * the counter, which is counted here.
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/operation.h"

#define BLOCK 16

static bool decrypts(const struct kms_operation *op)
{
    return op->kind == KMS_OPK_DECRYPT;
}

static bool pads(const struct kms_operation *op)
{
    return op->use.params.alg == KMS_ALG_AES_CBC_PAD;
}

static CK_RV wrong_length(const struct kms_operation *op)
{
    return decrypts(op) ? CKR_ENCRYPTED_DATA_LEN_RANGE : CKR_DATA_LEN_RANGE;
}

/* Bytes that an update with @len more can put out. The last block of a padded ciphertext is held
 * back: it may be the one with the padding. */
static size_t whole_blocks(const struct kms_operation *op, size_t len)
{
    size_t all = op->chain.part_len + len;

    if (decrypts(op) && pads(op) && all > 0) {
        all--;
    }
    return all / BLOCK * BLOCK;
}

size_t kms_chain_room(const struct kms_operation *op, enum kms_step step, size_t len)
{
    if (step == KMS_STEP_FINAL) {
        return pads(op) ? BLOCK : 0;
    }
    return op->flow == KMS_FLOW_CTR ? len : whole_blocks(op, len);
}

/* One request with this IV or counter. */
static CK_RV ask(struct kms_operation *op, enum kms_alg alg, struct kms_span in,
                 struct kms_buf *out)
{
    enum kms_alg whole = op->use.params.alg;
    CK_RV rv = CKR_OK;

    memcpy(op->use.iv, op->chain.iv, BLOCK);
    op->use.params.alg = alg;
    rv = decrypts(op) ? kms_token_decrypt(&op->use, KMS_TOKEN_CRYPT, false, in, out)
                      : kms_token_encrypt(&op->use, KMS_TOKEN_CRYPT, in, NULL, out);
    op->use.params.alg = whole;
    return rv;
}

/* ---- CBC ------------------------------------------------------------------------------------ */

/* Whole blocks in one request; what comes next is chained to their last one. */
static CK_RV cbc_ask(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    size_t before = out->len;
    CK_RV rv = ask(op, KMS_ALG_AES_CBC, in, out);

    if (rv != CKR_OK) {
        return rv;
    }
    if (out->len - before != in.len) {
        return kms_p11_refuse(CKR_DEVICE_ERROR, "%s: %zu bytes came back for %zu", op->mech->name,
                              out->len - before, in.len);
    }
    memcpy(op->chain.iv, (decrypts(op) ? in.data : out->data + before) + in.len - BLOCK, BLOCK);
    return CKR_OK;
}

/* What was left, and as much of @in as makes @take bytes. */
static CK_RV cbc_join(struct kms_operation *op, size_t take, struct kms_span *in,
                      struct kms_buf *out)
{
    struct kms_chain *chain = &op->chain;
    struct kms_gather joined = {.data = NULL};
    struct kms_span head = KMS_SPAN_NONE;
    CK_RV rv = CKR_GENERAL_ERROR;

    if (kms_span_take(in, take - chain->part_len, &head) == KMS_OK) {
        rv = kms_gather_put(&joined, kms_span_of(chain->part, chain->part_len), take,
                            CKR_GENERAL_ERROR);
    }
    if (rv == CKR_OK) {
        rv = kms_gather_put(&joined, head, take, CKR_GENERAL_ERROR);
    }
    if (rv == CKR_OK) {
        chain->part_len = 0;
        rv = cbc_ask(op, kms_span_of(joined.data, joined.len), out);
    }
    kms_gather_done(&joined);
    return rv;
}

static CK_RV cbc_update(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    struct kms_chain *chain = &op->chain;
    size_t left = whole_blocks(op, in.len);
    CK_RV rv = CKR_OK;

    while (left > 0 && rv == CKR_OK) {
        size_t take = left < KMS_PLAINTEXT_MAX ? left : KMS_PLAINTEXT_MAX;
        struct kms_span head = KMS_SPAN_NONE;

        if (chain->part_len > 0) {
            rv = cbc_join(op, take, &in, out);
        } else if (kms_span_take(&in, take, &head) == KMS_OK) {
            rv = cbc_ask(op, head, out);
        } else {
            rv = CKR_GENERAL_ERROR;
        }
        left -= take;
    }
    if (rv == CKR_OK && in.len > 0) {
        memcpy(chain->part + chain->part_len, in.data, in.len);
        chain->part_len += in.len;
    }
    return rv;
}

static CK_RV cbc_final(struct kms_operation *op, struct kms_buf *out)
{
    struct kms_chain *chain = &op->chain;

    if (!pads(op)) {
        return chain->part_len == 0 ? CKR_OK : wrong_length(op);
    }
    if (decrypts(op) && chain->part_len != BLOCK) {
        return wrong_length(op);
    }
    return ask(op, KMS_ALG_AES_CBC_PAD, kms_span_of(chain->part, chain->part_len), out);
}

/* ---- CTR ------------------------------------------------------------------------------------ */

/* Counts on by @count blocks, in the low bits that count (2.11.2). */
static void count_on(struct kms_operation *op, uint64_t count)
{
    unsigned bits = op->use.params.ctr_bits == 0 ? 128 : op->use.params.ctr_bits;
    uint8_t *iv = op->chain.iv;
    uint64_t carry = count;

    op->chain.blocks += count;
    for (unsigned i = 0; i < BLOCK && i * 8 < bits && carry > 0; i++) {
        unsigned left = bits - i * 8;
        uint8_t mask = (uint8_t)(left >= 8 ? 0xffu : (1u << left) - 1);
        uint64_t sum = (uint64_t)(iv[BLOCK - 1 - i] & mask) + carry;

        iv[BLOCK - 1 - i] = (uint8_t)((iv[BLOCK - 1 - i] & (uint8_t)~mask) | (sum & mask));
        carry = sum >> (left >= 8 ? 8 : left);
    }
}

/* A counter that comes round would give a key stream out twice. */
static bool would_repeat(const struct kms_operation *op, size_t len)
{
    unsigned bits = op->use.params.ctr_bits;
    uint64_t more = (op->chain.part_len + len + BLOCK - 1) / BLOCK;

    return bits != 0 && bits < 64 && op->chain.blocks + more > UINT64_C(1) << bits;
}

/* @in begins inside a block: the request begins with that block, its first bytes are thrown away.
 */
static CK_RV ctr_ask(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    struct kms_chain *chain = &op->chain;
    static const uint8_t zeros[BLOCK];
    struct kms_gather joined = {.data = NULL};
    size_t before = out->len;
    size_t all = chain->part_len + in.len;
    uint8_t *made = kms_secure_new(all);
    struct kms_buf buf = kms_buf_over(made, all);
    CK_RV rv = made == NULL ? CKR_HOST_MEMORY : CKR_OK;

    if (rv == CKR_OK) {
        rv = kms_gather_put(&joined, kms_span_of(zeros, chain->part_len), all, CKR_GENERAL_ERROR);
    }
    if (rv == CKR_OK) {
        rv = kms_gather_put(&joined, in, all, CKR_GENERAL_ERROR);
    }
    if (rv == CKR_OK) {
        rv = ask(op, KMS_ALG_AES_CTR, kms_span_of(joined.data, joined.len), &buf);
    }
    if (rv == CKR_OK && (buf.len != all ||
                         kms_buf_put(out, kms_span_of(made + chain->part_len, in.len)) != KMS_OK)) {
        out->len = before;
        rv = CKR_DEVICE_ERROR;
    }
    if (rv == CKR_OK) {
        count_on(op, all / BLOCK);
        chain->part_len = all % BLOCK;
    }
    kms_gather_done(&joined);
    kms_secure_free(made);
    return rv;
}

static CK_RV ctr_update(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv = CKR_OK;

    if (would_repeat(op, in.len)) {
        return kms_p11_refuse(wrong_length(op), "%s: the counter of %u bits would come round",
                              op->mech->name, op->use.params.ctr_bits);
    }
    while (in.len > 0 && rv == CKR_OK) {
        size_t room = KMS_PLAINTEXT_MAX - op->chain.part_len;
        struct kms_span head = KMS_SPAN_NONE;

        if (kms_span_take(&in, in.len < room ? in.len : room, &head) != KMS_OK) {
            return CKR_GENERAL_ERROR;
        }
        rv = ctr_ask(op, head, out);
    }
    return rv;
}

CK_RV kms_chain_update(struct kms_operation *op, struct kms_span in, struct kms_buf *out)
{
    return op->flow == KMS_FLOW_CTR ? ctr_update(op, in, out) : cbc_update(op, in, out);
}

CK_RV kms_chain_final(struct kms_operation *op, struct kms_buf *out)
{
    return op->flow == KMS_FLOW_CTR ? CKR_OK : cbc_final(op, out);
}
