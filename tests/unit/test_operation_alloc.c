/* SPDX-License-Identifier: Apache-2.0 */
/* What sessions do when memory runs out, at every place where it can: an error, and nothing left.
 */
#include <string.h>

#include "pkcs11/core/store.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/op_mechs.h"
#include "tests/unit/tmpl.h"

#define NTH_MAX 400
#define P256    "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"

static CK_BYTE message[3000];

static CK_RV do_make(void)
{
    static const struct tmpl_row rows[] = {NUM(CKA_CLASS, CKO_SECRET_KEY),
                                           NUM(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
                                           TEXT(CKA_VALUE, "some bytes")};
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct tmpl t = {.count = 0};

    tmpl_add(&t, rows, UNIT_COUNT(rows));
    return kms_make_object(&fake.session, t.attrs, t.count, &handle);
}

static CK_RV do_pair(void)
{
    static const struct tmpl_row p256 = BYTES(CKA_EC_PARAMS, P256);
    CK_MECHANISM mechanism = MECH_NONE(CKM_EC_KEY_PAIR_GEN);
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    struct tmpl t = {.count = 0};
    CK_RV rv = CKR_OK;

    tmpl_add(&t, &p256, 1);
    rv = kms_make_pair(&fake.session, &mechanism, t.attrs, t.count, NULL, 0, &handles[0],
                       &handles[1]);
    CU_ASSERT_EQUAL(fake_objects(), rv == CKR_OK ? 2 : 0); /* both, or none */
    return rv;
}

static CK_RV do_parts(CK_MECHANISM *mechanism, enum kms_op_kind kind, struct kms_object *key)
{
    CK_BYTE out[3100];
    CK_ULONG len = sizeof(out);
    CK_RV rv = kms_op_init(&fake.session, kind, mechanism, key);

    if (rv == CKR_OK) {
        rv = kms_op_update(&fake.session, kind, message, 1501, out, &len);
    }
    if (rv == CKR_OK) {
        len = sizeof(out);
        rv = kms_op_update(&fake.session, kind, message, 1499, out, &len);
    }
    if (rv == CKR_OK) {
        len = sizeof(out);
        rv = kms_op_final(&fake.session, kind, out, &len);
    }
    CU_ASSERT_PTR_NULL(fake.session.op[kind]);
    return rv;
}

static CK_RV do_cbc(void)
{
    CK_MECHANISM mechanism = MECH(CKM_AES_CBC_PAD, mech_iv);

    return do_parts(&mechanism, KMS_OPK_ENCRYPT, fake.key[FAKE_AES]);
}

static CK_RV do_ctr(void)
{
    CK_MECHANISM mechanism = MECH(CKM_AES_CTR, mech_ctr);

    return do_parts(&mechanism, KMS_OPK_ENCRYPT, fake.key[FAKE_AES]);
}

static CK_RV do_gcm(void)
{
    CK_MECHANISM mechanism = MECH(CKM_AES_GCM, mech_gcm);

    return do_parts(&mechanism, KMS_OPK_ENCRYPT, fake.key[FAKE_AES]);
}

static CK_RV do_sign(void)
{
    CK_MECHANISM mechanism = MECH_NONE(CKM_SHA256_RSA_PKCS);
    CK_BYTE out[256];
    CK_ULONG len = sizeof(out);

    return shot(KMS_OPK_SIGN, &mechanism, fake.key[FAKE_RSA], message, 3000, out, &len);
}

static CK_RV do_message(void)
{
    CK_MECHANISM mechanism = MECH_NONE(CKM_AES_GCM);
    CK_BYTE iv[12];
    CK_BYTE tag[16];
    CK_BYTE out[3000];
    CK_ULONG len = sizeof(out);
    CK_GCM_MESSAGE_PARAMS params = {iv, 12, 0, CKG_GENERATE, tag, 128};
    CK_RV rv =
        kms_message_init(&fake.session, KMS_OPK_MESSAGE_ENCRYPT, &mechanism, fake.key[FAKE_AES]);

    if (rv == CKR_OK) {
        rv = kms_message_begin(&fake.session, KMS_OPK_MESSAGE_ENCRYPT, &params, sizeof(params),
                               mech_aad, sizeof(mech_aad));
    }
    if (rv == CKR_OK) {
        rv = kms_message_next(&fake.session, KMS_OPK_MESSAGE_ENCRYPT, &params, sizeof(params),
                              message, 3000, out, &len, CKF_END_OF_MESSAGE);
    }
    (void)kms_op_cancel(&fake.session, ~0UL);
    return rv;
}

static CK_RV do_wrap(void)
{
    static const struct tmpl_row rows[] = {NUM(CKA_CLASS, CKO_SECRET_KEY),
                                           NUM(CKA_KEY_TYPE, CKK_AES)};
    CK_MECHANISM mechanism = MECH(CKM_KMSBRIDGE_SEALED, mech_sealed);
    struct kms_object *key = session_secret(CKK_AES, 32);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct tmpl t = {.count = 0};
    CK_BYTE out[2048];
    CK_ULONG len = sizeof(out);
    CK_RV rv = CKR_HOST_MEMORY;

    tmpl_add(&t, rows, UNIT_COUNT(rows));
    if (key != NULL) {
        rv = kms_wrap_key(&fake.session, &mechanism, fake.key[FAKE_AES], key, out, &len);
    }
    if (rv == CKR_OK) {
        rv = kms_unwrap_key(&fake.session, &mechanism, fake.key[FAKE_AES], out, len, t.attrs,
                            t.count, &handle);
    }
    return rv;
}

static CK_RV do_data_key(void)
{
    static const struct tmpl_row rows[] = {NUM(CKA_VALUE_LEN, 32)};
    CK_KMSBRIDGE_DATA_KEY_PARAMS params = {.pAAD = mech_aad, .ulAADLen = sizeof(mech_aad)};
    CK_MECHANISM mechanism = MECH(CKM_KMSBRIDGE_DATA_KEY_GEN, params);
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    struct tmpl t = {.count = 0};
    CK_RV rv =
        kms_store_add(&fake.slot, &fake.session, kms_object_ref(fake.key[FAKE_AES]), &params.hKek);

    tmpl_add(&t, rows, UNIT_COUNT(rows));
    for (unsigned i = 0; i < 2 && rv == CKR_OK; i++) { /* here, and by the service */
        fake.slot.token.info.data_keys = i == 1;
        rv = kms_make_key(&fake.session, &mechanism, t.attrs, t.count, &handle);
    }
    return rv;
}

static const struct row {
    const char *name;
    CK_RV (*run)(void);
} rows[] = {
    {"make", do_make},       {"pair", do_pair}, {"cbc", do_cbc},
    {"ctr", do_ctr},         {"gcm", do_gcm},   {"sign", do_sign},
    {"message", do_message}, {"wrap", do_wrap}, {"data key", do_data_key},
};

static void test_every_place(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        bool came = true;
        unsigned nth = 1;

        for (; came && nth < NTH_MAX; nth++) {
            CK_RV rv = CKR_OK;

            fake_begin();
            fail_alloc_set(nth);
            rv = rows[i].run();
            came = fail_alloc_clear();
            UNIT_CHECK(rows[i].name, rv == CKR_OK || rv == CKR_HOST_MEMORY ||
                                         rv == CKR_FUNCTION_FAILED || rv == CKR_DEVICE_ERROR);
            UNIT_CHECK(rows[i].name, came || rv == CKR_OK);
            fake_end();
        }
        UNIT_CHECK(rows[i].name, nth > 2 && nth < NTH_MAX); /* it asked, and came to an end */
    }
}

int main(void)
{
    static const struct unit_test tests[] = {{"every place", test_every_place}};

    return unit_main("test_operation_alloc", tests, UNIT_COUNT(tests));
}
