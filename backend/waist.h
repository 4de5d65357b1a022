/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fronts call backends: one handle, the one place that retries (jittered, inside the deadline,
 * never for generate and rotate), turns a missing op into KMS_E_UNSUPPORTED, checks ceilings, and
 * tells an observer what was done.
 */
#ifndef KMS_BACKEND_WAIST_H
#define KMS_BACKEND_WAIST_H

#include "backend/backend.h"

enum kms_op {
    KMS_OP_LIST_KEYS,
    KMS_OP_GENERATE,
    KMS_OP_DESTROY,
    KMS_OP_ROTATE,
    KMS_OP_PUBLIC_KEY,
    KMS_OP_ENCRYPT,
    KMS_OP_DECRYPT,
    KMS_OP_WRAP,
    KMS_OP_UNWRAP,
    KMS_OP_SIGN,
    KMS_OP_VERIFY,
    KMS_OP_MAC,
    KMS_OP_RANDOM,
    KMS_OP_SET_LABEL,
    KMS_OP_DESCRIBE,
    KMS_OP_CHECK_PIN,
    KMS_OP_DATA_KEY,
    KMS_OP_REWRAP,
    KMS_OP_COUNT
};
const char *kms_op_name(enum kms_op op); /* "encrypt", ...; metric label */

/* Called after every attempt, from the calling thread; must not block. @status is the attempt's. */
typedef void (*kms_observe)(void *ctx, const char *backend, enum kms_op op, enum kms_status status,
                            uint64_t duration_ns);

struct kms_waist;

/* Opens the backend of @conf (borrowed, outlives the waist). @observe may be NULL. */
enum kms_status kms_waist_open(const struct kms_backend_conf *conf, kms_observe observe,
                               void *observe_ctx, struct kms_waist **ret_waist,
                               struct kms_error *err) KMS_MUST_CHECK;
void kms_waist_close(struct kms_waist *waist); /* NULL is fine; no call is in flight */
const char *kms_waist_name(const struct kms_waist *waist);
bool kms_waist_can(const struct kms_waist *waist, enum kms_op op);
void kms_waist_health(struct kms_waist *waist, struct kms_health *ret_health);

/* Each as the op of the same name in backend.h. On failure call->error is set and its status
 * returned. */
enum kms_status kms_waist_list_keys(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_key_filter *filter, kms_key_visit visit,
                                    void *ctx) KMS_MUST_CHECK;
enum kms_status kms_waist_generate(struct kms_waist *waist, struct kms_call *call,
                                   const struct kms_key_template *tmpl,
                                   struct kms_key_info *ret_info) KMS_MUST_CHECK;
enum kms_status kms_waist_destroy(struct kms_waist *waist, struct kms_call *call,
                                  const char *ref) KMS_MUST_CHECK;
enum kms_status kms_waist_rotate(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 struct kms_key_info *ret_info) KMS_MUST_CHECK;
enum kms_status kms_waist_public_key(struct kms_waist *waist, struct kms_call *call,
                                     const char *ref, struct kms_buf *ret_spki) KMS_MUST_CHECK;
enum kms_status kms_waist_encrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span plaintext,
                                  struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_waist_decrypt(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                  const struct kms_params *params, struct kms_span ciphertext,
                                  struct kms_buf *ret_plaintext) KMS_MUST_CHECK;
enum kms_status kms_waist_wrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span key,
                               struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_waist_unwrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span wrapped,
                                 struct kms_buf *ret_key) KMS_MUST_CHECK;
enum kms_status kms_waist_data_key(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                   const struct kms_params *params, size_t len,
                                   struct kms_buf *ret_key,
                                   struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_waist_rewrap(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span ciphertext,
                                 struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_waist_sign(struct kms_waist *waist, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_buf *ret_signature) KMS_MUST_CHECK;
enum kms_status kms_waist_verify(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, struct kms_span input,
                                 struct kms_span signature) KMS_MUST_CHECK;
enum kms_status kms_waist_mac(struct kms_waist *waist, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span input,
                              struct kms_buf *ret_mac) KMS_MUST_CHECK;
enum kms_status kms_waist_random(struct kms_waist *waist, struct kms_call *call,
                                 struct kms_buf *ret_bytes) KMS_MUST_CHECK;
enum kms_status kms_waist_set_label(struct kms_waist *waist, struct kms_call *call, const char *ref,
                                    const char *label) KMS_MUST_CHECK;
enum kms_status kms_waist_describe(struct kms_waist *waist, struct kms_call *call,
                                   struct kms_token_info *ret_info) KMS_MUST_CHECK;
enum kms_status kms_waist_check_pin(struct kms_waist *waist, struct kms_call *call,
                                    struct kms_span pin) KMS_MUST_CHECK;

#endif
