/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/slots.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "pkcs11/core/log.h"

#define SLOT_IDS_MAX    256                   /* tokens that one process may meet in its life */
#define LIST_TIMEOUT_NS (5 * KMS_NS_PER_S)    /* a private agent may have to be started */
#define QUIET_NS        (200 * KMS_NS_PER_MS) /* after a failure nobody asks for so long unbidden */

/* Which token a slot id names, for the life of the process: also across C_Finalize and fork(). */
static struct {
    pthread_mutex_t mutex; /* guards the rest */
    char name[SLOT_IDS_MAX][KMS_AGENT_NAME_MAX];
    size_t count;
} ids = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct kms_slots {
    struct kms_agent *agent;
    const atomic_bool *cancelled;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t answered;
    bool asking;             /* one caller waits for the agent */
    bool asked;              /* it has answered once */
    uint64_t quiet_until_ns; /* it could not be reached a moment ago */
    size_t count;
    struct kms_slot *slot[SLOT_IDS_MAX]; /* in the order that they were first seen in */
    struct kms_slot *retired;
};

void kms_slots_forked(void)
{
    ids.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static bool id_of(const char *name, CK_SLOT_ID *ret_id)
{
    size_t i = 0;
    bool good = true;

    (void)pthread_mutex_lock(&ids.mutex);
    while (i < ids.count && strcmp(ids.name[i], name) != 0) {
        i++;
    }
    if (i == ids.count) {
        good = ids.count < SLOT_IDS_MAX && strlen(name) < KMS_AGENT_NAME_MAX;
        if (good) {
            memcpy(ids.name[ids.count++], name, strlen(name) + 1);
        }
    }
    (void)pthread_mutex_unlock(&ids.mutex);
    *ret_id = (CK_SLOT_ID)i;
    return good;
}

struct kms_slots *kms_slots_new(struct kms_agent *agent, const atomic_bool *cancelled)
{
    struct kms_slots *slots = calloc(1, sizeof(*slots));

    if (slots != NULL) {
        slots->agent = agent;
        slots->cancelled = cancelled;
        (void)pthread_mutex_init(&slots->mutex, NULL);
        (void)pthread_cond_init(&slots->answered, NULL);
    }
    return slots;
}

void kms_slots_free(struct kms_slots *slots)
{
    if (slots == NULL) {
        return;
    }
    for (size_t i = 0; i < slots->count; i++) {
        kms_slot_free(slots->slot[i]);
    }
    for (struct kms_slot *s = slots->retired, *next = NULL; s != NULL; s = next) {
        next = s->retired;
        kms_slot_free(s);
    }
    (void)pthread_cond_destroy(&slots->answered);
    (void)pthread_mutex_destroy(&slots->mutex);
    free(slots);
}

/* ---- what the agent said --------------------------------------------------------------------- */

struct answer {
    struct kms_agent_token *token;
    size_t count;
};

static bool collect(void *ctx, const struct kms_agent_token *token)
{
    struct answer *answer = ctx;

    if (answer->count == KMS_AGENT_TOKENS_MAX) {
        return false;
    }
    answer->token[answer->count++] = *token;
    return true;
}

/* All that C_GetTokenInfo and the mechanism list are made of. */
static bool is_same_token(const struct kms_agent_token *a, const struct kms_agent_token *b)
{
    return strcmp(a->info.label, b->info.label) == 0 &&
           strcmp(a->info.manufacturer, b->info.manufacturer) == 0 &&
           strcmp(a->info.model, b->info.model) == 0 &&
           strcmp(a->info.serial, b->info.serial) == 0 && a->info.hardware == b->info.hardware &&
           a->info.random == b->info.random && a->info.generates == b->info.generates &&
           memcmp(&a->info.algs, &b->info.algs, sizeof(a->info.algs)) == 0 &&
           a->login == b->login && a->keys_ttl_ns == b->keys_ttl_ns;
}

static struct kms_slot **find_locked(struct kms_slots *slots, CK_SLOT_ID id)
{
    for (size_t i = 0; i < slots->count; i++) {
        if (slots->slot[i]->id == id) {
            return &slots->slot[i];
        }
    }
    return NULL;
}

static bool is_in_use(struct kms_slot *slot)
{
    bool used = false;

    (void)pthread_mutex_lock(&slot->mutex);
    used = slot->sessions != 0;
    (void)pthread_mutex_unlock(&slot->mutex);
    return used;
}

/* A slot is read without a lock: when its token has become another, another takes its place, as
 * soon as no session is open. */
static void merge_token_locked(struct kms_slots *slots, const struct kms_agent_token *token)
{
    struct kms_slot **at = NULL;
    struct kms_slot *slot = NULL;
    CK_SLOT_ID id = 0;

    if (!id_of(token->name, &id)) {
        kms_p11_log(KMS_P11_WARN, "token %s: over %d slots", token->name, SLOT_IDS_MAX);
        return;
    }
    at = find_locked(slots, id);
    if (at != NULL && (is_same_token(&(*at)->token, token) || is_in_use(*at))) {
        atomic_store(&(*at)->present, token->present);
        atomic_store(&(*at)->listed, true);
        return;
    }
    if (kms_slot_new(id, token, slots->agent, slots->cancelled, &slot) != CKR_OK) {
        return;
    }
    if (at == NULL) {
        slots->slot[slots->count++] = slot;
    } else {
        (*at)->retired = slots->retired;
        slots->retired = *at;
        *at = slot;
    }
}

static void merge_locked(struct kms_slots *slots, const struct answer *answer)
{
    for (size_t i = 0; i < slots->count; i++) {
        atomic_store(&slots->slot[i]->listed, false);
    }
    for (size_t i = 0; i < answer->count; i++) {
        merge_token_locked(slots, &answer->token[i]);
    }
}

/* No lock is held. False when there was no answer. */
static bool ask(struct kms_slots *slots, struct answer *answer)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(LIST_TIMEOUT_NS),
                            .cancelled = slots->cancelled};
    enum kms_status status = KMS_OK;

    answer->token = calloc(KMS_AGENT_TOKENS_MAX, sizeof(*answer->token));
    if (answer->token == NULL) {
        return false;
    }
    status = kms_agent_list_tokens(slots->agent, &call, collect, answer);
    if (status != KMS_OK) {
        kms_p11_log(KMS_P11_WARN, "no list of tokens: %s: %s", kms_status_name(status),
                    call.error.text);
    }
    return status == KMS_OK;
}

