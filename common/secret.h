/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References to secrets. The configuration names where a PIN or token is, never the PIN:
 *
 * - file:/etc/kmsbridge/pin: a file, without one newline (LF or CR LF) at its end; refused when
 *   others may read it, or anybody but its owner and group may write it
 * - env:NAME: an environment variable, read with secure_getenv()
 * - credential:NAME: $CREDENTIALS_DIRECTORY/NAME (systemd's LoadCredential=, SetCredential=)
 *
 * Read anew at each kms_secret_load(), so that a changed file is seen.
 */
#ifndef KMS_COMMON_SECRET_H
#define KMS_COMMON_SECRET_H

#include "common/span.h"
#include "common/status.h"

#define KMS_SECRET_MAX 4096 /* bytes; longer ones are refused */

struct kms_secret; /* bytes in secure memory */

/* Syntax only, nothing is read: KMS_E_INVALID with a text that never repeats what follows an
 * unknown prefix. */
enum kms_status kms_secret_check_ref(const char *ref, struct kms_error *err) KMS_MUST_CHECK;

/*
 * Reads the secret that @ref names. Errors: KMS_E_INVALID (syntax, empty secret), KMS_E_NOT_FOUND,
 * KMS_E_DENIED (unreadable, or a file that others may read or write), KMS_E_TOO_LARGE, KMS_E_NOMEM;
 * each names the reference. The caller frees *ret_secret with kms_secret_free().
 */
enum kms_status kms_secret_load(const char *ref, struct kms_secret **ret_secret,
                                struct kms_error *err) KMS_MUST_CHECK;
void kms_secret_free(struct kms_secret *secret); /* NULL is fine */

/* Borrowed bytes, valid while @secret lives. */
struct kms_span kms_secret_span(const struct kms_secret *secret);

#endif
