/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about a token's key: the waist's ops with a CK_MECHANISM's parameter, lengths that are
 * known without asking, and the frame of CKM_KMSBRIDGE_SEALED. Each function that is said to ask is
 * exactly one request.
 */
#ifndef KMS_PKCS11_CORE_TOKEN_H
#define KMS_PKCS11_CORE_TOKEN_H

#include "common/sealed_frame.h"
#include "pkcs11/core/mech.h"
#include "pkcs11/core/object.h"
#include "pkcs11/core/slot.h"

#define KMS_AAD_MAX 1024 /* kms_params.aad */

/* Bytes gathered in secure memory; zeroed is empty. */
struct kms_gather {
    uint8_t *data;
    size_t len;
    size_t cap;
};
/* CKR_HOST_MEMORY, @too_long when there would be more than @max. */
CK_RV kms_gather_put(struct kms_gather *gather, struct kms_span bytes, size_t max, CK_RV too_long);
void kms_gather_done(struct kms_gather *gather); /* wipes */

/* One key with one mechanism. */
struct kms_token_use {
    const struct kms_object *key; /* borrowed */
    const struct kms_mech *mech;
    const struct kms_hash *hash; /* of the message, made here before signing; else NULL */
    bool sealed;                 /* CKM_KMSBRIDGE_SEALED; alg is KMS_ALG_BEST */
    struct kms_params params;    /* iv and aad point below: do not copy */
    uint8_t iv[KMS_IV_MAX];
    uint8_t aad[KMS_AAD_MAX];
};
/* Copies the parameter. CKR_MECHANISM_PARAM_INVALID; CKR_KEY_FUNCTION_NOT_PERMITTED when the key
 * does not have the algorithm on its token. */
CK_RV kms_token_use_init(struct kms_token_use *use, const struct kms_mech *mech,
                         const CK_MECHANISM *mechanism, const struct kms_object *key);

/* The most that comes out for @len bytes in; exact but for decryption with padding and SEALED. */
size_t kms_token_encrypted_room(const struct kms_token_use *use, size_t len);
size_t kms_token_decrypted_room(const struct kms_token_use *use, size_t len);
size_t kms_token_signature_room(const struct kms_token_use *use); /* or a MAC */
bool kms_token_decrypted_exact(const struct kms_token_use *use);

enum kms_token_op { KMS_TOKEN_CRYPT, KMS_TOKEN_WRAP };
/* Asks to encrypt or wrap. @out: ciphertext (tag behind), or SEALED's frame; @ret_iv: NULL, or
 * where the IV goes that the service made. */
CK_RV kms_token_encrypt(struct kms_token_use *use, enum kms_token_op how, struct kms_span in,
                        struct kms_buf *ret_iv, struct kms_buf *out);
/* Asks for a key of @len bytes that the service makes, and its sealed form, as wrapping has it;
 * @use of SEALED. CKR_FUNCTION_NOT_SUPPORTED: it makes none, of that length or with an AAD. */
CK_RV kms_token_data_key(struct kms_token_use *use, size_t len, struct kms_buf *ret_key,
                         struct kms_buf *ret_wrapped);
/* Asks to decrypt or unwrap. @aead: a failed tag is CKR_AEAD_DECRYPT_FAILED. */
CK_RV kms_token_decrypt(struct kms_token_use *use, enum kms_token_op how, bool aead,
                        struct kms_span in, struct kms_buf *out);
/* Asks to sign, or for the MAC. @in is the message, or its digest when use->hash is set. */
CK_RV kms_token_sign(struct kms_token_use *use, struct kms_span in, struct kms_buf *out);
CK_RV kms_token_verify(struct kms_token_use *use, struct kms_span in, struct kms_span signature);

/* SEALED's frame; kmsbridge-pkcs11.h has its layout, and who has none (KMS_ALG_SEALED). */
#define KMS_SEALED_ROOM (KMS_FRAME_HEADER + KMS_KEY_ID_MAX + KMS_IV_MAX + 1024)
CK_RV kms_sealed_pack(const struct kms_sealed *sealed, struct kms_buf *out);
/* Borrows @bytes. CKR_ENCRYPTED_DATA_INVALID. */
CK_RV kms_sealed_unpack(struct kms_span bytes, struct kms_sealed_frame *ret_frame);

#endif
