/* SPDX-License-Identifier: Apache-2.0 */
/* The door to libcurl: one thread with one multi handle; callers queue jobs and wait. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backend/rest/http_parts.h"
#include "backend/rest/wiping.h"
#include "common/clock.h"
#include "common/cond.h"
#include "common/secure.h"

#define POLL_MS       1000
#define CANCEL_NAP_NS (20 * KMS_NS_PER_MS) /* how often a waiting caller looks whether to go on */

/* ---- the loop's thread -------------------------------------------------------------------- */

static void unlink_job(struct kms_http_job **list, const struct kms_http_job *job)
{
    while (*list != NULL && *list != job) {
        list = &(*list)->next;
    }
    if (*list != NULL) {
        *list = job->next;
    }
}

static void drop_locked(struct kms_http_job *job, struct kms_http_job **ret_garbage)
{
    job->holders--;
    if (job->holders == 0) {
        job->next = *ret_garbage;
        *ret_garbage = job;
    }
}

static void free_all(struct kms_http_job *jobs)
{
    while (jobs != NULL) {
        struct kms_http_job *next = jobs->next;

        kms_http_job_free(jobs);
        jobs = next;
    }
}

/*
 * For the next exchange, or freed. What curl_easy_reset() leaves in a handle are the parts of its
 * last URL, and a query may hold what is to be encrypted.
 */
static void keep_or_free(struct kms_http *http, const struct kms_http_job *job)
{
    if (http->idle_count < KMS_HTTP_IDLE_MAX && strchr(job->url, '?') == NULL) {
        curl_easy_reset(job->easy);
        http->idle[http->idle_count++] = job->easy;
    } else {
        curl_easy_cleanup(job->easy);
    }
}

/* Hands a finished job, which is in no list any more, to its caller. */
static void hand_back(struct kms_http *http, struct kms_http_job *job)
{
    struct kms_http_job *garbage = NULL;

    if (job->easy != NULL) {
        keep_or_free(http, job);
        job->easy = NULL;
    }
    pthread_mutex_lock(&http->lock);
    unlink_job(&http->running, job);
    http->calls--;
    job->is_done = true;
    (void)pthread_cond_signal(&job->done);
    drop_locked(job, &garbage);
    pthread_mutex_unlock(&http->lock);
    free_all(garbage);
}

static void start(struct kms_http *http, struct kms_http_job *job)
{
    job->easy = http->idle_count > 0 ? http->idle[--http->idle_count] : curl_easy_init();
    if (job->easy == NULL) {
        job->status = kms_error_set(&job->error, KMS_E_NOMEM, "no memory for a request");
    } else {
        job->status = kms_http_job_set(http, job);
    }
    if (job->status == KMS_OK && curl_multi_add_handle(http->multi, job->easy) != CURLM_OK) {
        job->status = kms_error_set(&job->error, KMS_E_INTERNAL, "libcurl takes no request");
    }
    if (job->status != KMS_OK) {
        hand_back(http, job);
    }
}

/* Moves what is queued to the running ones; returns whether the loop is to go on. */
static bool start_queued(struct kms_http *http)
{
    for (;;) {
        struct kms_http_job *job = NULL;
        bool stop = false;

        pthread_mutex_lock(&http->lock);
        job = http->queue;
        if (job != NULL) {
            http->queue = job->next;
            job->next = http->running;
            http->running = job;
        }
        stop = http->stop;
        pthread_mutex_unlock(&http->lock);
        if (job == NULL) {
            return !stop;
        }
        start(http, job);
    }
}

static void finish_ready(struct kms_http *http)
{
    const CURLMsg *message = NULL;
    int left = 0;

    while ((message = curl_multi_info_read(http->multi, &left)) != NULL) {
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        struct kms_http_job *job = NULL;
        char *private = NULL;

        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private) != CURLE_OK) {
            continue;
        }
        job = (struct kms_http_job *)(void *)private;
        (void)curl_multi_remove_handle(http->multi, easy);
        kms_http_job_finish(job, code);
        hand_back(http, job);
    }
}

static struct kms_http_job *next_abandoned(struct kms_http *http)
{
    struct kms_http_job *job = NULL;

    pthread_mutex_lock(&http->lock);
    for (job = http->running; job != NULL && !job->is_abandoned; job = job->next) {
    }
    pthread_mutex_unlock(&http->lock);
    return job;
}

