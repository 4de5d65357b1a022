/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine, the two-call protocol, and what a begin is refused for. */
#include <string.h>

#include "tests/unit/op_mechs.h"

#define KINDS 2 /* here, and the token's */

/* ---- every function in every state ---------------------------------------------------------- */

enum state { NONE, BEGUN, QUERIED, UPDATED, KEPT, STATES };
enum call { INIT, CANCEL, SESSION_CANCEL, ONCE, UPDATE, FINAL, CALLS };

static const char *const state_names[STATES] = {"none", "begun", "queried", "updated", "kept"};
static const char *const call_names[CALLS] = {"init", "cancel", "session cancel",
                                              "once", "update", "final"};

static const struct cell {
    CK_RV rv;
    bool active; /* afterwards */
} cells[STATES][CALLS] = {
    [NONE] = {{CKR_OK, true},
              {CKR_OPERATION_NOT_INITIALIZED, false},
              {CKR_OK, false},
              {CKR_OPERATION_NOT_INITIALIZED, false},
              {CKR_OPERATION_NOT_INITIALIZED, false},
              {CKR_OPERATION_NOT_INITIALIZED, false}},
    [BEGUN] = {{CKR_OPERATION_ACTIVE, true},
               {CKR_OK, false},
               {CKR_OK, false},
               {CKR_OK, false},
               {CKR_OK, true},
               {CKR_ENCRYPTED_DATA_LEN_RANGE, false}}, /* padding without a block */
    [QUERIED] = {{CKR_OPERATION_ACTIVE, true},
                 {CKR_OK, false},
                 {CKR_OK, false},
                 {CKR_OK, false},
                 {CKR_OK, true},
                 {CKR_ENCRYPTED_DATA_LEN_RANGE, false}},
    [UPDATED] = {{CKR_OPERATION_ACTIVE, true},
                 {CKR_OK, false},
                 {CKR_OK, false},
                 {CKR_OPERATION_NOT_INITIALIZED, false},
                 {CKR_OK, true},
                 {CKR_OK, false}},
    [KEPT] = {{CKR_OPERATION_ACTIVE, true},
              {CKR_OK, false},
              {CKR_OK, false},
              {CKR_OK, false}, /* collects */
              {CKR_DATA_INVALID, false},
              {CKR_DATA_INVALID, false}},
};

static CK_MECHANISM cbc_pad = MECH(CKM_AES_CBC_PAD, mech_iv);
static CK_BYTE sealed[48]; /* 40 bytes, padded */
static CK_BYTE plain[40] = "0123456789012345678901234567890123456789";

static CK_RV do_call(enum call call, struct kms_object *key)
{
    struct kms_session *s = &fake.session;
    CK_BYTE out[64];
    CK_ULONG len = sizeof(out);

    switch (call) {
    case INIT:
        return kms_op_init(s, KMS_OPK_DECRYPT, &cbc_pad, key);
    case CANCEL:
        return kms_op_init(s, KMS_OPK_DECRYPT, NULL, NULL);
    case SESSION_CANCEL:
        return kms_op_cancel(s, CKF_DECRYPT);
    case ONCE:
        return kms_op_once(s, KMS_OPK_DECRYPT, sealed, sizeof(sealed), out, &len);
    case UPDATE:
        return kms_op_update(s, KMS_OPK_DECRYPT, sealed, sizeof(sealed), out, &len);
    case FINAL:
    default:
        return kms_op_final(s, KMS_OPK_DECRYPT, out, &len);
    }
}

