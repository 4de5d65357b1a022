/* SPDX-License-Identifier: Apache-2.0 */
/* The waist's retries, over a backend that answers as it is told; the registry is ours too. */
#include "backend/waist.h"

#include <string.h>

#include "backend/backend_conf.h"
#include "backend/registry.h"
#include "common/clock.h"
#include "tests/unit/unit.h"

/* What the fake is to answer, call by call; the last one stays. */
static const enum kms_status *script;
static unsigned script_len, asked;
static bool speaks, found_error_clear;
static atomic_bool *cancels;
static uint64_t says_after_ns;
static uint64_t asked_ns[8]; /* when, the first ones */

static enum kms_status answer(struct kms_call *call)
{
    enum kms_status status = script[asked < script_len ? asked : script_len - 1];

    if (asked < UNIT_COUNT(asked_ns)) {
        asked_ns[asked] = kms_now_ns();
    }
    asked++;
    found_error_clear = found_error_clear && call->error.status == KMS_OK;
    if (cancels != NULL) {
        atomic_store(cancels, true);
    }
    if (status != KMS_OK && speaks) {
        (void)kms_error_set(&call->error, status, "answer %u", asked);
        call->error.retry_after_ns = says_after_ns;
        return status;
    }
    return status;
}

static enum kms_status fake_open(const struct kms_backend_conf *conf,
                                 struct kms_backend **ret_backend, struct kms_error *err)
{
    static char nothing;

    if (strcmp(conf->name, "bad") == 0) {
        return kms_error_set(err, KMS_E_INVALID, "bad");
    }
    *ret_backend = (struct kms_backend *)(void *)&nothing;
    return KMS_OK;
}

static void fake_close(struct kms_backend *backend)
{
    (void)backend;
}

static void fake_health(struct kms_backend *backend, struct kms_health *ret_health)
{
    (void)backend;
    ret_health->sessions_max = 7;
}

static enum kms_status fake_generate(struct kms_backend *backend, struct kms_call *call,
                                     const struct kms_key_template *tmpl,
                                     struct kms_key_info *ret_info)
{
    (void)backend;
    (void)tmpl;
    (void)ret_info;
    return answer(call);
}

static enum kms_status fake_encrypt(struct kms_backend *backend, struct kms_call *call,
                                    const char *ref, const struct kms_params *params,
                                    struct kms_span plaintext, struct kms_sealed *ret_sealed)
{
    (void)backend;
    (void)ref;
    (void)params;
    (void)plaintext;
    (void)ret_sealed;
    return answer(call);
}

static enum kms_status fake_rotate(struct kms_backend *backend, struct kms_call *call,
                                   const char *ref, struct kms_key_info *ret_info)
{
    (void)backend;
    (void)ref;
    (void)ret_info;
    return answer(call);
}

static enum kms_status fake_data_key(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref, const struct kms_params *params, size_t len,
                                     struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    (void)backend;
    (void)ref;
    (void)params;
    (void)ret_sealed;
    CU_ASSERT(kms_buf_room(ret_key) >= len);
    return answer(call);
}

static struct kms_backend_ops fake_ops = {.type = "fake",
                                          .open = fake_open,
                                          .close = fake_close,
                                          .health = fake_health,
                                          .generate = fake_generate,
                                          .rotate = fake_rotate,
                                          .encrypt = fake_encrypt,
                                          .data_key = fake_data_key,
                                          .rewrap = fake_encrypt};

const struct kms_backend_ops *kms_backend_find(const char *type)
{
    return type != NULL && strcmp(type, "fake") == 0 ? &fake_ops : NULL;
}

/* ---- */

static unsigned observed, observed_good;

static void observe(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
                    uint64_t duration_ns)
{
    CU_ASSERT_PTR_EQUAL(ctx, &observed);
    CU_ASSERT_STRING_EQUAL(backend, "b");
    CU_ASSERT(op == KMS_OP_ENCRYPT || op == KMS_OP_GENERATE || op == KMS_OP_ROTATE ||
              op == KMS_OP_DATA_KEY || op == KMS_OP_REWRAP);
    CU_ASSERT(duration_ns < KMS_NS_PER_S);
    observed++;
    observed_good += status == KMS_OK ? 1u : 0u;
}