static void take_down_abandoned(struct kms_http *http)
{
    struct kms_http_job *job = NULL;

    while ((job = next_abandoned(http)) != NULL) {
        (void)curl_multi_remove_handle(http->multi, job->easy);
        hand_back(http, job);
    }
}

static void *loop(void *ctx)
{
    struct kms_http *http = ctx;
    int running = 0;

    while (start_queued(http)) {
        (void)curl_multi_perform(http->multi, &running);
        finish_ready(http);
        take_down_abandoned(http);
        (void)curl_multi_poll(http->multi, NULL, 0, POLL_MS, NULL);
    }
    return NULL;
}

/* ---- the callers -------------------------------------------------------------------------- */

static enum kms_status enqueue(struct kms_http *http, struct kms_http_job *job,
                               struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    struct kms_http_job **end = &http->queue;

    pthread_mutex_lock(&http->lock);
    if (http->calls >= http->calls_max) {
        status =
            kms_error_set(err, KMS_E_BUSY, "%u requests are on their way already", http->calls_max);
    } else {
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = job;
        http->calls++;
    }
    pthread_mutex_unlock(&http->lock);
    if (status == KMS_OK) {
        (void)curl_multi_wakeup(http->multi);
    }
    return status;
}

static bool gave_up(const struct kms_http_wait *wait)
{
    return wait->cancelled != NULL && atomic_load(wait->cancelled);
}

/* Until the job is done, too late or not wanted any more; with the lock. */
static void wait_locked(struct kms_http *http, struct kms_http_job *job,
                        const struct kms_http_wait *wait)
{
    /* libcurl's own timeout comes first, with a better text */
    uint64_t last = wait->deadline_ns > KMS_DEADLINE_NONE - 5 * KMS_NS_PER_MS
                        ? KMS_DEADLINE_NONE
                        : wait->deadline_ns + 5 * KMS_NS_PER_MS;

    while (!job->is_done && !gave_up(wait) && !kms_deadline_passed(last)) {
        uint64_t nap = wait->cancelled == NULL ? KMS_DEADLINE_NONE : kms_deadline_in(CANCEL_NAP_NS);

        (void)kms_cond_wait(&job->done, &http->lock, nap < last ? nap : last);
    }
}

static enum kms_status take_result(struct kms_http_job *job, struct kms_http_response *ret,
                                   struct kms_error *err)
{
    *ret = job->response; /* the body's memory goes along */
    job->response = (struct kms_http_response)KMS_HTTP_RESPONSE_INIT;
    if (job->status != KMS_OK) {
        (void)kms_error_set_code(err, job->error.status, job->error.code, "%s", job->error.text);
    }
    return job->status;
}

static enum kms_status perform(struct kms_http_door *door, const struct kms_http_request *request,
                               const struct kms_http_wait *wait, struct kms_http_response *ret,
                               struct kms_error *err)
{
    struct kms_http *http = (struct kms_http *)door;
    struct kms_http_job *job = NULL;
    struct kms_http_job *garbage = NULL;
    enum kms_status status = kms_http_job_new(http, request, wait, &job, err);

    if (status != KMS_OK) {
        return status;
    }
    status = enqueue(http, job, err);
    if (status != KMS_OK) {
        kms_http_job_free(job);
        return status;
    }
    pthread_mutex_lock(&http->lock);
    wait_locked(http, job, wait);
    if (job->is_done) {
        status = take_result(job, ret, err);
    } else {
        job->is_abandoned = true;
        ret->was_sent = true; /* as far as we know */
        status = gave_up(wait) ? kms_error_set(err, KMS_E_CANCELLED, "the caller gave up")
                               : kms_error_set(err, KMS_E_TIMEOUT, "no reply in time");
    }
    drop_locked(job, &garbage);
    pthread_mutex_unlock(&http->lock);
    if (garbage == NULL) {
        (void)curl_multi_wakeup(http->multi);
    }
    free_all(garbage);
    return status;
}

