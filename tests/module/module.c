/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: module run|make NAME MODULE TOKEN PIN
 *   make  puts keys into an empty token (of SoftHSM)
 *   run   the tests; NAME is what the closing line begins with, "softhsm" is known by it
 */
#include "tests/module/module.h"

#include <sys/wait.h>
#include <unistd.h>

struct module m;

static const struct module_test *const tables[] = {
    module_info_tests, module_session_tests, module_object_tests,
    module_use_tests,  module_process_tests,
};

bool module_gives(const char *what, CK_RV got, const char *name, CK_RV want, const char *file,
                  unsigned line)
{
    char text[512];

    (void)snprintf(text, sizeof(text), "%s gave 0x%lx, not %s", what, got, name);
    (void)CU_assertImplementation(got == want ? CU_TRUE : CU_FALSE, line, text, file, "", CU_FALSE);
    return got == want;
}

bool module_child(const char *what, int (*fn)(void *ctx), void *ctx, const char *file,
                  unsigned line)
{
    const int status = module_in_child(fn, ctx);
    char text[256];

    (void)snprintf(text, sizeof(text), "%s in a child ended with %d", what, status);
    (void)CU_assertImplementation(status == 0 ? CU_TRUE : CU_FALSE, line, text, file, "", CU_FALSE);
    return status == 0;
}

bool module_load(void)
{
    CK_C_GetFunctionList list = NULL;
    CK_C_GetInterface interface = NULL;
    CK_INTERFACE *found = NULL;
    CK_VERSION three = {3, 0};

    m.handle = dlopen(m.path, RTLD_NOW | RTLD_LOCAL);
    if (m.handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    *(void **)&list = dlsym(m.handle, "C_GetFunctionList");
    *(void **)&interface = m.ours ? dlsym(m.handle, "C_GetInterface") : NULL;
    m.f3 = interface != NULL && interface(NULL, &three, &found, 0) == CKR_OK ? found->pFunctionList
                                                                             : NULL;
    return list != NULL && list(&m.f) == CKR_OK;
}

void module_start(void)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};

    OK(m.f->C_Initialize(&args));
}

void module_stop(void)
{
    OK(m.f->C_Finalize(NULL));
}

CK_SLOT_ID module_slot(void)
{
    CK_SLOT_ID ids[64];
    CK_ULONG count = 64;
    CK_TOKEN_INFO info;

    /* the length first: only then must a module look for new slots */
    OK(m.f->C_GetSlotList(CK_TRUE, NULL, &count));
    count = 64;
    OK(m.f->C_GetSlotList(CK_TRUE, ids, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        if (m.f->C_GetTokenInfo(ids[i], &info) == CKR_OK &&
            memcmp(info.label, m.label, strlen(m.label)) == 0) {
            return ids[i];
        }
    }
    (void)UNIT_CHECK("the token is there", false);
    return 0;
}

CK_SESSION_HANDLE module_open(CK_FLAGS more)
{
    CK_SESSION_HANDLE s = CK_INVALID_HANDLE;

    OK(m.f->C_OpenSession(module_slot(), CKF_SERIAL_SESSION | more, NULL, NULL, &s));
    return s;
}

CK_SESSION_HANDLE module_open_logged_in(CK_FLAGS more)
{
    CK_SESSION_HANDLE s = module_open(more);

    OK(m.f->C_Login(s, CKU_USER, bytes_of(m.pin), strlen(m.pin)));
    return s;
}

CK_ULONG module_find(CK_SESSION_HANDLE s, CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret)
{
    CK_OBJECT_HANDLE found[256];
    CK_ULONG n = 0;

    *ret = CK_INVALID_HANDLE;
    if (OK(m.f->C_FindObjectsInit(s, tmpl, count))) {
        OK(m.f->C_FindObjects(s, found, 256, &n));
        OK(m.f->C_FindObjectsFinal(s));
    }
    if (n > 0) {
        *ret = found[0];
    }
    return n;
}

CK_OBJECT_HANDLE module_key(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class, const char *label)
{
    CK_ATTRIBUTE tmpl[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_LABEL, bytes_of(label), strlen(label)},
    };
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    (void)UNIT_CHECK(label, module_find(s, tmpl, 2, &key) == 1);
    return key;
}

CK_OBJECT_HANDLE module_session_aes(CK_SESSION_HANDLE s)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG len = 32;
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ATTRIBUTE tmpl[] = {
        {CKA_TOKEN, &no, sizeof(no)},         {CKA_PRIVATE, &no, sizeof(no)},
        {CKA_VALUE_LEN, &len, sizeof(len)},   {CKA_ENCRYPT, &yes, sizeof(yes)},
        {CKA_DECRYPT, &yes, sizeof(yes)},     {CKA_SENSITIVE, &no, sizeof(no)},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)},
    };
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    OK(m.f->C_GenerateKey(s, &mechanism, tmpl, UNIT_COUNT(tmpl), &key));
    return key;
}

