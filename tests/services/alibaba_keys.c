/* SPDX-License-Identifier: Apache-2.0 */
/* What is done with keys, and what they are. */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "common/codec.h"
#include "tests/services/alibaba.h"

static struct ali_sealed sealed, second;
static uint8_t opened[KMS_CIPHERTEXT_MAX], text[8192];

static struct kms_span span(const char *words)
{
    return kms_span_str(words);
}

/* ---- sealing ------------------------------------------------------------------------------ */

static void seal_and_open(const struct ali_symmetric *kind)
{
    static const size_t lengths[] = {1, 15, 32, 4096, 6144};
    struct ali ali;
    struct kms_key_info info;
    char alias[64], id[64];

    ali_setup(&ali);
    if (!ali_open(&ali) || !ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) ||
        !ali_find(&ali, alias, &info)) {
        CU_FAIL("no key");
        return;
    }
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i * 0x3f + 0xfb); /* base64 with '+' and '/' */
    }
    for (size_t i = 0; i < UNIT_COUNT(lengths); i++) {
        struct kms_call call = ali_call();
        struct kms_buf out = KMS_BUF_OVER(opened);
        struct kms_span in = kms_span_of(text, lengths[i]);

        ALI_CHECK(&call, "seal",
                  ali_seal(&ali, &call, info.ref, span("aad"), in, &sealed) == KMS_OK);
        CU_ASSERT_EQUAL(sealed.sealed.alg, KMS_ALG_SEALED);
        CU_ASSERT_EQUAL(sealed.sealed.iv.len, 0);
        CU_ASSERT_STRING_EQUAL(sealed.sealed.key_id, info.id);
        CU_ASSERT(ali_control_text("{\"do\":\"last\"}", "request_id", id, sizeof(id)));
        CU_ASSERT_STRING_EQUAL(call.error.request_id, id); /* the one that ActionTrail has */
        ALI_CHECK(&call, "unseal",
                  ali_unseal(&ali, &call, info.ref, span("aad"), &sealed, &out) == KMS_OK);
        CU_ASSERT(kms_span_equal(kms_buf_span(&out), in));
    }
    ali_close(&ali);
}

static void sealed_opens(void)
{
    ali_each_symmetric(seal_and_open);
}

static void bounds_are_told(void)
{
    struct ali ali;
    struct kms_key_info info;
    struct kms_call call = ali_call();
    char alias[64];
    struct kms_params params = {.alg = KMS_ALG_SEALED, .iv = span("123456789012")};

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    (void)ali_calls("");
    CU_ASSERT_EQUAL(
        ali_seal(&ali, &call, info.ref, KMS_SPAN_NONE, kms_span_of(text, 6145), &sealed),
        KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, info.ref, KMS_SPAN_NONE, KMS_SPAN_NONE, &sealed),
                    KMS_E_INVALID);
    CU_ASSERT_EQUAL(
        kms_waist_encrypt(ali.waist, &call, info.ref, &params, span("x"), &sealed.sealed),
        KMS_E_UNSUPPORTED);
    params = (struct kms_params){.alg = KMS_ALG_AES_GCM};
    CU_ASSERT_EQUAL(
        kms_waist_encrypt(ali.waist, &call, info.ref, &params, span("x"), &sealed.sealed),
        KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, "nonsense", KMS_SPAN_NONE, span("x"), &sealed),
                    KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(ali_calls("kms Encrypt"), 0); /* all of it without asking */
    CU_ASSERT_FALSE(kms_waist_can(ali.waist, KMS_OP_RANDOM));
    ali_close(&ali);
}

