/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C_GenerateKey and C_GenerateKeyPair with CKA_TOKEN true: a standard template in the waist's few
 * words. What they have no word for is refused, and the log says which attribute. Two liberties,
 * because common tools ask for them without meaning it: a token's key is always sensitive, though
 * the template said it need not be; and a use that no key of the type has is left out.
 */
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/template.h"

#define RSA_EXPONENT_LEN 3

static CK_RV refuse(CK_RV rv, CK_ATTRIBUTE_TYPE type, const char *what)
{
    return kms_p11_refuse(rv, "%s (0x%lx): %s", kms_attr_name(type), type, what);
}

enum meaning {
    M_CLASS,
    M_TYPE,
    M_FINE,   /* any value: the token's own is no less than that */
    M_TRUE,   /* what must be so */
    M_FALSE,  /* what cannot be */
    M_EMPTY,  /* what there is no word for */
    M_USE,    /* a use of the waist */
    M_NO_USE, /* a use that the waist does not have: left out */
    M_LABEL,
    M_ID,
    M_BYTES,    /* CKA_VALUE_LEN */
    M_BITS,     /* CKA_MODULUS_BITS */
    M_EXPONENT, /* 65537 */
    M_CURVE,
    M_READ_ONLY
};

static const struct row {
    CK_ATTRIBUTE_TYPE type;
    enum meaning meaning;
    unsigned use;
} rows[] = {
    {CKA_CLASS, M_CLASS, 0},
    {CKA_KEY_TYPE, M_TYPE, 0},
    {CKA_TOKEN, M_TRUE, 0},
    {CKA_PRIVATE, M_FINE, 0},
    {CKA_SENSITIVE, M_FINE, 0},
    {CKA_MODIFIABLE, M_FINE, 0},
    {CKA_COPYABLE, M_FINE, 0},
    {CKA_DESTROYABLE, M_TRUE, 0},
    {CKA_EXTRACTABLE, M_FALSE, 0},
    {CKA_WRAP_WITH_TRUSTED, M_FINE, 0}, /* never wrapped by any */
    {CKA_TRUSTED, M_FALSE, 0},
    {CKA_ALWAYS_AUTHENTICATE, M_FALSE, 0},
    {CKA_LABEL, M_LABEL, 0},
    {CKA_ID, M_ID, 0},
    {CKA_SUBJECT, M_EMPTY, 0},
    {CKA_START_DATE, M_EMPTY, 0},
    {CKA_END_DATE, M_EMPTY, 0},
    {CKA_CHECK_VALUE, M_EMPTY, 0},
    {CKA_ALLOWED_MECHANISMS, M_EMPTY, 0},
    {CKA_ENCRYPT, M_USE, KMS_USE_ENCRYPT},
    {CKA_DECRYPT, M_USE, KMS_USE_DECRYPT},
    {CKA_WRAP, M_USE, KMS_USE_WRAP},
    {CKA_UNWRAP, M_USE, KMS_USE_UNWRAP},
    {CKA_SIGN, M_USE, KMS_USE_SIGN},
    {CKA_VERIFY, M_USE, KMS_USE_VERIFY},
    {CKA_DERIVE, M_NO_USE, 0},
    {CKA_SIGN_RECOVER, M_NO_USE, 0},
    {CKA_VERIFY_RECOVER, M_NO_USE, 0},
    {CKA_VALUE_LEN, M_BYTES, 0},
    {CKA_MODULUS_BITS, M_BITS, 0},
    {CKA_PUBLIC_EXPONENT, M_EXPONENT, 0},
    {CKA_EC_PARAMS, M_CURVE, 0},
    {CKA_LOCAL, M_READ_ONLY, 0},
    {CKA_UNIQUE_ID, M_READ_ONLY, 0},
    {CKA_KEY_GEN_MECHANISM, M_READ_ONLY, 0},
    {CKA_ALWAYS_SENSITIVE, M_READ_ONLY, 0},
    {CKA_NEVER_EXTRACTABLE, M_READ_ONLY, 0},
};

#define CRYPTS (KMS_USE_ENCRYPT | KMS_USE_DECRYPT)
#define WRAPS  (KMS_USE_WRAP | KMS_USE_UNWRAP)
#define SIGNS  (KMS_USE_SIGN | KMS_USE_VERIFY)

