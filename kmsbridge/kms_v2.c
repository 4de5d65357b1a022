/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kms_v2.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/codec.h"
#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/envelope.h"
#include "kmsbridge/kms_v2.pb-c.h"

/* --- what a client reads: never more than this ---------------------------------------------------
 */

static const struct {
    enum kms_status status;
    const char *text;
} generic[] = {
    {KMS_E_BAD_DATA, "ciphertext cannot be opened: altered, truncated or not made by this plugin"},
    {KMS_E_AUTH, "the key service refuses this plugin's credential; see the plugin's log"},
    {KMS_E_DENIED, "the key service's policy denies this; see the plugin's log"},
    {KMS_E_KEY_STATE, "the key is not in a usable state; see the plugin's log"},
    {KMS_E_THROTTLED, "the key service asks for fewer requests"},
    {KMS_E_UNAVAILABLE, "the key service is unavailable; see the plugin's log"},
    {KMS_E_TIMEOUT, "the key service did not answer in time"},
    {KMS_E_CANCELLED, "cancelled"},
    {KMS_E_BUSY, "the plugin is at its limit of concurrent work"},
    {KMS_E_UNSUPPORTED, "the key cannot do this; see the plugin's log"},
    {KMS_E_NOT_FOUND, "the KEK was not found; see the plugin's log"},
    {KMS_E_TOO_LARGE, "the plaintext is too long for this key"},
};

static const char *generic_text(enum kms_status status)
{
    for (size_t i = 0; i < sizeof generic / sizeof generic[0]; i++) {
        if (generic[i].status == status) {
            return generic[i].text;
        }
    }
    return "internal error; see the plugin's log";
}

static void answer_error(struct kms_rpc_reply *reply, enum kms_status status, const char *text)
{
    reply->status = status;
    reply->message.len = 0;
    snprintf(reply->detail, sizeof reply->detail, "%.*s", KMS_RPC_DETAIL_MAX - 1, text);
}

/* What the key service or the keyring says stays in our log; the client gets the class. */
static void fail(struct kms_rpc_reply *reply, const struct kms_error *error)
{
    /* an argument that is wrong down there is our mistake, not the client's */
    enum kms_status status = error->status == KMS_E_INVALID ? KMS_E_INTERNAL : error->status;
    answer_error(reply, status, generic_text(status));
}

static void log_failure(const char *method, const char *uid, const struct kms_error *error)
{
    const struct kms_log_field fields[] = {
        {"method", method},
        {"uid", uid},
        {"class", kms_status_name(error->status)},
        {"code", error->code[0] != '\0' ? error->code : NULL},
        {"request_id", error->request_id[0] != '\0' ? error->request_id : NULL},
    };
    kms_log_fields(error->status == KMS_E_CANCELLED ? KMS_LOG_DEBUG : KMS_LOG_WARN, fields, 5,
                   "kms: %s failed: %s", method, error->text);
}

static void refuse(struct kms_rpc_reply *reply, const char *method, const char *uid,
                   enum kms_status status, const char *fmt, ...) KMS_PRINTF(5, 6);
static void refuse(struct kms_rpc_reply *reply, const char *method, const char *uid,
                   enum kms_status status, const char *fmt, ...)
{
    struct kms_error error = {.status = status};
    va_list args;
    va_start(args, fmt);
    vsnprintf(error.text, sizeof error.text, fmt, args);
    va_end(args);
    log_failure(method, uid, &error);
    answer_error(reply, status, error.text); /* holds nothing but what the client sent */
}

/* --- protobuf: everything from the call's arena --- */

static void *arena_alloc(void *arena, size_t size)
{
    return kms_rpc_arena_alloc(arena, size);
}

static void arena_free(void *arena, void *ptr)
{
    (void)arena;
    (void)ptr;
}

static ProtobufCAllocator arena_allocator(struct kms_rpc_request *request)
{
    return (ProtobufCAllocator){
        .alloc = arena_alloc, .free = arena_free, .allocator_data = request->arena};
}

static struct kms_span bytes_of(ProtobufCBinaryData data)
{
    return kms_span_of(data.data, data.len);
}

static bool text_ok(struct kms_span text, size_t max)
{
    return text.len > 0 && text.len <= max && kms_utf8_valid(text);
}