static struct kms_waist *open_fake(void)
{
    static char name[] = "b", type[] = "fake";
    static struct kms_backend_conf conf = {.name = name, .type = type};
    struct kms_waist *waist = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL_FATAL(kms_waist_open(&conf, observe, &observed, &waist, &err), KMS_OK);
    asked = observed = observed_good = 0;
    speaks = found_error_clear = true;
    cancels = NULL;
    says_after_ns = 0;
    return waist;
}

static enum kms_status encrypt(struct kms_waist *waist, struct kms_call *call, unsigned ms)
{
    static const struct kms_params params = {.alg = KMS_ALG_BEST};
    struct kms_sealed sealed = {.alg = KMS_ALG_NONE};

    call->deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS);
    return kms_waist_encrypt(waist, call, "ref", &params, KMS_SPAN_NONE, &sealed);
}

static void transient_ones_are_tried_again(void)
{
    static const enum kms_status lines[] = {KMS_E_UNAVAILABLE, KMS_E_BUSY, KMS_E_THROTTLED, KMS_OK};
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = 0};

    script = lines;
    script_len = 4;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_OK);
    CU_ASSERT_EQUAL(asked, 4);
    CU_ASSERT_EQUAL(observed, 4);
    CU_ASSERT_EQUAL(observed_good, 1);
    CU_ASSERT_TRUE(found_error_clear);
    CU_ASSERT_EQUAL(call.error.status, KMS_OK);
    kms_waist_close(waist);
}

static void final_ones_are_not(void)
{
    for (int status = KMS_E_INVALID; status < KMS_STATUS_COUNT; status++) {
        const enum kms_status line = (enum kms_status)status;
        struct kms_waist *waist = NULL;
        struct kms_call call = {.deadline_ns = 0};

        if (kms_status_is_transient(line)) {
            continue;
        }
        waist = open_fake();
        script = &line;
        script_len = 1;
        UNIT_CHECK(kms_status_name(line), encrypt(waist, &call, 1000) == line);
        UNIT_CHECK(kms_status_name(line), asked == 1);
        UNIT_CHECK(kms_status_name(line), strcmp(call.error.text, "answer 1") == 0);
        kms_waist_close(waist);
    }
}

static void deadlines_end_it(void)
{
    static const enum kms_status line = KMS_E_UNAVAILABLE;
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = 0};
    uint64_t start = kms_now_ns();
    uint64_t took = 0;

    script = &line;
    script_len = 1;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 300), KMS_E_UNAVAILABLE);
    took = kms_now_ns() - start;
    CU_ASSERT(took < 400 * KMS_NS_PER_MS);
    CU_ASSERT(asked >= 2 && asked <= 60); /* pauses grow */
    CU_ASSERT_EQUAL(call.error.status, KMS_E_UNAVAILABLE);
    asked = 0;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 0), KMS_E_TIMEOUT);
    CU_ASSERT_EQUAL(asked, 0);
    kms_waist_close(waist);
}

static void a_late_timeout_does_not_hide_the_cause(void)
{
    static const enum kms_status lines[] = {KMS_E_THROTTLED, KMS_E_TIMEOUT};
    static const enum kms_status busy[] = {KMS_E_THROTTLED, KMS_E_BUSY};
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = 0};

    script = lines;
    script_len = 2;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 90), KMS_E_THROTTLED);
    CU_ASSERT_EQUAL(asked, 2);
    CU_ASSERT_STRING_EQUAL(call.error.text, "answer 1");
    asked = 0;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_E_TIMEOUT); /* it had time enough */
    CU_ASSERT_EQUAL(asked, 2);
    CU_ASSERT_STRING_EQUAL(call.error.text, "answer 2");
    asked = 0;
    script = &lines[1];
    script_len = 1;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 90), KMS_E_TIMEOUT); /* there was no cause before it */
    CU_ASSERT_EQUAL(asked, 1);
    CU_ASSERT_STRING_EQUAL(call.error.text, "answer 1");
    asked = 0;
    script = busy; /* nor does it when no connection is free */
    script_len = 2;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 90), KMS_E_THROTTLED);
    CU_ASSERT_STRING_EQUAL(call.error.text, "answer 1");
    kms_waist_close(waist);
}

