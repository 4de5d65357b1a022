/* SPDX-License-Identifier: Apache-2.0 */
/* One call: an attempt on a session, and the repair that its return value asks for. */
#include "backend/p11/token_state.h"
#include "common/clock.h"

/* A call is repaired this often, then its error is the answer. */
#define REPAIRS_MAX 5

static enum kms_status gave_up(const struct kms_p11_ask *ask)
{
    if (ask->cancelled != NULL && atomic_load(ask->cancelled)) {
        return kms_error_set(ask->err, KMS_E_CANCELLED, "the caller gave up");
    }
    return KMS_OK;
}

/* Inside the module: a session is opened if need be, and the step runs. */
static CK_RV run_inside(struct kms_p11 *p, enum kms_p11_mode mode, uint64_t epoch,
                        kms_p11_step step, void *ctx, bool *ret_opened)
{
    CK_RV rv = kms_p11_slot_open(p->token, p->slot, mode, epoch, ret_opened, &p->function);

    if (rv == CKR_OK) {
        p->session = mode == KMS_P11_READ ? p->slot->session : p->slot->write_session;
        rv = step(p, ctx);
    }
    if (p->slot->write_session != CK_INVALID_HANDLE) {
        (void)p->functions->C_CloseSession(p->slot->write_session);
        p->slot->write_session = CK_INVALID_HANDLE;
    }
    return rv;
}

/* After an attempt: gives the slot back, closed when its session is in doubt. */
static void give(struct kms_p11 *p, CK_RV rv, bool opened, bool closed, uint64_t entered_ns)
{
    struct kms_p11_token *token = p->token;

    pthread_mutex_lock(&token->lock);
    token->last_return_ns = kms_now_ns();
    kms_p11_pool_lose_locked(token, entered_ns);
    if (p->generation == token->generation) {
        token->open += opened ? 1u : 0u;
        token->open -= closed && token->open > 0 ? 1u : 0u;
        token->repairs += closed ? 1u : 0u;
        token->successes += rv == CKR_OK ? 1u : 0u;
        if (rv == CKR_OK && token->last_return_ns - token->up_since_ns >= KMS_P11_CALM_NS) {
            token->backoff_ns = 0; /* not before: a flapping device would be restarted for ever */
        }
        if (rv == CKR_SESSION_COUNT) {
            kms_p11_pool_full_locked(token);
        }
    }
    kms_p11_pool_give_locked(token, p->slot);
    pthread_cond_signal(&token->changed);
    pthread_mutex_unlock(&token->lock);
}

/* One attempt with a session of its own. CKR_CRYPTOKI_NOT_INITIALIZED when the gate is closed. */
static CK_RV attempt(struct kms_p11 *p, enum kms_p11_mode mode, uint64_t epoch, kms_p11_step step,
                     void *ctx)
{
    CK_RV rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    bool opened = false;
    bool closed = false;
    bool was_open = p->slot->session != CK_INVALID_HANDLE && p->slot->epoch == epoch;

    uint64_t entered_ns = 0;

    p->functions = p->token->functions;
    p->function = "C_Initialize";
    if (kms_p11_module_enter(p->token->module, epoch)) {
        entered_ns = kms_now_ns();
        atomic_store_explicit(&p->slot->entered_ns, entered_ns, memory_order_relaxed);
        rv = run_inside(p, mode, epoch, step, ctx, &opened);
        if (rv == CKR_BUFFER_TOO_SMALL || kms_ckr_find(rv)->action == KMS_P11_REOPEN) {
            kms_p11_slot_close(p->token, p->slot);
        }
        closed = (was_open || opened) && p->slot->session == CK_INVALID_HANDLE;
        atomic_store_explicit(&p->slot->entered_ns, 0, memory_order_relaxed);
        kms_p11_module_leave(p->token->module);
    }
    give(p, rv, opened, closed, entered_ns);
    return rv;
}

/* What to do when @row's action is asked for the @times-th time in one call. */
static enum kms_p11_action escalate(const struct kms_ckr *row, unsigned times)
{
    enum kms_p11_action action = row->action;
    bool again = times > 1;

