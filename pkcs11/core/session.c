/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/session.h"

#include <stdlib.h>
#include <sys/random.h>

#include "common/clock.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/store.h"

#define SHARDS       32u
#define BUCKETS_MIN  16u
#define HANDLES_MASK 0x3fffffffu /* where handles may begin: some hosts keep them in 32 bits */

struct shard {
    pthread_mutex_t mutex; /* guards the chains and the counts; held for a look-up only */
    struct kms_session **bucket;
    size_t buckets;
    size_t count;
};

struct kms_sessions {
    atomic_ulong next;
    atomic_ulong count;
    struct shard shard[SHARDS];
};

/* ---- one session ----------------------------------------------------------------------------- */

static void session_free(struct kms_session *session)
{
    (void)kms_op_cancel(session, ~(CK_FLAGS)0);
    free(session->found);
    free(session);
}

void kms_session_unref(struct kms_session *session)
{
    if (session != NULL && atomic_fetch_sub(&session->refs, 1) == 1) {
        session_free(session);
    }
}

CK_RV kms_session_info(struct kms_session *session, CK_SESSION_INFO *ret_info)
{
    struct kms_slot *slot = session->slot;
    bool logged_in = false;

    (void)pthread_mutex_lock(&slot->mutex);
    logged_in = slot->logged_in;
    (void)pthread_mutex_unlock(&slot->mutex);
    *ret_info = (CK_SESSION_INFO){
        .slotID = slot->id,
        .flags = CKF_SERIAL_SESSION | (session->rw ? CKF_RW_SESSION : 0),
    };
    if (session->rw) {
        ret_info->state = logged_in ? CKS_RW_USER_FUNCTIONS : CKS_RW_PUBLIC_SESSION;
    } else {
        ret_info->state = logged_in ? CKS_RO_USER_FUNCTIONS : CKS_RO_PUBLIC_SESSION;
    }
    return CKR_OK;
}

CK_RV kms_session_find(struct kms_session *session, const CK_ATTRIBUTE *tmpl, CK_ULONG count)
{
    struct kms_attrs *wanted = NULL;
    CK_RV rv = CKR_OK;

    if (session->finding) {
        return CKR_OPERATION_ACTIVE;
    }
    rv = kms_attrs_from_template(tmpl, count, &wanted);
    if (rv == CKR_OK) {
        rv = kms_store_find(session->slot, wanted, &session->found, &session->found_count);
    }
    kms_attrs_free(wanted);
    if (rv == CKR_OK) {
        session->found_at = 0;
        session->finding = true;
    }
    return rv;
}

CK_RV kms_session_find_next(struct kms_session *session, CK_OBJECT_HANDLE *ret_handles,
                            CK_ULONG max, CK_ULONG *ret_count)
{
    CK_ULONG count = 0;

    if (!session->finding) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    while (count < max && session->found_at < session->found_count) {
        ret_handles[count++] = session->found[session->found_at++];
    }
    *ret_count = count;
    return CKR_OK;
}

CK_RV kms_session_find_end(struct kms_session *session)
{
    if (!session->finding) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    free(session->found);
    session->found = NULL;
    session->found_count = 0;
    session->finding = false;
    return CKR_OK;
}

CK_RV kms_session_cancel(struct kms_session *session, CK_FLAGS flags)
{
    if ((flags & CKF_FIND_OBJECTS) != 0 && session->finding) {
        (void)kms_session_find_end(session);
    }
    return kms_op_cancel(session, flags & ~(CK_FLAGS)CKF_FIND_OBJECTS);
}

CK_RV kms_session_state(const struct kms_session *session)
{
    bool active = session->finding;

    for (size_t i = 0; i < KMS_OPK_COUNT; i++) {
        active = active || session->op[i] != NULL;
    }
    return active ? CKR_STATE_UNSAVEABLE : CKR_OPERATION_NOT_INITIALIZED;
}

static CK_FLAGS flag_of(enum kms_op_kind kind)
{
    switch (kind) {
    case KMS_OPK_ENCRYPT:
        return CKF_ENCRYPT;
    case KMS_OPK_DECRYPT:
        return CKF_DECRYPT;
    case KMS_OPK_SIGN:
        return CKF_SIGN;
    case KMS_OPK_VERIFY:
        return CKF_VERIFY;
    default:
        return CKF_DIGEST;
    }
}

