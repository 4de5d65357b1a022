/* SPDX-License-Identifier: Apache-2.0 */
/* list_keys: one kms_key_info for each version of a key, or for the logical key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/codec.h"
#include "common/log.h"

/* ---- list_keys ---------------------------------------------------------------------------- */

struct listing {
    struct kms_backend *backend;
    struct kms_call *call;
    const struct kms_key_filter *filter;
    struct kms_span tag; /* that of the filter, or of its spec */
    kms_key_visit visit;
    void *ctx;
    bool stopped;
    bool shown;              /* one at least */
    struct kms_error unread; /* of the first key that could not be read */
};

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static bool wanted(const struct listing *l, const struct kms_key_info *info)
{
    return (!is_set(l->filter->label) || strcmp(l->filter->label, info->label) == 0) &&
           (!is_set(l->filter->ref) || strcmp(l->filter->ref, info->ref) == 0) &&
           (l->tag.len == 0 || kms_span_equal(l->tag, kms_span_of(info->tag, info->tag_len)));
}

static void show(struct listing *l, const struct kms_key_info *info)
{
    if (wanted(l, info)) {
        l->shown = true;
        l->stopped = !l->visit(l->ctx, info);
    }
}

/* What there is to know of it DescribeKey has told. */
static enum kms_status show_logical(struct listing *l, const struct kms_ali_key *key,
                                    const char *label)
{
    struct kms_key_info info;
    enum kms_status status = kms_ali_logical_info(key, label, &info, &l->call->error);

    if (status == KMS_OK) {
        show(l, &info);
    }
    return status;
}

static enum kms_status show_versions(struct listing *l, const struct kms_ali_key *key,
                                     const char *label)
{
    struct kms_ali_versions *versions = NULL;
    enum kms_status status = kms_ali_versions(l->backend, l->call, key, &versions);

    for (size_t i = 0; status == KMS_OK && !l->stopped && i < versions->count; i++) {
        struct kms_key_info info;

        status = kms_ali_version_info(key, versions, i, label, &info, &l->call->error);
        if (status == KMS_OK) {
            show(l, &info);
        }
    }
    free(versions);
    return status;
}

static enum kms_status show_key(struct listing *l, const struct kms_ali_key *key, const char *label)
{
    if (kms_ali_is_logical(key) && key->primary[0] == '\0') {
        return kms_error_set(&l->call->error, KMS_E_KEY_STATE,
                             "key %s has no key material yet: import it", key->id);
    }
    return l->filter->logical && kms_ali_is_logical(key) ? show_logical(l, key, label)
                                                         : show_versions(l, key, label);
}

/* What the key is called: by the alias that it was asked by, else by its id. */
static const char *label_of(const char *name, const struct kms_ali_key *key)
{
    const char *alias = strstr(name, "alias/");

    return alias != NULL && (alias == name || strncmp(name, "acs:kms:", 8) == 0) ? alias + 6
                                                                                 : key->id;
}

/* One key by a name that DescribeKey takes; none is fine, *ret_found says. */
static enum kms_status show_named(struct listing *l, const char *name, bool *ret_found)
{
    struct kms_ali_key key;
    enum kms_status status = kms_ali_describe(l->backend, l->call, name, &key);

    *ret_found = status != KMS_E_NOT_FOUND;
    if (status == KMS_E_NOT_FOUND) {
        kms_error_clear(&l->call->error);
        return KMS_OK;
    }
    if (status != KMS_OK) {
        return status;
    }
    if (key.spec == NULL) {
        return is_set(l->filter->spec)
                   ? kms_error_set(&l->call->error, KMS_E_UNSUPPORTED,
                                   "key %s is of KeySpec %s, which this backend does not use",
                                   key.id, key.spec_name)
                   : KMS_OK;
    }
    /* what the configuration names is told its state; for everybody else it is gone */
    if (key.leaving && !is_set(l->filter->spec)) {
        return KMS_OK;
    }
    return show_key(l, &key, label_of(name, &key));
}

/* A name as people write it: an alias, with or without "alias/", a KeyId, an ARN. */
static enum kms_status show_spec(struct listing *l, const char *spec)
{
    char alias[KMS_LABEL_MAX + 8];
    bool found = false;
    enum kms_status status = KMS_OK;

