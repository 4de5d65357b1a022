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
 * Seals bytes, or a key, under a key service's symmetric key, by the strongest authenticated
 * algorithm that the key has there: nobody but the service opens it. C_Encrypt and C_Decrypt
 * (updates gather up to 65536 bytes), C_WrapKey and C_UnwrapKey. No standard mechanism: its output
 * can be processed by no other token, but by this module in any other process.
 *
 * Of a service whose ciphertext is its own affair (Alibaba Cloud KMS) it is that ciphertext and
 * nothing else, unchanged: for Alibaba the base64 text, which the vendor's own clients open, too.
 * Of the others it is
 *
 *     offset  bytes
 *          0      4  "KMSB"
 *          4      1  version: 1
 *          5      1  algorithm: 1 AES-GCM (IV of 12 bytes, tag of 16 behind the ciphertext),
 *                    3 AES-CBC with HMAC-SHA256 (tag of 32 bytes behind the ciphertext),
 *                    5 ChaCha20-Poly1305 (IV of 12 bytes, tag of 16 behind the ciphertext)
 *          6      1  n, the length of the key's id
 *          7      1  m, the length of the IV
 *          8      n  the key's id, as CKA_KMSBRIDGE_KEY_ID: another key is refused before the
 *                    service is asked, unless it is a version of the same label: then that opens
 *      8 + n      m  IV
 *  8 + n + m         ciphertext, to the end
 *
 * The algorithm authenticates IV, ciphertext and AAD; a changed header names another algorithm or
 * key, which do not open it. It is longer than what was sealed by less than 1200 bytes; base64 text
 * by a third besides.
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

/*
 * CKA_KEY_TYPE of an SM4 key of Alibaba Cloud KMS (GB/T 32907, 128 bits), for which PKCS#11 has no
 * key type: the vendor-defined one. Always a token's secret key, of CKA_VALUE_LEN 16, that
 * CKM_KMSBRIDGE_SEALED alone is for.
 */
#define CKK_KMSBRIDGE_SM4 0x80000000UL /* CKK_VENDOR_DEFINED */

/*
 * C_GenerateKey of such a key in the service, with CKA_TOKEN true and without a parameter.
 * CKA_VALUE_LEN may be 16 or absent.
 */
#define CKM_KMSBRIDGE_SM4_KEY_GEN (CKM_KMSBRIDGE_BASE | 0x03UL)

/*
 * C_GenerateKey of an AES session key (CKA_VALUE_LEN 16, 24 or 32) together with its form wrapped
 * under hKek, a token's key that wraps by CKM_KMSBRIDGE_SEALED: CKA_KMSBRIDGE_WRAPPED_VALUE of the
 * new key, which C_UnwrapKey with CKM_KMSBRIDGE_SEALED, the same key (or another version of it) and
 * the same AAD makes into the key again, in this process or another.
 *
 * The service makes the key, by its own generator, where it does so (Transit's datakey, of 16 and
 * 32 bytes; Alibaba's GenerateDataKey); else this library does, by the generator that
 * CKM_AES_KEY_GEN has, and the service wraps it: one request in both cases. The key itself is in
 * the program's memory, as every session key. CKA_NEVER_EXTRACTABLE is false: who may unwrap has
 * it.
 */
#define CKM_KMSBRIDGE_DATA_KEY_GEN (CKM_KMSBRIDGE_BASE | 0x02UL)

typedef struct {
    CK_ULONG ulVersion; /* 0 */
    CK_OBJECT_HANDLE hKek;
    CK_BYTE_PTR pAAD; /* may be NULL when ulAADLen is 0 */
    CK_ULONG ulAADLen;
} CK_KMSBRIDGE_DATA_KEY_PARAMS;

/* Of session keys that CKM_KMSBRIDGE_DATA_KEY_GEN made, and of copies of them; bytes, read-only. */
#define CKA_KMSBRIDGE_WRAPPED_VALUE (CKA_KMSBRIDGE_BASE | 0x03UL)

/* Attributes of token keys, read-only; texts without NUL. */
/*
 * The key's identity, the same for every replica of it; as in KMS v2's key_id and in the audit log.
 * Of a key that the service has in versions among which it chooses itself, and that is one object
 * here (Alibaba Cloud KMS's symmetric ones): one for all of them, which is no key_id.
 */
#define CKA_KMSBRIDGE_KEY_ID  (CKA_KMSBRIDGE_BASE | 0x01UL)
#define CKA_KMSBRIDGE_VERSION (CKA_KMSBRIDGE_BASE | 0x02UL) /* of the service; empty: none */
/* The service's full name of the key, the same for private and public key: its resource name, where
 * the service has such. */
#define CKA_KMSBRIDGE_NAME (CKA_KMSBRIDGE_BASE | 0x04UL)

#endif
