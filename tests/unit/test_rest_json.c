/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/json.h"

#include <string.h>

#include "common/secure.h"
#include "tests/unit/unit.h"

static struct kms_json_doc *doc;
static struct kms_json root;
static struct kms_error err;

static enum kms_status parse(const char *text)
{
    kms_json_free(doc);
    doc = NULL;
    kms_error_clear(&err);
    return kms_json_parse("the reply", kms_span_str(text), &doc, &root, &err);
}

static void what_is_no_object_is_refused(void)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "1",
        "null",
        "{} x",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"o\":[{\"a\":1,\"a\":1}]}",
        "{\"a\":99999999999999999999}",
        "{\"a\":1e999}",
        "{\"a\":\"\\ud800\"}",
        "{\"\\u0000\":1}",
        "{\"\xc0\xaf\":1}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":1}{\"b\":2}",
        "\"text\"",
        "{\"secret\":\"s3cr3t\",}",
    };
    char deep[8192] = "{\"a\":";

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        UNIT_CHECK(bad[i], parse(bad[i]) == KMS_E_PROTOCOL);
        UNIT_CHECK(bad[i], strncmp(err.text, "the reply", 9) == 0);
        UNIT_CHECK(bad[i], strstr(err.text, "s3cr3t") == NULL); /* what was read is not repeated */
    }
    memset(deep + 5, '[', 8000);
    CU_ASSERT_EQUAL(parse(deep), KMS_E_PROTOCOL);
}

