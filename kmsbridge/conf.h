/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's configuration: the YAML file checked and turned into ready values. Every default is
 * here. Used by kmsbridged and by kmsbridgectl (config check, encryption-config).
 */
#ifndef KMSBRIDGE_CONF_H
#define KMSBRIDGE_CONF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "backend/backend_conf.h"
#include "common/log.h"
#include "common/status.h"
#include "kmsbridge/agent_conf.h"

#define KMS_CONF_PATH "/etc/kmsbridge/kmsbridge.yaml" /* default of --config */

enum kms_on_failure {
    KMS_STOP_WRITING, /* Status answers an error: the API server stops writing after its 3 minutes
                       */
    KMS_KEEP_WRITING  /* Status answers an unhealthy healthz with the key_id: writes go on with the
                         old seed */
};

struct kms_kms_conf {
    const char *socket; /* absolute path, or "@name" for an abstract socket */
    mode_t mode;        /* 0600 */
    uid_t owner;        /* (uid_t)-1: leave */
    gid_t group;        /* (gid_t)-1: leave */
    uid_t *allow_uids;  /* root and our own user when the file names none */
    size_t allow_uid_count;
    gid_t *allow_gids;
    size_t allow_gid_count;
    const char *backend;       /* name of an entry of backends */
    const char *key;           /* label, "id:HEX" (CKA_ID) or a pkcs11: URI with object or id */
    const char *api_version;   /* "v2" or "v2beta1" */
    const char *provider_name; /* `name:` printed into EncryptionConfiguration: "kmsbridge" */
    enum kms_on_failure on_failure;
    uint64_t probe_interval_ns;   /* 30s */
    uint64_t refresh_interval_ns; /* 30s: how often new keys of the label are looked for */
    uint64_t
        call_timeout_ns; /* 3s: ceiling of a call's deadline, also for a client that sets none */
    unsigned max_connections; /* 64 */
    unsigned max_calls;       /* 1024 in flight, over all connections */
    unsigned workers;         /* 32 threads at most, made when needed; fewer where
                                 kms_backend_conf_at_once() says so */
    unsigned queue;           /* 1024 calls waiting for a worker */
};

struct kms_conf {
    atomic_uint holders; /* beside the first */
    char *path;          /* of the file, for messages */
    enum kms_log_level log_level;
    enum kms_log_format log_format;
    struct kms_backend_conf *backends;
    size_t backend_count;
    struct kms_kms_conf kms;    /* socket is NULL: there is no KMS plugin */
    const char *monitor_listen; /* "127.0.0.1:8780", "[::1]:8780", "unix:/path"; NULL: no monitor */
    const char *log_file;       /* NULL: standard error */
    struct kms_agentd_conf agent;
    struct kms_audit_conf audit;
    void *raw; /* the YAML's own struct, owns the strings above */
};

/*
 * Loads and checks the file. Errors: KMS_E_NOT_FOUND, KMS_E_DENIED, KMS_E_INVALID; the text names
 * file, line where the YAML parser knows it, and the key ("kms.mode: \"0999\" is not an octal
 * mode"). The caller frees *ret_conf with kms_conf_done().
 */
enum kms_status kms_conf_read(const char *path, struct kms_conf **ret_conf,
                              struct kms_error *err) KMS_MUST_CHECK;
/* For `kmsbridged --private`: needs neither kms: nor agent:, and looks at no kms: or monitor:. */
enum kms_status kms_conf_read_private(const char *path, struct kms_conf **ret_conf,
                                      struct kms_error *err) KMS_MUST_CHECK;
/* Listens at @socket then, and logs to @log_file unless the file says where; borrowed, for good. */
void kms_conf_make_private(struct kms_conf *conf, const char *socket, const char *log_file);
/* The same from memory, for fuzzers and tests. */
enum kms_status kms_conf_read_text(const char *name, const char *text, size_t len,
                                   struct kms_conf **ret_conf,
                                   struct kms_error *err) KMS_MUST_CHECK;
/* One more who calls kms_conf_done(); the last of them frees it. Any thread. */
struct kms_conf *kms_conf_hold(struct kms_conf *conf);
void kms_conf_done(struct kms_conf *conf); /* NULL is fine */

/* The entry of `backends:` that has this name, or NULL. */
const struct kms_backend_conf *kms_conf_backend(const struct kms_conf *conf, const char *name);

#endif
