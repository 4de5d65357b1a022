/* SPDX-License-Identifier: Apache-2.0 */
#include "common/secret.h"

#include <string.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#define PIN "73519264" /* as one that was written where a reference belongs */

static void check_ref(void)
{
    static const struct {
        const char *ref;
        enum kms_status status;
        const char *says;
    } rows[] = {
        {"file:/etc/kmsbridge/pin", KMS_OK, ""},
        {"env:KMS_PIN", KMS_OK, ""},
        {"env:_x1", KMS_OK, ""},
        {"credential:pin", KMS_OK, ""},
        {"credential:kms.pin-2", KMS_OK, ""},
        {"", KMS_E_INVALID, "file:/absolute/path, env:NAME or credential:NAME"},
        {PIN, KMS_E_INVALID, "file:/absolute/path, env:NAME or credential:NAME"},
        {"pin:" PIN, KMS_E_INVALID, "file:/absolute/path, env:NAME or credential:NAME"},
        {"FILE:/" PIN, KMS_E_INVALID, "file:/absolute/path"},
        {" file:/" PIN, KMS_E_INVALID, "file:/absolute/path"},
        {"file:", KMS_E_INVALID, "file:/absolute/path"},
        {"file:/", KMS_E_INVALID, "file:/absolute/path"},
        {"file:" PIN, KMS_E_INVALID, "file:/absolute/path"},
        {"env:", KMS_E_INVALID, "env:NAME"},
        {"env:" PIN, KMS_E_INVALID, "env:NAME"},
        {"env:A-B", KMS_E_INVALID, "env:NAME"},
        {"env:A=" PIN, KMS_E_INVALID, "env:NAME"},
        {"credential:", KMS_E_INVALID, "credential:NAME"},
        {"credential:a/b", KMS_E_INVALID, "credential:NAME"},
        {"credential:.", KMS_E_INVALID, "credential:NAME"},
        {"credential:..", KMS_E_INVALID, "credential:NAME"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].ref, kms_secret_check_ref(rows[i].ref, &error) == rows[i].status);
        UNIT_CHECK(rows[i].ref, strstr(error.text, rows[i].says) != NULL);
        UNIT_CHECK(rows[i].ref, strstr(error.text, PIN) == NULL);
    }
}

static void check_bytes(const char *row, const char *ref, enum kms_status status,
                        const char *expected)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_secret *secret = NULL;

    UNIT_CHECK(row, kms_secret_load(ref, &secret, &error) == status);
    if (status == KMS_OK) {
        UNIT_CHECK(row, secret != NULL &&
                            kms_span_equal(kms_secret_span(secret), kms_span_str(expected)));
    } else {
        UNIT_CHECK(row, secret == NULL && error.text[0] != '\0');
        UNIT_CHECK(row, strstr(error.text, PIN) == NULL);
    }
    kms_secret_free(secret);
}

static void load_file(void)
{
    static char big[KMS_SECRET_MAX + 3];
    const struct {
        const char *name;
        mode_t mode;
        const char *content;
        size_t len;
        enum kms_status status;
        const char *expected;
    } rows[] = {
        {"as it is", 0600, "1234", 4, KMS_OK, "1234"},
        {"one newline is dropped", 0640, "1234\n", 5, KMS_OK, "1234"},
        {"as other systems end a line", 0600, "1234\r\n", 6, KMS_OK, "1234"},
        {"only one newline", 0600, "1234\n\n", 6, KMS_OK, "1234\n"},
        {"nothing but the newline", 0600, "1234\r", 5, KMS_OK, "1234\r"},
        {"spaces stay", 0600, " 12 34 ", 7, KMS_OK, " 12 34 "},
        {"empty", 0600, "", 0, KMS_E_INVALID, NULL},
        {"newline only", 0600, "\n", 1, KMS_E_INVALID, NULL},
        {"others may read", 0644, PIN, 8, KMS_E_DENIED, NULL},
        {"others may write", 0602, PIN, 8, KMS_E_DENIED, NULL},
        {"too large", 0600, big, KMS_SECRET_MAX + 1, KMS_E_TOO_LARGE, NULL},
        {"too large by two", 0600, big, KMS_SECRET_MAX + 2, KMS_E_TOO_LARGE, NULL},
    };
    char ref[PATH_MAX + 8];

    memset(big, 'x', sizeof(big) - 1);
    (void)snprintf(ref, sizeof(ref), "file:%s", scratch_path("pin"));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *path = scratch_file("pin", rows[i].mode, rows[i].content, rows[i].len);

        check_bytes(rows[i].name, ref, rows[i].status, rows[i].expected);
        (void)unlink(path);
    }
    check_bytes("no such file", ref, KMS_E_NOT_FOUND, NULL);
}

