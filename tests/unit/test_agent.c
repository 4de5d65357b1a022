/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/agent_parts.h"
#include "common/clock.h"
#include "tests/fakes/fake_agent.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

/* how much later than its deadline a call may end: 100 ms when it is quiet, but tests run beside
 * others */
#define SLACK_NS (600 * KMS_NS_PER_MS)

/* ---- a client and its agent ------------------------------------------------------------------ */

struct pair {
    struct fake_agent *fake;
    struct kms_agent *agent;
    struct kms_backend *token;
};

static char socket_path[PATH_MAX];

static void must(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "test_agent: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static void client_open(struct pair *pair)
{
    const struct kms_agent_conf conf = {.socket = socket_path, .connections_idle = 4};

    must(kms_agent_new(&conf, &pair->agent, NULL) == KMS_OK, "no client");
    must(kms_agent_open_token(pair->agent, "fake", &pair->token, NULL) == KMS_OK, "no token");
}

static void client_close(struct pair *pair)
{
    kms_agent_ops.close(pair->token);
    kms_agent_unref(pair->agent);
}

static struct pair pair_open(void)
{
    struct pair pair = {.fake = fake_agent_start(socket_path)};

    must(pair.fake != NULL, "no fake agent");
    client_open(&pair);
    return pair;
}

static void pair_close(struct pair *pair)
{
    client_close(pair);
    fake_agent_stop(pair->fake);
}

static struct kms_call call_for(unsigned ms)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
}

static enum kms_status sign_in(struct pair *pair, unsigned ms, struct kms_error *ret_error)
{
    static const struct kms_params params = {.alg = KMS_ALG_EDDSA};
    struct kms_call call = call_for(ms);
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    enum kms_status status =
        kms_agent_ops.sign(pair->token, &call, "key-0", &params, kms_span_str("this"), &out);

    if (status == KMS_OK && !kms_span_equal(kms_buf_span(&out), kms_span_str("signed:this"))) {
        status = KMS_E_INTERNAL;
    }
    if (status != KMS_OK && (call.error.status != status || out.len != 0)) {
        status = KMS_E_INTERNAL;
    }
    if (ret_error != NULL) {
        *ret_error = call.error;
    }
    return status;
}

static enum kms_status sign_once(struct pair *pair)
{
    return sign_in(pair, 5000, NULL);
}

static enum kms_status generate_in(struct pair *pair, unsigned ms)
{
    const struct kms_key_template template = {.type = KMS_KEY_AES, .bits = 256, .label = "new"};
    struct kms_call call = call_for(ms);
    struct kms_key_info info = {.bits = 0};
    enum kms_status status = kms_agent_ops.generate(pair->token, &call, &template, &info);

    return status == KMS_OK && info.bits != 256 ? KMS_E_INTERNAL : status;
}

/* ---- operations ------------------------------------------------------------------------------ */

static void operations(void)
{
    struct pair pair = pair_open();
    const struct kms_backend_ops *ops = &kms_agent_ops;
    const struct kms_params gcm = {.alg = KMS_ALG_BEST, .aad = kms_span_str("aad")};
    struct kms_call call = call_for(5000);
    uint8_t iv[KMS_IV_MAX];
    uint8_t text[64];
    uint8_t out_storage[9000];
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(text)};
    struct kms_buf out = KMS_BUF_OVER(out_storage);

    CU_ASSERT_EQUAL(ops->encrypt(pair.token, &call, "key-0", &gcm, kms_span_str("abc"), &sealed),
                    KMS_OK);
    CU_ASSERT_EQUAL(sealed.alg, KMS_ALG_AES_GCM);
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "id-0");
    CU_ASSERT_EQUAL(sealed.iv.len, 12);
    CU_ASSERT_EQUAL(sealed.ciphertext.len, 3);
    CU_ASSERT_EQUAL(
        ops->decrypt(pair.token, &call, "key-0", &gcm, kms_buf_span(&sealed.ciphertext), &out),
        KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), kms_span_str("abc")));
    sealed.iv.len = sealed.ciphertext.len = out.len = 0;
    CU_ASSERT_EQUAL(ops->wrap(pair.token, &call, "key-0", &gcm, kms_span_str("key"), &sealed),
                    KMS_OK);
    CU_ASSERT_EQUAL(
        ops->unwrap(pair.token, &call, "key-0", &gcm, kms_buf_span(&sealed.ciphertext), &out),
        KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), kms_span_str("key")));
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_EQUAL(
        ops->verify(pair.token, &call, "key-0", &gcm, kms_span_str("m"), kms_span_str("signed:m")),
        KMS_OK);
    CU_ASSERT_EQUAL(
        ops->verify(pair.token, &call, "key-0", &gcm, kms_span_str("m"), kms_span_str("s")),
        KMS_E_BAD_DATA);
    CU_ASSERT_STRING_EQUAL(call.error.code, "CKR_FAKE");
    CU_ASSERT_STRING_EQUAL(call.error.request_id, "r-1");
    CU_ASSERT_STRING_EQUAL(call.error.text, "not signed so");
    out.len = 0;
    CU_ASSERT_EQUAL(ops->mac(pair.token, &call, "key-0", &gcm, kms_span_str("m"), &out), KMS_OK);
    CU_ASSERT_EQUAL(call.error.status, KMS_OK);
    out.len = 0;
    CU_ASSERT_EQUAL(ops->public_key(pair.token, &call, "key-0", &out), KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), kms_span_str("spki")));
    out.len = 1;
    CU_ASSERT_EQUAL(ops->random(pair.token, &call, &out), KMS_OK);
    CU_ASSERT_EQUAL(out.len, sizeof(out_storage));
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_RANDOM), 3);
    CU_ASSERT_EQUAL(generate_in(&pair, 5000), KMS_OK);
    CU_ASSERT_EQUAL(ops->destroy(pair.token, &call, "key-0"), KMS_OK);
    CU_ASSERT_EQUAL(ops->destroy(pair.token, &call, "key-0"), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(ops->set_label(pair.token, &call, "key-0", "l"), KMS_OK);
    CU_ASSERT_EQUAL(ops->check_pin(pair.token, &call, kms_span_str("1234")), KMS_OK);
    CU_ASSERT_EQUAL(ops->check_pin(pair.token, &call, kms_span_str("")), KMS_E_AUTH);
    CU_ASSERT_EQUAL(ops->check_pin(pair.token, &call, kms_span_of(out_storage, 257)), KMS_E_AUTH);
    CU_ASSERT_EQUAL(fake_agent_connections(pair.fake), 1);
    pair_close(&pair);
}

