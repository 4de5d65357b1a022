/* SPDX-License-Identifier: Apache-2.0 */
/* Keys wrapped, unwrapped and derived. */
#include <string.h>

#include "tests/unit/op_mechs.h"
#include "tests/unit/tmpl.h"

#define EXTRA 8
#define P256  "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"

enum kek { KEK_HERE, KEK_TOKEN, KEK_RSA, KEKS };
enum key { KEY_AES, KEY_GENERIC, KEY_EC, KEY_RSA, KEY_ED, KEYS };

static CK_MECHANISM ec_gen = MECH_NONE(CKM_EC_KEY_PAIR_GEN);
static CK_MECHANISM ed_gen = MECH_NONE(CKM_EC_EDWARDS_KEY_PAIR_GEN);
static CK_MECHANISM rsa_gen = MECH_NONE(CKM_RSA_PKCS_KEY_PAIR_GEN);

static struct kms_object *make_private(CK_MECHANISM *mechanism, struct tmpl_row size,
                                       struct tmpl_row guard, CK_OBJECT_HANDLE *ret_public)
{
    struct tmpl halves[2] = {{.count = 0}, {.count = 0}};
    struct tmpl_row derive = YES(CKA_DERIVE);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;

    tmpl_add(&halves[0], &size, 1);
    tmpl_add(&halves[1], &guard, 1);
    tmpl_add(&halves[1], &derive, 1);
    (void)kms_make_pair(&fake.session, mechanism, halves[0].attrs, halves[0].count, halves[1].attrs,
                        halves[1].count, ret_public, &handle);
    return fake_object(handle);
}

static struct kms_object *make_key(enum key which, CK_OBJECT_HANDLE *ret_public)
{
    static const struct tmpl_row out = YES(CKA_EXTRACTABLE);
    static const struct tmpl_row p256 = BYTES(CKA_EC_PARAMS, P256);
    static const struct tmpl_row ed = BYTES(CKA_EC_PARAMS, "\x06\x03\x2b\x65\x70");
    static const struct tmpl_row bits = NUM(CKA_MODULUS_BITS, 2048);

    switch (which) {
    case KEY_AES:
        return session_secret(CKK_AES, 32);
    case KEY_GENERIC:
        return session_secret(CKK_GENERIC_SECRET, 21);
    case KEY_EC:
        return make_private(&ec_gen, p256, out, ret_public);
    case KEY_ED:
        return make_private(&ed_gen, ed, out, ret_public);
    case KEY_RSA:
    default:
        return make_private(&rsa_gen, bits, out, ret_public);
    }
}

static const struct tmpl_row unwrap_rows[KEYS][3] = {
    [KEY_AES] = {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES)},
    [KEY_GENERIC] = {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET)},
    [KEY_EC] = {NUM(CKA_CLASS, CKO_PRIVATE_KEY), NUM(CKA_KEY_TYPE, CKK_EC)},
    [KEY_RSA] = {NUM(CKA_CLASS, CKO_PRIVATE_KEY), NUM(CKA_KEY_TYPE, CKK_RSA)},
    [KEY_ED] = {NUM(CKA_CLASS, CKO_PRIVATE_KEY), NUM(CKA_KEY_TYPE, CKK_EC_EDWARDS)},
};

static struct kms_object *kek_of(enum kek which, bool opens)
{
    switch (which) {
    case KEK_HERE:
        return session_secret(CKK_AES, 32);
    case KEK_TOKEN:
        return fake.key[FAKE_AES];
    case KEK_RSA:
    default:
        return opens ? fake.key[FAKE_RSA] : fake.public_key[FAKE_RSA];
    }
}

/* ---- there and back ------------------------------------------------------------------------- */

#define ALL     0x1fu
#define SECRETS 0x03u
#define EIGHTS  (1u << KEY_AES | 1u << KEY_ED) /* of 32 and 48 bytes */

static CK_BYTE usual_iv[8] = {0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6};

