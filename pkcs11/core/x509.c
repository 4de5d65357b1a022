/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/x509.h"

#include <string.h>

enum {
    DER_INTEGER = 0x02,
    DER_OID = 0x06,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_VERSION = 0xa0 /* [0] EXPLICIT */
};

/* One element off the front of @from: @ret_whole with its header, @ret_body without. */
static enum kms_status take(struct kms_span *from, unsigned tag, struct kms_span *ret_whole,
                            struct kms_span *ret_body)
{
    const uint8_t *d = from->data;
    size_t head = 2;
    size_t len = 0;

    if (from->len < 2 || d[0] != tag) {
        return KMS_E_BAD_DATA;
    }
    len = d[1];
    if (len >= 0x80) { /* long form, at most 4 bytes; DER: no more of them than needed */
        const size_t bytes = len & 0x7fu;

        if (bytes == 0 || bytes > 4 || from->len < 2 + bytes || d[2] == 0) {
            return KMS_E_BAD_DATA;
        }
        len = 0;
        for (size_t i = 0; i < bytes; i++) {
            len = len << 8 | d[2 + i];
        }
        if (len < 0x80) {
            return KMS_E_BAD_DATA;
        }
        head += bytes;
    }
    if (len > from->len - head) {
        return KMS_E_BAD_DATA;
    }
    *ret_whole = kms_span_of(d, head + len);
    *ret_body = kms_span_of(d + head, len);
    *from = kms_span_of(d + head + len, from->len - head - len);
    return KMS_OK;
}

static bool has_tag(struct kms_span at, unsigned tag)
{
    return at.len > 0 && at.data[0] == tag;
}

/* Of the first RDN that has one (X.520, 2.5.4.3). */
static struct kms_span common_name(struct kms_span name)
{
    static const uint8_t oid[] = {0x55, 0x04, 0x03};
    struct kms_span whole;
    struct kms_span rdns;
    struct kms_span set;
    struct kms_span pair;
    struct kms_span type;

    if (take(&name, DER_SEQUENCE, &whole, &rdns) != KMS_OK) {
        return KMS_SPAN_NONE;
    }
    while (take(&rdns, DER_SET, &whole, &set) == KMS_OK) {
        while (take(&set, DER_SEQUENCE, &whole, &pair) == KMS_OK) {
            struct kms_span value;

            if (take(&pair, DER_OID, &whole, &type) == KMS_OK && pair.len > 0 &&
                kms_span_equal(type, kms_span_of(oid, sizeof(oid))) &&
                take(&pair, pair.data[0], &whole, &value) == KMS_OK) {
                return value;
            }
        }
    }
    return KMS_SPAN_NONE;
}

enum kms_status kms_x509_read(struct kms_span der, struct kms_x509 *ret)
{
    struct kms_x509 x509;
    struct kms_span whole;
    struct kms_span certificate;
    struct kms_span tbs;
    struct kms_span skipped;

    /* Certificate, TBSCertificate (RFC 5280 4.1) */
    if (take(&der, DER_SEQUENCE, &whole, &certificate) != KMS_OK || der.len != 0 ||
        take(&certificate, DER_SEQUENCE, &whole, &tbs) != KMS_OK ||
        (has_tag(tbs, DER_VERSION) && take(&tbs, DER_VERSION, &whole, &skipped) != KMS_OK) ||
        take(&tbs, DER_INTEGER, &x509.serial, &skipped) != KMS_OK ||
        take(&tbs, DER_SEQUENCE, &whole, &skipped) != KMS_OK || /* signature */
        take(&tbs, DER_SEQUENCE, &x509.issuer, &skipped) != KMS_OK ||
        take(&tbs, DER_SEQUENCE, &whole, &skipped) != KMS_OK || /* validity */
        take(&tbs, DER_SEQUENCE, &x509.subject, &skipped) != KMS_OK ||
        take(&tbs, DER_SEQUENCE, &x509.spki, &skipped) != KMS_OK) {
        return KMS_E_BAD_DATA;
    }
    x509.common_name = common_name(x509.subject);
    *ret = x509;
    return KMS_OK;
}