static void enter_state(enum state state, struct kms_object *key)
{
    struct kms_session *s = &fake.session;
    CK_BYTE out[64];
    CK_ULONG len = sizeof(out);

    (void)kms_op_cancel(s, ~0UL);
    if (state == NONE) {
        return;
    }
    CU_ASSERT_EQUAL(do_call(INIT, key), CKR_OK);
    if (state == QUERIED) {
        CU_ASSERT_EQUAL(kms_op_once(s, KMS_OPK_DECRYPT, sealed, sizeof(sealed), NULL, &len),
                        CKR_OK);
        CU_ASSERT(len >= sizeof(plain));
    } else if (state == UPDATED) {
        CU_ASSERT_EQUAL(do_call(UPDATE, key), CKR_OK);
    } else if (state == KEPT) {
        len = sizeof(plain) - 1;
        CU_ASSERT_EQUAL(kms_op_once(s, KMS_OPK_DECRYPT, sealed, sizeof(sealed), out, &len),
                        CKR_BUFFER_TOO_SMALL);
        CU_ASSERT_EQUAL(len, sizeof(plain));
    }
}

static void test_states(void)
{
    CK_ULONG len = sizeof(sealed);

    fake_begin();
    CU_ASSERT_EQUAL(
        shot(KMS_OPK_ENCRYPT, &cbc_pad, fake.key[FAKE_AES], plain, sizeof(plain), sealed, &len),
        CKR_OK);
    CU_ASSERT_EQUAL(len, sizeof(sealed));
    for (unsigned where = 0; where < KINDS; where++) {
        struct kms_object *key = where == 0 ? session_secret(CKK_AES, 32) : fake.key[FAKE_AES];

        for (unsigned s = 0; s < STATES; s++) {
            for (unsigned c = 0; c < CALLS; c++) {
                const struct cell *cell = &cells[s][c];
                char row[96];
                CK_RV rv = CKR_OK;

                (void)snprintf(row, sizeof(row), "%s: %s then %s", where == 0 ? "here" : "token",
                               state_names[s], call_names[c]);
                enter_state((enum state)s, key);
                rv = do_call((enum call)c, key);
                if (!UNIT_CHECK(row, rv == cell->rv)) {
                    fprintf(stderr, "%s: 0x%lx, not 0x%lx\n", row, rv, cell->rv);
                }
                UNIT_CHECK(row, (fake.session.op[KMS_OPK_DECRYPT] != NULL) == cell->active);
            }
        }
    }
    (void)kms_op_cancel(&fake.session, ~0UL);
    fake_end();
}

/* ---- two calls, one request ----------------------------------------------------------------- */

static CK_BYTE message[64] = "a message of sixty-four bytes, which is four blocks of sixteen.";
static CK_BYTE digest[32] = "thirty-two bytes like a digest..";

