/* SPDX-License-Identifier: Apache-2.0 */
/* Keys as applications see them: which are one object whatever their versions, and what stays. */
#include <openssl/evp.h>
#include <string.h>

#include "common/codec.h"
#include "tests/services/alibaba.h"

static struct ali_sealed sealed, second;
static uint8_t opened[KMS_CIPHERTEXT_MAX];

#define SEEN_MAX 4

struct seen {
    size_t count;
    struct kms_key_info info[SEEN_MAX];
};

static bool see(void *ctx, const struct kms_key_info *info)
{
    struct seen *seen = ctx;

    if (seen->count < SEEN_MAX) {
        seen->info[seen->count] = *info;
    }
    seen->count++;
    return true;
}

/* How many; the first of them to @ret. */
static size_t list(struct ali *ali, struct kms_key_filter filter, struct seen *ret)
{
    struct kms_call call = ali_call();

    *ret = (struct seen){.count = 0};
    ALI_CHECK(&call, "list", kms_waist_list_keys(ali->waist, &call, &filter, see, ret) == KMS_OK);
    return ret->count;
}

static bool rotate(const char *alias)
{
    char ask[128];

    (void)snprintf(ask, sizeof(ask), "{\"do\":\"rotate\",\"key\":\"alias/%s\"}", alias);
    return ali_control(ask, NULL, NULL);
}

/* The CKA_ID that who knows the full name expects. */
static bool is_tag_of(const struct kms_key_info *info, const char *name)
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    return EVP_Digest(name, strlen(name), hash, NULL, EVP_sha256(), NULL) == 1 &&
           info->tag_len == 20 && memcmp(info->tag, hash, 20) == 0;
}

/* All that an application could have kept of it. */
static bool same(const struct kms_key_info *a, const struct kms_key_info *b)
{
    return strcmp(a->ref, b->ref) == 0 && strcmp(a->id, b->id) == 0 &&
           strcmp(a->label, b->label) == 0 && strcmp(a->name, b->name) == 0 &&
           strcmp(a->version, b->version) == 0 && a->tag_len == b->tag_len &&
           memcmp(a->tag, b->tag, a->tag_len) == 0 && a->uses == b->uses && a->seal == b->seal &&
           a->latest == b->latest;
}

static void see_one(const struct ali_symmetric *kind)
{
    const struct kms_params seal = {.alg = KMS_ALG_SEALED, .aad = kms_span_str("aad")};
    const unsigned all = KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP;
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info key, first;
    struct seen seen;
    char alias[64];
    struct kms_buf out = KMS_BUF_OVER(opened);

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &first));
    (void)ali_calls("");
    CU_ASSERT_FATAL(list(&ali, (struct kms_key_filter){.label = alias, .logical = true}, &seen) ==
                    1);
    CU_ASSERT_EQUAL(ali_calls("kms ListKeyVersions"), 0); /* DescribeKey has said it all */
    key = seen.info[0];
    CU_ASSERT(key.latest && key.version[0] == '\0' && key.uses == all && key.local);
    CU_ASSERT(key.seal == KMS_ALG_SEALED && kms_alg_set_has(&key.algs, KMS_ALG_SEALED));
    CU_ASSERT_STRING_EQUAL(key.label, alias);
    CU_ASSERT_PTR_NOT_NULL(strstr(key.name, ":key/"));
    CU_ASSERT(is_tag_of(&key, key.name));
    CU_ASSERT_STRING_NOT_EQUAL(key.id, first.id);
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, key.ref, seal.aad, kms_span_str("old"), &sealed), KMS_OK);
    CU_ASSERT_STRING_EQUAL(sealed.sealed.key_id, first.id); /* the very version */

    CU_ASSERT(rotate(alias));
    CU_ASSERT_FATAL(list(&ali, (struct kms_key_filter){.label = alias, .logical = true}, &seen) ==
                    1);
    CU_ASSERT(same(&seen.info[0], &key));
    CU_ASSERT_EQUAL(ali_seal(&ali, &call, key.ref, seal.aad, kms_span_str("new"), &second), KMS_OK);
    CU_ASSERT_STRING_NOT_EQUAL(second.sealed.key_id, first.id);
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, key.ref, seal.aad, &second, &out), KMS_OK);
    CU_ASSERT_EQUAL(ali_unseal(&ali, &call, key.ref, seal.aad, &sealed, &out), KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&out), kms_span_str("newold")));
    /* inside the service, to the newest */
    second.sealed.ciphertext.len = 0;
    ALI_CHECK(&call, "rewrap",
              kms_alibaba_ops.rewrap(ali.backend, &call, key.ref, &seal,
                                     kms_buf_span(&sealed.sealed.ciphertext),
                                     &second.sealed) == KMS_OK);
    CU_ASSERT(second.sealed.ciphertext.len != sealed.sealed.ciphertext.len ||
              memcmp(second.bytes, sealed.bytes, sealed.sealed.ciphertext.len) != 0);
    ali_close(&ali);
}

static void a_symmetric_key_is_one(void)
{
    ali_each_symmetric(see_one);
}

