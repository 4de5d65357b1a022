/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as its users see it: who may do what, what is written down about it, and what a reload
 * changes. Users other than ours are played by processes that become them, which takes root.
 */
#include "config.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/daemon/fixture.h"
#include "tests/daemon/frames.h"
#include "tests/unit/unit.h"

#define NAME      "test_agent"
#define APP_UID   4242u /* has a rule */
#define OTHER_UID 4243u /* has none */
#define GROUP_UID 4244u /* is in a group that has one */
#define GROUP_GID 5252u

static struct fixture fx;
static char agent_socket[128];
static char audit_file[128];

#define RULES                                                                                      \
    "    - {uids: [4242], tokens: [hsm], keys: [\"app-*\"], allow: [sign, generate, set_label]}\n" \
    "    - {gids: [5252], keys: [kek], allow: [list]}\n"

/* Writes a configuration with an agent; @agent is more lines of its mapping. */
static void configure(const char *agent, const char *rules)
{
    char text[2048];

    (void)snprintf(text, sizeof(text),
                   "agent:\n"
                   "  socket: %s\n"
                   "%s"
                   "  rules:\n"
                   "%s"
                   "audit: {file: %s}\n",
                   agent_socket, agent, rules, audit_file);
    fixture_configure(&fx, NULL, text);
}

static bool restart(const char *agent, const char *rules)
{
    if (fx.pid != 0 && !fixture_stop(&fx)) {
        return false;
    }
    (void)unlink(audit_file);
    configure(agent, rules);
    return fixture_start(&fx) && fixture_log_wait(&fx, "agent: serving");
}

/* The audit as it stands, up to its room. */
static const char *audit(void)
{
    static char text[256 * 1024];
    FILE *file = fopen(audit_file, "re");
    size_t len = file == NULL ? 0 : fread(text, 1, sizeof(text) - 1, file);

    text[len] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
    return text;
}

/* A line that holds all of these; the rest may be NULL. */
static bool audited(const char *a, const char *b, const char *c, const char *d)
{
    const char *const wanted[] = {a, b, c, d};
    char line[KMS_AGENT_FRAME_MAX];

    for (const char *at = audit(); *at != '\0';) {
        size_t len = strcspn(at, "\n");
        bool all = true;

        (void)snprintf(line, sizeof(line), "%.*s", (int)len, at);
        for (size_t i = 0; i < UNIT_COUNT(wanted); i++) {
            all = all && (wanted[i] == NULL || strstr(line, wanted[i]) != NULL);
        }
        if (all) {
            return true;
        }
        at += len + (at[len] == '\n' ? 1 : 0);
    }
    return false;
}

static struct kms_span digest(void)
{
    static const uint8_t bytes[32] = {1, 2, 3};

    return kms_span_of(bytes, sizeof(bytes));
}

/* --- our own user ----------------------------------------------------------------------------- */

