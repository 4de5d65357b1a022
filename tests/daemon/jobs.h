/* SPDX-License-Identifier: Apache-2.0 */
/* Concurrent calls to the daemon: one thread and one connection each, one call. */
#ifndef KMSBRIDGE_TESTS_DAEMON_JOBS_H
#define KMSBRIDGE_TESTS_DAEMON_JOBS_H

#include <pthread.h>

#include "tests/daemon/fixture.h"

struct job {
    pthread_t thread;
    const struct fixture *fx;
    const struct fixture_sealed *decrypt; /* NULL: encrypts a fresh seed into `sealed` */
    uint64_t patience_ns;                 /* the client's deadline */
    struct fixture_sealed sealed;
    enum kms_status status;
    struct kms_error error;
    uint64_t took_ns; /* of the call, without the connecting */
};

/* Starts @count of them; exits when there are no threads. */
void jobs_start(struct job *jobs, size_t count, const struct fixture *fx,
                const struct fixture_sealed *decrypt, uint64_t patience_ns);
/* Waits for all; how many ended with @status. */
size_t jobs_join(struct job *jobs, size_t count, enum kms_status status);
void jobs_done(struct job *jobs, size_t count);

#endif
