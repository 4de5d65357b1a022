/* SPDX-License-Identifier: Apache-2.0 */
/* Each type and size that a service makes: made, used, rotated, and what the older version made is
 * still good. For services alone; an HSM's are in the other tests, a size each. */
#include <string.h>

#include "tests/contract/contract.h"

static const struct row {
    const char *name;
    enum kms_key_type type;
    unsigned bits;
    enum kms_alg seals; /* KMS_ALG_NONE: it does not */
    enum kms_alg signs; /* a MAC's, too; KMS_ALG_NONE: it does not */
} rows[] = {
    {"aes-128", KMS_KEY_AES, 128, KMS_ALG_AES_GCM, KMS_ALG_NONE},
    {"aes-256", KMS_KEY_AES, 256, KMS_ALG_AES_GCM, KMS_ALG_NONE},
    {"chacha20", KMS_KEY_CHACHA20, 256, KMS_ALG_CHACHA20_POLY1305, KMS_ALG_NONE},
    {"rsa-2048", KMS_KEY_RSA, 2048, KMS_ALG_RSA_OAEP_L_SHA256, KMS_ALG_RSA_PSS_SHA256},
    {"rsa-3072", KMS_KEY_RSA, 3072, KMS_ALG_RSA_OAEP_L_SHA256, KMS_ALG_RSA_PSS_SHA256},
    {"rsa-4096", KMS_KEY_RSA, 4096, KMS_ALG_RSA_OAEP_L_SHA256, KMS_ALG_RSA_PSS_SHA256},
    {"p-256", KMS_KEY_EC, 256, KMS_ALG_NONE, KMS_ALG_ECDSA},
    {"p-384", KMS_KEY_EC, 384, KMS_ALG_NONE, KMS_ALG_ECDSA},
    {"p-521", KMS_KEY_EC, 521, KMS_ALG_NONE, KMS_ALG_ECDSA},
    {"ed25519", KMS_KEY_EDDSA, 256, KMS_ALG_NONE, KMS_ALG_EDDSA},
    {"hmac-256", KMS_KEY_GENERIC, 256, KMS_ALG_NONE, KMS_ALG_HMAC_SHA256},
    {"hmac-4096", KMS_KEY_GENERIC, 4096, KMS_ALG_NONE, KMS_ALG_HMAC_SHA512},
};

static const char text[] = "thirty-two bytes, as of a digest"; /* without its NUL */
#define TEXT kms_span_of((const uint8_t *)text, 32)

/* ---- ciphertexts -------------------------------------------------------------------------- */

static bool opens(struct kms_waist *waist, const char *ref, const struct fx_sealed *what,
                  struct kms_span to)
{
    uint8_t bytes[512];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    return fx_unseal(waist, ref, what, KMS_SPAN_NONE, &out) == KMS_OK &&
           kms_span_equal(kms_buf_span(&out), to);
}

/* What the older version sealed, and a data key of its, go over to the newer one. */
static void goes_over(struct kms_waist *waist, const struct row *row, const struct fx_sealed *old,
                      const struct kms_key_info *from, const struct kms_key_info *to)
{
    static struct fx_sealed fresh;
    struct kms_params params = {.alg = row->seals};
    struct kms_call call = fx_call();
    uint8_t bytes[32];
    struct kms_buf key = KMS_BUF_OVER(bytes);
    bool aead = row->type != KMS_KEY_RSA;
    enum kms_status made = KMS_OK;

    fresh.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(fresh.iv),
                                       .ciphertext = KMS_BUF_OVER(fresh.ciphertext)};
    made = kms_waist_data_key(waist, &call, from->ref, &params, 32, &key, &fresh.sealed);
    UNIT_CHECK(row->name, made == (aead ? KMS_OK : KMS_E_UNSUPPORTED));
    UNIT_CHECK(row->name, !aead || opens(waist, from->ref, &fresh, kms_buf_span(&key)));
    params.iv = kms_buf_span(&old->sealed.iv);
    fresh.sealed.iv = KMS_BUF_OVER(fresh.iv);
    fresh.sealed.ciphertext = KMS_BUF_OVER(fresh.ciphertext);
    call = fx_call();
    made = kms_waist_rewrap(waist, &call, from->ref, &params, kms_buf_span(&old->sealed.ciphertext),
                            &fresh.sealed);
    UNIT_CHECK(row->name, made == (aead ? KMS_OK : KMS_E_UNSUPPORTED));
    UNIT_CHECK(row->name, !aead || (strcmp(fresh.sealed.key_id, to->id) == 0 &&
                                    opens(waist, to->ref, &fresh, TEXT)));
}

