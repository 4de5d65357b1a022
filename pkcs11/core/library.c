/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/library.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "pkcs11/core/init_args.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/slots.h"
#include "pkcs11/core/soft_alive.h"

#define FINALIZE_WAIT_NS (2 * KMS_NS_PER_S) /* for calls inside */
#define DEPTH_MAX        8                  /* a call of ours that comes back to us, see enter */

/* What one C_Initialize made. */
struct world {
    atomic_uint refs; /* the library's own, and one for each call inside */
    atomic_bool cancelled;
    struct kms_agent *agent;
    struct kms_slots *slots;
    struct kms_sessions *sessions;
    struct world *left; /* those that nobody frees any more, kept in sight of leak checkers */
};

static struct {
    pthread_mutex_t mutex; /* guards changes of world, left and registered */
    _Atomic(struct world *) world;
    atomic_uint entering;     /* threads between reading world and counting themselves into it */
    atomic_uint epoch;        /* forks since we were loaded */
    atomic_uint_least64_t at; /* the process and epoch that all this belongs to; see here() */
    struct world *left;
    bool registered;
} lib = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/*
 * The calls that this thread is in. More than one only where libcrypto, loading the host's
 * configuration on our behalf, loads this very module into a provider or engine.
 */
static _Thread_local struct {
    unsigned depth;
    struct {
        struct world *world;
        int saved_errno;
        int cancel;
    } call[DEPTH_MAX];
} inside;

/* ---- fork ------------------------------------------------------------------------------------ */

/* All that is safe in a child of many threads: counting. */
static void count_fork(void)
{
    atomic_fetch_add(&lib.epoch, 1);
}

#define SETTLING (UINT64_C(1) << 63)

/* The epoch, for a process id that was used twice; the id, for clone(), which runs no handlers. */
static uint64_t here(void)
{
    return (uint64_t)(atomic_load(&lib.epoch) & 0x7fffffffu) << 32 | (uint32_t)getpid();
}

/* In a child: what the parent had is dropped. Its locks may be held for ever, its memory may be
 * half changed: nothing is freed, nothing is sent. */
static void drop_parents(void)
{
    struct world *world = atomic_exchange(&lib.world, NULL);

    lib.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&lib.entering, 0);
    kms_p11_log_forked();
    kms_slots_forked();
    if (world != NULL) {
        kms_agent_forked(world->agent);
        world->left = lib.left;
        lib.left = world;
    }
}

/* The first to come settles; others, there are threads in a child too, wait for it. */
static void settle(void)
{
    const uint64_t now = here();
    uint64_t at = atomic_load(&lib.at);

    while (at != now) {
        if (at == (now | SETTLING)) {
            (void)sched_yield();
            at = atomic_load(&lib.at);
        } else if (atomic_compare_exchange_strong(&lib.at, &at, now | SETTLING)) {
            if (at != 0) {
                drop_parents();
            }
            atomic_store(&lib.at, now);
            at = now;
        }
    }
}

/* ---- one C_Initialize's world ---------------------------------------------------------------- */

static void world_free(struct world *world)
{
    if (kms_soft_alive()) {
        kms_sessions_free(world->sessions);
        kms_slots_free(world->slots);
        kms_agent_unref(world->agent);
        free(world);
        return;
    }
    /* keys and operations hold objects of a libcrypto that is no more: left to the end of all */
    kms_agent_unref(world->agent);
    world->agent = NULL;
    (void)pthread_mutex_lock(&lib.mutex);
    world->left = lib.left;
    lib.left = world;
    (void)pthread_mutex_unlock(&lib.mutex);
}

static void world_unref(struct world *world)
{
    if (atomic_fetch_sub(&world->refs, 1) == 1) {
        world_free(world);
    }
}

static CK_RV world_new(const struct kms_init_args *args, struct world **ret_world)
{
    const struct kms_agent_conf conf = {
        .socket = args->agent[0] == '\0' ? NULL : args->agent,
        .private_config = args->config[0] == '\0' ? NULL : args->config,
        .call_timeout_ns = KMS_SLOT_TIMEOUT_NS,
    };
    struct kms_error err = KMS_ERROR_INIT;
    struct world *world = calloc(1, sizeof(*world));

    if (world == NULL) {
        return CKR_HOST_MEMORY;
    }
    atomic_init(&world->refs, 1);
    world->sessions = kms_sessions_new();
    if (world->sessions != NULL && kms_agent_new(&conf, &world->agent, &err) == KMS_OK) {
        world->slots = kms_slots_new(world->agent, &world->cancelled);
    }
    if (world->slots == NULL) {
        kms_sessions_free(world->sessions);
        kms_agent_unref(world->agent);
        free(world);
        return kms_p11_refuse(CKR_HOST_MEMORY, "C_Initialize: %s", err.text);
    }
    *ret_world = world;
    return CKR_OK;
}

/* With a reference, or NULL. */
static struct world *world_take(void)
{
    struct world *world = NULL;

    if (atomic_load(&lib.at) != here()) {
        settle();
    }
    atomic_fetch_add(&lib.entering, 1);
    world = atomic_load(&lib.world);
    if (world != NULL) {
        atomic_fetch_add(&world->refs, 1);
    }
    atomic_fetch_sub(&lib.entering, 1);
    return world;
}

/* ---- C_Initialize, C_Finalize ---------------------------------------------------------------- */