/* The AAD, the configured context and the key are each part of what is sealed. */
static void bind(const struct ali_symmetric *kind)
{
    static char tenant[] = "tenant=a b/+", other[] = "tenant=other";
    char *entries[] = {tenant}, *others[] = {other};
    struct ali plain, with, wrong;
    struct kms_key_info info, another;
    struct kms_call call = ali_call();
    char alias[64], alias2[64];
    struct kms_buf out = KMS_BUF_OVER(opened);

    ali_setup(&plain);
    ali_setup(&with);
    ali_setup(&wrong);
    with.settings.encryption_context = entries;
    wrong.settings.encryption_context = others;
    with.settings.encryption_context_count = wrong.settings.encryption_context_count = 1;
    CU_ASSERT_FATAL(ali_open(&plain) && ali_open(&with) && ali_open(&wrong));
    CU_ASSERT_FATAL(ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) &&
                    ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias2) &&
                    ali_find(&plain, alias, &info) && ali_find(&plain, alias2, &another));

    CU_ASSERT_EQUAL(ali_seal(&with, &call, info.ref, span("aad"), span("text"), &sealed), KMS_OK);
    CU_ASSERT_EQUAL(ali_unseal(&plain, &call, info.ref, span("aad"), &sealed, &out),
                    KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(ali_unseal(&wrong, &call, info.ref, span("aad"), &sealed, &out),
                    KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(ali_unseal(&with, &call, info.ref, span("aae"), &sealed, &out), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(ali_unseal(&with, &call, info.ref, KMS_SPAN_NONE, &sealed, &out),
                    KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(ali_unseal(&with, &call, another.ref, span("aad"), &sealed, &out),
                    KMS_E_BAD_DATA);
    CU_ASSERT(strlen(call.error.request_id) >= 32 && strstr(call.error.text, "another key"));
    CU_ASSERT_EQUAL(out.len, 0);
    CU_ASSERT_EQUAL(ali_unseal(&with, &call, info.ref, span("aad"), &sealed, &out), KMS_OK);
    for (size_t i = 0; i < sealed.sealed.ciphertext.len; i += 7) {
        uint8_t was = sealed.bytes[i];

        sealed.bytes[i] = was == 'A' ? 'B' : 'A';
        out.len = 0;
        CU_ASSERT_EQUAL(ali_unseal(&with, &call, info.ref, span("aad"), &sealed, &out),
                        KMS_E_BAD_DATA);
        sealed.bytes[i] = was;
    }
    (void)ali_calls("");
    sealed.bytes[3] = ' '; /* no base64: known without asking */
    CU_ASSERT_EQUAL(ali_unseal(&with, &call, info.ref, span("aad"), &sealed, &out), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(ali_calls("kms Decrypt"), 0);
    ali_close(&plain);
    ali_close(&with);
    ali_close(&wrong);
}

static void what_is_bound_is_bound(void)
{
    ali_each_symmetric(bind);
}

/* ---- versions ----------------------------------------------------------------------------- */

struct seen {
    unsigned count, latest, seal;
    struct kms_key_info last, newest, oldest;
};

static bool see(void *ctx, const struct kms_key_info *info)
{
    struct seen *seen = ctx;

    if (seen->count == 0 || kms_key_age_compare(info, &seen->newest) > 0) {
        seen->newest = *info;
    }
    if (seen->count == 0 || kms_key_age_compare(info, &seen->oldest) < 0) {
        seen->oldest = *info;
    }
    seen->count++;
    seen->latest += info->latest ? 1u : 0u;
    seen->seal += info->seal == KMS_ALG_SEALED ? 1u : 0u;
    seen->last = *info;
    return true;
}

static struct seen list(struct ali *ali, struct kms_key_filter filter)
{
    struct seen seen = {.count = 0};
    struct kms_call call = ali_call();

    call.deadline_ns *= 2;
    ALI_CHECK(&call, "list", kms_waist_list_keys(ali->waist, &call, &filter, see, &seen) == KMS_OK);
    return seen;
}

/* The service rotates by itself; what Encrypt answers says so, and the list follows. */
static void rotate_by_service(const struct ali_symmetric *kind)
{
    struct ali ali;
    struct kms_key_info before, after;
    struct kms_call call = ali_call();
    char alias[64], ask[128];
    struct kms_buf out = KMS_BUF_OVER(opened);
    struct seen seen;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &before));
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, before.ref, span("aad"), span("old"), &sealed), KMS_OK);
    (void)snprintf(ask, sizeof(ask), "{\"do\":\"rotate\",\"key\":\"alias/%s\"}", alias);
    CU_ASSERT(ali_control(ask, NULL, NULL));
    /* in the same second, too */
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, before.ref, span("aad"), span("new"), &second), KMS_OK);
    CU_ASSERT_STRING_NOT_EQUAL(second.sealed.key_id, before.id);
    CU_ASSERT_FATAL(ali_find(&ali, alias, &after));
    CU_ASSERT_STRING_EQUAL(second.sealed.key_id, after.id);
    seen = list(&ali, (struct kms_key_filter){.spec = alias});
    CU_ASSERT(seen.count == 2 && seen.latest == 1 && seen.seal == 1);
    CU_ASSERT_STRING_EQUAL(seen.newest.id, after.id);
    CU_ASSERT_STRING_EQUAL(seen.oldest.id, before.id);
    CU_ASSERT((seen.oldest.uses & KMS_USE_ENCRYPT) == 0 &&
              (seen.oldest.uses & KMS_USE_DECRYPT) != 0);
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, before.ref, span("aad"), &sealed, &out), KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&out), span("old")));
    out.len = 0;
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, after.ref, span("aad"), &second, &out), KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&out), span("new")));
    for (unsigned i = 0; i < 5; i++) { /* the order of age stays, in one second or not */
        struct kms_key_info next = after;

        CU_ASSERT(ali_control(ask, NULL, NULL) && ali_find(&ali, alias, &next));
        CU_ASSERT(kms_key_age_compare(&next, &after) > 0);
        after = next;
    }
    ali_close(&ali);
}

static void a_rotation_is_another_key_id(void)
{
    ali_each_symmetric(rotate_by_service);
}

