/* SPDX-License-Identifier: Apache-2.0 */
/* One request: who may, how long, the waist, the answer, the audit's line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/codec.h"
#include "common/log.h"
#include "kmsbridge/agent_parts.h"

#define LIST_ROOM (KMS_AGENT_FRAME_MAX + KMS_AGENT_HEADER)
#define LIST_MORE 4096u /* of a page beside its keys */

/* One request on its way. */
struct work {
    const struct kms_agentd_peering *peering;
    struct kms_agentd_state *state;
    struct kms_agentd_room *room;
    const Kms__Agent__Request *request;
    const struct row *row;
    struct kms_call call;
    Kms__Agent__Reply reply;

    struct kms_agentd_token *token;
    struct kms_agentd_key *key; /* that the request is about */
    const char *label;          /* of a key that is to be made */
    enum kms_alg alg;
    enum kms_refusal refusal;

    /* what the reply points to */
    struct kms_sealed sealed;
    uint8_t iv[KMS_IV_MAX];
    Kms__Agent__Error error;
    struct kms_key_info made;
    Kms__Agent__Key made_key;
    Kms__Agent__AlgSet made_algs;
    Kms__Agent__Key *made_keys[1];
    uint8_t *page; /* the whole frame of a list */
    struct kms_span frame;
};

/* What stands on a key of its request. */
typedef enum kms_status (*run)(struct work *work, struct kms_waist *waist);

struct row {
    Kms__Agent__Request__OpCase op_case;
    unsigned call;                               /* enum kms_op, KMS_AGENTD_LIST_TOKENS */
    bool audited;                                /* also when it went well */
    bool changes;                                /* the list of keys */
    bool on_key;                                 /* KeyOp or KeyRef or SetLabel: names a key */
    enum kms_status (*begin)(struct work *work); /* NULL, or instead of all that is below */
    run run;
};

static enum kms_status refuse(struct work *work, enum kms_refusal refusal, enum kms_status status,
                              const char *fmt, ...) KMS_PRINTF(4, 5);

static enum kms_status refuse(struct work *work, enum kms_refusal refusal, enum kms_status status,
                              const char *fmt, ...)
{
    char text[KMS_ERROR_TEXT_MAX] = "";
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    work->refusal = refusal;
    return kms_error_set(&work->call.error, status, "%s", text);
}

static enum kms_op op_of(const struct work *work)
{
    return (enum kms_op)work->row->call;
}

static struct kms_policy_key policy_key(const struct kms_key_info *info)
{
    return (struct kms_policy_key){.label = info->label,
                                   .tag = kms_span_of(info->tag, info->tag_len)};
}

static unsigned rights_on(const struct work *work, const struct kms_policy_key *key)
{
    return kms_policy_key(&work->state->policy, &work->peering->peer->policy,
                          kms_agentd_token_name(work->token), key);
}

static unsigned rights_on_token(const struct work *work, const struct kms_agentd_token *token)
{
    return kms_policy_token(&work->state->policy, &work->peering->peer->policy,
                            kms_agentd_token_name(token));
}

/* --- lists --------------------------------------------------------------------------------------
 */

static enum kms_status pack_list(struct work *work)
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

static enum kms_status list_tokens(struct work *work)
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
        unsigned rights = rights_on_token(work, tokens->tokens[i]);

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
static void fill_page(struct work *work, const struct kms_agentd_keys *keys, const char *after,
                      struct seen_key *seen, Kms__Agent__Key **list)
{
    size_t room = KMS_AGENT_FRAME_MAX - LIST_MORE;

