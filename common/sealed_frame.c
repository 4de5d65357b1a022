/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sealed_frame.h"

#include <string.h>

#define VERSION 1

static const uint8_t magic[4] = {'K', 'M', 'S', 'B'};

bool kms_sealed_frame_is(struct kms_span bytes)
{
    return bytes.len >= sizeof(magic) && memcmp(bytes.data, magic, sizeof(magic)) == 0;
}

enum kms_status kms_sealed_frame_put(const struct kms_sealed_frame *frame, struct kms_buf *out)
{
    size_t start = out->len;

    if (frame->key_id.len > KMS_FRAME_KEY_ID_MAX || frame->iv.len > KMS_FRAME_IV_MAX ||
        frame->alg > UINT8_MAX) {
        return KMS_E_INVALID;
    }
    if (kms_buf_put(out, kms_span_of(magic, sizeof(magic))) != KMS_OK ||
        kms_buf_put_u8(out, VERSION) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)frame->alg) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)frame->key_id.len) != KMS_OK ||
        kms_buf_put_u8(out, (uint8_t)frame->iv.len) != KMS_OK ||
        kms_buf_put(out, frame->key_id) != KMS_OK || kms_buf_put(out, frame->iv) != KMS_OK ||
        kms_buf_put(out, frame->ciphertext) != KMS_OK) {
        out->len = start;
        return KMS_E_TOO_LARGE;
    }
    return KMS_OK;
}

enum kms_status kms_sealed_frame_take(struct kms_span bytes, struct kms_sealed_frame *ret_frame,
                                      struct kms_error *err)
{
    struct kms_sealed_frame frame = {.alg = 0};
    struct kms_span head = KMS_SPAN_NONE;

    if (!kms_sealed_frame_is(bytes) || kms_span_take(&bytes, KMS_FRAME_HEADER, &head) != KMS_OK) {
        return kms_error_set(err, KMS_E_BAD_DATA, "this was not sealed by CKM_KMSBRIDGE_SEALED");
    }
    if (head.data[4] != VERSION) {
        return kms_error_set(err, KMS_E_BAD_DATA, "version %u of the frame is not known here",
                             head.data[4]);
    }
    frame.alg = head.data[5];
    if (head.data[6] > KMS_FRAME_KEY_ID_MAX || head.data[7] > KMS_FRAME_IV_MAX ||
        kms_span_take(&bytes, head.data[6], &frame.key_id) != KMS_OK ||
        kms_span_take(&bytes, head.data[7], &frame.iv) != KMS_OK) {
        return kms_error_set(err, KMS_E_BAD_DATA, "the frame is cut");
    }
    frame.ciphertext = bytes;
    *ret_frame = frame;
    return KMS_OK;
}
