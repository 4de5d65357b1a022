/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/rpc.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>

#include "common/clock.h"
#include "common/cond.h"
#include "common/log.h"
#include "kmsbridge/cork.h"
#include "kmsbridge/rpc_parts.h"

#define SLOTS_PER_METHOD  8 /* calls that gRPC may hand over before we come round */
#define UNKNOWN_SLOTS     2
#define SECRET_SLOTS      64 /* replies in the locked pool; more are allocated one by one */
#define KEEPALIVE_MS      60000
#define KEEPALIVE_WAIT_MS 20000
#define STUCK_WAIT_NS     KMS_NS_PER_S
#define MEMORY_BASE       ((size_t)32 << 20) /* of gRPC: buffers of connections and messages */
#define MEMORY_PER_CALL   ((size_t)16 << 10)

/* --- one row a status: what a client is told --- */

static const grpc_status_code codes[KMS_STATUS_COUNT] = {
    [KMS_OK] = GRPC_STATUS_OK,
    [KMS_E_INVALID] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_BAD_DATA] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_TOO_LARGE] = GRPC_STATUS_INVALID_ARGUMENT,
    [KMS_E_NOT_FOUND] = GRPC_STATUS_NOT_FOUND,
    [KMS_E_EXISTS] = GRPC_STATUS_ALREADY_EXISTS,
    [KMS_E_UNSUPPORTED] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_AUTH] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_DENIED] = GRPC_STATUS_PERMISSION_DENIED,
    [KMS_E_KEY_STATE] = GRPC_STATUS_FAILED_PRECONDITION,
    [KMS_E_THROTTLED] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_UNAVAILABLE] = GRPC_STATUS_UNAVAILABLE,
    [KMS_E_TIMEOUT] = GRPC_STATUS_DEADLINE_EXCEEDED,
    [KMS_E_CANCELLED] = GRPC_STATUS_CANCELLED,
    [KMS_E_PROTOCOL] = GRPC_STATUS_INTERNAL,
    [KMS_E_BUSY] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_NOMEM] = GRPC_STATUS_RESOURCE_EXHAUSTED,
    [KMS_E_INTERNAL] = GRPC_STATUS_INTERNAL,
};

int kms_rpc_code(enum kms_status status)
{
    return status < KMS_STATUS_COUNT ? (int)codes[status] : (int)GRPC_STATUS_INTERNAL;
}

void kms_rpc_reply_error(struct kms_rpc_reply *reply, enum kms_status status, const char *text)
{
    reply->status = status;
    reply->message.len = 0;
    snprintf(reply->detail, sizeof reply->detail, "%s", text);
}

/*
 * Abseil built without NDEBUG, as Debian's is, searches every mutex operation for possible
 * deadlocks. absl::SetMutexDeadlockDetectionMode(OnDeadlockCycle::kIgnore) is its public switch; it
 * is C++, so it is looked up by its mangled name, with and without Debian's inline namespace, and
 * left alone if not found.
 */
static void quiet_abseil(void)
{
    static const char *const names[] = {
        "_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
        "_ZN4absl29SetMutexDeadlockDetectionModeENS_15OnDeadlockCycleE",
    };
    enum { ABSL_IGNORE = 0 };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *symbol = dlsym(RTLD_DEFAULT, names[i]);
        if (symbol != NULL) {
            void (*set_mode)(int) = NULL;
            memcpy(&set_mode, &symbol, sizeof set_mode);
            set_mode(ABSL_IGNORE);
            return;
        }
    }
    kms_log(KMS_LOG_DEBUG, "rpc: Abseil's deadlock detection is left as it is");
}

/* --- start and stop --- */

static void grpc_log(gpr_log_func_args *args)
{
    kms_log(args->severity == GPR_LOG_SEVERITY_ERROR ? KMS_LOG_WARN : KMS_LOG_DEBUG, "grpc: %s",
            args->message);
}

/*
 * gRPC gathers a message whole, however long it says it is, before it looks at
 * GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH. What bounds its memory is the quota: over it, streams are
 * reset with ENHANCE_YOUR_CALM, which is ResourceExhausted to their client.
 */
