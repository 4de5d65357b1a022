/* SPDX-License-Identifier: Apache-2.0 */
/* Function lists, interfaces, C_Initialize and C_Finalize, slots and tokens. */
#include "tests/module/module.h"

/* ---- before C_Initialize --------------------------------------------------------------------- */

static void lists(void)
{
    /* behind the version lie function pointers only */
    void *const *slot = (void *const *)(const void *)m.f + 1;
    const size_t count = sizeof(CK_FUNCTION_LIST) / sizeof(void *) - 1;

    (void)UNIT_CHECK("major", m.f->version.major == 2);
    (void)UNIT_CHECK("minor", m.f->version.minor == 40);
    for (size_t i = 0; i < count; i++) {
        (void)UNIT_CHECK("a slot of 2.40", slot[i] != NULL);
    }
}

static void interfaces(void)
{
    CK_INTERFACE list[2];
    CK_INTERFACE *found = NULL;
    CK_ULONG count = 0;
    CK_VERSION two = {2, 40};
    CK_VERSION none = {3, 7};
    void *const *slot = (void *const *)(const void *)m.f3 + 1;

    if (!UNIT_CHECK("3.0", m.f3 != NULL)) {
        return;
    }
    for (size_t i = 0; i < sizeof(CK_FUNCTION_LIST_3_0) / sizeof(void *) - 1; i++) {
        (void)UNIT_CHECK("a slot of 3.0", slot[i] != NULL);
    }
    (void)UNIT_CHECK("version", m.f3->version.major == 3 && m.f3->version.minor == 0);
    OK(m.f3->C_GetInterfaceList(NULL, &count));
    (void)UNIT_CHECK("two", count == 2);
    count = 1;
    GIVES(CKR_BUFFER_TOO_SMALL, m.f3->C_GetInterfaceList(list, &count));
    OK(m.f3->C_GetInterfaceList(list, &count));
    GIVES(CKR_ARGUMENTS_BAD, m.f3->C_GetInterfaceList(list, NULL));
    for (size_t i = 0; i < 2; i++) {
        const CK_VERSION *version = list[i].pFunctionList;

        (void)UNIT_CHECK("name", strcmp((const char *)list[i].pInterfaceName, "PKCS 11") == 0);
        (void)UNIT_CHECK("order", version->major == (i == 0 ? 3 : 2));
    }
    OK(m.f3->C_GetInterface(NULL, NULL, &found, 0));
    (void)UNIT_CHECK("the default is 3.0", found->pFunctionList == (void *)m.f3);
    OK(m.f3->C_GetInterface(bytes_of("PKCS 11"), &two, &found, 0));
    (void)UNIT_CHECK("2.40", found->pFunctionList == (void *)m.f);
    (void)UNIT_CHECK("3.7", m.f3->C_GetInterface(NULL, &none, &found, 0) != CKR_OK);
    (void)UNIT_CHECK("other name", m.f3->C_GetInterface(bytes_of("X"), NULL, &found, 0) != CKR_OK);
    (void)UNIT_CHECK("fork-safe is not promised",
                     m.f3->C_GetInterface(NULL, NULL, &found, CKF_INTERFACE_FORK_SAFE) != CKR_OK);
    GIVES(CKR_ARGUMENTS_BAD, m.f3->C_GetInterface(NULL, NULL, NULL, 0));
}

static void not_initialized(void)
{
    CK_INFO info;
    CK_ULONG count = 0;
    CK_SESSION_HANDLE s = 1;
    CK_OBJECT_HANDLE object = 1;
    CK_MECHANISM mechanism = {CKM_SHA256, NULL, 0};
    CK_BYTE byte = 0;

    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_Finalize(NULL));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_GetInfo(&info));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_GetSlotList(CK_FALSE, NULL, &count));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &s));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_CloseSession(s));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_CloseAllSessions(0));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_Logout(s));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_FindObjectsFinal(s));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_DestroyObject(s, object));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_DigestInit(s, &mechanism));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_SignInit(s, &mechanism, object));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_GenerateRandom(s, &byte, 1));
}

static CK_RV create_mutex(void **mutex)
{
    *mutex = NULL;
    return CKR_OK;
}

static CK_RV mutex_call(void *mutex)
{
    (void)mutex;
    return CKR_OK;
}