static const struct two_row {
    const char *name;
    enum kms_op_kind kind;
    enum fake_key key;
    CK_MECHANISM mechanism;
    CK_BYTE *in; /* NULL: what the mechanism's opposite makes of the message */
    CK_ULONG in_len;
    CK_ULONG len;     /* of the result */
    bool known;       /* before it is asked for */
    bool here;        /* the session key of the type instead */
    enum fake_key by; /* the public half that prepares what is decrypted; FAKE_KEYS: none */
} two_rows[] = {
    {"gcm", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_AES_GCM, mech_gcm), message, 64, 80, true, false,
     FAKE_KEYS},
    {"cbc", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_AES_CBC, mech_iv), message, 64, 64, true, false,
     FAKE_KEYS},
    {"cbc-pad", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_AES_CBC_PAD, mech_iv), message, 64, 80, true,
     false, FAKE_KEYS},
    {"ctr", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_AES_CTR, mech_ctr), message, 63, 63, true, false,
     FAKE_KEYS},
    {"un-gcm", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_GCM, mech_gcm), NULL, 0, 40, true, false,
     FAKE_AES},
    {"un-cbc-pad", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_CBC_PAD, mech_iv), NULL, 0, 40, false,
     false, FAKE_AES},
    {"un-cbc-pad here", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_CBC_PAD, mech_iv), NULL, 0, 40,
     false, true, FAKE_AES},
    {"gcm here", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_AES_GCM, mech_gcm), message, 64, 80, true,
     true, FAKE_KEYS},
    {"oaep", KMS_OPK_DECRYPT, FAKE_RSA, MECH(CKM_RSA_PKCS_OAEP, mech_oaep), NULL, 0, 40, false,
     false, FAKE_RSA},
    {"pkcs1", KMS_OPK_DECRYPT, FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), NULL, 0, 40, false, false,
     FAKE_RSA},
    {"hmac", KMS_OPK_SIGN, FAKE_MAC, MECH_NONE(CKM_SHA256_HMAC), message, 64, 32, true, false,
     FAKE_KEYS},
    {"rsa", KMS_OPK_SIGN, FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), message, 64, 256, true, false,
     FAKE_KEYS},
    {"sha256-rsa", KMS_OPK_SIGN, FAKE_RSA, MECH_NONE(CKM_SHA256_RSA_PKCS), message, 64, 256, true,
     false, FAKE_KEYS},
    {"pss", KMS_OPK_SIGN, FAKE_RSA, MECH(CKM_RSA_PKCS_PSS, mech_pss), digest, 32, 256, true, false,
     FAKE_KEYS},
    {"ecdsa", KMS_OPK_SIGN, FAKE_EC, MECH_NONE(CKM_ECDSA), digest, 32, 64, true, false, FAKE_KEYS},
    {"ecdsa-sha256", KMS_OPK_SIGN, FAKE_EC, MECH_NONE(CKM_ECDSA_SHA256), message, 64, 64, true,
     false, FAKE_KEYS},
    {"eddsa", KMS_OPK_SIGN, FAKE_ED, MECH_NONE(CKM_EDDSA), message, 64, 64, true, false, FAKE_KEYS},
    {"sealed", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), message, 64,
     8 + 6 + 12 + 64 + 16, false, false, FAKE_KEYS},
    {"unsealed", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), NULL, 0, 40,
     false, false, FAKE_AES},
};

static void check_two(const struct two_row *row)
{
    struct kms_session *s = &fake.session;
    CK_MECHANISM mechanism = row->mechanism;
    struct kms_object *key = row->here ? session_secret(CKK_AES, 32) : fake.key[row->key];
    struct kms_object *by = row->by == FAKE_KEYS       ? NULL
                            : fake.public_key[row->by] ? fake.public_key[row->by]
                                                       : fake.key[row->by];
    unsigned wanted = row->here ? 0 : 1;
    CK_BYTE made[2048];
    CK_BYTE out[2048];
    CK_BYTE *in = row->in;
    CK_ULONG in_len = row->in_len;
    CK_ULONG len = 0;

    if (by != NULL) {
        in = made;
        in_len = sizeof(made);
        UNIT_CHECK(row->name, shot(KMS_OPK_ENCRYPT, &mechanism, by, plain, sizeof(plain), made,
                                   &in_len) == CKR_OK);
    }
    fake.requests = 0;
    UNIT_CHECK(row->name, kms_op_init(s, row->kind, &mechanism, key) == CKR_OK);
    for (unsigned i = 0; i < 3; i++) { /* a query, as often as one likes */
        len = 0;
        UNIT_CHECK(row->name, kms_op_once(s, row->kind, in, in_len, NULL, &len) == CKR_OK);
        UNIT_CHECK(row->name, row->known ? len == row->len : len >= row->len);
    }
    UNIT_CHECK(row->name, fake.requests == 0);
    for (unsigned i = 0; i < 3; i++) { /* too small, as often as one likes */
        len = row->len - 1 - i;
        UNIT_CHECK(row->name,
                   kms_op_once(s, row->kind, in, in_len, out, &len) == CKR_BUFFER_TOO_SMALL);
        UNIT_CHECK(row->name, len == row->len);
    }
    UNIT_CHECK(row->name, fake.requests == (row->known ? 0 : wanted));
    len = row->len;
    UNIT_CHECK(row->name, kms_op_once(s, row->kind, in, in_len, out, &len) == CKR_OK);
    UNIT_CHECK(row->name, len == row->len);
    UNIT_CHECK(row->name, fake.requests == wanted);
    UNIT_CHECK(row->name, s->op[row->kind] == NULL);
    if (by != NULL) {
        UNIT_CHECK(row->name, memcmp(out, plain, sizeof(plain)) == 0);
    }
    /* another input than the one whose result waits */
    if (!row->known) {
        UNIT_CHECK(row->name, kms_op_init(s, row->kind, &mechanism, key) == CKR_OK);
        len = 1;
        UNIT_CHECK(row->name,
                   kms_op_once(s, row->kind, in, in_len, out, &len) == CKR_BUFFER_TOO_SMALL);
        in[0] ^= 1;
        len = sizeof(out);
        UNIT_CHECK(row->name, kms_op_once(s, row->kind, in, in_len, out, &len) == CKR_DATA_INVALID);
        in[0] ^= 1;
        UNIT_CHECK(row->name, s->op[row->kind] == NULL);
    }
}

