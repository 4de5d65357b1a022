/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of keys. Keys are immutable and counted; the table is replaced bit by bit under
 * a lock, which is never held across a call into the module. An entry is good for its token
 * generation only: after a reconnect each key is looked for again when it is next used.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"

#define SICK_MAX 32 /* keys remembered as sick; more are logged again */

struct kms_hsm_table {
    pthread_rwlock_t lock; /* guards the rest */
    struct kms_hsm_key **keys;
    size_t count;
    char *sick[SICK_MAX]; /* names of keys that failed by themselves when last looked at */
    size_t next_sick;
};

struct kms_hsm_key *kms_hsm_key_ref(struct kms_hsm_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

void kms_hsm_key_put(struct kms_hsm_key *key)
{
    if (key != NULL && atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) == 1) {
        EVP_PKEY_free(key->public_key);
        free(key);
    }
}

bool kms_hsm_key_is(const struct kms_hsm_key *key, const char *ref)
{
    return strcmp(key->info.ref, ref) == 0 ||
           (key->alias[0] != '\0' && strcmp(key->alias, ref) == 0);
}

void kms_hsm_keys_done(struct kms_hsm_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        kms_hsm_key_put(keys->keys[i]);
    }
    free(keys->keys);
    *keys = (struct kms_hsm_keys){.keys = NULL, .count = 0};
}

struct kms_hsm_table *kms_hsm_table_new(void)
{
    struct kms_hsm_table *table = calloc(1, sizeof(*table));

    if (table != NULL) {
        pthread_rwlock_init(&table->lock, NULL);
    }
    return table;
}

void kms_hsm_table_free(struct kms_hsm_table *table)
{
    struct kms_hsm_keys all = {.keys = NULL, .count = 0};

    if (table != NULL) {
        all.keys = table->keys;
        all.count = table->count;
        kms_hsm_keys_done(&all);
        for (size_t i = 0; i < SICK_MAX; i++) {
            free(table->sick[i]);
        }
        pthread_rwlock_destroy(&table->lock);
        free(table);
    }
}

/* ---- the table ---------------------------------------------------------------------------- */

/* The entry of @ref whatever its generation, or NULL. */
struct kms_hsm_key *kms_hsm_table_find(struct kms_hsm_table *table, const char *ref)
{
    struct kms_hsm_key *found = NULL;

    pthread_rwlock_rdlock(&table->lock);
    for (size_t i = 0; i < table->count && found == NULL; i++) {
        if (kms_hsm_key_is(table->keys[i], ref)) {
            found = kms_hsm_key_ref(table->keys[i]);
        }
    }
    pthread_rwlock_unlock(&table->lock);
    return found;
}

struct kms_hsm_key *kms_hsm_table_by_handle(struct kms_hsm_table *table, uint64_t generation,
                                            CK_OBJECT_HANDLE handle)
{
    struct kms_hsm_key *found = NULL;

    pthread_rwlock_rdlock(&table->lock);
    for (size_t i = 0; i < table->count && found == NULL; i++) {
        if (table->keys[i]->generation == generation && table->keys[i]->handle == handle) {
            found = kms_hsm_key_ref(table->keys[i]);
        }
    }
    pthread_rwlock_unlock(&table->lock);
    return found;
}

bool kms_hsm_table_is_sick(struct kms_hsm_table *table, const char *name)
{
    bool sick = false;

    pthread_rwlock_rdlock(&table->lock);
    for (size_t i = 0; i < SICK_MAX && !sick; i++) {
        sick = table->sick[i] != NULL && strcmp(table->sick[i], name) == 0;
    }
    pthread_rwlock_unlock(&table->lock);
    return sick;
}

bool kms_hsm_table_has_sick(struct kms_hsm_table *table)
{
    bool has = false;

    pthread_rwlock_rdlock(&table->lock);
    for (size_t i = 0; i < SICK_MAX && !has; i++) {
        has = table->sick[i] != NULL;
    }
    pthread_rwlock_unlock(&table->lock);
    return has;
}

void kms_hsm_table_set_sick(struct kms_hsm_table *table, const char *name)
{
    char *copy = strdup(name);

    pthread_rwlock_wrlock(&table->lock);
    free(table->sick[table->next_sick]);
    table->sick[table->next_sick] = copy; /* NULL: it is logged again, no more */
    table->next_sick = (table->next_sick + 1) % SICK_MAX;
    pthread_rwlock_unlock(&table->lock);
}

void kms_hsm_table_set_well(struct kms_hsm_table *table, const char *name)
{
    pthread_rwlock_wrlock(&table->lock);
    for (size_t i = 0; i < SICK_MAX; i++) {
        if (table->sick[i] != NULL && strcmp(table->sick[i], name) == 0) {
            free(table->sick[i]);
            table->sick[i] = NULL;
        }
    }
    pthread_rwlock_unlock(&table->lock);
}

static bool tag_is(const struct kms_key_info *info, struct kms_span tag)
{
    return kms_span_equal(kms_span_of(info->tag, info->tag_len), tag);
}

static bool matches(const struct kms_hsm_key *key, const struct kms_key_filter *filter)
{
    if (filter->label != NULL && filter->label[0] != '\0' &&
        strcmp(filter->label, key->info.label) != 0) {
        return false;
    }
    if (filter->tag.len != 0 && !tag_is(&key->info, filter->tag)) {
        return false;
    }
    return filter->ref == NULL || filter->ref[0] == '\0' || kms_hsm_key_is(key, filter->ref);
}

static bool holds(const struct kms_hsm_keys *keys, const struct kms_hsm_key *key)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (keys->keys[i] == key) {
            return true;
        }
    }
    return false;
}

/*
 * Brings the table up to what a scan for @filter found: keys that should have been found and were
 * not are gone, new ones are added. Stale entries that the filter says nothing about stay: they
 * tell by which label to look for their key. Nothing is gone when a key could not be looked at.
 */
CK_RV kms_hsm_table_update(struct kms_hsm_table *table, const struct kms_key_filter *filter,
                           const struct kms_hsm_keys *found)
{
    struct kms_hsm_keys gone = {.keys = NULL, .count = 0};
    struct kms_hsm_keys next = {.keys = NULL, .count = 0};
    CK_RV rv = CKR_HOST_MEMORY;

    pthread_rwlock_wrlock(&table->lock);
    next.keys = calloc(table->count + found->count + 1, sizeof(struct kms_hsm_key *));
    gone.keys = calloc(table->count + 1, sizeof(struct kms_hsm_key *));
    if (next.keys == NULL || gone.keys == NULL) {
        goto out;
    }
    for (size_t i = 0; i < table->count; i++) {
        struct kms_hsm_key *key = table->keys[i];
        bool drop = found->sick == CKR_OK && matches(key, filter) && !holds(found, key);
        struct kms_hsm_keys *to = drop ? &gone : &next;

        to->keys[to->count++] = key;
    }
    for (size_t i = 0; i < found->count; i++) {
        if (!holds(&next, found->keys[i])) {
            next.keys[next.count++] = kms_hsm_key_ref(found->keys[i]);
        }
    }
    free(table->keys);
    table->keys = next.keys;
    table->count = next.count;
    next.keys = NULL;
    rv = CKR_OK;
out:
    pthread_rwlock_unlock(&table->lock);
    free(next.keys);
    if (rv == CKR_OK) {
        kms_hsm_keys_done(&gone);
    } else {
        free(gone.keys);
    }
    return rv;
}
