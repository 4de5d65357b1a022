/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager's half of sd_notify(3): what the daemon tells it. One per program. */
#ifndef KMSBRIDGE_TESTS_DAEMON_MANAGER_H
#define KMSBRIDGE_TESTS_DAEMON_MANAGER_H

#include <stdbool.h>
#include <stddef.h>

extern struct manager {
    int fd;
    char address[128]; /* "NOTIFY_SOCKET=...", for the daemon's environment */
    char told[65536];  /* all datagrams, a line of "--" behind each */
    size_t len;
} manager;

/* Binds @path, which may be "@name"; aborts when it cannot. */
int manager_bind(const char *path, int type);

void manager_open(const char *dir);
void manager_close(void);
/* Takes in what was told; no-op when not open. Whoever waits for something else must: the queue
 * holds 10 datagrams where net.unix.max_dgram_qlen is Linux's own. */
void manager_listen(void);
void manager_forget(void);
/* Fills the queue. */
void manager_stuff(void);
/* How often @text was told. */
unsigned manager_count(const char *text);
/* Waits for it, 10 s at most. */
bool manager_wait(const char *text);

#endif
