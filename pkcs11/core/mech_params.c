/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mechanism parameters: each form's length, pointers and values, before anything is done with them.
 * The log says what is wrong.
 */
#include <stddef.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/mech.h"

#define BLOCK        16
#define CHACHA_NONCE 12
#define GCM_IV_MAX   128  /* libcrypto's bound; 3.0 allows 256 */
#define AAD_MAX      1024 /* the waist's, for labels and SEALED; GCM's AAD is not bounded here */
#define INFO_MAX     4096 /* HKDF's salt and info, ECDH's shared data */
#define SALT_MAX     2048 /* of PSS: RSA-16384 has no room for more */

/* The form of 2.40's text, without ulIvBits; its header and 3.0 have it. Java sends this one. */
struct gcm_params_short {
    CK_BYTE_PTR iv;
    CK_ULONG iv_size;
    CK_BYTE_PTR aad;
    CK_ULONG aad_size;
    CK_ULONG tag;
};

static CK_RV bad(const struct kms_mech *mech, const char *what)
{
    return kms_p11_refuse(CKR_MECHANISM_PARAM_INVALID, "%s: %s", mech->name, what);
}

/* A copy: the host's pointer need not be aligned. */
static bool read_as(const CK_MECHANISM *mechanism, void *ret, size_t size)
{
    if (mechanism->pParameter == NULL || mechanism->ulParameterLen != size) {
        return false;
    }
    memcpy(ret, mechanism->pParameter, size);
    return true;
}

static bool is_none(const CK_MECHANISM *mechanism)
{
    return mechanism->ulParameterLen == 0;
}

static bool good_span(const void *data, CK_ULONG len, CK_ULONG max)
{
    return len <= max && (data != NULL || len == 0);
}

static CK_RV params_iv(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    if (m->pParameter == NULL || m->ulParameterLen != BLOCK) {
        return bad(mech, "the parameter must be an IV of 16 bytes");
    }
    p->iv = kms_span_of(m->pParameter, BLOCK);
    return CKR_OK;
}

/* NIST SP 800-38D, 5.2.1.2 */
static bool good_tag(CK_ULONG bits)
{
    return bits == 32 || bits == 64 || (bits >= 96 && bits <= 128 && bits % 8 == 0);
}

/* ulIvBits is not looked at: callers leave it 0, and ulIvLen says it in bytes. */
static CK_RV params_gcm(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    struct gcm_params_short s;
    CK_GCM_PARAMS gcm;

    if (read_as(m, &s, sizeof(s))) {
        gcm = (CK_GCM_PARAMS){.pIv = s.iv,
                              .ulIvLen = s.iv_size,
                              .pAAD = s.aad,
                              .ulAADLen = s.aad_size,
                              .ulTagBits = s.tag};
    } else if (!read_as(m, &gcm, sizeof(gcm))) {
        return bad(mech, "the parameter is no CK_GCM_PARAMS");
    }
    if (gcm.pIv == NULL || gcm.ulIvLen == 0 || gcm.ulIvLen > GCM_IV_MAX) {
        return bad(mech, "the IV must have 1 to 128 bytes");
    }
    if (!good_span(gcm.pAAD, gcm.ulAADLen, INT32_MAX)) {
        return bad(mech, "the AAD has a length and no value, or is too long");
    }
    if (!good_tag(gcm.ulTagBits)) {
        return bad(mech, "the tag must have 96, 104, 112, 120, 128, 64 or 32 bits");
    }
    p->iv = kms_span_of(gcm.pIv, gcm.ulIvLen);
    p->aad = kms_span_of(gcm.pAAD, gcm.ulAADLen);
    p->tag_len = (unsigned)(gcm.ulTagBits / 8);
    return CKR_OK;
}

/* 96 bits, as RFC 8439 has it; the 64 of the original are for ciphertexts of others. */
static CK_RV params_chacha(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_SALSA20_CHACHA20_POLY1305_PARAMS chacha;

    if (!read_as(m, &chacha, sizeof(chacha))) {
        return bad(mech, "the parameter is no CK_SALSA20_CHACHA20_POLY1305_PARAMS");
    }
    if (chacha.pNonce == NULL || chacha.ulNonceLen != CHACHA_NONCE) {
        return bad(mech, "the nonce must have 12 bytes");
    }
    if (!good_span(chacha.pAAD, chacha.ulAADLen, AAD_MAX)) {
        return bad(mech, "the AAD has a length and no value, or more than 1024 bytes");
    }
    p->iv = kms_span_of(chacha.pNonce, CHACHA_NONCE);
    p->aad = kms_span_of(chacha.pAAD, chacha.ulAADLen);
    return CKR_OK;
}

static CK_RV params_ctr(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_AES_CTR_PARAMS ctr;

    if (!read_as(m, &ctr, sizeof(ctr))) {
        return bad(mech, "the parameter is no CK_AES_CTR_PARAMS");
    }
    if (ctr.ulCounterBits < 1 || ctr.ulCounterBits > 128) {
        return bad(mech, "ulCounterBits must be 1 to 128");
    }
    p->iv = kms_span_of((const uint8_t *)m->pParameter + offsetof(CK_AES_CTR_PARAMS, cb), BLOCK);
    p->ctr_bits = (unsigned)ctr.ulCounterBits;
    return CKR_OK;
}

