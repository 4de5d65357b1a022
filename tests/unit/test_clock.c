/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "common/cond.h"
#include "tests/unit/unit.h"

static void wall_text(void)
{
    static const struct {
        const char *name;
        uint64_t ms;
        const char *text;
    } rows[] = {
        {"epoch", 0, "1970-01-01T00:00:00.000Z"},
        {"milliseconds", UINT64_C(1795331149123), "2026-11-22T07:05:49.123Z"},
        {"leap day", UINT64_C(951782400007), "2000-02-29T00:00:00.007Z"},
        {"after 2038", UINT64_C(4102444799999), "2099-12-31T23:59:59.999Z"},
    };
    char text[25];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        kms_wall_text(rows[i].ms, text, sizeof(text));
        UNIT_CHECK(rows[i].name, strcmp(text, rows[i].text) == 0);
    }
    kms_wall_text(UINT64_MAX, text, sizeof(text)); /* no such year for gmtime(): no overrun */
    CU_ASSERT_TRUE(strlen(text) < sizeof(text));
}

static void wall_is_now(void)
{
    uint64_t before = (uint64_t)time(NULL) * 1000;
    uint64_t ms = kms_wall_ms();

    CU_ASSERT_TRUE(ms + 1000 >= before);
    CU_ASSERT_TRUE(ms <= before + 10000);
}

static void monotonic_goes_on(void)
{
    const struct timespec nap = {.tv_nsec = 2000000};
    uint64_t first = kms_now_ns();

    (void)nanosleep(&nap, NULL);
    CU_ASSERT_TRUE(kms_now_ns() - first >= 2 * KMS_NS_PER_MS);
}

static void deadlines(void)
{
    uint64_t soon = kms_deadline_in(60 * KMS_NS_PER_S);

    CU_ASSERT_FALSE(kms_deadline_passed(soon));
    CU_ASSERT_TRUE(kms_deadline_left(soon) <= 60 * KMS_NS_PER_S);
    CU_ASSERT_TRUE(kms_deadline_left(soon) > 50 * KMS_NS_PER_S);
    CU_ASSERT_TRUE(kms_deadline_passed(kms_now_ns() - 1));
    CU_ASSERT_TRUE(kms_deadline_passed(0));
    CU_ASSERT_EQUAL(kms_deadline_left(1), 0);
    CU_ASSERT_TRUE(kms_deadline_passed(kms_deadline_in(0)));
}

static void no_deadline_is_never_reached(void)
{
    CU_ASSERT_EQUAL(kms_deadline_in(UINT64_MAX), KMS_DEADLINE_NONE);
    CU_ASSERT_EQUAL(kms_deadline_in(UINT64_MAX - 1), KMS_DEADLINE_NONE);
    CU_ASSERT_FALSE(kms_deadline_passed(KMS_DEADLINE_NONE));
    CU_ASSERT_EQUAL(kms_deadline_left(KMS_DEADLINE_NONE), KMS_DEADLINE_NONE);
}

static void jitter_stays_between(void)
{
    unsigned low = 0;
    unsigned high = 0;

    CU_ASSERT_EQUAL(kms_jitter(7, 7), 7);
    CU_ASSERT_EQUAL(kms_jitter(9, 7), 9);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t got = kms_jitter(10, 13);

        CU_ASSERT(got >= 10 && got <= 13);
        low += got == 10 ? 1u : 0u;
        high += got == 13 ? 1u : 0u;
    }
    CU_ASSERT(low > 100 && high > 100);
    CU_ASSERT_NOT_EQUAL(kms_jitter(0, UINT64_MAX), kms_jitter(0, UINT64_MAX));
}

struct waiting {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
};

static void *wake(void *ctx)
{
    struct waiting *w = ctx;

    pthread_mutex_lock(&w->mutex);
    w->done = true;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static void waiting_ends(void)
{
    static const uint64_t patience[] = {10 * KMS_NS_PER_S, KMS_DEADLINE_NONE};
    struct waiting w = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    uint64_t start = kms_now_ns();
    pthread_t thread;

    kms_cond_init(&w.cond);
    pthread_mutex_lock(&w.mutex);
    while (kms_cond_wait(&w.cond, &w.mutex, start + 20 * KMS_NS_PER_MS)) {
    }
    CU_ASSERT(kms_now_ns() - start >= 20 * KMS_NS_PER_MS);
    CU_ASSERT(kms_now_ns() - start < 5 * KMS_NS_PER_S);
    for (size_t i = 0; i < UNIT_COUNT(patience); i++) {
        w.done = false;
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, wake, &w), 0);
        while (!w.done) {
            CU_ASSERT_TRUE(kms_cond_wait(&w.cond, &w.mutex, kms_deadline_in(patience[i])));
        }
        pthread_mutex_unlock(&w.mutex);
        pthread_join(thread, NULL);
        pthread_mutex_lock(&w.mutex);
    }
    pthread_mutex_unlock(&w.mutex);
    pthread_cond_destroy(&w.cond);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"wall text", wall_text},
        {"wall is now", wall_is_now},
        {"monotonic goes on", monotonic_goes_on},
        {"deadlines", deadlines},
        {"no deadline is never reached", no_deadline_is_never_reached},
        {"jitter stays between", jitter_stays_between},
        {"waiting ends", waiting_ends},
    };

    return unit_main("test_clock", tests, UNIT_COUNT(tests));
}
