/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/init_token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <p11-kit/p11-kit.h>
#include <p11-kit/pkcs11.h>

#define SLOTS_MAX                                                                                  \
    256u /* more slots than any module here has; a module that says more is refused                \
          */

struct kms_p11_init {
    CK_FUNCTION_LIST *module;
    bool initialized;
};

/* What the few calls of this file answer in practice; every other value is shown as a number. */
static const struct rv_row {
    CK_RV rv;
    enum kms_status status;
    const char *name;
} rv_rows[] = {
    {CKR_HOST_MEMORY, KMS_E_NOMEM, "CKR_HOST_MEMORY"},
    {CKR_GENERAL_ERROR, KMS_E_UNAVAILABLE, "CKR_GENERAL_ERROR"},
    {CKR_FUNCTION_FAILED, KMS_E_UNAVAILABLE, "CKR_FUNCTION_FAILED"},
    {CKR_FUNCTION_NOT_SUPPORTED, KMS_E_UNSUPPORTED, "CKR_FUNCTION_NOT_SUPPORTED"},
    {CKR_ARGUMENTS_BAD, KMS_E_INVALID, "CKR_ARGUMENTS_BAD"},
    {CKR_DEVICE_ERROR, KMS_E_UNAVAILABLE, "CKR_DEVICE_ERROR"},
    {CKR_DEVICE_MEMORY, KMS_E_UNAVAILABLE, "CKR_DEVICE_MEMORY"},
    {CKR_DEVICE_REMOVED, KMS_E_UNAVAILABLE, "CKR_DEVICE_REMOVED"},
    {CKR_PIN_INCORRECT, KMS_E_AUTH, "CKR_PIN_INCORRECT"},
    {CKR_PIN_INVALID, KMS_E_INVALID, "CKR_PIN_INVALID"},
    {CKR_PIN_LEN_RANGE, KMS_E_INVALID, "CKR_PIN_LEN_RANGE"},
    {CKR_PIN_LOCKED, KMS_E_AUTH, "CKR_PIN_LOCKED"},
    {CKR_SESSION_EXISTS, KMS_E_BUSY, "CKR_SESSION_EXISTS"},
    {CKR_SLOT_ID_INVALID, KMS_E_NOT_FOUND, "CKR_SLOT_ID_INVALID"},
    {CKR_TOKEN_NOT_PRESENT, KMS_E_UNAVAILABLE, "CKR_TOKEN_NOT_PRESENT"},
    {CKR_TOKEN_NOT_RECOGNIZED, KMS_E_UNSUPPORTED, "CKR_TOKEN_NOT_RECOGNIZED"},
    {CKR_TOKEN_WRITE_PROTECTED, KMS_E_DENIED, "CKR_TOKEN_WRITE_PROTECTED"},
    {CKR_USER_ALREADY_LOGGED_IN, KMS_E_BUSY, "CKR_USER_ALREADY_LOGGED_IN"},
};

/* Turns @rv of @function into the error: "C_InitToken failed with CKR_...". */
static enum kms_status fail(struct kms_error *err, const char *function, CK_RV rv)
{
    char number[32];
    size_t i;

    for (i = 0; i < sizeof(rv_rows) / sizeof(rv_rows[0]); i++) {
        if (rv_rows[i].rv == rv) {
            return kms_error_set_code(err, rv_rows[i].status, rv_rows[i].name, "%s failed with %s",
                                      function, rv_rows[i].name);
        }
    }
    snprintf(number, sizeof(number), "0x%08lx", rv);
    return kms_error_set_code(err, KMS_E_UNAVAILABLE, number, "%s failed with CK_RV %s", function,
                              number);
}

/* The module that p11-kit's own configuration calls @name; NULL when there is none. */
static CK_FUNCTION_LIST *load_named(const char *name)
{
    CK_FUNCTION_LIST **all = p11_kit_modules_load(NULL, 0);
    CK_FUNCTION_LIST *found = NULL;
    char *path = NULL;

    if (all == NULL) {
        return NULL;
    }
    found = p11_kit_module_for_name(all, name);
    path = found != NULL ? p11_kit_module_get_filename(found) : NULL;
    found = path != NULL ? p11_kit_module_load(path, 0) : NULL;
    p11_kit_modules_release(all);
    free(path);
    return found;
}

enum kms_status kms_p11_init_open(const char *module, struct kms_p11_init **ret_init,
                                  struct kms_error *err)
{
    struct kms_p11_init *init = calloc(1, sizeof(*init));
    enum kms_status status = KMS_OK;
    CK_RV rv;

