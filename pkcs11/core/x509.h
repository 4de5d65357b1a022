/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Just enough of RFC 5280 to describe a certificate as an object: where in its DER the fields lie.
 * Nothing is verified. Bytes in, borrowed spans out.
 */
#ifndef KMS_PKCS11_CORE_X509_H
#define KMS_PKCS11_CORE_X509_H

#include "common/span.h"

struct kms_x509 {
    struct kms_span serial;      /* DER INTEGER */
    struct kms_span issuer;      /* DER Name */
    struct kms_span subject;     /* DER Name */
    struct kms_span spki;        /* DER SubjectPublicKeyInfo */
    struct kms_span common_name; /* of the subject, as it stands there; empty: none */
};

/* KMS_E_BAD_DATA when @der is no certificate, or something is behind it. */
enum kms_status kms_x509_read(struct kms_span der, struct kms_x509 *ret) KMS_MUST_CHECK;

#endif
