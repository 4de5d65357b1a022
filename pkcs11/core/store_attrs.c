/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of objects in the store: read by the host, and changed as far as the schema allows. */
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/schema.h"
#include "pkcs11/core/session.h"
#include "pkcs11/core/soft.h"
#include "pkcs11/core/store.h"
#include "pkcs11/core/store_parts.h"

/* ---- reading --------------------------------------------------------------------------------- */

CK_ULONG kms_store_size(const struct kms_object *object)
{
    CK_ULONG size = 0;

    for (size_t i = 0; i < kms_attrs_count(object->attrs); i++) {
        struct kms_span value;

        (void)kms_attrs_at(object->attrs, i, &value);
        size += sizeof(CK_ATTRIBUTE_TYPE) + value.len;
    }
    return size;
}

/* RSA's parts are no attributes of other private keys, nor CKA_VALUE one of RSA's. */
static bool is_of_type(CK_ATTRIBUTE_TYPE type, const struct kms_object *object)
{
    const bool rsa_part = type >= CKA_MODULUS && type <= CKA_COEFFICIENT;

    return object->class != CKO_PRIVATE_KEY ||
           (object->key_type == CKK_RSA ? type != CKA_VALUE : !rsa_part);
}

static bool is_hidden(CK_ATTRIBUTE_TYPE type, const struct kms_object *object)
{
    const struct kms_attr_row *row = kms_schema_find(type);

    return row != NULL && kms_schema_is_secret(row, object->class) && is_of_type(type, object) &&
           (kms_attrs_bool(object->attrs, CKA_SENSITIVE, true) ||
            !kms_attrs_bool(object->attrs, CKA_EXTRACTABLE, false));
}

/* One attribute, by the five cases of 5.7.5. */
static CK_RV answer(const struct kms_object *object, CK_ATTRIBUTE *attr)
{
    struct kms_span value;
    CK_RV rv = CKR_OK;

    if (is_hidden(attr->type, object)) {
        rv = CKR_ATTRIBUTE_SENSITIVE;
    } else if (!kms_attrs_get(object->attrs, attr->type, &value)) {
        rv = CKR_ATTRIBUTE_TYPE_INVALID;
    } else if (attr->pValue == NULL) {
        attr->ulValueLen = value.len;
    } else if (attr->ulValueLen < value.len) {
        rv = CKR_BUFFER_TOO_SMALL;
    } else {
        if (value.len > 0) {
            memcpy(attr->pValue, value.data, value.len);
        }
        attr->ulValueLen = value.len;
    }
    if (rv != CKR_OK) {
        attr->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    }
    return rv;
}

static int badness(CK_RV rv)
{
    static const CK_RV order[] = {CKR_OK, CKR_BUFFER_TOO_SMALL, CKR_ATTRIBUTE_TYPE_INVALID,
                                  CKR_ATTRIBUTE_SENSITIVE};
    int i = 0;

    while (order[i] != rv) { /* answer() gives no other */
        i++;
    }
    return i;
}

CK_RV kms_store_attributes(struct kms_slot *slot, struct kms_object *object, CK_ATTRIBUTE *tmpl,
                           CK_ULONG count)
{
    CK_RV worst = CKR_OK;

    (void)slot; /* an object in the store never changes: no lock */
    if (tmpl == NULL && count > 0) {
        return CKR_ARGUMENTS_BAD;
    }
    for (CK_ULONG i = 0; i < count; i++) {
        const CK_RV rv = answer(object, &tmpl[i]);

        if (badness(rv) > badness(worst)) {
            worst = rv;
        }
    }
    return worst;
}

/* ---- changing -------------------------------------------------------------------------------- */

static CK_RV check_change(const struct kms_object *object, CK_ATTRIBUTE_TYPE type,
                          struct kms_span value)
{
    const struct kms_attr_row *row = kms_schema_find(type);
    struct kms_span old = KMS_SPAN_NONE;
    bool good = false;

    if (row == NULL || !kms_schema_has(row, object->class)) {
        return kms_p11_refuse(CKR_ATTRIBUTE_TYPE_INVALID, "%s: not of such an object",
                              kms_attr_name(type));
    }
    if (row->size != 0 && value.len != row->size) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "%s: wrong size", row->name);
    }
    if (kms_attrs_get(object->attrs, type, &old) && kms_span_equal(old, value)) {
        return CKR_OK;
    }
    switch (row->change) {
    case KMS_CHANGE_ANY:
        good = !object->on_token || type == CKA_LABEL; /* the service keeps no other for us */
        break;
    case KMS_CHANGE_TO_TRUE:
        good = !object->on_token && value.data[0] == CK_TRUE;
        break;
    case KMS_CHANGE_TO_FALSE:
        good = !object->on_token && value.data[0] == CK_FALSE;
        break;
    case KMS_CHANGE_NEVER:
        break;
    }
    return good ? CKR_OK
                : kms_p11_refuse(CKR_ATTRIBUTE_READ_ONLY, "%s: cannot be changed", row->name);
}

static CK_RV check_changes(const struct kms_session *session, const struct kms_object *object,
                           const struct kms_attrs *changes)
{
    CK_RV rv = CKR_OK;

    if (object->on_token && !session->rw) {
        return CKR_SESSION_READ_ONLY;
    }
    if (!kms_attrs_bool(object->attrs, CKA_MODIFIABLE, true)) {
        return CKR_ACTION_PROHIBITED;
    }
    for (size_t i = 0; i < kms_attrs_count(changes) && rv == CKR_OK; i++) {
        struct kms_span value;
        const CK_ATTRIBUTE_TYPE type = kms_attrs_at(changes, i, &value);

        rv = check_change(object, type, value);
    }
    return rv;
}

