/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/daemon/raw.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define FRAME_HEAD 9
#define FRAME_MAX  16384

#define INITIAL_WINDOW  65535 /* RFC 9113, 6.9.2 */
#define SETTING_INITIAL 4     /* SETTINGS_INITIAL_WINDOW_SIZE */

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct raw {
    int fd;
    nghttp2_hd_inflater *inflater; /* of the peer's headers, all of them in order */
    int64_t window;                /* of the connection, as far as raw_flow() sends */
    int64_t stream_window;
    int64_t initial_window;
    int ended; /* RAW_NO_STATUS until the stream that raw_flow() sends on has ended */
    size_t have;
    uint8_t in[FRAME_HEAD + FRAME_MAX];
};

struct raw *raw_open(const struct fixture *fx, bool greet)
{
    struct raw *raw = calloc(1, sizeof(*raw));

    if (raw == NULL) {
        return NULL;
    }
    raw->window = raw->stream_window = raw->initial_window = INITIAL_WINDOW;
    raw->ended = RAW_NO_STATUS;
    raw->fd = fixture_socket(fx);
    if (raw->fd < 0 || nghttp2_hd_inflate_new(&raw->inflater) != 0 ||
        (greet && (!raw_send(raw, preface, sizeof(preface) - 1) ||
                   !raw_frame(raw, RAW_SETTINGS, 0, 0, NULL, 0)))) {
        raw_close(raw);
        return NULL;
    }
    return raw;
}

void raw_close(struct raw *raw)
{
    if (raw != NULL) {
        if (raw->fd >= 0) {
            (void)close(raw->fd);
        }
        if (raw->inflater != NULL) {
            nghttp2_hd_inflate_del(raw->inflater);
        }
        free(raw);
    }
}

int raw_fd(const struct raw *raw)
{
    return raw->fd;
}

