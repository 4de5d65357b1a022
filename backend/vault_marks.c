/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands for a creation time in the identity of an HMAC key's version: vault.h.
 *
 * Of an HMAC key Transit tells the numbers of its versions and nothing else (GET keys/NAME of
 * OpenBao 2.7: no "keys"), and a MAC is made by one version for each request (key_version of a
 * batch's items is not looked at). So each mark costs a request, once: while the newest version
 * that we know has the mark that it had, the key is the one that it was, and the marks of its older
 * versions are what they were, since Transit only ever adds versions. Reading a key that is known
 * costs one request more than reading another one, and one for each new version. An imported key
 * is the exception: any version of it may be made again from anything, so all are asked about.
 */
#include <stdio.h>
#include <string.h>

#include "backend/vault_parts.h"
#include "common/codec.h"
#include "common/log.h"

#define MARK_BYTES 16

static enum kms_status ask_mark(struct kms_backend *backend, struct kms_call *call,
                                const struct kms_vault_key *key, struct kms_vault_version *version)
{
    const struct kms_vault_sign *row = kms_vault_sign_for(KMS_ALG_HMAC_SHA256);
    size_t at = strlen(KMS_VAULT_MARK);
    uint8_t mark[32];
    struct kms_buf out = KMS_BUF_OVER(mark);
    enum kms_status status =
        kms_vault_mac_of(backend, call, key, row, kms_span_str("kmsbridge vault key id v1"), &out);

    if (status == KMS_E_KEY_STATE) { /* below min_encryption_version it makes none */
        kms_error_clear(&call->error);
        return KMS_OK;
    }
    if (status == KMS_OK) {
        memcpy(version->created, KMS_VAULT_MARK, at + 1);
        status = kms_hex_encode(kms_span_of(mark, MARK_BYTES), version->created + at,
                                sizeof(version->created) - at);
    }
    return status;
}

struct marking {
    bool is_same;    /* a version of the key as we know it has its mark still */
    bool is_another; /* one has not: nothing that we know counts */
};

static enum kms_status mark_version(struct kms_backend *backend, struct kms_call *call,
                                    struct kms_vault_key *key, const struct kms_vault_read *read,
                                    struct kms_vault_version *version, struct marking *marking)
{
    enum kms_status status = KMS_OK;

    if (version->created[0] != '\0' || version->version < read->min_encrypt) {
        return KMS_OK;
    }
    if (marking->is_same && version->recalled[0] != '\0') {
        memcpy(version->created, version->recalled, sizeof(version->recalled));
        return KMS_OK;
    }
    key->version = version->version;
    status = ask_mark(backend, call, key, version);
    if (version->recalled[0] != '\0' && version->created[0] != '\0') {
        bool is_same = strcmp(version->recalled, version->created) == 0;

        marking->is_another = marking->is_another || !is_same;
        marking->is_same = is_same && !marking->is_another && !read->imported;
    }
    return status;
}

static void leave_out_unmarked(struct kms_vault_read *read)
{
    size_t count = read->count;

    read->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (read->versions[i].created[0] != '\0') {
            read->versions[read->count++] = read->versions[i];
        }
    }
}

enum kms_status kms_vault_take_marks(struct kms_backend *backend, struct kms_call *call,
                                     const char *name, struct kms_vault_read *read)
{
    struct kms_vault_key key = {.type = read->type, .bits = read->bits};
    struct marking marking = {.is_same = false};
    enum kms_status status = KMS_OK;

    (void)snprintf(key.name, sizeof(key.name), "%s", name);
    kms_vault_table_recall(&backend->table, name, read);
    for (size_t i = read->count; status == KMS_OK && i-- > 0;) {
        status = mark_version(backend, call, &key, read, &read->versions[i], &marking);
    }
    if (status == KMS_E_DENIED) {
        kms_log_error(KMS_LOG_DEBUG, &call->error, "backend %s: key %s is not shown",
                      backend->conf->name, name);
        kms_error_clear(&call->error);
        read->count = 0;
        return KMS_OK;
    }
    leave_out_unmarked(read);
    return status;
}
