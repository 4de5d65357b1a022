/* SPDX-License-Identifier: Apache-2.0 */
/* Make, rotate, destroy, and the public half. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/vault_parts.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/log.h"
#include "common/numbers.h"

#define BEHIND_NS     (2 * KMS_NS_PER_S) /* how long a node may take to hear of a change */
#define BEHIND_NAP_NS (10 * KMS_NS_PER_MS)

/* ---- what was made ------------------------------------------------------------------------ */

struct newest {
    struct kms_key_info *info;
    struct kms_span tag; /* looked for among the versions */
    bool has_tag;
    unsigned count;
};

static bool keep_newest(void *ctx, const struct kms_key_info *info)
{
    struct newest *newest = ctx;

    newest->count++;
    newest->has_tag =
        newest->has_tag || kms_span_equal(newest->tag, kms_span_of(info->tag, info->tag_len));
    if (info->latest) {
        *newest->info = *info;
    }
    return true;
}

static void sleep_ns(uint64_t ns)
{
    const struct timespec time = {.tv_sec = (time_t)(ns / KMS_NS_PER_S),
                                  .tv_nsec = (long)(ns % KMS_NS_PER_S)};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static bool is_behind(enum kms_status status, const struct newest *newest, uint64_t least)
{
    uint64_t version = 0;

    return status == KMS_E_NOT_FOUND ||
           (status == KMS_OK && newest->count > 0 &&
            kms_parse_u64(newest->info->version, 1, INT32_MAX, &version) == KMS_OK &&
            version < least);
}

/*
 * After a change that has been made: its newest version is @least, or a newer one. A standby passes
 * changes on to the active node and answers reads by itself, before it has heard of them (OpenBao
 * from 2.5 on, Vault Enterprise): it is asked until it has.
 */
static enum kms_status read_newest(struct kms_backend *backend, struct kms_call *call,
                                   const char *name, uint64_t least, struct newest *newest)
{
    uint64_t until = kms_deadline_in(BEHIND_NS);
    enum kms_status status = kms_vault_read(backend, call, name, keep_newest, newest);

    while (is_behind(status, newest, least) && !kms_deadline_passed(until) &&
           kms_deadline_left(call->deadline_ns) > 2 * BEHIND_NAP_NS) {
        sleep_ns(BEHIND_NAP_NS);
        kms_error_clear(&call->error);
        newest->count = 0;
        status = kms_vault_read(backend, call, name, keep_newest, newest);
    }
    if (is_behind(status, newest, least)) {
        return kms_error_reword(&call->error, KMS_E_UNAVAILABLE,
                                "a standby has not heard of the change of key %s yet", name);
    }
    if (status == KMS_OK && (newest->count == 0 || newest->info->ref[0] == '\0')) {
        status = kms_error_set(&call->error, KMS_E_EXISTS,
                               "there is a key %s of a kind that is not ours", name);
    }
    return status;
}

/* @done is said, lest it is done once more. */
static enum kms_status told_made(struct kms_call *call, enum kms_status status, const char *name,
                                 const char *done)
{
    return status == KMS_OK
               ? KMS_OK
               : kms_error_reword(&call->error, status,
                                  "key %s is %s; only its new version cannot be read: %s", name,
                                  done, call->error.text);
}

/* *ret_latest (NULL is fine): the newest version, where the server tells; 0 where it does not. */
static enum kms_status post(struct kms_backend *backend, struct kms_call *call, const char *name,
                            const char *behind, struct kms_vault_body *body, bool once,
                            uint64_t *ret_latest)
{
    struct kms_json data;
    char path[KMS_VAULT_PATH_MAX];
    struct kms_vault_ask ask = {.method = KMS_HTTP_POST, .path = path, .once = once};
    struct kms_vault_reply reply = {.doc = NULL};
    enum kms_status status = kms_vault_body_end(body, &call->error);

    if (status == KMS_OK) {
        status = kms_vault_path(backend, call, "/keys/", name, behind, path);
    }
    if (status == KMS_OK) {
        ask.body = kms_buf_span(&body->buf);
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    if (status == KMS_OK && ret_latest != NULL &&
        (reply.doc == NULL || kms_json_object(&reply.root, "data", &data, NULL) != KMS_OK ||
         kms_json_u64(&data, "latest_version", 1, INT32_MAX, ret_latest, NULL) != KMS_OK)) {
        *ret_latest = 0;
    }
    kms_vault_reply_done(&reply);
    kms_vault_body_done(body);
    return status;
}

/* ---- generate ----------------------------------------------------------------------------- */

static enum kms_status check_template(struct kms_call *call, const struct kms_key_template *tmpl,
                                      const struct kms_vault_type **ret_type)
{
    const struct kms_vault_type *type = kms_vault_type_for(tmpl->type, tmpl->bits);

    if (type == NULL && kms_vault_type_for(tmpl->type, 0) == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "Transit makes no %s keys",
                             kms_key_type_name(tmpl->type));
    }
    if (type == NULL) {
        return kms_error_set(&call->error, KMS_E_INVALID, "Transit makes no %s key of %u bits",
                             kms_key_type_name(tmpl->type), tmpl->bits);
    }
    if (tmpl->label == NULL || !kms_vault_name_is_valid(tmpl->label)) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "a Transit key's name has letters, digits and _, and - or . between "
                             "them");
    }
    if ((tmpl->uses & ~(type->seal_uses | type->open_uses)) != 0) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "a Transit key of type %s is not for that", type->name);
    }
    *ret_type = type;
    return KMS_OK;
}

