/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hsm backend's parts and what they share. Functions that take a struct kms_p11 run inside a
 * step (backend/p11/token.h): they return the first CK_RV that is not CKR_OK, and set
 * p->ask->err themselves only when that says more than the return value.
 */
#ifndef KMS_BACKEND_HSM_PARTS_H
#define KMS_BACKEND_HSM_PARTS_H

#include <openssl/evp.h>

#include <stdatomic.h>

#include "backend/backend.h"
#include "backend/p11/find.h"
#include "backend/p11/token.h"

#define KMS_HSM_ALLOWED_MAX   32   /* rows of CKA_ALLOWED_MECHANISMS that are looked at */
#define KMS_HSM_AAD_MAX       1024 /* as backend.h says */
#define KMS_HSM_GCM_TAG       16
#define KMS_HSM_MAC_TAG       32
#define KMS_HSM_RSA_BYTES_MAX 2048 /* RSA-16384 */
#define KMS_HSM_MAC_SUFFIX    "-mac"

/* How a token treats the IV of CK_GCM_PARAMS; found out by kms_hsm_gcm_probe(). */
enum kms_hsm_gcm {
    KMS_HSM_GCM_NONE,     /* no GCM that can be relied on */
    KMS_HSM_GCM_OURS,     /* takes ours, or writes its own into pIv: what is there counts */
    KMS_HSM_GCM_EMPTY,    /* wants a zeroed pIv, and fills it */
    KMS_HSM_GCM_APPENDED, /* wants none, and appends its own behind the tag */
};

/* A key as found on the token. Never changed once it is in the table; shared by counting. */
struct kms_hsm_key {
    atomic_uint refs;
    uint64_t generation; /* of the token: the handles are good for it only */
    CK_OBJECT_HANDLE handle;
    CK_OBJECT_HANDLE mac; /* the companion HMAC key, or CK_INVALID_HANDLE */
    CK_KEY_TYPE key_type;
    struct kms_key_info info;
    char alias[KMS_KEY_ID_MAX]; /* the AES key's identity without its companion, or "" */
    CK_MECHANISM_TYPE allowed[KMS_HSM_ALLOWED_MAX];
    size_t allowed_count; /* 0: any */
    enum kms_hsm_gcm gcm;
    bool cbc_hmac;        /* can do it */
    CK_RV unclear;        /* what GCM or OAEP failed with, though the key works otherwise */
    bool oaep;            /* can decrypt it */
    bool oaep_raw;        /* by CKM_RSA_X_509 */
    size_t size;          /* RSA: bytes of the modulus; EC: of the field */
    EVP_PKEY *public_key; /* of a pair */
};

struct kms_backend {
    struct kms_p11_token *token;
    enum kms_alg only;             /* `mechanism:`, or KMS_ALG_NONE for auto */
    struct kms_secure_pool *small; /* slots of KMS_HSM_SMALL bytes for plaintext on its way */
    struct kms_hsm_table *table;   /* the keys that are known */
    atomic_uint_fast64_t doubt_ns; /* when a search that finds nothing is next doubted */
    atomic_uint_fast64_t doubt_pause_ns;
};

#define KMS_HSM_SMALL 2048

/* ---- hsm_keys.c: the table of keys ------------------------------------------------------------
 */

/* The key of @ref, from the table or the token; CKR_KEY_HANDLE_INVALID and ask->err when there is
 * none. Released with kms_hsm_key_put(). */
CK_RV kms_hsm_key_get(struct kms_backend *b, struct kms_p11 *p, const char *ref,
                      struct kms_hsm_key **ret_key);
void kms_hsm_key_put(struct kms_hsm_key *key); /* NULL is fine */
struct kms_hsm_keys {
    struct kms_hsm_key **keys;
    size_t count;
    CK_RV sick; /* why a key that is on the token is not among them; CKR_OK: none is missing */
};
/* The keys on the token that match, brought into the table. A key that fails by itself is left out
 * and only logged, unless there is no other: old keys are not to take the new one down. ask->err
 * tells of KMS_E_UNSUPPORTED when some match and none of them can be identified. */
CK_RV kms_hsm_scan(struct kms_backend *b, struct kms_p11 *p, const struct kms_key_filter *filter,
                   struct kms_hsm_keys *ret_found);
