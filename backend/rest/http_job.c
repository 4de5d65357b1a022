/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/rest/http_parts.h"
#include "common/clock.h"
#include "common/secure.h"

/* ---- a job's copies ----------------------------------------------------------------------- */

/*
 * With a server name of its own, the URL carries that name (it is what SNI, the Host field and the
 * certificate's check take) and libcurl is told where to connect.
 */
static bool copy_url(const struct kms_http *http, struct kms_http_job *job, const char *url)
{
    const char *authority = strstr(url, "://") + 3;
    size_t len = strcspn(authority, "/?");
    size_t host_len = len;
    size_t url_size = 0;
    const char *colon = NULL;

    if (http->server_name == NULL) {
        job->url = strdup(url);
        return job->url != NULL;
    }
    colon = memrchr(authority, ':', len);
    if (colon != NULL && memchr(colon, ']', len - (size_t)(colon - authority)) == NULL) {
        host_len = (size_t)(colon - authority);
    }
    url_size = strlen(url) - host_len + strlen(http->server_name) + 1;
    job->url = malloc(url_size); /* asprintf() would leave copies behind */
    if (job->url == NULL) {
        return false;
    }
    (void)snprintf(job->url, url_size, "%.*s%s%s", (int)(authority - url), url, http->server_name,
                   authority + host_len);
    if (asprintf(&job->connect_to_text, "::%.*s:", (int)host_len, authority) < 0) {
        job->connect_to_text = NULL;
        return false;
    }
    job->connect_to = curl_slist_append(NULL, job->connect_to_text);
    return job->connect_to != NULL;
}

/* FNV-1a over scheme, host and port of a URL that was checked. */
static uint64_t host_of(const char *url)
{
    const char *end = strstr(url, "://") + 3;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    end += strcspn(end, "/?");
    for (; url < end; url++) {
        hash = (hash ^ (uint8_t)*url) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static bool add_header(struct kms_http_job *job, const char *name, const char *value)
{
    struct kms_blob line = {.data = NULL};
    struct curl_slist *list = NULL;
    /* "Name;" is how libcurl wants an empty field */
    const char *between = value[0] == '\0' ? ";" : ": ";

    if (kms_blob_reserve(&line, strlen(name) + strlen(value) + 4) == KMS_OK &&
        kms_blob_put(&line, kms_span_str(name), SIZE_MAX / 2) == KMS_OK &&
        kms_blob_put(&line, kms_span_str(between), SIZE_MAX / 2) == KMS_OK &&
        kms_blob_put(&line, kms_span_str(value), SIZE_MAX / 2) == KMS_OK) {
        list = curl_slist_append(job->headers, (const char *)line.data); /* wiped: wiping.h */
    }
    kms_blob_done(&line);
    if (list == NULL) {
        return false;
    }
    job->headers = list;
    return true;
}

static bool copy_headers(struct kms_http_job *job, const struct kms_http_request *request)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    job->headers = list;
    for (size_t i = 0; list != NULL && i < request->header_count; i++) {
        if (request->headers[i].value != NULL &&
            !add_header(job, request->headers[i].name, request->headers[i].value)) {
            return false;
        }
    }
    return list != NULL;
}

enum kms_status kms_http_job_new(struct kms_http *http, const struct kms_http_request *request,
                                 const struct kms_http_wait *wait, struct kms_http_job **ret_job,
                                 struct kms_error *err)
{
    struct kms_http_job *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a request");
    }
    (void)sem_init(&job->news, 0, 0);
    job->deadline_ns = wait->deadline_ns;
    job->start_ns = kms_now_ns();
    job->request = *request;
    job->host = host_of(request->url);
    for (size_t i = 0; i < request->want_count; i++) {
        job->want[i] = request->want[i];
    }
    job->request.want = job->want;
    if (!copy_url(http, job, request->url) || !copy_headers(job, request) ||
        kms_blob_put(&job->body, request->body, KMS_HTTP_REQUEST_MAX) != KMS_OK) {
        kms_http_job_free(job);
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a request");
    }
    job->request.url = job->url;
    job->request.headers = NULL;
    job->request.body = kms_blob_span(&job->body);
    *ret_job = job;
    return KMS_OK;
}

