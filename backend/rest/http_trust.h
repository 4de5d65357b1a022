/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CA certificates that the servers of a door are trusted by, read once for all connections:
 * libcurl would parse them for each, and keep a copy for each, which for a system's certificates is
 * some 800 KiB. Read again for a connection that is made after the file has changed.
 *
 * Threads: kms_http_trust_give() from any.
 */
#ifndef KMS_BACKEND_REST_HTTP_TRUST_H
#define KMS_BACKEND_REST_HTTP_TRUST_H

#include <openssl/ssl.h>

#include "common/status.h"

struct kms_http_trust;

/*
 * @file: PEM. @directory: of files named by the hashes of their subjects (X509_LOOKUP_hash_dir(3)),
 * of which each is read when it is wanted. Either may be NULL. Nothing is read yet. NULL without
 * memory.
 */
struct kms_http_trust *kms_http_trust_new(const char *file, const char *directory);
void kms_http_trust_free(struct kms_http_trust *trust); /* contexts keep what they were given */

/*
 * Makes @context, of a connection that is to be made, trust them, as libcurl would: a certificate
 * of the file is believed even where it is no root. KMS_E_INVALID when the file cannot be read or
 * holds no certificate, KMS_E_NOMEM.
 */
enum kms_status kms_http_trust_give(struct kms_http_trust *trust, SSL_CTX *context,
                                    struct kms_error *err) KMS_MUST_CHECK;

#endif