    switch (action) {
    case KMS_P11_REFRESH_KEY:
        if (again) {
            return row->status == KMS_E_UNAVAILABLE ? KMS_P11_REINIT : KMS_P11_NONE;
        }
        return action;
    case KMS_P11_REOPEN:
    case KMS_P11_RELOGIN:
        return again ? KMS_P11_REINIT : action;
    default:
        return action;
    }
}

/* Where a call's first failure happened; generation 0: it had none. */
struct first {
    uint64_t generation;
    uint64_t successes;
};

static void note_failure(struct kms_p11 *p, struct first *first)
{
    pthread_mutex_lock(&p->token->lock);
    if (first->generation != p->generation) {
        first->generation = p->generation;
        first->successes = p->token->generation == p->generation ? p->token->successes : 0;
    }
    pthread_mutex_unlock(&p->token->lock);
}

/*
 * Whether a call that failed twice by a code that does not say "the device" may restart the module
 * under everybody. Not while others succeed: then it is its key; and not again and again.
 */
static bool may_suspect(struct kms_p11 *p, const struct first *first)
{
    struct kms_p11_token *token = p->token;
    uint64_t now = kms_now_ns();
    bool may = true;

    pthread_mutex_lock(&token->lock);
    if (token->phase == KMS_P11_UP && token->generation == p->generation) {
        may = token->successes == first->successes &&
              (token->successes == 0 || now >= token->next_suspicion_ns);
        if (may) {
            bool calm = now >= token->next_suspicion_ns + KMS_P11_CALM_NS;
            uint64_t pause = calm ? KMS_P11_RESTART_MIN_NS : 2 * token->suspicion_pause_ns;

            pause = pause > KMS_P11_RESTART_MAX_NS ? KMS_P11_RESTART_MAX_NS : pause;
            token->suspicion_pause_ns = pause;
            token->next_suspicion_ns = now + pause;
        }
    }
    pthread_mutex_unlock(&token->lock);
    return may;
}

static void note_broken(struct kms_p11 *p, enum kms_p11_action action, CK_RV rv)
{
    struct kms_error cause = KMS_ERROR_INIT;

    (void)kms_ckr_error(&cause, p->token->conf.name, p->function, rv);
    pthread_mutex_lock(&p->token->lock);
    kms_p11_break_locked(p->token, p->generation, action, &cause);
    pthread_mutex_unlock(&p->token->lock);
}

enum kms_status kms_p11_run(struct kms_p11_token *token, enum kms_p11_mode mode,
                            const struct kms_p11_ask *ask, kms_p11_step step, void *ctx)
{
    struct kms_p11 p = {.token = token, .ask = ask};
    unsigned times[KMS_P11_ACTION_COUNT] = {0};
    struct first first = {.generation = 0};

    for (unsigned repairs = 0;; repairs++) {
        const struct kms_ckr *row = NULL;
        enum kms_p11_action action = KMS_P11_NONE;
        enum kms_status status = gave_up(ask);
        uint64_t epoch = 0;
        CK_RV rv = CKR_OK;

        if (status == KMS_OK) {
            status = kms_p11_take(token, ask, &p, &epoch);
        }
        if (status != KMS_OK) {
            return status;
        }
        rv = attempt(&p, mode, epoch, step, ctx);
        if (rv == CKR_OK) {
            return KMS_OK;
        }
        if (ask->err->status != KMS_OK) {
            return ask->err->status;
        }
        row = kms_ckr_find(rv);
        action = escalate(row, ++times[row->action]);
        note_failure(&p, &first);
        if (action == KMS_P11_REINIT && row->action != KMS_P11_REINIT && !may_suspect(&p, &first)) {
            action = KMS_P11_NONE;
        }
        if (action == KMS_P11_RELOGIN || action == KMS_P11_REINIT) {
            note_broken(&p, action, rv);
        }
        p.refresh = action == KMS_P11_REFRESH_KEY;
        if ((action == KMS_P11_NONE && rv != CKR_SESSION_COUNT) || repairs == REPAIRS_MAX ||
            p.committed || kms_deadline_passed(ask->deadline_ns)) {
            return kms_ckr_error(ask->err, token->conf.name, p.function, rv);
        }
    }
}
