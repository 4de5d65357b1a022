/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/keyring.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"
#include "kmsbridge/envelope.h"
#include "kmsbridge/ring_key.h"

#define KEYS_MAX           4096 /* of one label; more is an error, never a silent cut */
#define ROOM_MIN           8
#define LOOKUP_INTERVAL_NS (5 * KMS_NS_PER_S)
#define CATCH_UPS          2 /* how often one call looks again for what the service rotated to */

/* Immutable once published. */
struct snapshot {
    unsigned refs;           /* under kms_keyring.mutex */
    atomic_bool active_lost; /* nothing is encrypted; what is there decrypts */
    size_t active;
    size_t count;
    struct kms_ring_key keys[];
};

struct kms_keyring {
    struct kms_waist *waist;
    const char *spec;
    pthread_mutex_t mutex;    /* guards the members below; never held across a backend op */
    pthread_cond_t refreshed; /* refreshing became false */
    struct snapshot *current;
    bool refreshing;
    uint64_t last_lookup_ns;
};

struct kms_keyring *kms_keyring_new(struct kms_waist *waist, const char *spec)
{
    struct kms_keyring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return NULL;
    }
    ring->waist = waist;
    ring->spec = spec;
    pthread_mutex_init(&ring->mutex, NULL);
    kms_cond_init(&ring->refreshed);
    return ring;
}

void kms_keyring_free(struct kms_keyring *ring)
{
    if (ring == NULL) {
        return;
    }
    free(ring->current);
    pthread_cond_destroy(&ring->refreshed);
    pthread_mutex_destroy(&ring->mutex);
    free(ring);
}

static struct snapshot *snapshot_get(struct kms_keyring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    struct snapshot *snap = ring->current;
    if (snap != NULL) {
        snap->refs++;
    }
    pthread_mutex_unlock(&ring->mutex);
    return snap;
}

static void snapshot_put(struct kms_keyring *ring, struct snapshot *snap)
{
    if (snap == NULL) {
        return;
    }
    pthread_mutex_lock(&ring->mutex);
    bool last = --snap->refs == 0;
    pthread_mutex_unlock(&ring->mutex);
    if (last) {
        free(snap);
    }
}

static struct kms_ring_key *snapshot_find(struct snapshot *snap, struct kms_span key_id)
{
    for (size_t i = 0; snap != NULL && i < snap->count; i++) {
        if (kms_span_equal(kms_span_str(snap->keys[i].info.id), key_id)) {
            return &snap->keys[i];
        }
    }
    return NULL;
}

/* --- which keys there are --- */

static bool can_be_active(const struct kms_key_info *info)
{
    const unsigned need = KMS_USE_DECRYPT;
    return info->seal != KMS_ALG_NONE && (info->uses & need) == need;
}

struct gathering {
    struct snapshot *snap;
    size_t room; /* of its keys */
    enum kms_status status;
    bool candidates; /* this visit says which key may be active */
};

/* Room for one more key. */
static enum kms_status grow(struct gathering *g)
{
    if (g->snap->count == KEYS_MAX) {
        return KMS_E_TOO_LARGE;
    }
    if (g->snap->count == g->room) {
        size_t room = g->room == 0 ? ROOM_MIN : 2 * g->room;
        struct snapshot *grown = realloc(g->snap, sizeof *grown + room * sizeof grown->keys[0]);
        if (grown == NULL) {
            return KMS_E_NOMEM;
        }
        g->snap = grown;
        g->room = room;
    }
    return KMS_OK;
}

static bool gather(void *ctx, const struct kms_key_info *info)
{
    struct gathering *g = ctx;
    struct kms_ring_key *key = snapshot_find(g->snap, kms_span_str(info->id));
    if (key == NULL) {
        g->status = grow(g);
        if (g->status != KMS_OK) {
            return false;
        }
        key = &g->snap->keys[g->snap->count++];
        *key = (struct kms_ring_key){.info = *info};
        g->status = kms_envelope_hint(kms_span_str(info->id), key->hint);
    }
    struct snapshot *snap = g->snap;
    size_t at = (size_t)(key - snap->keys);
    if (g->candidates && can_be_active(info) &&
        (snap->active == SIZE_MAX ||
         kms_key_age_compare(&snap->keys[snap->active].info, &key->info) < 0)) {
        snap->active = at;
    }
    return g->status == KMS_OK;
}

static enum kms_status gather_filter(struct kms_keyring *ring, struct kms_call *call,
                                     const struct kms_key_filter *filter, struct gathering *g)
{
    enum kms_status status = kms_waist_list_keys(ring->waist, call, filter, gather, g);
    if (status == KMS_OK && g->status != KMS_OK) {
        status = kms_error_set(&call->error, g->status,
                               "backend %s has more than %d keys named %s, or one cannot be hashed "
                               "or kept",
                               kms_waist_name(ring->waist), KEYS_MAX, ring->spec);
    }
    return status;
}

