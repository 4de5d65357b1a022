/* SPDX-License-Identifier: Apache-2.0 */
/* common/secure_plain.c, and the pool over it. */
#include "common/secure.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
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

/* What @fn returns in a child; -1 when a signal ended it. */
static int in_child(int (*fn)(void *), void *arg)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        (void)signal(SIGABRT, SIG_DFL);
        _exit(fn(arg));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        return -1;
    }
    return WEXITSTATUS(status);
}

static const size_t sizes[] = {0,    1,    15,   16,   17,   32,    33,    100,
                               2048, 4095, 4096, 4097, 4100, 70000, 300000};

static void new_is_zeroed_and_aligned(void)
{
    for (size_t round = 0; round < 2; round++) { /* the second gets what the first gave back */
        for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
            uint8_t *ptr = kms_secure_new(sizes[i]);

            if (UNIT_CHECK("not NULL", ptr != NULL)) {
                UNIT_CHECK("aligned", (uintptr_t)ptr % 16 == 0);
                UNIT_CHECK("zeroed", is_zero(ptr, sizes[i]));
                memset(ptr, 0xff, sizes[i]);
            }
            kms_secure_free(ptr);
        }
    }
    CU_ASSERT_PTR_NULL(kms_secure_new(SIZE_MAX));
    CU_ASSERT_PTR_NULL(kms_secure_new(SIZE_MAX / 2));
    kms_secure_free(NULL);
}

#define MANY 5000

static void many_do_not_overlap(void)
{
    static uint8_t *secrets[MANY];
    size_t wrong = 0;

    for (size_t i = 0; i < MANY; i++) {
        secrets[i] = kms_secure_new(8 + i % 200);
        CU_ASSERT_PTR_NOT_NULL_FATAL(secrets[i]);
        memset(secrets[i], (int)(i % 251), 8 + i % 200);
    }
    for (size_t i = 0; i < MANY; i++) {
        for (size_t at = 0; at < 8 + i % 200; at++) {
            wrong += secrets[i][at] != i % 251;
        }
        kms_secure_free(secrets[i]);
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* How many pages of memory a thousand small secrets cost. */
static void small_ones_share_pages(void)
{
    static uint8_t *secrets[1000];
    size_t pages = 0;

    for (size_t i = 0; i < UNIT_COUNT(secrets); i++) {
        secrets[i] = kms_secure_new(32);
        CU_ASSERT_PTR_NOT_NULL_FATAL(secrets[i]);
        if (i == 0 || (uintptr_t)secrets[i] / 4096 != (uintptr_t)secrets[i - 1] / 4096) {
            pages++;
        }
    }
    for (size_t i = 0; i < UNIT_COUNT(secrets); i++) {
        kms_secure_free(secrets[i]);
    }
    CU_ASSERT_TRUE(pages <= 40);
}

static int write_behind(void *arg)
{
    *(volatile uint8_t *)arg = 1;
    return 0;
}

/* A long one ends at its guard page. */
static void guard_page_stops_an_overrun(void)
{
    uint8_t *ptr = kms_secure_new(5008);

    CU_ASSERT_PTR_NOT_NULL_FATAL(ptr);
    CU_ASSERT_EQUAL(in_child(write_behind, ptr + 5007), 0);
    CU_ASSERT_NOT_EQUAL(in_child(write_behind, ptr + 5008), 0);
    kms_secure_free(ptr);
}

/* VmFlags of the mapping that @ptr is in: "dd" is MADV_DONTDUMP. */
static bool excluded_from_dumps(const void *ptr)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    bool inside = false;
    bool excluded = false;

    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
        unsigned long from = 0;
        unsigned long to = 0;

        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            inside = (uintptr_t)ptr >= from && (uintptr_t)ptr < to;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            excluded = strstr(line, " dd") != NULL;
        }
    }
    if (maps != NULL) {
        (void)fclose(maps);
    }
    return excluded;
}

static void kept_out_of_core_dumps(void)
{
    void *small = kms_secure_new(20);
    void *large = kms_secure_new(20000);

    CU_ASSERT_TRUE(excluded_from_dumps(small));
    CU_ASSERT_TRUE(excluded_from_dumps(large));
    CU_ASSERT_FALSE(excluded_from_dumps(sizes));
    kms_secure_free(small);
    kms_secure_free(large);
}

static int use_without_lock_limit(void *arg)
{
    const struct rlimit none = {0, 0};
    uint8_t *ptr[2];

    (void)arg;
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0)) {
        return 99;
    }
    ptr[0] = kms_secure_new(4000);
    ptr[1] = kms_secure_new(40000);
    if (ptr[0] == NULL || ptr[1] == NULL) {
        return 50;
    }
    memset(ptr[0], 1, 4000);
    memset(ptr[1], 1, 40000);
    kms_secure_free(ptr[0]);
    kms_secure_free(ptr[1]);
    return 0;
}

