/* SPDX-License-Identifier: Apache-2.0 */
/* What CKM_KMSBRIDGE_SEALED puts out: the service's own blob, or a frame (common/sealed_frame.h).
 */
#include "pkcs11/core/log.h"
#include "pkcs11/core/token.h"

_Static_assert(KMS_FRAME_KEY_ID_MAX + 1 == KMS_KEY_ID_MAX && KMS_FRAME_IV_MAX == KMS_IV_MAX,
               "a frame holds what the waist gives");

CK_RV kms_sealed_pack(const struct kms_sealed *sealed, struct kms_buf *out)
{
    const struct kms_sealed_frame frame = {.alg = (unsigned)sealed->alg,
                                           .key_id = kms_span_str(sealed->key_id),
                                           .iv = kms_buf_span(&sealed->iv),
                                           .ciphertext = kms_buf_span(&sealed->ciphertext)};

    if (sealed->alg ==
        KMS_ALG_SEALED) { /* it names its key itself: any client of the service opens it */
        return kms_buf_put(out, frame.ciphertext) == KMS_OK ? CKR_OK : CKR_GENERAL_ERROR;
    }
    return kms_sealed_frame_put(&frame, out) == KMS_OK ? CKR_OK : CKR_GENERAL_ERROR;
}

CK_RV kms_sealed_unpack(struct kms_span bytes, struct kms_sealed_frame *ret_frame)
{
    struct kms_error err = KMS_ERROR_INIT;

    return kms_sealed_frame_take(bytes, ret_frame, &err) == KMS_OK
               ? CKR_OK
               : kms_p11_refuse(CKR_ENCRYPTED_DATA_INVALID, "CKM_KMSBRIDGE_SEALED: %s", err.text);
}