/* RFC 5649 has 4 bytes where RFC 3394 has 8. */
static CK_RV params_wrap(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_ULONG want = mech->type == CKM_AES_KEY_WRAP ? 8 : 4;

    if (is_none(m)) {
        return CKR_OK;
    }
    if (m->pParameter == NULL || m->ulParameterLen != want) {
        return bad(mech, want == 8 ? "the parameter must be none or an IV of 8 bytes"
                                   : "the parameter must be none or an IV of 4 bytes");
    }
    p->iv = kms_span_of(m->pParameter, want);
    return CKR_OK;
}

static CK_RV params_oaep(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    const struct kms_hash *hash;
    const struct kms_hash *mask;
    CK_RSA_PKCS_OAEP_PARAMS oaep;

    if (!read_as(m, &oaep, sizeof(oaep))) {
        return bad(mech, "the parameter is no CK_RSA_PKCS_OAEP_PARAMS");
    }
    hash = kms_hash_find(oaep.hashAlg);
    mask = kms_hash_by_mgf(oaep.mgf);
    if (hash == NULL || mask == NULL) {
        return bad(mech, hash == NULL ? "hashAlg is none of ours" : "mgf is none of ours");
    }
    /* callers without a label leave source 0 */
    if (oaep.source != CKZ_DATA_SPECIFIED && (oaep.source != 0 || oaep.ulSourceDataLen != 0)) {
        return bad(mech, "source is not CKZ_DATA_SPECIFIED");
    }
    if (!good_span(oaep.pSourceData, oaep.ulSourceDataLen, AAD_MAX)) {
        return bad(mech, "the label has a length and no value, or more than 1024 bytes");
    }
    p->aad = kms_span_of(oaep.pSourceData, oaep.ulSourceDataLen);
    p->alg = hash == mask ? hash->oaep : KMS_ALG_NONE;
    return CKR_OK;
}

static CK_RV params_pss(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    const struct kms_hash *hash;
    const struct kms_hash *mask;
    CK_RSA_PKCS_PSS_PARAMS pss;

    if (!read_as(m, &pss, sizeof(pss))) {
        return bad(mech, "the parameter is no CK_RSA_PKCS_PSS_PARAMS");
    }
    hash = kms_hash_find(pss.hashAlg);
    mask = kms_hash_by_mgf(pss.mgf);
    if (hash == NULL || mask == NULL) {
        return bad(mech, hash == NULL ? "hashAlg is none of ours" : "mgf is none of ours");
    }
    if (mech->hash != NULL && kms_hash_by_name(mech->hash) != hash) {
        return bad(mech, "hashAlg is another hash than the mechanism's");
    }
    if (pss.sLen > SALT_MAX) {
        return bad(mech, "sLen is longer than any key has room for");
    }
    p->salt_given = true;
    p->salt_len = (unsigned)pss.sLen;
    p->alg = hash == mask ? hash->pss : KMS_ALG_NONE;
    return CKR_OK;
}

/* Pure Ed25519 only (RFC 8032, 5.1): no context, no prehash. */
static CK_RV params_eddsa(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_EDDSA_PARAMS eddsa;

    (void)p;
    if (is_none(m)) {
        return CKR_OK;
    }
    if (!read_as(m, &eddsa, sizeof(eddsa))) {
        return bad(mech, "the parameter is no CK_EDDSA_PARAMS");
    }
    if (eddsa.phFlag != CK_FALSE || eddsa.ulContextDataLen != 0) {
        return bad(mech, "only pure Ed25519 is done: no phFlag, no context");
    }
    return CKR_OK;
}

static size_t mac_size(const struct kms_mech *mech)
{
    const struct kms_hash *hash = kms_hash_by_name(mech->hash);

    return hash == NULL ? BLOCK : hash->len;
}

static CK_RV params_mac(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_ULONG len = 0;

    (void)p;
    if (!read_as(m, &len, sizeof(len))) {
        return bad(mech, "the parameter is no CK_MAC_GENERAL_PARAMS");
    }
    if (len < 1 || len > mac_size(mech)) {
        return bad(mech, "the length must be 1 to that of the whole MAC");
    }
    return CKR_OK;
}

static CK_RV params_ecdh(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_ECDH1_DERIVE_PARAMS ecdh;

    (void)p;
    if (!read_as(m, &ecdh, sizeof(ecdh))) {
        return bad(mech, "the parameter is no CK_ECDH1_DERIVE_PARAMS");
    }
    if (ecdh.kdf != CKD_NULL && kms_hash_by_kdf(ecdh.kdf) == NULL) {
        return bad(mech, "kdf is none of ours");
    }
    if (!good_span(ecdh.pSharedData, ecdh.ulSharedDataLen, INFO_MAX) ||
        (ecdh.kdf == CKD_NULL && ecdh.ulSharedDataLen != 0)) {
        return bad(mech, "the shared data has no value, no KDF, or more than 4096 bytes");
    }
    if (ecdh.pPublicData == NULL || ecdh.ulPublicDataLen == 0 || ecdh.ulPublicDataLen > INFO_MAX) {
        return bad(mech, "the peer's public point is missing or too long");
    }
    return CKR_OK;
}

