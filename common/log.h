/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines, one write(2) each, as text or JSON lines. A line has a level, a message and fields.
 * Fields are key and string; text is escaped, so that nobody's data can forge a line. Never a
 * secret. Thread-safe. There is one process-wide sink, set up once at start; libraries of ours only
 * write to it.
 *
 * text: 2026-11-22T07:05:49.123Z info kms: encrypt done uid=... key_id=...
 *
 * json: {"time":"...","level":"info","msg":"...","uid":"..."}
 *
 * A reader that stalls costs its lines, not our time: no line waits for more than 100 ms, and none
 * at all after one that waited in vain; "N log lines dropped" stands where they are missing. (With
 * other writers to the same blocking pipe: unless they fill it between our poll(2) and write(2).)
 */
#ifndef KMS_COMMON_LOG_H
#define KMS_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

enum kms_log_level { KMS_LOG_ERROR, KMS_LOG_WARN, KMS_LOG_INFO, KMS_LOG_DEBUG };
enum kms_log_format { KMS_LOG_TEXT, KMS_LOG_JSON };

#define KMS_LOG_LINE_MAX 4096 /* longer lines are cut, with a mark */

struct kms_log_field {
    const char *key;   /* [a-z0-9_]+ */
    const char *value; /* NULL: the field is left out */
};

/* Where lines go and which: @fd is borrowed (2 by default). Level and format may change at run
 * time. */
void kms_log_setup(int fd, enum kms_log_level level, enum kms_log_format format);
bool kms_log_enabled(enum kms_log_level level);

void kms_log(enum kms_log_level level, const char *fmt, ...) KMS_PRINTF(2, 3);
void kms_log_fields(enum kms_log_level level, const struct kms_log_field *fields, size_t count,
                    const char *fmt, ...) KMS_PRINTF(4, 5);
/* An error object as one line: "<formatted>: <text>" with fields class, code and request_id. */
void kms_log_error(enum kms_log_level level, const struct kms_error *error, const char *fmt, ...)
    KMS_PRINTF(3, 4);

/* "error", "warn", "info", "debug"; "text", "json"; KMS_E_INVALID otherwise. */
enum kms_status kms_log_parse_level(const char *text, enum kms_log_level *ret) KMS_MUST_CHECK;
enum kms_status kms_log_parse_format(const char *text, enum kms_log_format *ret) KMS_MUST_CHECK;

#endif
