/* SPDX-License-Identifier: Apache-2.0 */
/* libcyaml schema of one entry of `backends:`, and the checks that a schema cannot say; included by
 * the *conf.c files only. */
#ifndef KMS_BACKEND_BACKEND_CONF_SCHEMA_H
#define KMS_BACKEND_BACKEND_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "backend/backend_conf.h"
#include "common/conf.h"

extern const cyaml_schema_field_t kms_backend_conf_fields[];

/* Where a check is, for what it has to say. */
struct kms_conf_place {
    const struct kms_conf_text *text;
    const char *entry;   /* "backends[0]" */
    const char *section; /* "vault."; "" where keys bear it themselves */
    struct kms_error *err;
};

/* Says @sentence of the key @key there; returns KMS_E_INVALID. */
enum kms_status kms_conf_place_fail(const struct kms_conf_place *place, const char *key,
                                    const char *sentence) KMS_MUST_CHECK;

/* Where a secret is, where the thing itself belongs. */
bool kms_conf_is_secret_ref(const char *text);

/* What a key `proxy` may hold: NULL, or the URL of an HTTP proxy. */
bool kms_conf_is_proxy(const char *proxy);

/*
 * Checks the entry at @path ("backends[0]") of @text all but for its name and type, and completes
 * it: numbers from their texts, defaults. KMS_E_INVALID names the key; a PIN that was written
 * instead of a reference is not repeated.
 */
enum kms_status kms_backend_conf_check(struct kms_backend_conf *conf,
                                       const struct kms_conf_text *text, const char *path,
                                       struct kms_error *err) KMS_MUST_CHECK;

#endif
