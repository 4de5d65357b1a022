/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/slot.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft.h"
#include "pkcs11/core/store.h"

#define PIN_PAUSE_NS (200 * KMS_NS_PER_MS)

/* ---- life ------------------------------------------------------------------------------------ */

CK_RV kms_slot_new(CK_SLOT_ID id, const struct kms_agent_token *token, struct kms_agent *agent,
                   const atomic_bool *cancelled, struct kms_slot **ret_slot)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_slot *slot = calloc(1, sizeof(*slot));

    if (slot == NULL) {
        return CKR_HOST_MEMORY;
    }
    slot->id = id;
    slot->token = *token;
    slot->agent = agent;
    slot->ops = &kms_agent_ops;
    slot->cancelled = cancelled;
    (void)pthread_mutex_init(&slot->mutex, NULL);
    atomic_init(&slot->listed, true);
    atomic_init(&slot->present, token->present);
    atomic_init(&slot->open, token->login == KMS_AGENT_LOGIN_NONE);
    slot->store = kms_store_new();
    if (slot->store == NULL ||
        kms_agent_open_token(agent, token->name, &slot->backend, &err) != KMS_OK) {
        kms_slot_free(slot);
        return kms_p11_refuse(CKR_HOST_MEMORY, "token %s: %s", token->name, err.text);
    }
    *ret_slot = slot;
    return CKR_OK;
}

void kms_slot_free(struct kms_slot *slot)
{
    if (slot == NULL) {
        return;
    }
    kms_store_free(slot->store);
    if (slot->backend != NULL) {
        slot->ops->close(slot->backend);
    }
    (void)pthread_mutex_destroy(&slot->mutex);
    free(slot);
}

/* ---- calls to the agent ---------------------------------------------------------------------- */

struct kms_call kms_slot_call(const struct kms_slot *slot)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(KMS_SLOT_TIMEOUT_NS),
                             .cancelled = slot->cancelled};
}

static CK_RV bad_data(enum kms_data data)
{
    switch (data) {
    case KMS_DATA_ENCRYPTED:
        return CKR_ENCRYPTED_DATA_INVALID;
    case KMS_DATA_SIGNATURE:
        return CKR_SIGNATURE_INVALID;
    case KMS_DATA_WRAPPED:
        return CKR_WRAPPED_KEY_INVALID;
    case KMS_DATA_AEAD:
        return CKR_AEAD_DECRYPT_FAILED;
    case KMS_DATA_NONE:
    case KMS_DATA_PLAIN:
        break;
    }
    return CKR_DATA_INVALID;
}

static CK_RV bad_length(enum kms_data data)
{
    switch (data) {
    case KMS_DATA_ENCRYPTED:
    case KMS_DATA_AEAD:
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    case KMS_DATA_SIGNATURE:
        return CKR_SIGNATURE_LEN_RANGE;
    case KMS_DATA_WRAPPED:
        return CKR_WRAPPED_KEY_LEN_RANGE;
    case KMS_DATA_NONE:
    case KMS_DATA_PLAIN:
        break;
    }
    return CKR_DATA_LEN_RANGE;
}

/*
 * Never CKR_DEVICE_REMOVED: hosts throw their sessions away for it, and ours outlive the agent. 0:
 * @data decides.
 */
static const CK_RV values[KMS_STATUS_COUNT] = {
    [KMS_E_INVALID] = CKR_ARGUMENTS_BAD,
    [KMS_E_BAD_DATA] = 0,
    [KMS_E_TOO_LARGE] = 0,
    [KMS_E_NOT_FOUND] = CKR_KEY_HANDLE_INVALID,
    [KMS_E_EXISTS] = CKR_TEMPLATE_INCONSISTENT,
    [KMS_E_UNSUPPORTED] = CKR_MECHANISM_INVALID,
    [KMS_E_AUTH] = CKR_DEVICE_ERROR,
    [KMS_E_DENIED] = CKR_KEY_FUNCTION_NOT_PERMITTED,
    [KMS_E_KEY_STATE] = CKR_KEY_FUNCTION_NOT_PERMITTED,
    [KMS_E_THROTTLED] = CKR_DEVICE_ERROR,
    [KMS_E_UNAVAILABLE] = CKR_DEVICE_ERROR,
    [KMS_E_TIMEOUT] = CKR_DEVICE_ERROR,
    [KMS_E_CANCELLED] = CKR_FUNCTION_CANCELED,
    [KMS_E_PROTOCOL] = CKR_DEVICE_ERROR,
    [KMS_E_BUSY] = CKR_DEVICE_ERROR,
    [KMS_E_NOMEM] = CKR_HOST_MEMORY,
    [KMS_E_INTERNAL] = CKR_GENERAL_ERROR,
};

