/* SPDX-License-Identifier: Apache-2.0 */
/* The vault backend over a door that answers what no real server would: what must not be believed.
 */
#include "backend/vault.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "backend/backend_conf.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/fake_http.h"
#include "tests/unit/unit.h"

#define KEY                                                                                        \
    "\"type\":\"aes256-gcm96\",\"latest_version\":2,\"min_decryption_version\":1,"                 \
    "\"min_encryption_version\":0,\"keys\":{\"1\":1795907525,\"2\":1795907600}"
#define SELF  "{\"data\":{\"ttl\":0,\"renewable\":false}}"
#define KNOWN "kbv1-d0ed66d1977ae22f494d96f02d257973a7905656"
/* 12 + 5 + 16 bytes */
#define SEALED "AAAAAAAAAAAAAAAAQUFBQUFBQUFBQUFBQUFBQUFBQUFB"

static struct fake_http fake;
static struct kms_backend *vault;
static const char *key_body, *op_body, *huge_body; /* of the key "huge", where there is one */
static const char *next_body; /* key_body, once a node that was behind is not any more; or NULL */
static unsigned behind;       /* so many reads of a key that was changed are of what it was */
static bool was_changed;
static const char *list_body;     /* NULL: by what there is */
static bool is_absent;            /* the key, until it is made */
static bool has_theirs;           /* a key "a-team" besides, which we may not read */
static enum kms_status no_answer; /* but this error; KMS_OK: there is one */
static unsigned op_status, self_status, key_status, list_status, list_ms;

static char yes[] = "true";
static char *allow_destroy;    /* of the next begin() */
static const char *first_said; /* what the first of two nodes says; NULL: there is one */
static unsigned first_status;

static enum kms_status answer(struct fake_http *self, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    const char *path = strstr(request->url, "/v1/");

    (void)self;
    if (first_said != NULL && strncmp(request->url, "https://vault.", 14) == 0) {
        return fake_http_reply(request, ret, first_status, first_said);
    }
    if (no_answer != KMS_OK) {
        return kms_error_set(err, no_answer, "planted");
    }
    if (strstr(path, "lookup-self") != NULL) {
        return fake_http_reply(request, ret, self_status,
                               self_status == 200 ? SELF : "{\"errors\":[\"permission denied\"]}");
    }
    if (strstr(path, "sys/internal/ui/mounts") != NULL) { /* a bad token sees nothing */
        return fake_http_reply(request, ret, 403, "{\"errors\":[\"permission denied\"]}");
    }
    if (request->method == KMS_HTTP_GET && strstr(path, "/keys/huge") != NULL) {
        return fake_http_reply(request, ret, 200, huge_body);
    }
    if (request->method == KMS_HTTP_GET && strstr(path, "/keys/a-team") != NULL) {
        return fake_http_reply(request, ret, 403, "{\"errors\":[\"permission denied\"]}");
    }
    if (request->method == KMS_HTTP_GET && was_changed && behind > 0) {
        behind--;
    } else if (request->method == KMS_HTTP_GET && was_changed) {
        key_body = next_body == NULL ? key_body : next_body;
        is_absent = was_changed = false;
    }
    if (request->method == KMS_HTTP_GET && is_absent) {
        return fake_http_reply(request, ret, 404, "{\"errors\":[]}");
    }
    was_changed =
        was_changed || (request->method == KMS_HTTP_POST && strstr(path, "/keys/") != NULL);
    if (request->method == KMS_HTTP_GET) {
        return fake_http_reply(request, ret, key_status, key_body);
    }
    if (request->method == KMS_HTTP_LIST && list_body != NULL) {
        return fake_http_reply(request, ret, 200, list_body);
    }
    if (request->method == KMS_HTTP_LIST && has_theirs) {
        return fake_http_reply(request, ret, 200,
                               "{\"data\":{\"keys\":[\"a-team\",\"kek\",\"a-team-2\"]}}");
    }
    if (request->method == KMS_HTTP_LIST) {
        (void)poll(NULL, 0, (int)list_ms);
        return fake_http_reply(request, ret, list_status,
                               list_status != 200  ? "{\"errors\":[\"storage\"]}"
                               : huge_body != NULL ? "{\"data\":{\"keys\":[\"huge\",\"kek\"]}}"
                                                   : "{\"data\":{\"keys\":[\"kek\",\"import/\"]}}");
    }
    return fake_http_reply(request, ret, op_status, op_body);
}

static void begin(void)
{
    static char address[] = "https://vault.example:8200", method[] = "token";
    static char token[] = "env:KMS_TEST_TOKEN", name[] = "vault", mount[] = "/team/transit/";
    static char other[] = "https://other.example:8200";
    static char *addresses[] = {address, other};
    static struct kms_vault_auth_conf auth = {.method = method, .token = token};
    static struct kms_vault_conf conf = {
        .addresses = addresses, .addresses_count = 1, .auth = &auth, .mount = mount};
    static const struct kms_backend_conf backend = {.name = name, .type = name, .vault = &conf};
    struct kms_error err = KMS_ERROR_INIT;

    conf.allow_destroy = allow_destroy;
    conf.addresses_count = first_said == NULL ? 1 : 2;
    (void)setenv("KMS_TEST_TOKEN", "s.token", 1);
    fake_http_init(&fake, answer);
    key_body = "{\"data\":{" KEY "}}";
    huge_body = list_body = next_body = NULL;
    has_theirs = is_absent = was_changed = false;
    behind = 0;
    no_answer = KMS_OK;
    key_status = op_status = self_status = list_status = 200;
    list_ms = 0;
    CU_ASSERT_EQUAL_FATAL(kms_vault_open_over(&backend, &fake.door, &vault, &err), KMS_OK);
}