static void who_gave_up_is_not_served(void)
{
    static const enum kms_status line = KMS_E_UNAVAILABLE;
    atomic_bool cancelled = false;
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.cancelled = &cancelled};
    uint64_t start = kms_now_ns();

    script = &line;
    script_len = 1;
    says_after_ns = 3 * KMS_NS_PER_S;
    cancels = &cancelled; /* during the first attempt */
    CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_E_UNAVAILABLE);
    CU_ASSERT(kms_now_ns() - start < KMS_NS_PER_S); /* nobody waits for the second one */
    CU_ASSERT_EQUAL(asked, 1);
    CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_E_CANCELLED);
    CU_ASSERT_EQUAL(asked, 1);
    kms_waist_close(waist);
}

static void generate_is_never_repeated(void)
{
    static const enum kms_status line = KMS_E_UNAVAILABLE;
    static const struct kms_key_template tmpl = {.type = KMS_KEY_AES};
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_key_info info;

    script = &line;
    script_len = 1;
    CU_ASSERT_EQUAL(kms_waist_generate(waist, &call, &tmpl, &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(asked, 1);
    asked = 0;
    CU_ASSERT_EQUAL(kms_waist_rotate(waist, &call, "ref", &info), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(asked, 1);
    CU_ASSERT_EQUAL(kms_waist_rotate(waist, &call, "", &info), KMS_E_INVALID);
    kms_waist_close(waist);
}

/* A data key that nobody got is no harm, nor is a ciphertext: both are asked for again. */
static void data_keys_and_rewraps_are_asked_for_again(void)
{
    static const enum kms_status line[] = {KMS_E_UNAVAILABLE, KMS_OK};
    static const struct kms_params params = {.alg = KMS_ALG_BEST};
    static const size_t lens[] = {0, KMS_DATA_KEY_MAX + 1, 17};
    static const uint8_t big[KMS_CIPHERTEXT_MAX + 1];
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.alg = KMS_ALG_NONE};
    uint8_t bytes[16];
    struct kms_buf key = KMS_BUF_OVER(bytes);

    script = line;
    script_len = 2;
    CU_ASSERT_EQUAL(kms_waist_data_key(waist, &call, "ref", &params, 16, &key, &sealed), KMS_OK);
    CU_ASSERT_EQUAL(asked, 2);
    asked = 0;
    CU_ASSERT_EQUAL(kms_waist_rewrap(waist, &call, "ref", &params, KMS_SPAN_NONE, &sealed), KMS_OK);
    CU_ASSERT_EQUAL(asked, 2);
    asked = 0;
    for (size_t i = 0; i < UNIT_COUNT(lens); i++) {
        CU_ASSERT_EQUAL(kms_waist_data_key(waist, &call, "ref", &params, lens[i], &key, &sealed),
                        KMS_E_INVALID);
    }
    CU_ASSERT_EQUAL(kms_waist_data_key(waist, &call, NULL, &params, 16, &key, &sealed),
                    KMS_E_INVALID);
    CU_ASSERT_EQUAL(
        kms_waist_rewrap(waist, &call, "ref", &params, kms_span_of(big, sizeof(big)), &sealed),
        KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(asked, 0);
    fake_ops.data_key = NULL;
    CU_ASSERT_EQUAL(kms_waist_data_key(waist, &call, "ref", &params, 16, &key, &sealed),
                    KMS_E_UNSUPPORTED);
    fake_ops.data_key = fake_data_key;
    kms_waist_close(waist);
}

static void missing_ops_are_unsupported(void)
{
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_health health;

    CU_ASSERT_EQUAL(kms_waist_destroy(waist, &call, "ref"), KMS_E_UNSUPPORTED);
    CU_ASSERT_STRING_EQUAL(call.error.text, "backend b cannot destroy");
    CU_ASSERT_FALSE(kms_waist_can(waist, KMS_OP_DESTROY));
    CU_ASSERT_TRUE(kms_waist_can(waist, KMS_OP_ENCRYPT));
    CU_ASSERT_FALSE(kms_waist_can(waist, KMS_OP_COUNT));
    kms_waist_health(waist, &health);
    CU_ASSERT_EQUAL(health.sessions_max, 7);
    CU_ASSERT_STRING_EQUAL(kms_waist_name(waist), "b");
    kms_waist_close(waist);
    kms_waist_close(NULL);
}

/* A backend that fails without a word, and arguments over the ceilings. */
static void something_is_always_said(void)
{
    static const enum kms_status line = KMS_E_DENIED;
    static const struct kms_params params = {.alg = KMS_ALG_BEST};
    static const uint8_t big[KMS_PLAINTEXT_MAX + 1];
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_sealed sealed = {.alg = KMS_ALG_NONE};

    script = &line;
    script_len = 1;
    speaks = false;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 1000), KMS_E_DENIED);
    CU_ASSERT_EQUAL(call.error.status, KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "encrypt"));
    asked = 0;
    CU_ASSERT_EQUAL(
        kms_waist_encrypt(waist, &call, "ref", &params, kms_span_of(big, sizeof(big)), &sealed),
        KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_waist_encrypt(waist, &call, NULL, &params, KMS_SPAN_NONE, &sealed),
                    KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_waist_verify(waist, &call, "ref", &params, KMS_SPAN_NONE,
                                     kms_span_of(big, KMS_SIGNATURE_MAX + 1)),
                    KMS_E_TOO_LARGE); /* whatever the call's last error was */
    CU_ASSERT_EQUAL(asked, 0);
    kms_waist_close(waist);
}

