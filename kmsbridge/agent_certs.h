/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates from files, for the keys that they are of. The only X.509 in the daemon. */
#ifndef KMSBRIDGE_AGENT_CERTS_H
#define KMSBRIDGE_AGENT_CERTS_H

#include "common/span.h"

#define KMS_AGENTD_CHAIN_MAX 8    /* as the protocol has it */
#define KMS_AGENTD_CERT_MAX  8192 /* bytes of DER */

struct kms_agentd_chain {
    char *file;
    struct kms_span spki; /* of the first, as OpenSSL encodes it */
    struct kms_span certificates[KMS_AGENTD_CHAIN_MAX];
    size_t count;
    uint8_t *storage; /* of all spans */
};

/* Reads a PEM file (kms_file_read(), KMS_FILE_CONFIG): the key's own certificate, then its chain.
 * Errors name the file. */
enum kms_status kms_agentd_chain_read(const char *file, struct kms_agentd_chain *ret_chain,
                                      struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_chain_done(struct kms_agentd_chain *chain);

/* Whether @spki (DER) is the public key of the chain's first certificate. */
bool kms_agentd_chain_is_of(const struct kms_agentd_chain *chain, struct kms_span spki);

#endif
