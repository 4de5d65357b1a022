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
    KMS_HSM_GCM_UNTRIED,  /* the key cannot both seal and open: it takes a caller's IV only */
};

/* A key as found on the token. Never changed once it is in the table; shared by counting. */
struct kms_hsm_key {
    atomic_uint refs;
    uint64_t generation; /* of the token: the handles are good for it only */
    CK_OBJECT_HANDLE handle;
    CK_OBJECT_HANDLE mac; /* the companion HMAC key, or CK_INVALID_HANDLE */
    CK_KEY_TYPE key_type;
    struct kms_key_info info;
    char alias[KMS_KEY_ID_MAX]; /* the AES key's identity with its companion, or without; "": it has
                                   none */
    CK_MECHANISM_TYPE allowed[KMS_HSM_ALLOWED_MAX];
    size_t allowed_count; /* 0: any */
    enum kms_hsm_gcm gcm;
    bool cbc_hmac;        /* can do it */
    CK_RV unclear;        /* what GCM or OAEP failed with, though the key works otherwise */
    bool oaep;            /* can decrypt KMS_ALG_RSA_OAEP_SHA256 */
    bool oaep_raw;        /* by CKM_RSA_X_509 */
    size_t size;          /* RSA: bytes of the modulus; EC: of the field */
    EVP_PKEY *public_key; /* of a pair */
};

/* Facts about a token that only a trial tells; 0 until then. Kept for the backend's life. */
#define KMS_HSM_HASHES 6 /* rows of hashes in hsm_algs.c, at most */
struct kms_hsm_tried {
    atomic_ulong kwp;    /* the mechanism that is NIST's KWP, or KMS_HSM_NO_MECHANISM */
    atomic_uint kwp_odd; /* it keeps lengths that are no multiple of 8: enum kms_hsm_verdict */
    atomic_uint oaep[KMS_HSM_HASHES][2][2]; /* native OAEP by hash, label, C_UnwrapKey: enum
                                               kms_hsm_verdict */
};
enum kms_hsm_verdict { KMS_HSM_UNKNOWN, KMS_HSM_YES, KMS_HSM_NO };

struct kms_backend {
    struct kms_p11_token *token;
    const char *pin;               /* its reference, borrowed, or NULL */
    enum kms_alg only;             /* `mechanism:`, or KMS_ALG_NONE for auto */
    struct kms_secure_pool *small; /* slots of KMS_HSM_SMALL bytes for plaintext on its way */
    struct kms_hsm_table *table;   /* the keys that are known */
    struct kms_hsm_tried tried;
    atomic_uint_fast64_t doubt_ns; /* when a search that finds nothing is next doubted */
    atomic_uint_fast64_t doubt_pause_ns;
    atomic_bool destroyed; /* a key, by us, and no search has found any since: finding nothing is
                              no surprise */
};

#define KMS_HSM_SMALL 2048

/* ---- hsm_keys.c: looking for keys ---------------------------------------------------------------
 */

/* The key of @ref, from the table or the token; CKR_KEY_HANDLE_INVALID and ask->err when there is
 * none. Released with kms_hsm_key_put(). */
CK_RV kms_hsm_key_get(struct kms_backend *b, struct kms_p11 *p, const char *ref,
                      struct kms_hsm_key **ret_key);
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

/* ---- hsm_table.c: the keys that are known -------------------------------------------------------
 */

struct kms_hsm_key *kms_hsm_key_ref(struct kms_hsm_key *key);
void kms_hsm_key_put(struct kms_hsm_key *key); /* NULL is fine */
bool kms_hsm_key_is(const struct kms_hsm_key *key, const char *ref);
void kms_hsm_keys_done(struct kms_hsm_keys *keys);
struct kms_hsm_table *kms_hsm_table_new(void);
void kms_hsm_table_free(struct kms_hsm_table *table); /* NULL is fine */
/* The entry of @ref whatever its generation, or NULL. A reference, as the next. */
struct kms_hsm_key *kms_hsm_table_find(struct kms_hsm_table *table, const char *ref);
struct kms_hsm_key *kms_hsm_table_by_handle(struct kms_hsm_table *table, uint64_t generation,
                                            CK_OBJECT_HANDLE handle);
CK_RV kms_hsm_table_update(struct kms_hsm_table *table, const struct kms_key_filter *filter,
                           const struct kms_hsm_keys *found);