static void ours(void)
{
    struct frames frames;
    char ref[FRAMES_REF];
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__ListTokens tokens = KMS__AGENT__LIST_TOKENS__INIT;

    CU_ASSERT_TRUE_FATAL(restart("", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    request.op_case = KMS__AGENT__REQUEST__OP_LIST_TOKENS;
    request.list_tokens = &tokens;
    CU_ASSERT_EQUAL(frames_call(&frames, &request), KMS_OK);
    if (UNIT_CHECK("tokens", frames.reply->n_tokens == 1)) {
        const Kms__Agent__Token *token = frames.reply->tokens[0];

        CU_ASSERT_TRUE(kms_span_equal(kms_agent_get_span(token->name), kms_span_str("hsm")));
        CU_ASSERT_TRUE(token->present);
        CU_ASSERT_TRUE(token->generates != 0);
        CU_ASSERT_TRUE(token->random);
        CU_ASSERT_EQUAL(token->keys_ttl_ms, 60000);
    }
    CU_ASSERT_EQUAL(frames_generate(&frames, KMS_KEY_EC, "app-sign"), KMS_OK);
    CU_ASSERT_EQUAL(frames_generate(&frames, KMS_KEY_EC, "other"), KMS_OK);
    CU_ASSERT_TRUE(frames_find(&frames, "app-sign", ref));
    CU_ASSERT_TRUE(frames.reply->keys[0]->spki.len > 80);
    CU_ASSERT_EQUAL(frames_sign(&frames, ref, KMS_ALG_ECDSA, digest()), KMS_OK);
    CU_ASSERT_EQUAL(frames.reply->output.len, 64);
    CU_ASSERT_TRUE(frames_find(&frames, "kek", ref));
    CU_ASSERT_EQUAL(frames_encrypt(&frames, ref, "what nobody may read"), KMS_OK);
    CU_ASSERT_EQUAL(frames_data_key(&frames, ref), KMS_E_UNSUPPORTED); /* of us it is asked */
    CU_ASSERT_PTR_NOT_NULL(strstr(frames.error.text, "backend hsm cannot data_key"));
    CU_ASSERT_EQUAL(frames_random(&frames, 32), KMS_OK);
    CU_ASSERT_EQUAL(frames.reply->output.len, 32);
    CU_ASSERT_EQUAL(frames_random(&frames, 0), KMS_E_INVALID);
    CU_ASSERT_EQUAL(frames_sign(&frames, "no-such-ref", KMS_ALG_ECDSA, digest()), KMS_E_NOT_FOUND);
    CU_ASSERT_TRUE(audited("\"op\":\"generate\"", "\"label\":\"app-sign\"", "\"verdict\":\"ok\"",
                           "\"uid\":0"));
    CU_ASSERT_TRUE(audited("\"op\":\"sign\"", "\"mechanism\":\"ecdsa\"", "\"verdict\":\"ok\"",
                           "\"key_id\":\""));
    CU_ASSERT_TRUE(audited("\"op\":\"encrypt\"", "\"token\":\"hsm\"", "\"mechanism\":\"aes-gcm\"",
                           "test_agent\""));
    CU_ASSERT_FALSE(audited("what nobody may read", NULL, NULL, NULL));
    CU_ASSERT_FALSE(audited("list_", NULL, NULL, NULL));
    frames_close(&frames);
    /* kube-apiserver's go there as well */
    CU_ASSERT_TRUE(fixture_round_trip(&fx));
    CU_ASSERT_TRUE(audited("\"front\":\"kms_v2\"", "\"op\":\"encrypt\"", "\"verdict\":\"ok\"",
                           "\"trace_id\":\""));
    CU_ASSERT_TRUE(
        audited("\"front\":\"kms_v2\"", "\"op\":\"decrypt\"", "\"verdict\":\"ok\"", NULL));
}

/* --- others ----------------------------------------------------------------------------------- */

/* What a step of another user found; a child's exit code. */
#define STEP(number, condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return number;                                                                         \
        }                                                                                          \
    } while (0)

static int as_app(void *ctx)
{
    struct frames frames;
    char ref[FRAMES_REF];
    char made[FRAMES_REF];
    const char *kek = ctx;

    STEP(1, frames_open(&frames, agent_socket) == KMS_OK);
    STEP(2, frames_list(&frames, NULL) == KMS_OK);
    STEP(3, frames.reply->n_keys == 1); /* app-sign, and neither kek nor other */
    STEP(4, frames.reply->keys[0]->uses == (KMS_USE_SIGN | KMS_USE_VERIFY));
    STEP(5, frames_find(&frames, "app-sign", ref));
    STEP(6, frames_sign(&frames, ref, KMS_ALG_ECDSA, digest()) == KMS_OK);
    STEP(7, frames_encrypt(&frames, kek, "x") == KMS_E_DENIED);
    STEP(8, strstr(frames.error.text, "uid 4242 may not encrypt") != NULL);
    STEP(18, frames_data_key(&frames, kek) == KMS_E_DENIED);
    STEP(19, strstr(frames.error.text, "uid 4242 may not data_key with key \"kek\"") != NULL);
    STEP(9, frames_destroy(&frames, ref) == KMS_E_DENIED);
    STEP(17, frames_encrypt(&frames, ref, "x") == KMS_E_DENIED); /* before it is asked if it can */
    STEP(10, frames_random(&frames, 8) == KMS_E_DENIED);
    STEP(11, frames_generate(&frames, KMS_KEY_AES, "theirs") == KMS_E_DENIED);
    STEP(12, frames_generate(&frames, KMS_KEY_EC, "app-made") == KMS_OK);
    STEP(13, frames_find(&frames, "app-made", made));
    STEP(14, frames_set_label(&frames, made, "kek") == KMS_E_DENIED);
    STEP(15, frames_set_label(&frames, made, "app-renamed") == KMS_OK);
    STEP(16, frames_find(&frames, "app-renamed", made));
    frames_close(&frames);
    return 0;
}

