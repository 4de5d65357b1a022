/* SPDX-License-Identifier: Apache-2.0 */
/* Keys used through the functions of 2.40: the frame around operations, not every mechanism. */
#include "tests/module/module.h"

static CK_BYTE text[] = "what is to be signed, hashed, hidden";
#define TEXT text, sizeof(text) - 1

static void sign_and_verify(const char *label, CK_MECHANISM_TYPE type, CK_ULONG len, bool secret)
{
    CK_MECHANISM mechanism = {type, NULL, 0};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE other = 0;
    CK_BYTE signature[512];
    CK_ULONG n = 0;

    module_start();
    s = module_open_logged_in(0);
    key = module_key(s, secret ? CKO_SECRET_KEY : CKO_PRIVATE_KEY, label);
    other = secret ? key : module_key(s, CKO_PUBLIC_KEY, label);
    OK(m.f->C_SignInit(s, &mechanism, key));
    GIVES(CKR_OPERATION_ACTIVE, m.f->C_SignInit(s, &mechanism, key));
    OK(m.f->C_Sign(s, TEXT, NULL, &n));
    (void)UNIT_CHECK("length", n == len);
    n = 1;
    GIVES(CKR_BUFFER_TOO_SMALL, m.f->C_Sign(s, TEXT, signature, &n));
    n = sizeof(signature);
    OK(m.f->C_Sign(s, TEXT, signature, &n));
    (void)UNIT_CHECK("length", n == len);
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_Sign(s, TEXT, signature, &n));
    OK(m.f->C_VerifyInit(s, &mechanism, other));
    OK(m.f->C_Verify(s, TEXT, signature, n));
    signature[len / 2] ^= 1;
    OK(m.f->C_VerifyInit(s, &mechanism, other));
    GIVES(CKR_SIGNATURE_INVALID, m.f->C_Verify(s, TEXT, signature, n));
    signature[len / 2] ^= 1;
    OK(m.f->C_VerifyInit(s, &mechanism, other));
    OK(m.f->C_VerifyUpdate(s, text, 5));
    OK(m.f->C_VerifyUpdate(s, text + 5, sizeof(text) - 6));
    OK(m.f->C_VerifyFinal(s, signature, n));
    OK(m.f->C_SignInit(s, &mechanism, key));
    OK(m.f->C_SignUpdate(s, text, 7));
    OK(m.f->C_SignUpdate(s, text + 7, sizeof(text) - 8));
    n = sizeof(signature);
    OK(m.f->C_SignFinal(s, signature, &n));
    OK(m.f->C_VerifyInit(s, &mechanism, other));
    OK(m.f->C_Verify(s, TEXT, signature, n));
    module_stop();
}

static void rsa(void)
{
    sign_and_verify("rsa", CKM_SHA256_RSA_PKCS, 256, false);
}

static void mac(void)
{
    sign_and_verify("mac", CKM_SHA256_HMAC, 32, true);
}

static void ecdsa(void)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    CK_SESSION_HANDLE s = 0;
    CK_BYTE signature[64];
    CK_ULONG n = sizeof(signature);

    module_start();
    s = module_open_logged_in(0);
    OK(m.f->C_SignInit(s, &mechanism, module_key(s, CKO_PRIVATE_KEY, "ec")));
    OK(m.f->C_Sign(s, text, 32, signature, &n));
    (void)UNIT_CHECK("r and s", n == 64);
    OK(m.f->C_VerifyInit(s, &mechanism, module_key(s, CKO_PUBLIC_KEY, "ec")));
    OK(m.f->C_Verify(s, text, 32, signature, n));
    module_stop();
}

/* Pairs of the session, made by libcrypto inside us: whatever the host's libcrypto is told to use.
 */
