/* SPDX-License-Identifier: Apache-2.0 */
/* `alibaba:` in the configuration: what is needed, what is refused, and where a secret was written.
 */
#include <string.h>

#include "backend/backend_conf_schema.h"
#include "tests/unit/unit.h"

#define SECRET     "fakeSecret0123456789"
#define HEAD       "name: a\ntype: alibaba\nalibaba:\n"
#define WHERE      HEAD "  region: cn-hangzhou\n"
#define DEDICATED  "  endpoint: https://kst.cryptoservice.kms.aliyuncs.com\n"
#define WITH(line) WHERE "  " line "\n"

static const cyaml_schema_value_t entry_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_backend_conf, kms_backend_conf_fields),
};

static const struct {
    const char *yaml, *wrong; /* NULL: good */
} rows[] = {
    {WHERE, NULL},
    {WHERE DEDICATED, NULL},
    {WHERE DEDICATED "  network: vpc\n", NULL},
    {HEAD DEDICATED "  management_endpoint: https://kms.cn-hangzhou.aliyuncs.com\n", NULL},
    {WITH("management_endpoint: https://kms.cn-hangzhou.aliyuncs.com"), NULL},
    {WITH("management_ca_file: /a\n  sts_ca_file: /b"), NULL},
    {HEAD "  endpoint: http://127.0.0.1:8080\n", NULL},
    {WITH("network: vpc"), NULL},
    {WITH("proxy: 'http://proxy.example:3128'"), NULL},
    {WITH("network: public"), NULL},
    {WITH("fallback_endpoints: ['https://kms.cn-hangzhou.aliyuncs.com']"), NULL},
    {WITH("credentials: ecs"), NULL},
    {WITH("credentials: cli\n  cli_file: /root/.aliyun/config.json\n  profile: kms"), NULL},
    {WITH("tokenless_metadata: true"), NULL},
    {WITH("deletion_days: 366"), NULL},
    {WITH("session_seconds: 900"), NULL},
    {WITH("connections: 256"), NULL},
    {WITH("encryption_context: ['a=b', 'aa=c=d', 'ab=']"), NULL},
    {WITH("access_key_id: I\n  access_key_secret: 'env:S'"), NULL},
    {WITH("access_key_id: 'env:I'\n  access_key_secret: 'env:S'"),
     "alibaba.access_key_id: is the id"},
    {HEAD "  network: vpc\n", "alibaba.region: is missing"},
    {HEAD DEDICATED, "alibaba.region: is missing: a dedicated instance"},
    {HEAD "  endpoint: https://KST.CRYPTOSERVICE.kms.aliyuncs.com:443\n",
     "alibaba.region: is missing: a dedicated instance"},
    {HEAD DEDICATED "  management_endpoint: https://a\n  network: vpc\n",
     "alibaba.network: says nothing"},
    {WITH("management_endpoint: a"), "alibaba.management_endpoint: must look like"},
    {WITH("management_ca_file: ca.pem"), "alibaba.management_ca_file: must be an absolute"},
    {WITH("sts_ca_file: ca.pem"), "alibaba.sts_ca_file: must be an absolute"},
    {HEAD "  region: CN\n", "alibaba.region: must"},
    {HEAD "  region: 'a.example/'\n", "alibaba.region: must"},
    {WITH("network: private"), "alibaba.network: must"},
    {HEAD "  endpoint: https://a\n  network: vpc\n", "alibaba.network: says nothing"},
    {HEAD "  endpoint: a.example\n", "alibaba.endpoint: must look like"},
    {HEAD "  endpoint: https://a/\n", "alibaba.endpoint: must look like"},
    {HEAD "  endpoint: https://u@a\n", "alibaba.endpoint: must look like"},
    {WITH("fallback_endpoints: ['https://a', 'b']"), "alibaba.fallback_endpoints: must look like"},
    {WITH("fallback_endpoints: [h, h, h, h, h, h, h, h]"), "fallback_endpoints"},
    {WITH("sts_endpoint: sts.aliyuncs.com"), "alibaba.sts_endpoint: must look like"},
    {WITH("metadata_endpoint: x"), "alibaba.metadata_endpoint: must look like"},
    {WITH("proxy: proxy.example:3128"), "alibaba.proxy: must look like"},
    {WITH("proxy: 'httpx://a'"), "alibaba.proxy: must look like"},
    {WITH("deletion_days: 6"), "alibaba.deletion_days: must"},
    {WITH("deletion_days: 7d"), "alibaba.deletion_days: must"},
    {WITH("session_seconds: 899"), "alibaba.session_seconds: must"},
    {WITH("session_seconds: 43201"), "alibaba.session_seconds: must"},
    {WITH("connections: 0"), "alibaba.connections: must"},
    {WITH("encryption_context: [a]"), "alibaba.encryption_context: each must"},
    {WITH("encryption_context: ['=b']"), "alibaba.encryption_context: each must"},
    {WITH("encryption_context: ['a=b', 'a=c']"), "alibaba.encryption_context: names something"},
    {WITH("encryption_context: ['kmsbridge-aad=x']"), "alibaba.encryption_context: kmsbridge-aad"},
    {WITH("credentials: magic"), "alibaba.credentials: must"},
    {WITH("credentials: access_key"), "alibaba.access_key_id: is missing"},
    {WITH("access_key_id: I"), "alibaba.access_key_secret: is missing"},
    {WITH("access_key_secret: 'env:S'"), "alibaba.access_key_id: is missing"},
    {WITH("access_key_id: I\n  access_key_secret: " SECRET), "alibaba.access_key_secret: "},
    {WITH("tokenless_metadata: perhaps"), "alibaba.tokenless_metadata: must"},
    {WITH("oidc_token_file: token"), "alibaba.oidc_token_file: must be an absolute"},
    {WITH("cli_file: config.json"), "alibaba.cli_file: must be an absolute"},
    {WITH("profile_file: a.ini"), "alibaba.profile_file: must be an absolute"},
    {WITH("ca_file: ca.pem"), "alibaba.ca_file: must be an absolute"},
    {WITH("regoin: x"), "regoin"},
    {"name: a\ntype: alibaba\n", "alibaba: is missing"},
    {"name: a\ntype: alibaba\nhsm: {module: /m, token: t}\n", "hsm: is not of this entry's type"},
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
    static const char yaml[] = WHERE;
    const struct kms_conf_text text = {.name = "f", .content = yaml, .len = sizeof(yaml) - 1};
    struct kms_error err = KMS_ERROR_INIT;
    void *data = NULL;
    const struct kms_backend_conf *conf = NULL;

    CU_ASSERT_EQUAL_FATAL(
        kms_conf_parse(text.name, text.content, text.len, &entry_value, &data, &err), KMS_OK);
    CU_ASSERT_EQUAL(kms_backend_conf_check(data, &text, "e", &err), KMS_OK);
    conf = data;
    CU_ASSERT_EQUAL(conf->alibaba->deletion_days, 30);
    CU_ASSERT_EQUAL(conf->alibaba->session_seconds, 3600);
    CU_ASSERT_EQUAL(conf->alibaba->connections, KMS_ALIBABA_CONNECTIONS_DEFAULT);
    CU_ASSERT_FALSE(conf->alibaba->imds_v1);
    kms_conf_free(&entry_value, data);
}

static const struct unit_test tests[] = {
    {"each is judged", each_is_judged},
    {"numbers have defaults", numbers_have_defaults},
};

int main(void)
{
    return unit_main("test_alibaba_conf", tests, UNIT_COUNT(tests));
}
