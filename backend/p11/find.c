/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/find.h"

#include <stdlib.h>

#define FIND_STEP 64

static const CK_BBOOL yes = CK_TRUE;
static const CK_BBOOL no = CK_FALSE;

void kms_p11_put_bytes(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, const void *value,
                       size_t len)
{
    CK_ATTRIBUTE *row = &t->rows[t->count++];

    row->type = type;
    row->pValue = kms_p11_in(value);
    row->ulValueLen = len;
}

void kms_p11_put_bool(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, bool value)
{
    kms_p11_put_bytes(t, type, value ? &yes : &no, sizeof(yes));
}

void kms_p11_put_number(struct kms_p11_template *t, CK_ATTRIBUTE_TYPE type, CK_ULONG value)
{
    CK_ULONG *number = &t->numbers[t->count];

    *number = value;
    kms_p11_put_bytes(t, type, number, sizeof(*number));
}

static CK_RV find_more(struct kms_p11 *p, struct kms_p11_objects *objects, CK_ULONG *ret_got)
{
    size_t room = objects->count + FIND_STEP;
    CK_OBJECT_HANDLE *grown = NULL;
    CK_RV rv = CKR_OK;

    if (room > KMS_P11_OBJECTS_MAX) {
        return CKR_HOST_MEMORY;
    }
    grown = realloc(objects->handles, room * sizeof(*grown));
    if (grown == NULL) {
        return CKR_HOST_MEMORY;
    }
    objects->handles = grown;
    *ret_got = 0;
    rv = KMS_P11(p, C_FindObjects)(p->session, grown + objects->count, FIND_STEP, ret_got);
    if (rv == CKR_OK && *ret_got <= FIND_STEP) {
        objects->count += *ret_got;
    }
    return rv;
}

CK_RV kms_p11_find(struct kms_p11 *p, struct kms_p11_template *t,
                   struct kms_p11_objects *ret_objects)
{
    CK_ULONG got = 1;
    CK_RV rv = KMS_P11(p, C_FindObjectsInit)(p->session, t->rows, t->count);

    *ret_objects = (struct kms_p11_objects){.handles = NULL, .count = 0};
    if (rv != CKR_OK) {
        return rv;
    }
    while (rv == CKR_OK && got > 0) {
        rv = find_more(p, ret_objects, &got);
    }
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_FindObjectsFinal)(p->session);
    } else {
        /* ends the search; the first failure stays the answer */
        (void)p->functions->C_FindObjectsFinal(p->session);
    }
    if (rv != CKR_OK) {
        kms_p11_objects_done(ret_objects);
    }
    return rv;
}

void kms_p11_objects_done(struct kms_p11_objects *objects)
{
    free(objects->handles);
    *objects = (struct kms_p11_objects){.handles = NULL, .count = 0};
}

/* PKCS#11 2.40 5.7.5: these three tell of single attributes, the others are filled all the same. */
static bool is_partial(CK_RV rv)
{
    return rv == CKR_ATTRIBUTE_SENSITIVE || rv == CKR_ATTRIBUTE_TYPE_INVALID ||
           rv == CKR_BUFFER_TOO_SMALL;
}

/* Each by itself: for modules that stop at the first attribute they do not know. */
static CK_RV read_singly(struct kms_p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *rows,
                         const CK_ULONG *rooms, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count; i++) {
        CK_RV rv = CKR_OK;

        rows[i].ulValueLen = rooms[i];
        rv = KMS_P11(p, C_GetAttributeValue)(p->session, object, &rows[i], 1);
        if (is_partial(rv)) {
            rows[i].ulValueLen = CK_UNAVAILABLE_INFORMATION;
        } else if (rv != CKR_OK) {
            return rv;
        }
    }
    return CKR_OK;
}

CK_RV kms_p11_read(struct kms_p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *rows, CK_ULONG count)
{
    CK_ULONG rooms[KMS_P11_TEMPLATE_MAX];
    CK_RV rv = CKR_OK;

    if (count > KMS_P11_TEMPLATE_MAX) {
        return CKR_ARGUMENTS_BAD;
    }
    for (CK_ULONG i = 0; i < count; i++) {
        rooms[i] = rows[i].ulValueLen;
    }
    rv = KMS_P11(p, C_GetAttributeValue)(p->session, object, rows, count);
    return is_partial(rv) ? read_singly(p, object, rows, rooms, count) : rv;
}

bool kms_p11_has(const CK_ATTRIBUTE *row)
{
    return row->ulValueLen != CK_UNAVAILABLE_INFORMATION;
}

bool kms_p11_flag(const CK_ATTRIBUTE *row, bool absent)
{
    const CK_BBOOL *value = row->pValue;

    return kms_p11_has(row) && row->ulValueLen == sizeof(*value) ? *value != CK_FALSE : absent;
}
