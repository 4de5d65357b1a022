/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's one global: whether it is initialised, in which process, with which slots and
 * sessions. Every C_ function enters and leaves it.
 *
 * fork(): an atfork child handler only counts up an epoch (and getpid() is compared, for clone());
 * the first entry in the child drops what the parent had (sockets are closed, nothing is sent,
 * memory is left) and answers CKR_CRYPTOKI_NOT_INITIALIZED until C_Initialize.
 * C_Finalize: marks it, waits a bounded time for calls inside, then leaves to them what they use.
 *
 * What a C_Initialize made is one heap object, counted: each call inside holds it, the last to
 * leave frees it. Where libcrypto has been cleaned up already (the host is in exit()), it is left.
 */
#ifndef KMS_PKCS11_CORE_LIBRARY_H
#define KMS_PKCS11_CORE_LIBRARY_H

#include "pkcs11/core/session.h"
#include "pkcs11/core/slot.h"

CK_RV kms_library_initialize(const CK_C_INITIALIZE_ARGS *args); /* no network, no thread */
CK_RV kms_library_finalize(void);

/* CKR_CRYPTOKI_NOT_INITIALIZED. Pairs with kms_library_leave(). Keeps errno, and thread
 * cancellation off, in between. */
CK_RV kms_library_enter(void);
void kms_library_leave(void);

/* The slots; asks the agent when @refresh, or when it never has. An agent that cannot be reached:
 * what was known, else no slots. The array is the caller's to free(); slots live until
 * kms_library_leave(). */
CK_RV kms_library_slots(bool refresh, struct kms_slot ***ret_slots, size_t *ret_count);
CK_RV kms_library_slot(CK_SLOT_ID id, struct kms_slot **ret_slot); /* CKR_SLOT_ID_INVALID */

/* Takes the session for this thread; CKR_SESSION_HANDLE_INVALID, CKR_OPERATION_ACTIVE when another
 * thread is inside with it. Given back with kms_session_give(). */
CK_RV kms_session_take(CK_SESSION_HANDLE handle, struct kms_session **ret_session);
void kms_session_give(struct kms_session *session);
/* Without taking it for this thread, for functions that no operation's state is in: several threads
 * may. Given back with kms_session_unref(). */
CK_RV kms_session_share(CK_SESSION_HANDLE handle, struct kms_session **ret_session);

CK_RV kms_session_open(CK_SLOT_ID slot, CK_FLAGS flags, CK_SESSION_HANDLE *ret_handle);
CK_RV kms_session_close(CK_SESSION_HANDLE handle);
CK_RV kms_session_close_all(CK_SLOT_ID slot);

#endif
