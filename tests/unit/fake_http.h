/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A door (backend/rest/http.h) without sockets: a function of the test's answers each request, and
 * what was asked is kept.
 */
#ifndef KMS_TESTS_UNIT_FAKE_HTTP_H
#define KMS_TESTS_UNIT_FAKE_HTTP_H

#include <pthread.h>

#include "backend/rest/http.h"

#define FAKE_HTTP_MAX 256

struct fake_http {
    struct kms_http_door door; /* first */
    /* Answers by kms_http_response_fill(), or fails. */
    enum kms_status (*answer)(struct fake_http *fake, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err);
    void *ctx;
    pthread_mutex_t lock; /* guards what follows; held while answering */
    unsigned count;
    char lines[FAKE_HTTP_MAX][192]; /* "POST https://host/path" */
    char token[192];                /* the last X-Vault-Token */
    char correlation[192];          /* the last X-Correlation-Id */
    char body[16384];               /* the last one, with NUL */
};

void fake_http_init(struct fake_http *fake,
                    enum kms_status (*answer)(struct fake_http *fake,
                                              const struct kms_http_request *request,
                                              struct kms_http_response *ret,
                                              struct kms_error *err));
/* Fills @ret with @status and @body. */
enum kms_status fake_http_reply(const struct kms_http_request *request,
                                struct kms_http_response *ret, unsigned status, const char *body);
/* How many of the requests begin with @line. */
unsigned fake_http_asked(struct fake_http *fake, const char *line);

#endif