static void find_by_names(const struct ali_symmetric *kind)
{
    struct ali ali;
    struct kms_key_info info;
    char alias[64], prefixed[80], id[KMS_KEY_REF_MAX], arn[KMS_KEY_NAME_MAX], hex[64], by_tag[80];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    CU_ASSERT_STRING_EQUAL(info.label, alias);
    CU_ASSERT_EQUAL(strlen(info.id), 45);
    CU_ASSERT(info.type == kind->type && info.bits == kind->bits && info.local && info.latest);
    CU_ASSERT(!info.extractable && info.never_extractable && info.tag_len == 20);
    (void)snprintf(prefixed, sizeof(prefixed), "alias/%s", alias);
    (void)snprintf(id, sizeof(id), "%.*s", (int)strcspn(info.ref, "/"), info.ref);
    (void)snprintf(arn, sizeof(arn), "%.*s", (int)(strrchr(info.name, '/') - info.name), info.name);
    CU_ASSERT_EQUAL(kms_hex_encode(kms_span_of(info.tag, info.tag_len), hex, sizeof(hex)), KMS_OK);
    (void)snprintf(by_tag, sizeof(by_tag), "id:%s", hex);
    const struct kms_key_filter filters[] = {
        {.spec = alias},
        {.spec = prefixed},
        {.spec = id},
        {.spec = arn},
        {.spec = by_tag},
        {.label = alias},
        {.ref = info.ref},
        {.label = alias, .ref = info.ref},
        {.label = alias, .tag = {info.tag, info.tag_len}},
    };
    for (size_t i = 0; i < UNIT_COUNT(filters); i++) {
        struct seen seen = list(&ali, filters[i]);

        CU_ASSERT_EQUAL(seen.count, 1);
        CU_ASSERT_STRING_EQUAL(seen.last.id, info.id);
        CU_ASSERT_STRING_EQUAL(seen.last.ref, info.ref);
    }
    CU_ASSERT_STRING_EQUAL(list(&ali, (struct kms_key_filter){.ref = info.ref}).last.label, alias);
    const struct kms_key_filter none[] = {
        {.spec = "no-such"},     {.spec = "alias/no-such"},       {.label = "no-such"},
        {.ref = "no-such"},      {.label = "x", .ref = info.ref}, {.ref = "no-such/version"},
        {.spec = "id:00112233"},
    };
    for (size_t i = 0; i < UNIT_COUNT(none); i++) {
        CU_ASSERT_EQUAL(list(&ali, none[i]).count, 0);
    }
    ali_close(&ali);
}

static void found_by_each_name(void)
{
    ali_each_symmetric(find_by_names);
}

static void all_pages_are_read(void)
{
    struct ali ali;
    char alias[64];
    unsigned before = 0;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    before = list(&ali, (struct kms_key_filter){.label = NULL}).count;
    for (unsigned i = 0; i < 101; i++) {
        CU_ASSERT(ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias));
    }
    (void)ali_calls("");
    CU_ASSERT_EQUAL(list(&ali, (struct kms_key_filter){.label = NULL}).count, before + 101);
    CU_ASSERT(ali_calls("kms ListKeys") >= 2);
    ali_close(&ali);
}

static void bad_names_are_refused(void)
{
    static const char *const bad[] = {"pkcs11:object=a", "id:", "id:zz"};
    struct ali ali;
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("EC_P256K", "SIGN/VERIFY", alias));
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_key_filter filter = {.spec = bad[i]};
        struct kms_call call = ali_call();
        struct seen seen = {.count = 0};

        UNIT_CHECK(bad[i],
                   kms_waist_list_keys(ali.waist, &call, &filter, see, &seen) == KMS_E_INVALID);
    }
    struct kms_key_filter filter = {.spec = alias}; /* a kind that we do not use is said so */
    struct kms_call call = ali_call();
    struct seen seen = {.count = 0};

    CU_ASSERT_EQUAL(kms_waist_list_keys(ali.waist, &call, &filter, see, &seen), KMS_E_UNSUPPORTED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "EC_P256K"));
    ali_close(&ali);
}

/* ---- asymmetric --------------------------------------------------------------------------- */

