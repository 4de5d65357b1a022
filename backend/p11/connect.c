/* SPDX-License-Identifier: Apache-2.0 */
/* From nothing, or from what is left, to a token that is logged in. */
#include <stdlib.h>
#include <string.h>

#include "backend/p11/token_state.h"
#include "common/clock.h"
#include "common/secure.h"

#define SLOTS_MAX 256

static enum kms_status start(struct kms_p11_token *token, const struct kms_p11_ask *ask,
                             uint64_t *epoch, struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    uint64_t limit = kms_deadline_in(KMS_P11_DRAIN_NS);

    if (token->module == NULL) {
        status = kms_p11_module_get(token->conf.module, token->conf.init_args, &token->module, err);
        if (status != KMS_OK) {
            return status;
        }
        token->functions = kms_p11_module_functions(token->module);
    }
    limit = ask->deadline_ns < limit ? ask->deadline_ns : limit;
    status = kms_p11_module_start(token->module, *epoch, limit, epoch, err);
    if (status == KMS_E_BUSY) {
        unsigned stuck = 0;
        uint64_t oldest = kms_p11_pool_oldest_ns(token, &stuck);
        unsigned inside = kms_p11_module_inside(token->module);

        if (inside == 0) {
            return kms_error_set(err, KMS_E_UNAVAILABLE,
                                 "%s: the PKCS#11 module is still being started or stopped",
                                 token->conf.name);
        }
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "%s: %u calls stuck in the PKCS#11 module for %llu s; it cannot be "
                             "restarted under them",
                             token->conf.name, inside, (unsigned long long)(oldest / KMS_NS_PER_S));
    }
    return status;
}

/* Labels are blank-padded, never NUL-terminated (PKCS#11 3.2). */
static bool label_is(const CK_TOKEN_INFO *info, const char *label)
{
    size_t len = strlen(label);
    size_t padded = sizeof(info->label);

    while (padded > 0 && (info->label[padded - 1] == ' ' || info->label[padded - 1] == '\0')) {
        padded--;
    }
    return len == padded && memcmp(info->label, label, len) == 0;
}

static bool token_is(const struct kms_p11_token *token, const CK_TOKEN_INFO *info)
{
    if (token->uri != NULL) {
        return kms_p11_uri_matches_token(token->uri, info);
    }
    return label_is(info, token->conf.token);
}

/* The one slot whose token is meant; two of them are an error, never a guess. */
static enum kms_status find_slot(struct kms_p11_token *token, CK_TOKEN_INFO *ret_info,
                                 struct kms_error *err)
{
    CK_SLOT_ID ids[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    unsigned found = 0;
    CK_RV rv = token->functions->C_GetSlotList(CK_TRUE, ids, &count);

    if (rv != CKR_OK) {
        return kms_ckr_error(err, token->conf.name, "C_GetSlotList", rv);
    }
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;

        memset(&info, 0, sizeof(info));
        /* a slot that cannot say what is in it is not the one */
        if (token->functions->C_GetTokenInfo(ids[i], &info) != CKR_OK || !token_is(token, &info)) {
            continue;
        }
        token->slot_id = ids[i];
        *ret_info = info;
        found++;
    }
    if (found == 1) {
        return KMS_OK;
    }
    if (found == 0) {
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "%s: no token \"%s\" in the %lu slots of module %s", token->conf.name,
                             token->conf.token, count, token->conf.module);
    }
    /* not KMS_E_INVALID: that is for what the caller asked, and it did not choose the token */
    return kms_error_set(err, KMS_E_UNAVAILABLE,
                         "%s: %u tokens match \"%s\"; name one by a pkcs11: URI with serial=",
                         token->conf.name, found, token->conf.token);
}

static enum kms_status ask_mechanisms(struct kms_p11_token *token, struct kms_error *err)
{
    CK_MECHANISM_TYPE types[KMS_P11_MECHANISMS_MAX];
    CK_ULONG count = KMS_P11_MECHANISMS_MAX;
    CK_RV rv = token->functions->C_GetMechanismList(token->slot_id, types, &count);

    if (rv != CKR_OK) {
        return kms_ckr_error(err, token->conf.name, "C_GetMechanismList", rv);
    }
    token->mechanism_count = 0;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_MECHANISM_INFO info = {.flags = 0};

