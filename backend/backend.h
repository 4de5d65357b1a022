/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The waist: what every key service can be asked, in nobody's dialect. Fronts (KMS v2, PKCS#11
 * agent) call it through backend/waist.h, which adds deadlines, retries and observation; services
 * implement it, one file each.
 *
 * Who may include this: everybody above common/. What it may use: common/ only. No CK_ type, no
 * HTTP, no gRPC.
 *
 * Threads: every op may be called from any thread at any time between open and close; a backend
 * holds no lock across a call to its service. Ownership: all in-parameters are borrowed for the
 * call; outputs go to the caller's storage and are written on success only. An op makes one attempt
 * for its caller (a backend may repair its own session and repeat inside the deadline); it never
 * outlives call->deadline_ns by design, but a PKCS#11 module that hangs cannot be interrupted: the
 * front must keep threads to spare.
 */
#ifndef KMS_BACKEND_BACKEND_H
#define KMS_BACKEND_BACKEND_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/span.h"
#include "common/status.h"

#define KMS_KEY_REF_MAX    128 /* with NUL */
#define KMS_KEY_ID_MAX     80  /* with NUL */
#define KMS_LABEL_MAX      256 /* with NUL */
#define KMS_KEY_TAG_MAX    64  /* bytes of a CKA_ID */
#define KMS_KEY_NAME_MAX   512 /* with NUL */
#define KMS_VERSION_MAX    64  /* with NUL */
#define KMS_PLAINTEXT_MAX  65536
#define KMS_CIPHERTEXT_MAX (KMS_PLAINTEXT_MAX + 1024)
#define KMS_IV_MAX         32
#define KMS_PUBLIC_KEY_MAX 2560 /* DER SubjectPublicKeyInfo: RSA-16384 fits */
#define KMS_SIGNATURE_MAX  2048
#define KMS_RETRY_RESERVE  10
#define KMS_DATA_KEY_MAX   64 /* bytes */

enum kms_key_type {
    KMS_KEY_AES,     /* CKK_AES, 128 to 256 bits */
    KMS_KEY_GENERIC, /* HMAC key */
    KMS_KEY_RSA,
    KMS_KEY_EC,       /* P-256, P-384, P-521 by bits */
    KMS_KEY_EDDSA,    /* Ed25519 */
    KMS_KEY_CHACHA20, /* 256 bits, with Poly1305 (RFC 8439) */
    KMS_KEY_SM4,      /* 128 bits (GB/T 32907), by KMS_ALG_SEALED alone */
    KMS_KEY_TYPE_COUNT
};

/* What a key may be used for; a bit set. */
enum kms_key_use {
    KMS_USE_ENCRYPT = 1u << 0,
    KMS_USE_DECRYPT = 1u << 1,
    KMS_USE_WRAP = 1u << 2,
    KMS_USE_UNWRAP = 1u << 3,
    KMS_USE_SIGN = 1u << 4,
    KMS_USE_VERIFY = 1u << 5
};

