/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects by handle, CKA_ID and CKA_LABEL, in hash tables, and all of them in a list, oldest first.
 * Not locked: store.c's lock guards it.
 */
#ifndef KMS_PKCS11_CORE_STORE_INDEX_H
#define KMS_PKCS11_CORE_STORE_INDEX_H

#include "pkcs11/core/object.h"

enum kms_index_by { KMS_BY_HANDLE, KMS_BY_ID, KMS_BY_LABEL, KMS_BY_COUNT };

struct kms_index_entry {
    struct kms_object *object; /* a reference */
    uint64_t key[KMS_BY_COUNT];
    struct kms_index_entry *next[KMS_BY_COUNT]; /* in the bucket */
    struct kms_index_entry *before, *after;     /* in the list of all */
};

struct kms_index {
    uint64_t seed;
    size_t count;
    size_t buckets; /* a power of two */
    struct kms_index_entry **table[KMS_BY_COUNT];
    struct kms_index_entry *first, *last;
};

bool kms_index_init(struct kms_index *index); /* false: no memory */
void kms_index_done(struct kms_index *index);

/* Takes the reference; its handle is new in here. False: no memory, nothing taken. */
bool kms_index_put(struct kms_index *index, struct kms_object *object);
/* Puts @object (takes the reference) in the place of the one with its handle, whose reference goes
 * to the caller; its place in the list stays. */
struct kms_object *kms_index_replace(struct kms_index *index, struct kms_object *object);
/* The reference goes to the caller; NULL when there is none. */
struct kms_object *kms_index_remove(struct kms_index *index, CK_OBJECT_HANDLE handle);
struct kms_object *kms_index_get(const struct kms_index *index, CK_OBJECT_HANDLE handle);

/* Hash of bytes, for look-ups by KMS_BY_ID and KMS_BY_LABEL; chains may hold others too. */
uint64_t kms_index_hash(const struct kms_index *index, struct kms_span bytes);
struct kms_index_entry *kms_index_chain(const struct kms_index *index, enum kms_index_by by,
                                        uint64_t key);

#endif
