/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the libcurl door share; for backend/rest/http_*.c alone. */
#ifndef KMS_BACKEND_REST_HTTP_PARTS_H
#define KMS_BACKEND_REST_HTTP_PARTS_H

#include <curl/curl.h>
#include <pthread.h>
#include <semaphore.h>

#include "backend/rest/http.h"
#include "backend/rest/http_trust.h"
#include "backend/rest/wiping.h"

#define KMS_HTTP_CONNECTIONS 16
#define KMS_HTTP_CALLS       512
#define KMS_HTTP_IDLE_MAX    32 /* easy handles of a loop that are kept */
#define KMS_HTTP_STREAMS     64 /* exchanges that share an HTTP/2 connection */
#define KMS_HTTP_HOSTS       16 /* of which a door knows whether they speak HTTP/2 */
#define KMS_HTTP_CONNECT_NS  (2 * UINT64_C(1000000000))

/*
 * One exchange. It is its caller's, unless that leaves it behind: a caller whose deadline has
 * passed while somebody else leads goes at once, and the leader takes the transfer down. @request
 * and what it points to are copies.
 */
struct kms_http_job {
    struct kms_http_job *next;
    struct kms_http_loop *loop; /* NULL: it waits for one */
    struct kms_http_request request;
    struct kms_http_response response;
    struct kms_error error;
    enum kms_status status;
    uint64_t deadline_ns;
    uint64_t start_ns;
    bool is_abandoned; /* its caller has gone: the loop's leader frees it */
    bool is_out;       /* of its loop: its caller will be told at once */
    bool is_fresh;     /* not over a connection that is there already */
    uint64_t host;     /* a hash of scheme, host and port; a rare mistake costs waiting */

    /* It has a loop, it is done, or its loop has no leader. Who has told it that it is done touches
     * nothing of it behind sem_post(): its caller frees it when all news have come. */
    sem_t news;
    atomic_uint told;
    unsigned heard; /* its caller's */
    atomic_bool is_done;

    char *url;
    char *connect_to_text;
    struct kms_blob body;
    struct curl_slist *headers;
    struct curl_slist *connect_to;
    const char *want[KMS_HTTP_WANT_MAX];
    CURL *easy;
    bool is_connected; /* to the service itself, behind a proxy as well */
    long http_version; /* CURL_HTTP_VERSION_* of the answer; 0: none came */
    size_t head_len;
    enum kms_status take_status; /* why a callback stopped the transfer */
    char curl_text[CURL_ERROR_SIZE];
    char trust_text[KMS_ERROR_TEXT_MAX]; /* why our callback stopped it, which libcurl cannot say */
};

/*
 * A libcurl multi handle and those who wait for what it does. One of them, the leader, drives it
 * with its own thread; when it has its answer it goes, and the next one leads. An HTTP/1 connection
 * carries one exchange at a time, so each caller has a loop of its own and waits for nobody; over
 * HTTP/2 callers of one host share one.
 */
struct kms_http_loop {
    struct kms_http *http;
    int fd; /* of its connection, the leader's; -1 */

    /* the leader's, but for curl_multi_wakeup() */
    CURLM *multi;                  /* NULL: not used yet */
    CURL *idle[KMS_HTTP_IDLE_MAX]; /* for the next exchanges */
    size_t idle_count;
    struct kms_received received; /* by exchanges that libcurl has, or has had */

    /* under the door's lock */
    struct kms_http_job *queue;   /* for the leader to start, oldest first */
    struct kms_http_job *running; /* given to libcurl */
    unsigned jobs;                /* in either */
    bool is_led;
    bool is_asleep;     /* its leader waits in curl_multi_poll() */
    bool has_abandoned; /* among the running */
    bool is_alone;      /* its job may share no connection */
    bool is_doubtful;   /* the last exchange ran out of time, and none was answered since */
    uint64_t host;      /* that all its jobs are for */
};

/* Whether a host speaks HTTP/2, as far as its last answer told. */
struct kms_http_host {
    uint64_t host;
    bool is_http2;
};

struct kms_http {
    struct kms_http_door door; /* first: a door is this */
    char *name, *ca_file, *client_certificate, *client_key, *server_name, *proxy;
    struct kms_http_trust *trust; /* NULL: libcurl reads ca_file by itself */
    bool http1;
    unsigned calls_max;
    uint64_t connect_ns;

    pthread_mutex_t lock; /* guards what follows, and a job's loop, is_abandoned and is_out */
    struct kms_http_job *waiting; /* for a loop, oldest first */
    struct kms_http_host hosts[KMS_HTTP_HOSTS];
    size_t host_count; /* learned, ever; the newest ones are kept */
    unsigned calls;
    atomic_uint sockets;

    unsigned loop_count; /* connections for each host, at most */
    struct kms_http_loop loops[];
};

/* http_loop.c */
enum kms_http_end {
    KMS_HTTP_WAITS,
    KMS_HTTP_ANSWERED, /* or failed: job->status */
    KMS_HTTP_GIVEN_UP, /* the caller's patience ended */
    KMS_HTTP_LEFT,     /* the same, and the job is the loop's now */
};
/*
 * Until @job, which has a loop, is done or its caller gives up; drives the loop while nobody else
 * does.
 */
enum kms_http_end kms_http_loop_wait(struct kms_http *http, struct kms_http_job *job,
                                     const struct kms_http_wait *wait);
bool kms_http_gave_up(const struct kms_http_wait *wait);
/* Until there is news for @job, or it is time to look whether its caller still waits. Returns
 * whether it is done. Without the door's lock. */
bool kms_http_nap(struct kms_http_job *job, const struct kms_http_wait *wait);
/* News for the caller of @job. Who does not own the job has the door's lock. */
void kms_http_tell(struct kms_http_job *job);
void kms_http_loop_done(struct kms_http_loop *loop); /* nobody is in it */

/* http_door.c */
void kms_http_left_locked(struct kms_http *http); /* a job has left its loop */
/* What the answer to @job, if one came, tells of its host. */
void kms_http_learn_locked(struct kms_http *http, const struct kms_http_job *job);
CURLM *kms_http_multi_new(void);

/* http_job.c */
enum kms_status kms_http_job_new(struct kms_http *http, const struct kms_http_request *request,
                                 const struct kms_http_wait *wait, struct kms_http_job **ret_job,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_http_job_free(struct kms_http_job *job); /* the last holder */
/* A handle with all that is the same for each exchange; NULL without memory. */
CURL *kms_http_easy_new(struct kms_http_loop *loop);
/* Sets up job->easy for it; KMS_E_NOMEM when there is none. */
enum kms_status kms_http_job_set(struct kms_http *http, struct kms_http_job *job) KMS_MUST_CHECK;
/* The end of it; false when the handle is not fit for another exchange. */
bool kms_http_job_clear(struct kms_http_job *job) KMS_MUST_CHECK;
bool kms_http_is_late(const struct kms_http_job *job); /* its deadline has passed */
/* Whether the service may have seen the request, to its response; it has a handle. */
void kms_http_job_note_sent(struct kms_http_job *job);
/* Fills the job's response, status and error from what libcurl says. */
void kms_http_job_finish(struct kms_http_job *job, CURLcode code);

#endif
