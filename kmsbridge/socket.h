/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening unix socket that we would trust: it gets its mode, owner and group before anyone can
 * connect; a dead socket left behind is replaced, a live one is not stolen, and what is not a
 * socket is never touched; systemd may hand it over. Who connects is door.h's business.
 */
#ifndef KMSBRIDGE_SOCKET_H
#define KMSBRIDGE_SOCKET_H

#include <sys/types.h>

#include "common/status.h"

struct kms_socket_conf {
    const char *path; /* absolute, or "@name" for the abstract namespace */
    mode_t mode;
    uid_t owner; /* (uid_t)-1: leave */
    gid_t group; /* (gid_t)-1: leave */
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
/* Another mode, owner and group; what the service manager handed over keeps its own. KMS_E_DENIED:
 * nothing has changed. */
enum kms_status kms_socket_restrict(struct kms_socket *socket, const struct kms_socket_conf *conf,
                                    struct kms_error *err) KMS_MUST_CHECK;
/* The listening socket, which does not block; for as long as it is not closed. */
int kms_socket_fd(const struct kms_socket *socket);
/* The listening socket once more, for a server that accepts by itself; -1 when out of descriptors.
 */
int kms_socket_dup(const struct kms_socket *socket);
/* Nobody finds it any more: unlinks the path if it is still ours and was made by us. Who waits to
 * be accepted still can be. */
void kms_socket_hide(struct kms_socket *socket);
/* Hides it and closes it. NULL is fine. */
void kms_socket_close(struct kms_socket *socket);

#endif
