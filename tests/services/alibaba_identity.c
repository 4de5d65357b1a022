/* SPDX-License-Identifier: Apache-2.0 */
/* Each source of credentials alone, their order, renewal; and whom TLS trusts. */
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/services/alibaba.h"

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

static const char *const variables[] = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID",     "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",    "ALIBABA_CLOUD_ROLE_ARN",
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    "ALIBABA_CLOUD_CREDENTIALS_FILE",  "ALIBABA_CLOUD_PROFILE",
    "ALIBABA_CLOUD_ECS_METADATA",      "ALIBABA_CLOUD_ECS_METADATA_DISABLED",
    "ALIBABA_CLOUD_IMDSV1_DISABLED",   "ALIBABA_CLOUD_CREDENTIALS_URI",
    "ALIBABA_CLOUD_STS_ENDPOINT",      "ALIBABA_CLOUD_STS_REGION",
    "ALIBABA_CLOUD_ROLE_SESSION_NAME", "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED",
    "ALIBABA_CLOUD_CONFIG_FILE",       "ALIBABA_CLOUD_CLI_PROFILE_DISABLED",
};

/* Settings for one source; nothing of the environment takes part. */
static void setup(struct ali *ali, const char *source)
{
    for (size_t i = 0; i < UNIT_COUNT(variables); i++) {
        (void)unsetenv(variables[i]);
    }
    (void)setenv("HOME", ali_dir, 1); /* there is nothing in it */
    CU_ASSERT(ali_control("{\"do\":\"identity\"}", NULL, NULL));
    ali_setup(ali);
    ali->settings.credentials = unconst(source);
    ali->settings.access_key_id = NULL;
    ali->settings.access_key_secret = NULL;
}

static enum kms_status ask(struct ali *ali, struct kms_call *call)
{
    static const struct kms_key_filter none = {.ref = "none/none"};

    *call = ali_call();
    return kms_alibaba_ops.list_keys(ali->backend, call, &none, NULL, NULL);
}

static bool soon_well(struct ali *ali)
{
    struct kms_call call;

    for (unsigned i = 0; i < 60; i++) {
        const struct timespec nap = {.tv_nsec = 50000000};

        if (ask(ali, &call) == KMS_OK) {
            return true;
        }
        (void)nanosleep(&nap, NULL);
    }
    fprintf(stderr, "still: %s\n", call.error.text);
    return false;
}

static bool write_file(const char *name, const char *content, mode_t mode, char ret_path[256])
{
    FILE *file = NULL;

    (void)snprintf(ret_path, 256, "%s/%s", ali_dir, name);
    file = fopen(ret_path, "w");
    return file != NULL && fputs(content, file) >= 0 && fclose(file) == 0 &&
           chmod(ret_path, mode) == 0;
}

/* A projected token, with claims replaced by @over (JSON behind a comma). */
static bool write_token(const char *over, char ret_path[256])
{
    static char token[8192];
    char line[256];

    (void)snprintf(line, sizeof(line), "{\"do\":\"token\"%s}", over);
    return ali_control_text(line, "token", token, sizeof(token)) &&
           write_file("token", token, 0644, ret_path);
}

struct counts {
    uint64_t sts, imds, uri;
};

/* ali_calls() for three at once: it forgets what it told. */
static struct counts count_calls(void)
{
    struct counts counts = {.sts = 0};
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_error err = KMS_ERROR_INIT;

    CU_ASSERT(ali_control("{\"do\":\"calls\"}", &doc, &root) &&
              kms_json_u64_maybe(&root, "sts /", 0, 100, &counts.sts, &err) == KMS_OK &&
              kms_json_u64_maybe(&root, "imds /latest/api/token", 0, 100, &counts.imds, &err) ==
                  KMS_OK &&
              kms_json_u64_maybe(&root, "uri /credentials", 0, 100, &counts.uri, &err) == KMS_OK);
    kms_json_free(doc);
    return counts;
}

/* ---- sources ------------------------------------------------------------------------------ */

