/* SPDX-License-Identifier: Apache-2.0 */
/* Key services: opened once, shared with the KMS plugin where it has them, and our share of them.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kmsbridge/agent_tokens_parts.h"

#define KMS_SHARE    4u  /* sessions that are kept for the KMS plugin */
#define LANE_UNKNOWN 32u /* where a key service does not say its bound */

struct kms_agentd_backends *kms_agentd_backends_new(const struct kms_agentd_source *source,
                                                    kms_observe observe, void *observe_ctx)
{
    struct kms_agentd_backends *backends = calloc(1, sizeof(*backends));

    if (backends != NULL) {
        backends->source = *source;
        backends->observe = observe;
        backends->observe_ctx = observe_ctx;
        atomic_init(&backends->landing, false);
        pthread_mutex_init(&backends->mutex, NULL);
        kms_crew_init(&backends->lists);
    }
    return backends;
}

void kms_agentd_backends_free(struct kms_agentd_backends *backends)
{
    if (backends == NULL) {
        return;
    }
    while (backends->first != NULL) {
        struct kms_agentd_backend *backend = backends->first;

        backends->first = backend->next;
        kms_waist_close(backend->own);
        kms_conf_done(backend->conf);
        kms_lane_done(&backend->lane);
        free(backend->name);
        free(backend);
    }
    kms_crew_done(&backends->lists);
    pthread_mutex_destroy(&backends->mutex);
    free(backends);
}

uint64_t kms_agentd_backends_stuck_ns(struct kms_agentd_backends *backends)
{
    struct kms_health health;
    uint64_t oldest = 0;

    pthread_mutex_lock(&backends->mutex);
    for (struct kms_agentd_backend *b = backends->first; b != NULL; b = b->next) {
        if (b->own != NULL) {
            kms_waist_health(b->own, &health);
            oldest = health.stuck_ns > oldest ? health.stuck_ns : oldest;
        }
    }
    pthread_mutex_unlock(&backends->mutex);
    return oldest;
}

static struct kms_agentd_backend *backend_find_locked(struct kms_agentd_backends *backends,
                                                      const char *name)
{
    struct kms_agentd_backend *backend = backends->first;

    while (backend != NULL && strcmp(backend->name, name) != 0) {
        backend = backend->next;
    }
    return backend;
}

struct kms_agentd_backend *kms_agentd_backend_get(struct kms_agentd_backends *backends,
                                                  const char *name)
{
    struct kms_agentd_backend *backend = NULL;

    pthread_mutex_lock(&backends->mutex);
    backend = backend_find_locked(backends, name);
    if (backend == NULL) {
        backend = calloc(1, sizeof(*backend));
        if (backend != NULL) {
            backend->name = strdup(name);
            kms_lane_init(&backend->lane);
        }
        if (backend != NULL && backend->name == NULL) {
            kms_lane_done(&backend->lane);
            free(backend);
            backend = NULL;
        }
        if (backend != NULL) {
            backend->next = backends->first;
            backends->first = backend;
        }
    }
    pthread_mutex_unlock(&backends->mutex);
    return backend;
}

/* The waist that we opened ourselves, or open now. */
enum kms_status kms_agentd_own_waist(struct kms_agentd_backends *backends,
                                     struct kms_agentd_backend *backend, struct kms_conf *conf,
                                     struct kms_waist **ret_waist, struct kms_error *err)
{
    const struct kms_backend_conf *entry = kms_conf_backend(conf, backend->name);
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&backends->mutex);
    if (backend->own == NULL && entry == NULL) {
        status = kms_error_set(err, KMS_E_NOT_FOUND, "there is no backend %s", backend->name);
    } else if (backend->own == NULL) {
        status =
            kms_waist_open(entry, backends->observe, backends->observe_ctx, &backend->own, err);
        if (status == KMS_OK) {
            backend->conf = kms_conf_hold(conf);
        }
    }
    *ret_waist = backend->own;
    pthread_mutex_unlock(&backends->mutex);
    return status;
}

