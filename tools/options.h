/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: one table of options, which verbs say by a bit set that they take. Options may
 * stand before, between and behind the words of the verb.
 */
#ifndef KMS_TOOLS_OPTIONS_H
#define KMS_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/status.h"

enum kms_option {
    KMS_OPT_CONFIG,
    KMS_OPT_SOCKET,
    KMS_OPT_JSON,
    KMS_OPT_HELP,
    KMS_OPT_VERSION,
    KMS_OPT_DIR,
    KMS_OPT_MODULE,
    KMS_OPT_TOKEN,
    KMS_OPT_KEY,
    KMS_OPT_MONITOR,
    KMS_OPT_PRIVATE_SOFTHSM,
    KMS_OPT_TYPE,
    KMS_OPT_BITS,
    KMS_OPT_LABEL,
    KMS_OPT_RESOURCES,
    KMS_OPT_NAME,
    KMS_OPT_TIMEOUT,
    KMS_OPT_AAD,
    KMS_OPT_IN,
    KMS_OPT_OUT,
    KMS_OPT_COUNT
};

#define KMS_TAKES(option) (UINT32_C(1) << (option))
/* What every verb takes. */
#define KMS_TAKES_ALWAYS (KMS_TAKES(KMS_OPT_JSON) | KMS_TAKES(KMS_OPT_HELP))

#define KMS_VERB_MAX 64 /* bytes of a verb's words, with NUL */

struct kms_options {
    const char *value[KMS_OPT_COUNT]; /* NULL: not given; "" for a flag; borrowed from argv */
    char verb[KMS_VERB_MAX];          /* its words with one blank between: "keys list" */
};

static inline bool kms_option_given(const struct kms_options *options, enum kms_option option)
{
    return options->value[option] != NULL;
}

/* The option's value, or @otherwise. */
static inline const char *kms_option_or(const struct kms_options *options, enum kms_option option,
                                        const char *otherwise)
{
    return options->value[option] != NULL ? options->value[option] : otherwise;
}

/* KMS_E_INVALID names what is wrong; the values seen so far are set even then. */
enum kms_status kms_options_parse(int argc, char **argv, struct kms_options *ret_options,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* KMS_E_INVALID names the first option that was given and is not in @takes. */
enum kms_status kms_options_check(const struct kms_options *options, uint32_t takes,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* A line for each option of @takes, for --help. */
void kms_options_help(FILE *to, uint32_t takes);

#endif
