/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures, MACs, digests, and RSA's ciphers: published vectors, libcrypto's default context as a
 * second opinion, and every way to be refused. */
#include "pkcs11/core/soft.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "tests/unit/fake_p11_log.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/unit.h"

#define K20      "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"
#define CMAC_KEY "2b7e151628aed2a6abf7158809cf4f3c"
#define CMAC_40  "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411"
#define HI_THERE "4869205468657265"

/* ---- MACs and digests --------------------------------------------------------------------- */

/* RFC 2202 case 1, RFC 4231 case 1, RFC 4493 section 4, FIPS 180 "abc" */
static const struct {
    const char *name;
    CK_MECHANISM_TYPE type;
    CK_ULONG len; /* of _GENERAL */
    const char *key, *in, *out;
} macs[] = {
    {"sha1", CKM_SHA_1_HMAC, 0, K20, HI_THERE, "b617318655057264e28bc0b6fb378c8ef146be00"},
    {"sha224", CKM_SHA224_HMAC, 0, K20, HI_THERE,
     "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22"},
    {"sha256", CKM_SHA256_HMAC, 0, K20, HI_THERE,
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {"sha384", CKM_SHA384_HMAC, 0, K20, HI_THERE,
     "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9"
     "cb6"},
    {"sha512", CKM_SHA512_HMAC, 0, K20, HI_THERE,
     "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f"
     "4e4be9d914eeb61f1702e696c203a126854"},
    {"sha256 of 5", CKM_SHA256_HMAC_GENERAL, 5, K20, HI_THERE, "b0344c61d8"},
    {"cmac of nothing", CKM_AES_CMAC, 0, CMAC_KEY, "", "bb1d6929e95937287fa37d129b756746"},
    {"cmac of 40", CKM_AES_CMAC, 0, CMAC_KEY, CMAC_40, "dfa66747de9ae63030ca32611497c827"},
    {"cmac, 4 of 16", CKM_AES_CMAC_GENERAL, 4, CMAC_KEY, CMAC_40, "dfa66747"},
    {"digest sha1", CKM_SHA_1, 0, NULL, "616263", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {"digest sha224", CKM_SHA224, 0, NULL, "616263",
     "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
    {"digest sha256", CKM_SHA256, 0, NULL, "616263",
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"digest sha384", CKM_SHA384, 0, NULL, "616263",
     "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c82"
     "5a7"},
    {"digest sha512", CKM_SHA512, 0, NULL, "616263",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3fee"
     "bbd454d4423643ce80e2a9ac94fa54ca49f"},
};

static void macs_and_digests(void)
{
    static struct bytes out;

    for (size_t i = 0; i < UNIT_COUNT(macs); i++) {
        bool digest = macs[i].key == NULL;
        enum kms_soft_what what = digest ? KMS_SOFT_DIGEST : KMS_SOFT_SIGN;
        bool cmac = macs[i].type == CKM_AES_CMAC || macs[i].type == CKM_AES_CMAC_GENERAL;
        struct kms_soft_key *key =
            digest ? NULL : key_of(cmac ? CKK_AES : CKK_GENERIC_SECRET, macs[i].key);
        struct bytes in = bytes_hex(macs[i].in);
        struct bytes want = bytes_hex(macs[i].out);
        CK_ULONG len = macs[i].len;
        CK_MECHANISM mechanism = {macs[i].type, len == 0 ? NULL : &len, len == 0 ? 0 : sizeof(len)};

        UNIT_CHECK(macs[i].name, op_once(what, &mechanism, key, bytes_span(&in), &out) == CKR_OK);
        UNIT_CHECK(macs[i].name, kms_span_equal(bytes_span(&out), bytes_span(&want)));
        UNIT_CHECK(macs[i].name,
                   splits_agree(what, &mechanism, key, bytes_span(&in), bytes_span(&want)));
        if (!digest) {
            UNIT_CHECK(macs[i].name,
                       op_verify(&mechanism, key, bytes_span(&in), bytes_span(&want)) == CKR_OK);
            UNIT_CHECK(macs[i].name,
                       op_verify(&mechanism, key, bytes_span(&in),
                                 kms_span_of(want.data, want.len - 1)) == CKR_SIGNATURE_LEN_RANGE);
            want.data[want.len - 1] ^= 1;
            UNIT_CHECK(macs[i].name, op_verify(&mechanism, key, bytes_span(&in),
                                               bytes_span(&want)) == CKR_SIGNATURE_INVALID);
        }
        kms_soft_key_unref(key);
    }
}

static void digest_in_one_call(void)
{
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    struct kms_buf small = kms_buf_over(storage, 31);

    CU_ASSERT_EQUAL(kms_soft_digest("SHA256", kms_span_str("abc"), &out), CKR_OK);
    CU_ASSERT_TRUE(bytes_are(kms_buf_span(&out),
                             "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    CU_ASSERT_EQUAL(kms_soft_digest("SHA256", kms_span_str("abc"), &small), CKR_BUFFER_TOO_SMALL);
    CU_ASSERT_EQUAL(kms_soft_digest("MD5", kms_span_str("abc"), &out), CKR_FUNCTION_FAILED);
}

/* ---- RSA ---------------------------------------------------------------------------------- */

static struct kms_soft_key *rsa;
static struct kms_soft_key *rsa_public;
static EVP_PKEY *rsa_plain; /* the same key in the default context */

static void make_rsa(void)
{
    static uint8_t der[8192];
    struct kms_buf buf = KMS_BUF_OVER(der);
    const unsigned char *at = der;
    struct kms_attrs *attrs = kms_attrs_new();
    PKCS8_PRIV_KEY_INFO *p8;

    rsa = key_made(CKK_RSA, 2048, NULL);
    if (kms_soft_key_pkcs8(rsa, &buf) != CKR_OK ||
        kms_soft_key_export(rsa, true, attrs) != CKR_OK ||
        kms_soft_key_import(CKO_PUBLIC_KEY, CKK_RSA, attrs, &rsa_public) != CKR_OK) {
        exit(EXIT_FAILURE);
    }
    p8 = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)buf.len);
    rsa_plain = EVP_PKCS82PKEY(p8);
    PKCS8_PRIV_KEY_INFO_free(p8);
    kms_attrs_free(attrs);
    if (rsa_plain == NULL) {
        exit(EXIT_FAILURE);
    }
}

/* Signs or verifies by plain EVP; @md NULL: the input as it is. */
static bool plain_rsa(bool sign, int padding, const EVP_MD *md, const EVP_MD *mgf, int salt,
                      struct kms_span in, struct bytes *signature)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(rsa_plain, NULL);
    bool good = (sign ? EVP_PKEY_sign_init(ctx) : EVP_PKEY_verify_init(ctx)) == 1 &&
                EVP_PKEY_CTX_set_rsa_padding(ctx, padding) == 1 &&
                (md == NULL || EVP_PKEY_CTX_set_signature_md(ctx, md) == 1) &&
                (mgf == NULL || (EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, mgf) == 1 &&
                                 EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) == 1));

    if (good && sign) {
        signature->len = sizeof(signature->data);
        good = EVP_PKEY_sign(ctx, signature->data, &signature->len, in.data, in.len) == 1;
    } else if (good) {
        good = EVP_PKEY_verify(ctx, signature->data, signature->len, in.data, in.len) == 1;
    }
    EVP_PKEY_CTX_free(ctx);
    return good;
}

