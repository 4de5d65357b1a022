/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and MACs, verified by OpenSSL from the public key or the imported secret. */
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "tests/contract/contract.h"

static const char message[] = "what is signed";
static const uint8_t info_sha256[19] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                        0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

/* Of the leak sanitizer, where there is one. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

/* SoftHSM 2.6.1 leaks an Ed25519 key's OID in each C_SignInit: not ours to report. */
static void leaks_are_told(bool told)
{
    if (__lsan_disable != NULL && __lsan_enable != NULL) {
        (told ? __lsan_enable : __lsan_disable)();
    }
}

enum input { MESSAGE, DIGEST, DIGEST_INFO, BLOCK };
enum pss { NO_PSS, PSS, PSS_SALT }; /* a salt as long as the digest, or of 10 bytes */

#define SALT 10

static const struct row {
    const char *name;
    enum kms_alg alg;
    enum kms_key_type type;
    unsigned bits;
    enum input input;
    const char *digest;
    enum pss pss;
} rows[] = {
    {"pkcs1", KMS_ALG_RSA_PKCS1, KMS_KEY_RSA, 2048, DIGEST_INFO, "SHA256", NO_PSS},
    {"pkcs1-sha256", KMS_ALG_RSA_PKCS1_SHA256, KMS_KEY_RSA, 2048, MESSAGE, "SHA256", NO_PSS},
    {"pkcs1-sha384", KMS_ALG_RSA_PKCS1_SHA384, KMS_KEY_RSA, 2048, MESSAGE, "SHA384", NO_PSS},
    {"pkcs1-sha512", KMS_ALG_RSA_PKCS1_SHA512, KMS_KEY_RSA, 2048, MESSAGE, "SHA512", NO_PSS},
    {"pss-sha256", KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, 2048, DIGEST, "SHA256", PSS},
    {"pss-sha384", KMS_ALG_RSA_PSS_SHA384, KMS_KEY_RSA, 2048, DIGEST, "SHA384", PSS},
    {"pss-sha512", KMS_ALG_RSA_PSS_SHA512, KMS_KEY_RSA, 2048, DIGEST, "SHA512", PSS},
    {"rsa-raw", KMS_ALG_RSA_RAW, KMS_KEY_RSA, 2048, BLOCK, "SHA256", NO_PSS},
    {"pss-sha1", KMS_ALG_RSA_PSS_SHA1, KMS_KEY_RSA, 2048, DIGEST, "SHA1", PSS},
    {"pss-sha224", KMS_ALG_RSA_PSS_SHA224, KMS_KEY_RSA, 2048, DIGEST, "SHA224", PSS},
    {"pss-salt", KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, 2048, DIGEST, "SHA256", PSS_SALT},
    {"ecdsa-256", KMS_ALG_ECDSA, KMS_KEY_EC, 256, DIGEST, "SHA256", NO_PSS},
    {"ecdsa-384", KMS_ALG_ECDSA, KMS_KEY_EC, 384, DIGEST, "SHA384", NO_PSS},
    {"ecdsa-521", KMS_ALG_ECDSA, KMS_KEY_EC, 521, DIGEST, "SHA512", NO_PSS},
    {"ed25519", KMS_ALG_EDDSA, KMS_KEY_EDDSA, 0, MESSAGE, NULL, NO_PSS},
};

static size_t make_input(const struct row *row, uint8_t *ret)
{
    size_t head = row->input == DIGEST_INFO ? sizeof(info_sha256) : 0;
    size_t len = 0;

    if (row->input == MESSAGE) {
        memcpy(ret, message, sizeof(message));
        return sizeof(message);
    }
    if (row->input == BLOCK) { /* PKCS#1 v1.5 padding by hand, so that OpenSSL can verify it */
        head = 256 - 32;
        memset(ret, 0xff, head);
        ret[0] = 0;
        ret[1] = 1;
        ret[head - sizeof(info_sha256) - 1] = 0;
        memcpy(ret + head - sizeof(info_sha256), info_sha256, sizeof(info_sha256));
    } else {
        memcpy(ret, info_sha256, head);
    }
    CU_ASSERT_EQUAL(
        EVP_Q_digest(NULL, row->digest, NULL, message, sizeof(message), ret + head, &len), 1);
    return head + len;
}

