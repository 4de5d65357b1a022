/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's configuration. Each row changes one thing of a good file. */
#include "kmsbridge/conf.h"

#include <string.h>
#include <unistd.h>

#include "backend/registry.h"
#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#define PIN "73519264" /* as one that was written where it does not belong */

/* In the registry's place: a type with settings, and one that needs none. */
const char *const *kms_backend_types(void)
{
    static const char *const types[] = {"hsm", "bare", "vault", NULL};

    return types;
}

#define BACKENDS                                                                                   \
    "backends:\n"                                                                                  \
    "  - name: hsm\n"                                                                              \
    "    type: hsm\n"                                                                              \
    "    hsm: {module: /m.so, token: t}\n"

static const char least[] =
    "version: 1\n" BACKENDS "kms: {socket: /run/k.sock, backend: hsm, key: kek}\n";

static const char full[] =
    "version: 1\n"
    "log: {level: debug, format: json}\n"
    "backends:\n"
    "  - name: first\n"
    "    type: hsm\n"
    "    hsm: {module: softhsm2, token: 'pkcs11:token=kms', pin: 'env:PIN', sessions: 1024,\n"
    "          mechanism: aes-gcm, init_args: x}\n"
    "  - {name: second.2, type: bare}\n"
    "kms:\n"
    "  socket: '@kms'\n"
    "  mode: 0660\n"
    "  owner: root\n"
    "  group: 7\n"
    "  allow_uids: [root, 12, '13']\n"
    "  allow_gids: [0, 5]\n"
    "  backend: second.2\n"
    "  key: 'id:00ff'\n"
    "  api_version: v2beta1\n"
    "  provider_name: my-kms\n"
    "  on_failure: keep-writing\n"
    "  probe_interval: 1s\n"
    "  refresh_interval: 1h\n"
    "  call_timeout: 10ms\n"
    "  max_connections: 1\n"
    "  max_calls: 2\n"
    "  workers: 256\n"
    "  queue: 4\n"
    "monitor: {listen: 'unix:/run/m.sock'}\n"
    "agent:\n"
    "  tokens: [{backend: first, certificates: [{key: k, file: /c}]}]\n"
    "  rules: [{uids: [0], groups: [root], allow: [sign]}]\n"
    "audit: {file: /a}\n";

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
    struct kms_conf *conf = read_good(least);

    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_STRING_EQUAL(conf->path, "f");
    CU_ASSERT_EQUAL(conf->log_level, KMS_LOG_INFO);
    CU_ASSERT_EQUAL(conf->log_format, KMS_LOG_TEXT);
    CU_ASSERT_EQUAL(conf->backend_count, 1);
    CU_ASSERT_EQUAL(conf->backends[0].hsm->sessions, KMS_HSM_SESSIONS_DEFAULT);
    CU_ASSERT_PTR_NULL(conf->backends[0].hsm->pin);
    CU_ASSERT_PTR_NULL(conf->backends[0].hsm->mechanism);
    CU_ASSERT_STRING_EQUAL(conf->kms.socket, "/run/k.sock");
    CU_ASSERT_EQUAL(conf->kms.mode, 0600);
    CU_ASSERT_EQUAL(conf->kms.owner, (uid_t)-1);
    CU_ASSERT_EQUAL(conf->kms.group, (gid_t)-1);
    CU_ASSERT_EQUAL(conf->kms.allow_uid_count, geteuid() == 0 ? 1 : 2);
    CU_ASSERT_EQUAL(conf->kms.allow_uids[0], 0);
    CU_ASSERT_EQUAL(conf->kms.allow_uids[conf->kms.allow_uid_count - 1], geteuid());
    CU_ASSERT_EQUAL(conf->kms.allow_gid_count, 0);
    CU_ASSERT_STRING_EQUAL(conf->kms.key, "kek");
    CU_ASSERT_STRING_EQUAL(conf->kms.api_version, "v2");
    CU_ASSERT_STRING_EQUAL(conf->kms.provider_name, "kmsbridge");
    CU_ASSERT_EQUAL(conf->kms.on_failure, KMS_STOP_WRITING);
    CU_ASSERT_EQUAL(conf->kms.probe_interval_ns, 30 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->kms.refresh_interval_ns, 30 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->kms.call_timeout_ns, 2800 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(conf->kms.max_connections, 64);
    CU_ASSERT_EQUAL(conf->kms.max_calls, 1024);
    CU_ASSERT_EQUAL(conf->kms.workers, 32);
    CU_ASSERT_EQUAL(conf->kms.queue, 1024);
    CU_ASSERT_PTR_NULL(conf->monitor_listen);
    kms_conf_done(conf);
    kms_conf_done(NULL);
}