/* PKCS#1 v1.5 is deterministic: the bytes must be the same. */
static void rsa_pkcs1(void)
{
    static const struct {
        CK_MECHANISM_TYPE type;
        const char *hash;
    } rows[] = {{CKM_SHA1_RSA_PKCS, "SHA1"},     {CKM_SHA224_RSA_PKCS, "SHA224"},
                {CKM_SHA256_RSA_PKCS, "SHA256"}, {CKM_SHA384_RSA_PKCS, "SHA384"},
                {CKM_SHA512_RSA_PKCS, "SHA512"}, {CKM_RSA_PKCS, NULL}};
    static struct bytes out;
    static struct bytes info;
    static struct bytes expected;
    const struct kms_span message = kms_span_str("a message");

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_hash *hash = kms_hash_by_name(rows[i].hash);
        CK_MECHANISM mechanism = {rows[i].type, NULL, 0};
        CK_MECHANISM raw = {CKM_RSA_PKCS, NULL, 0};
        const char *name = mech_of(rows[i].type)->name;
        struct kms_span in = message;
        uint8_t digest[64];
        struct kms_buf buf = KMS_BUF_OVER(digest);

        if (hash != NULL) {
            CU_ASSERT_EQUAL(kms_soft_digest(hash->name, message, &buf), CKR_OK);
            CU_ASSERT_TRUE(plain_rsa(true, RSA_PKCS1_PADDING, EVP_get_digestbyname(hash->name),
                                     NULL, 0, kms_buf_span(&buf), &expected));
        } else {
            CU_ASSERT_TRUE(plain_rsa(true, RSA_PKCS1_PADDING, NULL, NULL, 0, in, &expected));
        }
        UNIT_CHECK(name, op_once(KMS_SOFT_SIGN, &mechanism, rsa, in, &out) == CKR_OK);
        UNIT_CHECK(name, kms_span_equal(bytes_span(&out), bytes_span(&expected)));
        UNIT_CHECK(name, op_split(KMS_SOFT_SIGN, &mechanism, rsa, in, 3, 3, &out) == CKR_OK);
        UNIT_CHECK(name, kms_span_equal(bytes_span(&out), bytes_span(&expected)));
        UNIT_CHECK(name, op_verify(&mechanism, rsa_public, in, bytes_span(&out)) == CKR_OK);
        if (hash != NULL) { /* the DigestInfo of mech.h makes the same with CKM_RSA_PKCS */
            memcpy(info.data, hash->info.data, hash->info.len);
            memcpy(info.data + hash->info.len, digest, hash->len);
            info.len = hash->info.len + hash->len;
            UNIT_CHECK(name, op_once(KMS_SOFT_SIGN, &raw, rsa, bytes_span(&info), &out) == CKR_OK);
            UNIT_CHECK(name, kms_span_equal(bytes_span(&out), bytes_span(&expected)));
        }
        out.data[17] ^= 1;
        UNIT_CHECK(name, op_verify(&mechanism, rsa_public, in, bytes_span(&out)) ==
                             CKR_SIGNATURE_INVALID);
        UNIT_CHECK(name, op_verify(&mechanism, rsa_public, in, kms_span_of(out.data, 255)) ==
                             CKR_SIGNATURE_LEN_RANGE);
    }
}