static void test_two_calls(void)
{
    for (size_t i = 0; i < UNIT_COUNT(two_rows); i++) {
        fake_begin();
        check_two(&two_rows[i]);
        fake_end();
    }
}

/* ---- what a begin is refused for ------------------------------------------------------------ */

static CK_BYTE short_iv[8];
static CK_GCM_PARAMS no_tag = {.pIv = mech_iv, .ulIvLen = 12, .ulTagBits = 0};
static CK_GCM_PARAMS short_tag = {.pIv = mech_iv, .ulIvLen = 12, .ulTagBits = 64};
static CK_GCM_PARAMS long_iv = {.pIv = mech_iv, .ulIvLen = 16, .ulTagBits = 128};

enum whose { HERE_AES, HERE_GENERIC, HERE_PUBLIC_RSA, TOKEN_AES, TOKEN_MAC, TOKEN_RSA, TOKEN_EC };

static const struct begin_row {
    const char *name;
    enum kms_op_kind kind;
    enum whose key;
    CK_MECHANISM mechanism;
    CK_RV rv;
} begin_rows[] = {
    {"unknown", KMS_OPK_ENCRYPT, HERE_AES, MECH_NONE(0x7fff0000), CKR_MECHANISM_INVALID},
    {"for signing", KMS_OPK_ENCRYPT, HERE_AES, MECH_NONE(CKM_SHA256_HMAC), CKR_MECHANISM_INVALID},
    {"no digest", KMS_OPK_DIGEST, HERE_AES, MECH_NONE(CKM_SHA256_HMAC), CKR_MECHANISM_INVALID},
    {"IV too short", KMS_OPK_ENCRYPT, HERE_AES, MECH(CKM_AES_CBC, short_iv),
     CKR_MECHANISM_PARAM_INVALID},
    {"IV too short, token", KMS_OPK_ENCRYPT, TOKEN_AES, MECH(CKM_AES_CBC, short_iv),
     CKR_MECHANISM_PARAM_INVALID},
    {"no parameter", KMS_OPK_ENCRYPT, TOKEN_AES, MECH_NONE(CKM_AES_GCM),
     CKR_MECHANISM_PARAM_INVALID},
    {"no tag", KMS_OPK_ENCRYPT, TOKEN_AES, MECH(CKM_AES_GCM, no_tag), CKR_MECHANISM_PARAM_INVALID},
    {"tag of 64 bits", KMS_OPK_ENCRYPT, TOKEN_AES, MECH(CKM_AES_GCM, short_tag),
     CKR_MECHANISM_PARAM_INVALID},
    {"tag of 64 bits, here", KMS_OPK_ENCRYPT, HERE_AES, MECH(CKM_AES_GCM, short_tag), CKR_OK},
    {"IV of 16", KMS_OPK_ENCRYPT, TOKEN_AES, MECH(CKM_AES_GCM, long_iv), CKR_OK},
    {"a parameter too many", KMS_OPK_SIGN, TOKEN_EC, MECH(CKM_ECDSA, mech_iv),
     CKR_MECHANISM_PARAM_INVALID},
    {"type of key", KMS_OPK_ENCRYPT, HERE_GENERIC, MECH(CKM_AES_CBC, mech_iv),
     CKR_KEY_TYPE_INCONSISTENT},
    {"type of key, token", KMS_OPK_SIGN, TOKEN_RSA, MECH_NONE(CKM_ECDSA),
     CKR_KEY_TYPE_INCONSISTENT},
    {"wrong half", KMS_OPK_SIGN, HERE_PUBLIC_RSA, MECH_NONE(CKM_RSA_PKCS),
     CKR_KEY_TYPE_INCONSISTENT},
    {"wrong half, token", KMS_OPK_ENCRYPT, TOKEN_RSA, MECH_NONE(CKM_RSA_PKCS),
     CKR_KEY_TYPE_INCONSISTENT},
    {"not its use", KMS_OPK_SIGN, TOKEN_AES, MECH_NONE(CKM_AES_CMAC),
     CKR_KEY_FUNCTION_NOT_PERMITTED},
    {"not its algorithm", KMS_OPK_SIGN, TOKEN_MAC, MECH_NONE(CKM_SHA512_HMAC),
     CKR_KEY_FUNCTION_NOT_PERMITTED},
    {"sealed, not a token's", KMS_OPK_ENCRYPT, HERE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed),
     CKR_KEY_FUNCTION_NOT_PERMITTED},
    {"raw signature", KMS_OPK_SIGN, TOKEN_RSA, MECH_NONE(CKM_RSA_X_509), CKR_OK},
};

