/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proves each knob of the PKCS#11 shim on a private SoftHSM token.
 * KMSBRIDGE_SHIM names the shim; without it tests/fakes/.libs/p11-shim.so is taken.
 */
#include <CUnit/Basic.h>
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SEED_LEN = 32, IV_LEN = 12, TAG_LEN = 16, THREADS = 8, CALLS = 500 };

static CK_FUNCTION_LIST_PTR p11;
static CK_SLOT_ID slot;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE key;
static char dir[64];
static char control[96];
static char counters[96];
static char pin[] = "1234";

#define ALIGNED_LABEL "shim                            " /* 32, blank padded */

/* ---- fixture -------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    char tmp[128];
    FILE *file = NULL;

    (void)snprintf(tmp, sizeof tmp, "%s.new", path);
    file = fopen(tmp, "we");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 || rename(tmp, path) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
}

static void say(const char *text)
{
    write_file(control, text);
}

/* The counter file's number for `name`; -1: no such row. */
static long counted(const char *name)
{
    char row[64];
    char found[64];
    long n = -1;
    FILE *file = fopen(counters, "re");

    while (file != NULL && fgets(row, sizeof row, file) != NULL) {
        long value = 0;

        if (sscanf(row, "%63s %ld", found, &value) == 2 && strcmp(found, name) == 0) {
            n = value;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return n;
}

static CK_RV find_key(CK_OBJECT_HANDLE *ret_key, CK_ULONG *ret_count)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE find[] = {{CKA_CLASS, &class, sizeof class}};
    CK_RV rv = p11->C_FindObjectsInit(session, find, 1);

    if (rv == CKR_OK) {
        rv = p11->C_FindObjects(session, ret_key, 1, ret_count);
        (void)p11->C_FindObjectsFinal(session);
    }
    return rv;
}

/* SoftHSM numbers its slots anew at each C_InitToken and C_Initialize. */
static CK_RV find_slot(void)
{
    CK_SLOT_ID slots[4];
    CK_ULONG n = 4;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &n);

    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++) {
        CK_TOKEN_INFO info;

        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
            (info.flags & CKF_TOKEN_INITIALIZED) != 0) {
            slot = slots[i];
        }
    }
    return rv;
}

static CK_RV open_and_login(void)
{
    CK_ULONG count = 0;
    CK_RV rv = find_slot();

    if (rv == CKR_OK) {
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, sizeof pin - 1);
    }
    if (rv == CKR_OK) {
        rv = find_key(&key, &count);
    }
    return rv != CKR_OK ? rv : (count == 1 ? CKR_OK : CKR_KEY_HANDLE_INVALID);
}

static CK_RV make_token(void)
{
    CK_MECHANISM gen = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG len = 32;
    CK_ATTRIBUTE attrs[] = {{CKA_TOKEN, &yes, sizeof yes},     {CKA_PRIVATE, &yes, sizeof yes},
                            {CKA_SENSITIVE, &yes, sizeof yes}, {CKA_ENCRYPT, &yes, sizeof yes},
                            {CKA_DECRYPT, &yes, sizeof yes},   {CKA_SIGN, &yes, sizeof yes},
                            {CKA_VALUE_LEN, &len, sizeof len}};
    CK_ULONG one = 1;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, &slot, &one);
    CK_BYTE label[] = ALIGNED_LABEL;

    if (rv == CKR_OK) {
        rv = p11->C_InitToken(slot, (CK_BYTE *)pin, sizeof pin - 1, label);
    }
    if (rv == CKR_OK) {
        rv = find_slot();
    }
    if (rv == CKR_OK) {
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Login(session, CKU_SO, (CK_BYTE *)pin, sizeof pin - 1);
    }
    if (rv == CKR_OK) {
        rv = p11->C_InitPIN(session, (CK_BYTE *)pin, sizeof pin - 1);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Logout(session);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, sizeof pin - 1);
    }
    if (rv == CKR_OK) {
        rv = p11->C_GenerateKey(session, &gen, attrs, sizeof attrs / sizeof attrs[0], &key);
    }
    return rv;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int setup(void)
{
    const char *shim = getenv("KMSBRIDGE_SHIM");
    CK_C_GetFunctionList get_function_list = NULL;
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    char path[96];
    char text[160];
    void *library = NULL;

    (void)snprintf(dir, sizeof dir, "%s/p11-shim.XXXXXX", "/tmp");
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s/tokens", dir);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/softhsm2.conf", dir);
    (void)snprintf(text, sizeof text, "directories.tokendir = %s/tokens\nlog.level = ERROR\n", dir);
    write_file(path, text);
    (void)snprintf(control, sizeof control, "%s/control", dir);
    (void)snprintf(counters, sizeof counters, "%s/counters", dir);
    (void)setenv("SOFTHSM2_CONF", path, 1);
    (void)setenv("KMSBRIDGE_SHIM_CONTROL", control, 1);
    (void)setenv("KMSBRIDGE_SHIM_COUNTERS", counters, 1);

    library = dlopen(shim != NULL ? shim : "tests/fakes/.libs/p11-shim.so", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (get_function_list == NULL || get_function_list(&p11) != CKR_OK ||
        p11->C_Initialize(&args) != CKR_OK) {
        return 1;
    }
    return make_token() == CKR_OK ? 0 : 1;
}

