/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what session objects are described by, and templates checked against it. */
#include "pkcs11/core/template.h"

#include <string.h>

#include "pkcs11/core/log.h"

#define NONE CK_UNAVAILABLE_INFORMATION

/* Kinds of objects, as far as their attributes differ. */
#define DATA    0x01u
#define CERT    0x02u
#define AES     0x04u
#define GENERIC 0x08u
#define RSA_PUB 0x10u
#define RSA_PRV 0x20u
#define EC_PUB  0x40u
#define EC_PRV  0x80u
#define SECRET  (AES | GENERIC)
#define PUBLIC  (RSA_PUB | EC_PUB)
#define PRIVATE (RSA_PRV | EC_PRV)
#define KEY     (SECRET | PUBLIC | PRIVATE)
#define ALL     (DATA | CERT | KEY)

enum value { V_NONE, V_FALSE, V_TRUE, V_EMPTY, V_ZERO };
enum change { C_NO, C_ANY, C_TO_TRUE, C_TO_FALSE, C_COPY, C_COPY_TO_FALSE };

/*
 * @ways has a letter each for create, generate, unwrap, derive: R required, o optional, - not to be
 * given (the object has it all the same, if it is this library's to say). @value is the default.
 */
static const struct row {
    CK_ATTRIBUTE_TYPE type;
    unsigned kinds;
    char ways[5];
    enum value value;
    enum change change;
} rows[] = {
    /* 4.4: storage objects */
    {CKA_CLASS, ALL, "Rooo", V_NONE, C_NO},
    {CKA_TOKEN, ALL, "oooo", V_FALSE, C_COPY},
    {CKA_PRIVATE, ALL, "oooo", V_NONE, C_COPY},
    {CKA_MODIFIABLE, ALL, "oooo", V_TRUE, C_COPY_TO_FALSE},
    {CKA_COPYABLE, ALL, "oooo", V_TRUE, C_COPY_TO_FALSE},
    {CKA_DESTROYABLE, ALL, "oooo", V_TRUE, C_COPY},
    {CKA_LABEL, ALL, "oooo", V_EMPTY, C_ANY},
    {CKA_UNIQUE_ID, ALL, "----", V_NONE, C_NO},

    /* 4.5: data; derived by CKM_HKDF_DATA */
    {CKA_APPLICATION, DATA, "o--o", V_EMPTY, C_ANY},
    {CKA_OBJECT_ID, DATA, "o--o", V_EMPTY, C_ANY},
    {CKA_VALUE, DATA, "o---", V_EMPTY, C_NO},
    {CKA_VALUE_LEN, DATA, "---o", V_NONE, C_NO},

    /* 4.6: X.509 certificates */
    {CKA_CERTIFICATE_TYPE, CERT, "R---", V_NONE, C_NO},
    {CKA_TRUSTED, CERT, "o---", V_FALSE, C_NO},
    {CKA_CERTIFICATE_CATEGORY, CERT, "o---", V_ZERO, C_NO},
    {CKA_CHECK_VALUE, CERT, "o---", V_NONE, C_NO},
    {CKA_START_DATE, CERT, "o---", V_EMPTY, C_ANY},
    {CKA_END_DATE, CERT, "o---", V_EMPTY, C_ANY},
    {CKA_PUBLIC_KEY_INFO, CERT, "o---", V_EMPTY, C_NO},
    {CKA_SUBJECT, CERT, "R---", V_NONE, C_NO},
    {CKA_ID, CERT, "o---", V_EMPTY, C_ANY},
    {CKA_ISSUER, CERT, "o---", V_EMPTY, C_ANY},
    {CKA_SERIAL_NUMBER, CERT, "o---", V_EMPTY, C_ANY},
    {CKA_VALUE, CERT, "R---", V_NONE, C_NO},
    {CKA_URL, CERT, "o---", V_EMPTY, C_NO},
    {CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERT, "o---", V_EMPTY, C_NO},
    {CKA_HASH_OF_ISSUER_PUBLIC_KEY, CERT, "o---", V_EMPTY, C_NO},
    {CKA_JAVA_MIDP_SECURITY_DOMAIN, CERT, "o---", V_ZERO, C_NO},
    {CKA_NAME_HASH_ALGORITHM, CERT, "o---", V_NONE, C_NO},

    /* 4.7: keys */
    {CKA_KEY_TYPE, KEY, "Rooo", V_NONE, C_NO},
    {CKA_ID, KEY, "oooo", V_EMPTY, C_ANY},
    {CKA_START_DATE, KEY, "oooo", V_EMPTY, C_ANY},
    {CKA_END_DATE, KEY, "oooo", V_EMPTY, C_ANY},
    {CKA_DERIVE, KEY, "oooo", V_FALSE, C_ANY},
    {CKA_LOCAL, KEY, "----", V_NONE, C_NO},
    {CKA_KEY_GEN_MECHANISM, KEY, "----", V_NONE, C_NO},
    {CKA_ALLOWED_MECHANISMS, KEY, "oooo", V_NONE, C_NO},

    /* 4.8 to 4.10: uses; what the key's type is made for, when the template does not say */
    {CKA_ENCRYPT, AES | RSA_PUB, "oooo", V_TRUE, C_ANY},
    {CKA_ENCRYPT, GENERIC | EC_PUB, "oooo", V_FALSE, C_ANY},
    {CKA_DECRYPT, AES | RSA_PRV, "oooo", V_TRUE, C_ANY},
    {CKA_DECRYPT, GENERIC | EC_PRV, "oooo", V_FALSE, C_ANY},
    {CKA_SIGN, SECRET | PRIVATE, "oooo", V_TRUE, C_ANY},
    {CKA_VERIFY, SECRET | PUBLIC, "oooo", V_TRUE, C_ANY},
    {CKA_SIGN_RECOVER, PRIVATE, "oooo", V_FALSE, C_ANY},
    {CKA_VERIFY_RECOVER, PUBLIC, "oooo", V_FALSE, C_ANY},
    {CKA_WRAP, AES | RSA_PUB, "oooo", V_TRUE, C_ANY},
    {CKA_WRAP, GENERIC | EC_PUB, "oooo", V_FALSE, C_ANY},
    {CKA_UNWRAP, AES | RSA_PRV, "oooo", V_TRUE, C_ANY},
    {CKA_UNWRAP, GENERIC | EC_PRV, "oooo", V_FALSE, C_ANY},

    /* 4.8 to 4.10: guards */
    {CKA_SENSITIVE, SECRET, "oooo", V_FALSE, C_TO_TRUE},
    {CKA_SENSITIVE, PRIVATE, "oooo", V_TRUE, C_TO_TRUE},
    {CKA_EXTRACTABLE, SECRET | PRIVATE, "oooo", V_FALSE, C_TO_FALSE}, /* unwrapped: true (5.18.4) */
    {CKA_ALWAYS_SENSITIVE, SECRET | PRIVATE, "----", V_NONE, C_NO},
    {CKA_NEVER_EXTRACTABLE, SECRET | PRIVATE, "----", V_NONE, C_NO},
    {CKA_WRAP_WITH_TRUSTED, SECRET | PRIVATE, "oooo", V_FALSE, C_TO_TRUE},
    {CKA_TRUSTED, SECRET | PUBLIC, "oooo", V_FALSE, C_NO},
    {CKA_ALWAYS_AUTHENTICATE, PRIVATE, "oooo", V_FALSE, C_NO},
    {CKA_CHECK_VALUE, SECRET, "oooo", V_NONE, C_NO},
    {CKA_SUBJECT, PUBLIC | PRIVATE, "oooo", V_EMPTY, C_ANY},
    {CKA_PUBLIC_KEY_INFO, PUBLIC | PRIVATE, "oooo", V_NONE, C_NO},

    /* the material */
    {CKA_VALUE, SECRET, "R---", V_NONE, C_NO},
    {CKA_VALUE_LEN, SECRET, "oRoo", V_NONE, C_NO},
    {CKA_KMSBRIDGE_WRAPPED_VALUE, AES, "----", V_NONE, C_NO},
    {CKA_MODULUS, RSA_PUB | RSA_PRV, "R---", V_NONE, C_NO},
    {CKA_MODULUS_BITS, RSA_PUB, "oR--", V_NONE, C_NO},
    {CKA_PUBLIC_EXPONENT, RSA_PUB, "Ro--", V_NONE, C_NO},
    {CKA_PUBLIC_EXPONENT, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_PRIVATE_EXPONENT, RSA_PRV, "R---", V_NONE, C_NO},
    {CKA_PRIME_1, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_PRIME_2, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_EXPONENT_1, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_EXPONENT_2, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_COEFFICIENT, RSA_PRV, "o---", V_NONE, C_NO},
    {CKA_EC_PARAMS, EC_PUB, "RR--", V_NONE, C_NO},
    {CKA_EC_PARAMS, EC_PRV, "Ro--", V_NONE, C_NO},
    {CKA_EC_POINT, EC_PUB, "R---", V_NONE, C_NO},
    {CKA_EC_POINT, EC_PRV, "o---", V_NONE, C_NO},
    {CKA_VALUE, EC_PRV, "R---", V_NONE, C_NO},
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static const struct kind {
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE key_type;
    unsigned kind;
} kinds[] = {
    {CKO_DATA, NONE, DATA},
    {CKO_CERTIFICATE, NONE, CERT},
    {CKO_SECRET_KEY, CKK_AES, AES},
    {CKO_SECRET_KEY, CKK_GENERIC_SECRET, GENERIC},
    {CKO_SECRET_KEY, CKK_SHA_1_HMAC, GENERIC},
    {CKO_SECRET_KEY, CKK_SHA224_HMAC, GENERIC},
    {CKO_SECRET_KEY, CKK_SHA256_HMAC, GENERIC},
    {CKO_SECRET_KEY, CKK_SHA384_HMAC, GENERIC},
    {CKO_SECRET_KEY, CKK_SHA512_HMAC, GENERIC},
    {CKO_SECRET_KEY, CKK_HKDF, GENERIC},
    {CKO_PUBLIC_KEY, CKK_RSA, RSA_PUB},
    {CKO_PUBLIC_KEY, CKK_EC, EC_PUB},
    {CKO_PUBLIC_KEY, CKK_EC_EDWARDS, EC_PUB},
    {CKO_PRIVATE_KEY, CKK_RSA, RSA_PRV},
    {CKO_PRIVATE_KEY, CKK_EC, EC_PRV},
    {CKO_PRIVATE_KEY, CKK_EC_EDWARDS, EC_PRV},
};

static unsigned kind_of(CK_OBJECT_CLASS class, CK_KEY_TYPE key_type)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].class == class && kinds[i].key_type == key_type) {
            return kinds[i].kind;
        }
    }
    return 0;
}

