/* SPDX-License-Identifier: Apache-2.0 */
/* Order, failover and breakers, over a door that answers for each host as it is told. */
#include "backend/rest/endpoints.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/fake_http.h"
#include "tests/unit/unit.h"

enum mood {
    WELL,
    REFUSES,
    CUTS,
    ANSWERS_503,
    UNKNOWN_CERTIFICATE,
    ANSWERS_AS_TOLD,
    ANSWERS_MUCH,
    SAYS_NOTHING,
    HAS_NO_CONNECTION_FREE,
    REFUSES_LATE,
    HANGS
};
static enum mood moods[2];
static struct fake_http fake;

static unsigned told; /* what ANSWERS_AS_TOLD does */

static enum kms_status answer(struct fake_http *self, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    (void)self;
    switch (moods[strncmp(request->url, "https://one", 11) == 0 ? 0 : 1]) {
    case WELL:
        return fake_http_reply(request, ret, 200, "{}");
    case ANSWERS_503:
        return fake_http_reply(request, ret, 503, "{\"why\":1}");
    case ANSWERS_AS_TOLD:
        return fake_http_reply(request, ret, told, "{}");
    case ANSWERS_MUCH:
        return fake_http_reply(request, ret, 200, "{\"more\":\"than 16 bytes\"}");
    case SAYS_NOTHING:
        return KMS_E_UNAVAILABLE;
    case HAS_NO_CONNECTION_FREE:
        return kms_error_set(err, KMS_E_BUSY, "no connection was free");
    case REFUSES:
    case REFUSES_LATE:
        return kms_error_set(err, KMS_E_UNAVAILABLE, "no connection");
    case UNKNOWN_CERTIFICATE:
        return kms_error_set(err, KMS_E_PROTOCOL, "its certificate does not verify");
    default:
        ret->was_sent = true;
        return kms_error_set(err, KMS_E_UNAVAILABLE, "cut off");
    }
}

/* What the endpoints ask of an answer, before they have judged it: another caller comes meanwhile.
 */
static struct kms_endpoints *meanwhile; /* NULL: nobody comes */
static enum kms_status meanwhile_status;

static enum kms_status ask(struct kms_endpoints *endpoints, bool once, struct kms_error *err,
                           unsigned *ret_status);

/* One call whose answer is a 503 that it judges late: when @may_end. */
static struct {
    pthread_t thread;
    sem_t is_there, may_end;
    _Atomic bool is_on;
    struct kms_endpoints *endpoints;
} late;

static void *be_late(void *ctx)
{
    struct kms_error err;
    unsigned http = 0;

    (void)ctx;
    (void)ask(late.endpoints, false, &err, &http);
    return NULL;
}

static bool is_sick(const struct kms_http_response *response)
{
    struct kms_endpoints *endpoints = meanwhile;
    struct kms_error err;
    unsigned http = 0;

    if (late.is_on) { /* the first that comes here */
        late.is_on = false;
        (void)sem_post(&late.is_there);
        (void)sem_wait(&late.may_end);
        return response->status == 503;
    }
    meanwhile = NULL;
    if (late.endpoints != NULL && endpoints != NULL) {
        (void)sem_post(&late.may_end);
        (void)pthread_join(late.thread, NULL);
        (void)poll(NULL, 0, 125); /* longer than it can be open */
    }
    if (endpoints != NULL) {
        meanwhile_status = ask(endpoints, false, &err, &http);
    }
    return response->status == 503;
}

static void say(const struct kms_http_response *response, char *ret_text, size_t size)
{
    if (kms_span_equal(kms_blob_span(&response->body), kms_span_str("{\"why\":1}"))) {
        (void)snprintf(ret_text, size, "it is sealed");
    }
}