static const uint8_t info_sha256[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

static EVP_PKEY *public_of(struct ali *ali, const char *ref)
{
    static uint8_t der[KMS_PUBLIC_KEY_MAX];
    struct kms_buf out = KMS_BUF_OVER(der);
    struct kms_call call = ali_call();
    const uint8_t *at = der;

    return ALI_CHECK(&call, "public key",
                     kms_waist_public_key(ali->waist, &call, ref, &out) == KMS_OK)
               ? d2i_PUBKEY(NULL, &at, (long)out.len)
               : NULL;
}

/* OpenSSL's judgement of a signature over the SHA-256 of "message". */
static bool openssl_verifies(EVP_PKEY *key, int padding, struct kms_span signature)
{
    EVP_PKEY_CTX *pctx = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = EVP_DigestVerifyInit(ctx, &pctx, EVP_sha256(), NULL, key) == 1;

    if (padding != 0) {
        good = good && EVP_PKEY_CTX_set_rsa_padding(pctx, padding) == 1;
    }
    if (padding == RSA_PKCS1_PSS_PADDING) {
        good = good && EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    }
    good = good &&
           EVP_DigestVerify(ctx, signature.data, signature.len, (const uint8_t *)"message", 7) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* r || s as DER, small enough for one length byte. */
static struct kms_span der_of(struct kms_span raw)
{
    static uint8_t der[80];
    size_t len = 2;

    for (unsigned half = 0; half < 2; half++) {
        const uint8_t *at = raw.data + 32 * half;
        size_t size = 32;

        while (size > 1 && at[0] == 0) {
            at++;
            size--;
        }
        der[len++] = 2;
        der[len++] = (uint8_t)(size + (at[0] >> 7));
        if ((at[0] >> 7) != 0) {
            der[len++] = 0;
        }
        memcpy(der + len, at, size);
        len += size;
    }
    der[0] = 0x30;
    der[1] = (uint8_t)(len - 2);
    return kms_span_of(der, len);
}

static void signatures_are_good(void)
{
    static const struct {
        const char *spec;
        enum kms_alg alg;
        int padding;
        enum { DIGEST, INFO, MESSAGE } input;
    } cases[] = {
        {"RSA_2048", KMS_ALG_RSA_PKCS1, RSA_PKCS1_PADDING, INFO},
        {"RSA_2048", KMS_ALG_RSA_PKCS1_SHA256, RSA_PKCS1_PADDING, MESSAGE},
        {"RSA_3072", KMS_ALG_RSA_PSS_SHA256, RSA_PKCS1_PSS_PADDING, DIGEST},
        {"EC_P256", KMS_ALG_ECDSA, 0, DIGEST},
    };
    struct ali ali;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        const char *row = kms_alg_name(cases[i].alg);
        struct kms_params params = {.alg = cases[i].alg};
        struct kms_call call = ali_call();
        struct kms_key_info info;
        char alias[64];
        uint8_t input[64], digest[32], storage[KMS_SIGNATURE_MAX];
        struct kms_buf signature = KMS_BUF_OVER(storage);
        struct kms_span in = span("message");
        EVP_PKEY *key = NULL;

        CU_ASSERT_FATAL(ali_new_key(cases[i].spec, "SIGN/VERIFY", alias) &&
                        ali_find(&ali, alias, &info));
        UNIT_CHECK(row, kms_alg_set_has(&info.algs, cases[i].alg) && info.seal == KMS_ALG_NONE);
        UNIT_CHECK(row, kms_alg_set_has(&info.algs, KMS_ALG_SHA256_ALONE));
        CU_ASSERT_EQUAL(EVP_Digest(in.data, in.len, digest, NULL, EVP_sha256(), NULL), 1);
        if (cases[i].input != MESSAGE) {
            size_t at = cases[i].input == INFO ? sizeof(info_sha256) : 0;

            memcpy(input, info_sha256, sizeof(info_sha256));
            memcpy(input + at, digest, 32);
            in = kms_span_of(input, at + 32);
        }
        ALI_CHECK(&call, row,
                  kms_waist_sign(ali.waist, &call, info.ref, &params, in, &signature) == KMS_OK);
        key = public_of(&ali, info.ref);
        UNIT_CHECK(row, cases[i].padding != 0 || signature.len == 64);
        UNIT_CHECK(row, openssl_verifies(key, cases[i].padding,
                                         cases[i].padding != 0 ? kms_buf_span(&signature)
                                                               : der_of(kms_buf_span(&signature))));
        (void)ali_calls("");
        ALI_CHECK(&call, row,
                  kms_waist_verify(ali.waist, &call, info.ref, &params, in,
                                   kms_buf_span(&signature)) == KMS_OK);
        storage[40] ^= 1;
        UNIT_CHECK(row, kms_waist_verify(ali.waist, &call, info.ref, &params, in,
                                         kms_buf_span(&signature)) == KMS_E_BAD_DATA);
        signature.len--;
        UNIT_CHECK(row, kms_waist_verify(ali.waist, &call, info.ref, &params, in,
                                         kms_buf_span(&signature)) == KMS_E_BAD_DATA);
        UNIT_CHECK(row, ali_calls("kms AsymmetricVerify") == 0); /* here, by the public key */
        EVP_PKEY_free(key);
    }
    ali_close(&ali);
}

static void bad_inputs_are_not_signed(void)
{
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info rsa, ec;
    char alias[64];
    uint8_t input[64] = {0}, storage[KMS_SIGNATURE_MAX];
    struct kms_buf signature = KMS_BUF_OVER(storage);

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("RSA_2048", "SIGN/VERIFY", alias) &&
                    ali_find(&ali, alias, &rsa) && ali_new_key("EC_P256", "SIGN/VERIFY", alias) &&
                    ali_find(&ali, alias, &ec));
    memcpy(input, info_sha256, sizeof(info_sha256));
    input[14] = 3; /* SHA-512's */
    const struct {
        const char *name, *ref;
        struct kms_params params;
        size_t len;
        enum kms_status status;
    } bad[] = {
        {"another hash", rsa.ref, {.alg = KMS_ALG_RSA_PKCS1}, 51, KMS_E_UNSUPPORTED},
        {"bare digest", rsa.ref, {.alg = KMS_ALG_RSA_PKCS1}, 32, KMS_E_UNSUPPORTED},
        {"empty", rsa.ref, {.alg = KMS_ALG_RSA_PKCS1}, 0, KMS_E_UNSUPPORTED},
        {"short digest", rsa.ref, {.alg = KMS_ALG_RSA_PSS_SHA256}, 31, KMS_E_INVALID},
        {"salt",
         rsa.ref,
         {.alg = KMS_ALG_RSA_PSS_SHA256, .salt_given = true, .salt_len = 20},
         32,
         KMS_E_UNSUPPORTED},
        {"SHA-512", rsa.ref, {.alg = KMS_ALG_RSA_PSS_SHA512}, 64, KMS_E_UNSUPPORTED},
        {"raw", rsa.ref, {.alg = KMS_ALG_RSA_RAW}, 64, KMS_E_UNSUPPORTED},
        {"long digest", ec.ref, {.alg = KMS_ALG_ECDSA}, 48, KMS_E_INVALID},
        {"another kind", ec.ref, {.alg = KMS_ALG_RSA_PSS_SHA256}, 32, KMS_E_INVALID},
        {"eddsa", ec.ref, {.alg = KMS_ALG_EDDSA}, 32, KMS_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        UNIT_CHECK(bad[i].name,
                   kms_waist_sign(ali.waist, &call, bad[i].ref, &bad[i].params,
                                  kms_span_of(input, bad[i].len), &signature) == bad[i].status);
    }
    CU_ASSERT_EQUAL(signature.len, 0);
    /* what is no ECDSA signature in DER is not passed on */
    CU_ASSERT(ali_fault("kms", "AsymmetricSign",
                        "\"kind\":\"set\",\"field\":\"Value\",\"value\":\"AAAA\""));
    const struct kms_params ecdsa = {.alg = KMS_ALG_ECDSA};

    kms_error_clear(&call.error);
    CU_ASSERT_EQUAL(kms_alibaba_ops.sign(ali.backend, &call, ec.ref, &ecdsa, kms_span_of(input, 32),
                                         &signature),
                    KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(signature.len, 0);
    ali_close(&ali);
}

/* r || s instead of DER is believed once the public key has verified it. */
static void bare_ecdsa_is_verified_first(void)
{
    const struct kms_params ecdsa = {.alg = KMS_ALG_ECDSA};
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info ec;
    char alias[64], fault[256], value[128];
    uint8_t digest[32] = {7}, first[64], second_bytes[64];
    struct kms_buf one = KMS_BUF_OVER(first), two = KMS_BUF_OVER(second_bytes);

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("EC_P256", "SIGN/VERIFY", alias) &&
                    ali_find(&ali, alias, &ec));
    ALI_CHECK(&call, "sign",
              kms_alibaba_ops.sign(ali.backend, &call, ec.ref, &ecdsa, kms_span_of(digest, 32),
                                   &one) == KMS_OK);
    for (unsigned round = 0; round < 2; round++) {
        CU_ASSERT_EQUAL(kms_base64_encode(kms_buf_span(&one), value, sizeof(value)), KMS_OK);
        (void)snprintf(fault, sizeof(fault),
                       "\"kind\":\"set\",\"field\":\"Value\",\"value\":\"%s\"", value);
        CU_ASSERT(ali_fault("kms", "AsymmetricSign", fault));
        two.len = 0;
        kms_error_clear(&call.error);
        CU_ASSERT_EQUAL(
            kms_alibaba_ops.sign(ali.backend, &call, ec.ref, &ecdsa, kms_span_of(digest, 32), &two),
            round == 0 ? KMS_OK : KMS_E_PROTOCOL);
        CU_ASSERT_EQUAL(two.len, round == 0 ? 64 : 0);
        first[5] ^= 1; /* in the second round it is none */
    }
    ali_close(&ali);
}

static void oaep_opens(void)
{
    static const enum kms_alg algs[] = {KMS_ALG_RSA_OAEP_SHA1, KMS_ALG_RSA_OAEP_L_SHA256};
    struct ali ali;
    struct kms_key_info info;
    struct kms_call call = ali_call();
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("RSA_2048", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    for (size_t i = 0; i < UNIT_COUNT(algs); i++) {
        struct kms_params params = {.alg = algs[i]};
        struct kms_buf out = KMS_BUF_OVER(opened);

        second.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(second.iv),
                                            .ciphertext = KMS_BUF_OVER(second.bytes)};
        CU_ASSERT(kms_alg_set_has(&info.algs, algs[i]));
        (void)ali_calls("");
        ALI_CHECK(&call, "oaep",
                  kms_waist_encrypt(ali.waist, &call, info.ref, &params, span("a key"),
                                    &second.sealed) == KMS_OK);
        CU_ASSERT_EQUAL(ali_calls("kms AsymmetricEncrypt"), 0);
        CU_ASSERT_STRING_EQUAL(second.sealed.key_id, info.id);
        ALI_CHECK(&call, "oaep",
                  kms_waist_decrypt(ali.waist, &call, info.ref, &params,
                                    kms_buf_span(&second.sealed.ciphertext), &out) == KMS_OK);
        CU_ASSERT(kms_span_equal(kms_buf_span(&out), span("a key")));
        second.bytes[100] ^= 1;
        CU_ASSERT_EQUAL(kms_waist_decrypt(ali.waist, &call, info.ref, &params,
                                          kms_buf_span(&second.sealed.ciphertext), &out),
                        KMS_E_BAD_DATA);
        params.aad = span("label"); /* never dropped */
        CU_ASSERT_EQUAL(
            kms_waist_encrypt(ali.waist, &call, info.ref, &params, span("a key"), &second.sealed),
            KMS_E_INVALID);
        params.aad = KMS_SPAN_NONE;
        CU_ASSERT_EQUAL(kms_waist_encrypt(ali.waist, &call, info.ref, &params,
                                          kms_span_of(text, 240), &second.sealed),
                        KMS_E_TOO_LARGE);
    }
    ali_close(&ali);
}

/* ---- making ------------------------------------------------------------------------------- */

static void keys_are_made_rotated_and_gone(void)
{
    static const struct kms_key_template keys[] = {
        {.type = KMS_KEY_AES, .label = "made/aes"},
        {.type = KMS_KEY_SM4, .label = "made/sm4"}, /* of an instance */
        {.type = KMS_KEY_RSA, .bits = 2048, .label = "made/rsa"},
        {.type = KMS_KEY_EC, .label = "made/ec"},
    };
    struct ali ali;

    ali_setup(&ali);
    ali.settings.instance = (char *)(uintptr_t) "kst-hzz0123456789";
    CU_ASSERT_FATAL(ali_open(&ali));
    for (size_t i = 0; i < UNIT_COUNT(keys); i++) {
        struct kms_call call = ali_call();
        struct kms_key_info info, again, rotated;

        if (!ALI_CHECK(&call, keys[i].label,
                       kms_waist_generate(ali.waist, &call, &keys[i], &info) == KMS_OK)) {
            continue;
        }
        CU_ASSERT(info.type == keys[i].type && info.latest && info.local);
        CU_ASSERT_STRING_EQUAL(info.label, keys[i].label);
        CU_ASSERT_EQUAL(list(&ali, (struct kms_key_filter){.label = keys[i].label}).count, 1);
        CU_ASSERT_EQUAL(kms_waist_generate(ali.waist, &call, &keys[i], &again), KMS_E_EXISTS);
        kms_error_clear(&call.error);
        ALI_CHECK(&call, "rotate",
                  kms_alibaba_ops.rotate(ali.backend, &call, info.ref, &rotated) == KMS_OK);
        CU_ASSERT_STRING_NOT_EQUAL(rotated.id, info.id);
        CU_ASSERT_EQUAL(list(&ali, (struct kms_key_filter){.label = keys[i].label}).count, 2);
        if (keys[i].type == KMS_KEY_AES ||
            keys[i].type == KMS_KEY_SM4) { /* one version alone cannot go */
            CU_ASSERT_EQUAL(kms_waist_destroy(ali.waist, &call, info.ref), KMS_E_UNSUPPORTED);
        }
        rotated = list(&ali, (struct kms_key_filter){.label = keys[i].label}).newest;
        ALI_CHECK(&call, "destroy", kms_waist_destroy(ali.waist, &call, rotated.ref) == KMS_OK);
        CU_ASSERT_EQUAL(kms_waist_destroy(ali.waist, &call, rotated.ref), KMS_E_NOT_FOUND);
        CU_ASSERT_EQUAL(list(&ali, (struct kms_key_filter){.label = keys[i].label}).count, 0);
        /* the name is free for another key, with another identity */
        call = ali_call();
        ALI_CHECK(&call, "remake",
                  kms_waist_generate(ali.waist, &call, &keys[i], &again) == KMS_OK);
        CU_ASSERT_STRING_NOT_EQUAL(again.id, info.id);
    }
    ali_close(&ali);
}

static void bad_templates_are_refused(void)
{
    static const struct {
        struct kms_key_template tmpl;
        enum kms_status status;
    } bad[] = {
        {{.type = KMS_KEY_AES, .bits = 255, .label = "x"}, KMS_E_INVALID},
        {{.type = KMS_KEY_SM4, .bits = 256, .label = "x"}, KMS_E_INVALID},
        {{.type = KMS_KEY_RSA, .bits = 1024, .label = "x"}, KMS_E_INVALID},
        {{.type = KMS_KEY_EC, .bits = 384, .label = "x"}, KMS_E_UNSUPPORTED},
        {{.type = KMS_KEY_EDDSA, .label = "x"}, KMS_E_UNSUPPORTED},
        {{.type = KMS_KEY_GENERIC, .label = "x"}, KMS_E_UNSUPPORTED},
        {{.type = KMS_KEY_AES, .label = ""}, KMS_E_INVALID},
        {{.type = KMS_KEY_AES, .label = NULL}, KMS_E_INVALID},
        {{.type = KMS_KEY_AES, .label = "with space"}, KMS_E_INVALID},
        {{.type = KMS_KEY_AES, .label = "x", .tag = {(const uint8_t *)"1", 1}}, KMS_E_UNSUPPORTED},
        {{.type = KMS_KEY_RSA, .label = "x", .uses = KMS_USE_SIGN | KMS_USE_DECRYPT},
         KMS_E_UNSUPPORTED},
    };
    struct ali ali;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_call call = ali_call();
        struct kms_key_info info;

        CU_ASSERT_EQUAL(kms_waist_generate(ali.waist, &call, &bad[i].tmpl, &info), bad[i].status);
    }
    CU_ASSERT_EQUAL(ali_calls("kms CreateKey"), 0);
    ali_close(&ali);
}

