/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose fault a 403 is, the token's or the policy's, and what is done about it. Over a door that
 * plays servers that cannot be had here: Vault, old and new, and those of which others let us see a
 * part.
 */
#include "backend/vault.h"

#include <poll.h>
#include <string.h>

#include "backend/backend_conf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/fake_http.h"
#include "tests/unit/unit.h"

#define DENIED "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}"
#define BARE   "{\"errors\":[\"permission denied\"]}" /* Vault before 1.17, OpenBao: a bad token */
#define INVALID                                                                                    \
    "{\"errors\":[\"2 errors occurred:\\n\\t* permission denied\\n\\t* invalid token\\n\\n\"]}"
#define SELF   "{\"data\":{\"ttl\":0,\"renewable\":false}}"
#define MOUNTS "{\"data\":{\"auth\":{},\"secret\":{}}}"
#define KEK                                                                                        \
    "{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":1,\"min_decryption_version\":1,"      \
    "\"min_encryption_version\":0,\"keys\":{\"1\":1795907525}}}"

struct said {
    unsigned status; /* 0: as status 403 is said of the token that it is */
    const char *body;
};

static struct fake_http fake;
static struct kms_backend *vault;
static struct said self_said, mounts_said, kek_said;
static const char *bad_said;       /* of a bad token */
static bool is_denied;             /* by the policy, to good tokens */
static unsigned logins, good_from; /* tokens are "t1", "t2", ...; those before are bad */
static struct kms_vault_auth_conf auth;
static char *auth_mount; /* of the next begin() */

static bool is_bad(const char *token)
{
    return strtoul(token + 1, NULL, 10) < good_from;
}

static enum kms_status tell(const struct kms_http_request *request, struct kms_http_response *ret,
                            const struct said *said)
{
    bool as_it_is = said->status == 0;

    if (as_it_is && is_bad(fake.token)) {
        return fake_http_reply(request, ret, 403, bad_said);
    }
    return fake_http_reply(request, ret, as_it_is ? 200 : said->status, said->body);
}

static enum kms_status answer(struct fake_http *self, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    const char *path = strstr(request->url, "/v1/");
    char body[256];

    (void)err;
    if (strstr(path, "/login") != NULL) {
        (void)snprintf(body, sizeof(body),
                       "{\"auth\":{\"client_token\":\"t%u\",\"lease_duration\":3600,"
                       "\"renewable\":false}}",
                       ++logins);
        return fake_http_reply(request, ret, 200, body);
    }
    if (strstr(path, "lookup-self") != NULL) {
        return tell(request, ret, &self_said);
    }
    if (strstr(path, "sys/internal/ui/mounts") != NULL) {
        return tell(request, ret, &mounts_said);
    }
    if (strstr(path, "/keys/kek") != NULL) {
        return tell(request, ret, &kek_said);
    }
    if (is_bad(self->token)) {
        return fake_http_reply(request, ret, 403, bad_said);
    }
    return is_denied ? fake_http_reply(request, ret, 403, DENIED)
                     : fake_http_reply(request, ret, 200, "{\"data\":{\"random_bytes\":\"AAAA\"}}");
}

/* @method: "token", which the environment holds, or "approle" */
static void begin(const char *method)
{
    static char address[] = "https://vault.example:8200", name[] = "vault";
    static char token[] = "env:KMS_TEST_TOKEN", secret[] = "env:KMS_TEST_TOKEN", role[] = "r";
    static char by_token[] = "token", by_role[] = "approle";
    static char *addresses[] = {address};
    static struct kms_vault_conf conf = {
        .addresses = addresses, .addresses_count = 1, .auth = &auth};
    static const struct kms_backend_conf backend = {.name = name, .type = name, .vault = &conf};
    struct kms_error err = KMS_ERROR_INIT;

    auth = (struct kms_vault_auth_conf){.method = strcmp(method, "token") == 0 ? by_token : by_role,
                                        .mount = auth_mount,
                                        .token = token,
                                        .role_id = role,
                                        .secret_id = secret};
    (void)setenv("KMS_TEST_TOKEN", "t1", 1);
    fake_http_init(&fake, answer);
    self_said = (struct said){.status = 0, .body = SELF};
    mounts_said = (struct said){.status = 0, .body = MOUNTS};
    kek_said = (struct said){.status = 0, .body = KEK};
    bad_said = BARE;
    is_denied = false;
    logins = good_from = 0;
    CU_ASSERT_EQUAL_FATAL(kms_vault_open_over(&backend, &fake.door, &vault, &err), KMS_OK);
}

