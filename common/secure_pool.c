/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pools of common/secure.h, over kms_secure_new() of whichever implementation is linked:
 * secure.c in our own programs, secure_plain.c in the module.
 */
#include "common/secure.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define SECURE_ALIGN ((size_t)16) /* what malloc() gives on the machines we build for */

/*
 * The free slots form a stack, linked by index in @next, outside of the slots, which are wiped. Its
 * head holds the top slot's number in the low half (SLOT_END: empty) and, in the high half, a count
 * of changes: a thread that was stopped between reading the head and swapping it then sees that
 * others took and gave in between (the ABA problem).
 */
#define SLOT_END   UINT32_MAX
#define SLOT_TAKEN (UINT32_MAX - 1) /* in @next of a slot that is out */

struct kms_secure_pool {
    uint8_t *slots;
    size_t slot_size;
    uint32_t slot_count;
    _Atomic uint64_t head;
    _Atomic uint32_t next[];
};

static uint64_t head_with(uint64_t old, uint32_t top)
{
    return ((old >> 32) + 1) << 32 | top;
}

struct kms_secure_pool *kms_secure_pool_new(size_t slot_size, size_t slot_count)
{
    size_t rounded = (slot_size + SECURE_ALIGN - 1) & ~(SECURE_ALIGN - 1);
    struct kms_secure_pool *pool;

    if (rounded == 0 || rounded < slot_size || slot_count == 0 || slot_count >= SLOT_TAKEN ||
        slot_count > SIZE_MAX / 2 / rounded) {
        return NULL;
    }
    pool = calloc(1, sizeof(*pool) + slot_count * sizeof(pool->next[0]));
    if (pool == NULL) {
        return NULL;
    }
    pool->slots = kms_secure_new(rounded * slot_count);
    if (pool->slots == NULL) {
        free(pool);
        return NULL;
    }
    pool->slot_size = rounded;
    pool->slot_count = (uint32_t)slot_count;
    for (uint32_t i = 0; i < pool->slot_count; i++) {
        atomic_init(&pool->next[i], i + 1 < pool->slot_count ? i + 1 : SLOT_END);
    }
    atomic_init(&pool->head, 0);
    return pool;
}

void kms_secure_pool_free(struct kms_secure_pool *pool)
{
    if (pool != NULL) {
        kms_secure_free(pool->slots);
        free(pool);
    }
}

void *kms_secure_pool_take(struct kms_secure_pool *pool)
{
    uint64_t head = atomic_load_explicit(&pool->head, memory_order_acquire);
    uint32_t top;
    uint32_t next;

    do {
        top = (uint32_t)head;
        if (top == SLOT_END) {
            return NULL;
        }
        next = atomic_load_explicit(&pool->next[top], memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&pool->head, &head, head_with(head, next),
                                                    memory_order_acquire, memory_order_acquire));
    atomic_store_explicit(&pool->next[top], SLOT_TAKEN, memory_order_relaxed);
    return pool->slots + (size_t)top * pool->slot_size;
}

/* The number of a slot that is out. A foreign or doubly given one is a bug like a double free(). */
static uint32_t slot_number(const struct kms_secure_pool *pool, const void *slot)
{
    uintptr_t offset = (uintptr_t)slot - (uintptr_t)pool->slots;
    size_t i = offset / pool->slot_size;

    if (i >= pool->slot_count || offset % pool->slot_size != 0 ||
        atomic_load_explicit(&pool->next[i], memory_order_relaxed) != SLOT_TAKEN) {
        abort();
    }
    return (uint32_t)i;
}

void kms_secure_pool_give(struct kms_secure_pool *pool, void *slot)
{
    uint64_t head;
    uint32_t i;

    if (slot == NULL) {
        return;
    }
    i = slot_number(pool, slot);
    kms_wipe(slot, pool->slot_size);
    head = atomic_load_explicit(&pool->head, memory_order_relaxed);
    do {
        atomic_store_explicit(&pool->next[i], (uint32_t)head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&pool->head, &head, head_with(head, i),
                                                    memory_order_release, memory_order_relaxed));
}
