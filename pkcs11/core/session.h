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
    struct kms_session *next; /* in its shard of the table, under that one's lock */
};

/* The table: in shards, so that calls on different sessions do not wait for each other. */
struct kms_sessions;
#define KMS_SESSIONS_MAX 65536 /* open at once; CKR_SESSION_COUNT above */

struct kms_sessions *kms_sessions_new(void);           /* NULL: no memory */
void kms_sessions_free(struct kms_sessions *sessions); /* closes all; nobody is inside */
CK_RV kms_sessions_open(struct kms_sessions *sessions, struct kms_slot *slot, CK_FLAGS flags,
                        CK_SESSION_HANDLE *ret_handle);
CK_RV kms_sessions_close(struct kms_sessions *sessions, CK_SESSION_HANDLE handle);
void kms_sessions_close_all(struct kms_sessions *sessions, const struct kms_slot *slot);
/* With a reference. CKR_SESSION_HANDLE_INVALID. */
CK_RV kms_sessions_get(struct kms_sessions *sessions, CK_SESSION_HANDLE handle,
                       struct kms_session **ret_session);
void kms_session_unref(struct kms_session *session); /* NULL is fine */

CK_RV kms_session_info(struct kms_session *session, CK_SESSION_INFO *ret_info);
/* C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal; whoever has taken the session. */
CK_RV kms_session_find(struct kms_session *session, const CK_ATTRIBUTE *tmpl, CK_ULONG count);
CK_RV kms_session_find_next(struct kms_session *session, CK_OBJECT_HANDLE *ret_handles,
                            CK_ULONG max, CK_ULONG *ret_count);
CK_RV kms_session_find_end(struct kms_session *session);
CK_RV kms_session_cancel(struct kms_session *session, CK_FLAGS flags); /* C_SessionCancel */
/* C_GetOperationState: nothing of ours can be saved. */
CK_RV kms_session_state(const struct kms_session *session);

/*
 * The functions of 5.15, which run two operations on the same bytes: C_DigestEncryptUpdate and
 * C_SignEncryptUpdate feed @other what is encrypted, the other two what was decrypted.
 */
CK_RV kms_session_dual(struct kms_session *session, enum kms_op_kind crypt, enum kms_op_kind other,
                       CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len);

#endif
