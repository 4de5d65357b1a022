/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/token.h"

#include <stdlib.h>
#include <string.h>

#include "backend/p11/token_state.h"
#include "common/clock.h"
#include "common/cond.h"

enum kms_status kms_p11_token_new(const struct kms_p11_token_conf *conf,
                                  struct kms_p11_token **ret_token, struct kms_error *err)
{
    struct kms_p11_token *token = calloc(1, sizeof(*token));
    enum kms_status status = KMS_OK;

    if (token == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a token");
    }
    token->conf = *conf;
    token->phase = KMS_P11_DOWN;
    token->need = KMS_P11_NEED_START;
    pthread_mutex_init(&token->lock, NULL);
    kms_cond_init(&token->changed);
    (void)kms_error_set(&token->cause, KMS_E_UNAVAILABLE, "%s: not connected yet", conf->name);
    if (kms_p11_is_uri(conf->token)) {
        status = kms_p11_uri_parse(conf->token, &token->uri, err);
    }
    if (status == KMS_OK) {
        status = kms_p11_pool_init(token, err);
    }
    if (status == KMS_OK) {
        *ret_token = token;
        token = NULL;
    }
    kms_p11_token_free(token);
    return status;
}

static void close_sessions(struct kms_p11_token *token)
{
    for (unsigned i = 0; i < token->slot_count; i++) {
        if (token->slots[i].epoch == token->epoch) {
            kms_p11_slot_close(token, &token->slots[i]);
        }
    }
    if (token->anchor != CK_INVALID_HANDLE) {
        (void)token->functions->C_CloseSession(token->anchor);
    }
}

void kms_p11_token_free(struct kms_p11_token *token)
{
    if (token == NULL) {
        return;
    }
    if (token->module != NULL && kms_p11_module_enter(token->module, token->epoch)) {
        close_sessions(token);
        kms_p11_module_leave(token->module);
    }
    kms_p11_module_put(token->module);
    kms_secret_free(token->refused_pin);
    kms_p11_uri_free(token->uri);
    kms_p11_pool_done(token);
    pthread_cond_destroy(&token->changed);
    pthread_mutex_destroy(&token->lock);
    free(token);
}

const char *kms_p11_token_name(const struct kms_p11_token *token)
{
    return token->conf.name;
}

/* What C_GetMechanismInfo said of it; 0 when the token does not list it. */
static CK_FLAGS flags_of(const struct kms_p11_token *token, CK_MECHANISM_TYPE mechanism)
{
    for (size_t i = 0; i < token->mechanism_count; i++) {
        if (token->mechanisms[i].type == mechanism) {
            return token->mechanisms[i].flags;
        }
    }
    return 0;
}

bool kms_p11_can(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses)
{
    return (flags_of(p->token, mechanism) & uses) == uses;
}

bool kms_p11_offers(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses)
{
    return (flags_of(p->token, mechanism) & uses) != 0;
}

bool kms_p11_is_hardware(const struct kms_p11 *p)
{
    for (size_t i = 0; i < p->token->mechanism_count; i++) {
        if ((p->token->mechanisms[i].flags & CKF_HW) != 0) {
            return true;
        }
    }
    return false;
}

const CK_TOKEN_INFO *kms_p11_token_info(const struct kms_p11 *p)
{
    return &p->token->info;
}

bool kms_p11_is_on(const struct kms_p11 *p, const struct kms_p11_uri *uri)
{
    return kms_p11_uri_matches_token(uri, &p->token->info);
}

CK_RV kms_p11_check_login(struct kms_p11 *p)
{
    CK_SESSION_INFO info = {.state = CKS_RO_USER_FUNCTIONS};
    bool current = false;
    CK_RV rv = CKR_OK;

    if (!p->token->logs_in) {
        return CKR_OK;
    }
    /* it may have been lost, and another thread has repeated it since or is about to; but whoever
     * restarts the module waits until we are out of it, and until then our session tells the truth
     */
    pthread_mutex_lock(&p->token->lock);
    current = p->token->generation == p->generation &&
              (p->token->phase == KMS_P11_UP || p->token->need == KMS_P11_NEED_START);
    pthread_mutex_unlock(&p->token->lock);
    if (!current) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    rv = KMS_P11(p, C_GetSessionInfo)(p->session, &info);
    if (rv == CKR_OK &&
        (info.state == CKS_RO_PUBLIC_SESSION || info.state == CKS_RW_PUBLIC_SESSION)) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    return rv;
}

CK_RV kms_p11_renew(struct kms_p11 *p)
{
    struct kms_p11_slot *slot = p->slot;
    enum kms_p11_mode mode = KMS_P11_READ;
    bool opened = false;
    CK_RV rv = CKR_OK;

    if (slot->write_session != CK_INVALID_HANDLE) {
        mode = KMS_P11_WRITE;
        (void)p->functions->C_CloseSession(slot->write_session);
        slot->write_session = CK_INVALID_HANDLE;
    }
    kms_p11_slot_close(p->token, slot);
    rv = kms_p11_slot_open(p->token, slot, mode, slot->epoch, &opened, &p->function);
    p->session = mode == KMS_P11_READ ? slot->session : slot->write_session;
    return rv;
}

void kms_p11_token_state(struct kms_p11_token *token, struct kms_p11_state *ret_state,
                         struct kms_error *ret_err)
{
    unsigned stuck = 0;
    uint64_t oldest = kms_p11_pool_oldest_ns(token, &stuck);

    pthread_mutex_lock(&token->lock);
    if (token->phase == KMS_P11_CONNECTING) {
        uint64_t since = kms_now_ns() - token->connecting_since_ns;

        oldest = since > oldest ? since : oldest;
    }
    *ret_state = (struct kms_p11_state){
        .ready = token->phase == KMS_P11_UP,
        .open = token->open,
        .busy = token->busy,
        .max = token->limit,
        .repairs = token->repairs,
        .stuck_ns = oldest,
    };
    *ret_err = token->cause;
    pthread_mutex_unlock(&token->lock);
    if (ret_state->ready) {
        kms_error_clear(ret_err);
    }
}