static int teardown(void)
{
    (void)p11->C_Finalize(NULL);
    return nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- operations ----------------------------------------------------------------------------- */

struct sealed {
    CK_BYTE iv[IV_LEN];
    CK_BYTE text[SEED_LEN + TAG_LEN];
};

static const CK_BYTE seed[SEED_LEN] = "a seed of thirty-two bytes, yes";

static CK_RV encrypt_init(CK_SESSION_HANDLE s, CK_BYTE *iv)
{
    CK_GCM_PARAMS gcm = {.iv_ptr = iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .tag_bits = 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};

    return p11->C_EncryptInit(s, &mechanism, key);
}

static CK_RV encrypt_on(CK_SESSION_HANDLE s, struct sealed *sealed)
{
    CK_BYTE plain[SEED_LEN];
    CK_ULONG len = sizeof sealed->text;
    CK_RV rv = encrypt_init(s, sealed->iv);

    memcpy(plain, seed, sizeof plain);
    return rv == CKR_OK ? p11->C_Encrypt(s, plain, sizeof plain, sealed->text, &len) : rv;
}

static CK_RV encrypt(void)
{
    struct sealed sealed = {.iv = "caller's iv"};

    return encrypt_on(session, &sealed);
}

static CK_RV decrypt(struct sealed *sealed)
{
    CK_GCM_PARAMS gcm = {
        .iv_ptr = sealed->iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .tag_bits = 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    CK_BYTE plain[SEED_LEN + TAG_LEN];
    CK_ULONG len = sizeof plain;
    CK_RV rv = p11->C_DecryptInit(session, &mechanism, key);

    if (rv == CKR_OK) {
        rv = p11->C_Decrypt(session, sealed->text, sizeof sealed->text, plain, &len);
    }
    if (rv == CKR_OK && (len != SEED_LEN || memcmp(plain, seed, SEED_LEN) != 0)) {
        rv = CKR_ENCRYPTED_DATA_INVALID;
    }
    return rv;
}

static long elapsed_us(const struct timespec *since)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec - since->tv_sec) * 1000000 + (t.tv_nsec - since->tv_nsec) / 1000;
}

