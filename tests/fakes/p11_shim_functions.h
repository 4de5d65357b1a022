/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of PKCS#11 2.40, as tables: each row is FN(name, parameters, arguments).
 *
 * PLAIN rows are forwarded as they are; MECH_INIT rows name a mechanism, which the shim may hide;
 * OWN rows (name only) are written out in p11_shim.c because a knob of the control file bends them.
 */
#ifndef KMSBRIDGE_TESTS_FAKES_P11_SHIM_FUNCTIONS_H
#define KMSBRIDGE_TESTS_FAKES_P11_SHIM_FUNCTIONS_H

/* clang-format off */
#define P11_SHIM_PLAIN(FN) \
    FN(C_GetInfo, (CK_INFO_PTR info), (info)) \
    FN(C_GetSlotList, (CK_BBOOL token_present, CK_SLOT_ID_PTR slot_list, CK_ULONG_PTR count), \
       (token_present, slot_list, count)) \
    FN(C_GetSlotInfo, (CK_SLOT_ID slot_id, CK_SLOT_INFO_PTR info), (slot_id, info)) \
    FN(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved), \
       (flags, slot, reserved)) \
    FN(C_InitToken, (CK_SLOT_ID slot_id, CK_BYTE_PTR pin, CK_ULONG pin_len, CK_BYTE_PTR label), \
       (slot_id, pin, pin_len, label)) \
    FN(C_InitPIN, (CK_SESSION_HANDLE session, CK_BYTE_PTR pin, CK_ULONG pin_len), \
       (session, pin, pin_len)) \
    FN(C_SetPIN, (CK_SESSION_HANDLE session, CK_BYTE_PTR old_pin, CK_ULONG old_len, \
                  CK_BYTE_PTR new_pin, CK_ULONG new_len), \
       (session, old_pin, old_len, new_pin, new_len)) \
    FN(C_OpenSession, (CK_SLOT_ID slot_id, CK_FLAGS flags, CK_VOID_PTR application, \
                       CK_NOTIFY notify, CK_SESSION_HANDLE_PTR session), \
       (slot_id, flags, application, notify, session)) \
    FN(C_CloseSession, (CK_SESSION_HANDLE session), (session)) \
    FN(C_CloseAllSessions, (CK_SLOT_ID slot_id), (slot_id)) \
    FN(C_GetOperationState, (CK_SESSION_HANDLE session, CK_BYTE_PTR operation_state, \
                             CK_ULONG_PTR operation_state_len), \
       (session, operation_state, operation_state_len)) \
    FN(C_SetOperationState, (CK_SESSION_HANDLE session, CK_BYTE_PTR operation_state, \
                             CK_ULONG operation_state_len, CK_OBJECT_HANDLE encryption_key, \
                             CK_OBJECT_HANDLE authentication_key), \
       (session, operation_state, operation_state_len, encryption_key, authentication_key)) \
    FN(C_Logout, (CK_SESSION_HANDLE session), (session)) \
    FN(C_CreateObject, (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR templ, CK_ULONG count, \
                        CK_OBJECT_HANDLE_PTR object), \
       (session, templ, count, object)) \
    FN(C_CopyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR templ, \
                      CK_ULONG count, CK_OBJECT_HANDLE_PTR new_object), \
       (session, object, templ, count, new_object)) \
    FN(C_GetObjectSize, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG_PTR size), \
       (session, object, size)) \
    FN(C_GetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, \
                             CK_ATTRIBUTE_PTR templ, CK_ULONG count), \
       (session, object, templ, count)) \
    FN(C_SetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, \
                             CK_ATTRIBUTE_PTR templ, CK_ULONG count), \
       (session, object, templ, count)) \
    FN(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR templ, CK_ULONG count), \
       (session, templ, count)) \
    FN(C_FindObjectsFinal, (CK_SESSION_HANDLE session), (session)) \
    FN(C_EncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, \
                         CK_BYTE_PTR encrypted_part, CK_ULONG_PTR encrypted_part_len), \
       (session, part, part_len, encrypted_part, encrypted_part_len)) \
    FN(C_EncryptFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR last_encrypted_part, \
                        CK_ULONG_PTR last_encrypted_part_len), \
       (session, last_encrypted_part, last_encrypted_part_len)) \
    FN(C_DecryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted_part, \
                         CK_ULONG encrypted_part_len, CK_BYTE_PTR part, CK_ULONG_PTR part_len), \
       (session, encrypted_part, encrypted_part_len, part, part_len)) \
    FN(C_DecryptFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR last_part, \
                        CK_ULONG_PTR last_part_len), \
       (session, last_part, last_part_len)) \
    FN(C_Digest, (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, \
                  CK_BYTE_PTR digest, CK_ULONG_PTR digest_len), \
       (session, data, data_len, digest, digest_len)) \
    FN(C_DigestUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len), \
       (session, part, part_len)) \
    FN(C_DigestKey, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key), (session, key)) \
    FN(C_DigestFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR digest, CK_ULONG_PTR digest_len), \
       (session, digest, digest_len)) \
    FN(C_SignUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len), \
       (session, part, part_len)) \
    FN(C_SignFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, \
                     CK_ULONG_PTR signature_len), \
       (session, signature, signature_len)) \
    FN(C_SignRecover, (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, \
                       CK_BYTE_PTR signature, CK_ULONG_PTR signature_len), \
       (session, data, data_len, signature, signature_len)) \
    FN(C_Verify, (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, \
                  CK_BYTE_PTR signature, CK_ULONG signature_len), \
       (session, data, data_len, signature, signature_len)) \
    FN(C_VerifyUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len), \
       (session, part, part_len)) \
    FN(C_VerifyFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG signature_len), \
       (session, signature, signature_len)) \
    FN(C_VerifyRecover, (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, \
                         CK_ULONG signature_len, CK_BYTE_PTR data, CK_ULONG_PTR data_len), \
       (session, signature, signature_len, data, data_len)) \
    FN(C_DigestEncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, \
                               CK_BYTE_PTR encrypted_part, CK_ULONG_PTR encrypted_part_len), \
       (session, part, part_len, encrypted_part, encrypted_part_len)) \
    FN(C_DecryptDigestUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted_part, \
                               CK_ULONG encrypted_part_len, CK_BYTE_PTR part, \
                               CK_ULONG_PTR part_len), \
       (session, encrypted_part, encrypted_part_len, part, part_len)) \
    FN(C_SignEncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, \
                             CK_BYTE_PTR encrypted_part, CK_ULONG_PTR encrypted_part_len), \
       (session, part, part_len, encrypted_part, encrypted_part_len)) \
    FN(C_DecryptVerifyUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted_part, \
                               CK_ULONG encrypted_part_len, CK_BYTE_PTR part, \
                               CK_ULONG_PTR part_len), \
       (session, encrypted_part, encrypted_part_len, part, part_len)) \
    FN(C_SeedRandom, (CK_SESSION_HANDLE session, CK_BYTE_PTR seed, CK_ULONG seed_len), \
       (session, seed, seed_len)) \
    FN(C_GetFunctionStatus, (CK_SESSION_HANDLE session), (session)) \
    FN(C_CancelFunction, (CK_SESSION_HANDLE session), (session))

