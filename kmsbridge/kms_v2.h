/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Kubernetes KMS v2 service (package v2 of k8s.io/kms), as rows for rpc.h: Status from memory,
 * Encrypt and Decrypt through the keyring. Limits and meanings are those that kube-apiserver checks
 * (k8s.io/apiserver, pkg/storage/value/encrypt/envelope/kmsv2).
 *
 * A client sees one generic sentence for an error; the details go to our log with the request's
 * uid.
 */
#ifndef KMSBRIDGE_KMS_V2_H
#define KMSBRIDGE_KMS_V2_H

#include "kmsbridge/audit.h"
#include "kmsbridge/conf.h"
#include "kmsbridge/kek.h"
#include "kmsbridge/metrics.h"
#include "kmsbridge/rpc.h"

#define KMS_V2_UID_MAX            256 /* bytes; a uid is a UUID of 36 */
#define KMS_V2_KEY_ID_MAX         1024
#define KMS_V2_CIPHERTEXT_MAX     1024
#define KMS_V2_ANNOTATIONS_MAX    32768 /* sum of the lengths of keys and values */
#define KMS_V2_ANNOTATION_KEY_MAX 253   /* DNS-1123 subdomain */

struct kms_v2 {
    struct kms_keks *keks;
    struct kms_metrics *metrics;
    struct kms_audit *audit;           /* may be NULL */
    atomic_int on_failure;             /* enum kms_on_failure; may change at reload */
    _Atomic(const char *) api_version; /* "v2" or "v2beta1": static strings */
};

/* The three methods, ended by a NULL path; their ctx is a struct kms_v2 *, their ids enum
 * kms_method. */
extern const struct kms_rpc_method kms_v2_methods[];

/* Counts a call in ctx's metrics: a kms_rpc_observe. */
void kms_v2_observe(void *ctx, int method_id, int grpc_code, uint64_t ns, enum kms_rpc_place place);

/* For tests and fuzzers: parse as the server does. */
void kms_v2_parse_encrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply);
void kms_v2_parse_decrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply);

#endif