static grpc_resource_quota *quota_new(const struct kms_rpc_limits *limits)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("kms");
    grpc_resource_quota_resize(quota, MEMORY_BASE + limits->calls * MEMORY_PER_CALL);
    return quota;
}

static grpc_server *server_new(const struct kms_rpc_limits *limits)
{
    grpc_resource_quota *quota = quota_new(limits);
    grpc_arg args[] = {
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_CONCURRENT_STREAMS,
         .value.integer = KMS_RPC_STREAMS_MAX},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
         .value.integer = KMS_RPC_MESSAGE_MAX},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_METADATA_SIZE,
         .value.integer = 16384},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_TIME_MS,
         .value.integer = KEEPALIVE_MS},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
         .value.integer = KEEPALIVE_WAIT_MS},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS,
         .value.integer = 1},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA,
         .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION,
         .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_CHANNELZ,
         .value.integer = 0},
    };
    grpc_channel_args channel_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_server *server = grpc_server_create(&channel_args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

static enum kms_status methods_register(struct kms_rpc *rpc, struct kms_error *err)
{
    while (rpc->methods[rpc->method_count].path != NULL) {
        size_t i = rpc->method_count++;
        if (i == KMS_RPC_METHODS_MAX) {
            return kms_error_set(err, KMS_E_INTERNAL, "rpc: more than %d methods",
                                 KMS_RPC_METHODS_MAX);
        }
        /* no host: every :authority is served */
        rpc->registered[i] = grpc_server_register_method(
            rpc->server, rpc->methods[i].path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (rpc->registered[i] == NULL) {
            return kms_error_set(err, KMS_E_INTERNAL, "rpc: gRPC refuses %s", rpc->methods[i].path);
        }
    }
    return KMS_OK;
}

static void rpc_free(struct kms_rpc *rpc)
{
    if (rpc->server != NULL) {
        grpc_server_destroy(rpc->server);
    }
    if (rpc->queue != NULL) {
        grpc_completion_queue_destroy(rpc->queue);
    }
    if (rpc->credentials != NULL) {
        grpc_server_credentials_release(rpc->credentials);
    }
    grpc_shutdown_blocking();
    kms_secure_pool_free(rpc->secrets);
    free(rpc);
}

static int cpus_usable(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void slots_post(struct kms_rpc *rpc)
{
    for (size_t i = 0; i < rpc->method_count; i++) {
        for (int n = 0; n < SLOTS_PER_METHOD; n++) {
            kms_rpc_slot_post(rpc, &rpc->methods[i], i);
        }
    }
    for (int n = 0; n < UNKNOWN_SLOTS; n++) {
        kms_rpc_slot_post(rpc, NULL, 0);
    }
}

enum kms_status kms_rpc_start(const struct kms_rpc_method *methods, void *ctx,
                              const struct kms_rpc_limits *limits, kms_rpc_observe observe,
                              struct kms_rpc **ret_rpc, struct kms_error *err)
{
    struct kms_rpc *rpc = calloc(1, sizeof *rpc);
    if (rpc == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "rpc: out of memory");
    }
    quiet_abseil();
    gpr_set_log_function(grpc_log);
    grpc_init();
    rpc->methods = methods;
    rpc->ctx = ctx;
    rpc->limits = *limits;
    rpc->cpus = cpus_usable();
    rpc->observe = observe;
    atomic_init(&rpc->call_timeout_ns, limits->call_timeout_ns);
    pthread_mutex_init(&rpc->guard_mutex, NULL);
    pthread_mutex_init(&rpc->work_mutex, NULL);
    pthread_mutex_init(&rpc->same_mutex, NULL);
    kms_cond_init(&rpc->guard_wake);
    kms_cond_init(&rpc->work_gone);
    rpc->shutdown.kind = TAG_SHUTDOWN;
    rpc->secrets = kms_secure_pool_new(2 * KMS_RPC_REPLY_MAX, SECRET_SLOTS);
    rpc->server = server_new(limits);
    rpc->credentials = grpc_insecure_server_credentials_create();
    rpc->queue = grpc_completion_queue_create_for_next(NULL);
    enum kms_status status = KMS_OK;
    if (!kms_cork_init() || rpc->secrets == NULL || rpc->server == NULL ||
        rpc->credentials == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "rpc: cannot make a gRPC server");
        goto out;
    }
    status = methods_register(rpc, err);
    if (status != KMS_OK) {
        goto out;
    }
    grpc_server_register_completion_queue(rpc->server, rpc->queue, NULL);
    grpc_server_start(rpc->server);
    slots_post(rpc);
    atomic_store(&rpc->polled_ns, kms_now_ns());
    if (pthread_create(&rpc->guard, NULL, kms_rpc_guard_main, rpc) != 0 ||
        !kms_rpc_poller_start(rpc, 0)) {
        return kms_error_set(err, KMS_E_NOMEM, "rpc: cannot start threads: %s", strerror(errno));
    }
    *ret_rpc = rpc;
    return KMS_OK;
out:
    if (rpc->queue != NULL) {
        grpc_completion_queue_shutdown(rpc->queue);
    }
    rpc_free(rpc);
    return status;
}

void kms_rpc_serve_fd(struct kms_rpc *rpc, int fd)
{
    grpc_server_add_channel_from_fd(rpc->server, fd, rpc->credentials);
}

void kms_rpc_set_call_timeout(struct kms_rpc *rpc, uint64_t ns)
{
    atomic_store(&rpc->call_timeout_ns, ns);
}

void kms_rpc_stats(struct kms_rpc *rpc, struct kms_rpc_stats *ret_stats)
{
    uint64_t now = kms_now_ns();
    uint64_t polled = atomic_load(&rpc->polled_ns);
    ret_stats->calls_in_flight = atomic_load(&rpc->calls_in_flight);
    ret_stats->poller_quiet_ns = now > polled ? now - polled : 0;
    ret_stats->inline_now = kms_rpc_all_inline(rpc);
    pthread_mutex_lock(&rpc->work_mutex);
    ret_stats->queued = rpc->queued;
    ret_stats->workers = rpc->workers;
    pthread_mutex_unlock(&rpc->work_mutex);
}

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_nsec = (long)(ms * KMS_NS_PER_MS)};
    nanosleep(&ts, NULL);
}

