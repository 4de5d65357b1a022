/* SPDX-License-Identifier: Apache-2.0 */
/* The waist's ops on a token of an agent: each is one request. */
#include "backend/agent_parts.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

struct kms_backend {
    struct kms_agent *agent; /* a reference */
    char name[KMS_AGENT_NAME_MAX];
};

static void begin(const struct kms_backend *backend, struct kms_call *call,
                  struct kms_agent_ask *ask, Kms__Agent__Request__OpCase op, bool repeat)
{
    kms_error_clear(&call->error);
    *ask = (struct kms_agent_ask){.request = KMS__AGENT__REQUEST__INIT, .repeat = repeat};
    ask->request.token = kms_agent_put_text(backend->name);
    ask->request.op_case = op;
}

/* Appends what the agent sent to the caller's storage, if it fits. */
static enum kms_status put_output(struct kms_call *call, ProtobufCBinaryData bytes,
                                  struct kms_buf *out)
{
    if (kms_buf_put(out, kms_agent_get_span(bytes)) != KMS_OK) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "the agent sent %zu bytes where %zu may come", bytes.len,
                             kms_buf_room(out));
    }
    return KMS_OK;
}

/* ---- keyed operations ----------------------------------------------------------------------- */

struct key_op {
    Kms__Agent__Request__OpCase op;
    const char *ref;
    const struct kms_params *params;
    struct kms_span input;
    struct kms_span signature;
    size_t len;                /* of a data key, which goes to @out beside @sealed */
    struct kms_buf *out;       /* or */
    struct kms_sealed *sealed; /* or neither */
};

static enum kms_status take_sealed(struct kms_call *call, const Kms__Agent__Reply *reply,
                                   struct kms_sealed *ret_sealed)
{
    char key_id[KMS_KEY_ID_MAX];
    enum kms_status status =
        kms_agent_get_text("Reply.key_id", reply->key_id, key_id, sizeof(key_id), &call->error);

    if (status != KMS_OK) {
        return status;
    }
    if (reply->alg == KMS_ALG_NONE || reply->alg == KMS_ALG_BEST || key_id[0] == '\0') {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "the agent does not say how or by which key it encrypted");
    }
    if (reply->iv.len > kms_buf_room(&ret_sealed->iv) ||
        reply->output.len > kms_buf_room(&ret_sealed->ciphertext)) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "the agent sent more than a ciphertext and an IV");
    }
    status = put_output(call, reply->iv, &ret_sealed->iv);
    if (status == KMS_OK) {
        status = put_output(call, reply->output, &ret_sealed->ciphertext);
    }
    ret_sealed->alg = (enum kms_alg)reply->alg;
    memcpy(ret_sealed->key_id, key_id, sizeof(key_id));
    return status;
}

/* Both halves, or nothing. */
static enum kms_status take_data_key(struct kms_call *call, const Kms__Agent__Reply *reply,
                                     const struct key_op *op)
{
    struct kms_sealed sealed = *op->sealed;
    enum kms_status status = KMS_OK;

    if (reply->key.len != op->len) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "the agent sent a data key of %zu bytes for %zu", reply->key.len,
                             op->len);
    }
    status = take_sealed(call, reply, &sealed);
    if (status == KMS_OK) {
        status = put_output(call, reply->key, op->out);
    }
    if (status == KMS_OK) {
        *op->sealed = sealed;
    }
    return status;
}

static enum kms_status take_key_op(struct kms_call *call, const Kms__Agent__Reply *reply,
                                   const struct key_op *op)
{
    if (op->len > 0) {
        return take_data_key(call, reply, op);
    }
    if (op->sealed != NULL) {
        return take_sealed(call, reply, op->sealed);
    }
    return op->out != NULL ? put_output(call, reply->output, op->out) : KMS_OK;
}

static enum kms_status run_key_op(struct kms_backend *backend, struct kms_call *call,
                                  const struct key_op *op)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__KeyOp message = KMS__AGENT__KEY_OP__INIT;
    Kms__Agent__Params params;
    struct kms_agent_ask ask;
    enum kms_status status = KMS_OK;

    kms_agent_put_params(op->params, &params);
    message.ref = kms_agent_put_text(op->ref);
    message.params = &params;
    message.input = kms_agent_put_span(op->input);
    message.signature = kms_agent_put_span(op->signature);
    message.len = (uint32_t)op->len;
    begin(backend, call, &ask, op->op, true);
    ask.request.encrypt = &message; /* all of them lie at one place */
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        status = take_key_op(call, ask.reply, op);
        kms_agent_answered(backend->agent, &ask);
    }
    kms_agent_leave(&guard);
    return status;
}

