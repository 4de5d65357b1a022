/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/blob.h"

#include <pthread.h>
#include <string.h>

#include "common/secure.h"

#define FIRST 4095 /* with the NUL a slot of 4096; most replies fit */

/*
 * A call makes half a dozen blobs, and guarded memory costs half a dozen system calls each: more
 * than the rest of the call. So the usual sizes come from pools, which the program keeps; what is
 * longer, or too much at once, has memory of its own.
 */
static const struct {
    size_t size;
    size_t count;
} classes[] = {{512, 256}, {4096, 128}, {16384, 16}};
#define CLASS_COUNT (sizeof(classes) / sizeof(classes[0]))

static struct kms_secure_pool *pools[CLASS_COUNT]; /* NULL: no memory for it */
static pthread_once_t pools_once = PTHREAD_ONCE_INIT;

static void pools_make(void)
{
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        pools[i] = kms_secure_pool_new(classes[i].size, classes[i].count);
    }
}

static bool take(size_t size, struct kms_blob *ret_blob)
{
    (void)pthread_once(&pools_once, pools_make);
    *ret_blob = (struct kms_blob){.cap = size};
    for (size_t i = 0; i < CLASS_COUNT && ret_blob->data == NULL; i++) {
        if (size <= classes[i].size && pools[i] != NULL) {
            ret_blob->data = kms_secure_pool_take(pools[i]);
            ret_blob->pool = pools[i];
            ret_blob->cap = classes[i].size;
        }
    }
    if (ret_blob->data == NULL) {
        *ret_blob = (struct kms_blob){.data = kms_secure_new(size), .cap = size};
    }
    return ret_blob->data != NULL;
}

enum kms_status kms_blob_reserve(struct kms_blob *blob, size_t size)
{
    struct kms_blob bigger;

    if (size < blob->cap) { /* one byte is the NUL's */
        return KMS_OK;
    }
    if (!take(size + 1, &bigger)) {
        return KMS_E_NOMEM;
    }
    if (blob->len > 0) {
        memcpy(bigger.data, blob->data, blob->len);
    }
    bigger.len = blob->len;
    kms_blob_done(blob);
    *blob = bigger;
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
        size = 4 * (size + 1) - 1;
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
    if (blob->pool != NULL) {
        kms_secure_pool_give(blob->pool, blob->data); /* wipes, as the other does */
    } else {
        kms_secure_free(blob->data);
    }
    *blob = (struct kms_blob){.data = NULL};
}
