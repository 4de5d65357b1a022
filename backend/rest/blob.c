/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/blob.h"

#include <string.h>

#include "common/secure.h"

#define FIRST 4096 /* most replies fit */

enum kms_status kms_blob_reserve(struct kms_blob *blob, size_t size)
{
    uint8_t *data = NULL;

    if (size < blob->cap) { /* one byte is the NUL's */
        return KMS_OK;
    }
    data = kms_secure_new(size + 1);
    if (data == NULL) {
        return KMS_E_NOMEM;
    }
    if (blob->len > 0) {
        memcpy(data, blob->data, blob->len);
    }
    kms_secure_free(blob->data); /* wipes */
    blob->data = data;
    blob->cap = size + 1;
    return KMS_OK;
}

enum kms_status kms_blob_put(struct kms_blob *blob, struct kms_span bytes, size_t max)
{
    size_t need = 0;
    size_t size = FIRST;

    if (bytes.len > max || blob->len > max - bytes.len) {
        return KMS_E_TOO_LARGE;
    }
    need = blob->len + bytes.len;
    while (size < need) {
        size *= 4;
    }
    if (need >= blob->cap && kms_blob_reserve(blob, size < max ? size : max) != KMS_OK) {
        return KMS_E_NOMEM;
    }
    if (bytes.len > 0) {
        memcpy(blob->data + blob->len, bytes.data, bytes.len);
        blob->len = need;
    }
    blob->data[blob->len] = 0;
    return KMS_OK;
}

void kms_blob_done(struct kms_blob *blob)
{
    kms_secure_free(blob->data);
    *blob = (struct kms_blob){.data = NULL};
}
