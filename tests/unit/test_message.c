/* SPDX-License-Identifier: Apache-2.0 */
/* The message API: whole messages and parts, IVs, tags, and what is refused. */
#include <string.h>

#include "tests/unit/op_mechs.h"

static CK_BYTE message[100];
static const CK_BYTE zeros[128];

static CK_MECHANISM gcm = MECH_NONE(CKM_AES_GCM);

/* One message's parameter and where it points. */
struct param {
    CK_BYTE iv[32];
    CK_BYTE tag[16];
    CK_GCM_MESSAGE_PARAMS host;
};

static void param_set(struct param *p, CK_GENERATOR_FUNCTION generator)
{
    memset(p, 0, sizeof(*p));
    p->host = (CK_GCM_MESSAGE_PARAMS){
        .pIv = p->iv, .ulIvLen = 12, .ivGenerator = generator, .pTag = p->tag, .ulTagBits = 128};
}

static struct kms_object *key_of(unsigned where)
{
    return where == 0 ? session_secret(CKK_AES, 32) : fake.key[FAKE_AES];
}

static CK_RV begin(enum kms_op_kind kind, struct kms_object *key)
{
    return kms_message_init(&fake.session, kind, &gcm, key);
}

static CK_RV crypt(enum kms_op_kind kind, struct param *p, CK_BYTE *in, CK_ULONG in_len,
                   CK_BYTE *out, CK_ULONG *out_len)
{
    return kms_message_crypt(&fake.session, kind, &p->host, sizeof(p->host), mech_aad,
                             sizeof(mech_aad), in, in_len, out, out_len);
}

static void close_all(void)
{
    (void)kms_op_cancel(&fake.session, ~0UL);
}

/* ---- there and back ------------------------------------------------------------------------- */

static const struct back_row {
    const char *name;
    CK_GENERATOR_FUNCTION generator;
    CK_ULONG tag_bits;
    CK_ULONG len;
} back_rows[] = {
    {"made", CKG_GENERATE, 128, 100},           {"made at random", CKG_GENERATE_RANDOM, 128, 100},
    {"given", CKG_NO_GENERATE, 128, 100},       {"a short tag", CKG_GENERATE, 96, 100},
    {"an empty message", CKG_GENERATE, 128, 0},
};

static void check_back(const struct back_row *row, unsigned where)
{
    CK_BYTE sealed[128];
    CK_BYTE out[128];
    CK_BYTE last[12] = {0};
    struct param p;

    UNIT_CHECK(row->name, begin(KMS_OPK_MESSAGE_ENCRYPT, key_of(where)) == CKR_OK);
    UNIT_CHECK(row->name, begin(KMS_OPK_MESSAGE_DECRYPT, key_of(where)) == CKR_OK);
    for (unsigned i = 0; i < 3; i++) {
        CK_ULONG len = sizeof(sealed);

        param_set(&p, row->generator);
        p.host.ulTagBits = row->tag_bits;
        fake.requests = 0;
        UNIT_CHECK(row->name,
                   crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, row->len, sealed, &len) == CKR_OK);
        UNIT_CHECK(row->name, len == row->len && fake.requests == where);
        UNIT_CHECK(row->name, memcmp(p.tag, zeros, row->tag_bits / 8) != 0);
        UNIT_CHECK(row->name,
                   memcmp(p.tag + row->tag_bits / 8, zeros, 16 - row->tag_bits / 8) == 0);
        if (row->generator != CKG_NO_GENERATE) {
            UNIT_CHECK(row->name, memcmp(p.iv, last, 12) != 0); /* another one each time */
            memcpy(last, p.iv, 12);
        }
        len = sizeof(out);
        UNIT_CHECK(row->name,
                   crypt(KMS_OPK_MESSAGE_DECRYPT, &p, sealed, row->len, out, &len) == CKR_OK);
        UNIT_CHECK(row->name, len == row->len && memcmp(out, message, len) == 0);
        p.tag[0] ^= 1;
        len = sizeof(out);
        memset(out, 0, sizeof(out));
        UNIT_CHECK(row->name, crypt(KMS_OPK_MESSAGE_DECRYPT, &p, sealed, row->len, out, &len) ==
                                  CKR_AEAD_DECRYPT_FAILED);
        UNIT_CHECK(row->name, memcmp(out, zeros, sizeof(out)) == 0);
        if (row->len == 0) { /* a forged one is no query */
            UNIT_CHECK(row->name, crypt(KMS_OPK_MESSAGE_DECRYPT, &p, NULL, 0, NULL, &len) ==
                                      CKR_AEAD_DECRYPT_FAILED);
        }
    }
    UNIT_CHECK(row->name, kms_message_final(&fake.session, KMS_OPK_MESSAGE_ENCRYPT) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_final(&fake.session, KMS_OPK_MESSAGE_DECRYPT) == CKR_OK);
}

