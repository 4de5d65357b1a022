/* SPDX-License-Identifier: Apache-2.0 */
/* C_UnwrapKey: into a session key, whose template is found good before anything is unwrapped. */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/template.h"
#include "pkcs11/core/wrap.h"

#define NONE CK_UNAVAILABLE_INFORMATION

static size_t room(const struct kms_wrapping *w, size_t len)
{
    return w->soft != NULL ? kms_soft_op_room(w->soft, len, true)
                           : kms_token_decrypted_room(&w->use, len);
}

static CK_RV run(struct kms_wrapping *w, struct kms_span wrapped, struct kms_buf *out)
{
    CK_RV rv = w->soft != NULL ? kms_soft_op_once(w->soft, wrapped, out)
                               : kms_token_decrypt(&w->use, KMS_TOKEN_WRAP, false, wrapped, out);

    return kms_wrap_rv(rv, true);
}

/* What CBC without padding was filled up with is cut off again, if the template says how long. */
static struct kms_span cut(const struct kms_wrapping *w, const struct kms_template *tmpl,
                           struct kms_span plain)
{
    if (w->mech->type == CKM_AES_CBC && tmpl->value_len > 0 && tmpl->value_len < plain.len) {
        plain.len = tmpl->value_len;
    }
    return plain;
}

static CK_RV import_secret(struct kms_template *tmpl, struct kms_span plain,
                           struct kms_soft_key **ret_soft)
{
    CK_RV rv = CKR_OK;

    if (tmpl->value_len > 0 && tmpl->value_len != plain.len) {
        return kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                              "CKA_VALUE_LEN: the wrapped key has another length");
    }
    rv = kms_attrs_set(tmpl->attrs, CKA_VALUE, plain.data, plain.len);
    if (rv == CKR_OK) {
        rv = kms_soft_key_import(tmpl->class, tmpl->key_type, tmpl->attrs, ret_soft);
        rv = rv == CKR_ATTRIBUTE_VALUE_INVALID || rv == CKR_KEY_SIZE_RANGE
                 ? CKR_WRAPPED_KEY_LEN_RANGE
                 : rv;
    }
    return rv;
}

static CK_RV import_private(const struct kms_template *tmpl, struct kms_span plain,
                            struct kms_soft_key **ret_soft)
{
    struct kms_soft_key *soft = NULL;
    CK_RV rv = kms_soft_key_from_pkcs8(plain, &soft);

    if (rv == CKR_HOST_MEMORY) {
        return rv;
    }
    if (rv != CKR_OK || kms_soft_key_type(soft) != tmpl->key_type) {
        kms_soft_key_unref(soft);
        return kms_p11_refuse(CKR_WRAPPED_KEY_INVALID,
                              "CKA_KEY_TYPE: what was wrapped is no such private key");
    }
    *ret_soft = soft;
    return CKR_OK;
}

static CK_RV unwrap(struct kms_wrapping *w, struct kms_span wrapped, struct kms_template *tmpl,
                    struct kms_soft_key **ret_soft)
{
    size_t cap = room(w, wrapped.len) + 1;
    uint8_t *bytes = kms_secure_new(cap);
    struct kms_buf out = kms_buf_over(bytes, cap);
    struct kms_span plain = KMS_SPAN_NONE;
    CK_RV rv = bytes == NULL ? CKR_HOST_MEMORY : run(w, wrapped, &out);

    if (rv == CKR_OK) {
        plain = cut(w, tmpl, kms_buf_span(&out));
        rv = tmpl->class == CKO_SECRET_KEY ? import_secret(tmpl, plain, ret_soft)
                                           : import_private(tmpl, plain, ret_soft);
    }
    kms_secure_free(bytes);
    return rv;
}

/* The template, of a secret or private key. */
static CK_RV read_template(const struct kms_session *session, const CK_ATTRIBUTE *tmpl,
                           CK_ULONG count, struct kms_template *ret)
{
    struct kms_attrs *attrs = NULL;
    CK_RV rv = kms_attrs_from_template(tmpl, count, &attrs);

    if (rv == CKR_OK && kms_attrs_ulong(attrs, CKA_CLASS, CKO_SECRET_KEY) != CKO_SECRET_KEY &&
        kms_attrs_ulong(attrs, CKA_CLASS, CKO_SECRET_KEY) != CKO_PRIVATE_KEY) {
        kms_attrs_free(attrs);
        return kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                              "CKA_CLASS: only secret and private keys are unwrapped");
    }
    return rv == CKR_OK ? kms_template_check(session, KMS_WAY_UNWRAP, NONE, NONE, attrs, ret) : rv;
}

CK_RV kms_unwrap_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                     struct kms_object *kek, CK_BYTE_PTR wrapped, CK_ULONG wrapped_len,
                     const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key)
{
    struct kms_template good = {.attrs = NULL};
    struct kms_soft_key *soft = NULL;
    struct kms_wrapping w;
    CK_RV rv = CKR_OK;

    if (mechanism == NULL || wrapped == NULL || ret_key == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    if (wrapped_len == 0 || wrapped_len > KMS_CIPHERTEXT_MAX) {
        return CKR_WRAPPED_KEY_LEN_RANGE;
    }
    memset(&w, 0, sizeof(w));
    rv = kms_wrap_begin(&w, true, mechanism, kek);
    if (rv == CKR_OK) {
        rv = read_template(session, tmpl, count, &good);
    }
    if (rv == CKR_OK) {
        rv = unwrap(&w, kms_span_of(wrapped, wrapped_len), &good, &soft);
    }
    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &good, KMS_WAY_UNWRAP, mechanism->mechanism, NULL, soft,
                             ret_key);
    }
    kms_wrap_done(&w);
    kms_template_done(&good);
    return rv;
}
