/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypt and decrypt: every scheme, every size, and everything that must be refused. */
#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "tests/contract/contract.h"

static const struct scheme {
    const char *name; /* the setting that restricts to it */
    enum kms_alg alg;
    enum kms_key_type type;
    unsigned bits;
    size_t iv_len;
    size_t min;
    size_t max;
} schemes[] = {
    {"aes-gcm", KMS_ALG_AES_GCM, KMS_KEY_AES, 256, 12, 0, KMS_PLAINTEXT_MAX},
    {"aes-gcm", KMS_ALG_AES_GCM, KMS_KEY_AES, 128, 12, 0, KMS_PLAINTEXT_MAX},
    {"aes-cbc-hmac", KMS_ALG_AES_CBC_HMAC, KMS_KEY_AES, 256, 16, 0, KMS_PLAINTEXT_MAX},
    {"rsa-oaep", KMS_ALG_RSA_OAEP_SHA256, KMS_KEY_RSA, 2048, 0, 0, 256 - 66},
    {"chacha20-poly1305", KMS_ALG_CHACHA20_POLY1305, KMS_KEY_CHACHA20, 256, 12, 0,
     KMS_PLAINTEXT_MAX}, /* Transit */
    /* Alibaba Cloud KMS */
    {"sealed by SM4", KMS_ALG_SEALED, KMS_KEY_SM4, 128, 0, 1, 6144},
    {"sealed", KMS_ALG_SEALED, KMS_KEY_AES, 256, 0, 1, 6144},
};

static struct fx_sealed sealed;
static uint8_t text[KMS_PLAINTEXT_MAX], opened[FX_CIPHERTEXT_MAX];

/* A key for @s, told by the scheme's name when the token makes none for it. */
static bool make(struct kms_waist *waist, const struct scheme *s, struct kms_key_info *info)
{
    struct kms_key_template tmpl = {.type = s->type, .bits = s->bits, .label = fx_label()};
    struct kms_call call = fx_call();
    enum kms_status status = kms_waist_generate(waist, &call, &tmpl, info);

    if (status == KMS_E_UNSUPPORTED) {
        fx_skip(s->name, "%s", call.error.text);
        return false;
    }
    return FX_CHECK(&call, status == KMS_OK);
}

/* A waist and a key for @s; false when skipped. */
static bool begin(const struct scheme *s, struct kms_waist **ret_waist, struct kms_key_info *info)
{
    if ((s->alg == KMS_ALG_SEALED) != fx_seals_itself()) {
        return false; /* such a service seals in no other way, and nobody else in this one */
    }
    if (s->type == KMS_KEY_CHACHA20 && !fx_is_service()) {
        return false; /* the hsm backend has none */
    }
    *ret_waist = fx_open(NULL, s->name, 0);
    if (!make(*ret_waist, s, info)) {
        fx_close(*ret_waist);
        return false;
    }
    if (info->seal != s->alg) {
        fx_skip(s->name, "the token cannot do it");
        fx_destroy(*ret_waist, info->ref);
        fx_close(*ret_waist);
        return false;
    }
    return true;
}

static void end(struct kms_waist *waist, const struct kms_key_info *info)
{
    fx_destroy(waist, info->ref);
    fx_close(waist);
}

static void round_trip(struct kms_waist *waist, const struct scheme *s,
                       const struct kms_key_info *info, size_t size)
{
    struct kms_buf out = KMS_BUF_OVER(opened);
    struct kms_span aad = kms_span_of(text, size % 64);
    struct kms_span in = kms_span_of(text, size);

    UNIT_CHECK(s->name, fx_seal(waist, info->ref, KMS_ALG_BEST, aad, in, &sealed) == KMS_OK);
    UNIT_CHECK(s->name, sealed.sealed.alg == s->alg);
    UNIT_CHECK(s->name, sealed.sealed.iv.len == s->iv_len);
    UNIT_CHECK(s->name, strcmp(sealed.sealed.key_id, info->id) == 0);
    UNIT_CHECK(s->name, sealed.sealed.ciphertext.len > size);
    UNIT_CHECK(s->name, size < 16 || memcmp(sealed.ciphertext, text, 16) != 0);
    memset(opened, 0xa5, sizeof(opened));
    UNIT_CHECK(s->name, fx_unseal(waist, info->ref, &sealed, aad, &out) == KMS_OK);
    UNIT_CHECK(s->name, out.len == size && memcmp(opened, text, size) == 0);
    for (size_t i = size; i < sealed.sealed.ciphertext.len && i < sizeof(opened); i++) {
        /* what tokens and unpadding leave behind the plaintext is wiped */
        if (opened[i] != 0 && opened[i] != 0xa5) {
            UNIT_CHECK(s->name, false && "wiped behind the plaintext");
            break;
        }
    }
}

