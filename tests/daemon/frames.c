/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/daemon/frames.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define ANSWER_NS (20 * KMS_NS_PER_S)
#define ROOM      (KMS_AGENT_FRAME_MAX + KMS_AGENT_HEADER)

int frames_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

bool frames_send_raw(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool frames_send(int fd, const ProtobufCMessage *message)
{
    uint8_t *room = malloc(ROOM);
    struct kms_buf frame = kms_buf_over(room, ROOM);
    struct kms_error err = KMS_ERROR_INIT;
    bool sent = room != NULL && kms_agent_pack(message, &frame, &err) == KMS_OK &&
                frames_send_raw(fd, frame.data, frame.len);

    free(room);
    return sent;
}

static bool receive(int fd, uint8_t *data, size_t len, uint64_t deadline_ns)
{
    while (len > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int ready = poll(&pfd, 1, (int)(kms_deadline_left(deadline_ns) / KMS_NS_PER_MS) + 1);
        ssize_t n = ready > 0 ? recv(fd, data, len, 0) : -1;

        if (n <= 0) {
            return false;
        }
        data += n;
        len -= (size_t)n;
    }
    return true;
}

uint8_t *frames_receive(int fd, uint64_t ns, size_t *ret_len)
{
    uint64_t deadline_ns = kms_deadline_in(ns);
    uint8_t header[KMS_AGENT_HEADER];
    struct kms_error err = KMS_ERROR_INIT;
    uint8_t *body = NULL;

    if (!receive(fd, header, sizeof(header), deadline_ns) ||
        kms_agent_frame_len(header, ret_len, &err) != KMS_OK) {
        return NULL;
    }
    body = malloc(*ret_len);
    if (body != NULL && !receive(fd, body, *ret_len, deadline_ns)) {
        free(body);
        return NULL;
    }
    return body;
}

bool frames_is_closed(int fd, uint64_t ns)
{
    uint64_t deadline_ns = kms_deadline_in(ns);
    uint8_t byte = 0;

    while (!kms_deadline_passed(deadline_ns)) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};

        if (poll(&pfd, 1, (int)(kms_deadline_left(deadline_ns) / KMS_NS_PER_MS) + 1) > 0 &&
            recv(fd, &byte, 1, 0) <= 0) {
            return true;
        }
    }
    return false;
}

static enum kms_status take_reply(struct frames *frames, struct kms_span body)
{
    ProtobufCMessage *message = NULL;

    if (kms_agent_unpack(&kms__agent__reply__descriptor, body, &message, &frames->error) !=
        KMS_OK) {
        return frames->error.status;
    }
    kms_agent_free(frames->reply == NULL ? NULL : &frames->reply->base);
    frames->reply = (Kms__Agent__Reply *)message;
    if (frames->reply->error != NULL) {
        kms_agent_get_error(frames->reply->error, &frames->error);
        return frames->error.status;
    }
    return KMS_OK;
}

/* A Welcome, or a Reply with an error. */
static enum kms_status take_welcome(struct frames *frames, struct kms_span body)
{
    ProtobufCMessage *message = NULL;
    struct kms_error ignored = KMS_ERROR_INIT;
    const Kms__Agent__Welcome *welcome = NULL;

    if (kms_agent_unpack(&kms__agent__welcome__descriptor, body, &message, &ignored) != KMS_OK) {
        return take_reply(frames, body);
    }
    welcome = (const Kms__Agent__Welcome *)message;
    if (welcome->version != KMS_AGENT_VERSION || welcome->instance.len != KMS_AGENT_INSTANCE) {
        kms_agent_free(message);
        return take_reply(frames, body);
    }
    memcpy(frames->instance, welcome->instance.data, KMS_AGENT_INSTANCE);
    kms_agent_free(message);
    return KMS_OK;
}

enum kms_status frames_open(struct frames *frames, const char *path)
{
    Kms__Agent__Hello hello = KMS__AGENT__HELLO__INIT;
    enum kms_status status = KMS_E_UNAVAILABLE;
    uint8_t *body = NULL;
    size_t len = 0;

    *frames = (struct frames){.fd = frames_connect(path)};
    hello.version = KMS_AGENT_VERSION;
    hello.name = kms_agent_put_text("frames");
    if (frames->fd >= 0 && frames_send(frames->fd, &hello.base)) {
        body = frames_receive(frames->fd, ANSWER_NS, &len);
    } else if (frames->fd >= 0) { /* it may have said why it does not want us */
        body = frames_receive(frames->fd, KMS_NS_PER_S, &len);
    }
    if (body != NULL) {
        status = take_welcome(frames, kms_span_of(body, len));
    }
    free(body);
    return status;
}

void frames_close(struct frames *frames)
{
    if (frames->fd >= 0) {
        (void)close(frames->fd);
    }
    kms_agent_free(frames->reply == NULL ? NULL : &frames->reply->base);
    *frames = (struct frames){.fd = -1};
}

enum kms_status frames_call(struct frames *frames, Kms__Agent__Request *request)
{
    enum kms_status status = KMS_E_UNAVAILABLE;
    uint8_t *body = NULL;
    size_t len = 0;