/* Keys that failed by themselves when last looked at, by name. */
bool kms_hsm_table_is_sick(struct kms_hsm_table *table, const char *name);
bool kms_hsm_table_has_sick(struct kms_hsm_table *table);
void kms_hsm_table_set_sick(struct kms_hsm_table *table, const char *name);
void kms_hsm_table_set_well(struct kms_hsm_table *table, const char *name);

/* ---- hsm_beside.c: what lies beside keys: public halves and companions
 * ---------------------------
 */

/*
 * Where many keys are looked at, one search and a sorted list stand for a search per key: a token
 * may take as long for each search as it has keys. Good for one step; of one step's thread.
 */
struct kms_hsm_beside;
/* NULL, which every function here takes: no memory, so each key has its own search. */
struct kms_hsm_beside *kms_hsm_beside_new(void);
void kms_hsm_beside_free(struct kms_hsm_beside *beside); /* NULL is fine */
/* The one public key of @type with that CKA_ID, the one HMAC key with that label and CKA_ID;
 * CK_INVALID_HANDLE when there are none or several. */
CK_RV kms_hsm_beside_public(struct kms_p11 *p, struct kms_hsm_beside *beside, CK_KEY_TYPE type,
                            struct kms_span tag, CK_OBJECT_HANDLE *ret_handle);
CK_RV kms_hsm_beside_mac(struct kms_p11 *p, struct kms_hsm_beside *beside, const char *label,
                         struct kms_span tag, CK_OBJECT_HANDLE *ret_handle);

/* ---- hsm_describe.c: one object's attributes and identity --------------------------------------
 */

/* CKR_MECHANISM_INVALID when the object is no key of ours or cannot be identified. */
CK_RV kms_hsm_describe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_beside *beside,
                       CK_OBJECT_HANDLE handle, CK_OBJECT_CLASS class,
                       struct kms_hsm_key **ret_key);
/* For CKA_ALLOWED_MECHANISMS; @key is a struct kms_hsm_key. */
bool kms_hsm_allows(const void *key, CK_MECHANISM_TYPE mechanism);

/* ---- hsm_identity.c -----------------------------------------------------------------------------
 */

/* Sets the key's identity and its alias, and finds its companion or its public half. */
CK_RV kms_hsm_identify(struct kms_p11 *p, struct kms_hsm_beside *beside, struct kms_hsm_key *key);
/* Once it is known what the key seals by. */
void kms_hsm_bind_companion(struct kms_hsm_key *key);
/* Whether what is behind @key's handle still has its label, its CKA_ID and its material. */
CK_RV kms_hsm_still(struct kms_p11 *p, struct kms_hsm_beside *beside, const struct kms_hsm_key *key,
                    bool *ret_same);

/* ---- hsm_public.c: public keys as OpenSSL has them ---------------------------------------------
 */

CK_RV kms_hsm_public_read(struct kms_p11 *p, struct kms_hsm_beside *beside,
                          CK_OBJECT_HANDLE private_key, CK_KEY_TYPE type, struct kms_span tag,
                          EVP_PKEY **ret_key);

/* ---- hsm_algs.c: the one table of algorithms ----------------------------------------------------
 */

#define KMS_HSM_NO_MECHANISM CK_UNAVAILABLE_INFORMATION

struct kms_hsm_hash {
    const char *name; /* OpenSSL's */
    CK_MECHANISM_TYPE mechanism;
    unsigned long mgf;
    size_t len;
    const uint8_t *info; /* what a DER DigestInfo has before the digest (RFC 8017 9.2 note 1) */
    size_t info_len;
    unsigned number; /* below KMS_HSM_HASHES */
};

/* What an op does with bytes. Each is governed by the key's use of the same name. */
enum kms_hsm_act { KMS_HSM_ENCRYPT, KMS_HSM_DECRYPT, KMS_HSM_WRAP, KMS_HSM_UNWRAP };

struct kms_hsm_work;
struct kms_hsm_alg {
    enum kms_alg alg;
    enum kms_key_type type;
    CK_MECHANISM_TYPE mechanism;
    CK_MECHANISM_TYPE other; /* does it too, with work of ours, or KMS_HSM_NO_MECHANISM */
    const struct kms_hsm_hash *hash;
    CK_RV (*seal)(struct kms_p11 *p, struct kms_hsm_work *work); /* NULL: does not encrypt */
    CK_RV (*open)(struct kms_p11 *p, struct kms_hsm_work *work);
    enum { KMS_HSM_NO_SIGN, KMS_HSM_SIGN, KMS_HSM_MAC } sign;
};