int module_in_child(int (*fn)(void *ctx), void *ctx)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        _exit(fn(ctx));
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return 2000;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void make_secret(CK_SESSION_HANDLE s, const char *label, CK_MECHANISM_TYPE how,
                        CK_BBOOL sign)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_BBOOL crypt = !sign;
    CK_ULONG len = 32;
    CK_MECHANISM mechanism = {how, NULL, 0};
    CK_ATTRIBUTE tmpl[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_LABEL, bytes_of(label), strlen(label)},
        {CKA_ID, bytes_of(label), strlen(label)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_ENCRYPT, &crypt, sizeof(crypt)},
        {CKA_DECRYPT, &crypt, sizeof(crypt)},
        {CKA_WRAP, &crypt, sizeof(crypt)},
        {CKA_UNWRAP, &crypt, sizeof(crypt)},
        {CKA_SIGN, &sign, sizeof(sign)},
        {CKA_VERIFY, &sign, sizeof(sign)},
        {CKA_VALUE_LEN, &len, sizeof(len)},
    };
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    OK(m.f->C_GenerateKey(s, &mechanism, tmpl, UNIT_COUNT(tmpl), &key));
}

static void make_pair(CK_SESSION_HANDLE s, const char *label, CK_MECHANISM_TYPE how,
                      CK_ATTRIBUTE more)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_BBOOL rsa = how == CKM_RSA_PKCS_KEY_PAIR_GEN;
    CK_MECHANISM mechanism = {how, NULL, 0};
    CK_ATTRIBUTE public[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &no, sizeof(no)},
        {CKA_LABEL, bytes_of(label), strlen(label)},
        {CKA_ID, bytes_of(label), strlen(label)},
        {CKA_VERIFY, &yes, sizeof(yes)},
        {CKA_ENCRYPT, &rsa, sizeof(rsa)},
        more,
    };
    CK_ATTRIBUTE private[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_LABEL, bytes_of(label), strlen(label)},
        {CKA_ID, bytes_of(label), strlen(label)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_SIGN, &yes, sizeof(yes)},
        {CKA_DECRYPT, &rsa, sizeof(rsa)},
    };
    CK_OBJECT_HANDLE keys[2];

    OK(m.f->C_GenerateKeyPair(s, &mechanism, public, UNIT_COUNT(public), private,
                              UNIT_COUNT(private), &keys[0], &keys[1]));
}

void module_make(void)
{
    static CK_BYTE p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    static CK_ULONG bits = 2048;
    CK_SESSION_HANDLE s = module_open_logged_in(CKF_RW_SESSION);

    make_secret(s, "aes", CKM_AES_KEY_GEN, CK_FALSE);
    make_secret(s, "mac", CKM_GENERIC_SECRET_KEY_GEN, CK_TRUE);
    make_pair(s, "rsa", CKM_RSA_PKCS_KEY_PAIR_GEN,
              (CK_ATTRIBUTE){CKA_MODULUS_BITS, &bits, sizeof(bits)});
    make_pair(s, "ec", CKM_EC_KEY_PAIR_GEN, (CK_ATTRIBUTE){CKA_EC_PARAMS, p256, sizeof(p256)});
    OK(m.f->C_CloseSession(s));
}

static void make(void)
{
    module_start();
    module_make();
    module_stop();
}

/* ---- running --------------------------------------------------------------------------------- */

static struct unit_test tests[256];
static size_t test_count;

static void gather(const char *only)
{
    for (size_t i = 0; i < UNIT_COUNT(tables); i++) {
        for (const struct module_test *t = tables[i]; t->name != NULL; t++) {
            if (only != NULL && strcmp(only, t->name) != 0) {
                continue;
            }
            if (!m.ours && t->not_softhsm != NULL && only == NULL) {
                /* not a skip: SoftHSM is here to check the tests, and this one is not about it */
                printf("left out: %s: %s\n", t->name, t->not_softhsm);
            } else {
                tests[test_count++] = (struct unit_test){t->name, t->fn};
            }
        }
    }
}

int main(int argc, char **argv)
{
    const struct unit_test making = {"make", make};
    const bool makes = argc > 1 && strcmp(argv[1], "make") == 0;
    unsigned failed = 0;

    if (argc < 6) {
        fprintf(stderr, "usage: module run|make NAME MODULE TOKEN PIN [TEST]\n");
        return EXIT_FAILURE;
    }
    m = (struct module){
        .path = argv[3], .label = argv[4], .pin = argv[5], .ours = strcmp(argv[2], "softhsm") != 0};
    if (makes) {
        tests[test_count++] = making;
    } else {
        gather(argv[6]);
    }
    if (!module_load() || !unit_register(argv[2], tests, test_count)) {
        return EXIT_FAILURE;
    }
    (void)CU_run_all_tests();
    failed = CU_get_number_of_tests_failed();
    unit_print_failures();
    if (!makes) {
        printf("module-%s: %u passed, %u failed, 0 skipped\n", argv[2],
               CU_get_number_of_tests_run() - failed, failed);
    }
    failed += CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
