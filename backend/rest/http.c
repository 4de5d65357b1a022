/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/http.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/numbers.h"

static const char *const methods[KMS_HTTP_METHOD_COUNT] = {
    [KMS_HTTP_GET] = "GET",       [KMS_HTTP_POST] = "POST", [KMS_HTTP_PUT] = "PUT",
    [KMS_HTTP_DELETE] = "DELETE", [KMS_HTTP_LIST] = "LIST",
};

const char *kms_http_method_name(enum kms_http_method method)
{
    return (unsigned)method < KMS_HTTP_METHOD_COUNT ? methods[method] : "unknown";
}

/* ---- what may be asked -------------------------------------------------------------------- */

/* The host of an authority: "[::1]:80" and "localhost:80" to what stands before the port. Empty
 * where a bracket is not closed. */
static struct kms_span host_of(const char *authority, size_t len)
{
    const char *end = memchr(authority, authority[0] == '[' ? ']' : ':', len);

    if (end == NULL) {
        return kms_span_of(authority, authority[0] == '[' ? 0 : len);
    }
    return kms_span_of(authority, (size_t)(end - authority) + (authority[0] == '[' ? 1u : 0u));
}

/* 127.0.0.0/8 in dotted form only: what libcurl asks the DNS for, "127.+0.0.1" as well as
 * "127.evil.example", is not taken for it. */
static bool is_loopback(struct kms_span host)
{
    char text[64] = "";
    uint8_t bytes[4];

    if (host.len >= sizeof(text)) {
        return false;
    }
    memcpy(text, host.data, host.len);
    if (strcmp(text, "localhost") == 0 || strcmp(text, "[::1]") == 0) {
        return true;
    }
    return inet_pton(AF_INET, text, bytes) == 1 && bytes[0] == 127;
}

static bool is_clean(const char *url)
{
    for (const char *at = url; *at != '\0'; at++) {
        if ((unsigned char)*at <= 0x20 || (unsigned char)*at >= 0x7f ||
            strchr("#\"<>\\^`{|}", *at)) {
            return false;
        }
    }
    return strlen(url) < KMS_HTTP_URL_MAX;
}

static bool is_port(struct kms_span rest)
{
    char text[8] = "";
    uint64_t port = 0;

    if (rest.len == 0) {
        return true;
    }
    if (rest.data[0] != ':' || rest.len > sizeof(text)) {
        return false;
    }
    memcpy(text, rest.data + 1, rest.len - 1);
    return kms_parse_u64(text, 1, 65535, &port) == KMS_OK;
}

enum kms_status kms_http_check_url(const char *url, bool plain_ok, struct kms_error *err)
{
    bool is_tls = strncmp(url, "https://", 8) == 0;
    const char *authority = url + (is_tls ? 8 : 7);
    size_t len = 0;
    struct kms_span host;

    if (!is_tls && strncmp(url, "http://", 7) != 0) {
        return kms_error_set(err, KMS_E_INVALID, "must begin with https://");
    }
    if (!is_clean(url)) {
        return kms_error_set(err, KMS_E_INVALID, "is no URL that can be used here");
    }
    len = strcspn(authority, "/?");
    if (memchr(authority, '@', len) != NULL) {
        return kms_error_set(err, KMS_E_INVALID, "must not hold a user or a password");
    }
    host = host_of(authority, len);
    if (host.len == 0 || !is_port(kms_span_of(authority + host.len, len - host.len))) {
        return kms_error_set(err, KMS_E_INVALID, "must have a host, and a port from 1 to 65535");
    }
    if (!is_tls && !plain_ok && !is_loopback(host)) {
        return kms_error_set(err, KMS_E_INVALID, "must be https:// unless the host is loopback");
    }
    return KMS_OK;
}

