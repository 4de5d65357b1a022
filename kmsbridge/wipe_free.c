/* SPDX-License-Identifier: Apache-2.0 */
/*
 * free() and realloc() of the whole daemon, libraries included: what is given back to the heap is
 * wiped first.
 *
 * Plaintext DEKs pass through memory that is not ours: gRPC's read and write buffers, the PKCS#11
 * module's and libcrypto's scratch. All of it is released through free(), which the dynamic linker
 * finds here before libc's. So nothing freed keeps a secret, whoever freed it. What is still
 * allocated is wiped by its owner (rpc.c wipes the payload inside gRPC's receive buffers). The cost
 * is one memset of the block's size.
 *
 * glibc: interposing these two and leaving malloc, calloc and memalign to libc is sound, because
 * ours hand on to libc's own (__libc_free, GLIBC_2.2.5). A sanitizer brings its own allocator: then
 * this file is empty.
 */
#include "config.h"

#ifndef KMS_SANITIZED

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* glibc's own free(); exported, declared nowhere */
extern void __libc_free(void *ptr);

void free(void *ptr)
{
    if (ptr == NULL) {
        return;
    }
    int saved = errno;
    explicit_bzero(ptr, malloc_usable_size(ptr));
    __libc_free(ptr);
    errno = saved;
}

/* Never in place when it grows: the old block is wiped like any other. */
void *realloc(void *ptr, size_t size)
{
    if (ptr == NULL) {
        return malloc(size);
    }
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    size_t have = malloc_usable_size(ptr);
    if (size <= have && size > have / 2) {
        return ptr;
    }
    void *moved = malloc(size);
    if (moved == NULL) {
        return NULL;
    }
    memcpy(moved, ptr, size < have ? size : have);
    free(ptr);
    return moved;
}

#else
typedef int kms_wipe_free_is_empty;
#endif
