/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials in files: where they are looked for, whose turn it is, what a profile gives, and what
 * is said of one that gives nothing. The services that a profile may lead to are played by a door.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/alibaba.h"
#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/alibaba_plain.h"
#include "tests/unit/fake_http.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#define SECRET "planted-secret"

/* ---- the services ------------------------------------------------------------------------- */

static struct fake_http kms, identity;

#define HANDED(id)                                                                                 \
    "\"AccessKeyId\":\"" id "\",\"AccessKeySecret\":\"s\",\"SecurityToken\":\"t\","                \
    "\"Expiration\":\"2999-01-01T00:00:00Z\""

static const struct {
    const char *url, *body;
} answers[] = {
    {"http://100.100.100.200/latest/api/token", "token"},
    {"http://100.100.100.200/latest/meta-data/ram/security-credentials/node",
     "{\"Code\":\"Success\"," HANDED("of-node") "}"},
    {"http://127.0.0.1:6666/credentials", "{\"Code\":\"Success\"," HANDED("of-uri") "}"},
    {"https://sts.cn-test.aliyuncs.com/", "{\"Credentials\":{" HANDED("of-sts") "}}"},
    {"https://sts.cn-far.aliyuncs.com/", "{\"Credentials\":{" HANDED("of-far") "}}"},
    {"https://sts-vpc.cn-test.aliyuncs.com/", "{\"Credentials\":{" HANDED("of-vpc") "}}"},
    {"https://sts-vpc.cn-far.aliyuncs.com/", "{\"Credentials\":{" HANDED("of-far-vpc") "}}"},
};

/* Who answers otherwise; NULL: nobody. */
static const char *refuser;
static unsigned refusal;

static enum kms_status answer(struct fake_http *fake, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    (void)fake;
    if (refuser != NULL && strcmp(request->url, refuser) == 0) {
        return fake_http_reply(request, ret, refusal, "{}");
    }
    for (size_t i = 0; i < UNIT_COUNT(answers); i++) {
        if (strncmp(request->url, answers[i].url, strlen(answers[i].url)) == 0) {
            return fake_http_reply(request, ret, 200, answers[i].body);
        }
    }
    return kms_error_set(err, KMS_E_UNAVAILABLE, "nobody there");
}

/* ---- one look ----------------------------------------------------------------------------- */

static const char *const files[] = {".aliyun/config.json", ".alibabacloud/credentials",
                                    ".alibabacloud/credentials.ini", "named", "token"};

static struct kms_alibaba_conf settings;
static struct kms_backend_conf conf;
static struct kms_backend *backend;

static void write_text(const char *name, const char *text)
{
    (void)scratch_file(name, 0600, text, strlen(text));
}

/* Nothing of the user's own, and no files; the machine has no metadata service unless it is said.
 */
static void begin(void)
{
    static const char *const variables[] = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID",     "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",    "ALIBABA_CLOUD_ROLE_ARN",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE",   "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
        "ALIBABA_CLOUD_CREDENTIALS_FILE",  "ALIBABA_CLOUD_CONFIG_FILE",
        "ALIBABA_CLOUD_PROFILE",           "ALIBABA_CLOUD_CLI_PROFILE_DISABLED",
        "ALIBABA_CLOUD_CREDENTIALS_URI",   "ALIBABA_CLOUD_ECS_METADATA",
        "ALIBABA_CLOUD_STS_ENDPOINT",      "ALIBABA_CLOUD_STS_REGION",
        "ALIBABA_CLOUD_ROLE_SESSION_NAME", "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED"};

    for (size_t i = 0; i < UNIT_COUNT(variables); i++) {
        (void)unsetenv(variables[i]);
    }
    (void)setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "True", 1);
    (void)setenv("HOME", scratch_path("."), 1);
    for (size_t i = 0; i < UNIT_COUNT(files); i++) {
        (void)unlink(scratch_path(files[i]));
    }
    alibaba_plain(&settings, &conf);
    settings.credentials = NULL;
    settings.access_key_id = NULL;
    settings.access_key_secret = NULL;
    settings.session_seconds = 3600;
}

static void open_backend(void)
{
    struct kms_ali_doors doors = {.kms = &kms.door, .identity = &identity.door};

    fake_http_init(&kms, answer);
    fake_http_init(&identity, answer);
    CU_ASSERT_EQUAL_FATAL(kms_ali_open_over(&conf, &doors, &backend, NULL), KMS_OK);
}

/* "id/secret/token" of what is taken now, or why nothing is. */
static enum kms_status take(char ret_text[KMS_ERROR_TEXT_MAX])
{
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    const struct kms_credential_value *value = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    enum kms_status status = kms_credential_get(backend->credential, &wait, &value, &err);

    if (status == KMS_OK) {
        (void)snprintf(ret_text, KMS_ERROR_TEXT_MAX, "%s/%s/%s", value->part[KMS_ALI_KEY_ID],
                       value->part[KMS_ALI_SECRET],
                       value->part[KMS_ALI_TOKEN] == NULL ? "" : value->part[KMS_ALI_TOKEN]);
        kms_credential_give(backend->credential, value);
    } else {
        (void)snprintf(ret_text, KMS_ERROR_TEXT_MAX, "%s", err.text);
    }
    return status;
}

