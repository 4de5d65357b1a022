/* SPDX-License-Identifier: Apache-2.0 */
/* A listening socket of the test's own, and a door that serves it. One at a time. */
#ifndef KMS_TESTS_UNIT_LISTENER_H
#define KMS_TESTS_UNIT_LISTENER_H

#include <stdatomic.h>

#include "kmsbridge/door.h"
#include "kmsbridge/socket.h"

#define LISTENER_FDS 64

extern struct listener {
    char dir[64];
    char path[96];
    struct kms_metrics metrics;
    struct kms_door *door;
    atomic_int served;
    int fds[LISTENER_FDS]; /* those served, the last so many; the test closes them */
} listener;

/* Makes the folder, names the path. */
void listener_begin(void);
/* Removes both, and checks that nothing else is there. */
void listener_end(void);

struct kms_socket_conf listener_conf(mode_t mode);
/* Serves @sock. */
void listener_serve(struct kms_socket *sock, const struct kms_peers *peers, unsigned max);
/* Opens listener.path and serves it. */
struct kms_socket *listener_open(mode_t mode, const struct kms_peers *peers, unsigned max);
/* The door too, if there is one. */
void listener_close(struct kms_socket *sock);

int listener_connect(const char *name); /* "@name" as well; -1 */
/* True when the other side closes within two seconds. */
bool listener_hung_up(int fd);
bool listener_becomes(const atomic_int *value, int wanted);

#endif
