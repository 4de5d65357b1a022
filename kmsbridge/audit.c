/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/codec.h"
#include "common/log.h"

#define ESCAPED_MAX 7   /* "\u0000" */
#define TEXT_MAX    600 /* bytes of a field's value; exe is the longest */

_Static_assert(KMS_AUDIT_LINE_MAX >= 2 * 1024 + 6 * (KMS_AUDIT_EXE_MAX + 256 + 128),
               "every byte of exe, label and the rest may need six");

struct kms_audit {
    atomic_int to;
    atomic_bool required;
    atomic_bool failing; /* the last line could not be written */
    atomic_uint_fast64_t lost;

    pthread_mutex_t mutex; /* guards the members below; held while a line is written */
    int fd;
    bool torn;          /* the last line lost its end */
    uint64_t lost_here; /* since the last line that was written */
};

/* --- the line ----------------------------------------------------------------------------------
 */

struct line {
    char *data; /* KMS_AUDIT_LINE_MAX */
    size_t len;
};

static void put(struct line *line, const char *text)
{
    size_t len = strlen(text);

    if (len < KMS_AUDIT_LINE_MAX - line->len) {
        memcpy(line->data + line->len, text, len + 1);
        line->len += len;
    }
}

/* RFC 8259 section 7; what is not UTF-8 becomes U+FFFD. Returns the bytes it was of. */
static size_t escape(struct kms_span text, char ret_escaped[ESCAPED_MAX])
{
    unsigned char c = text.data[0];
    size_t len = kms_utf8_next(text);

    if (c == '"' || c == '\\') {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\%c", c);
        return 1;
    }
    if (c < 0x20 || c == 0x7f) {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\\u%04x", c);
        return 1;
    }
    if (len == 0) {
        (void)snprintf(ret_escaped, ESCAPED_MAX, "\xef\xbf\xbd");
        return 1;
    }
    memcpy(ret_escaped, text.data, len);
    ret_escaped[len] = '\0';
    return len;
}

static void put_name(struct line *line, const char *name)
{
    put(line, line->len == 0 ? "{\"" : ",\"");
    put(line, name);
    put(line, "\":");
}

static void put_text(struct line *line, const char *name, const char *value)
{
    struct kms_span rest;
    char escaped[ESCAPED_MAX];

    if (value == NULL || value[0] == '\0') {
        return;
    }
    rest = kms_span_of(value, strnlen(value, TEXT_MAX));
    put_name(line, name);
    put(line, "\"");
    while (rest.len > 0) {
        size_t used = escape(rest, escaped);

        put(line, escaped);
        rest = kms_span_of(rest.data + used, rest.len - used);
    }
    put(line, "\"");
}

static void put_number(struct line *line, const char *name, unsigned long long value)
{
    char text[24];

    put_name(line, name);
    (void)snprintf(text, sizeof(text), "%llu", value);
    put(line, text);
}

size_t kms_audit_format(const struct kms_audit_record *record, uint64_t wall_ms,
                        char ret_line[KMS_AUDIT_LINE_MAX])
{
    struct line line = {.data = ret_line, .len = 0};
    char time[32];

    kms_wall_text(wall_ms, time, sizeof(time));
    put_text(&line, "time", time);
    put_text(&line, "front", record->front);
    if (record->peer != NULL) {
        put_number(&line, "uid", record->peer->uid);
        put_number(&line, "gid", record->peer->gid);
        put_number(&line, "pid", (unsigned long long)record->peer->pid);
        put_text(&line, "exe", record->peer->exe);
    }
    put_text(&line, "token", record->token);
    put_text(&line, "key_id", record->key_id);
    put_text(&line, "label", record->label);
    put_text(&line, "op", record->op);
    put_text(&line, "mechanism", record->mechanism);
    put_text(&line, "verdict", kms_status_name(record->verdict));
    put_text(&line, "refused", record->refused);
    put_text(&line, "request_id", record->request_id);
    put_text(&line, "trace_id", record->trace_id);
    if (record->suppressed != 0) {
        put_number(&line, "suppressed", (unsigned long long)record->suppressed);
    }
    put_number(&line, "us", (unsigned long long)(record->duration_ns / KMS_NS_PER_US));
    put(&line, "}\n");
    return line.len;
}

