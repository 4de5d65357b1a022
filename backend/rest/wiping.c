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
