/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/h2.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GRPC_PREFIX = 5, OUT_ROOM = 65536, STALLED_MS = 10000 };

struct stream {
    struct caller *caller;
    size_t sent; /* of the prefix and the request */
    int grpc_status;
    size_t got;
    uint8_t reply[GRPC_PREFIX + BENCH_MAX_MESSAGE];
};

struct connection {
    int fd;
    nghttp2_session *session;
    struct load *load;
    struct stream *streams;
    unsigned active; /* streams that wait for a reply */
    char timeout[16];
    size_t out_len;
    uint8_t out[OUT_ROOM];
};

/* ---- requests ------------------------------------------------------------------------------- */

static ssize_t read_request(nghttp2_session *session, int32_t id, uint8_t *out, size_t room,
                            uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    struct stream *stream = source->ptr;
    const struct bench_message *request = &stream->caller->request;
    uint8_t prefix[GRPC_PREFIX] = {0, 0, 0, (uint8_t)(request->len >> 8), (uint8_t)request->len};

    (void)session;
    (void)id;
    (void)user_data;
    if (room < GRPC_PREFIX + request->len) {
        return NGHTTP2_ERR_CALLBACK_FAILURE; /* frames hold 16 kB, requests below 1 kB */
    }
    memcpy(out, prefix, GRPC_PREFIX);
    memcpy(out + GRPC_PREFIX, request->bytes, request->len);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(GRPC_PREFIX + request->len);
}

static nghttp2_nv header(const char *name, const char *value)
{
    union {
        const char *text;
        uint8_t *bytes; /* nghttp2 takes no const, but with these flags it only reads */
    } n = {.text = name}, v = {.text = value};

    return (nghttp2_nv){n.bytes, v.bytes, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static bool submit(struct connection *c, struct stream *stream)
{
    const nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", bench_paths[stream->caller->method]),
        header(":authority", "localhost"),
        header("content-type", "application/grpc"),
        header("user-agent", "kmsbridge-bench"),
        header("te", "trailers"),
        header("grpc-timeout", c->timeout),
    };
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_request};

    stream->got = 0;
    stream->grpc_status = -1;
    if (nghttp2_submit_request(c->session, NULL, headers, sizeof headers / sizeof headers[0], &body,
                               stream) < 0) {
        return false;
    }
    c->active++;
    return true;
}

/* ---- replies -------------------------------------------------------------------------------- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user_data)
{
    struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    (void)flags;
    (void)user_data;
    if (stream != NULL && name_len == 11 && memcmp(name, "grpc-status", 11) == 0) {
        stream->grpc_status = 0;
        for (size_t i = 0; i < value_len && i < 3; i++) {
            stream->grpc_status = stream->grpc_status * 10 + (value[i] - '0');
        }
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user_data)
{
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);

    (void)flags;
    (void)user_data;
    if (stream == NULL || len > sizeof stream->reply - stream->got) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    memcpy(stream->reply + stream->got, data, len);
    stream->got += len;
    return 0;
}

/* The gRPC message must be uncompressed and exactly as long as its prefix says. */
static bool whole_message(const struct stream *stream)
{
    const uint8_t *p = stream->reply;

    return stream->got >= GRPC_PREFIX && p[0] == 0 && p[1] == 0 && p[2] == 0 &&
           (size_t)p[3] * 256 + p[4] == stream->got - GRPC_PREFIX;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user_data)
{
    struct connection *c = user_data;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    int status = 0;

    if (stream == NULL) {
        return 0;
    }
    c->active--;
    status = stream->grpc_status;
    if (status == 0 && (error != NGHTTP2_NO_ERROR || !whole_message(stream))) {
        status = -1;
    }
    load_reply(stream->caller, status, stream->reply + GRPC_PREFIX,
               status == 0 ? stream->got - GRPC_PREFIX : 0);
    if (stream->caller->due == 0 && load_next(stream->caller) && !submit(c, stream)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

/* ---- the connection ------------------------------------------------------------------------- */

static bool session_new(struct connection *c)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
    };
    nghttp2_session_callbacks *callbacks = NULL;
    bool ok = false;

    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return false;
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    ok = nghttp2_session_client_new(&c->session, callbacks, c) == 0 &&
         nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2) == 0 &&
         nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 1 << 30) == 0;
    nghttp2_session_callbacks_del(callbacks);
    return ok;
}

