/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"

#include <string.h>
#include <time.h>

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

int main(void)
{
    static const struct unit_test tests[] = {
        {"wall text", wall_text},
        {"wall is now", wall_is_now},
        {"monotonic goes on", monotonic_goes_on},
        {"deadlines", deadlines},
        {"no deadline is never reached", no_deadline_is_never_reached},
    };

    return unit_main("test_clock", tests, UNIT_COUNT(tests));
}
