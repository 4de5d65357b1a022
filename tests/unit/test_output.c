/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/output.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "tests/unit/unit.h"

/* What @print writes to its stream; free(). */
struct written {
    char *text;
    size_t len;
};

static FILE *begin(struct written *written)
{
    return open_memstream(&written->text, &written->len);
}

static void check_text(const char *row, FILE *to, struct written *written, const char *expected)
{
    (void)fclose(to);
    if (!UNIT_CHECK(row, strcmp(written->text, expected) == 0)) {
        fprintf(stderr, "%s: got <%s>, expected <%s>\n", row, written->text, expected);
    }
    free(written->text);
}

static void exit_codes(void)
{
    static const struct {
        const char *name;
        enum kms_status status;
        enum kms_exit code;
    } rows[] = {
        {"ok", KMS_OK, KMS_EXIT_OK},
        {"auth", KMS_E_AUTH, KMS_EXIT_REFUSED},
        {"denied", KMS_E_DENIED, KMS_EXIT_REFUSED},
        {"exists", KMS_E_EXISTS, KMS_EXIT_EXISTS},
        {"unavailable", KMS_E_UNAVAILABLE, KMS_EXIT_FAILED},
        {"invalid", KMS_E_INVALID, KMS_EXIT_FAILED},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name, kms_exit_of(rows[i].status) == rows[i].code);
    }
}

