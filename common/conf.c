/* SPDX-License-Identifier: Apache-2.0 */
#include "common/conf.h"

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/yaml.h"

#define LOG_LINE_MAX 256 /* of libcyaml's lines; longer ones are cut */
#define TRACE_MAX    (KMS_CONF_DEPTH_MAX * 2)

/* What libcyaml said about one failure: what is wrong, then the way from there up to the root. */
struct trace {
    char cause[LOG_LINE_MAX];
    char steps[TRACE_MAX][LOG_LINE_MAX]; /* "hsm", "[0]"; innermost first */
    size_t step_count;
};

enum subject {
    SUBJECT_STEP,  /* the innermost step is the culprit */
    SUBJECT_NAMED, /* the culprit is named behind the prefix; the innermost step is its mapping */
    SUBJECT_LIST   /* the innermost step is an entry of the culprit */
};

/* libcyaml 1.3's log lines. A value is never repeated: it may be a secret in the wrong place. */
static const struct cause_row {
    const char *prefix;
    enum subject subject;
    const char *sentence;
} cause_rows[] = {
    {"Load: Unexpected key: ", SUBJECT_NAMED, "there is no such setting"},
    {"Load: Missing required mapping field: ", SUBJECT_NAMED, "is missing"},
    {"Load: Mapping field already seen: ", SUBJECT_NAMED, "is there twice"},
    {"Load: Expecting STRING", SUBJECT_STEP, "must be one value"},
    {"Load: Expecting MAPPING", SUBJECT_STEP, "must be a mapping (key: value)"},
    {"Load: Expecting SEQUENCE", SUBJECT_STEP, "must be a list"},
    {"Load: Expecting ", SUBJECT_STEP, "must be one value"},
    {"Load: Excessive entries", SUBJECT_LIST, "has too many entries"},
    {"Load: Insufficient entries", SUBJECT_LIST, "has too few entries"},
    {"Load: STRING length <", SUBJECT_STEP, "is too short"},
    {"Load: STRING length >", SUBJECT_STEP, "is too long"},
    {"Load: Invalid INT", SUBJECT_STEP, "must be a number in range"},
    {"Load: Invalid UINT", SUBJECT_STEP, "must be a number in range"},
    {"Load: Invalid uint64_t", SUBJECT_STEP, "must be a number in range"},
    {"Load: Invalid ENUM", SUBJECT_STEP, "is none of the words it may be"},
};

/* What follows @prefix in @text, or NULL. */
static const char *behind(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

static void add_step(struct trace *trace, const char *fmt, ...) KMS_PRINTF(2, 3);

static void add_step(struct trace *trace, const char *fmt, ...)
{
    va_list args;

    if (trace->step_count < TRACE_MAX) {
        va_start(args, fmt);
        (void)vsnprintf(trace->steps[trace->step_count++], LOG_LINE_MAX, fmt, args);
        va_end(args);
    }
}

/* "  in mapping field 'hsm' (line: 4, column: 8)"; an entry's number counts from 1. */
static void read_step(struct trace *trace, const char *line)
{
    const char *rest = behind(line, "  in mapping field '");
    unsigned long entry;

    if (rest != NULL) {
        add_step(trace, "%.*s", (int)strcspn(rest, "'"), rest);
        return;
    }
    rest = behind(line, "  in sequence entry '");
    if (rest != NULL) {
        entry = strtoul(rest, NULL, 10);
        add_step(trace, "[%lu]", entry > 0 ? entry - 1 : 0);
        return;
    }
    if (behind(line, "  in mapping") != NULL) {
        add_step(trace, "%s", "");
    }
}

static void collect(cyaml_log_t level, void *ctx, const char *fmt, va_list args) KMS_PRINTF(3, 0);

/* libcyaml's log callback: the first line is the cause, the indented ones are the way to it. */
static void collect(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    struct trace *trace = ctx;
    char line[LOG_LINE_MAX];

    if (level < CYAML_LOG_ERROR || vsnprintf(line, sizeof(line), fmt, args) < 0) {
        return;
    }
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == ' ') {
        read_step(trace, line);
    } else if (trace->cause[0] == '\0' && behind(line, "Load: Backtrace") == NULL) {
        memcpy(trace->cause, line, sizeof(line));
    }
}

/* libcyaml's own allocator does the same; through ours, tests can make an allocation fail. */
static void *resize(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size);
}

