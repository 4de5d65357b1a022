/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of our own agent: a backend (type "agent") whose ops are requests over a unix socket,
 * and, beyond the waist, the list of tokens.
 *
 * Lives inside strangers' processes: no thread, no signal (MSG_NOSIGNAL), no output, descriptors
 * CLOEXEC and above 2, errno kept, cancellation off around calls. Callers' threads do the I/O, each
 * on a connection of its own from the pool, so calls run in parallel; no lock is held across I/O.
 *
 * Failure: every call has a deadline. A connection that breaks before the request was written whole
 * is replaced and the request sent again, inside the deadline and with back-off; one that breaks
 * later is repeated only when the op may be (never generate). So an agent that restarts costs
 * latency.
 *
 * fork(): a child must not speak on its parent's sockets. Whoever uses this calls
 * kms_agent_forked() in the child before any other function (pkcs11/core does, lazily, on its first
 * entry): sockets are closed, nothing is written, locks are made anew. A descriptor is compared by
 * device and inode before each use, because hosts close all descriptors when they become daemons.
 */
#ifndef KMS_BACKEND_AGENT_H
#define KMS_BACKEND_AGENT_H

#include "backend/agent_wire.h"
#include "backend/backend.h"

struct kms_agent_conf {
    const char *socket; /* NULL: KMS_AGENT_SOCKET */
    /* NULL, or how to get a private agent when no system agent listens: the configuration that
     * `kmsbridged --private` is started with, and that program */
    const char *private_config;
    const char *daemon;        /* NULL: the installed one */
    uint64_t call_timeout_ns;  /* 0: 10 s */
    unsigned connections_idle; /* kept open, 0: 8 */
};

/* Shared by the tokens of one agent: the pool of connections. */
struct kms_agent;

/* Copies @conf. Connects to nobody yet. KMS_E_NOMEM. */
enum kms_status kms_agent_new(const struct kms_agent_conf *conf, struct kms_agent **ret_agent,
                              struct kms_error *err) KMS_MUST_CHECK;
void kms_agent_unref(struct kms_agent *agent); /* NULL is fine; closes idle connections */
/* No other thread of the child uses @agent meanwhile. */
void kms_agent_forked(struct kms_agent *agent);

/*
 * Which of the agents that this process saw answered last: 0 before the first, another number after
 * each restart that was noticed (a new connection's Welcome.instance). What was cached under
 * another number may not be believed. From memory.
 */
uint64_t kms_agent_generation(const struct kms_agent *agent);

struct kms_agent_token {
    char name[KMS_AGENT_NAME_MAX]; /* for kms_agent_open_token() */
    struct kms_token_info info;
    enum kms_agent_login login;
    bool present;
    uint64_t keys_ttl_ns;
};
/* Returns false to stop; @token is borrowed for the visit. */
typedef bool (*kms_agent_token_visit)(void *ctx, const struct kms_agent_token *token);
/* The tokens that the caller's uid may see. KMS_E_UNAVAILABLE when no agent can be reached,
 * KMS_E_DENIED when it does not want us. */
enum kms_status kms_agent_list_tokens(struct kms_agent *agent, struct kms_call *call,
                                      kms_agent_token_visit visit, void *ctx) KMS_MUST_CHECK;

/* One key with what a PKCS#11 object needs and the waist's list_keys has no room for. Borrowed for
 * the visit. */
struct kms_agent_key {
    struct kms_key_info info;
    struct kms_span spki; /* may be empty */
    const struct kms_span *certificates;
    size_t certificate_count;
};
typedef bool (*kms_agent_key_visit)(void *ctx, const struct kms_agent_key *key);
/* All keys of a token that match (empty spans match all), by as many pages as it takes.
 * KMS_E_PROTOCOL when the agent would send more than KMS_AGENT_KEYS_IN_ALL. */
enum kms_status kms_agent_list_keys(struct kms_agent *agent, struct kms_call *call,
                                    const char *token, struct kms_span tag, struct kms_span label,
                                    kms_agent_key_visit visit, void *ctx) KMS_MUST_CHECK;

/* A token as a backend, for kms_waist_over(); holds a reference on @agent. */
enum kms_status kms_agent_open_token(struct kms_agent *agent, const char *token,
                                     struct kms_backend **ret_backend,
                                     struct kms_error *err) KMS_MUST_CHECK;
extern const struct kms_backend_ops kms_agent_ops;

#endif
