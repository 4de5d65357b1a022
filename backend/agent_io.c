/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of the agent's client: non-blocking, close-on-exec, never 0 to 2, never a signal. */
#include "backend/agent_parts.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define SLICE_NS       (50 * KMS_NS_PER_MS) /* how soon a cancelled call is noticed */
#define BACKOFF_MIN_NS (2 * KMS_NS_PER_MS)
#define BACKOFF_MAX_NS (250 * KMS_NS_PER_MS)

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static bool cancelled(const struct kms_agent_wait *wait)
{
    return wait->cancelled != NULL && atomic_load(wait->cancelled);
}

/* A host that closed 0, 1 or 2 may write its own output to what gets that number. */
static int lift(int fd)
{
    int high = fd;

    if (fd >= 0 && fd <= STDERR_FILENO) {
        int error;

        high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        error = errno;
        (void)close(fd);
        errno = error;
    }
    return high;
}

int kms_agent_io_connect(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd;

    if (len >= sizeof(address.sun_path)) {
        return ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, len + 1);
    fd = lift(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) {
        return errno;
    }
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int error = errno;

        if (error == EISCONN) {
            break;
        }
        if (error != EINTR) {
            (void)close(fd);
            return error;
        }
    }
    *ret_fd = fd;
    return 0;
}

/* Sleeps until @fd is ready for @events. */
static int wait_for(int fd, short events, const struct kms_agent_wait *wait)
{
    for (;;) {
        struct pollfd entry = {.fd = fd, .events = events};
        uint64_t left = kms_deadline_left(wait->deadline_ns);
        struct timespec until;
        int ready;

        if (cancelled(wait)) {
            return ECANCELED;
        }
        if (left == 0) {
            return ETIMEDOUT;
        }
        if (wait->cancelled != NULL && left > SLICE_NS) {
            left = SLICE_NS;
        }
        until.tv_sec = (time_t)(left / KMS_NS_PER_S);
        until.tv_nsec = (long)(left % KMS_NS_PER_S);
        ready = ppoll(&entry, 1, &until, NULL);
        if (ready > 0) {
            return (entry.revents & POLLNVAL) != 0 ? EBADF : 0;
        }
        if (ready < 0 && errno != EINTR) {
            return errno;
        }
    }
}

int kms_agent_io_send(int fd, struct kms_span bytes, const struct kms_agent_wait *wait)
{
    while (bytes.len > 0) {
        ssize_t sent = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        int error = errno;

        if (sent >= 0) {
            bytes = kms_span_of(bytes.data + sent, bytes.len - (size_t)sent);
            continue;
        }
        if (error == EAGAIN) {
            error = wait_for(fd, POLLOUT, wait);
            if (error != 0) {
                return error;
            }
        } else if (error != EINTR) {
            return error;
        }
    }
    return 0;
}

int kms_agent_io_recv(int fd, struct kms_buf *buf, uint64_t spin_ns,
                      const struct kms_agent_wait *wait)
{
    uint64_t spin_until = spin_ns == 0 ? 0 : kms_now_ns() + spin_ns;
    bool spinning = spin_ns > 0;

    for (;;) {
        ssize_t got;
        int error;

        if (!spinning) {
            error = wait_for(fd, POLLIN, wait);
            if (error != 0) {
                return error;
            }
        }
        got = recv(fd, buf->data + buf->len, kms_buf_room(buf), MSG_DONTWAIT);
        if (got > 0) {
            buf->len += (size_t)got;
            return 0;
        }
        if (got == 0) {
            return KMS_AGENT_EOF;
        }
        error = errno;
        if (error != EAGAIN && error != EINTR) {
            return error;
        }
        cpu_relax();
        spinning = spinning && kms_now_ns() < spin_until;
    }
}

int kms_agent_io_pause(uint64_t ns, const struct kms_agent_wait *wait)
{
    while (ns > 0) {
        uint64_t nap = ns < SLICE_NS ? ns : SLICE_NS;
        uint64_t left = kms_deadline_left(wait->deadline_ns);
        struct timespec until;

        if (cancelled(wait)) {
            return ECANCELED;
        }
        if (left <= nap) {
            return ETIMEDOUT;
        }
        until = (struct timespec){.tv_sec = 0, .tv_nsec = (long)nap};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL);
        ns -= nap;
    }
    return 0;
}

uint64_t kms_agent_io_backoff(unsigned attempt)
{
    uint64_t ceiling = BACKOFF_MIN_NS << (attempt < 8 ? attempt : 8);
    uint32_t random = 0;

    if (ceiling > BACKOFF_MAX_NS) {
        ceiling = BACKOFF_MAX_NS;
    }
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random)) {
        random = UINT32_MAX / 2;
    }
    return BACKOFF_MIN_NS / 2 + (ceiling - BACKOFF_MIN_NS / 2) * random / UINT32_MAX;
}
