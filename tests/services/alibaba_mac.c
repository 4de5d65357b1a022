/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC keys: what they are, what they make, what is refused. */
#include <openssl/evp.h>
#include <string.h>

#include "tests/services/alibaba.h"

static uint8_t message[8192];

static struct kms_span span(const char *words)
{
    return kms_span_str(words);
}

static enum kms_status make(struct ali *ali, struct kms_call *call, const char *ref,
                            enum kms_alg alg, struct kms_span input, struct kms_buf *ret)
{
    const struct kms_params params = {.alg = alg};

    *call = ali_call();
    ret->len = 0;
    return kms_alibaba_ops.mac(ali->backend, call, ref, &params, input, ret);
}

static enum kms_status verify(struct ali *ali, struct kms_call *call, const char *ref,
                              enum kms_alg alg, struct kms_span input, struct kms_span mac)
{
    const struct kms_params params = {.alg = alg};

    *call = ali_call();
    return kms_alibaba_ops.verify(ali->backend, call, ref, &params, input, mac);
}

static const struct row {
    const char *spec;
    enum kms_alg alg;
    size_t len;
} rows[] = {
    {"HMAC_SHA_224", KMS_ALG_HMAC_SHA224, 28},        {"HMAC_SHA_256", KMS_ALG_HMAC_SHA256, 32},
    {"HMAC_SHA_384", KMS_ALG_HMAC_SHA384, 48},        {"HMAC_SHA_512", KMS_ALG_HMAC_SHA512, 64},
    {"Aliyun_HMAC_SHA_256", KMS_ALG_HMAC_SHA256, 32}, {"Aliyun_HMAC_256", KMS_ALG_HMAC_SHA256, 32},
};

static void macs_verify(void)
{
    struct ali ali;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct row *row = &rows[i];
        struct kms_key_info info, other;
        struct kms_call call = ali_call();
        uint8_t bytes[64];
        struct kms_buf mac = KMS_BUF_OVER(bytes);
        char alias[64], alias2[64];

        if (!ali_new_key(row->spec, "GENERATE_VERIFY_MAC", alias) ||
            !ali_new_key(row->spec, "GENERATE_VERIFY_MAC", alias2) ||
            !ali_find(&ali, alias, &info) || !ali_find(&ali, alias2, &other)) {
            CU_FAIL("no key");
            continue;
        }
        UNIT_CHECK(row->spec, info.type == KMS_KEY_GENERIC && info.version[0] == '\0' &&
                                  info.seal == KMS_ALG_NONE && info.latest && info.tag_len == 20 &&
                                  info.uses == (KMS_USE_SIGN | KMS_USE_VERIFY));
        UNIT_CHECK(row->spec, strcmp(info.id, other.id) != 0 &&
                                  strcmp(info.ref + strcspn(info.ref, "/"), "/hmac") == 0);
        for (size_t a = 0; a < UNIT_COUNT(rows); a++) { /* its own, and no other one */
            UNIT_CHECK(row->spec,
                       kms_alg_set_has(&info.algs, rows[a].alg) == (rows[a].alg == row->alg));
        }
        ALI_CHECK(&call, row->spec,
                  make(&ali, &call, info.ref, row->alg, span("message"), &mac) == KMS_OK &&
                      mac.len == row->len && ali_named(&call, "GenerateMac"));
        ALI_CHECK(&call, row->spec,
                  verify(&ali, &call, info.ref, row->alg, span("message"), kms_buf_span(&mac)) ==
                          KMS_OK &&
                      ali_named(&call, "VerifyMac"));
        UNIT_CHECK(row->spec, verify(&ali, &call, info.ref, row->alg, span("massage"),
                                     kms_buf_span(&mac)) == KMS_E_BAD_DATA &&
                                  ali_named(&call, "VerifyMac"));
        UNIT_CHECK(row->spec, verify(&ali, &call, other.ref, row->alg, span("message"),
                                     kms_buf_span(&mac)) == KMS_E_BAD_DATA);
        bytes[3] ^= 1;
        UNIT_CHECK(row->spec, verify(&ali, &call, info.ref, row->alg, span("message"),
                                     kms_buf_span(&mac)) == KMS_E_BAD_DATA);
    }
    ali_close(&ali);
}

/* What the key made by the fake's own reckoning, which is none of ours: OpenSSL's with its bytes.
 */
static void a_mac_is_the_standard_one(void)
{
    static const uint8_t text[] = "message";
    struct ali ali;
    struct kms_key_info info;
    struct kms_call call = ali_call();
    uint8_t bytes[64], again[EVP_MAX_MD_SIZE], key[64];
    struct kms_buf mac = KMS_BUF_OVER(bytes);
    char alias[64], ask[128], hex[129];
    size_t len = 0, again_len = 0;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("HMAC_SHA_256", "GENERATE_VERIFY_MAC", alias) &&
                    ali_find(&ali, alias, &info));
    (void)snprintf(ask, sizeof(ask), "{\"do\":\"material\",\"key\":\"alias/%s\"}", alias);
    CU_ASSERT_FATAL(ali_control_text(ask, "hex", hex, sizeof(hex)) &&
                    OPENSSL_hexstr2buf_ex(key, sizeof(key), &len, hex, '\0') == 1);
    CU_ASSERT(make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("message"), &mac) == KMS_OK);
    CU_ASSERT(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, len, text, 7, again, sizeof(again),
                        &again_len) != NULL);
    CU_ASSERT(kms_span_equal(kms_buf_span(&mac), kms_span_of(again, again_len)));
    ali_close(&ali);
}

