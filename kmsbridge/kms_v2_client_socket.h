/* SPDX-License-Identifier: Apache-2.0 */
/* The KMS v2 client's way to the server: a connected unix socket, or the reason why there is none.
 * Included by kms_v2_client.c only; uses common/. */
#ifndef KMSBRIDGE_KMS_V2_CLIENT_SOCKET_H
#define KMSBRIDGE_KMS_V2_CLIENT_SOCKET_H

#include <stdint.h>

#include "common/status.h"

/* As kms_v2_client_open(); the caller owns *ret_fd. */
enum kms_status kms_v2_client_socket(const char *socket_name, uint64_t deadline_ns, int *ret_fd,
                                     struct kms_error *err) KMS_MUST_CHECK;

#endif
