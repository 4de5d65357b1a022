/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: their life, and how they are made of attributes. */
#include <openssl/core_names.h>
#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

#define RSA_MIN       1024
#define RSA_E_MAX     32 /* bytes: below 2^256, as FIPS 186-5 has it */
#define NUMBERS_BYTES (8 * (KMS_SOFT_RSA_BYTES + 8))

/* ---- life --------------------------------------------------------------------------------- */

struct kms_soft_key *kms_soft_key_ref(struct kms_soft_key *key)
{
    atomic_fetch_add(&key->refs, 1);
    return key;
}

void kms_soft_key_unref(struct kms_soft_key *key)
{
    if (key == NULL || atomic_fetch_sub(&key->refs, 1) != 1) {
        return;
    }
    kms_secure_free(key->secret);
    if (kms_soft_alive()) { /* wiped by libcrypto, which cannot be called any more otherwise */
        EVP_PKEY_free(key->pkey);
    }
    free(key);
}

CK_KEY_TYPE kms_soft_key_type(const struct kms_soft_key *key)
{
    return key->type;
}

unsigned kms_soft_key_bits(const struct kms_soft_key *key)
{
    return key->bits;
}

bool kms_soft_key_count(struct kms_soft_key *key, unsigned bits, uint64_t *ret_number)
{
    uint64_t next = atomic_load(&key->counted);

    do {
        if (next == UINT64_MAX || (bits < 64 && next >> bits != 0)) {
            return false; /* and so it stays */
        }
    } while (!atomic_compare_exchange_weak(&key->counted, &next, next + 1));
    *ret_number = next;
    return true;
}

static struct kms_soft_key *key_new(CK_KEY_TYPE type, unsigned bits, bool has_private)
{
    struct kms_soft_key *key = calloc(1, sizeof(*key));

    if (key != NULL) {
        atomic_init(&key->refs, 1);
        atomic_init(&key->counted, 0);
        key->type = type;
        key->bits = bits;
        key->has_private = has_private;
    }
    return key;
}

CK_RV kms_soft_key_of_secret(CK_KEY_TYPE type, struct kms_span secret,
                             struct kms_soft_key **ret_key)
{
    struct kms_soft_key *key;

    if (type == CKK_AES && secret.len != 16 && secret.len != 24 && secret.len != 32) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE,
                              "CKA_VALUE: AES keys have 16, 24 or 32 bytes, "
                              "not %zu",
                              secret.len);
    }
    if (secret.len == 0 || secret.len > KMS_SOFT_SECRET_MAX) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_VALUE: a secret has 1 to %d bytes, not %zu",
                              KMS_SOFT_SECRET_MAX, secret.len);
    }
    key = key_new(type, (unsigned)(8 * secret.len), true);
    if (key == NULL) {
        return CKR_HOST_MEMORY;
    }
    key->secret = kms_secure_new(secret.len);
    if (key->secret == NULL) {
        free(key);
        return CKR_HOST_MEMORY;
    }
    memcpy(key->secret, secret.data, secret.len);
    key->secret_len = secret.len;
    *ret_key = key;
    return CKR_OK;
}

/* What libcrypto holds, as one of ours. */
static CK_RV classify(const EVP_PKEY *pkey, CK_KEY_TYPE *ret_type, unsigned *ret_bits,
                      const struct kms_soft_curve **ret_curve)
{
    *ret_curve = kms_soft_curve_of(pkey);
    if (*ret_curve != NULL) {
        *ret_type = (*ret_curve)->type;
        *ret_bits = (*ret_curve)->bits;
        return CKR_OK;
    }
    if (!EVP_PKEY_is_a(pkey, "RSA")) {
        return EVP_PKEY_is_a(pkey, "EC")
                   ? kms_p11_refuse(CKR_CURVE_NOT_SUPPORTED, "the key's curve is none of ours")
                   : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "a key of a type that we do not");
    }
    *ret_type = CKK_RSA;
    *ret_bits = (unsigned)EVP_PKEY_get_bits(pkey);
    if (*ret_bits < RSA_MIN || *ret_bits > KMS_SOFT_RSA_MAX) {
        return kms_p11_refuse(CKR_KEY_SIZE_RANGE, "CKA_MODULUS: %u bits are not %d to %d",
                              *ret_bits, RSA_MIN, KMS_SOFT_RSA_MAX);
    }
    return CKR_OK;
}

