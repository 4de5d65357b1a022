/* SPDX-License-Identifier: Apache-2.0 */
/* The `alibaba` backend without a service: what it writes and how it reads, over a door that
 * answers as it is told. */
#include "backend/alibaba_parts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/alibaba.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/secure.h"
#include "tests/unit/alibaba_plain.h"
#include "tests/unit/unit.h"

/* ---- formats that are frozen -------------------------------------------------------------- */

/* Computed apart, by Python's hashlib. */
static void the_aad_becomes_one_entry(void)
{
    char *entries[] = {unconst("tenant=a \"b\""), unconst("x==")};
    struct kms_alibaba_conf plain = {.region = NULL};
    struct kms_alibaba_conf with = {.encryption_context = entries, .encryption_context_count = 2};
    uint8_t all[256];
    char text[KMS_ALI_CONTEXT_MAX];
    struct kms_error err = KMS_ERROR_INIT;

    for (size_t i = 0; i < sizeof(all); i++) {
        all[i] = (uint8_t)i;
    }
    CU_ASSERT_EQUAL(kms_ali_context(&plain, KMS_SPAN_NONE, text, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "");
    CU_ASSERT_EQUAL(kms_ali_context(&plain, kms_span_str("aad"), text, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(
        text, "{\"kmsbridge-aad\":\"v1:_1zdDGBsdGcnxBTQr72d4XLAxGsMLlDNFB1VnM0PLLg\"}");
    CU_ASSERT_EQUAL(kms_ali_context(&plain, kms_span_of(all, sizeof(all)), text, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(
        text, "{\"kmsbridge-aad\":\"v1:TF6Hsp_ITf9JKgxL8j9PS2AKND5FN97Y0KfPuA_E2Jw\"}");
    CU_ASSERT_EQUAL(kms_ali_context(&with, KMS_SPAN_NONE, text, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "{\"tenant\":\"a \\\"b\\\"\",\"x\":\"=\"}");
    CU_ASSERT_EQUAL(kms_ali_context(&with, kms_span_str("aad"), text, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text,
                           "{\"tenant\":\"a \\\"b\\\"\",\"x\":\"=\","
                           "\"kmsbridge-aad\":\"v1:_1zdDGBsdGcnxBTQr72d4XLAxGsMLlDNFB1VnM0PLLg\"}");
}

static void identities_are_frozen(void)
{
    static const char *const bad[] = {"", "a/b", "a b", "a\n", "acs:kms"};
    char id[KMS_KEY_ID_MAX], name[KMS_ALI_ID_MAX + 1];

    CU_ASSERT_TRUE(kms_ali_identity("key-1", "version-1", id));
    CU_ASSERT_STRING_EQUAL(id, "ali1-35ade37bd6d102376ea551252605a4b5d49b51b0");
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        UNIT_CHECK(bad[i], !kms_ali_identity(bad[i], "version-1", id));
        UNIT_CHECK(bad[i], !kms_ali_identity("key-1", bad[i], id));
    }
    memset(name, 'x', sizeof(name)); /* 63 characters fit a ref, 64 do not */
    name[KMS_ALI_ID_MAX] = '\0';
    CU_ASSERT_FALSE(kms_ali_identity(name, "version-1", id));
    name[KMS_ALI_ID_MAX - 1] = '\0';
    CU_ASSERT_TRUE(kms_ali_identity(name, name, id));
}

static void refs_are_taken_apart(void)
{
    static const char *const bad[] = {"", "/", "a", "a/", "/b", "a/b/c", "a /b", "kb1-0123"};
    struct kms_ali_ref ref;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_ali_ref_parse("key-1/version-1", &ref, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(ref.key, "key-1");
    CU_ASSERT_STRING_EQUAL(ref.version, "version-1");
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        kms_error_clear(&err);
        UNIT_CHECK(bad[i], kms_ali_ref_parse(bad[i], &ref, &err) == KMS_E_NOT_FOUND);
    }
}

static void dates_are_read(void)
{
    static const char *const bad[] = {"",
                                      "2016-03-25",
                                      "2016-03-25T10:42:40",
                                      "x",
                                      "2016-03-25T10:42:40Zx",
                                      "2016-13-25T10:42:40Z"};
    uint64_t seconds = 0;

    CU_ASSERT(kms_ali_date("2016-03-25T10:42:40Z", &seconds) && seconds == 1458902560);
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        UNIT_CHECK(bad[i], !kms_ali_date(bad[i], &seconds));
    }
}

/* An Expiration that is beyond what nanoseconds in 64 bits can say, by a minute. */
static enum kms_status offer_far(void *ctx, const struct kms_http_wait *wait,
                                 const struct kms_credential_value *old,
                                 struct kms_credential_slot *slot, struct kms_error *err)
{
    time_t end = (time_t)(kms_wall_ms() / 1000 + UINT64_MAX / KMS_NS_PER_S + 60);
    struct tm tm;
    char date[32];
    char text[256];
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    enum kms_status status = KMS_E_INTERNAL;

    (void)ctx;
    (void)wait;
    (void)old;
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&end, &tm));
    (void)snprintf(text, sizeof(text),
                   "{\"AccessKeyId\":\"a\",\"AccessKeySecret\":\"b\",\"SecurityToken\":\"c\","
                   "\"Expiration\":\"%s\"}",
                   date);
    status = kms_json_parse("STS", kms_span_str(text), &doc, &root, err);
    if (status == KMS_OK) {
        status = kms_ali_offer_sts(&root, slot, err);
    }
    kms_json_free(doc);
    return status;
}

static void far_ends_are_far(void)
{
    const struct kms_credential_source source = {.name = "far", .fetch = offer_far};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_credential *credential = kms_credential_new(&source);
    const struct kms_credential_value *value = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL_FATAL(kms_credential_get(credential, &wait, &value, &err), KMS_OK);
    CU_ASSERT(kms_deadline_left(value->expires_ns) > 86400 * KMS_NS_PER_S);
    kms_credential_give(credential, value);
    kms_credential_free(credential);
}

/* ---- errors ------------------------------------------------------------------------------- */

static void codes_have_their_class(void)
{
    static const struct {
        const char *action;
        unsigned http;
        const char *code;
        enum kms_status status;
    } cases[] = {
        {"Encrypt", 429, "Rejected.Throttling", KMS_E_THROTTLED},
        {"Encrypt", 400, "Throttling", KMS_E_THROTTLED},
        {"Encrypt", 400, "Throttling.Api", KMS_E_THROTTLED},
        {"Encrypt", 503, "ServiceUnavailableTemporary", KMS_E_UNAVAILABLE},
        {"Encrypt", 500, "InternalFailure", KMS_E_UNAVAILABLE},
        {"Encrypt", 404, "Forbidden.KeyNotFound", KMS_E_NOT_FOUND},
        {"DescribeKey", 404, "Forbidden.AliasNotFound", KMS_E_NOT_FOUND},
        {"Decrypt", 404, "Forbidden.KeyVersionNotFound", KMS_E_KEY_STATE},
        {"Encrypt", 403, "Forbidden.NoPermission", KMS_E_DENIED},
        {"Encrypt", 403, "Forbidden.AccessKey", KMS_E_AUTH},
        {"Encrypt", 409, "Rejected.Disabled", KMS_E_KEY_STATE},
        {"Encrypt", 409, "Rejected.PendingDeletion", KMS_E_KEY_STATE},
        {"Encrypt", 409, "Rejected.PendingImport", KMS_E_KEY_STATE},
        {"Encrypt", 400, "InvalidParameter", KMS_E_INVALID},
        {"Decrypt", 400, "InvalidParameter", KMS_E_BAD_DATA},
        {"AsymmetricDecrypt", 400, "InvalidParameter", KMS_E_BAD_DATA},
        {"Encrypt", 400, "MissingParameter", KMS_E_INVALID},
        {"Encrypt", 400, "IncompleteSignature", KMS_E_PROTOCOL},
        {"Encrypt", 400, "UnsupportedOperation", KMS_E_UNSUPPORTED},
        {"Encrypt", 404, "InvalidAccessKeyId.NotFound", KMS_E_AUTH},
        {"Encrypt", 400, "SignatureDoesNotMatch", KMS_E_AUTH},
        {"Encrypt", 400, "InvalidSecurityToken.Expired", KMS_E_AUTH},
        {"Encrypt", 400, "InvalidTimeStamp.Expired", KMS_E_AUTH},
        {"Encrypt", 400, "SignatureNonceUsed", KMS_E_UNAVAILABLE},
        {"Encrypt", 401, "New", KMS_E_AUTH},
        {"Encrypt", 401, "", KMS_E_PROTOCOL},
        {"Encrypt", 403, "New", KMS_E_DENIED},
        {"Encrypt", 429, "New", KMS_E_THROTTLED},
        {"Encrypt", 502, "", KMS_E_UNAVAILABLE},
        {"Encrypt", 418, "New", KMS_E_PROTOCOL},
    };

    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        UNIT_CHECK(cases[i].code, kms_ali_status_of(cases[i].action, cases[i].http,
                                                    cases[i].code) == cases[i].status);
    }
}

/* ---- ECDSA -------------------------------------------------------------------------------- */

static void signatures_change_their_form(void)
{
    static const uint8_t good[] = {0x30, 0x07, 0x02, 0x02, 0x00, 0x80, 0x02, 0x01, 0x05};
    static const struct {
        const char *name;
        uint8_t der[12];
        size_t len;
    } bad[] = {
        {"empty", {0}, 0},
        {"behind it", {0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x05, 0x00}, 9},
        {"cut", {0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01}, 7},
        {"long form", {0x30, 0x81, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x05}, 9},
        {"padded", {0x30, 0x07, 0x02, 0x02, 0x00, 0x01, 0x02, 0x01, 0x05}, 9},
        {"no sequence", {0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x05}, 8},
    };
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);

    CU_ASSERT_EQUAL(kms_ali_ecdsa_raw(kms_span_of(good, sizeof(good)), 32, &out), KMS_OK);
    CU_ASSERT(out.len == 64 && storage[31] == 0x80 && storage[63] == 5 && storage[0] == 0);
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        out.len = 0;
        UNIT_CHECK(bad[i].name, kms_ali_ecdsa_raw(kms_span_of(bad[i].der, bad[i].len), 32, &out) ==
                                    KMS_E_BAD_DATA);
        UNIT_CHECK(bad[i].name, out.len == 0);
    }
}

