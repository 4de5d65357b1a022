/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cond.h"

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

bool kms_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline_ns / KMS_NS_PER_S),
                                   .tv_nsec = (long)(deadline_ns % KMS_NS_PER_S)};

    if (deadline_ns == KMS_DEADLINE_NONE) {
        return pthread_cond_wait(cond, mutex) == 0;
    }
    return pthread_cond_timedwait(cond, mutex, &until) == 0 || !kms_deadline_passed(deadline_ns);
}
