/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_tokens.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/cond.h"
#include "kmsbridge/agent_tokens_parts.h"

#define DESCRIBE_NS    (2 * KMS_NS_PER_S)  /* for what a token is, when nobody knows it yet */
#define DESCRIBED_NS   (60 * KMS_NS_PER_S) /* how long that is believed */
#define DESCRIBE_AGAIN (5 * KMS_NS_PER_S)

const struct kms_agentd_token_conf *kms_agentd_token_conf(const struct kms_agentd_token *token)
{
    return token->conf;
}

const char *kms_agentd_token_name(const struct kms_agentd_token *token)
{
    return token->conf->backend;
}

struct kms_agentd_token *kms_agentd_tokens_find(const struct kms_agentd_tokens *tokens,
                                                struct kms_span name)
{
    for (size_t i = 0; i < tokens->count; i++) {
        if (kms_span_equal(kms_span_str(tokens->tokens[i]->conf->backend), name)) {
            return tokens->tokens[i];
        }
    }
    return NULL;
}

struct kms_agentd_token *kms_agentd_token_hold(struct kms_agentd_token *token)
{
    atomic_fetch_add_explicit(&token->refs, 1, memory_order_relaxed);
    return token;
}

void kms_agentd_token_put(struct kms_agentd_token *token)
{
    if (atomic_fetch_sub_explicit(&token->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    kms_agentd_spots_drop_locked(token, UINT64_MAX); /* nobody else is there */
    kms_agentd_keys_put(token->keys);
    for (size_t i = 0; token->chains != NULL && i < token->conf->certificate_count; i++) {
        kms_agentd_chain_done(&token->chains[i]);
    }
    free(token->chains);
    kms_conf_done(token->whole);
    pthread_cond_destroy(&token->landed);
    pthread_mutex_destroy(&token->mutex);
    free(token);
}

void kms_agentd_tokens_done(struct kms_agentd_tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++) {
        kms_agentd_token_put(tokens->tokens[i]);
    }
    free(tokens->tokens);
    *tokens = (struct kms_agentd_tokens){.count = 0};
}

/* Opens the key service if the source has it not: a wrong module is said at the start. */
static enum kms_status token_reach(struct kms_agentd_token *token, struct kms_error *err)
{
    const struct kms_agentd_source *source = &token->backends->source;
    struct kms_waist *waist = NULL;
    void *hold = NULL;

    if (source->get != NULL) {
        waist = source->get(source->ctx, token->backend->name, &hold);
    }
    if (waist != NULL) {
        source->put(source->ctx, hold);
        return KMS_OK;
    }
    return kms_agentd_own_waist(token->backends, token->backend, token->whole, &waist, err);
}

static enum kms_status read_chains(struct kms_agentd_token *token, struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    size_t count = token->conf->certificate_count;
    struct kms_error error = KMS_ERROR_INIT;

    token->chains = calloc(count + 1, sizeof(token->chains[0]));
    if (token->chains == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    for (size_t i = 0; status == KMS_OK && i < count; i++) {
        status =
            kms_agentd_chain_read(token->conf->certificates[i].file, &token->chains[i], &error);
        if (status != KMS_OK) {
            status = kms_error_set(err, status, "%s.certificates[%zu].file: %s", token->place, i,
                                   error.text);
        }
    }
    return status;
}

static enum kms_status token_new(struct kms_agentd_backends *backends, struct kms_conf *conf,
                                 size_t index, struct kms_agentd_token **ret_token,
                                 struct kms_error *err)
{
    struct kms_agentd_token *token = calloc(1, sizeof(*token));
    enum kms_status status = KMS_OK;

    if (token == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    atomic_init(&token->refs, 1);
    token->conf = &conf->agent.tokens[index];
    token->whole = kms_conf_hold(conf);
    (void)snprintf(token->place, sizeof(token->place), "agent.tokens[%zu]", index);
    token->backends = backends;
    token->backend = kms_agentd_backend_get(backends, token->conf->backend);
    pthread_mutex_init(&token->mutex, NULL);
    kms_cond_init(&token->landed);
    status = token->backend == NULL ? kms_error_set(err, KMS_E_NOMEM, "agent: out of memory")
                                    : token_reach(token, err);
    if (status == KMS_OK) {
        status = read_chains(token, err);
    }
    if (status != KMS_OK) {
        kms_agentd_token_put(token);
        return status;
    }
    *ret_token = token;
    return KMS_OK;
}

enum kms_status kms_agentd_tokens_new(struct kms_agentd_backends *backends, struct kms_conf *conf,
                                      struct kms_agentd_tokens *ret_tokens, struct kms_error *err)
{
    struct kms_agentd_tokens tokens = {.count = 0};
    enum kms_status status = KMS_OK;

    tokens.tokens = calloc(conf->agent.token_count + 1, sizeof(struct kms_agentd_token *));
    if (tokens.tokens == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: out of memory");
    }
    for (size_t i = 0; status == KMS_OK && i < conf->agent.token_count; i++) {
        status = token_new(backends, conf, i, &tokens.tokens[i], err);
        tokens.count += status == KMS_OK ? 1 : 0;
    }
    if (status != KMS_OK) {
        kms_agentd_tokens_done(&tokens);
        return status;
    }
    *ret_tokens = tokens;
    return KMS_OK;
}

/* --- what it is ---------------------------------------------------------------------------------
 */

static void copy_text(char *ret_text, size_t size, const char *text)
{
    (void)snprintf(ret_text, size, "%s", text);
}

/* For a service that does not describe itself, or has not yet. */
static void info_plain(const struct kms_agentd_token *token, struct kms_token_info *ret_info)
{
    *ret_info = (struct kms_token_info){.hardware = false};
    copy_text(ret_info->label, sizeof(ret_info->label), token->conf->backend);
    copy_text(ret_info->manufacturer, sizeof(ret_info->manufacturer), "kmsbridge");
    (void)snprintf(ret_info->model, sizeof(ret_info->model), "%.16s", token->conf->backend);
}

static enum kms_status ask_info(struct kms_agentd_token *token, uint64_t deadline_ns,
                                struct kms_token_info *ret_info)
{
    uint64_t soon = kms_deadline_in(DESCRIBE_NS);
    struct kms_call call = {.deadline_ns = soon < deadline_ns ? soon : deadline_ns,
                            .trace_id = "agent"};
    struct kms_agentd_visit visit;
    enum kms_status status = kms_agentd_visit_begin(token, &call, &visit);

    if (status != KMS_OK) {
        return status;
    }
    status = kms_waist_describe(visit.waist, &call, ret_info);
    if (status == KMS_E_UNSUPPORTED) {
        info_plain(token, ret_info);
        ret_info->random = kms_waist_can(visit.waist, KMS_OP_RANDOM);
        ret_info->data_keys = kms_waist_can(visit.waist, KMS_OP_DATA_KEY);
        status = KMS_OK;
    }
    kms_agentd_visit_end(&visit);
    return status;
}

static void describe_anew(struct kms_agentd_token *token, uint64_t deadline_ns)
{
    struct kms_token_info info;
    enum kms_status status = ask_info(token, deadline_ns, &info);

    pthread_mutex_lock(&token->mutex);
    token->describing = false;
    token->present = status == KMS_OK;
    if (status == KMS_OK) {
        token->info = info;
        token->described = true;
    }
    token->describe_at_ns = kms_deadline_in(status == KMS_OK ? DESCRIBED_NS : DESCRIBE_AGAIN);
    pthread_cond_broadcast(&token->landed);
    pthread_mutex_unlock(&token->mutex);
}

bool kms_agentd_token_wait_locked(struct kms_agentd_token *token, uint64_t deadline_ns)
{
    return kms_cond_wait(&token->landed, &token->mutex, deadline_ns);
}

void kms_agentd_token_describe(struct kms_agentd_token *token, uint64_t deadline_ns,
                               struct kms_agentd_token_state *ret_state)
{
    bool ask = false;
    bool waits = true;

    pthread_mutex_lock(&token->mutex);
    ask = !token->describing && kms_deadline_passed(token->describe_at_ns);
    token->describing = token->describing || ask;
    while (!ask && waits && token->describing && !token->described) {
        waits = kms_agentd_token_wait_locked(token, deadline_ns);
    }
    pthread_mutex_unlock(&token->mutex);
    if (ask) {
        describe_anew(token, deadline_ns);
    }
    pthread_mutex_lock(&token->mutex);
    ret_state->present = token->present;
    if (token->described) {
        ret_state->info = token->info;
    } else {
        info_plain(token, &ret_state->info);
    }
    pthread_mutex_unlock(&token->mutex);
    if (token->conf->label != NULL) {
        copy_text(ret_state->info.label, sizeof(ret_state->info.label), token->conf->label);
    }
}