static void initialize(void)
{
    char bad[] = "colour=red";
    char good[] = "log=off";
    const struct {
        const char *name;
        CK_C_INITIALIZE_ARGS args;
        CK_RV want;
        bool softhsm;
    } rows[] = {
        {"nothing", {.flags = 0}, CKR_OK, true},
        {"system locking", {.flags = CKF_OS_LOCKING_OK}, CKR_OK, true},
        {"no threads",
         {.flags = CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS},
         CKR_OK,
         true},
        {"both",
         {create_mutex, mutex_call, mutex_call, mutex_call, CKF_OS_LOCKING_OK, NULL},
         CKR_OK,
         true},
        {"callbacks only",
         {create_mutex, mutex_call, mutex_call, mutex_call, 0, NULL},
         CKR_CANT_LOCK,
         false}, /* SoftHSM would use them */
        {"some callbacks",
         {create_mutex, mutex_call, NULL, mutex_call, CKF_OS_LOCKING_OK, NULL},
         CKR_ARGUMENTS_BAD,
         true},
        {"unknown word", {.flags = CKF_OS_LOCKING_OK, .pReserved = bad}, CKR_ARGUMENTS_BAD, true},
        {"known word", {.flags = CKF_OS_LOCKING_OK, .pReserved = good}, CKR_OK, false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_C_INITIALIZE_ARGS args = rows[i].args;
        CK_RV rv = CKR_OK;

        if (m.ours || rows[i].softhsm) {
            rv = m.f->C_Initialize(&args);
            (void)UNIT_CHECK(rows[i].name, rv == rows[i].want);
            if (rv == CKR_OK) {
                module_stop();
            }
        }
    }
    OK(m.f->C_Initialize(NULL));
    GIVES(CKR_CRYPTOKI_ALREADY_INITIALIZED, m.f->C_Initialize(NULL));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_Finalize(good));
    module_stop();
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, m.f->C_Finalize(NULL));
}

/* ---- the library, slots, tokens -------------------------------------------------------------- */

/* No NUL in a field that is padded with blanks. */
static bool is_padded(const CK_UTF8CHAR *field, size_t size)
{
    return memchr(field, '\0', size) == NULL;
}

static void info(void)
{
    CK_INFO library;

    module_start();
    OK(m.f->C_GetInfo(&library));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetInfo(NULL));
    (void)UNIT_CHECK("version", library.cryptokiVersion.major >= 2);
    (void)UNIT_CHECK("padded", is_padded(BYTES(library.manufacturerID)));
    (void)UNIT_CHECK("padded", is_padded(BYTES(library.libraryDescription)));
    (void)UNIT_CHECK("flags", library.flags == 0);
    module_stop();
}

static void slots(void)
{
    CK_SLOT_ID ids[64];
    CK_ULONG count = 0;
    CK_ULONG present = 0;
    CK_SLOT_INFO slot;

    module_start();
    OK(m.f->C_GetSlotList(CK_FALSE, NULL, &count));
    OK(m.f->C_GetSlotList(CK_TRUE, NULL, &present));
    (void)UNIT_CHECK("some", count >= present && present > 0 && count <= 64);
    count = 0;
    GIVES(CKR_BUFFER_TOO_SMALL, m.f->C_GetSlotList(CK_TRUE, ids, &count));
    (void)UNIT_CHECK("the length comes with it", count == present);
    OK(m.f->C_GetSlotList(CK_TRUE, ids, &count));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetSlotList(CK_TRUE, ids, NULL));
    OK(m.f->C_GetSlotInfo(ids[0], &slot));
    (void)UNIT_CHECK("present", (slot.flags & CKF_TOKEN_PRESENT) != 0);
    (void)UNIT_CHECK("padded", is_padded(BYTES(slot.slotDescription)));
    GIVES(CKR_SLOT_ID_INVALID, m.f->C_GetSlotInfo(999999999, &slot));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetSlotInfo(ids[0], NULL));
    GIVES(CKR_SLOT_ID_INVALID, m.f->C_CloseAllSessions(999999999));
    module_stop();
}

static void token(void)
{
    CK_TOKEN_INFO t;
    CK_SLOT_ID id = 0;

    module_start();
    id = module_slot();
    OK(m.f->C_GetTokenInfo(id, &t));
    (void)UNIT_CHECK("label", is_padded(BYTES(t.label)));
    (void)UNIT_CHECK("manufacturer", is_padded(BYTES(t.manufacturerID)));
    (void)UNIT_CHECK("model", is_padded(BYTES(t.model)));
    (void)UNIT_CHECK("serial", is_padded(BYTES(t.serialNumber)) && t.serialNumber[0] != ' ');
    (void)UNIT_CHECK("initialised", (t.flags & CKF_TOKEN_INITIALIZED) != 0);
    (void)UNIT_CHECK("generator", (t.flags & CKF_RNG) != 0);
    (void)UNIT_CHECK("login", (t.flags & CKF_LOGIN_REQUIRED) != 0);
    (void)UNIT_CHECK("PIN", (t.flags & CKF_USER_PIN_INITIALIZED) != 0);
    (void)UNIT_CHECK("locked", (t.flags & CKF_USER_PIN_LOCKED) == 0);
    (void)UNIT_CHECK("sessions", t.ulMaxSessionCount == CK_EFFECTIVELY_INFINITE);
    GIVES(CKR_SLOT_ID_INVALID, m.f->C_GetTokenInfo(999999999, &t));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetTokenInfo(id, NULL));
    module_stop();
}

