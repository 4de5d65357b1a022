/* SPDX-License-Identifier: Apache-2.0 */
/* One list of keys, with public keys and certificates. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kmsbridge/agent_tokens_parts.h"

#define KEYS_MAX 65536 /* of a token; KMS_AGENT_KEYS_IN_ALL */

void kms_agentd_key_put(struct kms_agentd_key *key)
{
    if (key != NULL && atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) == 1) {
        free(key);
    }
}

void kms_agentd_keys_put(struct kms_agentd_keys *keys)
{
    if (keys != NULL && atomic_fetch_sub_explicit(&keys->refs, 1, memory_order_acq_rel) == 1) {
        for (size_t i = 0; i < keys->count; i++) {
            kms_agentd_key_put(keys->keys[i]);
        }
        free(keys);
    }
}

struct kms_agentd_key *kms_agentd_key_hold(struct kms_agentd_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

struct kms_agentd_keys *kms_agentd_keys_hold(struct kms_agentd_keys *keys)
{
    atomic_fetch_add_explicit(&keys->refs, 1, memory_order_relaxed);
    return keys;
}

struct kms_agentd_key *kms_agentd_keys_find(const struct kms_agentd_keys *keys, const char *ref)
{
    size_t low = 0;
    size_t high = keys == NULL ? 0 : keys->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(ref, keys->keys[middle]->info.ref);

        if (order == 0) {
            return keys->keys[middle];
        }
        low = order > 0 ? middle + 1 : low;
        high = order < 0 ? middle : high;
    }
    return NULL;
}

/* What one flight brings. */
struct flight {
    struct kms_key_info *infos;
    size_t count;
    size_t room;
    bool full;     /* of memory or of KEYS_MAX */
    bool *missing; /* by conf->keys; NULL: nobody wants to know */
};

static bool collect(void *ctx, const struct kms_key_info *info)
{
    struct flight *flight = ctx;

    if (flight->count == flight->room) {
        size_t room = flight->room == 0 ? 32 : flight->room * 2;
        struct kms_key_info *grown = NULL;

        if (flight->count < KEYS_MAX) {
            grown = reallocarray(flight->infos, room, sizeof(*grown));
        }
        if (grown == NULL) {
            flight->full = true;
            return false;
        }
        flight->infos = grown;
        flight->room = room;
    }
    flight->infos[flight->count++] = *info;
    return true;
}

static int by_ref(const void *a, const void *b)
{
    const struct kms_key_info *left = a;
    const struct kms_key_info *right = b;

    return strcmp(left->ref, right->ref);
}

/* Sorted; a key that came twice (two specs, an attempt repeated) is there once. */
static void sort(struct flight *flight)
{
    size_t kept = 0;

    if (flight->count > 1) {
        qsort(flight->infos, flight->count, sizeof(flight->infos[0]), by_ref);
    }
    for (size_t i = 0; i < flight->count; i++) {
        if (kept == 0 || strcmp(flight->infos[kept - 1].ref, flight->infos[i].ref) != 0) {
            flight->infos[kept++] = flight->infos[i];
        }
    }
    flight->count = kept;
}

/* As applications see them: what is pinned by its CKA_ID outlives rotations where it can. */
static enum kms_status list_one(struct kms_waist *waist, struct kms_call *call,
                                const struct kms_key_filter *filter, struct flight *flight)
{
    struct kms_key_filter logical = *filter;
    enum kms_status status = KMS_OK;

    logical.logical = true;
    status = kms_waist_list_keys(waist, call, &logical, collect, flight);
    if (filter->spec != NULL && status == KMS_E_NOT_FOUND) {
        kms_error_clear(&call->error);
        status = KMS_OK;
    }
    if (status == KMS_OK && flight->full) {
        status = kms_error_set(&call->error, KMS_E_NOMEM, "agent: no memory for so many keys");
    }
    return status;
}

/* A search: what is not there, or cannot be used, is not in a whole list either. */
static enum kms_status list_named(struct kms_waist *waist, struct kms_call *call,
                                  const struct kms_key_filter *filter, struct flight *flight)
{
    enum kms_status status = list_one(waist, call, filter, flight);

    if (status == KMS_E_NOT_FOUND || status == KMS_E_UNSUPPORTED) {
        kms_error_clear(&call->error);
        status = KMS_OK;
    }
    return status;
}

static enum kms_status list(const struct kms_agentd_token *token, struct kms_waist *waist,
                            struct kms_call *call, const struct kms_key_filter *filter,
                            struct flight *flight)
{
    const struct kms_key_filter all = {.spec = NULL};
    enum kms_status status = KMS_OK;