static void bad_questions_are_not_asked(void)
{
    struct ali ali;
    struct kms_key_info info, aes, rotated;
    struct kms_call call = ali_call();
    uint8_t bytes[64];
    struct kms_buf mac = KMS_BUF_OVER(bytes);
    struct kms_buf small = kms_buf_over(bytes, 31);
    char alias[64], aes_alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("HMAC_SHA_256", "GENERATE_VERIFY_MAC", alias) &&
                    ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", aes_alias) &&
                    ali_find(&ali, alias, &info) && ali_find(&ali, aes_alias, &aes));
    memset(message, 0xfb, sizeof(message)); /* base64's '+' and '/', three characters of a query */
    (void)ali_calls("");
    CU_ASSERT_EQUAL(make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA1, span("x"), &mac),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(make(&ali, &call, aes.ref, KMS_ALG_HMAC_SHA256, span("x"), &mac),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, KMS_SPAN_NONE, &mac),
                    KMS_E_INVALID);
    CU_ASSERT_EQUAL(
        make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, kms_span_of(message, 6145), &mac),
        KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(
        verify(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"), kms_span_of(bytes, 31)),
        KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(kms_waist_rotate(ali.waist, &call, info.ref, &rotated), KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(ali_calls("kms GenerateMac"), 0);
    CU_ASSERT_EQUAL(make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"), &small),
                    KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(small.len, 0);
    ALI_CHECK(&call, "the largest",
              make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, kms_span_of(message, 6144), &mac) ==
                  KMS_OK);
    call = ali_call(); /* as a whole it goes as others do, and is found no more */
    CU_ASSERT_EQUAL(kms_waist_destroy(ali.waist, &call, info.ref), KMS_OK);
    CU_ASSERT_FALSE(ali_calls("kms CreateKeyVersion") != 0);
    CU_ASSERT_EQUAL(make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"), &mac),
                    KMS_E_KEY_STATE);
    ali_close(&ali);
}

static void bad_answers_are_told(void)
{
    static const struct {
        const char *name, *action, *fault, *says;
    } bad[] = {
        {"another key", "GenerateMac", "\"kind\":\"set\",\"field\":\"KeyId\",\"value\":\"x\"",
         "another key"},
        {"another algorithm", "GenerateMac",
         "\"kind\":\"set\",\"field\":\"Algorithm\",\"value\":\"HMAC_SM3\"", "another algorithm"},
        {"no algorithm", "GenerateMac", "\"kind\":\"set\",\"field\":\"Algorithm\",\"value\":null",
         "Algorithm"},
        {"short", "GenerateMac", "\"kind\":\"set\",\"field\":\"Mac\",\"value\":\"QUJD\"",
         "another length"},
        {"no MAC", "GenerateMac", "\"kind\":\"set\",\"field\":\"Mac\",\"value\":null", "Mac"},
        {"of another key", "VerifyMac", "\"kind\":\"set\",\"field\":\"KeyId\",\"value\":\"x\"",
         "another key"},
        {"by another algorithm", "VerifyMac",
         "\"kind\":\"set\",\"field\":\"Algorithm\",\"value\":\"HMAC_SM3\"", "another algorithm"},
        {"a text", "VerifyMac", "\"kind\":\"set\",\"field\":\"Value\",\"value\":\"true\"", "Value"},
        {"no verdict", "VerifyMac", "\"kind\":\"set\",\"field\":\"Value\",\"value\":null", "Value"},
    };
    struct ali ali;
    struct kms_key_info info;
    struct kms_call call = ali_call();
    uint8_t bytes[64], good[64];
    struct kms_buf mac = KMS_BUF_OVER(bytes), kept = KMS_BUF_OVER(good);
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("HMAC_SHA_256", "GENERATE_VERIFY_MAC", alias) &&
                    ali_find(&ali, alias, &info) &&
                    make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"), &kept) == KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        CU_ASSERT(ali_fault("kms", bad[i].action, bad[i].fault));
        ALI_CHECK(&call, bad[i].name,
                  (strcmp(bad[i].action, "GenerateMac") == 0
                       ? make(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"), &mac)
                       : verify(&ali, &call, info.ref, KMS_ALG_HMAC_SHA256, span("x"),
                                kms_buf_span(&kept))) == KMS_E_PROTOCOL);
        ALI_CHECK(&call, bad[i].name,
                  strstr(call.error.text, bad[i].says) != NULL && ali_named(&call, bad[i].action));
        UNIT_CHECK(bad[i].name, mac.len == 0);
    }
    ali_close(&ali);
}

/* SM3 is none of ours: it is said so where the configuration names it, and not shown elsewhere. */
static void sm3_is_not_shown(void)
{
    struct ali ali;
    struct kms_call call = ali_call();
    char alias[64];
    struct kms_key_filter filter = {.spec = alias};

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("HMAC_SM3", "GENERATE_VERIFY_MAC", alias));
    CU_ASSERT_EQUAL(kms_waist_list_keys(ali.waist, &call, &filter, NULL, NULL), KMS_E_UNSUPPORTED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "HMAC_SM3"));
    ali_close(&ali);
}

const struct unit_test ali_mac_tests[] = {
    {"MACs verify", macs_verify},
    {"a MAC is the standard one", a_mac_is_the_standard_one},
    {"bad questions are not asked", bad_questions_are_not_asked},
    {"bad answers are told", bad_answers_are_told},
    {"SM3 is not shown", sm3_is_not_shown},
};
const size_t ali_mac_test_count = UNIT_COUNT(ali_mac_tests);
