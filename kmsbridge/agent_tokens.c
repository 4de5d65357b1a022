/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_tokens.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"

#define KEYS_MAX       65536               /* of a token; KMS_AGENT_KEYS_IN_ALL */
#define KMS_SHARE      4u                  /* sessions that are kept for the KMS plugin */
#define LANE_UNKNOWN   32u                 /* where a key service does not say its bound */
#define AGAIN_NS       KMS_NS_PER_S        /* between two tries that failed */
#define DESCRIBE_NS    (2 * KMS_NS_PER_S)  /* for what a token is, when nobody knows it yet */
#define DESCRIBED_NS   (60 * KMS_NS_PER_S) /* how long that is believed */
#define DESCRIBE_AGAIN (5 * KMS_NS_PER_S)

/* --- key services -------------------------------------------------------------------------------
 */

struct kms_agentd_backend {
    struct kms_agentd_backend *next;
    char *name;
    struct kms_conf *conf; /* that own was opened from */
    struct kms_waist *own; /* NULL: not opened by us; under the mutex of all */
    struct kms_lane lane;
};

struct kms_agentd_backends {
    struct kms_agentd_source source;
    kms_observe observe;
    void *observe_ctx;
    pthread_mutex_t mutex; /* guards the list, and each one's own; they only grow */
    struct kms_agentd_backend *first;
};

struct kms_agentd_backends *kms_agentd_backends_new(const struct kms_agentd_source *source,
                                                    kms_observe observe, void *observe_ctx)
{
    struct kms_agentd_backends *backends = calloc(1, sizeof(*backends));

    if (backends != NULL) {
        backends->source = *source;
        backends->observe = observe;
        backends->observe_ctx = observe_ctx;
        pthread_mutex_init(&backends->mutex, NULL);
    }
    return backends;
}

void kms_agentd_backends_free(struct kms_agentd_backends *backends)
{
    if (backends == NULL) {
        return;
    }
    while (backends->first != NULL) {
        struct kms_agentd_backend *backend = backends->first;

        backends->first = backend->next;
        kms_waist_close(backend->own);
        kms_conf_done(backend->conf);
        kms_lane_done(&backend->lane);
        free(backend->name);
        free(backend);
    }
    pthread_mutex_destroy(&backends->mutex);
    free(backends);
}

uint64_t kms_agentd_backends_stuck_ns(struct kms_agentd_backends *backends)
{
    struct kms_health health;
    uint64_t oldest = 0;

    pthread_mutex_lock(&backends->mutex);
    for (struct kms_agentd_backend *b = backends->first; b != NULL; b = b->next) {
        if (b->own != NULL) {
            kms_waist_health(b->own, &health);
            oldest = health.stuck_ns > oldest ? health.stuck_ns : oldest;
        }
    }
    pthread_mutex_unlock(&backends->mutex);
    return oldest;
}

static struct kms_agentd_backend *backend_find_locked(struct kms_agentd_backends *backends,
                                                      const char *name)
{
    struct kms_agentd_backend *backend = backends->first;

    while (backend != NULL && strcmp(backend->name, name) != 0) {
        backend = backend->next;
    }
    return backend;
}

static struct kms_agentd_backend *backend_get(struct kms_agentd_backends *backends,
                                              const char *name)
{
    struct kms_agentd_backend *backend = NULL;

    pthread_mutex_lock(&backends->mutex);
    backend = backend_find_locked(backends, name);
    if (backend == NULL) {
        backend = calloc(1, sizeof(*backend));
        if (backend != NULL) {
            backend->name = strdup(name);
            kms_lane_init(&backend->lane);
        }
        if (backend != NULL && backend->name == NULL) {
            kms_lane_done(&backend->lane);
            free(backend);
            backend = NULL;
        }
        if (backend != NULL) {
            backend->next = backends->first;
            backends->first = backend;
        }
    }
    pthread_mutex_unlock(&backends->mutex);
    return backend;
}