void kms_http_job_free(struct kms_http_job *job)
{
    curl_slist_free_all(job->headers);
    curl_slist_free_all(job->connect_to);
    free(job->connect_to_text);
    if (job->url != NULL) {
        kms_wipe(job->url, strlen(job->url)); /* a query may hold what is to be encrypted */
    }
    free(job->url);
    kms_blob_done(&job->body);
    kms_http_response_done(&job->response);
    (void)sem_destroy(&job->news);
    free(job);
}

/* ---- libcurl's callbacks ------------------------------------------------------------------ */

static size_t take_body(char *data, size_t size, size_t count, void *ctx)
{
    struct kms_http_job *job = ctx;

    job->take_status =
        kms_http_response_take_body(&job->request, &job->response, kms_span_of(data, size * count));
    return job->take_status == KMS_OK ? size * count : 0;
}

static size_t take_header(char *data, size_t size, size_t count, void *ctx)
{
    struct kms_http_job *job = ctx;
    size_t len = size * count;

    job->head_len += len;
    if (job->head_len > KMS_HTTP_HEAD_MAX) {
        job->take_status = KMS_E_PROTOCOL;
        return 0;
    }
    kms_http_response_take_header(&job->request, &job->response, kms_span_of(data, len));
    return len;
}

/* The connection is there, TLS and all, and the request is about to be sent: perhaps once more. */
static int note_connected(void *ctx, char *to, char *from, int to_port, int from_port)
{
    struct kms_http_job *job = ctx;

    (void)to;
    (void)from;
    (void)to_port;
    (void)from_port;
    job->is_connected = true;
    return CURL_PREREQFUNC_OK;
}

static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct kms_http_loop *loop = ctx;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

    (void)purpose;
    if (fd < 0) {
        return CURL_SOCKET_BAD;
    }
    atomic_fetch_add(&loop->http->sockets, 1);
    loop->fd = fd;
    return fd;
}

static int close_socket(void *ctx, curl_socket_t fd)
{
    struct kms_http_loop *loop = ctx;

    atomic_fetch_sub(&loop->http->sockets, 1);
    loop->fd = loop->fd == fd ? -1 : loop->fd;
    return close(fd);
}

#define BUFFER_SIZE 4096L  /* what is received at once; most replies are shorter */
#define UPLOAD_SIZE 16384L /* the least that libcurl takes */

/* ---- options ------------------------------------------------------------------------------ */

/* One failed option is one too many: libcurl built without it would do something else. */
#define SET(easy, bad, option, value)                                                              \
    ((bad) |= curl_easy_setopt((easy), (option), (value)) != CURLE_OK)

static CURLcode give_trust(CURL *easy, void *ssl_context, void *ctx)
{
    struct kms_http *http = ctx;
    struct kms_error error = KMS_ERROR_INIT;
    char *private = NULL;
    struct kms_http_job *job = NULL;

    if (kms_http_trust_give(http->trust, ssl_context, &error) == KMS_OK) {
        return CURLE_OK;
    }
    if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private) == CURLE_OK) {
        job = (struct kms_http_job *)(void *)private;
        (void)snprintf(job->trust_text, sizeof(job->trust_text), "%s", error.text);
    }
    return error.status == KMS_E_NOMEM ? CURLE_OUT_OF_MEMORY : CURLE_SSL_CACERT_BADFILE;
}

static bool set_trust(struct kms_http *http, CURL *easy)
{
    bool bad = false;

    if (http->trust == NULL) {
        SET(easy, bad, CURLOPT_CAINFO, http->ca_file);
        SET(easy, bad, CURLOPT_CAPATH, NULL);
        SET(easy, bad, CURLOPT_CA_CACHE_TIMEOUT, 60L); /* a changed file is seen */
    } else {
        SET(easy, bad, CURLOPT_CAINFO, NULL);
        SET(easy, bad, CURLOPT_CAPATH, NULL);
        SET(easy, bad, CURLOPT_SSL_CTX_FUNCTION, give_trust);
        SET(easy, bad, CURLOPT_SSL_CTX_DATA, http);
    }
    return !bad;
}

