/* SPDX-License-Identifier: Apache-2.0 */
/* The audit's lines, and what becomes of them when they cannot be written. */
#include "kmsbridge/audit.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/codec.h"
#include "common/log.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

static const struct kms_audit_peer peer = {.uid = 1000, .gid = 100, .pid = 77, .exe = "/usr/bin/x"};

static void format(void)
{
    const struct kms_audit_record record = {.front = "agent",
                                            .peer = &peer,
                                            .token = "hsm",
                                            .key_id = "kb1-00",
                                            .label = "app",
                                            .op = "sign",
                                            .mechanism = "ecdsa",
                                            .verdict = KMS_E_DENIED,
                                            .refused = "policy",
                                            .request_id = "r-1",
                                            .trace_id = "t-1",
                                            .suppressed = 3,
                                            .duration_ns = 1234567};
    char line[KMS_AUDIT_LINE_MAX];

    CU_ASSERT_EQUAL(kms_audit_format(&record, 0, line), strlen(line));
    CU_ASSERT_STRING_EQUAL(
        line, "{\"time\":\"1970-01-01T00:00:00.000Z\",\"front\":\"agent\",\"uid\":1000,\"gid\":100,"
              "\"pid\":77,\"exe\":\"/usr/bin/x\",\"token\":\"hsm\",\"key_id\":\"kb1-00\","
              "\"label\":\"app\",\"op\":\"sign\",\"mechanism\":\"ecdsa\",\"verdict\":\"denied\","
              "\"refused\":\"policy\",\"request_id\":\"r-1\",\"trace_id\":\"t-1\","
              "\"suppressed\":3,\"us\":1234}\n");
}

static void least(void)
{
    const struct kms_audit_record record = {.front = "kms_v2", .op = "encrypt", .request_id = ""};
    char line[KMS_AUDIT_LINE_MAX];

    (void)kms_audit_format(&record, 1000, line);
    CU_ASSERT_STRING_EQUAL(line, "{\"time\":\"1970-01-01T00:00:01.000Z\",\"front\":\"kms_v2\","
                                 "\"op\":\"encrypt\",\"verdict\":\"ok\",\"us\":0}\n");
}

