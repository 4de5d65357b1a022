/* SPDX-License-Identifier: Apache-2.0 */
/* What https_server.c and https_h2.c share. */
#ifndef KMS_TESTS_UNIT_HTTPS_PARTS_H
#define KMS_TESTS_UNIT_HTTPS_PARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <openssl/ssl.h>

#include "tests/unit/https_server.h"

#define HTTPS_CONNECTIONS_MAX 256
#define HTTPS_TICK_MS         2

/* A request and its answer. */
struct https_exchange {
    struct https_exchange *next;      /* of its connection */
    struct https_exchange *next_held; /* under the server's lock */
    bool is_held;                     /* under the server's lock */
    bool is_answered;
    int32_t stream;
    char method[16];
    char path[HTTPS_PATH_MAX];
    char token[HTTPS_TOKEN_MAX];
    size_t body_len;
    uint32_t sum;
    size_t sent;
    size_t answer_len;
    char answer[256 + HTTPS_LARGE];
};

struct https_connection {
    struct https_server *server;
    pthread_t thread;
    int fd;
    SSL *ssl;
};

struct https_server {
    bool is_h2;
    int fd;
    unsigned port;
    SSL_CTX *tls;
    pthread_t thread;
    atomic_bool is_stopping;
    char saying[128]; /* before the first request */

    pthread_mutex_t lock; /* guards what follows */
    struct https_exchange *held;
    unsigned permits; /* answers that may go without being held */
    struct https_seen seen;
    size_t count;
    struct https_connection connections[HTTPS_CONNECTIONS_MAX];
};

/* The request is whole: its answer is written, and held or not. */
void https_exchange_came(struct https_server *server, struct https_exchange *exchange);
/* One more of a number of server->seen. */
void https_server_count(struct https_server *server, unsigned *number);
bool https_exchange_is_held(struct https_server *server, struct https_exchange *exchange);
/* Its client does not wait any more, or it was answered. */
void https_exchange_gone(struct https_server *server, struct https_exchange *exchange);
void https_exchange_take_body(struct https_exchange *exchange, const uint8_t *bytes, size_t len);

bool https_put(struct https_connection *connection, const void *bytes, size_t len);
/* Some bytes within HTTPS_TICK_MS; 0: none came, -1: the end. */
int https_get(struct https_connection *connection, void *bytes, size_t size);

/* Until the client or the server hangs up. */
void https_serve_h2(struct https_connection *connection);

#endif