/* No more than have a connection each, unless the file says how many. */
static void workers_fit_the_key_service(void)
{
    static const struct {
        const char *vault, *kms;
        unsigned workers;
    } rows[] = {
        {"", "", 16},
        {"connections: 4, ", "", 4},
        {"connections: 256, ", "", 32},
        {"connections: 4, http_version: 2, ", "", 32},
        {"connections: 4, ", ", workers: 9", 9},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char text[512];
        struct kms_conf *conf = NULL;

        (void)snprintf(
            text, sizeof(text),
            "version: 1\n"
            "backends:\n"
            "  - name: bao\n"
            "    type: vault\n"
            "    vault: {addresses: ['https://a'], %sauth: {method: token, token: 'env:T'}}\n"
            "kms: {socket: '@kms', backend: bao, key: kek%s}\n",
            rows[i].vault, rows[i].kms);
        conf = read_good(text);
        CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
        UNIT_CHECK(rows[i].vault, conf->kms.workers == rows[i].workers);
        kms_conf_done(conf);
    }
}

static void all_settings(void)
{
    struct kms_conf *conf = read_good(full);

    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_EQUAL(conf->log_level, KMS_LOG_DEBUG);
    CU_ASSERT_EQUAL(conf->log_format, KMS_LOG_JSON);
    CU_ASSERT_EQUAL(conf->backends[0].hsm->sessions, 1024);
    CU_ASSERT_STRING_EQUAL(conf->backends[0].hsm->pin, "env:PIN");
    CU_ASSERT_STRING_EQUAL(conf->backends[0].hsm->mechanism, "aes-gcm");
    CU_ASSERT_STRING_EQUAL(conf->backends[0].hsm->init_args, "x");
    CU_ASSERT_PTR_EQUAL(kms_conf_backend(conf, "second.2"), &conf->backends[1]);
    CU_ASSERT_PTR_NULL(kms_conf_backend(conf, "third"));
    CU_ASSERT_STRING_EQUAL(conf->kms.socket, "@kms");
    CU_ASSERT_EQUAL(conf->kms.mode, 0660);
    CU_ASSERT_EQUAL(conf->kms.owner, 0);
    CU_ASSERT_EQUAL(conf->kms.group, 7);
    CU_ASSERT_EQUAL(conf->kms.allow_uid_count, 3);
    CU_ASSERT_EQUAL(conf->kms.allow_uids[0], 0);
    CU_ASSERT_EQUAL(conf->kms.allow_uids[2], 13);
    CU_ASSERT_EQUAL(conf->kms.allow_gid_count, 2);
    CU_ASSERT_EQUAL(conf->kms.allow_gids[1], 5);
    CU_ASSERT_STRING_EQUAL(conf->kms.backend, "second.2");
    CU_ASSERT_STRING_EQUAL(conf->kms.key, "id:00ff");
    CU_ASSERT_STRING_EQUAL(conf->kms.api_version, "v2beta1");
    CU_ASSERT_STRING_EQUAL(conf->kms.provider_name, "my-kms");
    CU_ASSERT_EQUAL(conf->kms.on_failure, KMS_KEEP_WRITING);
    CU_ASSERT_EQUAL(conf->kms.probe_interval_ns, KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->kms.refresh_interval_ns, 3600 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(conf->kms.call_timeout_ns, 10 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(conf->kms.max_connections, 1);
    CU_ASSERT_EQUAL(conf->kms.max_calls, 2);
    CU_ASSERT_EQUAL(conf->kms.workers, 256);
    CU_ASSERT_EQUAL(conf->kms.queue, 4);
    CU_ASSERT_STRING_EQUAL(conf->monitor_listen, "unix:/run/m.sock");
    kms_conf_done(conf);
}

/* Compares the error of @text with @expected; "" stands for success. */
static void check_text(const char *row, const char *text, const char *expected)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;
    enum kms_status status = kms_conf_read_text("f", text, strlen(text), &conf, &error);

    UNIT_CHECK(row, status == (expected[0] == '\0' ? KMS_OK : KMS_E_INVALID));
    UNIT_CHECK(row, (conf != NULL) == (status == KMS_OK));
    UNIT_CHECK(row, strstr(error.text, PIN) == NULL);
    if (!UNIT_CHECK(row, strncmp(error.text, expected, strlen(expected)) == 0 &&
                             (expected[0] != '\0' || error.text[0] == '\0'))) {
        fprintf(stderr, "%s: got: %s\n", row, error.text);
    }
    kms_conf_done(conf);
}

struct setting_row {
    const char *line;     /* one line, added to its mapping */
    const char *expected; /* begins the error, behind "f:LINE: "; "" for success */
};

static void check_settings(const char *before, const struct setting_row *rows, size_t count,
                           const char *place)
{
    char text[4096];
    char expected[1024];

    for (size_t i = 0; i < count; i++) {
        (void)snprintf(text, sizeof(text), "%s%s\n", before, rows[i].line);
        (void)snprintf(expected, sizeof(expected), "%s%s", place, rows[i].expected);
        check_text(rows[i].line, text, rows[i].expected[0] == '\0' ? "" : expected);
    }
}

/* The line of the changed setting is 9. */
#define KMS_HEAD                                                                                   \
    "version: 1\n" BACKENDS "kms:\n"                                                               \
    "  backend: hsm\n"

static void kms_socket(void)
{
    static const struct setting_row rows[] = {
        {"  key: k\n  socket: /run/k", ""},
        {"  key: k\n  socket: '@k'", ""},
        {"  key: k\n  socket: run/k",
         "kms.socket: \"run/k\" is neither an absolute path nor @name"},
        {"  key: k\n  socket: '@'", "kms.socket: \"@\" is neither"},
        {"  key: k\n  socket: /", "kms.socket: \"/\" is neither"},
        {"  key: k\n  socket: /run/", "kms.socket: \"/run/\" is neither"},
        {"  key: k\n  socket: ''", "kms.socket: \"\" is neither"},
        {"  key: k\n  socket: unix:///run/k", "kms.socket: \"unix:///run/k\" is neither"},
        {"  key: k\n  socket: [/run/k]", "kms.socket: must be one value"},
    };

    check_settings(KMS_HEAD, rows, UNIT_COUNT(rows), "f:9: ");
}

/* sockaddr_un holds 107 bytes and a NUL. */
static void kms_socket_length(void)
{
    for (size_t len = 106; len <= 108; len++) {
        char path[128] = "/";
        char text[1024];

        memset(path + 1, 's', len - 1);
        (void)snprintf(text, sizeof(text), KMS_HEAD "  key: k\n  socket: %s\n", path);
        check_text("path", text, len <= 107 ? "" : "f:9: kms.socket: \"/sss");
        path[0] = '@';
        (void)snprintf(text, sizeof(text), KMS_HEAD "  key: k\n  socket: '%s'\n", path);
        check_text("name", text, len <= 107 ? "" : "f:9: kms.socket: \"@sss");
    }
}

static void kms_key(void)
{
    static const struct setting_row rows[] = {
        {"  socket: /s\n  key: a label", ""},
        {"  socket: /s\n  key: id:0aFF", ""},
        {"  socket: /s\n  key: pkcs11:object=kek", ""},
        {"  socket: /s\n  key: pkcs11:id=%01", ""},
        {"  socket: /s\n  key: ''", "kms.key: \"\" is no label"},
        {"  socket: /s\n  key: 'id:'", "kms.key: \"id:\" is no label"},
        {"  socket: /s\n  key: id:0", "kms.key: \"id:0\" is no label"},
        {"  socket: /s\n  key: id:xy", "kms.key: \"id:xy\" is no label"},
        {"  socket: /s\n  key: pkcs11:token=t", "kms.key: \"pkcs11:token=t\" is no label"},
        {"  socket: /s\n  key: pkcs11:object=k?pin-value=" PIN, "kms.key: must not hold a PIN"},
        {"  socket: /s\n  key: \"a\\nb\"", "kms.key: \"a b\" is no label"},
    };
    char text[1024];
    char key[300];

    check_settings(KMS_HEAD, rows, UNIT_COUNT(rows), "f:9: ");
    memset(key, 'k', sizeof(key));
    (void)snprintf(text, sizeof(text), KMS_HEAD "  socket: /s\n  key: %.255s\n", key);
    check_text("label of 255 bytes", text, "");
    (void)snprintf(text, sizeof(text), KMS_HEAD "  socket: /s\n  key: %.256s\n", key);
    check_text("label of 256 bytes", text, "f:9: kms.key: \"kkk");
    memset(key, '0', sizeof(key));
    (void)snprintf(text, sizeof(text), KMS_HEAD "  socket: /s\n  key: id:%.128s\n", key);
    check_text("id of 64 bytes", text, "");
    (void)snprintf(text, sizeof(text), KMS_HEAD "  socket: /s\n  key: id:%.130s\n", key);
    check_text("id of 65 bytes", text, "f:9: kms.key: \"id:000");
}

/* The line of the changed setting is 10. */
#define KMS_ALL KMS_HEAD "  socket: /run/k\n  key: k\n"

static void kms_others(void)
{
    static const struct setting_row rows[] = {
        {"  mode: 0600", ""},
        {"  mode: \"0600\"", ""},
        {"  mode: 0999", "kms.mode: \"0999\" is not an octal mode"},
        {"  mode: rw", "kms.mode: \"rw\" is not an octal mode"},
        {"  mode: 7777", "kms.mode: \"7777\" is not an octal mode"},
        {"  mode:", "kms.mode: has no value"},
        {"  mode: ''", "kms.mode: \"\" is not an octal mode"},
        {"  owner: no-such-user", "kms.owner: \"no-such-user\" is no user of this system"},
        {"  owner: 4294967295", "kms.owner: \"4294967295\" is no user of this system and no uid"},
        {"  group: no-such-group", "kms.group: \"no-such-group\" is no group of this system"},
        {"  allow_uids: []", ""},
        {"  allow_uids: 0", "kms.allow_uids: must be a list"},
        {"  allow_uids: [0, nobody-here]", "kms.allow_uids[1]: \"nobody-here\" is no user"},
        {"  allow_uids: [0, -1]", "kms.allow_uids[1]: \"-1\" is no user"},
        {"  allow_uids: [[0]]", "kms.allow_uids[0]: must be one value"},
        {"  allow_gids: [0, nobody-here]", "kms.allow_gids[1]: \"nobody-here\" is no group"},
        {"  api_version: v1", "kms.api_version: \"v1\" is neither v2 nor v2beta1"},
        {"  provider_name: 'a:b'", "kms.provider_name: \"a:b\" is not a name"},
        {"  provider_name: ''", "kms.provider_name: \"\" is not a name"},
        {"  provider_name: \"a\\tb\"", "kms.provider_name: \"a b\" is not a name"},
        {"  on_failure: shrug", "kms.on_failure: \"shrug\" is neither stop-writing nor keep"},
        {"  probe_interval: 10m", ""},
        {"  probe_interval: 999ms", "kms.probe_interval: \"999ms\" is not a duration from 1s"},
        {"  probe_interval: 601s", "kms.probe_interval: \"601s\" is not a duration"},
        {"  probe_interval: 30", "kms.probe_interval: \"30\" is not a duration from 1s to 10m"},
        {"  refresh_interval: 1s", ""},
        {"  refresh_interval: 0s", "kms.refresh_interval: \"0s\" is not a duration"},
        {"  refresh_interval: 61m", "kms.refresh_interval: \"61m\" is not a duration"},
        {"  call_timeout: 60s", ""},
        {"  call_timeout: 9ms", "kms.call_timeout: \"9ms\" is not a duration from 10ms to 60s"},
        {"  call_timeout: 61s", "kms.call_timeout: \"61s\" is not a duration"},
        {"  max_connections: 0", "kms.max_connections: \"0\" is not a number from 1 to 4096"},
        {"  max_connections: 4097", "kms.max_connections: \"4097\" is not a number"},
        {"  max_calls: 65537", "kms.max_calls: \"65537\" is not a number from 1 to 65536"},
        {"  workers: 257", "kms.workers: \"257\" is not a number from 1 to 256"},
        {"  workers: 32x", "kms.workers: \"32x\" is not a number"},
        {"  workers: -1", "kms.workers: \"-1\" is not a number"},
        {"  workers: 0x10", "kms.workers: \"0x10\" is not a number"},
        {"  queue: 0", "kms.queue: \"0\" is not a number from 1 to 65536"},
        {"  quue: 1", "kms.quue: there is no such setting"},
        {"monitor: {listen: '127.0.0.1:8780'}", ""},
        {"monitor: {listen: '127.9.9.9:1'}", ""},
        {"monitor: {listen: '[::1]:65535'}", ""},
        {"monitor: {listen: 'unix:/run/m'}", ""},
        {"monitor: {listen: '0.0.0.0:8780'}", "monitor.listen: \"0.0.0.0:8780\" is none of 127"},
        {"monitor: {listen: '[::]:8780'}", "monitor.listen: \"[::]:8780\" is none of"},
        {"monitor: {listen: '::1:8780'}", "monitor.listen: \"::1:8780\" is none of"},
        {"monitor: {listen: '10.0.0.1:80'}", "monitor.listen: \"10.0.0.1:80\" is none of"},
        {"monitor: {listen: 'localhost:80'}", "monitor.listen: \"localhost:80\" is none of"},
        {"monitor: {listen: '127.0.0.1'}", "monitor.listen: \"127.0.0.1\" is none of"},
        {"monitor: {listen: '127.0.0.1:'}", "monitor.listen: \"127.0.0.1:\" is none of"},
        {"monitor: {listen: '127.0.0.1:0'}", "monitor.listen: \"127.0.0.1:0\" is none of"},
        {"monitor: {listen: '127.0.0.1:65536'}", "monitor.listen: \"127.0.0.1:65536\" is none"},
        {"monitor: {listen: '127.1:80'}", "monitor.listen: \"127.1:80\" is none of"},
        {"monitor: {listen: 'unix:run/m'}", "monitor.listen: \"unix:run/m\" is none of"},
        {"monitor: {}", "monitor.listen: is missing"},
        {"monitor: true", "monitor: must be a mapping"},
        {"log: {}", ""},
        {"log: {level: loud}", "log.level: \"loud\" is none of error, warn, info, debug"},
        {"log: {format: xml}", "log.format: \"xml\" is neither text nor json"},
        {"logs: {}", "logs: there is no such setting"},
        {"version: 1", "version: is there twice"},
    };

    check_settings(KMS_ALL, rows, UNIT_COUNT(rows) - 1, "f:10: ");
    check_settings(KMS_ALL, rows + UNIT_COUNT(rows) - 1, 1, "f:1: "); /* the first of the two */
}

/* The line of the changed setting is 5. */
#define BACKEND_HEAD                                                                               \
    "version: 1\n"                                                                                 \
    "kms: {socket: /s, backend: b, key: k}\n"                                                      \
    "backends:\n"                                                                                  \
    "- name: b\n"

static void backends(void)
{
    static const struct setting_row rows[] = {
        {"  type: bare", ""},
        {"  type: kmip",
         "backends[0].type: \"kmip\" is not a type of backend; there are: hsm, bare, vault"},
        {"  type: ''", "backends[0].type: \"\" is not a type of backend"},
        {"  hsm: {module: m, token: t}\n  type: bare", "backends[0].hsm: is not of this entry's"},
        {"  hsm: {module: /a/m.so, token: t}\n  type: hsm", ""},
        {"  hsm: {module: m, token: t, mechanism: auto}\n  type: hsm", ""},
        {"  hsm: {module: m, token: t, mechanism: rsa-oaep}\n  type: hsm", ""},
        {"  hsm: {module: m, token: t, sessions: 1}\n  type: hsm", ""},
        {"  hsm: {module: m}\n  type: hsm", "backends[0].hsm.token: is missing"},
        {"  hsm: {token: t}\n  type: hsm", "backends[0].hsm.module: is missing"},
        {"  hsm: {}\n  type: hsm", "backends[0].hsm.module: is missing"},
        {"  hsm: m\n  type: hsm", "backends[0].hsm: must be a mapping"},
        {"  hsm: {module: '', token: t}\n  type: hsm",
         "backends[0].hsm.module: must be the absolute"},
        {"  hsm: {module: a/m.so, token: t}\n  type: hsm", "backends[0].hsm.module: must be the"},
        {"  hsm: {module: m, token: ''}\n  type: hsm",
         "backends[0].hsm.token: must be a token label"},
        {"  hsm: {module: m, token: 12345678901234567890123456789012}\n  type: hsm", ""},
        {"  hsm: {module: m, token: 123456789012345678901234567890123}\n  type: hsm",
         "backends[0].hsm.token: must be a token label"},
        {"  hsm: {module: m, token: 'pkcs11:token=t?pin-value=" PIN "'}\n  type: hsm",
         "backends[0].hsm.token: must not hold a PIN"},
        {"  hsm: {module: m, token: 'pkcs11:token=t?pin-source=/x'}\n  type: hsm",
         "backends[0].hsm.token: must not hold a PIN"},
        {"  hsm: {module: m, token: t, pin: " PIN "}\n  type: hsm",
         "backends[0].hsm.pin: a secret is never written here"},
        {"  hsm: {module: m, token: t, pin: 'file:" PIN "'}\n  type: hsm",
         "backends[0].hsm.pin: this reference to a secret must look like file:/absolute/path"},
        {"  hsm: {module: m, token: t, pin: [" PIN "]}\n  type: hsm",
         "backends[0].hsm.pin: must be one value"},
        {"  hsm: {module: m, token: t, sessions: 0}\n  type: hsm",
         "backends[0].hsm.sessions: must be a number from 1 to 1024"},
        {"  hsm: {module: m, token: t, sessions: 1025}\n  type: hsm",
         "backends[0].hsm.sessions: must be a number"},
        {"  hsm: {module: m, token: t, sessions: 32x}\n  type: hsm",
         "backends[0].hsm.sessions: must be a number"},
        {"  hsm: {module: m, token: t, mechanism: des}\n  type: hsm",
         "backends[0].hsm.mechanism: must be auto, aes-gcm, aes-cbc-hmac or rsa-oaep"},
        {"  hsm: {module: m, token: t, pins: x}\n  type: hsm",
         "backends[0].hsm.pins: there is no such setting"},
        {"- {name: b, type: bare}", "backends[0].type: is missing"},
    };

    check_settings(BACKEND_HEAD, rows, UNIT_COUNT(rows) - 1, "f:5: ");
    check_settings(BACKEND_HEAD, rows + UNIT_COUNT(rows) - 1, 1, "f:4: ");
}

static void whole(void)
{
    static const struct {
        const char *name;
        const char *text;
        const char *expected;
    } rows[] = {
        {"empty", "", "f: is empty"},
        {"a word", "hello\n", "f: must be a mapping"},
        {"no version", BACKENDS "kms: {socket: /s, backend: hsm, key: k}\n",
         "f: version: is missing"},
        {"no kms", "version: 1\n" BACKENDS, "f: has neither kms nor agent"},
        {"no backends", "version: 1\nkms: {socket: /s, backend: hsm, key: k}\n",
         "f: backends: is missing"},
        {"empty backends", "version: 1\nbackends: []\nkms: {socket: /s, backend: hsm, key: k}\n",
         "f:2: backends: has too few entries"},
        {"version 2", "version: 2\n" BACKENDS "kms: {socket: /s, backend: hsm, key: k}\n",
         "f:1: version: \"2\" is not a version"},
        {"no socket", "version: 1\n" BACKENDS "kms: {backend: hsm, key: k}\n",
         "f:6: kms.socket: is missing"},
        {"no key", "version: 1\n" BACKENDS "kms: {backend: hsm, socket: /s}\n",
         "f:6: kms.key: is missing"},
        {"no backend", "version: 1\n" BACKENDS "kms: {socket: /s, key: k}\n",
         "f:6: kms.backend: is missing"},
        {"other backend", "version: 1\n" BACKENDS "kms: {socket: /s, backend: x, key: k}\n",
         "f:6: kms.backend: \"x\" is not the name of an entry"},
        {"name twice",
         "version: 1\nbackends:\n- {name: a, type: bare}\n- {name: a, type: bare}\n"
         "kms: {socket: /s, backend: a, key: k}\n",
         "f:4: backends[1].name: \"a\" is the name of another entry already"},
        {"bad name",
         "version: 1\nbackends:\n- {name: a b, type: bare}\n"
         "kms: {socket: /s, backend: a, key: k}\n",
         "f:3: backends[0].name: \"a b\" is not a name"},
        {"empty name",
         "version: 1\nbackends:\n- {name: '', type: bare}\n"
         "kms: {socket: /s, backend: a, key: k}\n",
         "f:3: backends[0].name: \"\" is not a name"},
        {"second entry is bad",
         "version: 1\nbackends:\n- {name: a, type: bare}\n- {name: b, type: hsm}\n"
         "kms: {socket: /s, backend: a, key: k}\n",
         "f:4: backends[1].hsm: is missing"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        check_text(rows[i].name, rows[i].text, rows[i].expected);
    }
}

static void files(void)
{
    const char *path = scratch_file("k.yaml", 0640, least, strlen(least));
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_conf *conf = NULL;

    CU_ASSERT_EQUAL(kms_conf_read(path, &conf, &error), KMS_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(conf);
    CU_ASSERT_STRING_EQUAL(conf->path, path);
    kms_conf_done(conf);
    conf = NULL;
    (void)scratch_file("k.yaml", 0642, least, strlen(least));
    CU_ASSERT_EQUAL(kms_conf_read(path, &conf, &error), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "chmod o-w"));
    (void)unlink(path);
    CU_ASSERT_EQUAL(kms_conf_read(path, &conf, NULL), KMS_E_NOT_FOUND);
    CU_ASSERT_PTR_NULL(conf);
}

static void lack_of_memory(void)
{
    unsigned nth = 1;

    for (bool came = true; came && nth < 2000; nth++) {
        struct kms_error error = KMS_ERROR_INIT;
        struct kms_conf *conf = NULL;
        enum kms_status status;

        fail_alloc_set(nth);
        status = kms_conf_read_text("f", full, strlen(full), &conf, &error);
        came = fail_alloc_clear();
        CU_ASSERT_EQUAL(status, came ? KMS_E_NOMEM : KMS_OK);
        CU_ASSERT_EQUAL(conf == NULL, came);
        kms_conf_done(conf);
    }
    CU_ASSERT_TRUE(nth > 40);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"defaults", defaults},
        {"workers fit the key service", workers_fit_the_key_service},
        {"all settings", all_settings},
        {"kms.socket", kms_socket},
        {"kms.socket's length", kms_socket_length},
        {"kms.key", kms_key},
        {"kms, monitor, log", kms_others},
        {"backends", backends},
        {"whole", whole},
        {"files", files},
        {"lack of memory", lack_of_memory},
    };
    int result;

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    result = unit_main("test_conf", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
