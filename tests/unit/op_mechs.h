/* SPDX-License-Identifier: Apache-2.0 */
/* Mechanisms with good parameters and keys for them, for the tests of operations. */
#ifndef KMS_TESTS_UNIT_OP_MECHS_H
#define KMS_TESTS_UNIT_OP_MECHS_H

#include "pkcs11/core/crypto.h"
#include "tests/unit/fake_token.h"
#include "tests/unit/unit.h"

#define PARAM static __attribute__((unused)) /* no test needs them all */

PARAM CK_BYTE mech_iv[16] = {0xff, 0xff, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xfe};
PARAM CK_BYTE mech_aad[5] = {'a', 'a', 'd', 0, 1};
PARAM CK_GCM_PARAMS mech_gcm = {.pIv = mech_iv,
                                .ulIvLen = 12,
                                .ulIvBits = 96,
                                .pAAD = mech_aad,
                                .ulAADLen = sizeof(mech_aad),
                                .ulTagBits = 128};
PARAM CK_AES_CTR_PARAMS mech_ctr = {
    .ulCounterBits = 128, .cb = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 255, 255, 254}};
PARAM CK_RSA_PKCS_OAEP_PARAMS mech_oaep = {
    .hashAlg = CKM_SHA256, .mgf = CKG_MGF1_SHA256, .source = CKZ_DATA_SPECIFIED};
PARAM CK_RSA_PKCS_PSS_PARAMS mech_pss = {.hashAlg = CKM_SHA256, .mgf = CKG_MGF1_SHA256, .sLen = 32};
PARAM CK_KMSBRIDGE_SEALED_PARAMS mech_sealed = {0, mech_aad, sizeof(mech_aad)};

#define MECH(type, p)                                                                              \
    {                                                                                              \
        type, &p, sizeof(p)                                                                        \
    }
#define MECH_NONE(type)                                                                            \
    {                                                                                              \
        type, NULL, 0                                                                              \
    }

/* A session key, in the store: CKK_AES or CKK_GENERIC_SECRET with the fake token's bytes. */
static inline struct kms_object *session_secret(CK_KEY_TYPE type, size_t len)
{
    static CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    static CK_BBOOL yes = CK_TRUE;
    static CK_BYTE value[] = "0123456789abcdef0123456789abcde";
    CK_ATTRIBUTE tmpl[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_VALUE, value, len},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)},
        {CKA_DERIVE, &yes, sizeof(yes)},
    };
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;

    return kms_make_object(&fake.session, tmpl, UNIT_COUNT(tmpl), &handle) == CKR_OK
               ? fake_object(handle)
               : NULL;
}

/* One shot: @ret_len holds the room of @out; the operation is begun here. */
static inline CK_RV shot(enum kms_op_kind kind, CK_MECHANISM *mechanism, struct kms_object *key,
                         CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR ret_len)
{
    CK_RV rv = kms_op_init(&fake.session, kind, mechanism, key);

    return rv == CKR_OK ? kms_op_once(&fake.session, kind, in, in_len, out, ret_len) : rv;
}

static inline CK_RV check_signature(CK_MECHANISM *mechanism, struct kms_object *key, CK_BYTE_PTR in,
                                    CK_ULONG in_len, CK_BYTE_PTR signature, CK_ULONG len)
{
    CK_RV rv = kms_op_init(&fake.session, KMS_OPK_VERIFY, mechanism, key);

    return rv == CKR_OK ? kms_op_verify(&fake.session, true, in, in_len, signature, len) : rv;
}

#endif
