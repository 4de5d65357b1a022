/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PKCS#11 module in this process: one however many backends use it and by whatever names of its
 * file, initialised, and guarded by a gate, so that C_Finalize never runs under a call that is
 * still inside.
 *
 * Thread-safe. A module is never unloaded: many leave threads, atexit handlers and thread-local
 * destructors behind.
 */
#ifndef KMS_BACKEND_P11_MODULE_H
#define KMS_BACKEND_P11_MODULE_H

#include "backend/p11/p11.h"

struct kms_p11_module;

/*
 * Loads the module of @name: a path, or without '/' the name of a p11-kit configuration file. Does
 * not call C_Initialize. @init_args (NULL: none, or p11-kit's x-init-reserved) is what pReserved
 * will be; a module that is in use has what its first user gave. KMS_E_UNAVAILABLE names the
 * module.
 */
enum kms_status kms_p11_module_get(const char *name, const char *init_args,
                                   struct kms_p11_module **ret_module,
                                   struct kms_error *err) KMS_MUST_CHECK;
/* NULL is fine. The last user's put finalizes. */
void kms_p11_module_put(struct kms_p11_module *module);

/* Others are at work with it, or may be behind another module (a wrapper). */
bool kms_p11_module_is_shared(struct kms_p11_module *module);
const CK_FUNCTION_LIST *kms_p11_module_functions(const struct kms_p11_module *module);

/*
 * Initialises the module anew, unless that was done since the caller saw epoch @seen (0: never
 * saw one). Waits for calls inside to end, at most until @deadline_ns; KMS_E_BUSY with nothing said
 * in @err when they do not. The caller must not be inside itself.
 */
enum kms_status kms_p11_module_start(struct kms_p11_module *module, uint64_t seen,
                                     uint64_t deadline_ns, uint64_t *ret_epoch,
                                     struct kms_error *err) KMS_MUST_CHECK;

/* The gate: every call into the module is between enter and leave. False when @epoch is over. */
bool kms_p11_module_enter(struct kms_p11_module *module, uint64_t epoch) KMS_MUST_CHECK;
void kms_p11_module_leave(struct kms_p11_module *module);
/* Calls now inside. */
unsigned kms_p11_module_inside(struct kms_p11_module *module);

#endif
