/* SPDX-License-Identifier: Apache-2.0 */
/* Rotation, data keys and rewrapping: what a service does with a key besides using it. */
#include <string.h>

#include "tests/contract/contract.h"

static struct fx_sealed sealed, again;

/* Of the one way in which this token seals. */
static struct kms_params sealing(const struct kms_key_info *info, struct kms_span aad)
{
    return (struct kms_params){.alg = info->seal, .aad = aad};
}

static bool opens(struct kms_waist *waist, const char *ref, const struct fx_sealed *what,
                  struct kms_span aad, struct kms_span to)
{
    uint8_t bytes[256];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    return fx_unseal(waist, ref, what, aad, &out) == KMS_OK &&
           kms_span_equal(kms_buf_span(&out), to);
}

static void fresh(struct fx_sealed *what)
{
    what->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(what->iv),
                                       .ciphertext = KMS_BUF_OVER(what->ciphertext)};
}

/* ---- rotation ----------------------------------------------------------------------------- */

/* What was a version of a Transit key goes with all of it or not at all; the server is ours. */
static void clear_away(struct kms_waist *waist, const struct kms_key_info *old,
                       const struct kms_key_info *rotated)
{
    if (fx_seals_itself() || !fx_is_service()) {
        fx_destroy(waist, rotated->ref);
    }
    if (!fx_is_service()) {
        fx_destroy(waist, old->ref);
    }
}

static void a_rotated_key_is_newer(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_key_info info, rotated;
    struct kms_span text = kms_span_str("sealed before");

    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE, text, &sealed), KMS_OK);
    if (FX_CHECK(&call, kms_waist_rotate(waist, &call, info.ref, &rotated) == KMS_OK)) {
        CU_ASSERT_STRING_NOT_EQUAL(rotated.id, info.id);
        CU_ASSERT_STRING_NOT_EQUAL(rotated.ref, info.ref);
        CU_ASSERT_STRING_EQUAL(rotated.label, info.label);
        CU_ASSERT(rotated.type == info.type && rotated.bits == info.bits);
        CU_ASSERT_EQUAL(rotated.uses, info.uses);
        CU_ASSERT(kms_key_age_compare(&rotated, &info) > 0);
        CU_ASSERT(rotated.version[0] == '\0' || rotated.latest);
        CU_ASSERT_TRUE(opens(waist, info.ref, &sealed, KMS_SPAN_NONE, text));
        CU_ASSERT_EQUAL(fx_seal(waist, rotated.ref, KMS_ALG_BEST, KMS_SPAN_NONE, text, &again),
                        KMS_OK);
        CU_ASSERT_STRING_EQUAL(again.sealed.key_id, rotated.id);
        CU_ASSERT_TRUE(opens(waist, rotated.ref, &again, KMS_SPAN_NONE, text));
        clear_away(waist, &info, &rotated);
    }
    CU_ASSERT_EQUAL(kms_waist_rotate(waist, &call, "kb1-0000", &rotated), KMS_E_NOT_FOUND);
    fx_close(waist);
}

/* ---- data keys ---------------------------------------------------------------------------- */

static void open_data_key(struct kms_waist *waist, const struct kms_key_info *info,
                          struct kms_span key)
{
    struct kms_params params = sealing(info, kms_span_str("the aad"));
    uint8_t bytes[256];
    struct kms_buf out = KMS_BUF_OVER(bytes);
    struct kms_span ciphertext = kms_buf_span(&sealed.sealed.ciphertext);

    CU_ASSERT_EQUAL(sealed.sealed.alg, info->seal);
    CU_ASSERT_STRING_EQUAL(sealed.sealed.key_id, info->id);
    params.iv = kms_buf_span(&sealed.sealed.iv);
    CU_ASSERT_EQUAL(fx_take(waist, info->ref, true, &params, ciphertext, &out), KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), key));
    params.aad = kms_span_str("the aae");
    out.len = 0;
    CU_ASSERT_EQUAL(fx_take(waist, info->ref, true, &params, ciphertext, &out), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(out.len, 0);
}

static void make_data_key(struct kms_waist *waist, const struct kms_key_info *info, size_t len)
{
    const struct kms_params params = sealing(info, kms_span_str("the aad"));
    struct kms_call call = fx_call();
    uint8_t bytes[KMS_DATA_KEY_MAX], other[KMS_DATA_KEY_MAX];
    struct kms_buf key = KMS_BUF_OVER(bytes), second = KMS_BUF_OVER(other);
    enum kms_status status = KMS_OK;

    fresh(&sealed);
    fresh(&again);
    status = kms_waist_data_key(waist, &call, info->ref, &params, len, &key, &sealed.sealed);
    if (status == KMS_E_UNSUPPORTED && len == 24) { /* of AES-192 */
        fx_skip("data-key-24", "%s", call.error.text);
        return;
    }
    if (!FX_CHECK(&call, status == KMS_OK && key.len == len)) {
        return;
    }
    open_data_key(waist, info, kms_buf_span(&key));
    FX_CHECK(&call, kms_waist_data_key(waist, &call, info->ref, &params, len, &second,
                                       &again.sealed) == KMS_OK);
    CU_ASSERT_FALSE(kms_span_equal(kms_buf_span(&key), kms_buf_span(&second)));
}

