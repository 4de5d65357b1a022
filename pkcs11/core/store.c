/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/schema.h"
#include "pkcs11/core/session.h"
#include "pkcs11/core/store_parts.h"

#define FOUND_MIN 16

struct kms_store_state *kms_store_new(void)
{
    struct kms_store_state *store = calloc(1, sizeof(*store));

    if (store != NULL && !kms_index_init(&store->index)) {
        free(store);
        return NULL;
    }
    if (store != NULL) {
        (void)pthread_rwlock_init(&store->lock, NULL);
        (void)pthread_mutex_init(&store->mutex, NULL);
        (void)pthread_cond_init(&store->loaded, NULL);
    }
    return store;
}

void kms_store_free(struct kms_store_state *store)
{
    if (store == NULL) {
        return;
    }
    for (size_t i = 0; i < KMS_STORE_KEY_BUCKETS; i++) {
        for (struct kms_store_key *key = store->key[i], *next = NULL; key != NULL; key = next) {
            next = key->next;
            free(key);
        }
    }
    kms_index_done(&store->index);
    (void)pthread_cond_destroy(&store->loaded);
    (void)pthread_mutex_destroy(&store->mutex);
    (void)pthread_rwlock_destroy(&store->lock);
    free(store);
}

/* ---- getting, adding, dropping --------------------------------------------------------------- */

static bool is_seen(const struct kms_slot *slot, const struct kms_object *object)
{
    return !object->is_private || atomic_load(&slot->open);
}

CK_RV kms_store_get(struct kms_slot *slot, CK_OBJECT_HANDLE handle, struct kms_object **ret_object)
{
    struct kms_store_state *store = slot->store;
    struct kms_object *object = NULL;

    (void)pthread_rwlock_rdlock(&store->lock);
    object = kms_index_get(&store->index, handle);
    if (object != NULL && is_seen(slot, object)) {
        *ret_object = kms_object_ref(object);
    } else {
        object = NULL;
    }
    (void)pthread_rwlock_unlock(&store->lock);
    return object == NULL ? CKR_OBJECT_HANDLE_INVALID : CKR_OK;
}

/* 3.0, 4.4: unique among a token's objects; here, in this process. */
static CK_RV name_object(struct kms_object *object)
{
    char unique[40];
    struct kms_span value;

    if (kms_attrs_get(object->attrs, CKA_UNIQUE_ID, &value) && value.len > 0) {
        return CKR_OK;
    }
    (void)snprintf(unique, sizeof(unique), "session:%lu", object->handle);
    return kms_attrs_set(object->attrs, CKA_UNIQUE_ID, unique, strlen(unique));
}

CK_RV kms_store_add(struct kms_slot *slot, struct kms_session *session, struct kms_object *object,
                    CK_OBJECT_HANDLE *ret_handle)
{
    struct kms_store_state *store = slot->store;
    const CK_OBJECT_HANDLE handle = kms_store_next_handle();
    CK_RV rv = CKR_OK;

    object->handle = handle;
    object->session = session->handle;
    object->slot = slot;
    rv = name_object(object);
    if (rv == CKR_OK) {
        (void)pthread_rwlock_wrlock(&store->lock);
        if (atomic_load(&session->dead)) { /* closed by another thread: nobody would drop it */
            rv = CKR_SESSION_CLOSED;
        } else if (!kms_index_put(&store->index, object)) {
            rv = CKR_HOST_MEMORY;
        } else {
            store->session_objects++;
        }
        (void)pthread_rwlock_unlock(&store->lock);
    }
    if (rv != CKR_OK) {
        kms_object_unref(object);
        return rv;
    }
    *ret_handle = handle;
    return CKR_OK;
}

/* @session 0: the private ones of all sessions. From the newest: those of sessions come last. */
static void drop_session_objects(struct kms_slot *slot, CK_SESSION_HANDLE session)
{
    struct kms_store_state *store = slot->store;
    struct kms_index_entry *before = NULL;
    size_t left = 0;

    (void)pthread_rwlock_wrlock(&store->lock);
    left = store->session_objects;
    for (struct kms_index_entry *e = store->index.last; e != NULL && left > 0; e = before) {
        const struct kms_object *object = e->object;

        before = e->before;
        if (object->on_token) {
            continue;
        }
        left--;
        if (session == 0 ? object->is_private : object->session == session) {
            kms_object_unref(kms_index_remove(&store->index, object->handle));
            store->session_objects--;
        }
    }
    (void)pthread_rwlock_unlock(&store->lock);
}