static enum kms_status make_key(struct kms_backend *backend, struct kms_call *call,
                                const struct kms_vault_type *type, const char *name, unsigned bits)
{
    struct kms_vault_body body;
    enum kms_status status = kms_vault_body_begin(&body, 64, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    kms_json_put_text(&body.json, "type", type->name);
    if (type->bits == 0) { /* HMAC */
        kms_json_put_u64(&body.json, "key_size", (bits == 0 ? 256 : bits) / 8);
    }
    return post(backend, call, name, "", &body, true, NULL);
}

static enum kms_status rotate_key(struct kms_backend *backend, struct kms_call *call,
                                  const char *name, uint64_t *ret_latest)
{
    struct kms_vault_body body;
    enum kms_status status = kms_vault_body_begin(&body, 0, &call->error);

    return status == KMS_OK ? post(backend, call, name, "/rotate", &body, true, ret_latest)
                            : status;
}

static enum kms_status allow_deletion(struct kms_backend *backend, struct kms_call *call,
                                      const char *name)
{
    struct kms_vault_body body;
    enum kms_status status = kms_vault_body_begin(&body, 0, &call->error);

    if (status == KMS_OK) {
        kms_json_put_bool(&body.json, "deletion_allowed", true);
        status = post(backend, call, name, "/config", &body, false, NULL);
    }
    return status;
}

static enum kms_status delete_name(struct kms_backend *backend, struct kms_call *call,
                                   const char *name)
{
    char path[KMS_VAULT_PATH_MAX];
    const struct kms_vault_ask ask = {.method = KMS_HTTP_DELETE, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    enum kms_status status = kms_vault_path(backend, call, "/keys/", name, "", path);

    if (status == KMS_OK) {
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    kms_vault_reply_done(&reply);
    return status;
}

/* It is made deletable once the key's own bound is all that is in the way: the policy says no
 * first.
 */
static enum kms_status destroy_name(struct kms_backend *backend, struct kms_call *call,
                                    const char *name)
{
    enum kms_status status = delete_name(backend, call, name);

    if (status == KMS_E_DENIED && strstr(call->error.text, "deletion is not allowed") != NULL) {
        kms_error_clear(&call->error);
        status = allow_deletion(backend, call, name);
        if (status == KMS_OK) {
            status = delete_name(backend, call, name);
        }
    }
    if ((status == KMS_OK || status == KMS_E_NOT_FOUND) &&
        kms_vault_table_replace(&backend->table, name, NULL, 0, NULL) != KMS_OK) {
        return KMS_E_INTERNAL;
    }
    return status;
}

/* ---- a key that we destroyed comes back under the same name --------------------------------- */

static void note_gone(struct kms_backend *backend, const char *id)
{
    pthread_mutex_lock(&backend->lock);
    (void)snprintf(backend->gone[backend->gone_count++ % KMS_VAULT_GONE_MAX], KMS_KEY_ID_MAX, "%s",
                   id);
    pthread_mutex_unlock(&backend->lock);
}

static bool is_gone(struct kms_backend *backend, const char *id)
{
    bool found = false;

    pthread_mutex_lock(&backend->lock);
    for (size_t i = 0; !found && i < KMS_VAULT_GONE_MAX; i++) {
        found = strcmp(backend->gone[i], id) == 0;
    }
    pthread_mutex_unlock(&backend->lock);
    return found;
}

/*
 * Transit keeps a symmetric key's creation time in seconds. One that is made in the very second in
 * which we destroyed its namesake would get its identity: it goes, unused, and is made once more.
 */
static enum kms_status make_another(struct kms_backend *backend, struct kms_call *call,
                                    const struct kms_vault_type *type, const char *name,
                                    unsigned bits, struct newest *newest)
{
    enum kms_status status = make_key(backend, call, type, name, bits);

    if (status == KMS_OK) {
        status = told_made(call, read_newest(backend, call, name, 1, newest), name, "made");
    }
    if (status != KMS_OK || !is_gone(backend, newest->info->id)) {
        return status;
    }
    status = destroy_name(backend, call, name);
    if (status == KMS_OK && kms_deadline_left(call->deadline_ns) < KMS_NS_PER_S) {
        status = kms_error_set(&call->error, KMS_E_TIMEOUT,
                               "its namesake was destroyed in this very second: try again");
    }
    if (status == KMS_OK) {
        sleep_ns(KMS_NS_PER_S);
        status = make_key(backend, call, type, name, bits);
    }
    return status == KMS_OK
               ? told_made(call, read_newest(backend, call, name, 1, newest), name, "made")
               : status;
}

static enum kms_status check_kind(struct kms_call *call, const struct kms_key_template *tmpl,
                                  const struct kms_vault_type *type,
                                  const struct kms_key_info *info)
{
    if (info->type == type->type && (tmpl->bits == 0 || info->bits == tmpl->bits)) {
        return KMS_OK;
    }
    return kms_error_set(&call->error, KMS_E_EXISTS, "there is a key %s of another type (%s-%u)",
                         tmpl->label, kms_key_type_name(info->type), info->bits);
}

static enum kms_status refuse_tag(struct kms_call *call)
{
    return kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                         "a Transit key's CKA_ID follows from its version: leave it out");
}

/* A label that is there already gets a newer version, as other backends give it a newer key. */
static enum kms_status make_newer(struct kms_backend *backend, struct kms_call *call,
                                  const struct kms_key_template *tmpl,
                                  const struct kms_vault_type *type, struct newest *newest)
{
    uint64_t latest = 0;

    if (tmpl->tag.len > 0) {
        return newest->has_tag
                   ? kms_error_set(&call->error, KMS_E_EXISTS, "there is a key with that CKA_ID")
                   : refuse_tag(call);
    }
    if (check_kind(call, tmpl, type, newest->info) != KMS_OK) {
        return call->error.status;
    }
    newest->count = 0;
    if (rotate_key(backend, call, tmpl->label, &latest) != KMS_OK) {
        return call->error.status;
    }
    return told_made(call, read_newest(backend, call, tmpl->label, latest, newest), tmpl->label,
                     "rotated");
}

/* One that somebody else makes meanwhile is left as it is by Transit, without a word. */
static enum kms_status make_first(struct kms_backend *backend, struct kms_call *call,
                                  const struct kms_key_template *tmpl,
                                  const struct kms_vault_type *type, struct newest *newest)
{
    enum kms_status status = KMS_OK;

    if (tmpl->tag.len > 0) {
        return refuse_tag(call);
    }
    status = make_another(backend, call, type, tmpl->label, tmpl->bits, newest);
    return status == KMS_OK ? check_kind(call, tmpl, type, newest->info) : status;
}

enum kms_status kms_vault_generate(struct kms_backend *backend, struct kms_call *call,
                                   const struct kms_key_template *tmpl,
                                   struct kms_key_info *ret_info)
{
    const struct kms_vault_type *type = NULL;
    struct kms_key_info *info = calloc(1, sizeof(*info));
    struct newest newest = {.info = info, .tag = tmpl->tag};
    enum kms_status status = info == NULL
                                 ? kms_error_set(&call->error, KMS_E_NOMEM, "no memory for a key")
                                 : check_template(call, tmpl, &type);

    if (status == KMS_OK) {
        status = kms_vault_read(backend, call, tmpl->label, keep_newest, &newest);
        if (status == KMS_OK && newest.count == 0) {
            status = kms_error_set(&call->error, KMS_E_EXISTS,
                                   "there is a key %s of a kind that is not ours", tmpl->label);
        } else if (status == KMS_OK) {
            status = make_newer(backend, call, tmpl, type, &newest);
        } else if (status == KMS_E_NOT_FOUND && strstr(call->error.text, "no handler") == NULL) {
            kms_error_clear(&call->error);
            status = make_first(backend, call, tmpl, type, &newest);
        }
    }
    if (status == KMS_OK) {
        *ret_info = *info;
    }
    free(info);
    return status;
}

/* ---- rotate and destroy ------------------------------------------------------------------- */

enum kms_status kms_vault_rotate(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, struct kms_key_info *ret_info)
{
    struct kms_key_info *info = calloc(1, sizeof(*info));
    struct newest newest = {.info = info};
    struct kms_vault_key key;
    uint64_t latest = 0;
    enum kms_status status = info == NULL
                                 ? kms_error_set(&call->error, KMS_E_NOMEM, "no memory for a key")
                                 : kms_vault_find(backend, call, ref, KMS_ALG_NONE, 0, &key);

    if (status == KMS_OK) {
        status = rotate_key(backend, call, key.name, &latest);
    }
    if (status == KMS_OK) {
        status = told_made(call, read_newest(backend, call, key.name, latest, &newest), key.name,
                           "rotated");
    }
    if (status == KMS_OK) {
        *ret_info = *info;
    }
    free(info);
    return status;
}

/*
 * Transit deletes a key with all of its versions; what others opened must not go with the one that
 * is named.
 */
enum kms_status kms_vault_destroy(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref)
{
    struct kms_key_info *info = calloc(1, sizeof(*info));
    struct newest newest = {.info = info};
    struct kms_vault_key key;
    enum kms_status status = KMS_OK;

    if (info == NULL) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no memory for a key");
    }
    status = kms_vault_find(backend, call, ref, KMS_ALG_NONE, 0, &key);
    if (status == KMS_OK && !kms_text_equal(backend->vault->allow_destroy, "true")) {
        status = kms_error_set(&call->error, KMS_E_DENIED,
                               "keys are not destroyed through here unless vault.allow_destroy is "
                               "true");
    }
    if (status == KMS_OK) {
        status = kms_vault_read(backend, call, key.name, keep_newest, &newest);
    }
    if (status == KMS_OK &&
        (newest.count != 1 || info->version[0] != '1' || info->version[1] != '\0')) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED,
                               "key %s has had other versions, and Transit deletes all or none: "
                               "raise min_decryption_version and trim instead, or delete it there",
                               key.name);
    }
    if (status == KMS_OK && strcmp(info->id, key.id) != 0) {
        status =
            kms_error_set(&call->error, KMS_E_NOT_FOUND, "key %s is another one now", key.name);
    }
    free(info);
    if (status == KMS_OK) {
        status = destroy_name(backend, call, key.name);
    }
    if (status == KMS_OK) {
        note_gone(backend, key.id);
    }
    return status;
}

