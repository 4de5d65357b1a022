/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/token.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "backend/p11/token_state.h"
#include "common/clock.h"

/* A call is repaired this often, then its error is the answer. */
#define REPAIRS_MAX 5

enum kms_status kms_p11_token_new(const struct kms_p11_token_conf *conf,
                                  struct kms_p11_token **ret_token, struct kms_error *err)
{
    struct kms_p11_token *token = calloc(1, sizeof(*token));
    pthread_condattr_t monotonic;
    enum kms_status status = KMS_OK;

    if (token == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a token");
    }
    token->conf = *conf;
    token->phase = KMS_P11_DOWN;
    token->need = KMS_P11_NEED_START;
    pthread_mutex_init(&token->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&token->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    (void)kms_error_set(&token->cause, KMS_E_UNAVAILABLE, "%s: not connected yet", conf->name);
    if (kms_p11_is_uri(conf->token)) {
        status = kms_p11_uri_parse(conf->token, &token->uri, err);
    }
    if (status == KMS_OK) {
        status = kms_p11_pool_init(token, err);
    }
    if (status == KMS_OK) {
        *ret_token = token;
        token = NULL;
    }
    kms_p11_token_free(token);
    return status;
}

static void close_sessions(struct kms_p11_token *token)
{
    for (unsigned i = 0; i < token->slot_count; i++) {
        if (token->slots[i].epoch == token->epoch) {
            kms_p11_slot_close(token, &token->slots[i]);
        }
    }
    if (token->anchor != CK_INVALID_HANDLE) {
        (void)token->functions->C_CloseSession(token->anchor);
    }
}

void kms_p11_token_free(struct kms_p11_token *token)
{
    if (token == NULL) {
        return;
    }
    if (token->module != NULL && kms_p11_module_enter(token->module, token->epoch)) {
        close_sessions(token);
        kms_p11_module_leave(token->module);
    }
    kms_p11_module_put(token->module);
    kms_secret_free(token->refused_pin);
    kms_p11_uri_free(token->uri);
    kms_p11_pool_done(token);
    pthread_cond_destroy(&token->changed);
    pthread_mutex_destroy(&token->lock);
    free(token);
}

const char *kms_p11_token_name(const struct kms_p11_token *token)
{
    return token->conf.name;
}

/* What C_GetMechanismInfo said of it; 0 when the token does not list it. */
static CK_FLAGS flags_of(const struct kms_p11_token *token, CK_MECHANISM_TYPE mechanism)
{
    for (size_t i = 0; i < token->mechanism_count; i++) {
        if (token->mechanisms[i].type == mechanism) {
            return token->mechanisms[i].flags;
        }
    }
    return 0;
}

bool kms_p11_can(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses)
{
    return (flags_of(p->token, mechanism) & uses) == uses;
}

bool kms_p11_offers(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses)
{
    return (flags_of(p->token, mechanism) & uses) != 0;
}

bool kms_p11_is_hardware(const struct kms_p11 *p)
{
    for (size_t i = 0; i < p->token->mechanism_count; i++) {
        if ((p->token->mechanisms[i].flags & CKF_HW) != 0) {
            return true;
        }
    }
    return false;
}

const CK_TOKEN_INFO *kms_p11_token_info(const struct kms_p11 *p)
{
    return &p->token->info;
}

bool kms_p11_is_on(const struct kms_p11 *p, const struct kms_p11_uri *uri)
{
    return kms_p11_uri_matches_token(uri, &p->token->info);
}

CK_RV kms_p11_check_login(struct kms_p11 *p)
{
    CK_SESSION_INFO info = {.state = CKS_RO_USER_FUNCTIONS};
    bool current = false;
    CK_RV rv = CKR_OK;

    if (!p->token->logs_in) {
        return CKR_OK;
    }
    /* it may have been lost, and another thread has repeated it since or is about to */
    pthread_mutex_lock(&p->token->lock);
    current = p->token->phase == KMS_P11_UP && p->token->generation == p->generation;
    pthread_mutex_unlock(&p->token->lock);
    if (!current) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    rv = KMS_P11(p, C_GetSessionInfo)(p->session, &info);
    if (rv == CKR_OK &&
        (info.state == CKS_RO_PUBLIC_SESSION || info.state == CKS_RW_PUBLIC_SESSION)) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    return rv;
}

CK_RV kms_p11_renew(struct kms_p11 *p)
{
    struct kms_p11_slot *slot = p->slot;
    enum kms_p11_mode mode = KMS_P11_READ;
    bool opened = false;
    CK_RV rv = CKR_OK;

    if (slot->write_session != CK_INVALID_HANDLE) {
        mode = KMS_P11_WRITE;
        (void)p->functions->C_CloseSession(slot->write_session);
        slot->write_session = CK_INVALID_HANDLE;
    }
    kms_p11_slot_close(p->token, slot);
    rv = kms_p11_slot_open(p->token, slot, mode, slot->epoch, &opened, &p->function);
    p->session = mode == KMS_P11_READ ? slot->session : slot->write_session;
    return rv;
}

void kms_p11_token_state(struct kms_p11_token *token, struct kms_p11_state *ret_state,
                         struct kms_error *ret_err)
{
    unsigned stuck = 0;
    uint64_t oldest = kms_p11_pool_oldest_ns(token, &stuck);