static const struct row *row_of(CK_ATTRIBUTE_TYPE type, unsigned kind)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].type == type && (rows[i].kinds & kind) != 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static CK_RV refuse(CK_RV rv, CK_ATTRIBUTE_TYPE type, const char *what)
{
    return kms_p11_refuse(rv, "%s (0x%lx): %s", kms_attr_name(type), type, what);
}

bool kms_template_sees_private(const struct kms_slot *slot)
{
    return atomic_load(&slot->open);
}

/* ---- class, type, where --------------------------------------------------------------------- */

/* One that the mechanism may have settled. */
static CK_RV settle(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, CK_ULONG wanted,
                    CK_ULONG *ret)
{
    struct kms_span given = KMS_SPAN_NONE;
    CK_ULONG value = kms_attrs_ulong(attrs, type, NONE);

    if (!kms_attrs_get(attrs, type, &given)) {
        *ret = wanted;
        return wanted == NONE ? refuse(CKR_TEMPLATE_INCOMPLETE, type, "is missing") : CKR_OK;
    }
    if (wanted != NONE && value != wanted) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, type, "is not what the mechanism makes");
    }
    *ret = value;
    return CKR_OK;
}

static CK_RV check_what(const struct kms_attrs *attrs, CK_OBJECT_CLASS class, CK_KEY_TYPE key_type,
                        struct kms_template *tmpl)
{
    CK_RV rv = settle(attrs, CKA_CLASS, class, &tmpl->class);

