/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <semaphore.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"
#include "kmsbridge/cork.h"
#include "kmsbridge/crew.h"

#define WORKER_STACK   (512u * 1024u)
#define WORKER_IDLE_NS (30 * KMS_NS_PER_S)

/* One of the threads that run calls; on its own stack. */
struct kms_rpc_worker {
    struct kms_rpc_worker *next; /* among the idle ones */
    struct kms_rpc *rpc;
    sem_t wake; /* posted once when it is taken out of the list of the idle */
    _Atomic(struct kms_rpc_call *) call; /* what for; NULL: to end */
};

/* --- workers --- */

static struct kms_rpc_call *work_pop_locked(struct kms_rpc *rpc)
{
    struct kms_rpc_call *call = rpc->queue_head;
    if (call != NULL) {
        rpc->queue_head = call->next;
        if (rpc->queue_head == NULL) {
            rpc->queue_tail = NULL;
        }
        call->next = NULL;
        rpc->queued--;
    }
    return call;
}

static void work_one(struct kms_rpc_call *call)
{
    call->place = KMS_RPC_ON_WORKER;
    kms_rpc_call_run(call);
    struct kms_rpc_call *followers = kms_rpc_same_leave(call);
    kms_rpc_followers_answer(followers, call);
    if (atomic_load(&call->rpc->calls_in_flight) > 1) {
        kms_rpc_call_hand_over(call);
    } else {
        /* Nobody else is served by waiting for the polling thread. The answer leaves when gRPC is
         * done with it: the client's next request would find its locks taken, and take a detour
         * over gRPC's executor. */
        kms_cork_begin();
        kms_rpc_call_send(call);
        kms_cork_end();
    }
}

/* An idle worker is taken out of the list to run @call. NULL: none is idle. */
static struct kms_rpc_worker *idle_take_locked(struct kms_rpc *rpc, struct kms_rpc_call *call)
{
    struct kms_rpc_worker *worker = rpc->idle;
    if (worker != NULL) {
        rpc->idle = worker->next;
        atomic_store(&worker->call, call);
    }
    return worker;
}

/* False: somebody else has taken it, and will post. */
static bool idle_leave(const struct kms_rpc_worker *self)
{
    struct kms_rpc *rpc = self->rpc;
    pthread_mutex_lock(&rpc->work_mutex);
    struct kms_rpc_worker **at = &rpc->idle;
    while (*at != NULL && *at != self) {
        at = &(*at)->next;
    }
    bool was_there = *at != NULL;
    if (was_there) {
        *at = self->next;
    }
    pthread_mutex_unlock(&rpc->work_mutex);
    return was_there;
}

/* Of one that is in the list of the idle. NULL: it is to end. */
static struct kms_rpc_call *wait_for_call(struct kms_rpc_worker *self)
{
    if (!kms_sem_wait(&self->wake, kms_deadline_in(WORKER_IDLE_NS))) {
        if (idle_leave(self)) {
            return NULL;
        }
        while (!kms_sem_wait(&self->wake, kms_deadline_in(WORKER_IDLE_NS))) {
        }
    }
    return atomic_load(&self->call);
}

static struct kms_rpc_call *next_call(struct kms_rpc_worker *self)
{
    struct kms_rpc *rpc = self->rpc;
    pthread_mutex_lock(&rpc->work_mutex);
    struct kms_rpc_call *call = work_pop_locked(rpc);
    bool waits = call == NULL && !atomic_load(&rpc->stopping);
    if (waits) {
        self->next = rpc->idle;
        rpc->idle = self;
    }
    pthread_mutex_unlock(&rpc->work_mutex);
    return waits ? wait_for_call(self) : call;
}