/* Between a CKM_* and a provider's string. Values are ours, stored in envelopes: never renumber. */
enum kms_alg {
    KMS_ALG_NONE = 0,
    KMS_ALG_AES_GCM = 1, /* 12-byte IV, 16-byte tag behind the ciphertext (NIST SP 800-38D) */
    KMS_ALG_RSA_OAEP_SHA256 = 2, /* RFC 8017, MGF1-SHA256; the AAD's SHA-256 is the label */
    KMS_ALG_AES_CBC_HMAC =
        3,              /* AES-CBC-PAD, then HMAC-SHA256 over aad || iv || ciphertext || be64 bits
                           of aad (the construction of RFC 7518 5.2.2.1); 32-byte tag behind */
    KMS_ALG_SEALED = 4, /* the service's own authenticated scheme: the ciphertext is its blob,
                           unchanged, and no IV is told; the AAD counts */
    KMS_ALG_CHACHA20_POLY1305 = 5, /* 12-byte IV, 16-byte tag behind the ciphertext (RFC 8439) */
    KMS_ALG_BEST = 15, /* encrypt only: the strongest authenticated one this key and token have;
                          struct kms_sealed says which it was */
    KMS_ALG_AES_CBC = 16,
    KMS_ALG_AES_CBC_PAD = 17,
    KMS_ALG_AES_CTR = 18,
    KMS_ALG_AES_KEY_WRAP = 19,
    KMS_ALG_AES_KEY_WRAP_PAD = 20,
    KMS_ALG_RSA_OAEP_SHA1 = 32,    /* the AAD itself is the label; MGF1 with the same hash */
    KMS_ALG_RSA_PKCS1 = 33,        /* sign: input is a DER DigestInfo; decrypt: PKCS#1 v1.5 */
    KMS_ALG_RSA_PKCS1_SHA256 = 34, /* sign: input is the message */
    KMS_ALG_RSA_PKCS1_SHA384 = 35,
    KMS_ALG_RSA_PKCS1_SHA512 = 36,
    KMS_ALG_RSA_PSS_SHA256 = 37, /* sign: input is the digest; salt as long as the digest */
    KMS_ALG_RSA_PSS_SHA384 = 38,
    KMS_ALG_RSA_PSS_SHA512 = 39,
    KMS_ALG_RSA_OAEP_L_SHA256 = 40, /* as RSA_OAEP_SHA1: the AAD itself is the label */
    KMS_ALG_RSA_OAEP_L_SHA384 = 41,
    KMS_ALG_RSA_OAEP_L_SHA512 = 42,
    KMS_ALG_RSA_RAW = 43, /* sign, decrypt: as long as the modulus, no padding (CKM_RSA_X_509) */
    KMS_ALG_RSA_PSS_SHA1 = 44,
    KMS_ALG_RSA_PSS_SHA224 = 45,
    KMS_ALG_ECDSA =
        48, /* sign: input is the digest; signature is r || s, each padded to the field */
    KMS_ALG_EDDSA = 49, /* pure Ed25519: input is the message */
    KMS_ALG_HMAC_SHA1 = 64,
    KMS_ALG_HMAC_SHA256 = 65,
    KMS_ALG_HMAC_SHA384 = 66,
    KMS_ALG_HMAC_SHA512 = 67,
    KMS_ALG_HMAC_SHA224 = 68,
    KMS_ALG_SHA256_ALONE = 127 /* none, in a set only: of its RSA_PKCS1 and ECDSA the service signs
                                  digests of SHA-256 and no others */
};

/* A set of algorithms, by bit; every enum kms_alg is below 128. */
struct kms_alg_set {
    uint64_t bits[2];
};
static inline void kms_alg_set_add(struct kms_alg_set *set, enum kms_alg alg)
{
    set->bits[((unsigned)alg >> 6) & 1u] |= UINT64_C(1) << ((unsigned)alg & 63u);
}
static inline bool kms_alg_set_has(const struct kms_alg_set *set, enum kms_alg alg)
{
    return (set->bits[((unsigned)alg >> 6) & 1u] >> ((unsigned)alg & 63u) & 1u) != 0;
}

/* "aes-gcm", ...; "unknown" for a value that is none. Never NULL. */
const char *kms_alg_name(enum kms_alg alg);
const char *kms_key_type_name(enum kms_key_type type);

struct kms_key_info {
    char ref[KMS_KEY_REF_MAX]; /* names the key to its backend in every op */
    char id[KMS_KEY_ID_MAX]; /* the key's identity: the same for replicas of the same key material,
                                different for every other key whatever its label; printable ASCII;
                                never reused */
    char label[KMS_LABEL_MAX];
    uint8_t tag[KMS_KEY_TAG_MAX]; /* CKA_ID */
    size_t tag_len;
    uint64_t order; /* of the keys of one label the newest has the highest; 0: the tag says which is
                       newest, the highest unsigned number */
    enum kms_key_type type;
    unsigned bits;
    unsigned uses; /* enum kms_key_use */
    bool extractable;
    bool always_sensitive;
    bool never_extractable;
    bool local;              /* made inside the service or token, not imported */
    enum kms_alg seal;       /* what KMS_ALG_BEST means for it; KMS_ALG_NONE when it cannot seal */
    struct kms_alg_set algs; /* what can really be asked of it: key, uses and token agree */
    char name[KMS_KEY_NAME_MAX];   /* the service's full name of it, unique there: a resource name,
                                      an RFC 7512 URI */
    char version[KMS_VERSION_MAX]; /* "" when the service has none, or this is the logical key */
    bool latest; /* the logical key itself, or the version that it stands for now */
};

/* What a backend is, as a token. */
struct kms_token_info {
    char label[KMS_LABEL_MAX];
    char manufacturer[33];
    char model[17];
    char serial[17];
    bool hardware;
    bool random;             /* has a random number generator */
    bool data_keys;          /* has the op data_key */
    struct kms_alg_set algs; /* of its keys, whether or not one is there that has them */
    unsigned generates;      /* key types, by bit 1u << enum kms_key_type */
};

/* The part of a tag that counts: without its leading zeros. Borrows @tag's bytes. */
struct kms_span kms_key_tag_significant(struct kms_span tag);

