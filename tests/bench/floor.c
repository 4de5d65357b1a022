/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the token itself can do: the PKCS#11 module called in this process, without any server.
 * An Encrypt is C_GenerateRandom of 12 bytes, C_EncryptInit and C_Encrypt; each thread has a
 * session of its own. Prints one JSON line per number of threads and operation.
 */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/samples.h"

enum { SEED_LEN = 32, IV_LEN = 12, TAG_LEN = 16, MAX_THREADS = 64 };

static CK_FUNCTION_LIST_PTR p11;
static CK_SLOT_ID slot;
static CK_OBJECT_HANDLE key;

struct worker {
    pthread_t thread;
    bool decrypt;
    uint64_t start, end;
    CK_RV rv;
    struct samples samples;
};

struct sealed {
    CK_BYTE iv[IV_LEN];
    CK_BYTE text[SEED_LEN + TAG_LEN];
};

static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE *seed, struct sealed *sealed)
{
    CK_GCM_PARAMS gcm = {
        .iv_ptr = sealed->iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .tag_bits = TAG_LEN * 8};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    CK_ULONG len = sizeof sealed->text;
    CK_RV rv = p11->C_GenerateRandom(session, sealed->iv, IV_LEN);

    if (rv == CKR_OK) {
        rv = p11->C_EncryptInit(session, &mechanism, key);
    }
    return rv == CKR_OK ? p11->C_Encrypt(session, seed, SEED_LEN, sealed->text, &len) : rv;
}

static CK_RV decrypt(CK_SESSION_HANDLE session, const CK_BYTE *seed, struct sealed *sealed)
{
    CK_GCM_PARAMS gcm = {
        .iv_ptr = sealed->iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .tag_bits = TAG_LEN * 8};
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

static void *work(void *argument)
{
    struct worker *w = argument;
    CK_BYTE seed[SEED_LEN] = "thirty-two bytes, hardly random";
    CK_SESSION_HANDLE session = 0;
    struct sealed sealed;

    w->rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);
    if (w->rv == CKR_OK) {
        w->rv = encrypt(session, seed, &sealed);
    }
    for (uint64_t before = bench_now(); w->rv == CKR_OK && before < w->end;) {
        uint64_t after = 0;

        w->rv = w->decrypt ? decrypt(session, seed, &sealed) : encrypt(session, seed, &sealed);
        after = bench_now();
        if (before >= w->start) {
            samples_add(&w->samples, after - before);
        }
        before = after;
    }
    (void)p11->C_CloseSession(session);
    return NULL;
}

static bool measure(unsigned threads, bool decrypting, double seconds)
{
    static struct worker workers[MAX_THREADS];
    struct samples all = {0};
    uint64_t start = bench_now() + 200000000U;
    bool ok = true;

    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){
            .decrypt = decrypting, .start = start, .end = start + (uint64_t)(seconds * 1e9)};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        if (workers[i].rv != CKR_OK) {
            fprintf(stderr, "thread %u: CKR 0x%lx\n", i, workers[i].rv);
            ok = false;
        }
        samples_merge(&all, &workers[i].samples);
        samples_done(&workers[i].samples);
    }
    printf("{\"client\":\"none\",\"load\":{\"method\":\"%s\",\"callers\":%u,",
           decrypting ? "Decrypt" : "Encrypt", threads);
    samples_print(&all, seconds, stdout);
    printf("}}\n");
    samples_done(&all);
    return ok;
}

static CK_RV find_slot(const char *label)
{
    CK_SLOT_ID slots[16];
    CK_ULONG n = 16;
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

static CK_RV open_token(const char *token, char *label, const char *pin_file)
{
    CK_SESSION_HANDLE session = 0; /* stays open: it holds the login */
    CK_ATTRIBUTE find[] = {{CKA_LABEL, label, strlen(label)}};
    CK_BYTE pin[64];
    CK_ULONG count = 0;
    CK_ULONG len = 0;
    FILE *file = fopen(pin_file, "re");
    CK_RV rv = find_slot(token);

    if (file != NULL) {
        len = fread(pin, 1, sizeof pin, file);
        (void)fclose(file);
    }
    len -= len > 0 && pin[len - 1] == '\n' ? 1 : 0;
    if (rv == CKR_OK) {
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Login(session, CKU_USER, pin, len);
    }
    if (rv == CKR_OK) {
        rv = p11->C_FindObjectsInit(session, find, 1);
    }
    if (rv == CKR_OK) {
        rv = p11->C_FindObjects(session, &key, 1, &count);
        (void)p11->C_FindObjectsFinal(session);
    }
    return rv == CKR_OK && count != 1 ? CKR_KEY_HANDLE_INVALID : rv;
}

int main(int argc, char **argv)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_C_GetFunctionList get_function_list = NULL;
    void *library = NULL;
    CK_RV rv = CKR_OK;
    bool ok = true;

    if (argc < 7) {
        fprintf(stderr, "usage: floor MODULE TOKEN KEY PIN_FILE SECONDS THREADS...\n");
        return 2;
    }
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (get_function_list == NULL || get_function_list(&p11) != CKR_OK) {
        return 1;
    }
    rv = p11->C_Initialize(&args);
    if (rv == CKR_OK) {
        rv = open_token(argv[2], argv[3], argv[4]);
    }
    if (rv != CKR_OK) {
        fprintf(stderr, "%s: CKR 0x%lx\n", argv[2], rv);
        return 1;
    }
    for (int i = 6; ok && i < argc; i++) {
        unsigned threads = (unsigned)strtoul(argv[i], NULL, 10);

        ok = threads > 0 && threads <= MAX_THREADS &&
             measure(threads, false, strtod(argv[5], NULL)) &&
             measure(threads, true, strtod(argv[5], NULL));
    }
    (void)p11->C_Finalize(NULL);
    return ok ? 0 : 1;
}