static const struct mech_row {
    const char *name;
    CK_MECHANISM mechanism;
    enum kek kek;
    unsigned keys; /* that it wraps, by bit */
    CK_RV rv;      /* of the others */
    bool known;    /* how long it comes out */
} mech_rows[] = {
    {"key wrap here", MECH_NONE(CKM_AES_KEY_WRAP), KEK_HERE, EIGHTS, CKR_KEY_SIZE_RANGE, true},
    {"key wrap", MECH_NONE(CKM_AES_KEY_WRAP), KEK_TOKEN, EIGHTS, CKR_KEY_SIZE_RANGE, true},
    {"key wrap, usual IV", MECH(CKM_AES_KEY_WRAP, usual_iv), KEK_TOKEN, EIGHTS, CKR_KEY_SIZE_RANGE,
     true},
    {"pad here", MECH_NONE(CKM_AES_KEY_WRAP_PAD), KEK_HERE, ALL, CKR_OK, true},
    {"pad", MECH_NONE(CKM_AES_KEY_WRAP_PAD), KEK_TOKEN, ALL, CKR_OK, true},
    {"kwp here", MECH_NONE(CKM_AES_KEY_WRAP_KWP), KEK_HERE, ALL, CKR_OK, true},
    {"kwp", MECH_NONE(CKM_AES_KEY_WRAP_KWP), KEK_TOKEN, ALL, CKR_OK, true},
    {"cbc-pad here", MECH(CKM_AES_CBC_PAD, mech_iv), KEK_HERE, ALL, CKR_OK, true},
    {"cbc-pad", MECH(CKM_AES_CBC_PAD, mech_iv), KEK_TOKEN, ALL, CKR_OK, true},
    {"gcm here", MECH(CKM_AES_GCM, mech_gcm), KEK_HERE, ALL, CKR_OK, true},
    {"gcm", MECH(CKM_AES_GCM, mech_gcm), KEK_TOKEN, ALL, CKR_OK, true},
    {"oaep", MECH(CKM_RSA_PKCS_OAEP, mech_oaep), KEK_RSA, SECRETS, CKR_KEY_NOT_WRAPPABLE, true},
    {"pkcs1", MECH_NONE(CKM_RSA_PKCS), KEK_RSA, SECRETS, CKR_KEY_NOT_WRAPPABLE, true},
    {"sealed", MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), KEK_TOKEN, ALL, CKR_OK, false},
};

static bool is_same(struct kms_object *a, struct kms_object *b)
{
    static const CK_ATTRIBUTE_TYPE types[] = {CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_MODULUS,
                                              CKA_EC_PARAMS};
    bool any = false;

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_span x = KMS_SPAN_NONE;
        struct kms_span y = KMS_SPAN_NONE;

        if (kms_attrs_get(a->attrs, types[i], &x)) {
            any = true;
            if (!kms_attrs_get(b->attrs, types[i], &y) || !kms_span_equal(x, y)) {
                return false;
            }
        }
    }
    return any;
}

static void check_unwrap(const char *name, const struct mech_row *row, enum key which,
                         struct kms_object *key, CK_BYTE *wrapped, CK_ULONG len)
{
    static const struct tmpl_row sensitive = YES(CKA_SENSITIVE);
    CK_MECHANISM mechanism = row->mechanism;
    struct tmpl t = {.count = 0};
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    tmpl_add(&t, unwrap_rows[which], 3);
    tmpl_add(&t, &sensitive, 1);
    fake.requests = 0;
    rv = kms_unwrap_key(&fake.session, &mechanism, kek_of(row->kek, true), wrapped, len, t.attrs,
                        t.count, &handle);
    if (!UNIT_CHECK(name, rv == CKR_OK)) {
        fprintf(stderr, "%s: 0x%lx\n", name, rv);
        return;
    }
    UNIT_CHECK(name, fake.requests == (row->kek == KEK_HERE ? 0 : 1));
    UNIT_CHECK(name, is_same(key, fake_object(handle)));
    UNIT_CHECK(name, object_bool(handle, CKA_LOCAL, false));
    UNIT_CHECK(name, object_bool(handle, CKA_EXTRACTABLE, true));
    UNIT_CHECK(name, object_bool(handle, CKA_ALWAYS_SENSITIVE, false));
    UNIT_CHECK(name, object_bool(handle, CKA_NEVER_EXTRACTABLE, false));

