/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of a token's keys in the waist's words. */
#include <string.h>

#include "tests/unit/tmpl.h"

#define EXTRA 12

#define P256 "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define P384 "\x06\x05\x2b\x81\x04\x00\x22"
#define K1   "\x06\x05\x2b\x81\x04\x00\x0a"
#define ED   "\x06\x03\x2b\x65\x70"
#define ED_NAME                                                                                    \
    "\x13\x0c"                                                                                     \
    "edwards25519"
#define P_NAME                                                                                     \
    "\x13\x05"                                                                                     \
    "P-521"
#define E65537 "\x01\x00\x01"
#define E3     "\x03"

#define CRYPTS (KMS_USE_ENCRYPT | KMS_USE_DECRYPT)
#define SIGNS  (KMS_USE_SIGN | KMS_USE_VERIFY)

static const struct row {
    const char *name;
    CK_MECHANISM_TYPE mechanism;
    struct tmpl_row one[EXTRA];   /* the key, or the private half */
    struct tmpl_row other[EXTRA]; /* the public half */
    CK_RV rv;
    const char *names; /* the attribute, in the log */
    struct kms_key_template wanted;
} rows[] = {
    /* as pkcs11-tool 0.23 asks */
    {"pkcs11-tool, AES",
     CKM_AES_KEY_GEN,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), NO(CKA_SENSITIVE),
      NO(CKA_EXTRACTABLE), NO(CKA_PRIVATE), YES(CKA_ENCRYPT), YES(CKA_DECRYPT),
      NUM(CKA_VALUE_LEN, 32), TEXT(CKA_LABEL, "a"), BYTES(CKA_ID, "\x01")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_AES, .bits = 256, .label = "a", .tag = {NULL, 1}, .uses = CRYPTS}},
    {"pkcs11-tool, generic",
     CKM_GENERIC_SECRET_KEY_GEN,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET), NO(CKA_SENSITIVE),
      NO(CKA_EXTRACTABLE), NO(CKA_PRIVATE), YES(CKA_ENCRYPT), YES(CKA_DECRYPT),
      NUM(CKA_VALUE_LEN, 32), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     "CKA_DECRYPT",
     {.type = KMS_KEY_GENERIC, .bits = 256, .label = "a", .uses = 0}},
    {"pkcs11-tool, EC",
     CKM_EC_KEY_PAIR_GEN,
     {NUM(CKA_CLASS, CKO_PRIVATE_KEY), YES(CKA_PRIVATE), YES(CKA_SENSITIVE), YES(CKA_SIGN),
      YES(CKA_DERIVE), NUM(CKA_KEY_TYPE, CKK_EC), TEXT(CKA_LABEL, "a"), BYTES(CKA_ID, "\x01")},
     {NUM(CKA_CLASS, CKO_PUBLIC_KEY), YES(CKA_VERIFY), YES(CKA_DERIVE), BYTES(CKA_EC_PARAMS, P256),
      NUM(CKA_KEY_TYPE, CKK_EC), TEXT(CKA_LABEL, "a"), BYTES(CKA_ID, "\x01"), NO(CKA_PRIVATE)},
     CKR_OK,
     "CKA_DERIVE",
     {.type = KMS_KEY_EC, .bits = 256, .label = "a", .tag = {NULL, 1}, .uses = SIGNS}},
    {"pkcs11-tool, RSA",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {NUM(CKA_CLASS, CKO_PRIVATE_KEY), YES(CKA_PRIVATE), YES(CKA_SENSITIVE), YES(CKA_SIGN),
      YES(CKA_DECRYPT), NUM(CKA_KEY_TYPE, CKK_RSA), TEXT(CKA_LABEL, "a")},
     {NUM(CKA_CLASS, CKO_PUBLIC_KEY), NUM(CKA_MODULUS_BITS, 2048),
      BYTES(CKA_PUBLIC_EXPONENT, E65537), YES(CKA_VERIFY), YES(CKA_ENCRYPT),
      NUM(CKA_KEY_TYPE, CKK_RSA), NO(CKA_PRIVATE)},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_RSA, .bits = 2048, .label = "a", .uses = SIGNS | CRYPTS}},
    {"pkcs11-tool, Ed25519",
     CKM_EC_EDWARDS_KEY_PAIR_GEN,
     {YES(CKA_SIGN), YES(CKA_DERIVE), TEXT(CKA_LABEL, "a")},
     {YES(CKA_VERIFY), BYTES(CKA_EC_PARAMS, ED_NAME)},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_EDDSA, .bits = 255, .label = "a", .uses = SIGNS}},

    {"Ed25519 by OID",
     CKM_EC_EDWARDS_KEY_PAIR_GEN,
     {YES(CKA_SIGN), TEXT(CKA_LABEL, "a")},
     {BYTES(CKA_EC_PARAMS, ED)},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_EDDSA, .bits = 255, .label = "a", .uses = KMS_USE_SIGN}},
    {"P-384",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_SIGN), TEXT(CKA_LABEL, "a")},
     {BYTES(CKA_EC_PARAMS, P384)},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_EC, .bits = 384, .label = "a", .uses = KMS_USE_SIGN}},
    {"P-521 by name",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_SIGN), TEXT(CKA_LABEL, "a")},
     {BYTES(CKA_EC_PARAMS, P_NAME)},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_EC, .bits = 521, .label = "a", .uses = KMS_USE_SIGN}},
    {"no use said",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 16), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_AES, .bits = 128, .label = "a", .uses = 0}},

    {"SM4, whose length need not be said",
     CKM_KMSBRIDGE_SM4_KEY_GEN,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_VENDOR_DEFINED), YES(CKA_ENCRYPT),
      YES(CKA_WRAP), YES(CKA_SIGN), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     "CKA_SIGN",
     {.type = KMS_KEY_SM4, .bits = 0, .label = "a", .uses = KMS_USE_ENCRYPT | KMS_USE_WRAP}},
    {"SM4, with its length",
     CKM_KMSBRIDGE_SM4_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 16), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_SM4, .bits = 128, .label = "a", .uses = 0}},
    {"ChaCha20, which has no length to say",
     CKM_CHACHA20_KEY_GEN,
     {NUM(CKA_KEY_TYPE, CKK_CHACHA20), YES(CKA_DECRYPT), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_OK,
     NULL,
     {.type = KMS_KEY_CHACHA20, .bits = 0, .label = "a", .uses = KMS_USE_DECRYPT}},
    {"SM4 of another type",
     CKM_KMSBRIDGE_SM4_KEY_GEN,
     {NUM(CKA_KEY_TYPE, CKK_AES), TEXT(CKA_LABEL, "a")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_KEY_TYPE",
     {.type = KMS_KEY_SM4}},

    {"extractable",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), YES(CKA_EXTRACTABLE)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_EXTRACTABLE",
     {.type = KMS_KEY_AES}},
    {"trusted",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), YES(CKA_TRUSTED)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_TRUSTED",
     {.type = KMS_KEY_AES}},
    {"with an end",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), BYTES(CKA_END_DATE, "20301231")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_END_DATE",
     {.type = KMS_KEY_AES}},
    {"mechanisms",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), NUM(CKA_ALLOWED_MECHANISMS, CKM_AES_GCM)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_ALLOWED_MECHANISMS",
     {.type = KMS_KEY_AES}},
    {"a value",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), TEXT(CKA_VALUE, "x")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_VALUE",
     {.type = KMS_KEY_AES}},
    {"local",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), YES(CKA_LOCAL)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_LOCAL",
     {.type = KMS_KEY_AES}},
    {"another class",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), NUM(CKA_CLASS, CKO_PRIVATE_KEY)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_CLASS",
     {.type = KMS_KEY_AES}},
    {"another type",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), NUM(CKA_KEY_TYPE, CKK_DES3)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_KEY_TYPE",
     {.type = KMS_KEY_AES}},
    {"no length",
     CKM_AES_KEY_GEN,
     {YES(CKA_ENCRYPT)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_VALUE_LEN",
     {.type = KMS_KEY_AES}},
    {"no label, as NSS asks",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {YES(CKA_SIGN), YES(CKA_PRIVATE), YES(CKA_SENSITIVE)},
     {NUM(CKA_MODULUS_BITS, 2048), YES(CKA_VERIFY)},
     CKR_TEMPLATE_INCOMPLETE,
     "CKA_LABEL",
     {.type = KMS_KEY_RSA}},
    {"a length of all bits",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, ~0UL)},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_VALUE_LEN",
     {.type = KMS_KEY_AES}},
    {"another curve",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_SIGN)},
     {BYTES(CKA_EC_PARAMS, K1)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_EC_PARAMS",
     {.type = KMS_KEY_EC}},
    {"Edwards for Weierstrass",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_SIGN)},
     {BYTES(CKA_EC_PARAMS, ED)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_EC_PARAMS",
     {.type = KMS_KEY_EC}},
    {"exponent 3",
     CKM_RSA_PKCS_KEY_PAIR_GEN,
     {YES(CKA_SIGN)},
     {NUM(CKA_MODULUS_BITS, 2048), BYTES(CKA_PUBLIC_EXPONENT, E3)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_PUBLIC_EXPONENT",
     {.type = KMS_KEY_RSA}},
    {"two labels",
     CKM_EC_KEY_PAIR_GEN,
     {TEXT(CKA_LABEL, "one")},
     {BYTES(CKA_EC_PARAMS, P256), TEXT(CKA_LABEL, "two")},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_LABEL",
     {.type = KMS_KEY_EC}},
    {"two ids",
     CKM_EC_KEY_PAIR_GEN,
     {TEXT(CKA_ID, "one")},
     {BYTES(CKA_EC_PARAMS, P256), TEXT(CKA_ID, "two")},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_ID",
     {.type = KMS_KEY_EC}},
    {"a label with a NUL",
     CKM_AES_KEY_GEN,
     {NUM(CKA_VALUE_LEN, 32), BYTES(CKA_LABEL, "a\0b")},
     {{TMPL_END, 0, 0, NULL}},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_LABEL",
     {.type = KMS_KEY_AES}},
    {"always authenticate",
     CKM_EC_KEY_PAIR_GEN,
     {YES(CKA_ALWAYS_AUTHENTICATE)},
     {BYTES(CKA_EC_PARAMS, P256)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_ALWAYS_AUTHENTICATE",
     {.type = KMS_KEY_EC}},
};

static CK_RV make(const struct row *row, CK_OBJECT_HANDLE ret[2])
{
    static const struct tmpl_row token = YES(CKA_TOKEN);
    CK_MECHANISM mechanism = {row->mechanism, NULL, 0};
    struct tmpl one = {.count = 0};
    struct tmpl other = {.count = 0};

    tmpl_add(&one, &token, 1);
    tmpl_add(&one, row->one, EXTRA);
    tmpl_add(&other, &token, 1);
    tmpl_add(&other, row->other, EXTRA);
    return other.count > 1 ? kms_make_pair(&fake.session, &mechanism, other.attrs, other.count,
                                           one.attrs, one.count, &ret[1], &ret[0])
                           : kms_make_key(&fake.session, &mechanism, one.attrs, one.count, &ret[0]);
}

static void test_templates(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct row *row = &rows[i];
        CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
        CK_RV rv = CKR_OK;

        fake_begin();
        rv = make(row, handles);
        if (!UNIT_CHECK(row->name, rv == row->rv)) {
            fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
        }
        if (!UNIT_CHECK(row->name, row->names == NULL || fake_p11_log_says(row->names))) {
            fprintf(stderr, "%s: the log does not say %s\n", row->name, row->names);
        }
        UNIT_CHECK(row->name, fake.generates == (row->rv == CKR_OK ? 1 : 0));
        UNIT_CHECK(row->name, (handles[0] != CK_INVALID_HANDLE) == (row->rv == CKR_OK));
        if (row->rv == CKR_OK) {
            UNIT_CHECK(row->name, fake.generated.type == row->wanted.type);
            UNIT_CHECK(row->name, fake.generated.bits == row->wanted.bits);
            UNIT_CHECK(row->name, fake.generated.uses == row->wanted.uses);
            UNIT_CHECK(row->name, fake.generated.tag.len == row->wanted.tag.len);
            UNIT_CHECK(row->name, strcmp(fake.generated_label, row->wanted.label) == 0);
        }
        fake_end();
    }
}

