/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for a crew's threads finds them gone. */
#include "kmsbridge/crew.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/unit.h"

#define THREADS 4

static pthread_key_t library; /* what a library keeps for a thread */
static atomic_int given_back, unblocked;
static atomic_bool held;

static void give_back(void *ctx)
{
    (void)ctx;
    (void)usleep(20 * 1000);
    atomic_fetch_add(&given_back, 1);
}

static void *work(void *ctx)
{
    sigset_t set;

    (void)pthread_sigmask(SIG_SETMASK, NULL, &set);
    atomic_fetch_add(&unblocked, sigismember(&set, SIGTERM) == 1 ? 0 : 1);
    while (atomic_load(&held)) {
        (void)usleep(1000);
    }
    (void)pthread_setspecific(library, ctx);
    kms_crew_leave(ctx);
    return NULL;
}

/* Whatever their threads had in libraries has been given back: the process may end. */
static void all_have_gone(void)
{
    for (int round = 0; round < 5; round++) {
        struct kms_crew crew;

        kms_crew_init(&crew);
        atomic_store(&given_back, 0);
        for (int i = 0; i < THREADS; i++) {
            CU_ASSERT_TRUE(kms_crew_start(&crew, work, &crew));
        }
        CU_ASSERT_TRUE(kms_crew_wait(&crew, kms_deadline_in(10 * KMS_NS_PER_S)));
        CU_ASSERT_EQUAL(atomic_load(&given_back), THREADS);
        CU_ASSERT_FALSE(kms_crew_start(&crew, work, &crew)); /* it is closing time */
        CU_ASSERT_TRUE(kms_crew_wait(&crew, 0));
        kms_crew_done(&crew);
    }
    CU_ASSERT_EQUAL(atomic_load(&unblocked), 0);
}

static void who_stays_is_told(void)
{
    struct kms_crew crew;
    uint64_t start = kms_now_ns();

    kms_crew_init(&crew);
    atomic_store(&held, true);
    CU_ASSERT_TRUE(kms_crew_start(&crew, work, &crew));
    CU_ASSERT_FALSE(kms_crew_wait(&crew, kms_deadline_in(50 * KMS_NS_PER_MS)));
    CU_ASSERT(kms_now_ns() - start >= 50 * KMS_NS_PER_MS);
    atomic_store(&held, false);
    CU_ASSERT_TRUE(kms_crew_wait(&crew, kms_deadline_in(10 * KMS_NS_PER_S)));
    kms_crew_done(&crew);
}

int main(void)
{
    static const struct unit_test tests[] = {{"all have gone", all_have_gone},
                                             {"who stays is told", who_stays_is_told}};

    (void)pthread_key_create(&library, give_back);
    return unit_main("test_crew", tests, UNIT_COUNT(tests));
}