/* NULL for one that no HSM key has. */
const struct kms_hsm_alg *kms_hsm_alg_find(enum kms_alg alg);
/* Whether @key's type, uses and token allow @act; some of it is found out by a trial. */
bool kms_hsm_can(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *key,
                 const struct kms_hsm_alg *row, enum kms_hsm_act act);
/* The mechanism by which @key makes @row's signatures, or KMS_HSM_NO_MECHANISM. */
CK_MECHANISM_TYPE kms_hsm_sign_mechanism(const struct kms_p11 *p, const struct kms_hsm_key *key,
                                         const struct kms_hsm_alg *row, CK_FLAGS flag);
unsigned kms_hsm_act_use(enum kms_hsm_act act); /* enum kms_key_use */
/* All that can be asked of @key, of a token. */
void kms_hsm_algs_of_key(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key);
struct kms_alg_set kms_hsm_algs_of_token(const struct kms_backend *b, const struct kms_p11 *p);

/* ---- hsm_seal.c: encrypt, decrypt, wrap and unwrap, whichever algorithm -------------------------
 */

enum kms_status kms_hsm_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed);
enum kms_status kms_hsm_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext);
enum kms_status kms_hsm_wrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span key,
                             struct kms_sealed *ret_sealed);
enum kms_status kms_hsm_unwrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span wrapped,
                               struct kms_buf *ret_key);

/* One piece of work for an algorithm. Outputs have room; lengths are set on success. */
struct kms_hsm_work {
    struct kms_backend *backend;
    const struct kms_hsm_key *key;
    const struct kms_hsm_alg *row;
    enum kms_hsm_act act;
    struct kms_span aad;
    struct kms_span in;
    unsigned tag_len;       /* AES-GCM, bytes */
    unsigned ctr_bits;      /* AES-CTR */
    bool iv_given;          /* to seal: iv is the caller's */
    uint8_t iv[KMS_IV_MAX]; /* seal: out, and in when iv_given; open: in */
    size_t iv_len;
    uint8_t *out;
    size_t out_room; /* seal: in + 1024; open: at least in.len and the modulus */
    size_t out_len;
};

/* ---- hsm_bytes.c: bytes through a mechanism of the token ----------------------------------------
 */

enum kms_hsm_way {
    KMS_HSM_NO_WAY,
    KMS_HSM_BY_DATA, /* C_Encrypt, C_Decrypt */
    KMS_HSM_BY_KEY,  /* as a session's secret key, by C_WrapKey, C_UnwrapKey */
};
enum kms_hsm_way kms_hsm_way(const struct kms_p11 *p, const struct kms_hsm_key *key,
                             CK_MECHANISM_TYPE mechanism, enum kms_hsm_act act);
/* work->in to work->out, whichever way; CKR_MECHANISM_INVALID when there is none. */
CK_RV kms_hsm_bytes_seal(struct kms_p11 *p, struct kms_hsm_work *work, CK_MECHANISM *mechanism);
CK_RV kms_hsm_bytes_open(struct kms_p11 *p, struct kms_hsm_work *work, CK_MECHANISM *mechanism);

/* ---- hsm_probe.c: what only a trial tells -------------------------------------------------------
 */

/* Which schemes @key can do, and which is the best; probes the token. */
CK_RV kms_hsm_seal_probe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_key *key);

/*
 * work->row's open(), and what its failure means: CKR_ENCRYPTED_DATA_INVALID for bad data, though
 * some tokens say CKR_GENERAL_ERROR for it (SoftHSM 2.6 for a wrong GCM tag). So after an unclear
 * failure it is asked whether the token works with data known to be good. If it does not, the token
 * is sick and its first answer stands; if it does, @work is tried once more before it is called
 * bad.
 */
CK_RV kms_hsm_open_surely(struct kms_p11 *p, struct kms_hsm_work *work,
                          CK_RV (*open)(struct kms_p11 *, struct kms_hsm_work *));

/* Seals a fixed text like @like and opens it; CKR_MECHANISM_PARAM_INVALID when another comes back,
 * CKR_KEY_FUNCTION_NOT_PERMITTED when the key's uses do not let it do both. */
CK_RV kms_hsm_round_trip(struct kms_p11 *p, const struct kms_hsm_work *like,
                         CK_RV (*seal)(struct kms_p11 *, struct kms_hsm_work *),
                         CK_RV (*open)(struct kms_p11 *, struct kms_hsm_work *));
