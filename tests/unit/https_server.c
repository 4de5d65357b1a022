/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/https_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/https_parts.h"

/* ---- what is held back -------------------------------------------------------------------- */

char https_large_at(size_t at)
{
    return (char)('a' + at % 23);
}

uint32_t https_sum(const uint8_t *body, size_t body_len)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < body_len; i++) {
        sum = sum * 31 + body[i];
    }
    return sum;
}

void https_exchange_take_body(struct https_exchange *exchange, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        exchange->sum = exchange->sum * 31 + bytes[i];
    }
    exchange->body_len += len;
}

static void hold_locked(struct https_server *server, struct https_exchange *exchange)
{
    struct https_exchange **at = &server->held;

    while (*at != NULL) {
        at = &(*at)->next_held;
    }
    *at = exchange;
    exchange->is_held = true;
    server->seen.held++;
}

/* At the beginning of its answer; the length. */
static int put_text(const struct https_server *server, struct https_exchange *exchange)
{
    if (server->saying[0] != '\0') {
        return snprintf(exchange->answer, sizeof(exchange->answer), "%s",
                        strstr(exchange->path, "said") != NULL ? server->saying : "nothing");
    }
    return snprintf(exchange->answer, sizeof(exchange->answer), "%s %s %zu %u %s", exchange->method,
                    exchange->path, exchange->body_len, exchange->sum,
                    exchange->token[0] == '\0' ? "-" : exchange->token);
}

void https_exchange_came(struct https_server *server, struct https_exchange *exchange)
{
    int len = put_text(server, exchange);

    exchange->answer_len = (size_t)len;
    if (strstr(exchange->path, "large") != NULL) {
        for (size_t i = 0; i < HTTPS_LARGE; i++) {
            exchange->answer[(size_t)len + i] = https_large_at(i);
        }
        exchange->answer_len += HTTPS_LARGE;
    }
    pthread_mutex_lock(&server->lock);
    server->seen.requests++;
    (void)snprintf(server->seen.last, sizeof(server->seen.last), "%s", exchange->path);
    if (strncmp(exchange->path, "/held", 5) == 0 && server->permits == 0) {
        hold_locked(server, exchange);
    } else if (strncmp(exchange->path, "/held", 5) == 0) {
        server->permits--;
    }
    pthread_mutex_unlock(&server->lock);
}

static void let_go_locked(struct https_server *server, struct https_exchange *exchange)
{
    struct https_exchange **at = &server->held;

    while (*at != NULL && *at != exchange) {
        at = &(*at)->next_held;
    }
    if (*at != NULL) {
        *at = exchange->next_held;
        exchange->is_held = false;
        server->seen.held--;
    }
}

bool https_exchange_is_held(struct https_server *server, struct https_exchange *exchange)
{
    bool is_held = false;

    pthread_mutex_lock(&server->lock);
    is_held = exchange->is_held;
    pthread_mutex_unlock(&server->lock);
    return is_held;
}

void https_server_count(struct https_server *server, unsigned *number)
{
    pthread_mutex_lock(&server->lock);
    (*number)++;
    pthread_mutex_unlock(&server->lock);
}

void https_exchange_gone(struct https_server *server, struct https_exchange *exchange)
{
    pthread_mutex_lock(&server->lock);
    let_go_locked(server, exchange);
    pthread_mutex_unlock(&server->lock);
}

void https_server_say(struct https_server *server, const char *text)
{
    (void)snprintf(server->saying, sizeof(server->saying), "%s", text);
}

void https_server_release(struct https_server *server, unsigned count)
{
    pthread_mutex_lock(&server->lock);
    for (; count > 0 && server->held != NULL; count--) {
        let_go_locked(server, server->held);
    }
    server->permits += count;
    pthread_mutex_unlock(&server->lock);
}

struct https_seen https_server_seen(struct https_server *server)
{
    struct https_seen seen;

