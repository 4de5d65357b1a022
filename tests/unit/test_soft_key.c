/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/soft.h"

#include <string.h>

#include "common/secure.h"
#include "tests/unit/fake_p11_log.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/unit.h"

static void put(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, const char *hex)
{
    struct bytes value = bytes_hex(hex);

    if (hex != NULL && kms_attrs_set(attrs, type, value.data, value.len) != CKR_OK) {
        exit(EXIT_FAILURE);
    }
}

/* ---- what is refused, and what the log says of it ----------------------------------------- */

#define SEED  "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
#define POINT "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define D     "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534"
#define GX    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
#define GY    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
#define ORDER "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
#define LESS1 "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550"
#define PRINTABLE_P256                                                                             \
    "130a"                                                                                         \
    "7072696d65323536"                                                                             \
    "7631" /* "prime256v1" */
#define PRINTABLE_SECP                                                                             \
    "1309"                                                                                         \
    "736563703235367231"
#define PRINTABLE_ED                                                                               \
    "130c"                                                                                         \
    "656477617264733235353139"

static const struct {
    const char *name;
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE type;
    const char *params, *point, *value;
    CK_RV rv;
    const char *log;
} imports[] = {
    {"aes", CKO_SECRET_KEY, CKK_AES, NULL, NULL, SEED, CKR_OK, NULL},
    {"aes of 17", CKO_SECRET_KEY, CKK_AES, NULL, NULL, "0102030405060708090a0b0c0d0e0f1011",
     CKR_KEY_SIZE_RANGE, "CKA_VALUE"},
    {"aes, empty", CKO_SECRET_KEY, CKK_AES, NULL, NULL, "", CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE"},
    {"aes, no value", CKO_SECRET_KEY, CKK_AES, NULL, NULL, NULL, CKR_TEMPLATE_INCOMPLETE,
     "CKA_VALUE"},
    {"generic of 1", CKO_SECRET_KEY, CKK_GENERIC_SECRET, NULL, NULL, "01", CKR_OK, NULL},
    {"a certificate", CKO_CERTIFICATE, CKK_AES, NULL, NULL, "01", CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_CLASS"},
    {"dsa", CKO_PRIVATE_KEY, CKK_DSA, NULL, NULL, "01", CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_KEY_TYPE"},
    {"p256 private", CKO_PRIVATE_KEY, CKK_EC, P256_OID, NULL, D, CKR_OK, NULL},
    {"p256 private, by name", CKO_PRIVATE_KEY, CKK_EC, PRINTABLE_P256, NULL, D, CKR_OK, NULL},
    {"p256 private, by its other name", CKO_PRIVATE_KEY, CKK_EC, PRINTABLE_SECP, NULL, D, CKR_OK,
     NULL},
    {"p256 private, zeros in front", CKO_PRIVATE_KEY, CKK_EC, P256_OID, NULL, "0000" D, CKR_OK,
     NULL},
    {"p256, the largest", CKO_PRIVATE_KEY, CKK_EC, P256_OID, NULL, LESS1, CKR_OK, NULL},
    {"p256, the order", CKO_PRIVATE_KEY, CKK_EC, P256_OID, NULL, ORDER, CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE"},
    {"p256, zero", CKO_PRIVATE_KEY, CKK_EC, P256_OID, NULL, "00", CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE"},
    {"p256, no params", CKO_PRIVATE_KEY, CKK_EC, NULL, NULL, D, CKR_TEMPLATE_INCOMPLETE,
     "CKA_EC_PARAMS"},
    {"an unknown curve", CKO_PRIVATE_KEY, CKK_EC, "06052b8104000b", NULL, D,
     CKR_CURVE_NOT_SUPPORTED, "CKA_EC_PARAMS"},
    {"params with a tail", CKO_PRIVATE_KEY, CKK_EC, P256_OID "00", NULL, D, CKR_CURVE_NOT_SUPPORTED,
     "CKA_EC_PARAMS"},
    {"Ed25519 called EC", CKO_PRIVATE_KEY, CKK_EC, ED25519_OID, NULL, SEED, CKR_CURVE_NOT_SUPPORTED,
     "CKA_EC_PARAMS"},
    {"p256 public", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "044104" GX GY, NULL, CKR_OK, NULL},
    {"p256 public, raw", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "04" GX GY, NULL, CKR_OK, NULL},
    {"p256 public, compressed", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "042103" GX, NULL, CKR_OK, NULL},
    {"p256 public, long form", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "04814104" GX GY, NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
    {"p256 public, off the curve", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "044104" GX GX, NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
    {"p256 public, infinity", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "040100", NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
    {"p256 public, cut off", CKO_PUBLIC_KEY, CKK_EC, P256_OID, "044104" GX, NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
    {"p256 public, no point", CKO_PUBLIC_KEY, CKK_EC, P256_OID, NULL, NULL, CKR_TEMPLATE_INCOMPLETE,
     "CKA_EC_POINT"},
    {"p256 point on p384", CKO_PUBLIC_KEY, CKK_EC, P384_OID, "044104" GX GY, NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
    {"ed private", CKO_PRIVATE_KEY, CKK_EC_EDWARDS, ED25519_OID, NULL, SEED, CKR_OK, NULL},
    {"ed private, by name", CKO_PRIVATE_KEY, CKK_EC_EDWARDS, PRINTABLE_ED, NULL, SEED, CKR_OK,
     NULL},
    {"ed private, short", CKO_PRIVATE_KEY, CKK_EC_EDWARDS, ED25519_OID, NULL, "0102",
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_VALUE"},
    {"ed public", CKO_PUBLIC_KEY, CKK_EC_EDWARDS, ED25519_OID, "0420" POINT, NULL, CKR_OK, NULL},
    {"ed public, raw", CKO_PUBLIC_KEY, CKK_EC_EDWARDS, ED25519_OID, POINT, NULL, CKR_OK, NULL},
    {"ed public, short", CKO_PUBLIC_KEY, CKK_EC_EDWARDS, ED25519_OID, "0102", NULL,
     CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT"},
};

static void importing(void)
{
    for (size_t i = 0; i < UNIT_COUNT(imports); i++) {
        struct kms_attrs *attrs = kms_attrs_new();
        struct kms_soft_key *key = NULL;
        CK_RV rv;

        put(attrs, CKA_EC_PARAMS, imports[i].params);
        put(attrs, CKA_EC_POINT, imports[i].point);
        put(attrs, CKA_VALUE, imports[i].value);
        fake_p11_log_clear();
        rv = kms_soft_key_import(imports[i].class, imports[i].type, attrs, &key);
        UNIT_CHECK(imports[i].name, rv == imports[i].rv);
        UNIT_CHECK(imports[i].name, (key != NULL) == (rv == CKR_OK));
        UNIT_CHECK(imports[i].name, imports[i].log == NULL || fake_p11_log_says(imports[i].log));
        kms_soft_key_unref(key);
        kms_attrs_free(attrs);
    }
}

static const CK_ATTRIBUTE_TYPE rsa_all[] = {
    CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_PRIVATE_EXPONENT, CKA_PRIME_1,
    CKA_PRIME_2, CKA_EXPONENT_1,      CKA_EXPONENT_2,       CKA_COEFFICIENT};

/* Takes an RSA key's attributes and breaks them, one way a row. */
static void importing_rsa(void)
{
    static const struct {
        const char *name;
        CK_OBJECT_CLASS class;
        CK_ATTRIBUTE_TYPE without, other; /* 0: none; CKA_CLASS is no RSA number */
        const char *value;
        CK_RV rv;
        const char *log;
    } rows[] = {
        {"public", CKO_PUBLIC_KEY, 0, 0, NULL, CKR_OK, NULL},
        {"private", CKO_PRIVATE_KEY, 0, 0, NULL, CKR_OK, NULL},
        {"no modulus", CKO_PUBLIC_KEY, CKA_MODULUS, 0, NULL, CKR_TEMPLATE_INCOMPLETE,
         "CKA_MODULUS"},
        {"no exponent", CKO_PUBLIC_KEY, CKA_PUBLIC_EXPONENT, 0, NULL, CKR_TEMPLATE_INCOMPLETE,
         "CKA_PUBLIC_EXPONENT"},
        {"no private exponent", CKO_PRIVATE_KEY, CKA_PRIVATE_EXPONENT, 0, NULL,
         CKR_TEMPLATE_INCOMPLETE, "CKA_PRIVATE_EXPONENT"},
        {"one prime", CKO_PRIVATE_KEY, CKA_PRIME_2, 0, NULL, CKR_TEMPLATE_INCOMPLETE, "of 5"},
        {"even exponent", CKO_PUBLIC_KEY, 0, CKA_PUBLIC_EXPONENT, "010000",
         CKR_ATTRIBUTE_VALUE_INVALID, "CKA_PUBLIC_EXPONENT"},
        {"exponent 1", CKO_PUBLIC_KEY, 0, CKA_PUBLIC_EXPONENT, "0001", CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_PUBLIC_EXPONENT"},
        {"exponent 3, zeros in front", CKO_PUBLIC_KEY, 0, CKA_PUBLIC_EXPONENT, "000003", CKR_OK,
         NULL},
        {"short modulus", CKO_PUBLIC_KEY, 0, CKA_MODULUS, "c0ffee01", CKR_KEY_SIZE_RANGE,
         "CKA_MODULUS"},
        {"empty modulus", CKO_PUBLIC_KEY, 0, CKA_MODULUS, "", CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_MODULUS"},
        {"another prime", CKO_PRIVATE_KEY, 0, CKA_PRIME_1, "c0ffee01", CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_MODULUS"},
    };
    struct kms_soft_key *made = key_made(CKK_RSA, 2048, NULL);
    struct kms_attrs *all = kms_attrs_new();

    CU_ASSERT_EQUAL_FATAL(kms_soft_key_export(made, false, all), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_ulong(all, CKA_MODULUS_BITS, 0), 2048);
    for (size_t i = 0; i < UNIT_COUNT(rsa_all); i++) {
        struct kms_span value;

        CU_ASSERT_TRUE(kms_attrs_get(all, rsa_all[i], &value));
    }
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_attrs *attrs = kms_attrs_copy(all);
        struct kms_soft_key *key = NULL;
        CK_RV rv;

        if (rows[i].without != 0) {
            kms_attrs_remove(attrs, rows[i].without);
        }
        if (rows[i].other != 0) {
            put(attrs, rows[i].other, rows[i].value);
        }
        fake_p11_log_clear();
        rv = kms_soft_key_import(rows[i].class, CKK_RSA, attrs, &key);
        UNIT_CHECK(rows[i].name, rv == rows[i].rv);
        UNIT_CHECK(rows[i].name, rows[i].log == NULL || fake_p11_log_says(rows[i].log));
        kms_soft_key_unref(key);
        kms_attrs_free(attrs);
    }
    kms_attrs_free(all);
    kms_soft_key_unref(made);
}

/* Without the Chinese remainder's numbers a key signs the same, and exports what it has. */
static void rsa_without_primes(void)
{
    struct kms_soft_key *made = key_made(CKK_RSA, 2048, NULL);
    struct kms_soft_key *plain = NULL;
    struct kms_attrs *attrs = kms_attrs_new();
    struct kms_attrs *again = kms_attrs_new();
    CK_MECHANISM mechanism = {CKM_SHA256_RSA_PKCS, NULL, 0};
    static struct bytes a;
    static struct bytes b;
    struct kms_span value;

    CU_ASSERT_EQUAL(kms_soft_key_export(made, false, attrs), CKR_OK);
    for (size_t i = 3; i < UNIT_COUNT(rsa_all); i++) {
        kms_attrs_remove(attrs, rsa_all[i]);
    }
    CU_ASSERT_EQUAL(kms_soft_key_import(CKO_PRIVATE_KEY, CKK_RSA, attrs, &plain), CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, made, kms_span_str("x"), &a), CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, plain, kms_span_str("x"), &b), CKR_OK);
    CU_ASSERT_TRUE(kms_span_equal(bytes_span(&a), bytes_span(&b)));
    CU_ASSERT_EQUAL(kms_soft_key_export(plain, false, again), CKR_OK);
    CU_ASSERT_FALSE(kms_attrs_get(again, CKA_PRIME_1, &value));
    CU_ASSERT_TRUE(kms_attrs_get(again, CKA_PRIVATE_EXPONENT, &value));
    kms_soft_key_unref(made);
    kms_soft_key_unref(plain);
    kms_attrs_free(attrs);
    kms_attrs_free(again);
}

/* ---- what is exported --------------------------------------------------------------------- */

static bool has(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, const char *hex)
{
    struct kms_span value;

    return kms_attrs_get(attrs, type, &value) && bytes_are(value, hex);
}

static void exports(void)
{
    struct kms_soft_key *key;
    struct kms_attrs *attrs = kms_attrs_new();
    struct kms_attrs *in = kms_attrs_new();
    struct kms_span value;

    /* FIPS 197 C.1's key: a block of zeros */
    key = key_of(CKK_AES, "000102030405060708090a0b0c0d0e0f");
    CU_ASSERT_EQUAL(kms_soft_key_export(key, false, attrs), CKR_OK);
    CU_ASSERT_TRUE(has(attrs, CKA_VALUE, "000102030405060708090a0b0c0d0e0f"));
    CU_ASSERT_EQUAL(kms_attrs_ulong(attrs, CKA_VALUE_LEN, 0), 16);
    CU_ASSERT_TRUE(has(attrs, CKA_CHECK_VALUE, "c6a13b"));
    CU_ASSERT_EQUAL(kms_soft_key_bits(key), 128);
    CU_ASSERT_EQUAL(kms_soft_key_type(key), CKK_AES);
    kms_soft_key_unref(key);

    key = key_of(CKK_GENERIC_SECRET, "616263");
    CU_ASSERT_EQUAL(kms_soft_key_export(key, false, attrs), CKR_OK);
    CU_ASSERT_TRUE(has(attrs, CKA_CHECK_VALUE, "a9993e"));
    kms_soft_key_unref(key);

    put(in, CKA_EC_PARAMS, PRINTABLE_P256);
    put(in, CKA_VALUE, "01");
    CU_ASSERT_EQUAL_FATAL(kms_soft_key_import(CKO_PRIVATE_KEY, CKK_EC, in, &key), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_key_export(key, false, attrs), CKR_OK);
    CU_ASSERT_TRUE(has(attrs, CKA_EC_PARAMS, P256_OID));
    CU_ASSERT_TRUE(has(attrs, CKA_EC_POINT, "044104" GX GY));
    CU_ASSERT_TRUE(
        has(attrs, CKA_VALUE, "0000000000000000000000000000000000000000000000000000000000000001"));
    kms_attrs_free(attrs);
    attrs = kms_attrs_new();
    CU_ASSERT_EQUAL(kms_soft_key_export(key, true, attrs), CKR_OK);
    CU_ASSERT_FALSE(kms_attrs_get(attrs, CKA_VALUE, &value));
    CU_ASSERT_TRUE(has(attrs, CKA_PUBLIC_KEY_INFO,
                       "3059301306072a8648ce3d020106082a8648ce3d03010703420004" GX GY));
    kms_soft_key_unref(key);

    put(in, CKA_EC_PARAMS, ED25519_OID);
    put(in, CKA_VALUE, SEED);
    CU_ASSERT_EQUAL_FATAL(kms_soft_key_import(CKO_PRIVATE_KEY, CKK_EC_EDWARDS, in, &key), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_key_export(key, false, attrs), CKR_OK);
    CU_ASSERT_TRUE(has(attrs, CKA_EC_POINT, "0420" POINT));
    CU_ASSERT_TRUE(has(attrs, CKA_VALUE, SEED));
    CU_ASSERT_TRUE(has(attrs, CKA_PUBLIC_KEY_INFO, "302a300506032b6570032100" POINT));
    CU_ASSERT_EQUAL(kms_soft_key_bits(key), 255);
    kms_soft_key_unref(key);
    kms_attrs_free(attrs);
    kms_attrs_free(in);
}

/* ---- DER ---------------------------------------------------------------------------------- */

static void der_round_trips(void)
{
    static const struct {
        const char *name;
        CK_KEY_TYPE type;
        unsigned bits;
        const char *oid;
    } rows[] = {{"rsa", CKK_RSA, 2048, NULL},       {"p256", CKK_EC, 0, P256_OID},
                {"p384", CKK_EC, 0, P384_OID},      {"p521", CKK_EC, 0, P521_OID},
                {"secp256k1", CKK_EC, 0, K256_OID}, {"ed", CKK_EC_EDWARDS, 0, ED25519_OID}};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_soft_key *key = key_made(rows[i].type, rows[i].bits, rows[i].oid);
        struct kms_soft_key *again = NULL;
        struct kms_soft_key *half = NULL;
        static uint8_t der[4096];
        struct kms_buf buf = KMS_BUF_OVER(der);
        struct kms_buf small = kms_buf_over(der, 10);
        struct kms_attrs *a = kms_attrs_new();
        struct kms_attrs *b = kms_attrs_new();
        struct kms_attrs *c = kms_attrs_new();
        struct kms_span spki = KMS_SPAN_NONE;

        UNIT_CHECK(rows[i].name, kms_soft_key_pkcs8(key, &small) == CKR_BUFFER_TOO_SMALL);
        UNIT_CHECK(rows[i].name, kms_soft_key_pkcs8(key, &buf) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_soft_key_from_pkcs8(kms_buf_span(&buf), &again) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_soft_key_type(again) == rows[i].type);
        UNIT_CHECK(rows[i].name, kms_soft_key_bits(again) == kms_soft_key_bits(key));
        UNIT_CHECK(rows[i].name, kms_soft_key_export(key, false, a) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_soft_key_export(again, false, b) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_attrs_match(a, b) && kms_attrs_match(b, a));
        UNIT_CHECK(rows[i].name, kms_attrs_get(a, CKA_PUBLIC_KEY_INFO, &spki));
        UNIT_CHECK(rows[i].name, kms_soft_key_from_spki(spki, &half) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_soft_key_export(half, false, c) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_attrs_match(a, c)); /* and nothing private: */
        UNIT_CHECK(rows[i].name, kms_attrs_count(c) < kms_attrs_count(a));
        UNIT_CHECK(rows[i].name, kms_soft_key_pkcs8(half, &buf) == CKR_KEY_NOT_WRAPPABLE);
        kms_soft_key_unref(again);
        again = NULL;
        /* one structure is not taken for the other; nothing follows, nothing lacks */
        buf = KMS_BUF_OVER(der);
        (void)kms_soft_key_pkcs8(key, &buf);
        UNIT_CHECK(rows[i].name, kms_soft_key_from_spki(kms_buf_span(&buf), &again) ==
                                     CKR_ATTRIBUTE_VALUE_INVALID);
        UNIT_CHECK(rows[i].name,
                   kms_soft_key_from_pkcs8(spki, &again) == CKR_ATTRIBUTE_VALUE_INVALID);
        UNIT_CHECK(rows[i].name, kms_soft_key_from_pkcs8(kms_span_of(der, buf.len + 1), &again) ==
                                     CKR_ATTRIBUTE_VALUE_INVALID);
        UNIT_CHECK(rows[i].name, kms_soft_key_from_pkcs8(kms_span_of(der, buf.len - 1), &again) ==
                                     CKR_ATTRIBUTE_VALUE_INVALID);
        UNIT_CHECK(rows[i].name, again == NULL);
        kms_soft_key_unref(half);
        kms_soft_key_unref(key);
        kms_attrs_free(a);
        kms_attrs_free(b);
        kms_attrs_free(c);
    }
}

/* SubjectPublicKeyInfos of P-224 and X25519: read by libcrypto, not of ours. */
static void der_refusals(void)
{
    static const struct {
        const char *name, *spki;
        CK_RV rv;
    } rows[] = {
        {"nothing", "", CKR_ATTRIBUTE_VALUE_INVALID},
        {"rubbish", "3003020101", CKR_ATTRIBUTE_VALUE_INVALID},
        {"x25519",
         "302a300506032b656e032100de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
         CKR_ATTRIBUTE_VALUE_INVALID},
        {"p224",
         "304e301006072a8648ce3d020106052b81040021033a0004b70e0cbd6bb4bf7f321390b94a03c1d356c211223"
         "4"
         "3280d6115c1d21bd376388b5f723fb4c22dfe6cd4375a05a07476444d5819985007e34",
         CKR_CURVE_NOT_SUPPORTED},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct bytes spki = bytes_hex(rows[i].spki);
        struct kms_soft_key *key = NULL;

        UNIT_CHECK(rows[i].name, kms_soft_key_from_spki(bytes_span(&spki), &key) == rows[i].rv);
        UNIT_CHECK(rows[i].name, key == NULL);
    }
}

/* ---- fresh ones --------------------------------------------------------------------------- */

static void generating(void)
{
    static const struct {
        const char *name;
        CK_KEY_TYPE type;
        unsigned bits;
        const char *params, *exponent;
        CK_RV rv;
        const char *log;
    } rows[] = {
        {"aes 192", CKK_AES, 192, NULL, NULL, CKR_OK, NULL},
        {"aes 100", CKK_AES, 100, NULL, NULL, CKR_KEY_SIZE_RANGE, "CKA_VALUE_LEN"},
        {"aes 64", CKK_AES, 64, NULL, NULL, CKR_KEY_SIZE_RANGE, "CKA_VALUE"},
        {"generic 8", CKK_GENERIC_SECRET, 8, NULL, NULL, CKR_OK, NULL},
        {"generic 0", CKK_GENERIC_SECRET, 0, NULL, NULL, CKR_KEY_SIZE_RANGE, "CKA_VALUE_LEN"},
        {"generic, longest", CKK_GENERIC_SECRET, 8 * KMS_SOFT_SECRET_MAX, NULL, NULL, CKR_OK, NULL},
        {"generic, longer", CKK_GENERIC_SECRET, 8 * KMS_SOFT_SECRET_MAX + 8, NULL, NULL,
         CKR_KEY_SIZE_RANGE, "CKA_VALUE_LEN"},
        {"rsa 1024", CKK_RSA, 1024, NULL, NULL, CKR_KEY_SIZE_RANGE, "CKA_MODULUS_BITS"},
        {"rsa 8193", CKK_RSA, 8193, NULL, NULL, CKR_KEY_SIZE_RANGE, "CKA_MODULUS_BITS"},
        {"rsa, e 3", CKK_RSA, 2048, NULL, "03", CKR_OK, NULL},
        {"rsa, e 4", CKK_RSA, 2048, NULL, "04", CKR_ATTRIBUTE_VALUE_INVALID, "CKA_PUBLIC_EXPONENT"},
        {"rsa, e 1", CKK_RSA, 2048, NULL, "01", CKR_ATTRIBUTE_VALUE_INVALID, "CKA_PUBLIC_EXPONENT"},
        {"rsa, e 0", CKK_RSA, 2048, NULL, "00", CKR_ATTRIBUTE_VALUE_INVALID, "CKA_PUBLIC_EXPONENT"},
        {"rsa, e too long", CKK_RSA, 2048, NULL, SEED SEED "01", CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_PUBLIC_EXPONENT"},
        {"p384 by name", CKK_EC, 0, "1309736563703338347231", NULL, CKR_OK, NULL},
        {"no curve", CKK_EC, 0, NULL, NULL, CKR_CURVE_NOT_SUPPORTED, "CKA_EC_PARAMS"},
        {"ed", CKK_EC_EDWARDS, 0, ED25519_OID, NULL, CKR_OK, NULL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct bytes params = bytes_hex(rows[i].params);
        struct bytes exponent = bytes_hex(rows[i].exponent);
        struct kms_soft_key *key = NULL;
        CK_RV rv;

        fake_p11_log_clear();
        rv = kms_soft_key_generate(rows[i].type, rows[i].bits, bytes_span(&params),
                                   bytes_span(&exponent), &key);
        UNIT_CHECK(rows[i].name, rv == rows[i].rv);
        UNIT_CHECK(rows[i].name, rows[i].log == NULL || fake_p11_log_says(rows[i].log));
        UNIT_CHECK(rows[i].name, (key != NULL) == (rv == CKR_OK));
        if (key != NULL && rows[i].exponent != NULL) {
            struct kms_attrs *attrs = kms_attrs_new();

            UNIT_CHECK(rows[i].name, kms_soft_key_export(key, true, attrs) == CKR_OK);
            UNIT_CHECK(rows[i].name, has(attrs, CKA_PUBLIC_EXPONENT, rows[i].exponent));
            kms_attrs_free(attrs);
        }
        kms_soft_key_unref(key);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"importing", importing},
        {"importing RSA", importing_rsa},
        {"RSA without primes", rsa_without_primes},
        {"exports", exports},
        {"DER round trips", der_round_trips},
        {"DER refusals", der_refusals},
        {"generating", generating},
    };

    return unit_main("test_soft_key", tests, UNIT_COUNT(tests));
}