CK_RV kms_slot_error(const struct kms_slot *slot, const struct kms_call *call, enum kms_data data)
{
    const enum kms_status status = call->error.status;
    CK_RV rv = CKR_GENERAL_ERROR;

    if (status == KMS_E_BAD_DATA) {
        rv = bad_data(data);
    } else if (status == KMS_E_TOO_LARGE) {
        rv = bad_length(data);
    } else if (status == KMS_E_NOT_FOUND && data == KMS_DATA_NONE) {
        rv = CKR_TOKEN_NOT_PRESENT;
    } else if (status > KMS_OK && status < KMS_STATUS_COUNT) {
        rv = values[status];
    }
    kms_p11_log(KMS_P11_WARN, "token %s: %s%s%s: %s", slot->token.name, kms_status_name(status),
                call->error.code[0] == '\0' ? "" : " ", call->error.code, call->error.text);
    return rv;
}

/* ---- what the host is told ------------------------------------------------------------------- */

bool kms_slot_is_present(const struct kms_slot *slot)
{
    /* a service that is away leaves its token where it was: calls report it, and it comes back */
    return atomic_load(&slot->listed) &&
           (atomic_load(&slot->present) || slot->token.info.label[0] != '\0');
}

/* Padded with blanks, no NUL (4.2); UTF-8 is not cut inside a character. */
static void pad(CK_UTF8CHAR *ret_field, size_t size, const char *text)
{
    size_t len = strlen(text);

    if (len > size) {
        len = size;
        while (len > 0 && ((unsigned char)text[len] & 0xc0u) == 0x80) {
            len--;
        }
    }
    memset(ret_field, ' ', size);
    memcpy(ret_field, text, len);
}

void kms_slot_info(const struct kms_slot *slot, CK_SLOT_INFO *ret_info)
{
    memset(ret_info, 0, sizeof(*ret_info));
    pad(ret_info->slotDescription, sizeof(ret_info->slotDescription), slot->token.name);
    pad(ret_info->manufacturerID, sizeof(ret_info->manufacturerID), "kmsbridge");
    /* a token that has never gone is not said to be removable: hosts would poll it */
    ret_info->flags = kms_slot_is_present(slot) ? CKF_TOKEN_PRESENT : CKF_REMOVABLE_DEVICE;
    ret_info->flags |= slot->token.info.hardware ? CKF_HW_SLOT : 0;
}

static CK_FLAGS token_flags(const struct kms_slot *slot)
{
    /* a generator is always there: the token's, or ours */
    CK_FLAGS flags =
        CKF_TOKEN_INITIALIZED | CKF_RNG | CKF_USER_PIN_INITIALIZED | CKF_DUAL_CRYPTO_OPERATIONS;

    if (slot->token.login != KMS_AGENT_LOGIN_NONE) {
        flags |= CKF_LOGIN_REQUIRED;
    }
    if (slot->token.info.generates == 0) {
        flags |= CKF_WRITE_PROTECTED;
    }
    return flags;
}

void kms_slot_token_info(struct kms_slot *slot, CK_TOKEN_INFO *ret_info)
{
    const struct kms_token_info *token = &slot->token.info;

    memset(ret_info, 0, sizeof(*ret_info));
    pad(ret_info->label, sizeof(ret_info->label), token->label);
    pad(ret_info->manufacturerID, sizeof(ret_info->manufacturerID), token->manufacturer);
    pad(ret_info->model, sizeof(ret_info->model), token->model);
    pad(ret_info->serialNumber, sizeof(ret_info->serialNumber), token->serial);
    ret_info->flags = token_flags(slot);
    ret_info->ulMaxSessionCount = CK_EFFECTIVELY_INFINITE;
    ret_info->ulMaxRwSessionCount = CK_EFFECTIVELY_INFINITE;
    (void)pthread_mutex_lock(&slot->mutex);
    ret_info->ulSessionCount = slot->sessions;
    ret_info->ulRwSessionCount = slot->rw_sessions;
    (void)pthread_mutex_unlock(&slot->mutex);
    ret_info->ulMaxPinLen = KMS_AGENT_PIN_MAX - 1;
    ret_info->ulMinPinLen = 0;
    ret_info->ulTotalPublicMemory = CK_UNAVAILABLE_INFORMATION;
    ret_info->ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION;
    ret_info->ulTotalPrivateMemory = CK_UNAVAILABLE_INFORMATION;
    ret_info->ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION;
    memset(ret_info->utcTime, ' ', sizeof(ret_info->utcTime)); /* no CKF_CLOCK_ON_TOKEN */
}

/* ---- login ----------------------------------------------------------------------------------- */

static bool is_logged_in(struct kms_slot *slot)
{
    bool logged_in = false;

    (void)pthread_mutex_lock(&slot->mutex);
    logged_in = slot->logged_in;
    (void)pthread_mutex_unlock(&slot->mutex);
    return logged_in;
}