#define P11_SHIM_MECH_INIT(FN) \
    FN(C_DigestInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism), \
       (session, mechanism)) \
    FN(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key), \
       (session, mechanism, key)) \
    FN(C_SignRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                           CK_OBJECT_HANDLE key), \
       (session, mechanism, key)) \
    FN(C_VerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                      CK_OBJECT_HANDLE key), \
       (session, mechanism, key)) \
    FN(C_VerifyRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                             CK_OBJECT_HANDLE key), \
       (session, mechanism, key)) \
    FN(C_GenerateKey, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                       CK_ATTRIBUTE_PTR templ, CK_ULONG count, CK_OBJECT_HANDLE_PTR key), \
       (session, mechanism, templ, count, key)) \
    FN(C_GenerateKeyPair, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                           CK_ATTRIBUTE_PTR public_key_template, \
                           CK_ULONG public_key_attribute_count, \
                           CK_ATTRIBUTE_PTR private_key_template, \
                           CK_ULONG private_key_attribute_count, CK_OBJECT_HANDLE_PTR public_key, \
                           CK_OBJECT_HANDLE_PTR private_key), \
       (session, mechanism, public_key_template, public_key_attribute_count, \
        private_key_template, private_key_attribute_count, public_key, private_key)) \
    FN(C_WrapKey, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                   CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key, CK_BYTE_PTR wrapped_key, \
                   CK_ULONG_PTR wrapped_key_len), \
       (session, mechanism, wrapping_key, key, wrapped_key, wrapped_key_len)) \
    FN(C_UnwrapKey, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                     CK_OBJECT_HANDLE unwrapping_key, CK_BYTE_PTR wrapped_key, \
                     CK_ULONG wrapped_key_len, CK_ATTRIBUTE_PTR templ, CK_ULONG attribute_count, \
                     CK_OBJECT_HANDLE_PTR key), \
       (session, mechanism, unwrapping_key, wrapped_key, wrapped_key_len, templ, attribute_count, \
        key)) \
    FN(C_DeriveKey, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, \
                     CK_OBJECT_HANDLE base_key, CK_ATTRIBUTE_PTR templ, CK_ULONG attribute_count, \
                     CK_OBJECT_HANDLE_PTR key), \
       (session, mechanism, base_key, templ, attribute_count, key))

#define P11_SHIM_OWN(FN) \
    FN(C_Initialize) \
    FN(C_Finalize) \
    FN(C_GetFunctionList) \
    FN(C_GetTokenInfo) \
    FN(C_GetMechanismList) \
    FN(C_GetMechanismInfo) \
    FN(C_GetSessionInfo) \
    FN(C_Login) \
    FN(C_FindObjects) \
    FN(C_DestroyObject) \
    FN(C_EncryptInit) \
    FN(C_Encrypt) \
    FN(C_DecryptInit) \
    FN(C_Decrypt) \
    FN(C_Sign) \
    FN(C_GenerateRandom)
/* clang-format on */

enum p11_shim_function {
#define FN(name, ...) FN_##name,
    P11_SHIM_OWN(FN) P11_SHIM_PLAIN(FN) P11_SHIM_MECH_INIT(FN)
#undef FN
        P11_SHIM_FUNCTIONS
};

#endif