static void what_cannot_open_says_why(void)
{
    static char bad[] = "bad", fake[] = "fake", none[] = "none";
    struct kms_backend_conf confs[] = {{.name = bad, .type = fake}, {.name = bad, .type = none}};
    struct kms_waist *waist = NULL;

    for (size_t i = 0; i < UNIT_COUNT(confs); i++) {
        struct kms_error err = KMS_ERROR_INIT;

        CU_ASSERT_EQUAL(kms_waist_open(&confs[i], NULL, NULL, &waist, &err), KMS_E_INVALID);
        CU_ASSERT(waist == NULL && err.text[0] != '\0');
    }
}

static void names_are_all_there_and_differ(void)
{
    for (unsigned i = 0; i < KMS_OP_COUNT; i++) {
        const char *name = kms_op_name((enum kms_op)i);

        if (!UNIT_CHECK("name", name != NULL && strcmp(name, "unknown") != 0)) {
            continue;
        }
        for (unsigned j = 0; j < i; j++) {
            UNIT_CHECK(name, strcmp(name, kms_op_name((enum kms_op)j)) != 0);
        }
    }
    CU_ASSERT_STRING_EQUAL(kms_op_name(KMS_OP_COUNT), "unknown");
    CU_ASSERT_STRING_EQUAL(kms_alg_name(KMS_ALG_AES_GCM), "aes-gcm");
    CU_ASSERT_STRING_EQUAL(kms_alg_name((enum kms_alg)6), "unknown");
    CU_ASSERT_STRING_EQUAL(kms_key_type_name(KMS_KEY_EDDSA), "eddsa");
    CU_ASSERT_STRING_EQUAL(kms_key_type_name(KMS_KEY_TYPE_COUNT), "unknown");
}