/* The keys that the configuration names, then those that share the active one's label. */
static enum kms_status gather_all(struct kms_keyring *ring, struct kms_call *call,
                                  struct gathering *g)
{
    struct kms_key_filter filter = {.spec = ring->spec};
    g->candidates = true;
    enum kms_status status = gather_filter(ring, call, &filter, g);
    if (status != KMS_OK) {
        return status;
    }
    const struct snapshot *snap = g->snap;
    if (snap->count == 0) {
        return kms_error_set(
            &call->error, KMS_E_NOT_FOUND,
            "backend %s has no key named %s, or of no type that is used; if there was one, restore "
            "it: a new one opens nothing that is stored (for a first key: `kmsbridgectl keys "
            "create`)",
            kms_waist_name(ring->waist), ring->spec);
    }
    if (snap->active == SIZE_MAX) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                             "backend %s: no key named %s can both encrypt and decrypt with "
                             "authentication (kms.key in kmsbridge.yaml(5) has the types)",
                             kms_waist_name(ring->waist), ring->spec);
    }
    char label[KMS_LABEL_MAX];
    memcpy(label, snap->keys[snap->active].info.label, sizeof label);
    if (label[0] == '\0' || strcmp(label, ring->spec) == 0) {
        return KMS_OK;
    }
    g->candidates = false;
    filter = (struct kms_key_filter){.label = label};
    return gather_filter(ring, call, &filter, g);
}

static void log_change(const struct snapshot *old, const struct snapshot *now)
{
    const char *to = now->keys[now->active].info.id;
    const char *from = old != NULL ? old->keys[old->active].info.id : NULL;
    char count[24];
    snprintf(count, sizeof count, "%zu", now->count);
    if (from == NULL || strcmp(from, to) != 0) {
        const struct kms_log_field fields[] = {
            {"key_id", to},
            {"previous", from},
            {"label", now->keys[now->active].info.label},
            {"seal", kms_alg_name(now->keys[now->active].info.seal)},
            {"keys", count},
        };
        kms_log_fields(KMS_LOG_INFO, fields, 5, "keyring: active key");
    } else if (old->count != now->count) {
        const struct kms_log_field fields[] = {{"key_id", to}, {"keys", count}};
        kms_log_fields(KMS_LOG_INFO, fields, 2, "keyring: the number of keys changed");
    }
    for (size_t i = 0; old != NULL && i < now->count; i++) {
        const struct kms_key_info *info = &now->keys[i].info;
        /* versions that a service counts come in their order, several at a time */
        if (info->order == 0 && kms_key_age_compare(info, &now->keys[now->active].info) < 0 &&
            snapshot_find((struct snapshot *)(uintptr_t)old, kms_span_str(info->id)) == NULL) {
            kms_log(KMS_LOG_WARN,
                    "keyring: key %s is new but its CKA_ID sorts below the active key's: it will "
                    "decrypt only",
                    info->id);
        }
    }
}

/* A new active key must have been seen to work; the one that was active must not vanish. */
static enum kms_status settle_active(struct kms_keyring *ring, struct kms_call *call,
                                     struct snapshot *old, struct snapshot *snap)
{
    if (old == NULL) {
        return kms_ring_key_probe(ring->waist, call, &snap->keys[snap->active], NULL);
    }
    const struct kms_ring_key *was = &old->keys[old->active];
    const struct kms_ring_key *next = &snap->keys[snap->active];
    if (strcmp(was->info.id, next->info.id) == 0) {
        return old->active_lost ? kms_ring_key_probe(ring->waist, call, next, NULL) : KMS_OK;
    }
    struct kms_ring_key *kept = snapshot_find(snap, kms_span_str(was->info.id));
    if (kms_key_age_compare(&next->info, &was->info) < 0) {
        return kms_error_set(&call->error, KMS_E_KEY_STATE,
                             "active key %s is gone from the key service or can no longer seal; "
                             "restore it, make a newer one, or restart to go back to %s",
                             was->info.id, next->info.id);
    }
    enum kms_status status = kms_ring_key_probe(ring->waist, call, next, NULL);
    /* a service that rotates by itself seals with the next one alone: the ring stays as it is */
    if (status != KMS_OK && kept != NULL && can_be_active(&kept->info)) {
        kms_log_error(KMS_LOG_WARN, &call->error, "keyring: newer key %s does not work, %s stays",
                      next->info.id, was->info.id);
        kms_error_clear(&call->error);
        snap->active = (size_t)(kept - snap->keys);
        return KMS_OK;
    }
    return status;
}

