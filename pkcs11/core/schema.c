/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/schema.h"

#define DATA    (1u << CKO_DATA)
#define CERT    (1u << CKO_CERTIFICATE)
#define PUBLIC  (1u << CKO_PUBLIC_KEY)
#define PRIVATE (1u << CKO_PRIVATE_KEY)
#define SECRET  (1u << CKO_SECRET_KEY)
#define KEYS    (PUBLIC | PRIVATE | SECRET)
#define HIDDEN  (PRIVATE | SECRET)
#define ALL     (DATA | CERT | KEYS)
#define BOOL    sizeof(CK_BBOOL)
#define ULONG   sizeof(CK_ULONG)

#define ROW(type, classes, secret, size, change)                                                   \
    {                                                                                              \
        type, #type, classes, secret, size, KMS_CHANGE_##change                                    \
    }

/* by type: looked up by halving */
static const struct kms_attr_row rows[] = {
    ROW(CKA_CLASS, ALL, 0, ULONG, NEVER),
    ROW(CKA_TOKEN, ALL, 0, BOOL, NEVER),
    ROW(CKA_PRIVATE, ALL, 0, BOOL, NEVER),
    ROW(CKA_LABEL, ALL, 0, 0, ANY),
    ROW(CKA_UNIQUE_ID, ALL, 0, 0, NEVER),
    ROW(CKA_APPLICATION, DATA, 0, 0, ANY),
    ROW(CKA_VALUE, DATA | CERT | SECRET | PRIVATE, HIDDEN, 0, NEVER),
    ROW(CKA_OBJECT_ID, DATA, 0, 0, ANY),
    ROW(CKA_CERTIFICATE_TYPE, CERT, 0, ULONG, NEVER),
    ROW(CKA_ISSUER, CERT, 0, 0, ANY),
    ROW(CKA_SERIAL_NUMBER, CERT, 0, 0, ANY),
    ROW(CKA_TRUSTED, CERT | PUBLIC | SECRET, 0, BOOL, NEVER), /* the security officer's */
    ROW(CKA_CERTIFICATE_CATEGORY, CERT, 0, ULONG, NEVER),
    ROW(CKA_JAVA_MIDP_SECURITY_DOMAIN, CERT, 0, ULONG, NEVER),
    ROW(CKA_URL, CERT, 0, 0, NEVER),
    ROW(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERT, 0, 0, NEVER),
    ROW(CKA_HASH_OF_ISSUER_PUBLIC_KEY, CERT, 0, 0, NEVER),
    ROW(CKA_NAME_HASH_ALGORITHM, CERT, 0, ULONG, NEVER),
    ROW(CKA_CHECK_VALUE, CERT | SECRET, 0, 0, NEVER),
    ROW(CKA_KEY_TYPE, KEYS, 0, ULONG, NEVER),
    ROW(CKA_SUBJECT, CERT | PUBLIC | PRIVATE, 0, 0, ANY),
    ROW(CKA_ID, CERT | KEYS, 0, 0, ANY),
    ROW(CKA_SENSITIVE, HIDDEN, 0, BOOL, TO_TRUE),
    ROW(CKA_ENCRYPT, PUBLIC | SECRET, 0, BOOL, ANY),
    ROW(CKA_DECRYPT, HIDDEN, 0, BOOL, ANY),
    ROW(CKA_WRAP, PUBLIC | SECRET, 0, BOOL, ANY),
    ROW(CKA_UNWRAP, HIDDEN, 0, BOOL, ANY),
    ROW(CKA_SIGN, HIDDEN, 0, BOOL, ANY),
    ROW(CKA_SIGN_RECOVER, PRIVATE, 0, BOOL, ANY),
    ROW(CKA_VERIFY, PUBLIC | SECRET, 0, BOOL, ANY),
    ROW(CKA_VERIFY_RECOVER, PUBLIC, 0, BOOL, ANY),
    ROW(CKA_DERIVE, KEYS, 0, BOOL, ANY),
    ROW(CKA_START_DATE, CERT | KEYS, 0, 0, ANY),
    ROW(CKA_END_DATE, CERT | KEYS, 0, 0, ANY),
    ROW(CKA_MODULUS, PUBLIC | PRIVATE, 0, 0, NEVER),
    ROW(CKA_MODULUS_BITS, PUBLIC | PRIVATE, 0, ULONG, NEVER),
    ROW(CKA_PUBLIC_EXPONENT, PUBLIC | PRIVATE, 0, 0, NEVER),
    ROW(CKA_PRIVATE_EXPONENT, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_PRIME_1, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_PRIME_2, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_EXPONENT_1, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_EXPONENT_2, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_COEFFICIENT, PRIVATE, PRIVATE, 0, NEVER),
    ROW(CKA_PUBLIC_KEY_INFO, CERT | PUBLIC | PRIVATE, 0, 0, NEVER),
    ROW(CKA_VALUE_LEN, SECRET, 0, ULONG, NEVER),
    ROW(CKA_EXTRACTABLE, HIDDEN, 0, BOOL, TO_FALSE),
    ROW(CKA_LOCAL, KEYS, 0, BOOL, NEVER),
    ROW(CKA_NEVER_EXTRACTABLE, HIDDEN, 0, BOOL, NEVER),
    ROW(CKA_ALWAYS_SENSITIVE, HIDDEN, 0, BOOL, NEVER),
    ROW(CKA_KEY_GEN_MECHANISM, KEYS, 0, ULONG, NEVER),
    ROW(CKA_MODIFIABLE, ALL, 0, BOOL, NEVER),
    ROW(CKA_COPYABLE, ALL, 0, BOOL, TO_FALSE),
    ROW(CKA_DESTROYABLE, ALL, 0, BOOL, NEVER),
    ROW(CKA_EC_PARAMS, PUBLIC | PRIVATE, 0, 0, NEVER),
    ROW(CKA_EC_POINT, PUBLIC | PRIVATE, 0, 0, NEVER),
    ROW(CKA_ALWAYS_AUTHENTICATE, PRIVATE, 0, BOOL, NEVER),
    ROW(CKA_WRAP_WITH_TRUSTED, HIDDEN, 0, BOOL, TO_TRUE),
    ROW(CKA_ALLOWED_MECHANISMS, KEYS, 0, 0, NEVER),
    ROW(CKA_KMSBRIDGE_KEY_ID, CERT | KEYS, 0, 0, NEVER),
    ROW(CKA_KMSBRIDGE_VERSION, CERT | KEYS, 0, 0, NEVER),
    ROW(CKA_KMSBRIDGE_WRAPPED_VALUE, SECRET, 0, 0, NEVER),
    ROW(CKA_KMSBRIDGE_NAME, CERT | KEYS, 0, 0, NEVER),
};

const struct kms_attr_row *kms_schema_find(CK_ATTRIBUTE_TYPE type)
{
    size_t low = 0;
    size_t high = sizeof(rows) / sizeof(rows[0]);

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (rows[middle].type == type) {
            return &rows[middle];
        }
        if (rows[middle].type < type) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static bool has_class(unsigned classes, CK_OBJECT_CLASS class)
{
    return class < 32 && (classes >> class & 1u) != 0;
}

bool kms_schema_has(const struct kms_attr_row *row, CK_OBJECT_CLASS class)
{
    return has_class(row->classes, class);
}

bool kms_schema_is_secret(const struct kms_attr_row *row, CK_OBJECT_CLASS class)
{
    return has_class(row->secret, class);
}