/* ---- requests and replies ----------------------------------------------------------------- */

/* What the door was asked last, and what it answers. */
static struct {
    unsigned asked, status;
    enum kms_status fails; /* no answer at all */
    const char *body;
    char url[40000];
    char headers[1024];
} scripted;

static enum kms_status answer(struct kms_http_door *door, const struct kms_http_request *request,
                              const struct kms_http_wait *wait, struct kms_http_response *ret,
                              struct kms_error *err)
{
    size_t len = 0;

    (void)door;
    (void)wait;
    scripted.asked++;
    (void)snprintf(scripted.url, sizeof(scripted.url), "%s", request->url);
    scripted.headers[0] = '\0';
    for (size_t i = 0; i < request->header_count; i++) {
        int more = snprintf(scripted.headers + len, sizeof(scripted.headers) - len, "%s: %s\n",
                            request->headers[i].name,
                            request->headers[i].value == NULL ? "-" : request->headers[i].value);

        len += more > 0 ? (size_t)more : 0;
    }
    CU_ASSERT_EQUAL(request->method, KMS_HTTP_POST);
    CU_ASSERT_EQUAL(request->body.len, 0);
    if (scripted.fails != KMS_OK) {
        return kms_error_set(err, scripted.fails, "planted");
    }
    return kms_http_response_fill(request, ret, scripted.status, kms_span_str(scripted.body), NULL);
}