static void rsa_pss(void)
{
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        CK_RSA_PKCS_PSS_PARAMS pss;
        const char *hash, *mask;
        CK_RV rv;
    } rows[] = {
        {"256", CKM_RSA_PKCS_PSS, {CKM_SHA256, CKG_MGF1_SHA256, 32}, "SHA256", "SHA256", CKR_OK},
        {"256, no salt",
         CKM_RSA_PKCS_PSS,
         {CKM_SHA256, CKG_MGF1_SHA256, 0},
         "SHA256",
         "SHA256",
         CKR_OK},
        {"512 with 1", CKM_RSA_PKCS_PSS, {CKM_SHA512, CKG_MGF1_SHA1, 20}, "SHA512", "SHA1", CKR_OK},
        {"hashed",
         CKM_SHA384_RSA_PKCS_PSS,
         {CKM_SHA384, CKG_MGF1_SHA384, 48},
         "SHA384",
         "SHA384",
         CKR_OK},
        {"sha1", CKM_SHA1_RSA_PKCS_PSS, {CKM_SHA_1, CKG_MGF1_SHA1, 20}, "SHA1", "SHA1", CKR_OK},
        {"longest salt",
         CKM_SHA256_RSA_PKCS_PSS,
         {CKM_SHA256, CKG_MGF1_SHA256, 222},
         "SHA256",
         "SHA256",
         CKR_OK},
        {"salt too long",
         CKM_SHA256_RSA_PKCS_PSS,
         {CKM_SHA256, CKG_MGF1_SHA256, 223},
         "SHA256",
         "SHA256",
         CKR_MECHANISM_PARAM_INVALID},
    };
    static struct bytes out;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_RSA_PKCS_PSS_PARAMS pss = rows[i].pss;
        CK_MECHANISM mechanism = {rows[i].type, &pss, sizeof(pss)};
        bool hashed = mech_of(rows[i].type)->hash != NULL;
        uint8_t digest[64];
        struct kms_buf buf = KMS_BUF_OVER(digest);
        struct kms_span in = kms_span_str("a message");

        CU_ASSERT_EQUAL(kms_soft_digest(rows[i].hash, in, &buf), CKR_OK);
        in = hashed ? in : kms_buf_span(&buf);
        UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_SIGN, &mechanism, rsa, in, &out) == rows[i].rv);
        if (rows[i].rv != CKR_OK) {
            continue;
        }
        UNIT_CHECK(rows[i].name, out.len == 256);
        UNIT_CHECK(rows[i].name,
                   plain_rsa(false, RSA_PKCS1_PSS_PADDING, EVP_get_digestbyname(rows[i].hash),
                             EVP_get_digestbyname(rows[i].mask), (int)pss.sLen, kms_buf_span(&buf),
                             &out));
        UNIT_CHECK(rows[i].name, op_verify(&mechanism, rsa_public, in, bytes_span(&out)) == CKR_OK);
        out.data[0] ^= 1;
        UNIT_CHECK(rows[i].name, op_verify(&mechanism, rsa_public, in, bytes_span(&out)) ==
                                     CKR_SIGNATURE_INVALID);
        if (!hashed) {
            UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(digest, 5),
                                             &out) == CKR_DATA_LEN_RANGE);
        }
    }
}

