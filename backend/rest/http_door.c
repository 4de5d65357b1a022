/* SPDX-License-Identifier: Apache-2.0 */
/* The door to libcurl: which loop an exchange goes through, and how many may be on their way. */
#include <stdlib.h>
#include <string.h>

#include "backend/rest/http_parts.h"
#include "backend/rest/wiping.h"
#include "common/clock.h"
#include "common/secure.h"

/* ---- which loop --------------------------------------------------------------------------- */

/* What is known of @host; NULL: nothing. */
static struct kms_http_host *find_host(struct kms_http *http, uint64_t host)
{
    size_t count = http->host_count < KMS_HTTP_HOSTS ? http->host_count : KMS_HTTP_HOSTS;

    for (size_t i = 0; i < count; i++) {
        if (http->hosts[i].host == host) {
            return &http->hosts[i];
        }
    }
    return NULL;
}

void kms_http_learn_locked(struct kms_http *http, const struct kms_http_job *job)
{
    struct kms_http_host *host = find_host(http, job->host);

    if (job->http_version == 0) {
        return;
    }
    if (host == NULL) {
        host = &http->hosts[http->host_count++ % KMS_HTTP_HOSTS];
    }
    host->host = job->host;
    host->is_http2 = job->http_version >= CURL_HTTP_VERSION_2_0;
}

static bool wants_own(const struct kms_http_job *job)
{
    return job->request.once || job->request.fresh;
}

/*
 * May @job join those who are in @loop already? A loop has one connection to a host: over HTTP/1 it
 * would wait for all of them. Nor one whose connection may be dead: HTTP/1 closes a connection
 * after an exchange that ran out of time, but an HTTP/2 one would take all who come down with it
 * until TCP gives up, after a quarter of an hour (tcp_retries2 in tcp(7)).
 */
static bool may_join(struct kms_http *http, const struct kms_http_loop *loop,
                     const struct kms_http_job *job)
{
    const struct kms_http_host *host = find_host(http, job->host);

    return host != NULL && host->is_http2 && loop->host == job->host && !loop->is_alone &&
           !loop->is_doubtful && !wants_own(job) && loop->jobs < KMS_HTTP_STREAMS;
}

/*
 * One that others are in, where they can share a connection; else one that nobody is in, the first
 * ones first: their connections are the most likely to be open still. NULL: none now.
 */
static struct kms_http_loop *choose(struct kms_http *http, const struct kms_http_job *job)
{
    struct kms_http_loop *empty = NULL;

    for (unsigned i = 0; i < http->loop_count; i++) {
        struct kms_http_loop *loop = &http->loops[i];

        if (loop->jobs > 0 && may_join(http, loop, job)) {
            return loop;
        }
        if (loop->jobs == 0 && empty == NULL) {
            empty = loop;
        }
    }
    return empty;
}

static void push(struct kms_http_job **list, struct kms_http_job *job)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    job->next = NULL;
    *list = job;
}

/* Those who wait get loops in the order in which they came. */
static void assign_locked(struct kms_http *http)
{
    struct kms_http_job *job = NULL;

    while ((job = http->waiting) != NULL) {
        struct kms_http_loop *loop = choose(http, job);

        if (loop == NULL) {
            return;
        }
        http->waiting = job->next;
        loop->is_alone = wants_own(job);
        loop->host = job->host;
        job->is_fresh = wants_own(job) || loop->is_doubtful;
        loop->is_doubtful = false;
        loop->jobs++;
        job->loop = loop;
        push(&loop->queue, job);
        kms_http_tell(job);
    }
}

void kms_http_left_locked(struct kms_http *http)
{
    http->calls--;
    assign_locked(http);
}

/* Its caller has given up before there was a loop for it. */
static void withdraw_locked(struct kms_http *http, const struct kms_http_job *job)
{
    struct kms_http_job **at = &http->waiting;

    while (*at != job) {
        at = &(*at)->next;
    }
    *at = job->next;
    kms_http_left_locked(http); /* those behind it may have waited for it alone */
}