static struct kms_endpoints *begin_with(size_t count, enum mood one, enum mood two,
                                        bool (*sick)(const struct kms_http_response *response))
{
    static const char *const urls[] = {"https://one.example:8200", "https://two.example/base"};
    const struct kms_endpoints_conf conf = {.name = "test",
                                            .urls = urls,
                                            .count = count,
                                            .open_ns = 60 * KMS_NS_PER_MS,
                                            .open_max_ns = 120 * KMS_NS_PER_MS,
                                            .is_sick = sick,
                                            .say = say};
    struct kms_endpoints *endpoints = NULL;

    meanwhile = NULL;
    fake_http_init(&fake, answer);
    moods[0] = one;
    moods[1] = two;
    CU_ASSERT_EQUAL_FATAL(kms_endpoints_new(&conf, &fake.door, &endpoints, NULL), KMS_OK);
    return endpoints;
}

static struct kms_endpoints *begin(size_t count, enum mood one, enum mood two)
{
    return begin_with(count, one, two, is_sick);
}

static void end(struct kms_endpoints *endpoints)
{
    kms_endpoints_free(endpoints);
    kms_http_door_close(&fake.door);
}

static enum kms_status ask_within(struct kms_endpoints *endpoints, uint64_t time_ns, bool once,
                                  struct kms_error *err, unsigned *ret_status)
{
    const struct kms_http_request request = {
        .method = KMS_HTTP_POST, .url = "/v1/x", .once = once, .body_max = 16};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(time_ns)};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    enum kms_status status = KMS_OK;

    kms_error_clear(err);
    status = kms_endpoints_perform(endpoints, &request, &wait, &response, err);
    *ret_status = response.status;
    kms_http_response_done(&response);
    return status;
}

static enum kms_status ask(struct kms_endpoints *endpoints, bool once, struct kms_error *err,
                           unsigned *ret_status)
{
    return ask_within(endpoints, KMS_NS_PER_S, once, err, ret_status);
}

static void the_first_is_asked(void)
{
    struct kms_endpoints *endpoints = begin(2, WELL, WELL);
    struct kms_error err;
    unsigned http = 0;

    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_STRING_EQUAL(fake.lines[0], "POST https://one.example:8200/v1/x");
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://two"), 0);
    end(endpoints);
}

static void the_next_is_asked_at_once(void)
{
    static const struct {
        const char *name;
        enum mood mood;
        bool once, goes_on;
    } rows[] = {
        {"refused", REFUSES, false, true},
        {"refused, once", REFUSES, true, true},
        {"cut off", CUTS, false, true},
        {"cut off, once", CUTS, true, false},
        {"503", ANSWERS_503, false, true},
        {"503, once", ANSWERS_503, true, false},
        {"certificate", UNKNOWN_CERTIFICATE, true, true},
        {"our own bound", HAS_NO_CONNECTION_FREE, true, true},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_endpoints *endpoints = begin(2, rows[i].mood, WELL);
        struct kms_error err;
        unsigned http = 0;
        enum kms_status status = ask(endpoints, rows[i].once, &err, &http);

        UNIT_CHECK(rows[i].name, (status == KMS_OK && http == 200) == rows[i].goes_on);
        UNIT_CHECK(rows[i].name, fake.count == (rows[i].goes_on ? 2u : 1u));
        UNIT_CHECK(rows[i].name, (strstr(err.text, "whether it was done is not known") != NULL) ==
                                     (rows[i].once && rows[i].mood == CUTS));
        end(endpoints);
    }
}

/* What is the node's trouble, where the service does not say otherwise, and what is the request's.
 */
static void a_status_says_who_is_sick(void)
{
    static const struct {
        unsigned http;
        bool sick;
    } rows[] = {{200, false}, {307, false}, {400, false}, {403, false}, {429, false}, {499, false},
                {500, true},  {501, false}, {502, true},  {503, true},  {504, true},  {505, false}};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_endpoints *endpoints = begin_with(2, ANSWERS_AS_TOLD, WELL, NULL);
        struct kms_error err;
        unsigned http = 0;
        char row[8];

        told = rows[i].http;
        (void)snprintf(row, sizeof(row), "%u", told);
        for (unsigned j = 0; j < 3; j++) {
            UNIT_CHECK(row, ask(endpoints, false, &err, &http) == KMS_OK);
            UNIT_CHECK(row, http == (rows[i].sick ? 200 : told));
        }
        UNIT_CHECK(row, kms_endpoints_healthy(endpoints) == (rows[i].sick ? 1u : 2u));
        end(endpoints);
    }
}

