/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_waist.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/secure.h"

#define TAG_LEN 16

struct fake_waist fake;

static pthread_mutex_t keys_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards keys and count */

void fake_reset(void)
{
    memset(&fake, 0, sizeof fake);
}

void fake_add(const char *id, const char *label, unsigned tag)
{
    pthread_mutex_lock(&keys_mutex);
    struct fake_key *key = &fake.keys[fake.count++];
    *key = (struct fake_key){.id = id, .label = label, .tag_len = 2};
    key->tag[0] = (uint8_t)(tag >> 8);
    key->tag[1] = (uint8_t)tag;
    pthread_mutex_unlock(&keys_mutex);
}

void fake_remove(const char *id)
{
    size_t kept = 0;
    pthread_mutex_lock(&keys_mutex);
    for (size_t i = 0; i < fake.count; i++) {
        if (strcmp(fake.keys[i].id, id) != 0) {
            fake.keys[kept++] = fake.keys[i];
        }
    }
    fake.count = kept;
    pthread_mutex_unlock(&keys_mutex);
}

void fake_move(const char *id, const char *to)
{
    pthread_mutex_lock(&keys_mutex);
    for (size_t i = 0; i < fake.count; i++) {
        if (strcmp(fake.keys[i].id, id) == 0) {
            fake.keys[i].moved_to = to;
        }
    }
    pthread_mutex_unlock(&keys_mutex);
}

static size_t snapshot(struct fake_key ret_keys[FAKE_KEYS_MAX])
{
    pthread_mutex_lock(&keys_mutex);
    size_t count = fake.count;
    memcpy(ret_keys, fake.keys, sizeof fake.keys);
    pthread_mutex_unlock(&keys_mutex);
    return count;
}

static bool find(const char *ref, struct fake_key *ret_key)
{
    struct fake_key keys[FAKE_KEYS_MAX];
    size_t count = snapshot(keys);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].id, ref) == 0) {
            *ret_key = keys[i];
            return true;
        }
    }
    return false;
}

static void tag_of(const struct fake_key *key, struct kms_span aad, struct kms_span iv,
                   struct kms_span ct, uint8_t tag[TAG_LEN])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    EVP_DigestUpdate(ctx, key->id, strlen(key->id));
    EVP_DigestUpdate(ctx, aad.data, aad.len);
    EVP_DigestUpdate(ctx, iv.data, iv.len);
    EVP_DigestUpdate(ctx, ct.data, ct.len);
    EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    memcpy(tag, digest, TAG_LEN);
}

enum kms_status kms_waist_open(const struct kms_backend_conf *conf, kms_observe observe,
                               void *observe_ctx, struct kms_waist **ret_waist,
                               struct kms_error *err)
{
    (void)conf;
    (void)observe;
    (void)observe_ctx;
    if (fake.fail_open != KMS_OK) {
        return kms_error_set(err, fake.fail_open, "fake: open");
    }
    *ret_waist = NULL;
    atomic_fetch_add(&fake.opened, 1);
    return KMS_OK;
}

void kms_waist_close(struct kms_waist *waist)
{
    (void)waist;
    atomic_fetch_add(&fake.closed, 1);
}

void kms_waist_health(struct kms_waist *waist, struct kms_health *ret_health)
{
    (void)waist;
    *ret_health = (struct kms_health){.ready = true};
}

/* False when @visit has seen enough. */
static bool list_older(const char *label, const struct kms_key_filter *filter, kms_key_visit visit,
                       void *ctx)
{
    for (unsigned i = 0; i < fake.older; i++) {
        struct kms_key_info info = {.type = KMS_KEY_AES, .bits = 256, .seal = KMS_ALG_AES_GCM};
        if (filter->spec != NULL && strcmp(filter->spec, label) != 0) {
            continue;
        }
        snprintf(info.id, sizeof info.id, "kb1-older-%u", i);
        strcpy(info.ref, info.id);
        strcpy(info.label, label);
        info.uses = KMS_USE_DECRYPT;
        info.order = i + 1;
        if (!visit(ctx, &info)) {
            return false;
        }
    }
    return true;
}

