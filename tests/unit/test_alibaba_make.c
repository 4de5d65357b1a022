/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a key that was made, when it cannot be named, and what a list shows: over a door
 * that plays the service, and fails where a test says so. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/alibaba.h"
#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/alibaba_plain.h"
#include "tests/unit/unit.h"

#define KEY      "key-hzz1234"
#define HUGE     "key-huge"
#define METADATA METADATA_OF(KEY)
#define METADATA_OF(key)                                                                           \
    "{\"KeyMetadata\":{\"KeyId\":\"" key "\",\"Arn\":\"acs:kms:r:1:key/" key "\",\"KeySpec\":"     \
    "\"Aliyun_AES_256\",\"KeyUsage\":\"ENCRYPT/DECRYPT\",\"KeyState\":\"Enabled\","                \
    "\"PrimaryKeyVersion\":\"version-1\"},\"RequestId\":\"r\"}"
#define REFUSED(code) "{\"Code\":\"" code "\",\"Message\":\"planted\",\"RequestId\":\"planted-id\"}"

/* How an action is answered: @times so, and from then on well. */
struct plan {
    const char *action;
    unsigned times;
    enum kms_status fails; /* no answer, after the request was sent */
    unsigned status;
    const char *body;
    unsigned sleep_ms;
    bool done; /* the service has done it all the same */
};

static struct {
    const struct plan *plans;
    size_t count;
    unsigned met[4];
    bool made, named, leaving;
    char seen[512]; /* the actions in their order */
    char url[1024]; /* of CreateKey */
} service;

static const struct plan *plan_for(const char *action)
{
    for (size_t i = 0; i < service.count; i++) {
        if (strcmp(service.plans[i].action, action) == 0 &&
            service.met[i] < service.plans[i].times) {
            service.met[i]++;
            return &service.plans[i];
        }
    }
    return NULL;
}

/* A page of a key that has 300 versions. */
static const char *huge_page(void)
{
    static char page[64 * 1024];
    int at = snprintf(page, sizeof(page), "{\"KeyVersions\":{\"KeyVersion\":[");

    for (unsigned i = 0; i < 100; i++) {
        at += snprintf(page + at, sizeof(page) - (size_t)at,
                       "%s{\"KeyId\":\"" HUGE "\",\"KeyVersionId\":\"version-%u\",\"CreationDate\":"
                       "\"2026-11-29T00:00:00Z\"}",
                       i == 0 ? "" : ",", i);
    }
    (void)snprintf(page + at, sizeof(page) - (size_t)at,
                   "]},\"TotalCount\":300,\"PageNumber\":1,\"PageSize\":100,\"RequestId\":\"r\"}");
    return page;
}

static void do_it(const char *action)
{
    service.made = service.made || strcmp(action, "CreateKey") == 0;
    service.named = service.named || strcmp(action, "CreateAlias") == 0;
    service.leaving = service.leaving || strcmp(action, "ScheduleKeyDeletion") == 0;
}

static enum kms_status play(const char *action, const struct kms_http_request *request,
                            struct kms_http_response *ret)
{
    unsigned status = 200;
    const char *body = "{\"RequestId\":\"r\"}";

    if (strcmp(action, "ListKeys") == 0) {
        body = "{\"Keys\":{\"Key\":[{\"KeyId\":\"" HUGE "\"},{\"KeyId\":\"" KEY
               "\"}]},\"TotalCount\":2,\"RequestId\":\"r\"}";
    } else if (strcmp(action, "ListAliases") == 0) {
        body = "{\"Aliases\":{\"Alias\":[]},\"TotalCount\":0,\"RequestId\":\"r\"}";
    } else if (strstr(request->url, "KeyId=" HUGE) != NULL) {
        body = strcmp(action, "DescribeKey") == 0 ? METADATA_OF(HUGE) : huge_page();
    } else if (strcmp(action, "DescribeKey") == 0 && !service.named) {
        status = 404;
        body = REFUSED("Forbidden.AliasNotFound");
    } else if (strcmp(action, "CreateAlias") == 0 && service.named) {
        status = 409;
        body = REFUSED("Rejected.AlreadyExist");
    } else if (strcmp(action, "DescribeKey") == 0 || strcmp(action, "CreateKey") == 0) {
        body = METADATA;
    } else if (strcmp(action, "ListKeyVersions") == 0) {
        body = "{\"KeyVersions\":{\"KeyVersion\":[{\"KeyId\":\"" KEY "\",\"KeyVersionId\":"
               "\"version-1\",\"CreationDate\":\"2026-11-29T00:00:00Z\"}]},\"TotalCount\":1,"
               "\"PageNumber\":1,\"PageSize\":100,\"RequestId\":\"r\"}";
    }
    do_it(action);
    return kms_http_response_fill(request, ret, status, kms_span_str(body), NULL);
}

