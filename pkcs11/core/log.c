/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"

#define LINE_MAX_BYTES 1024 /* longer lines are cut */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* -1: silent; else the highest level that is written. Set after all else, read before it. */
static atomic_int enabled = -1;
static struct {
    pthread_mutex_t mutex; /* guards the rest */
    char path[PATH_MAX];
    int fd;
    dev_t dev;
    ino_t ino;
} sink = {.mutex = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

/* Ours still? Hosts close all descriptors, and give their numbers to other files. */
static bool is_open_locked(void)
{
    struct stat st;

    return sink.fd >= 0 && fstat(sink.fd, &st) == 0 && st.st_dev == sink.dev &&
           st.st_ino == sink.ino;
}

static bool open_locked(void)
{
    struct stat st;
    int low = open(sink.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY,
                   S_IRUSR | S_IWUSR);
    int fd = low;

    sink.fd = -1;
    if (low >= 0 && low <= STDERR_FILENO) { /* a host without 0 to 2 must not print into it */
        fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        (void)close(low);
    }
    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return false;
    }
    sink.fd = fd;
    sink.dev = st.st_dev;
    sink.ino = st.st_ino;
    return true;
}

static int level_of(const char *text)
{
    for (int i = 0; i <= KMS_P11_DEBUG; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

void kms_p11_log_start_with(const char *spec)
{
    static const char scheme[] = "file:";
    const char *path = spec + strlen(scheme);
    const char *comma = NULL;
    size_t len = 0;
    int level = KMS_P11_INFO;

    if (atomic_load(&enabled) >= 0 || strncmp(spec, scheme, strlen(scheme)) != 0) {
        return;
    }
    comma = strrchr(path, ',');
    if (comma != NULL && level_of(comma + 1) >= 0) {
        level = level_of(comma + 1);
        len = (size_t)(comma - path);
    } else {
        len = strlen(path);
    }
    if (len == 0 || len >= sizeof(sink.path) || path[0] != '/') {
        return; /* a working directory is nobody's place for a log */
    }
    (void)pthread_mutex_lock(&sink.mutex);
    memcpy(sink.path, path, len);
    sink.path[len] = '\0';
    if (open_locked()) {
        atomic_store(&enabled, level);
    }
    (void)pthread_mutex_unlock(&sink.mutex);
}

void kms_p11_log_start(void)
{
    const char *spec = secure_getenv("KMSBRIDGE_LOG");

    if (spec != NULL) {
        kms_p11_log_start_with(spec);
    }
}

void kms_p11_log_forked(void)
{
    sink.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void write_line(const char *line, size_t len)
{
    (void)pthread_mutex_lock(&sink.mutex);
    if (is_open_locked() || open_locked()) {
        ssize_t done = write(sink.fd, line, len);

        (void)done; /* a full disk is not the host's problem */
    }
    (void)pthread_mutex_unlock(&sink.mutex);
}

KMS_PRINTF(2, 0)
static void log_args(enum kms_p11_log level, const char *fmt, va_list args)
{
    char line[LINE_MAX_BYTES];
    char when[32];
    int saved = errno;
    int head = 0;
    int text = 0;
    size_t len = 0;

    kms_wall_text(kms_wall_ms(), when, sizeof(when));
    head = snprintf(line, sizeof(line), "%s %s [%ld.%ld] ", when, level_names[level],
                    (long)getpid(), syscall(SYS_gettid));
    if (head > 0 && (size_t)head < sizeof(line)) {
        text = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, args);
        len = (size_t)head + (text < 0 ? 0 : (size_t)text);
        if (len > sizeof(line) - 2) {
            len = sizeof(line) - 2;
        }
        for (size_t i = 0; i < len; i++) { /* one line, whatever a label holds */
            if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) {
                line[i] = '?';
            }
        }
        line[len++] = '\n';
        write_line(line, len);
    }
    errno = saved;
}

void kms_p11_log(enum kms_p11_log level, const char *fmt, ...)
{
    va_list args;

    if ((int)level > atomic_load_explicit(&enabled, memory_order_relaxed)) {
        return;
    }
    va_start(args, fmt);
    log_args(level, fmt, args);
    va_end(args);
}

CK_RV kms_p11_refuse(CK_RV rv, const char *fmt, ...)
{
    va_list args;

    if ((int)KMS_P11_INFO <= atomic_load_explicit(&enabled, memory_order_relaxed)) {
        va_start(args, fmt);
        log_args(KMS_P11_INFO, fmt, args);
        va_end(args);
    }
    return rv;
}
