/* SPDX-License-Identifier: Apache-2.0 */
/* A token that is slow, hangs, or has no more sessions. */
#include "tests/faults/heal.h"

#include <pthread.h>
#include <string.h>

#include "common/clock.h"

/* ---- slow, hanging, full ------------------------------------------------------------------ */

struct worker {
    pthread_t thread;
    struct kms_waist *waist;
    const char *ref;
    unsigned ms;
    enum kms_status status;
    uint64_t took_ns;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    uint64_t start = kms_now_ns();
    struct kms_call call = call_for(w->ms);
    struct sealed sealed;

    w->status = seal(w->waist, w->ref, &call, &sealed);
    w->took_ns = kms_now_ns() - start;
    return NULL;
}

static void start_all(struct worker *workers, unsigned count, struct kms_waist *waist,
                      const char *ref, unsigned ms)
{
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.waist = waist, .ref = ref, .ms = ms};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void join_all(struct worker *workers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
    }
}

void a_slow_token_keeps_deadlines(void)
{
    enum { COUNT = 8 };
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 2, ref);
    struct worker workers[COUNT];
    unsigned good = 0;

    plan("latency_us=250000");
    start_all(workers, COUNT, waist, ref, 400);
    join_all(workers, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        good += workers[i].status == KMS_OK ? 1u : 0u;
        CU_ASSERT(workers[i].status == KMS_OK || workers[i].status == KMS_E_BUSY);
        /* waits end at the deadline; a call begun before it ends in the token's time */
        CU_ASSERT(workers[i].took_ns < 1000 * KMS_NS_PER_MS);
    }
    CU_ASSERT(good >= 2 && good < COUNT);
    kms_waist_close(waist);
}

static void wait_for_busy(struct kms_waist *waist, unsigned count, uint64_t stuck_ns)
{
    struct kms_health health = {.ready = false};

    for (unsigned i = 0; i < 500; i++) {
        kms_waist_health(waist, &health);
        if (health.sessions_busy >= count && health.stuck_ns >= stuck_ns) {
            break;
        }
        sleep_ms(10);
    }
    CU_ASSERT(health.sessions_busy >= count && health.stuck_ns >= stuck_ns);
}

/* Calls hang: those after them are answered at once, nothing is finalized, and it all comes back.
 */
void a_hanging_module_is_survived(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    unsigned long finals = calls("C_Finalize");
    struct worker workers[2];
    struct kms_health health;
    struct kms_call call;
    uint64_t start = 0;

    plan("hang=1:C_Encrypt");
    start_all(workers, 2, waist, ref, 3000);
    wait_for_busy(waist, 2, 1100 * KMS_NS_PER_MS);
    start = kms_now_ns();
    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(round_trip(waist, ref, 200, &call), KMS_E_UNAVAILABLE);
        CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "stuck"));
    }
    CU_ASSERT(kms_now_ns() - start < 3 * KMS_NS_PER_S); /* three deadlines are 0.6 s */
    kms_waist_health(waist, &health);
    CU_ASSERT(health.stuck_ns >= KMS_NS_PER_S);
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals);
    plan("");
    join_all(workers, 2);
    CU_ASSERT(workers[0].status == KMS_OK && workers[1].status == KMS_OK);
    CU_ASSERT_EQUAL(round_trip(waist, ref, 2000, &call), KMS_OK);
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.stuck_ns, 0);
    kms_waist_close(waist);
}

/* Two calls never come back, others do: those two are lost, and the module is not. */
void lost_calls_are_not_a_wedge(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    struct worker workers[2];
    struct sealed sealed;
    struct kms_call call = call_for(5000);

    CU_ASSERT_EQUAL(seal(waist, ref, &call, &sealed), KMS_OK);
    plan("hang=1:C_Encrypt");
    start_all(workers, 2, waist, ref, 10000);
    for (unsigned i = 0; i < 13; i++) {
        sleep_ms(100);
        call = call_for(1000);
        CU_ASSERT_EQUAL(unseal(waist, ref, &call, &sealed), KMS_OK);
    }
    for (unsigned i = 0; i < 2; i++) {
        sleep_ms(1200); /* nobody comes back */
        call = call_for(300);
        CU_ASSERT_EQUAL(unseal(waist, ref, &call, &sealed), KMS_OK);
    }
    plan("");
    join_all(workers, 2);
    CU_ASSERT(workers[0].status == KMS_OK && workers[1].status == KMS_OK);
    kms_waist_close(waist);
}

void no_finalize_under_a_stuck_call(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    unsigned long finals = calls("C_Finalize");
    struct worker stuck;
    struct kms_call call;

    plan("hang=1:C_Encrypt");
    start_all(&stuck, 1, waist, ref, 10000);
    wait_for_busy(waist, 1, 300 * KMS_NS_PER_MS);
    plan("hang=1:C_Encrypt\nfail=CKR_DEVICE_REMOVED:C_GenerateRandom");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 1000, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "1 calls stuck"));
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals);
    plan("");
    join_all(&stuck, 1);
    CU_ASSERT_EQUAL(stuck.status, KMS_OK);
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals + 1);
    kms_waist_close(waist);
}

void a_full_token_is_shared(void)
{
    enum { COUNT = 6 };
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct worker workers[COUNT];
    struct kms_health health;

    plan("fail=CKR_SESSION_COUNT:C_OpenSession\nlatency_us=20000");
    start_all(workers, COUNT, waist, ref, 5000);
    join_all(workers, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CU_ASSERT_EQUAL(workers[i].status, KMS_OK);
    }
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.sessions_max, 1);
    CU_ASSERT_EQUAL(health.sessions_open, 1);
    plan("");
    kms_waist_close(waist);
}

/* The device goes away under sixteen threads, again and again: nobody sees a wrong answer. */
static void *hammer(void *ctx)
{
    struct worker *w = ctx;
    uint64_t until = kms_deadline_in(w->ms * KMS_NS_PER_MS);

    while (!kms_deadline_passed(until)) {
        struct kms_call call;
        enum kms_status status = round_trip(w->waist, w->ref, 3000, &call);

        if (status == KMS_OK) {
            w->took_ns++;
        } else if (status != KMS_E_UNAVAILABLE && status != KMS_E_BUSY) {
            fprintf(stderr, "hammer: %s\n", call.error.text);
            w->status = status;
        }
    }
    return NULL;
}

void reconnects_under_load(void)
{
    enum { COUNT = 16 };
    static const char *const plans[] = {
        "until_reinit=1\nfail=CKR_DEVICE_REMOVED", "logout_sessions=1",
        "until_reinit=1\nfail=CKR_SESSION_HANDLE_INVALID",
        "fail_once=CKR_KEY_HANDLE_INVALID:C_EncryptInit:5",
        "until_reinit=1\nfail=CKR_CRYPTOKI_NOT_INITIALIZED:C_Encrypt"};
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    struct worker workers[COUNT];
    struct kms_call call;

    for (unsigned i = 0; i < COUNT; i++) {
        workers[i] = (struct worker){.waist = waist, .ref = ref, .ms = 2500};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, hammer, &workers[i]), 0);
    }
    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        sleep_ms(400);
        plan(plans[i]);
    }
    join_all(workers, COUNT);
    plan("");
    for (unsigned i = 0; i < COUNT; i++) {
        CU_ASSERT_EQUAL(workers[i].status, KMS_OK);
        CU_ASSERT(workers[i].took_ns > 0);
    }
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    kms_waist_close(waist);
}