static void rsa_ciphers(void)
{
    static uint8_t label[] = "label";
    static const struct {
        const char *name;
        CK_MECHANISM_TYPE type;
        CK_RSA_PKCS_OAEP_PARAMS oaep;
        size_t max;
    } rows[] = {
        {"pkcs1", CKM_RSA_PKCS, {0, 0, 0, NULL, 0}, 245},
        {"oaep 1", CKM_RSA_PKCS_OAEP, {CKM_SHA_1, CKG_MGF1_SHA1, 1, NULL, 0}, 214},
        {"oaep 256, label", CKM_RSA_PKCS_OAEP, {CKM_SHA256, CKG_MGF1_SHA256, 1, label, 5}, 190},
        {"oaep 512 with 1", CKM_RSA_PKCS_OAEP, {CKM_SHA512, CKG_MGF1_SHA1, 1, NULL, 0}, 126},
    };
    static struct bytes out;
    static struct bytes back;
    static const uint8_t text[256] = {1, 2, 3};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        CK_RSA_PKCS_OAEP_PARAMS oaep = rows[i].oaep;
        bool has = rows[i].type == CKM_RSA_PKCS_OAEP;
        CK_MECHANISM mechanism = {rows[i].type, has ? &oaep : NULL, has ? sizeof(oaep) : 0};
        const size_t lens[] = {0, 1, 16, rows[i].max};

        for (size_t l = 0; l < UNIT_COUNT(lens); l++) {
            UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_ENCRYPT, &mechanism, rsa_public,
                                             kms_span_of(text, lens[l]), &out) == CKR_OK);
            UNIT_CHECK(rows[i].name, out.len == 256);
            UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_DECRYPT, &mechanism, rsa, bytes_span(&out),
                                             &back) == CKR_OK);
            UNIT_CHECK(rows[i].name, kms_span_equal(bytes_span(&back), kms_span_of(text, lens[l])));
        }
        UNIT_CHECK(rows[i].name,
                   op_once(KMS_SOFT_ENCRYPT, &mechanism, rsa_public,
                           kms_span_of(text, rows[i].max + 1), &out) == CKR_DATA_LEN_RANGE);
        (void)op_once(KMS_SOFT_ENCRYPT, &mechanism, rsa_public, kms_span_of(text, 3), &out);
        UNIT_CHECK(rows[i].name,
                   op_once(KMS_SOFT_DECRYPT, &mechanism, rsa, kms_span_of(out.data, 255), &back) ==
                       CKR_ENCRYPTED_DATA_LEN_RANGE);
        if (has) {
            out.data[100] ^= 1;
            UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_DECRYPT, &mechanism, rsa, bytes_span(&out),
                                             &back) == CKR_ENCRYPTED_DATA_INVALID);
            UNIT_CHECK(rows[i].name, back.len == 0);
            out.data[100] ^= 1;
            oaep.source = 1;
            oaep.pSourceData = label;
            oaep.ulSourceDataLen = 4;
            UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_DECRYPT, &mechanism, rsa, bytes_span(&out),
                                             &back) == CKR_ENCRYPTED_DATA_INVALID);
        }
        UNIT_CHECK(rows[i].name, op_once(KMS_SOFT_DECRYPT, &mechanism, rsa_public, bytes_span(&out),
                                         &back) == CKR_KEY_TYPE_INCONSISTENT);
    }
}