static size_t format_lost(uint64_t lost, char ret_line[KMS_AUDIT_LINE_MAX])
{
    struct line line = {.data = ret_line, .len = 0};
    char time[32];

    kms_wall_text(kms_wall_ms(), time, sizeof(time));
    put_text(&line, "time", time);
    put_number(&line, "lost", (unsigned long long)lost);
    put(&line, "}\n");
    return line.len;
}

/* --- the file ----------------------------------------------------------------------------------
 */

static enum kms_status open_file(const char *path, int *ret_fd, struct kms_error *err)
{
    struct stat st;
    int fd = open(
        path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);

    if (fd < 0) {
        return kms_error_set(err, errno == ENOENT ? KMS_E_NOT_FOUND : KMS_E_DENIED,
                             "audit.file: %s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return kms_error_set(err, KMS_E_INVALID, "audit.file: %s is not a regular file", path);
    }
    *ret_fd = fd;
    return KMS_OK;
}

enum kms_status kms_audit_open(const struct kms_audit_conf *conf, struct kms_audit **ret_audit,
                               struct kms_error *err)
{
    struct kms_audit *audit = calloc(1, sizeof(*audit));
    enum kms_status status;

    if (audit == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "audit: out of memory");
    }
    audit->fd = -1;
    pthread_mutex_init(&audit->mutex, NULL);
    status = kms_audit_reopen(audit, conf, err);
    if (status != KMS_OK) {
        kms_audit_close(audit);
        return status;
    }
    *ret_audit = audit;
    return KMS_OK;
}

enum kms_status kms_audit_reopen(struct kms_audit *audit, const struct kms_audit_conf *conf,
                                 struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    int fd = -1;

    if (conf->to == KMS_AUDIT_FILE) {
        status = open_file(conf->file, &fd, err);
    }
    if (status != KMS_OK) {
        return status;
    }
    pthread_mutex_lock(&audit->mutex);
    if (audit->fd >= 0) {
        (void)close(audit->fd);
    }
    audit->fd = fd;
    audit->torn = false;
    pthread_mutex_unlock(&audit->mutex);
    atomic_store(&audit->to, (int)conf->to);
    atomic_store(&audit->required, conf->required);
    return KMS_OK;
}

void kms_audit_close(struct kms_audit *audit)
{
    if (audit != NULL) {
        if (audit->fd >= 0) {
            (void)close(audit->fd);
        }
        pthread_mutex_destroy(&audit->mutex);
        free(audit);
    }
}

static bool write_locked(struct kms_audit *audit, const char *data, size_t len)
{
    ssize_t n;

    do {
        n = write(audit->fd, data, len);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        audit->torn = (size_t)n < len;
    }
    return n == (ssize_t)len;
}

/* Ends a line that lost its end, and says how many are missing; true when there was nothing to
 * say, or it is said. */
static bool resume_locked(struct kms_audit *audit)
{
    char line[KMS_AUDIT_LINE_MAX];
    size_t len;

    if (audit->torn && !write_locked(audit, "\n", 1)) {
        return false;
    }
    if (audit->lost_here == 0) {
        return true;
    }
    len = format_lost(audit->lost_here, line);
    if (!write_locked(audit, line, len)) {
        return false;
    }
    kms_log(KMS_LOG_WARN, "audit: lines can be written again; %llu are missing",
            (unsigned long long)audit->lost_here);
    audit->lost_here = 0;
    atomic_store(&audit->failing, false);
    return true;
}

