/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/output.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/codec.h"
#include "common/secure.h"

/* ---- errors ---------------------------------------------------------------------------------- */

/* Statuses that have an exit code of their own; all others are KMS_EXIT_FAILED. */
static const struct exit_row {
    enum kms_status status;
    enum kms_exit code;
} exit_rows[] = {
    {KMS_OK, KMS_EXIT_OK},
    {KMS_E_AUTH, KMS_EXIT_REFUSED},
    {KMS_E_DENIED, KMS_EXIT_REFUSED},
    {KMS_E_EXISTS, KMS_EXIT_EXISTS},
};

enum kms_exit kms_exit_of(enum kms_status status)
{
    size_t i;

    for (i = 0; i < sizeof(exit_rows) / sizeof(exit_rows[0]); i++) {
        if (exit_rows[i].status == status) {
            return exit_rows[i].code;
        }
    }
    return KMS_EXIT_FAILED;
}

enum kms_exit kms_fail(struct kms_failure *failure, enum kms_exit code, const char *next, ...)
{
    va_list args;

    if (failure->next[0] == '\0') {
        va_start(args, next);
        vsnprintf(failure->next, sizeof(failure->next), next, args);
        va_end(args);
    }
    return code;
}

/* A JSON string of @text, whatever bytes it has. */
static json_t *text_of(const char *text)
{
    json_t *value = json_string(text);
    char *escaped;

    if (value != NULL) {
        return value;
    }
    escaped = kms_table_escape(text); /* no UTF-8 */
    value = escaped != NULL ? json_string(escaped) : NULL;
    free(escaped);
    return value;
}

static void print_failure_text(FILE *to, const char *text)
{
    char *shown = kms_table_escape(text);

    fprintf(to, "kmsbridgectl: %s\n", shown != NULL ? shown : "no memory");
    free(shown);
}

void kms_output_failure(FILE *to, bool json, const struct kms_failure *failure)
{
    const struct kms_error *error = &failure->error;
    json_t *root;

    if (!json) {
        print_failure_text(to, error->text);
        if (failure->next[0] != '\0') {
            print_failure_text(to, failure->next);
        }
        return;
    }
    root = json_pack("{s:{s:s,s:o,s:o,s:o}}", "error", "class", kms_status_name(error->status),
                     "code", text_of(error->code), "text", text_of(error->text), "next",
                     text_of(failure->next));
    if (root == NULL || json_dumpf(root, to, JSON_INDENT(2)) != 0) {
        fputs("{\"error\":{\"class\":\"nomem\",\"code\":\"\",\"text\":\"no memory\"}}", to);
    }
    fputc('\n', to);
    json_decref(root);
}

/* ---- records and lists ----------------------------------------------------------------------- */

static json_t *list_of(const char *cell)
{
    json_t *list = json_array();
    char *copy = strdup(cell);
    char *rest = copy;
    char *item;

    while (copy != NULL && (item = strsep(&rest, ",")) != NULL) {
        if (item[0] != '\0') {
            (void)json_array_append_new(list, text_of(item));
        }
    }
    free(copy);
    return list;
}

static json_t *value_of(enum kms_cell_kind kind, const char *cell)
{
    const char *text = cell != NULL ? cell : "";

    switch (kind) {
    case KMS_CELL_NUMBER:
        return json_integer((json_int_t)strtoull(text, NULL, 10));
    case KMS_CELL_LIST:
        return list_of(text);
    case KMS_CELL_TEXT:
        break;
    }
    return text_of(text);
}

