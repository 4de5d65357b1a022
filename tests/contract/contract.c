/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/contract.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"

const char *fx_module, *fx_token, *fx_token2, *fx_pin, *fx_init_args;

static unsigned skipped;

bool fx_lacks(const char *what)
{
    const char *lacks = getenv("KMS_TEST_LACKS");
    size_t len = strlen(what);

    for (const char *at = lacks; at != NULL && *at != '\0'; at += strcspn(at, " \n")) {
        at += strspn(at, " \n");
        if (strcspn(at, " \n") == len && strncmp(at, what, len) == 0) {
            return true;
        }
    }
    return false;
}

void fx_skip(const char *what, const char *fmt, ...)
{
    bool known = fx_lacks(what);
    va_list args;

    va_start(args, fmt);
    printf("%s: %s: ", known ? "not offered" : "skipped", what);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    skipped += known ? 0u : 1u;
}

bool fx_is_service(void)
{
    return getenv("KMS_TEST_VAULT") != NULL || getenv("KMS_TEST_ALIBABA") != NULL;
}

bool fx_seals_itself(void)
{
    return getenv("KMS_TEST_ALIBABA") != NULL;
}

static bool ignore(void *ctx, const struct kms_key_info *info)
{
    (void)ctx;
    (void)info;
    return true;
}

enum kms_status fx_touch(struct kms_waist *waist, struct kms_call *call)
{
    static const struct kms_key_filter none = {.label = "no such"};
    uint8_t bytes[8];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    return kms_waist_can(waist, KMS_OP_RANDOM)
               ? kms_waist_random(waist, call, &out)
               : kms_waist_list_keys(waist, call, &none, ignore, NULL);
}

struct opened {
    struct kms_hsm_conf hsm;
    struct kms_vault_conf vault;
    struct kms_vault_auth_conf auth;
    struct kms_alibaba_conf alibaba;
    char *address;
    struct kms_backend_conf backend;
    struct kms_waist *waist;
};

static struct opened opened[16];

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

static void set_hsm(struct opened *o, const char *token, const char *mechanism, unsigned sessions)
{
    o->hsm = (struct kms_hsm_conf){
        .module = unconst(fx_module),
        .token = unconst(token == NULL ? fx_token : token),
        .pin = unconst("env:KMS_TEST_PIN"),
        .sessions = sessions,
        .mechanism = unconst(mechanism),
        .init_args = unconst(fx_init_args),
    };
    o->backend =
        (struct kms_backend_conf){.name = unconst("hsm"), .type = unconst("hsm"), .hsm = &o->hsm};
}

static void set_vault(struct opened *o, unsigned sessions)
{
    o->address = getenv("KMS_TEST_VAULT");
    o->auth = (struct kms_vault_auth_conf){.method = unconst("token"),
                                           .token = unconst("env:KMS_TEST_PIN")};
    o->vault = (struct kms_vault_conf){.addresses = &o->address,
                                       .addresses_count = 1,
                                       .mount = getenv("KMS_TEST_MOUNT"),
                                       .connections = sessions,
                                       .allow_destroy = unconst("true"),
                                       .auth = &o->auth};
    o->backend = (struct kms_backend_conf){
        .name = unconst(fx_token), .type = unconst("vault"), .vault = &o->vault};
}

static void set_alibaba(struct opened *o, unsigned sessions)
{
    o->alibaba = (struct kms_alibaba_conf){.endpoint = getenv("KMS_TEST_ALIBABA"),
                                           .credentials = unconst("access_key"),
                                           .access_key_id = getenv("KMS_TEST_ALIBABA_KEY"),
                                           .access_key_secret = unconst("env:KMS_TEST_PIN"),
                                           .connections = sessions,
                                           .instance = unconst("kst-hzz0123456789"),
                                           .deletion_days = 7};
    o->backend = (struct kms_backend_conf){
        .name = unconst(fx_token), .type = unconst("alibaba"), .alibaba = &o->alibaba};
}

struct kms_waist *fx_open(const char *token, const char *mechanism, unsigned sessions)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct opened *o = opened;

    while (o->waist != NULL) {
        o++;
    }
    if (getenv("KMS_TEST_ALIBABA") != NULL) {
        set_alibaba(o, sessions);
    } else if (fx_is_service()) {
        set_vault(o, sessions);
    } else {
        set_hsm(o, token, mechanism, sessions);
    }
    if (kms_waist_open(&o->backend, NULL, NULL, &o->waist, &err) != KMS_OK) {
        fprintf(stderr, "contract: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
    return o->waist;
}

void fx_close(struct kms_waist *waist)
{
    struct opened *o = opened;

    while (o->waist != waist) {
        o++;
    }
    kms_waist_close(waist);
    o->waist = NULL;
}

struct kms_call fx_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(10 * KMS_NS_PER_S)};
}

