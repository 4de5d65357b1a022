/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callers of a door of backend/rest/http.h, a thread each, who ask an https_server and check that
 * the answer is theirs. What a caller hands in is freed as soon as the door returns: whoever uses
 * it later uses freed memory.
 */
#ifndef KMS_TESTS_UNIT_HTTP_CALLERS_H
#define KMS_TESTS_UNIT_HTTP_CALLERS_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend/rest/http.h"
#include "tests/unit/https_server.h"
#include "tests/unit/unit.h"

struct caller {
    /* what it asks */
    struct kms_http_door *door;
    struct https_server *server;
    enum kms_http_method method;
    const char *path;
    const char *token; /* X-Token; NULL: none */
    size_t body_len;
    bool once;
    bool fresh;
    unsigned deadline_ms; /* 0: 20 s */
    bool may_cancel;
    atomic_bool cancelled;

    /* what came of it */
    enum kms_status status;
    bool is_mine; /* the answer repeats what this caller asked */
    bool was_sent;
    unsigned took_ms;
    struct kms_error error;

    pthread_t thread;
    atomic_bool is_back;
};

void caller_ask(struct caller *caller); /* in this thread */
bool caller_start(struct caller *caller);
void caller_join(struct caller *caller);

/* Each waits up to ten seconds. */
bool until_held(struct https_server *server, unsigned count);  /* just so many answers */
bool until_reset(struct https_server *server, unsigned count); /* just so many streams */
bool until_busy(struct kms_http_door *door, unsigned count);   /* just so many exchanges */
bool until_back(struct caller *caller);

/* The CA of the servers' certificates, a file, while callers_main() runs; it is the whole of
 * main(). */
extern char callers_ca_file[];
int callers_main(const char *name, const struct unit_test *tests, size_t count);

#endif
