/* SPDX-License-Identifier: Apache-2.0 */
/* One key or mechanism is sick, the others are not. */
#include "tests/faults/heal.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- one key or mechanism is sick --------------------------------------------------------- */

struct listed {
    unsigned count;
    char ref[KMS_KEY_REF_MAX];
    uint8_t newest;
};

static bool take_newest(void *ctx, const struct kms_key_info *info)
{
    struct listed *listed = ctx;

    listed->count++;
    if (info->tag_len == 1 && info->tag[0] > listed->newest) {
        listed->newest = info->tag[0];
        memcpy(listed->ref, info->ref, KMS_KEY_REF_MAX);
    }
    return true;
}

static enum kms_status list_many(struct kms_waist *waist, struct kms_call *call,
                                 struct listed *ret_listed)
{
    struct kms_key_filter filter = {.label = "many"};

    *ret_listed = (struct listed){.count = 0};
    *call = call_for(5000);
    return kms_waist_list_keys(waist, call, &filter, take_newest, ret_listed);
}

static unsigned lines_of(FILE *file, const char *word)
{
    char line[KMS_LOG_LINE_MAX + 1];
    unsigned count = 0;

    rewind(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        count += strstr(line, word) != NULL ? 1u : 0u;
    }
    return count;
}

/* "many" has CKA_IDs 11, 12 and 13: 11 is an old one, the service goes on with the newest. */
void one_sick_key_is_passed_over(void)
{
    static const char *const codes[] = {"CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED",
                                        "CKR_DEVICE_ERROR",  "CKR_KEY_HANDLE_INVALID",
                                        "CKR_DATA_INVALID",  "0x80001234"};
    struct kms_call call;
    char sick[KMS_KEY_REF_MAX];
    struct listed listed;

    for (size_t i = 0; i < UNIT_COUNT(codes); i++) {
        unsigned long inits = 0;
        char text[128];
        FILE *log = tmpfile();
        struct kms_waist *waist = NULL;

        CU_ASSERT_PTR_NOT_NULL_FATAL(log);
        kms_log_setup(fileno(log), KMS_LOG_WARN, KMS_LOG_TEXT);
        (void)snprintf(text, sizeof(text), "fail_id=%s:11", codes[i]);
        plan(text);
        set_pin(PIN);
        waist = open_on("one", 4);
        UNIT_CHECK(codes[i], list_many(waist, &call, &listed) == KMS_OK && listed.count == 2);
        UNIT_CHECK(codes[i], listed.newest == 0x13);
        inits = calls("C_Initialize");
        for (unsigned n = 0; n < 3; n++) {
            UNIT_CHECK(codes[i], list_many(waist, &call, &listed) == KMS_OK && listed.count == 2);
            UNIT_CHECK(codes[i], round_trip(waist, listed.ref, 5000, &call) == KMS_OK);
        }
        UNIT_CHECK(codes[i], calls("C_Initialize") == inits);
        UNIT_CHECK(codes[i], lines_of(log, "many") == 1);
        plan("");
        UNIT_CHECK(codes[i], list_many(waist, &call, &listed) == KMS_OK && listed.count == 3);
        kms_waist_close(waist);
        kms_log_setup(2, KMS_LOG_INFO, KMS_LOG_TEXT);
        (void)fclose(log);
    }
    { /* nobody is told that it is gone; and with nothing to compare it to, it is the token's */
        struct kms_waist *waist = healthy("one", 4, sick);

        plan("fail_id=CKR_FUNCTION_FAILED:01\nfail_once=CKR_DEVICE_REMOVED:C_GenerateRandom");
        CU_ASSERT_EQUAL(round_trip(waist, sick, 500, &call), KMS_E_UNAVAILABLE);
        plan("");
        CU_ASSERT_EQUAL(round_trip(waist, sick, 8000, &call), KMS_OK);
        kms_waist_close(waist);
    }
}

/* Requests for one sick key, again and again, do not restart the module under all others. */
void one_sick_key_restarts_little(void)
{
    static const char *const codes[] = {"CKR_GENERAL_ERROR", "CKR_DEVICE_ERROR",
                                        "CKR_KEY_HANDLE_INVALID", "0x80001234"};

    for (size_t i = 0; i < UNIT_COUNT(codes); i++) {
        char sick[KMS_KEY_REF_MAX], text[128];
        struct kms_waist *waist = healthy("one", 4, sick);
        unsigned long inits = calls("C_Initialize");
        struct kms_call call;
        struct listed listed;
        unsigned good = 0;

        UNIT_CHECK(codes[i], list_many(waist, &call, &listed) == KMS_OK && listed.count == 3);
        (void)snprintf(text, sizeof(text), "fail_id=%s:01", codes[i]);
        plan(text);
        for (unsigned n = 0; n < 20; n++) {
            UNIT_CHECK(codes[i], round_trip(waist, sick, 60, &call) == KMS_E_UNAVAILABLE);
            good += round_trip(waist, listed.ref, 500, &call) == KMS_OK ? 1u : 0u;
        }
        UNIT_CHECK(codes[i], good == 20);
        if (!UNIT_CHECK(codes[i], calls("C_Initialize") - inits <= 3)) {
            fprintf(stderr, "%s: %lu restarts\n", codes[i], calls("C_Initialize") - inits);
        }
        plan("");
        UNIT_CHECK(codes[i], round_trip(waist, sick, 8000, &call) == KMS_OK);
        kms_waist_close(waist);
    }
}

