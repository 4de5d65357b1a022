/* SPDX-License-Identifier: Apache-2.0 */
/* AES by every mode, as data and as keys, each way against OpenSSL with the same key. */
#include <openssl/evp.h>
#include <string.h>

#include "tests/contract/contract.h"

#define ALL_USES (KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP)

static const struct row {
    const char *name;
    enum kms_alg alg;
    const char *openssl; /* with the key's bits for %u */
    bool padded;         /* by OpenSSL */
    size_t unit;         /* lengths it takes */
    size_t min;
    size_t iv_len;
    unsigned tag_len;
    bool checks; /* altered data does not open */
} rows[] = {
    {"gcm", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 12, 16, true},
    {"gcm-tag-12", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 12, 12, true},
    {"gcm-tag-13", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 12, 13, true},
    {"gcm-iv-1", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 1, 16, true},
    {"gcm-iv-16", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 16, 16, true},
    {"gcm-iv-32", KMS_ALG_AES_GCM, "AES-%u-GCM", false, 1, 0, 32, 15, true},
    {"cbc", KMS_ALG_AES_CBC, "AES-%u-CBC", false, 16, 16, 16, 0, false},
    {"cbc-pad", KMS_ALG_AES_CBC_PAD, "AES-%u-CBC", true, 1, 0, 16, 0, false},
    {"ctr", KMS_ALG_AES_CTR, "AES-%u-CTR", false, 1, 0, 16, 0, false},
    {"kw", KMS_ALG_AES_KEY_WRAP, "AES-%u-WRAP", false, 8, 16, 0, 0, true},
    {"kwp", KMS_ALG_AES_KEY_WRAP_PAD, "AES-%u-WRAP-PAD", false, 1, 1, 0, 0, true},
};

static const uint8_t key[32] = "thirty-two bytes of an AES key.";
static const uint8_t iv[KMS_IV_MAX] = "an initialisation vector's bytes";
static uint8_t text[4096], opened[8192], local[8192];
static struct fx_sealed sealed;

static struct kms_span aad_of(const struct row *row)
{
    return row->alg == KMS_ALG_AES_GCM ? kms_span_str("aad") : KMS_SPAN_NONE;
}

static struct kms_params params_of(const struct row *row)
{
    return (struct kms_params){.alg = row->alg,
                               .aad = aad_of(row),
                               .iv = kms_span_of(iv, row->iv_len),
                               .tag_len = row->tag_len};
}

/* ---- OpenSSL ------------------------------------------------------------------------------ */

/* Lengths that OpenSSL's wrap-pad writes beyond are why @ret has slack. 0: it did not work. */
static size_t by_openssl(const struct row *row, unsigned bits, bool seal, struct kms_span with_iv,
                         struct kms_span in, uint8_t *ret)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_CIPHER *cipher = NULL;
    struct kms_span aad = aad_of(row);
    size_t tag = row->alg == KMS_ALG_AES_GCM ? row->tag_len : 0;
    size_t body = seal ? in.len : in.len - tag;
    char name[32];
    int a = 0;
    int b = 0;
    bool good = false;

    (void)snprintf(name, sizeof(name), "AES-%u%s", bits, row->openssl + strlen("AES-%u"));
    cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    good = cipher != NULL && EVP_CipherInit_ex(ctx, cipher, NULL, NULL, NULL, seal) == 1;
    if (tag > 0) {
        good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, (int)with_iv.len, NULL);
    }
    good = good && EVP_CipherInit_ex(ctx, NULL, NULL, key, with_iv.len == 0 ? NULL : with_iv.data,
                                     seal) == 1;
    (void)EVP_CIPHER_CTX_set_padding(ctx, row->padded);
    if (tag > 0 && !seal) {
        good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, (int)tag,
                                           (void *)(uintptr_t)(in.data + body)) == 1;
    }
    if (aad.len > 0) {
        good = good && EVP_CipherUpdate(ctx, NULL, &a, aad.data, (int)aad.len) == 1;
    }
    a = 0;
    good = good && (body == 0 || EVP_CipherUpdate(ctx, ret, &a, in.data, (int)body) == 1);
    good = good && EVP_CipherFinal_ex(ctx, ret + a, &b) == 1;
    if (tag > 0 && seal) {
        good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, (int)tag, ret + a + b) == 1;
        b += (int)tag;
    }
    EVP_CIPHER_free(cipher);
    EVP_CIPHER_CTX_free(ctx);
    return good ? (size_t)(a + b) : 0;
}

