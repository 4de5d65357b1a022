/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Encrypt as the key service sees it, by bare libcurl: a POST to Transit on a kept connection.
 * The reply is looked at for a ciphertext and no further. What the floors are made of.
 */
#ifndef KMSBRIDGE_TESTS_BENCH_EXCHANGE_H
#define KMSBRIDGE_TESTS_BENCH_EXCHANGE_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

enum { EXCHANGE_REPLY_MAX = 4096 };

/* For all of the process: what is asked, with the CA file of KMS_BENCH_CA. @version is "1.1" or
 * "2". Returns false after an explanation on stderr. */
bool exchange_setup(const char *version, const char *url, const char *token_file);

/* A connection of its own; one thread's. */
struct exchange {
    CURL *curl;
    struct curl_slist *headers;
    size_t len;
    char reply[EXCHANGE_REPLY_MAX];
};

void exchange_init(struct exchange *exchange);
void exchange_done(struct exchange *exchange);

/* The ciphertext lies in exchange->reply, *@ret_len bytes of it; NULL after an explanation on
 * stderr. */
const char *exchange_perform(struct exchange *exchange, size_t *ret_len);

#endif
