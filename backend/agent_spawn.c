/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private agent: `kmsbridged --private --config PATH --socket PATH`, started by the first of the
 * user's programs that needs it, shared by all, gone by itself when idle.
 *
 * In somebody else's process, so: no fork handlers of the host's run and no SIGCHLD is sent (a bare
 * clone(2), whose child only __WCLONE finds), the agent is nobody's child but init's, it has none
 * of the host's descriptors, signal settings or terminal. Between clone and exec there are only
 * system calls.
 */
#include "backend/agent_parts.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define SOCKET_NAME "agent.sock"
#define LOCK_NAME   "agent.lock"
#define RETRY_NS    (10 * KMS_NS_PER_S) /* after a start that failed */
#define POLL_NS     (5 * KMS_NS_PER_MS) /* between looks at the lock or the socket */
#define DESCRIPTORS 65536               /* closed one by one where close_range(2) lacks */
#define REPORT_FD   3                   /* in the new processes: where the pid or an errno goes */

/* ---- the directory -------------------------------------------------------------------------- */

/* A directory that nobody but we can change anything in: by itself, not through a link. */
static bool only_ours(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 077) == 0;
}

/* getenv() of a privileged program would let its caller say where. */
enum kms_status kms_agent_private_path(char ret_path[KMS_AGENT_PATH_MAX], struct kms_error *err)
{
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    int len;

    if (runtime != NULL && runtime[0] == '/' && only_ours(runtime)) {
        len = snprintf(ret_path, KMS_AGENT_PATH_MAX, "%s/kmsbridge/" SOCKET_NAME, runtime);
    } else {
        len = snprintf(ret_path, KMS_AGENT_PATH_MAX, "/tmp/kmsbridge-%lu/" SOCKET_NAME,
                       (unsigned long)geteuid());
    }
    if (len < 0 || len >= KMS_AGENT_PATH_MAX) {
        ret_path[0] = '\0';
        return kms_error_set(err, KMS_E_INVALID,
                             "XDG_RUNTIME_DIR is too long for a socket's address");
    }
    return KMS_OK;
}

/* Makes the socket's directory unless it is there. @ret_lock is the path of the lock in it. */
static enum kms_status make_directory(const char *socket_path, char ret_lock[KMS_AGENT_PATH_MAX],
                                      struct kms_error *err)
{
    size_t len = (size_t)(strrchr(socket_path, '/') - socket_path);

    memcpy(ret_lock, socket_path, len);
    ret_lock[len] = '\0';
    if (mkdir(ret_lock, 0700) != 0 && errno != EEXIST) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot make %s for a private agent: %s",
                             ret_lock, strerrordesc_np(errno));
    }
    if (!only_ours(ret_lock)) {
        return kms_error_set(err, KMS_E_DENIED,
                             "%s is not a directory of ours alone (owner, mode 0700, no link): no "
                             "private agent there",
                             ret_lock);
    }
    memcpy(ret_lock + len, "/" LOCK_NAME, sizeof("/" LOCK_NAME)); /* as long as the socket's */
    return KMS_OK;
}
_Static_assert(sizeof(LOCK_NAME) <= sizeof(SOCKET_NAME), "the lock's path fits");

/* ---- the lock ------------------------------------------------------------------------------- */

/* One program starts it, the others wait for that. *ret_fd is -1 unless locked. */
static enum kms_status take_lock(const char *path, const struct kms_agent_wait *wait, int *ret_fd,
                                 struct kms_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot open %s: %s", path,
                             strerrordesc_np(errno));
    }
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || kms_agent_io_pause(POLL_NS, wait) != 0) {
            (void)close(fd);
            return kms_error_set(err, KMS_E_TIMEOUT,
                                 "another program has not done with starting the private agent");
        }
    }
    *ret_fd = fd;
    return KMS_OK;
}

/* By name: a child that the host forked meanwhile may have the descriptor as well. */
static void drop_lock(int fd)
{
    (void)flock(fd, LOCK_UN);
    (void)close(fd);
}

/* ---- the new processes: system calls only --------------------------------------------------- */

struct start {
    char *const *argv;
    char *const *environment;
    int pipe; /* write end, for reports */
};

/* What the new processes say: the agent's pid; why there is none; why it could not be executed. */
struct report {
    enum { REPORT_PID, REPORT_NO_PROCESS, REPORT_NO_EXEC } what;
    int value;
};

static void send_report(struct report report)
{
    (void)!write(REPORT_FD, &report, sizeof(report)); /* a pipe takes so little at once */
}

/* fork(2) without fork handlers and without SIGCHLD. All arguments 0: their order, which differs
 * between architectures, does not matter. */
static pid_t quiet_fork(void)
{
    return (pid_t)syscall(SYS_clone, 0UL, NULL, NULL, NULL, 0UL);
}

static void default_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int i = 1; i < NSIG; i++) {
        (void)sigaction(i, &action, NULL); /* some may not be set, and need not */
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void own_descriptors(int pipe)
{
    int null;

    if (pipe != REPORT_FD) {
        (void)dup3(pipe, REPORT_FD, O_CLOEXEC);
    }
    if (syscall(SYS_close_range, REPORT_FD + 1, ~0U, 0) != 0) {
        for (int fd = REPORT_FD + 1; fd < DESCRIPTORS; fd++) {
            (void)close(fd);
        }
    }
    null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (null != fd) {
            (void)dup2(null, fd);
        }
    }
    if (null > STDERR_FILENO) {
        (void)close(null);
    }
}

_Noreturn static void become_agent(const struct start *start)
{
    (void)execve(start->argv[0], start->argv, start->environment);
    send_report((struct report){.what = REPORT_NO_EXEC, .value = errno});
    _exit(127);
}

