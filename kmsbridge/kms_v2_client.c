/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/kms_v2_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codec.h"
#include "common/secure.h"
#include "kmsbridge/kms_v2.pb-c.h"
#include "kmsbridge/kms_v2_client_call.h"

enum kms_status kms_v2_client_status(struct kms_v2_client *client, uint64_t deadline_ns,
                                     struct kms_v2_status *ret_status, struct kms_error *err)
{
    V2__StatusRequest request;
    ProtobufCMessage *message = NULL;
    const V2__StatusResponse *reply;
    void *storage = NULL;
    enum kms_status status;

    v2__status_request__init(&request);
    status = kms_v2_client_call(client, "Status", deadline_ns, &request.base,
                                &v2__status_response__descriptor, &message, &storage, err);
    if (status != KMS_OK) {
        return status;
    }
    reply = (const V2__StatusResponse *)message;
    if (strlen(reply->version) >= sizeof(ret_status->version) ||
        strlen(reply->healthz) >= sizeof(ret_status->healthz) ||
        strlen(reply->key_id) >= sizeof(ret_status->key_id)) {
        status = kms_error_set(err, KMS_E_PROTOCOL, "Status answers longer texts than KMS v2 has");
        goto out;
    }
    snprintf(ret_status->version, sizeof(ret_status->version), "%s", reply->version);
    snprintf(ret_status->healthz, sizeof(ret_status->healthz), "%s", reply->healthz);
    snprintf(ret_status->key_id, sizeof(ret_status->key_id), "%s", reply->key_id);
out:
    kms_secure_free(storage);
    return status;
}

/* protobuf-c declares what it only reads as non-const. */
static uint8_t *read_only_bytes(const uint8_t *bytes)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } same = {.in = bytes};

    return same.out;
}

static ProtobufCBinaryData binary(struct kms_span span)
{
    return (ProtobufCBinaryData){.len = span.len, .data = read_only_bytes(span.data)};
}

/* Makes a bytes field that is text into a C string; what is none is refused. */
static enum kms_status take_text(const ProtobufCBinaryData *field, char **ret_text,
                                 struct kms_error *err)
{
    char *text;

    if (!kms_utf8_valid(kms_span_of(field->data, field->len))) {
        return kms_error_set(err, KMS_E_PROTOCOL, "Encrypt answers an annotation that is no text");
    }
    text = strndup((const char *)field->data, field->len);
    if (text == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    *ret_text = text;
    return KMS_OK;
}

/* @reply lies in @sealed->storage; only the annotations' names need memory of their own. */
static enum kms_status take_sealed(const V2__EncryptResponse *reply, struct kms_v2_sealed *sealed,
                                   struct kms_error *err)
{
    size_t i;

    sealed->ciphertext = kms_span_of(reply->ciphertext.data, reply->ciphertext.len);
    sealed->key_id = reply->key_id;
    sealed->annotations = calloc(reply->n_annotations + 1, sizeof(*sealed->annotations));
    if (sealed->annotations == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    for (i = 0; i < reply->n_annotations; i++) {
        const V2__Annotation *entry = reply->annotations[i];
        struct kms_v2_annotation *item = &sealed->annotations[i];
        enum kms_status status = take_text(&entry->key, &item->key, err);

        if (status != KMS_OK) {
            return status;
        }
        item->value = kms_span_of(entry->value.data, entry->value.len);
        sealed->annotation_count++;
    }
    return KMS_OK;
}

enum kms_status kms_v2_client_encrypt(struct kms_v2_client *client, uint64_t deadline_ns,
                                      const char *uid, struct kms_span plaintext,
                                      struct kms_v2_sealed *ret_sealed, struct kms_error *err)
{
    V2__EncryptRequest request;
    ProtobufCMessage *message = NULL;
    struct kms_v2_sealed sealed = {0};
    enum kms_status status;

    v2__encrypt_request__init(&request);
    request.plaintext = binary(plaintext);
    request.uid = binary(kms_span_str(uid));
    status = kms_v2_client_call(client, "Encrypt", deadline_ns, &request.base,
                                &v2__encrypt_response__descriptor, &message, &sealed.storage, err);
    if (status != KMS_OK) {
        return status;
    }
    status = take_sealed((const V2__EncryptResponse *)message, &sealed, err);
    if (status != KMS_OK) {
        kms_v2_sealed_done(&sealed);
        return status;
    }
    *ret_sealed = sealed;
    return KMS_OK;
}

void kms_v2_sealed_done(struct kms_v2_sealed *sealed)
{
    size_t i;

    for (i = 0; i < sealed->annotation_count; i++) {
        free(sealed->annotations[i].key);
    }
    free(sealed->annotations);
    kms_secure_free(sealed->storage);
    *sealed = (struct kms_v2_sealed){0};
}

/* The annotations as protobuf-c wants them; the entries follow the pointers in one allocation. */
static V2__Annotation **entries_new(const struct kms_v2_sealed *sealed)
{
    size_t count = sealed->annotation_count;
    V2__Annotation **list = calloc(count + 1, sizeof(V2__Annotation *) + sizeof(V2__Annotation));
    V2__Annotation *entries;
    size_t i;

    if (list == NULL) {
        return NULL;
    }
    entries = (V2__Annotation *)(void *)(list + count + 1);
    for (i = 0; i < count; i++) {
        v2__annotation__init(&entries[i]);
        entries[i].key = binary(kms_span_str(sealed->annotations[i].key));
        entries[i].value = binary(sealed->annotations[i].value);
        list[i] = &entries[i];
    }
    return list;
}

enum kms_status kms_v2_client_decrypt(struct kms_v2_client *client, uint64_t deadline_ns,
                                      const char *uid, const struct kms_v2_sealed *sealed,
                                      struct kms_buf *ret_plaintext, struct kms_error *err)
{
    V2__DecryptRequest request;
    ProtobufCMessage *message = NULL;
    const V2__DecryptResponse *reply;
    void *storage = NULL;
    enum kms_status status;

    v2__decrypt_request__init(&request);
    request.ciphertext = binary(sealed->ciphertext);
    request.uid = binary(kms_span_str(uid));
    request.key_id = binary(kms_span_str(sealed->key_id));
    request.n_annotations = sealed->annotation_count;
    request.annotations = entries_new(sealed);
    if (request.annotations == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    status = kms_v2_client_call(client, "Decrypt", deadline_ns, &request.base,
                                &v2__decrypt_response__descriptor, &message, &storage, err);
    free(request.annotations);
    if (status != KMS_OK) {
        return status;
    }
    reply = (const V2__DecryptResponse *)message;
    status = kms_buf_put(ret_plaintext, kms_span_of(reply->plaintext.data, reply->plaintext.len));
    if (status != KMS_OK) {
        status = kms_error_set(err, status, "the plaintext is larger than there is room for");
    }
    kms_secure_free(storage);
    return status;
}

enum kms_status kms_v2_uid_make(char ret_uid[KMS_V2_UID_SIZE], struct kms_error *err)
{
    uint8_t b[16];

    if (kms_random(b, sizeof(b)) != KMS_OK) {
        return kms_error_set(err, KMS_E_UNAVAILABLE, "the kernel gives no random bytes");
    }
    b[6] = (uint8_t)(0x40u | (b[6] & 0x0fu)); /* version 4 */
    b[8] = (uint8_t)(0x80u | (b[8] & 0x3fu)); /* variant 10 */
    snprintf(ret_uid, KMS_V2_UID_SIZE,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return KMS_OK;
}