    work->reply.keys = list;
    for (size_t i = first_after(keys, after); i < keys->count; i++) {
        const struct kms_agentd_key *key = keys->keys[i];
        const struct kms_policy_key policy = policy_key(&key->info);
        unsigned rights = 0;
        struct seen_key *one = &seen[work->reply.n_keys];
        size_t size = 0;

        if (!is_wanted(key, work->request->list_keys)) {
            continue;
        }
        rights = rights_on(work, &policy);
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

static enum kms_status list_keys(struct work *work)
{
    char after[KMS_KEY_REF_MAX];
    struct seen_key *seen = NULL;
    Kms__Agent__Key *list[KMS_AGENT_KEYS_MAX];
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = kms_agent_get_text("ListKeys.after", work->request->list_keys->after,
                                                after, sizeof(after), &work->call.error);

    if (status == KMS_OK) {
        status = kms_agentd_token_keys(work->token, &work->call, &keys);
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

/* --- ops of the waist ---------------------------------------------------------------------------
 */

static const Kms__Agent__KeyOp *key_op(const struct work *work)
{
    /* every member of the oneof is a pointer to its message, all those of KeyOps alike */
    return work->request->sign;
}

static struct kms_span input_of(const struct work *work)
{
    return kms_agent_get_span(key_op(work)->input);
}

static enum kms_status get_params(struct work *work, struct kms_params *ret_params)
{
    enum kms_status status =
        kms_agent_get_params(key_op(work)->params, ret_params, &work->call.error);

    work->alg = status == KMS_OK ? ret_params->alg : KMS_ALG_NONE;
    return status;
}

static void give_output(struct work *work, const struct kms_buf *bytes)
{
    work->reply.output = kms_agent_put_span(kms_buf_span(bytes));
}

typedef enum kms_status (*waist_seal)(struct kms_waist *waist, struct kms_call *call,
                                      const char *ref, const struct kms_params *params,
                                      struct kms_span in, struct kms_sealed *ret_sealed);

static enum kms_status seal(struct work *work, struct kms_waist *waist, waist_seal op)
{
    struct kms_params params;
    enum kms_status status = get_params(work, &params);

    work->sealed.iv = KMS_BUF_OVER(work->iv);
    work->sealed.ciphertext = kms_buf_over(work->room->out.data, work->room->out.cap);
    if (status == KMS_OK) {
        status =
            op(waist, &work->call, work->key->info.ref, &params, input_of(work), &work->sealed);
    }
    if (status == KMS_OK) {
        give_output(work, &work->sealed.ciphertext);
        work->reply.iv = kms_agent_put_span(kms_buf_span(&work->sealed.iv));
        work->reply.alg = (uint32_t)work->sealed.alg;
        work->reply.key_id = kms_agent_put_text(work->sealed.key_id);
        work->alg = work->sealed.alg;
    }
    return status;
}

typedef enum kms_status (*waist_bytes)(struct kms_waist *waist, struct kms_call *call,
                                       const char *ref, const struct kms_params *params,
                                       struct kms_span in, struct kms_buf *ret_bytes);

static enum kms_status bytes(struct work *work, struct kms_waist *waist, waist_bytes op)
{
    struct kms_params params;
    struct kms_buf out = kms_buf_over(work->room->out.data, work->room->out.cap);
    enum kms_status status = get_params(work, &params);

    if (status == KMS_OK) {
        status = op(waist, &work->call, work->key->info.ref, &params, input_of(work), &out);
    }
    if (status == KMS_OK) {
        give_output(work, &out);
    }
    return status;
}

static enum kms_status run_encrypt(struct work *work, struct kms_waist *waist)
{
    return seal(work, waist, kms_waist_encrypt);
}

static enum kms_status run_wrap(struct work *work, struct kms_waist *waist)
{
    return seal(work, waist, kms_waist_wrap);
}

static enum kms_status run_decrypt(struct work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_decrypt);
}

static enum kms_status run_unwrap(struct work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_unwrap);
}

static enum kms_status run_sign(struct work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_sign);
}

static enum kms_status run_mac(struct work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_mac);
}

static enum kms_status run_verify(struct work *work, struct kms_waist *waist)
{
    struct kms_params params;
    enum kms_status status = get_params(work, &params);

    return status == KMS_OK
               ? kms_waist_verify(waist, &work->call, work->key->info.ref, &params, input_of(work),
                                  kms_agent_get_span(key_op(work)->signature))
               : status;
}

/* From memory where we have it. */
static enum kms_status run_public_key(struct work *work, struct kms_waist *waist)
{
    struct kms_buf out = kms_buf_over(work->room->out.data, work->room->out.cap);
    enum kms_status status = KMS_OK;

    if (work->key->spki.len != 0) {
        work->reply.output = kms_agent_put_span(work->key->spki);
        return KMS_OK;
    }
    status = kms_waist_public_key(waist, &work->call, work->key->info.ref, &out);
    if (status == KMS_OK) {
        give_output(work, &out);
    }
    return status;
}

