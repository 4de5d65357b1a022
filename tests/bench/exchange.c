/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static const char *ca_file;
static long http_version;
static char token[512];

/* 32 bytes, with all that kmsbridged sends beside them */
static const char body[] =
    "{\"plaintext\":\"dGhpcnR5LXR3byBieXRlcywgaGFyZGx5IHJhbmRvbQ==\",\"associated_data\":"
    "\"S01CAQEADAAAAAAAAAAAAGtidjEtMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMA==\","
    "\"key_version\":1,\"type\":\"never-make-one\"}";
static const char *const fields[] = {
    "Content-Type: application/json",
    "X-Vault-Request: true",
    "X-Correlation-Id: 00000000-0000-4000-8000-000000000000",
};

bool exchange_setup(const char *version, const char *to, const char *token_file)
{
    char text[400] = "";
    FILE *file = fopen(token_file, "re");

    if (file == NULL || fgets(text, sizeof text, file) == NULL) {
        fprintf(stderr, "%s: cannot be read\n", token_file);
        return false;
    }
    (void)fclose(file);
    text[strcspn(text, "\n")] = '\0';
    (void)snprintf(token, sizeof token, "X-Vault-Token: %s", text);
    http_version = version[0] == '2' ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
    url = to;
    ca_file = getenv("KMS_BENCH_CA");
    return true;
}

static size_t take(char *data, size_t size, size_t count, void *ctx)
{
    struct exchange *exchange = ctx;
    size_t n = size * count;

    if (n >= sizeof exchange->reply - exchange->len) {
        return 0;
    }
    memcpy(exchange->reply + exchange->len, data, n);
    exchange->len += n;
    exchange->reply[exchange->len] = '\0';
    return n;
}

void exchange_init(struct exchange *exchange)
{
    CURL *curl = curl_easy_init();

    *exchange = (struct exchange){.curl = curl, .headers = curl_slist_append(NULL, token)};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        exchange->headers = curl_slist_append(exchange->headers, fields[i]);
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, exchange->headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, http_version);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
}

void exchange_done(struct exchange *exchange)
{
    curl_easy_cleanup(exchange->curl);
    curl_slist_free_all(exchange->headers);
}

const char *exchange_perform(struct exchange *exchange, size_t *ret_len)
{
    static const char name[] = "\"ciphertext\":\"";
    const char *at = NULL;

    exchange->len = 0;
    if (curl_easy_perform(exchange->curl) == CURLE_OK) {
        at = strstr(exchange->reply, name);
    }
    at = at == NULL ? NULL : at + sizeof name - 1;
    if (at == NULL || strncmp(at, "vault:v1:", 9) != 0) {
        fprintf(stderr, "no ciphertext: %.200s\n", exchange->reply);
        return NULL;
    }
    *ret_len = strcspn(at, "\"");
    return at;
}