static void refresh_locked(struct kms_slots *slots, bool bidden)
{
    struct answer answer = {.token = NULL};
    bool answered = false;

    if (slots->asking) {
        while (slots->asking && !slots->asked) {
            (void)pthread_cond_wait(&slots->answered, &slots->mutex);
        }
        return;
    }
    if (!bidden && kms_now_ns() < slots->quiet_until_ns) {
        return;
    }
    slots->asking = true;
    (void)pthread_mutex_unlock(&slots->mutex);
    answered = ask(slots, &answer);
    (void)pthread_mutex_lock(&slots->mutex);
    if (answered) {
        merge_locked(slots, &answer);
        slots->asked = true;
    } else {
        slots->quiet_until_ns = kms_deadline_in(QUIET_NS);
    }
    slots->asking = false;
    (void)pthread_cond_broadcast(&slots->answered);
    free(answer.token);
}

CK_RV kms_slots_list(struct kms_slots *slots, bool refresh, struct kms_slot ***ret_slots,
                     size_t *ret_count)
{
    struct kms_slot **list = NULL;

    (void)pthread_mutex_lock(&slots->mutex);
    if (refresh || !slots->asked) {
        refresh_locked(slots, refresh);
    }
    list = calloc(slots->count + 1, sizeof(struct kms_slot *));
    if (list != NULL) {
        memcpy(list, slots->slot, slots->count * sizeof(struct kms_slot *));
        *ret_count = slots->count;
        *ret_slots = list;
    }
    (void)pthread_mutex_unlock(&slots->mutex);
    return list == NULL ? CKR_HOST_MEMORY : CKR_OK;
}

CK_RV kms_slots_get(struct kms_slots *slots, CK_SLOT_ID id, struct kms_slot **ret_slot)
{
    struct kms_slot **at = NULL;

    (void)pthread_mutex_lock(&slots->mutex);
    at = find_locked(slots, id);
    if (at == NULL && !slots->asked) {
        refresh_locked(slots,
                       false); /* hosts that remember the id from before, or of before fork */
        at = find_locked(slots, id);
    }
    if (at != NULL) {
        *ret_slot = *at;
    }
    (void)pthread_mutex_unlock(&slots->mutex);
    return at == NULL ? CKR_SLOT_ID_INVALID : CKR_OK;
}
