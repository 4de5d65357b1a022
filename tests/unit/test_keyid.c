/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities, against values from the openssl command line for the key 00 01 02 .. 1f:
 *   openssl enc -aes-256-ecb -nopad -K 0001..1f <<< "kmsbridge-id" 00 00 00 02
 *   { printf 'kmsbridge key id v1\0aes\0'; cat block; } | openssl dgst -sha256
 * The four ways to the block run over a fake token, that has one mechanism at a time.
 */
#include "backend/p11/keyid.h"

#include <openssl/evp.h>
#include <string.h>

#include "backend/p11/token_state.h"
#include "tests/unit/unit.h"

static const uint8_t key[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const uint8_t block[16] = {0x39, 0xa0, 0x21, 0x0d, 0xd9, 0x50, 0xbb, 0x9a,
                                  0x65, 0x49, 0x0c, 0xe5, 0xd9, 0x0e, 0xb7, 0xc1};
static const uint8_t mac[32] = {0xfb, 0xfc, 0x00, 0xda, 0x22, 0x8a, 0xb8, 0x07, 0x9a, 0x93, 0x96,
                                0x16, 0xe3, 0x2f, 0x80, 0x33, 0x07, 0x60, 0xd2, 0x72, 0xa8, 0x76,
                                0x94, 0xbe, 0x40, 0xc3, 0xc0, 0x92, 0x89, 0x25, 0xcb, 0x53};

/* ---- the token ---------------------------------------------------------------------------- */

static enum { TAKES_IV, OWN_IV_TOLD, OWN_IV_UNTOLD } iv_habit;
static CK_RV refusal; /* of C_EncryptInit, for every mechanism but @works */
static CK_MECHANISM_TYPE works, current;
static uint8_t current_iv[16];

static CK_RV encrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                          CK_OBJECT_HANDLE handle)
{
    static uint8_t own;
    CK_GCM_PARAMS *gcm = mechanism->pParameter;
    CK_AES_CTR_PARAMS *ctr = mechanism->pParameter;

    (void)session;
    (void)handle;
    if (mechanism->mechanism != works) {
        return refusal;
    }
    current = works;
    memset(current_iv, 0, sizeof(current_iv));
    if (current == CKM_AES_CBC) {
        memcpy(current_iv, mechanism->pParameter, 16);
    } else if (current == CKM_AES_CTR) {
        memcpy(current_iv, ctr->cb, 16);
    } else if (current == CKM_AES_GCM) {
        memcpy(current_iv, gcm->iv_ptr, 12);
        current_iv[0] = iv_habit == TAKES_IV ? current_iv[0] : ++own;
        if (iv_habit == OWN_IV_TOLD) {
            memcpy(gcm->iv_ptr, current_iv, 12);
        }
    }
    return CKR_OK;
}

static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out,
                     CK_ULONG_PTR out_len)
{
    const EVP_CIPHER *cipher = current == CKM_AES_ECB   ? EVP_aes_256_ecb()
                               : current == CKM_AES_CBC ? EVP_aes_256_cbc()
                               : current == CKM_AES_CTR ? EVP_aes_256_ctr()
                                                        : EVP_aes_256_gcm();
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int len = 0;

    (void)session;
    CU_ASSERT_EQUAL(EVP_EncryptInit_ex(ctx, cipher, NULL, key, current_iv), 1);
    EVP_CIPHER_CTX_set_padding(ctx, 0);
    CU_ASSERT_EQUAL(EVP_EncryptUpdate(ctx, out, &len, in, (int)in_len), 1);
    EVP_CIPHER_CTX_free(ctx);
    *out_len = (CK_ULONG)len + (current == CKM_AES_GCM ? 16 : 0);
    return CKR_OK;
}

/* Only CTR decrypts as it encrypts; the others would give another block. */
static CK_RV decrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                          CK_OBJECT_HANDLE handle)
{
    return mechanism->mechanism == CKM_AES_CTR ? encrypt_init(session, mechanism, handle)
                                               : CKR_MECHANISM_INVALID;
}

/* ---- a session's secret key, to be wrapped ------------------------------------------------ */