static void end(void)
{
    kms_vault_ops.close(vault);
}

static enum kms_status ask(struct kms_call *call)
{
    uint8_t bytes[3];
    struct kms_buf out = KMS_BUF_OVER(bytes);

    *call = (struct kms_call){.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    fake.count = 0;
    return kms_vault_ops.random(vault, call, &out);
}

/* A token that is younger than a second is not replaced for being refused. */
static void grow_old(void)
{
    (void)poll(NULL, 0, 1050);
}

static unsigned reconnects(void)
{
    struct kms_health health = {.ready = false};

    kms_vault_ops.health(vault, &health);
    return (unsigned)health.reconnects;
}

/* The policy says no to a good token, which is as old as a token may be: there is no other login.
 */
static void denied_to_a_good_token(void)
{
    static const struct {
        const char *name;
        struct said self, mounts;
        unsigned requests;
    } rows[] = {
        {"it may look itself up", {0, SELF}, {0, MOUNTS}, 2},
        {"it may not", {403, DENIED}, {0, MOUNTS}, 3},
        {"the server falls ill", {503, "{\"errors\":[\"Vault is sealed\"]}"}, {0, MOUNTS}, 2},
        {"and then falls ill", {403, DENIED}, {429, "{\"errors\":[\"quota\"]}"}, 3},
        {"somebody hides auth/", {404, "<html>"}, {0, MOUNTS}, 3},
    };
    static const char *const methods[] = {"token", "approle"};
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows) * 2; i++) {
        const char *row = rows[i / 2].name;

        begin(methods[i % 2]);
        UNIT_CHECK(row, ask(&call) == KMS_OK);
        self_said = rows[i / 2].self;
        mounts_said = rows[i / 2].mounts;
        is_denied = true;
        if (i == 3) { /* one by a login that might be replaced */
            grow_old();
        }
        UNIT_CHECK(row, ask(&call) == KMS_E_DENIED);
        UNIT_CHECK(call.error.text, strstr(call.error.text, "answers 403") != NULL);
        UNIT_CHECK(call.error.text, strstr(call.error.text, "refuse") == NULL);
        UNIT_CHECK(row, fake.count == rows[i / 2].requests);
        UNIT_CHECK(row, logins == i % 2 && reconnects() == 0);
        end();
    }
}

/* A bad token is replaced by one login, within the call, however the server says it. */
static void a_bad_token_is_replaced(void)
{
    static const struct {
        const char *name, *said;
        struct said self, mounts;
        unsigned requests; /* in all: the last two are the login and the call */
    } rows[] = {
        {"Vault from 1.17 on", INVALID, {403, DENIED}, {404, ""}, 3},
        {"with the policy default", BARE, {0, SELF}, {0, MOUNTS}, 5},
        {"without it", BARE, {403, DENIED}, {0, MOUNTS}, 5},
        {"it cannot be told", BARE, {403, DENIED}, {404, "{\"errors\":[]}"}, 5},
    };
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        begin("approle");
        UNIT_CHECK(rows[i].name, ask(&call) == KMS_OK);
        bad_said = rows[i].said;
        self_said = rows[i].self;
        mounts_said = rows[i].mounts;
        good_from = 2;
        grow_old();
        UNIT_CHECK(rows[i].name, ask(&call) == KMS_OK);
        UNIT_CHECK(rows[i].name, fake.count == rows[i].requests);
        UNIT_CHECK(rows[i].name, logins == 2 && reconnects() == 1);
        end();
    }
}

/*
 * Nobody can tell: there is one login more, and what its token may not either is denied. It is not
 * tried for each call.
 */
