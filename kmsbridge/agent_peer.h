/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a unix socket, by the kernel's word. */
#ifndef KMSBRIDGE_AGENT_PEER_H
#define KMSBRIDGE_AGENT_PEER_H

#include "kmsbridge/audit.h"
#include "kmsbridge/policy.h"

struct kms_agentd_peer {
    struct kms_audit_peer audit; /* exe points to the member below */
    struct kms_policy_peer policy;
    gid_t *groups;
    char exe[KMS_AUDIT_EXE_MAX];
};

/*
 * Reads SO_PEERCRED, SO_PEERGROUPS and what the process runs. The executable is a best effort, "?"
 * when it cannot be read (another user's process, and we are not root) or when the process was gone
 * by then, so that its number may be another's. It is what it was when it connected.
 */
enum kms_status kms_agentd_peer_read(int fd, struct kms_agentd_peer *ret_peer,
                                     struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_peer_done(struct kms_agentd_peer *peer);

#endif