static CK_RV reinit(void)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_RV rv = p11->C_Finalize(NULL);

    if (rv == CKR_OK) {
        rv = p11->C_Initialize(&args);
    }
    return rv;
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void forwards(void)
{
    struct sealed sealed = {.iv = "caller's iv"};

    say("");
    CU_ASSERT_EQUAL(encrypt_on(session, &sealed), CKR_OK);
    CU_ASSERT_STRING_EQUAL((char *)sealed.iv, "caller's iv");
    CU_ASSERT_EQUAL(decrypt(&sealed), CKR_OK);
    (void)remove(control); /* no file, no faults */
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static void latency(void)
{
    struct sealed sealed = {.iv = "caller's iv"};
    struct timespec start;
    CK_BYTE random[IV_LEN];

    say("latency_us=30000\nrandom_latency_us=70000\n");
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    CU_ASSERT_EQUAL(encrypt_on(session, &sealed), CKR_OK);
    CU_ASSERT(elapsed_us(&start) >= 30000);
    CU_ASSERT(elapsed_us(&start) < 60000);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    CU_ASSERT_EQUAL(decrypt(&sealed), CKR_OK);
    CU_ASSERT(elapsed_us(&start) >= 30000);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    CU_ASSERT_EQUAL(p11->C_GenerateRandom(session, random, sizeof random), CKR_OK);
    CU_ASSERT(elapsed_us(&start) >= 70000);
}

static void fail(void)
{
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;
    CK_SLOT_ID slots[4];
    CK_ULONG n = 4;
    CK_BYTE plain[SEED_LEN] = {0};
    CK_BYTE iv[IV_LEN] = {0};

    say("fail=CKR_DEVICE_ERROR:C_Encrypt,C_FindObjectsInit\n");
    CU_ASSERT_EQUAL(encrypt(), CKR_DEVICE_ERROR);
    CU_ASSERT_EQUAL(find_key(&found, &count), CKR_DEVICE_ERROR);
    CU_ASSERT_EQUAL(p11->C_GetSlotList(CK_TRUE, slots, &n), CKR_OK);

    CU_ASSERT_EQUAL(encrypt_init(session, iv), CKR_OK);
    CU_ASSERT_EQUAL(p11->C_Encrypt(session, plain, sizeof plain, NULL, &n), CKR_DEVICE_ERROR);

    say("fail=CKR_DEVICE_REMOVED\nfail=0x80000001:C_GetSlotList # vendor's own\n");
    CU_ASSERT_EQUAL(encrypt(), CKR_DEVICE_REMOVED);
    CU_ASSERT_EQUAL(p11->C_GetSlotList(CK_TRUE, slots, &n), 0x80000001UL);

    say("fail=CKR_GENERAL_ERROR:*\n");
    CU_ASSERT_EQUAL(p11->C_Finalize(NULL), CKR_GENERAL_ERROR);

    say(""); /* a failed C_Encrypt ends its operation, so the session is good for the next */
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static void fail_once(void)
{
    say("fail_once=CKR_SESSION_HANDLE_INVALID:C_EncryptInit:3\n"
        "fail_once=CKR_DEVICE_MEMORY:C_EncryptInit,C_DecryptInit\n");
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(encrypt(), CKR_SESSION_HANDLE_INVALID);
    }
    CU_ASSERT_EQUAL(encrypt(), CKR_DEVICE_MEMORY);
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
    say("fail_once=CKR_SESSION_HANDLE_INVALID:C_EncryptInit:1\n"); /* a new file counts anew */
    CU_ASSERT_EQUAL(encrypt(), CKR_SESSION_HANDLE_INVALID);
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static _Atomic CK_RV hung_rv;
static atomic_bool hung_done;

static void *hung_call(void *unused)
{
    (void)unused;
    hung_rv = encrypt();
    hung_done = true;
    return NULL;
}

static void hang(void)
{
    const struct timespec while_away = {.tv_nsec = 100 * 1000 * 1000};
    pthread_t thread;

    hung_done = false;
    say("hang=1:C_EncryptInit\n");
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, hung_call, NULL), 0);
    (void)nanosleep(&while_away, NULL);
    CU_ASSERT_FALSE(hung_done);
    say("");
    (void)pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(hung_rv, CKR_OK);
}

