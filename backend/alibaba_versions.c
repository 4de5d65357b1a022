/* SPDX-License-Identifier: Apache-2.0 */
/* A key's versions, each as a kms_key_info, and replies that come by pages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba_parts.h"

/* ---- versions, as kms_key_info ------------------------------------------------------------ */

#define TAG_LEN   20
#define PAGE_TEXT "100"

static void add_algs(const struct kms_ali_key *key, struct kms_key_info *info)
{
    static const struct {
        enum kms_key_type type;
        bool encrypts;
        enum kms_alg alg;
    } all[] = {
        {KMS_KEY_AES, true, KMS_ALG_SEALED},
        {KMS_KEY_SM4, true, KMS_ALG_SEALED},
        {KMS_KEY_RSA, true, KMS_ALG_RSA_OAEP_SHA1},
        {KMS_KEY_RSA, true, KMS_ALG_RSA_OAEP_L_SHA256},
        {KMS_KEY_RSA, false, KMS_ALG_RSA_PKCS1},
        {KMS_KEY_RSA, false, KMS_ALG_RSA_PKCS1_SHA256},
        {KMS_KEY_RSA, false, KMS_ALG_RSA_PSS_SHA256},
        {KMS_KEY_RSA, false, KMS_ALG_SHA256_ALONE},
        {KMS_KEY_EC, false, KMS_ALG_ECDSA},
        {KMS_KEY_EC, false, KMS_ALG_SHA256_ALONE},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].type == key->spec->type && all[i].encrypts == key->encrypts) {
            kms_alg_set_add(&info->algs, all[i].alg);
        }
    }
    if (key->spec->mac != KMS_ALG_NONE) {
        kms_alg_set_add(&info->algs, key->spec->mac);
    }
}

/* The service encrypts with its primary version only; the others open what they once sealed. */
static unsigned uses_of(const struct kms_ali_key *key, bool latest)
{
    const unsigned opens = (unsigned)KMS_USE_DECRYPT | (unsigned)KMS_USE_UNWRAP;
    const unsigned seals = (unsigned)KMS_USE_ENCRYPT | (unsigned)KMS_USE_WRAP;

    if (!key->encrypts || key->spec->type == KMS_KEY_GENERIC) {
        return (unsigned)KMS_USE_SIGN | (unsigned)KMS_USE_VERIFY;
    }
    return latest || key->spec->type == KMS_KEY_RSA ? opens | seals : opens;
}

/* CKA_ID: of a full name, so that who knows that can tell it. */
static bool put_tag(const char *name, struct kms_key_info *info)
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    if (EVP_Digest(name, strlen(name), hash, NULL, EVP_sha256(), NULL) != 1) {
        return false;
    }
    memcpy(info->tag, hash, TAG_LEN);
    info->tag_len = TAG_LEN;
    return true;
}

/* Seconds, and below them a rank, for versions of one second: the latest last, else by their id. */
static uint64_t order_of(const struct kms_ali_versions *versions, size_t at)
{
    const struct kms_ali_version *version = &versions->at[at];
    uint64_t rank = 0;

    for (size_t i = 0; i < versions->count; i++) {
        const struct kms_ali_version *other = &versions->at[i];

        if (i != at && other->seconds == version->seconds &&
            (at == versions->latest ||
             (i != versions->latest && strcmp(other->id, version->id) < 0))) {
            rank++;
        }
    }
    return version->seconds << 16 | rank;
}

/* What does not depend on the version. */
static struct kms_key_info info_of(const struct kms_ali_key *key, bool latest, const char *label)
{
    struct kms_key_info info = {
        .type = key->spec->type,
        .bits = key->spec->bits,
        .uses = uses_of(key, latest),
        .always_sensitive = key->local,
        .never_extractable = key->local,
        .local = key->local,
        .seal = latest && kms_ali_seals(key->spec->type) ? KMS_ALG_SEALED : KMS_ALG_NONE,
        .latest = latest,
    };

    (void)snprintf(info.label, sizeof(info.label), "%s", label);
    (void)snprintf(info.name, sizeof(info.name), "%s", key->arn);
    add_algs(key, &info);
    return info;
}

static enum kms_status no_identity(struct kms_error *err)
{
    return kms_error_set(err, KMS_E_INTERNAL, "a key's identity cannot be made");
}

bool kms_ali_is_logical(const struct kms_ali_key *key)
{
    return kms_ali_seals(key->spec->type);
}

