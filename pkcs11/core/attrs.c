/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a set lie behind each other in one block of secure memory, so that an object of
 * thirty attributes costs one allocation there, not thirty; the table of types is sorted, outside.
 */
#include "pkcs11/core/attrs.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"

#define BLOCK_MIN ((size_t)256)
#define TABLE_MIN ((size_t)16)

struct entry {
    CK_ATTRIBUTE_TYPE type;
    size_t at; /* in the block, a multiple of 8: readers may find numbers there */
    size_t len;
};

struct kms_attrs {
    struct entry *table;
    size_t count, table_cap;
    uint8_t *block; /* secure; NULL when nothing was ever set */
    size_t used, cap;
};

static size_t padded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

struct kms_attrs *kms_attrs_new(void)
{
    return calloc(1, sizeof(struct kms_attrs));
}

void kms_attrs_free(struct kms_attrs *attrs)
{
    if (attrs != NULL) {
        kms_secure_free(attrs->block);
        free(attrs->table);
        free(attrs);
    }
}

struct kms_attrs *kms_attrs_copy(const struct kms_attrs *attrs)
{
    struct kms_attrs *copy = kms_attrs_new();

    if (copy == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < attrs->count; i++) {
        const struct entry *e = &attrs->table[i];

        if (kms_attrs_set(copy, e->type, attrs->block + e->at, e->len) != CKR_OK) {
            kms_attrs_free(copy);
            return NULL;
        }
    }
    return copy;
}

