/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mechanism parameters from any bytes, and what is then begun with them. Byte 0: the row of the
 * table; byte 1: what to do, and how the pointers inside the structure are made; then the length
 * that is claimed (little endian, 2 bytes) and the parameter. Pointers are not taken from the
 * input: they are NULL or memory of exactly the length that stands beside them, so that a sanitizer
 * sees what is read behind it.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/soft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LONGEST 200 /* bytes behind a pointer; claimed lengths may be anything where it is NULL */

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

void kms_p11_log(enum kms_p11_log level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

CK_RV kms_p11_refuse(CK_RV rv, const char *fmt, ...)
{
    (void)fmt;
    return rv;
}

/* Where the pointers and their lengths are in each structure. */
static const struct {
    enum kms_mech_param param;
    size_t size;
    struct {
        size_t pointer, len;
    } at[2];
    size_t count;
} shapes[] = {
    {KMS_PARAM_GCM,
     sizeof(CK_GCM_PARAMS),
     {{offsetof(CK_GCM_PARAMS, pIv), offsetof(CK_GCM_PARAMS, ulIvLen)},
      {offsetof(CK_GCM_PARAMS, pAAD), offsetof(CK_GCM_PARAMS, ulAADLen)}},
     2},
    {KMS_PARAM_OAEP,
     sizeof(CK_RSA_PKCS_OAEP_PARAMS),
     {{offsetof(CK_RSA_PKCS_OAEP_PARAMS, pSourceData),
       offsetof(CK_RSA_PKCS_OAEP_PARAMS, ulSourceDataLen)}},
     1},
    {KMS_PARAM_EDDSA,
     sizeof(CK_EDDSA_PARAMS),
     {{offsetof(CK_EDDSA_PARAMS, pContextData), offsetof(CK_EDDSA_PARAMS, ulContextDataLen)}},
     1},
    {KMS_PARAM_ECDH,
     sizeof(CK_ECDH1_DERIVE_PARAMS),
     {{offsetof(CK_ECDH1_DERIVE_PARAMS, pSharedData),
       offsetof(CK_ECDH1_DERIVE_PARAMS, ulSharedDataLen)},
      {offsetof(CK_ECDH1_DERIVE_PARAMS, pPublicData),
       offsetof(CK_ECDH1_DERIVE_PARAMS, ulPublicDataLen)}},
     2},
    {KMS_PARAM_HKDF,
     sizeof(CK_HKDF_PARAMS),
     {{offsetof(CK_HKDF_PARAMS, pSalt), offsetof(CK_HKDF_PARAMS, ulSaltLen)},
      {offsetof(CK_HKDF_PARAMS, pInfo), offsetof(CK_HKDF_PARAMS, ulInfoLen)}},
     2},
    {KMS_PARAM_CHACHA,
     sizeof(CK_SALSA20_CHACHA20_POLY1305_PARAMS),
     {{offsetof(CK_SALSA20_CHACHA20_POLY1305_PARAMS, pNonce),
       offsetof(CK_SALSA20_CHACHA20_POLY1305_PARAMS, ulNonceLen)},
      {offsetof(CK_SALSA20_CHACHA20_POLY1305_PARAMS, pAAD),
       offsetof(CK_SALSA20_CHACHA20_POLY1305_PARAMS, ulAADLen)}},
     2},
    {KMS_PARAM_DATA_KEY,
     sizeof(CK_KMSBRIDGE_DATA_KEY_PARAMS),
     {{offsetof(CK_KMSBRIDGE_DATA_KEY_PARAMS, pAAD),
       offsetof(CK_KMSBRIDGE_DATA_KEY_PARAMS, ulAADLen)}},
     1},
    {KMS_PARAM_SEALED,
     sizeof(CK_KMSBRIDGE_SEALED_PARAMS),
     {{offsetof(CK_KMSBRIDGE_SEALED_PARAMS, pAAD), offsetof(CK_KMSBRIDGE_SEALED_PARAMS, ulAADLen)}},
     1},
};

/* Bytes of the input, cut to what there is, in memory of their own. */
static uint8_t *copy_of(const uint8_t *data, size_t size, size_t len)
{
    uint8_t *copy = calloc(1, len == 0 ? 1 : len);

    demand(copy != NULL);
    memcpy(copy, data, size < len ? size : len);
    return copy;
}

static void mend(uint8_t *param, size_t len, enum kms_mech_param form, unsigned how,
                 const uint8_t *data, size_t size, uint8_t *ret_made[2])
{
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        if (shapes[s].param != form || shapes[s].size != len) {
            continue;
        }
        for (size_t i = 0; i < shapes[s].count; i++) {
            CK_ULONG claimed = 0;
            void *pointer = NULL;

            memcpy(&claimed, param + shapes[s].at[i].len, sizeof(claimed));
            if ((how >> i & 1u) != 0) {
                claimed %= LONGEST;
                memcpy(param + shapes[s].at[i].len, &claimed, sizeof(claimed));
                pointer = ret_made[i] = copy_of(data, size, claimed);
            }
            memcpy(param + shapes[s].at[i].pointer, &pointer, sizeof(pointer));
        }
        return;
    }
    if (form == KMS_PARAM_GCM && len == 5 * sizeof(CK_ULONG)) { /* the short form: no pointers */
        memset(param, 0, sizeof(void *));
        memset(param + 2 * sizeof(CK_ULONG), 0, sizeof(void *));
    }
}

