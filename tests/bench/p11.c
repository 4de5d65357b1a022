/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program pays for an operation through a PKCS#11 module: any module, so that ours, the
 * token itself and p11-kit's proxy and remoting are measured by the same code. Every result is
 * checked. Prints one JSON line.
 *
 *   p11bench MODULE TOKEN PIN_FILE LANE THREADS SECONDS    a lane of the table below
 *   p11bench MODULE TOKEN PIN_FILE beside SECONDS          AES-GCM of 64 KiB with a session key, in
 *                                                          turn with libcrypto's EVP in the same
 *                                                          process: the machine's moods meet both
 *   p11bench MODULE TOKEN PIN_FILE make COUNT              COUNT keys of three kinds, for the lanes
 *   p11bench MODULE TOKEN PIN_FILE first RUNS              fresh processes to their first signature
 *
 * A lane that the module cannot do says so in the line, as {"lane":..,"cannot":"CKR 0x.."}.
 */
#include <dlfcn.h>
#include <openssl/evp.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "pkcs11/kmsbridge-pkcs11.h"
#include "tests/bench/samples.h"

enum { BIG = 65536, IV_LEN = 12, TAG_LEN = 16, MAX_THREADS = 64, FOUND_MAX = 8 };

extern char **environ;

static CK_FUNCTION_LIST_PTR p11;
static CK_SLOT_ID slot;
static CK_SESSION_HANDLE login_session; /* stays open: it holds the login */

struct worker {
    pthread_t thread;
    const struct lane *lane;
    uint64_t start, end;
    unsigned turn;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key, other;
    CK_BYTE *in, *out;
    CK_BYTE wrapped[64];
    CK_ULONG wrapped_len;
    EVP_CIPHER_CTX *evp;
    CK_RV rv;
    struct samples samples;
};

struct lane {
    const char *name;
    CK_RV (*setup)(struct worker *w);
    CK_RV (*run)(struct worker *w);
    CK_ULONG arg;
};

/* For templates: PKCS#11 does not write there, and cannot say so. */
static void *unconst(const void *text)
{
    return (void *)(uintptr_t)text;
}

/* ---- finding keys --------------------------------------------------------------------------- */

static CK_RV find(CK_SESSION_HANDLE session, CK_ATTRIBUTE *tmpl, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
    CK_OBJECT_HANDLE found[FOUND_MAX];
    CK_ULONG count = 0;
    CK_RV rv = p11->C_FindObjectsInit(session, tmpl, n);

    if (rv == CKR_OK) {
        rv = p11->C_FindObjects(session, found, FOUND_MAX, &count);
        (void)p11->C_FindObjectsFinal(session);
    }
    if (rv == CKR_OK && count != 1) {
        return CKR_KEY_HANDLE_INVALID;
    }
    *ret = found[0];
    return rv;
}

static CK_RV find_key(struct worker *w, const char *label, CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE tmpl[] = {{CKA_LABEL, unconst(label), strlen(label)},
                           {CKA_CLASS, &class, sizeof class}};

    return find(w->session, tmpl, 2, &w->key);
}

static CK_RV setup_aes(struct worker *w)
{
    return find_key(w, "bench-aes", CKO_SECRET_KEY);
}

static CK_RV setup_rsa(struct worker *w)
{
    return find_key(w, "bench-rsa", CKO_PRIVATE_KEY);
}

static CK_RV setup_ec(struct worker *w)
{
    return find_key(w, "bench-ec", CKO_PRIVATE_KEY);
}

static CK_RV session_key(struct worker *w, CK_OBJECT_HANDLE *ret)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_BYTE value[32] = "thirty-two bytes, hardly random";
    CK_ATTRIBUTE tmpl[] = {
        {CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &no, sizeof no},       {CKA_EXTRACTABLE, &yes, sizeof yes},
        {CKA_SENSITIVE, &no, sizeof no},   {CKA_ENCRYPT, &yes, sizeof yes},
        {CKA_DECRYPT, &yes, sizeof yes},   {CKA_VALUE, value, sizeof value},
    };

    return p11->C_CreateObject(w->session, tmpl, sizeof tmpl / sizeof tmpl[0], ret);
}

static CK_RV setup_session(struct worker *w)
{
    return session_key(w, &w->key);
}

/* ---- lanes ---------------------------------------------------------------------------------- */

