/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vault backend knows of keys that it has seen, where it may not list them, and what
 * reading an HMAC key costs. Over a door that plays Transit: one key, "kek".
 */
#include "backend/vault.h"

#include <string.h>

#include "backend/backend_conf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/fake_http.h"
#include "tests/unit/unit.h"

#define SEEN_MAX 64

static struct fake_http fake;
static struct kms_backend *vault;

/* Transit's key, as it is now. */
static struct {
    const char *type;
    unsigned latest, min_decrypt, min_encrypt; /* latest 0: there is none */
    unsigned made;                             /* when, of version 1 */
    bool may_read, imported;
    bool may_hmac;
} key;
static char body[8192];

static const char *describe_versions(void)
{
    size_t at = (size_t)snprintf(
        body, sizeof(body),
        "{\"data\":{\"type\":\"%s\",\"latest_version\":%u,\"min_decryption_version\":%u,"
        "\"min_encryption_version\":%u,\"imported_key\":%s",
        key.type, key.latest, key.min_decrypt, key.min_encrypt, key.imported ? "true" : "false");

    if (strcmp(key.type, "hmac") != 0) { /* of those it tells the numbers alone */
        for (unsigned i = key.min_decrypt; i <= key.latest; i++) {
            at +=
                (size_t)snprintf(body + at, sizeof(body) - at, "%s\"%u\":%u",
                                 i == key.min_decrypt ? ",\"keys\":{" : ",", i, key.made + i * 100);
        }
        at += (size_t)snprintf(body + at, sizeof(body) - at, "}");
    }
    (void)snprintf(body + at, sizeof(body) - at, "}}");
    return body;
}

/* {"input":"...","key_version":N}: 32 bytes that are of this key and version. */
static const char *make_mac(const char *asked)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    const char *at = strstr(asked, "\"key_version\":");
    unsigned version = at == NULL ? 0 : (unsigned)strtoul(at + 14, NULL, 10);
    char text[44];

    memset(text, 'A', sizeof(text));
    text[0] = digits[version % 32];
    text[1] = digits[version / 32];
    text[2] = digits[key.made % 32];
    text[43] = '=';
    (void)snprintf(body, sizeof(body), "{\"data\":{\"hmac\":\"vault:v%u:%.44s\"}}", version, text);
    return body;
}

static enum kms_status answer(struct fake_http *self, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    static const char denied[] = "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\"]}";
    const char *path = strstr(request->url, "/v1/");

    (void)err;
    if (strstr(path, "lookup-self") != NULL) {
        return fake_http_reply(request, ret, 200, "{\"data\":{\"ttl\":0,\"renewable\":false}}");
    }
    if (request->method == KMS_HTTP_LIST) {
        return fake_http_reply(request, ret, 403, denied);
    }
    if (request->method == KMS_HTTP_GET && !key.may_read) {
        return fake_http_reply(request, ret, 403, denied);
    }
    if (request->method == KMS_HTTP_GET) {
        return key.latest == 0 ? fake_http_reply(request, ret, 404, "{\"errors\":[]}")
                               : fake_http_reply(request, ret, 200, describe_versions());
    }
    if (strstr(path, "/hmac/") != NULL) {
        return key.may_hmac ? fake_http_reply(request, ret, 200, make_mac(self->body))
                            : fake_http_reply(request, ret, 403, denied);
    }
    return key.latest == 0
               ? fake_http_reply(request, ret, 400, "{\"errors\":[\"encryption key not found\"]}")
               : fake_http_reply(request, ret, 200, "{\"data\":{\"plaintext\":\"aGVsbG8=\"}}");
}

static void open_vault(void)
{
    static char address[] = "https://vault.example:8200", method[] = "token";
    static char token[] = "env:KMS_TEST_TOKEN", name[] = "vault";
    static char *addresses[] = {address};
    static struct kms_vault_auth_conf auth = {.method = method, .token = token};
    static struct kms_vault_conf conf = {
        .addresses = addresses, .addresses_count = 1, .auth = &auth};
    static const struct kms_backend_conf backend = {.name = name, .type = name, .vault = &conf};
    struct kms_error err = KMS_ERROR_INIT;

    (void)setenv("KMS_TEST_TOKEN", "s.token", 1);
    fake_http_init(&fake, answer);
    CU_ASSERT_EQUAL_FATAL(kms_vault_open_over(&backend, &fake.door, &vault, &err), KMS_OK);
}

static void begin(const char *type, unsigned latest)
{
    memset(&key, 0, sizeof(key));
    key.type = type;
    key.latest = latest;
    key.min_decrypt = 1;
    key.made = 1;
    key.may_read = key.may_hmac = true;
    open_vault();
}

static void end(void)
{
    kms_vault_ops.close(vault);
}