static struct kms_object *key_of(enum whose whose)
{
    switch (whose) {
    case HERE_AES:
        return session_secret(CKK_AES, 32);
    case HERE_GENERIC:
        return session_secret(CKK_GENERIC_SECRET, 31);
    case HERE_PUBLIC_RSA:
        return fake.public_key[FAKE_RSA];
    case TOKEN_AES:
        return fake.key[FAKE_AES];
    case TOKEN_MAC:
        return fake.key[FAKE_MAC];
    case TOKEN_RSA:
        return fake.key[FAKE_RSA];
    case TOKEN_EC:
    default:
        return fake.key[FAKE_EC];
    }
}

static void test_begin(void)
{
    for (size_t i = 0; i < UNIT_COUNT(begin_rows); i++) {
        const struct begin_row *row = &begin_rows[i];
        CK_MECHANISM mechanism = row->mechanism;
        CK_RV rv = CKR_OK;

        fake_begin();
        rv = kms_op_init(&fake.session, row->kind, &mechanism, key_of(row->key));
        if (!UNIT_CHECK(row->name, rv == row->rv)) {
            fprintf(stderr, "%s: 0x%lx\n", row->name, rv);
        }
        UNIT_CHECK(row->name, fake.requests == 0);
        UNIT_CHECK(row->name, (fake.session.op[row->kind] != NULL) == (row->rv == CKR_OK));
        (void)kms_op_cancel(&fake.session, ~0UL);
        fake_end();
    }
}

static void test_allowed_mechanisms(void)
{
    static const CK_MECHANISM_TYPE only[] = {CKM_AES_CBC};
    CK_MECHANISM cbc = MECH(CKM_AES_CBC, mech_iv);
    CK_MECHANISM gcm = MECH(CKM_AES_GCM, mech_gcm);

    fake_begin();
    (void)kms_attrs_set(fake.key[FAKE_AES]->attrs, CKA_ALLOWED_MECHANISMS, only, sizeof(only));
    CU_ASSERT_EQUAL(kms_op_init(&fake.session, KMS_OPK_ENCRYPT, &gcm, fake.key[FAKE_AES]),
                    CKR_MECHANISM_INVALID);
    CU_ASSERT_EQUAL(kms_op_init(&fake.session, KMS_OPK_ENCRYPT, &cbc, fake.key[FAKE_AES]), CKR_OK);
    (void)kms_op_cancel(&fake.session, ~0UL);
    fake_end();
}

