/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of `agent:` and `audit:`; included by the *conf.c files only. */
#ifndef KMSBRIDGE_AGENT_CONF_SCHEMA_H
#define KMSBRIDGE_AGENT_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "kmsbridge/agent_conf.h"

extern const cyaml_schema_field_t kms_conf_agent_fields[]; /* of struct kms_raw_agent */
extern const cyaml_schema_field_t kms_conf_audit_fields[]; /* of struct kms_raw_audit */

/* Frees what kms_conf_read_tokens() and kms_conf_read_rules() made. */
void kms_conf_agent_done(struct kms_agentd_conf *conf);

#endif
