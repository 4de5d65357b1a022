/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/health.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"

/* Back-off of the probe while the verdict is bad. */
#define RETRY_FIRST_NS (500 * KMS_NS_PER_MS)
#define RETRY_LAST_NS  (5 * KMS_NS_PER_S)
/* Shortest time between two probes that failing traffic asks for. */
#define KICK_SPACING_NS (200 * KMS_NS_PER_MS)

struct kms_healthd {
    struct kms_waist *waist;
    struct kms_keyring *ring;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below; never held across a backend op */
    pthread_cond_t changed;
    struct kms_health_conf conf;
    atomic_bool stopping; /* written under the mutex; a probe under way looks at it */
    bool kicked;
    bool done; /* the thread has left its loop */
    struct kms_verdict verdict;
    uint64_t proven_ns;     /* of the last good encrypt and decrypt */
    uint64_t encrypt_ok_ns; /* real traffic */
    uint64_t decrypt_ok_ns;
    uint64_t refreshed_ns;
    uint64_t probe_began_ns; /* 0: no probe is running */
    uint64_t retry_ns;
};

/* What tells about the key service, not about the caller's data. */
static bool blames_service(enum kms_status status)
{
    switch (status) {
    case KMS_E_AUTH:
    case KMS_E_DENIED:
    case KMS_E_KEY_STATE:
    case KMS_E_UNAVAILABLE:
    case KMS_E_TIMEOUT:
    case KMS_E_PROTOCOL:
    case KMS_E_INTERNAL:
        return true;
    default:
        return false;
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* True when the verdict turned. */
static bool set_verdict_locked(struct kms_healthd *h, enum kms_status status,
                               const struct kms_error *error, uint64_t now)
{
    bool was_known = h->verdict.known;
    bool was_good = h->verdict.good;
    h->verdict.known = true;
    h->verdict.good = status == KMS_OK;
    if (status == KMS_OK) {
        h->proven_ns = now;
        h->retry_ns = RETRY_FIRST_NS;
        kms_error_clear(&h->verdict.error);
    } else {
        h->verdict.error = *error;
        h->retry_ns = earlier(h->retry_ns * 2, RETRY_LAST_NS);
    }
    pthread_cond_broadcast(&h->changed);
    return !was_known || was_good != h->verdict.good;
}

static void log_verdict(const struct kms_verdict *verdict)
{
    if (verdict->good) {
        kms_log(KMS_LOG_INFO, "health: KEK is good, key_id %s", verdict->key_id);
    } else {
        kms_log_error(KMS_LOG_ERROR, &verdict->error, "health: KEK is not usable");
    }
}

/* A probe that takes this long: meanwhile the verdict is bad. */
static bool hangs_locked(const struct kms_healthd *h, uint64_t running_ns)
{
    return running_ns > 2 * h->conf.call_timeout_ns;
}

/* One round outside the lock: keys if due, then the proof if real traffic gave none. */
static void round_of_probe(struct kms_healthd *h, bool refresh, bool probe, uint64_t timeout_ns)
{
    struct kms_call call = {
        .deadline_ns = kms_deadline_in(timeout_ns), .cancelled = &h->stopping, .trace_id = "probe"};
    enum kms_status status = KMS_OK;
    struct kms_error listing = KMS_ERROR_INIT;
    char key_id[KMS_KEY_ID_MAX] = "";
    if (refresh) {
        status = kms_keyring_refresh(h->ring, &call);
    }
    if (status != KMS_OK && kms_keyring_active(h->ring, key_id) == KMS_OK) {
        /* the active key is known: whether it is good is not for the listing to say */
        listing = call.error;
        kms_error_clear(&call.error);
        status = KMS_OK;
        probe = true;
    }
    if (status == KMS_OK && probe) {
        status = kms_keyring_probe(h->ring, &call);
    }
    bool have_id = kms_keyring_active(h->ring, key_id) != KMS_E_NOT_FOUND;
    struct kms_verdict turned = {.known = false};

    pthread_mutex_lock(&h->mutex);
    uint64_t now = kms_now_ns();
    uint64_t took_ns = now - h->probe_began_ns;
    bool hung = hangs_locked(h, took_ns);
    h->probe_began_ns = 0;
    if (have_id) {
        memcpy(h->verdict.key_id, key_id, sizeof key_id);
    }
    if (refresh && status == KMS_OK) {
        h->refreshed_ns = now;
    }
    if ((probe || status != KMS_OK) && !h->stopping &&
        set_verdict_locked(h, status, &call.error, now)) {
        turned = h->verdict;
    }
    pthread_mutex_unlock(&h->mutex);
    /* Status takes the mutex, and a log may be slow */
    if (status == KMS_OK && listing.status != KMS_OK) {
        kms_log_error(KMS_LOG_WARN, &listing, "health: KEK is good, but newer keys are not seen");
    }
    if (hung) {
        kms_log(KMS_LOG_WARN, "health: the probe hung for %llu s; the KEK counted as not usable",
                (unsigned long long)(took_ns / KMS_NS_PER_S));
    }
    if (turned.known) {
        log_verdict(&turned);
    }
}

/* When the next round is due, by the lock's holder. */
static uint64_t next_due_locked(const struct kms_healthd *h, uint64_t last_round_ns)
{
    if (h->kicked) {
        return last_round_ns + KICK_SPACING_NS;
    }
    if (!h->verdict.known) {
        return 0;
    }
    if (!h->verdict.good) {
        return last_round_ns + h->retry_ns;
    }
    uint64_t traffic = earlier(h->encrypt_ok_ns, h->decrypt_ok_ns);
    uint64_t proof = later(h->proven_ns, traffic) + h->conf.probe_interval_ns;
    return earlier(proof, h->refreshed_ns + h->conf.refresh_interval_ns);
}

static void wait_until_locked(struct kms_healthd *h, uint64_t due_ns)
{
    (void)kms_cond_wait(&h->changed, &h->mutex, due_ns);
}

static void *health_main(void *arg)
{
    struct kms_healthd *h = arg;
    uint64_t last_round_ns = 0;
    pthread_mutex_lock(&h->mutex);
    while (!h->stopping) {
        uint64_t now = kms_now_ns();
        uint64_t due = next_due_locked(h, last_round_ns);
        if (due > now) {
            wait_until_locked(h, due);
            continue;
        }
        uint64_t traffic = earlier(h->encrypt_ok_ns, h->decrypt_ok_ns);
        bool refresh =
            h->kicked || !h->verdict.good || now - h->refreshed_ns >= h->conf.refresh_interval_ns;
        bool probe = h->kicked || !h->verdict.good ||
                     now - later(h->proven_ns, traffic) >= h->conf.probe_interval_ns;
        h->kicked = false;
        h->probe_began_ns = now;
        last_round_ns = now;
        uint64_t timeout_ns = h->conf.call_timeout_ns;
        pthread_mutex_unlock(&h->mutex);
        round_of_probe(h, refresh, probe, timeout_ns);
        pthread_mutex_lock(&h->mutex);
    }
    h->done = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
    return NULL;
}

struct kms_healthd *kms_healthd_start(struct kms_waist *waist, struct kms_keyring *ring,
                                      const struct kms_health_conf *conf)
{
    struct kms_healthd *h = calloc(1, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    h->waist = waist;
    h->ring = ring;
    h->conf = *conf;
    h->retry_ns = RETRY_FIRST_NS;
    pthread_mutex_init(&h->mutex, NULL);
    kms_cond_init(&h->changed);
    if (pthread_create(&h->thread, NULL, health_main, h) != 0) {
        pthread_cond_destroy(&h->changed);
        pthread_mutex_destroy(&h->mutex);
        free(h);
        return NULL;
    }
    return h;
}

void kms_healthd_dismiss(struct kms_healthd *h)
{
    pthread_mutex_lock(&h->mutex);
    h->stopping = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

bool kms_healthd_stop(struct kms_healthd *h, uint64_t timeout_ns)
{
    if (h == NULL) {
        return true;
    }
    uint64_t deadline = kms_deadline_in(timeout_ns);
    kms_healthd_dismiss(h);
    pthread_mutex_lock(&h->mutex);
    while (!h->done && !kms_deadline_passed(deadline)) {
        wait_until_locked(h, deadline);
    }
    bool done = h->done;
    pthread_mutex_unlock(&h->mutex);
    if (!done) {
        return false;
    }
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->mutex);
    free(h);
    return true;
}

void kms_healthd_configure(struct kms_healthd *h, const struct kms_health_conf *conf)
{
    pthread_mutex_lock(&h->mutex);
    h->conf = *conf;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

void kms_healthd_kick(struct kms_healthd *h)
{
    pthread_mutex_lock(&h->mutex);
    h->kicked = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

bool kms_healthd_wait_known(struct kms_healthd *h, uint64_t deadline_ns)
{
    pthread_mutex_lock(&h->mutex);
    while (!h->verdict.known && !kms_deadline_passed(deadline_ns)) {
        wait_until_locked(h, deadline_ns);
    }
    bool known = h->verdict.known;
    pthread_mutex_unlock(&h->mutex);
    return known;
}

void kms_healthd_note(struct kms_healthd *h, enum kms_op op, enum kms_status status)
{
    if (status != KMS_OK && !blames_service(status)) {
        return;
    }
    pthread_mutex_lock(&h->mutex);
    if (status != KMS_OK) {
        if (h->verdict.good && !h->kicked) {
            h->kicked = true;
            pthread_cond_broadcast(&h->changed);
        }
    } else if (op == KMS_OP_ENCRYPT) {
        h->encrypt_ok_ns = kms_now_ns();
    } else if (op == KMS_OP_DECRYPT) {
        h->decrypt_ok_ns = kms_now_ns();
    }
    pthread_mutex_unlock(&h->mutex);
}

/* How old a good verdict may be before silence counts against it. */
static uint64_t staleness_locked(const struct kms_healthd *h)
{
    return h->conf.probe_interval_ns + 2 * h->conf.call_timeout_ns;
}

void kms_healthd_verdict(struct kms_healthd *h, struct kms_verdict *ret_verdict)
{
    pthread_mutex_lock(&h->mutex);
    uint64_t now = kms_now_ns();
    *ret_verdict = h->verdict;
    uint64_t proof = later(h->proven_ns, earlier(h->encrypt_ok_ns, h->decrypt_ok_ns));
    ret_verdict->age_ns = proof == 0 ? 0 : now - proof;
    uint64_t running_ns = h->probe_began_ns == 0 ? 0 : now - h->probe_began_ns;
    if (ret_verdict->good &&
        (hangs_locked(h, running_ns) || ret_verdict->age_ns > staleness_locked(h))) {
        ret_verdict->good = false;
        kms_error_set(&ret_verdict->error, KMS_E_TIMEOUT,
                      "the key service has not answered the probe for %llu s",
                      (unsigned long long)(later(running_ns, ret_verdict->age_ns) / KMS_NS_PER_S));
    }
    pthread_mutex_unlock(&h->mutex);
}