/* Once nobody is asked any more there is no answer that the caller could read. */
static void what_a_sick_one_says_is_kept(void)
{
    static const struct {
        enum mood mood;
        const char *text;
    } rows[] = {{ANSWERS_503, "because: it answers with status 503: it is sealed"},
                {ANSWERS_AS_TOLD, "because: it answers with status 503"}};

    told = 503;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_endpoints *endpoints = begin(1, rows[i].mood, WELL);
        struct kms_error err = KMS_ERROR_INIT;
        unsigned http = 0;

        for (unsigned j = 0; j < 3; j++) {
            UNIT_CHECK(rows[i].text, ask(endpoints, false, &err, &http) == KMS_OK && http == 503);
        }
        UNIT_CHECK(rows[i].text, ask(endpoints, false, &err, &http) == KMS_E_UNAVAILABLE);
        UNIT_CHECK(err.text, strlen(err.text) > strlen(rows[i].text) &&
                                 strcmp(err.text + strlen(err.text) - strlen(rows[i].text),
                                        rows[i].text) == 0);
        end(endpoints);
    }
}

static void the_last_answer_comes_back(void)
{
    struct kms_endpoints *endpoints = begin(2, REFUSES, ANSWERS_503);
    struct kms_error err;
    unsigned http = 0;

    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(http, 503);
    moods[1] = SAYS_NOTHING; /* no answer, whatever is said of it */
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
    moods[1] = CUTS;
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(err.text, "cut off");
    end(endpoints);
}

static void a_breaker_opens_and_closes(void)
{
    struct kms_endpoints *endpoints = begin(1, REFUSES, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 0);
    CU_ASSERT_EQUAL(fake.count, 3);
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(fake.count, 3); /* nobody was asked */
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "left alone"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "no connection"));
    CU_ASSERT(err.retry_after_ns > 0 && err.retry_after_ns <= 60 * KMS_NS_PER_MS);
    for (unsigned i = 4; i < 7; i++) { /* half open: fails, and is open again, for longer */
        uint64_t start = 0;

        (void)poll(NULL, 0, 125);
        start = kms_now_ns();
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
        CU_ASSERT_EQUAL(fake.count, i);
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
        CU_ASSERT_EQUAL(fake.count, i);
        CU_ASSERT(kms_now_ns() - start + err.retry_after_ns >= 60 * KMS_NS_PER_MS);
        CU_ASSERT(err.retry_after_ns <= 120 * KMS_NS_PER_MS);
    }
    moods[0] = WELL;
    (void)poll(NULL, 0, 125);
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK); /* half open: well */
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
    end(endpoints);
}

/* A reply over our ceiling is no mark of an ill endpoint, and the next one's would be as long. */
static void too_much_is_no_illness(void)
{
    struct kms_endpoints *endpoints = begin(2, ANSWERS_MUCH, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 8; i++) {
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_PROTOCOL);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 2);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://two"), 0);
    moods[0] = WELL;
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://two"), 0);
    end(endpoints);
}

/* Nor are our own bounds: who waited for a connection in vain has not asked the endpoint. */
static void our_bounds_are_no_illness(void)
{
    struct kms_endpoints *endpoints = begin(1, HAS_NO_CONNECTION_FREE, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 8; i++) {
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_BUSY);
        CU_ASSERT_STRING_EQUAL(err.text, "no connection was free");
    }
    CU_ASSERT_EQUAL(fake.count, 8);
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
    end(endpoints);
}

/* While one call tries it, others are not sent after it: a server that comes up is not stormed. */
static void half_open_takes_one_call(void)
{
    struct kms_endpoints *endpoints = begin(1, REFUSES, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 3; i++) {
        (void)ask(endpoints, false, &err, &http);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 0);
    for (unsigned i = 0; i < 2; i++) { /* it fails, then it is well */
        unsigned before = fake.count;

        moods[0] = i == 0 ? ANSWERS_503 : WELL;
        (void)poll(NULL, 0, 125);
        meanwhile = endpoints;
        meanwhile_status = KMS_OK;
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
        CU_ASSERT_EQUAL(http, i == 0 ? 503 : 200);
        CU_ASSERT_EQUAL(meanwhile_status, KMS_E_UNAVAILABLE);
        CU_ASSERT_EQUAL(fake.count, before + 1);
        CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), i);
    }
    meanwhile = endpoints; /* closed: both go */
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(meanwhile_status, KMS_OK);
    end(endpoints);
}

