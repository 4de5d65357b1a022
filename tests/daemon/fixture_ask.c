/* SPDX-License-Identifier: Apache-2.0 */
/* The half of the fixture that asks a running daemon. */
#include "tests/daemon/fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"

#define CALL_NS SEC(10)

struct kms_v2_client *fixture_connect(const struct fixture *fx)
{
    struct kms_v2_client *client = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    if (kms_v2_client_open(fx->socket, kms_deadline_in(CALL_NS), &client, &err) != KMS_OK) {
        fprintf(stderr, "fixture: %s\n", err.text);
        return NULL;
    }
    return client;
}

enum kms_status fixture_encrypt(struct kms_v2_client *client, uint64_t ns,
                                struct fixture_sealed *ret_sealed, struct kms_error *err)
{
    char uid[KMS_V2_UID_SIZE];
    enum kms_status status = kms_v2_uid_make(uid, err);

    if (status == KMS_OK) {
        status = kms_random(ret_sealed->seed, sizeof(ret_sealed->seed));
    }
    if (status == KMS_OK) {
        status = kms_v2_client_encrypt(client, kms_deadline_in(ns), uid,
                                       kms_span_of(ret_sealed->seed, sizeof(ret_sealed->seed)),
                                       &ret_sealed->sealed, err);
    }
    return status;
}

enum kms_status fixture_decrypt(struct kms_v2_client *client, uint64_t ns,
                                const struct fixture_sealed *sealed, struct kms_error *err)
{
    char uid[KMS_V2_UID_SIZE];
    uint8_t room[64];
    struct kms_buf plain = KMS_BUF_OVER(room);
    enum kms_status status = kms_v2_uid_make(uid, err);

    if (status == KMS_OK) {
        status =
            kms_v2_client_decrypt(client, kms_deadline_in(ns), uid, &sealed->sealed, &plain, err);
    }
    if (status == KMS_OK &&
        !kms_span_equal(kms_buf_span(&plain), kms_span_of(sealed->seed, sizeof(sealed->seed)))) {
        status = kms_error_set(err, KMS_E_BAD_DATA, "another plaintext came back");
    }
    return status;
}

enum kms_status fixture_status(struct kms_v2_client *client, struct kms_v2_status *ret_status,
                               struct kms_error *err)
{
    return kms_v2_client_status(client, kms_deadline_in(CALL_NS), ret_status, err);
}

bool fixture_round_trip(const struct fixture *fx)
{
    struct kms_v2_client *client = fixture_connect(fx);
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_v2_status verdict;
    enum kms_status status = KMS_E_UNAVAILABLE;

    if (client != NULL) {
        status = fixture_status(client, &verdict, &err);
    }
    if (status == KMS_OK) {
        status = fixture_encrypt(client, CALL_NS, &sealed, &err);
    }
    if (status == KMS_OK && strcmp(sealed.sealed.key_id, verdict.key_id) != 0) {
        status = kms_error_set(&err, KMS_E_PROTOCOL, "Encrypt and Status name two keys");
    }
    if (status == KMS_OK) {
        status = fixture_decrypt(client, CALL_NS, &sealed, &err);
    }
    kms_v2_sealed_done(&sealed.sealed);
    kms_v2_client_close(client);
    if (status != KMS_OK) {
        fprintf(stderr, "fixture: round trip: %s\n", err.text);
    }
    return status == KMS_OK;
}

struct health {
    struct kms_v2_client *client;
    bool good;
};

static bool is_health(void *ctx)
{
    const struct health *health = ctx;
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_v2_status verdict;
    bool good = fixture_status(health->client, &verdict, &err) == KMS_OK &&
                strcmp(verdict.healthz, "ok") == 0;

    return good == health->good;
}

bool fixture_wait_healthy(const struct fixture *fx, bool good)
{
    struct health health = {.client = fixture_connect(fx), .good = good};
    bool seen = health.client != NULL && fixture_until(is_health, &health, SEC(10));

    kms_v2_client_close(health.client);
    return seen;
}

/* --- the monitor ------------------------------------------------------------------------------ */

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    bool abstract = path[0] == '@';
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (len >= sizeof(addr.sun_path)) {
        len = sizeof(addr.sun_path) - 1;
    }
    memcpy(addr.sun_path, path, len);
    if (abstract) {
        addr.sun_path[0] = '\0';
    }
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr,
                           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
                                       (abstract ? 0 : 1))) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

int fixture_socket(const struct fixture *fx)
{
    return connect_to(fx->socket);
}

static size_t read_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    ssize_t n = 1;

    while (n > 0 && len < size - 1) {
        n = read(fd, text + len, size - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    text[len] = '\0';
    return len;
}

int fixture_http(const struct fixture *fx, const char *path, char *ret_body, size_t size)
{
    static const size_t room = 256 * 1024;
    char request[256];
    char *text = malloc(room);
    int fd = connect_to(fx->monitor);
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    int code = 0;
    const char *body = NULL;

    if (text != NULL && fd >= 0 && write(fd, request, (size_t)n) == n &&
        read_all(fd, text, room) > 0 && sscanf(text, "HTTP/1.1 %d", &code) == 1) {
        body = strstr(text, "\r\n\r\n");
    }
    if (ret_body != NULL) {
        (void)snprintf(ret_body, size, "%s", body == NULL ? "" : body + 4);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    free(text);
    return body == NULL ? 0 : code;
}

double fixture_metric(const struct fixture *fx, const char *name)
{
    static const size_t room = 256 * 1024;
    char wanted[160];
    char *text = malloc(room);
    const char *at = NULL;
    double value = -1;

    (void)snprintf(wanted, sizeof(wanted), "\nkmsbridge_%s ", name);
    if (text != NULL && fixture_http(fx, "/metrics", text, room) == 200) {
        at = strstr(text, wanted);
    }
    if (at != NULL) {
        value = strtod(at + strlen(wanted), NULL);
    }
    free(text);
    return value;
}

/* --- the process ------------------------------------------------------------------------------ */

unsigned fixture_fds(const struct fixture *fx)
{
    char path[64];
    unsigned n = 0;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%ld/fd", (long)fx->pid);
    dir = opendir(path);
    while (dir != NULL && readdir(dir) != NULL) {
        n++;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return n > 2 ? n - 2 : 0; /* less "." and ".." */
}