    if (strncmp(spec, "alias/", 6) == 0 || strncmp(spec, "acs:kms:", 8) == 0) {
        return show_named(l, spec, &found);
    }
    if (strlen(spec) >= KMS_LABEL_MAX) {
        return kms_error_set(&l->call->error, KMS_E_INVALID, "the key's name is too long");
    }
    (void)snprintf(alias, sizeof(alias), "alias/%s", spec);
    status = show_named(l, alias, &found);
    if (status == KMS_OK && !found && kms_ali_is_id(spec, strlen(spec))) {
        status = show_named(l, spec, &found);
    }
    return status;
}

/* ---- all keys ----------------------------------------------------------------------------- */

#define ALL_MAX (KMS_ALI_PAGES_MAX * KMS_ALI_PAGE_SIZE)

struct all {
    size_t key_count;
    size_t alias_count;
    char keys[ALL_MAX][KMS_ALI_ID_MAX];
    struct {
        char name[KMS_LABEL_MAX];
        char key[KMS_ALI_ID_MAX];
    } aliases[ALL_MAX];
};

static enum kms_status read_key_row(void *ctx, const struct kms_json *row, struct kms_error *err)
{
    struct all *all = ctx;

    if (all->key_count == ALL_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "more than %d keys", ALL_MAX);
    }
    return kms_ali_take_text(row, "KeyId", false, all->keys[all->key_count++], KMS_ALI_ID_MAX, err);
}

static enum kms_status read_alias_row(void *ctx, const struct kms_json *row, struct kms_error *err)
{
    struct all *all = ctx;
    size_t at = all->alias_count;
    const char *name = NULL;
    enum kms_status status = KMS_OK;

    if (at == ALL_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "more than %d aliases", ALL_MAX);
    }
    status = kms_json_text(row, "AliasName", KMS_LABEL_MAX + 5, &name, err);
    if (status == KMS_OK) {
        status = kms_ali_take_text(row, "KeyId", false, all->aliases[at].key, KMS_ALI_ID_MAX, err);
    }
    if (status == KMS_OK && strncmp(name, "alias/", 6) == 0) {
        (void)snprintf(all->aliases[at].name, KMS_LABEL_MAX, "%s", name + 6);
        all->alias_count++;
    }
    return status;
}

static const char *alias_of(const struct all *all, const char *key)
{
    for (size_t i = 0; i < all->alias_count; i++) {
        if (strcmp(all->aliases[i].key, key) == 0) {
            return all->aliases[i].name;
        }
    }
    return key;
}

/* What is wrong with one key, KMS_OK once it is left out: the others are there all the same. */
static enum kms_status leave_out(struct listing *l, const char *id, enum kms_status status)
{
    struct kms_error *err = &l->call->error;

    switch (status) {
    case KMS_E_NOT_FOUND: /* deleted meanwhile */
    case KMS_E_DENIED:    /* not for us */
    case KMS_E_KEY_STATE: /* no use yet, or no more */
        break;
    case KMS_E_TOO_LARGE:
    case KMS_E_PROTOCOL:
        if (strstr(err->text, id) == NULL) {
            (void)kms_error_reword(err, status, "key %s: %s", id, err->text);
        }
        kms_log_error(KMS_LOG_WARN, err, "backend %s: a key is not shown", l->backend->conf->name);
        if (l->unread.status == KMS_OK) {
            l->unread = *err;
        }
        break;
    default:
        return status;
    }
    kms_error_clear(err);
    return KMS_OK;
}

/* That there is none is not known while one could not be read. An application's search by CKA_ID is
 * answered as from the list, where it is not. */
static enum kms_status conclude(struct listing *l)
{
    if (l->shown || l->unread.status == KMS_OK || l->filter->tag.len != 0) {
        return KMS_OK;
    }
    l->call->error = l->unread;
    return l->unread.status;
}

/* One question for the keys, one for the aliases, one or two for each key: the service tells no
 * more. */
