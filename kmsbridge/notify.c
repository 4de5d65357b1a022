/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/notify.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "common/clock.h"
#include "common/log.h"

#define PATIENCE_MS 1000 /* with a manager whose queue is full */
#define MESSAGE_MAX 4096

int kms_notify_listen_fd(const char *path)
{
    int count = sd_listen_fds(0);
    for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; fd++) {
        /* sd_is_socket_unix() takes an abstract name with its leading NUL and its length */
        char name[128] = {0};
        size_t len = strlen(path);
        if (path[0] == '@' && len < sizeof name) {
            memcpy(name + 1, path + 1, len - 1);
            if (sd_is_socket_unix(fd, SOCK_STREAM, 1, name, len) > 0) {
                return fd;
            }
        } else if (sd_is_socket_unix(fd, SOCK_STREAM, 1, path, 0) > 0) {
            return fd;
        }
    }
    return -1;
}

/* The manager's socket, connected; -1 when there is no manager, or none that can be reached. */
static int manager_connect(void)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = name != NULL ? strlen(name) : 0;
    if (len < 2 || len >= sizeof addr.sun_path || (name[0] != '/' && name[0] != '@')) {
        return -1;
    }
    memcpy(addr.sun_path, name, len);
    if (name[0] == '@') {
        addr.sun_path[0] = '\0';
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr,
                           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/*
 * One datagram of the protocol of sd_notify(3). Not by sd_notify() itself, which waits for as long
 * as the manager's queue is full (10 datagrams, where nobody raised net.unix.max_dgram_qlen): then
 * a manager that is stuck would stop reloads and the watchdog with it.
 */
static void tell(const char *message, int patience_ms)
{
    int fd = manager_connect();
    if (fd < 0) {
        return;
    }
    ssize_t sent = send(fd, message, strlen(message), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN && patience_ms > 0) {
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        (void)poll(&room, 1, patience_ms);
        sent = send(fd, message, strlen(message), MSG_NOSIGNAL);
    }
    if (sent < 0 && patience_ms > 0) {
        kms_log(KMS_LOG_WARN, "server: the service manager does not listen: %s; it was not told %s",
                strerror(errno), message);
    }
    close(fd);
}

void kms_notify_ready(const char *status)
{
    char message[MESSAGE_MAX];
    snprintf(message, sizeof message, "READY=1\nSTATUS=%s", status);
    tell(message, PATIENCE_MS);
}

void kms_notify_status(const char *status)
{
    char message[MESSAGE_MAX];
    snprintf(message, sizeof message, "STATUS=%s", status);
    tell(message, PATIENCE_MS);
}

void kms_notify_reloading(void)
{
    char message[MESSAGE_MAX];
    snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)(kms_now_ns() / KMS_NS_PER_US));
    tell(message, PATIENCE_MS);
}

void kms_notify_stopping(void)
{
    tell("STOPPING=1", PATIENCE_MS);
}

uint64_t kms_notify_watchdog_ns(void)
{
    uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? usec * KMS_NS_PER_US / 2 : 0;
}

void kms_notify_alive(void)
{
    tell("WATCHDOG=1", 0); /* the next one comes soon */
}