static enum kms_status agent_encrypt(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref, const struct kms_params *params,
                                     struct kms_span plaintext, struct kms_sealed *ret_sealed)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_ENCRYPT,
                              .ref = ref,
                              .params = params,
                              .input = plaintext,
                              .sealed = ret_sealed};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_wrap(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span key, struct kms_sealed *ret_sealed)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_WRAP,
                              .ref = ref,
                              .params = params,
                              .input = key,
                              .sealed = ret_sealed};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_decrypt(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref, const struct kms_params *params,
                                     struct kms_span ciphertext, struct kms_buf *ret_plaintext)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_DECRYPT,
                              .ref = ref,
                              .params = params,
                              .input = ciphertext,
                              .out = ret_plaintext};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_unwrap(struct kms_backend *backend, struct kms_call *call,
                                    const char *ref, const struct kms_params *params,
                                    struct kms_span wrapped, struct kms_buf *ret_key)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_UNWRAP,
                              .ref = ref,
                              .params = params,
                              .input = wrapped,
                              .out = ret_key};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_data_key(struct kms_backend *backend, struct kms_call *call,
                                      const char *ref, const struct kms_params *params, size_t len,
                                      struct kms_buf *ret_key, struct kms_sealed *ret_sealed)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_DATA_KEY,
                              .ref = ref,
                              .params = params,
                              .len = len,
                              .out = ret_key,
                              .sealed = ret_sealed};

    if (len == 0 || len > KMS_DATA_KEY_MAX) {
        kms_error_clear(&call->error);
        return kms_error_set(&call->error, KMS_E_INVALID, "a data key has 1 to %d bytes",
                             KMS_DATA_KEY_MAX);
    }
    return run_key_op(backend, call, &op);
}

static enum kms_status agent_sign(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span input, struct kms_buf *ret_signature)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_SIGN,
                              .ref = ref,
                              .params = params,
                              .input = input,
                              .out = ret_signature};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_verify(struct kms_backend *backend, struct kms_call *call,
                                    const char *ref, const struct kms_params *params,
                                    struct kms_span input, struct kms_span signature)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_VERIFY,
                              .ref = ref,
                              .params = params,
                              .input = input,
                              .signature = signature};

    return run_key_op(backend, call, &op);
}

static enum kms_status agent_mac(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span input, struct kms_buf *ret_mac)
{
    const struct key_op op = {.op = KMS__AGENT__REQUEST__OP_MAC,
                              .ref = ref,
                              .params = params,
                              .input = input,
                              .out = ret_mac};

    return run_key_op(backend, call, &op);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static enum kms_status take_made(struct kms_call *call, const Kms__Agent__Reply *reply,
                                 struct kms_key_info *ret_info)
{
    if (reply->n_keys != 1) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL,
                             "the agent does not say which key it made");
    }
    return kms_agent_get_key(reply->keys[0], ret_info, &call->error);
}

static enum kms_status agent_generate(struct kms_backend *backend, struct kms_call *call,
                                      const struct kms_key_template *tmpl,
                                      struct kms_key_info *ret_info)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__Generate message = KMS__AGENT__GENERATE__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    message.type = (uint32_t)tmpl->type;
    message.bits = tmpl->bits;
    message.label = kms_agent_put_text(tmpl->label == NULL ? "" : tmpl->label);
    message.tag = kms_agent_put_span(tmpl->tag);
    message.uses = tmpl->uses;
    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_GENERATE, false);
    ask.request.generate = &message;
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        status = take_made(call, ask.reply, ret_info);
        kms_agent_answered(backend->agent, &ask);
    }
    kms_agent_leave(&guard);
    return status;
}

/* One that is gone when it is asked for the second time went the first time. */
static enum kms_status agent_destroy(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__KeyRef message = KMS__AGENT__KEY_REF__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    message.ref = kms_agent_put_text(ref);
    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_DESTROY, true);
    ask.request.destroy = &message;
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        kms_agent_answered(backend->agent, &ask);
    } else if (status == KMS_E_NOT_FOUND && ask.repeated) {
        kms_error_clear(&call->error);
        status = KMS_OK;
    }
    kms_agent_leave(&guard);
    return status;
}