/* What is the same for all exchanges of a door stays set in a handle. */
static bool set_tls(const struct kms_http *http, CURL *easy)
{
    bool bad = false;

    SET(easy, bad, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* or newer */
    SET(easy, bad, CURLOPT_SSL_VERIFYPEER, 1L);
    SET(easy, bad, CURLOPT_SSL_VERIFYHOST, 2L);
    if (http->client_certificate != NULL) {
        SET(easy, bad, CURLOPT_SSLCERT, http->client_certificate);
        SET(easy, bad, CURLOPT_SSLKEY, http->client_key);
        if (strncmp(http->client_key, "pkcs11:", strlen("pkcs11:")) == 0) {
            SET(easy, bad, CURLOPT_SSLKEYTYPE, "ENG"); /* libcurl takes the engine "pkcs11" */
        }
    }
    return !bad;
}

static bool set_ways(struct kms_http_loop *loop, CURL *easy)
{
    const struct kms_http *http = loop->http;
    bool bad = false;

    SET(easy, bad, CURLOPT_NOSIGNAL, 1L);
    SET(easy, bad, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(easy, bad, CURLOPT_FOLLOWLOCATION, 0L);
    SET(easy, bad, CURLOPT_HTTP_VERSION,
        http->http1 ? (long)CURL_HTTP_VERSION_1_1 : (long)CURL_HTTP_VERSION_2TLS);
    SET(easy, bad, CURLOPT_PIPEWAIT, 1L); /* rather a stream of the connection that is being made */
    SET(easy, bad, CURLOPT_PROXY, "");    /* never by environment */
    SET(easy, bad, CURLOPT_NOPROXY, "");
    SET(easy, bad, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(easy, bad, CURLOPT_TCP_KEEPALIVE, 1L);
    SET(easy, bad, CURLOPT_BUFFERSIZE, BUFFER_SIZE); /* made, and wiped, for each exchange */
    SET(easy, bad, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_SIZE);
    SET(easy, bad, CURLOPT_QUICK_EXIT, 1L); /* a resolver that hangs is not waited for */
    SET(easy, bad, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(easy, bad, CURLOPT_OPENSOCKETDATA, loop);
    SET(easy, bad, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    SET(easy, bad, CURLOPT_CLOSESOCKETDATA, loop);
    return !bad;
}

static bool set_request(const struct kms_http *http, struct kms_http_job *job, CURL *easy)
{
    bool has_body = job->request.body.len > 0 || job->request.method == KMS_HTTP_POST ||
                    job->request.method == KMS_HTTP_PUT;
    bool bad = false;

    SET(easy, bad, CURLOPT_URL, job->url);
    if (http->proxy != NULL) { /* what is not encrypted would leave the machine by it */
        bool is_tls = strncmp(job->url, "https:", strlen("https:")) == 0;

        SET(easy, bad, CURLOPT_PROXY, is_tls ? http->proxy : "");
    }
    if (has_body) { /* borrowed, not copied */
        SET(easy, bad, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)job->request.body.len);
        SET(easy, bad, CURLOPT_POSTFIELDS, (const char *)job->body.data);
    } else {
        SET(easy, bad, CURLOPT_HTTPGET, 1L);
    }
    SET(easy, bad, CURLOPT_CUSTOMREQUEST, kms_http_method_name(job->request.method));
    SET(easy, bad, CURLOPT_HTTPHEADER, job->headers);
    SET(easy, bad, CURLOPT_CONNECT_TO, job->connect_to);
    SET(easy, bad, CURLOPT_FRESH_CONNECT, job->is_fresh ? 1L : 0L);
    /* a session that is resumed is that of the certificate that it began with */
    SET(easy, bad, CURLOPT_SSL_SESSIONID_CACHE, job->request.fresh ? 0L : 1L);
    SET(easy, bad, CURLOPT_WRITEFUNCTION, take_body);
    SET(easy, bad, CURLOPT_WRITEDATA, job);
    SET(easy, bad, CURLOPT_HEADERFUNCTION, take_header);
    SET(easy, bad, CURLOPT_HEADERDATA, job);
    SET(easy, bad, CURLOPT_PREREQFUNCTION, note_connected);
    SET(easy, bad, CURLOPT_PREREQDATA, job);
    SET(easy, bad, CURLOPT_ERRORBUFFER, job->curl_text);
    SET(easy, bad, CURLOPT_PRIVATE, job);
    return !bad;
}

static bool set_times(const struct kms_http *http, const struct kms_http_job *job, CURL *easy)
{
    uint64_t left = kms_deadline_left(job->deadline_ns);
    uint64_t left_ms = left / KMS_NS_PER_MS + 1;
    uint64_t connect_ms = http->connect_ns / KMS_NS_PER_MS + 1;
    bool bad = false;

    left_ms = left_ms > INT32_MAX ? INT32_MAX : left_ms;
    SET(easy, bad, CURLOPT_TIMEOUT_MS, (long)left_ms);
    SET(easy, bad, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ms < left_ms ? connect_ms : left_ms));
    return !bad;
}

CURL *kms_http_easy_new(struct kms_http_loop *loop)
{
    CURL *easy = curl_easy_init();

    if (easy != NULL &&
        (!set_trust(loop->http, easy) || !set_tls(loop->http, easy) || !set_ways(loop, easy))) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

enum kms_status kms_http_job_set(struct kms_http *http, struct kms_http_job *job)
{
    if (job->easy == NULL) {
        return kms_error_set(&job->error, KMS_E_NOMEM,
                             "libcurl has no memory, or refuses an option that is needed");
    }
    if (!set_request(http, job, job->easy) || !set_times(http, job, job->easy)) {
        return kms_error_set(&job->error, KMS_E_INTERNAL,
                             "libcurl refuses an option that is needed");
    }
    return KMS_OK;
}

/*
 * libcurl forgets the request, whose memory is the job's. What it keeps are the parts of the URL,
 * and a query may hold what is to be encrypted.
 */
bool kms_http_job_clear(struct kms_http_job *job)
{
    CURL *easy = job->easy;
    bool bad = strchr(job->url, '?') != NULL;

    SET(easy, bad, CURLOPT_URL, NULL);
    SET(easy, bad, CURLOPT_POSTFIELDS, NULL);
    SET(easy, bad, CURLOPT_HTTPHEADER, NULL);
    SET(easy, bad, CURLOPT_CONNECT_TO, NULL);
    SET(easy, bad, CURLOPT_WRITEDATA, NULL);
    SET(easy, bad, CURLOPT_HEADERDATA, NULL);
    SET(easy, bad, CURLOPT_PREREQDATA, NULL);
    SET(easy, bad, CURLOPT_ERRORBUFFER, NULL);
    SET(easy, bad, CURLOPT_PRIVATE, NULL);
    return !bad;
}

/* ---- the end ------------------------------------------------------------------------------ */

static const struct code_row {
    CURLcode code;
    enum kms_status status;
    const char *what;
} code_rows[] = {
    {CURLE_COULDNT_RESOLVE_HOST, KMS_E_UNAVAILABLE, "its name cannot be resolved"},
    {CURLE_COULDNT_RESOLVE_PROXY, KMS_E_UNAVAILABLE, "the proxy's name cannot be resolved"},
    {CURLE_COULDNT_CONNECT, KMS_E_UNAVAILABLE, "no connection"},
    {CURLE_PROXY, KMS_E_UNAVAILABLE, "the proxy makes no connection"},
    {CURLE_SEND_ERROR, KMS_E_UNAVAILABLE, "cut off while sending"},
    {CURLE_RECV_ERROR, KMS_E_UNAVAILABLE, "cut off while receiving"},
    {CURLE_GOT_NOTHING, KMS_E_UNAVAILABLE, "cut off before the reply"},
    {CURLE_PARTIAL_FILE, KMS_E_UNAVAILABLE, "cut off in the reply"},
    {CURLE_HTTP2, KMS_E_UNAVAILABLE, "HTTP/2 broke off"},
    {CURLE_HTTP2_STREAM, KMS_E_UNAVAILABLE, "HTTP/2 broke off"},
    {CURLE_SSL_CONNECT_ERROR, KMS_E_UNAVAILABLE, "no TLS connection"},
    {CURLE_PEER_FAILED_VERIFICATION, KMS_E_PROTOCOL, "its certificate does not verify"},
    {CURLE_SSL_ISSUER_ERROR, KMS_E_PROTOCOL, "its certificate does not verify"},
    {CURLE_SSL_CERTPROBLEM, KMS_E_INVALID, "our client certificate or its key cannot be used"},
    {CURLE_SSL_CACERT_BADFILE, KMS_E_INVALID, "the file of CA certificates cannot be used"},
    {CURLE_SSL_ENGINE_NOTFOUND, KMS_E_INVALID, "OpenSSL has no engine for the client key"},
    {CURLE_SSL_ENGINE_INITFAILED, KMS_E_INVALID, "OpenSSL has no engine for the client key"},
    {CURLE_WEIRD_SERVER_REPLY, KMS_E_PROTOCOL, "what came is not HTTP"},
    {CURLE_UNSUPPORTED_PROTOCOL, KMS_E_PROTOCOL, "what came is not HTTP"},
    {CURLE_OUT_OF_MEMORY, KMS_E_NOMEM, "no memory"},
};

bool kms_http_is_late(const struct kms_http_job *job)
{
    return kms_deadline_left(job->deadline_ns) < 2 * KMS_NS_PER_MS; /* libcurl counts in these */
}

/* Our own connect timeout says that nobody is there; the deadline says that we are late. */
static struct code_row timed_out(const struct kms_http_job *job)
{
    return kms_http_is_late(job)
               ? (struct code_row){CURLE_OPERATION_TIMEDOUT, KMS_E_TIMEOUT, "no reply in time"}
               : (struct code_row){CURLE_OPERATION_TIMEDOUT, KMS_E_UNAVAILABLE,
                                   "no connection in time"};
}

static struct code_row row_of(const struct kms_http_job *job, CURLcode code)
{
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return timed_out(job);
    }
    if (job->take_status == KMS_E_PROTOCOL) {
        return (struct code_row){code, KMS_E_PROTOCOL, "its reply is over our bounds"};
    }
    if (job->take_status != KMS_OK) {
        return (struct code_row){code, job->take_status, "no secure memory for its reply"};
    }
    for (size_t i = 0; i < sizeof(code_rows) / sizeof(code_rows[0]); i++) {
        if (code_rows[i].code == code) {
            return code_rows[i];
        }
    }
    return (struct code_row){code, KMS_E_PROTOCOL, "the exchange failed"};
}

/* Scheme, host and port: a path may name keys, and needs no place in every text. */
static int origin_len(const char *url)
{
    const char *authority = strstr(url, "://") + 3;

    return (int)(authority - url) + (int)strcspn(authority, "/?");
}

/* libcurl counts what it asks of a proxy (CONNECT), too: that the service has not seen. */
void kms_http_job_note_sent(struct kms_http_job *job)
{
    long request_size = 0;

    (void)curl_easy_getinfo(job->easy, CURLINFO_REQUEST_SIZE, &request_size);
    job->response.was_sent = job->is_connected && request_size > 0;
}

void kms_http_job_finish(struct kms_http_job *job, CURLcode code)
{
    long status = 0;
    const char *text = job->trust_text;
    struct code_row row;

    (void)curl_easy_getinfo(job->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(job->easy, CURLINFO_HTTP_VERSION, &job->http_version);
    kms_http_job_note_sent(job);
    if (code == CURLE_OK && status >= 100 && status < 600) {
        job->response.status = (unsigned)status;
        job->status = KMS_OK;
        return;
    }
    row = code == CURLE_OK ? (struct code_row){code, KMS_E_PROTOCOL, "what came is not HTTP"}
                           : row_of(job, code);
    text = text[0] != '\0' ? text : job->curl_text;
    job->status =
        kms_error_set(&job->error, row.status, "%.*s: %s (%s)", origin_len(job->url), job->url,
                      row.what, text[0] == '\0' ? curl_easy_strerror(code) : text);
}