static void end(void)
{
    kms_vault_ops.close(vault);
}

static struct kms_call new_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
}

struct seen {
    unsigned count;
    struct kms_key_info info[4];
};

static bool see(void *ctx, const struct kms_key_info *info)
{
    struct seen *seen = ctx;

    if (seen->count < 4) {
        seen->info[seen->count] = *info;
    }
    seen->count++;
    return true;
}

static enum kms_status list(struct kms_call *call, const char *spec, struct seen *seen)
{
    const struct kms_key_filter filter = {.spec = spec};

    *call = new_call();
    memset(seen, 0, sizeof(*seen));
    return kms_vault_ops.list_keys(vault, call, &filter, see, seen);
}

static void versions_are_keys(void)
{
    static struct seen seen;
    struct kms_call call;
    const struct kms_key_info *one = &seen.info[0];
    const struct kms_key_info *two = &seen.info[1];

    begin();
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(seen.count, 2);
    /* the documented derivation, computed beside: see vault.h */
    CU_ASSERT_STRING_EQUAL(one->id, "kbv1-d0ed66d1977ae22f494d96f02d257973a7905656");
    CU_ASSERT_STRING_EQUAL(one->ref, one->id);
    CU_ASSERT_STRING_NOT_EQUAL(one->id, two->id);
    CU_ASSERT_STRING_EQUAL(one->version, "1");
    CU_ASSERT_STRING_EQUAL(two->name, "team/transit/keys/kek/2");
    CU_ASSERT(!one->latest && two->latest);
    CU_ASSERT(one->tag_len == 20 && one->tag[0] == 0xd0 && one->tag[19] == 0x56);
    CU_ASSERT(kms_key_age_compare(one, two) < 0 && one->order == 1 && two->order == 2);
    CU_ASSERT(one->seal == KMS_ALG_AES_GCM && one->bits == 256 && one->local && !one->extractable);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "LIST https://vault.example:8200/v1/team/transit/keys"),
                    1);
    CU_ASSERT_STRING_EQUAL(fake.token, "s.token");
    key_body = "{\"data\":{\"exportable\":true,\"imported_key\":true," KEY "}}";
    CU_ASSERT_EQUAL(list(&call, "kek", &seen), KMS_OK);
    CU_ASSERT(seen.info[0].extractable && !seen.info[0].local);
    end();
}

/* A key "huge" of @count versions, each with a public key of @len bytes; freed by the caller. */
static char *huge(unsigned count, int len)
{
    size_t size = 200 + (size_t)count * ((size_t)len + 100);
    char *text = malloc(size);
    int at = snprintf(text, size,
                      "{\"data\":{\"type\":\"rsa-4096\",\"latest_version\":%u,"
                      "\"min_decryption_version\":1,\"min_encryption_version\":0,\"keys\":{",
                      count);

    for (unsigned i = 1; i <= count; i++) {
        at += snprintf(text + at, size - (size_t)at,
                       "%s\"%u\":{\"creation_time\":\"2026-11-29T00:00:00Z\",\"public_key\":"
                       "\"%0*u\"}",
                       i == 1 ? "" : ",", i, len, i);
    }
    (void)snprintf(text + at, size - (size_t)at, "}}}");
    return text;
}

/* All versions of a key come in one reply. */
static void many_versions_are_read(void)
{
    static const struct {
        unsigned count;
        int len;
        enum kms_status status;
    } rows[] = {{4096, 900, KMS_OK}, {4097, 10, KMS_E_TOO_LARGE}, {4096, 1024, KMS_E_TOO_LARGE}};
    struct kms_health health = {.ready = false};
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char *body = huge(rows[i].count, rows[i].len);
        bool good = rows[i].status == KMS_OK;

        begin();
        huge_body = body;
        for (unsigned n = 0; n < 4; n++) { /* as often as would open the breaker */
            CU_ASSERT_EQUAL(list(&call, "huge", &seen), rows[i].status);
            CU_ASSERT_EQUAL(seen.count, good ? rows[i].count : 0);
            UNIT_CHECK(call.error.text,
                       good || strstr(call.error.text, "min_decryption_version") != NULL);
        }
        /* and the others are there all the same */
        CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
        CU_ASSERT_EQUAL(seen.count, (good ? rows[i].count : 0) + 2);
        kms_vault_ops.health(vault, &health);
        CU_ASSERT_TRUE(health.ready);
        end();
        free(body);
    }
}

