/* SPDX-License-Identifier: Apache-2.0 */
#include "common/yaml.h"

#include <string.h>

#include "common/conf.h"
#include "tests/unit/unit.h"

static void check(void)
{
    static const struct {
        const char *name;
        const char *content;
        size_t len; /* 0: to the NUL */
        enum kms_status status;
        const char *says;
    } rows[] = {
        {"mapping", "a: 1\nb: [x, {c: d}]\n", 0, KMS_OK, ""},
        {"quoted null words", "a: \"\"\nb: '~'\nc: \"null\"\n", 0, KMS_OK, ""},
        {"crlf", "a: 1\r\nb: 2\r\n", 0, KMS_OK, ""},
        {"document marks", "---\na: 1\n...\n", 0, KMS_OK, ""},
        {"umlauts", "a: \xc3\xa4\n", 0, KMS_OK, ""},
        {"empty", "", 0, KMS_E_INVALID, "f: is empty"},
        {"comment only", "# nothing\n", 0, KMS_E_INVALID, "f: is empty"},
        {"empty document", "---\n", 0, KMS_E_INVALID, "f:2: has no value"},
        {"byte order mark",
         "\xef\xbb\xbf"
         "a: 1\n",
         0, KMS_E_INVALID, "f:1: begins with a byte order"},
        {"utf-16",
         "\xff\xfe"
         "a\0:\0",
         6, KMS_E_INVALID, "f:1: is not UTF-8"},
        {"latin-1", "a: 1\nb: \xe4\n", 0, KMS_E_INVALID, "f:2: is not UTF-8"},
        {"nul byte", "a: 1\nb: x\0y\n", 11, KMS_E_INVALID, "f:2: holds a NUL byte"},
        {"nul escape", "a: 1\nb: \"x\\0y\"\n", 0, KMS_E_INVALID, "f:2: b: holds a NUL character"},
        {"nul escape in a key", "\"x\\0y\": 1\n", 0, KMS_E_INVALID,
         "f:1: x: holds a NUL character"},
        {"nul escape, long", "a: [\"\\u0000\"]\n", 0, KMS_E_INVALID, "f:1: a[0]: holds a NUL"},
        {"control", "a: 1\nb: \x01\n", 0, KMS_E_INVALID, "f:2: not YAML: control characters"},
        {"tab", "a:\n\tb: 1\n", 0, KMS_E_INVALID, "f:2: not YAML: "},
        {"open quote", "a: \"x\n", 0, KMS_E_INVALID, "not YAML: "},
        {"open list", "a: [1\nb: 2\n", 0, KMS_E_INVALID, "not YAML: "},
        {"no colon", "a: 1\nb\nc: 2\n", 0, KMS_E_INVALID, "not YAML: "},
        {"alias", "a: &x 1\nb: *x\n", 0, KMS_E_INVALID, "f:1: a: anchors (&name)"},
        {"alias to nothing", "b: [*x]\n", 0, KMS_E_INVALID, "f:1: b[0]: aliases (*name)"},
        {"anchor on a list", "a: &x [1]\n", 0, KMS_E_INVALID, "f:1: a: anchors"},
        {"anchor on a mapping", "a: &x {b: 1}\n", 0, KMS_E_INVALID, "f:1: a: anchors"},
        {"anchor on a key", "&x a: 1\n", 0, KMS_E_INVALID, "f:1: a: anchors"},
        {"tag", "a: !!binary aGk=\n", 0, KMS_E_INVALID, "f:1: a: tags (!name)"},
        {"tag on a list", "a: !!set [1]\n", 0, KMS_E_INVALID, "f:1: a: tags"},
        {"merge key is a key", "a: {<<: *x}\n", 0, KMS_E_INVALID, "f:1: a.<<: aliases"},
        {"second document", "a: 1\n---\nb: 2\n", 0, KMS_E_INVALID, "f:2: a second document"},
        {"key is a list", "? [a]\n: 1\n", 0, KMS_E_INVALID, "f:1: a key must be plain text"},
        {"key is a mapping", "x:\n  {a: 1}: 2\n", 0, KMS_E_INVALID, "f:2: x: a key must be"},
        {"no value", "a: 1\nb:\n", 0, KMS_E_INVALID, "b: has no value"},
        {"tilde", "a: {b: ~}\n", 0, KMS_E_INVALID, "f:1: a.b: has no value"},
        {"null", "a: [1, null]\n", 0, KMS_E_INVALID, "f:1: a[1]: has no value"},
        {"later part of a list", "a: [1, {b: [2, *y]}]\n", 0, KMS_E_INVALID,
         "f:1: a[1].b[1]: alias"},
        {"behind a list", "a: [1, {b: [2]}]\nc: *y\n", 0, KMS_E_INVALID, "f:2: c: alias"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        size_t len = rows[i].len > 0 ? rows[i].len : strlen(rows[i].content);
        struct kms_error error = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].name,
                   kms_yaml_check("f", rows[i].content, len, &error) == rows[i].status);
        if (!UNIT_CHECK(rows[i].name, strstr(error.text, rows[i].says) != NULL)) {
            fprintf(stderr, "%s: \"%s\"\n", rows[i].name, error.text);
        }
    }
}

