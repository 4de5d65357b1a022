/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML configuration files through libcyaml: a schema fills a struct; unknown, missing, doubled or
 * mistyped keys are errors that name file, line and key ("/etc/kmsbridge/kmsbridge.yaml:12:
 * kms.mode: ..."). libcyaml's header is included by this file's users only where a schema is
 * written: the *conf.c files.
 */
#ifndef KMS_COMMON_CONF_H
#define KMS_COMMON_CONF_H

#include <stddef.h>

#include "common/status.h"

#define KMS_CONF_MAX       (256u * 1024u) /* bytes of a configuration file */
#define KMS_CONF_DEPTH_MAX 32 /* nesting, so that a hostile file cannot exhaust the stack */

struct cyaml_schema_value;

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

#endif
