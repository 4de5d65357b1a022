/* SPDX-License-Identifier: Apache-2.0 */
/* Listing, and reading a key by its name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/codec.h"
#include "common/log.h"

/* Transit's rule for names: word characters, and dots and dashes between them. */
bool kms_vault_name_is_valid(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len >= KMS_VAULT_NAME_MAX || strchr("-.", name[0]) != NULL ||
        strchr("-.", name[len - 1]) != NULL) {
        return false;
    }
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == len;
}

/* ---- one key ------------------------------------------------------------------------------ */

/* What came of reading a key, besides its versions. */
struct walk {
    bool stop;     /* @visit has seen enough */
    bool is_other; /* the key is none of ours: KMS_E_UNSUPPORTED */
};

/* Puts the versions of @name into the table, then shows them to @visit. */
static enum kms_status publish(struct kms_backend *backend, struct kms_call *call, const char *name,
                               const struct kms_vault_read *read, kms_key_visit visit, void *ctx,
                               struct walk *walk)
{
    struct kms_key_info *infos = calloc(read->count + 1, sizeof(*infos));
    struct kms_vault_key *keys = calloc(read->count + 1, sizeof(*keys));
    enum kms_status status = KMS_OK;

    if (infos == NULL || keys == NULL) {
        status = kms_error_set(&call->error, KMS_E_NOMEM, "no memory for a key's versions");
    }
    for (size_t i = 0; status == KMS_OK && i < read->count; i++) {
        status = kms_vault_describe_key(backend, name, read, i, &infos[i], &keys[i], &call->error);
    }
    if (status == KMS_OK) {
        status = kms_vault_table_replace(&backend->table, name, keys, read->count, &call->error);
    }
    for (size_t i = 0; status == KMS_OK && visit != NULL && !walk->stop && i < read->count; i++) {
        walk->stop = !visit(ctx, &infos[i]);
    }
    free(infos);
    free(keys);
    return status;
}

static enum kms_status take_key(struct kms_backend *backend, struct kms_call *call,
                                const char *name, const struct kms_vault_reply *reply,
                                kms_key_visit visit, void *ctx, struct walk *walk)
{
    struct kms_vault_read read = {.versions = NULL};
    bool is_other = false;
    struct kms_json data;
    enum kms_status status = kms_vault_data(reply, &data, &call->error);

    if (status == KMS_OK) {
        status = kms_vault_parse_key(&data, &read, &call->error);
    }
    is_other = read.type == NULL || read.derived;
    read.count = is_other ? 0 : read.count;
    if (status == KMS_OK) {
        status = kms_vault_take_marks(backend, call, name, &read);
    }
    if (status == KMS_OK) {
        status = publish(backend, call, name, &read, visit, ctx, walk);
    }
    if (status == KMS_OK && is_other) {
        walk->is_other = true;
        status = kms_error_reword(&call->error, KMS_E_UNSUPPORTED,
                                  "key %s is of type %s%s, which this backend does not use", name,
                                  read.type_name, read.derived ? ", derived" : "");
    }
    kms_vault_read_done(&read);
    return status;
}

static void note_read(struct kms_backend *backend, const char *name)
{
    pthread_mutex_lock(&backend->lock);
    (void)snprintf(backend->last_read, sizeof(backend->last_read), "%s", name);
    pthread_mutex_unlock(&backend->lock);
}

