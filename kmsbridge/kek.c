/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kek.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"

void kms_keks_init(struct kms_keks *keks)
{
    *keks = (struct kms_keks){.now = NULL};
    pthread_mutex_init(&keks->mutex, NULL);
    kms_cond_init(&keks->changed);
}

struct kms_kek *kms_keks_get(struct kms_keks *keks)
{
    pthread_mutex_lock(&keks->mutex);
    struct kms_kek *kek = keks->now;
    kek->users++;
    pthread_mutex_unlock(&keks->mutex);
    return kek;
}

void kms_kek_put(struct kms_kek *kek)
{
    struct kms_keks *keks = kek->home;
    pthread_mutex_lock(&keks->mutex);
    if (--kek->users == 0 && keks->now != kek) {
        pthread_cond_broadcast(&keks->changed);
    }
    pthread_mutex_unlock(&keks->mutex);
}

uint64_t kms_keks_number(struct kms_keks *keks)
{
    pthread_mutex_lock(&keks->mutex);
    uint64_t number = keks->number;
    pthread_mutex_unlock(&keks->mutex);
    return number;
}

static uint64_t stuck_ns(const struct kms_kek *kek)
{
    struct kms_health health;
    kms_waist_health(kek->waist, &health);
    return health.stuck_ns;
}

/* A health op is from memory and never blocks: the mutex keeps what we look at from being closed.
 */
uint64_t kms_keks_stuck_ns(struct kms_keks *keks)
{
    pthread_mutex_lock(&keks->mutex);
    uint64_t oldest = keks->now != NULL ? stuck_ns(keks->now) : 0;
    for (const struct kms_kek *kek = keks->left; kek != NULL; kek = kek->next) {
        uint64_t ns = stuck_ns(kek);
        oldest = ns > oldest ? ns : oldest;
    }
    pthread_mutex_unlock(&keks->mutex);
    return oldest;
}

/* --- opening and closing --- */

/* @kek is in nobody's hands and its probe has ended. The shell is left. */
static void kek_close(struct kms_kek *kek)
{
    kms_keyring_free(kek->ring);
    kms_waist_close(kek->waist);
    kms_conf_done(kek->conf);
}

enum kms_status kms_kek_open(struct kms_keks *keks, struct kms_conf *conf, kms_observe observe,
                             void *observe_ctx, struct kms_kek **ret_kek, struct kms_error *err)
{
    const struct kms_health_conf health = {.probe_interval_ns = conf->kms.probe_interval_ns,
                                           .refresh_interval_ns = conf->kms.refresh_interval_ns,
                                           .call_timeout_ns = conf->kms.call_timeout_ns};
    struct kms_kek *kek = calloc(1, sizeof *kek);
    if (kek == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "out of memory");
    }
    kek->home = keks;
    kek->conf = kms_conf_hold(conf);
    enum kms_status status = kms_waist_open(kms_conf_backend(conf, conf->kms.backend), observe,
                                            observe_ctx, &kek->waist, err);
    if (status == KMS_OK) {
        kek->ring = kms_keyring_new(kek->waist, conf->kms.key);
        kek->health = kek->ring != NULL ? kms_healthd_start(kek->waist, kek->ring, &health) : NULL;
    }
    if (status == KMS_OK && kek->health == NULL) {
        status =
            kms_error_set(err, KMS_E_NOMEM, "cannot start the probe: out of memory or threads");
    }
    if (status != KMS_OK) {
        kek_close(kek);
        free(kek);
        return status;
    }
    *ret_kek = kek;
    return KMS_OK;
}

static void left_remove_locked(struct kms_keks *keks, const struct kms_kek *kek)
{
    for (struct kms_kek **at = &keks->left; *at != NULL; at = &(*at)->next) {
        if (*at == kek) {
            *at = kek->next;
            return;
        }
    }
}

/* Waits for its last call and its last probe, closes it. */
static void *close_main(void *arg)
{
    struct kms_kek *kek = arg;
    struct kms_keks *keks = kek->home;
    pthread_mutex_lock(&keks->mutex);
    while (kek->users != 0) {
        pthread_cond_wait(&keks->changed, &keks->mutex);
    }
    pthread_mutex_unlock(&keks->mutex);
    (void)kms_healthd_stop(kek->health, KMS_DEADLINE_NONE);
    pthread_mutex_lock(&keks->mutex);
    left_remove_locked(keks, kek);
    pthread_mutex_unlock(&keks->mutex);
    kek_close(kek);
    pthread_mutex_lock(&keks->mutex);
    kek->next = keks->closed;
    keks->closed = kek;
    keks->closing--;
    pthread_cond_broadcast(&keks->changed);
    pthread_mutex_unlock(&keks->mutex);
    return NULL;
}

/* Their threads are about to end, or have: joined, so that nothing of a thread is left at exit. */
static void join_all(struct kms_kek *list)
{
    while (list != NULL) {
        struct kms_kek *kek = list;
        list = kek->next;
        pthread_join(kek->closer, NULL);
        free(kek);
    }
}

static struct kms_kek *take_closed(struct kms_keks *keks)
{
    pthread_mutex_lock(&keks->mutex);
    struct kms_kek *taken = keks->closed;
    keks->closed = NULL;
    pthread_mutex_unlock(&keks->mutex);
    return taken;
}

void kms_kek_dismiss(struct kms_kek *kek)
{
    struct kms_keks *keks = kek->home;
    join_all(take_closed(keks));
    kms_healthd_dismiss(kek->health);
    pthread_mutex_lock(&keks->mutex);
    kek->next = keks->left;
    keks->left = kek;
    keks->closing++;
    pthread_mutex_unlock(&keks->mutex);
    if (pthread_create(&kek->closer, NULL, close_main, kek) != 0) {
        kms_log(KMS_LOG_WARN, "reload: no thread to close the former key service; it stays open");
    }
}

void kms_kek_serve(struct kms_kek *kek)
{
    struct kms_keks *keks = kek->home;
    pthread_mutex_lock(&keks->mutex);
    struct kms_kek *former = keks->now;
    keks->now = kek;
    keks->number++;
    pthread_mutex_unlock(&keks->mutex);
    if (former != NULL) {
        kms_kek_dismiss(former);
    }
}

bool kms_keks_done(struct kms_keks *keks, uint64_t timeout_ns)
{
    const uint64_t end_ns = kms_deadline_in(timeout_ns);
    pthread_mutex_lock(&keks->mutex);
    struct kms_kek *last = keks->now;
    keks->now = NULL;
    pthread_mutex_unlock(&keks->mutex);
    if (last != NULL) {
        kms_kek_dismiss(last);
    }
    pthread_mutex_lock(&keks->mutex);
    while (keks->closing != 0 && !kms_deadline_passed(end_ns)) {
        (void)kms_cond_wait(&keks->changed, &keks->mutex, end_ns);
    }
    bool clean = keks->closing == 0;
    pthread_mutex_unlock(&keks->mutex);
    if (clean) {
        join_all(take_closed(keks));
        pthread_cond_destroy(&keks->changed);
        pthread_mutex_destroy(&keks->mutex);
    }
    return clean;
}