/* When the breaker is half open next, between *ret_from and *ret_to. */
static void look_when(struct kms_endpoints *endpoints, uint64_t *ret_from, uint64_t *ret_to)
{
    struct kms_error err;
    unsigned http = 0;

    *ret_from = kms_now_ns();
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_E_UNAVAILABLE);
    *ret_from += err.retry_after_ns;
    *ret_to = kms_now_ns() + err.retry_after_ns;
}

static void begin_late(struct kms_endpoints *endpoints)
{
    late.endpoints = endpoints;
    late.is_on = true;
    CU_ASSERT_EQUAL_FATAL(sem_init(&late.is_there, 0, 0) | sem_init(&late.may_end, 0, 0), 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&late.thread, NULL, be_late, NULL), 0);
    (void)sem_wait(&late.is_there);
}

static void end_late(void)
{
    late.endpoints = NULL;
    (void)sem_destroy(&late.is_there);
    (void)sem_destroy(&late.may_end);
}

/* One that was sent before the breaker opened, and fails before it is tried. */
static void a_late_failure_opens_no_longer(void)
{
    struct kms_endpoints *endpoints = begin(1, ANSWERS_503, WELL);
    struct kms_error err;
    uint64_t from = 0;
    uint64_t to = 0;
    uint64_t latest = 0;
    unsigned http = 0;

    begin_late(endpoints);
    for (unsigned i = 0; i < 3; i++) {
        (void)ask(endpoints, false, &err, &http);
    }
    look_when(endpoints, &from, &latest);
    (void)sem_post(&late.may_end);
    (void)pthread_join(late.thread, NULL);
    look_when(endpoints, &from, &to);
    CU_ASSERT(from <= latest);
    end_late();
    end(endpoints);
}

/* One that was sent before the breaker opened fails while it is tried: that is news of then. */
static void a_late_failure_changes_nothing(void)
{
    struct kms_endpoints *endpoints = begin(1, ANSWERS_503, WELL);
    struct kms_error err;
    unsigned before = 0;
    unsigned http = 0;

    begin_late(endpoints);
    for (unsigned i = 0; i < 3; i++) {
        (void)ask(endpoints, false, &err, &http);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 0);
    (void)poll(NULL, 0, 65);
    before = fake.count;
    meanwhile = endpoints;
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK); /* half open, and it is late */
    CU_ASSERT_EQUAL(http, 503);
    CU_ASSERT_EQUAL(meanwhile_status, KMS_E_UNAVAILABLE); /* who came meanwhile was not sent */
    CU_ASSERT_EQUAL(fake.count, before + 1);
    end_late();
    end(endpoints);
}

static void successes_reset_the_count(void)
{
    struct kms_endpoints *endpoints = begin(1, REFUSES, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 9; i++) {
        moods[0] = i % 3 == 2 ? WELL : REFUSES;
        (void)ask(endpoints, false, &err, &http);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
    CU_ASSERT_EQUAL(fake.count, 9);
    end(endpoints);
}

static void the_preferred_one_comes_back(void)
{
    struct kms_endpoints *endpoints = begin(2, REFUSES, WELL);
    struct kms_error err;
    unsigned http = 0;

    for (unsigned i = 0; i < 10; i++) {
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    }
    CU_ASSERT(fake_http_asked(&fake, "POST https://one") <= 4);
    moods[0] = WELL;
    (void)poll(NULL, 0, 125);
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 2);
    CU_ASSERT_STRING_EQUAL(kms_endpoints_first(endpoints), "https://one.example:8200");
    end(endpoints);
}

static enum kms_status (*perform_at_once)(struct kms_http_door *door,
                                          const struct kms_http_request *request,
                                          const struct kms_http_wait *wait,
                                          struct kms_http_response *ret, struct kms_error *err);