static void close_door(struct kms_http_door *door)
{
    free(door);
}

static struct kms_http_door *new_door(void)
{
    struct kms_http_door *door = calloc(1, sizeof(*door));

    *door = (struct kms_http_door){.perform = answer, .close = close_door};
    return door;
}

static const struct kms_ali_doors *new_doors(void)
{
    static struct kms_ali_doors doors;

    doors = (struct kms_ali_doors){.kms = new_door(), .identity = new_door()};
    return &doors;
}

static struct kms_alibaba_conf settings;
static struct kms_backend_conf conf;

static struct kms_backend *open_scripted(void)
{
    struct kms_backend *b = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    alibaba_plain(&settings, &conf);
    (void)setenv("TEST_ALI_SECRET", "secret", 1);
    CU_ASSERT_EQUAL_FATAL(kms_ali_open_over(&conf, new_doors(), &b, &err), KMS_OK);
    scripted.asked = 0;
    scripted.status = 200;
    scripted.fails = KMS_OK;
    return b;
}

/* The signature over what was sent and @host, as the headers have it: "" when there is none. */
static void sign_again(const char *host, char ret_text[KMS_ACS3_AUTH_MAX])
{
    static char text[sizeof(scripted.headers)];
    struct kms_acs3_header headers[16] = {{"host", host}};
    struct kms_acs3_request request = {.method = "POST",
                                       .path = "/",
                                       .query = kms_span_str(strstr(scripted.url, "/?") + 2),
                                       .headers = headers,
                                       .header_count = 1,
                                       .payload_hash = ""};
    const struct kms_acs3_key key = {.id = "ID", .secret = kms_span_str("secret")};
    char *rest = text;

    memcpy(text, scripted.headers, sizeof(text));
    while (rest != NULL && rest[0] != '\0') {
        char *line = strsep(&rest, "\n");
        char *value = strstr(line, ": ");

        *value = '\0';
        value += 2;
        if (strcmp(line, "x-acs-content-sha256") == 0) {
            request.payload_hash = value;
        }
        if (strcmp(line, "authorization") != 0 && strcmp(line, "accept") != 0) {
            headers[request.header_count++] = (struct kms_acs3_header){line, value};
        }
    }
    ret_text[0] = '\0';
    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, ret_text, KMS_ACS3_AUTH_MAX), KMS_OK);
}

