/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc_parts.h"

#include <string.h>

#include "common/clock.h"

#define JOIN_NS (500 * KMS_NS_PER_MS) /* how long a call may be joined by identical ones */

/* --- identical calls --- */

static struct kms_rpc_call **bucket_of(struct kms_rpc *rpc, const struct kms_rpc_call *call)
{
    return &rpc->buckets[call->same[0] % KMS_RPC_SAME_BUCKETS];
}

/*
 * Whether @call may wait for @leader's answer: not for one that has taken long, since its key
 * service may hang, and would take every later call of the same ciphertext with it.
 */
static bool same_leads(const struct kms_rpc_call *leader, const struct kms_rpc_call *call)
{
    return leader->method == call->method &&
           memcmp(leader->same, call->same, KMS_RPC_SAME_LEN) == 0 &&
           call->arrived_ns < leader->request.deadline_ns &&
           call->arrived_ns - leader->arrived_ns < JOIN_NS;
}

/* True when an identical call is under way and will answer this one. Otherwise this one leads. */
bool kms_rpc_same_join(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    if (call->method->same == NULL || !call->method->same(rpc->ctx, &call->request, call->same)) {
        return false;
    }
    bool joined = false;
    pthread_mutex_lock(&rpc->same_mutex);
    struct kms_rpc_call **bucket = bucket_of(rpc, call);
    struct kms_rpc_call *leader = *bucket;
    while (leader != NULL && !same_leads(leader, call)) {
        leader = leader->same_next;
    }
    if (leader != NULL) {
        call->leader = leader;
        call->next = leader->followers;
        leader->followers = call;
        joined = true;
    } else {
        call->leads = true;
        call->same_next = *bucket;
        *bucket = call;
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    return joined;
}

struct kms_rpc_call *kms_rpc_same_leave(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    if (!call->leads) {
        return NULL;
    }
    pthread_mutex_lock(&rpc->same_mutex);
    struct kms_rpc_call **at = bucket_of(rpc, call);
    while (*at != call) {
        at = &(*at)->same_next;
    }
    *at = call->same_next;
    struct kms_rpc_call *followers = call->followers;
    call->followers = NULL;
    call->leads = false;
    for (struct kms_rpc_call *f = followers; f != NULL; f = f->next) {
        f->leader = NULL; /* nobody else will answer it */
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    return followers;
}

/* The client of a call that waits for another's answer has gone: it is answered now. */
void kms_rpc_same_abandon(struct kms_rpc_call *call)
{
    struct kms_rpc *rpc = call->rpc;
    pthread_mutex_lock(&rpc->same_mutex);
    bool waited = call->leader != NULL;
    if (waited) {
        struct kms_rpc_call **at = &call->leader->followers;
        while (*at != call) {
            at = &(*at)->next;
        }
        *at = call->next;
        call->next = NULL;
        call->leader = NULL;
    }
    pthread_mutex_unlock(&rpc->same_mutex);
    if (waited) {
        call->place = KMS_RPC_COALESCED;
        kms_rpc_reply_error(&call->reply, KMS_E_CANCELLED, "cancelled");
        kms_rpc_call_send(call);
    }
}

static void follower_answer(struct kms_rpc_call *follower, const struct kms_rpc_call *leader)
{
    follower->place = KMS_RPC_COALESCED;
    if (leader->reply.status != KMS_OK) {
        kms_rpc_reply_error(&follower->reply, leader->reply.status, leader->reply.detail);
    } else if (!kms_rpc_reply_storage(follower) ||
               kms_buf_put(&follower->reply.message, kms_buf_span(&leader->reply.message)) !=
                   KMS_OK) {
        kms_rpc_reply_error(&follower->reply, KMS_E_NOMEM, "no memory for a reply");
    } else {
        follower->reply.status = KMS_OK;
    }
    kms_rpc_call_hand_over(follower);
}

/* The leader's own end (its client's patience) is not its followers': they go on by themselves. */
void kms_rpc_followers_answer(struct kms_rpc_call *followers, const struct kms_rpc_call *leader)
{
    bool own_end =
        leader->reply.status == KMS_E_CANCELLED || leader->reply.status == KMS_E_TIMEOUT ||
        (leader->reply.status != KMS_OK && kms_deadline_passed(leader->request.deadline_ns));
    while (followers != NULL) {
        struct kms_rpc_call *follower = followers;
        followers = follower->next;
        follower->next = NULL;
        if (!own_end) {
            follower_answer(follower, leader);
        } else if (!kms_rpc_work_push(leader->rpc, follower)) {
            kms_rpc_reply_error(&follower->reply, KMS_E_BUSY, "the queue is full");
            kms_rpc_call_hand_over(follower);
        }
    }
}
