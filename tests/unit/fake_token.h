/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot without a library, a store and an agent: for tests of what sessions do (pkcs11/core). The
 * token's keys work, by OpenSSL, and every request is counted. Defines the functions of store.h and
 * slot.h that operations call.
 */
#ifndef KMS_TESTS_UNIT_FAKE_TOKEN_H
#define KMS_TESTS_UNIT_FAKE_TOKEN_H

#include "pkcs11/core/session.h"

enum fake_key {
    FAKE_AES,
    FAKE_AES_CBC_PAD_ONLY, /* the same key, with one algorithm */
    FAKE_MAC,
    FAKE_MAC_VERIFY_ONLY,
    FAKE_RSA,
    FAKE_RSA_WHOLE, /* the same key; its service hashes itself */
    FAKE_EC,
    FAKE_ED,
    FAKE_KEYS
};

extern struct fake_token {
    struct kms_slot slot;
    struct kms_session session; /* read-write */
    struct kms_object *key[FAKE_KEYS];
    struct kms_object *public_key[FAKE_KEYS]; /* of pairs */

    unsigned requests; /* all of them */
    unsigned encrypts, decrypts, wraps, unwraps, signs, verifies, macs, generates, destroys,
        data_keys;                     /* each is 0x5d, 0x5d, ... */
    enum kms_status fail;              /* every op answers this */
    bool own_iv_only;                  /* refuses the caller's IV */
    bool no_data_keys;                 /* data_key is unsupported */
    bool lies;                         /* replies with another IV and a byte less */
    size_t longest;                    /* input that an op was given */
    struct kms_key_template generated; /* the last template; its pointers are not kept */
    char generated_label[KMS_LABEL_MAX];
    uint8_t generated_tag[KMS_KEY_TAG_MAX];
} fake;

void fake_begin(void); /* a fresh one */
void fake_end(void);   /* frees all; checks that no object of it is left */
/* Session objects in the store now. */
size_t fake_objects(void);
struct kms_object *fake_object(CK_OBJECT_HANDLE handle); /* borrowed; NULL: none */

#endif