static CK_RV initialize(const CK_C_INITIALIZE_ARGS *args)
{
    struct kms_init_args init;
    struct world *world = NULL;
    CK_RV rv = CKR_OK;

    settle();
    rv = kms_init_args_read(args, &init);
    if (rv != CKR_OK) {
        return rv;
    }
    kms_p11_log_start();
    kms_p11_log_start_with(init.log);
    rv = world_new(&init, &world);
    if (rv != CKR_OK) {
        return rv;
    }
    (void)pthread_mutex_lock(&lib.mutex);
    if (!lib.registered) {
        lib.registered = pthread_atfork(NULL, NULL, count_fork) == 0;
    }
    if (atomic_load(&lib.world) != NULL) {
        rv = CKR_CRYPTOKI_ALREADY_INITIALIZED;
    } else {
        atomic_store(&lib.world, world);
    }
    (void)pthread_mutex_unlock(&lib.mutex);
    if (rv != CKR_OK) {
        world_unref(world);
    }
    return rv;
}

CK_RV kms_library_initialize(const CK_C_INITIALIZE_ARGS *args)
{
    const int saved_errno = errno;
    int cancel = 0;
    CK_RV rv = CKR_OK;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    rv = initialize(args);
    (void)pthread_setcancelstate(cancel, NULL);
    errno = saved_errno;
    return rv;
}

/* How many of the references are calls that this very thread is in. */
static unsigned own_calls(const struct world *world)
{
    unsigned count = 0;

    for (unsigned i = 0; i < inside.depth; i++) {
        count += inside.call[i].world == world;
    }
    return count;
}

/* C_Finalize promises that nothing is inside any more; within reason. */
static void wait_for_calls(struct world *world)
{
    const uint64_t deadline = kms_deadline_in(FINALIZE_WAIT_NS);
    const unsigned floor = 1 + own_calls(world);
    const struct timespec nap = {.tv_nsec = (long)KMS_NS_PER_MS};

    atomic_store(&world->cancelled, true);
    while (atomic_load(&world->refs) > floor && !kms_deadline_passed(deadline)) {
        (void)nanosleep(&nap, NULL);
    }
}

CK_RV kms_library_finalize(void)
{
    const int saved_errno = errno;
    struct world *world = NULL;
    int cancel = 0;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    settle();
    (void)pthread_mutex_lock(&lib.mutex);
    world = atomic_exchange(&lib.world, NULL);
    (void)pthread_mutex_unlock(&lib.mutex);
    if (world != NULL) {
        while (atomic_load(&lib.entering) != 0) { /* a few instructions of theirs */
            (void)sched_yield();
        }
        wait_for_calls(world);
        world_unref(world);
    }
    (void)pthread_setcancelstate(cancel, NULL);
    errno = saved_errno;
    return world == NULL ? CKR_CRYPTOKI_NOT_INITIALIZED : CKR_OK;
}

/* ---- every other C_ function ----------------------------------------------------------------- */

CK_RV kms_library_enter(void)
{
    const int saved_errno = errno;
    struct world *world = NULL;
    int cancel = 0;

    if (inside.depth == DEPTH_MAX) {
        return CKR_GENERAL_ERROR;
    }
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    world = world_take();
    if (world == NULL) {
        (void)pthread_setcancelstate(cancel, NULL);
        errno = saved_errno;
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    inside.call[inside.depth].world = world;
    inside.call[inside.depth].saved_errno = saved_errno;
    inside.call[inside.depth].cancel = cancel;
    inside.depth++;
    return CKR_OK;
}

void kms_library_leave(void)
{
    const unsigned at = --inside.depth;
    const int saved_errno = inside.call[at].saved_errno;

    world_unref(inside.call[at].world);
    (void)pthread_setcancelstate(inside.call[at].cancel, NULL);
    errno = saved_errno;
}

static struct world *current(void)
{
    return inside.call[inside.depth - 1].world;
}

CK_RV kms_library_slots(bool refresh, struct kms_slot ***ret_slots, size_t *ret_count)
{
    return kms_slots_list(current()->slots, refresh, ret_slots, ret_count);
}

CK_RV kms_library_slot(CK_SLOT_ID id, struct kms_slot **ret_slot)
{
    return kms_slots_get(current()->slots, id, ret_slot);
}

CK_RV kms_session_share(CK_SESSION_HANDLE handle, struct kms_session **ret_session)
{
    return kms_sessions_get(current()->sessions, handle, ret_session);
}

CK_RV kms_session_take(CK_SESSION_HANDLE handle, struct kms_session **ret_session)
{
    struct kms_session *session = NULL;
    CK_RV rv = kms_sessions_get(current()->sessions, handle, &session);

    if (rv != CKR_OK) {
        return rv;
    }
    if (atomic_exchange(&session->busy, true)) {
        kms_session_unref(session);
        return CKR_OPERATION_ACTIVE;
    }
    *ret_session = session;
    return CKR_OK;
}

void kms_session_give(struct kms_session *session)
{
    atomic_store(&session->busy, false);
    kms_session_unref(session);
}

CK_RV kms_session_open(CK_SLOT_ID id, CK_FLAGS flags, CK_SESSION_HANDLE *ret_handle)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_slot(id, &slot);

    return rv != CKR_OK ? rv : kms_sessions_open(current()->sessions, slot, flags, ret_handle);
}

CK_RV kms_session_close(CK_SESSION_HANDLE handle)
{
    return kms_sessions_close(current()->sessions, handle);
}

CK_RV kms_session_close_all(CK_SLOT_ID id)
{
    struct kms_slot *slot = NULL;
    CK_RV rv = kms_library_slot(id, &slot);

    if (rv == CKR_OK) {
        kms_sessions_close_all(current()->sessions, slot);
    }
    return rv;
}