    /* altered: RSA PKCS#1 aside, what is unwrapped is what was wrapped, or nothing */
    wrapped[len - 1] ^= 1;
    handle = CK_INVALID_HANDLE;
    rv = kms_unwrap_key(&fake.session, &mechanism, kek_of(row->kek, true), wrapped, len, t.attrs,
                        t.count, &handle);
    UNIT_CHECK(name, rv == CKR_WRAPPED_KEY_INVALID || rv == CKR_WRAPPED_KEY_LEN_RANGE ||
                         mechanism.mechanism == CKM_RSA_PKCS ||
                         mechanism.mechanism == CKM_AES_CBC_PAD);
}

static void check_wrap(const struct mech_row *row, enum key which)
{
    static const char *const names[KEYS] = {"aes", "generic", "ec", "rsa", "ed"};
    CK_MECHANISM mechanism = row->mechanism;
    CK_OBJECT_HANDLE half = CK_INVALID_HANDLE;
    struct kms_object *key = make_key(which, &half);
    struct kms_object *kek = kek_of(row->kek, false);
    bool may = (row->keys & (1u << which)) != 0;
    CK_BYTE out[4096];
    CK_ULONG room = 0;
    CK_ULONG len = 0;
    char name[64];

    (void)snprintf(name, sizeof(name), "%s, %s", row->name, names[which]);
    fake.requests = 0;
    if (!may) {
        len = sizeof(out);
        UNIT_CHECK(name, kms_wrap_key(&fake.session, &mechanism, kek, key, out, &len) == row->rv);
        UNIT_CHECK(name, fake.requests == 0);
        return;
    }
    UNIT_CHECK(name, kms_wrap_key(&fake.session, &mechanism, kek, key, NULL, &room) == CKR_OK);
    len = room - 1;
    UNIT_CHECK(name, kms_wrap_key(&fake.session, &mechanism, kek, key, out, &len) ==
                         CKR_BUFFER_TOO_SMALL);
    UNIT_CHECK(name, len == room && fake.requests == 0);
    UNIT_CHECK(name, kms_wrap_key(&fake.session, &mechanism, kek, key, out, &len) == CKR_OK);
    UNIT_CHECK(name, (row->known ? len == room : len <= room));
    UNIT_CHECK(name, fake.requests == (row->kek == KEK_TOKEN ? 1 : 0));
    check_unwrap(name, row, which, key, out, len);
}

static void test_there_and_back(void)
{
    for (size_t i = 0; i < UNIT_COUNT(mech_rows); i++) {
        for (unsigned key = 0; key < KEYS; key++) {
            if (key == KEY_RSA && mech_rows[i].keys == EIGHTS) {
                continue; /* its DER has as many bytes as it happens to have */
            }
            fake_begin();
            check_wrap(&mech_rows[i], (enum key)key);
            fake_end();
        }
    }
}

