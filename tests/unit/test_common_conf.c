/* SPDX-License-Identifier: Apache-2.0 */
/* common/conf.c, with a schema of the test's own; test_conf.c is about the daemon's. */
#include "common/conf.h"

#include <cyaml/cyaml.h>
#include <string.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

struct inner {
    char *word;
    unsigned number;
    int sign;
    int choice;
    bool flag;
};

struct outer {
    char *name;
    struct inner *inner;
    struct inner *list;
    unsigned list_count;
};

static const cyaml_strval_t choices[] = {{"one", 1}, {"two", 2}};

static const cyaml_schema_field_t inner_fields[] = {
    CYAML_FIELD_STRING_PTR("word", CYAML_FLAG_POINTER, struct inner, word, 2, 5),
    CYAML_FIELD_UINT("number", CYAML_FLAG_OPTIONAL, struct inner, number),
    CYAML_FIELD_INT("sign", CYAML_FLAG_OPTIONAL, struct inner, sign),
    CYAML_FIELD_ENUM("choice", CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, struct inner, choice,
                     choices, 2),
    CYAML_FIELD_BOOL("flag", CYAML_FLAG_OPTIONAL, struct inner, flag),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t inner_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct inner, inner_fields),
};

static const cyaml_schema_field_t outer_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct outer, name, 0,
                           CYAML_UNLIMITED),
    CYAML_FIELD_MAPPING_PTR("inner", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct outer, inner,
                            inner_fields),
    CYAML_FIELD_SEQUENCE("list", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct outer, list,
                         &inner_value, 1, 2),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t outer_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct outer, outer_fields),
};

#define GOOD                                                                                       \
    "name: x\n"                                                                                    \
    "inner: {word: abc, number: 7, sign: -1, choice: two, flag: yes}\n"                            \
    "list:\n"                                                                                      \
    "  - word: ab\n"                                                                               \
    "  - word: cd\n"                                                                               \
    "    number: 9\n"

static enum kms_status parse(const char *content, struct outer **ret_outer, struct kms_error *err)
{
    void *data = NULL;
    enum kms_status status =
        kms_conf_parse("f.yaml", content, strlen(content), &outer_value, &data, err);

    *ret_outer = data;
    return status;
}

