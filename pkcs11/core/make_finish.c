/* SPDX-License-Identifier: Apache-2.0 */
/* A session object completed with what its material and its origin determine; copies; destruction.
 */
#include <stdio.h>
#include <string.h>

#include "pkcs11/core/crypto.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/template.h"

#define NONE        CK_UNAVAILABLE_INFORMATION
#define CHECK_LEN   3
#define UNIQUE_LEN  16
#define RANDOM_TEXT (2 * UNIQUE_LEN + 1)

/* Told by the template although the material determines them: they must agree. */
static const struct told {
    CK_ATTRIBUTE_TYPE type;
    CK_RV rv;
} tolds[] = {
    {CKA_VALUE_LEN, CKR_TEMPLATE_INCONSISTENT},
    {CKA_MODULUS_BITS, CKR_TEMPLATE_INCONSISTENT},
    {CKA_PUBLIC_KEY_INFO, CKR_TEMPLATE_INCONSISTENT},
    {CKA_CHECK_VALUE, CKR_ATTRIBUTE_VALUE_INVALID}, /* empty: none is wanted (4.10.2) */
};

static CK_RV check_told(const struct kms_attrs *attrs, const struct kms_attrs *made)
{
    for (size_t i = 0; i < sizeof(tolds) / sizeof(tolds[0]); i++) {
        struct kms_span said = KMS_SPAN_NONE;
        struct kms_span is = KMS_SPAN_NONE;

        if (kms_attrs_get(attrs, tolds[i].type, &said) && said.len > 0 &&
            kms_attrs_get(made, tolds[i].type, &is) && !kms_span_equal(said, is)) {
            return kms_p11_refuse(tolds[i].rv, "%s: is not that of this key",
                                  kms_attr_name(tolds[i].type));
        }
    }
    return CKR_OK;
}

static CK_RV merge(struct kms_attrs *attrs, const struct kms_attrs *made)
{
    CK_RV rv = CKR_OK;

    for (size_t i = 0; i < kms_attrs_count(made) && rv == CKR_OK; i++) {
        struct kms_span value = KMS_SPAN_NONE;
        struct kms_span said = KMS_SPAN_NONE;
        CK_ATTRIBUTE_TYPE type = kms_attrs_at(made, i, &value);

        if (type == CKA_CHECK_VALUE && kms_attrs_get(attrs, type, &said) && said.len == 0) {
            continue;
        }
        rv = kms_attrs_set(attrs, type, value.data, value.len);
    }
    return rv;
}

static CK_RV add_material(struct kms_template *tmpl, const struct kms_soft_key *soft)
{
    struct kms_attrs *made = kms_attrs_new();
    CK_RV rv = made == NULL ? CKR_HOST_MEMORY : CKR_OK;

    if (rv == CKR_OK) {
        rv = kms_soft_key_export(soft, tmpl->class == CKO_PUBLIC_KEY, made);
    }
    if (rv == CKR_OK) {
        rv = check_told(tmpl->attrs, made);
    }
    if (rv == CKR_OK) {
        rv = merge(tmpl->attrs, made);
    }
    kms_attrs_free(made);
    return rv;
}

/* 4.6.2: the first three bytes of the certificate's SHA-1. */
static CK_RV add_certificate_check(struct kms_attrs *attrs)
{
    uint8_t digest[20];
    struct kms_buf out = KMS_BUF_OVER(digest);
    struct kms_span value = KMS_SPAN_NONE;
    struct kms_span said = KMS_SPAN_NONE;
    CK_RV rv = CKR_OK;

    if (!kms_attrs_get(attrs, CKA_VALUE, &value)) {
        return CKR_OK;
    }
    rv = kms_soft_digest("SHA1", value, &out);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!kms_attrs_get(attrs, CKA_CHECK_VALUE, &said)) {
        return kms_attrs_set(attrs, CKA_CHECK_VALUE, digest, CHECK_LEN);
    }
    return said.len == 0 || kms_span_equal(said, kms_span_of(digest, CHECK_LEN))
               ? CKR_OK
               : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID,
                                "CKA_CHECK_VALUE: is not that of this certificate");
}

/* CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE: of the key, and of what it was derived from. */
static CK_RV add_guards(struct kms_attrs *attrs, enum kms_way way, const struct kms_object *base)
{
    bool here = way == KMS_WAY_GENERATE;
    bool sensitive = kms_attrs_bool(attrs, CKA_SENSITIVE, false);
    bool extractable = kms_attrs_bool(attrs, CKA_EXTRACTABLE, true);
    bool base_sensitive = here;
    struct kms_span wrapped = KMS_SPAN_NONE;
    /* a data key's wrapped form can be had, and unwrapped into one that leaves */
    bool base_kept = here && !kms_attrs_get(attrs, CKA_KMSBRIDGE_WRAPPED_VALUE, &wrapped);
    CK_RV rv = CKR_OK;

    if (way == KMS_WAY_DERIVE && base != NULL) {
        base_sensitive = kms_attrs_bool(base->attrs, CKA_ALWAYS_SENSITIVE, false);
        base_kept = kms_attrs_bool(base->attrs, CKA_NEVER_EXTRACTABLE, false);
    }
    rv = kms_attrs_set_bool(attrs, CKA_ALWAYS_SENSITIVE, base_sensitive && sensitive);
    if (rv == CKR_OK) {
        rv = kms_attrs_set_bool(attrs, CKA_NEVER_EXTRACTABLE, base_kept && !extractable);
    }
    return rv;
}

