/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of `alibaba:` in an entry of `backends:`, for backend/backend_conf.c. */
#ifndef KMS_BACKEND_ALIBABA_CONF_SCHEMA_H
#define KMS_BACKEND_ALIBABA_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "backend/backend_conf.h"
#include "common/conf.h"

extern const cyaml_schema_field_t kms_alibaba_conf_fields[];

/* As kms_backend_conf_check(), for the entry at @path. */
enum kms_status kms_alibaba_conf_check(struct kms_alibaba_conf *ali,
                                       const struct kms_conf_text *text, const char *path,
                                       struct kms_error *err) KMS_MUST_CHECK;

#endif