/* CBC without padding fills up, and cuts again where the template says how long. */
static void test_cbc(void)
{
    CK_MECHANISM cbc = MECH(CKM_AES_CBC, mech_iv);
    static const struct tmpl_row long_as = NUM(CKA_VALUE_LEN, 21);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct tmpl t = {.count = 0};
    CK_BYTE out[64];
    CK_ULONG len = sizeof(out);

    fake_begin();
    for (unsigned kek = 0; kek < 2; kek++) {
        struct kms_object *key = session_secret(CKK_GENERIC_SECRET, 21);

        len = sizeof(out);
        CU_ASSERT_EQUAL(
            kms_wrap_key(&fake.session, &cbc, kek_of((enum kek)kek, false), key, out, &len),
            CKR_OK);
        CU_ASSERT_EQUAL(len, 32);
        t.count = 0;
        tmpl_add(&t, unwrap_rows[KEY_GENERIC], 3);
        tmpl_add(&t, &long_as, 1);
        CU_ASSERT_EQUAL(kms_unwrap_key(&fake.session, &cbc, kek_of((enum kek)kek, true), out, len,
                                       t.attrs, t.count, &handle),
                        CKR_OK);
        CU_ASSERT(is_same(key, fake_object(handle)));
    }
    fake_end();
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void test_refused(void)
{
    CK_MECHANISM pad = MECH_NONE(CKM_AES_KEY_WRAP_PAD);
    CK_MECHANISM cbc = MECH(CKM_AES_CBC, mech_iv);
    CK_MECHANISM hmac = MECH_NONE(CKM_SHA256_HMAC);
    CK_OBJECT_HANDLE half = CK_INVALID_HANDLE;
    struct kms_object *key = NULL;
    struct kms_object *kek = NULL;
    CK_BYTE out[4096];
    CK_ULONG len = sizeof(out);

    fake_begin();
    key = session_secret(CKK_AES, 32);
    kek = fake.key[FAKE_AES];
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, fake.key[FAKE_AES], out, &len),
                    CKR_KEY_UNEXTRACTABLE);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, fake.key[FAKE_EC], out, &len),
                    CKR_KEY_UNEXTRACTABLE);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, fake.public_key[FAKE_EC], out, &len),
                    CKR_KEY_NOT_WRAPPABLE);
    (void)kms_attrs_set_bool(key->attrs, CKA_WRAP_WITH_TRUSTED, true);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, key, out, &len), CKR_KEY_NOT_WRAPPABLE);
    (void)kms_attrs_set_bool(kek->attrs, CKA_TRUSTED, true);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, key, out, &len), CKR_OK);
    CU_ASSERT_EQUAL(fake.requests, 1);
    (void)kms_attrs_set_bool(key->attrs, CKA_EXTRACTABLE, false);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, key, out, &len), CKR_KEY_UNEXTRACTABLE);
    (void)kms_attrs_set_bool(key->attrs, CKA_EXTRACTABLE, true);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, fake.public_key[FAKE_RSA], key, out, &len),
                    CKR_WRAPPING_KEY_TYPE_INCONSISTENT);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &hmac, kek, key, out, &len), CKR_MECHANISM_INVALID);
    (void)kms_attrs_set_bool(kek->attrs, CKA_WRAP, false);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, key, out, &len),
                    CKR_KEY_FUNCTION_NOT_PERMITTED);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &cbc, session_secret(CKK_AES, 32),
                                 make_key(KEY_EC, &half), out, &len),
                    CKR_KEY_NOT_WRAPPABLE);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, NULL, kek, key, out, &len), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(kms_wrap_key(&fake.session, &pad, kek, key, out, NULL), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(fake.requests, 1);
    fake_end();
}

static const struct unwrap_row {
    const char *name;
    struct tmpl_row tmpl[EXTRA];
    CK_RV rv;
    const char *names;
    unsigned requests;
} bad_templates[] = {
    {"no class", {NUM(CKA_KEY_TYPE, CKK_AES)}, CKR_TEMPLATE_INCOMPLETE, "CKA_CLASS", 0},
    {"no type", {NUM(CKA_CLASS, CKO_SECRET_KEY)}, CKR_TEMPLATE_INCOMPLETE, "CKA_KEY_TYPE", 0},
    {"a public key", {NUM(CKA_CLASS, CKO_PUBLIC_KEY)}, CKR_TEMPLATE_INCONSISTENT, "CKA_CLASS", 0},
    {"a value",
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), TEXT(CKA_VALUE, "x")},
     CKR_ATTRIBUTE_READ_ONLY,
     "CKA_VALUE",
     0},
    {"to the token",
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), YES(CKA_TOKEN)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_TOKEN",
     0},
    {"another length",
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_AES), NUM(CKA_VALUE_LEN, 16)},
     CKR_TEMPLATE_INCONSISTENT,
     "CKA_VALUE_LEN",
     1},
    {"another class",
     {NUM(CKA_CLASS, CKO_PRIVATE_KEY), NUM(CKA_KEY_TYPE, CKK_EC)},
     CKR_WRAPPED_KEY_INVALID,
     NULL,
     1},
};

