/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC (RFC 2104), CMAC (NIST SP 800-38B), and digests. */
#include <openssl/core_names.h>
#include <stdio.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

/* OSSL_PARAM's texts are not const; libcrypto does not write to them. */
static CK_RV mac_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                       const struct kms_params *params)
{
    bool hashed = op->mech->kind == KMS_MECH_HMAC;
    EVP_MAC *mac = kms_soft_mac(op->mech->fetch);
    char name[16];
    OSSL_PARAM with[2] = {OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end()};

    (void)params;
    if (hashed) {
        (void)snprintf(name, sizeof(name), "%s", op->mech->hash);
    } else {
        (void)snprintf(name, sizeof(name), "AES-%u-CBC", op->key->bits);
    }
    /* it measures the text */
    with[0] = OSSL_PARAM_construct_utf8_string(
        hashed ? OSSL_MAC_PARAM_DIGEST : OSSL_MAC_PARAM_CIPHER, name, 0);
    op->mac_len = kms_mech_mac_len(op->mech, mechanism);
    op->mac = mac == NULL ? NULL : EVP_MAC_CTX_new(mac);
    if (op->mac == NULL || EVP_MAC_init(op->mac, op->key->secret, op->key->secret_len, with) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto cannot begin", op->mech->name);
    }
    return CKR_OK;
}

static CK_RV mac_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    (void)out;
    return EVP_MAC_update(op->mac, in.data, in.len) == 1 ? CKR_OK : CKR_FUNCTION_FAILED;
}

static CK_RV mac_make(struct kms_soft_op *op, uint8_t mac[EVP_MAX_MD_SIZE])
{
    size_t len = 0;

    if (EVP_MAC_final(op->mac, mac, &len, EVP_MAX_MD_SIZE) != 1 || len < op->mac_len) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto fails", op->mech->name);
    }
    return CKR_OK;
}

static CK_RV mac_final(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    CK_RV rv = mac_make(op, mac);

    if (rv == CKR_OK && kms_buf_put(out, kms_span_of(mac, op->mac_len)) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    kms_wipe(mac, sizeof(mac));
    return rv;
}

static CK_RV mac_verify(struct kms_soft_op *op, struct kms_span signature)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    CK_RV rv = CKR_OK;

    if (signature.len != op->mac_len) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    rv = mac_make(op, mac);
    if (rv == CKR_OK && !kms_secret_equal(mac, signature.data, op->mac_len)) {
        rv = CKR_SIGNATURE_INVALID;
    }
    kms_wipe(mac, sizeof(mac));
    return rv;
}

static size_t mac_room(const struct kms_soft_op *op, size_t len, bool final)
{
    (void)len;
    return final ? op->mac_len : 0;
}

const struct kms_soft_work kms_soft_mac_work = {
    .begin = mac_begin,
    .update = mac_update,
    .final = mac_final,
    .verify = mac_verify,
    .room = mac_room,
};

/* ---- digests ------------------------------------------------------------------------------ */

static CK_RV digest_begin(struct kms_soft_op *op, const CK_MECHANISM *mechanism,
                          const struct kms_params *params)
{
    const struct kms_hash *hash = kms_hash_by_name(op->mech->hash);

    (void)mechanism;
    (void)params;
    op->mac_len = hash == NULL ? 0 : hash->len;
    return kms_soft_input_begin(op, 0);
}

static CK_RV digest_final(struct kms_soft_op *op, struct kms_buf *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    struct kms_span input;
    CK_RV rv = kms_soft_input_end(op, digest, &input);

    if (rv == CKR_OK && kms_buf_put(out, input) != KMS_OK) {
        rv = CKR_BUFFER_TOO_SMALL;
    }
    return rv;
}

const struct kms_soft_work kms_soft_digest_work = {
    .begin = digest_begin,
    .update = kms_soft_input_update,
    .final = digest_final,
    .room = mac_room,
};
