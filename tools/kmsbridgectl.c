/* SPDX-License-Identifier: Apache-2.0 */
/* kmsbridgectl: the operator's tool. A table of verbs; the work is in verb_*.c. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/secure.h"
#include "kmsbridge/conf.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/verbs.h"

#define TAKES(option) KMS_TAKES(KMS_OPT_##option)

static const struct verb_row {
    const char *words;
    const char *summary;
    kms_verb_run run;
    uint32_t takes; /* besides KMS_TAKES_ALWAYS */
} verb_rows[] = {
    {"init", "make token, KEK, PIN files and configuration for a first run", kms_verb_init,
     TAKES(DIR) | TAKES(MODULE) | TAKES(TOKEN) | TAKES(KEY) | TAKES(SOCKET) | TAKES(MONITOR) |
         TAKES(PRIVATE_SOFTHSM)},
    {"keys list", "show the keys of the configured token", kms_verb_keys_list, TAKES(CONFIG)},
    {"keys create", "make a key; one with the configured label becomes the active KEK",
     kms_verb_keys_create, TAKES(CONFIG) | TAKES(TYPE) | TAKES(BITS) | TAKES(LABEL)},
    {"keys rotate", "make the next version of a key, or a newer key in its place",
     kms_verb_keys_rotate, TAKES(CONFIG) | TAKES(LABEL)},
    {"keys rewrap", "seal a wrapped key anew under the newest version, inside the service",
     kms_verb_keys_rewrap, TAKES(CONFIG) | TAKES(LABEL) | TAKES(AAD) | TAKES(IN) | TAKES(OUT)},
    {"kms status", "ask the running daemon how it is", kms_verb_kms_status,
     TAKES(CONFIG) | TAKES(SOCKET) | TAKES(TIMEOUT)},
    {"kms encrypt", "have the daemon encrypt standard input into a JSON record",
     kms_verb_kms_encrypt, TAKES(CONFIG) | TAKES(SOCKET) | TAKES(TIMEOUT) | TAKES(IN) | TAKES(OUT)},
    {"kms decrypt", "have the daemon decrypt such a record", kms_verb_kms_decrypt,
     TAKES(CONFIG) | TAKES(SOCKET) | TAKES(TIMEOUT) | TAKES(IN) | TAKES(OUT)},
    {"encryption-config", "print the EncryptionConfiguration for kube-apiserver",
     kms_verb_encryption_config,
     TAKES(CONFIG) | TAKES(SOCKET) | TAKES(RESOURCES) | TAKES(NAME) | TAKES(TIMEOUT)},
    {"config check", "check the configuration and what it refers to", kms_verb_config_check,
     TAKES(CONFIG)},
};
#define VERB_COUNT (sizeof(verb_rows) / sizeof(verb_rows[0]))

static const struct verb_row *find_verb(const char *words)
{
    size_t i;

    for (i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verb_rows[i].words, words) == 0) {
            return &verb_rows[i];
        }
    }
    return NULL;
}

static void print_help(const struct verb_row *verb)
{
    size_t i;

    if (verb != NULL) {
        printf("Usage: kmsbridgectl %s [OPTION]...\n%s: %s.\n\nOptions:\n", verb->words,
               verb->words, verb->summary);
        kms_options_help(stdout, verb->takes | KMS_TAKES_ALWAYS);
        return;
    }
    printf("Usage: kmsbridgectl [OPTION]... VERB\n\nVerbs:\n");
    for (i = 0; i < VERB_COUNT; i++) {
        printf("  %-18s  %s\n", verb_rows[i].words, verb_rows[i].summary);
    }
    printf("\nOptions of most verbs; `kmsbridgectl VERB --help` shows each verb's:\n");
    kms_options_help(stdout, TAKES(CONFIG) | TAKES(SOCKET) | TAKES(VERSION) | KMS_TAKES_ALWAYS);
    printf("\nThe configuration is %s unless --config says otherwise.\n"
           "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 daemon unreachable,\n"
           "5 refused, 6 exists already.\n",
           KMS_CONF_PATH);
}

static enum kms_exit usage_error(struct kms_failure *failure, const struct verb_row *verb)
{
    return kms_fail(failure, KMS_EXIT_USAGE, "kmsbridgectl %s%s--help shows what it takes",
                    verb != NULL ? verb->words : "", verb != NULL ? " " : "");
}

static enum kms_exit dispatch(int argc, char **argv, struct kms_options *options,
                              struct kms_failure *failure)
{
    enum kms_status parsed = kms_options_parse(argc, argv, options, &failure->error);
    const struct verb_row *verb = find_verb(options->verb);

    if (parsed != KMS_OK) {
        return usage_error(failure, verb);
    }
    if (kms_option_given(options, KMS_OPT_HELP)) {
        print_help(verb);
        return KMS_EXIT_OK;
    }
    if (kms_option_given(options, KMS_OPT_VERSION)) {
        printf("kmsbridgectl %s\n", PACKAGE_VERSION);
        return KMS_EXIT_OK;
    }
    if (verb == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "%s%s", options->verb,
                            options->verb[0] != '\0' ? " is no verb" : "a verb is missing");
        return usage_error(failure, NULL);
    }
    if (kms_options_check(options, verb->takes | KMS_TAKES_ALWAYS, &failure->error) != KMS_OK) {
        return usage_error(failure, verb);
    }
    return verb->run(options, failure);
}

/* PINs and plaintexts pass through here. A sanitizer's leak check must trace the process. */
static enum kms_status prepare(struct kms_error *err)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    if (kms_secure_init() != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "libsodium cannot start");
    }
#ifdef KMS_SANITIZED
    return KMS_OK;
#else
    return kms_secure_harden_process(err);
#endif
}

int main(int argc, char **argv)
{
    static struct kms_failure failure;
    struct kms_options options = {0};
    enum kms_exit code = KMS_EXIT_FAILED;

    if (prepare(&failure.error) == KMS_OK) {
        code = dispatch(argc, argv, &options, &failure);
    }
    if (fflush(stdout) != 0 && code == KMS_EXIT_OK) {
        (void)kms_error_set(&failure.error, KMS_E_UNAVAILABLE, "cannot write standard output");
        code = kms_fail(&failure, KMS_EXIT_FAILED, "see whether the disk or the pipe is there");
    }
    if (code != KMS_EXIT_OK) {
        kms_output_failure(stderr, kms_option_given(&options, KMS_OPT_JSON), &failure);
    }
    return (int)code;
}
