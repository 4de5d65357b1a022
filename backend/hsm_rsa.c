/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RSA by PKCS#1 v1.5 padding, and with no padding at all. The public half is local.
 *
 * PKCS#1 v1.5 decryption tells an attacker who may ask often whether a padding was right
 * (Bleichenbacher, CRYPTO '98). What can be done here is done: every bad padding is the one
 * CKR_ENCRYPTED_DATA_INVALID with one text. It is there for applications that still have it, and
 * nothing of ours uses it.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/secure.h"

#define PKCS1_OVERHEAD 11 /* RFC 8017 7.2.1 */

static CK_RV check_plain(struct kms_p11 *p, const struct kms_hsm_work *work)
{
    const struct kms_hsm_key *key = work->key;
    bool raw = work->row->alg == KMS_ALG_RSA_RAW;

    if (raw && work->in.len != key->size) {
        (void)kms_error_set(p->ask->err, KMS_E_INVALID, "RSA-%u without padding takes %zu bytes",
                            key->info.bits, key->size);
        return CKR_DATA_LEN_RANGE;
    }
    if (work->out_room < key->size || (!raw && work->in.len + PKCS1_OVERHEAD > key->size)) {
        (void)kms_error_set(p->ask->err, KMS_E_TOO_LARGE,
                            "RSA-%u PKCS#1 takes at most %zu bytes, not %zu", key->info.bits,
                            key->size - PKCS1_OVERHEAD, work->in.len);
        return CKR_DATA_LEN_RANGE;
    }
    return CKR_OK;
}

CK_RV kms_hsm_rsa_encrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    int padding = work->row->alg == KMS_ALG_RSA_RAW ? RSA_NO_PADDING : RSA_PKCS1_PADDING;
    size_t len = work->out_room;
    EVP_PKEY_CTX *ctx = NULL;
    CK_RV rv = check_plain(p, work);

    if (rv != CKR_OK) {
        return rv;
    }
    ctx = EVP_PKEY_CTX_new(work->key->public_key, NULL);
    if (ctx == NULL || EVP_PKEY_encrypt_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(ctx, padding) != 1 ||
        EVP_PKEY_encrypt(ctx, work->out, &len, kms_p11_in(work->in.data), work->in.len) != 1) {
        (void)kms_error_set(p->ask->err, KMS_E_INVALID, "OpenSSL refused %s encryption",
                            kms_alg_name(work->row->alg));
        rv = CKR_DATA_INVALID; /* a number above the modulus */
    }
    EVP_PKEY_CTX_free(ctx);
    work->out_len = len;
    return rv;
}

CK_RV kms_hsm_rsa_raw(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_X_509};
    size_t size = work->key->size;
    CK_RV rv = kms_hsm_bytes_open(p, work, &mechanism);

    if (rv != CKR_OK) {
        return rv;
    }
    if (work->out_len > size || work->out_room < size) {
        return KMS_P11_BAD_REPLY;
    }
    /* some tokens strip leading zeros */
    memmove(work->out + size - work->out_len, work->out, work->out_len);
    memset(work->out, 0, size - work->out_len);
    work->out_len = size;
    return CKR_OK;
}

/* RFC 8017 5.1.2: a number that is not below the modulus is no ciphertext, whatever a token says.
 */
static bool is_below_modulus(const struct kms_hsm_work *work)
{
    BIGNUM *n = NULL;
    BIGNUM *c = BN_bin2bn(work->in.data, (int)work->in.len, NULL);
    bool below = c != NULL &&
                 EVP_PKEY_get_bn_param(work->key->public_key, OSSL_PKEY_PARAM_RSA_N, &n) == 1 &&
                 BN_cmp(c, n) < 0;

    BN_free(c);
    BN_free(n);
    return below;
}

static CK_RV decrypt_pkcs1(struct kms_p11 *p, struct kms_hsm_work *work)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_PKCS};

    return kms_hsm_bytes_open(p, work, &mechanism);
}

CK_RV kms_hsm_rsa_decrypt(struct kms_p11 *p, struct kms_hsm_work *work)
{
    if (work->in.len != work->key->size || work->iv_len != 0 || !is_below_modulus(work)) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    if (work->row->alg == KMS_ALG_RSA_RAW) {
        return kms_hsm_rsa_raw(p, work);
    }
    return kms_hsm_open_surely(p, work, decrypt_pkcs1);
}
