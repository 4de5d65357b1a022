/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as an object, and its two lists. */
#include "backend/agent_parts.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "common/clock.h"
#include "common/secure.h"

#define TIMEOUT_DEFAULT_NS (10 * KMS_NS_PER_S)
#define IDLE_DEFAULT       8

#ifndef KMS_DAEMON_PATH
#define KMS_DAEMON_PATH "/usr/sbin/kmsbridged"
#endif

/* ---- life ----------------------------------------------------------------------------------- */

static unsigned usable_cpus(void)
{
    cpu_set_t set;
    int count = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = CPU_COUNT(&set);
    }
    return count < 1 ? 1 : (unsigned)count;
}

static enum kms_status set_socket(struct kms_agent *agent, const char *path, struct kms_error *err)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(agent->socket)) {
        return kms_error_set(err, KMS_E_INVALID, "a socket's path has 1 to %zu bytes",
                             sizeof(agent->socket) - 1);
    }
    memcpy(agent->socket, path, len + 1);
    return KMS_OK;
}

/* A privileged program gets no private agent: who calls it would choose what it runs. */
static enum kms_status set_private(struct kms_agent *agent, const struct kms_agent_conf *conf,
                                   struct kms_error *err)
{
    if (conf->private_config == NULL || getauxval(AT_SECURE) != 0) {
        return KMS_OK;
    }
    agent->private_config = strdup(conf->private_config);
    agent->daemon = strdup(conf->daemon == NULL ? KMS_DAEMON_PATH : conf->daemon);
    if (agent->private_config == NULL || agent->daemon == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for an agent");
    }
    return kms_agent_private_path(agent->private_socket, err);
}

enum kms_status kms_agent_new(const struct kms_agent_conf *conf, struct kms_agent **ret_agent,
                              struct kms_error *err)
{
    struct kms_agent_guard guard = kms_agent_enter();
    struct kms_agent *agent = NULL;
    enum kms_status status = kms_secure_init();

    agent = status == KMS_OK ? calloc(1, sizeof(*agent)) : NULL;
    if (agent == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory for an agent");
        goto out;
    }
    atomic_init(&agent->refs, 1);
    agent->cpus = usable_cpus();
    agent->call_timeout_ns =
        conf->call_timeout_ns == 0 ? TIMEOUT_DEFAULT_NS : conf->call_timeout_ns;
    status = kms_agent_pool_init(
        &agent->pool, conf->connections_idle == 0 ? IDLE_DEFAULT : conf->connections_idle);
    if (status != KMS_OK || pthread_mutex_init(&agent->lock, NULL) != 0) {
        status = kms_error_set(err, KMS_E_NOMEM, "no lock for an agent");
        free(agent);
        goto out;
    }
    status = set_socket(agent, conf->socket == NULL ? KMS_AGENT_SOCKET : conf->socket, err);
    if (status == KMS_OK) {
        status = set_private(agent, conf, err);
    }
    if (status == KMS_OK) {
        *ret_agent = agent;
    } else {
        kms_agent_unref(agent);
    }
out:
    kms_agent_leave(&guard);
    return status;
}

void kms_agent_unref(struct kms_agent *agent)
{
    if (agent != NULL && atomic_fetch_sub(&agent->refs, 1) == 1) {
        struct kms_agent_guard guard = kms_agent_enter();

        kms_agent_pool_done(&agent->pool);
        (void)pthread_mutex_destroy(&agent->lock);
        free(agent->private_config);
        free(agent->daemon);
        free(agent);
        kms_agent_leave(&guard);
    }
}

void kms_agent_forked(struct kms_agent *agent)
{
    struct kms_agent_guard guard = kms_agent_enter();

    kms_agent_pool_forked(&agent->pool);
    (void)pthread_mutex_init(&agent->lock, NULL);
    agent->cpus = usable_cpus();
    kms_agent_leave(&guard);
}

uint64_t kms_agent_generation(const struct kms_agent *agent)
{
    return atomic_load(&agent->generation);
}

/* ---- tokens --------------------------------------------------------------------------------- */

static enum kms_status get_token(const Kms__Agent__Token *message,
                                 struct kms_agent_token *ret_token, struct kms_error *err)
{
    ret_token->login = (enum kms_agent_login)message->login; /* bounded */
    ret_token->present = message->present != 0;
    ret_token->keys_ttl_ns = message->keys_ttl_ms * KMS_NS_PER_MS;
    return kms_agent_get_token(message, ret_token->name, &ret_token->info, err);
}

static enum kms_status visit_tokens(const Kms__Agent__Reply *reply, struct kms_call *call,
                                    kms_agent_token_visit visit, void *ctx)
{
    for (size_t i = 0; i < reply->n_tokens; i++) {
        struct kms_agent_token token;
        enum kms_status status = get_token(reply->tokens[i], &token, &call->error);

        if (status != KMS_OK) {
            return status;
        }
        if (!visit(ctx, &token)) {
            break;
        }
    }
    return KMS_OK;
}

