/* SPDX-License-Identifier: Apache-2.0 */
/* One fault and one round trip; a device that is away for a while. */
#include "tests/faults/heal.h"

#include <string.h>

#include "common/clock.h"

/* ---- one fault, one round trip ------------------------------------------------------------ */

#define ANY 99

static const struct row {
    const char *name;
    const char *plan;
    enum kms_status want;
    unsigned inits, logins, finds; /* how many more of these calls; ANY: at least one more */
    const char *code;              /* in the error */
} rows[] = {
    {"session closed", "fail_once=CKR_SESSION_CLOSED:C_GenerateRandom", KMS_OK, 0, 0, 0, ""},
    {"session lost", "fail_once=CKR_SESSION_HANDLE_INVALID:C_EncryptInit", KMS_OK, 0, 0, 0, ""},
    {"session lost late", "fail_once=CKR_SESSION_HANDLE_INVALID:C_Decrypt", KMS_OK, 0, 0, 0, ""},
    {"operation active", "fail_once=CKR_OPERATION_ACTIVE:C_EncryptInit", KMS_OK, 0, 0, 0, ""},
    {"operation gone", "fail_once=CKR_OPERATION_NOT_INITIALIZED:C_Encrypt", KMS_OK, 0, 0, 0, ""},
    {"cancelled by the token", "fail_once=CKR_FUNCTION_CANCELED:C_Encrypt", KMS_OK, 0, 0, 0, ""},
    {"device error once", "fail_once=CKR_DEVICE_ERROR:C_Encrypt", KMS_OK, 0, 0, 0, ""},
    {"vendor's own, once", "fail_once=0x80001234:C_EncryptInit", KMS_OK, 0, 0, 0, ""},
    {"general error in decrypt once", "fail_once=CKR_GENERAL_ERROR:C_Decrypt", KMS_OK, 0, 0, 0, ""},
    {"login lost", "logout_sessions=1", KMS_OK, 0, 1, ANY, ""},
    {"not logged in", "fail_once=CKR_USER_NOT_LOGGED_IN:C_EncryptInit", KMS_OK, 0, 1, ANY, ""},
    {"key handle", "fail_once=CKR_KEY_HANDLE_INVALID:C_EncryptInit", KMS_OK, 0, 0, ANY, ""},
    {"object handle", "fail_once=CKR_OBJECT_HANDLE_INVALID:C_DecryptInit", KMS_OK, 0, 0, ANY, ""},
    {"key handles stay bad", "until_reinit=1\nfail=CKR_KEY_HANDLE_INVALID:C_EncryptInit", KMS_OK, 1,
     1, ANY, ""},
    {"key handle, twice", "fail_once=CKR_KEY_HANDLE_INVALID:C_EncryptInit:2", KMS_OK, 0, 0, ANY,
     ""},
    {"key handle, more often", "fail_once=CKR_KEY_HANDLE_INVALID:C_EncryptInit:3", KMS_OK, ANY, ANY,
     ANY, ""},
    {"device removed", "until_reinit=1\nfail=CKR_DEVICE_REMOVED", KMS_OK, 1, 1, ANY, ""},
    {"token gone", "until_reinit=1\nfail=CKR_TOKEN_NOT_PRESENT", KMS_OK, 1, 1, ANY, ""},
    {"not recognised", "until_reinit=1\nfail=CKR_TOKEN_NOT_RECOGNIZED", KMS_OK, 1, 1, ANY, ""},
    {"library gone", "until_reinit=1\nfail=CKR_CRYPTOKI_NOT_INITIALIZED", KMS_OK, 1, 1, ANY, ""},
    {"slot gone", "until_reinit=1\nfail=CKR_SLOT_ID_INVALID", KMS_OK, 1, 1, ANY, ""},
    {"self-test failed", "until_reinit=1\nfail=CKR_FIPS_SELF_TEST_FAILED", KMS_OK, 1, 1, ANY, ""},
    {"all sessions lost", "until_reinit=1\nfail=CKR_SESSION_HANDLE_INVALID", KMS_OK, 1, 1, ANY, ""},
    {"device error stays", "until_reinit=1\nfail=CKR_DEVICE_ERROR", KMS_OK, 1, 1, ANY, ""},
    {"general error stays", "until_reinit=1\nfail=CKR_GENERAL_ERROR", KMS_OK, 1, 1, ANY, ""},
    {"function fails", "until_reinit=1\nfail=CKR_FUNCTION_FAILED", KMS_OK, 1, 1, ANY, ""},
    {"login is no use", "until_reinit=1\nfail=CKR_USER_NOT_LOGGED_IN:C_EncryptInit", KMS_OK, 1, 2,
     ANY, ""},
    {"bad data is bad data", "fail=CKR_ENCRYPTED_DATA_INVALID:C_Decrypt", KMS_E_BAD_DATA, 0, 0, 0,
     "CKR_ENCRYPTED_DATA_INVALID"},
    {"bad length is bad data", "fail=CKR_ENCRYPTED_DATA_LEN_RANGE:C_Decrypt", KMS_E_BAD_DATA, 0, 0,
     0, "CKR_ENCRYPTED_DATA_INVALID"},
    {"data invalid is bad data", "fail=CKR_DATA_INVALID:C_Decrypt", KMS_E_BAD_DATA, 0, 0, 0,
     "CKR_ENCRYPTED_DATA_INVALID"},
    {"no memory", "fail=CKR_HOST_MEMORY:C_Encrypt", KMS_E_NOMEM, 0, 0, 0, "CKR_HOST_MEMORY"},
    {"not permitted", "fail=CKR_KEY_FUNCTION_NOT_PERMITTED:C_EncryptInit", KMS_E_DENIED, 0, 0, 0,
     "CKR_KEY_FUNCTION_NOT_PERMITTED"},
    {"mechanism refused", "fail=CKR_MECHANISM_INVALID:C_EncryptInit", KMS_E_UNSUPPORTED, 0, 0, 0,
     "CKR_MECHANISM_INVALID"},
};