static bool write_line(struct kms_audit *audit, const char *line, size_t len)
{
    bool written = false;
    int error = 0;

    pthread_mutex_lock(&audit->mutex);
    errno = 0;
    written = audit->fd >= 0 && resume_locked(audit) && write_locked(audit, line, len);
    error = errno;
    if (!written) {
        audit->lost_here++;
        atomic_fetch_add(&audit->lost, 1);
    }
    pthread_mutex_unlock(&audit->mutex);
    if (!written && !atomic_exchange(&audit->failing, true)) {
        kms_log(KMS_LOG_ERROR, "audit: a line cannot be written: %s; %s",
                error == 0 ? "the disk is full" : strerror(error),
                atomic_load(&audit->required)
                    ? "operations are refused until it can (audit.required)"
                    : "operations go on without");
    }
    return written;
}

static enum kms_status refuse(struct kms_error *err)
{
    return kms_error_set(err, KMS_E_UNAVAILABLE,
                         "the audit file cannot be written, and audit.required is set");
}

enum kms_status kms_audit_ready(struct kms_audit *audit, struct kms_error *err)
{
    bool can = true;

    if (audit == NULL || !atomic_load_explicit(&audit->required, memory_order_relaxed) ||
        !atomic_load_explicit(&audit->failing, memory_order_relaxed)) {
        return KMS_OK;
    }
    pthread_mutex_lock(&audit->mutex);
    can = audit->fd >= 0 && resume_locked(audit);
    pthread_mutex_unlock(&audit->mutex);
    return can ? KMS_OK : refuse(err);
}

/* The same fields in the log's own form. */
static void write_log(const struct kms_audit_record *record)
{
    char uid[24] = "";
    char gid[24] = "";
    char pid[24] = "";
    char us[24];
    char suppressed[24];
    bool known = record->peer != NULL;
    const struct kms_log_field fields[] = {
        {"front", record->front},
        {"uid", known ? uid : NULL},
        {"gid", known ? gid : NULL},
        {"pid", known ? pid : NULL},
        {"exe", known ? record->peer->exe : NULL},
        {"token", record->token},
        {"key_id", record->key_id},
        {"label", record->label},
        {"op", record->op},
        {"mechanism", record->mechanism},
        {"verdict", kms_status_name(record->verdict)},
        {"refused", record->refused},
        {"request_id",
         record->request_id != NULL && record->request_id[0] != '\0' ? record->request_id : NULL},
        {"trace_id", record->trace_id},
        {"suppressed", record->suppressed != 0 ? suppressed : NULL},
        {"us", us},
    };

    if (known) {
        (void)snprintf(uid, sizeof(uid), "%ld", (long)record->peer->uid);
        (void)snprintf(gid, sizeof(gid), "%ld", (long)record->peer->gid);
        (void)snprintf(pid, sizeof(pid), "%ld", (long)record->peer->pid);
    }
    (void)snprintf(us, sizeof(us), "%llu",
                   (unsigned long long)(record->duration_ns / KMS_NS_PER_US));
    (void)snprintf(suppressed, sizeof(suppressed), "%llu", (unsigned long long)record->suppressed);
    kms_log_fields(KMS_LOG_INFO, fields, sizeof(fields) / sizeof(fields[0]), "audit");
}

enum kms_status kms_audit_write(struct kms_audit *audit, const struct kms_audit_record *record,
                                struct kms_error *err)
{
    enum kms_audit_to to =
        audit == NULL ? KMS_AUDIT_NONE : (enum kms_audit_to)atomic_load(&audit->to);
    char line[KMS_AUDIT_LINE_MAX];
    size_t len;

    if (to == KMS_AUDIT_NONE) {
        return KMS_OK;
    }
    if (to == KMS_AUDIT_LOG) {
        write_log(record);
        return KMS_OK;
    }
    len = kms_audit_format(record, kms_wall_ms(), line);
    if (!write_line(audit, line, len) && atomic_load(&audit->required)) {
        return refuse(err);
    }
    return KMS_OK;
}

uint64_t kms_audit_lost(struct kms_audit *audit)
{
    return audit == NULL ? 0 : atomic_load(&audit->lost);
}