static uint8_t value[64];
static CK_ULONG value_len;
static unsigned created, destroyed;
static bool pads; /* C_WrapKey makes one block more */

static CK_RV create_object(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR rows, CK_ULONG count,
                           CK_OBJECT_HANDLE_PTR ret_handle)
{
    bool on_token = true;

    (void)session;
    for (CK_ULONG i = 0; i < count; i++) {
        if (rows[i].type == CKA_VALUE && rows[i].ulValueLen <= sizeof(value)) {
            value_len = rows[i].ulValueLen;
            memcpy(value, rows[i].pValue, value_len);
        } else if (rows[i].type == CKA_TOKEN) {
            on_token = *(CK_BBOOL *)rows[i].pValue != CK_FALSE;
        }
    }
    CU_ASSERT_FALSE(on_token);
    created++;
    *ret_handle = 77;
    return CKR_OK;
}

static CK_RV destroy_object(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle)
{
    (void)session;
    destroyed += handle == 77 ? 1u : 0u;
    return CKR_OK;
}

static CK_RV wrap_key(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                      CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE handle, CK_BYTE_PTR out,
                      CK_ULONG_PTR out_len)
{
    CK_RV rv = encrypt_init(session, mechanism, wrapping);

    CU_ASSERT_EQUAL(handle, 77);
    rv = rv == CKR_OK ? encrypt(session, value, value_len, out, out_len) : rv;
    *out_len += pads ? 16u : 0u;
    return rv;
}

static struct kms_p11_token token;
static const CK_FUNCTION_LIST functions = {.C_EncryptInit = encrypt_init,
                                           .C_Encrypt = encrypt,
                                           .C_DecryptInit = decrypt_init,
                                           .C_Decrypt = encrypt,
                                           .C_CreateObject = create_object,
                                           .C_DestroyObject = destroy_object,
                                           .C_WrapKey = wrap_key};

static bool allow_all(const void *ctx, CK_MECHANISM_TYPE mechanism)
{
    (void)ctx;
    (void)mechanism;
    return true;
}

static bool allow_one(const void *ctx, CK_MECHANISM_TYPE mechanism)
{
    return mechanism == *(const CK_MECHANISM_TYPE *)ctx;
}

static struct kms_p11 view(void)
{
    static const CK_MECHANISM_TYPE all[] = {CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CTR, CKM_AES_GCM};

    iv_habit = TAKES_IV;
    refusal = CKR_MECHANISM_INVALID;
    token.mechanism_count = UNIT_COUNT(all);
    for (size_t i = 0; i < UNIT_COUNT(all); i++) {
        token.mechanisms[i] = (struct kms_p11_mechanism){
            .type = all[i], .flags = CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP};
    }
    return (struct kms_p11){.functions = &functions, .token = &token};
}

/* ---- the tests ---------------------------------------------------------------------------- */

static void texts_are_the_command_lines(void)
{
    char id[KMS_P11_KEYID_SIZE];

    kms_p11_keyid_text("aes", kms_span_of(block, 16), KMS_SPAN_NONE, id);
    CU_ASSERT_STRING_EQUAL(id, "kb1-cc9bcee51aa6811be006338f0559abaece7803f1");
    kms_p11_keyid_text("aes+mac", kms_span_of(block, 16), kms_span_of(mac, 32), id);
    CU_ASSERT_STRING_EQUAL(id, "kb1-2e1cc3cddc7a41f5e0ff1a7945556cecd4c29b7d");
    kms_p11_keyid_text("mac", kms_span_of(mac, 32), KMS_SPAN_NONE, id);
    CU_ASSERT_STRING_EQUAL(id, "kb1-34c23515367c1c52baca3be97e648a0c723fe1d2");
}

static void every_way_gives_the_block(void)
{
    static const CK_MECHANISM_TYPE ways[] = {CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CTR, CKM_AES_GCM};

    for (size_t i = 0; i < UNIT_COUNT(ways); i++) {
        struct kms_p11 p = view();
        uint8_t got[16] = {0};

        works = ways[i]; /* the others are listed and refused */
        CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got), CKR_OK);
        CU_ASSERT(memcmp(got, block, 16) == 0);
        memset(got, 0, sizeof(got));
        refusal = CKR_DEVICE_REMOVED; /* must not even be asked when the key does not allow them */
        CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_one, &ways[i], got), CKR_OK);
        CU_ASSERT(memcmp(got, block, 16) == 0);
    }
}

