/* SPDX-License-Identifier: Apache-2.0 */
/* Who a key is, from its material (backend/p11/keyid.h), and whether it still is. */
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "backend/p11/keyid.h"

/* The one HMAC key that goes with an AES key, if there is one. */
static CK_RV find_companion(struct kms_p11 *p, struct kms_hsm_beside *beside,
                            struct kms_hsm_key *key)
{
    char label[KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX)];

    if (key->info.label[0] == '\0' || key->info.tag_len == 0 ||
        !kms_p11_can(p, CKM_SHA256_HMAC, CKF_SIGN)) {
        return CKR_OK;
    }
    (void)snprintf(label, sizeof(label), "%s%s", key->info.label, KMS_HSM_MAC_SUFFIX);
    return kms_hsm_beside_mac(p, beside, label, kms_span_of(key->info.tag, key->info.tag_len),
                              &key->mac);
}

static void set_id(char *ret_id, const char *kind, struct kms_span a, struct kms_span b)
{
    char id[KMS_P11_KEYID_SIZE];

    kms_p11_keyid_text(kind, a, b, id);
    memcpy(ret_id, id, sizeof(id));
}

/* Which of C_Encrypt, C_Decrypt and C_WrapKey the key is there for. */
static CK_FLAGS key_flags(const struct kms_hsm_key *key)
{
    unsigned uses = key->info.uses;

    return ((uses & KMS_USE_ENCRYPT) != 0 ? (CK_FLAGS)CKF_ENCRYPT : 0) |
           ((uses & KMS_USE_DECRYPT) != 0 ? (CK_FLAGS)CKF_DECRYPT : 0) |
           ((uses & KMS_USE_WRAP) != 0 ? (CK_FLAGS)CKF_WRAP : 0);
}

static CK_RV identify_aes(struct kms_p11 *p, struct kms_hsm_key *key)
{
    uint8_t block[KMS_P11_KEYID_BLOCK];
    uint8_t mac[KMS_P11_KEYID_MAC];
    struct kms_span c = kms_span_of(block, sizeof(block));
    CK_RV rv = kms_p11_keyid_block(p, key->handle, key_flags(key), kms_hsm_allows, key, block);

    if (rv != CKR_OK) {
        return rv;
    }
    set_id(key->info.id, "aes", c, KMS_SPAN_NONE);
    if (key->mac == CK_INVALID_HANDLE) {
        return CKR_OK;
    }
    rv = kms_p11_keyid_mac(p, key->mac, mac);
    if (rv == CKR_OK) {
        set_id(key->alias, "aes+mac", c, kms_span_of(mac, sizeof(mac)));
    } else if (kms_ckr_is_unsupported(rv)) {
        key->mac = CK_INVALID_HANDLE;
        rv = CKR_OK;
    } else if (kms_ckr_is_unclear(rv)) { /* GCM does without it */
        key->unclear = rv;
        rv = kms_p11_renew(p);
    }
    return rv;
}

/*
 * The companion is a part of the key only when it takes part in sealing; otherwise who makes or
 * destroys that object must not change the key's identity. The key answers to both.
 */
void kms_hsm_bind_companion(struct kms_hsm_key *key)
{
    char plain[KMS_KEY_ID_MAX];

    if (key->info.seal == KMS_ALG_AES_CBC_HMAC) {
        memcpy(plain, key->info.id, sizeof(plain));
        memcpy(key->info.id, key->alias, sizeof(key->info.id));
        memcpy(key->alias, plain, sizeof(key->alias));
    }
}

static CK_RV identify_generic(struct kms_p11 *p, struct kms_hsm_key *key)
{
    uint8_t mac[KMS_P11_KEYID_MAC];
    CK_RV rv = CKR_MECHANISM_INVALID;

    if ((key->info.uses & KMS_USE_SIGN) != 0 && kms_p11_can(p, CKM_SHA256_HMAC, CKF_SIGN) &&
        kms_hsm_allows(key, CKM_SHA256_HMAC)) {
        rv = kms_p11_keyid_mac(p, key->handle, mac);
    }
    if (rv == CKR_OK) {
        set_id(key->info.id, "mac", kms_span_of(mac, sizeof(mac)), KMS_SPAN_NONE);
    }
    return rv;
}

