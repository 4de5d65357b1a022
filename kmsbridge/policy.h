/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what with which key: `agent.rules` as pure functions. No I/O, no state, no lock; the
 * caller keeps the rules alive.
 *
 * Nothing is allowed but what a rule allows. Rules only add up: what one allows, none takes away.
 * Root and the daemon's own user may do everything, since they can read the configuration, the PIN
 * and the daemon's memory anyhow.
 */
#ifndef KMSBRIDGE_POLICY_H
#define KMSBRIDGE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "backend/waist.h"

/* What a rule can allow; a bit set. */
enum kms_right {
    KMS_RIGHT_SIGN = 1u << 0, /* sign, mac, and verify what was signed: CKA_SIGN */
    KMS_RIGHT_VERIFY = 1u << 1,
    KMS_RIGHT_ENCRYPT = 1u << 2,
    KMS_RIGHT_DECRYPT = 1u << 3,
    KMS_RIGHT_WRAP = 1u << 4,
    KMS_RIGHT_UNWRAP = 1u << 5,
    KMS_RIGHT_GENERATE = 1u << 6, /* keys whose label the rule's keys match */
    KMS_RIGHT_DESTROY = 1u << 7,
    KMS_RIGHT_SET_LABEL = 1u << 8, /* the old label and the new one must match */
    KMS_RIGHT_LIST = 1u << 9,      /* to see keys that one may not use */
    KMS_RIGHT_RANDOM = 1u << 10,   /* of a token; the rule's keys do not matter */
    KMS_RIGHT_ALL = (1u << 11) - 1
};
/* Rights that are about a key that is there: with any of them, or LIST, the key is seen. */
#define KMS_RIGHTS_OF_KEY (KMS_RIGHT_ALL & ~(unsigned)(KMS_RIGHT_GENERATE | KMS_RIGHT_RANDOM))

struct kms_policy_rule {
    const uid_t *uids;
    size_t uid_count;
    const gid_t *gids; /* a peer's primary or supplementary group */
    size_t gid_count;
    bool everybody;      /* whoever connects */
    char *const *tokens; /* none: every token */
    size_t token_count;
    char *const *keys; /* labels, where * stands for any text, or "id:HEX"; none: every key */
    size_t key_count;
    unsigned allow; /* enum kms_right */
};

struct kms_policy {
    const struct kms_policy_rule *rules;
    size_t rule_count;
    uid_t self; /* the daemon's own user */
};

struct kms_policy_peer {
    uid_t uid;
    gid_t gid;
    const gid_t *groups; /* supplementary */
    size_t group_count;
};

/* A key as far as the policy looks at it. */
struct kms_policy_key {
    const char *label;
    struct kms_span tag; /* CKA_ID; empty for a key that has none yet */
};

/* Whether the peer may do anything at all. */
bool kms_policy_knows(const struct kms_policy *policy, const struct kms_policy_peer *peer);
/* What it may do with some key of the token, and with the token. 0: it does not see the token. */
unsigned kms_policy_token(const struct kms_policy *policy, const struct kms_policy_peer *peer,
                          const char *token);
/* What it may do with the key. 0, or GENERATE alone: it does not see the key. */
unsigned kms_policy_key(const struct kms_policy *policy, const struct kms_policy_peer *peer,
                        const char *token, const struct kms_policy_key *key);

/* The right that an op on a key needs, any bit of it will do; 0 for ops that policy does not
 * know. */
unsigned kms_policy_needs(enum kms_op op);
/* @uses (enum kms_key_use) less those that @rights do not cover. */
unsigned kms_policy_uses(unsigned uses, unsigned rights);

/* The word of the configuration; "all" is every one. KMS_E_INVALID. */
enum kms_status kms_policy_parse_right(const char *word, unsigned *ret_rights) KMS_MUST_CHECK;
/* '*' stands for any text, also none; every other byte for itself. */
bool kms_policy_glob(const char *pattern, const char *text);

#endif
