/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "common/clock.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/store_parts.h"

#define TTL_MIN_NS   (1 * KMS_NS_PER_S)    /* of a list, whatever the agent says */
#define NOT_THERE_NS (2 * KMS_NS_PER_S)    /* how long "no such key" is believed */
#define QUIET_NS     (200 * KMS_NS_PER_MS) /* after a failure nobody asks for so long */
#define ROWS_MIN     32

/* ---- one list -------------------------------------------------------------------------------- */

struct row {
    uint64_t family;
    uint64_t digest;
    bool known; /* as it is in the store: nothing was made */
    struct kms_key_objects objects;
};

struct load {
    struct kms_slot *slot;
    struct row *row;
    size_t count, cap;
    CK_RV rv;
};

static bool is_known(struct kms_store_state *store, uint64_t family, uint64_t digest)
{
    const struct kms_store_key *key = NULL;
    bool known = false;

    (void)pthread_rwlock_rdlock(&store->lock);
    key = kms_store_key_locked(store, family);
    known = key != NULL && key->digest == digest;
    (void)pthread_rwlock_unlock(&store->lock);
    return known;
}

static bool add_key(void *ctx, const struct kms_agent_key *key)
{
    struct load *load = ctx;
    struct kms_store_state *store = load->slot->store;
    struct row *row = NULL;

    if (load->count == load->cap) {
        const size_t cap = load->cap == 0 ? ROWS_MIN : load->cap * 2;
        struct row *more = realloc(load->row, cap * sizeof(*more));

        if (more == NULL) {
            load->rv = CKR_HOST_MEMORY;
            return false;
        }
        load->row = more;
        load->cap = cap;
    }
    row = &load->row[load->count];
    *row = (struct row){.family = kms_store_family(store, &key->info),
                        .digest = kms_store_digest(store, key)};
    row->known = is_known(store, row->family, row->digest);
    if (!row->known) {
        load->rv = kms_key_objects_make(load->slot, key, &row->objects);
    }
    if (load->rv == CKR_OK) {
        load->count++;
    }
    return load->rv == CKR_OK;
}

static void merge_locked(struct kms_store_state *store, struct load *load, uint64_t now_ns)
{
    for (size_t i = 0; i < load->count; i++) {
        struct row *row = &load->row[i];
        struct kms_store_key *key = NULL;

        if (row->known) {
            key = kms_store_key_locked(store, row->family);
            if (key != NULL) { /* else it was destroyed meanwhile */
                kms_store_touch_locked(store, key, now_ns);
            }
        } else if (kms_store_merge_locked(store, row->family, row->digest, &row->objects, now_ns) !=
                   CKR_OK) {
            load->rv = CKR_HOST_MEMORY;
        }
    }
}

/* @by KMS_BY_HANDLE: all keys; else those with this CKA_ID or label. */
static CK_RV load_keys(struct kms_slot *slot, enum kms_index_by by, struct kms_span value)
{
    struct kms_store_state *store = slot->store;
    struct kms_call call = kms_slot_call(slot);
    struct load load = {.slot = slot};
    const uint64_t since_ns = kms_now_ns();
    enum kms_status status = kms_agent_list_keys(
        slot->agent, &call, slot->token.name, by == KMS_BY_ID ? value : KMS_SPAN_NONE,
        by == KMS_BY_LABEL ? value : KMS_SPAN_NONE, add_key, &load);

    if (status != KMS_OK && load.rv == CKR_OK) {
        load.rv = kms_slot_error(slot, &call, KMS_DATA_NONE);
    }
    if (load.rv == CKR_OK) {
        (void)pthread_rwlock_wrlock(&store->lock);
        merge_locked(store, &load, kms_now_ns());
        if (by == KMS_BY_HANDLE) {
            kms_store_sweep_locked(store, since_ns);
        } else {
            kms_store_sweep_chain_locked(store, by, value, since_ns);
        }
        (void)pthread_rwlock_unlock(&store->lock);
    }
    for (size_t i = 0; i < load.count; i++) {
        kms_key_objects_done(&load.row[i].objects);
    }
    free(load.row);
    return load.rv;
}

/* ---- when to ask ----------------------------------------------------------------------------- */

static uint64_t ttl(const struct kms_slot *slot)
{
    return slot->token.keys_ttl_ns < TTL_MIN_NS ? TTL_MIN_NS : slot->token.keys_ttl_ns;
}

/* The whole list, by one caller; others use the old one, and wait only where there is none. */
static CK_RV load_all(struct kms_slot *slot)
{
    struct kms_store_state *store = slot->store;
    CK_RV rv = CKR_OK;

    (void)pthread_mutex_lock(&store->mutex);
    if (store->loading) {
        while (store->loading && !store->known) {
            (void)pthread_cond_wait(&store->loaded, &store->mutex);
        }
    } else if (kms_now_ns() >= store->quiet_until_ns) {
        store->loading = true;
        (void)pthread_mutex_unlock(&store->mutex);
        rv = load_keys(slot, KMS_BY_HANDLE, KMS_SPAN_NONE);
        (void)pthread_mutex_lock(&store->mutex);
        store->loading = false;
        store->failure = rv;
        if (rv == CKR_OK) {
            store->known = true;
            store->fresh_until_ns = kms_deadline_in(ttl(slot));
        } else {
            store->quiet_until_ns = kms_deadline_in(QUIET_NS);
        }
        (void)pthread_cond_broadcast(&store->loaded);
    }
    rv = store->known ? CKR_OK : store->failure;
    (void)pthread_mutex_unlock(&store->mutex);
    return rv;
}

