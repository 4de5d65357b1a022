/* SPDX-License-Identifier: Apache-2.0 */
/* CKM_KMSBRIDGE_DATA_KEY_GEN: made by the service or here, and unwrapped to the same key. */
#include <string.h>

#include "pkcs11/core/store.h"
#include "tests/unit/op_mechs.h"
#include "tests/unit/tmpl.h"

static CK_KMSBRIDGE_DATA_KEY_PARAMS params;
static CK_MECHANISM generate = {CKM_KMSBRIDGE_DATA_KEY_GEN, &params, sizeof(params)};

/* @kek as a token's key that a handle names. */
static void begin(enum fake_key kek, bool service_makes)
{
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;

    fake_begin();
    fake.slot.token.info.data_keys = service_makes;
    CU_ASSERT_EQUAL_FATAL(
        kms_store_add(&fake.slot, &fake.session, kms_object_ref(fake.key[kek]), &handle), CKR_OK);
    params = (CK_KMSBRIDGE_DATA_KEY_PARAMS){
        .hKek = handle, .pAAD = mech_aad, .ulAADLen = sizeof(mech_aad)};
    generate = (CK_MECHANISM){CKM_KMSBRIDGE_DATA_KEY_GEN, &params, sizeof(params)};
}

static CK_RV make(CK_ULONG len, struct tmpl_row extra, CK_OBJECT_HANDLE *ret_key)
{
    const struct tmpl_row size = NUM(CKA_VALUE_LEN, len);
    struct tmpl t = {.count = 0};

    tmpl_add(&t, &size, 1);
    tmpl_add(&t, &extra, 1);
    fake.requests = 0;
    *ret_key = CK_INVALID_HANDLE;
    return kms_make_key(&fake.session, &generate, t.attrs, t.count, ret_key);
}

static CK_RV unwrap(CK_OBJECT_HANDLE key, CK_KMSBRIDGE_SEALED_PARAMS *aad,
                    CK_OBJECT_HANDLE *ret_key)
{
    static const struct tmpl_row rows[] = {NUM(CKA_CLASS, CKO_SECRET_KEY),
                                           NUM(CKA_KEY_TYPE, CKK_AES)};
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SEALED, aad, sizeof(*aad)};
    struct kms_span wrapped = KMS_SPAN_NONE;
    struct tmpl t = {.count = 0};

    tmpl_add(&t, rows, UNIT_COUNT(rows));
    CU_ASSERT_TRUE_FATAL(
        kms_attrs_get(fake_object(key)->attrs, CKA_KMSBRIDGE_WRAPPED_VALUE, &wrapped));
    return kms_unwrap_key(&fake.session, &mechanism, fake.key[FAKE_AES],
                          (CK_BYTE_PTR)(uintptr_t)wrapped.data, wrapped.len, t.attrs, t.count,
                          ret_key);
}

static struct kms_span value_of(CK_OBJECT_HANDLE key)
{
    struct kms_span value = KMS_SPAN_NONE;

    (void)kms_attrs_get(fake_object(key)->attrs, CKA_VALUE, &value);
    return value;
}

static void check_made(const char *name, CK_OBJECT_HANDLE key, CK_ULONG len)
{
    static CK_BYTE other_aad[] = "aae";
    CK_KMSBRIDGE_SEALED_PARAMS other = {0, other_aad, 3};
    CK_OBJECT_HANDLE again = CK_INVALID_HANDLE;

    UNIT_CHECK(name, object_ulong(key, CKA_KEY_TYPE) == CKK_AES);
    UNIT_CHECK(name, object_ulong(key, CKA_VALUE_LEN) == len && value_of(key).len == len);
    UNIT_CHECK(name, object_ulong(key, CKA_KEY_GEN_MECHANISM) == CKM_KMSBRIDGE_DATA_KEY_GEN);
    UNIT_CHECK(name, object_bool(key, CKA_LOCAL, true) && object_bool(key, CKA_TOKEN, false));
    UNIT_CHECK(name, object_bool(key, CKA_EXTRACTABLE, false));
    UNIT_CHECK(name, object_bool(key, CKA_NEVER_EXTRACTABLE, false)); /* wrapped, it has left */
    UNIT_CHECK(name, unwrap(key, &mech_sealed, &again) == CKR_OK);
    UNIT_CHECK(name, kms_span_equal(value_of(key), value_of(again)));
    UNIT_CHECK(name, object_len(again, CKA_KMSBRIDGE_WRAPPED_VALUE) == 0xdead);
    UNIT_CHECK(name, unwrap(key, &other, &again) == CKR_WRAPPED_KEY_INVALID);
}

