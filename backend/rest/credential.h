/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A credential that ends, kept and renewed: taken from its source when first needed, refreshed
 * ahead of its end by one caller while the others go on with the old one, and once more when the
 * service refuses it. The source reads its files anew at each refresh.
 *
 * Threads: any. A value is counted: it stays as it is until its last holder gives it back, then it
 * is wiped. No lock is held while the source works.
 */
#ifndef KMS_BACKEND_REST_CREDENTIAL_H
#define KMS_BACKEND_REST_CREDENTIAL_H

#include <stdatomic.h>
#include <stdint.h>

#include "backend/rest/http.h"
#include "common/status.h"

#define KMS_CREDENTIAL_PARTS    3
#define KMS_CREDENTIAL_PART_MAX 16384 /* bytes of one part: STS tokens are long */

/* A token alone, or access key id, secret and security token. Secure memory. */
struct kms_credential_value {
    const char *part[KMS_CREDENTIAL_PARTS]; /* NULL where the kind has none */
    uint64_t taken_ns;                      /* when, kms_now_ns() scale */
    uint64_t expires_ns;                    /* KMS_DEADLINE_NONE: never */
    uint64_t refresh_ns; /* when to look for the next; KMS_DEADLINE_NONE: never */
    uint64_t number;     /* counts the values of this credential, from 1 */
    unsigned flags;      /* the source's own: "can be renewed" */
};

/* What a source hands over; parts are borrowed for kms_credential_put(). */
struct kms_credential_offer {
    const char *part[KMS_CREDENTIAL_PARTS];
    uint64_t lifetime_ns; /* from now; KMS_DEADLINE_NONE: for ever */
    uint64_t
        refresh_ns; /* from now, when the next is looked for; 0: at three quarters of the
                       lifetime, jittered. For a static credential: how often it is read anew */
    unsigned flags;
};

struct kms_credential_slot; /* where a source puts what it got */

/*
 * Copies @offer; the last one counts. KMS_E_TOO_LARGE, KMS_E_NOMEM.
 */
enum kms_status kms_credential_put(struct kms_credential_slot *slot,
                                   const struct kms_credential_offer *offer,
                                   struct kms_error *err) KMS_MUST_CHECK;

struct kms_credential_source {
    const char *name; /* "approle", "rrsa": error texts begin with it */
    /*
     * Gets a credential within @wait and offers it to @slot, once. @old is the one that is to be
     * renewed, NULL for the first or after a refusal. Called by one thread at a time. Errors say
     * what was asked and why it failed, and are KMS_E_AUTH when the source itself was refused.
     */
    enum kms_status (*fetch)(void *ctx, const struct kms_http_wait *wait,
                             const struct kms_credential_value *old,
                             struct kms_credential_slot *slot, struct kms_error *err);
    void *ctx;
};

struct kms_credential;

struct kms_credential *kms_credential_new(const struct kms_credential_source *source);
void kms_credential_free(struct kms_credential *credential); /* NULL is fine; all values are back */

/*
 * The credential to use now; the caller gives it back. Who comes first in the time of refreshing
 * fetches the next one, inside half of its own deadline, and when that fails goes on with the old
 * one while it is good (the failure is logged, and tried again later). Without a good one, one
 * caller fetches and the others wait. A failure is remembered for a second (a tenth of it when it
 * may pass by itself), so that a source that is down is not asked by every call. Errors: "<source>:
 * why", KMS_E_AUTH for whatever is wrong with source or credential; KMS_E_TIMEOUT, KMS_E_CANCELLED.
 */
enum kms_status kms_credential_get(struct kms_credential *credential,
                                   const struct kms_http_wait *wait,
                                   const struct kms_credential_value **ret_value,
                                   struct kms_error *err) KMS_MUST_CHECK;
void kms_credential_give(struct kms_credential *credential,
                         const struct kms_credential_value *value); /* NULL is fine */

/*
 * The service refused @value (unknown, expired, revoked). True: the next kms_credential_get() has
 * another one (fetched now, or somebody has done so already), and asking again is worth it, once.
 * False: the value was fetched less than a second ago, so that a new one would not help.
 */
bool kms_credential_refused(struct kms_credential *credential,
                            const struct kms_credential_value *value) KMS_MUST_CHECK;

/* Why the last fetch failed; KMS_OK when it did not. For health. */
void kms_credential_trouble(struct kms_credential *credential, struct kms_error *ret_error);

#endif
