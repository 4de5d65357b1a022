/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of soft.h share: the library context, keys, operations. Nobody else includes this.
 *
 * A public function calls kms_soft_enter() before anything of libcrypto and kms_soft_leave() after
 * it, so that the host's error queue stays as it was, and nothing is called once libcrypto has
 * cleaned up.
 */
#ifndef KMS_PKCS11_CORE_SOFT_PARTS_H
#define KMS_PKCS11_CORE_SOFT_PARTS_H

#include <openssl/evp.h>
#include <stdatomic.h>

#include "pkcs11/core/soft.h"

#define KMS_SOFT_BLOCK     16
#define KMS_SOFT_RSA_MAX   16384 /* bits */
#define KMS_SOFT_RSA_BYTES (KMS_SOFT_RSA_MAX / 8)

/* ---- context: soft_context.c -------------------------------------------------------------- */

CK_RV kms_soft_enter(void);
CK_RV kms_soft_leave(CK_RV rv);          /* gives @rv back */
bool kms_soft_alive(void);               /* false: libcrypto is gone, its objects are let be */
OSSL_LIB_CTX *kms_soft_lib(void);        /* between enter and leave */
EVP_MD *kms_soft_md(const char *name);   /* fetched once, borrowed; NULL: cannot */
EVP_MAC *kms_soft_mac(const char *name); /* likewise */
EVP_KDF *kms_soft_kdf(const char *name);
EVP_CIPHER *kms_soft_cipher(const char *pattern, unsigned bits);

/* ---- keys: soft_key*.c, soft_curve.c ------------------------------------------------------ */

struct kms_soft_curve {
    const char *group; /* libcrypto's name */
    int nid;
    CK_KEY_TYPE type;
    unsigned bits;
    size_t order_len;     /* bytes of r and of s */
    struct kms_span oid;  /* CKA_EC_PARAMS, DER */
    const char *names[3]; /* as a curveName */
};
/* By CKA_EC_PARAMS, an OID or a curveName; NULL: none of ours. */
const struct kms_soft_curve *kms_soft_curve_find(CK_KEY_TYPE type, struct kms_span params);
const struct kms_soft_curve *kms_soft_curve_of(const EVP_PKEY *pkey);
/* What is inside if @der is one whole DER OCTET STRING; else false. */
bool kms_soft_octets(struct kms_span der, struct kms_span *ret_inside);

struct kms_soft_key {
    atomic_uint refs;
    CK_KEY_TYPE type;
    unsigned bits;
    bool has_private; /* or is secret */
    uint8_t *secret;  /* secure; symmetric keys */
    size_t secret_len;
    EVP_PKEY *pkey;
    const struct kms_soft_curve *curve;
    atomic_uint_fast64_t counted; /* numbers of IVs that were given */
};
/* @secret is copied. */
CK_RV kms_soft_key_of_secret(CK_KEY_TYPE type, struct kms_span secret,
                             struct kms_soft_key **ret_key);
/* Takes @pkey, also when it fails. CKR_ATTRIBUTE_VALUE_INVALID: of no type that we do. */
CK_RV kms_soft_key_take(EVP_PKEY *pkey, bool has_private, struct kms_soft_key **ret_key);
/* A public key of its raw point, checked; a key pair of its scalar (Ed25519: seed). NULL: not on
 * @curve. */
EVP_PKEY *kms_soft_point(const struct kms_soft_curve *curve, struct kms_span point);
EVP_PKEY *kms_soft_scalar(const struct kms_soft_curve *curve, struct kms_span scalar);
/* Whether the numbers of an RSA key belong together, as far as that costs little. */
bool kms_soft_rsa_fits(const struct kms_soft_key *key, bool crt);

/* An RSA public exponent: odd, above 1, not too long. */
CK_RV kms_soft_check_exponent(struct kms_span e);

/* Parameters for EVP_PKEY_fromdata() whose bytes are in secure memory: OSSL_PARAM_BLD leaves copies
 * unwiped. */
