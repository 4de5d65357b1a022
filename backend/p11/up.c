/* SPDX-License-Identifier: Apache-2.0 */
/* Being connected: who connects, when it is tried again, and waiting for a free session. */
#include "backend/p11/token_state.h"
#include "common/clock.h"
#include "common/cond.h"

/* ---- connecting --------------------------------------------------------------------------- */

/* Sets when the next connect may be tried, and doubles the pause. */
static void back_off_locked(struct kms_p11_token *token, enum kms_status status)
{
    uint64_t pause = token->backoff_ns;

    if (status == KMS_E_AUTH) {
        pause = KMS_P11_PIN_REREAD_NS;
    } else {
        token->backoff_ns = pause == 0 ? KMS_P11_BACKOFF_MIN_NS : pause * 2;
        if (token->backoff_ns > KMS_P11_BACKOFF_MAX_NS) {
            token->backoff_ns = KMS_P11_BACKOFF_MAX_NS;
        }
        pause = kms_jitter(pause / 2, pause); /* a fleet must not come back in step */
    }
    token->next_try_ns = kms_deadline_in(pause);
}

/* Runs one connect attempt; the caller found phase DOWN and its time come. */
static void connect_locked(struct kms_p11_token *token, const struct kms_p11_ask *ask)
{
    struct kms_error err = KMS_ERROR_INIT;
    enum kms_p11_need need = token->need;
    uint64_t epoch = token->epoch;
    unsigned limit = token->slot_count;
    enum kms_status status = KMS_OK;

    token->phase = KMS_P11_CONNECTING;
    token->connecting_since_ns = kms_now_ns();
    pthread_mutex_unlock(&token->lock);
    status = kms_p11_connect(token, ask, &need, &epoch, &limit, &err);
    pthread_mutex_lock(&token->lock);
    if (epoch != token->epoch) {
        token->epoch = epoch;
        token->open = 0;
    }
    token->need = need;
    if (status == KMS_OK) {
        token->phase = KMS_P11_UP;
        token->bound = limit;
        token->limit = limit;
        token->generation++;
        token->successes = 0;
        token->up_since_ns = kms_now_ns();
        token->repairs += token->generation > 1 ? 1u : 0u;
    } else {
        token->phase = KMS_P11_DOWN;
        token->cause = err;
        if (token->backoff_ns == 0) {
            token->backoff_ns = KMS_P11_BACKOFF_MIN_NS;
        }
        back_off_locked(token, status);
    }
    pthread_cond_broadcast(&token->changed);
}

/* Notes that the connection of @generation needs @action; others may have noted it before. */
void kms_p11_break_locked(struct kms_p11_token *token, uint64_t generation,
                          enum kms_p11_action action, const struct kms_error *cause)
{
    if (token->phase != KMS_P11_UP || token->generation != generation) {
        return;
    }
    token->phase = KMS_P11_DOWN;
    token->cause = *cause;
    if (action == KMS_P11_RELOGIN) {
        token->need = KMS_P11_NEED_LOGIN;
        token->next_try_ns = 0;
    } else {
        token->need = KMS_P11_NEED_START;
        back_off_locked(token, KMS_E_UNAVAILABLE);
    }
    pthread_cond_broadcast(&token->changed);
}

/* ---- a session ---------------------------------------------------------------------------------
 */

/*
 * Several calls are inside and none has come back for a while: the module is wedged, and whoever
 * goes in after them is lost too. Their return is what tells that it lives, or that of a call which
 * went in later: then those are lost for good and count no more. A trial now and then finds out.
 */
static bool wedged_locked(struct kms_p11_token *token, uint64_t *ret_oldest, unsigned *ret_stuck)
{
    uint64_t now = 0;

    if (token->busy < 2) {
        return false;
    }
    now = kms_now_ns();
    if (now - token->last_return_ns < KMS_P11_STUCK_NS) {
        return false;
    }
    if (kms_p11_pool_unexplained_locked(token) < 2) {
        return false;
    }
    *ret_oldest = kms_p11_pool_oldest_ns(token, ret_stuck);
    if (token->last_trial_ns <= token->last_return_ns) { /* newly wedged */
        token->last_trial_ns = now;
    }
    if (now - token->last_trial_ns < KMS_P11_TRIAL_NS) {
        return true;
    }
    token->last_trial_ns = now;
    return false;
}