    if (filter != NULL) {
        status = list_named(waist, call, filter, flight);
    } else if (token->conf->key_count == 0) {
        status = list_one(waist, call, &all, flight);
    }
    for (size_t i = 0; filter == NULL && status == KMS_OK && i < token->conf->key_count; i++) {
        const struct kms_key_filter one = {.spec = token->conf->keys[i]};
        const size_t count = flight->count;

        status = list_one(waist, call, &one, flight);
        if (flight->missing != NULL) {
            flight->missing[i] = flight->count == count;
        }
    }
    sort(flight);
    return status;
}

bool kms_agentd_is_pair(enum kms_key_type type)
{
    return type == KMS_KEY_RSA || type == KMS_KEY_EC || type == KMS_KEY_EDDSA;
}

/* One that cannot be had is left out, and asked for again with the next list; *ret_later: that may
 * well help. */
static struct kms_span public_of(struct kms_waist *waist, const struct kms_call *call,
                                 const struct kms_key_info *info, const struct kms_agentd_key *was,
                                 uint8_t room[KMS_PUBLIC_KEY_MAX], bool *ret_later)
{
    struct kms_call one = {
        .deadline_ns = call->deadline_ns, .cancelled = call->cancelled, .trace_id = call->trace_id};
    struct kms_buf spki = kms_buf_over(room, KMS_PUBLIC_KEY_MAX);

    if (!kms_agentd_is_pair(info->type)) {
        return KMS_SPAN_NONE;
    }
    if (was != NULL && was->spki.len != 0 && strcmp(was->info.id, info->id) == 0) {
        return was->spki;
    }
    if (kms_waist_public_key(waist, &one, info->ref, &spki) != KMS_OK) {
        kms_log_error(KMS_LOG_DEBUG, &one.error, "agent: public key of \"%s\"", info->label);
        *ret_later = kms_status_is_transient(one.error.status) ||
                     one.error.status == KMS_E_TIMEOUT || one.error.status == KMS_E_CANCELLED;
        return KMS_SPAN_NONE;
    }
    return kms_buf_span(&spki);
}

static const struct kms_agentd_chain *chain_of(const struct kms_agentd_token *token,
                                               const struct kms_key_info *info,
                                               struct kms_span spki)
{
    for (size_t i = 0; spki.len != 0 && i < token->conf->certificate_count; i++) {
        if (strcmp(token->conf->certificates[i].key, info->label) == 0 &&
            kms_agentd_chain_is_of(&token->chains[i], spki)) {
            return &token->chains[i];
        }
    }
    return NULL;
}

struct kms_agentd_key *kms_agentd_key_new(const struct kms_agentd_token *token,
                                          const struct kms_key_info *info, struct kms_span spki)
{
    struct kms_agentd_key *key = malloc(sizeof(*key) + spki.len);

    if (key != NULL) {
        atomic_init(&key->refs, 1);
        key->info = *info;
        key->spki = kms_span_of(key->storage, spki.len);
        key->chain = chain_of(token, info, spki);
        if (spki.len > 0) {
            memcpy(key->storage, spki.data, spki.len);
        }
    }
    return key;
}

static struct kms_agentd_keys *keys_new(const struct kms_agentd_token *token,
                                        struct kms_waist *waist, const struct kms_call *call,
                                        const struct flight *flight,
                                        const struct kms_agentd_keys *was)
{
    struct kms_agentd_keys *keys =
        calloc(1, sizeof(*keys) + flight->count * sizeof(struct kms_agentd_key *));
    uint8_t room[KMS_PUBLIC_KEY_MAX];

    if (keys == NULL) {
        return NULL;
    }
    atomic_init(&keys->refs, 1);
    for (size_t i = 0; i < flight->count; i++) {
        const struct kms_key_info *info = &flight->infos[i];
        const struct kms_agentd_key *old = kms_agentd_keys_find(was, info->ref);
        bool later = false;
        struct kms_span spki = public_of(waist, call, info, old, room, &later);
        struct kms_agentd_key *key = kms_agentd_key_new(token, info, spki);

        if (key == NULL) {
            kms_agentd_keys_put(keys);
            return NULL;
        }
        keys->lacks = keys->lacks || later;
        keys->keys[keys->count++] = key;
    }
    return keys;
}

/* --- certificates -------------------------------------------------------------------------------
 */

