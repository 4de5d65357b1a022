/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small synchronous client of a KMS v2 plugin on a unix socket, as kube-apiserver is one: for
 * kmsbridgectl and for tests. One connection, one call at a time.
 *
 * Who may include this: tools/ and tests/. What it may use: common/, gRPC C core, protobuf-c.
 * A client belongs to one thread. Plaintext lies in secure memory on its way, and the slices that
 * carried it are wiped.
 */
#ifndef KMSBRIDGE_KMS_V2_CLIENT_H
#define KMSBRIDGE_KMS_V2_CLIENT_H

#include "common/span.h"
#include "common/status.h"

#define KMS_V2_MESSAGE_MAX 65536u /* bytes of a message either way */
#define KMS_V2_TEXT_MAX    1025   /* key_id is at most 1024 bytes (kube-apiserver's KeyIDMaxSize) */
#define KMS_V2_UID_SIZE    37     /* a UUID with NUL */

struct kms_v2_client;

struct kms_v2_status {
    char version[32];
    char healthz[KMS_V2_TEXT_MAX];
    char key_id[KMS_V2_TEXT_MAX];
};

struct kms_v2_annotation {
    char *key; /* free() */
    struct kms_span value;
};

/* What Encrypt answers and Decrypt wants back. */
struct kms_v2_sealed {
    struct kms_span ciphertext;
    const char *key_id;
    struct kms_v2_annotation *annotations;
    size_t annotation_count;
    void *storage; /* holds ciphertext, key_id and values; kms_secure_free() */
};

/*
 * Connects to @socket (a path, or "@name" for an abstract socket) and waits until the server
 * greets. Errors: KMS_E_UNAVAILABLE (nobody listens), KMS_E_TIMEOUT (no greeting before
 * @deadline_ns), KMS_E_DENIED (the socket's mode forbids it, or the server closes at once, which is
 * what kmsbridged does to a peer that it does not allow), KMS_E_INVALID (name too long).
 */
enum kms_status kms_v2_client_open(const char *socket, uint64_t deadline_ns,
                                   struct kms_v2_client **ret_client,
                                   struct kms_error *err) KMS_MUST_CHECK;
void kms_v2_client_close(struct kms_v2_client *client); /* NULL is fine */

/*
 * The three calls. An error of the server has gRPC's name of its code ("INVALID_ARGUMENT") in
 * err->code and the server's message in err->text; KMS_E_PROTOCOL when the reply cannot be read.
 */
enum kms_status kms_v2_client_status(struct kms_v2_client *client, uint64_t deadline_ns,
                                     struct kms_v2_status *ret_status,
                                     struct kms_error *err) KMS_MUST_CHECK;
/* @uid is what the server logs. The caller frees with kms_v2_sealed_done(). */
enum kms_status kms_v2_client_encrypt(struct kms_v2_client *client, uint64_t deadline_ns,
                                      const char *uid, struct kms_span plaintext,
                                      struct kms_v2_sealed *ret_sealed,
                                      struct kms_error *err) KMS_MUST_CHECK;
/* Appends to @ret_plaintext, which is the caller's secure memory; KMS_E_TOO_LARGE if it is small.
 */
enum kms_status kms_v2_client_decrypt(struct kms_v2_client *client, uint64_t deadline_ns,
                                      const char *uid, const struct kms_v2_sealed *sealed,
                                      struct kms_buf *ret_plaintext,
                                      struct kms_error *err) KMS_MUST_CHECK;

void kms_v2_sealed_done(struct kms_v2_sealed *sealed);

/* A fresh random UUID (RFC 9562 version 4), as kube-apiserver sends one with each call. */
enum kms_status kms_v2_uid_make(char ret_uid[KMS_V2_UID_SIZE],
                                struct kms_error *err) KMS_MUST_CHECK;

#endif
