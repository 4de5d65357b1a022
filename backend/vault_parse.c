/* SPDX-License-Identifier: Apache-2.0 */
/* What Transit says of a key, and the identity of each of its versions. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/codec.h"
#include "common/numbers.h"

#define ID_BYTES 20

/* ---- reading ------------------------------------------------------------------------------ */

struct gather {
    struct kms_vault_read *read;
    size_t room;
};

/* A number for symmetric keys; an object with creation_time (and a public key) for the others. */
static enum kms_status read_created(const struct kms_json *versions, const char *key,
                                    struct kms_vault_version *ret, struct kms_error *err)
{
    struct kms_json version;
    const char *text = NULL;
    uint64_t seconds = 0;
    enum kms_status status = KMS_OK;

    if (strcmp(kms_json_kind(versions, key), "number") == 0) {
        status = kms_json_u64(versions, key, 0, INT64_MAX, &seconds, err);
        (void)snprintf(ret->created, sizeof(ret->created), "%" PRIu64, seconds);
        return status;
    }
    status = kms_json_object(versions, key, &version, err);
    if (status == KMS_OK) {
        status = kms_json_text(&version, "creation_time", sizeof(ret->created) - 1, &text, err);
    }
    if (status == KMS_OK) {
        (void)snprintf(ret->created, sizeof(ret->created), "%s", text);
    }
    return status;
}

enum kms_status kms_vault_too_many(struct kms_error *err)
{
    return kms_error_set(err, KMS_E_TOO_LARGE,
                         "the key has too many versions, more than %d or %u bytes of them: archive "
                         "old ones (min_decryption_version)",
                         KMS_VAULT_VERSIONS_MAX, KMS_VAULT_REPLY_MAX);
}

static enum kms_status add_version(void *ctx, const struct kms_json *versions, const char *key,
                                   struct kms_error *err)
{
    struct gather *gather = ctx;
    struct kms_vault_read *read = gather->read;
    struct kms_vault_version *version = NULL;

    if (read->count == gather->room) {
        return kms_vault_too_many(err);
    }
    version = &read->versions[read->count];
    if (kms_parse_u64(key, 1, INT32_MAX, &version->version) != KMS_OK) {
        return kms_error_set(err, KMS_E_PROTOCOL, "%s: \"%.20s\" is no version", versions->name,
                             key);
    }
    read->count++;
    return read_created(versions, key, version, err);
}

static int compare_versions(const void *a, const void *b)
{
    const struct kms_vault_version *x = a;
    const struct kms_vault_version *y = b;

    return x->version < y->version ? -1 : x->version > y->version ? 1 : 0;
}

/* Of HMAC keys Transit tells the numbers alone; their ->created stays empty. */
static enum kms_status count_versions(struct kms_vault_read *read, struct kms_error *err)
{
    uint64_t first = read->min_decrypt == 0 ? 1 : read->min_decrypt;

    if (first > read->latest || read->latest - first >= KMS_VAULT_VERSIONS_MAX) {
        return kms_vault_too_many(err);
    }
    for (uint64_t version = first; version <= read->latest; version++) {
        read->versions[read->count++].version = version;
    }
    return KMS_OK;
}

static enum kms_status read_versions(const struct kms_json *data, struct kms_vault_read *ret,
                                     struct kms_error *err)
{
    struct gather gather = {.read = ret, .room = KMS_VAULT_VERSIONS_MAX};
    bool is_untold =
        ret->type != NULL && ret->type->type == KMS_KEY_GENERIC && !kms_json_has(data, "keys");
    struct kms_json versions;
    enum kms_status status = is_untold ? KMS_OK : kms_json_object(data, "keys", &versions, err);

    if (status != KMS_OK) {
        return status;
    }
    ret->versions = calloc(gather.room, sizeof(ret->versions[0]));
    if (ret->versions == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a key's versions");
    }
    if (is_untold) {
        return count_versions(ret, err);
    }
    status = kms_json_each(&versions, add_version, &gather, err);
    if (status == KMS_OK) {
        qsort(ret->versions, ret->count, sizeof(ret->versions[0]), compare_versions);
    }
    return status;
}