static void test_where(void)
{
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};

    fake_begin();
    fake.session.rw = false;
    CU_ASSERT_EQUAL(make(&rows[0], handles), CKR_SESSION_READ_ONLY);
    fake.session.rw = true;
    atomic_store(&fake.slot.open, false);
    CU_ASSERT_EQUAL(make(&rows[0], handles), CKR_USER_NOT_LOGGED_IN);
    atomic_store(&fake.slot.open, true);
    fake.slot.token.info.generates = 1u << KMS_KEY_RSA;
    CU_ASSERT_EQUAL(make(&rows[0], handles), CKR_MECHANISM_INVALID);
    fake.slot.token.info.generates = 1u << KMS_KEY_AES;
    fake.fail = KMS_E_UNAVAILABLE;
    CU_ASSERT_EQUAL(make(&rows[0], handles), CKR_DEVICE_ERROR);
    CU_ASSERT_EQUAL(fake.generates, 1); /* never repeated */
    CU_ASSERT_EQUAL(handles[0], CK_INVALID_HANDLE);
    fake_end();
}

/* No session key is of the service's kinds. */
static void test_session(void)
{
    static const CK_MECHANISM_TYPE makers[] = {CKM_KMSBRIDGE_SM4_KEY_GEN, CKM_CHACHA20_KEY_GEN};
    static const struct tmpl_row session[] = {NO(CKA_TOKEN), TEXT(CKA_LABEL, "a")};

    for (size_t i = 0; i < UNIT_COUNT(makers); i++) {
        CK_MECHANISM mechanism = {makers[i], NULL, 0};
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        struct tmpl one = {.count = 0};

        fake_begin();
        tmpl_add(&one, session, UNIT_COUNT(session));
        CU_ASSERT_EQUAL(kms_make_key(&fake.session, &mechanism, one.attrs, one.count, &handle),
                        CKR_TEMPLATE_INCONSISTENT);
        CU_ASSERT(fake_p11_log_says("CKA_TOKEN") && fake.generates == 0);
        fake_end();
    }
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"templates", test_templates},
        {"where they are made", test_where},
        {"no session keys", test_session},
    };

    return unit_main("test_make_token", tests, UNIT_COUNT(tests));
}
