/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/daemon/jobs.h"

#include <stdlib.h>
#include <string.h>

static void *job_main(void *arg)
{
    struct job *job = arg;
    struct kms_v2_client *client = fixture_connect(job->fx);
    uint64_t began = fixture_now();

    if (client == NULL) {
        job->status = kms_error_set(&job->error, KMS_E_INTERNAL, "no connection");
        return NULL;
    }
    job->status = job->decrypt != NULL
                      ? fixture_decrypt(client, job->patience_ns, job->decrypt, &job->error)
                      : fixture_encrypt(client, job->patience_ns, &job->sealed, &job->error);
    job->took_ns = fixture_now() - began;
    kms_v2_client_close(client);
    return NULL;
}

void jobs_start(struct job *jobs, size_t count, const struct fixture *fx,
                const struct fixture_sealed *decrypt, uint64_t patience_ns)
{
    for (size_t i = 0; i < count; i++) {
        memset(&jobs[i], 0, sizeof(jobs[i]));
        jobs[i].fx = fx;
        jobs[i].decrypt = decrypt;
        jobs[i].patience_ns = patience_ns;
        if (pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]) != 0) {
            abort();
        }
    }
}

size_t jobs_join(struct job *jobs, size_t count, enum kms_status status)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(jobs[i].thread, NULL);
        n += jobs[i].status == status ? 1 : 0;
    }
    return n;
}

void jobs_done(struct job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kms_v2_sealed_done(&jobs[i].sealed.sealed);
    }
}
