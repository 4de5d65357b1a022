/* SPDX-License-Identifier: Apache-2.0 */
/* Objects and keys (PKCS#11 3.0, 5.7 and 5.18). */
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/store.h"
#include "pkcs11/entry.h"

/* ---- objects --------------------------------------------------------------------------------- */

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR tmpl, CK_ULONG count,
                     CK_OBJECT_HANDLE_PTR object)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, tmpl == NULL || object == NULL
                                     ? CKR_ARGUMENTS_BAD
                                     : kms_make_object(entry.session, tmpl, count, object));
}

CK_RV C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_PTR tmpl,
                   CK_ULONG count, CK_OBJECT_HANDLE_PTR copy)
{
    struct kms_entry entry;
    struct kms_object *object = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = (tmpl == NULL && count > 0) || copy == NULL
             ? CKR_ARGUMENTS_BAD
             : kms_entry_object(&entry, handle, CKR_OBJECT_HANDLE_INVALID, &object);
    if (rv == CKR_OK) {
        rv = kms_copy_object(entry.session, object, tmpl, count, copy);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle)
{
    struct kms_entry entry;
    struct kms_object *object = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = kms_entry_object(&entry, handle, CKR_OBJECT_HANDLE_INVALID, &object);
    if (rv == CKR_OK) {
        rv = kms_destroy_object(entry.session, object);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ULONG_PTR size)
{
    struct kms_entry entry;
    struct kms_object *object = NULL;
    CK_RV rv = kms_entry_share(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = size == NULL ? CKR_ARGUMENTS_BAD
                      : kms_entry_object(&entry, handle, CKR_OBJECT_HANDLE_INVALID, &object);
    if (rv == CKR_OK) {
        *size = kms_store_size(object);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_PTR tmpl,
                          CK_ULONG count)
{
    struct kms_entry entry;
    struct kms_object *object = NULL;
    CK_RV rv = kms_entry_share(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = tmpl == NULL ? CKR_ARGUMENTS_BAD
                      : kms_entry_object(&entry, handle, CKR_OBJECT_HANDLE_INVALID, &object);
    if (rv == CKR_OK) {
        rv = kms_store_attributes(entry.session->slot, object, tmpl, count);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_PTR tmpl,
                          CK_ULONG count)
{
    struct kms_entry entry;
    struct kms_object *object = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = tmpl == NULL ? CKR_ARGUMENTS_BAD
                      : kms_entry_object(&entry, handle, CKR_OBJECT_HANDLE_INVALID, &object);
    if (rv == CKR_OK) {
        rv = kms_store_set_attributes(entry.session->slot, entry.session, object, tmpl, count);
    }
    return kms_entry_end(&entry, rv);
}

/* ---- searching ------------------------------------------------------------------------------- */

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR tmpl, CK_ULONG count)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, tmpl == NULL && count > 0
                                     ? CKR_ARGUMENTS_BAD
                                     : kms_session_find(entry.session, tmpl, count));
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR objects, CK_ULONG max,
                    CK_ULONG_PTR count)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, (objects == NULL && max > 0) || count == NULL
                                     ? CKR_ARGUMENTS_BAD
                                     : kms_session_find_next(entry.session, objects, max, count));
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, kms_session_find_end(entry.session));
}

/* ---- keys ------------------------------------------------------------------------------------ */

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR tmpl,
                    CK_ULONG count, CK_OBJECT_HANDLE_PTR key)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    return kms_entry_end(&entry, mechanism == NULL || (tmpl == NULL && count > 0) || key == NULL
                                     ? CKR_ARGUMENTS_BAD
                                     : kms_make_key(entry.session, mechanism, tmpl, count, key));
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                        CK_ATTRIBUTE_PTR public_tmpl, CK_ULONG public_count,
                        CK_ATTRIBUTE_PTR private_tmpl, CK_ULONG private_count,
                        CK_OBJECT_HANDLE_PTR public_key, CK_OBJECT_HANDLE_PTR private_key)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    if (mechanism == NULL || public_key == NULL || private_key == NULL ||
        (public_tmpl == NULL && public_count > 0) || (private_tmpl == NULL && private_count > 0)) {
        return kms_entry_end(&entry, CKR_ARGUMENTS_BAD);
    }
    return kms_entry_end(&entry,
                         kms_make_pair(entry.session, mechanism, public_tmpl, public_count,
                                       private_tmpl, private_count, public_key, private_key));
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE handle, CK_BYTE_PTR wrapped,
                CK_ULONG_PTR wrapped_len)
{
    struct kms_entry entry;
    struct kms_object *kek = NULL;
    struct kms_object *key = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = mechanism == NULL || wrapped_len == NULL
             ? CKR_ARGUMENTS_BAD
             : kms_entry_object(&entry, wrapping_key, CKR_WRAPPING_KEY_HANDLE_INVALID, &kek);
    if (rv == CKR_OK) {
        rv = kms_entry_object(&entry, handle, CKR_KEY_HANDLE_INVALID, &key);
    }
    if (rv == CKR_OK) {
        rv = kms_wrap_key(entry.session, mechanism, kek, key, wrapped, wrapped_len);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                  CK_OBJECT_HANDLE unwrapping_key, CK_BYTE_PTR wrapped, CK_ULONG wrapped_len,
                  CK_ATTRIBUTE_PTR tmpl, CK_ULONG count, CK_OBJECT_HANDLE_PTR key)
{
    struct kms_entry entry;
    struct kms_object *kek = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = mechanism == NULL || wrapped == NULL || (tmpl == NULL && count > 0) || key == NULL
             ? CKR_ARGUMENTS_BAD
             : kms_entry_object(&entry, unwrapping_key, CKR_UNWRAPPING_KEY_HANDLE_INVALID, &kek);
    if (rv == CKR_OK) {
        rv = kms_unwrap_key(entry.session, mechanism, kek, wrapped, wrapped_len, tmpl, count, key);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE handle,
                  CK_ATTRIBUTE_PTR tmpl, CK_ULONG count, CK_OBJECT_HANDLE_PTR key)
{
    struct kms_entry entry;
    struct kms_object *base = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = mechanism == NULL || (tmpl == NULL && count > 0) || key == NULL
             ? CKR_ARGUMENTS_BAD
             : kms_entry_object(&entry, handle, CKR_KEY_HANDLE_INVALID, &base);
    if (rv == CKR_OK) {
        rv = kms_derive_key(entry.session, mechanism, base, tmpl, count, key);
    }
    return kms_entry_end(&entry, rv);
}
