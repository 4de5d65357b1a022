/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager, through libsystemd: sockets it hands over, readiness, status, watchdog
 * (sd_notify(3)). */
#ifndef KMSBRIDGE_NOTIFY_H
#define KMSBRIDGE_NOTIFY_H

#include <stdint.h>

/* A listening stream socket passed in LISTEN_FDS and bound to @path ("@name": abstract); -1 when
 * there is none. */
int kms_notify_listen_fd(const char *path);

/* READY=1 with a status line; STATUS= alone; RELOADING and READY again; STOPPING=1. No-ops without
 * a manager. One whose queue is full is waited for a second, and the log says what it missed. */
void kms_notify_ready(const char *status);
void kms_notify_status(const char *status);
void kms_notify_reloading(void);
void kms_notify_stopping(void);

/* How often the watchdog wants to hear from us, in ns: half of WatchdogSec; 0: not at all. */
uint64_t kms_notify_watchdog_ns(void);
void kms_notify_alive(void);

#endif
