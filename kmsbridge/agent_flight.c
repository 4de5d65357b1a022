/* SPDX-License-Identifier: Apache-2.0 */
/* When the keys of a token are asked for: by one flight at a time, whose list all who wait take. */

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/agent_tokens_parts.h"

#define AGAIN_NS  KMS_NS_PER_S        /* between two searches that found nothing new */
#define FLIGHT_NS (60 * KMS_NS_PER_S) /* for a list of many keys from a slow service */

/* For how long @keys are believed: longer with each one in a row that lacks something, since to ask
 * is what a service may be too busy for. */
static uint64_t ttl_locked(struct kms_agentd_token *token, const struct kms_agentd_keys *keys)
{
    const uint64_t ttl = token->conf->keys_ttl_ns;
    uint64_t soon = token->lacking_ns == 0 ? AGAIN_NS : 2 * token->lacking_ns;

    soon = soon < ttl ? soon : ttl;
    token->lacking_ns = keys->lacks ? soon : 0;
    return keys->lacks ? soon : ttl;
}

/* Programs are told an error each; the log when it begins, when it becomes another, when it ends.
 */
static void tell(const struct kms_agentd_token *token, enum kms_status was,
                 const struct kms_error *now)
{
    const char *name = kms_agentd_token_name(token);

    if (now->status == KMS_OK && was != KMS_OK) {
        kms_log(KMS_LOG_INFO, "agent: token %s: its keys can be listed again", name);
    } else if (now->status != KMS_OK) {
        kms_log_error(now->status == was || now->status == KMS_E_CANCELLED ? KMS_LOG_DEBUG
                                                                           : KMS_LOG_WARN,
                      now, "agent: token %s: no list of its keys", name);
    }
}

/* token->flying is set by who calls this, for this flight. */
static enum kms_status refresh(struct kms_agentd_token *token, struct kms_call *call)
{
    const uint64_t began_ns = kms_now_ns();
    const struct kms_error well = KMS_ERROR_INIT;
    enum kms_status was_status = KMS_OK;
    struct kms_agentd_keys *was = NULL;
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    uint64_t touched = 0;

    status = kms_agentd_fly(token, call, NULL, &touched, &keys);
    pthread_mutex_lock(&token->mutex);
    token->flying = false;
    token->flights++;
    was_status = token->error.status;
    token->error = status == KMS_OK ? well : call->error;
    token->again_ns = kms_deadline_in(AGAIN_NS);
    if (status == KMS_OK) {
        was = token->keys;
        token->keys = keys;
        kms_agentd_spots_drop_locked(token, began_ns);
        token->fresh_until_ns =
            touched == token->touched ? kms_deadline_in(ttl_locked(token, keys)) : 0;
    }
    pthread_cond_broadcast(&token->landed);
    pthread_mutex_unlock(&token->mutex);
    tell(token, was_status, status == KMS_OK ? &well : &call->error);
    kms_agentd_keys_put(was);
    return status;
}

/* A list may take longer than the call that it is for: it has a thread of its own. */
static void *flight_main(void *arg)
{
    struct kms_agentd_token *token = arg;
    struct kms_agentd_backends *backends = token->backends;
    struct kms_call call = {.deadline_ns = kms_deadline_in(FLIGHT_NS),
                            .cancelled = &backends->landing,
                            .trace_id = "agent"};

    if (refresh(token, &call) != KMS_OK) {
        kms_error_clear(&call.error); /* it is in token->error */
    }
    kms_agentd_token_put(token);
    kms_crew_leave(&backends->lists);
    return NULL;
}

/* token->flying was set for it. Without a thread, @call's own asks. */
static void take_off(struct kms_agentd_token *token, struct kms_call *call)
{
    if (kms_crew_start(&token->backends->lists, flight_main, kms_agentd_token_hold(token))) {
        return;
    }
    kms_agentd_token_put(token);
    if (refresh(token, call) != KMS_OK) {
        kms_error_clear(&call->error); /* it is in token->error */
    }
}

static bool is_fresh_locked(const struct kms_agentd_token *token)
{
    return token->keys != NULL && !kms_deadline_passed(token->fresh_until_ns);
}

static enum kms_status say_late(struct kms_agentd_token *token, struct kms_error *err)
{
    if (kms_agentd_token_why(token, err) != KMS_OK) {
        return err->status;
    }
    return kms_error_set(err, KMS_E_TIMEOUT, "token %s: the list of its keys is late",
                         token->conf->backend);
}

