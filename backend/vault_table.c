/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/clock.h"
#include "common/cond.h"

#define FRESH_NS (10 * KMS_NS_PER_S)
#define LIST_NS  KMS_NS_PER_S
#define NAP_NS   (20 * KMS_NS_PER_MS) /* how often who waits looks whether to go on */
#define ROOM_MAX (KMS_VAULT_KEYS_MAX * 16u)

void kms_vault_table_init(struct kms_vault_table *table)
{
    *table = (struct kms_vault_table){.count = 0};
    (void)pthread_mutex_init(&table->lock, NULL);
    kms_cond_init(&table->listed);
}

void kms_vault_table_done(struct kms_vault_table *table)
{
    free(table->keys);
    (void)pthread_cond_destroy(&table->listed);
    (void)pthread_mutex_destroy(&table->lock);
}

/* ---- what was lost ------------------------------------------------------------------------ */

static struct kms_vault_lost *find_lost_locked(struct kms_vault_table *table, const char *ref)
{
    for (size_t i = 0; i < KMS_VAULT_LOST_MAX; i++) {
        if (strcmp(table->lost[i].id, ref) == 0) {
            return &table->lost[i];
        }
    }
    return NULL;
}

static void lose_locked(struct kms_vault_table *table, const struct kms_vault_key *key)
{
    struct kms_vault_lost *lost = find_lost_locked(table, key->id);

    if (lost == NULL) {
        lost = &table->lost[table->lost_count++ % KMS_VAULT_LOST_MAX];
        memcpy(lost->id, key->id, sizeof(lost->id));
        memcpy(lost->name, key->name, sizeof(lost->name));
        lost->version = key->version;
    }
}

bool kms_vault_table_lost(struct kms_vault_table *table, const char *ref,
                          struct kms_vault_lost *ret_lost)
{
    struct kms_vault_lost *lost = NULL;

    pthread_mutex_lock(&table->lock);
    lost = ref[0] == '\0' ? NULL : find_lost_locked(table, ref);
    if (lost != NULL) {
        *ret_lost = *lost;
    }
    pthread_mutex_unlock(&table->lock);
    return lost != NULL;
}

/* ---- what is known ------------------------------------------------------------------------ */

static int compare_versions(const void *a, const void *b)
{
    const struct kms_vault_key *x = a;
    const struct kms_vault_key *y = b;

    return x->version < y->version ? -1 : x->version > y->version ? 1 : 0;
}

/* Whether @key, by the same identity, is among @keys, which ascend by version. */
static bool is_among(const struct kms_vault_key *key, const struct kms_vault_key *keys,
                     size_t count)
{
    const struct kms_vault_key *found =
        count == 0 ? NULL : bsearch(key, keys, count, sizeof(*keys), compare_versions);

    return found != NULL && strcmp(found->id, key->id) == 0;
}

/* Takes what is known of @name out; what is not in @keys is lost. */
static void remove_locked(struct kms_vault_table *table, const char *name,
                          const struct kms_vault_key *keys, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->keys[i].name, name) != 0) {
            if (kept != i) {
                table->keys[kept] = table->keys[i];
            }
            kept++;
        } else if (!is_among(&table->keys[i], keys, count)) {
            lose_locked(table, &table->keys[i]);
        }
    }
    table->count = kept;
}

static bool make_room_locked(struct kms_vault_table *table, size_t more)
{
    size_t need = table->count + more;
    size_t room = table->room == 0 ? 16 : table->room;
    struct kms_vault_key *keys = NULL;

    while (room < need) {
        room *= 2;
    }
    if (need > ROOM_MAX) {
        return false;
    }
    if (room == table->room) {
        return true;
    }
    keys = realloc(table->keys, room * sizeof(*keys));
    if (keys == NULL) {
        return false;
    }
    table->keys = keys;
    table->room = room;
    return true;
}

enum kms_status kms_vault_table_replace(struct kms_vault_table *table, const char *name,
                                        const struct kms_vault_key *keys, size_t count,
                                        struct kms_error *err)
{
    bool fits = true;

    pthread_mutex_lock(&table->lock);
    remove_locked(table, name, keys, count);
    fits = count == 0 || make_room_locked(table, count);
    for (size_t i = 0; i < count; i++) {
        if (fits) {
            table->keys[table->count] = keys[i];
            table->keys[table->count++].seen_ns = kms_now_ns();
        } else {
            lose_locked(table, &keys[i]);
        }
    }
    pthread_mutex_unlock(&table->lock);
    return fits ? KMS_OK
                : kms_error_set(err, KMS_E_TOO_LARGE, "the mount has more than %u key versions",
                                ROOM_MAX);
}

bool kms_vault_table_find(struct kms_vault_table *table, const char *ref,
                          struct kms_vault_key *ret_key, bool *ret_stale)
{
    struct kms_vault_key *found = NULL;

    *ret_stale = false;
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; found == NULL && i < table->count; i++) {
        if (strcmp(table->keys[i].id, ref) == 0) {
            found = &table->keys[i];
        }
    }
    if (found != NULL) {
        uint64_t now = kms_now_ns();

        *ret_stale = now - found->seen_ns > FRESH_NS;
        found->seen_ns = *ret_stale ? now : found->seen_ns; /* one reads, the others go on */
        *ret_key = *found;
    }
    pthread_mutex_unlock(&table->lock);
    return found != NULL;
}

void kms_vault_table_recall(struct kms_vault_table *table, const char *name,
                            struct kms_vault_read *read)
{
    size_t at = 0;

    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count; i++) { /* a key's versions stand there ascending, too */
        const struct kms_vault_key *key = &table->keys[i];

        if (key->mark[0] == '\0' || strcmp(key->name, name) != 0) {
            continue;
        }
        while (at < read->count && read->versions[at].version < key->version) {
            at++;
        }
        if (at < read->count && read->versions[at].version == key->version) {
            memcpy(read->versions[at].recalled, key->mark, sizeof(key->mark));
        }
    }
    pthread_mutex_unlock(&table->lock);
}

/* ---- lists -------------------------------------------------------------------------------- */

static enum kms_status await_locked(struct kms_vault_table *table, struct kms_call *call)
{
    uint64_t nap = call->cancelled == NULL ? KMS_DEADLINE_NONE : kms_deadline_in(NAP_NS);

    if (call->cancelled != NULL && atomic_load(call->cancelled)) {
        return kms_error_set(&call->error, KMS_E_CANCELLED, "the caller gave up");
    }
    if (kms_deadline_passed(call->deadline_ns)) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT, "the list of keys is late");
    }
    (void)kms_cond_wait(&table->listed, &table->lock,
                        nap < call->deadline_ns ? nap : call->deadline_ns);
    return KMS_OK;
}

enum kms_status kms_vault_table_may_list(struct kms_vault_table *table, struct kms_call *call,
                                         bool *ret_may)
{
    enum kms_status status = KMS_OK;

    *ret_may = false;
    pthread_mutex_lock(&table->lock);
    while (status == KMS_OK && table->is_listing) {
        status = await_locked(table, call);
    }
    if (status == KMS_OK) {
        *ret_may = table->listed_ns == 0 || kms_now_ns() - table->listed_ns > LIST_NS;
        table->is_listing = *ret_may;
    }
    pthread_mutex_unlock(&table->lock);
    return status;
}

void kms_vault_table_listed(struct kms_vault_table *table, bool whole)
{
    pthread_mutex_lock(&table->lock);
    table->is_listing = false;
    table->listed_ns = whole ? kms_now_ns() : 0;
    (void)pthread_cond_broadcast(&table->listed);
    pthread_mutex_unlock(&table->lock);
}