static CK_RV set_spki_id(EVP_PKEY *public_key, char *ret_id)
{
    uint8_t *der = NULL;
    int len = i2d_PUBKEY(public_key, &der);

    if (len <= 0) {
        return CKR_HOST_MEMORY;
    }
    set_id(ret_id, "spki", kms_span_of(der, (size_t)len), KMS_SPAN_NONE);
    OPENSSL_free(der);
    return CKR_OK;
}

static CK_RV identify_pair(struct kms_p11 *p, struct kms_hsm_beside *beside,
                           struct kms_hsm_key *key)
{
    CK_RV rv = kms_hsm_public_read(p, beside, key->handle, key->key_type,
                                   kms_span_of(key->info.tag, key->info.tag_len), &key->public_key);

    if (rv == CKR_OK) {
        rv = set_spki_id(key->public_key, key->info.id);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    key->info.bits = (unsigned)EVP_PKEY_get_bits(key->public_key);
    key->size = (key->info.bits + 7) / 8;
    return CKR_OK;
}

CK_RV kms_hsm_identify(struct kms_p11 *p, struct kms_hsm_beside *beside, struct kms_hsm_key *key)
{
    CK_RV rv = CKR_OK;

    switch (key->info.type) {
    case KMS_KEY_AES:
        rv = find_companion(p, beside, key);
        return rv == CKR_OK ? identify_aes(p, key) : rv;
    case KMS_KEY_GENERIC:
        return identify_generic(p, key);
    default:
        return identify_pair(p, beside, key);
    }
}

/* The identity that the material behind key->handle has now, without a companion. */
static CK_RV identity_now(struct kms_p11 *p, struct kms_hsm_beside *beside,
                          const struct kms_hsm_key *key, char *ret_id)
{
    struct kms_span tag = kms_span_of(key->info.tag, key->info.tag_len);
    uint8_t evidence[KMS_P11_KEYID_MAC];
    EVP_PKEY *public_key = NULL;
    CK_RV rv = CKR_OK;

    switch (key->info.type) {
    case KMS_KEY_AES:
        rv = kms_p11_keyid_block(p, key->handle, key_flags(key), kms_hsm_allows, key, evidence);
        if (rv == CKR_OK) {
            set_id(ret_id, "aes", kms_span_of(evidence, KMS_P11_KEYID_BLOCK), KMS_SPAN_NONE);
        }
        return rv;
    case KMS_KEY_GENERIC:
        rv = kms_p11_keyid_mac(p, key->handle, evidence);
        if (rv == CKR_OK) {
            set_id(ret_id, "mac", kms_span_of(evidence, KMS_P11_KEYID_MAC), KMS_SPAN_NONE);
        }
        return rv;
    default:
        rv = kms_hsm_public_read(p, beside, key->handle, key->key_type, tag, &public_key);
        if (rv == CKR_OK) {
            rv = set_spki_id(public_key, ret_id);
        }
        EVP_PKEY_free(public_key);
        return rv;
    }
}

/*
 * A token may give the handle of a destroyed key to the next one it makes, and that one may bear
 * the same names: what is the same is the material.
 */
CK_RV kms_hsm_still(struct kms_p11 *p, struct kms_hsm_beside *beside, const struct kms_hsm_key *key,
                    bool *ret_same)
{
    char label[KMS_LABEL_MAX];
    uint8_t tag[KMS_KEY_TAG_MAX];
    char id[KMS_P11_KEYID_SIZE] = "";
    CK_ATTRIBUTE rows[] = {{CKA_LABEL, label, sizeof(label)}, {CKA_ID, tag, sizeof(tag)}};
    CK_RV rv = kms_p11_read(p, key->handle, rows, 2);

    if (rv != CKR_OK) {
        return rv;
    }
    *ret_same = rows[0].ulValueLen == strlen(key->info.label) &&
                memcmp(label, key->info.label, rows[0].ulValueLen) == 0 &&
                (kms_p11_has(&rows[1]) ? rows[1].ulValueLen : 0) == key->info.tag_len &&
                memcmp(tag, key->info.tag, key->info.tag_len) == 0;
    if (!*ret_same) {
        return CKR_OK;
    }
    rv = identity_now(p, beside, key, id);
    *ret_same = rv == CKR_OK && kms_hsm_key_is(key, id);
    return kms_ckr_is_unsupported(rv) ? CKR_OK : rv; /* then it is another, of another kind */
}
