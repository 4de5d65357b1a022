/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/json.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/rest/wiping.h"
#include "common/codec.h"

struct kms_json_doc {
    json_t *root;
};

static const json_t *node_of(const struct kms_json *value)
{
    return value->node;
}

/* ---- a document --------------------------------------------------------------------------- */

/* jansson's allocator is the process's; it must be set before the first document is made. */
static void set_allocator(void)
{
    json_set_alloc_funcs(kms_wiping_malloc, kms_wiping_free);
}

enum kms_status kms_json_parse(const char *name, struct kms_span text,
                               struct kms_json_doc **ret_doc, struct kms_json *ret_root,
                               struct kms_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct kms_json_doc *doc = NULL;
    json_error_t error = {.line = 0};

    (void)pthread_once(&once, set_allocator);
    doc = calloc(1, sizeof(*doc));
    if (doc == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for %s", name);
    }
    doc->root = text.len == 0
                    ? NULL
                    : json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);
    if (doc->root == NULL || !json_is_object(doc->root)) {
        /* jansson's own text quotes what it read: a secret, perhaps */
        enum kms_status status = kms_error_set(
            err, KMS_E_PROTOCOL, "%s is not one JSON object (%zu bytes, line %d, column %d)", name,
            text.len, error.line, error.column);

        kms_json_free(doc);
        return status;
    }
    *ret_root = (struct kms_json){.node = doc->root};
    (void)snprintf(ret_root->name, sizeof(ret_root->name), "%s", name);
    *ret_doc = doc;
    return KMS_OK;
}

void kms_json_free(struct kms_json_doc *doc)
{
    if (doc != NULL) {
        json_decref(doc->root);
        free(doc);
    }
}

/* ---- fields ------------------------------------------------------------------------------- */

static const char *kind_of(const json_t *node)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "object",  [JSON_ARRAY] = "array",   [JSON_STRING] = "text",
        [JSON_INTEGER] = "number", [JSON_REAL] = "fraction", [JSON_TRUE] = "boolean",
        [JSON_FALSE] = "boolean",  [JSON_NULL] = "null",
    };

    return node == NULL ? "nothing" : kinds[json_typeof(node)];
}

static const json_t *field(const struct kms_json *object, const char *key)
{
    return json_object_get(node_of(object), key);
}

static enum kms_status wrong(const struct kms_json *object, const char *key, const char *wanted,
                             struct kms_error *err)
{
    const json_t *node = field(object, key);

    if (node == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s lacks the field \"%s\"", object->name, key);
    }
    return kms_error_set(err, KMS_E_PROTOCOL, "%s: \"%s\" is %s, not %s", object->name, key,
                         kind_of(node), wanted);
}

bool kms_json_has(const struct kms_json *object, const char *key)
{
    const json_t *node = field(object, key);

    return node != NULL && !json_is_null(node);
}

const char *kms_json_kind(const struct kms_json *object, const char *key)
{
    return kind_of(field(object, key));
}

static void set_child(const struct kms_json *object, const char *key, const json_t *node,
                      struct kms_json *ret)
{
    char name[2 * KMS_JSON_NAME_MAX];

    (void)snprintf(name, sizeof(name), "%s: %.*s", object->name, KMS_JSON_NAME_MAX / 2, key);
    *ret = (struct kms_json){.node = node};
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", KMS_JSON_NAME_MAX - 1, name);
}

enum kms_status kms_json_object(const struct kms_json *object, const char *key,
                                struct kms_json *ret_object, struct kms_error *err)
{
    if (!json_is_object(field(object, key))) {
        return wrong(object, key, "an object", err);
    }
    set_child(object, key, field(object, key), ret_object);
    return KMS_OK;
}

enum kms_status kms_json_array(const struct kms_json *object, const char *key,
                               struct kms_json *ret_array, struct kms_error *err)
{
    if (!json_is_array(field(object, key))) {
        return wrong(object, key, "an array", err);
    }
    set_child(object, key, field(object, key), ret_array);
    return KMS_OK;
}