static void wrong_keys_are_not_believed(void)
{
    static const struct {
        const char *body, *word;
    } rows[] = {
        {"{}", "lacks the field \"data\""},
        {"", "no body"},
        {"<html>", "not one JSON object"},
        {"{\"data\":{" KEY "},\"data\":{" KEY "}}", "not one JSON object"},
        {"{\"data\":{\"latest_version\":1,\"keys\":{}}}", "\"type\""},
        {"{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":\"1\"}}", "\"latest_version\""},
        {"{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":0}}", "\"latest_version\""},
        {"{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":1,\"min_decryption_version\":1,"
         "\"min_encryption_version\":0}}",
         "\"keys\""},
        {"{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":1,\"min_decryption_version\":1,"
         "\"min_encryption_version\":0,\"keys\":{\"1x\":1}}}",
         "no version"},
        {"{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":1,\"min_decryption_version\":1,"
         "\"min_encryption_version\":0,\"keys\":{\"1\":\"now\"}}}",
         "\"1\" is text"},
        {"{\"data\":{\"type\":\"rsa-2048\",\"latest_version\":1,\"min_decryption_version\":1,"
         "\"min_encryption_version\":0,\"keys\":{\"1\":{\"public_key\":\"\"}}}}",
         "\"creation_time\""},
        {"{\"data\":{\"soft_deleted\":1," KEY "}}", "\"soft_deleted\""},
    };
    static struct seen seen;
    struct kms_call call;

    begin();
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        key_body = rows[i].body;
        UNIT_CHECK(rows[i].word, list(&call, "kek", &seen) == KMS_E_PROTOCOL);
        UNIT_CHECK(call.error.text, strstr(call.error.text, rows[i].word) != NULL);
        UNIT_CHECK(rows[i].word, seen.count == 0);
    }
    end();
}

/* A key is gone when Transit says so, not when somebody else does. */
static void who_says_that_there_is_none(void)
{
    static const struct {
        unsigned http;
        const char *body;
        enum kms_status status;
    } rows[] = {
        {404, "{\"errors\":[]}", KMS_OK}, /* no key: none is visited */
        {404, "{\"errors\":[\"no handler for route\"]}", KMS_E_NOT_FOUND},
        {404, "<html>not here</html>", KMS_E_PROTOCOL},
        {404, "", KMS_E_PROTOCOL},
        {403, "<html>go away</html>", KMS_E_PROTOCOL},
        {302, "", KMS_E_UNAVAILABLE},
        {503, "{\"errors\":[\"Vault is sealed\"]}", KMS_E_UNAVAILABLE},
        {429, "{\"errors\":[\"request path: rate limit quota exceeded\"]}", KMS_E_THROTTLED},
        {500, "{\"errors\":[\"storage\"]}", KMS_E_UNAVAILABLE},
    };
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        begin();
        key_status = rows[i].http;
        key_body = rows[i].body;
        UNIT_CHECK(rows[i].body, list(&call, "kek", &seen) == rows[i].status);
        UNIT_CHECK(rows[i].body, seen.count == 0);
        end();
    }
}

/* Which answers are of the node, so that another one is asked. */
static void sick_nodes_are_passed_over(void)
{
    static const struct {
        unsigned status;
        const char *said;
        enum kms_status then;
    } rows[] = {
        {503, "{\"errors\":[\"Vault is sealed\"]}", KMS_OK},
        {307, "", KMS_OK},
        {412, "{\"errors\":[]}", KMS_OK},
        {473, "", KMS_OK},
        {502, "<html>", KMS_OK},
        {500, "{\"errors\":[\"local node not active but active cluster node not found\"]}", KMS_OK},
        {500, "{\"errors\":[\"storage\"]}", KMS_E_UNAVAILABLE},
        {429, "{\"errors\":[\"quota\"]}", KMS_E_THROTTLED},
    };
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        first_status = rows[i].status;
        first_said = rows[i].said;
        begin();
        UNIT_CHECK(rows[i].said, list(&call, "kek", &seen) == rows[i].then);
        UNIT_CHECK(call.error.text, seen.count == (rows[i].then == KMS_OK ? 2 : 0));
        end();
        first_said = NULL;
    }
}

/* ---- encrypt and decrypt ------------------------------------------------------------------ */

static uint8_t iv[KMS_IV_MAX], ciphertext[2048];
static struct kms_sealed sealed;

static enum kms_status seal(struct kms_call *call, const char *ref)
{
    const struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};

    *call = new_call();
    sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(ciphertext)};
    return kms_vault_ops.encrypt(vault, call, ref, &params, kms_span_str("hello"), &sealed);
}

static void the_version_is_pinned(void)
{
    static struct seen seen;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":1}}";
    CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_OK);
    CU_ASSERT_STRING_EQUAL(fake.body, "{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"YWFk\","
                                      "\"key_version\":1,\"type\":\"never-make-one\"}");
    CU_ASSERT_STRING_EQUAL(sealed.key_id, seen.info[0].id);
    CU_ASSERT(sealed.iv.len == 12 && sealed.ciphertext.len == 21 && ciphertext[0] == 'A');
    end();
}

static void wrong_ciphertexts_are_not_believed(void)
{
    static const char *const bodies[] = {
        "{\"data\":{\"ciphertext\":\"vault:v2:" SEALED "\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":2}}",
        "{\"data\":{\"ciphertext\":\"vault:v11:" SEALED "\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":\"" SEALED "\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:AAAA\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "AAAA\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "=\",\"key_version\":1}}",
        "{\"data\":{\"ciphertext\":7,\"key_version\":1}}",
        "{\"data\":{\"key_version\":1}}",
        "{\"data\":null}",
        "",
    };
    static struct seen seen;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(bodies); i++) {
        op_body = bodies[i];
        UNIT_CHECK(bodies[i], seal(&call, seen.info[0].ref) == KMS_E_PROTOCOL);
        UNIT_CHECK(bodies[i], sealed.iv.len == 0 && sealed.ciphertext.len == 0);
    }
    end();
}

/* {"data":{"<field>":"vault:v1:<base64 of @len zeros>"}} */
static const char *reply_of(const char *field, size_t len)
{
    static char text[8192];
    static const uint8_t zeros[4096];
    int at = snprintf(text, sizeof(text), "{\"data\":{\"%s\":\"vault:v1:", field);

    CU_ASSERT_EQUAL_FATAL(
        kms_base64_encode(kms_span_of(zeros, len), text + at, sizeof(text) - (size_t)at), KMS_OK);
    at += (int)strlen(text + at);
    (void)snprintf(text + at, sizeof(text) - (size_t)at, "\"}}");
    return text;
}