static void hang_until_reinit(void)
{
    const struct timespec while_away = {.tv_nsec = 100 * 1000 * 1000};
    pthread_t thread;

    hung_done = false;
    say("hang=1\nuntil_reinit=1\n");
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, hung_call, NULL), 0);
    (void)nanosleep(&while_away, NULL);
    CU_ASSERT_FALSE(hung_done);
    CU_ASSERT_EQUAL(reinit(), CKR_OK);
    (void)pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(hung_rv, CKR_CRYPTOKI_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(open_and_login(), CKR_OK);
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static void until_reinit(void)
{
    say("fail=CKR_DEVICE_REMOVED\nfail_once=CKR_GENERAL_ERROR:C_Login\nuntil_reinit=1\n");
    CU_ASSERT_EQUAL(encrypt(), CKR_DEVICE_REMOVED);
    CU_ASSERT_EQUAL(encrypt(), CKR_DEVICE_REMOVED);
    CU_ASSERT_EQUAL(reinit(), CKR_OK);
    CU_ASSERT_EQUAL(open_and_login(), CKR_OK);
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static void no_mech(void)
{
    CK_MECHANISM_TYPE list[256];
    CK_MECHANISM_INFO info;
    CK_ULONG before = 256;
    CK_ULONG count = 0;
    CK_ULONG after = 256;

    say("");
    CU_ASSERT_EQUAL(p11->C_GetMechanismList(slot, list, &before), CKR_OK);
    say("no_mech=CKM_AES_GCM,CKM_AES_CBC\n");
    CU_ASSERT_EQUAL(p11->C_GetMechanismList(slot, NULL, &count), CKR_OK);
    CU_ASSERT_EQUAL(p11->C_GetMechanismList(slot, list, &after), CKR_OK);
    CU_ASSERT_EQUAL(count, before - 2);
    CU_ASSERT_EQUAL(after, before - 2);
    for (CK_ULONG i = 0; i < after; i++) {
        CU_ASSERT_NOT_EQUAL(list[i], CKM_AES_GCM);
    }
    after = 1;
    CU_ASSERT_EQUAL(p11->C_GetMechanismList(slot, list, &after), CKR_BUFFER_TOO_SMALL);
    CU_ASSERT_EQUAL(p11->C_GetMechanismInfo(slot, CKM_AES_GCM, &info), CKR_MECHANISM_INVALID);
    CU_ASSERT_EQUAL(p11->C_GetMechanismInfo(slot, CKM_AES_ECB, &info), CKR_OK);
    CU_ASSERT_EQUAL(encrypt(), CKR_MECHANISM_INVALID);
}

static void own_iv(void)
{
    struct sealed a = {.iv = "caller's iv"};
    struct sealed b = {.iv = "caller's iv"};
    CK_BYTE plain[SEED_LEN] = {0};
    CK_ULONG len = sizeof a.text;

    say("own_iv=1\n");
    CU_ASSERT_EQUAL(encrypt_init(session, a.iv), CKR_OK);
    CU_ASSERT_NOT_EQUAL(memcmp(a.iv, b.iv, IV_LEN), 0); /* written by the Init already */
    CU_ASSERT_EQUAL(p11->C_Encrypt(session, plain, sizeof plain, a.text, &len), CKR_OK);
    CU_ASSERT_EQUAL(encrypt_on(session, &a), CKR_OK);
    CU_ASSERT_EQUAL(decrypt(&a), CKR_OK);

    say("own_iv=late\n");
    CU_ASSERT_EQUAL(encrypt_init(session, b.iv), CKR_OK);
    CU_ASSERT_STRING_EQUAL((char *)b.iv, "caller's iv");
    CU_ASSERT_EQUAL(p11->C_Encrypt(session, plain, sizeof plain, b.text, &len), CKR_OK);
    CU_ASSERT_NOT_EQUAL(memcmp(b.iv, "caller's iv", IV_LEN), 0);
    CU_ASSERT_EQUAL(encrypt_on(session, &b), CKR_OK);
    CU_ASSERT_EQUAL(decrypt(&b), CKR_OK);
    CU_ASSERT_NOT_EQUAL(memcmp(a.iv, b.iv, IV_LEN), 0);
}

static void own_iv_empty(void)
{
    struct sealed a = {.iv = "caller's iv"};
    struct sealed b = {.iv = {0}};
    CK_BYTE plain[SEED_LEN] = {0};
    CK_ULONG len = sizeof b.text;

    say("own_iv=empty\n");
    CU_ASSERT_EQUAL(encrypt_init(session, a.iv), CKR_MECHANISM_PARAM_INVALID);
    CU_ASSERT_EQUAL(encrypt_init(session, b.iv), CKR_OK);
    CU_ASSERT_NOT_EQUAL(memcmp(b.iv, "\0\0\0\0\0\0\0\0\0\0\0", IV_LEN), 0);
    CU_ASSERT_EQUAL(p11->C_Encrypt(session, plain, sizeof plain, b.text, &len), CKR_OK);
}

static void own_iv_append(void)
{
    struct sealed a = {.iv = "caller's iv"};
    CK_GCM_PARAMS params = {.tag_bits = 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
    CK_BYTE plain[SEED_LEN] = {0};
    CK_BYTE out[SEED_LEN + 64];
    CK_ULONG len = sizeof out;

    say("own_iv=append\n");
    CU_ASSERT_EQUAL(encrypt_init(session, a.iv), CKR_MECHANISM_PARAM_INVALID);
    CU_ASSERT_EQUAL(p11->C_EncryptInit(session, &mechanism, key), CKR_OK);
    CU_ASSERT_EQUAL(p11->C_Encrypt(session, plain, sizeof plain, out, &len), CKR_OK);
    CU_ASSERT_EQUAL(len, sizeof plain + 16 + IV_LEN);
    CU_ASSERT_NOT_EQUAL(memcmp(out + len - IV_LEN, a.iv, IV_LEN), 0);
}

static void serial(void)
{
    CK_TOKEN_INFO info;

    say("serial=ABC123\n");
    CU_ASSERT_EQUAL(p11->C_GetTokenInfo(slot, &info), CKR_OK);
    CU_ASSERT_EQUAL(memcmp(info.serialNumber, "ABC123          ", 16), 0);
    CU_ASSERT_EQUAL(memcmp(info.label, ALIGNED_LABEL, 32), 0);
}

static void lost_login(void)
{
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;
    CK_SESSION_INFO info;

    say("logout_sessions=1\n");
    CU_ASSERT_EQUAL(encrypt(), CKR_USER_NOT_LOGGED_IN);
    CU_ASSERT_EQUAL(find_key(&found, &count), CKR_OK);
    CU_ASSERT_EQUAL(count, 0);
    CU_ASSERT_EQUAL(p11->C_GetSessionInfo(session, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.state, CKS_RW_PUBLIC_SESSION);
    CU_ASSERT_EQUAL(p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, sizeof pin - 1), CKR_OK);
    CU_ASSERT_EQUAL(p11->C_GetSessionInfo(session, &info), CKR_OK);
    CU_ASSERT_EQUAL(info.state, CKS_RW_USER_FUNCTIONS);
    CU_ASSERT_EQUAL(find_key(&key, &count), CKR_OK);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static const char *const nonsense[] = {
    "latency_us=soon\n", "fail=CKR_NO_SUCH\n", "fail=CKR_OK:C_Nothing\n",
    "hang=yes\n",        "no_mech=CKM_X\n",    "serial=0123456789abcdefg\n",
    "unheard_of=1\n",    "no equals sign\n",   "fail_once=CKR_CANCEL:C_Login:x\n",
};

static void bad_lines(void)
{
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        say(nonsense[i]);
        CU_ASSERT_EQUAL(encrypt(), CKR_FUNCTION_REJECTED);
    }
    say("");
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
}

static void *many_calls(void *unused)
{
    CK_SESSION_HANDLE own = 0;
    struct sealed sealed = {.iv = "caller's iv"};
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &own);

    (void)unused;
    for (int i = 0; rv == CKR_OK && i < CALLS; i++) {
        rv = encrypt_on(own, &sealed);
    }
    (void)p11->C_CloseSession(own);
    return rv == CKR_OK ? NULL : &slot;
}

static void counts(void)
{
    pthread_t threads[THREADS];
    long encrypts = 0;
    long logins = 0;
    long faults = 0;

    say("");
    CU_ASSERT_EQUAL(encrypt(), CKR_OK);
    encrypts = counted("C_Encrypt");
    logins = counted("C_Login");
    for (int i = 0; i < THREADS; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, many_calls, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed = NULL;

        (void)pthread_join(threads[i], &failed);
        CU_ASSERT_PTR_NULL(failed);
    }
    CU_ASSERT_EQUAL(counted("C_Encrypt"), encrypts + THREADS * CALLS);
    CU_ASSERT_EQUAL(counted("C_Login"), logins);
    faults = counted("faults");
    say("fail_once=CKR_CANCEL:C_EncryptInit\n");
    CU_ASSERT_EQUAL(encrypt(), CKR_CANCEL);
    CU_ASSERT_EQUAL(counted("faults"), faults + 1);
    CU_ASSERT_EQUAL(counted("C_NoSuch"), -1);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"forwards", forwards},
    {"latency_us, random_latency_us", latency},
    {"fail", fail},
    {"fail_once", fail_once},
    {"hang", hang},
    {"hang until reinit", hang_until_reinit},
    {"fail until reinit", until_reinit},
    {"no_mech", no_mech},
    {"own_iv", own_iv},
    {"own_iv=empty", own_iv_empty},
    {"own_iv=append", own_iv_append},
    {"serial", serial},
    {"logout_sessions", lost_login},
    {"lines that make no sense", bad_lines},
    {"counters", counts},
};

int main(void)
{
    CU_pSuite suite = NULL;
    unsigned failures = 1;

    if (CU_initialize_registry() == CUE_SUCCESS) {
        suite = CU_add_suite("p11_shim", setup, teardown);
    }
    for (size_t i = 0; suite != NULL && i < sizeof cases / sizeof cases[0]; i++) {
        (void)CU_add_test(suite, cases[i].name, cases[i].run);
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    if (suite != NULL && CU_basic_run_tests() == CUE_SUCCESS) {
        failures = CU_get_number_of_failures();
    }
    CU_cleanup_registry();
    return failures == 0 ? 0 : 1;
}
