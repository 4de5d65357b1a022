/* SPDX-License-Identifier: Apache-2.0 */
/* The form of attributes (one table), and a caller's template checked against it. */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/attrs.h"
#include "pkcs11/core/log.h"

enum form {
    FORM_BYTES,
    FORM_BOOL,   /* CK_BBOOL */
    FORM_NUMBER, /* CK_ULONG */
    FORM_NUMBERS,
    FORM_DATE, /* CK_DATE, or empty */
    FORM_NESTED
};

/* PKCS#11 3.0 base, 4; those not named here are bytes that we do not look into. */
#define ROW(type, form)                                                                            \
    {                                                                                              \
        type, #type, form                                                                          \
    }
static const struct row {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    enum form form;
} rows[] = {
    ROW(CKA_CLASS, FORM_NUMBER),
    ROW(CKA_TOKEN, FORM_BOOL),
    ROW(CKA_PRIVATE, FORM_BOOL),
    ROW(CKA_LABEL, FORM_BYTES),
    ROW(CKA_UNIQUE_ID, FORM_BYTES),
    ROW(CKA_APPLICATION, FORM_BYTES),
    ROW(CKA_VALUE, FORM_BYTES),
    ROW(CKA_OBJECT_ID, FORM_BYTES),
    ROW(CKA_CERTIFICATE_TYPE, FORM_NUMBER),
    ROW(CKA_ISSUER, FORM_BYTES),
    ROW(CKA_SERIAL_NUMBER, FORM_BYTES),
    ROW(CKA_TRUSTED, FORM_BOOL),
    ROW(CKA_CERTIFICATE_CATEGORY, FORM_NUMBER),
    ROW(CKA_JAVA_MIDP_SECURITY_DOMAIN, FORM_NUMBER),
    ROW(CKA_URL, FORM_BYTES),
    ROW(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, FORM_BYTES),
    ROW(CKA_HASH_OF_ISSUER_PUBLIC_KEY, FORM_BYTES),
    ROW(CKA_NAME_HASH_ALGORITHM, FORM_NUMBER),
    ROW(CKA_CHECK_VALUE, FORM_BYTES),
    ROW(CKA_KEY_TYPE, FORM_NUMBER),
    ROW(CKA_SUBJECT, FORM_BYTES),
    ROW(CKA_ID, FORM_BYTES),
    ROW(CKA_SENSITIVE, FORM_BOOL),
    ROW(CKA_ENCRYPT, FORM_BOOL),
    ROW(CKA_DECRYPT, FORM_BOOL),
    ROW(CKA_WRAP, FORM_BOOL),
    ROW(CKA_UNWRAP, FORM_BOOL),
    ROW(CKA_SIGN, FORM_BOOL),
    ROW(CKA_SIGN_RECOVER, FORM_BOOL),
    ROW(CKA_VERIFY, FORM_BOOL),
    ROW(CKA_VERIFY_RECOVER, FORM_BOOL),
    ROW(CKA_DERIVE, FORM_BOOL),
    ROW(CKA_START_DATE, FORM_DATE),
    ROW(CKA_END_DATE, FORM_DATE),
    ROW(CKA_MODULUS, FORM_BYTES),
    ROW(CKA_MODULUS_BITS, FORM_NUMBER),
    ROW(CKA_PUBLIC_EXPONENT, FORM_BYTES),
    ROW(CKA_PRIVATE_EXPONENT, FORM_BYTES),
    ROW(CKA_PRIME_1, FORM_BYTES),
    ROW(CKA_PRIME_2, FORM_BYTES),
    ROW(CKA_EXPONENT_1, FORM_BYTES),
    ROW(CKA_EXPONENT_2, FORM_BYTES),
    ROW(CKA_COEFFICIENT, FORM_BYTES),
    ROW(CKA_PUBLIC_KEY_INFO, FORM_BYTES),
    ROW(CKA_VALUE_BITS, FORM_NUMBER),
    ROW(CKA_VALUE_LEN, FORM_NUMBER),
    ROW(CKA_EXTRACTABLE, FORM_BOOL),
    ROW(CKA_LOCAL, FORM_BOOL),
    ROW(CKA_NEVER_EXTRACTABLE, FORM_BOOL),
    ROW(CKA_ALWAYS_SENSITIVE, FORM_BOOL),
    ROW(CKA_KEY_GEN_MECHANISM, FORM_NUMBER),
    ROW(CKA_MODIFIABLE, FORM_BOOL),
    ROW(CKA_COPYABLE, FORM_BOOL),
    ROW(CKA_DESTROYABLE, FORM_BOOL),
    ROW(CKA_EC_PARAMS, FORM_BYTES),
    ROW(CKA_EC_POINT, FORM_BYTES),
    ROW(CKA_ALWAYS_AUTHENTICATE, FORM_BOOL),
    ROW(CKA_WRAP_WITH_TRUSTED, FORM_BOOL),
    ROW(CKA_WRAP_TEMPLATE, FORM_NESTED),
    ROW(CKA_UNWRAP_TEMPLATE, FORM_NESTED),
    ROW(CKA_DERIVE_TEMPLATE, FORM_NESTED),
    ROW(CKA_ALLOWED_MECHANISMS, FORM_NUMBERS),
    ROW(CKA_HW_FEATURE_TYPE, FORM_NUMBER),
    ROW(CKA_PROFILE_ID, FORM_NUMBER),
    ROW(CKA_KMSBRIDGE_KEY_ID, FORM_BYTES),
    ROW(CKA_KMSBRIDGE_VERSION, FORM_BYTES),
    ROW(CKA_KMSBRIDGE_WRAPPED_VALUE, FORM_BYTES),
    ROW(CKA_KMSBRIDGE_NAME, FORM_BYTES),
};

