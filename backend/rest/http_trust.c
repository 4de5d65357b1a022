/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/http_trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct kms_http_trust {
    char *file, *directory;
    pthread_mutex_t lock; /* guards what follows */
    X509_STORE *store;    /* NULL: not read yet */
    struct stat read;     /* the file as it was then */
};

struct kms_http_trust *kms_http_trust_new(const char *file, const char *directory)
{
    struct kms_http_trust *trust = calloc(1, sizeof(*trust));

    if (trust == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&trust->lock, NULL);
    trust->file = file == NULL ? NULL : strdup(file);
    trust->directory = directory == NULL ? NULL : strdup(directory);
    if ((file != NULL && trust->file == NULL) || (directory != NULL && trust->directory == NULL)) {
        kms_http_trust_free(trust);
        return NULL;
    }
    return trust;
}

void kms_http_trust_free(struct kms_http_trust *trust)
{
    if (trust != NULL) {
        X509_STORE_free(trust->store);
        (void)pthread_mutex_destroy(&trust->lock);
        free(trust->file);
        free(trust->directory);
        free(trust);
    }
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static enum kms_status say_openssl(const char *file, struct kms_error *err)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_SYSTEM_ERROR(code) ? strerrordesc_np(ERR_GET_REASON(code))
                                                : ERR_reason_error_string(code);

    ERR_clear_error();
    return kms_error_set(err, KMS_E_INVALID, "%s: %s", file,
                         reason == NULL ? "holds no CA certificate" : reason);
}

static enum kms_status load(const struct kms_http_trust *trust, X509_STORE *store,
                            struct kms_error *err)
{
    ERR_clear_error();
    if (trust->file != NULL && X509_STORE_load_file(store, trust->file) != 1) {
        return say_openssl(trust->file, err);
    }
    if (trust->directory != NULL && X509_STORE_load_path(store, trust->directory) != 1) {
        return say_openssl(trust->directory, err);
    }
    if (X509_STORE_set_flags(store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN) != 1) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for CA certificates");
    }
    return KMS_OK;
}

/* What was read stays when the file cannot be read now, for the time when it is as it was; nobody
 * is given it until then. */
static enum kms_status refresh_locked(struct kms_http_trust *trust, struct kms_error *err)
{
    X509_STORE *store = NULL;
    enum kms_status status = KMS_OK;
    struct stat now = {.st_size = 0};

    if (trust->file != NULL && stat(trust->file, &now) != 0) {
        return kms_error_set(err, KMS_E_INVALID, "%s: %s", trust->file, strerrordesc_np(errno));
    }
    if (trust->store != NULL && is_same(&now, &trust->read)) {
        return KMS_OK;
    }
    store = X509_STORE_new();
    if (store == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for CA certificates");
    }
    status = load(trust, store, err);
    if (status != KMS_OK) {
        X509_STORE_free(store);
        return status;
    }
    X509_STORE_free(trust->store);
    trust->store = store;
    trust->read = now;
    return KMS_OK;
}

enum kms_status kms_http_trust_give(struct kms_http_trust *trust, SSL_CTX *context,
                                    struct kms_error *err)
{
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&trust->lock);
    status = refresh_locked(trust, err);
    if (status == KMS_OK) {
        /* not the one of the context, which libcurl fills, keeps and puts into others */
        (void)SSL_CTX_set1_verify_cert_store(context, trust->store);
        /* and from here comes what is sent with a client certificate that stands alone */
        (void)SSL_CTX_set1_chain_cert_store(context, trust->store);
    }
    pthread_mutex_unlock(&trust->lock);
    return status;
}
