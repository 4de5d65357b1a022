/* SPDX-License-Identifier: Apache-2.0 */
/* One PKCS#11 library that several backends use, by one name or by several. */
#include "tests/faults/heal.h"

#include <pthread.h>
#include <string.h>

#include "backend/backend_conf.h"
#include "common/clock.h"

struct user {
    char module[4096], pin[4128], token[8], name[8], type[8], init_args[8];
    struct kms_hsm_conf hsm;
    struct kms_backend_conf conf;
    struct kms_waist *waist;
};

/* A second backend, of the module that the script has put at @file beside the shim. */
static void open_second(struct user *user, const char *file, const char *init_args)
{
    struct kms_error err = KMS_ERROR_INIT;

    memset(user, 0, sizeof(*user));
    (void)snprintf(user->module, sizeof(user->module), "%s/%s", getenv("KMS_TEST_DIR"), file);
    (void)snprintf(user->pin, sizeof(user->pin), "file:%s", pin_file());
    (void)strcpy(user->token, "one");
    (void)strcpy(user->name, "second");
    (void)strcpy(user->type, "hsm");
    user->hsm = (struct kms_hsm_conf){
        .module = user->module, .token = user->token, .pin = user->pin, .sessions = 4};
    if (init_args != NULL) {
        (void)snprintf(user->init_args, sizeof(user->init_args), "%s", init_args);
        user->hsm.init_args = user->init_args;
    }
    user->conf =
        (struct kms_backend_conf){.name = user->name, .type = user->type, .hsm = &user->hsm};
    if (kms_waist_open(&user->conf, NULL, NULL, &user->waist, &err) != KMS_OK) {
        fprintf(stderr, "heal: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
}

struct worker {
    pthread_t thread;
    struct kms_waist *waist;
    const char *ref;
    enum kms_status status;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct kms_call call;

    w->status = round_trip(w->waist, w->ref, 10000, &call);
    return NULL;
}

static void start(struct worker *w, struct kms_waist *waist, const char *ref)
{
    *w = (struct worker){.waist = waist, .ref = ref};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&w->thread, NULL, work, w), 0);
}

static void wait_until_inside(struct kms_waist *waist)
{
    struct kms_health health = {.ready = false};

    for (unsigned i = 0; i < 500 && health.stuck_ns < 300 * KMS_NS_PER_MS; i++) {
        sleep_ms(10);
        kms_waist_health(waist, &health);
    }
    CU_ASSERT(health.stuck_ns >= 300 * KMS_NS_PER_MS);
}

static const struct {
    const char *name, *file;
} names[] = {
    {"the same name", "shim.so"},
    {"a symbolic link", "symlink.so"},
    {"a hard link", "hardlink.so"},
};

/* It is initialised once, restarted for all when nobody is inside, finalized by the last. */
void two_names_are_one_library(void)
{
    for (size_t i = 0; i < UNIT_COUNT(names); i++) {
        const char *row = names[i].name;
        unsigned long inits = calls("C_Initialize"), finals = calls("C_Finalize");
        char ref[KMS_KEY_REF_MAX];
        struct kms_waist *first = healthy("one", 4, ref);
        struct sealed sealed;
        struct kms_call call;
        struct user second;
        struct worker inside;

        open_second(&second, names[i].file, NULL);
        UNIT_CHECK(row, round_trip(second.waist, ref, 5000, &call) == KMS_OK);
        UNIT_CHECK(row, calls("C_Initialize") == inits + 1);
        plan("hang=1:C_Decrypt");
        start(&inside, second.waist, ref);
        wait_until_inside(second.waist);
        plan("hang=1:C_Decrypt\nfail=CKR_DEVICE_REMOVED:C_GenerateRandom");
        call = call_for(1000);
        UNIT_CHECK(row, seal(first, ref, &call, &sealed) == KMS_E_UNAVAILABLE);
        UNIT_CHECK(row, strstr(call.error.text, "1 calls stuck") != NULL);
        UNIT_CHECK(row, calls("C_Finalize") == finals); /* not under the other's call */
        plan("");
        pthread_join(inside.thread, NULL);
        UNIT_CHECK(row, inside.status == KMS_OK);
        UNIT_CHECK(row, round_trip(first, ref, 8000, &call) == KMS_OK);
        UNIT_CHECK(row, round_trip(second.waist, ref, 8000, &call) == KMS_OK);
        UNIT_CHECK(row, calls("C_Finalize") == finals + 1);
        UNIT_CHECK(row, calls("C_Initialize") == inits + 2);
        kms_waist_close(first);
        UNIT_CHECK(row, calls("C_Finalize") == finals + 1);
        UNIT_CHECK(row, round_trip(second.waist, ref, 5000, &call) == KMS_OK);
        UNIT_CHECK(row, calls("C_Initialize") == inits + 2);
        kms_waist_close(second.waist);
        UNIT_CHECK(row, calls("C_Finalize") == finals + 2);
    }
}

/* A library takes them at C_Initialize: who wants others waits until it is nobody's. */
void other_init_args_are_refused(void)
{
    for (size_t i = 0; i < UNIT_COUNT(names); i++) {
        const char *row = names[i].name;
        unsigned long inits = calls("C_Initialize");
        char ref[KMS_KEY_REF_MAX], found[KMS_KEY_REF_MAX];
        struct kms_waist *first = healthy("one", 4, ref);
        struct kms_call call = call_for(300);
        struct user second;

        open_second(&second, names[i].file, "x");
        UNIT_CHECK(row, find_kek(second.waist, found, &call) == KMS_E_UNAVAILABLE);
        UNIT_CHECK(row, strstr(call.error.text, "init_args") != NULL);
        UNIT_CHECK(row, strstr(call.error.text, second.module) != NULL);
        UNIT_CHECK(row, round_trip(first, ref, 5000, &call) == KMS_OK);
        UNIT_CHECK(row, calls("C_Initialize") == inits + 1);
        kms_waist_close(first);
        call = call_for(3000);
        UNIT_CHECK(row, find_kek(second.waist, found, &call) != KMS_OK);
        UNIT_CHECK(row, strcmp(call.error.code, "CKR_ARGUMENTS_BAD") == 0); /* SoftHSM got them */
        kms_waist_close(second.waist);
    }
}

static void *close_it(void *ctx)
{
    kms_waist_close(ctx);
    return NULL;
}

/* The last user's C_Finalize is over before the next one's C_Initialize. */
void finalizing_comes_before_the_next(void)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_waist *first = healthy("one", 4, ref);
    unsigned long inits = calls("C_Initialize"), finals = calls("C_Finalize");
    struct user second;
    struct worker next;
    pthread_t closer;
    struct kms_call call;

    plan("hang=1:C_Finalize");
    CU_ASSERT_EQUAL_FATAL(pthread_create(&closer, NULL, close_it, first), 0);
    for (unsigned i = 0; i < 500 && calls("C_Finalize") == finals; i++) {
        sleep_ms(10);
    }
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals + 1);
    open_second(&second, "symlink.so", NULL);
    start(&next, second.waist, ref);
    sleep_ms(300);
    CU_ASSERT_EQUAL(calls("C_Initialize"), inits);
    plan("");
    pthread_join(closer, NULL);
    pthread_join(next.thread, NULL);
    CU_ASSERT_EQUAL(next.status, KMS_OK);
    CU_ASSERT_EQUAL(round_trip(second.waist, ref, 5000, &call), KMS_OK);
    CU_ASSERT_EQUAL(calls("C_Initialize"), inits + 1);
    CU_ASSERT_EQUAL(calls("C_Finalize"), finals + 1);
    kms_waist_close(second.waist);
}
