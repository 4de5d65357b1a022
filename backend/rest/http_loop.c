/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, driven by the callers' own threads: handing each exchange to a thread of libcurl's and
 * its answer back would cost more than the HTTP does.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "backend/rest/http_parts.h"
#include "common/clock.h"
#include "common/cond.h"

#define POLL_MS       1000
#define ENDED_MAX     16 /* exchanges whose end is told with one taking of the lock */
#define LONG_NAP_NS   (60 * KMS_NS_PER_S)
#define CANCEL_NAP_NS (50 * KMS_NS_PER_MS) /* how often a waiting caller looks whether to go on */

/* ---- one exchange after the other --------------------------------------------------------- */

static void unlink_job(struct kms_http_job **list, const struct kms_http_job *job)
{
    while (*list != NULL && *list != job) {
        list = &(*list)->next;
    }
    if (*list != NULL) {
        *list = job->next;
    }
}

/* Its handle is kept for the next exchange, or freed. */
static void keep_or_free(struct kms_http_loop *loop, struct kms_http_job *job)
{
    if (job->easy == NULL) {
        return;
    }
    if (kms_http_job_clear(job) && loop->idle_count < KMS_HTTP_IDLE_MAX) {
        loop->idle[loop->idle_count++] = job->easy;
    } else {
        curl_easy_cleanup(job->easy);
    }
    job->easy = NULL;
}

/* libcurl has no more to do with @job: freed if nobody waits for it, or its caller is to be told.
 */
static void leave_locked(struct kms_http *http, struct kms_http_job *job)
{
    struct kms_http_loop *loop = job->loop;

    unlink_job(&loop->queue, job);
    unlink_job(&loop->running, job);
    loop->jobs--;
    kms_http_learn_locked(http, job);
    if (job->response.status != 0) {
        loop->is_doubtful = false;
    } else if (job->response.was_sent && kms_http_is_late(job)) {
        loop->is_doubtful = true;
    }
    job->is_out = true;
    if (job->is_abandoned) {
        kms_http_job_free(job);
    }
    kms_http_left_locked(http);
}

/* From here on @job is its caller's. Without the lock: who is woken may want it. */
static void tell_done(struct kms_http_job *job)
{
    atomic_fetch_add(&job->told, 1); /* first: who sees that it is done waits for this one, too */
    atomic_store(&job->is_done, true);
    (void)sem_post(&job->news);
}

/* Jobs that have ended, to their callers. */
static void hand_back(struct kms_http *http, struct kms_http_job **jobs, size_t count)
{
    size_t wanted = 0;

    pthread_mutex_lock(&http->lock);
    for (size_t i = 0; i < count; i++) {
        struct kms_http_job *job = jobs[i];

        if (!job->is_abandoned) {
            jobs[wanted++] = job;
        }
        leave_locked(http, job);
    }
    pthread_mutex_unlock(&http->lock);
    for (size_t i = 0; i < wanted; i++) {
        tell_done(jobs[i]);
    }
}

static void start(struct kms_http *http, struct kms_http_loop *loop, struct kms_http_job *job)
{
    job->easy = loop->idle_count > 0 ? loop->idle[--loop->idle_count] : kms_http_easy_new(loop);
    job->status = kms_http_job_set(http, job);
    if (job->status == KMS_OK && curl_multi_add_handle(loop->multi, job->easy) != CURLM_OK) {
        job->status = kms_error_set(&job->error, KMS_E_INTERNAL, "libcurl takes no request");
    }
}

static void start_queued_locked(struct kms_http *http, struct kms_http_loop *loop)
{
    struct kms_http_job *job = NULL;

    while ((job = loop->queue) != NULL) {
        loop->queue = job->next;
        job->next = loop->running;
        loop->running = job;
        pthread_mutex_unlock(&http->lock);
        start(http, loop, job);
        if (job->status != KMS_OK) {
            keep_or_free(loop, job);
            hand_back(http, &job, 1);
        }
        pthread_mutex_lock(&http->lock);
    }
}

/* The next exchange that has ended, out of libcurl's hands; NULL: none. */
static struct kms_http_job *next_ended(struct kms_http_loop *loop)
{
    const CURLMsg *message = NULL;
    int left = 0;