static int as_group(void *ctx)
{
    struct frames frames;

    (void)ctx;
    STEP(1, frames_open(&frames, agent_socket) == KMS_OK);
    STEP(2, frames_list(&frames, NULL) == KMS_OK);
    STEP(3, frames.reply->n_keys == 1);
    STEP(4, frames.reply->keys[0]->uses == 0); /* seen, and no more */
    frames_close(&frames);
    return 0;
}

static int as_other(void *ctx)
{
    struct frames frames;

    (void)ctx;
    STEP(1, frames_open(&frames, agent_socket) == KMS_E_DENIED);
    STEP(2, strstr(frames.error.text, "uid 4243 may not use this agent") != NULL);
    STEP(3, frames_is_closed(frames.fd, SEC(5)));
    frames_close(&frames);
    return 0;
}

static void others(void)
{
    struct frames frames;
    char kek[FRAMES_REF] = "";

    if (geteuid() != 0) {
        return;
    }
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(frames_find(&frames, "kek", kek));
    frames_close(&frames);
    CU_ASSERT_EQUAL(frames_as(APP_UID, APP_UID, as_app, kek), 0);
    CU_ASSERT_EQUAL(frames_as(GROUP_UID, GROUP_GID, as_group, NULL), 0);
    CU_ASSERT_EQUAL(frames_as(OTHER_UID, OTHER_UID, as_other, NULL), 0);
    CU_ASSERT_TRUE(audited("\"uid\":4242", "\"op\":\"encrypt\"", "\"verdict\":\"denied\"",
                           "\"refused\":\"policy\""));
    CU_ASSERT_TRUE(audited("\"uid\":4242", "\"label\":\"kek\"", "\"verdict\":\"denied\"", "exe"));
    CU_ASSERT_TRUE(audited("\"uid\":4242", "\"op\":\"data_key\"", "\"label\":\"kek\"",
                           "\"refused\":\"policy\""));
    CU_ASSERT_TRUE(audited("\"uid\":0", "\"op\":\"data_key\"", "\"label\":\"kek\"",
                           "\"verdict\":\"unsupported\""));
    CU_ASSERT_TRUE(audited("\"uid\":4243", "\"op\":\"connect\"", "\"refused\":\"stranger\"", NULL));
    CU_ASSERT_TRUE(fixture_metric(&fx, "agent_refusals_total{reason=\"policy\"}") >= 4);
    CU_ASSERT_EQUAL(fixture_metric(&fx, "agent_refusals_total{reason=\"stranger\"}"), 1);
    CU_ASSERT_TRUE(fixture_metric(&fx, "agent_calls_total{op=\"sign\",class=\"ok\"}") >= 2);
}

/* --- reload ----------------------------------------------------------------------------------- */

static int as_app_denied(void *ctx)
{
    struct frames frames;

    (void)ctx;
    STEP(1, frames_open(&frames, agent_socket) == KMS_E_DENIED);
    frames_close(&frames);
    return 0;
}

static int as_app_kek(void *ctx)
{
    struct frames frames;

    STEP(1, frames_open(&frames, agent_socket) == KMS_OK);
    STEP(2, frames_encrypt(&frames, ctx, "x") == KMS_OK);
    STEP(3, frames_data_key(&frames, ctx) == KMS_E_DENIED); /* that is wrapping */
    frames_close(&frames);
    return 0;
}

static bool reload(const char *says)
{
    fixture_log_clear(&fx);
    (void)kill(fx.pid, SIGHUP);
    return fixture_log_wait(&fx, says);
}

