/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions. A call takes its session for its own thread; a second thread that comes meanwhile gets
 * CKR_OPERATION_ACTIVE. Closing marks it dead; it is freed by whoever has it last.
 */
#ifndef KMS_PKCS11_CORE_SESSION_H
#define KMS_PKCS11_CORE_SESSION_H

#include "pkcs11/core/object.h"
#include "pkcs11/core/slot.h"

enum kms_op_kind {
    KMS_OPK_ENCRYPT,
    KMS_OPK_DECRYPT,
    KMS_OPK_SIGN,
    KMS_OPK_VERIFY,
    KMS_OPK_DIGEST,
    KMS_OPK_MESSAGE_ENCRYPT,
    KMS_OPK_MESSAGE_DECRYPT,
    KMS_OPK_MESSAGE_SIGN,
    KMS_OPK_MESSAGE_VERIFY,
    KMS_OPK_COUNT
};

struct kms_operation; /* operation.c's */

struct kms_session {
    atomic_uint refs;
    atomic_bool busy; /* a thread is inside with it */
    atomic_bool dead;
    CK_SESSION_HANDLE handle; /* random start, counted up; never reused */
    struct kms_slot *slot;
    bool rw;
    struct kms_operation *op[KMS_OPK_COUNT]; /* whoever has taken the session */
    bool finding;
    CK_OBJECT_HANDLE *found;
    size_t found_count, found_at;
};

#endif