enum kms_status kms_waist_list_keys(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_key_filter *filter, kms_key_visit visit,
                                    void *ctx)
{
    (void)waist;
    atomic_fetch_add(&fake.lists, 1);
    enum kms_status fail = fake.fail != KMS_OK ? fake.fail : fake.fail_list;
    if (fail != KMS_OK) {
        return kms_error_set(&call->error, fail, "fake: list");
    }
    struct fake_key keys[FAKE_KEYS_MAX];
    size_t count = snapshot(keys);
    if (count > 0 && !list_older(keys[0].label, filter, visit, ctx)) {
        return KMS_OK;
    }
    for (size_t i = 0; i < count; i++) {
        const struct fake_key *key = &keys[i];
        struct kms_key_info info = {.type = KMS_KEY_AES, .bits = 256, .tag_len = key->tag_len};
        if ((filter->spec != NULL && strcmp(filter->spec, key->label) != 0) ||
            (filter->label != NULL && strcmp(filter->label, key->label) != 0)) {
            continue;
        }
        strcpy(info.ref, key->id);
        strcpy(info.id, key->id);
        strcpy(info.label, key->label);
        memcpy(info.tag, key->tag, sizeof key->tag);
        info.uses = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;
        info.order = fake.older == 0 ? 0 : UINT32_MAX;
        info.seal = key->cannot_seal ? KMS_ALG_NONE : KMS_ALG_AES_GCM;
        if (!visit(ctx, &info)) {
            break;
        }
    }
    return KMS_OK;
}

static enum kms_status begin(struct kms_call *call, const char *ref, struct fake_key *ret_key)
{
    unsigned ms = atomic_load(&fake.sleep_ms);
    if (ms != 0) {
        usleep(ms * 1000);
    }
    if (fake.fail != KMS_OK) {
        return kms_error_set(&call->error, fake.fail, "fake: secret detail");
    }
    return find(ref, ret_key) ? KMS_OK
                              : kms_error_set(&call->error, KMS_E_NOT_FOUND, "fake: no such key");
}

enum kms_status kms_waist_encrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span plaintext,
                                  struct kms_sealed *ret_sealed)
{
    static atomic_uint counter;
    struct fake_key key;
    uint8_t iv[12] = {0};
    uint8_t tag[TAG_LEN];
    (void)waist;
    enum kms_status status = begin(call, ref, &key);
    if (status != KMS_OK) {
        return status;
    }
    if (key.moved_to != NULL && !find(key.moved_to, &key)) {
        key.id = key.moved_to; /* nobody has listed it yet */
    }
    if (ret_sealed->ciphertext.cap < plaintext.len + 1024 || ret_sealed->iv.cap < KMS_IV_MAX) {
        return kms_error_set(&call->error, KMS_E_INVALID, "fake: room"); /* backend.h demands it */
    }
    unsigned n = atomic_fetch_add(&counter, 1);
    memcpy(iv, &n, sizeof n);
    ret_sealed->alg = params->alg;
    strcpy(ret_sealed->key_id, key.id);
    if (kms_buf_put(&ret_sealed->iv, kms_span_of(iv, sizeof iv)) != KMS_OK) {
        return KMS_E_TOO_LARGE;
    }
    for (size_t i = 0; i < plaintext.len; i++) {
        if (kms_buf_put_u8(&ret_sealed->ciphertext, plaintext.data[i] ^ 0x5a) != KMS_OK) {
            return KMS_E_TOO_LARGE;
        }
    }
    tag_of(&key, params->aad, kms_buf_span(&ret_sealed->iv), kms_buf_span(&ret_sealed->ciphertext),
           tag);
    atomic_fetch_add(&fake.encrypts, 1);
    return kms_buf_put(&ret_sealed->ciphertext, kms_span_of(tag, sizeof tag));
}

enum kms_status kms_waist_decrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span ciphertext,
                                  struct kms_buf *ret_plaintext)
{
    struct fake_key key;
    uint8_t tag[TAG_LEN];
    (void)waist;
    enum kms_status status = begin(call, ref, &key);
    if (status != KMS_OK) {
        return status;
    }
    if (ciphertext.len < TAG_LEN) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA, "fake: no tag");
    }
    struct kms_span body = kms_span_of(ciphertext.data, ciphertext.len - TAG_LEN);
    tag_of(&key, params->aad, params->iv, body, tag);
    /* not memcmp(): a fuzzer would read the right tag off its arguments */
    if (!kms_secret_equal(tag, ciphertext.data + body.len, TAG_LEN)) {
        return kms_error_set(&call->error, KMS_E_BAD_DATA, "fake: tag");
    }
    atomic_fetch_add(&fake.decrypts, 1);
    for (size_t i = 0; i < body.len; i++) {
        uint8_t byte = body.data[i] ^ (key.broken ? 0x5b : 0x5a);
        if (kms_buf_put_u8(ret_plaintext, byte) != KMS_OK) {
            return kms_error_set(&call->error, KMS_E_TOO_LARGE, "fake: room");
        }
    }
    return KMS_OK;
}

const char *kms_waist_name(const struct kms_waist *waist)
{
    (void)waist;
    return "fake";
}

const char *kms_op_name(enum kms_op op)
{
    return op == KMS_OP_ENCRYPT ? "encrypt" : op == KMS_OP_DECRYPT ? "decrypt" : "other";
}
