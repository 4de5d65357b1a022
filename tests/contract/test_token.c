/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of the token and its keys, renaming, and the PIN. */
#include <string.h>

#include "tests/contract/contract.h"

static struct fx_sealed sealed;

static const enum kms_key_type types[] = {KMS_KEY_AES, KMS_KEY_GENERIC, KMS_KEY_RSA, KMS_KEY_EC,
                                          KMS_KEY_EDDSA};

/* ---- describe ----------------------------------------------------------------------------- */

static void a_token_tells_what_it_is(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_token_info token;

    if (!FX_CHECK(&call, kms_waist_describe(waist, &call, &token) == KMS_OK)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_STRING_EQUAL(token.label, fx_token);
    CU_ASSERT(token.manufacturer[0] != '\0' &&
              token.manufacturer[strlen(token.manufacturer) - 1] != ' ');
    CU_ASSERT(token.model[0] != '\0' && token.model[strlen(token.model) - 1] != ' ');
    CU_ASSERT(token.serial[0] != '\0' && token.serial[strlen(token.serial) - 1] != ' ');
    CU_ASSERT_FALSE(token.hardware); /* all that this runs on are software */
    CU_ASSERT_EQUAL(token.random, kms_waist_can(waist, KMS_OP_RANDOM));
    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_key_info info;
        bool made = fx_make(waist, types[i], types[i] == KMS_KEY_RSA ? 2048 : 0, &info);

        UNIT_CHECK(kms_key_type_name(types[i]), made == ((token.generates >> types[i] & 1u) != 0));
        if (!made) {
            continue;
        }
        for (size_t w = 0; w < 2; w++) { /* no key can do more than its token */
            UNIT_CHECK(kms_key_type_name(types[i]), (info.algs.bits[w] & ~token.algs.bits[w]) == 0);
        }
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

/* ---- keys --------------------------------------------------------------------------------- */

static bool note(void *ctx, const struct kms_key_info *info)
{
    *(struct kms_key_info *)ctx = *info;
    return true;
}

static bool found_by_name(struct kms_waist *waist, const struct kms_key_info *info)
{
    struct kms_key_filter filter = {.spec = info->name};
    struct kms_key_info found = {.ref = ""};
    struct kms_call call = fx_call();

    return kms_waist_list_keys(waist, &call, &filter, note, &found) == KMS_OK &&
           strcmp(found.ref, info->ref) == 0;
}

static void a_key_tells_what_it_is(void)
{
    static const struct {
        enum kms_key_type type;
        enum kms_alg has, lacks;
        unsigned uses;
        const char *class;
    } cases[] = {
        {KMS_KEY_AES, KMS_ALG_AES_CBC, KMS_ALG_HMAC_SHA256,
         KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP, "type=secret-key"},
        {KMS_KEY_GENERIC, KMS_ALG_HMAC_SHA256, KMS_ALG_AES_CBC, KMS_USE_SIGN | KMS_USE_VERIFY,
         "type=secret-key"},
        {KMS_KEY_RSA, KMS_ALG_RSA_PKCS1, KMS_ALG_ECDSA,
         KMS_USE_SIGN | KMS_USE_VERIFY | KMS_USE_ENCRYPT | KMS_USE_DECRYPT, "type=private"},
        {KMS_KEY_EC, KMS_ALG_ECDSA, KMS_ALG_RSA_PKCS1, KMS_USE_SIGN | KMS_USE_VERIFY,
         "type=private"},
        {KMS_KEY_EDDSA, KMS_ALG_EDDSA, KMS_ALG_ECDSA, KMS_USE_SIGN | KMS_USE_VERIFY,
         "type=private"},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        const char *row = kms_key_type_name(cases[i].type);
        struct kms_key_info info, found;

        if (!fx_make(waist, cases[i].type, cases[i].type == KMS_KEY_RSA ? 2048 : 0, &info)) {
            continue;
        }
        UNIT_CHECK(row, kms_alg_set_has(&info.algs, cases[i].has));
        UNIT_CHECK(row, !kms_alg_set_has(&info.algs, cases[i].lacks));
        UNIT_CHECK(row, info.seal == KMS_ALG_NONE || kms_alg_set_has(&info.algs, info.seal));
        UNIT_CHECK(row, info.uses == cases[i].uses);
        if (!info.local || !info.always_sensitive || !info.never_extractable) {
            fx_skip("origin", "the token says of its own %s key that it was not always in it", row);
        }
        UNIT_CHECK(row, info.latest && info.version[0] == '\0');
        UNIT_CHECK(row, strncmp(info.name, "pkcs11:", 7) == 0);
        UNIT_CHECK(row, strstr(info.name, cases[i].class) != NULL);
        UNIT_CHECK(row, strstr(info.name, "token=") != NULL && strstr(info.name, "id=") != NULL);
        UNIT_CHECK(row, found_by_name(waist, &info));
        if (fx_find(waist, info.label, &found)) {
            UNIT_CHECK(row, strcmp(found.name, info.name) == 0);
        }
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

static void an_imported_key_says_so(void)
{
    static const uint8_t key[32] = {9, 9, 9};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_token_info token;
    struct kms_key_info info;
    char label[64];

    (void)snprintf(label, sizeof(label), "%s", fx_label());
    CU_ASSERT_EQUAL(kms_waist_describe(waist, &call, &token), KMS_OK); /* connects */
    if (!fx_raw_import_aes(fx_token, label, kms_span_str("imp"), kms_span_of(key, 32),
                           KMS_USE_ENCRYPT | KMS_USE_DECRYPT)) {
        fx_skip("import", "the token imports no AES key");
    } else if (fx_find(waist, label, &info)) {
        CU_ASSERT_FALSE(info.local);
        CU_ASSERT_FALSE(info.never_extractable);
        CU_ASSERT_TRUE(info.extractable);
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

/* ---- set_label ---------------------------------------------------------------------------- */

static void all_of_a_key_is_renamed(void)
{
    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        const char *row = kms_key_type_name(types[i]);
        const char *mechanism = types[i] == KMS_KEY_AES && !fx_lacks("aes-cbc-hmac")
                                    ? "aes-cbc-hmac"
                                    : NULL; /* with a companion */
        struct kms_waist *waist = fx_open(NULL, mechanism, 0);
        struct kms_waist *other = NULL;
        struct kms_key_info info, found;
        struct kms_call call = fx_call();
        char label[64];
        unsigned long objects = 0;

        if (!fx_make(waist, types[i], types[i] == KMS_KEY_RSA ? 2048 : 0, &info)) {
            fx_close(waist);
            continue;
        }
        (void)snprintf(label, sizeof(label), "%s, renamed", fx_label());
        objects = fx_raw_count(fx_token, info.label);
        if (!FX_CHECK(&call, kms_waist_set_label(waist, &call, info.ref, label) == KMS_OK)) {
            fx_destroy(waist, info.ref);
            fx_close(waist);
            continue;
        }
        UNIT_CHECK(row, fx_raw_count(fx_token, info.label) == 0);
        UNIT_CHECK(row, fx_raw_count(fx_token, label) == objects);
        if (fx_find(waist, label, &found)) {
            UNIT_CHECK(row, strcmp(found.ref, info.ref) == 0 && found.seal == info.seal);
            UNIT_CHECK(row, strcmp(found.name, info.name) != 0);
        }
        other = fx_open(NULL, mechanism, 0);
        if (fx_find(other, label, &found)) { /* the companion was found by its new name */
            UNIT_CHECK(row, strcmp(found.ref, info.ref) == 0 && found.seal == info.seal);
        }
        if (info.seal != KMS_ALG_NONE) {
            UNIT_CHECK(row, fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE,
                                    kms_span_str("text"), &sealed) == KMS_OK);
        }
        call = fx_call(); /* again, to the same */
        UNIT_CHECK(row, kms_waist_set_label(waist, &call, info.ref, label) == KMS_OK);
        fx_destroy(waist, info.ref);
        UNIT_CHECK(row, fx_raw_count(fx_token, label) == 0);
        fx_close(other);
        fx_close(waist);
    }
}

static void bad_labels_are_refused(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_key_info info;
    char label[KMS_LABEL_MAX + 1];

    memset(label, 'x', sizeof(label) - 1);
    label[sizeof(label) - 1] = '\0';
    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(kms_waist_set_label(waist, &call, info.ref, label), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_waist_set_label(waist, &call, info.ref, ""), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_waist_set_label(waist, &call, "kb1-00", "x"), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(fx_raw_count(fx_token, info.label), 1);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

/* ---- check_pin ---------------------------------------------------------------------------- */

static void a_pin_is_compared(void)
{
    static const char *const wrong[] = {"", "1", "12345678", "0000", "123", "1235"};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();

    CU_ASSERT_EQUAL(kms_waist_check_pin(waist, &call, kms_span_str(fx_pin)), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(wrong); i++) {
        call = fx_call();
        UNIT_CHECK(wrong[i],
                   kms_waist_check_pin(waist, &call, kms_span_str(wrong[i])) == KMS_E_AUTH);
        UNIT_CHECK(wrong[i], strcmp(call.error.code, "CKR_PIN_INCORRECT") == 0);
        UNIT_CHECK(wrong[i], strstr(call.error.text, fx_pin) == NULL);
    }
    fx_close(waist);
}

static void no_pin_is_no_match(void)
{
    char name[] = "b", type[] = "hsm", module[] = "/m.so", token[] = "t";
    char pin[] = "env:KMS_TEST_NO_SUCH_PIN";
    struct kms_hsm_conf hsm = {.module = module, .token = token};
    struct kms_backend_conf conf = {.name = name, .type = type, .hsm = &hsm};
    struct kms_waist *waist = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_call call = fx_call();

    CU_ASSERT_EQUAL_FATAL(kms_waist_open(&conf, NULL, NULL, &waist, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_waist_check_pin(waist, &call, KMS_SPAN_NONE), KMS_E_UNSUPPORTED);
    kms_waist_close(waist);
    hsm.pin = pin; /* one that cannot be read is not the caller's mistake */
    CU_ASSERT_EQUAL_FATAL(kms_waist_open(&conf, NULL, NULL, &waist, &err), KMS_OK);
    call.deadline_ns = 1;
    CU_ASSERT_EQUAL(kms_waist_check_pin(waist, &call, kms_span_str("1")), KMS_E_TIMEOUT);
    call = fx_call();
    call.deadline_ns -= 9900000000u;
    CU_ASSERT_EQUAL(kms_waist_check_pin(waist, &call, kms_span_str("1")), KMS_E_UNAVAILABLE);
    kms_waist_close(waist);
}

const struct unit_test fx_token_tests[] = {
    {"a token tells what it is", a_token_tells_what_it_is},
    {"a key tells what it is", a_key_tells_what_it_is},
    {"an imported key says so", an_imported_key_says_so},
    {"all of a key is renamed", all_of_a_key_is_renamed},
    {"bad labels are refused", bad_labels_are_refused},
    {"a PIN is compared", a_pin_is_compared},
    {"no PIN is no match", no_pin_is_no_match},
};
const size_t fx_token_test_count = UNIT_COUNT(fx_token_tests);
