/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An SM4 key of a service, as an application sees it through the module and nothing else:
 *
 *   sm4 MODULE LABEL look   what it says of itself; CKM_KMSBRIDGE_SEALED is done by it, and no
 *                           other mechanism
 *   sm4 MODULE LABEL make   C_GenerateKey makes it in the service, and it seals
 *
 * Prints "ok: WHAT" for each thing that held, "FAIL: WHAT" and exits with 1 at the first that did
 * not. (What any KEK does is asked of it by envelope.c.)
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/pkcs11x.h"

enum { BLOB_MAX = 16384, PLAIN_MAX = 6144 }; /* Encrypt takes 6 KB */

static CK_FUNCTION_LIST *p11;
static CK_SLOT_ID slots[8];
static CK_SESSION_HANDLE session;

static void check(const char *what, bool held, CK_RV rv)
{
    printf("%s: %s (0x%lx)\n", held ? "ok" : "FAIL", what, rv);
    if (!held) {
        exit(1);
    }
}

static void answers(const char *what, CK_RV rv, CK_RV wanted)
{
    check(what, rv == wanted, rv);
}
#define OK(call) answers(#call, p11->call, CKR_OK)

static void open_module(const char *module)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList list = NULL;
    CK_ULONG count = 8;

    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    *(void **)&list = dlsym(library, "C_GetFunctionList");
    answers("C_GetFunctionList", list(&p11), CKR_OK);
    OK(C_Initialize(&args));
    OK(C_GetSlotList(CK_TRUE, slots, &count));
    OK(C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
}

static CK_OBJECT_HANDLE find(char *label)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_VENDOR_DEFINED;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof(class)},
                           {CKA_KEY_TYPE, &type, sizeof(type)},
                           {CKA_LABEL, label, strlen(label)}};
    CK_OBJECT_HANDLE found[2] = {0};
    CK_ULONG count = 0;

    OK(C_FindObjectsInit(session, tmpl, 3));
    OK(C_FindObjects(session, found, 2, &count));
    OK(C_FindObjectsFinal(session));
    check("one object, CKK_VENDOR_DEFINED", count == 1, count);
    return found[0];
}

/* ---- what it says of itself ----------------------------------------------------------------- */

static CK_ULONG number(CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type)
{
    CK_ULONG value = 0;
    CK_ATTRIBUTE get = {type, &value, sizeof(value)};

    OK(C_GetAttributeValue(session, key, &get, 1));
    return value;
}

static bool truth(CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL value = 7;
    CK_ATTRIBUTE get = {type, &value, sizeof(value)};

    OK(C_GetAttributeValue(session, key, &get, 1));
    check("a truth", value == CK_TRUE || value == CK_FALSE, value);
    return value == CK_TRUE;
}

static void tells(CK_OBJECT_HANDLE key)
{
    static const struct {
        CK_ATTRIBUTE_TYPE type;
        bool value;
    } truths[] = {
        {CKA_TOKEN, true},
        {CKA_PRIVATE, true},
        {CKA_LOCAL, true},
        {CKA_SENSITIVE, true},
        {CKA_EXTRACTABLE, false},
        {CKA_ALWAYS_SENSITIVE, true},
        {CKA_NEVER_EXTRACTABLE, true},
        {CKA_ENCRYPT, true},
        {CKA_DECRYPT, true},
        {CKA_WRAP, true},
        {CKA_UNWRAP, true},
        {CKA_SIGN, false},
        {CKA_VERIFY, false},
        {CKA_DERIVE, false},
    };
    CK_MECHANISM_TYPE allowed[8] = {0};
    CK_BYTE bytes[32];
    CK_ATTRIBUTE get = {CKA_ALLOWED_MECHANISMS, allowed, sizeof(allowed)};
    CK_ATTRIBUTE value = {CKA_VALUE, bytes, sizeof(bytes)};

    for (size_t i = 0; i < sizeof(truths) / sizeof(truths[0]); i++) {
        check("an attribute", truth(key, truths[i].type) == truths[i].value, truths[i].type);
    }
    check("CKA_KEY_TYPE", number(key, CKA_KEY_TYPE) == 0x80000000UL, number(key, CKA_KEY_TYPE));
    check("CKA_VALUE_LEN", number(key, CKA_VALUE_LEN) == 16, number(key, CKA_VALUE_LEN));
    check("CKA_KEY_GEN_MECHANISM", number(key, CKA_KEY_GEN_MECHANISM) == CKM_KMSBRIDGE_SM4_KEY_GEN,
          0);
    OK(C_GetAttributeValue(session, key, &get, 1));
    check("CKA_ALLOWED_MECHANISMS is SEALED alone",
          get.ulValueLen == sizeof(allowed[0]) && allowed[0] == CKM_KMSBRIDGE_SEALED, allowed[0]);
    answers("CKA_VALUE is not shown", p11->C_GetAttributeValue(session, key, &value, 1),
            CKR_ATTRIBUTE_SENSITIVE);
}