static void test_there_and_back(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(back_rows); i++) {
        check_back(&back_rows[i], 0);
        check_back(&back_rows[i], 1);
    }
    fake_end();
}

/* What C_Decrypt takes: the same with the tag behind. */
static void test_as_one_shot(void)
{
    fake_begin();
    for (unsigned where = 0; where < 2; where++) {
        struct kms_object *key = key_of(where);
        CK_GCM_PARAMS params = mech_gcm;
        CK_MECHANISM mechanism = MECH(CKM_AES_GCM, params);
        CK_BYTE sealed[128];
        CK_BYTE out[128];
        CK_ULONG len = 100;
        struct param p;

        param_set(&p, CKG_GENERATE);
        CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, key), CKR_OK);
        CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 100, sealed, &len), CKR_OK);
        memcpy(sealed + 100, p.tag, 16);
        params.pIv = p.iv;
        len = sizeof(out);
        CU_ASSERT_EQUAL(shot(KMS_OPK_DECRYPT, &mechanism, key, sealed, 116, out, &len), CKR_OK);
        CU_ASSERT_EQUAL(memcmp(out, message, 100), 0);
        close_all();
    }
    fake_end();
}

/* ---- parts ---------------------------------------------------------------------------------- */

static CK_RV in_parts(enum kms_op_kind kind, struct param *p, CK_BYTE *in, CK_BYTE *out,
                      size_t each)
{
    CK_RV rv = kms_message_begin(&fake.session, kind, &p->host, sizeof(p->host), mech_aad,
                                 sizeof(mech_aad));
    CK_ULONG len = 100;

    for (size_t at = 0; rv == CKR_OK && at < 100; at += each) {
        size_t part = each < 100 - at ? each : 100 - at;
        CK_FLAGS flags = at + part == 100 ? CKF_END_OF_MESSAGE : 0;

        if (flags != 0) { /* a query and a small buffer take nothing in */
            len = 0;
            CU_ASSERT_EQUAL(kms_message_next(&fake.session, kind, &p->host, sizeof(p->host),
                                             in + at, part, NULL, &len, flags),
                            CKR_OK);
            CU_ASSERT_EQUAL(len, 100);
            len = 99;
            CU_ASSERT_EQUAL(kms_message_next(&fake.session, kind, &p->host, sizeof(p->host),
                                             in + at, part, out, &len, flags),
                            CKR_BUFFER_TOO_SMALL);
        }
        len = 100;
        rv = kms_message_next(&fake.session, kind, &p->host, sizeof(p->host), in + at, part, out,
                              &len, flags);
        CU_ASSERT_EQUAL(len, flags != 0 ? 100 : 0);
    }
    return rv;
}

static void test_parts(void)
{
    static const size_t each[] = {1, 7, 50, 100};

    fake_begin();
    for (unsigned i = 0; i < 2 * UNIT_COUNT(each); i++) {
        unsigned where = i % 2;
        CK_BYTE sealed[128];
        CK_BYTE out[128];
        struct param p;

        CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, key_of(where)), CKR_OK);
        CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_DECRYPT, key_of(where)), CKR_OK);
        param_set(&p, CKG_GENERATE);
        fake.requests = 0;
        CU_ASSERT_EQUAL(in_parts(KMS_OPK_MESSAGE_ENCRYPT, &p, message, sealed, each[i / 2]),
                        CKR_OK);
        CU_ASSERT_EQUAL(fake.requests, where);
        CU_ASSERT_EQUAL(in_parts(KMS_OPK_MESSAGE_DECRYPT, &p, sealed, out, each[i / 2]), CKR_OK);
        CU_ASSERT_EQUAL(memcmp(out, message, 100), 0);
        sealed[50] ^= 1;
        CU_ASSERT_EQUAL(in_parts(KMS_OPK_MESSAGE_DECRYPT, &p, sealed, out, each[i / 2]),
                        where == 0 ? CKR_AEAD_DECRYPT_FAILED : CKR_AEAD_DECRYPT_FAILED);
        sealed[50] ^= 1; /* the process goes on */
        CU_ASSERT_EQUAL(in_parts(KMS_OPK_MESSAGE_DECRYPT, &p, sealed, out, each[i / 2]), CKR_OK);
        close_all();
    }
    fake_end();
}

