/* SPDX-License-Identifier: Apache-2.0 */
/* C_GenerateKey, C_GenerateKeyPair, C_CreateObject: session objects; a token's keys in
 * make_token.c. */
#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/template.h"

#define NONE            CK_UNAVAILABLE_INFORMATION
#define GENERIC_LEN_MAX 4096 /* bytes; CKM_GENERIC_SECRET_KEY_GEN's row in mech.c */
#define RSA_BITS_MAX    16384

static CK_RV find(const CK_MECHANISM *mechanism, CK_FLAGS flag, const struct kms_mech **ret_mech)
{
    const struct kms_mech *mech = NULL;
    struct kms_params params;

    if (mechanism == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    mech = kms_mech_find(mechanism->mechanism);
    if (mech == NULL || ((mech->local | mech->remote) & flag) == 0) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "mechanism 0x%lx makes no such key",
                              mechanism->mechanism);
    }
    *ret_mech = mech;
    return kms_mech_params(mech, mechanism, &params);
}

static CK_RV refuse_len(CK_RV rv, CK_ULONG len)
{
    return kms_p11_refuse(rv, "CKA_VALUE_LEN: no key of this type has %lu bytes", len);
}

/* In bits, what soft.h is asked for. */
static CK_RV secret_bits(CK_KEY_TYPE type, CK_ULONG len, unsigned *ret_bits)
{
    if (type == CKK_AES && len != 16 && len != 24 && len != 32) {
        return refuse_len(CKR_ATTRIBUTE_VALUE_INVALID, len);
    }
    if (len == 0 || len > GENERIC_LEN_MAX) {
        return refuse_len(CKR_ATTRIBUTE_VALUE_INVALID, len);
    }
    *ret_bits = (unsigned)len * 8;
    return CKR_OK;
}

static CK_RV session_key(struct kms_session *session, const struct kms_mech *mech,
                         struct kms_attrs *attrs, CK_OBJECT_HANDLE *ret_key)
{
    struct kms_template tmpl = {.attrs = NULL};
    struct kms_soft_key *soft = NULL;
    unsigned bits = 0;
    CK_RV rv =
        kms_template_check(session, KMS_WAY_GENERATE, CKO_SECRET_KEY, mech->key_type, attrs, &tmpl);

    if (rv == CKR_OK) {
        rv = secret_bits(mech->key_type, tmpl.value_len, &bits);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_key_generate(mech->key_type, bits, KMS_SPAN_NONE, KMS_SPAN_NONE, &soft);
    }
    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &tmpl, KMS_WAY_GENERATE, mech->type, NULL, soft, ret_key);
    }
    kms_template_done(&tmpl);
    return rv;
}

CK_RV kms_make_key(struct kms_session *session, const CK_MECHANISM *mechanism,
                   const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_key)
{
    const struct kms_mech *mech = NULL;
    struct kms_attrs *attrs = NULL;
    CK_RV rv = ret_key == NULL ? CKR_ARGUMENTS_BAD : find(mechanism, CKF_GENERATE, &mech);

    if (rv == CKR_OK) {
        rv = kms_attrs_from_template(tmpl, count, &attrs);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    if (mech->kind == KMS_MECH_DATA_KEY) {
        return kms_make_data_key(session, mechanism, attrs, ret_key);
    }
    if (kms_attrs_bool(attrs, CKA_TOKEN, false)) {
        rv = kms_make_token_key(session, mech->key_type, attrs, ret_key);
        kms_attrs_free(attrs);
        return rv;
    }
    if ((mech->local & CKF_GENERATE) == 0) {
        kms_attrs_free(attrs);
        return kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                              "CKA_TOKEN: %s makes keys of a token, no session keys", mech->name);
    }
    return session_key(session, mech, attrs, ret_key);
}

/* ---- pairs ---------------------------------------------------------------------------------- */

struct pair {
    struct kms_template half[2]; /* public, private */
};

static void pair_done(struct pair *pair)
{
    kms_template_done(&pair->half[0]);
    kms_template_done(&pair->half[1]);
}

static CK_RV pair_generate(const struct kms_mech *mech, const struct kms_attrs *attrs,
                           struct kms_soft_key **ret_soft)
{
    struct kms_span params = KMS_SPAN_NONE;
    struct kms_span exponent = KMS_SPAN_NONE;
    CK_ULONG bits = kms_attrs_ulong(attrs, CKA_MODULUS_BITS, 0);

    if (mech->key_type == CKK_RSA && (bits < mech->min || bits > mech->max)) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_MODULUS_BITS: %lu is not from %lu to %lu",
                              bits, mech->min, mech->max);
    }
    (void)kms_attrs_get(attrs, CKA_EC_PARAMS, &params);
    (void)kms_attrs_get(attrs, CKA_PUBLIC_EXPONENT, &exponent);
    return kms_soft_key_generate(mech->key_type, (unsigned)bits, params, exponent, ret_soft);
}

