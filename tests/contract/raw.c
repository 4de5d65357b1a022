/* SPDX-License-Identifier: Apache-2.0 */
/* A few PKCS#11 calls of the tests' own, on the module that the backend has initialised. */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <string.h>

#include "tests/contract/contract.h"

static CK_BBOOL yes = CK_TRUE;

static CK_FUNCTION_LIST *functions(void)
{
    static CK_FUNCTION_LIST *list;
    void *library = dlopen(fx_module, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;

    if (list == NULL && library != NULL) {
        CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                     .pReserved = (void *)(uintptr_t)fx_init_args};

        *(void **)&get = dlsym(library, "C_GetFunctionList");
        if (get == NULL || get(&list) != CKR_OK) {
            abort();
        }
        (void)list->C_Initialize(&args); /* is already, when a waist is open */
    }
    if (list == NULL) {
        abort();
    }
    return list;
}

static bool label_is(const CK_TOKEN_INFO *info, const char *label)
{
    size_t len = strlen(label);

    return memcmp(info->label, label, len) == 0 &&
           (len == sizeof(info->label) || info->label[len] == ' ' || info->label[len] == '\0');
}

static CK_SESSION_HANDLE session_on(const char *token)
{
    CK_FUNCTION_LIST *f = functions();
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64;
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;

    if (f->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK) {
        return session;
    }
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;

        if (f->C_GetTokenInfo(slots[i], &info) == CKR_OK && label_is(&info, token) &&
            f->C_OpenSession(slots[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session) ==
                CKR_OK) {
            (void)f->C_Login(session, CKU_USER, (CK_UTF8CHAR *)(uintptr_t)fx_pin, strlen(fx_pin));
            return session;
        }
    }
    return session;
}

static void *in(const void *data)
{
    return (void *)(uintptr_t)data;
}

bool fx_raw_import(const char *token, enum fx_raw_kind kind, const char *label, struct kms_span tag,
                   struct kms_span value)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = kind == FX_RAW_AES ? CKK_AES : CKK_GENERIC_SECRET;
    CK_ATTRIBUTE rows[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_LABEL, in(label), strlen(label)},
        {CKA_ID, in(tag.data), tag.len},
        {CKA_VALUE, in(value.data), value.len},
        {kind == FX_RAW_AES ? CKA_ENCRYPT : CKA_SIGN, &yes, sizeof(yes)},
        {kind == FX_RAW_AES ? CKA_DECRYPT : CKA_VERIFY, &yes, sizeof(yes)},
    };
    CK_SESSION_HANDLE session = session_on(token);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_SESSION_HANDLE_INVALID;

    if (session != CK_INVALID_HANDLE) {
        rv = functions()->C_CreateObject(session, rows, sizeof(rows) / sizeof(rows[0]), &handle);
        (void)functions()->C_CloseSession(session);
    }
    return rv == CKR_OK;
}

bool fx_raw_import_aes(const char *token, const char *label, struct kms_span tag,
                       struct kms_span value, unsigned uses)
{
    static CK_BBOOL bools[] = {CK_FALSE, CK_TRUE};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_ATTRIBUTE rows[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)},
        {CKA_LABEL, in(label), strlen(label)},
        {CKA_ID, in(tag.data), tag.len},
        {CKA_VALUE, in(value.data), value.len},
        {CKA_ENCRYPT, &bools[(uses & KMS_USE_ENCRYPT) != 0], 1},
        {CKA_DECRYPT, &bools[(uses & KMS_USE_DECRYPT) != 0], 1},
        {CKA_WRAP, &bools[(uses & KMS_USE_WRAP) != 0], 1},
        {CKA_UNWRAP, &bools[(uses & KMS_USE_UNWRAP) != 0], 1},
    };
    CK_SESSION_HANDLE session = session_on(token);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_SESSION_HANDLE_INVALID;

    if (session != CK_INVALID_HANDLE) {
        rv = functions()->C_CreateObject(session, rows, sizeof(rows) / sizeof(rows[0]), &handle);
        (void)functions()->C_CloseSession(session);
    }
    return rv == CKR_OK;
}

static unsigned long find(CK_SESSION_HANDLE session, CK_ATTRIBUTE *rows, CK_ULONG count,
                          CK_OBJECT_HANDLE *ret_handle)
{
    CK_OBJECT_HANDLE handles[64];
    CK_ULONG found = 0;

    if (functions()->C_FindObjectsInit(session, rows, count) != CKR_OK) {
        return 0;
    }
    (void)functions()->C_FindObjects(session, handles, 64, &found);
    (void)functions()->C_FindObjectsFinal(session);
    *ret_handle = found > 0 ? handles[0] : CK_INVALID_HANDLE;
    return found;
}

unsigned long fx_raw_count(const char *token, const char *label)
{
    CK_ATTRIBUTE rows[] = {{CKA_LABEL, in(label), strlen(label)}};
    CK_SESSION_HANDLE session = session_on(token);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    unsigned long count = find(session, rows, 1, &handle);

    (void)functions()->C_CloseSession(session);
    return count;
}

unsigned long fx_raw_count_all(const char *token)
{
    CK_SESSION_HANDLE session = session_on(token);
    CK_OBJECT_HANDLE handles[64];
    CK_ULONG count = 0;
    CK_ULONG got = 1;

    if (functions()->C_FindObjectsInit(session, NULL, 0) == CKR_OK) {
        while (got > 0 && functions()->C_FindObjects(session, handles, 64, &got) == CKR_OK) {
            count += got;
        }
        (void)functions()->C_FindObjectsFinal(session);
    }
    (void)functions()->C_CloseSession(session);
    return count;
}

struct fx_raw_facts fx_raw_facts(const char *token, const char *label, struct kms_span tag)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE name[] = {{CKA_CLASS, &class, sizeof(class)},
                           {CKA_LABEL, in(label), strlen(label)},
                           {CKA_ID, in(tag.data), tag.len}};
    CK_BBOOL bools[4] = {0};
    uint8_t value[64];
    CK_ATTRIBUTE rows[] = {{CKA_TOKEN, &bools[0], 1},
                           {CKA_PRIVATE, &bools[1], 1},
                           {CKA_SENSITIVE, &bools[2], 1},
                           {CKA_EXTRACTABLE, &bools[3], 1}};
    CK_ATTRIBUTE secret = {CKA_VALUE, value, sizeof(value)};
    CK_SESSION_HANDLE session = session_on(token);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct fx_raw_facts facts = {.found = find(session, name, 3, &handle) == 1};

    if (!facts.found) {
        class = CKO_PRIVATE_KEY;
        secret.type = CKA_PRIVATE_EXPONENT;
        facts.found = find(session, name, 3, &handle) == 1;
    }
    if (facts.found && functions()->C_GetAttributeValue(session, handle, rows, 4) == CKR_OK) {
        facts.on_token = bools[0];
        facts.private = bools[1];
        facts.sensitive = bools[2];
        facts.extractable = bools[3];
        facts.value_readable =
            functions()->C_GetAttributeValue(session, handle, &secret, 1) == CKR_OK;
    }
    (void)functions()->C_CloseSession(session);
    return facts;
}
