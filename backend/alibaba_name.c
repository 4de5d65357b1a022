/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key that was just made gets its name, its alias. Without one it would be there, cost money and
 * be found by nobody: so the name has time of its own, whatever is left of the caller's, and a key
 * that cannot be named is scheduled for deletion, which can be taken back. Where that fails, too,
 * its KeyId is told, and logged.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"

#define NAMING_NS    (3 * KMS_NS_PER_S) /* at least, from when there is a key */
#define UNDO_NS      (2 * KMS_NS_PER_S) /* at least, from when there is no hope for a name */
#define PAUSE_MIN_NS (100 * KMS_NS_PER_MS)
#define PAUSE_MAX_NS KMS_NS_PER_S

/* For what is to be done even when the caller's time is over, or he gave up. */
static struct kms_call call_beyond(const struct kms_call *call, uint64_t at_least_ns)
{
    uint64_t deadline_ns = kms_deadline_in(at_least_ns);

    return (struct kms_call){.deadline_ns =
                                 call->deadline_ns > deadline_ns ? call->deadline_ns : deadline_ns,
                             .trace_id = call->trace_id};
}

static enum kms_status call_plainly(struct kms_backend *b, struct kms_call *call,
                                    const struct kms_ali_ask *ask)
{
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    enum kms_status status = kms_ali_call(b, call, ask, &reply);

    kms_ali_reply_done(call, &reply);
    return status;
}

/* What may be asked any number of times, until it goes well, or never will, or time is up. */
static enum kms_status insist(struct kms_backend *b, struct kms_call *call,
                              const struct kms_ali_ask *ask)
{
    for (uint64_t ceiling = PAUSE_MIN_NS;;
         ceiling = ceiling < PAUSE_MAX_NS / 2 ? 2 * ceiling : PAUSE_MAX_NS) {
        enum kms_status status = call_plainly(b, call, ask);
        uint64_t pause = kms_jitter(PAUSE_MIN_NS / 2, ceiling);
        struct timespec nap;

        pause = pause > call->error.retry_after_ns ? pause : call->error.retry_after_ns;
        if (!kms_status_is_transient(status) || kms_deadline_left(call->deadline_ns) <= pause) {
            return status;
        }
        nap = (struct timespec){.tv_sec = (time_t)(pause / KMS_NS_PER_S),
                                .tv_nsec = (long)(pause % KMS_NS_PER_S)};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        kms_error_clear(&call->error);
    }
}

static struct kms_ali_ask deletion_of(const struct kms_backend *b, const char *key, char days[16])
{
    struct kms_ali_ask ask = {.action = "ScheduleKeyDeletion"};

    (void)snprintf(days, 16, "%u", b->ali->deletion_days);
    kms_ali_param_text(&ask, "KeyId", key);
    kms_ali_param_text(&ask, "PendingWindowInDays", days);
    return ask;
}

enum kms_status kms_ali_schedule_deletion(struct kms_backend *b, struct kms_call *call,
                                          const char *key)
{
    char days[16];
    const struct kms_ali_ask ask = deletion_of(b, key, days);

    return call_plainly(b, call, &ask);
}

/* The call's error says why the key has no name. */
static enum kms_status give_up(struct kms_backend *b, struct kms_call *call, const char *key,
                               const char *alias)
{
    struct kms_call undo = call_beyond(call, UNDO_NS);
    char days[16];
    const struct kms_ali_ask ask = deletion_of(b, key, days);
    enum kms_status undone = insist(b, &undo, &ask);
    /* by a request whose answer was lost */
    bool is_leaving = undone == KMS_OK || strcmp(undo.error.code, "Rejected.PendingDeletion") == 0;
    enum kms_status status =
        kms_error_reword(&call->error, call->error.status,
                         "key %s was made, cannot be named %s, and is %s: %s", key, alias,
                         is_leaving ? "to be deleted again"
                                    : "still there: name it by CreateAlias, or delete it by "
                                      "ScheduleKeyDeletion",
                         call->error.text);

    kms_log_error(is_leaving ? KMS_LOG_WARN : KMS_LOG_ERROR, &call->error, "backend %s",
                  b->conf->name);
    if (!is_leaving) {
        kms_log_error(KMS_LOG_ERROR, &undo.error, "backend %s: key %s", b->conf->name, key);
    }
    return status;
}

/* An alias that is there already may be of a request whose answer was lost. */
static bool is_named(struct kms_backend *b, const struct kms_call *call, const char *key,
                     const char *alias)
{
    struct kms_call look = {.deadline_ns = call->deadline_ns, .trace_id = call->trace_id};
    struct kms_ali_key found;

    return kms_ali_describe(b, &look, alias, &found) == KMS_OK && strcmp(found.id, key) == 0;
}

enum kms_status kms_ali_name_key(struct kms_backend *b, struct kms_call *call, const char *key,
                                 const char *alias, bool move)
{
    struct kms_ali_ask ask = {.action = move ? "UpdateAlias" : "CreateAlias"};
    struct kms_call late = call_beyond(call, NAMING_NS);
    enum kms_status status = KMS_OK;

    kms_ali_param_text(&ask, "KeyId", key);
    kms_ali_param_text(&ask, "AliasName", alias);
    status = insist(b, &late, &ask);
    if (status == KMS_OK || (status == KMS_E_EXISTS && is_named(b, &late, key, alias))) {
        return KMS_OK;
    }
    call->error = late.error;
    return give_up(b, call, key, alias);
}
