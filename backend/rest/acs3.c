/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/acs3.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "common/codec.h"

#define ALGORITHM   "ACS3-HMAC-SHA256"
#define SHA256_SIZE 32

enum kms_status kms_acs3_hash_hex(struct kms_span bytes, char ret_hex[KMS_ACS3_HASH_HEX])
{
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (EVP_Digest(bytes.data == NULL ? (const uint8_t *)"" : bytes.data, bytes.len, digest, NULL,
                   EVP_sha256(), NULL) != 1) {
        return KMS_E_INTERNAL;
    }
    return kms_hex_encode(kms_span_of(digest, SHA256_SIZE), ret_hex, KMS_ACS3_HASH_HEX);
}

/* ---- the query ---------------------------------------------------------------------------- */

/* RFC 3986 2.3. */
static bool is_unreserved(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

static enum kms_status put_encoded(struct kms_span text, struct kms_buf *out)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        const char triple[3] = {'%', hex[c >> 4], hex[c & 15]};
        enum kms_status status =
            is_unreserved(c) ? kms_buf_put_u8(out, c) : kms_buf_put(out, kms_span_of(triple, 3));

        if (status != KMS_OK) {
            return status;
        }
    }
    return KMS_OK;
}

/* The order of @names, which is @count long; KMS_E_INVALID when one is there twice. */
static enum kms_status sort_names(const char *const *names, size_t count,
                                  size_t ret_order[KMS_ACS3_ITEMS_MAX])
{
    for (size_t i = 0; i < count; i++) {
        size_t at = i;

        while (at > 0 && strcmp(names[ret_order[at - 1]], names[i]) > 0) {
            ret_order[at] = ret_order[at - 1];
            at--;
        }
        ret_order[at] = i;
        if (at > 0 && strcmp(names[ret_order[at - 1]], names[i]) == 0) {
            return KMS_E_INVALID;
        }
    }
    return KMS_OK;
}

static enum kms_status put_param(const struct kms_acs3_param *param, bool first,
                                 struct kms_buf *out)
{
    enum kms_status status = first ? KMS_OK : kms_buf_put_u8(out, '&');

    if (status == KMS_OK) {
        status = put_encoded(kms_span_str(param->name), out);
    }
    if (status == KMS_OK) {
        status = kms_buf_put_u8(out, '=');
    }
    return status == KMS_OK ? put_encoded(param->value, out) : status;
}

enum kms_status kms_acs3_query(const struct kms_acs3_param *params, size_t count,
                               struct kms_buf *out)
{
    const char *names[KMS_ACS3_ITEMS_MAX] = {NULL};
    size_t order[KMS_ACS3_ITEMS_MAX] = {0};
    size_t start = out->len;
    enum kms_status status = KMS_OK;

    if (count > KMS_ACS3_ITEMS_MAX) {
        return KMS_E_INVALID;
    }
    for (size_t i = 0; i < count; i++) {
        names[i] = params[i].name;
    }
    status = sort_names(names, count, order);
    for (size_t i = 0; status == KMS_OK && i < count; i++) {
        status = put_param(&params[order[i]], i == 0, out);
    }
    if (status != KMS_OK) {
        out->len = start;
    }
    return status;
}

/* ---- the request -------------------------------------------------------------------------- */

static bool is_header(const struct kms_acs3_header *header)
{
    for (const char *c = header->name; *c != '\0'; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-')) {
            return false;
        }
    }
    for (const char *c = header->value; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return false;
        }
    }
    return header->name[0] != '\0';
}

static enum kms_status sort_headers(const struct kms_acs3_request *request,
                                    size_t ret_order[KMS_ACS3_ITEMS_MAX])
{
    const char *names[KMS_ACS3_ITEMS_MAX] = {NULL};

    if (request->header_count > KMS_ACS3_ITEMS_MAX) {
        return KMS_E_INVALID;
    }
    for (size_t i = 0; i < request->header_count; i++) {
        if (!is_header(&request->headers[i])) {
            return KMS_E_INVALID;
        }
        names[i] = request->headers[i].name;
    }
    return sort_names(names, request->header_count, ret_order);
}

static struct kms_span trimmed(const char *text)
{
    size_t len = 0;

    text += strspn(text, " ");
    len = strlen(text);
    while (len > 0 && text[len - 1] == ' ') {
        len--;
    }
    return kms_span_of(text, len);
}

