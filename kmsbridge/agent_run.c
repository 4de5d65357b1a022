/* SPDX-License-Identifier: Apache-2.0 */
/* What is done for each op: a row of the table, and what stands between it and the waist. */

#include "kmsbridge/agent_work.h"

#define CASE(name) KMS__AGENT__REQUEST__OP_##name

static struct kms_span input_of(const struct kms_agentd_work *work)
{
    return kms_agent_get_span(kms_agentd_key_op(work)->input);
}

static enum kms_status get_params(struct kms_agentd_work *work, struct kms_params *ret_params)
{
    enum kms_status status =
        kms_agent_get_params(kms_agentd_key_op(work)->params, ret_params, &work->call.error);

    work->alg = status == KMS_OK ? ret_params->alg : KMS_ALG_NONE;
    return status;
}

static void give_output(struct kms_agentd_work *work, const struct kms_buf *bytes)
{
    work->reply.output = kms_agent_put_span(kms_buf_span(bytes));
}

typedef enum kms_status (*waist_seal)(struct kms_waist *waist, struct kms_call *call,
                                      const char *ref, const struct kms_params *params,
                                      struct kms_span in, struct kms_sealed *ret_sealed);

static void give_sealed(struct kms_agentd_work *work)
{
    give_output(work, &work->sealed.ciphertext);
    work->reply.iv = kms_agent_put_span(kms_buf_span(&work->sealed.iv));
    work->reply.alg = (uint32_t)work->sealed.alg;
    work->reply.key_id = kms_agent_put_text(work->sealed.key_id);
    work->alg = work->sealed.alg;
}

static enum kms_status seal(struct kms_agentd_work *work, struct kms_waist *waist, waist_seal op)
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
        give_sealed(work);
    }
    return status;
}

/* The key is the first in the room for the result, which is secure memory; its sealed form follows.
 */
static enum kms_status run_data_key(struct kms_agentd_work *work, struct kms_waist *waist)
{
    struct kms_params params;
    struct kms_buf key = kms_buf_over(work->room->out.data, KMS_DATA_KEY_MAX);
    enum kms_status status = get_params(work, &params);

    work->sealed.iv = KMS_BUF_OVER(work->iv);
    work->sealed.ciphertext = kms_buf_over(work->room->out.data + KMS_DATA_KEY_MAX,
                                           work->room->out.cap - KMS_DATA_KEY_MAX);
    if (status == KMS_OK) {
        status = kms_waist_data_key(waist, &work->call, work->key->info.ref, &params,
                                    kms_agentd_key_op(work)->len, &key, &work->sealed);
    }
    if (status == KMS_OK) {
        give_sealed(work);
        work->reply.key = kms_agent_put_span(kms_buf_span(&key));
    }
    return status;
}

typedef enum kms_status (*waist_bytes)(struct kms_waist *waist, struct kms_call *call,
                                       const char *ref, const struct kms_params *params,
                                       struct kms_span in, struct kms_buf *ret_bytes);

static enum kms_status bytes(struct kms_agentd_work *work, struct kms_waist *waist, waist_bytes op)
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

static enum kms_status run_encrypt(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return seal(work, waist, kms_waist_encrypt);
}

static enum kms_status run_wrap(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return seal(work, waist, kms_waist_wrap);
}

static enum kms_status run_decrypt(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_decrypt);
}

static enum kms_status run_unwrap(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_unwrap);
}

static enum kms_status run_sign(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_sign);
}

static enum kms_status run_mac(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return bytes(work, waist, kms_waist_mac);
}

static enum kms_status run_verify(struct kms_agentd_work *work, struct kms_waist *waist)
{
    struct kms_params params;
    enum kms_status status = get_params(work, &params);

    return status == KMS_OK
               ? kms_waist_verify(waist, &work->call, work->key->info.ref, &params, input_of(work),
                                  kms_agent_get_span(kms_agentd_key_op(work)->signature))
               : status;
}

/* From memory where we have it. */
static enum kms_status run_public_key(struct kms_agentd_work *work, struct kms_waist *waist)
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

static enum kms_status run_destroy(struct kms_agentd_work *work, struct kms_waist *waist)
{
    return kms_waist_destroy(waist, &work->call, work->key->info.ref);
}

static enum kms_status run_set_label(struct kms_agentd_work *work, struct kms_waist *waist)
{
    char label[KMS_LABEL_MAX];
    enum kms_status status =
        kms_agentd_check_label(work, "SetLabel.label", work->request->set_label->label, label);
    struct kms_policy_key renamed = kms_agentd_policy_key(&work->key->info);

