/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens that the agent shows, and their keys as last seen. A list of keys is asked for at
 * the start, and when somebody wants it and the last one is older than keys_ttl; one thread of ours
 * asks, and whoever wants the list waits for it as long as his call lasts. A list may take longer
 * than any call: keys that are asked for by CKA_ID or label are looked up by themselves while there
 * is no fresh one. Public keys are asked for once per key, certificates come from the
 * configuration.
 *
 * Ownership: tokens live as long as the configuration that they were made from
 * (kms_agentd_tokens_new() at the start and at every reload), and until their list has landed; what
 * is behind them, a key service and the agent's share of it, lives until the end (struct
 * kms_agentd_backends). Threads: all functions from any thread; no lock is held across a call of
 * the key service.
 */
#ifndef KMSBRIDGE_AGENT_TOKENS_H
#define KMSBRIDGE_AGENT_TOKENS_H

#include "kmsbridge/agent_certs.h"
#include "kmsbridge/agent_limits.h"
#include "kmsbridge/conf.h"

/* A waist that somebody else opened and may close: that of the KMS plugin. */
struct kms_agentd_source {
    void *ctx;
    /* NULL: it has none for @backend. Otherwise put() follows, with *ret_hold. */
    struct kms_waist *(*get)(void *ctx, const char *backend, void **ret_hold);
    void (*put)(void *ctx, void *hold);
};

/* --- key services -------------------------------------------------------------------------------
 */

struct kms_agentd_backends;
/* @source is copied; NULL members: there is none. @observe as in kms_waist_open(). NULL: no
 * memory. */
struct kms_agentd_backends *kms_agentd_backends_new(const struct kms_agentd_source *source,
                                                    kms_observe observe, void *observe_ctx);
/* No more lists: those on their way are told to give up. False: one has not by the deadline, and
 * nothing may be freed. */
bool kms_agentd_backends_land(struct kms_agentd_backends *backends, uint64_t deadline_ns);
void kms_agentd_backends_free(struct kms_agentd_backends *backends); /* no call is in flight */
/* How long the oldest call now inside one of our own waists takes. */
uint64_t kms_agentd_backends_stuck_ns(struct kms_agentd_backends *backends);
/* Warns of our own waists whose settings are others in @conf: they stay as they are. */
void kms_agentd_backends_warn(struct kms_agentd_backends *backends, const struct kms_conf *conf);

/* --- tokens -------------------------------------------------------------------------------------
 */

struct kms_agentd_token;
struct kms_agentd_tokens {
    struct kms_agentd_token **tokens;
    size_t count;
};

/*
 * One for each entry of conf->agent.tokens; opens their key services where nobody has yet, reads
 * certificates. @conf is held. Errors name what is wrong; certificates are matched to keys later,
 * when keys are listed.
 */
enum kms_status kms_agentd_tokens_new(struct kms_agentd_backends *backends, struct kms_conf *conf,
                                      struct kms_agentd_tokens *ret_tokens,
                                      struct kms_error *err) KMS_MUST_CHECK;
void kms_agentd_tokens_done(struct kms_agentd_tokens *tokens);

/* Whether such a key has a public half. */
bool kms_agentd_is_pair(enum kms_key_type type);

const struct kms_agentd_token_conf *kms_agentd_token_conf(const struct kms_agentd_token *token);
const char *kms_agentd_token_name(const struct kms_agentd_token *token);
struct kms_agentd_token *kms_agentd_tokens_find(const struct kms_agentd_tokens *tokens,
                                                struct kms_span name);

/* What the token is, from memory if that is not too old. */
struct kms_agentd_token_state {
    struct kms_token_info info;
    bool present;
};
void kms_agentd_token_describe(struct kms_agentd_token *token, uint64_t deadline_ns,
                               struct kms_agentd_token_state *ret_state);

/* --- its keys -----------------------------------------------------------------------------------
 */

/* Never changed; shared by counting. */
struct kms_agentd_key {
    atomic_uint refs;
    struct kms_key_info info;
    struct kms_span spki;                 /* DER; empty: it is no pair, or could not be had */
    const struct kms_agentd_chain *chain; /* NULL; the token's */
    uint8_t storage[];                    /* of spki */
};
void kms_agentd_key_put(struct kms_agentd_key *key); /* NULL is fine */

struct kms_agentd_keys {
    atomic_uint refs;
    bool lacks; /* a public key that may be had later */
    size_t count;
    struct kms_agentd_key *keys[]; /* in the order of info.ref */
};
void kms_agentd_keys_put(struct kms_agentd_keys *keys); /* NULL is fine */

/* All of them, in a list not older than keys_ttl. The key service's errors. */
enum kms_status kms_agentd_token_keys(struct kms_agentd_token *token, struct kms_call *call,
                                      struct kms_agentd_keys **ret_keys) KMS_MUST_CHECK;
/* Those with that CKA_ID and label, as far as these are not empty, and maybe others: from the list
 * if it is fresh, else by a search for them alone. */
enum kms_status kms_agentd_token_named(struct kms_agentd_token *token, struct kms_call *call,
                                       struct kms_span tag, struct kms_span label,
                                       struct kms_agentd_keys **ret_keys) KMS_MUST_CHECK;
/* One key, however old the list is; a ref that is not there is looked for once a second at most.
 * KMS_E_NOT_FOUND. */
enum kms_status kms_agentd_token_key(struct kms_agentd_token *token, struct kms_call *call,
                                     const char *ref,
                                     struct kms_agentd_key **ret_key) KMS_MUST_CHECK;
/* The list has changed at the service: the next one who asks gets a new one. */
void kms_agentd_token_touch(struct kms_agentd_token *token);
/* One that was just made, after kms_agentd_token_touch(): it can be used before the next list, but
 * for a token whose keys the configuration lists. */
void kms_agentd_token_learn(struct kms_agentd_token *token, const struct kms_key_info *info,
                            struct kms_span spki);
/* After a call: sends for a new list if the last one is too old, and does not wait for it. */
void kms_agentd_token_tend(struct kms_agentd_token *token);
/* Certificates that are not of their key, in one sentence: KMS_E_INVALID. From the last list. */
enum kms_status kms_agentd_token_check(struct kms_agentd_token *token,
                                       struct kms_error *err) KMS_MUST_CHECK;

/* --- calls --------------------------------------------------------------------------------------
 */

/* One call of the key service, within the agent's share of it. */
struct kms_agentd_visit {
    struct kms_waist *waist;
    struct kms_agentd_token *token;
    void *hold;
    bool shared;
};
/* Waits for room until call->deadline_ns. KMS_E_BUSY; else kms_agentd_visit_end() follows. */
enum kms_status kms_agentd_visit_begin(struct kms_agentd_token *token, struct kms_call *call,
                                       struct kms_agentd_visit *ret_visit) KMS_MUST_CHECK;
void kms_agentd_visit_end(struct kms_agentd_visit *visit);

#endif
