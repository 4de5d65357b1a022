/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/door.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/listener.h"
#include "tests/unit/unit.h"

static void mode_and_peers(void)
{
    const uid_t me = getuid();
    const uid_t other = me + 1;
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    const struct kms_peers theirs = {.uids = &other, .uid_count = 1};
    struct stat st;
    listener_begin();
    struct kms_socket *sock = listener_open(0640, &ours, 4);
    CU_ASSERT_EQUAL(stat(listener.path, &st), 0);
    CU_ASSERT(S_ISSOCK(st.st_mode));
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0640);
    int fd = listener_connect(listener.path);
    CU_ASSERT(fd >= 0);
    CU_ASSERT(listener_becomes(&listener.served, 1));
    CU_ASSERT_EQUAL(kms_door_connections(listener.door), 1);
    CU_ASSERT_EQUAL(kms_door_configure(listener.door, &theirs, 4), KMS_OK);
    int refused = listener_connect(listener.path);
    CU_ASSERT(refused >= 0 && listener_hung_up(refused));
    CU_ASSERT_EQUAL(atomic_load(&listener.served), 1);
    CU_ASSERT_EQUAL(atomic_load(&listener.metrics.connections_refused_peer), 1);
    const gid_t group = getgid();
    const struct kms_peers by_group = {.gids = &group, .gid_count = 1};
    CU_ASSERT_EQUAL(kms_door_configure(listener.door, &by_group, 4), KMS_OK);
    int third = listener_connect(listener.path);
    CU_ASSERT(listener_becomes(&listener.served, 2));
    close(fd);
    close(refused);
    close(third);
    close(listener.fds[0]);
    close(listener.fds[1]);
    CU_ASSERT_EQUAL(kms_door_connections(listener.door), 0);
    listener_close(sock);
    CU_ASSERT_EQUAL(stat(listener.path, &st), -1);
    listener_end();
}

static void connections_are_bounded(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    int fds[4];
    listener_begin();
    struct kms_socket *sock = listener_open(0600, &ours, 3);
    for (int i = 0; i < 3; i++) {
        fds[i] = listener_connect(listener.path);
    }
    CU_ASSERT(listener_becomes(&listener.served, 3));
    fds[3] = listener_connect(listener.path);
    CU_ASSERT(listener_hung_up(fds[3]));
    CU_ASSERT_EQUAL(atomic_load(&listener.metrics.connections_refused_limit), 1);
    close(listener.fds[1]); /* one ends: there is room again */
    int again = listener_connect(listener.path);
    CU_ASSERT(listener_becomes(&listener.served, 4));
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    close(again);
    close(listener.fds[0]);
    close(listener.fds[2]);
    close(listener.fds[3]);
    listener_close(sock);
    listener_end();
}

/* As root only: peers of two users, refused in turn. Each is named at once, but not again and
 * again.
 */
static void refused_users_are_named(void)
{
    static const uid_t uids[] = {12345, 12345, 12346, 12346, 12346};
    const uid_t nobody = 54321;
    const struct kms_peers theirs = {.uids = &nobody, .uid_count = 1};
    char text[4096] = "";
    int log[2];
    if (geteuid() != 0) {
        return;
    }
    listener_begin();
    CU_ASSERT_EQUAL(chmod(listener.dir, 0755), 0);
    CU_ASSERT_EQUAL(pipe2(log, O_CLOEXEC | O_NONBLOCK), 0);
    kms_log_setup(log[1], KMS_LOG_INFO, KMS_LOG_TEXT);
    struct kms_socket *sock = listener_open(0666, &theirs, 4);
    for (size_t i = 0; i < UNIT_COUNT(uids); i++) {
        CU_ASSERT_EQUAL(seteuid(uids[i]), 0); /* what SO_PEERCRED tells */
        int fd = listener_connect(listener.path);
        CU_ASSERT_EQUAL(seteuid(0), 0);
        CU_ASSERT(fd >= 0 && listener_hung_up(fd));
        close(fd);
    }
    listener_close(sock);
    kms_log_setup(2, KMS_LOG_INFO, KMS_LOG_TEXT);
    CU_ASSERT(read(log[0], text, sizeof text - 1) > 0);
    const char *first = strstr(text, "uid 12345 ");
    const char *second = strstr(text, "uid 12346 ");
    CU_ASSERT(first != NULL && strstr(first + 1, "uid 12345 ") == NULL);
    CU_ASSERT(second != NULL && strstr(second + 1, "uid 12346 ") == NULL);
    close(log[0]);
    close(log[1]);
    listener_end();
}