static CK_RV run_gcm(struct worker *w)
{
    CK_BYTE iv[IV_LEN] = {0};
    CK_GCM_PARAMS gcm = {
        .iv_ptr = iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .tag_bits = TAG_LEN * 8};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    CK_ULONG len = BIG + TAG_LEN;
    CK_RV rv = CKR_OK;

    w->turn++;
    memcpy(iv, &w->turn, sizeof w->turn); /* never twice the same in a thread: it is but a bench */
    memcpy(iv + sizeof w->turn, &w, IV_LEN - sizeof w->turn);
    rv = p11->C_EncryptInit(w->session, &mechanism, w->key);
    if (rv == CKR_OK) {
        rv = p11->C_Encrypt(w->session, w->in, w->lane->arg, w->out, &len);
    }
    return rv == CKR_OK && len != w->lane->arg + TAG_LEN ? CKR_GENERAL_ERROR : rv;
}

/* As a service seals that makes its own IV. */
static CK_RV run_sealed(struct worker *w)
{
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SEALED, NULL, 0};
    CK_ULONG len = BIG + TAG_LEN;
    CK_RV rv = p11->C_EncryptInit(w->session, &mechanism, w->key);

    return rv == CKR_OK ? p11->C_Encrypt(w->session, w->in, w->lane->arg, w->out, &len) : rv;
}

static CK_RV setup_evp(struct worker *w)
{
    CK_BYTE key[32] = "thirty-two bytes, hardly random";

    w->evp = EVP_CIPHER_CTX_new();
    return w->evp != NULL && EVP_EncryptInit_ex(w->evp, EVP_aes_256_gcm(), NULL, key, NULL) == 1
               ? CKR_OK
               : CKR_HOST_MEMORY;
}

static CK_RV run_evp(struct worker *w)
{
    CK_BYTE iv[IV_LEN] = {0};
    int len = 0, rest = 0;

    w->turn++;
    memcpy(iv, &w->turn, sizeof w->turn);
    return EVP_EncryptInit_ex(w->evp, NULL, NULL, NULL, iv) == 1 &&
                   EVP_EncryptUpdate(w->evp, w->out, &len, w->in, (int)w->lane->arg) == 1 &&
                   EVP_EncryptFinal_ex(w->evp, w->out + len, &rest) == 1 &&
                   EVP_CIPHER_CTX_ctrl(w->evp, EVP_CTRL_GCM_GET_TAG, TAG_LEN, w->out + len) == 1
               ? CKR_OK
               : CKR_GENERAL_ERROR;
}

static CK_RV wrap(struct worker *w)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};

    w->wrapped_len = sizeof w->wrapped;
    return p11->C_WrapKey(w->session, &mechanism, w->key, w->other, w->wrapped, &w->wrapped_len);
}

static CK_RV setup_wrap(struct worker *w)
{
    CK_RV rv = setup_aes(w);

    if (rv == CKR_OK) {
        rv = session_key(w, &w->other);
    }
    return rv == CKR_OK ? wrap(w) : rv;
}

static CK_RV run_unwrap(struct worker *w)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof class},
                           {CKA_KEY_TYPE, &type, sizeof type},
                           {CKA_TOKEN, &no, sizeof no}};
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_OBJECT_HANDLE key = 0;
    CK_RV rv =
        p11->C_UnwrapKey(w->session, &mechanism, w->key, w->wrapped, w->wrapped_len, tmpl, 3, &key);

    return rv == CKR_OK ? p11->C_DestroyObject(w->session, key) : rv;
}

static CK_RV sign(struct worker *w, CK_MECHANISM_TYPE type, CK_ULONG in_len)
{
    CK_MECHANISM mechanism = {type, NULL, 0};
    CK_ULONG len = BIG;
    CK_RV rv = p11->C_SignInit(w->session, &mechanism, w->key);

    if (rv == CKR_OK) {
        rv = p11->C_Sign(w->session, w->in, in_len, w->out, &len);
    }
    return rv == CKR_OK && len != w->lane->arg ? CKR_GENERAL_ERROR : rv;
}

static CK_RV run_rsa(struct worker *w)
{
    static const CK_BYTE info[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                   0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

    memcpy(w->in, info, sizeof info); /* DigestInfo of SHA-256 */
    return sign(w, CKM_RSA_PKCS, sizeof info + 32);
}

static CK_RV run_ec(struct worker *w)
{
    return sign(w, CKM_ECDSA, 32);
}

static CK_RV setup_none(struct worker *w)
{
    (void)w;
    return CKR_OK;
}

static CK_RV run_random(struct worker *w)
{
    return p11->C_GenerateRandom(w->session, w->out, w->lane->arg);
}

static CK_RV run_session(struct worker *w)
{
    CK_SESSION_HANDLE session = 0;
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);

    (void)w;
    return rv == CKR_OK ? p11->C_CloseSession(session) : rv;
}

