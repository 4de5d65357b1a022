/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much one user may ask of the agent, and the agent of a key service: so many connections and
 * calls at a time, so many calls a second. Who is over the rate is refused at once, and told to
 * come back; who is over a number of calls waits for his turn until his deadline.
 *
 * Threads: all functions from any thread.
 */
#ifndef KMSBRIDGE_AGENT_LIMITS_H
#define KMSBRIDGE_AGENT_LIMITS_H

#include <pthread.h>
#include <sys/types.h>

#include "kmsbridge/agent_metrics.h"

struct kms_limits_conf {
    unsigned connections;
    unsigned connections_per_uid;
    unsigned calls_per_second; /* per uid; 0: no bound. As many may come at once after a pause */
    unsigned calls_per_uid;    /* at a time */
};

struct kms_limits;
struct kms_limits_uid; /* one user's account */

struct kms_limits *kms_limits_new(const struct kms_limits_conf *conf); /* NULL: no memory */
void kms_limits_free(struct kms_limits *limits);                       /* NULL is fine */
void kms_limits_configure(struct kms_limits *limits, const struct kms_limits_conf *conf);

/* A connection comes; left with kms_limits_leave(). KMS_E_BUSY, KMS_E_NOMEM. */
enum kms_status kms_limits_enter(struct kms_limits *limits, uid_t uid,
                                 struct kms_limits_uid **ret_account, enum kms_refusal *ret_refusal,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_limits_leave(struct kms_limits *limits, struct kms_limits_uid *account);

/* A call comes; ended with kms_limits_end(). KMS_E_THROTTLED (rate), KMS_E_BUSY (it waited until
 * its deadline). */
enum kms_status kms_limits_begin(struct kms_limits *limits, struct kms_limits_uid *account,
                                 uint64_t deadline_ns, enum kms_refusal *ret_refusal,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_limits_end(struct kms_limits *limits, struct kms_limits_uid *account);

/* Logins: after wrong PINs the next try has to wait, each time twice as long, up to 30 s.
 * KMS_E_THROTTLED. */
enum kms_status kms_limits_login(struct kms_limits *limits, struct kms_limits_uid *account,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_limits_logged_in(struct kms_limits *limits, struct kms_limits_uid *account, bool good);

/* Whether a refusal of his may have its line: ten a second, so that nobody fills a disk with what
 * he is not allowed. *ret_suppressed: how many had none since the last that had. */
bool kms_limits_may_note(struct kms_limits *limits, struct kms_limits_uid *account,
                         uint64_t *ret_suppressed);

struct kms_lane_waiter { /* on its caller's stack */
    struct kms_lane_waiter *next;
    pthread_cond_t let_in;
    unsigned max; /* after a reload others may have another bound */
    bool is_in;
};

/* The agent's share of a key service. Who waits is let in in turn, one for one that leaves. */
struct kms_lane {
    pthread_mutex_t mutex; /* guards the members below */
    unsigned busy;
    struct kms_lane_waiter *waiting; /* the first one first */
};
void kms_lane_init(struct kms_lane *lane);
void kms_lane_done(struct kms_lane *lane);
/* At most @max are in it. KMS_E_BUSY: there was no room until the deadline. */
enum kms_status kms_lane_take(struct kms_lane *lane, unsigned max, uint64_t deadline_ns,
                              struct kms_error *err) KMS_MUST_CHECK;
void kms_lane_leave(struct kms_lane *lane);

#endif
