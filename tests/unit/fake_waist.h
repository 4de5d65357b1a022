/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A waist without a key service: it defines the functions of backend/waist.h for tests of what is
 * above it. Its "encryption" is an exclusive or with a SHA-256 tag over key id, AAD, IV and
 * ciphertext: enough to notice every alteration, and nothing more.
 */
#ifndef KMS_TESTS_UNIT_FAKE_WAIST_H
#define KMS_TESTS_UNIT_FAKE_WAIST_H

#include "backend/waist.h"

#define FAKE_KEYS_MAX 8

struct fake_key {
    const char *id;
    const char *label;
    uint8_t tag[4];
    size_t tag_len;
    bool cannot_seal;
    bool broken;          /* encrypts, but decrypts to something else */
    const char *moved_to; /* encrypt uses this key instead, and says so: it was rotated */
};

/* What the next calls find; a test sets it, one at a time. */
extern struct fake_waist {
    struct fake_key keys[FAKE_KEYS_MAX];
    size_t count;
    unsigned older;               /* so many more versions of the first one's label, listed only */
    _Atomic enum kms_status fail; /* every op answers this */
    _Atomic enum kms_status fail_list; /* list_keys alone does */
    _Atomic enum kms_status fail_open;
    atomic_uint opened;
    atomic_uint closed;
    atomic_uint encrypts;
    atomic_uint decrypts;
    atomic_uint lists;
    atomic_uint sleep_ms; /* in encrypt and decrypt */
} fake;

void fake_reset(void);
void fake_add(const char *id, const char *label, unsigned tag);
void fake_remove(const char *id);
void fake_move(const char *id, const char *to); /* see struct fake_key; NULL: no longer */

#endif
