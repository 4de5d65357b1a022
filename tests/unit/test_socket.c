/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/unit/unit.h"

static char dir[64];
static char path[96];
static struct kms_metrics metrics;
static atomic_int served;
static int served_fds[64];

static struct kms_socket_conf conf_of(mode_t mode)
{
    return (struct kms_socket_conf){
        .path = path, .mode = mode, .owner = (uid_t)-1, .group = (gid_t)-1};
}

static void serve(void *ctx, int fd)
{
    (void)ctx;
    served_fds[atomic_load(&served) % 64] = fd; /* one accepting thread */
    atomic_fetch_add(&served, 1);
}

static int connect_to(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(addr.sun_path, name);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* True when the other side closes within two seconds. */
static bool hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&p, 1, 2000) == 1 && read(fd, &byte, 1) == 0;
}

static bool becomes(const atomic_int *value, int wanted)
{
    for (int i = 0; i < 400 && atomic_load(value) != wanted; i++) {
        usleep(5000);
    }
    return atomic_load(value) == wanted;
}

static void begin(void)
{
    strcpy(dir, "/tmp/kmsbridge-socket-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/kms.sock", dir);
    memset(&metrics, 0, sizeof metrics);
    atomic_store(&served, 0);
}

static void end(void)
{
    char lock[128];
    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(lock);
    unlink(path);
    CU_ASSERT_EQUAL(rmdir(dir), 0); /* nothing else was left behind */
}

static struct kms_socket *open_and_accept(mode_t mode, const struct kms_peers *peers, unsigned max)
{
    struct kms_socket_conf conf = conf_of(mode);
    struct kms_socket *sock = NULL;
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(kms_socket_accept(sock, peers, max, &metrics, serve, NULL, NULL), KMS_OK);
    return sock;
}

static void mode_and_peers(void)
{
    const uid_t me = getuid();
    const uid_t other = me + 1;
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    const struct kms_peers theirs = {.uids = &other, .uid_count = 1};
    struct stat st;
    begin();
    struct kms_socket *sock = open_and_accept(0640, &ours, 4);
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    CU_ASSERT(S_ISSOCK(st.st_mode));
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0640);
    int fd = connect_to(path);
    CU_ASSERT(fd >= 0);
    CU_ASSERT(becomes(&served, 1));
    CU_ASSERT_EQUAL(kms_socket_connections(sock), 1);
    CU_ASSERT_EQUAL(kms_socket_configure(sock, &theirs, 4), KMS_OK);
    int refused = connect_to(path);
    CU_ASSERT(refused >= 0 && hung_up(refused));
    CU_ASSERT_EQUAL(atomic_load(&served), 1);
    CU_ASSERT_EQUAL(atomic_load(&metrics.connections_refused_peer), 1);
    const gid_t group = getgid();
    const struct kms_peers by_group = {.gids = &group, .gid_count = 1};
    CU_ASSERT_EQUAL(kms_socket_configure(sock, &by_group, 4), KMS_OK);
    int third = connect_to(path);
    CU_ASSERT(becomes(&served, 2));
    close(fd);
    close(refused);
    close(third);
    close(served_fds[0]);
    close(served_fds[1]);
    CU_ASSERT_EQUAL(kms_socket_connections(sock), 0);
    kms_socket_close(sock);
    CU_ASSERT_EQUAL(stat(path, &st), -1);
    end();
}

static void connections_are_bounded(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    int fds[4];
    begin();
    struct kms_socket *sock = open_and_accept(0600, &ours, 3);
    for (int i = 0; i < 3; i++) {
        fds[i] = connect_to(path);
    }
    CU_ASSERT(becomes(&served, 3));
    fds[3] = connect_to(path);
    CU_ASSERT(hung_up(fds[3]));
    CU_ASSERT_EQUAL(atomic_load(&metrics.connections_refused_limit), 1);
    close(served_fds[1]); /* one ends: there is room again */
    int again = connect_to(path);
    CU_ASSERT(becomes(&served, 4));
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    close(again);
    close(served_fds[0]);
    close(served_fds[2]);
    close(served_fds[3]);
    kms_socket_close(sock);
    end();
}

