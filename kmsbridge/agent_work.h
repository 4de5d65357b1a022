/* SPDX-License-Identifier: Apache-2.0 */
/* One request, as agent_ops.c (who may, and the answer), agent_lists.c and agent_run.c (what is
 * done) share it. */
#ifndef KMSBRIDGE_AGENT_WORK_H
#define KMSBRIDGE_AGENT_WORK_H

#include "kmsbridge/agent_parts.h"

struct kms_agentd_row;

/* One request on its way. */
struct kms_agentd_work {
    const struct kms_agentd_peering *peering;
    struct kms_agentd_state *state;
    struct kms_agentd_room *room;
    const Kms__Agent__Request *request;
    const struct kms_agentd_row *row;
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
    struct kms_key_info made; /* uses: what the peer may */
    unsigned made_uses;       /* all of them */
    Kms__Agent__Key made_key;
    Kms__Agent__AlgSet made_algs;
    Kms__Agent__Key *made_keys[1];
    uint8_t *page; /* the whole frame of a list */
    struct kms_span frame;
};

/* What stands on a key of its request. */
typedef enum kms_status (*kms_agentd_run)(struct kms_agentd_work *work, struct kms_waist *waist);

struct kms_agentd_row {
    Kms__Agent__Request__OpCase op_case;
    unsigned call; /* enum kms_op, KMS_AGENTD_LIST_TOKENS */
    bool audited;  /* also when it went well */
    bool changes;  /* the list of keys */
    bool on_key;   /* KeyOp or KeyRef or SetLabel: names a key */
    enum kms_status (*begin)(
        struct kms_agentd_work *work); /* NULL, or instead of all that is below */
    kms_agentd_run run;
};

/* What is done for an op; NULL: there is no such op. */
const struct kms_agentd_row *kms_agentd_row(Kms__Agent__Request__OpCase op_case);

/* Lists answer by a frame of their own: work->page. */
enum kms_status kms_agentd_list_tokens(struct kms_agentd_work *work) KMS_MUST_CHECK;
enum kms_status kms_agentd_list_keys(struct kms_agentd_work *work) KMS_MUST_CHECK;

/* Sets the call's error, and which of our bounds or rules it was. */
enum kms_status kms_agentd_refuse(struct kms_agentd_work *work, enum kms_refusal refusal,
                                  enum kms_status status, const char *fmt, ...) KMS_PRINTF(4, 5);
struct kms_policy_key kms_agentd_policy_key(const struct kms_key_info *info);
unsigned kms_agentd_rights_on(const struct kms_agentd_work *work, const struct kms_policy_key *key);
unsigned kms_agentd_rights_on_token(const struct kms_agentd_work *work,
                                    const struct kms_agentd_token *token);
/* UTF-8 without NUL, not too long. */
enum kms_status kms_agentd_check_label(struct kms_agentd_work *work, const char *field,
                                       ProtobufCBinaryData text,
                                       char ret_label[KMS_LABEL_MAX]) KMS_MUST_CHECK;
/* The request's, whichever of the ops on a key it is. */
static inline const Kms__Agent__KeyOp *kms_agentd_key_op(const struct kms_agentd_work *work)
{
    /* every member of the oneof is a pointer to its message, all those of KeyOps alike */
    return work->request->sign;
}

#endif