static bool wait_flag(const atomic_bool *flag, uint64_t ns)
{
    uint64_t deadline = kms_deadline_in(ns);
    while (!atomic_load(flag) && !kms_deadline_passed(deadline)) {
        pause_ms(2);
    }
    return atomic_load(flag);
}

static bool pollers_stop(struct kms_rpc *rpc)
{
    uint64_t deadline = kms_deadline_in(STUCK_WAIT_NS);
    grpc_completion_queue_shutdown(rpc->queue);
    while (atomic_load(&rpc->pollers_alive) != 0 && !kms_deadline_passed(deadline)) {
        pause_ms(1);
    }
    return atomic_load(&rpc->pollers_alive) == 0;
}

bool kms_rpc_stop(struct kms_rpc *rpc, uint64_t grace_ns)
{
    if (rpc == NULL) {
        return true;
    }
    pthread_mutex_lock(&rpc->guard_mutex);
    atomic_store(&rpc->stopping, true);
    pthread_cond_signal(&rpc->guard_wake);
    pthread_mutex_unlock(&rpc->guard_mutex);
    grpc_server_shutdown_and_notify(rpc->server, rpc->queue, &rpc->shutdown);
    if (!wait_flag(&rpc->shut_down, grace_ns)) {
        grpc_server_cancel_all_calls(rpc->server);
        wait_flag(&rpc->shut_down, STUCK_WAIT_NS);
    }
    if (!kms_rpc_workers_stop(rpc, kms_deadline_in(STUCK_WAIT_NS)) ||
        !atomic_load(&rpc->shut_down) || !pollers_stop(rpc)) {
        return false;
    }
    pthread_join(rpc->guard, NULL); /* last: it may be the one that polls */
    rpc_free(rpc);
    return true;
}
