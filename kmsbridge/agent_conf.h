/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `agent:` and `audit:` of the configuration as ready values. Strings are the YAML's.
 */
#ifndef KMSBRIDGE_AGENT_CONF_H
#define KMSBRIDGE_AGENT_CONF_H

#include <stdint.h>

#include "kmsbridge/audit.h"
#include "kmsbridge/policy.h"

/* As backend/agent_wire.h numbers them. */
enum kms_agentd_login { KMS_AGENTD_LOGIN_NONE, KMS_AGENTD_LOGIN_ANY, KMS_AGENTD_LOGIN_PIN };

struct kms_agentd_cert_conf {
    char *key;  /* label of its key */
    char *file; /* PEM: the key's own certificate, then its chain */
};

struct kms_agentd_token_conf {
    const char *backend; /* an entry of backends; the token's name in the protocol */
    const char *label;   /* NULL: the service's own */
    enum kms_agentd_login login;
    uint64_t keys_ttl_ns;
    char *const *keys; /* none: all that the service lists */
    size_t key_count;
    const struct kms_agentd_cert_conf *certificates;
    size_t certificate_count;
};

struct kms_agentd_conf {
    bool on;            /* there is an agent */
    bool is_private;    /* `kmsbridged --private`: for its own user, and gone when idle */
    const char *socket; /* absolute path, or "@name" */
    mode_t mode;
    uid_t owner; /* (uid_t)-1: leave */
    gid_t group; /* (gid_t)-1: leave */
    unsigned max_connections;
    unsigned max_connections_per_uid;
    unsigned calls_per_second; /* per uid; 0: no bound */
    unsigned concurrent_calls_per_uid;
    uint64_t idle_timeout_ns; /* a quiet connection is closed */
    uint64_t call_timeout_ns; /* ceiling of a call's deadline */
    uint64_t idle_exit_ns;    /* private: without a connection for so long */
    struct kms_agentd_token_conf *tokens;
    size_t token_count;
    struct kms_policy_rule *rules;
    size_t rule_count;
};

#endif