static void session_pairs(void)
{
    static CK_BYTE p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    static CK_ULONG bits = 2048;
    const struct {
        const char *name;
        CK_MECHANISM_TYPE make;
        CK_MECHANISM_TYPE use;
        CK_ATTRIBUTE size;
    } rows[] = {
        {"RSA", CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, {CKA_MODULUS_BITS, &bits, sizeof(bits)}},
        {"EC", CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, {CKA_EC_PARAMS, BYTES(p256)}},
    };
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open_logged_in(0);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_MECHANISM make = {rows[i].make, NULL, 0};
        CK_MECHANISM use = {rows[i].use, NULL, 0};
        CK_ATTRIBUTE public[] = {{CKA_TOKEN, &no, 1}, {CKA_VERIFY, &yes, 1}, rows[i].size};
        CK_ATTRIBUTE private[] = {{CKA_TOKEN, &no, 1}, {CKA_SIGN, &yes, 1}};
        CK_OBJECT_HANDLE pair[2] = {0, 0};
        CK_BYTE signature[256];
        CK_ULONG n = sizeof(signature);
        CK_RV rv = m.f->C_GenerateKeyPair(s, &make, public, 3, private, 2, &pair[0], &pair[1]);

        (void)UNIT_CHECK(rows[i].name, rv == CKR_OK);
        OK(m.f->C_SignInit(s, &use, pair[1]));
        OK(m.f->C_Sign(s, text, 32, signature, &n));
        OK(m.f->C_VerifyInit(s, &use, pair[0]));
        OK(m.f->C_Verify(s, text, 32, signature, n));
        signature[n - 1] ^= 1;
        OK(m.f->C_VerifyInit(s, &use, pair[0]));
        GIVES(CKR_SIGNATURE_INVALID, m.f->C_Verify(s, text, 32, signature, n));
    }
    module_stop();
}

static void encrypt_with(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_BYTE iv[12] = {1, 2, 3};
    CK_GCM_PARAMS gcm = {iv, sizeof(iv), 96, bytes_of("aad"), 3, 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof(gcm)};
    CK_BYTE hidden[128];
    CK_BYTE shown[128];
    CK_ULONG n = sizeof(hidden);
    CK_ULONG k = sizeof(shown);

    OK(m.f->C_EncryptInit(s, &mechanism, key));
    OK(m.f->C_Encrypt(s, TEXT, hidden, &n));
    (void)UNIT_CHECK("tag behind", n == sizeof(text) - 1 + 16);
    OK(m.f->C_DecryptInit(s, &mechanism, key));
    OK(m.f->C_Decrypt(s, hidden, n, shown, &k));
    (void)UNIT_CHECK("the same", k == sizeof(text) - 1 && memcmp(text, shown, k) == 0);
    hidden[3] ^= 1;
    OK(m.f->C_DecryptInit(s, &mechanism, key));
    k = sizeof(shown);
    (void)UNIT_CHECK("altered", m.f->C_Decrypt(s, hidden, n, shown, &k) != CKR_OK);
}

static void gcm(void)
{
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open_logged_in(0);
    encrypt_with(s, module_key(s, CKO_SECRET_KEY, "aes"));
    encrypt_with(s, module_session_aes(s));
    module_stop();
}

static void digest(void)
{
    static const CK_BYTE abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    CK_BYTE out[32];
    CK_ULONG n = sizeof(out);
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open(0);
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_DigestUpdate(s, TEXT));
    OK(m.f->C_DigestInit(s, &sha));
    OK(m.f->C_Digest(s, bytes_of("abc"), 3, out, &n));
    (void)UNIT_CHECK("abc", n == 32 && memcmp(out, abc, sizeof(abc)) == 0);
    OK(m.f->C_DigestInit(s, &sha));
    OK(m.f->C_DigestUpdate(s, bytes_of("ab"), 2));
    OK(m.f->C_DigestUpdate(s, bytes_of("c"), 1));
    n = sizeof(out);
    OK(m.f->C_DigestFinal(s, out, &n));
    (void)UNIT_CHECK("in parts", n == 32 && memcmp(out, abc, sizeof(abc)) == 0);
    module_stop();
}

/* Two operations on the same bytes (5.15): what one sees, the other has seen. */
static void dual(void)
{
    CK_BYTE iv[16] = {0};
    CK_MECHANISM cbc = {CKM_AES_CBC, iv, sizeof(iv)};
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    CK_BYTE clear[32] = "thirty-two bytes, not one more.";
    CK_BYTE hidden[32];
    CK_BYTE shown[32];
    CK_BYTE a[32];
    CK_BYTE b[32];
    CK_ULONG n = sizeof(hidden);
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;

    module_start();
    s = module_open_logged_in(0);
    key = module_session_aes(s);
    OK(m.f->C_EncryptInit(s, &cbc, key));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_DigestEncryptUpdate(s, BYTES(clear), hidden, &n));
    OK(m.f->C_DigestInit(s, &sha));
    OK(m.f->C_DigestEncryptUpdate(s, BYTES(clear), NULL, &n));
    n = 3;
    GIVES(CKR_BUFFER_TOO_SMALL, m.f->C_DigestEncryptUpdate(s, BYTES(clear), hidden, &n));
    n = sizeof(hidden);
    OK(m.f->C_DigestEncryptUpdate(s, BYTES(clear), hidden, &n));
    n = sizeof(a);
    OK(m.f->C_DigestFinal(s, a, &n));
    n = sizeof(shown);
    OK(m.f->C_EncryptFinal(s, shown, &n));
    OK(m.f->C_DecryptInit(s, &cbc, key));
    OK(m.f->C_DigestInit(s, &sha));
    n = sizeof(shown);
    OK(m.f->C_DecryptDigestUpdate(s, BYTES(hidden), shown, &n));
    (void)UNIT_CHECK("decrypted", n == 32 && memcmp(clear, shown, n) == 0);
    n = sizeof(b);
    OK(m.f->C_DigestFinal(s, b, &n));
    (void)UNIT_CHECK("the same digest", memcmp(a, b, n) == 0);
    module_stop();
}