/* A copy in the arena with a NUL behind it, for logs and messages. */
static const char *arena_text(struct kms_rpc_request *request, struct kms_span text)
{
    char *copy = kms_rpc_arena_alloc(request->arena, text.len + 1);
    if (copy != NULL) {
        memcpy(copy, text.data, text.len);
        copy[text.len] = '\0';
    }
    return copy;
}

/* What parse hands to run; all of it lies in the arena or in the message. */
struct parsed {
    const char *uid;
    struct kms_span key_id;
    struct kms_span data; /* plaintext or ciphertext */
};

/* NULL and reply->status set when the uid will not do; a broken one is not repeated into the log.
 */
static struct parsed *parsed_new(struct kms_rpc_request *request, struct kms_span uid,
                                 const char *method, struct kms_rpc_reply *reply)
{
    if (!text_ok(uid, KMS_V2_UID_MAX)) {
        refuse(reply, method, NULL, KMS_E_INVALID, "uid must be UTF-8 of 1 to %d bytes",
               KMS_V2_UID_MAX);
        return NULL;
    }
    struct parsed *parsed = kms_rpc_arena_alloc(request->arena, sizeof *parsed);
    const char *text = arena_text(request, uid);
    if (parsed == NULL || text == NULL) {
        refuse(reply, method, NULL, KMS_E_NOMEM, "no memory for the request");
        return NULL;
    }
    *parsed = (struct parsed){.uid = text};
    return parsed;
}

void kms_v2_parse_encrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    (void)ctx;
    ProtobufCAllocator allocator = arena_allocator(request);
    V2__EncryptRequest *msg =
        v2__encrypt_request__unpack(&allocator, request->message.len, request->message.data);
    if (msg == NULL) {
        refuse(reply, "Encrypt", NULL, KMS_E_INVALID, "request is not a v2.EncryptRequest");
        return;
    }
    struct parsed *parsed = parsed_new(request, bytes_of(msg->uid), "Encrypt", reply);
    if (parsed == NULL) {
        return;
    }
    if (msg->plaintext.len == 0 || msg->plaintext.len > KMS_ENVELOPE_PLAINTEXT_MAX) {
        refuse(reply, "Encrypt", parsed->uid, KMS_E_INVALID,
               "plaintext must have 1 to %d bytes, not %zu", KMS_ENVELOPE_PLAINTEXT_MAX,
               msg->plaintext.len);
        return;
    }
    parsed->data = bytes_of(msg->plaintext);
    request->parsed = parsed;
}

/* IsFullyQualifiedDomainName of k8s.io/apimachinery: labels of [a-z0-9-], two at least, no '/'. */
static bool is_fqdn(struct kms_span span)
{
    const char *text = (const char *)span.data;
    size_t len = span.len;
    if (len > 0 && text[len - 1] == '.') {
        len--;
    }
    if (len == 0 || len > KMS_V2_ANNOTATION_KEY_MAX) {
        return false;
    }
    size_t labels = 1;
    size_t label_len = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (c == '.') {
            if (label_len == 0 || text[i - 1] == '-') {
                return false;
            }
            labels++;
            label_len = 0;
        } else if (alnum || (c == '-' && label_len > 0)) {
            if (++label_len > 63) {
                return false;
            }
        } else {
            return false;
        }
    }
    return labels >= 2 && label_len > 0 && text[len - 1] != '-';
}

/* The API's limits first, then ours: this version writes no annotation, so every one is foreign. */
static bool check_annotations(const V2__DecryptRequest *msg, const char *uid,
                              struct kms_rpc_reply *reply)
{
    size_t total = 0;
    for (size_t i = 0; i < msg->n_annotations; i++) {
        total += msg->annotations[i]->key.len + msg->annotations[i]->value.len;
        if (!is_fqdn(bytes_of(msg->annotations[i]->key))) {
            refuse(reply, "Decrypt", uid, KMS_E_INVALID,
                   "annotation key is not a fully qualified domain name");
            return false;
        }
    }
    if (total > KMS_V2_ANNOTATIONS_MAX) {
        refuse(reply, "Decrypt", uid, KMS_E_INVALID, "annotations have over %d bytes",
               KMS_V2_ANNOTATIONS_MAX);
        return false;
    }
    if (msg->n_annotations != 0) {
        refuse(reply, "Decrypt", uid, KMS_E_INVALID,
               "annotation %.*s was not written by this plugin", (int)msg->annotations[0]->key.len,
               (const char *)msg->annotations[0]->key.data);
        return false;
    }
    return true;
}