/* ---- the callers -------------------------------------------------------------------------- */

static enum kms_status enter(struct kms_http *http, struct kms_http_job *job, struct kms_error *err)
{
    bool is_full = false;

    pthread_mutex_lock(&http->lock);
    is_full = http->calls >= http->calls_max;
    if (!is_full) {
        http->calls++;
        push(&http->waiting, job);
        assign_locked(http);
    }
    pthread_mutex_unlock(&http->lock);
    return !is_full ? KMS_OK
                    : kms_error_set(err, KMS_E_BUSY, "%u requests are on their way already",
                                    http->calls_max);
}

/* Until the job has a loop; false when its caller has given up. */
static bool wait_for_loop(struct kms_http *http, struct kms_http_job *job,
                          const struct kms_http_wait *wait)
{
    bool has_loop = false;

    for (;;) {
        bool late = kms_http_gave_up(wait);

        pthread_mutex_lock(&http->lock);
        has_loop = job->loop != NULL;
        if (late && !has_loop) {
            withdraw_locked(http, job);
        }
        pthread_mutex_unlock(&http->lock);
        if (late || has_loop) {
            return has_loop;
        }
        (void)kms_http_nap(job, wait);
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

/* Who never had a loop has asked nothing: that is our own bound, not the service's being slow. */
static enum kms_status give_up(const struct kms_http *http, const struct kms_http_wait *wait,
                               bool had_loop, struct kms_error *err)
{
    if (wait->cancelled != NULL && atomic_load(wait->cancelled)) {
        return kms_error_set(err, KMS_E_CANCELLED, "the caller gave up");
    }
    return had_loop ? kms_error_set(err, KMS_E_TIMEOUT, "no reply in time")
                    : kms_error_set(err, KMS_E_BUSY, "none of %u connections was free in time",
                                    http->loop_count);
}

static enum kms_status perform(struct kms_http_door *door, const struct kms_http_request *request,
                               const struct kms_http_wait *wait, struct kms_http_response *ret,
                               struct kms_error *err)
{
    struct kms_http *http = (struct kms_http *)door;
    struct kms_http_job *job = NULL;
    enum kms_http_end ended = KMS_HTTP_ANSWERED;
    uint64_t began_ns = 0;
    enum kms_status status = kms_http_job_new(http, request, wait, &job, err);

    if (status != KMS_OK) {
        return status;
    }
    status = enter(http, job, err);
    if (status == KMS_OK) {
        bool has_loop = wait_for_loop(http, job, wait);

        began_ns = has_loop ? kms_now_ns() : 0;
        ended = has_loop ? kms_http_loop_wait(http, job, wait) : KMS_HTTP_GIVEN_UP;
    }
    if (ended == KMS_HTTP_LEFT) {
        ret->began_ns = began_ns;
        ret->was_sent = true; /* as far as we know; the job is its loop's */
        return give_up(http, wait, true, err);
    }
    if (status == KMS_OK && ended == KMS_HTTP_GIVEN_UP) {
        ret->was_sent = job->response.was_sent;
        status = give_up(http, wait, began_ns != 0, err);
    } else if (status == KMS_OK) {
        status = take_result(job, ret, err);
    }
    ret->began_ns = began_ns;
    kms_http_job_free(job);
    return status;
}

static uint64_t oldest_of(const struct kms_http_job *jobs, uint64_t oldest)
{
    for (; jobs != NULL; jobs = jobs->next) {
        oldest = jobs->start_ns < oldest ? jobs->start_ns : oldest;
    }
    return oldest;
}

static void count(struct kms_http_door *door, unsigned *ret_open, unsigned *ret_busy,
                  unsigned *ret_max, uint64_t *ret_oldest_ns)
{
    struct kms_http *http = (struct kms_http *)door;
    uint64_t now = kms_now_ns();
    uint64_t oldest = now;

    pthread_mutex_lock(&http->lock);
    for (unsigned i = 0; i < http->loop_count; i++) {
        oldest = oldest_of(http->loops[i].running, oldest);
    }
    *ret_busy = http->calls;
    pthread_mutex_unlock(&http->lock);
    *ret_open = atomic_load(&http->sockets);
    *ret_max = http->calls_max;
    *ret_oldest_ns = now - oldest;
}

/* ---- from open to close ------------------------------------------------------------------- */

/* Never more connections than can be noted: for one more, libcurl closes the one that has been idle
 * longest. Only one is ever busy, since all who are in a loop at once are for one host. */
CURLM *kms_http_multi_new(void)
{
    CURLM *multi = curl_multi_init();

    if (multi == NULL || curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, 1L) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)KMS_RECEIVED_MAX) !=
            CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX) != CURLM_OK) {
        (void)curl_multi_cleanup(multi);
        return NULL;
    }
    return multi;
}