/* The waist that we opened ourselves, or open now. */
static enum kms_status own_waist(struct kms_agentd_backends *backends,
                                 struct kms_agentd_backend *backend, struct kms_conf *conf,
                                 struct kms_waist **ret_waist, struct kms_error *err)
{
    const struct kms_backend_conf *entry = kms_conf_backend(conf, backend->name);
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&backends->mutex);
    if (backend->own == NULL && entry == NULL) {
        status = kms_error_set(err, KMS_E_NOT_FOUND, "there is no backend %s", backend->name);
    } else if (backend->own == NULL) {
        status =
            kms_waist_open(entry, backends->observe, backends->observe_ctx, &backend->own, err);
        if (status == KMS_OK) {
            backend->conf = kms_conf_hold(conf);
        }
    }
    *ret_waist = backend->own;
    pthread_mutex_unlock(&backends->mutex);
    return status;
}

/* --- tokens -------------------------------------------------------------------------------------
 */

struct kms_agentd_token {
    const struct kms_agentd_token_conf *conf;
    char place[48]; /* "agent.tokens[0]" */
    struct kms_conf *whole;
    struct kms_agentd_backends *backends;
    struct kms_agentd_backend *backend;
    struct kms_agentd_chain *chains; /* by conf->certificates */
    atomic_uint lane_max;