_Noreturn static void detach(const struct start *start)
{
    pid_t pid;

    default_signals();
    own_descriptors(start->pipe);
    (void)setsid();
    (void)!chdir("/");
    pid = quiet_fork();
    if (pid == 0) {
        become_agent(start);
    }
    send_report(pid < 0 ? (struct report){.what = REPORT_NO_PROCESS, .value = errno}
                        : (struct report){.what = REPORT_PID, .value = (int)pid});
    _exit(0);
}

/* ---- start ---------------------------------------------------------------------------------- */

/* False at the end, which comes when the agent runs or both processes are gone. */
static bool read_report(int fd, const struct kms_agent_wait *wait, struct report *ret_report)
{
    for (;;) {
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        ssize_t got;

        if (poll(&entry, 1, 100) > 0) {
            got = read(fd, ret_report, sizeof(*ret_report));
            if (got >= 0 || (errno != EINTR && errno != EAGAIN)) {
                return got == (ssize_t)sizeof(*ret_report);
            }
        }
        if (kms_deadline_passed(wait->deadline_ns)) {
            return false;
        }
    }
}

static enum kms_status read_reports(int fd, const char *daemon, const struct kms_agent_wait *wait,
                                    pid_t *ret_pid, struct kms_error *err)
{
    struct report report;
    pid_t pid = -1;

    while (read_report(fd, wait, &report)) {
        if (report.what == REPORT_PID) {
            pid = (pid_t)report.value;
        } else {
            return kms_error_set(err, KMS_E_UNAVAILABLE, "cannot %s %s: %s",
                                 report.what == REPORT_NO_EXEC ? "execute" : "make a process for",
                                 daemon, strerrordesc_np(report.value));
        }
    }
    if (pid < 0) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "%s could not be started", daemon);
    }
    *ret_pid = pid;
    return KMS_OK;
}

/* With all signals blocked, so that none of the host's handlers runs in the new process. */
static pid_t quiet_start(const struct start *start)
{
    sigset_t all;
    sigset_t before;
    pid_t pid;
    int error;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = quiet_fork();
    if (pid == 0) {
        detach(start);
    }
    error = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

static enum kms_status start_agent(const struct kms_agent *agent, const struct kms_agent_wait *wait,
                                   pid_t *ret_pid, struct kms_error *err)
{
    char name[] = "--private", config[] = "--config", socket_option[] = "--socket";
    char socket_path[KMS_AGENT_PATH_MAX];
    char *const argv[] = {agent->daemon, name,        config, agent->private_config,
                          socket_option, socket_path, NULL};
    struct start start = {.argv = argv, .environment = environ};
    int ends[2];
    enum kms_status status;
    pid_t between;

    memcpy(socket_path, agent->private_socket, sizeof(socket_path));
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return kms_error_set(err, KMS_E_BUSY, "no pipe for a private agent: %s",
                             strerrordesc_np(errno));
    }
    start.pipe = ends[1];
    between = quiet_start(&start);
    (void)close(ends[1]);
    if (between < 0) {
        status = kms_error_set(err, KMS_E_UNAVAILABLE, "no process for the private agent");
    } else {
        status = read_reports(ends[0], agent->daemon, wait, ret_pid, err);
        while (waitpid(between, NULL, (int)__WCLONE) < 0 && errno == EINTR) {
        }
    }
    (void)close(ends[0]);
    return status;
}

/* ---- wait for its socket -------------------------------------------------------------------- */

static bool has_ended(int pidfd)
{
    struct pollfd entry = {.fd = pidfd, .events = POLLIN};

    return pidfd >= 0 && poll(&entry, 1, 0) > 0;
}

static enum kms_status wait_until_it_listens(const struct kms_agent *agent, pid_t pid,
                                             const struct kms_agent_wait *wait, int *ret_fd,
                                             struct kms_error *err)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* without it, the deadline must do */
    enum kms_status status = KMS_OK;

    for (;;) {
        bool ended = has_ended(pidfd); /* asked first: it may have found another one running */

        if (kms_agent_io_connect(agent->private_socket, ret_fd) == 0) {
            break;
        }
        if (ended) {
            /* kmsbridged(8) logs beside its socket when it is private */
            status =
                kms_error_set(err, KMS_E_UNAVAILABLE, "the private agent ended at once: see %s.log",
                              agent->private_socket);
            break;
        }
        if (kms_agent_io_pause(POLL_NS, wait) != 0) {
            status = kms_error_set(err, KMS_E_TIMEOUT, "the private agent does not listen on %s",
                                   agent->private_socket);
            break;
        }
    }
    if (pidfd >= 0) {
        (void)close(pidfd);
    }
    return status;
}

enum kms_status kms_agent_spawn(struct kms_agent *agent, const struct kms_agent_wait *wait,
                                int *ret_fd, struct kms_error *err)
{
    char lock_path[KMS_AGENT_PATH_MAX];
    enum kms_status status;
    pid_t pid = -1;
    int lock = -1;

    if (!kms_deadline_passed(atomic_load(&agent->spawn_again_ns))) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "no private agent: it could not be started");
    }
    status = make_directory(agent->private_socket, lock_path, err);
    if (status != KMS_OK) {
        return status;
    }
    status = take_lock(lock_path, wait, &lock, err);
    if (status != KMS_OK) {
        return status;
    }
    if (kms_agent_io_connect(agent->private_socket, ret_fd) != 0) { /* else another one did it */
        status = start_agent(agent, wait, &pid, err);
        if (status == KMS_OK) {
            status = wait_until_it_listens(agent, pid, wait, ret_fd, err);
        }
        atomic_store(&agent->spawn_again_ns, status == KMS_OK ? 0 : kms_deadline_in(RETRY_NS));
    }
    drop_lock(lock);
    return status;
}
