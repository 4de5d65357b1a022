/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fault-injecting PKCS#11 shim is to do: the control file and the call counters.
 *
 * One plan per process, read from the file that KMSBRIDGE_SHIM_CONTROL names and read again
 * whenever that file's inode, size or times change (one stat per call). Every function is safe
 * from any thread; the plan's lock is never held across a call into the real module, a sleep or a
 * hang. Replace the file by rename(2): a reader then never sees half of it.
 *
 * One `key=value` per line, '#' starts a comment. FUNCTIONS is a comma separated list of C_ names;
 * without it a fault meets every call but C_GetFunctionList, C_Initialize and C_Finalize (the
 * library lives, the token does not), and `*` means every call but C_GetFunctionList.
 *
 *   latency_us=N             C_Encrypt, C_Decrypt and C_Sign take at least N microseconds
 *   random_latency_us=N      so does C_GenerateRandom
 *   fail=CKR[:FUNCTIONS]     the calls return CKR and never reach the module; may be repeated
 *   fail_once=CKR[:FUNCTIONS[:COUNT]]  the next COUNT (1) calls do; may be repeated, first match
 *                            first; counts begin anew when the file changes
 *   hang=1[:FUNCTIONS]       the calls block until the file no longer says so (looked at every
 *                            10 ms); after a C_Finalize they end in CKR_CRYPTOKI_NOT_INITIALIZED
 *   until_reinit=1           fail, fail_once, hang and logout_sessions end once C_Finalize and then
 *                            C_Initialize have succeeded
 *   no_mech=CKM[,CKM...]     the token neither lists nor takes these mechanisms
 *   fail_id=CKR:HEX          C_EncryptInit with the key of this CKA_ID (one byte) returns CKR
 *   fail_mech=CKR:CKM        C_EncryptInit with this mechanism returns CKR
 *   own_iv=1                 CKM_AES_GCM: the token makes the IV and C_EncryptInit writes it to pIv
 *   own_iv=late              the same, but pIv is written by C_Encrypt
 *   own_iv=empty             as own_iv=1, and the token refuses a pIv that is not zeroed
 *   own_iv=append            the token wants no pIv, and C_Encrypt appends its IV behind the tag
 *   swap_id=HEX:HEX          C_EncryptInit and C_DecryptInit with the key of the first CKA_ID (one
 *                            byte) take the material of the second's: as if the token had given
 *                            the handle of a destroyed key to another
 *   keep_objects=1           C_DestroyObject says CKR_OK and destroys nothing
 *   final_try=1              the token says CKF_USER_PIN_FINAL_TRY
 *   serial=TEXT              the token's serial number
 *   logout_sessions=1        as if the login was lost: CKR_USER_NOT_LOGGED_IN, no object is found,
 *                            public session state, until a C_Login succeeds
 *
 * A line that makes no sense is named on stderr, and every call returns CKR_FUNCTION_REJECTED
 * until the file is right: a test must not pass because of a misspelt fault.
 *
 * Counters: if KMSBRIDGE_SHIM_COUNTERS names a file, it holds one `NAME COUNT` line per C_ function
 * (calls as the host made them, faulted ones too) plus `faults` (calls answered by the shim) and
 * `reloads` (times the control file was read). The file is mapped, so it is always up to date. An
 * existing counter file is counted on from; remove it to start from zero. One process at a time.
 */
#ifndef KMSBRIDGE_TESTS_FAKES_P11_SHIM_PLAN_H
#define KMSBRIDGE_TESTS_FAKES_P11_SHIM_PLAN_H

#include <p11-kit/pkcs11.h>
#include <stdbool.h>
#include <stddef.h>

#include "tests/fakes/p11_shim_functions.h"

enum p11_shim_iv {
    P11_SHIM_IV_CALLER,
    P11_SHIM_IV_EARLY,
    P11_SHIM_IV_LATE,
    P11_SHIM_IV_EMPTY,
    P11_SHIM_IV_APPEND
};

enum { P11_SHIM_MAX_MECHANISMS = 32, P11_SHIM_SERIAL_LEN = 16 };

/* The settings that bend a call's outcome, as they were when this thread's call came in. */
struct p11_shim_settings {
    unsigned long latency_us;
    unsigned long random_latency_us;
    enum p11_shim_iv own_iv;
    bool has_serial;
    unsigned char serial[P11_SHIM_SERIAL_LEN]; /* blank padded, as in CK_TOKEN_INFO */
    bool logged_out;
    bool final_try;
    bool keep_objects;
    bool swaps;
    unsigned char swap_from, swap_to;
    CK_RV id_fault; /* CKR_OK: none */
    unsigned char id;
    CK_RV mech_fault; /* CKR_OK: none */
    CK_MECHANISM_TYPE mech;
};

/* Counts the call and plays its faults; anything but CKR_OK is what the call has to return. */
CK_RV p11_shim_enter(enum p11_shim_function function);

/* Of the calling thread's last p11_shim_enter(). */
const struct p11_shim_settings *p11_shim_settings(void);
bool p11_shim_hides(CK_MECHANISM_TYPE mechanism);
bool p11_shim_needs_login(enum p11_shim_function function);

/* The shim's word on what the real module did. */
void p11_shim_note_finalized(void);
void p11_shim_note_initialized(void);
void p11_shim_note_login(void);

/* Names and numbers (p11_shim_names.c); a decimal or 0x number stands for itself. */
bool p11_shim_ckr(const char *text, CK_RV *ret_rv);
bool p11_shim_ckm(const char *text, CK_MECHANISM_TYPE *ret_mechanism);

#endif
