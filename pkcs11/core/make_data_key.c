/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CKM_KMSBRIDGE_DATA_KEY_GEN: an AES session key and its form wrapped under a token's key, from the
 * service in one request where it makes such keys. Where it does not (an HSM, a length that it has
 * not), the key is made here, as CKM_AES_KEY_GEN makes it, and the service wraps it.
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/operation.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/template.h"

#define KEY_MAX 32

/* @kek_use of the key that the parameter names, a reference to which is in @ret_kek; @attrs are the
 * new key's. */
static CK_RV take_kek(struct kms_session *session, const CK_MECHANISM *mechanism,
                      const struct kms_attrs *attrs, struct kms_object **ret_kek,
                      struct kms_token_use *kek_use)
{
    const struct kms_mech *sealing = kms_mech_find(CKM_KMSBRIDGE_SEALED);
    CK_KMSBRIDGE_DATA_KEY_PARAMS params;
    CK_KMSBRIDGE_SEALED_PARAMS sealed;
    const CK_MECHANISM seal = {CKM_KMSBRIDGE_SEALED, &sealed, sizeof(sealed)};
    CK_RV rv = CKR_OK;

    memcpy(&params, mechanism->pParameter, sizeof(params)); /* found good by mech_params.c */
    sealed = (CK_KMSBRIDGE_SEALED_PARAMS){.pAAD = params.pAAD, .ulAADLen = params.ulAADLen};
    if (kms_store_get(session->slot, params.hKek, ret_kek) != CKR_OK) {
        return kms_p11_refuse(CKR_KEY_HANDLE_INVALID, "hKek: there is no such key");
    }
    if (kms_attrs_bool(attrs, CKA_WRAP_WITH_TRUSTED, false) &&
        !kms_attrs_bool((*ret_kek)->attrs, CKA_TRUSTED, false)) { /* as C_WrapKey has it */
        return kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                              "CKA_WRAP_WITH_TRUSTED: hKek is no such key");
    }
    rv = kms_operation_check(CKF_WRAP, CKA_WRAP, sealing, *ret_kek);
    return rv == CKR_OK ? kms_token_use_init(kek_use, sealing, &seal, *ret_kek) : rv;
}

static CK_RV make_here(struct kms_token_use *kek_use, size_t len, struct kms_buf *key,
                       struct kms_buf *wrapped)
{
    CK_RV rv = kms_soft_random(key->data, len);

    kms_p11_log(KMS_P11_INFO, "CKM_KMSBRIDGE_DATA_KEY_GEN: the key is made here, and wrapped by %s",
                kek_use->key->ref);
    key->len = len;
    return rv == CKR_OK
               ? kms_token_encrypt(kek_use, KMS_TOKEN_WRAP, kms_buf_span(key), NULL, wrapped)
               : rv;
}

/* Into the template: the value, and its wrapped form. */
static CK_RV make(struct kms_token_use *kek_use, const struct kms_template *tmpl)
{
    uint8_t bytes[KEY_MAX + KMS_SEALED_ROOM];
    uint8_t *secret = kms_secure_new(KEY_MAX);
    struct kms_buf wrapped = KMS_BUF_OVER(bytes);
    struct kms_buf key = kms_buf_over(secret, KEY_MAX);
    CK_RV rv = secret == NULL ? CKR_HOST_MEMORY
                              : kms_token_data_key(kek_use, tmpl->value_len, &key, &wrapped);

    if (rv == CKR_FUNCTION_NOT_SUPPORTED) {
        rv = make_here(kek_use, tmpl->value_len, &key, &wrapped);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set(tmpl->attrs, CKA_VALUE, key.data, key.len);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set(tmpl->attrs, CKA_KMSBRIDGE_WRAPPED_VALUE, wrapped.data, wrapped.len);
    }
    kms_secure_free(secret);
    return rv;
}

static CK_RV check_len(CK_ULONG len)
{
    return len == 16 || len == 24 || len == KEY_MAX
               ? CKR_OK
               : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID,
                                "CKA_VALUE_LEN: no AES key has %lu bytes", len);
}

CK_RV kms_make_data_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                        struct kms_attrs *attrs, CK_OBJECT_HANDLE *ret_key)
{
    struct kms_template tmpl = {.attrs = NULL};
    struct kms_object *kek = NULL;
    struct kms_soft_key *soft = NULL;
    struct kms_token_use kek_use;
    CK_RV rv = kms_template_check(session, KMS_WAY_GENERATE, CKO_SECRET_KEY, CKK_AES, attrs, &tmpl);

    if (rv == CKR_OK) {
        rv = check_len(tmpl.value_len);
    }
    if (rv == CKR_OK) {
        rv = take_kek(session, mechanism, tmpl.attrs, &kek, &kek_use);
    }
    if (rv == CKR_OK) {
        rv = make(&kek_use, &tmpl);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_key_import(CKO_SECRET_KEY, CKK_AES, tmpl.attrs, &soft);
    }
    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &tmpl, KMS_WAY_GENERATE, CKM_KMSBRIDGE_DATA_KEY_GEN, NULL,
                             soft, ret_key);
    }
    kms_object_unref(kek);
    kms_template_done(&tmpl);
    return rv;
}
