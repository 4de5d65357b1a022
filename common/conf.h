/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML configuration files through libcyaml: a schema fills a struct; unknown, missing, doubled or
 * mistyped keys are errors that name file, line and key ("/etc/kmsbridge/kmsbridge.yaml:12:
 * kms.mode: ..."). libcyaml's header is included by this file's users only where a schema is
 * written: the *conf.c files.
 */
#ifndef KMS_COMMON_CONF_H
#define KMS_COMMON_CONF_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

#define KMS_CONF_MAX       (256u * 1024u) /* bytes of a configuration file */
#define KMS_CONF_DEPTH_MAX 32 /* nesting, so that a hostile file cannot exhaust the stack */

struct cyaml_schema_value;

/* A configuration's text, borrowed; @name stands for the file in error texts. */
struct kms_conf_text {
    const char *name;
    const char *content;
    size_t len;
};

/*
 * Loads @path (kms_file_read() with KMS_FILE_CONFIG) by @schema. *ret_data is the schema's struct,
 * freed with kms_conf_free() and the same schema. Errors: those of kms_file_read(), KMS_E_INVALID.
 */
enum kms_status kms_conf_load(const char *path, const struct cyaml_schema_value *schema,
                              void **ret_data, struct kms_error *err) KMS_MUST_CHECK;
/* The same from memory; @name stands for the file in error texts. For fuzzers and tests. */
enum kms_status kms_conf_parse(const char *name, const char *content, size_t len,
                               const struct cyaml_schema_value *schema, void **ret_data,
                               struct kms_error *err) KMS_MUST_CHECK;
void kms_conf_free(const struct cyaml_schema_value *schema, void *data);

/* Whether two structs of @schema say the same. Without memory to tell, they do not. */
bool kms_conf_same(const struct cyaml_schema_value *schema, const void *a, const void *b);

/* Sets KMS_E_INVALID with "NAME:LINE: PATH: sentence", for checks that a schema cannot say. @path
 * is "kms.mode" or "backends[1].hsm.pin". */
enum kms_status kms_conf_error(struct kms_error *err, const struct kms_conf_text *text,
                               const char *path, const char *fmt, ...) KMS_PRINTF(4, 5);

#endif