static void rsa_raw(void)
{
    CK_MECHANISM mechanism = {CKM_RSA_X_509, NULL, 0};
    static struct bytes out;
    static struct bytes back;
    static uint8_t big[257];
    static const uint8_t small[3] = {1, 2, 3};

    CU_ASSERT_EQUAL(op_once(KMS_SOFT_ENCRYPT, &mechanism, rsa_public, kms_span_of(small, 3), &out),
                    CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_DECRYPT, &mechanism, rsa, bytes_span(&out), &back), CKR_OK);
    CU_ASSERT_EQUAL(back.len, 256);
    CU_ASSERT_TRUE(kms_span_equal(kms_span_of(back.data + 253, 3), kms_span_of(small, 3)));
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(small, 3), &out), CKR_OK);
    CU_ASSERT_EQUAL(op_verify(&mechanism, rsa_public, kms_span_of(small, 3), bytes_span(&out)),
                    CKR_OK);
    CU_ASSERT_EQUAL(op_verify(&mechanism, rsa_public, kms_span_of(small, 2), bytes_span(&out)),
                    CKR_SIGNATURE_INVALID);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(big, 257), &out),
                    CKR_DATA_LEN_RANGE);
    memset(big, 0xff, 256); /* above any modulus */
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(big, 256), &out),
                    CKR_DATA_INVALID);
}

static void rsa_inputs(void)
{
    CK_MECHANISM mechanism = {CKM_RSA_PKCS, NULL, 0};
    static struct bytes out;
    static const uint8_t text[256] = {7};

    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(text, 0), &out), CKR_OK);
    CU_ASSERT_EQUAL(op_verify(&mechanism, rsa_public, kms_span_of(text, 0), bytes_span(&out)),
                    CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(text, 245), &out), CKR_OK);
    CU_ASSERT_EQUAL(op_verify(&mechanism, rsa_public, kms_span_of(text, 245), bytes_span(&out)),
                    CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa, kms_span_of(text, 246), &out),
                    CKR_DATA_LEN_RANGE);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, rsa_public, kms_span_of(text, 5), &out),
                    CKR_KEY_TYPE_INCONSISTENT);
}

/* ---- curves ------------------------------------------------------------------------------- */

static struct kms_soft_key *public_half(struct kms_soft_key *key)
{
    struct kms_attrs *attrs = kms_attrs_new();
    struct kms_soft_key *half = NULL;

    if (kms_soft_key_export(key, true, attrs) != CKR_OK ||
        kms_soft_key_import(CKO_PUBLIC_KEY, kms_soft_key_type(key), attrs, &half) != CKR_OK) {
        exit(EXIT_FAILURE);
    }
    kms_attrs_free(attrs);
    return half;
}