/* What an instance has, and nothing else; the fake asks for it, too. */
static void small_keys_are_for_instances(void)
{
    static const struct kms_key_template keys[] = {
        {.type = KMS_KEY_AES, .bits = 128, .label = "made/aes-128"},
        {.type = KMS_KEY_AES, .bits = 192, .label = "made/aes-192"},
        {.type = KMS_KEY_RSA, .bits = 4096, .label = "made/rsa-4096", .uses = KMS_USE_DECRYPT},
    };
    struct ali ali;

    for (unsigned with = 0; with < 2; with++) {
        ali_setup(&ali);
        ali.settings.instance = with == 1 ? (char *)(uintptr_t) "kst-hzz0123456789" : NULL;
        CU_ASSERT_FATAL(ali_open(&ali));
        for (size_t i = 0; i < (with == 1 ? UNIT_COUNT(keys) : 2); i++) {
            struct kms_call call = ali_call();
            struct kms_key_info info;

            ALI_CHECK(&call, keys[i].label,
                      kms_waist_generate(ali.waist, &call, &keys[i], &info) ==
                          (with == 1 ? KMS_OK : KMS_E_UNSUPPORTED));
            UNIT_CHECK(keys[i].label, with == 0 || info.bits == keys[i].bits);
            UNIT_CHECK(keys[i].label, with == 1 || strstr(call.error.text, "instance") != NULL);
        }
        ali_close(&ali);
    }
}