/* ---- counters ------------------------------------------------------------------------------- */

/* IVs as they come, three a process, of two processes with one key: the numbers are the key's. */
static const struct count_row {
    const char *name;
    CK_GENERATOR_FUNCTION generator;
    CK_ULONG fixed;
    const char *first; /* what the host puts into pIv at first, and never again */
    const char *made[6];
} count_rows[] = {
    {"counter",
     CKG_GENERATE_COUNTER,
     32,
     "abcd\x55\x55\x55\x55\x55\x55\x55\x55",
     {"abcd\0\0\0\0\0\0\0\0", "abcd\0\0\0\0\0\0\0\1", "abcd\0\0\0\0\0\0\0\2",
      "abcd\0\0\0\0\0\0\0\3", "abcd\0\0\0\0\0\0\0\4", "abcd\0\0\0\0\0\0\0\5"}},
    {"four bits more",
     CKG_GENERATE_COUNTER,
     36,
     "abcd\x55\x55\x55\x55\x55\x55\x55\x55",
     {"abcd\x50\0\0\0\0\0\0\0", "abcd\x50\0\0\0\0\0\0\1", "abcd\x50\0\0\0\0\0\0\2",
      "abcd\x50\0\0\0\0\0\0\3", "abcd\x50\0\0\0\0\0\0\4", "abcd\x50\0\0\0\0\0\0\5"}},
    {"XOR, as TLS 1.3 has it",
     CKG_GENERATE_COUNTER_XOR,
     32,
     "abcd\0\0\0\0\0\0\0\x05",
     {"abcd\0\0\0\0\0\0\0\x05", "abcd\0\0\0\0\0\0\0\x04", "abcd\0\0\0\0\0\0\0\x07",
      "abcd\0\0\0\0\0\0\0\x06", "abcd\0\0\0\0\0\0\0\x01", "abcd\0\0\0\0\0\0\0\x00"}},
};

static void seal_next(const struct count_row *row, struct param *p, unsigned i)
{
    CK_BYTE sealed[100];
    CK_BYTE out[100];
    CK_ULONG len = sizeof(sealed);

    UNIT_CHECK(row->name, crypt(KMS_OPK_MESSAGE_ENCRYPT, p, message, 100, NULL, &len) == CKR_OK);
    UNIT_CHECK(row->name, crypt(KMS_OPK_MESSAGE_ENCRYPT, p, message, 100, sealed, &len) == CKR_OK);
    if (!UNIT_CHECK(row->name, memcmp(p->iv, row->made[i], 12) == 0)) {
        fprintf(stderr, "%s: IV %u ends in %02x\n", row->name, i, p->iv[11]);
    }
    len = sizeof(out);
    UNIT_CHECK(row->name, crypt(KMS_OPK_MESSAGE_DECRYPT, p, sealed, 100, out, &len) == CKR_OK &&
                              memcmp(out, message, 100) == 0);
}

static void test_counters(void)
{
    for (size_t i = 0; i < UNIT_COUNT(count_rows); i++) {
        const struct count_row *row = &count_rows[i];
        struct kms_object *key = NULL;
        struct param p;

        fake_begin(); /* a fresh key, which has counted nothing */
        key = key_of(0);
        for (unsigned made = 0; made < 6; made++) {
            if (made % 3 == 0) {
                close_all();
                param_set(&p, row->generator);
                p.host.ulIvFixedBits = row->fixed;
                memcpy(p.iv, row->first, 12);
                UNIT_CHECK(row->name, begin(KMS_OPK_MESSAGE_ENCRYPT, key) == CKR_OK);
                UNIT_CHECK(row->name, begin(KMS_OPK_MESSAGE_DECRYPT, key) == CKR_OK);
            }
            seal_next(row, &p, made);
        }
        close_all();
        fake_end();
    }
}