void kms_v2_parse_decrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    (void)ctx;
    ProtobufCAllocator allocator = arena_allocator(request);
    V2__DecryptRequest *msg =
        v2__decrypt_request__unpack(&allocator, request->message.len, request->message.data);
    if (msg == NULL) {
        refuse(reply, "Decrypt", NULL, KMS_E_INVALID, "request is not a v2.DecryptRequest");
        return;
    }
    struct parsed *parsed = parsed_new(request, bytes_of(msg->uid), "Decrypt", reply);
    if (parsed == NULL) {
        return;
    }
    parsed->key_id = bytes_of(msg->key_id);
    parsed->data = bytes_of(msg->ciphertext);
    if (!text_ok(parsed->key_id, KMS_V2_KEY_ID_MAX)) {
        refuse(reply, "Decrypt", parsed->uid, KMS_E_INVALID,
               "key_id must be UTF-8 of 1 to %d bytes", KMS_V2_KEY_ID_MAX);
        return;
    }
    if (parsed->data.len == 0 || parsed->data.len > KMS_V2_CIPHERTEXT_MAX) {
        refuse(reply, "Decrypt", parsed->uid, KMS_E_INVALID,
               "ciphertext must have 1 to %d bytes, not %zu", KMS_V2_CIPHERTEXT_MAX,
               parsed->data.len);
        return;
    }
    if (check_annotations(msg, parsed->uid, reply)) {
        request->parsed = parsed;
    }
}

/* --- running -------------------------------------------------------------------------------------
 */

static void finish(struct kms_rpc_reply *reply, size_t packed, size_t expected)
{
    if (packed != expected) {
        reply->status = KMS_E_INTERNAL;
        snprintf(reply->detail, sizeof reply->detail, "%s", generic_text(KMS_E_INTERNAL));
        return;
    }
    reply->message.len = packed;
    reply->status = KMS_OK;
}

static void log_done(const char *method, const char *uid, const char *key_id)
{
    if (kms_log_enabled(KMS_LOG_DEBUG)) {
        const struct kms_log_field fields[] = {
            {"method", method}, {"uid", uid}, {"key_id", key_id}};
        kms_log_fields(KMS_LOG_DEBUG, fields, 3, "kms: %s done", method);
    }
}

/* The peer is not known here: gRPC has the connection, and only kms.allow_uids come in. */
static enum kms_status audit(const struct kms_v2 *kms, const struct kms_kek *kek, enum kms_op op,
                             struct kms_span key_id, uint64_t began_ns, enum kms_status verdict,
                             struct kms_call *call)
{
    char key[KMS_KEY_ID_MAX];
    const struct kms_audit_record record = {.front = "kms_v2",
                                            .token = kek->conf->kms.backend,
                                            .key_id = key,
                                            .op = kms_op_name(op),
                                            .verdict = verdict,
                                            .request_id = call->error.request_id,
                                            .trace_id = call->trace_id,
                                            .duration_ns = kms_now_ns() - began_ns};
    snprintf(key, sizeof key, "%.*s", (int)key_id.len, (const char *)key_id.data);
    return kms_audit_write(kms->audit, &record, &call->error);
}