        if (token->functions->C_GetMechanismInfo(token->slot_id, types[i], &info) == CKR_OK) {
            token->mechanisms[token->mechanism_count++] =
                (struct kms_p11_mechanism){.type = types[i], .flags = info.flags};
        }
    }
    return KMS_OK;
}

/* The token's own bound on sessions, less the anchor and one that generate and destroy open beside.
 */
static unsigned session_limit(const struct kms_p11_token *token, const CK_TOKEN_INFO *info)
{
    CK_ULONG max = info->ulMaxSessionCount;

    /* some say -1 for "no limit" (CK_EFFECTIVELY_INFINITE is 0) */
    if (max == CK_EFFECTIVELY_INFINITE || max == CK_UNAVAILABLE_INFORMATION ||
        max > token->slot_count) {
        return token->slot_count;
    }
    return max > 3 ? (unsigned)max - 2 : 1;
}

static enum kms_status refuse_pin(struct kms_p11_token *token, struct kms_error *err,
                                  const char *code, const char *why)
{
    return kms_error_set_code(err, KMS_E_AUTH, code,
                              "%s: token \"%s\": %s; it will not be tried again: correct what pin: "
                              "%s holds and it is read anew",
                              token->conf.name, token->conf.token, why, token->conf.pin);
}

static bool same_secret(const struct kms_secret *a, const struct kms_secret *b)
{
    struct kms_span x = kms_secret_span(a);
    struct kms_span y = kms_secret_span(b);

    return x.len == y.len && kms_secret_equal(x.data, y.data, x.len);
}

/* Whether this PIN may be tried at all: a wrong one costs the token one of few tries. */
static enum kms_status may_try(struct kms_p11_token *token, const struct kms_secret *pin,
                               const CK_TOKEN_INFO *info, struct kms_error *err)
{
    if ((info->flags & CKF_USER_PIN_LOCKED) != 0) {
        return kms_error_set_code(err, KMS_E_AUTH, "CKR_PIN_LOCKED",
                                  "%s: token \"%s\": its user PIN is locked; its security officer "
                                  "must unlock it",
                                  token->conf.name, token->conf.token);
    }
    if (token->refused_pin != NULL && same_secret(token->refused_pin, pin)) {
        return refuse_pin(token, err, "CKR_PIN_INCORRECT", "the PIN was refused");
    }
    if ((info->flags & CKF_USER_PIN_FINAL_TRY) !=
        0) { /* a supervisor restarts us with a wrong PIN */
        return kms_error_set(
            err, KMS_E_AUTH,
            "%s: token \"%s\": PINs were refused and only one try is left before it locks, which "
            "is not taken: log in to it once by other means (pkcs11-tool --login --test), then the "
            "PIN is tried again",
            token->conf.name, token->conf.token);
    }
    return KMS_OK;
}

/* The PIN itself was refused. Other failures of C_Login say nothing about it. */
static bool is_about_pin(CK_RV rv)
{
    return rv == CKR_PIN_INCORRECT || rv == CKR_PIN_INVALID || rv == CKR_PIN_LEN_RANGE ||
           rv == CKR_PIN_EXPIRED || rv == CKR_PIN_LOCKED || rv == CKR_PIN_TOO_WEAK;
}

static enum kms_status try_login(struct kms_p11_token *token, CK_SESSION_HANDLE session,
                                 struct kms_secret **pin, struct kms_error *err)
{
    struct kms_span span = kms_secret_span(*pin);
    CK_RV rv = token->functions->C_Login(session, CKU_USER, kms_p11_in(span.data), span.len);

    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
        kms_secret_free(token->refused_pin);
        token->refused_pin = NULL;
        return KMS_OK;
    }
    if (!is_about_pin(rv)) {
        return kms_ckr_error(err, token->conf.name, "C_Login", rv);
    }
    kms_secret_free(token->refused_pin);
    token->refused_pin = *pin;
    *pin = NULL;
    return refuse_pin(token, err, kms_ckr_find(rv)->name,
                      rv == CKR_PIN_EXPIRED  ? "the PIN has expired"
                      : rv == CKR_PIN_LOCKED ? "the PIN is locked"
                                             : "the PIN was refused");
}