enum kms_status kms_http_put_escaped(struct kms_buf *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    enum kms_status status = KMS_OK;

    for (; status == KMS_OK && *text != '\0'; text++) {
        uint8_t c = (uint8_t)*text;
        uint8_t escaped[3] = {'%', (uint8_t)digits[c >> 4], (uint8_t)digits[c & 15u]};
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';

        status = kms_buf_put(out, is_plain ? kms_span_of(&c, 1) : kms_span_of(escaped, 3));
    }
    return status;
}

static enum kms_status check_headers(const struct kms_http_request *request, struct kms_error *err)
{
    if (request->header_count > KMS_HTTP_HEADER_MAX || request->want_count > KMS_HTTP_WANT_MAX) {
        return kms_error_set(err, KMS_E_INTERNAL, "a request with too many header fields");
    }
    for (size_t i = 0; i < request->header_count; i++) {
        const char *value = request->headers[i].value;

        /* what a secret's file holds besides the secret would be a header of its own */
        if (value != NULL && strpbrk(value, "\r\n") != NULL) {
            return kms_error_set(err, KMS_E_INVALID, "the value of header %s holds a line end",
                                 request->headers[i].name);
        }
    }
    return KMS_OK;
}

enum kms_status kms_http_perform(struct kms_http_door *door, const struct kms_http_request *request,
                                 const struct kms_http_wait *wait, struct kms_http_response *ret,
                                 struct kms_error *err)
{
    enum kms_status status = kms_http_check_url(request->url, request->plain_ok, err);

    if (status == KMS_OK) {
        status = check_headers(request, err);
    }
    if (status == KMS_OK && request->body.len > KMS_HTTP_REQUEST_MAX) {
        status = kms_error_set(err, KMS_E_TOO_LARGE, "a request is at most %u bytes, not %zu",
                               KMS_HTTP_REQUEST_MAX, request->body.len);
    }
    if (status == KMS_OK && wait->cancelled != NULL && atomic_load(wait->cancelled)) {
        status = kms_error_set(err, KMS_E_CANCELLED, "the caller gave up");
    }
    if (status == KMS_OK && kms_deadline_passed(wait->deadline_ns)) {
        status = kms_error_set(err, KMS_E_TIMEOUT, "the deadline passed before the request");
    }
    return status == KMS_OK ? door->perform(door, request, wait, ret, err) : status;
}

void kms_http_door_close(struct kms_http_door *door)
{
    if (door != NULL) {
        door->close(door);
    }
}

/* ---- what came ---------------------------------------------------------------------------- */

enum kms_http_word kms_http_word_of(enum kms_status status,
                                    const struct kms_http_response *response)
{
    if (response->is_over) {
        return KMS_HTTP_SAYS_NOTHING;
    }
    switch (status) {
    case KMS_E_CANCELLED:
    case KMS_E_BUSY:
    case KMS_E_THROTTLED:
    case KMS_E_NOMEM:
    case KMS_E_TOO_LARGE:
        return KMS_HTTP_SAYS_NOTHING;
    case KMS_E_AUTH:
    case KMS_E_UNAVAILABLE:
    case KMS_E_TIMEOUT:
    case KMS_E_PROTOCOL:
        return KMS_HTTP_SAYS_ILL;
    default:
        return status == KMS_OK || response->status != 0 ? KMS_HTTP_SAYS_WELL : KMS_HTTP_SAYS_ILL;
    }
}

void kms_http_response_done(struct kms_http_response *response)
{
    kms_blob_done(&response->body);
    *response = (struct kms_http_response)KMS_HTTP_RESPONSE_INIT;
}

const char *kms_http_response_header(const struct kms_http_request *request,
                                     const struct kms_http_response *response, const char *name)
{
    for (size_t i = 0; i < request->want_count; i++) {
        if (strcasecmp(request->want[i], name) == 0) {
            return response->want[i];
        }
    }
    return "";
}

