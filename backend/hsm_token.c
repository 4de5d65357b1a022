/* SPDX-License-Identifier: Apache-2.0 */
/* What the token is, and whether a PIN is its own. */
#include <string.h>

#include "backend/hsm_parts.h"
#include "common/secret.h"
#include "common/secure.h"

/* ---- describe ----------------------------------------------------------------------------- */

/* By which mechanism the token makes a type of key. */
static const struct {
    enum kms_key_type type;
    CK_MECHANISM_TYPE mechanism;
    CK_FLAGS flag;
} makers[] = {
    {KMS_KEY_AES, CKM_AES_KEY_GEN, CKF_GENERATE},
    {KMS_KEY_GENERIC, CKM_GENERIC_SECRET_KEY_GEN, CKF_GENERATE},
    {KMS_KEY_RSA, CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR},
    {KMS_KEY_EC, CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR},
    {KMS_KEY_EDDSA, CKM_EC_EDWARDS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR},
};

/* Blank-padded and never NUL-terminated (PKCS#11 3.2), though some pad with NULs. */
static void trim(const unsigned char *field, size_t len, char *ret_text)
{
    while (len > 0 && (field[len - 1] == ' ' || field[len - 1] == '\0')) {
        len--;
    }
    memcpy(ret_text, field, len);
    ret_text[len] = '\0';
}

struct description {
    struct kms_backend *backend;
    struct kms_token_info info;
};

static CK_RV describe_step(struct kms_p11 *p, void *ctx)
{
    struct description *description = ctx;
    struct kms_token_info *info = &description->info;
    const CK_TOKEN_INFO *token = kms_p11_token_info(p);

    *info = (struct kms_token_info){.random = (token->flags & CKF_RNG) != 0};
    trim(token->label, sizeof(token->label), info->label);
    trim(token->manufacturerID, sizeof(token->manufacturerID), info->manufacturer);
    trim(token->model, sizeof(token->model), info->model);
    trim(token->serialNumber, sizeof(token->serialNumber), info->serial);
    info->hardware = kms_p11_is_hardware(p);
    info->algs = kms_hsm_algs_of_token(description->backend, p);
    for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
        if (kms_p11_can(p, makers[i].mechanism, makers[i].flag)) {
            info->generates |= 1u << makers[i].type;
        }
    }
    return CKR_OK;
}

enum kms_status kms_hsm_describe_token(struct kms_backend *b, struct kms_call *call,
                                       struct kms_token_info *ret_info)
{
    struct description description = {.backend = b};
    enum kms_status status = kms_hsm_run(b, call, KMS_P11_READ, describe_step, &description);

    if (status == KMS_OK) {
        *ret_info = description.info;
    }
    return status;
}

/* ---- check_pin ---------------------------------------------------------------------------- */

enum kms_status kms_hsm_check_pin(struct kms_backend *b, struct kms_call *call, struct kms_span pin)
{
    const char *name = kms_p11_token_name(b->token);
    struct kms_error why = KMS_ERROR_INIT;
    struct kms_secret *own = NULL;
    bool same = false;

    if (b->pin == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "%s: no PIN is configured", name);
    }
    if (kms_secret_load(b->pin, &own, &why) != KMS_OK) {
        /* not the caller's fault, whose PIN may be right */
        return kms_error_set(&call->error, KMS_E_UNAVAILABLE, "%s: pin: %s", name, why.text);
    }
    same = kms_secret_span(own).len == pin.len &&
           kms_secret_equal(kms_secret_span(own).data, pin.data, pin.len);
    kms_secret_free(own);
    if (!same) {
        return kms_error_set_code(&call->error, KMS_E_AUTH, "CKR_PIN_INCORRECT",
                                  "%s: this is not the token's PIN", name);
    }
    return KMS_OK;
}