CK_RV kms_soft_key_take(EVP_PKEY *pkey, bool has_private, struct kms_soft_key **ret_key)
{
    const struct kms_soft_curve *curve = NULL;
    CK_KEY_TYPE type = CKK_RSA;
    unsigned bits = 0;
    struct kms_soft_key *key = NULL;
    CK_RV rv = classify(pkey, &type, &bits, &curve);

    if (rv == CKR_OK) {
        key = key_new(type, bits, has_private);
        rv = key == NULL ? CKR_HOST_MEMORY : CKR_OK;
    }
    if (rv != CKR_OK) {
        EVP_PKEY_free(pkey);
        return rv;
    }
    key->pkey = pkey;
    key->curve = curve;
    *ret_key = key;
    return CKR_OK;
}

/* ---- of attributes ------------------------------------------------------------------------ */

static CK_RV need(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, struct kms_span *ret)
{
    if (!kms_attrs_get(attrs, type, ret)) {
        return kms_p11_refuse(CKR_TEMPLATE_INCOMPLETE, "%s is missing", kms_attr_name(type));
    }
    if (ret->len == 0) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "%s is empty", kms_attr_name(type));
    }
    return CKR_OK;
}

static CK_RV import_secret(CK_KEY_TYPE type, const struct kms_attrs *attrs,
                           struct kms_soft_key **ret_key)
{
    struct kms_span value;
    CK_RV rv = need(attrs, CKA_VALUE, &value);

    return rv == CKR_OK ? kms_soft_key_of_secret(type, value, ret_key) : rv;
}

/* RFC 8017, 3: the numbers' names there, here, and in libcrypto. */
static const struct {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    enum { PUBLIC, PRIVATE, CRT } part;
} numbers[] = {
    {CKA_MODULUS, OSSL_PKEY_PARAM_RSA_N, PUBLIC},
    {CKA_PUBLIC_EXPONENT, OSSL_PKEY_PARAM_RSA_E, PUBLIC},
    {CKA_PRIVATE_EXPONENT, OSSL_PKEY_PARAM_RSA_D, PRIVATE},
    {CKA_PRIME_1, OSSL_PKEY_PARAM_RSA_FACTOR1, CRT},
    {CKA_PRIME_2, OSSL_PKEY_PARAM_RSA_FACTOR2, CRT},
    {CKA_EXPONENT_1, OSSL_PKEY_PARAM_RSA_EXPONENT1, CRT},
    {CKA_EXPONENT_2, OSSL_PKEY_PARAM_RSA_EXPONENT2, CRT},
    {CKA_COEFFICIENT, OSSL_PKEY_PARAM_RSA_COEFFICIENT1, CRT},
};
#define NUMBER_COUNT (sizeof(numbers) / sizeof(numbers[0]))

/* All of the Chinese remainder's numbers, or none; half of them is a mistake. */
static CK_RV count_crt(const struct kms_attrs *attrs, bool *ret_crt)
{
    size_t have = 0;
    struct kms_span value;

    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        have += numbers[i].part == CRT && kms_attrs_get(attrs, numbers[i].type, &value) &&
                value.len > 0;
    }
    *ret_crt = have == 5;
    return have == 0 || have == 5 ? CKR_OK
                                  : kms_p11_refuse(CKR_TEMPLATE_INCOMPLETE,
                                                   "of CKA_PRIME_1 to CKA_COEFFICIENT, %zu of 5 "
                                                   "are given",
                                                   have);
}

CK_RV kms_soft_check_exponent(struct kms_span e)
{
    while (e.len > 0 && e.data[0] == 0) {
        e = kms_span_of(e.data + 1, e.len - 1);
    }
    if (e.len == 0 || e.len > RSA_E_MAX || (e.data[e.len - 1] & 1) == 0 ||
        (e.len == 1 && e.data[0] == 1)) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID,
                              "CKA_PUBLIC_EXPONENT must be odd, above 1, of at most %d bytes",
                              RSA_E_MAX);
    }
    return CKR_OK;
}

static CK_RV put_numbers(const struct kms_attrs *attrs, bool is_private, bool crt,
                         struct kms_soft_data *data)
{
    CK_RV rv = CKR_OK;

    for (size_t i = 0; i < NUMBER_COUNT && rv == CKR_OK; i++) {
        struct kms_span value;

        if ((numbers[i].part == PRIVATE && !is_private) || (numbers[i].part == CRT && !crt)) {
            continue;
        }
        rv = need(attrs, numbers[i].type, &value);
        if (rv == CKR_OK && numbers[i].type == CKA_PUBLIC_EXPONENT) {
            rv = kms_soft_check_exponent(value);
        }
        if (rv == CKR_OK && !kms_soft_data_number(data, numbers[i].name, value)) {
            rv = kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "%s is too long",
                                kms_attr_name(numbers[i].type));
        }
    }
    return rv;
}

