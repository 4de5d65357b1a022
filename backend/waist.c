/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/waist.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/backend_conf.h"
#include "backend/registry.h"
#include "common/clock.h"
#include "common/log.h"

#define LEAST_TRY_NS   (100 * KMS_NS_PER_MS)
#define PAUSE_FIRST_NS (10 * KMS_NS_PER_MS)
#define PAUSE_MAX_NS   (200 * KMS_NS_PER_MS)
#define NAP_NS         (20 * KMS_NS_PER_MS) /* how often a pause looks whether the caller gave up */

struct kms_waist {
    const struct kms_backend_conf *conf;
    const struct kms_backend_ops *ops;
    struct kms_backend *backend;
    kms_observe observe;
    void *observe_ctx;
    atomic_uint purse; /* hundredths of a retry; only where ops->retry_budget bounds them */
};

#define RETRY_PRICE 100u
#define PURSE_MAX   (KMS_RETRY_RESERVE * RETRY_PRICE)

/* An op's arguments; each op uses its own. */
struct args {
    const char *ref;
    const struct kms_key_filter *filter;
    kms_key_visit visit;
    void *visit_ctx;
    const struct kms_key_template *tmpl;
    struct kms_key_info *info;
    const struct kms_params *params;
    struct kms_span in;
    struct kms_span signature;
    const char *label;
    struct kms_token_info *token;
    struct kms_sealed *sealed;
    struct kms_buf *out;
    size_t len;
};

#define CALLER(name, ...)                                                                          \
    static enum kms_status call_##name(const struct kms_waist *w, struct kms_call *call,           \
                                       const struct args *a)                                       \
    {                                                                                              \
        return w->ops->name(w->backend, call, __VA_ARGS__);                                        \
    }

CALLER(list_keys, a->filter, a->visit, a->visit_ctx)
CALLER(generate, a->tmpl, a->info)
CALLER(destroy, a->ref)
CALLER(rotate, a->ref, a->info)
CALLER(public_key, a->ref, a->out)
CALLER(encrypt, a->ref, a->params, a->in, a->sealed)
CALLER(decrypt, a->ref, a->params, a->in, a->out)
CALLER(wrap, a->ref, a->params, a->in, a->sealed)
CALLER(unwrap, a->ref, a->params, a->in, a->out)
CALLER(data_key, a->ref, a->params, a->len, a->out, a->sealed)
CALLER(rewrap, a->ref, a->params, a->in, a->sealed)
CALLER(verify, a->ref, a->params, a->in, a->signature)
CALLER(sign, a->ref, a->params, a->in, a->out)
CALLER(mac, a->ref, a->params, a->in, a->out)
CALLER(random, a->out)
CALLER(set_label, a->ref, a->label)
CALLER(describe, a->token)
CALLER(check_pin, a->in)

static const struct row {
    const char *name;
    enum kms_status (*call)(const struct kms_waist *w, struct kms_call *call,
                            const struct args *args);
    bool retry;
} rows[KMS_OP_COUNT] = {
    [KMS_OP_LIST_KEYS] = {"list_keys", call_list_keys, true},
    [KMS_OP_GENERATE] = {"generate", call_generate, false},
    [KMS_OP_DESTROY] = {"destroy", call_destroy, true},
    [KMS_OP_ROTATE] = {"rotate", call_rotate, false}, /* it generates */
    [KMS_OP_PUBLIC_KEY] = {"public_key", call_public_key, true},
    [KMS_OP_ENCRYPT] = {"encrypt", call_encrypt, true},
    [KMS_OP_DECRYPT] = {"decrypt", call_decrypt, true},
    [KMS_OP_WRAP] = {"wrap", call_wrap, true},
    [KMS_OP_UNWRAP] = {"unwrap", call_unwrap, true},
    [KMS_OP_SIGN] = {"sign", call_sign, true},
    [KMS_OP_VERIFY] = {"verify", call_verify, true},
    [KMS_OP_MAC] = {"mac", call_mac, true},
    [KMS_OP_RANDOM] = {"random", call_random, true},
    [KMS_OP_SET_LABEL] = {"set_label", call_set_label, true},
    [KMS_OP_DESCRIBE] = {"describe", call_describe, true},
    [KMS_OP_CHECK_PIN] = {"check_pin", call_check_pin, true},
    [KMS_OP_DATA_KEY] = {"data_key", call_data_key, true}, /* what nobody got is nobody's */
    [KMS_OP_REWRAP] = {"rewrap", call_rewrap, true},
};

