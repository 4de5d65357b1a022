/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the key service itself can do: the same HTTP exchange by bare libcurl, a kept connection for
 * each thread, without any server of ours. An Encrypt is one POST to Transit; the reply is looked
 * at for a ciphertext and no further. Prints one JSON line per number of threads.
 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/samples.h"

enum { MAX_THREADS = 64, REPLY_MAX = 4096 };

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

struct worker {
    pthread_t thread;
    uint64_t start, end;
    bool failed;
    size_t len;
    char reply[REPLY_MAX];
    struct samples samples;
};

static size_t take(char *data, size_t size, size_t count, void *ctx)
{
    struct worker *w = ctx;
    size_t n = size * count;

    if (n >= sizeof w->reply - w->len) {
        return 0;
    }
    memcpy(w->reply + w->len, data, n);
    w->len += n;
    w->reply[w->len] = '\0';
    return n;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct curl_slist *headers = curl_slist_append(NULL, token);
    CURL *curl = curl_easy_init();

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        headers = curl_slist_append(headers, fields[i]);
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, w);
    curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, http_version);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    for (uint64_t before = bench_now(); !w->failed && before < w->end;) {
        uint64_t after = 0;

        w->len = 0;
        w->failed = curl_easy_perform(curl) != CURLE_OK ||
                    strstr(w->reply, "\"ciphertext\":\"vault:v1:") == NULL;
        after = bench_now();
        if (before >= w->start) {
            samples_add(&w->samples, after - before);
        }
        before = after;
    }
    if (w->failed) {
        fprintf(stderr, "no ciphertext: %.200s\n", w->reply);
    }
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    return NULL;
}

static bool measure(unsigned threads, double seconds)
{
    static struct worker workers[MAX_THREADS];
    struct samples all = {0};
    uint64_t start = bench_now() + 300000000U;
    bool ok = true;

    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.start = start, .end = start + (uint64_t)(seconds * 1e9)};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        ok = ok && !workers[i].failed;
        samples_merge(&all, &workers[i].samples);
        samples_done(&workers[i].samples);
    }
    printf("{\"client\":\"curl\",\"load\":{\"method\":\"Encrypt\",\"callers\":%u,", threads);
    samples_print(&all, seconds, stdout);
    printf("}}\n");
    samples_done(&all);
    return ok;
}

int main(int argc, char **argv)
{
    char text[400] = "";
    bool ok = true;

    if (argc < 6 || (strcmp(argv[1], "1.1") != 0 && strcmp(argv[1], "2") != 0)) {
        fprintf(stderr, "usage: http_floor 1.1|2 URL TOKEN_FILE SECONDS THREADS...\n"
                        "KMS_BENCH_CA: file of the CA certificates for https\n");
        return 2;
    }
    http_version = argv[1][0] == '2' ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
    ca_file = getenv("KMS_BENCH_CA");
    FILE *file = fopen(argv[3], "re");
    if (file == NULL || fgets(text, sizeof text, file) == NULL) {
        fprintf(stderr, "%s: cannot be read\n", argv[3]);
        return 1;
    }
    (void)fclose(file);
    text[strcspn(text, "\n")] = '\0';
    (void)snprintf(token, sizeof token, "X-Vault-Token: %s", text);
    url = argv[2];
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (int i = 5; ok && i < argc; i++) {
        unsigned threads = (unsigned)strtoul(argv[i], NULL, 10);

        ok = threads > 0 && threads <= MAX_THREADS && measure(threads, strtod(argv[4], NULL));
    }
    curl_global_cleanup();
    return ok ? 0 : 1;
}