static const struct type_row {
    CK_KEY_TYPE key_type;
    enum kms_key_type type;
    unsigned uses; /* that a key of this type can have */
    bool one_size; /* which need not be said */
} types[] = {
    {CKK_AES, KMS_KEY_AES, CRYPTS | WRAPS, false},
    {CKK_GENERIC_SECRET, KMS_KEY_GENERIC, SIGNS, false},
    {CKK_RSA, KMS_KEY_RSA, CRYPTS | WRAPS | SIGNS, false},
    {CKK_EC, KMS_KEY_EC, SIGNS, false},
    {CKK_EC_EDWARDS, KMS_KEY_EDDSA, SIGNS, false},
    {CKK_CHACHA20, KMS_KEY_CHACHA20, CRYPTS | WRAPS, true}, /* has no CKA_VALUE_LEN (3.0, 2.55.2) */
    {CKK_KMSBRIDGE_SM4, KMS_KEY_SM4, CRYPTS | WRAPS, true},
};

/* CKA_EC_PARAMS: DER of a named curve's OID, or its name as a PrintableString. */
static const struct curve_row {
    CK_KEY_TYPE key_type;
    unsigned bits;
    struct kms_span oid;
    const char *names[3];
} curves[] = {
    {CKK_EC,
     256,
     {(const uint8_t *)"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 10},
     {"secp256r1", "prime256v1", "P-256"}},
    {CKK_EC,
     384,
     {(const uint8_t *)"\x06\x05\x2b\x81\x04\x00\x22", 7},
     {"secp384r1", "P-384", "P-384"}},
    {CKK_EC,
     521,
     {(const uint8_t *)"\x06\x05\x2b\x81\x04\x00\x23", 7},
     {"secp521r1", "P-521", "P-521"}},
    {CKK_EC_EDWARDS,
     255,
     {(const uint8_t *)"\x06\x03\x2b\x65\x70", 5},
     {"edwards25519", "Ed25519", "id-Ed25519"}},
};

static bool is_named(const struct curve_row *curve, struct kms_span params)
{
    for (size_t i = 0; i < 3; i++) {
        size_t len = strlen(curve->names[i]);

        if (params.len == len + 2 && params.data[0] == 0x13 && params.data[1] == len &&
            memcmp(params.data + 2, curve->names[i], len) == 0) {
            return true;
        }
    }
    return false;
}

static unsigned curve_bits(CK_KEY_TYPE type, struct kms_span params)
{
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        if (curves[i].key_type == type &&
            (kms_span_equal(curves[i].oid, params) || is_named(&curves[i], params))) {
            return curves[i].bits;
        }
    }
    return 0;
}

/* What is gathered from one or two templates. */
struct wish {
    const struct type_row *type;
    struct kms_key_template tmpl;
    char label[KMS_LABEL_MAX];
    uint8_t id[KMS_KEY_TAG_MAX];
    size_t id_len;
    unsigned uses;
    bool sized;
};

static CK_RV take_label(struct wish *wish, struct kms_span value)
{
    if (value.len >= sizeof(wish->label) || memchr(value.data, '\0', value.len) != NULL) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_LABEL, "is too long, or not a text");
    }
    if (wish->label[0] != '\0' &&
        (strlen(wish->label) != value.len || memcmp(wish->label, value.data, value.len) != 0)) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_LABEL, "both halves of a pair have the same");
    }
    memcpy(wish->label, value.data, value.len);
    wish->label[value.len] = '\0';
    return CKR_OK;
}

static CK_RV take_id(struct wish *wish, struct kms_span value)
{
    if (value.len > sizeof(wish->id)) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_ID, "is too long");
    }
    if (wish->id_len > 0 && !kms_span_equal(kms_span_of(wish->id, wish->id_len), value)) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_ID, "both halves of a pair have the same");
    }
    memcpy(wish->id, value.data, value.len);
    wish->id_len = value.len;
    return CKR_OK;
}

static CK_RV take_size(struct wish *wish, CK_ATTRIBUTE_TYPE attr, unsigned long bits)
{
    if (bits == 0 || bits > 65536) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, attr, "is none that a token's key can have");
    }
    wish->tmpl.bits = (unsigned)bits;
    wish->sized = true;
    return CKR_OK;
}