static void the_environment(void)
{
    struct ali ali;
    struct kms_call call;
    struct kms_json_doc *doc = NULL;
    struct kms_json sts;
    const char *id = "", *secret = "", *token = "";
    struct kms_error err = KMS_ERROR_INIT;

    setup(&ali, "environment");
    CU_ASSERT_FATAL(ali_open(&ali));
    CU_ASSERT_EQUAL(ask(&ali, &call), KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "environment:"));
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", ali_key_id, 1);
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", ali_secret, 1);
    CU_ASSERT(soon_well(&ali));
    ali_close(&ali);

    setup(&ali, "environment");
    CU_ASSERT_FATAL(ali_control("{\"do\":\"issue\"}", &doc, &sts));
    CU_ASSERT(kms_json_text(&sts, "AccessKeyId", 64, &id, &err) == KMS_OK &&
              kms_json_text(&sts, "AccessKeySecret", 64, &secret, &err) == KMS_OK &&
              kms_json_text(&sts, "SecurityToken", 4096, &token, &err) == KMS_OK);
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", id, 1);
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", secret, 1);
    (void)setenv("ALIBABA_CLOUD_SECURITY_TOKEN", token, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "with a token", ask(&ali, &call) == KMS_OK);
    kms_json_free(doc);
    ali_close(&ali);
}

static void rrsa(void)
{
    struct ali ali;
    struct kms_call call;
    char path[256];
    const struct timespec second = {.tv_sec = 1, .tv_nsec = 100000000};

    setup(&ali, "rrsa");
    CU_ASSERT_FATAL(write_token("", path));
    (void)setenv("ALIBABA_CLOUD_ROLE_ARN", ali_role_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", ali_provider_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", path, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    ALI_CHECK(&call, "rrsa", ask(&ali, &call) == KMS_OK);
    ALI_CHECK(&call, "rrsa", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("sts /"), 1); /* once for both */

    /* what STS gave is refused: the file is read anew, and the call is well all the same */
    (void)nanosleep(&second, NULL);
    CU_ASSERT(write_token("", path) && ali_control("{\"do\":\"expire\"}", NULL, NULL));
    ALI_CHECK(&call, "expired", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("sts /"), 1);

    /* and when the file is bad by then, it is said, and passes once it is good */
    (void)nanosleep(&second, NULL);
    CU_ASSERT(write_token(",\"lifetime\":-5", path) &&
              ali_control("{\"do\":\"expire\"}", NULL, NULL));
    ALI_CHECK(&call, "stale", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "AuthenticationFail.OIDCToken.Expired"));
    CU_ASSERT(strlen(call.error.request_id) == 36);
    CU_ASSERT(write_token("", path));
    CU_ASSERT(soon_well(&ali));
    ali_close(&ali);
}

static void bad_tokens_are_told(void)
{
    static const struct {
        const char *name, *over, *says;
    } bad[] = {
        {"forged", ",\"forged\":true", "OIDCToken.Invalid"},
        {"expired", ",\"lifetime\":-5", "OIDCToken.Expired"},
        {"audience", ",\"aud\":\"other\"", "AudienceMismatch"},
        {"issuer", ",\"iss\":\"https://other\"", "IssuerMismatch"},
        {"subject", ",\"sub\":\"system:serviceaccount:x:y\"", "NoPermission"},
    };
    char path[256];
    struct ali ali;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        setup(&ali, "rrsa");
        CU_ASSERT_FATAL(write_token(bad[i].over, path));
        ali.settings.role_arn = ali_role_arn;
        ali.settings.oidc_provider_arn = ali_provider_arn;
        ali.settings.oidc_token_file = path;
        CU_ASSERT_FATAL(ali_open(&ali));
        ALI_CHECK(&call, bad[i].name, ask(&ali, &call) == KMS_E_AUTH);
        UNIT_CHECK(bad[i].name, strstr(call.error.text, bad[i].says) != NULL);
        UNIT_CHECK(bad[i].name, strstr(call.error.text, "rrsa") != NULL);
        ali_close(&ali);
    }
    setup(&ali, "rrsa"); /* a file that is none */
    ali.settings.role_arn = ali_role_arn;
    ali.settings.oidc_provider_arn = ali_provider_arn;
    ali.settings.oidc_token_file = unconst("/nonexistent/token");
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "no file", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "/nonexistent/token"));
    ali_close(&ali);
}