static void fields_are_what_they_should_be(void)
{
    static const char text[] =
        "{\"o\":{\"in\":\"x\"},\"a\":[\"p\",{\"q\":1},2],\"t\":\"abc\",\"n\":7,\"neg\":-1,"
        "\"f\":1.5,\"b\":true,\"z\":null,\"b64\":\"aGVsbG8=\",\"bad64\":\"aGVsbG8\"}";
    struct kms_json value;
    const char *string = NULL;
    uint64_t number = 99;
    bool flag = false;
    uint8_t bytes[8];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    CU_ASSERT_EQUAL_FATAL(parse(text), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_object(&root, "o", &value, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_text(&value, "in", 1, &string, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(string, "x");
    CU_ASSERT_EQUAL(kms_json_text(&root, "t", 3, &string, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_u64(&root, "n", 7, 7, &number, &err), KMS_OK);
    CU_ASSERT_EQUAL(number, 7);
    CU_ASSERT_EQUAL(kms_json_bool(&root, "b", &flag, &err), KMS_OK);
    CU_ASSERT_TRUE(flag);
    CU_ASSERT_EQUAL(kms_json_base64(&root, "b64", &out, &err), KMS_OK);
    CU_ASSERT(out.len == 5 && memcmp(bytes, "hello", 5) == 0);
    CU_ASSERT_EQUAL(kms_json_array(&root, "a", &value, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_count(&value), 3);
    CU_ASSERT_EQUAL(kms_json_text_at(&value, 0, 9, &string, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_object_at(&value, 1, &root, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_u64(&root, "q", 0, 9, &number, &err), KMS_OK);
}

static void wrong_fields_are_named(void)
{
    static const char text[] =
        "{\"o\":{\"in\":5},\"a\":[1,\"ab\"],\"t\":\"abc\",\"n\":7,"
        "\"neg\":-1,\"f\":1.5,\"z\":null,\"bad64\":\"aGVsbG8\",\"b64\":\"aGVsbG8=\"}";
    struct kms_json value;
    struct kms_json inner;
    const char *string = NULL;
    uint64_t number = 99;
    bool flag = false;
    uint8_t bytes[4];
    struct kms_buf out = KMS_BUF_OVER(bytes);

#define WRONG(word, call)                                                                          \
    do {                                                                                           \
        kms_error_clear(&err);                                                                     \
        UNIT_CHECK(#call, (call) == KMS_E_PROTOCOL);                                               \
        UNIT_CHECK(err.text, strstr(err.text, word) != NULL);                                      \
    } while (0)
    CU_ASSERT_EQUAL_FATAL(parse(text), KMS_OK);
    WRONG("lacks the field \"no\"", kms_json_text(&root, "no", 9, &string, &err));
    WRONG("\"n\" is number", kms_json_text(&root, "n", 9, &string, &err));
    WRONG("\"t\" is longer", kms_json_text(&root, "t", 2, &string, &err));
    WRONG("\"t\" is text", kms_json_u64(&root, "t", 0, 9, &number, &err));
    WRONG("\"f\" is fraction", kms_json_u64(&root, "f", 0, 9, &number, &err));
    WRONG("\"neg\" is out of range", kms_json_u64(&root, "neg", 0, 9, &number, &err));
    WRONG("\"neg\" is out of range", kms_json_u64(&root, "neg", 0, UINT64_MAX, &number, &err));
    WRONG("\"n\" is out of range", kms_json_u64(&root, "n", 8, 9, &number, &err));
    WRONG("\"n\" is out of range", kms_json_u64(&root, "n", 0, 6, &number, &err));
    WRONG("\"z\" is null", kms_json_object(&root, "z", &value, &err));
    WRONG("\"o\" is object", kms_json_array(&root, "o", &value, &err));
    WRONG("\"n\" is number", kms_json_bool(&root, "n", &flag, &err));
    WRONG("\"bad64\" is not base64", kms_json_base64(&root, "bad64", &out, &err));
    WRONG("\"b64\" is too long", kms_json_base64(&root, "b64", &out, &err));
    CU_ASSERT_EQUAL(out.len, 0);
    kms_error_clear(&err);
    CU_ASSERT_EQUAL(kms_json_object(&root, "o", &value, &err), KMS_OK);
    WRONG("the reply: o: \"in\"", kms_json_text(&value, "in", 9, &string, &err));
    kms_error_clear(&err);
    CU_ASSERT_EQUAL(kms_json_array(&root, "a", &value, &err), KMS_OK);
    WRONG("element 0", kms_json_text_at(&value, 0, 9, &string, &err));
    WRONG("element 1", kms_json_object_at(&value, 1, &inner, &err));
    WRONG("element 1", kms_json_text_at(&value, 1, 1, &string, &err));
    WRONG("element 2", kms_json_text_at(&value, 2, 9, &string, &err));
    CU_ASSERT(number == 99 && string == NULL && !flag);
}

static void what_may_be_absent(void)
{
    const char *string = "before";
    uint64_t number = 5;
    bool flag = true;

    CU_ASSERT_EQUAL_FATAL(parse("{\"z\":null,\"t\":1}"), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_text_maybe(&root, "no", 9, &string, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_u64_maybe(&root, "z", 0, 9, &number, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_bool_maybe(&root, "no", &flag, &err), KMS_OK);
    CU_ASSERT(strcmp(string, "before") == 0 && number == 5 && flag);
    CU_ASSERT_EQUAL(kms_json_text_maybe(&root, "t", 9, &string, &err), KMS_E_PROTOCOL);
    CU_ASSERT(kms_json_has(&root, "t") && !kms_json_has(&root, "z") && !kms_json_has(&root, "q"));
}

static void what_is_written_is_read(void)
{
    uint8_t storage[512];
    struct kms_buf buf = KMS_BUF_OVER(storage);
    struct kms_json_out out;
    const char *string = NULL;

    kms_json_begin(&out, &buf);
    kms_json_put_text(&out, "t", "a\"b\\c\n\x1f\xc3\xa9");
    kms_json_put_u64(&out, "n", UINT64_C(9007199254740993));
    kms_json_put_object(&out, "o");
    kms_json_put_bool(&out, "b", false);
    kms_json_close_object(&out);
    kms_json_put_array(&out, "a");
    kms_json_put_text(&out, NULL, "x");
    kms_json_put_base64(&out, NULL, kms_span_str("hello"));
    kms_json_close_array(&out);
    kms_json_put_base64(&out, "e", KMS_SPAN_NONE);
    CU_ASSERT_EQUAL_FATAL(kms_json_end(&out), KMS_OK);
    storage[buf.len] = '\0';
    CU_ASSERT_STRING_EQUAL((char *)storage,
                           "{\"t\":\"a\\\"b\\\\c\\u000a\\u001f\xc3\xa9\",\"n\":9007199254740993,"
                           "\"o\":{\"b\":false},\"a\":[\"x\",\"aGVsbG8=\"],\"e\":\"\"}");
    CU_ASSERT_EQUAL_FATAL(parse((char *)storage), KMS_OK);
    CU_ASSERT_EQUAL(kms_json_text(&root, "t", 20, &string, &err), KMS_OK);
    CU_ASSERT_STRING_EQUAL(string, "a\"b\\c\n\x1f\xc3\xa9");
}

static void what_cannot_be_written_is_told(void)
{
    uint8_t storage[64];
    struct kms_json_out out;

    for (size_t cap = 0; cap < 30; cap++) { /* {"key":"0123456789","b":"AAE="} */
        struct kms_buf buf = kms_buf_over(storage, cap);

        memset(storage, 0x5a, sizeof(storage));
        kms_json_begin(&out, &buf);
        kms_json_put_text(&out, "key", "0123456789");
        kms_json_put_base64(&out, "b", kms_span_of("\0\1", 2));
        CU_ASSERT_EQUAL(kms_json_end(&out), KMS_E_TOO_LARGE);
        CU_ASSERT(buf.len <= cap && storage[cap] == 0x5a);
    }
    {
        struct kms_buf buf = KMS_BUF_OVER(storage);

        kms_json_begin(&out, &buf);
        kms_json_put_text(&out, "key", "\xff");
        CU_ASSERT_EQUAL(kms_json_end(&out), KMS_E_INVALID);
    }
}

static const struct unit_test tests[] = {
    {"what is no object is refused", what_is_no_object_is_refused},
    {"fields are what they should be", fields_are_what_they_should_be},
    {"wrong fields are named", wrong_fields_are_named},
    {"what may be absent", what_may_be_absent},
    {"what is written is read", what_is_written_is_read},
    {"what cannot be written is told", what_cannot_be_written_is_told},
};

int main(void)
{
    int code = kms_secure_init() == KMS_OK ? unit_main("test_rest_json", tests, UNIT_COUNT(tests))
                                           : EXIT_FAILURE;

    kms_json_free(doc);
    return code;
}