static void data_keys_open(void)
{
    static const size_t lens[] = {16, 24, 32, 64};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_call call = fx_call();
    struct kms_key_info info;
    uint8_t bytes[32];
    struct kms_buf key = KMS_BUF_OVER(bytes);

    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    const struct kms_params params = sealing(&info, KMS_SPAN_NONE);

    fresh(&sealed);
    if (!kms_waist_can(waist, KMS_OP_DATA_KEY)) {
        CU_ASSERT_EQUAL(
            kms_waist_data_key(waist, &call, info.ref, &params, 32, &key, &sealed.sealed),
            KMS_E_UNSUPPORTED);
    } else {
        for (size_t i = 0; i < UNIT_COUNT(lens); i++) {
            make_data_key(waist, &info, lens[i]);
        }
        CU_ASSERT_EQUAL(
            kms_waist_data_key(waist, &call, "kb1-0000", &params, 32, &key, &sealed.sealed),
            KMS_E_NOT_FOUND);
        CU_ASSERT_EQUAL(key.len, 0);
    }
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

/* ---- rewrap ------------------------------------------------------------------------------- */

static enum kms_status rewrap(struct kms_waist *waist, const struct kms_key_info *info,
                              struct kms_span aad, struct kms_call *call)
{
    struct kms_params params = sealing(info, aad);

    fresh(&again);
    params.iv = kms_buf_span(&sealed.sealed.iv);
    return kms_waist_rewrap(waist, call, info->ref, &params,
                            kms_buf_span(&sealed.sealed.ciphertext), &again.sealed);
}

static void rewrap_all(struct kms_waist *waist, const struct kms_key_info *old,
                       const struct kms_key_info *rotated, struct kms_span aad)
{
    struct kms_call call = fx_call();
    struct kms_span text = kms_span_str("sealed before");
    enum kms_status status = rewrap(waist, old, aad, &call);

    if (status == KMS_E_UNSUPPORTED && aad.len > 0) {
        fx_skip("rewrap-aad", "%s", call.error.text);
        return;
    }
    FX_CHECK(&call, status == KMS_OK);
    CU_ASSERT_STRING_EQUAL(again.sealed.key_id, rotated->id);
    CU_ASSERT_EQUAL(again.sealed.alg, old->seal);
    CU_ASSERT_TRUE(opens(waist, rotated->ref, &again, aad, text));
    CU_ASSERT_TRUE(opens(waist, old->ref, &sealed, aad, text));
    sealed.ciphertext[sealed.sealed.ciphertext.len / 2] ^= 0x02;
    call = fx_call();
    CU_ASSERT_EQUAL(rewrap(waist, old, aad, &call), KMS_E_BAD_DATA);
    CU_ASSERT(again.sealed.ciphertext.len == 0 && again.sealed.iv.len == 0);
}

static void rewrapped_is_of_the_newest(void)
{
    static const char *const aads[] = {"", "the aad"};
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_span text = kms_span_str("sealed before");
    struct kms_key_info info, rotated;
    struct kms_call call = fx_call();

    for (size_t i = 0; i < UNIT_COUNT(aads); i++) {
        struct kms_span aad = kms_span_str(aads[i]);

        if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
            break;
        }
        CU_ASSERT_EQUAL(fx_seal(waist, info.ref, KMS_ALG_BEST, aad, text, &sealed), KMS_OK);
        if (!kms_waist_can(waist, KMS_OP_REWRAP)) {
            CU_ASSERT_EQUAL(rewrap(waist, &info, aad, &call), KMS_E_UNSUPPORTED);
            fx_destroy(waist, info.ref);
            continue;
        }
        call = fx_call();
        if (FX_CHECK(&call, kms_waist_rotate(waist, &call, info.ref, &rotated) == KMS_OK)) {
            rewrap_all(waist, &info, &rotated, aad);
            clear_away(waist, &info, &rotated);
        }
    }
    fx_close(waist);
}

const struct unit_test fx_data_tests[] = {
    {"a rotated key is newer", a_rotated_key_is_newer},
    {"data keys open", data_keys_open},
    {"rewrapped is of the newest", rewrapped_is_of_the_newest},
};
const size_t fx_data_test_count = UNIT_COUNT(fx_data_tests);
