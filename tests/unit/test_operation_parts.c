/* SPDX-License-Identifier: Apache-2.0 */
/* Parts come to the same as the whole, wherever they are cut; and signatures verify. */
#include <string.h>

#include "pkcs11/core/token.h"
#include "tests/unit/op_mechs.h"

#define LEN_MAX 66
#define LONG    150001 /* more than two requests */

static CK_BYTE message[LONG];

/* Fed in parts of @first and then @each bytes. */
static CK_RV in_parts(enum kms_op_kind kind, CK_MECHANISM *mechanism, struct kms_object *key,
                      CK_BYTE_PTR in, size_t len, size_t first, size_t each, CK_BYTE_PTR out,
                      CK_ULONG room, size_t *ret_len)
{
    bool crypts = kind == KMS_OPK_ENCRYPT || kind == KMS_OPK_DECRYPT;
    size_t made = 0;
    size_t at = 0;
    CK_RV rv = kms_op_init(&fake.session, kind, mechanism, key);

    for (size_t part = first; rv == CKR_OK && at < len; part = each) {
        CK_ULONG got = room - made;

        part = part < len - at ? part : len - at;
        rv = kms_op_update(&fake.session, kind, in + at, part, crypts ? out + made : NULL,
                           crypts ? &got : NULL);
        made += crypts ? got : 0;
        at += part;
    }
    if (rv == CKR_OK) {
        CK_ULONG got = room - made;

        rv = kms_op_final(&fake.session, kind, out + made, &got);
        made += got;
    }
    *ret_len = made;
    return rv;
}

static const struct row {
    const char *name;
    CK_MECHANISM mechanism;
    enum fake_key key;
    bool decrypts;
    size_t unit; /* of lengths */
} rows[] = {
    {"gcm", MECH(CKM_AES_GCM, mech_gcm), FAKE_AES, true, 1},
    {"cbc", MECH(CKM_AES_CBC, mech_iv), FAKE_AES, true, 16},
    {"cbc-pad", MECH(CKM_AES_CBC_PAD, mech_iv), FAKE_AES, true, 1},
    {"cbc-pad alone", MECH(CKM_AES_CBC_PAD, mech_iv), FAKE_AES_CBC_PAD_ONLY, true, 1},
    {"ctr", MECH(CKM_AES_CTR, mech_ctr), FAKE_AES, true, 1},
    {"sealed", MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), FAKE_AES, true, 1},
};

static void check_splits(const struct row *row, struct kms_object *key, size_t len)
{
    CK_MECHANISM mechanism = row->mechanism;
    bool sealed = mechanism.mechanism == CKM_KMSBRIDGE_SEALED;
    CK_BYTE whole[2048];
    CK_BYTE parts[2048];
    CK_BYTE back[2048];
    CK_ULONG whole_len = sizeof(whole);
    char name[64];
    size_t made = 0;

    (void)snprintf(name, sizeof(name), "%s, %s, %zu bytes", row->name,
                   key->soft == NULL ? "token" : "here", len);
    if (!UNIT_CHECK(name, shot(KMS_OPK_ENCRYPT, &mechanism, key, message, len, whole, &whole_len) ==
                              CKR_OK)) {
        return;
    }
    for (size_t first = 0; first <= len; first++) {
        size_t each = first % 7 == 0 ? 1 : len;

        UNIT_CHECK(name, in_parts(KMS_OPK_ENCRYPT, &mechanism, key, message, len, first, each,
                                  parts, sizeof(parts), &made) == CKR_OK);
        UNIT_CHECK(name, made == whole_len && (sealed || memcmp(parts, whole, made) == 0));
    }
    for (size_t first = 0; first <= whole_len; first++) {
        size_t each = first % 7 == 0 ? 1 : whole_len;

        UNIT_CHECK(name, in_parts(KMS_OPK_DECRYPT, &mechanism, key, whole, whole_len, first, each,
                                  back, sizeof(back), &made) == CKR_OK);
        UNIT_CHECK(name, made == len && memcmp(back, message, len) == 0);
    }
}

