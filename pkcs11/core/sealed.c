/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of CKM_KMSBRIDGE_SEALED: what another process needs to open it, in front of the
 * ciphertext. Layout: kmsbridge-pkcs11.h. */
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/token.h"

static const uint8_t magic[4] = {'K', 'M', 'S', 'B'};

CK_RV kms_sealed_pack(const struct kms_sealed *sealed, struct kms_buf *out)
{
    struct kms_span key_id = kms_span_str(sealed->key_id);
    size_t start = out->len;

    if (sealed->alg ==
        KMS_ALG_SEALED) { /* it names its key itself: any client of the service opens it */
        return kms_buf_put(out, kms_buf_span(&sealed->ciphertext)) == KMS_OK ? CKR_OK
                                                                             : CKR_GENERAL_ERROR;
    }
    if (key_id.len > UINT8_MAX || sealed->iv.len > UINT8_MAX || (unsigned)sealed->alg > UINT8_MAX) {
        return CKR_GENERAL_ERROR;
    }
    if (kms_buf_put(out, kms_span_of(magic, sizeof(magic))) != KMS_OK ||
        kms_buf_put_u8(out, KMS_SEALED_VERSION) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)sealed->alg) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)key_id.len) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)sealed->iv.len) != KMS_OK ||
        kms_buf_put(out, key_id) != KMS_OK ||
        kms_buf_put(out, kms_buf_span(&sealed->iv)) != KMS_OK ||
        kms_buf_put(out, kms_buf_span(&sealed->ciphertext)) != KMS_OK) {
        out->len = start;
        return CKR_GENERAL_ERROR;
    }
    return CKR_OK;
}

CK_RV kms_sealed_unpack(struct kms_span bytes, struct kms_sealed_frame *ret_frame)
{
    struct kms_sealed_frame frame = {.alg = KMS_ALG_NONE};
    struct kms_span head = KMS_SPAN_NONE;

    if (kms_span_take(&bytes, KMS_SEALED_HEADER, &head) != KMS_OK ||
        memcmp(head.data, magic, sizeof(magic)) != 0) {
        return kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID,
                              "CKM_KMSBRIDGE_SEALED: this was not sealed by it");
    }
    if (head.data[4] != KMS_SEALED_VERSION) {
        return kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID,
                              "CKM_KMSBRIDGE_SEALED: version %u of the frame is not known here",
                              head.data[4]);
    }
    frame.alg = (enum kms_alg)head.data[5];
    if (head.data[6] >= KMS_KEY_ID_MAX || head.data[7] > KMS_IV_MAX ||
        kms_span_take(&bytes, head.data[6], &frame.key_id) != KMS_OK ||
        kms_span_take(&bytes, head.data[7], &frame.iv) != KMS_OK) {
        return kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "CKM_KMSBRIDGE_SEALED: the frame is cut");
    }
    frame.ciphertext = bytes;
    *ret_frame = frame;
    return CKR_OK;
}
