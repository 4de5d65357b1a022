/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/endpoints.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define FAILURES    3
#define OPEN_NS     (500 * KMS_NS_PER_MS)
#define SLOW_NS     (500 * KMS_NS_PER_MS)
#define OPEN_MAX_NS (15 * KMS_NS_PER_S)
#define SAID_MAX    256                  /* of a sick answer, in our texts */
#define TRY_MIN_NS  (50 * KMS_NS_PER_MS) /* no call tries an endpoint for less */

struct endpoint {
    char *url;
    unsigned failures;   /* in a row */
    uint64_t open_ns;    /* how long the breaker stays open now; 0: it is closed */
    uint64_t open_until; /* kms_now_ns() scale */
    bool is_tried;       /* half open: one call is trying it */
};

struct kms_endpoints {
    char *name;
    struct kms_http_door *door;
    unsigned failures;
    uint64_t open_ns;
    uint64_t open_max_ns;
    bool (*is_sick)(const struct kms_http_response *response);
    void (*say)(const struct kms_http_response *response, char *ret_text, size_t size);
    size_t count;
    pthread_mutex_t lock; /* guards the endpoints' states and @last */
    struct endpoint at[KMS_ENDPOINTS_MAX];
    struct kms_error last; /* what opened a breaker last */
};

/* ---- the breakers ------------------------------------------------------------------------- */

/* Whether a call may go there now; takes the try of a half-open one when @take. */
static bool admit_locked(struct endpoint *endpoint, bool take)
{
    if (endpoint->open_ns == 0) {
        return true;
    }
    if (endpoint->is_tried || !kms_deadline_passed(endpoint->open_until)) {
        return false;
    }
    endpoint->is_tried = take;
    return true;
}

static void open_locked(const struct kms_endpoints *endpoints, struct endpoint *endpoint)
{
    uint64_t next = endpoint->open_ns == 0 ? endpoints->open_ns : 2 * endpoint->open_ns;

    endpoint->open_ns = next < endpoints->open_max_ns ? next : endpoints->open_max_ns;
    endpoint->open_until = kms_deadline_in(kms_jitter(endpoint->open_ns / 2, endpoint->open_ns));
}

enum verdict { HEALTHY, SICK, UNKNOWN };

/* @is_try: of the call that tries a half-open one. The others were sent before it opened: late,
 * they neither open it further nor let another call try it. */
static void judge(struct kms_endpoints *endpoints, struct endpoint *endpoint, bool is_try,
                  enum verdict verdict, const struct kms_error *why)
{
    bool opened = false;
    bool closed = false;

    pthread_mutex_lock(&endpoints->lock);
    if (verdict == HEALTHY) {
        closed = endpoint->open_ns != 0;
        endpoint->failures = 0;
        endpoint->open_ns = 0;
    } else if (verdict == SICK) {
        endpoint->failures++;
        opened = endpoint->open_ns == 0 && endpoint->failures >= endpoints->failures;
        if (opened || (is_try && endpoint->open_ns != 0)) {
            open_locked(endpoints, endpoint);
        }
        endpoints->last = *why;
    }
    endpoint->is_tried = endpoint->is_tried && !is_try && !closed;
    pthread_mutex_unlock(&endpoints->lock);
    if (opened) {
        kms_log_error(KMS_LOG_WARN, why, "backend %s: %s is left alone for a while",
                      endpoints->name, endpoint->url);
    } else if (closed) {
        kms_log(KMS_LOG_INFO, "backend %s: %s answers again", endpoints->name, endpoint->url);
    }
}

static bool is_sick_by_status(const struct kms_http_response *response)
{
    return response->status == 500 || (response->status >= 502 && response->status <= 504);
}

/* A deadline that passed says that the endpoint is slow, unless the caller had no time. */
static enum verdict verdict_of(const struct kms_endpoints *endpoints, enum kms_status status,
                               const struct kms_http_response *response, bool had_no_time,
                               struct kms_error *why)
{
    if (status == KMS_OK && endpoints->is_sick(response)) {
        char said[SAID_MAX] = "";

        if (endpoints->say != NULL) {
            endpoints->say(response, said, sizeof(said));
        }
        (void)kms_error_set(why, KMS_E_UNAVAILABLE, "it answers with status %u%s%s",
                            response->status, said[0] == '\0' ? "" : ": ", said);
        return SICK;
    }
    /* a key of very many versions must not take the calls with all other keys down */
    if (status == KMS_OK || (status == KMS_E_PROTOCOL && response->is_over)) {
        return HEALTHY;
    }
    if (had_no_time) {
        return UNKNOWN;
    }
    return status == KMS_E_TIMEOUT || status == KMS_E_UNAVAILABLE || status == KMS_E_PROTOCOL
               ? SICK
               : UNKNOWN;
}

