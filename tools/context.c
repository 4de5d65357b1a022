/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/context.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/numbers.h"

enum kms_exit kms_context_conf(const struct kms_options *options, struct kms_conf **ret_conf,
                               struct kms_failure *failure)
{
    const char *path = kms_option_or(options, KMS_OPT_CONFIG, KMS_CONF_PATH);

    switch (kms_conf_read(path, ret_conf, &failure->error)) {
    case KMS_OK:
        return KMS_EXIT_OK;
    case KMS_E_NOT_FOUND:
        return kms_fail(failure, KMS_EXIT_CONFIG,
                        "name the configuration with --config, or make a first one with "
                        "kmsbridgectl init");
    case KMS_E_DENIED:
        return kms_fail(failure, KMS_EXIT_CONFIG,
                        "run as the daemon's user or as root, and see that only they may write %s",
                        path);
    default:
        return kms_fail(failure, KMS_EXIT_CONFIG, "correct %s; kmsbridge.yaml(5) has every key",
                        path);
    }
}

enum kms_exit kms_context_waist(const struct kms_conf *conf, struct kms_waist **ret_waist,
                                struct kms_failure *failure)
{
    /* a daemon that is an agent only has no kms.backend: then the first is meant */
    const struct kms_backend_conf *backend =
        conf->kms.socket != NULL ? kms_conf_backend(conf, conf->kms.backend)
                                 : (conf->backend_count > 0 ? &conf->backends[0] : NULL);

    if (backend == NULL && conf->kms.socket == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "%s: there are no backends",
                            conf->path);
        return kms_fail(failure, KMS_EXIT_CONFIG, "name a key service under backends");
    }
    if (backend == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID,
                            "%s: kms.backend: no backend is called \"%s\"", conf->path,
                            conf->kms.backend);
        return kms_fail(failure, KMS_EXIT_CONFIG, "name an entry of backends");
    }
    if (kms_waist_open(backend, NULL, NULL, ret_waist, &failure->error) != KMS_OK) {
        return kms_fail(failure, KMS_EXIT_CONFIG, "correct backends in %s", conf->path);
    }
    failure->service = backend->type;
    return KMS_EXIT_OK;
}

/* What to do about a failed call, where the service's type and the status tell. */
static const struct advice_row {
    const char *service;
    enum kms_status status;
    const char *next;
} advice_rows[] = {
    {"hsm", KMS_E_AUTH,
     "see that hsm.pin refers to the token's user PIN; a wrong one that is tried too often locks "
     "the token"},
    {"hsm", KMS_E_NOT_FOUND,
     "see that hsm.module and hsm.token name the right ones, and that the environment "
     "(SOFTHSM2_CONF for a private SoftHSM) is the daemon's"},
    {"hsm", KMS_E_UNAVAILABLE,
     "see that the module and the device behind it are there, and that the environment "
     "(SOFTHSM2_CONF for a private SoftHSM) is the daemon's"},
    {"hsm", KMS_E_DENIED, "see who may read the PIN file and the token"},
    {"hsm", KMS_E_UNSUPPORTED, "this token cannot do it: try another --type or --bits"},
    {"hsm", KMS_E_TIMEOUT, "see whether the device answers at all"},
    {"vault", KMS_E_AUTH,
     "see that vault.auth has a token, or a role and its secret, that the server takes and that "
     "has not ended"},
    {"vault", KMS_E_NOT_FOUND,
     "see that vault.mount is a transit secrets engine, in the right vault.namespace, and has the "
     "key"},
    {"vault", KMS_E_UNAVAILABLE,
     "see that a node of vault.addresses is there and unsealed, and that vault.proxy is right"},
    {"vault", KMS_E_DENIED,
     "see that the policy of our token or role allows it on the paths of vault.mount; "
     "docs/openbao.md has one"},
    {"vault", KMS_E_PROTOCOL,
     "see that vault.addresses are of Vault or OpenBao, and that vault.ca_file and "
     "vault.server_name fit their certificate"},
    {"vault", KMS_E_UNSUPPORTED, "Transit cannot do it: try another --type or --bits"},
    {"vault", KMS_E_TIMEOUT, "see whether vault.addresses answer at all"},
    {"alibaba", KMS_E_AUTH,
     "see which access key or role alibaba.credentials finds, whether it is active, and that our "
     "clock is right"},
    {"alibaba", KMS_E_NOT_FOUND,
     "see that alibaba.region or alibaba.endpoint is that of the key, and that it has the alias"},
    {"alibaba", KMS_E_UNAVAILABLE,
     "see that alibaba.network, alibaba.endpoint and alibaba.proxy lead to the service from here"},
    {"alibaba", KMS_E_DENIED,
     "see that the RAM policy of the access key or role allows the action on the key; "
     "docs/alibaba.md has one"},
    {"alibaba", KMS_E_PROTOCOL,
     "see that alibaba.endpoint is the service's, and that alibaba.ca_file fits its certificate"},
    {"alibaba", KMS_E_UNSUPPORTED, "Alibaba Cloud KMS cannot do it: try another --type or --bits"},
    {"alibaba", KMS_E_TIMEOUT, "see whether the service's endpoint answers from here at all"},
};

