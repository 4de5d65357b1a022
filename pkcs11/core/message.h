/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process of the message API (5.9, 5.11, 5.14, 5.16): a key and a mechanism, and the message that
 * is being brought in parts, if one is. The operation of session->op that has it has no path.
 */
#ifndef KMS_PKCS11_CORE_MESSAGE_H
#define KMS_PKCS11_CORE_MESSAGE_H

#include "pkcs11/core/operation.h"

#define KMS_MESSAGE_IV_MAX 128
#define KMS_MESSAGE_MAX    (16u * 1024u * 1024u) /* bytes of a message in parts, session keys */
#define KMS_SIGN_PARAM_MAX 64                    /* of a signature's mechanism */

struct kms_message {
    bool begun; /* C_...MessageBegin came */

    /* AEAD: what Begin brought */
    uint8_t iv[KMS_MESSAGE_IV_MAX];
    size_t iv_len; /* 0: the token makes it at the end */
    struct kms_gather aad;
    struct kms_gather data;
    uint8_t base[KMS_MESSAGE_IV_MAX]; /* what the process's counter is XORed to: its first IV */
    size_t base_len;                  /* 0: none yet */

    /* sign, verify */
    CK_MECHANISM mechanism; /* its parameter is below */
    uint8_t param[KMS_SIGN_PARAM_MAX];
    struct kms_operation *part; /* the message's own operation */
};

void kms_message_free(struct kms_message *message); /* wipes; NULL is fine */
/* The message is over, the process goes on. */
void kms_message_reset(struct kms_message *message);
/* CKR_OPERATION_NOT_INITIALIZED; CKR_OPERATION_ACTIVE unless a message is, or is not, @begun. */
CK_RV kms_message_find(struct kms_session *session, enum kms_op_kind kind, bool begun,
                       struct kms_operation **ret_op);

/* message_sign.c */
CK_RV kms_message_sign_begin(struct kms_operation *op);
CK_RV kms_message_sign_next(struct kms_operation *op, struct kms_span in, CK_BYTE_PTR signature,
                            CK_ULONG_PTR signature_len);
/* message_aead.c; @in and @out as the host gave them */
CK_RV kms_message_aead_begin(struct kms_operation *op, void *param, CK_ULONG param_len,
                             struct kms_span aad);
CK_RV kms_message_aead_end(struct kms_operation *op, void *param, CK_ULONG param_len,
                           struct kms_span aad, struct kms_span in, CK_BYTE_PTR out,
                           CK_ULONG_PTR out_len);
CK_RV kms_message_aead_init(struct kms_operation *op, const CK_MECHANISM *mechanism);

#endif
