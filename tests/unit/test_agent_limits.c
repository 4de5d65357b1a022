/* SPDX-License-Identifier: Apache-2.0 */
/* What one user may ask of the agent. */
#include "kmsbridge/agent_limits.h"

#include <pthread.h>
#include <stdatomic.h>
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

struct queued {
    pthread_t thread;
    struct kms_lane *lane;
    unsigned max;
    atomic_uint *next;
    unsigned place; /* when it was let in */
};

static void *in_line(void *arg)
{
    struct queued *self = arg;
    struct kms_error err = KMS_ERROR_INIT;

    if (kms_lane_take(self->lane, self->max, kms_deadline_in(20 * KMS_NS_PER_S), &err) == KMS_OK) {
        self->place = atomic_fetch_add(self->next, 1) + 1;
        kms_lane_leave(self->lane);
    }
    return NULL;
}

static bool has_waiting(struct kms_lane *lane, unsigned count)
{
    unsigned seen = 0;

    for (int i = 0; i < 5000 && seen != count; i++) {
        usleep(2000);
        seen = 0;
        pthread_mutex_lock(&lane->mutex);
        for (struct kms_lane_waiter *at = lane->waiting; at != NULL; at = at->next) {
            seen++;
        }
        pthread_mutex_unlock(&lane->mutex);
    }
    return seen == count;
}

/* Two are in it. One leaves: who may be the second one comes in, then the next; the first to have
 * come, who would be alone, when the other one has left, too. */
static void lane_in_turn(void)
{
    static const unsigned bounds[] = {1, 2, 2}, places[] = {3, 1, 2};
    struct kms_lane one;
    struct kms_error err = KMS_ERROR_INIT;
    struct queued queued[UNIT_COUNT(bounds)];
    atomic_uint next = 0;

    kms_lane_init(&one);
    CU_ASSERT_EQUAL(kms_lane_take(&one, 2, 0, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_lane_take(&one, 2, 0, &err), KMS_OK);
    for (unsigned i = 0; i < UNIT_COUNT(queued); i++) {
        queued[i] = (struct queued){.lane = &one, .max = bounds[i], .next = &next};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&queued[i].thread, NULL, in_line, &queued[i]), 0);
        CU_ASSERT(has_waiting(&one, i + 1));
    }
    kms_lane_leave(&one);
    CU_ASSERT(has_waiting(&one, 1));
    CU_ASSERT_EQUAL(kms_lane_take(&one, 1, kms_deadline_in(10 * KMS_NS_PER_MS), &err), KMS_E_BUSY);
    CU_ASSERT(has_waiting(&one, 1)); /* who gave up is not in the line */
    kms_lane_leave(&one);
    for (unsigned i = 0; i < UNIT_COUNT(queued); i++) {
        CU_ASSERT_EQUAL(pthread_join(queued[i].thread, NULL), 0);
        CU_ASSERT_EQUAL(queued[i].place, places[i]);
    }
    CU_ASSERT_EQUAL(one.busy, 0);
    kms_lane_done(&one);
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
        {"connections", connections},
        {"rate", rate},
        {"concurrency", concurrency},
        {"logins", logins},
        {"notes", notes},
        {"lane", lane},
        {"lane in turn", lane_in_turn},
    };

    return unit_main("test_agent_limits", tests, UNIT_COUNT(tests));
}
