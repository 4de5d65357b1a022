/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of `backends:` in the configuration: a name, a type, and that type's own settings. */
#ifndef KMS_BACKEND_BACKEND_CONF_H
#define KMS_BACKEND_BACKEND_CONF_H

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

struct kms_backend_conf {
    char *name; /* how the rest of the configuration names it */
    char *type; /* a row of backend/registry.c */
    struct kms_hsm_conf *hsm;
};

#endif