/* What is taken is @says, or an error that has it in its text; a path "~/" is the home's. */
static void expect(const char *name, enum kms_status wanted, const char *says)
{
    char text[KMS_ERROR_TEXT_MAX], shown[2 * KMS_ERROR_TEXT_MAX] = "";
    const char *home = scratch_path("./");
    enum kms_status status = KMS_OK;
    char *at = text;

    open_backend();
    status = take(text);
    kms_alibaba_ops.close(backend);
    for (char *found = strstr(at, home); found != NULL; found = strstr(at, home)) {
        size_t len = strlen(shown);

        (void)snprintf(shown + len, sizeof(shown) - len, "%.*s~/", (int)(found - at), at);
        at = found + strlen(home);
    }
    (void)snprintf(shown + strlen(shown), sizeof(shown) - strlen(shown), "%s", at);
    if (!UNIT_CHECK(name, status == wanted) ||
        !UNIT_CHECK(name,
                    wanted == KMS_OK ? strcmp(shown, says) == 0 : strstr(shown, says) != NULL)) {
        fprintf(stderr, "%s: %s: %s\n", name, kms_status_name(status), shown);
    }
    UNIT_CHECK(name, wanted == KMS_OK || strstr(shown, SECRET) == NULL);
}

/* ---- whose turn it is --------------------------------------------------------------------- */

#define KEY(name, id)                                                                              \
    "{\"name\":\"" name "\",\"mode\":\"AK\",\"access_key_id\":\"" id                               \
    "\",\"access_key_secret\":\"s\",\"sts_token\":\"\",\"expired_seconds\":0}"
#define CLI(current, profiles) "{\"current\":\"" current "\",\"profiles\":[" profiles "]}"
#define SECTION(name, id)                                                                          \
    "[" name "]\ntype = access_key\naccess_key_id = " id "\naccess_key_secret = s\n"

struct turn {
    const char *name;
    const char *cli, *ini, *also; /* config.json, credentials, credentials.ini; NULL: none */
    const char *variable, *value; /* of the environment; "~named": the file of that name */
    const char *says;             /* KMS_E_AUTH if it is no credential */
};

