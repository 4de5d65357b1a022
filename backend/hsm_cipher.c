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

/* ---- which mechanism is KWP --------------------------------------------------------------- */

static CK_RV wrap_by(struct kms_p11 *p, const struct kms_hsm_work *like, size_t len,
                     CK_MECHANISM_TYPE type, size_t *ret_sealed, size_t *ret_opened)
{
    static const uint8_t text[BLOCK] = "kmsbridge probe";
    CK_MECHANISM mechanism = {.mechanism = type};
    uint8_t sealed[4 * BLOCK];
    uint8_t opened[4 * BLOCK];
    struct kms_hsm_work work = {.backend = like->backend,
                                .key = like->key,
                                .act = KMS_HSM_WRAP,
                                .in = kms_span_of(text, len),
                                .out = sealed,
                                .out_room = sizeof(sealed)};
    CK_RV rv = kms_hsm_bytes_seal(p, &work, &mechanism);

    *ret_sealed = work.out_len;
    if (rv == CKR_OK && ret_opened != NULL) {
        work.act = KMS_HSM_UNWRAP;
        work.in = kms_span_of(sealed, work.out_len);
        work.out = opened;
        work.out_room = sizeof(opened);
        rv = kms_hsm_bytes_open(p, &work, &mechanism);
        *ret_opened = work.out_len;
    }
    return rv;
}

/* What a trial's failure leaves behind; true when it told something. */
static bool is_told(struct kms_p11 *p, CK_RV rv)
{
    if (kms_ckr_is_unclear(rv)) {
        (void)kms_p11_renew(p); /* nothing is known; the next call on a lost session says so */
    }
    return rv == CKR_OK || kms_hsm_is_refusal(rv);
}

/*
 * KWP makes 24 bytes of 16. PKCS#7 padding under AES key wrap, the other reading of
 * CKM_AES_KEY_WRAP_PAD, makes 32.
 */
CK_MECHANISM_TYPE kms_hsm_kwp(struct kms_backend *b, struct kms_p11 *p,
                              const struct kms_hsm_key *key)
{
    const struct kms_hsm_work like = {.backend = b, .key = key};
    unsigned long known = atomic_load(&b->tried.kwp);
    size_t sealed = 0;
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
    rv = wrap_by(p, &like, BLOCK, CKM_AES_KEY_WRAP_PAD, &sealed, NULL);
    known = rv == CKR_OK && sealed == BLOCK + HALF ? CKM_AES_KEY_WRAP_PAD : KMS_HSM_NO_MECHANISM;
    if (is_told(p, rv)) {
        atomic_store(&b->tried.kwp, known);
    }
    return known;
}

/*
 * SoftHSM 2.6.1 pads a key with zeros before it wraps it, so that the length it keeps is another:
 * what it wraps would be opened longer than it was. Lengths without padding are safe.
 */
static CK_RV check_odd(struct kms_p11 *p, const struct kms_hsm_work *work)
{
    atomic_uint *tried = &work->backend->tried.kwp_odd;
    size_t sealed = 0;
    size_t opened = 0;
    CK_RV rv = CKR_OK;
    CK_MECHANISM_TYPE kwp = KMS_HSM_NO_MECHANISM;

    if (work->row->alg != KMS_ALG_AES_KEY_WRAP_PAD || work->in.len % HALF == 0) {
        return CKR_OK;
    }
    kwp = kms_hsm_kwp(work->backend, p, work->key);
    if (atomic_load(tried) == KMS_HSM_UNKNOWN &&
        kms_hsm_way(p, work->key, kwp, KMS_HSM_UNWRAP) != KMS_HSM_NO_WAY) {
        rv = wrap_by(p, work, HALF + 1, kwp, &sealed, &opened);
        if (!is_told(p, rv)) {
            return rv;
        }
        atomic_store(tried, rv == CKR_OK && opened == HALF + 1 ? KMS_HSM_YES : KMS_HSM_NO);
    }
    if (atomic_load(tried) != KMS_HSM_YES) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "this token, or this key, wraps no key of %zu bytes so that it would "
                            "be unwrapped as long: multiples of %d only",
                            work->in.len, HALF);
        return CKR_KEY_SIZE_RANGE;
    }
    return CKR_OK;
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
        rv = check_odd(p, work);
    }
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
    if (rv == CKR_OK && !grew_right(cipher, work->out_len, work->in.len)) {
        return CKR_ENCRYPTED_DATA_INVALID; /* a padding that some tokens do not look at twice */
    }
    return rv;
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
