/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes and unmakes what the daemon's tests need of SoftHSM, whose configuration SOFTHSM2_CONF
 * names. A program of its own, so that no test has a PKCS#11 module inside.
 *
 *   token_tool init PIN TOKEN             a token of that label without keys
 *   token_tool key PIN TOKEN ID LABEL     an AES-256 key with the CKA_ID, in hex
 *   token_tool destroy PIN TOKEN ID       the key of that CKA_ID
 */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char module_path[] = "/usr/lib/softhsm/libsofthsm2.so";

static CK_FUNCTION_LIST_PTR p11;

#define TOKEN_LABEL 32 /* of CK_TOKEN_INFO */

struct ask {
    const char *pin;
    const char *token;
    const char *label;
    const char *id;
};

static void pad(const char *label, CK_BYTE ret_label[TOKEN_LABEL])
{
    size_t len = strlen(label);

    memset(ret_label, ' ', TOKEN_LABEL);
    memcpy(ret_label, label, len < TOKEN_LABEL ? len : TOKEN_LABEL);
}

/* The token's slot; with NULL one whose token is not initialised. */
static CK_RV find_slot(const char *token, CK_SLOT_ID *ret_slot)
{
    CK_BYTE label[TOKEN_LABEL];
    CK_SLOT_ID slots[8];
    CK_ULONG n = 8;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &n);

    pad(token == NULL ? "" : token, label);
    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++) {
        CK_TOKEN_INFO info;
        bool found;

        rv = p11->C_GetTokenInfo(slots[i], &info);
        found = token == NULL ? (info.flags & CKF_TOKEN_INITIALIZED) == 0
                              : memcmp(info.label, label, sizeof(label)) == 0;
        if (rv == CKR_OK && found) {
            *ret_slot = slots[i];
            return CKR_OK;
        }
    }
    return rv == CKR_OK ? CKR_TOKEN_NOT_PRESENT : rv;
}

static CK_RV login(CK_USER_TYPE user, const struct ask *ask, CK_SESSION_HANDLE *ret_session)
{
    CK_SLOT_ID slot = 0;
    CK_RV rv = find_slot(ask->token, &slot);

    if (rv == CKR_OK) {
        rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, ret_session);
    }
    if (rv == CKR_OK) {
        rv = p11->C_Login(*ret_session, user, (CK_BYTE *)(size_t)ask->pin, strlen(ask->pin));
    }
    return rv;
}

static CK_RV init(const struct ask *ask)
{
    CK_BYTE label[TOKEN_LABEL];
    CK_BYTE *pin = (CK_BYTE *)(size_t)ask->pin;
    CK_ULONG len = strlen(ask->pin);
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_SLOT_ID slot = 0;
    CK_RV rv = find_slot(NULL, &slot);

    pad(ask->token, label);
    if (rv == CKR_OK) {
        rv = p11->C_InitToken(slot, pin, len, label);
    }
    if (rv == CKR_OK) {
        rv = login(CKU_SO, ask, &session);
    }
    return rv == CKR_OK ? p11->C_InitPIN(session, pin, len) : rv;
}

static size_t unhex(const char *text, CK_BYTE *bytes, size_t room)
{
    size_t n = 0;
    unsigned byte = 0;

    while (n < room && sscanf(text + 2 * n, "%2x", &byte) == 1) {
        bytes[n++] = (CK_BYTE)byte;
    }
    return n;
}

static CK_RV key(const struct ask *ask)
{
    CK_BYTE id[16];
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG len = 32;
    CK_MECHANISM generate = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ATTRIBUTE attrs[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_ENCRYPT, &yes, sizeof(yes)},
        {CKA_DECRYPT, &yes, sizeof(yes)},
        {CKA_LABEL, (char *)(size_t)ask->label, strlen(ask->label)},
        {CKA_ID, id, unhex(ask->id, id, sizeof(id))},
        {CKA_VALUE_LEN, &len, sizeof(len)},
    };
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE made = CK_INVALID_HANDLE;
    CK_RV rv = login(CKU_USER, ask, &session);

    return rv == CKR_OK ? p11->C_GenerateKey(session, &generate, attrs,
                                             sizeof(attrs) / sizeof(attrs[0]), &made)
                        : rv;
}

static CK_RV destroy(const struct ask *ask)
{
    CK_BYTE id[16];
    CK_ATTRIBUTE find = {CKA_ID, id, unhex(ask->id, id, sizeof(id))};
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE found = CK_INVALID_HANDLE;
    CK_ULONG count = 0;
    CK_RV rv = login(CKU_USER, ask, &session);

    if (rv == CKR_OK) {
        rv = p11->C_FindObjectsInit(session, &find, 1);
    }
    if (rv == CKR_OK) {
        rv = p11->C_FindObjects(session, &found, 1, &count);
        (void)p11->C_FindObjectsFinal(session);
    }
    if (rv == CKR_OK && count != 1) {
        return CKR_KEY_HANDLE_INVALID;
    }
    return rv == CKR_OK ? p11->C_DestroyObject(session, found) : rv;
}

static const struct verb {
    const char *name;
    int args;
    CK_RV (*run)(const struct ask *ask);
} verbs[] = {{"init", 4, init}, {"key", 6, key}, {"destroy", 5, destroy}};

static CK_RV run(const struct verb *verb, const struct ask *ask)
{
    CK_C_GetFunctionList get = NULL;
    void *library = dlopen(module_path, RTLD_NOW);
    CK_RV rv = CKR_GENERAL_ERROR;

    if (library == NULL) {
        fprintf(stderr, "token_tool: %s\n", dlerror());
        return rv;
    }
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (get == NULL || get(&p11) != CKR_OK) {
        return rv;
    }
    rv = p11->C_Initialize(NULL);
    if (rv == CKR_OK) {
        rv = verb->run(ask);
        (void)p11->C_Finalize(NULL);
    }
    return rv;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 2 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(argv[1], verbs[i].name) == 0 && argc == verbs[i].args) {
            const struct ask ask = {.pin = argv[2],
                                    .token = argv[3],
                                    .id = argc > 4 ? argv[4] : "",
                                    .label = argc > 5 ? argv[5] : ""};
            CK_RV rv = run(&verbs[i], &ask);

            if (rv != CKR_OK) {
                fprintf(stderr, "token_tool: %s: 0x%lx\n", argv[1], rv);
            }
            return rv == CKR_OK ? EXIT_SUCCESS : EXIT_FAILURE;
        }
    }
    fprintf(stderr,
            "usage: token_tool init PIN TOKEN | key PIN TOKEN ID LABEL | destroy PIN TOKEN ID\n");
    return 2;
}