/* Where @type is in the table, or would be. */
static size_t place(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type)
{
    size_t low = 0;
    size_t high = attrs->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (attrs->table[middle].type < type) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct entry *find(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type)
{
    size_t at = place(attrs, type);

    return at < attrs->count && attrs->table[at].type == type ? &attrs->table[at] : NULL;
}

/* ---- changing ----------------------------------------------------------------------------- */

static bool table_room(struct kms_attrs *attrs)
{
    size_t cap = attrs->table_cap == 0 ? TABLE_MIN : attrs->table_cap * 2;
    struct entry *table;

    if (attrs->count < attrs->table_cap) {
        return true;
    }
    table = realloc(attrs->table, cap * sizeof(*table));
    if (table == NULL) {
        return false;
    }
    attrs->table = table;
    attrs->table_cap = cap;
    return true;
}

/*
 * Makes room for @need bytes behind what is used, in a new block without the holes of replaced
 * values. The old block goes to *ret_old: the value to be set may lie in it.
 */
static bool block_room(struct kms_attrs *attrs, size_t need, uint8_t **ret_old)
{
    size_t cap = BLOCK_MIN;
    size_t used = 0;
    uint8_t *block;

    if (attrs->block != NULL && need <= attrs->cap - attrs->used) {
        return true;
    }
    for (size_t i = 0; i < attrs->count; i++) {
        used += padded(attrs->table[i].len);
    }
    while (cap < used + need) {
        cap *= 2;
    }
    block = kms_secure_new(cap);
    if (block == NULL) {
        return false;
    }
    used = 0;
    for (size_t i = 0; i < attrs->count; i++) {
        struct entry *e = &attrs->table[i];

        if (e->len > 0) {
            memcpy(block + used, attrs->block + e->at, e->len);
        }
        e->at = used;
        used += padded(e->len);
    }
    *ret_old = attrs->block;
    attrs->block = block;
    attrs->used = used;
    attrs->cap = cap;
    return true;
}

static void overwrite(struct kms_attrs *attrs, struct entry *e, const void *value, size_t len)
{
    size_t old = e->len;

    if (len > 0) {
        memmove(attrs->block + e->at, value, len);
    }
    if (old > len) {
        kms_wipe(attrs->block + e->at + len, old - len);
    }
    e->len = len;
}

static void insert(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, size_t at, size_t len)
{
    size_t row = place(attrs, type);

    memmove(&attrs->table[row + 1], &attrs->table[row],
            (attrs->count - row) * sizeof(attrs->table[0]));
    attrs->table[row] = (struct entry){.type = type, .at = at, .len = len};
    attrs->count++;
}

CK_RV kms_attrs_set(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, const void *value, size_t len)
{
    struct entry *e = find(attrs, type);
    uint8_t *old = NULL;
    size_t at = 0;

    if (len > KMS_ATTR_VALUE_MAX || (value == NULL && len > 0) ||
        (e == NULL && attrs->count >= KMS_ATTRS_MAX)) {
        return CKR_ATTRIBUTE_VALUE_INVALID;
    }
    if (e != NULL && len <= padded(e->len)) {
        overwrite(attrs, e, value, len);
        return CKR_OK;
    }
    if ((e == NULL && !table_room(attrs)) || !block_room(attrs, padded(len), &old)) {
        return CKR_HOST_MEMORY;
    }
    at = attrs->used;
    if (len > 0) {
        memcpy(attrs->block + at, value, len);
    }
    attrs->used += padded(len);
    if (e != NULL) {
        kms_wipe(attrs->block + e->at, e->len);
        e->at = at;
        e->len = len;
    } else {
        insert(attrs, type, at, len);
    }
    kms_secure_free(old);
    return CKR_OK;
}

CK_RV kms_attrs_set_bool(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, bool value)
{
    const CK_BBOOL byte = value ? CK_TRUE : CK_FALSE;

    return kms_attrs_set(attrs, type, &byte, sizeof(byte));
}

CK_RV kms_attrs_set_ulong(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, CK_ULONG value)
{
    return kms_attrs_set(attrs, type, &value, sizeof(value));
}

void kms_attrs_remove(struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type)
{
    struct entry *e = find(attrs, type);
    size_t row = 0;

    if (e == NULL) {
        return;
    }
    row = (size_t)(e - attrs->table);
    kms_wipe(attrs->block + e->at, e->len);
    attrs->count--;
    memmove(e, e + 1, (attrs->count - row) * sizeof(*e));
}

/* ---- reading ------------------------------------------------------------------------------ */

bool kms_attrs_get(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type,
                   struct kms_span *ret_value)
{
    const struct entry *e = find(attrs, type);

    if (e == NULL) {
        return false;
    }
    *ret_value = kms_span_of(attrs->block + e->at, e->len);
    return true;
}

bool kms_attrs_bool(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, bool fallback)
{
    struct kms_span value;

    if (!kms_attrs_get(attrs, type, &value) || value.len != sizeof(CK_BBOOL)) {
        return fallback;
    }
    return value.data[0] != CK_FALSE;
}

CK_ULONG kms_attrs_ulong(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, CK_ULONG fallback)
{
    struct kms_span value;
    CK_ULONG number = fallback;

    if (kms_attrs_get(attrs, type, &value) && value.len == sizeof(number)) {
        memcpy(&number, value.data, sizeof(number));
    }
    return number;
}

size_t kms_attrs_count(const struct kms_attrs *attrs)
{
    return attrs->count;
}

CK_ATTRIBUTE_TYPE kms_attrs_at(const struct kms_attrs *attrs, size_t index, struct kms_span *ret)
{
    const struct entry *e;

    if (index >= attrs->count) {
        *ret = KMS_SPAN_NONE;
        return CK_UNAVAILABLE_INFORMATION;
    }
    e = &attrs->table[index];
    *ret = kms_span_of(attrs->block + e->at, e->len);
    return e->type;
}

/* Constant time within a value: a search may be for a secret. */
bool kms_attrs_match(const struct kms_attrs *attrs, const struct kms_attrs *tmpl)
{
    for (size_t i = 0; i < tmpl->count; i++) {
        const struct entry *want = &tmpl->table[i];
        struct kms_span have;

        if (!kms_attrs_get(attrs, want->type, &have) || have.len != want->len ||
            !kms_secret_equal(have.data, tmpl->block + want->at, want->len)) {
            return false;
        }
    }
    return true;
}
