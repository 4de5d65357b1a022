/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `hsm` backend: any PKCS#11 2.40 module.
 *
 * A key's ref and id are the same text, made from its material (backend/p11/keyid.h). Sealing:
 *
 *   aes-gcm       12 random bytes of C_GenerateRandom as IV, or the IV that the token makes itself
 *   aes-cbc-hmac  for tokens without GCM: CKM_AES_CBC_PAD, and HMAC-SHA256 by a companion key:
 *                 CKO_SECRET_KEY, CKK_GENERIC_SECRET or CKK_SHA256_HMAC, with the AES key's CKA_ID
 *                 and the label "<label>-mac". generate makes both where the token lacks GCM.
 *                 An AES key that has a companion is identified by both keys together; its
 *                 identity without it stays usable as a ref, so that a companion that comes later
 *                 cuts nobody off.
 *   rsa-oaep      SHA-256, MGF1-SHA256, label SHA-256(aad). The public half is local; the private
 *                 half is CKM_RSA_PKCS_OAEP, or CKM_RSA_X_509 and a local constant-time unpadding
 *                 on tokens that refuse these parameters.
 */
#ifndef KMS_BACKEND_HSM_H
#define KMS_BACKEND_HSM_H

#include "backend/backend.h"

extern const struct kms_backend_ops kms_hsm_ops;

#endif
