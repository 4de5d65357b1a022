/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what: rules and peers in, rights out. */
#include "kmsbridge/policy.h"

#include "tests/unit/unit.h"

#define SELF 990u

static const uid_t alice[] = {1000};
static const gid_t signers[] = {2000};
static char text_hsm[] = "hsm", text_app[] = "app-*", text_id[] = "id:0aFF", text_exact[] = "kek";
static char *const hsm[] = {text_hsm};
static char *const app_keys[] = {text_app};
static char *const id_keys[] = {text_id, text_exact};

static const struct kms_policy_rule rules[] = {
    {.uids = alice,
     .uid_count = 1,
     .tokens = hsm,
     .token_count = 1,
     .keys = app_keys,
     .key_count = 1,
     .allow = KMS_RIGHT_SIGN | KMS_RIGHT_GENERATE},
    {.gids = signers, .gid_count = 1, .keys = id_keys, .key_count = 2, .allow = KMS_RIGHT_DECRYPT},
    {.uids = alice, .uid_count = 1, .keys = id_keys, .key_count = 2, .allow = KMS_RIGHT_LIST},
    {.everybody = true, .tokens = hsm, .token_count = 1, .allow = KMS_RIGHT_RANDOM},
};
static const struct kms_policy policy = {.rules = rules, .rule_count = 4, .self = SELF};
static const struct kms_policy strict = {.rules = rules, .rule_count = 3, .self = SELF};
static const struct kms_policy nothing = {.self = SELF};

static void keys(void)
{
    static const gid_t groups[] = {1, 2000, 3};
    static const struct {
        const char *name;
        const struct kms_policy *policy;
        struct kms_policy_peer peer;
        const char *token;
        const char *label;
        const char *tag;
        unsigned rights;
    } rows[] = {
        {"no rules", &nothing, {.uid = 1000}, "hsm", "app-1", "", 0},
        {"root", &nothing, {.uid = 0}, "hsm", "x", "", KMS_RIGHT_ALL},
        {"the daemon's user", &nothing, {.uid = SELF}, "hsm", "x", "", KMS_RIGHT_ALL},
        {"by uid and label",
         &strict,
         {.uid = 1000},
         "hsm",
         "app-1",
         "",
         KMS_RIGHT_SIGN | KMS_RIGHT_GENERATE},
        {"another label", &strict, {.uid = 1000}, "hsm", "other", "", 0},
        {"the label's end counts", &strict, {.uid = 1000}, "hsm", "kek2", "", 0},
        {"another token", &strict, {.uid = 1000}, "other", "app-1", "", 0},
        {"another uid", &strict, {.uid = 1001}, "hsm", "app-1", "", 0},
        {"a uid is no gid", &strict, {.uid = 2000}, "hsm", "kek", "", 0},
        {"by group", &strict, {.uid = 5, .gid = 2000}, "any", "kek", "", KMS_RIGHT_DECRYPT},
        {"by supplementary group",
         &strict,
         {.uid = 5, .gid = 5, .groups = groups, .group_count = 3},
         "any",
         "kek",
         "",
         KMS_RIGHT_DECRYPT},
        {"by CKA_ID", &strict, {.uid = 5, .gid = 2000}, "any", "x", "\x0a\xff", KMS_RIGHT_DECRYPT},
        {"another CKA_ID", &strict, {.uid = 5, .gid = 2000}, "any", "x", "\x0a\xfe", 0},
        {"a longer CKA_ID", &strict, {.uid = 5, .gid = 2000}, "any", "x", "\x0a\xff\x01", 0},
        {"no CKA_ID", &strict, {.uid = 5, .gid = 2000}, "any", "id:0aFF", "", 0},
        {"rules add up",
         &strict,
         {.uid = 1000, .gid = 2000},
         "hsm",
         "kek",
         "",
         KMS_RIGHT_DECRYPT | KMS_RIGHT_LIST},
        {"everybody", &policy, {.uid = 77}, "hsm", "x", "", KMS_RIGHT_RANDOM},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_policy_key key = {.label = rows[i].label,
                                           .tag = kms_span_str(rows[i].tag)};
        unsigned rights = kms_policy_key(rows[i].policy, &rows[i].peer, rows[i].token, &key);

        UNIT_CHECK(rows[i].name, rights == rows[i].rights);
    }
}

