/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/soft_fixture.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void demand(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "fixture: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

struct bytes bytes_hex(const char *hex)
{
    struct bytes b = {.len = 0};

    for (const char *at = hex == NULL ? "" : hex; *at != '\0'; at += 2) {
        char two[3] = {at[0], at[1], '\0'};

        demand(isxdigit((unsigned char)two[0]) && isxdigit((unsigned char)two[1]), hex);
        demand(b.len < sizeof(b.data), "hex is too long");
        b.data[b.len++] = (uint8_t)strtoul(two, NULL, 16);
    }
    return b;
}

bool bytes_are(struct kms_span have, const char *hex)
{
    struct bytes want = bytes_hex(hex);

    return kms_span_equal(have, bytes_span(&want));
}

struct kms_soft_key *key_of(CK_KEY_TYPE type, const char *hex)
{
    struct kms_attrs *attrs = kms_attrs_new();
    struct kms_soft_key *key = NULL;
    struct bytes value = bytes_hex(hex);

    demand(attrs != NULL && kms_attrs_set(attrs, CKA_VALUE, value.data, value.len) == CKR_OK &&
               kms_soft_key_import(CKO_SECRET_KEY, type, attrs, &key) == CKR_OK,
           "no key");
    kms_attrs_free(attrs);
    return key;
}

struct kms_soft_key *key_made(CK_KEY_TYPE type, unsigned bits, const char *ec_params)
{
    struct bytes params = bytes_hex(ec_params);
    struct kms_soft_key *key = NULL;

    demand(kms_soft_key_generate(type, bits, bytes_span(&params), KMS_SPAN_NONE, &key) == CKR_OK,
           "no fresh key");
    return key;
}

const struct kms_mech *mech_of(CK_MECHANISM_TYPE type)
{
    const struct kms_mech *mech = kms_mech_find(type);

    demand(mech != NULL, "no such mechanism");
    return mech;
}

/* Storage of exactly @cap bytes, so that a sanitizer sees what goes over it. */
static struct kms_buf exact(size_t cap)
{
    uint8_t *data = malloc(cap == 0 ? 1 : cap);

    demand(data != NULL, "no memory");
    return kms_buf_over(data, cap);
}

static void take(struct kms_buf *from, struct bytes *to)
{
    demand(from->len <= from->cap && from->len <= sizeof(to->data) - to->len, "too much came out");
    if (from->len > 0) {
        memcpy(to->data + to->len, from->data, from->len);
    }
    to->len += from->len;
    free(from->data);
}

CK_RV op_once(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
              struct kms_span in, struct bytes *out)
{
    struct kms_soft_op *op = NULL;
    struct kms_buf buf;
    CK_RV rv = kms_soft_op_new(what, mech_of(mechanism->mechanism), mechanism, key, &op);

    out->len = 0;
    if (rv != CKR_OK) {
        return rv;
    }
    buf = exact(kms_soft_op_room(op, in.len, true));
    rv = kms_soft_op_once(op, in, &buf);
    take(&buf, out);
    kms_soft_op_free(op);
    return rv;
}

static CK_RV feed(struct kms_soft_op *op, enum kms_soft_what what, struct kms_span in,
                  struct bytes *out)
{
    bool puts = what == KMS_SOFT_ENCRYPT || what == KMS_SOFT_DECRYPT;
    struct kms_buf buf = exact(kms_soft_op_room(op, in.len, false));
    size_t room = buf.cap;
    CK_RV rv = kms_soft_op_update(op, in, puts ? &buf : NULL);

    demand(rv != CKR_OK || buf.len == room || what == KMS_SOFT_VERIFY,
           "an update put out less than its room");
    take(&buf, out);
    return rv;
}

CK_RV op_split(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
               struct kms_span in, size_t at1, size_t at2, struct bytes *out)
{
    struct kms_soft_op *op = NULL;
    struct kms_buf buf;
    CK_RV rv = kms_soft_op_new(what, mech_of(mechanism->mechanism), mechanism, key, &op);

    out->len = 0;
    if (rv == CKR_OK) {
        rv = feed(op, what, kms_span_of(in.data, at1), out);
    }
    if (rv == CKR_OK) {
        rv = feed(op, what, kms_span_of(in.data + at1, at2 - at1), out);
    }
    if (rv == CKR_OK) {
        rv = feed(op, what, kms_span_of(in.data + at2, in.len - at2), out);
    }
    if (rv == CKR_OK) {
        buf = exact(kms_soft_op_room(op, 0, true));
        rv = kms_soft_op_final(op, &buf);
        take(&buf, out);
    }
    kms_soft_op_free(op);
    return rv;
}

CK_RV op_verify(const CK_MECHANISM *mechanism, struct kms_soft_key *key, struct kms_span in,
                struct kms_span signature)
{
    struct kms_soft_op *op = NULL;
    CK_RV rv = kms_soft_op_new(KMS_SOFT_VERIFY, mech_of(mechanism->mechanism), mechanism, key, &op);

    if (rv == CKR_OK) {
        rv = kms_soft_op_update(op, kms_span_of(in.data, in.len / 2), NULL);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_op_update(op, kms_span_of(in.data + in.len / 2, in.len - in.len / 2), NULL);
    }
    if (rv == CKR_OK) {
        rv = kms_soft_op_verify(op, signature);
    }
    kms_soft_op_free(op);
    return rv;
}

bool splits_agree(enum kms_soft_what what, const CK_MECHANISM *mechanism, struct kms_soft_key *key,
                  struct kms_span in, struct kms_span expected)
{
    static struct bytes out;

    for (size_t at1 = 0; at1 <= in.len; at1++) {
        for (size_t at2 = at1; at2 <= in.len; at2++) {
            if (op_split(what, mechanism, key, in, at1, at2, &out) != CKR_OK ||
                !kms_span_equal(bytes_span(&out), expected)) {
                fprintf(stderr, "split at %zu and %zu differs\n", at1, at2);
                return false;
            }
        }
    }
    return true;
}
