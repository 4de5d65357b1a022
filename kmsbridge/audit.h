/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who did what with which key: one JSON line per key operation and per refusal, into a file of its
 * own or the log. Never data, never a parameter but the mechanism's name.
 *
 * A line that cannot be written (disk full, no permission) is counted, and warned of once until it
 * works again; then a line says how many are missing. The work goes on, unless audit.required is
 * set: then no result leaves us whose line could not be written, and no operation is begun before
 * lines can be written again. A line is one write(2) to a regular file: nobody reads it at the
 * other end who could stall us.
 *
 * Threads: all functions from any thread.
 */
#ifndef KMSBRIDGE_AUDIT_H
#define KMSBRIDGE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/span.h"
#include "common/status.h"

#define KMS_AUDIT_EXE_MAX  512
#define KMS_AUDIT_LINE_MAX 8192 /* with newline and NUL; all fields at their longest fit */

enum kms_audit_to { KMS_AUDIT_NONE, KMS_AUDIT_LOG, KMS_AUDIT_FILE };

struct kms_audit_conf {
    enum kms_audit_to to;
    const char *file; /* absolute */
    bool required;
};

struct kms_audit_peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;       /* 0: of another pid namespace */
    const char *exe; /* "?": not to be known */
};

/* Texts may be NULL: the field is left out. Any bytes may be in them. */
struct kms_audit_record {
    const char *front;                 /* "agent", "kms_v2" */
    const struct kms_audit_peer *peer; /* NULL: not known */
    const char *token;
    const char *key_id;
    const char *label;
    const char *op;
    const char *mechanism;
    enum kms_status verdict;
    const char *refused;    /* by which of our bounds or rules: "policy", "rate", ... */
    const char *request_id; /* the key service's; "" is left out too */
    const char *trace_id;   /* the front's own: kube-apiserver's uid of the call */
    uint64_t suppressed;    /* refusals of this peer before it that have no line; 0 is left out */
    uint64_t duration_ns;
};

struct kms_audit;

/* @conf is copied. KMS_E_DENIED, KMS_E_NOT_FOUND, KMS_E_INVALID (no regular file), KMS_E_NOMEM. */
enum kms_status kms_audit_open(const struct kms_audit_conf *conf, struct kms_audit **ret_audit,
                               struct kms_error *err) KMS_MUST_CHECK;
/* For SIGHUP: the file anew, as after logrotate, or another place. On failure the former stays. */
enum kms_status kms_audit_reopen(struct kms_audit *audit, const struct kms_audit_conf *conf,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_audit_close(struct kms_audit *audit); /* NULL is fine */

/* Before an operation: KMS_E_UNAVAILABLE when a line is required and cannot be written now. A NULL
 * @audit needs none. */
enum kms_status kms_audit_ready(struct kms_audit *audit, struct kms_error *err) KMS_MUST_CHECK;
/* KMS_E_UNAVAILABLE: required, and not written: the operation's result must not be given out. */
enum kms_status kms_audit_write(struct kms_audit *audit, const struct kms_audit_record *record,
                                struct kms_error *err) KMS_MUST_CHECK;
uint64_t kms_audit_lost(struct kms_audit *audit); /* lines, since the start */

/* The line, with newline and NUL; its length without NUL. */
size_t kms_audit_format(const struct kms_audit_record *record, uint64_t wall_ms,
                        char ret_line[KMS_AUDIT_LINE_MAX]);

#endif
