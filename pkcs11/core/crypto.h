/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations of a session, as C_ functions name them. The caller has taken the session and holds a
 * reference on every object; buffers are the host's own pointers, checked here. Each keeps the
 * two-call protocol (5.2): a NULL buffer and CKR_BUFFER_TOO_SMALL end nothing, and what the agent
 * was asked once is kept, not asked again; any other error ends the operation. Where a result was
 * kept (its length was not known before: padding was taken off, or it is SEALED), the next call
 * must be the same one with the same input; another ends the operation with CKR_DATA_INVALID.
 *
 * Session keys and public keys are used here (soft.h), token keys through the agent: one request
 * for one operation; hashing is always done here.
 */
#ifndef KMS_PKCS11_CORE_CRYPTO_H
#define KMS_PKCS11_CORE_CRYPTO_H

#include "pkcs11/core/session.h"

/* Encrypt, decrypt, sign, verify, digest: one shape. A NULL @mechanism cancels (3.0, 5.8.1). @key
 * NULL for digests. CKR_OPERATION_ACTIVE, CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_MECHANISM_INVALID,
 * ... */
CK_RV kms_op_init(struct kms_session *session, enum kms_op_kind kind, const CK_MECHANISM *mechanism,
                  struct kms_object *key);
/* C_Encrypt, C_Decrypt, C_Sign, C_Digest */
CK_RV kms_op_once(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR in,
                  CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len);
/* @out and @out_len NULL for sign, verify, digest */
CK_RV kms_op_update(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR in,
                    CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len);
CK_RV kms_op_final(struct kms_session *session, enum kms_op_kind kind, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len);
CK_RV kms_op_digest_key(struct kms_session *session, struct kms_object *key);
/* C_Verify: @in NULL and @once false for C_VerifyFinal */
CK_RV kms_op_verify(struct kms_session *session, bool once, CK_BYTE_PTR in, CK_ULONG in_len,
                    CK_BYTE_PTR signature, CK_ULONG signature_len);
/* C_SessionCancel with CKF_ENCRYPT, ...; and when a session ends (all flags) */
CK_RV kms_op_cancel(struct kms_session *session, CK_FLAGS flags);

/*
 * Message API (5.9, 5.11, 5.14, 5.16): AEADs with CK_GCM_MESSAGE_PARAMS; sign and verify with the
 * mechanisms of C_Sign. A message that fails ends itself, not the process. Parts are gathered: an
 * AEAD puts out all with the last one. An empty message is done with a NULL buffer too: a host that
 * makes one call only must not take its forged tag for good.
 *
 * kms_message_next() for signatures: @out_len NULL, more parts come; else @out is where the
 * signature goes. For verification: @out NULL, more parts come; else @out is the signature,
 * *@out_len bytes of it. @flags counts for AEADs only.
 */
CK_RV kms_message_init(struct kms_session *session, enum kms_op_kind kind,
                       const CK_MECHANISM *mechanism, struct kms_object *key);
CK_RV kms_message_crypt(struct kms_session *session, enum kms_op_kind kind, void *param,
                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR in,
                        CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len);
CK_RV kms_message_begin(struct kms_session *session, enum kms_op_kind kind, void *param,
                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len);
CK_RV kms_message_next(struct kms_session *session, enum kms_op_kind kind, void *param,
                       CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out,
                       CK_ULONG_PTR out_len, CK_FLAGS flags);
CK_RV kms_message_sign(struct kms_session *session, void *param, CK_ULONG param_len,
                       CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                       CK_ULONG_PTR signature_len);
CK_RV kms_message_verify(struct kms_session *session, void *param, CK_ULONG param_len,
                         CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                         CK_ULONG signature_len);
CK_RV kms_message_final(struct kms_session *session, enum kms_op_kind kind);

/* Objects that operations make. Templates are the host's. CKA_TOKEN true: made by the agent, else
 * here. The log names the attribute that a template is refused for. */
CK_RV kms_make_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                   const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key);
CK_RV kms_make_pair(struct kms_session *session, const CK_MECHANISM *mechanism,
                    const CK_ATTRIBUTE *public_tmpl, CK_ULONG public_count,
                    const CK_ATTRIBUTE *private_tmpl, CK_ULONG private_count,
                    CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private);
CK_RV kms_make_object(struct kms_session *session, const CK_ATTRIBUTE *tmpl, CK_ULONG count,
                      CK_OBJECT_HANDLE *ret_object); /* C_CreateObject */
CK_RV kms_copy_object(struct kms_session *session, struct kms_object *object,
                      const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_object);
/* A token's pair is destroyed by its private key, at the service, and both objects go; its public
 * key and its certificates by themselves: CKR_ACTION_PROHIBITED. */
CK_RV kms_destroy_object(struct kms_session *session, struct kms_object *object);
CK_RV kms_wrap_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                   struct kms_object *kek, struct kms_object *key, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len);
CK_RV kms_unwrap_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                     struct kms_object *kek, CK_BYTE_PTR wrapped, CK_ULONG wrapped_len,
                     const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key);
CK_RV kms_derive_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                     struct kms_object *base, const CK_ATTRIBUTE *tmpl, CK_ULONG count,
                     CK_OBJECT_HANDLE *ret_key);

#endif
