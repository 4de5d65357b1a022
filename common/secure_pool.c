/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pools of common/secure.h, over kms_secure_new() of whichever implementation is linked:
 * secure.c in our own programs, secure_plain.c in the module.
 */
#include "common/secure.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define SECURE_ALIGN ((size_t)16) /* what malloc() gives on the machines we build for */
#define CHUNK_BYTES  ((size_t)65536)
#define CHUNKS_MAX   256

/*
 * Slots are made in chunks, a chunk when those before it are empty: locked memory is resident, and
 * most processes never need as much as they may have. A chunk stays until the pool goes.
 *
 * The free slots of a chunk form a stack, linked by index in @next, outside of the slots, which are
 * wiped. Its head holds the top slot's number in the low half (SLOT_END: empty) and, in the high
 * half, a count of changes: a thread that was stopped between reading the head and swapping it then
 * sees that others took and gave in between (the ABA problem).
 */
#define SLOT_END   UINT32_MAX
#define SLOT_TAKEN (UINT32_MAX - 1) /* in @next of a slot that is out */

struct chunk {
    uint8_t *slots;
    uint32_t slot_count;
    _Atomic uint64_t head;
    _Atomic uint32_t next[];
};

struct kms_secure_pool {
    size_t slot_size;
    size_t slot_count; /* at most, in all chunks */
    size_t per_chunk;
    size_t chunk_count; /* at most */
    pthread_mutex_t growing;
    _Atomic(struct chunk *) chunks[]; /* the first ones are there */
};

static uint64_t head_with(uint64_t old, uint32_t top)
{
    return ((old >> 32) + 1) << 32 | top;
}

static struct chunk *chunk_new(size_t slot_size, size_t slot_count)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk) + slot_count * sizeof(chunk->next[0]));

    if (chunk == NULL) {
        return NULL;
    }
    chunk->slots = kms_secure_new(slot_size * slot_count);
    if (chunk->slots == NULL) {
        free(chunk);
        return NULL;
    }
    chunk->slot_count = (uint32_t)slot_count;
    for (uint32_t i = 0; i < chunk->slot_count; i++) {
        atomic_init(&chunk->next[i], i + 1 < chunk->slot_count ? i + 1 : SLOT_END);
    }
    atomic_init(&chunk->head, 0);
    return chunk;
}

/* The @i-th chunk, made now if it was not; NULL without memory. */
static struct chunk *chunk_at(struct kms_secure_pool *pool, size_t i)
{
    struct chunk *chunk = atomic_load_explicit(&pool->chunks[i], memory_order_acquire);

    if (chunk != NULL) {
        return chunk;
    }
    (void)pthread_mutex_lock(&pool->growing);
    chunk = atomic_load_explicit(&pool->chunks[i], memory_order_relaxed);
    if (chunk == NULL) {
        size_t left = pool->slot_count - i * pool->per_chunk;

        chunk = chunk_new(pool->slot_size, left < pool->per_chunk ? left : pool->per_chunk);
        atomic_store_explicit(&pool->chunks[i], chunk, memory_order_release);
    }
    (void)pthread_mutex_unlock(&pool->growing);
    return chunk;
}

struct kms_secure_pool *kms_secure_pool_new(size_t slot_size, size_t slot_count)
{
    size_t rounded = (slot_size + SECURE_ALIGN - 1) & ~(SECURE_ALIGN - 1);
    struct kms_secure_pool *pool;
    size_t per_chunk;
    size_t chunks;

    if (rounded == 0 || rounded < slot_size || slot_count == 0 || slot_count >= SLOT_TAKEN ||
        slot_count > SIZE_MAX / 2 / rounded) {
        return NULL;
    }
    per_chunk = rounded < CHUNK_BYTES ? CHUNK_BYTES / rounded : 1;
    if ((slot_count - 1) / per_chunk >= CHUNKS_MAX) {
        per_chunk = (slot_count - 1) / CHUNKS_MAX + 1;
    }
    chunks = (slot_count - 1) / per_chunk + 1;
    pool = calloc(1, sizeof(*pool) + chunks * sizeof(pool->chunks[0]));
    if (pool == NULL) {
        return NULL;
    }
    pool->slot_size = rounded;
    pool->slot_count = slot_count;
    pool->per_chunk = per_chunk;
    pool->chunk_count = chunks;
    (void)pthread_mutex_init(&pool->growing, NULL);
    if (chunk_at(pool, 0) == NULL) {
        kms_secure_pool_free(pool);
        return NULL;
    }
    return pool;
}

void kms_secure_pool_free(struct kms_secure_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    for (size_t i = 0; i < pool->chunk_count && pool->chunks[i] != NULL; i++) {
        kms_secure_free(pool->chunks[i]->slots);
        free(pool->chunks[i]);
    }
    (void)pthread_mutex_destroy(&pool->growing);
    free(pool);
}

static void *take_of(const struct kms_secure_pool *pool, struct chunk *chunk)
{
    uint64_t head = atomic_load_explicit(&chunk->head, memory_order_acquire);
    uint32_t top;
    uint32_t next;

    do {
        top = (uint32_t)head;
        if (top == SLOT_END) {
            return NULL;
        }
        next = atomic_load_explicit(&chunk->next[top], memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&chunk->head, &head, head_with(head, next),
                                                    memory_order_acquire, memory_order_acquire));
    atomic_store_explicit(&chunk->next[top], SLOT_TAKEN, memory_order_relaxed);
    return chunk->slots + (size_t)top * pool->slot_size;
}

void *kms_secure_pool_take(struct kms_secure_pool *pool)
{
    for (size_t i = 0; i < pool->chunk_count; i++) {
        struct chunk *chunk = chunk_at(pool, i);
        void *slot = chunk == NULL ? NULL : take_of(pool, chunk);

        if (chunk == NULL || slot != NULL) {
            return slot;
        }
    }
    return NULL;
}

static bool is_in(const struct kms_secure_pool *pool, const struct chunk *chunk, const void *slot)
{
    return (uintptr_t)slot - (uintptr_t)chunk->slots <
           (uintptr_t)(chunk->slot_count * pool->slot_size);
}

/* The chunk of a slot that is out. A foreign or doubly given one is a bug like a double free(). */
static struct chunk *chunk_of(const struct kms_secure_pool *pool, const void *slot,
                              uint32_t *ret_number)
{
    for (size_t i = 0; i < pool->chunk_count; i++) {
        struct chunk *chunk = atomic_load_explicit(&pool->chunks[i], memory_order_acquire);

        if (chunk == NULL) {
            break;
        }
        if (is_in(pool, chunk, slot)) {
            size_t offset = (size_t)((uintptr_t)slot - (uintptr_t)chunk->slots);

            *ret_number = (uint32_t)(offset / pool->slot_size);
            if (offset % pool->slot_size == 0 &&
                atomic_load_explicit(&chunk->next[*ret_number], memory_order_relaxed) ==
                    SLOT_TAKEN) {
                return chunk;
            }
            break;
        }
    }
    abort();
}

void kms_secure_pool_give(struct kms_secure_pool *pool, void *slot)
{
    struct chunk *chunk;
    uint64_t head;
    uint32_t i;

    if (slot == NULL) {
        return;
    }
    chunk = chunk_of(pool, slot, &i);
    kms_wipe(slot, pool->slot_size);
    head = atomic_load_explicit(&chunk->head, memory_order_relaxed);
    do {
        atomic_store_explicit(&chunk->next[i], (uint32_t)head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&chunk->head, &head, head_with(head, i),
                                                    memory_order_release, memory_order_relaxed));
}
