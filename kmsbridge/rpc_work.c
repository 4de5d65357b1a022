/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define WORKER_STACK   (512u * 1024u)
#define WORKER_IDLE_NS (30 * KMS_NS_PER_S)
#define WORKER_NICE    0 /* the polling thread, which answers Status, comes first */

/* --- workers --- */

void kms_rpc_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns)
{
    uint64_t due = kms_deadline_in(ns);
    struct timespec at = {.tv_sec = (time_t)(due / KMS_NS_PER_S),
                          .tv_nsec = (long)(due % KMS_NS_PER_S)};
    pthread_cond_timedwait(cond, mutex, &at);
}

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
    kms_rpc_call_hand_over(call);
}

static void *worker_main(void *arg)
{
    struct kms_rpc *rpc = arg;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE); /* a hint: it may fail */
    pthread_mutex_lock(&rpc->work_mutex);
    for (;;) {
        struct kms_rpc_call *call = work_pop_locked(rpc);
        if (call != NULL) {
            pthread_mutex_unlock(&rpc->work_mutex);
            work_one(call);
            pthread_mutex_lock(&rpc->work_mutex);
            continue;
        }
        if (atomic_load(&rpc->stopping)) {
            break;
        }
        uint64_t idle_since = kms_now_ns();
        rpc->workers_idle++;
        kms_rpc_cond_wait(&rpc->work_ready, &rpc->work_mutex, WORKER_IDLE_NS);
        rpc->workers_idle--;
        if (rpc->queue_head == NULL && kms_now_ns() - idle_since >= WORKER_IDLE_NS) {
            break;
        }
    }
    rpc->workers--;
    pthread_cond_broadcast(&rpc->work_gone);
    pthread_mutex_unlock(&rpc->work_mutex);
    return NULL;
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
    bool room = rpc->queued < rpc->limits.queue;
    bool grow = room && rpc->workers_idle <= rpc->queued && rpc->workers < rpc->limits.workers;
    if (room) {
        queue_push_locked(rpc, call);
        rpc->workers += grow ? 1u : 0u;
    }
    pthread_mutex_unlock(&rpc->work_mutex);
    if (!room) {
        return false;
    }
    if (!grow) {
        pthread_cond_signal(&rpc->work_ready);
        return true;
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
