/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoints of one backend (a cluster's nodes, a service's regions), in the order of the
 * configuration, each with a circuit breaker. An exchange goes to the first endpoint that is
 * healthy; after failures in a row an endpoint is left alone for a while, then one call tries it
 * (half open). An exchange that fails on a sick endpoint goes on to the next one at once, unless
 * the request says `once` and may have been seen; every other failure goes back to the caller,
 * whose next attempt finds the order changed. Where another endpoint is well, an exchange has half
 * of the call's time, so that an endpoint that hangs does not fail it: unless it is `once`, or half
 * is under 500 ms (50 ms of a half-open one).
 *
 * Threads: any; no lock is held across an exchange.
 */
#ifndef KMS_BACKEND_REST_ENDPOINTS_H
#define KMS_BACKEND_REST_ENDPOINTS_H

#include "backend/rest/http.h"

#define KMS_ENDPOINTS_MAX 8

struct kms_endpoints_conf {
    const char *name;        /* the backend's, for texts and the log */
    const char *const *urls; /* base URLs without a slash at the end: https://host[:port][/path] */
    size_t count;            /* 1 to KMS_ENDPOINTS_MAX */
    unsigned failures;       /* in a row that open the breaker; 0: 3 */
    uint64_t open_ns;     /* how long it stays open at first, doubled at each failed try, jittered;
                             0: 500 ms */
    uint64_t open_max_ns; /* 0: 15 s */
    /*
     * What an answer says of the endpoint: NULL counts 500, 502, 503 and 504 as failures. A service
     * where a status is a fact about the key, not the node, says so here.
     */
    bool (*is_sick)(const struct kms_http_response *response);
    /* Why, in the answer's own words, into @ret_text; "": it does not say. May be NULL. */
    void (*say)(const struct kms_http_response *response, char *ret_text, size_t size);
};

struct kms_endpoints;

/* @door is borrowed and outlives it; URLs are copied. KMS_E_INVALID names the URL's place. */
enum kms_status kms_endpoints_new(const struct kms_endpoints_conf *conf, struct kms_http_door *door,
                                  struct kms_endpoints **ret, struct kms_error *err) KMS_MUST_CHECK;
void kms_endpoints_free(struct kms_endpoints *endpoints);

/*
 * kms_http_perform() with request->url (from "/" on) behind the endpoint's base. With every breaker
 * open: KMS_E_UNAVAILABLE at once, with the last failure's text and err->retry_after_ns. Each
 * exchange is logged (debug) with its class and request id (the first wanted header).
 */
enum kms_status kms_endpoints_perform(struct kms_endpoints *endpoints,
                                      const struct kms_http_request *request,
                                      const struct kms_http_wait *wait,
                                      struct kms_http_response *ret,
                                      struct kms_error *err) KMS_MUST_CHECK;

/* How many take calls now. */
unsigned kms_endpoints_healthy(struct kms_endpoints *endpoints);
/* Base URL of the one that would be asked next: for signatures over the host, and for texts. */
const char *kms_endpoints_first(struct kms_endpoints *endpoints);

#endif