/* Used up is used up: no IV is made twice. */
static void test_counter_ends(void)
{
    CK_BYTE out[1];
    CK_ULONG len = 1;
    struct param p;
    CK_RV rv = CKR_OK;
    unsigned made = 0;

    fake_begin();
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, key_of(0)), CKR_OK);
    param_set(&p, CKG_GENERATE_COUNTER);
    p.host.ulIvFixedBits = 80;
    while (rv == CKR_OK && made <= 65536) {
        len = 1;
        rv = crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 1, out, &len);
        made += rv == CKR_OK;
    }
    CU_ASSERT_EQUAL(made, 65536);
    CU_ASSERT_EQUAL(rv, 0x201); /* CKR_TOKEN_RESOURCE_EXCEEDED */
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 1, out, &len), 0x201);
    p.host.ulIvFixedBits = 64; /* there are longer ones yet */
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 1, out, &len), CKR_OK);
    CU_ASSERT(p.iv[9] == 1 && p.iv[10] == 0 && p.iv[11] == 0);
    close_all();
    fake_end();
}

/* ---- what is refused ------------------------------------------------------------------------ */

static const struct bad_row {
    const char *name;
    CK_GENERATOR_FUNCTION generator;
    CK_ULONG iv_len, fixed, tag_bits, param_len;
    bool no_tag, no_iv;
    CK_RV here, there;
} bad_rows[] = {
    {"counter", CKG_GENERATE_COUNTER, 12, 0, 128, 0, false, false, CKR_OK,
     CKR_MECHANISM_PARAM_INVALID},
    {"counter xor", CKG_GENERATE_COUNTER_XOR, 12, 32, 128, 0, false, false, CKR_OK,
     CKR_MECHANISM_PARAM_INVALID},
    {"no room to count", CKG_GENERATE_COUNTER, 12, 81, 128, 0, false, false,
     CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
    {"all bits fixed", CKG_GENERATE_COUNTER, 12, 97, 128, 0, false, false,
     CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
    {"fixed bits of a long IV", CKG_GENERATE, 16, 32, 128, 0, false, false, CKR_OK,
     CKR_MECHANISM_PARAM_INVALID},
    {"no generator", 99, 12, 0, 128, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"fixed bits", CKG_GENERATE, 12, 32, 128, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"short IV", CKG_GENERATE, 8, 0, 128, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"long IV", CKG_GENERATE, 16, 0, 128, 0, false, false, CKR_OK, CKR_MECHANISM_PARAM_INVALID},
    {"long IV, given", CKG_NO_GENERATE, 16, 0, 128, 0, false, false, CKR_OK, CKR_OK},
    {"tag of 40 bits", CKG_GENERATE, 12, 0, 40, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"tag of 127 bits", CKG_GENERATE, 12, 0, 127, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"tag of 136 bits", CKG_GENERATE, 12, 0, 136, 0, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"no tag", CKG_GENERATE, 12, 0, 128, 0, true, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"no IV", CKG_GENERATE, 12, 0, 128, 0, false, true, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
    {"another struct", CKG_GENERATE, 12, 0, 128, 8, false, false, CKR_MECHANISM_PARAM_INVALID,
     CKR_MECHANISM_PARAM_INVALID},
};

static void test_refused(void)
{
    fake_begin();
    for (size_t i = 0; i < 2 * UNIT_COUNT(bad_rows); i++) {
        const struct bad_row *row = &bad_rows[i / 2];
        CK_RV wanted = i % 2 == 0 ? row->here : row->there;
        CK_BYTE out[100];
        CK_ULONG len = sizeof(out);
        struct param p;

        param_set(&p, row->generator);
        p.host.ulIvLen = row->iv_len;
        p.host.ulIvFixedBits = row->fixed;
        p.host.ulTagBits = row->tag_bits;
        p.host.pTag = row->no_tag ? NULL : p.host.pTag;
        p.host.pIv = row->no_iv ? NULL : p.host.pIv;
        fake.requests = 0;
        UNIT_CHECK(row->name, begin(KMS_OPK_MESSAGE_ENCRYPT, key_of(i % 2)) == CKR_OK);
        UNIT_CHECK(row->name, kms_message_crypt(&fake.session, KMS_OPK_MESSAGE_ENCRYPT, &p.host,
                                                sizeof(p.host) - row->param_len, NULL, 0, message,
                                                100, out, &len) == wanted);
        UNIT_CHECK(row->name, fake.requests == (wanted == CKR_OK && i % 2 == 1));
        close_all();
    }
    fake_end();
}

static void test_service_iv(void)
{
    CK_BYTE out[100];
    CK_ULONG len = sizeof(out);
    struct param p;

    fake_begin();
    fake.own_iv_only = true;
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_AES]), CKR_OK);
    param_set(&p, CKG_NO_GENERATE);
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 100, out, &len),
                    CKR_MECHANISM_PARAM_INVALID);
    param_set(&p, CKG_GENERATE);
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 100, out, &len), CKR_OK);
    close_all();
    fake_end();
}

