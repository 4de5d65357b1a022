/* SPDX-License-Identifier: Apache-2.0 */
/* The library, its slots and tokens (PKCS#11 3.0, 5.4 and 5.5), and what all entry*.c share. */
#include "pkcs11/entry.h"

#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/mech.h"
#include "pkcs11/core/store.h"

/* ---- shared ---------------------------------------------------------------------------------- */

static CK_RV begin(struct kms_entry *entry, CK_SESSION_HANDLE session, bool shared)
{
    CK_RV rv = kms_library_enter();

    *entry = (struct kms_entry){.shared = shared};
    if (rv != CKR_OK) {
        return rv;
    }
    rv = shared ? kms_session_share(session, &entry->session)
                : kms_session_take(session, &entry->session);
    if (rv != CKR_OK) {
        kms_library_leave();
    }
    return rv;
}

CK_RV kms_entry_take(struct kms_entry *entry, CK_SESSION_HANDLE session)
{
    return begin(entry, session, false);
}

CK_RV kms_entry_share(struct kms_entry *entry, CK_SESSION_HANDLE session)
{
    return begin(entry, session, true);
}

CK_RV kms_entry_object(struct kms_entry *entry, CK_OBJECT_HANDLE handle, CK_RV invalid,
                       struct kms_object **ret_object)
{
    const size_t at = entry->object[0] == NULL ? 0 : 1;
    CK_RV rv = kms_store_get(entry->session->slot, handle, &entry->object[at]);

    if (rv != CKR_OK) {
        return rv == CKR_OBJECT_HANDLE_INVALID ? invalid : rv;
    }
    *ret_object = entry->object[at];
    return CKR_OK;
}

CK_RV kms_entry_end(struct kms_entry *entry, CK_RV rv)
{
    kms_object_unref(entry->object[0]);
    kms_object_unref(entry->object[1]);
    if (entry->shared) {
        kms_session_unref(entry->session);
    } else {
        kms_session_give(entry->session);
    }
    kms_library_leave();
    return rv;
}

/* ---- the library ----------------------------------------------------------------------------- */

CK_RV C_Initialize(void *args)
{
    return kms_library_initialize(args);
}

CK_RV C_Finalize(void *reserved)
{
    return reserved != NULL ? CKR_ARGUMENTS_BAD : kms_library_finalize();
}

static void pad(CK_UTF8CHAR *field, size_t size, const char *text)
{
    memset(field, ' ', size);
    memcpy(field, text, strlen(text));
}

CK_RV C_GetInfo(CK_INFO_PTR info)
{
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    if (info == NULL) {
        rv = CKR_ARGUMENTS_BAD;
    } else {
        memset(info, 0, sizeof(*info));
        info->cryptokiVersion = (CK_VERSION){3, 0};
        info->libraryVersion = (CK_VERSION){0, 1};
        pad(info->manufacturerID, sizeof(info->manufacturerID), "kmsbridge");
        pad(info->libraryDescription, sizeof(info->libraryDescription), "Key services and HSMs");
    }
    kms_library_leave();
    return rv;
}

/* ---- slots ----------------------------------------------------------------------------------- */

static CK_RV list_slots(CK_BBOOL present, CK_SLOT_ID_PTR ids, CK_ULONG_PTR count)
{
    struct kms_slot **slots = NULL;
    size_t known = 0;
    CK_ULONG found = 0;
    /* 5.5.1: the list may change only where its length is asked for */
    CK_RV rv = kms_library_slots(ids == NULL, &slots, &known);

    for (size_t i = 0; i < known; i++) {
        if (!present || kms_slot_is_present(slots[i])) {
            if (ids != NULL && found < *count) {
                ids[found] = slots[i]->id;
            }
            found++;
        }
    }
    free(slots);
    if (rv == CKR_OK) {
        rv = ids != NULL && found > *count ? CKR_BUFFER_TOO_SMALL : CKR_OK;
        *count = found;
    }
    return rv;
}

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR ids, CK_ULONG_PTR count)
{
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = count == NULL ? CKR_ARGUMENTS_BAD : list_slots(present, ids, count);
    kms_library_leave();
    return rv;
}

CK_RV C_GetSlotInfo(CK_SLOT_ID id, CK_SLOT_INFO_PTR info)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = info == NULL ? CKR_ARGUMENTS_BAD : kms_library_slot(id, &slot);
    if (rv == CKR_OK) {
        kms_slot_info(slot, info);
    }
    kms_library_leave();
    return rv;
}

/* The slot of a function that wants the token in it. */
static CK_RV token_slot(CK_SLOT_ID id, struct kms_slot **ret_slot)
{
    CK_RV rv = kms_library_slot(id, ret_slot);

    return rv == CKR_OK && !kms_slot_is_present(*ret_slot) ? CKR_TOKEN_NOT_PRESENT : rv;
}

CK_RV C_GetTokenInfo(CK_SLOT_ID id, CK_TOKEN_INFO_PTR info)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = info == NULL ? CKR_ARGUMENTS_BAD : token_slot(id, &slot);
    if (rv == CKR_OK) {
        kms_slot_token_info(slot, info);
    }
    kms_library_leave();
    return rv;
}

CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved)
{
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    if (slot == NULL || reserved != NULL) {
        rv = CKR_ARGUMENTS_BAD;
    } else {
        rv = (flags & CKF_DONT_BLOCK) != 0 ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
    }
    kms_library_leave();
    return rv;
}

CK_RV C_GetMechanismList(CK_SLOT_ID id, CK_MECHANISM_TYPE_PTR list, CK_ULONG_PTR count)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = count == NULL ? CKR_ARGUMENTS_BAD : token_slot(id, &slot);
    if (rv == CKR_OK) {
        rv = kms_mech_list(slot, list, count);
    }
    kms_library_leave();
    return rv;
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID id, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    rv = info == NULL ? CKR_ARGUMENTS_BAD : token_slot(id, &slot);
    if (rv == CKR_OK) {
        rv = kms_mech_info(slot, type, info);
    }
    kms_library_leave();
    return rv;
}

/* ---- what is done where the token is managed, not here --------------------------------------- */

CK_RV C_InitToken(CK_SLOT_ID id, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR label)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_enter();

    (void)pin_len;
    if (rv != CKR_OK) {
        return rv;
    }
    rv = pin == NULL || label == NULL ? CKR_ARGUMENTS_BAD : token_slot(id, &slot);
    kms_library_leave();
    return rv == CKR_OK ? CKR_FUNCTION_NOT_SUPPORTED : rv;
}

/* 5.5.8: only in the security officer's sessions, and there are none. */
CK_RV C_InitPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    (void)pin;
    (void)pin_len;
    return rv != CKR_OK ? rv : kms_entry_end(&entry, CKR_USER_NOT_LOGGED_IN);
}

CK_RV C_SetPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR old_pin, CK_ULONG old_len,
               CK_UTF8CHAR_PTR new_pin, CK_ULONG new_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    (void)old_len;
    (void)new_len;
    if (rv != CKR_OK) {
        return rv;
    }
    if (old_pin == NULL || new_pin == NULL) {
        rv = CKR_ARGUMENTS_BAD;
    } else {
        rv = entry.session->rw ? CKR_FUNCTION_NOT_SUPPORTED : CKR_SESSION_READ_ONLY;
    }
    return kms_entry_end(&entry, rv);
}
