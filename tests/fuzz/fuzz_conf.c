/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's configuration from any bytes: an error with one clear line, or values in range. */
#include "kmsbridge/conf.h"

#include <stdlib.h>
#include <string.h>

#include "backend/registry.h"
#include "common/clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In the registry's place, whose backends are not what is tested. */
const char *const *kms_backend_types(void)
{
    static const char *const types[] = {"hsm", NULL};

    return types;
}

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void check_error(enum kms_status status, const struct kms_error *error)
{
    size_t len = strnlen(error->text, sizeof(error->text));

    demand(error->status == status);
    demand(status == KMS_E_INVALID || status == KMS_E_TOO_LARGE);
    demand(len > 0 && len < sizeof(error->text));
    demand(strchr(error->text, '\n') == NULL);
    demand(strncmp(error->text, "fuzz.yaml", 9) == 0);
}

static void check_conf(const struct kms_conf *conf)
{
    const struct kms_kms_conf *kms = &conf->kms;
    const struct kms_backend_conf *backend = kms_conf_backend(conf, kms->backend);

    demand(backend != NULL && backend->hsm != NULL);
    demand(backend->hsm->module[0] != '\0' && backend->hsm->token[0] != '\0');
    demand(backend->hsm->sessions >= 1 && backend->hsm->sessions <= KMS_HSM_SESSIONS_MAX);
    demand(kms->socket[0] == '/' || kms->socket[0] == '@');
    demand(strlen(kms->socket) <= 107 && kms->mode <= 0777);
    demand(kms->allow_uid_count > 0 && kms->key[0] != '\0');
    demand(kms->provider_name[0] != '\0' && strchr(kms->provider_name, ':') == NULL);
    demand(kms->call_timeout_ns >= 10 * KMS_NS_PER_MS && kms->call_timeout_ns <= 60 * KMS_NS_PER_S);
    demand(kms->workers >= 1 && kms->workers <= 256 && kms->queue >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;
    enum kms_status status =
        kms_conf_read_text("fuzz.yaml", (const char *)data, size, &conf, &error);

    if (status == KMS_OK) {
        check_conf(conf);
        kms_conf_done(conf);
    } else {
        demand(conf == NULL);
        check_error(status, &error);
    }
    return 0;
}