/* ---- errors that end ------------------------------------------------------------------------ */

static const struct end_row {
    const char *name;
    enum kms_status fail;
    bool lies;
    CK_MECHANISM mechanism;
    CK_ULONG in_len;
    bool null_len;
    CK_RV rv;
} end_rows[] = {
    {"the service fails", KMS_E_UNAVAILABLE, false, MECH(CKM_AES_GCM, mech_gcm), 64, false,
     CKR_DEVICE_ERROR},
    {"the service lies", KMS_OK, true, MECH(CKM_AES_GCM, mech_gcm), 64, false, CKR_DEVICE_ERROR},
    {"no whole block", KMS_OK, false, MECH(CKM_AES_CBC, mech_iv), 63, false, CKR_DATA_LEN_RANGE},
    {"no length pointer", KMS_OK, false, MECH(CKM_AES_GCM, mech_gcm), 64, true, CKR_ARGUMENTS_BAD},
};

static void test_errors_end(void)
{
    for (size_t i = 0; i < UNIT_COUNT(end_rows); i++) {
        const struct end_row *row = &end_rows[i];
        CK_MECHANISM mechanism = row->mechanism;
        CK_BYTE out[128];
        CK_ULONG len = sizeof(out);

        fake_begin();
        fake.fail = row->fail;
        fake.lies = row->lies;
        UNIT_CHECK(row->name, kms_op_init(&fake.session, KMS_OPK_ENCRYPT, &mechanism,
                                          fake.key[FAKE_AES]) == CKR_OK);
        UNIT_CHECK(row->name, kms_op_once(&fake.session, KMS_OPK_ENCRYPT, message, row->in_len, out,
                                          row->null_len ? NULL : &len) == row->rv);
        UNIT_CHECK(row->name, fake.session.op[KMS_OPK_ENCRYPT] == NULL);
        fake_end();
    }
}

/* ---- what a key can do, and its service refuses --------------------------------------------- */

static CK_RSA_PKCS_OAEP_PARAMS oaep_label = {.hashAlg = CKM_SHA256,
                                             .mgf = CKG_MGF1_SHA256,
                                             .source = CKZ_DATA_SPECIFIED,
                                             .pSourceData = mech_aad,
                                             .ulSourceDataLen = sizeof(mech_aad)};

/* Not the mechanism, which the key has: its parameter, or the input's length. */
static const struct refusal {
    const char *name;
    enum kms_op_kind kind;
    enum fake_key key;
    CK_MECHANISM mechanism;
    CK_ULONG in_len;
    enum kms_status fail;
    CK_RV rv;
} refusals[] = {
    {"no such salt", KMS_OPK_SIGN, FAKE_RSA, MECH(CKM_SHA256_RSA_PKCS_PSS, mech_pss), 64,
     KMS_E_UNSUPPORTED, CKR_MECHANISM_PARAM_INVALID},
    {"no room for the salt", KMS_OPK_SIGN, FAKE_RSA, MECH(CKM_SHA256_RSA_PKCS_PSS, mech_pss), 64,
     KMS_E_INVALID, CKR_MECHANISM_PARAM_INVALID},
    {"no label", KMS_OPK_DECRYPT, FAKE_RSA, MECH(CKM_RSA_PKCS_OAEP, oaep_label), 256,
     KMS_E_UNSUPPORTED, CKR_MECHANISM_PARAM_INVALID},
    {"no label, said otherwise", KMS_OPK_DECRYPT, FAKE_RSA, MECH(CKM_RSA_PKCS_OAEP, oaep_label),
     256, KMS_E_INVALID, CKR_MECHANISM_PARAM_INVALID},
    {"no AAD", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), 64,
     KMS_E_UNSUPPORTED, CKR_MECHANISM_PARAM_INVALID},
    {"nothing to seal", KMS_OPK_ENCRYPT, FAKE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), 0,
     KMS_E_INVALID, CKR_DATA_LEN_RANGE},
    {"no MAC of nothing", KMS_OPK_SIGN, FAKE_MAC, MECH_NONE(CKM_SHA256_HMAC), 0, KMS_E_INVALID,
     CKR_DATA_LEN_RANGE},
    {"no such digest", KMS_OPK_SIGN, FAKE_EC, MECH_NONE(CKM_ECDSA), 65, KMS_E_INVALID,
     CKR_DATA_LEN_RANGE},
    {"no reason", KMS_OPK_SIGN, FAKE_EC, MECH_NONE(CKM_ECDSA), 32, KMS_E_UNAVAILABLE,
     CKR_DEVICE_ERROR},
};