const char *kms_op_name(enum kms_op op)
{
    return (unsigned)op < KMS_OP_COUNT ? rows[op].name : "unknown";
}

/* ---- the handle --------------------------------------------------------------------------- */

enum kms_status kms_waist_open(const struct kms_backend_conf *conf, kms_observe observe,
                               void *observe_ctx, struct kms_waist **ret_waist,
                               struct kms_error *err)
{
    const struct kms_backend_ops *ops = kms_backend_find(conf->type);
    struct kms_waist *waist = NULL;
    enum kms_status status = KMS_OK;

    if (ops == NULL) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: unknown type \"%s\"", conf->name,
                             conf->type == NULL ? "" : conf->type);
    }
    waist = calloc(1, sizeof(*waist));
    if (waist == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
    }
    *waist = (struct kms_waist){
        .conf = conf, .ops = ops, .observe = observe, .observe_ctx = observe_ctx};
    atomic_init(&waist->purse, PURSE_MAX);
    status = ops->open(conf, &waist->backend, err);
    if (status != KMS_OK) {
        free(waist);
        return status;
    }
    *ret_waist = waist;
    return KMS_OK;
}

void kms_waist_close(struct kms_waist *waist)
{
    if (waist != NULL) {
        waist->ops->close(waist->backend);
        free(waist);
    }
}

const char *kms_waist_name(const struct kms_waist *waist)
{
    return waist->conf->name;
}

bool kms_waist_can(const struct kms_waist *waist, enum kms_op op)
{
    const struct kms_backend_ops *ops = waist->ops;
    const bool can[KMS_OP_COUNT] = {
        [KMS_OP_LIST_KEYS] = ops->list_keys != NULL,   [KMS_OP_GENERATE] = ops->generate != NULL,
        [KMS_OP_DESTROY] = ops->destroy != NULL,       [KMS_OP_ROTATE] = ops->rotate != NULL,
        [KMS_OP_PUBLIC_KEY] = ops->public_key != NULL, [KMS_OP_ENCRYPT] = ops->encrypt != NULL,
        [KMS_OP_DECRYPT] = ops->decrypt != NULL,       [KMS_OP_WRAP] = ops->wrap != NULL,
        [KMS_OP_UNWRAP] = ops->unwrap != NULL,         [KMS_OP_SIGN] = ops->sign != NULL,
        [KMS_OP_VERIFY] = ops->verify != NULL,         [KMS_OP_MAC] = ops->mac != NULL,
        [KMS_OP_RANDOM] = ops->random != NULL,         [KMS_OP_SET_LABEL] = ops->set_label != NULL,
        [KMS_OP_DESCRIBE] = ops->describe != NULL,     [KMS_OP_CHECK_PIN] = ops->check_pin != NULL,
        [KMS_OP_DATA_KEY] = ops->data_key != NULL,     [KMS_OP_REWRAP] = ops->rewrap != NULL,
    };

    return (unsigned)op < KMS_OP_COUNT && can[op];
}

void kms_waist_health(struct kms_waist *waist, struct kms_health *ret_health)
{
    *ret_health = (struct kms_health){.ready = false};
    waist->ops->health(waist->backend, ret_health);
}

/* ---- one call ----------------------------------------------------------------------------- */

static bool cancelled(const struct kms_call *call)
{
    return call->cancelled != NULL && atomic_load(call->cancelled);
}

/* Full jitter: anywhere up to a ceiling that doubles, the first time, too: whom one fault has hit
 * at once must not come back at once. */
static uint64_t pause_ns(unsigned attempt)
{
    uint64_t ceiling = PAUSE_FIRST_NS << (attempt < 6 ? attempt : 6);

    return kms_jitter(0, ceiling > PAUSE_MAX_NS ? PAUSE_MAX_NS : ceiling);
}

