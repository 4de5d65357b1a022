/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of the files that `init` makes, and random PINs. For verb_init.c. */
#ifndef KMS_TOOLS_INIT_FILES_H
#define KMS_TOOLS_INIT_FILES_H

#include "common/span.h"
#include "common/status.h"

/* What the configuration names. */
struct kms_init_names {
    const char *module;
    const char *token;
    const char *pin_path;
    const char *key;
    const char *socket;
    const char *monitor; /* NULL: none */
};

/* A commented kmsbridge.yaml; free(). KMS_E_INVALID for a name that is no UTF-8. */
enum kms_status kms_init_yaml(const struct kms_init_names *names, char **ret_text,
                              struct kms_error *err) KMS_MUST_CHECK;

/* SoftHSM's configuration for tokens in @tokens_path; free(). */
enum kms_status kms_init_softhsm_conf(const char *tokens_path, char **ret_text,
                                      struct kms_error *err) KMS_MUST_CHECK;

/*
 * Appends a random PIN of up to 32 letters and digits (5 bits each) to @ret_pin, as long as a token
 * with these limits takes. KMS_E_UNSUPPORTED when that is fewer than 8.
 */
enum kms_status kms_init_pin(size_t pin_min, size_t pin_max, struct kms_buf *ret_pin,
                             struct kms_error *err) KMS_MUST_CHECK;

#endif
