/* SPDX-License-Identifier: Apache-2.0 */
/* Session objects: what templates may and must say, what objects have then; copies; destruction. */
#include <string.h>

#include "tests/unit/op_mechs.h"
#include "tests/unit/tmpl.h"

#define EXTRA 6
#define NONE  CK_UNAVAILABLE_INFORMATION

#define K32     "0123456789abcdef0123456789abcdef"
#define P256    "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define ED25519 "\x06\x03\x2b\x65\x70"
#define E65537  "\x01\x00\x01"

/* ---- rules ---------------------------------------------------------------------------------- */

enum base { AES, GENERIC, DATA, CERT, GEN_AES, GEN_GENERIC, BASES };

static const struct tmpl_row bases[BASES][4] = {
    [AES] = {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), BYTES(CKA_VALUE, K32)},
    [GENERIC] = {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
                 BYTES(CKA_VALUE, "xyz")},
    [DATA] = {NUM(CKA_CLASS, CKO_DATA), TEXT(CKA_VALUE, "some data")},
    [CERT] = {NUM(CKA_CLASS, CKO_CERTIFICATE), NUM(CKA_CERTIFICATE_TYPE, CKC_X_509),
              TEXT(CKA_SUBJECT, "subject"), TEXT(CKA_VALUE, "certificate")},
    [GEN_AES] = {NUM(CKA_VALUE_LEN, 32)},
    [GEN_GENERIC] = {NUM(CKA_VALUE_LEN, 20)},
};