static CK_RV run_find(struct worker *w)
{
    CK_BYTE id[2] = {0xbe, 0x00};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof class}, {CKA_ID, id, sizeof id}};
    CK_OBJECT_HANDLE key = 0;

    id[1] = (CK_BYTE)0xc1; /* bench-aes */
    return find(w->session, tmpl, 2, &key);
}

static const struct lane lanes[] = {
    {"random-16", setup_none, run_random, 16},
    {"gcm-32-token", setup_aes, run_gcm, 32},
    {"gcm-64k-token", setup_aes, run_gcm, BIG},
    {"gcm-32-session", setup_session, run_gcm, 32},
    {"gcm-64k-session", setup_session, run_gcm, BIG},
    {"gcm-64k-evp", setup_evp, run_evp, BIG},
    {"sealed-32", setup_aes, run_sealed, 32},
    {"wrap", setup_wrap, wrap, 0},
    {"unwrap", setup_wrap, run_unwrap, 0},
    {"sign-rsa-2048", setup_rsa, run_rsa, 256},
    {"sign-p256", setup_ec, run_ec, 64},
    {"open-session", setup_none, run_session, 0},
    {"find", setup_none, run_find, 0},
};

/* ---- running them --------------------------------------------------------------------------- */

static void *work(void *argument)
{
    struct worker *w = argument;

    w->rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &w->session);
    w->in = calloc(1, BIG + TAG_LEN);
    w->out = calloc(1, BIG + TAG_LEN);
    if (w->in == NULL || w->out == NULL) {
        w->rv = CKR_HOST_MEMORY;
    }
    if (w->rv == CKR_OK) {
        w->rv = w->lane->setup(w);
    }
    for (uint64_t before = bench_now(); w->rv == CKR_OK && before < w->end;) {
        uint64_t after = 0;

        w->rv = w->lane->run(w);
        after = bench_now();
        if (before >= w->start) {
            samples_add(&w->samples, after - before);
        }
        before = after;
    }
    (void)p11->C_CloseSession(w->session);
    free(w->in);
    free(w->out);
    EVP_CIPHER_CTX_free(w->evp);
    return NULL;
}

static long resident_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib;
}

static int measure(const struct lane *lane, unsigned threads, double seconds)
{
    static struct worker workers[MAX_THREADS];
    struct samples all = {0};
    uint64_t start = bench_now() + 200000000U;
    CK_RV rv = CKR_OK;

    for (unsigned i = 0; i < threads; i++) {
        workers[i] =
            (struct worker){.lane = lane, .start = start, .end = start + (uint64_t)(seconds * 1e9)};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        rv = rv == CKR_OK ? workers[i].rv : rv;
        samples_merge(&all, &workers[i].samples);
        samples_done(&workers[i].samples);
    }
    if (rv != CKR_OK) {
        printf("{\"lane\":\"%s\",\"threads\":%u,\"cannot\":\"CKR 0x%lx\"}\n", lane->name, threads,
               rv);
    } else {
        printf("{\"lane\":\"%s\",\"threads\":%u,", lane->name, threads);
        samples_print(&all, seconds, stdout);
        printf(",\"hwm_kib\":%ld}\n", resident_kib());
    }
    samples_done(&all);
    return 0;
}

/* ---- keys for the lanes --------------------------------------------------------------------- */

static CK_RV make_aes(CK_SESSION_HANDLE session, const char *label, CK_BYTE *id, CK_ULONG id_len)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG bytes = 32;
    CK_OBJECT_HANDLE key = 0;
    CK_ATTRIBUTE tmpl[] = {
        {CKA_TOKEN, &yes, 1},
        {CKA_SENSITIVE, &yes, 1},
        {CKA_EXTRACTABLE, &no, 1},
        {CKA_ENCRYPT, &yes, 1},
        {CKA_DECRYPT, &yes, 1},
        {CKA_WRAP, &yes, 1},
        {CKA_UNWRAP, &yes, 1},
        {CKA_ID, id, id_len},
        {CKA_LABEL, unconst(label), strlen(label)},
        {CKA_VALUE_LEN, &bytes, sizeof bytes},
    };

    return p11->C_GenerateKey(session, &mechanism, tmpl, sizeof tmpl / sizeof tmpl[0], &key);
}

