/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 by hand, so that it can be wrong: frames are sent as the caller says, answers are read as
 * far as a test asks. One connection, one thread.
 */
#ifndef KMSBRIDGE_TESTS_DAEMON_RAW_H
#define KMSBRIDGE_TESTS_DAEMON_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/daemon/fixture.h"

#define RAW_ENCRYPT "/v2.KeyManagementService/Encrypt"
#define RAW_DECRYPT "/v2.KeyManagementService/Decrypt"
#define RAW_STATUS  "/v2.KeyManagementService/Status"

enum raw_type {
    RAW_DATA,
    RAW_HEADERS,
    RAW_PRIORITY,
    RAW_RST_STREAM,
    RAW_SETTINGS,
    RAW_PUSH_PROMISE,
    RAW_PING,
    RAW_GOAWAY,
    RAW_WINDOW_UPDATE,
    RAW_CONTINUATION,
};

enum { RAW_END_STREAM = 1, RAW_ACK = 1, RAW_END_HEADERS = 4 };

struct raw;

/* Connects; with @greet it sends the preface and empty SETTINGS. NULL when that fails. */
struct raw *raw_open(const struct fixture *fx, bool greet);
void raw_close(struct raw *raw);
int raw_fd(const struct raw *raw);

/* False when the peer does not take it. */
bool raw_send(struct raw *raw, const void *bytes, size_t len);
bool raw_frame(struct raw *raw, enum raw_type type, unsigned flags, uint32_t stream,
               const void *payload, size_t len);
/* HEADERS of a gRPC call; @extra is one more "name: value" or NULL. */
bool raw_headers(struct raw *raw, uint32_t stream, const char *path, const char *extra,
                 unsigned flags);
/* gRPC's five bytes and the message, as one DATA frame for each 16 KiB, with END_STREAM. */
bool raw_message(struct raw *raw, uint32_t stream, unsigned flag, const void *message, size_t len);
/* raw_headers() and raw_message(). */
bool raw_call(struct raw *raw, uint32_t stream, const char *path, const void *message, size_t len);

/*
 * One DATA frame of a stream as soon as the windows of both allow, @ns at most; for the
 * connection's only such stream. False when the stream ended, or nothing allows it in time.
 */
bool raw_flow(struct raw *raw, uint32_t stream, unsigned flags, const void *bytes, size_t len,
              uint64_t ns);

/* What a stream came to. */
enum {
    RAW_CLOSED = -1, /* the connection ended first, or GOAWAY */
    RAW_SILENT = -2, /* nothing in time */
    RAW_NO_STATUS = -3,
    RAW_RESET = -100, /* less the code of RST_STREAM: -111 is ENHANCE_YOUR_CALM */
};

/* Reads until the stream ends, @ns at most: its grpc-status, or one of the above. */
int raw_status(struct raw *raw, uint32_t stream, uint64_t ns);
/* Whether the peer closes within @ns. What it sends is dropped. */
bool raw_ends(struct raw *raw, uint64_t ns);

/*
 * An Encrypt whose message says that it has @claim bytes, sent as far as it is taken, each frame
 * within @ns. How many bytes were; *ret_status as of raw_status().
 */
size_t raw_claim(struct raw *raw, uint32_t claim, uint64_t ns, int *ret_status);

/* v2.EncryptRequest; the length. @uid may be NULL. */
size_t raw_encrypt_request(uint8_t *out, const void *plaintext, size_t len, const char *uid);

#endif
