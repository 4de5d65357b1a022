/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/keyring.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/envelope.h"
#include "tests/unit/fake_waist.h"
#include "tests/unit/unit.h"

static struct kms_call call_now(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
}

static struct kms_keyring *ring_with(const char *spec)
{
    struct kms_keyring *ring = kms_keyring_new(NULL, spec);
    CU_ASSERT_PTR_NOT_NULL_FATAL(ring);
    return ring;
}

static enum kms_status refresh(struct kms_keyring *ring)
{
    struct kms_call call = call_now();
    return kms_keyring_refresh(ring, &call);
}

static bool active_is(struct kms_keyring *ring, const char *id)
{
    char key_id[KMS_KEY_ID_MAX];
    return kms_keyring_active(ring, key_id) == KMS_OK && strcmp(key_id, id) == 0;
}

struct sealed {
    uint8_t bytes[KMS_ENVELOPE_MAX];
    size_t len;
    char key_id[KMS_KEY_ID_MAX];
};

static enum kms_status encrypt(struct kms_keyring *ring, const char *text, struct sealed *out)
{
    struct kms_call call = call_now();
    struct kms_buf buf = KMS_BUF_OVER(out->bytes);
    enum kms_status status =
        kms_keyring_encrypt(ring, &call, kms_span_str(text), &buf, out->key_id);
    out->len = buf.len;
    return status;
}

static enum kms_status decrypt(struct kms_keyring *ring, const struct sealed *in, char *ret_text,
                               struct kms_error *err)
{
    struct kms_call call = call_now();
    uint8_t plain[KMS_ENVELOPE_MAX];
    struct kms_buf buf = KMS_BUF_OVER(plain);
    enum kms_status status = kms_keyring_decrypt(ring, &call, kms_span_str(in->key_id),
                                                 kms_span_of(in->bytes, in->len), &buf);
    if (status == KMS_OK) {
        memcpy(ret_text, plain, buf.len);
        ret_text[buf.len] = '\0';
    } else if (err != NULL) {
        *err = call.error;
    }
    return status;
}

static void highest_id_is_active(void)
{
    fake_reset();
    fake_add("kb1-old", "kek", 0x0002);
    fake_add("kb1-new", "kek", 0x0100);
    fake_add("kb1-mid", "kek", 0x0003);
    fake_add("kb1-other", "other", 0x7fff);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-new"));
    CU_ASSERT_EQUAL(kms_keyring_count(ring), 3);
    kms_keyring_free(ring);
}

/* As many as a service may read to us of a key that rotates by itself, and no silent cut. */
static void there_may_be_many_versions(void)
{
    static const struct {
        unsigned older;
        enum kms_status status;
    } rows[] = {{256, KMS_OK}, {4095, KMS_OK}, {4096, KMS_E_TOO_LARGE}};
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        fake_reset();
        fake_add("kb1-new", "kek", 0x0100);
        fake.older = rows[i].older;
        struct kms_keyring *ring = ring_with("kek");
        struct kms_call call = call_now();
        UNIT_CHECK("refreshed", kms_keyring_refresh(ring, &call) == rows[i].status);
        if (rows[i].status == KMS_OK) {
            UNIT_CHECK("active", active_is(ring, "kb1-new"));
            UNIT_CHECK("all", kms_keyring_count(ring) == rows[i].older + 1);
        } else {
            UNIT_CHECK(call.error.text, strstr(call.error.text, "more than 4096") != NULL);
        }
        kms_keyring_free(ring);
    }
}

