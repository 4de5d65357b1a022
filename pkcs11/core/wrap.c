/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C_WrapKey: a session key under a token's key, a session key or a public key. A token's key is
 * never wrapped. There is no operation to keep a result in, so a buffer is refused as too small
 * before anything is asked for: a wrapping is one request, never two.
 */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/operation.h"
#include "pkcs11/core/wrap.h"

#define BLOCK     16
#define PKCS8_MAX 16384 /* DER of RSA-16384 fits */

static const struct rv_row {
    CK_RV from, wrap, unwrap;
} rv_rows[] = {
    {CKR_KEY_HANDLE_INVALID, CKR_WRAPPING_KEY_HANDLE_INVALID, CKR_UNWRAPPING_KEY_HANDLE_INVALID},
    {CKR_KEY_TYPE_INCONSISTENT, CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
     CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT},
    {CKR_DATA_LEN_RANGE, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
    {CKR_DATA_INVALID, CKR_KEY_SIZE_RANGE, CKR_WRAPPED_KEY_INVALID},
    {CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_INVALID, CKR_WRAPPED_KEY_INVALID},
    {CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_WRAPPED_KEY_LEN_RANGE},
    {CKR_AEAD_DECRYPT_FAILED, CKR_AEAD_DECRYPT_FAILED, CKR_WRAPPED_KEY_INVALID},
};

CK_RV kms_wrap_rv(CK_RV rv, bool unwrap)
{
    for (size_t i = 0; i < sizeof(rv_rows) / sizeof(rv_rows[0]); i++) {
        if (rv_rows[i].from == rv) {
            return unwrap ? rv_rows[i].unwrap : rv_rows[i].wrap;
        }
    }
    return rv;
}

CK_RV kms_wrap_begin(struct kms_wrapping *w, bool unwrap, const CK_MECHANISM *mechanism,
                     struct kms_object *kek)
{
    CK_RV rv = CKR_OK;

    w->mech = kms_mech_find(mechanism->mechanism);
    w->soft = NULL;
    if (w->mech == NULL) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "mechanism 0x%lx is none of ours",
                              mechanism->mechanism);
    }
    rv = kms_operation_check(unwrap ? CKF_UNWRAP : CKF_WRAP, unwrap ? CKA_UNWRAP : CKA_WRAP,
                             w->mech, kek);
    if (rv != CKR_OK) {
        return kms_wrap_rv(rv, unwrap);
    }
    return kek->soft != NULL ? kms_soft_op_new(unwrap ? KMS_SOFT_DECRYPT : KMS_SOFT_ENCRYPT,
                                               w->mech, mechanism, kek->soft, &w->soft)
                             : kms_token_use_init(&w->use, w->mech, mechanism, kek);
}

void kms_wrap_done(struct kms_wrapping *w)
{
    kms_soft_op_free(w->soft);
    w->soft = NULL;
}

/* ---- what is wrapped ------------------------------------------------------------------------ */

static CK_RV check_key(const struct kms_object *kek, const struct kms_object *key)
{
    if (key->class != CKO_SECRET_KEY && key->class != CKO_PRIVATE_KEY) {
        return kms_p11_refuse(CKR_KEY_NOT_WRAPPABLE, "only secret and private keys are wrapped");
    }
    if (key->soft == NULL || !kms_attrs_bool(key->attrs, CKA_EXTRACTABLE, false)) {
        return kms_p11_refuse(CKR_KEY_UNEXTRACTABLE, "CKA_EXTRACTABLE: this key does not leave");
    }
    if (kms_attrs_bool(key->attrs, CKA_WRAP_WITH_TRUSTED, false) &&
        !kms_attrs_bool(kek->attrs, CKA_TRUSTED, false)) {
        return kms_p11_refuse(CKR_KEY_NOT_WRAPPABLE, "CKA_WRAP_WITH_TRUSTED: this key is not");
    }
    if (key->class == CKO_PRIVATE_KEY && kek->key_type == CKK_RSA) {
        return kms_p11_refuse(CKR_KEY_NOT_WRAPPABLE, "an RSA key has no room for a private key");
    }
    return CKR_OK;
}