    pthread_mutex_lock(&server->lock);
    seen = server->seen;
    pthread_mutex_unlock(&server->lock);
    return seen;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static bool wait_for(const struct https_connection *connection, short events, int ms)
{
    struct pollfd fd = {.fd = connection->fd, .events = events};

    return poll(&fd, 1, ms) > 0;
}

bool https_put(struct https_connection *connection, const void *bytes, size_t len)
{
    size_t done = 0;

    while (len > 0 && !atomic_load(&connection->server->is_stopping)) {
        int good = SSL_write_ex(connection->ssl, bytes, len, &done);

        if (good == 1) {
            bytes = (const uint8_t *)bytes + done;
            len -= done;
        } else if (SSL_get_error(connection->ssl, good) == SSL_ERROR_WANT_WRITE) {
            (void)wait_for(connection, POLLOUT, HTTPS_TICK_MS);
        } else {
            return false;
        }
    }
    return len == 0;
}

int https_get(struct https_connection *connection, void *bytes, size_t size)
{
    int got = SSL_read(connection->ssl, bytes, (int)size);

    if (got > 0) {
        return got;
    }
    if (SSL_get_error(connection->ssl, got) != SSL_ERROR_WANT_READ) {
        return -1;
    }
    (void)wait_for(connection, POLLIN, HTTPS_TICK_MS);
    return 0;
}

/* ---- HTTP/1.1 ----------------------------------------------------------------------------- */

#define HEAD_MAX 16384

struct reader {
    struct https_connection *connection;
    size_t len;
    char bytes[HEAD_MAX + 1];
};

/* More of it; false at the end. */
static bool fill(struct reader *reader)
{
    int got = 0;

    while (got == 0 && !atomic_load(&reader->connection->server->is_stopping)) {
        got = https_get(reader->connection, reader->bytes + reader->len, HEAD_MAX - reader->len);
    }
    if (got <= 0) {
        return false;
    }
    reader->len += (size_t)got;
    reader->bytes[reader->len] = '\0';
    return true;
}

static void drop(struct reader *reader, size_t len)
{
    memmove(reader->bytes, reader->bytes + len, reader->len - len + 1);
    reader->len -= len;
}

static bool read_request(struct reader *reader, struct https_exchange *exchange)
{
    const char *end = NULL;
    const char *field = NULL;
    size_t left = 0;

    while ((end = strstr(reader->bytes, "\r\n\r\n")) == NULL) {
        if (reader->len == HEAD_MAX || !fill(reader)) {
            return false;
        }
    }
    if (sscanf(reader->bytes, "%15s %63s", exchange->method, exchange->path) != 2) {
        return false;
    }
    field = strcasestr(reader->bytes, "\r\nX-Token: ");
    if (field != NULL && field < end) {
        (void)sscanf(field + 11, "%63s", exchange->token);
    }
    field = strcasestr(reader->bytes, "\r\nContent-Length: ");
    left = field == NULL || field > end ? 0 : strtoul(field + 18, NULL, 10);
    drop(reader, (size_t)(end + 4 - reader->bytes));
    while (left > 0) {
        size_t some = reader->len < left ? reader->len : left;

        https_exchange_take_body(exchange, (const uint8_t *)reader->bytes, some);
        drop(reader, some);
        left -= some;
        if (left > 0 && !fill(reader)) {
            return false;
        }
    }
    return true;
}

static bool answer(struct reader *reader, struct https_exchange *exchange)
{
    struct https_connection *connection = reader->connection;
    char head[128];

    https_exchange_came(connection->server, exchange);
    while (https_exchange_is_held(connection->server, exchange)) {
        uint8_t byte = 0;

        /* who waits for an answer says nothing */
        if (https_get(connection, &byte, 1) != 0 || atomic_load(&connection->server->is_stopping)) {
            https_exchange_gone(connection->server, exchange);
            return false;
        }
    }
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                   exchange->answer_len);
    return https_put(connection, head, strlen(head)) &&
           https_put(connection, exchange->answer, exchange->answer_len);
}

static void serve_http1(struct https_connection *connection)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    struct https_exchange *exchange = NULL;
    bool go_on = reader != NULL;

    while (go_on && (exchange = calloc(1, sizeof(*exchange))) != NULL) {
        reader->connection = connection;
        go_on = read_request(reader, exchange) && answer(reader, exchange);
        free(exchange);
    }
    free(reader);
}

/* ---- connections -------------------------------------------------------------------------- */