/* False when the caller gave up. */
static bool pause_for(const struct kms_call *call, uint64_t ns)
{
    while (ns > 0 && !cancelled(call)) {
        uint64_t nap = ns < NAP_NS ? ns : NAP_NS;
        const struct timespec until = {.tv_sec = 0, .tv_nsec = (long)nap};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL);
        ns -= nap;
    }
    return !cancelled(call);
}

/* What the service asked for, and a little more, lest all come back at once. */
static uint64_t pause_after(const struct kms_error *error, unsigned tries)
{
    uint64_t pause = pause_ns(tries);

    return error->retry_after_ns == 0                          ? pause
           : error->retry_after_ns > KMS_DEADLINE_NONE - pause ? KMS_DEADLINE_NONE
                                                               : error->retry_after_ns + pause;
}

static void earn(struct kms_waist *waist, unsigned amount)
{
    unsigned have = atomic_load(&waist->purse);
    unsigned next = 0;

    do {
        next = have + amount < PURSE_MAX ? have + amount : PURSE_MAX;
    } while (next != have && !atomic_compare_exchange_weak(&waist->purse, &have, next));
}

/* Whether the calls so far pay for one more retry. */
static bool spend(struct kms_waist *waist)
{
    unsigned have = atomic_load(&waist->purse);

    if (waist->ops->retry_budget == 0) {
        return true;
    }
    while (have >= RETRY_PRICE) {
        if (atomic_compare_exchange_weak(&waist->purse, &have, have - RETRY_PRICE)) {
            return true;
        }
    }
    return false;
}

/* Whether there is another attempt, when its time has come. Only one that is made costs anything:
 * not where the pause would outlast the deadline, nor where the caller gives up in it. */
static bool again(struct kms_waist *waist, const struct kms_call *call, uint64_t pause)
{
    if (kms_deadline_left(call->deadline_ns) <= pause || !spend(waist)) {
        return false;
    }
    if (!pause_for(call, pause)) {
        earn(waist, RETRY_PRICE);
        return false;
    }
    return true;
}

static const char *unless_empty(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

/* What the service calls the request stands in its own audit log, too (ActionTrail, Vault's). */
static void log_attempt(const struct kms_waist *waist, const struct kms_call *call, enum kms_op op,
                        enum kms_status status, uint64_t took_ns)
{
    char took[24] = "";
    const struct kms_log_field fields[] = {
        {"backend", waist->conf->name},
        {"class", kms_status_name(status)},
        {"code", unless_empty(call->error.code)},
        {"request_id", unless_empty(call->error.request_id)},
        {"trace_id", call->trace_id},
        {"us", took},
    };

    if (kms_log_enabled(KMS_LOG_DEBUG)) {
        (void)snprintf(took, sizeof(took), "%" PRIu64, took_ns / KMS_NS_PER_US);
        kms_log_fields(KMS_LOG_DEBUG, fields, sizeof(fields) / sizeof(fields[0]), "call: %s%s%s",
                       kms_op_name(op), status == KMS_OK ? "" : ": ",
                       status == KMS_OK ? "" : call->error.text);
    }
}

static enum kms_status attempt(const struct kms_waist *waist, struct kms_call *call, enum kms_op op,
                               const struct args *args)
{
    uint64_t start = kms_now_ns();
    enum kms_status status = rows[op].call(waist, call, args);
    uint64_t took = kms_now_ns() - start;

    if (waist->observe != NULL) {
        waist->observe(waist->observe_ctx, waist->conf->name, op, status, took);
    }
    log_attempt(waist, call, op, status, took);
    return status;
}

static enum kms_status check_start(const struct kms_waist *waist, struct kms_call *call,
                                   enum kms_op op)
{
    kms_error_clear(&call->error);
    if (!kms_waist_can(waist, op)) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "backend %s cannot %s",
                             waist->conf->name, kms_op_name(op));
    }
    if (cancelled(call)) {
        return kms_error_set(&call->error, KMS_E_CANCELLED, "the caller gave up");
    }
    if (kms_deadline_passed(call->deadline_ns)) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT, "the deadline passed before %s",
                             kms_op_name(op));
    }
    return KMS_OK;
}