static void test_bad_templates(void)
{
    CK_MECHANISM pad = MECH_NONE(CKM_AES_KEY_WRAP_PAD);

    for (size_t i = 0; i < UNIT_COUNT(bad_templates); i++) {
        const struct unwrap_row *row = &bad_templates[i];
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        struct tmpl t = {.count = 0};
        CK_BYTE out[64];
        CK_ULONG len = sizeof(out);

        fake_begin();
        tmpl_add(&t, row->tmpl, EXTRA);
        UNIT_CHECK(row->name, kms_wrap_key(&fake.session, &pad, fake.key[FAKE_AES],
                                           session_secret(CKK_AES, 32), out, &len) == CKR_OK);
        fake.requests = 0;
        UNIT_CHECK(row->name, kms_unwrap_key(&fake.session, &pad, fake.key[FAKE_AES], out, len,
                                             t.attrs, t.count, &handle) == row->rv);
        UNIT_CHECK(row->name, fake.requests == row->requests);
        UNIT_CHECK(row->name, row->names == NULL || fake_p11_log_says(row->names));
        UNIT_CHECK(row->name, handle == CK_INVALID_HANDLE && fake_objects() == 1);
        fake_end();
    }
}

/* ---- derivation ----------------------------------------------------------------------------- */

static CK_ECDH1_DERIVE_PARAMS ecdh_with(struct kms_object *peer, CK_EC_KDF_TYPE kdf)
{
    struct kms_span point = KMS_SPAN_NONE;

    (void)kms_attrs_get(peer->attrs, CKA_EC_POINT, &point);
    return (CK_ECDH1_DERIVE_PARAMS){.kdf = kdf,
                                    .pPublicData = (CK_BYTE_PTR)(uintptr_t)point.data,
                                    .ulPublicDataLen = point.len};
}

static const struct ecdh_row {
    const char *name;
    CK_EC_KDF_TYPE kdf;
    struct tmpl_row tmpl[4];
    size_t len;
    CK_RV rv;
} ecdh_rows[] = {
    {"generic",
     CKD_NULL,
     {NUM(CKA_CLASS, CKO_SECRET_KEY), NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET)},
     32,
     CKR_OK},
    {"nothing said", CKD_NULL, {{TMPL_END, 0, 0, NULL}}, 32, CKR_OK},
    {"20 bytes", CKD_NULL, {NUM(CKA_VALUE_LEN, 20)}, 20, CKR_OK},
    {"aes", CKD_NULL, {NUM(CKA_KEY_TYPE, CKK_AES), NUM(CKA_VALUE_LEN, 16)}, 16, CKR_OK},
    {"aes without a length", CKD_NULL, {NUM(CKA_KEY_TYPE, CKK_AES)}, 0, CKR_TEMPLATE_INCOMPLETE},
    {"more than there is", CKD_NULL, {NUM(CKA_VALUE_LEN, 33)}, 0, CKR_KEY_SIZE_RANGE},
    {"by SHA-256", CKD_SHA256_KDF, {NUM(CKA_VALUE_LEN, 48)}, 48, CKR_OK},
    {"by SHA-1, nothing said", CKD_SHA1_KDF, {{TMPL_END, 0, 0, NULL}}, 20, CKR_OK},
    {"no KDF", 99, {{TMPL_END, 0, 0, NULL}}, 0, CKR_MECHANISM_PARAM_INVALID},
    {"a private key", CKD_NULL, {NUM(CKA_CLASS, CKO_PRIVATE_KEY)}, 0, CKR_TEMPLATE_INCONSISTENT},
    {"on the token", CKD_NULL, {YES(CKA_TOKEN)}, 0, CKR_TEMPLATE_INCONSISTENT},
};

