/* SPDX-License-Identifier: Apache-2.0 */
/* Key material between attributes and libcrypto: numbers, points and scalars. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/soft_parts.h"

#define POINT_MAX (1 + 2 * 66) /* P-521, uncompressed */
#define RAW_25519 32

bool kms_soft_data_init(struct kms_soft_data *data, size_t cap)
{
    *data = (struct kms_soft_data){.bytes = kms_secure_new(cap), .cap = cap};
    return data->bytes != NULL;
}

void kms_soft_data_done(struct kms_soft_data *data)
{
    kms_secure_free(data->bytes);
    data->bytes = NULL;
}

/* Room for @len bytes, one parameter and the end. */
static uint8_t *data_room(struct kms_soft_data *data, size_t len)
{
    uint8_t *at = data->bytes + data->used;

    if (len > data->cap - data->used ||
        data->count + 1 >= sizeof(data->params) / sizeof(data->params[0])) {
        return NULL;
    }
    data->used += (len + 7) & ~(size_t)7;
    if (data->used > data->cap) {
        data->used = data->cap;
    }
    return at;
}

/* OSSL_PARAM's integers are in the machine's byte order. */
bool kms_soft_data_number(struct kms_soft_data *data, const char *name, struct kms_span big_endian)
{
    uint8_t *at = data_room(data, big_endian.len);

    if (at == NULL) {
        return false;
    }
    for (size_t i = 0; i < big_endian.len; i++) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        at[big_endian.len - 1 - i] = big_endian.data[i];
#else
        at[i] = big_endian.data[i];
#endif
    }
    data->params[data->count++] = OSSL_PARAM_construct_BN(name, at, big_endian.len);
    return true;
}

bool kms_soft_data_octets(struct kms_soft_data *data, const char *name, struct kms_span bytes)
{
    uint8_t *at = data_room(data, bytes.len);

    if (at == NULL) {
        return false;
    }
    memcpy(at, bytes.data, bytes.len);
    data->params[data->count++] = OSSL_PARAM_construct_octet_string(name, at, bytes.len);
    return true;
}

bool kms_soft_data_text(struct kms_soft_data *data, const char *name, const char *text)
{
    uint8_t *at = data_room(data, strlen(text) + 1);

    if (at == NULL) {
        return false;
    }
    memcpy(at, text, strlen(text) + 1);
    data->params[data->count++] = OSSL_PARAM_construct_utf8_string(name, (char *)at, 0);
    return true;
}

EVP_PKEY *kms_soft_data_key(struct kms_soft_data *data, const char *type, int selection)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(kms_soft_lib(), type, NULL);
    EVP_PKEY *pkey = NULL;

    data->params[data->count] = OSSL_PARAM_construct_end();
    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &pkey, selection, data->params) != 1) {
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

/* ---- RSA ---------------------------------------------------------------------------------- */

/*
 * An odd modulus, and the primes' product where they are given: enough to tell a mixed-up template
 * from a key. Whether the primes are prime is the business of whoever made them; a wrong exponent
 * shows in libcrypto's own check of each result.
 */
bool kms_soft_rsa_fits(const struct kms_soft_key *key, bool crt)
{
    BIGNUM *n = NULL;
    BIGNUM *p = NULL;
    BIGNUM *q = NULL;
    BIGNUM *product = BN_new();
    BN_CTX *ctx = BN_CTX_new_ex(kms_soft_lib());
    bool good = product != NULL && ctx != NULL &&
                EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_N, &n) == 1 && BN_is_odd(n);

    if (good && crt) {
        good = EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_FACTOR1, &p) == 1 &&
               EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_FACTOR2, &q) == 1 &&
               BN_mul(product, p, q, ctx) == 1 && BN_cmp(product, n) == 0;
    }
    BN_CTX_free(ctx);
    BN_free(product);
    BN_clear_free(p);
    BN_clear_free(q);
    BN_free(n);
    return good;
}

/* ---- curves ------------------------------------------------------------------------------- */