static void random_bytes(void)
{
    CK_BYTE a[10000] = {0};
    CK_BYTE b[10000] = {0};
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open(0);
    OK(m.f->C_GenerateRandom(s, BYTES(a)));
    OK(m.f->C_GenerateRandom(s, BYTES(b)));
    (void)UNIT_CHECK("different", memcmp(a, b, sizeof(a)) != 0);
    (void)UNIT_CHECK("to the end", memcmp(a + 9980, b + 9980, 20) != 0);
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GenerateRandom(s, NULL, 4));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_GenerateRandom(0, a, 4));
    (void)UNIT_CHECK("seed",
                     m.f->C_SeedRandom(s, a, 4) == CKR_RANDOM_SEED_NOT_SUPPORTED || !m.ours);
    module_stop();
}

/* What is wrong with the caller is said, and nothing else happens. */
static void refusals(void)
{
    CK_MECHANISM rsa_pkcs = {CKM_SHA256_RSA_PKCS, NULL, 0};
    CK_MECHANISM odd = {0x7abcdef0, NULL, 0};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE aes = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_BYTE out[8];
    CK_ULONG n = sizeof(out);

    module_start();
    s = module_open_logged_in(0);
    aes = module_key(s, CKO_SECRET_KEY, "aes");
    key = module_key(s, CKO_PRIVATE_KEY, "rsa");
    if (m.ours) { /* SoftHSM speaks of an object where 5.13.1 has a key */
        GIVES(CKR_KEY_HANDLE_INVALID, m.f->C_SignInit(s, &rsa_pkcs, 999999999));
    }
    GIVES(CKR_MECHANISM_INVALID, m.f->C_SignInit(s, &odd, key));
    (void)UNIT_CHECK("wrong key", m.f->C_SignInit(s, &rsa_pkcs, aes) != CKR_OK);
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_Encrypt(s, TEXT, out, &n));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_DecryptFinal(s, out, &n));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_VerifyFinal(s, out, n));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_SignInit(0, &rsa_pkcs, key));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GenerateKey(s, NULL, NULL, 0, &key));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GenerateKey(s, &rsa_pkcs, NULL, 0, NULL));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_WrapKey(s, NULL, aes, aes, out, &n));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_UnwrapKey(s, &rsa_pkcs, aes, NULL, 0, NULL, 0, &key));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_CreateObject(s, NULL, 0, &key));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_DeriveKey(s, NULL, aes, NULL, 0, &key));
    module_stop();
}

static void recovery(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_MECHANISM rsa_pkcs = {CKM_RSA_PKCS, NULL, 0};

    module_start();
    s = module_open_logged_in(0);
    GIVES(CKR_FUNCTION_NOT_SUPPORTED, m.f->C_SignRecoverInit(s, &rsa_pkcs, 1));
    GIVES(CKR_FUNCTION_NOT_SUPPORTED, m.f->C_VerifyRecoverInit(s, &rsa_pkcs, 1));
    module_stop();
}

const struct module_test module_use_tests[] = {
    {"rsa", rsa, NULL},
    {"mac", mac, NULL},
    {"ecdsa", ecdsa, NULL},
    {"session-pairs", session_pairs, NULL},
    {"gcm", gcm, NULL},
    {"digest", digest, NULL},
    {"dual", dual, "it does not support them"},
    {"random", random_bytes, NULL},
    {"refusals", refusals, NULL},
    {"recovery", recovery, NULL},
    {NULL, NULL, NULL},
};