static void escaping(void)
{
    static const struct {
        const char *name;
        const char *label;
        const char *shown;
    } rows[] = {
        {"quote", "a\"b", "a\\\"b"},
        {"backslash", "a\\", "a\\\\"},
        {"a forged line", "x\"}\n{\"uid\":0", "x\\\"}\\u000a{\\\"uid\\\":0"},
        {"control characters", "\x01\x1b\x7f\t", "\\u0001\\u001b\\u007f\\u0009"},
        {"UTF-8", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91"},
        {"no UTF-8", "a\xff\xc3z", "a\xef\xbf\xbd\xef\xbf\xbdz"},
        {"an overlong slash", "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"a surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_audit_record record = {
            .front = "agent", .label = rows[i].label, .op = "sign"};
        char line[KMS_AUDIT_LINE_MAX];
        char expected[256];
        size_t len = kms_audit_format(&record, 0, line);

        (void)snprintf(expected, sizeof(expected), "\"label\":\"%s\",\"op\"", rows[i].shown);
        UNIT_CHECK(rows[i].name, strstr(line, expected) != NULL);
        UNIT_CHECK(rows[i].name, strchr(line, '\n') == line + len - 1);
        UNIT_CHECK(rows[i].name, kms_utf8_valid(kms_span_of(line, len)));
    }
}

/* Every field as long as it can be, of bytes that take most. */
static void longest(void)
{
    static char bytes[4096];
    const struct kms_audit_peer long_peer = {
        .uid = (uid_t)-1, .gid = (gid_t)-1, .pid = 4194304, .exe = bytes};
    const struct kms_audit_record record = {.front = "agent",
                                            .peer = &long_peer,
                                            .label = bytes + sizeof(bytes) - 256,
                                            .op = "sign",
                                            .duration_ns = UINT64_MAX};
    char line[KMS_AUDIT_LINE_MAX];
    size_t len = 0;

    memset(bytes, 1, sizeof(bytes) - 1);
    len = kms_audit_format(&record, UINT64_MAX / 2000000, line);
    CU_ASSERT_TRUE(len < KMS_AUDIT_LINE_MAX);
    CU_ASSERT_TRUE(len > 2 && strcmp(line + len - 2, "}\n") == 0);
}

static size_t lines_in(const char *path, const char *with)
{
    char line[KMS_AUDIT_LINE_MAX];
    FILE *file = fopen(path, "re");
    size_t n = 0;

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        n += strstr(line, with) != NULL ? 1 : 0;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return n;
}

static enum kms_status write_one(struct kms_audit *audit)
{
    const struct kms_audit_record record = {.front = "agent", .peer = &peer, .op = "sign"};
    struct kms_error err = KMS_ERROR_INIT;

    return kms_audit_write(audit, &record, &err);
}

static struct kms_audit *open_at(const char *path, bool required)
{
    const struct kms_audit_conf conf = {.to = KMS_AUDIT_FILE, .file = path, .required = required};
    struct kms_audit *audit = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL_FATAL(kms_audit_open(&conf, &audit, &err), KMS_OK);
    return audit;
}

static void file(void)
{
    char path[PATH_MAX];
    char moved[PATH_MAX];
    struct stat st;
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_audit *audit = NULL;

    (void)snprintf(path, sizeof(path), "%s", scratch_path("audit"));
    (void)snprintf(moved, sizeof(moved), "%s", scratch_path("audit.1"));
    audit = open_at(path, false);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
    CU_ASSERT_EQUAL(rename(path, moved), 0);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(
        kms_audit_reopen(audit, &(struct kms_audit_conf){.to = KMS_AUDIT_FILE, .file = path}, &err),
        KMS_OK);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(lines_in(moved, "sign"), 2);
    CU_ASSERT_EQUAL(lines_in(path, "sign"), 1);
    /* a place that is none changes nothing */
    CU_ASSERT_EQUAL(
        kms_audit_reopen(audit, &(struct kms_audit_conf){.to = KMS_AUDIT_FILE, .file = "/dev/null"},
                         &err),
        KMS_E_INVALID);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(lines_in(path, "sign"), 2);
    kms_audit_close(audit);
    kms_audit_close(NULL);
    CU_ASSERT_EQUAL(kms_audit_write(NULL, NULL, &err), KMS_OK);
}

/* The disk is full, in the middle of a line; then it is not. */
static void full(bool required)
{
    char path[PATH_MAX];
    struct kms_audit *audit = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s", scratch_path(required ? "required" : "full"));
    audit = open_at(path, required);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    scratch_limit((size_t)st.st_size + 20);
    CU_ASSERT_EQUAL(write_one(audit), required ? KMS_E_UNAVAILABLE : KMS_OK);
    CU_ASSERT_EQUAL(write_one(audit), required ? KMS_E_UNAVAILABLE : KMS_OK);
    CU_ASSERT_EQUAL(kms_audit_ready(audit, &err), required ? KMS_E_UNAVAILABLE : KMS_OK);
    CU_ASSERT_EQUAL(kms_audit_lost(audit), 2);
    scratch_limit(0);
    kms_error_clear(&err);
    CU_ASSERT_EQUAL(kms_audit_ready(audit, &err), KMS_OK);
    CU_ASSERT_EQUAL(write_one(audit), KMS_OK);
    CU_ASSERT_EQUAL(lines_in(path, "\"op\":\"sign\",\"verdict\":\"ok\""), 2); /* and a torn one */
    CU_ASSERT_EQUAL(lines_in(path, "\"lost\":2"), 1);
    kms_audit_close(audit);
}

static void full_disk(void)
{
    full(false);
}

static void full_disk_required(void)
{
    full(true);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"format", format},
        {"least", least},
        {"escaping", escaping},
        {"longest", longest},
        {"file", file},
        {"full disk", full_disk},
        {"full disk, required", full_disk_required},
    };
    int code;

    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    scratch_init();
    code = unit_main("test_audit", tests, UNIT_COUNT(tests));
    scratch_done();
    return code;
}