static enum kms_status agent_public_key(struct kms_backend *backend, struct kms_call *call,
                                        const char *ref, struct kms_buf *ret_spki)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__KeyRef message = KMS__AGENT__KEY_REF__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    message.ref = kms_agent_put_text(ref);
    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_PUBLIC_KEY, true);
    ask.request.public_key = &message;
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        status = put_output(call, ask.reply->output, ret_spki);
        kms_agent_answered(backend->agent, &ask);
    }
    kms_agent_leave(&guard);
    return status;
}

static enum kms_status agent_set_label(struct kms_backend *backend, struct kms_call *call,
                                       const char *ref, const char *label)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__SetLabel message = KMS__AGENT__SET_LABEL__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    message.ref = kms_agent_put_text(ref);
    message.label = kms_agent_put_text(label);
    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_SET_LABEL, true);
    ask.request.set_label = &message;
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        kms_agent_answered(backend->agent, &ask);
    }
    kms_agent_leave(&guard);
    return status;
}

/* ---- the token ------------------------------------------------------------------------------ */

static enum kms_status random_part(struct kms_backend *backend, struct kms_call *call, size_t len,
                                   struct kms_buf *ret_bytes)
{
    Kms__Agent__Random message = KMS__AGENT__RANDOM__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    message.len = (uint32_t)len;
    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_RANDOM, true);
    ask.request.random = &message;
    status = kms_agent_ask(backend->agent, call, &ask);
    if (status == KMS_OK) {
        status = ask.reply->output.len == len
                     ? put_output(call, ask.reply->output, ret_bytes)
                     : kms_error_set(&call->error, KMS_E_PROTOCOL,
                                     "the agent sent %zu random bytes for %zu",
                                     ask.reply->output.len, len);
        kms_agent_answered(backend->agent, &ask);
    }
    return status;
}

static enum kms_status agent_random(struct kms_backend *backend, struct kms_call *call,
                                    struct kms_buf *ret_bytes)
{
    struct kms_agent_guard guard = kms_agent_enter();
    enum kms_status status = KMS_OK;

    while (status == KMS_OK && kms_buf_room(ret_bytes) > 0) {
        size_t room = kms_buf_room(ret_bytes);

        status = random_part(backend, call,
                             room < KMS_AGENT_RANDOM_MAX ? room : KMS_AGENT_RANDOM_MAX, ret_bytes);
    }
    kms_agent_leave(&guard);
    return status;
}

static enum kms_status agent_check_pin(struct kms_backend *backend, struct kms_call *call,
                                       struct kms_span pin)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__Login message = KMS__AGENT__LOGIN__INIT;
    struct kms_agent_ask ask;
    enum kms_status status;

    begin(backend, call, &ask, KMS__AGENT__REQUEST__OP_LOGIN, true);
    if (pin.len > KMS_AGENT_PIN_MAX) {
        status = kms_error_set(&call->error, KMS_E_AUTH, "a PIN has at most %d bytes",
                               KMS_AGENT_PIN_MAX);
    } else {
        message.pin = kms_agent_put_span(pin);
        ask.request.login = &message;
        status = kms_agent_ask(backend->agent, call, &ask);
        if (status == KMS_OK) {
            kms_agent_answered(backend->agent, &ask);
        }
    }
    kms_agent_leave(&guard);
    return status;
}

struct wanted {
    const char *name;
    struct kms_token_info info;
    bool found;
};

static bool visit_token(void *ctx, const struct kms_agent_token *token)
{
    struct wanted *wanted = ctx;

    if (strcmp(token->name, wanted->name) == 0) {
        wanted->info = token->info;
        wanted->found = true;
    }
    return !wanted->found;
}

static enum kms_status agent_describe(struct kms_backend *backend, struct kms_call *call,
                                      struct kms_token_info *ret_info)
{
    struct wanted wanted = {.name = backend->name};
    enum kms_status status = kms_agent_list_tokens(backend->agent, call, visit_token, &wanted);

    if (status != KMS_OK) {
        return status;
    }
    if (!wanted.found) {
        return kms_error_set(&call->error, KMS_E_NOT_FOUND, "the agent has no token %s for us",
                             backend->name);
    }
    *ret_info = wanted.info;
    return KMS_OK;
}