struct seen {
    unsigned count;
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

/* As the probe of kmsbridged does, by the name in its configuration. */
static enum kms_status list(struct seen *seen)
{
    const struct kms_key_filter filter = {.spec = "kek"};
    struct kms_call call = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};

    memset(seen, 0, sizeof(*seen));
    return kms_vault_ops.list_keys(vault, &call, &filter, see, seen);
}

static enum kms_status open_it(struct kms_call *call, const char *ref)
{
    static const uint8_t nonce[12];
    static const uint8_t bytes[21];
    const struct kms_params params = {.alg = KMS_ALG_AES_GCM, .iv = kms_span_of(nonce, 12)};
    uint8_t plain[64];
    struct kms_buf out = KMS_BUF_OVER(plain);

    *call = (struct kms_call){.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    return kms_vault_ops.decrypt(vault, call, ref, &params, kms_span_of(bytes, 21), &out);
}

/* ---- keys that went ----------------------------------------------------------------------- */

/*
 * The policy lets us read and use the key that is named, and list none. What became of it is seen
 * by who looks for it by name, first of all.
 */
static void what_became_of_a_key(void)
{
    static const struct {
        const char *name;
        unsigned latest, min_decrypt, made; /* the key by then */
        bool may_read;
        enum kms_status status;
        const char *said;
    } rows[] = {
        {"deleted", 0, 1, 1, true, KMS_E_NOT_FOUND, "no key kek (any more)"},
        {"restored", 2, 1, 1, true, KMS_OK, ""},
        {"deleted and made anew", 2, 1, 7, true, KMS_E_NOT_FOUND, "(any more)"},
        {"the former one again", 2, 1, 1, true, KMS_OK, ""},
        {"archived", 2, 2, 1, true, KMS_E_KEY_STATE, "version 1 of key kek is too old"},
        {"not archived any more", 2, 1, 1, true, KMS_OK, ""},
        {"not to be read", 2, 1, 1, false, KMS_OK, ""}, /* but used; it was read just now */
    };
    static struct seen seen;
    char ref[KMS_KEY_REF_MAX];
    struct kms_call call;

    begin("aes256-gcm96", 2);
    CU_ASSERT_EQUAL_FATAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(seen.count, 2);
    memcpy(ref, seen.info[0].ref, sizeof(ref));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        key.latest = rows[i].latest;
        key.min_decrypt = rows[i].min_decrypt;
        key.made = rows[i].made;
        key.may_read = rows[i].may_read;
        (void)list(&seen);
        for (unsigned n = 0; n < 2; n++) { /* and so it stays */
            UNIT_CHECK(rows[i].name, open_it(&call, ref) == rows[i].status);
            UNIT_CHECK(call.error.text, strstr(call.error.text, rows[i].said) != NULL);
        }
    }
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "LIST "), 0);
    end();
}

/* A key that is gone is asked for by name each time: it may come back, or be somebody else's. */
static void a_key_that_went_is_asked_for(void)
{
    static struct seen seen;
    char ref[KMS_KEY_REF_MAX];
    struct kms_call call;

    begin("aes256-gcm96", 1);
    CU_ASSERT_EQUAL_FATAL(list(&seen), KMS_OK);
    memcpy(ref, seen.info[0].ref, sizeof(ref));
    key.latest = 0;
    CU_ASSERT_EQUAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 0);
    CU_ASSERT_EQUAL(open_it(&call, ref), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(strncmp(call.error.request_id, "kb-", 3), 0);
    key.may_read = false;
    CU_ASSERT_EQUAL(open_it(&call, ref), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/transit/keys/kek"));
    key.may_read = true;
    key.latest = 1;
    CU_ASSERT_EQUAL(open_it(&call, ref), KMS_OK);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "LIST "), 0);
    /* of one that nobody has seen, nothing can be said */
    CU_ASSERT_EQUAL(open_it(&call, "kbv1-none"), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "cannot be listed"));
    end();
}

