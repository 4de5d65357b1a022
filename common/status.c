/* SPDX-License-Identifier: Apache-2.0 */
#include "common/status.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[KMS_STATUS_COUNT] = {
    [KMS_OK] = "ok",
    [KMS_E_INVALID] = "invalid",
    [KMS_E_BAD_DATA] = "bad_data",
    [KMS_E_TOO_LARGE] = "too_large",
    [KMS_E_NOT_FOUND] = "not_found",
    [KMS_E_EXISTS] = "exists",
    [KMS_E_UNSUPPORTED] = "unsupported",
    [KMS_E_AUTH] = "auth",
    [KMS_E_DENIED] = "denied",
    [KMS_E_KEY_STATE] = "key_state",
    [KMS_E_THROTTLED] = "throttled",
    [KMS_E_UNAVAILABLE] = "unavailable",
    [KMS_E_TIMEOUT] = "timeout",
    [KMS_E_CANCELLED] = "cancelled",
    [KMS_E_PROTOCOL] = "protocol",
    [KMS_E_BUSY] = "busy",
    [KMS_E_NOMEM] = "no_memory",
    [KMS_E_INTERNAL] = "internal",
};

/* What others wrote (a key of a file, a module's message) may hold newlines; one sentence may not.
 */
static void replace_controls(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = ' ';
        }
    }
}

static void set_va(struct kms_error *err, enum kms_status status, const char *code, const char *fmt,
                   va_list args) KMS_PRINTF(4, 0);

static void set_va(struct kms_error *err, enum kms_status status, const char *code, const char *fmt,
                   va_list args)
{
    err->status = status;
    err->request_id[0] = '\0';
    err->retry_after_ns = 0;
    (void)snprintf(err->code, sizeof(err->code), "%s", code == NULL ? "" : code);
    if (vsnprintf(err->text, sizeof(err->text), fmt, args) < 0) {
        err->text[0] = '\0';
    }
    replace_controls(err->code);
    replace_controls(err->text);
}

enum kms_status kms_error_reword(struct kms_error *err, enum kms_status status, const char *fmt,
                                 ...)
{
    struct kms_error now = KMS_ERROR_INIT;
    va_list args;

    if (err == NULL) {
        return status;
    }
    va_start(args, fmt);
    set_va(&now, status, NULL, fmt, args);
    va_end(args);
    err->status = status;
    memcpy(err->text, now.text, sizeof(err->text));
    return status;
}

enum kms_status kms_error_set(struct kms_error *err, enum kms_status status, const char *fmt, ...)
{
    va_list args;

    if (err == NULL) {
        return status;
    }
    if (err->status == KMS_OK) {
        va_start(args, fmt);
        set_va(err, status, NULL, fmt, args);
        va_end(args);
    }
    return err->status;
}

enum kms_status kms_error_set_code(struct kms_error *err, enum kms_status status, const char *code,
                                   const char *fmt, ...)
{
    va_list args;

    if (err == NULL) {
        return status;
    }
    if (err->status == KMS_OK) {
        va_start(args, fmt);
        set_va(err, status, code, fmt, args);
        va_end(args);
    }
    return err->status;
}

void kms_error_clear(struct kms_error *err)
{
    if (err != NULL) {
        memset(err, 0, sizeof(*err));
    }
}

const char *kms_status_name(enum kms_status status)
{
    size_t i = (size_t)status;

    return i < KMS_STATUS_COUNT ? status_names[i] : "unknown";
}

bool kms_status_is_transient(enum kms_status status)
{
    return status == KMS_E_THROTTLED || status == KMS_E_UNAVAILABLE || status == KMS_E_BUSY;
}