static void a_profile_file(void)
{
    struct ali ali;
    struct kms_call call;
    char path[256], content[512];

    (void)snprintf(content, sizeof(content),
                   "# comment\n[other]\ntype = access_key\naccess_key_id = no\n"
                   "access_key_secret = no\n\n[default]\r\ntype = access_key\r\n"
                   "access_key_id = %s\naccess_key_secret=%s\n[node]\ntype=ecs_ram_role\n"
                   "role_name=%s\n",
                   ali_key_id, ali_secret, ali_role);
    setup(&ali, "profile");
    CU_ASSERT_FATAL(write_file("profile", content, 0600, path));
    ali.settings.profile_file = path;
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "default", ask(&ali, &call) == KMS_OK);
    ali_close(&ali);

    setup(&ali, "profile");
    ali.settings.profile_file = path;
    ali.settings.profile = unconst("node");
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "node", ask(&ali, &call) == KMS_OK);
    ali_close(&ali);

    setup(&ali, "profile");
    ali.settings.profile_file = path;
    ali.settings.profile = unconst("nobody");
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "nobody", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "[nobody]"));
    CU_ASSERT_PTR_EQUAL(strstr(call.error.text, "profile: "), call.error.text);
    ali_close(&ali);

    setup(&ali, "profile"); /* what everybody can read is no secret */
    ali.settings.profile_file = path;
    CU_ASSERT(chmod(path, 0644) == 0 && ali_open(&ali));
    ALI_CHECK(&call, "mode", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT(chmod(path, 0600) == 0 && soon_well(&ali));
    ali_close(&ali);
}

/* Each mode that asks somebody, found in the home. */
static void the_file_of_the_cli(void)
{
    struct ali ali;
    struct kms_call call;
    char folder[256], token[256], path[256], content[2048];
    static const char *const modes[] = {"AK", "EcsRamRole", "OIDC", "CredentialsURI"};

    setup(&ali, "auto");
    (void)snprintf(folder, sizeof(folder), "%s/.aliyun", ali_dir);
    CU_ASSERT_FATAL(mkdir(folder, 0700) == 0 && write_token("", token));
    for (size_t i = 0; i < UNIT_COUNT(modes); i++) {
        (void)snprintf(content, sizeof(content),
                       "{\"current\":\"a\",\"profiles\":[{\"name\":\"a\",\"mode\":\"%s\","
                       "\"access_key_id\":\"%s\",\"access_key_secret\":\"%s\","
                       "\"ram_role_name\":\"%s\",\"ram_role_arn\":\"%s\","
                       "\"oidc_provider_arn\":\"%s\",\"oidc_token_file\":\"%s\","
                       "\"credentials_uri\":\"%s\"}]}",
                       modes[i], ali_key_id, ali_secret, ali_role, ali_role_arn, ali_provider_arn,
                       token, ali.uri);
        struct counts counts;

        CU_ASSERT_FATAL(write_file(".aliyun/config.json", content, 0600, path) && ali_open(&ali));
        (void)ali_calls("");
        ALI_CHECK(&call, modes[i], ask(&ali, &call) == KMS_OK);
        counts = count_calls();
        UNIT_CHECK(modes[i],
                   counts.imds == (i == 1) && counts.sts == (i == 2) && counts.uri == (i == 3));
        ali_close(&ali);
        ali.backend = NULL;
    }
    CU_ASSERT(unlink(path) == 0 && rmdir(folder) == 0);
}

