/* SPDX-License-Identifier: Apache-2.0 */
/* encryption-config: what kube-apiserver's --encryption-provider-config wants, for this daemon. */
#include "tools/verbs.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tools/context.h"

#define RESOURCES_MAX 64
#define ENDPOINT_MAX  512

struct resources {
    char *text; /* owns the names */
    const char *name[RESOURCES_MAX];
    size_t count;
};

/* ---- --resources ----------------------------------------------------------------------------- */

/* Lower case, "*" only in front: "secrets", "deployments.apps", "*.", "*.apps", "*.*". */
static bool well_formed(const char *name)
{
    const char *rest = name[0] == '*' && name[1] == '.' ? name + 2 : name;

    if (strcmp(rest, "*") == 0) {
        return rest != name; /* "*.*", and not a lone "*", which kube-apiserver refuses */
    }
    for (; *rest != '\0'; rest++) {
        if (!islower((unsigned char)*rest) && !isdigit((unsigned char)*rest) && *rest != '-' &&
            *rest != '.') {
            return false;
        }
    }
    return name[0] != '\0' && name[0] != '.' && name[0] != '-';
}

/* Whether rule @a takes in what @b names; kube-apiserver refuses overlaps within one list. */
static bool covers(const char *a, const char *b)
{
    const char *group = strchr(b, '.');

    if (strcmp(a, b) == 0 || strcmp(a, "*.*") == 0) {
        return true;
    }
    return strncmp(a, "*.", 2) == 0 && strcmp(a + 2, group != NULL ? group + 1 : "") == 0;
}

/* These groups are other names of resources that core and apps have; kube-apiserver wants those. */
static bool aliased(const char *name)
{
    const char *group = strchr(name, '.');

    return group != NULL &&
           (strcmp(group, ".events.k8s.io") == 0 || strcmp(group, ".extensions") == 0);
}

static enum kms_status add_resource(struct resources *list, const char *name, struct kms_error *err)
{
    size_t i;

    if (!well_formed(name) || aliased(name)) {
        return kms_error_set(err, KMS_E_INVALID,
                             "--resources: \"%s\" is nothing that kube-apiserver encrypts", name);
    }
    for (i = 0; i < list->count; i++) {
        if (covers(name, list->name[i]) || covers(list->name[i], name)) {
            return kms_error_set(err, KMS_E_INVALID, "--resources: \"%s\" and \"%s\" overlap",
                                 list->name[i], name);
        }
    }
    if (list->count == RESOURCES_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "--resources: more than %d", RESOURCES_MAX);
    }
    list->name[list->count++] = name;
    return KMS_OK;
}

static enum kms_status read_resources(const char *text, struct resources *ret,
                                      struct kms_error *err)
{
    char *rest, *item;
    enum kms_status status = KMS_OK;

    *ret = (struct resources){.text = strdup(text)};
    rest = ret->text;
    while (status == KMS_OK && (item = strsep(&rest, ",")) != NULL) {
        status = add_resource(ret, item, err);
    }
    return ret->text == NULL ? kms_error_set(err, KMS_E_NOMEM, "no memory") : status;
}

/* ---- name and endpoint ----------------------------------------------------------------------- */

/* It becomes part of each value in etcd: "k8s:enc:kms:v2:<name>:". */
static bool name_ok(const char *name)
{
    const char *at;

    for (at = name; *at != '\0'; at++) {
        if (!isgraph((unsigned char)*at) || *at == ':' || *at == '"' || *at == '\\') {
            return false;
        }
    }
    return at != name;
}

/*
 * kube-apiserver parses the endpoint as a URL and takes its path: "unix:///run/x.sock", and
 * "unix:///@name" for an abstract socket. What a URL would read otherwise is percent-encoded.
 */
static enum kms_status endpoint_of(const char *socket_name, char ret_text[ENDPOINT_MAX],
                                   struct kms_error *err)
{
    size_t len =
        (size_t)snprintf(ret_text, ENDPOINT_MAX, "unix://%s", socket_name[0] == '@' ? "/" : "");

    if (socket_name[0] != '@' && socket_name[0] != '/') {
        return kms_error_set(err, KMS_E_INVALID,
                             "--socket: \"%s\" is neither an absolute path nor @NAME", socket_name);
    }
    for (; *socket_name != '\0'; socket_name++) {
        bool plain = isalnum((unsigned char)*socket_name) || strchr("/@-._~+,=", *socket_name);

        if (ENDPOINT_MAX - len < 4) {
            return kms_error_set(err, KMS_E_TOO_LARGE, "--socket: the name is too long");
        }
        len += (size_t)snprintf(ret_text + len, ENDPOINT_MAX - len, plain ? "%c" : "%%%02X",
                                (unsigned char)*socket_name);
    }
    return KMS_OK;
}

/* Go's time.ParseDuration has no days: seconds, or milliseconds where they are needed. */
static void duration_text(uint64_t ns, char *ret_text, size_t size)
{
    bool whole = ns % KMS_NS_PER_S == 0;

    snprintf(ret_text, size, "%llu%s",
             (unsigned long long)(ns / (whole ? KMS_NS_PER_S : KMS_NS_PER_MS)), whole ? "s" : "ms");
}

/* ---- printing -------------------------------------------------------------------------------- */