static CK_RV put_private(const struct kms_object *key, struct kms_gather *material)
{
    uint8_t *der = kms_secure_new(PKCS8_MAX);
    struct kms_buf buf = kms_buf_over(der, PKCS8_MAX);
    CK_RV rv = der == NULL ? CKR_HOST_MEMORY : kms_soft_key_pkcs8(key->soft, &buf);

    if (rv == CKR_OK) {
        rv = kms_gather_put(material, kms_buf_span(&buf), PKCS8_MAX, CKR_KEY_SIZE_RANGE);
    }
    kms_secure_free(der);
    return rv;
}

/* Its bytes, or its DER; CBC without padding fills up with zeros (2.10.4). */
static CK_RV put_material(const struct kms_mech *mech, const struct kms_object *key,
                          struct kms_gather *material)
{
    static const uint8_t zeros[BLOCK];
    struct kms_span value = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    if (key->class == CKO_PRIVATE_KEY) {
        return mech->type == CKM_AES_CBC ? CKR_KEY_NOT_WRAPPABLE : put_private(key, material);
    }
    if (!kms_attrs_get(key->attrs, CKA_VALUE, &value)) {
        return CKR_KEY_NOT_WRAPPABLE;
    }
    rv = kms_gather_put(material, value, KMS_PLAINTEXT_MAX, CKR_KEY_SIZE_RANGE);
    if (rv == CKR_OK && mech->type == CKM_AES_CBC && value.len % BLOCK != 0) {
        rv = kms_gather_put(material, kms_span_of(zeros, BLOCK - value.len % BLOCK),
                            KMS_PLAINTEXT_MAX, CKR_KEY_SIZE_RANGE);
    }
    return rv;
}

/* ---- how ------------------------------------------------------------------------------------ */

static size_t room(const struct kms_wrapping *w, size_t len)
{
    return w->soft != NULL ? kms_soft_op_room(w->soft, len, true)
                           : kms_token_encrypted_room(&w->use, len);
}

static CK_RV run(struct kms_wrapping *w, struct kms_span material, struct kms_buf *out)
{
    if (w->soft == NULL) {
        if (w->use.params.alg == KMS_ALG_AES_KEY_WRAP &&
            (material.len < BLOCK || material.len % 8 != 0)) {
            return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "%s: keys of 16, 24, 32, ... bytes only",
                                  w->mech->name);
        }
        return kms_token_encrypt(&w->use, KMS_TOKEN_WRAP, material, NULL, out);
    }
    return kms_soft_op_once(w->soft, material, out);
}

static CK_RV wrap(struct kms_wrapping *w, struct kms_span material, CK_BYTE_PTR out,
                  CK_ULONG_PTR out_len)
{
    size_t need = room(w, material.len);
    struct kms_buf buf = kms_buf_over(out, *out_len);
    CK_RV rv = CKR_OK;

    if (out == NULL || *out_len < need) {
        *out_len = need;
        return out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
    }
    rv = run(w, material, &buf);
    if (rv == CKR_OK) {
        *out_len = buf.len;
    }
    return kms_wrap_rv(rv, false);
}

CK_RV kms_wrap_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                   struct kms_object *kek, struct kms_object *key, CK_BYTE_PTR out,
                   CK_ULONG_PTR out_len)
{
    struct kms_wrapping w;
    struct kms_gather material = {.data = NULL};
    CK_RV rv = CKR_OK;

    (void)session;
    if (mechanism == NULL || out_len == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    memset(&w, 0, sizeof(w));
    rv = kms_wrap_begin(&w, false, mechanism, kek);
    if (rv == CKR_OK) {
        rv = check_key(kek, key);
    }
    if (rv == CKR_OK) {
        rv = put_material(w.mech, key, &material);
    }
    if (rv == CKR_OK) {
        rv = wrap(&w, kms_span_of(material.data, material.len), out, out_len);
    }
    kms_gather_done(&material);
    kms_wrap_done(&w);
    return rv;
}
