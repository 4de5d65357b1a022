/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self-healing, against a token that fails when told to: tests/fakes/p11_shim_plan.h. The script
 * makes the token, with an AES key "kek" and an HMAC key "kek-mac" beside it, and sets the
 * environment: KMS_TEST_DIR (ours), KMS_TEST_MODULE (the shim), KMSBRIDGE_SHIM_CONTROL and
 * KMSBRIDGE_SHIM_COUNTERS.
 */
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend_conf.h"
#include "backend/waist.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/unit.h"

#define PIN "1234"

static char module[4096], pin_path[4096], pin_ref[4128];

/* ---- the shim, the PIN, the waist --------------------------------------------------------- */

static void replace_file(const char *path, const char *text, mode_t mode)
{
    char temporary[4200];
    FILE *file = NULL;

    (void)snprintf(temporary, sizeof(temporary), "%s.new", path);
    file = fopen(temporary, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 || chmod(temporary, mode) != 0 ||
        rename(temporary, path) != 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
}

static void plan(const char *text)
{
    replace_file(getenv("KMSBRIDGE_SHIM_CONTROL"), text, 0600);
}

static void set_pin(const char *pin)
{
    replace_file(pin_path, pin, 0600);
}

static unsigned long calls(const char *name)
{
    FILE *file = fopen(getenv("KMSBRIDGE_SHIM_COUNTERS"), "r");
    char line[128];
    unsigned long count = 0;

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        size_t len = strlen(name);

        if (strncmp(line, name, len) == 0 && line[len] == ' ') {
            count = strtoul(line + len, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static struct kms_waist *open_on(const char *token, unsigned sessions)
{
    static struct kms_hsm_conf hsm;
    static struct kms_backend_conf conf;
    static char name[] = "hsm", type[] = "hsm", label[256];
    struct kms_waist *waist = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    (void)snprintf(label, sizeof(label), "%s", token);
    hsm = (struct kms_hsm_conf){
        .module = module, .token = label, .pin = pin_ref, .sessions = sessions};
    conf = (struct kms_backend_conf){.name = name, .type = type, .hsm = &hsm};
    if (kms_waist_open(&conf, NULL, NULL, &waist, &err) != KMS_OK) {
        fprintf(stderr, "heal: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
    return waist;
}

static void sleep_ms(unsigned ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static bool take_ref(void *ctx, const struct kms_key_info *info)
{
    memcpy(ctx, info->ref, KMS_KEY_REF_MAX);
    return true;
}

static enum kms_status find_kek(struct kms_waist *waist, char *ret_ref, struct kms_call *call)
{
    struct kms_key_filter filter = {.label = "kek"};
    enum kms_status status = KMS_OK;

    ret_ref[0] = '\0';
    status = kms_waist_list_keys(waist, call, &filter, take_ref, ret_ref);
    return status == KMS_OK && ret_ref[0] == '\0' ? KMS_E_NOT_FOUND : status;
}

struct sealed {
    uint8_t iv[KMS_IV_MAX], ciphertext[2048];
    struct kms_sealed sealed;
};

static enum kms_status seal(struct kms_waist *waist, const char *ref, struct kms_call *call,
                            struct sealed *ret)
{
    struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};

    ret->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv),
                                      .ciphertext = KMS_BUF_OVER(ret->ciphertext)};
    return kms_waist_encrypt(waist, call, ref, &params, kms_span_str("the seed"), &ret->sealed);
}

static enum kms_status unseal(struct kms_waist *waist, const char *ref, struct kms_call *call,
                              const struct sealed *sealed)
{
    struct kms_params params = {.alg = sealed->sealed.alg,
                                .aad = kms_span_str("aad"),
                                .iv = kms_buf_span(&sealed->sealed.iv)};
    uint8_t plain[2048];
    struct kms_buf out = KMS_BUF_OVER(plain);
    enum kms_status status = kms_waist_decrypt(waist, call, ref, &params,
                                               kms_buf_span(&sealed->sealed.ciphertext), &out);

    if (status == KMS_OK && !kms_span_equal(kms_buf_span(&out), kms_span_str("the seed"))) {
        return KMS_E_INTERNAL;
    }
    return status;
}

static struct kms_call call_for(unsigned ms)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
}

/* Encrypts and decrypts within @ms. */
static enum kms_status round_trip(struct kms_waist *waist, const char *ref, unsigned ms,
                                  struct kms_call *ret_call)
{
    struct sealed sealed;
    enum kms_status status = KMS_OK;

    *ret_call = call_for(ms);
    status = seal(waist, ref, ret_call, &sealed);
    return status == KMS_OK ? unseal(waist, ref, ret_call, &sealed) : status;
}

/* A waist that works, and the KEK's ref. */
static struct kms_waist *healthy(const char *token, unsigned sessions, char *ret_ref)
{
    struct kms_waist *waist = NULL;
    struct kms_call call = call_for(5000);

    plan("");
    set_pin(PIN);
    waist = open_on(token, sessions);
    CU_ASSERT_EQUAL_FATAL(find_kek(waist, ret_ref, &call), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(round_trip(waist, ret_ref, 5000, &call), KMS_OK);
    return waist;
}

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

static void every_class_is_repaired(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        run_row(&rows[i]);
    }
}

/* A sick token must not make good ciphertexts look bad: the caller would give them up for lost. */
static void sick_is_not_bad_data(void)
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
static void a_lost_login_hides_no_key(void)
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

static void away_and_back(void)
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
static void two_tokens_are_nobodys_fault(void)
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

/* ---- PINs --------------------------------------------------------------------------------- */

static void wrong_pin_is_tried_once(void)
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

static void pin_states_are_told(void)
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
static void the_final_try_is_not_taken(void)
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

static void other_login_failures_spare_the_pin(void)
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

static void a_missing_pin_file_is_no_missing_key(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = NULL;
    struct kms_call call = call_for(1000);
    unsigned long logins = calls("C_Login");

    plan("");
    (void)unlink(pin_path);
    waist = open_on("one", 4);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_E_AUTH);
    CU_ASSERT_EQUAL(calls("C_Login"), logins);
    set_pin(PIN);
    sleep_ms(1100);
    call = call_for(1000);
    CU_ASSERT_EQUAL(find_kek(waist, ref, &call), KMS_OK);
    kms_waist_close(waist);
}

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

static void its_own_iv_is_obeyed(void)
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

static void without_gcm_there_is_cbc_and_hmac(void)
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
static void a_wrong_tag_reaches_no_decrypt(void)
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

static void identity_needs_no_ecb(void)
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
static void a_handle_used_again_is_noticed(void)
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

static void another_serial_is_the_same_key(void)
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
static void one_sick_key_is_passed_over(void)
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
static void one_sick_key_restarts_little(void)
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

static void gcm_that_fails_is_done_without(void)
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
static void gcm_has_no_companion(void)
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

static void destroying_ends(void)
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
static void a_half_made_key_is_undone(void)
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

/* ---- slow, hanging, full ------------------------------------------------------------------ */

struct worker {
    pthread_t thread;
    struct kms_waist *waist;
    const char *ref;
    unsigned ms;
    enum kms_status status;
    uint64_t took_ns;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    uint64_t start = kms_now_ns();
    struct kms_call call = call_for(w->ms);
    struct sealed sealed;

    w->status = seal(w->waist, w->ref, &call, &sealed);
    w->took_ns = kms_now_ns() - start;
    return NULL;
}

static void start_all(struct worker *workers, unsigned count, struct kms_waist *waist,
                      const char *ref, unsigned ms)
{
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.waist = waist, .ref = ref, .ms = ms};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void join_all(struct worker *workers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
    }
}

static void a_slow_token_keeps_deadlines(void)
{
    enum { COUNT = 8 };
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 2, ref);
    struct worker workers[COUNT];
    unsigned good = 0;

    plan("latency_us=250000");
    start_all(workers, COUNT, waist, ref, 400);
    join_all(workers, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        good += workers[i].status == KMS_OK ? 1u : 0u;
        CU_ASSERT(workers[i].status == KMS_OK || workers[i].status == KMS_E_BUSY);
        /* waits end at the deadline; a call begun before it ends in the token's time */
        CU_ASSERT(workers[i].took_ns < 1000 * KMS_NS_PER_MS);
    }
    CU_ASSERT(good >= 2 && good < COUNT);
    kms_waist_close(waist);
}