/* The PIN, unless it must not be tried; NULL when none is configured or needed. */
static enum kms_status get_pin(struct kms_p11_token *token, const CK_TOKEN_INFO *info,
                               struct kms_secret **ret_pin, struct kms_error *err)
{
    struct kms_error why = KMS_ERROR_INIT;
    struct kms_secret *pin = NULL;
    enum kms_status status = KMS_OK;

    token->logs_in = token->conf.pin != NULL && (info->flags & CKF_LOGIN_REQUIRED) != 0;
    if (!token->logs_in) {
        return KMS_OK;
    }
    if (kms_secret_load(token->conf.pin, &pin, &why) != KMS_OK) {
        /* for a caller, "not found" would be about its key */
        return kms_error_set(err, KMS_E_AUTH, "%s: pin: %s", token->conf.name, why.text);
    }
    status = may_try(token, pin, info, err);
    if (status != KMS_OK) {
        kms_secret_free(pin);
        return status;
    }
    *ret_pin = pin;
    return KMS_OK;
}

/* Logs in, on a session that becomes the anchor. */
static enum kms_status open_and_login(struct kms_p11_token *token, const CK_TOKEN_INFO *info,
                                      struct kms_error *err)
{
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    struct kms_secret *pin = NULL;
    enum kms_status status = get_pin(token, info, &pin, err);
    CK_RV rv = CKR_OK;

    if (status != KMS_OK) {
        return status;
    }
    rv = token->functions->C_OpenSession(token->slot_id, CKF_SERIAL_SESSION, NULL, NULL, &session);
    if (rv != CKR_OK) {
        status = kms_ckr_error(err, token->conf.name, "C_OpenSession", rv);
        goto out;
    }
    if (pin != NULL) {
        status = try_login(token, session, &pin, err);
    }
    if (status == KMS_OK) {
        CK_SESSION_HANDLE old = token->anchor;

        token->anchor = session;
        session = old;
    }
    if (session != CK_INVALID_HANDLE) {
        (void)token->functions->C_CloseSession(session);
    }
out:
    kms_secret_free(pin);
    return status;
}

static enum kms_status connect_inside(struct kms_p11_token *token, enum kms_p11_need *need,
                                      unsigned *ret_limit, struct kms_error *err)
{
    CK_TOKEN_INFO info;
    enum kms_status status = KMS_OK;

    memset(&info, 0, sizeof(info));
    if (*need != KMS_P11_NEED_LOGIN) {
        status = find_slot(token, &info, err);
        if (status != KMS_OK) {
            /* many modules see a new token only after C_Initialize; but others may be at work */
            *need =
                kms_p11_module_is_shared(token->module) ? KMS_P11_NEED_SLOT : KMS_P11_NEED_START;
            return status;
        }
        status = ask_mechanisms(token, err);
    } else {
        CK_RV rv = token->functions->C_GetTokenInfo(token->slot_id, &info);

        status = rv == CKR_OK ? KMS_OK : kms_ckr_error(err, token->conf.name, "C_GetTokenInfo", rv);
    }
    if (status != KMS_OK) {
        *need = KMS_P11_NEED_START;
        return status;
    }
    token->info = info;
    *ret_limit = session_limit(token, &info);
    status = open_and_login(token, &info, err);
    *need = status == KMS_OK || status == KMS_E_AUTH ? KMS_P11_NEED_LOGIN : KMS_P11_NEED_START;
    return status;
}

enum kms_status kms_p11_connect(struct kms_p11_token *token, const struct kms_p11_ask *ask,
                                enum kms_p11_need *need, uint64_t *epoch, unsigned *ret_limit,
                                struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    if (*need == KMS_P11_NEED_START) {
        token->anchor = CK_INVALID_HANDLE;
        status = start(token, ask, epoch, err);
        if (status != KMS_OK) {
            return status;
        }
        *need = KMS_P11_NEED_SLOT;
    }
    if (!kms_p11_module_enter(token->module, *epoch)) {
        *need = KMS_P11_NEED_START;
        return kms_error_set(err, KMS_E_UNAVAILABLE, "%s: the PKCS#11 module is being restarted",
                             token->conf.name);
    }
    status = connect_inside(token, need, ret_limit, err);
    kms_p11_module_leave(token->module);
    return status;
}
