/* SPDX-License-Identifier: Apache-2.0 */
/* Public keys, from the attributes of a private key object or of the public one beside it. */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/param_build.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define VALUE_MAX 2080 /* the modulus of RSA-16384, with a header */

struct value {
    uint8_t bytes[VALUE_MAX];
    size_t len;
};

/* What each type's public half is made of. */
static const struct half {
    CK_KEY_TYPE type;
    CK_ATTRIBUTE_TYPE a;
    CK_ATTRIBUTE_TYPE b;
} halves[] = {
    {CKK_RSA, CKA_MODULUS, CKA_PUBLIC_EXPONENT},
    {CKK_EC, CKA_EC_PARAMS, CKA_EC_POINT},
    {CKK_EC_EDWARDS, CKA_EC_PARAMS, CKA_EC_POINT},
};

static const struct half *half_find(CK_KEY_TYPE type)
{
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        if (halves[i].type == type) {
            return &halves[i];
        }
    }
    return NULL;
}

/* CKR_ATTRIBUTE_TYPE_INVALID when @object lacks one of the two. */
static CK_RV read_half(struct kms_p11 *p, CK_OBJECT_HANDLE object, const struct half *half,
                       struct value *a, struct value *b)
{
    CK_ATTRIBUTE rows[] = {
        {half->a, a->bytes, sizeof(a->bytes)},
        {half->b, b->bytes, sizeof(b->bytes)},
    };
    CK_RV rv = kms_p11_read(p, object, rows, 2);

    if (rv != CKR_OK) {
        return rv;
    }
    if (!kms_p11_has(&rows[0]) || !kms_p11_has(&rows[1]) || rows[0].ulValueLen == 0 ||
        rows[1].ulValueLen == 0) {
        return CKR_ATTRIBUTE_TYPE_INVALID;
    }
    a->len = rows[0].ulValueLen;
    b->len = rows[1].ulValueLen;
    return CKR_OK;
}

/* From the public key object with the same CKA_ID: what private ones need not have. */
static CK_RV read_beside(struct kms_p11 *p, struct kms_hsm_beside *beside, struct kms_span tag,
                         const struct half *half, struct value *a, struct value *b)
{
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    if (tag.len == 0) {
        return CKR_ATTRIBUTE_TYPE_INVALID;
    }
    rv = kms_hsm_beside_public(p, beside, half->type, tag, &handle);
    if (rv != CKR_OK) {
        return rv;
    }
    return handle != CK_INVALID_HANDLE ? read_half(p, handle, half, a, b)
                                       : CKR_ATTRIBUTE_TYPE_INVALID;
}

/* @type by its object identifier (RFC 8017 A.1, RFC 5480 2.1.1): by name, libcrypto first asks
 * whether an engine of its configuration wants the type, and such a one cannot do this. */
static EVP_PKEY *from_params(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY_CTX *ctx = params == NULL ? NULL : EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static EVP_PKEY *make_rsa(const struct value *modulus, const struct value *exponent)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn(modulus->bytes, (int)modulus->len, NULL);
    BIGNUM *e = BN_bin2bn(exponent->bytes, (int)exponent->len, NULL);
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;

    if (build != NULL && n != NULL && e != NULL &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1) {
        params = OSSL_PARAM_BLD_to_param(build);
        key = from_params("1.2.840.113549.1.1.1", params);
    }
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return key;
}

/* CKA_EC_POINT is a DER OCTET STRING (2.40 2.3.3); some tokens give the bare point. */
static struct kms_span point_of(const struct value *point, size_t bare_len)
{
    size_t header = point->len > 2 && point->bytes[1] == 0x81 ? 3 : 2;

    if (point->len != bare_len && point->len > header && point->bytes[0] == 0x04 &&
        point->bytes[header - 1] == point->len - header) {
        return kms_span_of(point->bytes + header, point->len - header);
    }
    return kms_span_of(point->bytes, point->len);
}

static const struct curve {
    int nid;
    const char *group;
    size_t field;
} curves[] = {
    {NID_X9_62_prime256v1, "P-256", 32},
    {NID_secp384r1, "P-384", 48},
    {NID_secp521r1, "P-521", 66},
};

static const struct curve *curve_of(const struct value *params)
{
    const uint8_t *at = params->bytes;
    ASN1_OBJECT *object = d2i_ASN1_OBJECT(NULL, &at, (long)params->len);
    int nid = OBJ_obj2nid(object);
    const struct curve *found = NULL;

    ASN1_OBJECT_free(object);
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        if (curves[i].nid == nid) {
            found = &curves[i];
        }
    }
    return found;
}

static EVP_PKEY *make_ec(const struct value *params, const struct value *point)
{
    const struct curve *curve = curve_of(params);
    struct kms_span bare = KMS_SPAN_NONE;
    OSSL_PARAM list[3];
    char group[8];

    if (curve == NULL) {
        return NULL;
    }
    bare = point_of(point, 2 * curve->field + 1);
    memcpy(group, curve->group, strlen(curve->group) + 1);
    list[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0);
    list[1] =
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, kms_p11_in(bare.data), bare.len);
    list[2] = OSSL_PARAM_construct_end();
    return from_params("1.2.840.10045.2.1", list);
}

/* Ed25519 by the length of its point: tokens name the curve by OID or by PrintableString. */
static EVP_PKEY *make_eddsa(const struct value *params, const struct value *point)
{
    struct kms_span bare = point_of(point, 32);

    (void)params;
    if (bare.len != 32) {
        return NULL;
    }
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bare.data, bare.len);
}

CK_RV kms_hsm_public_read(struct kms_p11 *p, struct kms_hsm_beside *beside,
                          CK_OBJECT_HANDLE private_key, CK_KEY_TYPE type, struct kms_span tag,
                          EVP_PKEY **ret_key)
{
    const struct half *half = half_find(type);
    struct value a;
    struct value b;
    CK_RV rv = CKR_OK;

    if (half == NULL) {
        return CKR_KEY_TYPE_INCONSISTENT;
    }
    rv = read_half(p, private_key, half, &a, &b);
    if (rv == CKR_ATTRIBUTE_TYPE_INVALID) {
        rv = read_beside(p, beside, tag, half, &a, &b);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    *ret_key = type == CKK_RSA  ? make_rsa(&a, &b)
               : type == CKK_EC ? make_ec(&a, &b)
                                : make_eddsa(&a, &b);
    return *ret_key == NULL ? CKR_CURVE_NOT_SUPPORTED : CKR_OK;
}