static void encrypt_with(const struct kms_v2 *kms, struct kms_kek *kek,
                         struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    const struct parsed *msg = request->parsed;
    struct kms_call call = {
        .deadline_ns = request->deadline_ns, .cancelled = request->cancelled, .trace_id = msg->uid};
    const uint64_t began_ns = kms_now_ns();
    char key_id[KMS_KEY_ID_MAX] = "";
    struct kms_buf envelope = reply->scratch;
    envelope.cap = envelope.cap < KMS_ENVELOPE_MAX ? envelope.cap : KMS_ENVELOPE_MAX;

    enum kms_status status = kms_audit_ready(kms->audit, &call.error);
    if (status == KMS_OK) {
        status = kms_keyring_encrypt(kek->ring, &call, msg->data, &envelope, key_id);
        kms_healthd_note(kek->health, KMS_OP_ENCRYPT, status);
    }
    enum kms_status written =
        audit(kms, kek, KMS_OP_ENCRYPT, kms_span_str(key_id), began_ns, status, &call);
    status = status == KMS_OK ? written : status;
    if (status != KMS_OK) {
        log_failure("Encrypt", msg->uid, &call.error);
        fail(reply, &call.error);
        return;
    }
    V2__EncryptResponse answer;
    v2__encrypt_response__init(&answer);
    answer.ciphertext = (ProtobufCBinaryData){.len = envelope.len, .data = envelope.data};
    answer.key_id = key_id;
    size_t size = v2__encrypt_response__get_packed_size(&answer);
    finish(reply,
           size <= reply->message.cap ? v2__encrypt_response__pack(&answer, reply->message.data)
                                      : 0,
           size);
    log_done("Encrypt", msg->uid, key_id);
}

static void run_encrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    struct kms_v2 *kms = ctx;
    struct kms_kek *kek = kms_keks_get(kms->keks);
    encrypt_with(kms, kek, request, reply);
    kms_kek_put(kek);
}

/* A good Decrypt is a proof of the key that made it: of the active KEK only if that was it. */
static void note_decrypt(struct kms_kek *kek, const struct parsed *msg, enum kms_status status)
{
    char active[KMS_KEY_ID_MAX];
    if (status != KMS_OK || (kms_keyring_active(kek->ring, active) == KMS_OK &&
                             kms_span_equal(kms_span_str(active), msg->key_id))) {
        kms_healthd_note(kek->health, KMS_OP_DECRYPT, status);
    }
}

static void decrypt_with(const struct kms_v2 *kms, struct kms_kek *kek,
                         struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    const struct parsed *msg = request->parsed;
    struct kms_call call = {
        .deadline_ns = request->deadline_ns, .cancelled = request->cancelled, .trace_id = msg->uid};
    const uint64_t began_ns = kms_now_ns();
    struct kms_buf plaintext = reply->scratch;

    enum kms_status status = kms_audit_ready(kms->audit, &call.error);
    if (status == KMS_OK) {
        status = kms_keyring_decrypt(kek->ring, &call, msg->key_id, msg->data, &plaintext);
        note_decrypt(kek, msg, status);
    }
    enum kms_status written = audit(kms, kek, KMS_OP_DECRYPT, msg->key_id, began_ns, status, &call);
    status = status == KMS_OK ? written : status;
    if (status != KMS_OK) {
        log_failure("Decrypt", msg->uid, &call.error);
        if (status == KMS_E_NOT_FOUND) { /* names the key_id that the client sent */
            answer_error(reply, status, call.error.text);
        } else {
            fail(reply, &call.error);
        }
        return;
    }
    V2__DecryptResponse answer;
    v2__decrypt_response__init(&answer);
    answer.plaintext = (ProtobufCBinaryData){.len = plaintext.len, .data = plaintext.data};
    size_t size = v2__decrypt_response__get_packed_size(&answer);
    finish(reply,
           size <= reply->message.cap ? v2__decrypt_response__pack(&answer, reply->message.data)
                                      : 0,
           size);
    log_done("Decrypt", msg->uid, NULL);
}

static void run_decrypt(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    struct kms_v2 *kms = ctx;
    struct kms_kek *kek = kms_keks_get(kms->keks);
    decrypt_with(kms, kek, request, reply);
    kms_kek_put(kek);
}

/* Two Decrypts are the same when key_id and ciphertext are (annotations there are none), and no
 * reload lies between them. */