static void *serve_one(void *ctx)
{
    struct https_connection *connection = ctx;
    struct https_server *server = connection->server;

    if (SSL_accept(connection->ssl) == 1) {
        pthread_mutex_lock(&server->lock);
        server->seen.handshakes++;
        server->seen.resumed += SSL_session_reused(connection->ssl) == 1 ? 1u : 0u;
        pthread_mutex_unlock(&server->lock);
        (void)fcntl(connection->fd, F_SETFL, O_NONBLOCK);
        if (server->is_h2) {
            https_serve_h2(connection);
        } else {
            serve_http1(connection);
        }
        (void)SSL_shutdown(connection->ssl);
    }
    (void)shutdown(connection->fd, SHUT_RDWR);
    pthread_mutex_lock(&server->lock);
    server->seen.open--;
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static void take(struct https_server *server, int fd)
{
    struct https_connection *connection = NULL;

    pthread_mutex_lock(&server->lock);
    server->seen.connections++;
    server->seen.open++;
    if (server->seen.open > server->seen.open_max) {
        server->seen.open_max = server->seen.open;
    }
    connection = server->count < HTTPS_CONNECTIONS_MAX ? &server->connections[server->count] : NULL;
    pthread_mutex_unlock(&server->lock);
    if (connection == NULL) {
        (void)close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    connection->server = server;
    connection->fd = fd;
    connection->ssl = SSL_new(server->tls);
    if (connection->ssl == NULL || SSL_set_fd(connection->ssl, fd) != 1 ||
        pthread_create(&connection->thread, NULL, serve_one, connection) != 0) {
        SSL_free(connection->ssl);
        (void)close(fd);
        return;
    }
    pthread_mutex_lock(&server->lock);
    server->count++;
    pthread_mutex_unlock(&server->lock);
}

static void *serve(void *ctx)
{
    struct https_server *server = ctx;
    int fd = -1;

    while ((fd = accept(server->fd, NULL, NULL)) >= 0) {
        take(server, fd);
    }
    return NULL;
}

void https_server_stop(struct https_server *server)
{
    if (server == NULL) {
        return;
    }
    atomic_store(&server->is_stopping, true);
    (void)shutdown(server->fd, SHUT_RDWR);
    (void)pthread_join(server->thread, NULL);
    for (size_t i = 0; i < server->count; i++) {
        (void)shutdown(server->connections[i].fd, SHUT_RDWR);
        (void)pthread_join(server->connections[i].thread, NULL);
        SSL_free(server->connections[i].ssl);
        (void)close(server->connections[i].fd);
    }
    (void)close(server->fd);
    SSL_CTX_free(server->tls);
    (void)pthread_mutex_destroy(&server->lock);
    free(server);
}

unsigned https_server_port(const struct https_server *server)
{
    return server->port;
}

/* ---- TLS ---------------------------------------------------------------------------------- */

static EVP_PKEY *key;
static X509 *certificate;

static bool sign(void)
{
    X509V3_CTX ctx;
    X509_EXTENSION *names = NULL;
    X509_NAME *name = X509_get_subject_name(certificate);
    bool good = false;

    X509V3_set_ctx(&ctx, certificate, certificate, NULL, NULL, 0);
    names = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, "IP:127.0.0.1");
    good = names != NULL && X509_set_version(certificate, 2) == 1 &&
           ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) != NULL &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1,
                                      -1, 0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1 && X509_set_pubkey(certificate, key) == 1 &&
           X509_add_ext(certificate, names, -1) == 1 &&
           X509_sign(certificate, key, EVP_sha256()) != 0;
    X509_EXTENSION_free(names);
    return good;
}

bool https_certificate_make(const char *path)
{
    FILE *file = NULL;
    bool good = false;

    key = EVP_EC_gen("P-256");
    certificate = X509_new();
    if (key == NULL || certificate == NULL || !sign()) {
        return false;
    }
    file = fopen(path, "we");
    good = file != NULL && PEM_write_X509(file, certificate) == 1;
    return file != NULL && fclose(file) == 0 && good;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *ctx)
{
    static const unsigned char h2[] = "\x02h2";
    static const unsigned char http1[] = "\x08http/1.1";
    const struct https_server *server = ctx;
    unsigned char *chosen = NULL;
    int result =
        SSL_select_next_proto(&chosen, out_len, server->is_h2 ? h2 : http1,
                              server->is_h2 ? sizeof(h2) - 1 : sizeof(http1) - 1, in, in_len);

    (void)ssl;
    *out = chosen;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool make_tls(struct https_server *server)
{
    server->tls = SSL_CTX_new(TLS_server_method());
    if (server->tls == NULL || SSL_CTX_use_certificate(server->tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey(server->tls, key) != 1) {
        return false;
    }
    SSL_CTX_set_alpn_select_cb(server->tls, choose_protocol, server);
    (void)SSL_CTX_set_mode(server->tls,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return true;
}

static bool listen_on_loopback(struct https_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);

    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server->fd, (struct sockaddr *)&address, len) != 0 || listen(server->fd, 64) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &len) != 0) {
        return false;
    }
    server->port = ntohs(address.sin_port);
    return true;
}

struct https_server *https_server_start(bool is_h2)
{
    struct https_server *server = calloc(1, sizeof(*server));

    if (server == NULL) {
        return NULL;
    }
    server->is_h2 = is_h2;
    (void)pthread_mutex_init(&server->lock, NULL);
    if (!make_tls(server) || !listen_on_loopback(server) ||
        pthread_create(&server->thread, NULL, serve, server) != 0) {
        perror("https_server");
        exit(EXIT_FAILURE);
    }
    return server;
}
