/* SPDX-License-Identifier: Apache-2.0 */
#include "common/status.h"

#include <stddef.h>
#include <string.h>

#include "tests/unit/unit.h"

static void first_error_stays(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_error_set(&error, KMS_E_DENIED, "first %d", 1), KMS_E_DENIED);
    CU_ASSERT_EQUAL(kms_error_set(&error, KMS_E_TIMEOUT, "second"), KMS_E_DENIED);
    CU_ASSERT_EQUAL(kms_error_set_code(&error, KMS_E_TIMEOUT, "CODE", "third"), KMS_E_DENIED);
    CU_ASSERT_STRING_EQUAL(error.text, "first 1");
    CU_ASSERT_STRING_EQUAL(error.code, "");
}

static void code_is_kept(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_error_set_code(&error, KMS_E_UNAVAILABLE, "CKR_DEVICE_REMOVED", "gone"),
                    KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(error.code, "CKR_DEVICE_REMOVED");
    CU_ASSERT_STRING_EQUAL(error.text, "gone");
    kms_error_clear(&error);
    CU_ASSERT_EQUAL(error.status, KMS_OK);
    CU_ASSERT_STRING_EQUAL(error.code, "");
    CU_ASSERT_STRING_EQUAL(error.text, "");
    CU_ASSERT_EQUAL(kms_error_set_code(&error, KMS_E_AUTH, NULL, "no code"), KMS_E_AUTH);
    CU_ASSERT_STRING_EQUAL(error.code, "");
}

static void another_sentence_keeps_the_rest(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    (void)kms_error_set_code(&error, KMS_E_UNAVAILABLE, "HTTP 503", "sealed");
    memcpy(error.request_id, "id", 3);
    error.retry_after_ns = 7;
    CU_ASSERT_EQUAL(kms_error_reword(&error, KMS_E_AUTH, "the login:\n%s", error.text), KMS_E_AUTH);
    CU_ASSERT_EQUAL(error.status, KMS_E_AUTH);
    CU_ASSERT_STRING_EQUAL(error.text, "the login: sealed");
    CU_ASSERT_STRING_EQUAL(error.code, "HTTP 503");
    CU_ASSERT_STRING_EQUAL(error.request_id, "id");
    CU_ASSERT_EQUAL(error.retry_after_ns, 7);
    CU_ASSERT_EQUAL(kms_error_reword(NULL, KMS_E_DENIED, "%s", "x"), KMS_E_DENIED);
}

static void null_error_is_fine(void)
{
    CU_ASSERT_EQUAL(kms_error_set(NULL, KMS_E_NOMEM, "%s", "x"), KMS_E_NOMEM);
    CU_ASSERT_EQUAL(kms_error_set_code(NULL, KMS_E_BUSY, "C", "%s", "x"), KMS_E_BUSY);
    kms_error_clear(NULL);
}

static void text_is_one_line_and_bounded(void)
{
    struct kms_error error = KMS_ERROR_INIT;
    char longest[2 * KMS_ERROR_TEXT_MAX];

    (void)kms_error_set_code(&error, KMS_E_PROTOCOL, "A\nB", "a\nb\tc\rd\x7f");
    CU_ASSERT_STRING_EQUAL(error.text, "a b c d ");
    CU_ASSERT_STRING_EQUAL(error.code, "A B");
    kms_error_clear(&error);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    (void)kms_error_set_code(&error, KMS_E_PROTOCOL, longest, "%s", longest);
    CU_ASSERT_EQUAL(strlen(error.text), KMS_ERROR_TEXT_MAX - 1);
    CU_ASSERT_EQUAL(strlen(error.code), KMS_ERROR_CODE_MAX - 1);
}

static void names_are_all_there_and_differ(void)
{
    for (int i = 0; i < KMS_STATUS_COUNT; i++) {
        const char *name = kms_status_name((enum kms_status)i);

        if (!UNIT_CHECK("name", name != NULL)) {
            continue;
        }
        UNIT_CHECK(name, strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name));
        for (int j = 0; j < i; j++) {
            UNIT_CHECK(name, strcmp(name, kms_status_name((enum kms_status)j)) != 0);
        }
    }
    CU_ASSERT_STRING_EQUAL(kms_status_name(KMS_E_UNAVAILABLE), "unavailable");
    CU_ASSERT_STRING_EQUAL(kms_status_name(KMS_STATUS_COUNT), "unknown");
    CU_ASSERT_STRING_EQUAL(kms_status_name((enum kms_status) - 1), "unknown");
}

static void only_these_are_transient(void)
{
    for (int i = 0; i < KMS_STATUS_COUNT; i++) {
        bool expected = i == KMS_E_THROTTLED || i == KMS_E_UNAVAILABLE || i == KMS_E_BUSY;

        UNIT_CHECK(kms_status_name((enum kms_status)i),
                   kms_status_is_transient((enum kms_status)i) == expected);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"first error stays", first_error_stays},
        {"code is kept", code_is_kept},
        {"another sentence keeps the rest", another_sentence_keeps_the_rest},
        {"null error is fine", null_error_is_fine},
        {"text is one line and bounded", text_is_one_line_and_bounded},
        {"names are all there and differ", names_are_all_there_and_differ},
        {"only these are transient", only_these_are_transient},
    };

    return unit_main("test_status", tests, UNIT_COUNT(tests));
}
