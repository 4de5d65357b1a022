/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of one entry of `backends:`; included by the *conf.c files only. */
#ifndef KMS_BACKEND_BACKEND_CONF_SCHEMA_H
#define KMS_BACKEND_BACKEND_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "backend/backend_conf.h"

extern const cyaml_schema_field_t kms_backend_conf_fields[];

#endif