enum kms_status kms_ali_logical_info(const struct kms_ali_key *key, const char *label,
                                     struct kms_key_info *ret, struct kms_error *err)
{
    struct kms_key_info info = info_of(key, true, label);

    (void)snprintf(info.ref, sizeof(info.ref), "%s/%s", key->id, KMS_ALI_ANY_VERSION);
    if (!kms_ali_identity(key->id, KMS_ALI_ANY_VERSION, info.id) || !put_tag(key->arn, &info)) {
        return no_identity(err);
    }
    *ret = info;
    return KMS_OK;
}

enum kms_status kms_ali_version_info(const struct kms_ali_key *key,
                                     const struct kms_ali_versions *versions, size_t at,
                                     const char *label, struct kms_key_info *ret,
                                     struct kms_error *err)
{
    const struct kms_ali_version *version = &versions->at[at];
    struct kms_key_info info = info_of(key, at == versions->latest, label);

    (void)snprintf(info.ref, sizeof(info.ref), "%s/%s", key->id, version->id);
    info.order = order_of(versions, at);
    if (key->spec->type != KMS_KEY_GENERIC) {
        (void)snprintf(info.name, sizeof(info.name), "%s/%s", key->arn, version->id);
        (void)snprintf(info.version, sizeof(info.version), "%s", version->id);
    }
    /* versions that the service chooses among are one object to applications, of one CKA_ID */
    if (!kms_ali_identity(key->id, version->id, info.id) ||
        !put_tag(kms_ali_is_logical(key) ? key->arn : info.name, &info)) {
        return no_identity(err);
    }
    *ret = info;
    return KMS_OK;
}

static enum kms_status read_version(const struct kms_json *row, const struct kms_ali_key *key,
                                    struct kms_ali_versions *versions, struct kms_error *err)
{
    struct kms_ali_version version = {.seconds = 0};
    char owner[KMS_ALI_ID_MAX];
    char date[32];
    enum kms_status status = kms_ali_take_text(row, "KeyId", false, owner, sizeof(owner), err);

    if (status == KMS_OK) {
        status = kms_ali_take_text(row, "KeyVersionId", false, version.id, sizeof(version.id), err);
    }
    if (status == KMS_OK) {
        status = kms_ali_take_text(row, "CreationDate", false, date, sizeof(date), err);
    }
    if (status != KMS_OK) {
        return status;
    }
    if (strcmp(owner, key->id) != 0 || !kms_ali_is_id(version.id, strlen(version.id)) ||
        !kms_ali_date(date, &version.seconds)) {
        return kms_error_set(err, KMS_E_PROTOCOL, "the reply names a key version that is none");
    }
    if (versions->count == KMS_ALI_VERSIONS_MAX) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "key %s has more than %d versions", key->id,
                             KMS_ALI_VERSIONS_MAX);
    }
    versions->at[versions->count++] = version;
    return KMS_OK;
}

/* ---- pages -------------------------------------------------------------------------------- */