/* "a;b;c": the names in their order. */
static enum kms_status put_signed_names(const struct kms_acs3_request *request,
                                        const size_t order[KMS_ACS3_ITEMS_MAX], struct kms_buf *out)
{
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < request->header_count; i++) {
        status = i == 0 ? KMS_OK : kms_buf_put_u8(out, ';');
        if (status == KMS_OK) {
            status = kms_buf_put(out, kms_span_str(request->headers[order[i]].name));
        }
    }
    return status;
}

static bool feed(EVP_MD_CTX *ctx, struct kms_span bytes)
{
    return bytes.len == 0 || EVP_DigestUpdate(ctx, bytes.data, bytes.len) == 1;
}

static bool feed_text(EVP_MD_CTX *ctx, const char *text)
{
    return feed(ctx, kms_span_str(text));
}

static bool feed_request(EVP_MD_CTX *ctx, const struct kms_acs3_request *request,
                         const size_t order[KMS_ACS3_ITEMS_MAX], struct kms_span names)
{
    bool good = feed_text(ctx, request->method) && feed_text(ctx, "\n") &&
                feed_text(ctx, request->path[0] == '\0' ? "/" : request->path) &&
                feed_text(ctx, "\n") && feed(ctx, request->query) && feed_text(ctx, "\n");

    for (size_t i = 0; i < request->header_count; i++) {
        const struct kms_acs3_header *header = &request->headers[order[i]];

        good = good && feed_text(ctx, header->name) && feed_text(ctx, ":") &&
               feed(ctx, trimmed(header->value)) && feed_text(ctx, "\n");
    }
    return good && feed_text(ctx, "\n") && feed(ctx, names) && feed_text(ctx, "\n") &&
           feed_text(ctx, request->payload_hash);
}

static enum kms_status hash_sorted(const struct kms_acs3_request *request,
                                   const size_t order[KMS_ACS3_ITEMS_MAX], struct kms_span names,
                                   char ret_hex[KMS_ACS3_HASH_HEX])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
                feed_request(ctx, request, order, names) &&
                EVP_DigestFinal_ex(ctx, digest, NULL) == 1;

    EVP_MD_CTX_free(ctx);
    return good ? kms_hex_encode(kms_span_of(digest, SHA256_SIZE), ret_hex, KMS_ACS3_HASH_HEX)
                : KMS_E_INTERNAL;
}

/* The names of the headers to @names, and the hash. */
static enum kms_status hash_request(const struct kms_acs3_request *request, struct kms_buf *names,
                                    char ret_hex[KMS_ACS3_HASH_HEX])
{
    size_t order[KMS_ACS3_ITEMS_MAX] = {0};
    enum kms_status status = sort_headers(request, order);

    if (status == KMS_OK) {
        status = put_signed_names(request, order, names);
    }
    return status == KMS_OK ? hash_sorted(request, order, kms_buf_span(names), ret_hex) : status;
}

enum kms_status kms_acs3_request_hash(const struct kms_acs3_request *request,
                                      char ret_hex[KMS_ACS3_HASH_HEX])
{
    uint8_t storage[KMS_ACS3_AUTH_MAX];
    struct kms_buf names = KMS_BUF_OVER(storage);

    return hash_request(request, &names, ret_hex);
}

enum kms_status kms_acs3_authorization(const struct kms_acs3_request *request,
                                       const struct kms_acs3_key *key, char *ret_text, size_t size)
{
    uint8_t storage[KMS_ACS3_AUTH_MAX];
    struct kms_buf names = KMS_BUF_OVER(storage);
    char hash[KMS_ACS3_HASH_HEX];
    char to_sign[sizeof(ALGORITHM) + KMS_ACS3_HASH_HEX];
    char signature[KMS_ACS3_HASH_HEX];
    uint8_t mac[EVP_MAX_MD_SIZE];
    int len = 0;
    enum kms_status status = hash_request(request, &names, hash);

    if (status != KMS_OK) {
        return status;
    }
    len = snprintf(to_sign, sizeof(to_sign), "%s\n%s", ALGORITHM, hash);
    if (key->secret.len > INT32_MAX ||
        HMAC(EVP_sha256(), key->secret.data, (int)key->secret.len, (const unsigned char *)to_sign,
             (size_t)len, mac, NULL) == NULL) {
        return KMS_E_INTERNAL;
    }
    status = kms_hex_encode(kms_span_of(mac, SHA256_SIZE), signature, sizeof(signature));
    if (status != KMS_OK) {
        return status;
    }
    len = snprintf(ret_text, size, "%s Credential=%s,SignedHeaders=%.*s,Signature=%s", ALGORITHM,
                   key->id, (int)names.len, (const char *)names.data, signature);
    return len < 0 || (size_t)len >= size ? KMS_E_TOO_LARGE : KMS_OK;
}
