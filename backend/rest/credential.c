/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/credential.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"
#include "common/secure.h"

#define FAILURE_KEPT_NS  KMS_NS_PER_S          /* how long a failure answers for the source */
#define TROUBLE_KEPT_NS  (100 * KMS_NS_PER_MS) /* when it may pass by itself */
#define REFUSED_YOUNG_NS KMS_NS_PER_S          /* a younger value is not worth replacing */
#define REFRESH_AGAIN_NS                                                                           \
    (5 * KMS_NS_PER_S) /* after a refresh that failed while the old one is good */
#define REFRESH_MAX_NS (5 * KMS_NS_PER_S) /* a refresh takes no more of its caller's time */
#define CANCEL_NAP_NS  (20 * KMS_NS_PER_MS)

/* A value and its count; the parts' text lies behind it. */
struct held {
    struct kms_credential_value value; /* first: a value is this */
    unsigned holders;
    char text[];
};

struct kms_credential_slot {
    const struct kms_credential *credential;
    struct held *held;
};

struct kms_credential {
    struct kms_credential_source source;
    pthread_mutex_t lock;   /* guards what follows, and the counts of values */
    pthread_cond_t settled; /* a fetch has ended */
    struct held *current;
    uint64_t count;
    bool is_fetching;
    bool is_refused; /* the current one is not to be used any more */
    uint64_t failed_ns;
    uint64_t late_ns; /* when a refresh ran out of the time that it was given; 0: none did */
    struct kms_error failure;
};

/* ---- values ------------------------------------------------------------------------------- */

static struct held *held_of(const struct kms_credential_value *value)
{
    return (struct held *)(uintptr_t)value;
}

static size_t text_size(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

/* When to look for the next one: ahead of the end, not all of a fleet at once. */
static uint64_t refresh_at(const struct kms_credential_offer *offer)
{
    uint64_t life = offer->lifetime_ns;

    if (offer->refresh_ns != 0) {
        return kms_deadline_in(offer->refresh_ns);
    }
    return life == KMS_DEADLINE_NONE
               ? KMS_DEADLINE_NONE
               : kms_deadline_in(kms_jitter(life / 4 * 3 - life / 16, life / 4 * 3 + life / 16));
}

enum kms_status kms_credential_put(struct kms_credential_slot *slot,
                                   const struct kms_credential_offer *offer, struct kms_error *err)
{
    const char *name = slot->credential->source.name;
    size_t size = sizeof(struct held);
    struct held *held = NULL;
    char *at = NULL;

    for (size_t i = 0; i < KMS_CREDENTIAL_PARTS; i++) {
        if (text_size(offer->part[i]) > KMS_CREDENTIAL_PART_MAX + 1) {
            return kms_error_set(err, KMS_E_TOO_LARGE, "%s: a part is longer than %d bytes", name,
                                 KMS_CREDENTIAL_PART_MAX);
        }
        size += text_size(offer->part[i]);
    }
    held = kms_secure_new(size);
    if (held == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "%s: no secure memory", name);
    }
    at = held->text;
    for (size_t i = 0; i < KMS_CREDENTIAL_PARTS; i++) {
        if (offer->part[i] != NULL) {
            memcpy(at, offer->part[i], text_size(offer->part[i]));
            held->value.part[i] = at;
            at += text_size(offer->part[i]);
        }
    }
    held->value.taken_ns = kms_now_ns();
    held->value.expires_ns = kms_deadline_in(offer->lifetime_ns);
    held->value.refresh_ns = refresh_at(offer);
    held->value.flags = offer->flags;
    held->holders = 1;
    kms_secure_free(slot->held);
    slot->held = held;
    return KMS_OK;
}

static void give_locked(struct held *held)
{
    if (held != NULL && --held->holders == 0) {
        kms_secure_free(held);
    }
}

/* ---- the cache ---------------------------------------------------------------------------- */

struct kms_credential *kms_credential_new(const struct kms_credential_source *source)
{
    struct kms_credential *credential = calloc(1, sizeof(*credential));

    if (credential != NULL) {
        credential->source = *source;
        (void)pthread_mutex_init(&credential->lock, NULL);
        kms_cond_init(&credential->settled);
    }
    return credential;
}

void kms_credential_free(struct kms_credential *credential)
{
    if (credential != NULL) {
        give_locked(credential->current);
        (void)pthread_cond_destroy(&credential->settled);
        (void)pthread_mutex_destroy(&credential->lock);
        free(credential);
    }
}