/* A profile of the CLI for a role; @more is JSON behind a comma. */
static bool write_role(const char *role, const char *id, const char *secret, const char *token,
                       const char *more, char ret_path[256])
{
    static char content[8192];
    int len = snprintf(content, sizeof(content),
                       "{\"current\":\"a\",\"profiles\":[{\"name\":\"a\",\"mode\":\"RamRoleArn\","
                       "\"access_key_id\":\"%s\",\"access_key_secret\":\"%s\",\"sts_token\":\"%s\","
                       "\"ram_role_arn\":\"%s\"%s}]}",
                       id, secret, token, role, more);

    return len > 0 && (size_t)len < sizeof(content) &&
           write_file("config.json", content, 0600, ret_path);
}

#define POLICY(action)                                                                             \
    ",\"policy\":\"{\\\"Version\\\":\\\"1\\\",\\\"Statement\\\":[{\\\"Effect\\\":\\\"Allow\\\","   \
    "\\\"Resource\\\":\\\"*\\\",\\\"Action\\\":\\\"" action "\\\"}]}\""

/* What is refused is told with file and profile, and by the service's code and request. */
static void a_role_by_a_key(void)
{
    static const struct {
        const char *name;
        const char *role, *secret; /* NULL: the right ones */
        const char *more;
        enum kms_status wanted;
        const char *code;
    } rows[] = {
        {"a role", NULL, NULL, ",\"external_id\":\"mine\"", KMS_OK, ""},
        {"all that it needs", NULL, NULL,
         ",\"external_id\":\"mine\",\"ram_session_name\":\"me\",\"expired_seconds\":900" POLICY(
             "kms:*"),
         KMS_OK, ""},
        {"less than it needs", NULL, NULL, ",\"external_id\":\"mine\"" POLICY("kms:Encrypt"),
         KMS_E_DENIED, "Forbidden.NoPermission"},
        {"another's external id", NULL, NULL, ",\"external_id\":\"yours\"", KMS_E_AUTH,
         "NoPermission"},
        {"a role of others", ali_other_role_arn, NULL, "", KMS_E_AUTH, "NoPermission"},
        {"no such role", "acs:ram::1540355698840000:role/none", NULL, "", KMS_E_AUTH,
         "EntityNotExist.Role"},
        {"no role at all", "kmsbridge", NULL, "", KMS_E_AUTH, "InvalidParameter.RoleArn"},
        {"another's secret", NULL, "no", "", KMS_E_AUTH, "SignatureDoesNotMatch"},
        {"too short", NULL, NULL, ",\"expired_seconds\":899", KMS_E_AUTH,
         "InvalidParameter.DurationSeconds"},
        {"a session without a name", NULL, NULL, ",\"ram_session_name\":\" \"", KMS_E_AUTH,
         "InvalidParameter.RoleSessionName"},
        {"a policy that is none", NULL, NULL, ",\"policy\":\"x\"", KMS_E_AUTH,
         "InvalidParameter.PolicyGrammar"},
    };
    struct ali ali;
    struct kms_call call;
    char path[256], start[512];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        setup(&ali, "cli");
        CU_ASSERT(ali_control("{\"do\":\"external_id\",\"wanted\":\"mine\"}", NULL, NULL));
        CU_ASSERT_FATAL(write_role(rows[i].role == NULL ? ali_user_role_arn : rows[i].role,
                                   ali_key_id, rows[i].secret == NULL ? ali_secret : rows[i].secret,
                                   "", rows[i].more, path));
        ali.settings.cli_file = path;
        CU_ASSERT_FATAL(ali_open(&ali));
        ALI_CHECK(&call, rows[i].name, ask(&ali, &call) == rows[i].wanted);
        ALI_CHECK(&call, rows[i].name, strcmp(call.error.code, rows[i].code) == 0);
        (void)snprintf(start, sizeof(start), "cli: %s: profile a: AssumeRole: HTTP 40", path);
        ALI_CHECK(&call, rows[i].name,
                  rows[i].wanted != KMS_E_AUTH ||
                      (strncmp(call.error.text, start, strlen(start)) == 0 &&
                       strstr(call.error.text, rows[i].code) != NULL &&
                       strlen(call.error.request_id) == 36));
        UNIT_CHECK(rows[i].name, strstr(call.error.text, ali_secret) == NULL);
        ali_close(&ali);
    }
    CU_ASSERT(ali_control("{\"do\":\"external_id\"}", NULL, NULL));
}

