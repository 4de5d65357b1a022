/* SPDX-License-Identifier: Apache-2.0 */
/* The curves that we do, by each of their names. */
#include <openssl/objects.h>
#include <string.h>
#include <strings.h>

#include "pkcs11/core/soft_parts.h"

#define DER_OCTET_STRING     0x04
#define DER_PRINTABLE_STRING 0x13

static const uint8_t p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t p384[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};
static const uint8_t p521[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23};
static const uint8_t k256[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a};
static const uint8_t ed25519[] = {0x06, 0x03, 0x2b, 0x65, 0x70}; /* RFC 8410 */

#define OID(array)                                                                                 \
    {                                                                                              \
        array, sizeof(array)                                                                       \
    }
static const struct kms_soft_curve curves[] = {
    {"P-256",
     NID_X9_62_prime256v1,
     CKK_EC,
     256,
     32,
     OID(p256),
     {"secp256r1", "prime256v1", "P-256"}},
    {"P-384", NID_secp384r1, CKK_EC, 384, 48, OID(p384), {"secp384r1", "ansip384r1", "P-384"}},
    {"P-521", NID_secp521r1, CKK_EC, 521, 66, OID(p521), {"secp521r1", "ansip521r1", "P-521"}},
    {"secp256k1", NID_secp256k1, CKK_EC, 256, 32, OID(k256), {"secp256k1", "ansip256k1", NULL}},
    /* the curve's name in 3.0 (Edwards elliptic curve key pairs); the algorithm's is what some
       callers write */
    {"ED25519",
     NID_ED25519,
     CKK_EC_EDWARDS,
     255,
     32,
     OID(ed25519),
     {"edwards25519", "Ed25519", NULL}},
};
#define CURVE_COUNT (sizeof(curves) / sizeof(curves[0]))

/* The content of one DER value that is all of @der; lengths up to 65535, in their shortest form. */
static bool der_content(struct kms_span der, uint8_t tag, struct kms_span *ret)
{
    uint8_t first = 0;
    uint8_t u8 = 0;
    uint16_t u16 = 0;
    size_t len = 0;

    if (kms_span_take_u8(&der, &first) != KMS_OK || first != tag ||
        kms_span_take_u8(&der, &first) != KMS_OK) {
        return false;
    }
    len = first;
    if (first == 0x81) {
        if (kms_span_take_u8(&der, &u8) != KMS_OK || u8 < 0x80) {
            return false;
        }
        len = u8;
    } else if (first == 0x82) {
        if (kms_span_take_be16(&der, &u16) != KMS_OK || u16 < 0x100) {
            return false;
        }
        len = u16;
    } else if (first >= 0x80) {
        return false;
    }
    *ret = der;
    return der.len == len;
}

bool kms_soft_octets(struct kms_span der, struct kms_span *ret_inside)
{
    return der_content(der, DER_OCTET_STRING, ret_inside);
}

static bool is_named(const struct kms_soft_curve *curve, struct kms_span name)
{
    for (size_t i = 0; i < sizeof(curve->names) / sizeof(curve->names[0]); i++) {
        const char *known = curve->names[i];

        if (known != NULL && strlen(known) == name.len &&
            strncasecmp(known, (const char *)name.data, name.len) == 0) {
            return true;
        }
    }
    return false;
}

const struct kms_soft_curve *kms_soft_curve_find(CK_KEY_TYPE type, struct kms_span params)
{
    struct kms_span name = KMS_SPAN_NONE;
    bool by_name = der_content(params, DER_PRINTABLE_STRING, &name);

    for (size_t i = 0; i < CURVE_COUNT; i++) {
        if (curves[i].type == type &&
            (kms_span_equal(curves[i].oid, params) || (by_name && is_named(&curves[i], name)))) {
            return &curves[i];
        }
    }
    return NULL;
}

const struct kms_soft_curve *kms_soft_curve_of(const EVP_PKEY *pkey)
{
    char group[64];
    size_t len = 0;
    int nid = NID_undef;

    if (EVP_PKEY_is_a(pkey, "ED25519")) {
        nid = NID_ED25519;
    } else if (EVP_PKEY_is_a(pkey, "EC") &&
               EVP_PKEY_get_group_name(pkey, group, sizeof(group), &len) == 1) {
        nid = OBJ_txt2nid(group);
    }
    for (size_t i = 0; i < CURVE_COUNT && nid != NID_undef; i++) {
        if (curves[i].nid == nid) {
            return &curves[i];
        }
    }
    return NULL;
}