/* r || s, as PKCS#11 has it, to the DER that OpenSSL wants. */
static size_t to_der(const uint8_t *raw, size_t len, uint8_t *ret_der)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    uint8_t *at = ret_der;
    int got = 0;

    (void)ECDSA_SIG_set0(sig, BN_bin2bn(raw, (int)len / 2, NULL),
                         BN_bin2bn(raw + len / 2, (int)len / 2, NULL));
    got = i2d_ECDSA_SIG(sig, &at);
    ECDSA_SIG_free(sig);
    return got > 0 ? (size_t)got : 0;
}

static bool verifies(const struct row *row, EVP_PKEY *key, const uint8_t *signature, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pkey = NULL;
    uint8_t der[256];
    bool good = EVP_DigestVerifyInit_ex(ctx, &pkey, row->digest, NULL, NULL, key, NULL) == 1;

    if (good && row->pss != NO_PSS) {
        int salt = row->pss == PSS ? RSA_PSS_SALTLEN_DIGEST : SALT;

        good = EVP_PKEY_CTX_set_rsa_padding(pkey, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey, salt) == 1;
    }
    if (row->type == KMS_KEY_EC) {
        len = to_der(signature, len, der);
        signature = der;
    }
    good = good &&
           EVP_DigestVerify(ctx, signature, len, (const uint8_t *)message, sizeof(message)) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

static EVP_PKEY *public_key(struct kms_waist *waist, const char *ref)
{
    uint8_t der[KMS_PUBLIC_KEY_MAX];
    struct kms_buf out = KMS_BUF_OVER(der);
    struct kms_call call = fx_call();
    const uint8_t *at = der;

    if (!UNIT_CHECK("public_key", kms_waist_public_key(waist, &call, ref, &out) == KMS_OK)) {
        return NULL;
    }
    return d2i_PUBKEY(NULL, &at, (long)out.len);
}

/* The waist agrees with OpenSSL on what is a signature. */
static void verify_one(struct kms_waist *waist, const struct row *row, const char *ref,
                       const struct kms_params *params, struct kms_span in, struct kms_span good)
{
    struct kms_call call = fx_call();
    uint8_t bad[KMS_SIGNATURE_MAX];
    uint8_t other[512];

    memcpy(bad, good.data, good.len);
    memcpy(other, in.data, in.len);
    FX_CHECK(&call, kms_waist_verify(waist, &call, ref, params, in, good) == KMS_OK);
    for (size_t i = 0; i < good.len; i += 13) {
        bad[i] ^= 0x10;
        UNIT_CHECK(row->name, kms_waist_verify(waist, &call, ref, params, in,
                                               kms_span_of(bad, good.len)) == KMS_E_BAD_DATA);
        bad[i] ^= 0x10;
    }
    other[in.len - 1] ^= 1;
    UNIT_CHECK(row->name, kms_waist_verify(waist, &call, ref, params, kms_span_of(other, in.len),
                                           good) == KMS_E_BAD_DATA);
    UNIT_CHECK(row->name, kms_waist_verify(waist, &call, ref, params, in,
                                           kms_span_of(good.data, good.len - 1)) == KMS_E_BAD_DATA);
    UNIT_CHECK(row->name,
               kms_waist_verify(waist, &call, ref, params, in, KMS_SPAN_NONE) == KMS_E_BAD_DATA);
    if (row->pss != NO_PSS) {
        struct kms_params salted = {.alg = params->alg, .salt_given = true, .salt_len = SALT + 1};

        UNIT_CHECK(row->name,
                   kms_waist_verify(waist, &call, ref, &salted, in, good) == KMS_E_BAD_DATA);
    }
}

static void sign_one(struct kms_waist *waist, const struct row *row, const char *ref)
{
    uint8_t input[512], signature[KMS_SIGNATURE_MAX];
    struct kms_buf out = KMS_BUF_OVER(signature);
    struct kms_params params = {
        .alg = row->alg, .salt_given = row->pss == PSS_SALT, .salt_len = SALT};
    struct kms_call call = fx_call();
    EVP_PKEY *key = public_key(waist, ref);
    size_t len = make_input(row, input);
    enum kms_status status = KMS_OK;

    if (row->type == KMS_KEY_EDDSA) {
        leaks_are_told(false);
    }
    status = kms_waist_sign(waist, &call, ref, &params, kms_span_of(input, len), &out);
    if (status == KMS_E_UNSUPPORTED) {
        fx_skip(row->name, "%s", call.error.text);
    } else if (UNIT_CHECK(row->name, status == KMS_OK && key != NULL)) {
        UNIT_CHECK(row->name, verifies(row, key, signature, out.len));
        verify_one(waist, row, ref, &params, kms_span_of(input, len), kms_buf_span(&out));
        signature[out.len - 1] ^= 1;
        UNIT_CHECK(row->name, !verifies(row, key, signature, out.len));
        out = kms_buf_over(signature, 8);
        UNIT_CHECK(row->name, kms_waist_sign(waist, &call, ref, &params, kms_span_of(input, len),
                                             &out) == KMS_E_TOO_LARGE);
    }
    if (row->type == KMS_KEY_EDDSA) {
        leaks_are_told(true);
    }
    EVP_PKEY_free(key);
}

static void signatures_verify(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info = {.bits = 0};
    bool have = false;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        bool same = i > 0 && rows[i].type == rows[i - 1].type && rows[i].bits == rows[i - 1].bits;

        if (!same) {
            if (have) {
                fx_destroy(waist, info.ref);
            }
            have = fx_make(waist, rows[i].type, rows[i].bits, &info);
        }
        if (have) {
            sign_one(waist, &rows[i], info.ref);
        }
    }
    if (have) {
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

static void wrong_ways_are_refused(void)
{
    static const uint8_t block[256] = {1, 2, 3};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;
    uint8_t signature[KMS_SIGNATURE_MAX];
    struct kms_buf out = KMS_BUF_OVER(signature);
    struct kms_params params = {.alg = KMS_ALG_RSA_PSS_SHA256};
    struct kms_call call = fx_call();

    if (!fx_make(waist, KMS_KEY_RSA, 2048, &info)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(
        kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("no digest"), &out),
        KMS_E_INVALID);
    params.alg = KMS_ALG_RSA_PKCS1;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_of(block, 245), &out),
                    KMS_OK); /* as much as fits, whatever it is */
    CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, info.ref, &params, kms_span_of(block, 245),
                                     kms_buf_span(&out)),
                    KMS_OK);
    out.len = 0;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_of(block, 246), &out),
                    KMS_E_TOO_LARGE);
    params.alg = KMS_ALG_RSA_RAW;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_of(block, 255), &out),
                    fx_lacks("rsa-raw") ? KMS_E_UNSUPPORTED : KMS_E_INVALID);
    params = (struct kms_params){
        .alg = KMS_ALG_RSA_PSS_SHA256, .salt_given = true, .salt_len = 256 - 32 - 1};
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_of(block, 32), &out),
                    KMS_E_INVALID);
    params = (struct kms_params){.alg = KMS_ALG_ECDSA};
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, info.ref, &params, kms_span_str("x"),
                                     kms_span_of(block, 64)),
                    KMS_E_UNSUPPORTED);
    params.alg = KMS_ALG_AES_GCM;
    CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, info.ref, &params, kms_span_str("x"),
                                     kms_span_of(block, 64)),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, "kb1-00", &params, kms_span_str("x"),
                                     kms_span_of(block, 64)),
                    KMS_E_UNSUPPORTED);
    params.alg = KMS_ALG_HMAC_SHA256;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(kms_waist_mac(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

static void uses_are_obeyed(void)
{
    static const struct {
        enum kms_key_type type;
        enum kms_alg alg;
        unsigned uses;
    } cases[] = {
        {KMS_KEY_RSA, KMS_ALG_RSA_PKCS1, KMS_USE_ENCRYPT | KMS_USE_DECRYPT},
        {KMS_KEY_GENERIC, KMS_ALG_HMAC_SHA256, KMS_USE_SIGN},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct kms_key_template tmpl = {
            .type = cases[i].type, .label = fx_label(), .uses = cases[i].uses};
        struct kms_params params = {.alg = cases[i].alg};
        uint8_t signature[KMS_SIGNATURE_MAX] = {0};
        struct kms_buf out = KMS_BUF_OVER(signature);
        struct kms_call call = fx_call();
        struct kms_key_info info;
        bool mac = cases[i].type == KMS_KEY_GENERIC;

        tmpl.bits = mac ? 0 : 2048;
        if (!FX_CHECK(&call, kms_waist_generate(waist, &call, &tmpl, &info) == KMS_OK)) {
            continue;
        }
        CU_ASSERT_EQUAL(info.uses, cases[i].uses);
        CU_ASSERT_EQUAL(kms_alg_set_has(&info.algs, cases[i].alg), true); /* for its other half */
        if (!mac) {
            CU_ASSERT_EQUAL(
                kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                KMS_E_DENIED);
        }
        CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, info.ref, &params, kms_span_str("x"),
                                         kms_span_of(signature, mac ? 32 : 256)),
                        KMS_E_DENIED);
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

static void macs_are_openssls(void)
{
    static const struct {
        enum kms_alg alg;
        const char *digest;
        size_t len;
    } macs[] = {{KMS_ALG_HMAC_SHA1, "SHA1", 20},
                {KMS_ALG_HMAC_SHA224, "SHA224", 28},
                {KMS_ALG_HMAC_SHA256, "SHA256", 32},
                {KMS_ALG_HMAC_SHA384, "SHA384", 48},
                {KMS_ALG_HMAC_SHA512, "SHA512", 64}};
    static const uint8_t key[64] = "sixty-four bytes of key, for every hash that there is in here.";
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    uint8_t random[8];
    struct kms_buf bytes = KMS_BUF_OVER(random);
    char ref[KMS_KEY_REF_MAX], label[64];
    uint8_t digest[EVP_MAX_MD_SIZE + 20];

    (void)snprintf(label, sizeof(label), "%s", fx_label());
    CU_ASSERT_EQUAL(kms_waist_random(waist, &call, &bytes), KMS_OK); /* connects */
    if (!fx_raw_import(fx_token, FX_RAW_HMAC, label, kms_span_str("1"), kms_span_of(key, 64))) {
        fx_skip("import", "the token imports no HMAC key");
        fx_close(waist);
        return;
    }
    /* the identity: "mac" and the HMAC of the domain */
    {
        uint8_t text[64] = "kmsbridge key id v1";
        size_t len = 0;

        memcpy(text + 20, "mac", 4);
        CU_ASSERT(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, 64, text, 19, text + 24, 32,
                            &len) != NULL);
        CU_ASSERT_EQUAL(EVP_Digest(text, 24 + len, digest, NULL, EVP_sha256(), NULL), 1);
        memcpy(ref, "kb1-", 4);
        for (size_t i = 0; i < 20; i++) {
            (void)snprintf(ref + 4 + 2 * i, 3, "%02x", digest[i]);
        }
    }
    for (size_t i = 0; i < UNIT_COUNT(macs); i++) {
        struct kms_params params = {.alg = macs[i].alg};
        uint8_t tag[64], want[64];
        struct kms_buf out = KMS_BUF_OVER(tag);
        size_t len = 0;
        enum kms_status status = KMS_OK;

        call = fx_call();
        status = kms_waist_mac(waist, &call, ref, &params, kms_span_str(message), &out);
        if (status == KMS_E_UNSUPPORTED) {
            fx_skip(macs[i].digest, "%s", call.error.text);
            continue;
        }
        FX_CHECK(&call, status == KMS_OK);
        CU_ASSERT(EVP_Q_mac(NULL, "HMAC", NULL, macs[i].digest, NULL, key, 64,
                            (const uint8_t *)message, sizeof(message) - 1, want, 64, &len) != NULL);
        UNIT_CHECK(macs[i].digest, out.len == macs[i].len && memcmp(tag, want, len) == 0);
        call = fx_call();
        FX_CHECK(&call, kms_waist_verify(waist, &call, ref, &params, kms_span_str(message),
                                         kms_span_of(want, len)) == KMS_OK);
        UNIT_CHECK(macs[i].digest,
                   kms_waist_verify(waist, &call, ref, &params, kms_span_str("another message"),
                                    kms_span_of(want, len)) == KMS_E_BAD_DATA);
        UNIT_CHECK(macs[i].digest,
                   kms_waist_verify(waist, &call, ref, &params, kms_span_str(message),
                                    kms_span_of(want, len - 1)) == KMS_E_BAD_DATA);
        want[0] ^= 1;
        UNIT_CHECK(macs[i].digest,
                   kms_waist_verify(waist, &call, ref, &params, kms_span_str(message),
                                    kms_span_of(want, len)) == KMS_E_BAD_DATA);
    }
    fx_destroy(waist, ref);
    fx_close(waist);
}

/* By a key that was made here: of the right length, the same each time, and verified by the token.
 */
static void macs_verify(void)
{
    static const struct {
        enum kms_alg alg;
        size_t len;
    } macs[] = {{KMS_ALG_HMAC_SHA1, 20},
                {KMS_ALG_HMAC_SHA224, 28},
                {KMS_ALG_HMAC_SHA256, 32},
                {KMS_ALG_HMAC_SHA384, 48},
                {KMS_ALG_HMAC_SHA512, 64}};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_span in = kms_span_str(message);
    struct kms_key_info info;

    if (!fx_make(waist, KMS_KEY_GENERIC, 512, &info)) {
        fx_close(waist);
        return;
    }
    for (size_t i = 0; i < UNIT_COUNT(macs); i++) {
        const char *name = kms_alg_name(macs[i].alg);
        struct kms_params params = {.alg = macs[i].alg};
        struct kms_call call = fx_call();
        uint8_t one[64], two[64];
        struct kms_buf first = KMS_BUF_OVER(one);
        struct kms_buf second = KMS_BUF_OVER(two);
        struct kms_buf small = kms_buf_over(two, macs[i].len - 1);
        enum kms_status status = kms_waist_mac(waist, &call, info.ref, &params, in, &first);

        if (status == KMS_E_UNSUPPORTED) {
            fx_skip(name, "%s", call.error.text);
            continue;
        }
        UNIT_CHECK(name, FX_CHECK(&call, status == KMS_OK) && first.len == macs[i].len);
        UNIT_CHECK(name,
                   kms_waist_mac(waist, &call, info.ref, &params, in, &small) == KMS_E_TOO_LARGE);
        UNIT_CHECK(name, kms_waist_mac(waist, &call, info.ref, &params, in, &second) == KMS_OK);
        UNIT_CHECK(name, kms_span_equal(kms_buf_span(&first), kms_buf_span(&second)));
        UNIT_CHECK(name, kms_waist_verify(waist, &call, info.ref, &params, in,
                                          kms_buf_span(&first)) == KMS_OK);
        one[0] ^= 1;
        UNIT_CHECK(name, kms_waist_verify(waist, &call, info.ref, &params, in,
                                          kms_buf_span(&first)) == KMS_E_BAD_DATA);
        UNIT_CHECK(name, kms_waist_verify(waist, &call, info.ref, &params, in, KMS_SPAN_NONE) ==
                             KMS_E_BAD_DATA);
    }
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

const struct unit_test fx_sign_tests[] = {
    {"MACs verify", macs_verify},
    {"signatures verify", signatures_verify},
    {"wrong ways are refused", wrong_ways_are_refused},
    {"uses are obeyed", uses_are_obeyed},
    {"MACs are OpenSSL's", macs_are_openssls},
};
const size_t fx_sign_test_count = UNIT_COUNT(fx_sign_tests);
