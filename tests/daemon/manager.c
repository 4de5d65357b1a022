/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/daemon/manager.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"

struct manager manager = {.fd = -1};

int manager_bind(const char *path, int type)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    memcpy(addr.sun_path, path, len < sizeof(addr.sun_path) ? len : sizeof(addr.sun_path) - 1);
    if (path[0] == '@') {
        addr.sun_path[0] = '\0';
    }
    (void)unlink(path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr,
                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
                                   (path[0] == '@' ? 0 : 1))) != 0) {
        abort();
    }
    return fd;
}

void manager_open(const char *dir)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/notify", dir);
    manager.fd = manager_bind(path, SOCK_DGRAM);
    manager.len = 0;
    manager.told[0] = '\0';
    (void)snprintf(manager.address, sizeof(manager.address), "NOTIFY_SOCKET=%s", path);
}

void manager_listen(void)
{
    if (manager.fd < 0) {
        return;
    }
    for (;;) {
        size_t room = sizeof(manager.told) - manager.len - 8;
        ssize_t n = recv(manager.fd, manager.told + manager.len, room, MSG_DONTWAIT);

        if (n < 0 || room < 4096) {
            break;
        }
        manager.len += (size_t)n;
        manager.len += (size_t)sprintf(manager.told + manager.len, "\n--\n");
    }
}

unsigned manager_count(const char *text)
{
    unsigned n = 0;

    manager_listen();
    for (const char *at = manager.told; (at = strstr(at, text)) != NULL; at++) {
        n++;
    }
    return n;
}

void manager_forget(void)
{
    manager_listen();
    manager.len = 0;
    manager.told[0] = '\0';
}

void manager_stuff(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || getsockname(manager.fd, (struct sockaddr *)&addr, &len) != 0 ||
        connect(fd, (const struct sockaddr *)&addr, len) != 0) {
        abort();
    }
    while (send(fd, "X=1", 3, MSG_NOSIGNAL) == 3) {
    }
    (void)close(fd);
}

static bool was_told(void *ctx)
{
    return manager_count(ctx) > 0;
}

bool manager_wait(const char *text)
{
    return fixture_until(was_told, (void *)(uintptr_t)text, SEC(10));
}

void manager_close(void)
{
    (void)close(manager.fd);
    manager.fd = -1;
}
