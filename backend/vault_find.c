/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a key by its ref. */
#include <stdio.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/clock.h"
#include "common/numbers.h"

#define LACKING_NS KMS_NS_PER_S /* how long a use that a key lacks is not asked for anew */

static enum kms_status find_known(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, struct kms_vault_key *ret_key)
{
    bool stale = false;

    if (kms_vault_table_find(&backend->table, ref, ret_key, &stale)) {
        return KMS_OK;
    }
    return kms_error_set(&call->error, KMS_E_NOT_FOUND,
                         "Transit has no key %s (any more) that we can see in %s", ref,
                         backend->mount);
}

struct oldest {
    uint64_t version; /* 0: none was shown */
};

static bool keep_oldest(void *ctx, const struct kms_key_info *info)
{
    struct oldest *oldest = ctx;

    return kms_parse_u64(info->version, 1, INT32_MAX, &oldest->version) != KMS_OK;
}

/*
 * A key is there by its name, but not that version of it. One that is older than those that it
 * shows is told as Transit does who decrypts with it: whether it is the same key, it does not say
 * either.
 */
static enum kms_status tell_lost(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const char *name, const struct oldest *oldest)
{
    struct kms_vault_lost lost = {.version = 0};

    /* reworded: the request that told us so has its id there already */
    return kms_vault_table_lost(&backend->table, ref, &lost) && lost.version < oldest->version
               ? kms_error_reword(&call->error, KMS_E_KEY_STATE,
                                  "version %llu of key %s is too old by the key's own bounds "
                                  "(min_decryption_version, min_encryption_version)",
                                  (unsigned long long)lost.version, name)
               : kms_error_reword(&call->error, KMS_E_NOT_FOUND,
                                  "no version of %s/keys/%s that we can see is %s (any more)",
                                  backend->mount, name, ref);
}

/*
 * What is known of it is old, or that it is gone. The name is known, so that the key itself is
 * asked for, which needs no right but to read it: 404 says that there is none, and 403 that we may
 * not.
 */
static enum kms_status read_again(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const char *name, struct kms_vault_key *ret_key)
{
    struct oldest oldest = {.version = 0};
    bool stale = false;
    enum kms_status status = kms_vault_read(backend, call, name, keep_oldest, &oldest);

    if (status == KMS_E_NOT_FOUND) {
        return kms_error_reword(&call->error, KMS_E_NOT_FOUND,
                                "Transit has no key %s (any more): %s", name, call->error.text);
    }
    if (status != KMS_OK || kms_vault_table_find(&backend->table, ref, ret_key, &stale)) {
        return status;
    }
    return tell_lost(backend, call, ref, name, &oldest);
}

/* Known, and read lately; or what is not known is looked for in the whole mount. */
static enum kms_status look_up(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               struct kms_vault_key *ret_key)
{
    struct kms_vault_lost lost;
    enum kms_status status = KMS_OK;
    bool stale = false;
    bool mine = false;

    if (kms_vault_table_find(&backend->table, ref, ret_key, &stale)) {
        return stale ? read_again(backend, call, ref, ret_key->name, ret_key) : KMS_OK;
    }
    if (kms_vault_table_lost(&backend->table, ref, &lost)) {
        return read_again(backend, call, ref, lost.name, ret_key);
    }
    status = kms_vault_table_may_list(&backend->table, call, &mine);
    if (mine) {
        status = kms_vault_read_all(backend, call);
        kms_vault_table_listed(&backend->table, status == KMS_OK);
    }
    return status == KMS_OK ? find_known(backend, call, ref, ret_key) : status;
}

enum kms_status kms_vault_find(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               enum kms_alg alg, unsigned use, struct kms_vault_key *ret_key)
{
    enum kms_status status = look_up(backend, call, ref, ret_key);
    struct kms_alg_set algs;

    if (status != KMS_OK) {
        return status;
    }
    algs = kms_vault_type_algs(ret_key->type);
    if ((alg != KMS_ALG_NONE && !kms_alg_set_has(&algs, alg)) ||
        ((ret_key->type->seal_uses | ret_key->type->open_uses) & use) != use) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "key %s (%s) does no %s",
                             ret_key->name, ret_key->type->name, kms_alg_name(alg));
    }
    if ((ret_key->uses & use) != use && kms_now_ns() - ret_key->seen_ns > LACKING_NS) {
        /* it may have been allowed again */
        status = read_again(backend, call, ref, ret_key->name, ret_key);
        if (status != KMS_OK) {
            return status;
        }
    }
    if ((ret_key->uses & use) != use) {
        return kms_error_reword(&call->error, KMS_E_KEY_STATE,
                                "version %llu of key %s is not for that any more "
                                "(min_encryption_version, min_decryption_version, or soft-deleted)",
                                (unsigned long long)ret_key->version, ret_key->name);
    }
    return KMS_OK;
}