/* Rows of one reply; *ret_count says how many, *ret_total how many there are in all. */
static enum kms_status read_page(const struct kms_ali_paging *paging,
                                 const struct kms_ali_reply *reply, size_t *ret_count,
                                 uint64_t *ret_total, struct kms_error *err)
{
    struct kms_json outer, rows, row;
    enum kms_status status = kms_json_object(&reply->root, paging->outer, &outer, err);

    if (status == KMS_OK) {
        status = kms_json_array(&outer, paging->inner, &rows, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64(&reply->root, "TotalCount", 0, UINT32_MAX, ret_total, err);
    }
    *ret_count = status == KMS_OK ? kms_json_count(&rows) : 0;
    for (size_t i = 0; status == KMS_OK && i < *ret_count; i++) {
        status = kms_json_object_at(&rows, i, &row, err);
        if (status == KMS_OK) {
            status = paging->read(paging->ctx, &row, err);
        }
    }
    return status;
}

static enum kms_status ask_page(struct kms_backend *b, struct kms_call *call,
                                const struct kms_ali_paging *paging, unsigned page,
                                size_t *ret_count, uint64_t *ret_total)
{
    struct kms_ali_ask ask = {.action = paging->action};
    struct kms_ali_reply reply = KMS_ALI_REPLY_INIT;
    char number[16];
    enum kms_status status = KMS_OK;

    (void)snprintf(number, sizeof(number), "%u", page);
    if (paging->key_id != NULL) {
        kms_ali_param_text(&ask, "KeyId", paging->key_id);
    }
    kms_ali_param_text(&ask, "PageNumber", number);
    kms_ali_param_text(&ask, "PageSize", PAGE_TEXT);
    status = kms_ali_call(b, call, &ask, &reply);
    if (status == KMS_OK) {
        status = read_page(paging, &reply, ret_count, ret_total, &call->error);
    }
    kms_ali_reply_done(call, &reply);
    return status;
}

enum kms_status kms_ali_pages(struct kms_backend *b, struct kms_call *call,
                              const struct kms_ali_paging *paging)
{
    uint64_t seen = 0;
    uint64_t total = 1;

    for (unsigned page = 1; seen < total; page++) {
        size_t count = 0;
        enum kms_status status = KMS_OK;

        if (page > KMS_ALI_PAGES_MAX) {
            return kms_error_set(&call->error, KMS_E_TOO_LARGE, "%s: more than %d entries",
                                 paging->action, KMS_ALI_PAGES_MAX * KMS_ALI_PAGE_SIZE);
        }
        status = ask_page(b, call, paging, page, &count, &total);
        if (status != KMS_OK) {
            return status;
        }
        seen += count;
        if (count == 0 && seen < total) { /* deleted meanwhile; what there is has been seen */
            return KMS_OK;
        }
    }
    return KMS_OK;
}

/* ---- a key's versions --------------------------------------------------------------------- */

struct reading {
    const struct kms_ali_key *key;
    struct kms_ali_versions *versions;
};

static enum kms_status read_version_row(void *ctx, const struct kms_json *row,
                                        struct kms_error *err)
{
    struct reading *reading = ctx;

    return read_version(row, reading->key, reading->versions, err);
}

/* The primary version of a symmetric key; of an asymmetric one, which has none, the newest. */
static enum kms_status find_latest(const struct kms_ali_key *key, struct kms_ali_versions *versions,
                                   struct kms_error *err)
{
    bool found = key->primary[0] == '\0';

    if (versions->count == 0) {
        return kms_error_set(err, KMS_E_KEY_STATE,
                             "key %s has no version, and so no key material: is it to be imported?",
                             key->id);
    }
    versions->latest = 0;
    for (size_t i = 0; i < versions->count; i++) {
        const struct kms_ali_version *best = &versions->at[versions->latest];
        const struct kms_ali_version *at = &versions->at[i];

        if (key->primary[0] != '\0' ? strcmp(at->id, key->primary) == 0
                                    : at->seconds >= best->seconds) {
            versions->latest = i;
            found = true;
        }
    }
    /* it was rotated, or a version destroyed, between the two questions */
    return found ? KMS_OK
                 : kms_error_set(err, KMS_E_UNAVAILABLE,
                                 "key %s: its primary version is not among its versions", key->id);
}

/* An HMAC key is one, whatever the service keeps behind it: alibaba_mac.c. */
static void stand_for(const struct kms_ali_key *key, struct kms_ali_versions *versions)
{
    versions->count = 1;
    versions->latest = 0;
    versions->at[0] = (struct kms_ali_version){.id = KMS_ALI_NO_VERSION, .seconds = key->seconds};
}

enum kms_status kms_ali_versions(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_ali_key *key,
                                 struct kms_ali_versions **ret_versions)
{
    struct kms_ali_versions *versions = calloc(1, sizeof(*versions));
    struct reading reading = {.key = key, .versions = versions};
    const struct kms_ali_paging paging = {.action = "ListKeyVersions",
                                          .key_id = key->id,
                                          .outer = "KeyVersions",
                                          .inner = "KeyVersion",
                                          .read = read_version_row,
                                          .ctx = &reading};
    enum kms_status status = KMS_OK;

    if (versions == NULL) {
        return kms_error_set(&call->error, KMS_E_NOMEM, "no memory for key versions");
    }
    if (key->spec->type == KMS_KEY_GENERIC) {
        stand_for(key, versions);
    } else {
        status = kms_ali_pages(b, call, &paging);
        if (status == KMS_OK) {
            status = find_latest(key, versions, &call->error);
        }
    }
    if (status == KMS_OK) {
        *ret_versions = versions;
        versions = NULL;
    }
    free(versions);
    return status;
}

enum kms_status kms_ali_latest(struct kms_backend *b, struct kms_call *call,
                               const struct kms_ali_key *key, const char *label,
                               struct kms_key_info *ret_info)
{
    struct kms_ali_versions *versions = NULL;
    enum kms_status status = kms_ali_versions(b, call, key, &versions);

    if (status == KMS_OK) {
        status =
            kms_ali_version_info(key, versions, versions->latest, label, ret_info, &call->error);
    }
    free(versions);
    return status;
}