/* A copy with the changes in it, which takes the old one's place. */
static CK_RV changed(const struct kms_object *object, const struct kms_attrs *changes,
                     struct kms_object **ret)
{
    struct kms_object *copy = kms_object_new();
    CK_RV rv = copy == NULL ? CKR_HOST_MEMORY : CKR_OK;

    if (rv == CKR_OK) {
        kms_attrs_free(copy->attrs);
        copy->handle = object->handle;
        copy->class = object->class;
        copy->key_type = object->key_type;
        copy->on_token = object->on_token;
        copy->is_private = object->is_private;
        copy->superseded = object->superseded;
        copy->session = object->session;
        copy->slot = object->slot;
        copy->algs = object->algs;
        copy->bits = object->bits;
        copy->family = object->family;
        memcpy(copy->ref, object->ref, sizeof(copy->ref));
        copy->soft = object->soft == NULL ? NULL : kms_soft_key_ref(object->soft);
        copy->attrs = kms_attrs_copy(object->attrs);
        rv = copy->attrs == NULL ? CKR_HOST_MEMORY : CKR_OK;
    }
    for (size_t i = 0; i < kms_attrs_count(changes) && rv == CKR_OK; i++) {
        struct kms_span value;
        const CK_ATTRIBUTE_TYPE type = kms_attrs_at(changes, i, &value);

        rv = kms_attrs_set(copy->attrs, type, value.data, value.len);
    }
    if (rv != CKR_OK) {
        kms_object_unref(copy);
        return rv;
    }
    *ret = copy;
    return CKR_OK;
}

static CK_RV replace_locked(struct kms_store_state *store, CK_OBJECT_HANDLE handle,
                            const struct kms_attrs *changes)
{
    const struct kms_object *object = kms_index_get(&store->index, handle);
    struct kms_object *copy = NULL;
    CK_RV rv = object == NULL ? CKR_OBJECT_HANDLE_INVALID : changed(object, changes, &copy);

    if (rv == CKR_OK) {
        kms_object_unref(kms_index_replace(&store->index, copy));
    }
    return rv;
}

/* The key's ref, which its public half and its certificate do not have themselves. */
static bool ref_of(struct kms_store_state *store, const struct kms_object *object,
                   char ret_ref[KMS_KEY_REF_MAX])
{
    const struct kms_store_key *key = NULL;
    const struct kms_object *first = NULL;

    (void)pthread_rwlock_rdlock(&store->lock);
    key = kms_store_key_locked(store, object->family);
    first = key == NULL || key->own_count == 0 ? NULL : kms_index_get(&store->index, key->own[0]);
    if (first != NULL) {
        memcpy(ret_ref, first->ref, KMS_KEY_REF_MAX);
    }
    (void)pthread_rwlock_unlock(&store->lock);
    return first != NULL && ret_ref[0] != '\0';
}

/* The one attribute of token keys that may change. It is the key's: all its objects have it. */
static CK_RV rename_key(struct kms_slot *slot, const struct kms_object *object,
                        const struct kms_attrs *changes)
{
    struct kms_store_state *store = slot->store;
    struct kms_call call = kms_slot_call(slot);
    const struct kms_store_key *key = NULL;
    char ref[KMS_KEY_REF_MAX] = "";
    char label[KMS_LABEL_MAX] = "";
    struct kms_span value;
    CK_RV rv = CKR_OK;

    if (!kms_attrs_get(changes, CKA_LABEL, &value)) {
        return CKR_OK; /* nothing new was set */
    }
    if (value.len >= sizeof(label) || memchr(value.data, '\0', value.len) != NULL) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_LABEL: too long, or with NUL");
    }
    if (value.len > 0) {
        memcpy(label, value.data, value.len);
    }
    if (!ref_of(store, object, ref)) {
        return CKR_OBJECT_HANDLE_INVALID;
    }
    if (slot->ops->set_label(slot->backend, &call, ref, label) != KMS_OK) {
        return kms_slot_error(slot, &call, KMS_DATA_PLAIN);
    }
    (void)pthread_rwlock_wrlock(&store->lock);
    key = kms_store_key_locked(store, object->family);
    for (size_t i = 0; key != NULL && i < key->own_count && rv == CKR_OK; i++) {
        rv = replace_locked(store, key->own[i], changes);
    }
    (void)pthread_rwlock_unlock(&store->lock);
    return rv;
}

CK_RV kms_store_set_attributes(struct kms_slot *slot, struct kms_session *session,
                               struct kms_object *object, const CK_ATTRIBUTE *tmpl, CK_ULONG count)
{
    struct kms_store_state *store = slot->store;
    struct kms_attrs *changes = NULL;
    CK_RV rv = kms_attrs_from_template(tmpl, count, &changes);

    if (rv == CKR_OK) {
        rv = check_changes(session, object, changes);
    }
    if (rv == CKR_OK && object->on_token) {
        rv = rename_key(slot, object, changes);
    } else if (rv == CKR_OK) {
        (void)pthread_rwlock_wrlock(&store->lock);
        rv = replace_locked(store, object->handle, changes);
        (void)pthread_rwlock_unlock(&store->lock);
    }
    kms_attrs_free(changes);
    return rv;
}
