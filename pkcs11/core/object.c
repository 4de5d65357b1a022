/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/object.h"

#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/soft.h"

struct kms_object *kms_object_new(void)
{
    struct kms_object *object = calloc(1, sizeof(*object));

    if (object != NULL) {
        atomic_init(&object->refs, 1);
        object->key_type = CK_UNAVAILABLE_INFORMATION;
        object->attrs = kms_attrs_new();
        if (object->attrs == NULL) {
            free(object);
            object = NULL;
        }
    }
    return object;
}

struct kms_object *kms_object_ref(struct kms_object *object)
{
    atomic_fetch_add(&object->refs, 1);
    return object;
}

void kms_object_unref(struct kms_object *object)
{
    if (object == NULL || atomic_fetch_sub(&object->refs, 1) != 1) {
        return;
    }
    kms_soft_key_unref(object->soft);
    kms_attrs_free(object->attrs);
    free(object);
}

/* CKA_ALLOWED_MECHANISMS: an array of CK_MECHANISM_TYPE, of no alignment to rely on. */
static bool is_allowed(const struct kms_object *object, CK_MECHANISM_TYPE mechanism)
{
    struct kms_span list;

    if (!kms_attrs_get(object->attrs, CKA_ALLOWED_MECHANISMS, &list) || list.len == 0) {
        return true;
    }
    for (size_t i = 0; i + sizeof(mechanism) <= list.len; i += sizeof(mechanism)) {
        if (memcmp(list.data + i, &mechanism, sizeof(mechanism)) == 0) {
            return true;
        }
    }
    return false;
}

CK_RV kms_object_may(const struct kms_object *object, CK_ATTRIBUTE_TYPE use,
                     CK_MECHANISM_TYPE mechanism)
{
    if (!kms_attrs_bool(object->attrs, use, false)) {
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    return is_allowed(object, mechanism) ? CKR_OK : CKR_MECHANISM_INVALID;
}