/* A service's tag has one length, which another one, without AAD, is refused for. */
static void test_service_tag(void)
{
    CK_BYTE out[100];
    CK_ULONG len = sizeof(out);
    struct param p;

    fake_begin();
    fake.fail = KMS_E_UNSUPPORTED;
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_AES]), CKR_OK);
    param_set(&p, CKG_GENERATE);
    p.host.ulTagBits = 96;
    CU_ASSERT_EQUAL(kms_message_crypt(&fake.session, KMS_OPK_MESSAGE_ENCRYPT, &p.host,
                                      sizeof(p.host), NULL, 0, message, 100, out, &len),
                    CKR_MECHANISM_PARAM_INVALID);
    CU_ASSERT_EQUAL(fake.encrypts, 1);
    close_all();
    fake_end();
}

/* ---- states --------------------------------------------------------------------------------- */

static void test_states(void)
{
    struct kms_session *s = &fake.session;
    CK_BYTE out[100];
    CK_ULONG len = sizeof(out);
    struct param p;

    fake_begin();
    param_set(&p, CKG_GENERATE);
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 100, out, &len),
                    CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(kms_message_final(s, KMS_OPK_MESSAGE_ENCRYPT), CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(kms_message_init(s, KMS_OPK_MESSAGE_ENCRYPT, NULL, NULL),
                    CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_AES]), CKR_OK);
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_AES]), CKR_OPERATION_ACTIVE);
    CU_ASSERT_EQUAL(kms_message_next(s, KMS_OPK_MESSAGE_ENCRYPT, &p.host, sizeof(p.host), message,
                                     1, out, &len, 0),
                    CKR_OPERATION_NOT_INITIALIZED);
    CU_ASSERT_EQUAL(kms_message_begin(s, KMS_OPK_MESSAGE_ENCRYPT, &p.host, sizeof(p.host), NULL, 0),
                    CKR_OK);
    CU_ASSERT_EQUAL(crypt(KMS_OPK_MESSAGE_ENCRYPT, &p, message, 100, out, &len),
                    CKR_OPERATION_ACTIVE);
    CU_ASSERT_EQUAL(kms_message_begin(s, KMS_OPK_MESSAGE_ENCRYPT, &p.host, sizeof(p.host), NULL, 0),
                    CKR_OPERATION_ACTIVE);
    CU_ASSERT_EQUAL(kms_message_init(s, KMS_OPK_MESSAGE_ENCRYPT, NULL, NULL), CKR_OK);
    CU_ASSERT_PTR_NULL(s->op[KMS_OPK_MESSAGE_ENCRYPT]);
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_AES_CBC_PAD_ONLY]),
                    CKR_KEY_FUNCTION_NOT_PERMITTED);
    CU_ASSERT_EQUAL(begin(KMS_OPK_MESSAGE_ENCRYPT, fake.key[FAKE_MAC]), CKR_KEY_TYPE_INCONSISTENT);
    CU_ASSERT_EQUAL(fake.requests, 0);
    fake_end();
}

/* ---- signatures ----------------------------------------------------------------------------- */

static const struct sign_row {
    const char *name;
    enum fake_key key;
    CK_MECHANISM mechanism;
} sign_rows[] = {
    {"sha256-rsa", FAKE_RSA, MECH_NONE(CKM_SHA256_RSA_PKCS)},
    {"sha256-pss", FAKE_RSA, MECH(CKM_SHA256_RSA_PKCS_PSS, mech_pss)},
    {"ecdsa-sha256", FAKE_EC, MECH_NONE(CKM_ECDSA_SHA256)},
    {"eddsa", FAKE_ED, MECH_NONE(CKM_EDDSA)},
    {"hmac", FAKE_MAC, MECH_NONE(CKM_SHA256_HMAC)},
};