/* What RSA makes is as long as the modulus. */
static void what_rsa_makes_has_its_length(void)
{
    static const struct {
        size_t len;
        enum kms_status status;
    } rows[] = {{256, KMS_OK},         {0, KMS_E_PROTOCOL},   {3, KMS_E_PROTOCOL},
                {255, KMS_E_PROTOCOL}, {257, KMS_E_PROTOCOL}, {3000, KMS_E_PROTOCOL}};
    const struct kms_params oaep = {.alg = KMS_ALG_RSA_OAEP_L_SHA256};
    const struct kms_params pss = {.alg = KMS_ALG_RSA_PSS_SHA256};
    static const uint8_t digest[32];
    static struct seen seen;
    uint8_t bytes[KMS_SIGNATURE_MAX];
    static uint8_t room[4096];
    struct kms_call call;

    begin();
    key_body = "{\"data\":{\"type\":\"rsa-2048\",\"latest_version\":1,"
               "\"min_decryption_version\":1,\"min_encryption_version\":0,\"keys\":{\"1\":"
               "{\"creation_time\":\"2026-11-29T00:00:00Z\",\"public_key\":\"\"}}}}";
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_buf signature = KMS_BUF_OVER(bytes);
        struct kms_sealed out = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(room)};

        op_body = reply_of("signature", rows[i].len);
        call = new_call();
        UNIT_CHECK(call.error.text,
                   kms_vault_ops.sign(vault, &call, seen.info[0].ref, &pss, kms_span_of(digest, 32),
                                      &signature) == rows[i].status);
        UNIT_CHECK(call.error.text, signature.len == (rows[i].status == KMS_OK ? 256 : 0));
        op_body = reply_of("ciphertext", rows[i].len);
        call = new_call();
        UNIT_CHECK(call.error.text,
                   kms_vault_ops.encrypt(vault, &call, seen.info[0].ref, &oaep,
                                         kms_span_str("hello"), &out) == rows[i].status);
        UNIT_CHECK(call.error.text, out.ciphertext.len == (rows[i].status == KMS_OK ? 256 : 0));
    }
    end();
}

static void plaintexts_come_whole(void)
{
    static struct seen seen;
    const uint8_t nonce[12] = {0};
    const struct kms_params params = {
        .alg = KMS_ALG_AES_GCM, .aad = kms_span_str("aad"), .iv = kms_span_of(nonce, 12)};
    uint8_t plain[64];
    struct kms_buf out = KMS_BUF_OVER(plain);
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"data\":{\"plaintext\":\"aGVsbG8=\"}}";
    memset(plain, 0x5a, sizeof(plain));
    CU_ASSERT_EQUAL(kms_vault_ops.decrypt(vault, &call, seen.info[1].ref, &params,
                                          kms_span_str("AAAAAAAAAAAAAAAAAAAAA"), &out),
                    KMS_OK);
    CU_ASSERT(out.len == 5 && memcmp(plain, "hello", 5) == 0 && plain[5] == 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.body, "\"ciphertext\":\"vault:v2:" SEALED "\""));
    op_body = "{\"data\":{\"plaintext\":\"aGVsbA==\"}}"; /* of another length than was sealed */
    out.len = 0;
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.decrypt(vault, &call, seen.info[1].ref, &params,
                                          kms_span_str("AAAAAAAAAAAAAAAAAAAAA"), &out),
                    KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(out.len, 0);
    op_body = "{\"data\":{\"plaintext\":\"not base64\"}}";
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.decrypt(vault, &call, seen.info[1].ref, &params,
                                          kms_span_str("AAAAAAAAAAAAAAAAAAAAA"), &out),
                    KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(out.len, 0);
    end();
}

/* 12 + 32 + 16 bytes */
#define SEALED_32 "AAAAAAAAAAAAAAAAQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
#define KEY_32    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static uint8_t data_key[32];
static struct kms_buf data_key_buf;

static enum kms_status make_data_key(struct kms_call *call, const char *ref, size_t len)
{
    const struct kms_params params = {.alg = KMS_ALG_AES_GCM, .aad = kms_span_str("aad")};

    *call = new_call();
    memset(data_key, 0, sizeof(data_key));
    data_key_buf = KMS_BUF_OVER(data_key);
    sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(ciphertext)};
    return kms_vault_ops.data_key(vault, call, ref, &params, len, &data_key_buf, &sealed);
}

