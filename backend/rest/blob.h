/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in secure memory that grow up to a ceiling: replies, requests, credentials. A blob is its
 * owner's alone. Small ones live in pools of the process: secure memory of its own costs several
 * system calls, which every exchange would pay for many times.
 */
#ifndef KMS_BACKEND_REST_BLOB_H
#define KMS_BACKEND_REST_BLOB_H

#include "common/span.h"
#include "common/status.h"

/* Zeroed: empty, without memory. */
struct kms_blob {
    uint8_t *data; /* a NUL follows the bytes once there is memory */
    size_t len;
    size_t cap;
    struct kms_secure_pool *pool; /* that @data is a slot of; NULL: memory of its own */
};

/* Appends; KMS_E_TOO_LARGE and nothing done when it were more than @max, KMS_E_NOMEM. */
enum kms_status kms_blob_put(struct kms_blob *blob, struct kms_span bytes,
                             size_t max) KMS_MUST_CHECK;
/* Room for @size bytes in all, so that the address stays. */
enum kms_status kms_blob_reserve(struct kms_blob *blob, size_t size) KMS_MUST_CHECK;
void kms_blob_done(struct kms_blob *blob); /* wiped, empty again */

static inline struct kms_span kms_blob_span(const struct kms_blob *blob)
{
    return (struct kms_span){.data = blob->data, .len = blob->len};
}

#endif
