/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the libcurl door share; for backend/rest/http_*.c alone. */
#ifndef KMS_BACKEND_REST_HTTP_PARTS_H
#define KMS_BACKEND_REST_HTTP_PARTS_H

#include <curl/curl.h>
#include <pthread.h>

#include "backend/rest/http.h"

#define KMS_HTTP_CONNECTIONS 16
#define KMS_HTTP_CALLS       512
#define KMS_HTTP_IDLE_MAX    64 /* easy handles that are kept for the next exchange */
#define KMS_HTTP_CONNECT_NS  (2 * UINT64_C(1000000000))

/*
 * One exchange. Its caller and the loop both hold it, and the last one frees it: a caller whose
 * deadline has passed leaves at once, and the loop's thread takes the transfer down. @request and
 * what it points to are copies.
 */
struct kms_http_job {
    struct kms_http_job *next;
    struct kms_http_request request;
    struct kms_http_response response;
    struct kms_error error;
    enum kms_status status;
    pthread_cond_t done;
    uint64_t deadline_ns;
    uint64_t start_ns;
    unsigned holders;
    bool is_done;
    bool is_abandoned;

    char *url;
    char *connect_to_text;
    struct kms_blob body;
    struct curl_slist *headers;
    struct curl_slist *connect_to;
    const char *want[KMS_HTTP_WANT_MAX];
    CURL *easy;
    size_t head_len;
    enum kms_status take_status; /* why a callback stopped the transfer */
    char curl_text[CURL_ERROR_SIZE];
};

struct kms_http {
    struct kms_http_door door; /* first: a door is this */
    char *name, *ca_file, *client_certificate, *client_key, *server_name, *proxy;
    long connections;
    unsigned calls_max;
    uint64_t connect_ns;

    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows, and a job's is_done, is_abandoned and holders */
    struct kms_http_job *queue;   /* for the loop to start, oldest first */
    struct kms_http_job *running; /* given to libcurl */
    unsigned calls;               /* in either */
    bool stop;
    atomic_uint sockets;

    CURLM *multi; /* the loop's alone, but for curl_multi_wakeup() */
    CURL *idle[KMS_HTTP_IDLE_MAX];
    size_t idle_count;
};

/* http_job.c */
enum kms_status kms_http_job_new(struct kms_http *http, const struct kms_http_request *request,
                                 const struct kms_http_wait *wait, struct kms_http_job **ret_job,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_http_job_free(struct kms_http_job *job); /* the last holder */
/* Sets up job->easy for it. */
enum kms_status kms_http_job_set(struct kms_http *http, struct kms_http_job *job) KMS_MUST_CHECK;
/* Fills the job's response, status and error from what libcurl says. */
void kms_http_job_finish(struct kms_http_job *job, CURLcode code);

#endif
