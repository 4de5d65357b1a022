/* SPDX-License-Identifier: Apache-2.0 */
/* Condition variables and semaphores on the monotonic clock, as kms_now_ns() has it. */
#ifndef KMS_COMMON_COND_H
#define KMS_COMMON_COND_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

void kms_cond_init(pthread_cond_t *cond);

/*
 * Waits for @cond until @deadline_ns; KMS_DEADLINE_NONE waits for ever. False when the deadline
 * passed. Wakes for nothing at times, as pthread_cond_wait() does: the caller looks again.
 */
bool kms_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns);

/*
 * sem_wait() until @deadline_ns, over signals. False when the deadline passed. ThreadSanitizer does
 * not see what sem_post() orders here: what goes along is atomic.
 */
bool kms_sem_wait(sem_t *sem, uint64_t deadline_ns);

#endif
