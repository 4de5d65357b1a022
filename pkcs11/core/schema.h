/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of attributes: which classes have them, which hold secrets, and who may change them
 * once an object is there (PKCS#11 3.0, 4.4 to 4.11, footnotes of their tables).
 */
#ifndef KMS_PKCS11_CORE_SCHEMA_H
#define KMS_PKCS11_CORE_SCHEMA_H

#include <stdbool.h>

#include "pkcs11/pkcs11x.h"

/* C_SetAttributeValue. */
enum kms_attr_change {
    KMS_CHANGE_NEVER,
    KMS_CHANGE_ANY,
    KMS_CHANGE_TO_TRUE, /* footnotes 11, 12: one way */
    KMS_CHANGE_TO_FALSE
};

struct kms_attr_row {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    unsigned classes; /* 1 << CKO_x */
    unsigned secret;  /* classes where it shows only if extractable and not sensitive (7) */
    size_t size;      /* of the value; 0: any */
    enum kms_attr_change change;
};

const struct kms_attr_row *kms_schema_find(CK_ATTRIBUTE_TYPE type); /* NULL: none of ours */
bool kms_schema_has(const struct kms_attr_row *row, CK_OBJECT_CLASS class);
bool kms_schema_is_secret(const struct kms_attr_row *row, CK_OBJECT_CLASS class);

#endif