/* A key that has a token takes the role by both; when it has ended, the file has the next. */
static bool write_issued_role(char ret_path[256])
{
    struct kms_json_doc *doc = NULL;
    struct kms_json sts;
    const char *id = "", *secret = "", *token = "";
    struct kms_error err = KMS_ERROR_INIT;
    bool good = ali_control("{\"do\":\"issue\"}", &doc, &sts) &&
                kms_json_text(&sts, "AccessKeyId", 64, &id, &err) == KMS_OK &&
                kms_json_text(&sts, "AccessKeySecret", 64, &secret, &err) == KMS_OK &&
                kms_json_text(&sts, "SecurityToken", 4096, &token, &err) == KMS_OK &&
                write_role(ali_user_role_arn, id, secret, token, "", ret_path);

    kms_json_free(doc);
    return good;
}

static void a_role_is_taken_again(void)
{
    struct ali ali;
    struct kms_call call;
    char path[256], content[512];
    const struct timespec second = {.tv_sec = 1, .tv_nsec = 100000000};

    setup(&ali, "profile"); /* by a key that stays */
    (void)snprintf(content, sizeof(content),
                   "[default]\ntype = ram_role_arn\naccess_key_id = %s\naccess_key_secret = %s\n"
                   "role_arn = %s\nrole_session_name = me\n",
                   ali_key_id, ali_secret, ali_user_role_arn);
    CU_ASSERT_FATAL(write_file("profile", content, 0600, path));
    ali.settings.profile_file = path;
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    ALI_CHECK(&call, "a role", ask(&ali, &call) == KMS_OK);
    ALI_CHECK(&call, "a role", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("sts /"), 1); /* once for both */
    (void)nanosleep(&second, NULL);
    CU_ASSERT(ali_control("{\"do\":\"expire\"}", NULL, NULL));
    ALI_CHECK(&call, "expired", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("sts /"), 1);
    ali_close(&ali);

    setup(&ali, "cli");
    CU_ASSERT_FATAL(write_issued_role(path));
    ali.settings.cli_file = path;
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "by a token", ask(&ali, &call) == KMS_OK);
    (void)nanosleep(&second, NULL);
    CU_ASSERT(ali_control("{\"do\":\"expire\"}", NULL, NULL));
    ALI_CHECK(&call, "the token has ended", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_STRING_EQUAL(call.error.code, "InvalidSecurityToken.Expired");
    CU_ASSERT(write_issued_role(path));
    CU_ASSERT(soon_well(&ali));
    ali_close(&ali);
}

static void the_metadata_service(void)
{
    struct ali ali;
    struct kms_call call;

    setup(&ali, "ecs");
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"v2\"}", NULL, NULL));
    (void)ali_calls("");
    ALI_CHECK(&call, "token mode", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("imds /latest/api/token"), 1);
    ali_close(&ali);

    setup(&ali, "ecs"); /* a service without tokens is not asked without one, unless allowed */
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"v1\"}", NULL, NULL));
    ALI_CHECK(&call, "v1", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "tokenless_metadata"));
    CU_ASSERT_EQUAL(ali_calls("imds /latest/meta-data/ram/security-credentials/"), 0);
    ali_close(&ali);

    setup(&ali, "ecs");
    ali.settings.imds_v1 = true;
    ali.settings.ecs_role = ali_role;
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"v1\"}", NULL, NULL));
    ALI_CHECK(&call, "v1 allowed", ask(&ali, &call) == KMS_OK);
    ali_close(&ali);

    setup(&ali, "ecs"); /* the environment forbids it */
    ali.settings.imds_v1 = true;
    (void)setenv("ALIBABA_CLOUD_IMDSV1_DISABLED", "true", 1);
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"v1\"}", NULL, NULL));
    ALI_CHECK(&call, "v1 forbidden", ask(&ali, &call) == KMS_E_AUTH);
    ali_close(&ali);

    setup(&ali, "ecs"); /* absent, then there */
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"off\"}", NULL, NULL));
    ALI_CHECK(&call, "off", ask(&ali, &call) == KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "metadata service"));
    CU_ASSERT(ali_control("{\"do\":\"identity\"}", NULL, NULL) && soon_well(&ali));
    ali_close(&ali);

    setup(&ali, "ecs"); /* nobody listens */
    ali.settings.metadata_endpoint = unconst("http://127.0.0.1:1");
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "nobody", ask(&ali, &call) == KMS_E_UNAVAILABLE);
    ali_close(&ali);

    setup(&ali, "ecs"); /* the role is the environment's: nobody is asked for its name */
    (void)setenv("ALIBABA_CLOUD_ECS_METADATA", ali_role, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    ALI_CHECK(&call, "role of the environment", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("imds /latest/meta-data/ram/security-credentials/"), 0);
    ali_close(&ali);

    setup(&ali, "ecs");
    ali.settings.ecs_role = unconst("no-such-role");
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "role", ask(&ali, &call) == KMS_E_AUTH);
    ali_close(&ali);
}

