/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes in by the listening socket: a thread accepts, lets in only peers that SO_PEERCRED shows
 * to be on the list, and only so many at a time. Running out of descriptors is survived.
 */
#ifndef KMSBRIDGE_DOOR_H
#define KMSBRIDGE_DOOR_H

#include <sys/types.h>

#include "common/status.h"
#include "kmsbridge/metrics.h"

/* Who may connect. Root and our own user are in the list only if it names them. */
struct kms_peers {
    const uid_t *uids;
    size_t uid_count;
    const gid_t *gids; /* a peer's primary or supplementary group */
    size_t gid_count;
};

/* Takes each connection; called from the accepting thread, owns @fd. */
typedef void (*kms_door_serve)(void *ctx, int fd);

struct kms_door_conf {
    int listen_fd; /* borrowed, does not block */
    struct kms_peers peers;
    unsigned max_connections; /* at a time; more are closed at once */
    struct kms_metrics *metrics;
    kms_door_serve serve;
    void *ctx;
};

struct kms_door;

/* Copies @conf, starts the accepting thread. KMS_E_NOMEM, KMS_E_INTERNAL. */
enum kms_status kms_door_open(const struct kms_door_conf *conf, struct kms_door **ret_door,
                              struct kms_error *err) KMS_MUST_CHECK;
/* Another allow-list and bound from now on (SIGHUP). KMS_E_NOMEM keeps the old ones. */
enum kms_status kms_door_configure(struct kms_door *door, const struct kms_peers *peers,
                                   unsigned max_connections) KMS_MUST_CHECK;
/* Takes connections from @listen_fd from now on; who still waits at the former one is let in first.
 * Connections that are open stay, and count. */
void kms_door_move(struct kms_door *door, int listen_fd);
/* No more connections are taken; joins the thread. */
void kms_door_shut(struct kms_door *door);
void kms_door_close(struct kms_door *door); /* shuts it; NULL is fine */

/* Connections that are open now. */
unsigned kms_door_connections(struct kms_door *door);

#endif