/* libcurl leaves the scheme's own port out of the Host field. */
static void the_host_is_signed_as_it_is_sent(void)
{
    static const struct {
        const char *endpoint, *host;
    } rows[] = {
        {"https://kms.example", "kms.example"},
        {"https://kms.example:443", "kms.example"},
        {"https://kms.example:80", "kms.example:80"},
        {"https://kms.example:8443", "kms.example:8443"},
        {"http://127.0.0.1:80", "127.0.0.1"},
        {"http://127.0.0.1:443", "127.0.0.1:443"},
        {"http://127.0.0.1:8080", "127.0.0.1:8080"},
    };
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    const struct kms_params params = {.alg = KMS_ALG_SEALED};
    char authorization[KMS_ACS3_AUTH_MAX];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_backend *b = open_scripted();
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
        struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};

        kms_alibaba_ops.close(b);
        settings.endpoint = unconst(rows[i].endpoint);
        CU_ASSERT_EQUAL_FATAL(kms_ali_open_over(&conf, new_doors(), &b, NULL), KMS_OK);
        scripted.body = "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"version-1\",\"CiphertextBlob\":"
                        "\"QUJD\",\"RequestId\":\"r\"}";
        CU_ASSERT_EQUAL(
            kms_ali_encrypt(b, &call, "key-1/version-1", &params, kms_span_str("x"), &sealed),
            KMS_OK);
        sign_again(rows[i].host, authorization);
        UNIT_CHECK(rows[i].endpoint, strstr(scripted.headers, authorization) != NULL);
        kms_alibaba_ops.close(b);
    }
}

/* No answer is no sign of health, whoever is to blame; one that we cannot take is no illness. */
static void health_is_of_answers(void)
{
    static const struct {
        const char *name;
        enum kms_status fails;
        unsigned status;
        bool ready;
    } rows[] = {
        {"answered", KMS_OK, 200, true},
        {"refused", KMS_OK, 400, true},
        {"our TLS files", KMS_E_INVALID, 0, false},
        {"nobody there", KMS_E_UNAVAILABLE, 0, false},
    };
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    const struct kms_params params = {.alg = KMS_ALG_SEALED};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_backend *b = open_scripted();
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
        struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
        struct kms_health health = {.ready = !rows[i].ready};

        scripted.fails = rows[i].fails;
        scripted.status = rows[i].status;
        scripted.body = "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"version-1\",\"CiphertextBlob\":"
                        "\"QUJD\",\"RequestId\":\"r\",\"Code\":\"InvalidParameter\"}";
        UNIT_CHECK(rows[i].name,
                   (kms_ali_encrypt(b, &call, "key-1/version-1", &params, kms_span_str("x"),
                                    &sealed) == KMS_OK) == (rows[i].status == 200));
        kms_alibaba_ops.health(b, &health);
        UNIT_CHECK(rows[i].name, health.ready == rows[i].ready);
        UNIT_CHECK(rows[i].name, health.ready || health.error.status == rows[i].fails);
        kms_alibaba_ops.close(b);
    }
}

static void encrypt_is_written_and_read(void)
{
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    struct kms_backend *b = open_scripted();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};

    scripted.body = "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"version-1\",\"CiphertextBlob\":"
                    "\"QUJD\",\"RequestId\":\"r\"}";
    CU_ASSERT_EQUAL(
        kms_ali_encrypt(b, &call, "key-1/version-1", &params, kms_span_str("\xfb\xff"), &sealed),
        KMS_OK);
    CU_ASSERT_STRING_EQUAL(scripted.url,
                           "https://kms.cn-test.aliyuncs.com/?EncryptionContext=%7B%22kmsbridge-aad"
                           "%22%3A%22v1%3A_1zdDGBsdGcnxBTQr72d4XLAxGsMLlDNFB1VnM0PLLg%22%7D&KeyId="
                           "key-1&Plaintext=%2B%2F8%3D");
    CU_ASSERT_PTR_NOT_NULL(strstr(scripted.headers, "x-acs-action: Encrypt\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(scripted.headers, "x-acs-version: 2016-01-20\n"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(scripted.headers,
               "authorization: ACS3-HMAC-SHA256 Credential=ID,SignedHeaders=content-type;host;"
               "x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
               "Signature="));
    CU_ASSERT_PTR_NULL(strstr(scripted.headers, "security-token"));
    CU_ASSERT_PTR_NULL(strstr(scripted.headers, "secret"));
    CU_ASSERT(kms_span_equal(kms_buf_span(&sealed.ciphertext), kms_span_str("QUJD")));
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "ali1-35ade37bd6d102376ea551252605a4b5d49b51b0");
    kms_alibaba_ops.close(b);
}