static EVP_PKEY *point_checked(EVP_PKEY *pkey)
{
    EVP_PKEY_CTX *ctx =
        pkey == NULL ? NULL : EVP_PKEY_CTX_new_from_pkey(kms_soft_lib(), pkey, NULL);
    bool good = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;

    EVP_PKEY_CTX_free(ctx);
    if (!good) {
        EVP_PKEY_free(pkey);
        return NULL;
    }
    return pkey;
}

EVP_PKEY *kms_soft_point(const struct kms_soft_curve *curve, struct kms_span point)
{
    struct kms_soft_data data;
    EVP_PKEY *pkey = NULL;

    if (curve->type == CKK_EC_EDWARDS) {
        return point.len != RAW_25519 ? NULL
                                      : EVP_PKEY_new_raw_public_key_ex(kms_soft_lib(), curve->group,
                                                                       NULL, point.data, point.len);
    }
    if (point.len == 0 || point.len > POINT_MAX || !kms_soft_data_init(&data, 256)) {
        return NULL;
    }
    if (kms_soft_data_text(&data, OSSL_PKEY_PARAM_GROUP_NAME, curve->group) &&
        kms_soft_data_octets(&data, OSSL_PKEY_PARAM_PUB_KEY, point)) {
        pkey = point_checked(kms_soft_data_key(&data, KMS_SOFT_EC, EVP_PKEY_PUBLIC_KEY));
    }
    kms_soft_data_done(&data);
    return pkey;
}

/* The scalar's public point, uncompressed; 0: it is not from 1 to the order less 1. */
static size_t point_of(const struct kms_soft_curve *curve, struct kms_span scalar,
                       uint8_t ret[POINT_MAX])
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name_ex(kms_soft_lib(), NULL, curve->nid);
    EC_POINT *point = group == NULL ? NULL : EC_POINT_new(group);
    BN_CTX *ctx = BN_CTX_new_ex(kms_soft_lib());
    BIGNUM *d = BN_bin2bn(scalar.data, (int)scalar.len, NULL);
    size_t len = 0;

    if (point != NULL && ctx != NULL && d != NULL) {
        BN_set_flags(d, BN_FLG_CONSTTIME);
        if (!BN_is_zero(d) && BN_cmp(d, EC_GROUP_get0_order(group)) < 0 &&
            EC_POINT_mul(group, point, d, NULL, NULL, ctx) == 1) {
            len = EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret, POINT_MAX,
                                     ctx);
        }
    }
    BN_clear_free(d);
    BN_CTX_free(ctx);
    EC_POINT_free(point);
    EC_GROUP_free(group);
    return len;
}

EVP_PKEY *kms_soft_scalar(const struct kms_soft_curve *curve, struct kms_span scalar)
{
    struct kms_soft_data data;
    uint8_t point[POINT_MAX];
    EVP_PKEY *pkey = NULL;
    size_t len = 0;

    if (curve->type == CKK_EC_EDWARDS) {
        return scalar.len != RAW_25519
                   ? NULL
                   : EVP_PKEY_new_raw_private_key_ex(kms_soft_lib(), curve->group, NULL,
                                                     scalar.data, scalar.len);
    }
    if (scalar.len > 2 * curve->order_len) {
        return NULL;
    }
    len = point_of(curve, scalar, point);
    if (len == 0 || !kms_soft_data_init(&data, 512)) {
        return NULL;
    }
    if (kms_soft_data_text(&data, OSSL_PKEY_PARAM_GROUP_NAME, curve->group) &&
        kms_soft_data_octets(&data, OSSL_PKEY_PARAM_PUB_KEY, kms_span_of(point, len)) &&
        kms_soft_data_number(&data, OSSL_PKEY_PARAM_PRIV_KEY, scalar)) {
        pkey = kms_soft_data_key(&data, KMS_SOFT_EC, EVP_PKEY_KEYPAIR);
    }
    kms_soft_data_done(&data);
    return pkey;
}