static void test_ecdh(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(ecdh_rows); i++) {
        const struct ecdh_row *row = &ecdh_rows[i];
        CK_OBJECT_HANDLE halves[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
        CK_OBJECT_HANDLE made[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
        struct kms_object *keys[2] = {make_key(KEY_EC, &halves[0]), make_key(KEY_EC, &halves[1])};
        struct tmpl t = {.count = 0};

        tmpl_add(&t, row->tmpl, 4);
        for (unsigned side = 0; side < 2; side++) {
            CK_ECDH1_DERIVE_PARAMS params = ecdh_with(fake_object(halves[1 - side]), row->kdf);
            CK_MECHANISM mechanism = MECH(CKM_ECDH1_DERIVE, params);
            CK_RV rv = kms_derive_key(&fake.session, &mechanism, keys[side], t.attrs, t.count,
                                      &made[side]);

            if (!UNIT_CHECK(row->name, rv == row->rv)) {
                fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
            }
        }
        if (row->rv == CKR_OK) {
            UNIT_CHECK(row->name, object_len(made[0], CKA_VALUE) == row->len);
            UNIT_CHECK(row->name, is_same(fake_object(made[0]), fake_object(made[1])));
            UNIT_CHECK(row->name, object_bool(made[0], CKA_LOCAL, false));
            UNIT_CHECK(row->name, object_bool(made[0], CKA_ALWAYS_SENSITIVE, false));
        }
    }
    fake_end();
}

static void test_hkdf(void)
{
    static CK_BYTE salt[] = "0123456789abcdef0123456789abcde";
    CK_HKDF_PARAMS params = {.bExtract = CK_TRUE,
                             .bExpand = CK_TRUE,
                             .prfHashMechanism = CKM_SHA256,
                             .ulSaltType = CKF_HKDF_SALT_DATA,
                             .pSalt = salt,
                             .ulSaltLen = 32,
                             .pInfo = mech_aad,
                             .ulInfoLen = sizeof(mech_aad)};
    CK_MECHANISM mechanism = MECH(CKM_HKDF_DERIVE, params);
    CK_MECHANISM data = MECH(CKM_HKDF_DATA, params);
    static const struct tmpl_row len_row = NUM(CKA_VALUE_LEN, 40);
    CK_OBJECT_HANDLE by_data = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE by_key = CK_INVALID_HANDLE;
    struct tmpl t = {.count = 0};

    fake_begin();
    tmpl_add(&t, &len_row, 1);
    CU_ASSERT_EQUAL(kms_derive_key(&fake.session, &mechanism, session_secret(CKK_AES, 32), t.attrs,
                                   t.count, &by_data),
                    CKR_OK);
    CU_ASSERT_EQUAL(object_len(by_data, CKA_VALUE), 40);
    params.ulSaltType = CKF_HKDF_SALT_KEY; /* the salt is a key with the same bytes */
    params.pSalt = NULL;
    params.ulSaltLen = 0;
    params.hSaltKey = session_secret(CKK_GENERIC_SECRET, 32)->handle;
    CU_ASSERT_EQUAL(kms_derive_key(&fake.session, &mechanism, session_secret(CKK_AES, 32), t.attrs,
                                   t.count, &by_key),
                    CKR_OK);
    CU_ASSERT(is_same(fake_object(by_data), fake_object(by_key)));
    CU_ASSERT_EQUAL(kms_derive_key(&fake.session, &data, session_secret(CKK_AES, 32), t.attrs,
                                   t.count, &by_key),
                    CKR_OK);
    CU_ASSERT_EQUAL(fake_object(by_key)->class, CKO_DATA);
    CU_ASSERT(is_same(fake_object(by_data), fake_object(by_key)));
    params.hSaltKey = 1;
    CU_ASSERT_EQUAL(kms_derive_key(&fake.session, &mechanism, session_secret(CKK_AES, 32), t.attrs,
                                   t.count, &by_key),
                    CKR_KEY_HANDLE_INVALID);
    CU_ASSERT_EQUAL(
        kms_derive_key(&fake.session, &mechanism, fake.key[FAKE_MAC], t.attrs, t.count, &by_key),
        CKR_KEY_FUNCTION_NOT_PERMITTED);
    CU_ASSERT_EQUAL(fake.requests, 0);
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"wrapped and unwrapped", test_there_and_back},
        {"CBC without padding", test_cbc},
        {"what is not wrapped", test_refused},
        {"templates of unwrapping", test_bad_templates},
        {"ECDH", test_ecdh},
        {"HKDF", test_hkdf},
    };

    return unit_main("test_wrap", tests, UNIT_COUNT(tests));
}