static void a_credentials_uri(void)
{
    struct ali ali;
    struct kms_call call;

    setup(&ali, "uri");
    (void)setenv("ALIBABA_CLOUD_CREDENTIALS_URI", ali.uri, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "uri", ask(&ali, &call) == KMS_OK);
    ali_close(&ali);

    setup(&ali, "uri");
    ali.settings.credentials_uri = ali.uri;
    CU_ASSERT_FATAL(ali_open(&ali));
    CU_ASSERT(ali_fault("uri", "/credentials",
                        "\"kind\":\"set\",\"field\":\"AccessKeySecret\",\"value\":null"));
    ALI_CHECK(&call, "no secret", ask(&ali, &call) == KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "AccessKeySecret"));
    CU_ASSERT(soon_well(&ali));
    ali_close(&ali);

    setup(&ali, "uri");
    ali.settings.credentials_uri = ali.uri;
    CU_ASSERT_FATAL(ali_open(&ali));
    CU_ASSERT(ali_fault("uri", "/credentials", "\"kind\":\"status\",\"status\":403"));
    ALI_CHECK(&call, "refused", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_EQUAL(strstr(call.error.text, "uri: "), call.error.text);
    CU_ASSERT(soon_well(&ali));
    ali_close(&ali);
}

/* All six are set up; one after the other goes, and the next is who is asked. */
static void each_has_its_turn(void)
{
    static const struct {
        const char *name;
        const char *gone[3];     /* variables that end its turn */
        uint64_t sts, imds, uri; /* who was asked for a credential */
    } turns[] = {
        {"environment",
         {"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"},
         0,
         0,
         0},
        {"rrsa", {"ALIBABA_CLOUD_OIDC_TOKEN_FILE"}, 1, 0, 0},
        {"cli", {"ALIBABA_CLOUD_CONFIG_FILE"}, 0, 0, 1},
        {"profile", {"ALIBABA_CLOUD_CREDENTIALS_FILE"}, 0, 0, 0},
        {"ecs", {NULL}, 0, 1, 0},
        {"uri", {NULL}, 0, 0, 1},
    };
    struct ali ali;
    struct kms_call call;
    char token[256], profile[256], cli[256], content[256];

    setup(&ali, "auto");
    (void)snprintf(
        content, sizeof(content),
        "[default]\ntype = access_key\naccess_key_id = none\naccess_key_secret = none\n");
    CU_ASSERT_FATAL(write_token("", token) && write_file("profile", content, 0600, profile));
    (void)snprintf(content, sizeof(content),
                   "{\"current\":\"a\",\"profiles\":[{\"name\":\"a\",\"mode\":"
                   "\"CredentialsURI\",\"credentials_uri\":\"%s\"}]}",
                   ali.uri);
    CU_ASSERT_FATAL(write_file("config.json", content, 0600, cli));
    (void)setenv("ALIBABA_CLOUD_CONFIG_FILE", cli, 1);
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", ali_key_id, 1);
    (void)setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", ali_secret, 1);
    (void)setenv("ALIBABA_CLOUD_ROLE_ARN", ali_role_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", ali_provider_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", token, 1);
    (void)setenv("ALIBABA_CLOUD_CREDENTIALS_FILE", profile, 1);
    (void)setenv("ALIBABA_CLOUD_CREDENTIALS_URI", ali.uri, 1);
    for (size_t i = 0; i < UNIT_COUNT(turns); i++) {
        /* the profile's key is none of the service's: that it is refused says whose turn it was */
        bool is_profile = strcmp(turns[i].name, "profile") == 0;
        struct counts counts;

        if (strcmp(turns[i].name, "uri") == 0) {
            (void)setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true", 1);
        }
        CU_ASSERT_FATAL(ali_open(&ali));
        (void)ali_calls("");
        ALI_CHECK(&call, turns[i].name, ask(&ali, &call) == (is_profile ? KMS_E_AUTH : KMS_OK));
        UNIT_CHECK(turns[i].name,
                   !is_profile || strcmp(call.error.code, "InvalidAccessKeyId.NotFound") == 0);
        counts = count_calls();
        UNIT_CHECK(turns[i].name, counts.sts == turns[i].sts && counts.imds == turns[i].imds &&
                                      counts.uri == turns[i].uri);
        ali_close(&ali);
        ali.backend = NULL;
        for (size_t v = 0; v < UNIT_COUNT(turns[i].gone) && turns[i].gone[v] != NULL; v++) {
            (void)unsetenv(turns[i].gone[v]);
        }
    }
}