/* After a wrong PIN, anybody's of this user, the agent makes the next one wait: we do it for the
 * host, whose user would be told of a broken device. */
static enum kms_status try_pin(const struct kms_slot *slot, struct kms_call *call,
                               struct kms_span pin)
{
    const struct timespec pause = {.tv_nsec = (long)PIN_PAUSE_NS};
    enum kms_status status = slot->ops->check_pin(slot->backend, call, pin);

    while (status == KMS_E_THROTTLED && kms_deadline_left(call->deadline_ns) > PIN_PAUSE_NS &&
           !atomic_load(slot->cancelled)) {
        (void)nanosleep(&pause, NULL);
        kms_error_clear(&call->error);
        status = slot->ops->check_pin(slot->backend, call, pin);
    }
    return status;
}

static CK_RV check_pin(const struct kms_slot *slot, struct kms_span pin)
{
    struct kms_call call = kms_slot_call(slot);

    if (slot->token.login != KMS_AGENT_LOGIN_PIN) {
        return CKR_OK; /* who the caller is, the agent knows from the kernel */
    }
    if (pin.data == NULL) {
        return CKR_ARGUMENTS_BAD; /* no CKF_PROTECTED_AUTHENTICATION_PATH */
    }
    if (pin.len >= KMS_AGENT_PIN_MAX || slot->ops->check_pin == NULL) {
        return CKR_PIN_INCORRECT;
    }
    switch (try_pin(slot, &call, pin)) {
    case KMS_OK:
        return CKR_OK;
    case KMS_E_AUTH:
        return kms_p11_refuse(CKR_PIN_INCORRECT, "token %s: wrong PIN", slot->token.name);
    default:
        return kms_slot_error(slot, &call, KMS_DATA_NONE);
    }
}

CK_RV kms_slot_login(struct kms_slot *slot, CK_USER_TYPE user, struct kms_span pin, bool operation)
{
    CK_RV rv = CKR_OK;

    if (pin.data == NULL && pin.len != 0) {
        return CKR_ARGUMENTS_BAD;
    }
    if (user == CKU_CONTEXT_SPECIFIC) { /* no key of ours asks for it, and none minds */
        return operation ? check_pin(slot, pin) : CKR_OPERATION_NOT_INITIALIZED;
    }
    if (user != CKU_USER) {
        return CKR_USER_TYPE_INVALID; /* the security officer's work is done elsewhere */
    }
    if (is_logged_in(slot)) {
        return CKR_USER_ALREADY_LOGGED_IN;
    }
    rv = check_pin(slot, pin);
    if (rv != CKR_OK) {
        return rv;
    }
    (void)pthread_mutex_lock(&slot->mutex);
    if (slot->logged_in) {
        rv = CKR_USER_ALREADY_LOGGED_IN;
    } else {
        slot->logged_in = true;
        atomic_store(&slot->open, true);
    }
    (void)pthread_mutex_unlock(&slot->mutex);
    return rv;
}

static void logout_locked(struct kms_slot *slot)
{
    slot->logged_in = false;
    atomic_store(&slot->open, slot->token.login == KMS_AGENT_LOGIN_NONE);
}

CK_RV kms_slot_logout(struct kms_slot *slot)
{
    bool was = false;

    (void)pthread_mutex_lock(&slot->mutex);
    was = slot->logged_in;
    logout_locked(slot);
    (void)pthread_mutex_unlock(&slot->mutex);
    if (!was) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    kms_store_drop_private(slot);
    return CKR_OK;
}

void kms_slot_count(struct kms_slot *slot, bool rw, bool came)
{
    (void)pthread_mutex_lock(&slot->mutex);
    if (came) {
        slot->sessions++;
        slot->rw_sessions += rw;
    } else {
        slot->sessions--;
        slot->rw_sessions -= rw;
        if (slot->sessions == 0) {
            logout_locked(slot);
        }
    }
    (void)pthread_mutex_unlock(&slot->mutex);
}

CK_RV kms_slot_random(const struct kms_slot *slot, uint8_t *bytes, size_t len)
{
    struct kms_call call = kms_slot_call(slot); /* one deadline for all the pieces */

    if (!slot->token.info.random || slot->ops->random == NULL) {
        return kms_soft_random(bytes, len);
    }
    while (len > 0) {
        struct kms_buf piece =
            kms_buf_over(bytes, len < KMS_AGENT_RANDOM_MAX ? len : KMS_AGENT_RANDOM_MAX);

        if (slot->ops->random(slot->backend, &call, &piece) != KMS_OK) {
            return kms_slot_error(slot, &call, KMS_DATA_NONE);
        }
        if (piece.len == 0) {
            return CKR_DEVICE_ERROR;
        }
        bytes += piece.len;
        len -= piece.len;
    }
    return CKR_OK;
}
