/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/blob.h"

#include <pthread.h>
#include <string.h>

#include "common/secure.h"

/*
 * The one global of rest/; the pools stay until the process ends. Behind the last slot a blob has
 * memory of its own.
 */
static struct slots {
    size_t size;
    size_t count;
    struct kms_secure_pool *pool; /* NULL when there was no memory */
} kinds[] = {
    {.size = 1024, .count = 2048}, /* most requests and replies fit */
    {.size = 8192, .count = 256},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void make_pools(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        kinds[i].pool = kms_secure_pool_new(kinds[i].size, kinds[i].count);
    }
}

static bool take_slot(size_t size, struct kms_blob *ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct slots *slots = kinds;

    (void)pthread_once(&once, make_pools);
    while (slots < kinds + KINDS && slots->size < size) {
        slots++;
    }
    if (slots == kinds + KINDS || slots->pool == NULL) {
        return false;
    }
    ret->pool = slots->pool;
    ret->data = kms_secure_pool_take(slots->pool);
    ret->cap = slots->size;
    return ret->data != NULL;
}

/* Memory for @size bytes to @ret, whose length stays. */
static bool take(size_t size, struct kms_blob *ret)
{
    if (take_slot(size, ret)) {
        return true;
    }
    ret->pool = NULL;
    ret->data = kms_secure_new(size);
    ret->cap = size;
    return ret->data != NULL;
}

static void give(struct kms_blob *blob)
{
    if (blob->pool != NULL) {
        kms_secure_pool_give(blob->pool, blob->data); /* wipes */
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
    if (!take(size + 1, &fresh)) {
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
    size_t size = kinds[0].size - 1;

    if (bytes.len > max || blob->len > max - bytes.len) {
        return KMS_E_TOO_LARGE;
    }
    need = blob->len + bytes.len;
    while (size < need) {
        size = size * 8 + 7; /* the next kind of slot; beyond, so that few copies are made */
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
