/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind crypto.h share: an operation, and the two ways in which one is done: here
 * (operation_local.c), or by the agent (operation_token.c). operation.c is the state machine, the
 * two-call protocol and the host's buffers; a path sees spans in, and bufs that are large enough.
 *
 * Threads: an operation belongs to whoever has taken its session.
 */
#ifndef KMS_PKCS11_CORE_OPERATION_H
#define KMS_PKCS11_CORE_OPERATION_H

#include "pkcs11/core/mech.h"
#include "pkcs11/core/session.h"
#include "pkcs11/core/soft.h"
#include "pkcs11/core/token.h"

enum kms_step { KMS_STEP_ONCE, KMS_STEP_UPDATE, KMS_STEP_FINAL };

struct kms_message;

struct kms_path {
    /* the mechanism's parameter is checked here, and nothing of it is borrowed afterwards */
    CK_RV (*begin)(struct kms_operation *op, const CK_MECHANISM *mechanism);
    void (*end)(struct kms_operation *op);
    /* the most that @step puts out for @len bytes in; @ret_exact when it is that, to the byte */
    size_t (*room)(const struct kms_operation *op, enum kms_step step, size_t len, bool *ret_exact);
    /* @out has that room; not used by updates of sign, verify and digest */
    CK_RV(*run)
    (struct kms_operation *op, enum kms_step step, struct kms_span in, struct kms_buf *out);
    /* with the message (@once), or what updates brought */
    CK_RV(*verify)
    (struct kms_operation *op, bool once, struct kms_span in, struct kms_span signature);
};
extern const struct kms_path kms_path_local;
extern const struct kms_path kms_path_token;

/* A result that did not fit the host's buffer, in secure memory until it is collected. */
struct kms_kept {
    uint8_t *data; /* NULL: nothing is kept */
    size_t len;
    enum kms_step step;
    uint8_t input[32]; /* SHA-256 of what it was made of: the next call must bring the same */
    size_t input_len;
};

/* How a token's operation takes its input. */
enum kms_flow {
    KMS_FLOW_GATHER, /* kept until the end, KMS_PLAINTEXT_MAX bytes at most; one request */
    KMS_FLOW_HASH,   /* hashed here; one request */
    KMS_FLOW_CBC,    /* whole blocks go to the agent as they come, chained by the IV */
    KMS_FLOW_CTR     /* bytes go to the agent as they come; the counter is counted here */
};

/* AES-CBC and CTR in several requests. */
struct kms_chain {
    uint8_t iv[16]; /* CBC: the last block of ciphertext; CTR: the counter of the current block */
    uint8_t part[16];
    size_t part_len; /* CBC: bytes in part; CTR: bytes of the current block already used */
    uint64_t blocks; /* CTR: counted so far */
};

struct kms_operation {
    enum kms_op_kind kind;
    const struct kms_mech *mech;
    const struct kms_path *path;
    struct kms_object *key; /* a reference; NULL for digests */
    bool updated;           /* in several parts */
    struct kms_kept kept;
    struct kms_soft_op *soft; /* here: the operation; token: the digest of KMS_FLOW_HASH */

    struct kms_message *message; /* message.h; then there is no path */

    /* token only */
    struct kms_token_use use;
    enum kms_flow flow;
    struct kms_gather gathered;
    struct kms_chain chain;
};

/* Checked as C_*Init says: mechanism, key, type, use, parameter. @kind up to KMS_OPK_DIGEST. */
CK_RV kms_operation_new(enum kms_op_kind kind, const CK_MECHANISM *mechanism,
                        struct kms_object *key, struct kms_operation **ret_op);
void kms_operation_free(struct kms_operation *op); /* wipes; NULL is fine */
/* The part of it that the message API shares: @flag as the mechanism's, CKF_MESSAGE_ENCRYPT, ...
 */
CK_RV kms_operation_check(CK_FLAGS flag, CK_ATTRIBUTE_TYPE use, const struct kms_mech *mech,
                          struct kms_object *key);

/* One step with the host's pointers. False in @ret_over: the operation stays. */
CK_RV kms_operation_step(struct kms_operation *op, enum kms_step step, CK_BYTE_PTR in,
                         CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len, bool *ret_over);

/* operation_chain.c: KMS_FLOW_CBC and KMS_FLOW_CTR */
size_t kms_chain_room(const struct kms_operation *op, enum kms_step step, size_t len);
CK_RV kms_chain_update(struct kms_operation *op, struct kms_span in, struct kms_buf *out);
CK_RV kms_chain_final(struct kms_operation *op, struct kms_buf *out);

#endif
