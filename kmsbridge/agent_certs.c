/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_certs.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

#define FILE_MAX (128u * 1024u)

/* Appends to the chain's storage, which has room. */
static struct kms_span put(struct kms_agentd_chain *chain, size_t *used, const uint8_t *der,
                           int len)
{
    struct kms_span span = kms_span_of(chain->storage + *used, (size_t)len);

    memcpy(chain->storage + *used, der, (size_t)len);
    *used += (size_t)len;
    return span;
}

static enum kms_status add(struct kms_agentd_chain *chain, size_t *used, X509 *cert,
                           struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    EVP_PKEY *key = X509_get0_pubkey(cert);
    uint8_t *der = NULL;
    uint8_t *spki = NULL;
    int len = i2d_X509(cert, &der);
    int spki_len = 0;

    if (len <= 0 || len > KMS_AGENTD_CERT_MAX || chain->count == KMS_AGENTD_CHAIN_MAX) {
        status = kms_error_set(err, KMS_E_TOO_LARGE, "%s: at most %d certificates of %d bytes fit",
                               chain->file, KMS_AGENTD_CHAIN_MAX, KMS_AGENTD_CERT_MAX);
        goto out;
    }
    if (chain->count == 0) {
        spki_len = key == NULL ? -1 : i2d_PUBKEY(key, &spki);
        if (spki_len <= 0 || spki_len > KMS_AGENTD_CERT_MAX) {
            status = kms_error_set(err, KMS_E_INVALID,
                                   "%s: the public key of its first certificate cannot be read",
                                   chain->file);
            goto out;
        }
        chain->spki = put(chain, used, spki, spki_len);
    }
    chain->certificates[chain->count++] = put(chain, used, der, len);
out:
    OPENSSL_free(der);
    OPENSSL_free(spki);
    return status;
}

static enum kms_status read_pem(struct kms_agentd_chain *chain, const char *pem, size_t len,
                                struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    X509 *cert = NULL;
    size_t used = 0;

    chain->storage = malloc((size_t)(KMS_AGENTD_CHAIN_MAX + 1) * KMS_AGENTD_CERT_MAX);
    if (bio == NULL || chain->storage == NULL) {
        BIO_free(bio);
        return kms_error_set(err, KMS_E_NOMEM, "%s: no memory to read it", chain->file);
    }
    while (status == KMS_OK && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        status = add(chain, &used, cert, err);
        X509_free(cert);
    }
    /* no more certificates, or one that is none */
    if (status == KMS_OK &&
        (chain->count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)) {
        status = kms_error_set(err, KMS_E_INVALID, "%s: %s", chain->file,
                               chain->count == 0 ? "holds no certificate in PEM"
                                                 : "holds a certificate that cannot be read");
    }
    ERR_clear_error();
    BIO_free(bio);
    return status;
}

enum kms_status kms_agentd_chain_read(const char *file, struct kms_agentd_chain *ret_chain,
                                      struct kms_error *err)
{
    struct kms_agentd_chain chain = {.count = 0};
    char *pem = NULL;
    size_t len = 0;
    enum kms_status status = kms_file_read(file, KMS_FILE_CONFIG, FILE_MAX, &pem, &len, err);

    if (status != KMS_OK) {
        return status;
    }
    chain.file = strdup(file);
    status = chain.file == NULL ? kms_error_set(err, KMS_E_NOMEM, "%s: no memory to read it", file)
                                : read_pem(&chain, pem, len, err);
    free(pem);
    if (status != KMS_OK) {
        kms_agentd_chain_done(&chain);
        return status;
    }
    *ret_chain = chain;
    return KMS_OK;
}

void kms_agentd_chain_done(struct kms_agentd_chain *chain)
{
    free(chain->file);
    free(chain->storage);
    *chain = (struct kms_agentd_chain){.count = 0};
}

bool kms_agentd_chain_is_of(const struct kms_agentd_chain *chain, struct kms_span spki)
{
    const uint8_t *at = spki.data;
    EVP_PKEY *key = NULL;
    uint8_t *der = NULL;
    int len = 0;
    bool is = kms_span_equal(chain->spki, spki);

    if (!is && spki.len != 0 && spki.len <= KMS_AGENTD_CERT_MAX) {
        /* the service may encode it otherwise */
        key = d2i_PUBKEY(NULL, &at, (long)spki.len);
        len = key == NULL ? -1 : i2d_PUBKEY(key, &der);
        is = len > 0 && kms_span_equal(chain->spki, kms_span_of(der, (size_t)len));
        OPENSSL_free(der);
        EVP_PKEY_free(key);
        ERR_clear_error();
    }
    return is;
}
