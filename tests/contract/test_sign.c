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

enum input { MESSAGE, DIGEST, DIGEST_INFO };

static const struct row {
    const char *name;
    enum kms_alg alg;
    enum kms_key_type type;
    unsigned bits;
    enum input input;
    const char *digest;
    bool pss;
} rows[] = {
    {"pkcs1", KMS_ALG_RSA_PKCS1, KMS_KEY_RSA, 2048, DIGEST_INFO, "SHA256", false},
    {"pkcs1-sha256", KMS_ALG_RSA_PKCS1_SHA256, KMS_KEY_RSA, 2048, MESSAGE, "SHA256", false},
    {"pkcs1-sha384", KMS_ALG_RSA_PKCS1_SHA384, KMS_KEY_RSA, 2048, MESSAGE, "SHA384", false},
    {"pkcs1-sha512", KMS_ALG_RSA_PKCS1_SHA512, KMS_KEY_RSA, 2048, MESSAGE, "SHA512", false},
    {"pss-sha256", KMS_ALG_RSA_PSS_SHA256, KMS_KEY_RSA, 2048, DIGEST, "SHA256", true},
    {"pss-sha384", KMS_ALG_RSA_PSS_SHA384, KMS_KEY_RSA, 2048, DIGEST, "SHA384", true},
    {"pss-sha512", KMS_ALG_RSA_PSS_SHA512, KMS_KEY_RSA, 2048, DIGEST, "SHA512", true},
    {"ecdsa-256", KMS_ALG_ECDSA, KMS_KEY_EC, 256, DIGEST, "SHA256", false},
    {"ecdsa-384", KMS_ALG_ECDSA, KMS_KEY_EC, 384, DIGEST, "SHA384", false},
    {"ecdsa-521", KMS_ALG_ECDSA, KMS_KEY_EC, 521, DIGEST, "SHA512", false},
    {"ed25519", KMS_ALG_EDDSA, KMS_KEY_EDDSA, 0, MESSAGE, NULL, false},
};

static size_t make_input(const struct row *row, uint8_t *ret)
{
    size_t head = row->input == DIGEST_INFO ? sizeof(info_sha256) : 0;
    size_t len = 0;

    if (row->input == MESSAGE) {
        memcpy(ret, message, sizeof(message));
        return sizeof(message);
    }
    memcpy(ret, info_sha256, head);
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

    if (good && row->pss) {
        good = EVP_PKEY_CTX_set_rsa_padding(pkey, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey, RSA_PSS_SALTLEN_DIGEST) == 1;
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

static void sign_one(struct kms_waist *waist, const struct row *row, const char *ref)
{
    uint8_t input[128], signature[KMS_SIGNATURE_MAX];
    struct kms_buf out = KMS_BUF_OVER(signature);
    struct kms_params params = {.alg = row->alg};
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
    params.alg = KMS_ALG_ECDSA;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    params.alg = KMS_ALG_HMAC_SHA256;
    CU_ASSERT_EQUAL(kms_waist_sign(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(kms_waist_mac(waist, &call, info.ref, &params, kms_span_str("x"), &out),
                    KMS_E_UNSUPPORTED);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

static void macs_are_openssls(void)
{
    static const struct {
        enum kms_alg alg;
        const char *digest;
        size_t len;
    } macs[] = {{KMS_ALG_HMAC_SHA1, "SHA1", 20},
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
    }
    fx_destroy(waist, ref);
    fx_close(waist);
}

const struct unit_test fx_sign_tests[] = {
    {"signatures verify", signatures_verify},
    {"wrong ways are refused", wrong_ways_are_refused},
    {"MACs are OpenSSL's", macs_are_openssls},
};
const size_t fx_sign_test_count = UNIT_COUNT(fx_sign_tests);
