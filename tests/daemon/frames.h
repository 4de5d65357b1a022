/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the agent's protocol that does what it is told, also what no client should. One
 * connection, one thread. */
#ifndef KMSBRIDGE_TESTS_DAEMON_FRAMES_H
#define KMSBRIDGE_TESTS_DAEMON_FRAMES_H

#include <sys/types.h>

#include "backend/agent_wire.h"

struct frames {
    int fd;
    uint64_t id;
    Kms__Agent__Reply *reply; /* the last; gone with the next call */
    struct kms_error error;   /* of the last call, ours or the agent's */
    uint8_t instance[KMS_AGENT_INSTANCE];
};

/* Connected, and nothing said. -1. */
int frames_connect(const char *path);
bool frames_send(int fd, const ProtobufCMessage *message);
bool frames_send_raw(int fd, const void *bytes, size_t len);
/* The body of the next frame, malloc()ed; NULL: the connection ended, or @ns passed. */
uint8_t *frames_receive(int fd, uint64_t ns, size_t *ret_len);
/* Whether the agent closes the connection within @ns; what it says before that is passed over. */
bool frames_is_closed(int fd, uint64_t ns);

/* Connects and greets. The agent's error when it refuses: frames_close() also then. */
enum kms_status frames_open(struct frames *frames, const char *path);
void frames_close(struct frames *frames);

/* Fills in the id, sends, waits 20 s for the reply. */
enum kms_status frames_call(struct frames *frames, Kms__Agent__Request *request);

/* --- the ops; token "hsm" ----------------------------------------------------------------------
 */

#define FRAMES_REF KMS_KEY_REF_MAX

enum kms_status frames_list(struct frames *frames, const char *label); /* NULL: all; one page */
/* The ref of the first key of that label; false: it is not shown. */
bool frames_find(struct frames *frames, const char *label, char ret_ref[FRAMES_REF]);
enum kms_status frames_generate(struct frames *frames, enum kms_key_type type, const char *label);
enum kms_status frames_encrypt(struct frames *frames, const char *ref, const char *text);
enum kms_status frames_data_key(struct frames *frames, const char *ref); /* of 32 bytes */
enum kms_status frames_sign(struct frames *frames, const char *ref, enum kms_alg alg,
                            struct kms_span input);
enum kms_status frames_random(struct frames *frames, uint32_t len);
enum kms_status frames_destroy(struct frames *frames, const char *ref);
enum kms_status frames_set_label(struct frames *frames, const char *ref, const char *label);
enum kms_status frames_login(struct frames *frames, const char *pin);

/* Runs @fn as another user in a process of its own; its value, at most 100, -1 when that died. Root
 * only. */
int frames_as(uid_t uid, gid_t gid, int (*fn)(void *ctx), void *ctx);

#endif
