/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening unix socket that we would trust: it gets its mode, owner and group before anyone can
 * connect; a dead socket left behind is replaced, a live one is not stolen, and what is not a
 * socket is never touched; peers are known by SO_PEERCRED; systemd may hand it over; running out of
 * descriptors is survived.
 */
#ifndef KMSBRIDGE_SOCKET_H
#define KMSBRIDGE_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/status.h"
#include "kmsbridge/metrics.h"

struct kms_socket_conf {
    const char *path; /* absolute, or "@name" for the abstract namespace */
    mode_t mode;
    uid_t owner; /* (uid_t)-1: leave */
    gid_t group; /* (gid_t)-1: leave */
};

/* Who may connect. Root and our own user are in the list only if it names them. */
struct kms_peers {
    const uid_t *uids;
    size_t uid_count;
    const gid_t *gids; /* a peer's primary or supplementary group */
    size_t gid_count;
};

struct kms_socket;

/*
 * Binds and listens. With a path: takes PATH.lock (flock) first; binds under another name, sets
 * mode and owner, listens, then renames it into place. Errors name the path: KMS_E_EXISTS (somebody
 * serves it, or it is not a socket), KMS_E_DENIED, KMS_E_INVALID (too long), KMS_E_NOT_FOUND (no
 * such directory). A socket that systemd passes (LISTEN_FDS) and that is bound to the path is used
 * instead, as it is.
 */
enum kms_status kms_socket_open(const struct kms_socket_conf *conf, struct kms_socket **ret_socket,
                                struct kms_error *err) KMS_MUST_CHECK;
/* The listening socket once more, for a server that accepts by itself; -1 when out of descriptors.
 */
int kms_socket_dup(const struct kms_socket *socket);
/* Unlinks the path if it is still ours and was made by us. NULL is fine. */
void kms_socket_close(struct kms_socket *socket);

/* Takes each connection; called from the accepting thread, owns @fd. */
typedef void (*kms_socket_serve)(void *ctx, int fd);

/*
 * Starts the accepting thread: at most @max_connections at a time, more are closed at once. @peers
 * is copied. KMS_E_NOMEM, KMS_E_INTERNAL.
 */
enum kms_status kms_socket_accept(struct kms_socket *socket, const struct kms_peers *peers,
                                  unsigned max_connections, struct kms_metrics *metrics,
                                  kms_socket_serve serve, void *ctx,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* Another allow-list and bound from now on (SIGHUP). KMS_E_NOMEM keeps the old ones. */
enum kms_status kms_socket_configure(struct kms_socket *socket, const struct kms_peers *peers,
                                     unsigned max_connections) KMS_MUST_CHECK;
/* No more connections are taken; joins the thread. The path stays until kms_socket_close(). */
void kms_socket_stop(struct kms_socket *socket);
/* Connections that are open now. */
unsigned kms_socket_connections(struct kms_socket *socket);

#endif