/*
 * Which of a label's keys is newer, for all who must agree on it: below, at or above 0 as @a is
 * older than, the same as or newer than @b. Keys of one order compare by their tags, which do as
 * unsigned big-endian numbers of any length; those of one tag by their id.
 */
int kms_key_tag_compare(struct kms_span a, struct kms_span b);
int kms_key_age_compare(const struct kms_key_info *a, const struct kms_key_info *b);

/* Which keys; a NULL or empty member does not restrict. */
struct kms_key_filter {
    const char *spec; /* as the configuration names keys: a label, "id:HEX" (CKA_ID), or a pkcs11:
                         URI with object or id; KMS_E_INVALID when it cannot be read */
    const char *label;
    struct kms_span tag;
    const char *ref;
    /*
     * As an application sees them: a key whose versions the service chooses among by itself is one,
     * the logical key, whose ref encrypts under the newest version and decrypts what any of them
     * has sealed, and stays when the key is rotated. Keys that are asked by version are shown by
     * version all the same.
     */
    bool logical;
};

struct kms_key_template {
    enum kms_key_type type;
    unsigned bits; /* 0: the type's usual: AES 256, RSA 3072, EC 256 */
    const char *label;
    struct kms_span
        tag;       /* empty: the backend gives one that sorts after every other of the label */
    unsigned uses; /* 0: the type's usual */
    bool logical;  /* what was made is told as such a list has it */
};

/* One call's context. The caller makes it, on its stack; an op fills ->error when it fails. */
struct kms_call {
    uint64_t deadline_ns; /* kms_now_ns() scale */
    const atomic_bool
        *cancelled;         /* NULL, or true once the caller gave up; looked at between steps */
    const char *trace_id;   /* NULL, or the front's id of the request, for logs */
    struct kms_error error; /* ->retry_after_ns: the next attempt is not made before; ->request_id:
                               the service's of its last answer, a good one, too */
};

/* How to encrypt, decrypt, sign or wrap. */
struct kms_params {
    enum kms_alg alg;
    struct kms_span aad; /* authenticated, not encrypted; at most 1024 bytes */
    struct kms_span iv;  /* decrypt: the one used. encrypt: empty, the backend takes a fresh one;
                            given, it is used as it is, or KMS_E_UNSUPPORTED where the service
                            insists on its own */
    unsigned tag_len;    /* AES-GCM, bytes; 0: 16. ChaCha20-Poly1305: 0 or 16 */
    unsigned ctr_bits;   /* AES-CTR: low bits of the block that count; 0: 128 */
    bool salt_given;     /* RSA-PSS: salt_len counts; else as long as the digest */
    unsigned salt_len;   /* bytes */
};

/* What encrypt made. The two bufs' storage is the caller's: cap KMS_IV_MAX, and plaintext + 1024; a
 * third of the plaintext more with a key that has KMS_ALG_SEALED, whose blob may be base64 text. */
struct kms_sealed {
    enum kms_alg alg; /* never KMS_ALG_BEST */
    struct kms_buf iv;
    struct kms_buf ciphertext;   /* tag behind it */
    char key_id[KMS_KEY_ID_MAX]; /* of the very key that was used, from the same reply: another one
                                    than asked for when the service chose another version */
};

struct kms_health {
    bool ready;             /* logged in and able, as far as the last call told */
    unsigned sessions_open; /* connections or sessions now open */
    unsigned sessions_busy; /* of these, in use now */
    unsigned sessions_max;  /* the bound */
    uint64_t reconnects; /* since open: sessions reopened, logins repeated, modules reinitialised */
    uint64_t stuck_ns;   /* how long the oldest call now inside the service or module has taken */
    struct kms_error error; /* why not ready */
};

struct kms_backend;      /* an opened one; each backend's own struct begins with nothing shared */
struct kms_backend_conf; /* backend/backend_conf.h: one entry of `backends:` */

/* A visitor returns false to stop. @info is borrowed for the visit. */
typedef bool (*kms_key_visit)(void *ctx, const struct kms_key_info *info);

/* A NULL op means "cannot": waist.h answers KMS_E_UNSUPPORTED. */
struct kms_backend_ops {
    const char *type; /* `type:` in the configuration */
    /*
     * How many retries a hundred calls pay for, besides the first KMS_RETRY_RESERVE: so that a
     * service in trouble is not asked many times as much as one that is well. 0: no bound, for what
     * is not shared with others.
     */
    unsigned retry_budget;

