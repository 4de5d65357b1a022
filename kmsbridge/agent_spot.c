/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that are looked for by themselves, while the list of all is not there or too old, and can be
 * used at once. */
#include <string.h>

#include "common/clock.h"
#include "kmsbridge/agent_tokens_parts.h"

struct kms_agentd_key *kms_agentd_spot_find_locked(struct kms_agentd_token *token, const char *ref)
{
    for (size_t i = 0; i < token->spot_count; i++) {
        if (strcmp(token->spots[i].key->info.ref, ref) == 0) {
            return kms_agentd_key_hold(token->spots[i].key);
        }
    }
    return NULL;
}

static struct kms_agentd_spot *place_locked(struct kms_agentd_token *token, const char *ref)
{
    for (size_t i = 0; i < token->spot_count; i++) {
        if (strcmp(token->spots[i].key->info.ref, ref) == 0) {
            return &token->spots[i];
        }
    }
    if (token->spot_count < KMS_AGENTD_SPOTS) {
        return &token->spots[token->spot_count++];
    }
    token->next_spot = (token->next_spot + 1) % KMS_AGENTD_SPOTS;
    return &token->spots[token->next_spot];
}

void kms_agentd_spot_add_locked(struct kms_agentd_token *token, struct kms_agentd_key *key,
                                uint64_t seen_ns)
{
    struct kms_agentd_spot *spot = place_locked(token, key->info.ref);

    kms_agentd_key_put(spot->key);
    *spot = (struct kms_agentd_spot){.key = kms_agentd_key_hold(key), .seen_ns = seen_ns};
}

void kms_agentd_spots_drop_locked(struct kms_agentd_token *token, uint64_t before_ns)
{
    size_t kept = 0;

    for (size_t i = 0; i < token->spot_count; i++) {
        if (token->spots[i].seen_ns < before_ns) {
            kms_agentd_key_put(token->spots[i].key);
        } else {
            token->spots[kept++] = token->spots[i];
        }
    }
    for (size_t i = kept; i < token->spot_count; i++) {
        token->spots[i].key = NULL;
    }
    token->spot_count = kept;
}

/* Nothing that anybody changed since we began to look is kept. */
static void keep(struct kms_agentd_token *token, const struct kms_agentd_keys *keys,
                 uint64_t touched, uint64_t began_ns)
{
    pthread_mutex_lock(&token->mutex);
    for (size_t i = 0; i < keys->count && touched == token->touched; i++) {
        kms_agentd_spot_add_locked(token, keys->keys[i], began_ns);
    }
    pthread_mutex_unlock(&token->mutex);
}

static enum kms_status look(struct kms_agentd_token *token, struct kms_call *call,
                            const struct kms_key_filter *filter, struct kms_agentd_keys **ret_keys)
{
    const uint64_t began_ns = kms_now_ns();
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    uint64_t touched = 0;

    kms_error_clear(&call->error);
    status = kms_agentd_fly(token, call, filter, &touched, &keys);
    if (status == KMS_OK) {
        keep(token, keys, touched, began_ns);
        *ret_keys = keys;
    }
    return status;
}

static bool is_fresh(struct kms_agentd_token *token)
{
    bool fresh = false;

    pthread_mutex_lock(&token->mutex);
    fresh = token->keys != NULL && !kms_deadline_passed(token->fresh_until_ns);
    pthread_mutex_unlock(&token->mutex);
    return fresh;
}

enum kms_status kms_agentd_token_named(struct kms_agentd_token *token, struct kms_call *call,
                                       struct kms_span tag, struct kms_span label,
                                       struct kms_agentd_keys **ret_keys)
{
    char text[KMS_LABEL_MAX] = "";
    const struct kms_key_filter filter = {.label = text, .tag = tag};

    /* listed by the configuration: it is short, and says which keys there are */
    if (token->conf->key_count > 0 || (tag.len == 0 && label.len == 0) ||
        tag.len > KMS_KEY_TAG_MAX || label.len >= sizeof(text) ||
        (label.len > 0 && memchr(label.data, 0, label.len) != NULL) || is_fresh(token)) {
        return kms_agentd_token_keys(token, call, ret_keys);
    }
    if (label.len > 0) {
        memcpy(text, label.data, label.len);
    }
    return look(token, call, &filter, ret_keys);
}

void kms_agentd_token_learn(struct kms_agentd_token *token, const struct kms_key_info *info,
                            struct kms_span spki)
{
    struct kms_agentd_key *key = NULL;

    /* listed by the configuration: whether it is one of those says the next list, which is short */
    if (token->conf->key_count > 0) {
        return;
    }
    key = kms_agentd_key_new(token, info, spki);
    if (key != NULL) { /* else it is there with the next list */
        pthread_mutex_lock(&token->mutex);
        kms_agentd_spot_add_locked(token, key, kms_now_ns());
        pthread_mutex_unlock(&token->mutex);
        kms_agentd_key_put(key);
    }
}