static void tokens(void)
{
    static const struct {
        const char *name;
        struct kms_policy_peer peer;
        const char *token;
        bool known;
        unsigned rights;
    } rows[] = {
        {"alice, hsm",
         {.uid = 1000},
         "hsm",
         true,
         KMS_RIGHT_SIGN | KMS_RIGHT_GENERATE | KMS_RIGHT_LIST},
        {"alice, other", {.uid = 1000}, "other", true, KMS_RIGHT_LIST},
        {"signer", {.uid = 5, .gid = 2000}, "hsm", true, KMS_RIGHT_DECRYPT},
        {"stranger", {.uid = 5, .gid = 5}, "hsm", false, 0},
        {"root", {.uid = 0}, "hsm", true, KMS_RIGHT_ALL},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name,
                   kms_policy_token(&strict, &rows[i].peer, rows[i].token) == rows[i].rights);
        UNIT_CHECK(rows[i].name, kms_policy_knows(&strict, &rows[i].peer) == rows[i].known);
    }
}

static void globs(void)
{
    static const struct {
        const char *pattern;
        const char *text;
        bool matches;
    } rows[] = {
        {"", "", true},
        {"", "a", false},
        {"a", "a", true},
        {"a", "A", false},
        {"*", "", true},
        {"*", "anything", true},
        {"a*", "a", true},
        {"a*", "ab", true},
        {"a*", "ba", false},
        {"*a", "ba", true},
        {"*a", "ab", false},
        {"a*c", "abbbc", true},
        {"a*c", "abbb", false},
        {"*b*", "abc", true},
        {"*ab", "aab", true},
        {"a*b*c", "axbxbxc", true},
        {"a**b", "ab", true},
        {"?", "a", false},
        {"[a]", "a", false},
        {"[a]", "[a]", true},
        {"\\*", "*", false},
        {"*aaaaaaaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].pattern,
                   kms_policy_glob(rows[i].pattern, rows[i].text) == rows[i].matches);
    }
}

static void uses(void)
{
    static const unsigned all = KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP |
                                KMS_USE_SIGN | KMS_USE_VERIFY;
    static const struct {
        const char *name;
        unsigned rights;
        unsigned uses;
    } rows[] = {
        {"none", 0, 0},
        {"all", KMS_RIGHT_ALL, all},
        {"list", KMS_RIGHT_LIST | KMS_RIGHT_DESTROY | KMS_RIGHT_GENERATE, 0},
        {"sign", KMS_RIGHT_SIGN, KMS_USE_SIGN | KMS_USE_VERIFY},
        {"verify", KMS_RIGHT_VERIFY, KMS_USE_VERIFY},
        {"encrypt", KMS_RIGHT_ENCRYPT, KMS_USE_ENCRYPT},
        {"unwrap", KMS_RIGHT_UNWRAP, KMS_USE_UNWRAP},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name, kms_policy_uses(all, rows[i].rights) == rows[i].uses);
        UNIT_CHECK(rows[i].name, kms_policy_uses(0, rows[i].rights) == 0);
    }
}

static void ops(void)
{
    static const unsigned rows[KMS_OP_COUNT] = {
        [KMS_OP_LIST_KEYS] = KMS_RIGHTS_OF_KEY,
        [KMS_OP_GENERATE] = KMS_RIGHT_GENERATE,
        [KMS_OP_DESTROY] = KMS_RIGHT_DESTROY,
        [KMS_OP_ROTATE] = 0, /* an op that nobody thought of is nobody's */
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
        [KMS_OP_DATA_KEY] = KMS_RIGHT_WRAP,
    };

    for (unsigned op = 0; op < KMS_OP_COUNT; op++) {
        UNIT_CHECK(kms_op_name((enum kms_op)op), kms_policy_needs((enum kms_op)op) == rows[op]);
    }
    UNIT_CHECK("none", kms_policy_needs(KMS_OP_COUNT) == 0);
    UNIT_CHECK("of a key", (KMS_RIGHTS_OF_KEY & (KMS_RIGHT_GENERATE | KMS_RIGHT_RANDOM)) == 0);
}

static void words(void)
{
    unsigned rights = 7;

    UNIT_CHECK("sign",
               kms_policy_parse_right("sign", &rights) == KMS_OK && rights == KMS_RIGHT_SIGN);
    UNIT_CHECK("all", kms_policy_parse_right("all", &rights) == KMS_OK && rights == KMS_RIGHT_ALL);
    UNIT_CHECK("Sign", kms_policy_parse_right("Sign", &rights) == KMS_E_INVALID);
    UNIT_CHECK("empty", kms_policy_parse_right("", &rights) == KMS_E_INVALID);
    UNIT_CHECK("kept", rights == KMS_RIGHT_ALL);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"keys", keys}, {"tokens", tokens}, {"globs", globs},
        {"uses", uses}, {"ops", ops},       {"words", words},
    };

    return unit_main("test_policy", tests, UNIT_COUNT(tests));
}