static enum kms_status say_stuck(const struct kms_p11_token *token, struct kms_error *err,
                                 unsigned stuck, uint64_t oldest)
{
    return kms_error_set(err, KMS_E_UNAVAILABLE,
                         "%s: %u calls stuck in the PKCS#11 module for %llu s", token->conf.name,
                         stuck, (unsigned long long)(oldest / KMS_NS_PER_S));
}

static enum kms_status say_timeout(struct kms_p11_token *token, struct kms_error *err)
{
    unsigned stuck = 0;
    uint64_t oldest = kms_p11_pool_oldest_ns(token, &stuck);

    if (stuck > 0) {
        return say_stuck(token, err, stuck, oldest);
    }
    if (token->phase != KMS_P11_UP) {
        return kms_error_set_code(err, KMS_E_UNAVAILABLE, token->cause.code,
                                  "%s: still connecting; %s", token->conf.name, token->cause.text);
    }
    return kms_error_set(err, KMS_E_BUSY, "%s: all %u sessions are in use", token->conf.name,
                         token->limit);
}

/* Whether the token may be up before the deadline, for who waits for it. */
static bool may_come_back(const struct kms_p11_token *token, const struct kms_p11_ask *ask)
{
    return ask->patient && kms_status_is_transient(token->cause.status) &&
           token->next_try_ns < ask->deadline_ns &&
           (ask->cancelled == NULL || !atomic_load(ask->cancelled));
}

/* Connects, or waits for who connects; KMS_OK when the phase is UP. */
static enum kms_status be_up_locked(struct kms_p11_token *token, const struct kms_p11_ask *ask)
{
    while (token->phase != KMS_P11_UP) {
        if (token->phase == KMS_P11_CONNECTING) {
            if (!kms_cond_wait(&token->changed, &token->lock, ask->deadline_ns)) {
                return say_timeout(token, ask->err);
            }
            continue;
        }
        if (kms_deadline_passed(token->next_try_ns)) {
            connect_locked(token, ask);
        } else if (may_come_back(token, ask)) { /* whoever connects meanwhile wakes us */
            (void)kms_cond_wait(&token->changed, &token->lock, token->next_try_ns);
            continue;
        }
        if (token->phase == KMS_P11_DOWN && !may_come_back(token, ask)) {
            *ask->err = token->cause;
            return token->cause.status;
        }
    }
    return KMS_OK;
}

/* A slot of a connected token, with the connection's epoch and generation. */
enum kms_status kms_p11_take(struct kms_p11_token *token, const struct kms_p11_ask *ask,
                             struct kms_p11 *ret_p, uint64_t *ret_epoch)
{
    struct kms_p11_slot *slot = NULL;
    enum kms_status status = KMS_OK;
    uint64_t oldest = 0;
    unsigned stuck = 0;

    pthread_mutex_lock(&token->lock);
    for (;;) {
        status = be_up_locked(token, ask);
        if (status == KMS_OK && wedged_locked(token, &oldest, &stuck)) {
            status = say_stuck(token, ask->err, stuck, oldest);
        }
        if (status != KMS_OK) {
            break;
        }
        slot = kms_p11_pool_take_locked(token);
        if (slot != NULL) {
            ret_p->slot = slot;
            ret_p->generation = token->generation;
            *ret_epoch = token->epoch;
            break;
        }
        if (!kms_cond_wait(&token->changed, &token->lock, ask->deadline_ns)) {
            status = say_timeout(token, ask->err);
            break;
        }
    }
    pthread_mutex_unlock(&token->lock);
    return status;
}
