/* SPDX-License-Identifier: Apache-2.0 */
/* What several verbs need first: the configuration, the token behind it, a client of the socket. */
#ifndef KMS_TOOLS_CONTEXT_H
#define KMS_TOOLS_CONTEXT_H

#include "backend/waist.h"
#include "kmsbridge/conf.h"
#include "kmsbridge/kms_v2_client.h"
#include "tools/options.h"
#include "tools/output.h"

#define KMS_HSM_CALL_S 30 /* making an RSA pair in a slow token takes seconds */

/* The configuration of --config; kms_conf_done(). Fails with KMS_EXIT_CONFIG. */
enum kms_exit kms_context_conf(const struct kms_options *options, struct kms_conf **ret_conf,
                               struct kms_failure *failure);

/* The backend that `kms.backend` names; @conf outlives it; kms_waist_close(). */
enum kms_exit kms_context_waist(const struct kms_conf *conf, struct kms_waist **ret_waist,
                                struct kms_failure *failure);

/* A call on that backend failed: its error, and what to do about it. */
enum kms_exit kms_context_call_failed(const struct kms_call *call, struct kms_failure *failure);

/* --timeout, or 3 seconds; KMS_EXIT_USAGE when it is none. */
enum kms_exit kms_context_timeout(const struct kms_options *options, uint64_t *ret_ns,
                                  struct kms_failure *failure);

/* A client of --socket, or of the configuration's; kms_v2_client_close(). */
enum kms_exit kms_context_client(const struct kms_options *options, uint64_t timeout_ns,
                                 struct kms_v2_client **ret_client, struct kms_failure *failure);

/* The socket's name of --socket, or of the configuration; free(). */
enum kms_exit kms_context_socket(const struct kms_options *options, char **ret_socket,
                                 struct kms_failure *failure);

#endif
