/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cond.h"

#include <errno.h>
#include <time.h>

#include "common/clock.h"

void kms_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static struct timespec timespec_of(uint64_t deadline_ns)
{
    return (struct timespec){.tv_sec = (time_t)(deadline_ns / KMS_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % KMS_NS_PER_S)};
}

bool kms_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns)
{
    const struct timespec until = timespec_of(deadline_ns);

    if (deadline_ns == KMS_DEADLINE_NONE) {
        return pthread_cond_wait(cond, mutex) == 0;
    }
    return pthread_cond_timedwait(cond, mutex, &until) == 0 || !kms_deadline_passed(deadline_ns);
}

bool kms_sem_wait(sem_t *sem, uint64_t deadline_ns)
{
    const struct timespec until = timespec_of(deadline_ns);
    int failed = 0;

    do {
        failed = sem_clockwait(sem, CLOCK_MONOTONIC, &until);
    } while (failed != 0 && errno == EINTR);
    return failed == 0;
}
