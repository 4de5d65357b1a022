/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of backend/agent_wire.h over a socket, with a deadline for every step, and the memory that
 * a request lives in: locked, wiped, and taken only once its length is known, so that quiet
 * connections hold none.
 */
#ifndef KMSBRIDGE_AGENT_IO_H
#define KMSBRIDGE_AGENT_IO_H

#include "backend/agent_wire.h"

/* Of one request: no request is longer. The largest there can be is a ciphertext of
 * KMS_CIPHERTEXT_MAX with its parameters. */
#define KMS_AGENTD_REQUEST_MAX (KMS_CIPHERTEXT_MAX + 8192u)

struct kms_agentd_pools;                                    /* of such memory */
struct kms_agentd_pools *kms_agentd_pools_new(void);        /* NULL: no memory */
void kms_agentd_pools_free(struct kms_agentd_pools *pools); /* NULL is fine */

struct kms_agentd_room {
    struct kms_buf frame; /* the request's body, later the reply's frame */
    struct kms_buf arena; /* the unpacked request */
    struct kms_buf out;   /* the result */
    void *slot;
    unsigned kind; /* where the slot is from */
};

/* For a body of @len bytes. KMS_E_TOO_LARGE, KMS_E_NOMEM. */
enum kms_status kms_agentd_room_take(struct kms_agentd_pools *pools, size_t len,
                                     struct kms_agentd_room *ret_room,
                                     struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_room_give(struct kms_agentd_pools *pools, struct kms_agentd_room *room);

/*
 * The next frame's length. Waits as long as the socket's SO_RCVTIMEO for its first byte, and
 * @rest_ns for the others. KMS_E_CANCELLED: the peer closed between two frames; KMS_E_TIMEOUT;
 * KMS_E_UNAVAILABLE: it closed in the middle, or the socket broke; KMS_E_PROTOCOL,
 * KMS_E_TOO_LARGE.
 */
enum kms_status kms_agentd_read_len(int fd, uint64_t rest_ns, size_t *ret_len,
                                    struct kms_error *err) KMS_MUST_CHECK;
/* @len bytes, behind what is in @buf. */
enum kms_status kms_agentd_read(int fd, size_t len, uint64_t deadline_ns, struct kms_buf *buf,
                                struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_agentd_write(int fd, struct kms_span bytes, uint64_t deadline_ns,
                                 struct kms_error *err) KMS_MUST_CHECK;

#endif