    tmpl->key_type = NONE;
    if (rv != CKR_OK) {
        return rv;
    }
    if (tmpl->class != CKO_DATA && tmpl->class != CKO_CERTIFICATE) {
        if (tmpl->class != CKO_SECRET_KEY && tmpl->class != CKO_PUBLIC_KEY &&
            tmpl->class != CKO_PRIVATE_KEY) {
            return refuse(CKR_ATTRIBUTE_VALUE_INVALID, CKA_CLASS, "is none that can be made here");
        }
        rv = settle(attrs, CKA_KEY_TYPE, key_type, &tmpl->key_type);
        if (rv != CKR_OK) {
            return rv;
        }
    }
    if (kind_of(tmpl->class, tmpl->key_type) == 0) {
        return refuse(CKR_ATTRIBUTE_VALUE_INVALID, CKA_KEY_TYPE, "is none that can be made here");
    }
    return CKR_OK;
}

static CK_RV check_where(const struct kms_session *session, const struct kms_attrs *attrs,
                         struct kms_template *tmpl)
{
    bool sees = kms_template_sees_private(session->slot);
    bool secret = tmpl->class == CKO_SECRET_KEY || tmpl->class == CKO_PRIVATE_KEY;

    if (kms_attrs_bool(attrs, CKA_TOKEN, false)) {
        return session->rw ? refuse(CKR_TEMPLATE_INCONSISTENT, CKA_TOKEN,
                                    "a token's keys are made by its service, not brought there")
                           : refuse(CKR_SESSION_READ_ONLY, CKA_TOKEN, "the session is read-only");
    }
    /* without a login a private object could not be found again by who made it */
    tmpl->is_private = kms_attrs_bool(attrs, CKA_PRIVATE, secret && sees);
    return tmpl->is_private && !sees
               ? refuse(CKR_USER_NOT_LOGGED_IN, CKA_PRIVATE, "the user has not logged in")
               : CKR_OK;
}