static CK_RV make_pair(CK_SESSION_HANDLE session, bool rsa, const char *label, CK_BYTE id)
{
    static CK_BYTE p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    static CK_BYTE e[] = {1, 0, 1};
    CK_MECHANISM mechanism = {rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG bits = 2048;
    CK_OBJECT_HANDLE public = 0, private = 0;
    CK_ATTRIBUTE public_tmpl[] = {
        {CKA_TOKEN, &yes, 1},
        {CKA_VERIFY, &yes, 1},
        {CKA_ID, &id, 1},
        {CKA_LABEL, unconst(label), strlen(label)},
        {rsa ? CKA_MODULUS_BITS : CKA_EC_PARAMS, rsa ? (void *)&bits : p256,
         rsa ? sizeof bits : sizeof p256},
        {CKA_PUBLIC_EXPONENT, e, sizeof e},
    };
    CK_ATTRIBUTE private_tmpl[] = {
        {CKA_TOKEN, &yes, 1},
        {CKA_PRIVATE, &yes, 1},
        {CKA_SENSITIVE, &yes, 1},
        {CKA_EXTRACTABLE, &no, 1},
        {CKA_SIGN, &yes, 1},
        {CKA_ID, &id, 1},
        {CKA_LABEL, unconst(label), strlen(label)},
    };

    return p11->C_GenerateKeyPair(session, &mechanism, public_tmpl, rsa ? 6 : 5, private_tmpl, 7,
                                  &public, &private);
}

/* bench-aes, bench-rsa, bench-ec, and so many AES keys beside them that there are @count. */
static CK_RV make(unsigned count)
{
    CK_BYTE id[2] = {0xbe, 0xc1};
    CK_SESSION_HANDLE session = 0;
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);

    if (rv == CKR_OK) {
        rv = make_aes(session, "bench-aes", id, sizeof id);
    }
    if (rv == CKR_OK) {
        rv = make_pair(session, true, "bench-rsa", 2);
    }
    if (rv == CKR_OK) {
        rv = make_pair(session, false, "bench-ec", 3);
    }
    for (unsigned i = 1; rv == CKR_OK && i < count; i++) {
        char label[32];
        CK_BYTE filler[3] = {0xf0, (CK_BYTE)(i >> 8), (CK_BYTE)i};

        (void)snprintf(label, sizeof label, "filler-%u", i);
        rv = make_aes(session, label, filler, sizeof filler);
    }
    return rv;
}

/* ---- the token, and main -------------------------------------------------------------------- */

static CK_RV find_slot(const char *label)
{
    CK_SLOT_ID slots[64];
    CK_ULONG n = 64;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &n);

    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++) {
        CK_TOKEN_INFO info;

        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
            memcmp(info.label, label, strlen(label)) == 0) {
            slot = slots[i];
            return CKR_OK;
        }
    }
    return rv == CKR_OK ? CKR_TOKEN_NOT_PRESENT : rv;
}

static CK_RV open_token(const char *module, const char *token, const char *pin_file)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_C_GetFunctionList get_function_list = NULL;
    CK_TOKEN_INFO info;
    CK_BYTE pin[64];
    CK_ULONG len = 0;
    FILE *file = fopen(pin_file, "re");
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    CK_RV rv = CKR_OK;

    if (file != NULL) {
        len = fread(pin, 1, sizeof pin, file);
        (void)fclose(file);
    }
    len -= len > 0 && pin[len - 1] == '\n' ? 1 : 0;
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return CKR_GENERAL_ERROR;
    }
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (get_function_list == NULL || get_function_list(&p11) != CKR_OK) {
        return CKR_GENERAL_ERROR;
    }
    rv = p11->C_Initialize(&args);
    if (rv == CKR_OK) {
        rv = find_slot(token);
    }
    if (rv == CKR_OK) {
        rv = p11->C_GetTokenInfo(slot, &info);
    }
    if (rv == CKR_OK) {
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &login_session);
    }
    if (rv == CKR_OK && (info.flags & CKF_LOGIN_REQUIRED) != 0) {
        rv = p11->C_Login(login_session, CKU_USER, pin, len);
    }
    return rv;
}

