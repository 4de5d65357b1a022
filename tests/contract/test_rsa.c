/* SPDX-License-Identifier: Apache-2.0 */
/* RSA decryption: what OpenSSL encrypted with the public half, as data and as keys. */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "tests/contract/contract.h"

enum { BITS = 2048, SIZE = BITS / 8 };

static const struct row {
    enum kms_alg alg;
    int padding;
    const char *hash;
    size_t label_len;
    size_t max;
} rows[] = {
    {KMS_ALG_RSA_PKCS1, RSA_PKCS1_PADDING, NULL, 0, SIZE - 11},
    {KMS_ALG_RSA_RAW, RSA_NO_PADDING, NULL, 0, SIZE},
    {KMS_ALG_RSA_OAEP_SHA1, RSA_PKCS1_OAEP_PADDING, "SHA1", 0, SIZE - 42},
    {KMS_ALG_RSA_OAEP_SHA1, RSA_PKCS1_OAEP_PADDING, "SHA1", 9, SIZE - 42},
    {KMS_ALG_RSA_OAEP_L_SHA256, RSA_PKCS1_OAEP_PADDING, "SHA256", 0, SIZE - 66},
    {KMS_ALG_RSA_OAEP_L_SHA256, RSA_PKCS1_OAEP_PADDING, "SHA256", 9, SIZE - 66},
    {KMS_ALG_RSA_OAEP_L_SHA256, RSA_PKCS1_OAEP_PADDING, "SHA256", 1024, SIZE - 66},
    {KMS_ALG_RSA_OAEP_L_SHA384, RSA_PKCS1_OAEP_PADDING, "SHA384", 9, SIZE - 98},
    {KMS_ALG_RSA_OAEP_L_SHA512, RSA_PKCS1_OAEP_PADDING, "SHA512", 9, SIZE - 130},
};

static uint8_t text[SIZE + 1], aad[1024], opened[2 * SIZE], local[SIZE];
static struct fx_sealed sealed;

static EVP_PKEY *public_key(struct kms_waist *waist, const char *ref)
{
    uint8_t der[KMS_PUBLIC_KEY_MAX];
    struct kms_buf out = KMS_BUF_OVER(der);
    struct kms_call call = fx_call();
    const uint8_t *at = der;

    if (!FX_CHECK(&call, kms_waist_public_key(waist, &call, ref, &out) == KMS_OK)) {
        return NULL;
    }
    return d2i_PUBKEY(NULL, &at, (long)out.len);
}

static size_t by_openssl(const struct row *row, EVP_PKEY *key, struct kms_span in)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    size_t len = sizeof(local);
    bool good =
        EVP_PKEY_encrypt_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_padding(ctx, row->padding) == 1;

    if (row->hash != NULL) {
        good = good && EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, row->hash, NULL) == 1 &&
               EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, row->hash, NULL) == 1;
    }
    if (row->label_len > 0) {
        good = good && EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_memdup(aad, row->label_len),
                                                        (int)row->label_len) == 1;
    }
    good = good && EVP_PKEY_encrypt(ctx, local, &len, in.data, in.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    CU_ASSERT_TRUE(good);
    return good ? len : 0;
}

static struct kms_span plain_of(const struct row *row, size_t len)
{
    return row->alg == KMS_ALG_RSA_RAW ? kms_span_of(text, SIZE) : kms_span_of(text + 1, len);
}

static void open_one(struct kms_waist *waist, const struct row *row, bool wrap,
                     const struct kms_key_info *info, EVP_PKEY *key, size_t len)
{
    struct kms_params params = {.alg = row->alg, .aad = kms_span_of(aad, row->label_len)};
    struct kms_span in = plain_of(row, len);
    struct kms_buf out = KMS_BUF_OVER(opened);
    size_t got = by_openssl(row, key, in);
    enum kms_status status =
        fx_take(waist, info->ref, wrap, &params, kms_span_of(local, got), &out);

    if (!UNIT_CHECK(kms_alg_name(row->alg), status == KMS_OK)) {
        fprintf(stderr, "rsa: %s, label %zu, %zu bytes, wrap %d: %s\n", kms_alg_name(row->alg),
                row->label_len, len, wrap, kms_status_name(status));
        return;
    }
    UNIT_CHECK(kms_alg_name(row->alg), kms_span_equal(kms_buf_span(&out), in));
    status = fx_put(waist, info->ref, wrap, &params, in, &sealed);
    if (wrap && in.len == 0) {
        UNIT_CHECK(kms_alg_name(row->alg), status == KMS_E_INVALID);
        return;
    }
    UNIT_CHECK(kms_alg_name(row->alg), status == KMS_OK && sealed.sealed.iv.len == 0);
    UNIT_CHECK(kms_alg_name(row->alg), sealed.sealed.ciphertext.len == SIZE);
    out.len = 0;
    UNIT_CHECK(kms_alg_name(row->alg),
               fx_take(waist, info->ref, wrap, &params, kms_buf_span(&sealed.sealed.ciphertext),
                       &out) == KMS_OK);
    UNIT_CHECK(kms_alg_name(row->alg), kms_span_equal(kms_buf_span(&out), in));
}

