/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/credential.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/unit.h"

/* A source that does as it is told. */
static struct {
    atomic_uint fetched;
    atomic_uint together; /* at once, at most one */
    atomic_uint most;
    _Atomic enum kms_status status;
    _Atomic uint64_t lifetime_ns;
    _Atomic uint64_t refresh_ns;
    atomic_uint takes_ms;
    atomic_bool had_old;
    atomic_bool hangs;
    const char *says; /* why it fails */
} source;

static enum kms_status fetch(void *ctx, const struct kms_http_wait *wait,
                             const struct kms_credential_value *old,
                             struct kms_credential_slot *slot, struct kms_error *err)
{
    unsigned number = atomic_fetch_add(&source.fetched, 1) + 1;
    unsigned together = atomic_fetch_add(&source.together, 1) + 1;
    char text[32];
    struct kms_credential_offer offer = {.part = {text, "part two", NULL},
                                         .lifetime_ns = source.lifetime_ns,
                                         .refresh_ns = source.refresh_ns};
    enum kms_status status = source.status;

    (void)ctx;
    if (together > atomic_load(&source.most)) {
        atomic_store(&source.most, together);
    }
    atomic_store(&source.had_old, old != NULL);
    if (atomic_load(&source.hangs)) { /* until the caller's time is over, as a server that hangs */
        (void)poll(NULL, 0, (int)(kms_deadline_left(wait->deadline_ns) / KMS_NS_PER_MS) + 1);
        status = KMS_E_TIMEOUT;
    }
    (void)poll(NULL, 0, (int)atomic_load(&source.takes_ms));
    atomic_fetch_sub(&source.together, 1);
    if (status != KMS_OK) {
        (void)kms_error_set(err, status, "%s", source.says);
        (void)snprintf(err->request_id, sizeof(err->request_id), "r-%u", number);
        err->retry_after_ns = 7;
        return status;
    }
    (void)snprintf(text, sizeof(text), "value-%u", number);
    return kms_credential_put(slot, &offer, err);
}

static struct kms_credential *begin(uint64_t lifetime_ns, uint64_t refresh_ns)
{
    const struct kms_credential_source from = {.name = "test", .fetch = fetch};

    atomic_store(&source.fetched, 0);
    atomic_store(&source.most, 0);
    atomic_store(&source.takes_ms, 0);
    atomic_store(&source.hangs, false);
    source.status = KMS_OK;
    source.says = "no luck";
    source.lifetime_ns = lifetime_ns;
    source.refresh_ns = refresh_ns;
    return kms_credential_new(&from);
}

static struct kms_error error;

static enum kms_status get(struct kms_credential *credential, char *ret_text, unsigned ms)
{
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
    const struct kms_credential_value *value = NULL;
    enum kms_status status = KMS_OK;

    kms_error_clear(&error);
    ret_text[0] = '\0';
    status = kms_credential_get(credential, &wait, &value, &error);
    if (status == KMS_OK) {
        (void)snprintf(ret_text, 32, "%s", value->part[0]);
        kms_credential_give(credential, value);
    }
    return status;
}

static void one_fetch_serves_many(void)
{
    struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
    char text[32];

    for (unsigned i = 0; i < 100; i++) {
        CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
        CU_ASSERT_STRING_EQUAL(text, "value-1");
    }
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 1);
    kms_credential_free(credential);
}

static void an_end_is_seen(void)
{
    struct kms_credential *credential = begin(50 * KMS_NS_PER_MS, KMS_NS_PER_S);
    char text[32];

    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    (void)poll(NULL, 0, 60);
    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "value-2");
    kms_credential_free(credential);
}

struct caller {
    pthread_t thread;
    struct kms_credential *credential;
    char text[32];
    enum kms_status status;
    uint64_t took_ns;
};

static void *call(void *ctx)
{
    struct caller *caller = ctx;
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
    const struct kms_credential_value *value = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    uint64_t start = kms_now_ns();

    caller->status = kms_credential_get(caller->credential, &wait, &value, &err);
    caller->took_ns = kms_now_ns() - start;
    if (caller->status == KMS_OK) {
        (void)snprintf(caller->text, sizeof(caller->text), "%s", value->part[0]);
        kms_credential_give(caller->credential, value);
    }
    return NULL;
}

static void run_many(struct kms_credential *credential, struct caller *callers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        callers[i] = (struct caller){.credential = credential};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
    }
    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(callers[i].thread, NULL);
    }
}

static void the_first_ones_wait(void)
{
    struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
    struct caller callers[16];

    atomic_store(&source.takes_ms, 100);
    run_many(credential, callers, 16);
    for (size_t i = 0; i < 16; i++) {
        CU_ASSERT(callers[i].status == KMS_OK && strcmp(callers[i].text, "value-1") == 0);
    }
    CU_ASSERT(atomic_load(&source.fetched) == 1 && atomic_load(&source.most) == 1);
    kms_credential_free(credential);
}

