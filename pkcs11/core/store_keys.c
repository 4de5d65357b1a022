/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/store_parts.h"

/* ---- identities ------------------------------------------------------------------------------ */

static uint64_t mix(const struct kms_store_state *store, uint64_t sum, const void *bytes,
                    size_t len)
{
    const uint64_t part[2] = {sum, kms_index_hash(&store->index, kms_span_of(bytes, len))};

    return kms_index_hash(&store->index, kms_span_of(part, sizeof(part)));
}

static uint64_t mix_text(const struct kms_store_state *store, uint64_t sum, const char *text)
{
    return mix(store, sum, text, strlen(text));
}

uint64_t kms_store_family(const struct kms_store_state *store, const struct kms_key_info *info)
{
    return mix_text(store, mix_text(store, 1, info->ref), info->id);
}

static uint64_t certificate_family(const struct kms_store_state *store,
                                   const struct kms_object *object)
{
    struct kms_span der = KMS_SPAN_NONE;

    (void)kms_attrs_get(object->attrs, CKA_VALUE, &der);
    return mix(store, 2, der.data, der.len);
}

uint64_t kms_store_digest(const struct kms_store_state *store, const struct kms_agent_key *key)
{
    const struct kms_key_info *info = &key->info;
    const uint64_t numbers[] = {
        (uint64_t)info->type,   info->bits,         info->uses,         info->extractable,
        info->always_sensitive, info->local,        info->latest,       info->never_extractable,
        (uint64_t)info->seal,   info->algs.bits[0], info->algs.bits[1],
    };
    uint64_t sum = mix(store, 3, numbers, sizeof(numbers));

    sum = mix_text(store, sum, info->label);
    sum = mix_text(store, sum, info->name);
    sum = mix_text(store, sum, info->version);
    sum = mix(store, sum, info->tag, info->tag_len);
    sum = mix(store, sum, key->spki.data, key->spki.len);
    for (size_t i = 0; i < key->certificate_count; i++) {
        sum = mix(store, sum, key->certificates[i].data, key->certificates[i].len);
    }
    return sum;
}

CK_OBJECT_HANDLE kms_store_next_handle(void)
{
    static atomic_ulong last; /* never used again, in whichever slot */

    return atomic_fetch_add(&last, 1) + 1;
}

/* ---- families -------------------------------------------------------------------------------- */

static struct kms_store_key **place(struct kms_store_state *store, uint64_t family)
{
    struct kms_store_key **at = &store->key[family % KMS_STORE_KEY_BUCKETS];

    while (*at != NULL && (*at)->family != family) {
        at = &(*at)->next;
    }
    return at;
}

struct kms_store_key *kms_store_key_locked(struct kms_store_state *store, uint64_t family)
{
    return *place(store, family);
}

/* Made when it is not there; NULL: no memory. */
static struct kms_store_key *make(struct kms_store_state *store, uint64_t family)
{
    struct kms_store_key **at = place(store, family);

    if (*at == NULL) {
        *at = calloc(1, sizeof(**at));
        if (*at != NULL) {
            (*at)->family = family;
        }
    }
    return *at;
}

/* The handle among @handles of the object that has this class; taken out of there. */
static CK_OBJECT_HANDLE take_handle(const struct kms_store_state *store, CK_OBJECT_HANDLE *handles,
                                    size_t count, CK_OBJECT_CLASS class)
{
    for (size_t i = 0; i < count; i++) {
        const CK_OBJECT_HANDLE handle = handles[i];
        const struct kms_object *object =
            handle == CK_INVALID_HANDLE ? NULL : kms_index_get(&store->index, handle);

        if (object != NULL && object->class == class) {
            handles[i] = CK_INVALID_HANDLE;
            return handle;
        }
    }
    return CK_INVALID_HANDLE;
}

/* Takes the reference. */
static bool put_object(struct kms_store_state *store, struct kms_object *object,
                       CK_OBJECT_HANDLE old)
{
    if (old != CK_INVALID_HANDLE) {
        object->handle = old;
        kms_object_unref(kms_index_replace(&store->index, object));
        return true;
    }
    object->handle = kms_store_next_handle();
    if (kms_index_put(&store->index, object)) {
        return true;
    }
    kms_object_unref(object);
    return false;
}

static CK_RV put_all(struct kms_store_state *store, struct kms_store_key *key,
                     struct kms_object *const *objects, size_t count)
{
    CK_OBJECT_HANDLE old[sizeof(key->own) / sizeof(key->own[0])];
    const size_t old_count = key->own_count;
    CK_RV rv = CKR_OK;