/*
 * Until there is a list that was asked for after we came. One that was on its way already is as
 * good, unless somebody has changed the keys since (then it does not count as fresh).
 */
static enum kms_status await(struct kms_agentd_token *token, struct kms_call *call)
{
    bool ours = false;
    bool waits = true;
    bool there = false;
    uint64_t flights = 0;

    pthread_mutex_lock(&token->mutex);
    flights = token->flights;
    while (waits) {
        bool landed = token->flights != flights;

        there = is_fresh_locked(token) || (ours && landed && token->error.status == KMS_OK);
        if (there || (landed && token->error.status != KMS_OK)) {
            break;
        }
        if (token->flying) {
            waits = kms_agentd_token_wait_locked(token, call->deadline_ns);
            continue;
        }
        ours = true;
        flights = token->flights;
        token->flying = true;
        pthread_mutex_unlock(&token->mutex);
        take_off(token, call);
        pthread_mutex_lock(&token->mutex);
    }
    if (!there && waits) {
        call->error = token->error;
    }
    pthread_mutex_unlock(&token->mutex);
    if (there) {
        return KMS_OK;
    }
    return waits ? call->error.status : say_late(token, &call->error);
}

enum kms_status kms_agentd_token_keys(struct kms_agentd_token *token, struct kms_call *call,
                                      struct kms_agentd_keys **ret_keys)
{
    enum kms_status status = KMS_OK;

    kms_error_clear(&call->error);
    status = await(token, call);
    if (status == KMS_OK) {
        pthread_mutex_lock(&token->mutex);
        *ret_keys = kms_agentd_keys_hold(token->keys);
        pthread_mutex_unlock(&token->mutex);
    }
    return status;
}

static struct kms_agentd_key *find(struct kms_agentd_token *token, const char *ref, bool *ret_look)
{
    struct kms_agentd_key *key = NULL;

    pthread_mutex_lock(&token->mutex);
    key = kms_agentd_spot_find_locked(token, ref); /* newer than the list */
    if (key == NULL) {
        key = kms_agentd_keys_find(token->keys, ref);
        key = key == NULL ? NULL : kms_agentd_key_hold(key);
    }
    if (key == NULL && ret_look != NULL) {
        *ret_look = token->keys == NULL || token->flying || kms_deadline_passed(token->again_ns);
        token->fresh_until_ns = *ret_look && !token->flying ? 0 : token->fresh_until_ns;
    }
    pthread_mutex_unlock(&token->mutex);
    return key;
}

enum kms_status kms_agentd_token_key(struct kms_agentd_token *token, struct kms_call *call,
                                     const char *ref, struct kms_agentd_key **ret_key)
{
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    bool look = false;
    struct kms_agentd_key *key = find(token, ref, &look);

    if (key == NULL && look) {
        status = kms_agentd_token_keys(token, call, &keys);
        kms_agentd_keys_put(keys);
        key = status == KMS_OK ? find(token, ref, NULL) : NULL;
    }
    if (key == NULL) {
        return status != KMS_OK ? status
                                : kms_error_set(&call->error, KMS_E_NOT_FOUND,
                                                "token %s has no such key", token->conf->backend);
    }
    *ret_key = key;
    return KMS_OK;
}

void kms_agentd_token_touch(struct kms_agentd_token *token)
{
    pthread_mutex_lock(&token->mutex);
    token->touched++;
    token->fresh_until_ns = 0;
    token->again_ns = 0;
    kms_agentd_spots_drop_locked(token, UINT64_MAX);
    pthread_mutex_unlock(&token->mutex);
}

void kms_agentd_token_tend(struct kms_agentd_token *token)
{
    bool flies = false;

    pthread_mutex_lock(&token->mutex);
    flies = !token->flying && kms_deadline_passed(token->fresh_until_ns) &&
            kms_deadline_passed(token->again_ns);
    token->flying = token->flying || flies;
    pthread_mutex_unlock(&token->mutex);
    if (flies &&
        !kms_crew_start(&token->backends->lists, flight_main, kms_agentd_token_hold(token))) {
        kms_agentd_token_put(token);
        pthread_mutex_lock(&token->mutex);
        token->flying = false;
        token->again_ns = kms_deadline_in(AGAIN_NS);
        pthread_cond_broadcast(&token->landed);
        pthread_mutex_unlock(&token->mutex);
    }
}