static enum kms_status run_destroy(struct work *work, struct kms_waist *waist)
{
    return kms_waist_destroy(waist, &work->call, work->key->info.ref);
}

static enum kms_status check_label(struct work *work, const char *field, ProtobufCBinaryData text,
                                   char ret_label[KMS_LABEL_MAX])
{
    enum kms_status status =
        kms_agent_get_text(field, text, ret_label, KMS_LABEL_MAX, &work->call.error);

    return status == KMS_OK && !kms_utf8_valid(kms_span_str(ret_label))
               ? kms_error_set(&work->call.error, KMS_E_INVALID, "the label is not UTF-8")
               : status;
}

static enum kms_status run_set_label(struct work *work, struct kms_waist *waist)
{
    char label[KMS_LABEL_MAX];
    enum kms_status status =
        check_label(work, "SetLabel.label", work->request->set_label->label, label);
    struct kms_policy_key renamed = policy_key(&work->key->info);

    if (status != KMS_OK) {
        return status;
    }
    renamed.label = label;
    if ((rights_on(work, &renamed) & KMS_RIGHT_SET_LABEL) == 0) {
        return refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                      "uid %ld may not name a key of token %s \"%s\" (agent.rules)",
                      (long)work->peering->peer->policy.uid, kms_agentd_token_name(work->token),
                      label);
    }
    return kms_waist_set_label(waist, &work->call, work->key->info.ref, label);
}

static enum kms_status run_random(struct work *work, struct kms_waist *waist)
{
    uint32_t len = work->request->random->len;
    struct kms_buf out = kms_buf_over(work->room->out.data, len);
    enum kms_status status = KMS_OK;

    if (len == 0 || len > KMS_AGENT_RANDOM_MAX || len > work->room->out.cap) {
        return kms_error_set(&work->call.error, KMS_E_INVALID, "random takes 1 to %u bytes",
                             KMS_AGENT_RANDOM_MAX);
    }
    status = kms_waist_random(waist, &work->call, &out);
    if (status == KMS_OK) {
        give_output(work, &out);
    }
    return status;
}

static enum kms_status run_generate(struct work *work, struct kms_waist *waist)
{
    const Kms__Agent__Generate *message = work->request->generate;
    const struct kms_key_template tmpl = {
        .type = (enum kms_key_type)message->type,
        .bits = message->bits,
        .label = work->label,
        .tag = kms_agent_get_span(message->tag),
        .uses = message->uses,
    };
    enum kms_status status = KMS_OK;

    if (message->type >= KMS_KEY_TYPE_COUNT) {
        return kms_error_set(&work->call.error, KMS_E_INVALID, "there is no such type of key");
    }
    status = kms_waist_generate(waist, &work->call, &tmpl, &work->made);
    if (status == KMS_OK) {
        const struct kms_policy_key key = policy_key(&work->made);
        struct kms_call one = {.deadline_ns = work->call.deadline_ns};
        struct kms_buf spki = kms_buf_over(work->room->out.data, work->room->out.cap);

        work->made.uses = kms_policy_uses(work->made.uses, rights_on(work, &key));
        kms_agent_put_key(&work->made, &work->made_key, &work->made_algs);
        if (work->made.type != KMS_KEY_AES && work->made.type != KMS_KEY_GENERIC &&
            kms_waist_public_key(waist, &one, work->made.ref, &spki) == KMS_OK) {
            work->made_key.spki = kms_agent_put_span(kms_buf_span(&spki));
        }
        work->made_keys[0] = &work->made_key;
        work->reply.keys = work->made_keys;
        work->reply.n_keys = 1;
    }
    return status;
}

static enum kms_status run_login(struct work *work, struct kms_waist *waist)
{
    struct kms_limits *limits = work->peering->common->limits;
    enum kms_status status = KMS_OK;

    if (kms_agentd_token_conf(work->token)->login != KMS_AGENTD_LOGIN_PIN) {
        return KMS_OK; /* whatever PIN is good */
    }
    status = kms_limits_login(limits, work->peering->account, &work->call.error);
    if (status != KMS_OK) {
        work->refusal = KMS_REFUSAL_LOGIN;
        return status;
    }
    status = kms_waist_check_pin(waist, &work->call, kms_agent_get_span(work->request->login->pin));
    kms_limits_logged_in(limits, work->peering->account, status != KMS_E_AUTH);
    return status;
}

