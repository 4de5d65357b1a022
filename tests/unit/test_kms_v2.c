/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kms_v2.h"

#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "kmsbridge/kms_v2.pb-c.h"
#include "tests/unit/fake_waist.h"
#include "tests/unit/unit.h"

#define UID "6f1c7a1e-0000-4000-8000-000000000001"

/* --- wire bytes by hand, so that what protobuf-c would never write can be sent --- */

struct wire {
    uint8_t bytes[70000];
    size_t len;
};

static void put_field(struct wire *w, unsigned number, const void *data, size_t len)
{
    w->bytes[w->len++] = (uint8_t)(number << 3 | 2);
    size_t rest = len;
    do {
        w->bytes[w->len++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        rest >>= 7;
    } while (rest != 0);
    memcpy(w->bytes + w->len, data, len);
    w->len += len;
}

static void put_text(struct wire *w, unsigned number, const char *text)
{
    put_field(w, number, text, strlen(text));
}

static void put_annotation(struct wire *w, const char *key, size_t value_len)
{
    static struct wire entry;
    static const uint8_t zeros[40000];
    entry.len = 0;
    put_text(&entry, 1, key);
    put_field(&entry, 2, zeros, value_len);
    put_field(w, 4, entry.bytes, entry.len);
}

/* --- one call through a method's row --- */

struct outcome {
    enum kms_status status;
    char detail[KMS_RPC_DETAIL_MAX];
    uint8_t message[KMS_RPC_REPLY_MAX];
    size_t len;
    bool same_known;
    uint8_t same[KMS_RPC_SAME_LEN];
};

static struct outcome call(struct kms_v2 *kms, enum kms_method method, const struct wire *w)
{
    const struct kms_rpc_method *row = &kms_v2_methods[method];
    uint8_t storage[2][KMS_RPC_REPLY_MAX];
    struct outcome out = {.status = KMS_OK};
    struct kms_rpc_reply reply = {.message = KMS_BUF_OVER(storage[0]),
                                  .scratch = KMS_BUF_OVER(storage[1])};
    struct kms_rpc_request request = {.message = kms_span_of(w->bytes, w->len),
                                      .arena = kms_rpc_arena_new(),
                                      .deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    if (row->parse != NULL) {
        row->parse(kms, &request, &reply);
    }
    if (reply.status == KMS_OK && row->same != NULL) {
        out.same_known = row->same(kms, &request, out.same);
    }
    if (reply.status == KMS_OK) {
        row->run(kms, &request, &reply);
    }
    out.status = reply.status;
    memcpy(out.detail, reply.detail, sizeof out.detail);
    memcpy(out.message, reply.message.data, reply.message.len);
    out.len = reply.message.len;
    kms_rpc_arena_free(request.arena);
    return out;
}

struct fixture {
    struct kms_metrics metrics;
    struct kms_conf conf;
    struct kms_keks keks;
    struct kms_v2 kms;
};

/* One more KEK over the fake, and its first verdict is known. */
static struct kms_kek *kek_of(struct fixture *f)
{
    struct kms_kek *kek = NULL;
    CU_ASSERT_EQUAL_FATAL(kms_kek_open(&f->keks, &f->conf, NULL, NULL, &kek, NULL), KMS_OK);
    CU_ASSERT(kms_healthd_wait_known(kek->health, kms_deadline_in(5 * KMS_NS_PER_S)));
    return kek;
}

static void set_up(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->conf.kms = (struct kms_kms_conf){.backend = "fake",
                                        .key = "kek",
                                        .probe_interval_ns = 60 * KMS_NS_PER_S,
                                        .refresh_interval_ns = 60 * KMS_NS_PER_S,
                                        .call_timeout_ns = KMS_NS_PER_S};
    kms_keks_init(&f->keks);
    f->kms.keks = &f->keks;
    f->kms.metrics = &f->metrics;
    atomic_store(&f->kms.api_version, "v2");
    kms_kek_serve(kek_of(f));
}

static void tear_down(struct fixture *f)
{
    CU_ASSERT(kms_keks_done(&f->keks, 5 * KMS_NS_PER_S));
}

static void good_key(void)
{
    fake_reset();
    fake_add("kb1-a", "kek", 1);
}

/* --- tests --- */

static void status_encrypt_decrypt(void)
{
    struct fixture f;
    static struct wire w;
    good_key();
    set_up(&f);
    w.len = 0;
    struct outcome out = call(&f.kms, KMS_METHOD_STATUS, &w);
    V2__StatusResponse *st = v2__status_response__unpack(NULL, out.len, out.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(st);
    CU_ASSERT_STRING_EQUAL(st->version, "v2");
    CU_ASSERT_STRING_EQUAL(st->healthz, "ok");
    CU_ASSERT_STRING_EQUAL(st->key_id, "kb1-a");
    v2__status_response__free_unpacked(st, NULL);

    put_text(&w, 1, "0123456789abcdef0123456789abcdef");
    put_text(&w, 2, UID);
    out = call(&f.kms, KMS_METHOD_ENCRYPT, &w);
    CU_ASSERT_EQUAL(out.status, KMS_OK);
    V2__EncryptResponse *enc = v2__encrypt_response__unpack(NULL, out.len, out.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(enc);
    CU_ASSERT_STRING_EQUAL(enc->key_id, "kb1-a");
    CU_ASSERT_EQUAL(enc->n_annotations, 0);

    w.len = 0;
    put_field(&w, 1, enc->ciphertext.data, enc->ciphertext.len);
    put_text(&w, 2, UID);
    put_text(&w, 3, enc->key_id);
    put_text(&w, 15, "an unknown field is ignored");
    v2__encrypt_response__free_unpacked(enc, NULL);
    out = call(&f.kms, KMS_METHOD_DECRYPT, &w);
    CU_ASSERT_EQUAL(out.status, KMS_OK);
    V2__DecryptResponse *dec = v2__decrypt_response__unpack(NULL, out.len, out.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(dec);
    CU_ASSERT_EQUAL(dec->plaintext.len, 32);
    CU_ASSERT_EQUAL(memcmp(dec->plaintext.data, "0123456789abcdef0123456789abcdef", 32), 0);
    v2__decrypt_response__free_unpacked(dec, NULL);
    tear_down(&f);
}

static void encrypt_refuses(void)
{
    static const uint8_t big[2000];
    const struct {
        const char *name;
        size_t plaintext;
        const char *uid;
        size_t uid_len;
        const char *says;
    } rows[] = {
        {"no uid", 32, "", 0, "uid"},
        {"uid with NUL", 32, "a\0b", 3, "uid"},
        {"uid not UTF-8", 32, "\xff\xfe", 2, "uid"},
        {"uid too long", 32, (const char *)big, KMS_V2_UID_MAX + 1, "uid"},
        {"no plaintext", 0, UID, 36, "plaintext"},
        {"plaintext too long", 929, UID, 36, "plaintext"},
    };
    struct fixture f;
    static struct wire w;
    good_key();
    set_up(&f);
    unsigned before = atomic_load(&fake.encrypts);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        w.len = 0;
        put_field(&w, 1, big, rows[i].plaintext);
        put_field(&w, 2, rows[i].uid, rows[i].uid_len);
        struct outcome out = call(&f.kms, KMS_METHOD_ENCRYPT, &w);
        UNIT_CHECK(rows[i].name, out.status == KMS_E_INVALID);
        UNIT_CHECK(rows[i].name, strstr(out.detail, rows[i].says) != NULL);
    }
    CU_ASSERT_EQUAL(atomic_load(&fake.encrypts), before);
    w.len = 3;
    memcpy(w.bytes, "\x0a\xff\xff", 3); /* a length that overruns */
    CU_ASSERT_EQUAL(call(&f.kms, KMS_METHOD_ENCRYPT, &w).status, KMS_E_INVALID);
    tear_down(&f);
}

static void decrypt_refuses(void)
{
    static char long_id[KMS_V2_KEY_ID_MAX + 2];
    static const uint8_t ct[1100] = {'K', 'M', 'B'};
    memset(long_id, 'k', sizeof long_id - 1);
    const struct {
        const char *name;
        size_t ct;
        const char *key_id;
        size_t key_id_len;
        const char *annotation;
        size_t value;
        const char *says;
    } rows[] = {
        {"no key_id", 76, "", 0, NULL, 0, "key_id"},
        {"key_id with NUL", 76, "kb1-a\0x", 7, NULL, 0, "key_id"},
        {"key_id not UTF-8", 76, "\xc3\x28", 2, NULL, 0, "key_id"},
        {"key_id of 1025", 76, long_id, 1025, NULL, 0, "key_id"},
        {"no ciphertext", 0, "kb1-a", 5, NULL, 0, "ciphertext"},
        {"ciphertext of 1025", 1025, "kb1-a", 5, NULL, 0, "ciphertext"},
        {"annotation with a slash", 76, "kb1-a", 5, "kms.example.io/id", 1, "qualified"},
        {"annotation of one label", 76, "kb1-a", 5, "panda", 1, "qualified"},
        {"annotation in capitals", 76, "kb1-a", 5, "A.example", 1, "qualified"},
        {"annotation with an empty label", 76, "kb1-a", 5, "a..example", 1, "qualified"},
        {"annotation with a hyphen before a dot", 76, "kb1-a", 5, "a-.example", 1, "qualified"},
        {"annotation with a hyphen at the end", 76, "kb1-a", 5, "a.example-", 1, "qualified"},
        {"annotation without a key", 76, "kb1-a", 5, "", 1, "qualified"},
        {"annotations over 32 KiB", 76, "kb1-a", 5, "a.example", 32760, "32768"},
        {"foreign annotation", 76, "kb1-a", 5, "local-kek.kms.kubernetes.io", 9, "local-kek"},
    };
    struct fixture f;
    static struct wire w;
    good_key();
    set_up(&f);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        w.len = 0;
        put_field(&w, 1, ct, rows[i].ct);
        put_text(&w, 2, UID);
        put_field(&w, 3, rows[i].key_id, rows[i].key_id_len);
        if (rows[i].annotation != NULL) {
            put_annotation(&w, rows[i].annotation, rows[i].value);
        }
        struct outcome out = call(&f.kms, KMS_METHOD_DECRYPT, &w);
        UNIT_CHECK(rows[i].name, out.status == KMS_E_INVALID);
        UNIT_CHECK(rows[i].name, strstr(out.detail, rows[i].says) != NULL);
    }
    /* the limit itself is fine: what is refused is then the envelope, and with a generic sentence
     */
    w.len = 0;
    put_field(&w, 1, ct, 1024);
    put_text(&w, 2, UID);
    put_field(&w, 3, "kb1-a", 5);
    struct outcome out = call(&f.kms, KMS_METHOD_DECRYPT, &w);
    CU_ASSERT_EQUAL(out.status, KMS_E_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(out.detail, "cannot be opened"));
    tear_down(&f);
}

static void details_stay_in_the_log(void)
{
    struct fixture f;
    static struct wire w;
    good_key();
    set_up(&f);
    fake.fail = KMS_E_UNAVAILABLE;
    w.len = 0;
    put_text(&w, 1, "seed");
    put_text(&w, 2, UID);
    struct outcome out = call(&f.kms, KMS_METHOD_ENCRYPT, &w);
    CU_ASSERT_EQUAL(out.status, KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NULL(strstr(out.detail, "secret"));
    /* "invalid" down there is not the client's mistake, nor told to it */
    fake.fail = KMS_E_INVALID;
    out = call(&f.kms, KMS_METHOD_ENCRYPT, &w);
    CU_ASSERT_EQUAL(out.status, KMS_E_INTERNAL);
    CU_ASSERT_PTR_NULL(strstr(out.detail, "secret"));
    fake.fail = KMS_OK;
    tear_down(&f);
}

/* stop-writing: an error. keep-writing: a healthz that is not ok, beside the key_id. */
static void a_bad_kek_is_said_as_configured(void)
{
    struct fixture f;
    static struct wire w;
    good_key();
    set_up(&f);
    fake.fail = KMS_E_UNAVAILABLE;
    kms_healthd_kick(f.keks.now->health);
    struct kms_verdict verdict;
    for (int i = 0; i < 500; i++) {
        kms_healthd_verdict(f.keks.now->health, &verdict);
        if (!verdict.good) {
            break;
        }
        struct timespec ms = {.tv_nsec = 10000000};
        nanosleep(&ms, NULL);
    }
    CU_ASSERT(!verdict.good);
    w.len = 0;
    struct outcome out = call(&f.kms, KMS_METHOD_STATUS, &w);
    CU_ASSERT_EQUAL(out.status, KMS_E_UNAVAILABLE);
    atomic_store(&f.kms.on_failure, KMS_KEEP_WRITING);
    out = call(&f.kms, KMS_METHOD_STATUS, &w);
    CU_ASSERT_EQUAL(out.status, KMS_OK);
    V2__StatusResponse *st = v2__status_response__unpack(NULL, out.len, out.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(st);
    CU_ASSERT_STRING_NOT_EQUAL(st->healthz, "ok");
    CU_ASSERT_STRING_EQUAL(st->key_id, "kb1-a");
    v2__status_response__free_unpacked(st, NULL);
    fake.fail = KMS_OK;
    tear_down(&f);
}

static void same_means_same_key_id_and_ciphertext(void)
{
    struct fixture f;
    static struct wire w;
    uint8_t ct[76] = {'K', 'M', 'B'};
    struct outcome outs[4];
    good_key();
    set_up(&f);
    for (size_t i = 0; i < UNIT_COUNT(outs); i++) {
        ct[75] = i == 2;
        w.len = 0;
        put_field(&w, 1, ct, sizeof ct);
        put_text(&w, 2, i == 1 ? "another-uid" : UID);
        put_text(&w, 3, i == 3 ? "kb1-b" : "kb1-a");
        outs[i] = call(&f.kms, KMS_METHOD_DECRYPT, &w);
        CU_ASSERT(outs[i].same_known);
    }
    CU_ASSERT_EQUAL(memcmp(outs[0].same, outs[1].same, KMS_RPC_SAME_LEN), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(outs[0].same, outs[2].same, KMS_RPC_SAME_LEN), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(outs[0].same, outs[3].same, KMS_RPC_SAME_LEN), 0);
    tear_down(&f);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"Status, Encrypt, Decrypt", status_encrypt_decrypt},
        {"Encrypt refuses", encrypt_refuses},
        {"Decrypt refuses", decrypt_refuses},
        {"details stay in the log", details_stay_in_the_log},
        {"bad KEK is said as configured", a_bad_kek_is_said_as_configured},
        {"same Decrypts", same_means_same_key_id_and_ciphertext},
    };
    return unit_main("test_kms_v2", tests, UNIT_COUNT(tests));
}
