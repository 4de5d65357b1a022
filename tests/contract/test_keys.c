/* SPDX-License-Identifier: Apache-2.0 */
/* Identities, listing, making and destroying. */
#include <openssl/evp.h>
#include <string.h>

#include "common/codec.h"
#include "tests/contract/contract.h"

static struct fx_sealed sealed;

struct seen {
    unsigned count;
    struct kms_key_info last;
};

static bool see(void *ctx, const struct kms_key_info *info)
{
    struct seen *seen = ctx;

    seen->count++;
    seen->last = *info;
    return true;
}

static struct seen list(struct kms_waist *waist, struct kms_key_filter filter)
{
    struct seen seen = {.count = 0};
    struct kms_call call = fx_call();
    enum kms_status status = kms_waist_list_keys(waist, &call, &filter, see, &seen);

    FX_CHECK(&call, status == KMS_OK);
    return seen;
}

static struct kms_span tag_of(const struct kms_key_info *info)
{
    return kms_span_of(info->tag, info->tag_len);
}

/* ---- listing ------------------------------------------------------------------------------ */

static void found_by_each_name(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;
    struct seen seen;
    char hex[2 * KMS_KEY_TAG_MAX + 1], id[160], uri[512];

    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(kms_hex_encode(tag_of(&info), hex, sizeof(hex)), KMS_OK);
    (void)snprintf(id, sizeof(id), "id:%s", hex);
    (void)snprintf(uri, sizeof(uri), "pkcs11:object=%s;type=secret-key", info.label);
    const struct kms_key_filter filters[] = {
        {.label = info.label}, {.tag = tag_of(&info)},
        {.ref = info.ref},     {.label = info.label, .tag = tag_of(&info), .ref = info.ref},
        {.spec = info.label},  {.spec = id},
        {.spec = uri},
    };
    for (size_t i = 0; i < UNIT_COUNT(filters); i++) {
        seen = list(waist, filters[i]);
        CU_ASSERT_EQUAL(seen.count, 1);
        CU_ASSERT_STRING_EQUAL(seen.last.id, info.id);
        CU_ASSERT_STRING_EQUAL(seen.last.label, info.label);
    }
    CU_ASSERT(list(waist, (struct kms_key_filter){.label = NULL}).count >= 1);
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = "no such"}).count, 0);
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.ref = "kb1-00"}).count, 0);
    CU_ASSERT_EQUAL(
        list(waist, (struct kms_key_filter){.label = info.label, .ref = "kb1-00"}).count, 0);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

static void bad_specs_are_refused(void)
{
    static const char *const bad[] = {"id:",
                                      "id:0",
                                      "id:zz",
                                      "pkcs11:",
                                      "pkcs11:object=a%",
                                      "pkcs11:object=a?pin-value=1",
                                      "pkcs11:object=a;no-such=1",
                                      "pkcs11:token=another;object=a"};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_call call = fx_call();
        struct kms_key_filter filter = {.spec = bad[i]};
        struct seen seen = {.count = 0};

        UNIT_CHECK(bad[i], kms_waist_list_keys(waist, &call, &filter, see, &seen) == KMS_E_INVALID);
        UNIT_CHECK(bad[i], seen.count == 0);
    }
    fx_close(waist);
}

/* ---- identity ----------------------------------------------------------------------------- */

/* The documented derivation, by OpenSSL from the key's bytes. */
static void expected_id(const uint8_t *key, char *ret_id, size_t size)
{
    static const uint8_t block[16] = "kmsbridge-id\0\0\0\2";
    uint8_t message[64] = "kmsbridge key id v1";
    uint8_t digest[32];
    size_t len = 20;
    int got = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

    memcpy(message + len, "aes", 4);
    len += 4;
    CU_ASSERT_EQUAL(EVP_EncryptInit_ex(ctx, EVP_aes_256_ecb(), NULL, key, NULL), 1);
    EVP_CIPHER_CTX_set_padding(ctx, 0);
    CU_ASSERT_EQUAL(EVP_EncryptUpdate(ctx, message + len, &got, block, 16), 1);
    EVP_CIPHER_CTX_free(ctx);
    CU_ASSERT_EQUAL(EVP_Digest(message, len + 16, digest, NULL, EVP_sha256(), NULL), 1);
    memcpy(ret_id, "kb1-", 4);
    CU_ASSERT_EQUAL(kms_hex_encode(kms_span_of(digest, 20), ret_id + 4, size - 4), KMS_OK);
}

