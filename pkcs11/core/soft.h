/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cryptography in this process, with libcrypto in a library context of its own: session keys, the
 * public halves of token pairs, digests. Knows nothing of sessions, handles or the agent. The
 * host's OpenSSL error queue is left as it was (ERR_set_mark, ERR_pop_to_mark), its default library
 * context is never used.
 *
 * Threads: a key may be used by many at once; an operation belongs to one.
 */
#ifndef KMS_PKCS11_CORE_SOFT_H
#define KMS_PKCS11_CORE_SOFT_H

#include "pkcs11/core/attrs.h"
#include "pkcs11/core/mech.h"

/* The library context: made at the first use, after the host's configuration is loaded; never freed
 * at exit (OPENSSL_cleanup may have run). CKR_GENERAL_ERROR when libcrypto is gone. Safe against
 * recursion: loading the host's configuration may call C_Initialize of this very module. */
CK_RV kms_soft_start(void);
CK_RV kms_soft_random(void *bytes, size_t len); /* the child of a fork has its own */

#define KMS_SOFT_SECRET_MAX 4096 /* bytes of a secret key */
/* What a multi-part operation gathers before it can begin: EdDSA's message, an AEAD's ciphertext.
 * CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE above it. */
#define KMS_SOFT_GATHER_MAX (64u * 1024u * 1024u)

struct kms_soft_key;
/* Key material from a complete set of attributes (CKA_VALUE; CKA_MODULUS, ...; CKA_EC_PARAMS, ...).
 * CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCOMPLETE, CKR_CURVE_NOT_SUPPORTED,
 * CKR_KEY_SIZE_RANGE; the log names the attribute. */
CK_RV kms_soft_key_import(CK_OBJECT_CLASS class, CK_KEY_TYPE type, const struct kms_attrs *attrs,
                          struct kms_soft_key **ret_key);
CK_RV kms_soft_key_from_spki(struct kms_span spki, struct kms_soft_key **ret_key);
/* DER PrivateKeyInfo (RFC 5208), for unwrapping. */
CK_RV kms_soft_key_from_pkcs8(struct kms_span pkcs8, struct kms_soft_key **ret_key);
/* Made fresh. @bits for AES, generic (bytes * 8) and RSA; @ec_params (DER) for EC and Ed25519. */
CK_RV kms_soft_key_generate(CK_KEY_TYPE type, unsigned bits, struct kms_span ec_params,
                            struct kms_span public_exponent, struct kms_soft_key **ret_key);
struct kms_soft_key *kms_soft_key_ref(struct kms_soft_key *key);
void kms_soft_key_unref(struct kms_soft_key *key); /* wipes */
CK_KEY_TYPE kms_soft_key_type(const struct kms_soft_key *key);
unsigned kms_soft_key_bits(const struct kms_soft_key *key);
/* The next of the numbers from 0 on, each given once in the key's life, whichever session asks;
 * false: it has more than @bits (1 to 64). */
bool kms_soft_key_count(struct kms_soft_key *key, unsigned bits, uint64_t *ret_number);
/* The attributes that its material determines: of the secret or private object, or (@public) of the
 * public one: CKA_VALUE, CKA_VALUE_LEN, CKA_MODULUS, ..., CKA_EC_PARAMS, CKA_EC_POINT,
 * CKA_PUBLIC_KEY_INFO, CKA_CHECK_VALUE. */
CK_RV kms_soft_key_export(const struct kms_soft_key *key, bool public, struct kms_attrs *into);
CK_RV kms_soft_key_pkcs8(const struct kms_soft_key *key, struct kms_buf *ret_der);

/* One operation. Begun with a mechanism whose parameter is checked here; KMS_OPK_* of session.h up
 * to KMS_OPK_DIGEST. @key NULL for digests. */
struct kms_soft_op;
enum kms_soft_what {
    KMS_SOFT_ENCRYPT,
    KMS_SOFT_DECRYPT,
    KMS_SOFT_SIGN,
    KMS_SOFT_VERIFY,
    KMS_SOFT_DIGEST
};
CK_RV kms_soft_op_new(enum kms_soft_what what, const struct kms_mech *mech,
                      const CK_MECHANISM *mechanism, struct kms_soft_key *key,
                      struct kms_soft_op **ret_op);
void kms_soft_op_free(struct kms_soft_op *op); /* wipes; NULL is fine */
/* The most that would be put out for @len more bytes in: by that update alone, or (@final) by it
 * and final together, which for @len 0 is final's own. Exact for final of sign, digest and of
 * AEADs, and for updates of ciphers. */
size_t kms_soft_op_room(const struct kms_soft_op *op, size_t len, bool final);
/* @out NULL for sign, verify, digest; else at least kms_soft_op_room(op, in.len, false). */
CK_RV kms_soft_op_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out);
/* The rest of the ciphertext or plaintext, the signature, the digest. Decryption puts out nothing
 * of an AEAD's plaintext before its tag is verified. */
CK_RV kms_soft_op_final(struct kms_soft_op *op, struct kms_buf *out);
CK_RV kms_soft_op_verify(struct kms_soft_op *op, struct kms_span signature);
/* Update and final in one, for C_Encrypt, C_Decrypt, C_Sign, C_Digest: no copy in between, and no
 * bound on what an AEAD decrypts (it writes to @out and wipes that when the tag is wrong). @out at
 * least kms_soft_op_room(op, in.len, true); @in may begin where @out does. */
CK_RV kms_soft_op_once(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out);

/*
 * Any mechanism with CKF_WRAP (AES key wrap of RFC 3394 and 5649, and what encrypts); shape as the
 * waist's wrap. CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_INVALID, CKR_WRAPPED_KEY_LEN_RANGE,
 * CKR_BUFFER_TOO_SMALL (@out shorter than kms_soft_wrap_room()).
 */
size_t kms_soft_wrap_room(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                          const struct kms_soft_key *kek, size_t key_len);
CK_RV kms_soft_wrap(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                    struct kms_soft_key *kek, struct kms_span key, struct kms_buf *out);
CK_RV kms_soft_unwrap(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_soft_key *kek, struct kms_span wrapped, struct kms_buf *out);
/* How many bytes a derivation gives when nobody says how many are wanted: ECDH's secret, or one
 * hash of it; HKDF's hash. 0: the mechanism's parameter is bad. */
size_t kms_soft_derive_len(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                           const struct kms_soft_key *base);
/* ECDH (CKM_ECDH1_DERIVE, ..._COFACTOR_DERIVE), HKDF: the derived bytes, @out->cap of them.
 * CKR_KEY_SIZE_RANGE when there are not so many. */
CK_RV kms_soft_derive(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_soft_key *base, struct kms_buf *out);
/* Digest or HMAC input in one go, for the ops that cross hashed; @hash as in mech.h. */
CK_RV kms_soft_digest(const char *hash, struct kms_span in, struct kms_buf *out);

#endif
