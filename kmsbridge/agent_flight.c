/* SPDX-License-Identifier: Apache-2.0 */
/* When the keys of a token are asked for: by one caller at a time, whose answer the others take. */

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/agent_tokens_parts.h"

#define AGAIN_NS KMS_NS_PER_S /* between two searches that found nothing new */

/* We are the one who asks; token->flying is set. */
static enum kms_status refresh(struct kms_agentd_token *token, struct kms_call *call)
{
    struct kms_agentd_keys *was = NULL;
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    uint64_t touched = 0;

    pthread_mutex_lock(&token->mutex);
    was = token->keys == NULL ? NULL : kms_agentd_keys_hold(token->keys);
    touched = token->touched;
    pthread_mutex_unlock(&token->mutex);
    status = kms_agentd_fly(token, call, was, &keys);
    kms_agentd_keys_put(was);
    was = NULL;

    pthread_mutex_lock(&token->mutex);
    token->flying = false;
    token->flights++;
    token->error = status == KMS_OK ? (struct kms_error)KMS_ERROR_INIT : call->error;
    token->again_ns = kms_deadline_in(AGAIN_NS);
    if (status == KMS_OK) {
        was = token->keys;
        token->keys = keys;
        token->fresh_until_ns =
            touched == token->touched ? kms_deadline_in(token->conf->keys_ttl_ns) : 0;
    }
    pthread_cond_broadcast(&token->landed);
    pthread_mutex_unlock(&token->mutex);
    kms_agentd_keys_put(was);
    return status;
}

/* KMS_OK: there is a list that is fresh; or @fly: go and ask. */
static enum kms_status await_locked(struct kms_agentd_token *token, struct kms_call *call,
                                    bool *ret_fly)
{
    uint64_t flights = token->flights;
    bool waits = true;

    while (waits && token->flying &&
           (token->keys == NULL || kms_deadline_passed(token->fresh_until_ns))) {
        waits = kms_agentd_token_wait_locked(token, call->deadline_ns);
    }
    if (token->keys != NULL && !kms_deadline_passed(token->fresh_until_ns)) {
        return KMS_OK;
    }
    if (!waits) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT, "token %s: the list of its keys is late",
                             token->conf->backend);
    }
    if (token->flights != flights && token->error.status != KMS_OK) { /* ours as well */
        call->error = token->error;
        return call->error.status;
    }
    token->flying = true;
    *ret_fly = true;
    return KMS_OK;
}

enum kms_status kms_agentd_token_keys(struct kms_agentd_token *token, struct kms_call *call,
                                      struct kms_agentd_keys **ret_keys)
{
    bool flies = false;
    enum kms_status status;

    kms_error_clear(&call->error);
    pthread_mutex_lock(&token->mutex);
    status = await_locked(token, call, &flies);
    pthread_mutex_unlock(&token->mutex);
    if (status == KMS_OK && flies) {
        status = refresh(token, call);
    }
    if (status == KMS_OK) {
        pthread_mutex_lock(&token->mutex);
        *ret_keys = kms_agentd_keys_hold(token->keys);
        pthread_mutex_unlock(&token->mutex);
    }
    return status;
}

static struct kms_agentd_key *key_hold(struct kms_agentd_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

static struct kms_agentd_key *find(struct kms_agentd_token *token, const char *ref, bool *ret_look)
{
    struct kms_agentd_key *key = NULL;

    pthread_mutex_lock(&token->mutex);
    key = kms_agentd_keys_find(token->keys, ref);
    if (key != NULL) {
        (void)key_hold(key);
    } else if (ret_look != NULL) {
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
    pthread_mutex_unlock(&token->mutex);
}

void kms_agentd_token_tend(struct kms_agentd_token *token, uint64_t timeout_ns)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(timeout_ns), .trace_id = "agent"};
    bool flies = false;

    pthread_mutex_lock(&token->mutex);
    flies = !token->flying && kms_deadline_passed(token->fresh_until_ns) &&
            kms_deadline_passed(token->again_ns);
    token->flying = token->flying || flies;
    pthread_mutex_unlock(&token->mutex);
    if (flies && refresh(token, &call) != KMS_OK) {
        kms_log_error(KMS_LOG_DEBUG, &call.error, "agent: keys of token %s", token->conf->backend);
    }
}