static CK_RV take_exponent(struct kms_span value)
{
    static const uint8_t usual[RSA_EXPONENT_LEN] = {1, 0, 1};

    while (value.len > 0 && value.data[0] == 0) {
        value = kms_span_of(value.data + 1, value.len - 1);
    }
    return kms_span_equal(value, kms_span_of(usual, sizeof(usual)))
               ? CKR_OK
               : refuse(CKR_TEMPLATE_INCONSISTENT, CKA_PUBLIC_EXPONENT, "is not 65537");
}

/* True for an attribute that says yes or no, and says yes. */
static bool yes(struct kms_span value)
{
    return value.len == sizeof(CK_BBOOL) && value.data[0] != CK_FALSE;
}

static CK_RV take_use(struct wish *wish, const struct row *row, struct kms_span value)
{
    if (!yes(value)) {
        return CKR_OK;
    }
    if (row->meaning == M_NO_USE || (wish->type->uses & row->use) == 0) {
        kms_p11_log(KMS_P11_INFO, "%s: a token's key of this type does not do that; left out",
                    kms_attr_name(row->type));
        return CKR_OK;
    }
    wish->uses |= row->use;
    return CKR_OK;
}

static CK_RV take_size_of(struct wish *wish, const struct row *row, const struct kms_attrs *attrs,
                          struct kms_span value)
{
    CK_ULONG number = kms_attrs_ulong(attrs, row->type, 0);

    if (row->meaning == M_BYTES) {
        return take_size(wish, row->type, number > 8192 ? 0 : number * 8);
    }
    return take_size(wish, row->type,
                     row->meaning == M_BITS ? number : curve_bits(wish->type->key_type, value));
}

static CK_RV take(struct wish *wish, CK_OBJECT_CLASS class, const struct row *row,
                  const struct kms_attrs *attrs, struct kms_span value)
{
    switch (row->meaning) {
    case M_CLASS:
        return kms_attrs_ulong(attrs, CKA_CLASS, class) == class ? CKR_OK
                                                                 : refuse(CKR_TEMPLATE_INCONSISTENT,
                                                                          CKA_CLASS,
                                                                          "is not what is made");
    case M_TYPE:
        return kms_attrs_ulong(attrs, CKA_KEY_TYPE, 0) == wish->type->key_type
                   ? CKR_OK
                   : refuse(CKR_TEMPLATE_INCONSISTENT, CKA_KEY_TYPE, "is not what is made");
    case M_TRUE:
        return yes(value) ? CKR_OK
                          : refuse(CKR_TEMPLATE_INCONSISTENT, row->type, "cannot be false");
    case M_FALSE:
        return !yes(value) ? CKR_OK
                           : refuse(CKR_TEMPLATE_INCONSISTENT, row->type, "cannot be true");
    case M_EMPTY:
        return value.len == 0 ? CKR_OK
                              : refuse(CKR_TEMPLATE_INCONSISTENT, row->type,
                                       "cannot be given to a token's key");
    case M_USE:
    case M_NO_USE:
        return take_use(wish, row, value);
    case M_LABEL:
        return take_label(wish, value);
    case M_ID:
        return take_id(wish, value);
    case M_BYTES:
    case M_BITS:
    case M_CURVE:
        return take_size_of(wish, row, attrs, value);
    case M_EXPONENT:
        return take_exponent(value);
    case M_READ_ONLY:
        return refuse(CKR_ATTRIBUTE_READ_ONLY, row->type, "is not the template's to say");
    case M_FINE:
    default:
        return CKR_OK;
    }
}

static CK_RV take_all(struct wish *wish, CK_OBJECT_CLASS class, const struct kms_attrs *attrs)
{
    CK_RV rv = CKR_OK;

    for (size_t i = 0; i < kms_attrs_count(attrs) && rv == CKR_OK; i++) {
        struct kms_span value = KMS_SPAN_NONE;
        CK_ATTRIBUTE_TYPE type = kms_attrs_at(attrs, i, &value);
        const struct row *row = NULL;

        for (size_t at = 0; at < sizeof(rows) / sizeof(rows[0]); at++) {
            row = rows[at].type == type ? &rows[at] : row;
        }
        rv = row == NULL
                 ? refuse(CKR_TEMPLATE_INCONSISTENT, type, "has no meaning for a token's key")
                 : take(wish, class, row, attrs, value);
    }
    return rv;
}

