/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kmsbridge-pkcs11.so adds to PKCS#11. Installed; include a pkcs11.h before it.
 */
#ifndef KMSBRIDGE_PKCS11_H
#define KMSBRIDGE_PKCS11_H

/* "KB" in the range that the specification leaves to vendors (CKM_VENDOR_DEFINED and up). */
#define CKM_KMSBRIDGE_BASE (0x80000000UL | 0x4b420000UL)
#define CKA_KMSBRIDGE_BASE (0x80000000UL | 0x4b420000UL)

/*
 * Seals bytes, or a key, under a key service's symmetric key; what comes out is the service's own
 * ciphertext, whole: it names key and version, and nobody but the service opens it. C_Encrypt and
 * C_Decrypt (updates gather up to the service's limit), C_WrapKey and C_UnwrapKey. No standard
 * mechanism: its output can be processed by no other token.
 *
 * pParameter: NULL with length 0, or a CK_KMSBRIDGE_SEALED_PARAMS whose AAD must be the same when
 * it is opened (at most 1024 bytes).
 */
#define CKM_KMSBRIDGE_SEALED (CKM_KMSBRIDGE_BASE | 0x01UL)

typedef struct {
    CK_ULONG ulVersion; /* 0 */
    CK_BYTE_PTR pAAD;   /* may be NULL when ulAADLen is 0 */
    CK_ULONG ulAADLen;
} CK_KMSBRIDGE_SEALED_PARAMS;

/* Attributes of token keys, read-only; texts without NUL. */
#define CKA_KMSBRIDGE_KEY_ID                                                                       \
    (CKA_KMSBRIDGE_BASE | 0x01UL) /* the key's identity, the same for every                        \
                                     replica of it; as in KMS v2's key_id                          \
                                     and in the audit log */
#define CKA_KMSBRIDGE_VERSION (CKA_KMSBRIDGE_BASE | 0x02UL) /* of the service; empty: none */

#endif