static enum kms_status refresh_unshared(struct kms_keyring *ring, struct kms_call *call)
{
    struct gathering g = {.snap = calloc(1, sizeof *g.snap)};
    if (g.snap == NULL) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "keyring: out of memory");
    }
    g.snap->active = SIZE_MAX;
    g.snap->refs = 1;
    struct snapshot *old = snapshot_get(ring);
    enum kms_status status = gather_all(ring, call, &g);
    struct snapshot *snap = g.snap;
    if (status == KMS_OK) {
        status = settle_active(ring, call, old, snap);
    }
    bool decrypt_only = status != KMS_OK && old == NULL && snap->count != 0;
    if (decrypt_only) { /* at a start: what older keys sealed can be opened all the same */
        snap->active = snap->active != SIZE_MAX ? snap->active : 0;
        snap->active_lost = true;
    }
    if (status == KMS_OK || decrypt_only) {
        log_change(old, snap);
        struct snapshot *fit = realloc(snap, sizeof *snap + snap->count * sizeof snap->keys[0]);
        snap = fit != NULL ? fit : snap;
        pthread_mutex_lock(&ring->mutex);
        struct snapshot *replaced = ring->current;
        ring->current = snap;
        pthread_mutex_unlock(&ring->mutex);
        snap = replaced;
    } else if (old != NULL && (status == KMS_E_KEY_STATE || status == KMS_E_NOT_FOUND ||
                               status == KMS_E_UNSUPPORTED)) {
        old->active_lost = true;
    }
    snapshot_put(ring, snap);
    snapshot_put(ring, old);
    return status;
}

/* The caller has set ring->refreshing. */
static enum kms_status refresh_alone(struct kms_keyring *ring, struct kms_call *call)
{
    enum kms_status status = refresh_unshared(ring, call);
    pthread_mutex_lock(&ring->mutex);
    ring->refreshing = false;
    pthread_cond_broadcast(&ring->refreshed);
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

enum kms_status kms_keyring_refresh(struct kms_keyring *ring, struct kms_call *call)
{
    pthread_mutex_lock(&ring->mutex);
    bool busy = ring->refreshing;
    ring->refreshing = true;
    pthread_mutex_unlock(&ring->mutex);
    if (busy) {
        return KMS_OK; /* somebody is at it, and what it finds serves us as well */
    }
    return refresh_alone(ring, call);
}

/*
 * The service no longer encrypts with key_id @from: finds what it encrypts with. One caller looks,
 * the others wait for it. Errors of the search; KMS_E_TIMEOUT.
 */
static enum kms_status catch_up(struct kms_keyring *ring, struct kms_call *call, const char *from)
{
    bool mine = false;
    bool in_time = true;
    kms_error_clear(&call->error);
    pthread_mutex_lock(&ring->mutex);
    const struct snapshot *seen = ring->current;
    while (ring->refreshing && in_time) {
        in_time = kms_cond_wait(&ring->refreshed, &ring->mutex, call->deadline_ns);
    }
    bool done = ring->current != seen ||
                strcmp(ring->current->keys[ring->current->active].info.id, from) != 0;
    if (in_time && !done) {
        mine = ring->refreshing = true;
    }
    pthread_mutex_unlock(&ring->mutex);
    if (!in_time) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT,
                             "keyring: the deadline passed while a rotated key was looked for");
    }
    return mine ? refresh_alone(ring, call) : KMS_OK;
}

/* --- what the front asks --- */