static enum kms_status answer(struct kms_http_door *door, const struct kms_http_request *request,
                              const struct kms_http_wait *wait, struct kms_http_response *ret,
                              struct kms_error *err)
{
    const char *action = "";
    const struct plan *plan = NULL;

    (void)door;
    for (size_t i = 0; i < request->header_count; i++) {
        action = strcmp(request->headers[i].name, "x-acs-action") == 0 ? request->headers[i].value
                                                                       : action;
    }
    (void)strncat(service.seen, action, sizeof(service.seen) - strlen(service.seen) - 1);
    (void)strncat(service.seen, " ", sizeof(service.seen) - strlen(service.seen) - 1);
    if (strcmp(action, "CreateKey") == 0) {
        (void)snprintf(service.url, sizeof(service.url), "%s", request->url);
    }
    plan = plan_for(action);
    if (plan == NULL) {
        return play(action, request, ret);
    }
    (void)usleep(plan->sleep_ms * 1000);
    if (plan->done) {
        do_it(action);
    }
    if (plan->fails != KMS_OK) {
        ret->was_sent = true;
        return kms_error_set(
            err, kms_deadline_passed(wait->deadline_ns) ? KMS_E_TIMEOUT : plan->fails, "cut off");
    }
    return kms_http_response_fill(request, ret, plan->status, kms_span_str(plan->body), NULL);
}

static void close_door(struct kms_http_door *door)
{
    free(door);
}

static struct kms_http_door *new_door(void)
{
    struct kms_http_door *door = calloc(1, sizeof(*door));

    *door = (struct kms_http_door){.perform = answer, .close = close_door};
    return door;
}

static const struct kms_ali_doors *new_doors(void)
{
    static struct kms_ali_doors doors;

    doors = (struct kms_ali_doors){.kms = new_door(), .identity = new_door()};
    return &doors;
}

static struct kms_backend *begin(const struct plan *plans, size_t count)
{
    static struct kms_alibaba_conf settings;
    static struct kms_backend_conf conf;
    struct kms_backend *b = NULL;

    alibaba_plain(&settings, &conf);
    memset(&service, 0, sizeof(service));
    service.plans = plans;
    service.count = count;
    CU_ASSERT_EQUAL_FATAL(kms_ali_open_over(&conf, new_doors(), &b, NULL), KMS_OK);
    return b;
}

/* What one key's making comes to, with @ms for it. */
static enum kms_status make(const struct plan *plans, size_t count, unsigned ms,
                            struct kms_call *call)
{
    const struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "app/new"};
    struct kms_key_info info;
    struct kms_backend *b = begin(plans, count);
    enum kms_status status = KMS_OK;

    *call = (struct kms_call){.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
    status = kms_ali_generate(b, call, &tmpl, &info);
    kms_alibaba_ops.close(b);
    return status;
}

static bool said(const struct kms_call *call, const char *text)
{
    return strstr(call->error.text, text) != NULL;
}