/* A retry that had next to no time, and ran out of it, tells less than what it was made for. */
static bool tells_nothing(enum kms_status status, uint64_t had_ns)
{
    return (status == KMS_E_TIMEOUT || status == KMS_E_BUSY) && had_ns < LEAST_TRY_NS;
}

static enum kms_status run(struct kms_waist *waist, struct kms_call *call, enum kms_op op,
                           const struct args *args)
{
    enum kms_status status = check_start(waist, call, op);
    struct kms_error former = KMS_ERROR_INIT;

    if (status != KMS_OK) {
        return status;
    }
    earn(waist, waist->ops->retry_budget);
    for (unsigned tries = 0;; tries++) {
        uint64_t had_ns = kms_deadline_left(call->deadline_ns);

        status = attempt(waist, call, op, args);
        if (status == KMS_OK) {
            return status;
        }
        if (former.status != KMS_OK && tells_nothing(status, had_ns)) {
            call->error = former;
            return former.status;
        }
        /* a backend that said nothing: the status is all there is */
        (void)kms_error_set(&call->error, status, "backend %s: %s: %s", waist->conf->name,
                            kms_op_name(op), kms_status_name(status));
        if (!rows[op].retry || !kms_status_is_transient(status) ||
            !again(waist, call, pause_after(&call->error, tries))) {
            return status;
        }
        former = call->error;
        kms_error_clear(&call->error);
    }
}

static enum kms_status check_text(struct kms_call *call, const char *ref)
{
    kms_error_clear(&call->error);
    if (ref == NULL || ref[0] == '\0') {
        return kms_error_set(&call->error, KMS_E_INVALID, "no key is named");
    }
    return KMS_OK;
}

static enum kms_status check_in(struct kms_call *call, struct kms_span in, size_t max)
{
    if (in.len > max) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE, "at most %zu bytes, not %zu", max,
                             in.len);
    }
    return KMS_OK;
}

/* For the ops on one key with bytes in. */
static enum kms_status run_on_key(struct kms_waist *waist, struct kms_call *call, enum kms_op op,
                                  size_t max, const struct args *args)
{
    enum kms_status status = check_text(call, args->ref);

    if (status == KMS_OK) {
        status = check_in(call, args->in, max);
    }
    return status == KMS_OK ? run(waist, call, op, args) : status;
}

/* ---- the ops ------------------------------------------------------------------------------ */

enum kms_status kms_waist_list_keys(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_key_filter *filter, kms_key_visit visit,
                                    void *ctx)
{
    const struct args args = {.filter = filter, .visit = visit, .visit_ctx = ctx};

    return run(waist, call, KMS_OP_LIST_KEYS, &args);
}

enum kms_status kms_waist_generate(struct kms_waist *waist, struct kms_call *call,
                                   const struct kms_key_template *tmpl,
                                   struct kms_key_info *ret_info)
{
    const struct args args = {.tmpl = tmpl, .info = ret_info};

    return run(waist, call, KMS_OP_GENERATE, &args);
}

enum kms_status kms_waist_destroy(struct kms_waist *waist, struct kms_call *call, const char *ref)
{
    const struct args args = {.ref = ref};

    return run_on_key(waist, call, KMS_OP_DESTROY, 0, &args);
}

enum kms_status kms_waist_rotate(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 struct kms_key_info *ret_info)
{
    const struct args args = {.ref = ref, .info = ret_info};

    return run_on_key(waist, call, KMS_OP_ROTATE, 0, &args);
}

enum kms_status kms_waist_public_key(struct kms_waist *waist, struct kms_call *call,
                                     const char *ref, struct kms_buf *ret_spki)
{
    const struct args args = {.ref = ref, .out = ret_spki};

    return run_on_key(waist, call, KMS_OP_PUBLIC_KEY, 0, &args);
}

enum kms_status kms_waist_encrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span plaintext,
                                  struct kms_sealed *ret_sealed)
{
    const struct args args = {.ref = ref, .params = params, .in = plaintext, .sealed = ret_sealed};

