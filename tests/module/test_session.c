/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and login. */
#include "tests/module/module.h"

static CK_STATE state_of(CK_SESSION_HANDLE s)
{
    CK_SESSION_INFO info = {.state = 99};

    OK(m.f->C_GetSessionInfo(s, &info));
    return info.state;
}

static void open_and_close(void)
{
    CK_SESSION_HANDLE s[3];
    CK_SESSION_HANDLE none = 0;
    CK_SESSION_INFO info;
    CK_TOKEN_INFO token;
    CK_SLOT_ID slot = 0;

    module_start();
    slot = module_slot();
    GIVES(CKR_SESSION_PARALLEL_NOT_SUPPORTED, m.f->C_OpenSession(slot, 0, NULL, NULL, &none));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, NULL));
    GIVES(CKR_SLOT_ID_INVALID,
          m.f->C_OpenSession(999999999, CKF_SERIAL_SESSION, NULL, NULL, &none));
    s[0] = module_open(0);
    s[1] = module_open(CKF_RW_SESSION);
    s[2] = module_open(CKF_RW_SESSION);
    (void)UNIT_CHECK("different", s[0] != s[1] && s[1] != s[2] && s[0] != s[2] && s[0] != 0);
    OK(m.f->C_GetSessionInfo(s[0], &info));
    (void)UNIT_CHECK("flags", info.flags == CKF_SERIAL_SESSION);
    (void)UNIT_CHECK("slot", info.slotID == slot);
    (void)UNIT_CHECK("read-only", info.state == CKS_RO_PUBLIC_SESSION);
    (void)UNIT_CHECK("read-write", state_of(s[1]) == CKS_RW_PUBLIC_SESSION);
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetSessionInfo(s[0], NULL));
    OK(m.f->C_GetTokenInfo(slot, &token));
    if (m.ours) { /* SoftHSM does not count */
        (void)UNIT_CHECK("sessions", token.ulSessionCount == 3);
        (void)UNIT_CHECK("read-write ones", token.ulRwSessionCount == 2);
    }
    OK(m.f->C_CloseSession(s[1]));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_CloseSession(s[1]));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_GetSessionInfo(s[1], &info));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_CloseSession(0));
    OK(m.f->C_CloseAllSessions(slot));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_GetSessionInfo(s[0], &info));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_GetSessionInfo(s[2], &info));
    OK(m.f->C_CloseAllSessions(slot));
    module_stop();
}

static void many(void)
{
    enum { MANY = 3000 };
    static CK_SESSION_HANDLE s[MANY];
    const CK_FLAGS flags = CKF_SERIAL_SESSION;
    CK_SLOT_ID slot = 0;
    bool good = true;

    module_start();
    slot = module_slot();
    for (size_t i = 0; i < MANY; i++) {
        good = good && m.f->C_OpenSession(slot, flags, NULL, NULL, &s[i]) == CKR_OK;
    }
    (void)UNIT_CHECK("opened", good);
    for (size_t i = 0; i < MANY; i += 2) {
        good = good && m.f->C_CloseSession(s[i]) == CKR_OK;
    }
    for (size_t i = 0; i < MANY; i++) {
        CK_SESSION_INFO info;
        const CK_RV want = i % 2 == 0 ? CKR_SESSION_HANDLE_INVALID : CKR_OK;

        good = good && m.f->C_GetSessionInfo(s[i], &info) == want;
    }
    (void)UNIT_CHECK("every other one", good);
    module_stop();
}