/* ---- row by row ----------------------------------------------------------------------------- */

static CK_RV check_given(const struct kms_attrs *attrs, enum kms_way way, unsigned kind)
{
    for (size_t i = 0; i < kms_attrs_count(attrs); i++) {
        struct kms_span value = KMS_SPAN_NONE;
        CK_ATTRIBUTE_TYPE type = kms_attrs_at(attrs, i, &value);
        const struct row *row = row_of(type, kind);

        if (row == NULL) {
            return refuse(CKR_ATTRIBUTE_TYPE_INVALID, type, "objects like this have it not");
        }
        if (row->ways[way] == '-') {
            return refuse(CKR_ATTRIBUTE_READ_ONLY, type, "is not the template's to say");
        }
    }
    if (kms_attrs_bool(attrs, CKA_TRUSTED, false)) {
        return refuse(CKR_ATTRIBUTE_READ_ONLY, CKA_TRUSTED, "only a security officer may say so");
    }
    if (kms_attrs_bool(attrs, CKA_ALWAYS_AUTHENTICATE, false)) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_ALWAYS_AUTHENTICATE, "cannot be promised");
    }
    if (kind == CERT && kms_attrs_ulong(attrs, CKA_CERTIFICATE_TYPE, CKC_X_509) != CKC_X_509) {
        return refuse(CKR_ATTRIBUTE_VALUE_INVALID, CKA_CERTIFICATE_TYPE, "is not CKC_X_509");
    }
    return CKR_OK;
}

static CK_RV set_default(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, enum value value)
{
    switch (value) {
    case V_FALSE:
    case V_TRUE:
        return kms_attrs_set_bool(attrs, type, value == V_TRUE);
    case V_EMPTY:
        return kms_attrs_set(attrs, type, "", 0);
    case V_ZERO:
        return kms_attrs_set_ulong(attrs, type, 0);
    case V_NONE:
    default:
        return CKR_OK;
    }
}