static void wait_for_busy(struct kms_waist *waist, unsigned count, uint64_t stuck_ns)
{
    struct kms_health health = {.ready = false};

    for (unsigned i = 0; i < 500; i++) {
        kms_waist_health(waist, &health);
        if (health.sessions_busy >= count && health.stuck_ns >= stuck_ns) {
            break;
        }
        sleep_ms(10);
    }
    CU_ASSERT(health.sessions_busy >= count && health.stuck_ns >= stuck_ns);
}

/* Calls hang: those after them are answered at once, nothing is finalized, and it all comes back.
 */
static void a_hanging_module_is_survived(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    unsigned long finals = calls("C_Finalize");
    struct worker workers[2];
    struct kms_health health;
    struct kms_call call;
    uint64_t start = 0;

    plan("hang=1:C_Encrypt");
    start_all(workers, 2, waist, ref, 3000);
    wait_for_busy(waist, 2, 1100 * KMS_NS_PER_MS);
    start = kms_now_ns();
    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(round_trip(waist, ref, 200, &call), KMS_E_UNAVAILABLE);
        CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "stuck"));
    }
    CU_ASSERT(kms_now_ns() - start < 3 * KMS_NS_PER_S); /* three deadlines are 0.6 s */
    kms_waist_health(waist, &health);
    CU_ASSERT(health.stuck_ns >= KMS_NS_PER_S);
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals);
    plan("");
    join_all(workers, 2);
    CU_ASSERT(workers[0].status == KMS_OK && workers[1].status == KMS_OK);
    CU_ASSERT_EQUAL(round_trip(waist, ref, 2000, &call), KMS_OK);
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.stuck_ns, 0);
    kms_waist_close(waist);
}

