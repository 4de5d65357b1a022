/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACS3-HMAC-SHA256, the signature of Alibaba Cloud's OpenAPI ("V3 request structure and signature"
 * of its documentation). Bytes in, text out: no clock, no randomness, no I/O; the caller brings
 * date and nonce as headers. Thread-safe.
 *
 * A query may hold plaintext, so nothing of it is kept: it is hashed as it is read.
 */
#ifndef KMS_BACKEND_REST_ACS3_H
#define KMS_BACKEND_REST_ACS3_H

#include "common/span.h"

#define KMS_ACS3_ITEMS_MAX 32  /* parameters of a query, headers of a request */
#define KMS_ACS3_HASH_HEX  65  /* SHA-256 as lower-case hex, with NUL */
#define KMS_ACS3_AUTH_MAX  768 /* of the Authorization header's value, with NUL */

/* A parameter of the query, as it is before encoding. */
struct kms_acs3_param {
    const char *name;
    struct kms_span value;
};

struct kms_acs3_header {
    const char *name; /* lower-case */
    const char *value;
};

struct kms_acs3_request {
    const char *method;
    const char *path;                      /* encoded; "" counts as "/" */
    struct kms_span query;                 /* what kms_acs3_query() made of it */
    const struct kms_acs3_header *headers; /* in any order; every one is signed */
    size_t header_count;
    const char *payload_hash; /* kms_acs3_hash_hex() of the body, and header x-acs-content-sha256 */
};

struct kms_acs3_key {
    const char *id;
    struct kms_span secret;
};

/* Lower-case hex of SHA-256 of @bytes. KMS_E_INTERNAL when libcrypto cannot hash. */
enum kms_status kms_acs3_hash_hex(struct kms_span bytes,
                                  char ret_hex[KMS_ACS3_HASH_HEX]) KMS_MUST_CHECK;

/*
 * Appends the canonical query, which is also the one to send: parameters in the order of their
 * names, names and values percent-encoded but for RFC 3986's unreserved characters. KMS_E_INVALID
 * for a name given twice or too many of them, KMS_E_TOO_LARGE.
 */
enum kms_status kms_acs3_query(const struct kms_acs3_param *params, size_t count,
                               struct kms_buf *out) KMS_MUST_CHECK;

/* Lower-case hex of SHA-256 of the canonical request. KMS_E_INVALID for a header that is given
 * twice, that is not lower-case or whose value has a control character. */
enum kms_status kms_acs3_request_hash(const struct kms_acs3_request *request,
                                      char ret_hex[KMS_ACS3_HASH_HEX]) KMS_MUST_CHECK;

/* "ACS3-HMAC-SHA256 Credential=...,SignedHeaders=...,Signature=..." Errors as above, and
 * KMS_E_TOO_LARGE when it has more than @size bytes with NUL. */
enum kms_status kms_acs3_authorization(const struct kms_acs3_request *request,
                                       const struct kms_acs3_key *key, char *ret_text,
                                       size_t size) KMS_MUST_CHECK;

#endif