#define CASE(name) KMS__AGENT__REQUEST__OP_##name

/* clang-format off */
static const struct row rows[] = {
    /* op               call                    audited changes on_key  instead      */
    {CASE(SIGN),        KMS_OP_SIGN,            true,   false,  true,  NULL, run_sign},
    {CASE(DECRYPT),     KMS_OP_DECRYPT,         true,   false,  true,  NULL, run_decrypt},
    {CASE(ENCRYPT),     KMS_OP_ENCRYPT,         true,   false,  true,  NULL, run_encrypt},
    {CASE(WRAP),        KMS_OP_WRAP,            true,   false,  true,  NULL, run_wrap},
    {CASE(UNWRAP),      KMS_OP_UNWRAP,          true,   false,  true,  NULL, run_unwrap},
    {CASE(VERIFY),      KMS_OP_VERIFY,          true,   false,  true,  NULL, run_verify},
    {CASE(MAC),         KMS_OP_MAC,             true,   false,  true,  NULL, run_mac},
    {CASE(LIST_TOKENS), KMS_AGENTD_LIST_TOKENS, false,  false,  false, list_tokens, NULL},
    {CASE(LIST_KEYS),   KMS_OP_LIST_KEYS,       false,  false,  false, list_keys, NULL},
    {CASE(PUBLIC_KEY),  KMS_OP_PUBLIC_KEY,      false,  false,  true,  NULL, run_public_key},
    {CASE(RANDOM),      KMS_OP_RANDOM,          false,  false,  false, NULL, run_random},
    {CASE(GENERATE),    KMS_OP_GENERATE,        true,   true,   false, NULL, run_generate},
    {CASE(DESTROY),     KMS_OP_DESTROY,         true,   true,   true,  NULL, run_destroy},
    {CASE(SET_LABEL),   KMS_OP_SET_LABEL,       true,   true,   true,  NULL, run_set_label},
    {CASE(LOGIN),       KMS_OP_CHECK_PIN,       true,   false,  false, NULL, run_login},
};
/* clang-format on */

static const struct row *find_row(Kms__Agent__Request__OpCase op_case)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].op_case == op_case) {
            return &rows[i];
        }
    }
    return NULL;
}

/* --- who may ------------------------------------------------------------------------------------
 */

static enum kms_status find_token(struct work *work)
{
    struct kms_span name = kms_agent_get_span(work->request->token);
    struct kms_agentd_token *token = kms_agentd_tokens_find(&work->state->tokens, name);

    /* one that the peer may not see is none */
    if (token == NULL || rights_on_token(work, token) == 0) {
        return kms_error_set(&work->call.error, KMS_E_NOT_FOUND, "there is no such token");
    }
    work->token = token;
    return KMS_OK;
}

static ProtobufCBinaryData ref_of(const struct work *work)
{
    switch (work->row->op_case) {
    case CASE(DESTROY):
        return work->request->destroy->ref;
    case CASE(PUBLIC_KEY):
        return work->request->public_key->ref;
    case CASE(SET_LABEL):
        return work->request->set_label->ref;
    default:
        return key_op(work)->ref;
    }
}

/* What the op does, for people. */
static enum kms_status deny(struct work *work, const char *label)
{
    return refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                  "uid %ld may not %s with key \"%s\" of token %s (agent.rules)",
                  (long)work->peering->peer->policy.uid, kms_agentd_call_name(work->row->call),
                  label, kms_agentd_token_name(work->token));
}

static enum kms_status check_key(struct work *work)
{
    char ref[KMS_KEY_REF_MAX];
    struct kms_policy_key key;
    enum kms_status status =
        kms_agent_get_text("ref", ref_of(work), ref, sizeof(ref), &work->call.error);

    if (status == KMS_OK) {
        status = kms_agentd_token_key(work->token, &work->call, ref, &work->key);
    }
    if (status != KMS_OK) {
        return status;
    }
    key = policy_key(&work->key->info);
    return (rights_on(work, &key) & kms_policy_needs(op_of(work))) != 0
               ? KMS_OK
               : deny(work, work->key->info.label);
}