/* Two calls never come back, others do: those two are lost, and the module is not. */
static void lost_calls_are_not_a_wedge(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    struct worker workers[2];
    struct sealed sealed;
    struct kms_call call = call_for(5000);

    CU_ASSERT_EQUAL(seal(waist, ref, &call, &sealed), KMS_OK);
    plan("hang=1:C_Encrypt");
    start_all(workers, 2, waist, ref, 10000);
    for (unsigned i = 0; i < 13; i++) {
        sleep_ms(100);
        call = call_for(1000);
        CU_ASSERT_EQUAL(unseal(waist, ref, &call, &sealed), KMS_OK);
    }
    for (unsigned i = 0; i < 2; i++) {
        sleep_ms(1200); /* nobody comes back */
        call = call_for(300);
        CU_ASSERT_EQUAL(unseal(waist, ref, &call, &sealed), KMS_OK);
    }
    plan("");
    join_all(workers, 2);
    CU_ASSERT(workers[0].status == KMS_OK && workers[1].status == KMS_OK);
    kms_waist_close(waist);
}

static void no_finalize_under_a_stuck_call(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    unsigned long finals = calls("C_Finalize");
    struct worker stuck;
    struct kms_call call;

    plan("hang=1:C_Encrypt");
    start_all(&stuck, 1, waist, ref, 10000);
    wait_for_busy(waist, 1, 300 * KMS_NS_PER_MS);
    plan("hang=1:C_Encrypt\nfail=CKR_DEVICE_REMOVED:C_GenerateRandom");
    CU_ASSERT_EQUAL(round_trip(waist, ref, 1000, &call), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "1 calls stuck"));
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals);
    plan("");
    join_all(&stuck, 1);
    CU_ASSERT_EQUAL(stuck.status, KMS_OK);
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals + 1);
    kms_waist_close(waist);
}

static void a_full_token_is_shared(void)
{
    enum { COUNT = 6 };
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 4, ref);
    struct worker workers[COUNT];
    struct kms_health health;

    plan("fail=CKR_SESSION_COUNT:C_OpenSession\nlatency_us=20000");
    start_all(workers, COUNT, waist, ref, 5000);
    join_all(workers, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CU_ASSERT_EQUAL(workers[i].status, KMS_OK);
    }
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.sessions_max, 1);
    CU_ASSERT_EQUAL(health.sessions_open, 1);
    plan("");
    kms_waist_close(waist);
}

/* The device goes away under sixteen threads, again and again: nobody sees a wrong answer. */
static void *hammer(void *ctx)
{
    struct worker *w = ctx;
    uint64_t until = kms_deadline_in(w->ms * KMS_NS_PER_MS);

    while (!kms_deadline_passed(until)) {
        struct kms_call call;
        enum kms_status status = round_trip(w->waist, w->ref, 3000, &call);

        if (status == KMS_OK) {
            w->took_ns++;
        } else if (status != KMS_E_UNAVAILABLE && status != KMS_E_BUSY) {
            fprintf(stderr, "hammer: %s\n", call.error.text);
            w->status = status;
        }
    }
    return NULL;
}

