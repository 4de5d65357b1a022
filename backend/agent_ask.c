/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request and its reply, and what is tried again:
 *
 *   nobody listens         waited for, with back-off, if an agent answered before in this process
 *                          (it is restarting); once a call has waited to its deadline in vain,
 * later ones fail at once until somebody listens again not read               the request was not
 * written whole, or the agent closed the connection with some of it unread (Linux then says
 * ECONNRESET, not end of file): it has not been done, so it is sent again whatever it is no reply
 * end of file after the request was read: it may have been done, so only what may be done twice is
 * sent again, LOST_MAX times, lest one request takes an agent down for ever deadline, bad frames
 * never; the connection is closed
 */
#include "backend/agent_parts.h"

#include <string.h>

#include "common/clock.h"

#define LOST_MAX    2
#define SPIN_NS     (50 * KMS_NS_PER_US)
#define SKIP_MIN    32 /* calls that do not try after one tried in vain; doubled each time */
#define SKIP_MAX    8192
#define TIMEOUT_MAX UINT64_C(3600000) /* ms, told to the agent */

/* ---- one attempt ---------------------------------------------------------------------------- */

/*
 * Waiting awake saves the two changes of context that sleeping costs, if the agent runs on another
 * processor meanwhile. When that is busy with something else, it only keeps the agent from running
 * on ours: so after a time in vain, many calls do not try.
 */
static uint64_t spin_ns(struct kms_agent *agent)
{
    uint32_t skip = atomic_load_explicit(&agent->spin_skip, memory_order_relaxed);
    unsigned open = 0;
    unsigned busy = 0;

    if (agent->cpus < 2) {
        return 0;
    }
    if (skip > 0) {
        atomic_store_explicit(&agent->spin_skip, skip - 1, memory_order_relaxed);
        return 0;
    }
    kms_agent_pool_count(&agent->pool, &open, &busy);
    return busy * 2 <= agent->cpus ? SPIN_NS : 0;
}

/* Threads race here; a count that is lost does no harm. */
static void note_spin(struct kms_agent *agent, uint64_t took_ns)
{
    uint32_t penalty = atomic_load_explicit(&agent->spin_penalty, memory_order_relaxed);

    if (took_ns > SPIN_NS) {
        penalty = penalty < SKIP_MIN ? SKIP_MIN : penalty * 2;
        penalty = penalty > SKIP_MAX ? SKIP_MAX : penalty;
        atomic_store_explicit(&agent->spin_skip, penalty, memory_order_relaxed);
    } else {
        penalty -= penalty / 64; /* forgiven slowly */
    }
    atomic_store_explicit(&agent->spin_penalty, penalty, memory_order_relaxed);
}

static uint32_t timeout_ms(const struct kms_agent_wait *wait)
{
    uint64_t ms = kms_deadline_left(wait->deadline_ns) / KMS_NS_PER_MS + 1;

    return (uint32_t)(ms < TIMEOUT_MAX ? ms : TIMEOUT_MAX);
}

static enum kms_agent_outcome io_failed(int error, bool whole, struct kms_error *err)
{
    switch (error) {
    case ETIMEDOUT:
        (void)kms_error_set(err, KMS_E_TIMEOUT, "the agent did not answer in time");
        return KMS_AGENT_FAILED;
    case ECANCELED:
        (void)kms_error_set(err, KMS_E_CANCELLED, "the caller gave up");
        return KMS_AGENT_FAILED;
    case EBADMSG:
    case ENOMEM:
        return KMS_AGENT_FAILED; /* said already */
    case KMS_AGENT_EOF:
        (void)kms_error_set(err, KMS_E_UNAVAILABLE, "the agent hung up instead of answering");
        return KMS_AGENT_LOST;
    default:
        (void)kms_error_set(err, KMS_E_UNAVAILABLE, "the connection to the agent broke: %s",
                            strerrordesc_np(error));
        return whole ? KMS_AGENT_LOST : KMS_AGENT_AGAIN;
    }
}

