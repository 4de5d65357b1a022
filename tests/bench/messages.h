/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The six KMS v2 messages, as far as a benchmark needs them, written and read by hand: the clients
 * are to measure the server, so they should cost little themselves.
 */
#ifndef KMSBRIDGE_TESTS_BENCH_MESSAGES_H
#define KMSBRIDGE_TESTS_BENCH_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bench_method { BENCH_STATUS, BENCH_ENCRYPT, BENCH_DECRYPT, BENCH_METHODS };

enum {
    BENCH_SEED_LEN = 32,
    BENCH_UID_LEN = 36,
    BENCH_MAX_MESSAGE = 4096, /* more than any reply of a benchmarked server */
};

struct bench_message {
    size_t len;
    uint8_t bytes[BENCH_MAX_MESSAGE];
};

extern const char *const bench_paths[BENCH_METHODS]; /* "/v2.KeyManagementService/Status" ... */
extern const char *const bench_names[BENCH_METHODS]; /* "Status" ... */

/* EncryptRequest with this seed and uid. */
void message_encrypt(struct bench_message *message, const uint8_t seed[BENCH_SEED_LEN],
                     const char *uid);

/* EncryptResponse, for the servers among the benchmarks. */
void message_encrypted(struct bench_message *message, const char *ciphertext, size_t len,
                       const char *key_id);

/* From an EncryptResponse the DecryptRequest for its ciphertext, without uid; false: not one. */
bool message_decrypt_from(struct bench_message *message, const uint8_t *reply, size_t len);
void message_add_uid(struct bench_message *message, const char *uid);

/* What a right reply looks like; `seed` is what a DecryptResponse has to hold. */
bool message_check(enum bench_method method, const uint8_t *reply, size_t len,
                   const uint8_t seed[BENCH_SEED_LEN]);

#endif
