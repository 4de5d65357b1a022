/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Public halves and companions of keys, each found by a search of its own, or, where many keys are
 * looked at, in a list that one search brought: with a search per key a list of a thousand keys on
 * a token that searches by looking at every object (SoftHSM) is a million looks.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define LABEL_SIZE (KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX))

/* One object, as it can be asked for. */
struct named {
    CK_OBJECT_HANDLE handle;
    CK_KEY_TYPE type;
    size_t tag_len;
    uint8_t tag[KMS_KEY_TAG_MAX];
    char label[LABEL_SIZE];
};

/* In the order of compare(). */
struct list {
    bool known;
    bool given_up; /* an object of it could not be read: each key has its own search */
    struct named *rows;
    size_t count;
};

struct kms_hsm_beside {
    struct list publics;
    struct list macs;
};

struct kms_hsm_beside *kms_hsm_beside_new(void)
{
    return calloc(1, sizeof(struct kms_hsm_beside));
}

void kms_hsm_beside_free(struct kms_hsm_beside *beside)
{
    if (beside != NULL) {
        free(beside->publics.rows);
        free(beside->macs.rows);
        free(beside);
    }
}

static int compare(const void *left, const void *right)
{
    const struct named *a = left;
    const struct named *b = right;
    int order = (a->tag_len > b->tag_len) - (a->tag_len < b->tag_len);

    if (order == 0) {
        order = memcmp(a->tag, b->tag, a->tag_len);
    }
    if (order == 0) {
        order = (a->type > b->type) - (a->type < b->type);
    }
    return order == 0 ? strcmp(a->label, b->label) : order;
}

/* How an object is looked for: companions by their label, public keys by their type. */
static void name_for(struct named *ret_name, CK_KEY_TYPE type, const char *label,
                     struct kms_span tag)
{
    *ret_name = (struct named){.type = type, .tag_len = tag.len};
    memcpy(ret_name->tag, tag.data, tag.len);
    memcpy(ret_name->label, label, strlen(label) + 1);
}

/* *ret_row is changed only when the object has all that it needs to be found by. */
static CK_RV read_row(struct kms_p11 *p, CK_OBJECT_HANDLE handle, bool is_mac,
                      struct named *ret_row, bool *ret_named)
{
    char label[LABEL_SIZE];
    uint8_t tag[KMS_KEY_TAG_MAX];
    CK_KEY_TYPE type = 0;
    CK_ATTRIBUTE mac[] = {{CKA_ID, tag, sizeof(tag)}, {CKA_LABEL, label, sizeof(label) - 1}};
    CK_ATTRIBUTE half[] = {{CKA_ID, tag, sizeof(tag)}, {CKA_KEY_TYPE, &type, sizeof(type)}};
    CK_ATTRIBUTE *rows = is_mac ? mac : half;
    CK_RV rv = kms_p11_read(p, handle, rows, 2);

    if (rv == CKR_OBJECT_HANDLE_INVALID) { /* destroyed since it was found */
        return CKR_OK;
    }
    if (rv != CKR_OK || !kms_p11_has(&rows[0]) || !kms_p11_has(&rows[1])) {
        return rv;
    }
    label[is_mac ? mac[1].ulValueLen : 0] = '\0';
    name_for(ret_row, is_mac ? 0 : type, label, kms_span_of(tag, rows[0].ulValueLen));
    ret_row->handle = handle;
    *ret_named = true;
    return CKR_OK;
}

static void fill(struct kms_p11 *p, struct kms_p11_template *t, bool is_mac, struct list *list)
{
    struct kms_p11_objects found;
    CK_RV rv = kms_p11_find(p, t, &found);

    if (rv != CKR_OK) {
        list->given_up = true;
        return;
    }
    list->rows = calloc(found.count + 1, sizeof(*list->rows));
    list->count = 0;
    rv = list->rows == NULL ? CKR_HOST_MEMORY : CKR_OK;
    for (size_t i = 0; i < found.count && rv == CKR_OK; i++) {
        bool named = false;

        rv = read_row(p, found.handles[i], is_mac, &list->rows[list->count], &named);
        list->count += named ? 1 : 0;
    }
    kms_p11_objects_done(&found);
    if (rv != CKR_OK) {
        free(list->rows);
        *list = (struct list){.given_up = true};
        return;
    }
    qsort(list->rows, list->count, sizeof(*list->rows), compare);
    list->known = true;
}

static bool has_list(struct kms_p11 *p, struct list *list, struct kms_p11_template *t, bool is_mac)
{
    if (list != NULL && !list->known && !list->given_up) {
        fill(p, t, is_mac, list);
    }
    return list != NULL && list->known;
}

/* The one row of that name: two of them would be a guess. */
static CK_OBJECT_HANDLE the_one(const struct list *list, const struct named *name)
{
    const struct named *row = bsearch(name, list->rows, list->count, sizeof(*list->rows), compare);
    const struct named *end = list->rows + list->count;

    if (row == NULL || (row > list->rows && compare(row - 1, name) == 0) ||
        (row + 1 < end && compare(row + 1, name) == 0)) {
        return CK_INVALID_HANDLE;
    }
    return row->handle;
}

static CK_RV search(struct kms_p11 *p, struct kms_p11_template *t, CK_OBJECT_HANDLE *ret_handle)
{
    struct kms_p11_objects found;
    CK_RV rv = kms_p11_find(p, t, &found);

    if (rv == CKR_OK) {
        *ret_handle = found.count == 1 ? found.handles[0] : CK_INVALID_HANDLE;
        kms_p11_objects_done(&found);
    }
    return rv;
}

CK_RV kms_hsm_beside_public(struct kms_p11 *p, struct kms_hsm_beside *beside, CK_KEY_TYPE type,
                            struct kms_span tag, CK_OBJECT_HANDLE *ret_handle)
{
    struct kms_p11_template t = {.count = 0};
    struct named name;

    kms_p11_put_number(&t, CKA_CLASS, CKO_PUBLIC_KEY);
    if (!has_list(p, beside == NULL ? NULL : &beside->publics, &t, false) ||
        tag.len > sizeof(name.tag)) {
        kms_p11_put_number(&t, CKA_KEY_TYPE, type);
        kms_p11_put_bytes(&t, CKA_ID, tag.data, tag.len);
        return search(p, &t, ret_handle);
    }
    name_for(&name, type, "", tag);
    *ret_handle = the_one(&beside->publics, &name);
    return CKR_OK;
}

CK_RV kms_hsm_beside_mac(struct kms_p11 *p, struct kms_hsm_beside *beside, const char *label,
                         struct kms_span tag, CK_OBJECT_HANDLE *ret_handle)
{
    struct kms_p11_template t = {.count = 0};
    struct named name;

    kms_p11_put_number(&t, CKA_CLASS, CKO_SECRET_KEY);
    kms_p11_put_bool(&t, CKA_SIGN, true);
    if (!has_list(p, beside == NULL ? NULL : &beside->macs, &t, true) ||
        tag.len > sizeof(name.tag) || strlen(label) >= sizeof(name.label)) {
        kms_p11_put_bytes(&t, CKA_LABEL, label, strlen(label));
        kms_p11_put_bytes(&t, CKA_ID, tag.data, tag.len);
        return search(p, &t, ret_handle);
    }
    name_for(&name, 0, label, tag);
    *ret_handle = the_one(&beside->macs, &name);
    return CKR_OK;
}