#define NAMES "\"KeyId\":\"key-1\",\"KeyVersionId\":\"version-1\",\"RequestId\":\"r\""

static void data_keys_are_asked_for_and_read(void)
{
    static const char *const bad[] = {
        "{" NAMES ",\"CiphertextBlob\":\"QUJD\",\"Plaintext\":\"AAECAwQFBgcICQoLDA0O\"}",
        "{" NAMES ",\"CiphertextBlob\":\"QUJD\",\"Plaintext\":\"AAECAwQFBgcICQoLDA0ODxA=\"}",
        "{" NAMES ",\"CiphertextBlob\":\"QUJD\"}",
        "{" NAMES ",\"CiphertextBlob\":\"\",\"Plaintext\":\"AAECAwQFBgcICQoLDA0ODw==\"}",
        "{" NAMES ",\"Plaintext\":\"AAECAwQFBgcICQoLDA0ODw==\"}",
        "{\"KeyId\":\"key-2\",\"KeyVersionId\":\"version-1\",\"RequestId\":\"r\","
        "\"CiphertextBlob\":"
        "\"QUJD\",\"Plaintext\":\"AAECAwQFBgcICQoLDA0ODw==\"}",
    };
    static const uint8_t zeros[64];
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    struct kms_backend *b = open_scripted();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};
    uint8_t bytes[64] = {0};
    struct kms_buf key = KMS_BUF_OVER(bytes);

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        scripted.body = bad[i];
        kms_error_clear(&call.error);
        UNIT_CHECK(bad[i], kms_ali_data_key(b, &call, "key-1/version-1", &params, 16, &key,
                                            &sealed) == KMS_E_PROTOCOL);
        UNIT_CHECK(bad[i], key.len == 0 && memcmp(bytes, zeros, sizeof(bytes)) == 0);
        UNIT_CHECK(bad[i], sealed.ciphertext.len == 0 && sealed.key_id[0] == '\0');
    }
    scripted.body =
        "{" NAMES ",\"CiphertextBlob\":\"QUJD\",\"Plaintext\":\"AAECAwQFBgcICQoLDA0ODw==\"}";
    kms_error_clear(&call.error);
    CU_ASSERT_EQUAL(kms_ali_data_key(b, &call, "key-1/version-1", &params, 16, &key, &sealed),
                    KMS_OK);
    CU_ASSERT_STRING_EQUAL(scripted.url,
                           "https://kms.cn-test.aliyuncs.com/?EncryptionContext=%7B%22kmsbridge-aad"
                           "%22%3A%22v1%3A_1zdDGBsdGcnxBTQr72d4XLAxGsMLlDNFB1VnM0PLLg%22%7D&KeyId="
                           "key-1&NumberOfBytes=16");
    CU_ASSERT_PTR_NOT_NULL(strstr(scripted.headers, "x-acs-action: GenerateDataKey\n"));
    CU_ASSERT(key.len == 16 && bytes[15] == 15 && bytes[16] == 0);
    CU_ASSERT(kms_span_equal(kms_buf_span(&sealed.ciphertext), kms_span_str("QUJD")));
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "ali1-35ade37bd6d102376ea551252605a4b5d49b51b0");
    kms_alibaba_ops.close(b);
}

