/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can go wrong, kept apart as far as callers must tell it apart, and the error object that
 * says it.
 *
 * An error is filled once, where the cause is known, and passed up untouched: kms_error_set() on an
 * error that is already set changes nothing. Outer code logs it once, at the edge. The text never
 * holds a secret.
 */
#ifndef KMS_COMMON_STATUS_H
#define KMS_COMMON_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum kms_status {
    KMS_OK = 0,
    KMS_E_INVALID,     /* the caller's argument or the configuration is wrong */
    KMS_E_BAD_DATA,    /* ciphertext or signature: altered, truncated, foreign */
    KMS_E_TOO_LARGE,   /* over a named limit */
    KMS_E_NOT_FOUND,   /* no such key, token, file, secret */
    KMS_E_EXISTS,      /* would overwrite */
    KMS_E_UNSUPPORTED, /* this backend, token or key cannot do it */
    KMS_E_AUTH,        /* our credential was refused (wrong PIN, expired token) */
    KMS_E_DENIED,      /* the credential is good, the policy says no */
    KMS_E_KEY_STATE,   /* the key exists and is disabled, destroyed, not yet or no longer valid */
    KMS_E_THROTTLED,   /* the service asks us to slow down */
    KMS_E_UNAVAILABLE, /* the service or device is not there now; trying later may help */
    KMS_E_TIMEOUT,     /* the deadline passed */
    KMS_E_CANCELLED,   /* the caller gave up */
    KMS_E_PROTOCOL,    /* a reply we cannot understand or verify */
    KMS_E_BUSY,        /* one of our own bounds (queue, sessions, connections) is reached */
    KMS_E_NOMEM,
    KMS_E_INTERNAL, /* a bug of ours */
    KMS_STATUS_COUNT
};

#define KMS_ERROR_CODE_MAX                                                                         \
    64 /* provider's own code, with NUL: "CKR_DEVICE_REMOVED", "AccessDenied" */
#define KMS_ERROR_TEXT_MAX 512

struct kms_error {
    enum kms_status status;
    char code[KMS_ERROR_CODE_MAX]; /* provider's code, or "" */
    char
        request_id[KMS_ERROR_CODE_MAX]; /* provider's request id, or ours that it was sent, or "" */
    char text[KMS_ERROR_TEXT_MAX];      /* one sentence, no newline, no secret */
    uint64_t retry_after_ns; /* from now: the service said that nothing is gained before; 0: it said
                                nothing. Set after kms_error_set() by who knows */
};

#define KMS_ERROR_INIT                                                                             \
    {                                                                                              \
        .status = KMS_OK                                                                           \
    }

#define KMS_MUST_CHECK         __attribute__((warn_unused_result))
#define KMS_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

/*
 * Sets @err to @status and the formatted sentence unless it is set already, and returns the status
 * that
 * @err then holds, so that `return kms_error_set(err, KMS_E_X, "...")` is the idiom. @err may be
 * NULL: then only @status is returned.
 */
enum kms_status kms_error_set(struct kms_error *err, enum kms_status status, const char *fmt, ...)
    KMS_PRINTF(3, 4);

/* The same, with the provider's own code ("CKR_DEVICE_REMOVED"); @code may be NULL. */
enum kms_status kms_error_set_code(struct kms_error *err, enum kms_status status, const char *code,
                                   const char *fmt, ...) KMS_PRINTF(4, 5);

/*
 * Another status and sentence for what @err says, which may be among the arguments; the provider's
 * code, request id and advice on when to ask again stay. Returns @status; @err may be NULL.
 */
enum kms_status kms_error_reword(struct kms_error *err, enum kms_status status, const char *fmt,
                                 ...) KMS_PRINTF(3, 4);

/* Back to KMS_OK and empty, before the object serves another call. */
void kms_error_clear(struct kms_error *err);

/* The status's fixed lower-case name ("unavailable"), for logs and metric labels. Never NULL. */
const char *kms_status_name(enum kms_status status);

/* True for what may pass by itself and is worth another try inside the deadline. */
bool kms_status_is_transient(enum kms_status status);

#endif
