/* SPDX-License-Identifier: Apache-2.0 */
/* Destroying keys, with all that belongs to them. */
#include <string.h>

#include "backend/hsm_parts.h"
#include "common/clock.h"

#define DESTROY_MAX 1000 /* objects of one key's material */

struct doomed {
    struct kms_backend *backend;
    const char *ref;
    unsigned destroyed;
};

static CK_RV destroy_public(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    struct kms_p11_template t = {.count = 0};
    struct kms_p11_objects found;
    CK_RV rv = CKR_OK;

    if (key->public_key == NULL || key->info.tag_len == 0) {
        return CKR_OK;
    }
    kms_p11_put_number(&t, CKA_CLASS, CKO_PUBLIC_KEY);
    kms_p11_put_number(&t, CKA_KEY_TYPE, key->key_type);
    kms_p11_put_bytes(&t, CKA_LABEL, key->info.label, strlen(key->info.label));
    kms_p11_put_bytes(&t, CKA_ID, key->info.tag, key->info.tag_len);
    rv = kms_p11_find(p, &t, &found);
    for (size_t i = 0; i < found.count && rv == CKR_OK; i++) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, found.handles[i]);
    }
    kms_p11_objects_done(&found);
    return rv;
}

/* The companion and the public half first: what is left when that fails can be destroyed again. */
static CK_RV destroy_one(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    CK_RV rv = destroy_public(p, key);

    if (rv == CKR_OK && key->mac != CK_INVALID_HANDLE) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, key->mac);
    }
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, key->handle);
    }
    return rv;
}

/* Every object with this material goes: a key that is destroyed is not to be found again. */
static CK_RV destroy_step(struct kms_p11 *p, void *ctx)
{
    struct doomed *doomed = ctx;
    CK_RV rv = CKR_OK;

    for (;;) {
        struct kms_hsm_key *key = NULL;

        p->refresh = true; /* nothing is destroyed by a handle remembered from before */
        rv = kms_hsm_key_get(doomed->backend, p, doomed->ref, &key);
        if (rv != CKR_OK && doomed->destroyed > 0 && p->ask->err->status == KMS_E_NOT_FOUND) {
            kms_error_clear(p->ask->err);
            return CKR_OK;
        }
        if (rv == CKR_OK) {
            atomic_fetch_add(&doomed->backend->destroys, 1); /* before anybody misses it */
            rv = destroy_one(p, key);
        }
        kms_hsm_key_put(key);
        if (rv != CKR_OK) {
            return rv;
        }
        doomed->destroyed++;
        if (doomed->destroyed == DESTROY_MAX || kms_deadline_passed(p->ask->deadline_ns)) {
            (void)kms_error_set(p->ask->err, KMS_E_TIMEOUT,
                                "%s: %u objects of the key were destroyed, and it may not be gone",
                                kms_p11_token_name(doomed->backend->token), doomed->destroyed);
            return CKR_FUNCTION_CANCELED;
        }
    }
}

enum kms_status kms_hsm_destroy(struct kms_backend *b, struct kms_call *call, const char *ref)
{
    struct doomed doomed = {.backend = b, .ref = ref};

    return kms_hsm_run(b, call, KMS_P11_WRITE, destroy_step, &doomed);
}