/* As many as are remembered, and who comes later takes the place of who came first. */
static void only_so_many_are_remembered(void)
{
    static struct seen seen;
    char first[KMS_KEY_REF_MAX], last[KMS_KEY_REF_MAX];
    struct kms_call call;

    begin("aes256-gcm96", 1);
    for (unsigned i = 0; i < 300; i++) {
        key.made = i + 1;
        CU_ASSERT_EQUAL_FATAL(list(&seen), KMS_OK);
        memcpy(i == 0 ? first : last, seen.info[0].ref, sizeof(last));
    }
    key.made++;
    CU_ASSERT_EQUAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL(open_it(&call, last), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(open_it(&call, first), KMS_E_DENIED); /* forgotten: looked for in the mount */
    CU_ASSERT_EQUAL(open_it(&call, seen.info[0].ref), KMS_OK);
    end();
}

/* ---- HMAC keys ---------------------------------------------------------------------------- */

/* The ids that somebody who knows nothing yet gives the versions, which are these and no others. */
static void same_ids_as_a_stranger(const char *row, const struct seen *seen)
{
    static struct seen other;
    struct kms_backend *mine = vault;
    static struct fake_http my_fake;

    my_fake = fake;
    open_vault();
    UNIT_CHECK(row, list(&other) == KMS_OK);
    UNIT_CHECK(row, other.count == seen->count);
    for (unsigned i = 0; i < other.count && i < SEEN_MAX; i++) {
        UNIT_CHECK(row, strcmp(other.info[i].id, seen->info[i].id) == 0);
    }
    kms_vault_ops.close(vault);
    fake = my_fake;
    vault = mine;
}

/* How many MACs it took to read the key as it is at each step. */
static void each_version_is_asked_once(void)
{
    static const struct {
        const char *name;
        unsigned latest, min_decrypt, min_encrypt, made;
        bool imported;
        unsigned macs, count;
    } rows[] = {
        {"first", 3, 1, 0, 1, false, 3, 3},
        {"again", 3, 1, 0, 1, false, 1, 3},
        {"rotated", 4, 1, 0, 1, false, 2, 4},
        {"rotated twice", 6, 1, 0, 1, false, 3, 6},
        {"archived", 6, 3, 0, 1, false, 1, 4},
        {"not archived any more", 6, 1, 0, 1, false, 3, 6},
        {"not to make MACs", 6, 1, 4, 1, false, 1, 3},
        {"to make them again", 6, 1, 0, 1, false, 4, 6},
        {"made anew", 6, 1, 0, 2, false, 6, 6},
        {"made anew, fewer", 2, 1, 0, 3, false, 2, 2},
        {"imported", 2, 1, 0, 3, true, 2, 2},
        {"gone", 0, 1, 0, 3, false, 0, 0},
        {"back", 2, 1, 0, 3, false, 2, 2},
    };
    static struct seen seen;

    begin("hmac", 1);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        key.latest = rows[i].latest;
        key.min_decrypt = rows[i].min_decrypt;
        key.min_encrypt = rows[i].min_encrypt;
        key.made = rows[i].made;
        key.imported = rows[i].imported;
        fake.count = 0;
        UNIT_CHECK(rows[i].name, list(&seen) == KMS_OK);
        UNIT_CHECK(rows[i].name, seen.count == rows[i].count);
        UNIT_CHECK(rows[i].name, fake_http_asked(&fake, "POST ") == rows[i].macs);
        same_ids_as_a_stranger(rows[i].name, &seen);
    }
    end();
}

/* Of a key with many versions all are shown at once: none is told as gone that nobody has asked
 * about. */
static void many_are_shown_at_once(void)
{
    static const struct {
        unsigned macs, count;
    } rows[] = {{50, 50}, {1, 50}, {1, 50}};
    static struct seen seen;
    char oldest[KMS_KEY_ID_MAX] = "";

    begin("hmac", 50);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        fake.count = 0;
        CU_ASSERT_EQUAL(list(&seen), KMS_OK);
        CU_ASSERT_EQUAL_FATAL(seen.count, rows[i].count);
        CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST "), rows[i].macs);
        CU_ASSERT_STRING_EQUAL(seen.info[seen.count - 1].version, "50");
        CU_ASSERT_TRUE(seen.info[seen.count - 1].latest);
        if (i == 0) {
            CU_ASSERT_STRING_EQUAL(seen.info[0].version, "1");
            memcpy(oldest, seen.info[0].id, sizeof(oldest));
        }
    }
    CU_ASSERT_STRING_EQUAL(seen.info[0].id, oldest);
    key.imported = true; /* what is known of it never counts, and none of it is hidden */
    fake.count = 0;
    CU_ASSERT_EQUAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 50);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST "), 50);
    end();
}

/* Who may make no MAC sees no key, and no error. */
static void without_the_right_it_is_not_shown(void)
{
    static struct seen seen;

    begin("hmac", 3);
    key.may_hmac = false;
    CU_ASSERT_EQUAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 0);
    key.may_hmac = true;
    CU_ASSERT_EQUAL(list(&seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 3);
    end();
}

static const struct unit_test tests[] = {
    {"what became of a key", what_became_of_a_key},
    {"a key that went is asked for", a_key_that_went_is_asked_for},
    {"only so many are remembered", only_so_many_are_remembered},
    {"each version is asked once", each_version_is_asked_once},
    {"many are shown at once", many_are_shown_at_once},
    {"without the right it is not shown", without_the_right_it_is_not_shown},
};

int main(void)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    return kms_secure_init() == KMS_OK ? unit_main("test_vault_known", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