static enum kms_agent_outcome read_reply(struct kms_agent_ask *ask, struct kms_span body,
                                         struct kms_error *err)
{
    struct kms_agent_conn *conn = ask->conn;
    ProtobufCMessage *message = NULL;
    size_t need = 0;

    if (kms_agent_check(&kms__agent__reply__descriptor, body, &need, err) != KMS_OK ||
        kms_agent_conn_reserve(&conn->arena, need, err) != KMS_OK ||
        kms_agent_unpack_in(&kms__agent__reply__descriptor, body, &conn->arena, &message, err) !=
            KMS_OK) {
        return KMS_AGENT_FAILED;
    }
    ask->reply = (const Kms__Agent__Reply *)message;
    if (ask->reply->id != ask->request.id) {
        (void)kms_error_set(err, KMS_E_PROTOCOL, "the agent answered another request");
        return KMS_AGENT_FAILED;
    }
    return KMS_AGENT_GOOD;
}

/* Numbered, packed, and within what the agent will accept: it hangs up on what is not, and we would
 * try it again. */
static enum kms_status pack_request(struct kms_agent_ask *ask, const struct kms_agent_wait *wait,
                                    struct kms_error *err)
{
    struct kms_agent_conn *conn = ask->conn;
    struct kms_error wrong = KMS_ERROR_INIT;
    enum kms_status status;
    size_t need = 0;

    ask->request.id = ++conn->last_id;
    ask->request.timeout_ms = timeout_ms(wait);
    status = kms_agent_conn_pack(conn, &ask->request.base, err);
    if (status == KMS_OK && kms_agent_check(&kms__agent__request__descriptor,
                                            kms_span_of(conn->io.data + KMS_AGENT_HEADER,
                                                        conn->io.len - KMS_AGENT_HEADER),
                                            &need, &wrong) != KMS_OK) {
        status = kms_error_set(err, KMS_E_INVALID, "%s", wrong.text);
    }
    return status;
}

static enum kms_agent_outcome exchange(struct kms_agent *agent, struct kms_agent_ask *ask,
                                       const struct kms_agent_wait *wait, struct kms_error *err)
{
    struct kms_agent_conn *conn = ask->conn;
    struct kms_span body;
    uint64_t spin = spin_ns(agent);
    uint64_t sent_ns;
    int error;

    if (pack_request(ask, wait, err) != KMS_OK) {
        return KMS_AGENT_FAILED;
    }
    error = kms_agent_io_send(conn->fd, kms_buf_span(&conn->io), wait);
    if (error != 0) {
        return io_failed(error, false, err);
    }
    sent_ns = kms_now_ns();
    error = kms_agent_recv_frame(conn, spin, wait, &body, err);
    if (error != 0) {
        return io_failed(error, conn->io.len > 0 || error != ECONNRESET, err);
    }
    if (spin > 0) {
        note_spin(agent, kms_now_ns() - sent_ns);
    }
    return read_reply(ask, body, err);
}

static enum kms_agent_outcome attempt(struct kms_agent *agent, struct kms_agent_ask *ask,
                                      const struct kms_agent_wait *wait, bool *ret_stale,
                                      struct kms_error *err)
{
    enum kms_agent_outcome outcome = KMS_AGENT_GOOD;

    *ret_stale = false;
    if (kms_agent_pool_take(&agent->pool, wait, &ask->conn, err) != KMS_OK) {
        return KMS_AGENT_FAILED;
    }
    if (ask->conn->fd < 0) {
        outcome = kms_agent_open(agent, ask->conn, wait, err);
    }
    if (outcome == KMS_AGENT_GOOD) {
        outcome = exchange(agent, ask, wait, err);
        *ret_stale = outcome == KMS_AGENT_AGAIN && ask->conn->used;
    }
    if (outcome != KMS_AGENT_GOOD) {
        kms_agent_pool_give(&agent->pool, ask->conn, false);
        ask->conn = NULL;
        ask->reply = NULL;
    }
    return outcome;
}

/* ---- all attempts --------------------------------------------------------------------------- */