CK_RV kms_session_dual(struct kms_session *session, enum kms_op_kind crypt, enum kms_op_kind other,
                       CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len)
{
    CK_RV rv = CKR_OK;

    if (session->op[crypt] == NULL || session->op[other] == NULL) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    rv = kms_op_update(session, crypt, in, in_len, out, out_len);
    if (rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && out == NULL)) {
        return rv; /* the host comes again with the same bytes */
    }
    if (rv == CKR_OK) {
        const bool encrypts = crypt == KMS_OPK_ENCRYPT;

        rv = kms_op_update(session, other, encrypts ? in : out, encrypts ? in_len : *out_len, NULL,
                           NULL);
    }
    if (rv != CKR_OK) {
        /* the two have seen different bytes: neither result would be true */
        (void)kms_op_cancel(session, flag_of(crypt) | flag_of(other));
    }
    return rv;
}

/* ---- the table ------------------------------------------------------------------------------- */

static struct shard *shard_of(struct kms_sessions *sessions, CK_SESSION_HANDLE handle)
{
    return &sessions->shard[handle % SHARDS];
}

static struct kms_session **place_locked(struct shard *shard, CK_SESSION_HANDLE handle)
{
    struct kms_session **at = &shard->bucket[handle / SHARDS % shard->buckets];

    while (*at != NULL && (*at)->handle != handle) {
        at = &(*at)->next;
    }
    return at;
}

/* More buckets when chains grow long; as it was when there is no memory. */
static void grow_locked(struct shard *shard)
{
    const size_t buckets = shard->buckets * 2;
    struct kms_session **bucket = NULL;

    if (shard->count < shard->buckets) {
        return;
    }
    bucket = calloc(buckets, sizeof(struct kms_session *));
    if (bucket == NULL) {
        return;
    }
    for (size_t i = 0; i < shard->buckets; i++) {
        for (struct kms_session *s = shard->bucket[i], *next = NULL; s != NULL; s = next) {
            struct kms_session **at = &bucket[s->handle / SHARDS % buckets];

            next = s->next;
            s->next = *at;
            *at = s;
        }
    }
    free(shard->bucket);
    shard->bucket = bucket;
    shard->buckets = buckets;
}

static CK_ULONG first_handle(void)
{
    CK_ULONG start = 0;

    if (getrandom(&start, sizeof(start), GRND_NONBLOCK) != (ssize_t)sizeof(start)) {
        start = (CK_ULONG)kms_now_ns();
    }
    return (start & HANDLES_MASK) + 1;
}

struct kms_sessions *kms_sessions_new(void)
{
    struct kms_sessions *sessions = calloc(1, sizeof(*sessions));

    if (sessions == NULL) {
        return NULL;
    }
    atomic_init(&sessions->next, first_handle());
    for (size_t i = 0; i < SHARDS; i++) {
        (void)pthread_mutex_init(&sessions->shard[i].mutex, NULL);
        sessions->shard[i].buckets = BUCKETS_MIN;
        sessions->shard[i].bucket = calloc(BUCKETS_MIN, sizeof(struct kms_session *));
        if (sessions->shard[i].bucket == NULL) {
            kms_sessions_free(sessions);
            return NULL;
        }
    }
    return sessions;
}

/* It is out of the table already: what it owned goes, and then the table's reference. */
static void end_session(struct kms_sessions *sessions, struct kms_session *session)
{
    atomic_store(&session->dead, true);
    kms_store_drop_session(session->slot, session->handle);
    kms_slot_count(session->slot, session->rw, false);
    atomic_fetch_sub(&sessions->count, 1);
    kms_session_unref(session);
}

/* Takes all sessions of @slot, or all, out of a shard; a list over ->next. */
static struct kms_session *take_all_locked(struct shard *shard, const struct kms_slot *slot)
{
    struct kms_session *list = NULL;

