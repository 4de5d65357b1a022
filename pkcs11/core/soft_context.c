/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one library context, and what was fetched from it. Made without a lock: whoever comes second
 * drops what it made. Never freed: a host may finalise us inside or after OPENSSL_cleanup(), other
 * threads may be inside, and a child of fork() goes on with it.
 */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

static const char *const digests[] = {"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};
static const char *const macs[] = {"HMAC", "CMAC"};
static const char *const kdfs[] = {"HKDF", "X963KDF"};
static const char *const ciphers[] = {"AES-%u-GCM", "AES-%u-CBC",  "AES-%u-CTR",
                                      "AES-%u-ECB", "AES-%u-WRAP", "AES-%u-WRAP-PAD"};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SIZES        3 /* 128, 192, 256 bits */

struct context {
    OSSL_LIB_CTX *lib;
    OSSL_PROVIDER *provider;
    _Atomic(EVP_MD *) digest[COUNT(digests)];
    _Atomic(EVP_MAC *) mac[COUNT(macs)];
    _Atomic(EVP_KDF *) kdf[COUNT(kdfs)];
    _Atomic(EVP_CIPHER *) cipher[COUNT(ciphers)][SIZES];
};
static _Atomic(struct context *) the_context;

static void context_free(struct context *context)
{
    if (context != NULL) {
        (void)OSSL_PROVIDER_unload(context->provider);
        OSSL_LIB_CTX_free(context->lib);
        free(context);
    }
}

static struct context *context_new(void)
{
    struct context *context = calloc(1, sizeof(*context));

    if (context == NULL) {
        return NULL;
    }
    context->lib = OSSL_LIB_CTX_new();
    if (context->lib != NULL) {
        context->provider = OSSL_PROVIDER_load(context->lib, "default");
    }
    if (context->provider == NULL) {
        context_free(context);
        return NULL;
    }
    return context;
}

bool kms_soft_alive(void)
{
    return OPENSSL_init_crypto(0, NULL) == 1;
}

/*
 * The host's configuration first: loaded later, by somebody else, it could find our context there
 * already. A host whose configuration is broken has that trouble without us. The load may run a
 * provider that calls C_Initialize of this very module, on this thread: libcrypto does not load
 * twice, and we hold nothing here.
 */
static CK_RV start(void)
{
    struct context *fresh;
    struct context *none = NULL;

    (void)OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL);
    if (atomic_load(&the_context) != NULL) {
        return CKR_OK;
    }
    fresh = context_new();
    if (fresh == NULL) {
        return kms_p11_refuse(CKR_GENERAL_ERROR, "libcrypto gives no context with its default "
                                                 "provider");
    }
    if (!atomic_compare_exchange_strong(&the_context, &none, fresh)) {
        context_free(fresh);
    }
    return CKR_OK;
}

CK_RV kms_soft_enter(void)
{
    CK_RV rv = CKR_OK;

    if (!kms_soft_alive()) {
        return kms_p11_refuse(CKR_GENERAL_ERROR, "libcrypto has cleaned up already");
    }
    (void)ERR_set_mark(); /* on an empty queue sets none, and popping then empties it: as it was */
    if (atomic_load(&the_context) == NULL) {
        rv = start();
    }
    if (rv != CKR_OK) {
        (void)ERR_pop_to_mark();
    }
    return rv;
}

CK_RV kms_soft_leave(CK_RV rv)
{
    (void)ERR_pop_to_mark();
    return rv;
}

CK_RV kms_soft_start(void)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(CKR_OK) : rv;
}

OSSL_LIB_CTX *kms_soft_lib(void)
{
    return atomic_load(&the_context)->lib;
}

/* ---- fetched once ------------------------------------------------------------------------- */

static size_t index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return count;
}

/* Puts @fresh into @slot, or, when another thread was first, frees it and takes what is there. */
#define KEEP(type, free_it)                                                                        \
    static type *keep_##type(_Atomic(type *) *slot, type *fresh)                                   \
    {                                                                                              \
        type *there = NULL;                                                                        \
                                                                                                   \
        if (fresh != NULL && !atomic_compare_exchange_strong(slot, &there, fresh)) {               \
            free_it(fresh);                                                                        \
            return there;                                                                          \
        }                                                                                          \
        return fresh;                                                                              \
    }