static void all_sizes_come_back(void)
{
    static const size_t sizes[] = {0, 1, 16, 32, 190, 4096, 65536};

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t i = 0; i < UNIT_COUNT(schemes); i++) {
        struct kms_waist *waist = NULL;
        struct kms_key_info info;

        if (!begin(&schemes[i], &waist, &info)) {
            continue;
        }
        for (size_t j = 0; j < UNIT_COUNT(sizes); j++) {
            if (sizes[j] < schemes[i].min) {
                UNIT_CHECK(schemes[i].name, fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE,
                                                    KMS_SPAN_NONE, &sealed) == KMS_E_INVALID);
            } else if (sizes[j] <= schemes[i].max) {
                round_trip(waist, &schemes[i], &info, sizes[j]);
            } else {
                UNIT_CHECK(schemes[i].name,
                           fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE,
                                   kms_span_of(text, sizes[j]), &sealed) == KMS_E_TOO_LARGE);
            }
        }
        end(waist, &info);
    }
}

/* Refused as bad data, and nothing of a plaintext is left in the caller's buffer. */
static void refused(struct kms_waist *waist, const char *row, const char *ref, struct kms_span aad)
{
    struct kms_buf out = KMS_BUF_OVER(opened);

    memset(opened, 0xa5, 512);
    UNIT_CHECK(row, fx_unseal(waist, ref, &sealed, aad, &out) == KMS_E_BAD_DATA);
    UNIT_CHECK(row, out.len == 0);
    for (size_t i = 0; i + 16 <= 512; i++) {
        if (memcmp(opened + i, text, 16) == 0) {
            UNIT_CHECK(row, false && "plaintext left behind");
        }
    }
}

static void refuse_altered(struct kms_waist *waist, const struct scheme *s,
                           const struct kms_key_info *info, struct kms_span aad)
{
    struct kms_buf *body = &sealed.sealed.ciphertext;
    struct kms_buf *iv = &sealed.sealed.iv;
    size_t step = s->type == KMS_KEY_RSA ? 17 : 1; /* a private operation each: some will do */
    size_t len = body->len;

    for (size_t i = 0; i < len; i += step) {
        sealed.ciphertext[i] ^= 0x40;
        refused(waist, s->name, info->ref, aad);
        sealed.ciphertext[i] ^= 0x40;
    }
    for (size_t i = 0; i < iv->len; i++) {
        sealed.iv[i] ^= 0x01;
        refused(waist, s->name, info->ref, aad);
        sealed.iv[i] ^= 0x01;
    }
    for (body->len = 0; body->len < len; body->len += step) {
        refused(waist, s->name, info->ref, aad);
    }
    body->len = len + 1;
    refused(waist, s->name, info->ref, aad);
    body->len = len;
    if (iv->len > 0) {
        iv->len--;
        refused(waist, s->name, info->ref, aad);
        iv->len++;
    }
}

static void refuse_foreign(struct kms_waist *waist, const struct scheme *s,
                           const struct kms_key_info *info, struct kms_span aad)
{
    struct kms_key_info foreign;
    struct kms_buf out = KMS_BUF_OVER(opened);
    enum kms_alg alg = sealed.sealed.alg;
    enum kms_status status = KMS_OK;

    refused(waist, s->name, info->ref, KMS_SPAN_NONE);
    refused(waist, s->name, info->ref, kms_span_str("other"));
    if (fx_make(waist, s->type, s->bits, &foreign)) {
        UNIT_CHECK(s->name, strcmp(foreign.id, info->id) != 0);
        refused(waist, s->name, foreign.ref, aad);
        fx_destroy(waist, foreign.ref);
    }
    for (size_t i = 0; i < UNIT_COUNT(schemes); i++) {
        if (schemes[i].alg != alg) {
            sealed.sealed.alg = schemes[i].alg;
            status = fx_unseal(waist, info->ref, &sealed, aad, &out);
            UNIT_CHECK(s->name, status == KMS_E_BAD_DATA || status == KMS_E_UNSUPPORTED);
        }
    }
    sealed.sealed.alg = alg;
}

