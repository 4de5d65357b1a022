/* SPDX-License-Identifier: Apache-2.0 */
/* ACS3-HMAC-SHA256 against the vectors of the vendor: its documentation's example, and the one of
 * its SDK's own tests. Then what must be canonical, and what must be refused. */
#include "backend/rest/acs3.h"

#include <string.h>

#include "tests/unit/unit.h"

#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct kms_acs3_param param(const char *name, const char *value)
{
    return (struct kms_acs3_param){name, kms_span_str(value)};
}

/* ---- vectors ------------------------------------------------------------------------------ */

/* "Request syntax and signature method V3", its example with fixed date and nonce. */
static void the_documents_example(void)
{
    const struct kms_acs3_param params[] = {
        param("RegionId", "cn-shanghai"),
        param("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
    };
    static const struct kms_acs3_header headers[] = {
        {"x-acs-version", "2014-05-26"},
        {"x-acs-action", "RunInstances"},
        {"x-acs-date", "2023-10-26T10:22:32Z"},
        {"host", "ecs.cn-shanghai.aliyuncs.com"},
        {"x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"},
        {"x-acs-content-sha256", EMPTY_HASH},
    };
    uint8_t storage[256];
    struct kms_buf query = KMS_BUF_OVER(storage);
    char hash[KMS_ACS3_HASH_HEX], text[KMS_ACS3_AUTH_MAX];
    const struct kms_acs3_key key = {"YourAccessKeyId", kms_span_str("YourAccessKeySecret")};
    struct kms_acs3_request request = {.method = "POST",
                                       .path = "/",
                                       .headers = headers,
                                       .header_count = UNIT_COUNT(headers),
                                       .payload_hash = EMPTY_HASH};

    CU_ASSERT_EQUAL(kms_acs3_query(params, UNIT_COUNT(params), &query), KMS_OK);
    request.query = kms_buf_span(&query);
    CU_ASSERT_EQUAL(kms_acs3_request_hash(&request, hash), KMS_OK);
    CU_ASSERT_STRING_EQUAL(hash,
                           "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259");
    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, text, sizeof(text)), KMS_OK);
    CU_ASSERT_STRING_EQUAL(
        text, "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;"
              "x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature="
              "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0");
}

/* The test of alibabacloud-go/openapi-util: no method, a parameter without value. */
static void the_sdks_vector(void)
{
    const struct kms_acs3_param params[] = {param("test", "ok"), param("empty", "")};
    static const struct kms_acs3_header headers[] = {{"x-acs-test", "http,https"}};
    uint8_t storage[64];
    struct kms_buf query = KMS_BUF_OVER(storage);
    char text[KMS_ACS3_AUTH_MAX];
    const struct kms_acs3_key key = {"id", kms_span_str("secret")};
    struct kms_acs3_request request = {
        .method = "",
        .path = "",
        .headers = headers,
        .header_count = 1,
        .payload_hash = "55e12e91650d2fec56ec74e1d3e4ddbfce2ef3a65890c2a19ecf88a307e76a23"};

    CU_ASSERT_EQUAL(kms_acs3_query(params, UNIT_COUNT(params), &query), KMS_OK);
    request.query = kms_buf_span(&query);
    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, text, sizeof(text)), KMS_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(
        text, ",Signature=4ab59fffe3c5738ff8a2729f90cc04fe18b02a4b15b2102cbaf92f9ff3df2ea3"));
}

static void hashes_are_hex(void)
{
    char hash[KMS_ACS3_HASH_HEX];

    CU_ASSERT_EQUAL(kms_acs3_hash_hex(KMS_SPAN_NONE, hash), KMS_OK);
    CU_ASSERT_STRING_EQUAL(hash, EMPTY_HASH);
    CU_ASSERT_EQUAL(kms_acs3_hash_hex(kms_span_str("test"), hash), KMS_OK);
    CU_ASSERT_STRING_EQUAL(hash,
                           "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
}

/* ---- canonical queries -------------------------------------------------------------------- */

static void queries_are_canonical(void)
{
    static const struct {
        const char *name, *param, *value, *want;
    } cases[] = {
        {"unreserved stays", "a", "AZaz09-_.~", "a=AZaz09-_.~"},
        {"base64", "a", "+/==", "a=%2B%2F%3D%3D"},
        {"a space is no plus", "a", "b c", "a=b%20c"},
        {"star and tilde", "a", "*~", "a=%2A~"},
        {"quotes and braces", "a", "{\"k\":\"v\"}", "a=%7B%22k%22%3A%22v%22%7D"},
        {"bytes", "a", "\xe4\xb8\xad", "a=%E4%B8%AD"},
        {"names, too", "a b", "", "a%20b="},
        {"control", "a", "\r\n", "a=%0D%0A"},
    };

    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct kms_acs3_param one = param(cases[i].param, cases[i].value);
        uint8_t storage[64];
        struct kms_buf query = KMS_BUF_OVER(storage);

        UNIT_CHECK(cases[i].name, kms_acs3_query(&one, 1, &query) == KMS_OK);
        UNIT_CHECK(cases[i].name,
                   kms_span_equal(kms_buf_span(&query), kms_span_str(cases[i].want)));
    }
}

