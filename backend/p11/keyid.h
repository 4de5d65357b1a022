/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key's identity, from its material and nothing else, without extracting it: replicas on other
 * tokens and nodes agree, and a key that was made anew under the same label and CKA_ID differs.
 *
 *   id = "kb1-" || lower-case hex of the first 20 bytes of
 *        SHA-256("kmsbridge key id v1" || 00 || kind || 00 || evidence)
 *
 *   kind   evidence
 *   aes    C = AES_K(B), one block, B = "kmsbridge-id" || 00000002
 *   aes+mac  C || HMAC-SHA256(mac key, "kmsbridge key id v1"): an AES key with a companion HMAC key
 *   mac    HMAC-SHA256(key, "kmsbridge key id v1")
 *   spki   the DER SubjectPublicKeyInfo of a key pair
 *
 * C comes from CKM_AES_ECB, CKM_AES_CBC (IV 0), CKM_AES_CTR (counter block B, over zeros) or
 * CKM_AES_GCM (IV "kmsbridge-id", over zeros: SP 800-38D starts its counter at 2), whichever token
 * and key allow; all give the same block.
 *
 * Why the fixed IV is safe: it is used with this one message only, so no two messages share it;
 * the result leaves us through SHA-256 only; and a random 96-bit IV of a real message equals it
 * with probability 2^-96. For ECB, CBC and CTR, B or 0 as an input block of real traffic is no more
 * likely. The companion HMAC key never signs this text otherwise: what it signs ends in the length
 * of its AAD, and "y id v1" is no such length.
 */
#ifndef KMS_BACKEND_P11_KEYID_H
#define KMS_BACKEND_P11_KEYID_H

#include "backend/p11/p11.h"
#include "common/span.h"

#define KMS_P11_KEYID_SIZE  45 /* with NUL */
#define KMS_P11_KEYID_BLOCK 16
#define KMS_P11_KEYID_MAC   32

/* "kb1-..." of @kind and the evidence @a || @b into @ret_id. */
void kms_p11_keyid_text(const char *kind, struct kms_span a, struct kms_span b,
                        char ret_id[KMS_P11_KEYID_SIZE]);

/*
 * C of an AES key, by whichever of C_Encrypt, C_Decrypt and C_WrapKey it is there for: @uses is a
 * set of CKF_ENCRYPT, CKF_DECRYPT and CKF_WRAP. CKR_MECHANISM_INVALID when token and key have none
 * of the ways.
 */
CK_RV kms_p11_keyid_block(struct kms_p11 *p, CK_OBJECT_HANDLE key, CK_FLAGS uses,
                          bool (*allowed)(const void *ctx, CK_MECHANISM_TYPE), const void *ctx,
                          uint8_t ret_block[KMS_P11_KEYID_BLOCK]);

/* HMAC-SHA256 of the fixed text by @key. */
CK_RV kms_p11_keyid_mac(struct kms_p11 *p, CK_OBJECT_HANDLE key,
                        uint8_t ret_mac[KMS_P11_KEYID_MAC]);

#endif