static const struct rule_row {
    const char *name;
    enum base base;
    size_t skip; /* rows of the base from the front */
    struct tmpl_row extra[EXTRA];
    CK_RV rv;
    const char *names; /* the attribute, in the log */
} rule_rows[] = {
    {"aes", AES, 0, {{TMPL_END, 0, 0, NULL}}, CKR_OK, NULL},
    {"generic", GENERIC, 0, {{TMPL_END, 0, 0, NULL}}, CKR_OK, NULL},
    {"data", DATA, 0, {TEXT(CKA_APPLICATION, "app")}, CKR_OK, NULL},
    {"certificate", CERT, 0, {TEXT(CKA_ID, "id")}, CKR_OK, NULL},
    {"generated", GEN_AES, 0, {YES(CKA_ENCRYPT)}, CKR_OK, NULL},
    {"no class", AES, 1, {{TMPL_END, 0, 0, NULL}}, CKR_TEMPLATE_INCOMPLETE, "CKA_CLASS"},
    {"no type", AES, 3, {NUM(CKA_CLASS, CKO_SECRET_KEY)}, CKR_TEMPLATE_INCOMPLETE, "CKA_KEY_TYPE"},
    {"no value",
     AES,
     3,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES)},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_VALUE"},
    {"no subject",
     CERT,
     3,
     {NUM(CKA_CLASS, CKO_CERTIFICATE), NUM(CKA_CERTIFICATE_TYPE, CKC_X_509)},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_SUBJECT"},
    {"no length", GEN_AES, 1, {{TMPL_END, 0, 0, NULL}}, CKR_TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN"},
    {"class that is none",
     AES,
     1,
     {NUM(CKA_CLASS, CKO_HW_FEATURE)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_CLASS"},
    {"type that is none",
     AES,
     3,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_DES3), BYTES(CKA_VALUE, K32)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_KEY_TYPE"},
    {"type and class apart",
     AES,
     3,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_RSA), BYTES(CKA_VALUE, K32)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_KEY_TYPE"},
    {"AES of 5 bytes",
     AES,
     3,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), BYTES(CKA_VALUE, "12345")},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE"},
    {"AES of 20 bytes",
     GEN_AES,
     1,
     {NUM(CKA_VALUE_LEN, 20)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE_LEN"},
    {"of no bytes",
     GEN_GENERIC,
     1,
     {NUM(CKA_VALUE_LEN, 0)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE_LEN"},
    {"of too many",
     GEN_GENERIC,
     1,
     {NUM(CKA_VALUE_LEN, 0x20000001)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_VALUE_LEN"},
    {"another length",
     AES,
     0,
     {NUM(CKA_VALUE_LEN, 16)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_VALUE_LEN"},
    {"the length", AES, 0, {NUM(CKA_VALUE_LEN, 32)}, CKR_OK, NULL},
    {"value of a generated one",
     GEN_AES,
     0,
     {BYTES(CKA_VALUE, K32)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_VALUE"},
    {"another class",
     GEN_AES,
     0,
     {NUM(CKA_CLASS, CKO_PUBLIC_KEY)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_CLASS"},
    {"another type",
     GEN_AES,
     0,
     {NUM(CKA_KEY_TYPE, CKK_RSA)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_KEY_TYPE"},
    {"local", AES, 0, {YES(CKA_LOCAL)}, CKR_ATTRIBUTE_READ_ONLY, "CKA_LOCAL"},
    {"always sensitive",
     GEN_AES,
     0,
     {YES(CKA_ALWAYS_SENSITIVE)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_ALWAYS_SENSITIVE"},
    {"made by",
     GEN_AES,
     0,
     {NUM(CKA_KEY_GEN_MECHANISM, 1)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_KEY_GEN_MECHANISM"},
    {"unique id", DATA, 0, {TEXT(CKA_UNIQUE_ID, "1")}, CKR_ATTRIBUTE_READ_ONLY, "CKA_UNIQUE_ID"},
    {"trusted", AES, 0, {YES(CKA_TRUSTED)}, CKR_ATTRIBUTE_READ_ONLY, "CKA_TRUSTED"},
    {"not trusted", AES, 0, {NO(CKA_TRUSTED)}, CKR_OK, NULL},
    {"a modulus", AES, 0, {TEXT(CKA_MODULUS, "x")}, CKR_ATTRIBUTE_TYPE_INVALID, "CKA_MODULUS"},
    {"an unknown attribute", DATA, 0, {NUM(0x12345, 1)}, CKR_ATTRIBUTE_TYPE_INVALID, "0x12345"},
    {"check value",
     AES,
     0,
     {BYTES(CKA_CHECK_VALUE, "abc")},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_CHECK_VALUE"},
    {"no check value", AES, 0, {BYTES(CKA_CHECK_VALUE, "")}, CKR_OK, NULL},
    {"check of a certificate",
     CERT,
     0,
     {BYTES(CKA_CHECK_VALUE, "abc")},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_CHECK_VALUE"},
    {"a truth of four bytes",
     AES,
     0,
     {NUM(CKA_SENSITIVE, 1)},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_SENSITIVE"},
    {"a truth of 7",
     AES,
     0,
     {{TMPL_BOOL, CKA_SENSITIVE, 7, NULL}},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_SENSITIVE"},
    {"twice",
     AES,
     0,
     {YES(CKA_SENSITIVE), NO(CKA_SENSITIVE)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_SENSITIVE"},
    {"on the token", AES, 0, {YES(CKA_TOKEN)}, CKR_TEMPLATE_INCONSISTENT, "CKA_TOKEN"},
    {"a WTLS certificate",
     CERT,
     4,
     {NUM(CKA_CLASS, CKO_CERTIFICATE), NUM(CKA_CERTIFICATE_TYPE, CKC_WTLS),
      TEXT(CKA_SUBJECT, "subject"), TEXT(CKA_VALUE, "certificate")},
     CKR_ATTRIBUTE_VALUE_INVALID,
     "CKA_CERTIFICATE_TYPE"},
};

static CK_RV make(const struct rule_row *row, CK_OBJECT_HANDLE *ret)
{
    CK_MECHANISM mechanism = {row->base == GEN_AES ? CKM_AES_KEY_GEN : CKM_GENERIC_SECRET_KEY_GEN,
                              NULL, 0};
    struct tmpl t = {.count = 0};

    if (row->skip < 4) {
        tmpl_add(&t, bases[row->base] + row->skip, 4 - row->skip);
    }
    tmpl_add(&t, row->extra, EXTRA);
    return row->base >= GEN_AES ? kms_make_key(&fake.session, &mechanism, t.attrs, t.count, ret)
                                : kms_make_object(&fake.session, t.attrs, t.count, ret);
}

static void test_rules(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rule_rows); i++) {
        const struct rule_row *row = &rule_rows[i];
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        CK_RV rv = CKR_OK;

        fake_begin();
        rv = make(row, &handle);
        if (!UNIT_CHECK(row->name, rv == row->rv)) {
            fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
        }
        if (!UNIT_CHECK(row->name, row->names == NULL || fake_p11_log_says(row->names))) {
            fprintf(stderr, "%s: the log does not say %s\n", row->name, row->names);
        }
        UNIT_CHECK(row->name, fake_objects() == (row->rv == CKR_OK ? 1 : 0));
        UNIT_CHECK(row->name, (handle != CK_INVALID_HANDLE) == (row->rv == CKR_OK));
        fake_end();
    }
}

/* ---- what they have then -------------------------------------------------------------------- */

static void test_defaults(void)
{
    CK_OBJECT_HANDLE made = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE brought = CK_INVALID_HANDLE;
    struct rule_row gen = {.base = GEN_AES, .extra = {YES(CKA_SENSITIVE)}};
    struct rule_row aes = {.base = AES, .extra = {YES(CKA_SENSITIVE)}};

    fake_begin();
    CU_ASSERT_EQUAL(make(&gen, &made), CKR_OK);
    CU_ASSERT_EQUAL(make(&aes, &brought), CKR_OK);
    CU_ASSERT(object_bool(made, CKA_LOCAL, true));
    CU_ASSERT(object_bool(brought, CKA_LOCAL, false));
    CU_ASSERT(object_bool(made, CKA_ALWAYS_SENSITIVE, true));
    CU_ASSERT(object_bool(brought, CKA_ALWAYS_SENSITIVE, false));
    CU_ASSERT(object_bool(made, CKA_NEVER_EXTRACTABLE, true));
    CU_ASSERT(object_bool(brought, CKA_NEVER_EXTRACTABLE, false));
    CU_ASSERT(object_bool(made, CKA_EXTRACTABLE, false));
    CU_ASSERT(object_bool(made, CKA_TOKEN, false));
    CU_ASSERT(object_bool(made, CKA_PRIVATE, true));
    CU_ASSERT(object_bool(made, CKA_ENCRYPT, true));
    CU_ASSERT(object_bool(made, CKA_DERIVE, false));
    CU_ASSERT_EQUAL(object_ulong(made, CKA_KEY_GEN_MECHANISM), CKM_AES_KEY_GEN);
    CU_ASSERT_EQUAL(object_ulong(brought, CKA_KEY_GEN_MECHANISM), NONE);
    CU_ASSERT_EQUAL(object_ulong(brought, CKA_VALUE_LEN), 32);
    CU_ASSERT_EQUAL(object_len(made, CKA_VALUE), 32);
    CU_ASSERT_EQUAL(object_len(made, CKA_CHECK_VALUE), 3);
    CU_ASSERT_EQUAL(object_len(made, CKA_UNIQUE_ID), 32);
    CU_ASSERT_EQUAL(object_len(made, CKA_LABEL), 0);
    CU_ASSERT_EQUAL(fake_object(made)->session, fake.session.handle);
    CU_ASSERT_EQUAL(fake_object(made)->bits, 256);
    fake_end();
}

static void test_login(void)
{
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct rule_row plain = {.base = AES};
    struct rule_row hidden = {.base = AES, .extra = {YES(CKA_PRIVATE)}};
    struct rule_row token = {.base = AES, .extra = {YES(CKA_TOKEN)}};

    fake_begin();
    atomic_store(&fake.slot.open, false);
    CU_ASSERT_EQUAL(make(&hidden, &handle), CKR_USER_NOT_LOGGED_IN);
    CU_ASSERT_EQUAL(make(&plain, &handle), CKR_OK);
    CU_ASSERT(object_bool(handle, CKA_PRIVATE, false));
    fake.session.rw = false;
    CU_ASSERT_EQUAL(make(&token, &handle), CKR_SESSION_READ_ONLY);
    CU_ASSERT_EQUAL(make(&plain, &handle), CKR_OK);
    fake_end();
}

/* ---- pairs ---------------------------------------------------------------------------------- */

static const struct pair_row {
    const char *name;
    CK_MECHANISM_TYPE mechanism;
    struct tmpl_row public_half[EXTRA];
    struct tmpl_row private_half[EXTRA];
    CK_RV rv;
    const char *names;
    CK_MECHANISM sign;
} pair_rows[] = {
    {"rsa",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {NUM(CKA_MODULUS_BITS, 2048), BYTES(CKA_PUBLIC_EXPONENT, E65537)},
     {YES(CKA_SIGN)},
     CKR_OK,
     NULL,
     MECH_NONE(CKM_SHA256_RSA_PKCS)},
    {"ec",
     CKM_EC_KEY_PAIR_GEN,
     {BYTES(CKA_EC_PARAMS, P256), TEXT(CKA_ID, "i")},
     {TEXT(CKA_ID, "i")},
     CKR_OK,
     NULL,
     MECH_NONE(CKM_ECDSA_SHA256)},
    {"ed25519",
     CKM_EC_EDWARDS_KEY_PAIR_GEN,
     {BYTES(CKA_EC_PARAMS, ED25519)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     NULL,
     MECH_NONE(CKM_EDDSA)},
    {"no bits",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {YES(CKA_VERIFY)},
     {YES(CKA_SIGN)},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_MODULUS_BITS",
     MECH_NONE(0)},
    {"few bits",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {NUM(CKA_MODULUS_BITS, 512)},
     {YES(CKA_SIGN)},
     CKR_KEY_SIZE_RANGE,
     "CKA_MODULUS_BITS",
     MECH_NONE(0)},
    {"no curve",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_VERIFY)},
     {YES(CKA_SIGN)},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_EC_PARAMS",
     MECH_NONE(0)},
    {"a modulus",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {NUM(CKA_MODULUS_BITS, 2048), TEXT(CKA_MODULUS, "x")},
     {YES(CKA_SIGN)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_MODULUS",
     MECH_NONE(0)},
    {"halves apart",
     CKM_EC_KEY_PAIR_GEN,
     {BYTES(CKA_EC_PARAMS, P256)},
     {YES(CKA_TOKEN)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_TOKEN",
     MECH_NONE(0)},
    {"private's fault",
     CKM_EC_KEY_PAIR_GEN,
     {BYTES(CKA_EC_PARAMS, P256)},
     {YES(CKA_ENCRYPT)},
     CKR_ATTRIBUTE_TYPE_INVALID,
     "CKA_ENCRYPT",
     MECH_NONE(0)},
    {"always authenticate",
     CKM_EC_KEY_PAIR_GEN,
     {BYTES(CKA_EC_PARAMS, P256)},
     {YES(CKA_ALWAYS_AUTHENTICATE)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_ALWAYS_AUTHENTICATE",
     MECH_NONE(0)},
    {"no pairs by it",
     CKM_AES_KEY_GEN,
     {BYTES(CKA_EC_PARAMS, P256)},
     {YES(CKA_SIGN)},
     CKR_MECHANISM_INVALID,
     NULL,
     MECH_NONE(0)},
};

static void check_pair(const struct pair_row *row)
{
    CK_MECHANISM mechanism = {row->mechanism, NULL, 0};
    CK_MECHANISM sign = row->sign;
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    CK_BYTE message[] = "to be signed";
    CK_BYTE signature[512];
    CK_ULONG len = sizeof(signature);
    struct tmpl halves[2] = {{.count = 0}, {.count = 0}};
    CK_RV rv = CKR_OK;

    tmpl_add(&halves[0], row->public_half, EXTRA);
    tmpl_add(&halves[1], row->private_half, EXTRA);
    rv = kms_make_pair(&fake.session, &mechanism, halves[0].attrs, halves[0].count, halves[1].attrs,
                       halves[1].count, &handles[0], &handles[1]);
    if (!UNIT_CHECK(row->name, rv == row->rv)) {
        fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
    }
    UNIT_CHECK(row->name, row->names == NULL || fake_p11_log_says(row->names));
    UNIT_CHECK(row->name, fake_objects() == (row->rv == CKR_OK ? 2 : 0));
    if (rv != CKR_OK) {
        return;
    }
    UNIT_CHECK(row->name, shot(KMS_OPK_SIGN, &sign, fake_object(handles[1]), message,
                               sizeof(message), signature, &len) == CKR_OK);
    UNIT_CHECK(row->name, check_signature(&sign, fake_object(handles[0]), message, sizeof(message),
                                          signature, len) == CKR_OK);
    UNIT_CHECK(row->name, object_bool(handles[1], CKA_SENSITIVE, true));
    UNIT_CHECK(row->name, object_bool(handles[1], CKA_ALWAYS_SENSITIVE, true));
    UNIT_CHECK(row->name, object_bool(handles[0], CKA_LOCAL, true));
    UNIT_CHECK(row->name, object_bool(handles[0], CKA_PRIVATE, false));
    UNIT_CHECK(row->name, object_len(handles[0], CKA_SENSITIVE) == 0xdead);
    UNIT_CHECK(row->name, object_len(handles[0], CKA_PRIVATE_EXPONENT) == 0xdead);
    UNIT_CHECK(row->name, object_len(handles[0], CKA_VALUE) == 0xdead);
}

static void test_pairs(void)
{
    for (size_t i = 0; i < UNIT_COUNT(pair_rows); i++) {
        fake_begin();
        check_pair(&pair_rows[i]);
        fake_end();
    }
}

/* ---- copies and the end --------------------------------------------------------------------- */

static const struct copy_row {
    const char *name;
    struct tmpl_row source[EXTRA]; /* of an AES key */
    struct tmpl_row change[EXTRA];
    CK_RV rv;
    const char *names;
} copy_rows[] = {
    {"as it is", {YES(CKA_EXTRACTABLE)}, {TEXT(CKA_LABEL, "copy")}, CKR_OK, NULL},
    {"kept closer",
     {YES(CKA_EXTRACTABLE)},
     {YES(CKA_SENSITIVE), NO(CKA_EXTRACTABLE)},
     CKR_OK,
     NULL},
    {"let out",
     {NO(CKA_EXTRACTABLE)},
     {YES(CKA_EXTRACTABLE)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_EXTRACTABLE"},
    {"shown", {YES(CKA_SENSITIVE)}, {NO(CKA_SENSITIVE)}, CKR_ATTRIBUTE_READ_ONLY, "CKA_SENSITIVE"},
    {"the same said again", {NO(CKA_EXTRACTABLE)}, {NO(CKA_EXTRACTABLE)}, CKR_OK, NULL},
    {"another value",
     {YES(CKA_EXTRACTABLE)},
     {BYTES(CKA_VALUE, K32 "0")},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_VALUE"},
    {"another class",
     {YES(CKA_EXTRACTABLE)},
     {NUM(CKA_CLASS, CKO_DATA)},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_CLASS"},
    {"less private",
     {YES(CKA_PRIVATE)},
     {NO(CKA_PRIVATE)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_PRIVATE"},
    {"not copied",
     {NO(CKA_COPYABLE)},
     {TEXT(CKA_LABEL, "copy")},
     CKR_ACTION_PROHIBITED,
     "CKA_COPYABLE"},
    {"to the token",
     {YES(CKA_EXTRACTABLE)},
     {YES(CKA_TOKEN)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_TOKEN"},
};

static void test_copies(void)
{
    for (size_t i = 0; i < UNIT_COUNT(copy_rows); i++) {
        const struct copy_row *row = &copy_rows[i];
        CK_OBJECT_HANDLE source = CK_INVALID_HANDLE;
        CK_OBJECT_HANDLE copy = CK_INVALID_HANDLE;
        struct tmpl t = {.count = 0};
        struct tmpl change = {.count = 0};
        CK_RV rv = CKR_OK;

        fake_begin();
        tmpl_add(&t, bases[AES], 4);
        tmpl_add(&t, row->source, EXTRA);
        tmpl_add(&change, row->change, EXTRA);
        UNIT_CHECK(row->name, kms_make_object(&fake.session, t.attrs, t.count, &source) == CKR_OK);
        rv = kms_copy_object(&fake.session, fake_object(source), change.attrs, change.count, &copy);
        if (!UNIT_CHECK(row->name, rv == row->rv)) {
            fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
        }
        UNIT_CHECK(row->name, row->names == NULL || fake_p11_log_says(row->names));
        if (rv == CKR_OK) {
            UNIT_CHECK(row->name, object_len(copy, CKA_VALUE) == 32);
            UNIT_CHECK(row->name, fake_object(copy)->soft == fake_object(source)->soft);
        }
        fake_end();
    }
}

static void test_destruction(void)
{
    struct rule_row plain = {.base = AES};
    struct rule_row kept = {.base = AES, .extra = {NO(CKA_DESTROYABLE)}};
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;

    fake_begin();
    CU_ASSERT_EQUAL(make(&plain, &handle), CKR_OK);
    fake.session.rw = false; /* a session object goes all the same */
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake_object(handle)), CKR_OK);
    CU_ASSERT_EQUAL(fake_objects(), 0);
    CU_ASSERT_EQUAL(make(&kept, &handle), CKR_OK);
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake_object(handle)), CKR_ACTION_PROHIBITED);
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake.key[FAKE_EC]), CKR_SESSION_READ_ONLY);
    fake.session.rw = true;
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake.public_key[FAKE_EC]),
                    CKR_ACTION_PROHIBITED);
    CU_ASSERT_EQUAL(fake.destroys, 0);
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake.key[FAKE_EC]), CKR_OK);
    CU_ASSERT_EQUAL(fake.destroys, 1);
    fake.fail = KMS_E_UNAVAILABLE;
    CU_ASSERT_EQUAL(kms_destroy_object(&fake.session, fake.key[FAKE_AES]), CKR_DEVICE_ERROR);
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"what templates may and must say", test_rules},
        {"what objects have", test_defaults},
        {"logins and sessions", test_login},
        {"pairs", test_pairs},
        {"copies", test_copies},
        {"destruction", test_destruction},
    };

    return unit_main("test_make", tests, UNIT_COUNT(tests));
}
