/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes through a mechanism of the token: as data, by C_Encrypt and C_Decrypt, or as a secret key,
 * by C_WrapKey and C_UnwrapKey. Key-wrap mechanisms are often offered for keys only, and keys that
 * may only wrap refuse data. Such a key object belongs to the session and is gone before the step
 * ends.
 */
#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

static bool may(const struct kms_p11 *p, const struct kms_hsm_key *key, CK_MECHANISM_TYPE mechanism,
                unsigned use, CK_FLAGS flag)
{
    return (key->info.uses & use) != 0 && kms_p11_can(p, mechanism, flag) &&
           kms_hsm_allows(key, mechanism);
}

enum kms_hsm_way kms_hsm_way(const struct kms_p11 *p, const struct kms_hsm_key *key,
                             CK_MECHANISM_TYPE mechanism, enum kms_hsm_act act)
{
    bool seals = act == KMS_HSM_ENCRYPT || act == KMS_HSM_WRAP;
    bool keys = act == KMS_HSM_WRAP || act == KMS_HSM_UNWRAP;
    bool as_data = seals ? may(p, key, mechanism, KMS_USE_ENCRYPT, CKF_ENCRYPT)
                         : may(p, key, mechanism, KMS_USE_DECRYPT, CKF_DECRYPT);
    bool as_key = keys && (seals ? may(p, key, mechanism, KMS_USE_WRAP, CKF_WRAP)
                                 : may(p, key, mechanism, KMS_USE_UNWRAP, CKF_UNWRAP));

    /* data first: it needs no object, and NSS 3.87 unwraps no key of 4096 bytes */
    if (as_data) {
        return KMS_HSM_BY_DATA;
    }
    return as_key ? KMS_HSM_BY_KEY : KMS_HSM_NO_WAY;
}

static void put_session_secret(struct kms_p11_template *t)
{
    kms_p11_put_number(t, CKA_CLASS, CKO_SECRET_KEY);
    kms_p11_put_number(t, CKA_KEY_TYPE, CKK_GENERIC_SECRET);
    kms_p11_put_bool(t, CKA_TOKEN, false);
    kms_p11_put_bool(t, CKA_PRIVATE, true);
}

static void put_readable(struct kms_p11_template *t)
{
    kms_p11_put_bool(t, CKA_SENSITIVE, false);
    kms_p11_put_bool(t, CKA_EXTRACTABLE, true);
}

/* The object goes, and if the token does not let it go then its session does. @rv stays the answer.
 */
static CK_RV drop(struct kms_p11 *p, CK_OBJECT_HANDLE object, CK_RV rv)
{
    if (p->functions->C_DestroyObject(p->session, object) == CKR_OK) {
        return rv;
    }
    return rv == CKR_OK ? kms_p11_renew(p) : rv;
}

static CK_RV wrap(struct kms_p11 *p, const struct kms_hsm_work *work, CK_MECHANISM *mechanism,
                  CK_ULONG *len)
{
    struct kms_p11_template t = {.count = 0};
    CK_OBJECT_HANDLE object = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    put_session_secret(&t);
    put_readable(&t);
    kms_p11_put_bytes(&t, CKA_VALUE, work->in.data, work->in.len);
    rv = KMS_P11(p, C_CreateObject)(p->session, t.rows, t.count, &object);
    if (rv != CKR_OK) {
        return rv;
    }
    rv = KMS_P11(p, C_WrapKey)(p->session, mechanism, work->key->handle, object, work->out, len);
    return drop(p, object, rv);
}

/*
 * What is unwrapped can be read unless said otherwise (2.40 base, 5.14). SoftHSM needs it said, and
 * other tokens let nobody say so.
 */
static CK_RV unwrap_to_object(struct kms_p11 *p, const struct kms_hsm_work *work,
                              CK_MECHANISM *mechanism, CK_OBJECT_HANDLE *ret_object)
{
    CK_RV rv = CKR_OK;

    for (unsigned round = 0; round < 2; round++) {
        struct kms_p11_template t = {.count = 0};

        put_session_secret(&t);
        if (round == 0) {
            put_readable(&t);
        }
        rv = KMS_P11(p, C_UnwrapKey)(p->session, mechanism, work->key->handle,
                                     kms_p11_in(work->in.data), work->in.len, t.rows, t.count,
                                     ret_object);
        if (rv != CKR_ATTRIBUTE_READ_ONLY) {
            return rv;
        }
    }
    return CKR_TEMPLATE_INCONSISTENT; /* not a question of permission */
}

static CK_RV unwrap(struct kms_p11 *p, const struct kms_hsm_work *work, CK_MECHANISM *mechanism,
                    CK_ULONG *len)
{
    CK_OBJECT_HANDLE object = CK_INVALID_HANDLE;
    CK_ATTRIBUTE value = {CKA_VALUE, work->out, *len};
    CK_RV rv = unwrap_to_object(p, work, mechanism, &object);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = kms_p11_read(p, object, &value, 1);
    if (rv == CKR_OK && !kms_p11_has(&value)) {
        rv = KMS_P11_BAD_REPLY; /* it has more bytes than were wrapped, or does not show them */
    }
    *len = value.ulValueLen;
    return drop(p, object, rv);
}

CK_RV kms_hsm_bytes_seal(struct kms_p11 *p, struct kms_hsm_work *work, CK_MECHANISM *mechanism)
{
    CK_ULONG len = work->out_room;
    CK_RV rv = CKR_MECHANISM_INVALID;

    switch (kms_hsm_way(p, work->key, mechanism->mechanism, work->act)) {
    case KMS_HSM_BY_DATA:
        rv = KMS_P11(p, C_EncryptInit)(p->session, mechanism, work->key->handle);
        if (rv == CKR_OK) {
            rv = KMS_P11(p, C_Encrypt)(p->session, kms_p11_in(work->in.data), work->in.len,
                                       work->out, &len);
        }
        break;
    case KMS_HSM_BY_KEY:
        rv = wrap(p, work, mechanism, &len);
        break;
    case KMS_HSM_NO_WAY:
        break;
    }
    work->out_len = len;
    return rv == CKR_OK && len > work->out_room ? KMS_P11_BAD_REPLY : rv;
}

CK_RV kms_hsm_bytes_open(struct kms_p11 *p, struct kms_hsm_work *work, CK_MECHANISM *mechanism)
{
    CK_ULONG len = work->out_room;
    CK_RV rv = CKR_MECHANISM_INVALID;

    switch (kms_hsm_way(p, work->key, mechanism->mechanism, work->act)) {
    case KMS_HSM_BY_DATA:
        rv = KMS_P11(p, C_DecryptInit)(p->session, mechanism, work->key->handle);
        if (rv == CKR_OK) {
            rv = KMS_P11(p, C_Decrypt)(p->session, kms_p11_in(work->in.data), work->in.len,
                                       work->out, &len);
        }
        break;
    case KMS_HSM_BY_KEY:
        rv = unwrap(p, work, mechanism, &len);
        break;
    case KMS_HSM_NO_WAY:
        break;
    }
    work->out_len = len;
    return rv == CKR_OK && len > work->out_room ? KMS_P11_BAD_REPLY : rv;
}
