/* SPDX-License-Identifier: Apache-2.0 */
/* The KMS v2 client's gRPC: the channel and one call, in terms of protobuf-c messages. Included by
 * kms_v2_client.c only. */
#ifndef KMSBRIDGE_KMS_V2_CLIENT_CALL_H
#define KMSBRIDGE_KMS_V2_CLIENT_CALL_H

#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "common/status.h"

struct kms_v2_client;

/*
 * Calls @method ("Status") of the service with @request; the reply is unpacked as @type.
 * *ret_storage is the secure memory that holds *ret_reply; the caller frees it with
 * kms_secure_free(). Errors as in kms_v2_client.h.
 */
enum kms_status kms_v2_client_call(struct kms_v2_client *client, const char *method,
                                   uint64_t deadline_ns, const ProtobufCMessage *request,
                                   const ProtobufCMessageDescriptor *type,
                                   ProtobufCMessage **ret_reply, void **ret_storage,
                                   struct kms_error *err) KMS_MUST_CHECK;

#endif
