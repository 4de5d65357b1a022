/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent may send: any bytes over a socket, read by the client as one frame, with a Welcome
 * or a Reply in it. Refused, or keys, tokens and errors that keep every bound of the waist.
 */
#include "backend/agent_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void use_keys(const Kms__Agent__Reply *reply)
{
    struct kms_key_info info;

    for (size_t i = 0; i < reply->n_keys; i++) {
        if (kms_agent_get_key(reply->keys[i], &info, NULL) == KMS_OK) {
            demand(info.ref[0] != '\0' && strlen(info.ref) == reply->keys[i]->ref.len);
            demand(info.tag_len <= sizeof(info.tag) && (unsigned)info.type < KMS_KEY_TYPE_COUNT);
        }
        demand(reply->keys[i]->n_certificates <= KMS_AGENT_CERTS_MAX);
    }
}

static void use_reply(const Kms__Agent__Reply *reply)
{
    struct kms_token_info token;
    char name[KMS_AGENT_NAME_MAX];

    use_keys(reply);
    demand(reply->key.len <= KMS_DATA_KEY_MAX);
    demand(reply->n_keys <= KMS_AGENT_KEYS_MAX && reply->n_tokens <= KMS_AGENT_TOKENS_MAX);
    for (size_t i = 0; i < reply->n_tokens; i++) {
        if (kms_agent_get_token(reply->tokens[i], name, &token, NULL) == KMS_OK) {
            demand(name[0] != '\0' && strlen(name) < sizeof(name));
        }
    }
    if (reply->error != NULL) {
        struct kms_error error = KMS_ERROR_INIT;

        kms_agent_get_error(reply->error, &error);
        demand(error.status < KMS_STATUS_COUNT && strlen(error.text) < sizeof(error.text));
        demand(strchr(error.text, '\n') == NULL && strchr(error.code, '\n') == NULL);
    }
}

static void use_body(struct kms_agent_conn *conn, struct kms_span body)
{
    static const ProtobufCMessageDescriptor *const all[] = {&kms__agent__reply__descriptor,
                                                            &kms__agent__welcome__descriptor};

    for (size_t i = 0; i < 2; i++) {
        ProtobufCMessage *message = NULL;
        size_t need = 0;

        conn->arena.len = 0;
        if (kms_agent_check(all[i], body, &need, NULL) == KMS_OK) {
            demand(kms_agent_conn_reserve(&conn->arena, need, NULL) == KMS_OK);
            demand(kms_agent_unpack_in(all[i], body, &conn->arena, &message, NULL) == KMS_OK);
            if (i == 0) {
                use_reply((const Kms__Agent__Reply *)message);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct kms_agent_pool pool;
    static bool ready;
    const struct kms_agent_wait wait = {.deadline_ns = kms_deadline_in(KMS_NS_PER_S)};
    struct kms_agent_conn *conn = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_span body;
    int ends[2];
    int error;

    if (!ready) {
        demand(kms_secure_init() == KMS_OK && kms_agent_pool_init(&pool, 1) == KMS_OK);
        ready = true;
    }
    if (size > KMS_AGENT_HEADER + KMS_AGENT_FRAME_MAX) {
        return 0;
    }
    demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    demand(send(ends[1], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size);
    (void)close(ends[1]);
    demand(kms_agent_pool_take(&pool, &wait, &conn, NULL) == KMS_OK);
    conn->fd = ends[0];
    error = kms_agent_recv_frame(conn, 0, &wait, &body, &err);
    if (error == 0) {
        demand(body.len + KMS_AGENT_HEADER == size);
        use_body(conn, body);
    } else {
        demand(error == KMS_AGENT_EOF || (error == EBADMSG && err.text[0] != '\0'));
    }
    conn->fd = -1;
    (void)close(ends[0]);
    /* given back as good, without a descriptor: the next input finds its memory */
    kms_agent_pool_give(&pool, conn, true);
    return 0;
}
