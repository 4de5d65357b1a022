/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that come and go, each with a piece of work of its own, and are waited for at the end:
 * then they are really gone, with all that they had in libraries, and the process may end. One that
 * leaves joins the one that left before it, so that no more than one ended thread is kept.
 *
 * Ownership: the crew is its owner's, until kms_crew_wait() said true. Threads: all functions from
 * any.
 */
#ifndef KMSBRIDGE_CREW_H
#define KMSBRIDGE_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct kms_crew {
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t left;
    unsigned count;
    bool is_closed;
    bool has_last; /* the one that left last has not been joined */
    pthread_t last;
};

void kms_crew_init(struct kms_crew *crew);
void kms_crew_done(struct kms_crew *crew); /* nobody is in it */

/* A thread with all signals blocked, for @main, which ends by kms_crew_leave(). False: there is
 * none, or the crew is closed. */
bool kms_crew_start(struct kms_crew *crew, void *(*main)(void *), void *arg);
/* The last that such a thread does. */
void kms_crew_leave(struct kms_crew *crew);
/* Closes the crew: nobody is taken on any more. True when all have gone, false when somebody has
 * not by @deadline_ns. */
bool kms_crew_wait(struct kms_crew *crew, uint64_t deadline_ns);

/*
 * Of the calling thread, whoever's it is: when it is woken it lets whoever runs go on, who may be
 * about to finish what others wait for, too. Much fewer switches where many threads serve on few
 * CPUs. A hint, no privilege needed (sched(7), SCHED_BATCH).
 */
void kms_thread_rather_finish(void);

#endif