    if (init == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    init->module =
        strchr(module, '/') != NULL ? p11_kit_module_load(module, 0) : load_named(module);
    if (init->module == NULL) {
        const char *why = p11_kit_message();

        status = kms_error_set(err, KMS_E_NOT_FOUND, "cannot load the PKCS#11 module %s%s%s",
                               module, why != NULL ? ": " : "", why != NULL ? why : "");
        goto out;
    }
    rv = p11_kit_module_initialize(init->module);
    if (rv != CKR_OK) {
        status = fail(err, "C_Initialize", rv);
        goto out;
    }
    init->initialized = true;
    *ret_init = init;
    init = NULL;
out:
    kms_p11_init_close(init);
    return status;
}

void kms_p11_init_close(struct kms_p11_init *init)
{
    if (init == NULL) {
        return;
    }
    if (init->initialized) {
        (void)p11_kit_module_finalize(init->module);
    }
    if (init->module != NULL) {
        p11_kit_module_release(init->module);
    }
    free(init);
}

/* CK_TOKEN_INFO.label: padded with blanks, no NUL. */
static enum kms_status pad_label(const char *label, CK_UTF8CHAR padded[KMS_TOKEN_LABEL_MAX],
                                 struct kms_error *err)
{
    size_t len = strlen(label);

    if (len == 0 || len > KMS_TOKEN_LABEL_MAX || label[len - 1] == ' ') {
        return kms_error_set(err, KMS_E_INVALID,
                             "a token label has 1 to %d bytes and does not end in a blank",
                             KMS_TOKEN_LABEL_MAX);
    }
    memset(padded, ' ', KMS_TOKEN_LABEL_MAX);
    memcpy(padded, label, len);
    return KMS_OK;
}

static enum kms_status list_slots(struct kms_p11_init *init, CK_SLOT_ID *slots, CK_ULONG *ret_count,
                                  struct kms_error *err)
{
    CK_ULONG count = SLOTS_MAX;
    CK_RV rv = init->module->C_GetSlotList(CK_TRUE, slots, &count);

    if (rv != CKR_OK) {
        return fail(err, "C_GetSlotList", rv);
    }
    *ret_count = count;
    return KMS_OK;
}

enum kms_status kms_p11_init_find(struct kms_p11_init *init, const char *label,
                                  struct kms_p11_slot *ret_slot, struct kms_error *err)
{
    CK_UTF8CHAR padded[KMS_TOKEN_LABEL_MAX];
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = 0, i;
    bool found = false;
    struct kms_p11_slot slot = {0};
    enum kms_status status = pad_label(label, padded, err);

    if (status == KMS_OK) {
        status = list_slots(init, slots, &count, err);
    }
    for (i = 0; status == KMS_OK && i < count; i++) {
        CK_TOKEN_INFO info;
        CK_RV rv = init->module->C_GetTokenInfo(slots[i], &info);

        if (rv == CKR_TOKEN_NOT_PRESENT || rv == CKR_TOKEN_NOT_RECOGNIZED) {
            continue;
        }
        if (rv != CKR_OK) {
            return fail(err, "C_GetTokenInfo", rv);
        }
        if ((info.flags & CKF_TOKEN_INITIALIZED) == 0) {
            if (!found) {
                slot = (struct kms_p11_slot){slots[i], info.ulMinPinLen, info.ulMaxPinLen};
                found = true;
            }
        } else if (memcmp(info.label, padded, sizeof(padded)) == 0) {
            return kms_error_set(err, KMS_E_EXISTS, "a token with the label \"%s\" exists already",
                                 label);
        }
    }
    if (status == KMS_OK && !found) {
        status = kms_error_set(err, KMS_E_NOT_FOUND,
                               "none of the module's %lu slots has a token that is not initialised",
                               count);
    }
    if (status == KMS_OK) {
        *ret_slot = slot;
    }
    return status;
}

/* PKCS#11 declares PINs as pointers to non-const bytes, and only reads them. */
static CK_UTF8CHAR *pin_bytes(struct kms_span pin)
{
    union {
        const uint8_t *in;
        CK_UTF8CHAR *out;
    } same = {.in = pin.data};

    return same.out;
}

enum kms_status kms_p11_init_token(struct kms_p11_init *init, const struct kms_p11_slot *slot,
                                   const char *label, struct kms_span so_pin, struct kms_error *err)
{
    CK_UTF8CHAR padded[KMS_TOKEN_LABEL_MAX];
    enum kms_status status = pad_label(label, padded, err);
    CK_RV rv;

    if (status != KMS_OK) {
        return status;
    }
    rv = init->module->C_InitToken(slot->id, pin_bytes(so_pin), so_pin.len, padded);
    return rv == CKR_OK ? KMS_OK : fail(err, "C_InitToken", rv);
}

enum kms_status kms_p11_init_pin(struct kms_p11_init *init, const struct kms_p11_slot *slot,
                                 struct kms_span so_pin, struct kms_span user_pin,
                                 struct kms_error *err)
{
    CK_FUNCTION_LIST *module = init->module;
    CK_SESSION_HANDLE session = 0;
    enum kms_status status = KMS_OK;
    CK_RV rv;

    rv = module->C_OpenSession(slot->id, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    if (rv != CKR_OK) {
        return fail(err, "C_OpenSession", rv);
    }
    rv = module->C_Login(session, CKU_SO, pin_bytes(so_pin), so_pin.len);
    if (rv != CKR_OK) {
        status = fail(err, "C_Login as security officer", rv);
        goto out;
    }
    rv = module->C_InitPIN(session, pin_bytes(user_pin), user_pin.len);
    if (rv != CKR_OK) {
        status = fail(err, "C_InitPIN", rv);
    }
    (void)module->C_Logout(session);
out:
    (void)module->C_CloseSession(session);
    return status;
}
