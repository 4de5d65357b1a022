/* SPDX-License-Identifier: Apache-2.0 */
/* `vault:` in the configuration: what is needed, what is refused, and where a secret was written.
 */
#include <string.h>

#include "backend/backend_conf_schema.h"
#include "tests/unit/unit.h"

#define SECRET     "hvs.0123456789"
#define HEAD       "name: v\ntype: vault\nvault:\n"
#define WHERE      HEAD "  addresses: ['https://a:8200']\n"
#define TOKEN      "  auth: {method: token, token: 'file:/t'}\n"
#define LABEL_62   "a0123456789012345678901234567890123456789012345678901234567890"
#define WITH(line) WHERE "  " line "\n" TOKEN
#define AUTH(line) WHERE "  auth: {" line "}\n"

static const cyaml_schema_value_t entry_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_backend_conf, kms_backend_conf_fields),
};

static const struct {
    const char *yaml, *wrong; /* NULL: good */
} rows[] = {
    {WHERE TOKEN, NULL},
    {WITH("mount: team/transit"), NULL},
    {WITH("namespace: a/b"), NULL},
    {WITH("connections: 256"), NULL},
    {WITH("http_version: 1.1"), NULL},
    {WITH("http_version: 2"), NULL},
    {WITH("allow_destroy: true"), NULL},
    {WITH("ca_file: /ca.pem"), NULL},
    {WITH("server_name: vault.example"), NULL},
    {WITH("server_name: Vault_1"), NULL},
    {WITH("server_name: 10.0.0.1"), NULL},
    {WITH("server_name: x" LABEL_62), NULL},
    {WITH("server_name: a." LABEL_62 "." LABEL_62 "." LABEL_62 "." LABEL_62), NULL},
    {WHERE "  certificate: /c.pem\n  key: 'pkcs11:token=t;object=k'\n" TOKEN, NULL},
    {WHERE "  certificate: /c.pem\n  key: /k.pem\n  auth: {method: cert}\n", NULL},
    {AUTH("method: approle, role_id: r, secret_id: 'env:S'"), NULL},
    {AUTH("method: approle, role_id: r, secret_id: 'env:S', secret_id_is_wrapped: true"), NULL},
    {AUTH("method: kubernetes, role: r, jwt: 'file:/j'"), NULL},
    {AUTH("method: jwt, role: r, jwt: 'credential:j', mount: oidc"), NULL},
    {HEAD TOKEN, "vault.addresses"},
    {HEAD "  addresses: []\n" TOKEN, "vault.addresses"},
    {HEAD "  addresses: ['a:8200']\n" TOKEN, "vault.addresses: each must look like"},
    {HEAD "  addresses: ['https://a:8200/']\n" TOKEN, "vault.addresses: each must look like"},
    {HEAD "  addresses: ['https://u@a']\n" TOKEN, "vault.addresses: each must look like"},
    {HEAD "  addresses: ['https://a:8200/v1']\n" TOKEN, "vault.addresses: each must look like"},
    {HEAD "  addresses: ['https://a/behind/v10']\n" TOKEN, NULL},
    {WHERE, "vault.auth"},
    {WITH("mount: ''"), "vault.mount: must"},
    {WITH("mount: a/../sys"), "vault.mount: must"},
    {WITH("mount: 'a?b'"), "vault.mount: must"},
    {WITH("mount: /"), "vault.mount: must"},
    {WITH("namespace: 'a b'"), "vault.namespace: must"},
    {WITH("connections: 0"), "vault.connections: must"},
    {WITH("connections: 257"), "vault.connections: must"},
    {WITH("connections: 3x"), "vault.connections: must"},
    {WITH("http_version: 3"), "vault.http_version: must be 1.1 or 2"},
    {WITH("http_version: '1'"), "vault.http_version: must be 1.1 or 2"},
    {WITH("allow_destroy: maybe"), "vault.allow_destroy: must"},
    {WITH("ca_file: ca.pem"), "vault.ca_file: must be an absolute"},
    {WITH("certificate: /c.pem"), "vault.key: and certificate go together"},
    {WITH("key: /k.pem"), "vault.key: and certificate go together"},
    {WHERE "  certificate: /c.pem\n  key: 'pkcs11:object=k?pin-value=" SECRET "'\n" TOKEN,
     "vault.key: must not hold a PIN"},
    {WITH("proxy: host:3128"), "vault.proxy: must"},
    {WITH("proxy: 'httpx://host'"), "vault.proxy: must"},
    {WITH("proxy: 'http://host:3128'"), NULL},
    {WITH("server_name: vault.example/v1"), "e.vault.server_name: must be a host name"},
    {WITH("server_name: ''"), "vault.server_name: must"},
    {WITH("server_name: 'a b'"), "vault.server_name: must"},
    {WITH("server_name: vault.example:8200"), "vault.server_name: must"},
    {WITH("server_name: user@vault.example"), "vault.server_name: must"},
    {WITH("server_name: 'vault.example#'"), "vault.server_name: must"},
    {WITH("server_name: 'vault.example?x'"), "vault.server_name: must"},
    {WITH("server_name: 'vault.example.'"), "vault.server_name: must"},
    {WITH("server_name: vault..example"), "vault.server_name: must"},
    {WITH("server_name: -vault.example"), "vault.server_name: must"},
    {WITH("server_name: vault-.example"), "vault.server_name: must"},
    {WITH("server_name: '[::1]'"), "vault.server_name: must"},
    {WITH("server_name: \"v\\u00e4ult\""), "vault.server_name: must"},
    {WITH("server_name: \"vault\\r\\nX: y\""), "vault.server_name: must"},
    {WITH("server_name: xx" LABEL_62), "vault.server_name: must"},
    {WITH("server_name: aa." LABEL_62 "." LABEL_62 "." LABEL_62 "." LABEL_62),
     "vault.server_name: must"},
    {WITH("adresses: x"), "adresses"},
    {AUTH("method: password"), "vault.auth.method: must be token, approle"},
    {AUTH("method: token"), "vault.auth.token: is missing"},
    {AUTH("method: token, token: " SECRET), "vault.auth.token: a secret is never written"},
    {AUTH("method: token, token: 'file:" SECRET "'"), "vault.auth.token: this reference"},
    {AUTH("method: token, token: 'env:T', role: r"), "vault.auth.role: is not of this"},
    {AUTH("method: approle, role_id: r"), "vault.auth.secret_id: is missing"},
    {AUTH("method: approle, secret_id: 'env:S'"), "vault.auth.role_id: is missing"},
    {AUTH("method: approle, role_id: 'file:/r', secret_id: 'env:S'"),
     "vault.auth.role_id: is the id"},
    {AUTH("method: approle, role_id: 'a:b', secret_id: 'env:S'"), NULL},
    {AUTH("method: approle, role_id: r, secret_id: " SECRET), "vault.auth.secret_id: a secret"},
    {AUTH("method: approle, role_id: r, secret_id: 'env:S', secret_id_is_wrapped: yes"),
     "vault.auth.secret_id_is_wrapped: must"},
    {AUTH("method: kubernetes, jwt: 'file:/j'"), "vault.auth.role: is missing"},
    {AUTH("method: kubernetes, role: r"), "vault.auth.jwt: is missing"},
    {AUTH("method: kubernetes, role: '', jwt: 'file:/j'"), "vault.auth.role: is empty"},
    {AUTH("method: cert"), "vault.certificate: is missing"},
    {AUTH("method: jwt, role: r, jwt: 'file:/j', mount: '../x'"), "vault.auth.mount: must"},
    {"name: v\ntype: vault\nhsm: {module: /m, token: t}\n", "hsm: is not of this entry's type"},
    {"name: v\ntype: vault\n", "vault: is missing"},
};

