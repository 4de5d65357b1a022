/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First use of a token: PKCS#11's C_InitToken and C_InitPIN, for kmsbridgectl init and nobody else.
 * It stands apart from the session pool: it loads the module, does its work on one thread, and
 * finalises the module again, so that the waist can open it afterwards as if nothing had been.
 *
 * May be used by tools/; may use common/ and libp11-kit.
 */
#ifndef KMS_BACKEND_P11_INIT_TOKEN_H
#define KMS_BACKEND_P11_INIT_TOKEN_H

#include "common/span.h"
#include "common/status.h"

#define KMS_TOKEN_LABEL_MAX 32 /* bytes, without NUL: CK_TOKEN_INFO.label (PKCS#11 2.40, 3.4) */

struct kms_p11_init; /* a loaded and initialised module */

/* A slot that waits for its first token. */
struct kms_p11_slot {
    unsigned long id;
    size_t pin_min; /* bytes, as CK_TOKEN_INFO tells */
    size_t pin_max;
};

/*
 * Loads @module (a path, or the name of a module that p11-kit knows) and initialises it. Errors:
 * KMS_E_NOT_FOUND (no such module), KMS_E_UNAVAILABLE (C_Initialize failed).
 */
enum kms_status kms_p11_init_open(const char *module, struct kms_p11_init **ret_init,
                                  struct kms_error *err) KMS_MUST_CHECK;
void kms_p11_init_close(struct kms_p11_init *init); /* NULL is fine */

/*
 * Finds the first slot whose token is not initialised. Changes nothing. KMS_E_EXISTS when a token
 * has @label already, KMS_E_NOT_FOUND when every slot is taken, KMS_E_INVALID for a label that no
 * token can have.
 */
enum kms_status kms_p11_init_find(struct kms_p11_init *init, const char *label,
                                  struct kms_p11_slot *ret_slot,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* C_InitToken: the token gets @label and @so_pin. */
enum kms_status kms_p11_init_token(struct kms_p11_init *init, const struct kms_p11_slot *slot,
                                   const char *label, struct kms_span so_pin,
                                   struct kms_error *err) KMS_MUST_CHECK;

/* C_InitPIN: logs in with @so_pin and gives the token its first user PIN. */
enum kms_status kms_p11_init_pin(struct kms_p11_init *init, const struct kms_p11_slot *slot,
                                 struct kms_span so_pin, struct kms_span user_pin,
                                 struct kms_error *err) KMS_MUST_CHECK;

#endif