static void load_largest(void)
{
    static char big[KMS_SECRET_MAX + 2];
    char ref[PATH_MAX + 8];
    const char *path;

    memset(big, 'x', KMS_SECRET_MAX);
    big[KMS_SECRET_MAX] = '\n';
    path = scratch_file("pin", 0600, big, KMS_SECRET_MAX + 1);
    big[KMS_SECRET_MAX] = '\0';
    (void)snprintf(ref, sizeof(ref), "file:%s", path);
    check_bytes("4096 bytes and a newline", ref, KMS_OK, big);
    (void)unlink(path);
}

static void load_env(void)
{
    CU_ASSERT_EQUAL(setenv("KMS_TEST_PIN", "4321", 1), 0);
    CU_ASSERT_EQUAL(setenv("KMS_TEST_EMPTY", "", 1), 0);
    check_bytes("set", "env:KMS_TEST_PIN", KMS_OK, "4321");
    check_bytes("empty", "env:KMS_TEST_EMPTY", KMS_E_INVALID, NULL);
    CU_ASSERT_EQUAL(unsetenv("KMS_TEST_PIN"), 0);
    check_bytes("not set", "env:KMS_TEST_PIN", KMS_E_NOT_FOUND, NULL);
    check_bytes("not a reference", PIN, KMS_E_INVALID, NULL);
}

static void load_credential(void)
{
    static char deep[PATH_MAX];
    const char *path = scratch_file("cred", 0400, "5678\n", 5);

    CU_ASSERT_EQUAL(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    check_bytes("no directory", "credential:cred", KMS_E_NOT_FOUND, NULL);
    CU_ASSERT_EQUAL(setenv("CREDENTIALS_DIRECTORY", scratch_path(""), 1), 0);
    check_bytes("there", "credential:cred", KMS_OK, "5678");
    check_bytes("not there", "credential:other", KMS_E_NOT_FOUND, NULL);
    memset(deep, 'd', sizeof(deep) - 1);
    CU_ASSERT_EQUAL(setenv("CREDENTIALS_DIRECTORY", deep, 1), 0);
    check_bytes("path too long", "credential:cred", KMS_E_INVALID, NULL);
    CU_ASSERT_EQUAL(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    (void)unlink(path);
}

/* A changed file is seen: nothing is remembered. */
static void load_reads_anew(void)
{
    char ref[PATH_MAX + 8];
    const char *path = scratch_file("pin", 0600, "one", 3);

    (void)snprintf(ref, sizeof(ref), "file:%s", path);
    check_bytes("first", ref, KMS_OK, "one");
    (void)scratch_file("pin", 0600, "two!", 4);
    check_bytes("second", ref, KMS_OK, "two!");
    (void)unlink(path);
}

static void load_survives_lack_of_memory(void)
{
    char ref[PATH_MAX + 8];
    const char *path = scratch_file("pin", 0600, "1234", 4);
    unsigned nth = 1;

    (void)snprintf(ref, sizeof(ref), "file:%s", path);
    for (bool came = true; came && nth < 100; nth++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct kms_secret *secret = NULL;
        enum kms_status status;

        fail_alloc_set(nth);
        status = kms_secret_load(ref, &secret, &error);
        came = fail_alloc_clear();
        CU_ASSERT_EQUAL(status, came ? KMS_E_NOMEM : KMS_OK);
        CU_ASSERT_EQUAL(secret == NULL, came);
        kms_secret_free(secret);
    }
    CU_ASSERT_TRUE(nth > 3); /* two allocations at least were made to fail */
    (void)unlink(path);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"check_ref", check_ref},
        {"load file", load_file},
        {"load largest", load_largest},
        {"load env", load_env},
        {"load credential", load_credential},
        {"load reads anew", load_reads_anew},
        {"load survives lack of memory", load_survives_lack_of_memory},
    };
    int result;

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    result = unit_main("test_secret", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