struct answer {
    struct resources resources;
    const char *name;
    char endpoint[ENDPOINT_MAX];
    char timeout[32];
};

static void print_yaml(const struct answer *answer)
{
    size_t i;

    printf("# For kube-apiserver: --encryption-provider-config=FILE, mode 0600, on each control\n"
           "# plane node, with a kmsbridged that has the same KEK behind the same socket name.\n"
           "# Where kube-apiserver runs in a container, mount the socket's folder into it.\n"
           "# Add --encryption-provider-config-automatic-reload=true to change this file later\n"
           "# without a restart.\n"
           "#\n"
           "# What is in etcd already stays as it is until it is written again. To do that:\n"
           "#   kubectl get secrets --all-namespaces -o json | kubectl replace -f -\n"
           "apiVersion: apiserver.config.k8s.io/v1\n"
           "kind: EncryptionConfiguration\n"
           "resources:\n"
           "  - resources:\n");
    for (i = 0; i < answer->resources.count; i++) {
        printf("      - \"%s\"\n", answer->resources.name[i]);
    }
    printf("    providers:\n"
           "      # The first provider writes.\n"
           "      - kms:\n"
           "          apiVersion: v2\n"
           "          # Part of every value in etcd (k8s:enc:kms:v2:NAME:): never change it.\n"
           "          name: \"%s\"\n"
           "          endpoint: \"%s\"\n"
           "          timeout: %s\n"
           "      # Reads what was stored before there was encryption. Remove it once everything\n"
           "      # has been written again. Never put it first: it would write plaintext.\n"
           "      - identity: {}\n",
           answer->name, answer->endpoint, answer->timeout);
}

/* The same in JSON, which kube-apiserver reads as well. No text in it needs escaping: see above. */
static void print_json(const struct answer *answer)
{
    size_t i;

    printf("{\n  \"apiVersion\": \"apiserver.config.k8s.io/v1\",\n"
           "  \"kind\": \"EncryptionConfiguration\",\n"
           "  \"resources\": [{\n    \"resources\": [");
    for (i = 0; i < answer->resources.count; i++) {
        printf("%s\"%s\"", i > 0 ? ", " : "", answer->resources.name[i]);
    }
    printf("],\n    \"providers\": [\n"
           "      {\"kms\": {\"apiVersion\": \"v2\", \"name\": \"%s\",\n"
           "               \"endpoint\": \"%s\", \"timeout\": \"%s\"}},\n"
           "      {\"identity\": {}}\n    ]\n  }]\n}\n",
           answer->name, answer->endpoint, answer->timeout);
}

/* The socket and the name, from the options or else from the configuration. */
static enum kms_exit read_daemon(const struct kms_options *options, struct answer *answer,
                                 struct kms_conf **ret_conf, struct kms_failure *failure)
{
    const char *socket_name = options->value[KMS_OPT_SOCKET];
    const char *name = options->value[KMS_OPT_NAME];
    enum kms_exit code = KMS_EXIT_OK;

    if (socket_name == NULL || name == NULL) {
        code = kms_context_conf(options, ret_conf, failure);
        if (code != KMS_EXIT_OK) {
            return code;
        }
        if ((*ret_conf)->kms.socket == NULL) {
            (void)kms_error_set(&failure->error, KMS_E_INVALID, "%s: there is no kms section",
                                (*ret_conf)->path);
            return kms_fail(failure, KMS_EXIT_CONFIG,
                            "this daemon serves PKCS#11 users only; add kms to serve "
                            "kube-apiserver, or give --socket and --name");
        }
        socket_name = socket_name != NULL ? socket_name : (*ret_conf)->kms.socket;
        name = name != NULL ? name : (*ret_conf)->kms.provider_name;
    }
    answer->name = name;
    if (!name_ok(name)) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID,
                            "the provider's name \"%s\" is none that kube-apiserver takes", name);
        return kms_fail(failure, KMS_EXIT_USAGE, "use letters, digits and '-', and no ':'");
    }
    if (endpoint_of(socket_name, answer->endpoint, &failure->error) != KMS_OK) {
        return kms_fail(failure, KMS_EXIT_USAGE, "name the socket as kms.socket does");
    }
    return KMS_EXIT_OK;
}

enum kms_exit kms_verb_encryption_config(const struct kms_options *options,
                                         struct kms_failure *failure)
{
    struct answer answer = {0};
    struct kms_conf *conf = NULL;
    uint64_t timeout_ns = 0;
    enum kms_exit code = kms_context_timeout(options, &timeout_ns, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    if (read_resources(kms_option_or(options, KMS_OPT_RESOURCES, "secrets"), &answer.resources,
                       &failure->error) != KMS_OK) {
        code = kms_fail(failure, KMS_EXIT_USAGE, "give a list such as secrets,configmaps");
        goto out;
    }
    code = read_daemon(options, &answer, &conf, failure);
    if (code == KMS_EXIT_OK) {
        duration_text(timeout_ns, answer.timeout, sizeof(answer.timeout));
        if (kms_option_given(options, KMS_OPT_JSON)) {
            print_json(&answer);
        } else {
            print_yaml(&answer);
        }
    }
out:
    kms_conf_done(conf);
    free(answer.resources.text);
    return code;
}