/* The CKA_ID of the versions is that of the key: what names one, names all. */
static void see_versions(const struct ali_symmetric *kind)
{
    struct ali ali;
    struct seen seen;
    struct kms_key_info key;
    char alias[64], hex[64], spec[80];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key(kind->spec, "ENCRYPT/DECRYPT", alias) &&
                    rotate(alias) && rotate(alias)); /* in one second: the latest is the newest */
    CU_ASSERT_FATAL(list(&ali, (struct kms_key_filter){.label = alias, .logical = true}, &seen) ==
                    1);
    key = seen.info[0];
    CU_ASSERT_EQUAL(kms_hex_encode(kms_span_of(key.tag, key.tag_len), hex, sizeof(hex)), KMS_OK);
    (void)snprintf(spec, sizeof(spec), "id:%s", hex);
    const struct {
        struct kms_key_filter filter;
        size_t versions;
    } rows[] = {
        {{.label = alias}, 3}, {{.spec = alias}, 3},
        {{.spec = spec}, 3},   {{.label = alias, .tag = {key.tag, key.tag_len}}, 3},
        {{.ref = key.ref}, 0}, /* none of the versions has it */
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_key_filter logical = rows[i].filter;

        logical.logical = true;
        CU_ASSERT_EQUAL(list(&ali, logical, &seen), 1);
        CU_ASSERT(same(&seen.info[0], &key));
        CU_ASSERT_EQUAL(list(&ali, rows[i].filter, &seen), rows[i].versions);
        for (size_t v = 0; v < rows[i].versions; v++) {
            CU_ASSERT(is_tag_of(&seen.info[v], key.name));
            CU_ASSERT(seen.info[v].latest == (v == 2));
            CU_ASSERT(v == 2 || kms_key_age_compare(&seen.info[2], &seen.info[v]) > 0);
        }
    }
    ali_close(&ali);
}

static void its_versions_are_told_by_their_order(void)
{
    ali_each_symmetric(see_versions);
}

/* Where a request names the version, each is an object, and what it is called stays as well. */
static void a_key_pair_is_one_for_each_version(void)
{
    static const struct {
        const char *spec, *usage;
    } rows[] = {{"EC_P256", "SIGN/VERIFY"}, {"RSA_2048", "ENCRYPT/DECRYPT"}};
    struct ali ali;

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct seen before, after;
        char alias[64];

        CU_ASSERT_FATAL(ali_new_key(rows[i].spec, rows[i].usage, alias));
        const struct kms_key_filter filter = {.label = alias, .logical = true};

        CU_ASSERT_FATAL(list(&ali, filter, &before) == 1 && rotate(alias) &&
                        list(&ali, filter, &after) == 2);
        for (size_t v = 0; v < 2; v++) {
            CU_ASSERT(is_tag_of(&after.info[v], after.info[v].name));
            CU_ASSERT_PTR_NOT_NULL(strstr(after.info[v].name, after.info[v].version));
        }
        CU_ASSERT_STRING_EQUAL(after.info[0].ref, before.info[0].ref);
        CU_ASSERT_STRING_EQUAL(after.info[0].name, before.info[0].name);
        CU_ASSERT_STRING_NOT_EQUAL(after.info[0].name, after.info[1].name);
    }
    ali_close(&ali);
}

static void make_and_destroy(const struct ali_symmetric *kind)
{
    const struct kms_key_template tmpl = {
        .type = kind->type, .label = "made/logical", .logical = true};
    struct ali ali;
    struct kms_call call = ali_call();
    struct kms_key_info made, ec;
    struct seen seen;
    char alias[64], any[KMS_KEY_REF_MAX];

    ali_setup(&ali);
    ali.settings.instance = (char *)(uintptr_t) "kst-hzz0123456789";
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "make", kms_waist_generate(ali.waist, &call, &tmpl, &made) == KMS_OK);
    CU_ASSERT_FATAL(
        list(&ali, (struct kms_key_filter){.label = tmpl.label, .logical = true}, &seen) == 1);
    CU_ASSERT(same(&seen.info[0], &made));
    CU_ASSERT(rotate(tmpl.label));
    ALI_CHECK(&call, "destroy", kms_waist_destroy(ali.waist, &call, made.ref) == KMS_OK);
    CU_ASSERT_EQUAL(
        list(&ali, (struct kms_key_filter){.label = tmpl.label, .logical = true}, &seen), 0);
    CU_ASSERT_EQUAL(kms_waist_destroy(ali.waist, &call, made.ref), KMS_E_NOT_FOUND);
    /* a pair is no such key: no ref stands for all of its versions */
    CU_ASSERT_FATAL(ali_new_key("EC_P256", "SIGN/VERIFY", alias) && ali_find(&ali, alias, &ec));
    (void)snprintf(any, sizeof(any), "%.*s/any", (int)strcspn(ec.ref, "/"), ec.ref);
    CU_ASSERT_EQUAL(kms_waist_destroy(ali.waist, &call, any), KMS_E_UNSUPPORTED);
    ali_close(&ali);
}

static void one_is_made_and_gone(void)
{
    ali_each_symmetric(make_and_destroy);
}

const struct unit_test ali_logical_tests[] = {
    {"a symmetric key is one", a_symmetric_key_is_one},
    {"its versions are told by their order", its_versions_are_told_by_their_order},
    {"a key pair is one for each version", a_key_pair_is_one_for_each_version},
    {"one is made and gone", one_is_made_and_gone},
};
const size_t ali_logical_test_count = UNIT_COUNT(ali_logical_tests);