struct kms_soft_data {
    OSSL_PARAM params[10];
    size_t count;
    uint8_t *bytes; /* secure */
    size_t used, cap;
};
bool kms_soft_data_init(struct kms_soft_data *data, size_t cap);
void kms_soft_data_done(struct kms_soft_data *data);
bool kms_soft_data_number(struct kms_soft_data *data, const char *name, struct kms_span big_endian);
bool kms_soft_data_octets(struct kms_soft_data *data, const char *name, struct kms_span bytes);
bool kms_soft_data_text(struct kms_soft_data *data, const char *name, const char *text);
/* NULL: not a key. @selection EVP_PKEY_PUBLIC_KEY or EVP_PKEY_KEYPAIR */
EVP_PKEY *kms_soft_data_key(struct kms_soft_data *data, const char *type, int selection);
/*
 * Types by their object identifiers (RFC 8017 A.1, RFC 5480 2.1.1). By name libcrypto first asks
 * whether an engine of the host's configuration wants the type (default_algorithms), and such a one
 * may be this very module behind libp11, which cannot make our keys.
 */
#define KMS_SOFT_RSA "1.2.840.113549.1.1.1"
#define KMS_SOFT_EC  "1.2.840.10045.2.1"

/* ---- operations: soft_op.c and one file for each kind ------------------------------------- */

/* Input that is kept until the end. */
struct kms_soft_gather {
    uint8_t *bytes;
    size_t len, cap, max;
    bool secret; /* in secure memory */
};

struct kms_soft_work {
    CK_RV(*begin)
    (struct kms_soft_op *op, const CK_MECHANISM *mechanism, const struct kms_params *params);
    CK_RV (*update)(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out);
    CK_RV (*final)(struct kms_soft_op *op, struct kms_buf *out);
    CK_RV (*verify)(struct kms_soft_op *op, struct kms_span signature);
    CK_RV (*once)(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out); /* or NULL */
    size_t (*room)(const struct kms_soft_op *op, size_t len, bool final);
};

struct kms_soft_op {
    enum kms_soft_what what;
    const struct kms_mech *mech;
    struct kms_soft_key *key; /* a reference; NULL for digests */
    const struct kms_soft_work *work;
    bool done; /* final or verify was called, or something failed */

    EVP_CIPHER_CTX *cipher;
    EVP_MD_CTX *md;
    EVP_MAC_CTX *mac;
    EVP_PKEY_CTX *pkey;
    struct kms_soft_gather gather;

    size_t held;   /* ciphers: bytes in that are not out yet */
    bool pad;      /* CBC_PAD */
    uint64_t left; /* CTR: bytes before the counter wraps */
    size_t tag_len;
    size_t mac_len;
    const struct kms_hash *hash; /* PSS, OAEP */
    const struct kms_hash *mask;
    unsigned salt_len;
};

extern const struct kms_soft_work kms_soft_cipher_work, kms_soft_gcm_work, kms_soft_wrap_work,
    kms_soft_mac_work, kms_soft_digest_work, kms_soft_rsa_work, kms_soft_ecdsa_work,
    kms_soft_eddsa_work;

/* CKR_DATA_LEN_RANGE or its like of encrypted data. */
CK_RV kms_soft_len_range(const struct kms_soft_op *op);
CK_RV kms_soft_gather_put(struct kms_soft_op *op, struct kms_span in);
static inline struct kms_span kms_soft_gathered(const struct kms_soft_op *op)
{
    return kms_span_of(op->gather.bytes, op->gather.len);
}
void kms_soft_gather_done(struct kms_soft_gather *gather);

/* What is signed: the message's hash where the mechanism has one (op->md), else what was gathered.
 * @digest is where the hash goes. */
CK_RV kms_soft_input_begin(struct kms_soft_op *op, size_t max);
CK_RV kms_soft_input_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out);
CK_RV kms_soft_input_end(struct kms_soft_op *op, uint8_t digest[EVP_MAX_MD_SIZE],
                         struct kms_span *ret_input);
/* op->pkey made for op->key, and @init called on it. */
CK_RV kms_soft_pkey_begin(struct kms_soft_op *op, int (*init)(EVP_PKEY_CTX *));

#endif