void kms_credential_give(struct kms_credential *credential,
                         const struct kms_credential_value *value)
{
    if (value != NULL) {
        pthread_mutex_lock(&credential->lock);
        give_locked(held_of(value));
        pthread_mutex_unlock(&credential->lock);
    }
}

static bool is_good_locked(const struct kms_credential *credential)
{
    return credential->current != NULL && !credential->is_refused &&
           !kms_deadline_passed(credential->current->value.expires_ns);
}

static bool is_due_locked(const struct kms_credential *credential)
{
    uint64_t now = kms_now_ns();

    return kms_deadline_passed(credential->current->value.refresh_ns) &&
           (credential->failed_ns == 0 || now - credential->failed_ns > REFRESH_AGAIN_NS) &&
           (credential->late_ns == 0 || now - credential->late_ns > REFRESH_AGAIN_NS);
}

static bool has_just_failed_locked(const struct kms_credential *credential)
{
    uint64_t kept =
        kms_status_is_transient(credential->failure.status) ? TROUBLE_KEPT_NS : FAILURE_KEPT_NS;

    return credential->failed_ns != 0 && kms_now_ns() - credential->failed_ns < kept;
}

/*
 * A missing file, an unknown role: to our callers it is always the credential that fails. Told as
 * it is, "not found" would be taken for the key.
 */
static enum kms_status class_of(enum kms_status status)
{
    switch (status) {
    case KMS_E_INVALID:
    case KMS_E_NOT_FOUND:
    case KMS_E_DENIED:
    case KMS_E_TOO_LARGE:
    case KMS_E_EXISTS:
    case KMS_E_UNSUPPORTED:
    case KMS_E_KEY_STATE:
    case KMS_E_BAD_DATA:
        return KMS_E_AUTH;
    default:
        return status;
    }
}

static bool names(const char *text, const char *source)
{
    size_t len = strlen(source);

    return strncmp(text, source, len) == 0 && strncmp(text + len, ": ", 2) == 0;
}

/*
 * Each error of a source begins with the source's name: which one failed is what is asked first.
 * Not twice: one that is a choice of several says itself which it was.
 */
static enum kms_status tell(const struct kms_credential *credential,
                            const struct kms_error *failure, struct kms_error *err)
{
    const char *name = credential->source.name;
    bool is_named = names(failure->text, name);
    enum kms_status status =
        kms_error_set_code(err, class_of(failure->status), failure->code, "%s%s%s",
                           is_named ? "" : name, is_named ? "" : ": ", failure->text);

    if (err != NULL) {
        (void)snprintf(err->request_id, sizeof(err->request_id), "%s", failure->request_id);
        err->retry_after_ns = failure->retry_after_ns;
    }
    return status;
}

/* The caller's own deadline says nothing of the source, be it that no connection was free until
 * then. */
static bool is_late(enum kms_status status)
{
    return status == KMS_E_TIMEOUT || status == KMS_E_BUSY;
}

static bool is_of_source(enum kms_status status)
{
    return status != KMS_E_CANCELLED && !is_late(status);
}

static void settle_locked(struct kms_credential *credential, enum kms_status status,
                          const struct kms_error *failure, struct held *fresh)
{
    credential->is_fetching = false;
    if (status == KMS_OK) {
        fresh->value.number = ++credential->count;
        give_locked(credential->current);
        credential->current = fresh;
        credential->is_refused = false;
        credential->failed_ns = credential->late_ns = 0;
        kms_error_clear(&credential->failure);
    } else if (is_of_source(status)) {
        credential->failed_ns = kms_now_ns();
        credential->failure = *failure;
    }
    (void)pthread_cond_broadcast(&credential->settled);
}

/* Leaves the lock for the time of the fetch. */
static enum kms_status fetch_locked(struct kms_credential *credential,
                                    const struct kms_http_wait *wait, struct kms_error *failure)
{
    struct kms_credential_slot slot = {.credential = credential};
    struct held *old = credential->is_refused ? NULL : credential->current;
    enum kms_status status = KMS_OK;

    credential->is_fetching = true;
    if (old != NULL) {
        old->holders++;
    }
    pthread_mutex_unlock(&credential->lock);
    status = credential->source.fetch(credential->source.ctx, wait,
                                      old == NULL ? NULL : &old->value, &slot, failure);
    if (status == KMS_OK && slot.held == NULL) {
        status = kms_error_set(failure, KMS_E_INTERNAL, "gave no credential");
    }
    pthread_mutex_lock(&credential->lock);
    give_locked(old);
    if (status != KMS_OK) {
        kms_secure_free(slot.held);
        slot.held = NULL;
        (void)kms_error_set(failure, status, "failed");
    }
    settle_locked(credential, status, failure, slot.held);
    return status;
}