static void parameters_are_sorted(void)
{
    const struct kms_acs3_param params[] = {param("b", "1"), param("a", "2"), param("B", "3"),
                                            param("ab", "4"), param("a.1", "5")};
    uint8_t storage[64];
    struct kms_buf query = KMS_BUF_OVER(storage);

    CU_ASSERT_EQUAL(kms_acs3_query(params, UNIT_COUNT(params), &query), KMS_OK);
    CU_ASSERT(kms_span_equal(kms_buf_span(&query), kms_span_str("B=3&a=2&a.1=5&ab=4&b=1")));
    query.len = 0;
    CU_ASSERT_EQUAL(kms_acs3_query(params, 0, &query), KMS_OK);
    CU_ASSERT_EQUAL(query.len, 0);
}

static void bad_queries_are_refused(void)
{
    const struct kms_acs3_param twice[] = {param("a", "1"), param("b", "2"), param("a", "3")};
    struct kms_acs3_param many[KMS_ACS3_ITEMS_MAX + 1];
    static char names[KMS_ACS3_ITEMS_MAX + 1][8];
    uint8_t storage[8];
    struct kms_buf query = KMS_BUF_OVER(storage);
    struct kms_acs3_param large = param("a", "1234567");

    CU_ASSERT_EQUAL(kms_acs3_query(twice, 3, &query), KMS_E_INVALID);
    for (size_t i = 0; i < UNIT_COUNT(many); i++) {
        (void)snprintf(names[i], sizeof(names[i]), "n%zu", i);
        many[i] = param(names[i], "");
    }
    CU_ASSERT_EQUAL(kms_acs3_query(many, UNIT_COUNT(many), &query), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_acs3_query(&large, 1, &query), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(query.len, 0); /* nothing half done */
}

/* ---- requests ----------------------------------------------------------------------------- */

static enum kms_status hash_of(const struct kms_acs3_header *headers, size_t count, char *ret_hash)
{
    const struct kms_acs3_request request = {.method = "GET",
                                             .path = "/",
                                             .headers = headers,
                                             .header_count = count,
                                             .payload_hash = EMPTY_HASH};

    return kms_acs3_request_hash(&request, ret_hash);
}

static void headers_are_canonical(void)
{
    static const struct kms_acs3_header one[] = {{"x-b", "2"}, {"host", "h"}, {"x-a", "v w"}};
    static const struct kms_acs3_header two[] = {{"x-a", "  v w "}, {"x-b", "2"}, {"host", "h "}};
    static const struct kms_acs3_header other[] = {{"x-a", "v  w"}, {"x-b", "2"}, {"host", "h"}};
    char a[KMS_ACS3_HASH_HEX], b[KMS_ACS3_HASH_HEX], c[KMS_ACS3_HASH_HEX], d[KMS_ACS3_HASH_HEX];

    CU_ASSERT_EQUAL(hash_of(one, 3, a), KMS_OK);
    CU_ASSERT_EQUAL(hash_of(two, 3, b), KMS_OK);
    CU_ASSERT_EQUAL(hash_of(other, 3, c), KMS_OK);
    CU_ASSERT_STRING_EQUAL(a, b);
    CU_ASSERT_STRING_NOT_EQUAL(a, c);
    /* the whole text at once, by the hash of bytes */
    CU_ASSERT_EQUAL(kms_acs3_hash_hex(kms_span_str("GET\n/\n\nhost:h\nx-a:v w\nx-b:2\n\n"
                                                   "host;x-a;x-b\n" EMPTY_HASH),
                                      d),
                    KMS_OK);
    CU_ASSERT_STRING_EQUAL(a, d);
}

static void bad_headers_are_refused(void)
{
    static const struct {
        const char *name;
        struct kms_acs3_header headers[2];
    } bad[] = {
        {"twice", {{"a", "1"}, {"a", "2"}}},     {"upper case", {{"A", "1"}, {"b", "2"}}},
        {"empty name", {{"", "1"}, {"b", "2"}}}, {"a line more", {{"a", "1\nx:y"}, {"b", "2"}}},
        {"NL only", {{"a", "\n"}, {"b", "2"}}},  {"colon", {{"a:b", "1"}, {"b", "2"}}},
        {"DEL", {{"a", "\x7f"}, {"b", "2"}}},
    };
    char hash[KMS_ACS3_HASH_HEX];

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        UNIT_CHECK(bad[i].name, hash_of(bad[i].headers, 2, hash) == KMS_E_INVALID);
    }
}

static void a_text_that_has_no_room(void)
{
    static const struct kms_acs3_header headers[] = {{"host", "h"}};
    const struct kms_acs3_key key = {"id", kms_span_str("secret")};
    const struct kms_acs3_request request = {.method = "GET",
                                             .path = "/",
                                             .headers = headers,
                                             .header_count = 1,
                                             .payload_hash = EMPTY_HASH};
    char text[KMS_ACS3_AUTH_MAX];
    size_t len = 0;

    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, text, sizeof(text)), KMS_OK);
    len = strlen(text);
    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, text, len + 1), KMS_OK);
    CU_ASSERT_EQUAL(kms_acs3_authorization(&request, &key, text, len), KMS_E_TOO_LARGE);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"the document's example", the_documents_example},
        {"the SDK's vector", the_sdks_vector},
        {"hashes are hex", hashes_are_hex},
        {"queries are canonical", queries_are_canonical},
        {"parameters are sorted", parameters_are_sorted},
        {"bad queries are refused", bad_queries_are_refused},
        {"headers are canonical", headers_are_canonical},
        {"bad headers are refused", bad_headers_are_refused},
        {"a text that has no room", a_text_that_has_no_room},
    };

    return unit_main("test_acs3", tests, UNIT_COUNT(tests));
}
