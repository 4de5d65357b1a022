/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that ask for lists of keys: who waits for them to land finds them gone. */
#include "kmsbridge/agent_tokens.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "kmsbridge/agent_tokens_parts.h"
#include "tests/unit/unit.h"

#define THREADS 4

static pthread_key_t library; /* what a library keeps for a thread */
static atomic_int given_back;

static void give_back(void *ctx)
{
    (void)ctx;
    (void)usleep(20 * 1000);
    atomic_fetch_add(&given_back, 1);
}

static void *flight(void *ctx)
{
    (void)pthread_setspecific(library, ctx);
    kms_agentd_touch_down(ctx);
    return NULL;
}

/* Whatever their threads had in libraries has been given back: the process may end. */
static void all_have_gone(void)
{
    const struct kms_agentd_source none = {.get = NULL};

    for (int round = 0; round < 5; round++) {
        struct kms_agentd_backends *backends = kms_agentd_backends_new(&none, NULL, NULL);

        CU_ASSERT_PTR_NOT_NULL_FATAL(backends);
        atomic_store(&given_back, 0);
        for (int i = 0; i < THREADS; i++) {
            CU_ASSERT_TRUE(kms_agentd_take_off(backends, flight, backends));
        }
        CU_ASSERT_TRUE(kms_agentd_backends_land(backends, kms_deadline_in(10 * KMS_NS_PER_S)));
        CU_ASSERT_EQUAL(atomic_load(&given_back), THREADS);
        CU_ASSERT_FALSE(kms_agentd_take_off(backends, flight, backends)); /* it is closing time */
        CU_ASSERT_TRUE(kms_agentd_backends_land(backends, 0));
        kms_agentd_backends_free(backends);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {{"all have gone", all_have_gone}};

    (void)pthread_key_create(&library, give_back);
    return unit_main("test_agent_backends", tests, UNIT_COUNT(tests));
}