static void check_sign(const struct sign_row *row)
{
    struct kms_session *s = &fake.session;
    CK_MECHANISM mechanism = row->mechanism;
    struct kms_object *checker =
        row->key == FAKE_MAC ? fake.key[FAKE_MAC] : fake.public_key[row->key];
    CK_BYTE made[512];
    CK_ULONG len = 0;

    UNIT_CHECK(row->name,
               kms_message_init(s, KMS_OPK_MESSAGE_SIGN, &mechanism, fake.key[row->key]) == CKR_OK);
    UNIT_CHECK(row->name,
               kms_message_init(s, KMS_OPK_MESSAGE_VERIFY, &mechanism, checker) == CKR_OK);
    for (unsigned i = 0; i < 2; i++) {
        fake.signs = fake.macs = 0;
        UNIT_CHECK(row->name, kms_message_sign(s, NULL, 0, message, 100, NULL, &len) == CKR_OK);
        len--;
        UNIT_CHECK(row->name,
                   kms_message_sign(s, NULL, 0, message, 100, made, &len) == CKR_BUFFER_TOO_SMALL);
        UNIT_CHECK(row->name, kms_message_sign(s, NULL, 0, message, 100, made, &len) == CKR_OK);
        UNIT_CHECK(row->name, fake.signs + fake.macs == 1);
        UNIT_CHECK(row->name, kms_message_verify(s, NULL, 0, message, 100, made, len) == CKR_OK);
        UNIT_CHECK(row->name,
                   kms_message_verify(s, NULL, 0, message, 99, made, len) == CKR_SIGNATURE_INVALID);
        UNIT_CHECK(row->name, kms_message_verify(s, NULL, 0, message, SIZE_MAX / 2, made, len) ==
                                  CKR_DATA_LEN_RANGE);
    }
    /* in parts */
    fake.signs = fake.macs = 0;
    UNIT_CHECK(row->name, kms_message_begin(s, KMS_OPK_MESSAGE_SIGN, NULL, 0, NULL, 0) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_SIGN, NULL, 0, message, 33, NULL,
                                           NULL, 0) == CKR_OK);
    len = 1;
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_SIGN, NULL, 0, message + 33, 67, made,
                                           &len, 0) == CKR_BUFFER_TOO_SMALL);
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_SIGN, NULL, 0, message + 33, 67, made,
                                           &len, 0) == CKR_OK);
    UNIT_CHECK(row->name, fake.signs + fake.macs == 1);
    UNIT_CHECK(row->name, kms_message_begin(s, KMS_OPK_MESSAGE_VERIFY, NULL, 0, NULL, 0) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_VERIFY, NULL, 0, message, 50, NULL,
                                           NULL, 0) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_VERIFY, NULL, 0, message + 50, 50,
                                           made, &len, 0) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_next(s, KMS_OPK_MESSAGE_VERIFY, NULL, 0, message, 50, made,
                                           &len, 0) == CKR_OPERATION_NOT_INITIALIZED);
    UNIT_CHECK(row->name, kms_message_final(s, KMS_OPK_MESSAGE_SIGN) == CKR_OK);
    UNIT_CHECK(row->name, kms_message_final(s, KMS_OPK_MESSAGE_VERIFY) == CKR_OK);
}

static void test_signatures(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(sign_rows); i++) {
        check_sign(&sign_rows[i]);
    }
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"there and back", test_there_and_back},
        {"what C_Decrypt takes", test_as_one_shot},
        {"parts", test_parts},
        {"counters", test_counters},
        {"counters end", test_counter_ends},
        {"what is refused", test_refused},
        {"a service with IVs of its own", test_service_iv},
        {"a service with tags of its own", test_service_tag},
        {"states", test_states},
        {"signatures", test_signatures},
    };

    for (size_t i = 0; i < sizeof(message); i++) {
        message[i] = (CK_BYTE)(i * 31 + 1);
    }
    return unit_main("test_message", tests, UNIT_COUNT(tests));
}
