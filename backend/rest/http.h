/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP exchange with a key service, behind a door: a function table, so that tests, vectors and
 * fuzzers answer where libcurl does in production. What to ask, which endpoint and what an answer
 * means is the service's; retrying is the waist's. A door makes one attempt and never follows a
 * redirect.
 *
 * Who may include this: backend/rest and the backends over HTTPS. It uses common/ only.
 *
 * Threads: a door is used by any number of threads at once. Ownership: everything in a request is
 * borrowed for the call and copied into secure memory where it must outlive it; a response owns its
 * body, in secure memory, until kms_http_response_done().
 */
#ifndef KMS_BACKEND_REST_HTTP_H
#define KMS_BACKEND_REST_HTTP_H

#include <stdatomic.h>

#include "backend/rest/blob.h"
#include "common/span.h"
#include "common/status.h"

#define KMS_HTTP_URL_MAX      32768          /* with NUL; a query may hold a whole request */
#define KMS_HTTP_HEADER_MAX   24             /* of a request */
#define KMS_HTTP_REQUEST_MAX  (256u * 1024u) /* bytes of a request's body */
#define KMS_HTTP_BODY_MAX     (256u * 1024u) /* bytes of a reply's body, unless asked for less */
#define KMS_HTTP_HEAD_MAX     (32u * 1024u)  /* bytes of a reply's header lines together */
#define KMS_HTTP_WANT_MAX     6              /* header fields of a reply that are kept */
#define KMS_HTTP_VALUE_MAX    256            /* with NUL; longer values are not kept */
#define KMS_HTTP_RETRY_MAX_NS UINT64_C(60000000000) /* a longer Retry-After is taken for this */

enum kms_http_method {
    KMS_HTTP_GET,
    KMS_HTTP_POST,
    KMS_HTTP_PUT,
    KMS_HTTP_DELETE,
    KMS_HTTP_LIST, /* HashiCorp Vault's */
    KMS_HTTP_METHOD_COUNT
};
const char *kms_http_method_name(enum kms_http_method method); /* "GET", ... Never NULL. */

struct kms_http_header {
    const char *name;
    const char *value; /* no CR, no LF: KMS_E_INVALID. NULL: the field is left out */
};

/* How long a caller waits. The members of struct kms_call, which rest/ does not know. */
struct kms_http_wait {
    uint64_t deadline_ns;         /* kms_now_ns() scale */
    const atomic_bool *cancelled; /* NULL, or true once the caller gave up */
    const char *trace_id;         /* NULL, or for the log */
};

struct kms_http_request {
    /*
     * kms_endpoints_perform() calls it for each endpoint that it asks, with the whole URL and a
     * copy of the request, to set headers that depend on it (signatures over the host). NULL:
     * nothing depends.
     */
    enum kms_status (*prepare)(void *ctx, const char *url, struct kms_http_request *request,
                               struct kms_error *err);
    void *prepare_ctx;
    enum kms_http_method method;
    const char *url; /* whole, or from "/" on where kms_endpoints_perform() puts its base before */
    const struct kms_http_header *headers; /* values may be secrets: copies are wiped */
    size_t header_count;
    struct kms_span body;    /* empty: none */
    const char *const *want; /* header fields to keep of the reply, any case; static texts */
    size_t want_count;       /* at most KMS_HTTP_WANT_MAX */
    size_t body_max;         /* of the reply; 0: KMS_HTTP_BODY_MAX */
    bool once;  /* not idempotent: libcurl may not send it a second time either, as it does when a
                   kept connection turns out to be closed; costs a connection of its own */
    bool fresh; /* over a new connection with a handshake of its own: who we are by our client
                   certificate is what its file holds now, not what it held */
    bool plain_ok; /* http:// beyond loopback: for the fixed addresses of clouds' metadata services
                      alone */
};

/* What came. Any status of 100 to 599 is an answer; what it means is the service's to say. */
struct kms_http_response {
    unsigned status;
    struct kms_blob body;
    char want[KMS_HTTP_WANT_MAX][KMS_HTTP_VALUE_MAX]; /* as request->want; "" where absent
                                                         or too long; the first of several */
    uint64_t retry_after_ns; /* Retry-After (RFC 9110 10.2.3), at most KMS_HTTP_RETRY_MAX_NS; a date
                                counts from the reply's own Date, else from our clock. 0: none */
    int64_t date_s;          /* its Date, in seconds since 1970; 0: none */
    int64_t retry_at_s;      /* Retry-After where it is a date; 0: it is none */
    uint64_t began_ns; /* when it had a connection, or was to make one; 0: never, or nobody says */
    bool was_sent;     /* on failure, too: the service may have seen the request. When false, asking
                          again is safe whatever the request is */
    bool is_over; /* KMS_E_PROTOCOL because the body is over its ceiling: of who sent it that says
                     nothing */
    const char *origin; /* kms_endpoints_perform(): the endpoint that was asked; lives with it */
};