enum kms_status kms_agent_list_tokens(struct kms_agent *agent, struct kms_call *call,
                                      kms_agent_token_visit visit, void *ctx)
{
    struct kms_agent_guard guard = kms_agent_enter();
    Kms__Agent__ListTokens message = KMS__AGENT__LIST_TOKENS__INIT;
    struct kms_agent_ask ask = {.request = KMS__AGENT__REQUEST__INIT, .repeat = true};
    enum kms_status status;

    kms_error_clear(&call->error);
    ask.request.op_case = KMS__AGENT__REQUEST__OP_LIST_TOKENS;
    ask.request.list_tokens = &message;
    status = kms_agent_ask(agent, call, &ask);
    if (status == KMS_OK) {
        status = visit_tokens(ask.reply, call, visit, ctx);
        kms_agent_answered(agent, &ask);
    }
    kms_agent_leave(&guard);
    return status;
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* A list on its way, page by page. */
struct listing {
    const char *token;
    struct kms_span tag;
    struct kms_span label;
    kms_agent_key_visit visit;
    void *ctx;
    char after[KMS_KEY_REF_MAX]; /* "": from the start */
    size_t seen;
    bool more;
};

static enum kms_status visit_key(struct listing *listing, const Kms__Agent__Key *message,
                                 struct kms_error *err)
{
    struct kms_span certificates[KMS_AGENT_CERTS_MAX];
    struct kms_agent_key key = {.certificates = certificates,
                                .certificate_count = message->n_certificates,
                                .spki = kms_agent_get_span(message->spki)};
    enum kms_status status = KMS_OK;

    if (message->type >= KMS_KEY_TYPE_COUNT && message->ref.len > 0) { /* a later agent has it */
        return kms_agent_get_text("Key.ref", message->ref, listing->after, sizeof(listing->after),
                                  err);
    }
    status = kms_agent_get_key(message, &key.info, err);
    if (status != KMS_OK) {
        return status;
    }
    for (size_t i = 0; i < message->n_certificates; i++) { /* bounded by the check */
        certificates[i] = kms_agent_get_span(message->certificates[i]);
    }
    memcpy(listing->after, key.info.ref, sizeof(listing->after));
    listing->more = listing->visit(listing->ctx, &key);
    return KMS_OK;
}

static enum kms_status visit_page(struct listing *listing, const Kms__Agent__Reply *reply,
                                  struct kms_error *err)
{
    char before[KMS_KEY_REF_MAX];
    enum kms_status status = KMS_OK;

    memcpy(before, listing->after, sizeof(before));
    listing->seen += reply->n_keys;
    if (listing->seen > KMS_AGENT_KEYS_IN_ALL) {
        return kms_error_set(err, KMS_E_PROTOCOL, "token %s has more than %d keys", listing->token,
                             KMS_AGENT_KEYS_IN_ALL);
    }
    listing->more = true;
    for (size_t i = 0; i < reply->n_keys && status == KMS_OK && listing->more; i++) {
        status = visit_key(listing, reply->keys[i], err);
    }
    listing->more = listing->more && reply->more;
    if (status == KMS_OK && listing->more && strcmp(before, listing->after) == 0) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the agent's list of keys does not get on");
    }
    return status;
}

static enum kms_status ask_page(struct kms_agent *agent, struct kms_call *call,
                                struct listing *listing)
{
    Kms__Agent__ListKeys message = KMS__AGENT__LIST_KEYS__INIT;
    struct kms_agent_ask ask = {.request = KMS__AGENT__REQUEST__INIT, .repeat = true};
    enum kms_status status;

    message.after = kms_agent_put_text(listing->after);
    message.tag = kms_agent_put_span(listing->tag);
    message.label = kms_agent_put_span(listing->label);
    ask.request.token = kms_agent_put_text(listing->token);
    ask.request.op_case = KMS__AGENT__REQUEST__OP_LIST_KEYS;
    ask.request.list_keys = &message;
    status = kms_agent_ask(agent, call, &ask);
    if (status == KMS_OK) {
        status = visit_page(listing, ask.reply, &call->error);
        kms_agent_answered(agent, &ask);
    }
    return status;
}

enum kms_status kms_agent_list_keys(struct kms_agent *agent, struct kms_call *call,
                                    const char *token, struct kms_span tag, struct kms_span label,
                                    kms_agent_key_visit visit, void *ctx)
{
    struct kms_agent_guard guard = kms_agent_enter();
    struct listing listing = {
        .token = token, .tag = tag, .label = label, .visit = visit, .ctx = ctx, .more = true};
    enum kms_status status = KMS_OK;

    kms_error_clear(&call->error);
    if (tag.len > KMS_KEY_TAG_MAX || label.len >= KMS_LABEL_MAX) {
        listing.more = false; /* no key is called so */
    }
    while (status == KMS_OK && listing.more) {
        status = ask_page(agent, call, &listing);
    }
    kms_agent_leave(&guard);
    return status;
}
