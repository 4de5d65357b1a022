/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kek.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/fake_waist.h"
#include "tests/unit/unit.h"

static struct kms_keks keks;
static struct kms_conf conf;

static void begin(void)
{
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    memset(&conf, 0, sizeof conf);
    conf.kms = (struct kms_kms_conf){.backend = "fake",
                                     .key = "kek",
                                     .probe_interval_ns = 60 * KMS_NS_PER_S,
                                     .refresh_interval_ns = 60 * KMS_NS_PER_S,
                                     .call_timeout_ns = KMS_NS_PER_S};
    kms_keks_init(&keks);
}

static struct kms_kek *open_kek(void)
{
    struct kms_kek *kek = NULL;
    CU_ASSERT_EQUAL_FATAL(kms_kek_open(&keks, &conf, NULL, NULL, &kek, NULL), KMS_OK);
    CU_ASSERT(kms_healthd_wait_known(kek->health, kms_deadline_in(5 * KMS_NS_PER_S)));
    return kek;
}

/* After two seconds at most. */
static bool closed(unsigned count)
{
    for (int i = 0; i < 400 && atomic_load(&fake.closed) != count; i++) {
        usleep(5000);
    }
    return atomic_load(&fake.closed) == count;
}

static void the_former_is_closed_with_its_last_call(void)
{
    begin();
    kms_kek_serve(open_kek());
    struct kms_kek *one = kms_keks_get(&keks);
    struct kms_kek *two = kms_keks_get(&keks);
    CU_ASSERT_PTR_EQUAL(one, two);
    CU_ASSERT_EQUAL(kms_keks_number(&keks), 1);
    kms_kek_serve(open_kek());
    CU_ASSERT_EQUAL(kms_keks_number(&keks), 2);
    struct kms_kek *now = kms_keks_get(&keks);
    CU_ASSERT_PTR_NOT_EQUAL(now, one);
    kms_kek_put(one);
    usleep(50000);
    CU_ASSERT_EQUAL(atomic_load(&fake.closed), 0); /* somebody has it */
    char key_id[KMS_KEY_ID_MAX];
    CU_ASSERT_EQUAL(kms_keyring_active(two->ring, key_id), KMS_OK);
    kms_kek_put(two);
    CU_ASSERT(closed(1));
    kms_kek_put(now);
    CU_ASSERT(kms_keks_done(&keks, 5 * KMS_NS_PER_S));
    CU_ASSERT(closed(2));
    CU_ASSERT_EQUAL(atomic_load(&conf.holders), 0);
}

static void one_that_does_not_open_leaves_nothing(void)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_kek *kek = NULL;
    begin();
    kms_kek_serve(open_kek());
    atomic_store(&fake.fail_open, KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_kek_open(&keks, &conf, NULL, NULL, &kek, &err), KMS_E_INVALID);
    CU_ASSERT_PTR_NULL(kek);
    CU_ASSERT_EQUAL(atomic_load(&conf.holders), 1);
    CU_ASSERT(kms_keks_done(&keks, 5 * KMS_NS_PER_S));
}

/* A call that does not come back: nothing is freed, and the end is not waited for. */
static void one_that_is_in_use_is_not_freed(void)
{
    begin();
    kms_kek_serve(open_kek());
    struct kms_kek *used = kms_keks_get(&keks);
    uint64_t began = kms_now_ns();
    CU_ASSERT(!kms_keks_done(&keks, 50 * KMS_NS_PER_MS));
    CU_ASSERT(kms_now_ns() - began < 2 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(atomic_load(&fake.closed), 0);
    kms_kek_put(used);
    CU_ASSERT(kms_keks_done(&keks, 5 * KMS_NS_PER_S));
    CU_ASSERT(closed(1));
}

/* Its probe ends with it, however long it takes. */
static void a_probe_that_hangs_is_waited_for(void)
{
    struct kms_kek *kek = NULL;
    begin();
    kms_kek_serve(open_kek());
    atomic_store(&fake.sleep_ms, 300);
    CU_ASSERT_EQUAL_FATAL(kms_kek_open(&keks, &conf, NULL, NULL, &kek, NULL), KMS_OK);
    kms_kek_dismiss(kek); /* a candidate that was refused */
    CU_ASSERT(closed(1));
    CU_ASSERT(kms_keks_done(&keks, 5 * KMS_NS_PER_S));
}

struct user {
    pthread_t thread;
    atomic_bool *stop;
    unsigned failed;
    unsigned rounds;
};

static void *user_main(void *arg)
{
    struct user *user = arg;
    while (!atomic_load(user->stop)) {
        struct kms_kek *kek = kms_keks_get(&keks);
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
        user->failed += kms_keyring_probe(kek->ring, &call) != KMS_OK ? 1u : 0u;
        user->failed += kms_keks_stuck_ns(&keks) != 0 ? 1u : 0u;
        user->rounds++;
        kms_kek_put(kek);
    }
    return NULL;
}

static void swapped_under_load(void)
{
    atomic_bool stop = false;
    struct user users[4] = {{.stop = &stop}, {.stop = &stop}, {.stop = &stop}, {.stop = &stop}};
    begin();
    kms_kek_serve(open_kek());
    for (size_t i = 0; i < UNIT_COUNT(users); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&users[i].thread, NULL, user_main, &users[i]), 0);
    }
    for (int i = 0; i < 50; i++) {
        kms_kek_serve(open_kek());
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < UNIT_COUNT(users); i++) {
        (void)pthread_join(users[i].thread, NULL);
        CU_ASSERT_EQUAL(users[i].failed, 0);
        CU_ASSERT(users[i].rounds > 0);
    }
    CU_ASSERT(kms_keks_done(&keks, 5 * KMS_NS_PER_S));
    CU_ASSERT_EQUAL(atomic_load(&fake.closed), atomic_load(&fake.opened));
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"closed with its last call", the_former_is_closed_with_its_last_call},
        {"does not open", one_that_does_not_open_leaves_nothing},
        {"in use, not freed", one_that_is_in_use_is_not_freed},
        {"a hanging probe is waited for", a_probe_that_hangs_is_waited_for},
        {"swapped under load", swapped_under_load},
    };
    return unit_main("test_kek", tests, UNIT_COUNT(tests));
}