/* Bad data is bad data, and of one PKCS#1 padding no more is told than of another. */
static void refuse_one(struct kms_waist *waist, const struct row *row, bool wrap,
                       const struct kms_key_info *info, EVP_PKEY *key)
{
    const struct row raw = {.alg = KMS_ALG_RSA_RAW, .padding = RSA_NO_PADDING};
    struct kms_params params = {.alg = row->alg, .aad = kms_span_of(aad, row->label_len)};
    struct kms_buf out = KMS_BUF_OVER(opened);
    const char *name = kms_alg_name(row->alg);
    size_t got = by_openssl(row, key, plain_of(row, 32));
    bool rejected = false;

    UNIT_CHECK(name, fx_take(waist, info->ref, wrap, &params, kms_span_of(local, got - 1), &out) ==
                         KMS_E_BAD_DATA);
    UNIT_CHECK(name,
               fx_put(waist, info->ref, wrap, &params, kms_span_of(text, row->max + 1), &sealed) ==
                   (row->alg == KMS_ALG_RSA_RAW ? KMS_E_INVALID : KMS_E_TOO_LARGE));
    memset(opened, 0xff, SIZE); /* above every modulus */
    UNIT_CHECK(name, fx_take(waist, info->ref, wrap, &params, kms_span_of(opened, SIZE), &out) ==
                         KMS_E_BAD_DATA);
    if (row->alg == KMS_ALG_RSA_RAW) {
        return;
    }
    for (unsigned kind = 0; kind < 3; kind++) { /* no padding; type 1; no zero behind it */
        uint8_t block[SIZE] = {0, (uint8_t)kind};
        struct kms_call call = fx_call();
        enum kms_status status = KMS_OK;

        memset(block + 2, 0x77, sizeof(block) - 2);
        got = by_openssl(&raw, key, kms_span_of(block, sizeof(block)));
        out.len = 0;
        status =
            wrap ? kms_waist_unwrap(waist, &call, info->ref, &params, kms_span_of(local, got), &out)
                 : kms_waist_decrypt(waist, &call, info->ref, &params, kms_span_of(local, got),
                                     &out);
        if (row->alg == KMS_ALG_RSA_PKCS1 && status == KMS_OK) {
            rejected = true; /* implicitly, by bytes that mean nothing, as NSS does */
            continue;
        }
        UNIT_CHECK(name, status == KMS_E_BAD_DATA && !rejected);
        UNIT_CHECK(name,
                   fx_is_service() || strcmp(call.error.code, "CKR_ENCRYPTED_DATA_INVALID") == 0);
        UNIT_CHECK(name, out.len == 0);
    }
    if (row->hash != NULL) {
        enum kms_status status = KMS_OK;

        got = by_openssl(row, key, plain_of(row, 32));
        params.aad = kms_span_str("another");
        status = fx_take(waist, info->ref, wrap, &params, kms_span_of(local, got), &out);
        UNIT_CHECK(name, status == KMS_E_BAD_DATA || /* it does no labels at all */
                             (status == KMS_E_UNSUPPORTED && row->label_len == 0));
    }
}

static void with_uses(unsigned uses, bool data, bool keys)
{
    static const size_t lengths[] = {0, 1, 126};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_template tmpl = {
        .type = KMS_KEY_RSA, .bits = BITS, .label = fx_label(), .uses = uses};
    struct kms_call call = fx_call();
    struct kms_key_info info;
    struct kms_health health;
    EVP_PKEY *key = NULL;

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)i;
    }
    memset(aad, 'a', sizeof(aad));
    if (!FX_CHECK(&call, kms_waist_generate(waist, &call, &tmpl, &info) == KMS_OK)) {
        fx_close(waist);
        return;
    }
    key = public_key(waist, info.ref);
    for (size_t r = 0; r < 2 * UNIT_COUNT(rows) && key != NULL; r++) {
        const struct row *row = &rows[r / 2];
        bool wrap = r % 2 == 1;
        struct kms_params params = {.alg = row->alg, .aad = kms_span_of(aad, row->label_len)};
        struct kms_buf out = KMS_BUF_OVER(opened);
        size_t got = by_openssl(row, key, plain_of(row, 32));
        enum kms_status status =
            fx_take(waist, info.ref, wrap, &params, kms_span_of(local, got), &out);

        if (wrap ? !keys : !data) {
            UNIT_CHECK(kms_alg_name(row->alg), status == KMS_E_DENIED);
            continue;
        }
        if (status == KMS_E_UNSUPPORTED) {
            char what[64];

            (void)snprintf(what, sizeof(what), "%s%s%s", kms_alg_name(row->alg),
                           row->label_len > 0 ? "-label" : "", data ? "" : "-unwrap");
            fx_skip(what, "RSA decryption");
            continue;
        }
        UNIT_CHECK(kms_alg_name(row->alg), kms_alg_set_has(&info.algs, row->alg));
        /* openCryptoki 3.8 makes one byte of none */
        for (size_t l = row->alg == KMS_ALG_RSA_PKCS1; l < UNIT_COUNT(lengths); l++) {
            open_one(waist, row, wrap, &info, key, lengths[l]);
        }
        refuse_one(waist, row, wrap, &info, key);
    }
    kms_waist_health(waist, &health);
    CU_ASSERT(health.ready && health.reconnects == 0);
    EVP_PKEY_free(key);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

static void decrypts_what_openssl_encrypts(void)
{
    with_uses(KMS_USE_ENCRYPT | KMS_USE_DECRYPT, true, false);
}

static void unwraps_by_decrypting(void)
{
    with_uses(KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP, true, true);
}

static void unwraps_where_it_may_not_decrypt(void)
{
    with_uses(KMS_USE_WRAP | KMS_USE_UNWRAP, false, true);
}

const struct unit_test fx_rsa_tests[] = {
    {"decrypts what OpenSSL encrypts", decrypts_what_openssl_encrypts},
    {"unwraps by decrypting", unwraps_by_decrypting},
    {"unwraps where it may not decrypt", unwraps_where_it_may_not_decrypt},
};
const size_t fx_rsa_test_count = UNIT_COUNT(fx_rsa_tests);