/* A key is made once: an answer that is lost makes no second one. And one that got no name goes. */
static void a_key_is_made_once(void)
{
    static const struct kms_key_template key = {.type = KMS_KEY_AES, .label = "made/once"};
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info info;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    CU_ASSERT(ali_fault("kms", "CreateKey", "\"kind\":\"status\",\"status\":502"));
    CU_ASSERT_EQUAL(kms_waist_generate(ali.waist, &call, &key, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(ali_calls("kms CreateKey"), 1);
    CU_ASSERT(ali_fault("kms", "CreateAlias",
                        "\"kind\":\"error\",\"status\":403,\"code\":\"Forbidden.NoPermission\""));
    CU_ASSERT_EQUAL(kms_waist_generate(ali.waist, &call, &key, &info), KMS_E_DENIED);
    CU_ASSERT_EQUAL(ali_calls("kms ScheduleKeyDeletion"), 1);
    ali_close(&ali);
}

/* One op, and the action whose request id the audit is to have; of several, the one that counts. */
static void each_request_is_named(void)
{
    static const struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "made/named"};
    static const struct kms_params seal = {.alg = KMS_ALG_SEALED};
    static const struct kms_params oaep = {.alg = KMS_ALG_RSA_OAEP_L_SHA256};
    static const struct kms_params sign = {.alg = KMS_ALG_ECDSA};
    struct ali ali;
    struct kms_key_info aes, newer, rsa, ec;
    struct kms_call call = ali_call();
    struct kms_buf out = KMS_BUF_OVER(opened);
    struct kms_buf key = kms_buf_over(text, 32);
    const struct kms_backend_ops *ops = &kms_alibaba_ops;
    char rsa_alias[64], ec_alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("RSA_2048", "ENCRYPT/DECRYPT", rsa_alias) &&
                    ali_new_key("EC_P256", "SIGN/VERIFY", ec_alias) &&
                    ali_find(&ali, rsa_alias, &rsa) && ali_find(&ali, ec_alias, &ec));
    ALI_CHECK(&call, "generate",
              ops->generate(ali.backend, &call, &tmpl, &aes) == KMS_OK &&
                  ali_named(&call, "CreateKey"));
    sealed.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(sealed.iv),
                                        .ciphertext = KMS_BUF_OVER(sealed.bytes)};
    second.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(second.iv),
                                        .ciphertext = KMS_BUF_OVER(second.bytes)};
    ALI_CHECK(&call, "data key",
              ops->data_key(ali.backend, &call, aes.ref, &seal, 32, &key, &sealed.sealed) ==
                      KMS_OK &&
                  ali_named(&call, "GenerateDataKey"));
    ALI_CHECK(&call, "rotate",
              ops->rotate(ali.backend, &call, aes.ref, &newer) == KMS_OK &&
                  ali_named(&call, "CreateKeyVersion"));
    ALI_CHECK(&call, "rewrap",
              ops->rewrap(ali.backend, &call, aes.ref, &seal,
                          kms_buf_span(&sealed.sealed.ciphertext), &second.sealed) == KMS_OK &&
                  ali_named(&call, "ReEncrypt"));
    ALI_CHECK(&call, "public key",
              ops->public_key(ali.backend, &call, rsa.ref, &out) == KMS_OK &&
                  ali_named(&call, "GetPublicKey"));
    second.sealed.ciphertext.len = out.len = 0;
    ALI_CHECK(&call, "OAEP",
              ops->encrypt(ali.backend, &call, rsa.ref, &oaep, span("a key"), &second.sealed) ==
                      KMS_OK &&
                  ops->decrypt(ali.backend, &call, rsa.ref, &oaep,
                               kms_buf_span(&second.sealed.ciphertext), &out) == KMS_OK &&
                  ali_named(&call, "AsymmetricDecrypt"));
    out.len = 0;
    ALI_CHECK(&call, "sign",
              ops->sign(ali.backend, &call, ec.ref, &sign, kms_span_of(text, 32), &out) == KMS_OK &&
                  ali_named(&call, "AsymmetricSign"));
    ALI_CHECK(&call, "destroy",
              ops->destroy(ali.backend, &call, newer.ref) == KMS_OK &&
                  ali_named(&call, "ScheduleKeyDeletion"));
    ALI_CHECK(&call, "refused", /* encrypt, decrypt: the faults' table */
              ops->rewrap(ali.backend, &call, aes.ref, &seal,
                          kms_buf_span(&sealed.sealed.ciphertext),
                          &second.sealed) == KMS_E_KEY_STATE &&
                  ali_named(&call, "ReEncrypt"));
    call = ali_call();
    CU_ASSERT(
        ali_fault("kms", "AsymmetricSign", "\"kind\":\"set\",\"field\":\"Value\",\"value\":7"));
    ALI_CHECK(&call, "no signature",
              ops->sign(ali.backend, &call, ec.ref, &sign, kms_span_of(text, 32), &out) ==
                      KMS_E_PROTOCOL &&
                  ali_named(&call, "AsymmetricSign"));
    call = ali_call();
    CU_ASSERT(ali_fault("kms", "CreateKeyVersion",
                        "\"kind\":\"set\",\"field\":\"KeyVersion\",\"value\":7"));
    ALI_CHECK(&call, "no version",
              ops->rotate(ali.backend, &call, ec.ref, &newer) == KMS_E_PROTOCOL &&
                  ali_named(&call, "CreateKeyVersion"));
    ali_close(&ali);
}