static void test_splits(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        bool both = rows[i].key == FAKE_AES && rows[i].mechanism.mechanism != CKM_KMSBRIDGE_SEALED;
        struct kms_object *here = session_secret(CKK_AES, 32);

        for (size_t len = 0; len <= LEN_MAX; len += rows[i].unit) {
            check_splits(&rows[i], fake.key[rows[i].key], len);
            if (both) {
                check_splits(&rows[i], here, len);
            }
        }
    }
    fake_end();
}

/* The two ways come to the same. */
static void test_here_and_there(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_MECHANISM mechanism = rows[i].mechanism;
        CK_BYTE here[128];
        CK_BYTE there[128];
        CK_ULONG here_len = sizeof(here);
        CK_ULONG there_len = sizeof(there);

        if (mechanism.mechanism == CKM_KMSBRIDGE_SEALED) {
            continue;
        }
        UNIT_CHECK(rows[i].name, shot(KMS_OPK_ENCRYPT, &mechanism, session_secret(CKK_AES, 32),
                                      message, 64, here, &here_len) == CKR_OK);
        UNIT_CHECK(rows[i].name, shot(KMS_OPK_ENCRYPT, &mechanism, fake.key[rows[i].key], message,
                                      64, there, &there_len) == CKR_OK);
        UNIT_CHECK(rows[i].name, here_len == there_len && memcmp(here, there, here_len) == 0);
    }
    fake_end();
}

/* ---- longer than a request ------------------------------------------------------------------ */

static const struct long_row {
    const char *name;
    CK_MECHANISM mechanism;
    enum fake_key key;
    size_t len;
    CK_RV rv;
    unsigned requests; /* of the one-part call */
} long_rows[] = {
    {"cbc", MECH(CKM_AES_CBC, mech_iv), FAKE_AES, 150000, CKR_OK, 3},
    {"cbc-pad", MECH(CKM_AES_CBC_PAD, mech_iv), FAKE_AES, LONG, CKR_OK, 4},
    {"ctr", MECH(CKM_AES_CTR, mech_ctr), FAKE_AES, LONG, CKR_OK, 3},
    {"ctr, just one", MECH(CKM_AES_CTR, mech_ctr), FAKE_AES, KMS_PLAINTEXT_MAX, CKR_OK, 1},
    {"gcm", MECH(CKM_AES_GCM, mech_gcm), FAKE_AES, LONG, CKR_DATA_LEN_RANGE, 0},
    {"gcm, just one", MECH(CKM_AES_GCM, mech_gcm), FAKE_AES, KMS_PLAINTEXT_MAX, CKR_OK, 1},
    {"cbc-pad alone", MECH(CKM_AES_CBC_PAD, mech_iv), FAKE_AES_CBC_PAD_ONLY, LONG, CKR_OK, 0},
    {"sealed", MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), FAKE_AES, LONG, CKR_DATA_LEN_RANGE, 0},
};

static CK_BYTE long_whole[LONG + 2048];
static CK_BYTE long_parts[LONG + 2048];
static CK_BYTE long_back[LONG + 2048];

static void check_long(const struct long_row *row)
{
    CK_MECHANISM mechanism = row->mechanism;
    struct kms_object *key = fake.key[row->key];
    CK_RV wanted = row->key == FAKE_AES_CBC_PAD_ONLY ? CKR_DATA_LEN_RANGE : row->rv;
    CK_ULONG len = sizeof(long_whole);
    CK_ULONG back = sizeof(long_back);
    size_t made = 0;

    fake.requests = 0;
    fake.longest = 0;
    UNIT_CHECK(row->name, shot(KMS_OPK_ENCRYPT, &mechanism, key, message, row->len, long_whole,
                               &len) == wanted);
    UNIT_CHECK(row->name, fake.requests == row->requests);
    UNIT_CHECK(row->name, in_parts(KMS_OPK_ENCRYPT, &mechanism, key, message, row->len, 100001,
                                   33333, long_parts, sizeof(long_parts), &made) == wanted);
    UNIT_CHECK(row->name, fake.longest <= KMS_PLAINTEXT_MAX);
    if (wanted != CKR_OK) {
        return;
    }
    UNIT_CHECK(row->name, made == len && memcmp(long_parts, long_whole, len) == 0);
    UNIT_CHECK(row->name,
               shot(KMS_OPK_DECRYPT, &mechanism, key, long_whole, len, long_back, &back) == CKR_OK);
    UNIT_CHECK(row->name, back == row->len && memcmp(long_back, message, back) == 0);
    UNIT_CHECK(row->name, in_parts(KMS_OPK_DECRYPT, &mechanism, key, long_whole, len, 77777, 65,
                                   long_back, sizeof(long_back), &made) == CKR_OK);
    UNIT_CHECK(row->name, made == row->len && memcmp(long_back, message, made) == 0);
}