static void identity_is_of_the_material(void)
{
    static const uint8_t key[32] = {"0123456789abcdefFEDCBA987654321"};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    char want[64], label_a[64], label_b[64];
    struct seen a, b;

    (void)snprintf(label_a, sizeof(label_a), "%s", fx_label());
    (void)snprintf(label_b, sizeof(label_b), "%s", fx_label());
    (void)list(waist, (struct kms_key_filter){.label = "x"}); /* connects */
    if (!fx_raw_import(fx_token, FX_RAW_AES, label_a, kms_span_str("1"), kms_span_of(key, 32))) {
        fx_skip("import", "the token imports no AES key");
        fx_close(waist);
        return;
    }
    CU_ASSERT_TRUE(
        fx_raw_import(fx_token, FX_RAW_AES, label_b, kms_span_str("2"), kms_span_of(key, 32)));
    expected_id(key, want, sizeof(want));
    a = list(waist, (struct kms_key_filter){.label = label_a});
    b = list(waist, (struct kms_key_filter){.label = label_b});
    CU_ASSERT(a.count == 1 && b.count == 1);
    CU_ASSERT_STRING_EQUAL(a.last.id, want);
    CU_ASSERT_STRING_EQUAL(b.last.id, want);
    CU_ASSERT_STRING_EQUAL(a.last.ref, a.last.id);
    fx_destroy(waist, want); /* the material goes, under each of its names */
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = label_a}).count, 0);
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = label_b}).count, 0);
    fx_close(waist);
}

static void replicas_agree(void)
{
    static const uint8_t key[32] = {7, 7, 7};
    struct kms_waist *one = fx_open(NULL, NULL, 0);
    struct kms_waist *two = NULL;
    struct kms_buf out;
    uint8_t plain[64];
    char label[64];
    struct seen a, b;

    if (fx_token2 == NULL) {
        fx_skip("token2", "there is one token only");
        fx_close(one);
        return;
    }
    two = fx_open(fx_token2, NULL, 0);
    out = KMS_BUF_OVER(plain);
    (void)snprintf(label, sizeof(label), "%s", fx_label());
    (void)list(one, (struct kms_key_filter){.label = "x"});
    (void)list(two, (struct kms_key_filter){.label = "x"});
    CU_ASSERT_TRUE(
        fx_raw_import(fx_token, FX_RAW_AES, label, kms_span_str("1"), kms_span_of(key, 32)));
    CU_ASSERT_TRUE(
        fx_raw_import(fx_token2, FX_RAW_AES, "elsewhere", kms_span_str("9"), kms_span_of(key, 32)));
    a = list(one, (struct kms_key_filter){.label = label});
    b = list(two, (struct kms_key_filter){.label = "elsewhere"});
    CU_ASSERT(a.count == 1 && b.count == 1);
    CU_ASSERT_STRING_EQUAL(a.last.id, b.last.id);
    CU_ASSERT_EQUAL(fx_seal(one, a.last.ref, KMS_ALG_BEST, kms_span_str("aad"),
                            kms_span_str("sealed on one, opened on two"), &sealed),
                    KMS_OK);
    CU_ASSERT_EQUAL(fx_unseal(two, sealed.sealed.key_id, &sealed, kms_span_str("aad"), &out),
                    KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&out), kms_span_str("sealed on one, opened on two")));
    fx_destroy(one, a.last.ref);
    fx_destroy(two, b.last.ref);
    fx_close(one);
    fx_close(two);
}

static void identity_outlives_us(void)
{
    static const enum kms_key_type types[] = {KMS_KEY_AES, KMS_KEY_RSA, KMS_KEY_EC,
                                              KMS_KEY_GENERIC};

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_waist *waist = fx_open(NULL, NULL, 0);
        struct kms_key_info info;
        struct seen seen;
        bool made = fx_make(waist, types[i], types[i] == KMS_KEY_RSA ? 2048 : 0, &info);

        fx_close(waist);
        if (!made) {
            continue;
        }
        waist = fx_open(NULL, NULL, 0);
        seen = list(waist, (struct kms_key_filter){.label = info.label});
        CU_ASSERT_EQUAL(seen.count, 1);
        CU_ASSERT_STRING_EQUAL(seen.last.id, info.id);
        CU_ASSERT_EQUAL(seen.last.type, types[i]);
        CU_ASSERT_EQUAL(seen.last.bits, info.bits);
        fx_destroy(waist, info.ref);
        fx_close(waist);
    }
}