static void data_keys(void)
{
    static const size_t bad[] = {0, KMS_DATA_KEY_MAX + 1};
    static const uint8_t key[32] = {[0 ... 31] = 0x5d};
    struct pair pair = pair_open();
    const struct kms_params gcm = {.alg = KMS_ALG_AES_GCM, .aad = kms_span_str("aad")};
    struct kms_call call = call_for(5000);
    uint8_t iv[KMS_IV_MAX], text[64], storage[64];
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(text)};
    struct kms_buf out = KMS_BUF_OVER(storage);

    CU_ASSERT_EQUAL(kms_agent_ops.data_key(pair.token, &call, "key-0", &gcm, 32, &out, &sealed),
                    KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_buf_span(&out), kms_span_of(key, 32)));
    CU_ASSERT(sealed.ciphertext.len == 32 && text[0] == (0x5d ^ 0xff) && sealed.iv.len == 12);
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "id-0");
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        CU_ASSERT_EQUAL(
            kms_agent_ops.data_key(pair.token, &call, "key-0", &gcm, bad[i], &out, &sealed),
            KMS_E_INVALID);
    }
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_DATA_KEY), 1);
    /* one of another length; no word of how it was sealed */
    for (size_t len = 16; len <= 32; len += 16) {
        sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(text)};
        out.len = 0;
        fake_agent_fault(pair.fake, FAKE_BAD_OUTPUT, 1, 0);
        CU_ASSERT_EQUAL(
            kms_agent_ops.data_key(pair.token, &call, "key-0", &gcm, len, &out, &sealed),
            KMS_E_PROTOCOL);
        CU_ASSERT(out.len == 0 && sealed.ciphertext.len == 0 && sealed.iv.len == 0);
    }
    pair_close(&pair);
}

/* As much as may be, and more. */
static void sizes(void)
{
    static uint8_t plaintext[KMS_CIPHERTEXT_MAX + 1];
    static uint8_t result[KMS_CIPHERTEXT_MAX];
    struct pair pair = pair_open();
    const struct kms_params params = {.alg = KMS_ALG_AES_CBC};
    struct kms_buf out = KMS_BUF_OVER(result);
    struct kms_call call = call_for(5000);

    memset(plaintext, 'p', sizeof(plaintext));
    CU_ASSERT_EQUAL(kms_agent_ops.decrypt(pair.token, &call, "key-0", &params,
                                          kms_span_of(plaintext, KMS_CIPHERTEXT_MAX), &out),
                    KMS_OK);
    CU_ASSERT_TRUE(out.len == KMS_CIPHERTEXT_MAX && out.data[0] == (uint8_t)('p' ^ 0xff));
    out.len = 0;
    CU_ASSERT_EQUAL(kms_agent_ops.decrypt(pair.token, &call, "key-0", &params,
                                          kms_span_of(plaintext, sizeof(plaintext)), &out),
                    KMS_E_INVALID);
    out = kms_buf_over(result, 10);
    CU_ASSERT_EQUAL(kms_agent_ops.decrypt(pair.token, &call, "key-0", &params,
                                          kms_span_of(plaintext, 11), &out),
                    KMS_E_PROTOCOL);
    CU_ASSERT_EQUAL(out.len, 0);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    pair_close(&pair);
}

/* ---- lists ----------------------------------------------------------------------------------- */

struct seen {
    unsigned count;
    unsigned stop_at; /* 0: never */
    size_t certificates;
    struct kms_agent_token token;
    char last[KMS_KEY_REF_MAX];
};