static void *worker_main(void *arg)
{
    struct kms_rpc_worker self = {.rpc = arg};
    struct kms_rpc_call *call = NULL;
    (void)sem_init(&self.wake, 0, 0);
    kms_thread_rather_finish(); /* the polling thread, which answers Status, comes first */
    while ((call = next_call(&self)) != NULL) {
        work_one(call);
    }
    (void)sem_destroy(&self.wake);
    pthread_mutex_lock(&self.rpc->work_mutex);
    self.rpc->workers--;
    pthread_cond_broadcast(&self.rpc->work_gone);
    pthread_mutex_unlock(&self.rpc->work_mutex);
    return NULL;
}

/* True once the last worker is gone; `stopping` is set. */
bool kms_rpc_workers_stop(struct kms_rpc *rpc, uint64_t deadline_ns)
{
    struct kms_rpc_worker *worker = NULL;
    pthread_mutex_lock(&rpc->work_mutex);
    while ((worker = idle_take_locked(rpc, NULL)) != NULL) {
        (void)sem_post(&worker->wake);
    }
    while (rpc->workers != 0 && !kms_deadline_passed(deadline_ns)) {
        (void)kms_cond_wait(&rpc->work_gone, &rpc->work_mutex, deadline_ns);
    }
    bool gone = rpc->workers == 0;
    pthread_mutex_unlock(&rpc->work_mutex);
    return gone;
}

bool kms_rpc_thread_start(void *(*main)(void *), void *arg, size_t stack)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (stack != 0) {
        pthread_attr_setstacksize(&attr, stack);
    }
    int error = pthread_create(&thread, &attr, main, arg);
    pthread_attr_destroy(&attr);
    return error == 0;
}

/* One more worker, if there may be one; the caller has counted it. False when there is none at all.
 */
static bool worker_start(struct kms_rpc *rpc)
{
    if (kms_rpc_thread_start(worker_main, rpc, WORKER_STACK)) {
        return true;
    }
    pthread_mutex_lock(&rpc->work_mutex);
    unsigned left = --rpc->workers;
    pthread_mutex_unlock(&rpc->work_mutex);
    kms_log(KMS_LOG_WARN, "rpc: cannot start another worker, %u run", left);
    return left != 0;
}

static void queue_push_locked(struct kms_rpc *rpc, struct kms_rpc_call *call)
{
    call->next = NULL;
    if (rpc->queue_tail != NULL) {
        rpc->queue_tail->next = call;
    } else {
        rpc->queue_head = call;
    }
    rpc->queue_tail = call;
    rpc->queued++;
}

/* False when it is not in the queue any more. */
static bool queue_remove_locked(struct kms_rpc *rpc, struct kms_rpc_call *call)
{
    struct kms_rpc_call *before = NULL;
    for (struct kms_rpc_call *at = rpc->queue_head; at != NULL; before = at, at = at->next) {
        if (at == call) {
            *(before != NULL ? &before->next : &rpc->queue_head) = at->next;
            rpc->queue_tail = rpc->queue_tail == at ? before : rpc->queue_tail;
            at->next = NULL;
            rpc->queued--;
            return true;
        }
    }
    return false;
}

/* False when the queue is full, or nobody is there to work on it. */
bool kms_rpc_work_push(struct kms_rpc *rpc, struct kms_rpc_call *call)
{
    pthread_mutex_lock(&rpc->work_mutex);
    struct kms_rpc_worker *worker = idle_take_locked(rpc, call);
    bool room = worker != NULL || rpc->queued < rpc->limits.queue;
    bool grow = worker == NULL && room && rpc->workers < rpc->limits.workers;
    if (worker == NULL && room) {
        queue_push_locked(rpc, call);
        rpc->workers += grow ? 1u : 0u;
    }
    pthread_mutex_unlock(&rpc->work_mutex);
    if (worker != NULL) {
        (void)sem_post(&worker->wake);
        return true;
    }
    if (!grow) {
        return room;
    }
    if (worker_start(rpc)) {
        return true;
    }
    /* not one worker: its pusher takes the call back, unless a worker came and has it */
    pthread_mutex_lock(&rpc->work_mutex);
    bool taken_back = queue_remove_locked(rpc, call);
    pthread_mutex_unlock(&rpc->work_mutex);
    return !taken_back;
}
