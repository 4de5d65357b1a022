/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of a new key, one maker for each type. What is made never leaves the token. */
#include "backend/hsm_make.h"

#include <stdio.h>
#include <string.h>

#include "backend/p11/ckr.h"

/* ---- templates ---------------------------------------------------------------------------- */

static void put_name(struct kms_p11_template *t, const struct kms_hsm_new *job, const char *label)
{
    kms_p11_put_bool(t, CKA_TOKEN, true);
    kms_p11_put_bytes(t, CKA_LABEL, label, strlen(label));
    kms_p11_put_bytes(t, CKA_ID, job->tag, job->tag_len);
}

static void put_private(struct kms_p11_template *t)
{
    kms_p11_put_bool(t, CKA_PRIVATE, true);
    kms_p11_put_bool(t, CKA_SENSITIVE, true);
    kms_p11_put_bool(t, CKA_EXTRACTABLE, false);
}

static void put_uses(struct kms_p11_template *t, unsigned uses, unsigned which)
{
    static const struct {
        unsigned use;
        CK_ATTRIBUTE_TYPE type;
    } rows[] = {
        {KMS_USE_ENCRYPT, CKA_ENCRYPT}, {KMS_USE_DECRYPT, CKA_DECRYPT},
        {KMS_USE_WRAP, CKA_WRAP},       {KMS_USE_UNWRAP, CKA_UNWRAP},
        {KMS_USE_SIGN, CKA_SIGN},       {KMS_USE_VERIFY, CKA_VERIFY},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((which & rows[i].use) != 0) {
            kms_p11_put_bool(t, rows[i].type, (uses & rows[i].use) != 0);
        }
    }
}

static void note_made(const struct kms_hsm_new *job, CK_OBJECT_HANDLE handle)
{
    if (handle != CK_INVALID_HANDLE && job->made->count < KMS_HSM_MADE_MAX) {
        job->made->handles[job->made->count++] = handle;
    }
}

/* ---- one maker for each type -------------------------------------------------------------- */

static CK_RV make_secret(struct kms_p11 *p, const struct kms_hsm_new *job, const char *label,
                         CK_MECHANISM_TYPE type, unsigned bits, unsigned uses, unsigned which)
{
    struct kms_p11_template t = {.count = 0};
    CK_MECHANISM mechanism = {.mechanism = type};
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    put_name(&t, job, label);
    put_private(&t);
    put_uses(&t, uses, which);
    kms_p11_put_number(&t, CKA_VALUE_LEN, bits / 8);
    p->committed = true;
    rv = KMS_P11(p, C_GenerateKey)(p->session, &mechanism, t.rows, t.count, &handle);
    if (rv == CKR_OK) {
        note_made(job, handle);
    }
    return rv;
}

#define SECRET_USES (KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP)
#define MAC_USES    (KMS_USE_SIGN | KMS_USE_VERIFY)
#define ALL_USES    (SECRET_USES | MAC_USES)

static CK_RV make_aes(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    return make_secret(p, job, job->label, CKM_AES_KEY_GEN, job->bits, job->uses, ALL_USES);
}

static CK_RV make_generic(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    return make_secret(p, job, job->label, CKM_GENERIC_SECRET_KEY_GEN, job->bits, job->uses,
                       ALL_USES);
}

static CK_RV make_pair(struct kms_p11 *p, const struct kms_hsm_new *job, CK_MECHANISM_TYPE type,
                       struct kms_p11_template *public_half)
{
    const unsigned publics = KMS_USE_ENCRYPT | KMS_USE_VERIFY | KMS_USE_WRAP;
    const unsigned privates = KMS_USE_DECRYPT | KMS_USE_SIGN | KMS_USE_UNWRAP;
    struct kms_p11_template private_half = {.count = 0};
    CK_MECHANISM mechanism = {.mechanism = type};
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    CK_RV rv = CKR_OK;