/* Ahead of the end one caller refreshes, and the others do not wait for it. */
static void others_go_on_with_the_old(void)
{
    struct kms_credential *credential = begin(10 * KMS_NS_PER_S, 10 * KMS_NS_PER_MS);
    struct caller callers[16];
    char text[32];
    unsigned slow = 0;

    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    (void)poll(NULL, 0, 15);
    atomic_store(&source.takes_ms, 300);
    source.refresh_ns = 5 * KMS_NS_PER_S;
    run_many(credential, callers, 16);
    for (size_t i = 0; i < 16; i++) {
        CU_ASSERT_EQUAL(callers[i].status, KMS_OK);
        slow += callers[i].took_ns > 250 * KMS_NS_PER_MS ? 1u : 0u;
    }
    CU_ASSERT_EQUAL(slow, 1);
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 2);
    CU_ASSERT_TRUE(atomic_load(&source.had_old)); /* so that it can be renewed */
    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "value-2");
    kms_credential_free(credential);
}

static void a_refresh_may_fail(void)
{
    struct kms_credential *credential = begin(10 * KMS_NS_PER_S, 5 * KMS_NS_PER_MS);
    struct kms_error trouble;
    char text[32];

    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    (void)poll(NULL, 0, 10);
    source.status = KMS_E_UNAVAILABLE;
    for (unsigned i = 0; i < 10; i++) { /* the old one is good; the source is not asked each time */
        CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
        CU_ASSERT_STRING_EQUAL(text, "value-1");
    }
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 2);
    kms_credential_trouble(credential, &trouble);
    CU_ASSERT_EQUAL(trouble.status, KMS_E_UNAVAILABLE);
    kms_credential_free(credential);
}

/* The old one is good: a source that hangs leaves its caller the time to use it, and is not asked
 * by every call. */
static void a_refresh_may_hang(void)
{
    struct kms_credential *credential = begin(10 * KMS_NS_PER_S, 5 * KMS_NS_PER_MS);
    char text[32];

    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    (void)poll(NULL, 0, 10);
    atomic_store(&source.hangs, true);
    for (unsigned i = 0; i < 5; i++) {
        const uint64_t deadline_ns = kms_deadline_in(400 * KMS_NS_PER_MS);

        CU_ASSERT_EQUAL(get(credential, text, 400), KMS_OK);
        CU_ASSERT_STRING_EQUAL(text, "value-1");
        CU_ASSERT(kms_deadline_left(deadline_ns) > 100 * KMS_NS_PER_MS);
    }
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 2);
    kms_credential_free(credential);
}

/* It ends while a refresh hangs: from there on it is not handed out. */
static void an_end_comes_in_a_refresh(void)
{
    struct kms_credential *credential = begin(500 * KMS_NS_PER_MS, 5 * KMS_NS_PER_MS);
    char text[32];

    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    (void)poll(NULL, 0, 10);
    atomic_store(&source.hangs, true);
    CU_ASSERT_EQUAL(get(credential, text, 2000), KMS_E_TIMEOUT);
    CU_ASSERT_STRING_EQUAL(text, "");
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 3); /* the rest of the time was for another one */
    kms_credential_free(credential);
}

static void failures_are_told_and_kept_briefly(void)
{
    static const struct {
        enum kms_status source, told;
    } rows[] = {
        {KMS_E_NOT_FOUND, KMS_E_AUTH},
        {KMS_E_DENIED, KMS_E_AUTH},
        {KMS_E_INVALID, KMS_E_AUTH},
        {KMS_E_AUTH, KMS_E_AUTH},
        {KMS_E_UNAVAILABLE, KMS_E_UNAVAILABLE},
        {KMS_E_THROTTLED, KMS_E_THROTTLED},
        {KMS_E_PROTOCOL, KMS_E_PROTOCOL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
        struct kms_error trouble;
        char text[32];

        source.status = rows[i].source;
        source.says = i % 2 == 0 ? "no luck" : "test: no luck"; /* its name is there once */
        for (unsigned j = 0; j < 5; j++) {
            UNIT_CHECK(kms_status_name(rows[i].source),
                       get(credential, text, 1000) == rows[i].told);
            UNIT_CHECK(error.text, strcmp(error.text, "test: no luck") == 0);
            UNIT_CHECK(error.request_id, strcmp(error.request_id, "r-1") == 0);
            UNIT_CHECK("retry", error.retry_after_ns == 7);
        }
        CU_ASSERT_EQUAL(atomic_load(&source.fetched), 1);
        source.status = KMS_OK;
        (void)poll(NULL, 0, kms_status_is_transient(rows[i].source) ? 110 : 1010);
        CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
        kms_credential_trouble(credential, &trouble);
        CU_ASSERT_EQUAL(trouble.status, KMS_OK);
        kms_credential_free(credential);
    }
}

/* Nobody else hears of the patience of who happened to fetch. */
static void patience_is_its_own(void)
{
    static const enum kms_status rows[] = {KMS_E_CANCELLED, KMS_E_TIMEOUT, KMS_E_BUSY};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
        char text[32];

        source.status = rows[i];
        UNIT_CHECK(kms_status_name(rows[i]), get(credential, text, 1000) == rows[i]);
        source.status = KMS_OK;
        UNIT_CHECK(kms_status_name(rows[i]), get(credential, text, 1000) == KMS_OK);
        kms_credential_free(credential);
    }
}

