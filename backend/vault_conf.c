/* SPDX-License-Identifier: Apache-2.0 */
/* `vault:` in the configuration. */
#include <string.h>

#include "backend/backend_conf_schema.h"
#include "backend/vault_conf_schema.h"
#include "common/numbers.h"
#include "common/secret.h"

#define REQUIRED CYAML_FLAG_POINTER
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define TEXT(key, flags, type, member)                                                             \
    CYAML_FIELD_STRING_PTR(key, flags, type, member, 0, CYAML_UNLIMITED)

static const cyaml_schema_value_t address_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_field_t auth_fields[] = {
    TEXT("method", REQUIRED, struct kms_vault_auth_conf, method),
    TEXT("mount", OPTIONAL, struct kms_vault_auth_conf, mount),
    TEXT("role", OPTIONAL, struct kms_vault_auth_conf, role),
    TEXT("role_id", OPTIONAL, struct kms_vault_auth_conf, role_id),
    TEXT("secret_id", OPTIONAL, struct kms_vault_auth_conf, secret_id),
    TEXT("secret_id_is_wrapped", OPTIONAL, struct kms_vault_auth_conf, secret_id_is_wrapped),
    TEXT("token", OPTIONAL, struct kms_vault_auth_conf, token),
    TEXT("jwt", OPTIONAL, struct kms_vault_auth_conf, jwt),
    CYAML_FIELD_END,
};

const cyaml_schema_field_t kms_vault_conf_fields[] = {
    CYAML_FIELD_SEQUENCE("addresses", REQUIRED, struct kms_vault_conf, addresses, &address_value, 1,
                         KMS_VAULT_ADDRESSES_MAX),
    TEXT("mount", OPTIONAL, struct kms_vault_conf, mount),
    TEXT("namespace", OPTIONAL, struct kms_vault_conf, name_space),
    TEXT("ca_file", OPTIONAL, struct kms_vault_conf, ca_file),
    TEXT("certificate", OPTIONAL, struct kms_vault_conf, certificate),
    TEXT("key", OPTIONAL, struct kms_vault_conf, key),
    TEXT("server_name", OPTIONAL, struct kms_vault_conf, server_name),
    TEXT("proxy", OPTIONAL, struct kms_vault_conf, proxy),
    TEXT("connections", OPTIONAL, struct kms_vault_conf, connections_text),
    TEXT("http_version", OPTIONAL, struct kms_vault_conf, http_version),
    TEXT("allow_destroy", OPTIONAL, struct kms_vault_conf, allow_destroy),
    CYAML_FIELD_MAPPING_PTR("auth", REQUIRED, struct kms_vault_conf, auth, auth_fields),
    CYAML_FIELD_END,
};

/* ---- checks ------------------------------------------------------------------------------- */

/* By its look alone: whether it is a URL that may be used says the backend that opens it. */
static enum kms_status check_addresses(const struct kms_conf_place *place,
                                       struct kms_vault_conf *vault)
{
    for (unsigned i = 0; i < vault->addresses_count; i++) {
        const char *address = vault->addresses[i];
        size_t len = strlen(address);

        if ((strncmp(address, "https://", 8) != 0 && strncmp(address, "http://", 7) != 0) ||
            address[len - 1] == '/' || strpbrk(address, "@? ") != NULL ||
            strcmp(address + len - 3, "/v1") == 0) { /* which we put behind it */
            return kms_conf_place_fail(
                place, "addresses",
                "each must look like https://host:8200, without a slash or /v1 at the end");
        }
    }
    return KMS_OK;
}

static bool is_path(const char *text)
{
    return text == NULL || (text[0] != '\0' && strlen(text) < 128 &&
                            strpbrk(text, " ?#%\"\\") == NULL && strstr(text, "..") == NULL &&
                            strstr(text, "//") == NULL && strspn(text, "/") < strlen(text));
}

/*
 * It stands in a URL for the address's host: labels of letters, digits, '-' and, as some have it,
 * '_' (RFC 1123 2.1, RFC 1035 2.3.4), or an IPv4 address. A final dot is in no certificate.
 */
static bool is_host(const char *text)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const char *at = text;

    for (;;) {
        size_t len = strspn(at, chars);

        if (len == 0 || len > 63 || at[0] == '-' || at[len - 1] == '-') {
            return false;
        }
        at += len;
        if (*at != '.') {
            return *at == '\0' && at - text <= 253;
        }
        at++;
    }
}

static bool is_absolute(const char *text)
{
    return text == NULL || text[0] == '/';
}

static bool is_bool(const char *text)
{
    return text == NULL || strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
}

