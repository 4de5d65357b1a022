/* SPDX-License-Identifier: Apache-2.0 */
/* One request: who may, how long, the answer, the audit's line. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/codec.h"
#include "kmsbridge/agent_work.h"

#define CASE(name) KMS__AGENT__REQUEST__OP_##name

enum kms_status kms_agentd_refuse(struct kms_agentd_work *work, enum kms_refusal refusal,
                                  enum kms_status status, const char *fmt, ...)
{
    char text[KMS_ERROR_TEXT_MAX] = "";
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    work->refusal = refusal;
    return kms_error_set(&work->call.error, status, "%s", text);
}

static enum kms_op op_of(const struct kms_agentd_work *work)
{
    return (enum kms_op)work->row->call;
}

struct kms_policy_key kms_agentd_policy_key(const struct kms_key_info *info)
{
    return (struct kms_policy_key){.label = info->label,
                                   .tag = kms_span_of(info->tag, info->tag_len)};
}

unsigned kms_agentd_rights_on(const struct kms_agentd_work *work, const struct kms_policy_key *key)
{
    return kms_policy_key(&work->state->policy, &work->peering->peer->policy,
                          kms_agentd_token_name(work->token), key);
}

unsigned kms_agentd_rights_on_token(const struct kms_agentd_work *work,
                                    const struct kms_agentd_token *token)
{
    return kms_policy_token(&work->state->policy, &work->peering->peer->policy,
                            kms_agentd_token_name(token));
}

enum kms_status kms_agentd_check_label(struct kms_agentd_work *work, const char *field,
                                       ProtobufCBinaryData text, char ret_label[KMS_LABEL_MAX])
{
    enum kms_status status =
        kms_agent_get_text(field, text, ret_label, KMS_LABEL_MAX, &work->call.error);

    return status == KMS_OK && !kms_utf8_valid(kms_span_str(ret_label))
               ? kms_error_set(&work->call.error, KMS_E_INVALID, "the label is not UTF-8")
               : status;
}

/* --- who may ------------------------------------------------------------------------------------
 */

static enum kms_status find_token(struct kms_agentd_work *work)
{
    struct kms_span name = kms_agent_get_span(work->request->token);
    struct kms_agentd_token *token = kms_agentd_tokens_find(&work->state->tokens, name);

    /* one that the peer may not see is none */
    if (token == NULL || kms_agentd_rights_on_token(work, token) == 0) {
        return kms_error_set(&work->call.error, KMS_E_NOT_FOUND, "there is no such token");
    }
    work->token = token;
    return KMS_OK;
}

static ProtobufCBinaryData ref_of(const struct kms_agentd_work *work)
{
    switch (work->row->op_case) {
    case CASE(DESTROY):
        return work->request->destroy->ref;
    case CASE(PUBLIC_KEY):
        return work->request->public_key->ref;
    case CASE(SET_LABEL):
        return work->request->set_label->ref;
    default:
        return kms_agentd_key_op(work)->ref;
    }
}

/* What the op does, for people. */
static enum kms_status deny(struct kms_agentd_work *work, const char *label)
{
    return kms_agentd_refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                             "uid %ld may not %s with key \"%s\" of token %s (agent.rules)",
                             (long)work->peering->peer->policy.uid,
                             kms_agentd_call_name(work->row->call), label,
                             kms_agentd_token_name(work->token));
}

static enum kms_status check_key(struct kms_agentd_work *work)
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
    key = kms_agentd_policy_key(&work->key->info);
    return (kms_agentd_rights_on(work, &key) & kms_policy_needs(op_of(work))) != 0
               ? KMS_OK
               : deny(work, work->key->info.label);
}

static enum kms_status check_generate(struct kms_agentd_work *work, char label[KMS_LABEL_MAX])
{
    const Kms__Agent__Generate *message = work->request->generate;
    struct kms_policy_key key = {.label = label, .tag = kms_agent_get_span(message->tag)};
    enum kms_status status = kms_agentd_check_label(work, "Generate.label", message->label, label);