void gcm_that_fails_is_done_without(void)
{
    static const char *const plans[] = {
        "fail_mech=CKR_GENERAL_ERROR:CKM_AES_GCM", "fail_mech=CKR_FUNCTION_FAILED:CKM_AES_GCM",
        "fail_mech=CKR_DEVICE_ERROR:CKM_AES_GCM", "fail_mech=0x80001234:CKM_AES_GCM"};
    char ref[KMS_KEY_REF_MAX];
    struct sealed gcm, cbc;
    struct kms_call call = call_for(5000);
    struct kms_waist *waist = healthy("one", 4, ref);

    CU_ASSERT_EQUAL(seal(waist, ref, &call, &gcm), KMS_OK);
    kms_waist_close(waist);
    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        unsigned long inits = calls("C_Initialize");

        plan(plans[i]);
        waist = open_on("one", 4);
        call = call_for(5000);
        UNIT_CHECK(plans[i], find_kek(waist, ref, &call) == KMS_OK);
        UNIT_CHECK(plans[i], seal(waist, ref, &call, &cbc) == KMS_OK);
        UNIT_CHECK(plans[i], cbc.sealed.alg == KMS_ALG_AES_CBC_HMAC);
        UNIT_CHECK(plans[i], unseal(waist, ref, &call, &cbc) == KMS_OK);
        UNIT_CHECK(plans[i], calls("C_Initialize") - inits <= 1);
        plan(""); /* it was no more than a while: what GCM sealed opens without a restart */
        UNIT_CHECK(plans[i], unseal(waist, ref, &call, &gcm) == KMS_OK);
        UNIT_CHECK(plans[i], calls("C_Initialize") - inits <= 1);
        kms_waist_close(waist);
    }
}

static bool take_kek(void *ctx, const struct kms_key_info *info)
{
    if (strcmp(info->label, "kek") == 0) {
        memcpy(ctx, info->id, KMS_KEY_REF_MAX);
    }
    return true;
}

/* An HMAC key that takes no part in sealing is no part of the AES key's identity. */
void gcm_has_no_companion(void)
{
    char with[KMS_KEY_REF_MAX], without[KMS_KEY_REF_MAX] = "";
    struct kms_waist *waist = healthy("one", 4, with);
    struct kms_key_filter filter = {.label = "kek"};
    struct kms_call call = call_for(5000);

    kms_waist_close(waist);
    plan("no_mech=CKM_SHA256_HMAC"); /* as if there were none: it is not even looked for */
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(kms_waist_list_keys(waist, &call, &filter, take_kek, without), KMS_OK);
    CU_ASSERT_STRING_EQUAL(without, with);
    kms_waist_close(waist);
}

void destroying_ends(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call = call_for(500);
    uint64_t start = kms_now_ns();

    plan("keep_objects=1");
    CU_ASSERT_EQUAL(kms_waist_destroy(waist, &call, ref), KMS_E_TIMEOUT);
    CU_ASSERT(kms_now_ns() - start < 3 * KMS_NS_PER_S);
    plan("");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 2000, &call), KMS_OK);
    kms_waist_close(waist);
}

/* A key whose companion could not be made goes again. */
void a_half_made_key_is_undone(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = NULL;
    struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "half"};
    struct kms_key_filter filter = {.label = "half"};
    struct kms_key_info info;
    struct kms_call call = call_for(5000);

    kms_waist_close(healthy("one", 4, ref));
    plan("no_mech=CKM_AES_GCM,CKM_GENERIC_SECRET_KEY_GEN");
    waist = open_on("one", 4);
    CU_ASSERT_NOT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info), KMS_OK);
    plan("");
    call = call_for(5000);
    ref[0] = '\0';
    CU_ASSERT_EQUAL(kms_waist_list_keys(waist, &call, &filter, take_ref, ref), KMS_OK);
    CU_ASSERT_STRING_EQUAL(ref, "");
    kms_waist_close(waist);
}