/* ---- public key --------------------------------------------------------------------------- */

/* RFC 7468, as Go writes it; appended to @ret as DER. */
static bool from_pem(const char *pem, struct kms_buf *ret)
{
    static const char head[] = "-----BEGIN PUBLIC KEY-----";
    static const char tail[] = "-----END PUBLIC KEY-----";
    char text[2 * KMS_PUBLIC_KEY_MAX];
    const char *end = strstr(pem, tail);
    size_t len = 0;

    if (strncmp(pem, head, sizeof(head) - 1) != 0 || end == NULL) {
        return false;
    }
    for (const char *at = pem + sizeof(head) - 1; at < end; at++) {
        if (*at == '\n' || *at == '\r') {
            continue;
        }
        if (len == sizeof(text)) {
            return false;
        }
        text[len++] = *at;
    }
    return len > 0 && kms_base64_decode(kms_span_of(text, len), ret) == KMS_OK;
}

/* The bare 32 bytes of an Ed25519 key behind the head of its SubjectPublicKeyInfo (RFC 8410). */
static bool from_ed25519(const char *text, struct kms_buf *ret)
{
    static const uint8_t head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                   0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
    size_t start = ret->len + sizeof(head);

    return kms_buf_put(ret, kms_span_of(head, sizeof(head))) == KMS_OK &&
           kms_base64_decode(kms_span_str(text), ret) == KMS_OK && ret->len == start + 32;
}