/* RFC 6979 A.2.5, A.2.7: P-256 with SHA-256 and P-521 with SHA-512, message "sample" */
static const struct {
    const char *name, *oid;
    CK_MECHANISM_TYPE type;
    const char *point, *signature;
} known[] = {
    {"p256", P256_OID, CKM_ECDSA_SHA256,
     "044104"
     "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
     "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
     "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
     "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"},
    {"p521", P521_OID, CKM_ECDSA_SHA512,
     "04818504"
     "01894550D0785932E00EAA23B694F213F8C3121F86DC97A04E5A7167DB4E5BCD371123D46E45DB6B5D5370A7F20FB"
     "6"
     "33155D38FFA16D2BD761DCAC474B9A2F5023A4"
     "00493101C962CD4D2FDDF782285E64584139C2F91B47F87FF82354D6630F746A28A0DB25741B5B34A828008B22ACC"
     "2"
     "3F924FAAFBD4D33F81EA66956DFEAA2BFDFCF5",
     "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F174E25A1EE9017B5D450606ADD152"
     "B"
     "534931D7D4E8455CC91F9B15BF05EC36E377FA"
     "00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF282623EAA63E5B5C0723D8B8C37FF"
     "0"
     "777B1A20F8CCB1DCCC43997F1EE0E44DA4A67A"},
};

static void ecdsa_known(void)
{
    for (size_t i = 0; i < UNIT_COUNT(known); i++) {
        struct kms_attrs *attrs = kms_attrs_new();
        struct bytes params = bytes_hex(known[i].oid);
        struct bytes point = bytes_hex(known[i].point);
        struct bytes signature = bytes_hex(known[i].signature);
        struct kms_soft_key *key = NULL;
        CK_MECHANISM mechanism = {known[i].type, NULL, 0};

        CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_EC_PARAMS, params.data, params.len), CKR_OK);
        CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_EC_POINT, point.data, point.len), CKR_OK);
        UNIT_CHECK(known[i].name,
                   kms_soft_key_import(CKO_PUBLIC_KEY, CKK_EC, attrs, &key) == CKR_OK);
        UNIT_CHECK(known[i].name, op_verify(&mechanism, key, kms_span_str("sample"),
                                            bytes_span(&signature)) == CKR_OK);
        UNIT_CHECK(known[i].name, op_verify(&mechanism, key, kms_span_str("sampl"),
                                            bytes_span(&signature)) == CKR_SIGNATURE_INVALID);
        kms_soft_key_unref(key);
        kms_attrs_free(attrs);
    }
}