/* The login is the token's: every session has it, and the last one that closes ends it. */
static void login(void)
{
    CK_SESSION_HANDLE a = 0;
    CK_SESSION_HANDLE b = 0;
    const CK_ULONG len = strlen(m.pin);

    module_start();
    a = module_open(0);
    b = module_open(CKF_RW_SESSION);
    if (m.ours) { /* SoftHSM does not mind */
        GIVES(CKR_USER_NOT_LOGGED_IN, m.f->C_Logout(a));
    }
    OK(m.f->C_Login(a, CKU_USER, bytes_of(m.pin), len));
    (void)UNIT_CHECK("a", state_of(a) == CKS_RO_USER_FUNCTIONS);
    (void)UNIT_CHECK("b", state_of(b) == CKS_RW_USER_FUNCTIONS);
    GIVES(CKR_USER_ALREADY_LOGGED_IN, m.f->C_Login(b, CKU_USER, bytes_of(m.pin), len));
    OK(m.f->C_Logout(b));
    (void)UNIT_CHECK("a, out", state_of(a) == CKS_RO_PUBLIC_SESSION);
    OK(m.f->C_Login(b, CKU_USER, bytes_of(m.pin), len));
    OK(m.f->C_CloseSession(a));
    (void)UNIT_CHECK("still", state_of(b) == CKS_RW_USER_FUNCTIONS);
    OK(m.f->C_CloseSession(b));
    a = module_open(0);
    (void)UNIT_CHECK("gone with the last", state_of(a) == CKS_RO_PUBLIC_SESSION);
    OK(m.f->C_Login(a, CKU_USER, bytes_of(m.pin), len));
    OK(m.f->C_CloseAllSessions(module_slot()));
    a = module_open(0);
    (void)UNIT_CHECK("gone with all", state_of(a) == CKS_RO_PUBLIC_SESSION);
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_Login(0, CKU_USER, bytes_of(m.pin), len));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_Logout(0));
    module_stop();
}

static void wrong_pin(void)
{
    CK_SESSION_HANDLE s = 0;
    char longest[1024];

    module_start();
    s = module_open(0);
    memset(longest, '7', sizeof(longest));
    GIVES(CKR_PIN_INCORRECT, m.f->C_Login(s, CKU_USER, bytes_of("wrong"), 5));
    GIVES(CKR_PIN_INCORRECT, m.f->C_Login(s, CKU_USER, bytes_of(longest), sizeof(longest)));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_Login(s, CKU_USER, NULL, 4));
    (void)UNIT_CHECK("still out", state_of(s) == CKS_RO_PUBLIC_SESSION);
    GIVES(CKR_USER_TYPE_INVALID, m.f->C_Login(s, 77, bytes_of(m.pin), strlen(m.pin)));
    OK(m.f->C_Login(s, CKU_USER, bytes_of(m.pin), strlen(m.pin)));
    module_stop();
}

static void other_users(void)
{
    CK_SESSION_HANDLE s = 0;
    const CK_ULONG len = strlen(m.pin);

    module_start();
    s = module_open(CKF_RW_SESSION);
    GIVES(CKR_USER_TYPE_INVALID, m.f->C_Login(s, CKU_SO, bytes_of(m.pin), len));
    GIVES(CKR_OPERATION_NOT_INITIALIZED,
          m.f->C_Login(s, CKU_CONTEXT_SPECIFIC, bytes_of(m.pin), len));
    OK(m.f3->C_LoginUser(s, CKU_USER, bytes_of(m.pin), len, NULL, 0));
    GIVES(CKR_USER_ALREADY_LOGGED_IN,
          m.f3->C_LoginUser(s, CKU_USER, bytes_of(m.pin), len, bytes_of("me"), 2));
    GIVES(CKR_ARGUMENTS_BAD, m.f3->C_LoginUser(s, CKU_USER, bytes_of(m.pin), len, NULL, 2));
    module_stop();
}

