/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions, login, random numbers (PKCS#11 3.0, 5.6, 5.19) and the legacy of 5.20. */
#include "pkcs11/core/crypto.h"
#include "pkcs11/entry.h"

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify,
                    CK_SESSION_HANDLE_PTR session)
{
    CK_RV rv = kms_library_enter();

    (void)application; /* no callback is ever made */
    (void)notify;
    if (rv != CKR_OK) {
        return rv;
    }
    rv = session == NULL ? CKR_ARGUMENTS_BAD : kms_session_open(slot, flags, session);
    kms_library_leave();
    return rv;
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session)
{
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = kms_session_close(session);
    kms_library_leave();
    return rv;
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = kms_session_close_all(slot);
    kms_library_leave();
    return rv;
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO_PTR info)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry,
                         info == NULL ? CKR_ARGUMENTS_BAD : kms_session_info(entry.session, info));
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, kms_session_cancel(entry.session, flags));
}

CK_RV C_GetOperationState(CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG_PTR state_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    (void)state;
    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry,
                         state_len == NULL ? CKR_ARGUMENTS_BAD : kms_session_state(entry.session));
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG state_len,
                          CK_OBJECT_HANDLE encryption_key, CK_OBJECT_HANDLE authentication_key)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    (void)state_len;
    (void)encryption_key;
    (void)authentication_key;
    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, state == NULL ? CKR_ARGUMENTS_BAD : CKR_SAVED_STATE_INVALID);
}

/* ---- login ----------------------------------------------------------------------------------- */

static bool is_operating(const struct kms_session *session)
{
    return kms_session_state(session) == CKR_STATE_UNSAVEABLE;
}

CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry,
                         kms_slot_login(entry.session->slot, user, kms_span_of(pin, pin_len),
                                        is_operating(entry.session)));
}

/* 5.6.9: a token of ours has one user, who has no name. */
CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_CHAR_PTR pin, CK_ULONG pin_len,
                  CK_UTF8CHAR_PTR username, CK_ULONG username_len)
{
    if (username == NULL && username_len != 0) {
        return CKR_ARGUMENTS_BAD;
    }
    return C_Login(session, user, pin, pin_len);
}

CK_RV C_Logout(CK_SESSION_HANDLE session)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, kms_slot_logout(entry.session->slot));
}

/* ---- random numbers -------------------------------------------------------------------------- */

CK_RV C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE_PTR seed, CK_ULONG seed_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, seed == NULL && seed_len > 0 ? CKR_ARGUMENTS_BAD
                                                              : CKR_RANDOM_SEED_NOT_SUPPORTED);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE_PTR bytes, CK_ULONG len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, bytes == NULL ? CKR_ARGUMENTS_BAD
                                               : kms_slot_random(entry.session->slot, bytes, len));
}

/* ---- legacy: nothing runs in parallel -------------------------------------------------------- */

static CK_RV not_parallel(CK_SESSION_HANDLE session)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, CKR_FUNCTION_NOT_PARALLEL);
}

CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE session)
{
    return not_parallel(session);
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE session)
{
    return not_parallel(session);
}