    if (status != KMS_OK) {
        return status;
    }
    work->label = label;
    return (kms_agentd_rights_on(work, &key) & KMS_RIGHT_GENERATE) != 0 ? KMS_OK
                                                                        : deny(work, label);
}

static enum kms_status check_rights(struct kms_agentd_work *work, char label[KMS_LABEL_MAX])
{
    if (work->row->on_key) {
        return check_key(work);
    }
    if (work->row->call == KMS_OP_GENERATE) {
        return check_generate(work, label);
    }
    if (work->row->call == KMS_OP_RANDOM &&
        (kms_agentd_rights_on_token(work, work->token) & KMS_RIGHT_RANDOM) == 0) {
        return kms_agentd_refuse(work, KMS_REFUSAL_POLICY, KMS_E_DENIED,
                                 "uid %ld may not have random bytes of token %s (agent.rules)",
                                 (long)work->peering->peer->policy.uid,
                                 kms_agentd_token_name(work->token));
    }
    return KMS_OK;
}

/* --- one request --------------------------------------------------------------------------------
 */

/* The list has changed; what was made may be used at once. */
static void note_change(const struct kms_agentd_work *work, enum kms_status status)
{
    struct kms_key_info info = work->made;

    kms_agentd_token_touch(work->token);
    if (status == KMS_OK && work->row->call == KMS_OP_GENERATE) {
        info.uses = work->made_uses;
        kms_agentd_token_learn(work->token, &info, kms_agent_get_span(work->made_key.spki));
    }
}

static enum kms_status in_lane(struct kms_agentd_work *work)
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
        note_change(work, status);
    }
    return status;
}

static enum kms_status in_limits(struct kms_agentd_work *work, char label[KMS_LABEL_MAX])
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

static enum kms_status do_it(struct kms_agentd_work *work, char label[KMS_LABEL_MAX])
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

/* Which key it was: of what sealed the very one, which the service may have chosen itself. */
static const char *key_id_of(const struct kms_agentd_work *work, const struct kms_key_info *info,
                             enum kms_status verdict)
{
    if (verdict == KMS_OK && work->sealed.key_id[0] != '\0') {
        return work->sealed.key_id;
    }
    return info == NULL ? NULL : info->id;
}

static const char *mechanism_of(const struct kms_agentd_work *work)
{
    return work->alg == KMS_ALG_NONE ? NULL : kms_alg_name(work->alg);
}

/* Whether it is written down; KMS_E_UNAVAILABLE when it had to be and could not. */
static enum kms_status write_down(struct kms_agentd_work *work, enum kms_status verdict,
                                  uint64_t began_ns, struct kms_error *err)
{
    const struct kms_key_info *info = work->key != NULL         ? &work->key->info
                                      : work->reply.n_keys == 1 ? &work->made
                                                                : NULL;
    struct kms_audit_record record = {
        .front = "agent",
        .peer = &work->peering->peer->audit,
        .token = work->token == NULL ? NULL : kms_agentd_token_name(work->token),
        .key_id = key_id_of(work, info, verdict),
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
static void give_error(struct kms_agentd_work *work, const struct kms_error *error)
{
    kms_agent_put_error(error, &work->error);
    work->reply = (Kms__Agent__Reply)KMS__AGENT__REPLY__INIT;
    work->reply.error = &work->error;
}

static uint64_t deadline_of(const struct kms_agentd_work *work)
{
    uint64_t ours = work->state->conf->agent.call_timeout_ns;
    uint64_t theirs = work->request->timeout_ms * KMS_NS_PER_MS;

    return kms_deadline_in(theirs != 0 && theirs < ours ? theirs : ours);
}

static enum kms_status pack_reply(struct kms_agentd_work *work, struct kms_error *err)
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

static enum kms_status serve(struct kms_agentd_work *work, struct kms_error *err)
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
static enum kms_status check_request(struct kms_agentd_work *work, struct kms_error *err)
{
    work->row = kms_agentd_row(work->request->op_case);
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
    struct kms_agentd_work work = {.peering = peering, .state = state, .room = room};
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
