/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/policy.h"

#include <string.h>

#include "common/codec.h"

#define ID_PREFIX "id:"

static const struct word {
    const char *word;
    unsigned rights;
} words[] = {
    {"sign", KMS_RIGHT_SIGN},           {"verify", KMS_RIGHT_VERIFY},
    {"encrypt", KMS_RIGHT_ENCRYPT},     {"decrypt", KMS_RIGHT_DECRYPT},
    {"wrap", KMS_RIGHT_WRAP},           {"unwrap", KMS_RIGHT_UNWRAP},
    {"generate", KMS_RIGHT_GENERATE},   {"destroy", KMS_RIGHT_DESTROY},
    {"set_label", KMS_RIGHT_SET_LABEL}, {"list", KMS_RIGHT_LIST},
    {"random", KMS_RIGHT_RANDOM},       {"all", KMS_RIGHT_ALL},
};

/* What an op asks of its key. */
static const unsigned needs[KMS_OP_COUNT] = {
    [KMS_OP_LIST_KEYS] = KMS_RIGHTS_OF_KEY,
    [KMS_OP_GENERATE] = KMS_RIGHT_GENERATE,
    [KMS_OP_DESTROY] = KMS_RIGHT_DESTROY,
    [KMS_OP_PUBLIC_KEY] = KMS_RIGHTS_OF_KEY,
    [KMS_OP_ENCRYPT] = KMS_RIGHT_ENCRYPT,
    [KMS_OP_DECRYPT] = KMS_RIGHT_DECRYPT,
    [KMS_OP_WRAP] = KMS_RIGHT_WRAP,
    [KMS_OP_UNWRAP] = KMS_RIGHT_UNWRAP,
    [KMS_OP_SIGN] = KMS_RIGHT_SIGN,
    [KMS_OP_VERIFY] = KMS_RIGHT_VERIFY | KMS_RIGHT_SIGN,
    [KMS_OP_MAC] = KMS_RIGHT_SIGN,
    [KMS_OP_RANDOM] = KMS_RIGHT_RANDOM,
    [KMS_OP_SET_LABEL] = KMS_RIGHT_SET_LABEL,
    [KMS_OP_DATA_KEY] = KMS_RIGHT_WRAP, /* who may wrap has a key and its wrapped form just so */
};

/* Which rights leave a key its use. */
static const struct use {
    unsigned use;
    unsigned rights;
} uses_of[] = {
    {KMS_USE_ENCRYPT, KMS_RIGHT_ENCRYPT}, {KMS_USE_DECRYPT, KMS_RIGHT_DECRYPT},
    {KMS_USE_WRAP, KMS_RIGHT_WRAP},       {KMS_USE_UNWRAP, KMS_RIGHT_UNWRAP},
    {KMS_USE_SIGN, KMS_RIGHT_SIGN},       {KMS_USE_VERIFY, KMS_RIGHT_VERIFY | KMS_RIGHT_SIGN},
};

bool kms_policy_glob(const char *pattern, const char *text)
{
    const char *star = NULL; /* the last one seen, and what it is taken to stand for up to */
    const char *resume = NULL;

    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

static bool has_group(const struct kms_policy_peer *peer, gid_t gid)
{
    bool has = peer->gid == gid;

    for (size_t i = 0; i < peer->group_count && !has; i++) {
        has = peer->groups[i] == gid;
    }
    return has;
}

static bool is_for_peer(const struct kms_policy_rule *rule, const struct kms_policy_peer *peer)
{
    bool is = rule->everybody;

    for (size_t i = 0; i < rule->uid_count && !is; i++) {
        is = rule->uids[i] == peer->uid;
    }
    for (size_t i = 0; i < rule->gid_count && !is; i++) {
        is = has_group(peer, rule->gids[i]);
    }
    return is;
}

static bool is_for_token(const struct kms_policy_rule *rule, const char *token)
{
    bool is = rule->token_count == 0;

    for (size_t i = 0; i < rule->token_count && !is; i++) {
        is = strcmp(rule->tokens[i], token) == 0;
    }
    return is;
}

static bool is_tag(const char *hex, struct kms_span tag)
{
    uint8_t room[KMS_KEY_TAG_MAX];
    struct kms_buf bytes = KMS_BUF_OVER(room);

    return tag.len != 0 && kms_hex_decode(kms_span_str(hex), &bytes) == KMS_OK &&
           kms_span_equal(kms_buf_span(&bytes), tag);
}

static bool is_for_key(const struct kms_policy_rule *rule, const struct kms_policy_key *key)
{
    bool is = rule->key_count == 0;

    for (size_t i = 0; i < rule->key_count && !is; i++) {
        const char *pattern = rule->keys[i];

        is = strncmp(pattern, ID_PREFIX, strlen(ID_PREFIX)) == 0
                 ? is_tag(pattern + strlen(ID_PREFIX), key->tag)
                 : kms_policy_glob(pattern, key->label);
    }
    return is;
}

static bool may_everything(const struct kms_policy *policy, const struct kms_policy_peer *peer)
{
    return peer->uid == 0 || peer->uid == policy->self;
}

bool kms_policy_knows(const struct kms_policy *policy, const struct kms_policy_peer *peer)
{
    bool knows = may_everything(policy, peer);

    for (size_t i = 0; i < policy->rule_count && !knows; i++) {
        knows = is_for_peer(&policy->rules[i], peer);
    }
    return knows;
}

unsigned kms_policy_token(const struct kms_policy *policy, const struct kms_policy_peer *peer,
                          const char *token)
{
    unsigned rights = may_everything(policy, peer) ? KMS_RIGHT_ALL : 0;

    for (size_t i = 0; i < policy->rule_count && rights != KMS_RIGHT_ALL; i++) {
        const struct kms_policy_rule *rule = &policy->rules[i];

        if (is_for_token(rule, token) && is_for_peer(rule, peer)) {
            rights |= rule->allow;
        }
    }
    return rights;
}

unsigned kms_policy_key(const struct kms_policy *policy, const struct kms_policy_peer *peer,
                        const char *token, const struct kms_policy_key *key)
{
    unsigned rights = may_everything(policy, peer) ? KMS_RIGHT_ALL : 0;

    for (size_t i = 0; i < policy->rule_count && rights != KMS_RIGHT_ALL; i++) {
        const struct kms_policy_rule *rule = &policy->rules[i];

        if (is_for_token(rule, token) && is_for_peer(rule, peer) && is_for_key(rule, key)) {
            rights |= rule->allow;
        }
    }
    return rights;
}

unsigned kms_policy_needs(enum kms_op op)
{
    return (unsigned)op < KMS_OP_COUNT ? needs[op] : 0;
}

unsigned kms_policy_uses(unsigned uses, unsigned rights)
{
    unsigned left = 0;

    for (size_t i = 0; i < sizeof(uses_of) / sizeof(uses_of[0]); i++) {
        if ((uses_of[i].rights & rights) != 0) {
            left |= uses & uses_of[i].use;
        }
    }
    return left;
}

enum kms_status kms_policy_parse_right(const char *word, unsigned *ret_rights)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i].word, word) == 0) {
            *ret_rights = words[i].rights;
            return KMS_OK;
        }
    }
    return KMS_E_INVALID;
}