static void reconnects_under_load(void)
{
    enum { COUNT = 16 };
    static const char *const plans[] = {
        "until_reinit=1\nfail=CKR_DEVICE_REMOVED", "logout_sessions=1",
        "until_reinit=1\nfail=CKR_SESSION_HANDLE_INVALID",
        "fail_once=CKR_KEY_HANDLE_INVALID:C_EncryptInit:5",
        "until_reinit=1\nfail=CKR_CRYPTOKI_NOT_INITIALIZED:C_Encrypt"};
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *waist = healthy("one", 8, ref);
    struct worker workers[COUNT];
    struct kms_call call;

    for (unsigned i = 0; i < COUNT; i++) {
        workers[i] = (struct worker){.waist = waist, .ref = ref, .ms = 2500};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, hammer, &workers[i]), 0);
    }
    for (size_t i = 0; i < UNIT_COUNT(plans); i++) {
        sleep_ms(400);
        plan(plans[i]);
    }
    join_all(workers, COUNT);
    plan("");
    for (unsigned i = 0; i < COUNT; i++) {
        CU_ASSERT_EQUAL(workers[i].status, KMS_OK);
        CU_ASSERT(workers[i].took_ns > 0);
    }
    CU_ASSERT_EQUAL(round_trip(waist, ref, 8000, &call), KMS_OK);
    kms_waist_close(waist);
}

static const struct unit_test tests[] = {
    {"every class is repaired", every_class_is_repaired},
    {"sick is not bad data", sick_is_not_bad_data},
    {"a lost login hides no key", a_lost_login_hides_no_key},
    {"away and back", away_and_back},
    {"two tokens are nobody's fault", two_tokens_are_nobodys_fault},
    {"wrong PIN is tried once", wrong_pin_is_tried_once},
    {"PIN states are told", pin_states_are_told},
    {"the final try is not taken", the_final_try_is_not_taken},
    {"other login failures spare the PIN", other_login_failures_spare_the_pin},
    {"a missing PIN file is no missing key", a_missing_pin_file_is_no_missing_key},
    {"its own IV is obeyed", its_own_iv_is_obeyed},
    {"a handle used again is noticed", a_handle_used_again_is_noticed},
    {"without GCM there is CBC and HMAC", without_gcm_there_is_cbc_and_hmac},
    {"a wrong tag reaches no decrypt", a_wrong_tag_reaches_no_decrypt},
    {"identity needs no ECB", identity_needs_no_ecb},
    {"another serial is the same key", another_serial_is_the_same_key},
    {"destroying ends", destroying_ends},
    {"a half-made key is undone", a_half_made_key_is_undone},
    {"GCM has no companion", gcm_has_no_companion},
    {"one sick key is passed over", one_sick_key_is_passed_over},
    {"one sick key restarts little", one_sick_key_restarts_little},
    {"GCM that fails is done without", gcm_that_fails_is_done_without},
    {"a slow token keeps deadlines", a_slow_token_keeps_deadlines},
    {"a hanging module is survived", a_hanging_module_is_survived},
    {"lost calls are not a wedge", lost_calls_are_not_a_wedge},
    {"no finalize under a stuck call", no_finalize_under_a_stuck_call},
    {"a full token is shared", a_full_token_is_shared},
    {"reconnects under load", reconnects_under_load},
};

int main(void)
{
    const char *dir = getenv("KMS_TEST_DIR");
    const char *shim = getenv("KMS_TEST_MODULE");

    if (dir == NULL || shim == NULL || getenv("KMSBRIDGE_SHIM_CONTROL") == NULL ||
        getenv("KMSBRIDGE_SHIM_COUNTERS") == NULL) {
        fprintf(stderr, "heal: run by tests/faults/heal.sh\n");
        return EXIT_FAILURE;
    }
    (void)snprintf(module, sizeof(module), "%s", shim);
    (void)snprintf(pin_path, sizeof(pin_path), "%s/pin", dir);
    (void)snprintf(pin_ref, sizeof(pin_ref), "file:%s", pin_path);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("heal", tests, UNIT_COUNT(tests));
}
