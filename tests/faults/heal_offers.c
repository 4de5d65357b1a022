/* SPDX-License-Identifier: Apache-2.0 */
/* What the token offers, and how it treats IVs, handles and serial numbers. */
#include "tests/faults/heal.h"

#include <string.h>

/* ---- what the token offers ---------------------------------------------------------------- */

/* An IV that the token would not use is refused, not passed off. */
static enum kms_status seal_with_iv(struct kms_waist *waist, const char *ref, struct kms_call *call)
{
    static const uint8_t iv[] = "caller's iv";
    struct kms_params params = {.alg = KMS_ALG_AES_GCM, .iv = kms_span_of(iv, sizeof(iv))};
    struct sealed s;

    s.sealed =
        (struct kms_sealed){.iv = KMS_BUF_OVER(s.iv), .ciphertext = KMS_BUF_OVER(s.ciphertext)};
    return kms_waist_encrypt(waist, call, ref, &params, kms_span_str("text"), &s.sealed);
}

void its_own_iv_is_obeyed(void)
{
    static const char *const plans[] = {"own_iv=1", "own_iv=late", "own_iv=empty", "own_iv=append"};

    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        char ref[KMS_KEY_REF_MAX];
        struct kms_waist *waist = NULL;
        struct sealed a, b;
        struct kms_call call = call_for(5000);

        plan(plans[i]);
        set_pin(PIN);
        waist = open_on("one", 4);
        UNIT_CHECK(plans[i], find_kek(waist, ref, &call) == KMS_OK);
        UNIT_CHECK(plans[i], seal(waist, ref, &call, &a) == KMS_OK);
        UNIT_CHECK(plans[i], seal(waist, ref, &call, &b) == KMS_OK);
        UNIT_CHECK(plans[i], a.sealed.alg == KMS_ALG_AES_GCM && a.sealed.iv.len == 12);
        UNIT_CHECK(plans[i], memcmp(a.iv, b.iv, 12) != 0);
        UNIT_CHECK(plans[i], unseal(waist, ref, &call, &a) == KMS_OK);
        UNIT_CHECK(plans[i], unseal(waist, ref, &call, &b) == KMS_OK);
        UNIT_CHECK(plans[i], seal_with_iv(waist, ref, &call) == KMS_E_UNSUPPORTED);
        call = call_for(5000);
        plan(""); /* and by a token that takes the caller's */
        UNIT_CHECK(plans[i], unseal(waist, ref, &call, &a) == KMS_OK);
        kms_waist_close(waist);
    }
}

void without_gcm_there_is_cbc_and_hmac(void)
{
    char ref[KMS_KEY_REF_MAX], with_gcm[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, with_gcm);
    struct sealed gcm, cbc;
    struct kms_call call = call_for(5000);

    CU_ASSERT_EQUAL(seal(waist, with_gcm, &call, &gcm), KMS_OK);
    kms_waist_close(waist);
    plan("no_mech=CKM_AES_GCM");
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    /* now the HMAC key is a part of it; but it answers to its other name, or there would be none */
    CU_ASSERT_STRING_NOT_EQUAL(ref, with_gcm);
    CU_ASSERT_EQUAL(seal(waist, with_gcm, &call, &cbc), KMS_OK);
    CU_ASSERT_EQUAL(seal(waist, ref, &call, &cbc), KMS_OK);
    CU_ASSERT_EQUAL(cbc.sealed.alg, KMS_ALG_AES_CBC_HMAC);
    CU_ASSERT_EQUAL(unseal(waist, ref, &call, &cbc), KMS_OK);
    cbc.ciphertext[0] ^= 1;
    CU_ASSERT_EQUAL(unseal(waist, ref, &call, &cbc), KMS_E_BAD_DATA);
    cbc.ciphertext[0] ^= 1;
    CU_ASSERT_EQUAL(unseal(waist, ref, &call, &gcm), KMS_E_UNSUPPORTED);
    kms_waist_close(waist);
    waist = healthy("one", 4, with_gcm); /* GCM is back: what was sealed without opens still */
    CU_ASSERT_EQUAL(unseal(waist, with_gcm, &call, &cbc), KMS_OK);
    CU_ASSERT_EQUAL(unseal(waist, ref, &call, &cbc), KMS_OK);
    kms_waist_close(waist);
}