/* Sets @ret_act to what @key may do of encrypt and wrap, together with its opposite; false: none.
 */
bool kms_hsm_both_ways(const struct kms_hsm_key *key, enum kms_hsm_act *ret_act);

/* Not a sick token, but one that does not do it this way, and may take another. */
bool kms_hsm_is_refusal(CK_RV rv);

/*
 * Tries ways 0 to @count - 1 until one works, and says which; *ret_way is @count when the token
 * refuses each. What failed for no clear reason is returned if none works.
 */
CK_RV kms_hsm_first_way(struct kms_p11 *p, size_t count,
                        CK_RV (*try_way)(struct kms_p11 *p, size_t way, void *ctx), void *ctx,
                        size_t *ret_way);

/* ---- the algorithms ------------------------------------------------------------------------- */

/* hsm_gcm.c. Probe: sets key->gcm; KMS_HSM_GCM_NONE with what it failed with, if unclear. */
CK_RV kms_hsm_gcm_probe(struct kms_p11 *p, struct kms_backend *b, struct kms_hsm_key *key);
CK_RV kms_hsm_gcm_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_gcm_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
/* hsm_cbc_hmac.c. Probe: whether a round trip works. */
CK_RV kms_hsm_cbc_probe(struct kms_p11 *p, struct kms_backend *b, const struct kms_hsm_key *key);
CK_RV kms_hsm_cbc_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_cbc_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
/* hsm_cipher.c: AES without authentication, and AES key wrap */
CK_RV kms_hsm_cipher_seal(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_cipher_open(struct kms_p11 *p, struct kms_hsm_work *work);
/* The token's mechanism that is KWP of NIST SP 800-38F, tried with @key if need be and it can wrap;
 * KMS_HSM_NO_MECHANISM while none is known. */
CK_MECHANISM_TYPE kms_hsm_kwp(struct kms_backend *b, struct kms_p11 *p,
                              const struct kms_hsm_key *key);
/* hsm_oaep.c. Probe: sets key->oaep and key->oaep_raw. */
CK_RV kms_hsm_oaep_probe(struct kms_p11 *p, struct kms_backend *b, struct kms_hsm_key *key);
CK_RV kms_hsm_oaep_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_oaep_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
/* Whether CKM_RSA_PKCS_OAEP does @row's hash, with a label or without. */
enum kms_hsm_verdict kms_hsm_oaep_native(struct kms_p11 *p, struct kms_backend *b,
                                         const struct kms_hsm_key *key,
                                         const struct kms_hsm_alg *row, enum kms_hsm_act act,
                                         bool labelled);
/* hsm_rsa.c: PKCS#1 v1.5 and no padding at all */
CK_RV kms_hsm_rsa_encrypt(struct kms_p11 *p, struct kms_hsm_work *work);
CK_RV kms_hsm_rsa_decrypt(struct kms_p11 *p, struct kms_hsm_work *work);
/* A private operation without padding: exactly the modulus's length in work->out. */
CK_RV kms_hsm_rsa_raw(struct kms_p11 *p, struct kms_hsm_work *work);

/* ---- hsm_make.c, hsm_sign.c, hsm_verify.c, hsm_label.c, hsm_token.c -----------------------------
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
enum kms_status kms_hsm_verify(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_span signature);
/* CK_RSA_PKCS_PSS_PARAMS's salt for @params: as long as the digest unless it is given. */
size_t kms_hsm_salt_len(const struct kms_hsm_alg *row, const struct kms_params *params);
enum kms_status kms_hsm_set_label(struct kms_backend *b, struct kms_call *call, const char *ref,
                                  const char *label);
enum kms_status kms_hsm_describe_token(struct kms_backend *b, struct kms_call *call,
                                       struct kms_token_info *ret_info);
enum kms_status kms_hsm_check_pin(struct kms_backend *b, struct kms_call *call,
                                  struct kms_span pin);

/* hsm.c: runs @step for @call. The second is for ops that the waist does not repeat: their one
 * attempt waits, inside the deadline, until a token that is being repaired is there again. */
enum kms_status kms_hsm_run(struct kms_backend *b, struct kms_call *call, enum kms_p11_mode mode,
                            kms_p11_step step, void *ctx);
enum kms_status kms_hsm_run_once(struct kms_backend *b, struct kms_call *call,
                                 enum kms_p11_mode mode, kms_p11_step step, void *ctx);

#endif