void kms_hsm_keys_done(struct kms_hsm_keys *keys);
struct kms_hsm_table *kms_hsm_table_new(void);
void kms_hsm_table_free(struct kms_hsm_table *table); /* NULL is fine */
bool kms_hsm_key_is(const struct kms_hsm_key *key, const char *ref);

/* ---- hsm_describe.c: one object's attributes and identity --------------------------------------
 */

/* CKR_MECHANISM_INVALID when the object is no key of ours or cannot be identified. */
CK_RV kms_hsm_describe(struct kms_backend *b, struct kms_p11 *p, CK_OBJECT_HANDLE handle,
                       CK_OBJECT_CLASS class, struct kms_hsm_key **ret_key);
/* Whether @handle still has the label and CKA_ID of @key. */
CK_RV kms_hsm_still(struct kms_p11 *p, const struct kms_hsm_key *key, bool *ret_same);
/* For CKA_ALLOWED_MECHANISMS; @key is a struct kms_hsm_key. */
bool kms_hsm_allows(const void *key, CK_MECHANISM_TYPE mechanism);

/* ---- hsm_public.c: public keys as OpenSSL has them ---------------------------------------------
 */

CK_RV kms_hsm_public_read(struct kms_p11 *p, CK_OBJECT_HANDLE private_key, CK_KEY_TYPE type,
                          struct kms_span tag, EVP_PKEY **ret_key);

/* ---- hsm_seal.c: encrypt and decrypt, whichever scheme ------------------------------------------
 */

enum kms_status kms_hsm_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed);
enum kms_status kms_hsm_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext);
/* Which schemes @key can do, and which is the best; probes the token. */
CK_RV kms_hsm_seal_probe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key);
/* One piece of work for a scheme. Outputs have room; lengths are set on success. */
struct kms_hsm_work {
    const struct kms_hsm_key *key;
    struct kms_span aad;
    struct kms_span in;
    uint8_t iv[KMS_IV_MAX]; /* encrypt: out; decrypt: in */
    size_t iv_len;
    uint8_t *out;
    size_t out_room; /* encrypt: in + 1024; decrypt: at least in.len and the modulus */
    size_t out_len;
};

/*
 * @decrypt, and what its failure means: CKR_ENCRYPTED_DATA_INVALID for bad data, though some tokens
 * say CKR_GENERAL_ERROR for it (SoftHSM 2.6 for a wrong GCM tag). So after an unclear failure
 * @known_good asks whether the token works with data known to be good. If it does not, the token is
 * sick and its first answer stands; if it does, @work is tried once more before it is called bad.
 */
CK_RV kms_hsm_decrypt_surely(struct kms_p11 *p, struct kms_hsm_work *work,
                             CK_RV (*decrypt)(struct kms_p11 *, struct kms_hsm_work *),
                             CK_RV (*known_good)(struct kms_p11 *, const struct kms_hsm_key *));

/* ---- the schemes ---------------------------------------------------------------------------- */

CK_RV kms_hsm_gcm_probe(struct kms_p11 *p, const struct kms_hsm_key *key, enum kms_hsm_gcm *ret);
CK_RV kms_hsm_gcm_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_gcm_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
/* Whether a round trip works. */
CK_RV kms_hsm_cbc_probe(struct kms_p11 *p, const struct kms_hsm_key *key);
CK_RV kms_hsm_cbc_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_cbc_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_oaep_probe(struct kms_p11 *p, const struct kms_hsm_key *key, bool *ret_can,
                         bool *ret_raw);
CK_RV kms_hsm_oaep_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_oaep_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);

/* ---- hsm_make.c, hsm_sign.c -------------------------------------------------------------------
 */

enum kms_status kms_hsm_generate(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_key_template *tmpl,
                                 struct kms_key_info *ret_info);
enum kms_status kms_hsm_rotate(struct kms_backend *b, struct kms_call *call, const char *ref,
                               struct kms_key_info *ret_info);
enum kms_status kms_hsm_destroy(struct kms_backend *b, struct kms_call *call, const char *ref);
enum kms_status kms_hsm_sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span input,
                             struct kms_buf *ret_signature);
enum kms_status kms_hsm_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_mac);

/* hsm.c: runs @step for @call. */
enum kms_status kms_hsm_run(struct kms_backend *b, struct kms_call *call, enum kms_p11_mode mode,
                            kms_p11_step step, void *ctx);

#endif