static void fills_the_struct(void)
{
    struct outer *outer = NULL;

    CU_ASSERT_EQUAL_FATAL(parse(GOOD, &outer, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(outer->name, "x");
    CU_ASSERT_STRING_EQUAL(outer->inner->word, "abc");
    CU_ASSERT_EQUAL(outer->inner->number, 7);
    CU_ASSERT_EQUAL(outer->inner->sign, -1);
    CU_ASSERT_EQUAL(outer->inner->choice, 2);
    CU_ASSERT_TRUE(outer->inner->flag);
    CU_ASSERT_EQUAL(outer->list_count, 2);
    CU_ASSERT_EQUAL(outer->list[1].number, 9);
    kms_conf_free(&outer_value, outer);
    kms_conf_free(&outer_value, NULL);
}

static void says_what_is_wrong(void)
{
    static const struct {
        const char *content;
        const char *text;
    } rows[] = {
        {"nam: x\n", "f.yaml:1: nam: there is no such setting"},
        {"name: x\ninner:\n  wort: abc\n", "f.yaml:3: inner.wort: there is no such setting"},
        {"name: x\nlist:\n- word: abc\n- wort: a\n", "f.yaml:4: list[1].wort: there is no such"},
        {"name: x\ninner:\n  number: 1\n", "f.yaml:2: inner.word: is missing"},
        {"name: x\ninner: {}\n", "f.yaml:2: inner.word: is missing"},
        {"name: x\nlist:\n- word: abc\n- number: 1\n", "f.yaml:4: list[1].word: is missing"},
        {"name: x\nname: y\n", "f.yaml:1: name: is there twice"},
        {"inner:\n  word: abc\n  word: abd\n", "f.yaml:2: inner.word: is there twice"},
        {"name: [x]\n", "f.yaml:1: name: must be one value"},
        {"name: {x: y}\n", "f.yaml:1: name: must be one value"},
        {"inner: {word: abc, number: [1]}\n", "f.yaml:1: inner.number: must be one value"},
        {"name: x\ninner: abc\n", "f.yaml:2: inner: must be a mapping"},
        {"name: x\ninner: [abc]\n", "f.yaml:2: inner: must be a mapping"},
        {"name: x\nlist: abc\n", "f.yaml:2: list: must be a list"},
        {"name: x\nlist: {word: abc}\n", "f.yaml:2: list: must be a list"},
        {"list:\n- word: abc\n- abc\n", "f.yaml:3: list[1]: must be a mapping"},
        {"name: x\nlist: []\n", "f.yaml:2: list: has too few entries"},
        {"list: [{word: ab}, {word: cd}, {word: ef}]\n", "f.yaml:1: list: has too many entries"},
        {"inner: {word: a}\n", "f.yaml:1: inner.word: is too short"},
        {"inner: {word: abcdef}\n", "f.yaml:1: inner.word: is too long"},
        {"inner: {word: abc, number: x}\n", "f.yaml:1: inner.number: must be a number in range"},
        {"inner: {word: abc, number: 4294967296}\n", "f.yaml:1: inner.number: must be a number"},
        {"inner: {word: abc, sign: x}\n", "f.yaml:1: inner.sign: must be a number in range"},
        {"inner: {word: abc, choice: three}\n", "f.yaml:1: inner.choice: is none of the words"},
        {"[a]\n", "f.yaml: must be a mapping"},
        {"abc\n", "f.yaml: must be a mapping"},
        {"a: *b\n", "f.yaml:1: a: aliases"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct outer *outer = NULL;

        UNIT_CHECK(rows[i].text, parse(rows[i].content, &outer, &error) == KMS_E_INVALID);
        UNIT_CHECK(rows[i].text, outer == NULL);
        if (!UNIT_CHECK(rows[i].text,
                        strncmp(error.text, rows[i].text, strlen(rows[i].text)) == 0)) {
            fprintf(stderr, "got: %s\n", error.text);
        }
    }
}

/* libcyaml logs wrong values; one may be a secret in the wrong place. */
static void repeats_no_value(void)
{
    static const char *const contents[] = {
        "inner: {word: 73519264}\n",
        "inner: {word: abc, number: x73519264}\n",
        "inner: {word: abc, choice: 73519264}\n",
        "list: 73519264\n",
    };

    for (size_t i = 0; i < UNIT_COUNT(contents); i++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct outer *outer = NULL;

        UNIT_CHECK(contents[i], parse(contents[i], &outer, &error) == KMS_E_INVALID);
        UNIT_CHECK(contents[i], error.text[0] != '\0' && strstr(error.text, "73519264") == NULL);
    }
}

static void has_a_ceiling(void)
{
    static char content[KMS_CONF_MAX + 1];
    struct outer *outer = NULL;
    void *data = NULL;

    memset(content, '#', sizeof(content));
    memcpy(content, "name: x\n", 8);
    CU_ASSERT_EQUAL(kms_conf_parse("f", content, sizeof(content), &outer_value, &data, NULL),
                    KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_conf_parse("f", content, sizeof(content) - 1, &outer_value, &data, NULL),
                    KMS_OK);
    outer = data;
    CU_ASSERT_STRING_EQUAL(outer->name, "x");
    kms_conf_free(&outer_value, outer);
}

static void loads_files(void)
{
    const char *path = scratch_file("f.yaml", 0644, GOOD, strlen(GOOD));
    struct kms_error error = KMS_ERROR_INIT;
    void *data = NULL;

    CU_ASSERT_EQUAL(kms_conf_load(path, &outer_value, &data, &error), KMS_OK);
    CU_ASSERT_PTR_NOT_NULL(data);
    kms_conf_free(&outer_value, data);
    (void)scratch_file("f.yaml", 0646, GOOD, strlen(GOOD));
    CU_ASSERT_EQUAL(kms_conf_load(path, &outer_value, &data, &error), KMS_E_DENIED);
    kms_error_clear(&error);
    (void)scratch_file("f.yaml", 0644, "nam: x\n", 7);
    CU_ASSERT_EQUAL(kms_conf_load(path, &outer_value, &data, &error), KMS_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "f.yaml:1: nam: there is no such setting"));
    (void)unlink(path);
    CU_ASSERT_EQUAL(kms_conf_load(path, &outer_value, &data, NULL), KMS_E_NOT_FOUND);
}

static void survives_lack_of_memory(void)
{
    unsigned nth = 1;

    for (bool came = true; came && nth < 1000; nth++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct outer *outer = NULL;
        enum kms_status status;

        fail_alloc_set(nth);
        status = parse(GOOD, &outer, &error);
        came = fail_alloc_clear();
        CU_ASSERT_EQUAL(status, came ? KMS_E_NOMEM : KMS_OK);
        CU_ASSERT_EQUAL(outer == NULL, came);
        kms_conf_free(&outer_value, outer);
    }
    CU_ASSERT_TRUE(nth > 10);
}

static void error_names_the_place(void)
{
    static const char content[] = "a: 1\nb:\n  - c: {d: 1}\n";
    static const struct {
        const char *path;
        const char *text;
    } rows[] = {
        {"a", "f:1: a: \"x\" is bad"},
        {"b[0].c.d", "f:3: b[0].c.d: \"x\" is bad"},
        {"b[0].c.missing", "f:3: b[0].c.missing: \"x\" is bad"},
        {"z.y", "f: z.y: \"x\" is bad"},
        {"", "f: \"x\" is bad"},
    };
    const struct kms_conf_text text = {"f", content, sizeof(content) - 1};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].path, kms_conf_error(&error, &text, rows[i].path, "\"%s\" is bad",
                                                "x") == KMS_E_INVALID);
        UNIT_CHECK(rows[i].path, strcmp(error.text, rows[i].text) == 0);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"fills the struct", fills_the_struct},
        {"says what is wrong", says_what_is_wrong},
        {"repeats no value", repeats_no_value},
        {"has a ceiling", has_a_ceiling},
        {"loads files", loads_files},
        {"survives lack of memory", survives_lack_of_memory},
        {"error names the place", error_names_the_place},
    };
    int result;

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    result = unit_main("test_common_conf", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
