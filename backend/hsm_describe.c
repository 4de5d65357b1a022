/* SPDX-License-Identifier: Apache-2.0 */
/* From an object on the token to a key of ours: attributes, identity, what it can do. */
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "backend/p11/keyid.h"
#include "backend/p11/uri.h"

enum {
    ROW_KEY_TYPE,
    ROW_LABEL,
    ROW_ID,
    ROW_EXTRACTABLE,
    ROW_ALWAYS_SENSITIVE,
    ROW_NEVER_EXTRACTABLE,
    ROW_LOCAL,
    ROW_ENCRYPT,
    ROW_DECRYPT,
    ROW_WRAP,
    ROW_UNWRAP,
    ROW_SIGN,
    ROW_VERIFY,
    ROW_VALUE_LEN,
    ROW_ALLOWED,
    ROW_COUNT
};

struct attributes {
    CK_ATTRIBUTE rows[ROW_COUNT];
    CK_KEY_TYPE key_type;
    CK_ULONG value_len;
    CK_BBOOL flags[ROW_COUNT];
};

static void attributes_prepare(struct attributes *a, struct kms_hsm_key *key)
{
    static const CK_ATTRIBUTE_TYPE flag_types[ROW_COUNT] = {
        [ROW_EXTRACTABLE] = CKA_EXTRACTABLE,
        [ROW_ALWAYS_SENSITIVE] = CKA_ALWAYS_SENSITIVE,
        [ROW_NEVER_EXTRACTABLE] = CKA_NEVER_EXTRACTABLE,
        [ROW_LOCAL] = CKA_LOCAL,
        [ROW_ENCRYPT] = CKA_ENCRYPT,
        [ROW_DECRYPT] = CKA_DECRYPT,
        [ROW_WRAP] = CKA_WRAP,
        [ROW_UNWRAP] = CKA_UNWRAP,
        [ROW_SIGN] = CKA_SIGN,
        [ROW_VERIFY] = CKA_VERIFY,
    };

    a->rows[ROW_KEY_TYPE] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &a->key_type, sizeof(a->key_type)};
    a->rows[ROW_LABEL] = (CK_ATTRIBUTE){CKA_LABEL, key->info.label, sizeof(key->info.label) - 1};
    a->rows[ROW_ID] = (CK_ATTRIBUTE){CKA_ID, key->info.tag, sizeof(key->info.tag)};
    for (size_t i = ROW_EXTRACTABLE; i <= ROW_VERIFY; i++) {
        a->rows[i] = (CK_ATTRIBUTE){flag_types[i], &a->flags[i], sizeof(a->flags[i])};
    }
    a->rows[ROW_VALUE_LEN] = (CK_ATTRIBUTE){CKA_VALUE_LEN, &a->value_len, sizeof(a->value_len)};
    a->rows[ROW_ALLOWED] =
        (CK_ATTRIBUTE){CKA_ALLOWED_MECHANISMS, key->allowed, sizeof(key->allowed)};
}

static const struct {
    CK_KEY_TYPE key_type;
    CK_OBJECT_CLASS class;
    enum kms_key_type type;
} types[] = {
    {CKK_AES, CKO_SECRET_KEY, KMS_KEY_AES},
    {CKK_GENERIC_SECRET, CKO_SECRET_KEY, KMS_KEY_GENERIC},
    {CKK_SHA256_HMAC, CKO_SECRET_KEY, KMS_KEY_GENERIC},
    {CKK_RSA, CKO_PRIVATE_KEY, KMS_KEY_RSA},
    {CKK_EC, CKO_PRIVATE_KEY, KMS_KEY_EC},
    {CKK_EC_EDWARDS, CKO_PRIVATE_KEY, KMS_KEY_EDDSA},
};

static bool type_of(CK_KEY_TYPE key_type, CK_OBJECT_CLASS class, enum kms_key_type *ret)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].key_type == key_type && types[i].class == class) {
            *ret = types[i].type;
            return true;
        }
    }
    return false;
}