static void ecdsa(void)
{
    static const struct {
        const char *name, *oid;
        size_t len;
    } curves[] = {{"p256", P256_OID, 64},
                  {"p384", P384_OID, 96},
                  {"p521", P521_OID, 132},
                  {"k256", K256_OID, 64}};
    static const CK_MECHANISM_TYPE types[] = {CKM_ECDSA,        CKM_ECDSA_SHA1,   CKM_ECDSA_SHA224,
                                              CKM_ECDSA_SHA256, CKM_ECDSA_SHA384, CKM_ECDSA_SHA512};
    static struct bytes out;
    static const uint8_t message[100] = {9, 8, 7};

    for (size_t c = 0; c < UNIT_COUNT(curves); c++) {
        struct kms_soft_key *key = key_made(CKK_EC, 0, curves[c].oid);
        struct kms_soft_key *half = public_half(key);
        CK_MECHANISM raw = {CKM_ECDSA, NULL, 0};

        for (size_t t = 0; t < UNIT_COUNT(types); t++) {
            CK_MECHANISM mechanism = {types[t], NULL, 0};

            for (size_t round = 0; round < 3; round++) {
                UNIT_CHECK(curves[c].name,
                           op_split(KMS_SOFT_SIGN, &mechanism, key, kms_span_of(message, 100),
                                    round, 50, &out) == CKR_OK);
                UNIT_CHECK(curves[c].name, out.len == curves[c].len);
                UNIT_CHECK(curves[c].name, op_verify(&mechanism, half, kms_span_of(message, 100),
                                                     bytes_span(&out)) == CKR_OK);
            }
            out.data[5] ^= 1;
            UNIT_CHECK(curves[c].name, op_verify(&mechanism, half, kms_span_of(message, 100),
                                                 bytes_span(&out)) == CKR_SIGNATURE_INVALID);
        }
        /* what is longer than the order is cut off */
        UNIT_CHECK(curves[c].name,
                   op_once(KMS_SOFT_SIGN, &raw, key, kms_span_of(message, curves[c].len / 2),
                           &out) == CKR_OK);
        if (strcmp(curves[c].name, "p521") != 0) {
            UNIT_CHECK(curves[c].name, op_verify(&raw, half, kms_span_of(message, 100),
                                                 bytes_span(&out)) == CKR_OK);
        }
        UNIT_CHECK(curves[c].name,
                   op_verify(&raw, half, kms_span_of(message, 3),
                             kms_span_of(out.data, out.len - 1)) == CKR_SIGNATURE_LEN_RANGE);
        UNIT_CHECK(curves[c].name, op_verify(&raw, half, kms_span_of(message, 3),
                                             kms_span_of(out.data, 0)) == CKR_SIGNATURE_LEN_RANGE);
        out.len += 2;
        UNIT_CHECK(curves[c].name, op_verify(&raw, half, kms_span_of(message, 3),
                                             bytes_span(&out)) == CKR_SIGNATURE_LEN_RANGE);
        memset(out.data, 0, sizeof(out.data));
        UNIT_CHECK(curves[c].name,
                   op_verify(&raw, half, kms_span_of(message, 3),
                             kms_span_of(out.data, curves[c].len)) == CKR_SIGNATURE_INVALID);
        UNIT_CHECK(curves[c].name, op_once(KMS_SOFT_SIGN, &raw, half, kms_span_of(message, 3),
                                           &out) == CKR_KEY_TYPE_INCONSISTENT);
        kms_soft_key_unref(key);
        kms_soft_key_unref(half);
    }
}

/* P-521 r or s is shorter than 66 bytes half of the time: every signature must have its full
 * length. */
static void ecdsa_is_padded(void)
{
    struct kms_soft_key *key = key_made(CKK_EC, 0, P521_OID);
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    static struct bytes out;
    size_t leading = 0;

    for (uint8_t i = 0; i < 24; i++) {
        CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &mechanism, key, kms_span_of(&i, 1), &out), CKR_OK);
        CU_ASSERT_EQUAL(out.len, 132);
        leading += out.data[0] == 0 || out.data[66] == 0;
        CU_ASSERT_EQUAL(op_verify(&mechanism, key, kms_span_of(&i, 1), bytes_span(&out)), CKR_OK);
    }
    CU_ASSERT_TRUE(leading > 0); /* none of 24: once in 10^14 */
    kms_soft_key_unref(key);
}

