/* SPDX-License-Identifier: Apache-2.0 */
#include "common/secure.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* What @fn returns in a child process that may lose rights or die; -1 when a signal ended it. */
static int in_child(int (*fn)(void))
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(fn());
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        return -1;
    }
    return WEXITSTATUS(status);
}

static void new_is_zeroed_and_aligned(void)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 100, 4096, 70000};

    for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
        uint8_t *ptr = kms_secure_new(sizes[i]);

        if (UNIT_CHECK("not NULL", ptr != NULL)) {
            UNIT_CHECK("aligned", (uintptr_t)ptr % 16 == 0);
            UNIT_CHECK("zeroed", is_zero(ptr, sizes[i]));
            memset(ptr, 0xff, sizes[i]);
        }
        kms_secure_free(ptr);
    }
    CU_ASSERT_PTR_NULL(kms_secure_new(SIZE_MAX));
    CU_ASSERT_PTR_NULL(kms_secure_new(SIZE_MAX / 2));
    kms_secure_free(NULL);
}

/* As a container's default may be: no byte may be locked, and no privilege overrides that. */
static int use_without_lock_limit(void)
{
    const struct rlimit none = {0, 0};
    uint8_t *ptr;
    int failures = 0;

    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0)) {
        return 99;
    }
    /* sanitizers make mlock() succeed and do nothing */
    failures += kms_secure_can_lock(1) == (mlock(&none, sizeof(none)) == 0) ? 0 : 1;
    ptr = kms_secure_new(4096);
    if (ptr == NULL) {
        return 50;
    }
    memset(ptr, 1, 4096);
    failures += ptr[4095] == 1 ? 0 : 1;
    kms_secure_free(ptr);
    return failures;
}

static void works_where_nothing_can_be_locked(void)
{
    CU_ASSERT_EQUAL(in_child(use_without_lock_limit), 0);
}

static void can_lock_refuses_nonsense(void)
{
    CU_ASSERT_FALSE(kms_secure_can_lock(SIZE_MAX));
    CU_ASSERT_FALSE(kms_secure_can_lock(SIZE_MAX / 2));
}

static void wipe_and_compare(void)
{
    uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    kms_wipe(bytes, 4);
    CU_ASSERT_TRUE(is_zero(bytes, 4));
    CU_ASSERT_EQUAL(bytes[4], 5);
    kms_wipe(NULL, 0);
    CU_ASSERT_TRUE(kms_secret_equal("abc", "abc", 3));
    CU_ASSERT_TRUE(kms_secret_equal("abc", "abd", 2));
    CU_ASSERT_FALSE(kms_secret_equal("abc", "abd", 3));
    CU_ASSERT_FALSE(kms_secret_equal("abc", "xbc", 3));
    CU_ASSERT_TRUE(kms_secret_equal(NULL, NULL, 0));
}

static void random_fills_all(void)
{
    uint8_t first[64] = {0};
    uint8_t second[64] = {0};

    CU_ASSERT_EQUAL(kms_random(first, sizeof(first)), KMS_OK);
    CU_ASSERT_EQUAL(kms_random(second, sizeof(second) - 16), KMS_OK);
    CU_ASSERT_FALSE(kms_secret_equal(first, second, 16));
    CU_ASSERT_FALSE(is_zero(first + 48, 16)); /* once in 2^128 */
    CU_ASSERT_TRUE(is_zero(second + 48, 16));
    CU_ASSERT_EQUAL(kms_random(first, 0), KMS_OK);
}

static int harden(void)
{
    struct rlimit core = {1, 1};

    if (kms_secure_harden_process(NULL) != KMS_OK) {
        return 1;
    }
    if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_cur != 0 || core.rlim_max != 0) {
        return 2;
    }
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return 3;
    }
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 4;
}

static void hardening_holds(void)
{
    CU_ASSERT_EQUAL(in_child(harden), 0);
}

#define SLOTS 5