enum kms_status kms_json_text(const struct kms_json *object, const char *key, size_t max,
                              const char **ret_text, struct kms_error *err)
{
    const json_t *node = field(object, key);

    if (!json_is_string(node)) {
        return wrong(object, key, "a text", err);
    }
    if (json_string_length(node) > max) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: \"%s\" is longer than %zu bytes",
                             object->name, key, max);
    }
    *ret_text = json_string_value(node);
    return KMS_OK;
}

enum kms_status kms_json_u64(const struct kms_json *object, const char *key, uint64_t min,
                             uint64_t max, uint64_t *ret_value, struct kms_error *err)
{
    const json_t *node = field(object, key);
    json_int_t value = json_integer_value(node);

    if (!json_is_integer(node)) {
        return wrong(object, key, "a whole number", err);
    }
    if (value < 0 || (uint64_t)value < min || (uint64_t)value > max) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: \"%s\" is out of range", object->name, key);
    }
    *ret_value = (uint64_t)value;
    return KMS_OK;
}

enum kms_status kms_json_bool(const struct kms_json *object, const char *key, bool *ret_value,
                              struct kms_error *err)
{
    if (!json_is_boolean(field(object, key))) {
        return wrong(object, key, "true or false", err);
    }
    *ret_value = json_is_true(field(object, key));
    return KMS_OK;
}

enum kms_status kms_json_base64(const struct kms_json *object, const char *key, struct kms_buf *out,
                                struct kms_error *err)
{
    const json_t *node = field(object, key);
    enum kms_status status = KMS_OK;

    if (!json_is_string(node)) {
        return wrong(object, key, "a base64 text", err);
    }
    status = kms_base64_decode(kms_span_of(json_string_value(node), json_string_length(node)), out);
    if (status != KMS_OK) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: \"%s\" is %s", object->name, key,
                             status == KMS_E_TOO_LARGE ? "too long" : "not base64");
    }
    return KMS_OK;
}

enum kms_status kms_json_text_maybe(const struct kms_json *object, const char *key, size_t max,
                                    const char **ret_text, struct kms_error *err)
{
    return kms_json_has(object, key) ? kms_json_text(object, key, max, ret_text, err) : KMS_OK;
}

enum kms_status kms_json_u64_maybe(const struct kms_json *object, const char *key, uint64_t min,
                                   uint64_t max, uint64_t *ret_value, struct kms_error *err)
{
    return kms_json_has(object, key) ? kms_json_u64(object, key, min, max, ret_value, err) : KMS_OK;
}

enum kms_status kms_json_bool_maybe(const struct kms_json *object, const char *key, bool *ret_value,
                                    struct kms_error *err)
{
    return kms_json_has(object, key) ? kms_json_bool(object, key, ret_value, err) : KMS_OK;
}

/* ---- elements ----------------------------------------------------------------------------- */

size_t kms_json_count(const struct kms_json *array)
{
    return json_array_size(node_of(array));
}

enum kms_status kms_json_text_at(const struct kms_json *array, size_t index, size_t max,
                                 const char **ret_text, struct kms_error *err)
{
    const json_t *node = json_array_get(node_of(array), index);

    if (!json_is_string(node) || json_string_length(node) > max) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: element %zu is no text of at most %zu bytes",
                             array->name, index, max);
    }
    *ret_text = json_string_value(node);
    return KMS_OK;
}

enum kms_status kms_json_object_at(const struct kms_json *array, size_t index,
                                   struct kms_json *ret_object, struct kms_error *err)
{
    const json_t *node = json_array_get(node_of(array), index);
    char key[32];

    if (!json_is_object(node)) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: element %zu is no object", array->name,
                             index);
    }
    (void)snprintf(key, sizeof(key), "[%zu]", index);
    set_child(array, key, node, ret_object);
    return KMS_OK;
}

enum kms_status kms_json_each(const struct kms_json *object, kms_json_visit visit, void *ctx,
                              struct kms_error *err)
{
    /* jansson's iterators want a json_t that could be changed, and do not change it */
    json_t *node = (json_t *)(uintptr_t)object->node;
    enum kms_status status = KMS_OK;

    for (void *at = json_object_iter(node); status == KMS_OK && at != NULL;
         at = json_object_iter_next(node, at)) {
        status = visit(ctx, object, json_object_iter_key(at), err);
    }
    return status;
}