static void data_keys_come_whole(void)
{
    static const char *const bodies[] = {
        "{\"data\":{\"ciphertext\":\"vault:v2:" SEALED_32 "\",\"plaintext\":\"" KEY_32 "\"}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED_32 "\",\"plaintext\":\"" KEY_32
        "\",\"key_version\":2}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"plaintext\":\"" KEY_32 "\"}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED_32 "\",\"plaintext\":\"aGVsbG8=\"}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED_32 "\",\"plaintext\":\"" KEY_32 "AAAA\"}}",
        "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED_32 "\"}}",
        "{\"data\":{\"plaintext\":\"" KEY_32 "\"}}",
    };
    static const uint8_t zeros[32];
    static struct seen seen;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED_32 "\",\"plaintext\":\"" KEY_32
              "\",\"key_version\":1}}";
    CU_ASSERT_EQUAL(make_data_key(&call, seen.info[0].ref, 32), KMS_OK);
    CU_ASSERT_STRING_EQUAL(fake.body,
                           "{\"bits\":256,\"associated_data\":\"YWFk\",\"key_version\":1}");
    CU_ASSERT_EQUAL(
        fake_http_asked(&fake,
                        "POST https://vault.example:8200/v1/team/transit/datakey/plaintext/kek"),
        1);
    CU_ASSERT(data_key_buf.len == 32 && data_key[31] == 31);
    CU_ASSERT(sealed.alg == KMS_ALG_AES_GCM && sealed.iv.len == 12 && sealed.ciphertext.len == 48);
    CU_ASSERT_STRING_EQUAL(sealed.key_id, seen.info[0].id);
    for (size_t i = 0; i < UNIT_COUNT(bodies); i++) {
        op_body = bodies[i];
        UNIT_CHECK(bodies[i], make_data_key(&call, seen.info[0].ref, 32) == KMS_E_PROTOCOL);
        UNIT_CHECK(bodies[i], data_key_buf.len == 0 && memcmp(data_key, zeros, 32) == 0);
        UNIT_CHECK(bodies[i], sealed.iv.len == 0 && sealed.ciphertext.len == 0);
    }
    fake.count = 0;
    CU_ASSERT_EQUAL(make_data_key(&call, seen.info[0].ref, 24), KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(fake.count, 0); /* it is known that Transit makes none */
    end();
}

/* From the version that sealed it to the newest; with an AAD Transit could not, and is not asked.
 */
static void rewraps_go_to_the_newest(void)
{
    static struct seen seen;
    const uint8_t nonce[12] = {0};
    struct kms_params params = {.alg = KMS_ALG_AES_GCM, .iv = kms_span_of(nonce, 12)};
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    for (unsigned version = 1; version <= 2; version++) {
        op_body = version == 2 ? "{\"data\":{\"ciphertext\":\"vault:v2:" SEALED
                                 "\",\"key_version\":2}}"
                               : "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\"}}";
        call = new_call();
        sealed =
            (struct kms_sealed){.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(ciphertext)};
        CU_ASSERT_EQUAL(kms_vault_ops.rewrap(vault, &call, seen.info[0].ref, &params,
                                             kms_span_str("AAAAAAAAAAAAAAAAAAAAA"), &sealed),
                        version == 2 ? KMS_OK : KMS_E_PROTOCOL);
        CU_ASSERT_STRING_EQUAL(fake.body,
                               "{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":2}");
        CU_ASSERT_EQUAL(sealed.ciphertext.len, version == 2 ? 21 : 0);
    }
    CU_ASSERT_STRING_EQUAL(sealed.key_id, seen.info[1].id);
    fake.count = 0;
    params.aad = kms_span_str("aad");
    CU_ASSERT_EQUAL(kms_vault_ops.rewrap(vault, &call, seen.info[0].ref, &params,
                                         kms_span_str("AAAAAAAAAAAAAAAAAAAAA"), &sealed),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(fake.count, 0);
    end();
}

static void answers_have_their_class(void)
{
    static const struct {
        unsigned http;
        const char *said;
        enum kms_status status;
    } rows[] = {
        {400, "cipher: message authentication failed", KMS_E_BAD_DATA},
        {400, "invalid ciphertext: no prefix", KMS_E_BAD_DATA},
        /* of a version that was read: this node has not heard of it yet */
        {400, "invalid ciphertext: version is too new", KMS_E_UNAVAILABLE},
        {400, "requested version for encryption is higher than the latest key version",
         KMS_E_UNAVAILABLE},
        {400, "ciphertext or signature version is disallowed by policy (too old)", KMS_E_KEY_STATE},
        {400, "requested version for encryption is less than the minimum encryption key version",
         KMS_E_KEY_STATE},
        {400, "encryption key not found", KMS_E_NOT_FOUND},
        {400, "unknown key type never-make-one", KMS_E_NOT_FOUND},
        {400, "error deleting policy kek: could not delete key; not found", KMS_E_NOT_FOUND},
        {400, "something else", KMS_E_INVALID},
        {413, "", KMS_E_TOO_LARGE},
        {429, "quota", KMS_E_THROTTLED},
        {500, "failed to RSA decrypt the ciphertext", KMS_E_BAD_DATA},
        {500, "disk", KMS_E_UNAVAILABLE},
        {502, "", KMS_E_UNAVAILABLE},
        {503, "Vault is sealed", KMS_E_UNAVAILABLE},
    };
    static struct seen seen;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char body[256];
        struct kms_call call;

        begin();
        CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
        (void)snprintf(body, sizeof(body), "{\"errors\":[\"%s\"]}", rows[i].said);
        op_body = body;
        op_status = rows[i].http;
        UNIT_CHECK(rows[i].said, seal(&call, seen.info[0].ref) == rows[i].status);
        UNIT_CHECK(call.error.text, strstr(call.error.text, rows[i].said) != NULL);
        UNIT_CHECK(call.error.text,
                   strstr(call.error.text, "(/v1/team/transit/encrypt/kek)") != NULL);
        UNIT_CHECK(call.error.code, strncmp(call.error.code, "HTTP ", 5) == 0);
        end();
    }
}

/* No answer is no sign of health, whoever is to blame. */
static void health_is_of_answers(void)
{
    static const struct {
        enum kms_status fails;
        unsigned status;
        const char *said;
        bool ready;
    } rows[] = {{KMS_OK, 200, "whatever", true},
                {KMS_OK, 400, "whatever", true},
                {KMS_OK, 400, "version is too new", true}, /* unavailable for this call alone */
                {KMS_E_INVALID, 0, "", false},             /* our own TLS files, as it may be */
                {KMS_E_UNAVAILABLE, 0, "", false}};
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_health health = {.ready = false};
        char body[256];

        begin();
        CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
        no_answer = rows[i].fails;
        op_status = rows[i].status;
        (void)snprintf(body, sizeof(body),
                       "{\"errors\":[\"%s\"],\"data\":{\"ciphertext\":\"vault:v1:" SEALED
                       "\",\"key_version\":1}}",
                       rows[i].said);
        op_body = body;
        (void)seal(&call, KNOWN);
        kms_vault_ops.health(vault, &health);
        UNIT_CHECK(call.error.text, health.ready == rows[i].ready);
        UNIT_CHECK(call.error.text, health.ready || health.error.status == rows[i].fails);
        end();
    }
}