static struct kms_soft_key *keys[4];

static struct kms_soft_key *make(CK_KEY_TYPE type, unsigned bits, const uint8_t *oid, size_t len)
{
    struct kms_soft_key *key = NULL;

    demand(kms_soft_key_generate(type, bits, kms_span_of(oid, len), KMS_SPAN_NONE, &key) == CKR_OK);
    return key;
}

static void set_up(void)
{
    static const uint8_t p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};

    keys[0] = make(CKK_AES, 256, NULL, 0);
    keys[1] = make(CKK_GENERIC_SECRET, 256, NULL, 0);
    keys[2] = make(CKK_RSA, 2048, NULL, 0);
    keys[3] = make(CKK_EC, 0, p256, sizeof(p256));
}

static struct kms_soft_key *key_for(const struct kms_mech *mech)
{
    for (size_t i = 0; i < 4; i++) {
        if (kms_mech_takes(mech, kms_soft_key_type(keys[i]))) {
            return keys[i];
        }
    }
    return NULL;
}

/* What lies there is no zeros by luck: so that a text that nobody has written has no end, either.
 */
static __attribute__((noinline)) void dirty_stack(void)
{
    uint8_t junk[8192];

    memset(junk, 0xa5, sizeof(junk));
    __asm__ volatile("" : : "r"(junk) : "memory");
}

static void use(const struct kms_mech *mech, const CK_MECHANISM *mechanism, unsigned what)
{
    static const uint8_t in[48];
    static uint8_t storage[4096];
    struct kms_soft_key *key = key_for(mech);
    struct kms_buf out = kms_buf_over(storage, 32);
    struct kms_soft_op *op = NULL;

    if ((mech->local & CKF_DERIVE) != 0 && key != NULL) {
        (void)kms_soft_derive(mech, mechanism, key, &out);
        return;
    }
    dirty_stack();
    if (kms_soft_op_new((enum kms_soft_what)(what % 4), mech, mechanism, key, &op) != CKR_OK) {
        return;
    }
    demand(kms_soft_op_room(op, sizeof(in), true) <= sizeof(storage));
    out = kms_buf_over(storage, kms_soft_op_room(op, sizeof(in), true));
    if (what % 4 == KMS_SOFT_VERIFY) {
        (void)kms_soft_op_verify(op, kms_span_of(in, sizeof(in)));
    } else {
        (void)kms_soft_op_once(op, kms_span_of(in, sizeof(in)), &out);
    }
    kms_soft_op_free(op);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct kms_mech *mech;
    struct kms_params params;
    uint8_t *made[2] = {NULL, NULL};
    uint8_t *param = NULL;
    size_t len = 0;

    if (keys[0] == NULL) {
        set_up();
    }
    if (size < 4 || (mech = kms_mech_at(data[0])) == NULL) {
        return 0;
    }
    len = ((size_t)data[2] | (size_t)data[3] << 8) % 512;
    param = copy_of(data + 4, size - 4, len);
    mend(param, len, mech->param, data[1] >> 4, data, size, made);
    {
        CK_MECHANISM mechanism = {mech->type, (data[1] & 8) != 0 ? NULL : param, len};
        CK_RV rv = kms_mech_params(mech, &mechanism, &params);

        demand(rv == CKR_OK || rv == CKR_MECHANISM_PARAM_INVALID);
        demand(rv != CKR_OK || params.iv.data != NULL || params.iv.len == 0);
        use(mech, &mechanism, data[1] & 3);
    }
    free(param);
    free(made[0]);
    free(made[1]);
    return 0;
}