/* A pair is one key to us: what its private half undoes or makes, its public half does or verifies.
 */
static unsigned with_public(unsigned uses)
{
    uses |= (uses & KMS_USE_DECRYPT) != 0 ? (unsigned)KMS_USE_ENCRYPT : 0u;
    uses |= (uses & KMS_USE_UNWRAP) != 0 ? (unsigned)KMS_USE_WRAP : 0u;
    uses |= (uses & KMS_USE_SIGN) != 0 ? (unsigned)KMS_USE_VERIFY : 0u;
    return uses;
}

static unsigned uses_of(const struct attributes *a)
{
    static const struct {
        size_t row;
        unsigned use;
    } uses[] = {
        {ROW_ENCRYPT, KMS_USE_ENCRYPT}, {ROW_DECRYPT, KMS_USE_DECRYPT},
        {ROW_WRAP, KMS_USE_WRAP},       {ROW_UNWRAP, KMS_USE_UNWRAP},
        {ROW_SIGN, KMS_USE_SIGN},       {ROW_VERIFY, KMS_USE_VERIFY},
    };
    unsigned set = 0;

    for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
        set |= kms_p11_flag(&a->rows[uses[i].row], false) ? uses[i].use : 0u;
    }
    return set;
}

/* Fills @key from what @a has read into it and beside it. */
static CK_RV take_attributes(const struct attributes *a, CK_OBJECT_CLASS class,
                             struct kms_hsm_key *key)
{
    if (!kms_p11_has(&a->rows[ROW_KEY_TYPE]) || !kms_p11_has(&a->rows[ROW_LABEL]) ||
        !type_of(a->key_type, class, &key->info.type)) {
        return CKR_MECHANISM_INVALID;
    }
    key->key_type = a->key_type;
    key->info.label[a->rows[ROW_LABEL].ulValueLen] = '\0';
    key->info.tag_len = kms_p11_has(&a->rows[ROW_ID]) ? a->rows[ROW_ID].ulValueLen : 0;
    key->info.extractable = kms_p11_flag(&a->rows[ROW_EXTRACTABLE], true);
    key->info.always_sensitive = kms_p11_flag(&a->rows[ROW_ALWAYS_SENSITIVE], false);
    key->info.never_extractable = kms_p11_flag(&a->rows[ROW_NEVER_EXTRACTABLE], false);
    key->info.local = kms_p11_flag(&a->rows[ROW_LOCAL], false);
    key->info.uses = class == CKO_PRIVATE_KEY ? with_public(uses_of(a)) : uses_of(a);
    key->info.latest = true;
    if (class == CKO_SECRET_KEY && kms_p11_has(&a->rows[ROW_VALUE_LEN])) {
        key->info.bits = (unsigned)(8 * a->value_len);
    }
    if (kms_p11_has(&a->rows[ROW_ALLOWED])) {
        key->allowed_count = a->rows[ROW_ALLOWED].ulValueLen / sizeof(key->allowed[0]);
    }
    return CKR_OK;
}

bool kms_hsm_allows(const void *key, CK_MECHANISM_TYPE mechanism)
{
    const struct kms_hsm_key *k = key;

    for (size_t i = 0; i < k->allowed_count; i++) {
        if (k->allowed[i] == mechanism) {
            return true;
        }
    }
    return k->allowed_count == 0;
}

