/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/listener.h"
#include "tests/unit/unit.h"

static void a_dead_socket_is_replaced(void)
{
    struct kms_socket_conf conf = listener_conf(0600);
    struct kms_socket *sock = NULL;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    listener_begin();
    conf.path = listener.path;
    strcpy(addr.sun_path, listener.path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(dead, (struct sockaddr *)&addr, sizeof addr), 0);
    CU_ASSERT_EQUAL(listen(dead, 1), 0);
    close(dead); /* as a power cut leaves it */
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    int fd = listener_connect(listener.path);
    CU_ASSERT(fd >= 0);
    close(fd);
    listener_close(sock);
    listener_end();
}

static void a_live_one_is_not_stolen(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *first = NULL;
    struct kms_socket *second = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    listener_begin();
    conf = listener_conf(0600);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &first, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, &err), KMS_E_EXISTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, listener.path));
    int fd = listener_connect(listener.path);
    CU_ASSERT(fd >= 0); /* the first still serves */
    close(fd);
    kms_socket_close(first);

    /* a server of somebody else's, who knows nothing of our lock */
    strcpy(addr.sun_path, listener.path);
    int live = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(live, (struct sockaddr *)&addr, sizeof addr), 0);
    CU_ASSERT_EQUAL(listen(live, 1), 0);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, NULL), KMS_E_EXISTS);
    fd = listener_connect(listener.path);
    CU_ASSERT(fd >= 0);
    close(fd);
    close(live);
    listener_end();
}

static void what_is_no_socket_is_left_alone(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *sock = NULL;
    struct stat st;
    char other[128];
    listener_begin();
    conf = listener_conf(0600);
    int fd = open(listener.path, O_CREAT | O_WRONLY, 0600);
    CU_ASSERT_EQUAL(write(fd, "precious", 8), 8);
    close(fd);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_E_EXISTS);
    CU_ASSERT(stat(listener.path, &st) == 0 && st.st_size == 8);
    unlink(listener.path);
    snprintf(other, sizeof other, "%s/target", listener.dir);
    fd = open(other, O_CREAT | O_WRONLY, 0600);
    close(fd);
    CU_ASSERT_EQUAL(symlink("target", listener.path), 0);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_E_EXISTS);
    CU_ASSERT(lstat(listener.path, &st) == 0 && S_ISLNK(st.st_mode));
    unlink(other);
    listener_end();
}

/* The name that a socket has before it is ready: what a crash left there goes, nothing else. */
static void a_stale_temporary_name(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *sock = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    char lock[128];
    listener_begin();
    conf = listener_conf(0600);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    listener_close(sock);
    snprintf(lock, sizeof lock, "%s.lock", listener.path);
    CU_ASSERT_EQUAL(stat(lock, &st), 0);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s/.kmsbridged.%ju", listener.dir,
             (uintmax_t)st.st_ino);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(dead, (struct sockaddr *)&addr, sizeof addr), 0);
    close(dead);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    CU_ASSERT(lstat(addr.sun_path, &st) != 0 && errno == ENOENT);
    listener_close(sock);
    close(open(addr.sun_path, O_CREAT | O_WRONLY, 0600));
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, &err), KMS_E_EXISTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "is not a socket; it is left"));
    CU_ASSERT_EQUAL(unlink(addr.sun_path), 0);
    listener_end();
}

/* Two sockets in one directory, a short and the longest name. */
static void long_names_fit(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *first = NULL;
    struct kms_socket *second = NULL;
    char longest[sizeof((struct sockaddr_un *)0)->sun_path];
    char lock[128];
    listener_begin();
    conf = listener_conf(0600);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &first, NULL), KMS_OK);
    int n = snprintf(longest, sizeof longest, "%s/", listener.dir);
    memset(longest + n, 'x', sizeof longest - 1 - (size_t)n);
    longest[sizeof longest - 1] = '\0';
    conf.path = longest;
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &second, NULL), KMS_OK);
    int fd = listener_connect(longest);
    CU_ASSERT(fd >= 0);
    close(fd);
    fd = listener_connect(listener.path);
    CU_ASSERT(fd >= 0);
    close(fd);
    kms_socket_close(second);
    kms_socket_close(first);
    snprintf(lock, sizeof lock, "%s.lock", longest);
    CU_ASSERT_EQUAL(unlink(lock), 0);
    listener_end();
}

static void bad_places_are_named(void)
{
    struct kms_socket *sock = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    char longest[200];
    memset(longest, 'x', sizeof longest - 1);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    struct kms_socket_conf conf = {
        .path = longest, .mode = 0600, .owner = (uid_t)-1, .group = (gid_t)-1};
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_E_INVALID);
    conf.path = "/nonexistent-directory/kms.sock";
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, &err), KMS_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nonexistent-directory/kms.sock"));
}

static void abstract_names_work(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    char name[64];
    struct kms_socket *sock = NULL;
    struct kms_socket *second = NULL;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(name, sizeof name, "@kmsbridge-test-%ld", (long)getpid());
    struct kms_socket_conf conf = {
        .path = name, .mode = 0600, .owner = (uid_t)-1, .group = (gid_t)-1};
    atomic_store(&listener.served, 0);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, NULL), KMS_E_EXISTS);
    listener_serve(sock, &ours, 2);
    memcpy(addr.sun_path + 1, name + 1, strlen(name) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&addr,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                    0);
    CU_ASSERT(listener_becomes(&listener.served, 1));
    close(fd);
    close(listener.fds[0]);
    listener_close(sock);
}

/* As systemd hands it over: descriptor 3, blocking. It is served, can be stopped, and keeps its
 * listener.path. */
static void a_socket_handed_over_is_used(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char pid[24];
    struct stat st;
    listener_begin();
    strcpy(addr.sun_path, listener.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    CU_ASSERT_EQUAL(listen(fd, 4), 0);
    int kept = fcntl(3, F_DUPFD_CLOEXEC, 10); /* whatever is at 3 now */
    CU_ASSERT_EQUAL(dup2(fd, 3), 3);
    if (fd != 3) {
        close(fd);
    }
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    struct kms_socket *sock = listener_open(0600, &ours, 4);
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    int one = listener_connect(listener.path);
    int two = listener_connect(listener.path);
    CU_ASSERT(one >= 0 && two >= 0);
    CU_ASSERT(listener_becomes(&listener.served, 2));
    kms_door_shut(listener.door); /* returns: the thread waits in poll(), not in accept() */
    listener_close(sock);
    CU_ASSERT_EQUAL(stat(listener.path, &st), 0); /* the service manager's, not ours to remove */
    close(one);
    close(two);
    close(listener.fds[0]);
    close(listener.fds[1]);
    if (kept >= 0) {
        dup2(kept, 3);
        close(kept);
    }
    listener_end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"dead socket is replaced", a_dead_socket_is_replaced},
        {"live socket is not stolen", a_live_one_is_not_stolen},
        {"what is no socket is left alone", what_is_no_socket_is_left_alone},
        {"stale temporary name", a_stale_temporary_name},
        {"long names fit", long_names_fit},
        {"bad places are named", bad_places_are_named},
        {"abstract names", abstract_names_work},
        {"socket handed over", a_socket_handed_over_is_used},
    };
    return unit_main("test_socket", tests, UNIT_COUNT(tests));
}