/* Full jitter from the first pause on: anywhere below 10 ms, then below 20, 40, 80. */
static void pauses_are_jittered_and_grow(void)
{
    static const enum kms_status lines[] = {KMS_E_UNAVAILABLE, KMS_E_UNAVAILABLE, KMS_E_UNAVAILABLE,
                                            KMS_E_UNAVAILABLE, KMS_OK};
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = 0};
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;

    script = lines;
    script_len = 5;
    for (unsigned i = 0; i < 10; i++) {
        asked = 0;
        CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_OK);
        CU_ASSERT_EQUAL_FATAL(asked, 5);
        least = asked_ns[1] - asked_ns[0] < least ? asked_ns[1] - asked_ns[0] : least;
        most = asked_ns[4] - asked_ns[3] > most ? asked_ns[4] - asked_ns[3] : most;
    }
    script = &lines[3];
    script_len = 2;
    for (unsigned i = 0; i < 50; i++) {
        asked = 0;
        CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_OK);
        least = asked_ns[1] - asked_ns[0] < least ? asked_ns[1] - asked_ns[0] : least;
    }
    CU_ASSERT(least < 4 * KMS_NS_PER_MS);
    CU_ASSERT(most > 11 * KMS_NS_PER_MS);
    kms_waist_close(waist);
}

/* Retry-After: not before, and not at all when the deadline comes first. */
static void a_service_is_left_alone_as_it_asks(void)
{
    static const enum kms_status lines[] = {KMS_E_THROTTLED, KMS_OK};
    struct kms_waist *waist = open_fake();
    struct kms_call call = {.deadline_ns = 0};
    uint64_t start = kms_now_ns();

    script = lines;
    script_len = 2;
    says_after_ns = 250 * KMS_NS_PER_MS;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 5000), KMS_OK);
    CU_ASSERT(kms_now_ns() - start >= 250 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(asked, 2);
    asked = 0;
    says_after_ns = 60 * KMS_NS_PER_S;
    start = kms_now_ns();
    CU_ASSERT_EQUAL(encrypt(waist, &call, 2000), KMS_E_THROTTLED);
    CU_ASSERT(kms_now_ns() - start < KMS_NS_PER_S);
    CU_ASSERT_EQUAL(asked, 1);
    CU_ASSERT_STRING_EQUAL(call.error.text, "answer 1");
    asked = 0;
    says_after_ns = UINT64_MAX;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 2000), KMS_E_THROTTLED);
    CU_ASSERT_EQUAL(asked, 1);
    kms_waist_close(waist);
}

/* Ten retries in reserve, then what the calls pay for. */
static void retries_are_paid_for(void)
{
    static const enum kms_status line = KMS_E_UNAVAILABLE;
    static const enum kms_status good = KMS_OK;
    struct kms_waist *waist = NULL;
    struct kms_call call = {.deadline_ns = 0};
    unsigned more = 0;

    fake_ops.retry_budget = 50; /* every second call pays for one */
    waist = open_fake();
    script_len = 1;
    script = &good;
    for (unsigned i = 0; i < 100; i++) { /* good times fill it no further */
        CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_OK);
    }
    script = &line;
    asked = 0;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(asked, 1 + KMS_RETRY_RESERVE);
    for (unsigned i = 0; i < 20; i++) {
        asked = 0;
        CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_E_UNAVAILABLE);
        more += asked - 1;
    }
    CU_ASSERT_EQUAL(more, 10);
    kms_waist_close(waist);
    fake_ops.retry_budget = 0;
}

/* Which retries the reserve still pays for. */
static unsigned left_in_reserve(struct kms_waist *waist)
{
    struct kms_call call = {.deadline_ns = 0};

    asked = 0;
    says_after_ns = 0;
    CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_E_UNAVAILABLE);
    return asked - 1;
}