/* A fresh process each: from spawning it to its end after one signature. */
static int first(char **argv, unsigned runs)
{
    struct samples all = {0};

    for (unsigned i = 0; i < runs; i++) {
        char *child[] = {argv[0],      argv[1], argv[2], argv[3], unconst("sign-once"),
                         unconst("1"), NULL};
        uint64_t before = bench_now();
        int status = 0;
        pid_t pid = 0;

        if (posix_spawn(&pid, argv[0], NULL, NULL, child, environ) != 0 ||
            waitpid(pid, &status, 0) != pid || status != 0) {
            fprintf(stderr, "the child failed\n");
            return 1;
        }
        samples_add(&all, bench_now() - before);
    }
    printf("{\"lane\":\"first\",\"threads\":1,");
    samples_print(&all, 1, stdout);
    printf("}\n");
    samples_done(&all);
    return 0;
}

/* The module's call and EVP's, in turn, and the first of each pair changes. */
static CK_RV beside(unsigned seconds)
{
    static const struct lane lane = {"gcm-64k-beside", setup_session, run_gcm, BIG};
    struct worker w = {.lane = &lane, .session = login_session};
    struct samples ours = {0}, evp = {0};
    const uint64_t end = bench_now() + (uint64_t)seconds * 1000000000U;
    CK_RV rv = CKR_OK;

    w.in = calloc(1, BIG + TAG_LEN);
    w.out = calloc(1, BIG + TAG_LEN);
    rv = w.in == NULL || w.out == NULL ? CKR_HOST_MEMORY : setup_session(&w);
    rv = rv == CKR_OK ? setup_evp(&w) : rv;
    for (unsigned i = 0; rv == CKR_OK && bench_now() < end; i++) {
        for (unsigned k = 0; k < 2 && rv == CKR_OK; k++) {
            const bool module = (i + k) % 2 == 0;
            const uint64_t before = bench_now();

            rv = module ? run_gcm(&w) : run_evp(&w);
            samples_add(module ? &ours : &evp, bench_now() - before);
        }
    }
    if (rv == CKR_OK) {
        printf("{\"lane\":\"%s\",\"threads\":1,\"module\":{", lane.name);
        samples_print(&ours, seconds, stdout);
        printf("},\"evp\":{");
        samples_print(&evp, seconds, stdout);
        printf("}}\n");
    }
    samples_done(&ours);
    samples_done(&evp);
    EVP_CIPHER_CTX_free(w.evp);
    free(w.in);
    free(w.out);
    return rv;
}

static CK_RV sign_once(void)
{
    static const struct lane lane = {"sign-once", setup_ec, run_ec, 64};
    struct worker w = {.lane = &lane};
    CK_BYTE in[BIG], out[BIG];
    CK_RV rv = CKR_OK;

    w.session = login_session;
    w.in = in;
    w.out = out;
    rv = setup_ec(&w);
    return rv == CKR_OK ? run_ec(&w) : rv;
}

int main(int argc, char **argv)
{
    CK_RV rv = CKR_OK;

    if (argc < 6) {
        fprintf(stderr, "usage: p11bench MODULE TOKEN PIN_FILE LANE|make|first NUMBER [SECONDS]\n");
        return 2;
    }
    unsigned number = (unsigned)strtoul(argv[5], NULL, 10);
    if (strcmp(argv[4], "first") == 0) {
        return first(argv, number);
    }
    rv = open_token(argv[1], argv[2], argv[3]);
    if (rv == CKR_OK && strcmp(argv[4], "make") == 0) {
        rv = make(number);
    } else if (rv == CKR_OK && strcmp(argv[4], "beside") == 0) {
        rv = beside(number);
    } else if (rv == CKR_OK && strcmp(argv[4], "sign-once") == 0) {
        rv = sign_once();
    } else if (rv == CKR_OK) {
        for (size_t i = 0; i < sizeof lanes / sizeof lanes[0]; i++) {
            if (strcmp(argv[4], lanes[i].name) == 0 && argc > 6 && number > 0 &&
                number <= MAX_THREADS) {
                return measure(&lanes[i], number, strtod(argv[6], NULL));
            }
        }
        fprintf(stderr, "no lane %s, or its numbers are wrong\n", argv[4]);
        return 2;
    }
    if (rv != CKR_OK) {
        fprintf(stderr, "%s: CKR 0x%lx\n", argv[2], rv);
        return 1;
    }
    (void)p11->C_Finalize(NULL);
    return 0;
}
