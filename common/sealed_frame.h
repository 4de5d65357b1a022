/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of CKM_KMSBRIDGE_SEALED: what another process needs to open it, in front of the
 * ciphertext. For the module, which makes and opens it, and for kmsbridgectl, which rewraps;
 * kmsbridge-pkcs11.h has the layout. Bytes in, bytes out.
 */
#ifndef KMS_COMMON_SEALED_FRAME_H
#define KMS_COMMON_SEALED_FRAME_H

#include "common/span.h"
#include "common/status.h"

#define KMS_FRAME_HEADER     8
#define KMS_FRAME_KEY_ID_MAX 79 /* bytes */
#define KMS_FRAME_IV_MAX     32

struct kms_sealed_frame {
    unsigned alg; /* enum kms_alg, below 256 */
    struct kms_span key_id, iv, ciphertext;
};

/* Whether it begins as a frame does. */
bool kms_sealed_frame_is(struct kms_span bytes);
/* Appends; KMS_E_INVALID: a member does not fit a frame; KMS_E_TOO_LARGE, and nothing is. */
enum kms_status kms_sealed_frame_put(const struct kms_sealed_frame *frame,
                                     struct kms_buf *out) KMS_MUST_CHECK;
/* Borrows @bytes; the algorithm is whatever is there. KMS_E_BAD_DATA. */
enum kms_status kms_sealed_frame_take(struct kms_span bytes, struct kms_sealed_frame *ret_frame,
                                      struct kms_error *err) KMS_MUST_CHECK;

#endif