static CK_RV add_unique_id(struct kms_attrs *attrs)
{
    uint8_t bytes[UNIQUE_LEN];
    char text[RANDOM_TEXT];
    CK_RV rv = kms_soft_random(bytes, sizeof(bytes));

    for (size_t i = 0; i < sizeof(bytes) && rv == CKR_OK; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    return rv == CKR_OK ? kms_attrs_set(attrs, CKA_UNIQUE_ID, text, RANDOM_TEXT - 1) : rv;
}

static CK_RV add_origin(struct kms_template *tmpl, enum kms_way way, CK_MECHANISM_TYPE mechanism,
                        const struct kms_object *base)
{
    bool made = way == KMS_WAY_GENERATE;
    CK_RV rv = add_unique_id(tmpl->attrs);

    if (rv == CKR_OK && tmpl->class == CKO_CERTIFICATE) {
        return add_certificate_check(tmpl->attrs);
    }
    if (rv != CKR_OK || tmpl->key_type == NONE) {
        return rv;
    }
    rv = kms_attrs_set_bool(tmpl->attrs, CKA_LOCAL, made);
    if (rv == CKR_OK) {
        rv = kms_attrs_set_ulong(tmpl->attrs, CKA_KEY_GEN_MECHANISM, made ? mechanism : NONE);
    }
    if (rv == CKR_OK && tmpl->class != CKO_PUBLIC_KEY) {
        rv = add_guards(tmpl->attrs, way, base);
    }
    return rv;
}

/* Takes the template's attrs and @soft. */
static CK_RV put(struct kms_session *session, struct kms_template *tmpl, struct kms_soft_key *soft,
                 CK_OBJECT_HANDLE *ret_handle)
{
    struct kms_object *object = kms_object_new();

    if (object == NULL) {
        kms_soft_key_unref(soft);
        return CKR_HOST_MEMORY;
    }
    object->class = tmpl->class;
    object->key_type = tmpl->key_type;
    object->is_private = tmpl->is_private;
    object->session = session->handle;
    object->slot = session->slot;
    object->soft = soft;
    object->bits = soft == NULL ? 0 : kms_soft_key_bits(soft);
    kms_attrs_free(object->attrs);
    object->attrs = tmpl->attrs;
    tmpl->attrs = NULL;
    return kms_store_add(session->slot, session, object, ret_handle);
}

CK_RV kms_make_finish(struct kms_session *session, struct kms_template *tmpl, enum kms_way way,
                      CK_MECHANISM_TYPE mechanism, const struct kms_object *base,
                      struct kms_soft_key *soft, CK_OBJECT_HANDLE *ret_handle)
{
    CK_RV rv = soft == NULL ? CKR_OK : add_material(tmpl, soft);

    if (rv == CKR_OK) {
        rv = add_origin(tmpl, way, mechanism, base);
    }
    if (rv != CKR_OK) {
        kms_soft_key_unref(soft);
        return rv;
    }
    return put(session, tmpl, soft, ret_handle);
}

/* ---- C_CopyObject --------------------------------------------------------------------------- */

static CK_RV check_copy(const struct kms_session *session, const struct kms_object *object,
                        const struct kms_attrs *change)
{
    bool secret = object->class == CKO_SECRET_KEY || object->class == CKO_PRIVATE_KEY;
    CK_RV rv = CKR_OK;

    if (!kms_attrs_bool(object->attrs, CKA_COPYABLE, true) || (object->on_token && secret)) {
        return kms_p11_refuse(CKR_ACTION_PROHIBITED, "CKA_COPYABLE: this object is not copied");
    }
    rv = kms_template_may_change(object, change, true);
    if (rv != CKR_OK) {
        return rv;
    }
    if (kms_attrs_bool(change, CKA_TOKEN, object->on_token)) {
        return session->rw ? kms_p11_refuse(CKR_TEMPLATE_INCONSISTENT,
                                            "CKA_TOKEN: nothing is copied to the token")
                           : CKR_SESSION_READ_ONLY;
    }
    if (kms_attrs_bool(change, CKA_PRIVATE, object->is_private) &&
        !kms_template_sees_private(session->slot)) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    return CKR_OK;
}

CK_RV kms_copy_object(struct kms_session *session, struct kms_object *object,
                      const CK_ATTRIBUTE *tmpl, CK_ULONG count, CK_OBJECT_HANDLE *ret_object)
{
    struct kms_template copy = {.class = object->class, .key_type = object->key_type};
    struct kms_attrs *change = NULL;
    CK_RV rv =
        ret_object == NULL ? CKR_ARGUMENTS_BAD : kms_attrs_from_template(tmpl, count, &change);

    if (rv == CKR_OK) {
        rv = check_copy(session, object, change);
    }
    if (rv == CKR_OK) {
        copy.attrs = kms_attrs_copy(object->attrs);
        rv = copy.attrs == NULL ? CKR_HOST_MEMORY : merge(copy.attrs, change);
    }
    if (rv == CKR_OK) {
        rv = kms_attrs_set_bool(copy.attrs, CKA_TOKEN, false);
    }
    if (rv == CKR_OK) {
        rv = add_unique_id(copy.attrs);
    }
    if (rv == CKR_OK) {
        copy.is_private = kms_attrs_bool(copy.attrs, CKA_PRIVATE, object->is_private);
        rv = put(session, &copy, object->soft == NULL ? NULL : kms_soft_key_ref(object->soft),
                 ret_object);
    }
    kms_attrs_free(change);
    kms_template_done(&copy);
    return rv;
}

/* ---- C_DestroyObject ------------------------------------------------------------------------ */

static CK_RV destroy_token_key(struct kms_session *session, struct kms_object *object)
{
    struct kms_slot *slot = session->slot;
    struct kms_call call = kms_slot_call(slot);

    if (!session->rw) {
        return CKR_SESSION_READ_ONLY;
    }
    if (object->class != CKO_SECRET_KEY && object->class != CKO_PRIVATE_KEY) {
        return kms_p11_refuse(CKR_ACTION_PROHIBITED,
                              "a pair is destroyed by its private key, a certificate by the "
                              "configuration");
    }
    if (slot->ops->destroy == NULL) {
        return kms_p11_refuse(CKR_ACTION_PROHIBITED, "this token destroys no keys");
    }
    if (slot->ops->destroy(slot->backend, &call, object->ref) != KMS_OK) {
        return kms_slot_error(slot, &call, KMS_DATA_PLAIN);
    }
    return CKR_OK;
}

CK_RV kms_destroy_object(struct kms_session *session, struct kms_object *object)
{
    CK_RV rv = CKR_OK;

    if (!kms_attrs_bool(object->attrs, CKA_DESTROYABLE, true)) {
        return kms_p11_refuse(CKR_ACTION_PROHIBITED, "CKA_DESTROYABLE: is false");
    }
    if (object->on_token) {
        rv = destroy_token_key(session, object);
    }
    if (rv == CKR_OK) {
        kms_store_forget(session->slot, object);
    }
    return rv;
}
