/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One token, kept usable: found by label or URI, logged in once, with a bounded pool of sessions,
 * and repaired when a call's return value says that something broke. A caller hands
 * kms_p11_run() a step; the step gets a session and makes its calls; what it returns is looked up
 * in ckr.c, the damage is repaired, and the step runs again, all inside the caller's deadline.
 *
 * Thread-safe. No lock is held across a call into the module. Repairs happen in a caller's thread,
 * one at a time; there is no thread of our own.
 */
#ifndef KMS_BACKEND_P11_TOKEN_H
#define KMS_BACKEND_P11_TOKEN_H

#include "backend/p11/p11.h"

/* All borrowed, and must outlive the token. */
struct kms_p11_token_conf {
    const char *name; /* the backend's, for error texts */
    const char *module;
    const char *token;     /* label or pkcs11: URI */
    const char *pin;       /* reference, or NULL */
    const char *init_args; /* or NULL */
    unsigned sessions;
};

struct kms_p11_state {
    bool ready;
    unsigned open;
    unsigned busy;
    unsigned max;
    uint64_t repairs;  /* sessions reopened, logins repeated, modules reinitialised */
    uint64_t stuck_ns; /* how long the oldest call has been inside the module, 0: none is */
};

/* Checks the configuration's syntax; touches neither module nor token. KMS_E_INVALID. */
enum kms_status kms_p11_token_new(const struct kms_p11_token_conf *conf,
                                  struct kms_p11_token **ret_token,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* No call is in flight. NULL is fine. */
void kms_p11_token_free(struct kms_p11_token *token);

/* From memory, never blocks on the module. @ret_err: why it is not ready. */
void kms_p11_token_state(struct kms_p11_token *token, struct kms_p11_state *ret_state,
                         struct kms_error *ret_err);

/*
 * Makes calls on p->session, between which it may look at p->ask. Returns the first return value
 * that is not CKR_OK. When it sets ask->err itself, the session is taken to be sound and that error
 * is final. It must leave no operation active on the session, except by CKR_BUFFER_TOO_SMALL.
 */
typedef CK_RV (*kms_p11_step)(struct kms_p11 *p, void *ctx);

enum kms_p11_mode {
    KMS_P11_READ, /* p->session is one of the pool's, read-only */
    KMS_P11_WRITE /* p->session is read-write and closed afterwards */
};

/* Runs @step until it succeeds, fails for good, has set p->committed, or the deadline passes. */
enum kms_status kms_p11_run(struct kms_p11_token *token, enum kms_p11_mode mode,
                            const struct kms_p11_ask *ask, kms_p11_step step,
                            void *ctx) KMS_MUST_CHECK;

/* Whether the token lists @mechanism, for all of the CKF_ @uses. Only inside a step. */
bool kms_p11_can(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses);
/* For one of them at least. */
bool kms_p11_offers(const struct kms_p11 *p, CK_MECHANISM_TYPE mechanism, CK_FLAGS uses);
/* Whether the token says that any of its mechanisms is done by hardware. */
bool kms_p11_is_hardware(const struct kms_p11 *p);
/* As it was when we connected; good for the step. */
const CK_TOKEN_INFO *kms_p11_token_info(const struct kms_p11 *p);

/*
 * CKR_USER_NOT_LOGGED_IN when the login was lost. Whoever is about to say that an object does not
 * exist asks this first: private objects do not exist for who is not logged in.
 */
CK_RV kms_p11_check_login(struct kms_p11 *p);

/*
 * Gives the step a fresh session, after a failure that may have left the old one in any state. When
 * it fails the step is over.
 */
CK_RV kms_p11_renew(struct kms_p11 *p);

struct kms_p11_uri;
/* Whether the token that the step runs on is the one that @uri means. */
bool kms_p11_is_on(const struct kms_p11 *p, const struct kms_p11_uri *uri);

const char *kms_p11_token_name(const struct kms_p11_token *token);

#endif