static bool was_asked(struct kms_store_state *store, uint64_t hash)
{
    const uint64_t now = kms_now_ns();
    bool asked = false;

    (void)pthread_mutex_lock(&store->mutex);
    for (size_t i = 0; i < KMS_STORE_ASKED && !asked; i++) {
        asked = store->asked[i].hash == hash && now < store->asked[i].until_ns;
    }
    (void)pthread_mutex_unlock(&store->mutex);
    return asked;
}

static void note_asked(struct kms_store_state *store, uint64_t hash, uint64_t for_ns)
{
    size_t at = 0;

    (void)pthread_mutex_lock(&store->mutex);
    while (at < KMS_STORE_ASKED && store->asked[at].hash != hash) {
        at++;
    }
    if (at == KMS_STORE_ASKED) {
        at = store->asked_at++ % KMS_STORE_ASKED;
    }
    store->asked[at].hash = hash;
    store->asked[at].until_ns = kms_deadline_in(for_ns);
    (void)pthread_mutex_unlock(&store->mutex);
}

static bool is_fresh(struct kms_store_state *store)
{
    bool fresh = false;

    (void)pthread_mutex_lock(&store->mutex);
    fresh = store->known && kms_now_ns() < store->fresh_until_ns;
    (void)pthread_mutex_unlock(&store->mutex);
    return fresh;
}

/* What the agent can be asked for by itself: KMS_BY_HANDLE, nothing. */
static enum kms_index_by single(const struct kms_attrs *tmpl, struct kms_span *ret_value)
{
    if (kms_attrs_get(tmpl, CKA_ID, ret_value) && ret_value->len > 0 &&
        ret_value->len <= KMS_KEY_TAG_MAX) {
        return KMS_BY_ID;
    }
    if (kms_attrs_get(tmpl, CKA_LABEL, ret_value) && ret_value->len > 0 &&
        ret_value->len < KMS_LABEL_MAX) {
        return KMS_BY_LABEL;
    }
    return KMS_BY_HANDLE;
}

/* Whether the agent can have anything that matches. */
static bool is_for_token(const struct kms_attrs *tmpl)
{
    const CK_OBJECT_CLASS class = kms_attrs_ulong(tmpl, CKA_CLASS, CKO_SECRET_KEY);

    return kms_attrs_bool(tmpl, CKA_TOKEN, true) && class >= CKO_CERTIFICATE &&
           class <= CKO_SECRET_KEY;
}

/* Whether what the agent has under a label is all that there is: certificates of authorities have
 * labels of their own, and a key's CKA_ID may be one that we gave it. */
static bool is_final(const struct kms_attrs *tmpl, enum kms_index_by by)
{
    const CK_OBJECT_CLASS class = kms_attrs_ulong(tmpl, CKA_CLASS, CKO_CERTIFICATE);

    return by == KMS_BY_LABEL && class != CKO_CERTIFICATE;
}

/* One key: cheap where the token has thousands. *ret_done: no list is needed after this. */
static CK_RV load_single(struct kms_slot *slot, const struct kms_attrs *tmpl, bool fresh,
                         enum kms_index_by by, struct kms_span value, bool *ret_done)
{
    struct kms_store_state *store = slot->store;
    const uint64_t hash = kms_index_hash(&store->index, value) + (uint64_t)by;
    const bool final = fresh || is_final(tmpl, by);
    bool known = kms_store_knows(store, tmpl);
    CK_RV rv = CKR_OK;

    *ret_done = true;
    if ((known && fresh) || was_asked(store, hash)) {
        *ret_done = known || final;
        return CKR_OK;
    }
    rv = load_keys(slot, by, value);
    if (rv != CKR_OK) {
        return known || fresh ? CKR_OK : rv;
    }
    known = kms_store_knows(store, tmpl);
    note_asked(store, hash, known ? ttl(slot) : NOT_THERE_NS);
    *ret_done = known || final;
    return CKR_OK;
}

CK_RV kms_store_freshen(struct kms_slot *slot, const struct kms_attrs *tmpl)
{
    const bool fresh = is_fresh(slot->store);
    struct kms_span value = KMS_SPAN_NONE;
    const enum kms_index_by by = single(tmpl, &value);
    bool done = false;
    CK_RV rv = CKR_OK;

    if (!is_for_token(tmpl)) {
        return CKR_OK;
    }
    if (by != KMS_BY_HANDLE) {
        rv = load_single(slot, tmpl, fresh, by, value, &done);
    }
    return rv != CKR_OK || done || fresh ? rv : load_all(slot);
}
