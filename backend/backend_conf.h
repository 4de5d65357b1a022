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
    char *ca_file;             /* that signed the endpoint's certificate; NULL: the system's */
    char *proxy;               /* to KMS; NULL: none */
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
    char *profile_file; /* INI */
    char *profile;      /* its section */
    char *ecs_role;     /* NULL: the instance's own */
    char *metadata_endpoint;
    char *imds_v1_text;
    bool imds_v1; /* the metadata service may be asked without a token */
    char *credentials_uri;
};

#define KMS_ALIBABA_CONTEXT_MAX       7   /* entries; with the AAD's own */
#define KMS_ALIBABA_CONTEXT_ENTRY_MAX 200 /* bytes of "name=value" */

struct kms_backend_conf {
    char *name; /* how the rest of the configuration names it */
    char *type; /* a row of backend/registry.c */
    struct kms_hsm_conf *hsm;
    struct kms_alibaba_conf *alibaba;
};

#endif
