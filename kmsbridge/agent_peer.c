/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD                                                                               \
    77 /* Linux 6.5; the same number on all machines that Debian has but sparc, hppa */
#endif

#define GROUPS_MAX 65536 /* the kernel's own bound, NGROUPS_MAX */

static enum kms_status read_groups(int fd, struct kms_agentd_peer *peer, struct kms_error *err)
{
    socklen_t len = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) != 0 && errno != ERANGE) {
        return KMS_OK; /* an old kernel: the primary group has to do */
    }
    if (len == 0 || len > GROUPS_MAX * sizeof(gid_t)) {
        return KMS_OK;
    }
    peer->groups = malloc(len);
    if (peer->groups == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: no memory for a peer's groups");
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &len) == 0) {
        peer->policy.groups = peer->groups;
        peer->policy.group_count = len / sizeof(gid_t);
    }
    return KMS_OK;
}

/* A descriptor of the peer's process; that of whoever has its number now where the kernel is too
 * old to know better; -1. */
static int open_process(int fd, pid_t pid)
{
    int pidfd = -1;
    socklen_t len = sizeof(pidfd);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
        return pidfd;
    }
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Whether something has happened to the descriptor: a process ended, a peer hung up. */
static bool has_event(int fd, short events)
{
    struct pollfd pfd = {.fd = fd, .events = events};

    return poll(&pfd, 1, 0) != 0 && (pfd.revents & (events | POLLHUP | POLLERR)) != 0;
}

static void read_exe(int fd, pid_t pid, char ret_exe[KMS_AUDIT_EXE_MAX])
{
    char path[32];
    ssize_t len = -1;
    int pidfd = pid > 0 ? open_process(fd, pid) : -1;

    (void)snprintf(ret_exe, KMS_AUDIT_EXE_MAX, "?");
    (void)snprintf(path, sizeof(path), "/proc/%ld/exe", (long)pid);
    if (pidfd >= 0) {
        len = readlink(path, ret_exe, KMS_AUDIT_EXE_MAX - 1);
        /* only now, when it was read: is the process still the one that connected? */
        if (len <= 0 || has_event(pidfd, POLLIN) || has_event(fd, POLLRDHUP)) {
            (void)snprintf(ret_exe, KMS_AUDIT_EXE_MAX, "?");
        } else {
            ret_exe[len] = '\0';
        }
        (void)close(pidfd);
    }
}

enum kms_status kms_agentd_peer_read(int fd, struct kms_agentd_peer *ret_peer,
                                     struct kms_error *err)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    memset(ret_peer, 0, sizeof(*ret_peer));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        return kms_error_set(err, KMS_E_DENIED, "agent: a peer without credentials: %s",
                             strerror(errno));
    }
    ret_peer->policy.uid = cred.uid;
    ret_peer->policy.gid = cred.gid;
    ret_peer->audit = (struct kms_audit_peer){
        .uid = cred.uid, .gid = cred.gid, .pid = cred.pid, .exe = ret_peer->exe};
    read_exe(fd, cred.pid, ret_peer->exe);
    return read_groups(fd, ret_peer, err);
}

void kms_agentd_peer_done(struct kms_agentd_peer *peer)
{
    free(peer->groups);
    peer->groups = NULL;
}
