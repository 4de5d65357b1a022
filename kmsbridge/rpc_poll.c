/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <grpc/support/time.h>

#include "common/clock.h"
#include "kmsbridge/cork.h"

#define POLL_ROUND_NS KMS_NS_PER_S
#define SLICE_NS      (100 * KMS_NS_PER_US) /* the least that Linux takes */

/* Calls answered before their replies leave together, while more are ready, and how long at most:
 * longer where the clients can only go on when we sleep. */
#define BATCH_CALLS  32
#define BATCH_NS     (400 * KMS_NS_PER_US)
#define BATCH_ONE_NS KMS_NS_PER_MS

/* Being put to sleep and woken costs both sides more than a short wait: after a call the next one
 * is waited for awake, if the client has another CPU to run on, and if that has paid of late. So
 * are the answers of many calls that are under way: fewer of them leave one by one. */
#define SPIN_NS    (50 * KMS_NS_PER_US)
#define SPIN_LUCK  16 /* so many times in vain, then only ... */
#define SPIN_RETRY 16 /* ... every so many calls */
#define SPIN_MANY  16 /* calls under way */

/* --- polling --- */

static gpr_timespec poll_until(void)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos((int64_t)POLL_ROUND_NS, GPR_TIMESPAN));
}

static void handle(struct kms_rpc *rpc, const struct tag *tag, bool ok)
{
    switch (tag->kind) {
    case TAG_ARRIVED:
        kms_rpc_call_arrived(tag->call, ok);
        break;
    case TAG_CLOSED:
        if (tag->call->was_cancelled) {
            atomic_store(&tag->call->cancelled, true);
            kms_rpc_same_abandon(tag->call);
        }
        kms_rpc_event_done(tag->call);
        break;
    case TAG_SENT:
        kms_rpc_event_done(tag->call);
        break;
    case TAG_WAKE:
        atomic_store(&rpc->wake_sent, false);
        kms_rpc_event_done(tag->call);
        break;
    case TAG_SHUTDOWN:
        atomic_store(&rpc->shut_down, true);
        break;
    }
}

/* Slots that could not be posted for want of memory: once a round, one more try each. */
static void post_missing(struct kms_rpc *rpc)
{
    for (size_t i = 0; i <= KMS_RPC_METHODS_MAX; i++) {
        if (rpc->missing[i] != 0 && !atomic_load(&rpc->stopping)) {
            rpc->missing[i]--;
            kms_rpc_slot_post(rpc, i < KMS_RPC_METHODS_MAX ? &rpc->methods[i] : NULL,
                              i < KMS_RPC_METHODS_MAX ? i : 0);
        }
    }
}

static grpc_event next_event(struct kms_rpc *rpc, gpr_timespec until)
{
    return grpc_completion_queue_next(rpc->queue, until, NULL);
}

/* The polling thread's memory of how waiting awake has paid. */
struct spin {
    unsigned vain;    /* times since it last did */
    unsigned skipped; /* waits since it was last tried */
};

static bool spin_wanted(struct kms_rpc *rpc, struct spin *spin)
{
    if (rpc->cpus < 2 || (!kms_rpc_all_inline(rpc) && !kms_rpc_any_alone(rpc) &&
                          atomic_load(&rpc->calls_in_flight) < SPIN_MANY)) {
        return false;
    }
    if (spin->vain < SPIN_LUCK) {
        return true;
    }
    spin->skipped = (spin->skipped + 1) % SPIN_RETRY;
    return spin->skipped == 0;
}

static bool is_answered(struct kms_rpc *rpc)
{
    return atomic_load(&rpc->answered) != NULL;
}

/* False: nothing came. What came is in *@ret_event, or among the answered. */
static bool spin_event(struct kms_rpc *rpc, struct spin *spin, grpc_event *ret_event)
{
    uint64_t end = kms_deadline_in(SPIN_NS);
    bool others = !kms_rpc_all_inline(rpc);
    bool came = false;
    do {
        *ret_event = next_event(rpc, gpr_inf_past(GPR_CLOCK_MONOTONIC));
        came = ret_event->type != GRPC_QUEUE_TIMEOUT || is_answered(rpc);
        if (!came && others) {
            (void)sched_yield(); /* to whoever has work for us */
        }
    } while (!came && !kms_deadline_passed(end));
    spin->vain = came ? 0 : spin->vain + 1;
    return came;
}