static enum kms_status read_flags(const struct kms_json *data, struct kms_vault_read *ret,
                                  struct kms_error *err)
{
    /* the older a server, the fewer of these it knows; what it does not say is not so */
    const struct {
        const char *key;
        bool *value;
    } flags[] = {
        {"soft_deleted", &ret->soft_deleted}, {"derived", &ret->derived},
        {"exportable", &ret->exportable},     {"allow_plaintext_backup", &ret->backup},
        {"imported_key", &ret->imported},
    };
    enum kms_status status = KMS_OK;

    for (size_t i = 0; status == KMS_OK && i < sizeof(flags) / sizeof(flags[0]); i++) {
        status = kms_json_bool_maybe(data, flags[i].key, flags[i].value, err);
    }
    return status;
}

static enum kms_status read_numbers(const struct kms_json *data, struct kms_vault_read *ret,
                                    struct kms_error *err)
{
    uint64_t key_size = 32;
    enum kms_status status = kms_json_u64(data, "latest_version", 1, INT32_MAX, &ret->latest, err);

    if (status == KMS_OK) {
        status = kms_json_u64(data, "min_decryption_version", 0, INT32_MAX, &ret->min_decrypt, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64(data, "min_encryption_version", 0, INT32_MAX, &ret->min_encrypt, err);
    }
    if (status == KMS_OK) {
        status = kms_json_u64_maybe(data, "key_size", 0, 4096, &key_size, err);
    }
    ret->bits =
        ret->type != NULL && ret->type->bits != 0 ? ret->type->bits : (unsigned)key_size * 8;
    return status;
}

enum kms_status kms_vault_parse_key(const struct kms_json *data, struct kms_vault_read *ret,
                                    struct kms_error *err)
{
    const char *type = NULL;
    enum kms_status status = kms_json_text(data, "type", sizeof(ret->type_name) - 1, &type, err);

    if (status == KMS_OK) {
        (void)snprintf(ret->type_name, sizeof(ret->type_name), "%s", type);
        ret->type = kms_vault_type_named(type);
        status = read_flags(data, ret, err);
    }
    if (status == KMS_OK) {
        status = read_numbers(data, ret, err);
    }
    /* what is not ours may have no versions to read, as managed keys have none */
    return status == KMS_OK && ret->type != NULL ? read_versions(data, ret, err) : status;
}

void kms_vault_read_done(struct kms_vault_read *read)
{
    free(read->versions);
    *read = (struct kms_vault_read){.versions = NULL};
}

/* ---- the identity ------------------------------------------------------------------------- */

static void put_be(uint64_t value, size_t len, uint8_t *ret)
{
    for (size_t i = 0; i < len; i++) {
        ret[i] = (uint8_t)(value >> (8 * (len - 1 - i)));
    }
}

static bool hash_text(EVP_MD_CTX *ctx, const char *text)
{
    uint8_t len[4];

    put_be(strlen(text), sizeof(len), len);
    return EVP_DigestUpdate(ctx, len, sizeof(len)) == 1 &&
           EVP_DigestUpdate(ctx, text, strlen(text)) == 1;
}

static bool hash_identity(const struct kms_backend *backend, const char *name,
                          const struct kms_vault_version *version, uint8_t *ret_digest)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t number[8];
    bool ok = false;