/* Whether a refresh that finds what @add adds warns that it will not be used to encrypt. */
static bool warns_of(void (*add)(void))
{
    char text[4096] = "";
    FILE *file = tmpfile();
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fake_reset();
    fake_add("kb1-new", "kek", 0x0100);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    kms_log_setup(fileno(file), KMS_LOG_INFO, KMS_LOG_TEXT);
    add();
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-new"));
    kms_log_setup(STDERR_FILENO, KMS_LOG_INFO, KMS_LOG_TEXT);
    kms_keyring_free(ring);
    rewind(file);
    CU_ASSERT(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    return strstr(text, "it will decrypt only") != NULL;
}

static void add_below(void)
{
    fake_add("kb1-below", "kek", 0x0001);
}

static void add_versions(void)
{
    fake.older = 2;
}

/* A service that counts its versions may have made several since the last look. */
static void a_new_key_that_is_older_is_told(void)
{
    CU_ASSERT_TRUE(warns_of(add_below));
    CU_ASSERT_FALSE(warns_of(add_versions));
}

static void ids_compare_as_numbers_of_any_length(void)
{
    fake_reset();
    fake_add("kb1-short", "kek", 0);
    fake.keys[0].tag[0] = 0x09;
    fake.keys[0].tag_len = 1;
    fake_add("kb1-padded", "kek", 0x0008); /* 00 08: smaller than 09 though longer */
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-short"));
    kms_keyring_free(ring);
}

static void a_newer_key_takes_over_and_the_old_one_decrypts(void)
{
    struct sealed before;
    struct sealed after;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "seed one", &before), KMS_OK);
    CU_ASSERT_STRING_EQUAL(before.key_id, "kb1-a");
    fake_add("kb1-b", "kek", 2);
    CU_ASSERT(active_is(ring, "kb1-a")); /* until it was looked for and proven */
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-b"));
    CU_ASSERT_EQUAL(encrypt(ring, "seed two", &after), KMS_OK);
    CU_ASSERT_STRING_EQUAL(after.key_id, "kb1-b");
    CU_ASSERT_EQUAL(decrypt(ring, &before, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "seed one");
    CU_ASSERT_EQUAL(decrypt(ring, &after, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "seed two");
    kms_keyring_free(ring);
}

static void a_newer_key_that_does_not_work_stays_out(void)
{
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake_add("kb1-b", "kek", 2);
    fake.keys[1].broken = true;
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-a"));
    fake.keys[1].broken = false;
    fake.keys[1].cannot_seal = true;
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-a"));
    kms_keyring_free(ring);
}

static void the_active_key_is_never_replaced_by_an_older_one(void)
{
    struct sealed sealed;
    char key_id[KMS_KEY_ID_MAX];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    fake_add("kb1-b", "kek", 2);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake_remove("kb1-b");
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_KEY_STATE);
    CU_ASSERT_EQUAL(kms_keyring_active(ring, key_id), KMS_E_KEY_STATE);
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_E_KEY_STATE);
    fake_add("kb1-b", "kek", 2); /* restored */
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-b"));
    fake_remove("kb1-b");
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_KEY_STATE);
    fake_add("kb1-c", "kek", 3); /* or superseded */
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-c"));
    kms_keyring_free(ring);
}

static void an_outage_leaves_the_ring_as_it_was(void)
{
    struct sealed sealed;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_E_UNAVAILABLE); /* before the first refresh */
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "seed", &sealed), KMS_OK);
    fake.fail = KMS_E_UNAVAILABLE;
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_E_UNAVAILABLE);
    fake.fail = KMS_OK;
    CU_ASSERT(active_is(ring, "kb1-a"));
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "seed");
    kms_keyring_free(ring);
}

static void no_key_is_said(void)
{
    char key_id[KMS_KEY_ID_MAX];
    struct kms_call call = call_now();
    fake_reset();
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(kms_keyring_refresh(ring, &call), KMS_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(call.error.text, "kek"));
    CU_ASSERT_EQUAL(kms_keyring_active(ring, key_id), KMS_E_NOT_FOUND);
    fake_add("kb1-a", "kek", 1);
    fake.keys[0].cannot_seal = true;
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_UNSUPPORTED);
    kms_keyring_free(ring);
}

/* Every single bit of an envelope counts: none may be flipped, no byte cut or added. */
static void every_alteration_is_refused(void)
{
    struct sealed sealed;
    struct sealed bad;
    char text[KMS_ENVELOPE_MAX + 1];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "0123456789abcdef0123456789abcdef", &sealed), KMS_OK);
    for (size_t bit = 0; bit < sealed.len * 8; bit++) {
        bad = sealed;
        bad.bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        CU_ASSERT_EQUAL(decrypt(ring, &bad, text, NULL), KMS_E_BAD_DATA);
    }
    for (size_t len = 0; len < sealed.len; len++) {
        bad = sealed;
        bad.len = len;
        CU_ASSERT_EQUAL(decrypt(ring, &bad, text, NULL), KMS_E_BAD_DATA);
    }
    bad = sealed;
    bad.len++;
    CU_ASSERT_EQUAL(decrypt(ring, &bad, text, NULL), KMS_E_BAD_DATA);
    /* whatever algorithm it claims; the scheme of another service's keys is not even tried */
    for (unsigned alg = 0; alg < 256; alg++) {
        struct kms_error err = KMS_ERROR_INIT;
        bad = sealed;
        bad.bytes[4] = (uint8_t)alg;
        if (alg != sealed.bytes[4]) {
            CU_ASSERT_EQUAL(decrypt(ring, &bad, text, &err), KMS_E_BAD_DATA);
        }
        if (alg == KMS_ALG_SEALED || alg == KMS_ALG_RSA_OAEP_SHA256 ||
            alg == KMS_ALG_CHACHA20_POLY1305) {
            CU_ASSERT_PTR_NULL(strstr(err.text, "fake"));
        }
    }
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    kms_keyring_free(ring);
}