void kms_store_drop_session(struct kms_slot *slot, CK_SESSION_HANDLE session)
{
    drop_session_objects(slot, session);
}

void kms_store_drop_private(struct kms_slot *slot)
{
    drop_session_objects(slot, 0);
}

CK_RV kms_store_add_token_key(struct kms_slot *slot, const struct kms_key_info *info,
                              struct kms_span spki, CK_OBJECT_HANDLE *ret_key,
                              CK_OBJECT_HANDLE *ret_public)
{
    struct kms_store_state *store = slot->store;
    const struct kms_agent_key key = {.info = *info, .spki = spki};
    const uint64_t family = kms_store_family(store, info);
    struct kms_key_objects objects;
    const struct kms_store_key *made = NULL;
    CK_RV rv = kms_key_objects_make(slot, &key, &objects);

    if (rv != CKR_OK) {
        return rv;
    }
    (void)pthread_rwlock_wrlock(&store->lock);
    rv = kms_store_merge_locked(store, family, kms_store_digest(store, &key), &objects,
                                kms_now_ns());
    made = kms_store_key_locked(store, family);
    if (rv == CKR_OK) {
        *ret_key = made->own[0];
        if (ret_public != NULL) {
            *ret_public = made->own_count > 1 ? made->own[1] : CK_INVALID_HANDLE;
        }
    }
    (void)pthread_rwlock_unlock(&store->lock);
    return rv;
}

void kms_store_forget(struct kms_slot *slot, struct kms_object *object)
{
    struct kms_store_state *store = slot->store;
    struct kms_store_key *key = NULL;

    (void)pthread_rwlock_wrlock(&store->lock);
    key = object->on_token ? kms_store_key_locked(store, object->family) : NULL;
    if (key != NULL) {
        kms_store_remove_locked(store, key);
    } else if (!object->on_token) {
        struct kms_object *gone = kms_index_remove(&store->index, object->handle);

        store->session_objects -= gone != NULL;
        kms_object_unref(gone);
    }
    (void)pthread_rwlock_unlock(&store->lock);
}

/* ---- searching ------------------------------------------------------------------------------- */

/* What a template is looked up by, so that as few objects as can be are compared. */
struct search {
    enum kms_index_by by; /* KMS_BY_HANDLE: all */
    uint64_t hash;
    struct kms_index_entry *at;
};

static struct kms_index_entry *skip_others(const struct search *search, struct kms_index_entry *e)
{
    while (e != NULL && search->by != KMS_BY_HANDLE && e->key[search->by] != search->hash) {
        e = e->next[search->by];
    }
    return e;
}

static struct search search_begin(const struct kms_index *index, const struct kms_attrs *tmpl)
{
    struct search search = {.by = KMS_BY_HANDLE, .at = index->first};
    struct kms_span value;

    if (kms_attrs_get(tmpl, CKA_ID, &value)) {
        search.by = KMS_BY_ID;
    } else if (kms_attrs_get(tmpl, CKA_LABEL, &value)) {
        search.by = KMS_BY_LABEL;
    }
    if (search.by != KMS_BY_HANDLE) {
        search.hash = kms_index_hash(index, value);
        search.at = skip_others(&search, kms_index_chain(index, search.by, search.hash));
    }
    return search;
}

static void search_next(struct search *search)
{
    search->at = search->by == KMS_BY_HANDLE ? search->at->after
                                             : skip_others(search, search->at->next[search->by]);
}

/* What may not be read may not be guessed at either (5.7.7 knows no such search). */
static bool asks_for_secret(const struct kms_object *object, const struct kms_attrs *tmpl)
{
    for (size_t i = 0; i < kms_attrs_count(tmpl); i++) {
        struct kms_span value;
        const struct kms_attr_row *row = kms_schema_find(kms_attrs_at(tmpl, i, &value));

        if (row != NULL && kms_schema_is_secret(row, object->class) &&
            (kms_attrs_bool(object->attrs, CKA_SENSITIVE, true) ||
             !kms_attrs_bool(object->attrs, CKA_EXTRACTABLE, false))) {
            return true;
        }
    }
    return false;
}

