/* SPDX-License-Identifier: Apache-2.0 */
/* The server's insides, shared by server.c (start, stop, how it is), server_agent.c and
 * reload.c. */
#ifndef KMSBRIDGE_SERVER_PARTS_H
#define KMSBRIDGE_SERVER_PARTS_H

#include "kmsbridge/agent.h"
#include "kmsbridge/audit.h"
#include "kmsbridge/door.h"
#include "kmsbridge/kek.h"
#include "kmsbridge/kms_v2.h"
#include "kmsbridge/metrics.h"
#include "kmsbridge/monitor.h"
#include "kmsbridge/rpc.h"
#include "kmsbridge/server.h"
#include "kmsbridge/socket.h"

struct kms_server {
    struct kms_conf *conf;        /* what is applied, but for @limits */
    bool has_kms;                 /* as it was started: conf is the reloading thread's alone */
    struct kms_rpc_limits limits; /* as it was started */
    struct kms_metrics metrics;
    struct kms_keks keks;
    struct kms_v2 kms;
    struct kms_rpc *rpc;
    struct kms_socket *socket;
    struct kms_door *door;
    struct kms_monitor *monitor;
    struct kms_audit *audit;
    struct kms_agentd *agentd; /* NULL: there is no agent */
};

/* Whether there is the KMS plugin: its members above are there only then. Any thread. */
static inline bool kms_server_has_kms(const struct kms_server *server)
{
    return server->has_kms;
}

struct kms_peers kms_server_peers(const struct kms_conf *conf);
struct kms_socket_conf kms_server_socket_conf(const struct kms_conf *conf);
/* A kms_observe over a struct kms_server. */
void kms_server_on_backend(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
                           uint64_t ns);
enum kms_status kms_server_start_monitor(struct kms_server *server, const char *listen,
                                         struct kms_monitor **ret_monitor,
                                         struct kms_error *err) KMS_MUST_CHECK;

/* server_agent.c: the agent and the audit, where the configuration has them. */
enum kms_status kms_server_start_audit(struct kms_server *server,
                                       struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_server_start_agent(struct kms_server *server,
                                       struct kms_error *err) KMS_MUST_CHECK;
/* Whether @now can take the place of @was while we serve: fronts do not come and go. */
enum kms_status kms_server_check_fronts(const struct kms_conf *was, const struct kms_conf *now,
                                        struct kms_error *err) KMS_MUST_CHECK;

#endif