/* Private objects are not there without a login. */
static void private_objects(void)
{
    CK_OBJECT_CLASS private = CKO_PRIVATE_KEY;
    CK_OBJECT_CLASS public = CKO_PUBLIC_KEY;
    CK_ATTRIBUTE hidden = {CKA_CLASS, &private, sizeof(private)};
    CK_ATTRIBUTE shown = {CKA_CLASS, &public, sizeof(public)};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE other = 0;
    CK_ULONG size = 0;

    module_start();
    s = module_open(0);
    (void)UNIT_CHECK("hidden", module_find(s, &hidden, 1, &key) == 0);
    (void)UNIT_CHECK("shown", module_find(s, &shown, 1, &other) == 2);
    OK(m.f->C_Login(s, CKU_USER, bytes_of(m.pin), strlen(m.pin)));
    (void)UNIT_CHECK("there", module_find(s, &hidden, 1, &key) == 2);
    OK(m.f->C_GetObjectSize(s, key, &size));
    OK(m.f->C_Logout(s));
    GIVES(CKR_OBJECT_HANDLE_INVALID, m.f->C_GetObjectSize(s, key, &size));
    (void)UNIT_CHECK("hidden again", module_find(s, &hidden, 1, &key) == 0);
    OK(m.f->C_GetObjectSize(s, other, &size));
    module_stop();
}

/* They go with their session, and with nobody else's. */
static void session_objects(void)
{
    CK_SESSION_HANDLE a = 0;
    CK_SESSION_HANDLE b = 0;
    CK_OBJECT_HANDLE of_a = 0;
    CK_OBJECT_HANDLE of_b = 0;
    CK_ULONG size = 0;

    module_start();
    a = module_open_logged_in(0);
    b = module_open(0);
    of_a = module_session_aes(a);
    of_b = module_session_aes(b);
    (void)UNIT_CHECK("different", of_a != of_b);
    OK(m.f->C_GetObjectSize(b, of_a, &size));
    OK(m.f->C_CloseSession(a));
    GIVES(CKR_OBJECT_HANDLE_INVALID, m.f->C_GetObjectSize(b, of_a, &size));
    OK(m.f->C_GetObjectSize(b, of_b, &size));
    OK(m.f->C_DestroyObject(b, of_b));
    GIVES(CKR_OBJECT_HANDLE_INVALID, m.f->C_DestroyObject(b, of_b));
    module_stop();
}

static void operation_state(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    CK_BYTE state[1024];
    CK_ULONG len = sizeof(state);

    module_start();
    s = module_open(0);
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_GetOperationState(s, state, &len));
    OK(m.f->C_DigestInit(s, &sha));
    GIVES(CKR_STATE_UNSAVEABLE, m.f->C_GetOperationState(s, state, &len));
    GIVES(CKR_SAVED_STATE_INVALID, m.f->C_SetOperationState(s, state, 4, 0, 0));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_SetOperationState(s, NULL, 4, 0, 0));
    module_stop();
}

static void cancel(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    CK_BYTE byte = 1;
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;

    module_start();
    s = module_open(0);
    OK(m.f->C_DigestInit(s, &sha));
    OK(m.f->C_FindObjectsInit(s, NULL, 0));
    OK(m.f3->C_SessionCancel(s, CKF_DIGEST));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_DigestUpdate(s, &byte, 1));
    OK(m.f->C_FindObjects(s, &found, 1, &count));
    OK(m.f3->C_SessionCancel(s, CKF_FIND_OBJECTS));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_FindObjects(s, &found, 1, &count));
    OK(m.f3->C_SessionCancel(s, CKF_FIND_OBJECTS | CKF_SIGN));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f3->C_SessionCancel(0, CKF_SIGN));
    module_stop();
}

static void legacy(void)
{
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open(0);
    GIVES(CKR_FUNCTION_NOT_PARALLEL, m.f->C_GetFunctionStatus(s));
    GIVES(CKR_FUNCTION_NOT_PARALLEL, m.f->C_CancelFunction(s));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_CancelFunction(0));
    module_stop();
}

const struct module_test module_session_tests[] = {
    {"open-and-close", open_and_close, NULL},
    {"many-sessions", many, NULL},
    {"login", login, NULL},
    {"wrong-pin", wrong_pin, NULL},
    {"other-users", other_users, "its security officer can log in; it has no 3.0"},
    {"private-objects", private_objects, NULL},
    {"session-objects", session_objects, NULL},
    {"operation-state", operation_state, "it does not support it"},
    {"cancel", cancel, "it has no 3.0"},
    {"legacy", legacy, NULL},
    {NULL, NULL, NULL},
};