static CK_RV begin(const struct kms_session *session, CK_KEY_TYPE type, struct wish *ret)
{
    const struct kms_slot *slot = session->slot;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        ret->type = types[i].key_type == type ? &types[i] : ret->type;
    }
    if (ret->type == NULL || slot->ops->generate == NULL ||
        (slot->token.info.generates & (1u << (unsigned)ret->type->type)) == 0) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "this token makes no keys of type 0x%lx",
                              type);
    }
    if (!session->rw) {
        return kms_p11_refuse(CKR_SESSION_READ_ONLY, "CKA_TOKEN: the session is read-only");
    }
    return kms_template_sees_private(slot)
               ? CKR_OK
               : kms_p11_refuse(CKR_USER_NOT_LOGGED_IN, "CKA_TOKEN: the user has not logged in");
}

/* One request; the public half is another. */
static CK_RV generate(struct kms_session *session, struct wish *wish, bool pair,
                      CK_OBJECT_HANDLE *ret_key, CK_OBJECT_HANDLE *ret_public)
{
    struct kms_slot *slot = session->slot;
    struct kms_call call = kms_slot_call(slot);
    struct kms_key_info info;
    uint8_t bytes[KMS_PUBLIC_KEY_MAX];
    struct kms_buf spki = KMS_BUF_OVER(bytes);

    if (!wish->sized && !wish->type->one_size) {
        return kms_p11_refuse(CKR_TEMPLATE_INCOMPLETE,
                              "CKA_VALUE_LEN, CKA_MODULUS_BITS or CKA_EC_PARAMS is missing");
    }
    if (wish->label[0] == '\0') { /* a name that we made up would be found by nobody */
        return kms_p11_refuse(CKR_TEMPLATE_INCOMPLETE,
                              "CKA_LABEL is missing: a key service makes a key under its name");
    }
    wish->tmpl.type = wish->type->type;
    wish->tmpl.label = wish->label;
    wish->tmpl.tag = kms_span_of(wish->id, wish->id_len);
    wish->tmpl.uses = wish->uses;
    memset(&info, 0, sizeof(info));
    if (slot->ops->generate(slot->backend, &call, &wish->tmpl, &info) != KMS_OK) {
        return kms_slot_error(slot, &call, KMS_DATA_NONE);
    }
    if (pair && (slot->ops->public_key == NULL ||
                 slot->ops->public_key(slot->backend, &call, info.ref, &spki) != KMS_OK)) {
        kms_p11_log(KMS_P11_WARN, "key %s was made, but its public half cannot be had", info.ref);
        return slot->ops->public_key == NULL ? CKR_DEVICE_ERROR
                                             : kms_slot_error(slot, &call, KMS_DATA_PLAIN);
    }
    return kms_store_add_token_key(slot, &info, kms_buf_span(&spki), ret_key, ret_public);
}

CK_RV kms_make_token_key(struct kms_session *session, CK_KEY_TYPE type,
                         const struct kms_attrs *attrs, CK_OBJECT_HANDLE *ret_key)
{
    CK_OBJECT_HANDLE none = CK_INVALID_HANDLE;
    struct wish wish = {.type = NULL};
    CK_RV rv = begin(session, type, &wish);

    if (rv == CKR_OK) {
        rv = take_all(&wish, CKO_SECRET_KEY, attrs);
    }
    return rv == CKR_OK ? generate(session, &wish, false, ret_key, &none) : rv;
}

CK_RV kms_make_token_pair(struct kms_session *session, CK_KEY_TYPE type,
                          const struct kms_attrs *public_attrs,
                          const struct kms_attrs *private_attrs, CK_OBJECT_HANDLE *ret_public,
                          CK_OBJECT_HANDLE *ret_private)
{
    struct wish wish = {.type = NULL};
    CK_RV rv = begin(session, type, &wish);

    if (rv == CKR_OK) {
        rv = take_all(&wish, CKO_PUBLIC_KEY, public_attrs);
    }
    if (rv == CKR_OK) {
        rv = take_all(&wish, CKO_PRIVATE_KEY, private_attrs);
    }
    return rv == CKR_OK ? generate(session, &wish, true, ret_private, ret_public) : rv;
}