    for (size_t i = 0; shard->bucket != NULL && i < shard->buckets; i++) {
        struct kms_session **at = &shard->bucket[i];

        while (*at != NULL) {
            struct kms_session *session = *at;

            if (slot != NULL && session->slot->id != slot->id) {
                at = &session->next;
                continue;
            }
            *at = session->next;
            session->next = list;
            list = session;
            shard->count--;
        }
    }
    return list;
}

void kms_sessions_close_all(struct kms_sessions *sessions, const struct kms_slot *slot)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &sessions->shard[i];
        struct kms_session *list = NULL;

        (void)pthread_mutex_lock(&shard->mutex);
        list = take_all_locked(shard, slot);
        (void)pthread_mutex_unlock(&shard->mutex);
        for (struct kms_session *next = NULL; list != NULL; list = next) {
            next = list->next;
            end_session(sessions, list);
        }
    }
}

void kms_sessions_free(struct kms_sessions *sessions)
{
    if (sessions == NULL) {
        return;
    }
    kms_sessions_close_all(sessions, NULL);
    for (size_t i = 0; i < SHARDS; i++) {
        free(sessions->shard[i].bucket);
        (void)pthread_mutex_destroy(&sessions->shard[i].mutex);
    }
    free(sessions);
}

static void insert(struct kms_sessions *sessions, struct kms_session *session)
{
    struct shard *shard = shard_of(sessions, session->handle);
    struct kms_session **at = NULL;

    (void)pthread_mutex_lock(&shard->mutex);
    grow_locked(shard);
    at = place_locked(shard, session->handle);
    session->next = *at;
    *at = session;
    shard->count++;
    (void)pthread_mutex_unlock(&shard->mutex);
}

CK_RV kms_sessions_open(struct kms_sessions *sessions, struct kms_slot *slot, CK_FLAGS flags,
                        CK_SESSION_HANDLE *ret_handle)
{
    struct kms_session *session = NULL;
    CK_SESSION_HANDLE handle = 0;

    if ((flags & CKF_SERIAL_SESSION) == 0) {
        return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    }
    if (!kms_slot_is_present(slot)) {
        return CKR_TOKEN_NOT_PRESENT;
    }
    if (atomic_fetch_add(&sessions->count, 1) >= KMS_SESSIONS_MAX) {
        atomic_fetch_sub(&sessions->count, 1);
        return CKR_SESSION_COUNT;
    }
    session = calloc(1, sizeof(*session));
    if (session == NULL) {
        atomic_fetch_sub(&sessions->count, 1);
        return CKR_HOST_MEMORY;
    }
    handle = atomic_fetch_add(&sessions->next, 1);
    atomic_init(&session->refs, 1);
    session->handle = handle;
    session->slot = slot;
    session->rw = (flags & CKF_RW_SESSION) != 0;
    kms_slot_count(slot, session->rw, true);
    insert(sessions, session);
    *ret_handle = handle;
    return CKR_OK;
}

CK_RV kms_sessions_get(struct kms_sessions *sessions, CK_SESSION_HANDLE handle,
                       struct kms_session **ret_session)
{
    struct shard *shard = shard_of(sessions, handle);
    struct kms_session *session = NULL;

    (void)pthread_mutex_lock(&shard->mutex);
    session = *place_locked(shard, handle);
    if (session != NULL) {
        atomic_fetch_add(&session->refs, 1);
    }
    (void)pthread_mutex_unlock(&shard->mutex);
    if (session == NULL) {
        return CKR_SESSION_HANDLE_INVALID;
    }
    *ret_session = session;
    return CKR_OK;
}

CK_RV kms_sessions_close(struct kms_sessions *sessions, CK_SESSION_HANDLE handle)
{
    struct shard *shard = shard_of(sessions, handle);
    struct kms_session **at = NULL;
    struct kms_session *session = NULL;

    (void)pthread_mutex_lock(&shard->mutex);
    at = place_locked(shard, handle);
    session = *at;
    if (session != NULL) {
        *at = session->next;
        shard->count--;
    }
    (void)pthread_mutex_unlock(&shard->mutex);
    if (session == NULL) {
        return CKR_SESSION_HANDLE_INVALID;
    }
    end_session(sessions, session);
    return CKR_OK;
}