static bool same_decrypt(void *ctx, const struct kms_rpc_request *request,
                         uint8_t ret_same[KMS_RPC_SAME_LEN])
{
    struct kms_v2 *kms = ctx;
    const struct parsed *msg = request->parsed;
    const uint64_t number = kms_keks_number(kms->keks);
    uint8_t text[sizeof number + 2 + KMS_V2_KEY_ID_MAX + KMS_V2_CIPHERTEXT_MAX];
    struct kms_buf buf = KMS_BUF_OVER(text);
    return kms_buf_put(&buf, kms_span_of(&number, sizeof number)) == KMS_OK &&
           kms_buf_put_be16(&buf, (uint16_t)msg->key_id.len) == KMS_OK &&
           kms_buf_put(&buf, msg->key_id) == KMS_OK && kms_buf_put(&buf, msg->data) == KMS_OK &&
           EVP_Digest(buf.data, buf.len, ret_same, NULL, EVP_sha256(), NULL) == 1;
}

/*
 * From memory. A bad KEK is an error by default: the API server then stops writing 3 minutes after
 * the last good Status. With keep-writing it is an unhealthy healthz beside the key_id, which the
 * API server reports but goes on writing with (kubernetes#138950).
 */
static void run_status(void *ctx, struct kms_rpc_request *request, struct kms_rpc_reply *reply)
{
    (void)request;
    struct kms_v2 *kms = ctx;
    struct kms_kek *kek = kms_keks_get(kms->keks);
    struct kms_verdict verdict;
    char key_id[KMS_KEY_ID_MAX] = "";
    char healthz[KMS_RPC_DETAIL_MAX] = "ok";
    /* first, so that a ring that comes after it is not blamed */
    kms_healthd_verdict(kek->health, &verdict);
    enum kms_status active = kms_keyring_active(kek->ring, key_id);
    kms_kek_put(kek);
    bool have_id = active != KMS_E_NOT_FOUND;
    bool good = verdict.known && verdict.good && active == KMS_OK;
    if (!good) { /* says why where the verdict does not: not yet known, or lost since */
        enum kms_status why = verdict.known && have_id ? KMS_E_KEY_STATE : KMS_E_UNAVAILABLE;
        kms_error_set(&verdict.error, why, "the KEK is not known to be good");
    }
    if (!good) {
        if (atomic_load(&kms->on_failure) == KMS_STOP_WRITING || !have_id) {
            fail(reply, &verdict.error);
            return;
        }
        snprintf(healthz, sizeof healthz, "unhealthy: %s", generic_text(verdict.error.status));
    }
    char version[16]; /* protobuf-c takes char * */
    V2__StatusResponse answer;
    v2__status_response__init(&answer);
    snprintf(version, sizeof version, "%s", atomic_load(&kms->api_version));
    answer.version = version;
    answer.healthz = healthz;
    answer.key_id = key_id;
    size_t size = v2__status_response__get_packed_size(&answer);
    finish(reply,
           size <= reply->message.cap ? v2__status_response__pack(&answer, reply->message.data) : 0,
           size);
}

void kms_v2_observe(void *ctx, int method_id, int grpc_code, uint64_t ns, enum kms_rpc_place place)
{
    struct kms_v2 *kms = ctx;
    struct kms_metrics *m = kms->metrics;
    atomic_uint_fast64_t *const places[] = {[KMS_RPC_ON_POLLER] = &m->ran_inline,
                                            [KMS_RPC_ON_WORKER] = &m->ran_on_worker,
                                            [KMS_RPC_COALESCED] = &m->coalesced_decrypts,
                                            [KMS_RPC_REFUSED] = &m->calls_refused};
    kms_metrics_call(m, (enum kms_method)method_id, grpc_code, ns);
    if (method_id != KMS_METHOD_STATUS) {
        atomic_fetch_add_explicit(places[place], 1, memory_order_relaxed);
    }
}

const struct kms_rpc_method kms_v2_methods[] = {
    {.path = "/v2.KeyManagementService/Status",
     .id = KMS_METHOD_STATUS,
     .instant = true,
     .run = run_status},
    {.path = "/v2.KeyManagementService/Encrypt",
     .id = KMS_METHOD_ENCRYPT,
     .secret_request = true,
     .parse = kms_v2_parse_encrypt,
     .run = run_encrypt},
    {.path = "/v2.KeyManagementService/Decrypt",
     .id = KMS_METHOD_DECRYPT,
     .secret_reply = true,
     .parse = kms_v2_parse_decrypt,
     .run = run_decrypt,
     .same = same_decrypt},
    {.path = NULL},
};