static void mechanisms_are_told(void)
{
    CK_MECHANISM_INFO info;

    OK(C_GetMechanismInfo(slots[0], CKM_KMSBRIDGE_SEALED, &info));
    check("... takes keys of 16 bytes", info.ulMinKeySize <= 16 && info.ulMaxKeySize >= 16,
          info.ulMinKeySize);
    OK(C_GetMechanismInfo(slots[0], CKM_KMSBRIDGE_SM4_KEY_GEN, &info));
    check("... makes such", info.ulMinKeySize == 16 && info.ulMaxKeySize == 16, info.ulMaxKeySize);
    check("... in the token", info.flags == CKF_GENERATE, info.flags);
}

/* ---- what is done by it --------------------------------------------------------------------- */

static CK_MECHANISM sealed(CK_KMSBRIDGE_SEALED_PARAMS *params, const char *aad)
{
    *params = (CK_KMSBRIDGE_SEALED_PARAMS){.pAAD = (CK_BYTE *)(size_t)aad, .ulAADLen = strlen(aad)};
    return (CK_MECHANISM){CKM_KMSBRIDGE_SEALED, params, sizeof(*params)};
}

static CK_RV decrypt(CK_OBJECT_HANDLE key, const char *aad, CK_BYTE *blob, CK_ULONG len,
                     CK_BYTE *ret, CK_ULONG *ret_len)
{
    CK_KMSBRIDGE_SEALED_PARAMS params;
    CK_MECHANISM mechanism = sealed(&params, aad);

    OK(C_DecryptInit(session, &mechanism, key));
    return p11->C_Decrypt(session, blob, len, ret, ret_len);
}

/* @size bytes there and back, at once or in parts. */
static void round_trip(CK_OBJECT_HANDLE key, CK_ULONG size, bool parts)
{
    static CK_BYTE plain[PLAIN_MAX], blob[BLOB_MAX], back[BLOB_MAX];
    CK_KMSBRIDGE_SEALED_PARAMS params;
    CK_MECHANISM mechanism = sealed(&params, "aad");
    CK_ULONG bound = 0, len = sizeof(blob), none = sizeof(blob), back_len = sizeof(back);

    for (size_t i = 0; i < size; i++) {
        plain[i] = (CK_BYTE)(i * 31 + (i >> 8));
    }
    OK(C_EncryptInit(session, &mechanism, key));
    if (parts) {
        OK(C_EncryptUpdate(session, plain, size / 3, blob, &none));
        check("... gathers", none == 0, none);
        none = sizeof(blob);
        OK(C_EncryptUpdate(session, plain + size / 3, size - size / 3, blob, &none));
        OK(C_EncryptFinal(session, blob, &len));
    } else {
        OK(C_Encrypt(session, plain, size, NULL, &bound));
        OK(C_Encrypt(session, plain, size, blob, &len));
        check("... not longer than was said", len <= bound, bound);
    }
    /* the service's own text and nothing else, which its other clients open */
    check("base64 text",
          len % 4 == 0 && len > size &&
              strspn((char *)blob,
                     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") >= len,
          len);
    answers("C_Decrypt", decrypt(key, "aad", blob, len, back, &back_len), CKR_OK);
    check("what was encrypted", back_len == size && memcmp(back, plain, size) == 0, back_len);
    back_len = sizeof(back);
    answers("another AAD", decrypt(key, "aae", blob, len, back, &back_len),
            CKR_ENCRYPTED_DATA_INVALID);
    blob[len / 2] = blob[len / 2] == 'A' ? 'B' : 'A';
    back_len = sizeof(back);
    answers("another ciphertext", decrypt(key, "aad", blob, len, back, &back_len),
            CKR_ENCRYPTED_DATA_INVALID);
}

static void too_much(CK_OBJECT_HANDLE key)
{
    static CK_BYTE plain[PLAIN_MAX + 1], blob[BLOB_MAX];
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SEALED, NULL, 0};
    CK_ULONG len = sizeof(blob);

    OK(C_EncryptInit(session, &mechanism, key));
    answers("a byte more than the service takes",
            p11->C_Encrypt(session, plain, sizeof(plain), blob, &len), CKR_DATA_LEN_RANGE);
}