struct tries {
    unsigned pauses;
    unsigned lost;
};

static bool worth_another(struct kms_agent *agent, struct kms_agent_ask *ask,
                          enum kms_agent_outcome outcome, struct tries *tries)
{
    switch (outcome) {
    case KMS_AGENT_ABSENT:
        return atomic_load(&agent->reached) && !atomic_load(&agent->away);
    case KMS_AGENT_AGAIN:
        return true;
    case KMS_AGENT_LOST:
        ask->repeated = ask->repeat && tries->lost < LOST_MAX;
        tries->lost++;
        return ask->repeated;
    default:
        return false;
    }
}

/* False when the deadline comes first. */
static bool pause_before(struct kms_agent *agent, enum kms_agent_outcome outcome,
                         const struct kms_agent_wait *wait, struct tries *tries)
{
    if (kms_agent_io_pause(kms_agent_io_backoff(tries->pauses++), wait) == 0) {
        return true;
    }
    if (outcome == KMS_AGENT_ABSENT) {
        atomic_store(&agent->away, true);
    }
    return false;
}

static enum kms_agent_outcome try_all(struct kms_agent *agent, struct kms_agent_ask *ask,
                                      const struct kms_agent_wait *wait, struct kms_error *err)
{
    struct tries tries = {.pauses = 0};

    for (;;) {
        bool stale = false;
        enum kms_agent_outcome outcome = attempt(agent, ask, wait, &stale, err);

        if (outcome == KMS_AGENT_GOOD || !worth_another(agent, ask, outcome, &tries)) {
            return outcome;
        }
        /* a connection that was closed while it lay idle says nothing about the agent: the next is
         * taken, or made, at once; so it is when a reply was lost, but only the first time */
        if (!stale && !(outcome == KMS_AGENT_LOST && tries.lost == 1) &&
            !pause_before(agent, outcome, wait, &tries)) {
            return outcome;
        }
        (void)atomic_fetch_add(&agent->reconnects, 1);
        kms_error_clear(err);
    }
}

/* For health; an error that the agent itself reports about a key is not about the agent. */
static void note_end(struct kms_agent *agent, const struct kms_error *err)
{
    static const struct kms_error good = KMS_ERROR_INIT;

    (void)pthread_mutex_lock(&agent->lock);
    if (agent->last.status != KMS_OK || err != NULL) {
        agent->last = err == NULL ? good : *err;
    }
    (void)pthread_mutex_unlock(&agent->lock);
}

static enum kms_status take_error(struct kms_agent *agent, struct kms_agent_ask *ask,
                                  struct kms_error *err)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (ask->reply->error == NULL) {
        return KMS_OK;
    }
    kms_agent_get_error(ask->reply->error, &error);
    kms_agent_answered(agent, ask);
    if (error.status == KMS_OK) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the agent sent an error that is none");
    }
    *err = error;
    return error.status;
}

enum kms_status kms_agent_ask(struct kms_agent *agent, struct kms_call *call,
                              struct kms_agent_ask *ask)
{
    uint64_t mine = kms_deadline_in(agent->call_timeout_ns);
    const struct kms_agent_wait wait = {
        .deadline_ns = call->deadline_ns < mine ? call->deadline_ns : mine,
        .cancelled = call->cancelled,
    };
    enum kms_agent_outcome outcome;

    ask->conn = NULL;
    ask->reply = NULL;
    ask->repeated = false;
    if (kms_deadline_passed(wait.deadline_ns)) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT, "the deadline passed before the request");
    }
    outcome = try_all(agent, ask, &wait, &call->error);
    if (outcome != KMS_AGENT_GOOD) {
        note_end(agent, &call->error);
        return call->error.status;
    }
    note_end(agent, NULL);
    return take_error(agent, ask, &call->error);
}

void kms_agent_answered(struct kms_agent *agent, struct kms_agent_ask *ask)
{
    kms_agent_pool_give(&agent->pool, ask->conn, true);
    ask->conn = NULL;
    ask->reply = NULL;
}