static enum kms_status read_key(struct kms_backend *backend, struct kms_call *call,
                                const char *name, kms_key_visit visit, void *ctx, struct walk *walk)
{
    char path[KMS_VAULT_PATH_MAX];
    const struct kms_vault_ask ask = {.method = KMS_HTTP_GET, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    enum kms_status status = kms_vault_path(backend, call, "/keys/", name, "", path);

    if (status == KMS_OK) {
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    if (status == KMS_OK) {
        note_read(backend, name);
        status = take_key(backend, call, name, &reply, visit, ctx, walk);
    } else if (status == KMS_E_NOT_FOUND &&
               kms_vault_table_replace(&backend->table, name, NULL, 0, NULL) != KMS_OK) {
        status = KMS_E_INTERNAL;
    } else if (reply.http.is_over) {
        kms_error_clear(&call->error);
        status = kms_vault_too_many(&call->error);
    }
    kms_vault_reply_done(&reply);
    return status;
}

enum kms_status kms_vault_read(struct kms_backend *backend, struct kms_call *call, const char *name,
                               kms_key_visit visit, void *ctx)
{
    struct walk walk = {.stop = false};
    enum kms_status status = read_key(backend, call, name, visit, ctx, &walk);

    if (status == KMS_E_UNSUPPORTED && walk.is_other) {
        kms_error_clear(&call->error);
        return KMS_OK;
    }
    return status;
}

/* ---- a filter ----------------------------------------------------------------------------- */

struct sieve {
    const char *label; /* the one name that can fit, or NULL */
    bool nothing;      /* no name can fit */
    bool by_spec;      /* the configuration names it, and is told what it is */
    uint8_t tag[KMS_KEY_TAG_MAX];
    size_t tag_len;
    struct kms_span tag2;
    const char *ref;
    kms_key_visit visit;
    void *ctx;
};

static void narrow(struct sieve *sieve, const char *label)
{
    if (label == NULL || label[0] == '\0') {
        return;
    }
    sieve->nothing = sieve->nothing || !kms_vault_name_is_valid(label) ||
                     (sieve->label != NULL && strcmp(sieve->label, label) != 0);
    sieve->label = label;
}

static enum kms_status read_spec(const char *spec, struct sieve *sieve, struct kms_error *err)
{
    struct kms_buf tag = KMS_BUF_OVER(sieve->tag);

    if (spec == NULL || spec[0] == '\0') {
        return KMS_OK;
    }
    sieve->by_spec = true;
    if (strncmp(spec, "pkcs11:", strlen("pkcs11:")) == 0) {
        return kms_error_set(err, KMS_E_INVALID,
                             "a Transit key is named by its name or id:HEX, not by a pkcs11: URI");
    }
    if (strncmp(spec, "id:", strlen("id:")) != 0) {
        narrow(sieve, spec);
        return KMS_OK;
    }
    if (kms_hex_decode(kms_span_str(spec + 3), &tag) != KMS_OK || tag.len == 0) {
        return kms_error_set(err, KMS_E_INVALID, "id: wants the hex of a CKA_ID behind it");
    }
    sieve->tag_len = tag.len;
    return KMS_OK;
}

static bool fits(const struct sieve *sieve, const struct kms_key_info *info)
{
    struct kms_span tag = kms_span_of(info->tag, info->tag_len);

    return (sieve->ref == NULL || strcmp(sieve->ref, info->ref) == 0) &&
           (sieve->tag_len == 0 || kms_span_equal(kms_span_of(sieve->tag, sieve->tag_len), tag)) &&
           (sieve->tag2.len == 0 || kms_span_equal(sieve->tag2, tag));
}

static bool sift(void *ctx, const struct kms_key_info *info)
{
    struct sieve *sieve = ctx;

    return fits(sieve, info) ? sieve->visit(sieve->ctx, info) : true;
}

/* ---- all keys ----------------------------------------------------------------------------- */

static enum kms_status list_each(struct kms_backend *backend, struct kms_call *call,
                                 const struct kms_json *names, struct sieve *sieve)
{
    enum kms_status status = KMS_OK;
    struct walk walk = {.stop = false};

    for (size_t i = 0; status == KMS_OK && !walk.stop && i < kms_json_count(names); i++) {
        const char *name = NULL;

        walk.is_other = false;
        status = kms_json_text_at(names, i, KMS_VAULT_REPLY_MAX, &name, &call->error);
        if (status == KMS_OK && kms_vault_name_is_valid(name)) { /* "import/" is a folder */
            status = read_key(backend, call, name, sift, sieve, &walk);
        }
        if (status == KMS_E_TOO_LARGE) { /* the others are there all the same */
            kms_log_error(KMS_LOG_WARN, &call->error, "backend %s: key %s is not shown",
                          backend->conf->name, name);
        }
        if (status == KMS_E_DENIED || walk.is_other) { /* LIST shows everybody's */
            kms_log_error(KMS_LOG_DEBUG, &call->error, "backend %s: key %s is not shown",
                          backend->conf->name, name);
        }
        if (status == KMS_E_TOO_LARGE || status == KMS_E_DENIED || walk.is_other ||
            status == KMS_E_NOT_FOUND) { /* went between the two */
            kms_error_clear(&call->error);
            status = KMS_OK;
        }
    }
    return status;
}

static enum kms_status tell_unlisted(const struct kms_backend *backend, struct kms_error *err)
{
    struct kms_error said = *err;

    kms_error_clear(err);
    return kms_error_set_code(err, KMS_E_DENIED, said.code,
                              "the keys cannot be listed (LIST on %s/keys), only used by name: %s",
                              backend->mount, said.text);
}

static enum kms_status list_all(struct kms_backend *backend, struct kms_call *call,
                                struct sieve *sieve)
{
    char path[KMS_VAULT_PATH_MAX];
    const struct kms_vault_ask ask = {.method = KMS_HTTP_LIST, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    struct kms_json data;
    struct kms_json names;
    enum kms_status status = kms_vault_path(backend, call, "/keys", "", "", path);

    if (status == KMS_OK) {
        status = kms_vault_ask(backend, call, &ask, &reply);
    }
    /* an empty engine answers 404 without a word; a mount that is none says so */
    if (status == KMS_E_NOT_FOUND && strstr(call->error.text, "no handler") == NULL) {
        kms_error_clear(&call->error);
        kms_vault_reply_done(&reply);
        return KMS_OK;
    }
    if (status == KMS_E_DENIED) {
        status = tell_unlisted(backend, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_vault_data(&reply, &data, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_json_array(&data, "keys", &names, &call->error);
    }
    if (status == KMS_OK && kms_json_count(&names) > KMS_VAULT_KEYS_MAX) {
        status = kms_error_set(&call->error, KMS_E_TOO_LARGE,
                               "%s has more than %d keys: name those that are for applications "
                               "(agent.tokens, keys)",
                               backend->mount, KMS_VAULT_KEYS_MAX);
    }
    if (status == KMS_OK) {
        status = list_each(backend, call, &names, sieve);
    }
    kms_vault_reply_done(&reply);
    return status;
}

static bool look_on(void *ctx, const struct kms_key_info *info)
{
    (void)ctx;
    (void)info;
    return true;
}

enum kms_status kms_vault_read_all(struct kms_backend *backend, struct kms_call *call)
{
    struct sieve all = {.visit = look_on};

    return list_all(backend, call, &all);
}

static enum kms_status list_one(struct kms_backend *backend, struct kms_call *call,
                                struct sieve *sieve)
{
    struct walk walk = {.stop = false};
    enum kms_status status = read_key(backend, call, sieve->label, sift, sieve, &walk);

    if ((status == KMS_E_NOT_FOUND && strstr(call->error.text, "no handler") == NULL) ||
        (walk.is_other && !sieve->by_spec)) {
        kms_error_clear(&call->error);
        return KMS_OK;
    }
    return status;
}

enum kms_status kms_vault_list_keys(struct kms_backend *backend, struct kms_call *call,
                                    const struct kms_key_filter *filter, kms_key_visit visit,
                                    void *ctx)
{
    struct sieve sieve = {.tag2 = filter->tag, .ref = filter->ref, .visit = visit, .ctx = ctx};
    struct kms_vault_key known;
    struct kms_vault_lost lost;
    bool stale = false;
    enum kms_status status = read_spec(filter->spec, &sieve, &call->error);

    if (status != KMS_OK) {
        return status;
    }
    if (sieve.ref != NULL && sieve.ref[0] == '\0') {
        sieve.ref = NULL;
    }
    narrow(&sieve, filter->label);
    if (sieve.ref != NULL && kms_vault_table_find(&backend->table, sieve.ref, &known, &stale)) {
        narrow(&sieve, known.name);
    } else if (sieve.ref != NULL && kms_vault_table_lost(&backend->table, sieve.ref, &lost)) {
        narrow(&sieve, lost.name);
    }
    if (sieve.nothing) {
        return KMS_OK;
    }
    return sieve.label != NULL ? list_one(backend, call, &sieve) : list_all(backend, call, &sieve);
}
