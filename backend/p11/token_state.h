/* SPDX-License-Identifier: Apache-2.0 */
/* The token's insides, shared by token.c (what it is), up.c (being connected),
 * connect.c (slot, login), run.c (one call) and pool.c. */
#ifndef KMS_BACKEND_P11_TOKEN_STATE_H
#define KMS_BACKEND_P11_TOKEN_STATE_H

#include <pthread.h>

#include "backend/p11/ckr.h"
#include "backend/p11/module.h"
#include "backend/p11/token.h"
#include "backend/p11/uri.h"
#include "common/secret.h"

#define KMS_P11_MECHANISMS_MAX 512
#define KMS_P11_BACKOFF_MIN_NS (100 * KMS_NS_PER_MS)
#define KMS_P11_BACKOFF_MAX_NS (5 * KMS_NS_PER_S)
#define KMS_P11_RESTART_MIN_NS (1 * KMS_NS_PER_S) /* between restarts on suspicion */
#define KMS_P11_RESTART_MAX_NS (10 * KMS_NS_PER_S)
#define KMS_P11_PIN_REREAD_NS  (1 * KMS_NS_PER_S)  /* how often a refused PIN's source is read */
#define KMS_P11_STUCK_NS       (1 * KMS_NS_PER_S)  /* a call inside for so long counts as stuck */
#define KMS_P11_TRIAL_NS       (10 * KMS_NS_PER_S) /* how often a wedged module gets another call */
#define KMS_P11_COUNT_NS       (10 * KMS_NS_PER_S) /* how long CKR_SESSION_COUNT is remembered */
#define KMS_P11_CALM_NS        (10 * KMS_NS_PER_S) /* up for so long: what was before is forgotten */
#define KMS_P11_DRAIN_NS       (2 * KMS_NS_PER_S)  /* how long a restart waits for calls inside */

/* One session of the pool. The taker owns all but entered_ns. */
struct kms_p11_slot {
    CK_SESSION_HANDLE session;       /* CK_INVALID_HANDLE: not open */
    CK_SESSION_HANDLE write_session; /* KMS_P11_WRITE's own */
    uint64_t epoch;                  /* of the module's start that it was opened under */
    bool lost; /* stuck, and a call that went in after it came back; guarded by the token's lock */
    atomic_uint_fast64_t entered_ns; /* when its taker went into the module, 0: nobody is in */
};

/* What a connect has to begin with. Each failed one goes on where it stopped. */
enum kms_p11_need { KMS_P11_NEED_START, KMS_P11_NEED_SLOT, KMS_P11_NEED_LOGIN };

enum kms_p11_phase { KMS_P11_DOWN, KMS_P11_CONNECTING, KMS_P11_UP };

struct kms_p11_mechanism {
    CK_MECHANISM_TYPE type;
    CK_FLAGS flags;
};

struct kms_p11_token {
    struct kms_p11_token_conf conf;
    struct kms_p11_uri *uri; /* NULL: conf.token is a label */

    /* Written by the one connecting thread while phase is CONNECTING, read while it is UP. */
    struct kms_p11_module *module; /* NULL until loaded */
    const CK_FUNCTION_LIST *functions;
    CK_SLOT_ID slot_id;
    CK_TOKEN_INFO info; /* as it was when we connected */
    struct kms_p11_mechanism mechanisms[KMS_P11_MECHANISMS_MAX];
    size_t mechanism_count;
    bool logs_in;                   /* a PIN is configured and the token wants one */
    struct kms_secret *refused_pin; /* never tried again */
    CK_SESSION_HANDLE anchor; /* kept open and unused: with its last session a token logs out */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    enum kms_p11_phase phase;
    enum kms_p11_need need;
    uint64_t epoch;      /* the module's, of this connection */
    uint64_t generation; /* object handles are good for one */
    uint64_t next_try_ns;
    uint64_t backoff_ns; /* 0 once it has worked for KMS_P11_CALM_NS */
    uint64_t up_since_ns;
    uint64_t successes;         /* calls that succeeded in this generation */
    uint64_t next_suspicion_ns; /* when a working token may be restarted on suspicion again */
    uint64_t suspicion_pause_ns;
    uint64_t connecting_since_ns;
    uint64_t last_return_ns; /* when a call last came back from the module */
    uint64_t last_trial_ns;
    uint64_t repairs;
    struct kms_error cause; /* why it is down */
    /* the pool: a stack of the free ones; those above were used last, so they are open */
    struct kms_p11_slot *slots;
    struct kms_p11_slot **free_slots;
    unsigned slot_count; /* the configuration's bound */
    unsigned free_count;
    unsigned busy;
    unsigned bound; /* of this connection: the token's own may be lower */
    unsigned limit; /* the bound in force: lower for a while after CKR_SESSION_COUNT */
    uint64_t limit_until_ns;
    unsigned open;
};

/* connect.c: from token->need to a logged-in token. Called by the one connecting thread, unlocked.
 */
enum kms_status kms_p11_connect(struct kms_p11_token *token, const struct kms_p11_ask *ask,
                                enum kms_p11_need *need, uint64_t *epoch, unsigned *ret_limit,
                                struct kms_error *err) KMS_MUST_CHECK;

/* up.c */
/* A slot of a connected token, with the connection's epoch and generation. */
enum kms_status kms_p11_take(struct kms_p11_token *token, const struct kms_p11_ask *ask,
                             struct kms_p11 *ret_p, uint64_t *ret_epoch) KMS_MUST_CHECK;
/* Notes that the connection of @generation needs @action; others may have noted it before. */
void kms_p11_break_locked(struct kms_p11_token *token, uint64_t generation,
                          enum kms_p11_action action, const struct kms_error *cause);

/* pool.c */
enum kms_status kms_p11_pool_init(struct kms_p11_token *token,
                                  struct kms_error *err) KMS_MUST_CHECK;
void kms_p11_pool_done(struct kms_p11_token *token);
/* Takes a free one, open if there is one, or NULL. */
struct kms_p11_slot *kms_p11_pool_take_locked(struct kms_p11_token *token);
void kms_p11_pool_give_locked(struct kms_p11_token *token, struct kms_p11_slot *slot);
/* The token has no more sessions than are open now. */
void kms_p11_pool_full_locked(struct kms_p11_token *token);
/* Age of the oldest call inside the module, and how many are older than KMS_P11_STUCK_NS. */
uint64_t kms_p11_pool_oldest_ns(const struct kms_p11_token *token, unsigned *ret_stuck);
/* A call that went in at @entered_ns came back: the stuck ones before it are lost, not the module.
 */
void kms_p11_pool_lose_locked(struct kms_p11_token *token, uint64_t entered_ns);
/* How many are stuck and not known as lost. */
unsigned kms_p11_pool_unexplained_locked(const struct kms_p11_token *token);
/* Opens what @mode needs. */
CK_RV kms_p11_slot_open(struct kms_p11_token *token, struct kms_p11_slot *slot,
                        enum kms_p11_mode mode, uint64_t epoch, bool *ret_opened,
                        const char **ret_function);
void kms_p11_slot_close(struct kms_p11_token *token, struct kms_p11_slot *slot);

#endif
