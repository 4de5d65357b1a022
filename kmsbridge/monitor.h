/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /livez, /readyz and /metrics over HTTP on a loopback address or a unix socket, through
 * libmicrohttpd. Answers come from memory. GET and HEAD only.
 */
#ifndef KMSBRIDGE_MONITOR_H
#define KMSBRIDGE_MONITOR_H

#include <stdbool.h>
#include <stdio.h>

#include "common/status.h"

struct kms_monitor_source {
    void *ctx;
    /* Whether the process does its work; false: restart it. Writes one line of reason. */
    bool (*live)(void *ctx, FILE *out);
    /* Whether Status would say ok. */
    bool (*ready)(void *ctx, FILE *out);
    void (*metrics)(void *ctx, FILE *out);
};

struct kms_monitor;

/*
 * @listen: "127.0.0.1:PORT", "[::1]:PORT" or "unix:/path" (mode 0660, as the KMS socket guarded by
 * a lock). Errors name kms_conf's key monitor.listen. @source is copied.
 */
enum kms_status kms_monitor_start(const char *listen, const struct kms_monitor_source *source,
                                  struct kms_monitor **ret_monitor,
                                  struct kms_error *err) KMS_MUST_CHECK;
void kms_monitor_stop(struct kms_monitor *monitor); /* NULL is fine */

#endif
