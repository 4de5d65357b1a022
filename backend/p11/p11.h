/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PKCS#11 types, and what every call into a module carries.
 *
 * Who may include this: backend/p11/ and the hsm backend. It is the only includer of libp11-kit's
 * pkcs11.h (PKCS#11 2.40).
 */
#ifndef KMS_BACKEND_P11_P11_H
#define KMS_BACKEND_P11_P11_H

#include <p11-kit/pkcs11.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

/* PKCS#11 3.0 (mechanisms 2.14): NIST SP 800-38F's KWP. What CKM_AES_KEY_WRAP_PAD is, 2.40 left
 * open: some take it for KWP, some for PKCS#7 padding under CKM_AES_KEY_WRAP. */
#ifndef CKM_AES_KEY_WRAP_KWP
#define CKM_AES_KEY_WRAP_KWP 0x210bul
#endif

/* Who asks, and until when; borrowed for a call. */
struct kms_p11_ask {
    uint64_t deadline_ns;
    const atomic_bool *cancelled; /* may be NULL */
    struct kms_error *err;        /* never NULL */
    bool patient; /* nobody asks again: a token that is down is waited for, until the deadline */
};

struct kms_p11_token;
struct kms_p11_slot;

/*
 * One attempt's view of a connected token: a session of its own until the attempt ends. Made by
 * kms_p11_run(), passed to its step.
 */
struct kms_p11 {
    const CK_FUNCTION_LIST *functions;
    CK_SESSION_HANDLE session;
    uint64_t generation;  /* object handles of another generation mean nothing */
    bool refresh;         /* a key's handle was refused: look for the key again */
    bool committed;       /* the step's: what it did must not be done twice */
    const char *function; /* the last one called, for error texts */
    struct kms_p11_token *token;
    struct kms_p11_slot *slot; /* the pool's */
    const struct kms_p11_ask *ask;
};

/* Calls C_Function and remembers its name: `rv = KMS_P11(p, C_Sign)(p->session, ...)`. */
#define KMS_P11(p, function_name) ((p)->function = #function_name, (p)->functions->function_name)

/* Input bytes for a C_ function, whose parameters are not const though it does not write them. */
static inline CK_BYTE_PTR kms_p11_in(const void *data)
{
    static const CK_BYTE nothing = 0; /* some modules refuse NULL though the length is 0 */

    return (CK_BYTE_PTR)(uintptr_t)(data == NULL ? &nothing : data);
}

#endif
