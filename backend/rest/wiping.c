/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/wiping.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/secure.h"

void *kms_wiping_malloc(size_t size)
{
    return malloc(size);
}

void *kms_wiping_calloc(size_t count, size_t size)
{
    return calloc(count, size);
}

void kms_wiping_free(void *ptr)
{
    if (ptr != NULL) {
        kms_wipe(ptr, malloc_usable_size(ptr));
        free(ptr);
    }
}

/* Never in place by realloc(), which may move the bytes and leave the old ones behind. */
void *kms_wiping_realloc(void *ptr, size_t size)
{
    size_t old = ptr == NULL ? 0 : malloc_usable_size(ptr);
    void *fresh = NULL;

    if (ptr != NULL && size > 0 && size <= old && size >= old / 2) {
        return ptr;
    }
    fresh = malloc(size > 0 ? size : 1);
    if (fresh != NULL && ptr != NULL) {
        memcpy(fresh, ptr, old < size ? old : size);
        kms_wiping_free(ptr);
    }
    return fresh;
}

char *kms_wiping_strdup(const char *text)
{
    return strdup(text);
}

_Thread_local struct kms_received *kms_receiving;

/* That of @session, or a free one; KMS_RECEIVED_MAX: there is none. */
static size_t part_of(const struct kms_received *received, const void *session)
{
    size_t empty = KMS_RECEIVED_MAX;

    for (size_t i = 0; i < KMS_RECEIVED_MAX; i++) {
        if (received->parts[i].session == session) {
            return i;
        }
        if (received->parts[i].session == NULL && empty == KMS_RECEIVED_MAX) {
            empty = i;
        }
    }
    return empty;
}

void kms_received_note(const void *session, const uint8_t *bytes, size_t taken, size_t len)
{
    uint8_t *start = (uint8_t *)(uintptr_t)bytes;
    struct kms_received_part *part = NULL;
    size_t i = KMS_RECEIVED_MAX;

    if (kms_receiving == NULL || (i = part_of(kms_receiving, session)) == KMS_RECEIVED_MAX) {
        return;
    }
    part = &kms_receiving->parts[i];
    if (part->session == NULL) {
        *part = (struct kms_received_part){.session = session, .start = start, .end = start};
    }
    part->start = start < part->start ? start : part->start;
    part->end = start + taken > part->end ? start + taken : part->end;
    part->rest = start + taken;
    part->rest_end = start + len;
}

void kms_received_forget(const void *session)
{
    for (size_t i = 0; kms_receiving != NULL && i < KMS_RECEIVED_MAX; i++) {
        if (kms_receiving->parts[i].session == session) {
            kms_receiving->parts[i].session = NULL;
        }
    }
}

static void wipe_between(uint8_t *start, const uint8_t *end)
{
    if (start < end) {
        kms_wipe(start, (size_t)(end - start));
    }
}

void kms_received_wipe(struct kms_received *received)
{
    for (size_t i = 0; i < KMS_RECEIVED_MAX; i++) {
        struct kms_received_part *part = &received->parts[i];

        if (part->session != NULL) {
            wipe_between(part->start, part->end < part->rest ? part->end : part->rest);
            wipe_between(part->rest_end, part->end);
            part->session = NULL;
        }
    }
}
