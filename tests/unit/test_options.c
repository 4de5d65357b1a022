/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/options.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"

#define WORDS 8

struct parse_row {
    const char *name;
    const char *words[WORDS]; /* behind the program's name */
    enum kms_status status;
    const char *verb;
    enum kms_option option;
    const char *value; /* NULL: not given */
};

static int fill(const char *const *words, char *argv[WORDS + 2])
{
    int argc = 0;

    argv[argc++] = strdup("kmsbridgectl");
    for (size_t i = 0; i < WORDS && words[i] != NULL; i++) {
        argv[argc++] = strdup(words[i]);
    }
    argv[argc] = NULL;
    return argc;
}

static void parse(void)
{
    static const struct parse_row rows[] = {
        {"nothing", {NULL}, KMS_OK, "", KMS_OPT_JSON, NULL},
        {"verb", {"init"}, KMS_OK, "init", KMS_OPT_JSON, NULL},
        {"two words", {"keys", "list"}, KMS_OK, "keys list", KMS_OPT_JSON, NULL},
        {"before", {"--config", "f", "keys", "list"}, KMS_OK, "keys list", KMS_OPT_CONFIG, "f"},
        {"between", {"keys", "--config=f", "list"}, KMS_OK, "keys list", KMS_OPT_CONFIG, "f"},
        {"behind", {"keys", "list", "--config", "f"}, KMS_OK, "keys list", KMS_OPT_CONFIG, "f"},
        {"flag", {"--json", "init"}, KMS_OK, "init", KMS_OPT_JSON, ""},
        {"short help", {"-h"}, KMS_OK, "", KMS_OPT_HELP, ""},
        {"short version", {"-V"}, KMS_OK, "", KMS_OPT_VERSION, ""},
        {"end of options", {"--", "--json"}, KMS_OK, "--json", KMS_OPT_JSON, NULL},
        {"the last one counts", {"--dir", "a", "--dir", "b"}, KMS_OK, "", KMS_OPT_DIR, "b"},
        {"no such", {"--json", "--bogus"}, KMS_E_INVALID, "", KMS_OPT_JSON, ""},
        {"value missing", {"init", "--dir"}, KMS_E_INVALID, "", KMS_OPT_DIR, NULL},
        {"value not wanted", {"init", "--json=1"}, KMS_E_INVALID, "", KMS_OPT_JSON, NULL},
        {"ambiguous", {"--t", "1"}, KMS_E_INVALID, "", KMS_OPT_TYPE, NULL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct parse_row *row = &rows[i];
        struct kms_options options;
        struct kms_error err = KMS_ERROR_INIT;
        char *argv[WORDS + 2], *kept[WORDS + 2];
        int argc = fill(row->words, argv);
        const char *value;

        memcpy(kept, argv, sizeof(kept)); /* getopt reorders argv */
        UNIT_CHECK(row->name, kms_options_parse(argc, argv, &options, &err) == row->status);
        UNIT_CHECK(row->name, strcmp(options.verb, row->verb) == 0);
        UNIT_CHECK(row->name, (err.text[0] != '\0') == (row->status != KMS_OK));
        value = options.value[row->option];
        UNIT_CHECK(row->name, (value == NULL) == (row->value == NULL));
        UNIT_CHECK(row->name,
                   value == NULL || row->value == NULL || strcmp(value, row->value) == 0);
        for (int n = 0; n < argc; n++) {
            free(kept[n]);
        }
    }
}

static void too_many_words(void)
{
    char program[] = "kmsbridgectl", word[KMS_VERB_MAX + 1];
    char *argv[] = {program, word, NULL};
    struct kms_options options;
    struct kms_error err = KMS_ERROR_INIT;

    memset(word, 'x', KMS_VERB_MAX);
    word[KMS_VERB_MAX] = '\0';
    UNIT_CHECK("long", kms_options_parse(2, argv, &options, &err) == KMS_E_INVALID);
    word[KMS_VERB_MAX - 1] = '\0';
    err = (struct kms_error)KMS_ERROR_INIT;
    UNIT_CHECK("fits", kms_options_parse(2, argv, &options, &err) == KMS_OK);
    UNIT_CHECK("fits", strcmp(options.verb, word) == 0);
}

static void check(void)
{
    struct kms_options options = {.verb = "keys list"};
    struct kms_error err = KMS_ERROR_INIT;

    options.value[KMS_OPT_JSON] = "";
    UNIT_CHECK("takes it", kms_options_check(&options, KMS_TAKES_ALWAYS, &err) == KMS_OK);
    options.value[KMS_OPT_OUT] = "x"; /* the last of the table */
    UNIT_CHECK("refuses", kms_options_check(&options, KMS_TAKES_ALWAYS, &err) == KMS_E_INVALID);
    UNIT_CHECK("names it", strcmp(err.text, "keys list does not take --out") == 0);
    UNIT_CHECK("takes all", kms_options_check(&options, UINT32_MAX, NULL) == KMS_OK);
}

static const struct unit_test tests[] = {
    {"parse", parse},
    {"too many words", too_many_words},
    {"check", check},
};

int main(void)
{
    return unit_main("test_options", tests, UNIT_COUNT(tests));
}
