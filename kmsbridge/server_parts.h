/* SPDX-License-Identifier: Apache-2.0 */
/* The server's insides, shared by server.c (start, stop, how it is) and reload.c. */
#ifndef KMSBRIDGE_SERVER_PARTS_H
#define KMSBRIDGE_SERVER_PARTS_H

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
    struct kms_rpc_limits limits; /* as it was started */
    struct kms_metrics metrics;
    struct kms_keks keks;
    struct kms_v2 kms;
    struct kms_rpc *rpc;
    struct kms_socket *socket;
    struct kms_door *door;
    struct kms_monitor *monitor;
};

struct kms_peers kms_server_peers(const struct kms_conf *conf);
struct kms_socket_conf kms_server_socket_conf(const struct kms_conf *conf);
/* A kms_observe over a struct kms_server. */
void kms_server_on_backend(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
                           uint64_t ns);
enum kms_status kms_server_start_monitor(struct kms_server *server, const char *listen,
                                         struct kms_monitor **ret_monitor,
                                         struct kms_error *err) KMS_MUST_CHECK;

#endif