static void waiting_has_an_end(void)
{
    struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
    struct caller first = {.credential = credential};
    atomic_bool cancelled = true;
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S),
                                       .cancelled = &cancelled};
    const struct kms_credential_value *value = NULL;
    char text[32];

    atomic_store(&source.takes_ms, 300);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&first.thread, NULL, call, &first), 0);
    (void)poll(NULL, 0, 50);
    CU_ASSERT_EQUAL(get(credential, text, 50), KMS_E_TIMEOUT);
    kms_error_clear(&error);
    CU_ASSERT_EQUAL(kms_credential_get(credential, &wait, &value, &error), KMS_E_CANCELLED);
    (void)pthread_join(first.thread, NULL);
    CU_ASSERT_EQUAL(first.status, KMS_OK);
    kms_credential_free(credential);
}

static void a_refused_one_is_replaced_once(void)
{
    struct kms_credential *credential = begin(KMS_DEADLINE_NONE, 0);
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    const struct kms_credential_value *old = NULL;
    const struct kms_credential_value *fresh = NULL;

    CU_ASSERT_EQUAL_FATAL(kms_credential_get(credential, &wait, &old, &error), KMS_OK);
    CU_ASSERT_FALSE(kms_credential_refused(credential, old)); /* it is new: another will not help */
    (void)poll(NULL, 0, 1050);
    CU_ASSERT_TRUE(kms_credential_refused(credential, old));
    CU_ASSERT_TRUE(kms_credential_refused(credential, old)); /* by somebody else, too */
    CU_ASSERT_EQUAL_FATAL(kms_credential_get(credential, &wait, &fresh, &error), KMS_OK);
    CU_ASSERT_STRING_EQUAL(fresh->part[0], "value-2");
    CU_ASSERT_STRING_EQUAL(old->part[0], "value-1"); /* whoever holds it still can read it */
    CU_ASSERT_FALSE(atomic_load(&source.had_old));
    CU_ASSERT_TRUE(kms_credential_refused(credential, old)); /* a late one: replaced already */
    kms_credential_give(credential, fresh);
    CU_ASSERT_EQUAL_FATAL(kms_credential_get(credential, &wait, &fresh, &error), KMS_OK);
    kms_credential_give(credential, old);
    kms_credential_give(credential, fresh);
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 2);
    kms_credential_free(credential);
}

/* What the source said before is no answer to a refusal: it is asked at once. */
static void a_refusal_asks_anew(void)
{
    struct kms_credential *credential = begin(KMS_DEADLINE_NONE, KMS_NS_PER_S);
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    const struct kms_credential_value *old = NULL;
    char text[32];

    CU_ASSERT_EQUAL_FATAL(kms_credential_get(credential, &wait, &old, &error), KMS_OK);
    (void)poll(NULL, 0, 1050);
    source.status = KMS_E_DENIED;
    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK); /* a refresh, which fails */
    CU_ASSERT_EQUAL(atomic_load(&source.fetched), 2);
    source.status = KMS_OK;
    CU_ASSERT_TRUE(kms_credential_refused(credential, old));
    CU_ASSERT_EQUAL(get(credential, text, 1000), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "value-3");
    kms_credential_give(credential, old);
    kms_credential_free(credential);
}

static const struct unit_test tests[] = {
    {"one fetch serves many", one_fetch_serves_many},
    {"an end is seen", an_end_is_seen},
    {"the first ones wait", the_first_ones_wait},
    {"others go on with the old", others_go_on_with_the_old},
    {"a refresh may fail", a_refresh_may_fail},
    {"a refresh may hang", a_refresh_may_hang},
    {"an end comes in a refresh", an_end_comes_in_a_refresh},
    {"failures are told, and kept briefly", failures_are_told_and_kept_briefly},
    {"patience is its own", patience_is_its_own},
    {"waiting has an end", waiting_has_an_end},
    {"a refused one is replaced once", a_refused_one_is_replaced_once},
    {"a refusal asks anew", a_refusal_asks_anew},
};

int main(void)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    return kms_secure_init() == KMS_OK ? unit_main("test_rest_credential", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
