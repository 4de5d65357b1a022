/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/notify.h"

#include <string.h>
#include <sys/socket.h>

#include <systemd/sd-daemon.h>

#include "common/clock.h"

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

void kms_notify_ready(const char *status)
{
    sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void kms_notify_status(const char *status)
{
    sd_notifyf(0, "STATUS=%s", status);
}

void kms_notify_reloading(void)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
               (unsigned long long)(kms_now_ns() / KMS_NS_PER_US));
}

void kms_notify_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

uint64_t kms_notify_watchdog_ns(void)
{
    uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? usec * KMS_NS_PER_US / 2 : 0;
}

void kms_notify_alive(void)
{
    sd_notify(0, "WATCHDOG=1");
}
