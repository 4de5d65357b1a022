/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTPS server of a test's own, in threads, on loopback: HTTP/1.1 or HTTP/2 (libnghttp2), which
 * counts its connections and TLS handshakes, and holds back answers until the test lets them go, so
 * that a test says what happens at once and what does not.
 *
 * Each answer's body repeats what was asked: "METHOD PATH LENGTH SUM TOKEN", the length and the sum
 * of the request's body and its field X-Token ("-": none). A path with "large" in it is answered
 * with HTTPS_LARGE more bytes (https_large_at()), one that begins with "/held" only when it is
 * released.
 * Of the answer to "/half" all comes but its last byte (HTTP/2 alone).
 * After "/stall" nothing comes over that connection any more (HTTP/2 alone).
 */
#ifndef KMS_TESTS_UNIT_HTTPS_SERVER_H
#define KMS_TESTS_UNIT_HTTPS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTPS_LARGE     100000
#define HTTPS_PATH_MAX  64
#define HTTPS_TOKEN_MAX 64

struct https_server;

/* HTTP/2 alone with @is_h2, else HTTP/1.1 alone. NULL, and why on stderr. Before the first one, the
 * process must have its certificate: https_certificate_make(). */
struct https_server *https_server_start(bool is_h2);
void https_server_stop(struct https_server *server); /* hangs up; NULL is fine */
unsigned https_server_port(const struct https_server *server);

/* Before it is asked anything: answers repeat nothing, and those to a path with "said" in it say
 * @text. */
void https_server_say(struct https_server *server, const char *text);

/* The certificate of all servers of the process, for 127.0.0.1, into the PEM file @path. */
bool https_certificate_make(const char *path);

/* Lets the @count oldest held answers go, those to come included. */
void https_server_release(struct https_server *server, unsigned count);

struct https_seen {
    unsigned connections; /* accepted, ever */
    unsigned handshakes;  /* TLS ones that were completed, ever */
    unsigned resumed;     /* of these, those of a session that was there before */
    unsigned open_max;    /* connections open at once, at most */
    unsigned open;
    unsigned requests;
    unsigned resets;    /* streams that clients have reset (HTTP/2 alone) */
    unsigned indexable; /* header fields that were not sent as never indexed (HTTP/2 alone) */
    unsigned held;      /* now, by clients that still wait */
    char last[HTTPS_PATH_MAX];
};
struct https_seen https_server_seen(struct https_server *server);

/* What the @body_len bytes of @body are answered with. */
uint32_t https_sum(const uint8_t *body, size_t body_len);
char https_large_at(size_t at); /* one of the HTTPS_LARGE bytes */

#endif