static void a_remade_key_is_another(void)
{
    static const enum kms_key_type types[] = {KMS_KEY_AES, KMS_KEY_RSA, KMS_KEY_EC,
                                              KMS_KEY_GENERIC};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_key_info first, second;
        struct kms_call call = fx_call();
        struct kms_key_template tmpl = {.type = types[i],
                                        .bits = types[i] == KMS_KEY_RSA ? 2048 : 0};

        if (!fx_make(waist, types[i], tmpl.bits, &first)) {
            continue;
        }
        tmpl.label = first.label;
        tmpl.tag = tag_of(&first);
        CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &second), KMS_E_EXISTS);
        fx_destroy(waist, first.ref);
        call = fx_call();
        if (fx_is_service()) { /* its tags are its own */
            CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &second), KMS_E_UNSUPPORTED);
            tmpl.tag = KMS_SPAN_NONE;
            call = fx_call();
        }
        CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &second), KMS_OK);
        CU_ASSERT_STRING_NOT_EQUAL(first.id, second.id);
        CU_ASSERT(kms_span_equal(tag_of(&first), tag_of(&second)) == !fx_is_service());
        CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.ref = first.ref}).count, 0);
        fx_destroy(waist, second.ref);
    }
    fx_close(waist);
}

/* A companion is part of the identity, and the identity without it stays a ref. */
static void a_companion_counts(void)
{
    static const uint8_t key[32] = {1, 2, 3}, mac[32] = {4, 5, 6};
    struct kms_waist *waist = fx_open(NULL, "aes-cbc-hmac", 0);
    char label[64], mac_label[80];
    struct seen alone, both, alias;

    (void)snprintf(label, sizeof(label), "%s", fx_label());
    (void)snprintf(mac_label, sizeof(mac_label), "%s-mac", label);
    (void)list(waist, (struct kms_key_filter){.label = "x"});
    if (!fx_raw_import(fx_token, FX_RAW_AES, label, kms_span_str("1"), kms_span_of(key, 32))) {
        fx_skip("import", "the token imports no AES key");
        fx_close(waist);
        return;
    }
    alone = list(waist, (struct kms_key_filter){.label = label});
    CU_ASSERT_EQUAL(alone.last.seal, KMS_ALG_NONE);
    CU_ASSERT_TRUE(
        fx_raw_import(fx_token, FX_RAW_HMAC, mac_label, kms_span_str("1"), kms_span_of(mac, 32)));
    if (fx_raw_count(fx_token, label) == 0) {
        fx_skip("aes-cbc-hmac", "the token keeps one key for each CKA_ID");
        fx_close(waist);
        return;
    }
    fx_close(waist);
    waist = fx_open(NULL, "aes-cbc-hmac", 0);
    both = list(waist, (struct kms_key_filter){.label = label});
    alias = list(waist, (struct kms_key_filter){.ref = alone.last.ref});
    CU_ASSERT(alone.count == 1 && both.count == 1 && alias.count == 1);
    CU_ASSERT_EQUAL(both.last.seal, KMS_ALG_AES_CBC_HMAC);
    CU_ASSERT_STRING_NOT_EQUAL(both.last.id, alone.last.id);
    CU_ASSERT_STRING_EQUAL(alias.last.id, alone.last.id);
    CU_ASSERT_STRING_EQUAL(alias.last.label, label);
    CU_ASSERT_EQUAL(
        fx_seal(waist, both.last.ref, KMS_ALG_BEST, KMS_SPAN_NONE, kms_span_str("text"), &sealed),
        KMS_OK);
    fx_destroy(waist, both.last.ref);
    CU_ASSERT_EQUAL(fx_raw_count(fx_token, mac_label), 0);
    fx_close(waist);
}

/* ---- making ------------------------------------------------------------------------------- */

static void made_keys_never_leave(void)
{
    static const enum kms_key_type types[] = {KMS_KEY_AES, KMS_KEY_GENERIC, KMS_KEY_RSA};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_key_info info;
        struct fx_raw_facts facts;

        if (!fx_make(waist, types[i], types[i] == KMS_KEY_RSA ? 2048 : 0, &info)) {
            continue;
        }
        facts = fx_raw_facts(fx_token, info.label, tag_of(&info));
        CU_ASSERT_TRUE(facts.found);
        CU_ASSERT_TRUE(facts.on_token);
        CU_ASSERT_TRUE(facts.private);
        CU_ASSERT_TRUE(facts.sensitive);
        CU_ASSERT_FALSE(facts.extractable);
        CU_ASSERT_FALSE(facts.value_readable);
        CU_ASSERT_FALSE(info.extractable);
        CU_ASSERT_EQUAL(info.tag_len, 8);
        fx_destroy(waist, info.ref);
    }
    fx_close(waist);
}