static void test_refusals(void)
{
    for (size_t i = 0; i < UNIT_COUNT(refusals); i++) {
        const struct refusal *row = &refusals[i];
        CK_MECHANISM mechanism = row->mechanism;
        CK_BYTE out[1024];
        CK_ULONG len = sizeof(out);

        fake_begin();
        fake.fail = row->fail;
        UNIT_CHECK(row->name, shot(row->kind, &mechanism, fake.key[row->key], message, row->in_len,
                                   out, &len) == row->rv);
        UNIT_CHECK(row->name, fake.requests == 1);
        fake_end();
    }
}

static void test_refused_iv(void)
{
    CK_MECHANISM gcm = MECH(CKM_AES_GCM, mech_gcm);
    CK_BYTE out[128];
    CK_ULONG len = sizeof(out);

    fake_begin();
    fake.own_iv_only = true;
    CU_ASSERT_EQUAL(shot(KMS_OPK_ENCRYPT, &gcm, fake.key[FAKE_AES], message, 64, out, &len),
                    CKR_MECHANISM_PARAM_INVALID);
    fake_end();
}

/* A tag that does not verify shows nothing and ends. */
static void test_forged(void)
{
    CK_MECHANISM gcm = MECH(CKM_AES_GCM, mech_gcm);
    static const CK_BYTE zeros[64];

    fake_begin();
    for (unsigned where = 0; where < KINDS; where++) {
        struct kms_object *key = where == 0 ? session_secret(CKK_AES, 32) : fake.key[FAKE_AES];
        CK_BYTE made[80];
        CK_BYTE out[64] = {0};
        CK_ULONG made_len = sizeof(made);
        CK_ULONG len = sizeof(out);

        CU_ASSERT_EQUAL(shot(KMS_OPK_ENCRYPT, &gcm, key, message, 64, made, &made_len), CKR_OK);
        made[5] ^= 1;
        CU_ASSERT_EQUAL(shot(KMS_OPK_DECRYPT, &gcm, key, made, made_len, out, &len),
                        CKR_ENCRYPTED_DATA_INVALID);
        CU_ASSERT_EQUAL(memcmp(out, zeros, sizeof(out)), 0);
        CU_ASSERT_PTR_NULL(fake.session.op[KMS_OPK_DECRYPT]);
    }
    fake_end();
}