    put_name(public_half, job, job->label);
    put_uses(public_half, job->uses, publics);
    put_name(&private_half, job, job->label);
    put_private(&private_half);
    put_uses(&private_half, job->uses, privates);
    p->committed = true;
    rv = KMS_P11(p, C_GenerateKeyPair)(p->session, &mechanism, public_half->rows,
                                       public_half->count, private_half.rows, private_half.count,
                                       &handles[0], &handles[1]);
    for (size_t i = 0; i < 2 && rv == CKR_OK; i++) {
        note_made(job, handles[i]);
    }
    return rv;
}

static CK_RV make_rsa(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    static const uint8_t exponent[] = {0x01, 0x00, 0x01};
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_number(&t, CKA_MODULUS_BITS, job->bits);
    kms_p11_put_bytes(&t, CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent));
    return make_pair(p, job, CKM_RSA_PKCS_KEY_PAIR_GEN, &t);
}

static CK_RV make_curve(struct kms_p11 *p, const struct kms_hsm_new *job, CK_MECHANISM_TYPE type,
                        struct kms_span params)
{
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_bytes(&t, CKA_EC_PARAMS, params.data, params.len);
    return make_pair(p, job, type, &t);
}

/* DER OBJECT IDENTIFIERs (RFC 5480 2.1.1.1). */
static const uint8_t oid_p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t oid_p384[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};
static const uint8_t oid_p521[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23};

static CK_RV make_ec(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    struct kms_span oid = job->bits == 256   ? kms_span_of(oid_p256, sizeof(oid_p256))
                          : job->bits == 384 ? kms_span_of(oid_p384, sizeof(oid_p384))
                                             : kms_span_of(oid_p521, sizeof(oid_p521));

    return make_curve(p, job, CKM_EC_KEY_PAIR_GEN, oid);
}

/* 2.40 says nothing of Ed25519; tokens name it by RFC 8410's OID or by 3.0's PrintableString. */
static CK_RV make_eddsa(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    static const uint8_t oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};
    static const uint8_t name[] = "\x13\x0c"
                                  "edwards25519";
    CK_RV rv = make_curve(p, job, CKM_EC_EDWARDS_KEY_PAIR_GEN, kms_span_of(oid, sizeof(oid)));

    if (kms_ckr_is_unsupported(rv)) {
        rv = make_curve(p, job, CKM_EC_EDWARDS_KEY_PAIR_GEN, kms_span_of(name, sizeof(name) - 1));
    }
    return rv;
}

#define SIGN_USES (KMS_USE_SIGN | KMS_USE_VERIFY)

static const struct kms_hsm_kind kinds[] = {
    {KMS_KEY_AES, make_aes, {256, 128, 192, 0}, SECRET_USES},
    {KMS_KEY_GENERIC, make_generic, {256, 384, 512, 0}, MAC_USES},
    {KMS_KEY_RSA, make_rsa, {3072, 2048, 4096, 0}, SIGN_USES | KMS_USE_ENCRYPT | KMS_USE_DECRYPT},
    {KMS_KEY_EC, make_ec, {256, 384, 521, 0}, SIGN_USES},
    {KMS_KEY_EDDSA, make_eddsa, {256, 255, 0, 0}, SIGN_USES},
};

const struct kms_hsm_kind *kms_hsm_kind_find(enum kms_key_type type)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].type == type) {
            return &kinds[i];
        }
    }
    return NULL;
}

bool kms_hsm_kind_fits(const struct kms_hsm_kind *kind, unsigned bits)
{
    if (kind->type == KMS_KEY_RSA) {
        return bits >= 2048 && bits <= 4096 && bits % 256 == 0;
    }
    for (size_t i = 0; i < 4 && kind->bits[i] != 0; i++) {
        if (kind->bits[i] == bits) {
            return true;
        }
    }
    return false;
}

CK_RV kms_hsm_make_companion(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    char label[KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX)];

    (void)snprintf(label, sizeof(label), "%s%s", job->label, KMS_HSM_MAC_SUFFIX);
    return make_secret(p, job, label, CKM_GENERIC_SECRET_KEY_GEN, 256, MAC_USES, ALL_USES);
}

void kms_hsm_unmake(struct kms_p11 *p, const struct kms_hsm_new *job)
{
    while (job->made->count > 0) {
        (void)p->functions->C_DestroyObject(p->session, job->made->handles[--job->made->count]);
    }
}