static enum kms_status show_all(struct listing *l)
{
    struct all *all = calloc(1, sizeof(*all));
    const struct kms_ali_paging keys = {
        .action = "ListKeys", .outer = "Keys", .inner = "Key", .read = read_key_row, .ctx = all};
    const struct kms_ali_paging aliases = {.action = "ListAliases",
                                           .outer = "Aliases",
                                           .inner = "Alias",
                                           .read = read_alias_row,
                                           .ctx = all};
    enum kms_status status = KMS_OK;

    if (all == NULL) {
        return kms_error_set(&l->call->error, KMS_E_NOMEM, "no memory for a list of keys");
    }
    status = kms_ali_pages(l->backend, l->call, &keys);
    if (status == KMS_OK) {
        status = kms_ali_pages(l->backend, l->call, &aliases);
    }
    for (size_t i = 0; status == KMS_OK && !l->stopped && i < all->key_count; i++) {
        struct kms_ali_key key;

        status = kms_ali_describe(l->backend, l->call, all->keys[i], &key);
        if (status == KMS_OK && key.spec != NULL && !key.leaving) {
            status = show_key(l, &key, alias_of(all, key.id));
        }
        status = leave_out(l, all->keys[i], status);
    }
    free(all);
    return status == KMS_OK ? conclude(l) : status;
}

/* Its first alias is its label. */
static enum kms_status show_by_alias(struct listing *l, const struct kms_ali_key *key)
{
    struct all *all = calloc(1, sizeof(*all));
    const struct kms_ali_paging aliases = {.action = "ListAliasesByKeyId",
                                           .key_id = key->id,
                                           .outer = "Aliases",
                                           .inner = "Alias",
                                           .read = read_alias_row,
                                           .ctx = all};
    enum kms_status status = KMS_OK;

    if (all == NULL) {
        return kms_error_set(&l->call->error, KMS_E_NOMEM, "no memory for a list of aliases");
    }
    status = kms_ali_pages(l->backend, l->call, &aliases);
    if (status == KMS_OK) {
        status = show_key(l, key, alias_of(all, key->id));
    }
    free(all);
    return status;
}

static enum kms_status show_ref(struct listing *l, const char *text)
{
    struct kms_ali_ref ref;
    struct kms_error none = KMS_ERROR_INIT;
    enum kms_status status = KMS_OK;
    struct kms_ali_key key;

    if (kms_ali_ref_parse(text, &ref, &none) != KMS_OK) {
        return KMS_OK; /* no key has such a ref */
    }
    status = kms_ali_describe(l->backend, l->call, ref.key, &key);
    if (status == KMS_E_NOT_FOUND) {
        kms_error_clear(&l->call->error);
        return KMS_OK;
    }
    return status == KMS_OK && key.spec != NULL && !key.leaving ? show_by_alias(l, &key) : status;
}

enum kms_status kms_ali_list_keys(struct kms_backend *b, struct kms_call *call,
                                  const struct kms_key_filter *filter, kms_key_visit visit,
                                  void *ctx)
{
    static const struct kms_key_filter none = {.label = NULL};
    struct listing l = {.backend = b,
                        .call = call,
                        .filter = filter == NULL ? &none : filter,
                        .visit = visit,
                        .ctx = ctx};
    uint8_t tag_storage[KMS_KEY_TAG_MAX];
    struct kms_buf tag = KMS_BUF_OVER(tag_storage);
    const char *spec = l.filter->spec;

    l.tag = l.filter->tag;
    if (is_set(spec) && strncmp(spec, "pkcs11:", 7) == 0) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "a key of Alibaba Cloud KMS has no pkcs11: URI: name its alias");
    }
    if (is_set(spec) && strncmp(spec, "id:", 3) == 0) {
        if (kms_hex_decode(kms_span_str(spec + 3), &tag) != KMS_OK || tag.len == 0) {
            return kms_error_set(&call->error, KMS_E_INVALID, "\"%.80s\" is no CKA_ID in hex",
                                 spec);
        }
        l.tag = kms_buf_span(&tag);
        return show_all(&l);
    }
    if (is_set(l.filter->ref) && !is_set(spec) && !is_set(l.filter->label)) {
        return show_ref(&l, l.filter->ref);
    }
    if (is_set(spec)) {
        return show_spec(&l, spec);
    }
    return is_set(l.filter->label) ? show_spec(&l, l.filter->label) : show_all(&l);
}