static void escape(void)
{
    static const struct {
        const char *name, *text, *shown;
    } rows[] = {
        {"empty", "", ""},
        {"plain", "a b~", "a b~"},
        {"escape sequence", "x\x1b[2J", "x\\x1b[2J"},
        {"newline", "a\nb", "a\\x0ab"},
        {"delete", "\x7f", "\\x7f"},
        {"two bytes", "\xc3\xa4", "\xc3\xa4"},
        {"four bytes", "\xf0\x9f\x94\x91.", "\xf0\x9f\x94\x91."},
        {"C1 control", "\xc2\x9b!", "\\xc2\\x9b!"},
        {"lone continuation", "\x80z", "\\x80z"},
        {"cut short", "a\xe2\x82", "a\\xe2\\x82"},
        {"overlong", "\xc0\xaf", "\\xc0\\xaf"},
        {"good, then continuation", "\xc3\xa4\x84", "\xc3\xa4\\x84"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char *shown = kms_table_escape(rows[i].text);

        UNIT_CHECK(rows[i].name, shown != NULL && strcmp(shown, rows[i].shown) == 0);
        free(shown);
    }
}

static void quote(void)
{
    static const struct {
        const char *name, *text, *quoted; /* NULL: refused */
    } rows[] = {
        {"plain", "/run/x", "\"/run/x\""},
        {"quote and backslash", "a\"b\\", "\"a\\\"b\\\\\""},
        {"newline", "a\nkey: 1", "\"a\\nkey: 1\""},
        {"no UTF-8", "\xff", NULL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char *quoted = kms_output_quote(rows[i].text);

        UNIT_CHECK(rows[i].name, (quoted == NULL) == (rows[i].quoted == NULL));
        UNIT_CHECK(rows[i].name,
                   quoted == NULL || rows[i].quoted == NULL || strcmp(quoted, rows[i].quoted) == 0);
        free(quoted);
    }
}

static const struct kms_column columns[] = {
    {"name", "NAME", KMS_CELL_TEXT},
    {"bits", "BITS", KMS_CELL_NUMBER},
    {"uses", "USES", KMS_CELL_LIST},
};

static void rows_and_records(void)
{
    static const char *const cells[] = {"a\xc3\xa4\x1b", "256", "encrypt,decrypt", "b", "0", ""};
    struct kms_error err = KMS_ERROR_INIT;
    struct written written;
    FILE *to = begin(&written);

    UNIT_CHECK("table", kms_output_rows(to, false, "keys", columns, 3, cells, 2, &err) == KMS_OK);
    check_text("table", to, &written,
               "NAME    BITS  USES\n"
               "a\xc3\xa4\\x1b  256   encrypt,decrypt\n"
               "b       0     -\n");
    to = begin(&written);
    UNIT_CHECK("none", kms_output_rows(to, true, "keys", columns, 3, cells, 0, &err) == KMS_OK);
    check_text("none", to, &written, "{\n  \"keys\": []\n}\n");
    to = begin(&written);
    UNIT_CHECK("json", kms_output_rows(to, true, "keys", columns, 3, cells, 2, &err) == KMS_OK);
    check_text("json", to, &written,
               "{\n  \"keys\": [\n    {\n      \"name\": \"a\xc3\xa4\\u001B\",\n"
               "      \"bits\": 256,\n      \"uses\": [\n        \"encrypt\",\n"
               "        \"decrypt\"\n      ]\n    },\n    {\n      \"name\": \"b\",\n"
               "      \"bits\": 0,\n      \"uses\": []\n    }\n  ]\n}\n");
    to = begin(&written);
    UNIT_CHECK("record", kms_output_record(to, false, columns, cells + 3, 3, &err) == KMS_OK);
    check_text("record", to, &written, "NAME  b\nBITS  0\nUSES  -\n");
}

static void unwritable(void)
{
    static const char *const cells[] = {"a", "1", ""};
    struct kms_error err = KMS_ERROR_INIT;
    FILE *full = fopen("/dev/full", "w");

    if (!UNIT_CHECK("open", full != NULL)) {
        return;
    }
    (void)setvbuf(full, NULL, _IONBF, 0);
    UNIT_CHECK("full", kms_output_record(full, true, columns, cells, 3, &err) != KMS_OK);
    UNIT_CHECK("full", err.status == KMS_E_UNAVAILABLE);
    (void)fclose(full);
}

static void failures(void)
{
    struct kms_failure failure = {.next = ""};
    struct written written;
    FILE *to;

    (void)kms_error_set_code(&failure.error, KMS_E_AUTH, "CKR_X", "no \xff\"way\"");
    UNIT_CHECK("code", kms_fail(&failure, KMS_EXIT_REFUSED, "do %d", 7) == KMS_EXIT_REFUSED);
    UNIT_CHECK("first stays", kms_fail(&failure, KMS_EXIT_FAILED, "other") == KMS_EXIT_FAILED);
    to = begin(&written);
    kms_output_failure(to, false, &failure);
    check_text("text", to, &written, "kmsbridgectl: no \\xff\"way\"\nkmsbridgectl: do 7\n");
    to = begin(&written);
    kms_output_failure(to, true, &failure);
    check_text("json", to, &written,
               "{\n  \"error\": {\n    \"class\": \"auth\",\n    \"code\": \"CKR_X\",\n"
               "    \"text\": \"no \\\\xff\\\"way\\\"\",\n    \"next\": \"do 7\"\n  }\n}\n");
}

static void sealed_round_trip(void)
{
    static char name_a[] = "a.example", name_b[] = "b.example";
    struct kms_v2_annotation annotations[] = {
        {name_a, kms_span_of("\x00\xff", 2)},
        {name_b, KMS_SPAN_NONE},
    };
    const struct kms_v2_sealed sealed = {.ciphertext = kms_span_of("KMB\0x", 5),
                                         .key_id = "kb1-\"\xc3\xa4",
                                         .annotations = annotations,
                                         .annotation_count = 2};
    struct kms_v2_sealed back = {0};
    struct kms_error err = KMS_ERROR_INIT;
    char *text = NULL;

    UNIT_CHECK("write", kms_output_sealed(true, &sealed, &text, &err) == KMS_OK);
    if (!UNIT_CHECK("read", kms_input_sealed(kms_span_str(text), &back, &err) == KMS_OK)) {
        return;
    }
    UNIT_CHECK("ciphertext", kms_span_equal(back.ciphertext, sealed.ciphertext));
    UNIT_CHECK("key_id", strcmp(back.key_id, sealed.key_id) == 0);
    UNIT_CHECK("count", back.annotation_count == 2);
    for (size_t i = 0; i < back.annotation_count; i++) {
        bool first = strcmp(back.annotations[i].key, name_a) == 0;
        const struct kms_v2_annotation *was = &annotations[first ? 0 : 1];

        UNIT_CHECK(was->key, strcmp(back.annotations[i].key, was->key) == 0);
        UNIT_CHECK(was->key, kms_span_equal(back.annotations[i].value, was->value));
    }
    kms_v2_sealed_done(&back);
    free(text);
}

static void sealed_refused(void)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"empty", ""},
        {"no JSON", "{"},
        {"list", "[]"},
        {"number", "1"},
        {"no ciphertext", "{\"key_id\":\"k\"}"},
        {"ciphertext a number", "{\"ciphertext\":1,\"key_id\":\"k\"}"},
        {"ciphertext no base64", "{\"ciphertext\":\"a\",\"key_id\":\"k\"}"},
        {"no key_id", "{\"ciphertext\":\"YQ==\"}"},
        {"key_id a number", "{\"ciphertext\":\"YQ==\",\"key_id\":1}"},
        {"key_id with NUL", "{\"ciphertext\":\"YQ==\",\"key_id\":\"a\\u0000b\"}"},
        {"annotations a list", "{\"ciphertext\":\"YQ==\",\"key_id\":\"k\",\"annotations\":[]}"},
        {"annotation a number",
         "{\"ciphertext\":\"YQ==\",\"key_id\":\"k\",\"annotations\":{\"a\":1}}"},
        {"annotation no base64",
         "{\"ciphertext\":\"YQ==\",\"key_id\":\"k\",\"annotations\":{\"a\":\"!\"}}"},
        {"twice the same member", "{\"ciphertext\":\"YQ==\",\"ciphertext\":\"\",\"key_id\":\"k\"}"},
        {"more behind it", "{\"ciphertext\":\"YQ==\",\"key_id\":\"k\"} x"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_v2_sealed sealed = {0};
        struct kms_error err = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].name,
                   kms_input_sealed(kms_span_str(rows[i].text), &sealed, &err) == KMS_E_BAD_DATA);
        UNIT_CHECK(rows[i].name, err.text[0] != '\0');
        UNIT_CHECK(rows[i].name, sealed.storage == NULL && sealed.annotations == NULL);
    }
}

static void plaintext_json(void)
{
    static const char expected[] = "{\"plaintext\":\"c2VlZA==\"}\n";
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    struct kms_buf small = {.data = storage, .len = 0, .cap = strlen(expected) - 2};

    UNIT_CHECK("fits", kms_output_plaintext_json(kms_span_str("seed"), &out) == KMS_OK);
    UNIT_CHECK("fits", kms_span_equal(kms_buf_span(&out), kms_span_str(expected)));
    UNIT_CHECK("too small",
               kms_output_plaintext_json(kms_span_str("seed"), &small) == KMS_E_TOO_LARGE);
}

static const struct unit_test tests[] = {
    {"exit codes", exit_codes},
    {"escape", escape},
    {"quote", quote},
    {"rows and records", rows_and_records},
    {"unwritable", unwritable},
    {"failures", failures},
    {"sealed record there and back", sealed_round_trip},
    {"sealed record refused", sealed_refused},
    {"plaintext as JSON", plaintext_json},
};

int main(void)
{
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("test_output", tests, UNIT_COUNT(tests));
}