static void agent_health(struct kms_backend *backend, struct kms_health *ret_health)
{
    struct kms_agent_guard guard = kms_agent_enter();
    struct kms_agent *agent = backend->agent;

    *ret_health = (struct kms_health){.sessions_max = KMS_AGENT_CONNECTIONS_MAX};
    kms_agent_pool_count(&agent->pool, &ret_health->sessions_open, &ret_health->sessions_busy);
    ret_health->reconnects = atomic_load(&agent->reconnects);
    (void)pthread_mutex_lock(&agent->lock);
    ret_health->error = agent->last;
    (void)pthread_mutex_unlock(&agent->lock);
    ret_health->ready = atomic_load(&agent->reached) && ret_health->error.status == KMS_OK;
    kms_agent_leave(&guard);
}

/* ---- lists ---------------------------------------------------------------------------------- */

struct list {
    const char *ref; /* NULL: all */
    kms_key_visit visit;
    void *ctx;
};

static bool visit_key(void *ctx, const struct kms_agent_key *key)
{
    const struct list *list = ctx;

    return (list->ref != NULL && strcmp(list->ref, key->info.ref) != 0) ||
           list->visit(list->ctx, &key->info);
}

static enum kms_status agent_list_keys(struct kms_backend *backend, struct kms_call *call,
                                       const struct kms_key_filter *filter, kms_key_visit visit,
                                       void *ctx)
{
    struct list list = {.visit = visit, .ctx = ctx};
    struct kms_span tag = KMS_SPAN_NONE;
    struct kms_span label = KMS_SPAN_NONE;

    kms_error_clear(&call->error);
    if (filter != NULL) {
        if (filter->spec != NULL && filter->spec[0] != '\0') {
            return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                                 "an agent's keys are found by label, tag or ref");
        }
        list.ref = filter->ref != NULL && filter->ref[0] != '\0' ? filter->ref : NULL;
        tag = filter->tag;
        label = filter->label == NULL ? KMS_SPAN_NONE : kms_span_str(filter->label);
    }
    return kms_agent_list_keys(backend->agent, call, backend->name, tag, label, visit_key, &list);
}

/* ---- life ----------------------------------------------------------------------------------- */

/* The configuration has no such backend: tokens are opened by kms_agent_open_token(). */
static enum kms_status agent_open(const struct kms_backend_conf *conf,
                                  struct kms_backend **ret_backend, struct kms_error *err)
{
    (void)conf;
    (void)ret_backend;
    return kms_error_set(err, KMS_E_UNSUPPORTED, "an agent is not a backend of a configuration");
}

static void agent_close(struct kms_backend *backend)
{
    if (backend != NULL) {
        kms_agent_unref(backend->agent);
        free(backend);
    }
}

enum kms_status kms_agent_open_token(struct kms_agent *agent, const char *token,
                                     struct kms_backend **ret_backend, struct kms_error *err)
{
    size_t len = strlen(token);
    struct kms_backend *backend;

    if (len == 0 || len >= KMS_AGENT_NAME_MAX) {
        return kms_error_set(err, KMS_E_INVALID, "a token's name has 1 to %d bytes",
                             KMS_AGENT_NAME_MAX - 1);
    }
    backend = calloc(1, sizeof(*backend));
    if (backend == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for token %s", token);
    }
    memcpy(backend->name, token, len);
    (void)atomic_fetch_add(&agent->refs, 1);
    backend->agent = agent;
    *ret_backend = backend;
    return KMS_OK;
}

const struct kms_backend_ops kms_agent_ops = {
    .type = "agent",
    .open = agent_open,
    .close = agent_close,
    .health = agent_health,
    .list_keys = agent_list_keys,
    .generate = agent_generate,
    .destroy = agent_destroy,
    .public_key = agent_public_key,
    .encrypt = agent_encrypt,
    .decrypt = agent_decrypt,
    .wrap = agent_wrap,
    .unwrap = agent_unwrap,
    .data_key = agent_data_key,
    .sign = agent_sign,
    .verify = agent_verify,
    .mac = agent_mac,
    .random = agent_random,
    .set_label = agent_set_label,
    .describe = agent_describe,
    .check_pin = agent_check_pin,
};