/*
 * Ahead of the end; the old one is good whatever comes. So a source that hangs gets half of the
 * caller's time, who needs the rest to use the old one, and does not get it from every caller.
 */
static void refresh_locked(struct kms_credential *credential, const struct kms_http_wait *wait)
{
    struct kms_error failure = KMS_ERROR_INIT;
    uint64_t half = kms_deadline_left(wait->deadline_ns) / 2;
    struct kms_http_wait sooner = *wait;
    enum kms_status status = KMS_OK;

    sooner.deadline_ns = kms_deadline_in(half < REFRESH_MAX_NS ? half : REFRESH_MAX_NS);
    status = fetch_locked(credential, &sooner, &failure);
    if (is_late(status)) {
        credential->late_ns = kms_now_ns();
    }
    if (status != KMS_OK) {
        kms_log_error(KMS_LOG_WARN, &failure, "credential %s is not refreshed yet",
                      credential->source.name);
    }
}

static bool gave_up(const struct kms_http_wait *wait)
{
    return wait->cancelled != NULL && atomic_load(wait->cancelled);
}

static enum kms_status await_locked(struct kms_credential *credential,
                                    const struct kms_http_wait *wait, struct kms_error *err)
{
    uint64_t nap = wait->cancelled == NULL ? KMS_DEADLINE_NONE : kms_deadline_in(CANCEL_NAP_NS);

    if (gave_up(wait)) {
        return kms_error_set(err, KMS_E_CANCELLED, "the caller gave up");
    }
    if (kms_deadline_passed(wait->deadline_ns)) {
        return kms_error_set(err, KMS_E_TIMEOUT, "%s: no credential in time",
                             credential->source.name);
    }
    (void)kms_cond_wait(&credential->settled, &credential->lock,
                        nap < wait->deadline_ns ? nap : wait->deadline_ns);
    return KMS_OK;
}

/* One step towards a good value. */
static enum kms_status step_locked(struct kms_credential *credential,
                                   const struct kms_http_wait *wait, struct kms_error *err)
{
    struct kms_error failure = KMS_ERROR_INIT;

    if (credential->is_fetching) {
        return await_locked(credential, wait, err);
    }
    if (has_just_failed_locked(credential)) {
        return tell(credential, &credential->failure, err);
    }
    return fetch_locked(credential, wait, &failure) == KMS_OK ? KMS_OK
                                                              : tell(credential, &failure, err);
}

enum kms_status kms_credential_get(struct kms_credential *credential,
                                   const struct kms_http_wait *wait,
                                   const struct kms_credential_value **ret_value,
                                   struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&credential->lock);
    if (is_good_locked(credential) && is_due_locked(credential) && !credential->is_fetching) {
        refresh_locked(credential, wait);
    }
    while (status == KMS_OK && !is_good_locked(credential)) { /* its end may have come meanwhile */
        status = step_locked(credential, wait, err);
    }
    if (status == KMS_OK) {
        credential->current->holders++;
        *ret_value = &credential->current->value;
    }
    pthread_mutex_unlock(&credential->lock);
    return status;
}

bool kms_credential_refused(struct kms_credential *credential,
                            const struct kms_credential_value *value)
{
    bool worth_it = true;

    pthread_mutex_lock(&credential->lock);
    if (credential->current == held_of(value) && !credential->is_refused) {
        worth_it = kms_now_ns() - value->taken_ns >= REFUSED_YOUNG_NS;
        credential->is_refused = worth_it;
        credential->failed_ns = worth_it ? 0 : credential->failed_ns;
    }
    pthread_mutex_unlock(&credential->lock);
    return worth_it;
}

void kms_credential_trouble(struct kms_credential *credential, struct kms_error *ret_error)
{
    kms_error_clear(ret_error);
    pthread_mutex_lock(&credential->lock);
    if (credential->failed_ns != 0) {
        (void)tell(credential, &credential->failure, ret_error);
    }
    pthread_mutex_unlock(&credential->lock);
}
