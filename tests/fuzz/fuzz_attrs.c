/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template from any bytes. Each attribute: a byte that chooses a type that we know or the next 4
 * bytes as a type, a byte for how its pointer and length are made, a length byte, and so many
 * bytes. What is taken holds exactly what was given, and makes a key or a clear refusal.
 */
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/soft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 40

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

void kms_p11_log(enum kms_p11_log level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

CK_RV kms_p11_refuse(CK_RV rv, const char *fmt, ...)
{
    (void)fmt;
    return rv;
}

static const CK_ATTRIBUTE_TYPE types[] = {
    CKA_CLASS,         CKA_TOKEN,
    CKA_LABEL,         CKA_VALUE,
    CKA_KEY_TYPE,      CKA_ID,
    CKA_SIGN,          CKA_VALUE_LEN,
    CKA_MODULUS,       CKA_PUBLIC_EXPONENT,
    CKA_START_DATE,    CKA_EC_PARAMS,
    CKA_EC_POINT,      CKA_PRIVATE_EXPONENT,
    CKA_PRIME_1,       CKA_ALLOWED_MECHANISMS,
    CKA_WRAP_TEMPLATE,
};
#define TYPE_COUNT (sizeof(types) / sizeof(types[0]))

/* Values are copied to memory of their own length. */
static size_t read_template(struct kms_span in, CK_ATTRIBUTE tmpl[MOST])
{
    size_t count = 0;
    struct kms_span value;
    uint8_t type = 0;
    uint8_t how = 0;
    uint8_t len = 0;

    while (count < MOST && kms_span_take_u8(&in, &type) == KMS_OK &&
           kms_span_take_u8(&in, &how) == KMS_OK && kms_span_take_u8(&in, &len) == KMS_OK &&
           kms_span_take(&in, len, &value) == KMS_OK) {
        CK_ATTRIBUTE *a = &tmpl[count++];

        a->type = type < TYPE_COUNT ? types[type] : (CK_ATTRIBUTE_TYPE)type << (how & 31u);
        a->pValue = malloc(len == 0 ? 1 : len);
        demand(a->pValue != NULL);
        if (len > 0) {
            memcpy(a->pValue, value.data, len);
        }
        a->ulValueLen = len;
        if ((how & 0xc0) == 0xc0) { /* no value, and a length that is a lie */
            free(a->pValue);
            a->pValue = NULL;
            a->ulValueLen = how == 0xff ? (CK_ULONG)-1 : len;
        }
    }
    return count;
}

static void check(const CK_ATTRIBUTE *tmpl, size_t count, const struct kms_attrs *attrs)
{
    struct kms_attrs *copy = kms_attrs_copy(attrs);

    demand(copy != NULL && kms_attrs_count(attrs) <= count);
    demand(kms_attrs_match(attrs, copy) && kms_attrs_match(copy, attrs));
    for (size_t i = 0; i < count; i++) {
        struct kms_span value;

        demand(kms_attrs_get(copy, tmpl[i].type, &value));
        demand(value.len == tmpl[i].ulValueLen &&
               (value.len == 0 || memcmp(value.data, tmpl[i].pValue, value.len) == 0));
    }
    kms_attrs_free(copy);
}

/* As C_CreateObject would: class and type come from the template. */
static void import(const struct kms_attrs *attrs)
{
    struct kms_attrs *out = kms_attrs_new();
    struct kms_soft_key *key = NULL;
    CK_RV rv =
        kms_soft_key_import(kms_attrs_ulong(attrs, CKA_CLASS, CKO_SECRET_KEY),
                            kms_attrs_ulong(attrs, CKA_KEY_TYPE, CKK_GENERIC_SECRET), attrs, &key);

    demand((rv == CKR_OK) == (key != NULL));
    if (key != NULL) {
        demand(kms_soft_key_export(key, false, out) == CKR_OK);
    }
    kms_soft_key_unref(key);
    kms_attrs_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CK_ATTRIBUTE tmpl[MOST];
    size_t count = read_template(kms_span_of(data, size), tmpl);
    struct kms_attrs *attrs = NULL;

    if (kms_attrs_from_template(tmpl, count, &attrs) == CKR_OK) {
        check(tmpl, count, attrs);
        import(attrs);
    }
    kms_attrs_free(attrs);
    for (size_t i = 0; i < count; i++) {
        free(tmpl[i].pValue);
    }
    return 0;
}