/* A retry that is not made: the deadline comes before it, or the caller gives up. */
static void what_is_not_made_costs_nothing(void)
{
    static const enum kms_status line = KMS_E_UNAVAILABLE;
    struct kms_waist *waist = NULL;
    atomic_bool gone;
    struct kms_call call = {.cancelled = &gone};

    fake_ops.retry_budget = 1; /* a call pays for next to nothing */
    waist = open_fake();
    script = &line;
    script_len = 1;
    says_after_ns = 60 * KMS_NS_PER_S;
    atomic_init(&gone, false);
    for (unsigned i = 0; i < 2 * KMS_RETRY_RESERVE; i++) {
        CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_E_UNAVAILABLE);
    }
    CU_ASSERT_EQUAL(asked, 2 * KMS_RETRY_RESERVE);
    CU_ASSERT_EQUAL(left_in_reserve(waist), KMS_RETRY_RESERVE);
    kms_waist_close(waist);

    waist = open_fake();
    cancels = &gone;
    for (unsigned i = 0; i < 2 * KMS_RETRY_RESERVE; i++) {
        atomic_store(&gone, false);
        CU_ASSERT_EQUAL(encrypt(waist, &call, 3000), KMS_E_UNAVAILABLE);
    }
    CU_ASSERT_EQUAL(asked, 2 * KMS_RETRY_RESERVE);
    cancels = NULL;
    CU_ASSERT_EQUAL(left_in_reserve(waist), KMS_RETRY_RESERVE);
    kms_waist_close(waist);
    fake_ops.retry_budget = 0;
}

/* As a service says it where it does, else by the tag's number, else by the id: and both ways. */
static void the_newer_key_is_told(void)
{
    static const struct {
        const char *name;
        struct kms_key_info older, newer;
    } rows[] = {
        {"order before the tag",
         {.order = 1, .tag = {9}, .tag_len = 1, .id = "b"},
         {.order = 2, .tag = {1}, .tag_len = 1, .id = "a"}},
        {"order of one tag", {.order = 1, .id = "b"}, {.order = UINT64_MAX, .id = "a"}},
        {"no order: the tag",
         {.tag = {9}, .tag_len = 1, .id = "b"},
         {.tag = {0, 1, 0}, .tag_len = 3, .id = "a"}},
        {"one order: the tag",
         {.order = 7, .tag = {1}, .tag_len = 1, .id = "b"},
         {.order = 7, .tag = {0, 2}, .tag_len = 2, .id = "a"}},
        {"one order and tag: the id", {.order = 7, .id = "a"}, {.order = 7, .id = "b"}},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].name, kms_key_age_compare(&rows[i].older, &rows[i].newer) < 0);
        UNIT_CHECK(rows[i].name, kms_key_age_compare(&rows[i].newer, &rows[i].older) > 0);
        UNIT_CHECK(rows[i].name, kms_key_age_compare(&rows[i].newer, &rows[i].newer) == 0);
    }
}

static const struct unit_test tests[] = {
    {"the newer key is told", the_newer_key_is_told},
    {"what is not made costs nothing", what_is_not_made_costs_nothing},
    {"a service is left alone as it asks", a_service_is_left_alone_as_it_asks},
    {"pauses are jittered and grow", pauses_are_jittered_and_grow},
    {"retries are paid for", retries_are_paid_for},
    {"transient ones are tried again", transient_ones_are_tried_again},
    {"final ones are not", final_ones_are_not},
    {"deadlines end it", deadlines_end_it},
    {"a late timeout does not hide the cause", a_late_timeout_does_not_hide_the_cause},
    {"who gave up is not served", who_gave_up_is_not_served},
    {"generate is never repeated", generate_is_never_repeated},
    {"data keys and rewraps are asked for again", data_keys_and_rewraps_are_asked_for_again},
    {"missing ops are unsupported", missing_ops_are_unsupported},
    {"something is always said", something_is_always_said},
    {"what cannot open says why", what_cannot_open_says_why},
    {"names are all there and differ", names_are_all_there_and_differ},
};

int main(void)
{
    return unit_main("test_waist", tests, UNIT_COUNT(tests));
}