static void newer_tags_sort_after(void)
{
    static const uint8_t far[] = {0xf0, 0, 0, 0, 0, 0, 0, 0xff};
    static const uint8_t after[] = {0xf0, 0, 0, 0, 0, 0, 1, 0};
    static const uint8_t last[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info[4];
    struct kms_key_template tmpl = {.type = KMS_KEY_AES};
    struct kms_call call = fx_call();
    char label[64];

    (void)snprintf(label, sizeof(label), "%s", fx_label());
    tmpl.label = label;
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info[0]), KMS_OK);
    tmpl.tag = kms_span_of(far, sizeof(far));
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info[1]), KMS_OK);
    tmpl.tag = KMS_SPAN_NONE;
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info[2]), KMS_OK);
    CU_ASSERT(kms_span_equal(tag_of(&info[2]), kms_span_of(after, sizeof(after))));
    tmpl.tag = kms_span_of(last, sizeof(last));
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info[3]), KMS_OK);
    tmpl.tag = KMS_SPAN_NONE;
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info[3]), KMS_E_EXISTS);
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = label}).count, 4);
    for (unsigned i = 0; i < 4; i++) {
        fx_destroy(waist, i < 3 ? info[i].ref
                                : list(waist, (struct kms_key_filter){.label = label}).last.ref);
    }
    CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = label}).count, 0);
    fx_close(waist);
}

static void bad_templates_are_refused(void)
{
    static const struct kms_key_template bad[] = {
        {.type = KMS_KEY_AES, .bits = 255, .label = "x"},
        {.type = KMS_KEY_RSA, .bits = 1024, .label = "x"},
        {.type = KMS_KEY_RSA, .bits = 8192, .label = "x"},
        {.type = KMS_KEY_EC, .bits = 257, .label = "x"},
        {.type = KMS_KEY_AES, .label = ""},
        {.type = KMS_KEY_AES, .label = NULL},
    };
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_call call = fx_call();
        struct kms_key_info info;

        CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &bad[i], &info), KMS_E_INVALID);
    }
    fx_close(waist);
}

/* What the token says that it does not make it refuses in words, not as a mistake of the caller's.
 */
static void what_it_has_not_is_not_made(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_token_info token;

    CU_ASSERT_EQUAL_FATAL(kms_waist_describe(waist, &call, &token), KMS_OK);
    for (unsigned type = 0; type < KMS_KEY_TYPE_COUNT; type++) {
        const char *name = kms_key_type_name((enum kms_key_type)type);
        const struct kms_key_template tmpl = {.type = (enum kms_key_type)type, .label = fx_label()};
        struct kms_key_info info;

        if ((token.generates >> type & 1u) != 0) {
            continue;
        }
        call = fx_call();
        UNIT_CHECK(name, kms_waist_generate(waist, &call, &tmpl, &info) == KMS_E_UNSUPPORTED);
        UNIT_CHECK(name, strlen(call.error.text) > 10);
        UNIT_CHECK(name, list(waist, (struct kms_key_filter){.label = tmpl.label}).count == 0);
    }
    CU_ASSERT_EQUAL((token.generates >> KMS_KEY_SM4 & 1u) != 0, fx_seals_itself());
    fx_close(waist);
}

static void destroyed_is_not_found(void)
{
    static const enum kms_key_type types[] = {KMS_KEY_AES, KMS_KEY_RSA, KMS_KEY_EC, KMS_KEY_EDDSA,
                                              KMS_KEY_GENERIC};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        struct kms_key_info info;
        struct kms_call call = fx_call();

        if (!fx_make(waist, types[i], types[i] == KMS_KEY_RSA ? 2048 : 0, &info)) {
            continue;
        }
        CU_ASSERT(fx_is_service() || fx_raw_count(fx_token, info.label) >= 1);
        fx_destroy(waist, info.ref);
        /* nor is a public half left */
        CU_ASSERT(fx_is_service() || fx_raw_count(fx_token, info.label) == 0);
        CU_ASSERT_EQUAL(kms_waist_destroy(waist, &call, info.ref), KMS_E_NOT_FOUND);
        if (!fx_lacks("instant-destroy")) { /* else it is about to go, and its service says so */
            CU_ASSERT_EQUAL(
                fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE, kms_span_str("x"), &sealed),
                KMS_E_NOT_FOUND);
        }
        CU_ASSERT_EQUAL(list(waist, (struct kms_key_filter){.label = info.label}).count, 0);
    }
    fx_close(waist);
}

const struct unit_test fx_key_tests[] = {
    {"found by each name", found_by_each_name},
    {"bad specs are refused", bad_specs_are_refused},
    {"identity is of the material", identity_is_of_the_material},
    {"replicas agree", replicas_agree},
    {"identity outlives us", identity_outlives_us},
    {"a remade key is another", a_remade_key_is_another},
    {"a companion counts", a_companion_counts},
    {"made keys never leave", made_keys_never_leave},
    {"newer tags sort after", newer_tags_sort_after},
    {"bad templates are refused", bad_templates_are_refused},
    {"what it has not is not made", what_it_has_not_is_not_made},
    {"destroyed is not found", destroyed_is_not_found},
};
const size_t fx_key_test_count = UNIT_COUNT(fx_key_tests);
