/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/crew.h"

#include <sched.h>
#include <signal.h>

#include "common/cond.h"

#define STACK_SIZE (512u * 1024u) /* PKCS#11 modules run on it */

void kms_crew_init(struct kms_crew *crew)
{
    *crew = (struct kms_crew){.count = 0};
    pthread_mutex_init(&crew->mutex, NULL);
    kms_cond_init(&crew->left);
}

void kms_crew_done(struct kms_crew *crew)
{
    pthread_cond_destroy(&crew->left);
    pthread_mutex_destroy(&crew->mutex);
}

/* The signals that we wait for are the main thread's. */
static bool start_thread(void *(*main)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all;
    sigset_t before;
    int error = 0;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attr, main, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error == 0;
}

static void count_down_locked(struct kms_crew *crew)
{
    crew->count--;
    pthread_cond_broadcast(&crew->left);
}

bool kms_crew_start(struct kms_crew *crew, void *(*main)(void *), void *arg)
{
    bool may = false;

    pthread_mutex_lock(&crew->mutex);
    may = !crew->is_closed;
    crew->count += may ? 1u : 0u;
    pthread_mutex_unlock(&crew->mutex);
    if (may && !start_thread(main, arg)) {
        pthread_mutex_lock(&crew->mutex);
        count_down_locked(crew);
        pthread_mutex_unlock(&crew->mutex);
        may = false;
    }
    return may;
}

/* @next: who is to be joined after this one, NULL: nobody. */
static void join_last_and_unlock(struct kms_crew *crew, const pthread_t *next)
{
    bool has_last = crew->has_last;
    pthread_t last = has_last ? crew->last : pthread_self();

    crew->has_last = next != NULL;
    crew->last = next != NULL ? *next : last;
    pthread_mutex_unlock(&crew->mutex);
    if (has_last) {
        (void)pthread_join(last, NULL);
    }
}

void kms_crew_leave(struct kms_crew *crew)
{
    const pthread_t self = pthread_self();

    pthread_mutex_lock(&crew->mutex);
    count_down_locked(crew);
    join_last_and_unlock(crew, &self);
}

bool kms_crew_wait(struct kms_crew *crew, uint64_t deadline_ns)
{
    bool waits = true;

    pthread_mutex_lock(&crew->mutex);
    crew->is_closed = true;
    while (waits && crew->count > 0) {
        waits = kms_cond_wait(&crew->left, &crew->mutex, deadline_ns);
    }
    if (crew->count > 0) {
        pthread_mutex_unlock(&crew->mutex);
        return false;
    }
    join_last_and_unlock(crew, NULL);
    return true;
}

void kms_thread_rather_finish(void)
{
    const struct sched_param none = {.sched_priority = 0};

    if (sched_getscheduler(0) == SCHED_OTHER) { /* else an operator has chosen another policy */
        (void)sched_setscheduler(0, SCHED_BATCH, &none);
    }
}