static const struct row *row_of(CK_ATTRIBUTE_TYPE type)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].type == type) {
            return &rows[i];
        }
    }
    return NULL;
}

const char *kms_attr_name(CK_ATTRIBUTE_TYPE type)
{
    const struct row *row = row_of(type);

    return row == NULL ? "an attribute that we do not know" : row->name;
}

static CK_RV refuse(CK_RV rv, CK_ATTRIBUTE_TYPE type, const char *what)
{
    return kms_p11_refuse(rv, "%s (0x%08lx): %s", kms_attr_name(type), type, what);
}

/* What is wrong with its value; NULL: nothing. */
static const char *fault(const CK_ATTRIBUTE *a, enum form form)
{
    CK_BBOOL flag = CK_FALSE;

    switch (form) {
    case FORM_BOOL:
        if (a->ulValueLen != sizeof(CK_BBOOL)) {
            return "is not as long as a CK_BBOOL";
        }
        memcpy(&flag, a->pValue, sizeof(flag));
        return flag == CK_TRUE || flag == CK_FALSE ? NULL : "is neither CK_TRUE nor CK_FALSE";
    case FORM_NUMBER:
        return a->ulValueLen == sizeof(CK_ULONG) ? NULL : "is not as long as a CK_ULONG";
    case FORM_NUMBERS:
        return a->ulValueLen % sizeof(CK_ULONG) == 0 ? NULL : "is not an array of CK_ULONG";
    case FORM_DATE:
        return a->ulValueLen == 0 || a->ulValueLen == sizeof(CK_DATE) ? NULL : "is not a CK_DATE";
    default:
        return NULL;
    }
}

static CK_RV check(const CK_ATTRIBUTE *a)
{
    const struct row *row = row_of(a->type);
    const char *what = NULL;

    if (a->ulValueLen > KMS_ATTR_VALUE_MAX) {
        return refuse(CKR_ATTRIBUTE_VALUE_INVALID, a->type, "is too long");
    }
    if (a->pValue == NULL && a->ulValueLen > 0) {
        return refuse(CKR_ATTRIBUTE_VALUE_INVALID, a->type, "has a length and no value");
    }
    if (row == NULL) {
        /* arrays of attributes hold pointers: nothing that can be copied as bytes */
        return (a->type & CKF_ARRAY_ATTRIBUTE) != 0 && a->ulValueLen > 0
                   ? refuse(CKR_ATTRIBUTE_TYPE_INVALID, a->type, "arrays like this are not known")
                   : CKR_OK;
    }
    if (row->form == FORM_NESTED && a->ulValueLen > 0) {
        return refuse(CKR_ATTRIBUTE_TYPE_INVALID, a->type, "templates for keys are not supported");
    }
    what = fault(a, row->form);
    return what == NULL ? CKR_OK : refuse(CKR_ATTRIBUTE_VALUE_INVALID, a->type, what);
}

/* The same value twice is taken as once, as 4.1.1 encourages; two values contradict each other. */
static CK_RV add(struct kms_attrs *attrs, const CK_ATTRIBUTE *a)
{
    struct kms_span had;

    if (kms_attrs_get(attrs, a->type, &had)) {
        return had.len == a->ulValueLen && kms_secret_equal(had.data, a->pValue, had.len)
                   ? CKR_OK
                   : refuse(CKR_TEMPLATE_INCONSISTENT, a->type, "is given twice, differently");
    }
    return kms_attrs_set(attrs, a->type, a->pValue, a->ulValueLen);
}

CK_RV kms_attrs_from_template(const CK_ATTRIBUTE *tmpl, CK_ULONG count, struct kms_attrs **ret)
{
    struct kms_attrs *attrs = NULL;
    CK_RV rv = CKR_OK;

    if (count > 0 && tmpl == NULL) {
        return kms_p11_refuse(CKR_ARGUMENTS_BAD, "a template of %lu attributes is NULL", count);
    }
    if (count > KMS_ATTRS_MAX) {
        return kms_p11_refuse(CKR_ARGUMENTS_BAD, "a template of %lu attributes is longer than %d",
                              count, KMS_ATTRS_MAX);
    }
    attrs = kms_attrs_new();
    if (attrs == NULL) {
        return CKR_HOST_MEMORY;
    }
    for (CK_ULONG i = 0; i < count && rv == CKR_OK; i++) {
        rv = check(&tmpl[i]);
        if (rv == CKR_OK) {
            rv = add(attrs, &tmpl[i]);
        }
    }
    if (rv != CKR_OK) {
        kms_attrs_free(attrs);
        return rv;
    }
    *ret = attrs;
    return CKR_OK;
}
