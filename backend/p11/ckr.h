/* SPDX-License-Identifier: Apache-2.0 */
/* What each return value of PKCS#11 2.40 means to us: a status, and what to repair. Pure. */
#ifndef KMS_BACKEND_P11_CKR_H
#define KMS_BACKEND_P11_CKR_H

#include "backend/p11/p11.h"

enum kms_p11_action {
    KMS_P11_NONE,        /* nothing is broken; the answer is the answer */
    KMS_P11_REFRESH_KEY, /* the object handle is stale: find the key again */
    KMS_P11_REOPEN,      /* the session is lost or in an unknown state */
    KMS_P11_RELOGIN,     /* the login is lost */
    KMS_P11_REINIT,      /* device or module: C_Finalize, C_Initialize, and all that follows */
    KMS_P11_ACTION_COUNT
};

/* Ours, never a token's: it said CKR_OK to something that cannot be right (a length, say). */
#define KMS_P11_BAD_REPLY (CKR_VENDOR_DEFINED | 0x6b6d73ul)

struct kms_ckr {
    CK_RV rv;
    const char *name; /* "CKR_DEVICE_REMOVED" */
    enum kms_status status;
    enum kms_p11_action action;
};

/* The row of @rv; that of "CKR_VENDOR_DEFINED" for one that 2.40 does not know. Never NULL. */
const struct kms_ckr *kms_ckr_find(CK_RV rv);

/* All rows, for tests. */
const struct kms_ckr *kms_ckr_rows(size_t *ret_count);

/* True for "this token or key does not do that": another mechanism may. */
bool kms_ckr_is_unsupported(CK_RV rv);

/* True for what may be about the token, one key or one mechanism alike; vendors' own codes too. */
bool kms_ckr_is_unclear(CK_RV rv);

/* Fills @err with status, name and "<where>: <function>: <name>"; returns the status. */
enum kms_status kms_ckr_error(struct kms_error *err, const char *where, const char *function,
                              CK_RV rv);

#endif