static void a_token_tells_what_it_is(void)
{
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_token_info info;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    CU_ASSERT_EQUAL(kms_waist_describe(ali.waist, &call, &info), KMS_OK);
    CU_ASSERT_STRING_EQUAL(info.label, "ali");
    CU_ASSERT(!info.random && kms_alg_set_has(&info.algs, KMS_ALG_SEALED));
    CU_ASSERT((info.generates & 1u << KMS_KEY_AES) != 0);
    CU_ASSERT((info.generates & 1u << KMS_KEY_SM4) != 0);
    ali_close(&ali);
}

const struct unit_test ali_key_tests[] = {
    {"sealed opens", sealed_opens},
    {"bounds are told", bounds_are_told},
    {"what is bound is bound", what_is_bound_is_bound},
    {"a rotation is another key_id", a_rotation_is_another_key_id},
    {"found by each name", found_by_each_name},
    {"all pages are read", all_pages_are_read},
    {"bad names are refused", bad_names_are_refused},
    {"signatures are good", signatures_are_good},
    {"bad inputs are not signed", bad_inputs_are_not_signed},
    {"bare ECDSA is verified first", bare_ecdsa_is_verified_first},
    {"OAEP opens", oaep_opens},
    {"keys are made, rotated and gone", keys_are_made_rotated_and_gone},
    {"bad templates are refused", bad_templates_are_refused},
    {"small keys are for instances", small_keys_are_for_instances},
    {"a key is made once", a_key_is_made_once},
    {"each request is named", each_request_is_named},
    {"a token tells what it is", a_token_tells_what_it_is},
};
const size_t ali_key_test_count = UNIT_COUNT(ali_key_tests);