    if (status != KMS_OK) {
        return status;
    }
    renamed.label = label;
    if ((kms_agentd_rights_on(work, &renamed) & KMS_RIGHT_SET_LABEL) == 0) {
        return kms_agentd_refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                                 "uid %ld may not name a key of token %s \"%s\" (agent.rules)",
                                 (long)work->peering->peer->policy.uid,
                                 kms_agentd_token_name(work->token), label);
    }
    return kms_waist_set_label(waist, &work->call, work->key->info.ref, label);
}

static enum kms_status run_random(struct kms_agentd_work *work, struct kms_waist *waist)
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

static enum kms_status run_generate(struct kms_agentd_work *work, struct kms_waist *waist)
{
    const Kms__Agent__Generate *message = work->request->generate;
    const struct kms_key_template tmpl = {
        .type = (enum kms_key_type)message->type,
        .bits = message->bits,
        .label = work->label,
        .tag = kms_agent_get_span(message->tag),
        .uses = message->uses,
        .logical = true, /* as agent_keys.c has it listed */
    };
    enum kms_status status = KMS_OK;

    if (message->type >= KMS_KEY_TYPE_COUNT) {
        return kms_error_set(&work->call.error, KMS_E_INVALID, "there is no such type of key");
    }
    status = kms_waist_generate(waist, &work->call, &tmpl, &work->made);
    if (status == KMS_OK) {
        const struct kms_policy_key key = kms_agentd_policy_key(&work->made);
        struct kms_call one = {.deadline_ns = work->call.deadline_ns};
        struct kms_buf spki = kms_buf_over(work->room->out.data, work->room->out.cap);

        work->made_uses = work->made.uses;
        work->made.uses = kms_policy_uses(work->made.uses, kms_agentd_rights_on(work, &key));
        kms_agent_put_key(&work->made, &work->made_key, &work->made_algs);
        if (kms_agentd_is_pair(work->made.type) &&
            kms_waist_public_key(waist, &one, work->made.ref, &spki) == KMS_OK) {
            work->made_key.spki = kms_agent_put_span(kms_buf_span(&spki));
        }
        work->made_keys[0] = &work->made_key;
        work->reply.keys = work->made_keys;
        work->reply.n_keys = 1;
    }
    return status;
}

static enum kms_status run_login(struct kms_agentd_work *work, struct kms_waist *waist)
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

/* clang-format off */
static const struct kms_agentd_row rows[] = {
    /* op               call                    audited changes on_key  instead      */
    {CASE(SIGN),        KMS_OP_SIGN,            true,   false,  true,  NULL, run_sign},
    {CASE(DECRYPT),     KMS_OP_DECRYPT,         true,   false,  true,  NULL, run_decrypt},
    {CASE(ENCRYPT),     KMS_OP_ENCRYPT,         true,   false,  true,  NULL, run_encrypt},
    {CASE(WRAP),        KMS_OP_WRAP,            true,   false,  true,  NULL, run_wrap},
    {CASE(UNWRAP),      KMS_OP_UNWRAP,          true,   false,  true,  NULL, run_unwrap},
    {CASE(VERIFY),      KMS_OP_VERIFY,          true,   false,  true,  NULL, run_verify},
    {CASE(MAC),         KMS_OP_MAC,             true,   false,  true,  NULL, run_mac},
    {CASE(DATA_KEY),    KMS_OP_DATA_KEY,        true,   false,  true,  NULL, run_data_key},
    {CASE(LIST_TOKENS), KMS_AGENTD_LIST_TOKENS, false,  false,  false, kms_agentd_list_tokens, NULL},
    {CASE(LIST_KEYS),   KMS_OP_LIST_KEYS,       false,  false,  false, kms_agentd_list_keys, NULL},
    {CASE(PUBLIC_KEY),  KMS_OP_PUBLIC_KEY,      false,  false,  true,  NULL, run_public_key},
    {CASE(RANDOM),      KMS_OP_RANDOM,          false,  false,  false, NULL, run_random},
    {CASE(GENERATE),    KMS_OP_GENERATE,        true,   true,   false, NULL, run_generate},
    {CASE(DESTROY),     KMS_OP_DESTROY,         true,   true,   true,  NULL, run_destroy},
    {CASE(SET_LABEL),   KMS_OP_SET_LABEL,       true,   true,   true,  NULL, run_set_label},
    {CASE(LOGIN),       KMS_OP_CHECK_PIN,       true,   false,  false, NULL, run_login},
};
/* clang-format on */

const struct kms_agentd_row *kms_agentd_row(Kms__Agent__Request__OpCase op_case)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].op_case == op_case) {
            return &rows[i];
        }
    }
    return NULL;
}