static void leave_alone_for(struct kms_http_response *response, uint64_t seconds)
{
    const uint64_t most = KMS_HTTP_RETRY_MAX_NS / KMS_NS_PER_S;

    response->retry_after_ns = (seconds < most ? seconds : most) * KMS_NS_PER_S;
}

/* A time of the server's is taken by the server's clock, where it tells it; fields come in any
 * order. */
static void take_time(struct kms_http_response *response)
{
    int64_t now =
        response->date_s != 0 ? response->date_s : (int64_t)(kms_wall_ms() / UINT64_C(1000));

    if (response->retry_at_s != 0) {
        leave_alone_for(response,
                        response->retry_at_s > now ? (uint64_t)(response->retry_at_s - now) : 0);
    }
}

static void take_retry_after(struct kms_http_response *response, const char *value)
{
    uint64_t seconds = 0;

    if (value[0] != '\0' && value[strspn(value, "0123456789")] == '\0') {
        if (kms_parse_u64(value, 0, UINT64_MAX, &seconds) != KMS_OK) {
            seconds = UINT64_MAX; /* more than that */
        }
        response->retry_at_s = 0;
        leave_alone_for(response, seconds);
    } else {
        response->retry_at_s = kms_http_date(value);
        take_time(response);
    }
}

void kms_http_response_take_header(const struct kms_http_request *request,
                                   struct kms_http_response *response, struct kms_span line)
{
    const char *text = (const char *)line.data;
    const char *colon = line.len == 0 ? NULL : memchr(text, ':', line.len);
    size_t name_len = colon == NULL ? 0 : (size_t)(colon - text);
    size_t at = name_len + 1;
    size_t end = line.len;
    char value[KMS_HTTP_VALUE_MAX] = "";

    if (line.len >= 5 && memcmp(text, "HTTP/", 5) == 0) {
        /* what came before was of an interim reply (RFC 9110 15.2), and says nothing of this one */
        memset(response->want, 0, sizeof(response->want));
        response->retry_after_ns = 0;
        response->date_s = response->retry_at_s = 0;
        return;
    }
    if (colon == NULL) {
        return; /* the empty line */
    }
    while (at < end && (text[at] == ' ' || text[at] == '\t')) {
        at++;
    }
    while (end > at && strchr(" \t\r\n", text[end - 1]) != NULL) {
        end--;
    }
    if (end - at >= sizeof(value)) {
        return;
    }
    memcpy(value, text + at, end - at);
    if (name_len == 11 && strncasecmp(text, "Retry-After", 11) == 0) {
        take_retry_after(response, value);
    } else if (name_len == 4 && strncasecmp(text, "Date", 4) == 0) {
        response->date_s = kms_http_date(value);
        take_time(response);
    }
    for (size_t i = 0; i < request->want_count; i++) {
        if (response->want[i][0] == '\0' && strlen(request->want[i]) == name_len &&
            strncasecmp(text, request->want[i], name_len) == 0) {
            (void)snprintf(response->want[i], sizeof(response->want[i]), "%s", value);
        }
    }
}

enum kms_status kms_http_response_take_body(const struct kms_http_request *request,
                                            struct kms_http_response *response,
                                            struct kms_span bytes)
{
    size_t max = request->body_max == 0 ? KMS_HTTP_BODY_MAX : request->body_max;
    enum kms_status status = kms_blob_put(&response->body, bytes, max);

    response->is_over = status == KMS_E_TOO_LARGE;
    return response->is_over ? KMS_E_PROTOCOL : status;
}

enum kms_status kms_http_response_fill(const struct kms_http_request *request,
                                       struct kms_http_response *response, unsigned status,
                                       struct kms_span body, const char *const *header_lines)
{
    response->status = status;
    response->was_sent = true;
    for (; header_lines != NULL && *header_lines != NULL; header_lines++) {
        kms_http_response_take_header(request, response, kms_span_str(*header_lines));
    }
    return kms_http_response_take_body(request, response, body);
}
