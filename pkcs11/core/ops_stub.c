/* SPDX-License-Identifier: Apache-2.0 */
/* For linking, until the operations are all there. */
#include "pkcs11/core/crypto.h"
#define STUB(name, args) __attribute__((weak)) CK_RV name args { return CKR_FUNCTION_NOT_SUPPORTED; }
#pragma GCC diagnostic ignored "-Wunused-parameter"
STUB(kms_message_init, (struct kms_session *session, enum kms_op_kind kind, const CK_MECHANISM *mechanism, struct kms_object *key))
STUB(kms_message_crypt, (struct kms_session *session, enum kms_op_kind kind, void *param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len))
STUB(kms_message_begin, (struct kms_session *session, enum kms_op_kind kind, void *param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len))
STUB(kms_message_next, (struct kms_session *session, enum kms_op_kind kind, void *param, CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len, CK_FLAGS flags))
STUB(kms_message_sign, (struct kms_session *session, void *param, CK_ULONG param_len, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len))
STUB(kms_message_verify, (struct kms_session *session, void *param, CK_ULONG param_len, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len))
STUB(kms_message_final, (struct kms_session *session, enum kms_op_kind kind))
STUB(kms_wrap_key, (struct kms_session *session, const CK_MECHANISM *mechanism, struct kms_object *kek, struct kms_object *key, CK_BYTE_PTR out, CK_ULONG_PTR out_len))
STUB(kms_unwrap_key, (struct kms_session *session, const CK_MECHANISM *mechanism, struct kms_object *kek, CK_BYTE_PTR wrapped, CK_ULONG wrapped_len, const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key))
STUB(kms_derive_key, (struct kms_session *session, const CK_MECHANISM *mechanism, struct kms_object *base, const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key))