static void each_is_judged(void)
{
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_conf_text text = {
            .name = "f", .content = rows[i].yaml, .len = strlen(rows[i].yaml)};
        struct kms_error err = KMS_ERROR_INIT;
        void *data = NULL;
        enum kms_status status =
            kms_conf_parse(text.name, text.content, text.len, &entry_value, &data, &err);

        if (status == KMS_OK) {
            status = kms_backend_conf_check(data, &text, "e", &err);
            kms_conf_free(&entry_value, data);
        }
        UNIT_CHECK(rows[i].yaml, status == (rows[i].wrong == NULL ? KMS_OK : KMS_E_INVALID));
        if (rows[i].wrong != NULL) {
            UNIT_CHECK(err.text, strstr(err.text, rows[i].wrong) != NULL);
        }
        UNIT_CHECK(rows[i].yaml, strstr(err.text, SECRET) == NULL);
    }
}

static void numbers_have_defaults(void)
{
    static const char yaml[] = WHERE TOKEN;
    const struct kms_conf_text text = {.name = "f", .content = yaml, .len = sizeof(yaml) - 1};
    struct kms_error err = KMS_ERROR_INIT;
    void *data = NULL;
    const struct kms_backend_conf *conf = NULL;

    CU_ASSERT_EQUAL_FATAL(
        kms_conf_parse(text.name, text.content, text.len, &entry_value, &data, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_backend_conf_check(data, &text, "e", &err), KMS_OK);
    conf = data;
    CU_ASSERT_EQUAL(conf->vault->connections, KMS_VAULT_CONNECTIONS_DEFAULT);
    CU_ASSERT_FALSE(conf->vault->http2);
    CU_ASSERT_EQUAL(conf->vault->addresses_count, 1);
    CU_ASSERT_PTR_NULL(conf->vault->mount);
    kms_conf_free(&entry_value, data);
}

/* No two good rows are the same; each is the same as itself, read again. */
static void each_setting_counts(void)
{
    struct kms_error err = KMS_ERROR_INIT;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        for (size_t k = 0; k < UNIT_COUNT(rows); k++) {
            void *a = NULL;
            void *b = NULL;

            if (rows[i].wrong != NULL || rows[k].wrong != NULL) {
                continue;
            }
            CU_ASSERT_EQUAL_FATAL(
                kms_conf_parse("f", rows[i].yaml, strlen(rows[i].yaml), &entry_value, &a, &err),
                KMS_OK);
            CU_ASSERT_EQUAL_FATAL(
                kms_conf_parse("f", rows[k].yaml, strlen(rows[k].yaml), &entry_value, &b, &err),
                KMS_OK);
            UNIT_CHECK(rows[i].yaml, kms_backend_conf_same(a, b) == (i == k));
            kms_conf_free(&entry_value, a);
            kms_conf_free(&entry_value, b);
        }
    }
}

static const struct unit_test tests[] = {
    {"each is judged", each_is_judged},
    {"numbers have defaults", numbers_have_defaults},
    {"each setting counts", each_setting_counts},
};

int main(void)
{
    return unit_main("test_vault_conf", tests, UNIT_COUNT(tests));
}