static void test_long(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(long_rows); i++) {
        check_long(&long_rows[i]);
    }
    fake_end();
}

static void test_counter_comes_round(void)
{
    CK_AES_CTR_PARAMS few = {.ulCounterBits = 2, .cb = {0}};
    CK_MECHANISM mechanism = MECH(CKM_AES_CTR, few);
    CK_BYTE out[128];
    size_t made = 0;

    fake_begin();
    CU_ASSERT_EQUAL(in_parts(KMS_OPK_ENCRYPT, &mechanism, fake.key[FAKE_AES], message, 64, 5, 16,
                             out, sizeof(out), &made),
                    CKR_OK);
    CU_ASSERT_EQUAL(in_parts(KMS_OPK_ENCRYPT, &mechanism, fake.key[FAKE_AES], message, 65, 5, 16,
                             out, sizeof(out), &made),
                    CKR_DATA_LEN_RANGE);
    fake_end();
}

/* Output over input, and shifted. */
static void test_in_place(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        for (unsigned where = 0; where < 2; where++) {
            for (size_t shift = 0; shift < 20; shift += 5) {
                CK_MECHANISM mechanism = rows[i].mechanism;
                bool sealed = mechanism.mechanism == CKM_KMSBRIDGE_SEALED;
                struct kms_object *key =
                    where == 0 || sealed ? fake.key[rows[i].key] : session_secret(CKK_AES, 32);
                CK_BYTE bytes[2048];
                CK_ULONG len = sizeof(bytes) - shift;

                memcpy(bytes, message, 64);
                UNIT_CHECK(rows[i].name, shot(KMS_OPK_ENCRYPT, &mechanism, key, bytes, 64,
                                              bytes + shift, &len) == CKR_OK);
                len = len < 2048 - shift ? len : 0;
                {
                    CK_ULONG back = sizeof(bytes);

                    UNIT_CHECK(rows[i].name, shot(KMS_OPK_DECRYPT, &mechanism, key, bytes + shift,
                                                  len, bytes, &back) == CKR_OK);
                    UNIT_CHECK(rows[i].name, back == 64 && memcmp(bytes, message, 64) == 0);
                }
            }
        }
    }
    fake_end();
}

/* ---- signatures ----------------------------------------------------------------------------- */

static const struct sign_row {
    const char *name;
    enum fake_key key;
    CK_MECHANISM mechanism;
    size_t len; /* 0: any */
    bool same;  /* twice gives the same */
} sign_rows[] = {
    {"rsa", FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), 35, true},
    {"sha256-rsa", FAKE_RSA, MECH_NONE(CKM_SHA256_RSA_PKCS), 0, true},
    {"sha256-rsa whole", FAKE_RSA_WHOLE, MECH_NONE(CKM_SHA256_RSA_PKCS), 0, true},
    {"sha1-rsa", FAKE_RSA, MECH_NONE(CKM_SHA1_RSA_PKCS), 0, true},
    {"sha512-rsa", FAKE_RSA, MECH_NONE(CKM_SHA512_RSA_PKCS), 0, true},
    {"raw", FAKE_RSA, MECH_NONE(CKM_RSA_X_509), 200, true},
    {"pss", FAKE_RSA, MECH(CKM_RSA_PKCS_PSS, mech_pss), 32, false},
    {"sha256-pss", FAKE_RSA, MECH(CKM_SHA256_RSA_PKCS_PSS, mech_pss), 0, false},
    {"ecdsa", FAKE_EC, MECH_NONE(CKM_ECDSA), 32, false},
    {"ecdsa-sha256", FAKE_EC, MECH_NONE(CKM_ECDSA_SHA256), 0, false},
    {"ecdsa-sha512", FAKE_EC, MECH_NONE(CKM_ECDSA_SHA512), 0, false},
    {"eddsa", FAKE_ED, MECH_NONE(CKM_EDDSA), 0, true},
    {"hmac", FAKE_MAC, MECH_NONE(CKM_SHA256_HMAC), 0, true},
};