/* The official order; what is set up and fails is not passed over. */
static void the_order_is_the_official_one(void)
{
    struct ali ali;
    struct kms_call call;
    char path[256];

    setup(&ali, "auto");
    CU_ASSERT_FATAL(write_token("", path));
    (void)setenv("ALIBABA_CLOUD_ROLE_ARN", ali_role_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", ali_provider_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", path, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    (void)ali_calls("");
    ALI_CHECK(&call, "rrsa first", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("sts /"), 1);
    ali_close(&ali);

    setup(&ali, "auto");
    CU_ASSERT_FATAL(write_token(",\"aud\":\"other\"", path));
    (void)setenv("ALIBABA_CLOUD_ROLE_ARN", ali_role_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", ali_provider_arn, 1);
    (void)setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", path, 1);
    (void)setenv("ALIBABA_CLOUD_CREDENTIALS_URI", ali.uri, 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "no other identity", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_EQUAL(ali_calls("uri /credentials"), 0);
    ali_close(&ali);

    setup(&ali, "auto"); /* only the metadata service may be absent */
    (void)setenv("ALIBABA_CLOUD_CREDENTIALS_URI", ali.uri, 1);
    CU_ASSERT_FATAL(ali_open(&ali) &&
                    ali_control("{\"do\":\"identity\",\"imds\":\"off\"}", NULL, NULL));
    ALI_CHECK(&call, "uri last", ask(&ali, &call) == KMS_OK);
    CU_ASSERT_EQUAL(ali_calls("uri /credentials"), 1);
    ali_close(&ali);

    setup(&ali, "auto");
    (void)setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true", 1);
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "nothing", ask(&ali, &call) == KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "no source of credentials"));
    ali_close(&ali);
}

/* ---- renewal ------------------------------------------------------------------------------ */

static atomic_bool ends;
static atomic_uint failures, done;

static void *ask_on(void *arg)
{
    while (!atomic_load(&ends)) {
        struct kms_call call;

        if (ask(arg, &call) != KMS_OK) {
            atomic_fetch_add(&failures, 1);
            fprintf(stderr, "%s\n", call.error.text);
        }
        atomic_fetch_add(&done, 1);
    }
    return NULL;
}

/*
 * A credential of three seconds is renewed ahead of its end, by one of many, and nobody notices. If
 * it came for the token in the file @token, that is over by then: the file is read anew.
 */
static void renewed_ahead(struct ali *ali, const char *asked_for, char *token)
{
    struct kms_call call;
    pthread_t threads[4];
    const struct timespec while_it_ends_twice = {.tv_sec = 6};
    unsigned asked = 0;

    CU_ASSERT_FATAL(ali_open(ali) &&
                    ali_control("{\"do\":\"identity\",\"lifetime\":3}", NULL, NULL));
    atomic_store(&ends, false);
    atomic_store(&done, 0);
    (void)ali_calls("");
    ALI_CHECK(&call, "the first", ask(ali, &call) == KMS_OK);
    CU_ASSERT_FATAL(token == NULL || write_token("", token));
    for (size_t i = 0; i < UNIT_COUNT(threads); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, ask_on, ali), 0);
    }
    (void)nanosleep(&while_it_ends_twice, NULL);
    atomic_store(&ends, true);
    for (size_t i = 0; i < UNIT_COUNT(threads); i++) {
        CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    asked = ali_calls(asked_for);
    CU_ASSERT_EQUAL(atomic_load(&failures), 0);
    CU_ASSERT(atomic_load(&done) > 20);
    /* at 0, and by jitter after 1.9 to 2.4 seconds each */
    UNIT_CHECK(asked_for, asked >= 3 && asked <= 4);
    ali_close(ali);
}

