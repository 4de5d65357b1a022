/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cond.h"
#include "kmsbridge/cork.h"

#define GUARD_TICK_NS KMS_NS_PER_MS
#define GUARD_REST_NS (50 * KMS_NS_PER_MS) /* without inline work the guard sleeps */
#define RUNNABLE_NS   (10 * KMS_NS_PER_MS) /* as OVERRUN, for a thread that waits for a CPU only */
#define SPEED_WINDOW  32
#define ALONE_CALLS   16 /* in a row, before the next one is taken to be alone, too */
#define ALONE_NS      (3 * KMS_NS_PER_MS)

/* --- speed: inline or not --- */

static void speed_note(struct speed *speed, uint64_t ns)
{
    uint64_t least = atomic_load_explicit(&speed->window_min_ns, memory_order_relaxed);
    if (least == 0 || ns < least) {
        atomic_store_explicit(&speed->window_min_ns, ns, memory_order_relaxed);
        least = ns;
    }
    if (atomic_fetch_add_explicit(&speed->count, 1, memory_order_relaxed) + 1 >= SPEED_WINDOW) {
        atomic_store_explicit(&speed->estimate_ns, least, memory_order_relaxed);
        atomic_store_explicit(&speed->window_min_ns, 0, memory_order_relaxed);
        atomic_store_explicit(&speed->count, 0, memory_order_relaxed);
    }
}

/* An operation has been inside for @ns and is not back: slow, until a whole window says otherwise.
 */
static void speed_overrun(struct speed *speed, uint64_t ns)
{
    atomic_store_explicit(&speed->estimate_ns, ns, memory_order_relaxed);
    atomic_store_explicit(&speed->window_min_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&speed->count, 0, memory_order_relaxed);
}

bool kms_rpc_inline_now(struct kms_rpc *rpc, size_t method_index)
{
    return atomic_load_explicit(&rpc->speed[method_index].estimate_ns, memory_order_relaxed) <
           KMS_RPC_INLINE_NS;
}

bool kms_rpc_all_inline(struct kms_rpc *rpc)
{
    for (size_t i = 0; i < rpc->method_count; i++) {
        if (!kms_rpc_inline_now(rpc, i)) {
            return false;
        }
    }
    return true;
}

bool kms_rpc_any_alone(struct kms_rpc *rpc)
{
    return atomic_load(&rpc->alone) > ALONE_CALLS;
}

/*
 * Whether nobody is likely to need the polling thread but the caller of this operation, who is
 * served sooner if it is not handed to another thread and back. Not where the service is so slow
 * that the guard would have to step in each time.
 */
bool kms_rpc_alone(struct kms_rpc *rpc, size_t method_index)
{
    return kms_rpc_any_alone(rpc) &&
           atomic_load_explicit(&rpc->speed[method_index].estimate_ns, memory_order_relaxed) <
               KMS_RPC_OVERRUN_NS;
}

/* Runs the method; the reply is ready afterwards. */
void kms_rpc_call_run(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    uint64_t began = kms_now_ns();
    if (atomic_load(&call->cancelled)) {
        kms_rpc_reply_error(&call->reply, KMS_E_CANCELLED, "cancelled");
        return;
    }
    if (began >= call->request.deadline_ns) {
        kms_rpc_reply_error(&call->reply, KMS_E_TIMEOUT,
                            "the deadline passed while waiting for a worker");
        return;
    }
    if (!kms_rpc_reply_storage(call)) {
        kms_rpc_reply_error(&call->reply, KMS_E_NOMEM, "no memory for a reply");
        return;
    }
    call->method->run(rpc->ctx, &call->request, &call->reply);
    if (call->reply.status == KMS_OK) {
        speed_note(&rpc->speed[call->method_index], kms_now_ns() - began);
    }
}

static void guard_arm(struct kms_rpc *rpc)
{
    if (atomic_load(
            &rpc->guard_armed)) { /* ordered after inline_since_ns: see kms_rpc_guard_main() */
        return;
    }
    pthread_mutex_lock(&rpc->guard_mutex);
    atomic_store(&rpc->guard_armed, true);
    pthread_cond_signal(&rpc->guard_wake);
    pthread_mutex_unlock(&rpc->guard_mutex);
}