const char *fx_label(void)
{
    static char label[64];
    static unsigned count;

    (void)snprintf(label, sizeof(label), "contract-%d-%u", (int)getpid(), count++);
    return label;
}

bool fx_make(struct kms_waist *waist, enum kms_key_type type, unsigned bits,
             struct kms_key_info *ret_info)
{
    struct kms_key_template tmpl = {.type = type, .bits = bits, .label = fx_label()};
    struct kms_call call = fx_call();
    enum kms_status status = kms_waist_generate(waist, &call, &tmpl, ret_info);

    if (status == KMS_E_UNSUPPORTED) {
        fx_skip(kms_key_type_name(type), "%s", call.error.text);
        return false;
    }
    return FX_CHECK(&call, status == KMS_OK);
}

void fx_destroy(struct kms_waist *waist, const char *ref)
{
    struct kms_call call = fx_call();

    FX_CHECK(&call, kms_waist_destroy(waist, &call, ref) == KMS_OK);
}

enum kms_status fx_seal(struct kms_waist *waist, const char *ref, enum kms_alg alg,
                        struct kms_span aad, struct kms_span plaintext, struct fx_sealed *ret)
{
    struct kms_call call = fx_call();
    struct kms_params params = {.alg = alg, .aad = aad};

    ret->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv),
                                      .ciphertext = KMS_BUF_OVER(ret->ciphertext)};
    return kms_waist_encrypt(waist, &call, ref, &params, plaintext, &ret->sealed);
}

enum kms_status fx_unseal(struct kms_waist *waist, const char *ref, const struct fx_sealed *sealed,
                          struct kms_span aad, struct kms_buf *ret_plaintext)
{
    struct kms_call call = fx_call();
    struct kms_params params = {
        .alg = sealed->sealed.alg, .aad = aad, .iv = kms_buf_span(&sealed->sealed.iv)};

    return kms_waist_decrypt(waist, &call, ref, &params, kms_buf_span(&sealed->sealed.ciphertext),
                             ret_plaintext);
}

enum kms_status fx_put(struct kms_waist *waist, const char *ref, bool wrap,
                       const struct kms_params *params, struct kms_span in, struct fx_sealed *ret)
{
    struct kms_call call = fx_call();

    ret->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv),
                                      .ciphertext = KMS_BUF_OVER(ret->ciphertext)};
    return wrap ? kms_waist_wrap(waist, &call, ref, params, in, &ret->sealed)
                : kms_waist_encrypt(waist, &call, ref, params, in, &ret->sealed);
}

enum kms_status fx_take(struct kms_waist *waist, const char *ref, bool wrap,
                        const struct kms_params *params, struct kms_span in, struct kms_buf *ret)
{
    struct kms_call call = fx_call();

    return wrap ? kms_waist_unwrap(waist, &call, ref, params, in, ret)
                : kms_waist_decrypt(waist, &call, ref, params, in, ret);
}

struct finding {
    unsigned count;
    struct kms_key_info *info;
};

static bool note(void *ctx, const struct kms_key_info *info)
{
    struct finding *finding = ctx;

    finding->count++;
    *finding->info = *info;
    return true;
}

bool fx_find(struct kms_waist *waist, const char *label, struct kms_key_info *ret_info)
{
    struct finding finding = {.info = ret_info};
    struct kms_call call = fx_call();
    struct kms_key_filter filter = {.label = label};
    enum kms_status status = kms_waist_list_keys(waist, &call, &filter, note, &finding);

    return FX_CHECK(&call, status == KMS_OK && finding.count == 1);
}

/* ---- main --------------------------------------------------------------------------------- */

static bool print_key(void *ctx, const struct kms_key_info *info)
{
    (void)ctx;
    printf("%s %s\n", info->id, info->label);
    return true;
}