/* @depth lists in one another. */
static enum kms_status check_depth(size_t depth, struct kms_error *err)
{
    static char content[1 << 16];
    size_t len = 0;

    content[len++] = 'a';
    content[len++] = ':';
    content[len++] = ' ';
    memset(content + len, '[', depth);
    memset(content + len + depth, ']', depth);
    return kms_yaml_check("f", content, len + 2 * depth, err);
}

static void depth(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(check_depth(KMS_CONF_DEPTH_MAX - 1, NULL), KMS_OK);
    CU_ASSERT_EQUAL(check_depth(KMS_CONF_DEPTH_MAX, &error), KMS_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "nested too deeply"));
    CU_ASSERT_EQUAL(check_depth(30000, NULL), KMS_E_INVALID);
}

static void line(void)
{
    static const char content[] = "a: 1\n"
                                  "b:\n"
                                  "  - name: x\n"
                                  "    c: {d: 1,\n"
                                  "        e: 2}\n"
                                  "  - name: y\n"
                                  "f: 3\n";
    static const struct {
        const char *path;
        size_t line;
    } rows[] = {
        {"a", 1},        {"b", 2},    {"b[0]", 3},      {"b[0].name", 3}, {"b[0].c.d", 4},
        {"b[0].c.e", 5}, {"b[1]", 6}, {"b[1].name", 6}, {"f", 7},         {"b[2]", 0},
        {"b[0].x", 0},   {"g", 0},    {"", 0},          {"b[0]name", 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].path,
                   kms_yaml_line(content, strlen(content), rows[i].path) == rows[i].line);
    }
    CU_ASSERT_EQUAL(kms_yaml_line("a: [", 4, "b"), 0);
}

/* Paths and keys of any length are cut, not overrun. */
static void long_keys(void)
{
    static char content[70000];
    struct kms_error error = KMS_ERROR_INIT;
    size_t len = 0;

    for (size_t i = 0; i < 20; i++) {
        memset(content + len, 'k', 100);
        memcpy(content + len + 100, ": {", 3);
        len += 103;
    }
    content[len++] = '*';
    content[len++] = 'x';
    CU_ASSERT_EQUAL(kms_yaml_check("f", content, len, &error), KMS_E_INVALID);
    CU_ASSERT_EQUAL(strncmp(error.text, "f:1: kkkk", 9), 0);
    memset(content, 'k', 65000);
    memcpy(content + 65000, ": *x", 4);
    CU_ASSERT_EQUAL(kms_yaml_check("f", content, 65004, NULL), KMS_E_INVALID);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"check", check},
        {"depth", depth},
        {"line", line},
        {"long keys", long_keys},
    };

    return unit_main("test_yaml", tests, UNIT_COUNT(tests));
}