static void a_name_is_insisted_on(void)
{
    static const struct {
        const char *name;
        struct plan plan;
        unsigned ms;
    } rows[] = {
        {"well", {.action = ""}, 2000},
        {"throttled",
         {"CreateAlias", 2, KMS_OK, 429, REFUSED("Rejected.Throttling"), 0, false},
         2000},
        {"unavailable",
         {"CreateAlias", 2, KMS_OK, 503, REFUSED("ServiceUnavailable"), 0, false},
         2000},
        {"cut off", {"CreateAlias", 1, KMS_E_UNAVAILABLE, 0, NULL, 0, false}, 2000},
        {"cut off, and done", {"CreateAlias", 1, KMS_E_UNAVAILABLE, 0, NULL, 0, true}, 2000},
        {"the deadline passed",
         {"CreateAlias", 1, KMS_OK, 429, REFUSED("Rejected.Throttling"), 250, false},
         200},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_call call;

        (void)make(&rows[i].plan, 1, rows[i].ms, &call);
        UNIT_CHECK(rows[i].name, service.made && service.named && !service.leaving);
        if (rows[i].ms > 1000) {
            UNIT_CHECK(call.error.text, call.error.status == KMS_OK);
        } else { /* late, and said so, with what there is now */
            UNIT_CHECK(call.error.text, call.error.status == KMS_E_TIMEOUT);
            UNIT_CHECK(call.error.text, said(&call, "key " KEY " is made and named alias/app/new"));
        }
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(service.url, "Description=kmsbridge%3A%20alias%2Fapp%2Fnew"));
}

static void a_key_without_a_name_goes_again(void)
{
    static const struct plan plans[] = {
        {"CreateAlias", 99, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false},
        {"ScheduleKeyDeletion", 1, KMS_E_UNAVAILABLE, 0, NULL, 0, false},
    };
    static const struct plan lost[] = {
        {"CreateAlias", 99, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false},
        {"ScheduleKeyDeletion", 1, KMS_E_UNAVAILABLE, 0, NULL, 0, true},
        {"ScheduleKeyDeletion", 9, KMS_OK, 409, REFUSED("Rejected.PendingDeletion"), 0, true},
    };
    struct kms_call call;

    CU_ASSERT_EQUAL(make(plans, 2, 2000, &call), KMS_E_DENIED);
    CU_ASSERT(service.made && !service.named && service.leaving);
    CU_ASSERT(said(&call, "key " KEY " was made, cannot be named alias/app/new, and is to be "
                          "deleted again: CreateAlias: HTTP 403"));
    CU_ASSERT_STRING_EQUAL(call.error.code, "Forbidden.NoPermission");
    CU_ASSERT_STRING_EQUAL(call.error.request_id, "planted-id");
    CU_ASSERT_EQUAL(make(lost, 3, 2000, &call), KMS_E_DENIED);
    CU_ASSERT(said(&call, "is to be deleted again"));
}