static bool see_key(void *ctx, const struct kms_agent_key *key)
{
    struct seen *seen = ctx;

    seen->count++;
    seen->certificates += key->certificate_count;
    (void)snprintf(seen->last, sizeof(seen->last), "%s", key->info.ref);
    CU_ASSERT_TRUE(kms_span_equal(key->spki, kms_span_str("spki")));
    if (key->certificate_count > 0) {
        CU_ASSERT_TRUE(kms_span_equal(key->certificates[0], kms_span_str("leaf")));
    }
    return seen->count != seen->stop_at;
}

static bool see_info(void *ctx, const struct kms_key_info *info)
{
    struct seen *seen = ctx;

    seen->count++;
    (void)snprintf(seen->last, sizeof(seen->last), "%s", info->ref);
    return true;
}

static bool see_token(void *ctx, const struct kms_agent_token *token)
{
    struct seen *seen = ctx;

    seen->count++;
    seen->token = *token;
    return true;
}

static void keys(void)
{
    static const uint8_t tag[KMS_KEY_TAG_MAX + 1] = {5};
    static const struct {
        const char *name;
        unsigned keys;
        size_t tag_len;
        const char *label;
        unsigned stop_at;
        unsigned count;
        unsigned requests;
    } rows[] = {
        {"none", 0, 0, "", 0, 0, 1},
        {"one page", 8, 0, "", 0, 8, 1},
        {"two pages", 9, 0, "", 0, 9, 2},
        {"many", 100, 0, "", 0, 100, 13},
        {"stopped", 100, 0, "", 9, 9, 2},
        {"by tag", 100, 1, "", 0, 1, 1},
        {"by label", 10, 0, "label-1", 0, 5, 1},
        {"a label that none has", 10, 0, "label-2", 0, 0, 1},
        {"a tag that none can have", 10, sizeof(tag), "", 0, 0, 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct pair pair = pair_open();
        struct kms_call call = call_for(5000);
        struct seen seen = {.stop_at = rows[i].stop_at};

        fake_agent_keys(pair.fake, rows[i].keys);
        UNIT_CHECK(rows[i].name,
                   kms_agent_list_keys(pair.agent, &call, "fake", kms_span_of(tag, rows[i].tag_len),
                                       kms_span_str(rows[i].label), see_key, &seen) == KMS_OK);
        UNIT_CHECK(rows[i].name, seen.count == rows[i].count);
        UNIT_CHECK(rows[i].name,
                   fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_LIST_KEYS) ==
                       rows[i].requests);
        pair_close(&pair);
    }
}

/* An agent of a later version: we see what we know, all of it. */
static void keys_of_later_types(void)
{
    struct pair pair = pair_open();
    struct kms_call call = call_for(5000);
    struct seen seen = {.count = 0};
    struct kms_key_info info;

    fake_agent_keys(pair.fake, 17);
    fake_agent_fault(pair.fake, FAKE_LATER_KEYS, 3, 0);
    CU_ASSERT_EQUAL(kms_agent_list_keys(pair.agent, &call, "fake", KMS_SPAN_NONE, KMS_SPAN_NONE,
                                        see_key, &seen),
                    KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 14); /* the last of each of three pages is passed over */
    CU_ASSERT_STRING_EQUAL(seen.last, "key-14");
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_LIST_KEYS), 3);
    CU_ASSERT_EQUAL(fake_agent_connections(pair.fake), 1);
    /* one that we asked for is of the type that we asked for */
    fake_agent_fault(pair.fake, FAKE_LATER_KEYS, 1, 0);
    CU_ASSERT_EQUAL(
        kms_agent_ops.generate(pair.token, &call, &(struct kms_key_template){.label = "l"}, &info),
        KMS_E_PROTOCOL);
    pair_close(&pair);
}