/* ---- choosing ----------------------------------------------------------------------------- */

/* Where a call goes. */
struct choice {
    struct endpoint *endpoint; /* NULL: nowhere */
    bool is_try;               /* it is half open */
    uint64_t deadline_ns;      /* of this exchange */
};

static bool has_well_locked(const struct kms_endpoints *endpoints, unsigned asked)
{
    for (size_t i = 0; i < endpoints->count; i++) {
        if ((asked & 1u << i) == 0 && endpoints->at[i].open_ns == 0) {
            return true;
        }
    }
    return false;
}

/*
 * The first that is closed, or whose time to be tried has come. Half open, one call tries it even
 * though another endpoint is well, or a node that is back would never be asked again.
 *
 * A node that takes connections and never answers must not fail the calls that it gets: where
 * another one is well they wait for half of their time, and have the rest for the other one. What
 * may be asked only once has no other one: it waits for all its time, and tries nothing.
 */
static struct choice choose(struct kms_endpoints *endpoints, unsigned asked, bool once,
                            const struct kms_http_wait *wait)
{
    struct choice chosen = {.deadline_ns = wait->deadline_ns};
    uint64_t half = kms_deadline_left(wait->deadline_ns) / 2;
    bool has_other = false;

    pthread_mutex_lock(&endpoints->lock);
    for (size_t i = 0; chosen.endpoint == NULL && i < endpoints->count; i++) {
        struct endpoint *at = &endpoints->at[i];

        has_other = has_well_locked(endpoints, asked | 1u << i);
        if ((asked & 1u << i) != 0 ||
            (at->open_ns != 0 && has_other && (once || half < TRY_MIN_NS))) {
            continue;
        }
        if (admit_locked(at, true)) {
            chosen.endpoint = at;
            chosen.is_try = at->open_ns != 0;
        }
    }
    pthread_mutex_unlock(&endpoints->lock);
    if (has_other && !once && half >= (chosen.is_try ? TRY_MIN_NS : SLOW_NS)) {
        chosen.deadline_ns = kms_deadline_in(half);
    }
    return chosen;
}

static enum kms_status none_left(struct kms_endpoints *endpoints, struct kms_error *err)
{
    uint64_t soonest = KMS_DEADLINE_NONE;
    struct kms_error last;

    pthread_mutex_lock(&endpoints->lock);
    last = endpoints->last;
    for (size_t i = 0; i < endpoints->count; i++) {
        soonest = endpoints->at[i].open_until < soonest ? endpoints->at[i].open_until : soonest;
    }
    pthread_mutex_unlock(&endpoints->lock);
    (void)kms_error_set_code(err, KMS_E_UNAVAILABLE, last.code,
                             "every endpoint is left alone for a while, the last one because: %s",
                             last.text);
    if (err != NULL) {
        err->retry_after_ns = kms_deadline_left(soonest);
        err->retry_after_ns += err->retry_after_ns == 0 ? KMS_NS_PER_MS : 0;
    }
    return KMS_E_UNAVAILABLE;
}

/* ---- one exchange ------------------------------------------------------------------------- */

static void log_exchange(const struct kms_endpoints *endpoints, const struct endpoint *endpoint,
                         const struct kms_http_request *request, const struct kms_http_wait *wait,
                         const struct kms_http_response *response, enum kms_status status,
                         uint64_t start_ns)
{
    char answer[16] = "";
    char took[24] = "";
    const struct kms_log_field fields[] = {
        {"backend", endpoints->name},
        {"endpoint", endpoint->url},
        /* what an answer means says the backend that asked; the waist logs that */
        {"class", status == KMS_OK ? NULL : kms_status_name(status)},
        {"status", answer},
        {"request_id", request->want_count > 0 ? response->want[0] : NULL},
        {"trace_id", wait->trace_id},
        {"us", took},
    };

    if (kms_log_enabled(KMS_LOG_DEBUG)) {
        (void)snprintf(answer, sizeof(answer), "%u", response->status);
        (void)snprintf(took, sizeof(took), "%" PRIu64, (kms_now_ns() - start_ns) / KMS_NS_PER_US);
        kms_log_fields(KMS_LOG_DEBUG, fields, sizeof(fields) / sizeof(fields[0]), "rest: %s",
                       kms_http_method_name(request->method));
    }
}