static void check_sign(const struct sign_row *row)
{
    CK_MECHANISM mechanism = row->mechanism;
    struct kms_object *key = fake.key[row->key];
    struct kms_object *checker = row->key == FAKE_RSA_WHOLE ? fake.public_key[FAKE_RSA]
                                 : row->key == FAKE_MAC     ? key
                                                            : fake.public_key[row->key];
    size_t len = row->len == 0 ? 1000 : row->len;
    CK_BYTE whole[512];
    CK_BYTE parts[512];
    CK_ULONG whole_len = sizeof(whole);
    size_t made = 0;

    fake.requests = 0;
    if (!UNIT_CHECK(row->name, shot(KMS_OPK_SIGN, &mechanism, key, message, len, whole,
                                    &whole_len) == CKR_OK)) {
        return;
    }
    UNIT_CHECK(row->name, fake.requests == 1);
    for (size_t first = 0; first <= len; first += 1 + len / 9) {
        fake.requests = 0;
        UNIT_CHECK(row->name, in_parts(KMS_OPK_SIGN, &mechanism, key, message, len, first, 13,
                                       parts, sizeof(parts), &made) == CKR_OK);
        UNIT_CHECK(row->name, fake.requests == 1);
        UNIT_CHECK(row->name, made == whole_len && (!row->same || memcmp(parts, whole, made) == 0));
        UNIT_CHECK(row->name,
                   check_signature(&mechanism, checker, message, len, parts, made) == CKR_OK);
        UNIT_CHECK(row->name,
                   kms_op_init(&fake.session, KMS_OPK_VERIFY, &mechanism, checker) == CKR_OK);
        UNIT_CHECK(row->name, kms_op_update(&fake.session, KMS_OPK_VERIFY, message, first, NULL,
                                            NULL) == CKR_OK);
        UNIT_CHECK(row->name, kms_op_update(&fake.session, KMS_OPK_VERIFY, message + first,
                                            len - first, NULL, NULL) == CKR_OK);
        UNIT_CHECK(row->name, kms_op_verify(&fake.session, false, NULL, 0, parts, made) == CKR_OK);
    }
    whole[7] ^= 1;
    UNIT_CHECK(row->name, check_signature(&mechanism, checker, message, len, whole, whole_len) ==
                              CKR_SIGNATURE_INVALID);
    whole[7] ^= 1;
    message[3] ^= 1;
    UNIT_CHECK(row->name, check_signature(&mechanism, checker, message, len, whole, whole_len) ==
                              CKR_SIGNATURE_INVALID);
    message[3] ^= 1;
    UNIT_CHECK(row->name, check_signature(&mechanism, checker, message, len, whole,
                                          whole_len - 1) == CKR_SIGNATURE_LEN_RANGE);
    UNIT_CHECK(row->name, check_signature(&mechanism, checker, message, SIZE_MAX / 2, whole,
                                          whole_len) == CKR_DATA_LEN_RANGE);
}

static void test_signatures(void)
{
    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(sign_rows); i++) {
        check_sign(&sign_rows[i]);
    }
    fake_end();
}