/* Nothing is lost silently. */
static void a_key_that_stays_is_told(void)
{
    static const struct plan plans[] = {
        {"CreateAlias", 99, KMS_OK, 503, REFUSED("ServiceUnavailable"), 0, false},
        {"ScheduleKeyDeletion", 99, KMS_OK, 503, REFUSED("ServiceUnavailable"), 0, false},
    };
    int pipes[2];
    char log[4096] = "";
    struct kms_call call;
    uint64_t start = kms_now_ns();
    ssize_t len = 0;

    CU_ASSERT_EQUAL_FATAL(pipe(pipes), 0);
    kms_log_setup(pipes[1], KMS_LOG_ERROR, KMS_LOG_TEXT);
    CU_ASSERT_EQUAL(make(plans, 2, 500, &call), KMS_E_UNAVAILABLE);
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    CU_ASSERT(kms_now_ns() - start < 7 * KMS_NS_PER_S);
    CU_ASSERT(service.made && !service.named && !service.leaving);
    CU_ASSERT(said(&call, "key " KEY " was made, cannot be named alias/app/new, and is still "
                          "there: name it by CreateAlias"));
    len = read(pipes[0], log, sizeof(log) - 1);
    CU_ASSERT(len > 0 && strstr(log, "backend a: key " KEY " was made") != NULL &&
              strstr(log, "backend a: key " KEY ": every endpoint") != NULL);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static void a_key_that_may_be_there_is_told(void)
{
    static const struct {
        const char *name;
        struct plan plan;
        bool may_be;
    } rows[] = {
        {"cut off", {"CreateKey", 1, KMS_E_UNAVAILABLE, 0, NULL, 0, true}, true},
        {"another kind", {"CreateKey", 1, KMS_OK, 200, "{\"RequestId\":\"r\"}", 0, true}, true},
        {"denied",
         {"CreateKey", 1, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false},
         false},
        {"throttled",
         {"CreateKey", 1, KMS_OK, 429, REFUSED("Rejected.Throttling"), 0, false},
         false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_call call;

        UNIT_CHECK(rows[i].name, make(&rows[i].plan, 1, 2000, &call) != KMS_OK);
        UNIT_CHECK(rows[i].name,
                   said(&call, "there may be a key without an alias now, with the description "
                               "\"kmsbridge: alias/app/new\"") == rows[i].may_be);
        UNIT_CHECK(rows[i].name, strcmp(service.seen, "DescribeKey CreateKey ") == 0);
    }
}

static bool count_key(void *ctx, const struct kms_key_info *info)
{
    unsigned *seen = ctx;

    CU_ASSERT_STRING_EQUAL(info->ref, KEY "/version-1");
    (*seen)++;
    return true;
}

/* A key of too many versions does not hide the others. */
static void the_others_are_listed(void)
{
    struct kms_backend *b = begin(NULL, 0);
    struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
    const struct kms_key_filter all = {.spec = NULL};
    unsigned seen = 0;

    service.named = true;
    CU_ASSERT_EQUAL(kms_alibaba_ops.list_keys(b, &call, &all, count_key, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen, 1);
    CU_ASSERT_PTR_NOT_NULL(
        strstr(service.seen, "ListKeyVersions ListKeyVersions ListKeyVersions "));
    kms_alibaba_ops.close(b);
}

#define ODD(state)                                                                                 \
    "{\"KeyMetadata\":{\"KeyId\":\"" HUGE "\",\"Arn\":\"acs:kms:r:1:key/" HUGE "\",\"KeySpec\":"   \
    "\"Aliyun_SM4\",\"KeyUsage\":\"ENCRYPT/DECRYPT\",\"KeyState\":\"" state "\"},"                 \
    "\"RequestId\":\"planted-id\"}"
#define NO_VERSIONS "{\"KeyVersions\":{\"KeyVersion\":[]},\"TotalCount\":0,\"RequestId\":\"r\"}"

/* Nor does one that goes between two questions, or is not ours to look at, by either question, or
 * has no material yet. */
static void what_is_not_ours_hides_nothing(void)
{
    static const struct plan plans[] = {
        {"DescribeKey", 1, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false},
        {"DescribeKey", 1, KMS_OK, 404, REFUSED("Forbidden.KeyNotFound"), 0, false},
        {"ListKeyVersions", 1, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false},
        {"ListKeyVersions", 1, KMS_OK, 404, REFUSED("Forbidden.KeyNotFound"), 0, false},
        {"ListKeyVersions", 1, KMS_OK, 409, REFUSED("Rejected.PendingDeletion"), 0, false},
        {"ListKeyVersions", 1, KMS_OK, 200, NO_VERSIONS, 0, false},
        {"DescribeKey", 1, KMS_OK, 200, ODD("PendingImport"), 0, false},
    };
    const struct kms_key_filter all = {.spec = NULL};

    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        struct kms_backend *b = begin(&plans[i], 1);
        struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
        unsigned seen = 0;

        service.named = true;
        UNIT_CHECK(plans[i].body,
                   kms_alibaba_ops.list_keys(b, &call, &all, count_key, &seen) == KMS_OK);
        UNIT_CHECK(plans[i].body, seen == 1 && call.error.status == KMS_OK);
        kms_alibaba_ops.close(b);
    }
}

/* Nor does one of which the service tells too little, whose id the log has. */
static void a_key_that_cannot_be_read_hides_none(void)
{
    static const struct plan plans[] = {
        {"DescribeKey", 1, KMS_OK, 200, ODD("Enabled"), 0, false},
        {"DescribeKey", 1, KMS_OK, 200, "<html>", 0, false},
        {"ListKeyVersions", 1, KMS_OK, 200, "{\"RequestId\":\"planted-id\"}", 0, false},
    };
    const struct kms_key_filter all = {.spec = NULL};
    char path[] = "/tmp/test_alibaba_make.XXXXXX", log[2048] = "";
    int fd = mkostemp(path, O_APPEND | O_CLOEXEC);

    CU_ASSERT_FATAL(fd >= 0);
    (void)unlink(path);
    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        struct kms_backend *b = begin(&plans[i], 1);
        struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
        unsigned seen = 0;

        service.named = true;
        CU_ASSERT_EQUAL_FATAL(ftruncate(fd, 0), 0);
        kms_log_setup(fd, KMS_LOG_WARN, KMS_LOG_TEXT);
        UNIT_CHECK(plans[i].body,
                   kms_alibaba_ops.list_keys(b, &call, &all, count_key, &seen) == KMS_OK);
        kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
        UNIT_CHECK(plans[i].body, seen == 1 && call.error.status == KMS_OK);
        memset(log, 0, sizeof(log));
        CU_ASSERT(pread(fd, log, sizeof(log) - 1, 0) > 0);
        UNIT_CHECK(plans[i].body, strstr(log, "a key is not shown: key " HUGE) != NULL);
        kms_alibaba_ops.close(b);
    }
    (void)close(fd);
}

/* Where there is no other one, it may be the one that is looked for. */
static void where_none_can_be_read_that_is_told(void)
{
    static const struct plan plan = {"DescribeKey", 2, KMS_OK, 200, ODD("Enabled"), 0, false};
    static const struct {
        struct kms_key_filter filter;
        enum kms_status status;
    } rows[] = {
        {{.spec = NULL}, KMS_E_PROTOCOL},
        {{.spec = "id:00"}, KMS_E_PROTOCOL},
        {{.tag = {.data = (const uint8_t *)"", .len = 1}}, KMS_OK}, /* as from the list */
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_backend *b = begin(&plan, 1);
        struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
        unsigned seen = 0;

        service.named = true;
        CU_ASSERT_EQUAL(kms_alibaba_ops.list_keys(b, &call, &rows[i].filter, count_key, &seen),
                        rows[i].status);
        CU_ASSERT(seen == 0 && call.error.status == rows[i].status);
        UNIT_CHECK(call.error.text,
                   rows[i].status == KMS_OK ||
                       said(&call, "key " HUGE ": the reply lacks KeyMetadata.PrimaryKeyVersion"));
        CU_ASSERT_STRING_EQUAL(call.error.request_id, rows[i].status == KMS_OK ? "" : "planted-id");
        kms_alibaba_ops.close(b);
    }
}

/* What is named in the configuration is told its state. */
static void what_has_no_material_is_told(void)
{
    static const struct plan plans[] = {
        {"DescribeKey", 1, KMS_OK, 200, ODD("PendingImport"), 0, false},
        {"ListKeyVersions", 1, KMS_OK, 200, NO_VERSIONS, 0, false},
    };
    const struct kms_key_filter named = {.spec = "web"};

    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        struct kms_backend *b = begin(&plans[i], 1);
        struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
        unsigned seen = 0;

        service.named = true;
        UNIT_CHECK(plans[i].body, kms_alibaba_ops.list_keys(b, &call, &named, count_key, &seen) ==
                                      KMS_E_KEY_STATE);
        UNIT_CHECK(call.error.text, said(&call, "no key material"));
        kms_alibaba_ops.close(b);
    }
}

