/* SPDX-License-Identifier: Apache-2.0 */
/* `agent:` and `audit:` of the configuration. Each row is added to a good file. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/registry.h"
#include "common/clock.h"
#include "common/secure.h"
#include "kmsbridge/conf.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

/* In the registry's place: types that need no settings. */
const char *const *kms_backend_types(void)
{
    static const char *const types[] = {"bare", NULL};

    return types;
}

/* What is added begins on line 5. */
#define HEAD                                                                                       \
    "version: 1\n"                                                                                 \
    "backends:\n"                                                                                  \
    "- {name: hsm, type: bare}\n"                                                                  \
    "- {name: two, type: bare}\n"

static struct kms_conf *read_good(const char *text)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;

    if (!UNIT_CHECK("good", kms_conf_read_text("f", text, strlen(text), &conf, &error) == KMS_OK)) {
        fprintf(stderr, "got: %s\n", error.text);
    }
    return conf;
}

static void defaults(void)
{
    struct kms_conf *conf = read_good(HEAD "agent: {}\n");

    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_TRUE(conf->agent.on);
    CU_ASSERT_FALSE(conf->agent.is_private);
    CU_ASSERT_PTR_NULL(conf->kms.socket);
    CU_ASSERT_STRING_EQUAL(conf->agent.socket, "/run/kmsbridge/agent.sock");
    CU_ASSERT_EQUAL(conf->agent.mode, 0666);
    CU_ASSERT_EQUAL(conf->agent.owner, (uid_t)-1);
    CU_ASSERT_EQUAL(conf->agent.max_connections, 512);
    CU_ASSERT_EQUAL(conf->agent.max_connections_per_uid, 128);
    CU_ASSERT_EQUAL(conf->agent.calls_per_second, 0);
    CU_ASSERT_EQUAL(conf->agent.concurrent_calls_per_uid, 16);
    CU_ASSERT_EQUAL(conf->agent.idle_timeout_ns, 600 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->agent.call_timeout_ns, 10 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->agent.idle_exit_ns, 600 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->agent.token_count, 2); /* every backend */
    CU_ASSERT_STRING_EQUAL(conf->agent.tokens[1].backend, "two");
    CU_ASSERT_EQUAL(conf->agent.tokens[0].login, KMS_AGENTD_LOGIN_NONE);
    CU_ASSERT_EQUAL(conf->agent.tokens[0].keys_ttl_ns, 60 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->agent.rule_count, 0);
    CU_ASSERT_EQUAL(conf->audit.to, KMS_AUDIT_LOG);
    CU_ASSERT_FALSE(conf->audit.required);
    kms_conf_done(conf);
}

static void all_settings(void)
{
    struct kms_conf *conf =
        read_good(HEAD "agent:\n"
                       "  socket: '@pkcs11'\n"
                       "  mode: 0660\n"
                       "  owner: root\n"
                       "  group: 7\n"
                       "  max_connections: 5\n"
                       "  max_connections_per_uid: 4\n"
                       "  calls_per_second: 100\n"
                       "  concurrent_calls_per_uid: 3\n"
                       "  idle_timeout: 1s\n"
                       "  call_timeout: 60s\n"
                       "  idle_exit: 100ms\n"
                       "  tokens:\n"
                       "  - backend: two\n"
                       "    label: Shown\n"
                       "    login: pin\n"
                       "    keys_ttl: 1s\n"
                       "    keys: [a, 'id:00ff', 'pkcs11:object=b']\n"
                       "    certificates: [{key: a, file: /c.pem}]\n"
                       "  rules:\n"
                       "  - {uids: [5], users: [root], gids: [6], groups: [root], tokens: [two],\n"
                       "     keys: ['app-*', 'id:01'], allow: [sign, list]}\n"
                       "  - {users: ['*'], allow: [random]}\n"
                       "audit: {file: /a, required: true}\n"
                       "log: {file: /l}\n");

    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_STRING_EQUAL(conf->agent.socket, "@pkcs11");
    CU_ASSERT_EQUAL(conf->agent.mode, 0660);
    CU_ASSERT_EQUAL(conf->agent.owner, 0);
    CU_ASSERT_EQUAL(conf->agent.group, 7);
    CU_ASSERT_EQUAL(conf->agent.max_connections, 5);
    CU_ASSERT_EQUAL(conf->agent.max_connections_per_uid, 4);
    CU_ASSERT_EQUAL(conf->agent.calls_per_second, 100);
    CU_ASSERT_EQUAL(conf->agent.concurrent_calls_per_uid, 3);
    CU_ASSERT_EQUAL(conf->agent.token_count, 1);
    CU_ASSERT_STRING_EQUAL(conf->agent.tokens[0].label, "Shown");
    CU_ASSERT_EQUAL(conf->agent.tokens[0].login, KMS_AGENTD_LOGIN_PIN);
    CU_ASSERT_EQUAL(conf->agent.tokens[0].key_count, 3);
    CU_ASSERT_EQUAL(conf->agent.tokens[0].certificate_count, 1);
    CU_ASSERT_STRING_EQUAL(conf->agent.tokens[0].certificates[0].file, "/c.pem");
    CU_ASSERT_EQUAL_FATAL(conf->agent.rule_count, 2);
    CU_ASSERT_EQUAL(conf->agent.rules[0].uid_count, 2);
    CU_ASSERT_EQUAL(conf->agent.rules[0].uids[1], 0);
    CU_ASSERT_EQUAL(conf->agent.rules[0].gid_count, 2);
    CU_ASSERT_EQUAL(conf->agent.rules[0].allow, KMS_RIGHT_SIGN | KMS_RIGHT_LIST);
    CU_ASSERT_FALSE(conf->agent.rules[0].everybody);
    CU_ASSERT_TRUE(conf->agent.rules[1].everybody);
    CU_ASSERT_EQUAL(conf->audit.to, KMS_AUDIT_FILE);
    CU_ASSERT_STRING_EQUAL(conf->audit.file, "/a");
    CU_ASSERT_TRUE(conf->audit.required);
    CU_ASSERT_STRING_EQUAL(conf->log_file, "/l");
    kms_conf_done(conf);
}