    /*
     * Checks @conf and makes the backend; must not fail because the service is away or the
     * credential is bad (that is what health and each op report). KMS_E_INVALID names the key of
     * @conf. @conf outlives it.
     */
    enum kms_status (*open)(const struct kms_backend_conf *conf, struct kms_backend **ret_backend,
                            struct kms_error *err);
    /* No op is in flight or will come. */
    void (*close)(struct kms_backend *backend);
    /* From memory, never blocks. */
    void (*health)(struct kms_backend *backend, struct kms_health *ret_health);

    enum kms_status (*list_keys)(struct kms_backend *backend, struct kms_call *call,
                                 const struct kms_key_filter *filter, kms_key_visit visit,
                                 void *ctx);
    /*
     * Never retried. KMS_E_EXISTS when a key with the tag is there, whatever its label. It may take
     * some seconds longer than the deadline to name a key that was made, or to take it back.
     */
    enum kms_status (*generate)(struct kms_backend *backend, struct kms_call *call,
                                const struct kms_key_template *tmpl, struct kms_key_info *ret_info);
    enum kms_status (*destroy)(struct kms_backend *backend, struct kms_call *call, const char *ref);
    /*
     * A newer version of the key that @ref is a version of, or, where the service has no versions,
     * a newer key of its label, type, size and uses; the old one stays as it is. Never retried: a
     * second attempt would make a second one. KMS_E_KEY_STATE, KMS_E_UNSUPPORTED for keys that do
     * not rotate.
     */
    enum kms_status (*rotate)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              struct kms_key_info *ret_info);
    /* DER SubjectPublicKeyInfo (RFC 5280 4.1.2.7), at most KMS_PUBLIC_KEY_MAX. */
    enum kms_status (*public_key)(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, struct kms_buf *ret_spki);
    enum kms_status (*encrypt)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span plaintext,
                               struct kms_sealed *ret_sealed);
    /* KMS_E_BAD_DATA when the tag or padding does not verify. @ret_plaintext is secure memory by
     * the caller. */
    enum kms_status (*decrypt)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span ciphertext,
                               struct kms_buf *ret_plaintext);
    /*
     * @key is the bytes of a secret key, or a DER PrivateKeyInfo (RFC 5208), from the caller's own
     * memory. AES_KEY_WRAP takes multiples of 8 from 16 on, the other wraps any length (NIST SP
     * 800-38F); AEADs and OAEP as encrypt.
     */
    enum kms_status (*wrap)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span key,
                            struct kms_sealed *ret_sealed);
    enum kms_status (*unwrap)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span wrapped,
                              struct kms_buf *ret_key);
    /*
     * The service makes a secret key of @len bytes (1 to KMS_DATA_KEY_MAX) and seals it, in one
     * step: what comes back is both, and unwrap with the same @params opens @ret_sealed to
     * @ret_key.
     * @params as wrap's, without an IV. @ret_key is secure memory by the caller with room for @len.
     * KMS_E_UNSUPPORTED when it makes none of that length, or none with an AAD.
     */
    enum kms_status (*data_key)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                                const struct kms_params *params, size_t len,
                                struct kms_buf *ret_key, struct kms_sealed *ret_sealed);
    /*
     * What encrypt, wrap or data_key sealed with @ref, opened and sealed anew under the newest
     * version of the same key, inside the service: the plaintext never leaves it. @params as
     * decrypt's: algorithm, IV and AAD are those of @ciphertext, and algorithm and AAD of what
     * comes back, too. KMS_E_BAD_DATA as decrypt; KMS_E_UNSUPPORTED where an AAD cannot be told.
     */
    enum kms_status (*rewrap)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span ciphertext,
                              struct kms_sealed *ret_sealed);
    enum kms_status (*sign)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_signature);
    /* By the service, with a MAC or a key pair; KMS_E_BAD_DATA when it does not verify. */
    enum kms_status (*verify)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span input,
                              struct kms_span signature);
    enum kms_status (*mac)(struct kms_backend *backend, struct kms_call *call, const char *ref,
                           const struct kms_params *params, struct kms_span input,
                           struct kms_buf *ret_mac);
    /* Fills @ret_bytes from len to cap. */
    enum kms_status (*random)(struct kms_backend *backend, struct kms_call *call,
                              struct kms_buf *ret_bytes);
    enum kms_status (*set_label)(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const char *label);
    enum kms_status (*describe)(struct kms_backend *backend, struct kms_call *call,
                                struct kms_token_info *ret_info);
    /*
     * Whether @pin is the one that the backend itself logs in with, compared in constant time
     * without asking the service: KMS_E_AUTH when it is not.
     */
    enum kms_status (*check_pin)(struct kms_backend *backend, struct kms_call *call,
                                 struct kms_span pin);
};

#endif
