/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the agent's server share: agent.c (start, reload, stop), agent_conn.c
 * (connections), agent_ops.c (requests). */
#ifndef KMSBRIDGE_AGENT_PARTS_H
#define KMSBRIDGE_AGENT_PARTS_H

#include <pthread.h>

#include "kmsbridge/agent.h"
#include "kmsbridge/agent_io.h"
#include "kmsbridge/agent_limits.h"
#include "kmsbridge/agent_metrics.h"
#include "kmsbridge/agent_peer.h"
#include "kmsbridge/crew.h"
#include "kmsbridge/policy.h"
#include "kmsbridge/socket.h"

/* One configuration, while it serves and as long as a request of that time lasts. */
struct kms_agentd_state {
    atomic_uint refs;
    struct kms_conf *conf;
    struct kms_policy policy;
    struct kms_agentd_tokens tokens;
};

/* What all connections share. */
struct kms_agentd_common {
    struct kms_limits *limits;
    struct kms_agentd_pools *pools;
    struct kms_agentd_metrics metrics;
    struct kms_audit *audit;
    uint8_t instance[KMS_AGENT_INSTANCE];
};

struct kms_agentd {
    struct kms_agentd_common common;
    struct kms_agentd_backends *backends;
    struct kms_socket *socket;
    int listen_fd;
    int wake_fd;
    pthread_t thread;
    bool running;
    uint64_t complained_ns; /* accepting thread only */

    struct kms_crew crew; /* a thread for each connection */

    pthread_mutex_t mutex; /* guards the members below */
    struct kms_agentd_state *state;
    struct kms_agentd_conn *connections;
    unsigned connection_count;
    bool stopping;
    uint64_t idle_since_ns; /* 0: somebody is connected */
};

/* Its thread's own, in the list until that ends. */
struct kms_agentd_conn {
    struct kms_agentd_conn *next;
    struct kms_agentd_conn *before;
    struct kms_agentd *agentd;
    int fd;
    struct kms_agentd_peer peer;
    struct kms_limits_uid *account;
};

/* The state that serves now, until it is put. Any thread. */
struct kms_agentd_state *kms_agentd_state_get(struct kms_agentd *agentd);
void kms_agentd_state_put(struct kms_agentd_state *state); /* NULL is fine */

/* The accepting thread, until agentd->wake_fd says something. */
void *kms_agentd_accept_main(void *arg);

struct kms_agentd_peering {
    struct kms_agentd_common *common;
    const struct kms_agentd_peer *peer;
    struct kms_limits_uid *account;
};

/*
 * Answers one request, whose body is in @room->frame, by a frame in the same place or, for lists,
 * in *ret_long (free() it; NULL otherwise). A request that breaks the protocol is an error, and the
 * connection's end; every other gets its answer. @ret_token: whose keys may need a look.
 */
enum kms_status kms_agentd_answer(const struct kms_agentd_peering *peering,
                                  struct kms_agentd_state *state, struct kms_agentd_room *room,
                                  uint8_t **ret_long, struct kms_span *ret_frame,
                                  struct kms_agentd_token **ret_token,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* A Reply with nothing but @error, behind what is in @frame. */
enum kms_status kms_agentd_put_error(uint64_t id, const struct kms_error *error,
                                     struct kms_buf *frame, struct kms_error *err) KMS_MUST_CHECK;

#endif
