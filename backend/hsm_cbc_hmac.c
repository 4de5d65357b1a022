/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-CBC-PAD, then HMAC-SHA256 over aad || iv || ciphertext || be64 bits of aad, the construction
 * of RFC 7518 5.2.2.1 with two separate HSM keys and the whole tag. On the way back the tag is
 * verified before anything is decrypted, so that the padding tells an attacker nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define IV_LEN 16
#define BLOCK  16

struct mac_input {
    uint8_t small[KMS_HSM_SMALL];
    uint8_t *data;
    size_t len;
};

static void append(struct mac_input *input, const void *data, size_t len)
{
    if (len > 0) {
        memcpy(input->data + input->len, data, len);
        input->len += len;
    }
}

/* Nothing in it is secret. @input->data is freed unless it is ->small. */
static bool mac_input_make(struct mac_input *input, struct kms_span aad, const uint8_t *iv,
                           struct kms_span ciphertext)
{
    size_t len = aad.len + IV_LEN + ciphertext.len + 8;
    uint64_t bits = (uint64_t)aad.len * 8;
    uint8_t be64[8];

    input->len = 0;
    input->data = len <= sizeof(input->small) ? input->small : malloc(len);
    if (input->data == NULL) {
        return false;
    }
    for (size_t i = 0; i < sizeof(be64); i++) {
        be64[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    append(input, aad.data, aad.len);
    append(input, iv, IV_LEN);
    append(input, ciphertext.data, ciphertext.len);
    append(input, be64, sizeof(be64));
    return true;
}

static CK_RV make_tag(struct kms_p11 *p, const struct kms_hsm_work *work,
                      struct kms_span ciphertext, uint8_t ret_tag[KMS_HSM_MAC_TAG])
{
    struct mac_input input;
    CK_MECHANISM mechanism = {.mechanism = CKM_SHA256_HMAC};
    CK_ULONG len = KMS_HSM_MAC_TAG;
    CK_RV rv = CKR_OK;

    if (!mac_input_make(&input, work->aad, work->iv, ciphertext)) {
        return CKR_HOST_MEMORY;
    }
    rv = KMS_P11(p, C_SignInit)(p->session, &mechanism, work->key->mac);
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Sign)(p->session, input.data, input.len, ret_tag, &len);
    }
    if (rv == CKR_OK && len != KMS_HSM_MAC_TAG) {
        rv = KMS_P11_BAD_REPLY;
    }
    if (input.data != input.small) {
        free(input.data);
    }
    return rv;
}

CK_RV kms_hsm_cbc_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_MECHANISM mechanism = {CKM_AES_CBC_PAD, work->iv, IV_LEN};
    CK_ULONG len = work->out_room - KMS_HSM_MAC_TAG;
    CK_RV rv = CKR_OK;

    if (!work->key->cbc_hmac) {
        return CKR_MECHANISM_INVALID;
    }
    work->iv_len = IV_LEN;
    rv = KMS_P11(p, C_GenerateRandom)(p->session, work->iv, IV_LEN);
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_EncryptInit)(p->session, &mechanism, work->key->handle);
    }
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Encrypt)(p->session, kms_p11_in(work->in.data), work->in.len, work->out,
                                   &len);
    }
    if (rv == CKR_OK && len != work->in.len / BLOCK * BLOCK + BLOCK) {
        rv = KMS_P11_BAD_REPLY;
    }
    if (rv == CKR_OK) {
        rv = make_tag(p, work, kms_span_of(work->out, len), work->out + len);
    }
    work->out_len = len + KMS_HSM_MAC_TAG;
    return rv;
}

CK_RV kms_hsm_cbc_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_MECHANISM mechanism = {CKM_AES_CBC_PAD, work->iv, IV_LEN};
    uint8_t tag[KMS_HSM_MAC_TAG];
    struct kms_span body = work->in;
    CK_ULONG len = work->out_room;
    CK_RV rv = CKR_OK;

    if (!work->key->cbc_hmac) {
        return CKR_MECHANISM_INVALID;
    }
    if (work->iv_len != IV_LEN || body.len < BLOCK + KMS_HSM_MAC_TAG || body.len % BLOCK != 0) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    body.len -= KMS_HSM_MAC_TAG;
    rv = make_tag(p, work, body, tag);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!kms_secret_equal(tag, body.data + body.len, sizeof(tag))) {
        p->function = "tag";
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    rv = KMS_P11(p, C_DecryptInit)(p->session, &mechanism, work->key->handle);
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_Decrypt)(p->session, kms_p11_in(body.data), body.len, work->out, &len);
    }
    if (rv == CKR_OK && len >= body.len) {
        rv = KMS_P11_BAD_REPLY;
    }
    work->out_len = len;
    return rv;
}

CK_RV kms_hsm_cbc_probe(struct kms_p11 *p, struct kms_backend *b, const struct kms_hsm_key *key)
{
    const struct kms_hsm_work like = {
        .backend = b, .key = key, .row = kms_hsm_alg_find(KMS_ALG_AES_CBC_HMAC)};

    return kms_hsm_round_trip(p, &like, kms_hsm_cbc_encrypt, kms_hsm_cbc_decrypt);
}