static void test_mac_verify_only(void)
{
    CK_MECHANISM hmac = MECH_NONE(CKM_SHA256_HMAC);
    CK_BYTE mac[32];
    CK_ULONG len = sizeof(mac);

    fake_begin();
    CU_ASSERT_EQUAL(shot(KMS_OPK_SIGN, &hmac, fake.key[FAKE_MAC], message, 99, mac, &len), CKR_OK);
    CU_ASSERT_EQUAL(check_signature(&hmac, fake.key[FAKE_MAC_VERIFY_ONLY], message, 99, mac, len),
                    CKR_OK);
    CU_ASSERT_EQUAL(fake.verifies, 1);
    CU_ASSERT_EQUAL(fake.macs, 1);
    mac[0] ^= 1;
    CU_ASSERT_EQUAL(check_signature(&hmac, fake.key[FAKE_MAC_VERIFY_ONLY], message, 99, mac, len),
                    CKR_SIGNATURE_INVALID);
    fake_end();
}

static const struct len_row {
    const char *name;
    enum kms_op_kind kind;
    enum fake_key key;
    CK_MECHANISM mechanism;
    CK_ULONG len;
    CK_RV rv;
} len_rows[] = {
    {"pkcs1 too long", KMS_OPK_SIGN, FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), 246, CKR_DATA_LEN_RANGE},
    {"pkcs1 just so", KMS_OPK_SIGN, FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), 245, CKR_OK},
    {"raw too long", KMS_OPK_SIGN, FAKE_RSA, MECH_NONE(CKM_RSA_X_509), 257, CKR_DATA_LEN_RANGE},
    {"pss, no digest", KMS_OPK_SIGN, FAKE_RSA, MECH(CKM_RSA_PKCS_PSS, mech_pss), 31,
     CKR_DATA_LEN_RANGE},
    {"rsa ciphertext", KMS_OPK_DECRYPT, FAKE_RSA, MECH_NONE(CKM_RSA_PKCS), 255,
     CKR_ENCRYPTED_DATA_LEN_RANGE},
    {"cbc ciphertext", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_CBC, mech_iv), 17,
     CKR_ENCRYPTED_DATA_LEN_RANGE},
    {"empty cbc-pad", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_CBC_PAD, mech_iv), 0,
     CKR_ENCRYPTED_DATA_LEN_RANGE},
    {"gcm without a tag", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_AES_GCM, mech_gcm), 15,
     CKR_ENCRYPTED_DATA_LEN_RANGE},
    {"not sealed", KMS_OPK_DECRYPT, FAKE_AES, MECH(CKM_KMSBRIDGE_SEALED, mech_sealed), 64,
     CKR_ENCRYPTED_DATA_INVALID},
};

/* Refused here, without a request. */
static void test_lengths(void)
{
    for (size_t i = 0; i < UNIT_COUNT(len_rows); i++) {
        const struct len_row *row = &len_rows[i];
        CK_MECHANISM mechanism = row->mechanism;
        CK_BYTE out[2048];
        CK_ULONG len = sizeof(out);

        fake_begin();
        UNIT_CHECK(row->name, shot(row->kind, &mechanism, fake.key[row->key], message, row->len,
                                   out, &len) == row->rv);
        UNIT_CHECK(row->name, fake.requests == (row->rv == CKR_OK));
        fake_end();
    }
}

/* ---- SEALED --------------------------------------------------------------------------------- */