/* A good answer names its request; of another one our own id is told, which was sent. */
static void each_request_has_an_id(void)
{
    char before[KMS_ERROR_CODE_MAX] = "";
    static struct seen seen;
    struct kms_call call;

    begin();
    op_body = "{\"request_id\":\"6d00a8a0-0c79\",\"data\":{\"ciphertext\":\"vault:v1:" SEALED
              "\",\"key_version\":1}}";
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_OK);
    CU_ASSERT_STRING_EQUAL(call.error.request_id, "6d00a8a0-0c79");
    op_status = 400;
    op_body = "{\"errors\":[\"whatever\"]}";
    for (unsigned i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_E_INVALID);
        CU_ASSERT_STRING_EQUAL(call.error.request_id, fake.correlation);
        CU_ASSERT(strncmp(call.error.request_id, "kb-", 3) == 0 &&
                  strlen(call.error.request_id) == 35);
        CU_ASSERT_STRING_NOT_EQUAL(call.error.request_id, before);
        memcpy(before, call.error.request_id, sizeof(before));
    }
    op_status = self_status = 403; /* the token is asked about, too */
    CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_E_AUTH);
    CU_ASSERT_EQUAL(strlen(call.error.request_id), 35);
    end();
}

/* ---- keys that nobody has seen yet -------------------------------------------------------- */

/* That the list of keys did not come says nothing of a key, to the next caller either. */
static void a_list_that_fails_says_nothing_of_keys(void)
{
    struct kms_call call;

    begin();
    op_body = "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":1}}";
    list_status = 500;
    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_E_UNAVAILABLE);
    }
    list_status = 200;
    CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_OK);
    CU_ASSERT_EQUAL(seal(&call, "kbv1-none"), KMS_E_NOT_FOUND);
    end();
}

/* Who may not make a key is denied to encrypt under one that has gone. */
static void denied_may_be_gone(void)
{
    static struct seen seen;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"errors\":[\"permission denied\"]}";
    op_status = 403;
    CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/encrypt/kek"));
    CU_ASSERT_EQUAL(strlen(call.error.request_id), 35);
    key_status = 503; /* it cannot be told */
    CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/encrypt/kek"));
    is_absent = true;
    for (unsigned i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_E_NOT_FOUND);
        CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "no key kek (any more)"));
    }
    end();
}

static void *seal_known(void *ctx)
{
    const struct kms_params params = {.alg = KMS_ALG_BEST};
    uint8_t storage[64], nonce[KMS_IV_MAX];
    struct kms_sealed out = {.iv = KMS_BUF_OVER(nonce), .ciphertext = KMS_BUF_OVER(storage)};
    struct kms_call call = new_call();

    *(enum kms_status *)ctx =
        kms_vault_ops.encrypt(vault, &call, KNOWN, &params, kms_span_str("hello"), &out);
    return NULL;
}

/* Whoever comes while the keys are listed waits for the list. */
static void a_list_on_its_way_is_waited_for(void)
{
    enum kms_status first = KMS_E_INTERNAL;
    enum kms_status second = KMS_E_INTERNAL;
    pthread_t thread;

    begin();
    op_body = "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":1}}";
    list_ms = 200;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, seal_known, &first), 0);
    (void)poll(NULL, 0, 50);
    (void)seal_known(&second);
    (void)pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(first, KMS_OK);
    CU_ASSERT_EQUAL(second, KMS_OK);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "LIST "), 1);
    end();
}

/* 403 is said of a bad token and of a good one: the token is asked about itself. */
static void denied_is_not_refused(void)
{
    static struct seen seen;
    struct kms_call call;
    struct kms_health health = {.ready = false};

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"errors\":[\"permission denied\"]}";
    op_status = 403;
    CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_E_DENIED);
    kms_vault_ops.health(vault, &health);
    CU_ASSERT_TRUE(health.ready);
    self_status = 403;
    CU_ASSERT_EQUAL(seal(&call, seen.info[0].ref), KMS_E_AUTH);
    CU_ASSERT_PTR_NULL(strstr(call.error.text, "s.token"));
    kms_vault_ops.health(vault, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_EQUAL(health.error.status, KMS_E_AUTH);
    end();
}