static void rules_change(void)
{
    struct frames frames;
    char kek[FRAMES_REF] = "";
    char moved[160];

    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(frames_find(&frames, "kek", kek));
    configure("", "    - {uids: [4242], keys: [kek], allow: [encrypt]}\n");
    (void)snprintf(moved, sizeof(moved), "%s.1", audit_file);
    CU_ASSERT_EQUAL(rename(audit_file, moved), 0);
    CU_ASSERT_TRUE(reload("reload: done"));
    if (geteuid() == 0) {
        CU_ASSERT_EQUAL(frames_as(APP_UID, APP_UID, as_app_kek, kek), 0);
        CU_ASSERT_EQUAL(frames_as(GROUP_UID, GROUP_GID, as_app_denied, NULL), 0);
        /* the file was opened anew */
        CU_ASSERT_TRUE(audited("\"uid\":4242", "\"op\":\"encrypt\"", "\"verdict\":\"ok\"", NULL));
    }
    /* who is connected stays */
    CU_ASSERT_EQUAL(frames_encrypt(&frames, kek, "x"), KMS_OK);
    configure("", "    - {uids: [4242], allow: [fly]}\n");
    CU_ASSERT_TRUE(reload("agent.rules[0].allow[0]: \"fly\" is none of"));
    CU_ASSERT_EQUAL(frames_encrypt(&frames, kek, "x"), KMS_OK);
    frames_close(&frames);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void limits(void)
{
    struct frames frames;
    struct frames more[3];
    char kek[FRAMES_REF] = "";
    unsigned throttled = 0;

    CU_ASSERT_TRUE_FATAL(restart("  calls_per_second: 20\n  max_connections_per_uid: 2\n", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(frames_find(&frames, "kek", kek));
    for (int i = 0; i < 40; i++) {
        throttled += frames_encrypt(&frames, kek, "x") == KMS_E_THROTTLED ? 1 : 0;
    }
    CU_ASSERT_TRUE(throttled >= 10);
    CU_ASSERT_PTR_NOT_NULL(strstr(frames.error.text, "calls_per_second"));
    CU_ASSERT_EQUAL(frames_open(&more[0], agent_socket), KMS_OK);
    CU_ASSERT_EQUAL(frames_open(&more[1], agent_socket), KMS_E_BUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(more[1].error.text, "max_connections_per_uid"));
    frames_close(&more[0]);
    frames_close(&more[1]);
    frames_close(&frames);
    CU_ASSERT_TRUE(fixture_metric(&fx, "agent_refusals_total{reason=\"rate\"}") >= 10);
    CU_ASSERT_EQUAL(fixture_metric(&fx, "agent_refusals_total{reason=\"uid_connections\"}"), 1);
    /* not a line for each refusal */
    CU_ASSERT_TRUE(audited("\"refused\":\"rate\"", NULL, NULL, NULL));
}

static void pin(void)
{
    struct frames frames;

    CU_ASSERT_TRUE_FATAL(restart("  tokens: [{backend: hsm, login: pin, label: Shown}]\n", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_EQUAL(frames_login(&frames, FIXTURE_PIN), KMS_OK);
    CU_ASSERT_EQUAL(frames_login(&frames, "wrong-one"), KMS_E_AUTH);
    CU_ASSERT_EQUAL(frames_login(&frames, FIXTURE_PIN), KMS_E_THROTTLED);
    sleep(2);
    CU_ASSERT_EQUAL(frames_login(&frames, FIXTURE_PIN), KMS_OK);
    CU_ASSERT_TRUE(audited("\"op\":\"login\"", "\"verdict\":\"auth\"", NULL, NULL));
    CU_ASSERT_FALSE(audited("wrong-one", NULL, NULL, NULL));
    CU_ASSERT_EQUAL(fixture_log_count(&fx, "wrong-one"), 0);
    frames_close(&frames);
}

static bool generate_ref(struct frames *frames, const char *label, char ret_ref[FRAMES_REF])
{
    return frames_generate(frames, KMS_KEY_EC, label) == KMS_OK && frames->reply->n_keys == 1 &&
           kms_agent_get_text("ref", frames->reply->keys[0]->ref, ret_ref, FRAMES_REF,
                              &frames->error) == KMS_OK;
}

static void only_listed_keys(void)
{
    struct frames frames;
    char ref[FRAMES_REF];

    CU_ASSERT_TRUE_FATAL(
        restart("  tokens: [{backend: hsm, keys: [app-sign, \"id:01\"]}]\n", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_EQUAL(frames_list(&frames, NULL), KMS_OK);
    CU_ASSERT_EQUAL(frames.reply->n_keys, 2);
    CU_ASSERT_EQUAL(frames_list(&frames, "other"), KMS_OK);
    CU_ASSERT_EQUAL(frames.reply->n_keys, 0);
    /* one that was just made can be used at once, if it is listed */
    CU_ASSERT_TRUE(generate_ref(&frames, "stray", ref));
    CU_ASSERT_EQUAL(frames_sign(&frames, ref, KMS_ALG_ECDSA, digest()), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(frames_destroy(&frames, ref), KMS_E_NOT_FOUND);
    CU_ASSERT_TRUE(generate_ref(&frames, "app-sign", ref));
    CU_ASSERT_EQUAL(frames_sign(&frames, ref, KMS_ALG_ECDSA, digest()), KMS_OK);
    CU_ASSERT_EQUAL(frames_destroy(&frames, ref), KMS_OK);
    frames_close(&frames);
}

/* --- a list that takes longer than a call ------------------------------------------------------
 */

#define SLOW_KEYS 10
#define SLOW                                                                                       \
    "latency_us=200000\n" /* each operation that tells a key's identity, or what it can            \
                           */

static bool all_listed(void *ctx)
{
    struct frames *frames = ctx;

    return frames_list(frames, NULL) == KMS_OK && frames->reply->n_keys >= SLOW_KEYS;
}

/* What is asked for by its name does not wait for the list, which goes on behind the calls. */
static void slow_list(void)
{
    struct frames frames;
    struct frames others;
    char ref[FRAMES_REF];
    uint64_t began_ns = 0;
    long searches = 0;

    CU_ASSERT_TRUE_FATAL(restart("  call_timeout: 2s\n", RULES));
    for (unsigned i = 0; i < SLOW_KEYS; i++) {
        char id[3];
        char label[16];

        (void)snprintf(id, sizeof(id), "%02x", 0x40 + i);
        (void)snprintf(label, sizeof(label), "slow-%u", i);
        CU_ASSERT_TRUE_FATAL(fixture_token_on(&fx, FIXTURE_TOKEN, "key", id, label));
    }
    fixture_shim(&fx, SLOW);
    CU_ASSERT_TRUE_FATAL(restart("  call_timeout: 2s\n", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(frames_open(&others, agent_socket), KMS_OK);

    began_ns = kms_now_ns();
    CU_ASSERT_TRUE(frames_find(&frames, "slow-7", ref)); /* the first of all calls */
    CU_ASSERT_EQUAL(frames.reply->n_keys, 1);
    CU_ASSERT_TRUE(kms_now_ns() - began_ns < 2 * KMS_NS_PER_S);
    CU_ASSERT_EQUAL(frames_encrypt(&frames, ref, "before there is a list"), KMS_OK);
    CU_ASSERT_EQUAL(frames_list(&others, NULL), KMS_E_TIMEOUT);
    CU_ASSERT_TRUE(frames_find(&frames, "slow-3", ref));
    CU_ASSERT_EQUAL(frames_list(&frames, "no such label"), KMS_OK);
    CU_ASSERT_EQUAL(frames.reply->n_keys, 0);
    CU_ASSERT_EQUAL(frames_generate(&frames, KMS_KEY_EC, "app-new"), KMS_OK);
    CU_ASSERT_TRUE(kms_now_ns() - began_ns < 8 * KMS_NS_PER_S);

    CU_ASSERT_TRUE(fixture_until(all_listed, &others, 20 * KMS_NS_PER_S));
    frames_close(&frames);
    frames_close(&others);
    fixture_shim(&fx, "");

    /* and a list, which the agent asks for by itself at its start, is not a search for each key:
     * there are tokens that look at all keys each time */
    searches = fixture_calls(&fx, "C_FindObjectsInit");
    CU_ASSERT_TRUE_FATAL(restart("", RULES));
    CU_ASSERT_EQUAL_FATAL(frames_open(&frames, agent_socket), KMS_OK);
    CU_ASSERT_TRUE(all_listed(&frames));
    searches = fixture_calls(&fx, "C_FindObjectsInit") - searches;
    CU_ASSERT_TRUE(searches > 0 && searches < SLOW_KEYS);
    frames_close(&frames);
}

/* --- certificates ----------------------------------------------------------------------------- */

/* A certificate of @key, which somebody else signs. */
static bool write_certificate(const char *path, EVP_PKEY *key, EVP_PKEY *issuer)
{
    X509 *cert = X509_new();
    FILE *file = fopen(path, "we");
    bool good = cert != NULL && file != NULL && X509_set_version(cert, X509_VERSION_3) == 1 &&
                ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) == 1 &&
                X509_gmtime_adj(X509_getm_notBefore(cert), 0) != NULL &&
                X509_gmtime_adj(X509_getm_notAfter(cert), 3600) != NULL &&
                X509_set_pubkey(cert, key) == 1 && X509_sign(cert, issuer, EVP_sha256()) > 0 &&
                PEM_write_X509(file, cert) == 1;

    if (file != NULL) {
        (void)fclose(file);
    }
    X509_free(cert);
    return good;
}

static bool write_certificates(const char *good, const char *bad)
{
    struct frames frames;
    EVP_PKEY *issuer = EVP_EC_gen("P-256");
    EVP_PKEY *key = NULL;
    bool written = false;

    if (frames_open(&frames, agent_socket) == KMS_OK &&
        frames_list(&frames, "app-sign") == KMS_OK && frames.reply->n_keys == 1) {
        const uint8_t *at = frames.reply->keys[0]->spki.data;

        key = d2i_PUBKEY(NULL, &at, (long)frames.reply->keys[0]->spki.len);
    }
    written = key != NULL && issuer != NULL && write_certificate(good, key, issuer) &&
              write_certificate(bad, issuer, issuer);
    frames_close(&frames);
    EVP_PKEY_free(key);
    EVP_PKEY_free(issuer);
    return written;
}

static size_t certificates_shown(void)
{
    struct frames frames;
    size_t n = 99;

    if (frames_open(&frames, agent_socket) == KMS_OK &&
        frames_list(&frames, "app-sign") == KMS_OK && frames.reply->n_keys == 1) {
        n = frames.reply->keys[0]->n_certificates;
    }
    frames_close(&frames);
    return n;
}

static void configure_certificate(const char *file)
{
    char agent[256];

    (void)snprintf(agent, sizeof(agent),
                   "  tokens: [{backend: hsm, certificates: [{key: app-sign, file: %s}]}]\n", file);
    configure(agent, RULES);
}

static void certificates(void)
{
    const char *const check[] = {"--check", "--config", fx.config, NULL};
    char good[160];
    char bad[160];
    char sentence[320];

    (void)snprintf(good, sizeof(good), "%s/good.pem", fx.dir);
    (void)snprintf(bad, sizeof(bad), "%s/bad.pem", fx.dir);
    (void)snprintf(sentence, sizeof(sentence), "key \"app-sign\" is not the one that %s certifies",
                   bad);
    CU_ASSERT_TRUE_FATAL(restart("", RULES));
    CU_ASSERT_TRUE_FATAL(write_certificates(good, bad));
    CU_ASSERT_EQUAL(certificates_shown(), 0);
    configure_certificate(good);
    CU_ASSERT_TRUE(reload("reload: done"));
    CU_ASSERT_EQUAL(certificates_shown(), 1);
    CU_ASSERT_EQUAL(fixture_run(&fx, check), 0);
    /* one that is not of its key changes nothing */
    configure_certificate(bad);
    CU_ASSERT_TRUE(reload("the old configuration stays"));
    CU_ASSERT_TRUE(fixture_log_wait(&fx, sentence));
    CU_ASSERT_EQUAL(certificates_shown(), 1);
    fixture_log_clear(&fx);
    CU_ASSERT_EQUAL(fixture_run(&fx, check), 1);
    CU_ASSERT_TRUE(fixture_log_count(&fx, sentence) > 0);
    /* but a start is not to fail for it */
    CU_ASSERT_TRUE(fixture_stop(&fx));
    CU_ASSERT_TRUE_FATAL(fixture_start(&fx));
    CU_ASSERT_EQUAL(certificates_shown(), 0);
    CU_ASSERT_TRUE(fixture_log_wait(&fx, sentence));
    /* what is no certificate is wrong whatever the key */
    configure_certificate(fx.pin_file);
    CU_ASSERT_TRUE(reload("holds no certificate in PEM"));
    CU_ASSERT_EQUAL(fixture_log_count(&fx, FIXTURE_PIN), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"our own user", ours},
        {"other users", others},
        {"a reload changes rules", rules_change},
        {"limits", limits},
        {"PINs", pin},
        {"listed keys only", only_listed_keys},
        {"certificates", certificates},
        {"a list that takes longer than a call", slow_list},
    };

    fixture_init(&fx, NAME);
    (void)chmod(fx.dir, 0711); /* others come to the socket */
    (void)snprintf(agent_socket, sizeof(agent_socket), "%s/agent.sock", fx.dir);
    (void)snprintf(audit_file, sizeof(audit_file), "%s/audit", fx.dir);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