KEEP(EVP_MD, EVP_MD_free)
KEEP(EVP_MAC, EVP_MAC_free)
KEEP(EVP_KDF, EVP_KDF_free)
KEEP(EVP_CIPHER, EVP_CIPHER_free)

EVP_MD *kms_soft_md(const char *name)
{
    struct context *context = atomic_load(&the_context);
    size_t i = index_of(digests, COUNT(digests), name);
    EVP_MD *md = i < COUNT(digests) ? atomic_load(&context->digest[i]) : NULL;

    if (md == NULL && i < COUNT(digests)) {
        md = keep_EVP_MD(&context->digest[i], EVP_MD_fetch(context->lib, name, NULL));
    }
    return md;
}

EVP_MAC *kms_soft_mac(const char *name)
{
    struct context *context = atomic_load(&the_context);
    size_t i = index_of(macs, COUNT(macs), name);
    EVP_MAC *mac = i < COUNT(macs) ? atomic_load(&context->mac[i]) : NULL;

    if (mac == NULL && i < COUNT(macs)) {
        mac = keep_EVP_MAC(&context->mac[i], EVP_MAC_fetch(context->lib, name, NULL));
    }
    return mac;
}

EVP_KDF *kms_soft_kdf(const char *name)
{
    struct context *context = atomic_load(&the_context);
    size_t i = index_of(kdfs, COUNT(kdfs), name);
    EVP_KDF *kdf = i < COUNT(kdfs) ? atomic_load(&context->kdf[i]) : NULL;

    if (kdf == NULL && i < COUNT(kdfs)) {
        kdf = keep_EVP_KDF(&context->kdf[i], EVP_KDF_fetch(context->lib, name, NULL));
    }
    return kdf;
}

EVP_CIPHER *kms_soft_cipher(const char *pattern, unsigned bits)
{
    static const char *const sizes[SIZES] = {"128", "192", "256"};
    struct context *context = atomic_load(&the_context);
    size_t i = index_of(ciphers, COUNT(ciphers), pattern);
    size_t size = bits / 64 - 2;
    const char *at = strchr(pattern, '%');
    EVP_CIPHER *cipher;
    char name[32];

    if (i == COUNT(ciphers) || at == NULL || (bits != 128 && bits != 192 && bits != 256)) {
        return NULL;
    }
    cipher = atomic_load(&context->cipher[i][size]);
    if (cipher == NULL) {
        (void)snprintf(name, sizeof(name), "%.*s%s%s", (int)(at - pattern), pattern, sizes[size],
                       at + 2);
        cipher =
            keep_EVP_CIPHER(&context->cipher[i][size], EVP_CIPHER_fetch(context->lib, name, NULL));
    }
    return cipher;
}

/* ---- without a key ------------------------------------------------------------------------ */

/* libcrypto's generators look at the process id: a child seeds its own. */
CK_RV kms_soft_random(void *bytes, size_t len)
{
    CK_RV rv = kms_soft_enter();

    if (rv != CKR_OK) {
        return rv;
    }
    if (len > 0 && RAND_bytes_ex(kms_soft_lib(), bytes, len, 0) != 1) {
        rv = kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto's random generator fails");
    }
    return kms_soft_leave(rv);
}

static CK_RV digest(const char *hash, struct kms_span in, struct kms_buf *out)
{
    EVP_MD *md = kms_soft_md(hash);
    unsigned len = 0;
    uint8_t result[EVP_MAX_MD_SIZE];

    if (md == NULL || EVP_Digest(in.data, in.len, result, &len, md, NULL) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto cannot do %s", hash);
    }
    return kms_buf_put(out, kms_span_of(result, len)) == KMS_OK ? CKR_OK : CKR_BUFFER_TOO_SMALL;
}

CK_RV kms_soft_digest(const char *hash, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(digest(hash, in, out)) : rv;
}