/* ---- fixture ------------------------------------------------------------------------------ */

static bool import(struct kms_waist *waist, unsigned bits, unsigned uses,
                   struct kms_key_info *ret_info)
{
    static uint8_t tag[2];
    char label[64];
    struct kms_call call = fx_call();
    uint8_t random[1];
    struct kms_buf out = KMS_BUF_OVER(random);

    (void)snprintf(label, sizeof(label), "%s", fx_label());
    tag[1]++;
    FX_CHECK(&call, kms_waist_random(waist, &call, &out) == KMS_OK); /* connects */
    if (!fx_raw_import_aes(fx_token, label, kms_span_of(tag, 2), kms_span_of(key, bits / 8),
                           uses)) {
        fx_skip("import", "the token imports no AES key for these uses");
        return false;
    }
    return fx_find(waist, label, ret_info);
}

/* What the token lacks: told by the algorithm, and "-data" when it is there for keys only. */
static bool lacks(struct kms_waist *waist, const struct row *row, bool wrap,
                  const struct kms_key_info *info)
{
    struct kms_params params = params_of(row);
    char what[64];

    if (fx_put(waist, info->ref, wrap, &params, kms_span_of(text, 32), &sealed) !=
        KMS_E_UNSUPPORTED) {
        return false;
    }
    (void)snprintf(what, sizeof(what), "%s%s", kms_alg_name(row->alg), wrap ? "" : "-data");
    fx_skip(what, "%s", row->name);
    return true;
}

/* ---- against OpenSSL ---------------------------------------------------------------------- */

static void both_ways(struct kms_waist *waist, const struct row *row, bool wrap,
                      const struct kms_key_info *info, unsigned bits, size_t len)
{
    struct kms_params params = params_of(row);
    struct kms_span in = kms_span_of(text, len);
    struct kms_buf out = KMS_BUF_OVER(opened);
    enum kms_status status = fx_put(waist, info->ref, wrap, &params, in, &sealed);
    size_t got = 0;

    if (len < row->min || len % row->unit != 0 || (wrap && len == 0)) {
        UNIT_CHECK(row->name, status == KMS_E_INVALID);
        return;
    }
    if (row->alg == KMS_ALG_AES_KEY_WRAP_PAD && len % 8 != 0 && status == KMS_E_UNSUPPORTED) {
        fx_skip("aes-key-wrap-pad-odd", "%zu bytes", len);
        return;
    }
    if (!UNIT_CHECK(row->name, status == KMS_OK)) {
        fprintf(stderr, "cipher: %s, %zu bytes, wrap %d: %s\n", row->name, len, wrap,
                kms_status_name(status));
        return;
    }
    UNIT_CHECK(row->name, sealed.sealed.alg == row->alg);
    UNIT_CHECK(row->name, strcmp(sealed.sealed.key_id, info->id) == 0);
    UNIT_CHECK(row->name, kms_span_equal(kms_buf_span(&sealed.sealed.iv), params.iv));
    got = by_openssl(row, bits, true, params.iv, in, local);
    UNIT_CHECK(row->name,
               kms_span_equal(kms_buf_span(&sealed.sealed.ciphertext), kms_span_of(local, got)));
    status = fx_take(waist, info->ref, wrap, &params, kms_span_of(local, got), &out);
    UNIT_CHECK(row->name, status == KMS_OK);
    UNIT_CHECK(row->name, kms_span_equal(kms_buf_span(&out), in));
}