    return run_on_key(waist, call, KMS_OP_ENCRYPT, KMS_PLAINTEXT_MAX, &args);
}

enum kms_status kms_waist_decrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span ciphertext,
                                  struct kms_buf *ret_plaintext)
{
    const struct args args = {.ref = ref, .params = params, .in = ciphertext, .out = ret_plaintext};

    return run_on_key(waist, call, KMS_OP_DECRYPT, KMS_CIPHERTEXT_MAX, &args);
}

enum kms_status kms_waist_wrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span key,
                               struct kms_sealed *ret_sealed)
{
    const struct args args = {.ref = ref, .params = params, .in = key, .sealed = ret_sealed};

    return run_on_key(waist, call, KMS_OP_WRAP, KMS_PLAINTEXT_MAX, &args);
}

enum kms_status kms_waist_unwrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span wrapped,
                                 struct kms_buf *ret_key)
{
    const struct args args = {.ref = ref, .params = params, .in = wrapped, .out = ret_key};

    return run_on_key(waist, call, KMS_OP_UNWRAP, KMS_CIPHERTEXT_MAX, &args);
}

enum kms_status kms_waist_data_key(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                   const struct kms_params *params, size_t len,
                                   struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    const struct args args = {
        .ref = ref, .params = params, .len = len, .out = ret_key, .sealed = ret_sealed};

    kms_error_clear(&call->error);
    if (len == 0 || len > KMS_DATA_KEY_MAX || kms_buf_room(ret_key) < len) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "a data key has 1 to %d bytes, and room for them", KMS_DATA_KEY_MAX);
    }
    return run_on_key(waist, call, KMS_OP_DATA_KEY, 0, &args);
}

enum kms_status kms_waist_rewrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span ciphertext,
                                 struct kms_sealed *ret_sealed)
{
    const struct args args = {.ref = ref, .params = params, .in = ciphertext, .sealed = ret_sealed};

    return run_on_key(waist, call, KMS_OP_REWRAP, KMS_CIPHERTEXT_MAX, &args);
}

enum kms_status kms_waist_sign(struct kms_waist *waist, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_buf *ret_signature)
{
    const struct args args = {.ref = ref, .params = params, .in = input, .out = ret_signature};

    return run_on_key(waist, call, KMS_OP_SIGN, KMS_PLAINTEXT_MAX, &args);
}

enum kms_status kms_waist_verify(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span input,
                                 struct kms_span signature)
{
    const struct args args = {.ref = ref, .params = params, .in = input, .signature = signature};
    enum kms_status status = KMS_OK;

    kms_error_clear(&call->error);
    status = check_in(call, signature, KMS_SIGNATURE_MAX);
    return status == KMS_OK ? run_on_key(waist, call, KMS_OP_VERIFY, KMS_PLAINTEXT_MAX, &args)
                            : status;
}

enum kms_status kms_waist_mac(struct kms_waist *waist, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span input,
                              struct kms_buf *ret_mac)
{
    const struct args args = {.ref = ref, .params = params, .in = input, .out = ret_mac};

    return run_on_key(waist, call, KMS_OP_MAC, KMS_PLAINTEXT_MAX, &args);
}

enum kms_status kms_waist_random(struct kms_waist *waist, struct kms_call *call,
                                 struct kms_buf *ret_bytes)
{
    const struct args args = {.out = ret_bytes};

    return run(waist, call, KMS_OP_RANDOM, &args);
}

enum kms_status kms_waist_set_label(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                    const char *label)
{
    const struct args args = {.ref = ref, .label = label};

    return run_on_key(waist, call, KMS_OP_SET_LABEL, 0, &args);
}

enum kms_status kms_waist_describe(struct kms_waist *waist, struct kms_call *call,
                                   struct kms_token_info *ret_info)
{
    const struct args args = {.token = ret_info};

    return run(waist, call, KMS_OP_DESCRIBE, &args);
}

enum kms_status kms_waist_check_pin(struct kms_waist *waist, struct kms_call *call,
                                    struct kms_span pin)
{
    const struct args args = {.in = pin};

    return run(waist, call, KMS_OP_CHECK_PIN, &args);
}