/* "ids": the identities of all keys, for scripts that compare tokens. */
static int print_ids(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_key_filter all = {.label = NULL};
    enum kms_status status = kms_waist_list_keys(waist, &call, &all, print_key, NULL);

    if (status != KMS_OK) {
        fprintf(stderr, "contract: %s\n", call.error.text);
    }
    fx_close(waist);
    return status == KMS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* "make": an AES key and an RSA pair that stay. */
static int make_keys(void)
{
    static const struct kms_key_template keys[] = {
        {.type = KMS_KEY_AES, .label = "made aes"},
        {.type = KMS_KEY_RSA, .bits = 2048, .label = "made rsa"},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    int code = EXIT_SUCCESS;

    for (size_t i = 0; i < UNIT_COUNT(keys); i++) {
        struct kms_call call = fx_call();
        struct kms_key_info info;

        if (kms_waist_generate(waist, &call, &keys[i], &info) != KMS_OK) {
            fprintf(stderr, "contract: %s\n", call.error.text);
            code = EXIT_FAILURE;
        }
    }
    fx_close(waist);
    return code;
}

/* What asks nothing of a PKCS#11 module beside the waist; the rest is about its objects. */
static const char *const service_tests[] = {
    "all sizes come back",
    "altered or foreign is bad data",
    "small buffers are served",
    "limits and mistakes",
    "threads share a bounded pool",
    "bad specs are refused",
    "identity outlives us",
    "a remade key is another",
    "bad templates are refused",
    "destroyed is not found",
    "signatures verify",
    "MACs verify",
    "wrong ways are refused",
    "unwraps by decrypting",
    "a token tells what it is",
    "what it has not is not made",
    "random fills what is left",
    "a rotated key is newer",
    "data keys open",
    "rewrapped is of the newest",
    "each type is made and rotates",
    "health follows use",
    "backends share a module",
};

/* Of these, what Alibaba Cloud KMS has in its own way only: keys that sign or decrypt, by one hash,
 * whose tag it gives itself. tests/services/alibaba_keys.c has them. */
static const char *const not_of_alibaba[] = {"a remade key is another", "wrong ways are refused",
                                             "unwraps by decrypting", "random fills what is left",
                                             "each type is made and rotates"};

/* What makes too many keys for a token in software, under a sanitizer at that. */
static const char *const not_of_tokens[] = {"each type is made and rotates"};

static bool is_asked(const char *name)
{
    for (size_t i = 0; fx_seals_itself() && i < UNIT_COUNT(not_of_alibaba); i++) {
        if (strcmp(not_of_alibaba[i], name) == 0) {
            return false;
        }
    }
    for (size_t i = 0; !fx_is_service() && i < UNIT_COUNT(not_of_tokens); i++) {
        if (strcmp(not_of_tokens[i], name) == 0) {
            return false;
        }
    }
    for (size_t i = 0; i < UNIT_COUNT(service_tests); i++) {
        if (strcmp(service_tests[i], name) == 0) {
            return true;
        }
    }
    return !fx_is_service();
}

static bool add_suite(const char *name, const struct unit_test *tests, size_t count)
{
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);

    for (size_t i = 0; suite != NULL && i < count; i++) {
        if (is_asked(tests[i].name) && CU_add_test(suite, tests[i].name, tests[i].fn) == NULL) {
            return false;
        }
    }
    return suite != NULL;
}

static int run_all(const char *name)
{
    unsigned ran = 0;
    unsigned failed = 0;
    bool good = false;

    if (!add_suite("seal", fx_seal_tests, fx_seal_test_count) ||
        !add_suite("keys", fx_key_tests, fx_key_test_count) ||
        !add_suite("sign", fx_sign_tests, fx_sign_test_count) ||
        !add_suite("cipher", fx_cipher_tests, fx_cipher_test_count) ||
        !add_suite("rsa", fx_rsa_tests, fx_rsa_test_count) ||
        !add_suite("token", fx_token_tests, fx_token_test_count) ||
        !add_suite("data", fx_data_tests, fx_data_test_count) ||
        !add_suite("types", fx_type_tests, fx_type_test_count) ||
        !add_suite("life", fx_life_tests, fx_life_test_count)) {
        return EXIT_FAILURE;
    }
    (void)CU_run_all_tests();
    ran = CU_get_number_of_tests_run();
    failed = CU_get_number_of_tests_failed();
    good = CU_get_number_of_failures() == 0 && CU_get_number_of_asserts() > 0;
    unit_print_failures();
    printf("%s: %u passed, %u failed, %u skipped\n", name, ran - failed, failed, skipped);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    int code = EXIT_FAILURE;

    fx_module = getenv("KMS_TEST_MODULE");
    fx_token = getenv("KMS_TEST_TOKEN");
    fx_token2 = getenv("KMS_TEST_TOKEN2");
    fx_pin = getenv("KMS_TEST_PIN");
    fx_init_args = getenv("KMS_TEST_INIT_ARGS");
    if ((fx_module == NULL && !fx_is_service()) || fx_token == NULL || fx_pin == NULL) {
        fprintf(stderr, "contract: KMS_TEST_MODULE, KMS_TEST_TOKEN and KMS_TEST_PIN are needed\n");
        return EXIT_FAILURE;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* in order with stderr */
    if (kms_secure_init() != KMS_OK || CU_initialize_registry() != CUE_SUCCESS) {
        return EXIT_FAILURE;
    }
    if (argc > 1 && strcmp(argv[1], "ids") == 0) {
        code = print_ids();
    } else if (argc > 1 && strcmp(argv[1], "make") == 0) {
        code = make_keys();
    } else {
        code = run_all(argc > 1 ? argv[1] : "contract");
    }
    CU_cleanup_registry();
    return code;
}
