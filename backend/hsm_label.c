/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renaming a key. Its public half and its companion bear its label and go with it: the companion
 * first, since a key that cannot find it would be taken for another. What was renamed before a
 * failure gets its old label back.
 */
#include <stdio.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"

#define LABEL_SIZE (KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX))

struct job {
    struct kms_backend *backend;
    const char *ref;
    const char *label;
};

/* One of the key's objects, and what it was called. */
struct named {
    CK_OBJECT_HANDLE handle;
    char before[LABEL_SIZE];
    char after[LABEL_SIZE];
};

#define NAMED_MAX 3 /* companion, public half, the key itself */

struct names {
    struct named rows[NAMED_MAX];
    size_t count;
};

static void add(struct names *names, CK_OBJECT_HANDLE handle, const char *before, const char *after,
                const char *suffix)
{
    struct named *row = &names->rows[names->count++];

    row->handle = handle;
    (void)snprintf(row->before, sizeof(row->before), "%s%s", before, suffix);
    (void)snprintf(row->after, sizeof(row->after), "%s%s", after, suffix);
}

static CK_RV find_public(struct kms_p11 *p, const struct kms_hsm_key *key,
                         struct kms_p11_objects *ret_found)
{
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_number(&t, CKA_CLASS, CKO_PUBLIC_KEY);
    kms_p11_put_number(&t, CKA_KEY_TYPE, key->key_type);
    kms_p11_put_bytes(&t, CKA_LABEL, key->info.label, strlen(key->info.label));
    kms_p11_put_bytes(&t, CKA_ID, key->info.tag, key->info.tag_len);
    return kms_p11_find(p, &t, ret_found);
}

static CK_RV collect(struct kms_p11 *p, const struct kms_hsm_key *key, const char *label,
                     struct names *ret_names)
{
    struct kms_p11_objects found = {.handles = NULL, .count = 0};
    CK_RV rv = CKR_OK;

    if (key->mac != CK_INVALID_HANDLE) {
        add(ret_names, key->mac, key->info.label, label, KMS_HSM_MAC_SUFFIX);
    }
    if (key->public_key != NULL && key->info.tag_len > 0) {
        rv = find_public(p, key, &found);
    }
    if (rv == CKR_OK && found.count == 1) { /* of two, which is its own is a guess */
        add(ret_names, found.handles[0], key->info.label, label, "");
    }
    kms_p11_objects_done(&found);
    add(ret_names, key->handle, key->info.label, label, "");
    return rv;
}

static CK_RV set(struct kms_p11 *p, CK_OBJECT_HANDLE handle, const char *label)
{
    CK_ATTRIBUTE row = {CKA_LABEL, kms_p11_in(label), strlen(label)};

    return KMS_P11(p, C_SetAttributeValue)(p->session, handle, &row, 1);
}

static CK_RV rename_all(struct kms_p11 *p, const struct names *names)
{
    CK_RV rv = CKR_OK;
    size_t done = 0;

    for (done = 0; done < names->count && rv == CKR_OK; done++) {
        rv = set(p, names->rows[done].handle, names->rows[done].after);
    }
    for (size_t i = 0; rv != CKR_OK && i + 1 < done; i++) {
        const char *before = names->rows[i].before;
        CK_ATTRIBUTE row = {CKA_LABEL, kms_p11_in(before), strlen(before)};

        (void)p->functions->C_SetAttributeValue(p->session, names->rows[i].handle, &row, 1);
    }
    return rv;
}

/* The table learns of it: what bore the old label, and what bears the new one. */
static CK_RV look_again(struct kms_p11 *p, struct kms_backend *b, const struct kms_hsm_key *key,
                        const char *label)
{
    const char *const labels[] = {key->info.label, label};
    CK_RV rv = CKR_OK;

    p->refresh = true;
    for (size_t i = 0; i < 2 && rv == CKR_OK; i++) {
        struct kms_key_filter filter = {.label = labels[i],
                                        .tag = kms_span_of(key->info.tag, key->info.tag_len)};
        struct kms_hsm_keys found = {.keys = NULL, .count = 0};

        rv = kms_hsm_scan(b, p, &filter, &found);
        kms_hsm_keys_done(&found);
    }
    return rv;
}

static CK_RV label_step(struct kms_p11 *p, void *ctx)
{
    const struct job *job = ctx;
    struct kms_hsm_key *key = NULL;
    struct names names = {.count = 0};
    CK_RV rv = CKR_OK;

    p->refresh = true; /* nothing is renamed by a handle remembered from before */
    rv = kms_hsm_key_get(job->backend, p, job->ref, &key);
    if (rv != CKR_OK || strcmp(key->info.label, job->label) == 0) {
        goto out;
    }
    rv = collect(p, key, job->label, &names);
    if (rv == CKR_OK) {
        rv = rename_all(p, &names);
    }
    if (rv == CKR_OK) {
        rv = look_again(p, job->backend, key, job->label);
    }
out:
    kms_hsm_key_put(key);
    return rv;
}

enum kms_status kms_hsm_set_label(struct kms_backend *b, struct kms_call *call, const char *ref,
                                  const char *label)
{
    struct job job = {.backend = b, .ref = ref, .label = label};

    if (label == NULL || label[0] == '\0' || strlen(label) >= KMS_LABEL_MAX) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a label has 1 to %d bytes",
                             KMS_LABEL_MAX - 1);
    }
    return kms_hsm_run(b, call, KMS_P11_WRITE, label_step, &job);
}