    while (loop->multi != NULL && (message = curl_multi_info_read(loop->multi, &left)) != NULL) {
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        struct kms_http_job *job = NULL;
        char *private = NULL;

        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private) != CURLE_OK) {
            continue;
        }
        job = (struct kms_http_job *)(void *)private;
        (void)curl_multi_remove_handle(loop->multi, easy);
        kms_http_job_finish(job, code);
        keep_or_free(loop, job);
        return job;
    }
    return NULL;
}

/*
 * libcurl sends each HTTP/2 frame by itself: held together, a request's head and body, and those of
 * several requests, are one packet and wake the server once. Returns what is held.
 */
static int cork(const struct kms_http_loop *loop)
{
    int on = 1;

    if (loop->fd < 0 || loop->http->http1) {
        return -1;
    }
    (void)setsockopt(loop->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
    return loop->fd;
}

/* The one that was corked: libcurl may have opened another one since. */
static void uncork(int fd)
{
    int off = 0;

    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off));
    }
}

/* What libcurl can do without waiting. */
static void go_on(struct kms_http *http, struct kms_http_loop *loop)
{
    struct kms_http_job *ended[ENDED_MAX];
    size_t count = 0;
    int running = 0;
    int corked = -1;

    if (loop->multi != NULL) {
        corked = cork(loop);
        (void)curl_multi_perform(loop->multi, &running);
        uncork(corked);
    }
    do {
        for (count = 0; count < ENDED_MAX && (ended[count] = next_ended(loop)) != NULL; count++) {
        }
        hand_back(http, ended, count);
    } while (count == ENDED_MAX);
}

static void take_down_locked(struct kms_http *http, struct kms_http_job *job)
{
    if (job->easy != NULL) {
        pthread_mutex_unlock(&http->lock);
        kms_http_job_note_sent(job);
        (void)curl_multi_remove_handle(job->loop->multi, job->easy);
        keep_or_free(job->loop, job);
        pthread_mutex_lock(&http->lock);
    }
    leave_locked(http, job);
}

static struct kms_http_job *first_abandoned(struct kms_http_job *list)
{
    while (list != NULL && !list->is_abandoned) {
        list = list->next;
    }
    return list;
}

static void take_down_abandoned_locked(struct kms_http *http, struct kms_http_loop *loop)
{
    struct kms_http_job *job = NULL;

    while (loop->has_abandoned) {
        job = first_abandoned(loop->queue);
        job = job != NULL ? job : first_abandoned(loop->running);
        if (job != NULL) {
            take_down_locked(http, job);
        } else {
            loop->has_abandoned = false;
        }
    }
}

/* ---- leading ------------------------------------------------------------------------------ */

/* When the caller's patience ends. libcurl's own timeout comes first, with a better text. */
static uint64_t last_of(const struct kms_http_wait *wait)
{
    return wait->deadline_ns > KMS_DEADLINE_NONE - 5 * KMS_NS_PER_MS
               ? KMS_DEADLINE_NONE
               : wait->deadline_ns + 5 * KMS_NS_PER_MS;
}

bool kms_http_gave_up(const struct kms_http_wait *wait)
{
    return (wait->cancelled != NULL && atomic_load(wait->cancelled)) ||
           kms_deadline_passed(last_of(wait));
}

static int poll_ms(const struct kms_http_wait *wait)
{
    uint64_t left = kms_deadline_left(last_of(wait));

    if (wait->cancelled != NULL && left > CANCEL_NAP_NS) {
        left = CANCEL_NAP_NS;
    }
    left = left / KMS_NS_PER_MS + 1;
    return left < POLL_MS ? (int)left : POLL_MS;
}

static void sleep_locked(struct kms_http *http, struct kms_http_loop *loop,
                         const struct kms_http_wait *wait)
{
    loop->is_asleep = true;
    pthread_mutex_unlock(&http->lock);
    (void)curl_multi_poll(loop->multi, NULL, 0, poll_ms(wait), NULL);
    pthread_mutex_lock(&http->lock);
    loop->is_asleep = false;
}

/* Somebody who waits for this loop is to lead it now. */
static void hand_over_locked(struct kms_http_loop *loop)
{
    struct kms_http_job *next = loop->running != NULL ? loop->running : loop->queue;

    loop->is_led = false;
    if (next != NULL) {
        kms_http_tell(next);
    }
}

static void make_multi(struct kms_http *http, struct kms_http_loop *loop)
{
    pthread_mutex_unlock(&http->lock);
    loop->multi = kms_http_multi_new(); /* without memory, each job fails */
    pthread_mutex_lock(&http->lock);
}