/* What a service that signs digests of SHA-256 alone does not sign, it is not asked for. */
static void test_sha256_alone(void)
{
    static const CK_BYTE head[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                   0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        enum fake_key key;
        CK_ULONG len; /* of a DigestInfo or a digest, and zeros behind it */
        CK_BYTE hash; /* the DigestInfo's, by its last number */
        CK_RV rv;
    } rows[] = {
        {"DigestInfo", CKM_RSA_PKCS, FAKE_RSA, 51, 1, CKR_OK},
        {"of SHA-384", CKM_RSA_PKCS, FAKE_RSA, 51, 2, CKR_DATA_INVALID},
        {"a byte more", CKM_RSA_PKCS, FAKE_RSA, 52, 1, CKR_DATA_INVALID},
        {"bare digest", CKM_RSA_PKCS, FAKE_RSA, 32, 1, CKR_DATA_INVALID},
        {"nothing", CKM_RSA_PKCS, FAKE_RSA, 0, 1, CKR_DATA_INVALID},
        {"message", CKM_SHA256_RSA_PKCS, FAKE_RSA, 60, 1, CKR_OK},
        {"digest", CKM_ECDSA, FAKE_EC, 32, 1, CKR_OK},
        {"SHA-1's digest", CKM_ECDSA, FAKE_EC, 20, 1, CKR_DATA_LEN_RANGE},
        {"SHA-384's digest", CKM_ECDSA, FAKE_EC, 48, 1, CKR_DATA_LEN_RANGE},
        {"message, ECDSA", CKM_ECDSA_SHA256, FAKE_EC, 60, 1, CKR_OK},
    };

    fake_begin();
    kms_alg_set_add(&fake.key[FAKE_RSA]->algs, KMS_ALG_SHA256_ALONE);
    kms_alg_set_add(&fake.key[FAKE_EC]->algs, KMS_ALG_SHA256_ALONE);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_MECHANISM mechanism = {rows[i].type, NULL, 0};
        CK_BYTE in[64] = {0};
        CK_BYTE out[256];
        CK_ULONG len = sizeof(out);
        unsigned before = fake.signs;

        memcpy(in, head, sizeof(head));
        in[14] = rows[i].hash;
        UNIT_CHECK(rows[i].name, shot(KMS_OPK_SIGN, &mechanism, fake.key[rows[i].key], in,
                                      rows[i].len, out, &len) == rows[i].rv);
        UNIT_CHECK(rows[i].name, fake.signs == before + (rows[i].rv == CKR_OK ? 1u : 0u));
    }
    fake_end();
}

/* ---- digests of keys ------------------------------------------------------------------------ */

static void test_digest_key(void)
{
    CK_MECHANISM sha256 = MECH_NONE(CKM_SHA256);
    struct kms_object *key = NULL;
    CK_BYTE of_key[32];
    CK_BYTE of_bytes[32];
    CK_ULONG len = 32;

    fake_begin();
    key = session_secret(CKK_AES, 32);
    CU_ASSERT_EQUAL(kms_op_digest_key(&fake.session, key), CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(kms_op_init(&fake.session, KMS_OPK_DIGEST, &sha256, NULL), CKR_OK);
    CU_ASSERT_EQUAL(kms_op_digest_key(&fake.session, key), CKR_OK);
    CU_ASSERT_EQUAL(kms_op_final(&fake.session, KMS_OPK_DIGEST, of_key, &len), CKR_OK);
    len = 32;
    CU_ASSERT_EQUAL(shot(KMS_OPK_DIGEST, &sha256, NULL,
                         (CK_BYTE *)(uintptr_t) "0123456789abcdef0123456789abcde", 32, of_bytes,
                         &len),
                    CKR_OK);
    CU_ASSERT_EQUAL(memcmp(of_key, of_bytes, 32), 0);
    CU_ASSERT_EQUAL(kms_op_init(&fake.session, KMS_OPK_DIGEST, &sha256, NULL), CKR_OK);
    CU_ASSERT_EQUAL(kms_op_digest_key(&fake.session, fake.key[FAKE_AES]), CKR_KEY_INDIGESTIBLE);
    CU_ASSERT_PTR_NULL(fake.session.op[KMS_OPK_DIGEST]);
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"every function in every state", test_states},
        {"two calls, one request", test_two_calls},
        {"what a begin is refused for", test_begin},
        {"CKA_ALLOWED_MECHANISMS", test_allowed_mechanisms},
        {"errors end an operation", test_errors_end},
        {"a service that refuses", test_refusals},
        {"a service with IVs of its own", test_refused_iv},
        {"a forged ciphertext", test_forged},
        {"digests of SHA-256 alone", test_sha256_alone},
        {"C_DigestKey", test_digest_key},
    };

    return unit_main("test_operation", tests, UNIT_COUNT(tests));
}
