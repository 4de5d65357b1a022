/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kms_v2_client_socket.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"

/* Why connect(2) fails, in an operator's words. */
static const struct connect_row {
    int number;
    enum kms_status status;
    const char *text;
} connect_rows[] = {
    {ENOENT, KMS_E_UNAVAILABLE, "there is no such socket"},
    {ECONNREFUSED, KMS_E_UNAVAILABLE, "nobody listens on it"},
    {EACCES, KMS_E_DENIED, "this user may not open it"},
    {EPERM, KMS_E_DENIED, "this user may not open it"},
    {ENOTDIR, KMS_E_UNAVAILABLE, "there is no such directory"},
    {EPROTOTYPE, KMS_E_UNAVAILABLE, "it is not a stream socket"},
    {EAGAIN, KMS_E_TIMEOUT, "it does not accept connections"},
};

static enum kms_status socket_address(const char *socket_name, struct sockaddr_un *ret_addr,
                                      socklen_t *ret_len, struct kms_error *err)
{
    size_t len = strlen(socket_name);

    if (len == 0 || len >= sizeof(ret_addr->sun_path)) {
        return kms_error_set(err, KMS_E_INVALID, "%s: a socket's name has 1 to %zu bytes",
                             socket_name, sizeof(ret_addr->sun_path) - 1);
    }
    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->sun_family = AF_UNIX;
    memcpy(ret_addr->sun_path, socket_name, len);
    *ret_len = sizeof(*ret_addr);
    if (socket_name[0] == '@') { /* unix(7): an abstract name has no end but the length given */
        ret_addr->sun_path[0] = '\0';
        *ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    return KMS_OK;
}

static enum kms_status connect_failed(const char *socket_name, int number, struct kms_error *err)
{
    size_t i;

    for (i = 0; i < sizeof(connect_rows) / sizeof(connect_rows[0]); i++) {
        if (connect_rows[i].number == number) {
            return kms_error_set(err, connect_rows[i].status, "cannot connect to %s: %s",
                                 socket_name, connect_rows[i].text);
        }
    }
    return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot connect to %s: %s", socket_name,
                         strerror(number));
}

static enum kms_status connect_to(const char *socket_name, uint64_t deadline_ns, int *ret_fd,
                                  struct kms_error *err)
{
    struct sockaddr_un addr;
    socklen_t len = 0;
    uint64_t left = kms_deadline_left(deadline_ns);
    struct timeval limit = {.tv_sec = (time_t)(left / KMS_NS_PER_S),
                            .tv_usec = (suseconds_t)(left % KMS_NS_PER_S / KMS_NS_PER_US)};
    enum kms_status status = socket_address(socket_name, &addr, &len, err);
    int fd;

    if (status != KMS_OK) {
        return status;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return connect_failed(socket_name, errno, err);
    }
    /* a full backlog blocks connect(2) on a unix socket for as long as SO_SNDTIMEO says */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (const struct sockaddr *)&addr, len) != 0) {
        status = connect_failed(socket_name, errno, err);
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return KMS_OK;
}

/*
 * A gRPC server sends its SETTINGS as soon as it accepts (RFC 9113, 3.4). Looking for the first
 * byte tells apart, before any call, a daemon that answers, one that hangs, and one that will not
 * have us.
 */
static enum kms_status await_greeting(const char *socket_name, int fd, uint64_t deadline_ns,
                                      struct kms_error *err)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    uint64_t left_ms = kms_deadline_left(deadline_ns) / KMS_NS_PER_MS;
    char byte;
    int ready;

    do {
        ready = poll(&poller, 1, left_ms > 3600000 ? 3600000 : (int)left_ms);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
        return kms_error_set(err, KMS_E_TIMEOUT,
                             "%s takes the connection and does not answer in time", socket_name);
    }
    if (ready < 0 || recv(fd, &byte, 1, MSG_PEEK) <= 0) {
        return kms_error_set(err, KMS_E_DENIED, "the server behind %s closes our connection",
                             socket_name);
    }
    return KMS_OK;
}

enum kms_status kms_v2_client_socket(const char *socket_name, uint64_t deadline_ns, int *ret_fd,
                                     struct kms_error *err)
{
    int fd = -1;
    enum kms_status status = connect_to(socket_name, deadline_ns, &fd, err);

    if (status != KMS_OK) {
        return status;
    }
    status = await_greeting(socket_name, fd, deadline_ns, err);
    if (status != KMS_OK) {
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return KMS_OK;
}