enum kms_exit kms_context_call_failed(const struct kms_call *call, struct kms_failure *failure)
{
    const char *next = "kmsbridgectl config check looks at what is configured";
    const char *service = failure->service == NULL ? "" : failure->service;

    for (size_t i = 0; i < sizeof(advice_rows) / sizeof(advice_rows[0]); i++) {
        const struct advice_row *row = &advice_rows[i];

        if (row->status == call->error.status && strcmp(row->service, service) == 0) {
            next = row->next;
        }
    }
    failure->error = call->error;
    return kms_fail(failure, kms_exit_of(call->error.status), "%s", next);
}

enum kms_exit kms_context_timeout(const struct kms_options *options, uint64_t *ret_ns,
                                  struct kms_failure *failure)
{
    const char *text = kms_option_or(options, KMS_OPT_TIMEOUT, "3s");

    if (kms_parse_duration(text, ret_ns) != KMS_OK || *ret_ns == 0) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "--timeout: \"%s\" is no time", text);
        return kms_fail(failure, KMS_EXIT_USAGE, "give a number above 0 with a unit: 500ms, 3s");
    }
    return KMS_EXIT_OK;
}

enum kms_exit kms_context_socket(const struct kms_options *options, char **ret_socket,
                                 struct kms_failure *failure)
{
    struct kms_conf *conf = NULL;
    const char *given = options->value[KMS_OPT_SOCKET];
    char *name = NULL;
    enum kms_exit code;

    if (given == NULL) {
        code = kms_context_conf(options, &conf, failure);
        if (code != KMS_EXIT_OK) {
            return code;
        }
        given = conf->kms.socket;
        if (conf->kms.socket == NULL) {
            (void)kms_error_set(&failure->error, KMS_E_INVALID, "%s: there is no kms section",
                                conf->path);
            kms_conf_done(conf);
            return kms_fail(failure, KMS_EXIT_CONFIG,
                            "this daemon serves PKCS#11 users only; add kms to serve "
                            "kube-apiserver, or name another daemon's socket with --socket");
        }
    }
    name = strdup(given);
    kms_conf_done(conf);
    if (name == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        return KMS_EXIT_FAILED;
    }
    *ret_socket = name;
    return KMS_EXIT_OK;
}

static enum kms_exit no_client(enum kms_status status, const char *socket_name,
                               struct kms_failure *failure)
{
    if (status == KMS_E_INVALID) {
        return kms_fail(failure, KMS_EXIT_USAGE, "name the daemon's socket with --socket");
    }
    if (status == KMS_E_DENIED) {
        return kms_fail(
            failure, KMS_EXIT_REFUSED,
            "run as root or as the daemon's user, or let kms.mode, kms.allow_uids and "
            "kms.allow_gids admit user %lu; a daemon at kms.max_connections closes, too",
            (unsigned long)geteuid());
    }
    return kms_fail(failure, KMS_EXIT_UNREACHABLE,
                    "see whether kmsbridged runs (systemctl status kmsbridged) and whether %s is "
                    "its kms.socket; --socket names another",
                    socket_name);
}

enum kms_exit kms_context_client(const struct kms_options *options, uint64_t timeout_ns,
                                 struct kms_v2_client **ret_client, struct kms_failure *failure)
{
    char *socket_name = NULL;
    enum kms_exit code = kms_context_socket(options, &socket_name, failure);
    enum kms_status status;

    if (code != KMS_EXIT_OK) {
        return code;
    }
    status =
        kms_v2_client_open(socket_name, kms_deadline_in(timeout_ns), ret_client, &failure->error);
    if (status != KMS_OK) {
        code = no_client(status, socket_name, failure);
    }
    free(socket_name);
    return code;
}
