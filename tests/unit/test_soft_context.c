/* SPDX-License-Identifier: Apache-2.0 */
/* The library context as a guest in its host: error queue, default context, fork, threads, and the
 * end of libcrypto. */
#include "pkcs11/core/soft.h"

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/fake_p11_log.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/unit.h"

static uint8_t iv[16];
static CK_MECHANISM cbc_pad = {CKM_AES_CBC_PAD, iv, sizeof(iv)};

/* Something that succeeds, and something that makes libcrypto complain. */
static void do_both(struct kms_soft_key *key)
{
    static struct bytes out;
    static const uint8_t in[32] = {1};

    CU_ASSERT_EQUAL(op_once(KMS_SOFT_ENCRYPT, &cbc_pad, key, kms_span_of(in, 32), &out), CKR_OK);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_DECRYPT, &cbc_pad, key, kms_span_of(in, 32), &out),
                    CKR_ENCRYPTED_DATA_INVALID);
}

static void error_queue_is_the_hosts(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, "000102030405060708090a0b0c0d0e0f");

    ERR_clear_error();
    do_both(key);
    CU_ASSERT_EQUAL(ERR_peek_error(), 0);
    ERR_raise(ERR_LIB_USER, 17);
    ERR_raise(ERR_LIB_USER, 18);
    do_both(key);
    CU_ASSERT_EQUAL(ERR_GET_REASON(ERR_get_error()), 17);
    CU_ASSERT_EQUAL(ERR_GET_REASON(ERR_get_error()), 18);
    CU_ASSERT_EQUAL(ERR_get_error(), 0);
    kms_soft_key_unref(key);
}

static int count_provider(OSSL_PROVIDER *provider, void *arg)
{
    (void)provider;
    ++*(int *)arg;
    return 1;
}

/* A host that took its default provider away can still use our keys; and we bring it none back. */
static void default_context_is_the_hosts(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, "000102030405060708090a0b0c0d0e0f");
    OSSL_PROVIDER *none = OSSL_PROVIDER_load(NULL, "null");
    int before = 0;
    int after = 0;
    CK_MECHANISM sign = {CKM_ECDSA_SHA256, NULL, 0};
    struct kms_soft_key *pair;
    static struct bytes out;

    CU_ASSERT_PTR_NOT_NULL_FATAL(none);
    (void)OSSL_PROVIDER_do_all(NULL, count_provider, &before);
    do_both(key);
    pair = key_made(CKK_EC, 0, P256_OID);
    CU_ASSERT_EQUAL(op_once(KMS_SOFT_SIGN, &sign, pair, kms_span_str("x"), &out), CKR_OK);
    (void)OSSL_PROVIDER_do_all(NULL, count_provider, &after);
    CU_ASSERT_EQUAL(before, after);
    kms_soft_key_unref(pair);
    kms_soft_key_unref(key);
    (void)OSSL_PROVIDER_unload(none);
}

static void random_differs(void)
{
    uint8_t a[64] = {0};
    uint8_t b[64] = {0};

    CU_ASSERT_EQUAL(kms_soft_random(a, sizeof(a)), CKR_OK);
    CU_ASSERT_EQUAL(kms_soft_random(b, sizeof(b)), CKR_OK);
    CU_ASSERT_NOT_EQUAL(memcmp(a, b, sizeof(a)), 0);
    CU_ASSERT_EQUAL(kms_soft_random(NULL, 0), CKR_OK);
}

/* Parent and children draw from the same state at the fork: none may have another's bytes. Keys of
 * the parent work in the child. */
static void forked_children_have_their_own_random(void)
{
    struct kms_soft_key *key = key_of(CKK_AES, "000102030405060708090a0b0c0d0e0f");
    uint8_t draws[4][32];
    struct bytes sealed;
    int pipes[2];

    CU_ASSERT_EQUAL(kms_soft_random(draws[3], 32), CKR_OK); /* the state is there */
    for (size_t i = 0; i < 3; i++) {
        pid_t pid;
        int status = -1;

        CU_ASSERT_EQUAL_FATAL(pipe(pipes), 0);
        pid = fork();
        if (pid == 0) {
            uint8_t mine[32];
            bool good =
                kms_soft_random(mine, sizeof(mine)) == CKR_OK &&
                op_once(KMS_SOFT_ENCRYPT, &cbc_pad, key, kms_span_str("x"), &sealed) == CKR_OK &&
                write(pipes[1], mine, sizeof(mine)) == (ssize_t)sizeof(mine);

            _exit(good ? 0 : 1);
        }
        CU_ASSERT_EQUAL(read(pipes[0], draws[i], 32), 32);
        CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
        CU_ASSERT_EQUAL(status, 0);
        (void)close(pipes[0]);
        (void)close(pipes[1]);
    }
    CU_ASSERT_EQUAL(kms_soft_random(draws[3], 32), CKR_OK);
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = i + 1; j < 4; j++) {
            CU_ASSERT_NOT_EQUAL(memcmp(draws[i], draws[j], 32), 0);
        }
    }
    kms_soft_key_unref(key);
}

/* ---- the host's configuration calls us back ----------------------------------------------- */