static CK_RV complete(struct kms_attrs *attrs, enum kms_way way, unsigned kind)
{
    struct kms_span value = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    if (way == KMS_WAY_UNWRAP && !kms_attrs_get(attrs, CKA_EXTRACTABLE, &value)) {
        rv = kms_attrs_set_bool(attrs, CKA_EXTRACTABLE, true);
    }
    for (size_t i = 0; i < ROW_COUNT && rv == CKR_OK; i++) {
        if ((rows[i].kinds & kind) == 0 || kms_attrs_get(attrs, rows[i].type, &value)) {
            continue;
        }
        rv = rows[i].ways[way] == 'R' ? refuse(CKR_TEMPLATE_INCOMPLETE, rows[i].type, "is missing")
                                      : set_default(attrs, rows[i].type, rows[i].value);
    }
    return rv;
}

CK_RV kms_template_check(const struct kms_session *session, enum kms_way way, CK_OBJECT_CLASS class,
                         CK_KEY_TYPE key_type, struct kms_attrs *attrs,
                         struct kms_template *ret_template)
{
    struct kms_template tmpl = {.class = class};
    unsigned kind = 0;
    CK_RV rv = check_what(attrs, class, key_type, &tmpl);

    if (rv == CKR_OK) {
        rv = check_where(session, attrs, &tmpl);
    }
    if (rv == CKR_OK) {
        kind = kind_of(tmpl.class, tmpl.key_type);
        rv = kms_attrs_set_ulong(attrs, CKA_CLASS, tmpl.class);
    }
    if (rv == CKR_OK && tmpl.key_type != NONE) {
        rv = kms_attrs_set_ulong(attrs, CKA_KEY_TYPE, tmpl.key_type);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set_bool(attrs, CKA_PRIVATE, tmpl.is_private);
    }
    if (rv == CKR_OK) {
        rv = check_given(attrs, way, kind);
    }
    if (rv == CKR_OK) {
        rv = complete(attrs, way, kind);
    }
    if (rv != CKR_OK) {
        kms_attrs_free(attrs);
        return rv;
    }
    tmpl.value_len = kms_attrs_ulong(attrs, CKA_VALUE_LEN, 0);
    tmpl.attrs = attrs;
    *ret_template = tmpl;
    return CKR_OK;
}

void kms_template_done(struct kms_template *tmpl)
{
    kms_attrs_free(tmpl->attrs);
    tmpl->attrs = NULL;
}

/* ---- changes -------------------------------------------------------------------------------- */

/* Whether the new value of an attribute may stand. */
static bool may_change(const struct row *row, bool copy, bool value)
{
    switch (row->change) {
    case C_ANY:
        return true;
    case C_TO_TRUE:
        return value;
    case C_TO_FALSE:
        return !value;
    case C_COPY:
        return copy;
    case C_COPY_TO_FALSE:
        return copy && !value;
    case C_NO:
    default:
        return false;
    }
}

CK_RV kms_template_may_change(const struct kms_object *object, const struct kms_attrs *change,
                              bool copy)
{
    unsigned kind = kind_of(object->class, object->key_type);

    for (size_t i = 0; i < kms_attrs_count(change); i++) {
        struct kms_span value = KMS_SPAN_NONE;
        struct kms_span now = KMS_SPAN_NONE;
        CK_ATTRIBUTE_TYPE type = kms_attrs_at(change, i, &value);
        const struct row *row = row_of(type, kind);

        if (row == NULL) {
            return refuse(CKR_ATTRIBUTE_TYPE_INVALID, type, "objects like this have it not");
        }
        if (copy && kms_attrs_get(object->attrs, type, &now) && kms_span_equal(now, value)) {
            continue; /* the same: no change */
        }
        if (!may_change(row, copy, kms_attrs_bool(change, type, false))) {
            return refuse(CKR_ATTRIBUTE_READ_ONLY, type, "cannot be changed, or not so");
        }
    }
    if (copy && object->is_private && !kms_attrs_bool(change, CKA_PRIVATE, true)) {
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_PRIVATE, "a copy is as private as its source");
    }
    return CKR_OK;
}