/* Both halves go into the store, or none. */
static CK_RV pair_finish(struct kms_session *session, CK_MECHANISM_TYPE mechanism,
                         struct pair *pair, struct kms_soft_key *soft, CK_OBJECT_HANDLE ret[2])
{
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    struct kms_object *object = NULL;
    CK_RV rv = kms_make_finish(session, &pair->half[0], KMS_WAY_GENERATE, mechanism, NULL,
                               kms_soft_key_ref(soft), &handles[0]);

    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &pair->half[1], KMS_WAY_GENERATE, mechanism, NULL,
                             kms_soft_key_ref(soft), &handles[1]);
        if (rv != CKR_OK && kms_store_get(session->slot, handles[0], &object) == CKR_OK) {
            kms_store_forget(session->slot, object);
            kms_object_unref(object);
        }
    }
    if (rv == CKR_OK) {
        ret[0] = handles[0];
        ret[1] = handles[1];
    }
    return rv;
}

/* Takes both sets. */
static CK_RV session_pair(struct kms_session *session, const struct kms_mech *mech,
                          struct kms_attrs *attrs[2], CK_OBJECT_HANDLE ret[2])
{
    struct pair pair = {.half = {{.attrs = NULL}, {.attrs = NULL}}};
    struct kms_soft_key *soft = NULL;
    CK_RV rv = kms_template_check(session, KMS_WAY_GENERATE, CKO_PUBLIC_KEY, mech->key_type,
                                  attrs[0], &pair.half[0]);

    if (rv == CKR_OK) {
        rv = kms_template_check(session, KMS_WAY_GENERATE, CKO_PRIVATE_KEY, mech->key_type,
                                attrs[1], &pair.half[1]);
    } else {
        kms_attrs_free(attrs[1]);
    }
    if (rv == CKR_OK) {
        rv = pair_generate(mech, pair.half[0].attrs, &soft);
    }
    if (rv == CKR_OK) {
        rv = pair_finish(session, mech->type, &pair, soft, ret);
    }
    kms_soft_key_unref(soft);
    pair_done(&pair);
    return rv;
}

CK_RV kms_make_pair(struct kms_session *session, const CK_MECHANISM *mechanism,
                    const CK_ATTRIBUTE *public_tmpl, CK_ULONG public_count,
                    const CK_ATTRIBUTE *private_tmpl, CK_ULONG private_count,
                    CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private)
{
    const struct kms_mech *mech = NULL;
    struct kms_attrs *attrs[2] = {NULL, NULL};
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    CK_RV rv = ret_public == NULL || ret_private == NULL
                   ? CKR_ARGUMENTS_BAD
                   : find(mechanism, CKF_GENERATE_KEY_PAIR, &mech);
    bool token = false;

    if (rv == CKR_OK) {
        rv = kms_attrs_from_template(public_tmpl, public_count, &attrs[0]);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_from_template(private_tmpl, private_count, &attrs[1]);
    }
    if (rv != CKR_OK) {
        kms_attrs_free(attrs[0]);
        return rv;
    }
    token = kms_attrs_bool(attrs[1], CKA_TOKEN, false);
    if (token != kms_attrs_bool(attrs[0], CKA_TOKEN, false)) {
        rv = kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                            "CKA_TOKEN: both halves of a pair are the token's, or none");
    } else if (token) {
        rv = kms_make_token_pair(session, mech->key_type, attrs[0], attrs[1], &handles[0],
                                 &handles[1]);
    } else {
        rv = session_pair(session, mech, attrs, handles);
        attrs[0] = attrs[1] = NULL;
    }
    kms_attrs_free(attrs[0]);
    kms_attrs_free(attrs[1]);
    if (rv == CKR_OK) {
        *ret_public = handles[0];
        *ret_private = handles[1];
    }
    return rv;
}

/* ---- C_CreateObject ------------------------------------------------------------------------- */

CK_RV kms_make_object(struct kms_session *session, const CK_ATTRIBUTE *tmpl, CK_ULONG count,
                      CK_OBJECT_HANDLE *ret_object)
{
    struct kms_template good = {.attrs = NULL};
    struct kms_attrs *attrs = NULL;
    struct kms_soft_key *soft = NULL;
    CK_RV rv =
        ret_object == NULL ? CKR_ARGUMENTS_BAD : kms_attrs_from_template(tmpl, count, &attrs);

    if (rv == CKR_OK) {
        rv = kms_template_check(session, KMS_WAY_CREATE, NONE, NONE, attrs, &good);
    }
    if (rv == CKR_OK && good.key_type != NONE) {
        rv = kms_soft_key_import(good.class, good.key_type, good.attrs, &soft);
        /* C_CreateObject has no other word for it (5.7.1) */
        rv = rv == CKR_KEY_SIZE_RANGE ? CKR_ATTRIBUTE_VALUE_INVALID : rv;
    }
    if (rv == CKR_OK) {
        rv = kms_make_finish(session, &good, KMS_WAY_CREATE, NONE, NULL, soft, ret_object);
    }
    kms_template_done(&good);
    return rv;
}