/* A mount that several share: LIST tells of all keys, a policy lets each read its own. */
static void what_may_not_be_read_hides_nothing_else(void)
{
    static struct seen seen;
    struct kms_call call;

    begin();
    has_theirs = true;
    op_body = "{\"data\":{\"ciphertext\":\"vault:v1:" SEALED "\",\"key_version\":1}}";
    CU_ASSERT_EQUAL(seal(&call, KNOWN), KMS_OK); /* looked for in the whole mount */
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 2);
    CU_ASSERT_STRING_EQUAL(seen.info[0].label, "kek");
    CU_ASSERT_EQUAL(call.error.status, KMS_OK);
    CU_ASSERT_EQUAL(list(&call, "a-team", &seen), KMS_E_DENIED); /* who names it is told */
    self_status = 403; /* a bad token is not taken for a policy */
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_E_AUTH);
    end();
}

/* Nor does one that we know nothing of: of a type of Vault Enterprise, or by a name beyond ours. */
static void what_is_not_ours_hides_nothing_else(void)
{
    char names[512];
    static struct seen seen;
    struct kms_call call;

    begin();
    huge_body = "{\"data\":{\"type\":\"aes256-cmac\",\"latest_version\":1,"
                "\"min_decryption_version\":1,\"min_encryption_version\":0}}";
    (void)snprintf(names, sizeof(names), "{\"data\":{\"keys\":[\"%0300d\",\"huge\",\"kek\"]}}", 1);
    list_body = names;
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 2);
    CU_ASSERT_STRING_EQUAL(seen.info[0].label, "kek");
    list_body = "{\"data\":{\"keys\":[\"kek\",7]}}";
    CU_ASSERT_EQUAL(list(&call, NULL, &seen), KMS_E_PROTOCOL);
    end();
}

/* The configuration names one: it is there, and it is told why it is not used. */
static void what_is_not_ours_is_told_by_name(void)
{
    static const struct {
        const char *body, *word;
    } rows[] = {
        {"{\"data\":{\"type\":\"aes256-cmac\",\"latest_version\":1,\"min_decryption_version\":1,"
         "\"min_encryption_version\":0}}",
         "aes256-cmac"},
        {"{\"data\":{\"derived\":true," KEY "}}", "aes256-gcm96, derived"},
    };
    const struct kms_key_filter labelled = {.label = "huge"};
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        begin();
        huge_body = rows[i].body;
        UNIT_CHECK(rows[i].word, list(&call, "huge", &seen) == KMS_E_UNSUPPORTED);
        UNIT_CHECK(call.error.text, strstr(call.error.text, "key huge ") != NULL);
        UNIT_CHECK(call.error.text, strstr(call.error.text, rows[i].word) != NULL);
        call = new_call(); /* whom an application looks for is not there */
        UNIT_CHECK(rows[i].word,
                   kms_vault_ops.list_keys(vault, &call, &labelled, see, &seen) == KMS_OK);
        UNIT_CHECK(rows[i].word, seen.count == 0);
        UNIT_CHECK(rows[i].word, list(&call, NULL, &seen) == KMS_OK && seen.count == 2);
        end();
    }
}

/* Two make a key of one name at once, and Transit keeps the first one's. */
static void another_may_be_quicker(void)
{
    static const struct {
        enum kms_key_type type;
        unsigned bits;
        enum kms_status status;
    } rows[] = {
        {KMS_KEY_AES, 256, KMS_OK},
        {KMS_KEY_AES, 128, KMS_E_EXISTS},
        {KMS_KEY_EC, 256, KMS_E_EXISTS},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_key_template tmpl = {
            .type = rows[i].type, .bits = rows[i].bits, .label = "kek"};
        struct kms_key_info info = {.ref = ""};
        struct kms_call call = new_call();

        begin();
        is_absent = true;
        UNIT_CHECK("status", kms_vault_ops.generate(vault, &call, &tmpl, &info) == rows[i].status);
        UNIT_CHECK("made", fake_http_asked(&fake, "POST") == 1);
        UNIT_CHECK("told", (info.ref[0] != '\0') == (rows[i].status == KMS_OK));
        end();
    }
}

static void names_stay_names(void)
{
    static const char *const names[] = {"../sys/seal", "a/b", "a b",   "",
                                        "-a",          "a.",  "a%2fb", "a?b"};
    static struct seen seen;
    struct kms_call call;

    begin();
    for (size_t i = 1; i < UNIT_COUNT(names); i++) {
        const struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = names[i]};
        struct kms_key_info info;
        unsigned before = fake.count;

        call = new_call();
        UNIT_CHECK(names[i], kms_vault_ops.generate(vault, &call, &tmpl, &info) == KMS_E_INVALID);
        if (names[i][0] != '\0') {
            UNIT_CHECK(names[i], list(&call, names[i], &seen) == KMS_OK && seen.count == 0);
        }
        UNIT_CHECK(names[i], fake.count == before); /* nobody was asked */
    }
    end();
}

/*
 * A standby passes on to the active node what changes a key, and answers by itself, late, what is
 * read of it (OpenBao from 2.5 on).
 */
