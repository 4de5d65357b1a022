/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for secrets, over libsodium's guarded allocations: locked where the limit allows, excluded
 * from core dumps, wiped when freed. Call kms_secure_init() once, before any thread is made.
 */
#ifndef KMS_COMMON_SECURE_H
#define KMS_COMMON_SECURE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

/* Readies libsodium. Idempotent, thread-safe. KMS_E_INTERNAL if it cannot start. */
enum kms_status kms_secure_init(void) KMS_MUST_CHECK;

/*
 * Heap memory for a secret of @size bytes, zeroed; NULL when there is none. Freed, and wiped by
 * kms_secure_free() only. Costs a few pages each: for PINs and pools, not for every call.
 */
void *kms_secure_new(size_t size);
void kms_secure_free(void *ptr);

/* Whether @size more bytes can be locked under this process's limit: the one warning is the
 * caller's. */
bool kms_secure_can_lock(size_t size);

/* Wipe that the compiler may not remove. */
void kms_wipe(void *ptr, size_t size);

/* Random bytes of the kernel's generator: for probes and PINs, not for keys or IVs (the HSM makes
 * those). */
enum kms_status kms_random(void *ret_bytes, size_t size) KMS_MUST_CHECK;

/* Constant-time comparison of @size bytes. */
bool kms_secret_equal(const void *a, const void *b, size_t size);

/*
 * Process hygiene for whoever holds keys or PINs: no core dump (RLIMIT_CORE 0), non-dumpable
 * (PR_SET_DUMPABLE 0: /proc/PID/mem and ptrace are then root's only), no new privileges.
 */
enum kms_status kms_secure_harden_process(struct kms_error *err) KMS_MUST_CHECK;

/*
 * A pool of equal slots in locked memory, for the hot path: taking and giving back cost no system
 * call, a slot is wiped as it comes back. It grows to @slot_count slots as they are needed.
 * Thread-safe. NULL when all are taken, or there is no memory for more: the caller then falls back
 * on kms_secure_new() or answers KMS_E_BUSY.
 */
struct kms_secure_pool;
struct kms_secure_pool *kms_secure_pool_new(size_t slot_size, size_t slot_count);
void kms_secure_pool_free(struct kms_secure_pool *pool); /* every slot must be back */
void *kms_secure_pool_take(struct kms_secure_pool *pool);
void kms_secure_pool_give(struct kms_secure_pool *pool, void *slot);

#endif
