/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of `backends:` in the configuration: a name, a type, and that type's own settings. */
#ifndef KMS_BACKEND_BACKEND_CONF_H
#define KMS_BACKEND_BACKEND_CONF_H

#include <stdbool.h>

/* `hsm:`; strings are the YAML's, NULL where absent. */
struct kms_hsm_conf {
    char *module;        /* path of a PKCS#11 module, or a p11-kit module name without '/' */
    char *token;         /* token label, or a pkcs11: URI (RFC 7512) with token attributes */
    char *pin;           /* reference, common/secret.h; NULL: no login */
    unsigned sessions;   /* bound of the pool; 0: KMS_HSM_SESSIONS_DEFAULT */
    char *sessions_text; /* what the file says, and @sessions is made of: libcyaml's own numbers let
                            "32x" and "-1" pass */
    char *mechanism;     /* NULL or "auto", "aes-gcm", "aes-cbc-hmac", "rsa-oaep": restricts
                            KMS_ALG_BEST */
    char *init_args;     /* NULL, or the string that NSS-style modules take in pReserved */
};

#define KMS_HSM_SESSIONS_DEFAULT 32
#define KMS_HSM_SESSIONS_MAX     1024

/* `alibaba:`, Alibaba Cloud KMS; where a setting is absent, the vendor's environment variable
 * counts. */
struct kms_alibaba_conf {
    char *region;              /* NULL with an endpoint of its own */
    char *network;             /* NULL or "public", "vpc": which of the region's endpoints */
    char *endpoint;            /* base URL instead, such as a dedicated instance's */
    char **fallback_endpoints; /* base URLs of the same keys, asked in turn when the first fails */
    unsigned fallback_endpoints_count;
    char *ca_file;             /* that signed the endpoints' certificates; NULL: the system's */
    char *management_endpoint; /* base URL where keys are managed, when another one; see
                                  kms_alibaba_is_dedicated() */
    char *management_ca_file;  /* NULL: the system's */
    char *proxy;               /* to KMS and STS; NULL: none */
    char *connections_text;
    unsigned connections;      /* to KMS; 0: KMS_ALIBABA_CONNECTIONS_DEFAULT */
    char *instance;            /* new keys are made in this KMS instance; NULL: none */
    char **encryption_context; /* "name=value": authenticated with all that is sealed */
    unsigned encryption_context_count;
    char *deletion_days_text;
    unsigned deletion_days; /* how long a destroyed key can be taken back */
    char *credentials;      /* NULL or "auto", or the one source */
    char *access_key_id;
    char *access_key_secret; /* reference, common/secret.h */
    char *role_arn;          /* RRSA */
    char *oidc_provider_arn;
    char *oidc_token_file;
    char *role_session_name;
    char *session_seconds_text;
    unsigned session_seconds; /* how long the role is taken for */
    char *sts_endpoint;
    char *sts_ca_file;  /* NULL: the system's */
    char *profile_file; /* INI */
    char *cli_file;     /* the vendor's CLI's, JSON */
    char *profile;      /* its section, or profile */
    char *ecs_role;     /* NULL: the instance's own */
    char *metadata_endpoint;
    char *imds_v1_text;
    bool imds_v1; /* the metadata service may be asked without a token */
    char *credentials_uri;
};

/* Whether @endpoint is that of a dedicated instance: such a gateway uses keys, and manages none. */
bool kms_alibaba_is_dedicated(const char *endpoint);
/* A region's id, which goes into a host name. */
bool kms_alibaba_is_region(const char *text);

#define KMS_ALIBABA_CONNECTIONS_DEFAULT 16
#define KMS_ALIBABA_CONNECTIONS_MAX     256
#define KMS_ALIBABA_FALLBACKS_MAX       7
#define KMS_ALIBABA_CONTEXT_MAX         7   /* entries; with the AAD's own */
#define KMS_ALIBABA_CONTEXT_ENTRY_MAX   200 /* bytes of "name=value" */
/* `vault.auth:` */
struct kms_vault_auth_conf {
    char *method;               /* token, approle, kubernetes, jwt, cert */
    char *mount;                /* auth/<mount>/login; NULL: as the method */
    char *role;                 /* kubernetes, jwt: needed; cert: the certificate role, or NULL */
    char *role_id;              /* approle; no secret */
    char *secret_id;            /* approle: reference, common/secret.h */
    char *secret_id_is_wrapped; /* "true": what secret_id names is a response-wrapping token */
    char *token;                /* token: reference */
    char *jwt;                  /* kubernetes, jwt: reference; a file: may be readable by all */
};

/* `vault:`, HashiCorp Vault's or OpenBao's Transit engine. */
struct kms_vault_conf {
    char **addresses; /* base URLs of the cluster's nodes, the preferred one first */
    unsigned addresses_count;
    char *mount;       /* of the engine; NULL: "transit" */
    char *name_space;  /* `namespace:`; NULL: none */
    char *ca_file;     /* NULL: the system's */
    char *certificate; /* client certificate, PEM */
    char *key;         /* its key: PEM, or a pkcs11: URI */
    char *server_name; /* in the certificate of the nodes, when not the address's host */
    char *proxy;       /* NULL: none */
    char *connections_text;
    unsigned connections; /* for each node; 0: KMS_VAULT_CONNECTIONS_DEFAULT */
    char *http_version;   /* "1.1", or "2": where it is offered; NULL: 1.1 */
    bool http2;           /* it is "2" */
    char *allow_destroy; /* "true": destroy deletes keys, deletion_allowed or not; else it is denied
                          */
    struct kms_vault_auth_conf *auth;
};

#define KMS_VAULT_ADDRESSES_MAX       8
#define KMS_VAULT_CONNECTIONS_DEFAULT 16
#define KMS_VAULT_CONNECTIONS_MAX     256

struct kms_backend_conf {
    char *name; /* how the rest of the configuration names it */
    char *type; /* a row of backend/registry.c */
    struct kms_hsm_conf *hsm;
    struct kms_alibaba_conf *alibaba;
    struct kms_vault_conf *vault;
};

/*
 * How many operations the key service of @conf, a checked one, does at once where that is known by
 * its settings: who begins more of them only waits. 0: not known.
 */
unsigned kms_backend_conf_at_once(const struct kms_backend_conf *conf);

/* Whether two entries, checked or not, say the same in each of their settings. */
bool kms_backend_conf_same(const struct kms_backend_conf *a, const struct kms_backend_conf *b);

#endif
