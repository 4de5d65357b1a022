/* SPDX-License-Identifier: Apache-2.0 */
/* How a pool of common/secure.h grows; what a small one does is in test_secure.c. */
#include "common/secure.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "tests/unit/fail_alloc.h"
#include "tests/unit/unit.h"

#define SLOT_SIZE ((size_t)4096)
#define SLOTS     ((size_t)42) /* of this size, 16 stand in a chunk: two whole ones and a part */
#define CHUNK     ((size_t)16)

static bool is_all(const uint8_t *bytes, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

/* Takes @count zeroed slots and marks each whole as its own. */
static void take_and_mark(struct kms_secure_pool *pool, uint8_t **slots, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        slots[i] = kms_secure_pool_take(pool);
        CU_ASSERT_PTR_NOT_NULL_FATAL(slots[i]);
        CU_ASSERT_EQUAL((uintptr_t)slots[i] % 16, 0);
        CU_ASSERT_TRUE(is_all(slots[i], 0, SLOT_SIZE));
        memset(slots[i], (int)i + 1, SLOT_SIZE);
    }
}

/* Each is as it was marked; gives it back, and what was in it is gone. */
static void check_and_give(struct kms_secure_pool *pool, uint8_t **slots, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT_TRUE(is_all(slots[i], (uint8_t)(i + 1), SLOT_SIZE));
        kms_secure_pool_give(pool, slots[i]);
        CU_ASSERT_TRUE(is_all(slots[i], 0, SLOT_SIZE));
    }
}

static void it_grows_to_its_bound(void)
{
    static const size_t counts[] = {1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, SLOTS};

    for (size_t row = 0; row < UNIT_COUNT(counts); row++) {
        struct kms_secure_pool *pool = kms_secure_pool_new(SLOT_SIZE, counts[row]);
        uint8_t *slots[SLOTS];

        CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
        for (unsigned round = 0; round < 2; round++) {
            take_and_mark(pool, slots, counts[row]);
            CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
            check_and_give(pool, slots, counts[row]);
        }
        kms_secure_pool_free(pool);
    }
}

/* A slot of a later chunk is as good as one of the first. */
static void any_slot_comes_again(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(SLOT_SIZE, SLOTS);
    uint8_t *slots[SLOTS];

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    take_and_mark(pool, slots, SLOTS);
    for (size_t i = 0; i < SLOTS; i++) {
        kms_secure_pool_give(pool, slots[i]);
        CU_ASSERT_PTR_EQUAL(kms_secure_pool_take(pool), slots[i]); /* the only one that is free */
        CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
        memset(slots[i], (int)i + 1, SLOT_SIZE);
    }
    check_and_give(pool, slots, SLOTS);
    kms_secure_pool_free(pool);
}

/* Memory is taken as it is needed. Without any, what there is goes on, and growing is tried anew.
 */
static void growing_may_fail(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(SLOT_SIZE, SLOTS);
    uint8_t *slots[SLOTS];

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    fail_alloc_set(1);
    take_and_mark(pool, slots, CHUNK);
    CU_ASSERT_FALSE(fail_alloc_clear()); /* the first chunk was there */
    for (unsigned nth = 1; nth <= 2; nth++) {
        fail_alloc_set(nth);
        CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
        CU_ASSERT_TRUE(fail_alloc_clear());
    }
    kms_secure_pool_give(pool, slots[0]);
    fail_alloc_set(1);
    take_and_mark(pool, slots, 1);
    CU_ASSERT_FALSE(fail_alloc_clear());
    take_and_mark(pool, slots + CHUNK, 1);
    memset(slots[CHUNK], (int)CHUNK + 1, SLOT_SIZE);
    check_and_give(pool, slots, CHUNK + 1);
    kms_secure_pool_free(pool);
    for (unsigned nth = 1; nth <= 3; nth++) { /* the pool, its chunk, and the slots of that */
        fail_alloc_set(nth);
        CU_ASSERT_PTR_NULL(kms_secure_pool_new(SLOT_SIZE, SLOTS));
        CU_ASSERT_TRUE(fail_alloc_clear());
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS  200

struct taker {
    struct kms_secure_pool *pool;
    pthread_barrier_t *together;
    uint8_t mark;
    size_t taken;
    size_t spoiled;
    size_t most;
    pthread_t thread;
};

static void take_what_there_is(struct taker *taker, uint8_t **slots)
{
    taker->taken = 0;
    while (taker->taken < SLOTS && (slots[taker->taken] = kms_secure_pool_take(taker->pool))) {
        taker->spoiled += is_all(slots[taker->taken], 0, SLOT_SIZE) ? 0 : 1;
        memset(slots[taker->taken++], taker->mark, SLOT_SIZE);
    }
}

static void *take_and_give(void *ctx)
{
    struct taker *taker = ctx;
    uint8_t *slots[SLOTS];

    (void)pthread_barrier_wait(taker->together); /* all find a pool that must grow */
    for (unsigned round = 0; round < ROUNDS; round++) {
        take_what_there_is(taker, slots);
        taker->most = taker->taken > taker->most ? taker->taken : taker->most;
        while (taker->taken > 0) {
            taker->spoiled += is_all(slots[--taker->taken], taker->mark, SLOT_SIZE) ? 0 : 1;
            kms_secure_pool_give(taker->pool, slots[taker->taken]);
        }
    }
    return NULL;
}

static void threads_grow_it_together(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(SLOT_SIZE, SLOTS);
    struct taker takers[THREADS];
    pthread_barrier_t together;
    uint8_t *slots[SLOTS];
    size_t most = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    (void)pthread_barrier_init(&together, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.pool = pool, .together = &together, .mark = (uint8_t)(i + 1)};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&takers[i].thread, NULL, take_and_give, &takers[i]),
                              0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(takers[i].thread, NULL);
        CU_ASSERT_EQUAL(takers[i].spoiled, 0);
        most = takers[i].most > most ? takers[i].most : most;
    }
    CU_ASSERT(most > 0 && most <= SLOTS);
    take_and_mark(pool, slots, SLOTS); /* none was lost, none is there twice */
    CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
    check_and_give(pool, slots, SLOTS);
    (void)pthread_barrier_destroy(&together);
    kms_secure_pool_free(pool);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"it grows to its bound", it_grows_to_its_bound},
        {"any slot comes again", any_slot_comes_again},
        {"growing may fail", growing_may_fail},
        {"threads grow it together", threads_grow_it_together},
    };

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("test_secure_pool", tests, UNIT_COUNT(tests));
}
