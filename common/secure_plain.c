/* SPDX-License-Identifier: Apache-2.0 */
/*
 * common/secure.h without libsodium, for the PKCS#11 module: a host process gets no library that it
 * did not ask for. What only a daemon does (kms_secure_harden_process(), kms_secure_can_lock()) is
 * left out: a guest does not change its host.
 *
 * Memory comes in mappings with an inaccessible page before and behind, locked as far as the host's
 * limit allows, excluded from core dumps. A mapping begins with a header at a multiple of
 * MAP_ALIGN, so that the header of any pointer is found by a mask. Secrets up to CLASS_MAX bytes
 * share mappings: pools of equal slots (secure_pool.c), by size; longer ones have a mapping each.
 *
 * fork(): the child keeps its parent's keys and may use them, so MADV_DONTFORK and MADV_WIPEONFORK
 * are not for us; it holds no lock of its parent's threads, because there is none here. Locks on
 * memory are not inherited; that a child of a host may be swapped out is the host's choice.
 */
#include "common/secure.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MAP_ALIGN   ((size_t)256 * 1024) /* more than a header and any page */
#define HEADER_SIZE ((size_t)64)
#define SLOT_ALIGN  ((size_t)16) /* what malloc() gives on the machines we build for */

#define CLASS_MIN_SHIFT 5 /* 32 bytes */
#define CLASS_COUNT     8 /* up to 4096 */
#define CLASS_MAX       ((size_t)1 << (CLASS_MIN_SHIFT + CLASS_COUNT - 1))
#define CLASS_BYTES     ((size_t)32 * 1024) /* one pool's mapping */

struct header {
    size_t len;  /* of what can be accessed, with this */
    size_t size; /* of the one secret in it, rounded; 0: slots of ->pool */
    _Atomic(struct kms_secure_pool *) pool;
};

/* The pools of one size, newest first; never taken away, so that a list is walked without a lock.
 */
struct pool_node {
    struct kms_secure_pool *pool;
    struct pool_node *next;
};
static _Atomic(struct pool_node *) classes[CLASS_COUNT];

enum kms_status kms_secure_init(void)
{
    return KMS_OK;
}

/* ---- mappings ----------------------------------------------------------------------------- */

static size_t page_size(void)
{
    long page = sysconf(_SC_PAGESIZE);

    return page > 0 ? (size_t)page : 4096;
}

static struct header *header_of(const void *ptr)
{
    return (struct header *)((uintptr_t)ptr & ~(uintptr_t)(MAP_ALIGN - 1));
}

/* Address space only, @len bytes at a multiple of MAP_ALIGN with a page on either side. */
static uint8_t *reserve(size_t len, size_t page)
{
    size_t all = len + 2 * page + MAP_ALIGN;
    uint8_t *map = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *base;
    size_t before;
    size_t behind;

    if (map == MAP_FAILED) {
        return NULL;
    }
    before = (MAP_ALIGN - ((uintptr_t)map + page) % MAP_ALIGN) % MAP_ALIGN;
    base = map + before + page;
    behind = all - before - len - 2 * page;
    if (before > 0) {
        (void)munmap(map, before);
    }
    if (behind > 0) {
        (void)munmap(base + len + page, behind);
    }
    return base;
}

/* A secret that ends at the inaccessible page. */
static void *map_new(size_t size)
{
    size_t page = page_size();
    size_t rounded = (size + SLOT_ALIGN - 1) & ~(SLOT_ALIGN - 1);
    size_t len = 0;
    struct header *header;
    uint8_t *base;

    if (size > SIZE_MAX / 4) {
        return NULL;
    }
    len = (HEADER_SIZE + rounded + page - 1) / page * page;
    base = reserve(len, page);
    if (base == NULL) {
        return NULL;
    }
    if (mprotect(base, len, PROT_READ | PROT_WRITE) != 0) {
        (void)munmap(base - page, len + 2 * page);
        return NULL;
    }
    (void)madvise(base, len, MADV_DONTDUMP);
    (void)mlock(base, len);
    header = (struct header *)(void *)base;
    header->len = len;
    header->size = rounded;
    atomic_init(&header->pool, NULL);
    return base + len - rounded;
}

static void map_free(struct header *header, void *ptr)
{
    size_t page = page_size();

    explicit_bzero(ptr, header->size);
    (void)munmap((uint8_t *)header - page, header->len + 2 * page);
}

/* ---- small ones --------------------------------------------------------------------------- */

static unsigned class_of(size_t size)
{
    unsigned row = 0;

    while (((size_t)1 << (CLASS_MIN_SHIFT + row)) < size) {
        row++;
    }
    return row;
}

/* One more pool; another thread may add one at the same time, which does no harm. */
static struct pool_node *class_grow(unsigned row)
{
    size_t size = (size_t)1 << (CLASS_MIN_SHIFT + row);
    struct pool_node *node = malloc(sizeof(*node));

    if (node == NULL) {
        return NULL;
    }
    node->pool = kms_secure_pool_new(size, (CLASS_BYTES - HEADER_SIZE) / size);
    if (node->pool == NULL) {
        free(node);
        return NULL;
    }
    node->next = atomic_load(&classes[row]);
    while (!atomic_compare_exchange_weak(&classes[row], &node->next, node)) {
    }
    return node;
}

static void *class_take(unsigned row)
{
    struct pool_node *node = atomic_load(&classes[row]);
    void *ptr = NULL;

    while (node != NULL && (ptr = kms_secure_pool_take(node->pool)) == NULL) {
        node = node->next;
    }
    /* more than once only when other threads empty a new pool before this one comes to it */
    while (ptr == NULL) {
        node = class_grow(row);
        if (node == NULL) {
            return NULL;
        }
        ptr = kms_secure_pool_take(node->pool);
    }
    atomic_store_explicit(&header_of(ptr)->pool, node->pool, memory_order_relaxed);
    return ptr;
}

/* ---- the interface ------------------------------------------------------------------------ */

void *kms_secure_new(size_t size)
{
    return size <= CLASS_MAX ? class_take(class_of(size)) : map_new(size);
}

void kms_secure_free(void *ptr)
{
    struct header *header;
    struct kms_secure_pool *pool;

    if (ptr == NULL) {
        return;
    }
    header = header_of(ptr);
    pool = atomic_load_explicit(&header->pool, memory_order_relaxed);
    if (pool != NULL) {
        kms_secure_pool_give(pool, ptr);
    } else {
        map_free(header, ptr);
    }
}

void kms_wipe(void *ptr, size_t size)
{
    if (size > 0) {
        explicit_bzero(ptr, size);
    }
}

enum kms_status kms_random(void *ret_bytes, size_t size)
{
    uint8_t *at = ret_bytes;

    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);

        if (got < 0 && errno != EINTR) {
            return KMS_E_INTERNAL;
        }
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
    return KMS_OK;
}

bool kms_secret_equal(const void *a, const void *b, size_t size)
{
    const volatile uint8_t *left = a;
    const volatile uint8_t *right = b;
    uint8_t differs = 0;

    for (size_t i = 0; i < size; i++) {
        differs = (uint8_t)(differs | (left[i] ^ right[i]));
    }
    return differs == 0;
}
