/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES as it is, without a tag of ours: CBC and CTR for those who authenticate by themselves, and
 * key wrap (NIST SP 800-38F). Lengths are checked on both sides of the token, so that one which
 * means another padding by a mechanism's name is noticed.
 */
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define BLOCK     16
#define HALF      8  /* a semiblock of SP 800-38F */
#define CTR_LOW   32 /* counter bits of a fresh IV that begin at zero: more blocks than we take */
#define CTR_SHIFT 24 /* 2^20 blocks are more than KMS_CIPHERTEXT_MAX already */

static const struct cipher {
    enum kms_alg alg;
    size_t iv_len;
    size_t in_unit; /* plaintexts are a multiple of it */
    size_t in_min;
    size_t out_unit; /* ciphertexts are */
    size_t out_min;
    size_t grows_min; /* how much longer a ciphertext is than its plaintext */
    size_t grows_max;
} ciphers[] = {
    {KMS_ALG_AES_CBC, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, 0, 0},
    {KMS_ALG_AES_CBC_PAD, BLOCK, 1, 0, BLOCK, BLOCK, 1, BLOCK},
    {KMS_ALG_AES_CTR, BLOCK, 1, 0, 1, 0, 0, 0},
    {KMS_ALG_AES_KEY_WRAP, 0, HALF, 2 * HALF, HALF, 3 * HALF, HALF, HALF},
    {KMS_ALG_AES_KEY_WRAP_PAD, 0, 1, 1, HALF, 2 * HALF, HALF, 2 * HALF - 1},
};

static const struct cipher *cipher_find(enum kms_alg alg)
{
    for (size_t i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++) {
        if (ciphers[i].alg == alg) {
            return &ciphers[i];
        }
    }
    return NULL;
}

/* A mechanism with the parameters it takes. */
struct mechanism {
    CK_AES_CTR_PARAMS ctr;
    CK_MECHANISM mechanism;
};

static void mechanism_make(struct mechanism *m, struct kms_p11 *p, struct kms_hsm_work *work,
                           const struct cipher *cipher)
{
    m->mechanism = (CK_MECHANISM){.mechanism = work->row->mechanism};
    if (work->row->alg == KMS_ALG_AES_CTR) {
        m->ctr.counter_bits = work->ctr_bits;
        memcpy(m->ctr.cb, work->iv, BLOCK);
        m->mechanism.pParameter = &m->ctr;
        m->mechanism.ulParameterLen = sizeof(m->ctr);
    } else if (cipher->iv_len > 0) {
        m->mechanism.pParameter = work->iv;
        m->mechanism.ulParameterLen = cipher->iv_len;
    } else if (work->row->alg == KMS_ALG_AES_KEY_WRAP_PAD) {
        m->mechanism.mechanism = kms_hsm_kwp(work->backend, p, work->key);
    }
}

/* ---- IVs ---------------------------------------------------------------------------------- */

/* A counter that wraps around would use a block twice (SP 800-38A B.1). */
static bool counter_fits(const struct kms_hsm_work *work)
{
    return work->row->alg != KMS_ALG_AES_CTR || work->ctr_bits >= CTR_SHIFT ||
           (work->in.len + BLOCK - 1) / BLOCK <= (size_t)1 << work->ctr_bits;
}

static CK_RV make_iv(struct kms_p11 *p, struct kms_hsm_work *work, const struct cipher *cipher)
{
    unsigned low = work->ctr_bits < CTR_LOW ? work->ctr_bits : CTR_LOW;
    CK_RV rv = CKR_OK;

    if (work->iv_given || cipher->iv_len == 0) {
        return CKR_OK;
    }
    work->iv_len = cipher->iv_len;
    rv = KMS_P11(p, C_GenerateRandom)(p->session, work->iv, cipher->iv_len);
    if (work->row->alg == KMS_ALG_AES_CTR && work->ctr_bits < 8 * BLOCK) {
        for (unsigned bit = 0; bit < low; bit++) {
            work->iv[BLOCK - 1 - bit / 8] &= (uint8_t) ~(1u << bit % 8);
        }
    }
    return rv;
}

/* ---- seal and open ------------------------------------------------------------------------ */

