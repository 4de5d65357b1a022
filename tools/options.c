/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/options.h"

#include <getopt.h>
#include <string.h>

static const struct option_row {
    const char *name;
    const char *argument; /* NULL: a flag */
    const char *help;
} option_rows[KMS_OPT_COUNT] = {
    [KMS_OPT_CONFIG] = {"config", "FILE", "the daemon's configuration"},
    [KMS_OPT_SOCKET] = {"socket", "NAME", "the KMS socket: a path, or @NAME for an abstract one"},
    [KMS_OPT_JSON] = {"json", NULL, "write JSON, errors too"},
    [KMS_OPT_HELP] = {"help", NULL, "show help and exit"},
    [KMS_OPT_VERSION] = {"version", NULL, "show the version and exit"},
    [KMS_OPT_DIR] = {"dir", "DIR", "where configuration and PIN files go"},
    [KMS_OPT_MODULE] = {"module", "PATH", "the PKCS#11 module; SoftHSM when not given"},
    [KMS_OPT_TOKEN] = {"token", "LABEL", "label of the new token"},
    [KMS_OPT_KEY] = {"key", "LABEL", "label of the new key-encryption key"},
    [KMS_OPT_MONITOR] = {"monitor", "ADDR", "where the daemon serves health and metrics"},
    [KMS_OPT_PRIVATE_SOFTHSM] = {"private-softhsm", NULL, "keep SoftHSM's tokens in DIR"},
    [KMS_OPT_TYPE] = {"type", "TYPE", "aes (default), rsa, ec, chacha20 or sm4"},
    [KMS_OPT_BITS] = {"bits", "N", "key size; default: AES 256, RSA 3072, EC 256"},
    [KMS_OPT_LABEL] = {"label", "LABEL", "label of the key; default: the configured kms.key"},
    [KMS_OPT_RESOURCES] = {"resources", "LIST", "what to encrypt; default: secrets"},
    [KMS_OPT_NAME] = {"name", "NAME", "the provider's name; default: kms.provider_name"},
    [KMS_OPT_TIMEOUT] = {"timeout", "TIME", "limit of one call; default: 3s"},
    [KMS_OPT_AAD] = {"aad", "TEXT", "the AAD that it was sealed with"},
    [KMS_OPT_IN] = {"in", "FILE", "read FILE, not standard input"},
    [KMS_OPT_OUT] = {"out", "FILE", "write the new file FILE, not standard output"},
};

/* getopt's table from ours; its values start above every character. */
static void fill(struct option list[KMS_OPT_COUNT + 1])
{
    int i;

    memset(list, 0, sizeof(*list) * (KMS_OPT_COUNT + 1));
    for (i = 0; i < KMS_OPT_COUNT; i++) {
        list[i].name = option_rows[i].name;
        list[i].has_arg = option_rows[i].argument != NULL ? required_argument : no_argument;
        list[i].val = 256 + i;
    }
}

static enum kms_status join_verb(int argc, char **argv, char ret_verb[KMS_VERB_MAX],
                                 struct kms_error *err)
{
    size_t len = 0;
    int i;

    for (i = optind; i < argc; i++) {
        int wrote =
            snprintf(ret_verb + len, KMS_VERB_MAX - len, "%s%s", len > 0 ? " " : "", argv[i]);

        if (wrote < 0 || (size_t)wrote >= KMS_VERB_MAX - len) {
            ret_verb[len] = '\0';
            return kms_error_set(err, KMS_E_INVALID, "there are too many words");
        }
        len += (size_t)wrote;
    }
    return KMS_OK;
}

enum kms_status kms_options_parse(int argc, char **argv, struct kms_options *ret_options,
                                  struct kms_error *err)
{
    struct option list[KMS_OPT_COUNT + 1];
    enum kms_status status = KMS_OK;
    int got;

    fill(list);
    memset(ret_options, 0, sizeof(*ret_options));
    optind = 0; /* glibc: start anew */
    while ((got = getopt_long(argc, argv, ":hV", list, NULL)) != -1) {
        if (got == 'h') {
            ret_options->value[KMS_OPT_HELP] = "";
        } else if (got == 'V') {
            ret_options->value[KMS_OPT_VERSION] = "";
        } else if (got >= 256) {
            ret_options->value[got - 256] = optarg != NULL ? optarg : "";
        } else if (got == ':') {
            status = kms_error_set(err, KMS_E_INVALID, "%s needs a value", argv[optind - 1]);
        } else {
            status = kms_error_set(err, KMS_E_INVALID, "%s is no option, or not a clear one",
                                   argv[optind - 1]);
        }
    }
    if (status != KMS_OK) {
        return status;
    }
    return join_verb(argc, argv, ret_options->verb, err);
}

enum kms_status kms_options_check(const struct kms_options *options, uint32_t takes,
                                  struct kms_error *err)
{
    int i;

    for (i = 0; i < KMS_OPT_COUNT; i++) {
        if (options->value[i] != NULL && (takes & KMS_TAKES(i)) == 0) {
            return kms_error_set(err, KMS_E_INVALID, "%s does not take --%s", options->verb,
                                 option_rows[i].name);
        }
    }
    return KMS_OK;
}

void kms_options_help(FILE *to, uint32_t takes)
{
    int i;

    for (i = 0; i < KMS_OPT_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char left[40];

        if ((takes & KMS_TAKES(i)) != 0) {
            snprintf(left, sizeof(left), "--%s%s%s", row->name, row->argument != NULL ? " " : "",
                     row->argument != NULL ? row->argument : "");
            fprintf(to, "  %-20s  %s\n", left, row->help);
        }
    }
}