static void works_where_nothing_can_be_locked(void)
{
    CU_ASSERT_EQUAL(in_child(use_without_lock_limit, NULL), 0);
}

static int use_parents(void *arg)
{
    uint8_t **ptr = arg;

    if (ptr[0][0] != 7 || ptr[1][0] != 8) {
        return 1;
    }
    kms_secure_free(ptr[0]);
    kms_secure_free(ptr[1]);
    ptr[0] = kms_secure_new(100);
    return ptr[0] != NULL && is_zero(ptr[0], 100) ? 0 : 2;
}

static void a_child_keeps_its_parents_secrets(void)
{
    uint8_t *ptr[2] = {kms_secure_new(100), kms_secure_new(10000)};

    ptr[0][0] = 7;
    ptr[1][0] = 8;
    CU_ASSERT_EQUAL(in_child(use_parents, ptr), 0);
    CU_ASSERT_EQUAL(ptr[0][0], 7);
    CU_ASSERT_EQUAL(ptr[1][0], 8);
    kms_secure_free(ptr[0]);
    kms_secure_free(ptr[1]);
}

static int free_twice(void *arg)
{
    kms_secure_free(arg);
    kms_secure_free(arg);
    return 0;
}

static void misuse_stops(void)
{
    uint8_t *ptr = kms_secure_new(100);

    CU_ASSERT_EQUAL(in_child(free_twice, ptr), -1);
    kms_secure_free(ptr);
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
    static uint8_t first[100000];
    uint8_t second[64] = {0};

    CU_ASSERT_EQUAL(kms_secure_init(), KMS_OK);
    CU_ASSERT_EQUAL(kms_random(first, sizeof(first)), KMS_OK);
    CU_ASSERT_EQUAL(kms_random(second, sizeof(second) - 16), KMS_OK);
    CU_ASSERT_FALSE(kms_secret_equal(first, second, 16));
    CU_ASSERT_FALSE(is_zero(first + sizeof(first) - 16, 16)); /* once in 2^128 */
    CU_ASSERT_TRUE(is_zero(second + 48, 16));
    CU_ASSERT_EQUAL(kms_random(first, 0), KMS_OK);
}

#define THREADS 4
#define ROUNDS  4000

static atomic_uint collisions;

/* Marks its secret: one that two threads hold at once shows. */
static void *take_and_give(void *arg)
{
    uint64_t mark = (uint64_t)(uintptr_t)&mark;

    for (size_t i = 0; i < ROUNDS; i++) {
        size_t size = i % 100 == 0 ? 5000 : 16 + i % 64;
        volatile uint64_t *secret = kms_secure_new(size);

        (void)arg;
        if (secret == NULL || *secret != 0) {
            atomic_fetch_add(&collisions, 1);
            continue;
        }
        *secret = mark;
        if (*secret != mark) {
            atomic_fetch_add(&collisions, 1);
        }
        kms_secure_free((void *)(uintptr_t)secret);
    }
    return NULL;
}

static void under_threads(void)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, take_and_give, NULL), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    CU_ASSERT_EQUAL(atomic_load(&collisions), 0);
}

static void pool_gives_each_slot_once(void)
{
    struct kms_secure_pool *pool = kms_secure_pool_new(40, 3);
    uint8_t *slots[3];

    CU_ASSERT_PTR_NOT_NULL_FATAL(pool);
    for (size_t i = 0; i < 3; i++) {
        slots[i] = kms_secure_pool_take(pool);
        CU_ASSERT_PTR_NOT_NULL_FATAL(slots[i]);
        memset(slots[i], (int)i + 1, 40);
    }
    CU_ASSERT_PTR_NULL(kms_secure_pool_take(pool));
    for (size_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(slots[i][39], i + 1);
        kms_secure_pool_give(pool, slots[i]);
    }
    kms_secure_pool_free(pool);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"new is zeroed and aligned", new_is_zeroed_and_aligned},
        {"many do not overlap", many_do_not_overlap},
        {"small ones share pages", small_ones_share_pages},
        {"guard page stops an overrun", guard_page_stops_an_overrun},
        {"kept out of core dumps", kept_out_of_core_dumps},
        {"works where nothing can be locked", works_where_nothing_can_be_locked},
        {"a child keeps its parent's secrets", a_child_keeps_its_parents_secrets},
        {"misuse stops", misuse_stops},
        {"wipe and compare", wipe_and_compare},
        {"random fills all", random_fills_all},
        {"under threads", under_threads},
        {"pool gives each slot once", pool_gives_each_slot_once},
    };

    return unit_main("test_secure_plain", tests, UNIT_COUNT(tests));
}