static enum kms_status check_generate(struct work *work, char label[KMS_LABEL_MAX])
{
    const Kms__Agent__Generate *message = work->request->generate;
    struct kms_policy_key key = {.label = label, .tag = kms_agent_get_span(message->tag)};
    enum kms_status status = check_label(work, "Generate.label", message->label, label);

    if (status != KMS_OK) {
        return status;
    }
    work->label = label;
    return (rights_on(work, &key) & KMS_RIGHT_GENERATE) != 0 ? KMS_OK : deny(work, label);
}

static enum kms_status check_rights(struct work *work, char label[KMS_LABEL_MAX])
{
    if (work->row->on_key) {
        return check_key(work);
    }
    if (work->row->call == KMS_OP_GENERATE) {
        return check_generate(work, label);
    }
    if (work->row->call == KMS_OP_RANDOM &&
        (rights_on_token(work, work->token) & KMS_RIGHT_RANDOM) == 0) {
        return refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                      "uid %ld may not have random bytes of token %s (agent.rules)",
                      (long)work->peering->peer->policy.uid, kms_agentd_token_name(work->token));
    }
    return KMS_OK;
}

/* --- one request --------------------------------------------------------------------------------
 */

static enum kms_status in_lane(struct work *work)
{
    struct kms_agentd_visit visit;
    enum kms_status status = kms_audit_ready(work->peering->common->audit, &work->call.error);

    if (status != KMS_OK) {
        work->refusal = KMS_REFUSAL_AUDIT;
        return status;
    }
    status = kms_agentd_visit_begin(work->token, &work->call, &visit);
    if (status != KMS_OK) {
        work->refusal = status == KMS_E_BUSY ? KMS_REFUSAL_LANE : KMS_REFUSAL_NONE;
        return status;
    }
    status = work->row->run(work, visit.waist);
    kms_agentd_visit_end(&visit);
    if (work->row->changes && work->refusal == KMS_REFUSAL_NONE) {
        kms_agentd_token_touch(work->token);
    }
    return status;
}

static enum kms_status in_limits(struct work *work, char label[KMS_LABEL_MAX])
{
    enum kms_status status = KMS_OK;

    if (work->row->call != KMS_AGENTD_LIST_TOKENS) {
        status = find_token(work);
    }
    if (status == KMS_OK && work->row->begin != NULL) {
        return work->row->begin(work);
    }
    if (status == KMS_OK) {
        status = check_rights(work, label);
    }
    return status == KMS_OK ? in_lane(work) : status;
}

static enum kms_status do_it(struct work *work, char label[KMS_LABEL_MAX])
{
    const struct kms_agentd_peering *peering = work->peering;
    struct kms_limits *limits = peering->common->limits;
    enum kms_status status = kms_limits_begin(limits, peering->account, work->call.deadline_ns,
                                              &work->refusal, &work->call.error);

    if (status == KMS_OK) {
        status = in_limits(work, label);
        kms_limits_end(limits, peering->account);
    }
    return status;
}

static const char *mechanism_of(const struct work *work)
{
    return work->alg == KMS_ALG_NONE ? NULL : kms_alg_name(work->alg);
}

/* Whether it is written down; KMS_E_UNAVAILABLE when it had to be and could not. */
static enum kms_status write_down(struct work *work, enum kms_status verdict, uint64_t began_ns,
                                  struct kms_error *err)
{
    const struct kms_key_info *info = work->key != NULL         ? &work->key->info
                                      : work->reply.n_keys == 1 ? &work->made
                                                                : NULL;
    struct kms_audit_record record = {
        .front = "agent",
        .peer = &work->peering->peer->audit,
        .token = work->token == NULL ? NULL : kms_agentd_token_name(work->token),
        .key_id = info == NULL ? NULL : info->id,
        .label = info == NULL ? work->label : info->label,
        .op = work->row->call == KMS_OP_CHECK_PIN ? "login" : kms_agentd_call_name(work->row->call),
        .mechanism = mechanism_of(work),
        .verdict = verdict,
        .refused = kms_refusal_name(work->refusal),
        .request_id = work->call.error.request_id,
        .duration_ns = kms_now_ns() - began_ns,
    };

