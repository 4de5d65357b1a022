/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "backend/p11/token_state.h"
#include "common/clock.h"

enum kms_status kms_p11_pool_init(struct kms_p11_token *token, struct kms_error *err)
{
    unsigned count = token->conf.sessions;

    token->slots = calloc(count, sizeof(*token->slots));
    token->free_slots = calloc(count, sizeof(struct kms_p11_slot *));
    if (token->slots == NULL || token->free_slots == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for %u sessions", count);
    }
    for (unsigned i = 0; i < count; i++) {
        atomic_init(&token->slots[i].entered_ns, 0);
        token->free_slots[i] = &token->slots[i];
    }
    token->slot_count = count;
    token->free_count = count;
    token->bound = count;
    token->limit = count;
    return KMS_OK;
}

void kms_p11_pool_done(struct kms_p11_token *token)
{
    free(token->slots);
    free(token->free_slots);
}

struct kms_p11_slot *kms_p11_pool_take_locked(struct kms_p11_token *token)
{
    if (token->limit < token->bound && kms_deadline_passed(token->limit_until_ns)) {
        token->limit = token->bound;
    }
    if (token->free_count == 0 || token->busy >= token->limit) {
        return NULL;
    }
    token->busy++;
    return token->free_slots[--token->free_count];
}

void kms_p11_pool_give_locked(struct kms_p11_token *token, struct kms_p11_slot *slot)
{
    if (slot->session == CK_INVALID_HANDLE) { /* those that are open go first */
        memmove(token->free_slots + 1, token->free_slots,
                token->free_count * sizeof(struct kms_p11_slot *));
        token->free_slots[0] = slot;
    } else {
        token->free_slots[token->free_count] = slot;
    }
    slot->lost = false;
    token->free_count++;
    token->busy--;
}

void kms_p11_pool_full_locked(struct kms_p11_token *token)
{
    token->limit = token->open > 0 ? token->open : 1;
    token->limit_until_ns = kms_deadline_in(KMS_P11_COUNT_NS);
}

uint64_t kms_p11_pool_oldest_ns(const struct kms_p11_token *token, unsigned *ret_stuck)
{
    uint64_t now = kms_now_ns();
    uint64_t oldest = 0;

    *ret_stuck = 0;
    for (unsigned i = 0; i < token->slot_count; i++) {
        uint64_t entered = atomic_load_explicit(&token->slots[i].entered_ns, memory_order_relaxed);
        uint64_t age = entered == 0 || entered >= now ? 0 : now - entered;

        oldest = age > oldest ? age : oldest;
        *ret_stuck += age >= KMS_P11_STUCK_NS ? 1u : 0u;
    }
    return oldest;
}

static bool is_stuck(const struct kms_p11_slot *slot, uint64_t before_ns, uint64_t now)
{
    uint64_t entered = atomic_load_explicit(&slot->entered_ns, memory_order_relaxed);

    return entered != 0 && entered < before_ns && now - entered >= KMS_P11_STUCK_NS;
}

void kms_p11_pool_lose_locked(struct kms_p11_token *token, uint64_t entered_ns)
{
    uint64_t now = kms_now_ns();

    for (unsigned i = 0; token->busy > 1 && i < token->slot_count; i++) {
        if (is_stuck(&token->slots[i], entered_ns, now)) {
            token->slots[i].lost = true;
        }
    }
}

unsigned kms_p11_pool_unexplained_locked(const struct kms_p11_token *token)
{
    uint64_t now = kms_now_ns();
    unsigned count = 0;

    for (unsigned i = 0; i < token->slot_count; i++) {
        count += !token->slots[i].lost && is_stuck(&token->slots[i], now, now) ? 1u : 0u;
    }
    return count;
}

static CK_RV open_session(struct kms_p11_token *token, CK_FLAGS flags, CK_SESSION_HANDLE *session)
{
    return token->functions->C_OpenSession(token->slot_id, CKF_SERIAL_SESSION | flags, NULL, NULL,
                                           session);
}

CK_RV kms_p11_slot_open(struct kms_p11_token *token, struct kms_p11_slot *slot,
                        enum kms_p11_mode mode, uint64_t epoch, bool *ret_opened,
                        const char **ret_function)
{
    CK_RV rv = CKR_OK;

    *ret_function = "C_OpenSession";
    if (slot->epoch != epoch) { /* of a module that was finalized since: gone by itself */
        slot->session = CK_INVALID_HANDLE;
        slot->epoch = epoch;
    }
    *ret_opened = slot->session == CK_INVALID_HANDLE;
    if (*ret_opened) {
        rv = open_session(token, 0, &slot->session);
    }
    if (rv != CKR_OK) {
        slot->session = CK_INVALID_HANDLE;
        *ret_opened = false;
        return rv;
    }
    if (mode != KMS_P11_READ) {
        rv = open_session(token, CKF_RW_SESSION, &slot->write_session);
        slot->write_session = rv == CKR_OK ? slot->write_session : CK_INVALID_HANDLE;
    }
    return rv;
}

void kms_p11_slot_close(struct kms_p11_token *token, struct kms_p11_slot *slot)
{
    if (slot->session != CK_INVALID_HANDLE) {
        (void)token->functions->C_CloseSession(slot->session);
        slot->session = CK_INVALID_HANDLE;
    }
}