static void tokens_are_renewed_ahead(void)
{
    struct ali ali;
    char token[256], path[256];

    setup(&ali, "cli");
    CU_ASSERT_FATAL(write_role(ali_user_role_arn, ali_key_id, ali_secret, "", "", path));
    ali.settings.cli_file = path;
    renewed_ahead(&ali, "sts /", NULL);
    setup(&ali, "ecs");
    renewed_ahead(&ali, "imds /latest/api/token", NULL);
    setup(&ali, "rrsa");
    CU_ASSERT_FATAL(write_token(",\"lifetime\":2", token));
    ali.settings.role_arn = ali_role_arn;
    ali.settings.oidc_provider_arn = ali_provider_arn;
    ali.settings.oidc_token_file = token;
    renewed_ahead(&ali, "sts /", token);
}

/* ---- TLS ---------------------------------------------------------------------------------- */

static void tls_trusts_its_own_ca(void)
{
    struct ali ali;
    struct kms_call call;
    char ca[256];

    (void)snprintf(ca, sizeof(ca), "%s/ca.pem", ali_dir);
    ali_setup(&ali);
    (void)snprintf(ali.endpoint, sizeof(ali.endpoint), "https://127.0.0.1:%u", ali_port_tls);
    ali.settings.ca_file = ca;
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "own CA", ask(&ali, &call) == KMS_OK);
    ali_close(&ali);

    ali_setup(&ali); /* the system's CAs do not know it */
    (void)snprintf(ali.endpoint, sizeof(ali.endpoint), "https://127.0.0.1:%u", ali_port_tls);
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "no CA", ask(&ali, &call) == KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "certificate"));
    ali_close(&ali);

    ali_setup(&ali); /* the right CA, another's name */
    (void)snprintf(ali.endpoint, sizeof(ali.endpoint), "https://localhost:%u", ali_port_wrong);
    ali.settings.ca_file = ca;
    CU_ASSERT_FATAL(ali_open(&ali));
    ALI_CHECK(&call, "wrong name", ask(&ali, &call) == KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "its certificate does not verify"));
    ali_close(&ali);
}

const struct unit_test ali_identity_tests[] = {
    {"the environment", the_environment},
    {"RRSA", rrsa},
    {"bad tokens are told", bad_tokens_are_told},
    {"a profile file", a_profile_file},
    {"the file of the CLI", the_file_of_the_cli},
    {"a role by a key", a_role_by_a_key},
    {"a role is taken again", a_role_is_taken_again},
    {"the metadata service", the_metadata_service},
    {"a credentials URI", a_credentials_uri},
    {"each has its turn", each_has_its_turn},
    {"the order is the official one", the_order_is_the_official_one},
    {"tokens are renewed ahead", tokens_are_renewed_ahead},
    {"TLS trusts its own CA", tls_trusts_its_own_ca},
};
const size_t ali_identity_test_count = UNIT_COUNT(ali_identity_tests);
