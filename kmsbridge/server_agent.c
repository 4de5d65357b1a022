/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's place in the server: it shares the key service of the KMS plugin. */
#include "common/log.h"
#include "kmsbridge/server_parts.h"

/* The waist that the KMS plugin now uses, for as long as the agent's call takes. */
static struct kms_waist *get_waist(void *ctx, const char *backend, void **ret_hold)
{
    struct kms_server *server = ctx;
    struct kms_kek *kek = kms_keks_get(&server->keks);

    if (!kms_text_equal(kek->conf->kms.backend, backend)) {
        kms_kek_put(kek);
        return NULL;
    }
    *ret_hold = kek;
    return kek->waist;
}

static void put_waist(void *ctx, void *hold)
{
    (void)ctx;
    kms_kek_put(hold);
}

enum kms_status kms_server_start_audit(struct kms_server *server, struct kms_error *err)
{
    enum kms_status status = kms_audit_open(&server->conf->audit, &server->audit, err);

    server->kms.audit = server->audit;
    return status;
}

enum kms_status kms_server_start_agent(struct kms_server *server, struct kms_error *err)
{
    struct kms_agentd_start start = {.conf = server->conf,
                                     .observe = kms_server_on_backend,
                                     .observe_ctx = server,
                                     .audit = server->audit};

    if (!server->conf->agent.on) {
        return KMS_OK;
    }
    if (kms_server_has_kms(server)) {
        start.source =
            (struct kms_agentd_source){.ctx = server, .get = get_waist, .put = put_waist};
    }
    return kms_agentd_start(&start, &server->agentd, err);
}

enum kms_status kms_server_check_fronts(const struct kms_conf *was, const struct kms_conf *now,
                                        struct kms_error *err)
{
    if ((was->kms.socket == NULL) != (now->kms.socket == NULL)) {
        return kms_error_set(err, KMS_E_INVALID, "%s: kms came or went: it needs a restart",
                             now->path);
    }
    if (was->agent.on != now->agent.on) {
        return kms_error_set(err, KMS_E_INVALID, "%s: agent came or went: it needs a restart",
                             now->path);
    }
    return KMS_OK;
}