/* By @conf, a backend is ours alone: the KMS plugin's is opened anew, and lent. */
static bool is_ours_alone(const struct kms_conf *conf, const char *name)
{
    bool is_ours = false;

    for (size_t i = 0; i < conf->agent.token_count; i++) {
        is_ours = is_ours || strcmp(conf->agent.tokens[i].backend, name) == 0;
    }
    return is_ours && (conf->kms.backend == NULL || strcmp(conf->kms.backend, name) != 0);
}

void kms_agentd_backends_warn(struct kms_agentd_backends *backends, const struct kms_conf *conf)
{
    pthread_mutex_lock(&backends->mutex);
    for (const struct kms_agentd_backend *b = backends->first; b != NULL; b = b->next) {
        const struct kms_backend_conf *entry = kms_conf_backend(conf, b->name);

        if (b->own != NULL && entry != NULL && is_ours_alone(conf, b->name) &&
            !kms_backend_conf_same(kms_conf_backend(b->conf, b->name), entry)) {
            kms_log(KMS_LOG_WARN,
                    "reload: backend %s has changed and needs a restart to take effect", b->name);
        }
    }
    pthread_mutex_unlock(&backends->mutex);
}

/* --- calls ------------------------------------------------------------------------------------ */

/* Of a waist that the KMS plugin uses as well, some sessions are not for us. */
static unsigned lane_max(struct kms_waist *waist, bool shared)
{
    struct kms_health health;
    unsigned share = shared ? KMS_SHARE : 0;

    kms_waist_health(waist, &health);
    if (health.sessions_max == 0) {
        return LANE_UNKNOWN;
    }
    return health.sessions_max > share ? health.sessions_max - share : 1;
}

static void put_waist(struct kms_agentd_visit *visit)
{
    const struct kms_agentd_source *source = &visit->token->backends->source;

    if (visit->shared) {
        source->put(source->ctx, visit->hold);
    }
}

enum kms_status kms_agentd_visit_begin(struct kms_agentd_token *token, struct kms_call *call,
                                       struct kms_agentd_visit *ret_visit)
{
    const struct kms_agentd_source *source = &token->backends->source;
    struct kms_agentd_visit visit = {.token = token};
    enum kms_status status = KMS_OK;
    unsigned max = atomic_load(&token->lane_max);

    if (source->get != NULL) {
        visit.waist = source->get(source->ctx, token->backend->name, &visit.hold);
    }
    visit.shared = visit.waist != NULL;
    if (!visit.shared) {
        status = kms_agentd_own_waist(token->backends, token->backend, token->whole, &visit.waist,
                                      &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (max == 0) {
        max = lane_max(visit.waist, visit.shared);
        atomic_store(&token->lane_max, max);
    }
    status = kms_lane_take(&token->backend->lane, max, call->deadline_ns, &call->error);
    if (status != KMS_OK) {
        put_waist(&visit);
        return status;
    }
    *ret_visit = visit;
    return KMS_OK;
}

enum kms_status kms_agentd_token_why(struct kms_agentd_token *token, struct kms_error *err)
{
    const struct kms_agentd_source *source = &token->backends->source;
    struct kms_health health = {.ready = true};
    struct kms_waist *waist = NULL;
    void *hold = NULL;

    if (source->get != NULL) {
        waist = source->get(source->ctx, token->backend->name, &hold);
    }
    if (waist != NULL) {
        kms_waist_health(waist, &health);
        source->put(source->ctx, hold);
    } else if (kms_agentd_own_waist(token->backends, token->backend, token->whole, &waist, err) !=
               KMS_OK) {
        return err->status;
    } else {
        kms_waist_health(waist, &health);
    }
    if (!health.ready && health.error.status != KMS_OK) {
        *err = health.error;
    }
    return err->status;
}

bool kms_agentd_backends_land(struct kms_agentd_backends *backends, uint64_t deadline_ns)
{
    atomic_store(&backends->landing, true);
    return kms_crew_wait(&backends->lists, deadline_ns);
}

void kms_agentd_visit_end(struct kms_agentd_visit *visit)
{
    kms_lane_leave(&visit->token->backend->lane);
    put_waist(visit);
}