static cyaml_config_t config_with(struct trace *trace)
{
    return (cyaml_config_t){
        .log_fn = trace == NULL ? NULL : collect,
        .log_ctx = trace,
        .mem_fn = resize,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
}

static void append(char path[KMS_YAML_PATH_MAX], const char *step)
{
    size_t len = strlen(path);
    const char *dot = len > 0 && step[0] != '[' && step[0] != '\0' ? "." : "";

    (void)snprintf(path + len, KMS_YAML_PATH_MAX - len, "%s%s", dot, step);
}

/* The path of the culprit; the steps are innermost first. */
static void make_path(const struct trace *trace, enum subject subject, const char *name,
                      char ret_path[KMS_YAML_PATH_MAX])
{
    size_t first = subject == SUBJECT_STEP ? 0 : 1;

    ret_path[0] = '\0';
    for (size_t i = trace->step_count; i > first; i--) {
        append(ret_path, trace->steps[i - 1]);
    }
    if (subject == SUBJECT_NAMED) {
        append(ret_path, name);
    }
}

static enum kms_status explain(const struct kms_conf_text *text, const struct trace *trace,
                               cyaml_err_t code, struct kms_error *err)
{
    char path[KMS_YAML_PATH_MAX];

    for (size_t i = 0; i < sizeof(cause_rows) / sizeof(cause_rows[0]); i++) {
        const char *rest = behind(trace->cause, cause_rows[i].prefix);

        if (rest != NULL) {
            make_path(trace, cause_rows[i].subject, rest, path);
            return kms_conf_error(err, text, path, "%s", cause_rows[i].sentence);
        }
    }
    make_path(trace, SUBJECT_STEP, "", path);
    return kms_conf_error(err, text, path, "%s", cyaml_strerror(code));
}

/* The line of @path, or of the nearest mapping around it when the key itself is missing. */
static size_t nearest_line(const struct kms_conf_text *text, const char *path)
{
    char known[KMS_YAML_PATH_MAX];
    size_t line = 0;

    (void)snprintf(known, sizeof(known), "%s", path);
    while (line == 0 && known[0] != '\0') {
        char *dot = strrchr(known, '.');

        line = kms_yaml_line(text->content, text->len, known);
        *(dot == NULL ? known : dot) = '\0';
    }
    return line;
}

enum kms_status kms_conf_error(struct kms_error *err, const struct kms_conf_text *text,
                               const char *path, const char *fmt, ...)
{
    char sentence[KMS_ERROR_TEXT_MAX] = "";
    size_t line = nearest_line(text, path);
    char place[32] = "";
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);
    if (line > 0) {
        (void)snprintf(place, sizeof(place), "%zu:", line);
    }
    return kms_error_set(err, KMS_E_INVALID, "%s:%s %s%s%s", text->name, place, path,
                         path[0] != '\0' ? ": " : "", sentence);
}

enum kms_status kms_conf_parse(const char *name, const char *content, size_t len,
                               const struct cyaml_schema_value *schema, void **ret_data,
                               struct kms_error *err)
{
    const struct kms_conf_text text = {.name = name, .content = content, .len = len};
    struct trace trace = {.step_count = 0};
    const cyaml_config_t config = config_with(&trace);
    enum kms_status status;
    void *data = NULL;
    cyaml_err_t code;

    if (len > KMS_CONF_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "%s is larger than %u bytes", name,
                             KMS_CONF_MAX);
    }
    status = kms_yaml_check(name, content, len, err);
    if (status != KMS_OK) {
        return status;
    }
    code = cyaml_load_data((const uint8_t *)content, len, &config, schema, &data, NULL);
    if (code == CYAML_ERR_OOM || code == CYAML_ERR_LIBYAML_PARSER_INIT) {
        return kms_error_set(err, KMS_E_NOMEM, "%s: no memory to read it", name);
    }
    if (code != CYAML_OK) {
        return explain(&text, &trace, code, err);
    }
    if (data == NULL) { /* libcyaml's documentation allows it */
        return kms_error_set(err, KMS_E_INVALID, "%s: is empty", name);
    }
    *ret_data = data;
    return KMS_OK;
}

enum kms_status kms_conf_load(const char *path, const struct cyaml_schema_value *schema,
                              void **ret_data, struct kms_error *err)
{
    enum kms_status status;
    char *content = NULL;
    size_t len = 0;

    status = kms_file_read(path, KMS_FILE_CONFIG, KMS_CONF_MAX, &content, &len, err);
    if (status != KMS_OK) {
        return status;
    }
    status = kms_conf_parse(path, content, len, schema, ret_data, err);
    free(content);
    return status;
}

void kms_conf_free(const struct cyaml_schema_value *schema, void *data)
{
    const cyaml_config_t config = config_with(NULL);

    if (data != NULL) {
        (void)cyaml_free(&config, schema, data, 0);
    }
}

/* libcyaml allocates by the configuration's mem_fn, which is realloc(). */
static char *text_of(const struct cyaml_schema_value *schema, const void *data, size_t *ret_len)
{
    const cyaml_config_t config = config_with(NULL);
    char *text = NULL;

    return cyaml_save_data(&text, ret_len, &config, schema, data, 0) == CYAML_OK ? text : NULL;
}

bool kms_conf_same(const struct cyaml_schema_value *schema, const void *a, const void *b)
{
    size_t a_len = 0;
    size_t b_len = 0;
    char *a_text = text_of(schema, a, &a_len);
    char *b_text = text_of(schema, b, &b_len);
    bool same =
        a_text != NULL && b_text != NULL && a_len == b_len && memcmp(a_text, b_text, a_len) == 0;

    free(a_text);
    free(b_text);
    return same;
}