static void an_envelope_belongs_to_its_key_id(void)
{
    struct sealed sealed;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    fake_add("kb1-b", "kek", 2);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "seed", &sealed), KMS_OK);
    strcpy(sealed.key_id, "kb1-a");
    unsigned before = atomic_load(&fake.decrypts);
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_E_BAD_DATA);
    CU_ASSERT_EQUAL(atomic_load(&fake.decrypts), before);
    kms_keyring_free(ring);
}

static void an_unknown_key_id_is_looked_for_then_named(void)
{
    struct sealed sealed;
    struct kms_error err;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "seed", &sealed), KMS_OK);
    strcpy(sealed.key_id, "kb1-z\n!");
    unsigned lists = atomic_load(&fake.lists);
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, &err), KMS_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "kb1-z?!"));
    CU_ASSERT_EQUAL(atomic_load(&fake.lists), lists + 1);
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, &err), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(atomic_load(&fake.lists), lists + 1); /* not again within seconds */
    kms_keyring_free(ring);

    /* made on another node a moment ago: found without waiting for the next refresh */
    ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    struct kms_keyring *other = ring_with("kek");
    fake_add("kb1-b", "kek", 2);
    CU_ASSERT_EQUAL(refresh(other), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(other, "seed", &sealed), KMS_OK);
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    kms_keyring_free(ring);
    kms_keyring_free(other);
}

/* A start with a newest key that does not work: nothing is encrypted, what is older is still read.
 */
static void at_a_start_older_keys_decrypt_all_the_same(void)
{
    struct sealed sealed;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *before = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(before), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(before, "seed", &sealed), KMS_OK);
    kms_keyring_free(before);

    fake_add("kb1-b", "kek", 2);
    fake.keys[1].broken = true;
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_PROTOCOL);
    CU_ASSERT(!active_is(ring, "kb1-b"));
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "seed");
    struct sealed more;
    CU_ASSERT_EQUAL(encrypt(ring, "x", &more), KMS_E_KEY_STATE);
    CU_ASSERT_EQUAL(refresh(ring), KMS_E_PROTOCOL); /* and stays so until it is proven */
    CU_ASSERT_EQUAL(encrypt(ring, "x", &more), KMS_E_KEY_STATE);
    fake.keys[1].broken = false;
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-b"));
    CU_ASSERT_EQUAL(encrypt(ring, "x", &more), KMS_OK);
    kms_keyring_free(ring);
}

/* A key of the ring that the token does not show now is away, not unknown. */
static void a_key_that_is_away_is_unavailable(void)
{
    struct sealed sealed;
    char text[64];
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "seed", &sealed), KMS_OK);
    fake_remove("kb1-a");
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(encrypt(ring, "seed", &sealed), KMS_E_UNAVAILABLE);
    kms_keyring_free(ring);
}

