/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/listener.h"

#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/unit.h"

struct listener listener;

static void serve(void *ctx, int fd)
{
    (void)ctx;
    listener.fds[atomic_load(&listener.served) % LISTENER_FDS] = fd; /* one accepting thread */
    atomic_fetch_add(&listener.served, 1);
}

void listener_begin(void)
{
    memset(&listener, 0, sizeof listener);
    strcpy(listener.dir, "/tmp/kmsbridge-socket-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(listener.dir));
    snprintf(listener.path, sizeof listener.path, "%s/kms.sock", listener.dir);
}

void listener_end(void)
{
    char lock[128];
    snprintf(lock, sizeof lock, "%s.lock", listener.path);
    unlink(lock);
    unlink(listener.path);
    CU_ASSERT_EQUAL(rmdir(listener.dir), 0); /* nothing else was left behind */
}

struct kms_socket_conf listener_conf(mode_t mode)
{
    return (struct kms_socket_conf){
        .path = listener.path, .mode = mode, .owner = (uid_t)-1, .group = (gid_t)-1};
}

void listener_serve(struct kms_socket *sock, const struct kms_peers *peers, unsigned max)
{
    const struct kms_door_conf conf = {.listen_fd = kms_socket_fd(sock),
                                       .peers = *peers,
                                       .max_connections = max,
                                       .metrics = &listener.metrics,
                                       .serve = serve};
    CU_ASSERT_EQUAL_FATAL(kms_door_open(&conf, &listener.door, NULL), KMS_OK);
}

struct kms_socket *listener_open(mode_t mode, const struct kms_peers *peers, unsigned max)
{
    struct kms_socket_conf conf = listener_conf(mode);
    struct kms_socket *sock = NULL;
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    listener_serve(sock, peers, max);
    return sock;
}

void listener_close(struct kms_socket *sock)
{
    kms_door_close(listener.door);
    listener.door = NULL;
    kms_socket_close(sock);
}

int listener_connect(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(addr.sun_path, name, len);
    if (name[0] == '@') {
        addr.sun_path[0] = '\0';
    }
    if (connect(fd, (struct sockaddr *)&addr,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
                            (name[0] == '@' ? 0 : 1))) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool listener_hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&p, 1, 2000) == 1 && read(fd, &byte, 1) == 0;
}

bool listener_becomes(const atomic_int *value, int wanted)
{
    for (int i = 0; i < 400 && atomic_load(value) != wanted; i++) {
        usleep(5000);
    }
    return atomic_load(value) == wanted;
}
