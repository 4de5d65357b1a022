/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of mechanisms: what each is called, which keys it takes, what it may be used for,
 * how it is done here (soft.h) and what it is called at the waist. Adding a mechanism is one row.
 */
#ifndef KMS_PKCS11_CORE_MECH_H
#define KMS_PKCS11_CORE_MECH_H

#include "backend/backend.h"
#include "pkcs11/core/slot.h"

/* How its CK_MECHANISM.pParameter looks. */
enum kms_mech_param {
    KMS_PARAM_NONE,    /* must be NULL and 0 */
    KMS_PARAM_IV,      /* CBC: 16 bytes */
    KMS_PARAM_GCM,     /* CK_GCM_PARAMS */
    KMS_PARAM_CHACHA,  /* CK_SALSA20_CHACHA20_POLY1305_PARAMS */
    KMS_PARAM_CTR,     /* CK_AES_CTR_PARAMS */
    KMS_PARAM_WRAP_IV, /* key wrap: none, or the IV of 8 (4 with padding) bytes */
    KMS_PARAM_OAEP,    /* CK_RSA_PKCS_OAEP_PARAMS */
    KMS_PARAM_PSS,     /* CK_RSA_PKCS_PSS_PARAMS */
    KMS_PARAM_EDDSA,   /* none, or CK_EDDSA_PARAMS for pure */
    KMS_PARAM_MAC_LEN, /* CK_MAC_GENERAL_PARAMS */
    KMS_PARAM_ECDH,    /* CK_ECDH1_DERIVE_PARAMS */
    KMS_PARAM_HKDF,    /* CK_HKDF_PARAMS */
    KMS_PARAM_SEALED,  /* none, or CK_KMSBRIDGE_SEALED_PARAMS */
    KMS_PARAM_DATA_KEY /* CK_KMSBRIDGE_DATA_KEY_PARAMS; its handle is not looked at */
};

/* What kind of work it is. */
enum kms_mech_kind {
    KMS_MECH_KEY_GEN,
    KMS_MECH_PAIR_GEN,
    KMS_MECH_CIPHER, /* ECB, CBC, CBC_PAD, CTR */
    KMS_MECH_GCM,
    KMS_MECH_CHACHA,
    KMS_MECH_KEY_WRAP,
    KMS_MECH_HMAC,
    KMS_MECH_CMAC,
    KMS_MECH_DIGEST,
    KMS_MECH_RSA_PKCS1,
    KMS_MECH_RSA_PSS,
    KMS_MECH_RSA_OAEP,
    KMS_MECH_RSA_RAW,
    KMS_MECH_ECDSA,
    KMS_MECH_EDDSA,
    KMS_MECH_ECDH,
    KMS_MECH_HKDF,
    KMS_MECH_SEALED,
    KMS_MECH_DATA_KEY
};

struct kms_mech {
    CK_MECHANISM_TYPE type;
    const char *name;     /* "CKM_AES_GCM", for the log */
    CK_KEY_TYPE key_type; /* CK_UNAVAILABLE_INFORMATION: none (digests) or several */
    CK_ULONG min, max;    /* key size as CK_MECHANISM_INFO has it for this type */
    CK_FLAGS local;       /* CKF_ENCRYPT, ...: with session keys, and public halves */
    CK_FLAGS remote;      /* the same with token keys, if the token has @alg */
    enum kms_alg alg;     /* at the waist; KMS_ALG_NONE: never there */
    enum kms_mech_param param;
    const char *hash;  /* EVP name of the digest made of the message first; NULL: none */
    const char *fetch; /* EVP cipher or MAC name; a "%u" in it is the key's bits */
    enum kms_mech_kind kind;
    enum kms_alg whole; /* with token keys that have not @alg but this: the message itself is what
                           crosses, not its hash; else KMS_ALG_NONE */
};

/* The hashes that mechanisms and their parameters name. */
struct kms_hash {
    const char *name; /* for EVP and kms_soft_digest() */
    CK_MECHANISM_TYPE type;
    CK_RSA_PKCS_MGF_TYPE mgf;
    CK_EC_KDF_TYPE kdf;
    size_t len;
    enum kms_alg pss, oaep; /* at the waist; KMS_ALG_NONE: not there */
    struct kms_span info;   /* DER DigestInfo up to the digest: what RSA_PKCS1 signs begins so */
};
const struct kms_hash *kms_hash_at(size_t index); /* row by row; NULL at the end */
/* NULL: none of ours */
const struct kms_hash *kms_hash_find(CK_MECHANISM_TYPE type);
const struct kms_hash *kms_hash_by_mgf(CK_RSA_PKCS_MGF_TYPE mgf);
const struct kms_hash *kms_hash_by_kdf(CK_EC_KDF_TYPE kdf);
const struct kms_hash *kms_hash_by_name(const char *name); /* mech->hash; NULL gives NULL */

const struct kms_mech *kms_mech_find(CK_MECHANISM_TYPE type); /* NULL: not one of ours */
/* Row by row, in the order of the list; NULL at the end. */
const struct kms_mech *kms_mech_at(size_t index);
/* Whether keys of this type are for it: what ->key_type cannot say for HMAC and HKDF. */
bool kms_mech_takes(const struct kms_mech *mech, CK_KEY_TYPE type);
/* C_GetMechanismList and C_GetMechanismInfo of this slot: local ones, and what its token has. */
CK_RV kms_mech_list(const struct kms_slot *slot, CK_MECHANISM_TYPE *list, CK_ULONG *count);
CK_RV kms_mech_info(const struct kms_slot *slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *ret);
/* CKA_ALLOWED_MECHANISMS of a token key with @algs; at most @max, returns how many. */
size_t kms_mech_allowed(const struct kms_alg_set *algs, enum kms_key_type type, unsigned uses,
                        CK_MECHANISM_TYPE *ret, size_t max);

/* pParameter checked against the mechanism and copied into the waist's terms; the hash of OAEP and
 * PSS chooses the alg: KMS_ALG_NONE when the parameters are good, but only here, not at the waist
 * (an MGF1 with another hash than the message's). Fields borrow from @mechanism.
 * CKR_MECHANISM_PARAM_INVALID; CKR_ARGUMENTS_BAD for a NULL @mechanism. */
CK_RV kms_mech_params(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_params *ret_params);
/* Of HMAC and CMAC: what CK_MAC_GENERAL_PARAMS asks for, else the whole; @mechanism was good. */
size_t kms_mech_mac_len(const struct kms_mech *mech, const CK_MECHANISM *mechanism);

#endif
