/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/store_index.h"

#include <stdlib.h>
#include <sys/random.h>

#include "common/clock.h"

#define BUCKETS_MIN ((size_t)64)

bool kms_index_init(struct kms_index *index)
{
    bool good = true;

    *index = (struct kms_index){.buckets = BUCKETS_MIN};
    if (getrandom(&index->seed, sizeof(index->seed), GRND_NONBLOCK) !=
        (ssize_t)sizeof(index->seed)) {
        index->seed = kms_now_ns();
    }
    for (size_t by = 0; by < KMS_BY_COUNT; by++) {
        index->table[by] = calloc(index->buckets, sizeof(struct kms_index_entry *));
        good = good && index->table[by] != NULL;
    }
    if (!good) {
        kms_index_done(index);
    }
    return good;
}

void kms_index_done(struct kms_index *index)
{
    for (struct kms_index_entry *e = index->first, *after = NULL; e != NULL; e = after) {
        after = e->after;
        kms_object_unref(e->object);
        free(e);
    }
    for (size_t by = 0; by < KMS_BY_COUNT; by++) {
        free(index->table[by]);
    }
    *index = (struct kms_index){.buckets = 0};
}

/* FNV-1a over a secret start: labels that collide on purpose cost their author nothing less. */
uint64_t kms_index_hash(const struct kms_index *index, struct kms_span bytes)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ index->seed;

    for (size_t i = 0; i < bytes.len; i++) {
        h = (h ^ bytes.data[i]) * UINT64_C(1099511628211);
    }
    return h ^ h >> 32;
}

static uint64_t key_of(const struct kms_index *index, const struct kms_object *object,
                       enum kms_index_by by)
{
    static const CK_ATTRIBUTE_TYPE types[KMS_BY_COUNT] = {
        [KMS_BY_ID] = CKA_ID, [KMS_BY_LABEL] = CKA_LABEL};
    struct kms_span value = KMS_SPAN_NONE;

    if (by == KMS_BY_HANDLE) {
        return object->handle;
    }
    (void)kms_attrs_get(object->attrs, types[by], &value);
    return kms_index_hash(index, value);
}

static struct kms_index_entry **bucket(const struct kms_index *index, enum kms_index_by by,
                                       uint64_t key)
{
    return &index->table[by][key & (index->buckets - 1)];
}

static void link_by(struct kms_index *index, struct kms_index_entry *entry, enum kms_index_by by)
{
    struct kms_index_entry **at = bucket(index, by, entry->key[by]);

    entry->next[by] = *at;
    *at = entry;
}

static void unlink_by(struct kms_index *index, struct kms_index_entry *entry, enum kms_index_by by)
{
    struct kms_index_entry **at = bucket(index, by, entry->key[by]);

    while (*at != entry) {
        at = &(*at)->next[by];
    }
    *at = entry->next[by];
}

/* As it was when there is no memory: chains are longer then. */
static void grow(struct kms_index *index)
{
    struct kms_index bigger = {.buckets = index->buckets * 2};
    bool good = true;

    if (index->count < index->buckets) {
        return;
    }
    for (size_t by = 0; by < KMS_BY_COUNT; by++) {
        bigger.table[by] = calloc(bigger.buckets, sizeof(struct kms_index_entry *));
        good = good && bigger.table[by] != NULL;
    }
    for (size_t by = 0; by < KMS_BY_COUNT; by++) {
        if (good) {
            free(index->table[by]);
            index->table[by] = bigger.table[by];
        } else {
            free(bigger.table[by]);
        }
    }
    if (!good) {
        return;
    }
    index->buckets = bigger.buckets;
    for (struct kms_index_entry *e = index->first; e != NULL; e = e->after) {
        for (unsigned by = 0; by < KMS_BY_COUNT; by++) {
            link_by(index, e, (enum kms_index_by)by);
        }
    }
}

static struct kms_index_entry *find(const struct kms_index *index, CK_OBJECT_HANDLE handle)
{
    struct kms_index_entry *e = *bucket(index, KMS_BY_HANDLE, handle);

    while (e != NULL && e->object->handle != handle) {
        e = e->next[KMS_BY_HANDLE];
    }
    return e;
}

bool kms_index_put(struct kms_index *index, struct kms_object *object)
{
    struct kms_index_entry *entry = calloc(1, sizeof(*entry));

    if (entry == NULL) {
        return false;
    }
    grow(index);
    entry->object = object;
    for (unsigned by = 0; by < KMS_BY_COUNT; by++) {
        entry->key[by] = key_of(index, object, (enum kms_index_by)by);
        link_by(index, entry, (enum kms_index_by)by);
    }
    entry->before = index->last;
    *(index->last == NULL ? &index->first : &index->last->after) = entry;
    index->last = entry;
    index->count++;
    return true;
}

struct kms_object *kms_index_replace(struct kms_index *index, struct kms_object *object)
{
    struct kms_index_entry *entry = find(index, object->handle);
    struct kms_object *old = entry->object;

    for (unsigned by = KMS_BY_ID; by < KMS_BY_COUNT; by++) {
        unlink_by(index, entry, (enum kms_index_by)by);
        entry->key[by] = key_of(index, object, (enum kms_index_by)by);
        link_by(index, entry, (enum kms_index_by)by);
    }
    entry->object = object;
    return old;
}

struct kms_object *kms_index_remove(struct kms_index *index, CK_OBJECT_HANDLE handle)
{
    struct kms_index_entry *entry = find(index, handle);
    struct kms_object *object = NULL;

    if (entry == NULL) {
        return NULL;
    }
    for (unsigned by = 0; by < KMS_BY_COUNT; by++) {
        unlink_by(index, entry, (enum kms_index_by)by);
    }
    *(entry->before == NULL ? &index->first : &entry->before->after) = entry->after;
    *(entry->after == NULL ? &index->last : &entry->after->before) = entry->before;
    index->count--;
    object = entry->object;
    free(entry);
    return object;
}

struct kms_object *kms_index_get(const struct kms_index *index, CK_OBJECT_HANDLE handle)
{
    const struct kms_index_entry *entry = find(index, handle);

    return entry == NULL ? NULL : entry->object;
}

struct kms_index_entry *kms_index_chain(const struct kms_index *index, enum kms_index_by by,
                                        uint64_t key)
{
    return *bucket(index, by, key);
}