    if (!work->row->audited && work->refusal == KMS_REFUSAL_NONE) {
        return KMS_OK;
    }
    if (work->refusal != KMS_REFUSAL_NONE &&
        !kms_limits_may_note(work->peering->common->limits, work->peering->account,
                             &record.suppressed)) {
        return KMS_OK;
    }
    return kms_audit_write(work->peering->common->audit, &record, err);
}

/* An answer without a word of the result. */
static void give_error(struct work *work, const struct kms_error *error)
{
    kms_agent_put_error(error, &work->error);
    work->reply = (Kms__Agent__Reply)KMS__AGENT__REPLY__INIT;
    work->reply.error = &work->error;
}

static uint64_t deadline_of(const struct work *work)
{
    uint64_t ours = work->state->conf->agent.call_timeout_ns;
    uint64_t theirs = work->request->timeout_ms * KMS_NS_PER_MS;

    return kms_deadline_in(theirs != 0 && theirs < ours ? theirs : ours);
}

static enum kms_status pack_reply(struct work *work, struct kms_error *err)
{
    struct kms_buf *frame = &work->room->frame;

    frame->len = 0; /* the request's body has been unpacked */
    work->reply.id = work->request->id;
    if (kms_agent_pack(&work->reply.base, frame, err) != KMS_OK) {
        return err->status;
    }
    work->frame = kms_buf_span(frame);
    return KMS_OK;
}

static enum kms_status serve(struct work *work, struct kms_error *err)
{
    char label[KMS_LABEL_MAX] = "";
    uint64_t began_ns = kms_now_ns();
    struct kms_error unwritten = KMS_ERROR_INIT;
    enum kms_status status;

    work->reply = (Kms__Agent__Reply)KMS__AGENT__REPLY__INIT;
    work->call.deadline_ns = deadline_of(work);
    work->call.trace_id = "agent";
    status = do_it(work, label);
    if (status != KMS_OK) {
        give_error(work, &work->call.error);
    }
    if (write_down(work, status, began_ns, &unwritten) != KMS_OK) {
        status = unwritten.status;
        work->refusal = KMS_REFUSAL_AUDIT;
        give_error(work, &unwritten);
    }
    kms_agentd_metrics_call(&work->peering->common->metrics, work->row->call, status);
    if (work->refusal != KMS_REFUSAL_NONE) {
        kms_agentd_metrics_refusal(&work->peering->common->metrics, work->refusal);
    }
    if (status != KMS_OK || work->page == NULL) {
        return pack_reply(work, err);
    }
    return KMS_OK;
}

/* The protocol's rules that no field's bound says. */
static enum kms_status check_request(struct work *work, struct kms_error *err)
{
    work->row = find_row(work->request->op_case);
    if (work->row == NULL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "agent message: Request without an op");
    }
    return KMS_OK;
}

enum kms_status kms_agentd_answer(const struct kms_agentd_peering *peering,
                                  struct kms_agentd_state *state, struct kms_agentd_room *room,
                                  uint8_t **ret_long, struct kms_span *ret_frame,
                                  struct kms_agentd_token **ret_token, struct kms_error *err)
{
    struct work work = {.peering = peering, .state = state, .room = room};
    ProtobufCMessage *message = NULL;
    enum kms_status status = kms_agent_unpack_in(
        &kms__agent__request__descriptor, kms_buf_span(&room->frame), &room->arena, &message, err);

    if (status == KMS_OK) {
        work.request = (const Kms__Agent__Request *)message;
        status = check_request(&work, err);
    }
    if (status == KMS_OK) {
        status = serve(&work, err);
    }
    kms_agentd_key_put(work.key);
    if (status != KMS_OK) {
        free(work.page);
        return status;
    }
    *ret_long = work.page;
    *ret_frame = work.frame;
    *ret_token = work.token;
    return KMS_OK;
}

enum kms_status kms_agentd_put_error(uint64_t id, const struct kms_error *error,
                                     struct kms_buf *frame, struct kms_error *err)
{
    Kms__Agent__Reply reply = KMS__AGENT__REPLY__INIT;
    Kms__Agent__Error message;

    kms_agent_put_error(error, &message);
    reply.id = id;
    reply.error = &message;
    return kms_agent_pack(&reply.base, frame, err);
}