static const struct turn turns[] = {
    {"the CLI's", CLI("default", KEY("default", "cli")), NULL, NULL, NULL, NULL, "cli/s/"},
    {"the profile", NULL, SECTION("default", "ini"), NULL, NULL, NULL, "ini/s/"},
    {"the other name", NULL, NULL, SECTION("default", "also"), NULL, NULL, "also/s/"},
    {"the first name", NULL, SECTION("default", "ini"), SECTION("default", "also"), NULL, NULL,
     "ini/s/"},
    {"the CLI's first", CLI("default", KEY("default", "cli")), SECTION("default", "ini"), NULL,
     NULL, NULL, "cli/s/"},
    {"not the CLI's", CLI("default", KEY("default", "cli")), SECTION("default", "ini"), NULL,
     "ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "TRUE", "ini/s/"},
    {"the current one", CLI("two", KEY("one", "1") "," KEY("two", "2")), NULL, NULL, NULL, NULL,
     "2/s/"},
    {"the named one", CLI("two", KEY("one", "1") "," KEY("two", "2")), SECTION("one", "ini"), NULL,
     "ALIBABA_CLOUD_PROFILE", "one", "1/s/"},
    {"the named one, elsewhere", CLI("default", KEY("default", "cli")), SECTION("one", "ini"), NULL,
     "ALIBABA_CLOUD_PROFILE", "one", "ini/s/"},
    {"the named one, nowhere", CLI("default", KEY("default", "cli")), NULL, NULL,
     "ALIBABA_CLOUD_PROFILE", "one", "cli: ~/.aliyun/config.json: profile one is not there"},
    {"the named one, in neither", CLI("default", KEY("default", "cli")), SECTION("default", "ini"),
     NULL, "ALIBABA_CLOUD_PROFILE", "one",
     "profile: ~/.alibabacloud/credentials has no section [one]"},
    {"a CLI that was never set up",
     CLI("default", "{\"name\":\"default\",\"mode\":\"AK\",\"access_key_id\":\"\","
                    "\"access_key_secret\":\"\"}"),
     SECTION("default", "ini"), NULL, NULL, NULL, "ini/s/"},
    {"a CLI without profiles", "{\"current\":\"\",\"profiles\":[]}", SECTION("default", "ini"),
     NULL, NULL, NULL, "ini/s/"},
    {"a CLI with nothing", "{}", SECTION("default", "ini"), NULL, NULL, NULL, "ini/s/"},
    {"the CLI's before a named profile file", CLI("default", KEY("default", "cli")), NULL, NULL,
     "ALIBABA_CLOUD_CREDENTIALS_FILE", "~named", "cli/s/"},
    {"a named profile file", NULL, SECTION("default", "ini"), NULL,
     "ALIBABA_CLOUD_CREDENTIALS_FILE", "~named", "named/s/"},
    {"a named file that is not there", NULL, SECTION("default", "ini"), NULL,
     "ALIBABA_CLOUD_CREDENTIALS_FILE", "/nonexistent/x", "profile: cannot open /nonexistent/x"},
    {"a named file of the CLI that is not there", CLI("default", KEY("default", "cli")), NULL, NULL,
     "ALIBABA_CLOUD_CONFIG_FILE", "/nonexistent/x", "cli: cannot open /nonexistent/x"},
    {"no home", CLI("default", KEY("default", "cli")), SECTION("default", "ini"), NULL, "HOME",
     NULL, "HOME is no absolute path"},
    {"a home that is none", CLI("default", KEY("default", "cli")), NULL, NULL, "HOME", "/dev/null",
     "cli: there is no /dev/null/.aliyun/config.json"},
    {"a home in the working directory", CLI("default", KEY("default", "cli")), NULL, NULL, "HOME",
     ".", "HOME is no absolute path"},
    {"nothing", NULL, NULL, NULL, NULL, NULL,
     "auto: no source of credentials: access_key: access_key_id is not set; environment: "
     "ALIBABA_CLOUD_ACCESS_KEY_ID is not set; rrsa: ALIBABA_CLOUD_ROLE_ARN is not set; cli: there "
     "is no ~/.aliyun/config.json; profile: there is no ~/.alibabacloud/credentials; ecs: "
     "ALIBABA_CLOUD_ECS_METADATA_DISABLED is true; uri: ALIBABA_CLOUD_CREDENTIALS_URI is not set"},
};

static void each_has_its_turn(void)
{
    for (size_t i = 0; i < UNIT_COUNT(turns); i++) {
        const struct turn *turn = &turns[i];
        const char *const texts[] = {turn->cli, turn->ini, turn->also};
        size_t len = strlen(turn->says);
        bool is_good = len > 3 && strcmp(turn->says + len - 3, "/s/") == 0;

        begin();
        for (size_t f = 0; f < UNIT_COUNT(texts); f++) {
            if (texts[f] != NULL) {
                write_text(files[f], texts[f]);
            }
        }
        write_text("named", SECTION("default", "named"));
        if (turn->value != NULL) {
            (void)setenv(turn->variable,
                         turn->value[0] == '~' ? scratch_path("named") : turn->value, 1);
        } else if (turn->variable != NULL) {
            (void)unsetenv(turn->variable);
        }
        expect(turn->name, is_good ? KMS_OK : KMS_E_AUTH, turn->says);
    }
}

/* What the configuration names goes before what is found, and each source is asked alone. */
static void settings_choose(void)
{
    const char *named = NULL;

    begin();
    write_text(files[0], CLI("default", KEY("default", "cli") "," KEY("b", "cli-b")));
    write_text(files[1], SECTION("default", "ini") SECTION("b", "ini-b"));
    settings.credentials = unconst("profile");
    expect("profile alone", KMS_OK, "ini/s/");
    settings.credentials = unconst("cli");
    expect("cli alone", KMS_OK, "cli/s/");
    (void)setenv("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "true", 1); /* it is for auto */
    expect("cli alone, in any case", KMS_OK, "cli/s/");
    (void)unsetenv("ALIBABA_CLOUD_CLI_PROFILE_DISABLED");
    settings.profile = unconst("b");
    expect("its profile", KMS_OK, "cli-b/s/");
    settings.credentials = unconst("profile");
    expect("its section", KMS_OK, "ini-b/s/");

    settings.credentials = settings.profile = NULL;
    write_text("named", SECTION("default", "named"));
    named = scratch_path("named");
    settings.profile_file = unconst(named);
    expect("the file of the configuration", KMS_OK, "named/s/");
    settings.profile_file = NULL;
    write_text("named", CLI("default", KEY("default", "named-cli")));
    settings.cli_file = unconst(named);
    expect("the CLI's file of the configuration", KMS_OK, "named-cli/s/");

    begin();
    settings.credentials = unconst("cli");
    expect("no file of the CLI", KMS_E_AUTH, "cli: there is no ~/.aliyun/config.json");
    write_text(files[0], CLI("", ""));
    expect("a file of the CLI without profiles", KMS_E_AUTH,
           "cli: ~/.aliyun/config.json has no profiles");
    settings.credentials = unconst("profile");
    expect("no profile file", KMS_E_AUTH, "profile: there is no ~/.alibabacloud/credentials");
}

/* ---- what a profile gives ----------------------------------------------------------------- */

#define ONE(rest) CLI("p", "{\"name\":\"p\"," rest "}")
#define BOTH      "\"access_key_id\":\"id\",\"access_key_secret\":\"" SECRET "\""
#define TOKEN     "\"oidc_token_file\":\"~token\""
#define ROLE      "\"ram_role_arn\":\"arn\",\"oidc_provider_arn\":\"provider\""
/* A profile that takes a role of its name by another one, and what that needs. */
#define NEXT(name, source, rest)                                                                   \
    "{\"name\":\"" name "\",\"mode\":\"ChainableRamRoleArn\",\"ram_role_arn\":\"of-" name          \
    "\",\"source_profile\":\"" source "\"" rest "}"
#define CHAIN(name, source, rest, sources) CLI(name, NEXT(name, source, rest) "," sources)
#define CLI_FILE                           "cli: ~/.aliyun/config.json: "
#define INI_FILE                           "profile: ~/.alibabacloud/credentials: "

static const struct {
    const char *name;
    bool is_cli;
    const char *text; /* "~token": the file of a token */
    const char *says;
    const char *asked; /* what the last query or body that was sent has in it, if anything */
} profiles[] = {
    {"AK", true, ONE("\"mode\":\"AK\"," BOTH ",\"sts_token\":\"stale\""), "id/" SECRET "/", NULL},
    {"StsToken", true, ONE("\"mode\":\"StsToken\"," BOTH ",\"sts_token\":\"t\""), "id/" SECRET "/t",
     NULL},
    {"EcsRamRole", true, ONE("\"mode\":\"EcsRamRole\",\"ram_role_name\":\"node\""), "of-node/s/t",
     NULL},
    {"CredentialsURI", true,
     ONE("\"mode\":\"CredentialsURI\",\"credentials_uri\":\"http://127.0.0.1:6666/credentials\""),
     "of-uri/s/t", NULL},
    {"OIDC", true,
     ONE("\"mode\":\"OIDC\"," ROLE "," TOKEN
         ",\"ram_session_name\":\"me\",\"expired_seconds\":900"),
     "of-sts/s/t",
     "DurationSeconds=900&OIDCProviderArn=provider&OIDCToken=planted-token&RoleArn=arn&"
     "RoleSessionName=me"},
    {"OIDC by default", true, ONE("\"mode\":\"OIDC\"," ROLE "," TOKEN ",\"expired_seconds\":0"),
     "of-sts/s/t",
     "DurationSeconds=3600&OIDCProviderArn=provider&OIDCToken=planted-token&RoleArn=arn&"
     "RoleSessionName=kmsbridge"},
    {"RamRoleArn", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH
         ",\"ram_role_arn\":\"arn:a/b\",\"ram_session_name\":\"me\","
         "\"expired_seconds\":900,\"policy\":\"{ }\",\"external_id\":\"e=\",\"sts_region\":\"\""),
     "of-sts/s/t",
     ".com/?DurationSeconds=900&ExternalId=e%3D&Policy=%7B%20%7D&RoleArn=arn%3Aa%2Fb&"
     "RoleSessionName=me"},
    {"RamRoleArn by default", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"arn\",\"policy\":\"\","
         "\"external_id\":\"\",\"expired_seconds\":0"),
     "of-sts/s/t", ".com/?DurationSeconds=3600&RoleArn=arn&RoleSessionName=kmsbridge"},
    {"OIDC with less", true, ONE("\"mode\":\"OIDC\"," ROLE "," TOKEN ",\"policy\":\"{ }\""),
     "of-sts/s/t",
     "OIDCToken=planted-token&Policy=%7B%20%7D&RoleArn=arn&RoleSessionName=kmsbridge"},
    {"OIDC elsewhere", true,
     ONE("\"mode\":\"OIDC\"," ROLE "," TOKEN ",\"sts_region\":\"cn-far\",\"enable_vpc\":false"),
     "of-far/s/t", "OIDCToken=planted-token"},
    {"a role elsewhere", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"arn\",\"sts_region\":\"cn-far\""),
     "of-far/s/t", "&RoleArn=arn&"},
    {"a role in the VPC", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"arn\",\"enable_vpc\":true"),
     "of-vpc/s/t", "&RoleArn=arn&"},
    {"a role in another VPC", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH
         ",\"ram_role_arn\":\"arn\",\"sts_region\":\"cn-far\",\"enable_vpc\":true"),
     "of-far-vpc/s/t", "&RoleArn=arn&"},
    {"a key and a region of others", true, ONE("\"mode\":\"AK\"," BOTH ",\"sts_region\":\"a/b\""),
     "id/" SECRET "/", NULL},
    {"a role by a key", true,
     CHAIN("p", "s",
           ",\"ram_session_name\":\"me\",\"external_id\":\"e\",\"policy\":\"{}\","
           "\"expired_seconds\":900",
           KEY("s", "id")),
     "of-sts/s/t",
     ".com/?DurationSeconds=900&ExternalId=e&Policy=%7B%7D&RoleArn=of-p&RoleSessionName=me"},
    {"a role by the machine's", true,
     CHAIN("p", "s", ",\"sts_region\":\"cn-far\"",
           "{\"name\":\"s\",\"mode\":\"EcsRamRole\",\"ram_role_name\":\"node\"}"),
     "of-far/s/t", NULL},
    {"a role by a role by a token", true,
     CHAIN("p", "q", ",\"enable_vpc\":true",
           NEXT("q", "r", "") ",{\"name\":\"r\",\"mode\":\"StsToken\"," BOTH
                              ",\"sts_token\":\"t\"}"),
     "of-vpc/s/t", "RoleArn=of-q&"},
    {"four of them", true,
     CHAIN("p", "1", "",
           NEXT("1", "2", "") "," NEXT("2", "3", "") "," NEXT("3", "4", "") "," KEY("4", "id")),
     "of-sts/s/t", "RoleArn=of-3&"},
    {"access_key", false, SECTION("default", "id"), "id/s/", NULL},
    {"ram_role_arn", false,
     "[default]\ntype = ram_role_arn\naccess_key_id = id\naccess_key_secret = s\nrole_arn = arn\n"
     "role_session_name = me\npolicy = {\"Version\": \"1\"}\nexternal_id = not read\n",
     "of-sts/s/t",
     ".com/?DurationSeconds=3600&Policy=%7B%22Version%22%3A%20%221%22%7D&RoleArn=arn&"
     "RoleSessionName=me"},
    {"sts", false, "[default]\ntype=sts\naccess_key_id=id\naccess_key_secret=s\nsecurity_token=t\n",
     "id/s/t", NULL},
    {"ecs_ram_role", false, "[default]\ntype = ecs_ram_role\nrole_name = node\n", "of-node/s/t",
     NULL},
    {"oidc_role_arn", false,
     "[default]\ntype = oidc_role_arn\nrole_arn = arn\noidc_provider_arn = provider\n"
     "oidc_token_file_path = ~token\nrole_session_name = me\n",
     "of-sts/s/t",
     "DurationSeconds=3600&OIDCProviderArn=provider&OIDCToken=planted-token&RoleArn=arn&"
     "RoleSessionName=me"},
    {"oidc_role_arn with less", false,
     "[default]\ntype = oidc_role_arn\nrole_arn = arn\noidc_provider_arn = provider\n"
     "oidc_token_file_path = ~token\npolicy = {}\n",
     "of-sts/s/t", "OIDCToken=planted-token&Policy=%7B%7D&RoleArn=arn&"},
    {"the vendor's own example", false,
     "[default]                          # Default credential\n"
     "type = access_key                  # Certification type: access_key\n"
     "access_key_id = foo                # access key id\n"
     "access_key_secret = bar            # access key secret\n",
     "foo/bar/", NULL},
    {"with colons and comments", false,
     "; first\n# second\nno section\n[other]\nwhatever\n[default]\r\ntype: access_key\r\n"
     "\taccess_key_id:id\r\naccess_key_secret : s\r\nregion_id = x\nregion_id = y\n",
     "id/s/", NULL},
};

