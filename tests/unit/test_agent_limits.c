/* SPDX-License-Identifier: Apache-2.0 */
/* What one user may ask of the agent. */
#include "kmsbridge/agent_limits.h"

#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/unit.h"

static const struct kms_limits_conf conf = {
    .connections = 3, .connections_per_uid = 2, .calls_per_second = 10, .calls_per_uid = 2};

static enum kms_status enter(struct kms_limits *limits, uid_t uid, struct kms_limits_uid **ret,
                             enum kms_refusal *ret_refusal)
{
    struct kms_error err = KMS_ERROR_INIT;

    return kms_limits_enter(limits, uid, ret, ret_refusal, &err);
}

static void connections(void)
{
    struct kms_limits *limits = kms_limits_new(&conf);
    struct kms_limits_uid *a = NULL;
    struct kms_limits_uid *b = NULL;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;

    CU_ASSERT_EQUAL(enter(limits, 1, &a, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(enter(limits, 1, &a, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(enter(limits, 1, &a, &refusal), KMS_E_BUSY);
    CU_ASSERT_EQUAL(refusal, KMS_REFUSAL_UID_CONNECTIONS);
    CU_ASSERT_EQUAL(enter(limits, 2, &b, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(enter(limits, 2, &b, &refusal), KMS_E_BUSY);
    CU_ASSERT_EQUAL(refusal, KMS_REFUSAL_CONNECTIONS);
    kms_limits_leave(limits, a);
    CU_ASSERT_EQUAL(enter(limits, 2, &b, &refusal), KMS_OK);
    kms_limits_leave(limits, a);
    kms_limits_leave(limits, b);
    kms_limits_leave(limits, b);
    kms_limits_free(limits);
    kms_limits_free(NULL);
}

static enum kms_status begin(struct kms_limits *limits, struct kms_limits_uid *account,
                             uint64_t patience_ns, enum kms_refusal *ret_refusal)
{
    struct kms_error err = KMS_ERROR_INIT;

    return kms_limits_begin(limits, account, kms_deadline_in(patience_ns), ret_refusal, &err);
}

static void rate(void)
{
    struct kms_limits *limits = kms_limits_new(&conf);
    struct kms_limits_uid *account = NULL;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;
    unsigned passed = 0, again = 0;

    CU_ASSERT_EQUAL(enter(limits, 1, &account, &refusal), KMS_OK);
    for (int i = 0; i < 100; i++) {
        if (begin(limits, account, 0, &refusal) == KMS_OK) {
            kms_limits_end(limits, account);
            passed++;
        }
    }
    CU_ASSERT_TRUE(passed >= 10 && passed < 50); /* a burst of a second, and what has come since */
    CU_ASSERT_EQUAL(refusal, KMS_REFUSAL_RATE);
    /* who comes again is not forgiven */
    kms_limits_leave(limits, account);
    CU_ASSERT_EQUAL(enter(limits, 1, &account, &refusal), KMS_OK);
    for (int i = 0; i < 100; i++) {
        if (begin(limits, account, 0, &refusal) == KMS_OK) {
            kms_limits_end(limits, account);
            again++;
        }
    }
    CU_ASSERT_TRUE(again < 10); /* no other burst */
    (void)usleep(250000);
    CU_ASSERT_EQUAL(begin(limits, account, 0, &refusal), KMS_OK);
    kms_limits_end(limits, account);
    kms_limits_leave(limits, account);
    kms_limits_free(limits);
}

struct waiter {
    struct kms_limits *limits;
    struct kms_limits_uid *account;
    enum kms_status status;
};

static void *wait_turn(void *arg)
{
    struct waiter *waiter = arg;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;

    waiter->status = begin(waiter->limits, waiter->account, 10 * KMS_NS_PER_S, &refusal);
    return NULL;
}

static void concurrency(void)
{
    struct kms_limits *limits = kms_limits_new(&conf);
    struct kms_limits_uid *account = NULL;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;
    struct waiter waiter = {.limits = limits, .status = KMS_E_INTERNAL};
    pthread_t thread;

    CU_ASSERT_EQUAL(enter(limits, 1, &account, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(begin(limits, account, 0, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(begin(limits, account, 0, &refusal), KMS_OK);
    CU_ASSERT_EQUAL(begin(limits, account, 20 * KMS_NS_PER_MS, &refusal), KMS_E_BUSY);
    CU_ASSERT_EQUAL(refusal, KMS_REFUSAL_CONCURRENCY);
    waiter.account = account;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, wait_turn, &waiter), 0);
    (void)usleep(20000);
    kms_limits_end(limits, account);
    (void)pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(waiter.status, KMS_OK);
    kms_limits_end(limits, account);
    kms_limits_end(limits, account);
    kms_limits_leave(limits, account);
    kms_limits_free(limits);
}

static void logins(void)
{
    struct kms_limits *limits = kms_limits_new(&conf);
    struct kms_limits_uid *account = NULL;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(enter(limits, 1, &account, &refusal), KMS_OK);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(kms_limits_login(limits, account, &err), KMS_OK);
        kms_limits_logged_in(limits, account, true);
    }
    CU_ASSERT_EQUAL(kms_limits_login(limits, account, &err), KMS_OK);
    /* a second try while the first is not decided */
    CU_ASSERT_EQUAL(kms_limits_login(limits, account, &err), KMS_E_THROTTLED);
    kms_limits_logged_in(limits, account, false);
    CU_ASSERT_EQUAL(kms_limits_login(limits, account, &err), KMS_E_THROTTLED);
    kms_limits_leave(limits, account);
    kms_limits_free(limits);
}

static void notes(void)
{
    struct kms_limits *limits = kms_limits_new(&conf);
    struct kms_limits_uid *account = NULL;
    enum kms_refusal refusal = KMS_REFUSAL_NONE;
    uint64_t suppressed = 0;
    unsigned noted = 0;

    CU_ASSERT_EQUAL(enter(limits, 1, &account, &refusal), KMS_OK);
    for (int i = 0; i < 50; i++) {
        noted += kms_limits_may_note(limits, account, &suppressed) ? 1 : 0;
    }
    CU_ASSERT_TRUE(noted >= 10 && noted <= 12);
    (void)usleep(250000);
    CU_ASSERT_TRUE(kms_limits_may_note(limits, account, &suppressed));
    CU_ASSERT_EQUAL(suppressed, 50 - noted);
    kms_limits_leave(limits, account);
    kms_limits_free(limits);
}

static void lane(void)
{
    struct kms_lane one;
    struct kms_error err = KMS_ERROR_INIT;

    kms_lane_init(&one);
    CU_ASSERT_EQUAL(kms_lane_take(&one, 1, 0, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_lane_take(&one, 1, kms_deadline_in(10 * KMS_NS_PER_MS), &err), KMS_E_BUSY);
    kms_lane_leave(&one);
    CU_ASSERT_EQUAL(kms_lane_take(&one, 1, 0, &err), KMS_OK);
    kms_lane_leave(&one);
    kms_lane_done(&one);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"connections", connections}, {"rate", rate},   {"concurrency", concurrency},
        {"logins", logins},           {"notes", notes}, {"lane", lane},
    };

    return unit_main("test_agent_limits", tests, UNIT_COUNT(tests));
}