/* Nothing that another token could not undo is done, nor is such a key brought or unwrapped. */
static void nothing_else(CK_OBJECT_HANDLE key)
{
    static const CK_MECHANISM_TYPE ciphers[] = {CKM_AES_ECB, CKM_AES_CBC_PAD, CKM_AES_GCM,
                                                CKM_AES_CTR, CKM_AES_KEY_WRAP_PAD};
    CK_BYTE iv[16] = {0};
    CK_GCM_PARAMS gcm = {.iv_ptr = iv, .iv_len = 12, .iv_bits = 96, .tag_bits = 128};
    CK_AES_CTR_PARAMS ctr = {.counter_bits = 128};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_VENDOR_DEFINED;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof(class)},
                           {CKA_KEY_TYPE, &type, sizeof(type)},
                           {CKA_VALUE, iv, sizeof(iv)}};
    CK_MECHANISM unwrap = {CKM_KMSBRIDGE_SEALED, NULL, 0};
    CK_MECHANISM make = {CKM_KMSBRIDGE_SM4_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE none = 0;

    for (size_t i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++) {
        CK_MECHANISM mechanism = {ciphers[i], NULL, 0};

        if (ciphers[i] == CKM_AES_CBC_PAD) {
            mechanism = (CK_MECHANISM){ciphers[i], iv, sizeof(iv)};
        } else if (ciphers[i] == CKM_AES_GCM) {
            mechanism = (CK_MECHANISM){ciphers[i], &gcm, sizeof(gcm)};
        } else if (ciphers[i] == CKM_AES_CTR) {
            mechanism = (CK_MECHANISM){ciphers[i], &ctr, sizeof(ctr)};
        }
        answers("a standard mechanism", p11->C_EncryptInit(session, &mechanism, key),
                CKR_KEY_TYPE_INCONSISTENT);
    }
    answers("C_CreateObject", p11->C_CreateObject(session, tmpl, 3, &none),
            CKR_ATTRIBUTE_VALUE_INVALID);
    answers("C_UnwrapKey to such a key",
            p11->C_UnwrapKey(session, &unwrap, key, iv, sizeof(iv), tmpl, 2, &none),
            CKR_ATTRIBUTE_VALUE_INVALID);
    answers("C_GenerateKey of a session key", p11->C_GenerateKey(session, &make, tmpl, 2, &none),
            CKR_TEMPLATE_INCONSISTENT);
}

static void look(char *label)
{
    CK_OBJECT_HANDLE key = find(label);

    tells(key);
    mechanisms_are_told();
    round_trip(key, 1, false);
    round_trip(key, 1000, true);
    round_trip(key, PLAIN_MAX, false);
    too_much(key);
    nothing_else(key);
}

static void make(char *label)
{
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG wrong = 32;
    CK_ATTRIBUTE tmpl[] = {{CKA_TOKEN, &yes, sizeof(yes)},        {CKA_LABEL, label, strlen(label)},
                           {CKA_ENCRYPT, &yes, sizeof(yes)},      {CKA_DECRYPT, &yes, sizeof(yes)},
                           {CKA_WRAP, &yes, sizeof(yes)},         {CKA_UNWRAP, &yes, sizeof(yes)},
                           {CKA_VALUE_LEN, &wrong, sizeof(wrong)}};
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SM4_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key = 0;
    CK_RV rv = p11->C_GenerateKey(session, &mechanism, tmpl, 7, &key);

    check("no SM4 key has 32 bytes", rv != CKR_OK && key == 0, rv);
    OK(C_GenerateKey(session, &mechanism, tmpl, 6, &key));
    tells(key);
    check("found again", find(label) == key, key);
    round_trip(key, 32, false);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: sm4 MODULE LABEL look|make\n");
        return 2;
    }
    open_module(argv[1]);
    if (strcmp(argv[3], "look") == 0) {
        look(argv[2]);
    } else if (strcmp(argv[3], "make") == 0) {
        make(argv[2]);
    } else {
        return 2;
    }
    OK(C_Finalize(NULL));
    return 0;
}