    frames->error = (struct kms_error)KMS_ERROR_INIT;
    request->id = ++frames->id;
    if (request->op_case != KMS__AGENT__REQUEST__OP_LIST_TOKENS && request->token.len == 0) {
        request->token = kms_agent_put_text("hsm");
    }
    if (frames_send(frames->fd, &request->base)) {
        body = frames_receive(frames->fd, ANSWER_NS, &len);
    }
    if (body != NULL) {
        status = take_reply(frames, kms_span_of(body, len));
        if (status == KMS_OK && frames->reply->id != frames->id) {
            status = KMS_E_PROTOCOL;
        }
    }
    free(body);
    return status;
}

/* --- the ops ---------------------------------------------------------------------------------- */

enum kms_status frames_list(struct frames *frames, const char *label)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__ListKeys list = KMS__AGENT__LIST_KEYS__INIT;

    list.label = kms_agent_put_text(label == NULL ? "" : label);
    request.op_case = KMS__AGENT__REQUEST__OP_LIST_KEYS;
    request.list_keys = &list;
    return frames_call(frames, &request);
}

bool frames_find(struct frames *frames, const char *label, char ret_ref[FRAMES_REF])
{
    if (frames_list(frames, label) != KMS_OK || frames->reply->n_keys == 0) {
        return false;
    }
    (void)snprintf(ret_ref, FRAMES_REF, "%.*s", (int)frames->reply->keys[0]->ref.len,
                   (const char *)frames->reply->keys[0]->ref.data);
    return true;
}

enum kms_status frames_generate(struct frames *frames, enum kms_key_type type, const char *label)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__Generate generate = KMS__AGENT__GENERATE__INIT;

    generate.type = (uint32_t)type;
    generate.bits = type == KMS_KEY_RSA ? 2048 : 0;
    generate.label = kms_agent_put_text(label);
    request.op_case = KMS__AGENT__REQUEST__OP_GENERATE;
    request.generate = &generate;
    return frames_call(frames, &request);
}

static enum kms_status key_op(struct frames *frames, Kms__Agent__Request__OpCase op,
                              const char *ref, enum kms_alg alg, struct kms_span input)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__KeyOp message = KMS__AGENT__KEY_OP__INIT;
    Kms__Agent__Params params = KMS__AGENT__PARAMS__INIT;

    params.alg = (uint32_t)alg;
    message.ref = kms_agent_put_text(ref);
    message.params = &params;
    message.input = kms_agent_put_span(input);
    request.op_case = op;
    message.len = op == KMS__AGENT__REQUEST__OP_DATA_KEY ? 32 : 0;
    request.sign = &message;
    return frames_call(frames, &request);
}

enum kms_status frames_data_key(struct frames *frames, const char *ref)
{
    return key_op(frames, KMS__AGENT__REQUEST__OP_DATA_KEY, ref, KMS_ALG_BEST, KMS_SPAN_NONE);
}

enum kms_status frames_encrypt(struct frames *frames, const char *ref, const char *text)
{
    return key_op(frames, KMS__AGENT__REQUEST__OP_ENCRYPT, ref, KMS_ALG_BEST, kms_span_str(text));
}

enum kms_status frames_sign(struct frames *frames, const char *ref, enum kms_alg alg,
                            struct kms_span input)
{
    return key_op(frames, KMS__AGENT__REQUEST__OP_SIGN, ref, alg, input);
}

enum kms_status frames_random(struct frames *frames, uint32_t len)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__Random message = KMS__AGENT__RANDOM__INIT;

    message.len = len;
    request.op_case = KMS__AGENT__REQUEST__OP_RANDOM;
    request.random = &message;
    return frames_call(frames, &request);
}

enum kms_status frames_destroy(struct frames *frames, const char *ref)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__KeyRef message = KMS__AGENT__KEY_REF__INIT;

    message.ref = kms_agent_put_text(ref);
    request.op_case = KMS__AGENT__REQUEST__OP_DESTROY;
    request.destroy = &message;
    return frames_call(frames, &request);
}

enum kms_status frames_set_label(struct frames *frames, const char *ref, const char *label)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__SetLabel message = KMS__AGENT__SET_LABEL__INIT;

    message.ref = kms_agent_put_text(ref);
    message.label = kms_agent_put_text(label);
    request.op_case = KMS__AGENT__REQUEST__OP_SET_LABEL;
    request.set_label = &message;
    return frames_call(frames, &request);
}

enum kms_status frames_login(struct frames *frames, const char *pin)
{
    Kms__Agent__Request request = KMS__AGENT__REQUEST__INIT;
    Kms__Agent__Login message = KMS__AGENT__LOGIN__INIT;

    message.pin = kms_agent_put_text(pin);
    request.op_case = KMS__AGENT__REQUEST__OP_LOGIN;
    request.login = &message;
    return frames_call(frames, &request);
}

int frames_as(uid_t uid, gid_t gid, int (*fn)(void *ctx), void *ctx)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 ||
            setresuid(uid, uid, uid) != 0) {
            _exit(101);
        }
        _exit(fn(ctx));
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}
