/* SPDX-License-Identifier: Apache-2.0 */
/* PINs: wrong ones, and those that are not tried. */
#include "tests/faults/heal.h"

#include <string.h>
#include <unistd.h>

/* ---- PINs --------------------------------------------------------------------------------- */

void wrong_pin_is_tried_once(void)
{
    struct kms_waist *waist = NULL;
    char ref[KMS_KEY_REF_MAX];
    unsigned long logins = calls("C_Login");
    struct kms_call call;
    struct kms_health health;

    plan("");
    set_pin("4321");
    waist = open_on("one", 4);
    for (unsigned i = 0; i < 25; i++) {
        call = call_for(1000);
        CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
        CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "refused"));
        CU_ASSERT_PTR_NULL(strstr(call.error.text, "4321"));
        sleep_ms(100);
    }
    CU_ASSERT_EQUAL(calls("C_Login") - logins, 1);
    kms_waist_health(waist, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_EQUAL(health.error.status, KMS_E_AUTH);
    set_pin("9999"); /* another wrong one gets its one try */
    sleep_ms(1100);
    call = call_for(1000);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
    CU_ASSERT_EQUAL(calls("C_Login") - logins, 2);
    set_pin(PIN "\n");
    sleep_ms(1100);
    call = call_for(1000);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    CU_ASSERT_EQUAL(calls("C_Login") - logins, 3);
    kms_waist_close(waist);
}

void pin_states_are_told(void)
{
    static const struct {
        const char *plan;
        const char *word;
    } states[] = {
        {"fail=CKR_PIN_LOCKED:C_Login", "locked"},
        {"fail=CKR_PIN_EXPIRED:C_Login", "expired"},
        {"fail=CKR_PIN_LEN_RANGE:C_Login", "refused"},
    };

    for (size_t i = 0; i < UNIT_COUNT(states); i++) {
        char ref[KMS_KEY_REF_MAX];
        struct kms_waist *waist = NULL;
        struct kms_call call = call_for(1000);
        unsigned long logins = calls("C_Login");

        plan(states[i].plan);
        set_pin(PIN);
        waist = open_on("one", 4);
        CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
        UNIT_CHECK(states[i].word, strstr(call.error.text, states[i].word) != NULL);
        call = call_for(1000);
        CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
        CU_ASSERT_EQUAL(calls("C_Login") - logins, 1);
        kms_waist_close(waist);
    }
}

/* The last try is the owner's: a supervisor that restarts us must not lock the token. */
void the_final_try_is_not_taken(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = NULL;
    struct kms_call call = call_for(1000);
    unsigned long logins = calls("C_Login");

    plan("final_try=1");
    set_pin(PIN);
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "one try is left"));
    CU_ASSERT_EQUAL(calls("C_Login"), logins);
    plan("");
    sleep_ms(1100);
    call = call_for(1000);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    kms_waist_close(waist);
}

void other_login_failures_spare_the_pin(void)
{
    static const char *const codes[] = {"CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
                                        "CKR_USER_TOO_MANY_TYPES"};

    for (size_t i = 0; i < UNIT_COUNT(codes); i++) {
        char ref[KMS_KEY_REF_MAX], text[128];
        struct kms_waist *waist = NULL;
        struct kms_call call = call_for(500);

        (void)snprintf(text, sizeof(text), "fail=%s:C_Login", codes[i]);
        plan(text);
        set_pin(PIN);
        waist = open_on("one", 4);
        UNIT_CHECK(codes[i], find_kek(waist, ref, &call) != KMS_OK);
        UNIT_CHECK(codes[i], strcmp(call.error.code, codes[i]) == 0);
        plan("");
        sleep_ms(1100);
        call = call_for(5000);
        UNIT_CHECK(codes[i], find_kek(waist, ref, &call) == KMS_OK); /* the same PIN, tried again */
        kms_waist_close(waist);
    }
}

void a_missing_pin_file_is_no_missing_key(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = NULL;
    struct kms_call call = call_for(1000);
    unsigned long logins = calls("C_Login");

    plan("");
    (void)unlink(pin_file());
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
    CU_ASSERT_EQUAL(calls("C_Login"), logins);
    set_pin(PIN);
    sleep_ms(1100);
    call = call_for(1000);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    kms_waist_close(waist);
}