    put_be(version->version, sizeof(number), number);
    ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
         hash_text(ctx, "kmsbridge vault key id v1") && hash_text(ctx, backend->mount) &&
         hash_text(ctx, backend->name_space) && hash_text(ctx, name) &&
         EVP_DigestUpdate(ctx, number, sizeof(number)) == 1 && hash_text(ctx, version->created) &&
         EVP_DigestFinal_ex(ctx, ret_digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* What the versions that are allowed to, can. */
static unsigned uses_of(const struct kms_vault_read *read, uint64_t version)
{
    uint64_t min_seal = read->min_encrypt == 0 ? 1 : read->min_encrypt; /* 0: no bound */
    unsigned uses = 0;

    if (read->soft_deleted || version < read->min_decrypt) {
        return 0;
    }
    uses = read->type->open_uses;
    return version >= min_seal ? uses | read->type->seal_uses : uses;
}

/* Mount and namespace are checked to be short; what does not fit would be no name at all. */
static void put_name(const struct kms_backend *backend, const char *name, uint64_t version,
                     struct kms_key_info *ret)
{
    const char *between = backend->name_space[0] == '\0' ? "" : "/";
    int len = snprintf(ret->name, sizeof(ret->name), "%s%s%s/keys/%s/%" PRIu64, backend->name_space,
                       between, backend->mount, name, version);

    if (len < 0 || (size_t)len >= sizeof(ret->name)) {
        memcpy(ret->name, ret->id, sizeof(ret->id));
    }
}

static void fill_info(const struct kms_backend *backend, const char *name,
                      const struct kms_vault_read *read, const struct kms_vault_version *version,
                      struct kms_key_info *ret)
{
    ret->type = read->type->type;
    ret->bits = read->bits;
    ret->uses = uses_of(read, version->version);
    ret->extractable = read->exportable || read->backup;
    ret->always_sensitive = !ret->extractable && !read->imported;
    ret->never_extractable = ret->always_sensitive; /* exportable, once set, stays */
    ret->local = !read->imported;
    ret->seal = (ret->uses & KMS_USE_ENCRYPT) != 0 ? read->type->seal : KMS_ALG_NONE;
    ret->algs = kms_vault_type_algs(read->type);
    ret->latest = version->version == read->latest;
    (void)snprintf(ret->label, sizeof(ret->label), "%s", name);
    (void)snprintf(ret->version, sizeof(ret->version), "%" PRIu64, version->version);
    put_name(backend, name, version->version, ret);
}

enum kms_status kms_vault_describe_key(const struct kms_backend *backend, const char *name,
                                       const struct kms_vault_read *read, size_t at,
                                       struct kms_key_info *ret_info, struct kms_vault_key *ret_key,
                                       struct kms_error *err)
{
    const struct kms_vault_version *version = &read->versions[at];
    uint8_t digest[KMS_VAULT_DIGEST];

    memset(ret_info, 0, sizeof(*ret_info));
    if (!hash_identity(backend, name, version, digest)) {
        return kms_error_set(err, KMS_E_INTERNAL, "OpenSSL computes no SHA-256");
    }
    memcpy(ret_info->id, "kbv1-", 5);
    if (kms_hex_encode(kms_span_of(digest, ID_BYTES), ret_info->id + 5, sizeof(ret_info->id) - 5) !=
        KMS_OK) {
        return kms_error_set(err, KMS_E_INTERNAL, "no room for a key id");
    }
    memcpy(ret_info->ref, ret_info->id, sizeof(ret_info->id));
    memcpy(ret_info->tag, digest, ID_BYTES);
    ret_info->tag_len = ID_BYTES;
    ret_info->order = version->version;
    fill_info(backend, name, read, version, ret_info);
    *ret_key = (struct kms_vault_key){.version = version->version,
                                      .type = read->type,
                                      .bits = read->bits,
                                      .uses = ret_info->uses};
    memcpy(ret_key->id, ret_info->id, sizeof(ret_key->id));
    if (strncmp(version->created, KMS_VAULT_MARK, strlen(KMS_VAULT_MARK)) == 0) {
        (void)snprintf(ret_key->mark, sizeof(ret_key->mark), "%.*s", (int)sizeof(ret_key->mark) - 1,
                       version->created);
    }
    (void)snprintf(ret_key->name, sizeof(ret_key->name), "%s", name);
    return KMS_OK;
}
