/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of attribute values (PKCS#11 3.0, 4): what objects are described by, and what templates are
 * read into. Owns its bytes, all of them in secure memory, wiped when freed. Not locked.
 */
#ifndef KMS_PKCS11_CORE_ATTRS_H
#define KMS_PKCS11_CORE_ATTRS_H

#include <stdbool.h>

#include "common/span.h"
#include "pkcs11/pkcs11x.h"

#define KMS_ATTR_VALUE_MAX 65536 /* bytes of one value */
#define KMS_ATTRS_MAX      128   /* values in a set, attributes in a template */

struct kms_attrs;

struct kms_attrs *kms_attrs_new(void); /* NULL: no memory */
void kms_attrs_free(struct kms_attrs *attrs);
struct kms_attrs *kms_attrs_copy(const struct kms_attrs *attrs); /* NULL: no memory */

/* Adds or replaces. CKR_HOST_MEMORY; CKR_ATTRIBUTE_VALUE_INVALID over a bound. */
CK_RV kms_attrs_set(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, const void *value, size_t len);
CK_RV kms_attrs_set_bool(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, bool value);
CK_RV kms_attrs_set_ulong(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, CK_ULONG value);
void kms_attrs_remove(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type);

/* Borrowed until the set changes. False when it is not there. */
bool kms_attrs_get(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type,
                   struct kms_span *ret_value);
/* @fallback when it is not there or has another size. */
bool kms_attrs_bool(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, bool fallback);
CK_ULONG kms_attrs_ulong(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, CK_ULONG fallback);
size_t kms_attrs_count(const struct kms_attrs *attrs);
/* In the order of their types. */
CK_ATTRIBUTE_TYPE kms_attrs_at(const struct kms_attrs *attrs, size_t index, struct kms_span *ret);

/* "CKA_LABEL", for the log; a phrase for types that are not ours. Never NULL. */
const char *kms_attr_name(CK_ATTRIBUTE_TYPE type);

/*
 * A caller's template, copied: NULL pointers, doubled types, booleans that are not CK_BBOOL, wrong
 * sizes of CK_ULONG values are refused with the return values of 4.1.1, and the log names the
 * attribute. The same value given twice counts once; two values are CKR_TEMPLATE_INCONSISTENT.
 * Whether an attribute belongs to the object is the caller's question.
 */
CK_RV kms_attrs_from_template(const CK_ATTRIBUTE *tmpl, CK_ULONG count, struct kms_attrs **ret);
/* Every one of @tmpl (a search's) is there with the same bytes. */
bool kms_attrs_match(const struct kms_attrs *attrs, const struct kms_attrs *tmpl);

#endif
