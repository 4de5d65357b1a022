/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of `vault:` in an entry of `backends:`, for backend/backend_conf.c. */
#ifndef KMS_BACKEND_VAULT_CONF_SCHEMA_H
#define KMS_BACKEND_VAULT_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "backend/backend_conf.h"
#include "common/conf.h"

extern const cyaml_schema_field_t kms_vault_conf_fields[];

/* As kms_backend_conf_check(), for the entry at @path. */
enum kms_status kms_vault_conf_check(struct kms_vault_conf *vault, const struct kms_conf_text *text,
                                     const char *path, struct kms_error *err) KMS_MUST_CHECK;

#endif
