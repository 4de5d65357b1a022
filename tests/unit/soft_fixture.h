/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of pkcs11/core/soft*.c share: bytes from hex, keys, operations in one go. */
#ifndef KMS_TESTS_UNIT_SOFT_FIXTURE_H
#define KMS_TESTS_UNIT_SOFT_FIXTURE_H

#include "pkcs11/core/soft.h"

#define FIXTURE_MAX 4096

struct bytes {
    uint8_t data[FIXTURE_MAX];
    size_t len;
};

struct bytes bytes_hex(const char *hex); /* NULL: none; ends the program when it is not hex */
static inline struct kms_span bytes_span(const struct bytes *b)
{
    return kms_span_of(b->data, b->len);
}
bool bytes_are(struct kms_span have, const char *hex);

/* Each ends the program when it fails. */
struct kms_soft_key *key_of(CK_KEY_TYPE type, const char *hex);
struct kms_soft_key *key_made(CK_KEY_TYPE type, unsigned bits, const char *ec_params);
const struct kms_mech *mech_of(CK_MECHANISM_TYPE type);

/* One operation of the mechanism; what it puts out comes to @out. */
CK_RV op_once(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
              struct kms_span in, struct bytes *out);
/* The same in updates that end at each of @at1, @at2, and final; checks room on the way. */
CK_RV op_split(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
               struct kms_span in, size_t at1, size_t at2, struct bytes *out);
CK_RV op_verify(const CK_MECHANISM *mechanism, struct kms_soft_key *key, struct kms_span in,
                struct kms_span signature);
/* op_split() at every pair of places gives @expected. */
bool splits_agree(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
                  struct kms_span in, struct kms_span expected);

#define P256_OID    "06082a8648ce3d030107"
#define P384_OID    "06052b81040022"
#define P521_OID    "06052b81040023"
#define K256_OID    "06052b8104000a"
#define ED25519_OID "06032b6570"

#endif