static void made_by_the_service(void)
{
    static const CK_ULONG lens[] = {16, 24, 32};
    static const struct tmpl_row sensitive = YES(CKA_SENSITIVE);
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    begin(FAKE_AES, true);
    for (size_t i = 0; i < UNIT_COUNT(lens); i++) {
        CU_ASSERT_EQUAL_FATAL(make(lens[i], sensitive, &key), CKR_OK);
        CU_ASSERT(fake.requests == 1 && fake.data_keys == i + 1 && fake.wraps == 0);
        CU_ASSERT_EQUAL(value_of(key).data[0], 0x5d);
        check_made("service", key, lens[i]);
    }
    fake_end();
}

/* Where the token has none, and where it says that it has none like this. */
static void made_here(void)
{
    static const struct tmpl_row none = NO(CKA_SENSITIVE);
    CK_OBJECT_HANDLE keys[2];

    begin(FAKE_AES, false);
    for (unsigned i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL_FATAL(make(32, none, &keys[i]), CKR_OK);
        CU_ASSERT(fake.requests == 1 && fake.data_keys == 0 && fake.wraps == i + 1);
        check_made("here", keys[i], 32);
    }
    CU_ASSERT_FALSE(kms_span_equal(value_of(keys[0]), value_of(keys[1])));
    fake_end();

    begin(FAKE_AES, true);
    fake.no_data_keys = true;
    CU_ASSERT_EQUAL_FATAL(make(24, none, &keys[0]), CKR_OK);
    CU_ASSERT(fake.data_keys == 1 && fake.wraps == 1);
    check_made("none like this", keys[0], 24);
    fake_end();
}

static void refused(void)
{
    static const struct tmpl_row none = NO(CKA_SENSITIVE);
    static const struct tmpl_row on_token = YES(CKA_TOKEN);
    static const struct tmpl_row wrapped = TEXT(CKA_KMSBRIDGE_WRAPPED_VALUE, "x");
    static const struct tmpl_row trusted = YES(CKA_WRAP_WITH_TRUSTED);
    static const struct tmpl_row type = NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET);
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    begin(FAKE_AES, true);
    CU_ASSERT_EQUAL(make(20, none, &key), CKR_ATTRIBUTE_VALUE_INVALID);
    CU_ASSERT_EQUAL(make(32, on_token, &key), CKR_TEMPLATE_INCONSISTENT);
    CU_ASSERT_EQUAL(make(32, wrapped, &key), CKR_ATTRIBUTE_READ_ONLY);
    CU_ASSERT_EQUAL(make(32, type, &key), CKR_TEMPLATE_INCONSISTENT);
    CU_ASSERT_EQUAL(make(32, trusted, &key), CKR_TEMPLATE_INCONSISTENT); /* the KEK is not */
    params.ulVersion = 1;
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_MECHANISM_PARAM_INVALID);
    params.ulVersion = 0;
    params.ulAADLen = 1025;
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_MECHANISM_PARAM_INVALID);
    params.ulAADLen = 0;
    generate.ulParameterLen--;
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_MECHANISM_PARAM_INVALID);
    generate.ulParameterLen++;
    params.hKek = 77;
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_KEY_HANDLE_INVALID);
    params.hKek = session_secret(CKK_AES, 32)->handle; /* a session's key is nobody's service */
    CU_ASSERT_NOT_EQUAL(make(32, none, &key), CKR_OK);
    CU_ASSERT_EQUAL(fake.data_keys + fake.wraps, 0); /* all of it before anything is asked */
    fake_end();

    begin(FAKE_AES_CBC_PAD_ONLY, true); /* it seals by nothing, and does not wrap */
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_KEY_FUNCTION_NOT_PERMITTED);
    CU_ASSERT_EQUAL(fake.requests, 0);
    fake_end();
}

/* A failure is one: no key is made instead by somebody else. */
static void failures_stay(void)
{
    static const struct tmpl_row none = NO(CKA_SENSITIVE);
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;

    begin(FAKE_AES, true);
    fake.fail = KMS_E_DENIED;
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_DEVICE_ERROR); /* as the fake slot has it */
    CU_ASSERT(fake.data_keys == 1 && fake.wraps == 0 && fake_objects() == 1);
    fake.fail = KMS_OK;
    fake.lies = true; /* a byte less */
    CU_ASSERT_EQUAL(make(32, none, &key), CKR_DEVICE_ERROR);
    CU_ASSERT_EQUAL(fake_objects(), 1);
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"made by the service", made_by_the_service},
        {"made here", made_here},
        {"refused", refused},
        {"failures stay", failures_stay},
    };

    return unit_main("test_data_key", tests, UNIT_COUNT(tests));
}