static void modes_are_openssls(void)
{
    static const size_t lengths[] = {0, 1, 9, 16, 24, 33, 4096}; /* NSS takes 10 ms for each */
    static const unsigned sizes[] = {256, 128};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i * 11 + i / 256);
    }
    for (size_t s = 0; s < UNIT_COUNT(sizes); s++) {
        struct kms_key_info info;
        unsigned long before = 0;

        if (!import(waist, sizes[s], ALL_USES, &info)) {
            break;
        }
        before = fx_raw_count_all(fx_token);
        for (size_t r = 0; r < 2 * UNIT_COUNT(rows); r++) {
            const struct row *row = &rows[r / 2];
            bool wrap = r % 2 == 1;

            if (lacks(waist, row, wrap, &info)) {
                UNIT_CHECK(row->name, !wrap || !kms_alg_set_has(&info.algs, row->alg));
                continue;
            }
            UNIT_CHECK(row->name, kms_alg_set_has(&info.algs, row->alg));
            for (size_t l = s == 0 ? 0 : 3; l < UNIT_COUNT(lengths); l++) {
                both_ways(waist, row, wrap, &info, sizes[s], lengths[l]);
            }
        }
        CU_ASSERT_EQUAL(fx_raw_count_all(fx_token), before); /* no wrapped key is left behind */
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

/* Without an IV the token's random bytes make one, another each time. */
static void fresh_ivs_are_made(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;

    if (!import(waist, 256, ALL_USES, &info)) {
        fx_close(waist);
        return;
    }
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_params params = params_of(&rows[i]);
        uint8_t first[KMS_IV_MAX];
        size_t want = rows[i].alg == KMS_ALG_AES_GCM ? 12 : rows[i].iv_len;

        params.iv = KMS_SPAN_NONE;
        if (rows[i].iv_len == 0 || lacks(waist, &rows[i], false, &info)) {
            continue;
        }
        for (unsigned round = 0; round < 2; round++) {
            struct kms_buf out = KMS_BUF_OVER(opened);

            CU_ASSERT_EQUAL(fx_put(waist, info.ref, false, &params, kms_span_of(text, 32), &sealed),
                            KMS_OK);
            UNIT_CHECK(rows[i].name, sealed.sealed.iv.len == want);
            UNIT_CHECK(rows[i].name, round == 0 || memcmp(first, sealed.iv, want) != 0);
            memcpy(first, sealed.iv, sizeof(first));
            params.iv = kms_buf_span(&sealed.sealed.iv);
            UNIT_CHECK(rows[i].name,
                       fx_take(waist, info.ref, false, &params,
                               kms_buf_span(&sealed.sealed.ciphertext), &out) == KMS_OK);
            UNIT_CHECK(rows[i].name, kms_span_equal(kms_buf_span(&out), kms_span_of(text, 32)));
            params.iv = KMS_SPAN_NONE;
        }
    }
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

/* ---- what must be refused ----------------------------------------------------------------- */

static void refuse_bad_data(struct kms_waist *waist, const struct row *row, bool wrap,
                            const struct kms_key_info *info)
{
    struct kms_params params = params_of(row);
    size_t len = by_openssl(row, 256, true, params.iv, kms_span_of(text, 32), local);
    struct kms_buf out = KMS_BUF_OVER(opened);

    for (size_t i = 0; row->checks && i < len; i += 7) {
        local[i] ^= 0x20;
        UNIT_CHECK(row->name, fx_take(waist, info->ref, wrap, &params, kms_span_of(local, len),
                                      &out) == KMS_E_BAD_DATA);
        local[i] ^= 0x20;
    }
    if (row->checks || row->min > 1 || row->padded) {
        static const size_t cuts[] = {1, 7, 9, 15};

        for (size_t i = 0; i < UNIT_COUNT(cuts); i++) {
            UNIT_CHECK(row->name,
                       fx_take(waist, info->ref, wrap, &params, kms_span_of(local, len - cuts[i]),
                               &out) == KMS_E_BAD_DATA);
        }
        UNIT_CHECK(row->name,
                   fx_take(waist, info->ref, wrap, &params, KMS_SPAN_NONE, &out) == KMS_E_BAD_DATA);
    }
    if (row->padded && !fx_lacks("bad-padding")) { /* decrypts to 0x.. that no padding ends with */
        struct row bare = *row;

        bare.padded = false;
        len = by_openssl(&bare, 256, true, params.iv, kms_span_of(text + 32, 32), local);
        UNIT_CHECK(row->name, fx_take(waist, info->ref, wrap, &params, kms_span_of(local, len),
                                      &out) == KMS_E_BAD_DATA);
    }
    if (row->iv_len == 16 && row->alg != KMS_ALG_AES_GCM) {
        params.iv.len = 15;
        UNIT_CHECK(row->name, fx_take(waist, info->ref, wrap, &params, kms_span_of(local, len),
                                      &out) == KMS_E_BAD_DATA);
        UNIT_CHECK(row->name, fx_put(waist, info->ref, wrap, &params, kms_span_of(text, 32),
                                     &sealed) == KMS_E_INVALID);
    }
    UNIT_CHECK(row->name, out.len == 0);
}

static void bad_data_is_refused(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;
    struct kms_health health;

    if (!import(waist, 256, ALL_USES, &info)) {
        fx_close(waist);
        return;
    }
    for (size_t r = 0; r < 2 * UNIT_COUNT(rows); r++) {
        if (!lacks(waist, &rows[r / 2], r % 2 == 1, &info)) {
            refuse_bad_data(waist, &rows[r / 2], r % 2 == 1, &info);
        }
    }
    kms_waist_health(waist, &health);
    CU_ASSERT(health.ready && health.reconnects == 0);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

static void bad_parameters_are_refused(void)
{
    static const struct {
        const char *name;
        struct kms_params params;
        size_t len;
        enum kms_status status;
    } bad[] = {
        {"tag 11", {.alg = KMS_ALG_AES_GCM, .tag_len = 11}, 32, KMS_E_INVALID},
        {"tag 17", {.alg = KMS_ALG_AES_GCM, .tag_len = 17}, 32, KMS_E_INVALID},
        {"iv 33", {.alg = KMS_ALG_AES_GCM, .iv = {text, 33}}, 32, KMS_E_INVALID},
        {"ctr bits", {.alg = KMS_ALG_AES_CTR, .ctr_bits = 129}, 32, KMS_E_INVALID},
        {"ctr short", {.alg = KMS_ALG_AES_CTR, .ctr_bits = 1}, 33, KMS_E_TOO_LARGE},
        {"kw iv", {.alg = KMS_ALG_AES_KEY_WRAP, .iv = {text, 8}}, 32, KMS_E_UNSUPPORTED},
        {"best", {.alg = KMS_ALG_BEST}, 32, KMS_E_UNSUPPORTED},
        {"rsa", {.alg = KMS_ALG_RSA_OAEP_SHA1}, 32, KMS_E_UNSUPPORTED},
        {"sign", {.alg = KMS_ALG_EDDSA}, 32, KMS_E_UNSUPPORTED},
        {"none", {.alg = KMS_ALG_NONE}, 32, KMS_E_UNSUPPORTED},
        {"aad", {.alg = KMS_ALG_AES_CBC, .aad = {text, 1}}, 32, KMS_E_INVALID},
        {"empty", {.alg = KMS_ALG_AES_KEY_WRAP_PAD}, 0, KMS_E_INVALID},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;

    if (!import(waist, 256, ALL_USES, &info)) {
        fx_close(waist);
        return;
    }
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        enum kms_status status =
            fx_put(waist, info.ref, true, &bad[i].params, kms_span_of(text, bad[i].len), &sealed);

        UNIT_CHECK(
            bad[i].name,
            status == bad[i].status ||
                (status == KMS_E_UNSUPPORTED && !kms_alg_set_has(&info.algs, bad[i].params.alg)) ||
                (bad[i].params.alg == KMS_ALG_AES_CTR && status == KMS_E_UNSUPPORTED));
    }
    struct kms_params kw = {.alg = KMS_ALG_AES_KEY_WRAP};

    CU_ASSERT_EQUAL(fx_put(waist, "kb1-00", true, &kw, kms_span_of(text, 32), &sealed),
                    KMS_E_NOT_FOUND);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

/* ---- uses --------------------------------------------------------------------------------- */

static void uses_are_obeyed(void)
{
    static const struct {
        const char *name;
        unsigned uses;
        enum kms_alg alg;
        enum kms_status put[2], take[2]; /* as data, as a key */
    } cases[] = {
        {"data only",
         KMS_USE_ENCRYPT | KMS_USE_DECRYPT,
         KMS_ALG_AES_CBC,
         {KMS_OK, KMS_E_DENIED},
         {KMS_OK, KMS_E_DENIED}},
        {"encrypt only",
         KMS_USE_ENCRYPT,
         KMS_ALG_AES_CBC,
         {KMS_OK, KMS_E_DENIED},
         {KMS_E_DENIED, KMS_E_DENIED}},
        {"keys only",
         KMS_USE_WRAP | KMS_USE_UNWRAP,
         KMS_ALG_AES_KEY_WRAP,
         {KMS_E_DENIED, KMS_OK},
         {KMS_E_DENIED, KMS_OK}},
        {"decrypt only",
         KMS_USE_DECRYPT,
         KMS_ALG_AES_CBC,
         {KMS_E_DENIED, KMS_E_DENIED},
         {KMS_OK, KMS_E_DENIED}},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info whole;

    if (!import(waist, 256, ALL_USES, &whole)) {
        fx_close(waist);
        return;
    }
    fx_destroy(waist, whole.ref);
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        const struct row row = {.alg = cases[i].alg,
                                .openssl =
                                    cases[i].alg == KMS_ALG_AES_CBC ? "AES-%u-CBC" : "AES-%u-WRAP",
                                .iv_len = cases[i].alg == KMS_ALG_AES_CBC ? 16 : 0};
        struct kms_params params = params_of(&row);
        struct kms_key_info info;
        size_t len = 0;

        if (cases[i].uses == KMS_USE_DECRYPT && !kms_alg_set_has(&whole.algs, KMS_ALG_AES_CTR)) {
            fx_skip("aes-ctr", "a key that only decrypts has no identity without it");
            continue;
        }
        if (!kms_alg_set_has(&whole.algs, cases[i].alg)) {
            fx_skip(kms_alg_name(cases[i].alg), "%s", cases[i].name);
            continue;
        }
        if (!import(waist, 256, cases[i].uses, &info)) {
            continue;
        }
        UNIT_CHECK(cases[i].name, strcmp(info.id, whole.id) == 0); /* whatever it is there for */
        UNIT_CHECK(cases[i].name, (info.uses & ALL_USES) == cases[i].uses);
        len = by_openssl(&row, 256, true, params.iv, kms_span_of(text, 32), local);
        for (unsigned wrap = 0; wrap < 2; wrap++) {
            struct kms_buf out = KMS_BUF_OVER(opened);

            UNIT_CHECK(cases[i].name, fx_put(waist, info.ref, wrap, &params, kms_span_of(text, 32),
                                             &sealed) == cases[i].put[wrap]);
            UNIT_CHECK(cases[i].name,
                       fx_take(waist, info.ref, wrap, &params, kms_span_of(local, len), &out) ==
                           cases[i].take[wrap]);
        }
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

/* GCM with a key that can do one half only: it takes an IV that is given. */
static void half_a_key_does_its_half(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_params params = params_of(&rows[0]);
    struct kms_buf out = KMS_BUF_OVER(opened);
    struct kms_key_info info;
    struct kms_health health;
    size_t len = 0;

    if (!import(waist, 256, KMS_USE_ENCRYPT, &info)) {
        fx_close(waist);
        return;
    }
    if (!kms_alg_set_has(&info.algs, KMS_ALG_AES_GCM)) {
        fx_skip("aes-gcm", "half a key");
        fx_destroy(waist, info.ref);
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(info.seal, KMS_ALG_NONE);
    len = by_openssl(&rows[0], 256, true, params.iv, kms_span_of(text, 32), local);
    CU_ASSERT_EQUAL(fx_put(waist, info.ref, false, &params, kms_span_of(text, 32), &sealed),
                    KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&sealed.sealed.ciphertext), kms_span_of(local, len)));
    params.iv = KMS_SPAN_NONE;
    CU_ASSERT_EQUAL(fx_put(waist, info.ref, false, &params, kms_span_of(text, 32), &sealed),
                    KMS_E_UNSUPPORTED);
    params = params_of(&rows[0]);
    fx_destroy(waist, info.ref);
    if (import(waist, 256, KMS_USE_DECRYPT, &info)) {
        CU_ASSERT_EQUAL(fx_take(waist, info.ref, false, &params, kms_span_of(local, len), &out),
                        KMS_OK);
        CU_ASSERT(kms_span_equal(kms_buf_span(&out), kms_span_of(text, 32)));
        local[0] ^= 1; /* nothing can be tried with such a key: it is asked who it is */
        out.len = 0;
        CU_ASSERT_EQUAL(fx_take(waist, info.ref, false, &params, kms_span_of(local, len), &out),
                        KMS_E_BAD_DATA);
        kms_waist_health(waist, &health);
        CU_ASSERT_EQUAL(health.reconnects, 0);
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

const struct unit_test fx_cipher_tests[] = {
    {"modes are OpenSSL's", modes_are_openssls},
    {"fresh IVs are made", fresh_ivs_are_made},
    {"bad data is refused", bad_data_is_refused},
    {"bad parameters are refused", bad_parameters_are_refused},
    {"uses are obeyed", uses_are_obeyed},
    {"half a key does its half", half_a_key_does_its_half},
};
const size_t fx_cipher_test_count = UNIT_COUNT(fx_cipher_tests);
