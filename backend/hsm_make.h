/* SPDX-License-Identifier: Apache-2.0 */
/* A key in the making: shared by hsm_make.c, which makes its objects, and hsm_generate.c, which
 * decides what they are. */
#ifndef KMS_BACKEND_HSM_MAKE_H
#define KMS_BACKEND_HSM_MAKE_H

#include "backend/hsm_parts.h"

#define KMS_HSM_MADE_MAX 3 /* a key or the halves of a pair, and a companion */

/* The handles of what was made. */
struct kms_hsm_made {
    CK_OBJECT_HANDLE handles[KMS_HSM_MADE_MAX];
    size_t count;
};

struct kms_hsm_new {
    struct kms_backend *backend;
    struct kms_hsm_made *made;
    const char *label;
    uint8_t tag[KMS_KEY_TAG_MAX];
    size_t tag_len;
    const struct kms_hsm_kind *kind;
    unsigned bits;
    unsigned uses;
    struct kms_key_info info;
};

/* A type of key. */
struct kms_hsm_kind {
    enum kms_key_type type;
    CK_RV (*make)(struct kms_p11 *p, const struct kms_hsm_new *job);
    unsigned bits[4]; /* allowed ones, the usual one first; RSA: 2048 to 4096 by 256 */
    unsigned uses;    /* the usual ones */
};
const struct kms_hsm_kind *kms_hsm_kind_find(enum kms_key_type type); /* or NULL */
bool kms_hsm_kind_fits(const struct kms_hsm_kind *kind, unsigned bits);

/* The HMAC key beside an AES key, with its label and KMS_HSM_MAC_SUFFIX. */
CK_RV kms_hsm_make_companion(struct kms_p11 *p, const struct kms_hsm_new *job);
/* What was made goes, and nothing else: others may have made a key of this CKA_ID since. */
void kms_hsm_unmake(struct kms_p11 *p, const struct kms_hsm_new *job);

#endif