static void in_doubt_there_is_one_login(void)
{
    struct kms_call call;

    begin("approle");
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    self_said = (struct said){.status = 403, .body = DENIED};
    mounts_said = (struct said){.status = 404, .body = "{\"errors\":[]}"};
    is_denied = true;
    grow_old();
    CU_ASSERT_EQUAL(ask(&call), KMS_E_DENIED);
    CU_ASSERT_EQUAL(logins, 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "permission denied"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "our token is refused"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "auth/token/lookup-self"));
    grow_old();
    CU_ASSERT_EQUAL(ask(&call), KMS_E_DENIED);
    CU_ASSERT_EQUAL(logins, 2);
    CU_ASSERT_EQUAL(reconnects(), 1);
    is_denied = false;
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    end();
}

/* One that was too young to be replaced when something was denied to it may be bad later on. */
static void a_young_one_in_doubt_is_replaced_later(void)
{
    struct kms_call call;

    begin("approle");
    self_said = (struct said){.status = 403, .body = DENIED};
    mounts_said = (struct said){.status = 404, .body = "{\"errors\":[]}"};
    is_denied = true;
    CU_ASSERT_EQUAL(ask(&call), KMS_E_DENIED);
    CU_ASSERT_EQUAL(logins, 1);
    is_denied = false;
    good_from = 2;
    grow_old();
    CU_ASSERT_EQUAL(ask(&call), KMS_OK); /* within the call */
    CU_ASSERT_EQUAL(logins, 2);
    end();
}

/* A token that is given, and may not look itself up: taken as it is, and refused when it is. */
static void a_given_token_without_the_policy(void)
{
    struct kms_call call;

    begin("token");
    self_said = (struct said){.status = 403, .body = DENIED};
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    is_denied = true;
    grow_old();
    CU_ASSERT_EQUAL(ask(&call), KMS_E_DENIED);
    CU_ASSERT_EQUAL(reconnects(), 0);
    good_from = 2;
    CU_ASSERT_EQUAL(ask(&call), KMS_E_AUTH); /* read anew, and the same */
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "the token of env:KMS_TEST_TOKEN is refused"));
    (void)setenv("KMS_TEST_TOKEN", "t2", 1);
    is_denied = false;
    grow_old(); /* a failure is remembered for a second */
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    end();
}

/* And where that cannot be told: the token is read anew, and its owner is told to look at it. */
static void a_given_token_in_doubt(void)
{
    struct kms_health health = {.ready = true};
    struct kms_call call;

    begin("token");
    self_said = (struct said){.status = 403, .body = DENIED};
    mounts_said = (struct said){.status = 404, .body = "{\"errors\":[]}"};
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    good_from = 2;
    grow_old();
    CU_ASSERT_EQUAL(ask(&call), KMS_E_AUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "denied, or our token is refused"));
    kms_vault_ops.health(vault, &health);
    CU_ASSERT_FALSE(health.ready);
    grow_old();
    (void)setenv("KMS_TEST_TOKEN", "t2", 1);
    CU_ASSERT_EQUAL(ask(&call), KMS_OK); /* within the call */
    end();
}

static bool see(void *ctx, const struct kms_key_info *info)
{
    (void)info;
    *(bool *)ctx = true;
    return true;
}

static bool sees_kek(void)
{
    const struct kms_key_filter filter = {.spec = "kek"};
    struct kms_call call = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    bool is_seen = false;

    return kms_vault_ops.list_keys(vault, &call, &filter, see, &is_seen) == KMS_OK && is_seen;
}

/*
 * Nobody can tell, but a key that the token could read: while it can, what else is denied is
 * denied, and says nothing of the key service.
 */