bool kms_store_knows(struct kms_store_state *store, const struct kms_attrs *tmpl)
{
    bool knows = false;

    (void)pthread_rwlock_rdlock(&store->lock);
    for (struct search s = search_begin(&store->index, tmpl); s.at != NULL && !knows;
         search_next(&s)) {
        knows = s.at->object->on_token && kms_attrs_match(s.at->object->attrs, tmpl);
    }
    (void)pthread_rwlock_unlock(&store->lock);
    return knows;
}

struct found {
    CK_OBJECT_HANDLE *handle;
    size_t count, cap;
};

static bool add_found(struct found *found, CK_OBJECT_HANDLE handle)
{
    if (found->count == found->cap) {
        const size_t cap = found->cap == 0 ? FOUND_MIN : found->cap * 2;
        CK_OBJECT_HANDLE *more = realloc(found->handle, cap * sizeof(*more));

        if (more == NULL) {
            return false;
        }
        found->handle = more;
        found->cap = cap;
    }
    found->handle[found->count++] = handle;
    return true;
}

static int compare_handles(const void *a, const void *b)
{
    const CK_OBJECT_HANDLE x = *(const CK_OBJECT_HANDLE *)a;
    const CK_OBJECT_HANDLE y = *(const CK_OBJECT_HANDLE *)b;

    return (x > y) - (x < y);
}

static void sort_found(struct found *found)
{
    if (found->count > 1) { /* chains are newest first */
        qsort(found->handle, found->count, sizeof(*found->handle), compare_handles);
    }
}

/*
 * Programs that look for a label take what comes first. So the keys that a label stands for now
 * come before versions that their service keeps for what they once made.
 */
CK_RV kms_store_find(struct kms_slot *slot, const struct kms_attrs *tmpl,
                     CK_OBJECT_HANDLE **ret_handles, size_t *ret_count)
{
    struct kms_store_state *store = slot->store;
    struct found found = {.count = 0};
    struct found old = {.count = 0};
    bool memory = true;
    CK_RV rv = kms_store_freshen(slot, tmpl);

    if (rv != CKR_OK) {
        return rv;
    }
    (void)pthread_rwlock_rdlock(&store->lock);
    for (struct search s = search_begin(&store->index, tmpl); s.at != NULL && memory;
         search_next(&s)) {
        const struct kms_object *object = s.at->object;

        if (is_seen(slot, object) && kms_attrs_match(object->attrs, tmpl) &&
            !asks_for_secret(object, tmpl)) {
            memory = add_found(object->superseded ? &old : &found, object->handle);
        }
    }
    (void)pthread_rwlock_unlock(&store->lock);
    sort_found(&found);
    sort_found(&old);
    for (size_t i = 0; i < old.count && memory; i++) {
        memory = add_found(&found, old.handle[i]);
    }
    free(old.handle);
    if (!memory) {
        free(found.handle);
        return CKR_HOST_MEMORY;
    }
    *ret_handles = found.handle;
    *ret_count = found.count;
    return CKR_OK;
}

CK_RV kms_store_version(struct kms_slot *slot, const struct kms_object *key, struct kms_span key_id,
                        struct kms_object **ret_version)
{
    struct kms_attrs *tmpl = kms_attrs_new();
    struct kms_span label = KMS_SPAN_NONE;
    CK_OBJECT_HANDLE *handles = NULL;
    size_t count = 0;
    CK_RV rv = tmpl == NULL ? CKR_HOST_MEMORY : CKR_OK;

    if (rv == CKR_OK && !kms_attrs_get(key->attrs, CKA_LABEL, &label)) {
        rv = CKR_KEY_HANDLE_INVALID;
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set_ulong(tmpl, CKA_CLASS, key->class);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set(tmpl, CKA_LABEL, label.data, label.len);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set(tmpl, CKA_KMSBRIDGE_KEY_ID, key_id.data, key_id.len);
    }
    if (rv == CKR_OK) {
        rv = kms_store_find(slot, tmpl, &handles, &count);
    }
    if (rv == CKR_OK) {
        rv = count == 0 ? CKR_KEY_HANDLE_INVALID : kms_store_get(slot, handles[0], ret_version);
    }
    free(handles);
    kms_attrs_free(tmpl);
    return rv == CKR_OBJECT_HANDLE_INVALID ? CKR_KEY_HANDLE_INVALID : rv;
}
