/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_limits.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/cond.h"

#define NOTES_PER_SECOND   10
#define LOGIN_PAUSE_NS     KMS_NS_PER_S
#define LOGIN_PAUSE_MAX_NS (30 * KMS_NS_PER_S)

struct kms_limits_uid {
    struct kms_limits_uid *next;
    uid_t uid;
    unsigned connections;
    unsigned calls;
    uint64_t due_ns; /* when a call of an even stream would come: GCRA's theoretical arrival time */
    uint64_t login_from_ns;
    uint64_t login_pause_ns;
    uint64_t note_due_ns; /* as due_ns, of notes about refusals */
    uint64_t suppressed;
    pthread_cond_t left; /* a call of his */
};

struct kms_limits {
    pthread_mutex_t mutex; /* guards all below */
    struct kms_limits_conf conf;
    unsigned connections;
    struct kms_limits_uid *accounts;
};

struct kms_limits *kms_limits_new(const struct kms_limits_conf *conf)
{
    struct kms_limits *limits = calloc(1, sizeof(*limits));

    if (limits != NULL) {
        pthread_mutex_init(&limits->mutex, NULL);
        limits->conf = *conf;
    }
    return limits;
}

static void account_free(struct kms_limits_uid *account)
{
    pthread_cond_destroy(&account->left);
    free(account);
}

void kms_limits_free(struct kms_limits *limits)
{
    if (limits != NULL) {
        while (limits->accounts != NULL) {
            struct kms_limits_uid *account = limits->accounts;

            limits->accounts = account->next;
            account_free(account);
        }
        pthread_mutex_destroy(&limits->mutex);
        free(limits);
    }
}

void kms_limits_configure(struct kms_limits *limits, const struct kms_limits_conf *conf)
{
    pthread_mutex_lock(&limits->mutex);
    limits->conf = *conf;
    for (struct kms_limits_uid *a = limits->accounts; a != NULL; a = a->next) {
        pthread_cond_broadcast(&a->left);
    }
    pthread_mutex_unlock(&limits->mutex);
}

/* --- connections ------------------------------------------------------------------------------
 */

/* Accounts outlive their connections while they remember something; then they go. */
static void sweep_locked(struct kms_limits *limits)
{
    struct kms_limits_uid **link = &limits->accounts;
    uint64_t now = kms_now_ns();

    while (*link != NULL) {
        struct kms_limits_uid *account = *link;

        if (account->connections == 0 && account->due_ns <= now && account->login_from_ns <= now &&
            account->note_due_ns <= now) {
            *link = account->next;
            account_free(account);
        } else {
            link = &account->next;
        }
    }
}

static struct kms_limits_uid *find_locked(struct kms_limits *limits, uid_t uid)
{
    struct kms_limits_uid *account = limits->accounts;

    while (account != NULL && account->uid != uid) {
        account = account->next;
    }
    if (account != NULL) {
        return account;
    }
    sweep_locked(limits);
    account = calloc(1, sizeof(*account));
    if (account != NULL) {
        account->uid = uid;
        kms_cond_init(&account->left);
        account->next = limits->accounts;
        limits->accounts = account;
    }
    return account;
}

static enum kms_status enter_locked(struct kms_limits *limits, uid_t uid,
                                    struct kms_limits_uid **ret_account,
                                    enum kms_refusal *ret_refusal, struct kms_error *err)
{
    struct kms_limits_uid *account = NULL;

    if (limits->connections >= limits->conf.connections) {
        *ret_refusal = KMS_REFUSAL_CONNECTIONS;
        return kms_error_set(err, KMS_E_BUSY, "the agent has its %u connections (max_connections)",
                             limits->conf.connections);
    }
    account = find_locked(limits, uid);
    if (account == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    if (account->connections >= limits->conf.connections_per_uid) {
        *ret_refusal = KMS_REFUSAL_UID_CONNECTIONS;
        return kms_error_set(err, KMS_E_BUSY,
                             "uid %ld has its %u connections (max_connections_per_uid)", (long)uid,
                             limits->conf.connections_per_uid);
    }
    account->connections++;
    limits->connections++;
    *ret_account = account;
    return KMS_OK;
}

enum kms_status kms_limits_enter(struct kms_limits *limits, uid_t uid,
                                 struct kms_limits_uid **ret_account, enum kms_refusal *ret_refusal,
                                 struct kms_error *err)
{
    enum kms_status status;

    pthread_mutex_lock(&limits->mutex);
    status = enter_locked(limits, uid, ret_account, ret_refusal, err);
    pthread_mutex_unlock(&limits->mutex);
    return status;
}

void kms_limits_leave(struct kms_limits *limits, struct kms_limits_uid *account)
{
    pthread_mutex_lock(&limits->mutex);
    account->connections--;
    limits->connections--;
    pthread_mutex_unlock(&limits->mutex);
}

/* --- calls ------------------------------------------------------------------------------------
 */

/* GCRA: an even stream at the rate, which may be ahead of itself by one second. */
static bool take(uint64_t *due_ns, unsigned per_second)
{
    uint64_t now = kms_now_ns();
    uint64_t due = *due_ns > now ? *due_ns : now;

    due += KMS_NS_PER_S / per_second;
    if (due - now > KMS_NS_PER_S) {
        return false;
    }
    *due_ns = due;
    return true;
}

bool kms_limits_may_note(struct kms_limits *limits, struct kms_limits_uid *account,
                         uint64_t *ret_suppressed)
{
    bool may = false;

    pthread_mutex_lock(&limits->mutex);
    may = take(&account->note_due_ns, NOTES_PER_SECOND);
    *ret_suppressed = may ? account->suppressed : 0;
    account->suppressed = may ? 0 : account->suppressed + 1;
    pthread_mutex_unlock(&limits->mutex);
    return may;
}

static enum kms_status begin_locked(struct kms_limits *limits, struct kms_limits_uid *account,
                                    uint64_t deadline_ns, enum kms_refusal *ret_refusal,
                                    struct kms_error *err)
{
    bool waits = true;