/* As kms_http_perform(); when it is the endpoint's time that is over, and not the caller's, it is
 * as good as not there. */
static enum kms_status exchange(const struct kms_endpoints *endpoints, const struct choice *choice,
                                const struct kms_http_request *request,
                                const struct kms_http_wait *wait, struct kms_http_response *ret,
                                bool *ret_ran_out, struct kms_error *why)
{
    struct kms_http_wait own = *wait;
    enum kms_status status = KMS_OK;

    own.deadline_ns = choice->deadline_ns;
    status = kms_http_perform(endpoints->door, request, &own, ret, why);
    *ret_ran_out = status == KMS_E_TIMEOUT;
    return status == KMS_E_TIMEOUT && own.deadline_ns < wait->deadline_ns
               ? kms_error_reword(why, KMS_E_UNAVAILABLE, "%s: no reply in half of the call's time",
                                  choice->endpoint->url)
               : status;
}

static enum kms_status ask(struct kms_endpoints *endpoints, const struct choice *choice,
                           const struct kms_http_request *request, const struct kms_http_wait *wait,
                           struct kms_http_response *ret, struct kms_error *err)
{
    struct endpoint *endpoint = choice->endpoint;
    struct kms_blob url = {.data = NULL}; /* a query may hold secrets */
    struct kms_http_request asked = *request;
    struct kms_error why = KMS_ERROR_INIT;
    uint64_t start_ns = kms_now_ns();
    bool ran_out = false;
    bool had_no_time = false;
    enum kms_status status = kms_blob_put(&url, kms_span_str(endpoint->url), KMS_HTTP_URL_MAX - 1);

    if (status == KMS_OK) {
        status = kms_blob_put(&url, kms_span_str(request->url), KMS_HTTP_URL_MAX - 1);
    }
    asked.url = (const char *)url.data;
    ret->origin = endpoint->url;
    if (status != KMS_OK) {
        status = status == KMS_E_TOO_LARGE
                     ? kms_error_set(&why, KMS_E_INVALID, "the URL of a request is too long")
                     : kms_error_set(&why, status, "no secure memory");
    } else if (request->prepare != NULL) {
        status = request->prepare(request->prepare_ctx, asked.url, &asked, &why);
    }
    if (status == KMS_OK) {
        status = exchange(endpoints, choice, &asked, wait, ret, &ran_out, &why);
        ret->origin = endpoint->url;
    }
    log_exchange(endpoints, endpoint, request, wait, ret, status, start_ns);
    if (status != KMS_OK) {
        /* a failure never passes for an answer because nobody said why */
        (void)kms_error_set(&why, status, "%s: %s", endpoint->url, kms_status_name(status));
        (void)kms_error_set_code(err, why.status, why.code, "%s", why.text);
    }
    /* of its half of the time, the wait for a connection may have left it next to nothing */
    had_no_time = kms_now_ns() - (ret->began_ns != 0 ? ret->began_ns : start_ns) < SLOW_NS &&
                  (status == KMS_E_TIMEOUT || (ran_out && !choice->is_try));
    judge(endpoints, endpoint, choice->is_try,
          verdict_of(endpoints, status, ret, had_no_time, &why), &why);
    kms_blob_done(&url);
    return status;
}

/*
 * Whether the next endpoint is asked in the same attempt: when this one is sick or was not come to,
 * and the request may be made twice or certainly was not sent.
 */
static bool goes_on(const struct kms_endpoints *endpoints, const struct kms_http_request *request,
                    enum kms_status status, const struct kms_http_response *response)
{
    if (response->was_sent && request->once) {
        return false;
    }
    if (status == KMS_OK) {
        return endpoints->is_sick(response);
    }
    return status == KMS_E_UNAVAILABLE ||
           ((status == KMS_E_PROTOCOL || status == KMS_E_BUSY) && !response->was_sent);
}

enum kms_status kms_endpoints_perform(struct kms_endpoints *endpoints,
                                      const struct kms_http_request *request,
                                      const struct kms_http_wait *wait,
                                      struct kms_http_response *ret, struct kms_error *err)
{
    struct kms_error last = KMS_ERROR_INIT;
    enum kms_status status = KMS_E_UNAVAILABLE;
    struct choice choice;
    unsigned asked = 0;