/* A salt that is a key is the caller's to look up: it puts the key's value there as
 * CKF_HKDF_SALT_DATA. */
static CK_RV params_hkdf(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_HKDF_PARAMS hkdf;

    (void)p;
    if (!read_as(m, &hkdf, sizeof(hkdf))) {
        return bad(mech, "the parameter is no CK_HKDF_PARAMS");
    }
    if (hkdf.bExtract == CK_FALSE && hkdf.bExpand == CK_FALSE) {
        return bad(mech, "neither bExtract nor bExpand");
    }
    if (kms_hash_find(hkdf.prfHashMechanism) == NULL) {
        return bad(mech, "prfHashMechanism is none of ours");
    }
    if (hkdf.bExtract != CK_FALSE && hkdf.ulSaltType != CKF_HKDF_SALT_NULL &&
        (hkdf.ulSaltType != CKF_HKDF_SALT_DATA ||
         !good_span(hkdf.pSalt, hkdf.ulSaltLen, INFO_MAX))) {
        return bad(mech, "the salt is of no type that we do, or too long");
    }
    if (!good_span(hkdf.pInfo, hkdf.ulInfoLen, INFO_MAX)) {
        return bad(mech, "the info has a length and no value, or more than 4096 bytes");
    }
    return CKR_OK;
}

static CK_RV params_sealed(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    CK_KMSBRIDGE_SEALED_PARAMS sealed;

    if (is_none(m)) {
        return CKR_OK;
    }
    if (!read_as(m, &sealed, sizeof(sealed)) || sealed.ulVersion != 0) {
        return bad(mech, "the parameter is no CK_KMSBRIDGE_SEALED_PARAMS of version 0");
    }
    if (!good_span(sealed.pAAD, sealed.ulAADLen, AAD_MAX)) {
        return bad(mech, "the AAD has a length and no value, or more than 1024 bytes");
    }
    p->aad = kms_span_of(sealed.pAAD, sealed.ulAADLen);
    return CKR_OK;
}

static CK_RV params_data_key(const struct kms_mech *mech, const CK_MECHANISM *m,
                             struct kms_params *p)
{
    CK_KMSBRIDGE_DATA_KEY_PARAMS data_key;

    if (!read_as(m, &data_key, sizeof(data_key)) || data_key.ulVersion != 0) {
        return bad(mech, "the parameter is no CK_KMSBRIDGE_DATA_KEY_PARAMS of version 0");
    }
    if (!good_span(data_key.pAAD, data_key.ulAADLen, AAD_MAX)) {
        return bad(mech, "the AAD has a length and no value, or more than 1024 bytes");
    }
    p->aad = kms_span_of(data_key.pAAD, data_key.ulAADLen);
    return CKR_OK;
}

/* Some callers point at something and give no length. */
static CK_RV params_none(const struct kms_mech *mech, const CK_MECHANISM *m, struct kms_params *p)
{
    (void)p;
    return is_none(m) ? CKR_OK : bad(mech, "takes no parameter");
}

CK_RV kms_mech_params(const struct kms_mech *mech, const CK_MECHANISM *mechanism,
                      struct kms_params *ret_params)
{
    static CK_RV (*const forms[])(const struct kms_mech *, const CK_MECHANISM *,
                                  struct kms_params *) = {
        [KMS_PARAM_NONE] = params_none,     [KMS_PARAM_IV] = params_iv,
        [KMS_PARAM_GCM] = params_gcm,       [KMS_PARAM_CTR] = params_ctr,
        [KMS_PARAM_WRAP_IV] = params_wrap,  [KMS_PARAM_OAEP] = params_oaep,
        [KMS_PARAM_PSS] = params_pss,       [KMS_PARAM_EDDSA] = params_eddsa,
        [KMS_PARAM_MAC_LEN] = params_mac,   [KMS_PARAM_ECDH] = params_ecdh,
        [KMS_PARAM_HKDF] = params_hkdf,     [KMS_PARAM_SEALED] = params_sealed,
        [KMS_PARAM_CHACHA] = params_chacha, [KMS_PARAM_DATA_KEY] = params_data_key,
    };
    struct kms_params params = {.alg = KMS_ALG_NONE};
    CK_RV rv = CKR_OK;

    if (mechanism == NULL || mech == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    params.alg = mech->alg;
    rv = forms[mech->param](mech, mechanism, &params);
    if (rv == CKR_OK) {
        *ret_params = params;
    }
    return rv;
}

size_t kms_mech_mac_len(const struct kms_mech *mech, const CK_MECHANISM *mechanism)
{
    CK_ULONG len = 0;

    if (mech->param == KMS_PARAM_MAC_LEN && read_as(mechanism, &len, sizeof(len))) {
        return len;
    }
    return mac_size(mech);
}