static CK_RV import_rsa(const struct kms_attrs *attrs, bool is_private,
                        struct kms_soft_key **ret_key)
{
    struct kms_soft_data data;
    bool crt = false;
    EVP_PKEY *pkey = NULL;
    CK_RV rv = is_private ? count_crt(attrs, &crt) : CKR_OK;

    if (rv != CKR_OK) {
        return rv;
    }
    if (!kms_soft_data_init(&data, NUMBERS_BYTES)) {
        return CKR_HOST_MEMORY;
    }
    rv = put_numbers(attrs, is_private, crt, &data);
    if (rv == CKR_OK) {
        pkey = kms_soft_data_key(&data, KMS_SOFT_RSA,
                                 is_private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY);
        rv = pkey != NULL ? kms_soft_key_take(pkey, is_private, ret_key)
                          : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID,
                                           "CKA_MODULUS and the others make no RSA key");
    }
    kms_soft_data_done(&data);
    if (rv == CKR_OK && !kms_soft_rsa_fits(*ret_key, crt)) {
        kms_soft_key_unref(*ret_key);
        *ret_key = NULL;
        rv = kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID,
                            "CKA_MODULUS is not a modulus, or the primes are of another one");
    }
    return rv;
}

static CK_RV find_curve(CK_KEY_TYPE type, const struct kms_attrs *attrs,
                        const struct kms_soft_curve **ret_curve)
{
    struct kms_span params;
    CK_RV rv = need(attrs, CKA_EC_PARAMS, &params);

    if (rv != CKR_OK) {
        return rv;
    }
    *ret_curve = kms_soft_curve_find(type, params);
    return *ret_curve != NULL
               ? CKR_OK
               : kms_p11_refuse(CKR_CURVE_NOT_SUPPORTED, "CKA_EC_PARAMS names no curve of ours");
}

/* CKA_EC_POINT, as a DER OCTET STRING ("ECDSA public key objects") or raw, which some callers give.
 */
static EVP_PKEY *public_of(const struct kms_soft_curve *curve, struct kms_span point)
{
    struct kms_span inside;
    EVP_PKEY *pkey = kms_soft_octets(point, &inside) ? kms_soft_point(curve, inside) : NULL;

    return pkey != NULL ? pkey : kms_soft_point(curve, point);
}

static CK_RV import_ec(CK_KEY_TYPE type, const struct kms_attrs *attrs, bool is_private,
                       struct kms_soft_key **ret_key)
{
    const CK_ATTRIBUTE_TYPE what = is_private ? CKA_VALUE : CKA_EC_POINT;
    const struct kms_soft_curve *curve = NULL;
    struct kms_span value = KMS_SPAN_NONE;
    EVP_PKEY *pkey;
    CK_RV rv = find_curve(type, attrs, &curve);

    if (rv == CKR_OK) {
        rv = need(attrs, what, &value);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    pkey = is_private ? kms_soft_scalar(curve, value) : public_of(curve, value);
    return pkey != NULL ? kms_soft_key_take(pkey, is_private, ret_key)
                        : kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "%s is not of %s",
                                         kms_attr_name(what), curve->group);
}

static CK_RV import(CK_OBJECT_CLASS class, CK_KEY_TYPE type, const struct kms_attrs *attrs,
                    struct kms_soft_key **ret_key)
{
    if (class == CKO_SECRET_KEY) {
        return import_secret(type, attrs, ret_key);
    }
    if (class != CKO_PUBLIC_KEY && class != CKO_PRIVATE_KEY) {
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_CLASS is none of keys");
    }
    switch (type) {
    case CKK_RSA:
        return import_rsa(attrs, class == CKO_PRIVATE_KEY, ret_key);
    case CKK_EC:
    case CKK_EC_EDWARDS:
        return import_ec(type, attrs, class == CKO_PRIVATE_KEY, ret_key);
    default:
        return kms_p11_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_KEY_TYPE 0x%lx is none of ours",
                              type);
    }
}

CK_RV kms_soft_key_import(CK_OBJECT_CLASS class, CK_KEY_TYPE type, const struct kms_attrs *attrs,
                          struct kms_soft_key **ret_key)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(import(class, type, attrs, ret_key)) : rv;
}