static void stable_ids(void)
{
    CK_SLOT_ID first = 0;

    module_start();
    first = module_slot();
    module_stop();
    for (int i = 0; i < 3; i++) {
        module_start();
        (void)UNIT_CHECK("the same", module_slot() == first);
        module_stop();
    }
}

/* Hosts that remember the slot do not ask for the list first. */
static void slot_without_list(void)
{
    CK_SLOT_ID id = 0;
    CK_SESSION_HANDLE s = 0;

    module_start();
    id = module_slot();
    module_stop();
    module_start();
    OK(m.f->C_OpenSession(id, CKF_SERIAL_SESSION, NULL, NULL, &s));
    module_stop();
}

static void mechanisms(void)
{
    CK_MECHANISM_TYPE list[512];
    CK_MECHANISM_INFO about;
    CK_ULONG count = 0;
    CK_ULONG all = 0;
    CK_SLOT_ID id = 0;

    module_start();
    id = module_slot();
    OK(m.f->C_GetMechanismList(id, NULL, &all));
    (void)UNIT_CHECK("many", all > 20 && all < 512);
    count = 1;
    GIVES(CKR_BUFFER_TOO_SMALL, m.f->C_GetMechanismList(id, list, &count));
    (void)UNIT_CHECK("the length comes with it", count == all);
    OK(m.f->C_GetMechanismList(id, list, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        (void)UNIT_CHECK("info", m.f->C_GetMechanismInfo(id, list[i], &about) == CKR_OK);
        (void)UNIT_CHECK("flags", about.flags != 0);
        for (CK_ULONG k = 0; k < i; k++) {
            (void)UNIT_CHECK("once", list[i] != list[k]);
        }
    }
    GIVES(CKR_MECHANISM_INVALID, m.f->C_GetMechanismInfo(id, 0x7fffffff, &about));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetMechanismInfo(id, list[0], NULL));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetMechanismList(id, NULL, NULL));
    GIVES(CKR_SLOT_ID_INVALID, m.f->C_GetMechanismList(999999999, NULL, &count));
    module_stop();
}

static void events(void)
{
    CK_SLOT_ID id = 0;

    module_start();
    GIVES(CKR_NO_EVENT, m.f->C_WaitForSlotEvent(CKF_DONT_BLOCK, &id, NULL));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL));
    GIVES(CKR_FUNCTION_NOT_SUPPORTED, m.f->C_WaitForSlotEvent(0, &id, NULL));
    module_stop();
}

/* The token is managed elsewhere. */
static void management(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_UTF8CHAR label[32] = "x                              ";

    module_start();
    GIVES(CKR_FUNCTION_NOT_SUPPORTED, m.f->C_InitToken(module_slot(), bytes_of("1"), 1, label));
    s = module_open(CKF_RW_SESSION);
    GIVES(CKR_USER_NOT_LOGGED_IN, m.f->C_InitPIN(s, bytes_of("1"), 1));
    GIVES(CKR_FUNCTION_NOT_SUPPORTED, m.f->C_SetPIN(s, bytes_of("1"), 1, bytes_of("2"), 1));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_SetPIN(s, NULL, 0, NULL, 0));
    OK(m.f->C_CloseSession(s));
    s = module_open(0);
    GIVES(CKR_SESSION_READ_ONLY, m.f->C_SetPIN(s, bytes_of("1"), 1, bytes_of("2"), 1));
    module_stop();
}

const struct module_test module_info_tests[] = {
    {"lists", lists, NULL},
    {"interfaces", interfaces, "2.6.1 has no 3.0"},
    {"not-initialized", not_initialized, NULL},
    {"initialize", initialize, NULL},
    {"info", info, NULL},
    {"slots", slots, NULL},
    {"token", token, NULL},
    {"stable-ids", stable_ids, NULL},
    {"slot-without-list", slot_without_list, NULL},
    {"mechanisms", mechanisms, NULL},
    {"events", events, "it watches for no events and answers otherwise"},
    {"management", management, "its tokens are its own to manage"},
    {NULL, NULL, NULL},
};