static void a_token_with_ivs_of_its_own_is_no_help(void)
{
    struct kms_p11 p = view();
    uint8_t got[16];

    works = CKM_AES_GCM;
    iv_habit = OWN_IV_TOLD;
    CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got),
                    CKR_MECHANISM_INVALID);
    iv_habit = OWN_IV_UNTOLD;
    CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got),
                    CKR_MECHANISM_INVALID);
}

static void failures_are_not_refusals(void)
{
    struct kms_p11 p = view();
    uint8_t got[16];

    works = CKM_AES_GCM;
    refusal = CKR_DEVICE_REMOVED;
    CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got),
                    CKR_DEVICE_REMOVED);
    refusal = CKR_KEY_FUNCTION_NOT_PERMITTED;
    works = CKM_DES_ECB;
    CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got),
                    CKR_MECHANISM_INVALID);
    token.mechanism_count = 0;
    CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_ENCRYPT, allow_all, NULL, got),
                    CKR_MECHANISM_INVALID);
}

/* A key that may not encrypt is the same key. */
static void every_use_gives_the_block(void)
{
    static const struct {
        CK_FLAGS use;
        CK_MECHANISM_TYPE mechanism;
        CK_RV rv;
    } cases[] = {
        {CKF_DECRYPT, CKM_AES_CTR, CKR_OK},
        {CKF_WRAP, CKM_AES_ECB, CKR_OK},
        {CKF_WRAP, CKM_AES_CBC, CKR_OK},
        {CKF_DECRYPT, CKM_AES_ECB, CKR_MECHANISM_INVALID},
        {CKF_DECRYPT, CKM_AES_GCM, CKR_MECHANISM_INVALID},
        {CKF_WRAP, CKM_AES_CTR, CKR_MECHANISM_INVALID},
        {0, CKM_AES_ECB, CKR_MECHANISM_INVALID},
    };

    refusal = CKR_KEY_FUNCTION_NOT_PERMITTED;
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct kms_p11 p = view();
        uint8_t got[16] = {0};

        works = cases[i].mechanism;
        CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, cases[i].use, allow_all, NULL, got),
                        cases[i].rv);
        CU_ASSERT(cases[i].rv != CKR_OK || memcmp(got, block, 16) == 0);
    }
    CU_ASSERT(created > 0);
    CU_ASSERT_EQUAL(created, destroyed);
    works = CKM_AES_ECB;
    pads = true;
    {
        struct kms_p11 p = view();
        uint8_t got[16];

        CU_ASSERT_EQUAL(kms_p11_keyid_block(&p, 1, CKF_WRAP, allow_all, NULL, got),
                        CKR_MECHANISM_INVALID);
    }
    pads = false;
}

/* Who is there to encrypt and fails at it has no identity by another way. */
static void a_sick_key_stays_sick(void)
{
    struct kms_p11 p = view();
    uint8_t got[16];

    works = CKM_DES_ECB;
    refusal = CKR_DEVICE_ERROR;
    created = 0;
    CU_ASSERT_EQUAL(
        kms_p11_keyid_block(&p, 1, CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP, allow_all, NULL, got),
        CKR_DEVICE_ERROR);
    CU_ASSERT_EQUAL(created, 0);
}

static const struct unit_test tests[] = {
    {"texts are the command line's", texts_are_the_command_lines},
    {"every way gives the block", every_way_gives_the_block},
    {"a token with IVs of its own is no help", a_token_with_ivs_of_its_own_is_no_help},
    {"failures are not refusals", failures_are_not_refusals},
    {"every use gives the block", every_use_gives_the_block},
    {"a sick key stays sick", a_sick_key_stays_sick},
};

int main(void)
{
    return unit_main("test_keyid", tests, UNIT_COUNT(tests));
}