static void altered_or_foreign_is_bad_data(void)
{
    for (size_t i = 0; i < UNIT_COUNT(schemes); i++) {
        const struct scheme *s = &schemes[i];
        struct kms_span aad = kms_span_str("the aad");
        struct kms_waist *waist = NULL;
        struct kms_key_info info;
        struct kms_health health;
        struct kms_buf out = KMS_BUF_OVER(opened);

        if (!begin(s, &waist, &info)) {
            continue;
        }
        CU_ASSERT_EQUAL(
            fx_seal(waist, info.ref, KMS_ALG_BEST, aad, kms_span_of(text + 64, 32), &sealed),
            KMS_OK);
        refuse_altered(waist, s, &info, aad);
        refuse_foreign(waist, s, &info, aad);
        CU_ASSERT_EQUAL(fx_unseal(waist, info.ref, &sealed, aad, &out), KMS_OK);
        kms_waist_health(waist, &health); /* bad data is no reason to repair anything */
        UNIT_CHECK(s->name, health.ready && health.reconnects == 0);
        end(waist, &info);
    }
}

static int compare_iv(const void *a, const void *b)
{
    return memcmp(a, b, 12);
}

static void ten_thousand_ivs_differ(void)
{
    enum { COUNT = 10000 };
    static uint8_t ivs[COUNT][12];
    struct kms_waist *waist = NULL;
    struct kms_key_info info;
    unsigned same = 0;

    if (!begin(&schemes[0], &waist, &info)) {
        return;
    }
    for (size_t i = 0; i < COUNT; i++) {
        enum kms_status status =
            fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE, kms_span_of(text, 32), &sealed);

        if (status != KMS_OK || sealed.sealed.iv.len != 12) {
            CU_FAIL("encrypt");
            break;
        }
        memcpy(ivs[i], sealed.iv, 12);
    }
    qsort(ivs, COUNT, sizeof(ivs[0]), compare_iv);
    for (size_t i = 1; i < COUNT; i++) {
        same += memcmp(ivs[i - 1], ivs[i], 12) == 0 ? 1u : 0u;
    }
    CU_ASSERT_EQUAL(same, 0);
    end(waist, &info);
}

static void small_buffers_are_served(void)
{
    struct kms_waist *waist = NULL;
    struct kms_key_info info;
    uint8_t exact[64];
    struct kms_buf out = kms_buf_over(exact, 32);
    struct kms_buf small = kms_buf_over(exact, 31);

    if (!begin(fx_seals_itself() ? &schemes[UNIT_COUNT(schemes) - 1] : &schemes[0], &waist,
               &info)) {
        return;
    }
    CU_ASSERT_EQUAL(
        fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE, kms_span_of(text, 32), &sealed),
        KMS_OK);
    memset(exact, 0xa5, sizeof(exact));
    CU_ASSERT_EQUAL(fx_unseal(waist, info.ref, &sealed, KMS_SPAN_NONE, &out), KMS_OK);
    CU_ASSERT(out.len == 32 && memcmp(exact, text, 32) == 0);
    CU_ASSERT_EQUAL(exact[32], 0xa5); /* not past what was given */
    memset(exact, 0xa5, sizeof(exact));
    CU_ASSERT_EQUAL(fx_unseal(waist, info.ref, &sealed, KMS_SPAN_NONE, &small), KMS_E_TOO_LARGE);
    CU_ASSERT(small.len == 0 && exact[0] == 0xa5);
    end(waist, &info);
}