/* ... and is there all the same: its alias is taken, and it can be deleted. */
static void what_has_no_material_is_there(void)
{
    static const struct plan plan = {"DescribeKey", 1, KMS_OK, 200, ODD("PendingImport"), 0, false};
    struct kms_call call;
    struct kms_backend *b = NULL;

    CU_ASSERT_EQUAL(make(&plan, 1, 2000, &call), KMS_E_EXISTS);
    CU_ASSERT_STRING_EQUAL(service.seen, "DescribeKey ");
    b = begin(&plan, 1);
    call = (struct kms_call){.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
    CU_ASSERT_EQUAL(kms_alibaba_ops.destroy(b, &call, HUGE "/" KMS_ALI_ANY_VERSION), KMS_OK);
    CU_ASSERT(service.leaving);
    kms_alibaba_ops.close(b);
}

static bool note_ref(void *ctx, const struct kms_key_info *info)
{
    char *refs = ctx;

    (void)snprintf(refs + strlen(refs), 128 - strlen(refs), "%s ", info->ref);
    return true;
}

/* To applications: neither how many versions there are nor whether they may be listed counts. */
static void logical_keys_need_no_versions(void)
{
    static const struct plan plan = {
        "ListKeyVersions", 99, KMS_OK, 403, REFUSED("Forbidden.NoPermission"), 0, false};
    struct kms_backend *b = begin(&plan, 1);
    struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
    const struct kms_key_filter all = {.logical = true};
    char refs[128] = "";

    service.named = true;
    CU_ASSERT_EQUAL(kms_alibaba_ops.list_keys(b, &call, &all, note_ref, refs), KMS_OK);
    CU_ASSERT_STRING_EQUAL(refs, HUGE "/any " KEY "/any ");
    CU_ASSERT_STRING_EQUAL(service.seen, "ListKeys ListAliases DescribeKey DescribeKey ");
    kms_alibaba_ops.close(b);
}

/* Who hears of a failure only would rotate once more. */
static void a_version_that_cannot_be_seen_is_told(void)
{
    static const char made[] = "{\"KeyVersion\":{\"KeyId\":\"" KEY "\",\"KeyVersionId\":"
                               "\"version-2\",\"CreationDate\":\"2026-11-29T00:00:00Z\"},"
                               "\"RequestId\":\"r\"}";
    static const struct plan plans[] = {
        {"CreateKeyVersion", 1, KMS_OK, 200, made, 0, true},
        {"DescribeKey", 99, KMS_OK, 503, REFUSED("ServiceUnavailable"), 0, false},
    };
    struct kms_backend *b = begin(plans, UNIT_COUNT(plans));
    struct kms_call call = {.deadline_ns = kms_deadline_in(2 * KMS_NS_PER_S)};
    struct kms_key_info info;

    CU_ASSERT_EQUAL(kms_alibaba_ops.rotate(b, &call, KEY "/version-1", &info), KMS_E_UNAVAILABLE);
    UNIT_CHECK(call.error.text, said(&call, "the new version " KEY "/version-2 is made"));
    CU_ASSERT_STRING_EQUAL(call.error.request_id, "planted-id");
    kms_alibaba_ops.close(b);
}

static const struct unit_test tests[] = {
    {"a version that cannot be seen is told", a_version_that_cannot_be_seen_is_told},
    {"the others are listed", the_others_are_listed},
    {"what is not ours hides nothing", what_is_not_ours_hides_nothing},
    {"a key that cannot be read hides none", a_key_that_cannot_be_read_hides_none},
    {"where none can be read that is told", where_none_can_be_read_that_is_told},
    {"what has no material is told", what_has_no_material_is_told},
    {"what has no material is there", what_has_no_material_is_there},
    {"logical keys need no versions", logical_keys_need_no_versions},
    {"a name is insisted on", a_name_is_insisted_on},
    {"a key without a name goes again", a_key_without_a_name_goes_again},
    {"a key that stays is told", a_key_that_stays_is_told},
    {"a key that may be there is told", a_key_that_may_be_there_is_told},
};

int main(void)
{
    if (kms_secure_init() != KMS_OK || setenv("TEST_ALI_SECRET", "secret", 1) != 0) {
        return EXIT_FAILURE;
    }
    return unit_main("test_alibaba_make", tests, UNIT_COUNT(tests));
}