    memcpy(old, key->own, sizeof(old));
    key->own_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct kms_object *object = objects[i];

        object->family = key->family;
        if (put_object(store, object, take_handle(store, old, old_count, object->class))) {
            key->own[key->own_count++] = object->handle;
        } else {
            rv = CKR_HOST_MEMORY;
        }
    }
    for (size_t i = 0; i < old_count; i++) { /* a certificate that is no more */
        if (old[i] != CK_INVALID_HANDLE) {
            kms_object_unref(kms_index_remove(&store->index, old[i]));
        }
    }
    return rv;
}

/* Whichever key brings it: the first one's object stays. */
static CK_RV put_authority(struct kms_store_state *store, struct kms_object *object,
                           uint64_t family, uint64_t now_ns)
{
    struct kms_store_key *key = make(store, family);
    CK_RV rv = CKR_OK;

    if (key == NULL || key->own_count > 0) {
        kms_object_unref(object);
        rv = key == NULL ? CKR_HOST_MEMORY : CKR_OK;
    } else {
        key->authority = true;
        rv = put_all(store, key, &object, 1);
    }
    if (key != NULL) {
        key->seen_ns = now_ns;
    }
    return rv;
}

CK_RV kms_store_merge_locked(struct kms_store_state *store, uint64_t family, uint64_t digest,
                             struct kms_key_objects *objects, uint64_t now_ns)
{
    struct kms_store_key *key = make(store, family);
    CK_RV rv = CKR_OK;

    if (key == NULL) {
        kms_key_objects_done(objects);
        return CKR_HOST_MEMORY;
    }
    rv = put_all(store, key, objects->own, objects->own_count);
    key->digest = rv == CKR_OK ? digest : ~digest; /* half made: again next time */
    key->seen_ns = now_ns;
    key->hashed_id = objects->hashed_id;
    key->chain_count = 0;
    for (size_t i = 0; i < objects->chain_count; i++) {
        const uint64_t above = certificate_family(store, objects->chain[i]);

        key->chain[key->chain_count++] = above;
        if (put_authority(store, objects->chain[i], above, now_ns) != CKR_OK) {
            rv = CKR_HOST_MEMORY;
        }
    }
    *objects = (struct kms_key_objects){.own_count = 0};
    return rv;
}

void kms_store_touch_locked(struct kms_store_state *store, struct kms_store_key *key,
                            uint64_t now_ns)
{
    key->seen_ns = now_ns;
    for (size_t i = 0; i < key->chain_count; i++) {
        struct kms_store_key *above = kms_store_key_locked(store, key->chain[i]);

        if (above != NULL) {
            above->seen_ns = now_ns;
        }
    }
}

void kms_store_remove_locked(struct kms_store_state *store, struct kms_store_key *key)
{
    struct kms_store_key **at = place(store, key->family);

    for (size_t i = 0; i < key->own_count; i++) {
        kms_object_unref(kms_index_remove(&store->index, key->own[i]));
    }
    *at = key->next;
    free(key);
}

void kms_store_sweep_locked(struct kms_store_state *store, uint64_t since_ns)
{
    for (size_t i = 0; i < KMS_STORE_KEY_BUCKETS; i++) {
        for (struct kms_store_key *key = store->key[i], *next = NULL; key != NULL; key = next) {
            next = key->next;
            if (key->seen_ns < since_ns) {
                kms_store_remove_locked(store, key);
            }
        }
    }
}

/* One whose CKA_ID or label is @value and that the answer should have had; NULL: none. */
static struct kms_store_key *stale_locked(struct kms_store_state *store, enum kms_index_by by,
                                          struct kms_span value, uint64_t since_ns)
{
    const uint64_t hash = kms_index_hash(&store->index, value);

    for (struct kms_index_entry *e = kms_index_chain(&store->index, by, hash); e != NULL;
         e = e->next[by]) {
        struct kms_store_key *key = e->key[by] == hash && e->object->on_token
                                        ? kms_store_key_locked(store, e->object->family)
                                        : NULL;

        if (key != NULL && !key->authority && key->seen_ns < since_ns &&
            !(by == KMS_BY_ID && key->hashed_id)) {
            return key;
        }
    }
    return NULL;
}

void kms_store_sweep_chain_locked(struct kms_store_state *store, enum kms_index_by by,
                                  struct kms_span value, uint64_t since_ns)
{
    struct kms_store_key *key = NULL;

    while ((key = stale_locked(store, by, value, since_ns)) != NULL) {
        kms_store_remove_locked(store, key);
    }
}