    pthread_mutex_lock(&token->lock);
    if (token->phase == KMS_P11_CONNECTING) {
        uint64_t since = kms_now_ns() - token->connecting_since_ns;

        oldest = since > oldest ? since : oldest;
    }
    *ret_state = (struct kms_p11_state){
        .ready = token->phase == KMS_P11_UP,
        .open = token->open,
        .busy = token->busy,
        .max = token->limit,
        .repairs = token->repairs,
        .stuck_ns = oldest,
    };
    *ret_err = token->cause;
    pthread_mutex_unlock(&token->lock);
    if (ret_state->ready) {
        kms_error_clear(ret_err);
    }
}

/* ---- connecting --------------------------------------------------------------------------- */

/* @ns, less up to half of it: a fleet must not come back in step. */
static uint64_t jitter(uint64_t ns)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        random = 0;
    }
    return ns - (ns / 2) * random / UINT32_MAX;
}

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
        pause = jitter(pause);
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
static void break_locked(struct kms_p11_token *token, uint64_t generation,
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

/* ---- one attempt -------------------------------------------------------------------------- */

static enum kms_status gave_up(const struct kms_p11_ask *ask)
{
    if (ask->cancelled != NULL && atomic_load(ask->cancelled)) {
        return kms_error_set(ask->err, KMS_E_CANCELLED, "the caller gave up");
    }
    return KMS_OK;
}

/* False when the deadline passed. */
static bool wait_locked(struct kms_p11_token *token, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / KMS_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % KMS_NS_PER_S)};

    if (deadline_ns == KMS_DEADLINE_NONE) {
        return pthread_cond_wait(&token->changed, &token->lock) == 0;
    }
    return pthread_cond_timedwait(&token->changed, &token->lock, &until) == 0 ||
           !kms_deadline_passed(deadline_ns);
}

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

/* Connects, or waits for who connects; KMS_OK when the phase is UP. */
static enum kms_status be_up_locked(struct kms_p11_token *token, const struct kms_p11_ask *ask)
{
    while (token->phase != KMS_P11_UP) {
        if (token->phase == KMS_P11_CONNECTING) {
            if (!wait_locked(token, ask->deadline_ns)) {
                return say_timeout(token, ask->err);
            }
            continue;
        }
        if (!kms_deadline_passed(token->next_try_ns)) {
            *ask->err = token->cause;
            return token->cause.status;
        }
        connect_locked(token, ask);
        if (token->phase == KMS_P11_DOWN) {
            *ask->err = token->cause;
            return token->cause.status;
        }
    }
    return KMS_OK;
}

/* A slot of a connected token, with the connection's epoch and generation. */
static enum kms_status take(struct kms_p11_token *token, const struct kms_p11_ask *ask,
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
        if (!wait_locked(token, ask->deadline_ns)) {
            status = say_timeout(token, ask->err);
            break;
        }
    }
    pthread_mutex_unlock(&token->lock);
    return status;
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
    break_locked(p->token, p->generation, action, &cause);
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
            status = take(token, ask, &p, &epoch);
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