/* NULL without memory. */
static json_t *object_of(const struct kms_column *columns, const char *const *cells, size_t count)
{
    json_t *object = json_object();
    size_t i;

    for (i = 0; i < count; i++) {
        if (json_object_set_new(object, columns[i].name, value_of(columns[i].kind, cells[i]))) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* Takes @root, which may be NULL. */
static enum kms_status dump(FILE *to, json_t *root, struct kms_error *err)
{
    int failed = root == NULL ? -1 : json_dumpf(root, to, JSON_INDENT(2));

    json_decref(root);
    if (failed != 0 || fputc('\n', to) == EOF) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot write the output");
    }
    return KMS_OK;
}

enum kms_status kms_output_record(FILE *to, bool json, const struct kms_column *columns,
                                  const char *const *cells, size_t count, struct kms_error *err)
{
    if (json) {
        return dump(to, object_of(columns, cells, count), err);
    }
    kms_table_print_record(to, columns, cells, count);
    return KMS_OK;
}

enum kms_status kms_output_rows(FILE *to, bool json, const char *name,
                                const struct kms_column *columns, size_t count,
                                const char *const *cells, size_t rows, struct kms_error *err)
{
    json_t *list;
    size_t i;

    if (!json) {
        kms_table_print(to, columns, count, cells, rows);
        return KMS_OK;
    }
    list = json_array();
    for (i = 0; i < rows; i++) {
        if (json_array_append_new(list, object_of(columns, cells + i * count, count)) != 0) {
            json_decref(list);
            return kms_error_set(err, KMS_E_NOMEM, "no memory");
        }
    }
    return dump(to, json_pack("{s:o}", name, list), err);
}

char *kms_output_quote(const char *text)
{
    json_t *value = json_string(text);
    char *quoted = value != NULL ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

    json_decref(value);
    return quoted;
}

/* ---- the sealed record ----------------------------------------------------------------------- */

static json_t *base64_of(struct kms_span bytes)
{
    size_t size = (bytes.len + 2) / 3 * 4 + 1;
    char *text = malloc(size);
    json_t *value = NULL;

    if (text != NULL && kms_base64_encode(bytes, text, size) == KMS_OK) {
        value = json_string(text);
    }
    free(text);
    return value;
}

enum kms_status kms_output_sealed(bool json, const struct kms_v2_sealed *sealed, char **ret_text,
                                  struct kms_error *err)
{
    json_t *annotations = json_object();
    json_t *root = NULL;
    char *dumped = NULL;
    char *text = NULL;
    bool complete = true;
    size_t i;

    for (i = 0; i < sealed->annotation_count; i++) {
        const struct kms_v2_annotation *item = &sealed->annotations[i];

        complete =
            json_object_set_new(annotations, item->key, base64_of(item->value)) == 0 && complete;
    }
    root = json_pack("{s:o,s:s,s:o}", "ciphertext", base64_of(sealed->ciphertext), "key_id",
                     sealed->key_id, "annotations", annotations);
    dumped =
        complete && root != NULL ? json_dumps(root, json ? JSON_COMPACT : JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (dumped == NULL || asprintf(&text, "%s\n", dumped) < 0) {
        text = NULL;
    }
    free(dumped);
    if (text == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL,
                             "the reply has texts that are no UTF-8, or there is no memory");
    }
    *ret_text = text;
    return KMS_OK;
}

/* Decodes the base64 string @value into @room and takes a span of it. */
static enum kms_status take_base64(const json_t *value, const char *name, struct kms_buf *room,
                                   struct kms_span *ret_span, struct kms_error *err)
{
    size_t start = room->len;

    if (!json_is_string(value)) {
        return kms_error_set(err, KMS_E_BAD_DATA, "the record has no base64 string \"%s\"", name);
    }
    if (kms_base64_decode(kms_span_of(json_string_value(value), json_string_length(value)), room) !=
        KMS_OK) {
        return kms_error_set(err, KMS_E_BAD_DATA, "the record's \"%s\" is no base64", name);
    }
    *ret_span = kms_span_of(room->data + start, room->len - start);
    return KMS_OK;
}

/* Copies @text with its NUL into @room; the room is as large as the whole record's text. */
static enum kms_status take_text(const char *text, struct kms_buf *room, const char **ret_text,
                                 struct kms_error *err)
{
    const char *copy = (const char *)(room->data + room->len);

    if (kms_buf_put(room, kms_span_of(text, strlen(text) + 1)) != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "the record is larger than its own text");
    }
    *ret_text = copy;
    return KMS_OK;
}

static enum kms_status take_annotations(json_t *from, struct kms_buf *room,
                                        struct kms_v2_sealed *sealed, struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    const char *key;
    json_t *value;

    if (from != NULL && !json_is_object(from)) {
        return kms_error_set(err, KMS_E_BAD_DATA, "the record's \"annotations\" is no object");
    }
    sealed->annotations = calloc(json_object_size(from) + 1, sizeof(*sealed->annotations));
    if (sealed->annotations == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    json_object_foreach(from, key, value)
    {
        struct kms_v2_annotation *item = &sealed->annotations[sealed->annotation_count];

        item->key = strdup(key);
        if (item->key == NULL) {
            return kms_error_set(err, KMS_E_NOMEM, "no memory");
        }
        sealed->annotation_count++;
        status = take_base64(value, key, room, &item->value, err);
        if (status != KMS_OK) {
            return status;
        }
    }
    return KMS_OK;
}

static enum kms_status take_sealed(json_t *root, struct kms_buf *room, struct kms_v2_sealed *sealed,
                                   struct kms_error *err)
{
    const json_t *key_id = json_object_get(root, "key_id");
    enum kms_status status = take_base64(json_object_get(root, "ciphertext"), "ciphertext", room,
                                         &sealed->ciphertext, err);

    if (status != KMS_OK) {
        return status;
    }
    if (!json_is_string(key_id)) {
        return kms_error_set(err, KMS_E_BAD_DATA, "the record has no string \"key_id\"");
    }
    status = take_text(json_string_value(key_id), room, &sealed->key_id, err);
    if (status != KMS_OK) {
        return status;
    }
    return take_annotations(json_object_get(root, "annotations"), room, sealed, err);
}

enum kms_status kms_input_sealed(struct kms_span text, struct kms_v2_sealed *ret_sealed,
                                 struct kms_error *err)
{
    json_error_t where;
    json_t *root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &where);
    struct kms_v2_sealed sealed = {.storage = kms_secure_new(text.len + 1)};
    struct kms_buf room = kms_buf_over(sealed.storage, text.len + 1);
    enum kms_status status;

    if (sealed.storage == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory");
    } else if (!json_is_object(root)) {
        status = kms_error_set(err, KMS_E_BAD_DATA, "the record is no JSON object: %s (line %d)",
                               root == NULL ? where.text : "another value",
                               root == NULL ? where.line : 1);
    } else {
        status = take_sealed(root, &room, &sealed, err);
    }
    json_decref(root);
    if (status != KMS_OK) {
        kms_v2_sealed_done(&sealed);
        return status;
    }
    *ret_sealed = sealed;
    return KMS_OK;
}

/* ---- plaintext ------------------------------------------------------------------------------- */

enum kms_status kms_output_plaintext_json(struct kms_span plaintext, struct kms_buf *ret_text)
{
    static const char head[] = "{\"plaintext\":\"";
    static const char tail[] = "\"}\n"; /* base64 needs no escapes */
    enum kms_status status = kms_buf_put(ret_text, kms_span_str(head));

    if (status == KMS_OK) {
        char *at = (char *)ret_text->data + ret_text->len;

        status = kms_base64_encode(plaintext, at, kms_buf_room(ret_text));
        ret_text->len += status == KMS_OK ? strlen(at) : 0;
    }
    return status == KMS_OK ? kms_buf_put(ret_text, kms_span_str(tail)) : status;
}
