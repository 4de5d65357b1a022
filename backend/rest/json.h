/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON of key services, read strictly: a reply that lacks, doubles or mistypes a field is
 * KMS_E_PROTOCOL that names the field, never a guess. Unknown fields are fine. And JSON written,
 * into a buffer with a ceiling.
 *
 * Ownership: a document owns all that is read from it; a struct kms_json and a text live as long as
 * their document. jansson's memory is wiped when it is freed. A document is one thread's at a time.
 */
#ifndef KMS_BACKEND_REST_JSON_H
#define KMS_BACKEND_REST_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"
#include "common/status.h"

#define KMS_JSON_NAME_MAX 96 /* with NUL; longer paths are cut */

struct kms_json_doc;

/* A value in a document, and where it is, for error texts: "data.keys". */
struct kms_json {
    const void *node;
    char name[KMS_JSON_NAME_MAX];
};

/*
 * Parses one object: UTF-8, nothing behind it, no key twice, no NUL in a text. @name says in error
 * texts whose reply it is ("Transit's reply"). KMS_E_PROTOCOL, KMS_E_NOMEM; *ret_root is the
 * object.
 */
enum kms_status kms_json_parse(const char *name, struct kms_span text,
                               struct kms_json_doc **ret_doc, struct kms_json *ret_root,
                               struct kms_error *err) KMS_MUST_CHECK;
void kms_json_free(struct kms_json_doc *doc); /* NULL is fine */

/* Whether there is a field, and it is not null. */
bool kms_json_has(const struct kms_json *object, const char *key);

/* The field @key of @object. Each KMS_E_PROTOCOL when it is not there or of another type. */
enum kms_status kms_json_object(const struct kms_json *object, const char *key,
                                struct kms_json *ret_object, struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_array(const struct kms_json *object, const char *key,
                               struct kms_json *ret_array, struct kms_error *err) KMS_MUST_CHECK;
/* At most @max bytes; the text is NUL-terminated. */
enum kms_status kms_json_text(const struct kms_json *object, const char *key, size_t max,
                              const char **ret_text, struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_u64(const struct kms_json *object, const char *key, uint64_t min,
                             uint64_t max, uint64_t *ret_value,
                             struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_bool(const struct kms_json *object, const char *key, bool *ret_value,
                              struct kms_error *err) KMS_MUST_CHECK;
/* Standard base64 with padding, appended to @out. */
enum kms_status kms_json_base64(const struct kms_json *object, const char *key, struct kms_buf *out,
                                struct kms_error *err) KMS_MUST_CHECK;
/* The same, but absent (or null) is fine and leaves *ret_ as it was: the default is the caller's.
 */
enum kms_status kms_json_text_maybe(const struct kms_json *object, const char *key, size_t max,
                                    const char **ret_text, struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_u64_maybe(const struct kms_json *object, const char *key, uint64_t min,
                                   uint64_t max, uint64_t *ret_value,
                                   struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_bool_maybe(const struct kms_json *object, const char *key, bool *ret_value,
                                    struct kms_error *err) KMS_MUST_CHECK;

/* Elements of an array (from kms_json_array()), each of the asked type. */
size_t kms_json_count(const struct kms_json *array);
enum kms_status kms_json_text_at(const struct kms_json *array, size_t index, size_t max,
                                 const char **ret_text, struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_json_object_at(const struct kms_json *array, size_t index,
                                   struct kms_json *ret_object,
                                   struct kms_error *err) KMS_MUST_CHECK;

/* Every field of an object, in no order; the visitor returns other than KMS_OK to stop. */
typedef enum kms_status (*kms_json_visit)(void *ctx, const struct kms_json *object, const char *key,
                                          struct kms_error *err);
enum kms_status kms_json_each(const struct kms_json *object, kms_json_visit visit, void *ctx,
                              struct kms_error *err) KMS_MUST_CHECK;

/* "text", "number", ...: what field @key is, "nothing" when absent; to tell unions apart. */
const char *kms_json_kind(const struct kms_json *object, const char *key);

/* ---- writing --------------------------------------------------------------------------------- */

/*
 * Writes fields one behind the other into @buf, whose storage is the caller's (secure memory where
 * it holds secrets). The first failure stays, and later calls do nothing: kms_json_end() tells it.
 * A NULL key: an element of an array, or the outermost value.
 */
struct kms_json_out {
    struct kms_buf *buf;
    enum kms_status status;
    bool comma;
};

void kms_json_begin(struct kms_json_out *out, struct kms_buf *buf);    /* "{" */
enum kms_status kms_json_end(struct kms_json_out *out) KMS_MUST_CHECK; /* "}"; KMS_E_TOO_LARGE, or
                                                                         KMS_E_INVALID: not UTF-8 */
void kms_json_put_object(struct kms_json_out *out, const char *key);   /* "key":{ */
void kms_json_close_object(struct kms_json_out *out);
void kms_json_put_array(struct kms_json_out *out, const char *key);
void kms_json_close_array(struct kms_json_out *out);
void kms_json_put_text(struct kms_json_out *out, const char *key, const char *text);
void kms_json_put_span(struct kms_json_out *out, const char *key, struct kms_span text);
void kms_json_put_base64(struct kms_json_out *out, const char *key, struct kms_span bytes);
void kms_json_put_u64(struct kms_json_out *out, const char *key, uint64_t value);
void kms_json_put_bool(struct kms_json_out *out, const char *key, bool value);

#endif