static void a_dead_socket_is_replaced(void)
{
    struct kms_socket_conf conf = conf_of(0600);
    struct kms_socket *sock = NULL;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    begin();
    conf.path = path;
    strcpy(addr.sun_path, path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(dead, (struct sockaddr *)&addr, sizeof addr), 0);
    CU_ASSERT_EQUAL(listen(dead, 1), 0);
    close(dead); /* as a power cut leaves it */
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    int fd = connect_to(path);
    CU_ASSERT(fd >= 0);
    close(fd);
    kms_socket_close(sock);
    end();
}

static void a_live_one_is_not_stolen(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *first = NULL;
    struct kms_socket *second = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    begin();
    conf = conf_of(0600);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &first, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, &err), KMS_E_EXISTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, path));
    int fd = connect_to(path);
    CU_ASSERT(fd >= 0); /* the first still serves */
    close(fd);
    kms_socket_close(first);

    /* a server of somebody else's, who knows nothing of our lock */
    strcpy(addr.sun_path, path);
    int live = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(live, (struct sockaddr *)&addr, sizeof addr), 0);
    CU_ASSERT_EQUAL(listen(live, 1), 0);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, NULL), KMS_E_EXISTS);
    fd = connect_to(path);
    CU_ASSERT(fd >= 0);
    close(fd);
    close(live);
    end();
}

static void what_is_no_socket_is_left_alone(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *sock = NULL;
    struct stat st;
    char other[128];
    begin();
    conf = conf_of(0600);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CU_ASSERT_EQUAL(write(fd, "precious", 8), 8);
    close(fd);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_E_EXISTS);
    CU_ASSERT(stat(path, &st) == 0 && st.st_size == 8);
    unlink(path);
    snprintf(other, sizeof other, "%s/target", dir);
    fd = open(other, O_CREAT | O_WRONLY, 0600);
    close(fd);
    CU_ASSERT_EQUAL(symlink("target", path), 0);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, NULL), KMS_E_EXISTS);
    CU_ASSERT(lstat(path, &st) == 0 && S_ISLNK(st.st_mode));
    unlink(other);
    end();
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
    begin();
    conf = conf_of(0600);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    kms_socket_close(sock);
    snprintf(lock, sizeof lock, "%s.lock", path);
    CU_ASSERT_EQUAL(stat(lock, &st), 0);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s/.kmsbridged.%ju", dir, (uintmax_t)st.st_ino);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(dead, (struct sockaddr *)&addr, sizeof addr), 0);
    close(dead);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    CU_ASSERT(lstat(addr.sun_path, &st) != 0 && errno == ENOENT);
    kms_socket_close(sock);
    close(open(addr.sun_path, O_CREAT | O_WRONLY, 0600));
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &sock, &err), KMS_E_EXISTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "is not a socket; it is left"));
    CU_ASSERT_EQUAL(unlink(addr.sun_path), 0);
    end();
}