static enum kms_http_end lead_locked(struct kms_http *http, struct kms_http_job *job,
                                     const struct kms_http_wait *wait)
{
    struct kms_http_loop *loop = job->loop;
    enum kms_http_end ended = KMS_HTTP_ANSWERED;

    loop->is_led = true;
    kms_receiving = &loop->received;
    if (loop->multi == NULL) {
        make_multi(http, loop);
    }
    while (!job->is_done && !kms_http_gave_up(wait)) {
        start_queued_locked(http, loop);
        pthread_mutex_unlock(&http->lock);
        go_on(http, loop);
        pthread_mutex_lock(&http->lock);
        take_down_abandoned_locked(http, loop);
        if (!job->is_done && loop->queue == NULL) {
            sleep_locked(http, loop, wait);
        }
    }
    if (!job->is_done) {
        ended = KMS_HTTP_GIVEN_UP;
        take_down_locked(http, job);
    }
    take_down_abandoned_locked(http, loop);
    if (loop->running == NULL) {
        kms_received_wipe(&loop->received);
    }
    kms_receiving = NULL;
    hand_over_locked(loop);
    return ended;
}

/* ---- waiting ------------------------------------------------------------------------------ */

/* False: no news before @due. */
static bool hear(struct kms_http_job *job, uint64_t due)
{
    if (!kms_sem_wait(&job->news, due)) {
        return false;
    }
    job->heard++;
    return true;
}

bool kms_http_nap(struct kms_http_job *job, const struct kms_http_wait *wait)
{
    uint64_t last = last_of(wait);
    uint64_t nap = kms_deadline_in(wait->cancelled == NULL ? LONG_NAP_NS : CANCEL_NAP_NS);

    if (!atomic_load(&job->is_done)) { /* else the news may have been heard already */
        (void)hear(job, nap < last ? nap : last);
    }
    if (!atomic_load(&job->is_done)) {
        return false;
    }
    while (job->heard < atomic_load(&job->told)) {
        (void)hear(job, kms_deadline_in(LONG_NAP_NS));
    }
    return true;
}

void kms_http_tell(struct kms_http_job *job)
{
    atomic_fetch_add(&job->told, 1);
    (void)sem_post(&job->news);
}

/* The leader is told of what is new in the queue, or abandoned; once is enough. */
static void wake_leader_locked(struct kms_http *http, struct kms_http_loop *loop)
{
    if (loop->is_asleep) {
        loop->is_asleep = false;
        pthread_mutex_unlock(&http->lock);
        (void)curl_multi_wakeup(loop->multi);
        pthread_mutex_lock(&http->lock);
    }
}

/* Leads, if nobody does, or leaves the job behind. */
static enum kms_http_end look_locked(struct kms_http *http, struct kms_http_job *job,
                                     const struct kms_http_wait *wait)
{
    struct kms_http_loop *loop = job->loop;

    if (job->is_out) {
        return KMS_HTTP_WAITS;
    }
    if (!loop->is_led) {
        return lead_locked(http, job, wait);
    }
    if (kms_http_gave_up(wait)) {
        job->is_abandoned = true;
        loop->has_abandoned = true;
        wake_leader_locked(http, loop);
        return KMS_HTTP_LEFT;
    }
    return KMS_HTTP_WAITS;
}

enum kms_http_end kms_http_loop_wait(struct kms_http *http, struct kms_http_job *job,
                                     const struct kms_http_wait *wait)
{
    enum kms_http_end ended = KMS_HTTP_WAITS;

    pthread_mutex_lock(&http->lock);
    wake_leader_locked(http, job->loop);
    ended = look_locked(http, job, wait);
    pthread_mutex_unlock(&http->lock);
    while (ended == KMS_HTTP_WAITS) {
        if (kms_http_nap(job, wait)) {
            return KMS_HTTP_ANSWERED;
        }
        pthread_mutex_lock(&http->lock);
        ended = look_locked(http, job, wait);
        pthread_mutex_unlock(&http->lock);
    }
    return ended;
}

void kms_http_loop_done(struct kms_http_loop *loop)
{
    while (loop->idle_count > 0) {
        curl_easy_cleanup(loop->idle[--loop->idle_count]);
    }
    if (loop->multi != NULL) {
        (void)curl_multi_cleanup(loop->multi);
    }
}
