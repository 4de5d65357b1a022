/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's parts put together: start in order, reload, say how it is, stop in order. Main
 * thread only. */
#ifndef KMSBRIDGE_SERVER_H
#define KMSBRIDGE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kmsbridge/conf.h"

struct kms_server;

/*
 * Takes @conf. Starts backend, probe, gRPC, socket, agent and monitor; accepts once the first
 * verdict is known, good or bad, or after KMS_FIRST_VERDICT_NS. A key service that is away is no
 * error. Errors name what could not start.
 */
#define KMS_FIRST_VERDICT_NS (2 * UINT64_C(1000000000))
enum kms_status kms_server_start(struct kms_conf *conf, struct kms_server **ret_server,
                                 struct kms_error *err) KMS_MUST_CHECK;

/*
 * Reads the configuration file again and applies it whole, or not at all: then the error says why.
 * A KEK that is configured otherwise is opened beside the one that serves and takes its place once
 * it has been proven; when it is not, the whole file is refused, unless the one that serves never
 * found a key. Calls in flight end on the old one. For the few keys that need a restart a warning
 * names them. Keys and PIN are looked at anew in any case.
 *
 * May take 10 s, while @meanwhile is called four times a second; NULL: it is not.
 */
enum kms_status kms_server_reload(struct kms_server *server,
                                  void (*meanwhile)(struct kms_server *server),
                                  struct kms_error *err) KMS_MUST_CHECK;

/* Whether the process does its work (the KEK apart); one line of reason to @ret_text. */
bool kms_server_live(struct kms_server *server, char *ret_text, size_t size);
/* Whether the KEK is good; one line for the service manager. */
bool kms_server_ready(struct kms_server *server, char *ret_text, size_t size);

/* Finishes the calls in flight. False when a thread is stuck in the key service: then _exit() is
 * all that is left. */
bool kms_server_stop(struct kms_server *server);

/* kmsbridged --private: nobody needs us any more; and how often to ask, UINT64_MAX: never. */
bool kms_server_idle(struct kms_server *server);
uint64_t kms_server_idle_round_ns(const struct kms_server *server);

/* kmsbridged --check: connect, find the key, one probe; the agent's tokens, keys and certificates;
 * prints the verdict to stdout. */
enum kms_status kms_server_check(struct kms_conf *conf, struct kms_error *err) KMS_MUST_CHECK;

#endif
