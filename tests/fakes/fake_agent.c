/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_agent.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 256 /* in its life */
#define PAGE        8
#define OPS         32

struct fake_agent {
    char path[108];
    int listener;
    pthread_t acceptor;
    uint8_t instance[KMS_AGENT_INSTANCE];
    pthread_t threads[CONNECTIONS];
    atomic_int sockets[CONNECTIONS]; /* -1: closed */
    atomic_uint connections;
    atomic_uint accepted; /* the same, before the client can hear from one: for assertions */
    atomic_uint requests[OPS];
    atomic_uint keys;
    atomic_uint idle;
    atomic_bool stopping;
    pthread_mutex_t lock; /* guards what follows */
    enum fake_fault fault;
    unsigned fault_count;
    unsigned fault_value;
};

struct peer {
    struct fake_agent *fake;
    unsigned number;
    int fd;
};

/* What the next request (or hello) meets. */
static enum fake_fault take_fault(struct fake_agent *fake, bool hello, unsigned *ret_value)
{
    enum fake_fault fault = FAKE_NONE;

    (void)pthread_mutex_lock(&fake->lock);
    if (fake->fault_count > 0 && (fake->fault > FAKE_HELLO_FIRST) == hello) {
        fake->fault_count--;
        fault = fake->fault;
        *ret_value = fake->fault_value;
    }
    (void)pthread_mutex_unlock(&fake->lock);
    return fault;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static bool write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

        if (sent <= 0) {
            return false;
        }
        bytes += sent;
        len -= (size_t)sent;
    }
    return true;
}

static bool read_all(int fd, uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t got = recv(fd, bytes, len, 0);

        if (got <= 0) {
            return false;
        }
        bytes += got;
        len -= (size_t)got;
    }
    return true;
}

static bool send_message(int fd, const ProtobufCMessage *message)
{
    struct kms_buf frame = kms_buf_over(malloc(KMS_AGENT_HEADER + KMS_AGENT_FRAME_MAX),
                                        KMS_AGENT_HEADER + KMS_AGENT_FRAME_MAX);
    bool good = frame.data != NULL && kms_agent_pack(message, &frame, NULL) == KMS_OK &&
                write_all(fd, frame.data, frame.len);

    free(frame.data);
    return good;
}

static ProtobufCMessage *read_message(int fd, const ProtobufCMessageDescriptor *what)
{
    uint8_t header[KMS_AGENT_HEADER];
    ProtobufCMessage *message = NULL;
    uint8_t *body = NULL;
    size_t len = 0;

    if (!read_all(fd, header, sizeof(header)) ||
        kms_agent_frame_len(header, &len, NULL) != KMS_OK) {
        return NULL;
    }
    body = malloc(len);
    if (body != NULL && read_all(fd, body, len) &&
        kms_agent_unpack(what, kms_span_of(body, len), &message, NULL) != KMS_OK) {
        message = NULL;
    }
    free(body);
    return message;
}

/* ---- hello ---------------------------------------------------------------------------------- */

static bool refuse(int fd, enum kms_status status)
{
    struct kms_error error = {.status = status, .text = "told to"};
    Kms__Agent__Reply reply = KMS__AGENT__REPLY__INIT;
    Kms__Agent__Error message;

    kms_agent_put_error(&error, &message);
    reply.error = &message;
    (void)send_message(fd, &reply.base);
    return false;
}