static enum kms_status perform_in_time(struct kms_http_door *door,
                                       const struct kms_http_request *request,
                                       const struct kms_http_wait *wait,
                                       struct kms_http_response *ret, struct kms_error *err)
{
    enum mood mood = moods[strncmp(request->url, "https://one", 11) == 0 ? 0 : 1];
    enum kms_status status = perform_at_once(door, request, wait, ret, err);

    if (mood != HANGS && mood != REFUSES_LATE) {
        return status;
    }
    (void)poll(NULL, 0, (int)(kms_deadline_left(wait->deadline_ns) / KMS_NS_PER_MS) + 1);
    if (mood == REFUSES_LATE) {
        return status;
    }
    kms_error_clear(err);
    return kms_error_set(err, KMS_E_TIMEOUT, "no reply in time");
}

/* A node that takes connections and does not answer: its first calls have time for the other one.
 */
static void who_hangs_fails_no_call(void)
{
    struct kms_endpoints *endpoints = begin(2, HANGS, WELL);
    struct kms_error err;
    unsigned http = 0;

    perform_at_once = fake.door.perform;
    fake.door.perform = perform_in_time;
    for (unsigned i = 1; i <= 3; i++) {
        CU_ASSERT_EQUAL(ask_within(endpoints, 2000 * KMS_NS_PER_MS, false, &err, &http), KMS_OK);
        CU_ASSERT_EQUAL(http, 200);
        CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://one"), i);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
    end(endpoints);
}

/* Where no time is to be shared: the call may be made only once, is short, or there is no other. */
static void a_call_has_all_its_time(void)
{
    static const struct {
        const char *name;
        size_t count;
        uint64_t time_ms;
        bool once;
    } rows[] = {{"once", 2, 1100, true}, {"short", 2, 300, false}, {"alone", 1, 1100, false}};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_endpoints *endpoints = begin(rows[i].count, HANGS, WELL);
        struct kms_error err;
        unsigned http = 0;

        perform_at_once = fake.door.perform;
        fake.door.perform = perform_in_time;
        UNIT_CHECK(rows[i].name, ask_within(endpoints, rows[i].time_ms * KMS_NS_PER_MS,
                                            rows[i].once, &err, &http) == KMS_E_TIMEOUT);
        UNIT_CHECK(rows[i].name, fake.count == 1);
        end(endpoints);
    }
}

/* Nor has it any other that would answer: calls that had time say that it hangs, and no others. */
static void who_hangs_alone_is_left_alone(void)
{
    static const struct {
        uint64_t time_ms;
        bool is_left;
    } rows[] = {{60, false}, {700, true}};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_endpoints *endpoints = begin(1, HANGS, WELL);
        struct kms_error err;
        unsigned http = 0;

        perform_at_once = fake.door.perform;
        fake.door.perform = perform_in_time;
        for (unsigned j = 0; j < 3; j++) {
            CU_ASSERT_EQUAL(
                ask_within(endpoints, rows[i].time_ms * KMS_NS_PER_MS, false, &err, &http),
                KMS_E_TIMEOUT);
        }
        CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), rows[i].is_left ? 0 : 1);
        end(endpoints);
    }
}

static enum kms_status perform_after_a_wait(struct kms_http_door *door,
                                            const struct kms_http_request *request,
                                            const struct kms_http_wait *wait,
                                            struct kms_http_response *ret, struct kms_error *err)
{
    enum kms_status status = perform_in_time(door, request, wait, ret, err);

    ret->began_ns = kms_now_ns();
    return status;
}

/* Who had to wait for a connection, and ran out of time soon after, tells nothing of the endpoint;
 * the next one may still have time to answer. */
static void a_wait_of_our_own_is_not_its_fault(void)
{
    for (size_t count = 1; count <= 2; count++) {
        struct kms_endpoints *endpoints = begin(count, HANGS, WELL);
        struct kms_error err;
        unsigned http = 0;

        perform_at_once = fake.door.perform;
        fake.door.perform = perform_after_a_wait;
        for (unsigned j = 0; j < 3; j++) {
            CU_ASSERT_EQUAL(ask_within(endpoints, count * 600 * KMS_NS_PER_MS, false, &err, &http),
                            count == 1 ? KMS_E_TIMEOUT : KMS_OK);
        }
        CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), count);
        end(endpoints);
    }
}