/* The one HMAC key that goes with an AES key, if there is one. */
static CK_RV find_companion(struct kms_p11 *p, struct kms_hsm_key *key)
{
    char label[KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX)];
    struct kms_p11_template t = {.count = 0};
    struct kms_p11_objects found;
    CK_RV rv = CKR_OK;

    if (key->info.label[0] == '\0' || key->info.tag_len == 0 ||
        !kms_p11_can(p, CKM_SHA256_HMAC, CKF_SIGN)) {
        return CKR_OK;
    }
    (void)snprintf(label, sizeof(label), "%s%s", key->info.label, KMS_HSM_MAC_SUFFIX);
    kms_p11_put_number(&t, CKA_CLASS, CKO_SECRET_KEY);
    kms_p11_put_bytes(&t, CKA_LABEL, label, strlen(label));
    kms_p11_put_bytes(&t, CKA_ID, key->info.tag, key->info.tag_len);
    kms_p11_put_bool(&t, CKA_SIGN, true);
    rv = kms_p11_find(p, &t, &found);
    if (rv == CKR_OK && found.count == 1) {
        key->mac = found.handles[0];
    }
    kms_p11_objects_done(&found);
    return rv;
}

/* ---- identity ----------------------------------------------------------------------------- */

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
static void bind_companion(struct kms_hsm_key *key)
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

static CK_RV identify_pair(struct kms_p11 *p, struct kms_hsm_key *key)
{
    CK_RV rv = kms_hsm_public_read(p, key->handle, key->key_type,
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

static CK_RV identify(struct kms_p11 *p, struct kms_hsm_key *key)
{
    CK_RV rv = CKR_OK;

    switch (key->info.type) {
    case KMS_KEY_AES:
        rv = find_companion(p, key);
        return rv == CKR_OK ? identify_aes(p, key) : rv;
    case KMS_KEY_GENERIC:
        return identify_generic(p, key);
    default:
        return identify_pair(p, key);
    }
}

CK_RV kms_hsm_describe(struct kms_backend *b, struct kms_p11 *p, CK_OBJECT_HANDLE handle,
                       CK_OBJECT_CLASS class, struct kms_hsm_key **ret_key)
{
    struct kms_hsm_key *key = calloc(1, sizeof(*key));
    struct attributes a;
    CK_RV rv = CKR_HOST_MEMORY;

    if (key == NULL) {
        return rv;
    }
    atomic_init(&key->refs, 1);
    key->generation = p->generation;
    key->handle = handle;
    attributes_prepare(&a, key);
    rv = kms_p11_read(p, handle, a.rows, ROW_COUNT);
    if (rv == CKR_OK) {
        rv = take_attributes(&a, class, key);
    }
    if (rv == CKR_OK) {
        rv = identify(p, key);
    }
    if (rv == CKR_OK) {
        rv = kms_hsm_seal_probe(b, p, key);
    }
    if (rv == CKR_OK && key->mac != CK_INVALID_HANDLE && key->alias[0] == '\0' &&
        key->info.seal != KMS_ALG_AES_GCM) {
        rv = key->unclear; /* its identity would be another than usual */
    }
    if (rv == CKR_OK) {
        kms_hsm_algs_of_key(b, p, key);
        bind_companion(key);
        kms_p11_uri_format(kms_p11_token_info(p), class, key->info.label,
                           kms_span_of(key->info.tag, key->info.tag_len), key->info.name,
                           sizeof(key->info.name));
        memcpy(key->info.ref, key->info.id, sizeof(key->info.id));
        *ret_key = key;
        key = NULL;
    } else if (kms_ckr_is_unsupported(rv)) {
        rv = CKR_MECHANISM_INVALID;
    }
    kms_hsm_key_put(key);
    return rv;
}

/* The identity that the material behind key->handle has now, without a companion. */
static CK_RV identity_now(struct kms_p11 *p, const struct kms_hsm_key *key, char *ret_id)
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
        rv = kms_hsm_public_read(p, key->handle, key->key_type, tag, &public_key);
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
CK_RV kms_hsm_still(struct kms_p11 *p, const struct kms_hsm_key *key, bool *ret_same)
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
    rv = identity_now(p, key, id);
    *ret_same = rv == CKR_OK && kms_hsm_key_is(key, id);
    return kms_ckr_is_unsupported(rv) ? CKR_OK : rv; /* then it is another, of another kind */
}
