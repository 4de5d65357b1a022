/* SPDX-License-Identifier: Apache-2.0 */
/* Templates written as rows: a type and a number, a truth, or bytes. */
#ifndef KMS_TESTS_UNIT_TMPL_H
#define KMS_TESTS_UNIT_TMPL_H

#include "pkcs11/core/crypto.h"
#include "tests/unit/fake_p11_log.h"
#include "tests/unit/fake_token.h"
#include "tests/unit/unit.h"

#define TMPL_MAX 24

enum tmpl_form { TMPL_END, TMPL_NUMBER, TMPL_BOOL, TMPL_TEXT, TMPL_BYTES };

struct tmpl_row {
    enum tmpl_form form;
    CK_ATTRIBUTE_TYPE type;
    CK_ULONG value;   /* number, bool; length of bytes */
    const char *text; /* text, bytes */
};

#define NUM(type, value)                                                                           \
    {                                                                                              \
        TMPL_NUMBER, type, value, NULL                                                             \
    }
#define YES(type)                                                                                  \
    {                                                                                              \
        TMPL_BOOL, type, CK_TRUE, NULL                                                             \
    }
#define NO(type)                                                                                   \
    {                                                                                              \
        TMPL_BOOL, type, CK_FALSE, NULL                                                            \
    }
#define TEXT(type, text)                                                                           \
    {                                                                                              \
        TMPL_TEXT, type, 0, text                                                                   \
    }
#define BYTES(type, bytes)                                                                         \
    {                                                                                              \
        TMPL_BYTES, type, sizeof(bytes) - 1, bytes                                                 \
    }

struct tmpl {
    CK_ATTRIBUTE attrs[TMPL_MAX];
    CK_ULONG numbers[TMPL_MAX];
    CK_BBOOL bools[TMPL_MAX];
    CK_ULONG count;
};

/* Adds @rows up to the first empty one. */
static inline void tmpl_add(struct tmpl *t, const struct tmpl_row *rows, size_t max)
{
    for (size_t i = 0; i < max && rows[i].form != TMPL_END && t->count < TMPL_MAX; i++) {
        CK_ATTRIBUTE *a = &t->attrs[t->count];

        a->type = rows[i].type;
        if (rows[i].form == TMPL_NUMBER) {
            t->numbers[t->count] = rows[i].value;
            a->pValue = &t->numbers[t->count];
            a->ulValueLen = sizeof(CK_ULONG);
        } else if (rows[i].form == TMPL_BOOL) {
            t->bools[t->count] = (CK_BBOOL)rows[i].value;
            a->pValue = &t->bools[t->count];
            a->ulValueLen = sizeof(CK_BBOOL);
        } else {
            a->pValue = (void *)(uintptr_t)rows[i].text;
            a->ulValueLen = rows[i].form == TMPL_TEXT ? strlen(rows[i].text) : rows[i].value;
        }
        t->count++;
    }
}

static inline bool object_bool(CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type, bool wanted)
{
    struct kms_object *object = fake_object(handle);
    struct kms_span value;

    return object != NULL && kms_attrs_get(object->attrs, type, &value) &&
           kms_attrs_bool(object->attrs, type, !wanted) == wanted;
}

static inline CK_ULONG object_ulong(CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type)
{
    struct kms_object *object = fake_object(handle);

    return object == NULL ? 0xdead : kms_attrs_ulong(object->attrs, type, 0xdead);
}

/* Length of the value; 0xdead: it has none. */
static inline size_t object_len(CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type)
{
    struct kms_object *object = fake_object(handle);
    struct kms_span value;

    return object != NULL && kms_attrs_get(object->attrs, type, &value) ? value.len : 0xdead;
}

#endif