static const struct sealed_row {
    const char *name;
    size_t at;
    CK_BYTE change;
    size_t cut;
    CK_RV rv;
    bool asks;
} sealed_rows[] = {
    {"as it was", 0, 0, 0, CKR_OK, true},
    {"magic", 0, 1, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"version", 4, 3, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"algorithm", 5, KMS_ALG_AES_GCM ^ KMS_ALG_AES_CBC_HMAC, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"algorithm of signing", 5, KMS_ALG_AES_GCM ^ KMS_ALG_ECDSA, 0, CKR_ENCRYPTED_DATA_INVALID,
     false},
    {"algorithm best", 5, KMS_ALG_AES_GCM ^ KMS_ALG_BEST, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"length of key id", 6, 0x80, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"length of IV", 7, 0x80, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"key id", 9, 1, 0, CKR_ENCRYPTED_DATA_INVALID, false},
    {"IV", 15, 1, 0, CKR_ENCRYPTED_DATA_INVALID, true},
    {"ciphertext", 30, 1, 0, CKR_ENCRYPTED_DATA_INVALID, true},
    {"cut", 0, 0, 1, CKR_ENCRYPTED_DATA_INVALID, true},
    {"cut to the header", 0, 0, 8 + 6 + 12 + 16 + 16 - 8, CKR_ENCRYPTED_DATA_INVALID, false},
    {"cut to nothing", 0, 0, 8 + 6 + 12 + 16 + 16, CKR_ENCRYPTED_DATA_INVALID, false},
};

static void test_sealed(void)
{
    CK_MECHANISM sealed = MECH(CKM_KMSBRIDGE_SEALED, mech_sealed);
    CK_MECHANISM other = MECH_NONE(CKM_KMSBRIDGE_SEALED);

    fake_begin();
    for (size_t i = 0; i < UNIT_COUNT(sealed_rows); i++) {
        const struct sealed_row *row = &sealed_rows[i];
        CK_BYTE made[2048];
        CK_BYTE out[2048];
        CK_ULONG made_len = sizeof(made);
        CK_ULONG len = sizeof(out);

        UNIT_CHECK(row->name, shot(KMS_OPK_ENCRYPT, &sealed, fake.key[FAKE_AES], message, 16, made,
                                   &made_len) == CKR_OK);
        made[row->at] ^= row->change;
        fake.requests = 0;
        UNIT_CHECK(row->name, shot(KMS_OPK_DECRYPT, &sealed, fake.key[FAKE_AES], made,
                                   made_len - row->cut, out, &len) == row->rv);
        UNIT_CHECK(row->name, (fake.requests == 1) == row->asks);
        made[row->at] ^= row->change;
        len = sizeof(out);
        UNIT_CHECK("another AAD", shot(KMS_OPK_DECRYPT, &other, fake.key[FAKE_AES], made, made_len,
                                       out, &len) == CKR_ENCRYPTED_DATA_INVALID);
    }
    fake_end();
}

/* A service's own blob may be base64 text: 6144 bytes, Alibaba Cloud KMS's most, come to 8280. */
static void test_text_has_room(void)
{
    struct kms_token_use use = {.sealed = true, .params = {.alg = KMS_ALG_BEST}};

    fake_begin();
    use.key = fake.key[FAKE_AES];
    CU_ASSERT(kms_token_encrypted_room(&use, 6144) >= 6144 + 1024);
    CU_ASSERT(kms_token_encrypted_room(&use, 6144) < 6144 + 1200); /* as the header promises */
    kms_alg_set_add(&fake.key[FAKE_AES]->algs, KMS_ALG_SEALED);
    for (size_t len = 0; len <= 6144; len++) {
        size_t text = (36 + 12 + len + 32 + 2) / 3 * 4; /* version, IV and tag beside it */

        CU_ASSERT(kms_token_encrypted_room(&use, len) >= text);
    }
    CU_ASSERT(kms_token_encrypted_room(&use, 6144) < 6144 + 6144 / 3 + 1200);
    fake_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"wherever it is cut", test_splits},
        {"here and by the token", test_here_and_there},
        {"longer than a request", test_long},
        {"a counter that comes round", test_counter_comes_round},
        {"output over input", test_in_place},
        {"signatures", test_signatures},
        {"a MAC key that only verifies", test_mac_verify_only},
        {"lengths", test_lengths},
        {"CKM_KMSBRIDGE_SEALED", test_sealed},
        {"base64 text has room", test_text_has_room},
    };

    for (size_t i = 0; i < sizeof(message); i++) {
        message[i] = (CK_BYTE)(i * 31 + i / 251);
    }
    return unit_main("test_operation_parts", tests, UNIT_COUNT(tests));
}