    while ((choice = choose(endpoints, asked, request->once, wait)).endpoint != NULL) {
        /* the former one's answer, or why there was none, is no longer wanted */
        kms_error_clear(&last);
        kms_http_response_done(ret);
        status = ask(endpoints, &choice, request, wait, ret, &last);
        asked |= 1u << (choice.endpoint - endpoints->at);
        if (!goes_on(endpoints, request, status, ret) || kms_deadline_passed(wait->deadline_ns)) {
            break;
        }
    }
    if (asked == 0) {
        return none_left(endpoints, err);
    }
    return status == KMS_OK
               ? KMS_OK
               : kms_error_set_code(
                     err, last.status, last.code, "%s%s", last.text,
                     request->once && ret->was_sent ? "; whether it was done is not known" : "");
}

unsigned kms_endpoints_healthy(struct kms_endpoints *endpoints)
{
    unsigned healthy = 0;

    pthread_mutex_lock(&endpoints->lock);
    for (size_t i = 0; i < endpoints->count; i++) {
        healthy += endpoints->at[i].open_ns == 0 ? 1u : 0u;
    }
    pthread_mutex_unlock(&endpoints->lock);
    return healthy;
}

const char *kms_endpoints_first(struct kms_endpoints *endpoints)
{
    const char *url = endpoints->at[0].url;

    pthread_mutex_lock(&endpoints->lock);
    for (size_t i = 0; i < endpoints->count; i++) {
        if (admit_locked(&endpoints->at[i], false)) {
            url = endpoints->at[i].url;
            break;
        }
    }
    pthread_mutex_unlock(&endpoints->lock);
    return url;
}

/* ---- from new to free --------------------------------------------------------------------- */

static enum kms_status add_url(struct kms_endpoints *endpoints, const char *url,
                               struct kms_error *err)
{
    struct kms_error why = KMS_ERROR_INIT;
    struct endpoint *endpoint = &endpoints->at[endpoints->count];

    if (kms_http_check_url(url, false, &why) != KMS_OK || url[strlen(url) - 1] == '/' ||
        strchr(url, '?') != NULL) {
        return kms_error_set(err, KMS_E_INVALID, "endpoint %zu %s", endpoints->count + 1,
                             why.status != KMS_OK ? why.text : "must not end in / or hold a ?");
    }
    endpoint->url = strdup(url);
    if (endpoint->url == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for an endpoint");
    }
    endpoints->count++;
    return KMS_OK;
}

enum kms_status kms_endpoints_new(const struct kms_endpoints_conf *conf, struct kms_http_door *door,
                                  struct kms_endpoints **ret, struct kms_error *err)
{
    struct kms_endpoints *endpoints = NULL;
    enum kms_status status = KMS_OK;

    if (conf->count == 0 || conf->count > KMS_ENDPOINTS_MAX) {
        return kms_error_set(err, KMS_E_INVALID, "1 to %d endpoints, not %zu", KMS_ENDPOINTS_MAX,
                             conf->count);
    }
    endpoints = calloc(1, sizeof(*endpoints));
    if (endpoints == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for endpoints");
    }
    (void)pthread_mutex_init(&endpoints->lock, NULL);
    endpoints->door = door;
    endpoints->failures = conf->failures == 0 ? FAILURES : conf->failures;
    endpoints->open_ns = conf->open_ns == 0 ? OPEN_NS : conf->open_ns;
    endpoints->open_max_ns = conf->open_max_ns == 0 ? OPEN_MAX_NS : conf->open_max_ns;
    endpoints->say = conf->say;
    endpoints->is_sick = conf->is_sick == NULL ? is_sick_by_status : conf->is_sick;
    endpoints->name = strdup(conf->name);
    status = endpoints->name == NULL ? kms_error_set(err, KMS_E_NOMEM, "no memory for endpoints")
                                     : KMS_OK;
    for (size_t i = 0; status == KMS_OK && i < conf->count; i++) {
        status = add_url(endpoints, conf->urls[i], err);
    }
    if (status != KMS_OK) {
        kms_endpoints_free(endpoints);
        return status;
    }
    *ret = endpoints;
    return KMS_OK;
}

void kms_endpoints_free(struct kms_endpoints *endpoints)
{
    if (endpoints != NULL) {
        for (size_t i = 0; i < endpoints->count; i++) {
            free(endpoints->at[i].url);
        }
        free(endpoints->name);
        (void)pthread_mutex_destroy(&endpoints->lock);
        free(endpoints);
    }
}