/* With no descriptor left accept fails; when there are some again, those who waited are served. */
static void running_out_of_descriptors_is_survived(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    struct rlimit before;
    listener_begin();
    struct kms_socket *sock = listener_open(0600, &ours, 8);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, listener.path);
    CU_ASSERT_EQUAL(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    for (int i = 0; i < 400 && atomic_load(&listener.metrics.accept_errors) == 0; i++) {
        usleep(5000);
    }
    CU_ASSERT(atomic_load(&listener.metrics.accept_errors) > 0);
    CU_ASSERT_EQUAL(atomic_load(&listener.served), 0);
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
    CU_ASSERT(listener_becomes(&listener.served, 1));
    close(fd);
    close(listener.fds[0]);
    listener_close(sock);
    listener_end();
}

/* Connections come by another socket from now on; those that are there stay, and count. */
static void a_door_moves(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    struct kms_socket_conf conf;
    struct kms_socket *next = NULL;
    char other[128];
    struct stat st;
    listener_begin();
    struct kms_socket *sock = listener_open(0600, &ours, 3);
    int before = listener_connect(listener.path);
    CU_ASSERT(listener_becomes(&listener.served, 1));
    conf = listener_conf(0640);
    snprintf(other, sizeof other, "%s/other.sock", listener.dir);
    conf.path = other;
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &next, NULL), KMS_OK);
    kms_socket_hide(sock);
    CU_ASSERT(stat(listener.path, &st) != 0);
    kms_door_move(listener.door, kms_socket_fd(next));
    kms_socket_close(sock);
    int after = listener_connect(other);
    CU_ASSERT(listener_becomes(&listener.served, 2));
    CU_ASSERT_EQUAL(kms_door_connections(listener.door), 2);
    CU_ASSERT_EQUAL(write(listener.fds[0], "x", 1), 1); /* nobody has closed it */
    int third = listener_connect(other);
    CU_ASSERT(listener_becomes(&listener.served, 3));
    int fourth = listener_connect(other);
    CU_ASSERT(listener_hung_up(fourth));
    close(before);
    close(after);
    close(third);
    close(fourth);
    for (int i = 0; i < 3; i++) {
        close(listener.fds[i]);
    }
    listener_close(next);
    snprintf(other, sizeof other, "%s/other.sock.lock", listener.dir);
    CU_ASSERT_EQUAL(unlink(other), 0);
    listener_end();
}

/* Who has connected and was not accepted yet when the door moves is not sent away. */
static void who_waits_is_let_in(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    int fds[40];
    listener_begin();
    struct kms_socket *sock = listener_open(0600, &ours, 64);
    for (int round = 0; round < 20; round++) {
        struct kms_socket_conf conf = listener_conf(0600);
        struct kms_socket *next = NULL;
        char name[64];
        snprintf(name, sizeof name, "@kmsbridge-door-%ld-%d", (long)getpid(), round);
        conf.path = name;
        CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &next, NULL), KMS_OK);
        if (round == 0) {
            for (size_t i = 0; i < UNIT_COUNT(fds); i++) {
                fds[i] = listener_connect(listener.path);
            }
        }
        kms_door_move(listener.door, kms_socket_fd(next));
        kms_socket_close(sock);
        sock = next;
    }
    CU_ASSERT(listener_becomes(&listener.served, UNIT_COUNT(fds)));
    for (size_t i = 0; i < UNIT_COUNT(fds); i++) {
        close(fds[i]);
        close(listener.fds[i]);
    }
    listener_close(sock);
    listener_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"mode and peers", mode_and_peers},
        {"connections are bounded", connections_are_bounded},
        {"refused users are named", refused_users_are_named},
        {"a door moves", a_door_moves},
        {"who waits is let in", who_waits_is_let_in},
        {"out of descriptors", running_out_of_descriptors_is_survived},
    };
    return unit_main("test_door", tests, UNIT_COUNT(tests));
}