/* There is no time left for the next one: what the first one said is all that is known. */
static void the_end_of_the_time_hides_nothing(void)
{
    struct kms_endpoints *endpoints = begin(2, REFUSES_LATE, WELL);
    struct kms_error err;
    unsigned http = 0;

    perform_at_once = fake.door.perform;
    fake.door.perform = perform_in_time;
    CU_ASSERT_EQUAL(ask_within(endpoints, 50 * KMS_NS_PER_MS, false, &err, &http),
                    KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(err.text, "no connection");
    CU_ASSERT_EQUAL(fake.count, 1);
    end(endpoints);
}

/* Who tries one again that was left alone has time for the other one. */
static void who_tries_does_not_fail_of_it(void)
{
    struct kms_endpoints *endpoints = begin(2, REFUSES, WELL);
    struct kms_error err;
    unsigned http = 0;
    uint64_t start = 0;

    perform_at_once = fake.door.perform;
    fake.door.perform = perform_in_time;
    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    }
    CU_ASSERT_EQUAL(kms_endpoints_healthy(endpoints), 1);
    moods[0] = HANGS;
    (void)poll(NULL, 0, 65);
    CU_ASSERT_EQUAL(ask_within(endpoints, 80 * KMS_NS_PER_MS, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(ask(endpoints, true, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://one"), 3); /* neither has tried it */
    start = kms_now_ns();
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK);
    CU_ASSERT_EQUAL(http, 200);
    CU_ASSERT(kms_now_ns() - start < 900 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://one"), 4);
    CU_ASSERT_EQUAL(ask(endpoints, false, &err, &http), KMS_OK); /* it is left alone again */
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST https://one"), 4);
    (void)poll(NULL, 0, 125);
    moods[0] = moods[1] = HANGS; /* and that the other one does not answer is told as it is */
    CU_ASSERT_EQUAL(ask_within(endpoints, 200 * KMS_NS_PER_MS, false, &err, &http), KMS_E_TIMEOUT);
    end(endpoints);
}

static void bad_urls_are_refused(void)
{
    static const char *const bad[] = {"http://kms.example", "https://host/", "https://host?x",
                                      "host", ""};

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        const struct kms_endpoints_conf conf = {.name = "test", .urls = &bad[i], .count = 1};
        struct kms_endpoints *endpoints = NULL;
        struct kms_error err = KMS_ERROR_INIT;

        UNIT_CHECK(bad[i], kms_endpoints_new(&conf, NULL, &endpoints, &err) == KMS_E_INVALID);
        UNIT_CHECK(bad[i], strstr(err.text, "endpoint 1") != NULL);
    }
}

static const struct unit_test tests[] = {
    {"the first is asked", the_first_is_asked},
    {"the next is asked at once", the_next_is_asked_at_once},
    {"a status says who is sick", a_status_says_who_is_sick},
    {"what a sick one says is kept", what_a_sick_one_says_is_kept},
    {"the last answer comes back", the_last_answer_comes_back},
    {"a breaker opens and closes", a_breaker_opens_and_closes},
    {"too much is no illness", too_much_is_no_illness},
    {"our bounds are no illness", our_bounds_are_no_illness},
    {"the end of the time hides nothing", the_end_of_the_time_hides_nothing},
    {"half open takes one call", half_open_takes_one_call},
    {"a late failure opens no longer", a_late_failure_opens_no_longer},
    {"a late failure changes nothing", a_late_failure_changes_nothing},
    {"who hangs fails no call", who_hangs_fails_no_call},
    {"a wait of our own is not its fault", a_wait_of_our_own_is_not_its_fault},
    {"who hangs alone is left alone", who_hangs_alone_is_left_alone},
    {"a call has all its time", a_call_has_all_its_time},
    {"successes reset the count", successes_reset_the_count},
    {"the preferred one comes back", the_preferred_one_comes_back},
    {"who tries does not fail of it", who_tries_does_not_fail_of_it},
    {"bad URLs are refused", bad_urls_are_refused},
};

int main(void)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    return kms_secure_init() == KMS_OK ? unit_main("test_rest_endpoints", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