/* The service rotates the key by itself: no envelope is made under the wrong key_id. */
static void a_rotation_is_followed_at_the_first_encrypt(void)
{
    struct sealed before, after;
    char text[64];
    fake_reset();
    fake_add("kb1-v1", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    CU_ASSERT_EQUAL(encrypt(ring, "before", &before), KMS_OK);
    fake_add("kb1-v2", "kek", 2);
    fake_move("kb1-v1", "kb1-v2");
    CU_ASSERT_EQUAL(encrypt(ring, "after", &after), KMS_OK);
    CU_ASSERT_STRING_EQUAL(after.key_id, "kb1-v2");
    CU_ASSERT(active_is(ring, "kb1-v2"));
    CU_ASSERT_EQUAL(decrypt(ring, &before, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "before");
    CU_ASSERT_EQUAL(decrypt(ring, &after, text, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(text, "after");
    kms_keyring_free(ring);
}

static void a_probe_follows_a_rotation(void)
{
    struct kms_call call = call_now();
    fake_reset();
    fake_add("kb1-v1", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake_add("kb1-v2", "kek", 2);
    fake_move("kb1-v1", "kb1-v2");
    CU_ASSERT_EQUAL(kms_keyring_probe(ring, &call), KMS_OK);
    CU_ASSERT(active_is(ring, "kb1-v2"));
    kms_keyring_free(ring);
}

/* Encrypt knows of the rotation, the listing does not yet: an error, and as soon as it does, good.
 */
static void a_rotation_that_is_not_listed_is_unavailable(void)
{
    struct sealed sealed;
    char text[64];
    fake_reset();
    fake_add("kb1-v1", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake_move("kb1-v1", "kb1-v2");
    unsigned lists = fake.lists;
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(sealed.len, 0);
    CU_ASSERT(fake.lists > lists && fake.lists <= lists + 4); /* it looked, and not for ever */
    CU_ASSERT(active_is(ring, "kb1-v1"));
    fake.fail_list = KMS_E_THROTTLED; /* what the search says is what is said */
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_E_THROTTLED);
    fake.fail_list = KMS_OK;
    fake_add("kb1-v2", "kek", 2);
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_OK);
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "kb1-v2");
    CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    kms_keyring_free(ring);
}

/* The version before can no longer seal: it does not stay the active one because the probe of the
 * next one failed, once; else nothing would be sealed until the next refresh. */
static void a_version_that_cannot_seal_does_not_stay(void)
{
    struct sealed sealed;
    fake_reset();
    fake_add("kb1-v1", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake_add("kb1-v2", "kek", 2);
    fake_move("kb1-v1", "kb1-v2");
    fake.keys[0].cannot_seal = true;
    fake.keys[1].broken = true;
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_E_PROTOCOL); /* the probe's */
    fake.keys[1].broken = false;
    CU_ASSERT_EQUAL(encrypt(ring, "x", &sealed), KMS_OK);
    CU_ASSERT_STRING_EQUAL(sealed.key_id, "kb1-v2");
    kms_keyring_free(ring);
}

static void *encrypt_many(void *ring)
{
    for (unsigned i = 0; i < 20; i++) {
        struct sealed sealed;
        char text[64];
        CU_ASSERT_EQUAL(encrypt(ring, "many", &sealed), KMS_OK);
        CU_ASSERT_EQUAL(decrypt(ring, &sealed, text, NULL), KMS_OK);
    }
    return NULL;
}

static void callers_wait_for_the_one_that_looks(void)
{
    pthread_t threads[8];
    fake_reset();
    fake_add("kb1-v1", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    fake.sleep_ms = 2;
    for (size_t i = 0; i < UNIT_COUNT(threads); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, encrypt_many, ring), 0);
    }
    usleep(20000);
    fake_add("kb1-v2", "kek", 2);
    fake_move("kb1-v1", "kb1-v2");
    for (size_t i = 0; i < UNIT_COUNT(threads); i++) {
        CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CU_ASSERT(active_is(ring, "kb1-v2"));
    kms_keyring_free(ring);
}

static void sizes_are_bounded(void)
{
    static uint8_t big[KMS_ENVELOPE_PLAINTEXT_MAX + 1];
    uint8_t out[KMS_ENVELOPE_MAX];
    char key_id[KMS_KEY_ID_MAX];
    const struct {
        size_t len;
        enum kms_status status;
    } rows[] = {{0, KMS_E_INVALID},
                {1, KMS_OK},
                {32, KMS_OK},
                {KMS_ENVELOPE_PLAINTEXT_MAX, KMS_OK},
                {KMS_ENVELOPE_PLAINTEXT_MAX + 1, KMS_E_TOO_LARGE}};
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    struct kms_keyring *ring = ring_with("kek");
    CU_ASSERT_EQUAL(refresh(ring), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_call call = call_now();
        struct kms_buf buf = KMS_BUF_OVER(out);
        CU_ASSERT_EQUAL(
            kms_keyring_encrypt(ring, &call, kms_span_of(big, rows[i].len), &buf, key_id),
            rows[i].status);
    }
    kms_keyring_free(ring);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"highest id is active", highest_id_is_active},
        {"many versions", there_may_be_many_versions},
        {"a new key that is older", a_new_key_that_is_older_is_told},
        {"ids compare as numbers", ids_compare_as_numbers_of_any_length},
        {"newer key takes over", a_newer_key_takes_over_and_the_old_one_decrypts},
        {"newer key that does not work", a_newer_key_that_does_not_work_stays_out},
        {"active key never falls back", the_active_key_is_never_replaced_by_an_older_one},
        {"outage leaves the ring", an_outage_leaves_the_ring_as_it_was},
        {"no key is said", no_key_is_said},
        {"every alteration is refused", every_alteration_is_refused},
        {"envelope belongs to its key_id", an_envelope_belongs_to_its_key_id},
        {"unknown key_id", an_unknown_key_id_is_looked_for_then_named},
        {"older keys decrypt at a start", at_a_start_older_keys_decrypt_all_the_same},
        {"key that is away", a_key_that_is_away_is_unavailable},
        {"rotation is followed", a_rotation_is_followed_at_the_first_encrypt},
        {"probe follows a rotation", a_probe_follows_a_rotation},
        {"rotation that is not listed", a_rotation_that_is_not_listed_is_unavailable},
        {"version that cannot seal", a_version_that_cannot_seal_does_not_stay},
        {"callers wait for one that looks", callers_wait_for_the_one_that_looks},
        {"sizes are bounded", sizes_are_bounded},
    };
    return unit_main("test_keyring", tests, UNIT_COUNT(tests));
}