static void a_key_that_is_read_tells(void)
{
    static const char *const methods[] = {"token", "approle"};
    struct kms_health health;
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(methods); i++) {
        begin(methods[i]);
        self_said = (struct said){.status = 403, .body = DENIED};
        mounts_said = (struct said){.status = 404, .body = "{\"errors\":[]}"};
        UNIT_CHECK(methods[i], sees_kek());
        grow_old();
        is_denied = true;
        UNIT_CHECK(methods[i], ask(&call) == KMS_E_DENIED);
        UNIT_CHECK(call.error.text, strstr(call.error.text, "refuse") == NULL);
        UNIT_CHECK(methods[i], fake.count == 4);
        UNIT_CHECK(methods[i], logins == i && reconnects() == 0);
        health = (struct kms_health){.ready = false};
        kms_vault_ops.health(vault, &health);
        UNIT_CHECK(methods[i], health.ready);
        kek_said.status = 503; /* no answer is no verdict */
        UNIT_CHECK(methods[i], ask(&call) == KMS_E_DENIED && reconnects() == 0);
        kek_said.status = 0;
        is_denied = false;
        good_from = 2; /* and when it can not, it is in doubt */
        (void)setenv("KMS_TEST_TOKEN", "t2", 1);
        UNIT_CHECK(methods[i], ask(&call) == KMS_OK && reconnects() == 1);
        end();
    }
}

/* max_lease_ttl is for the operator to say; the longest that a server of Go's can is 292 years. */
static void leases_may_be_long(void)
{
    static const char *const ttls[] = {"3153600000", "9223372036"};
    static char mine[256];
    struct kms_call call;

    for (size_t i = 0; i < UNIT_COUNT(ttls); i++) {
        begin("token");
        (void)snprintf(mine, sizeof(mine), "{\"data\":{\"ttl\":%s,\"renewable\":true}}", ttls[i]);
        self_said.body = mine;
        UNIT_CHECK(call.error.text, ask(&call) == KMS_OK);
        UNIT_CHECK(ttls[i], fake.count == 2);
        UNIT_CHECK(call.error.text, ask(&call) == KMS_OK);
        UNIT_CHECK(ttls[i], fake.count == 1); /* it is good still */
        end();
    }
}

/* `bao auth list` shows mounts with a slash. */
static void mounts_of_logins_are_paths(void)
{
    static char mounts[][16] = {"approle", "approle/", "/team/approle/"};
    static const char *const logins_at[] = {"auth/approle/login", "auth/approle/login",
                                            "auth/team/approle/login"};
    struct kms_call call;
    char line[96];

    for (size_t i = 0; i < UNIT_COUNT(mounts); i++) {
        auth_mount = mounts[i];
        begin("approle");
        auth_mount = NULL;
        (void)snprintf(line, sizeof(line), "POST https://vault.example:8200/v1/%s", logins_at[i]);
        UNIT_CHECK(mounts[i], ask(&call) == KMS_OK);
        UNIT_CHECK(mounts[i], fake_http_asked(&fake, line) == 1);
        end();
    }
}

/* A server that is ill says nothing of a token. */
static void no_answer_is_no_verdict(void)
{
    struct kms_call call;

    begin("token");
    self_said = (struct said){.status = 403, .body = DENIED};
    mounts_said = (struct said){.status = 503, .body = "{\"errors\":[\"Vault is sealed\"]}"};
    CU_ASSERT_EQUAL(ask(&call), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "cannot be looked at now"));
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "Vault is sealed"));
    mounts_said.status = 200;
    (void)poll(NULL, 0, 150); /* what may pass by itself is remembered for a tenth of a second */
    CU_ASSERT_EQUAL(ask(&call), KMS_OK);
    end();
}

static const struct unit_test tests[] = {
    {"denied to a good token", denied_to_a_good_token},
    {"a bad token is replaced", a_bad_token_is_replaced},
    {"in doubt there is one login", in_doubt_there_is_one_login},
    {"a young one in doubt is replaced later", a_young_one_in_doubt_is_replaced_later},
    {"a given token without the policy", a_given_token_without_the_policy},
    {"a given token in doubt", a_given_token_in_doubt},
    {"a key that is read tells", a_key_that_is_read_tells},
    {"leases may be long", leases_may_be_long},
    {"mounts of logins are paths", mounts_of_logins_are_paths},
    {"no answer is no verdict", no_answer_is_no_verdict},
};

int main(void)
{
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    return kms_secure_init() == KMS_OK ? unit_main("test_vault_token", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