static void close_door(struct kms_http_door *door)
{
    struct kms_http *http = (struct kms_http *)door;

    for (unsigned i = 0; i < http->loop_count; i++) {
        kms_http_loop_done(&http->loops[i]);
    }
    kms_http_trust_free(http->trust);
    (void)pthread_mutex_destroy(&http->lock);
    free(http->name);
    free(http->ca_file);
    free(http->client_certificate);
    free(http->client_key);
    free(http->server_name);
    free(http->proxy);
    free(http);
}

static bool copy_text(char **ret, const char *text)
{
    *ret = text == NULL ? NULL : strdup(text);
    return text == NULL || *ret != NULL;
}

static bool copy_conf(struct kms_http *http, const struct kms_http_conf *conf)
{
    http->http1 = conf->http1;
    http->calls_max = conf->calls == 0 ? KMS_HTTP_CALLS : conf->calls;
    http->connect_ns =
        conf->connect_timeout_ns == 0 ? KMS_HTTP_CONNECT_NS : conf->connect_timeout_ns;
    return copy_text(&http->name, conf->name) && copy_text(&http->ca_file, conf->ca_file) &&
           copy_text(&http->client_certificate, conf->client_certificate) &&
           copy_text(&http->client_key, conf->client_key) &&
           copy_text(&http->server_name, conf->server_name) && copy_text(&http->proxy, conf->proxy);
}

/*
 * libcurl's callback is not told whether it is about the server or about a proxy, which is trusted
 * by the system's certificates alone. So where the two differ, libcurl reads them by itself.
 */
static bool make_trust(struct kms_http *http)
{
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
    bool is_mixed =
        http->ca_file != NULL && http->proxy != NULL && strncmp(http->proxy, "https://", 8) == 0;

    if (!is_mixed) {
        http->trust = http->ca_file != NULL ? kms_http_trust_new(http->ca_file, NULL)
                                            : kms_http_trust_new(curl->cainfo, curl->capath);
    }
    return is_mixed || http->trust != NULL;
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
    unsigned loops = conf->connections == 0 ? KMS_HTTP_CONNECTIONS : conf->connections;
    struct kms_http *http = NULL;

    (void)pthread_once(&once, global_init);
    if (global_code != CURLE_OK || kms_secure_init() != KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "libcurl or libsodium does not start");
    }
    if ((conf->client_certificate == NULL) != (conf->client_key == NULL)) {
        return kms_error_set(err, KMS_E_INVALID, "a client certificate needs its key");
    }
    http = calloc(1, sizeof(*http) + loops * sizeof(http->loops[0]));
    if (http == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for HTTP");
    }
    http->door = (struct kms_http_door){.perform = perform, .close = close_door, .count = count};
    http->loop_count = loops;
    for (unsigned i = 0; i < loops; i++) {
        http->loops[i].http = http;
        http->loops[i].fd = -1;
    }
    (void)pthread_mutex_init(&http->lock, NULL);
    if (!copy_conf(http, conf) || !make_trust(http)) {
        close_door(&http->door);
        return kms_error_set(err, KMS_E_NOMEM, "no memory for HTTP");
    }
    *ret_door = &http->door;
    return KMS_OK;
}