static bool as_many(unsigned want, unsigned long got)
{
    return want == ANY ? got >= 1 : got == want;
}

static void run_row(const struct row *row)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    unsigned long inits = calls("C_Initialize"), logins = calls("C_Login");
    unsigned long finds = calls("C_FindObjectsInit");
    struct kms_call call;

    plan(row->plan);
    if (!UNIT_CHECK(row->name, round_trip(waist, ref, 5000, &call) == row->want)) {
        fprintf(stderr, "%s: %s\n", row->name, call.error.text);
    }
    UNIT_CHECK(row->name, strcmp(call.error.code, row->code) == 0);
    UNIT_CHECK(row->name, as_many(row->inits, calls("C_Initialize") - inits));
    UNIT_CHECK(row->name, as_many(row->logins, calls("C_Login") - logins));
    UNIT_CHECK(row->name, as_many(row->finds, calls("C_FindObjectsInit") - finds));
    plan("");
    UNIT_CHECK(row->name, round_trip(waist, ref, 5000, &call) == KMS_OK);
    kms_waist_close(waist);
}

void every_class_is_repaired(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        run_row(&rows[i]);
    }
}

/* A sick token must not make good ciphertexts look bad: the caller would give them up for lost. */
void sick_is_not_bad_data(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call;

    plan("fail=CKR_GENERAL_ERROR:C_Decrypt");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 700, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(call.error.code, "CKR_GENERAL_ERROR");
    plan("");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    kms_waist_close(waist);
}

/* A lost login hides private objects: nobody may be told that the KEK is gone. */
void a_lost_login_hides_no_key(void)
{
    char ref[KMS_KEY_REF_MAX], again[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call = call_for(5000);

    plan("logout_sessions=1");
    CU_ASSERT_EQUAL(find_kek(waist, again, &call), KMS_OK);
    CU_ASSERT_STRING_EQUAL(again, ref);
    kms_waist_close(waist);
}

/* ---- the device is away for a while ------------------------------------------------------- */

void away_and_back(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    unsigned long inits = 0;
    struct kms_call call;
    struct kms_health health;
    uint64_t start = 0;

    plan("fail=CKR_DEVICE_REMOVED");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 500, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(call.error.code, "CKR_DEVICE_REMOVED");
    inits = calls("C_Initialize");
    start = kms_now_ns();
    for (unsigned i = 0; i < 30; i++) {
        CU_ASSERT_EQUAL(round_trip(waist, ref, 50, &call), KMS_E_UNAVAILABLE);
    }
    CU_ASSERT(kms_now_ns() - start < 4 * KMS_NS_PER_S);
    CU_ASSERT(calls("C_Initialize") - inits <= 6); /* backed off: not one for each call */
    kms_waist_health(waist, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_STRING_EQUAL(health.error.code, "CKR_DEVICE_REMOVED");
    plan("");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    kms_waist_health(waist, &health);
    CU_ASSERT_TRUE(health.ready);
    CU_ASSERT(health.reconnects >= 1);
    kms_waist_close(waist);
}

/* The client did not choose the token: it must not be told that it is to blame. */
void two_tokens_are_nobodys_fault(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_call call = call_for(300);
    struct kms_waist *waist = NULL;

    plan("");
    set_pin(PIN);
    waist = open_on("twin", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "2 tokens match"));
    kms_waist_close(waist);
}

/* The one attempt of an op that is never repeated waits for the repair, inside its deadline. */
void generating_waits_for_the_repair(void)
{
    static const char *const plans[] = {
        "until_reinit=1\nfail=CKR_DEVICE_REMOVED",
        "until_reinit=1\nfail=CKR_DEVICE_REMOVED\nfail_once=CKR_FUNCTION_FAILED:C_Initialize:3"};
    struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "waited-for"};
    struct kms_key_info info;

    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        char ref[KMS_KEY_REF_MAX];
        struct kms_waist *waist = healthy("one", 4, ref);
        struct kms_call call = call_for(8000);
        unsigned long made = calls("C_GenerateKey");

        plan(plans[i]);
        UNIT_CHECK(plans[i], kms_waist_generate(waist, &call, &tmpl, &info) == KMS_OK);
        UNIT_CHECK(plans[i], calls("C_GenerateKey") == made + 1);
        UNIT_CHECK(plans[i], kms_waist_destroy(waist, &call, info.ref) == KMS_OK);
        kms_waist_close(waist);
    }
}

/* And no longer: a token that stays away is told with its own error. */
void generating_does_not_wait_for_ever(void)
{
    struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "never"};
    struct kms_key_info info;
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call = call_for(1500);
    uint64_t start = kms_now_ns();

    plan("fail=CKR_DEVICE_REMOVED\nfail=CKR_FUNCTION_FAILED:C_Initialize");
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT(kms_now_ns() - start < 3 * KMS_NS_PER_S);
    plan("");
    kms_waist_close(waist);
}
