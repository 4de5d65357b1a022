/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/blob.h"

#include <pthread.h>
#include <string.h>

#include "common/secure.h"

#define SLOT_SIZE  8192 /* most requests and replies fit */
#define SLOT_COUNT 128

/* The one global of rest/; it stays until the process ends. NULL when there was no memory. */
static struct kms_secure_pool *pool;

static void make_pool(void)
{
    pool = kms_secure_pool_new(SLOT_SIZE, SLOT_COUNT);
}

static uint8_t *take(size_t size, bool *ret_is_slot, size_t *ret_cap)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint8_t *data = NULL;

    (void)pthread_once(&once, make_pool);
    if (size <= SLOT_SIZE && pool != NULL) {
        data = kms_secure_pool_take(pool);
    }
    *ret_is_slot = data != NULL;
    *ret_cap = data != NULL ? SLOT_SIZE : size;
    return data != NULL ? data : kms_secure_new(size);
}

static void give(struct kms_blob *blob)
{
    if (blob->is_slot) {
        kms_secure_pool_give(pool, blob->data); /* wipes */
    } else {
        kms_secure_free(blob->data);
    }
}

enum kms_status kms_blob_reserve(struct kms_blob *blob, size_t size)
{
    struct kms_blob fresh = {.len = blob->len};

    if (size < blob->cap) { /* one byte is the NUL's */
        return KMS_OK;
    }
    fresh.data = take(size + 1, &fresh.is_slot, &fresh.cap);
    if (fresh.data == NULL) {
        return KMS_E_NOMEM;
    }
    if (blob->len > 0) {
        memcpy(fresh.data, blob->data, blob->len);
    }
    give(blob);
    *blob = fresh;
    return KMS_OK;
}

enum kms_status kms_blob_put(struct kms_blob *blob, struct kms_span bytes, size_t max)
{
    size_t need = 0;
    size_t size = SLOT_SIZE - 1;

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
    give(blob);
    *blob = (struct kms_blob){.data = NULL};
}
