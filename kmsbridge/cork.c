/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/cork.h"

/* ThreadSanitizer must see these calls itself: there nothing is held. */
#if defined(__SANITIZE_THREAD__)
#define WITHOUT_CORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITHOUT_CORK 1
#endif
#endif

#ifndef WITHOUT_CORK

#include <errno.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/secure.h"

/* A send buffer with more than this in it is left to gRPC, which knows how to wait for room. */
#define QUEUED_MAX 32768

struct held {
    int fd;
    size_t len; /* 0: free */
    unsigned char bytes[KMS_CORK_ROOM];
};

static struct {
    pthread_mutex_t mutex; /* guards the held bytes; their writes are made under it */
    struct held
        *held; /* KMS_CORK_SOCKETS, in locked memory: they hold plaintexts. NULL: no corking */
    atomic_uint count; /* of held[] in use: 0 lets everybody pass without the mutex */
} cork = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool corking;

static ssize_t real_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return syscall(SYS_sendmsg, fd, msg, flags);
}

/* The peer does not read, though its buffer was nearly empty: its connection ends. */
static void give_up(int fd, size_t left)
{
    kms_log(KMS_LOG_WARN, "rpc: a client does not read; %zu bytes of replies dropped with it",
            left);
    (void)syscall(SYS_shutdown, fd, SHUT_RDWR);
}

static void flush_locked(struct held *held)
{
    size_t sent = 0;
    while (sent < held->len) {
        ssize_t n =
            send(held->fd, held->bytes + sent, held->len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            give_up(held->fd, held->len - sent);
            break;
        } else if (errno != EINTR) {
            break; /* the connection is gone: gRPC learns it from its next read */
        }
    }
    kms_wipe(held->bytes, held->len);
    held->len = 0;
    atomic_fetch_sub(&cork.count, 1);
}

static struct held *held_find_locked(int fd)
{
    for (size_t i = 0; cork.held != NULL && i < KMS_CORK_SOCKETS; i++) {
        if (cork.held[i].len != 0 && cork.held[i].fd == fd) {
            return &cork.held[i];
        }
    }
    return NULL;
}

static struct held *held_new_locked(int fd)
{
    int queued = 0;
    for (size_t i = 0; cork.held != NULL && i < KMS_CORK_SOCKETS; i++) {
        if (cork.held[i].len == 0) {
            if (ioctl(fd, SIOCOUTQ, &queued) != 0 || queued > QUEUED_MAX) {
                return NULL;
            }
            cork.held[i].fd = fd;
            atomic_fetch_add(&cork.count, 1);
            return &cork.held[i];
        }
    }
    return NULL;
}

static size_t length_of(const struct msghdr *msg)
{
    size_t total = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        total += msg->msg_iov[i].iov_len;
    }
    return total;
}

static void hold_locked(struct held *held, const struct msghdr *msg)
{
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        memcpy(held->bytes + held->len, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
        held->len += msg->msg_iov[i].iov_len;
    }
}

/* What is held for @fd goes out. */
static void release(int fd)
{
    if (atomic_load(&cork.count) == 0) {
        return;
    }
    pthread_mutex_lock(&cork.mutex);
    struct held *held = held_find_locked(fd);
    if (held != NULL) {
        flush_locked(held);
    }
    pthread_mutex_unlock(&cork.mutex);
}

/* True when the message is held now. */
static bool hold(int fd, const struct msghdr *msg, size_t len)
{
    pthread_mutex_lock(&cork.mutex);
    struct held *held = held_find_locked(fd);
    if (held != NULL && held->len + len > KMS_CORK_ROOM) {
        flush_locked(held);
        held = NULL;
    }
    if (held == NULL) {
        held = held_new_locked(fd);
    }
    if (held != NULL) {
        hold_locked(held, msg);
    }
    pthread_mutex_unlock(&cork.mutex);
    return held != NULL;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (corking && msg->msg_name == NULL && msg->msg_controllen == 0) {
        size_t len = length_of(msg);
        if (len > 0 && len <= KMS_CORK_ROOM / 4 && hold(fd, msg, len)) {
            return (ssize_t)len;
        }
    }
    release(fd);
    return real_sendmsg(fd, msg, flags);
}

int shutdown(int fd, int how)
{
    release(fd);
    return (int)syscall(SYS_shutdown, fd, how);
}

int close(int fd)
{
    release(fd);
    return (int)syscall(SYS_close, fd);
}

/* A module that forks: what is held is the parent's to send. */
static void forget_in_child(void)
{
    corking = false;
    atomic_store(&cork.count, 0);
    for (size_t i = 0; cork.held != NULL && i < KMS_CORK_SOCKETS; i++) {
        cork.held[i].len = 0;
    }
    pthread_mutex_init(&cork.mutex, NULL);
}

bool kms_cork_init(void)
{
    pthread_mutex_lock(&cork.mutex);
    if (cork.held == NULL && pthread_atfork(NULL, NULL, forget_in_child) == 0) {
        cork.held = kms_secure_new(KMS_CORK_SOCKETS * sizeof *cork.held);
    }
    bool ready = cork.held != NULL;
    pthread_mutex_unlock(&cork.mutex);
    return ready;
}

void kms_cork_begin(void)
{
    corking = true;
}

void kms_cork_flush(void)
{
    if (atomic_load(&cork.count) == 0) {
        return;
    }
    pthread_mutex_lock(&cork.mutex);
    for (size_t i = 0; i < KMS_CORK_SOCKETS; i++) {
        if (cork.held[i].len != 0) {
            flush_locked(&cork.held[i]);
        }
    }
    pthread_mutex_unlock(&cork.mutex);
}

void kms_cork_end(void)
{
    corking = false;
    kms_cork_flush();
}

#else

bool kms_cork_init(void)
{
    return true;
}

void kms_cork_begin(void)
{
}

void kms_cork_flush(void)
{
}

void kms_cork_end(void)
{
}

#endif
