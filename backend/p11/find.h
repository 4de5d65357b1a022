/* SPDX-License-Identifier: Apache-2.0 */
/* Objects and their attributes. Inside a step only (token.h). */
#ifndef KMS_BACKEND_P11_FIND_H
#define KMS_BACKEND_P11_FIND_H

#include <stddef.h>

#include "backend/p11/p11.h"

#define KMS_P11_OBJECTS_MAX 65536 /* more of a kind on one token is an error, not a truncation */

struct kms_p11_objects {
    CK_OBJECT_HANDLE *handles; /* freed with kms_p11_objects_done() */
    size_t count;
};

/* A template that is built row by row. Values are borrowed. */
#define KMS_P11_TEMPLATE_MAX 32
struct kms_p11_template {
    CK_ATTRIBUTE rows[KMS_P11_TEMPLATE_MAX];
    CK_ULONG count;
    CK_ULONG numbers[KMS_P11_TEMPLATE_MAX];
};
void kms_p11_put_bytes(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, const void *value,
                       size_t len);
void kms_p11_put_bool(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, bool value);
void kms_p11_put_number(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, CK_ULONG value);

/* All objects that match. @ret_objects is empty on failure. */
CK_RV kms_p11_find(struct kms_p11 *p, struct kms_p11_template *t,
                   struct kms_p11_objects *ret_objects);
void kms_p11_objects_done(struct kms_p11_objects *objects);

/*
 * Reads attributes into @rows (pValue and ulValueLen set by the caller). What the object lacks, or
 * what does not fit, has ulValueLen CK_UNAVAILABLE_INFORMATION afterwards; that is no failure.
 */
CK_RV kms_p11_read(struct kms_p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *rows, CK_ULONG count);

bool kms_p11_has(const CK_ATTRIBUTE *row);
/* The row's CK_BBOOL, or @absent. */
bool kms_p11_flag(const CK_ATTRIBUTE *row, bool absent);

#endif
