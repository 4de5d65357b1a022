/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/ckr.h"

#include <string.h>

#include "tests/unit/unit.h"

static void every_value_has_one_row(void)
{
    size_t count = 0;
    const struct kms_ckr *rows = kms_ckr_rows(&count);

    CU_ASSERT(count >= 90); /* pkcs11-base-v2.40-os 5.1 and the header have so many */
    for (size_t i = 0; i < count; i++) {
        UNIT_CHECK(rows[i].name, kms_ckr_find(rows[i].rv) == &rows[i]);
        UNIT_CHECK(rows[i].name, (rows[i].rv == CKR_OK) == (rows[i].status == KMS_OK));
        UNIT_CHECK(rows[i].name, rows[i].action < KMS_P11_ACTION_COUNT);
        /* what is repaired may pass, what may not pass is not repaired */
        UNIT_CHECK(rows[i].name,
                   rows[i].action < KMS_P11_REOPEN || kms_status_is_transient(rows[i].status));
    }
}

static void values_mean_what_they_must(void)
{
    static const struct {
        const char *name;
        CK_RV rv;
        enum kms_status status;
        enum kms_p11_action action;
    } cases[] = {
        {"CKR_SESSION_HANDLE_INVALID", 0xb3, KMS_E_UNAVAILABLE, KMS_P11_REOPEN},
        {"CKR_SESSION_CLOSED", 0xb0, KMS_E_UNAVAILABLE, KMS_P11_REOPEN},
        {"CKR_SESSION_COUNT", 0xb1, KMS_E_BUSY, KMS_P11_NONE},
        {"CKR_USER_NOT_LOGGED_IN", 0x101, KMS_E_UNAVAILABLE, KMS_P11_RELOGIN},
        {"CKR_DEVICE_ERROR", 0x30, KMS_E_UNAVAILABLE, KMS_P11_REOPEN},
        {"CKR_DEVICE_REMOVED", 0x32, KMS_E_UNAVAILABLE, KMS_P11_REINIT},
        {"CKR_TOKEN_NOT_PRESENT", 0xe0, KMS_E_UNAVAILABLE, KMS_P11_REINIT},
        {"CKR_CRYPTOKI_NOT_INITIALIZED", 0x190, KMS_E_UNAVAILABLE, KMS_P11_REINIT},
        {"CKR_OBJECT_HANDLE_INVALID", 0x82, KMS_E_UNAVAILABLE, KMS_P11_REFRESH_KEY},
        {"CKR_KEY_HANDLE_INVALID", 0x60, KMS_E_UNAVAILABLE, KMS_P11_REFRESH_KEY},
        {"CKR_PIN_INCORRECT", 0xa0, KMS_E_AUTH, KMS_P11_NONE},
        {"CKR_PIN_LOCKED", 0xa4, KMS_E_AUTH, KMS_P11_NONE},
        {"CKR_ENCRYPTED_DATA_INVALID", 0x40, KMS_E_BAD_DATA, KMS_P11_NONE},
        {"CKR_SIGNATURE_INVALID", 0xc0, KMS_E_BAD_DATA, KMS_P11_NONE},
        {"CKR_MECHANISM_INVALID", 0x70, KMS_E_UNSUPPORTED, KMS_P11_NONE},
        {"CKR_KEY_FUNCTION_NOT_PERMITTED", 0x68, KMS_E_DENIED, KMS_P11_NONE},
        {"CKR_HOST_MEMORY", 0x02, KMS_E_NOMEM, KMS_P11_NONE},
    };

    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        const struct kms_ckr *row = kms_ckr_find(cases[i].rv);

        UNIT_CHECK(cases[i].name, strcmp(row->name, cases[i].name) == 0);
        UNIT_CHECK(cases[i].name, row->status == cases[i].status);
        UNIT_CHECK(cases[i].name, row->action == cases[i].action);
    }
}

static void unknown_values_are_told_by_number(void)
{
    static const CK_RV unknown[] = {0x1234, 0x80001234, 0x1f5};

    for (size_t i = 0; i < UNIT_COUNT(unknown); i++) {
        struct kms_error err = KMS_ERROR_INIT;
        char number[32];

        (void)snprintf(number, sizeof(number), "0x%08lx", unknown[i]);
        CU_ASSERT_EQUAL(kms_ckr_find(unknown[i])->action, KMS_P11_REOPEN);
        CU_ASSERT_EQUAL(kms_ckr_error(&err, "kek", "C_Sign", unknown[i]), KMS_E_UNAVAILABLE);
        CU_ASSERT_PTR_NOT_NULL(strstr(err.text, number));
    }
}

static void errors_name_place_function_and_value(void)
{
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_ckr_error(&err, "kek", "C_Encrypt", CKR_DEVICE_REMOVED), KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(err.text, "kek: C_Encrypt: CKR_DEVICE_REMOVED");
    CU_ASSERT_STRING_EQUAL(err.code, "CKR_DEVICE_REMOVED");
}

static void no_value_says_that_a_key_is_gone(void)
{
    size_t count = 0;
    const struct kms_ckr *rows = kms_ckr_rows(&count);

    for (size_t i = 0; i < count; i++) {
        UNIT_CHECK(rows[i].name, rows[i].status != KMS_E_NOT_FOUND);
    }
}

static const struct unit_test tests[] = {
    {"every value has one row", every_value_has_one_row},
    {"values mean what they must", values_mean_what_they_must},
    {"unknown values are told by number", unknown_values_are_told_by_number},
    {"errors name place, function and value", errors_name_place_function_and_value},
    {"no value says that a key is gone", no_value_says_that_a_key_is_gone},
};

int main(void)
{
    return unit_main("test_ckr", tests, UNIT_COUNT(tests));
}