enum kms_status kms_keyring_active(struct kms_keyring *ring, char ret_key_id[KMS_KEY_ID_MAX])
{
    enum kms_status status = KMS_E_NOT_FOUND;
    pthread_mutex_lock(&ring->mutex);
    if (ring->current != NULL) {
        memcpy(ret_key_id, ring->current->keys[ring->current->active].info.id, KMS_KEY_ID_MAX);
        status = ring->current->active_lost ? KMS_E_KEY_STATE : KMS_OK;
    }
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

bool kms_keyring_has(struct kms_keyring *ring, struct kms_span key_id)
{
    struct snapshot *snap = snapshot_get(ring);
    bool has = snapshot_find(snap, key_id) != NULL;
    snapshot_put(ring, snap);
    return has;
}

size_t kms_keyring_count(struct kms_keyring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    size_t count = ring->current != NULL ? ring->current->count : 0;
    pthread_mutex_unlock(&ring->mutex);
    return count;
}

static enum kms_status no_key(struct kms_call *call)
{
    return kms_error_set(&call->error, KMS_E_UNAVAILABLE,
                         "keyring: the KEK has not been reached since the start");
}

/* What is done with the active key. */
struct active {
    enum { SEAL, PROBE } op;
    struct kms_span plaintext;
    struct kms_buf *envelope;
    char key_id[KMS_KEY_ID_MAX]; /* out: of the key that was used */
    bool moved;                  /* out: the service uses another one by now */
};

static enum kms_status with_active_once(struct kms_keyring *ring, struct kms_call *call,
                                        struct active *active)
{
    struct snapshot *snap = snapshot_get(ring);
    if (snap == NULL) {
        return no_key(call);
    }
    const struct kms_ring_key *key = &snap->keys[snap->active];
    memcpy(active->key_id, key->info.id, KMS_KEY_ID_MAX);
    active->moved = false;
    enum kms_status status = KMS_E_KEY_STATE;
    if (snap->active_lost) {
        status = kms_error_set(&call->error, status, "active key %s is gone", key->info.id);
    } else if (active->op == PROBE) {
        status = kms_ring_key_probe(ring->waist, call, key, &active->moved);
    } else {
        status = kms_ring_key_seal(ring->waist, call, key, active->plaintext, active->envelope,
                                   &active->moved);
    }
    snapshot_put(ring, snap);
    return status;
}

/* A service that rotates keys by itself is followed at the first encryption that shows it. */
static enum kms_status with_active(struct kms_keyring *ring, struct kms_call *call,
                                   struct active *active)
{
    enum kms_status status = with_active_once(ring, call, active);
    for (unsigned tries = 0; active->moved && tries < CATCH_UPS; tries++) {
        status = catch_up(ring, call, active->key_id);
        if (status != KMS_OK) {
            return status;
        }
        status = with_active_once(ring, call, active);
    }
    return status;
}

enum kms_status kms_keyring_encrypt(struct kms_keyring *ring, struct kms_call *call,
                                    struct kms_span plaintext, struct kms_buf *ret_envelope,
                                    char ret_key_id[KMS_KEY_ID_MAX])
{
    if (plaintext.len == 0) {
        return kms_error_set(&call->error, KMS_E_INVALID, "plaintext is empty");
    }
    if (plaintext.len > KMS_ENVELOPE_PLAINTEXT_MAX) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE,
                             "plaintext has %zu bytes, at most %d fit an envelope", plaintext.len,
                             KMS_ENVELOPE_PLAINTEXT_MAX);
    }
    struct active active = {.op = SEAL, .plaintext = plaintext, .envelope = ret_envelope};
    enum kms_status status = with_active(ring, call, &active);
    if (status == KMS_OK) {
        memcpy(ret_key_id, active.key_id, KMS_KEY_ID_MAX);
    }
    return status;
}

/* At most one search of the token every LOOKUP_INTERVAL_NS for key_ids that a caller names. */
static bool may_look_up(struct kms_keyring *ring)
{
    uint64_t now = kms_now_ns();
    pthread_mutex_lock(&ring->mutex);
    bool may = ring->last_lookup_ns == 0 || now - ring->last_lookup_ns >= LOOKUP_INTERVAL_NS;
    if (may) {
        ring->last_lookup_ns = now;
    }
    pthread_mutex_unlock(&ring->mutex);
    return may;
}

/* A key_id as a client sent it, made fit for a message. */
static void key_id_text(struct kms_span key_id, char ret_text[KMS_KEY_ID_MAX])
{
    size_t n = key_id.len < KMS_KEY_ID_MAX - 1 ? key_id.len : KMS_KEY_ID_MAX - 1;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = key_id.data[i];
        ret_text[i] = c > 0x20 && c < 0x7f ? (char)c : '?';
    }
    ret_text[n] = '\0';
}

enum kms_status kms_keyring_decrypt(struct kms_keyring *ring, struct kms_call *call,
                                    struct kms_span key_id, struct kms_span envelope,
                                    struct kms_buf *ret_plaintext)
{
    struct kms_envelope env;
    enum kms_status status = kms_envelope_parse(envelope, &env, &call->error);
    if (status != KMS_OK) {
        return status;
    }
    struct snapshot *snap = snapshot_get(ring);
    const struct kms_ring_key *key = snapshot_find(snap, key_id);
    if (key == NULL && may_look_up(ring)) {
        snapshot_put(ring, snap);
        if (kms_keyring_refresh(ring, call) != KMS_OK) {
            kms_error_clear(&call->error); /* the verdict below is the one that counts */
        }
        snap = snapshot_get(ring);
        key = snapshot_find(snap, key_id);
    }
    if (snap == NULL) {
        return no_key(call);
    }
    if (key == NULL) {
        char text[KMS_KEY_ID_MAX];
        key_id_text(key_id, text);
        status = kms_error_set(&call->error, KMS_E_NOT_FOUND, "no key with key_id %s", text);
    } else {
        status = kms_ring_key_unseal(ring->waist, call, key, &env, ret_plaintext);
    }
    snapshot_put(ring, snap);
    return status;
}

enum kms_status kms_keyring_probe(struct kms_keyring *ring, struct kms_call *call)
{
    struct active active = {.op = PROBE};
    return with_active(ring, call, &active);
}