static CK_RV inner = CKR_GENERAL_ERROR;
static unsigned inner_calls;

/* Stands for pkcs11-provider, which openssl.cnf loads and which calls our C_Initialize. */
static int host_module(CONF_IMODULE *module, const CONF *conf)
{
    (void)module;
    (void)conf;
    inner_calls++;
    inner = kms_soft_start();
    return 1;
}

/* Must be the first: a configuration is loaded once. An alarm ends the program if it hangs. */
static void configuration_may_recurse(void)
{
    static const char conf[] = "openssl_conf = a\n[a]\nkmsbridge_test = b\n[b]\n";
    char path[] = "/tmp/kmsbridge-conf-XXXXXX";
    int fd = mkstemp(path);

    CU_ASSERT_TRUE_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(write(fd, conf, sizeof(conf) - 1), (ssize_t)sizeof(conf) - 1);
    (void)close(fd);
    (void)setenv("OPENSSL_CONF", path, 1);
    CU_ASSERT_EQUAL(CONF_module_add("kmsbridge_test", host_module, NULL), 1);
    (void)alarm(30);
    CU_ASSERT_EQUAL(kms_soft_start(), CKR_OK);
    (void)alarm(0);
    CU_ASSERT_EQUAL(inner_calls, 1);
    CU_ASSERT_EQUAL(inner, CKR_OK);
    (void)unsetenv("OPENSSL_CONF");
    (void)unlink(path);
}

/* ---- threads: the context is made by many at once, one key is used by all ------------------ */

static atomic_uint wrong;
static struct kms_soft_key *shared;

static void *work(void *arg)
{
    struct bytes *out = malloc(sizeof(*out));
    struct bytes *back = malloc(sizeof(*back));

    (void)arg;
    for (size_t i = 0; out != NULL && back != NULL && i < 100; i++) {
        struct kms_soft_key *mine = key_made(CKK_AES, 256, NULL);
        struct kms_soft_key *keys[2] = {mine, shared};

        for (size_t k = 0; k < 2; k++) {
            bool good =
                op_once(KMS_SOFT_ENCRYPT, &cbc_pad, keys[k], kms_span_str("text"), out) == CKR_OK &&
                op_once(KMS_SOFT_DECRYPT, &cbc_pad, keys[k], bytes_span(out), back) == CKR_OK &&
                kms_span_equal(bytes_span(back), kms_span_str("text"));

            if (!good) {
                atomic_fetch_add(&wrong, 1);
            }
        }
        kms_soft_key_unref(mine);
    }
    free(out);
    free(back);
    return NULL;
}

static void *start(void *arg)
{
    (void)arg;
    if (kms_soft_start() != CKR_OK) {
        atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

static void run_threads(void *(*fn)(void *))
{
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, fn, NULL), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    CU_ASSERT_EQUAL(atomic_load(&wrong), 0);
}

static void many_start_it(void)
{
    run_threads(start);
    CU_ASSERT_EQUAL(kms_soft_start(), CKR_OK);
}

static void many_use_it(void)
{
    shared = key_made(CKK_AES, 128, NULL);
    run_threads(work);
    kms_soft_key_unref(shared);
}

/* ---- after libcrypto's end ---------------------------------------------------------------- */

static int outlive_libcrypto(void)
{
    struct kms_soft_key *aes = key_of(CKK_AES, "000102030405060708090a0b0c0d0e0f");
    struct kms_soft_key *pair = key_made(CKK_EC, 0, P256_OID);
    struct kms_soft_op *op = NULL;
    struct kms_soft_op *other = NULL;
    uint8_t storage[64];
    struct kms_buf out = KMS_BUF_OVER(storage);
    int failures = 0;

    if (kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC_PAD), &cbc_pad, aes, &op) != CKR_OK) {
        return 99;
    }
    OPENSSL_cleanup();
    failures += kms_soft_start() != CKR_GENERAL_ERROR;
    failures += kms_soft_random(storage, 5) != CKR_GENERAL_ERROR;
    failures += kms_soft_op_update(op, kms_span_of(iv, 16), &out) != CKR_GENERAL_ERROR;
    failures += kms_soft_op_new(KMS_SOFT_ENCRYPT, mech_of(CKM_AES_CBC_PAD), &cbc_pad, aes,
                                &other) != CKR_GENERAL_ERROR;
    kms_soft_op_free(op);
    kms_soft_key_unref(aes);
    kms_soft_key_unref(pair);
    return failures;
}

static void nothing_is_called_after_the_end(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(outlive_libcrypto());
    }
    CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
    CU_ASSERT_TRUE(WIFEXITED(status));
    CU_ASSERT_EQUAL(WEXITSTATUS(status), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"configuration may recurse", configuration_may_recurse},
        {"many start it", many_start_it},
        {"error queue is the host's", error_queue_is_the_hosts},
        {"default context is the host's", default_context_is_the_hosts},
        {"random differs", random_differs},
        {"forked children have their own random", forked_children_have_their_own_random},
        {"many use it", many_use_it},
        {"nothing is called after the end", nothing_is_called_after_the_end},
    };

    return unit_main("test_soft_context", tests, UNIT_COUNT(tests));
}
