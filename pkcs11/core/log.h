/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module's log: silent unless KMSBRIDGE_LOG=file:PATH[,LEVEL] was in the environment
 * (secure_getenv), or the host said log=file:PATH[,LEVEL], when the library was initialised. One
 * line a write, opened with O_APPEND and mode 0600; no secrets. Never standard output or error.
 *
 * A host that closes all descriptors costs nothing but a reopening: the file is known by device and
 * inode before each line. Thread-safe; errno is kept.
 */
#ifndef KMS_PKCS11_CORE_LOG_H
#define KMS_PKCS11_CORE_LOG_H

#include "common/status.h"
#include "pkcs11/pkcs11x.h"

enum kms_p11_log { KMS_P11_ERROR, KMS_P11_WARN, KMS_P11_INFO, KMS_P11_DEBUG };

void kms_p11_log_start(void); /* reads the environment; again does nothing */
/* "file:PATH[,LEVEL]", the host's word: only where the environment said nothing. */
void kms_p11_log_start_with(const char *spec);
void kms_p11_log_forked(void); /* in a child, before any line */
void kms_p11_log(enum kms_p11_log level, const char *fmt, ...) KMS_PRINTF(2, 3);
/* Logs and returns @rv: `return kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT, "CKA_FOO ...");` */
CK_RV kms_p11_refuse(CK_RV rv, const char *fmt, ...) KMS_PRINTF(2, 3);

#endif
