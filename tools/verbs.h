/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of kmsbridgectl: a row each in kmsbridgectl.c, a file per group. */
#ifndef KMS_TOOLS_VERBS_H
#define KMS_TOOLS_VERBS_H

#include "tools/options.h"
#include "tools/output.h"

/* Does the verb; results go to stdout. Other than KMS_EXIT_OK: @failure is filled. */
typedef enum kms_exit (*kms_verb_run)(const struct kms_options *options,
                                      struct kms_failure *failure);

enum kms_exit kms_verb_init(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_keys_list(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_keys_create(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_keys_rotate(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_keys_rewrap(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_kms_status(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_kms_encrypt(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_kms_decrypt(const struct kms_options *options, struct kms_failure *failure);
enum kms_exit kms_verb_encryption_config(const struct kms_options *options,
                                         struct kms_failure *failure);
enum kms_exit kms_verb_config_check(const struct kms_options *options, struct kms_failure *failure);

#endif
