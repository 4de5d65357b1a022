/* SPDX-License-Identifier: Apache-2.0 */
/* From an object on the token to a key of ours: attributes, and what it can do. */
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
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

/* What no private key has (2.40 4.9), and no secret one (4.10) lacks: asked for, it would make a
 * token refuse the whole, and every attribute be read by itself. */
static bool has_row(CK_OBJECT_CLASS class, size_t row)
{
    return class != CKO_PRIVATE_KEY ||
           (row != ROW_ENCRYPT && row != ROW_WRAP && row != ROW_VERIFY && row != ROW_VALUE_LEN);
}

static CK_RV attributes_read(struct kms_p11 *p, CK_OBJECT_HANDLE handle, CK_OBJECT_CLASS class,
                             struct attributes *a)
{
    CK_ATTRIBUTE rows[ROW_COUNT];
    size_t at[ROW_COUNT];
    CK_ULONG count = 0;
    CK_RV rv = CKR_OK;

    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (has_row(class, i)) {
            at[count] = i;
            rows[count++] = a->rows[i];
        } else {
            a->rows[i].ulValueLen = CK_UNAVAILABLE_INFORMATION;
        }
    }
    rv = kms_p11_read(p, handle, rows, count);
    for (CK_ULONG i = 0; i < count; i++) {
        a->rows[at[i]].ulValueLen = rows[i].ulValueLen;
    }
    return rv;
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

CK_RV kms_hsm_describe(struct kms_backend *b, struct kms_p11 *p, struct kms_hsm_beside *beside,
                       CK_OBJECT_HANDLE handle, CK_OBJECT_CLASS class, struct kms_hsm_key **ret_key)
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
    rv = attributes_read(p, handle, class, &a);
    if (rv == CKR_OK) {
        rv = take_attributes(&a, class, key);
    }
    if (rv == CKR_OK) {
        rv = kms_hsm_identify(p, beside, key);
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
        kms_hsm_bind_companion(key);
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
