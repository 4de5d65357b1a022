/* SPDX-License-Identifier: Apache-2.0 */
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/https_parts.h"

struct h2 {
    struct https_connection *connection;
    nghttp2_session *session;
    struct https_exchange *exchanges;
};

static struct https_exchange *exchange_of(nghttp2_session *session, int32_t stream)
{
    return nghttp2_session_get_stream_user_data(session, stream);
}

/* ---- libnghttp2's callbacks --------------------------------------------------------------- */

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t len, int flags,
                       void *ctx)
{
    struct h2 *h2 = ctx;

    (void)session;
    (void)flags;
    return https_put(h2->connection, bytes, len) ? (ssize_t)len : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct h2 *h2 = ctx;
    struct https_exchange *exchange = NULL;

    if (frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    exchange = calloc(1, sizeof(*exchange));
    if (exchange == NULL) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    exchange->stream = frame->hd.stream_id;
    exchange->next = h2->exchanges;
    h2->exchanges = exchange;
    return nghttp2_session_set_stream_user_data(session, exchange->stream, exchange);
}

static void keep(char *to, size_t size, const uint8_t *value, size_t len)
{
    len = len < size - 1 ? len : size - 1;
    memcpy(to, value, len);
    to[len] = '\0';
}

static int on_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                    size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                    void *ctx)
{
    struct https_exchange *exchange = exchange_of(session, frame->hd.stream_id);
    struct https_server *server = ((struct h2 *)ctx)->connection->server;

    if (exchange == NULL) {
        return 0;
    }
    if (name[0] != ':' && (flags & NGHTTP2_NV_FLAG_NO_INDEX) == 0) {
        https_server_count(server, &server->seen.indexable);
    }
    if (name_len == 7 && memcmp(name, ":method", 7) == 0) {
        keep(exchange->method, sizeof(exchange->method), value, value_len);
    } else if (name_len == 5 && memcmp(name, ":path", 5) == 0) {
        keep(exchange->path, sizeof(exchange->path), value, value_len);
    } else if (name_len == 7 && memcmp(name, "x-token", 7) == 0) {
        keep(exchange->token, sizeof(exchange->token), value, value_len);
    }
    return 0;
}

static int on_body(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes,
                   size_t len, void *ctx)
{
    struct https_exchange *exchange = exchange_of(session, stream);

    (void)flags;
    (void)ctx;
    if (exchange != NULL) {
        https_exchange_take_body(exchange, bytes, len);
    }
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct h2 *h2 = ctx;
    struct https_server *server = h2->connection->server;
    struct https_exchange *exchange = exchange_of(session, frame->hd.stream_id);

    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        https_server_count(server, &server->seen.resets);
    }
    if (exchange != NULL && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
        https_exchange_came(server, exchange);
    }
    return 0;
}

static void forget(struct h2 *h2, struct https_exchange *exchange)
{
    struct https_exchange **at = &h2->exchanges;

    while (*at != exchange) {
        at = &(*at)->next;
    }
    *at = exchange->next;
    https_exchange_gone(h2->connection->server, exchange);
    free(exchange);
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *ctx)
{
    struct https_exchange *exchange = exchange_of(session, stream);

    (void)code;
    if (exchange != NULL) {
        forget(ctx, exchange);
    }
    return 0;
}

static ssize_t read_answer(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct https_exchange *exchange = source->ptr;
    bool is_half = strncmp(exchange->path, "/half", 5) == 0;
    size_t left = exchange->answer_len - exchange->sent - (is_half ? 1 : 0);
    size_t some = left < room ? left : room;

    (void)session;
    (void)stream;
    (void)ctx;
    if (is_half && left == 0) {
        return NGHTTP2_ERR_DEFERRED; /* for good */
    }
    memcpy(out, exchange->answer + exchange->sent, some);
    exchange->sent += some;
    if (some == left && !is_half) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)some;
}

/* ---- serving ------------------------------------------------------------------------------ */

static void submit(struct h2 *h2, struct https_exchange *exchange)
{
    static uint8_t name[] = ":status";
    static uint8_t value[] = "200";
    const nghttp2_nv status = {name, value, sizeof(name) - 1, sizeof(value) - 1,
                               NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider body = {.source.ptr = exchange, .read_callback = read_answer};

    exchange->is_answered = true;
    (void)nghttp2_submit_response(h2->session, exchange->stream, &status, 1, &body);
}

static void submit_all(struct h2 *h2)
{
    for (struct https_exchange *at = h2->exchanges; at != NULL; at = at->next) {
        if (at->answer_len > 0 && !at->is_answered &&
            !https_exchange_is_held(h2->connection->server, at)) {
            submit(h2, at);
        }
    }
}

/* "/stall" is asked: the connection is dead from then on, but TCP does not know it. */
static bool stalls(const struct h2 *h2)
{
    bool found = false;

    for (const struct https_exchange *at = h2->exchanges; at != NULL; at = at->next) {
        found |= strcmp(at->path, "/stall") == 0;
    }
    while (found && !atomic_load(&h2->connection->server->is_stopping)) {
        (void)poll(NULL, 0, HTTPS_TICK_MS);
    }
    return found;
}

static bool open_session(struct h2 *h2)
{
    const nghttp2_settings_entry streams = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100};
    nghttp2_session_callbacks *callbacks = NULL;

    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return false;
    }
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_body);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    if (nghttp2_session_server_new(&h2->session, callbacks, h2) != 0) {
        h2->session = NULL;
    }
    nghttp2_session_callbacks_del(callbacks);
    return h2->session != NULL &&
           nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, &streams, 1) == 0;
}

void https_serve_h2(struct https_connection *connection)
{
    struct h2 h2 = {.connection = connection};
    bool go_on = open_session(&h2);

    while (go_on && !atomic_load(&connection->server->is_stopping)) {
        uint8_t bytes[4096];
        int got = https_get(connection, bytes, sizeof(bytes));

        go_on = got >= 0 &&
                (got == 0 || nghttp2_session_mem_recv(h2.session, bytes, (size_t)got) == got);
        if (stalls(&h2)) {
            break;
        }
        submit_all(&h2);
        go_on = go_on && nghttp2_session_send(h2.session) == 0;
    }
    while (h2.exchanges != NULL) {
        forget(&h2, h2.exchanges);
    }
    nghttp2_session_del(h2.session);
}