static bool greet(struct peer *peer)
{
    struct fake_agent *fake = peer->fake;
    Kms__Agent__Welcome welcome = KMS__AGENT__WELCOME__INIT;
    ProtobufCMessage *hello = read_message(peer->fd, &kms__agent__hello__descriptor);
    unsigned value = 0;

    if (hello == NULL) {
        return false;
    }
    kms_agent_free(hello);
    welcome.version = KMS_AGENT_VERSION;
    welcome.plaintext_max = KMS_PLAINTEXT_MAX;
    welcome.idle_seconds = atomic_load(&fake->idle);
    welcome.instance = (ProtobufCBinaryData){.len = sizeof(fake->instance), .data = fake->instance};
    switch (take_fault(fake, true, &value)) {
    case FAKE_HELLO_DENIED:
        return refuse(peer->fd, KMS_E_DENIED);
    case FAKE_HELLO_BUSY:
        return refuse(peer->fd, KMS_E_BUSY);
    case FAKE_HELLO_HANG_UP:
        return false;
    case FAKE_HELLO_GARBAGE:
        return write_all(peer->fd, (const uint8_t *)"\0\0\0\3abc", 7);
    case FAKE_HELLO_SILENT:
        return true;
    case FAKE_HELLO_VERSION:
        welcome.version = KMS_AGENT_VERSION + 1;
        break;
    case FAKE_HELLO_INSTANCE:
        welcome.instance.len = 3;
        break;
    default:
        break;
    }
    return send_message(peer->fd, &welcome.base);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void make_key(unsigned number, struct kms_key_info *ret_info)
{
    *ret_info = (struct kms_key_info){.type = KMS_KEY_AES,
                                      .bits = 256,
                                      .uses = KMS_USE_ENCRYPT | KMS_USE_DECRYPT,
                                      .never_extractable = true,
                                      .seal = KMS_ALG_AES_GCM,
                                      .latest = true};
    (void)snprintf(ret_info->ref, sizeof(ret_info->ref), "key-%u", number);
    (void)snprintf(ret_info->id, sizeof(ret_info->id), "id-%u", number);
    (void)snprintf(ret_info->label, sizeof(ret_info->label), "label-%u", number % 2);
    ret_info->tag[0] = (uint8_t)number;
    ret_info->tag_len = 1;
    kms_alg_set_add(&ret_info->algs, KMS_ALG_AES_GCM);
}

/* All that a reply may point to. */
struct answer {
    Kms__Agent__Reply reply;
    Kms__Agent__Error error;
    Kms__Agent__Token token;
    Kms__Agent__AlgSet algs[PAGE];
    Kms__Agent__Token *tokens[1];
    Kms__Agent__Key key[PAGE];
    Kms__Agent__Key *keys[PAGE];
    struct kms_key_info info[PAGE];
    ProtobufCBinaryData certificates[2];
    uint8_t output[KMS_CIPHERTEXT_MAX];
};

static bool matches(ProtobufCBinaryData wanted, struct kms_span has)
{
    return wanted.len == 0 || kms_span_equal(kms_agent_get_span(wanted), has);
}

static void add_key(struct answer *answer, unsigned number)
{
    static char chain[2][8] = {"leaf", "root"};
    size_t n = answer->reply.n_keys++;

    make_key(number, &answer->info[n]);
    kms_agent_put_key(&answer->info[n], &answer->key[n], &answer->algs[n]);
    for (size_t i = 0; i < 2; i++) {
        answer->certificates[i] = kms_agent_put_text(chain[i]);
    }
    answer->key[n].spki = kms_agent_put_text("spki");
    answer->key[n].certificates = answer->certificates;
    answer->key[n].n_certificates = number == 0 ? 2 : 0;
    answer->keys[n] = &answer->key[n];
    answer->reply.keys = answer->keys;
}

static void list_keys(struct fake_agent *fake, const Kms__Agent__ListKeys *list,
                      struct answer *answer)
{
    char after[KMS_KEY_REF_MAX] = "";
    unsigned number = 0;

    if (kms_agent_get_text("after", list->after, after, sizeof(after), NULL) == KMS_OK &&
        after[0] != '\0') {
        number = (unsigned)strtoul(after + 4, NULL, 10) + 1;
    }
    for (; number < atomic_load(&fake->keys); number++) {
        struct kms_key_info info;

        make_key(number, &info);
        if (!matches(list->tag, kms_span_of(info.tag, info.tag_len)) ||
            !matches(list->label, kms_span_str(info.label))) {
            continue;
        }
        if (answer->reply.n_keys == PAGE) {
            answer->reply.more = true;
            return;
        }
        add_key(answer, number);
    }
}

static void list_tokens(struct answer *answer)
{
    static const struct kms_token_info info = {.label = "fake token",
                                               .manufacturer = "tests",
                                               .model = "fake",
                                               .serial = "1",
                                               .random = true,
                                               .algs = {.bits = {2, 1}},
                                               .generates = 1u << KMS_KEY_AES};

    kms_agent_put_token("fake", &info, &answer->token, &answer->algs[0]);
    answer->token.login = KMS_AGENT_LOGIN_PIN;
    answer->token.present = true;
    answer->token.keys_ttl_ms = 1500;
    answer->tokens[0] = &answer->token;
    answer->reply.tokens = answer->tokens;
    answer->reply.n_tokens = 1;
}

static void fail(struct answer *answer, enum kms_status status, const char *text)
{
    struct kms_error error = {.status = status, .code = "CKR_FAKE", .request_id = "r-1"};

    (void)snprintf(error.text, sizeof(error.text), "%s", text);
    kms_agent_put_error(&error, &answer->error);
    /* what lives here must outlive us */
    answer->error.code = kms_agent_put_text("CKR_FAKE");
    answer->error.request_id = kms_agent_put_text("r-1");
    answer->error.text = kms_agent_put_text(text);
    answer->reply.error = &answer->error;
}

static void put_output(struct answer *answer, const char *before, ProtobufCBinaryData input,
                       uint8_t flip)
{
    size_t at = strlen(before);

    memcpy(answer->output, before, at);
    for (size_t i = 0; i < input.len && at < sizeof(answer->output); i++) {
        answer->output[at++] = input.data[i] ^ flip;
    }
    answer->reply.output = (ProtobufCBinaryData){.len = at, .data = answer->output};
}

static void seal(struct answer *answer, const Kms__Agent__KeyOp *op)
{
    static char iv[] = "twelve bytes";

    put_output(answer, "", op->input, 0xff);
    answer->reply.iv = kms_agent_put_text(iv);
    answer->reply.alg = KMS_ALG_AES_GCM;
    answer->reply.key_id = kms_agent_put_text("id-0");
}

static void data_key(struct answer *answer, const Kms__Agent__KeyOp *op)
{
    static uint8_t key[KMS_DATA_KEY_MAX];

    memset(key, 0x5d, sizeof(key));
    answer->reply.key = (ProtobufCBinaryData){.len = op->len, .data = key};
    seal(answer, &(Kms__Agent__KeyOp){.input = answer->reply.key});
}

static void verify(struct answer *answer, const Kms__Agent__KeyOp *op)
{
    put_output(answer, "signed:", op->input, 0);
    if (!kms_span_equal(kms_agent_get_span(answer->reply.output),
                        kms_agent_get_span(op->signature))) {
        fail(answer, KMS_E_BAD_DATA, "not signed so");
    }
    answer->reply.output.len = 0;
}

static void do_random(struct answer *answer, size_t len)
{
    (void)!getrandom(answer->output, len, 0);
    answer->reply.output = (ProtobufCBinaryData){.len = len, .data = answer->output};
}

static void serve(struct fake_agent *fake, const Kms__Agent__Request *request,
                  struct answer *answer)
{
    switch (request->op_case) {
    case KMS__AGENT__REQUEST__OP_LIST_TOKENS:
        list_tokens(answer);
        break;
    case KMS__AGENT__REQUEST__OP_LIST_KEYS:
        list_keys(fake, request->list_keys, answer);
        break;
    case KMS__AGENT__REQUEST__OP_GENERATE:
        add_key(answer, atomic_load(&fake->keys));
        break;
    case KMS__AGENT__REQUEST__OP_DESTROY:
        if (atomic_fetch_add(&fake->requests[0], 1) > 0) {
            fail(answer, KMS_E_NOT_FOUND, "it is gone");
        }
        break;
    case KMS__AGENT__REQUEST__OP_PUBLIC_KEY:
        put_output(answer, "spki", (ProtobufCBinaryData){0, NULL}, 0);
        break;
    case KMS__AGENT__REQUEST__OP_ENCRYPT:
    case KMS__AGENT__REQUEST__OP_WRAP:
        seal(answer, request->encrypt);
        break;
    case KMS__AGENT__REQUEST__OP_DATA_KEY:
        data_key(answer, request->data_key);
        break;
    case KMS__AGENT__REQUEST__OP_DECRYPT:
    case KMS__AGENT__REQUEST__OP_UNWRAP:
        put_output(answer, "", request->decrypt->input, 0xff);
        break;
    case KMS__AGENT__REQUEST__OP_SIGN:
    case KMS__AGENT__REQUEST__OP_MAC:
        put_output(answer, "signed:", request->sign->input, 0);
        break;
    case KMS__AGENT__REQUEST__OP_VERIFY:
        verify(answer, request->verify);
        break;
    case KMS__AGENT__REQUEST__OP_RANDOM:
        do_random(answer, request->random->len);
        break;
    case KMS__AGENT__REQUEST__OP_SET_LABEL:
        break;
    case KMS__AGENT__REQUEST__OP_LOGIN:
        if (!kms_span_equal(kms_agent_get_span(request->login->pin), kms_span_str("1234"))) {
            fail(answer, KMS_E_AUTH, "another PIN");
        }
        break;
    default:
        fail(answer, KMS_E_INVALID, "no operation");
    }
}

/* ---- replies -------------------------------------------------------------------------------- */

static void bad_output(struct answer *answer)
{
    answer->reply.output = (ProtobufCBinaryData){.len = 60000, .data = answer->output};
    answer->reply.key_id.len = 0;
    answer->reply.key.len -= answer->reply.key.len > 16 ? 1 : 0;
    answer->reply.n_keys = 0;
    answer->reply.more = true;
}

/* The whole reply but for the fault's damage. */
static bool send_damaged(int fd, const Kms__Agent__Reply *reply, enum fake_fault fault)
{
    uint8_t storage[1024];
    struct kms_buf frame = KMS_BUF_OVER(storage);

    if (kms_agent_pack(&reply->base, &frame, NULL) != KMS_OK) {
        return false;
    }
    switch (fault) {
    case FAKE_DRIP:
        for (size_t i = 0; i < frame.len; i++) {
            (void)poll(NULL, 0, 1);
            if (!write_all(fd, frame.data + i, 1)) {
                return false;
            }
        }
        return true;
    case FAKE_CUT_HEADER:
        (void)write_all(fd, frame.data, 2);
        return false;
    case FAKE_CUT_BODY:
        (void)write_all(fd, frame.data, frame.len - 1);
        return false;
    case FAKE_MORE:
        frame.data[frame.len++] = 0;
        return write_all(fd, frame.data, frame.len);
    case FAKE_EMPTY:
        return write_all(fd, (const uint8_t *)"\0\0\0\0", 4);
    case FAKE_HUGE:
        return write_all(fd, (const uint8_t *)"\xff\xff\xff\xff", 4);
    default: /* FAKE_GARBAGE */
        return write_all(fd, (const uint8_t *)"\0\0\0\4\xff\xff\xff\xff", 8);
    }
}

static bool answer_request(struct peer *peer, const Kms__Agent__Request *request,
                           struct answer *answer)
{
    unsigned value = 0;
    enum fake_fault fault = take_fault(peer->fake, false, &value);

    if (fault == FAKE_ERROR) {
        fail(answer, (enum kms_status)value, "told to");
    } else {
        serve(peer->fake, request, answer);
    }
    answer->reply.id = request->id;
    switch (fault) {
    case FAKE_NONE:
    case FAKE_ERROR:
        break;
    case FAKE_SLOW:
        (void)poll(NULL, 0, (int)value);
        break;
    case FAKE_SILENT:
        return true;
    case FAKE_HANG_UP:
        return false;
    case FAKE_WRONG_ID:
        answer->reply.id++;
        break;
    case FAKE_NO_ERROR:
        kms__agent__error__init(&answer->error);
        answer->reply.error = &answer->error;
        break;
    case FAKE_BAD_OUTPUT:
        bad_output(answer);
        break;
    case FAKE_LATER_KEYS:
        if (answer->reply.n_keys > 0) {
            answer->reply.keys[answer->reply.n_keys - 1]->type = KMS_AGENT_KEY_TYPE_MAX;
        }
        break;
    default:
        return send_damaged(peer->fd, &answer->reply, fault);
    }
    return send_message(peer->fd, &answer->reply.base);
}

static bool not_read(struct fake_agent *fake)
{
    bool hit;

    (void)pthread_mutex_lock(&fake->lock);
    hit = fake->fault == FAKE_NOT_READ && fake->fault_count > 0;
    fake->fault_count -= hit ? 1 : 0;
    (void)pthread_mutex_unlock(&fake->lock);
    return hit;
}

static bool converse(struct peer *peer)
{
    Kms__Agent__Request *request;
    struct answer *answer;
    uint8_t first;
    bool good;

    if (recv(peer->fd, &first, 1, MSG_PEEK) <= 0) {
        return false;
    }
    if (not_read(peer->fake)) {
        (void)read_all(peer->fd, &first, 1);
        return false;
    }
    request = (Kms__Agent__Request *)read_message(peer->fd, &kms__agent__request__descriptor);
    if (request == NULL) {
        return false;
    }
    (void)atomic_fetch_add(&peer->fake->requests[request->op_case % OPS], 1);
    answer = calloc(1, sizeof(*answer));
    if (answer != NULL) {
        kms__agent__reply__init(&answer->reply);
    }
    good = answer != NULL && answer_request(peer, request, answer);
    free(answer);
    kms_agent_free(&request->base);
    return good;
}

/* ---- threads -------------------------------------------------------------------------------- */

static void *serve_peer(void *arg)
{
    struct peer peer = *(struct peer *)arg;

    free(arg);
    if (greet(&peer)) {
        while (converse(&peer)) {
        }
    }
    /* under the lock, so that fake_agent_stop() shuts no other descriptor down */
    (void)pthread_mutex_lock(&peer.fake->lock);
    atomic_store(&peer.fake->sockets[peer.number], -1);
    (void)close(peer.fd);
    (void)pthread_mutex_unlock(&peer.fake->lock);
    return NULL;
}

static void *accept_peers(void *arg)
{
    struct fake_agent *fake = arg;

    for (;;) {
        int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
        unsigned number = atomic_load(&fake->connections);
        struct peer *peer = NULL;

        if (fd < 0 && (errno == EMFILE || errno == EINTR || errno == ECONNABORTED)) {
            (void)poll(NULL, 0, 1);
            if (!atomic_load(&fake->stopping)) {
                continue;
            }
        }
        if (fd < 0 || atomic_load(&fake->stopping) || number == CONNECTIONS) {
            if (fd >= 0) {
                (void)close(fd);
            }
            return NULL;
        }
        peer = calloc(1, sizeof(*peer));
        if (peer == NULL) {
            abort();
        }
        *peer = (struct peer){.fake = fake, .number = number, .fd = fd};
        atomic_store(&fake->sockets[number], fd);
        atomic_store(&fake->accepted, number + 1);
        if (pthread_create(&fake->threads[number], NULL, serve_peer, peer) != 0) {
            abort();
        }
        atomic_store(&fake->connections, number + 1);
    }
}

struct fake_agent *fake_agent_start(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct fake_agent *fake = calloc(1, sizeof(*fake));

    if (fake == NULL || strlen(path) >= sizeof(address.sun_path)) {
        free(fake);
        return NULL;
    }
    (void)snprintf(fake->path, sizeof(fake->path), "%s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)!getrandom(fake->instance, sizeof(fake->instance), 0);
    atomic_init(&fake->keys, 3);
    atomic_init(&fake->idle, 60);
    for (size_t i = 0; i < CONNECTIONS; i++) {
        atomic_init(&fake->sockets[i], -1);
    }
    (void)pthread_mutex_init(&fake->lock, NULL);
    (void)unlink(path);
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fake->listener < 0 ||
        bind(fake->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fake->listener, 64) != 0 ||
        pthread_create(&fake->acceptor, NULL, accept_peers, fake) != 0) {
        (void)close(fake->listener);
        free(fake);
        return NULL;
    }
    return fake;
}

void fake_agent_stop(struct fake_agent *fake)
{
    unsigned count;

    if (fake == NULL) {
        return;
    }
    (void)unlink(fake->path);
    atomic_store(&fake->stopping, true);
    (void)shutdown(fake->listener, SHUT_RDWR);
    (void)pthread_join(fake->acceptor, NULL);
    (void)close(fake->listener);
    count = atomic_load(&fake->connections);
    (void)pthread_mutex_lock(&fake->lock);
    for (unsigned i = 0; i < count; i++) {
        int fd = atomic_load(&fake->sockets[i]);

        if (fd >= 0) {
            (void)shutdown(fd, SHUT_RDWR);
        }
    }
    (void)pthread_mutex_unlock(&fake->lock);
    for (unsigned i = 0; i < count; i++) {
        (void)pthread_join(fake->threads[i], NULL);
    }
    (void)pthread_mutex_destroy(&fake->lock);
    free(fake);
}

/* ---- what tests say and ask ------------------------------------------------------------------ */

void fake_agent_fault(struct fake_agent *fake, enum fake_fault fault, unsigned count,
                      unsigned value)
{
    (void)pthread_mutex_lock(&fake->lock);
    fake->fault = fault;
    fake->fault_count = count;
    fake->fault_value = value;
    (void)pthread_mutex_unlock(&fake->lock);
}

void fake_agent_keys(struct fake_agent *fake, unsigned count)
{
    atomic_store(&fake->keys, count);
}

void fake_agent_idle(struct fake_agent *fake, unsigned seconds)
{
    atomic_store(&fake->idle, seconds);
}

unsigned fake_agent_requests(struct fake_agent *fake, Kms__Agent__Request__OpCase op)
{
    return atomic_load(&fake->requests[op % OPS]);
}

unsigned fake_agent_connections(struct fake_agent *fake)
{
    return atomic_load(&fake->accepted);
}

unsigned fake_agent_open(struct fake_agent *fake)
{
    unsigned open = 0;

    for (unsigned i = 0; i < CONNECTIONS; i++) {
        open += atomic_load(&fake->sockets[i]) >= 0 ? 1 : 0;
    }
    return open;
}
