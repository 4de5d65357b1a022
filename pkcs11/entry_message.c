/* SPDX-License-Identifier: Apache-2.0 */
/* Messages under one initialisation (PKCS#11 3.0, 5.9, 5.11, 5.14, 5.16). */
#include "pkcs11/core/crypto.h"
#include "pkcs11/entry.h"

static CK_RV init(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_MECHANISM_PTR mechanism,
                  CK_OBJECT_HANDLE handle)
{
    struct kms_entry entry;
    struct kms_object *key = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    if (mechanism != NULL) {
        rv = kms_entry_object(&entry, handle, CKR_KEY_HANDLE_INVALID, &key);
    }
    if (rv == CKR_OK) {
        rv = kms_message_init(entry.session, kind, mechanism, key);
    }
    return kms_entry_end(&entry, rv);
}

static CK_RV crypt(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_VOID_PTR param,
                   CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR in,
                   CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK
               ? rv
               : kms_entry_end(&entry, kms_message_crypt(entry.session, kind, param, param_len, aad,
                                                         aad_len, in, in_len, out, out_len));
}

static CK_RV begin(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_VOID_PTR param,
                   CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv
                        : kms_entry_end(&entry, kms_message_begin(entry.session, kind, param,
                                                                  param_len, aad, aad_len));
}

static CK_RV next(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_VOID_PTR param,
                  CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out,
                  CK_ULONG_PTR out_len, CK_FLAGS flags)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK
               ? rv
               : kms_entry_end(&entry, kms_message_next(entry.session, kind, param, param_len, in,
                                                        in_len, out, out_len, flags));
}

static CK_RV final(CK_SESSION_HANDLE session, enum kms_op_kind kind)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, kms_message_final(entry.session, kind));
}

/* Signing a message in parts: no mechanism of ours does, the whole message is given at once. */
static CK_RV no_parts(CK_SESSION_HANDLE session)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, CKR_FUNCTION_NOT_SUPPORTED);
}

/* ---- encrypting ------------------------------------------------------------------------------ */

CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                           CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_MESSAGE_ENCRYPT, mechanism, key);
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                       CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR plaintext,
                       CK_ULONG plaintext_len, CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len)
{
    return crypt(session, KMS_OPK_MESSAGE_ENCRYPT, param, param_len, aad, aad_len, plaintext,
                 plaintext_len, ciphertext, ciphertext_len);
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                            CK_BYTE_PTR aad, CK_ULONG aad_len)
{
    return begin(session, KMS_OPK_MESSAGE_ENCRYPT, param, param_len, aad, aad_len);
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                           CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR out,
                           CK_ULONG_PTR out_len, CK_FLAGS flags)
{
    return next(session, KMS_OPK_MESSAGE_ENCRYPT, param, param_len, part, part_len, out, out_len,
                flags);
}

CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session)
{
    return final(session, KMS_OPK_MESSAGE_ENCRYPT);
}

/* ---- decrypting ------------------------------------------------------------------------------ */

CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                           CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_MESSAGE_DECRYPT, mechanism, key);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                       CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR ciphertext,
                       CK_ULONG ciphertext_len, CK_BYTE_PTR plaintext, CK_ULONG_PTR plaintext_len)
{
    return crypt(session, KMS_OPK_MESSAGE_DECRYPT, param, param_len, aad, aad_len, ciphertext,
                 ciphertext_len, plaintext, plaintext_len);
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                            CK_BYTE_PTR aad, CK_ULONG aad_len)
{
    return begin(session, KMS_OPK_MESSAGE_DECRYPT, param, param_len, aad, aad_len);
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                           CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR out,
                           CK_ULONG_PTR out_len, CK_FLAGS flags)
{
    return next(session, KMS_OPK_MESSAGE_DECRYPT, param, param_len, part, part_len, out, out_len,
                flags);
}

CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session)
{
    return final(session, KMS_OPK_MESSAGE_DECRYPT);
}

/* ---- signing --------------------------------------------------------------------------------- */

CK_RV C_MessageSignInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_MESSAGE_SIGN, mechanism, key);
}

CK_RV C_SignMessage(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                    CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                    CK_ULONG_PTR signature_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK
               ? rv
               : kms_entry_end(&entry, kms_message_sign(entry.session, param, param_len, data,
                                                        data_len, signature, signature_len));
}

CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len)
{
    (void)param;
    (void)param_len;
    return no_parts(session);
}

CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                        CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                        CK_ULONG_PTR signature_len)
{
    (void)param;
    (void)param_len;
    (void)data;
    (void)data_len;
    (void)signature;
    (void)signature_len;
    return no_parts(session);
}

CK_RV C_MessageSignFinal(CK_SESSION_HANDLE session)
{
    return final(session, KMS_OPK_MESSAGE_SIGN);
}

/* ---- verifying ------------------------------------------------------------------------------- */

CK_RV C_MessageVerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                          CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_MESSAGE_VERIFY, mechanism, key);
}

CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                      CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                      CK_ULONG signature_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK
               ? rv
               : kms_entry_end(&entry, kms_message_verify(entry.session, param, param_len, data,
                                                          data_len, signature, signature_len));
}

CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len)
{
    (void)param;
    (void)param_len;
    return no_parts(session);
}

CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
                          CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                          CK_ULONG signature_len)
{
    (void)param;
    (void)param_len;
    (void)data;
    (void)data_len;
    (void)signature;
    (void)signature_len;
    return no_parts(session);
}

CK_RV C_MessageVerifyFinal(CK_SESSION_HANDLE session)
{
    return final(session, KMS_OPK_MESSAGE_VERIFY);
}
