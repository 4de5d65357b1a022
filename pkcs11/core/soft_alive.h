/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether libcrypto can still be called: not after OPENSSL_cleanup(), which exit() may have run.
 * For those who must not know OpenSSL; soft_context.c has it.
 */
#ifndef KMS_PKCS11_CORE_SOFT_ALIVE_H
#define KMS_PKCS11_CORE_SOFT_ALIVE_H

#include <stdbool.h>

bool kms_soft_alive(void);

#endif
