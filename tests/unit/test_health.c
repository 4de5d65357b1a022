/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/health.h"

#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/unit/fake_waist.h"
#include "tests/unit/unit.h"

static const struct kms_health_conf quick = {.probe_interval_ns = 50 * KMS_NS_PER_MS,
                                             .refresh_interval_ns = 50 * KMS_NS_PER_MS,
                                             .call_timeout_ns = 100 * KMS_NS_PER_MS};

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

/* Waits until the verdict is as wanted; the test fails when it never is. */
static bool becomes(struct kms_healthd *health, bool good, struct kms_verdict *ret_verdict)
{
    for (int i = 0; i < 1000; i++) {
        kms_healthd_verdict(health, ret_verdict);
        if (ret_verdict->known && ret_verdict->good == good) {
            return true;
        }
        pause_ms(5);
    }
    return false;
}

static struct kms_healthd *begin(const struct kms_health_conf *conf, struct kms_keyring **ret_ring)
{
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    *ret_ring = kms_keyring_new(NULL, "kek");
    struct kms_healthd *health = kms_healthd_start(NULL, *ret_ring, conf);
    CU_ASSERT_PTR_NOT_NULL_FATAL(health);
    CU_ASSERT(kms_healthd_wait_known(health, kms_deadline_in(5 * KMS_NS_PER_S)));
    return health;
}

static void end(struct kms_healthd *health, struct kms_keyring *ring)
{
    CU_ASSERT(kms_healthd_stop(health, 5 * KMS_NS_PER_S));
    kms_keyring_free(ring);
}

static void good_then_bad_then_good(void)
{
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&quick, &ring);
    CU_ASSERT(becomes(health, true, &verdict));
    CU_ASSERT_STRING_EQUAL(verdict.key_id, "kb1-a");
    fake.fail = KMS_E_AUTH;
    CU_ASSERT(becomes(health, false, &verdict));
    CU_ASSERT_EQUAL(verdict.error.status, KMS_E_AUTH);
    CU_ASSERT_STRING_EQUAL(verdict.key_id, "kb1-a");
    fake.fail = KMS_OK;
    CU_ASSERT(becomes(health, true, &verdict));
    end(health, ring);
}

static void real_traffic_spares_the_probe(void)
{
    const struct kms_health_conf conf = {.probe_interval_ns = 100 * KMS_NS_PER_MS,
                                         .refresh_interval_ns = 60 * KMS_NS_PER_S,
                                         .call_timeout_ns = KMS_NS_PER_S};
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&conf, &ring);
    unsigned before = atomic_load(&fake.encrypts);
    for (int i = 0; i < 50; i++) {
        kms_healthd_note(health, KMS_OP_ENCRYPT, KMS_OK);
        kms_healthd_note(health, KMS_OP_DECRYPT, KMS_OK);
        pause_ms(10);
    }
    CU_ASSERT_EQUAL(atomic_load(&fake.encrypts), before);
    kms_healthd_verdict(health, &verdict);
    CU_ASSERT(verdict.good && verdict.age_ns < 100 * KMS_NS_PER_MS);
    /* encrypts alone prove nothing about decrypts */
    for (int i = 0; i < 50; i++) {
        kms_healthd_note(health, KMS_OP_ENCRYPT, KMS_OK);
        pause_ms(10);
    }
    CU_ASSERT(atomic_load(&fake.encrypts) > before);
    end(health, ring);
}

static void failing_traffic_brings_the_probe(void)
{
    const struct kms_health_conf slow = {.probe_interval_ns = 600 * KMS_NS_PER_S,
                                         .refresh_interval_ns = 600 * KMS_NS_PER_S,
                                         .call_timeout_ns = KMS_NS_PER_S};
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&slow, &ring);
    fake.fail = KMS_E_UNAVAILABLE;
    kms_healthd_note(health, KMS_OP_DECRYPT, KMS_E_BAD_DATA); /* the caller's fault: says nothing */
    pause_ms(300);
    kms_healthd_verdict(health, &verdict);
    CU_ASSERT(verdict.good);
    kms_healthd_note(health, KMS_OP_DECRYPT, KMS_E_UNAVAILABLE);
    CU_ASSERT(becomes(health, false, &verdict));
    fake.fail = KMS_OK;
    end(health, ring);
}

/* A probe that hangs proves nothing: the good verdict must not live on. */
static void a_hanging_probe_turns_the_verdict(void)
{
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&quick, &ring);
    CU_ASSERT(becomes(health, true, &verdict));
    atomic_store(&fake.sleep_ms, 1500);
    CU_ASSERT(becomes(health, false, &verdict));
    CU_ASSERT_EQUAL(verdict.error.status, KMS_E_TIMEOUT);
    CU_ASSERT(!kms_healthd_stop(health, 20 * KMS_NS_PER_MS)); /* nothing freed while it hangs */
    atomic_store(&fake.sleep_ms, 0);
    end(health, ring); /* once it does not hang any more it can be stopped after all */
}

static void a_new_key_is_seen_by_the_refresh(void)
{
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&quick, &ring);
    fake_add("kb1-b", "kek", 2);
    for (int i = 0; i < 1000; i++) {
        kms_healthd_verdict(health, &verdict);
        if (strcmp(verdict.key_id, "kb1-b") == 0) {
            break;
        }
        pause_ms(5);
    }
    CU_ASSERT_STRING_EQUAL(verdict.key_id, "kb1-b");
    CU_ASSERT(verdict.good);
    end(health, ring);
}

/* Keys that cannot be listed are no verdict on the one that is used. */
static void a_failing_listing_is_no_verdict(void)
{
    struct kms_keyring *ring;
    struct kms_verdict verdict;
    struct kms_healthd *health = begin(&quick, &ring);
    CU_ASSERT(becomes(health, true, &verdict));
    fake.fail_list = KMS_E_TOO_LARGE;
    unsigned lists = atomic_load(&fake.lists);
    for (int i = 0; i < 1000 && atomic_load(&fake.lists) < lists + 3; i++) {
        pause_ms(5);
    }
    CU_ASSERT(atomic_load(&fake.lists) >= lists + 3);
    CU_ASSERT(atomic_load(&fake.lists) < lists + 50); /* at its interval, not in a loop */
    kms_healthd_verdict(health, &verdict);
    CU_ASSERT(verdict.good);
    fake.fail = KMS_E_UNAVAILABLE; /* the probe decides */
    CU_ASSERT(becomes(health, false, &verdict));
    fake.fail = KMS_OK;
    end(health, ring);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"good, bad, good", good_then_bad_then_good},
        {"real traffic spares the probe", real_traffic_spares_the_probe},
        {"failing traffic brings the probe", failing_traffic_brings_the_probe},
        {"failing listing", a_failing_listing_is_no_verdict},
        {"new key is seen", a_new_key_is_seen_by_the_refresh},
        {"hanging probe", a_hanging_probe_turns_the_verdict},
    };
    return unit_main("test_health", tests, UNIT_COUNT(tests));
}
