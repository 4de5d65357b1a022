/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, health, random, rotation: what is left of the waist. */
#include <string.h>

#include "common/clock.h"
#include "tests/contract/contract.h"

static struct fx_sealed sealed;

static void random_fills_what_is_left(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    uint8_t a[64] = {0}, b[64] = {0};
    static const uint8_t zero[48];
    struct kms_buf one = KMS_BUF_OVER(a);
    struct kms_buf two = KMS_BUF_OVER(b);

    one.len = 16;
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &one), KMS_OK);
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &two), KMS_OK);
    CU_ASSERT(one.len == 64 && two.len == 64);
    CU_ASSERT(memcmp(a, zero, 16) == 0);
    CU_ASSERT(memcmp(a + 16, zero, 48) != 0 && memcmp(a + 16, b + 16, 48) != 0);
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &two), KMS_OK); /* full: nothing to do */
    fx_close(waist);
}

static void open_needs_no_token(void)
{
    struct kms_waist *waist = fx_open("no such token", NULL, 0);
    struct kms_call call = fx_call();
    struct kms_health health;
    uint8_t bytes[8];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    kms_waist_health(waist, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_EQUAL(health.error.status, KMS_E_UNAVAILABLE);
    call.deadline_ns = kms_deadline_in(300 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &out), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "no such token"));
    kms_waist_health(waist, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_PTR_NOT_NULL(strstr(health.error.text, "no such token"));
    fx_close(waist);
}

static void health_follows_use(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 3);
    struct kms_call call = fx_call();
    struct kms_health health;

    kms_waist_health(waist, &health);
    CU_ASSERT_FALSE(health.ready);
    FX_CHECK(&call, fx_touch(waist, &call) == KMS_OK);
    kms_waist_health(waist, &health);
    CU_ASSERT_TRUE(health.ready);
    CU_ASSERT_EQUAL(health.error.status, KMS_OK);
    CU_ASSERT(health.sessions_open == 1 && health.sessions_busy == 0 && health.sessions_max == 3);
    CU_ASSERT_EQUAL(health.stuck_ns, 0);
    fx_close(waist);
}

/* Two backends over one token, one closed before the other: the module stays for the other. */
static void backends_share_a_module(void)
{
    struct kms_waist *one = fx_open(NULL, NULL, 0);
    struct kms_waist *two = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_key_info info;

    FX_CHECK(&call, fx_touch(one, &call) == KMS_OK);
    if (!fx_make(two, KMS_KEY_AES, 256, &info)) {
        fx_close(one);
        fx_close(two);
        return;
    }
    fx_close(one);
    CU_ASSERT_EQUAL(
        fx_seal(two, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE, kms_span_str("text"), &sealed), KMS_OK);
    fx_destroy(two, info.ref);
    fx_close(two);
}

static void bad_settings_are_named(void)
{
    static char no_module[] = "", module[] = "/m.so", token[] = "t", uri[] = "pkcs11:token=a%";
    static char pin_uri[] = "pkcs11:token=a?pin-value=1234", mechanism[] = "des", pin[] = "1234";
    static const struct {
        struct kms_hsm_conf conf;
        const char *word;
    } bad[] = {
        {{.module = no_module, .token = token}, "module"},
        {{.module = module}, "token"},
        {{.module = module, .token = uri}, "URI"},
        {{.module = module, .token = pin_uri}, "pin"},
        {{.module = module, .token = token, .mechanism = mechanism}, "des"},
        {{.module = module, .token = token, .pin = pin}, "pin"},
        {{.module = module, .token = token, .sessions = 100000}, "sessions"},
    };

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_hsm_conf hsm = bad[i].conf;
        char name[] = "b", type[] = "hsm";
        struct kms_backend_conf conf = {.name = name, .type = type, .hsm = &hsm};
        struct kms_waist *waist = NULL;
        struct kms_error err = KMS_ERROR_INIT;

        UNIT_CHECK(bad[i].word, kms_waist_open(&conf, NULL, NULL, &waist, &err) == KMS_E_INVALID);
        UNIT_CHECK(bad[i].word, strstr(err.text, bad[i].word) != NULL);
        UNIT_CHECK(bad[i].word, strstr(err.text, "1234") == NULL);
    }
}

static void a_missing_module_is_told(void)
{
    const char *module = fx_module;
    struct kms_waist *waist = NULL;
    struct kms_call call = fx_call();
    uint8_t bytes[8];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    fx_module = "/nonexistent/module.so";
    waist = fx_open(NULL, NULL, 0);
    fx_module = module;
    call.deadline_ns = kms_deadline_in(200 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &out), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/nonexistent/module.so"));
    fx_close(waist);
}

const struct unit_test fx_life_tests[] = {
    {"random fills what is left", random_fills_what_is_left},
    {"open needs no token", open_needs_no_token},
    {"health follows use", health_follows_use},
    {"backends share a module", backends_share_a_module},
    {"bad settings are named", bad_settings_are_named},
    {"a missing module is told", a_missing_module_is_told},
};
const size_t fx_life_test_count = UNIT_COUNT(fx_life_tests);