static grpc_event wait_event(struct kms_rpc *rpc, struct spin *spin)
{
    grpc_event event = {.type = GRPC_QUEUE_TIMEOUT};
    if (spin_wanted(rpc, spin) && spin_event(rpc, spin, &event)) {
        return event;
    }
    atomic_store(&rpc->poller_asleep, true);
    if (!is_answered(rpc)) { /* who answers after this sees us asleep */
        event = next_event(rpc, poll_until());
    }
    atomic_store(&rpc->poller_asleep, false);
    return event;
}

/*
 * @event and those that are ready behind it; returns what ended the batch.
 *
 * Its time begins again with a call that seemed to be alone, however long that has taken: who came
 * meanwhile has to be seen in this batch, before that caller has its answer and may come again.
 * Otherwise many callers would be taken for one, and served one after the other.
 */
static grpc_event handle_batch(struct kms_rpc *rpc, unsigned epoch, grpc_event event)
{
    const uint64_t batch_ns = rpc->cpus > 1 ? BATCH_NS : BATCH_ONE_NS;
    uint64_t limit = kms_deadline_in(batch_ns);
    unsigned calls = 0;
    kms_cork_begin();
    kms_rpc_answered_send(rpc);
    while (event.type == GRPC_OP_COMPLETE) {
        const struct tag *tag = event.tag;
        calls += tag->kind == TAG_ARRIVED ? 1 : 0;
        if (calls > 1) {
            atomic_store(&rpc->alone, 0);
        }
        handle(rpc, tag, event.success != 0);
        kms_rpc_answered_send(rpc);
        if (kms_rpc_any_alone(rpc)) {
            limit = kms_deadline_in(batch_ns);
        }
        if (calls >= BATCH_CALLS || kms_now_ns() >= limit || atomic_load(&rpc->epoch) != epoch) {
            event.type = GRPC_QUEUE_TIMEOUT;
        } else {
            event = next_event(rpc, gpr_inf_past(GPR_CLOCK_MONOTONIC));
        }
    }
    kms_cork_end();
    return event;
}

/*
 * A short slice: Linux from 6.12 on (EEVDF) then lets this thread run before those that have the
 * usual one of some milliseconds, whenever it wakes; no privilege needed. A hint: older kernels
 * refuse or ignore it.
 */
static void ask_slice(uint64_t ns)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr = {.size = sizeof attr,
              .policy = SCHED_OTHER,
              .nice = getpriority(PRIO_PROCESS, (id_t)gettid()),
              .runtime = ns};
    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* Until gRPC's queue is shut down, or another thread polls in a newer epoch. */
void kms_rpc_poll_loop(struct kms_rpc *rpc, unsigned epoch)
{
    struct spin spin = {.vain = 0};
    atomic_store(&rpc->poller_tid, gettid());
    uint64_t slice = 0;
    while (atomic_load(&rpc->epoch) == epoch) {
        uint64_t wanted = kms_rpc_all_inline(rpc) ? SLICE_NS : 0;
        if (slice != wanted) {
            slice = wanted;
            ask_slice(slice);
        }
        atomic_store_explicit(&rpc->polled_ns, kms_now_ns(), memory_order_relaxed);
        grpc_event event = handle_batch(rpc, epoch, wait_event(rpc, &spin));
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            break;
        }
        post_missing(rpc);
    }
}

struct poller {
    struct kms_rpc *rpc;
    unsigned epoch;
};

static void *poller_main(void *arg)
{
    struct poller poller = *(struct poller *)arg;
    free(arg);
    kms_rpc_poll_loop(poller.rpc, poller.epoch);
    atomic_fetch_sub(&poller.rpc->pollers_alive, 1);
    return NULL;
}

/* Another polling thread, for @epoch. False when there is none to be had. */
bool kms_rpc_poller_start(struct kms_rpc *rpc, unsigned epoch)
{
    struct poller *poller = malloc(sizeof *poller);
    if (poller == NULL) {
        return false;
    }
    *poller = (struct poller){.rpc = rpc, .epoch = epoch};
    atomic_fetch_add(&rpc->pollers_alive, 1);
    if (!kms_rpc_thread_start(poller_main, poller, 0)) {
        atomic_fetch_sub(&rpc->pollers_alive, 1);
        free(poller);
        return false;
    }
    return true;
}