static void a_node_that_is_behind_is_waited_for(void)
{
    static char three[] = "{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":3,"
                          "\"min_decryption_version\":1,\"min_encryption_version\":0,"
                          "\"keys\":{\"2\":1795907600,\"3\":1795907700}}}";
    const struct kms_key_template tmpl = {.type = KMS_KEY_AES, .label = "kek"};
    static struct seen seen;
    struct kms_key_info info = {.ref = ""};
    struct kms_call call = new_call();

    begin();
    is_absent = true;
    behind = 3;
    CU_ASSERT_EQUAL(kms_vault_ops.generate(vault, &call, &tmpl, &info), KMS_OK);
    CU_ASSERT_STRING_EQUAL(info.version, "2");
    CU_ASSERT_EQUAL(behind, 0);
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"data\":{\"latest_version\":3}}";
    next_body = three;
    behind = 3;
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.rotate(vault, &call, seen.info[0].ref, &info), KMS_OK);
    CU_ASSERT_STRING_EQUAL(info.version, "3");
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST"), 2);
    end();

    begin(); /* one that stays behind */
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "{\"data\":{\"latest_version\":3}}";
    behind = UINT_MAX;
    call = new_call();
    call.deadline_ns = kms_deadline_in(300 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_vault_ops.rotate(vault, &call, seen.info[0].ref, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "key kek is rotated"));
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST"), 1);
    call = new_call();
    call.deadline_ns = kms_deadline_in(300 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_vault_ops.generate(vault, &call, &tmpl, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "key kek is rotated"));
    end();

    begin();
    is_absent = true;
    behind = UINT_MAX;
    call = new_call();
    call.deadline_ns = kms_deadline_in(300 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_vault_ops.generate(vault, &call, &tmpl, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "key kek is made"));
    end();
}

/* Who hears of a failure only would rotate once more. */
static void a_rotation_that_cannot_be_read_is_told(void)
{
    static struct seen seen;
    struct kms_key_info info;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    op_body = "";
    key_status = 503;
    key_body = "{\"errors\":[\"Vault is sealed\"]}";
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.rotate(vault, &call, seen.info[0].ref, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST"), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "key kek is rotated"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "Vault is sealed"));
    CU_ASSERT_EQUAL(strncmp(call.error.request_id, "kb-", 3), 0);
    op_status = 403; /* and one that was not made is none */
    op_body = "{\"errors\":[\"permission denied\"]}";
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.rotate(vault, &call, seen.info[0].ref, &info), KMS_E_DENIED);
    CU_ASSERT_PTR_NULL(strstr(call.error.text, "is rotated"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/keys/kek/rotate"));
    end();
}

static void destroying_must_be_allowed(void)
{
    static struct seen seen;
    struct kms_call call;

    begin();
    CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
    call = new_call();
    CU_ASSERT_EQUAL(kms_vault_ops.destroy(vault, &call, seen.info[0].ref), KMS_E_DENIED);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "DELETE"), 0);
    CU_ASSERT_EQUAL(fake_http_asked(&fake, "POST"), 0);
    end();
}

/* Who may not delete a key does not have it made deletable for others. */
static void what_is_not_deleted_stays_as_it_is(void)
{
    static const struct {
        unsigned status;
        const char *body;
        unsigned posts;
    } rows[] = {
        {403, "{\"errors\":[\"permission denied\"]}", 0},
        {503, "{\"errors\":[\"Vault is sealed\"]}", 0},
        {400, "{\"errors\":[\"error deleting policy kek: deletion is not allowed for this key\"]}",
         1},
    };
    static struct seen seen;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        allow_destroy = yes;
        begin();
        allow_destroy = NULL;
        key_body = "{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":1,"
                   "\"min_decryption_version\":1,\"min_encryption_version\":0,"
                   "\"keys\":{\"1\":1795907525}}}";
        CU_ASSERT_EQUAL_FATAL(list(&call, "kek", &seen), KMS_OK);
        op_status = rows[i].status;
        op_body = rows[i].body;
        call = new_call();
        UNIT_CHECK(rows[i].body, kms_vault_ops.destroy(vault, &call, seen.info[0].ref) != KMS_OK);
        UNIT_CHECK(rows[i].body, fake_http_asked(&fake, "DELETE") == 1);
        UNIT_CHECK(rows[i].body, fake_http_asked(&fake, "POST") == rows[i].posts);
        end();
    }
}

static const struct unit_test tests[] = {
    {"versions are keys", versions_are_keys},
    {"each request has an id", each_request_has_an_id},
    {"health is of answers", health_is_of_answers},
    {"many versions are read", many_versions_are_read},
    {"wrong keys are not believed", wrong_keys_are_not_believed},
    {"who says that there is none", who_says_that_there_is_none},
    {"sick nodes are passed over", sick_nodes_are_passed_over},
    {"the version is pinned", the_version_is_pinned},
    {"wrong ciphertexts are not believed", wrong_ciphertexts_are_not_believed},
    {"what RSA makes has its length", what_rsa_makes_has_its_length},
    {"plaintexts come whole", plaintexts_come_whole},
    {"data keys come whole", data_keys_come_whole},
    {"rewraps go to the newest", rewraps_go_to_the_newest},
    {"answers have their class", answers_have_their_class},
    {"a list that fails says nothing of keys", a_list_that_fails_says_nothing_of_keys},
    {"a list on its way is waited for", a_list_on_its_way_is_waited_for},
    {"denied is not refused", denied_is_not_refused},
    {"denied may be gone", denied_may_be_gone},
    {"what may not be read hides nothing else", what_may_not_be_read_hides_nothing_else},
    {"what is not ours hides nothing else", what_is_not_ours_hides_nothing_else},
    {"what is not ours is told by name", what_is_not_ours_is_told_by_name},
    {"another may be quicker", another_may_be_quicker},
    {"names stay names", names_stay_names},
    {"a node that is behind is waited for", a_node_that_is_behind_is_waited_for},
    {"a rotation that cannot be read is told", a_rotation_that_cannot_be_read_is_told},
    {"destroying must be allowed", destroying_must_be_allowed},
    {"what is not deleted stays as it is", what_is_not_deleted_stays_as_it_is},
};

int main(void)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    return kms_secure_init() == KMS_OK ? unit_main("test_vault", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