static void limits_and_mistakes(void)
{
    static const uint8_t long_aad[1025];
    static uint8_t big[KMS_PLAINTEXT_MAX + 1];
    const atomic_bool cancelled = true;
    struct kms_waist *waist = fx_open(NULL, NULL, 0);
    struct kms_key_info info;
    struct kms_call call = fx_call();
    struct kms_params params = {.alg = KMS_ALG_BEST};
    struct kms_span in = kms_span_of(text, 32);

    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    CU_ASSERT_EQUAL(
        fx_seal(waist, info.ref, KMS_ALG_BEST, kms_span_of(long_aad, 1024), in, &sealed), KMS_OK);
    CU_ASSERT_EQUAL(
        fx_seal(waist, info.ref, KMS_ALG_BEST, kms_span_of(long_aad, 1025), in, &sealed),
        KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(fx_seal(waist, info.ref, KMS_ALG_BEST, KMS_SPAN_NONE,
                            kms_span_of(big, sizeof(big)), &sealed),
                    KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(fx_seal(waist, info.ref, KMS_ALG_ECDSA, KMS_SPAN_NONE, in, &sealed),
                    KMS_E_UNSUPPORTED);
    CU_ASSERT_EQUAL(fx_seal(waist, "kb1-0000", KMS_ALG_BEST, KMS_SPAN_NONE, in, &sealed),
                    KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(fx_seal(waist, "", KMS_ALG_BEST, KMS_SPAN_NONE, in, &sealed), KMS_E_INVALID);
    call.cancelled = &cancelled;
    CU_ASSERT_EQUAL(kms_waist_encrypt(waist, &call, info.ref, &params, in, &sealed.sealed),
                    KMS_E_CANCELLED);
    call.cancelled = NULL;
    call.deadline_ns = kms_now_ns() - 1;
    CU_ASSERT_EQUAL(kms_waist_encrypt(waist, &call, info.ref, &params, in, &sealed.sealed),
                    KMS_E_TIMEOUT);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

/* ---- threads ------------------------------------------------------------------------------ */

enum { THREADS = 16, ROUNDS = 100, SESSIONS = 4 };

struct worker {
    pthread_t thread;
    struct kms_waist *waist;
    const char *ref;
    unsigned number;
    unsigned wrong;
    unsigned over;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct fx_sealed *mine = malloc(sizeof(*mine));
    uint8_t plain[48], back[128];

    for (unsigned i = 0; mine != NULL && i < ROUNDS; i++) {
        struct kms_buf out = KMS_BUF_OVER(back);
        struct kms_span aad = kms_span_of(&i, sizeof(i));
        struct kms_health health;

        memset(plain, (int)(w->number * 16 + i % 16), sizeof(plain));
        if (fx_seal(w->waist, w->ref, KMS_ALG_BEST, aad, kms_span_of(plain, sizeof(plain)), mine) !=
                KMS_OK ||
            fx_unseal(w->waist, w->ref, mine, aad, &out) != KMS_OK || out.len != sizeof(plain) ||
            memcmp(back, plain, sizeof(plain)) != 0) {
            w->wrong++;
        }
        kms_waist_health(w->waist, &health);
        w->over += health.sessions_open > SESSIONS || health.sessions_busy > SESSIONS ? 1u : 0u;
    }
    free(mine);
    return NULL;
}

static void threads_share_a_bounded_pool(void)
{
    struct kms_waist *waist = fx_open(NULL, NULL, SESSIONS);
    struct worker workers[THREADS];
    struct kms_key_info info;
    struct kms_health health;

    if (!fx_make(waist, KMS_KEY_AES, 256, &info)) {
        fx_close(waist);
        return;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.waist = waist, .ref = info.ref, .number = i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        CU_ASSERT_EQUAL(workers[i].wrong, 0);
        CU_ASSERT_EQUAL(workers[i].over, 0);
    }
    kms_waist_health(waist, &health);
    CU_ASSERT(health.sessions_open >= 1 && health.sessions_open <= SESSIONS);
    CU_ASSERT_EQUAL(health.sessions_busy, 0);
    CU_ASSERT_EQUAL(health.sessions_max, SESSIONS);
    fx_destroy(waist, info.ref);
    fx_close(waist);
}

const struct unit_test fx_seal_tests[] = {
    {"all sizes come back", all_sizes_come_back},
    {"altered or foreign is bad data", altered_or_foreign_is_bad_data},
    {"ten thousand IVs differ", ten_thousand_ivs_differ},
    {"small buffers are served", small_buffers_are_served},
    {"limits and mistakes", limits_and_mistakes},
    {"threads share a bounded pool", threads_share_a_bounded_pool},
};
const size_t fx_seal_test_count = UNIT_COUNT(fx_seal_tests);