/* @text with the token's file for "~token". */
static void write_profile(const char *name, const char *text)
{
    char filled[2048];
    const char *at = strstr(text, "~token");

    if (at == NULL) {
        write_text(name, text);
        return;
    }
    (void)snprintf(filled, sizeof(filled), "%.*s%s%s", (int)(at - text), text,
                   scratch_path("token"), at + strlen("~token"));
    write_text(name, filled);
}

static void each_kind_gives(void)
{
    for (size_t i = 0; i < UNIT_COUNT(profiles); i++) {
        begin();
        write_text("token", "planted-token\n");
        write_profile(files[profiles[i].is_cli ? 0 : 1], profiles[i].text);
        expect(profiles[i].name, KMS_OK, profiles[i].says);
        UNIT_CHECK(profiles[i].name, profiles[i].asked == NULL ||
                                         strstr(identity.body, profiles[i].asked) != NULL ||
                                         strstr(identity.lines[0], profiles[i].asked) != NULL);
    }
}

static const struct {
    const char *name;
    bool is_cli;
    const char *text;
    const char *says;
} bad[] = {
    {"no JSON", true, "{\"current\":\n\"" SECRET "\"\n",
     "cli: ~/.aliyun/config.json is not one JSON object (29 bytes, line 3"},
    {"a key twice", true, "{\"current\":\"a\",\"current\":\"b\"}", "is not one JSON object"},
    {"current is no text", true, "{\"current\":1}",
     "cli: ~/.aliyun/config.json: \"current\" is number, not a text"},
    {"profiles are no list", true, "{\"profiles\":{}}", "\"profiles\" is object, not an array"},
    {"a profile without a name", true, CLI("p", "{}"), "lacks the field \"name\""},
    {"no current profile", true, "{\"profiles\":[" KEY("p", "id") "]}", "names no current profile"},
    {"another profile", true, CLI("q", KEY("p", "id")), CLI_FILE "profile q is not there"},
    {"the id is no text", true, ONE("\"mode\":\"AK\",\"access_key_id\":7"),
     "\"access_key_id\" is number, not a text"},
    {"no secret", true, ONE("\"mode\":\"AK\",\"access_key_id\":\"id\""),
     CLI_FILE "profile p: it lacks access_key_id or access_key_secret"},
    {"no token", true, ONE("\"mode\":\"StsToken\"," BOTH),
     CLI_FILE "profile p: it lacks the token that its key needs"},
    {"a mode of others", true, ONE("\"mode\":\"CloudSSO\"," BOTH ",\"ram_role_arn\":\"arn\""),
     CLI_FILE "profile p has the mode \"CloudSSO\"; there are AK, StsToken, EcsRamRole, OIDC, "
              "CredentialsURI, RamRoleArn and ChainableRamRoleArn"},
    {"no source", true, CHAIN("p", "", "", KEY("s", "id")),
     CLI_FILE "profile p names no source_profile"},
    {"a source that is not there", true, CHAIN("p", "q", "", KEY("s", "id")),
     "auto: " CLI_FILE "profile q is not there"},
    {"a source without a secret", true,
     CHAIN("p", "s", "", "{\"name\":\"s\",\"mode\":\"AK\",\"access_key_id\":\"id\"}"),
     "auto: " CLI_FILE "profile s: it lacks access_key_id or access_key_secret"},
    {"a source of a mode of others", true,
     CHAIN("p", "s", "", "{\"name\":\"s\",\"mode\":\"CloudSSO\"}"),
     "auto: " CLI_FILE "profile s has the mode \"CloudSSO\""},
    {"a source of another type", true, CHAIN("p", "s", "", "{\"name\":\"s\",\"mode\":1}"),
     "\"mode\" is number, not a text"},
    {"its own source", true, CHAIN("p", "p", "", KEY("s", "id")),
     CLI_FILE "profile p: the source profiles are a ring, or more than 4"},
    {"five of them", true,
     CHAIN("p", "1", "",
           NEXT("1", "2", "") "," NEXT("2", "3", "") "," NEXT("3", "4", "") "," NEXT(
               "4", "5", "") "," KEY("5", "id")),
     CLI_FILE "profile 4: the source profiles are a ring, or more than 4"},
    {"no region", true, ONE("\"mode\":\"OIDC\"," ROLE "," TOKEN ",\"sts_region\":\"x.example/\""),
     CLI_FILE "profile p: its sts_region is no region's id"},
    {"enable_vpc is no bool", true,
     ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"arn\",\"enable_vpc\":\"true\""),
     "\"enable_vpc\" is"},
    {"a role without a secret", true,
     ONE("\"mode\":\"RamRoleArn\",\"access_key_id\":\"id\",\"ram_role_arn\":\"arn\""),
     CLI_FILE "profile p: it lacks access_key_id or access_key_secret, by which to take the role"},
    {"a key without a role", true, ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"\""),
     CLI_FILE "profile p: it names no role, and ALIBABA_CLOUD_ROLE_ARN is not set"},
    {"a key with a line end", true,
     ONE("\"mode\":\"RamRoleArn\",\"access_key_id\":\"i\\nd\",\"access_key_secret\":\"" SECRET
         "\",\"ram_role_arn\":\"arn\",\"sts_token\":\"t\\n\""),
     CLI_FILE "profile p: the request cannot be signed; is there a line end in the access key?"},
    {"no mode", true, ONE(BOTH), CLI_FILE "profile p has the mode \"\""},
    {"a relative token", true, ONE("\"mode\":\"OIDC\"," ROLE ",\"oidc_token_file\":\"token\""),
     CLI_FILE "profile p: its token file is no absolute path"},
    {"no role", true, ONE("\"mode\":\"OIDC\"," TOKEN),
     CLI_FILE "profile p: rrsa: ALIBABA_CLOUD_ROLE_ARN is not set"},
    {"a session too long", true, ONE("\"mode\":\"OIDC\"," ROLE ",\"expired_seconds\":43201"),
     "\"expired_seconds\" is out of range"},
    {"a plain address", true,
     ONE("\"mode\":\"CredentialsURI\",\"credentials_uri\":\"http://example.com/\""),
     CLI_FILE "profile p: uri: the credentials URI must be https:// unless"},
    {"no address", true, ONE("\"mode\":\"CredentialsURI\",\"credentials_uri\":\"\""),
     CLI_FILE "profile p: uri: ALIBABA_CLOUD_CREDENTIALS_URI is not set"},
    {"no section", false, SECTION("other", "id"), "has no section [default]"},
    {"no type", false, "[default]\naccess_key_id = id\n", INI_FILE "[default] has no type"},
    {"a type of others", false, "[default]\ntype = rsa_key_pair\n",
     INI_FILE "[default] is of type \"rsa_key_pair\"; there are access_key, sts, ecs_ram_role, "
              "oidc_role_arn and ram_role_arn"},
    {"a role without a key", false, "[default]\ntype = ram_role_arn\nrole_arn = arn\n",
     INI_FILE "[default]: it lacks access_key_id or access_key_secret, by which to take the role"},
    {"no secret in a section", false, "[default]\ntype = access_key\naccess_key_id = id\n",
     INI_FILE "[default]: it lacks access_key_id or access_key_secret"},
    {"no token in a section", false,
     "[default]\ntype = sts\naccess_key_id = id\naccess_key_secret = s\n",
     INI_FILE "[default]: it lacks the token that its key needs"},
    {"a line that is none", false, "[default]\n\n" SECRET "\n",
     INI_FILE "line 3 is neither a section nor key = value"},
    {"a section without an end", false, "# x\n[default\n",
     INI_FILE "line 2 begins a section and does not end it"},
    {"a value twice", false, SECTION("default", "id") "\ntype = sts\n",
     INI_FILE "line 6 has a key that the section has already"},
};