static enum kms_status take_public(struct kms_call *call, const struct kms_vault_key *key,
                                   const struct kms_vault_reply *reply, struct kms_buf *ret_spki)
{
    uint8_t der[KMS_PUBLIC_KEY_MAX];
    struct kms_buf spki = KMS_BUF_OVER(der);
    struct kms_json data;
    struct kms_json versions;
    struct kms_json version;
    char number[24];
    const char *text = NULL;
    enum kms_status status = kms_vault_data(reply, &data, &call->error);

    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)key->version);
    if (status == KMS_OK) {
        status = kms_json_object(&data, "keys", &versions, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_json_object(&versions, number, &version, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_json_text(&version, "public_key", 2 * KMS_PUBLIC_KEY_MAX, &text, &call->error);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (!(key->type->type == KMS_KEY_EDDSA ? from_ed25519(text, &spki) : from_pem(text, &spki))) {
        return kms_error_set(&call->error, KMS_E_PROTOCOL, "the public key of %s cannot be read",
                             key->name);
    }
    return kms_buf_put(ret_spki, kms_buf_span(&spki)) == KMS_OK
               ? KMS_OK
               : kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "a public key of %zu bytes has no room", spki.len);
}

enum kms_status kms_vault_public_key(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref, struct kms_buf *ret_spki)
{
    char path[KMS_VAULT_PATH_MAX];
    const struct kms_vault_ask ask = {.method = KMS_HTTP_GET, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_vault_key key;
    enum kms_status status = kms_vault_find(backend, call, ref, KMS_ALG_NONE, 0, &key);

    if (status == KMS_OK && (key.type->type == KMS_KEY_AES || key.type->type == KMS_KEY_GENERIC ||
                             key.type->type == KMS_KEY_CHACHA20)) {
        status = kms_error_set(&call->error, KMS_E_UNSUPPORTED, "key %s (%s) has no public half",
                               key.name, key.type->name);
    }
    if (status == KMS_OK) {
        status = kms_vault_path(backend, call, "/keys/", key.name, "", path);
    }
    if (status == KMS_OK) {
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        status = take_public(call, &key, &reply, ret_spki);
    }
    kms_vault_reply_done(&reply);
    return status;
}
