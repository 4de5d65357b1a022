/* SPDX-License-Identifier: Apache-2.0 */
/* C_DeriveKey: ECDH and HKDF, with session keys. */
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/operation.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/template.h"

#define NONE        CK_UNAVAILABLE_INFORMATION
#define DERIVED_MAX 16320 /* 255 blocks of SHA-512 (RFC 5869, 2.3) */

/* A mechanism whose parameter names no objects. */
struct derivation {
    CK_MECHANISM mechanism;
    CK_HKDF_PARAMS hkdf;
    struct kms_object *salt; /* a reference */
};

/* CKF_HKDF_SALT_KEY: the key's value instead of its handle. */
static CK_RV resolve_salt(struct kms_session *session, const CK_MECHANISM *mechanism,
                          struct derivation *d)
{
    struct kms_span value = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    d->mechanism = *mechanism;
    if (mechanism->pParameter == NULL || mechanism->ulParameterLen != sizeof(d->hkdf)) {
        return CKR_OK; /* refused where all parameters are */
    }
    memcpy(&d->hkdf, mechanism->pParameter, sizeof(d->hkdf));
    if (d->hkdf.bExtract == CK_FALSE || d->hkdf.ulSaltType != CKF_HKDF_SALT_KEY) {
        return CKR_OK;
    }
    rv = kms_store_get(session->slot, d->hkdf.hSaltKey, &d->salt);
    if (rv != CKR_OK) {
        return CKR_KEY_HANDLE_INVALID;
    }
    if (d->salt->class != CKO_SECRET_KEY || d->salt->soft == NULL ||
        !kms_attrs_get(d->salt->attrs, CKA_VALUE, &value)) {
        return kms_p11_refuse(CKR_KEY_TYPE_INCONSISTENT, "hSaltKey: is no secret session key");
    }
    d->hkdf.ulSaltType = CKF_HKDF_SALT_DATA;
    d->hkdf.pSalt = (CK_BYTE_PTR)(uintptr_t)value.data;
    d->hkdf.ulSaltLen = value.len;
    d->mechanism.pParameter = &d->hkdf;
    return CKR_OK;
}

static CK_RV choose_len(const struct kms_mech *mech, const struct derivation *d,
                        const struct kms_object *base, const struct kms_template *tmpl,
                        size_t *ret_len)
{
    size_t len = tmpl->value_len;

    if (len == 0 && kms_attrs_ulong(tmpl->attrs, CKA_VALUE_LEN, 1) == 0) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_VALUE_LEN: is 0");
    }
    if (len == 0 && tmpl->key_type == CKK_AES) {
        return kms_p11_refuse(CKR_TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN: is missing");
    }
    len = len == 0 ? kms_soft_derive_len(mech, &d->mechanism, base->soft) : len;
    if (len > DERIVED_MAX) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_VALUE_LEN: %zu is more than there can be",
                              len);
    }
    *ret_len = len;
    return CKR_OK;
}

static CK_RV read_template(struct kms_session *session, const struct kms_mech *mech,
                           const CK_ATTRIBUTE *tmpl, CK_ULONG count, struct kms_template *ret)
{
    bool data = mech->type == CKM_HKDF_DATA;
    struct kms_span given = KMS_SPAN_NONE;
    struct kms_attrs *attrs = NULL;
    CK_RV rv = kms_attrs_from_template(tmpl, count, &attrs);

    if (rv == CKR_OK && !data && !kms_attrs_get(attrs, CKA_KEY_TYPE, &given)) {
        rv = kms_attrs_set_ulong(attrs, CKA_KEY_TYPE, CKK_GENERIC_SECRET);
        if (rv != CKR_OK) {
            kms_attrs_free(attrs);
        }
    }
    return rv == CKR_OK ? kms_template_check(session, KMS_WAY_DERIVE,
                                             data ? CKO_DATA : CKO_SECRET_KEY, NONE, attrs, ret)
                        : rv;
}

/* The bytes into the template, and, for keys, what works with them. */
static CK_RV derive(const struct kms_mech *mech, const struct derivation *d,
                    const struct kms_object *base, struct kms_template *tmpl, size_t len,
                    struct kms_soft_key **ret_soft)
{
    uint8_t *bytes = kms_secure_new(len);
    struct kms_buf out = kms_buf_over(bytes, len);
    CK_RV rv =
        bytes == NULL ? CKR_HOST_MEMORY : kms_soft_derive(mech, &d->mechanism, base->soft, &out);

    if (rv == CKR_OK) {
        rv = kms_attrs_set(tmpl->attrs, CKA_VALUE, bytes, out.len);
    }
    if (rv == CKR_OK && tmpl->class == CKO_DATA) {
        kms_attrs_remove(tmpl->attrs, CKA_VALUE_LEN);
    } else if (rv == CKR_OK) {
        rv = kms_soft_key_import(tmpl->class, tmpl->key_type, tmpl->attrs, ret_soft);
    }
    kms_secure_free(bytes);
    return rv;
}

CK_RV kms_derive_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                     struct kms_object *base, const CK_ATTRIBUTE *tmpl, CK_ULONG count,
                     CK_OBJECT_HANDLE *ret_key)
{
    struct kms_template good = {.attrs = NULL};
    struct derivation d = {.salt = NULL};
    struct kms_soft_key *soft = NULL;
    struct kms_params params;
    const struct kms_mech *mech = NULL;
    size_t len = 0;
    CK_RV rv = CKR_OK;

    if (mechanism == NULL || ret_key == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    mech = kms_mech_find(mechanism->mechanism);
    rv = mech == NULL ? CKR_MECHANISM_INVALID
                      : kms_operation_check(CKF_DERIVE, CKA_DERIVE, mech, base);
    if (rv == CKR_OK) {
        rv = resolve_salt(session, mechanism, &d);
    }
    if (rv == CKR_OK) {
        rv = kms_mech_params(mech, &d.mechanism, &params);
    }
    if (rv == CKR_OK) {
        rv = read_template(session, mech, tmpl, count, &good);
    }
    if (rv == CKR_OK) {
        rv = choose_len(mech, &d, base, &good, &len);
    }
    if (rv == CKR_OK) {
        rv = derive(mech, &d, base, &good, len, &soft);
    }
    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &good, KMS_WAY_DERIVE, NONE, base, soft, ret_key);
    }
    kms_object_unref(d.salt);
    kms_template_done(&good);
    return rv;
}