/* What is set up and gives nothing is told, and nobody else is asked. */
static void each_fault_is_told(void)
{
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        begin();
        (void)unsetenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED");
        write_text("token", "planted-token\n");
        write_profile(files[bad[i].is_cli ? 0 : 1], bad[i].text);
        expect(bad[i].name, KMS_E_AUTH, bad[i].says);
        UNIT_CHECK(bad[i].name, identity.count == 0);
    }
}

/* ---- who may read them, and when they are read ---------------------------------------------- */

static void what_others_can_read_is_no_secret(void)
{
    for (size_t i = 0; i < 2; i++) {
        begin();
        write_text(files[i],
                   i == 0 ? CLI("default", KEY("default", "id")) : SECTION("default", "id"));
        CU_ASSERT_EQUAL(chmod(scratch_path(files[i]), 0644), 0);
        expect(files[i], KMS_E_AUTH, "holds a secret and can be read by everybody (mode 0644)");
        CU_ASSERT_EQUAL(chmod(scratch_path(files[i]), 0640), 0);
        expect(files[i], KMS_OK, "id/s/");
    }
}

/* As systemd's ProtectHome= makes it: nobody can say what is in there. */
static void a_home_that_is_hidden_has_nothing(void)
{
    bool is_root = geteuid() == 0;

    begin();
    write_text(files[0], CLI("default", KEY("default", "id")));
    CU_ASSERT_EQUAL_FATAL(chmod(scratch_path(".aliyun"), is_root ? 0700 : 0), 0);
    CU_ASSERT_EQUAL_FATAL(is_root ? seteuid(65534) : 0, 0);
    expect("hidden", KMS_E_AUTH, "cli: there is no ~/.aliyun/config.json");
    CU_ASSERT_EQUAL_FATAL(is_root ? seteuid(0) : 0, 0);
    CU_ASSERT_EQUAL_FATAL(chmod(scratch_path(".aliyun"), 0700), 0);
    expect("shown", KMS_OK, "id/s/");
}