struct kms_http_door {
    /*
     * One exchange. @ret is initialised by the caller with KMS_HTTP_RESPONSE_INIT, and done with
     * kms_http_response_done() by the caller whatever comes back. Errors:
     *   KMS_E_UNAVAILABLE  no connection, cut off, TLS handshake broken off
     *   KMS_E_TIMEOUT      wait->deadline_ns
     *   KMS_E_CANCELLED    wait->cancelled
     *   KMS_E_PROTOCOL     not HTTP; a certificate that does not verify or has another name; a
     *                      reply over a ceiling (not KMS_E_TOO_LARGE: it is not the caller's data)
     *   KMS_E_INVALID      the request or our own TLS files
     *   KMS_E_TOO_LARGE    the request's body
     *   KMS_E_BUSY         too many exchanges at once, or no connection free until the deadline
     */
    enum kms_status (*perform)(struct kms_http_door *door, const struct kms_http_request *request,
                               const struct kms_http_wait *wait, struct kms_http_response *ret,
                               struct kms_error *err);
    void (*close)(struct kms_http_door *door);
    /* For kms_health; NULL: not known. */
    void (*count)(struct kms_http_door *door, unsigned *ret_open, unsigned *ret_busy,
                  unsigned *ret_max, uint64_t *ret_oldest_ns);
};

#define KMS_HTTP_RESPONSE_INIT                                                                     \
    {                                                                                              \
        .status = 0                                                                                \
    }

/* How the real door speaks. NULLs and zeros are the defaults. All strings are borrowed for open. */
struct kms_http_conf {
    const char *name;               /* the backend's, for texts and the log */
    const char *ca_file;            /* PEM; then nothing else is trusted. NULL: the system's */
    const char *client_certificate; /* PEM file, chain behind it */
    const char *client_key;         /* PEM file, or a pkcs11: URI (OpenSSL's engine of that name) */
    const char *server_name;        /* SNI, Host and certificate name, instead of the URL's host */
    const char *proxy;           /* "http://host:port", for https:// alone; NULL: none, whatever the
                                    environment says */
    bool http1;                  /* HTTP/1.1 alone; else HTTP/2 where offered */
    unsigned connections;        /* for each host; 0: 16 */
    unsigned calls;              /* at once; 0: 512 */
    uint64_t connect_timeout_ns; /* 0: 2 s */
};

/*
 * libcurl, driven by the callers' own threads: it has none of its own, and neither has the door,
 * since handing an exchange to another thread costs more than the HTTP does. HTTP/2 where offered,
 * unless only HTTP/1.1 is wanted; connections kept. KMS_E_INVALID, KMS_E_NOMEM.
 */
enum kms_status kms_http_open(const struct kms_http_conf *conf, struct kms_http_door **ret_door,
                              struct kms_error *err) KMS_MUST_CHECK;

/* One exchange through any door. */
enum kms_status kms_http_perform(struct kms_http_door *door, const struct kms_http_request *request,
                                 const struct kms_http_wait *wait, struct kms_http_response *ret,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_http_door_close(struct kms_http_door *door); /* NULL is fine; no exchange is in flight */

/* What an exchange tells of the service's health, whatever it is about. */
enum kms_http_word {
    KMS_HTTP_SAYS_NOTHING, /* given up, put off, or an answer that we cannot take */
    KMS_HTTP_SAYS_WELL,    /* it answered as it should, if only by refusing */
    KMS_HTTP_SAYS_ILL, /* it did not, or not to us; without an answer nobody knows that it is well:
                          our own TLS files may be bad */
};
enum kms_http_word kms_http_word_of(enum kms_status status,
                                    const struct kms_http_response *response);

/* Wipes and frees; the response may be used again. */
void kms_http_response_done(struct kms_http_response *response);
/* The wanted header @name of @request in @response; "" when it did not come. */
const char *kms_http_response_header(const struct kms_http_request *request,
                                     const struct kms_http_response *response, const char *name);

/*
 * What a door of a test is given: status and body of a reply, and header lines ("Name: value") up
 * to a NULL. The real door goes through the same functions.
 */
enum kms_status kms_http_response_fill(const struct kms_http_request *request,
                                       struct kms_http_response *response, unsigned status,
                                       struct kms_span body,
                                       const char *const *header_lines) KMS_MUST_CHECK;
/* One header line, with or without its line end; a status line begins anew. */
void kms_http_response_take_header(const struct kms_http_request *request,
                                   struct kms_http_response *response, struct kms_span line);
/* An HTTP-date in each of its three forms (RFC 9110 5.6.7), seconds since 1970; 0: it is none. */
int64_t kms_http_date(const char *text);
/* Some of the body; KMS_E_PROTOCOL over the ceiling. */
enum kms_status kms_http_response_take_body(const struct kms_http_request *request,
                                            struct kms_http_response *response,
                                            struct kms_span bytes) KMS_MUST_CHECK;

/*
 * An absolute URL that we may use: https, or http to loopback (127.0.0.0/8, [::1], localhost), or
 * anywhere with @plain_ok; a host; no user, no fragment, no blanks. KMS_E_INVALID says why not; the
 * text does not repeat the URL.
 */
enum kms_status kms_http_check_url(const char *url, bool plain_ok,
                                   struct kms_error *err) KMS_MUST_CHECK;

/* Appends @text with everything but RFC 3986's unreserved characters as %XX; for one path segment
 * or query value. KMS_E_TOO_LARGE. */
enum kms_status kms_http_put_escaped(struct kms_buf *out, const char *text) KMS_MUST_CHECK;

#endif