static void count(struct kms_http_door *door, unsigned *ret_open, unsigned *ret_busy,
                  unsigned *ret_max, uint64_t *ret_oldest_ns)
{
    struct kms_http *http = (struct kms_http *)door;
    uint64_t now = kms_now_ns();
    uint64_t oldest = now;

    pthread_mutex_lock(&http->lock);
    for (const struct kms_http_job *job = http->running; job != NULL; job = job->next) {
        oldest = job->start_ns < oldest ? job->start_ns : oldest;
    }
    *ret_busy = http->calls;
    pthread_mutex_unlock(&http->lock);
    *ret_open = atomic_load(&http->sockets);
    *ret_max = http->calls_max;
    *ret_oldest_ns = now - oldest;
}

/* ---- from open to close ------------------------------------------------------------------- */

static void free_http(struct kms_http *http)
{
    for (size_t i = 0; i < http->idle_count; i++) {
        curl_easy_cleanup(http->idle[i]);
    }
    if (http->multi != NULL) {
        (void)curl_multi_cleanup(http->multi);
    }
    (void)pthread_mutex_destroy(&http->lock);
    free(http->name);
    free(http->ca_file);
    free(http->client_certificate);
    free(http->client_key);
    free(http->server_name);
    free(http->proxy);
    free(http);
}

static void close_door(struct kms_http_door *door)
{
    struct kms_http *http = (struct kms_http *)door;

    pthread_mutex_lock(&http->lock);
    http->stop = true;
    pthread_mutex_unlock(&http->lock);
    (void)curl_multi_wakeup(http->multi);
    (void)pthread_join(http->thread, NULL);
    while (http->running != NULL) { /* abandoned after the loop's last look */
        (void)curl_multi_remove_handle(http->multi, http->running->easy);
        hand_back(http, http->running);
    }
    free_http(http);
}

static bool copy_text(char **ret, const char *text)
{
    *ret = text == NULL ? NULL : strdup(text);
    return text == NULL || *ret != NULL;
}

static bool copy_conf(struct kms_http *http, const struct kms_http_conf *conf)
{
    http->connections = conf->connections == 0 ? KMS_HTTP_CONNECTIONS : (long)conf->connections;
    http->calls_max = conf->calls == 0 ? KMS_HTTP_CALLS : conf->calls;
    http->connect_ns =
        conf->connect_timeout_ns == 0 ? KMS_HTTP_CONNECT_NS : conf->connect_timeout_ns;
    return copy_text(&http->name, conf->name) && copy_text(&http->ca_file, conf->ca_file) &&
           copy_text(&http->client_certificate, conf->client_certificate) &&
           copy_text(&http->client_key, conf->client_key) &&
           copy_text(&http->server_name, conf->server_name) && copy_text(&http->proxy, conf->proxy);
}

static bool make_multi(struct kms_http *http)
{
    http->multi = curl_multi_init();
    return http->multi != NULL &&
           curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, http->connections) ==
               CURLM_OK &&
           curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, 2 * http->connections) ==
               CURLM_OK &&
           curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX) ==
               CURLM_OK;
}

/* The process's signals are not for the loop. */
static bool start_thread(struct kms_http *http)
{
    sigset_t all;
    sigset_t before;
    bool ok = false;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    ok = pthread_create(&http->thread, NULL, loop, http) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

/* Whoever comes first in the process sets libcurl's allocator. */
static CURLcode global_code;
static void global_init(void)
{
    global_code = curl_global_init_mem(CURL_GLOBAL_DEFAULT, kms_wiping_malloc, kms_wiping_free,
                                       kms_wiping_realloc, kms_wiping_strdup, kms_wiping_calloc);
}

enum kms_status kms_http_open(const struct kms_http_conf *conf, struct kms_http_door **ret_door,
                              struct kms_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct kms_http *http = NULL;

    (void)pthread_once(&once, global_init);
    if (global_code != CURLE_OK || kms_secure_init() != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "libcurl or libsodium does not start");
    }
    if ((conf->client_certificate == NULL) != (conf->client_key == NULL)) {
        return kms_error_set(err, KMS_E_INVALID, "a client certificate needs its key");
    }
    http = calloc(1, sizeof(*http));
    if (http == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for HTTP");
    }
    http->door = (struct kms_http_door){.perform = perform, .close = close_door, .count = count};
    (void)pthread_mutex_init(&http->lock, NULL);
    if (!copy_conf(http, conf) || !make_multi(http) || !start_thread(http)) {
        free_http(http);
        return kms_error_set(err, KMS_E_NOMEM, "no memory or thread for HTTP");
    }
    *ret_door = &http->door;
    return KMS_OK;
}