    if (limits->conf.calls_per_second != 0 &&
        !take(&account->due_ns, limits->conf.calls_per_second)) {
        *ret_refusal = KMS_REFUSAL_RATE;
        return kms_error_set(err, KMS_E_THROTTLED,
                             "uid %ld is over its %u calls a second (calls_per_second)",
                             (long)account->uid, limits->conf.calls_per_second);
    }
    while (waits && account->calls >= limits->conf.calls_per_uid) {
        waits = kms_cond_wait(&account->left, &limits->mutex, deadline_ns);
    }
    if (account->calls >= limits->conf.calls_per_uid) {
        *ret_refusal = KMS_REFUSAL_CONCURRENCY;
        return kms_error_set(err, KMS_E_BUSY,
                             "uid %ld has its %u calls at a time (concurrent_calls_per_uid)",
                             (long)account->uid, limits->conf.calls_per_uid);
    }
    account->calls++;
    return KMS_OK;
}

enum kms_status kms_limits_begin(struct kms_limits *limits, struct kms_limits_uid *account,
                                 uint64_t deadline_ns, enum kms_refusal *ret_refusal,
                                 struct kms_error *err)
{
    enum kms_status status;

    pthread_mutex_lock(&limits->mutex);
    status = begin_locked(limits, account, deadline_ns, ret_refusal, err);
    pthread_mutex_unlock(&limits->mutex);
    return status;
}

void kms_limits_end(struct kms_limits *limits, struct kms_limits_uid *account)
{
    pthread_mutex_lock(&limits->mutex);
    account->calls--;
    pthread_cond_signal(&account->left);
    pthread_mutex_unlock(&limits->mutex);
}

/* --- logins -----------------------------------------------------------------------------------
 */

enum kms_status kms_limits_login(struct kms_limits *limits, struct kms_limits_uid *account,
                                 struct kms_error *err)
{
    uint64_t from = 0;

    pthread_mutex_lock(&limits->mutex);
    from = account->login_from_ns;
    if (kms_deadline_passed(from)) {
        /* taken until the verdict is in: tries at the same time are no more tries */
        account->login_from_ns = kms_deadline_in(LOGIN_PAUSE_NS);
    }
    pthread_mutex_unlock(&limits->mutex);
    if (!kms_deadline_passed(from)) {
        return kms_error_set(err, KMS_E_THROTTLED,
                             "after a wrong PIN the next try must wait; some seconds at most");
    }
    return KMS_OK;
}

void kms_limits_logged_in(struct kms_limits *limits, struct kms_limits_uid *account, bool good)
{
    pthread_mutex_lock(&limits->mutex);
    if (good) {
        account->login_pause_ns = 0;
        account->login_from_ns = 0;
    } else {
        uint64_t pause =
            account->login_pause_ns == 0 ? LOGIN_PAUSE_NS : account->login_pause_ns * 2;

        account->login_pause_ns = pause > LOGIN_PAUSE_MAX_NS ? LOGIN_PAUSE_MAX_NS : pause;
        account->login_from_ns = kms_deadline_in(account->login_pause_ns);
    }
    pthread_mutex_unlock(&limits->mutex);
}

/* --- the lane ---------------------------------------------------------------------------------
 */

void kms_lane_init(struct kms_lane *lane)
{
    pthread_mutex_init(&lane->mutex, NULL);
    lane->busy = 0;
    lane->waiting = NULL;
}

void kms_lane_done(struct kms_lane *lane)
{
    pthread_mutex_destroy(&lane->mutex);
}

static void let_in_locked(struct kms_lane *lane)
{
    struct kms_lane_waiter **at = &lane->waiting;

    while (*at != NULL) {
        struct kms_lane_waiter *waiter = *at;

        if (lane->busy < waiter->max) {
            *at = waiter->next;
            lane->busy++;
            waiter->is_in = true;
            pthread_cond_signal(&waiter->let_in);
        } else {
            at = &waiter->next;
        }
    }
}

/* False: there was no room until the deadline. */
static bool wait_locked(struct kms_lane *lane, unsigned max, uint64_t deadline_ns)
{
    struct kms_lane_waiter self = {.max = max};
    struct kms_lane_waiter **at = &lane->waiting;
    bool waits = true;

    kms_cond_init(&self.let_in);
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = &self;
    while (!self.is_in && waits) {
        waits = kms_cond_wait(&self.let_in, &lane->mutex, deadline_ns);
    }
    if (!self.is_in) {
        for (at = &lane->waiting; *at != &self; at = &(*at)->next) {
        }
        *at = self.next;
    }
    pthread_cond_destroy(&self.let_in);
    return self.is_in;
}

enum kms_status kms_lane_take(struct kms_lane *lane, unsigned max, uint64_t deadline_ns,
                              struct kms_error *err)
{
    bool room = false;

    pthread_mutex_lock(&lane->mutex);
    room = lane->busy < max;
    if (room) {
        lane->busy++;
    } else {
        room = wait_locked(lane, max, deadline_ns);
    }
    pthread_mutex_unlock(&lane->mutex);
    return room ? KMS_OK
                : kms_error_set(err, KMS_E_BUSY,
                                "the agent has its %u calls in the key service; others are kept "
                                "for the KMS plugin",
                                max);
}

void kms_lane_leave(struct kms_lane *lane)
{
    pthread_mutex_lock(&lane->mutex);
    lane->busy--;
    let_in_locked(lane);
    pthread_mutex_unlock(&lane->mutex);
}