/* Whatever is told from it, whose turn it is among that. */
static void a_file_is_read_once(void)
{
    static const char *const texts[] = {
        CLI("default", KEY("default", "id")),
        CHAIN("default", "s", "", KEY("s", "id")),
        "{\"profiles\":[]}",
        "no JSON",
    };
    char text[KMS_ERROR_TEXT_MAX];
    struct inotify_event event;

    for (size_t i = 0; i < UNIT_COUNT(texts); i++) {
        int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        unsigned opened = 0;

        begin();
        write_text(files[0], texts[i]);
        CU_ASSERT_FATAL(inotify_add_watch(fd, scratch_path(files[0]), IN_OPEN | IN_CLOSE) >= 0);
        open_backend();
        UNIT_CHECK(texts[i], take(text) == (i < 2 ? KMS_OK : KMS_E_AUTH));
        kms_alibaba_ops.close(backend);
        while (read(fd, &event, sizeof(event)) == (ssize_t)sizeof(event)) {
            opened += (event.mask & IN_OPEN) != 0; /* like ones that follow each other are one */
        }
        UNIT_CHECK(texts[i], opened == 1);
        (void)close(fd);
    }
}

/* What is set in the environment and in the configuration, and a profile that says otherwise. */
static void sts_is_where_it_is_said_to_be(void)
{
    static const struct {
        const char *name, *more;  /* of the profile */
        const char *region, *vpc; /* of the environment */
        const char *network, *says;
    } rows[] = {
        {"nothing", "", NULL, NULL, NULL, "of-sts/s/t"},
        {"the environment's region", "", "cn-far", NULL, NULL, "of-far/s/t"},
        {"the environment's network", "", NULL, "True", NULL, "of-vpc/s/t"},
        {"the configuration's", "", NULL, NULL, "vpc", "of-vpc/s/t"},
        {"not the configuration's", "", NULL, "false", "vpc", "of-sts/s/t"},
        {"the profile's region", ",\"sts_region\":\"cn-far\"", "cn-else", NULL, "vpc",
         "of-far-vpc/s/t"},
        {"the profile's network", ",\"enable_vpc\":false", NULL, "true", "vpc", "of-sts/s/t"},
        {"no network of the profile's", ",\"enable_vpc\":null", NULL, "true", NULL, "of-vpc/s/t"},
    };
    char text[1024];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        begin();
        (void)snprintf(text, sizeof(text),
                       ONE("\"mode\":\"RamRoleArn\"," BOTH ",\"ram_role_arn\":\"arn\"%s"),
                       rows[i].more);
        write_text(files[0], text);
        settings.network = rows[i].network == NULL ? NULL : unconst(rows[i].network);
        if (rows[i].region != NULL) {
            (void)setenv("ALIBABA_CLOUD_STS_REGION", rows[i].region, 1);
        }
        if (rows[i].vpc != NULL) {
            (void)setenv("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED", rows[i].vpc, 1);
        }
        expect(rows[i].name, KMS_OK, rows[i].says);
    }
    begin(); /* what is configured goes before what a file says */
    write_text(files[0], ONE("\"mode\":\"RamRoleArn\"," BOTH
                             ",\"ram_role_arn\":\"arn\",\"sts_region\":\"cn-far\""));
    settings.sts_endpoint = unconst("https://sts.cn-test.aliyuncs.com");
    expect("the configuration's address", KMS_OK, "of-sts/s/t");
}