static void keys_by_the_waist(void)
{
    struct pair pair = pair_open();
    struct kms_call call = call_for(5000);
    struct seen seen = {.count = 0};
    struct kms_key_filter filter = {.ref = "key-1"};

    CU_ASSERT_EQUAL(kms_agent_ops.list_keys(pair.token, &call, &filter, see_info, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 1);
    CU_ASSERT_STRING_EQUAL(seen.last, "key-1");
    CU_ASSERT_EQUAL(kms_agent_ops.list_keys(pair.token, &call, NULL, see_info, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 4);
    filter = (struct kms_key_filter){.label = "label-1"};
    CU_ASSERT_EQUAL(kms_agent_ops.list_keys(pair.token, &call, &filter, see_info, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 5);
    filter = (struct kms_key_filter){.spec = "label-1"};
    CU_ASSERT_EQUAL(kms_agent_ops.list_keys(pair.token, &call, &filter, see_info, &seen),
                    KMS_E_UNSUPPORTED);
    fake_agent_fault(pair.fake, FAKE_BAD_OUTPUT, 1, 0);
    CU_ASSERT_EQUAL(kms_agent_ops.list_keys(pair.token, &call, NULL, see_info, &seen),
                    KMS_E_PROTOCOL); /* more are promised, none comes */
    pair_close(&pair);
}

static void tokens(void)
{
    struct pair pair = pair_open();
    struct kms_call call = call_for(5000);
    struct seen seen = {.count = 0};
    struct kms_token_info info = {.generates = 0};
    struct kms_backend *other = NULL;

    CU_ASSERT_EQUAL(kms_agent_list_tokens(pair.agent, &call, see_token, &seen), KMS_OK);
    CU_ASSERT_EQUAL(seen.count, 1);
    CU_ASSERT_STRING_EQUAL(seen.token.name, "fake");
    CU_ASSERT_STRING_EQUAL(seen.token.info.label, "fake token");
    CU_ASSERT_EQUAL(seen.token.login, KMS_AGENT_LOGIN_PIN);
    CU_ASSERT_TRUE(seen.token.present);
    CU_ASSERT_EQUAL(seen.token.keys_ttl_ns, 1500 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(kms_agent_ops.describe(pair.token, &call, &info), KMS_OK);
    CU_ASSERT_EQUAL(info.generates, 1);
    CU_ASSERT_EQUAL(kms_agent_open_token(pair.agent, "other", &other, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_agent_ops.describe(other, &call, &info), KMS_E_NOT_FOUND);
    kms_agent_ops.close(other);
    pair_close(&pair);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void faults(void)
{
    static const struct {
        const char *name;
        enum fake_fault fault;
        unsigned count;
        unsigned value;
        enum kms_status sign;
        unsigned signs; /* requests that the agent saw */
        enum kms_status generate;
        unsigned generates;
    } rows[] = {
        {"slow", FAKE_SLOW, 1, 30, KMS_OK, 1, KMS_OK, 1},
        {"byte by byte", FAKE_DRIP, 1, 0, KMS_OK, 1, KMS_OK, 1},
        {"cut in the header", FAKE_CUT_HEADER, 1, 0, KMS_OK, 2, KMS_E_UNAVAILABLE, 1},
        {"cut in the body", FAKE_CUT_BODY, 1, 0, KMS_OK, 2, KMS_E_UNAVAILABLE, 1},
        {"hangs up", FAKE_HANG_UP, 1, 0, KMS_OK, 2, KMS_E_UNAVAILABLE, 1},
        {"hangs up for ever", FAKE_HANG_UP, 99, 0, KMS_E_UNAVAILABLE, 3, KMS_E_UNAVAILABLE, 1},
        {"hangs up without reading", FAKE_NOT_READ, 1, 0, KMS_OK, 1, KMS_OK, 1},
        {"does so thrice", FAKE_NOT_READ, 3, 0, KMS_OK, 1, KMS_OK, 1},
        {"garbage", FAKE_GARBAGE, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"an empty frame", FAKE_EMPTY, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"a huge frame", FAKE_HUGE, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"more than a reply", FAKE_MORE, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"another id", FAKE_WRONG_ID, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"no error", FAKE_NO_ERROR, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"bad output", FAKE_BAD_OUTPUT, 1, 0, KMS_E_PROTOCOL, 1, KMS_E_PROTOCOL, 1},
        {"denied", FAKE_ERROR, 1, KMS_E_DENIED, KMS_E_DENIED, 1, KMS_E_DENIED, 1},
        {"busy", FAKE_ERROR, 1, KMS_E_BUSY, KMS_E_BUSY, 1, KMS_E_BUSY, 1},
        {"silent", FAKE_SILENT, 1, 0, KMS_E_TIMEOUT, 1, KMS_E_TIMEOUT, 1},
        {"not welcome", FAKE_HELLO_DENIED, 1, 0, KMS_E_DENIED, 0, KMS_E_DENIED, 0},
        {"too many of us", FAKE_HELLO_BUSY, 1, 0, KMS_OK, 1, KMS_OK, 1},
        {"another version", FAKE_HELLO_VERSION, 1, 0, KMS_E_PROTOCOL, 0, KMS_E_PROTOCOL, 0},
        {"no instance", FAKE_HELLO_INSTANCE, 1, 0, KMS_E_PROTOCOL, 0, KMS_E_PROTOCOL, 0},
        {"no welcome", FAKE_HELLO_HANG_UP, 1, 0, KMS_OK, 1, KMS_OK, 1},
        {"a bad welcome", FAKE_HELLO_GARBAGE, 1, 0, KMS_E_PROTOCOL, 0, KMS_E_PROTOCOL, 0},
        {"a silent welcome", FAKE_HELLO_SILENT, 1, 0, KMS_E_TIMEOUT, 0, KMS_E_TIMEOUT, 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct pair pair = pair_open();
        struct kms_error error = KMS_ERROR_INIT;

        fake_agent_fault(pair.fake, rows[i].fault, rows[i].count, rows[i].value);
        UNIT_CHECK(rows[i].name, sign_in(&pair, 400, &error) == rows[i].sign);
        UNIT_CHECK(rows[i].name, (error.text[0] != '\0') == (rows[i].sign != KMS_OK));
        UNIT_CHECK(rows[i].name,
                   fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_SIGN) == rows[i].signs);
        fake_agent_fault(pair.fake, FAKE_NONE, 0, 0);
        UNIT_CHECK(rows[i].name, sign_once(&pair) == KMS_OK);
        client_close(&pair);

        client_open(&pair);
        fake_agent_fault(pair.fake, rows[i].fault, rows[i].count, rows[i].value);
        UNIT_CHECK(rows[i].name, generate_in(&pair, 400) == rows[i].generate);
        UNIT_CHECK(rows[i].name, fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_GENERATE) ==
                                     rows[i].generates);
        fake_agent_fault(pair.fake, FAKE_NONE, 0, 0);
        UNIT_CHECK(rows[i].name, generate_in(&pair, 400) == KMS_OK);
        pair_close(&pair);
    }
}

static void destroyed_once(void)
{
    struct pair pair = pair_open();
    struct kms_call call = call_for(5000);

    fake_agent_fault(pair.fake, FAKE_HANG_UP, 1, 0);
    CU_ASSERT_EQUAL(kms_agent_ops.destroy(pair.token, &call, "key-0"), KMS_OK);
    CU_ASSERT_EQUAL(call.error.status, KMS_OK);
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_DESTROY), 2);
    pair_close(&pair);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void deadlines(void)
{
    static const struct {
        const char *name;
        enum fake_fault fault;
        unsigned count;
        unsigned ms;
    } rows[] = {
        {"silent", FAKE_SILENT, 99, 50},
        {"silent for longer", FAKE_SILENT, 99, 250},
        {"no welcome", FAKE_HELLO_SILENT, 99, 100},
        {"hangs up", FAKE_HELLO_HANG_UP, 999, 200},
        {"byte by byte", FAKE_DRIP, 99, 10},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct pair pair = pair_open();
        uint64_t start = kms_now_ns();
        uint64_t took;

        fake_agent_fault(pair.fake, rows[i].fault, rows[i].count, 0);
        UNIT_CHECK(rows[i].name, sign_in(&pair, rows[i].ms, NULL) != KMS_OK);
        took = kms_now_ns() - start;
        UNIT_CHECK(rows[i].name, took <= rows[i].ms * KMS_NS_PER_MS + SLACK_NS);
        pair_close(&pair);
    }
}

static void own_deadline(void)
{
    const struct kms_agent_conf conf = {.socket = socket_path,
                                        .call_timeout_ns = 50 * KMS_NS_PER_MS};
    struct pair pair = {.fake = fake_agent_start(socket_path)};
    struct kms_call call = {.deadline_ns = KMS_DEADLINE_NONE};
    uint64_t start = kms_now_ns();
    struct seen seen = {.count = 0};

    must(kms_agent_new(&conf, &pair.agent, NULL) == KMS_OK, "no client");
    fake_agent_fault(pair.fake, FAKE_SILENT, 1, 0);
    CU_ASSERT_EQUAL(kms_agent_list_tokens(pair.agent, &call, see_token, &seen), KMS_E_TIMEOUT);
    CU_ASSERT_TRUE(kms_now_ns() - start < 50 * KMS_NS_PER_MS + SLACK_NS);
    call.deadline_ns = kms_now_ns();
    CU_ASSERT_EQUAL(kms_agent_list_tokens(pair.agent, &call, see_token, &seen), KMS_E_TIMEOUT);
    kms_agent_unref(pair.agent);
    fake_agent_stop(pair.fake);
}

static void *set_soon(void *arg)
{
    (void)poll(NULL, 0, 80);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static void cancelled(void)
{
    struct pair pair = pair_open();
    atomic_bool flag = false;
    struct kms_call call = call_for(5000);
    struct seen seen = {.count = 0};
    pthread_t thread;
    uint64_t start = kms_now_ns();

    call.cancelled = &flag;
    fake_agent_fault(pair.fake, FAKE_SILENT, 1, 0);
    must(pthread_create(&thread, NULL, set_soon, &flag) == 0, "no thread");
    CU_ASSERT_EQUAL(kms_agent_list_tokens(pair.agent, &call, see_token, &seen), KMS_E_CANCELLED);
    CU_ASSERT_TRUE(kms_now_ns() - start < 80 * KMS_NS_PER_MS + SLACK_NS);
    (void)pthread_join(thread, NULL);
    pair_close(&pair);
}

static void idle_connections_age(void)
{
    struct pair pair = {.fake = fake_agent_start(socket_path)};

    must(pair.fake != NULL, "no fake agent");
    fake_agent_idle(pair.fake, 1);
    client_open(&pair);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_EQUAL(fake_agent_connections(pair.fake), 1);
    (void)poll(NULL, 0, 900);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_EQUAL(fake_agent_connections(pair.fake), 2);
    pair_close(&pair);
}

/* ---- restarts -------------------------------------------------------------------------------- */

static void restarted_between_calls(void)
{
    struct pair pair = pair_open();
    uint64_t before;

    CU_ASSERT_EQUAL(kms_agent_generation(pair.agent), 0);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    before = kms_agent_generation(pair.agent);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_TRUE(before > 0 && kms_agent_generation(pair.agent) == before);
    (void)signal(SIGPIPE, SIG_DFL);
    fake_agent_stop(pair.fake);
    pair.fake = fake_agent_start(socket_path);
    CU_ASSERT_EQUAL(generate_in(&pair, 5000), KMS_OK); /* never left us: the old socket is dead */
    CU_ASSERT_TRUE(kms_agent_generation(pair.agent) > before);
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_GENERATE), 1);
    pair_close(&pair);
}

static void *start_late(void *arg)
{
    (void)arg;
    (void)poll(NULL, 0, 150);
    return fake_agent_start(socket_path);
}

static void restarting(void)
{
    struct pair pair = pair_open();
    struct kms_health health;
    pthread_t thread;
    void *fake = NULL;

    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    fake_agent_stop(pair.fake);
    must(pthread_create(&thread, NULL, start_late, NULL) == 0, "no thread");
    CU_ASSERT_EQUAL(sign_in(&pair, 3000, NULL), KMS_OK);
    (void)pthread_join(thread, &fake);
    pair.fake = fake;
    kms_agent_ops.health(pair.token, &health);
    CU_ASSERT_TRUE(health.ready && health.reconnects > 0);
    CU_ASSERT_TRUE(health.sessions_open == 1 && health.sessions_busy == 0);
    pair_close(&pair);
}

static uint64_t time_to_fail(struct pair *pair)
{
    uint64_t start = kms_now_ns();
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(sign_in(pair, 300, &error), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, socket_path));
    return kms_now_ns() - start;
}

/* Never there: said at once. Gone: waited for once. */
static void nobody_listens(void)
{
    struct pair pair = {.fake = NULL};
    struct kms_health health;

    client_open(&pair);
    kms_agent_ops.health(pair.token, &health);
    CU_ASSERT_FALSE(health.ready);
    CU_ASSERT_TRUE(time_to_fail(&pair) < SLACK_NS);
    pair.fake = fake_agent_start(socket_path);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    fake_agent_stop(pair.fake);
    CU_ASSERT_TRUE(time_to_fail(&pair) > 20 * KMS_NS_PER_MS);
    kms_agent_ops.health(pair.token, &health);
    CU_ASSERT_TRUE(!health.ready && health.error.status == KMS_E_UNAVAILABLE);
    CU_ASSERT_TRUE(time_to_fail(&pair) < SLACK_NS);
    pair.fake = fake_agent_start(socket_path);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    pair_close(&pair);
}

/* ---- the host -------------------------------------------------------------------------------- */

static int connection_of(const struct pair *pair)
{
    return pair->agent->pool.idle == NULL ? -1 : pair->agent->pool.idle->fd;
}

/* Runs @fn in a child; true when it ends well. */
static bool in_child(bool (*fn)(struct pair *pair), struct pair *pair)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        alarm(20);
        _exit(fn(pair) ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static bool child_signs(struct pair *pair)
{
    int fd = connection_of(pair);
    struct stat before;
    struct stat after;

    if (fd < 0 || fstat(fd, &before) != 0) {
        return false;
    }
    kms_agent_forked(pair->agent);
    if (fcntl(fd, F_GETFD) != -1) {
        return false; /* the parent's was to be closed */
    }
    return sign_once(pair) == KMS_OK && sign_once(pair) == KMS_OK && fstat(fd, &after) == 0 &&
           after.st_ino != before.st_ino;
}

static void forked(void)
{
    struct pair pair = pair_open();

    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_TRUE(in_child(child_signs, &pair));
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK); /* on the connection that it had */
    CU_ASSERT_EQUAL(fake_agent_connections(pair.fake), 2);
    pair_close(&pair);
}

static bool child_closes(struct pair *pair)
{
    kms_agent_forked(pair->agent);
    client_close(pair);
    return true;
}

struct worker {
    struct pair *pair;
    atomic_bool *stop; /* NULL: a fixed number of calls */
    unsigned bad;
    pthread_t thread;
};

static void *work(void *arg)
{
    struct worker *worker = arg;

    for (unsigned i = 0; worker->stop == NULL ? i < 200 : !atomic_load(worker->stop); i++) {
        worker->bad += sign_once(worker->pair) == KMS_OK ? 0 : 1;
    }
    return NULL;
}

static void forked_amid_calls(void)
{
    struct pair pair = pair_open();
    atomic_bool stop = false;
    struct worker workers[3];

    for (size_t i = 0; i < UNIT_COUNT(workers); i++) {
        workers[i] = (struct worker){.pair = &pair, .stop = &stop};
        must(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < 20; i++) {
        CU_ASSERT_TRUE(in_child(child_closes, &pair));
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < UNIT_COUNT(workers); i++) {
        (void)pthread_join(workers[i].thread, NULL);
        CU_ASSERT_EQUAL(workers[i].bad, 0);
    }
    pair_close(&pair);
}

/* Descriptors that the host closed, and whose numbers it then gave to a file and a socket of its
 * own: neither is closed or written to. */
static void descriptors_closed(void)
{
    struct pair pair = pair_open();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int ends[2] = {-1, -1};
    struct stat before;
    struct stat after;
    int fd;
    int own[2];

    must(null >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "sockets");
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    (void)close(connection_of(&pair));
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    own[0] = connection_of(&pair);
    CU_ASSERT_EQUAL(dup2(null, own[0]), own[0]);
    CU_ASSERT_EQUAL(fstat(own[0], &before), 0);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_TRUE(fstat(own[0], &after) == 0 && after.st_rdev == before.st_rdev);
    own[1] = connection_of(&pair);
    CU_ASSERT_EQUAL(dup2(ends[0], own[1]), own[1]);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_TRUE(recv(ends[1], &fd, sizeof(fd), 0) == -1 && errno == EAGAIN);
    fd = connection_of(&pair);
    CU_ASSERT_EQUAL(dup2(ends[0], fd), fd);
    client_close(&pair);
    CU_ASSERT_NOT_EQUAL(fcntl(own[0], F_GETFD), -1);
    CU_ASSERT_NOT_EQUAL(fcntl(own[1], F_GETFD), -1);
    CU_ASSERT_NOT_EQUAL(fcntl(fd, F_GETFD), -1);
    (void)close(fd);
    (void)close(own[0]);
    (void)close(own[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(null);
    fake_agent_stop(pair.fake);
}

static bool child_without_standard_files(struct pair *pair)
{
    kms_agent_forked(pair->agent);
    for (int fd = 0; fd <= 2; fd++) {
        (void)close(fd);
    }
    return sign_once(pair) == KMS_OK && connection_of(pair) > 2 && fcntl(0, F_GETFD) == -1 &&
           fcntl(1, F_GETFD) == -1 && fcntl(2, F_GETFD) == -1 &&
           fcntl(connection_of(pair), F_GETFD) == FD_CLOEXEC;
}

static bool child_without_descriptors(struct pair *pair)
{
    struct rlimit limit = {.rlim_cur = 0, .rlim_max = 0};
    struct rlimit before;

    kms_agent_forked(pair->agent);
    if (getrlimit(RLIMIT_NOFILE, &before) != 0) {
        return false;
    }
    limit.rlim_max = before.rlim_max;
    limit.rlim_cur = 3;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || sign_once(pair) != KMS_E_BUSY) {
        return false;
    }
    return setrlimit(RLIMIT_NOFILE, &before) == 0 && sign_once(pair) == KMS_OK;
}

static void scarce_descriptors(void)
{
    struct pair pair = pair_open();

    CU_ASSERT_TRUE(in_child(child_without_standard_files, &pair));
    CU_ASSERT_TRUE(in_child(child_without_descriptors, &pair));
    pair_close(&pair);
}

static bool child_serves_as_nobody(struct pair *pair)
{
    if (setgid(65534) != 0 || setuid(65534) != 0) {
        return false;
    }
    pair->fake = fake_agent_start(socket_path);
    (void)poll(NULL, 0, 3000);
    return true;
}

/* In a directory that anybody may write, root's client meets somebody else's agent. */
static void served_by_a_stranger(void)
{
    struct pair pair = {.fake = NULL};
    struct kms_error error = KMS_ERROR_INIT;
    pid_t pid;

    if (geteuid() != 0) {
        return;
    }
    must(chmod(scratch_path("."), 0777) == 0, "chmod");
    pid = fork();
    if (pid == 0) {
        _exit(child_serves_as_nobody(&pair) ? 0 : 1);
    }
    client_open(&pair);
    for (unsigned i = 0; i < 100 && access(socket_path, F_OK) != 0; i++) {
        (void)poll(NULL, 0, 10);
    }
    (void)poll(NULL, 0, 20);
    CU_ASSERT_EQUAL(sign_in(&pair, 500, &error), KMS_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "65534"));
    /* the directory's owner may serve */
    must(chown(scratch_path("."), 65534, 0) == 0, "chown");
    CU_ASSERT_EQUAL(sign_in(&pair, 500, &error), KMS_OK);
    must(chown(scratch_path("."), 0, 0) == 0 && chmod(scratch_path("."), 0700) == 0, "chown");
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)unlink(socket_path);
    client_close(&pair);
}

static void host_state_is_kept(void)
{
    struct pair pair = pair_open();
    int state = -1;
    sigset_t before;
    sigset_t after;

    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    fake_agent_fault(pair.fake, FAKE_HANG_UP, 2, 0);
    errno = 4711;
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    CU_ASSERT_EQUAL(errno, 4711);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int i = 1; i < NSIG; i++) {
        CU_ASSERT_EQUAL(sigismember(&before, i), sigismember(&after, i));
    }
    (void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    CU_ASSERT_EQUAL(state, PTHREAD_CANCEL_ENABLE);
    pair_close(&pair);
    CU_ASSERT_EQUAL(errno, 4711);
}

static void *cancelled_amid(void *arg)
{
    (void)sign_in(arg, 5000, NULL);
    pthread_testcancel();
    return NULL;
}

/* A thread that is cancelled amid a call leaves the pool whole. */
static void thread_cancelled(void)
{
    struct pair pair = pair_open();
    void *result = NULL;
    pthread_t thread;
    unsigned open = 9;
    unsigned busy = 9;

    fake_agent_fault(pair.fake, FAKE_SLOW, 1, 100);
    must(pthread_create(&thread, NULL, cancelled_amid, &pair) == 0, "no thread");
    (void)poll(NULL, 0, 20);
    (void)pthread_cancel(thread);
    (void)pthread_join(thread, &result);
    CU_ASSERT_PTR_EQUAL(result, PTHREAD_CANCELED);
    kms_agent_pool_count(&pair.agent->pool, &open, &busy);
    CU_ASSERT_TRUE(open == 1 && busy == 0);
    CU_ASSERT_EQUAL(sign_once(&pair), KMS_OK);
    pair_close(&pair);
}

/* ---- many ------------------------------------------------------------------------------------ */

static void eight_threads(void)
{
    struct pair pair = pair_open();
    struct worker workers[8];
    unsigned open = 0;
    unsigned busy = 9;

    for (size_t i = 0; i < UNIT_COUNT(workers); i++) {
        workers[i] = (struct worker){.pair = &pair};
        must(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
    for (size_t i = 0; i < UNIT_COUNT(workers); i++) {
        (void)pthread_join(workers[i].thread, NULL);
        CU_ASSERT_EQUAL(workers[i].bad, 0);
    }
    CU_ASSERT_EQUAL(fake_agent_requests(pair.fake, KMS__AGENT__REQUEST__OP_SIGN), 1600);
    kms_agent_pool_count(&pair.agent->pool, &open, &busy);
    CU_ASSERT_TRUE(open <= 4 && busy == 0); /* connections_idle */
    pair_close(&pair);
}

static void pool_is_bounded(void)
{
    struct kms_agent_conn *taken[KMS_AGENT_CONNECTIONS_MAX];
    struct kms_agent_conn *more = NULL;
    struct kms_agent_pool pool;
    struct kms_agent_wait wait = {.deadline_ns = kms_deadline_in(30 * KMS_NS_PER_MS)};

    must(kms_agent_pool_init(&pool, 2) == KMS_OK, "no pool");
    for (size_t i = 0; i < UNIT_COUNT(taken); i++) {
        must(kms_agent_pool_take(&pool, &wait, &taken[i], NULL) == KMS_OK, "no connection");
    }
    CU_ASSERT_EQUAL(kms_agent_pool_take(&pool, &wait, &more, NULL), KMS_E_BUSY);
    kms_agent_pool_give(&pool, taken[0], false);
    CU_ASSERT_EQUAL(kms_agent_pool_take(&pool, &wait, &taken[0], NULL), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(taken); i++) {
        kms_agent_pool_give(&pool, taken[i], false);
    }
    CU_ASSERT_EQUAL(pool.open_count, 0);
    kms_agent_pool_done(&pool);
}

static void bad_arguments(void)
{
    static char much[200];
    struct kms_agent_conf conf = {.socket = much};
    struct kms_agent *agent = NULL;
    struct kms_backend *token = NULL;

    memset(much, '/', sizeof(much) - 1);
    CU_ASSERT_EQUAL(kms_agent_new(&conf, &agent, NULL), KMS_E_INVALID);
    conf.socket = "";
    CU_ASSERT_EQUAL(kms_agent_new(&conf, &agent, NULL), KMS_E_INVALID);
    conf.socket = NULL;
    CU_ASSERT_EQUAL(kms_agent_new(&conf, &agent, NULL), KMS_OK);
    CU_ASSERT_EQUAL(kms_agent_open_token(agent, "", &token, NULL), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_agent_open_token(agent, much, &token, NULL), KMS_E_INVALID);
    kms_agent_unref(agent);
    CU_ASSERT_EQUAL(kms_agent_ops.open(NULL, &token, NULL), KMS_E_UNSUPPORTED);
    kms_agent_unref(NULL);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"operations", operations},
        {"sizes", sizes},
        {"keys", keys},
        {"keys of later types", keys_of_later_types},
        {"keys by the waist", keys_by_the_waist},
        {"tokens", tokens},
        {"faults", faults},
        {"data keys", data_keys},
        {"destroyed once", destroyed_once},
        {"deadlines", deadlines},
        {"own deadline", own_deadline},
        {"cancelled", cancelled},
        {"idle connections age", idle_connections_age},
        {"restarted between calls", restarted_between_calls},
        {"restarting", restarting},
        {"nobody listens", nobody_listens},
        {"forked", forked},
        {"forked amid calls", forked_amid_calls},
        {"descriptors closed", descriptors_closed},
        {"scarce descriptors", scarce_descriptors},
        {"served by a stranger", served_by_a_stranger},
        {"host state is kept", host_state_is_kept},
        {"thread cancelled", thread_cancelled},
        {"eight threads", eight_threads},
        {"pool is bounded", pool_is_bounded},
        {"bad arguments", bad_arguments},
    };
    int result;

    scratch_init();
    (void)snprintf(socket_path, sizeof(socket_path), "%s", scratch_path("agent.sock"));
    result = unit_main("test_agent", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