/* RFC 8032, 7.1, tests 1 to 3 */
static void eddsa(void)
{
    static const struct {
        const char *name, *seed, *point, *message, *signature;
    } rows[] = {
        {"test 1", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
         "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701"
         "cf9"
         "b46bd25bf5f0595bbe24655141438e7a100b"},
        {"test 2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d"
         "0f1"
         "1d8c387b2eaeb4302aeeb00d291612bb0c00"},
        {"test 3", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
         "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f7609"
         "84d"
         "c6594a7c15e9716ed28dc027beceea1ec40a"},
    };
    static struct bytes out;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_attrs *attrs = kms_attrs_new();
        struct bytes params = bytes_hex(ED25519_OID);
        struct bytes seed = bytes_hex(rows[i].seed);
        struct bytes point = bytes_hex(rows[i].point);
        struct bytes message = bytes_hex(rows[i].message);
        struct bytes signature = bytes_hex(rows[i].signature);
        CK_MECHANISM mechanism = {CKM_EDDSA, NULL, 0};
        struct kms_soft_key *key = NULL;
        struct kms_soft_key *half = NULL;

        CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_EC_PARAMS, params.data, params.len), CKR_OK);
        CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_VALUE, seed.data, seed.len), CKR_OK);
        CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_EC_POINT, point.data, point.len), CKR_OK);
        UNIT_CHECK(rows[i].name,
                   kms_soft_key_import(CKO_PRIVATE_KEY, CKK_EC_EDWARDS, attrs, &key) == CKR_OK);
        UNIT_CHECK(rows[i].name,
                   kms_soft_key_import(CKO_PUBLIC_KEY, CKK_EC_EDWARDS, attrs, &half) == CKR_OK);
        UNIT_CHECK(rows[i].name,
                   op_once(KMS_SOFT_SIGN, &mechanism, key, bytes_span(&message), &out) == CKR_OK);
        UNIT_CHECK(rows[i].name, kms_span_equal(bytes_span(&out), bytes_span(&signature)));
        UNIT_CHECK(rows[i].name, splits_agree(KMS_SOFT_SIGN, &mechanism, key, bytes_span(&message),
                                              bytes_span(&signature)));
        UNIT_CHECK(rows[i].name, op_verify(&mechanism, half, bytes_span(&message),
                                           bytes_span(&signature)) == CKR_OK);
        UNIT_CHECK(rows[i].name,
                   op_verify(&mechanism, half, bytes_span(&message),
                             kms_span_of(signature.data, 63)) == CKR_SIGNATURE_LEN_RANGE);
        signature.data[0] ^= 1;
        UNIT_CHECK(rows[i].name, op_verify(&mechanism, half, bytes_span(&message),
                                           bytes_span(&signature)) == CKR_SIGNATURE_INVALID);
        kms_soft_key_unref(key);
        kms_soft_key_unref(half);
        kms_attrs_free(attrs);
    }
}

/* The wrong step for what was begun. */
static void steps_must_fit(void)
{
    struct kms_soft_key *key = key_of(CKK_GENERIC_SECRET, K20);
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    struct kms_buf small = kms_buf_over(storage, 31);
    struct kms_soft_op *op = NULL;

    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_SIGN, mech_of(CKM_SHA256_HMAC), &mechanism, key, &op),
                    CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_room(op, 1000, true), 32);
    CU_ASSERT_EQUAL(kms_soft_op_room(op, 1000, false), 0);
    CU_ASSERT_EQUAL(kms_soft_op_verify(op, kms_span_of(storage, 32)), CKR_FUNCTION_FAILED);
    kms_soft_op_free(op);
    CU_ASSERT_EQUAL(
        kms_soft_op_new(KMS_SOFT_VERIFY, mech_of(CKM_SHA256_HMAC), &mechanism, key, &op), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_final(op, &out), CKR_FUNCTION_FAILED);
    kms_soft_op_free(op);
    CU_ASSERT_EQUAL(kms_soft_op_new(KMS_SOFT_SIGN, mech_of(CKM_SHA256_HMAC), &mechanism, key, &op),
                    CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_op_final(op, &small), CKR_BUFFER_TOO_SMALL);
    kms_soft_op_free(op);
    kms_soft_key_unref(key);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"MACs and digests", macs_and_digests},
        {"digest in one call", digest_in_one_call},
        {"RSA PKCS#1", rsa_pkcs1},
        {"RSA PSS", rsa_pss},
        {"RSA ciphers", rsa_ciphers},
        {"RSA without padding", rsa_raw},
        {"RSA inputs", rsa_inputs},
        {"ECDSA, published", ecdsa_known},
        {"ECDSA", ecdsa},
        {"ECDSA is padded", ecdsa_is_padded},
        {"EdDSA", eddsa},
        {"steps must fit", steps_must_fit},
    };
    int result;

    make_rsa();
    result = unit_main("test_soft_sign", tests, UNIT_COUNT(tests));
    kms_soft_key_unref(rsa);
    kms_soft_key_unref(rsa_public);
    EVP_PKEY_free(rsa_plain);
    return result;
}