/* Lengths that the algorithm does not have are the caller's mistake. */
static CK_RV check_plain(struct kms_p11 *p, const struct kms_hsm_work *work,
                         const struct cipher *cipher)
{
    if (work->in.len < cipher->in_min || work->in.len % cipher->in_unit != 0) {
        (void)kms_error_set(
            p->ask->err, KMS_E_INVALID, "%s takes multiples of %zu bytes from %zu on, not %zu",
            kms_alg_name(work->row->alg), cipher->in_unit, cipher->in_min, work->in.len);
        return CKR_DATA_LEN_RANGE;
    }
    if (!counter_fits(work)) {
        (void)kms_error_set(p->ask->err, KMS_E_TOO_LARGE,
                            "%zu bytes are more than a counter of %u bits has blocks", work->in.len,
                            work->ctr_bits);
        return CKR_DATA_LEN_RANGE;
    }
    return CKR_OK;
}

static bool grew_right(const struct cipher *cipher, size_t plain, size_t sealed)
{
    return sealed % cipher->out_unit == 0 && sealed >= plain + cipher->grows_min &&
           sealed <= plain + cipher->grows_max;
}

CK_RV kms_hsm_cipher_seal(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct cipher *cipher = cipher_find(work->row->alg);
    struct mechanism m;
    CK_RV rv = check_plain(p, work, cipher);

    if (rv == CKR_OK) {
        rv = make_iv(p, work, cipher);
    }
    if (rv == CKR_OK) {
        mechanism_make(&m, p, work, cipher);
        rv = kms_hsm_bytes_seal(p, work, &m.mechanism);
    }
    return rv == CKR_OK && !grew_right(cipher, work->in.len, work->out_len) ? KMS_P11_BAD_REPLY
                                                                            : rv;
}

static CK_RV open(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct cipher *cipher = cipher_find(work->row->alg);
    struct mechanism m;
    CK_RV rv = CKR_OK;

    mechanism_make(&m, p, work, cipher);
    rv = kms_hsm_bytes_open(p, work, &m.mechanism);
    return rv == CKR_OK && !grew_right(cipher, work->out_len, work->in.len) ? KMS_P11_BAD_REPLY
                                                                            : rv;
}

CK_RV kms_hsm_cipher_open(struct kms_p11 *p, struct kms_hsm_work *work)
{
    const struct cipher *cipher = cipher_find(work->row->alg);

    if (work->iv_len != cipher->iv_len || work->in.len < cipher->out_min ||
        work->in.len % cipher->out_unit != 0 || !counter_fits(work)) {
        p->function = "length";
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    return kms_hsm_open_surely(p, work, open);
}

/* ---- which mechanism is KWP --------------------------------------------------------------- */

/*
 * KWP makes 24 bytes of 16. PKCS#7 padding under AES key wrap, as NSS understands
 * CKM_AES_KEY_WRAP_PAD, makes 32.
 */
static CK_RV try_kwp(struct kms_p11 *p, struct kms_backend *b, const struct kms_hsm_key *key,
                     bool *ret_is)
{
    static const uint8_t text[BLOCK] = "kmsbridge probe";
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP_PAD};
    uint8_t sealed[4 * BLOCK];
    struct kms_hsm_work work = {.backend = b,
                                .key = key,
                                .act = KMS_HSM_WRAP,
                                .in = kms_span_of(text, sizeof(text)),
                                .out = sealed,
                                .out_room = sizeof(sealed)};
    CK_RV rv = kms_hsm_bytes_seal(p, &work, &mechanism);

    *ret_is = rv == CKR_OK && work.out_len == sizeof(text) + HALF;
    return rv;
}

CK_MECHANISM_TYPE kms_hsm_kwp(struct kms_backend *b, struct kms_p11 *p,
                              const struct kms_hsm_key *key)
{
    unsigned long known = atomic_load(&b->tried.kwp);
    bool is = false;
    CK_RV rv = CKR_OK;

    if (kms_p11_offers(p, CKM_AES_KEY_WRAP_KWP,
                       CKF_WRAP | CKF_UNWRAP | CKF_ENCRYPT | CKF_DECRYPT)) {
        return CKM_AES_KEY_WRAP_KWP;
    }
    if (known != 0) {
        return known;
    }
    if (kms_hsm_way(p, key, CKM_AES_KEY_WRAP_PAD, KMS_HSM_WRAP) == KMS_HSM_NO_WAY) {
        return KMS_HSM_NO_MECHANISM;
    }
    rv = try_kwp(p, b, key, &is);
    if (rv == CKR_OK || kms_ckr_is_unsupported(rv)) {
        known = is ? CKM_AES_KEY_WRAP_PAD : KMS_HSM_NO_MECHANISM;
        atomic_store(&b->tried.kwp, known);
        return known;
    }
    if (kms_ckr_is_unclear(rv)) {
        (void)kms_p11_renew(p); /* nothing is known; the next call on a lost session says so */
    }
    return KMS_HSM_NO_MECHANISM;
}