static void wrong(void)
{
    static const struct {
        const char *text;
        const char *expected; /* begins the error, behind "f:"; "" for success */
    } rows[] = {
        {"", " has neither kms nor agent"},
        {"kms: {socket: /s, backend: hsm, key: k}", ""},
        {"kms: {socket: /s, backend: hsm, key: k}\nagent: {socket: /s}",
         "6: agent.socket: \"/s\" is kms.socket as well"},
        {"agent: {socket: s}", "5: agent.socket: \"s\" is neither an absolute path"},
        {"agent: {mode: 0999}", "5: agent.mode: \"0999\" is not an octal mode"},
        {"agent: {owner: nobody-here}", "5: agent.owner: \"nobody-here\" is no user"},
        {"agent: {group: nobody-here}", "5: agent.group: \"nobody-here\" is no group"},
        {"agent: {max_connections: 0}", "5: agent.max_connections: \"0\" is not a number from 1"},
        {"agent: {max_connections_per_uid: x}", "5: agent.max_connections_per_uid: \"x\" is not"},
        {"agent: {calls_per_second: -1}", "5: agent.calls_per_second: \"-1\" is not a number"},
        {"agent: {concurrent_calls_per_uid: 0}", "5: agent.concurrent_calls_per_uid: \"0\" is"},
        {"agent: {idle_timeout: 999ms}", "5: agent.idle_timeout: \"999ms\" is not a duration"},
        {"agent: {call_timeout: 61s}", "5: agent.call_timeout: \"61s\" is not a duration"},
        {"agent: {idle_exit: 0s}", "5: agent.idle_exit: \"0s\" is not a duration"},
        {"agent: {sockets: /s}", "5: agent.sockets: there is no such setting"},
        {"agent:\n  tokens:\n  - {}", "7: agent.tokens[0].backend: is missing"},
        {"agent:\n  tokens:\n  - {backend: x}",
         "7: agent.tokens[0].backend: \"x\" is not the name of an entry of backends"},
        {"agent:\n  tokens:\n  - {backend: two}\n  - {backend: two}",
         "8: agent.tokens[1].backend: \"two\" has a token already"},
        {"agent:\n  tokens:\n  - {backend: two, login: maybe}",
         "7: agent.tokens[0].login: \"maybe\" is none of none, any, pin"},
        {"agent:\n  tokens:\n  - {backend: two, keys_ttl: 0s}",
         "7: agent.tokens[0].keys_ttl: \"0s\" is not a duration from 1s to 24h"},
        {"agent:\n  tokens:\n  - {backend: two, label: 123456789012345678901234567890123}",
         "7: agent.tokens[0].label: \"123456789012345678901234567890123\" is not a label of 1 to"},
        {"agent:\n  tokens:\n  - {backend: two, label: ''}", "7: agent.tokens[0].label: \"\" is"},
        {"agent:\n  tokens:\n  - {backend: two, keys: [a, 'id:0']}",
         "7: agent.tokens[0].keys[1]: \"id:0\" is no label, no id:HEX and no pkcs11: URI"},
        {"agent:\n  tokens:\n  - {backend: two, keys: ['pkcs11:object=a?pin-value=1']}",
         "7: agent.tokens[0].keys[0]: \"pkcs11:"},
        {"agent:\n  tokens:\n  - {backend: two, certificates: [{key: a}]}",
         "7: agent.tokens[0].certificates[0].file: is missing"},
        {"agent:\n  tokens:\n  - {backend: two, certificates: [{key: a, file: c.pem}]}",
         "7: agent.tokens[0].certificates[0].file: \"c.pem\" is not an absolute path"},
        {"agent:\n  tokens:\n  - {backend: two, certificates: [{key: '', file: /c}]}",
         "7: agent.tokens[0].certificates[0].key: \"\" is not a key's label"},
        {"agent:\n  rules:\n  - {uids: [5]}", "7: agent.rules[0].allow: is missing"},
        {"agent:\n  rules:\n  - {uids: [5], allow: []}", "7: agent.rules[0].allow: allows nothing"},
        {"agent:\n  rules:\n  - {allow: [sign]}", "7: agent.rules[0]: names nobody"},
        {"agent:\n  rules:\n  - {users: ['*', root], allow: [sign]}",
         "7: agent.rules[0].users[0]: \"*\" is no user"},
        {"agent:\n  rules:\n  - {uids: [5], allow: [sign, fly]}",
         "7: agent.rules[0].allow[1]: \"fly\" is none of sign, verify"},
        {"agent:\n  rules:\n  - {users: [nobody-here], allow: [sign]}",
         "7: agent.rules[0].users[0]: \"nobody-here\" is no user of this system"},
        {"agent:\n  rules:\n  - {groups: [root, nobody-here], allow: [sign]}",
         "7: agent.rules[0].groups[1]: \"nobody-here\" is no group of this system"},
        {"agent:\n  rules:\n  - {uids: [5], tokens: [x], allow: [sign]}",
         "7: agent.rules[0].tokens[0]: \"x\" is not the backend of an entry of agent.tokens"},
        {"agent:\n  rules:\n  - {uids: [5], keys: ['pkcs11:object=a'], allow: [sign]}",
         "7: agent.rules[0].keys[0]: \"pkcs11:object=a\" is no label, with *"},
        {"agent:\n  rules:\n  - {uids: [5], keys: [''], allow: [sign]}",
         "7: agent.rules[0].keys[0]: \"\" is no label"},
        {"agent: {}\naudit: {file: log}", ""},
        {"agent: {}\naudit: {file: none}", ""},
        {"agent: {}\naudit: {file: syslog}", "6: audit.file: \"syslog\" is no absolute path"},
        {"agent: {}\naudit: {required: yes}", "6: audit.required: \"yes\" is neither true nor"},
        {"agent: {}\naudit: {required: true}", "6: audit.required: needs audit.file to be a path"},
        {"agent: {}\naudit: {file: log}\nlog: {level: warn}", "6: audit.file: log shows nothing"},
        {"agent: {}\nlog: {level: warn}", ""},
        {"agent: {}\nlog: {file: l}", "6: log.file: \"l\" is not an absolute path"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct kms_conf *conf = NULL;
        bool good = rows[i].expected[0] == '\0';
        char text[2048];
        char expected[256];
        enum kms_status status;

        (void)snprintf(text, sizeof(text), HEAD "%s\n", rows[i].text);
        (void)snprintf(expected, sizeof(expected), "f:%s", rows[i].expected);
        status = kms_conf_read_text("f", text, strlen(text), &conf, &error);
        UNIT_CHECK(rows[i].text, status == (good ? KMS_OK : KMS_E_INVALID));
        if (!good &&
            !UNIT_CHECK(rows[i].text, strncmp(error.text, expected, strlen(expected)) == 0)) {
            fprintf(stderr, "%s: got: %s\n", rows[i].text, error.text);
        }
        kms_conf_done(conf);
    }
}

static void private_agent(void)
{
    static const char text[] = HEAD "kms: {socket: /s, backend: no-such, key: ''}\n"
                                    "monitor: {listen: nowhere}\n";
    const char *path = scratch_file("private", 0600, HEAD, strlen(HEAD));
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;

    CU_ASSERT_EQUAL(kms_conf_read_private(path, &conf, &error), KMS_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_TRUE(conf->agent.on && conf->agent.is_private);
    CU_ASSERT_EQUAL(conf->agent.token_count, 2);
    CU_ASSERT_EQUAL(conf->audit.to, KMS_AUDIT_NONE);
    kms_conf_make_private(conf, "/run/user/1/s", "/l");
    CU_ASSERT_STRING_EQUAL(conf->agent.socket, "/run/user/1/s");
    CU_ASSERT_STRING_EQUAL(conf->log_file, "/l");
    CU_ASSERT_EQUAL(conf->agent.mode, 0600);
    kms_conf_done(conf);
    conf = NULL;
    /* the KMS plugin and the monitor are not its business */
    path = scratch_file("system", 0600, text, strlen(text));
    CU_ASSERT_EQUAL(kms_conf_read_private(path, &conf, &error), KMS_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_PTR_NULL(conf->kms.socket);
    CU_ASSERT_PTR_NULL(conf->monitor_listen);
    kms_conf_done(conf);
    conf = NULL;
    path = scratch_file("loose", 0666, HEAD, strlen(HEAD));
    CU_ASSERT_EQUAL(kms_conf_read_private(path, &conf, &error), KMS_E_DENIED);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"defaults", defaults},
        {"all settings", all_settings},
        {"wrong", wrong},
        {"private agent", private_agent},
    };
    int code;

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    code = unit_main("test_agent_conf", tests, UNIT_COUNT(tests));
    scratch_done();
    return code;
}
