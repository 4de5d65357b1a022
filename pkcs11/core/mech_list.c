/* SPDX-License-Identifier: Apache-2.0 */
/* Which mechanisms a slot and a key have. */
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/mech.h"

/* A hash that the service does not sign digests of, where it signs by one alone. */
static bool has_other_hash(const struct kms_mech *mech, const struct kms_alg_set *algs)
{
    return mech->hash != NULL && strcmp(mech->hash, "SHA256") != 0 &&
           (mech->kind == KMS_MECH_RSA_PKCS1 || mech->kind == KMS_MECH_ECDSA) &&
           kms_alg_set_has(algs, KMS_ALG_SHA256_ALONE);
}

/* Whether @algs has what the mechanism needs, in any of its variants. */
static bool has_alg(const struct kms_mech *mech, const struct kms_alg_set *algs)
{
    const struct kms_hash *hash;

    if (has_other_hash(mech, algs)) {
        return false;
    }
    if (mech->alg ==
        KMS_ALG_BEST) { /* SEALED and data keys: what KMS_ALG_BEST comes to with a secret key */
        return kms_alg_set_has(algs, KMS_ALG_AES_GCM) ||
               kms_alg_set_has(algs, KMS_ALG_AES_CBC_HMAC) ||
               kms_alg_set_has(algs, KMS_ALG_CHACHA20_POLY1305) ||
               kms_alg_set_has(algs, KMS_ALG_SEALED) || kms_alg_set_has(algs, KMS_ALG_BEST);
    }
    if (mech->alg != KMS_ALG_NONE && kms_alg_set_has(algs, mech->alg)) {
        return true;
    }
    if (mech->whole != KMS_ALG_NONE && kms_alg_set_has(algs, mech->whole)) {
        return true;
    }
    if (mech->hash != NULL || (mech->param != KMS_PARAM_PSS && mech->param != KMS_PARAM_OAEP)) {
        return false;
    }
    for (size_t i = 0; (hash = kms_hash_at(i)) != NULL; i++) {
        enum kms_alg alg = mech->param == KMS_PARAM_PSS ? hash->pss : hash->oaep;

        if (alg != KMS_ALG_NONE && kms_alg_set_has(algs, alg)) {
            return true;
        }
    }
    return false;
}

static const CK_KEY_TYPE types[KMS_KEY_TYPE_COUNT] = {
    [KMS_KEY_AES] = CKK_AES,           [KMS_KEY_GENERIC] = CKK_GENERIC_SECRET,
    [KMS_KEY_RSA] = CKK_RSA,           [KMS_KEY_EC] = CKK_EC,
    [KMS_KEY_EDDSA] = CKK_EC_EDWARDS,  [KMS_KEY_CHACHA20] = CKK_CHACHA20,
    [KMS_KEY_SM4] = CKK_KMSBRIDGE_SM4,
};

static bool waist_type(CK_KEY_TYPE type, enum kms_key_type *ret_type)
{
    for (size_t i = 0; i < KMS_KEY_TYPE_COUNT; i++) {
        if (types[i] == type) {
            *ret_type = (enum kms_key_type)i;
            return true;
        }
    }
    return false;
}

/* What the slot's token does of it. */
static CK_FLAGS remote_flags(const struct kms_slot *slot, const struct kms_mech *mech)
{
    enum kms_key_type type = KMS_KEY_AES;

    if (mech->kind == KMS_MECH_KEY_GEN || mech->kind == KMS_MECH_PAIR_GEN) {
        return waist_type(mech->key_type, &type) &&
                       (slot->token.info.generates & (1u << (unsigned)type)) != 0
                   ? mech->remote
                   : 0;
    }
    return has_alg(mech, &slot->token.info.algs) ? mech->remote : 0;
}

static CK_FLAGS flags_of(const struct kms_slot *slot, const struct kms_mech *mech)
{
    CK_FLAGS remote = remote_flags(slot, mech);
    /* a data key that the service does not make is made here */
    bool there = mech->kind != KMS_MECH_DATA_KEY || slot->token.info.data_keys;
    CK_FLAGS hardware = remote != 0 && slot->token.info.hardware && there ? CKF_HW : 0;

    return mech->local | remote | hardware;
}

CK_RV kms_mech_list(const struct kms_slot *slot, CK_MECHANISM_TYPE *list, CK_ULONG *count)
{
    const struct kms_mech *mech;
    CK_ULONG have = 0;

    if (count == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    for (size_t i = 0; (mech = kms_mech_at(i)) != NULL; i++) {
        if (flags_of(slot, mech) != 0) {
            if (list != NULL && have < *count) {
                list[have] = mech->type;
            }
            have++;
        }
    }
    if (list != NULL && have > *count) {
        *count = have;
        return CKR_BUFFER_TOO_SMALL;
    }
    *count = have;
    return CKR_OK;
}

CK_RV kms_mech_info(const struct kms_slot *slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *ret)
{
    const struct kms_mech *mech = kms_mech_find(type);
    CK_FLAGS flags = mech == NULL ? 0 : flags_of(slot, mech);

    if (ret == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    if (flags == 0) {
        return CKR_MECHANISM_INVALID;
    }
    *ret =
        (CK_MECHANISM_INFO){.ulMinKeySize = mech->min, .ulMaxKeySize = mech->max, .flags = flags};
    return CKR_OK;
}

static CK_FLAGS flags_of_uses(unsigned uses)
{
    static const struct {
        unsigned use;
        CK_FLAGS flag;
    } rows[] = {
        {KMS_USE_ENCRYPT, CKF_ENCRYPT}, {KMS_USE_DECRYPT, CKF_DECRYPT},
        {KMS_USE_WRAP, CKF_WRAP},       {KMS_USE_UNWRAP, CKF_UNWRAP},
        {KMS_USE_SIGN, CKF_SIGN},       {KMS_USE_VERIFY, CKF_VERIFY},
    };
    CK_FLAGS flags = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((uses & rows[i].use) != 0) {
            flags |= rows[i].flag;
        }
    }
    return flags;
}

static bool takes(const struct kms_mech *mech, enum kms_key_type type)
{
    return (unsigned)type < KMS_KEY_TYPE_COUNT && kms_mech_takes(mech, types[type]);
}

size_t kms_mech_allowed(const struct kms_alg_set *algs, enum kms_key_type type, unsigned uses,
                        CK_MECHANISM_TYPE *ret, size_t max)
{
    const CK_FLAGS flags = flags_of_uses(uses);
    const struct kms_mech *mech;
    size_t count = 0;

    for (size_t i = 0; (mech = kms_mech_at(i)) != NULL && count < max; i++) {
        bool makes = mech->kind == KMS_MECH_KEY_GEN || mech->kind == KMS_MECH_PAIR_GEN ||
                     mech->kind == KMS_MECH_DATA_KEY;

        if (!makes && (mech->remote & flags) != 0 && takes(mech, type) && has_alg(mech, algs)) {
            ret[count++] = mech->type;
        }
    }
    return count;
}