/* Hands all that nghttp2 has to say to the socket, in as few writes as it fits. */
static bool flush(struct connection *c)
{
    for (;;) {
        const uint8_t *bytes = NULL;
        ssize_t len = nghttp2_session_mem_send(c->session, &bytes);
        size_t at = 0;

        if (len < 0) {
            return false;
        }
        if (len > 0 && c->out_len + (size_t)len <= OUT_ROOM) {
            memcpy(c->out + c->out_len, bytes, (size_t)len);
            c->out_len += (size_t)len;
            continue;
        }
        while (at < c->out_len) {
            ssize_t n = send(c->fd, c->out + at, c->out_len - at, MSG_NOSIGNAL);

            if (n < 0 && errno != EINTR) {
                return false;
            }
            at += n > 0 ? (size_t)n : 0;
        }
        c->out_len = 0;
        if (len == 0) {
            return true;
        }
        memcpy(c->out, bytes, (size_t)len); /* frames are smaller than the buffer */
        c->out_len = (size_t)len;
    }
}

static bool receive(struct connection *c)
{
    uint8_t in[65536];
    ssize_t n = recv(c->fd, in, sizeof in, 0);

    if (n < 0 && errno == EINTR) {
        return true;
    }
    return n > 0 && nghttp2_session_mem_recv(c->session, in, (size_t)n) == n;
}

/* Sends what is due and tells how long the next scheduled call is away; 0: nothing scheduled. */
static bool start_due(struct connection *c, uint64_t *ret_wait)
{
    uint64_t now = bench_now();

    *ret_wait = 0;
    for (unsigned i = 0; i < c->load->n_callers; i++) {
        struct caller *caller = c->streams[i].caller;

        if (caller->due > now) {
            *ret_wait = caller->due - now;
        } else if (caller->due != 0) {
            caller->due = 0;
            if (load_next(caller) && !submit(c, &c->streams[i])) {
                return false;
            }
        }
    }
    return true;
}

static bool wait_readable(int fd, uint64_t wait_ns, bool *ret_readable)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timespec t = {.tv_sec = (time_t)(wait_ns / 1000000000U),
                         .tv_nsec = (long)(wait_ns % 1000000000U)};
    int n = ppoll(&p, 1, &t, NULL);

    *ret_readable = n > 0;
    return n >= 0 || errno == EINTR;
}

static bool run(struct connection *c)
{
    for (;;) {
        uint64_t wait = 0;
        bool readable = true;

        if ((c->load->period > 0 && !start_due(c, &wait)) || !flush(c)) {
            return false;
        }
        if (c->load->failed) {
            return false;
        }
        if (c->active == 0 && wait == 0) {
            return true;
        }
        if (wait > 0 && !wait_readable(c->fd, wait, &readable)) {
            return false;
        }
        if (readable && !receive(c)) {
            if (!c->load->options->first_status) {
                fprintf(stderr, "connection lost: %s\n", strerror(errno));
            }
            return false;
        }
    }
}

bool h2_run(struct load *load)
{
    const struct timeval stalled = {.tv_sec = STALLED_MS / 1000};
    struct connection *c = calloc(1, sizeof *c);
    bool ok = false;

    if (c == NULL) {
        return false;
    }
    c->load = load;
    (void)snprintf(c->timeout, sizeof c->timeout, "%um", load->options->timeout_ms);
    c->streams = calloc(load->n_callers, sizeof *c->streams);
    c->fd = bench_connect(load->options->socket);
    if (c->fd < 0) {
        fprintf(stderr, "%s: %s\n", load->options->socket, strerror(errno));
        goto out;
    }
    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &stalled, sizeof stalled);
    ok = c->streams != NULL && session_new(c);
    for (unsigned i = 0; ok && i < load->n_callers; i++) {
        c->streams[i].caller = &load->callers[i];
        if (load_next(&load->callers[i])) {
            ok = submit(c, &c->streams[i]);
        }
    }
    ok = ok && run(c);
out:
    nghttp2_session_del(c->session);
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    free(c->streams);
    free(c);
    return ok;
}