/* The service refuses the last one: a younger one is not asked for again. */
static void refuse_last(void)
{
    static const struct timespec second = {.tv_sec = 1, .tv_nsec = 100000000};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(10 * KMS_NS_PER_S)};
    const struct kms_credential_value *value = NULL;

    (void)nanosleep(&second, NULL);
    CU_ASSERT_EQUAL_FATAL(kms_credential_get(backend->credential, &wait, &value, NULL), KMS_OK);
    CU_ASSERT(kms_credential_refused(backend->credential, value));
    kms_credential_give(backend->credential, value);
}

static void take_now(const char *says)
{
    char text[KMS_ERROR_TEXT_MAX];

    CU_ASSERT_EQUAL(take(text), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, says);
}

/* The file that gave the last one goes, which may be for a moment. */
static void lose_file(const char *name)
{
    static const struct timespec moment = {.tv_nsec = 150000000};
    char text[KMS_ERROR_TEXT_MAX];

    CU_ASSERT_EQUAL(unlink(scratch_path(name)), 0);
    refuse_last();
    CU_ASSERT_EQUAL(take(text), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "(it was there)"));
    (void)nanosleep(&moment, NULL); /* what may pass is remembered for a tenth of a second */
}

/* Whose they are now is logged, once. */
static void files_are_read_anew(void)
{
    char text[KMS_ERROR_TEXT_MAX], lines[2048] = "";
    const char *path = scratch_path("log");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const char *first = NULL, *second = NULL;

    CU_ASSERT_FATAL(fd >= 0);
    kms_log_setup(fd, KMS_LOG_INFO, KMS_LOG_TEXT);
    begin();
    write_text(files[0], CLI("default", KEY("default", "first")));
    write_text(files[1], SECTION("default", "third"));
    open_backend();
    CU_ASSERT_EQUAL(take(text), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "first/s/");
    write_text(files[0], CLI("default", KEY("default", "second")));
    refuse_last();
    take_now("second/s/");
    lose_file(files[0]);
    write_text(files[0], CLI("default", KEY("default", "again")));
    take_now("again/s/");
    lose_file(files[0]);
    take_now("third/s/");
    kms_alibaba_ops.close(backend);
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    CU_ASSERT(pread(fd, lines, sizeof(lines) - 1, 0) > 0);
    (void)close(fd);
    (void)unlink(path);
    first = strstr(lines, "backend a: credentials by cli\n");
    second = first == NULL ? NULL
                           : strstr(first, "backend a: credentials by profile, no longer by cli\n");
    if (!UNIT_CHECK("log",
                    second != NULL && strstr(strchr(first, '\n'), "credentials by cli") == NULL)) {
        fprintf(stderr, "%s", lines);
    }
}