static void pool_gives_each_slot_once(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(40, SLOTS);
    uint8_t *slots[SLOTS];

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < SLOTS; i++) {
            slots[i] = kms_secure_pool_take(pool);
            CU_ASSERT_PTR_NOT_NULL_FATAL(slots[i]);
            CU_ASSERT_EQUAL((uintptr_t)slots[i] % 16, 0);
            CU_ASSERT_TRUE(is_zero(slots[i], 40));
            memset(slots[i], (int)i + 1, 40);
        }
        CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
        for (size_t i = 0; i < SLOTS; i++) {
            CU_ASSERT_EQUAL(slots[i][0], i + 1); /* nobody else wrote into it */
            CU_ASSERT_EQUAL(slots[i][39], i + 1);
            kms_secure_pool_give(pool, slots[i]);
            CU_ASSERT_TRUE(is_zero(slots[i], 40));
        }
    }
    kms_secure_pool_give(pool, NULL);
    kms_secure_pool_free(pool);
    kms_secure_pool_free(NULL);
}

static void pool_refuses_nonsense(void)
{
    CU_ASSERT_PTR_NULL(kms_secure_pool_new(0, 1));
    CU_ASSERT_PTR_NULL(kms_secure_pool_new(1, 0));
    CU_ASSERT_PTR_NULL(kms_secure_pool_new(SIZE_MAX, 1));
    CU_ASSERT_PTR_NULL(kms_secure_pool_new(SIZE_MAX / 4, 8));
    CU_ASSERT_PTR_NULL(kms_secure_pool_new(1, UINT32_MAX));
}

static int give_twice(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(16, 2);
    void *slot = kms_secure_pool_take(pool);

    (void)signal(SIGABRT, SIG_DFL);
    kms_secure_pool_give(pool, slot);
    kms_secure_pool_give(pool, slot);
    return 0;
}

static int give_foreign(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(16, 2);
    uint8_t *slot = kms_secure_pool_take(pool);

    kms_secure_pool_give(pool, slot + 1);
    return 0;
}

static void pool_stops_on_misuse(void)
{
    CU_ASSERT_EQUAL(in_child(give_twice), -1);
    CU_ASSERT_EQUAL(in_child(give_foreign), -1);
}

#define THREADS 4
#define ROUNDS  20000

static atomic_uint collisions;

/* Marks its slot: a slot that two threads hold at once shows. */
static void *take_and_give(void *arg)
{
    struct kms_secure_pool *pool = arg;
    uint64_t mark = (uint64_t)(uintptr_t)&mark;

    for (size_t i = 0; i < ROUNDS; i++) {
        volatile uint64_t *slot = kms_secure_pool_take(pool);

        if (slot == NULL) {
            continue;
        }
        if (*slot != 0) {
            atomic_fetch_add(&collisions, 1);
        }
        *slot = mark;
        if (*slot != mark) {
            atomic_fetch_add(&collisions, 1);
        }
        kms_secure_pool_give(pool, (void *)(uintptr_t)slot);
    }
    return NULL;
}

static void pool_under_threads(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(32, THREADS - 1);
    pthread_t threads[THREADS];
    size_t left = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    for (size_t i = 0; i < THREADS; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, take_and_give, pool), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    CU_ASSERT_EQUAL(atomic_load(&collisions), 0);
    while (kms_secure_pool_take(pool) != NULL) {
        left++;
    }
    CU_ASSERT_EQUAL(left, THREADS - 1);
    kms_secure_pool_free(pool);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"new is zeroed and aligned", new_is_zeroed_and_aligned},
        {"works where nothing can be locked", works_where_nothing_can_be_locked},
        {"can_lock refuses nonsense", can_lock_refuses_nonsense},
        {"wipe and compare", wipe_and_compare},
        {"random fills all", random_fills_all},
        {"hardening holds", hardening_holds},
        {"pool gives each slot once", pool_gives_each_slot_once},
        {"pool refuses nonsense", pool_refuses_nonsense},
        {"pool stops on misuse", pool_stops_on_misuse},
        {"pool under threads", pool_under_threads},
    };

    if (kms_secure_init() != KMS_OK || kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("test_secure", tests, UNIT_COUNT(tests));
}
