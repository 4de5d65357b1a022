/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/codec.h"

#define PATIENCE_NS (100 * KMS_NS_PER_MS) /* a reader that sleeps longer loses lines */
#define TAIL_ROOM   32 /* of a line: for the closing quote, the mark of a cut, the newline */
#define ESCAPED_MAX 8  /* bytes that one byte or character of text becomes at most */

_Static_assert(KMS_LOG_LINE_MAX <= PIPE_BUF, "a pipe with room takes a line whole, at once");

/* The one sink. Members change independently: a line in flight may see the old or the new one. */
static struct {
    atomic_int fd;
    atomic_int level;
    atomic_int format;
    atomic_uint dropped; /* lines lost since the last note about them */

    /* Guards the members below. Of two writers that saw room for one line, one would block. */
    pthread_mutex_t mutex;
    bool torn;    /* the last line lost its end: begin the next on a line of its own */
    bool stalled; /* the reader was waited for in vain: no more waiting until there is room */
} sink = {.fd = STDERR_FILENO,
          .level = KMS_LOG_INFO,
          .format = KMS_LOG_TEXT,
          .mutex = PTHREAD_MUTEX_INITIALIZER};

static const char *const level_names[] = {
    [KMS_LOG_ERROR] = "error",
    [KMS_LOG_WARN] = "warn",
    [KMS_LOG_INFO] = "info",
    [KMS_LOG_DEBUG] = "debug",
};

static const char *const format_names[] = {
    [KMS_LOG_TEXT] = "text",
    [KMS_LOG_JSON] = "json",
};

struct line {
    char data[KMS_LOG_LINE_MAX];
    size_t len;
    bool cut; /* something did not fit: nothing but the line's end follows */
};