/* The metadata service may be absent, and is what may come back; the rest is said beside it. */
static void who_may_come_back_is_waited_for(void)
{
    begin();
    (void)unsetenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED");
    settings.metadata_endpoint = unconst("http://127.0.0.1:1");
    expect("absent", KMS_E_UNAVAILABLE,
           "profile: there is no ~/.alibabacloud/credentials; ecs: the metadata service: nobody "
           "there; uri: ");
}

#define IMDS "http://100.100.100.200/latest/"
#define URI  "http://127.0.0.1:6666/credentials"

/* What may pass is not taken for a refusal; a metadata service that is busy is there, so that no
 * other source is taken for it. */
static void who_is_busy_refuses_nothing(void)
{
    static const char *const urls[] = {IMDS "api/token", IMDS "meta-data/ram/security-credentials/",
                                       IMDS "meta-data/ram/security-credentials/node", URI};
    static const struct {
        unsigned http;
        enum kms_status status;
        const char *says;
    } rows[] = {{429, KMS_E_THROTTLED, "HTTP 429"},
                {408, KMS_E_UNAVAILABLE, "HTTP 408"},
                {503, KMS_E_UNAVAILABLE, "HTTP 503"},
                {403, KMS_E_AUTH, "HTTP 403"}};

    for (size_t i = 0; i < UNIT_COUNT(urls) * UNIT_COUNT(rows); i++) {
        size_t row = i % UNIT_COUNT(rows);

        begin();
        (void)unsetenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED");
        refuser = urls[i / UNIT_COUNT(rows)];
        refusal = rows[row].http;
        settings.credentials = unconst(strcmp(refuser, URI) == 0 ? "uri" : "ecs");
        settings.credentials_uri = unconst(URI);
        settings.ecs_role = strstr(refuser, "/node") == NULL ? NULL : unconst("node");
        expect(refuser, rows[row].status, rows[row].says);
        if (rows[row].http == 429 && strcmp(refuser, URI) != 0) {
            settings.credentials = NULL;
            expect(refuser, KMS_E_THROTTLED, "auto: ecs: the metadata service");
        }
    }
    refuser = NULL;
}

static const struct unit_test tests[] = {
    {"each has its turn", each_has_its_turn},
    {"settings choose", settings_choose},
    {"each kind gives", each_kind_gives},
    {"each fault is told", each_fault_is_told},
    {"what others can read is no secret", what_others_can_read_is_no_secret},
    {"a home that is hidden has nothing", a_home_that_is_hidden_has_nothing},
    {"a file is read once", a_file_is_read_once},
    {"STS is where it is said to be", sts_is_where_it_is_said_to_be},
    {"files are read anew", files_are_read_anew},
    {"who may come back is waited for", who_may_come_back_is_waited_for},
    {"who is busy refuses nothing", who_is_busy_refuses_nothing},
};

int main(void)
{
    int code = EXIT_FAILURE;

    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    if (mkdir(scratch_path(".aliyun"), 0700) == 0 &&
        mkdir(scratch_path(".alibabacloud"), 0700) == 0) {
        code = unit_main("test_alibaba_files", tests, UNIT_COUNT(tests));
    }
    begin(); /* without its files */
    (void)rmdir(scratch_path(".aliyun"));
    (void)rmdir(scratch_path(".alibabacloud"));
    scratch_done();
    return code;
}