/* An RSA signature is as long as a modulus that there is. */
static void rsa_signatures_have_their_length(void)
{
    static const struct {
        size_t len;
        enum kms_status status;
    } rows[] = {{256, KMS_OK},         {384, KMS_OK},         {512, KMS_OK},
                {0, KMS_E_PROTOCOL},   {3, KMS_E_PROTOCOL},   {255, KMS_E_PROTOCOL},
                {513, KMS_E_PROTOCOL}, {1030, KMS_E_PROTOCOL}};
    static const uint8_t zeros[2048];
    const struct kms_params params = {.alg = KMS_ALG_RSA_PSS_SHA256};
    struct kms_backend *b = open_scripted();
    char value[2048], body[4096];
    uint8_t bytes[KMS_SIGNATURE_MAX];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
        struct kms_buf signature = KMS_BUF_OVER(bytes);

        CU_ASSERT_EQUAL_FATAL(
            kms_base64_encode(kms_span_of(zeros, rows[i].len), value, sizeof(value)), KMS_OK);
        (void)snprintf(body, sizeof(body), "{" NAMES ",\"Value\":\"%s\"}", value);
        scripted.body = body;
        UNIT_CHECK(call.error.text,
                   kms_ali_sign(b, &call, "key-1/version-1", &params, kms_span_of(zeros, 32),
                                &signature) == rows[i].status);
        UNIT_CHECK(call.error.text, signature.len == (rows[i].status == KMS_OK ? rows[i].len : 0));
    }
    kms_alibaba_ops.close(b);
}

static void rewrap_names_both_contexts(void)
{
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    struct kms_backend *b = open_scripted();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_SEALED, .aad = kms_span_str("aad")};

    scripted.body = "{" NAMES ",\"CiphertextBlob\":\"REVG\"}";
    CU_ASSERT_EQUAL(
        kms_ali_rewrap(b, &call, "key-1/version-0", &params, kms_span_str("QUJD"), &sealed),
        KMS_OK);
    CU_ASSERT_STRING_EQUAL(
        scripted.url, "https://kms.cn-test.aliyuncs.com/?CiphertextBlob=QUJD&"
                      "DestinationEncryptionContext=%7B%22kmsbridge-aad%22%3A%22v1%3A_1zdDGBsdGcnx"
                      "BTQr72d4XLAxGsMLlDNFB1VnM0PLLg%22%7D&DestinationKeyId=key-1&"
                      "SourceEncryptionContext=%7B%22kmsbridge-aad%22%3A%22v1%3A_1zdDGBsdGcnxBTQr72"
                      "d4XLAxGsMLlDNFB1VnM0PLLg%22%7D&SourceKeyId=key-1");
    CU_ASSERT(kms_span_equal(kms_buf_span(&sealed.ciphertext), kms_span_str("REVG")));
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "ali1-35ade37bd6d102376ea551252605a4b5d49b51b0");
    sealed.ciphertext.len = 0;
    scripted.body = "{\"KeyId\":\"key-2\",\"KeyVersionId\":\"version-1\",\"RequestId\":\"r\","
                    "\"CiphertextBlob\":\"REVG\"}";
    CU_ASSERT_EQUAL(
        kms_ali_rewrap(b, &call, "key-1/version-0", &params, kms_span_str("QUJD"), &sealed),
        KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(sealed.ciphertext.len, 0);
    kms_alibaba_ops.close(b);
}

/* "auto" is the default: what fails is one of several sources, and the text says which. */
static void a_source_that_fails_is_named(void)
{
    static const struct {
        const char *name, *variables[3];
        const char *says;
    } rows[] = {
        {"environment", {"ALIBABA_CLOUD_ACCESS_KEY_ID"}, "auto: environment: "},
        {"rrsa",
         {"ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
          "ALIBABA_CLOUD_OIDC_TOKEN_FILE"},
         "auto: rrsa: cannot "},
        {"profile", {"ALIBABA_CLOUD_CREDENTIALS_FILE"}, "auto: profile: cannot "},
        {"uri",
         {"ALIBABA_CLOUD_CREDENTIALS_URI", "ALIBABA_CLOUD_ECS_METADATA_DISABLED"},
         "auto: uri: the credentials URI (ALIBABA_CLOUD_CREDENTIALS_URI) must begin with https://"},
        {"access_key", {NULL}, "auto: access_key: "},
    };
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_SEALED};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        bool by_key = strcmp(rows[i].name, "access_key") == 0;
        struct kms_backend *b = open_scripted();
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};

        kms_alibaba_ops.close(b);
        settings.credentials = NULL;
        settings.access_key_id = by_key ? settings.access_key_id : NULL;
        settings.access_key_secret = by_key ? unconst("env:TEST_ALI_NO_SECRET") : NULL;
        for (size_t v = 0; v < UNIT_COUNT(rows[i].variables) && !by_key; v++) {
            if (rows[i].variables[v] != NULL) { /* a file that is none, an address that is none */
                bool is_off = strstr(rows[i].variables[v], "DISABLED") != NULL;

                (void)setenv(rows[i].variables[v], is_off ? "true" : "/nonexistent/x", 1);
            }
        }
        CU_ASSERT_EQUAL_FATAL(kms_ali_open_over(&conf, new_doors(), &b, NULL), KMS_OK);
        UNIT_CHECK(rows[i].name, kms_ali_encrypt(b, &call, "key-1/version-1", &params,
                                                 kms_span_str("x"), &sealed) == KMS_E_AUTH);
        UNIT_CHECK(call.error.text,
                   strncmp(call.error.text, rows[i].says, strlen(rows[i].says)) == 0);
        UNIT_CHECK(rows[i].name, scripted.asked == 0);
        kms_alibaba_ops.close(b);
        for (size_t v = 0; v < UNIT_COUNT(rows[i].variables) && !by_key; v++) {
            if (rows[i].variables[v] != NULL) {
                (void)unsetenv(rows[i].variables[v]);
            }
        }
    }
}

