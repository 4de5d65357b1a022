/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypting, decrypting, digests, signatures (PKCS#11 3.0, 5.8, 5.10, 5.12, 5.13, 5.15, 5.17). */
#include "pkcs11/core/crypto.h"
#include "pkcs11/entry.h"

/* ---- one shape for all ----------------------------------------------------------------------- */

/* A NULL @mechanism cancels, and needs no key (3.0, 5.8.1). */
static CK_RV init(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_MECHANISM_PTR mechanism,
                  CK_OBJECT_HANDLE handle)
{
    struct kms_entry entry;
    struct kms_object *key = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    if (mechanism != NULL && kind != KMS_OPK_DIGEST) {
        rv = entry.session->op[kind] != NULL
                 ? CKR_OPERATION_ACTIVE
                 : kms_entry_object(&entry, handle, CKR_KEY_HANDLE_INVALID, &key);
    }
    if (rv == CKR_OK) {
        rv = kms_op_init(entry.session, kind, mechanism, key);
    }
    return kms_entry_end(&entry, rv);
}

static CK_RV once(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_BYTE_PTR in, CK_ULONG in_len,
                  CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK
               ? rv
               : kms_entry_end(&entry, kms_op_once(entry.session, kind, in, in_len, out, out_len));
}

static CK_RV update(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_BYTE_PTR in,
                    CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv
                        : kms_entry_end(
                              &entry, kms_op_update(entry.session, kind, in, in_len, out, out_len));
}

static CK_RV final(CK_SESSION_HANDLE session, enum kms_op_kind kind, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv
                        : kms_entry_end(&entry, kms_op_final(entry.session, kind, out, out_len));
}

static CK_RV verify(CK_SESSION_HANDLE session, bool whole, CK_BYTE_PTR data, CK_ULONG data_len,
                    CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv
                        : kms_entry_end(&entry, kms_op_verify(entry.session, whole, data, data_len,
                                                              signature, signature_len));
}

static CK_RV dual(CK_SESSION_HANDLE session, enum kms_op_kind crypt, enum kms_op_kind other,
                  CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_take(&entry, session);

    return rv != CKR_OK ? rv
                        : kms_entry_end(&entry, kms_session_dual(entry.session, crypt, other, in,
                                                                 in_len, out, out_len));
}

/* Signatures with recovery: no mechanism of ours has them. */
static CK_RV no_recovery(CK_SESSION_HANDLE session)
{
    struct kms_entry entry;
    CK_RV rv = kms_entry_share(&entry, session);

    return rv != CKR_OK ? rv : kms_entry_end(&entry, CKR_FUNCTION_NOT_SUPPORTED);
}

/* ---- encrypting ------------------------------------------------------------------------------ */

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_ENCRYPT, mechanism, key);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR out,
                CK_ULONG_PTR out_len)
{
    return once(session, KMS_OPK_ENCRYPT, data, data_len, out, out_len);
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                      CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return update(session, KMS_OPK_ENCRYPT, part, part_len, out, out_len);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE session, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return final(session, KMS_OPK_ENCRYPT, out, out_len);
}

/* ---- decrypting ------------------------------------------------------------------------------ */

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_DECRYPT, mechanism, key);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR out,
                CK_ULONG_PTR out_len)
{
    return once(session, KMS_OPK_DECRYPT, data, data_len, out, out_len);
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                      CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return update(session, KMS_OPK_DECRYPT, part, part_len, out, out_len);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE session, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return final(session, KMS_OPK_DECRYPT, out, out_len);
}

/* ---- digests --------------------------------------------------------------------------------- */

CK_RV C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism)
{
    return init(session, KMS_OPK_DIGEST, mechanism, CK_INVALID_HANDLE);
}

CK_RV C_Digest(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR digest,
               CK_ULONG_PTR digest_len)
{
    return once(session, KMS_OPK_DIGEST, data, data_len, digest, digest_len);
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len)
{
    return update(session, KMS_OPK_DIGEST, part, part_len, NULL, NULL);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle)
{
    struct kms_entry entry;
    struct kms_object *key = NULL;
    CK_RV rv = kms_entry_take(&entry, session);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = kms_entry_object(&entry, handle, CKR_KEY_HANDLE_INVALID, &key);
    if (rv == CKR_OK) {
        rv = kms_op_digest_key(entry.session, key);
    }
    return kms_entry_end(&entry, rv);
}

CK_RV C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE_PTR digest, CK_ULONG_PTR digest_len)
{
    return final(session, KMS_OPK_DIGEST, digest, digest_len);
}

/* ---- signing --------------------------------------------------------------------------------- */

CK_RV C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_SIGN, mechanism, key);
}

CK_RV C_Sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
             CK_ULONG_PTR signature_len)
{
    return once(session, KMS_OPK_SIGN, data, data_len, signature, signature_len);
}

CK_RV C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len)
{
    return update(session, KMS_OPK_SIGN, part, part_len, NULL, NULL);
}

CK_RV C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len)
{
    return final(session, KMS_OPK_SIGN, signature, signature_len);
}

CK_RV C_SignRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    (void)mechanism;
    (void)key;
    return no_recovery(session);
}

CK_RV C_SignRecover(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len,
                    CK_BYTE_PTR signature, CK_ULONG_PTR signature_len)
{
    (void)data;
    (void)data_len;
    (void)signature;
    (void)signature_len;
    return no_recovery(session);
}

/* ---- verifying ------------------------------------------------------------------------------- */

CK_RV C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    return init(session, KMS_OPK_VERIFY, mechanism, key);
}

CK_RV C_Verify(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len,
               CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    return verify(session, true, data, data_len, signature, signature_len);
}

CK_RV C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len)
{
    return update(session, KMS_OPK_VERIFY, part, part_len, NULL, NULL);
}

CK_RV C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    return verify(session, false, NULL, 0, signature, signature_len);
}

CK_RV C_VerifyRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                          CK_OBJECT_HANDLE key)
{
    (void)mechanism;
    (void)key;
    return no_recovery(session);
}

CK_RV C_VerifyRecover(CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG signature_len,
                      CK_BYTE_PTR data, CK_ULONG_PTR data_len)
{
    (void)signature;
    (void)signature_len;
    (void)data;
    (void)data_len;
    return no_recovery(session);
}

/* ---- two at once ----------------------------------------------------------------------------- */

CK_RV C_DigestEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                            CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return dual(session, KMS_OPK_ENCRYPT, KMS_OPK_DIGEST, part, part_len, out, out_len);
}

CK_RV C_DecryptDigestUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                            CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return dual(session, KMS_OPK_DECRYPT, KMS_OPK_DIGEST, part, part_len, out, out_len);
}

CK_RV C_SignEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                          CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return dual(session, KMS_OPK_ENCRYPT, KMS_OPK_SIGN, part, part_len, out, out_len);
}

CK_RV C_DecryptVerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len,
                            CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    return dual(session, KMS_OPK_DECRYPT, KMS_OPK_VERIFY, part, part_len, out, out_len);
}