/* The tag is checked before the token is asked to decrypt. */
void a_wrong_tag_reaches_no_decrypt(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = NULL;
    struct sealed cbc;
    struct kms_call call = call_for(5000);
    unsigned long before = 0;

    plan("no_mech=CKM_AES_GCM");
    set_pin(PIN);
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    CU_ASSERT_EQUAL(seal(waist, ref, &call, &cbc), KMS_OK);
    before = calls("C_DecryptInit");
    cbc.ciphertext[cbc.sealed.ciphertext.len - 1] ^= 1;
    CU_ASSERT_EQUAL(unseal(waist, ref, &call, &cbc), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(calls("C_DecryptInit"), before);
    kms_waist_close(waist);
}

void identity_needs_no_ecb(void)
{
    static const char *const plans[] = {
        "no_mech=CKM_AES_ECB",
        "no_mech=CKM_AES_ECB,CKM_AES_CBC",
        "no_mech=CKM_AES_ECB,CKM_AES_CBC,CKM_AES_CTR",
    };
    char want[KMS_KEY_REF_MAX];

    kms_waist_close(healthy("one", 4, want));
    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        char ref[KMS_KEY_REF_MAX];
        struct kms_call call = call_for(5000);
        struct kms_waist *waist = NULL;

        plan(plans[i]);
        waist = open_on("one", 4);
        UNIT_CHECK(plans[i], find_kek(waist, ref, &call) == KMS_OK && strcmp(ref, want) == 0);
        kms_waist_close(waist);
    }
    {
        char ref[KMS_KEY_REF_MAX];
        struct kms_call call = call_for(1000);
        struct kms_waist *waist = NULL;

        plan("no_mech=CKM_AES_ECB,CKM_AES_CBC,CKM_AES_CTR,CKM_AES_GCM");
        waist = open_on("one", 4);
        CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_UNSUPPORTED);
        CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "CKM_AES_ECB"));
        kms_waist_close(waist);
        plan("own_iv=late\nno_mech=CKM_AES_ECB,CKM_AES_CBC,CKM_AES_CTR");
        call = call_for(1000);
        waist = open_on("one", 4);
        CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_UNSUPPORTED);
        kms_waist_close(waist);
    }
}

/* A handle that came to mean another key, of the same label and CKA_ID, in one connection. */
void a_handle_used_again_is_noticed(void)
{
    char ref[KMS_KEY_REF_MAX], again[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call = call_for(5000);
    struct kms_health health;
    struct sealed s;

    plan("swap_id=01:11");
    CU_ASSERT_EQUAL(find_kek(waist, again, &call), KMS_OK);
    CU_ASSERT_STRING_NOT_EQUAL(again, ref);
    CU_ASSERT_EQUAL(seal(waist, ref, &call, &s), KMS_E_NOT_FOUND);
    call = call_for(5000);
    CU_ASSERT_EQUAL(seal(waist, again, &call, &s), KMS_OK);
    CU_ASSERT_STRING_EQUAL(s.sealed.key_id, again);
    plan("");
    CU_ASSERT_EQUAL(find_kek(waist, again, &call), KMS_OK);
    CU_ASSERT_STRING_EQUAL(again, ref);
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.reconnects, 0); /* it was one connection all the time */
    kms_waist_close(waist);
}

void another_serial_is_the_same_key(void)
{
    char ref[KMS_KEY_REF_MAX], again[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct kms_call call;

    plan("serial=0123456789abcdef\nfail_once=CKR_DEVICE_REMOVED:C_EncryptInit");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 5000, &call), KMS_OK);
    call = call_for(5000);
    CU_ASSERT_EQUAL(find_kek(waist, again, &call), KMS_OK);
    CU_ASSERT_STRING_EQUAL(again, ref);
    kms_waist_close(waist);
    waist = open_on("pkcs11:token=one;serial=0123456789abcdef", 4);
    CU_ASSERT_EQUAL(find_kek(waist, again, &call), KMS_OK);
    CU_ASSERT_STRING_EQUAL(again, ref);
    plan("serial=ffff\nfail_once=CKR_DEVICE_REMOVED:C_EncryptInit");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 500, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "serial=0123456789abcdef"));
    kms_waist_close(waist);
}