/* Whole or not at all. */
static void put(struct line *line, const char *bytes, size_t len)
{
    if (line->cut || len > sizeof(line->data) - TAIL_ROOM - line->len) {
        line->cut = true;
        return;
    }
    memcpy(line->data + line->len, bytes, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Into the room kept for it. */
static void put_tail(struct line *line, const char *text)
{
    size_t len = strlen(text);

    if (len <= sizeof(line->data) - line->len) {
        memcpy(line->data + line->len, text, len);
        line->len += len;
    }
}

/* Writes what stands for the first character of @text, and returns how many bytes that was of. */
typedef size_t (*escape)(struct kms_span text, char ret_escaped[ESCAPED_MAX]);

static size_t copy_char(struct kms_span text, size_t len, char ret_escaped[ESCAPED_MAX])
{
    memcpy(ret_escaped, text.data, len);
    ret_escaped[len] = '\0';
    return len;
}

static size_t escape_for_text(struct kms_span text, char ret_escaped[ESCAPED_MAX])
{
    unsigned char c = text.data[0];
    size_t len = kms_utf8_next(text);

    if (c == '\n' || c == '\r' || c == '\t') {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        return 1;
    }
    if (len == 0 || c < 0x20 || c == 0x7f) {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\x%02x", c);
        return 1;
    }
    return copy_char(text, len, ret_escaped);
}

/* Inside quotes: the quote and the escape character too. */
static size_t escape_for_quoted(struct kms_span text, char ret_escaped[ESCAPED_MAX])
{
    unsigned char c = text.data[0];

    if (c == '"' || c == '\\') {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\%c", c);
        return 1;
    }
    return escape_for_text(text, ret_escaped);
}

/* RFC 8259 section 7; what is not UTF-8 becomes U+FFFD. */
static size_t escape_for_json(struct kms_span text, char ret_escaped[ESCAPED_MAX])
{
    unsigned char c = text.data[0];
    size_t len = kms_utf8_next(text);

    if (c == '"' || c == '\\') {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\%c", c);
        return 1;
    }
    if (len == 0) {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\xef\xbf\xbd");
        return 1;
    }
    if (c < 0x20 || c == 0x7f) {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\u%04x", c);
        return 1;
    }
    return copy_char(text, len, ret_escaped);
}

static void put_escaped(struct line *line, const char *text, escape escape_char)
{
    struct kms_span rest = kms_span_str(text);

    while (rest.len > 0 && !line->cut) {
        char escaped[ESCAPED_MAX];
        size_t used = escape_char(rest, escaped);

        put_text(line, escaped);
        rest = kms_span_of(rest.data + used, rest.len - used);
    }
}

static bool needs_quotes(const char *value)
{
    return value[0] == '\0' || value[strcspn(value, " =\"\\\t\r\n")] != '\0';
}

static void put_text_field(struct line *line, const char *key, const char *value)
{
    bool quoted = needs_quotes(value);
    char head[KMS_LOG_LINE_MAX];

    (void)snprintf(head, sizeof(head), " %s=%s", key, quoted ? "\"" : "");
    put_text(line, head);
    if (line->cut) {
        return;
    }
    put_escaped(line, value, quoted ? escape_for_quoted : escape_for_text);
    if (quoted) {
        put_tail(line, "\"");
    }
}

static void put_json_field(struct line *line, const char *key, const char *value)
{
    char head[KMS_LOG_LINE_MAX];

    (void)snprintf(head, sizeof(head), "%s\"%s\":\"", line->len == 0 ? "{" : ",", key);
    put_text(line, head);
    if (line->cut) {
        return;
    }
    put_escaped(line, value, escape_for_json);
    put_tail(line, "\"");
}

static void compose_text(struct line *line, const char *time, const char *level,
                         const char *message, const struct kms_log_field *fields, size_t count)
{
    put_text(line, time);
    put_text(line, " ");
    put_text(line, level);
    put_text(line, " ");
    put_escaped(line, message, escape_for_text);
    for (size_t i = 0; i < count; i++) {
        if (fields[i].value != NULL) {
            put_text_field(line, fields[i].key, fields[i].value);
        }
    }
    put_tail(line, line->cut ? " [cut]\n" : "\n");
}

static void compose_json(struct line *line, const char *time, const char *level,
                         const char *message, const struct kms_log_field *fields, size_t count)
{
    put_json_field(line, "time", time);
    put_json_field(line, "level", level);
    put_json_field(line, "msg", message);
    for (size_t i = 0; i < count; i++) {
        if (fields[i].value != NULL) {
            put_json_field(line, fields[i].key, fields[i].value);
        }
    }
    put_tail(line, line->cut ? ",\"cut\":true}\n" : "}\n");
}

static void compose(struct line *line, enum kms_log_level level, const char *message,
                    const struct kms_log_field *fields, size_t count)
{
    char time[32];

    kms_wall_text(kms_wall_ms(), time, sizeof(time));
    if (atomic_load(&sink.format) == KMS_LOG_JSON) {
        compose_json(line, time, level_names[level], message, fields, count);
    } else {
        compose_text(line, time, level_names[level], message, fields, count);
    }
}

/* True when there is room before the deadline. */
static bool wait_for_room(int fd, uint64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    int ready;

    do {
        uint64_t now = kms_now_ns();
        uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

        ready = poll(&pfd, 1, (int)((left + KMS_NS_PER_MS - 1) / KMS_NS_PER_MS));
    } while (ready < 0 && errno == EINTR);
    return ready > 0 && (pfd.revents & POLLOUT) != 0;
}

/*
 * As write(2), but EAGAIN instead of blocking, whatever the descriptor's flags: they are not ours
 * to change, others share them. A socket has a flag for that. A pipe that polls writable has a page
 * free, which takes a line; regular files and terminals poll writable.
 */
static ssize_t write_at_once(int fd, const char *data, size_t len)
{
    ssize_t done = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (done >= 0 || errno != ENOTSOCK) {
        return done;
    }
    if (!wait_for_room(fd, 0)) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, data, len);
}

/* One write(2) in the usual case. What a full pipe does not take in time is lost: a log must not
 * stop the work. False when nothing of it was written. */
static bool write_line_locked(int fd, const char *data, size_t len, uint64_t deadline_ns)
{
    size_t done = 0;

    while (done < len) {
        ssize_t written = write_at_once(fd, data + done, len - done);

        if (written > 0) {
            done += (size_t)written;
        } else if (written == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            break;
        } else if (errno != EINTR && (sink.stalled || kms_deadline_passed(deadline_ns) ||
                                      !wait_for_room(fd, deadline_ns))) {
            sink.stalled = true;
            break;
        }
    }
    if (done == 0) {
        return false;
    }
    sink.torn = done < len;
    sink.stalled = sink.stalled && sink.torn;
    return true;
}

/* Says how many lines are missing here. False: there is still no room. */
static bool note_dropped_locked(int fd, uint64_t deadline_ns)
{
    unsigned count = atomic_exchange(&sink.dropped, 0);
    struct line line = {.len = 0, .cut = false};
    char message[48];

    if (count == 0) {
        return true;
    }
    (void)snprintf(message, sizeof(message), "%u log lines dropped", count);
    compose(&line, KMS_LOG_WARN, message, NULL, 0);
    if (!write_line_locked(fd, line.data, line.len, deadline_ns)) {
        atomic_fetch_add(&sink.dropped, count);
        return false;
    }
    return true;
}

static bool deliver_locked(int fd, const struct line *line, uint64_t deadline_ns)
{
    if (sink.torn && !write_line_locked(fd, "\n", 1, deadline_ns)) {
        return false;
    }
    return note_dropped_locked(fd, deadline_ns) &&
           write_line_locked(fd, line->data, line->len, deadline_ns);
}

/* False: whoever has it makes no headway. (ThreadSanitizer does not know pthread_mutex_clocklock().
 * A holder leaves in bounded time, should the wall clock be turned back.) */
static bool lock_sink(void)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)PATIENCE_NS;
    until.tv_sec += until.tv_nsec / (long)KMS_NS_PER_S;
    until.tv_nsec %= (long)KMS_NS_PER_S;
    return pthread_mutex_timedlock(&sink.mutex, &until) == 0;
}