    pthread_mutex_t mutex; /* guards the members below; never held across a call */
    pthread_cond_t landed;
    bool flying;                  /* somebody asks for the keys */
    struct kms_agentd_keys *keys; /* NULL: never seen */
    uint64_t fresh_until_ns;
    uint64_t again_ns;      /* a failed or fruitless search is not repeated before */
    uint64_t touched;       /* how often somebody changed the list */
    uint64_t flights;       /* that ended */
    struct kms_error error; /* of the last one */
    bool present;
    bool described;
    bool describing;
    uint64_t describe_at_ns;
    struct kms_token_info info;
};

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

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void token_free(struct kms_agentd_token *token)
{
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
        token_free(tokens->tokens[i]);
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
    return own_waist(token->backends, token->backend, token->whole, &waist, err);
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
    token->conf = &conf->agent.tokens[index];
    token->whole = kms_conf_hold(conf);
    (void)snprintf(token->place, sizeof(token->place), "agent.tokens[%zu]", index);
    token->backends = backends;
    token->backend = backend_get(backends, token->conf->backend);
    pthread_mutex_init(&token->mutex, NULL);
    cond_init(&token->landed);
    status = token->backend == NULL ? kms_error_set(err, KMS_E_NOMEM, "agent: out of memory")
                                    : token_reach(token, err);
    if (status == KMS_OK) {
        status = read_chains(token, err);
    }
    if (status != KMS_OK) {
        token_free(token);
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

/* --- calls --------------------------------------------------------------------------------------
 */

/* Of a waist that the KMS plugin uses as well, some sessions are not for us. */
static unsigned lane_max(struct kms_waist *waist, bool shared)
{
    struct kms_health health;
    unsigned share = shared ? KMS_SHARE : 0;

    kms_waist_health(waist, &health);
    if (health.sessions_max == 0) {
        return LANE_UNKNOWN;
    }
    return health.sessions_max > share ? health.sessions_max - share : 1;
}

static void put_waist(struct kms_agentd_visit *visit)
{
    const struct kms_agentd_source *source = &visit->token->backends->source;

    if (visit->shared) {
        source->put(source->ctx, visit->hold);
    }
}

enum kms_status kms_agentd_visit_begin(struct kms_agentd_token *token, struct kms_call *call,
                                       struct kms_agentd_visit *ret_visit)
{
    const struct kms_agentd_source *source = &token->backends->source;
    struct kms_agentd_visit visit = {.token = token};
    enum kms_status status = KMS_OK;
    unsigned max = atomic_load(&token->lane_max);

    if (source->get != NULL) {
        visit.waist = source->get(source->ctx, token->backend->name, &visit.hold);
    }
    visit.shared = visit.waist != NULL;
    if (!visit.shared) {
        status =
            own_waist(token->backends, token->backend, token->whole, &visit.waist, &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (max == 0) {
        max = lane_max(visit.waist, visit.shared);
        atomic_store(&token->lane_max, max);
    }
    status = kms_lane_take(&token->backend->lane, max, call->deadline_ns, &call->error);
    if (status != KMS_OK) {
        put_waist(&visit);
        return status;
    }
    *ret_visit = visit;
    return KMS_OK;
}

void kms_agentd_visit_end(struct kms_agentd_visit *visit)
{
    kms_lane_leave(&visit->token->backend->lane);
    put_waist(visit);
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

static bool wait_locked(struct kms_agentd_token *token, uint64_t deadline_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline_ns / KMS_NS_PER_S),
                                   .tv_nsec = (long)(deadline_ns % KMS_NS_PER_S)};

    return pthread_cond_timedwait(&token->landed, &token->mutex, &until) == 0;
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
        waits = wait_locked(token, deadline_ns);
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

/* --- a list of keys -----------------------------------------------------------------------------
 */

void kms_agentd_key_put(struct kms_agentd_key *key)
{
    if (key != NULL && atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) == 1) {
        free(key);
    }
}

static struct kms_agentd_key *key_hold(struct kms_agentd_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

void kms_agentd_keys_put(struct kms_agentd_keys *keys)
{
    if (keys != NULL && atomic_fetch_sub_explicit(&keys->refs, 1, memory_order_acq_rel) == 1) {
        for (size_t i = 0; i < keys->count; i++) {
            kms_agentd_key_put(keys->keys[i]);
        }
        free(keys);
    }
}

static struct kms_agentd_keys *keys_hold(struct kms_agentd_keys *keys)
{
    atomic_fetch_add_explicit(&keys->refs, 1, memory_order_relaxed);
    return keys;
}

static struct kms_agentd_key *keys_find(const struct kms_agentd_keys *keys, const char *ref)
{
    size_t low = 0;
    size_t high = keys == NULL ? 0 : keys->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(ref, keys->keys[middle]->info.ref);

        if (order == 0) {
            return keys->keys[middle];
        }
        low = order > 0 ? middle + 1 : low;
        high = order < 0 ? middle : high;
    }
    return NULL;
}

/* What one flight brings. */
struct flight {
    struct kms_key_info *infos;
    size_t count;
    size_t room;
    bool full; /* of memory or of KEYS_MAX */
};

static bool collect(void *ctx, const struct kms_key_info *info)
{
    struct flight *flight = ctx;

    if (flight->count == flight->room) {
        size_t room = flight->room == 0 ? 32 : flight->room * 2;
        struct kms_key_info *grown = NULL;

        if (flight->count < KEYS_MAX) {
            grown = reallocarray(flight->infos, room, sizeof(*grown));
        }
        if (grown == NULL) {
            flight->full = true;
            return false;
        }
        flight->infos = grown;
        flight->room = room;
    }
    flight->infos[flight->count++] = *info;
    return true;
}

static int by_ref(const void *a, const void *b)
{
    const struct kms_key_info *left = a;
    const struct kms_key_info *right = b;

    return strcmp(left->ref, right->ref);
}

/* Sorted; a key that came twice (two specs, an attempt repeated) is there once. */
static void sort(struct flight *flight)
{
    size_t kept = 0;

    if (flight->count > 1) {
        qsort(flight->infos, flight->count, sizeof(flight->infos[0]), by_ref);
    }
    for (size_t i = 0; i < flight->count; i++) {
        if (kept == 0 || strcmp(flight->infos[kept - 1].ref, flight->infos[i].ref) != 0) {
            flight->infos[kept++] = flight->infos[i];
        }
    }
    flight->count = kept;
}

static enum kms_status list_one(struct kms_waist *waist, struct kms_call *call, const char *spec,
                                struct flight *flight)
{
    const struct kms_key_filter filter = {.spec = spec};
    enum kms_status status = kms_waist_list_keys(waist, call, &filter, collect, flight);

    if (spec != NULL && status == KMS_E_NOT_FOUND) {
        kms_error_clear(&call->error);
        status = KMS_OK;
    }
    if (status == KMS_OK && flight->full) {
        status = kms_error_set(&call->error, KMS_E_NOMEM, "agent: no memory for so many keys");
    }
    return status;
}

static enum kms_status list(const struct kms_agentd_token *token, struct kms_waist *waist,
                            struct kms_call *call, struct flight *flight)
{
    enum kms_status status = KMS_OK;

    if (token->conf->key_count == 0) {
        status = list_one(waist, call, NULL, flight);
    }
    for (size_t i = 0; status == KMS_OK && i < token->conf->key_count; i++) {
        status = list_one(waist, call, token->conf->keys[i], flight);
    }
    sort(flight);
    return status;
}

static bool is_pair(const struct kms_key_info *info)
{
    return info->type == KMS_KEY_RSA || info->type == KMS_KEY_EC || info->type == KMS_KEY_EDDSA;
}

/* One that cannot be had is left out, and asked for again with the next list. */
static struct kms_span public_of(struct kms_waist *waist, const struct kms_call *call,
                                 const struct kms_key_info *info, const struct kms_agentd_key *was,
                                 uint8_t room[KMS_PUBLIC_KEY_MAX])
{
    struct kms_call one = {.deadline_ns = call->deadline_ns, .trace_id = call->trace_id};
    struct kms_buf spki = kms_buf_over(room, KMS_PUBLIC_KEY_MAX);

    if (!is_pair(info)) {
        return KMS_SPAN_NONE;
    }
    if (was != NULL && was->spki.len != 0 && strcmp(was->info.id, info->id) == 0) {
        return was->spki;
    }
    if (kms_waist_public_key(waist, &one, info->ref, &spki) != KMS_OK) {
        kms_log_error(KMS_LOG_DEBUG, &one.error, "agent: public key of \"%s\"", info->label);
        return KMS_SPAN_NONE;
    }
    return kms_buf_span(&spki);
}

static const struct kms_agentd_chain *chain_of(const struct kms_agentd_token *token,
                                               const struct kms_key_info *info,
                                               struct kms_span spki)
{
    for (size_t i = 0; spki.len != 0 && i < token->conf->certificate_count; i++) {
        if (strcmp(token->conf->certificates[i].key, info->label) == 0 &&
            kms_agentd_chain_is_of(&token->chains[i], spki)) {
            return &token->chains[i];
        }
    }
    return NULL;
}

static struct kms_agentd_key *key_new(const struct kms_agentd_token *token,
                                      const struct kms_key_info *info, struct kms_span spki)
{
    struct kms_agentd_key *key = malloc(sizeof(*key) + spki.len);

    if (key != NULL) {
        atomic_init(&key->refs, 1);
        key->info = *info;
        key->spki = kms_span_of(key->storage, spki.len);
        key->chain = chain_of(token, info, spki);
        if (spki.len > 0) {
            memcpy(key->storage, spki.data, spki.len);
        }
    }
    return key;
}

static struct kms_agentd_keys *keys_new(const struct kms_agentd_token *token,
                                        struct kms_waist *waist, const struct kms_call *call,
                                        const struct flight *flight,
                                        const struct kms_agentd_keys *was)
{
    struct kms_agentd_keys *keys =
        calloc(1, sizeof(*keys) + flight->count * sizeof(struct kms_agentd_key *));
    uint8_t room[KMS_PUBLIC_KEY_MAX];

    if (keys == NULL) {
        return NULL;
    }
    atomic_init(&keys->refs, 1);
    for (size_t i = 0; i < flight->count; i++) {
        const struct kms_key_info *info = &flight->infos[i];
        const struct kms_agentd_key *old = keys_find(was, info->ref);
        struct kms_agentd_key *key = key_new(token, info, public_of(waist, call, info, old, room));

        if (key == NULL) {
            kms_agentd_keys_put(keys);
            return NULL;
        }
        keys->keys[keys->count++] = key;
    }
    return keys;
}

/* --- certificates -------------------------------------------------------------------------------
 */

enum match { MATCHES, NO_KEY, NOT_OF_KEY };

static enum match match(const struct kms_agentd_token *token, const struct kms_agentd_keys *keys,
                        size_t index)
{
    const char *label = token->conf->certificates[index].key;
    enum match match = NO_KEY;

    for (size_t i = 0; i < keys->count && match != MATCHES; i++) {
        const struct kms_agentd_key *key = keys->keys[i];

        if (key->chain == &token->chains[index]) {
            match = MATCHES;
        } else if (strcmp(key->info.label, label) == 0 && key->spki.len != 0) {
            match = NOT_OF_KEY;
        }
    }
    return match;
}

static enum kms_status check_chain(const struct kms_agentd_token *token,
                                   const struct kms_agentd_keys *keys, size_t index,
                                   struct kms_error *err)
{
    const struct kms_agentd_cert_conf *cert = &token->conf->certificates[index];
    enum match found = match(token, keys, index);

    if (found == MATCHES) {
        return KMS_OK;
    }
    return kms_error_set(err, KMS_E_INVALID,
                         found == NO_KEY
                             ? "%s.certificates[%zu]: token %s has no key pair \"%s\" for %s"
                             : "%s.certificates[%zu]: token %s: key \"%s\" is not the one that %s "
                               "certifies",
                         token->place, index, token->conf->backend, cert->key, cert->file);
}

enum kms_status kms_agentd_token_check(struct kms_agentd_token *token, struct kms_error *err)
{
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&token->mutex);
    keys = token->keys == NULL ? NULL : keys_hold(token->keys);
    pthread_mutex_unlock(&token->mutex);
    for (size_t i = 0; keys != NULL && status == KMS_OK && i < token->conf->certificate_count;
         i++) {
        status = check_chain(token, keys, i, err);
    }
    kms_agentd_keys_put(keys);
    return status;
}

/* Said when it is first seen, and again when a list changed it. */
static void complain(const struct kms_agentd_token *token, const struct kms_agentd_keys *keys,
                     const struct kms_agentd_keys *was)
{
    for (size_t i = 0; i < token->conf->certificate_count; i++) {
        struct kms_error error = KMS_ERROR_INIT;

        if (was != NULL && match(token, was, i) == match(token, keys, i)) {
            continue;
        }
        if (check_chain(token, keys, i, &error) != KMS_OK) {
            kms_log(KMS_LOG_ERROR, "agent: %s; it is not shown", error.text);
        }
    }
}

/* --- single flight ------------------------------------------------------------------------------
 */

static enum kms_status fly(struct kms_agentd_token *token, struct kms_call *call,
                           struct kms_agentd_keys *was, struct kms_agentd_keys **ret_keys)
{
    struct flight flight = {.count = 0};
    struct kms_agentd_visit visit;
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = kms_agentd_visit_begin(token, call, &visit);

    if (status != KMS_OK) {
        return status;
    }
    status = list(token, visit.waist, call, &flight);
    if (status == KMS_OK) {
        keys = keys_new(token, visit.waist, call, &flight, was);
        status = keys == NULL ? kms_error_set(&call->error, KMS_E_NOMEM, "agent: out of memory")
                              : KMS_OK;
    }
    kms_agentd_visit_end(&visit);
    free(flight.infos);
    if (status == KMS_OK) {
        complain(token, keys, was);
        *ret_keys = keys;
    }
    return status;
}

/* We are the one who asks; token->flying is set. */
static enum kms_status refresh(struct kms_agentd_token *token, struct kms_call *call)
{
    struct kms_agentd_keys *was = NULL;
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    uint64_t touched = 0;

    pthread_mutex_lock(&token->mutex);
    was = token->keys == NULL ? NULL : keys_hold(token->keys);
    touched = token->touched;
    pthread_mutex_unlock(&token->mutex);
    status = fly(token, call, was, &keys);
    kms_agentd_keys_put(was);
    was = NULL;

    pthread_mutex_lock(&token->mutex);
    token->flying = false;
    token->flights++;
    token->error = status == KMS_OK ? (struct kms_error)KMS_ERROR_INIT : call->error;
    token->again_ns = kms_deadline_in(AGAIN_NS);
    if (status == KMS_OK) {
        was = token->keys;
        token->keys = keys;
        token->fresh_until_ns =
            touched == token->touched ? kms_deadline_in(token->conf->keys_ttl_ns) : 0;
    }
    pthread_cond_broadcast(&token->landed);
    pthread_mutex_unlock(&token->mutex);
    kms_agentd_keys_put(was);
    return status;
}

/* KMS_OK: there is a list that is fresh; or @fly: go and ask. */
static enum kms_status await_locked(struct kms_agentd_token *token, struct kms_call *call,
                                    bool *ret_fly)
{
    uint64_t flights = token->flights;
    bool waits = true;

    while (waits && token->flying &&
           (token->keys == NULL || kms_deadline_passed(token->fresh_until_ns))) {
        waits = wait_locked(token, call->deadline_ns);
    }
    if (token->keys != NULL && !kms_deadline_passed(token->fresh_until_ns)) {
        return KMS_OK;
    }
    if (!waits) {
        return kms_error_set(&call->error, KMS_E_TIMEOUT, "token %s: the list of its keys is late",
                             token->conf->backend);
    }
    if (token->flights != flights && token->error.status != KMS_OK) { /* ours as well */
        call->error = token->error;
        return call->error.status;
    }
    token->flying = true;
    *ret_fly = true;
    return KMS_OK;
}

enum kms_status kms_agentd_token_keys(struct kms_agentd_token *token, struct kms_call *call,
                                      struct kms_agentd_keys **ret_keys)
{
    bool flies = false;
    enum kms_status status;

    kms_error_clear(&call->error);
    pthread_mutex_lock(&token->mutex);
    status = await_locked(token, call, &flies);
    pthread_mutex_unlock(&token->mutex);
    if (status == KMS_OK && flies) {
        status = refresh(token, call);
    }
    if (status == KMS_OK) {
        pthread_mutex_lock(&token->mutex);
        *ret_keys = keys_hold(token->keys);
        pthread_mutex_unlock(&token->mutex);
    }
    return status;
}

static struct kms_agentd_key *find(struct kms_agentd_token *token, const char *ref, bool *ret_look)
{
    struct kms_agentd_key *key = NULL;

    pthread_mutex_lock(&token->mutex);
    key = keys_find(token->keys, ref);
    if (key != NULL) {
        (void)key_hold(key);
    } else if (ret_look != NULL) {
        *ret_look = token->keys == NULL || token->flying || kms_deadline_passed(token->again_ns);
        token->fresh_until_ns = *ret_look && !token->flying ? 0 : token->fresh_until_ns;
    }
    pthread_mutex_unlock(&token->mutex);
    return key;
}

enum kms_status kms_agentd_token_key(struct kms_agentd_token *token, struct kms_call *call,
                                     const char *ref, struct kms_agentd_key **ret_key)
{
    struct kms_agentd_keys *keys = NULL;
    enum kms_status status = KMS_OK;
    bool look = false;
    struct kms_agentd_key *key = find(token, ref, &look);

    if (key == NULL && look) {
        status = kms_agentd_token_keys(token, call, &keys);
        kms_agentd_keys_put(keys);
        key = status == KMS_OK ? find(token, ref, NULL) : NULL;
    }
    if (key == NULL) {
        return status != KMS_OK ? status
                                : kms_error_set(&call->error, KMS_E_NOT_FOUND,
                                                "token %s has no such key", token->conf->backend);
    }
    *ret_key = key;
    return KMS_OK;
}

void kms_agentd_token_touch(struct kms_agentd_token *token)
{
    pthread_mutex_lock(&token->mutex);
    token->touched++;
    token->fresh_until_ns = 0;
    token->again_ns = 0;
    pthread_mutex_unlock(&token->mutex);
}

void kms_agentd_token_tend(struct kms_agentd_token *token, uint64_t timeout_ns)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(timeout_ns), .trace_id = "agent"};
    bool flies = false;

    pthread_mutex_lock(&token->mutex);
    flies = !token->flying && kms_deadline_passed(token->fresh_until_ns) &&
            kms_deadline_passed(token->again_ns);
    token->flying = token->flying || flies;
    pthread_mutex_unlock(&token->mutex);
    if (flies && refresh(token, &call) != KMS_OK) {
        kms_log_error(KMS_LOG_DEBUG, &call.error, "agent: keys of token %s", token->conf->backend);
    }
}