bool raw_send(struct raw *raw, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        ssize_t n = send(raw->fd, at, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool raw_frame(struct raw *raw, enum raw_type type, unsigned flags, uint32_t stream,
               const void *payload, size_t len)
{
    const uint8_t head[FRAME_HEAD] = {
        (uint8_t)(len >> 16),    (uint8_t)(len >> 8),    (uint8_t)len,
        (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream,
    };

    return raw_send(raw, head, sizeof(head)) && raw_send(raw, payload, len);
}

/* A literal header field without indexing and without Huffman code (RFC 7541, 6.2.2). */
static size_t put_header(uint8_t *out, const char *name, size_t name_len, const char *value)
{
    size_t value_len = strlen(value);
    size_t n = 0;

    out[n++] = 0;
    out[n++] = (uint8_t)name_len;
    memcpy(out + n, name, name_len);
    n += name_len;
    out[n++] = (uint8_t)value_len;
    memcpy(out + n, value, value_len);
    return n + value_len;
}

bool raw_headers(struct raw *raw, uint32_t stream, const char *path, const char *extra,
                 unsigned flags)
{
    const char *const rows[][2] = {
        {":method", "POST"},         {":scheme", "http"}, {":path", path},
        {":authority", "localhost"}, {"te", "trailers"},  {"content-type", "application/grpc"},
    };
    uint8_t block[1024];
    size_t n = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        n += put_header(block + n, rows[i][0], strlen(rows[i][0]), rows[i][1]);
    }
    if (extra != NULL) {
        size_t name = strcspn(extra, ":");

        n += put_header(block + n, extra, name, extra + name + 2);
    }
    return raw_frame(raw, RAW_HEADERS, flags | RAW_END_HEADERS, stream, block, n);
}

bool raw_message(struct raw *raw, uint32_t stream, unsigned flag, const void *message, size_t len)
{
    uint8_t *bytes = malloc(5 + len);
    bool sent = bytes != NULL;

    if (bytes == NULL) {
        return false;
    }
    bytes[0] = (uint8_t)flag;
    bytes[1] = (uint8_t)(len >> 24);
    bytes[2] = (uint8_t)(len >> 16);
    bytes[3] = (uint8_t)(len >> 8);
    bytes[4] = (uint8_t)len;
    if (len > 0) {
        memcpy(bytes + 5, message, len);
    }
    for (size_t at = 0; sent && at < 5 + len; at += FRAME_MAX) {
        size_t part = 5 + len - at < FRAME_MAX ? 5 + len - at : FRAME_MAX;

        sent = raw_frame(raw, RAW_DATA, at + part == 5 + len ? RAW_END_STREAM : 0, stream,
                         bytes + at, part);
    }
    free(bytes);
    return sent;
}

bool raw_call(struct raw *raw, uint32_t stream, const char *path, const void *message, size_t len)
{
    return raw_headers(raw, stream, path, NULL, 0) && raw_message(raw, stream, 0, message, len);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* One more read; false when the peer has closed, or nothing came before @deadline_ns; 0: now. */
static bool read_more(struct raw *raw, uint64_t deadline_ns, bool *ret_silent)
{
    struct pollfd ready = {.fd = raw->fd, .events = POLLIN};
    int ms = deadline_ns == 0 ? 0 : (int)(kms_deadline_left(deadline_ns) / MS(1)) + 1;
    ssize_t n;

    *ret_silent = poll(&ready, 1, ms) <= 0;
    if (*ret_silent) {
        return false;
    }
    n = recv(raw->fd, raw->in + raw->have, sizeof(raw->in) - raw->have, 0);
    if (n <= 0) {
        return false;
    }
    raw->have += (size_t)n;
    return true;
}

/* Every block must pass through the inflater; the value of grpc-status, or @status. */
static int inflate(struct raw *raw, const uint8_t *block, size_t len, int status)
{
    nghttp2_nv field;
    int flags = 0;

    for (;;) {
        ssize_t n = nghttp2_hd_inflate_hd2(raw->inflater, &field, &flags, block, len, 1);

        if (n < 0) {
            return status;
        }
        block += n;
        len -= (size_t)n;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 && field.namelen == 11 &&
            memcmp(field.name, "grpc-status", 11) == 0) {
            status = atoi((const char *)field.value);
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            (void)nghttp2_hd_inflate_end_headers(raw->inflater);
            return status;
        }
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && len == 0) {
            return status;
        }
    }
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void take_settings(struct raw *raw, const uint8_t *rows, size_t len)
{
    for (size_t i = 0; i + 6 <= len; i += 6) {
        if (rows[i] == 0 && rows[i + 1] == SETTING_INITIAL) {
            raw->stream_window += (int64_t)be32(rows + i + 2) - raw->initial_window;
            raw->initial_window = be32(rows + i + 2);
        }
    }
    (void)raw_frame(raw, RAW_SETTINGS, RAW_ACK, 0, NULL, 0);
}

/* Takes the frame at the front, if it is whole. True when the stream has come to an end. */
static bool take_frame(struct raw *raw, uint32_t stream, bool *ret_took, int *status)
{
    const uint8_t *f = raw->in;
    size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
    uint32_t of = be32(f + 5);
    bool end = false;

    *ret_took = raw->have >= FRAME_HEAD && raw->have >= FRAME_HEAD + len;
    if (!*ret_took) {
        return false;
    }
    if (f[3] == RAW_HEADERS) {
        int said = inflate(raw, f + FRAME_HEAD, len, RAW_NO_STATUS);

        end = of == stream && (f[4] & RAW_END_STREAM) != 0;
        *status = of == stream ? said : *status;
    } else if (f[3] == RAW_RST_STREAM && of == stream && len == 4) {
        end = true;
        *status = *status >= 0 ? *status : RAW_RESET - f[FRAME_HEAD + 3];
    } else if (f[3] == RAW_SETTINGS && (f[4] & RAW_ACK) == 0) {
        take_settings(raw, f + FRAME_HEAD, len);
    } else if (f[3] == RAW_PING && (f[4] & RAW_ACK) == 0 && len == 8) {
        (void)raw_frame(raw, RAW_PING, RAW_ACK, 0, f + FRAME_HEAD, len);
    } else if (f[3] == RAW_WINDOW_UPDATE && len == 4) {
        *(of == 0 ? &raw->window : &raw->stream_window) += be32(f + FRAME_HEAD);
    } else if (f[3] == RAW_GOAWAY) {
        end = true;
        *status = RAW_CLOSED;
    }
    raw->have -= FRAME_HEAD + len;
    memmove(raw->in, raw->in + FRAME_HEAD + len, raw->have);
    return end;
}

int raw_status(struct raw *raw, uint32_t stream, uint64_t ns)
{
    uint64_t deadline = kms_deadline_in(ns);
    int status = raw->ended;
    bool took = false;
    bool silent = false;

    if (status != RAW_NO_STATUS) { /* raw_flow() has seen it */
        raw->ended = RAW_NO_STATUS;
        return status;
    }
    for (;;) {
        if (take_frame(raw, stream, &took, &status)) {
            return status;
        }
        if (!took && !read_more(raw, deadline, &silent)) {
            return silent ? RAW_SILENT : RAW_CLOSED;
        }
    }
}

static bool has_window(const struct raw *raw, size_t len)
{
    return raw->window >= (int64_t)len && raw->stream_window >= (int64_t)len;
}

bool raw_flow(struct raw *raw, uint32_t stream, unsigned flags, const void *bytes, size_t len,
              uint64_t ns)
{
    uint64_t deadline = kms_deadline_in(ns);
    bool took = false;
    bool silent = false;

    do { /* all that has come, and what must come first */
        do {
            int status = RAW_NO_STATUS;

            if (take_frame(raw, stream, &took, &status)) {
                raw->ended = status;
                return false;
            }
        } while (took);
    } while (read_more(raw, has_window(raw, len) ? 0 : deadline, &silent));
    if (!silent) {
        raw->ended = RAW_CLOSED;
    }
    if (!silent || !has_window(raw, len)) {
        return false;
    }
    raw->window -= (int64_t)len;
    raw->stream_window -= (int64_t)len;
    return raw_frame(raw, RAW_DATA, flags, stream, bytes, len);
}

bool raw_ends(struct raw *raw, uint64_t ns)
{
    uint64_t deadline = kms_deadline_in(ns);
    bool silent = false;

    do {
        raw->have = 0;
    } while (read_more(raw, deadline, &silent));
    return !silent;
}

/* --- messages --------------------------------------------------------------------------------- */

static size_t put_bytes(uint8_t *out, unsigned field, const void *bytes, size_t len)
{
    size_t n = 0;
    size_t left = len;

    out[n++] = (uint8_t)(field << 3 | 2);
    for (; left >= 0x80; left >>= 7) {
        out[n++] = (uint8_t)(left | 0x80);
    }
    out[n++] = (uint8_t)left;
    if (len > 0) {
        memcpy(out + n, bytes, len);
    }
    return n + len;
}

size_t raw_encrypt_request(uint8_t *out, const void *plaintext, size_t len, const char *uid)
{
    size_t n = put_bytes(out, 1, plaintext, len);

    return uid == NULL ? n : n + put_bytes(out + n, 2, uid, strlen(uid));
}

size_t raw_claim(struct raw *raw, uint32_t claim, uint64_t ns, int *ret_status)
{
    const uint8_t start[] = {0, (uint8_t)(claim >> 24), (uint8_t)(claim >> 16),
                             (uint8_t)(claim >> 8), (uint8_t)claim};
    static const uint8_t bytes[16384];
    size_t sent = 0;

    *ret_status = RAW_SILENT;
    if (!raw_headers(raw, 1, RAW_ENCRYPT, NULL, 0) ||
        !raw_flow(raw, 1, 0, start, sizeof(start), ns)) {
        return 0;
    }
    while (sent < claim) {
        size_t part = claim - sent < sizeof(bytes) ? claim - sent : sizeof(bytes);

        if (!raw_flow(raw, 1, sent + part == claim ? RAW_END_STREAM : 0, bytes, part, ns)) {
            break;
        }
        sent += part;
    }
    *ret_status = raw_status(raw, 1, ns);
    return sent;
}