/* The largest plaintext, of the bytes that grow most, fits a request. */
static void the_largest_fits(void)
{
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX], plain[KMS_ALI_PLAINTEXT_MAX];
    struct kms_backend *b = open_scripted();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_SEALED, .aad = kms_span_str("aad")};

    memset(plain, 0xff, sizeof(plain)); /* all of it '/' */
    scripted.body = "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"version-1\",\"CiphertextBlob\":"
                    "\"QUJD\",\"RequestId\":\"r\"}";
    CU_ASSERT_EQUAL(kms_ali_encrypt(b, &call, "key-1/version-1", &params,
                                    kms_span_of(plain, sizeof(plain)), &sealed),
                    KMS_OK);
    CU_ASSERT(strlen(scripted.url) > 24576);
    kms_alibaba_ops.close(b);
}

static void bad_replies_are_told(void)
{
    static const struct {
        const char *name;
        unsigned http;
        const char *body;
        enum kms_status status;
    } bad[] = {
        {"empty", 200, "", KMS_E_PROTOCOL},
        {"array", 200, "[]", KMS_E_PROTOCOL},
        {"cut", 200, "{\"KeyId\":\"key-1\"", KMS_E_PROTOCOL},
        {"behind it", 200, "{} x", KMS_E_PROTOCOL},
        {"nothing in it", 200, "{}", KMS_E_PROTOCOL},
        {"no blob", 200, "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"v\",\"RequestId\":\"r\"}",
         KMS_E_PROTOCOL},
        {"version with a slash", 200,
         "{\"KeyId\":\"key-1\",\"KeyVersionId\":\"v/w\",\"RequestId\":\"r\","
         "\"CiphertextBlob\":\"QUJD\"}",
         KMS_E_PROTOCOL},
        {"another key", 200,
         "{\"KeyId\":\"key-2\",\"KeyVersionId\":\"v\",\"RequestId\":\"r\","
         "\"CiphertextBlob\":\"QUJD\"}",
         KMS_E_PROTOCOL},
        {"204", 204, "", KMS_E_PROTOCOL},
        {"error without a body", 500, "", KMS_E_UNAVAILABLE},
        {"error that is HTML", 503, "<html>", KMS_E_UNAVAILABLE},
        {"error with a number", 403, "{\"Code\":7}", KMS_E_PROTOCOL},
        {"refusal that is HTML", 403, "<html>", KMS_E_PROTOCOL},
        {"login that is HTML", 401, "<html>", KMS_E_PROTOCOL},
        {"page that is not there", 404, "<html>", KMS_E_PROTOCOL},
        {"refusal that we do not know", 403, "{\"Code\":\"New.One\"}", KMS_E_DENIED},
        {"error", 409, "{\"Code\":\"Rejected.Disabled\",\"RequestId\":\"r\"}", KMS_E_KEY_STATE},
    };
    static uint8_t storage[KMS_CIPHERTEXT_MAX], iv[KMS_IV_MAX];
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(storage)};
    const struct kms_params params = {.alg = KMS_ALG_SEALED};

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_backend *b = open_scripted();
        struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};

        scripted.status = bad[i].http;
        scripted.body = bad[i].body;
        UNIT_CHECK(bad[i].name, kms_ali_encrypt(b, &call, "key-1/version-1", &params,
                                                kms_span_str("x"), &sealed) == bad[i].status);
        UNIT_CHECK(bad[i].name, call.error.status == bad[i].status && call.error.text[0] != '\0');
        UNIT_CHECK(bad[i].name, sealed.ciphertext.len == 0);
        kms_alibaba_ops.close(b);
    }
}

