/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent protocol's frames: 4 bytes of length, big-endian, then one protobuf message of
 * backend/agent.proto. No I/O here: bytes in, bytes out, for the client (backend/agent.c), the
 * server (kmsbridge/agent*.c), tests and fuzzers alike.
 *
 * Connection: the client sends Hello, the server Welcome (or a Reply with an error, and closes);
 * then Request and Reply in turn. Whoever receives a frame that is too long, does not parse, or
 * breaks a field's bound closes the connection: there is no resynchronising.
 *
 * Secrets: requests and replies hold plaintexts. Messages are packed into and unpacked from memory
 * that the caller gives (secure where it matters) and wipes; the allocator below wipes what
 * protobuf-c frees.
 */
#ifndef KMS_BACKEND_AGENT_WIRE_H
#define KMS_BACKEND_AGENT_WIRE_H

#include "backend/agent.pb-c.h"
#include "backend/backend.h"

#define KMS_AGENT_VERSION      1
#define KMS_AGENT_SOCKET       "/run/kmsbridge/agent.sock" /* of the system's agent */
#define KMS_AGENT_HEADER       4
#define KMS_AGENT_FRAME_MAX    (128u * 1024u) /* body; a plaintext of 64 KiB and all else fit */
#define KMS_AGENT_KEYS_MAX     32             /* in one reply; more come by pages */
#define KMS_AGENT_TOKENS_MAX   64
#define KMS_AGENT_CERTS_MAX    8
#define KMS_AGENT_CERT_MAX     8192
#define KMS_AGENT_NAME_MAX     64 /* token, program */
#define KMS_AGENT_PIN_MAX      256
#define KMS_AGENT_KEY_TYPE_MAX 255 /* that there may ever be */
#define KMS_AGENT_RANDOM_MAX   4096
#define KMS_AGENT_INSTANCE     16
#define KMS_AGENT_AAD_MAX      1024
#define KMS_AGENT_UNKNOWN_MAX  32    /* fields of one message that we do not know and pass over */
#define KMS_AGENT_KEYS_IN_ALL  65536 /* a list longer than this is refused by the client */

/* How a token wants its user to log in. */
enum kms_agent_login {
    KMS_AGENT_LOGIN_NONE = 0, /* no CKF_LOGIN_REQUIRED */
    KMS_AGENT_LOGIN_ANY = 1,  /* CKF_LOGIN_REQUIRED; whatever PIN is good */
    KMS_AGENT_LOGIN_PIN = 2   /* CKF_LOGIN_REQUIRED; the HSM's own PIN, checked by the agent */
};

/* The body's length, from KMS_AGENT_HEADER bytes. KMS_E_TOO_LARGE above KMS_AGENT_FRAME_MAX,
 * KMS_E_PROTOCOL when it is 0. */
void kms_agent_put_frame_len(uint8_t ret_header[KMS_AGENT_HEADER], size_t len);
enum kms_status kms_agent_frame_len(const uint8_t header[KMS_AGENT_HEADER], size_t *ret_len,
                                    struct kms_error *err) KMS_MUST_CHECK;
/* Header and packed message behind each other, appended to @out. KMS_E_TOO_LARGE when it does not
 * fit. */
enum kms_status kms_agent_pack(const ProtobufCMessage *message, struct kms_buf *out,
                               struct kms_error *err) KMS_MUST_CHECK;

/* One of hello, welcome, request, reply, with every bound checked; KMS_E_PROTOCOL names the field.
 * Freed with kms_agent_free(), which wipes. */
enum kms_status kms_agent_unpack(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                 ProtobufCMessage **ret_message,
                                 struct kms_error *err) KMS_MUST_CHECK;
void kms_agent_free(ProtobufCMessage *message); /* NULL is fine */

/*
 * The two halves of kms_agent_unpack(), for whoever keeps his own memory. The check allocates
 * nothing, and says how many bytes the message will take in an arena; unpacking puts it behind what
 * is in @arena, whose storage is aligned like malloc()'s. KMS_E_TOO_LARGE when it does not fit.
 * There is nothing to free: the message is gone when the arena is wiped.
 */
enum kms_status kms_agent_check(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                size_t *ret_arena, struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_agent_unpack_in(const ProtobufCMessageDescriptor *what, struct kms_span body,
                                    struct kms_buf *arena, ProtobufCMessage **ret_message,
                                    struct kms_error *err) KMS_MUST_CHECK;

/* Between the waist's structs and the messages. To a message: fields point into the struct, which
 * must outlive it. From a message: copied; KMS_E_PROTOCOL when a value is none of ours. */
void kms_agent_put_params(const struct kms_params *params, Kms__Agent__Params *ret_message);
enum kms_status kms_agent_get_params(const Kms__Agent__Params *message,
                                     struct kms_params *ret_params, /* borrows the message */
                                     struct kms_error *err) KMS_MUST_CHECK;
void kms_agent_put_key(const struct kms_key_info *info, Kms__Agent__Key *ret_message,
                       Kms__Agent__AlgSet *ret_algs);
enum kms_status kms_agent_get_key(const Kms__Agent__Key *message, struct kms_key_info *ret_info,
                                  struct kms_error *err) KMS_MUST_CHECK;
void kms_agent_put_error(const struct kms_error *error, Kms__Agent__Error *ret_message);
void kms_agent_get_error(const Kms__Agent__Error *message, struct kms_error *ret_error);
void kms_agent_put_token(const char *name, const struct kms_token_info *info,
                         Kms__Agent__Token *ret_message, Kms__Agent__AlgSet *ret_algs);
enum kms_status kms_agent_get_token(const Kms__Agent__Token *message,
                                    char ret_name[KMS_AGENT_NAME_MAX],
                                    struct kms_token_info *ret_info,
                                    struct kms_error *err) KMS_MUST_CHECK;

/* A C string as a field, and back: KMS_E_PROTOCOL, naming @field, for a NUL in it or more than
 * @size - 1 bytes. */
ProtobufCBinaryData kms_agent_put_text(const char *text);
enum kms_status kms_agent_get_text(const char *field, ProtobufCBinaryData bytes, char *ret_text,
                                   size_t size, struct kms_error *err) KMS_MUST_CHECK;
ProtobufCBinaryData kms_agent_put_span(struct kms_span span);
static inline struct kms_span kms_agent_get_span(ProtobufCBinaryData bytes)
{
    return kms_span_of(bytes.data, bytes.len);
}

#endif
