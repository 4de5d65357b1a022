/* SPDX-License-Identifier: Apache-2.0 */
/* SM4 keys: what they have of their own. What they have as AES keys do stands beside those, in
 * alibaba_keys.c and alibaba_logical.c (ali_each_symmetric()). */
#include <string.h>

#include "tests/services/alibaba.h"

static struct ali_sealed sealed;
static uint8_t bytes[KMS_CIPHERTEXT_MAX];

static void they_say_what_they_are(void)
{
    const unsigned all = KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP;
    struct ali ali;
    struct kms_key_info info;
    struct kms_alg_set only = {.bits = {0, 0}};
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_SM4", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    kms_alg_set_add(&only, KMS_ALG_SEALED); /* and nothing that has a name of AES in it */
    CU_ASSERT(memcmp(&info.algs, &only, sizeof(only)) == 0 && info.seal == KMS_ALG_SEALED);
    CU_ASSERT(info.type == KMS_KEY_SM4 && info.bits == 128 && info.uses == all);
    CU_ASSERT(!info.extractable && info.never_extractable && info.always_sensitive && info.local);
    ali_close(&ali);
}

static void a_data_key_comes_of_them(void)
{
    static const size_t lengths[] = {16, 24, 32, 64};
    const struct kms_params seal = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};
    struct ali ali;
    struct kms_key_info info;
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_SM4", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    for (size_t i = 0; i < UNIT_COUNT(lengths); i++) {
        struct kms_call call = ali_call();
        uint8_t secret[KMS_DATA_KEY_MAX];
        struct kms_buf key = KMS_BUF_OVER(secret);
        struct kms_buf out = KMS_BUF_OVER(bytes);

        sealed.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(sealed.iv),
                                            .ciphertext = KMS_BUF_OVER(sealed.bytes)};
        ALI_CHECK(&call, "data key",
                  kms_waist_data_key(ali.waist, &call, info.ref, &seal, lengths[i], &key,
                                     &sealed.sealed) == KMS_OK);
        CU_ASSERT(key.len == lengths[i] && sealed.sealed.alg == KMS_ALG_SEALED);
        CU_ASSERT_STRING_EQUAL(sealed.sealed.key_id, info.id);
        CU_ASSERT_EQUAL(ali_unseal(&ali, &call, info.ref, kms_span_str("aae"), &sealed, &out),
                        KMS_E_BAD_DATA);
        CU_ASSERT_EQUAL(ali_unseal(&ali, &call, info.ref, seal.aad, &sealed, &out), KMS_OK);
        CU_ASSERT(kms_span_equal(kms_buf_span(&out), kms_buf_span(&key)));
    }
    ali_close(&ali);
}

/* What an AES key does not open, and the other way round: the context is the same. */
static void they_open_nothing_of_others(void)
{
    struct ali ali;
    struct kms_key_info sm4, aes;
    struct kms_call call = ali_call();
    struct kms_buf out = KMS_BUF_OVER(bytes);
    char alias[64], aes_alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_SM4", "ENCRYPT/DECRYPT", alias) &&
                    ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", aes_alias) &&
                    ali_find(&ali, alias, &sm4) && ali_find(&ali, aes_alias, &aes));
    CU_ASSERT_EQUAL(
        ali_seal(&ali, &call, sm4.ref, kms_span_str("aad"), kms_span_str("text"), &sealed), KMS_OK);
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, aes.ref, kms_span_str("aad"), &sealed, &out),
                    KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(
        ali_seal(&ali, &call, aes.ref, kms_span_str("aad"), kms_span_str("text"), &sealed), KMS_OK);
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, sm4.ref, kms_span_str("aad"), &sealed, &out),
                    KMS_E_BAD_DATA);
    ali_close(&ali);
}

/* DescribeKey must say which version encrypts, as of every symmetric key. */
static void a_primary_version_is_wanted(void)
{
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info info;
    char alias[64];
    const char *metadata =
        "\"kind\":\"set\",\"field\":\"KeyMetadata\",\"value\":{\"KeyId\":\"k\",\"Arn\":"
        "\"acs:kms:cn-hangzhou:1:key/k\",\"KeySpec\":\"Aliyun_SM4\",\"KeyUsage\":"
        "\"ENCRYPT/DECRYPT\",\"KeyState\":\"Enabled\"}";

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_SM4", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    CU_ASSERT(ali_fault("kms", "DescribeKey", metadata));
    CU_ASSERT_EQUAL(kms_alibaba_ops.destroy(ali.backend, &call, info.ref), KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "PrimaryKeyVersion"));
    CU_ASSERT_EQUAL(ali_calls("kms ScheduleKeyDeletion"), 0);
    ali_close(&ali);
}

/* Whether there may be one without an instance is the service's to say: some regions had them. The
 * fake says no, as the vendor's list of default keys' KeySpecs does. */
static void without_an_instance_the_service_is_asked(void)
{
    static const struct kms_key_template tmpl = {.type = KMS_KEY_SM4, .label = "made/no-instance"};
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info info;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    CU_ASSERT_EQUAL(kms_waist_generate(ali.waist, &call, &tmpl, &info), KMS_E_INVALID);
    CU_ASSERT_EQUAL(ali_calls("kms CreateKey"), 1);
    CU_ASSERT_STRING_EQUAL(call.error.code, "InvalidParameter");
    CU_ASSERT(ali_named(&call, "CreateKey"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "KeySpec"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "alibaba.instance"));
    ali_close(&ali);
}

/* One of a hardware key management instance is used as any, and has one version for ever. */
static void a_hardware_key_does_not_rotate(void)
{
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info info, rotated;
    struct kms_buf out = KMS_BUF_OVER(bytes);

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"key\",\"alias\":\"sm4-hsm\",\"spec\":\"Aliyun_SM4\","
                                "\"level\":\"HSM\"}",
                                NULL, NULL) &&
                    ali_find(&ali, "sm4-hsm", &info));
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, info.ref, KMS_SPAN_NONE, kms_span_str("text"), &sealed),
                    KMS_OK);
    CU_ASSERT_EQUAL(kms_alibaba_ops.rotate(ali.backend, &call, info.ref, &rotated),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_STRING_EQUAL(call.error.code, "Rejected.UnsupportedOperation");
    CU_ASSERT(ali_named(&call, "CreateKeyVersion"));
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, info.ref, KMS_SPAN_NONE, &sealed, &out), KMS_OK);
    CU_ASSERT(ali_find(&ali, "sm4-hsm", &rotated) && strcmp(rotated.id, info.id) == 0);
    ali_close(&ali);
}

const struct unit_test ali_sm4_tests[] = {
    {"they say what they are", they_say_what_they_are},
    {"a data key comes of them", a_data_key_comes_of_them},
    {"they open nothing of others", they_open_nothing_of_others},
    {"a primary version is wanted", a_primary_version_is_wanted},
    {"without an instance the service is asked", without_an_instance_the_service_is_asked},
    {"a hardware key does not rotate", a_hardware_key_does_not_rotate},
};
const size_t ali_sm4_test_count = UNIT_COUNT(ali_sm4_tests);