static void emit(enum kms_log_level level, const char *message, const struct kms_log_field *fields,
                 size_t count)
{
    struct line line = {.len = 0, .cut = false};
    int saved_errno = errno;
    uint64_t deadline_ns = kms_deadline_in(PATIENCE_NS);
    bool delivered = false;

    compose(&line, level, message, fields, count);
    if (lock_sink()) {
        delivered = deliver_locked(atomic_load(&sink.fd), &line, deadline_ns);
        (void)pthread_mutex_unlock(&sink.mutex);
    }
    if (!delivered) {
        atomic_fetch_add(&sink.dropped, 1);
    }
    errno = saved_errno;
}

/* Apart, for its stack: most of what could be said is not asked for. */
static void log_va(enum kms_log_level level, const struct kms_log_field *fields, size_t count,
                   const char *fmt, va_list args) KMS_PRINTF(4, 0) __attribute__((noinline));

static void log_va(enum kms_log_level level, const struct kms_log_field *fields, size_t count,
                   const char *fmt, va_list args)
{
    char message[KMS_LOG_LINE_MAX] = "";

    (void)vsnprintf(message, sizeof(message), fmt, args);
    emit(level, message, fields, count);
}

void kms_log_setup(int fd, enum kms_log_level level, enum kms_log_format format)
{
    atomic_store(&sink.fd, fd);
    atomic_store(&sink.level, (int)level);
    atomic_store(&sink.format, (int)format);
}

bool kms_log_enabled(enum kms_log_level level)
{
    return (int)level <= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

void kms_log(enum kms_log_level level, const char *fmt, ...)
{
    va_list args;

    if (!kms_log_enabled(level)) {
        return;
    }
    va_start(args, fmt);
    log_va(level, NULL, 0, fmt, args);
    va_end(args);
}

void kms_log_fields(enum kms_log_level level, const struct kms_log_field *fields, size_t count,
                    const char *fmt, ...)
{
    va_list args;

    if (!kms_log_enabled(level)) {
        return;
    }
    va_start(args, fmt);
    log_va(level, fields, count, fmt, args);
    va_end(args);
}

void kms_log_error(enum kms_log_level level, const struct kms_error *error, const char *fmt, ...)
{
    const struct kms_log_field fields[] = {
        {"class", kms_status_name(error->status)},
        {"code", error->code[0] != '\0' ? error->code : NULL},
        {"request_id", error->request_id[0] != '\0' ? error->request_id : NULL},
    };
    char message[KMS_LOG_LINE_MAX] = "";
    va_list args;

    if (!kms_log_enabled(level)) {
        return;
    }
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    kms_log_fields(level, fields, sizeof(fields) / sizeof(fields[0]), "%s: %s", message,
                   error->text);
}

/* Index of @text in @names, or @count. */
static size_t find_name(const char *const *names, size_t count, const char *text)
{
    size_t i = 0;

    while (i < count && strcmp(names[i], text) != 0) {
        i++;
    }
    return i;
}

enum kms_status kms_log_parse_level(const char *text, enum kms_log_level *ret)
{
    const size_t count = sizeof(level_names) / sizeof(level_names[0]);
    size_t i = find_name(level_names, count, text);

    if (i == count) {
        return KMS_E_INVALID;
    }
    *ret = (enum kms_log_level)i;
    return KMS_OK;
}

enum kms_status kms_log_parse_format(const char *text, enum kms_log_format *ret)
{
    const size_t count = sizeof(format_names) / sizeof(format_names[0]);
    size_t i = find_name(format_names, count, text);

    if (i == count) {
        return KMS_E_INVALID;
    }
    *ret = (enum kms_log_format)i;
    return KMS_OK;
}
