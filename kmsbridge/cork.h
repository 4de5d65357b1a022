/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies that are ready together leave together. gRPC C core makes one sendmsg() per reply and has
 * no way to say "more comes"; at many callers that is half of the server's work. So the daemon has
 * a sendmsg(), shutdown() and close() of its own, which gRPC finds before libc's:
 *
 * Between kms_cork_begin() and kms_cork_end() on the polling thread, small messages for a socket
 * whose send buffer is nearly empty are put behind each other and go out in one write at the end,
 * at the latest. Outside of that, and on every other thread, the three are libc's own, but that
 * what is held for the socket goes out first: bytes never overtake each other, and none are lost
 * when a socket is shut down or closed. Nothing is held over a wait: who corks flushes first.
 *
 * All sockets, all threads; one mutex, never held across anything but the write.
 */
#ifndef KMSBRIDGE_CORK_H
#define KMSBRIDGE_CORK_H

#include <stdbool.h>

#define KMS_CORK_SOCKETS 8    /* held at a time; a further one is written at once */
#define KMS_CORK_ROOM    8192 /* bytes held for one socket */

/* Once, before the first begin. False without memory: then nothing is ever held. */
bool kms_cork_init(void);
void kms_cork_begin(void);
void kms_cork_end(void);
/* What is held goes out now; from any thread (when the polling thread is stuck in its batch). */
void kms_cork_flush(void);

#endif
