/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and keys, as one peer sees them. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "kmsbridge/agent_work.h"

#define LIST_ROOM (KMS_AGENT_FRAME_MAX + KMS_AGENT_HEADER)
#define LIST_MORE 4096u /* of a page beside its keys */

static enum kms_status pack_list(struct kms_agentd_work *work)
{
    struct kms_buf frame;
    enum kms_status status;

    work->page = malloc(LIST_ROOM);
    if (work->page == NULL) {
        return kms_error_set(&work->call.error, KMS_E_NOMEM, "agent: no memory for a list");
    }
    frame = kms_buf_over(work->page, LIST_ROOM);
    work->reply.id = work->request->id;
    status = kms_agent_pack(&work->reply.base, &frame, &work->call.error);
    work->frame = kms_buf_span(&frame);
    return status;
}

/* A token as this peer sees it. */
struct seen_token {
    struct kms_agentd_token_state state;
    Kms__Agent__Token message;
    Kms__Agent__AlgSet algs;
};

static void see_token(struct kms_agentd_token *token, unsigned rights, uint64_t deadline_ns,
                      struct seen_token *seen)
{
    const struct kms_agentd_token_conf *conf = kms_agentd_token_conf(token);
    struct kms_token_info *info = &seen->state.info;

    kms_agentd_token_describe(token, deadline_ns, &seen->state);
    if ((rights & KMS_RIGHT_GENERATE) == 0) {
        info->generates = 0;
    }
    info->random = info->random && (rights & KMS_RIGHT_RANDOM) != 0;
    kms_agent_put_token(conf->backend, info, &seen->message, &seen->algs);
    seen->message.login = (uint32_t)conf->login;
    seen->message.present = seen->state.present;
    seen->message.keys_ttl_ms = (uint32_t)(conf->keys_ttl_ns / KMS_NS_PER_MS);
}

enum kms_status kms_agentd_list_tokens(struct kms_agentd_work *work)
{
    const struct kms_agentd_tokens *tokens = &work->state->tokens;
    struct seen_token *seen = calloc(tokens->count + 1, sizeof(*seen));
    Kms__Agent__Token **list = calloc(tokens->count + 1, sizeof(Kms__Agent__Token *));
    enum kms_status status = KMS_OK;

    if (seen == NULL || list == NULL) {
        status = kms_error_set(&work->call.error, KMS_E_NOMEM, "agent: no memory for a list");
        goto out;
    }
    work->reply.tokens = list;
    for (size_t i = 0; i < tokens->count; i++) {
        unsigned rights = kms_agentd_rights_on_token(work, tokens->tokens[i]);

        if (rights != 0) {
            struct seen_token *one = &seen[work->reply.n_tokens];

            see_token(tokens->tokens[i], rights, work->call.deadline_ns, one);
            list[work->reply.n_tokens++] = &one->message;
        }
    }
    status = pack_list(work);
out:
    work->reply.tokens = NULL;
    work->reply.n_tokens = 0;
    free(list);
    free(seen);
    return status;
}

/* A key as this peer sees it. */
struct seen_key {
    struct kms_key_info info;
    Kms__Agent__Key message;
    Kms__Agent__AlgSet algs;
    ProtobufCBinaryData certificates[KMS_AGENT_CERTS_MAX];
};

static void see_key(const struct kms_agentd_key *key, unsigned rights, struct seen_key *seen)
{
    const struct kms_agentd_chain *chain = key->chain;

    seen->info = key->info;
    seen->info.uses = kms_policy_uses(key->info.uses, rights);
    kms_agent_put_key(&seen->info, &seen->message, &seen->algs);
    seen->message.spki = kms_agent_put_span(key->spki);
    if (chain != NULL) {
        for (size_t i = 0; i < chain->count; i++) {
            seen->certificates[i] = kms_agent_put_span(chain->certificates[i]);
        }
        seen->message.certificates = seen->certificates;
        seen->message.n_certificates = chain->count;
    }
}

static bool is_wanted(const struct kms_agentd_key *key, const Kms__Agent__ListKeys *filter)
{
    struct kms_span tag = kms_agent_get_span(filter->tag);
    struct kms_span label = kms_agent_get_span(filter->label);

    return (tag.len == 0 || kms_span_equal(tag, kms_span_of(key->info.tag, key->info.tag_len))) &&
           (label.len == 0 || kms_span_equal(label, kms_span_str(key->info.label)));
}

/* The first key behind @after. */
static size_t first_after(const struct kms_agentd_keys *keys, const char *after)
{
    size_t low = 0;
    size_t high = keys->count;

    while (after[0] != '\0' && low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(keys->keys[middle]->info.ref, after) > 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* As many as one frame takes. */
static void fill_page(struct kms_agentd_work *work, const struct kms_agentd_keys *keys,
                      const char *after, struct seen_key *seen, Kms__Agent__Key **list)
{
    size_t room = KMS_AGENT_FRAME_MAX - LIST_MORE;

    work->reply.keys = list;
    for (size_t i = first_after(keys, after); i < keys->count; i++) {
        const struct kms_agentd_key *key = keys->keys[i];
        const struct kms_policy_key policy = kms_agentd_policy_key(&key->info);
        unsigned rights = 0;
        struct seen_key *one = &seen[work->reply.n_keys];
        size_t size = 0;

        if (!is_wanted(key, work->request->list_keys)) {
            continue;
        }
        rights = kms_agentd_rights_on(work, &policy);
        if ((rights & KMS_RIGHTS_OF_KEY) == 0) {
            continue;
        }
        if (work->reply.n_keys == KMS_AGENT_KEYS_MAX) {
            work->reply.more = 1;
            return;
        }
        see_key(key, rights, one);
        size = kms__agent__key__get_packed_size(&one->message) + 8;
        if (size > room) {
            work->reply.more = 1;
            return;
        }
        room -= size;
        list[work->reply.n_keys++] = &one->message;
    }
}

enum kms_status kms_agentd_list_keys(struct kms_agentd_work *work)
{
    char after[KMS_KEY_REF_MAX];
    struct seen_key *seen = NULL;
    Kms__Agent__Key *list[KMS_AGENT_KEYS_MAX];
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = kms_agent_get_text("ListKeys.after", work->request->list_keys->after,
                                                after, sizeof(after), &work->call.error);

    if (status == KMS_OK) {
        status = kms_agentd_token_named(work->token, &work->call,
                                        kms_agent_get_span(work->request->list_keys->tag),
                                        kms_agent_get_span(work->request->list_keys->label), &keys);
    }
    if (status != KMS_OK) {
        return status;
    }
    seen = calloc(KMS_AGENT_KEYS_MAX + 1, sizeof(*seen));
    if (seen == NULL) {
        status = kms_error_set(&work->call.error, KMS_E_NOMEM, "agent: no memory for a list");
    } else {
        fill_page(work, keys, after, seen, list);
        status = pack_list(work);
    }
    work->reply.keys = NULL;
    work->reply.n_keys = 0;
    free(seen);
    kms_agentd_keys_put(keys);
    return status;
}
