/* SPDX-License-Identifier: Apache-2.0 */
/* Input that is gathered for one request, in secure memory. */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/token.h"

#define GATHER_FIRST 4096

static CK_RV grow(struct kms_gather *gather, size_t least, size_t max)
{
    size_t cap = gather->cap == 0 ? GATHER_FIRST : gather->cap;
    uint8_t *data = NULL;

    while (cap < least) {
        cap *= 2;
    }
    cap = cap > max && max >= least ? max : cap;
    data = kms_secure_new(cap);
    if (data == NULL) {
        return CKR_HOST_MEMORY;
    }
    if (gather->len > 0) {
        memcpy(data, gather->data, gather->len);
    }
    kms_secure_free(gather->data);
    gather->data = data;
    gather->cap = cap;
    return CKR_OK;
}

CK_RV kms_gather_put(struct kms_gather *gather, struct kms_span bytes, size_t max, CK_RV too_long)
{
    CK_RV rv = CKR_OK;

    if (bytes.len > max || gather->len > max - bytes.len) {
        return kms_p11_refuse(too_long, "a token's key takes at most %zu bytes at a time", max);
    }
    if (bytes.len == 0) {
        return CKR_OK;
    }
    if (gather->cap - gather->len < bytes.len) {
        rv = grow(gather, gather->len + bytes.len, max);
    }
    if (rv == CKR_OK) {
        memcpy(gather->data + gather->len, bytes.data, bytes.len);
        gather->len += bytes.len;
    }
    return rv;
}

void kms_gather_done(struct kms_gather *gather)
{
    kms_secure_free(gather->data);
    *gather = (struct kms_gather){.data = NULL};
}