static enum kms_status check_words(const struct kms_conf_place *place, struct kms_vault_conf *vault)
{
    const struct {
        const char *key;
        bool good;
        const char *sentence;
    } rows[] = {
        {"auth.role_id", !kms_conf_is_secret_ref(vault->auth->role_id),
         "is the id itself, not where it is"},
        {"mount", is_path(vault->mount), "must be the path of a secrets engine, as transit"},
        {"namespace", is_path(vault->name_space), "must be a namespace's path"},
        {"auth.mount", is_path(vault->auth->mount), "must be the path of an auth method"},
        {"ca_file", is_absolute(vault->ca_file), "must be an absolute path"},
        {"certificate", is_absolute(vault->certificate), "must be an absolute path"},
        {"key", is_absolute(vault->key) || strncmp(vault->key, "pkcs11:", strlen("pkcs11:")) == 0,
         "must be an absolute path or a pkcs11: URI"},
        {"key", vault->key == NULL || strstr(vault->key, "pin-value") == NULL,
         "must not hold a PIN; a file with it can be named as pin-source"},
        {"key", (vault->certificate == NULL) == (vault->key == NULL),
         "and certificate go together"},
        {"server_name", vault->server_name == NULL || is_host(vault->server_name),
         "must be a host name, as in the certificate"},
        {"proxy", kms_conf_is_proxy(vault->proxy), "must look like http://host:port"},
        {"allow_destroy", is_bool(vault->allow_destroy), "must be true or false"},
        {"auth.secret_id_is_wrapped", is_bool(vault->auth->secret_id_is_wrapped),
         "must be true or false"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!rows[i].good) {
            return kms_conf_place_fail(place, rows[i].key, rows[i].sentence);
        }
    }
    return KMS_OK;
}

static enum kms_status check_connections(const struct kms_conf_place *place,
                                         struct kms_vault_conf *vault)
{
    uint64_t value = KMS_VAULT_CONNECTIONS_DEFAULT;

    if (vault->connections_text != NULL &&
        kms_parse_u64(vault->connections_text, 1, KMS_VAULT_CONNECTIONS_MAX, &value) != KMS_OK) {
        return kms_conf_place_fail(place, "connections", "must be a number from 1 to 256");
    }
    vault->connections = (unsigned)value;
    return KMS_OK;
}

/*
 * HTTP/1.1 unless told otherwise: each of the two servers is Go's net/http, which does an exchange
 * over HTTP/2 through more goroutines; against OpenBao a call takes a fifth to a quarter less time
 * over a connection of its own (tests/bench/vault.sh).
 */
static enum kms_status check_http_version(const struct kms_conf_place *place,
                                          struct kms_vault_conf *vault)
{
    const char *version = vault->http_version == NULL ? "1.1" : vault->http_version;

    vault->http2 = strcmp(version, "2") == 0;
    return vault->http2 || strcmp(version, "1.1") == 0
               ? KMS_OK
               : kms_conf_place_fail(place, "http_version", "must be 1.1 or 2");
}

/* ---- auth: what each method needs --------------------------------------------------------- */

enum need { NOT, MAY, MUST };

static const struct method {
    const char *name;
    enum need role, role_id, secret_id, token, jwt, certificate;
} methods[] = {
    {"token", NOT, NOT, NOT, MUST, NOT, MAY},       {"approle", NOT, MUST, MUST, NOT, NOT, MAY},
    {"kubernetes", MUST, NOT, NOT, NOT, MUST, MAY}, {"jwt", MUST, NOT, NOT, NOT, MUST, MAY},
    {"cert", MAY, NOT, NOT, NOT, NOT, MUST},
};

static enum kms_status check_need(const struct kms_conf_place *place, const char *key,
                                  enum need need, const char *value, bool is_secret)
{
    struct kms_error error = KMS_ERROR_INIT;

    if (need == MUST && value == NULL) {
        return kms_conf_place_fail(place, key, "is missing, and this auth method needs it");
    }
    if (need == NOT && value != NULL) {
        return kms_conf_place_fail(place, key, "is not of this auth method");
    }
    if (is_secret && value != NULL && kms_secret_check_ref(value, &error) != KMS_OK) {
        return kms_conf_place_fail(place, key, error.text);
    }
    return value != NULL && value[0] == '\0' ? kms_conf_place_fail(place, key, "is empty") : KMS_OK;
}

static enum kms_status check_auth(const struct kms_conf_place *place, struct kms_vault_conf *vault)
{
    const struct kms_vault_auth_conf *auth = vault->auth;
    const struct method *method = NULL;
    enum kms_status status = KMS_OK;

    for (size_t i = 0; method == NULL && i < sizeof(methods) / sizeof(methods[0]); i++) {
        method = strcmp(methods[i].name, auth->method) == 0 ? &methods[i] : NULL;
    }
    if (method == NULL) {
        return kms_conf_place_fail(place, "auth.method",
                                   "must be token, approle, kubernetes, jwt or cert");
    }
    const struct {
        const char *key;
        enum need need;
        const char *value;
        bool is_secret;
    } rows[] = {
        {"auth.role", method->role, auth->role, false},
        {"auth.role_id", method->role_id, auth->role_id, false},
        {"auth.secret_id", method->secret_id, auth->secret_id, true},
        {"auth.token", method->token, auth->token, true},
        {"auth.jwt", method->jwt, auth->jwt, true},
        {"certificate", method->certificate, vault->certificate, false},
    };

    for (size_t i = 0; status == KMS_OK && i < sizeof(rows) / sizeof(rows[0]); i++) {
        status = check_need(place, rows[i].key, rows[i].need, rows[i].value, rows[i].is_secret);
    }
    return status;
}

enum kms_status kms_vault_conf_check(struct kms_vault_conf *vault, const struct kms_conf_text *text,
                                     const char *path, struct kms_error *err)
{
    static enum kms_status (*const checks[])(const struct kms_conf_place *place,
                                             struct kms_vault_conf *vault) = {
        check_addresses, check_words, check_connections, check_http_version, check_auth};
    const struct kms_conf_place place = {
        .text = text, .entry = path, .section = "vault.", .err = err};
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(checks) / sizeof(checks[0]); i++) {
        status = checks[i](&place, vault);
    }
    return status;
}
