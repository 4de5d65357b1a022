/* SPDX-License-Identifier: Apache-2.0 */
/* The token behind the shim, and what is asked of it. */
#include "tests/faults/heal.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "backend/backend_conf.h"
#include "common/clock.h"

static char module[4096], pin_path[4096], pin_ref[4128];

bool heal_init(void)
{
    const char *dir = getenv("KMS_TEST_DIR");
    const char *shim = getenv("KMS_TEST_MODULE");

    if (dir == NULL || shim == NULL || getenv("KMSBRIDGE_SHIM_CONTROL") == NULL ||
        getenv("KMSBRIDGE_SHIM_COUNTERS") == NULL) {
        return false;
    }
    (void)snprintf(module, sizeof(module), "%s", shim);
    (void)snprintf(pin_path, sizeof(pin_path), "%s/pin", dir);
    (void)snprintf(pin_ref, sizeof(pin_ref), "file:%s", pin_path);
    return true;
}

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

void plan(const char *text)
{
    replace_file(getenv("KMSBRIDGE_SHIM_CONTROL"), text, 0600);
}

void set_pin(const char *pin)
{
    replace_file(pin_path, pin, 0600);
}

const char *pin_file(void)
{
    return pin_path;
}

unsigned long calls(const char *name)
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

struct kms_waist *open_on(const char *token, unsigned sessions)
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

void sleep_ms(unsigned ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

bool take_ref(void *ctx, const struct kms_key_info *info)
{
    memcpy(ctx, info->ref, KMS_KEY_REF_MAX);
    return true;
}

enum kms_status find_kek(struct kms_waist *waist, char *ret_ref, struct kms_call *call)
{
    struct kms_key_filter filter = {.label = "kek"};
    enum kms_status status = KMS_OK;

    ret_ref[0] = '\0';
    status = kms_waist_list_keys(waist, call, &filter, take_ref, ret_ref);
    return status == KMS_OK && ret_ref[0] == '\0' ? KMS_E_NOT_FOUND : status;
}

enum kms_status seal(struct kms_waist *waist, const char *ref, struct kms_call *call,
                     struct sealed *ret)
{
    struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};

    ret->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv),
                                      .ciphertext = KMS_BUF_OVER(ret->ciphertext)};
    return kms_waist_encrypt(waist, call, ref, &params, kms_span_str("the seed"), &ret->sealed);
}

enum kms_status unseal(struct kms_waist *waist, const char *ref, struct kms_call *call,
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

struct kms_call call_for(unsigned ms)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
}

/* Encrypts and decrypts within @ms. */
enum kms_status round_trip(struct kms_waist *waist, const char *ref, unsigned ms,
                           struct kms_call *ret_call)
{
    struct sealed sealed;
    enum kms_status status = KMS_OK;

    *ret_call = call_for(ms);
    status = seal(waist, ref, ret_call, &sealed);
    return status == KMS_OK ? unseal(waist, ref, ret_call, &sealed) : status;
}

/* A waist that works, and the KEK's ref. */
struct kms_waist *healthy(const char *token, unsigned sessions, char *ret_ref)
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