enum match { MATCHES, NO_KEY, NOT_OF_KEY };

static enum match match(const struct kms_agentd_token *token, const struct kms_agentd_keys *keys,
                        size_t index)
{
    const char *label = token->conf->certificates[index].key;
    enum match match = NO_KEY;

    for (size_t i = 0; i < keys->count && match != MATCHES; i++) {
        const struct kms_agentd_key *key = keys->keys[i];

        if (key->chain == &token->chains[index]) {
            match = MATCHES;
        } else if (strcmp(key->info.label, label) == 0 && key->spki.len != 0) {
            match = NOT_OF_KEY;
        }
    }
    return match;
}

static enum kms_status check_chain(const struct kms_agentd_token *token,
                                   const struct kms_agentd_keys *keys, size_t index,
                                   struct kms_error *err)
{
    const struct kms_agentd_cert_conf *cert = &token->conf->certificates[index];
    enum match found = match(token, keys, index);

    if (found == MATCHES) {
        return KMS_OK;
    }
    return kms_error_set(err, KMS_E_INVALID,
                         found == NO_KEY
                             ? "%s.certificates[%zu]: token %s has no key pair \"%s\" for %s"
                             : "%s.certificates[%zu]: token %s: key \"%s\" is not the one that %s "
                               "certifies",
                         token->place, index, token->conf->backend, cert->key, cert->file);
}

enum kms_status kms_agentd_token_check(struct kms_agentd_token *token, struct kms_error *err)
{
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&token->mutex);
    keys = token->keys == NULL ? NULL : kms_agentd_keys_hold(token->keys);
    pthread_mutex_unlock(&token->mutex);
    for (size_t i = 0; keys != NULL && status == KMS_OK && i < token->conf->certificate_count;
         i++) {
        status = check_chain(token, keys, i, err);
    }
    kms_agentd_keys_put(keys);
    return status;
}

/* Said when it is first seen, and again when a list changed it. */
static void complain(const struct kms_agentd_token *token, const struct kms_agentd_keys *keys,
                     const struct kms_agentd_keys *was)
{
    for (size_t i = 0; i < token->conf->certificate_count; i++) {
        struct kms_error error = KMS_ERROR_INIT;

        if (was != NULL && match(token, was, i) == match(token, keys, i)) {
            continue;
        }
        if (check_chain(token, keys, i, &error) != KMS_OK) {
            kms_log(KMS_LOG_ERROR, "agent: %s; it is not shown", error.text);
        }
    }
}

/* Said with the first list that there is. */
static void complain_of_missing(const struct kms_agentd_token *token, const bool *missing)
{
    for (size_t i = 0; missing != NULL && i < token->conf->key_count; i++) {
        if (missing[i]) {
            kms_log(KMS_LOG_WARN, "agent: %s.keys[%zu]: token %s has no key \"%s\"", token->place,
                    i, token->conf->backend, token->conf->keys[i]);
        }
    }
}

/* --- the flight ------------------------------------------------------------------------------- */

enum kms_status kms_agentd_fly(struct kms_agentd_token *token, struct kms_call *call,
                               const struct kms_key_filter *filter, uint64_t *ret_touched,
                               struct kms_agentd_keys **ret_keys)
{
    struct flight flight = {.count = 0};
    struct kms_agentd_visit visit;
    struct kms_agentd_keys *was = NULL;
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&token->mutex);
    was = token->keys == NULL ? NULL : kms_agentd_keys_hold(token->keys);
    *ret_touched = token->touched;
    pthread_mutex_unlock(&token->mutex);
    status = kms_agentd_visit_begin(token, call, &visit);
    if (status != KMS_OK) {
        kms_agentd_keys_put(was);
        return status;
    }
    if (was == NULL && filter == NULL) {
        flight.missing = calloc(token->conf->key_count + 1, sizeof(bool)); /* NULL: not told */
    }
    status = list(token, visit.waist, call, filter, &flight);
    if (status == KMS_OK) {
        keys = keys_new(token, visit.waist, call, &flight, was);
        status = keys == NULL ? kms_error_set(&call->error, KMS_E_NOMEM, "agent: out of memory")
                              : KMS_OK;
    }
    kms_agentd_visit_end(&visit);
    free(flight.infos);
    if (status == KMS_OK) {
        if (filter == NULL) {
            complain(token, keys, was);
            complain_of_missing(token, flight.missing);
        }
        *ret_keys = keys;
    }
    free(flight.missing);
    kms_agentd_keys_put(was);
    return status;
}
