/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `alibaba` backend: Alibaba Cloud KMS, API 2016-01-20, over HTTPS with ACS3-HMAC-SHA256.
 *
 * A key's ref is "<KeyId>/<KeyVersionId>", so that every op knows both without asking. Each version
 * of a key is one kms_key_info; its id is "ali1-" and hex of 20 bytes of SHA-256 over
 * "kmsbridge alibaba key id v1" || 0 || KeyId || 0 || KeyVersionId, and its order is when it was
 * made: seconds || 16 bits of rank. So a key that the service rotates by itself shows itself as
 * another key_id, of a newer key.
 *
 * Applications are shown a symmetric key once (kms_key_filter.logical): its ref is "<KeyId>/any",
 * its id that of a version "any". The tag, their CKA_ID, is the first 20 bytes of SHA-256 of the
 * full name: of the key's ARN for symmetric keys, each of their versions and HMAC keys, of
 * ARN/KeyVersionId for key pairs.
 *
 *   Aliyun_AES_*,   sealed: the ciphertext is the service's base64 text, unchanged. The version
 *   Aliyun_SM4      that encrypts is the service's choice and comes with its reply; any version's
 *                   ref decrypts whatever the key has encrypted. To this API the two differ by
 *                   name; SM4 keys of hardware key management instances do not rotate.
 *   RSA_*, EC_P256  sign (SHA-256 only), RSA-OAEP; verifying, and encrypting by OAEP, with the
 *                   public key, here
 *
 *   HMAC keys       MACs by the service, one object for the key: its ref is "<KeyId>/hmac"
 *
 * The AAD becomes one entry of the encryption context, frozen as a format:
 *   "kmsbridge-aad": "v1:" + base64url(SHA-256("kmsbridge-aad-v1" || be64(length) || AAD))
 * without padding, beside the configured entries; no AAD, no entry. The hash, because ActionTrail
 * logs the context in clear.
 *
 * ReEncrypt's reply names one key and one version: those of what was opened, by the texts of the
 * vendor's SDK, or those of what seals, as the action lets expect. The key is the same for both
 * here; the version may be the former one. If it is what seals, what another key of the account
 * sealed may be taken, too, where our identity may decrypt by that one.
 *
 * Not shown: SM2, SM3 and P-256K keys, which the waist has no type for. HMAC keys are not made from
 * here: which KeySpec to ask for is told nowhere.
 * There are no random bytes to be had.
 */
#ifndef KMS_BACKEND_ALIBABA_H
#define KMS_BACKEND_ALIBABA_H

#include "backend/backend.h"

extern const struct kms_backend_ops kms_alibaba_ops;

#endif