/* Where keys are managed: where they are used, but for a dedicated instance. */
static void managed_where_it_can_be(void)
{
    static const struct {
        const char *region, *network, *endpoint, *management, *url; /* NULL: where they are used */
    } rows[] = {
        {"r", NULL, NULL, NULL, NULL},
        {"r", "vpc", NULL, NULL, NULL},
        {"r", NULL, "https://a.example", NULL, NULL},
        {"r", NULL, "https://cryptoservice.kms.aliyuncs.com.example", NULL, NULL},
        {"r", NULL, "https://k.cryptoservice.kms.aliyuncs.com", NULL, "https://kms.r.aliyuncs.com"},
        {"r", "vpc", "https://k.cryptoservice.kms.aliyuncs.com:443", NULL,
         "https://kms-vpc.r.aliyuncs.com"},
        {"r", NULL, "https://k.cryptoservice.kms.aliyuncs.com", "https://b", "https://b"},
        {"r", NULL, NULL, "https://b", "https://b"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_alibaba_conf ali = {.region = unconst(rows[i].region),
                                             .network = unconst(rows[i].network),
                                             .endpoint = unconst(rows[i].endpoint),
                                             .management_endpoint = unconst(rows[i].management)};
        char url[KMS_ALI_URL_MAX] = "";
        bool same = false;

        UNIT_CHECK("url", kms_ali_management_url(&ali, url, sizeof(url), &same));
        UNIT_CHECK("same", same == (rows[i].url == NULL));
        UNIT_CHECK(url, rows[i].url == NULL || strcmp(url, rows[i].url) == 0);
        UNIT_CHECK("no room", !kms_ali_management_url(&ali, url, 5, &same));
    }
}

static void bad_configurations_are_refused(void)
{
    char *fallbacks[] = {unconst("https://kms.example"), unconst("http://kms.example")};
    struct {
        const char *says;
        struct kms_alibaba_conf conf;
    } bad[] = {
        {"alibaba.region or alibaba.endpoint is missing", {.credentials = unconst("auto")}},
        {"alibaba.credentials names no source",
         {.region = unconst("r"), .credentials = unconst("magic")}},
        {"alibaba.endpoint must be https://", {.endpoint = unconst("http://kms.example")}},
        {"alibaba.management_endpoint must be https://",
         {.region = unconst("r"), .management_endpoint = unconst("http://kms.example")}},
        {"alibaba.sts_endpoint must be https://",
         {.region = unconst("r"), .sts_endpoint = unconst("http://sts.example")}},
        {"alibaba.credentials_uri must begin with https://",
         {.region = unconst("r"), .credentials_uri = unconst("credentials")}},
        {"alibaba.metadata_endpoint must have a host",
         {.region = unconst("r"), .metadata_endpoint = unconst("http://100.100.100.200:x")}},
        {"alibaba.fallback_endpoints[1] must be https://",
         {.region = unconst("r"), .fallback_endpoints = fallbacks, .fallback_endpoints_count = 2}},
    };

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct kms_backend *b = NULL;
        struct kms_error err = KMS_ERROR_INIT;
        const struct kms_backend_conf one = {
            .name = unconst("a"), .type = unconst("alibaba"), .alibaba = &bad[i].conf};

        CU_ASSERT_EQUAL(kms_ali_open_over(&one, new_doors(), &b, &err), KMS_E_INVALID);
        UNIT_CHECK(bad[i].says, strncmp(err.text, "backend a: ", 11) == 0);
        UNIT_CHECK(err.text, strstr(err.text, bad[i].says) != NULL);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"the AAD becomes one entry", the_aad_becomes_one_entry},
        {"identities are frozen", identities_are_frozen},
        {"refs are taken apart", refs_are_taken_apart},
        {"dates are read", dates_are_read},
        {"far ends are far", far_ends_are_far},
        {"codes have their class", codes_have_their_class},
        {"signatures change their form", signatures_change_their_form},
        {"the host is signed as it is sent", the_host_is_signed_as_it_is_sent},
        {"health is of answers", health_is_of_answers},
        {"Encrypt is written and read", encrypt_is_written_and_read},
        {"data keys are asked for and read", data_keys_are_asked_for_and_read},
        {"RSA signatures have their length", rsa_signatures_have_their_length},
        {"rewrap names both contexts", rewrap_names_both_contexts},
        {"a source that fails is named", a_source_that_fails_is_named},
        {"the largest fits", the_largest_fits},
        {"bad replies are told", bad_replies_are_told},
        {"managed where it can be", managed_where_it_can_be},
        {"bad configurations are refused", bad_configurations_are_refused},
    };

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    (void)setenv("HOME", "/nonexistent", 1); /* nothing of the user's own takes part */
    return unit_main("test_alibaba", tests, UNIT_COUNT(tests));
}