static void seals(struct kms_waist *waist, const struct row *row, const struct kms_key_info *from,
                  const struct kms_key_info *to, const struct fx_sealed *old)
{
    static struct fx_sealed sealed;

    UNIT_CHECK(row->name, opens(waist, from->ref, old, TEXT));
    UNIT_CHECK(row->name,
               fx_seal(waist, to->ref, row->seals, KMS_SPAN_NONE, TEXT, &sealed) == KMS_OK);
    UNIT_CHECK(row->name, strcmp(sealed.sealed.key_id, to->id) == 0);
    UNIT_CHECK(row->name, opens(waist, to->ref, &sealed, TEXT));
    UNIT_CHECK(row->name, !opens(waist, from->ref, &sealed, TEXT));
    goes_over(waist, row, old, from, to);
}

/* ---- signatures --------------------------------------------------------------------------- */

static enum kms_status sign(struct kms_waist *waist, const struct row *row, const char *ref,
                            struct kms_buf *ret)
{
    const struct kms_params params = {.alg = row->signs};
    struct kms_call call = fx_call();

    return row->type == KMS_KEY_GENERIC ? kms_waist_mac(waist, &call, ref, &params, TEXT, ret)
                                        : kms_waist_sign(waist, &call, ref, &params, TEXT, ret);
}

static enum kms_status verify(struct kms_waist *waist, const struct row *row, const char *ref,
                              const struct kms_buf *signature)
{
    const struct kms_params params = {.alg = row->signs};
    struct kms_call call = fx_call();

    return kms_waist_verify(waist, &call, ref, &params, TEXT, kms_buf_span(signature));
}

static void signs(struct kms_waist *waist, const struct row *row, const struct kms_key_info *from,
                  const struct kms_key_info *to, const struct kms_buf *old)
{
    uint8_t bytes[KMS_SIGNATURE_MAX];
    struct kms_buf signature = KMS_BUF_OVER(bytes);

    UNIT_CHECK(row->name, verify(waist, row, from->ref, old) == KMS_OK);
    UNIT_CHECK(row->name, verify(waist, row, to->ref, old) == KMS_E_BAD_DATA);
    UNIT_CHECK(row->name, sign(waist, row, to->ref, &signature) == KMS_OK);
    UNIT_CHECK(row->name, verify(waist, row, to->ref, &signature) == KMS_OK);
    UNIT_CHECK(row->name, verify(waist, row, from->ref, &signature) == KMS_E_BAD_DATA);
}

/* ---- each --------------------------------------------------------------------------------- */

static void try_type(struct kms_waist *waist, const struct row *row)
{
    static struct fx_sealed sealed;
    uint8_t bytes[KMS_SIGNATURE_MAX];
    struct kms_buf signature = KMS_BUF_OVER(bytes);
    struct kms_key_info from, to;
    struct kms_call call = fx_call();

    if (!UNIT_CHECK(row->name, fx_make(waist, row->type, row->bits, &from))) {
        return;
    }
    UNIT_CHECK(row->name, from.type == row->type);
    UNIT_CHECK(row->name, row->type == KMS_KEY_GENERIC || from.bits == row->bits);
    UNIT_CHECK(row->name,
               row->seals == KMS_ALG_NONE ||
                   fx_seal(waist, from.ref, row->seals, KMS_SPAN_NONE, TEXT, &sealed) == KMS_OK);
    UNIT_CHECK(row->name,
               row->signs == KMS_ALG_NONE || sign(waist, row, from.ref, &signature) == KMS_OK);
    if (!UNIT_CHECK(row->name,
                    FX_CHECK(&call, kms_waist_rotate(waist, &call, from.ref, &to) == KMS_OK))) {
        return;
    }
    UNIT_CHECK(row->name, to.type == from.type && to.bits == from.bits &&
                              strcmp(to.id, from.id) != 0 && kms_key_age_compare(&to, &from) > 0);
    if (row->seals != KMS_ALG_NONE) {
        seals(waist, row, &from, &to, &sealed);
    }
    if (row->signs != KMS_ALG_NONE) {
        signs(waist, row, &from, &to, &signature);
    }
}

static void each_type_is_made_and_rotates(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        try_type(waist, &rows[i]);
    }
    fx_close(waist);
}

const struct unit_test fx_type_tests[] = {
    {"each type is made and rotates", each_type_is_made_and_rotates},
};
const size_t fx_type_test_count = UNIT_COUNT(fx_type_tests);