/* @limit_ns: when the guard steps in. */
static void run_inline(struct kms_rpc_call *call, uint64_t limit_ns)
{
    struct kms_rpc *rpc = call->rpc;
    unsigned epoch = atomic_load(&rpc->epoch);
    call->place = KMS_RPC_ON_POLLER;
    atomic_store(&rpc->inline_limit_ns, limit_ns);
    atomic_store(&rpc->inline_since_ns, call->arrived_ns);
    guard_arm(rpc);
    kms_rpc_call_run(call);
    kms_rpc_followers_answer(kms_rpc_same_leave(call), call);
    if (atomic_load(&rpc->epoch) == epoch) { /* else the guard has taken the polling away from us */
        atomic_store(&rpc->inline_since_ns, 0);
        atomic_store_explicit(&rpc->inline_ended_ns, kms_now_ns(), memory_order_relaxed);
    }
    kms_rpc_call_send(call);
}

void kms_rpc_call_run_inline(struct kms_rpc_call *call)
{
    run_inline(call, KMS_RPC_OVERRUN_NS);
}

void kms_rpc_call_run_alone(struct kms_rpc_call *call)
{
    run_inline(call, ALONE_NS);
}

/* Whether the polling thread waits for a CPU, or has one, and not for the key service (proc(5)). */
static bool poller_runnable(struct kms_rpc *rpc)
{
    char path[64];
    char text[128];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)atomic_load(&rpc->poller_tid));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *paren = strrchr(text, ')'); /* "TID (NAME) STATE ..." */
    return paren != NULL && strncmp(paren, ") R", 3) == 0;
}

static bool overruns(struct kms_rpc *rpc, uint64_t ns)
{
    return ns > RUNNABLE_NS || (ns > atomic_load(&rpc->inline_limit_ns) && !poller_runnable(rpc));
}

/* An inline operation overruns: polling goes on in another thread, operations to workers. */
static void guard_take_over(struct kms_rpc *rpc, uint64_t overrun_ns)
{
    for (size_t i = 0; i < rpc->method_count; i++) {
        if (!rpc->methods[i].instant && kms_rpc_inline_now(rpc, i)) { /* else it is known */
            speed_overrun(&rpc->speed[i], overrun_ns);
        }
    }
    atomic_store(&rpc->alone, 0);
    kms_cork_flush(); /* replies to earlier calls of its batch */
    atomic_store(&rpc->inline_since_ns, 0);
    unsigned epoch = atomic_fetch_add(&rpc->epoch, 1) + 1;
    if (!kms_rpc_poller_start(rpc, epoch)) {
        kms_rpc_poll_loop(rpc,
                          epoch); /* no thread to be had: then this one polls, and nobody guards */
    }
}

static bool rested(struct kms_rpc *rpc, uint64_t now)
{
    uint64_t ended = atomic_load(&rpc->inline_ended_ns);
    return ended < now && now - ended > GUARD_REST_NS;
}

void *kms_rpc_guard_main(void *arg)
{
    struct kms_rpc *rpc = arg;
    pthread_mutex_lock(&rpc->guard_mutex);
    while (!atomic_load(&rpc->stopping)) {
        if (!atomic_load(&rpc->guard_armed)) {
            pthread_cond_wait(&rpc->guard_wake, &rpc->guard_mutex);
            continue;
        }
        (void)kms_cond_wait(&rpc->guard_wake, &rpc->guard_mutex, kms_deadline_in(GUARD_TICK_NS));
        uint64_t now = kms_now_ns();
        uint64_t since = atomic_load(&rpc->inline_since_ns);
        if (since != 0 && since < now && overruns(rpc, now - since)) {
            pthread_mutex_unlock(&rpc->guard_mutex);
            guard_take_over(rpc, now - since);
            pthread_mutex_lock(&rpc->guard_mutex);
        } else if (since == 0 && rested(rpc, now)) {
            atomic_store(&rpc->guard_armed, false);
            /* an operation that began meanwhile may have taken us for armed */
            atomic_store(&rpc->guard_armed, atomic_load(&rpc->inline_since_ns) != 0);
        }
    }
    pthread_mutex_unlock(&rpc->guard_mutex);
    return NULL;
}