/* Two sockets in one directory, a short and the longest name. */
static void long_names_fit(void)
{
    struct kms_socket_conf conf;
    struct kms_socket *first = NULL;
    struct kms_socket *second = NULL;
    char longest[sizeof((struct sockaddr_un *)0)->sun_path];
    char lock[128];
    begin();
    conf = conf_of(0600);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &first, NULL), KMS_OK);
    int n = snprintf(longest, sizeof longest, "%s/", dir);
    memset(longest + n, 'x', sizeof longest - 1 - (size_t)n);
    longest[sizeof longest - 1] = '\0';
    conf.path = longest;
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &second, NULL), KMS_OK);
    int fd = connect_to(longest);
    CU_ASSERT(fd >= 0);
    close(fd);
    fd = connect_to(path);
    CU_ASSERT(fd >= 0);
    close(fd);
    kms_socket_close(second);
    kms_socket_close(first);
    snprintf(lock, sizeof lock, "%s.lock", longest);
    CU_ASSERT_EQUAL(unlink(lock), 0);
    end();
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
    begin();
    CU_ASSERT_EQUAL(chmod(dir, 0755), 0);
    CU_ASSERT_EQUAL(pipe2(log, O_CLOEXEC | O_NONBLOCK), 0);
    kms_log_setup(log[1], KMS_LOG_INFO, KMS_LOG_TEXT);
    struct kms_socket *sock = open_and_accept(0666, &theirs, 4);
    for (size_t i = 0; i < UNIT_COUNT(uids); i++) {
        CU_ASSERT_EQUAL(seteuid(uids[i]), 0); /* what SO_PEERCRED tells */
        int fd = connect_to(path);
        CU_ASSERT_EQUAL(seteuid(0), 0);
        CU_ASSERT(fd >= 0 && hung_up(fd));
        close(fd);
    }
    kms_socket_close(sock);
    kms_log_setup(2, KMS_LOG_INFO, KMS_LOG_TEXT);
    CU_ASSERT(read(log[0], text, sizeof text - 1) > 0);
    const char *first = strstr(text, "uid 12345 ");
    const char *second = strstr(text, "uid 12346 ");
    CU_ASSERT(first != NULL && strstr(first + 1, "uid 12345 ") == NULL);
    CU_ASSERT(second != NULL && strstr(second + 1, "uid 12346 ") == NULL);
    close(log[0]);
    close(log[1]);
    end();
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
    atomic_store(&served, 0);
    CU_ASSERT_EQUAL_FATAL(kms_socket_open(&conf, &sock, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_socket_open(&conf, &second, NULL), KMS_E_EXISTS);
    CU_ASSERT_EQUAL(kms_socket_accept(sock, &ours, 2, &metrics, serve, NULL, NULL), KMS_OK);
    memcpy(addr.sun_path + 1, name + 1, strlen(name) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&addr,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                    0);
    CU_ASSERT(becomes(&served, 1));
    close(fd);
    close(served_fds[0]);
    kms_socket_close(sock);
}

/* With no descriptor left accept fails; when there are some again, those who waited are served. */
static void running_out_of_descriptors_is_survived(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    struct rlimit before;
    begin();
    struct kms_socket *sock = open_and_accept(0600, &ours, 8);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    CU_ASSERT_EQUAL(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    for (int i = 0; i < 400 && atomic_load(&metrics.accept_errors) == 0; i++) {
        usleep(5000);
    }
    CU_ASSERT(atomic_load(&metrics.accept_errors) > 0);
    CU_ASSERT_EQUAL(atomic_load(&served), 0);
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
    CU_ASSERT(becomes(&served, 1));
    close(fd);
    close(served_fds[0]);
    kms_socket_close(sock);
    end();
}

/* As systemd hands it over: descriptor 3, blocking. It is served, can be stopped, and keeps its
 * path. */
static void a_socket_handed_over_is_used(void)
{
    const uid_t me = getuid();
    const struct kms_peers ours = {.uids = &me, .uid_count = 1};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char pid[24];
    struct stat st;
    begin();
    strcpy(addr.sun_path, path);
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
    struct kms_socket *sock = open_and_accept(0600, &ours, 4);
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    int one = connect_to(path);
    int two = connect_to(path);
    CU_ASSERT(one >= 0 && two >= 0);
    CU_ASSERT(becomes(&served, 2));
    kms_socket_stop(sock); /* returns: the thread waits in poll(), not in accept() */
    kms_socket_close(sock);
    CU_ASSERT_EQUAL(stat(path, &st), 0); /* the service manager's, not ours to remove */
    close(one);
    close(two);
    close(served_fds[0]);
    close(served_fds[1]);
    if (kept >= 0) {
        dup2(kept, 3);
        close(kept);
    }
    end();
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"mode and peers", mode_and_peers},
        {"connections are bounded", connections_are_bounded},
        {"dead socket is replaced", a_dead_socket_is_replaced},
        {"live socket is not stolen", a_live_one_is_not_stolen},
        {"what is no socket is left alone", what_is_no_socket_is_left_alone},
        {"stale temporary name", a_stale_temporary_name},
        {"long names fit", long_names_fit},
        {"refused users are named", refused_users_are_named},
        {"bad places are named", bad_places_are_named},
        {"abstract names", abstract_names_work},
        {"socket handed over", a_socket_handed_over_is_used},
        {"out of descriptors", running_out_of_descriptors_is_survived},
    };
    return unit_main("test_socket", tests, UNIT_COUNT(tests));
}
